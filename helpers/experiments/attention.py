"""What LICNN's masks are compared with, and what its maps are: shared by the record and the chapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from helpers.background import blurred
from helpers.cam import class_activation_map, grad_cam, upsample
from helpers.capture import in_batches
from helpers.data import Scenes, scenes
from helpers.licnn import (
    attention_map,
    attention_steps,
    inhibition_mask,
    lateral_inhibition,
    rms_mask,
    saliency_map,
    unit_norm,
)
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


def center_surround_mask(g: Tensor) -> Tensor:
    """The places of Max-C maps (..., h, w) that a true Mexican hat keeps.

    It is a difference of Gaussians with standard deviations of 1 and 2 places, positive where the middle wins.
    """
    flat = g.reshape(-1, 1, *g.shape[-2:])
    return (blurred(flat, 1.0) > blurred(flat, 2.0)).view(g.shape)


def random_places(g: Tensor) -> Tensor:
    """As many places of each Max-C map (..., h, w) as LICNN keeps, but chosen at random: a control.

    The draw depends on the maps' shape alone: the same places for layers of one shape, nested ones where more are kept.
    """
    kept = inhibition_mask(g).flatten(-2).sum(-1, keepdim=True)
    noise = torch.rand(g.shape, generator=torch.Generator().manual_seed(0)).to(g.device)
    return (noise.flatten(-2).argsort(-1).argsort(-1) < kept).view(g.shape)


# What attention_map is given; the first is LICNN as the text has it.
VARIANTS: dict[str, dict[str, Any]] = {
    "LICNN": {},
    "above the RMS": {"suppress": rms_mask},
    "b = 0": {"suppress": partial(inhibition_mask, b=0.0)},
    "a = 0": {"suppress": partial(inhibition_mask, a=0.0)},
    "k = 3": {"suppress": partial(inhibition_mask, k=3)},
    "k = 15": {"suppress": partial(inhibition_mask, k=15)},
    "Max-C not normalised": {"suppress": partial(inhibition_mask, normalize=False)},
    "true Mexican hat": {"suppress": center_surround_mask},
    "as many random places": {"suppress": random_places},
    "nothing inhibited": {"suppress": None},
    "last ReLU masked too": {"skip_last": False},
    "layers normalised after resizing": {"normalize_layers": "after"},
    "layers not normalised (code)": {"normalize_layers": None},
    "before the softmax": {"after_softmax": False},
    "gradient-based": {"mode": "gradient"},
    "gradient-based, above the RMS": {"mode": "gradient", "suppress": rms_mask},
}


def enlarged(method: Callable[..., Tensor]) -> Method:
    """A method whose maps (B, h, w) are stretched over the image, (B, H, W)."""
    return lambda model, x, target: upsample(method(model, x, target), tuple(x.shape[-2:]))


def methods(layer: str) -> dict[str, Method]:
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


def compared(model: nn.Module, x: Tensor, labels: Tensor, truth: Tensor, layer: str) -> dict[str, dict[str, Tensor]]:
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
    maps |= {name: methods(layer)[name] for name in ("|gradient|", "Grad-CAM")}
    maps |= {name: lambda _m, x, _c, base=base: base(x) for name, base in BASELINES.items()}
    return {name: measured(in_batches(one, model, x, labels, size=BATCH), truth) for name, one in maps.items()}


BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "centre": center_map,
    "blurred image": blurred_map,
    "edges": edge_map,
}


def measured(maps: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Three measures of maps (N, H, W) against objects (N, H, W): name -> (N,)."""
    return {name: measure(maps, truth) for name, measure in MEASURES.items()}


def agreement(model: nn.Module, x: Tensor, labels: Tensor) -> dict[str, dict[str, float]]:
    """How LICNN's rule compares with plain ones, layer by layer, on the gradients of real images.

    Args:
        model: the network.
        x: images, (N, C, H, W), normalised.
        labels: (N,).

    Returns:
        layer -> "side" of its maps; the share of places where LICNN's rule and "above the RMS" "agree"; the same of its
        average term alone ("average agrees"); the intersection over union of the two rules' places ("iou"); the share
        of places that each keeps ("kept", "kept by RMS"); the largest and the least value of the average term
        over all images ("average least", "average greatest"), and the share of the inhibition that is the differential
        term's ("difference").
    """
    found = attention_steps(model, x, labels, suppress=None, mode="gradient").contributions
    rows = {}
    for name, g in found.items():
        ours, plain, average = inhibition_mask(g), rms_mask(g), inhibition_mask(g, b=0.0)
        terms = [lateral_inhibition(unit_norm(g), b=0.0), lateral_inhibition(unit_norm(g), a=0.0)]
        rows[name] = {
            "side": g.shape[-1],
            "agree": _share(ours == plain),
            "average agrees": _share(average == plain),
            "iou": ((ours & plain).sum() / (ours | plain).sum()).item(),
            "kept": _share(ours),
            "kept by RMS": _share(plain),
            "average least": terms[0].min().item(),
            "average greatest": terms[0].max().item(),
            "difference": (terms[1].sum() / (terms[0].sum() + terms[1].sum())).item(),
        }
    return rows


def _share(mask: Tensor) -> float:
    return mask.float().mean().item()


def pairs(count: int, seed: int) -> Scenes:
    """Scenes with two objects of different classes: the two-object test's."""
    found = scenes(count, seed, objects=2)
    kept = found.labels[:, 0] != found.labels[:, 1]
    return Scenes(*(one[kept] for one in found))


def told_apart(model: nn.Module, x: Tensor, labels: Tensor, masks: Tensor, method: Callable[..., Tensor]) -> Tensor:
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
    both = [in_batches(method, model, x, labels[:, k], size=BATCH) for k in range(2)]
    maps = torch.stack(both, 1)  # (N, 2, H, W): of each class
    area = masks.sum((-2, -1)).to(maps)
    means = (maps[:, :, None] * masks[:, None]).sum((-2, -1)) / area[:, None]  # (N, map, object)
    own, other = means.diagonal(dim1=1, dim2=2), means.flip(2).diagonal(dim1=1, dim2=2)
    won = (own > other).to(means) + 0.5 * (own == other).to(means)
    return torch.where(own.isnan() | other.isnan(), torch.nan, won)


def other_maps(model: nn.Module, layer: str) -> dict[str, Method]:
    """The methods that stand beside LICNN in the two-object test; CAM where the network averages its last maps."""
    signed = ("gradient x input", "integrated gradients", "Grad-CAM")
    maps = {name: methods(layer)[name] for name in ("|gradient|", *signed)}
    # Of a gradient and its relatives the size, as in chapter 2: the sign says lighter or darker, not for or against.
    maps["|guided backprop|"] = lambda m, x, c: guided_backprop(m, x, c).abs().amax(-3)
    if hasattr(model, "gap"):
        maps["CAM"] = enlarged(class_activation_map)
    return maps
