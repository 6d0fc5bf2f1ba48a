"""Drawing on the canvases of scenes: colours whose contrast is guaranteed, one textured shape, one word."""

import numpy as np
from numpy.typing import NDArray

from helpers.data._draw import random as raster
from helpers.data._draw.sdf import SHAPES, glyph_field, shape_field
from helpers.data._draw.textures import FILLS, PARAMETERS, procedural

ROTATE_DEGREES = 20.0  # either way: a square stays a square, an arrow points upwards
# Luminance of the two zones, of 1: objects lie in one, the background in the other, so the gap of 0.16 is always seen.
DARK, LIGHT = (0.06, 0.40), (0.56, 0.94)
COLOUR_UNIFORMS = 10
OBJECT_UNIFORMS = 5 + COLOUR_UNIFORMS + 1 + PARAMETERS
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_FONT = "DejaVuSansMono-Bold.ttf"
WORD_LENGTHS = (3, 5)  # letters
WORD_UNIFORMS = 4 + WORD_LENGTHS[1] + COLOUR_UNIFORMS
REACH = 1.12  # shape units: how far a shape, turned by ROTATE_DEGREES, reaches along x or y at most


def luminance_colour(u: raster.Double, luminance: raster.Double, saturation: raster.Double) -> raster.Float:
    """Return colours (N, 3) of exactly this luminance (Rec. 601 weights) and a random hue.

    Args:
        u: (N, 3) uniforms.
        luminance: (N,) in (0, 1).
        saturation: (N,) in [0, 1]: 0 is gray, 1 the most that the luminance allows.
    """
    y = (u[:, 0] * 0.299 + u[:, 1] * 0.587) + u[:, 2] * 0.114
    off = u - y[:, None]
    room = np.where(off > 0, 1 - luminance[:, None], luminance[:, None]) / np.maximum(np.abs(off), 1e-6)
    reach = np.minimum(np.minimum(room[:, 0], room[:, 1]), room[:, 2]) * saturation
    return (luminance[:, None] + off * reach[:, None]).astype(np.float32)


def two_colours(
    u: raster.Double, light: NDArray[np.bool_], apart: float, saturation: tuple[float, float]
) -> tuple[raster.Float, raster.Float]:
    """Return two colours (N, 3) of one zone.

    Args:
        u: (N, COLOUR_UNIFORMS) uniforms.
        light: (N,), the zone: LIGHT where true, else DARK.
        apart: least distance of the two luminances, as a share of the zone, 0 to 1.
        saturation: range of the saturation.
    """
    low = np.where(light, LIGHT[0], DARK[0])
    width = np.where(light, LIGHT[1] - LIGHT[0], DARK[1] - DARK[0])
    gap = apart + u[:, 0] * (1 - apart)
    start = u[:, 1] * (1 - gap)
    first, second = low + width * start, low + width * (start + gap)
    swap = u[:, 2] < 0.5
    strength = raster.pick(u[:, 3], *saturation)
    return (
        luminance_colour(u[:, 4:7], np.where(swap, second, first), strength),
        luminance_colour(u[:, 7:10], np.where(swap, first, second), strength),
    )


def mix(a: raster.Float, b: raster.Float, share: raster.Float) -> raster.Float:
    """Blend colours a and b (N, 3) by share (N, H, W) of b: (N, 3, H, W)."""
    share = share[:, None]
    return a[:, :, None, None] * (1 - share) + b[:, :, None, None] * share


def _paint(canvas: raster.Float, where: raster.Int, cover: raster.Float, colour: raster.Float) -> NDArray[np.bool_]:
    """Blend colour (N, 3, P, P) onto canvas (N, 3, S, S) at `where`, in place; return the masks (N, S, S)."""
    n, _, size, _ = canvas.shape
    image = np.arange(n)[:, None, None] * (2 * size * size)  # from indices into (N, S, S) to channel 0 of (N, 3, S, S)
    flat = canvas.reshape(-1)
    for channel in range(3):
        index = where + image + channel * size * size
        flat[index] = flat[index] * (1 - cover) + colour[:, channel] * cover
    mask = np.zeros((n, size, size), bool)
    mask.reshape(-1)[where] = cover >= 0.5
    return mask


def draw_shape(
    canvas: raster.Float,
    label: raster.Int,
    v: raster.Double,
    corner: raster.Double,
    cell: tuple[float, float],
    scale: tuple[float, float],
    light: NDArray[np.bool_],
    present: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Draw one shape a scene, in place.

    Args:
        canvas: (N, 3, S, S).
        label: (N,), positions in SHAPES.
        v: (N, OBJECT_UNIFORMS) uniforms.
        corner: (N, 2), upper left corner (x, y) of the cell that the shape stays in, in pixels.
        cell: width and height of the cells in pixels.
        scale: range of the diameter as a fraction of S.
        light: (N,), the colours' zone.
        present: (N,), false where nothing is to be drawn.

    Returns:
        (N, S, S), the pixels that the shape covers by half or more.
    """
    n, _, size, _ = canvas.shape
    largest = min(scale[1] * size, min(cell) - 2)
    diameter = np.minimum(raster.pick(v[:, 0], *scale) * size, largest)
    patch = min(size, int(largest) + 4)
    centre = corner + diameter[:, None] / 2 + 1 + v[:, 1:3] * (np.array(cell) - 2 - diameter[:, None])
    where, inner = raster.patch_index(centre, patch, size)
    cos, sin = raster.rotation(raster.pick(v[:, 3], -ROTATE_DEGREES, ROTATE_DEGREES))
    unit = diameter / 2 / REACH
    matrix = np.stack([cos / unit, sin / unit, -sin / unit, cos / unit], axis=1).reshape(-1, 2, 2)
    fields = np.stack([shape_field(name) for name in SHAPES])
    cover = raster.coverage(fields, label, matrix, inner, unit, patch, np.zeros(n))
    cover[~present] = 0
    fill = np.zeros((n, patch, patch), np.float32)
    kind = raster.pick_integer(v[:, 4], 0, len(FILLS) - 1)
    for number, name in enumerate(FILLS):
        mine = np.flatnonzero(kind == number)
        fill[mine] = procedural(name, v[mine, 6 + COLOUR_UNIFORMS :], patch, (size * 0.08, size * 0.16))
    colour = mix(*two_colours(v[:, 5:], light, 0.3, (0.6, 1.0)), fill)  # (N, 3, patch, patch)
    return _paint(canvas, where, cover, colour)


def draw_word(
    canvas: raster.Float,
    v: raster.Double,
    top: raster.Int,
    height: int,
    light: NDArray[np.bool_],
    present: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Draw one word of random capitals a scene, in place.

    Args:
        canvas: (N, 3, S, S).
        v: (N, WORD_UNIFORMS) uniforms.
        top: (N,), upper edge of the strip that the word stays in, in pixels.
        height: height of the strip in pixels.
        light: (N,), the colours' zone.
        present: (N,), false where nothing is to be drawn.

    Returns:
        (N, S, S), the pixels that the letters cover by half or more.
    """
    n, _, size, _ = canvas.shape
    letter = height - 4.0  # height of a capital in pixels
    step = letter * 0.85  # from one letter to the next
    count = raster.pick_integer(v[:, 0], *WORD_LENGTHS)
    left = 2 + v[:, 1] * (size - 4 - count * step)
    half = np.full(n, letter / 2)
    matrix = np.zeros((n, 2, 2))
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / half
    fields = np.stack([glyph_field(LETTER_FONT, c) for c in LETTERS])
    patch, masks = height, np.zeros((n, size, size), bool)
    colour = two_colours(v[:, 4 + WORD_LENGTHS[1] :], light, 0.0, (0.6, 1.0))[0]
    colour = np.broadcast_to(colour[:, :, None, None], (n, 3, patch, patch))
    for k in range(WORD_LENGTHS[1]):
        centre = np.stack([left + (k + 0.5) * step, top + height / 2], axis=1)
        where, inner = raster.patch_index(centre, patch, size)
        index = raster.pick_integer(v[:, 4 + k], 0, len(LETTERS) - 1)
        cover = raster.coverage(fields, index, matrix, inner, half, patch, np.zeros(n))
        cover[(count <= k) | ~present] = 0
        masks |= _paint(canvas, where, cover, colour)
    return masks
