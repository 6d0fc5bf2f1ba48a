"""Grad-CAM and its relatives: class activation maps for networks with any head, weighed by slopes."""

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
    maps, slopes, several = _at_layer(model, x, target, layer)
    mixed = weighted_maps(maps, slopes.mean((-2, -1)))  # (B, K, h, w)
    mixed = torch.relu_(mixed) if relu else mixed
    return mixed if several else mixed[:, 0]


def hires_cam(
    model: nn.Module, x: Tensor, target: Target = None, layer: Layer | None = None, *, relu: bool = False
) -> Tensor:
    """HiResCAM: the feature maps of a layer, each weighed place by place by the logit's gradient there.

    Implements :eq:`eq-hires-cam`: sum_k dS_c/df_k(u) f_k(u), chapter 3. Grad-CAM averages the gradient over the places
    first, and can so mark places that the score does not use.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.
        layer: as for `grad_cam`.
        relu: keep only the evidence for the class.

    Returns:
        Maps, (B, h, w) or (B, K, h, w), at the layer's resolution, signed unless `relu`. Behind the layer one linear
        layer: their sum plus the bias is the logit.

    Raises:
        ValueError: as `grad_cam`.

    Source: Draelos, Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations", arXiv 2011.08891, section 4.
    """
    maps, slopes, several = _at_layer(model, x, target, layer)
    mixed = (slopes * maps[:, None]).sum(2)  # (B, K, h, w)
    mixed = torch.relu_(mixed) if relu else mixed
    return mixed if several else mixed[:, 0]


def layer_cam(model: nn.Module, x: Tensor, target: Target = None, layer: Layer | None = None) -> Tensor:
    """LayerCAM: as HiResCAM, of the positive gradients alone, so that early layers give maps too.

    Implements :eq:`eq-layer-cam`: relu(sum_k relu(dS_c/df_k(u)) f_k(u)), chapter 3.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.
        layer: as for `grad_cam`.

    Returns:
        Maps, (B, h, w) or (B, K, h, w), at the layer's resolution; not negative.

    Raises:
        ValueError: as `grad_cam`.

    Source: Jiang et al., "LayerCAM: exploring hierarchical class activation maps for localization", IEEE TIP 2021,
    equations 6 to 8.
    """
    maps, slopes, several = _at_layer(model, x, target, layer)
    mixed = torch.relu_((slopes.clamp_min(0) * maps[:, None]).sum(2))  # (B, K, h, w)
    return mixed if several else mixed[:, 0]


def _at_layer(model: nn.Module, x: Tensor, target: Target, layer: Layer | None) -> tuple[Tensor, Tensor, bool]:
    """Feature maps (B, C, h, w), the logits' gradients there (B, K, C, h, w), and whether the target has a K axis."""
    layer = last_feature_layer(model, x) if layer is None else single_layer(model, layer)
    at_layer = gradients(model, x, target, layer)
    maps, slopes = at_layer.activations[layer], at_layer.gradients[layer]
    if check_feature_maps(maps, layer, model, x)[0, 0].numel() == 1:
        layers = suggested_layers(model, x)
        warnings.warn(f"{layer!r} has maps of one place, which cannot say where; others are {layers}", stacklevel=3)
    several = slopes.ndim == 5
    return maps, slopes if several else slopes[:, None], several
