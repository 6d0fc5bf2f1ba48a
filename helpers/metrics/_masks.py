"""Maps against masks, and against each other."""

import torch
from torch import Tensor

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
        ValueError: shapes differ, maps are not finite, masks are not bool, or a negative tolerance.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016 (tolerance 15 pixels there).
    """
    maps, masks = _pair(maps, masks)
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance must be a number of pixels from 0 on, got {tolerance!r}")
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

    Source: Wang et al., "Score-CAM", 2020 (the energy-based pointing game).
    """
    maps, masks = _pair(maps, masks)
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
    maps, masks = _pair(maps, masks)
    if bool((maps < 0).any()):
        raise ValueError("maps must be at least 0: a ratio of signed means says nothing")
    # One factor for all maps leaves the ratio as it is, and no sum overflows.
    largest = maps.max()
    mass = (maps / torch.where(largest > 0, largest, 1)).to(widest_float(maps.device))
    inside, area = masks.sum((-2, -1)), masks.shape[-2] * masks.shape[-1]
    both = (inside > 0) & (inside < area)
    within = ((mass * masks).sum((-2, -1)) / inside)[both].mean()
    without = ((mass * ~masks).sum((-2, -1)) / (area - inside))[both].mean()
    return (within / without).to(maps.dtype)


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
    maps, masks = _pair(maps, masks)
    ranks, inside = _ranks(maps.flatten(-2)), masks.flatten(-2)
    count, total = inside.sum(-1).to(ranks.dtype), inside.shape[-1]
    found = ((ranks * inside).sum(-1) - count * (count + 1) / 2) / (count * (total - count))
    return found.to(maps.dtype)  # 0 / 0 = NaN where the mask is empty or full


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
    maps, others = check_maps(maps, "maps"), check_maps(others, "others")
    if maps.shape != others.shape:
        raise ValueError(f"maps and others must have one shape, got {tuple(maps.shape)} and {tuple(others.shape)}")
    a, b = (_ranks(one.flatten(-2)) for one in (maps, others))
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return ((a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt()).to(maps.dtype)


def check_maps(maps: Tensor, name: str) -> Tensor:
    """Return maps unchanged if they are a non-empty (..., H, W) of finite floating-point numbers.

    Args:
        maps: what was given.
        name: of the argument, for the message.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(maps, Tensor) or maps.ndim < 2 or maps.numel() == 0:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"{name} must be a non-empty tensor (..., H, W), got {got}")
    if not maps.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {maps.dtype}")
    if not torch.isfinite(maps).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return maps


def _pair(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and their masks, of one shape."""
    maps = check_maps(maps, "maps")
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        got = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
        raise ValueError(f"masks must be a bool tensor (..., H, W), got {got}")
    if masks.shape != maps.shape:
        raise ValueError(f"maps and masks must have one shape, got {tuple(maps.shape)} and {tuple(masks.shape)}")
    return maps, masks.to(maps.device)


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1 on along the last axis, as precise as the device can; equal values share the mean of their ranks."""
    ordered, order = values.sort(dim=-1)
    new = torch.ones_like(order, dtype=torch.bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    group = new.long().cumsum(-1) - 1  # number of the group of equal values
    place = torch.arange(1, values.shape[-1] + 1, device=values.device, dtype=widest_float(values.device)).expand(
        values.shape
    )
    zeros = torch.zeros_like(place)
    mean = zeros.scatter_add(-1, group, place) / zeros.scatter_add(-1, group, torch.ones_like(place)).clamp_min(1)
    return torch.empty_like(place).scatter_(-1, order, mean.gather(-1, group))


def best_inside(at: Tensor, inside: Tensor) -> Tensor:
    """Whether a map's value at the best fixation on the object is above those of all others, (N, G, G) each -> (N,).

    The pointing game of the released code of Jérémie, Perrinet and Daucé.
    """
    low = at.new_full((), float("-inf"))
    within, without = (torch.where(which, at, low).flatten(1).amax(1) for which in (inside, ~inside))
    return (within > without).double()
