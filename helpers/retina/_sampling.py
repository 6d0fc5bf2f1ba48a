"""Views of images from one or many fixations, in log-polar and in Cartesian coordinates, and the way back.

The public functions check their arguments once; the `sample_...` functions take what was checked.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers._validate import check_count, check_images, check_number, check_size, check_tensor
from helpers.retina._grid import R_MIN, Geometry, check_fixations, check_geometry, grid_offsets, pixel_centers


def log_polar(
    x: Tensor,
    fixations: Tensor | None = None,
    size: tuple[int, int] = (64, 64),
    r_min: float = R_MIN,
    r_max: float = 1.0,
    start_angle: float = 0.0,
    antialias: bool = False,
) -> Tensor:
    """Views of images through a log-polar retina, all fixations of all images in one sampling.

    Implements :eq:`eq-turn-zoom`, chapter 6: a rotation of the image about the fixation is a roll of the view along its
    angles, a zoom is a shift along its radii (ln(r_max / r_min) / (n_radii - 1) a row), a translation is neither.
    Samples are bilinear. Where they are more than a pixel apart, in the periphery, fine detail aliases, unless
    `antialias` is set.

    Args:
        x: images, (B, C, H, W); what lies outside them is seen as 0, so normalise first and 0 is the mean.
        fixations: (U, 2) for all images or (B, U, 2), each x, y in [-1, 1] from the left (top) edge of the image to the
            right (bottom) one; None is the centre.
        size: (n_radii, n_angles) of a view.
        r_min: radius of the innermost circle, in half the image's shorter side.
        r_max: radius of the outermost circle.
        start_angle: angle of column 0, in radians.
        antialias: read every circle from copies of the image, halved again and again, whose pixels are as large as the
            samples of that circle are far apart (along the circle or between circles, whichever is more); where that
            lies between two halvings, from both. Near the edge of the image such large pixels reach beyond it, and see
            0 there.

    Returns:
        (B, U, C, n_radii, n_angles), differentiable with respect to `x`, on its device and of its dtype; row 0 is the
        periphery.

    Raises:
        ValueError: wrong shapes, no image, NaN, no fixation, fixations outside the image, or a grid that is refused.
    Source: as `log_polar_grid`; the pyramid is Williams, "Pyramidal parametrics", SIGGRAPH 1983.
    """
    check_images(x)
    fixations = check_fixations(fixations, len(x))
    return sample_log_polar(x, fixations, check_geometry(size, r_min, r_max, start_angle), antialias)


def sample_log_polar(x: Tensor, fixations: Tensor, geometry: Geometry, antialias: bool = False) -> Tensor:
    """`log_polar` of arguments that were checked: fixations (B or 1, U, 2), float64 on the CPU."""
    if antialias:
        return _sample_antialiased(x, fixations, geometry)
    return sample_around(x, fixations, grid_offsets(geometry))


def _sample_antialiased(x: Tensor, fixations: Tensor, geometry: Geometry) -> Tensor:
    """Every circle of samples from copies of the images whose pixels are as large as its samples are far apart."""
    n_radii, n_angles, r_min, r_max, _ = geometry
    shape, offsets = (x.shape[-2], x.shape[-1]), grid_offsets(geometry)
    # Distance between neighbouring samples, in pixels, circle by circle: along the circle or between circles.
    per_radius = max(2 * math.pi / n_angles, math.log(r_max / r_min) / (n_radii - 1))
    spacing = offsets[:, 0].norm(dim=-1) * min(shape) / 2 * per_radius
    level = spacing.log2().clamp(min=0)  # (n_radii,), in halvings: 0 is the image, 1 half as many pixels a side
    level = level.clamp(max=math.floor(math.log2(min(shape))))
    views = x.new_zeros(len(x), fixations.shape[1], x.shape[1], n_radii, n_angles)
    smaller = x
    for halvings in range(int(level.max().ceil()) + 1):
        weight = (1 - (level - halvings).abs()).clamp(min=0)  # of this copy, for each circle
        rows = weight.nonzero()[:, 0]  # neighbours, as the level falls from the rim to the fovea
        if len(rows):
            samples = sample_around(smaller, fixations, offsets[rows], halvings, shape)
            views = views.index_add(3, rows.to(x.device), samples * weight[rows, None].to(views))
        # Where a side is odd the last pixel is a mean of those that are left.
        smaller = F.avg_pool2d(smaller, 2, ceil_mode=True, count_include_pad=False)
    return views


def sample_around(
    x: Tensor, fixations: Tensor, offsets: Tensor, halvings: int = 0, shape: tuple[int, int] | None = None
) -> Tensor:
    """Images around fixations, bilinear, 0 beyond the edges.

    Args:
        x: images, (B, C, H, W).
        fixations: (B or 1, U, 2), float64 on the CPU.
        offsets: of the samples from a fixation, (h, w, 2), float64, in half the image's shorter side.
        halvings: how many times the sides of `x` were halved.
        shape: (H, W) before that; that of `x` when None.

    Returns:
        (B, U, C, h, w).
    """
    height, width = shape or x.shape[-2:]
    short = min(height, width)
    # From half shorter sides to the units of grid_sample, in which every image reaches from -1 to 1.
    unit = offsets.new_tensor([short / width, short / height])
    points = fixations[:, :, None, None] + offsets * unit  # (B or 1, U, h, w, 2)
    if halvings:  # the copy of an odd side reaches beyond the image
        rows, columns = x.shape[-2:]
        points = (points + 1) * points.new_tensor([width / columns, height / rows]) / 2**halvings - 1
    # Half precision is too coarse to say which pixel is meant: such images are sampled in single precision.
    precise = x if x.dtype in (torch.float32, torch.float64) else x.float()
    points = points.flatten(1, 2).to(precise.dtype).to(x.device).expand(len(x), -1, -1, -1)
    samples = F.grid_sample(precise, points, mode="bilinear", padding_mode="zeros", align_corners=False)
    return samples.to(x.dtype).unflatten(2, (-1, len(offsets))).transpose(1, 2)


def inverse_log_polar(
    views: Tensor,
    shape: tuple[int, int],
    fixations: Tensor | None = None,
    r_min: float = R_MIN,
    r_max: float = 1.0,
    start_angle: float = 0.0,
) -> Tensor:
    """Images drawn back from log-polar views: what these still tell of the images they were made from.

    Bilinear between the samples, around the circle too. Inside the innermost circle a pixel takes the value of the
    nearest sample on it; outside the outermost circle it is 0. On smooth images (nothing finer than the samples'
    distance) the way there and back loses less than 0.02 of their contrast inside the disc; on others what the
    periphery has left out is gone.

    Args:
        views: (B, U, C, n_radii, n_angles), as `log_polar` returns them.
        shape: of the images, (H, W).
        fixations: those of the views, (U, 2) or (B, U, 2); None is the centre, for views with U = 1.
        r_min: as the views were made.
        r_max: as the views were made.
        start_angle: as the views were made.

    Returns:
        (B, U, C, H, W), differentiable with respect to `views`.

    Raises:
        ValueError: views that are not (B, U, C, n_radii >= 2, n_angles >= 2) of finite numbers, a shape that is not two
            integers of at least 2, other numbers of fixations, or radii that are refused.
    """
    check_tensor(views, "views", "B U C n_radii n_angles")
    if min(views.shape[-2:]) < 2:
        raise ValueError(f"views must be (B, U, C, n_radii >= 2, n_angles >= 2), got {tuple(views.shape)}")
    height, width = check_size(shape, "shape")
    n_radii, n_angles, r_min, r_max, start_angle = check_geometry(views.shape[-2:], r_min, r_max, start_angle)
    fixations = check_fixations(fixations, len(views))
    if fixations.shape[1] != views.shape[1]:
        raise ValueError(f"fixations must be {views.shape[1]}, one a view, got {fixations.shape[1]}")
    # Pixels from each fixation, in half the shorter side: (B or 1, U, H, W).
    short = min(height, width)
    down, right = ((torch.arange(n, dtype=torch.float64, device="cpu") + 0.5) * 2 / short for n in (height, width))
    half = fixations.new_tensor([width, height]) / short
    centre = (fixations + 1) * half
    dx = (right - centre[..., 0, None])[:, :, None, :]
    dy = (down - centre[..., 1, None])[:, :, :, None]
    radius = (dx.square() + dy.square()).sqrt()
    row = (r_max / radius.clamp(min=r_min)).log() / math.log(r_max / r_min) * (n_radii - 1)
    column = (torch.atan2(dy, dx) - start_angle).remainder(2 * math.pi) * n_angles / (2 * math.pi)
    # The first column again behind the last one: between the two the circle closes.
    closed = torch.cat([views, views[..., :1]], dim=-1).flatten(0, 1)
    points = torch.stack([column * 2 / n_angles - 1, row.clamp(min=0) * 2 / (n_radii - 1) - 1], dim=-1)
    points = points.expand(len(views), -1, -1, -1, -1).flatten(0, 1)
    precise = closed if closed.dtype in (torch.float32, torch.float64) else closed.float()
    images = F.grid_sample(precise, points.to(precise), mode="bilinear", padding_mode="border", align_corners=True)
    inside = (radius <= r_max).expand(len(views), -1, -1, -1).flatten(0, 1)[:, None].to(views.device)
    return (images * inside).to(views.dtype).unflatten(0, views.shape[:2])


def cartesian(
    x: Tensor, fixations: Tensor | None = None, size: int | None = None, r_max: float = 1.0, disc: bool = True
) -> Tensor:
    """Views of images as they are, cut out around fixations: what `log_polar` is compared with, from the same disc.

    Args:
        x: images, (B, C, H, W); what lies outside them is seen as 0.
        fixations: (U, 2) for all images or (B, U, 2), each x, y in [-1, 1]; None is the centre.
        size: side of a view in pixels; None takes as many as the image has there. A view whose edges fall between
            the image's pixels then consists of these.
        r_max: half the side of the square that is seen, in half the image's shorter side.
        disc: all that is farther than `r_max` from the fixation is 0, so that a disc is left of the square.

    Returns:
        (B, U, C, size, size), differentiable with respect to `x`. Bilinear where the pixels of the view do not fall on
        those of the image.

    Raises:
        ValueError: as `log_polar`, or a size below 2.
    """
    check_images(x)
    fixations = check_fixations(fixations, len(x))
    side = None if size is None else check_count(size, "size", 2)
    return sample_cartesian(x, fixations, side, check_number(r_max, "r_max", 0, above=True), disc)


def sample_cartesian(x: Tensor, fixations: Tensor, side: int | None, r_max: float, disc: bool) -> Tensor:
    """`cartesian` of arguments that were checked: fixations (B or 1, U, 2), float64 on the CPU."""
    if side is None:
        side = max(2, round(min(x.shape[-2:]) * r_max))
    axis = pixel_centers(side, dtype=torch.float64)
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1) * r_max
    views = sample_around(x, fixations, offsets)
    return views * (offsets.square().sum(-1) <= r_max**2).to(x.device) if disc else views
