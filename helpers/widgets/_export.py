"""Networks and arrays for the reader's browser: what `front/nn.js` computes with."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers.networks import AngularPad2d

DTYPES = {"float32", "float16", "uint8", "int8", "int32"}  # that front/nn.js reads
LEVELS = 127  # of int8, to both sides of zero


def packed(x: Tensor | np.ndarray) -> dict[str, Any]:
    """An array as front/nn.js decodes it: its dtype, shape and bytes, row by row.

    Raises:
        ValueError: a dtype that a browser is not handed.
    """
    values = np.ascontiguousarray(x.detach().cpu().numpy() if isinstance(x, Tensor) else x)
    if values.dtype.name not in DTYPES:
        raise ValueError(f"x must be of dtype {', '.join(sorted(DTYPES))}, got {values.dtype}")
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return {"dtype": values.dtype.name, "shape": list(values.shape), "data": little.tobytes()}


def pixels(x: Tensor) -> dict[str, Any]:
    """Images with values in [0, 1] as `packed`: in bytes, a quarter of the size, where that loses nothing."""
    x = x.detach().float().cpu()
    bytes_ = (x * 255).round()
    return packed(bytes_.to(torch.uint8) if torch.allclose(bytes_ / 255, x, rtol=0, atol=1e-6) else x)


def exported(model: nn.Sequential, prefix: str = "") -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """A chain of layers as `front/nn.js` runs it.

    Weights that are half-precision numbers, as those of the shipped networks are, are handed over as such, those of
    `rounded` networks in bytes. Batch
    normalisation becomes part of the convolution before it.

    Args:
        model: a network of the book, or a part of one.
        prefix: before the names of its arrays, where a page has several networks.

    Returns:
        Its layers, and its weights by the names that the layers give.

    Raises:
        ValueError: a layer that the browser cannot compute.
    """
    layers: list[dict[str, Any]] = []
    arrays: dict[str, dict[str, Any]] = {}
    for name, module in model.named_children():
        if isinstance(module, nn.BatchNorm2d):
            _fold(module, layers[-1], arrays)
            continue
        layer = {"name": name, **_layer(name, module)}
        for kind in ("weight", "bias"):
            values = getattr(module, kind, None)
            if isinstance(values, Tensor):
                layer[kind] = f"{prefix}{name}.{kind}"
                arrays[layer[kind]] = _smallest(values)
        layers.append(layer)
    return layers, arrays


def rounded(model: nn.Sequential) -> nn.Sequential:
    """A copy of a network whose weights are whole multiples of a power of two, 127 at most, tensor by tensor.

    A browser loads them in a byte each. They are off by less than a hundredth of the tensor's largest.
    """
    copy = deepcopy(model).requires_grad_(False)
    for values in copy.parameters():
        unit = _unit(values)
        values.copy_((values / unit).round() * unit)
    return copy


def _unit(values: Tensor) -> float:
    """The power of two of which 127 are at least as large as the largest value."""
    return 2.0 ** math.ceil(math.log2(max(float(values.abs().max()), torch.finfo(torch.float32).tiny) / LEVELS))


def _layer(name: str, module: nn.Module) -> dict[str, Any]:
    """The type of a layer and its settings."""
    if isinstance(module, nn.Conv2d):
        step, spread = module.stride[0], module.dilation[0]
        plain = module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        if plain and set(module.stride) == {step} and set(module.dilation) == {spread}:
            sizes = {"kernel": list(module.kernel_size), "out": module.out_channels, "padding": list(module.padding)}
            return {"type": "conv", **sizes, "stride": step, "dilation": spread}
    if isinstance(module, nn.Linear):
        return {"type": "linear", "out": module.out_features}
    if isinstance(module, nn.ReLU):
        return {"type": "relu"}
    if isinstance(module, nn.Flatten):
        return {"type": "flatten"}
    if isinstance(module, AngularPad2d):
        return {"type": "wrap", "pad": module.pad}
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return {"type": "gap"}
    if isinstance(module, nn.AdaptiveMaxPool2d):
        return {"type": "gmp"}
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d) and module.kernel_size == module.stride and module.padding == 0:
        return {"type": "maxpool" if isinstance(module, nn.MaxPool2d) else "avgpool", "size": module.kernel_size}
    raise ValueError(f"model must be made of layers that the browser knows, got {name!r}, {module}")


def _fold(norm: nn.BatchNorm2d, layer: dict[str, Any], arrays: dict[str, dict[str, Any]]) -> None:
    """Let the convolution before a batch normalisation do its work."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("model must normalise by what training has measured, got a layer that measures each batch")
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    entry = arrays[layer["weight"]]
    weight = torch.from_numpy(np.frombuffer(entry["data"], entry["dtype"]).astype(np.float32).reshape(entry["shape"]))
    arrays[layer["weight"]] = packed(weight * scale.cpu()[:, None, None, None])
    layer["bias"] = layer["weight"].removesuffix("weight") + "bias"
    arrays[layer["bias"]] = packed((norm.bias - norm.running_mean * scale).float())


def _smallest(values: Tensor) -> dict[str, Any]:
    """Weights in a byte each (see `rounded`), or in half precision, where that loses nothing."""
    values = values.detach().float().cpu()
    if not values.isfinite().all():  # the browser says what is wrong, beside the figure
        return packed(values)
    unit = _unit(values)
    whole = (values / unit).round()
    if torch.equal(whole * unit, values):
        return packed(whole.to(torch.int8)) | {"unit": unit}
    return packed(values.half() if torch.equal(values.half().float(), values) else values)
