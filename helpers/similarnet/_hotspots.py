"""The regions where a map is hot: where to cut it, and boxes around what lies above."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops_table
from torch import Tensor

from helpers._validate import as_tensor, check_count, check_tensor, describe, is_number
from helpers.device import widened

SIGMAS = 2.0  # standard deviations above the mean; the authors' deploy_ccGAP.lua
MIN_AREA = 12  # pixels of a hot spot


def map_threshold(maps: Tensor, rule: str | float = "otsu") -> Tensor:
    """Where to cut each map, by a rule.

    Args:
        maps: (B, H, W), raw and signed.
        rule: "otsu", the value that parts the map's values into two groups of the least spread (scikit-image); "two
            sigma", mean plus two standard deviations, as the authors cut the maps of their later variant; or a number
            in (0, 1), a share of each map's maximum.

    Returns:
        (B,), in the unit of the maps.

    Raises:
        ValueError: maps of another shape or not finite, or an unknown rule.

    Source: Otsu, IEEE SMC 1979; the authors' deploy_ccGAP.lua.
    """
    flat = check_tensor(maps, "maps", "B H W").detach().flatten(1)
    if rule == "two sigma":
        largest = flat.abs().amax(1, keepdim=True)  # divided by it: squares may leave the range of the numbers
        scaled = widened(flat) / torch.where(largest > 0, largest, 1)
        cut = scaled.mean(1) + SIGMAS * scaled.std(1, correction=min(1, flat.shape[1] - 1))
        return (cut * largest[:, 0]).to(flat.dtype)
    if rule == "otsu":
        cuts = [_otsu(values) for values in flat.double().cpu().numpy()]
        return torch.tensor(cuts, dtype=torch.float64, device="cpu").to(flat)
    if isinstance(rule, str) or not is_number(rule) or not 0 < rule < 1:
        raise ValueError(f"rule must be 'otsu', 'two sigma' or a share of the maximum in (0, 1), got {describe(rule)}")
    return flat.amax(1) * rule


def _otsu(values: np.ndarray) -> float:
    """Otsu's threshold of numbers (n,), however large or small; the number itself where all are the same."""
    low, span = values.min(), values.max() / 2 - values.min() / 2  # halves: the span itself may be too large a number
    if span == 0:
        return float(low)
    return float(threshold_otsu((values / 2 - low / 2) / span) * span * 2 + low)


def hotspots(maps: Tensor, threshold: float | Tensor, min_area: int = MIN_AREA) -> Tensor:
    """Boxes around the connected regions of each map above a threshold, the hottest first.

    Stretch the map over the image first (`cam.upsample`): boxes come in the map's own cells. Diagonal neighbours touch.

    Args:
        maps: (B, H, W).
        threshold: a number, or (B,), one a map: `map_threshold` gives them. A place counts when it lies above.
        min_area: places a region must have.

    Returns:
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive, (B, M, 4) float32; M is the greatest number of regions a map
        has. Sorted by the sum of the map over the region, NaN behind the last one.

    Raises:
        ValueError: maps of another shape or not finite, thresholds that do not fit, or a min_area below 1.
    """
    min_area = check_count(min_area, "min_area")
    check_tensor(maps, "maps", "B H W")
    masks = (maps > _check_threshold(threshold, maps)).cpu().numpy()
    values = maps.detach().cpu().double().numpy()
    regions = [_regions(mask, image, min_area) for mask, image in zip(masks, values, strict=True)]
    shape = (len(maps), max(map(len, regions)), 4)
    boxes = torch.full(shape, float("nan"), dtype=torch.float32, device="cpu")
    for row, region_boxes in zip(boxes, regions, strict=True):
        row[: len(region_boxes)] = torch.from_numpy(region_boxes)
    return boxes.to(maps.device)


def _check_threshold(threshold: Any, maps: Tensor) -> Tensor:
    """Thresholds as (B, 1, 1), or (1, 1, 1) where one serves all maps; infinite ones are allowed."""
    try:
        cuts = as_tensor(threshold).detach()
        is_real = not (cuts.is_complex() or cuts.dtype == torch.bool or cuts.isnan().any())
    except (TypeError, ValueError, RuntimeError):
        is_real = False
    if not is_real or cuts.shape not in ((), (len(maps),)):
        raise ValueError(f"threshold must be a number or ({len(maps)},), one a map, got {describe(threshold)}")
    return cuts.to(maps).view(-1, 1, 1)


def _regions(mask: np.ndarray, values: np.ndarray, min_area: int) -> np.ndarray:
    """Boxes (M, 4) of one mask's regions, the largest sum of values first."""
    table = regionprops_table(label(mask, connectivity=2), values, properties=("bbox", "area", "intensity_mean"))
    large = np.flatnonzero(table["area"] >= min_area)
    order = large[np.argsort(-(table["area"] * table["intensity_mean"])[large], kind="stable")]
    return np.stack([table[f"bbox-{i}"][order] for i in (1, 0, 3, 2)], axis=1).astype(np.float32)
