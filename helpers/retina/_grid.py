"""Where a log-polar retina samples, and what may be given as a fixation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from helpers._validate import check_count, check_number

R_MIN = 2**-5  # of the released code of 2024 (bicv/Retinotopy); 1 pixel of a 64-pixel image


def log_polar_grid(
    n_radii: int, n_angles: int, r_min: float = R_MIN, r_max: float = 1.0, start_angle: float = 0.0
) -> Tensor:
    """Places that a retina samples: on circles whose radii fall geometrically, evenly along each.

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
    return fine_grid(n_radii, n_angles, r_min, r_max, start_angle).float()


def fine_grid(n_radii: int, n_angles: int, r_min: float, r_max: float, start_angle: float) -> Tensor:
    """`log_polar_grid` in double precision."""
    n_radii, n_angles = check_count(n_radii, "n_radii", 2), check_count(n_angles, "n_angles", 2)
    r_min, r_max, start_angle = check_retina(r_min, r_max, start_angle)
    steps = torch.linspace(0, 1, n_radii, dtype=torch.float64)[:, None]
    radii = r_max * (r_min / r_max) ** steps  # (n_radii, 1)
    angles = start_angle + torch.arange(n_angles, dtype=torch.float64) * (2 * math.pi / n_angles)
    return torch.stack([radii * angles.cos(), radii * angles.sin()], dim=-1)


def check_retina(r_min: float, r_max: float, start_angle: float) -> tuple[float, float, float]:
    """Return radii and angle of a retina as floats; ValueError unless 0 < r_min < r_max and all are finite."""
    r_min, r_max = check_number(r_min, "r_min"), check_number(r_max, "r_max")
    if not 0 < r_min < r_max:
        raise ValueError(f"r_min and r_max must be 0 < r_min < r_max, got {r_min!r} and {r_max!r}")
    return r_min, r_max, check_number(start_angle, "start_angle")


def check_size(name: str, size: tuple[int, int], what: str = "(n_radii, n_angles)") -> tuple[int, int]:
    """Return two counts of at least 2 as integers; ValueError names the argument."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"{name} must be {what}, got {size!r}")
    first, second = what.strip("()").split(", ")
    return check_count(size[0], first, 2), check_count(size[1], second, 2)


def check_fixations(x: Tensor, fixations: Tensor | None) -> Tensor:
    """Fixations of images (B, C, H, W) as (B or 1, U, 2), in double precision on the CPU."""
    if fixations is None:
        return torch.zeros(1, 1, 2, dtype=torch.float64)
    wanted = f"fixations must be (U, 2) or ({len(x)}, U, 2), U at least 1, of numbers in [-1, 1]"
    if not isinstance(fixations, Tensor) or fixations.ndim not in (2, 3) or fixations.shape[-1] != 2:
        raise ValueError(f"{wanted}, got {tuple(fixations.shape) if isinstance(fixations, Tensor) else fixations!r}")
    if fixations.shape[-2] == 0 or (fixations.ndim == 3 and len(fixations) != len(x)):
        raise ValueError(f"{wanted}, got {tuple(fixations.shape)}")
    at = fixations.detach().cpu().double()
    if not (at.abs() <= 1).all():  # NaN too
        raise ValueError(f"{wanted} (the image's edges), got {at.min().item():.4g} .. {at.max().item():.4g}")
    return at if at.ndim == 3 else at[None]
