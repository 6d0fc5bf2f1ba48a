"""Networks on images of another size than they were trained on: feature maps, and a classifier of every window."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from helpers._validate import check_model
from helpers.capture import Layer, activations_up_to, check_feature_maps, layer_name

POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)


def features_at_any_size(model: nn.Module, x: Tensor, *, layer: Layer, keep_pools: bool = True) -> Tensor:
    """Feature maps of images of any size: what follows the layer, which may take one size only, does not run.

    Args:
        model: network whose first part is made of convolutions; it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        layer: its name, or the module itself.
        keep_pools: False leaves every max or average pooling of a window out, as the authors do for their heat maps:
            the maps are as large as the image, and filters behind a pooling see it at a scale they were not trained
            for.

    Returns:
        (B, F, h, w), detached.

    Raises:
        ValueError: bad `x`, an unknown layer, one without feature maps, or poolings that cannot be left out.
    """
    fixed = [name for name, m in check_model(model).named_modules() if isinstance(m, POOLINGS) and _moves_by_one(m)]
    if fixed and not keep_pools:
        raise ValueError(
            f"keep_pools must be True for poolings that move by one pixel, as {fixed[0]!r} does, got False"
        )
    features = activations_up_to(model, x, layer, without=() if keep_pools else POOLINGS)
    return check_feature_maps(features, layer_name(model, layer), model, x)


def _moves_by_one(pool: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Whether a pooling keeps the size of maps that another module has padded for it, as in `SmallVGG(atrous=...)`.

    Left out, it would leave the padding behind, and nothing would become finer.
    """
    return pool.stride in (1, (1, 1)) and pool.padding in (0, (0, 0))


def as_convolutions(model: nn.Sequential) -> nn.Sequential:
    """A chain whose linear layers are convolutions: it classifies every window of an image in one forward.

    The first linear layer behind the flattening becomes a convolution as large as the feature maps it was trained on,
    padded so that their size stays; the later linear layers become convolutions of 1 x 1. The weights are shared with
    the model's, not copied.

    Args:
        model: a chain of layers with one flattening, then linear layers; square feature maps.

    Returns:
        A chain that maps (B, C, H, W) to logits (B, classes, h, w), h and w those of the feature maps: each place has
        the logits of the window around it. They are not quite those of the window cut out: there the convolutions see
        zeros beyond its edge, here the image that goes on.

    Raises:
        ValueError: a network that is no such chain.

    Source: Sermanet et al., "OverFeat", ICLR 2014; Long et al., CVPR 2015, section 3.1.
    """
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"model must be a chain, nn.Sequential, got {type(model).__name__}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, flat, is_converted = None, False, False  # channels so far; flattened yet; a linear layer converted yet
    for name, module in model._modules.items():  # named_children would leave out a layer that is used again
        if isinstance(module, nn.Flatten):
            flat = True
            continue
        if isinstance(module, nn.Linear):
            side = round((module.in_features / channels) ** 0.5) if flat and channels else 0
            if not flat or not channels or channels * side**2 != module.in_features:
                raise ValueError(f"model must flatten square feature maps before its first linear layer, {name!r}")
            module, channels = _as_convolution(module, channels, side), module.out_features
            is_converted = True
        elif isinstance(module, nn.Conv2d):
            channels = module.out_channels
        elif flat and not isinstance(module, nn.ReLU | nn.Dropout | nn.Identity | nn.Tanh | nn.Sigmoid):
            raise ValueError(f"model must have linear layers and activations alone behind nn.Flatten, got {name!r}")
        layers[name] = module
    if not is_converted:
        raise ValueError(
            "model must be a chain of feature layers, nn.Flatten and nn.Linear, got one without such an end"
        )
    chain = nn.Sequential(layers)
    chain.training = model.training  # its own flag: train() would set those of the shared layers too
    return chain


def _as_convolution(linear: nn.Linear, channels: int, side: int) -> nn.Conv2d:
    """A linear layer on flattened maps (C, side, side) as a convolution that shares its weights."""
    has_bias = linear.bias is not None
    shape = (channels, linear.out_features, side)
    conv: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, *shape, padding="same", bias=has_bias)
    conv.weight = nn.Parameter(linear.weight.detach().view_as(conv.weight), requires_grad=False)
    if has_bias:
        conv.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return conv.train(linear.training)
