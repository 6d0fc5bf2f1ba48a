"""Cutting an image into squares."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers._validate import check_choice, check_count, describe
from helpers.device import widest_float
from helpers.quadtree._leaves import as_batch

CRITERIA = ("range", "std", "error")


def build_quadtree(
    image: Tensor, threshold: float | Tensor, criterion: str = "range", min_size: int = 1
) -> Tensor | list[Tensor]:
    """Cut an image into squares that are constant up to a threshold.

    Args:
        image: (H, W) or (C, H, W), any units, any size; or a batch (B, C, H, W).
        threshold: a square is cut when its criterion exceeds this; 0 keeps the image exactly. One number, or (B,), one
            for each image of a batch.
        criterion: of a square's own pixels: "range", the largest minus the least value; "std", the standard deviation;
            "error", the squared error of painting the square with its mean, summed over its pixels. In colour the
            largest over the channels.
        min_size: squares of this side are not cut, unless they reach over the border: there leaves may be smaller; a
            power of two.

    Returns:
        Leaves (y, x, size), (L, 3) int64; a list of B such trees for a batch.

    Raises:
        ValueError: another rank, an empty or non-finite image, a negative threshold, an unknown criterion, or a
            min_size that is not a power of two.
    """
    images, several = as_batch(image)
    limit = _thresholds(threshold, images)
    cut = [values > limit for values in _criterion_values(images, criterion, min_size)]
    trees = _collect(cut, images)
    return trees if several else trees[0]


def threshold_for(image: Tensor, leaves: int, criterion: str = "range", min_size: int = 1) -> Tensor:
    """The threshold at which an image's tree has as many leaves as possible, but at most so many.

    With "error" the count comes closest to `leaves`: a square's error is as a rule below that of the square it was cut
    from (its parent). Its range may equal its parent's, its standard deviation even exceed it; then both are cut
    at one threshold and the count jumps: textures get far fewer leaves than allowed.

    Args:
        image: (H, W) or (C, H, W), or a batch (B, C, H, W).
        leaves: the most leaves allowed.
        criterion: as in `build_quadtree`.
        min_size: as in `build_quadtree`.

    Returns:
        A threshold without dimensions, or (B,) for a batch.

    Raises:
        ValueError: as `build_quadtree`; or fewer leaves allowed than the smallest tree has.
    """
    leaves = check_count(leaves, "leaves")
    images, several = as_batch(image)
    values = _criterion_values(images, criterion, min_size)
    smallest = [len(tree) for tree in _collect([v == torch.inf for v in values], images)]
    if max(smallest) > leaves:
        raise ValueError(f"leaves must be at least {max(smallest)}, as many as the smallest tree has, got {leaves}")
    # `build_quadtree` cuts a square only if it and all its ancestors (the squares it lies in) exceed the threshold. So
    # the least value along that path decides, and ranked by it the first n squares are the n cuts.
    deciding = values[:1]
    for value in values[1:]:
        deciding.append(torch.minimum(value, _to_children(deciding[-1])))
    ranked = torch.cat([value.flatten(1) for value in deciding], 1).sort(1, descending=True).values
    # Start from the smallest tree, whose cuts (inf) must be made; each optional cut adds 3 leaves (4 for 1). The
    # threshold is the value of the first square that must stay; squares of equal value are cut together or not at all.
    cuts = (ranked == torch.inf).sum(1) + (leaves - torch.tensor(smallest, device=ranked.device)) // 3
    thresholds = ranked.gather(1, cuts.clamp(max=ranked.shape[1] - 1)[:, None])[:, 0]
    thresholds = thresholds.clamp(min=0)  # -inf: only squares that must not be cut are left, and 0 cuts all others
    return thresholds if several else thresholds[0]


def _thresholds(threshold: float | Tensor, images: Tensor) -> Tensor:
    """Thresholds that broadcast to the squares of a level, (B, n, n)."""
    try:
        limit = torch.as_tensor(threshold, device=images.device, dtype=widest_float(images.device))
        good = limit.ndim == 0 or limit.shape == (len(images),)
    except (TypeError, ValueError, RuntimeError):
        good = False
    if not good or not (limit.isfinite() & (limit >= 0)).all():
        raise ValueError(
            f"threshold must be a finite number from 0 on, or one for each image, got {describe(threshold)}"
        )
    return limit.view(-1, 1, 1)


def _criterion_values(images: Tensor, criterion: str, min_size: int) -> list[Tensor]:
    """The criterion of every square, (B, n, n) a level, from the whole image down to the pixels.

    inf where a square must be cut, as it reaches over the border; -inf where it must not, as it is small enough or lies
    wholly in the padding.
    """
    check_choice(criterion, "criterion", CRITERIA)
    if check_count(min_size, "min_size") & (min_size - 1):
        raise ValueError(f"min_size must be a power of two, got {min_size}")
    height, width = images.shape[-2:]
    side = 1 << (max(height, width) - 1).bit_length()  # the power of two that the image fits into
    # What the padding holds does not matter: squares that touch it are overwritten below.
    levels = _padded_values(F.pad(images, [0, side - width, 0, side - height]), criterion)
    values = []
    for level, value in enumerate(levels):
        size, n = side >> level, 1 << level
        start = torch.arange(n, device=images.device) * size
        over = (start + size > height)[:, None] | (start + size > width)
        outside = (start >= height)[:, None] | (start >= width)
        value = torch.where(over, torch.inf, value if size > min_size else torch.full_like(value, -torch.inf))
        values.append(torch.where(outside, -torch.inf, value))
    return values


def _padded_values(padded: Tensor, criterion: str) -> list[Tensor]:
    """The criterion of every square of (B, C, S, S), the largest over the channels, level by level from the whole."""
    wide = widest_float(padded.device)
    if criterion == "range":
        high, negated_low = [padded], [-padded]  # the greatest and minus the least value, from the pixels up
        while high[-1].shape[-1] > 1:
            high, negated_low = ([*levels, F.max_pool2d(levels[-1], 2)] for levels in (high, negated_low))
        values = [top.to(wide) + minus_least.to(wide) for top, minus_least in zip(high, negated_low, strict=True)]
    else:
        mean = padded.to(wide)
        variance = torch.zeros_like(mean)
        values = [variance]  # from the pixels up
        # The variance of four squares together: the mean of their variances, and the variance of their means.
        while mean.shape[-1] > 1:
            coarse = F.avg_pool2d(mean, 2)
            variance = F.avg_pool2d(variance + (mean - _to_children(coarse)).square(), 2)
            mean = coarse
            values.append(variance)
        area = [4**level for level in range(len(values))]
        values = [v.sqrt() if criterion == "std" else v * n for v, n in zip(values, area, strict=True)]
    return [v.amax(1) for v in reversed(values)]  # from the whole down to the pixels


def _collect(cut: Sequence[Tensor], images: Tensor) -> list[Tensor]:
    """The trees (L, 3) of a batch; `cut`, (B, n, n) bool a level, the whole first, says which squares to cut."""
    height, width = images.shape[-2:]
    side = cut[-1].shape[-1]
    reached, leaves = torch.ones_like(cut[0]), []  # a square is reached if all its ancestors are cut
    for level, cut_here in enumerate(cut):
        size = side >> level
        b, i, j = (reached & ~cut_here).nonzero().unbind(1)
        leaves.append(torch.stack([b, i * size, j * size, torch.full_like(b, size)], 1))
        if level + 1 < len(cut):
            reached = _to_children(reached & cut_here)
    rows = torch.cat(leaves)  # (N, 4): image, y, x, size
    rows = rows[(rows[:, 1] < height) & (rows[:, 2] < width)]  # squares beside the image are none of its leaves
    rows = rows[((rows[:, 0] * height + rows[:, 1]) * width + rows[:, 2]).argsort()]
    counts = torch.bincount(rows[:, 0], minlength=len(images)).tolist()
    return list(rows[:, 1:].split(counts))


def _to_children(grid: Tensor) -> Tensor:
    """Each square's value given to its four children: (..., n, n) -> (..., 2 n, 2 n)."""
    return grid.repeat_interleave(2, -2).repeat_interleave(2, -1)
