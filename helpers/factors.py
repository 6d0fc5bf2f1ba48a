"""Deep feature factorisation: the parts that feature maps are made of, found without a class.

One call::

    parts = deep_feature_factorization(activations(model, x, "relu5")["relu5"], k=3)  # (B, 3, h, w)

By hand::

    v = f.movedim(1, 3).reshape(-1, channels)  # a row for every place of every image
    w, h = nmf(v, 3)  # v ~ w @ h: h holds 3 typical feature vectors, w how much of each is where

Source: Collins, Achanta, Süsstrunk, "Deep feature factorization for concept discovery", ECCV 2018.
"""

from typing import Any

import torch
from torch import Tensor

from helpers._validate import check_count, check_tensor, seeded
from helpers.device import own_precision

# In place of a denominator that is exactly zero, as in scikit-learn's multiplicative updates.
TINY = torch.finfo(torch.float32).eps


def nmf(
    v: Tensor, k: int, iterations: int = 200, seed: int = 0, *, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Non-negative matrix factorisation V ~ W H by multiplicative updates, W before H in each iteration.

    Implements :eq:`eq-nmf`, chapter 3: the squared error |V - W H|^2 never rises. What it ends in depends on the start.

    Args:
        v: (..., m, c), not negative; leading axes are factorised each by itself.
        k: number of factors, at least 1.
        iterations: 0 or more.
        seed: of the start, 0 or more; the same on every device, and for every matrix of a batch.
        start: W (..., m, k) and H (..., k, c) to start from, not negative, in place of random ones.

    Returns:
        W, (..., m, k), and H, (..., k, c), not negative, on the device and in the dtype of v.

    Raises:
        ValueError: v is not a non-empty floating-point (..., m, c), is not finite or negative somewhere; k, iterations,
            seed or start as they may not be.

    Source: Lee and Seung, "Algorithms for non-negative matrix factorization", NIPS 2000.
    """
    v = check_tensor(v, "v", "... m c", low=0).detach()
    k = check_count(k, "k")
    iterations, draw = check_count(iterations, "iterations", 0), seeded(seed)
    dtype = v.dtype
    v = v.to(torch.promote_types(dtype, torch.float32))  # products of half precision overflow
    most = v.amax((-2, -1), keepdim=True)  # where the mean itself would overflow all is measured in it first
    most = torch.where(v.mean((-2, -1), keepdim=True).isfinite(), 1, most)
    w, h = (None, None) if start is None else (part / most.sqrt() for part in _check_start(v, k, start))
    v = v / most
    if w is None or h is None:
        w, h = _random_start(v, k, draw)
    # The updates are the same for v and for any multiple of it, but products of very small or large numbers are not
    # representable: the mean of v is made 1, and that of W with it.
    scale = v.mean((-2, -1), keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    v, w, h = v / scale, w / scale.sqrt(), h / scale.sqrt()
    with own_precision(v):
        for _ in range(iterations):
            w = w * (v @ h.mT) / _safe(w @ (h @ h.mT))
            h = h * (w.mT @ v) / _safe(w.mT @ w @ h)
    root = scale.sqrt() * most.sqrt()
    return (w * root).to(dtype), (h * root).to(dtype)


def deep_feature_factorization(
    features: Tensor, k: int, *, iterations: int = 100, seed: int = 0, together: bool = True
) -> Tensor:
    """Where in each image each of k parts is: a non-negative factorisation of feature maps.

    Factors have no order and no scale of their own. Here each typical feature vector has length 1, so that a map holds
    the whole strength of its part, and the parts are sorted by the sum of squares of their maps, the largest first.

    Args:
        features: feature maps, (B, C, h, w), not negative: those behind a ReLU.
        k: number of parts.
        iterations: of `nmf`.
        seed: of its start.
        together: one factorisation for the whole batch, so that part 0 is the same kind of thing in every image;
            False factorises each image by itself.

    Returns:
        Maps, (B, k, h, w), not negative, at the layer's resolution.

    Raises:
        ValueError: features are not a finite, non-negative (B, C, h, w), or as `nmf`.

    Source: Collins, Achanta, Süsstrunk, ECCV 2018, section 3.
    """
    features = check_tensor(features, "features", "B C h w", low=0).detach()
    count, channels, height, width = features.shape
    rows = features.movedim(1, 3).reshape(1 if together else count, -1, channels)  # (1, B h w, C) or (B, h w, C)
    w, h = nmf(rows, k, iterations, seed)
    w = w * torch.linalg.vector_norm(h, dim=-1)[:, None]  # (1 or B, places, k)
    strength = w / w.amax((1, 2), keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)  # squares may be too large
    order = strength.square().sum(1).argsort(dim=1, descending=True, stable=True)  # (1 or B, k)
    w = w.gather(2, order[:, None].expand_as(w))
    return w.reshape(count, height, width, k).movedim(3, 1)


def _random_start(v: Tensor, k: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """|N(0, 1)| times sqrt(mean / k), as the authors start; drawn on the CPU, so that every device starts alike.

    Every matrix of a batch starts from the same numbers, so that it does not matter what else is in the batch.
    """
    scale = (v.mean((-2, -1), keepdim=True) / k).sqrt()
    shapes = (v.shape[-2], k), (k, v.shape[-1])
    single: Any = {"dtype": torch.float32, "device": "cpu"}
    w, h = (torch.randn(shape, generator=draw, **single).abs().to(v) * scale for shape in shapes)
    return w, h


def _check_start(v: Tensor, k: int, start: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if not isinstance(start, tuple | list) or len(start) != 2:
        raise ValueError(f"start must be a pair, W and H, got {type(start).__name__}")
    shapes = (*v.shape[:-1], k), (*v.shape[:-2], k, v.shape[-1])
    for i, (value, shape) in enumerate(zip(start, shapes, strict=True)):
        check_tensor(value, f"start[{i}]", " ".join(map(str, shape)), low=0)
    w, h = (value.detach().to(v).clone() for value in start)
    return w, h


def _safe(denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, TINY, denominator)
