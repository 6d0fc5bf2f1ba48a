"""The search: look once, then again where a policy says, and fuse what is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers._validate import Target, check_choice, check_count, check_images, seeded
from helpers.capture import preserved
from helpers.device import widened
from helpers.retina._grid import check_fixations
from helpers.search._fixations import (
    BATCH_SIZE,
    View,
    as_candidates,
    as_labels,
    as_start,
    resolve_view,
    unchecked_label_map,
)
from helpers.search._information import check_accuracy, check_log_p, check_prior, unchecked_fuse
from helpers.search._policies import POLICIES, SearchState

SAME_FIXATION = 1e-6  # in half images: a candidate so near to the first fixation is the same, up to rounding


class Trace(NamedTuple):
    """What `search` returns; S saccades, so S + 1 views with the first glance.

    Attributes:
        fixations: (B, S + 1, 2), in [-1, 1], the first glance's first.
        choices: (B, S) int64, the index of each fixation among the candidates.
        log_p: (B, S + 1, K) log-probabilities, of each view alone.
        beliefs: (B, S + 1, K) log-probabilities, of all views so far, fused.
        scores: (B, S, U), the policy's; -inf where a return was inhibited.
        forward_passes: views of each image that the network had to be shown.
    """

    fixations: Tensor
    choices: Tensor
    log_p: Tensor
    beliefs: Tensor
    scores: Tensor
    forward_passes: int


def search(
    models: nn.Module | tuple[nn.Module, nn.Module],
    x: Tensor,
    policy: str = "information_gain_bound",
    saccades: int = 1,
    *,
    fixations: int | Tensor = 7,
    start: Tensor | None = None,
    target: Target | None = None,
    accuracy: Tensor | None = None,
    prior: Tensor | None = None,
    inhibit: bool = True,
    view: View | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Trace:
    """Look at images once, then again where a policy says, and fuse what is seen.

    Args:
        models: the network that names what it sees, or a pair (what_net, predict_accuracy), whose second member
            predicts from the whole image how probably each candidate's answer is right, for the policy "expected": it
            is called as `predict_accuracy(x, fixations)` with (B, U, 2) and returns (B, U) in [0, 1]. A `WhereNet` does
            not fit here; use `dual_pathway` for it.
        x: images, (B, C, H, W), normalised as the network expects them.
        policy: a name in `POLICIES`.
        saccades: how many, from 0 on.
        fixations: the candidates, as in `label_map`.
        start: the first glance's fixation, (2,) or (B, 2); None is the centre.
        target: labels for the policies that are told them, an int or (B,).
        accuracy: (U,) or (B, U), in place of a second network.
        prior: of the labels, (K,); uniform when None.
        inhibit: a candidate that was looked at (the first glance's too) is not looked at again.
        view: as in `label_map`.
        batch_size: views a forward pass.
        seed: of the policy "random".

    Returns:
        `Trace`.

    Raises:
        ValueError: an unknown policy, one that lacks what it must know, more saccades than candidates, or what
            `label_map` and `fuse` refuse.
    """
    check_images(x)
    check_choice(policy, "policy", POLICIES)
    what_net, predict_accuracy = models if isinstance(models, tuple) else (models, None)
    view, batch_size = resolve_view(view, what_net), check_count(batch_size, "batch_size")
    # float32, as `Trace` returns them; the positions to sample at are computed from them in float64.
    fixations = as_candidates(fixations, len(x))[0].float().expand(len(x), -1, -1)  # (B, U, 2)
    start = as_start(start, len(x))  # (B, 2)
    visited = _visited(fixations, start, inhibit)
    saccades = _check_saccades(saccades, visited)

    def look(fixations: Tensor) -> Tensor:
        return unchecked_label_map(what_net, x, fixations, view, batch_size)

    glance = look(start[:, None])[:, 0]  # (B, K)
    if predict_accuracy is not None and accuracy is None and POLICIES[policy].needs_accuracy:
        with preserved(predict_accuracy), torch.no_grad():
            accuracy = predict_accuracy(x, fixations)
    state = _first_state(policy, glance, fixations, target, accuracy, prior, seed)
    if POLICIES[policy].needs_all_views:
        log_p = look(fixations)
        return _saccades(policy, replace(state, log_p=log_p), start, saccades, visited, inhibit, _read_from(log_p))
    images = torch.arange(len(x), device="cpu")

    def look_at(choice: Tensor) -> Tensor:
        return look(fixations[images, choice][:, None])[:, 0]

    return _saccades(policy, state, start, saccades, visited, inhibit, look_at)


def search_precomputed(
    policy: str,
    glance: Tensor,
    log_p: Tensor,
    fixations: Tensor,
    saccades: int = 1,
    *,
    target: Target | None = None,
    accuracy: Tensor | None = None,
    prior: Tensor | None = None,
    inhibit: bool = True,
    seed: int = 0,
) -> Trace:
    """`search` on label maps that were computed before: many policies for the price of one.

    Args:
        policy: a name in `POLICIES`.
        glance: log-probabilities of the first glance, from the centre, (B, K).
        log_p: those of all candidates, (B, U, K).
        fixations: the candidates, (U, 2) or (B, U, 2).
        saccades: as in `search`, like the arguments that follow.
        target: an int or (B,).
        accuracy: (U,) or (B, U).
        prior: (K,).
        inhibit: as in `search`.
        seed: as in `search`.

    Returns:
        `Trace`, its `forward_passes` those that the policy would have needed.

    Raises:
        ValueError: as `search`.
    """
    check_choice(policy, "policy", POLICIES)
    check_log_p(log_p, "log_p", "B U K")
    batch, candidates, labels = log_p.shape
    check_log_p(glance, "glance", f"{batch} {labels}")
    fixations = check_fixations(fixations, batch).float().expand(batch, -1, -1)
    if fixations.shape[1] != candidates:
        raise ValueError(f"fixations must be {candidates}, one a candidate of log_p, got {fixations.shape[1]}")
    glance, log_p = widened(glance), widened(log_p)
    start = as_start(None, batch)
    visited = _visited(fixations, start, inhibit)
    saccades = _check_saccades(saccades, visited)
    state = _first_state(policy, glance, fixations, target, accuracy, prior, seed)
    if POLICIES[policy].needs_all_views:
        state = replace(state, log_p=log_p)
    return _saccades(policy, state, start, saccades, visited, inhibit, _read_from(log_p))


def _visited(fixations: Tensor, start: Tensor, inhibit: bool) -> Tensor:
    """Which candidates must not be looked at any more after the first glance, (B, U) bool."""
    if not inhibit:
        return torch.zeros(fixations.shape[:2], dtype=torch.bool, device=fixations.device)
    return (fixations - start[:, None]).abs().amax(-1) < SAME_FIXATION


def _check_saccades(saccades: int, visited: Tensor) -> int:
    """The number of saccades, if there are as many candidates to look at."""
    saccades = check_count(saccades, "saccades", 0, visited.shape[1])
    free = int((~visited).sum(1).min())
    if saccades > free:
        raise ValueError(f"saccades must be at most {free}, the candidates not yet looked at, got {saccades}")
    return saccades


def _first_state(
    policy: str,
    glance: Tensor,
    fixations: Tensor,
    target: Target | None,
    accuracy: Tensor | None,
    prior: Tensor | None,
    seed: int,
) -> SearchState:
    """What is known after the first glance; ValueError for labels, accuracies and priors that do not fit it."""
    (batch, candidates), labels = fixations.shape[:2], glance.shape[1]
    if target is not None:
        target = as_labels(target, batch, labels).to(glance.device)
    elif POLICIES[policy].needs_target:
        raise ValueError(f"target must be given for the policy {policy!r}, got None")
    if POLICIES[policy].needs_accuracy:
        if accuracy is None:
            raise ValueError(f"accuracy must be given for the policy {policy!r}, or a second network, got None")
        accuracy = check_accuracy(accuracy, f"{candidates}", f"{batch} {candidates}").expand(batch, candidates)
    check_prior(prior, labels)
    return SearchState(glance, fixations, None, target, accuracy, prior, seeded(seed))


def _read_from(log_p: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from one candidate an image, (B,), to what the network says from there, (B, K)."""
    images = torch.arange(len(log_p), device=log_p.device)
    return lambda choice: log_p[images, choice.to(log_p.device)]


def _saccades(
    policy: str,
    state: SearchState,
    start: Tensor,
    saccades: int,
    visited: Tensor,
    inhibit: bool,
    look_at: Callable[[Tensor], Tensor],
) -> Trace:
    """The saccades of all images, one after the other.

    `look_at` turns the chosen candidates, (B,), into what the network says from there, (B, K) log-probabilities.
    """
    glance, fixations = state.belief, state.fixations
    batch, candidates = fixations.shape[:2]
    log_p, beliefs, choices, scores = [glance], [glance], [], []
    for _ in range(saccades):
        score = POLICIES[policy].score(state)
        # A score of -inf must still beat a candidate that was already looked at.
        score = score.clamp(min=torch.finfo(score.dtype).min).masked_fill(visited.to(glance.device), float("-inf"))
        choice = score.argmax(1).cpu()
        if inhibit:
            visited = visited.scatter(1, choice[:, None], True)
        log_p.append(look_at(choice))
        beliefs.append(unchecked_fuse(beliefs[-1], log_p[-1], state.prior))
        choices.append(choice)
        scores.append(score)
        state = replace(state, belief=beliefs[-1])
    path = torch.stack(choices, 1) if choices else torch.zeros(batch, 0, dtype=torch.int64, device="cpu")
    return Trace(
        torch.cat([start[:, None], fixations.gather(1, path[..., None].expand(-1, -1, 2))], dim=1),
        path,
        torch.stack(log_p, 1),
        torch.stack(beliefs, 1),
        torch.stack(scores, 1) if scores else glance.new_zeros(batch, 0, candidates),
        1 + (candidates if POLICIES[policy].needs_all_views else saccades),
    )
