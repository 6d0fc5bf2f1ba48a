"""Grad-CAM: class activation maps for networks with any head."""

import torch
from torch import Tensor, nn

from helpers._validate import Target, check_layer
from helpers.cam._head import weighted_maps
from helpers.capture import check_feature_maps, gradients


def grad_cam(model: nn.Module, x: Tensor, target: Target, *, layer: str, relu: bool = True) -> Tensor:
    """Grad-CAM: the feature maps of a layer, each weighed by the mean of the logit's gradient over its places.

    Implements :eq:`eq-grad-cam`: relu(sum_k alpha_k f_k(u)), alpha_k = mean_u dS_c/df_k(u), chapter 3. On a network
    that ends in global average pooling and one linear layer, for its last feature maps of h x w places, it is
    relu(M_c) / (h w), M_c the class activation map.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K maps an image.
        layer: name of a layer with feature maps (B, C, h, w), as a rule the last one.
        relu: keep only the evidence for the class, as Selvaraju et al. do; False gives the signed map.

    Returns:
        Maps, (B, h, w) or (B, K, h, w), at the layer's resolution; not negative unless `relu` is False. All zero where
        nothing speaks for the class.

    Raises:
        ValueError: bad `x` or `target`; a layer that is unknown, has no feature maps, or does not reach the logits.

    Source: Selvaraju et al., ICCV 2017, section 3.
    """
    if check_layer(layer).endswith("#*"):  # "relu#*" names every call of a layer (helpers.capture)
        raise ValueError(f"layer must be the name of one layer, got {layer!r}")
    at_layer = gradients(model, x, target, layer)
    maps, slopes = at_layer.activations[layer], at_layer.gradients[layer]
    check_feature_maps(maps, layer, model)
    alpha = slopes.mean((-2, -1))  # (B, C) or (B, K, C)
    several = alpha.ndim == 3
    mixed = weighted_maps(maps, alpha if several else alpha[:, None])  # (B, K, h, w)
    mixed = torch.relu_(mixed) if relu else mixed
    return mixed if several else mixed[:, 0]
