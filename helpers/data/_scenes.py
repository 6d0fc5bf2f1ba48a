"""World two, scenes: coloured shapes on textured backgrounds, with class, box, mask and background known.

In one call: `images, labels, boxes, masks, backgrounds = scenes(1000, seed=0)`.
"""

from typing import NamedTuple

import numpy as np
import torch

from helpers._validate import check_count, check_number, check_range
from helpers.boxes import mask_boxes
from helpers.data._draw import random as raster
from helpers.data._draw.sdf import SHAPES
from helpers.data._draw.shapes import (
    COLOUR_UNIFORMS,
    OBJECT_UNIFORMS,
    WORD_UNIFORMS,
    draw_shape,
    draw_word,
    mix,
    two_colours,
)
from helpers.data._draw.textures import BACKGROUNDS, CLOUD_VALUES, PARAMETERS, background

DISPLAY = 128  # pixels a side of the scenes that are searched
WINDOW = 64  # pixels a side of what one fixation shows of them
SOUGHT = (0.125, 0.25)  # diameter of the objects to be found, in sides of the display: 16 to 32 pixels

CHUNK = 128  # scenes rendered at once: bounds memory, changes no byte
CLASSES = SHAPES
WORD_LABEL = len(CLASSES)  # the class of a word, which is no object class
LABEL_BITS, SCENE_BITS, CLOUD_BITS = range(3)  # the bit streams of a seed


class Scenes(NamedTuple):
    """Scenes of n images with K places for objects.

    Attributes:
        images: (n, 3, S, S) float32 in [0, 1] ((n, 1, S, S) for digit scenes).
        labels: (n, K) int64, the objects' classes; -1 where a scene has fewer than K objects.
        boxes: (n, K, 4) float32, x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive; NaN where there is no object.
        masks: (n, K, S, S) bool, the pixels an object covers by half or more.
        backgrounds: (n,) int64, position in `BACKGROUNDS` (`DIGIT_BACKGROUNDS` for digit scenes).
    """

    images: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor
    masks: torch.Tensor
    backgrounds: torch.Tensor


def object_count(value: int | tuple[int, int], name: str, least: int = 1) -> tuple[int, int]:
    """Return a number of objects, or a range (lo, hi), as a range; ValueError unless whole and within least to 16."""
    low, high = check_range(value, name, least, 16)
    if low != int(low) or high != int(high):
        raise ValueError(f"{name} must be whole numbers, got {value!r}")
    if high < 1:
        raise ValueError(f"{name} must leave room for one object at least, as (0, 1) does, got {value!r}")
    return int(low), int(high)


def cells(objects: int) -> int:
    """Return the side of the smallest square grid with a cell for each object."""
    return next(side for side in range(1, objects + 1) if side * side >= objects)


def scenes(
    n: int,
    seed: int = 0,
    *,
    size: int = 64,
    objects: int | tuple[int, int] = 1,
    bias: float = 0.0,
    scale: tuple[float, float] = (0.25, 0.5),
    background_shift: int = 0,
    text: float = False,
) -> Scenes:
    """Draw n scenes; the same seed gives the same bytes on every platform.

    Class, place, colours and fill texture are drawn independently: colour and place say nothing about the class.
    Background k is tied to class k. With probability `bias` a scene takes the background tied to its first object's
    class, else any, evenly: P(tied background | class) = bias + (1 - bias) / 8, each other one (1 - bias) / 8.
    Objects are light on dark or dark on light, luminances at least 0.16 apart. The first k of n are those of n = k.

    Args:
        n: number of scenes, 0 or more.
        seed: integer >= 0.
        size: side of the images in pixels, 32 to 256.
        objects: how many a scene holds, a number or a range (lo, hi), up to 16; they do not overlap. (0, 1) leaves
            about half of the scenes empty, ground alone (tied, with `bias`, to the object that is not drawn).
        bias: strength of the tie between class and background, 0 (none) to 1 (always).
        scale: range of the objects' diameter, as a fraction of the side; it shrinks to the room that others leave.
        background_shift: k takes background (b + k) mod 8 in place of b: the same objects, pixel for pixel, elsewhere.
        text: True also writes a word of 3 to 5 random capitals above or below the objects; it takes one more, the
            last, place in labels (`WORD_LABEL`), boxes and masks. A number is the share of scenes that get one; the
            others leave the same room empty, so that nothing but the word tells them apart.

    Returns:
        Scenes; classes in `labels` are positions in `CLASSES`.

    Raises:
        ValueError: an argument outside its range, or more objects than there is room for.
    """
    n, size = check_count(n, "n", 0), check_count(size, "size", 32, 256)
    low, high = object_count(objects, "objects", least=0)
    bias = check_number(bias, "bias", 0, 1)
    scale = check_range(scale, "scale", 0.1, 0.9)
    shift = check_count(background_shift, "background_shift", 0)
    word_share = check_number(float(text) if isinstance(text, bool) else text, "text", 0, 1)
    side, strip = cells(high), size * 7 // 32 if text else 0
    cell = size / side, (size - strip) / side  # width and height of the room of one object
    if cell[1] < 16:
        most = int((size - strip) // 16) ** 2
        raise ValueError(f"objects must be at most {min(most, 16)} at size {size}, text={text}, got {objects!r}")
    first = raster.balanced_labels(raster.bit_stream(seed, LABEL_BITS), n, len(SHAPES))
    bits, cloud_bits = raster.bit_stream(seed, SCENE_BITS), raster.bit_stream(seed, CLOUD_BITS)
    room = high + int(bool(text))  # places for objects and the word
    images, kinds = np.zeros((n, 3, size, size), np.uint8), np.zeros(n, np.int64)
    labels, masks = np.full((n, room), -1, np.int64), np.zeros((n, room, size, size), bool)
    widths = [4, COLOUR_UNIFORMS, PARAMETERS, side * side, WORD_UNIFORMS, *[OBJECT_UNIFORMS + 1] * high]
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        m = part.stop - part.start
        u = np.split(raster.uniforms(bits, m, sum(widths)), np.cumsum(widths)[:-1], axis=1)
        draws, colours, ground, order, word, *shapes = u
        tied = draws[:, 0] < bias
        kind = np.where(tied, first[part], raster.pick_integer(draws[:, 1], 0, len(BACKGROUNDS) - 1))
        kinds[part] = (kind + shift) % len(BACKGROUNDS)
        light = draws[:, 2] < 0.5  # light objects on a dark ground
        count = raster.pick_integer(draws[:, 3], low, high)
        level = background(kinds[part], ground, raster.uniforms(cloud_bits, m, CLOUD_VALUES), size)
        canvas = mix(*two_colours(colours, ~light, 0.5, (0.2, 0.8)), level)
        places = np.argsort(order, axis=1, kind="stable")  # the cells in random order
        above = (word[:, 2] < 0.5) & bool(text)
        for k, v in enumerate(shapes):
            label = first[part] if k == 0 else raster.pick_integer(v[:, -1], 0, len(SHAPES) - 1)
            corner = np.stack([places[:, k] % side * cell[0], places[:, k] // side * cell[1] + above * strip], axis=1)
            masks[part, k] = draw_shape(canvas, label, v[:, :-1], corner, cell, scale, light, count > k)
            labels[part, k] = np.where(count > k, label, -1)
        if text:
            top = np.where(above, 0, size - strip)
            masks[part, high] = draw_word(canvas, word, top, strip, light, word[:, 3] < word_share)
            labels[part, high] = np.where(word[:, 3] < word_share, WORD_LABEL, -1)
        images[part] = raster.to_bytes(canvas)
    arrays = (raster.from_bytes(images), labels, mask_boxes(torch.from_numpy(masks)).numpy(), masks, kinds)
    return Scenes(*map(torch.from_numpy, arrays))


def searched_scenes(n: int, seed: int) -> Scenes:
    """Scenes (n, 3, 128, 128) of one small object each, for a gaze that sees 64 x 64 pixels of them."""
    return scenes(n, seed, size=DISPLAY, scale=SOUGHT)


def two_object_scenes(count: int, seed: int) -> Scenes:
    """Those of `count` scenes of two objects whose objects are of different classes, about seven eighths of them."""
    drawn = scenes(count, seed, objects=2)
    differ = drawn.labels[:, 0] != drawn.labels[:, 1]
    return Scenes(*(field[differ] for field in drawn))
