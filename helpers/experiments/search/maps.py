"""Maps of a pair's networks on whole images, and how well any maps find the objects."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.cam import grad_cam, largest_component_box, upsample
from helpers.cam._boxes import IOU
from helpers.capture import activations, in_batches, layer_names
from helpers.experiments.matched_pairs import GRID, Searched
from helpers.experiments.report import best_on_even, box_overlaps, summary
from helpers.factors import deep_feature_factorization
from helpers.metrics import best_inside, box_mask, in_out_ratio, mass_in_mask, pointing_game
from helpers.results import Row, long_table
from helpers.retina import R_MIN, inverse_log_polar, log_polar
from helpers.search import fixation_grid, fixations_inside

PARTS = 4  # of the factorisation
# Of boxes, in shares of a map's maximum. Chapter 3's run (`helpers.experiments.localization`) asks the same with other
# thresholds, and chooses by the share of boxes that are right, where `box_scores` chooses by the mean overlap.
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BATCH = 100


def cam_from(model: nn.Module, x: Tensor, truth: Tensor, fixations: Tensor, reach: float) -> Tensor:
    """Grad-CAM of a log-polar network from one fixation an image, (N, 2), brought back onto the image, (N, S, S)."""
    layer, shape = layer_names(model, nn.ReLU)[-1], (x.shape[-2], x.shape[-1])
    r_min = R_MIN * reach

    def computed(network: nn.Module, x: Tensor, truth: Tensor, fixations: Tensor) -> Tensor:
        seen = log_polar(x, fixations[:, None], r_min=r_min, r_max=reach)[:, 0]
        maps = upsample(grad_cam(network, seen, truth, layer=layer), (seen.shape[-2], seen.shape[-1]))
        return inverse_log_polar(maps[:, None, None], shape, fixations[:, None], r_min=r_min, r_max=reach)[:, 0, 0]

    return in_batches(computed, model, x, truth.to(x.device), fixations.to(x.device), batch_size=BATCH)


def deep_maps(model: nn.Module, x: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Grad-CAM and factors of one network on whole images, (N, S, S) each.

    A network for discs is shown the whole image, whatever its size, without a disc; one for log-polar views sees it
    from its centre, and its maps are brought back.

    Returns:
        "Grad-CAM"; "largest factor", the part of the last feature maps' non-negative factorisation that is strongest;
        "factor of the class", the part that lies where the class's signed evidence does.
    """
    layer, shape = layer_names(model, nn.ReLU)[-1], (x.shape[-2], x.shape[-1])
    polar = model.card.view == "log-polar"

    def computed(network: nn.Module, x: Tensor, truth: Tensor) -> Tensor:
        seen = log_polar(x)[:, 0] if polar else x
        cam = grad_cam(network, seen, truth, layer=layer)
        parts = deep_feature_factorization(activations(network, seen, layer)[layer], PARTS, together=False)
        signed = grad_cam(network, seen, truth, layer=layer, relu=False)
        # Parts come sorted by their sums of squares, the largest first.
        # The cosine but for the evidence's length, which all parts share: no part wins by being strong.
        cosine = (parts * signed[:, None]).sum((2, 3)) / parts.square().sum((2, 3)).sqrt().clamp(min=1e-12)
        of_class = parts[torch.arange(len(parts)), cosine.argmax(1)]
        maps = torch.stack([cam, parts[:, 0], of_class], 1)  # (B, 3, h, w)
        stretched = upsample(maps, (seen.shape[-2], seen.shape[-1]))
        return inverse_log_polar(stretched[:, None], shape, r_min=R_MIN)[:, 0] if polar else stretched

    maps = in_batches(computed, model, x, truth.to(x.device), batch_size=BATCH)
    return dict(zip(("Grad-CAM", "largest factor", "factor of the class"), maps.unbind(1), strict=True))


def box_scores(maps: Tensor, boxes: Tensor) -> dict[str, Any]:
    """How well boxes around maps (N, S, S) fit, at the threshold that the even images choose, on the odd ones.

    Even and odd are positions among the images given, which may be a part of a set.
    """
    overlaps = box_overlaps([largest_component_box(maps, threshold) for threshold in THRESHOLDS], boxes)
    best = best_on_even(overlaps)
    odd = overlaps[best, 1::2]
    return {"threshold": THRESHOLDS[best], "iou": summary(odd), "found": summary((odd >= IOU).double())}


def localised(maps: dict[str, Tensor], images: Searched) -> dict[str, Any]:
    """Pointing game, mass in the box, box overlap and in/out ratio of maps (N, S, S), all at least 0."""
    shape = (images.x.shape[-2], images.x.shape[-1])
    masks = box_mask(images.boxes, shape)
    partial = ~masks.flatten(1).all(1)  # a box of the whole image cannot be missed
    grid = fixation_grid(GRID)
    inside = fixations_inside(images.boxes, grid, shape)
    results: dict[str, Any] = {}
    for name, values in tqdm(maps.items(), desc="maps", leave=False):
        values = values.cpu().float()
        looks = F.grid_sample(values[:, None], grid.expand(len(values), -1, -1, -1), align_corners=False)[:, 0]
        results[name] = {
            "pointing game": summary(pointing_game(values, masks)[partial]),
            "mass in the box": summary(mass_in_mask(values, masks)[partial]),
            "best fixation inside": summary(best_inside(looks, inside)[partial]),
            "in/out ratio": in_out_ratio(looks.clamp(min=0), inside).item(),
            # Every second of the images that remain chooses the threshold.
            **box_scores(values[partial], images.boxes[partial]),
        }
    return results | {"images": int(partial.sum())}


def map_rows(results: dict[str, Any], table: str, **what: Any) -> list[Row]:
    """The rows of what `localised` gives."""
    maps = {name: metrics for name, metrics in results.items() if name != "images"}
    return long_table(maps, "method", "metric", table=table, n=results["images"], **what)
