"""LICNN's rule with one part changed at a time, and how often it agrees with a plain rule."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from helpers._validate import check_tensor
from helpers.device import widened
from helpers.filters import blurred
from helpers.licnn._attention import attention_steps
from helpers.licnn._inhibition import inhibition_mask, lateral_inhibition, rms_mask, unit_norm


def center_surround_mask(maps: Tensor) -> Tensor:
    """The places of Max-C maps that a true Mexican hat keeps, to be given to `attention_map` as `suppress`.

    A Mexican hat is a difference of two Gaussians, here with standard deviations of 1 and 2 places: a place is kept
    where the narrow mean around it is larger than the wide one.

    Args:
        maps: Max-C maps, (..., h, w), signed.

    Returns:
        bool, like maps.

    Raises:
        ValueError: maps is not a non-empty floating-point (..., h, w) of finite values.
    """
    check_tensor(maps, "maps", "... h w")
    flat = widened(maps).reshape(-1, 1, *maps.shape[-2:])
    return (blurred(flat, 1.0) > blurred(flat, 2.0)).view(maps.shape)


def random_places(maps: Tensor) -> Tensor:
    """As many places of each Max-C map as LICNN keeps, but chosen at random: a control, for `suppress`.

    The order in which places are drawn depends on the shape of maps alone: layers of one shape get the same places, and
    of two maps the one that keeps more gets all places of the other, and further ones.

    Args:
        maps: Max-C maps, (..., h, w), signed.

    Returns:
        bool, like maps.

    Raises:
        ValueError: maps is not a non-empty floating-point (..., h, w) of finite values.
    """
    count = inhibition_mask(check_tensor(maps, "maps", "... h w")).flatten(-2).sum(-1, keepdim=True)
    draw = torch.Generator().manual_seed(0)
    noise = torch.rand(maps.shape, generator=draw, dtype=torch.float32, device="cpu").to(maps.device)
    rank = noise.flatten(-2).argsort(-1).argsort(-1)  # of each place in the draw: 0 comes first
    return (rank < count).view(maps.shape)


# Name -> options of attention_map. The first is LICNN as the text has it; each other one changes a single part.
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
    "before the softmax": {"score": "logit"},
    "gradient-based": {"mode": "gradient"},
    "gradient-based, above the RMS": {"mode": "gradient", "suppress": rms_mask},
}


def rule_agreement(model: nn.Module, x: Tensor, labels: Tensor) -> dict[str, dict[str, float]]:
    """How often LICNN's rule keeps the places that a plain rule keeps, those above the map's root mean square.

    Args:
        model: network with ReLU modules; it is left as it was found.
        x: images, (N, C, H, W), normalised as the network expects.
        labels: (N,), the classes whose gradients are judged.

    Returns:
        For every layer, over all images and places:

        - "side": width of its maps, in places;
        - "agree": share of the places on which LICNN's rule (`inhibition_mask`) and the plain one (`rms_mask`) agree;
        - "average agrees": the same of LICNN's average term alone (b = 0) and the plain rule;
        - "iou": places that both rules keep, over places that either keeps;
        - "kept", "kept by RMS": share of the places that LICNN's rule and the plain one keep;
        - "average least", "average greatest": range of the values of the average term;
        - "difference": share of the whole inhibition that comes from the differential term.

    Raises:
        ValueError: as `attention_map`.
    """
    contributions = attention_steps(model, x, labels, suppress=None, mode="gradient").contributions
    rows = {}
    for name, g in contributions.items():
        licnn, plain, average = inhibition_mask(g), rms_mask(g), inhibition_mask(g, b=0.0)
        average_term = lateral_inhibition(unit_norm(g), b=0.0)
        difference_term = lateral_inhibition(unit_norm(g), a=0.0)
        rows[name] = {
            "side": g.shape[-1],
            "agree": _share(licnn == plain),
            "average agrees": _share(average == plain),
            "iou": (licnn & plain).sum().item() / max((licnn | plain).sum().item(), 1),
            "kept": _share(licnn),
            "kept by RMS": _share(plain),
            "average least": average_term.min().item(),
            "average greatest": average_term.max().item(),
            "difference": (difference_term.sum() / (average_term.sum() + difference_term.sum())).item(),
        }
    return rows


def _share(mask: Tensor) -> float:
    """Share of the places of a mask that are True."""
    return mask.float().mean().item()
