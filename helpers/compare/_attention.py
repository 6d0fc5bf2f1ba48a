"""LICNN beside other methods and beside baselines that know nothing of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from helpers.cam import class_activation_map, grad_cam, upsample
from helpers.capture import in_batches
from helpers.licnn import (
    attention_map,
    saliency_map,
)
from helpers.licnn.variants import VARIANTS
from helpers.metrics import (
    blurred_map,
    center_map,
    edge_map,
    mass_in_mask,
    pixel_auc,
    pointing_game,
)
from helpers.saliency import (
    class_saliency,
    gradient_times_input,
    guided_backprop,
    input_gradient,
    integrated_gradients,
)

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]
BATCH = 50  # images a pass
STEPS = 10  # of integrated gradients; 50 change the sanity checks' ranks by a hundredth
MEASURES = {"auc": pixel_auc, "mass": mass_in_mask, "pointing": pointing_game}


def enlarged(method: Callable[..., Tensor]) -> Method:
    """A method whose maps (B, h, w) are stretched over the image, (B, H, W)."""
    return lambda model, x, target: upsample(method(model, x, target), tuple(x.shape[-2:]))


def attribution_methods(layer: str) -> dict[str, Method]:
    """The book's methods as the sanity checks take them: maps (B, H, W), signed where the method has signs.

    Args:
        layer: the last feature maps, for Grad-CAM.
    """
    return {
        "gradient": lambda m, x, c: input_gradient(m, x, c).sum(-3),
        "|gradient|": class_saliency,
        "gradient x input": lambda m, x, c: gradient_times_input(m, x, c).sum(-3),
        "integrated gradients": lambda m, x, c: integrated_gradients(m, x, c, steps=STEPS).sum(-3),
        "guided backprop": lambda m, x, c: guided_backprop(m, x, c).sum(-3),
        "Grad-CAM": enlarged(partial(grad_cam, layer=layer)),
        "LICNN": attention_map,
        "nothing inhibited": partial(attention_map, suppress=None),
        "edge detector": lambda m, x, c: edge_map(x),
    }


def compare_attention(
    model: nn.Module, x: Tensor, labels: Tensor, truth: Tensor, layer: str
) -> dict[str, dict[str, Tensor]]:
    """How well the maps of every variant, of other methods and of three baselines fit known objects.

    Args:
        model: the network.
        x: images, (N, C, H, W), normalised.
        labels: (N,), the classes the maps are for.
        truth: (N, H, W) bool, the objects.
        layer: the last feature maps.

    Returns:
        name -> measure -> (N,).
    """
    maps = {name: partial(attention_map, **options) for name, options in VARIANTS.items()}
    maps |= {"saliency map, top 5": lambda m, x, _: saliency_map(m, x)}
    maps |= {name: attribution_methods(layer)[name] for name in ("|gradient|", "Grad-CAM")}
    maps |= {name: lambda _m, x, _c, base=base: base(x) for name, base in BASELINES.items()}
    return {
        name: measure_maps(in_batches(one, model, x, labels, batch_size=BATCH), truth) for name, one in maps.items()
    }


BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "centre": center_map,
    "blurred image": blurred_map,
    "edges": edge_map,
}


def measure_maps(maps: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Three measures of maps (N, H, W) against objects (N, H, W): name -> (N,)."""
    return {name: measure(maps, truth) for name, measure in MEASURES.items()}


def two_object_test(
    model: nn.Module, x: Tensor, labels: Tensor, masks: Tensor, method: Callable[..., Tensor]
) -> Tensor:
    """The two-object test: does the map of a class lie on its own object rather than on the other one?

    Args:
        model: the network.
        x: images, (N, C, H, W), normalised, with two objects each.
        labels: (N, 2), of different classes.
        masks: (N, 2, H, W) bool, the objects.
        method: called as `method(model, x, target)` with a (B,) target; its maps are (B, H, W).

    Returns:
        (N, 2), 1 where a map has the larger mean on its own object, 0 where on the other, 0.5 for a tie; NaN where an
        object has no pixel.
    """
    both = [in_batches(method, model, x, labels[:, k], batch_size=BATCH) for k in range(2)]
    maps = torch.stack(both, 1)  # (N, 2, H, W): of each class
    area = masks.sum((-2, -1)).to(maps)
    means = (maps[:, :, None] * masks[:, None]).sum((-2, -1)) / area[:, None]  # (N, map, object)
    own, other = means.diagonal(dim1=1, dim2=2), means.flip(2).diagonal(dim1=1, dim2=2)
    won = (own > other).to(means) + 0.5 * (own == other).to(means)
    return torch.where(own.isnan() | other.isnan(), torch.nan, won)


def two_object_methods(model: nn.Module, layer: str) -> dict[str, Method]:
    """The methods that stand beside LICNN in the two-object test; CAM where the network averages its last maps."""
    signed = ("gradient x input", "integrated gradients", "Grad-CAM")
    maps = {name: attribution_methods(layer)[name] for name in ("|gradient|", *signed)}
    # Of a gradient and its relatives the size, as in chapter 2: the sign says lighter or darker, not for or against.
    maps["|guided backprop|"] = lambda m, x, c: guided_backprop(m, x, c).abs().amax(-3)
    if hasattr(model, "gap"):
        maps["CAM"] = enlarged(class_activation_map)
    return maps
