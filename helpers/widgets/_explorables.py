"""The book's explorables: each hands a browser what it computes with, and says what stands where it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import plots
from helpers._validate import check_count, check_images
from helpers.networks import Card
from helpers.retina._views import check_card
from helpers.widgets._explorable import Explorable
from helpers.widgets._export import exported, pixels

MOST_STEPS = 8  # of integrated gradients, each a pass forwards and one back


def kernel_explorable(image: Tensor, presets: Mapping[str, Sequence[Sequence[float]]]) -> Explorable:
    """Slide a kernel over a gray image: the products, their sum, and the map that grows out of the sums.

    Args:
        image: (H, W), values in [0, 1], sides of at least 3.
        presets: name -> 3 rows of 3 weights to start from; the first is shown at once.

    Returns:
        The explorable; `state` holds the reader's nine weights, row by row, and where the kernel is.

    Raises:
        ValueError: another shape, no preset, or one that is not 3 by 3.
    """
    if image.ndim != 2 or min(image.shape) < 3:
        raise ValueError(f"image must be gray, (H, W) with sides of at least 3, got {tuple(image.shape)}")
    if not presets:
        raise ValueError("presets must hold at least one kernel, got none")
    for name, rows in presets.items():
        if len(rows) != 3 or any(len(row) != 3 for row in rows):
            raise ValueError(f"presets[{name!r}] must be 3 rows of 3 weights, got {rows!r}")
    first = next(iter(presets))
    weights = [float(weight) for row in presets[first] for weight in row]
    height, width = image.shape
    place = {"row": height // 3, "column": width // 2, "stride": 1, "padding": 1, "relu": False}
    seen = torch.nn.functional.conv2d(
        image[None, None].float(), torch.tensor(weights, device=image.device).view(1, 1, 3, 3), padding=1
    )
    return Explorable(
        "kernel",
        {"preset": first, "weights": weights, **place},
        {"image": pixels(image[None])},
        {"presets": {name: [[float(v) for v in row] for row in rows] for name, rows in presets.items()}},
        plots.signed_maps(seen[0], first, label="answer"),
        f"The map that the kernel “{first}” makes of the image.",
    )


def question_explorable(model: nn.Sequential, images: Mapping[str, Tensor], target: int = 0) -> Explorable:
    """Ask a network about a class: the map of what would change its score, by the method of one's choice.

    Args:
        model: a network of the book that the browser can run, as `helpers.networks.load` gives it.
        images: name -> (C, H, W), values in [0, 1], all of one size, square.
        target: the class asked about at first.

    Returns:
        The explorable; `state` holds the picture's and the class's number, and the method's.

    Raises:
        ValueError: no image, images of another shape, no such class, or layers that the browser does not know.
    """
    card, pictures = check_card(model), _stack(images)
    target = check_count(target, "target", 0, len(card.classes) - 1)
    layers, arrays = exported(model)
    side = pictures.shape[-1]
    state = {"picture": 0, "target": target, "method": 0, "steps": 4, "patch": side // 4, "row": 0, "column": 0}
    return Explorable(
        "question",
        state,
        {**arrays, "pictures": pixels(pictures)},
        {
            "layers": layers,
            "pictures": list(images),
            "quadrature": [quadrature(steps) for steps in range(1, MOST_STEPS + 1)],
            **_about(card),
        },
        plots.images(pictures, list(images)),
        f"The pictures about which the network can be asked: {', '.join(images)}.",
    )


def box_explorable(
    models: Mapping[str, nn.Sequential], images: Mapping[str, Tensor], boxes: Tensor, target: int = 0
) -> Explorable:
    """From evidence to box: class, threshold, a number added to all weights, one of several networks.

    Args:
        models: name -> a network of the book that ends in a global pooling and one linear layer; all of one card's
            classes and input.
        images: name -> (C, H, W), values in [0, 1], all of one size, square.
        boxes: the true one of each image, (N, 4), x0, y0, x1, y1 in pixel edges.
        target: the class asked about at first.

    Returns:
        The explorable; `state` holds the class's number, the threshold and what is added.

    Raises:
        ValueError: no network, no image, other shapes, no such class, or layers that the browser does not know.
    """
    if not models:
        raise ValueError("models must hold at least one network, got none")
    first = next(iter(models))
    card, pictures = check_card(models[first]), _stack(images)
    target = check_count(target, "target", 0, len(card.classes) - 1)
    if boxes.shape != (len(pictures), 4):
        raise ValueError(f"boxes must be ({len(pictures)}, 4), one an image, got {tuple(boxes.shape)}")
    layers: dict[str, Any] = {}
    arrays = {"pictures": pixels(pictures)}
    for name, model in models.items():
        layers[name], own = exported(model, f"{name}.")
        arrays |= own
    return Explorable(
        "box",
        {"picture": 0, "network": first, "target": target, "threshold": 0.2, "shift": 0.0},
        arrays,
        {"networks": layers, "pictures": list(images), "boxes": boxes.tolist(), **_about(card)},
        plots.boxes(pictures, boxes, titles=list(images)),
        "The pictures and the true boxes of what is in them.",
    )


def gaze_explorable(
    images: Mapping[str, Tensor], size: tuple[int, int] = (48, 96), r_min: float = 1 / 32
) -> Explorable:
    """Move the gaze over a picture: the retina's circles, its view, and what the view still tells.

    Args:
        images: name -> (C, H, W) with one or three channels, values in [0, 1].
        size: circles and samples on each.
        r_min: radius of the innermost circle, in half the image's shorter side.

    Returns:
        The explorable; `state` holds where the gaze is, from 0 to 1, the turn in degrees and the magnification.

    Raises:
        ValueError: no image, another shape, fewer than two circles or samples, or a radius outside (0, 1).
    """
    if not images:
        raise ValueError("images must hold at least one, got none")
    for name, image in images.items():
        if image.ndim != 3 or image.shape[0] not in (1, 3):
            raise ValueError(f"images[{name!r}] must be (1, H, W) or (3, H, W), got {tuple(image.shape)}")
    radii, angles = (check_count(count, "size", 2) for count in size)
    if not 0 < r_min < 1:
        raise ValueError(f"r_min must lie in (0, 1), got {r_min!r}")
    first = next(iter(images))
    return Explorable(
        "gaze",
        {"picture": first, "x": 0.5, "y": 0.5, "turn": 0, "zoom": 1.0, "circles": True},
        {name: pixels(image) for name, image in images.items()},
        {"pictures": list(images), "radii": radii, "angles": angles, "rMin": float(r_min)},
        plots.gallery([image.float() for image in images.values()], list(images)),
        f"The pictures over which the gaze can be moved: {', '.join(images)}.",
    )


def quadrature(steps: int) -> list[list[float]]:
    """Where integrated gradients look on the way from the baseline, 0 to 1, and what each place counts."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return [[(node + 1) / 2, weight / 2] for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True)]


def _stack(images: Mapping[str, Tensor]) -> Tensor:
    """Images of one size, square, (N, C, H, W) in single precision."""
    if not images:
        raise ValueError("images must hold at least one, got none")
    shapes = {tuple(image.shape) for image in images.values()}
    if len(shapes) > 1 or any(len(shape) != 3 or shape[1] != shape[2] for shape in shapes):
        raise ValueError(f"images must be square and all of one size, (C, H, H), got {sorted(shapes)}")
    return check_images(torch.stack(list(images.values())).float())


def _about(card: Card) -> dict[str, Any]:
    """What the browser needs to know of a network's input and classes."""
    return {"classes": list(card.classes), "mean": list(card.mean), "std": list(card.std)}
