"""Attribution methods under their names, all called in one way, in one registry: `METHODS`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from helpers._validate import Target, check_choice, check_images, describe
from helpers.cam import class_activation_map, grad_cam, hires_cam, layer_cam, score_cam, upsample
from helpers.capture import Layer
from helpers.licnn import attention_map
from helpers.metrics import edge_map
from helpers.saliency import (
    class_saliency,
    gradient_times_input,
    guided_backprop,
    input_gradient,
    integrated_gradients,
    occlusion,
    rise,
    smooth_gradient,
)

MapMethod = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, x, target) -> maps (B, H, W)
BYTES = 64.0  # no normalised image reaches it; pictures in 0 .. 255 do
STEPS = 10  # of integrated gradients; with 50 the rank correlations of the sanity checks change by a hundredth


class Method(NamedTuple):
    """An attribution method.

    Attributes:
        call: `call(model, x, target, **options)`, as its room has it.
        gives: "colours", an attribution for every channel of the image, (..., C, H, W), which `explain` adds up;
            "image", maps as large as the image; or "layer", maps at a layer's resolution, which `explain` stretches.
        needs: what a network must have, in words.
        layer: the name of the option that says at which layer, where there is one.
    """

    call: Callable[..., Tensor]
    gives: Literal["colours", "image", "layer"]
    needs: str
    layer: str | None = None


GRADIENTS = "logits that can be differentiated"
METHODS: dict[str, Method] = {
    "input_gradient": Method(input_gradient, "colours", GRADIENTS),
    "class_saliency": Method(class_saliency, "image", GRADIENTS),
    "gradient_times_input": Method(gradient_times_input, "colours", GRADIENTS),
    "integrated_gradients": Method(integrated_gradients, "colours", GRADIENTS),
    "smooth_gradient": Method(smooth_gradient, "colours", GRADIENTS),
    "guided_backprop": Method(guided_backprop, "colours", "ReLUs, as modules or as functions"),
    "occlusion": Method(occlusion, "image", "nothing but logits"),
    "rise": Method(rise, "image", "nothing but logits"),
    "class_activation_map": Method(class_activation_map, "layer", "a global average and one linear layer at its end"),
    "grad_cam": Method(grad_cam, "layer", "a layer with feature maps", layer="layer"),
    "hires_cam": Method(hires_cam, "layer", "a layer with feature maps", layer="layer"),
    "layer_cam": Method(layer_cam, "layer", "a layer with feature maps", layer="layer"),
    "score_cam": Method(score_cam, "layer", "a layer with feature maps", layer="layer"),
    "attention_map": Method(attention_map, "image", "ReLU modules with feature maps, or layers=", layer="layers"),
}


def explain(
    model: nn.Module,
    x: Tensor,
    method: str = "grad_cam",
    target: Target = None,
    layer: Layer | Sequence[Layer] | None = None,
    **options: Any,
) -> Tensor:
    """Maps of one of the book's methods, by its name: one number for each pixel, whatever the method's own maps are.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        method: a name in `METHODS`, which says what each needs.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.
        layer: for the methods that look at one: its name or the module itself; for LICNN ("attention_map") several too.
            What the method itself takes when left out.
        options: further ones of the method, such as `steps=20` of "integrated_gradients".

    Returns:
        Maps, (B, H, W) or (B, K, H, W), raw, and signed where the method is: of attributions for every colour their sum
        over the colours; maps of a layer are stretched over the image (`cam.upsample`).

    Raises:
        ValueError: an unknown method, a layer for a method that looks at none, or what the method refuses.
        TypeError: an option that the method does not have.
    """
    chosen = METHODS[check_choice(method, "method", METHODS)]
    if layer is not None:
        if chosen.layer is None:
            raise ValueError(f"layer must be left out for {method!r}, which looks at none, got {describe(layer)}")
        options = options | {chosen.layer: layer}
    _warn_of_bytes(check_images(x))
    maps = chosen.call(model, x, target, **options)
    if chosen.gives == "colours":
        return maps.sum(-3)
    return upsample(maps, (x.shape[-2], x.shape[-1])) if chosen.gives == "layer" else maps


def _warn_of_bytes(x: Tensor) -> None:
    """Say so where images look as if nobody had normalised them: a network answers all the same."""
    if x.min() >= 0 and x.max() > BYTES:
        least, greatest = x.min().item(), x.max().item()
        warnings.warn(
            f"x lies in {least:.3g} .. {greatest:.3g}, like bytes: networks.normalize makes a network's input",
            stacklevel=3,
        )


def attribution_methods(*, layer: str) -> dict[str, MapMethod]:
    """The book's methods as the sanity checks take them, with an edge detector that knows nothing of the network.

    Args:
        layer: name of the last feature maps, for Grad-CAM.

    Returns:
        name -> `method(model, x, target)`, whose maps are (B, H, W): signed where the method has signs (summed over the
        channels), raw, stretched over the image where the method's own maps are smaller.
    """
    return {
        "gradient": _explained("input_gradient"),
        "|gradient|": class_saliency,
        "gradient x input": _explained("gradient_times_input"),
        "integrated gradients": _explained("integrated_gradients", steps=STEPS),
        "guided backprop": _explained("guided_backprop"),
        "Grad-CAM": _explained("grad_cam", layer=layer),
        "LICNN": attention_map,
        "nothing inhibited": partial(attention_map, suppress=None),
        "edge detector": image_map(edge_map),
    }


def two_object_methods(model: nn.Module, *, layer: str) -> dict[str, MapMethod]:
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
        methods["CAM"] = _explained("class_activation_map")
    return methods


def image_map(baseline: Callable[[Tensor], Tensor]) -> MapMethod:
    """Maps (B, H, W) made of the images alone, called like a method: a baseline that knows no network and no class."""
    return lambda model, x, target: baseline(x)


def _largest(method: Callable[..., Tensor]) -> MapMethod:
    """Attributions of every channel (B, C, H, W): the largest size over the channels."""
    return lambda model, x, target: method(model, x, target).abs().amax(-3)


def _explained(method: str, **options: Any) -> MapMethod:
    """A method of the registry, called in the order that the sanity checks take."""
    return lambda model, x, target: explain(model, x, method, target, **options)
