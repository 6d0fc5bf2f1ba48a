"""Writing on pictures, with the box of every character: numbers and text in the fonts that come with matplotlib."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from helpers._validate import check_choice, check_count, check_number, check_tensor
from helpers.data._draw.sdf import DIGIT_FONTS

LOST = 1e-3  # share of a letter's ink that may lie beyond the picture
TRIAL = 1000  # size of the font that a zero is measured in


class Lettering(NamedTuple):
    """A picture with writing on it.

    Attributes:
        image: (C, H, W) float32 in [0, 1], on the device of the one given.
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
    trial = ImageFont.truetype(path, TRIAL)
    tall = trial.getbbox("0")[3] - trial.getbbox("0")[1]
    return ImageFont.truetype(path, TRIAL * height / tall)


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
        ValueError: an image of another shape or with values outside [0, 1], an unknown font, a blank or broken line,
            a value outside [0, 1], or writing that leaves the picture.
    """
    paint = _check(image, text, corner, value)
    check_choice(font, "font", DIGIT_FONTS)
    top, left = (check_count(c, "corner", 0) for c in corner)
    face = _font(font, check_number(height, "height", 4, 1000))
    tall, wide = image.shape[1:]
    rise = min(face.getbbox(c)[1] for c in text if not c.isspace())  # the empty rows above the writing
    drawn, boxes = np.zeros((tall, wide), np.float32), []
    x = left - min(0.0, face.getbbox(text.lstrip()[0])[0])  # some letters begin to the left of their place
    for character in text:
        if not character.isspace():
            strokes, rows, columns = _draw(character, x, top - rise, tall, wide, face)
            if strokes is None:
                place = f"got {text!r} of height {height:g} at {corner}"
                raise ValueError(f"text must stay inside the picture of {tall} x {wide}, {place}")
            if not len(rows):
                raise ValueError(f"height must cover half of a pixel of {character!r}, got {height:g}")
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            drawn = np.maximum(drawn, strokes)
        x += face.getlength(" " if character.isspace() else character)
    ink = torch.from_numpy(drawn).to(image.device)
    written = image.float() * (1 - ink) + paint.to(image.device) * ink
    return Lettering(written, torch.tensor(boxes, dtype=torch.float32, device="cpu"), ink >= 0.5, "".join(text.split()))


def _draw(
    character: str, left: float, top: float, tall: int, wide: int, face: ImageFont.FreeTypeFont
) -> tuple[NDArray[np.float32] | None, NDArray[np.intp], NDArray[np.intp]]:
    """One character in [0, 1] on a page, (tall, wide), or None where it does not fit; the rows and columns it fills."""
    rim = int(face.size) + 2  # wider than a letter reaches beyond its place
    page = Image.new("L", (wide + 2 * rim, tall + 2 * rim))
    ImageDraw.Draw(page).text((left + rim, top + rim), character, fill=255, font=face)
    pixels: NDArray[np.float32] = np.asarray(page, np.float32)
    strokes: NDArray[np.float32] = np.divide(pixels, 255, dtype=np.float32)
    inner = strokes[rim : rim + tall, rim : rim + wide]
    rows, columns = (np.flatnonzero((strokes >= 0.5).any(axis)) - rim for axis in (1, 0))
    fits = left < wide and top < tall and strokes.sum() - inner.sum() <= LOST * strokes.sum()
    return inner if fits else None, rows, columns


def _check(image: torch.Tensor, text: str, corner: tuple[int, int], value: float | tuple) -> torch.Tensor:
    """Refuse what cannot be written; returns the paint, (1 or 3, 1, 1)."""
    check_tensor(image, "image", "1 H W", "3 H W")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"image must lie in [0, 1], got {image.min():.4g} .. {image.max():.4g}")
    if not isinstance(text, str) or not text.strip() or len((text + "|").splitlines()) != 1:
        raise ValueError(f"text must be one line that is not blank, got {text!r}")
    if not isinstance(corner, tuple | list) or len(corner) != 2:
        raise ValueError(f"corner must be (row, column), got {corner!r}")
    levels = value if isinstance(value, tuple | list) else (value,)
    if len(levels) not in (1, image.shape[0]):
        raise ValueError(f"value must be one number, or one for each of {image.shape[0]} colours, got {value!r}")
    paint = [check_number(level, "value", 0, 1) for level in levels]
    return torch.tensor(paint, dtype=torch.float32, device="cpu").reshape(-1, 1, 1)
