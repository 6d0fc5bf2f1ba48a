"""Pictures of the written pages: compressed, with their size, loaded when they come near.

A picture whose size is not said pushes the text down when it arrives. Pictures that an output carries in its HTML, as
an explorable does its figure, become files, so that the text does not wait for them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from html import escape, unescape
from pathlib import Path
from typing import Any

from PIL import Image

INSIDE = re.compile(r'(?<=src=")data:image/png;base64,([^"]{2000,})(?=")')
PICTURE = re.compile(r"<img\b[^>]*>")
ATTRIBUTE = re.compile(r'([\w-]+)(?:="([^"]*)")?')
FILE = re.compile(r'(?<=_images/)([^"/]+)\.png(?=")')
LENGTH = re.compile(r"(?<![\w-])(width|height):\s*([\d.]+)px;?\s*")
ARTICLE = re.compile(r"<article\b.*</article>", re.DOTALL)


def taken_out(html: str, page: Path, images: Path) -> str:
    """A page with the large pictures that stand in its text as files of the folder `images`."""
    folder = Path(os.path.relpath(images, page.parent)).as_posix()

    def to_file(match: re.Match[str]) -> str:
        data = base64.b64decode(match[1])
        name = f"{hashlib.sha256(data).hexdigest()}.png"
        images.mkdir(exist_ok=True)
        (images / name).write_bytes(data)
        return f"{folder}/{name}"

    return INSIDE.sub(to_file, html)


def compressed(images: Path) -> set[str]:
    """Write the PNGs of a folder as WebP, half as large or less; returns the names of those that were replaced."""
    with ThreadPoolExecutor() as pool:
        return set(pool.map(smaller, images.glob("*.png"))) - {""}


def smaller(path: Path) -> str:
    """Replace a picture by a smaller one; returns its name without the ending, or nothing where it stays.

    Lines and even areas lose nothing. Photographs, noise and many shades, which do not get small without a loss, lose
    what is not seen at two pixels a point, if that makes them a third smaller.
    """
    with Image.open(path) as picture:
        opaque = picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255)
        plain = picture.convert("RGB") if opaque else picture.copy()
    size, best = path.stat().st_size, encoded(plain, method=2, quality=85)
    if 3 * len(best) > size:  # else it is such a picture, and without a loss it would take long
        exact = encoded(plain, lossless=True, method=2, quality=30)
        best = exact if 2 * len(exact) < 3 * len(best) else best
    if len(best) >= size:
        return ""
    path.with_suffix(".webp").write_bytes(best)
    path.unlink()
    return path.stem


def encoded(picture: Image.Image, **how: Any) -> bytes:
    """A picture as WebP."""
    stream = io.BytesIO()
    picture.save(stream, "WEBP", **how)
    return stream.getvalue()


def with_pictures(html: str, page: Path, replaced: set[str]) -> str:
    """A page whose pictures are the smaller files, say their size, and wait until they are near; the first does not."""
    html = FILE.sub(lambda match: f"{match[1]}.webp" if match[1] in replaced else match[0], html)
    article = ARTICLE.search(html)
    first = PICTURE.search(html, article.start()) if article else None
    eager = {first.start()} if first else set()
    return PICTURE.sub(lambda match: tag(match[0], page, match.start() in eager), html)


def tag(text: str, page: Path, eager: bool) -> str:
    """One picture's tag."""
    attributes = {name: unescape(value) for name, value in ATTRIBUTE.findall(text.removeprefix("<img").rstrip("/>"))}
    attributes |= size(attributes, page)
    if not eager and not attributes.get("src", "").endswith(".svg"):  # drawings of the theme, which are small
        attributes["loading"] = "lazy"
    attributes["decoding"] = "async"
    return "<img " + " ".join(f'{name}="{escape(value)}"' for name, value in attributes.items()) + ">"


def size(attributes: dict[str, str], page: Path) -> dict[str, str]:
    """Width and height as they are shown, by the tag itself where it says them, otherwise of the file."""
    style = attributes.get("style", "")
    said = {name: float(value) for name, value in LENGTH.findall(style)}
    said |= {name: float(attributes[name]) for name in ("width", "height") if attributes.get(name, "").isdigit()}
    path = page.parent / attributes.get("src", "")
    if not path.is_file() or path.suffix == ".svg":
        return {}
    with Image.open(path) as picture:
        width, height = picture.size
    shown = said.get("width", said.get("height", height) * width / height)
    sizes = {"width": f"{shown:.0f}", "height": f"{said.get('height', shown * height / width):.0f}"}
    attributes.pop("style", None)
    rest = LENGTH.sub("", style).strip()
    return sizes | ({"style": rest} if rest else {})
