"""Where to look, and what it is worth: `python -m helpers.experiments.search`.

Label maps of 7 x 7 fixations of 2,000 scenes and of Tiny ImageNet's validation images (40 classes), by the matched
pairs of networks: every policy on the same maps, the label-driven search with its references, and how well the maps
find the object beside Grad-CAM, feature factorisation and baselines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.experiments.matched_pairs import GRID, PAIRS, REACH, SEEDS, Searched, by_network, images, origin
from helpers.experiments.report import rounded, run_record, summary
from helpers.experiments.search.calibration import (
    BINS,
    TEMPERATURES,
    apply_temperature,
    best_temperature,
    histogram_binning,
)
from helpers.experiments.search.maps import FOUND_IOU, PARTS, THRESHOLDS, cam_from, deep_maps, localised
from helpers.metrics import blurred_map, center_map
from helpers.retina import viewer
from helpers.search import (
    POLICIES,
    confidence_map,
    fixation_grid,
    information_gain_bound,
    label_map,
    likelihood_map,
    search_precomputed,
    spread_map,
)

NAME = "search"
SACCADES = 5
TRIED = (1, 2, 4, 9, 16, 25, 49)
# The policies that can be followed with a label map alone; "expected" needs a second network.
FOLLOWED = tuple(name for name in POLICIES if name != "expected")


def right(log_p: Tensor, labels: Tensor) -> Tensor:
    """Whether the best answer is the label: (N, ..., K) and (N,) -> (N, ...) as numbers."""
    return (log_p.argmax(-1).cpu() == labels.view(-1, *[1] * (log_p.ndim - 2))).double()


def by_score(glance: Tensor, labels: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """The views of a search that goes from the best place to the next, none twice, and the beliefs: (N, S + 1, K) each.

    Args:
        glance: log-probabilities from the centre, (N, K).
        labels: those from all fixations, (N, U, K), the centre's in the middle.
        score: of the places, (N, U).
    """
    centre = torch.tensor([labels.shape[1] // 2])  # seen by the glance
    best = score.index_fill(1, centre, float("-inf")).argsort(1, descending=True)[:, :SACCADES]
    seen = labels.gather(1, best[..., None].expand(-1, -1, labels.shape[-1]))
    views = torch.cat([glance[:, None], seen], 1)
    return views, views.cumsum(1).log_softmax(-1)  # fused under an even prior


def policies(
    glance: Tensor, labels: Tensor, truth: Tensor, logits: Tensor | None = None, accuracy: Tensor | None = None
) -> dict[str, Any]:
    """Accuracy after 0 to 5 saccades of every policy: of the last view alone, and of all views fused.

    Args:
        glance: log-probabilities from the centre, (N, K).
        labels: those from all fixations, (N, U, K).
        truth: (N,).
        logits: from all fixations, before the softmax, (N, U, K); the policy "max_logit" goes where one is greatest.
        accuracy: how often the network was right from each place on other images, (N, U), for the policy "expected".
    """
    at = fixation_grid(GRID).flatten(0, 1)
    traces = {name: search_precomputed(name, glance, labels, at, SACCADES, target=truth) for name in FOLLOWED}
    if accuracy is not None:
        traces["expected"] = search_precomputed("expected", glance, labels, at, SACCADES, accuracy=accuracy)
    looks = {name: (trace.views, trace.beliefs, trace.forwards) for name, trace in traces.items()}
    if logits is not None:
        looks["max_logit"] = (*by_score(glance, labels, logits.amax(-1)), 1 + len(at))
    by_chance = right(traces["random"].beliefs, truth)
    rows = {}
    for name, (views, beliefs, forwards) in looks.items():
        alone, fused = right(views, truth), right(beliefs, truth)
        rows[name] = {
            "alone": [summary(one) for one in alone.T],
            "fused": [summary(one) for one in fused.T],
            "fused, more than random": [summary(one) for one in (fused - by_chance).T],
            "views": forwards,
        }
    again = search_precomputed("information_gain_bound", glance, labels, at, SACCADES, inhibit=False)
    rows["information_gain_bound, returns allowed"] = {
        "fused": [summary(one) for one in right(again.beliefs, truth).T],
        "returns": summary((again.places[:, 1:] == again.places[:, :-1]).double().mean(1)),
    }
    return rows


def calibrated(glance: Tensor, labels: Tensor, truth: Tensor, logits: Tensor) -> dict[str, Any]:
    """The policies with probabilities as they are, and calibrated in two ways, each half of the images on the other.

    How often the network is right from each place, for the policy "expected", is learned from the other half too.

    Args:
        glance: log-probabilities from the centre, (N, K).
        labels: those from all fixations, (N, U, K).
        truth: (N,).
        logits: from all fixations, before the softmax, (N, U, K).
    """
    halves = slice(0, None, 2), slice(1, None, 2)
    both = torch.cat([glance[:, None], labels], 1)  # (N, 1 + U, K)
    seen = {name: both.clone() for name in ("as they are", "by temperature", "by confidence")}
    accuracy, temperatures = labels.new_empty(labels.shape[:2]), []
    for here, there in (halves, halves[::-1]):
        temperatures.append(best_temperature(labels[there], truth[there]))
        seen["by temperature"][here] = apply_temperature(both[here], temperatures[-1])
        seen["by confidence"][here] = histogram_binning(labels[there], truth[there])(both[here])
        accuracy[here] = right(labels[there], truth[there]).mean(0).to(labels)
    rows: dict[str, Any] = {"temperatures": temperatures}
    for name, one in seen.items():
        views = one[:, 1:]
        rows[name] = {
            "policies": policies(one[:, 0], views, truth, logits, accuracy),
            "whole grid": whole(views, truth),
            "claimed more than right": summary((views.amax(-1).exp() - right(views, truth)).mean(1)),
        }
    return rows


def whole(labels: Tensor, truth: Tensor) -> dict[str, Any]:
    """What all fixations (N, U, K) together say, no label told: votes, mean probability, summed evidence."""
    votes = F.one_hot(labels.argmax(-1), labels.shape[-1]).double().sum(1)
    ways = {"votes": votes, "mean probability": labels.exp().mean(1), "summed evidence": labels.sum(1)}
    return {name: summary(right(one, truth)) for name, one in ways.items()}


def chosen(labels: Tensor, score: Tensor) -> Tensor:
    """The views with the greatest score: (N, U, K) and (N, U) -> (N, K)."""
    return labels[torch.arange(len(labels)), score.argmax(1).to(labels.device)]


def tried(labels: Tensor, others: Tensor | None, truth: Tensor) -> dict[str, Any]:
    """Label-driven search among ever more fixations, in random order, and its references.

    "wrong label found" is how often the view chosen for a label that is not there answers with that label.

    Args:
        labels: log-probabilities from the grid's fixations, (N, U, K).
        others: from as many random places, (N, U, K), or None.
        truth: (N,).
    """
    draw = torch.Generator().manual_seed(0)
    order = torch.rand(labels.shape[:2], generator=draw).argsort(1)
    count = labels.shape[-1]
    wrong = (truth + torch.randint(1, count, truth.shape, generator=draw)) % count
    mixed = labels.gather(1, order[..., None].expand_as(labels).to(labels.device))

    def at(log_p: Tensor, which: Tensor) -> Tensor:
        return likelihood_map(log_p, which)

    rows: dict[str, list[Any]] = {}
    for number in TRIED:
        some = mixed[:, :number]
        found = {
            "known label": right(chosen(some, at(some, truth)), truth),
            "most confident": right(chosen(some, some.amax(-1)), truth),
            "any of them": right(some, truth).amax(1),
            "wrong label found": right(chosen(some, at(some, wrong)), wrong),
        }
        if others is not None:
            crops = others[:, :number]
            found["known label, random places"] = right(chosen(crops, at(crops, truth)), truth)
        for name, values in found.items():
            rows.setdefault(name, []).append(summary(values))
    return rows


def looked_at(model: nn.Module, found: Searched, kind: str) -> Tensor:
    """The answers from the middle of the true box, (N, K)."""
    middle = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2).round() * 2 / found.x.shape[-1] - 1
    return label_map(model, found.x, middle[:, None], viewer(model, REACH[kind]))[:, 0].cpu()


def measured(model: nn.Module, found: Searched, kind: str, seed: int) -> dict[str, Any]:
    """Everything about one network."""
    view, shape = viewer(model, REACH[kind]), tuple(found.x.shape[-2:])
    logits = label_map(model, found.x, GRID, view, logits=True).cpu()  # (N, 7, 7, K)
    labels = logits.log_softmax(-1)
    glance = label_map(model, found.x, torch.zeros(1, 2), view)[:, 0].cpu()
    flat, raw, truth = labels.flatten(1, 2), logits.flatten(1, 2), found.labels
    crops = None
    if kind == "scenes" and seed == SEEDS[kind][0]:  # as dear as the grid: for the first network of each kind
        reach = fixation_grid(GRID).max().item()
        places = (torch.rand(len(truth), GRID**2, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * reach
        crops = label_map(model, found.x, places, view).cpu()
    bound = information_gain_bound(glance, labels)
    maps = {
        "likelihood": likelihood_map(labels, truth),
        "confidence": confidence_map(labels),
        "bound on the gain": bound - bound.amin((1, 2), keepdim=True),
    }
    likeliest = fixation_grid(GRID).flatten(0, 1)[maps["likelihood"].flatten(1).argmax(1)]
    maps = {name: spread_map(one, shape) for name, one in maps.items()} | deep_maps(model, found.x, truth)
    if model.card.view == "log-polar":
        maps["Grad-CAM from the likeliest fixation"] = cam_from(model, found.x, truth, likeliest, REACH[kind])
    looked = looked_at(model, found, kind)
    return {
        "glance": summary(right(glance, truth)),
        "at the object": summary(right(looked, truth)),
        "confidence when wrong": summary(glance.amax(1).exp()[right(glance, truth) == 0]),
        "confidence when right": summary(glance.amax(1).exp()[right(glance, truth) == 1]),
        "searches": calibrated(glance, flat, truth, raw),
        "tried": tried(flat, crops, truth),
        "maps": localised(maps, found),
    }


def record(out: Path, device: torch.device) -> dict[str, Any]:
    """The whole record."""
    rows: dict[str, Any] = {}
    settings = {
        "grid": GRID, "saccades": SACCADES, "tried": list(TRIED), "temperatures": list(TEMPERATURES),
        "drawers": BINS, "parts": PARTS,
        "thresholds": list(THRESHOLDS), "found": FOUND_IOU, "reach": REACH,
    }  # fmt: skip
    for kind in PAIRS:
        found = images(kind, device)
        shape = tuple(found.x.shape[-2:])
        base = {"centre": center_map(found.x), "blurred contrast": blurred_map(found.x)}

        def measure(model: nn.Module, seed: int, found: Searched = found, kind: str = kind) -> dict[str, Any]:
            return measured(model, found, kind, seed)

        networks = by_network(NAME, kind, found, measure, settings, out, device)
        row = {"images": len(found.x), "size": shape[0], "networks": networks}
        rows[kind] = row | {"baselines": localised(base, found)}
    return rounded({
        **origin(NAME, device),
        "grid": GRID,
        "tried": list(TRIED),
        "worlds": rows,
    })  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "Policies of visual search, label maps and what they find.", record, arguments)
