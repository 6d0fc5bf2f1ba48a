"""Boxes: x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive; NaN where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import label
from torch import Tensor
from torchvision.ops import masks_to_boxes


def region_boxes(mask: Tensor) -> Tensor:
    """The box around the largest connected region of each mask; diagonal neighbours touch.

    Args:
        mask: (N, H, W) bool.

    Returns:
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive, (N, 4); of regions of one size the first in reading order;
        NaN for an empty mask.
    """
    region = _largest_region(mask)
    found = region.flatten(1).any(1)
    boxes = torch.full((len(mask), 4), float("nan"), device=mask.device)
    if found.any():
        boxes[found] = masks_to_boxes(region[found])
    boxes[:, 2:] += 1  # torchvision names the last pixel inside
    return boxes


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) that broadcast; NaN where one is absent (NaN) or both are empty."""
    given = boxes.dtype
    if given in (torch.float16, torch.bfloat16):  # in which areas would overflow or round
        boxes, others = boxes.float(), others.float()
    first = torch.maximum(boxes[..., :2], others[..., :2])
    last = torch.minimum(boxes[..., 2:], others[..., 2:])
    both = (last - first).clamp(min=0).prod(-1)
    areas = [(one[..., 2:] - one[..., :2]).prod(-1) for one in (boxes, others)]
    return (both / (areas[0] + areas[1] - both)).to(given)


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
    boxes = check_boxes(boxes, "boxes")
    if not isinstance(shape, Sequence) or len(shape) != 2 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"shape must be (H, W), two positive integers, got {shape!r}")
    rows, columns = (torch.arange(n, device=boxes.device) + 0.5 for n in shape)
    x0, y0, x1, y1 = boxes[..., None].unbind(-2)  # (..., 1) each
    return ((rows > y0) & (rows < y1))[..., :, None] & ((columns > x0) & (columns < x1))[..., None, :]


def mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the tight boxes (..., 4), x0 y0 x1 y1 in pixel edges, of masks (..., H, W); NaN where a mask is empty."""
    columns, rows = masks.any(axis=-2), masks.any(axis=-1)
    height, width = masks.shape[-2:]
    sides = [
        columns.argmax(axis=-1),
        rows.argmax(axis=-1),
        width - columns[..., ::-1].argmax(axis=-1),
        height - rows[..., ::-1].argmax(axis=-1),
    ]
    boxes = np.stack(sides, axis=-1).astype(np.float32)
    boxes[~columns.any(axis=-1)] = np.nan
    return boxes


def check_boxes(boxes: Tensor, name: str) -> Tensor:
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


def _largest_region(mask: Tensor) -> Tensor:
    """The largest connected region (diagonal neighbours touch) of each mask (N, H, W); empty where the mask is."""
    count, height, width = mask.shape
    tall = np.zeros((count, height + 1, width), bool)  # an empty row keeps the images apart in one tall image
    tall[:, :-1] = mask.cpu().numpy()
    numbers = label(tall.reshape(-1, width), connectivity=2).reshape(tall.shape)
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    best = numbers.reshape(count, -1)[np.arange(count), sizes[numbers].reshape(count, -1).argmax(1)]
    return torch.from_numpy(numbers[:, :-1] == best[:, None, None]).to(mask.device) & mask
