"""Where to look, and what it is worth: `python -m helpers.experiments.search`.

Label maps of 7 x 7 fixations of 2,000 scenes and of Tiny ImageNet's validation images (40 classes), by the matched
pairs of networks: every policy on the same maps, the label-driven search with its references, and how well the maps
find the object beside Grad-CAM, feature factorisation and baselines.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.cam import grad_cam, largest_component_box, upsample
from helpers.capture import activations, in_batches, layer_names
from helpers.experiments.pairs import PAIRS, REACH, SEEDS, Searched, by_network, images, origin
from helpers.experiments.records import rounded, run_record, summary
from helpers.factors import deep_feature_factorization
from helpers.metrics import blurred_map, box_iou, box_mask, center_map, in_out_ratio, mass_in_mask, pointing_game
from helpers.retina import R_MIN, inverse_log_polar, log_polar, viewer
from helpers.search import (
    POLICIES,
    confidence_map,
    fixation_grid,
    fixations_inside,
    follow,
    information_gain_bound,
    label_map,
    likelihood_map,
    spread_map,
)

NAME = "search"
GRID = 7  # fixations a side, as the source
SACCADES = 5
TRIED = (1, 2, 4, 9, 16, 25, 49)
TEMPERATURES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
PARTS = 4  # of the factorisation
THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)  # of boxes, in shares of a map's maximum
FOUND_IOU = 0.5
BATCH = 100
# The policies that can be followed with a label map alone; "expected" needs a second network.
FOLLOWED = tuple(name for name in POLICIES if name != "expected")


def right(log_p: Tensor, labels: Tensor) -> Tensor:
    """Whether the best answer is the label: (N, ..., K) and (N,) -> (N, ...) as numbers."""
    return (log_p.argmax(-1).cpu() == labels.view(-1, *[1] * (log_p.ndim - 2))).double()


def policies(glance: Tensor, labels: Tensor, truth: Tensor) -> dict[str, Any]:
    """Accuracy after 0 to 5 saccades of every policy: of the last view alone, and of all views fused.

    Args:
        glance: log-probabilities from the centre, (N, K).
        labels: those from all fixations, (N, U, K).
        truth: (N,).
    """
    at = fixation_grid(GRID).flatten(0, 1)
    traces = {name: follow(name, glance, labels, at, SACCADES, target=truth) for name in FOLLOWED}
    by_chance = right(traces["random"].beliefs, truth)
    rows = {}
    for name, trace in traces.items():
        alone, fused = right(trace.views, truth), right(trace.beliefs, truth)
        rows[name] = {
            "alone": [summary(one) for one in alone.T],
            "fused": [summary(one) for one in fused.T],
            "fused, more than random": [summary(one) for one in (fused - by_chance).T],
            "views": trace.forwards,
        }
    again = follow("information_gain_bound", glance, labels, at, SACCADES, inhibit=False)
    rows["information_gain_bound, returns allowed"] = {
        "fused": [summary(one) for one in right(again.beliefs, truth).T],
        "returns": summary((again.places[:, 1:] == again.places[:, :-1]).double().mean(1)),
    }
    return rows


def cooled(log_p: Tensor, temperature: float) -> Tensor:
    """Log-probabilities (..., K) of the same answers, less sure of themselves: softened by a temperature above 1."""
    return (log_p / temperature).log_softmax(-1)


def calibrated(glance: Tensor, labels: Tensor, truth: Tensor) -> dict[str, Any]:
    """The policies on the images with odd numbers, once those with even ones have chosen a temperature.

    The one under which the true labels are likeliest, over all fixations (Guo et al., "On calibration of modern neural
    networks", ICML 2017). Arguments as `policies`.
    """

    def likelihood(temperature: float) -> float:
        one = cooled(labels[::2], temperature)
        return one.gather(2, truth[::2, None, None].expand(-1, labels.shape[1], 1)).mean().item()

    best = max(TEMPERATURES, key=likelihood)
    odd = glance[1::2], labels[1::2], truth[1::2]
    return {
        "temperature": best,
        "as they are": policies(*odd),
        "calibrated": policies(cooled(odd[0], best), cooled(odd[1], best), odd[2]),
        "whole grid": whole(cooled(odd[1], best), odd[2]),
    }


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


def deep_maps(model: nn.Module, x: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Grad-CAM and factors of one network on whole images, (N, S, S) each.

    A network for discs is shown the whole image, whatever its size; one for log-polar views sees it from its centre,
    and its maps are brought back.
    """
    layer, shape = layer_names(model, nn.ReLU)[-1], tuple(x.shape[-2:])
    polar = model.card.view == "log-polar"

    def computed(network: nn.Module, x: Tensor, truth: Tensor) -> Tensor:
        seen = log_polar(x)[:, 0] if polar else x
        cam = grad_cam(network, seen, truth, layer)
        parts = deep_feature_factorization(activations(network, seen, layer)[layer], PARTS, together=False)
        signed = grad_cam(network, seen, truth, layer, relu=False)
        own = (parts * signed[:, None]).sum((2, 3)) / parts.square().sum((2, 3)).sqrt().clamp(min=1e-12)
        mine = parts[torch.arange(len(parts)), own.argmax(1)]  # the part that the class's evidence lies on
        maps = torch.stack([cam, parts[:, 0], mine], 1)  # (B, 3, h, w)
        stretched = upsample(maps, tuple(seen.shape[-2:]))
        return inverse_log_polar(stretched[:, None], shape, r_min=R_MIN)[:, 0] if polar else stretched

    maps = in_batches(computed, model, x, truth.to(x.device), size=BATCH)
    return dict(zip(("Grad-CAM", "largest factor", "factor of the class"), maps.unbind(1), strict=True))


def boxed(maps: Tensor, boxes: Tensor) -> dict[str, Any]:
    """How well boxes around maps (N, S, S) fit, at the threshold that the even images choose, on the odd ones."""
    overlaps = [box_iou(largest_component_box(maps, t).to(boxes), boxes).nan_to_num(0) for t in THRESHOLDS]
    best = max(range(len(THRESHOLDS)), key=lambda i: overlaps[i][::2].mean())
    odd = overlaps[best][1::2]
    return {"threshold": THRESHOLDS[best], "iou": summary(odd), "found": summary((odd >= FOUND_IOU).double())}


def localised(maps: dict[str, Tensor], found: Searched) -> dict[str, Any]:
    """Pointing game, mass in the box, box overlap and in/out ratio of maps (N, S, S), all at least 0."""
    shape = tuple(found.x.shape[-2:])
    masks = box_mask(found.boxes, shape)
    partial = ~masks.flatten(1).all(1)  # a box of the whole image cannot be missed
    grid = fixation_grid(GRID)
    inside = fixations_inside(found.boxes, grid, shape)
    rows = {}
    for name, one in tqdm(maps.items(), desc="maps", leave=False):
        one = one.cpu().float()
        at = F.grid_sample(one[:, None], grid.expand(len(one), -1, -1, -1), align_corners=False)[:, 0]
        rows[name] = {
            "pointing game": summary(pointing_game(one, masks)[partial]),
            "mass in the box": summary(mass_in_mask(one, masks)[partial]),
            "in/out ratio": in_out_ratio(at.clamp(min=0), inside).item(),
            **boxed(one[partial], found.boxes[partial]),
        }
    return rows | {"images": int(partial.sum())}


def measured(model: nn.Module, found: Searched, kind: str, seed: int) -> dict[str, Any]:
    """Everything about one network."""
    view, shape = viewer(model, REACH[kind]), tuple(found.x.shape[-2:])
    labels = label_map(model, found.x, GRID, view).cpu()  # (N, 7, 7, K)
    glance = label_map(model, found.x, torch.zeros(1, 2), view)[:, 0].cpu()
    flat, truth = labels.flatten(1, 2), found.labels
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
    maps = {name: spread_map(one, shape) for name, one in maps.items()} | deep_maps(model, found.x, truth)
    looked = looked_at(model, found, kind)
    return {
        "glance": summary(right(glance, truth)),
        "at the object": summary(right(looked, truth)),
        "confidence when wrong": summary(glance.amax(1).exp()[right(glance, truth) == 0]),
        "confidence when right": summary(glance.amax(1).exp()[right(glance, truth) == 1]),
        "policies": policies(glance, flat, truth),
        "calibrated": calibrated(glance, flat, truth),
        "whole grid": whole(flat, truth),
        "tried": tried(flat, crops, truth),
        "maps": localised(maps, found),
    }


def record(out: Path, device: torch.device) -> dict[str, Any]:
    """The whole record."""
    rows: dict[str, Any] = {}
    settings = {
        "grid": GRID, "saccades": SACCADES, "tried": list(TRIED), "temperatures": list(TEMPERATURES), "parts": PARTS,
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


if __name__ == "__main__":
    sys.exit(main())
