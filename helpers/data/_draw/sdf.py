"""Outlines as closed polygons, and their signed distance fields: glyphs of matplotlib's own fonts, and eight shapes."""

from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import ft2font

from helpers.data._draw.random import FIELD_HALF_WIDTH, FIELD_POINTS, Double, Float

# Eight faces that differ in stroke, serifs and slant, by the names of their files among matplotlib's fonts.
DIGIT_FONTS: dict[str, str] = {
    "DejaVu Sans": "DejaVuSans.ttf",
    "DejaVu Sans Bold": "DejaVuSans-Bold.ttf",
    "DejaVu Sans Oblique": "DejaVuSans-Oblique.ttf",
    "DejaVu Serif": "DejaVuSerif.ttf",
    "STIX General": "STIXGeneral.ttf",
    "STIX General Bold Italic": "STIXGeneralBolIta.ttf",
    "Computer Modern Sans": "cmss10.ttf",
    "Computer Modern Typewriter": "cmtt10.ttf",
}
SHAPES = ("disk", "ring", "square", "triangle", "star", "cross", "crescent", "arrow")
CURVE_STEPS = 4  # straight pieces a Bézier curve becomes: within 0.1 px of the curve at the sizes used here

MOVE, LINE, QUADRATIC, CUBIC = 1, 2, 3, 4  # matplotlib's path codes; 79 closes a contour


def _load_flags() -> Any:
    """Return FreeType's flags for untouched font units; matplotlib 3.10 moved them into an enum."""
    module: Any = ft2font  # its types know the newest version alone
    if hasattr(module, "LoadFlags"):
        return module.LoadFlags.NO_SCALE | module.LoadFlags.IGNORE_TRANSFORM
    return module.LOAD_NO_SCALE | module.LOAD_IGNORE_TRANSFORM


def _curve(points: list[Double]) -> list[Double]:
    """Flatten one Bézier curve (3 or 4 control points) by de Casteljau's scheme; the start point is left out."""
    flat = []
    for step in range(1, CURVE_STEPS + 1):
        t, level = step / CURVE_STEPS, points
        while len(level) > 1:
            level = [a + (b - a) * t for a, b in pairwise(level)]
        flat.append(level[0])
    return flat


def glyph_contours(file: str, character: str) -> list[Double]:
    """Return the closed contours of a glyph in font units, y upwards.

    Args:
        file: name of a font file among those matplotlib ships.
        character: one character.

    Returns:
        A list of (P, 2) arrays of points (x, y), the last one joined to the first.
    """
    font = ft2font.FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", file)))
    font.load_char(ord(character), flags=_load_flags())
    vertices, codes = font.get_path()
    vertices = np.asarray(vertices, np.float64) * 64.0  # matplotlib divides by 64; undone, these are whole font units
    contours: list[list[Double]] = []
    k = 0
    while k < len(codes):
        code = int(codes[k])
        if code == MOVE:
            contours.append([vertices[k]])
        elif code == LINE:
            contours[-1].append(vertices[k])
        elif code in (QUADRATIC, CUBIC):
            last = k + code - 2
            contours[-1] += _curve([contours[-1][-1], *vertices[k : last + 1]])
            k = last
        k += 1
    return [np.array(c) for c in contours]


def _turned(step: int) -> tuple[float, float]:
    """Return cos and sin of step/40 of a turn, by repeated rotation: alike on every platform."""
    # tan(pi/40) to double precision: written out, because tan() may differ in the last bit between platforms.
    t = 0.07870170682461844
    c, s = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    x, y = 1.0, 0.0
    for _ in range(step % 40):
        x, y = x * c - y * s, x * s + y * c
    return x, y


def _circle(radius: float, x: float = 0.0, y: float = 0.0, start: int = 0, stop: int = 40) -> Double:
    return np.array([(x + radius * c, y + radius * s) for c, s in map(_turned, range(start, stop))])


def _star() -> Double:
    radii = [1.0 if k % 2 == 0 else 0.42 for k in range(10)]
    return np.array([(r * _turned(4 * k)[1], -r * _turned(4 * k)[0]) for k, r in enumerate(radii)])


def shape_contours(name: str) -> list[Double]:
    """Return the closed contours of one of SHAPES in [-1, 1] squared, y downwards, as (P, 2) arrays."""
    if name == "disk":
        return [_circle(0.9)]
    if name == "ring":
        return [_circle(1.0), _circle(0.55)[::-1]]
    if name == "square":
        return [np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)])]
    if name == "triangle":
        return [np.array([(0.0, -0.95), (0.92, 0.7), (-0.92, 0.7)])]
    if name == "star":
        return [_star()]
    if name == "cross":
        a = 0.3
        right = [(a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1)]
        return [np.array(right + [(-x, -y) for x, y in right])]
    if name == "crescent":
        # The unit circle less the circle of radius 0.75 about (0.35, 0): both pass through (0.8, +-0.6).
        horns = np.array([(0.8, 0.6)]), np.array([(0.8, -0.6)])
        inner = _circle(0.75, 0.35, start=6, stop=35)[::-1]
        return [np.concatenate([horns[0], _circle(1.0, start=5, stop=36), horns[1], inner]) + np.array([0.1, 0.0])]
    if name == "arrow":
        return [np.array([(0, -1), (0.85, -0.1), (0.3, -0.1), (0.3, 1), (-0.3, 1), (-0.3, -0.1), (-0.85, -0.1)])]
    raise ValueError(f"name must be one of {', '.join(SHAPES)}, got {name!r}")


def signed_distance(contours: list[Double], x: Double, y: Double) -> Double:
    """Return the signed distance of points to closed contours, negative inside (non-zero winding).

    Args:
        contours: (P, 2) arrays, the last point joined to the first.
        x: coordinates of the points, any shape.
        y: the same shape as x.

    Returns:
        Distances in the contours' unit, of x's shape.
    """
    nearest = np.full(x.shape, np.inf)
    winding = np.zeros(x.shape, np.int64)
    for contour in contours:
        for (ax, ay), (bx, by) in zip(contour, np.concatenate([contour[1:], contour[:1]]), strict=True):
            ex, ey = bx - ax, by - ay
            length2 = ex * ex + ey * ey
            if length2 == 0:
                continue
            px, py = x - ax, y - ay
            t = np.clip((px * ex + py * ey) / length2, 0.0, 1.0)
            qx, qy = px - t * ex, py - t * ey
            nearest = np.minimum(nearest, qx * qx + qy * qy)
            left = ex * py - ey * px
            winding += ((py >= 0) & (y < by) & (left > 0)).astype(np.int64)  # the edge goes up past the point
            winding -= ((py < 0) & (y >= by) & (left < 0)).astype(np.int64)
    return np.where(winding != 0, -np.sqrt(nearest), np.sqrt(nearest))


def _field(contours: list[Double]) -> Float:
    axis = np.arange(FIELD_POINTS) * (2 * FIELD_HALF_WIDTH / (FIELD_POINTS - 1)) - FIELD_HALF_WIDTH
    field = signed_distance(contours, *np.meshgrid(axis, axis)).astype(np.float32)
    field.setflags(write=False)  # the cache hands out one array to all
    return field


@lru_cache(maxsize=512)
def glyph_field(file: str, character: str) -> Float:
    """Return a glyph's signed distance field (G, G), y downwards, its longer side scaled to [-1, 1] and centred."""
    contours = glyph_contours(file, character)
    low = np.minimum.reduce([c.min(axis=0) for c in contours])
    high = np.maximum.reduce([c.max(axis=0) for c in contours])
    half = max(float(high[0] - low[0]), float(high[1] - low[1])) / 2
    middle = (low + high) / 2
    return _field([(c - middle) / half * np.array([1.0, -1.0]) for c in contours])


@lru_cache(maxsize=16)
def shape_field(name: str) -> Float:
    """Return the signed distance field (G, G) of one of SHAPES."""
    return _field(shape_contours(name))
