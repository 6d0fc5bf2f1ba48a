"""How much of the picture one unit sees: by rule, and by gradient."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers.capture import check_images, named_modules, preserved


class ReceptiveField(NamedTuple):
    """The pixels that one unit of a layer can see, along one side."""

    layer: str
    size: int  # pixels seen by one unit
    stride: int  # pixels between the fields of neighbouring units
    start: int  # first pixel of the first unit's field; negative where it reaches into the padding


_POINTWISE = (nn.ReLU, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity, nn.Sigmoid, nn.Tanh, nn.GELU)
_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def _side(module: nn.Module, name: str) -> int:
    """A setting of a layer that must be the same along both sides."""
    value = getattr(module, name, 1)
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if isinstance(value, str) or pair[0] != pair[1]:
        raise ValueError(f"{type(module).__name__} has {name}={value!r}; it must be one whole number for both sides")
    return pair[0]


def receptive_fields(model: nn.Module) -> list[ReceptiveField]:
    """How much of the image one unit of each layer sees: size, stride and place, in pixels.

    Implements :eq:`eq-receptive-field`, chapter 1, layer by layer from the input; stops at the first layer that mixes
    all places (flatten, linear, adaptive pooling).

    Args:
        model: an `nn.Sequential` (nested ones too) of convolutions, poolings and point-wise layers.

    Returns:
        One entry a layer, up to the last one whose units have a place.

    Raises:
        ValueError: the modules do not form a chain, or a layer is unknown or not square.
    Source: Dumoulin and Visin, A guide to convolution arithmetic, 2016; Araujo et al., Distill 2019.
    """
    size, stride, start = 1, 1, 0
    fields: list[ReceptiveField] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            continue
        if isinstance(module, nn.Flatten | nn.Linear | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            break
        if isinstance(module, _WINDOWED):
            reach = _side(module, "dilation") * (_side(module, "kernel_size") - 1)
            size, start = size + reach * stride, start - _side(module, "padding") * stride
            stride *= _side(module, "stride")
        elif not isinstance(module, _POINTWISE):
            raise ValueError(
                f"layer {name!r} is a {type(module).__name__}; the rule needs a chain (nn.Sequential) of "
                f"convolutions, poolings and point-wise layers"
            )
        fields.append(ReceptiveField(name, size, stride, start))
    return fields


def path_counts(model: nn.Module, layer: str, shape: tuple[int, int, int]) -> Tensor:
    """In how many ways each pixel can reach the middle unit of a layer: the oracle for `receptive_fields`.

    A copy of the network gets all weights one, no biases, and sums in place of maxima; the gradient of one unit then
    counts the paths from each pixel to it, and is zero exactly outside its receptive field.

    Args:
        model: as for `receptive_fields`; it is not changed.
        layer: name of the layer whose middle unit is asked.
        shape: of one image, (C, H, W); large enough that the field does not touch the border.

    Returns:
        (H, W), float64, non-negative, largest value 1.

    Raises:
        ValueError: no such layer.
    """
    linear = copy.deepcopy(model).double()
    for name, module in linear.named_modules():
        if isinstance(module, nn.MaxPool2d):
            swapped = nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
            parent, _, child = name.rpartition(".")
            setattr(linear.get_submodule(parent), child, swapped)
    with torch.no_grad():
        for name, parameter in linear.named_parameters():
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    ways = unit_gradient(linear, torch.ones(1, *shape, dtype=torch.float64), layer)[0].sum(0)  # (H, W)
    return ways / ways.max()


def unit_gradient(model: nn.Module, x: Tensor, layer: str, at: tuple[int, int] | None = None) -> Tensor:
    """How the units at one place of a layer, all channels added up, depend on every pixel.

    Args:
        model: any network; it is left as it was found.
        x: images, (B, C, H, W).
        layer: name of a layer with maps (B, K, h, w).
        at: row and column of the unit; None for the middle one, (h // 2, w // 2).

    Returns:
        The gradient with respect to the pixels, (B, C, H, W).

    Raises:
        ValueError: no such layer, one without places, or a place outside its maps.
    """
    with preserved(model), torch.enable_grad():
        pixels = check_images(x).detach().clone().requires_grad_()
        found: dict[str, Tensor] = {}
        module = named_modules(model, [layer])[layer]
        module.register_forward_hook(lambda _module, _inputs, output: found.update(maps=output.clone()))
        model(pixels)
        maps = found["maps"]
        if maps.ndim != 4:
            raise ValueError(f"layer {layer!r} must have maps (B, K, h, w), got {tuple(maps.shape)}")
        h, w = maps.shape[2:]
        i, j = (h // 2, w // 2) if at is None else at
        if not (0 <= i < h and 0 <= j < w):
            raise ValueError(f"at must lie within the maps of {h} x {w}, got {at}")
        return torch.autograd.grad(maps[:, :, i, j].sum(), pixels)[0]
