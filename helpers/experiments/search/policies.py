"""Every policy on the same label maps, and what all fixations say together, under three calibrations.

N images, seen at a glance from the centre and from each of U fixations, by a network that knows K labels; all tensors
lie on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.experiments.matched_pairs import GRID
from helpers.experiments.report import summary
from helpers.experiments.search.calibration import apply_temperature, best_temperature, histogram_binning
from helpers.search import POLICIES, fixation_grid, search_precomputed
from helpers.training import topk_correct

SACCADES = 5
# All but "expected", which must know beforehand how often the network is right from each place:
# `policies_by_calibration` learns it from the other half of the images.
WITHOUT_ACCURACY = tuple(name for name, policy in POLICIES.items() if not policy.needs_accuracy)


def right(log_p: Tensor, labels: Tensor) -> Tensor:
    """Whether the best answer is the label, 1 or 0: (N, ..., K) and (N,) -> (N, ...) float64."""
    return topk_correct(log_p, labels.view(-1, *[1] * (log_p.ndim - 2))).double()


def by_score(glance: Tensor, log_p: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """A search by a score that stays the same, done by hand: from the best place to the next best, none twice.

    `search_precomputed` does so for policies, and the greatest logit is none: a policy is told probabilities alone.

    Args:
        glance: log-probabilities from the centre, (N, K).
        log_p: those from all fixations, (N, U, K), the centre's in the middle.
        score: of the fixations, (N, U).

    Returns:
        Log-probabilities of each view alone, the glance first, and of all views so far, fused: (N, 1 + SACCADES, K)
        each.
    """
    centre = torch.tensor([log_p.shape[1] // 2])  # seen by the glance
    ranked = score.index_fill(1, centre, float("-inf"))
    # Stable: of places with equal scores the first, which the policies take too.
    best = ranked.argsort(dim=1, descending=True, stable=True)[:, :SACCADES]
    looks = log_p.gather(1, best[..., None].expand(-1, -1, log_p.shape[-1]))
    views = torch.cat([glance[:, None], looks], 1)
    return views, views.cumsum(1).log_softmax(-1)  # fused under an even prior


def policies(glance: Tensor, log_p: Tensor, truth: Tensor, logits: Tensor, accuracy: Tensor) -> dict[str, Any]:
    """How often every policy is right, after 0 to 5 saccades.

    Args:
        glance: log-probabilities from the centre, (N, K).
        log_p: those from all fixations, (N, U, K), U those of the grid.
        truth: the true labels, (N,).
        logits: from all fixations, before the softmax, (N, U, K): "max_logit" goes where one is greatest.
        accuracy: how often the network was right from each place on other images, (N, U), for "expected".

    Returns:
        Policy -> a list over the number of saccades each, of mean and error: "alone", by the last view; "fused", by all
        views so far; "fused, more than random", image by image; and "forward passes", a number. Then "fused" of
        "information_gain_bound, returns allowed", and "stays", the share of its saccades that go where the one before
        them went.
    """
    fixations = fixation_grid(GRID).flatten(0, 1)
    traces = {
        name: search_precomputed(name, glance, log_p, fixations, SACCADES, target=truth) for name in WITHOUT_ACCURACY
    }
    traces["expected"] = search_precomputed("expected", glance, log_p, fixations, SACCADES, accuracy=accuracy)
    searches = {name: (trace.log_p, trace.beliefs, trace.forward_passes) for name, trace in traces.items()}
    searches["max_logit"] = (*by_score(glance, log_p, logits.amax(-1)), 1 + len(fixations))
    by_chance = right(traces["random"].beliefs, truth)
    results: dict[str, Any] = {}
    for name, (views, beliefs, forwards) in searches.items():
        alone, fused = right(views, truth), right(beliefs, truth)  # (N, 1 + SACCADES)
        results[name] = {
            "alone": [summary(hits) for hits in alone.T],
            "fused": [summary(hits) for hits in fused.T],
            "fused, more than random": [summary(more) for more in (fused - by_chance).T],
            "forward passes": forwards,
        }
    free = search_precomputed("information_gain_bound", glance, log_p, fixations, SACCADES, inhibit=False)
    results["information_gain_bound, returns allowed"] = {
        "fused": [summary(hits) for hits in right(free.beliefs, truth).T],
        "stays": summary((free.choices[:, 1:] == free.choices[:, :-1]).double().mean(1)),
    }
    return results


def policies_by_calibration(glance: Tensor, log_p: Tensor, truth: Tensor, logits: Tensor) -> dict[str, Any]:
    """The policies with probabilities as they are, and calibrated in two ways, each half of the images by the other.

    How often the network is right from each place, for the policy "expected", is learned from the other half too.

    Args:
        glance: log-probabilities from the centre, (N, K).
        log_p: those from all fixations, (N, U, K), U those of the grid.
        truth: the true labels, (N,).
        logits: from all fixations, before the softmax, (N, U, K).

    Returns:
        "temperatures", those of the images at even and at odd positions; and "by calibration", for each of "as they
        are", "by temperature" and "by confidence" (histogram binning): "policies", as `policies` gives them; "whole
        grid", as `whole_grid`; "claimed more than right", by how much the confidence exceeds the share of right
        answers.
    """
    even, odd = slice(0, None, 2), slice(1, None, 2)
    uncalibrated = torch.cat([glance[:, None], log_p], 1)  # (N, 1 + U, K)
    answers = {name: uncalibrated.clone() for name in ("as they are", "by temperature", "by confidence")}
    accuracy, temperatures = log_p.new_empty(log_p.shape[:2]), []
    for half, other in ((even, odd), (odd, even)):
        temperatures.append(best_temperature(log_p[other], truth[other]))
        answers["by temperature"][half] = apply_temperature(uncalibrated[half], temperatures[-1])
        answers["by confidence"][half] = histogram_binning(log_p[other], truth[other])(uncalibrated[half])
        accuracy[half] = right(log_p[other], truth[other]).mean(0).to(log_p)
    results: dict[str, Any] = {}
    for name, calibrated in answers.items():
        first, views = calibrated[:, 0], calibrated[:, 1:]
        results[name] = {
            "policies": policies(first, views, truth, logits, accuracy),
            "whole grid": whole_grid(views, truth),
            "claimed more than right": summary((views.amax(-1).exp() - right(views, truth)).mean(1)),
        }
    return {"temperatures": temperatures, "by calibration": results}


def whole_grid(log_p: Tensor, truth: Tensor) -> dict[str, Any]:
    """How often all fixations together are right, no label known.

    Args:
        log_p: log-probabilities from all fixations, (N, U, K).
        truth: the true labels, (N,).

    Returns:
        Mean and error by what is counted: "votes", of labels with as many the first; "mean probability"; "summed
        evidence", the sum of log-probabilities.
    """
    votes = F.one_hot(log_p.argmax(-1), log_p.shape[-1]).double().sum(1)
    ways = {"votes": votes, "mean probability": log_p.exp().mean(1), "summed evidence": log_p.sum(1)}
    return {name: summary(right(scores, truth)) for name, scores in ways.items()}
