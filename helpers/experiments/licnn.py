"""LICNN at full scale: `python -m helpers.experiments.licnn`, on scenes and on Tiny ImageNet's validation images.

What each part of LICNN's rule adds, on five networks; sanity checks for every method, layer by layer, three seeds; the
data randomisation test; and objects of classes that a network was never trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import networks
from helpers.capture import in_batches, layer_names, logits
from helpers.compare import VARIANTS, attribution_methods, compare_attention, two_object_methods, two_object_test
from helpers.compare._attention import BATCH
from helpers.data import CLASSES, mnist, scenes, tiny_imagenet, two_object_scenes
from helpers.experiments.environment import run_environment
from helpers.experiments.report import rounded, run_record, summary
from helpers.experiments.train import command as train
from helpers.experiments.train.datasets import DataSplit, data_hash, held_out, prepare, world
from helpers.experiments.train.recipes import RECIPES
from helpers.licnn import attention_map, saliency_map
from helpers.licnn.variants import agreement
from helpers.metrics import box_mask, map_similarity, mass_in_mask, pointing_game
from helpers.sanity import sanity_check

NAME = "licnn"
COMMAND = f"python -m helpers.experiments.{NAME} --publish"
SEED = 301  # of scenes that no network was trained, tested or tuned on
IMAGES, CHECKED = 300, 40  # images of the comparison, and of each sanity check
SCENE_NETWORKS, PHOTO_NETWORKS = ("scenes-gap", "scenes-gmp"), ("photos-gap", "photos-gmp", "photos-200")
SEEDS = (0, 1, 2)  # of random weights, and of trainings
SMALL = 0.5  # share of the image below which a box tells where an object is
HALF = len(CLASSES) // 2  # shapes that scenes-first and scenes-last know
BESIDE = "scenes-beside"
MEASURES = ("spearman", "spearman_abs", "ssim", "hog")


def against_first(rows: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Every row's means of measures (N,), and its difference to the first row in pairs, image by image."""
    first = next(iter(rows.values()))
    return {
        name: {m: summary(v) | {"more": summary(v - first[m])} for m, v in row.items()} for name, row in rows.items()
    }


def photographs(name: str, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Validation images as a network sees them, their labels, and their boxes as masks (N, H, W)."""
    found = tiny_imagenet("val", RECIPES[name].classes or None)
    x = prepare(RECIPES[name], found.images).to(device)
    return x, found.labels.to(device), box_mask(found.boxes, x.shape[-2:]).to(device)


def drawn(name: str, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh scenes of one object as a network sees them, their labels and masks (N, H, W)."""
    found = scenes(count, SEED)
    x = networks.normalize(found.images, networks.card(name)).to(device)
    return x, found.labels[:, 0].to(device), found.masks[:, 0].to(device)


def spread_over(count: int, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """So many rows of tensors (N, ...), evenly spaced; all where there are fewer."""
    count = min(count, len(parts[0]))
    kept = torch.arange(count) * len(parts[0]) // count
    return tuple(one[kept.to(one.device)] for one in parts)


def images_of(name: str, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Images that fit a network, with objects that do not fill them."""
    if name in SCENE_NETWORKS:
        return drawn(name, count, device)
    x, labels, truth = photographs(name, device)
    fit = truth.float().mean((1, 2)) < SMALL
    return spread_over(count, (x[fit], labels[fit], truth[fit]))


def last_maps(model: nn.Module) -> str:
    """The name of a chain's last ReLU before its first linear layer."""
    names = layer_names(model, (nn.ReLU, nn.Linear))
    linear = (i for i, name in enumerate(names) if isinstance(model.get_submodule(name), nn.Linear))
    return names[next(linear, len(names)) - 1]


def parts_of_the_rule(name: str, device: torch.device) -> dict[str, Any]:
    """What each part of LICNN's rule adds on one network."""
    model = networks.load(name, device)
    x, labels, truth = images_of(name, IMAGES, device)
    found: dict[str, Any] = {
        "images": len(x),
        "area": truth.float().mean().item(),
        "masks": agreement(model, x, labels),
        "maps": against_first(compare_attention(model, x, labels, truth, last_maps(model))),
    }
    if name in SCENE_NETWORKS:
        two = two_object_scenes(IMAGES, SEED)
        x = networks.normalize(two.images, model).to(device)
        maps = {key: partial(attention_map, **options) for key, options in VARIANTS.items()}
        maps |= two_object_methods(model, last_maps(model))
        labels, masks = two.labels.to(device), two.masks.to(device)
        rows = {key: {"own": two_object_test(model, x, labels, masks, one).mean(1)} for key, one in maps.items()}
        found["two objects"] = against_first(rows)
    return found


def checked(name: str, device: torch.device) -> dict[str, Any]:
    """The sanity checks of one network: every method, both orders, both ways of forgetting."""
    model = networks.load(name, device)
    if name == "lenet-mnist":
        test = mnist("test")
        x, labels = spread_over(CHECKED, (test.images.to(device), test.labels.to(device)))
    else:
        x, labels, _ = images_of(name, CHECKED, device)
    every = attribution_methods(last_maps(model))
    runs = [("cascading", "initial", seed) for seed in SEEDS]
    runs += [("independent", "initial", 0), ("cascading", "shuffled", 0)]
    found: dict[str, Any] = {"images": len(x), "layers": [], "floors": {}, "runs": []}
    for order, redraw, seed in tqdm(runs, desc=name):
        rows = {}
        for key, method in every.items():
            one = sanity_check(method, model, x, labels, order=order, redraw=redraw, seed=seed)
            found["layers"] = list(one.layers)
            found["floors"][key] = {
                kind: {m: summary(values) for m, values in part.items()} for kind, part in one.baselines.items()
            }
            rows[key] = {m: [summary(step) for step in one.similarity[m]] for m in MEASURES}
        found["runs"].append({"order": order, "redraw": redraw, "seed": seed, "similarity": rows})
    return found


def trained(name: str, seed: int, out: Path, device: torch.device) -> nn.Module:
    """A network of the book under a seed; its run goes on from its last checkpoint."""
    return train.trained(name, seed, world(RECIPES[name], seed), out, device)


def learned_by_heart(out: Path, device: torch.device) -> dict[str, Any]:
    """The data randomisation test: maps of networks with true labels, beside those of networks with permuted ones.

    Every pair of networks has other initial weights and other scenes; true against true tells how far maps differ for
    that alone.
    """
    true, permuted = (
        {seed: trained(name, seed, out, device) for seed in SEEDS} for name in ("scenes-few", "scenes-permuted")
    )
    x, labels, _ = drawn("scenes-gap", CHECKED, device)
    rows: dict[str, Any] = {}
    for key, method in attribution_methods(last_maps(true[0])).items():
        maps = [{seed: method(one, x, labels) for seed, one in part.items()} for part in (true, permuted)]
        different = [(a, b) for a in SEEDS for b in SEEDS if a != b]
        rows[key] = {
            "true": _similar([(maps[0][a], maps[0][b]) for a, b in different if a < b]),
            "permuted": _similar([(maps[0][a], maps[1][b]) for a, b in different]),
        }
    return {"images": len(x), "similarity": rows}


def _similar(both: list[tuple[Tensor, Tensor]]) -> dict[str, list[float]]:
    """Mean similarity of each pair of sets of maps."""
    rows = [map_similarity(a, b) for a, b in both]
    return {m: [summary(row[m])["mean"] for row in rows] for m in MEASURES}


def never_trained(out: Path, device: torch.device) -> dict[str, Any]:
    """Networks of four shapes each: how salient is the same object to the one that knows it and to the other?

    Beside them, networks that saw the other four shapes all the time, next to the ones that they had to name.
    """
    found = scenes(IMAGES, SEED)
    two = two_object_scenes(2 * IMAGES, SEED)
    group, groups = found.labels[:, 0] // HALF, two.labels // HALF
    mixed = groups[:, 0] != groups[:, 1]  # one object of each half
    rows = []
    for seed in SEEDS:
        maps, known = [], {}
        for part, name in enumerate(("scenes-first", "scenes-last")):
            model = trained(name, seed, out, device)
            maps.append(_likeliest(model, name, found.images, device))
            known[name] = _dense(model, name, two.images[mixed], two.masks[mixed], groups[mixed] == part, device)
        mine, other = (torch.where((group == part)[:, None, None], maps[0], maps[1]) for part in (0, 1))
        scores = {
            key: {"mass": mass_in_mask(one, found.masks[:, 0]), "pointing": pointing_game(one, found.masks[:, 0])}
            for key, one in (("trained", mine), ("not trained", other))
        }
        rows.append({"seed": seed, "one object": against_first(scores), "two objects": known})
    beside = [
        {"seed": seed}
        | _dense(
            trained(BESIDE, seed, out, device), BESIDE, two.images[mixed], two.masks[mixed], groups[mixed] == 0, device
        )
        for seed in RECIPES[BESIDE].seeds
    ]
    return {"images": IMAGES, "pairs": int(mixed.sum()), "runs": rows, "beside": beside}


def _likeliest(model: nn.Module, name: str, images: Tensor, device: torch.device) -> Tensor:
    """The attention maps (N, H, W) of the likeliest class."""
    x = prepare(RECIPES[name], (images * 255).round().byte()).to(device)
    return in_batches(partial(saliency_map, top=1), model, x, batch_size=BATCH).cpu()


def _dense(
    model: nn.Module, name: str, images: Tensor, masks: Tensor, mine: Tensor, device: torch.device
) -> dict[str, Any]:
    """How many times brighter than on average a map is on objects (N, 2, H, W), those `mine` (N, 2) and the others."""
    maps = _likeliest(model, name, images, device)
    mass = torch.stack([mass_in_mask(maps, masks[:, k]) for k in range(2)], 1)
    dense = mass / masks.double().mean((-2, -1))
    x = prepare(RECIPES[name], (images * 255).round().byte()).to(device)
    return {
        "trained": summary(dense[mine]),
        "not trained": summary(dense[~mine]),
        "trained denser": summary((dense[mine] > dense[~mine]).double()),
        "sure": logits(model, x).softmax(1).amax(1).mean().item(),
    }


def record(out: Path, device: torch.device) -> dict[str, Any]:
    """Everything the chapter prints of these runs."""
    names = (*SCENE_NETWORKS, *PHOTO_NETWORKS)
    photos: DataSplit = held_out(RECIPES["photos-200"])
    digits: DataSplit = held_out(RECIPES["lenet-mnist"])
    with torch.no_grad():
        found = {
            "rule": {name: parts_of_the_rule(name, device) for name in tqdm(names, desc="the rule")},
            "sanity": {name: checked(name, device) for name in (*SCENE_NETWORKS, *PHOTO_NETWORKS[:2], "lenet-mnist")},
        }
    found |= {"data test": learned_by_heart(out, device), "never trained": never_trained(out, device)}
    return {
        "name": NAME,
        "command": COMMAND,
        "data": {"Tiny ImageNet": data_hash(photos), "MNIST": data_hash(digits)},
        "facts": run_environment(device),
        **rounded(found),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "What LICNN's rule adds, and what maps know of their networks.", record, arguments)


if __name__ == "__main__":
    sys.exit(main())
