"""The picture on the book's first page and in README.md: `python -m tools.cover` draws it.

A square stands on stripes. Of two networks, one was trained on scenes whose ground says nothing about the object, the
other on scenes in which disks nearly always stood on stripes. What does each say, and which places earned its score?
The square is put at 7 by 7 places: `assets/cover.js` lets a reader move it.

    assets/cover.webp        every place: a row for each row of places; in it picture and both maps, place by place
    assets/cover.json        the names and probabilities, place by place
    assets/cover.png         three of the places, for where there are no scripts
    assets/social.png        the card that a link to the book shows
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from helpers import cam, data, networks
from helpers.plots import overlay

ROOT = Path(__file__).resolve().parents[1]
SIDE, PLACES = 64, 7  # pixels of a picture; places of the object in a row and in a column
OBJECT, GROUND = (11, 44), (12, 57)  # seed and index of the scene that gives the object, and of the empty one
NETWORKS = ("scenes-gap", "scenes-biased")
SHOWN = (8, 24, 33)  # the places of the still picture
OPACITY = 0.6


def pictures() -> Tensor:
    """The object at every place of the ground, row by row, (49, 3, 64, 64) in [0, 1]."""
    scene = data.scenes(OBJECT[1] + 1, seed=OBJECT[0])
    ground = data.scenes(GROUND[1] + 1, seed=GROUND[0], objects=(0, 1)).images[-1]
    mask, (x0, y0, x1, y1) = scene.masks[-1, 0], scene.boxes[-1, 0].int().tolist()
    shape, patch = mask[y0:y1, x0:x1], scene.images[-1][:, y0:y1, x0:x1]
    height, width = shape.shape
    placed = []
    for top in torch.linspace(0, SIDE - height, PLACES).round().int().tolist():
        for left in torch.linspace(0, SIDE - width, PLACES).round().int().tolist():
            picture = ground.clone()
            part = picture[:, top : top + height, left : left + width]
            part[:, shape] = patch[:, shape]
            placed.append(picture)
    return torch.stack(placed)


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


def sheet(panels: list[np.ndarray]) -> Image.Image:
    """The panels (N, 64, 64, 3) of all places on one sheet."""
    rows = np.stack(panels, 1).reshape(PLACES, PLACES * len(panels), SIDE, SIDE, 3)
    pixels = rows.transpose(0, 2, 1, 3, 4).reshape(PLACES * SIDE, -1, 3)
    return Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))


def card(panels: list[np.ndarray]) -> Image.Image:
    """1200 by 630 pixels: the title over one place of the square, as both networks see it."""
    side, gap = 320, 60
    canvas = Image.new("RGB", (1200, 630), "white")
    for i, panel in enumerate(panels):
        picture = Image.fromarray((panel[SHOWN[1]] * 255).round().clip(0, 255).astype(np.uint8))
        canvas.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (gap + i * (side + gap), 250))
    pen = ImageDraw.Draw(canvas)
    bold, plain = (ImageFont.truetype(findfont(FontProperties(weight=w)), n) for w, n in (("bold", 72), ("normal", 32)))
    pen.text((gap, 40), "Where Networks Look", fill="#222222", font=bold)
    pen.text(
        (gap, 145), "An executable book: from saliency maps to networks that look around", fill="#222222", font=plain
    )
    return canvas


def main(root: Path = ROOT) -> list[Path]:
    """Compute and save all four files; returns them."""
    images = pictures()
    maps, names, chances = zip(*(evidence(name, images) for name in NETWORKS), strict=True)
    files = [root / "assets" / name for name in ("cover.webp", "cover.json", "cover.png", "social.png")]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    panels = [images.permute(0, 2, 3, 1).numpy(), *(coloured(images, own) for own in maps)]
    sheet(panels).save(files[0], quality=82, method=6)
    pairs = [list(zip(*own, strict=True)) for own in zip(names, chances, strict=True)]
    says = [[[name, round(float(chance), 2)] for name, chance in own] for own in pairs]
    files[1].write_text(json.dumps({"places": PLACES, "says": says}) + "\n", encoding="utf8")
    shown = list(SHOWN)
    titles = [f"“{own[i][0]}”, {100 * float(own[i][1]):.0f} %" for own in pairs for i in shown]
    over = torch.cat([own[shown] for own in maps])
    still = overlay(images[shown * 2], over, titles, columns=3, signed=True, each=True, smooth=True)
    still.savefig(files[2], dpi=160, bbox_inches="tight")
    card(panels).save(files[3], optimize=True)
    return files


if __name__ == "__main__":
    print(*main(), sep="\n")
