"""A digit somewhere on a noisy display: the world of the published what/where model."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from helpers._validate import check_count, check_number, check_range, check_tensor, seeded

DISPLAY_PX = 128  # side of the display
FREQUENCY, BANDWIDTH = 0.1, 0.1  # of the noise, in cycles a pixel
NOISE = 0.75  # contrast of the noise
CONTRAST = (0.3, 0.7)  # of the digit
SPREAD_PX, LIMIT_PX = 30.0, 34.0  # eccentricities are |N(0, 30)|, drawn again beyond 34
SINGLE: Any = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are
FIELDS = 128  # noise fields a call draws; every display sees one of them shifted around


class Displays(NamedTuple):
    """Noisy displays of one digit each.

    Attributes:
        images: (N, 1, S, S) float32 in [0, 1], 0.5 the mean gray.
        places: (N, 2) int64, x to the right and y downwards from the display's centre to the digit's, in pixels.
        contrasts: (N,) float32, of the digits.
    """

    images: Tensor
    places: Tensor
    contrasts: Tensor


def band_noise(
    n: int, seed: int = 0, size: int = DISPLAY_PX, frequency: float = FREQUENCY, bandwidth: float = BANDWIDTH
) -> Tensor:
    """Random textures with one spatial frequency and all orientations, periodic at their edges.

    White noise whose amplitudes are exp(-ln(f / frequency)^2 / (2 ln(1 + bandwidth / frequency)^2)) / f.

    Args:
        n: number of textures, at least 1.
        seed: integer >= 0.
        size: side in pixels, from 8 on.
        frequency: cycles a pixel, up to 0.5.
        bandwidth: cycles a pixel.

    Returns:
        (n, size, size) float32, mean 0, greatest absolute value 1. The same seed gives the same numbers on every
        platform but for rounding.

    Raises:
        ValueError: an argument outside its range.
    Source: "Motion Clouds" (Leon et al., J. Neurophysiology 2012) of a single frame, as the what/where model uses them.
    """
    n, size = check_count(n, "n"), check_count(size, "size", 8)
    frequency = check_number(frequency, "frequency", 1e-3, 0.5)
    bandwidth = check_number(bandwidth, "bandwidth", 1e-3, 0.5)
    draw = seeded(seed)
    white = torch.randn(n, size, size, generator=draw, **SINGLE)
    down, across = torch.fft.fftfreq(size, **SINGLE), torch.fft.rfftfreq(size, **SINGLE)
    f = (down[:, None].square() + across.square()).sqrt()
    f[0, 0] = 1.0  # the mean, which is taken away below
    amplitude = torch.exp(-((f / frequency).log().square()) / (2 * math.log1p(bandwidth / frequency) ** 2)) / f
    amplitude[0, 0] = 0.0
    textures = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(size, size))
    if not bool((textures != 0).any()):
        raise ValueError(f"bandwidth must be one that {size} pixels can hold, got {bandwidth} around {frequency}")
    return textures / textures.abs().amax((1, 2), keepdim=True)


def noisy_displays(
    digits: Tensor,
    seed: int = 0,
    *,
    places: Tensor | None = None,
    size: int = DISPLAY_PX,
    contrast: float | tuple[float, float] = CONTRAST,
    noise: float = NOISE,
) -> Displays:
    """Put each digit on a display of band-pass noise, away from the centre.

    The digit's strokes (values above 0.5) have the gray level 0.5 + contrast (value - 0.5), the noise 0.5 + noise n / 2
    with n in [-1, 1]; on strokes the brighter of the two is seen. Beyond the circle that the display holds all is 0.5.

    Args:
        digits: (N, 1, h, w) in [0, 1], white on black.
        seed: of noise, places and contrasts.
        places: (N, 2) whole numbers, x and y from the display's centre to the digit's, in pixels; parts beyond the edge
            are cut off. None draws them: any angle, a distance of |N(0, 30)| up to 34 pixels,
            then rounded.
        size: side of the display in pixels, even, from 16 on. No larger than the digits it is a window, no disc.
        contrast: of the digits, in [0, 1], or a range to draw it from evenly.
        noise: contrast of the noise, in [0, 1].

    Raises:
        ValueError: digits or places of another shape or kind, or an argument outside its range.
    Source: Daucé, Albiges and Perrinet, "A dual foveal-peripheral visual processing model implements efficient saccade
        selection", Journal of Vision 20(8):22, 2020, and its released code.
    """
    check_tensor(digits, "digits", "N 1 h w")
    if digits.min() < 0 or digits.max() > 1:
        raise ValueError(f"digits must lie in [0, 1], got {digits.min():.4g} .. {digits.max():.4g}")
    size = check_count(size, "size", 16)
    if size % 2:
        raise ValueError(f"size must be even, for the centre lies between four pixels, got {size}")
    low, high = check_range(contrast, "contrast", 0, 1)
    noise = check_number(noise, "noise", 0, 1)
    n, height, width = len(digits), *digits.shape[2:]
    draw = seeded(seed)
    if places is None:
        places = _drawn_places(n, draw)
    else:
        check_tensor(places, "places", f"{n} 2", kind="integer")
    places = places.long().cpu()  # narrow integers would wrap around
    contrasts = low + (high - low) * torch.rand(n, generator=draw, **SINGLE)
    field_seed = int(torch.randint(2**31, (), generator=draw, device="cpu"))
    fields = band_noise(min(n, FIELDS), field_seed, max(size, DISPLAY_PX))
    images = _shifted(fields, n, size, draw).mul_(0.5 * noise).add_(0.5)
    # Only the digits' own pixels are looked at; those beyond the edge are left out.
    down, across = (torch.arange(n, device="cpu") - n // 2 + size // 2 for n in (height, width))
    rows = (places[:, 1:] + down)[:, :, None].expand(n, height, width)
    columns = (places[:, :1] + across)[:, None].expand(n, height, width)
    value = digits[:, 0].float().cpu()
    seen = (value > 0.5) & (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    pixels = (seen.nonzero()[:, 0], rows[seen], columns[seen])
    images[pixels] = torch.maximum(images[pixels], (0.5 + contrasts[:, None, None] * (value - 0.5))[seen])
    if size > max(height, width):
        from_centre = (torch.arange(size, **SINGLE) + 0.5 - size // 2).square()
        images.masked_fill_(from_centre[:, None] + from_centre > (size // 2) ** 2, 0.5)
    return Displays(images[:, None], places, contrasts)


def _drawn_places(n: int, draw: torch.Generator) -> Tensor:
    """Places (n, 2) around the centre, in whole pixels."""
    # A normal distribution cut at the limit, by its inverse.
    top = torch.special.ndtr(torch.tensor(LIMIT_PX / SPREAD_PX, **SINGLE))
    distance = SPREAD_PX * torch.special.ndtri(0.5 + torch.rand(n, generator=draw, **SINGLE) * (top - 0.5))
    angle = 2 * math.pi * torch.rand(n, generator=draw, **SINGLE)
    return torch.stack([distance * angle.cos(), distance * angle.sin()], dim=1).round().long()


def _shifted(fields: Tensor, n: int, size: int, draw: torch.Generator) -> Tensor:
    """Windows (n, size, size) of periodic fields (F, S, S), around any of their points."""
    which = torch.randint(len(fields), (n,), generator=draw, device="cpu")
    corner = torch.randint(fields.shape[-1], (2, n, 1), generator=draw, device="cpu")
    rows, columns = (corner + torch.arange(size, device="cpu")) % fields.shape[-1]  # (n, size) each
    return fields[which[:, None, None], rows[:, :, None], columns[:, None, :]]
