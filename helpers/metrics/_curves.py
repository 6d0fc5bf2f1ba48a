"""Maps against the network: the score while pixels go, in the order of the map."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers._validate import Target, check_count, check_fill, check_images, check_target, chunks
from helpers.capture import Score, logits
from helpers.capture._hooks import class_scores
from helpers.device import widest_float
from helpers.metrics._masks import check_maps


class Curve(NamedTuple):
    """What `deletion` and `insertion` return; K is there for a (B, K) target."""

    auc: Tensor  # (B,) or (B, K): area under the curve, in units of the score
    scores: Tensor  # (B, steps + 1) or (B, K, steps + 1): the score with 0, 1/steps ... 1 of the pixels changed


def deletion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    steps: int = 16,
    fill: float | Tensor = 0.0,
    score: Score = "probability",
    batch_size: int | None = None,
) -> Curve:
    """The score while pixels are taken away, the map's largest first: a good map makes it fall soon.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K classes of every image.
        maps: (B, H, W), or (B, K, H, W) for a (B, K) target; equal values go in reading order.
        steps: points after the first one; the k-th has lost the share k / steps of its pixels (rounded down).
        fill: what takes a pixel's place: a number, or images that broadcast to x.
        score: what of the class is followed: its "probability", "logit" or "log-odds".
        batch_size: images a pass, which bounds the memory; the length of x, or 8 where x is shorter, when left out.

    Returns:
        The area under the curve (trapezoids over the share of pixels, 0 to 1), the smaller the better, and the curve.

    Raises:
        ValueError: bad `x` or `target`; maps of another shape or not finite; steps or chunk below 1; a fill that does
            not fit.

    Source: Petsiuk, Das, Saenko, "RISE", BMVC 2018.
    """
    return _curve(model, x, target, maps, steps, fill, score, batch_size, insert=False)


def insertion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    steps: int = 16,
    fill: float | Tensor = 0.0,
    score: Score = "probability",
    batch_size: int | None = None,
) -> Curve:
    """The score while pixels are put back into an empty image, the map's largest first: a good map makes it rise soon.

    Arguments, errors and source are those of `deletion`; the larger the area the better.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes).
        x: images, (B, C, H, W).
        target: class index, (B,) indices, or (B, K).
        maps: (B, H, W), or (B, K, H, W) for a (B, K) target.
        steps: points after the first one.
        fill: the empty image: a number, or images that broadcast to x.
        score: what of the class is followed: its "probability", "logit" or "log-odds".
        batch_size: images a pass.

    Returns:
        The area under the curve and the curve.

    Raises:
        ValueError: as `deletion`.
    """
    return _curve(model, x, target, maps, steps, fill, score, batch_size, insert=True)


def _curve(
    model: nn.Module,
    x: Tensor,
    target: Target,
    maps: Tensor,
    steps: int,
    fill: float | Tensor,
    score: Score,
    batch_size: int | None,
    insert: bool,
) -> Curve:
    check_images(x)
    wanted, several = check_target(target, len(x), logits(model, x[:1]).shape[1])
    wanted, maps = wanted.to(x.device), check_maps(maps, "maps")
    shape = (*wanted.shape, *x.shape[-2:]) if several else (len(x), *x.shape[-2:])
    if maps.shape != shape:
        raise ValueError(f"maps must have shape {tuple(shape)}, one for each image and class, got {tuple(maps.shape)}")
    check_count(steps, "steps")
    cover = check_fill(fill, x)
    order = maps.reshape(wanted.numel(), -1).argsort(dim=1, descending=True, stable=True)  # (B K, P)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=x.device).expand_as(order))
    count = torch.arange(steps + 1, device=x.device) * order.shape[1] // steps  # pixels changed at each point
    scores = []
    for part in chunks(wanted.numel() * len(count), batch_size, x):
        job, point = part // len(count), part % len(count)
        image = job // wanted.shape[1]
        changed = (rank[job] < count[point, None]).view(-1, 1, *x.shape[-2:])
        found = logits(model, torch.where(changed ^ insert, cover[image], x[image]))
        scores.append(class_scores(found, wanted.reshape(-1, 1)[job], score)[:, 0])
    curve = torch.cat(scores).view(*wanted.shape, -1)  # (B, K, steps + 1)
    curve = curve if several else curve[:, 0]
    share = (count.to(widest_float(count.device)) / order.shape[1]).to(curve.dtype)
    return Curve(torch.trapezoid(curve, share, dim=-1), curve)
