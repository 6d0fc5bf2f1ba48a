"""What a second view is worth: posteriors fused, the information gained, and its bound.

Every function takes log-probabilities, as `log_softmax` gives them: what probabilities round to 0 they still hold.
`log_p0` is (B, K), the belief about the label before the next view; `log_pu` (B, ..., K), what each possible view says
alone; `prior` (K,) the probabilities of the labels, evenly spread when None.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from helpers._validate import check_number


def fuse(log_p0: Tensor, log_pu: Tensor, prior: Tensor | None = None) -> Tensor:
    """The belief after a second view, the two views being independent once the label is known.

    Implements :eq:`eq-fusion`: p(k | x_0, x_u) = p(k | x_0) p(k | x_u) / (p(k) Z(u)), chapter 7. Without the division
    by p(k) the prior would count twice.

    Args:
        log_p0: (B, K).
        log_pu: (B, ..., K).
        prior: (K,), or None.

    Returns:
        (B, ..., K) log-probabilities.

    Raises:
        ValueError: shapes that do not go together, values that are no log-probabilities, a prior that is none, or two
            views that exclude each other, so that no label is left.
    Source: Daucé, Frontiers in Neurorobotics 12:76, 2018, for a uniform prior.
    """
    return _joint(log_p0, log_pu, prior)[0].log_softmax(-1)


def redundancy(log_p0: Tensor, log_pu: Tensor, prior: Tensor | None = None) -> Tensor:
    """How much two views say the same: log Z(u), in nats.

    Implements :eq:`eq-redundancy`: Z(u) = sum_k p(k | x_0) p(k | x_u) / p(k) = p(x_0, x_u) / (p(x_0) p(x_u)), chapter
    7. Above 0 the views agree, below 0 they contradict each other; its mean over pairs of views is their mutual
    information, if the posteriors are exact and the views independent once the label is known.

    Args:
        log_p0: (B, K).
        log_pu: (B, ..., K).
        prior: (K,), or None.

    Returns:
        (B, ...), nats.

    Raises:
        ValueError: as `fuse`.
    """
    return _joint(log_p0, log_pu, prior)[1]


def information_gain(log_p0: Tensor, log_pu: Tensor, prior: Tensor | None = None) -> Tensor:
    """What the view at u has taught: the divergence from the old belief to the new one.

    Implements :eq:`eq-information-gain`: IG(u) = KL( p(. | x_0, x_u) || p(. | x_0) ), chapter 7. It is known only after
    looking: its mean before looking is `expected_gain`.

    Args:
        log_p0: (B, K).
        log_pu: (B, ..., K).
        prior: (K,), or None.

    Returns:
        (B, ...), nats, from 0 on.

    Raises:
        ValueError: as `fuse`.
    Source: Itti and Baldi, "Bayesian surprise attracts human attention", Vision Research 49, 2009.
    """
    fused = fuse(log_p0, log_pu, prior)
    before = log_p0.view(len(log_p0), *[1] * (log_pu.ndim - 2), -1)
    return _mean(fused, fused - before).clamp(min=0)  # rounding may leave a hair less


def information_gain_bound(
    log_p0: Tensor, log_pu: Tensor, prior: Tensor | None = None, constant: bool = True
) -> Tensor:
    """The source's bound: what the gain would be if the two views had nothing in common.

    Implements :eq:`eq-igub`: IGUB(u) = sum_k p(k | x_0, x_u) log p(k | x_u), chapter 7. With its constant,
    - sum_k p(k | x_0, x_u) log p(k), it is `information_gain` + `redundancy`, and no less than the gain on average if
    the posteriors are exact; for a single pair of views it may be less. Without it, it is at most 0, and no bound.

    Args:
        log_p0: (B, K).
        log_pu: (B, ..., K).
        prior: (K,), or None, which makes the constant log K.
        constant: add it. It changes the order of places only where the prior is not uniform.

    Returns:
        (B, ...), nats.

    Raises:
        ValueError: as `fuse`.
    Source: Jérémie, Perrinet and Daucé, CCN 2025, section III; Daucé 2018.
    """
    fused = fuse(log_p0, log_pu, prior)
    bound = _mean(fused, log_pu)
    return bound - _mean(fused, _log_prior(log_pu, prior).expand_as(fused)) if constant else bound


def expected_gain(log_p: Tensor, accuracy: Tensor) -> Tensor:
    """What a look is worth on average, before looking: the mutual information of the label and the answer.

    The answer at u is taken for the label with probability a(u), else for any of the others, all alike. With even
    beliefs and a(u) = 1/K the look is worth nothing; with a(u) = 1 it is worth the belief's entropy.

    Implements :eq:`eq-expected-gain`: H(answer) - H(answer | label), chapter 7.

    Args:
        log_p: belief, (B, K), K at least 2.
        accuracy: probability that the answer is right, (B, U), in [0, 1].

    Returns:
        (B, U), nats, from 0 on.

    Raises:
        ValueError: shapes that do not go together, or values outside their range.
    """
    _check_log("log_p", log_p)
    good = isinstance(accuracy, Tensor) and accuracy.ndim == 2 and len(accuracy) == len(log_p)
    if not good or log_p.ndim != 2 or log_p.shape[1] < 2:
        got = tuple(accuracy.shape) if isinstance(accuracy, Tensor) else accuracy
        raise ValueError(f"accuracy must be ({len(log_p)}, U), for a belief (B, K >= 2), got {got}")
    if not bool(((accuracy >= 0) & (accuracy <= 1)).all()):
        raise ValueError("accuracy must lie in [0, 1]")
    right = accuracy.to(log_p)[..., None]  # (B, U, 1)
    wrong = (1 - right) / (log_p.shape[1] - 1)
    answer = wrong + log_p.exp()[:, None] * (right - wrong)  # (B, U, K): probability of each answer
    noise = torch.special.entr(right) + (log_p.shape[1] - 1) * torch.special.entr(wrong)
    return (torch.special.entr(answer).sum(-1) - noise[..., 0]).clamp(min=0)


def _mean(log_weights: Tensor, values: Tensor) -> Tensor:
    """Mean of values (..., K) under log-probabilities; what has no probability counts nothing, also where infinite."""
    weights = log_weights.exp()
    return torch.where(weights > 0, weights * values, 0).sum(-1)


def _log_prior(like: Tensor, prior: Tensor | None) -> Tensor:
    """Logarithm of the prior, (K,)."""
    labels = like.shape[-1]
    if prior is None:
        return like.new_full((labels,), -math.log(labels))
    if not isinstance(prior, Tensor) or prior.shape != (labels,) or not prior.is_floating_point():
        raise ValueError(f"prior must be ({labels},), the labels' probabilities, got {prior!r:.80}")
    if not bool((prior > 0).all()) or abs(prior.double().sum().item() - 1) > 1e-4:
        raise ValueError("prior must be above 0 for every label and add up to 1")
    return prior.to(like).log()


def _joint(log_p0: Tensor, log_pu: Tensor, prior: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logarithm of p(k | x_0) p(k | x_u) / p(k), (B, ..., K), and of its sum over k, (B, ...)."""
    _check_log("log_p0", log_p0)
    _check_log("log_pu", log_pu)
    if log_p0.ndim != 2 or log_pu.ndim < 2 or (len(log_p0), log_p0.shape[-1]) != (len(log_pu), log_pu.shape[-1]):
        got = f"{tuple(log_p0.shape)} and {tuple(log_pu.shape)}"
        raise ValueError(f"log_p0 must be (B, K) and log_pu (B, ..., K), got {got}")
    joint = log_p0.view(len(log_p0), *[1] * (log_pu.ndim - 2), -1) + log_pu - _log_prior(log_pu, prior)
    total = joint.logsumexp(-1)
    if bool(total.isinf().any()):
        raise ValueError("log_p0 and log_pu exclude each other: no label has a probability in both")
    return joint, total


LOOSE = 1e-3  # how far the probabilities' sum may lie from 1: half precision rounds that much


def _check_log(name: str, values: Tensor) -> Tensor:
    """Log-probabilities (..., K); ValueError names the argument."""
    if not isinstance(values, Tensor) or values.ndim < 1 or values.numel() == 0 or not values.is_floating_point():
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"{name} must be a non-empty floating-point tensor (..., K), got {got}")
    if bool(values.isnan().any()):
        raise ValueError(f"{name} must not hold NaN")
    total = values.double().logsumexp(-1) if values.device.type != "mps" else values.logsumexp(-1)
    if not bool((total.abs() <= LOOSE).all()):
        hint = "; did you give probabilities in place of their logarithms?" if bool((values >= 0).any()) else ""
        raise ValueError(f"{name} must be log-probabilities, whose exponentials add up to 1{hint}")
    check_number(values.shape[-1], "labels", 1)
    return values
