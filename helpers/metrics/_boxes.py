"""Boxes against boxes."""

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
        shapes = f"{tuple(boxes.shape)} and {tuple(others.shape)}"
        raise ValueError(f"boxes and others must have one shape, (..., 4), got {shapes}")
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
    boxes = check_boxes(boxes, "boxes", "B M 4")
    truth = check_boxes(truth, "truth", f"{len(boxes)} T 4")
    iou = check_number(iou, "iou", 0, 1, above=True)
    present = ~boxes.isnan().any(-1)  # (B, M)
    if boxes.shape[1] == 0:
        none = torch.zeros(truth.shape[:2], dtype=torch.bool, device=truth.device)
        return Detections(none, none.long() - 1, present.sum(1))
    shared = overlap(boxes[:, :, None], truth[:, None].to(boxes)).nan_to_num(0)  # (B, M, T)
    best = shared.max(1)
    hit = best.values >= iou  # (B, T)
    used = torch.zeros_like(present).long().scatter_add(1, best.indices, hit.long()) > 0
    return Detections(hit, torch.where(hit, best.indices, -1), (present & ~used).sum(1))
