"""What LICNN is compared with: its rule with one part changed at a time, and how it agrees with plain rules."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from helpers.filters import blurred
from helpers.licnn import (
    attention_steps,
    inhibition_mask,
    lateral_inhibition,
    rms_mask,
    unit_norm,
)


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
    "before the softmax": {"score": "logit"},
    "gradient-based": {"mode": "gradient"},
    "gradient-based, above the RMS": {"mode": "gradient", "suppress": rms_mask},
}


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
