"""Exact random numbers and rendering: the numpy core of the embedded worlds.

The worlds promise the same bytes for the same seed on every platform and with every numpy. So random numbers come from
the raw bits of PCG64 (numpy guarantees that stream, not what `Generator` makes of it), and arithmetic is elementwise
`+ - * / sqrt floor min max` only, which IEEE 754 rounds alike everywhere: no exp, sin, pow, and no sum over floats.
"""

import numpy as np
from numpy.typing import NDArray

from helpers._validate import check_count

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Int = NDArray[np.int64]

FIELD_HALF_WIDTH = 1.5  # shape units: a field covers [-1.5, 1.5] squared, the shape itself lies in [-1, 1] squared
FIELD_POINTS = 65  # grid points a side; the spacing 3/64 is a binary fraction, so grid coordinates are exact


def bit_stream(seed: int, *tags: int) -> np.random.PCG64:
    """Return the bit stream of `seed` that `tags` (small non-negative integers) select."""
    return np.random.PCG64([check_count(seed, "seed", 0), *tags])


def uniforms(bits: np.random.PCG64, *shape: int) -> Double:
    """Draw the next uniform numbers in [0, 1), multiples of 2**-53, of the given shape."""
    raw = bits.random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def balanced_labels(bits: np.random.PCG64, n: int, classes: int) -> Int:
    """Draw n labels, every block of `classes` labels a permutation: class counts differ by one at most."""
    blocks = -(-n // classes)
    return np.argsort(uniforms(bits, blocks, classes), axis=1, kind="stable").reshape(-1)[:n].astype(np.int64)


def pick(u: Double, low: float, high: float) -> Double:
    """Map uniforms in [0, 1) to [low, high)."""
    return low + u * (high - low)


def pick_integer(u: Double, low: int, high: int) -> Int:
    """Map uniforms in [0, 1) to the integers low .. high, both included."""
    return low + np.floor(u * (high - low + 1)).astype(np.int64)


def rotation(degrees: Double) -> tuple[Double, Double]:
    """Return cosine and sine of angles in [-90, 90] degrees: exactly a rotation, its angle right to 0.02 degrees.

    Rational on purpose: tan(a/2) by a Padé approximant, then cos = (1 - t^2)/(1 + t^2) and sin = 2t/(1 + t^2).
    """
    half = degrees * (3.141592653589793 / 360.0)
    t = half * (15.0 - half * half) / (15.0 - 6.0 * half * half)
    return (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)


def coverage(
    fields: Float, index: Int, matrix: Double, centre: Double, scale: Double, size: int, grow: Double
) -> Float:
    """Render one shape an image, antialiased, by sampling its signed distance field.

    Args:
        fields: (S, G, G), signed distances in shape units, negative inside.
        index: (N,), the shape of each image.
        matrix: (N, 2, 2), from pixel offsets (x, y) to shape units.
        centre: (N, 2), where the shape's origin lies (x, y), in pixels.
        scale: (N,), pixels a shape unit, which turns distances into pixels.
        size: side of the rendered square, in pixels.
        grow: (N,), how far the outline moves outwards, in pixels: thicker or, below 0, thinner strokes.

    Returns:
        (N, size, size) in [0, 1], the share of each pixel that the shape covers.
    """
    points = fields.shape[-1]
    pixels = np.arange(size) + 0.5
    dx = (pixels[None, None, :] - centre[:, 0, None, None]).astype(np.float32)  # (N, 1, size)
    dy = (pixels[None, :, None] - centre[:, 1, None, None]).astype(np.float32)  # (N, size, 1)
    to_grid = (matrix * ((points - 1) / (2 * FIELD_HALF_WIDTH))).astype(np.float32)[:, :, :, None, None]
    middle, edge = np.float32((points - 1) / 2), np.float32(points - 1)
    gx = np.clip(to_grid[:, 0, 0] * dx + to_grid[:, 0, 1] * dy + middle, 0, edge)  # (N, size, size)
    gy = np.clip(to_grid[:, 1, 0] * dx + to_grid[:, 1, 1] * dy + middle, 0, edge)
    x0 = np.minimum(gx.astype(np.int32), points - 2)
    y0 = np.minimum(gy.astype(np.int32), points - 2)
    fx, fy = gx - x0.astype(np.float32), gy - y0.astype(np.float32)
    flat = fields.reshape(-1)
    at = (index * points * points).astype(np.int32)[:, None, None] + y0 * np.int32(points) + x0
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    lower = flat[at + points] * (1 - fx) + flat[at + points + 1] * fx
    distance = (upper * (1 - fy) + lower * fy) * scale.astype(np.float32)[:, None, None]
    return np.clip(np.float32(0.5) - distance + grow.astype(np.float32)[:, None, None], 0, 1)


def patch_index(centre: Double, patch: int, size: int) -> tuple[Int, Double]:
    """Place square patches on canvases so that each holds its centre and stays on the canvas.

    Args:
        centre: (N, 2), (x, y) in pixels.
        patch: side of the patches, at most `size`.
        size: side of the canvases.

    Returns:
        (N, patch, patch) flat indices into an (N, size, size) canvas, and (N, 2) the centres within the patches.
    """
    corner = np.clip(np.floor(centre - patch / 2 + 0.5), 0, size - patch).astype(np.int64)  # (N, 2)
    steps = np.arange(patch)
    rows = (corner[:, 1, None] + steps) * size + (np.arange(len(centre)) * size * size)[:, None]
    columns = corner[:, 0, None] + steps
    return rows[:, :, None] + columns[:, None, :], centre - corner


def to_bytes(values: Float) -> NDArray[np.uint8]:
    """Quantise values in [0, 1] to 0 .. 255, rounding halves up."""
    return np.floor(np.clip(values, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def from_bytes(values: NDArray[np.uint8]) -> Float:
    """Map bytes to float32 in [0, 1]."""
    return values.astype(np.float32) / np.float32(255)
