"""Boxes against boxes, and boxes as masks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from helpers.attribution.boxes import overlap
from helpers.capture import check_number


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
    boxes, others = _check(boxes, "boxes"), _check(others, "others")
    if boxes.shape != others.shape:
        got = f"{tuple(boxes.shape)} and {tuple(others.shape)}"
        raise ValueError(f"boxes and others must have one shape, (..., 4), got {got}")
    return overlap(boxes, others)


def box_mask(boxes: Tensor, shape: Sequence[int]) -> Tensor:
    """Boxes as masks, for the functions above: a pixel counts when its centre lies inside.

    Args:
        boxes: (..., 4), x0, y0, x1, y1 in pixel edges; NaN where there is none.
        shape: of the masks, (H, W).

    Returns:
        (..., H, W) bool; empty for a box of NaN.

    Raises:
        ValueError: boxes are not (..., 4), or shape is not two positive integers.
    """
    boxes = _check(boxes, "boxes")
    if not isinstance(shape, Sequence) or len(shape) != 2 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"shape must be (H, W), two positive integers, got {shape!r}")
    rows, columns = (torch.arange(n, device=boxes.device) + 0.5 for n in shape)
    x0, y0, x1, y1 = boxes[..., None].unbind(-2)  # (..., 1) each
    return ((rows > y0) & (rows < y1))[..., :, None] & ((columns > x0) & (columns < x1))[..., None, :]


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
    boxes, truth = _check(boxes, "boxes"), _check(truth, "truth")
    if boxes.ndim != 3 or truth.ndim != 3 or len(boxes) != len(truth):
        raise ValueError(f"boxes must be (B, M, 4) and truth (B, T, 4), got {tuple(boxes.shape)}, {tuple(truth.shape)}")
    if check_number("iou", iou, 0, above=True) > 1:
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


def _check(boxes: Tensor, name: str) -> Tensor:
    """Boxes (..., 4) as floating-point numbers."""
    if not isinstance(boxes, Tensor) or boxes.ndim == 0 or boxes.shape[-1] != 4:
        got = tuple(boxes.shape) if isinstance(boxes, Tensor) else type(boxes).__name__
        raise ValueError(f"{name} must have shape (..., 4), got {got}")
    if boxes.dtype == torch.bool or boxes.is_complex() or boxes.isinf().any():
        raise ValueError(f"{name} must be finite real numbers, or NaN, got {boxes.dtype}")
    boxes = boxes if boxes.is_floating_point() else boxes.to(torch.get_default_dtype())
    if (boxes[..., :2] > boxes[..., 2:]).any():
        raise ValueError(f"{name} must have x0 <= x1 and y0 <= y1")
    return boxes
