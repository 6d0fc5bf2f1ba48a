"""Mosaics: four pictures of four classes in one, whose quadrants are known exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from helpers._validate import check_count, check_tensor, seeded

QUADRANTS = 4


class Mosaics(NamedTuple):
    """Four pictures in one, two by two; the quadrants are numbered row by row.

    Attributes:
        images: (n, C, 2 H, 2 W), of the dtype of the pictures.
        labels: (n, 4) int64, of the picture in each quadrant; all four differ.
        masks: (n, 4, 2 H, 2 W) bool, the quadrants.
        pictures: (n, 4) int64, which picture stands in each quadrant.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    pictures: Tensor


def mosaics(images: Tensor, labels: Tensor, count: int, seed: int = 0) -> Mosaics:
    """Put pictures of four different classes together, two by two.

    What speaks for a class can only lie in its own quadrant, so that no outline and no box is needed to judge a map:
    `metrics.mass_in_mask` of the class's map and quadrant is the score of the grid pointing game. Take pictures that
    the network names rightly.

    Args:
        images: (N, C, H, W).
        labels: (N,) integers, at least four different ones.
        count: how many mosaics.
        seed: of which pictures go where.

    Returns:
        `Mosaics`.

    Raises:
        ValueError: shapes that do not go together, fewer than four classes, or a count below 1.

    Source: Böhle, Fritz, Schiele, "Convolutional dynamic alignment networks for interpretable classifications", CVPR
    2021, section 4 (the grid there is 3 x 3).
    """
    check_tensor(images, "images", "N C H W", kind="real")
    check_tensor(labels, "labels", f"{len(images)}", kind="integer")
    count, draw = check_count(count, "count"), seeded(seed)
    labels = labels.detach().cpu().long()
    classes = labels.unique()
    if len(classes) < QUADRANTS:
        raise ValueError(f"labels must be of four classes at least, got {len(classes)}")
    of_class = [(labels == c).nonzero()[:, 0] for c in classes]
    chosen = torch.stack([torch.randperm(len(classes), generator=draw)[:QUADRANTS] for _ in range(count)])  # (n, 4)
    pictures = torch.tensor(
        [[of_class[c][torch.randint(len(of_class[c]), (), generator=draw)] for c in row] for row in chosen.tolist()]
    )
    height, width = images.shape[-2:]
    tiles = images[pictures.to(images.device)].unflatten(1, (2, 2))  # (n, 2, 2, C, H, W)
    whole = tiles.permute(0, 3, 1, 4, 2, 5).reshape(count, images.shape[1], 2 * height, 2 * width)
    number = torch.arange(QUADRANTS, device=images.device).view(2, 2)
    quadrant = number.repeat_interleave(height, 0).repeat_interleave(width, 1)  # (2 H, 2 W)
    masks = quadrant == torch.arange(QUADRANTS, device=images.device)[:, None, None]
    return Mosaics(whole, labels[pictures], masks.expand(count, -1, -1, -1), pictures)
