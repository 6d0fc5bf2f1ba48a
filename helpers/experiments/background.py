"""How much the background decides: `python -m helpers.experiments.background`, on Tiny ImageNet's validation images.

The source's blurring experiment with the controls it lacks: regions of the same area elsewhere, the true boxes, and
networks of scenes, whose backgrounds are known to tell nothing or nearly everything.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import networks
from helpers.background import BlurHits, accuracy_under_blur, salient_region, same_area_control
from helpers.capture import in_batches
from helpers.data import scenes
from helpers.experiments.environment import run_environment
from helpers.experiments.licnn import photographs, trained
from helpers.experiments.report import rounded, run_record, summary
from helpers.experiments.train.datasets import SWAP, data_hash, held_out
from helpers.experiments.train.recipes import BIAS_OF_95_PERCENT, RECIPES
from helpers.licnn import saliency_map

NAME = "background"
COMMAND = f"python -m helpers.experiments.{NAME} --publish"
RADII, TOPS = (2.0, 5.0, 10.0), (1, 5)  # pixels; the source's, on images of 224 pixels where these have 64
SEED = 401  # of scenes that no network was trained, tested or tuned on
SCENES = 200
SEEDS = (0, 1, 2)  # of the scene networks' trainings
BATCH = 20  # images a pass: larger ones are slower on a CPU, whose memory they leave and enter anew each time
JUDGES = {"photos-200": "photos-200-gmp"}  # whose errors make the hard images
GROUNDS: dict[str, dict[str, Any]] = {
    "matched": {"bias": BIAS_OF_95_PERCENT},
    "swapped": {"bias": BIAS_OF_95_PERCENT, "background_shift": SWAP},
    "at random": {},
}


def regions(model: nn.Module, x: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """What stays sharp: LICNN's region, regions of its area that know less, the true one and its control.

    Args:
        model: the network.
        x: images, (N, C, H, W), normalised.
        truth: (N, H, W) bool, the objects.
    """
    found = salient_region(in_batches(saliency_map, model, x, batch_size=BATCH))
    return {
        "LICNN": found,
        "LICNN, moved": same_area_control(found, "shift"),
        "the middle": same_area_control(found, "center"),
        "true": truth,
        "true, moved": same_area_control(truth, "shift"),
    }


def accuracies(hits: BlurHits, chosen: Tensor) -> dict[str, Any]:
    """Means over chosen images (N,) bool: for each top "original", and for each radius "outside" and "inside"."""

    def by_top(one: Tensor) -> dict[str, dict[str, float]]:
        return {str(top): summary(row[chosen].double()) for top, row in zip(TOPS, one, strict=True)}

    return {
        "original": by_top(hits.original),
        "outside": {str(r): by_top(one) for r, one in zip(RADII, hits.outside, strict=True)},
        "inside": {str(r): by_top(one) for r, one in zip(RADII, hits.inside, strict=True)},
    }


def differences(hits: BlurHits, control: BlurHits, chosen: Tensor) -> dict[str, Any]:
    """How many more of the chosen images (N,) a region leaves right than its control, in pairs, the outside blurred."""
    more = hits.outside.double() - control.outside.double()  # (R, T, N)
    return {str(r): {str(t): summary(more[i, j][chosen]) for j, t in enumerate(TOPS)} for i, r in enumerate(RADII)}


def measured(model: nn.Module, x: Tensor, y: Tensor, truth: Tensor, sets: dict[str, Tensor]) -> dict[str, Any]:
    """The whole experiment for one network: every region, every set of images (N,) bool."""
    found = regions(model, x, truth)
    hits = {
        name: accuracy_under_blur(model, x, y, region, RADII, TOPS, batch_size=BATCH)
        for name, region in tqdm(found.items(), desc="regions")
    }
    covered = (found["LICNN"] & truth).flatten(1).sum(1) / truth.flatten(1).sum(1)
    area = {name: region.flatten(1).float().mean(1).cpu() for name, region in found.items()}
    rows = {}
    for key, chosen in sets.items():
        rows[key] = {
            "images": int(chosen.sum()),
            "covered": summary(covered.cpu()[chosen].double()),
            "area": {name: summary(one[chosen]) for name, one in area.items()},
            "accuracy": {name: accuracies(one, chosen) for name, one in hits.items()},
            "more than moved": {
                name: differences(hits[name], hits[f"{name}, moved"], chosen) for name in ("LICNN", "true")
            },
            "lost": {
                name: {
                    str(r): {
                        str(t): summary(hits[name].original[j][chosen].double() - one[j][chosen].double())
                        for j, t in enumerate(TOPS)
                    }
                    for r, one in zip(RADII, hits[name].outside, strict=True)
                }
                for name in ("LICNN", "true")
            },
        }
    return rows


def on_photographs(device: torch.device) -> dict[str, Any]:
    """Every validation image, natural; and those that the other network gets wrong: filtered to be hard."""
    found = {}
    for name, judge in JUDGES.items():
        x, y, truth = photographs(name, device)
        wrong = in_batches(_answers, networks.load(judge, device), x, batch_size=BATCH).cpu() != y.cpu()
        # A box that covers everything leaves no background to blur.
        there = truth.float().mean((1, 2)).cpu() < 0.5
        sets = {
            "natural": torch.ones(len(x), dtype=torch.bool),
            "hard": wrong,
            "easy": ~wrong,
            "natural, box below half": there,
            "hard, box below half": wrong & there,
        }
        found[name] = measured(networks.load(name, device), x, y, truth, sets)
    return found


def _answers(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def on_scenes(out: Path, device: torch.device) -> list[dict[str, Any]]:
    """Networks whose backgrounds tell nothing, or the class 95 times in 100, on three kinds of backgrounds."""
    rows = []
    for name in ("scenes-gap", "scenes-biased"):
        for seed in SEEDS:
            model = networks.load(name, device) if seed == 0 else trained(name, seed, out, device)
            row: dict[str, Any] = {"network": name, "seed": seed, "grounds": {}}
            for ground, options in GROUNDS.items():
                found = scenes(SCENES, SEED, **options)
                x = networks.normalize(found.images, networks.card(name)).to(device)
                y, truth = found.labels[:, 0].to(device), found.masks[:, 0].to(device)
                every = {"all": torch.ones(len(x), dtype=torch.bool)}
                row["grounds"][ground] = measured(model, x, y, truth, every)["all"]
            rows.append(row)
    return rows


def record(out: Path, device: torch.device) -> dict[str, Any]:
    """Everything the chapter prints of these runs."""
    photos = held_out(RECIPES["photos-200"])
    return {
        "name": NAME,
        "command": COMMAND,
        "data": {"Tiny ImageNet": data_hash(photos)},
        "facts": run_environment(device),
        "radii": list(RADII),
        "photographs": rounded(on_photographs(device)),
        "scenes": rounded(on_scenes(out, device)),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "How much of a network's accuracy hangs on the background.", record, arguments)


if __name__ == "__main__":
    sys.exit(main())
