"""How well boxes from maps fit the objects: `python -m helpers.experiments.localization`.

Every map is turned into boxes at many thresholds. Images at even positions choose a threshold, those at odd ones tell
its score. What is measured:

- three networks on Tiny ImageNet's validation images: their class activation maps, with the weights changed in several
  ways, of larger images and of the network à trous; the coarse gradient; baselines;
- photos-gap once more, after some more epochs: as it is, and in two shapes whose last maps have twice as many places a
  side (the source's question of the mapping resolution);
- averaged maps against their maxima, GAP against GMP: three trainings each of scenes-gap and scenes-gmp, on 1,000
  drawn scenes.

The trainings behind the last two lie in --out, and those that are not there, or were stopped, are made first.

The record's tables: "classification", how often the class is not the best answer ("top1"), or not among the five best
("top5"); "curves", the errors of boxes at every setting (`localization_errors.METRICS` says which); "scores", the same
at the chosen one. What the column `setting` holds is said in the header's settings.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from helpers import networks
from helpers.cam import IOU
from helpers.capture import in_batches
from helpers.data import Photos, scenes, tiny_imagenet
from helpers.experiments.environment import run_environment, tensors_hash
from helpers.experiments.localization_errors import (
    SIZES,
    SMALL,
    THRESHOLDS,
    baselines,
    errors_by_setting,
    network_results,
    network_rows,
    top1_and_top5,
)
from helpers.experiments.localization_maps import (
    FOREGROUND,
    PLACES,
    SIDE,
    WEIGHTS,
    MapMethod,
    class_maps,
    coarse_gradient,
    gradient_boxes,
    less_mean,
)
from helpers.experiments.report import Record, header, run_record
from helpers.experiments.train.datasets import TEST_SEED, prepare
from helpers.experiments.train.recipes import RECIPES
from helpers.experiments.train.run import run_to_end, trained
from helpers.networks import normalize
from helpers.results import Row

NAME = "localization"
NETWORKS = ("photos-gap", "photos-gmp", "photos-200")
SCENE_NETWORKS = ("scenes-gap", "scenes-gmp")
SCENES = 1000
UNSEEN_SEED = TEST_SEED + 1  # of these scenes: with TEST_SEED itself the networks were tested while they were trained
EPOCHS = 2  # of photos-gap's further training
RATE = 0.01  # its learning rate, the greatest one of the cycle
SEED = 1  # its seed: under 0, that of the shipped weights, it would begin with the very batches that they saw first
# Variant -> changes of photos-gap's architecture for its further training. The shipped weights fit all of them; the
# last two make 16 x 16 places of the 8 x 8 of the last maps.
FURTHER: dict[str, dict[str, Any]] = {
    "trained further as it is": {},
    "trained further without the last pooling": {"stages": ((24,), (48,), (96, 192, 192))},
    "trained further à trous": {"atrous": 1},
}
# Error in percent, top-1 and top-5, on ILSVRC's validation images.
PUBLISHED = {
    "source": "Zhou et al. 2016, table 2",
    "GoogLeNet-GAP": (56.40, 43.00),
    "VGG-GAP": (57.20, 45.14),
    "GoogLeNet-GMP": (57.78, 45.26),
    "GoogLeNet, 7 x 7": (60.09, 49.34),
    "AlexNet-GAP": (67.19, 52.16),
    "gradient of GoogLeNet": (61.31, 50.55),
}
AS_IT_IS = "as it is"
ATROUS = "à trous, the same weights"


def train_further(changes: Mapping[str, Any], folder: Path, device: torch.device) -> nn.Module:
    """photos-gap trained for some more epochs, from the shipped weights on.

    Args:
        changes: of its architecture, see `FURTHER`.
        folder: of the run, which goes on from its last checkpoint.
        device: where it is trained.

    Raises:
        RunError: a checkpoint that is damaged or of another run, or a loss that is no longer finite.
        DataMissing: Tiny ImageNet is not there.
    """
    usual = RECIPES["photos-gap"]
    recipe = replace(usual, arguments={**usual.arguments, **changes}, epochs=EPOCHS, lr=RATE)
    return run_to_end(recipe, SEED, folder, device, networks.load("photos-gap", device).state_dict())


def on_photographs(name: str, photos: Photos, device: torch.device) -> dict[str, Any]:
    """Everything about one network, as it is shipped, on photographs.

    Returns:
        As `network_results`; under the key `ATROUS` the same of the network à trous; under "baselines", by name, as
        `errors_by_setting`: boxes that know nothing of the network, and chapter 2's from its gradient.
    """
    x, model = prepare(RECIPES[name], photos.images).to(device), networks.load(name, device)
    methods: dict[str, MapMethod] = {
        "CAM": class_maps,
        **{f"CAM, {key}": partial(class_maps, change=change) for key, change in WEIGHTS.items()},
        "CAM, weights less their mean over the classes": partial(class_maps, change=less_mean(model)),
        "CAM, image twice as large": partial(class_maps, times=2),
        f"gradient, {PLACES}": coarse_gradient,
    }
    correct = top1_and_top5(model, x, photos.labels)
    boxes = in_batches(gradient_boxes, model, x, photos.labels).cpu()
    return {
        **network_results(model, x, photos, methods),
        ATROUS: network_results(networks.rebuilt(model, atrous=1), x, photos, {"CAM": class_maps}),
        "baselines": {
            **baselines(x, photos, correct),
            "gradient and colours": errors_by_setting([boxes], [FOREGROUND], photos.boxes, correct),
        },
    }


def on_reshaped(photos: Photos, out: Path, device: torch.device) -> dict[str, dict[str, Any]]:
    """photos-gap trained further, each change of `FURTHER`, on photographs: change -> as `network_results`.

    The trainings are made first where `out` does not hold them.

    Raises:
        RunError: a checkpoint that is damaged or of another run, or a loss that is no longer finite.
        DataMissing: Tiny ImageNet is not there.
    """
    x = prepare(RECIPES["photos-gap"], photos.images).to(device)
    results = {}
    for i, (change, arguments) in enumerate(FURTHER.items()):
        model = train_further(arguments, out / f"shape-{i}", device)
        results[change] = network_results(model, x, photos, {"CAM": class_maps})
    return results


def on_scenes(photos: Photos, out: Path, device: torch.device) -> dict[str, dict[str, Any]]:
    """GAP against GMP on drawn scenes, three trainings of each: name -> seed -> as `network_results`.

    All trainings are made first where `out` does not hold them: that under the first seed too, whose weights are
    shipped, but rounded to half precision, where the others' are not.

    Args:
        photos: the scenes, their images in [0, 1].
        out: folder of the runs.
        device: where the networks compute.

    Raises:
        RunError: a checkpoint that is damaged or of another run, or a loss that is no longer finite.
    """
    methods = {"CAM": class_maps, "CAM, all weights one": partial(class_maps, change=torch.ones_like)}
    results: dict[str, dict[str, Any]] = {}
    for name in SCENE_NETWORKS:
        x = normalize(photos.images, name).to(device)
        for seed in RECIPES[name].seeds:
            model = trained(name, seed, out, device)
            results.setdefault(name, {})[str(seed)] = network_results(model, x, photos, methods)
    return results


def rows(
    photo_results: Mapping[str, Any], reshaped_results: Mapping[str, Any], scene_results: Mapping[str, Any]
) -> list[Row]:
    """The rows of the whole record.

    Args:
        photo_results: name -> as `on_photographs` gives it.
        reshaped_results: as `on_reshaped` gives them.
        scene_results: as `on_scenes` gives them.
    """
    # The column tells from which shipped weights a further training began; the seed of its own is in the header.
    seed = {name: RECIPES[name].seeds[0] for name in NETWORKS}
    table: list[Row] = []
    for name, result in photo_results.items():
        table += network_rows(result, network=name, seed=seed[name], variant=AS_IT_IS)
        table += network_rows(result[ATROUS], network=name, seed=seed[name], variant=ATROUS)
    for change, result in reshaped_results.items():
        table += network_rows(result, network="photos-gap", seed=seed["photos-gap"], variant=change)
    for name, by_seed in scene_results.items():
        for number, result in by_seed.items():
            table += network_rows(result, network=name, seed=int(number), variant=AS_IT_IS)
    return table


def settings() -> dict[str, Any]:
    """On what the numbers depend, and what the column `setting` holds."""
    return {
        "side": SIDE,
        "column `setting`": {
            "maps: threshold, share of the map's maximum": THRESHOLDS,
            "centred box: side, in sides of the image": SIZES,
            "gradient and colours: quantile of the gradient above which the object begins": [FOREGROUND],
        },
        "overlap from which on a box is right": IOU,
        "small objects, share of the image": SMALL,
        "scenes": {"number": SCENES, "seed": UNSEEN_SEED},
        "trained further": {"epochs": EPOCHS, "rate": RATE, "seed": SEED, "changes": FURTHER},
    }


def record(out: Path, device: torch.device) -> Record:
    """The whole record.

    Raises:
        RunError: a run in `out` that is damaged or another one's, or a loss that is no longer finite.
        DataMissing: Tiny ImageNet is not there.
        WeightsError: a shipped network is damaged.
    """
    # All data before the first network is trained: what is missing is better known now than in an hour.
    photos = {name: tiny_imagenet("val", RECIPES[name].classes or None) for name in NETWORKS}
    drawn = scenes(SCENES, UNSEEN_SEED)
    data = {name: tensors_hash([part.images, part.labels]) for name, part in photos.items()}
    data["scenes"] = tensors_hash([(drawn.images * 255).round().byte(), drawn.labels[:, 0]])  # made from bytes
    about = header(
        NAME, run_environment(device), data=data, seeds={name: RECIPES[name].seeds for name in SCENE_NETWORKS},
        settings=settings(), published=PUBLISHED,
    )  # fmt: skip
    photo_results = {name: on_photographs(name, part, device) for name, part in photos.items()}
    reshaped_results = on_reshaped(photos["photos-gap"], out, device)
    scene_photos = Photos(drawn.images, drawn.labels[:, 0], drawn.boxes[:, 0], (), ())
    scene_results = on_scenes(scene_photos, out, device)
    return Record(about, rows(photo_results, reshaped_results, scene_results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    return run_record(NAME, "How well boxes from maps fit the objects.", record, arguments)


if __name__ == "__main__":
    sys.exit(main())
