"""Weights class by class, and maps of single classes: which of two digits on a canvas was asked for?"""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from helpers.cam import class_activation_map, grad_cam
from helpers.capture import activations, gradients, in_batches
from helpers.experiments.similarnet.canvases import SEED, Canvases, digit_scores, enlarged
from helpers.experiments.train.datasets import LabeledImages
from helpers.similarnet import (
    ablation_errors,
    as_convolutions,
    features_at_any_size,
    heatmap,
    importance_weights,
    mean_excitation_weights,
)

SAMPLE = 5000  # training images that class-wise weights are made of
EACH = 200  # images of a class, at most, for its mean gradient and excitation
GAP_LAYER = "relu4"  # digits-gap's last feature maps
Scores = dict[str, dict[str, float]]  # weights or maps -> metric -> mean


def class_weight_scores(model: nn.Module, train: LabeledImages, canvases: Canvases, layer: str) -> Scores:
    """`digit_scores` of class-wise weights of filters: SIMILARnet's, and what they are to be compared with.

    Args:
        model: the network.
        train: training images that the weights are made of.
        canvases: of two digits.
        layer: whose feature maps are weighed.
    """
    mixed = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(SEED))[:SAMPLE]
    x, y = (train.images[mixed].float() / 255).to(canvases.images), train.labels[mixed]
    features = features_at_any_size(model, canvases.images, layer=layer)
    return {
        name: digit_scores(enlarged(heatmap(features, weights[canvases.labels]), canvases), canvases)
        for name, weights in class_weights(model, x, y, layer).items()
    }


def class_weights(model: nn.Module, x: Tensor, y: Tensor, layer: str) -> dict[str, Tensor]:
    """All class-wise weights of filters that are compared, name -> (K, F), of images (N, 1, H, W) and labels (N,)."""
    errors = ablation_errors(model, x, y, layer=layer, error="nll", per_class=True)
    raw = importance_weights(*errors, sign="code", normalization="none")  # (K, F)
    members = [x[y.to(x.device) == label][:EACH] for label in range(len(raw))]
    slopes = torch.stack([
        gradients(model, own, label, layer).gradients[layer].mean((0, 2, 3)) for label, own in enumerate(members)
    ])  # fmt: skip
    excited = torch.stack([mean_excitation_weights(model, own, layer=layer) for own in members])
    return {
        "e - E": raw,
        "e - E, less its mean over the classes": raw - raw.mean(0),
        "softmax of E - e": (-raw).softmax(1),
        "softmax of e - E": raw.softmax(1),
        "softmax of e - E, less its mean": raw.softmax(1) - raw.softmax(1).mean(0),
        "mean excitation, less its mean": excited - excited.mean(0),
        "mean gradient": slopes,
        "mean gradient, less its mean": slopes - slopes.mean(0),
        "a linear layer on the means (original GAP)": linear_layer(model, x, y, layer),
        "all weights one": torch.ones_like(raw),
    }


def linear_layer(model: nn.Module, x: Tensor, y: Tensor, layer: str) -> Tensor:
    """Weights (K, F) of a linear classifier trained on the mean of each map: class activation maps for any network."""
    means = in_batches(lambda m, part: activations(m, part, layer)[layer].mean((2, 3)), model, x).cpu().double()
    scale = means.std(0)
    scale[scale == 0] = 1  # a filter that sleeps
    fitted = LogisticRegression(C=1e3, max_iter=2000).fit(((means - means.mean(0)) / scale).numpy(), y.cpu())
    return (torch.from_numpy(fitted.coef_) / scale).to(x)


def sliding_scores(model: nn.Sequential, canvases: Canvases) -> Scores:
    """`digit_scores` of the logits and probabilities of a network slid over the canvases."""
    with torch.no_grad():
        logits = as_convolutions(model)(canvases.images)
    rows = torch.arange(len(logits), device=logits.device)[:, None]
    maps = {"logit": logits, "probability": logits.softmax(1)}
    return {
        f"slid over the canvas, {name}": digit_scores(enlarged(part[rows, canvases.labels], canvases), canvases)
        for name, part in maps.items()
    }


def gap_scores(model: nn.Module, canvases: Canvases) -> Scores:
    """`digit_scores` of the class activation maps of digits-gap, and of its Grad-CAM at several layers."""
    maps = {"CAM": class_activation_map(model, canvases.images, canvases.labels)}
    for layer in ("pool1", "pool2", "pool3", GAP_LAYER):
        maps[f"Grad-CAM at {layer}"] = grad_cam(model, canvases.images, canvases.labels, layer=layer)
    return {name: digit_scores(enlarged(part, canvases), canvases) for name, part in maps.items()}
