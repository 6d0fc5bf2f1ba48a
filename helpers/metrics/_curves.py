"""Maps against the network: the score while pixels go, in the order of the map."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers._validate import Target, check_count, check_fill, check_images, check_target, check_tensor
from helpers.capture import Score, chunks, class_scores, logits, top_classes
from helpers.device import widened, widest_float


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
        target: class index, (B,) indices, or (B, K) for K classes of every image; None for each image's top class.
        maps: (B, H, W), or (B, K, H, W) for a (B, K) target; equal values go in reading order.
        steps: points after the first one; the k-th has lost the share k / steps of its pixels (rounded down).
        fill: what takes a pixel's place: a number, or images that broadcast to x.
        score: what of the class is followed: its "probability", "logit" or "log-odds".
        batch_size: images a pass, which bounds the memory; the length of x, or 8 where x is shorter, when left out.

    Returns:
        The area under the curve (trapezoids over the share of pixels, 0 to 1), the smaller the better, and the curve.

    Raises:
        ValueError: bad `x` or `target`; maps of another shape or not finite; steps or batch_size below 1; a fill that
            does not fit.

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
    """What `deletion` and `insertion` share: each score is that of an image whose first pixels have been changed."""
    check_images(x)
    target = top_classes(model, x, batch_size) if target is None else target
    classes, several = check_target(target, len(x), logits(model, x[:1]).shape[1])  # (B, K)
    classes = classes.to(x.device)
    shape = (*classes.shape, *x.shape[-2:]) if several else (len(x), *x.shape[-2:])
    check_tensor(maps, "maps", " ".join(map(str, shape)))  # one for each image and class
    steps = check_count(steps, "steps")
    fills = check_fill(fill, x)
    order = maps.reshape(classes.numel(), -1).argsort(dim=1, descending=True, stable=True)  # (N, pixels)
    pixels = torch.arange(order.shape[1], device=x.device)
    rank = torch.empty_like(order).scatter_(1, order, pixels.expand_as(order))  # of each pixel, 0 for the largest value
    changed_pixels = torch.arange(steps + 1, device=x.device) * len(pixels) // steps  # how many at each point
    scores = []
    for part in chunks(classes.numel() * len(changed_pixels), batch_size, x):
        row, point = part // len(changed_pixels), part % len(changed_pixels)
        image = row // classes.shape[1]
        changed = (rank[row] < changed_pixels[point, None]).view(-1, 1, *x.shape[-2:])
        answers = logits(model, torch.where(changed ^ insert, fills[image], x[image]))
        scores.append(class_scores(answers, classes.reshape(-1, 1)[row], score)[:, 0])
    curve = torch.cat(scores).view(*classes.shape, -1)  # (B, K, steps + 1)
    curve = curve if several else curve[:, 0]
    wide = widened(curve)  # steps in half precision would be of different lengths
    share = (changed_pixels.to(widest_float(x.device)) / len(pixels)).to(wide.dtype)
    return Curve(torch.trapezoid(wide, share, dim=-1).to(curve.dtype), curve)
