"""Grad-CAM: class activation maps for networks with any head."""

import warnings

import torch
from torch import Tensor, nn

from helpers._validate import Target
from helpers.cam._head import weighted_maps
from helpers.capture import Layer, check_feature_maps, gradients, last_feature_layer, single_layer, suggested_layers


def grad_cam(
    model: nn.Module, x: Tensor, target: Target = None, layer: Layer | None = None, *, relu: bool = True
) -> Tensor:
    """Grad-CAM: the feature maps of a layer, each weighed by the mean of the logit's gradient over its places.

    Implements :eq:`eq-grad-cam`: relu(sum_k alpha_k f_k(u)), alpha_k = mean_u dS_c/df_k(u), chapter 3. On a network
    that ends in global average pooling and one linear layer, for its last feature maps of h x w places, it is
    relu(M_c) / (h w), M_c the class activation map.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.
        layer: a layer with feature maps (B, C, h, w), by name or the module itself; when left out the last one that has
            more than one place (`capture.last_feature_layer`), for which the network runs once more.
        relu: keep only the evidence for the class, as Selvaraju et al. do; False gives the signed map.

    Returns:
        Maps, (B, h, w) or (B, K, h, w), at the layer's resolution; not negative unless `relu` is False. All zero where
        nothing speaks for the class. A layer with maps of a single place gets a warning: it cannot say where.

    Raises:
        ValueError: bad `x` or `target`; a layer that is unknown, has no feature maps, or does not reach the logits.

    Source: Selvaraju et al., ICCV 2017, section 3.
    """
    layer = last_feature_layer(model, x) if layer is None else single_layer(model, layer)
    at_layer = gradients(model, x, target, layer)
    maps, slopes = at_layer.activations[layer], at_layer.gradients[layer]
    if check_feature_maps(maps, layer, model, x)[0, 0].numel() == 1:
        layers = suggested_layers(model, x)
        warnings.warn(f"{layer!r} has maps of one place, which cannot say where; others are {layers}", stacklevel=2)
    alpha = slopes.mean((-2, -1))  # (B, C) or (B, K, C)
    several = alpha.ndim == 3
    mixed = weighted_maps(maps, alpha if several else alpha[:, None])  # (B, K, h, w)
    mixed = torch.relu_(mixed) if relu else mixed
    return mixed if several else mixed[:, 0]
