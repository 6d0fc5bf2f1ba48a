"""Boxes: x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive; NaN where there is none."""

from __future__ import annotations

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor

from helpers._validate import check_size, check_tensor
from helpers.device import widened


def mask_boxes(masks: Tensor) -> Tensor:
    """The tight box around each mask: `torchvision.ops.masks_to_boxes` for all masks at once, ten times as fast.

    Args:
        masks: (..., H, W) bool; none at all will do too.

    Returns:
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive, (..., 4); NaN for an empty mask.

    Raises:
        ValueError: masks are not (..., H, W) of bool.
    """
    check_tensor(masks, "masks", "... H W", kind="bool", empty=True)
    height, width = masks.shape[-2:]
    bits = masks.view(torch.uint8)  # the maximum of bytes is many times faster than `any` of bool
    columns, rows = bits.amax(-2), bits.amax(-1)
    first = columns.argmax(-1), rows.argmax(-1)
    last = width - columns.flip(-1).argmax(-1), height - rows.flip(-1).argmax(-1)
    boxes = torch.stack([*first, *last], dim=-1).float()
    return boxes.masked_fill(columns.amax(-1, keepdim=True) == 0, float("nan"))


def region_boxes(masks: Tensor) -> Tensor:
    """The box around the largest connected region of each mask; diagonal neighbours touch.

    Args:
        masks: (N, H, W) bool.

    Returns:
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive, (N, 4); of regions of one size the first in reading order;
        NaN for an empty mask.

    Raises:
        ValueError: masks are not (N, H, W) of bool, or hold no pixel.
    """
    return mask_boxes(_largest_regions(check_tensor(masks, "masks", "N H W", kind="bool")))


def box_mask(boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Boxes as masks: a pixel counts when its centre lies inside.

    Args:
        boxes: (..., 4), x0, y0, x1, y1 in pixel edges; NaN where there is none.
        shape: of the masks, (H, W).

    Returns:
        (..., H, W) bool; empty for a box of NaN.

    Raises:
        ValueError: boxes are not (..., 4), or shape is not two positive integers.
    """
    boxes = check_boxes(boxes, "boxes")
    boxes, sides = widened(boxes), check_size(shape, "shape")
    rows, columns = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5 for side in sides)
    x0, y0, x1, y1 = boxes[..., None].unbind(-2)  # (..., 1) each
    return ((rows > y0) & (rows < y1))[..., :, None] & ((columns > x0) & (columns < x1))[..., None, :]


def box_centers(boxes: Tensor) -> Tensor:
    """The centres of boxes.

    Args:
        boxes: (..., 4), x0, y0, x1, y1; NaN where there is none.

    Returns:
        x and y, (..., 2), in the units of the boxes and in floating point; NaN for a box of NaN.

    Raises:
        ValueError: boxes are no real numbers (..., 4).
    """
    check_tensor(boxes, "boxes", "... 4", kind="real", finite=False, empty=True)
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes that `check_boxes` has seen, for the functions that take boxes.

    Args:
        boxes: (..., 4).
        others: (..., 4), of a shape that broadcasts to that of boxes.

    Returns:
        (...), 0 to 1; NaN where a box is absent (NaN) or both are empty.
    """
    dtype = boxes.dtype
    if dtype in (torch.float16, torch.bfloat16):  # in which areas would overflow or round
        boxes, others = boxes.float(), others.float()
    first = torch.maximum(boxes[..., :2], others[..., :2])
    last = torch.minimum(boxes[..., 2:], others[..., 2:])
    shared = (last - first).clamp(min=0).prod(-1)
    area, other_area = ((corners[..., 2:] - corners[..., :2]).prod(-1) for corners in (boxes, others))
    return (shared / (area + other_area - shared)).to(dtype)


def check_boxes(boxes: Tensor, name: str, *layouts: str) -> Tensor:
    """Boxes as floating-point numbers, if they are boxes; none at all will do too.

    Args:
        boxes: what was given as boxes, (..., 4).
        name: of the argument, for the message.
        layouts: the axes of the shapes that will do, as `check_tensor` takes them; "... 4" when left out.

    Raises:
        ValueError: another shape, no real numbers, infinite ones, or a box that ends before it begins.
    """
    check_tensor(boxes, name, *(layouts or ["... 4"]), kind="real", finite=False, empty=True)
    if boxes.isinf().any():
        raise ValueError(f"{name} must be finite, or NaN where there is no box, got infinite values")
    boxes = boxes if boxes.is_floating_point() else boxes.to(torch.get_default_dtype())
    bad = (boxes[..., :2] > boxes[..., 2:]).any(-1)
    if bad.any():
        raise ValueError(f"{name} must have x0 <= x1 and y0 <= y1, got {boxes[bad][0].tolist()}")
    return boxes


def _largest_regions(masks: Tensor) -> Tensor:
    """The largest connected region (diagonal neighbours touch) of each mask (N, H, W); empty where the mask is."""
    count, height, width = masks.shape
    tall = np.zeros((count, height + 1, width), bool)  # an empty row keeps the images apart in one tall image
    tall[:, :-1] = masks.cpu().numpy()
    numbers = label(tall.reshape(-1, width), connectivity=2).reshape(tall.shape)
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    largest = numbers.reshape(count, -1)[np.arange(count), sizes[numbers].reshape(count, -1).argmax(1)]
    return torch.from_numpy(numbers[:, :-1] == largest[:, None, None]).to(masks.device) & masks
