"""How alike two maps are."""

import numpy as np
from skimage.feature import hog
from skimage.metrics import structural_similarity
from torch import Tensor

from helpers._validate import check_tensor
from helpers.metrics._masks import rank_correlation

HOG_CELL_PX = 16  # pixels a side of a cell of the histograms of gradients, as in the authors' notebook
HOG_BLOCK = 3  # cells a side of a block
SSIM_SIGMA_PX = 1.5  # of the Gaussian window of the structural similarity (Wang et al. 2004)
SSIM_REACH = 3.5  # half the window's side, in sigmas


def map_similarity(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """How alike two maps are, by the four measures of the sanity checks.

    Args:
        a: maps, (B, H, W), raw and signed, sides of at least 3.
        b: maps, (B, H, W).

    Returns:
        "spearman": rank correlation of the signed maps, -1 to 1. "spearman_abs": of their absolute values. "ssim":
        structural similarity of the absolute values scaled to 0 .. 1, with a Gaussian window of 11 pixels (less on
        smaller maps). "hog": Pearson's correlation of the histograms of oriented gradients of the same, with cells
        of 16 pixels, or a third of the shorter side where that is less. Each (B,), NaN where a map, its absolute
        values or its histograms are constant.

    Raises:
        ValueError: shapes that differ or are not (B, H, W), sides below 3, or values that are not finite.

    Source: Adebayo et al. 2018, section 4 (their code correlates the histograms by ranks, the text by values).
    """
    a, b = check_tensor(a, "a", "B H W").detach(), check_tensor(b, "b", "B H W").detach()
    if a.shape != b.shape or min(a.shape[1:]) < HOG_BLOCK:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"a and b must have one shape, sides from {HOG_BLOCK} on, got {shapes}")
    pairs = list(zip(_unit(a), _unit(b), strict=True))  # of maps (H, W)
    return {
        "spearman": rank_correlation(a, b),
        "spearman_abs": rank_correlation(a.abs(), b.abs()),
        "ssim": a.new_tensor([_ssim(map_a, map_b) for map_a, map_b in pairs]),
        "hog": a.new_tensor([_correlation(_hog(map_a), _hog(map_b)) for map_a, map_b in pairs]),
    }


def _unit(maps: Tensor) -> np.ndarray:
    """Absolute values scaled to 0 .. 1, map by map, as scikit-image takes them; NaN for a constant map."""
    size = maps.abs().cpu().double()
    low, high = size.amin((1, 2), keepdim=True), size.amax((1, 2), keepdim=True)
    return ((size - low) / (high - low)).numpy()


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    sigma = min(SSIM_SIGMA_PX, (min(a.shape) - 1) // 2 / SSIM_REACH)
    return float(structural_similarity(a, b, gaussian_weights=True, sigma=sigma, data_range=1.0))


def _hog(a: np.ndarray) -> np.ndarray:
    cell = min(HOG_CELL_PX, min(a.shape) // HOG_BLOCK)
    return hog(a, pixels_per_cell=(cell, cell), cells_per_block=(HOG_BLOCK, HOG_BLOCK))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 0 else float("nan")
