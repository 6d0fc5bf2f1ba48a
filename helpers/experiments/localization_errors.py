"""How wrong the boxes of one network's maps and of baselines are, at every setting and at the one that is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_area
from tqdm.auto import tqdm

from helpers.cam import IOU, largest_component_box, localization_error
from helpers.capture import in_batches, logits
from helpers.data import Photos
from helpers.experiments.localization_maps import PLACES, SIDE, MapMethod, centred_box, downsampled_truth
from helpers.experiments.report import best_on_even, box_overlaps
from helpers.metrics import blurred_map
from helpers.results import Row, long_table
from helpers.training import topk_correct

THRESHOLDS = tuple(step / 20 for step in range(20))  # shares of a map's maximum
SIZES = tuple(step / 20 for step in range(1, 21))  # side of a centred box, in sides of the image
SMALL = 0.25  # share of the image below which an object counts as small
ODD = slice(1, None, 2)  # the images that are scored; those at even positions choose the setting
# What is measured of boxes. Shares of images: "known", whose box is off, the class being told; "top1" and "top5", whose
# box is off or whose class is not the network's best answer, or not among its five best; "small", "known" of small
# objects alone. Means: "iou", the overlap with the true box; "area", the box's share of the image.
METRICS = ("known", "top1", "top5", "small", "iou", "area")


def errors_by_setting(boxes: Sequence[Tensor], axis: Sequence[float], truth: Tensor, correct: Tensor) -> dict[str, Any]:
    """Errors along an axis of settings, and the setting that one half of the images chooses.

    Args:
        boxes: of N images, (N, 4) for each setting; x0, y0, x1, y1 in pixel edges, NaN where there is none.
        axis: the settings, a number each: thresholds, for example.
        truth: the true boxes, (N, 4).
        correct: whether the class is the network's best answer, and whether it is among its five best, (2, N) bool.

    Returns:
        Each of `METRICS`, a list along the axis, of the images at odd positions; the "axis"; and "chosen", the position
        on it of the setting under which the most boxes are right on the images at even positions.
    """
    scored, true, named = [part[ODD] for part in boxes], truth[ODD], correct[:, ODD]
    small = image_share(true) < SMALL
    errors = [localization_error(part, true, *named) for part in scored]
    return {
        "axis": list(axis),
        **{key: [getattr(error, key) for error in errors] for key in ("known", "top1", "top5")},
        "small": [localization_error(part[small], true[small], *named[:, small]).known for part in scored],
        "iou": [overlap.mean().item() for overlap in box_overlaps(scored, true)],
        "area": [image_share(part).nan_to_num(0).mean().item() for part in scored],
        "chosen": best_on_even((box_overlaps(boxes, truth) >= IOU).double()),
    }


def image_share(boxes: Tensor) -> Tensor:
    """Area of boxes (N, 4), in shares of the image, (N,); NaN where there is no box."""
    return box_area(boxes) / SIDE**2


def by_threshold(maps: Tensor, truth: Tensor, correct: Tensor) -> dict[str, Any]:
    """`errors_by_setting` of the boxes of maps (N, H, W), along the thresholds."""
    return errors_by_setting([largest_component_box(maps, t) for t in THRESHOLDS], THRESHOLDS, truth, correct)


def top1_and_top5(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Whether the class is the best answer, and whether it is among the five best: (2, N) bool, on the CPU.

    Args:
        model: the network.
        x: images as it expects them, (N, 3, 64, 64).
        labels: their classes, (N,).
    """
    answers = in_batches(logits, model, x).cpu()
    return torch.stack([topk_correct(answers, labels, k) for k in (1, 5)])


def network_results(model: nn.Module, x: Tensor, photos: Photos, methods: Mapping[str, MapMethod]) -> dict[str, Any]:
    """Classification and localisation errors of one network, on the images at odd positions.

    Args:
        model: the network.
        x: images as it expects them, (N, 3, 64, 64).
        photos: their labels and boxes.
        methods: maps by name.

    Returns:
        "images", how many are scored; "classification", the share of wrong answers, "top1" and "top5"; "maps", by the
        method's name, as `errors_by_setting`.
    """
    correct = top1_and_top5(model, x, photos.labels)
    maps = {
        name: by_threshold(in_batches(method, model, x, photos.labels).cpu(), photos.boxes, correct)
        for name, method in tqdm(methods.items(), desc="maps", leave=False)
    }
    scored = correct[:, ODD].double()
    return {
        "images": scored.shape[1],
        "classification": dict(zip(("top1", "top5"), (1 - scored.mean(1)).tolist(), strict=True)),
        "maps": maps,
    }


def baselines(x: Tensor, photos: Photos, correct: Tensor) -> dict[str, Any]:
    """Boxes that know nothing of the network: a centred one, one from the image's contrast, the true one told coarsely.

    Args:
        x: images, (N, 3, 64, 64).
        photos: their labels and boxes.
        correct: of the network's answers, as `top1_and_top5` gives it, (2, N): such a box has none, and counts as right
            with its class where the network is.

    Returns:
        name -> as `errors_by_setting`.
    """
    boxes = [centred_box(len(x), size) for size in SIZES]
    # `in_batches` hands a network on, and this map looks at none.
    contrast = in_batches(lambda _, x: blurred_map(x), nn.Identity(), x).cpu()
    return {
        "centred box": errors_by_setting(boxes, SIZES, photos.boxes, correct),
        "contrast": by_threshold(contrast, photos.boxes, correct),
        f"true box, {PLACES}": by_threshold(downsampled_truth(photos.boxes), photos.boxes, correct),
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


def network_rows(result: Mapping[str, Any], **what: Any) -> list[Row]:
    """The rows of `network_results`, and of baselines where there are any: all three tables.

    Args:
        result: as `network_results` or `on_photographs` gives it.
        what: columns that are the same in all rows.
    """
    wrong = long_table(result["classification"], "metric", table="classification", n=result["images"], **what)
    return wrong + box_rows({**result["maps"], **result.get("baselines", {})}, **what)
