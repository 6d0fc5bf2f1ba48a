"""The SIMILARnet authors' own pictures of numbers, and how many of a heat map's hottest spots lie on the writing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from helpers.cam import upsample
from helpers.data import available, data_dir
from helpers.similarnet import features_at_any_size, heatmap, hotspots, map_threshold, read_hotspots

# Around the writing of each picture, x0, y0, x1, y1 in pixels, read off by eye; bright writing.
WRITING = {
    "numbers4.jpg": ((150, 115, 730, 500),),  # "0.85°", painted with light
    "numbers7.png": ((60, 75, 582, 176),),  # "TOP 10 CITIES" over a skyline
}
SIGNS = ((158, 187, 241, 450), (302, 162, 413, 467), (423, 146, 571, 492))  # 0, 8 and 5 of numbers4.jpg
HOTTEST = 10  # spots that are looked at
LEAST = 100  # pixels of a spot, in pictures that are a thousand pixels wide


def picture(name: str, device: torch.device | str = "cpu") -> Tensor:
    """One of the pictures, gray, (1, 1, H, W) in [0, 1].

    Raises:
        FileNotFoundError: it is not under `data_dir()`.
    """
    with Image.open(data_dir() / "similarnet" / name) as image:
        return torch.from_numpy(np.array(image.convert("L"))).to(device)[None, None].float() / 255


def on_writing(boxes: Tensor, writing: tuple[tuple[int, ...], ...]) -> int:
    """How many of boxes (M, 4) have their middle on the writing."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    inside = [(x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) for x0, y0, x1, y1 in writing]
    return int(torch.stack(inside).any(0).sum())


def on_pictures(model: nn.Module, layer: str, weights: Mapping[str, Tensor]) -> dict[str, dict[str, list[int]]] | None:
    """Hot spots of the authors' pictures, poolings left out, cut two deviations above the mean as the authors do.

    Args:
        model: a LeNet.
        layer: of its last feature maps.
        weights: of its filters, by name.

    Returns:
        picture -> weights -> how many of the hottest spots lie on the writing, and how many there are; beside them
        the picture itself. None where the pictures are not there.
    """
    if not available("similarnet"):
        return None
    found: dict[str, dict[str, list[int]]] = {}
    for name, writing in WRITING.items():
        image = picture(name, next(model.parameters()).device)
        features = features_at_any_size(model, image, layer, keep_pools=False)
        maps = {rule: upsample(heatmap(features, one), tuple(image.shape[2:])) for rule, one in weights.items()}
        maps["the image itself"] = image[:, 0]
        found[name] = {}
        for rule, one in maps.items():
            boxes = hotspots(one, map_threshold(one, "two sigma"), LEAST)[0, :HOTTEST]
            found[name][rule] = [on_writing(boxes, writing), len(boxes)]
    return found


def signs(model: nn.Module) -> list[int] | None:
    """What a network reads in the boxes of 0, 8 and 5 of numbers4.jpg; None where the picture is not there."""
    if not available("similarnet"):
        return None
    image = picture("numbers4.jpg", next(model.parameters()).device)
    return read_hotspots(model, image, torch.tensor(SIGNS)[None].float().to(image.device)).labels[0].tolist()
