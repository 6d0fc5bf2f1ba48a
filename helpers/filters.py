"""Filters of images, maps and masks: a Gaussian blur, maps stretched over an image, masks grown by a margin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from helpers._validate import check_images, check_number, check_size, check_tensor
from helpers.device import own_precision, widened


def blurred(x: Tensor, radius: float) -> Tensor:
    """Images through a Gaussian filter, mirrored at the border.

    Args:
        x: images, (B, C, H, W), in any units.
        radius: standard deviation in pixels (the `radius` of Pillow's GaussianBlur); 0 changes nothing.

    Returns:
        Like x. The filter reaches three standard deviations, or as far as mirroring once allows.

    Raises:
        ValueError: bad `x`, or a radius that is negative or not finite.
    """
    check_images(x)
    radius = check_number(radius, "radius", 0)
    if radius == 0:
        return x.clone()
    wide = widened(x)  # the weights of half precision do not add up to 1
    # A filter along one axis is a matrix: what it makes of each unit vector. Two products of matrices are many times
    # faster on a CPU than a convolution with 61 x 61 weights, which a radius of 10 takes.
    with own_precision(x):
        down, across = (_filter(n, radius, wide) for n in x.shape[-2:])
        return (down.T @ wide @ across).to(x.dtype)


def upsample(maps: Tensor, size: Sequence[int], *, offset: float = 0.0) -> Tensor:
    """Maps stretched over an image: bilinear, the centres of cells and pixels where they belong.

    Between the outermost centres and the border the outermost values go on. Up to rounding, no value lies
    outside the range of the map's own.

    Args:
        maps: (..., h, w), floating point.
        size: (H, W), of the image.
        offset: pixels by which the centres of the cells lie further down and to the right than cells spread evenly
            over the image; for `SmallVGG(atrous=...)` its property `offset` tells.

    Returns:
        (..., H, W).

    Raises:
        ValueError: maps are empty or not floating point, size is not two positive integers, or offset not finite.
    """
    flat = check_tensor(maps, "maps", "... h w", finite=False).reshape(-1, 1, *maps.shape[-2:])
    flat = widened(flat)  # places in half precision are off by whole pixels
    size = check_size(size)
    offset = check_number(offset, "offset")
    if offset == 0:
        large = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    else:
        large = F.grid_sample(flat, _grid(flat, size, offset), padding_mode="border", align_corners=False)
    return large.to(maps.dtype).view(*maps.shape[:-2], *size)


def dilate_masks(masks: Tensor, tolerance: float) -> Tensor:
    """Masks, and all pixels around them whose centres lie near enough.

    Args:
        masks: (..., H, W) bool.
        tolerance: the greatest distance of a pixel's centre from that of one inside the mask, in pixels (Euclidean).

    Returns:
        (..., H, W) bool.

    Raises:
        ValueError: masks are not (..., H, W) of bool, or a tolerance that is negative or not finite.
    """
    check_tensor(masks, "masks", "... H W", kind="bool")
    tolerance = check_number(tolerance, "tolerance", 0)
    reach = min(int(tolerance), max(masks.shape[-2:]) - 1)
    if reach == 0:
        return masks
    step = torch.arange(-reach, reach + 1, device=masks.device)
    disc = (step[:, None].square() + step.square() <= tolerance**2).float()[None, None]
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    return (F.conv2d(flat, disc, padding=reach) > 0.5).view(masks.shape)


def _filter(length: int, radius: float, like: Tensor) -> Tensor:
    """The Gaussian filter of a line of pixels: row i is what becomes of a 1 at i, (length, length)."""
    reach = round(min(3 * radius, length - 1))
    lines = torch.eye(length, dtype=like.dtype, device=like.device)
    return gaussian_blur(lines[None], [2 * reach + 1, 1], [radius, radius])[0] if reach else lines


def _grid(maps: Tensor, size: tuple[int, int], offset: float) -> Tensor:
    """Where each pixel lies in maps (N, 1, h, w) whose cells are shifted, for `grid_sample`: (N, H, W, 2)."""
    rows, columns = ((torch.arange(n, device=maps.device, dtype=maps.dtype) + 0.5 - offset) / n * 2 - 1 for n in size)
    grid = torch.stack([columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns))], dim=-1)
    return grid.expand(len(maps), -1, -1, -1)
