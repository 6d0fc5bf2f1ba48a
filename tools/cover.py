"""The picture on the book's first page and in README.md: `python -m tools.cover` writes `book/images/cover.png`.

A digit at three places of a canvas, the last feature maps of a LeNet that is trained on the spot, and its ten class
probabilities: the maps move with the digit, the probabilities do not say where it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes

from helpers import data, training
from helpers.capture import activations
from helpers.device import seed_everything
from helpers.networks import LeNet
from helpers.plots._panels import INK, SMALL_PT, TEXT_PT, Picture

ROOT = Path(__file__).resolve().parents[1]
CANVAS = 48  # pixels
CORNERS = ((2, 2), (2, 18), (18, 10))  # row, column of the digit's frame on the canvas, in pixels
DIGIT = 7
DPI = 160


def network() -> LeNet:
    """A LeNet trained for some seconds on digits anywhere on the canvas."""
    digits = data.digits(6000, seed=0)
    corners = torch.randint(0, CANVAS - 27, (6000, 2), generator=torch.Generator().manual_seed(0))
    seed_everything(1)
    net = LeNet(size=CANVAS)
    training.fit(net, data.place(digits.images, corners, CANVAS), digits.labels, epochs=6, seed=1, progress=False)
    return net


def pictures() -> torch.Tensor:
    """The first fresh digit of the wanted kind at the three places, (3, 1, CANVAS, CANVAS)."""
    fresh = data.digits(100, seed=1)
    digit = fresh.images[int((fresh.labels == DIGIT).nonzero()[0, 0])]
    return data.place(digit.expand(len(CORNERS), -1, -1, -1), torch.tensor(CORNERS), CANVAS)


def draw(images: torch.Tensor, maps: torch.Tensor, chances: torch.Tensor) -> Picture:
    """Three columns: images (3, 1, S, S), maps (3, h, w), class probabilities (3, 10)."""
    figure = Picture(figsize=(7.2, 6.4), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(3, len(images), height_ratios=(3, 3, 1.6))
    names = ("picture", "last feature maps", "probability")
    for row, name in zip(axes, names, strict=True):
        row[0].set_ylabel(name, fontsize=TEXT_PT, color=INK)
    for column, (image, features, chance) in enumerate(zip(images, maps, chances, strict=True)):
        show(axes[0, column], image[0], "gray", 1.0)
        show(axes[1, column], features, "magma", float(maps.max()))
        scores = axes[2, column]
        scores.bar(range(10), chance.tolist(), color=["#D55E00" if k == DIGIT else "#0072B2" for k in range(10)])
        scores.set(ylim=(0, 1), yticks=[], xticks=range(10))
        scores.tick_params(labelsize=SMALL_PT, labelcolor=INK, length=0)
        for side in ("top", "right", "left"):
            scores.spines[side].set_visible(False)
    return figure


def show(ax: Axes, values: torch.Tensor, colors: str, top: float) -> None:
    """One square without ticks."""
    ax.imshow(values.numpy(), cmap=colors, vmin=0, vmax=top)
    ax.set(xticks=[], yticks=[])


def main(folder: Path = ROOT / "book" / "images", net: LeNet | None = None) -> Path:
    """Train a network unless one is given, draw and save; returns the file."""
    net, images = net or network(), pictures()
    maps = activations(net, images, "pool2")["pool2"].sum(1)  # (3, h, w)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "cover.png"
    draw(images, maps, training.predict(net, images).softmax(1)).savefig(file)
    return file


if __name__ == "__main__":
    print(main())
