"""Background textures for scenes: five procedural ones and three photographs out of scikit-image, as gray levels."""

from functools import lru_cache

import numpy as np

from helpers.data._draw.random import Double, Float, Int, pick, pick_integer, rotation
from helpers.data._photos import gray_bytes

BACKGROUNDS = ("stripes", "checks", "dots", "zigzag", "clouds", "brick", "grass", "gravel")
FILLS = ("plain", "stripes", "checks", "dots")
PARAMETERS = 7  # uniforms a texture takes
CLOUD_GRIDS = (4, 8, 16)  # cells a side of the three layers of "clouds"
CLOUD_VALUES = sum((g + 1) ** 2 for g in CLOUD_GRIDS)


def _tent(phase: Float) -> Float:
    """Return the triangle wave of period 1: 1 at whole numbers, 0 halfway."""
    return np.abs(2 * (phase - np.floor(phase)) - 1)


def _step(value: Float, softness: Float) -> Float:
    """Return 0 below, 1 above zero, with a linear ramp as wide as one pixel (`softness` is the change a pixel)."""
    return np.clip(value / softness + np.float32(0.5), 0, 1)


def procedural(kind: str, u: Double, size: int, period: tuple[float, float]) -> Float:
    """Draw a procedural texture.

    Args:
        kind: "plain", "stripes", "checks", "dots" or "zigzag".
        u: (N, PARAMETERS) uniforms.
        size: side in pixels.
        period: range of the pattern's period in pixels.

    Returns:
        (N, size, size) in [0, 1].
    """
    n = len(u)
    if kind == "plain":
        return np.zeros((n, size, size), np.float32)
    cos, sin = rotation(pick(u[:, 0], -90, 90) if kind == "stripes" else pick(u[:, 0], -45, 45))
    rate = 1 / pick(u[:, 1], *period)
    axis = np.arange(size, dtype=np.float32) + np.float32(0.5)
    cos, sin, rate, p0, p1 = (
        v.astype(np.float32)[:, None, None] for v in (cos * rate, sin * rate, rate, u[:, 2], u[:, 3])
    )
    a = cos * axis[None, None, :] + sin * axis[None, :, None] + p0  # (N, size, size), in periods
    if kind == "stripes":
        return _step(_tent(a) - np.float32(0.5), 2 * rate)
    b = cos * axis[None, :, None] - sin * axis[None, None, :] + p1
    if kind == "checks":
        return _step((_tent(a) - np.float32(0.5)) * (_tent(b) - np.float32(0.5)), rate)
    if kind == "dots":
        x, y = a - np.floor(a) - np.float32(0.5), b - np.floor(b) - np.float32(0.5)
        return _step(np.float32(0.32) - np.sqrt(x * x + y * y), rate)
    if kind == "zigzag":
        return _step(_tent(a + _tent(b * np.float32(0.7)) * np.float32(0.6)) - np.float32(0.5), np.float32(2.4) * rate)
    raise ValueError(f"kind must be plain, stripes, checks, dots or zigzag, got {kind!r}")


def clouds(values: Double, size: int) -> Float:
    """Draw smooth noise: three layers of random grids, each twice as fine and half as strong, smoothly interpolated.

    Args:
        values: (N, CLOUD_VALUES) uniforms, the grids' values.
        size: side in pixels.

    Returns:
        (N, size, size) in [0, 1].
    """
    total = np.zeros((len(values), size, size), np.float32)
    start, weight = 0, np.float32(1)
    for cells in CLOUD_GRIDS:
        grid = values[:, start : start + (cells + 1) ** 2].astype(np.float32).reshape(-1, cells + 1, cells + 1)
        start += (cells + 1) ** 2
        place = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
        cell = np.minimum(place.astype(np.int64), cells - 1)
        f = place - cell.astype(np.float32)
        f = f * f * (3 - 2 * f)  # smoothstep: no creases at the grid lines
        rows = grid[:, cell, :] * (1 - f)[:, None] + grid[:, cell + 1, :] * f[:, None]  # (N, size, cells + 1)
        total += weight * (rows[:, :, cell] * (1 - f) + rows[:, :, cell + 1] * f)
        weight /= 2
    # The layers weigh 1.75 together; the middle half of their range is spread out, so that the noise has contrast.
    return np.clip((total - np.float32(0.4375)) / np.float32(0.875), 0, 1).astype(np.float32, copy=False)


@lru_cache(maxsize=8)
def _photograph(name: str, shrink: int) -> Float:
    """Return a photograph as gray in [0, 1], shrunk by whole-number sums; the 2 % darkest and brightest are clipped."""
    gray = gray_bytes(name).astype(np.int64)
    rows, columns = (side - side % shrink for side in gray.shape)
    blocks = gray[:rows, :columns].reshape(rows // shrink, shrink, columns // shrink, shrink).sum(axis=(1, 3))
    ranked = np.sort(blocks.reshape(-1))
    low, high = int(ranked[len(ranked) // 50]), int(ranked[-1 - len(ranked) // 50])
    return np.clip((blocks - low).astype(np.float32) / np.float32(high - low), 0, 1)


def photographic(name: str, u: Double, size: int) -> Float:
    """Cut windows (N, size, size) in [0, 1] out of brick, grass or gravel, at random places, mirrored at random."""
    image = _photograph(name, 2 if size <= 96 else 1)
    axis = np.arange(size)
    top, left = (pick_integer(u[:, k], 0, max(0, image.shape[k] - size)) for k in (0, 1))
    mirror = (u[:, 2] < 0.5)[:, None]
    rows = _folded(top[:, None] + axis, image.shape[0])
    columns = _folded(left[:, None] + np.where(mirror, axis[::-1], axis), image.shape[1])
    return image[rows[:, :, None], columns[:, None, :]]


def _folded(index: Int, length: int) -> Int:
    """Fold indices beyond the picture's edge back into it, as a mirror does."""
    index = index % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def background(kinds: Int, u: Double, cloud_values: Double, size: int) -> Float:
    """Draw backgrounds.

    Args:
        kinds: (N,), positions in BACKGROUNDS.
        u: (N, PARAMETERS) uniforms.
        cloud_values: (N, CLOUD_VALUES) uniforms.
        size: side in pixels.

    Returns:
        (N, size, size) in [0, 1].
    """
    drawn = np.zeros((len(kinds), size, size), np.float32)
    for number, name in enumerate(BACKGROUNDS):
        mine = np.flatnonzero(kinds == number)
        if name == "clouds":
            drawn[mine] = clouds(cloud_values[mine], size)
        elif name in ("brick", "grass", "gravel"):
            drawn[mine] = photographic(name, u[mine], size)
        else:
            drawn[mine] = procedural(name, u[mine], size, (size * 0.12, size * 0.28))
    return drawn
