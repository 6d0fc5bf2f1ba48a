"""The picture on the book's first page and in README.md: `python -m tools.cover` draws it.

A square stands on stripes. Of two networks, one was trained on scenes whose ground says nothing about the object, the
other on scenes in which disks nearly always stood on stripes. What does each say, and which places earned its score?
On the site both networks run in the reader's page (`explorable`), and the square can be moved.

    assets/cover.png         three places of the square, for where there are no scripts
    assets/social.png        the card that a link to the book shows
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from helpers import cam, data, networks
from helpers.plots import Picture, overlay
from helpers.widgets._explorable import Explorable
from helpers.widgets._export import exported, packed, pixels

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64  # pixels of a picture
OBJECT = (11, 44)  # seed and index of the scene that gives it
GROUNDS = {"stripes": (12, 57), "dots": (12, 31)}  # of those that give a ground
NETWORKS = ("scenes-gap", "scenes-biased")
PLACES = ((7, 7), (21, 21), (28, 35))  # upper left corners of the object in the still picture
OPACITY = 0.6


def parts(ground: str = "stripes") -> tuple[Tensor, Tensor, Tensor]:
    """A ground (3, 64, 64), the object in its rectangle (3, h, w), both in [0, 1], and its mask (h, w) bool."""
    scene = data.scenes(OBJECT[1] + 1, seed=OBJECT[0])
    seed, index = GROUNDS[ground]
    empty = data.scenes(index + 1, seed=seed, objects=(0, 1)).images[-1]
    x0, y0, x1, y1 = scene.boxes[-1, 0].int().tolist()
    return empty, scene.images[-1][:, y0:y1, x0:x1], scene.masks[-1, 0, y0:y1, x0:x1]


def pictures(places: Sequence[tuple[int, int]], ground: str = "stripes") -> Tensor:
    """The object on a ground, its upper left corner at each (row, column), (N, 3, 64, 64) in [0, 1]."""
    empty, patch, mask = parts(ground)
    height, width = mask.shape
    placed = empty.repeat(len(places), 1, 1, 1)
    for picture, (top, left) in zip(placed, places, strict=True):
        picture[:, top : top + height, left : left + width][:, mask] = patch[:, mask]
    return placed


def explorable() -> Explorable:
    """The object to be moved over the ground, and what both networks make of it, computed in the reader's browser."""
    _, patch, mask = parts()
    arrays = {"shape": pixels(patch), "mask": packed(mask.to(torch.uint8))}
    arrays |= {f"ground {name}": pixels(parts(name)[0]) for name in GROUNDS}
    layers = {}
    for title, name in zip(("network one", "network two"), NETWORKS, strict=True):
        net = networks.load(name, "cpu")
        layers[title], own = exported(net, f"{name}.")
        arrays |= own
    card, (top, left) = net.card, PLACES[1]
    settings = {"networks": layers, "classes": list(card.classes), "mean": list(card.mean), "std": list(card.std)}
    settings["grounds"] = list(GROUNDS)
    return Explorable("cover", {"top": top, "left": left, "ground": 0}, arrays, settings, still(), "")


def evidence(name: str, images: Tensor) -> tuple[Tensor, list[str], Tensor]:
    """A network's maps for the class that it names, (N, 64, 64); the names; their probabilities, (N,)."""
    net = networks.load(name)
    x = networks.normalize(images, net)
    with torch.no_grad():
        chances, classes = net(x).softmax(1).max(1)
    maps = cam.upsample(cam.class_activation_map(net, x, classes), (SIDE, SIDE))
    return maps, [data.CLASSES[index] for index in classes.tolist()], chances


def coloured(images: Tensor, maps: Tensor) -> np.ndarray:
    """Maps over their grey images, each on its own scale around zero, (N, 64, 64, 3) in [0, 1]."""
    grey = images.mean(1).numpy()[..., None]
    scale = maps.abs().amax((1, 2), keepdim=True)
    colour = colormaps["RdBu_r"]((maps / scale / 2 + 0.5).numpy())[..., :3]
    return (1 - OPACITY) * grey + OPACITY * colour


def still() -> Picture:
    """Three places of the object, as each network sees them."""
    images = pictures(PLACES)
    maps, names, chances = zip(*(evidence(name, images) for name in NETWORKS), strict=True)
    titles = [
        f"“{name}”, {100 * float(chance):.0f} %"
        for own in zip(names, chances, strict=True)
        for name, chance in zip(*own, strict=True)
    ]
    return overlay(images.repeat(2, 1, 1, 1), torch.cat(maps), titles, columns=3, signed=True, each=True, smooth=True)


def card(panels: list[np.ndarray]) -> Image.Image:
    """1200 by 630 pixels: the title over one place of the square, as both networks see it; panels (1, 64, 64, 3)."""
    side, gap = 320, 60
    canvas = Image.new("RGB", (1200, 630), "white")
    for i, panel in enumerate(panels):
        picture = Image.fromarray((panel[0] * 255).round().clip(0, 255).astype(np.uint8))
        canvas.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (gap + i * (side + gap), 250))
    pen = ImageDraw.Draw(canvas)
    bold, plain = (ImageFont.truetype(findfont(FontProperties(weight=w)), n) for w, n in (("bold", 72), ("normal", 32)))
    pen.text((gap, 40), "Where Networks Look", fill="#222222", font=bold)
    pen.text(
        (gap, 145), "An executable book: from saliency maps to networks that look around", fill="#222222", font=plain
    )
    return canvas


def main(root: Path = ROOT) -> list[Path]:
    """Draw and save both files; returns them."""
    files = [root / "assets" / name for name in ("cover.png", "social.png")]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    still().savefig(files[0], dpi=160, bbox_inches="tight")
    image = pictures(PLACES[1:2])
    maps = [evidence(name, image)[0] for name in NETWORKS]
    card([image.permute(0, 2, 3, 1).numpy(), *(coloured(image, own) for own in maps)]).save(files[1], optimize=True)
    return files


if __name__ == "__main__":
    print(*main(), sep="\n")
