"""Where to look, and what it is worth: `python -m helpers.experiments.search`.

Label maps of 7 x 7 fixations of 2,000 scenes and of Tiny ImageNet's validation images (40 classes), by the matched
pairs of networks: every policy on the same maps, the label-driven search with its references, and how well the maps
find the object beside Grad-CAM, feature factorisation and baselines.

The record's tables: "glance", how often and how surely a network is right without a search; "policies", by calibration
(`variant`), policy (`method`) and number of saccades (`step`); "grid", all fixations together; "calibration"; "tried",
by number of fixations to choose from (`step`); "maps" and "baselines", how well maps find the object.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helpers.cam import IOU
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
from helpers.experiments.search.calibration import BINS, TEMPERATURES
from helpers.experiments.search.maps import PARTS, THRESHOLDS, cam_from, deep_maps, localised
from helpers.experiments.search.policies import SACCADES, policies_by_calibration, right
from helpers.metrics import blurred_map, center_map
from helpers.results import Row, frame, long_table
from helpers.retina import viewer
from helpers.search import confidence_map, fixation_grid, information_gain_bound, label_map, likelihood_map, spread_map

NAME = "search"
TRIED = (1, 2, 4, 9, 16, 25, 49)  # numbers of fixations to choose from


def best_view(log_p: Tensor, score: Tensor) -> Tensor:
    """The answer from the fixation with the greatest score, the first of equals: (N, U, K) and (N, U) -> (N, K)."""
    return log_p[torch.arange(len(log_p)), score.argmax(1)]


def search_among_more(log_p: Tensor, random_log_p: Tensor | None, truth: Tensor) -> dict[str, Any]:
    """Label-driven search among ever more fixations, in random order, and its references.

    Args:
        log_p: log-probabilities from the grid's fixations, (N, U, K).
        random_log_p: from as many random places, (N, U, K), or None.
        truth: the true labels, (N,).

    Returns:
        A list over `TRIED` each, of mean and error, how often these are right: the view in which the "known label" is
        likeliest; the "most confident" one; "any of them"; with `random_log_p` also "known label, random places". And
        "wrong label found": how often the view in which a label that is not there is likeliest answers with that label.
    """
    draw = torch.Generator().manual_seed(0)
    order = torch.rand(log_p.shape[:2], generator=draw).argsort(1)
    classes = log_p.shape[-1]
    wrong = (truth + torch.randint(1, classes, truth.shape, generator=draw)) % classes
    shuffled = log_p.gather(1, order[..., None].expand_as(log_p))
    results: dict[str, list[Any]] = {}
    for count in TRIED:
        views = shuffled[:, :count]
        hits = {
            "known label": right(best_view(views, likelihood_map(views, truth)), truth),
            "most confident": right(best_view(views, views.amax(-1)), truth),
            "any of them": right(views, truth).amax(1),
            "wrong label found": right(best_view(views, likelihood_map(views, wrong)), wrong),
        }
        if random_log_p is not None:  # in random order already
            elsewhere = random_log_p[:, :count]
            hits["known label, random places"] = right(best_view(elsewhere, likelihood_map(elsewhere, truth)), truth)
        for name, values in hits.items():
            results.setdefault(name, []).append(summary(values))
    return results


def at_object(model: nn.Module, images: Searched, kind: str) -> Tensor:
    """The answers from the middle of the true box, log-probabilities (N, K) on the CPU."""
    middle = object_middles(images)
    return label_map(model, images.x, middle[:, None], viewer(model, REACH[kind]))[:, 0].cpu()


def random_places(model: nn.Module, images: Searched, kind: str, seed: int) -> Tensor:
    """The answers from random places, as many as the grid has and no farther out, (N, U, K) on the CPU."""
    reach = fixation_grid(GRID).max().item()
    draw = torch.Generator().manual_seed(seed)
    places = (torch.rand(len(images.x), GRID**2, 2, generator=draw) * 2 - 1) * reach
    return label_map(model, images.x, places, viewer(model, REACH[kind])).cpu()


def maps_of(model: nn.Module, images: Searched, kind: str, glance: Tensor, log_p: Tensor) -> dict[str, Tensor]:
    """The maps of one network, as large as the images, (N, S, S) each and at least 0.

    Args:
        model: the network.
        images: N of them, S pixels a side.
        kind: of the images, "scenes" or "photos".
        glance: log-probabilities from the centre, (N, K).
        log_p: those from the grid's fixations, (N, 7, 7, K).

    Returns:
        Those read off the label map: "likelihood" of the true label, "confidence", "bound on the gain"; those of
        `deep_maps`; of a log-polar network also "Grad-CAM from the likeliest fixation".
    """
    truth, shape = images.labels, (images.x.shape[-2], images.x.shape[-1])
    likelihood, bound = likelihood_map(log_p, truth), information_gain_bound(glance, log_p)
    looks = {
        "likelihood": likelihood,
        "confidence": confidence_map(log_p),
        # It may be negative, where masses and thresholds want maps from 0 on.
        "bound on the gain": bound - bound.amin((1, 2), keepdim=True),
    }
    maps = {name: spread_map(values, shape) for name, values in looks.items()} | deep_maps(model, images.x, truth)
    if model.card.view == "log-polar":
        likeliest = fixation_grid(GRID).flatten(0, 1)[likelihood.flatten(1).argmax(1)]
        maps["Grad-CAM from the likeliest fixation"] = cam_from(model, images.x, truth, likeliest, REACH[kind])
    return maps


def measured(model: nn.Module, images: Searched, kind: str, seed: int) -> dict[str, Any]:
    """Everything about one network.

    Args:
        model: the network.
        images: that it is shown.
        kind: of the images, "scenes" or "photos".
        seed: of its training.

    Returns:
        How often it is right at a "glance" from the centre and when it looks "at the object", and its "confidence when
        wrong" and "when right" at the glance; "searches", as `policies_by_calibration`; "tried", as
        `search_among_more`; "maps", as `localised`.
    """
    view = viewer(model, REACH[kind])
    logits = label_map(model, images.x, GRID, view, logits=True).cpu()  # (N, 7, 7, K)
    log_p, truth = logits.log_softmax(-1), images.labels
    centre = torch.zeros(1, 2)
    glance = label_map(model, images.x, centre, view)[:, 0].cpu()
    confidence, hits = glance.amax(1).exp(), right(glance, truth)
    random_log_p = None
    # They cost as much as the whole grid: one training of each scene network is enough for a reference.
    if kind == "scenes" and seed == SEEDS[kind][0]:
        random_log_p = random_places(model, images, kind, seed)
    flat = log_p.flatten(1, 2)  # (N, 49, K)
    return {
        "glance": summary(hits),
        "at the object": summary(right(at_object(model, images, kind), truth)),
        "confidence when wrong": summary(confidence[hits == 0]),
        "confidence when right": summary(confidence[hits == 1]),
        "searches": policies_by_calibration(glance, flat, truth, logits.flatten(1, 2)),
        "tried": search_among_more(flat, random_log_p, truth),
        "maps": localised(maps_of(model, images, kind, glance, log_p), images),
    }


def network_rows(result: dict[str, Any], **what: Any) -> list[Row]:
    """The rows of one network, all tables but "baselines".

    Args:
        result: as `measured` gives it.
        what: columns that are the same in all rows.
    """
    once = ("glance", "at the object", "confidence when wrong", "confidence when right")
    searches = result["searches"]["by calibration"]

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
        *long_table(result["maps"], "method", "metric", table="maps", **what),
    ]


def rows(results: dict[str, Any], baselines: dict[str, Any], kind: str) -> list[Row]:
    """The rows of one world.

    Args:
        results: name -> seed -> as `measured` gives it.
        baselines: as `localised` gives them.
        kind: "scenes" or "photos".
    """
    of_networks = [
        row
        for name, by_seed in results.items()
        for seed, result in by_seed.items()
        for row in network_rows(result, set=kind, network=name, seed=seed)
    ]
    return of_networks + long_table(baselines, "method", "metric", table="baselines", set=kind)


def world_rows(kind: str, images: Searched, settings: dict[str, Any], out: Path, device: torch.device) -> list[Row]:
    """The rows of one world, measured now or by an earlier run in `out`; the arguments are those of `by_network`."""

    def measure(model: nn.Module, seed: int) -> dict[str, Any]:
        return measured(model, images, kind, seed)

    results = by_network(NAME, kind, images, measure, settings, out, device)
    baselines = {"centre": center_map(images.x), "blurred contrast": blurred_map(images.x)}
    return rows(results, localised(baselines, images), kind)


def record(out: Path, device: torch.device) -> Record:
    """The whole record.

    Raises:
        RunError: a run or a file in `out` that is damaged or another one's.
        DataMissing: Tiny ImageNet is not there.
        WeightsError: a shipped network is damaged.
    """
    settings = {
        "grid": GRID, "saccades": SACCADES, "tried": list(TRIED), "temperatures": list(TEMPERATURES),
        "bins": BINS, "parts": PARTS,
        "thresholds": list(THRESHOLDS), "overlap from which on an object is found": IOU, "reach": REACH,
    }  # fmt: skip
    measurements: list[Row] = []
    shown: dict[str, Any] = {"images": {}, "size": {}}
    for kind in PAIRS:
        images = load_images(kind, device)
        shown["images"][kind], shown["size"][kind] = len(images.x), images.x.shape[-1]
        measurements += world_rows(kind, images, settings, out, device)
    return Record(pair_header(NAME, device, settings | shown), frame(measurements).round(6))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "Policies of visual search, label maps and what they find.", record, arguments)
