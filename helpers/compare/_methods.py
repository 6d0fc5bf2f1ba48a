"""Attribution methods under their names, all called in one way: `method(model, x, target)` -> maps (B, H, W)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from helpers.cam import class_activation_map, grad_cam, upsample
from helpers.licnn import attention_map
from helpers.metrics import edge_map
from helpers.saliency import (
    class_saliency,
    gradient_times_input,
    guided_backprop,
    input_gradient,
    integrated_gradients,
)

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]
STEPS = 10  # of integrated gradients; with 50 the rank correlations of the sanity checks change by a hundredth


def attribution_methods(*, layer: str) -> dict[str, Method]:
    """The book's methods as the sanity checks take them, with an edge detector that knows nothing of the network.

    Args:
        layer: name of the last feature maps, for Grad-CAM.

    Returns:
        name -> `method(model, x, target)`, whose maps are (B, H, W): signed where the method has signs (summed over the
        channels), raw, stretched over the image where the method's own maps are smaller.
    """
    return {
        "gradient": _summed(input_gradient),
        "|gradient|": class_saliency,
        "gradient x input": _summed(gradient_times_input),
        "integrated gradients": _summed(partial(integrated_gradients, steps=STEPS)),
        "guided backprop": _summed(guided_backprop),
        "Grad-CAM": _stretched(partial(grad_cam, layer=layer)),
        "LICNN": attention_map,
        "nothing inhibited": partial(attention_map, suppress=None),
        "edge detector": image_map(edge_map),
    }


def two_object_methods(model: nn.Module, *, layer: str) -> dict[str, Method]:
    """The methods that stand beside LICNN in the two-object test.

    Args:
        model: network; CAM is among the methods where it averages its last feature maps.
        layer: name of the last feature maps, for Grad-CAM.

    Returns:
        name -> `method(model, x, target)`, as `attribution_methods`.
    """
    signed = ("gradient x input", "integrated gradients", "Grad-CAM")
    every = attribution_methods(layer=layer)
    methods = {name: every[name] for name in ("|gradient|", *signed)}
    # Of a gradient and its relatives the size, as in chapter 2: the sign says lighter or darker, not for or against.
    methods["|guided backprop|"] = _largest(guided_backprop)
    if hasattr(model, "gap"):
        methods["CAM"] = _stretched(class_activation_map)
    return methods


def image_map(baseline: Callable[[Tensor], Tensor]) -> Method:
    """Maps (B, H, W) made of the images alone, called like a method: a baseline that knows no network and no class."""
    return lambda model, x, target: baseline(x)


def _summed(method: Callable[..., Tensor]) -> Method:
    """Attributions of every channel (B, C, H, W), added up."""
    return lambda model, x, target: method(model, x, target).sum(-3)


def _largest(method: Callable[..., Tensor]) -> Method:
    """Attributions of every channel (B, C, H, W): the largest size over the channels."""
    return lambda model, x, target: method(model, x, target).abs().amax(-3)


def _stretched(method: Callable[..., Tensor]) -> Method:
    """Maps at a layer's resolution (B, h, w), stretched over the image."""
    return lambda model, x, target: upsample(method(model, x, target), (x.shape[-2], x.shape[-1]))
