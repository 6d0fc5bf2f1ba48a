"""Where a log-polar retina samples, and what may be given as a retina and as fixations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from helpers._validate import check_count, check_number, check_tensor, describe

R_MIN = 2**-5  # of the released code of 2024 (bicv/Retinotopy); 1 pixel of a 64-pixel image

ROUNDING = 1e-4  # in half images: how far beyond the edge a fixation may lie that was computed to lie on it


class Geometry(NamedTuple):
    """A log-polar retina: its numbers of circles and of samples on each, its radii, the angle of its column 0."""

    n_radii: int
    n_angles: int
    r_min: float
    r_max: float
    start_angle: float


def log_polar_grid(
    n_radii: int, n_angles: int, r_min: float = R_MIN, r_max: float = 1.0, start_angle: float = 0.0
) -> Tensor:
    """The samples of a retina around its fixation: on circles whose radii fall geometrically, evenly along each.

    Implements :eq:`eq-log-polar`: r_i = r_max (r_min / r_max)^(i / (n_radii - 1)), chapter 6. Row 0 is the
    **periphery** (radius `r_max`), the last row the fovea (`r_min`); column j is the angle
    `start_angle + 2 pi j / n_angles`, growing from the x axis (right) towards the y axis (down).

    Args:
        n_radii: number of circles.
        n_angles: samples on each.
        r_min: radius of the innermost circle, in half the image's shorter side.
        r_max: radius of the outermost circle.
        start_angle: angle of column 0, in radians: where the seam lies.

    Returns:
        (n_radii, n_angles, 2) float32: x to the right and y downwards from the fixation, in half the shorter side.

    Raises:
        ValueError: counts below 2, radii that are not 0 < r_min < r_max, an angle that is not finite.
    Source: Jérémie, Daucé and Perrinet, arXiv 2402.15480; the released code's grid (`r_min = 2**-5`).
    """
    return grid_offsets(check_geometry((n_radii, n_angles), r_min, r_max, start_angle)).float()


def grid_offsets(geometry: Geometry) -> Tensor:
    """`log_polar_grid` in double precision."""
    n_radii, n_angles, r_min, r_max, start_angle = geometry
    steps = torch.linspace(0, 1, n_radii, dtype=torch.float64, device="cpu")[:, None]
    radii = r_max * (r_min / r_max) ** steps  # (n_radii, 1)
    angles = start_angle + torch.arange(n_angles, dtype=torch.float64, device="cpu") * (2 * math.pi / n_angles)
    return torch.stack([radii * angles.cos(), radii * angles.sin()], dim=-1)


def pixel_centers(count: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Where the centres of so many pixels lie along a side of an image: (count,), in (-1, 1) from edge to edge."""
    return (torch.arange(count, dtype=dtype, device=device) + 0.5) * 2 / count - 1


def check_geometry(size: Any, r_min: Any, r_max: Any, start_angle: Any) -> Geometry:
    """The retina of these numbers; ValueError unless it has 2 circles of 2 samples, 0 < r_min < r_max, all finite."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size must be (n_radii, n_angles), got {describe(size)}")
    n_radii, n_angles = check_count(size[0], "n_radii", 2), check_count(size[1], "n_angles", 2)
    r_max = check_number(r_max, "r_max", 0, above=True)
    r_min = check_number(r_min, "r_min", 0, r_max, above=True, below=True)
    return Geometry(n_radii, n_angles, r_min, r_max, check_number(start_angle, "start_angle"))


def check_fixations(fixations: Any, batch: int) -> Tensor:
    """Fixations of a batch of images as (1, U, 2), shared by all, or (B, U, 2), float64 on the CPU.

    Args:
        fixations: (U, 2) or (B, U, 2), x and y in [-1, 1]; None is the centre.
        batch: B, the number of images.

    Raises:
        ValueError: another shape, no fixation, no numbers, or one outside the image.
    """
    if fixations is None:
        return torch.zeros(1, 1, 2, dtype=torch.float64, device="cpu")
    check_tensor(fixations, "fixations", "U 2", f"{batch} U 2", kind="real")
    check_inside(fixations, "fixations")
    fixations = fixations.detach().cpu().double()
    return fixations if fixations.ndim == 3 else fixations[None]


def check_inside(points: Tensor, name: str) -> Tensor:
    """Return points (..., 2) unchanged if all of their coordinates lie in [-1, 1], that is inside the image."""
    if points.min() < -1 - ROUNDING or points.max() > 1 + ROUNDING:
        reach = f"{points.min().item():.9g} .. {points.max().item():.9g}"
        raise ValueError(f"{name} must be numbers in [-1, 1], from edge to edge of the image, got {reach}")
    return points
