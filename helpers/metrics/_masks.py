"""Maps against masks, and against each other."""

import torch
from scipy.stats import rankdata
from torch import Tensor

from helpers._validate import check_tensor
from helpers.device import widest_float
from helpers.filters import dilate_masks


def pointing_game(maps: Tensor, masks: Tensor, *, tolerance: float = 0.0) -> Tensor:
    """Whether a map's maximum lies on the object.

    Args:
        maps: (..., H, W).
        masks: (..., H, W) bool, the object.
        tolerance: how far beside the mask still counts, in pixels (Euclidean).

    Returns:
        1.0 for a hit, 0.0 for a miss, (...); where several places share the maximum, the share of them that hits.
        0 for a constant map, NaN for an empty mask.

    Raises:
        ValueError: shapes differ, maps are not finite, masks are not bool, or a tolerance that is negative or not
            finite.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016 (tolerance 15 pixels there).
    """
    masks = _check_masked(maps, masks)
    near = dilate_masks(masks, tolerance)
    top = maps == maps.amax(-1, keepdim=True).amax(-2, keepdim=True)
    hit = (top & near).sum((-2, -1)) / top.sum((-2, -1)).to(widest_float(maps.device))
    hit = hit.to(maps.dtype)
    hit = torch.where(top.flatten(-2).all(-1), hit.new_zeros(()), hit)
    return torch.where(masks.flatten(-2).any(-1), hit, hit.new_full((), float("nan")))


def mass_in_mask(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of a map's positive part that lies on the object; an even map earns the object's share of the area.

    Args:
        maps: (..., H, W); negative values count as 0.
        masks: (..., H, W) bool, the object.

    Returns:
        (...), 0 to 1; 0 for a map without a positive value, NaN for an empty mask.

    Raises:
        ValueError: shapes differ, maps are not finite, or masks are not bool.

    Source: Wang et al., "Score-CAM", 2020 (the energy-based pointing game); with the quadrants of `data.mosaics` for
    masks it is the score of the grid pointing game, Böhle et al., CVPR 2021.
    """
    masks = _check_masked(maps, masks)
    mass = maps.clamp(min=0)
    largest = mass.amax((-2, -1), keepdim=True)
    mass = (mass / torch.where(largest > 0, largest, 1)).to(widest_float(maps.device))
    total = mass.sum((-2, -1))
    share = (mass * masks).sum((-2, -1)) / torch.where(total > 0, total, 1.0)
    share = share.to(maps.dtype)
    return torch.where(masks.flatten(-2).any(-1), share, share.new_full((), float("nan")))


def in_out_ratio(maps: Tensor, masks: Tensor) -> Tensor:
    """How much higher maps are on the objects than beside them, over a whole set: a ratio of means.

    Args:
        maps: (N, h, w), at least 0, for example likelihood maps.
        masks: (N, h, w) bool, the objects (`search.fixations_inside` gives them for a grid of fixations).

    Returns:
        (): the mean over the maps of their means inside, over that of their means outside; maps whose mask is empty or
        full are left out. NaN where none is left or all is 0, infinite where only the outside is.

    Raises:
        ValueError: shapes differ, maps are not finite or below 0, or masks are not bool.

    Source: the released code of Jérémie, Daucé and Perrinet (bicv/Retinotopy): `likelihood_in_mean / out_mean`.
    """
    masks = _check_masked(maps, masks)
    check_tensor(maps, "maps", "... H W", low=0)  # a ratio of signed means says nothing
    # One factor for all maps leaves the ratio as it is, and no sum overflows.
    largest = maps.max()
    mass = (maps / torch.where(largest > 0, largest, 1)).to(widest_float(maps.device))
    inside, area = masks.sum((-2, -1)), masks.shape[-2] * masks.shape[-1]
    both = (inside > 0) & (inside < area)
    mean_inside = ((mass * masks).sum((-2, -1)) / inside)[both].mean()
    mean_outside = ((mass * ~masks).sum((-2, -1)) / (area - inside))[both].mean()
    return (mean_inside / mean_outside).to(maps.dtype)


def pixel_auc(maps: Tensor, masks: Tensor) -> Tensor:
    """The chance that a pixel of the object has a larger value than one beside it, ties counted half: the ROC's area.

    Args:
        maps: (..., H, W).
        masks: (..., H, W) bool, the object.

    Returns:
        (...), 0 to 1, 0.5 for a constant map; NaN for a mask that is empty or full.

    Raises:
        ValueError: shapes differ, maps are not finite, or masks are not bool.
    """
    masks = _check_masked(maps, masks)
    ranks, inside = _ranks(maps.flatten(-2)), masks.flatten(-2)
    count, total = inside.sum(-1).to(ranks.dtype), inside.shape[-1]
    area = ((ranks * inside).sum(-1) - count * (count + 1) / 2) / (count * (total - count))
    return area.to(maps.dtype)  # 0 / 0 = NaN where the mask is empty or full


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps, place by place: 1 where they put the places in the same order.

    Args:
        maps: (..., H, W).
        others: (..., H, W).

    Returns:
        (...), -1 to 1; NaN where a map is constant.

    Raises:
        ValueError: shapes differ, or a map is not finite.
    """
    check_tensor(maps, "maps", "... H W")
    check_tensor(others, "others", "... H W")
    _check_same_shape(maps, others, "others")
    a, b = _ranks(maps.flatten(-2)), _ranks(others.flatten(-2))
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return ((a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt()).to(maps.dtype)


def best_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether a map's largest value on the object is above its largest value beside it.

    `pointing_game` gives a share where several places tie; here a tie is a miss.

    Args:
        maps: (N, h, w), for example the likelihood of each fixation.
        masks: (N, h, w) bool, the objects.

    Returns:
        1.0 for a hit, 0.0 for a miss, (N,) float64.

    Raises:
        ValueError: shapes differ, maps are not finite, or masks are not bool.

    Source: the pointing game of the released code of Jérémie, Daucé and Perrinet (bicv/Retinotopy).
    """
    masks = _check_masked(maps, masks)
    lowest = maps.new_full((), float("-inf"))
    inside, outside = (torch.where(part, maps, lowest).flatten(1).amax(1) for part in (masks, ~masks))
    return (inside > outside).double()


def _check_same_shape(maps: Tensor, others: Tensor, name: str) -> None:
    if others.shape != maps.shape:
        raise ValueError(f"maps and {name} must have one shape, got {tuple(maps.shape)} and {tuple(others.shape)}")


def _check_masked(maps: Tensor, masks: Tensor) -> Tensor:
    """Masks on the device of their maps, if both are (..., H, W) of one shape."""
    check_tensor(maps, "maps", "... H W")
    check_tensor(masks, "masks", "... H W", kind="bool")
    _check_same_shape(maps, masks, "masks")
    return masks.to(maps.device)


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1 on along the last axis; equal values share the mean of their ranks. Sorted on the CPU, by scipy."""
    ranks = rankdata(values.detach().cpu().double(), axis=-1)
    return torch.from_numpy(ranks).to(values.device, widest_float(values.device))
