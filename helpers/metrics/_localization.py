"""Maps cut at a threshold, against boxes and outlines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from helpers._validate import check_count, check_number, check_tensor, describe
from helpers.boxes import check_boxes, overlap

IOUS = (0.3, 0.5, 0.7)
TOUCHING = np.ones((3, 3), bool)  # diagonal neighbours touch


class MaxBoxAcc(NamedTuple):
    """What `max_box_acc` returns; I overlaps that are asked for, T thresholds.

    Attributes:
        mean: of `accuracy`: MaxBoxAccV2.
        accuracy: (I,) share of the images with a box that overlaps a true one so much, at the chosen threshold.
        thresholds: (I,) the chosen ones, as shares of each map's range.
        curves: (I, T) the accuracy at every threshold, on the images that are judged.
    """

    mean: float
    accuracy: Tensor
    thresholds: Tensor
    curves: Tensor


def max_box_acc(
    maps: Tensor,
    truth: Tensor,
    held_out: tuple[Tensor, Tensor] | None = None,
    *,
    ious: tuple[float, ...] = IOUS,
    steps: int = 50,
) -> MaxBoxAcc:
    """MaxBoxAccV2: how often a box drawn from a map is right, at the threshold that is best on other images.

    Each map is brought to [0, 1] and cut at k / steps, k from 0 to steps - 1; there is a box around every connected
    region of what lies at or above. The image counts as right where any of them overlaps any true box enough. For each
    overlap that is asked for, the threshold with the best share on the held-out images is taken.

    Args:
        maps: (N, H, W).
        truth: (N, 4) or (N, M, 4), x0, y0, x1, y1 in pixel edges of the maps, NaN where there is none; images without
            any are left out.
        held_out: maps and truth of other images, on which the thresholds are chosen; the judged images themselves when
            left out, which flatters.
        ious: overlaps (intersection over union) that are asked for, each in (0, 1].
        steps: T, how many thresholds.

    Returns:
        `MaxBoxAcc`.

    Raises:
        ValueError: shapes that do not go together, maps that are not finite, no image with a box, or ious or steps out
            of range.

    Source: Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020, and the journal
    version's three overlaps and several regions.
    """
    steps = check_count(steps, "steps")
    if not ious:
        raise ValueError(f"ious must hold at least one, got {describe(ious)}")
    asked = torch.tensor([check_number(iou, "ious", 0, 1, above=True) for iou in ious], dtype=torch.float64)
    curves = _box_curves(maps, truth, asked, steps, "maps")
    chosen_on = curves if held_out is None else _box_curves(*held_out, asked, steps, "held_out")
    best = chosen_on.argmax(1)  # (I,)
    accuracy = curves.gather(1, best[:, None])[:, 0]
    return MaxBoxAcc(accuracy.mean().item(), accuracy, best / steps, curves)


def mask_iou(maps: Tensor, masks: Tensor, threshold: float | Tensor) -> Tensor:
    """How well what a map marks covers an outline: intersection over union of both.

    Args:
        maps: (..., H, W).
        masks: (..., H, W) bool, the object.
        threshold: as a share of each map's range, from its least value (0) to its greatest (1): a number, or (...),
            one a map. A place counts where it lies at or above.

    Returns:
        (...), 0 to 1; NaN for an empty mask. A constant map marks everything.

    Raises:
        ValueError: shapes differ, maps are not finite, masks are not bool, or thresholds outside [0, 1].
    """
    check_tensor(maps, "maps", "... H W")
    check_tensor(masks, "masks", " ".join(map(str, maps.shape)), kind="bool")
    cut = torch.as_tensor(threshold, dtype=torch.float64).to(maps.device, maps.dtype)
    if cut.shape not in ((), maps.shape[:-2]) or not bool(((cut >= 0) & (cut <= 1)).all()):
        raise ValueError(f"threshold must lie in [0, 1], a number or one a map, got {describe(threshold)}")
    marked, masks = _unit_range(maps) >= cut[..., None, None], masks.to(maps.device)
    both, either = ((part).sum((-2, -1)) for part in (marked & masks, marked | masks))
    share = both.to(maps.dtype) / either
    return torch.where(masks.flatten(-2).any(-1), share, share.new_full((), float("nan")))


def _box_curves(maps: Tensor, truth: Tensor, ious: Tensor, steps: int, name: str) -> Tensor:
    """Share of the images with a right box, at every overlap and threshold: (I, T) float64, on the CPU."""
    check_tensor(maps, name, "N H W")
    truth = check_boxes(truth, "truth", f"{len(maps)} 4", f"{len(maps)} M 4").double().cpu()
    truth = truth[:, None] if truth.ndim == 2 else truth  # (N, M, 4)
    judged = ~truth.isnan().any(-1).all(1)
    if not judged.any():
        raise ValueError("truth must hold a box for some image, got none")
    values = _unit_range(maps[judged.to(maps.device)].double().cpu()).numpy()
    best = torch.zeros(len(values), steps, dtype=torch.float64)  # the largest overlap of an image's boxes
    for i, (map, boxes) in enumerate(zip(values, truth[judged], strict=True)):
        for k in range(steps):
            regions = torch.from_numpy(_region_boxes(map >= k / steps))
            best[i, k] = overlap(regions[:, None], boxes[None]).nan_to_num(0).max()
    return (best[None] >= ious[:, None, None]).double().mean(1)


def _region_boxes(mask: np.ndarray) -> np.ndarray:
    """Boxes (M, 4) around the connected regions of a mask (H, W) that is not empty."""
    labels, _ = ndimage.label(mask, TOUCHING)
    return np.array([[x.start, y.start, x.stop, y.stop] for y, x in ndimage.find_objects(labels)], np.float64)


def _unit_range(maps: Tensor) -> Tensor:
    """Maps (..., H, W), each brought to [0, 1]; a constant one to ones."""
    low, high = maps.amin((-2, -1), keepdim=True) / 2, maps.amax((-2, -1), keepdim=True) / 2  # halves: no overflow
    return torch.where(high > low, (maps / 2 - low) / torch.where(high > low, high - low, 1), 1)
