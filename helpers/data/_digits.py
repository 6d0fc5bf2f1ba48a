"""World one, digits: drawn from the fonts that come with matplotlib, framed like MNIST; also on larger canvases.

In one call: `images, labels, fonts = digits(1000, seed=0)`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from helpers._validate import check_choice, check_count, check_number, check_range, check_tensor
from helpers.boxes import mask_boxes
from helpers.data._draw import random as raster
from helpers.data._draw.sdf import DIGIT_FONTS, glyph_field
from helpers.data._scenes import Scenes, cells, object_count

CHUNK = 256  # images rendered at once: bounds memory, changes no byte
DIGIT_BACKGROUNDS = ("blank", "noise", "fragments")
FRAGMENTS = 10  # pieces of clutter a scene
LABELS, PARAMETERS, CLUTTER, NOISE = range(4)  # the bit streams of a seed


class Digits(NamedTuple):
    """Images of single digits.

    Attributes:
        images: (n, 1, S, S) float32 in [0, 1], white on black.
        labels: (n,) int64, 0 to 9.
        fonts: (n,) int64, position in `DIGIT_FONTS`; -1 where the digit is handwritten.
    """

    images: torch.Tensor
    labels: torch.Tensor
    fonts: torch.Tensor


@lru_cache(maxsize=1)
def _fields() -> raster.Float:
    """Return the fields of all digits in all fonts, (fonts * 10, G, G), font by font."""
    return np.stack([glyph_field(file, digit) for file in DIGIT_FONTS.values() for digit in "0123456789"])


def _font_numbers(fonts: str | Sequence[str] | None) -> raster.Int:
    names = list(DIGIT_FONTS)
    chosen = names if fonts is None else [fonts] if isinstance(fonts, str) else list(fonts)
    if not chosen:
        raise ValueError("fonts must be one or more names, got none")
    for name in chosen:
        check_choice(name, "fonts", names)
    return np.array([names.index(name) for name in chosen], np.int64)


def _render(
    u: raster.Double,
    index: raster.Int,
    centre: raster.Double,
    height: float,
    patch: int,
    rotate: float,
    shear: float,
    scale: tuple[float, float],
    stroke: tuple[float, float],
) -> raster.Float:
    """Render digits (N, patch, patch) from 5 uniforms each (N, 5), positions in `_fields` (N,) and centres (N, 2)."""
    cos, sin = raster.rotation(raster.pick(u[:, 0], -rotate, rotate))
    lean = raster.pick(u[:, 1], -shear, shear)
    half = raster.pick(u[:, 2], *scale) * height / 2  # pixels a shape unit
    wide = half * raster.pick(u[:, 3], 0.85, 1.1)
    # Pixels to shape units: turn back, then undo the lean, then the scale.
    matrix = np.stack([(cos - lean * -sin) / wide, (sin - lean * cos) / wide, -sin / half, cos / half], axis=1)
    grow = raster.pick(u[:, 4], *stroke) * (height / 20.0)
    return raster.coverage(_fields(), index, matrix.reshape(-1, 2, 2), centre, half, patch, grow)


def digits(
    n: int,
    seed: int = 0,
    *,
    size: int = 28,
    fonts: str | Sequence[str] | None = None,
    rotate: float = 15.0,
    shear: float = 0.2,
    scale: tuple[float, float] = (0.85, 1.1),
    shift: float = 2.0,
    stroke: tuple[float, float] = (-0.1, 0.8),
) -> Digits:
    """Draw n digits, labels balanced within one; the same seed gives the same bytes on every platform.

    The framing is MNIST's: a digit's longer side is 20/28 of the image's.
    The first k of n images are the images of n = k.

    Args:
        n: number of images, 0 or more.
        seed: integer >= 0.
        size: side of the images in pixels, 12 to 256.
        fonts: names out of `DIGIT_FONTS`, or None for all: train on some, test on others.
        rotate: largest turn either way in degrees, 0 to 90.
        shear: largest sideways lean, as a fraction of the height, 0 to 1.
        scale: range of the size factor.
        shift: largest shift along x and along y, in pixels of a 28-pixel image.
        stroke: range of how far outlines move outwards, in pixels of a 28-pixel image; below 0 strokes get thinner.

    Raises:
        ValueError: an argument outside its range, or an unknown font.
    """
    n, size = check_count(n, "n", 0), check_count(size, "size", 12, 256)
    rotate = check_number(rotate, "rotate", 0, 90)
    shear, shift = check_number(shear, "shear", 0, 1), check_number(shift, "shift", 0, 14)
    scale, stroke = check_range(scale, "scale", 0.2, 2), check_range(stroke, "stroke", -1, 3)
    faces = _font_numbers(fonts)
    labels = raster.balanced_labels(raster.bit_stream(seed, LABELS), n, 10)
    bits = raster.bit_stream(seed, PARAMETERS)
    images, used = np.zeros((n, 1, size, size), np.uint8), np.zeros(n, np.int64)
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        u = raster.uniforms(bits, part.stop - part.start, 8)
        used[part] = faces[raster.pick_integer(u[:, 0], 0, len(faces) - 1)]
        centre = size / 2 + raster.pick(u[:, 1:3], -shift, shift) * (size / 28.0)
        index = used[part] * 10 + labels[part]
        drawn = _render(u[:, 3:], index, centre, size * 20 / 28, size, rotate, shear, scale, stroke)
        images[part, 0] = raster.to_bytes(drawn)
    return Digits(torch.from_numpy(raster.from_bytes(images)), torch.from_numpy(labels), torch.from_numpy(used))


def digit_scenes(
    n: int,
    seed: int = 0,
    *,
    size: int = 84,
    digits: int | tuple[int, int] = 1,
    background: str = "blank",
    height: float = 20.0,
    fonts: str | Sequence[str] | None = None,
) -> Scenes:
    """Draw digits at random places of a larger canvas, without overlap, with their boxes and masks.

    Args:
        n: number of images, 0 or more.
        seed: integer >= 0.
        size: side of the canvas in pixels, 28 to 512.
        digits: how many digits an image holds: a number or a range (lo, hi).
        background: "blank" (black), "noise" (gray up to 0.4, blocks of 2 x 2 pixels) or
            "fragments" (pieces of digits).
        height: the digits' longer side in pixels.
        fonts: names out of `DIGIT_FONTS`, or None for all.

    Returns:
        Scenes with images (n, 1, size, size), white on black; `backgrounds` is the position in `DIGIT_BACKGROUNDS`.

    Raises:
        ValueError: an argument outside its range, or more digits than the canvas has room for.
    """
    n, size = check_count(n, "n", 0), check_count(size, "size", 28, 512)
    low, high = object_count(digits, "digits")
    check_choice(background, "background", DIGIT_BACKGROUNDS)
    height, faces = check_number(height, "height", 8, size), _font_numbers(fonts)
    patch = int(height * 1.3) + 3  # room for the turned, leaning, thickened digit
    side = cells(high)
    if side * patch > size:
        most = (size // patch) ** 2
        raise ValueError(f"digits must be at most {most} of height {height:g} at size {size}, got {digits!r}")
    first = raster.balanced_labels(raster.bit_stream(seed, LABELS), n, 10)
    bits, clutter = raster.bit_stream(seed, PARAMETERS), raster.bit_stream(seed, CLUTTER)
    noise = raster.bit_stream(seed, NOISE)
    images, labels = np.zeros((n, 1, size, size), np.uint8), np.full((n, high), -1, np.int64)
    masks = np.zeros((n, high, size, size), bool)
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        m = part.stop - part.start
        canvas = _background(background, m, size, height, faces, clutter, noise)
        u = raster.uniforms(bits, m, 1 + side * side + high * 9)
        count = raster.pick_integer(u[:, 0], low, high)
        places = np.argsort(u[:, 1 : 1 + side * side], axis=1, kind="stable")
        for k in range(high):
            v = u[:, 1 + side * side + 9 * k :][:, :9]
            label = first[part] if k == 0 else raster.pick_integer(v[:, 0], 0, 9)
            index = faces[raster.pick_integer(v[:, 1], 0, len(faces) - 1)] * 10 + label
            place = np.stack([places[:, k] % side, places[:, k] // side], axis=1)
            # Centres keep half a patch from the cell's edges: digits stay inside and apart.
            centre = (place * (size / side)) + patch / 2 + v[:, 2:4] * (size / side - patch)
            where, inner = raster.patch_index(centre, patch, size)
            drawn = _render(v[:, 4:], index, inner, height, patch, 12.0, 0.15, (0.9, 1.0), (0.0, 0.8))
            drawn[count <= k] = 0
            flat = canvas.reshape(-1)
            flat[where] = np.maximum(flat[where], drawn)
            mask = np.zeros((m, size, size), bool)
            mask.reshape(-1)[where] = drawn >= 0.5
            masks[part, k] = mask
            labels[part, k] = np.where(count > k, label, -1)
        images[part, 0] = raster.to_bytes(canvas)
    kinds = np.full(n, DIGIT_BACKGROUNDS.index(background), np.int64)
    arrays = (raster.from_bytes(images), labels, mask_boxes(torch.from_numpy(masks)).numpy(), masks, kinds)
    return Scenes(*map(torch.from_numpy, arrays))


def _background(
    kind: str,
    m: int,
    size: int,
    height: float,
    faces: raster.Int,
    clutter: np.random.PCG64,
    noise: np.random.PCG64,
) -> raster.Float:
    """Draw m backgrounds (m, size, size) of one of DIGIT_BACKGROUNDS, from the bit streams of clutter and noise."""
    canvas = np.zeros((m, size, size), np.float32)
    if kind == "noise":
        half = -(-size // 2)
        blocks = (raster.uniforms(noise, m, half, half) * 0.4).astype(np.float32)
        canvas = np.ascontiguousarray(blocks.repeat(2, axis=1).repeat(2, axis=2)[:, :size, :size])
    if kind == "fragments":
        piece = int(height * 0.45)
        flat = canvas.reshape(-1)
        draws = raster.uniforms(clutter, m, FRAGMENTS, 11)
        for k in range(FRAGMENTS):
            u = draws[:, k]
            index = faces[raster.pick_integer(u[:, 0], 0, len(faces) - 1)] * 10 + raster.pick_integer(u[:, 1], 0, 9)
            centre = piece / 2 + u[:, 2:4] * (size - piece)
            where, inner = raster.patch_index(centre, piece, size)
            aside = raster.pick(u[:, 4:6], -0.35, 0.35) * height  # which part of the digit shows
            drawn = _render(u[:, 6:], index, inner + aside, height, piece, 12.0, 0.15, (0.9, 1.0), (0.0, 0.8))
            flat[where] = np.maximum(flat[where], drawn)
    return canvas


def handwritten() -> Digits:
    """Load scikit-learn's 1,797 handwritten digits of 8 x 8 pixels: images (1797, 1, 8, 8) in [0, 1], fonts all -1."""
    from sklearn.datasets import load_digits  # imported here: it takes a second, and only this function needs it

    data, target = load_digits(return_X_y=True)
    images = torch.from_numpy(data.astype(np.float32)).reshape(-1, 1, 8, 8) / 16  # stored as 0 .. 16
    labels = torch.from_numpy(target.astype(np.int64))
    return Digits(images, labels, torch.full_like(labels, -1))


def place(images: torch.Tensor, corners: torch.Tensor, size: int) -> torch.Tensor:
    """Put each image on a black canvas of its own, at its own place.

    Args:
        images: (N, C, h, w).
        corners: (N, 2) int64, row and column of the image's upper left corner on the canvas, in pixels.
        size: side of the canvas, in pixels.

    Returns:
        (N, C, size, size), zero outside the images.

    Raises:
        ValueError: wrong shapes, or an image that would leave the canvas.
    """
    check_tensor(images, "images", "N C h w", kind="real", finite=False, empty=True)
    check_tensor(corners, "corners", f"{len(images)} 2", kind="integer", empty=True)
    size, corners = check_count(size, "size"), corners.to(images.device)
    n, channels, h, w = images.shape
    if n and (corners.min() < 0 or (corners + corners.new_tensor([h, w])).max() > size):
        raise ValueError(
            f"corners must keep images of {h} x {w} inside the canvas of {size}, "
            f"got {corners.amin(0).tolist()} .. {corners.amax(0).tolist()}"
        )
    canvas = images.new_zeros(n, size, size, channels)
    rows = corners[:, 0, None, None] + torch.arange(h, device=corners.device)[:, None]  # (N, h, 1)
    columns = corners[:, 1, None, None] + torch.arange(w, device=corners.device)  # (N, 1, w)
    canvas[torch.arange(n, device=corners.device)[:, None, None], rows, columns] = images.permute(0, 2, 3, 1)
    return canvas.permute(0, 3, 1, 2).contiguous()
