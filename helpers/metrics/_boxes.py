"""Boxes against boxes, and boxes as masks."""

from typing import NamedTuple

import torch
from torch import Tensor

from helpers._validate import check_number
from helpers.boxes import check_boxes, overlap


class Detections(NamedTuple):
    """What `detections` returns; T true boxes an image."""

    found: Tensor  # (B, T) bool: a box overlaps the true one enough
    box: Tensor  # (B, T) int64: the number of the box that overlaps it most, -1 where it was not found
    false_alarms: Tensor  # (B,) int64: boxes that found nothing, or what another box has found already


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union, box by box. (For every pair of two sets there is `torchvision.ops.box_iou`.)

    Args:
        boxes: (..., 4), x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive.
        others: (..., 4), likewise.

    Returns:
        (...), 0 to 1; NaN where a box is NaN (absent) or both are empty.

    Raises:
        ValueError: shapes differ, or a box ends before it begins.
    """
    boxes, others = check_boxes(boxes, "boxes"), check_boxes(others, "others")
    if boxes.shape != others.shape:
        got = f"{tuple(boxes.shape)} and {tuple(others.shape)}"
        raise ValueError(f"boxes and others must have one shape, (..., 4), got {got}")
    return overlap(boxes, others)


def detections(boxes: Tensor, truth: Tensor, *, iou: float = 0.5) -> Detections:
    """Which of several objects an image were found, and how many boxes were for nothing.

    For every object the box that overlaps it most counts; one box may find several objects.

    Args:
        boxes: (B, M, 4), x0, y0, x1, y1 in pixel edges, NaN where there is none; M may be 0.
        truth: (B, T, 4), likewise.
        iou: intersection over union from which on a box has found an object, in (0, 1].

    Returns:
        `Detections`; an absent true box is never found.

    Raises:
        ValueError: shapes that do not go together, a box that ends before it begins, or iou outside (0, 1].

    Source: Everingham et al., "The PASCAL visual object classes challenge", IJCV 2010, section 4.2.
    """
    boxes, truth = check_boxes(boxes, "boxes"), check_boxes(truth, "truth")
    if boxes.ndim != 3 or truth.ndim != 3 or len(boxes) != len(truth):
        raise ValueError(f"boxes must be (B, M, 4) and truth (B, T, 4), got {tuple(boxes.shape)}, {tuple(truth.shape)}")
    if check_number(iou, "iou", 0, above=True) > 1:
        raise ValueError(f"iou must be at most 1, got {iou!r}")
    there = ~boxes.isnan().any(-1)  # (B, M)
    if boxes.shape[1] == 0:
        none = torch.zeros(truth.shape[:2], dtype=torch.bool, device=truth.device)
        return Detections(none, none.long() - 1, there.sum(1))
    shared = overlap(boxes[:, :, None], truth[:, None].to(boxes)).nan_to_num(0)  # (B, M, T)
    best = shared.max(1)
    found = best.values >= iou
    used = torch.zeros_like(there).long().scatter_add(1, best.indices, found.long()) > 0
    return Detections(found, torch.where(found, best.indices, -1), (there & ~used).sum(1))
