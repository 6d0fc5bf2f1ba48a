"""Images with one known object each, as a network of the book expects them: scenes and photographs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from helpers.data import scenes, tiny_imagenet
from helpers.experiments.train.recipes import RECIPES
from helpers.metrics import box_mask
from helpers.networks import normalize


class ObjectImages(NamedTuple):
    """Images and the object of each.

    Attributes:
        x: (N, 3, H, W), normalised as the network expects them.
        labels: (N,) int64, the objects' classes.
        masks: (N, H, W) bool, the objects.
    """

    x: Tensor
    labels: Tensor
    masks: Tensor


def drawn_scenes(name: str, count: int, seed: int, device: torch.device, **options: Any) -> ObjectImages:
    """Scenes of one object.

    Args:
        name: of the network that sees them.
        count: number of scenes.
        seed: of the drawing.
        device: where they are wanted.
        options: of `helpers.data.scenes`.
    """
    drawn = scenes(count, seed, **options)
    x = normalize(drawn.images, name).to(device)
    return ObjectImages(x, drawn.labels[:, 0].to(device), drawn.masks[:, 0].to(device))


def photographs(name: str, device: torch.device) -> ObjectImages:
    """Tiny ImageNet's validation images of the classes that a network knows; the masks are filled boxes.

    Raises:
        DataMissing: Tiny ImageNet is not there.
    """
    photos = tiny_imagenet("val", RECIPES[name].classes or None)
    x = normalize(photos.images, name).to(device)
    return ObjectImages(x, photos.labels.to(device), box_mask(photos.boxes, (x.shape[-2], x.shape[-1])).to(device))
