"""How well maps fit known objects: LICNN beside other methods, and beside baselines that know no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from helpers._validate import check_images, check_integers, check_tensor
from helpers.capture import in_batches
from helpers.compare._methods import MapMethod, attribution_methods, image_map
from helpers.licnn import VARIANTS, attention_map, saliency_map
from helpers.metrics import blurred_map, center_map, edge_map, mass_in_mask, pixel_auc, pointing_game

BATCH = 50  # images a pass
MEASURES = {"auc": pixel_auc, "mass": mass_in_mask, "pointing": pointing_game}
BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "centre": center_map,
    "blurred image": blurred_map,
    "edges": edge_map,
}


def compare_attention(
    model: nn.Module, x: Tensor, labels: Tensor, masks: Tensor, *, layer: str, batch_size: int = BATCH
) -> dict[str, dict[str, Tensor]]:
    """How well the maps of every variant of LICNN, of other methods and of three baselines fit known objects.

    Args:
        model: network; it is left as it was found.
        x: images, (N, C, H, W), normalised as the network expects.
        labels: (N,), the classes the maps are for.
        masks: (N, H, W) bool, the objects.
        layer: name of the last feature maps, for Grad-CAM.
        batch_size: images a pass.

    Returns:
        name -> measure -> (N,): the names of `helpers.licnn.VARIANTS` first, then "saliency map, top 5", "|gradient|",
        "Grad-CAM", "centre", "blurred image" and "edges"; the measures of `measure_maps`.

    Raises:
        ValueError: bad `x`, `labels` or `masks`, an unknown layer, or a network that LICNN cannot explain.
    """
    labels = check_integers(labels, "labels", f"{len(check_images(x))}")
    methods: dict[str, MapMethod] = {name: partial(attention_map, **options) for name, options in VARIANTS.items()}
    methods["saliency map, top 5"] = lambda model, x, target: saliency_map(model, x)
    every = attribution_methods(layer=layer)
    methods |= {name: every[name] for name in ("|gradient|", "Grad-CAM")}
    methods |= {name: image_map(baseline) for name, baseline in BASELINES.items()}
    return {
        name: measure_maps(in_batches(method, model, x, labels, batch_size=batch_size), masks)
        for name, method in methods.items()
    }


def measure_maps(maps: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Three measures of maps against objects.

    Args:
        maps: (N, H, W).
        masks: (N, H, W) bool, the objects.

    Returns:
        measure -> (N,), 0 to 1: "auc" (`pixel_auc`), "mass" (`mass_in_mask`), "pointing" (`pointing_game`).

    Raises:
        ValueError: as those measures.
    """
    return {name: measure(maps, masks) for name, measure in MEASURES.items()}


def two_object_test(
    model: nn.Module, x: Tensor, labels: Tensor, masks: Tensor, method: MapMethod, *, batch_size: int = BATCH
) -> Tensor:
    """The two-object test: does the map of a class lie on its own object rather than on the other one?

    Args:
        model: network; it is left as it was found.
        x: images, (N, C, H, W), normalised as the network expects, with two objects each.
        labels: (N, 2), of different classes.
        masks: (N, 2, H, W) bool, the objects.
        method: called as `method(model, x, target)` with a (B,) target; its maps are (B, H, W).
        batch_size: images a pass.

    Returns:
        (N, 2), 1 where a map has the larger mean on its own object, 0 where on the other, 0.5 for a tie; NaN where an
        object has no pixel.

    Raises:
        ValueError: bad `x`, or whatever the method refuses.
    """
    labels = check_integers(labels, "labels", f"{len(check_images(x))} 2")
    check_tensor(masks, "masks", f"{len(x)} 2 {x.shape[2]} {x.shape[3]}", kind="bool")
    maps = torch.stack([in_batches(method, model, x, labels[:, k], batch_size=batch_size) for k in range(2)], 1)
    area = masks.sum((-2, -1)).to(maps)
    means = (maps[:, :, None] * masks[:, None]).sum((-2, -1)) / area[:, None]  # (N, map, object)
    own, other = means.diagonal(dim1=1, dim2=2), means.flip(2).diagonal(dim1=1, dim2=2)
    wins = (own > other).to(means) + 0.5 * (own == other).to(means)
    return torch.where(own.isnan() | other.isnan(), torch.nan, wins)
