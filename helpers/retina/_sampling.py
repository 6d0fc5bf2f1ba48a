"""Views of images from one or many fixations, in log-polar and in Cartesian coordinates, and the way back."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers._validate import check_images, check_number
from helpers.retina._grid import R_MIN, check_fixations, check_retina, check_size, fine_grid


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
    Bilinear; unless `antialias` is set nothing is low-pass filtered first, and where neighbouring samples are more than
    a pixel apart, in the periphery, fine detail aliases.

    Args:
        x: images, (B, C, H, W); what lies outside them is seen as 0, so normalise first and 0 is the mean.
        fixations: (U, 2) for all images or (B, U, 2), each x, y in [-1, 1] from the left (top) edge of the image to the
            right (bottom) one; None is the centre.
        size: (n_radii, n_angles) of a view.
        r_min: radius of the innermost circle, in half the image's shorter side.
        r_max: radius of the outermost circle.
        start_angle: angle of column 0, in radians.
        antialias: read every circle from a copy of the image whose pixels are as large as the samples of that circle
            are far apart (the wider of the two distances), between two halvings from both. Near the edge of the image
            such large pixels reach beyond it, and see 0 there.

    Returns:
        (B, U, C, n_radii, n_angles), differentiable with respect to `x`, on its device and of its dtype; row 0 is the
        periphery.

    Raises:
        ValueError: wrong shapes, no image, NaN, no fixation, fixations outside the image, or a grid that is refused.
    Source: as `log_polar_grid`; the pyramid is Williams, "Pyramidal parametrics", SIGGRAPH 1983.
    """
    check_images(x)
    at = check_fixations(x, fixations)  # (B or 1, U, 2)
    n_radii, n_angles = check_size("size", size)
    places = fine_grid(n_radii, n_angles, r_min, r_max, start_angle)
    if not antialias:
        return _sampled(x, at, places)
    # Distance between neighbouring samples, in pixels, circle by circle: along the angle and along the radius.
    per_radius = max(2 * math.pi / n_angles, math.log(r_max / r_min) / (n_radii - 1))
    apart = places[:, 0].norm(dim=-1) * min(x.shape[-2:]) / 2 * per_radius
    level = apart.log2().clamp(min=0)  # (n_radii,): 0 is the image itself, 1 half as many pixels a side
    level = level.clamp(max=math.floor(math.log2(min(x.shape[-2:]))))
    seen = x.new_zeros(len(x), at.shape[1], x.shape[1], n_radii, n_angles)
    copy = x
    for number in range(int(level.max().ceil()) + 1):
        weight = (1 - (level - number).abs()).clamp(min=0)
        rows = weight.nonzero()[:, 0]  # neighbours, as the level falls from the rim to the fovea
        if len(rows):
            part = _sampled(copy, at, places[rows], number, x.shape[-2:])
            share = weight[rows, None].to(seen)
            seen = seen.index_add(3, rows.to(x.device), part * share)
        # Where a side is odd the last pixel is a mean of those that are left.
        copy = F.avg_pool2d(copy, 2, ceil_mode=True, count_include_pad=False)
    return seen


def _sampled(x: Tensor, at: Tensor, places: Tensor, halvings: int = 0, shape: tuple[int, int] | None = None) -> Tensor:
    """Images at places around fixations: (B, C, H, W), (B or 1, U, 2) and (h, w, 2) -> (B, U, C, h, w).

    Places are in half the image's shorter side. After `halvings` x is a smaller copy of images of `shape`.
    """
    height, width = shape or x.shape[-2:]
    short = min(height, width)
    # From half shorter sides to the units of grid_sample, in which every image reaches from -1 to 1.
    unit = torch.tensor([short / width, short / height], dtype=torch.float64)
    to = at[:, :, None, None] + places * unit  # (B or 1, U, h, w, 2)
    if halvings:  # the copy of an odd side reaches beyond the image
        rows, columns = x.shape[-2:]
        to = (to + 1) * torch.tensor([width / columns, height / rows], dtype=torch.float64) / 2**halvings - 1
    # Half precision holds no place to a pixel: such images are sampled in single precision.
    fine = x if x.dtype in (torch.float32, torch.float64) else x.float()
    to = to.flatten(1, 2).to(fine.dtype).to(x.device).expand(len(x), -1, -1, -1)
    seen = F.grid_sample(fine, to, mode="bilinear", padding_mode="zeros", align_corners=False)
    return seen.to(x.dtype).unflatten(2, (-1, len(places))).transpose(1, 2)


def inverse_log_polar(
    views: Tensor,
    shape: tuple[int, int],
    fixations: Tensor | None = None,
    r_min: float = R_MIN,
    r_max: float = 1.0,
    start_angle: float = 0.0,
) -> Tensor:
    """What log-polar views tell of the images they were made from.

    Bilinear between the samples, around the circle too. Inside the innermost circle its nearest sample stands, outside
    the outermost one 0. On smooth images (nothing finer than the samples' distance) the way there and back loses less
    than 0.02 of their contrast inside the disc; on others what the periphery has left out is gone.

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
    if not isinstance(views, Tensor) or views.ndim != 5 or min(views.shape[-2:]) < 2:
        got = tuple(views.shape) if isinstance(views, Tensor) else type(views).__name__
        raise ValueError(f"views must be (B, U, C, n_radii >= 2, n_angles >= 2), got {got}")
    if not views.is_floating_point() or views.numel() == 0:
        raise ValueError(f"views must be floating point and not empty, got {views.dtype}, {tuple(views.shape)}")
    if not torch.isfinite(views).all():
        raise ValueError("views must be finite, got NaN or infinite values")
    height, width = check_size("shape", shape, "(height, width)")
    r_min, r_max, start_angle = check_retina(r_min, r_max, start_angle)
    at = check_fixations(views, fixations)
    if at.shape[1] != views.shape[1]:
        raise ValueError(f"fixations must be {views.shape[1]}, one a view, got {at.shape[1]}")
    n_radii, n_angles = views.shape[-2:]
    # Pixels from each fixation, in half the shorter side: (B or 1, U, H, W).
    y, x = ((torch.arange(n, dtype=torch.float64) + 0.5) * 2 / min(height, width) for n in (height, width))
    half = torch.tensor([width, height], dtype=torch.float64) / min(height, width)
    centre = (at + 1) * half
    dx = (x - centre[..., 0, None])[:, :, None, :]
    dy = (y - centre[..., 1, None])[:, :, :, None]
    radius = (dx.square() + dy.square()).sqrt()
    row = (r_max / radius.clamp(min=r_min)).log() / math.log(r_max / r_min) * (n_radii - 1)
    column = (torch.atan2(dy, dx) - start_angle).remainder(2 * math.pi) * n_angles / (2 * math.pi)
    # The first column again behind the last one: between the two the circle closes.
    closed = torch.cat([views, views[..., :1]], dim=-1).flatten(0, 1)
    places = torch.stack([column * 2 / n_angles - 1, row.clamp(min=0) * 2 / (n_radii - 1) - 1], dim=-1)
    places = places.expand(len(views), -1, -1, -1, -1).flatten(0, 1)
    fine = closed if closed.dtype in (torch.float32, torch.float64) else closed.float()
    found = F.grid_sample(fine, places.to(fine), mode="bilinear", padding_mode="border", align_corners=True)
    inside = (radius <= r_max).expand(len(views), -1, -1, -1).flatten(0, 1)[:, None].to(views.device)
    return (found * inside).to(views.dtype).unflatten(0, views.shape[:2])


def cartesian(
    x: Tensor, fixations: Tensor | None = None, size: int | None = None, r_max: float = 1.0, disc: bool = True
) -> Tensor:
    """Views of images as they are, cut out around fixations: the control of `log_polar`, from the same disc.

    Args:
        x: images, (B, C, H, W); what lies outside them is seen as 0.
        fixations: (U, 2) for all images or (B, U, 2), each x, y in [-1, 1]; None is the centre.
        size: side of a view in pixels; None takes as many as the image has there; they are its own
            pixels where fixation and edges of the view fall between pixels.
        r_max: half the side of the square that is seen, in half the image's shorter side.
        disc: all beyond `r_max` from the fixation is 0 too.

    Returns:
        (B, U, C, size, size), differentiable with respect to `x`. Bilinear where the pixels of the view do not fall on
        those of the image.

    Raises:
        ValueError: as `log_polar`, or a size below 2.
    """
    check_images(x)
    at = check_fixations(x, fixations)
    r_max = check_number(r_max, "r_max")
    if r_max <= 0:
        raise ValueError(f"r_max must be above 0, got {r_max!r}")
    side = (
        max(2, round(min(x.shape[-2:]) * r_max))
        if size is None
        else check_size("size", (size, size), "(size, size)")[0]
    )
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) * 2 / side - 1
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1) * r_max
    seen = _sampled(x, at, places)
    if not disc:
        return seen
    return seen * (places.square().sum(-1) <= r_max**2).to(x.device)
