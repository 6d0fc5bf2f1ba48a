"""Policies: rules that rank the candidates, the fixations that a search may choose from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from helpers.search._information import (
    unchecked_expected_gain,
    unchecked_fuse,
    unchecked_information_gain,
    unchecked_information_gain_bound,
)


@dataclass(frozen=True)
class SearchState:
    """What a policy may know before a saccade; B images, U candidates (fixations to choose from), K labels.

    Attributes:
        belief: log-probabilities of the labels so far, (B, K).
        fixations: the candidates, (B, U, 2) in [-1, 1].
        log_p: what the network says from each candidate, (B, U, K) log-probabilities; None before looking.
        target: the label sought, (B,), or None.
        accuracy: how probably the answer from each candidate will be right, (B, U), or None.
        prior: of the labels, (K,); uniform when None.
        generator: of random numbers.
    """

    belief: Tensor
    fixations: Tensor
    log_p: Tensor | None = None
    target: Tensor | None = None
    accuracy: Tensor | None = None
    prior: Tensor | None = None
    generator: torch.Generator | None = None

    def need(self, name: str) -> Tensor:
        """An attribute that a policy cannot do without; ValueError where it is None."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"{name} must be known to this policy, got None")
        return value


class Policy(NamedTuple):
    """A rule that ranks the candidates.

    Attributes:
        score: of each candidate of a state, (B, U); the greatest is looked at.
        about: one line.
        needs_all_views: it needs the views from all candidates, and so one forward pass for each of them.
        needs_target: it needs the label that is sought: no agent that has to name it knows it.
        needs_accuracy: it needs to know beforehand how probably the answer from each candidate will be right.
    """

    score: Callable[[SearchState], Tensor]
    about: str
    needs_all_views: bool = True
    needs_target: bool = False
    needs_accuracy: bool = False


def _target_index(state: SearchState) -> Tensor:
    """The label sought as an index into `log_p` along K, (B, U, 1)."""
    return state.need("target")[:, None, None].expand(-1, state.need("log_p").shape[1], 1)


def _known_label(state: SearchState) -> Tensor:
    """Log-probability of the true label, from each view alone."""
    return state.need("log_p").gather(2, _target_index(state))[..., 0]


def _oracle(state: SearchState) -> Tensor:
    """Margin of the true label over the likeliest other one: above 0 where the view's own answer is right."""
    others = state.need("log_p").scatter(2, _target_index(state), float("-inf"))
    return _known_label(state) - others.amax(-1)


def _max_confidence(state: SearchState) -> Tensor:
    return state.need("log_p").amax(-1)


def _fused_confidence(state: SearchState) -> Tensor:
    return unchecked_fuse(state.belief, state.need("log_p"), state.prior).amax(-1)


def _information_gain(state: SearchState) -> Tensor:
    return unchecked_information_gain(state.belief, state.need("log_p"), state.prior)


def _information_gain_bound(state: SearchState) -> Tensor:
    return unchecked_information_gain_bound(state.belief, state.need("log_p"), state.prior)


def _expected(state: SearchState) -> Tensor:
    return unchecked_expected_gain(state.belief, state.need("accuracy"))


def _random(state: SearchState) -> Tensor:
    shape = state.fixations.shape[:2]
    return torch.rand(shape, generator=state.generator, dtype=torch.float32, device="cpu").to(state.belief)


def _center(state: SearchState) -> Tensor:
    return -state.fixations.square().sum(-1).to(state.belief)


POLICIES: dict[str, Policy] = {
    "oracle": Policy(
        _oracle,
        "where the true label's margin over the next one is largest: that view's own answer is right if any is",
        needs_target=True,
    ),
    "known_label": Policy(_known_label, "where the known label is likeliest", needs_target=True),
    "max_confidence": Policy(_max_confidence, "where any label is likeliest"),
    "fused_confidence": Policy(_fused_confidence, "where the belief would become surest"),
    "information_gain": Policy(_information_gain, "where the belief changes most"),
    "information_gain_bound": Policy(_information_gain_bound, "where the bound on that change is greatest"),
    "expected": Policy(
        _expected, "where the answer is worth most, before looking", needs_all_views=False, needs_accuracy=True
    ),
    "random": Policy(_random, "anywhere", needs_all_views=False),
    "center": Policy(_center, "where the middle of the image is nearest", needs_all_views=False),
}
