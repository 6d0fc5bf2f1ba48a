"""Maps of a pair's networks on whole images, and how well any maps find the objects."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.cam import IOU, grad_cam, largest_component_box, upsample
from helpers.capture import activations, in_batches, layer_names
from helpers.experiments.matched_pairs import GRID, Searched
from helpers.experiments.report import best_on_even, box_overlaps, summary
from helpers.factors import deep_feature_factorization
from helpers.metrics import best_inside, box_mask, in_out_ratio, mass_in_mask, pointing_game
from helpers.retina import R_MIN, inverse_log_polar, log_polar
from helpers.search import fixation_grid, fixations_inside

PARTS = 4  # of the factorisation
# Of boxes, in shares of a map's maximum.
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BATCH = 100  # images a pass


def cam_from(model: nn.Module, x: Tensor, truth: Tensor, fixations: Tensor, reach: float) -> Tensor:
    """Grad-CAM of a log-polar network from one fixation an image, brought back onto the image.

    Args:
        model: the network.
        x: images, (N, 3, S, S).
        truth: the classes whose maps are wanted, (N,).
        fixations: (N, 2) in [-1, 1].
        reach: radius of what one fixation shows, in half sides of the image.

    Returns:
        (N, S, S), 0 where the retina does not reach.
    """
    layer, shape = layer_names(model, nn.ReLU)[-1], (x.shape[-2], x.shape[-1])
    r_min = R_MIN * reach

    def computed(network: nn.Module, x: Tensor, truth: Tensor, fixations: Tensor) -> Tensor:
        # One fixation an image: (B, 1, 2) -> views (B, 1, 3, h, w), and maps (B, 1, 1, h, w) back -> (B, 1, 1, S, S).
        seen = log_polar(x, fixations[:, None], r_min=r_min, r_max=reach)[:, 0]
        maps = upsample(grad_cam(network, seen, truth, layer=layer), (seen.shape[-2], seen.shape[-1]))
        return inverse_log_polar(maps[:, None, None], shape, fixations[:, None], r_min=r_min, r_max=reach)[:, 0, 0]

    return in_batches(computed, model, x, truth.to(x.device), fixations.to(x.device), batch_size=BATCH)


def deep_maps(model: nn.Module, x: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Grad-CAM and factors of one network on whole images.

    A network for discs is shown the whole image, whatever its size, without a disc; one for log-polar views sees it
    from its centre, and its maps are brought back.

    Args:
        model: the network.
        x: images, (N, 3, S, S).
        truth: the classes, (N,).

    Returns:
        (N, S, S) each, at least 0: "Grad-CAM"; "largest factor", the part of the last feature maps' non-negative
        factorisation that is strongest; "factor of the class", the part that lies where the class's signed evidence
        does.
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


def counted_summary(values: Tensor) -> dict[str, float]:
    """`summary` of (N,) numbers, with "n", of how many: those that are not NaN."""
    return summary(values) | {"n": int((~values.isnan()).sum())}


def box_scores(maps: Tensor, boxes: Tensor) -> dict[str, Any]:
    """How well boxes around maps fit, at the threshold that the images at even positions choose, on those at odd ones.

    The threshold with the greatest mean overlap is chosen. That with the most boxes that are right, which chapter 3's
    run takes as ILSVRC counts (`helpers.experiments.localization`), would hang on a handful of images here: around the
    disc networks' label maps of scenes fewer than one box in forty is right.

    Args:
        maps: (N, S, S).
        boxes: the true ones, (N, 4).

    Returns:
        "threshold", a share of the map's maximum; the mean overlap, "iou", and the share of objects "found", with error
        and n.
    """
    overlaps = box_overlaps([largest_component_box(maps, threshold) for threshold in THRESHOLDS], boxes)
    best = best_on_even(overlaps)
    odd = overlaps[best, 1::2]
    return {
        "threshold": THRESHOLDS[best],
        "iou": counted_summary(odd),
        "found": counted_summary((odd >= IOU).double()),
    }


def localised(maps: dict[str, Tensor], images: Searched) -> dict[str, Any]:
    """How well maps find the objects.

    Args:
        maps: name -> (N, S, S), at least 0.
        images: N of them, S pixels a side.

    Returns:
        Name -> each of these with n, the number of images behind it: "pointing game", "mass in the box" and "best
        fixation inside", of the images whose box is not all of them; "in/out ratio", of those with fixations both
        inside and outside; and what `box_scores` gives.

    Raises:
        ValueError: a map below 0.
    """
    shape = (images.x.shape[-2], images.x.shape[-1])
    masks = box_mask(images.boxes, shape)
    missable = ~masks.flatten(1).all(1)  # a box of the whole image cannot be missed
    grid = fixation_grid(GRID)
    inside = fixations_inside(images.boxes, grid, shape)  # (N, 7, 7)
    has_both = inside.flatten(1).any(1) & ~inside.flatten(1).all(1)
    results: dict[str, Any] = {}
    for name, values in tqdm(maps.items(), desc="maps", leave=False):
        values = values.cpu().float()
        looks = F.grid_sample(values[:, None], grid.expand(len(values), -1, -1, -1), align_corners=False)[:, 0]
        results[name] = {
            "pointing game": counted_summary(pointing_game(values, masks)[missable]),
            "mass in the box": counted_summary(mass_in_mask(values, masks)[missable]),
            "best fixation inside": counted_summary(best_inside(looks, inside)[missable]),
            "in/out ratio": {"mean": in_out_ratio(looks, inside).item(), "n": int(has_both.sum())},
            # Every second of the images that remain chooses the threshold.
            **box_scores(values[missable], images.boxes[missable]),
        }
    return results
