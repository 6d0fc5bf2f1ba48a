"""The pictures of a notebook, made smaller until the file is small enough: the largest first, and all before one twice.

Colab and GitHub are slow with large notebooks, and GitHub shows none of several megabytes. A picture is as the page's
run has drawn it, or has 256 colours, or also half as many pixels each way; it is shown at the same size in any case.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections.abc import Callable
from typing import Any

from PIL import Image

MOST_BYTES = 2_000_000
DATA_URI = re.compile(r"(?<=data:image/png;base64,)[\w+/=]+")
# The colours of a picture, and the share of its pixels each way, after each step; before the first it is as it was.
STEPS = ((256, 1.0), (256, 0.5), (64, 0.5))


def written(notebook: dict[str, Any]) -> str:
    """A notebook as its file."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def small_enough(notebook: dict[str, Any], most: int = MOST_BYTES) -> str:
    """The notebook as a file of fewer bytes than `most`, its pictures as good as that allows.

    Raises:
        ValueError: it is larger with the smallest pictures.
    """
    pictures: list[tuple[str, int]] = []

    def note(data: str, steps: int) -> str:
        pictures.append((data, steps))
        return data

    size = len(written(with_pictures(notebook, note)).encode())
    chosen = iter(fitted(pictures, size - most + 1))
    text = written(with_pictures(notebook, lambda data, steps: next(chosen)))
    if len(text.encode()) >= most:
        raise ValueError(f"the notebook has {len(text.encode()):,} bytes with small pictures, {most:,} are too many")
    return text


def fitted(pictures: list[tuple[str, int]], excess: int) -> list[str]:
    """Pictures that have so many characters less, or as few as they can have.

    The largest take a step first, and none takes the next one before all have taken the last.

    Args:
        pictures: each in base64, with how many of the steps it may take.
        excess: the characters to lose.

    Returns:
        The pictures, in the same order.
    """
    chosen = [data for data, _ in pictures]
    for step in range(1, len(STEPS) + 1):
        for index in sorted(range(len(pictures)), key=lambda index: -len(chosen[index])):
            data, most = pictures[index]
            if excess <= 0 or step > most:
                continue
            smaller = min(chosen[index], reduced(data, step), key=len)
            excess -= len(chosen[index]) - len(smaller)
            chosen[index] = smaller
    return chosen


def reduced(data: str, step: int) -> str:
    """A PNG picture in base64, as it is after so many of the steps."""
    colours, share = STEPS[step - 1]
    picture = opened(data).convert("RGB")
    if share < 1:
        size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    target = io.BytesIO()
    picture.quantize(colours, Image.Quantize.MAXCOVERAGE).save(target, format="png", optimize=True)
    return base64.b64encode(target.getvalue()).decode()


def opened(data: str) -> Image.Image:
    """A PNG picture in base64.

    Raises:
        ValueError: it is none.
    """
    try:
        return Image.open(io.BytesIO(base64.b64decode(data)))
    except (binascii.Error, OSError) as error:
        raise ValueError(f"a picture of the notebook cannot be read: {error}") from None


def with_pictures(notebook: dict[str, Any], change: Callable[[str, int], str]) -> dict[str, Any]:
    """The notebook with every picture changed by a function of its base64 and of how many steps it may take.

    Those in HTML say nothing of the size at which they are shown, so they keep their pixels.
    """

    def changed(output: dict[str, Any]) -> dict[str, Any]:
        data, about = dict(output.get("data", {})), dict(output.get("metadata", {}))
        if "image/png" in data:
            picture = "".join(data["image/png"]).replace("\n", "")
            width, height = opened(picture).size
            about["image/png"] = {"height": height, "width": width} | about.get("image/png", {})
            data["image/png"] = change(picture, len(STEPS))
        if "text/html" in data:
            data["text/html"] = DATA_URI.sub(lambda match: change(match[0], 1), "".join(data["text/html"]))
        return {**output, "data": data, "metadata": about} if data else output

    cells = [
        {**cell, "outputs": [changed(output) for output in cell["outputs"]]} if "outputs" in cell else cell
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}
