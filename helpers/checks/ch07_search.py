"""Checks for the exercises of chapter 7."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from helpers._validate import is_whole
from helpers.checks import exercise, expect, is_truth, tensor_answer

CLOSE = 1e-6


def _beliefs(seed: int, *shape: int) -> Tensor:
    """Random probabilities (..., K) in double precision."""
    draw = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=draw, dtype=torch.float64)).softmax(-1)


def _fused(p0: Tensor, pu: Tensor, prior: Tensor) -> Tensor:
    """Bayes' rule, label by label."""
    rows = []
    for view in pu.tolist():
        joint = [a * b / c for a, b, c in zip(p0.tolist(), view, prior.tolist(), strict=True)]
        rows.append([v / sum(joint) for v in joint])
    return torch.tensor(rows, dtype=torch.float64)


@exercise("7.1")
def bound_or_no_bound(answer: Callable[[], tuple[str, str, str]]) -> str:
    """Whether the bound lies above, below or on the gain, for three views."""
    signs = answer()
    expect(isinstance(signs, tuple) and len(signs) == 3, "return three signs, for (a), (b) and (c)")
    expect(all(sign in (">", "<", "=") for sign in signs), "each must be '>', '<' or '='")
    reasons = (
        (">", "(a) agrees with the glance: Z = 3 (0.64 + 0.01 + 0.01), is that above 1?"),
        ("<", "(b) contradicts the glance: Z = 3 (0.08 + 0.08 + 0.01), is that above 1?"),
        ("=", "(c) says nothing: Z = 3 times a third of 1"),
    )
    for sign, (right_sign, reason) in zip(signs, reasons, strict=True):
        expect(sign == right_sign, reason)
    return "agreement makes the bound too large, contradiction too small, silence exact."


@exercise("7.2")
def fuse_two_views(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """The beliefs after each of U second views, (U, K)."""
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    p0, pu = _beliefs(0, 3), _beliefs(1, 4, 3)
    beliefs = tensor_answer(answer(p0, pu, even), (4, 3), "the beliefs")
    expect(bool(((beliefs.sum(-1) - 1).abs() < CLOSE).all()), "every row should add up to 1")
    expect(
        torch.allclose(beliefs.double(), _fused(p0, pu, even), atol=CLOSE), "with an even prior: multiply, then divide"
    )
    for seed in range(2, 6):
        prior, p0, pu = _beliefs(seed, 5), _beliefs(seed + 10, 5), _beliefs(seed + 20, 3, 5)
        beliefs = tensor_answer(answer(p0, pu, prior), (3, 5), "the beliefs")
        twice = p0 * pu / (p0 * pu).sum(-1, keepdim=True)
        expect(
            not torch.allclose(beliefs.double(), twice, atol=CLOSE), "this counts an uneven prior twice: once a view"
        )
        expect(
            torch.allclose(beliefs.double(), _fused(p0, pu, prior), atol=CLOSE),
            "with an uneven prior it differs: divide by it, once",
        )
    unchanged = tensor_answer(answer(p0, prior[None], prior), (1, 5), "the belief")
    expect(
        torch.allclose(unchanged.double()[0], p0, atol=CLOSE), "a view that says no more than the prior changes nothing"
    )
    return "each view counts once, and so does the prior."


@exercise("7.3")
def bound_the_gain(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """The bound with its constant, (U,): gain plus log Z."""
    for seed in range(4):
        labels = 3 + seed
        prior = _beliefs(seed, labels) if seed else torch.full((3,), 1 / 3, dtype=torch.float64)
        p0, pu = _beliefs(seed + 30, labels), _beliefs(seed + 40, 6, labels)
        bound = tensor_answer(answer(p0, pu, prior), (6,), "the bound").double()
        fused = _fused(p0, pu, prior)
        gain = (fused * (fused / p0).log()).sum(-1)
        log_z = (p0 * pu / prior).sum(-1).log()
        without_constant = (fused * pu.log()).sum(-1)
        expect(
            not torch.allclose(bound, without_constant, atol=CLOSE),
            "this is IGUB as printed: its constant is missing (-sum p log p(k))",
        )
        kind = "an uneven" if seed else "an even"
        expect(
            not (seed and torch.allclose(bound, without_constant + math.log(labels), atol=CLOSE)),
            "log K is the constant of an even prior: of an uneven one it is -sum p log p(k)",
        )
        expect(
            torch.allclose(bound, gain + log_z, atol=CLOSE),
            f"with {kind} prior of {labels} labels it is not gain + log Z: the weights are the fused belief",
        )
    return "gain plus redundancy, for even and uneven priors."


@exercise("7.4")
def inhibit_returns(answer: Callable[..., list[int]]) -> str:
    """A scan path without repeats, and one that keeps away from where it has been."""
    scores = torch.tensor([0.1, 0.9, 0.4, 0.8])
    before = scores.clone()
    path = answer(scores, 3)
    expect(scores.equal(before), "your function writes into the scores it was given")
    expect(isinstance(path, list) and all(map(is_whole, path)), "return a list of integers")
    expect(len(path) == 3, f"three saccades make three places, got {len(path)}")
    expect(len(set(path)) == 3, "a place was looked at twice")
    expect(path == [1, 3, 2], "the best place first, then the best of those that are left")
    expect(sorted(answer(scores, 9)) == [0, 1, 2, 3], "with more saccades than places, stop when none is left")
    expect(
        answer(-scores, 2) == [0, 2], "it should work with negative scores too: what is forbidden is not a score of 0"
    )
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.5], [1.4, 0.0]])
    expect(
        answer(scores, 4, places, 0.5) == [1, 2, 0], "within the radius of a place nothing should be looked at again"
    )
    expect(answer(scores, 4, places, 1.0) == [1, 2], "a place exactly at the radius lies within it")
    places = torch.tensor([[0.0, 0.0], [3.0, 4.0]])  # 5 apart
    near, far = (answer(torch.tensor([2.0, 1.0]), 2, places, radius) for radius in (6.0, 4.5))
    expect(near == [0] and far == [0, 1], "how far apart are (0, 0) and (3, 4)? A radius of 4.5 is less, one of 6 more")
    return "no place twice, and none too near."


@exercise("7.5")
def explain_by_luck(answer: Callable[[float, int, float], tuple[float, float]]) -> str:
    """The chance of one right answer among n, and the number of independent tries that would explain a share."""
    for a, n, measured in ((0.25, 49, 0.98), (0.5, 3, 0.75), (0.02, 100, 0.3)):
        numbers = answer(a, n, measured)
        expect(isinstance(numbers, tuple) and len(numbers) == 2, "return two numbers")
        lucky, tries = (float(number) for number in numbers)
        expect(abs(lucky - n * a) > CLOSE, "n a counts images with two right answers twice, and can exceed 1")
        expect(
            abs(lucky - (1 - (1 - a) ** n)) < CLOSE, f"with a = {a} and n = {n}: all n are wrong with chance (1 - a)^n"
        )
        expected_tries = math.log(1 - measured) / math.log(1 - a)
        expect(
            abs(tries - expected_tries) < CLOSE,
            f"with a = {a}, a share of {measured} needs m with (1 - a)^m = 1 - share",
        )
    return "for a = 0.5 two tries explain three quarters: no search needed."


@exercise("7.6")
def judge_the_searches(answer: Callable[[str], bool]) -> str:
    """Which of four procedures an agent that does not know the label could follow."""
    reasons = {
        "a": (False, "the ground-truth class is what the agent is to find out"),
        "b": (True, "confidence needs no label; it is dear, not impossible"),
        "c": (False, "to pick the best policy for each image one must know which answer was right"),
        "d": (True, "the second network sees what the agent sees"),
    }
    for letter, (possible, reason) in reasons.items():
        judgement = answer(letter)
        expect(is_truth(judgement), f"return True or False for {letter!r}")
        expect(bool(judgement) is possible, f"({letter}): {reason}")
    return "two that are told, two that could be done."
