"""Where an object is, read out of a layer: by a fitted rule, and by looking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from helpers._validate import check_count, check_images, check_number, check_tensor
from helpers.capture import Layer, activations
from helpers.device import widened

RIDGE_PENALTIES = (1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4)  # of `position_readout`, whose layers have unit variance


def position_readout(
    model: nn.Module,
    images: Tensor,
    places: Tensor,
    layers: Layer | Sequence[Layer],
    *,
    train: float = 0.5,
    reader: nn.Module | None = None,
) -> dict[str, float]:
    """How well a straight-line rule reads an object's place out of each layer.

    A ridge regression (scikit-learn, its penalty chosen by leave-one-out on the training part) maps the activations,
    in units of the layer's standard deviation there, to the places; the score is measured on images it has not seen.

    Args:
        model: any network; it is left as it was found.
        images: (N, C, H, W).
        places: (N, D), for example the object's row and column in pixels.
        layers: names of layers; "input" stands for the pixels themselves.
        train: share of the images the rule is fitted on, the first ones.
        reader: another network of the same shape, to whose activations the rule is applied; None for `model` itself.

    Returns:
        For each layer the root mean squared error of the rule, over images and coordinates, in the unit of `places`.
        Compare it with the standard deviation of the places, which is what always answering the mean would earn.

    Raises:
        ValueError: wrong shapes, a layer whose first axis is not that of the images, or a part without images.
    """
    check_images(images, "images")
    train = check_number(train, "train", 0, 1)
    check_tensor(places, "places", f"{len(images)} D", kind="real")
    cut = int(train * len(images))
    if not 2 <= cut <= len(images) - 2:
        raise ValueError(f"train must leave at least two images on both sides of {len(images)}, got {train}")
    train_values = activations(model, images[:cut], layers)
    test_values = activations(reader or model, images[cut:], layers)
    true = places.detach().cpu().double().numpy()
    errors = {}
    for name in train_values:
        _check_rows(name, train_values[name], cut)
        _check_rows(name, test_values[name], len(images) - cut)
        known, fresh = (widened(values[name].flatten(1)).cpu().numpy() for values in (train_values, test_values))
        rule, unit = _fitted(known, true[:cut])
        predicted = rule.predict(fresh / unit).reshape(true[cut:].shape)  # scikit-learn drops a single column
        errors[name] = float(np.sqrt(np.mean((predicted - true[cut:]) ** 2)))
    return errors


def position_rule(model: nn.Module, images: Tensor, places: Tensor, layer: str) -> nn.Linear:
    """The straight-line rule of `position_readout`, fitted on all images, as a layer to put behind a network's.

    Args:
        model: any network; it is left as it was found.
        images: (N, C, H, W), two or more.
        places: (N, D), for example the object's row and column in pixels.
        layer: name of a layer; "input" stands for the pixels themselves.

    Returns:
        From the layer's flat output (B, F) to places (B, D), float32, on the CPU.

    Raises:
        ValueError: wrong shapes, fewer than two images, or a layer whose first axis is not that of the images.
    """
    check_count(len(check_images(images, "images")), "the number of images", 2)
    check_tensor(places, "places", f"{len(images)} D", kind="real")
    values = activations(model, images, layer)[layer]
    _check_rows(layer, values, len(images))
    known = widened(values.flatten(1)).cpu().numpy()
    rule, unit = _fitted(known, places.detach().cpu().double().numpy())
    linear = nn.Linear(known.shape[1], places.shape[1], device="cpu", dtype=torch.float32).requires_grad_(False)
    linear.weight.copy_(torch.from_numpy(np.asarray(rule.coef_) / unit).view_as(linear.weight))
    linear.bias.copy_(torch.as_tensor(rule.intercept_).view_as(linear.bias))
    return linear


def _fitted(values: np.ndarray, places: np.ndarray) -> tuple[RidgeCV, float]:
    """The rule from values (N, F) to places (N, D), and the unit by which the values must be divided for it.

    One unit for the whole layer; a unit of its own for each feature would blow up those that hardly ever fire.
    """
    unit = max(float(values.std()), np.finfo(values.dtype).tiny)
    return RidgeCV(alphas=RIDGE_PENALTIES).fit(values / unit, places), unit


def _check_rows(layer: str, values: Tensor, count: int) -> None:
    if len(values) != count:
        got = f"{layer!r}, which gives {tuple(values.shape)} for {count} images"
        raise ValueError(f"layers must give something for each image, (B, ...), got {got}")


def contrast_centroid(maps: Tensor) -> Tensor:
    """Centre of what stands out from a map's even background: no rule, no training.

    Each place weighs as much as its value differs from the map's median.

    Args:
        maps: (B, h, w).

    Returns:
        Row and column of the centre, (B, 2) float32 or wider, in places of the map, 0 for the first; NaN for a constant
        map.

    Raises:
        ValueError: maps is not (B, h, w) of floating-point numbers, or a side is empty.
    """
    wide = widened(check_tensor(maps, "maps", "B h w", finite=False)) / 2  # halves: differences may overflow
    weight = (wide - wide.flatten(1).median(1).values[:, None, None]).abs()
    weight = weight / weight.amax((1, 2), keepdim=True)  # NaN for a constant map
    share = weight / weight.sum((1, 2), keepdim=True)
    rows, columns = (torch.arange(n, device=maps.device, dtype=wide.dtype) for n in maps.shape[1:])
    return torch.stack([(share.sum(2) * rows).sum(1), (share.sum(1) * columns).sum(1)], dim=1)
