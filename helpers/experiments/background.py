"""How much the background decides: `python -m helpers.experiments.background`, on Tiny ImageNet's validation images.

The source's blurring experiment with the controls it lacks: regions of the same area elsewhere, the true boxes, and
networks of scenes, whose backgrounds are known to tell nothing or nearly everything.

The record's tables; a method is a region that stays sharp, a setting the radius of the blur in pixels:

- "accuracy": top-1 and top-5, without blur (variant "original"), with everything outside the region blurred
  ("outside"), and with the region blurred ("inside").
- "fall": accuracy without blur less accuracy with the outside blurred; "lead": accuracy with the outside blurred, less
  the same for the region moved elsewhere. Both are means of differences, image by image.
- "area": of each region, in shares of the image; "covered": the share of the object that LICNN's region holds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helpers import networks
from helpers.background import BlurHits, accuracy_under_blur, salient_region, same_area_control
from helpers.capture import in_batches, logits
from helpers.experiments.environment import run_environment
from helpers.experiments.objects import ObjectImages, drawn_scenes, photographs
from helpers.experiments.report import Record, header, run_record, summary
from helpers.experiments.train.datasets import SWAP, data_hash, held_out
from helpers.experiments.train.recipes import BIAS_OF_95_PERCENT, RECIPES
from helpers.experiments.train.run import shipped_or_trained
from helpers.licnn import saliency_map
from helpers.results import long_table
from helpers.results._format import Row, frame

NAME = "background"
RADII, TOPS = (2.0, 5.0, 10.0), (1, 5)  # pixels; the source's, on images of 224 pixels where these have 64
SEED = 401  # of scenes that no network was trained, tested or tuned on
SCENES = 200
SCENE_NETWORKS = ("scenes-gap", "scenes-biased")  # whose backgrounds tell nothing, or the class 95 times in 100
SEEDS = (0, 1, 2)  # of their trainings
BATCH = 20  # images a pass: larger ones are slower on a CPU, whose memory they leave and enter anew each time
JUDGES = {"photos-200": "photos-200-gmp"}  # whose errors make the hard images
SMALL = 0.5  # share of the image below which a box leaves a background to blur
GROUNDS: dict[str, dict[str, Any]] = {
    "matched": {"bias": BIAS_OF_95_PERCENT},
    "swapped": {"bias": BIAS_OF_95_PERCENT, "background_shift": SWAP},
    "at random": {},
}


def regions(model: nn.Module, images: ObjectImages) -> dict[str, Tensor]:
    """What stays sharp, name -> (N, H, W) bool: LICNN's region, the object itself, and their controls.

    The controls have the area of what they are named after, and know less of the object.
    """
    salient = salient_region(in_batches(saliency_map, model, images.x, batch_size=BATCH))
    return {
        "LICNN": salient,
        "LICNN, moved": same_area_control(salient, "shift"),
        "the middle": same_area_control(salient, "center"),
        "true": images.masks,
        "true, moved": same_area_control(images.masks, "shift"),
    }


def by_top(hits: Tensor) -> dict[str, dict[str, float]]:
    """Mean and error of hits (T, N), or of their differences, under the names "top-1" and "top-5"."""
    return {f"top-{top}": summary(row.double()) for top, row in zip(TOPS, hits, strict=True)}


def by_radius(hits: Tensor) -> dict[float, dict[str, dict[str, float]]]:
    """The same of hits (R, T, N) under the radius, then under the top."""
    return {radius: by_top(part) for radius, part in zip(RADII, hits, strict=True)}


def blur_rows(hits: dict[str, BlurHits], chosen: Tensor, **constants: Any) -> list[Row]:
    """Rows of "accuracy", "lead" and "fall".

    Args:
        hits: of every region of `regions`.
        chosen: (N,) bool, the images that count.
        constants: columns that are the same in all rows.
    """
    rows: list[Row] = []
    for name, region in hits.items():
        where = {"method": name, "n": int(chosen.sum()), **constants}
        rows += long_table(by_top(region.original[:, chosen]), "metric", table="accuracy", variant="original", **where)
        for variant, blurred in (("outside", region.outside), ("inside", region.inside)):
            nested = by_radius(blurred[..., chosen])
            rows += long_table(nested, "setting", "metric", table="accuracy", variant=variant, **where)
        if f"{name}, moved" in hits:
            outside = region.outside[..., chosen].double()
            lead = outside - hits[f"{name}, moved"].outside[..., chosen].double()
            rows += long_table(by_radius(lead), "setting", "metric", table="lead", **where)
            fall = region.original[:, chosen].double() - outside
            rows += long_table(by_radius(fall), "setting", "metric", table="fall", **where)
    return rows


def experiment_rows(model: nn.Module, images: ObjectImages, sets: dict[str, Tensor], **constants: Any) -> list[Row]:
    """The whole experiment for one network, every region.

    Args:
        model: the network.
        images: normalised as it expects them.
        sets: name -> (N,) bool, the sets of images that are reported on.
        constants: columns that are the same in all rows.
    """
    sharp = regions(model, images)
    parts = torch.stack(list(sharp.values()))  # (regions, N, H, W)
    every = accuracy_under_blur(model, images.x, images.labels, parts, RADII, TOPS, batch_size=BATCH)
    by_region = zip(sharp, every.outside, every.inside, strict=True)
    hits = {name: BlurHits(every.original, outside, inside) for name, outside, inside in by_region}
    object_area = images.masks.flatten(1).sum(1)
    covered = ((sharp["LICNN"] & images.masks).flatten(1).sum(1) / object_area).cpu()
    area = {name: region.flatten(1).float().mean(1).cpu() for name, region in sharp.items()}
    rows: list[Row] = []
    for name, chosen in sets.items():
        where = {"set": name, **constants}
        count = int(chosen.sum())
        rows += long_table(summary(covered[chosen].double()), table="covered", method="LICNN", n=count, **where)
        areas = {region: summary(values[chosen]) for region, values in area.items()}
        rows += long_table(areas, "method", table="area", n=count, **where)
        rows += blur_rows(hits, chosen, **where)
    return rows


def photo_rows(device: torch.device) -> list[Row]:
    """Every validation image, natural; and those that the other network gets wrong: filtered to be hard."""
    rows: list[Row] = []
    for name, judge in JUDGES.items():
        images = photographs(name, device)
        answers = in_batches(logits, networks.load(judge, device), images.x, batch_size=BATCH).argmax(1)
        wrong = (answers != images.labels).cpu()
        small = images.masks.float().mean((1, 2)).cpu() < SMALL
        sets = {
            "natural": torch.ones(len(wrong), dtype=torch.bool),
            "hard": wrong,
            "easy": ~wrong,
            "natural, box below half": small,
            "hard, box below half": wrong & small,
        }
        rows += experiment_rows(networks.load(name, device), images, sets, network=name)
    return rows


def scene_rows(out: Path, device: torch.device) -> list[Row]:
    """Networks whose backgrounds tell nothing, or the class 95 times in 100, on three kinds of backgrounds."""
    rows: list[Row] = []
    for name in SCENE_NETWORKS:
        for seed in SEEDS:
            model = shipped_or_trained(name, seed, out, device)
            for ground, options in GROUNDS.items():
                images = drawn_scenes(name, SCENES, SEED, device, **options)
                sets = {ground: torch.ones(len(images.x), dtype=torch.bool)}
                rows += experiment_rows(model, images, sets, network=name, seed=seed)
    return rows


def record(out: Path, device: torch.device) -> Record:
    """Everything the chapter prints of these runs."""
    about = header(
        NAME,
        run_environment(device),
        data={"Tiny ImageNet": data_hash(held_out(RECIPES["photos-200"]))},
        seeds={name: SEEDS for name in SCENE_NETWORKS},
        settings={"radii in pixels": RADII, "judges": JUDGES, "scenes": SCENES, "seed of the scenes": SEED},
    )
    return Record(about, frame(photo_rows(device) + scene_rows(out, device)).round(6))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "How much of a network's accuracy hangs on the background.", record, arguments)


if __name__ == "__main__":
    sys.exit(main())
