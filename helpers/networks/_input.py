"""What networks are given: images normalised and back; and a card for a network of one's own, which says how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import normalize as tv_normalize

from helpers._validate import check_count, check_number, check_size, check_tensor, describe, is_whole
from helpers.networks._card import Card
from helpers.networks._store import card

ROUNDINGS = 16  # by which images may leave [0, 1], as after x * std + mean


def adopt(
    model: nn.Module,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    size: int | tuple[int, int],
    classes: Sequence[str] | int,
) -> nn.Module:
    """Give a network of your own a card, so that `normalize`, `search.label_map` and the rest know what it expects.

    Args:
        model: any network that maps (B, C, H, W) to logits (B, classes).
        mean: of each colour of its training images in [0, 1], which is subtracted.
        std: what the result is divided by, above 0.
        size: (H, W) of the images it was trained on, in pixels; one number for both.
        classes: names in the order of the logits, or how many there are.

    Returns:
        The same network, not a copy, with a `card`: a `Card` of the view "whole" and of unknown accuracy (NaN).

    Raises:
        ValueError: no network, means and deviations that do not go together, or a size or classes that are none.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch module, got {describe(model)}")
    means, stds = ([check_number(float(v), name) for v in values] for name, values in (("mean", mean), ("std", std)))
    if not means or len(means) != len(stds) or min(stds) <= 0:
        raise ValueError(f"mean and std must be one number a colour each, std above 0, got {means} and {stds}")
    sides = check_size((size, size) if is_whole(size) else size)
    are_named = isinstance(classes, Iterable)
    names = list(map(str, classes if are_named else range(check_count(classes, "classes"))))
    if not names:
        raise ValueError("classes must name at least one class, got none")
    kind = type(model).__name__
    network_card = Card(
        name=kind, architecture=kind, mean=tuple(means), std=tuple(stds), size=sides, classes=tuple(names),
        about="a network of your own", parameters=sum(p.numel() for p in model.parameters()),
    )  # fmt: skip
    model.card = network_card  # ty: ignore[invalid-assignment] -- a note
    return model


def normalize(images: Tensor, network: nn.Module | Card | str) -> Tensor:
    """Images as a network expects them: (image - mean) / std, by colour; 0 is then the mean colour.

    Args:
        images: (B, C, H, W), floating-point numbers in [0, 1] or uint8 in 0 .. 255.
        network: a loaded or adopted network, its card, or the name of one of the book's.

    Returns:
        (B, C, H, W), float32 for uint8 images, else of their dtype, on their device.

    Raises:
        ValueError: no network with a card; images of another rank or number of colours, or out of range.
    """
    network_card = _card_of(network)
    colours = len(network_card.mean)
    check_tensor(images, "images", f"B {colours} H W", kind="real", finite=False)
    if images.dtype == torch.uint8:
        images = images.float() / 255
    elif not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floating-point numbers, got {images.dtype}")
    low, high = images.min().item(), images.max().item()
    room = ROUNDINGS * torch.finfo(images.dtype).eps
    if not (low >= -room and high <= 1 + room):
        raise ValueError(f"images must lie in [0, 1] (or be uint8 in 0 .. 255), got {low:.9g} .. {high:.9g}")
    return tv_normalize(images, list(network_card.mean), list(network_card.std))


def denormalize(x: Tensor, network: nn.Module | Card | str) -> Tensor:
    """The images that a network's input was made of: x std + mean, by colour; the inverse of `normalize`, for figures.

    Args:
        x: (B, C, H, W), as `normalize` gives it.
        network: a loaded or adopted network, its card, or the name of one of the book's.

    Returns:
        (B, C, H, W), in [0, 1] up to rounding if x came from there.

    Raises:
        ValueError: no network with a card, or x of another rank or number of colours.
    """
    network_card = _card_of(network)
    check_tensor(x, "x", f"B {len(network_card.mean)} H W")
    mean, std = (x.new_tensor(values)[:, None, None] for values in (network_card.mean, network_card.std))
    return x * std + mean


def _card_of(network: Any) -> Card:
    network_card = card(network) if isinstance(network, str) else getattr(network, "card", network)
    if not isinstance(network_card, Card):
        way = "adopt(model, mean, std, size, classes) gives one to a network of your own"
        raise ValueError(f"network must have a card, be one, or name one, got {type(network).__name__}; {way}")
    return network_card
