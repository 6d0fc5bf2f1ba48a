"""What the grader and a student's process say to each other: plain values and tensors, never a pickle.

A message is eight bytes of length, eight of the length of its JSON, the JSON, and the tensors in safetensors' format.
Both sides read no more than that, so whatever a process of a student writes is a value or an error.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

HEADER = struct.Struct("<QQ")
LARGEST = 64 * 1024**2  # bytes of a message
DEEPEST = 20  # lists in lists
# Layers that a network may have which is sent, and the arguments that make each anew.
LAYERS: dict[str, tuple[str, ...]] = {
    "Conv2d": (
        *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
        "bias",
    ),
    "Linear": ("in_features", "out_features", "bias"),
    "BatchNorm2d": ("num_features",),
    "MaxPool2d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
    "AdaptiveAvgPool2d": ("output_size",),
    "AdaptiveMaxPool2d": ("output_size",),
    "Flatten": ("start_dim", "end_dim"),
    "Dropout": ("p",),
    "ReLU": (),
    "Sigmoid": (),
    "Identity": (),
}


class Unsendable(ValueError):
    """A value that is none of those which an answer may be."""


def encode(value: Any) -> bytes:
    """A message that says `value`.

    Raises:
        Unsendable: it is, or holds, something else than numbers, texts, tensors, arrays, networks of plain layers, and
            lists, tuples and dicts of them; or it is too large.
    """
    tensors: dict[str, torch.Tensor] = {}
    body = json.dumps(_said(value, tensors, 0)).encode()
    packed = save_tensors(tensors)
    if len(body) + len(packed) > LARGEST:
        raise Unsendable(f"an answer must have at most {LARGEST // 1024**2} MB")
    return HEADER.pack(len(body) + len(packed), len(body)) + body + packed


def decode(message: bytes) -> Any:
    """The value that a message says.

    Raises:
        ValueError: it is damaged.
    """
    length, split = HEADER.unpack(message[: HEADER.size])
    rest = message[HEADER.size :]
    if length != len(rest) or split > length:
        raise ValueError("a message whose lengths do not fit")
    try:
        return _read(json.loads(rest[:split]), load_tensors(rest[split:]))
    except Exception as error:  # a student's process may have written anything
        raise ValueError(f"a message that cannot be read: {type(error).__name__}") from error


def _said(value: Any, tensors: dict[str, torch.Tensor], depth: int) -> Any:
    if depth > DEEPEST:
        raise Unsendable("an answer must not be nested that deeply")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, float, str)):
        return {"value": value}
    if isinstance(value, int):
        if abs(value) >= 2**63:
            raise Unsendable("a whole number of an answer must have at most 63 bits")
        return {"value": int(value)}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_said(element, tensors, depth + 1) for element in value]}
    if isinstance(value, dict):
        pairs = [[_said(key, tensors, depth + 1), _said(element, tensors, depth + 1)] for key, element in value.items()]
        return {"dict": pairs}
    if isinstance(value, np.ndarray):
        return {"array": _kept(torch.from_numpy(np.array(value)), tensors)}
    if isinstance(value, torch.Tensor):
        return {"tensor": _kept(value, tensors)}
    if isinstance(value, nn.Module):
        return _network(value, tensors)
    raise Unsendable(f"an answer must be numbers, tensors, or lists of them, not {type(value).__name__}")


def _kept(tensor: torch.Tensor, tensors: dict[str, torch.Tensor]) -> str:
    """Put a tensor among those that are sent; its name there."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise Unsendable("a tensor of an answer must be a plain one")
    if tensor.numel() * tensor.element_size() > LARGEST:
        raise Unsendable(f"an answer must have at most {LARGEST // 1024**2} MB")
    name = str(len(tensors))
    tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return name


def _network(network: nn.Module, tensors: dict[str, torch.Tensor]) -> Any:
    """A network of plain layers one after the other, or one of the book's by its name."""
    card = getattr(network, "card", None)
    if card is not None:
        return {"load": str(card.name)}
    if not isinstance(network, nn.Sequential):
        raise Unsendable(f"a network must be an nn.Sequential of plain layers, not {type(network).__name__}")
    layers = []
    for layer in network:
        kind = type(layer).__name__
        if kind not in LAYERS or type(layer) is not getattr(nn, kind):
            raise Unsendable(f"a network of plain layers must not have {kind}")
        options = {name: _option(layer, name) for name in LAYERS[kind]}
        layers.append([kind, options])
    state = [[name, _kept(value, tensors)] for name, value in network.state_dict().items()]
    return {"network": layers, "state": state, "training": network.training}


def _option(layer: nn.Module, name: str) -> Any:
    value = getattr(layer, name)
    return value is not None if name == "bias" else value


def _read(said: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if "value" in said:
        return said["value"]
    if "list" in said:
        return [_read(element, tensors) for element in said["list"]]
    if "tuple" in said:
        return tuple(_read(element, tensors) for element in said["tuple"])
    if "dict" in said:
        return {_read(key, tensors): _read(element, tensors) for key, element in said["dict"]}
    if "array" in said:
        return tensors[said["array"]].numpy()
    if "tensor" in said:
        return tensors[said["tensor"]]
    if "load" in said:
        from helpers.networks import load

        return load(said["load"], "cpu")
    network = nn.Sequential(*(_layer(kind, options) for kind, options in said["network"]))
    network.load_state_dict({name: tensors[at] for name, at in said["state"]}, assign=True)  # in the precision it has
    return network.train(said["training"])


def _layer(kind: str, options: dict[str, Any]) -> nn.Module:
    if kind not in LAYERS or set(options) != set(LAYERS[kind]):
        raise ValueError(f"an unknown layer: {kind}")
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return getattr(nn, kind)(**options)
