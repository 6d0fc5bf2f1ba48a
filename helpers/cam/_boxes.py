"""From a class activation map to a box, and how wrong boxes are."""

from typing import NamedTuple

import torch
from torch import Tensor

from helpers._validate import check_number
from helpers.boxes import overlap, region_boxes

THRESHOLD = 0.2  # of a map's maximum; Zhou et al. 2016, section 3.2
IOU = 0.5  # overlap from which on a box counts as right; ILSVRC


class LocalizationError(NamedTuple):
    """Shares of the images that are wrong, 0 to 1; NaN where no image has a box to compare with."""

    top1: float  # the best answer is not the class, or its box is off
    top5: float  # none of the five best answers is the class, or its box is off
    known: float  # the box is off: the class was told


def largest_component_box(maps: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """One box a map: around the largest connected region above a share of the map's maximum.

    Stretch the map over the image first (`upsample`): the box comes in the map's own cells. Diagonal neighbours touch;
    of regions of one size the first in reading order is taken. Where no place is positive, nothing speaks for the
    class and there is no box: four NaN, which `metrics.box_iou` and `localization_error` understand.

    Args:
        maps: (B, H, W) or (B, K, H, W), raw and signed.
        threshold: as a share of each map's maximum, in [0, 1); a place counts when it lies above. 0 keeps every
            positive place.

    Returns:
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive, float32 or wider: (B, 4) or (B, K, 4).

    Raises:
        ValueError: maps of another shape, empty or not finite, or a threshold outside [0, 1).

    Source: Zhou et al., CVPR 2016, section 3.2.
    """
    if not isinstance(maps, Tensor) or maps.ndim not in (3, 4) or maps.numel() == 0:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps must be a non-empty (B, H, W) or (B, K, H, W), got {got}")
    if not maps.is_floating_point() or not torch.isfinite(maps).all():
        raise ValueError(f"maps must be finite floating-point numbers, got {maps.dtype} or NaN or infinite values")
    if check_number(threshold, "threshold", 0) >= 1:
        raise ValueError(f"threshold must be below 1, a share of the maximum, got {threshold!r}")
    flat = maps.detach().reshape(-1, *maps.shape[-2:])  # (N, H, W)
    top = flat.amax((1, 2), keepdim=True)
    above = ((flat > threshold * top) | (flat == top)) & (flat > 0)  # the product may round up to the maximum itself
    wide = torch.promote_types(maps.dtype, torch.float32)  # half precision cannot tell pixels above 2048 apart
    return region_boxes(above).to(wide).view(*maps.shape[:-2], 4)


def localization_error(
    boxes: Tensor, truth: Tensor, top1: Tensor, top5: Tensor, *, iou: float = IOU
) -> LocalizationError:
    """The errors of ILSVRC's localisation task: class and box must both be right.

    Among five answers only the one that names the true class can be right, so the box of the true class's map is all
    that is needed of each image.

    Args:
        boxes: (B, 4), from the map of the true class; x0, y0, x1, y1 in pixel edges, NaN where there is none, which
            is an error.
        truth: (B, 4), or (B, M, 4) where an image may hold several objects of the class, any of which will do; NaN
            where there is none. Images without any are left out.
        top1: (B,) bool, whether the network's best answer is the true class.
        top5: (B,) bool, whether it is among the five best.
        iou: intersection over union from which on a box is right.

    Returns:
        A `LocalizationError` of three shares.

    Raises:
        ValueError: shapes that do not go together, truth values that are not bool, or iou outside (0, 1].

    Source: Russakovsky et al., IJCV 2015, section 4.2; Zhou et al., CVPR 2016, table 2.
    """
    if check_number(iou, "iou", 0, above=True) > 1:
        raise ValueError(f"iou must be at most 1, got {iou!r}")
    if not isinstance(boxes, Tensor) or boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) == 0:
        got = tuple(boxes.shape) if isinstance(boxes, Tensor) else type(boxes).__name__
        raise ValueError(f"boxes must be a non-empty (B, 4), got {got}")
    if not isinstance(truth, Tensor) or truth.ndim not in (2, 3) or len(truth) != len(boxes) or truth.shape[-1] != 4:
        got = tuple(truth.shape) if isinstance(truth, Tensor) else type(truth).__name__
        raise ValueError(f"truth must be ({len(boxes)}, 4) or ({len(boxes)}, M, 4), got {got}")
    for name, named in (("top1", top1), ("top5", top5)):
        if not isinstance(named, Tensor) or named.dtype != torch.bool or named.shape != boxes.shape[:1]:
            got = f"{tuple(named.shape)} of {named.dtype}" if isinstance(named, Tensor) else type(named).__name__
            raise ValueError(f"{name} must be bool of shape ({len(boxes)},), got {got}")
    if torch.bool in (boxes.dtype, truth.dtype) or boxes.is_complex() or truth.is_complex():
        raise ValueError(f"boxes and truth must be real numbers, got {boxes.dtype} and {truth.dtype}")
    boxes = boxes if boxes.is_floating_point() else boxes.float()
    truth = (truth[:, None] if truth.ndim == 2 else truth).to(boxes)  # (B, M, 4)
    there = ~truth.isnan().any(-1).all(-1)
    good = (overlap(boxes[:, None], truth) >= iou).any(-1)  # an absent box overlaps nothing
    right = (top1.to(good.device) & good, top5.to(good.device) & good, good)
    return LocalizationError(*(1 - one[there].double().mean().item() for one in right))
