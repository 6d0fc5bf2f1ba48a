"""Boxes against boxes, and boxes as masks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from helpers.attribution.boxes import overlap


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
