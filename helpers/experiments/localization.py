"""How well boxes from maps fit: `python -m helpers.experiments.localization`, on Tiny ImageNet's validation images.

Every map is turned into boxes at many thresholds. Images at even positions choose a threshold, those at odd
ones tell its score. To compare mapping resolutions, photos-gap is first trained further, for a few epochs as it is
and in two other shapes, in runs that go on where they were stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_area
from tqdm.auto import tqdm

from helpers import networks
from helpers.cam import largest_component_box, localization_error
from helpers.cam._boxes import IOU
from helpers.capture import in_batches, logits
from helpers.data import Photos, scenes, tiny_imagenet
from helpers.experiments.environment import run_environment
from helpers.experiments.localization_maps import (
    SIDE,
    WEIGHTS,
    Maps,
    blurred_gradient,
    centred_box,
    class_maps,
    downsampled_truth,
    gradient_boxes,
    less_mean,
)
from helpers.experiments.report import Record, best_on_even, box_overlaps, header, run_record
from helpers.experiments.train.command import trained
from helpers.experiments.train.datasets import TEST_SEED, data_hash, held_out, prepare
from helpers.experiments.train.recipes import RECIPES
from helpers.experiments.train.run import run_to_end
from helpers.metrics import blurred_map
from helpers.networks import normalize
from helpers.results import Row, long_table
from helpers.training import topk_correct

NAME = "localization"
THRESHOLDS = tuple(step / 20 for step in range(20))  # shares of a map's maximum
SIZES = tuple(step / 20 for step in range(1, 21))  # side of a centred box, in sides of the image
FOREGROUND = 0.95  # quantile of a map above which `saliency_box` starts an object; its default
SMALL = 0.25  # share of the image below which an object counts as small
NETWORKS = ("photos-gap", "photos-gmp", "photos-200")
SCENE_NETWORKS = ("scenes-gap", "scenes-gmp")
SCENES = 1000
UNSEEN_SEED = TEST_SEED + 1  # of these scenes: with TEST_SEED itself the networks were tested while they were trained
EPOCHS, RATE, SEED = 2, 0.01, 1  # of photos-gap's further training
SHAPES: dict[str, dict[str, Any]] = {
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
METRICS = ("known", "top1", "top5", "small", "iou", "area")
AS_IT_IS = "as it is"
ATROUS = "à trous, the same weights"


def errors_by_setting(boxes: Sequence[Tensor], axis: Sequence[float], truth: Tensor, correct: Tensor) -> dict[str, Any]:
    """Errors along an axis of settings, and at the setting that one half of the images chooses.

    Args:
        boxes: (N, 4) for each setting.
        axis: the settings.
        truth: (N, 4).
        correct: (2, N) bool, whether the class is the best answer, or among the five best.

    Returns:
        On the images with odd numbers, for each setting: the share of boxes that are off ("known", of "small" objects,
        and with the class, "top1" and "top5"), mean overlap ("iou"), mean share of the image ("area"); the "axis", and
        the position of the setting that is "chosen" on the images with even numbers.
    """
    odd = torch.arange(len(truth)) % 2 == 1
    small = odd & (image_share(truth) < SMALL)
    errors = [localization_error(part[odd], truth[odd], *correct[:, odd]) for part in boxes]
    overlaps = box_overlaps(boxes, truth)
    return {
        "axis": list(axis),
        **{key: [getattr(error, key) for error in errors] for key in ("known", "top1", "top5")},
        "small": [localization_error(part[small], truth[small], *correct[:, small]).known for part in boxes],
        "iou": [overlap[odd].mean().item() for overlap in overlaps],
        "area": [image_share(part).nan_to_num(0)[odd].mean().item() for part in boxes],
        "chosen": best_on_even((overlaps >= IOU).double()),
    }


def image_share(boxes: Tensor) -> Tensor:
    """Area of boxes (N, 4), in shares of the image, (N,); NaN where there is no box."""
    return box_area(boxes) / SIDE**2


def by_threshold(maps: Tensor, truth: Tensor, correct: Tensor) -> dict[str, Any]:
    """`errors_by_setting` of the boxes of maps (N, H, W), along the thresholds."""
    return errors_by_setting([largest_component_box(maps, t) for t in THRESHOLDS], THRESHOLDS, truth, correct)


def top1_and_top5(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Whether the class is the best answer, and whether it is among the five best: (2, N) bool, on the CPU."""
    answers = in_batches(logits, model, x).cpu()
    return torch.stack([topk_correct(answers, labels, k) for k in (1, 5)])


def measured(model: nn.Module, x: Tensor, photos: Photos, methods: Mapping[str, Maps]) -> dict[str, Any]:
    """Classification and localisation errors of one network, on the images with odd numbers.

    Args:
        model: the network.
        x: images as it expects them, (N, 3, 64, 64).
        photos: their labels and boxes.
        methods: maps by name.
    """
    correct = top1_and_top5(model, x, photos.labels)
    odd = torch.arange(len(x)) % 2 == 1
    maps = {
        name: by_threshold(in_batches(method, model, x, photos.labels).cpu(), photos.boxes, correct)
        for name, method in tqdm(methods.items(), desc="maps", leave=False)
    }
    wrong = 1 - correct[:, odd].double().mean(1)
    return {
        "images": int(odd.sum()),
        "classification": dict(zip(("top1", "top5"), wrong.tolist(), strict=True)),
        "maps": maps,
    }


def baselines(x: Tensor, photos: Photos, correct: Tensor) -> dict[str, Any]:
    """Boxes that know nothing of the network: a centred one, one from the image's contrast, the true one told coarsely.

    Args:
        x: images, (N, 3, 64, 64).
        photos: their labels and boxes.
        correct: (2, N) bool, as `top1_and_top5` gives it.
    """
    boxes = [centred_box(len(x), size) for size in SIZES]
    contrast = in_batches(lambda _, x: blurred_map(x), nn.Identity(), x).cpu()
    return {
        "centred box": errors_by_setting(boxes, SIZES, photos.boxes, correct),
        "contrast": by_threshold(contrast, photos.boxes, correct),
        "true box, 8 x 8": by_threshold(downsampled_truth(photos.boxes), photos.boxes, correct),
    }


def train_further(changes: Mapping[str, Any], folder: Path, device: torch.device) -> nn.Module:
    """photos-gap, given another shape and trained further, for some more epochs.

    Args:
        changes: of its architecture.
        folder: of the run, which goes on from its last checkpoint.
        device: where it is trained.

    Raises:
        RunError: a checkpoint that is damaged or of another run.
    """
    usual = RECIPES["photos-gap"]
    recipe = replace(usual, arguments={**usual.arguments, **changes}, epochs=EPOCHS, lr=RATE)
    return run_to_end(recipe, SEED, folder, device, networks.load("photos-gap", device).state_dict())


def on_scenes(out: Path, device: torch.device) -> dict[str, dict[str, Any]]:
    """GAP against GMP on drawn scenes, three trainings of each: name -> seed -> as `measured`."""
    test = scenes(SCENES, UNSEEN_SEED)
    photos = Photos(test.images, test.labels[:, 0], test.boxes[:, 0], (), ())
    methods = {"CAM": class_maps, "CAM, all weights one": partial(class_maps, change=torch.ones_like)}
    return {
        name: {
            str(seed): measured(
                trained(name, seed, out, device), normalize(test.images, name).to(device), photos, methods
            )
            for seed in RECIPES[name].seeds
        }
        for name in SCENE_NETWORKS
    }  # fmt: skip


def on_photographs(name: str, photos: Photos, device: torch.device) -> dict[str, Any]:
    """Everything about one network on photographs: as `measured`, with the network à trous, and baselines."""
    x, model = prepare(RECIPES[name], photos.images).to(device), networks.load(name, device)
    methods: dict[str, Maps] = {
        "CAM": class_maps,
        **{f"CAM, {key}": partial(class_maps, change=change) for key, change in WEIGHTS.items()},
        "CAM, weights less their mean over the classes": partial(class_maps, change=less_mean(model)),
        "CAM, image twice as large": partial(class_maps, times=2),
        "gradient, 8 x 8": blurred_gradient,
    }
    correct = top1_and_top5(model, x, photos.labels)
    boxes = in_batches(gradient_boxes, model, x, photos.labels).cpu()
    return {
        **measured(model, x, photos, methods),
        ATROUS: measured(networks.rebuilt(model, atrous=1), x, photos, {"CAM": class_maps}),
        "baselines": {
            **baselines(x, photos, correct),
            "gradient and colours": errors_by_setting([boxes], [FOREGROUND], photos.boxes, correct),
        },
    }


def box_rows(curves: Mapping[str, Any], **what: Any) -> list[Row]:
    """The rows of `errors_by_setting`, method by method: "curves" of every setting, and "scores" at the chosen one.

    Args:
        curves: method -> as `errors_by_setting` gives it.
        what: columns that are the same in all rows.
    """
    rows: list[Row] = []
    for method, result in curves.items():
        by_setting = {metric: dict(zip(result["axis"], result[metric], strict=True)) for metric in METRICS}
        every = long_table(by_setting, "metric", "setting", table="curves", method=method, **what)
        chosen = result["axis"][result["chosen"]]
        rows += every + [row | {"table": "scores"} for row in every if row["setting"] == chosen]
    return rows


def measured_rows(result: Mapping[str, Any], **what: Any) -> list[Row]:
    """The rows of `measured`, and of baselines where there are any: "classification", "curves" and "scores"."""
    wrong = long_table(result["classification"], "metric", table="classification", n=result["images"], **what)
    return wrong + box_rows({**result["maps"], **result.get("baselines", {})}, **what)


def rows(
    photographs: Mapping[str, Any], scene_networks: Mapping[str, Any], reshaped: Mapping[str, Any]
) -> list[Row]:  # fmt: skip
    """The rows of the whole record.

    Args:
        photographs: name -> as `on_photographs` gives it.
        scene_networks: as `on_scenes` gives it.
        reshaped: shape -> as `measured`, of photos-gap trained further.
    """
    # That of the shipped network, also where it was trained further: SEED, under which that was done, is in the header.
    seed = {name: RECIPES[name].seeds[0] for name in NETWORKS}
    table: list[Row] = []
    for name, result in photographs.items():
        table += measured_rows(result, network=name, seed=seed[name], variant=AS_IT_IS)
        table += measured_rows(result[ATROUS], network=name, seed=seed[name], variant=ATROUS)
    for shape, result in reshaped.items():
        table += measured_rows(result, network="photos-gap", seed=seed["photos-gap"], variant=shape)
    for name, by_seed in scene_networks.items():
        for number, result in by_seed.items():
            table += measured_rows(result, network=name, seed=int(number), variant=AS_IT_IS)
    return table


def settings() -> dict[str, Any]:
    """On what the numbers depend."""
    return {
        "side": SIDE,
        "small objects, share of the image": SMALL,
        "trained further": {"epochs": EPOCHS, "rate": RATE, "seed": SEED, "shapes": SHAPES},
    }


def record(out: Path, device: torch.device) -> Record:
    """The whole record."""
    on_drawn = on_scenes(out, device)
    photographs, data, reshaped = {}, {}, {}
    for name in NETWORKS:
        recipe = RECIPES[name]
        photos = tiny_imagenet("val", recipe.classes or None)
        photographs[name] = on_photographs(name, photos, device)
        data[name] = data_hash(held_out(recipe))
        if name == "photos-gap":
            x = prepare(recipe, photos.images).to(device)
            for i, (shape, changes) in enumerate(SHAPES.items()):
                model = train_further(changes, out / f"shape-{i}", device)
                reshaped[shape] = measured(model, x, photos, {"CAM": class_maps})
    seeds = {name: RECIPES[name].seeds for name in SCENE_NETWORKS}
    about = header(
        NAME, run_environment(device), data=data, seeds=seeds, settings=settings(), published=PUBLISHED
    )  # fmt: skip
    return Record(about, rows(photographs, on_drawn, reshaped))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    return run_record(NAME, __doc__.split("\n")[0], record, arguments)


if __name__ == "__main__":
    sys.exit(main())
