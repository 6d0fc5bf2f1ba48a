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

from helpers.experiments.matched_pairs import (
    GRID,
    PAIRS,
    REACH,
    SEEDS,
    Searched,
    by_network,
    load_images,
    object_middles,
    pair_header,
)
from helpers.experiments.report import Record, run_record, summary
from helpers.experiments.search.calibration import (
    BINS,
    TEMPERATURES,
    apply_temperature,
    best_temperature,
    histogram_binning,
)
from helpers.experiments.search.maps import IOU, PARTS, THRESHOLDS, cam_from, deep_maps, localised, map_rows
from helpers.metrics import blurred_map, center_map
from helpers.results import Row, frame, long_table
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
from helpers.training import topk_correct

NAME = "search"
SACCADES = 5
TRIED = (1, 2, 4, 9, 16, 25, 49)
# The policies that can be followed with a label map alone; "expected" needs to know how often the network is right
# from each place, which `policies_by_calibration` learns from the other half of the images.
FOLLOWED = tuple(name for name in POLICIES if name != "expected")


def right(log_p: Tensor, labels: Tensor) -> Tensor:
    """Whether the best answer is the label: (N, ..., K) and (N,) -> (N, ...) as numbers."""
    return topk_correct(log_p.cpu(), labels.view(-1, *[1] * (log_p.ndim - 2))).double()


def by_score(glance: Tensor, log_p: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """The views of a search that goes from the best place to the next, none twice, and the beliefs: (N, S + 1, K) each.

    Args:
        glance: log-probabilities from the centre, (N, K).
        log_p: those from all fixations, (N, U, K), the centre's in the middle.
        score: of the places, (N, U).
    """
    centre = torch.tensor([log_p.shape[1] // 2])  # seen by the glance
    best = score.index_fill(1, centre, float("-inf")).argsort(1, descending=True)[:, :SACCADES]
    seen = log_p.gather(1, best[..., None].expand(-1, -1, log_p.shape[-1]))
    views = torch.cat([glance[:, None], seen], 1)
    return views, views.cumsum(1).log_softmax(-1)  # fused under an even prior


def policies(
    glance: Tensor, log_p: Tensor, truth: Tensor, logits: Tensor | None = None, accuracy: Tensor | None = None
) -> dict[str, Any]:
    """Accuracy after 0 to 5 saccades of every policy: of the last view alone, and of all views fused.

    Args:
        glance: log-probabilities from the centre, (N, K).
        log_p: those from all fixations, (N, U, K).
        truth: (N,).
        logits: from all fixations, before the softmax, (N, U, K); the policy "max_logit" goes where one is greatest.
        accuracy: how often the network was right from each place on other images, (N, U), for the policy "expected".
    """
    fixations = fixation_grid(GRID).flatten(0, 1)
    traces = {name: search_precomputed(name, glance, log_p, fixations, SACCADES, target=truth) for name in FOLLOWED}
    if accuracy is not None:
        traces["expected"] = search_precomputed("expected", glance, log_p, fixations, SACCADES, accuracy=accuracy)
    searches = {name: (trace.log_p, trace.beliefs, trace.forward_passes) for name, trace in traces.items()}
    if logits is not None:
        searches["max_logit"] = (*by_score(glance, log_p, logits.amax(-1)), 1 + len(fixations))
    by_chance = right(traces["random"].beliefs, truth)
    results: dict[str, Any] = {}
    for name, (views, beliefs, forwards) in searches.items():
        alone, fused = right(views, truth), right(beliefs, truth)
        results[name] = {
            "alone": [summary(hits) for hits in alone.T],
            "fused": [summary(hits) for hits in fused.T],
            "fused, more than random": [summary(more) for more in (fused - by_chance).T],
            "forward passes": forwards,
        }
    again = search_precomputed("information_gain_bound", glance, log_p, fixations, SACCADES, inhibit=False)
    results["information_gain_bound, returns allowed"] = {
        "fused": [summary(hits) for hits in right(again.beliefs, truth).T],
        "returns": summary((again.choices[:, 1:] == again.choices[:, :-1]).double().mean(1)),
    }
    return results


def policies_by_calibration(glance: Tensor, log_p: Tensor, truth: Tensor, logits: Tensor) -> dict[str, Any]:
    """The policies with probabilities as they are, and calibrated by the other half of the images in two ways.

    These are "by temperature", and "by confidence": histogram binning.

    How often the network is right from each place, for the policy "expected", is learned from the other half too.

    Args:
        glance: log-probabilities from the centre, (N, K).
        log_p: those from all fixations, (N, U, K).
        truth: (N,).
        logits: from all fixations, before the softmax, (N, U, K).
    """
    halves = slice(0, None, 2), slice(1, None, 2)
    both = torch.cat([glance[:, None], log_p], 1)  # (N, 1 + U, K)
    seen = {name: both.clone() for name in ("as they are", "by temperature", "by confidence")}
    accuracy, temperatures = log_p.new_empty(log_p.shape[:2]), []
    for here, there in (halves, halves[::-1]):
        temperatures.append(best_temperature(log_p[there], truth[there]))
        seen["by temperature"][here] = apply_temperature(both[here], temperatures[-1])
        seen["by confidence"][here] = histogram_binning(log_p[there], truth[there])(both[here])
        accuracy[here] = right(log_p[there], truth[there]).mean(0).to(log_p)
    results: dict[str, Any] = {"temperatures": temperatures}
    for name, answers in seen.items():
        views = answers[:, 1:]
        results[name] = {
            "policies": policies(answers[:, 0], views, truth, logits, accuracy),
            "whole grid": whole_grid(views, truth),
            "claimed more than right": summary((views.amax(-1).exp() - right(views, truth)).mean(1)),
        }
    return results


def whole_grid(log_p: Tensor, truth: Tensor) -> dict[str, Any]:
    """What all fixations (N, U, K) say together, no label known: votes, mean probability, summed evidence."""
    votes = F.one_hot(log_p.argmax(-1), log_p.shape[-1]).double().sum(1)
    ways = {"votes": votes, "mean probability": log_p.exp().mean(1), "summed evidence": log_p.sum(1)}
    return {name: summary(right(answers, truth)) for name, answers in ways.items()}


def best_view(log_p: Tensor, score: Tensor) -> Tensor:
    """The views with the greatest score: (N, U, K) and (N, U) -> (N, K)."""
    return log_p[torch.arange(len(log_p)), score.argmax(1).to(log_p.device)]


def search_among_more(log_p: Tensor, random_log_p: Tensor | None, truth: Tensor) -> dict[str, Any]:
    """Label-driven search among ever more fixations, in random order, and its references.

    "wrong label found" is how often the view chosen for a label that is not there answers with that label.

    Args:
        log_p: log-probabilities from the grid's fixations, (N, U, K).
        random_log_p: from as many random places, (N, U, K), or None.
        truth: (N,).
    """
    draw = torch.Generator().manual_seed(0)
    order = torch.rand(log_p.shape[:2], generator=draw).argsort(1)
    classes = log_p.shape[-1]
    wrong = (truth + torch.randint(1, classes, truth.shape, generator=draw)) % classes
    mixed = log_p.gather(1, order[..., None].expand_as(log_p).to(log_p.device))
    results: dict[str, list[Any]] = {}
    for count in TRIED:
        views = mixed[:, :count]
        hits = {
            "known label": right(best_view(views, likelihood_map(views, truth)), truth),
            "most confident": right(best_view(views, views.amax(-1)), truth),
            "any of them": right(views, truth).amax(1),
            "wrong label found": right(best_view(views, likelihood_map(views, wrong)), wrong),
        }
        if random_log_p is not None:
            elsewhere = random_log_p[:, :count]
            hits["known label, random places"] = right(best_view(elsewhere, likelihood_map(elsewhere, truth)), truth)
        for name, values in hits.items():
            results.setdefault(name, []).append(summary(values))
    return results


def at_object(model: nn.Module, images: Searched, kind: str) -> Tensor:
    """The answers from the middle of the true box, (N, K)."""
    middle = object_middles(images)
    return label_map(model, images.x, middle[:, None], viewer(model, REACH[kind]))[:, 0].cpu()


def random_places(model: nn.Module, images: Searched, kind: str, seed: int) -> Tensor:
    """The answers from as many random places as the grid has, (N, U, K)."""
    reach = fixation_grid(GRID).max().item()
    draw = torch.Generator().manual_seed(seed)
    places = (torch.rand(len(images.x), GRID**2, 2, generator=draw) * 2 - 1) * reach
    return label_map(model, images.x, places, viewer(model, REACH[kind])).cpu()


def measured(model: nn.Module, images: Searched, kind: str, seed: int) -> dict[str, Any]:
    """Everything about one network."""
    view, shape = viewer(model, REACH[kind]), (images.x.shape[-2], images.x.shape[-1])
    logits = label_map(model, images.x, GRID, view, logits=True).cpu()  # (N, 7, 7, K)
    log_p, truth = logits.log_softmax(-1), images.labels
    glance = label_map(model, images.x, torch.zeros(1, 2), view)[:, 0].cpu()
    random_log_p = None
    if kind == "scenes" and seed == SEEDS[kind][0]:  # as dear as the grid: the first seed of both scene networks
        random_log_p = random_places(model, images, kind, seed)
    bound = information_gain_bound(glance, log_p)
    maps = {
        "likelihood": likelihood_map(log_p, truth),
        "confidence": confidence_map(log_p),
        "bound on the gain": bound - bound.amin((1, 2), keepdim=True),
    }
    likeliest = fixation_grid(GRID).flatten(0, 1)[maps["likelihood"].flatten(1).argmax(1)]
    maps = {name: spread_map(values, shape) for name, values in maps.items()} | deep_maps(model, images.x, truth)
    if model.card.view == "log-polar":
        maps["Grad-CAM from the likeliest fixation"] = cam_from(model, images.x, truth, likeliest, REACH[kind])
    confidence, hits = glance.amax(1).exp(), right(glance, truth)
    flat = log_p.flatten(1, 2)
    return {
        "glance": summary(hits),
        "at the object": summary(right(at_object(model, images, kind), truth)),
        "confidence when wrong": summary(confidence[hits == 0]),
        "confidence when right": summary(confidence[hits == 1]),
        "searches": policies_by_calibration(glance, flat, truth, logits.flatten(1, 2)),
        "tried": search_among_more(flat, random_log_p, truth),
        "maps": localised(maps, images),
    }


def network_rows(result: dict[str, Any], **what: Any) -> list[Row]:
    """The rows of one network, as `measured` gives it.

    The tables: "glance", how often and how surely it is right without a search; "policies", by calibration
    (`variant`), policy (`method`) and number of saccades (`step`); "grid", all fixations together; "calibration";
    "tried", by number of fixations (`step`); "maps".
    """
    once = ("glance", "at the object", "confidence when wrong", "confidence when right")
    searches = {name: parts for name, parts in result["searches"].items() if name != "temperatures"}

    def each(key: str) -> dict[str, Any]:
        return {name: parts[key] for name, parts in searches.items()}

    temperatures = {"by temperature": {"temperature": result["searches"]["temperatures"]}}
    excess = {name: {"claimed more than right": value} for name, value in each("claimed more than right").items()}
    fixations = {way: dict(zip(TRIED, values, strict=True)) for way, values in result["tried"].items()}
    return [
        *long_table({name: result[name] for name in once}, "metric", table="glance", **what),
        *long_table(each("policies"), "variant", "method", "metric", "step", table="policies", **what),
        *long_table(each("whole grid"), "variant", "method", table="grid", metric="accuracy", **what),
        *long_table(temperatures, "variant", "metric", "step", table="calibration", **what),
        *long_table(excess, "variant", "metric", table="calibration", **what),
        *long_table(fixations, "method", "step", table="tried", metric="accuracy", **what),
        *map_rows(result["maps"], "maps", **what),
    ]


def rows(results: dict[str, Any], baselines: dict[str, Any], kind: str) -> list[Row]:
    """The rows of one world: name -> seed -> as `measured` gives it, and baselines as `localised` gives them."""
    networks = [
        row
        for name, by_seed in results.items()
        for seed, result in by_seed.items()
        for row in network_rows(result, set=kind, network=name, seed=seed)
    ]
    return networks + map_rows(baselines, "baselines", set=kind)


def record(out: Path, device: torch.device) -> Record:
    """The whole record."""
    settings = {
        "grid": GRID, "saccades": SACCADES, "tried": list(TRIED), "temperatures": list(TEMPERATURES),
        "bins": BINS, "parts": PARTS,
        "thresholds": list(THRESHOLDS), "found": IOU, "reach": REACH,
    }  # fmt: skip
    measurements: list[Row] = []
    shown: dict[str, Any] = {"images": {}, "size": {}}
    for kind in PAIRS:
        images = load_images(kind, device)
        shown["images"][kind], shown["size"][kind] = len(images.x), images.x.shape[-1]

        # Defaults, so that images and kind are those of now, not of the loop's end.
        def measure(model: nn.Module, seed: int, images: Searched = images, kind: str = kind) -> dict[str, Any]:
            return measured(model, images, kind, seed)

        results = by_network(NAME, kind, images, measure, settings, out, device)
        baselines = {"centre": center_map(images.x), "blurred contrast": blurred_map(images.x)}
        measurements += rows(results, localised(baselines, images), kind)
    return Record(pair_header(NAME, device, settings | shown), frame(measurements).round(6))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "Policies of visual search, label maps and what they find.", record, arguments)
