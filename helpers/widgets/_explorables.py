"""The book's explorables: each hands a browser what it computes with, and says what stands where it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import plots
from helpers._validate import check_count, check_images, check_tensor
from helpers.capture import activations, layer_names
from helpers.licnn._inhibition import AVERAGE, DIFFERENCE, ZONE_SIDE
from helpers.networks import Card, normalize
from helpers.retina._grid import R_MIN, check_fixations
from helpers.retina._views import SIZE, check_card, viewer
from helpers.search import label_map
from helpers.widgets._explorable import Explorable
from helpers.widgets._export import exported, packed, pixels, rounded

MOST_STEPS = 6  # of integrated gradients, each a pass forwards and one back


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
    place = {"row": height // 3, "column": width // 2, "stride": 1, "padding": 1, "relu": False, "whole": False}
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


def digit_explorable(model: nn.Sequential, digits: Mapping[str, Tensor], rule: nn.Linear, layer: str) -> Explorable:
    """Draw a digit, or move one, and see what every layer of a small network makes of it, and where a rule says it is.

    Args:
        model: a chain of layers that maps (1, 1, H, H) to logits; the browser gets its weights rounded to a byte each.
        digits: name -> (1, H, H), values in [0, 1], one for each class of the network, in their order.
        rule: from the flat output of `layer` to row and column in pixels, as `helpers.readout.position_rule` fits it.
        layer: name of the layer that the rule reads.

    Returns:
        The explorable; `state` holds the digit's number and by how many pixels it was moved.

    Raises:
        ValueError: no digit, digits of another shape, a rule for another layer, or layers that the browser does not
            know.
    """
    sheets = _stack(digits)
    if sheets.shape[1] != 1:
        raise ValueError(f"digits must be gray, (1, H, H), got {tuple(sheets.shape[1:])}")
    values = activations(model, sheets[:1], layer)[layer]
    if not isinstance(rule, nn.Linear) or (rule.in_features, rule.out_features) != (values[0].numel(), 2):
        raise ValueError(f"rule must be nn.Linear({values[0].numel()}, 2) for the layer {layer!r}, got {rule}")
    layers, arrays = exported(rounded(model))
    arrays |= {"digits": pixels(sheets), "rule.weight": packed(rule.weight), "rule.bias": packed(rule.bias)}
    with_maps = [name for name, y in activations(model, sheets[:1], [e["name"] for e in layers]).items() if y.ndim == 4]
    return Explorable(
        "digit",
        {"digit": 0, "down": 0, "right": 0},
        arrays,
        {"layers": layers, "digits": list(digits), "rule": layer, "shown": [n for n in with_maps if "conv" not in n]},
        plots.images(sheets, list(digits)),
        f"Digits that can be moved, and redrawn: {', '.join(digits)}.",
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
    state = {"picture": 0, "target": target, "method": 0, "steps": 4, "patch": side // 4}
    state |= {"row": 3 * side // 8, "column": 3 * side // 8}
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


def filters_explorable(
    model: nn.Sequential, layer: str, images: Mapping[str, Tensor], lost: Tensor, x: Tensor, y: Tensor
) -> Explorable:
    """Silence filters: what a network of digits still names without them, and the heat map of those that are left.

    Args:
        model: a chain of layers that maps (1, 1, 28, 28) to logits; its layers up to `layer` take images of any size.
            The browser gets its weights rounded to a byte each.
        layer: name of a layer with F feature maps.
        images: name -> (1, H, W), pictures for the heat map, values in [0, 1], bright on dark.
        lost: what the network loses without each filter, e - E, (F,).
        x: test images, (N, 1, 28, 28): the share that is still named rightly is counted among them.
        y: their classes, (N,).

    Returns:
        The explorable; `state` holds which filters are on, the sign and the temperature of the weights (the exponent
        of 10), the rule of the cut, and whether the poolings are kept.

    Raises:
        ValueError: no image or one of another shape, no such layer, `lost` or `y` of another size, or layers that the
            browser does not know.
    """
    if not images:
        raise ValueError("images must hold at least one, got none")
    for name, image in images.items():
        check_tensor(image, f"images[{name!r}]", "1 H W")
    names = [name for name, _ in model.named_children()]
    if layer not in names:
        raise ValueError(f"layer must be one of {', '.join(names)}, got {layer!r}")
    cut, small = names.index(layer) + 1, rounded(model)
    maps = activations(small, x, layer)[layer].half()
    check_tensor(lost, "lost", f"{maps.shape[1]}")
    check_tensor(y, "y", f"{len(x)}", kind="integer")
    front, arrays = exported(small[:cut])
    head, others = exported(small[cut:])
    arrays |= others | {f"picture {name}": pixels(image) for name, image in images.items()}
    arrays |= {"lost": packed(lost.float()), "exam": packed(maps), "labels": packed(y.int())}
    state = {"picture": next(iter(images)), "on": [1] * len(lost), "sign": -1, "exponent": 0, "cut": "Otsu"}
    return Explorable(
        "filters",
        {**state, "pools": False},
        arrays,
        {
            "front": front,
            "head": head,
            "layer": layer,
            "pictures": list(images),
            "classes": [str(c) for c in range(head[-1]["out"])],
        },
        plots.gallery(list(images.values()), list(images)),
        f"The pictures whose heat map changes with the filters: {', '.join(images)}.",
    )


def steps_explorable(model: nn.Sequential, images: Mapping[str, Tensor], target: int = 0) -> Explorable:
    """LICNN's seven steps, each as a picture that follows the settings, and what blur around or on the object does.

    Args:
        model: a network of the book that the browser can run, as `helpers.networks.load` gives it.
        images: name -> (C, H, W), values in [0, 1], all of one size, square.
        target: the class asked about at first.

    Returns:
        The explorable; `state` holds the numbers of the picture, the class, the score, the rule and the layer, and a,
        b, k and the blur's radius.

    Raises:
        ValueError: no image, images of another shape, no such class, a network without ReLUs, or layers that the
            browser does not know.
    """
    card, pictures = check_card(model), _stack(images)
    target = check_count(target, "target", 0, len(card.classes) - 1)
    relus = layer_names(model, nn.ReLU)
    if not relus:
        raise ValueError("model must have nn.ReLU modules, got none")
    layers, arrays = exported(model)
    state = {"picture": 0, "target": target, "score": 0, "rule": 0, "layer": min(1, len(relus) - 1)}
    return Explorable(
        "steps",
        {**state, "a": AVERAGE, "b": DIFFERENCE, "k": ZONE_SIDE, "radius": 5, "blurred": 0},
        {**arrays, "pictures": pixels(pictures)},
        {"layers": layers, "relus": relus, "pictures": list(images), **_about(card)},
        plots.images(pictures, list(images)),
        f"The pictures whose attention map can be taken apart: {', '.join(images)}.",
    )


def gaze_explorable(
    images: Mapping[str, Tensor],
    size: tuple[int, int] = (48, 96),
    r_min: float = R_MIN,
    *,
    model: nn.Sequential | None = None,
    labels: Sequence[int] | None = None,
    r_max: float = 1.0,
) -> Explorable:
    """Move the gaze over a picture: the retina's circles, its view, and what the view still tells.

    Args:
        images: name -> (C, H, W) with one or three channels, values in [0, 1].
        size: circles and samples on each.
        r_min: radius of the innermost circle, in half the image's shorter side.
        model: a network of the book that sees log-polar views: what it makes of the view is shown too. It brings its
            own `size` and `r_min`.
        labels: the true class of each picture, with a network: whether it is right is said too.
        r_max: radius of the outermost circle; a network's retina keeps its 32 to 1 between that and the innermost.

    Returns:
        The explorable; `state` holds where the gaze is, from 0 to 1, the turn in degrees and the magnification.

    Raises:
        ValueError: no image, another shape, fewer than two circles or samples, radii that do not fit, or a network of
            another kind.
    """
    if not images:
        raise ValueError("images must hold at least one, got none")
    for name, image in images.items():
        if image.ndim != 3 or image.shape[0] not in (1, 3):
            raise ValueError(f"images[{name!r}] must be (1, H, W) or (3, H, W), got {tuple(image.shape)}")
    arrays, settings = {name: pixels(image) for name, image in images.items()}, {}
    if model is None:  # nothing is read from them, so that bytes will do
        arrays = {name: pixels((image * 255).round() / 255) for name, image in images.items()}
    else:
        settings["layers"], weights = exported(model)
        settings |= _about(card := _log_polar_card(model))
        if labels is not None:
            settings["labels"] = [check_count(label, "labels", 0, len(card.classes) - 1) for label in labels]
            check_count(len(settings["labels"]), "the number of labels", len(images), len(images))
        arrays |= weights
        size, r_min = SIZE, R_MIN * r_max
    first = next(iter(images))
    return Explorable(
        "gaze",
        {"picture": first, "x": 0.5, "y": 0.5, "turn": 0, "zoom": 1.0, "circles": True},
        arrays,
        {"pictures": list(images), "retina": _retina(size, r_min, r_max), **settings},
        plots.gallery([image.float() for image in images.values()], list(images)),
        f"The pictures over which the gaze can be moved: {', '.join(images)}.",
    )


def search_explorable(
    model: nn.Sequential,
    images: Tensor,
    labels: Tensor,
    boxes: Tensor,
    *,
    fixations: Tensor,
    r_max: float = 0.5,
    saccades: int = 3,
) -> Explorable:
    """Search yourself: choose where the network looks next, and compare with what each policy would have done.

    Args:
        model: a network of the book that sees log-polar views; it looks at every image from every fixation here, so
            that the browser need not.
        images: scenes, (N, C, H, H), values in [0, 1].
        labels: what is in them, (N,).
        boxes: around it, (N, 4), x0, y0, x1, y1 in pixel edges.
        fixations: what can be looked at, (U, 2) in [-1, 1], a square grid row by row; the first glance goes to the
            middle.
        r_max: radius of the retina, in half the image's side.
        saccades: looks a scene.

    Returns:
        The explorable; `state` holds the scene's number, the looks so far and which scenes were named rightly.

    Raises:
        ValueError: shapes that do not go together, a network of another kind, or more saccades than fixations.
    """
    card, u = _log_polar_card(model), check_fixations(fixations, 1).shape[1]
    check_images(images, "images")
    check_tensor(labels, "labels", f"{len(images)}", kind="integer", low=0, high=len(card.classes) - 1)
    check_tensor(boxes, "boxes", f"{len(images)} 4", kind="real")
    across = round(u**0.5)
    if fixations.ndim != 2 or across**2 != u or images.shape[-1] != images.shape[-2]:
        raise ValueError(f"fixations must be a square grid (U, 2) and images square, got {tuple(fixations.shape)}")
    saccades = check_count(saccades, "saccades", 1, u - 1)
    x, eye = normalize(images, model), viewer(model, r_max)
    glance, views = (label_map(model, x, at, eye).float() for at in (fixations.new_zeros(1, 2), fixations))
    return Explorable(
        "search",
        {"scene": 0, "looks": [], "cursor": u // 2, "advice": 0, "reveal": False, "results": {}},
        {"pictures": pixels(images), "glance": packed(glance[:, 0]), "views": packed(views)},
        {
            "classes": list(card.classes),
            "means": list(card.mean),
            "stds": list(card.std),
            "retina": _retina(SIZE, R_MIN * r_max, r_max),
            "fixations": fixations.tolist(),
            "labels": labels.tolist(),
            "boxes": boxes.tolist(),
            "saccades": saccades,
        },
        plots.images(images, columns=5),
        "The scenes that can be searched; in each is one small shape.",
    )


def _retina(size: tuple[int, int], r_min: float, r_max: float) -> dict[str, float]:
    """A retina as the browser takes it."""
    radii, angles = (check_count(count, "size", 2) for count in size)
    if not 0 < r_min < r_max:
        raise ValueError(f"r_min must lie in (0, {r_max:g}), r_max, got {r_min!r}")
    return {"radii": radii, "angles": angles, "rMin": float(r_min), "rMax": float(r_max)}


def _log_polar_card(model: nn.Module) -> Card:
    """The card of a network that sees log-polar views."""
    card = check_card(model)
    if card.view != "log-polar":
        raise ValueError(f"model must see log-polar views, got one that sees {card.view!r}")
    return card


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
