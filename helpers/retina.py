"""Log-polar vision: what a retina with a fovea sees of an image from one or many fixations.

Radii are in units of half the image's shorter side, so that a circle is a circle on images of any shape and radius 1 is
the largest disc around the centre that the image holds. Fixations are in units of the image itself, -1 to 1 from edge
to edge along each axis.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.capture import check_images
from helpers.networks import AngularPad2d, Card

__all__ = ["AngularPad2d", "LogPolar", "inscribed_disc", "log_polar", "log_polar_grid", "view"]

R_MIN = 2**-5  # of the released code of 2024 (bicv/Retinotopy); 1 pixel of a 64-pixel image


def _count(name: str, value: int) -> int:
    """A number of circles or angles, numpy's integers too."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if isinstance(value, bool) or count < 2:
        raise ValueError(f"{name} must be an integer of at least 2, got {value!r}")
    return count


def _radius(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size must be (n_radii, n_angles), got {size!r}")
    return _count("n_radii", size[0]), _count("n_angles", size[1])


def _grid(n_radii: int, n_angles: int, r_min: float, r_max: float, start_angle: float) -> Tensor:
    """`log_polar_grid` in double precision."""
    n_radii, n_angles = _count("n_radii", n_radii), _count("n_angles", n_angles)
    r_min, r_max = _radius("r_min", r_min), _radius("r_max", r_max)
    if not 0 < r_min < r_max:
        raise ValueError(f"r_min and r_max must be 0 < r_min < r_max, got {r_min!r} and {r_max!r}")
    start_angle = _radius("start_angle", start_angle)
    steps = torch.linspace(0, 1, n_radii, dtype=torch.float64)[:, None]
    radii = r_max * (r_min / r_max) ** steps  # (n_radii, 1)
    angles = start_angle + torch.arange(n_angles, dtype=torch.float64) * (2 * math.pi / n_angles)
    return torch.stack([radii * angles.cos(), radii * angles.sin()], dim=-1)


def log_polar_grid(
    n_radii: int, n_angles: int, r_min: float = R_MIN, r_max: float = 1.0, start_angle: float = 0.0
) -> Tensor:
    """Places that a retina samples: on circles whose radii fall geometrically, evenly along each.

    Row 0 is the **periphery** (radius `r_max`), the last row the fovea (`r_min`); column j is the angle
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
    return _grid(n_radii, n_angles, r_min, r_max, start_angle).float()


def _check_fixations(x: Tensor, fixations: Tensor | None) -> Tensor:
    """Fixations as (B or 1, U, 2), in double precision on the CPU."""
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


def log_polar(
    x: Tensor,
    fixations: Tensor | None = None,
    size: tuple[int, int] = (64, 64),
    r_min: float = R_MIN,
    r_max: float = 1.0,
    start_angle: float = 0.0,
) -> Tensor:
    """Views of images through a log-polar retina, all fixations of all images in one sampling.

    A rotation of the image about the fixation is a roll of the view along its angles, a zoom is a shift along its radii
    (ln(r_max / r_min) / (n_radii - 1) a row), a translation is neither. Bilinear, and not low-pass filtered first:
    where neighbouring samples are more than a pixel apart, in the periphery, fine detail aliases.

    Args:
        x: images, (B, C, H, W); what lies outside them is seen as 0, so normalise first and 0 is the mean.
        fixations: (U, 2) for all images or (B, U, 2), each x, y in [-1, 1] from the left (top) edge of the image to the
            right (bottom) one; None is the centre.
        size: (n_radii, n_angles) of a view.
        r_min: radius of the innermost circle, in half the image's shorter side.
        r_max: radius of the outermost circle.
        start_angle: angle of column 0, in radians.

    Returns:
        (B, U, C, n_radii, n_angles), differentiable with respect to `x`, on its device and of its dtype; row 0 is the
        periphery.

    Raises:
        ValueError: wrong shapes, no image, NaN, no fixation, fixations outside the image, or a grid that is refused.
    Source: as `log_polar_grid`.
    """
    check_images(x)
    at = _check_fixations(x, fixations)  # (B or 1, U, 2)
    n_radii, n_angles = _size(size)
    height, width = x.shape[-2:]
    short = min(height, width)
    # From half shorter sides to the units of grid_sample, in which every image reaches from -1 to 1.
    unit = torch.tensor([short / width, short / height], dtype=torch.float64)
    places = at[:, :, None, None] + _grid(n_radii, n_angles, r_min, r_max, start_angle) * unit
    places = places.flatten(1, 2)  # (B or 1, U * n_radii, n_angles, 2)
    # Half precision holds no place to a pixel: such images are sampled in single precision.
    fine = x if x.dtype in (torch.float32, torch.float64) else x.float()
    places = places.to(fine.dtype).to(x.device).expand(len(x), -1, -1, -1)
    seen = F.grid_sample(fine, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    return seen.to(x.dtype).unflatten(2, (-1, n_radii)).transpose(1, 2)  # (B, U, C, n_radii, n_angles)


class LogPolar(nn.Module):
    """`log_polar` at the centre, as a layer to put before any network: (B, C, H, W) -> (B, C, n_radii, n_angles).

    Args:
        size: (n_radii, n_angles).
        r_min: radius of the innermost circle, in half the image's shorter side.
        r_max: radius of the outermost circle.
        start_angle: angle of column 0, in radians.

    Raises:
        ValueError: a grid that is refused, or, on use, images that are.
    """

    def __init__(
        self, size: tuple[int, int] = (64, 64), r_min: float = R_MIN, r_max: float = 1.0, start_angle: float = 0.0
    ) -> None:
        super().__init__()
        self.size = _size(size)
        _grid(*self.size, r_min, r_max, start_angle)  # refuses what makes none
        self.r_min, self.r_max, self.start_angle = r_min, r_max, start_angle

    def forward(self, x: Tensor) -> Tensor:
        """See images (B, C, H, W) from their centres."""
        return log_polar(x, None, self.size, self.r_min, self.r_max, self.start_angle)[:, 0]

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        return f"size={self.size}, r_min={self.r_min:g}, r_max={self.r_max:g}, start_angle={self.start_angle:g}"


def inscribed_disc(x: Tensor) -> Tensor:
    """Images whose pixels outside the largest disc around the centre are 0: what `log_polar` sees, left in its place.

    The match is to within a pixel at the rim: bilinear samples on the circle itself mix pixels from both sides of it.

    Args:
        x: images, (B, C, H, W); a pixel stays where its centre is within half the shorter side of the image's centre.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: x is not a non-empty (B, C, H, W) of finite floating-point numbers.
    """
    check_images(x)
    height, width = x.shape[-2:]
    rows, columns = (torch.arange(n, device=x.device) + 0.5 - n / 2 for n in (height, width))
    inside = rows[:, None] ** 2 + columns**2 <= (min(height, width) / 2) ** 2
    return x * inside


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "whole": lambda x: x,
    "disc": inscribed_disc,
    "log-polar": lambda x: log_polar(x)[:, 0],
}


def view(x: Tensor, network: nn.Module | Card) -> Tensor:
    """What one of the book's networks must be shown of normalised images: all, the disc, or a log-polar view.

    Args:
        x: images, (B, C, H, W), after `networks.normalize`.
        network: a loaded network or its card, whose `view` says which.

    Returns:
        (B, C, H, W) for "whole" and "disc", (B, C, 64, 64) for "log-polar".

    Raises:
        ValueError: a network without a card, an unknown view, or images that are refused.
    """
    card = getattr(network, "card", network)
    if not isinstance(card, Card) or card.view not in VIEWS:
        raise ValueError(f"network must come from networks.load, or be a card, got {type(network).__name__}")
    return VIEWS[card.view](check_images(x))
