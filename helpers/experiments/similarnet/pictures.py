"""The SIMILARnet authors' own pictures of numbers, and what hot spots find and read on them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from helpers.cam import upsample
from helpers.data import available, data_dir
from helpers.metrics import detections
from helpers.similarnet import features_at_any_size, heatmap, hotspots, map_threshold, read_hotspots

# The signs of each picture from left to right, x0, y0, x1, y1 in pixels: boxes around what is nearly white, looked at.
SIGNS = {
    # "0.85°", painted with light into the night
    "numbers4.jpg": ((161, 191, 238, 448), (251, 398, 277, 447), (305, 166, 410, 465), (426, 150, 567, 490),
                     (613, 128, 719, 265)),
    # "TOP 10 CITIES" over a skyline
    "numbers7.png": ((72, 87, 112, 165), (119, 86, 158, 166), (169, 87, 208, 165), (242, 87, 265, 165),
                     (285, 86, 320, 166), (353, 86, 390, 166), (399, 87, 411, 165), (419, 87, 458, 165),
                     (466, 87, 478, 165), (491, 87, 525, 165), (532, 86, 571, 166)),
}  # fmt: skip
PAINTED = {0: 0, 8: 2, 5: 3}  # digit -> its place among the signs of numbers4.jpg
LEAST = 100  # pixels of a spot, in pictures that are a thousand pixels wide


def picture(name: str, device: torch.device | str = "cpu") -> Tensor:
    """One of the pictures, gray, (1, 1, H, W) in [0, 1].

    Raises:
        FileNotFoundError: it is not under `data_dir()`.
    """
    with Image.open(data_dir() / "similarnet" / name) as image:
        return torch.from_numpy(np.array(image.convert("L"))).to(device)[None, None].float() / 255


def picture_scores(
    model: nn.Module, layer: str, weights: Mapping[str, Tensor]
) -> dict[str, dict[str, dict[str, int]]] | None:
    """Signs found on the authors' pictures by hot spots of maps without poolings, cut two deviations above the mean.

    Args:
        model: a LeNet.
        layer: of its last feature maps.
        weights: of its F filters, name -> (F,).

    Returns:
        picture -> weights -> "found", signs that a hot spot overlaps by half and more, and "false alarms", hot spots
        that found none; beside the weights the picture itself. None where the pictures are not there.
    """
    if not available("similarnet"):
        return None
    scores: dict[str, dict[str, dict[str, int]]] = {}
    for name, signs in SIGNS.items():
        image = picture(name, next(model.parameters()).device)
        size = (image.shape[2], image.shape[3])
        features = features_at_any_size(model, image, layer=layer, keep_pools=False)
        maps = {rule: upsample(heatmap(features, part), size) for rule, part in weights.items()}
        maps["the image itself"] = image[:, 0]
        boxes = torch.tensor(signs, device=image.device)[None].float()
        scores[name] = {}
        for rule, part in maps.items():
            hits = detections(hotspots(part, map_threshold(part, "two sigma"), LEAST), boxes)
            scores[name][rule] = {"found": int(hits.found.sum()), "false alarms": int(hits.false_alarms[0])}
    return scores


def painted_digits(model: nn.Module) -> dict[str, dict[int, int]] | None:
    """What a network reads in the boxes of 0, 8 and 5 of numbers4.jpg.

    Returns:
        contrast, "as it is" or "stretched" to the full range -> digit -> digit read. None where the picture is not
        there.
    """
    if not available("similarnet"):
        return None
    image = picture("numbers4.jpg", next(model.parameters()).device)
    boxes = torch.tensor([SIGNS["numbers4.jpg"][i] for i in PAINTED.values()], device=image.device)[None].float()
    return {
        contrast: dict(
            zip(PAINTED, read_hotspots(model, image, boxes, stretch=stretch).labels[0].tolist(), strict=True)
        )
        for contrast, stretch in (("as it is", False), ("stretched", True))
    }
