"""Where to look next: policies, inhibition of return, and the search that follows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers._validate import Target, check_images, check_target
from helpers.capture import preserved
from helpers.retina._grid import check_fixations
from helpers.search._fixations import CHUNK, View, fixation_grid, label_map
from helpers.search._information import expected_gain, fuse, information_gain, information_gain_bound


@dataclass(frozen=True)
class SearchState:
    """What a policy may know before a saccade; B images, U places to look at, K labels.

    Attributes:
        belief: log-probabilities of the labels so far, (B, K).
        fixations: the places, (B, U, 2) in [-1, 1].
        views: what the network says from each place, (B, U, K) log-probabilities; None before looking.
        target: the label sought, (B,), or None.
        accuracy: how probably the answer from each place will be right, (B, U), or None.
        prior: of the labels, (K,), or None.
        draw: random numbers.
    """

    belief: Tensor
    fixations: Tensor
    views: Tensor | None = None
    target: Tensor | None = None
    accuracy: Tensor | None = None
    prior: Tensor | None = None
    draw: torch.Generator | None = None


class Policy(NamedTuple):
    """A rule that ranks places.

    Attributes:
        score: of each place of a situation, (B, U); the greatest is looked at.
        about: one line.
        needs_all_views: it needs the views from all places, and so one forward pass for each of them.
        needs_target: it needs the label that is sought: no agent that has to name it knows it.
    """

    score: Callable[[SearchState], Tensor]
    about: str
    needs_all_views: bool = True
    needs_target: bool = False


def _of_target(now: SearchState) -> Tensor:
    return now.views.gather(2, now.target[:, None, None].expand(-1, now.views.shape[1], 1))[..., 0]


def _oracle(now: SearchState) -> Tensor:
    others = now.views.scatter(2, now.target[:, None, None].expand(-1, now.views.shape[1], 1), float("-inf"))
    return _of_target(now) - others.amax(-1)


def _random(now: SearchState) -> Tensor:
    return torch.rand(now.fixations.shape[:2], generator=now.draw).to(now.belief)


def _center(now: SearchState) -> Tensor:
    return -now.fixations.square().sum(-1).to(now.belief)


POLICIES: dict[str, Policy] = {
    "oracle": Policy(_oracle, "where the right label leads most: right if any place is", needs_target=True),
    "known_label": Policy(_of_target, "where the known label is likeliest", needs_target=True),
    "max_confidence": Policy(lambda now: now.views.amax(-1), "where any label is likeliest"),
    "fused_confidence": Policy(
        lambda now: fuse(now.belief, now.views, now.prior).amax(-1), "where the belief would become surest"
    ),
    "information_gain": Policy(
        lambda now: information_gain(now.belief, now.views, now.prior), "where the belief changes most"
    ),
    "information_gain_bound": Policy(
        lambda now: information_gain_bound(now.belief, now.views, now.prior), "the bound on that change"
    ),
    "expected": Policy(
        lambda now: expected_gain(now.belief, now.accuracy), "where the answer is worth most, before looking", False
    ),
    "random": Policy(_random, "anywhere", False),
    "center": Policy(_center, "the place nearest to the middle", False),
}


class Trace(NamedTuple):
    """What `search` returns; S saccades, so S + 1 views with the first glance.

    Attributes:
        fixations: (B, S + 1, 2), in [-1, 1], the first glance's first.
        places: (B, S) int64, the number of each fixation among the candidates.
        views: (B, S + 1, K) log-probabilities, of each view alone.
        beliefs: (B, S + 1, K) log-probabilities, of all views so far, fused.
        scores: (B, S, U), the policy's; -inf where a return was inhibited.
        forwards: views computed for each image.
    """

    fixations: Tensor
    places: Tensor
    views: Tensor
    beliefs: Tensor
    scores: Tensor
    forwards: int


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
    batch_size: int = CHUNK,
    seed: int = 0,
) -> Trace:
    """Look at images once, then again where a policy says, and fuse what is seen.

    Args:
        models: the network that names what it sees ("what"), or a pair (what, where), whose second member predicts
            from the whole image how probably each candidate's answer is right, for the policy "expected": it is called
            as `where(x, fixations)` with (B, U, 2) and returns (B, U) in [0, 1].
        x: images, (B, C, H, W), normalised as the network expects them.
        policy: a name in `POLICIES`.
        saccades: how many, from 0 on.
        fixations: the candidates, as in `label_map`.
        start: the first glance's fixation, (2,) or (B, 2); None is the centre.
        target: labels for the policies that are told them, an int or (B,).
        accuracy: (U,) or (B, U), in place of a second network.
        prior: of the labels, (K,); evenly spread when None.
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
    rule, what, where = _rule(policy), *(models if isinstance(models, tuple) else (models, None))
    at = fixation_grid(fixations).flatten(0, 1) if isinstance(fixations, int) else fixations
    at = check_fixations(x, at).expand(len(x), -1, -1).float()  # (B, U, 2)
    first = torch.zeros(2) if start is None else start
    if not isinstance(first, Tensor) or first.shape not in ((2,), (len(x), 2)):
        raise ValueError(f"start must be (2,) or ({len(x)}, 2), got {getattr(first, 'shape', first)}")
    first = first.float().cpu().expand(len(x), 2)[:, None]  # (B, 1, 2)
    glance = label_map(what, x, first, view, batch_size)[:, 0]  # (B, K)
    if policy == "expected" and accuracy is None and where is not None:
        with preserved(where), torch.no_grad():
            accuracy = where(x, at)
    views = label_map(what, x, at, view, batch_size) if rule.needs_all_views else None

    def seen(places: Tensor) -> Tensor:
        if views is not None:
            return views[torch.arange(len(x)), places.to(views.device)]
        there = at[torch.arange(len(x)), places][:, None]
        return label_map(what, x, there, view, batch_size)[:, 0]

    trace = _followed(policy, glance, seen, first, at, saccades, views, target, accuracy, prior, inhibit, seed)
    return trace._replace(forwards=1 + (at.shape[1] if rule.needs_all_views else saccades))


def search_precomputed(
    policy: str,
    glance: Tensor,
    labels: Tensor,
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
        labels: those of all candidates, (B, U, K).
        fixations: the candidates, (U, 2) or (B, U, 2).
        saccades: as in `search`, like the arguments that follow.
        target: an int or (B,).
        accuracy: (U,) or (B, U).
        prior: (K,).
        inhibit: as in `search`.
        seed: as in `search`.

    Returns:
        `Trace`, its `forwards` those that the policy would have needed.

    Raises:
        ValueError: as `search`.
    """
    rule = _rule(policy)
    if labels.ndim != 3 or glance.shape != (len(labels), labels.shape[2]):
        got = f"{tuple(glance.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"glance must be (B, K) and labels (B, U, K), got {got}")
    at = check_fixations(labels, fixations).expand(len(labels), -1, -1).float()
    if at.shape[1] != labels.shape[1]:
        raise ValueError(f"fixations must be {labels.shape[1]}, one a candidate, got {at.shape[1]}")

    def seen(places: Tensor) -> Tensor:
        return labels[torch.arange(len(labels)), places.to(labels.device)]

    first = torch.zeros(len(labels), 1, 2)
    views = labels if rule.needs_all_views else None
    trace = _followed(policy, glance, seen, first, at, saccades, views, target, accuracy, prior, inhibit, seed)
    return trace._replace(forwards=1 + (at.shape[1] if rule.needs_all_views else saccades))


def _rule(policy: str) -> Policy:
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
    return POLICIES[policy]


def _followed(
    policy: str,
    glance: Tensor,
    seen: Callable[[Tensor], Tensor],
    first: Tensor,
    at: Tensor,
    saccades: int,
    views: Tensor | None,
    target: Target | None,
    accuracy: Tensor | None,
    prior: Tensor | None,
    inhibit: bool,
    seed: int,
) -> Trace:
    """The saccades of all images, one after the other."""
    rule, count = POLICIES[policy], at.shape[1]
    if isinstance(saccades, bool) or not isinstance(saccades, int) or not 0 <= saccades <= count:
        raise ValueError(f"saccades must be an integer in 0 .. {count}, the candidates, got {saccades!r}")
    if rule.needs_target and target is None:
        raise ValueError(f"target must be given for the policy {policy!r}")
    wanted = None
    if target is not None:
        labels, several = check_target(target, len(at), glance.shape[1])
        if several:
            raise ValueError(f"target must be an int or ({len(at)},), got {tuple(labels.shape)}")
        wanted = labels[:, 0].to(glance.device)
    if policy == "expected":
        if accuracy is None:
            raise ValueError("accuracy must be given for the policy 'expected', or a second network")
        if not isinstance(accuracy, Tensor) or accuracy.shape not in ((count,), (len(at), count)):
            got = getattr(accuracy, "shape", accuracy)
            raise ValueError(f"accuracy must be ({count},) or ({len(at)}, {count}), got {got}")
        accuracy = accuracy.expand(len(at), count)
    now = SearchState(glance, at, views, wanted, accuracy, prior, torch.Generator().manual_seed(seed))
    # A candidate at the first glance's own place, up to rounding, has been looked at.
    done = (at - first).abs().amax(-1) < 1e-6 if inhibit else torch.zeros(at.shape[:2], dtype=torch.bool)
    if inhibit and saccades > int((~done).sum(1).min()):
        raise ValueError(f"saccades must be at most {int((~done).sum(1).min())}, the places not yet seen")
    found, beliefs, places, scores = [glance], [glance], [], []
    for _ in range(saccades):
        score = rule.score(now)
        score = score.clamp(min=torch.finfo(score.dtype).min).masked_fill(done.to(glance.device), float("-inf"))
        place = score.argmax(1).cpu()
        done = done.scatter(1, place[:, None], inhibit) if inhibit else done
        found.append(seen(place))
        beliefs.append(fuse(beliefs[-1], found[-1], prior))
        places.append(place)
        scores.append(score)
        now = SearchState(beliefs[-1], at, views, wanted, accuracy, prior, now.draw)
    chosen = torch.stack(places, 1) if places else torch.zeros(len(at), 0, dtype=torch.int64)
    path = torch.cat([first, at.gather(1, chosen[..., None].expand(-1, -1, 2))], dim=1)
    ranked = torch.stack(scores, 1) if scores else glance.new_zeros(len(at), 0, count)
    return Trace(path, chosen, torch.stack(found, 1), torch.stack(beliefs, 1), ranked, 0)
