"""What a second view is worth: posteriors fused, the information gained, and its bound.

Every function takes log-probabilities, as `log_softmax` gives them: they keep values so small that the probability
itself would round to 0.
`belief`, (B, K), is log p(k | x_0), what is believed of the label before the next view; `log_p`, (B, ..., K), is
log p(k | x_u), what each possible view at u says alone; `prior`, (K,), is p(k), the probabilities of the labels,
uniform when None.

The public functions check their arguments. The `unchecked_...` functions do the work; `search` calls them at every
saccade, after checking once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from helpers._validate import check_count, check_tensor
from helpers.device import widened

SUM_TOLERANCE = 1e-3  # how far the probabilities' sum may lie from 1; in half precision farther


def fuse(belief: Tensor, log_p: Tensor, prior: Tensor | None = None) -> Tensor:
    """The belief after a second view, the two views being independent once the label is known.

    Implements :eq:`eq-fusion`: p(k | x_0, x_u) = p(k | x_0) p(k | x_u) / (p(k) Z(u)), chapter 7. Without the division
    by p(k) the prior would count twice.

    Args:
        belief: (B, K).
        log_p: (B, ..., K).
        prior: (K,), or None.

    Returns:
        (B, ..., K) log-probabilities.

    Raises:
        ValueError: shapes that do not go together, values that are no log-probabilities, a prior that is not one, or
            two views that exclude each other, so that no label is possible.
    Source: Daucé, Frontiers in Neurorobotics 12:76, 2018, for a uniform prior.
    """
    wide = check_belief(belief, log_p, prior)
    return unchecked_fuse(*wide, prior).to(log_p.dtype)


def redundancy(belief: Tensor, log_p: Tensor, prior: Tensor | None = None) -> Tensor:
    """How much two views say the same: log Z(u), in nats.

    Implements :eq:`eq-redundancy`: Z(u) = sum_k p(k | x_0) p(k | x_u) / p(k) = p(x_0, x_u) / (p(x_0) p(x_u)), chapter
    7. Above 0 the views agree, below 0 they contradict each other; its mean over pairs of views is their mutual
    information, if the posteriors are exact and the views independent once the label is known.

    Args:
        belief: (B, K).
        log_p: (B, ..., K).
        prior: (K,), or None.

    Returns:
        (B, ...), nats.

    Raises:
        ValueError: as `fuse`.
    """
    wide = check_belief(belief, log_p, prior)
    return _unnormalised_fusion(*wide, prior)[1].to(log_p.dtype)


def information_gain(belief: Tensor, log_p: Tensor, prior: Tensor | None = None) -> Tensor:
    """What the view at u has taught: the divergence from the old belief to the new one.

    Implements :eq:`eq-information-gain`: IG(u) = KL( p(. | x_0, x_u) || p(. | x_0) ), chapter 7. It is known only after
    looking: its mean before looking is `expected_gain`.

    Args:
        belief: (B, K).
        log_p: (B, ..., K).
        prior: (K,), or None.

    Returns:
        (B, ...), nats, from 0 on.

    Raises:
        ValueError: as `fuse`.
    Source: Itti and Baldi, "Bayesian surprise attracts human attention", Vision Research 49, 2009.
    """
    wide = check_belief(belief, log_p, prior)
    return unchecked_information_gain(*wide, prior).to(log_p.dtype)


def information_gain_bound(belief: Tensor, log_p: Tensor, prior: Tensor | None = None, constant: bool = True) -> Tensor:
    """The source's bound: what the gain would be, were Z(u) = 1, that is, had the two views nothing in common.

    Implements :eq:`eq-igub`: IGUB(u) = sum_k p(k | x_0, x_u) log p(k | x_u), chapter 7, and adds the constant
    - sum_k p(k | x_0, x_u) log p(k).

    - With the constant it equals `information_gain` + `redundancy`, IG(u) + log Z(u).
    - It bounds only the mean gain: log Z(u) is at least 0 on average over pairs of views, if the posteriors are exact,
      but not for every pair.
    - Without the constant it is at most 0, and no bound.

    Args:
        belief: (B, K).
        log_p: (B, ..., K).
        prior: (K,), or None, which makes the constant log K.
        constant: add the constant. It changes the order of candidates only where the prior is not uniform.

    Returns:
        (B, ...), nats.

    Raises:
        ValueError: as `fuse`.
    Source: Jérémie, Perrinet and Daucé, CCN 2025, section III; Daucé 2018.
    """
    wide = check_belief(belief, log_p, prior)
    return unchecked_information_gain_bound(*wide, prior, constant).to(log_p.dtype)


def expected_gain(belief: Tensor, accuracy: Tensor) -> Tensor:
    """What a look is worth on average, before looking: the mutual information of the label and the answer.

    Model of a look: the answer at u is the true label with probability a(u), and each of the K - 1 others with
    probability (1 - a(u)) / (K - 1). With a(u) = 1/K the look is worth nothing, with a(u) = 1 the belief's entropy.

    Implements :eq:`eq-expected-gain`: H(answer) - H(answer | label), chapter 7.

    Args:
        belief: (B, K), K at least 2.
        accuracy: probability that the answer is right, (B, U), in [0, 1].

    Returns:
        (B, U), nats, from 0 on.

    Raises:
        ValueError: shapes that do not go together, or values outside their range.
    """
    check_log_p(belief, "belief", "B K")
    check_count(belief.shape[1], "the number of labels", 2)
    check_accuracy(accuracy, f"{len(belief)} U")
    return unchecked_expected_gain(widened(belief), accuracy).to(belief.dtype)


def unchecked_fuse(belief: Tensor, log_p: Tensor, prior: Tensor | None) -> Tensor:
    """`fuse` of a belief (B, K) and views (B, ..., K) that were checked."""
    return _unnormalised_fusion(belief, log_p, prior)[0].log_softmax(-1)


def unchecked_information_gain(belief: Tensor, log_p: Tensor, prior: Tensor | None) -> Tensor:
    """`information_gain` of a belief (B, K) and views (B, ..., K) that were checked."""
    fused = unchecked_fuse(belief, log_p, prior)
    return _mean(fused, fused - _with_view_axes(belief, log_p)).clamp(min=0)  # rounding may leave a hair less


def unchecked_information_gain_bound(
    belief: Tensor, log_p: Tensor, prior: Tensor | None, constant: bool = True
) -> Tensor:
    """`information_gain_bound` of a belief (B, K) and views (B, ..., K) that were checked."""
    fused = unchecked_fuse(belief, log_p, prior)
    bound = _mean(fused, log_p)
    return bound - _mean(fused, _log_prior(prior, log_p).expand_as(fused)) if constant else bound


def unchecked_expected_gain(belief: Tensor, accuracy: Tensor) -> Tensor:
    """`expected_gain` of a belief (B, K) and accuracies (B, U) that were checked: (B, U)."""
    wrong_labels = belief.shape[1] - 1
    right = accuracy.to(belief)[..., None]  # (B, U, 1)
    wrong = (1 - right) / wrong_labels
    # p(answer k) = p(k) right + (1 - p(k)) wrong, (B, U, K)
    answer = wrong + belief.exp()[:, None] * (right - wrong)
    entropy_given_label = torch.special.entr(right) + wrong_labels * torch.special.entr(wrong)  # whichever it is
    return (torch.special.entr(answer).sum(-1) - entropy_given_label[..., 0]).clamp(min=0)


def _mean(log_weights: Tensor, values: Tensor) -> Tensor:
    """Mean of values (..., K) under log-probabilities; what has no probability counts nothing, also where infinite."""
    weights = log_weights.exp()
    return torch.where(weights > 0, weights * values, 0).sum(-1)


def _log_prior(prior: Tensor | None, log_p: Tensor) -> Tensor:
    """Logarithm of the prior, (K,)."""
    labels = log_p.shape[-1]
    return log_p.new_full((labels,), -math.log(labels)) if prior is None else prior.to(log_p).log()


def _with_view_axes(belief: Tensor, log_p: Tensor) -> Tensor:
    """The belief (B, K) with as many axes as the views' log-probabilities (B, ..., K)."""
    return belief.view(len(belief), *[1] * (log_p.ndim - 2), -1)


def _unnormalised_fusion(belief: Tensor, log_p: Tensor, prior: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logarithm of p(k | x_0) p(k | x_u) / p(k), (B, ..., K), and of its sum over k, (B, ...)."""
    joint = _with_view_axes(belief, log_p) + log_p - _log_prior(prior, log_p)
    total = joint.logsumexp(-1)
    if bool(total.isinf().any()):
        raise ValueError("belief and log_p must leave a label possible, got two that exclude each other")
    return joint, total


def check_belief(belief: Tensor, log_p: Tensor, prior: Tensor | None) -> tuple[Tensor, Tensor]:
    """A belief (B, K) and views (B, ..., K), in single precision at least.

    Raises:
        ValueError: they and a prior (K,) are no probabilities that go together.
    """
    check_log_p(belief, "belief", "B K")
    check_log_p(log_p, "log_p", "... K")
    if log_p.ndim < 2 or (len(belief), belief.shape[1]) != (len(log_p), log_p.shape[-1]):
        got = f"{tuple(belief.shape)} and {tuple(log_p.shape)}"
        raise ValueError(f"belief must be (B, K) and log_p (B, ..., K), got {got}")
    check_prior(prior, belief.shape[1])
    return widened(belief), widened(log_p)


def check_log_p(log_p: Tensor, name: str, *layouts: str) -> Tensor:
    """Return log-probabilities (..., K) unchanged; ValueError unless their exponentials add up to 1."""
    check_tensor(log_p, name, *layouts, finite=False)
    if bool(log_p.isnan().any()):
        raise ValueError(f"{name} must be log-probabilities, got NaN")
    total = (log_p.double() if log_p.device.type != "mps" else log_p).logsumexp(-1)
    # Rounded logarithms are off by so much of themselves, in the mean of the entropy, log K at most.
    room = torch.finfo(log_p.dtype).eps * max(1.0, math.log(log_p.shape[-1]))
    if not bool((total.abs() <= max(SUM_TOLERANCE, room)).all()):
        hint = "; did you give probabilities in place of their logarithms?" if bool((log_p >= 0).any()) else ""
        worst = total.flatten()[total.abs().argmax()].exp().item()
        raise ValueError(f"{name} must be log-probabilities, whose exponentials add up to 1, got {worst:.4g}{hint}")
    return log_p


def check_prior(prior: Tensor | None, labels: int) -> None:
    """ValueError unless a prior is None, or the probability of each label, (K,), all above 0."""
    if prior is None:
        return
    check_tensor(prior, "prior", str(labels))
    total = prior.double().sum().item()
    if prior.min() <= 0 or abs(total - 1) > max(1e-4, torch.finfo(prior.dtype).eps):
        got = f"a least value of {prior.min().item():.4g} and a sum of {total:.4g}"
        raise ValueError(f"prior must be above 0 for every label and add up to 1, got {got}")


def check_accuracy(accuracy: Tensor, *layouts: str) -> Tensor:
    """Return probabilities of a right answer, (B, U) or as `layouts` say, unchanged; ValueError unless in [0, 1]."""
    check_tensor(accuracy, "accuracy", *layouts, kind="real")
    if accuracy.min() < 0 or accuracy.max() > 1:
        got = f"{accuracy.min().item():.4g} .. {accuracy.max().item():.4g}"
        raise ValueError(f"accuracy must be in [0, 1], got {got}")
    return accuracy
