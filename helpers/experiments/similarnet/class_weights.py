"""Weights class by class, and maps of single classes: which of two digits on a canvas was asked for?"""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from helpers.cam import class_activation_map, grad_cam
from helpers.capture import activations, gradients, in_batches
from helpers.experiments.similarnet.canvases import SEED, Canvases, large, shares
from helpers.experiments.train.datasets import DataSplit
from helpers.similarnet import (
    ablation_errors,
    as_convolutions,
    features_at_any_size,
    heatmap,
    importance_weights,
    mean_excitation_weights,
)

SAMPLE = 5000  # training images that class-wise weights are made of
GAP_LAYER = "relu4"  # digits-gap's last feature maps


def by_class(model: nn.Module, part: DataSplit, found: Canvases, layer: str) -> dict[str, list[float]]:
    """`shares` of class-wise weights of filters: SIMILARnet's, and what they are to be compared with."""
    mixed = torch.randperm(len(part.train.labels), generator=torch.Generator().manual_seed(SEED))[:SAMPLE]
    x, y = (part.train.images[mixed].float() / 255).to(found.images), part.train.labels[mixed]
    features = features_at_any_size(model, found.images, layer=layer)
    errors = ablation_errors(model, x, y, layer=layer, error="nll", per_class=True)
    raw = importance_weights(*errors, sign="code", normalization="none")  # (K, F)
    own = [x[y.to(x.device) == c][:200] for c in range(len(raw))]
    slopes = [gradients(model, mine, c, layer).gradients[layer].mean((0, 2, 3)) for c, mine in enumerate(own)]
    excited = torch.stack([mean_excitation_weights(model, mine, layer=layer) for mine in own])
    rows = {
        "e - E": raw,
        "e - E, less its mean over the classes": raw - raw.mean(0),
        "softmax of E - e": (-raw).softmax(1),
        "softmax of e - E": raw.softmax(1),
        "softmax of e - E, less its mean": raw.softmax(1) - raw.softmax(1).mean(0),
        "mean excitation, less its mean": excited - excited.mean(0),
        "mean gradient": torch.stack(slopes),
        "mean gradient, less its mean": torch.stack(slopes) - torch.stack(slopes).mean(0),
        "a linear layer on the means (original GAP)": linear_layer(model, layer, x, y),
        "all weights one": torch.ones_like(raw),
    }
    return {name: shares(large(heatmap(features, w[found.labels]), found), found) for name, w in rows.items()}


def linear_layer(model: nn.Module, layer: str, x: Tensor, y: Tensor) -> Tensor:
    """Weights (K, F) of a linear classifier trained on the mean of each map: class activation maps for any network."""
    means = in_batches(lambda m, part: activations(m, part, layer)[layer].mean((2, 3)), model, x).cpu().double()
    scale = means.std(0)
    scale[scale == 0] = 1  # a filter that sleeps
    fitted = LogisticRegression(C=1e3, max_iter=2000).fit(((means - means.mean(0)) / scale).numpy(), y.cpu())
    return (torch.from_numpy(fitted.coef_) / scale).to(x)


def slid(model: nn.Sequential, found: Canvases) -> dict[str, list[float]]:
    """`shares` of the logits and probabilities of a network slid over the canvases."""
    with torch.no_grad():
        scores = as_convolutions(model)(found.images)
    rows = torch.arange(len(scores), device=scores.device)[:, None]
    return {
        "slid over the canvas, logit": shares(large(scores[rows, found.labels], found), found),
        "slid over the canvas, probability": shares(large(scores.softmax(1)[rows, found.labels], found), found),
    }


def with_gap(model: nn.Module, found: Canvases) -> dict[str, list[float]]:
    """`shares` of class activation maps and of Grad-CAM at several layers."""
    maps = {"CAM": class_activation_map(model, found.images, found.labels)}
    for layer in ("pool1", "pool2", "pool3", GAP_LAYER):
        maps[f"Grad-CAM at {layer}"] = grad_cam(model, found.images, found.labels, layer=layer)
    return {name: shares(large(one, found), found) for name, one in maps.items()}
