"""Writing on pictures, with the box of every character: numbers and text in the fonts that come with matplotlib."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from helpers.data.outlines import DIGIT_FONTS
from helpers.data.raster import check_count, check_number


class Lettering(NamedTuple):
    """A picture with writing on it.

    Attributes:
        image: (C, H, W) float32 in [0, 1].
        boxes: (n, 4) float32, x0, y0, x1, y1 in pixel edges of each character that is not blank, in reading order.
        mask: (H, W) bool, the pixels of the strokes.
        characters: the n characters.
    """

    image: torch.Tensor
    boxes: torch.Tensor
    mask: torch.Tensor
    characters: str


@lru_cache(maxsize=32)
def _font(name: str, height: float) -> ImageFont.FreeTypeFont:
    path = str(Path(matplotlib.get_data_path(), "fonts", "ttf", DIGIT_FONTS[name]))
    trial = ImageFont.truetype(path, 100)
    tall = trial.getbbox("0")[3] - trial.getbbox("0")[1]
    return ImageFont.truetype(path, max(1, round(100 * height / tall)))


def write(
    image: torch.Tensor,
    text: str,
    corner: tuple[int, int],
    *,
    height: float = 20.0,
    value: float | tuple[float, float, float] = 1.0,
    font: str = "DejaVu Sans Bold",
) -> Lettering:
    """Write a line of text on a picture.

    Args:
        image: (C, H, W) in [0, 1], C 1 or 3; it is left as it is.
        text: one line.
        corner: row and column where its upper left corner lies, in pixels.
        height: of a zero, in pixels.
        value: brightness of the writing in [0, 1], or one a colour.
        font: one of `DIGIT_FONTS`.

    Returns:
        `Lettering`; its image is a copy.

    Raises:
        ValueError: an image of another shape, an unknown font, a blank or broken line, or writing that leaves the
            picture.
    """
    if not isinstance(image, torch.Tensor) or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"image: got {getattr(image, 'shape', type(image).__name__)}, want (1 or 3, H, W)")
    if font not in DIGIT_FONTS:
        raise ValueError(f"font: got {font!r}, want one of {list(DIGIT_FONTS)}")
    if not text.strip() or "\n" in text:
        raise ValueError(f"text: got {text!r}, want one line that is not blank")
    top, left = (check_count("corner", c, 0) for c in corner)
    face = _font(font, check_number("height", height, 4, 1000))
    tall, wide = image.shape[1:]
    rise = face.getbbox(text)[1]  # the empty rows above the writing
    drawn, boxes, at = np.zeros((tall, wide), np.float32), [], float(left)
    for character in text:
        if not character.isspace():
            page = Image.new("L", (wide, tall))
            ImageDraw.Draw(page).text((at, top - rise), character, fill=255, font=face)
            one = np.asarray(page, np.float32) / 255
            rows, columns = (np.flatnonzero((one >= 0.5).any(axis)) for axis in (1, 0))
            low, right = top - rise + face.getbbox(character)[3], at + face.getbbox(character)[2]
            if low > tall or right > wide or not len(rows):
                raise ValueError(
                    f"text: {text!r} of height {height:g} at {corner} leaves the picture of {tall} x {wide}"
                )
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            drawn = np.maximum(drawn, one)
        at += face.getlength(character)
    ink = torch.from_numpy(drawn)
    paint = torch.as_tensor(value, dtype=torch.float32).reshape(-1, 1, 1)
    written = image.float() * (1 - ink) + paint * ink
    return Lettering(written, torch.tensor(boxes, dtype=torch.float32), ink >= 0.5, "".join(text.split()))
