"""Weights of LeNet's filters, SIMILARnet's and what they are to be compared with, and the heat maps they make."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from helpers.similarnet import (
    AblationErrors,
    features_at_any_size,
    heatmap,
    importance_weights,
    mean_excitation_weights,
    per_sample_weights,
)

LAYER = "pool2"  # LeNet's last feature maps
DRAWS, PERMUTED = 5, 10  # of random weights, and of the measured ones' order
Weights = Mapping[str, Tensor]  # name -> (F,)


def filter_weights(
    model: nn.Module, errors: AblationErrors, x: Tensor, y: Tensor, count: int, seed: int
) -> dict[str, Tensor]:
    """All the weights that are compared, name -> (F,).

    Args:
        model: the network.
        errors: its mean log-losses, over `count` images.
        x: some training images, for the authors' later variants.
        y: their classes.
        count: number of images behind `errors`.
        seed: of the random weights.
    """
    draw = torch.Generator().manual_seed(seed)
    filters = len(errors.errors)
    weights = {
        "E - e, raw": importance_weights(*errors, normalization="none"),
        "e - E, raw (code)": importance_weights(*errors, sign="code", normalization="none"),
        "softmax of E - e (paper)": importance_weights(*errors),
        "softmax of e - E": importance_weights(*errors, sign="code"),
        "softmax of E - e, summed": importance_weights(*errors, temperature=1 / count),
        "softmax of e - E, summed": importance_weights(*errors, sign="code", temperature=1 / count),
        "mean excitation (newer GAP)": mean_excitation_weights(model, x, layer=LAYER),
        "by sample (ccGAP)": per_sample_weights(model, x, y, layer=LAYER),
        "all weights one": torch.ones(filters),
    }
    weights |= {f"positive weights at random, {k + 1}": torch.rand(filters, generator=draw) for k in range(DRAWS)}
    measured = weights["e - E, raw (code)"]
    weights |= {f"e - E, permuted, {k + 1}": measured[torch.randperm(filters, generator=draw)] for k in range(PERMUTED)}
    return {name: part.to(x) for name, part in weights.items()}


def heatmaps(model: nn.Module, images: Tensor, weights: Weights) -> dict[str, Tensor]:
    """Heat maps (N, h, w) of images (N, 1, H, W) by weights (F,), with poolings and, but for permuted ones, without."""
    features = features_at_any_size(model, images, layer=LAYER)
    fine = features_at_any_size(model, images, layer=LAYER, keep_pools=False)
    return {name: heatmap(features, part) for name, part in weights.items()} | {
        f"{name}, no poolings": heatmap(fine, part) for name, part in weights.items() if "permuted" not in name
    }
