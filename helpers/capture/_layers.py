"""Layers: their names, those that a network runs, and which of their axes are what."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from helpers._validate import check_images, check_model, describe
from helpers.capture._axes import ChannelAxes, noted_axis
from helpers.capture._state import preserved, run

INPUT = "input"  # the name of x itself among the layers
EVERY_CALL = "#*"  # behind the name of a module: all its calls that give feature maps
Layer = str | nn.Module


def layer_names(model: nn.Module, kind: type | tuple[type, ...] = nn.Module) -> list[str]:
    """Names of the leaf modules, in order of registration.

    Args:
        model: any network.
        kind: keep only leaves of this type (or these types), for example `nn.Conv2d`.

    Returns:
        Names that `activations`, `gradients` and `masked_forward` accept. Those accept inner modules
        too ("layer4"); a module registered under two names is listed once.
    """
    modules = check_model(model).named_modules()
    leaves = ((name, module) for name, module in modules if name and not any(module.children()))
    return [name for name, module in leaves if isinstance(module, kind)]


def layer_name(model: nn.Module, layer: Any, name: str = "layer") -> str:
    """The name of a layer that is given by its name or as the module itself.

    Args:
        model: any network.
        layer: a name, or a module of the network.
        name: of the argument, for the message.

    Raises:
        ValueError: neither, or a module of another network. Whether there is such a name is seen where it runs.
    """
    if isinstance(layer, str):
        return layer
    if not isinstance(layer, nn.Module):
        raise ValueError(f"{name} must be the name of one layer, or the module itself, got {describe(layer)}")
    for known, module in model.named_modules(remove_duplicate=False):
        if module is layer and known:
            return known
    if layer is model:
        raise ValueError(f"{name} must be a module inside the network, got the network itself")
    kind = type(layer).__name__
    raise ValueError(f"{name} must be a module of this network, got a {kind} that is none of them (a copy's, perhaps)")


def single_layer(model: nn.Module, layer: Any) -> str:
    """`layer_name`, but a name that stands for every call of a layer ("relu#*") is refused."""
    name = layer_name(model, layer)
    if name.endswith(EVERY_CALL):
        raise ValueError(f"layer must be the name of one layer, or of one call, {name[:-1]}1 ..., got {name!r}")
    return name


def feature_layers(model: nn.Module, x: Tensor) -> dict[str, tuple[int, int, int]]:
    """The modules that give feature maps of more than one place, as they run.

    Args:
        model: any network; it is left as it was found.
        x: images, (B, C, H, W).

    Returns:
        name -> (C, h, w), in the order in which they run; a module around others comes after them.

    Raises:
        ValueError: images that do not fit the network.
    """
    return _looked_at(model, x)[0]


def _looked_at(model: nn.Module, x: Tensor) -> tuple[dict[str, tuple[int, int, int]], list[str], Counter[str]]:
    """`feature_layers`; the calls whose maps an activation function gave, the innermost ones; how often each ran."""
    names = {module: name for name, module in check_model(model).named_modules() if name}
    shapes: dict[str, tuple[int, int, int]] = {}
    active: dict[str, Tensor] = {}
    runs: Counter[str] = Counter()
    image = check_images(x)[:1].detach().clone()

    def note(module: nn.Module, _inputs: tuple, output: object) -> None:
        name = names[module]
        runs[name] += 1
        if isinstance(output, Tensor) and is_feature_maps(module, output, image, axes.of(output)):
            shapes.pop(name, None)  # of several runs the last one's place in the order
            channels, height, width = output.shape[1:]
            shapes[name] = (channels, height, width)
            if axes.is_active(output) and not any(output is maps for maps in active.values()):
                active[f"{name}#{runs[name]}"] = output

    refuse_script(model, "layers can be found")
    with preserved(model), torch.no_grad(), ChannelAxes(image) as axes:  # `preserved` removes the hooks
        for module in names:
            module.register_forward_hook(note)
        run(model, image)
    return shapes, list(active), runs


def last_feature_layer(model: nn.Module, x: Tensor) -> str:
    """The last module that gives feature maps of more than one place, poolings to a fixed size left out.

    Args:
        model: any network; it is left as it was found.
        x: images, (B, C, H, W).

    Raises:
        ValueError: there is none; or images that do not fit.
    """
    fixed = nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d
    names = [name for name in feature_layers(model, x) if not isinstance(model.get_submodule(name), fixed)]
    if not names:
        raise ValueError("model must have a layer with feature maps (B, C, h, w) of more than one place, got none")
    return names[-1]


def suggested_layers(model: nn.Module, x: Tensor, count: int = 6) -> str:
    """Names of the last layers with feature maps, for the end of an error: activated ones where there are any."""
    layers, active, runs = _looked_at(model, x)
    leaves = [f"{name}#{runs[name]}" for name in layers if not any(model.get_submodule(name).children())]
    calls = [call.removesuffix("#1") if runs[call.partition("#")[0]] == 1 else call for call in active or leaves]
    return ", ".join(map(repr, calls[-count:])) or "none (input_gradient and occlusion need no layer)"


def is_feature_maps(module: nn.Module, output: Tensor, x: Tensor, axis: int | None) -> bool:
    """Whether a module's output is feature maps (B, C, h, w) of more than one place, and not (B, h, w, C) or a table.

    `axis` is that of its channels. Where it is not known, the sides must go with those of the images: layers divide
    both alike, and borders take the same from both.
    """
    if output.ndim != 4 or len(output) != len(x) or output[0, 0].numel() == 1:
        return False
    return axis == 1 if axis is not None else not _is_last(module) and _sides_fit(*output.shape[2:], x)


def check_feature_maps(maps: Tensor, layer: str, model: nn.Module, x: Tensor, name: str = "layer") -> Tensor:
    """Return what a layer gave unchanged if it is feature maps, (B, C, h, w).

    Args:
        maps: the activations.
        layer: its name, for the message.
        model: its network, for the names of layers that have some.
        x: the images, (B, C, H, W).
        name: of the argument, for the message.

    Raises:
        ValueError: another rank, or maps (B, h, w, C) with the channels last, as in Swin, or a table of attention.
    """
    if maps.ndim != 4 or len(maps) != len(x):
        got = f"{layer!r} with {tuple(maps.shape)}; layers that have some are {suggested_layers(model, x)}"
        raise ValueError(f"{name} must have feature maps (B, C, h, w), got {got}")
    if layer == INPUT:
        return maps
    base, _, number = layer.partition("#")
    module = dict(model.named_modules(remove_duplicate=False))[base]
    axis = noted_axis(module, int(number or 1))
    if axis is None:
        last = _sides_fit(*maps.shape[1:3], x) and not _sides_fit(*maps.shape[2:], x)
        axis = 3 if last or _is_last(module) else 1
    if axis != 1:
        what = "its channels last" if axis == 3 else "whose second axis is none of channels"
        got = f"{layer!r} with {tuple(maps.shape)}, {what}; layers that do are {suggested_layers(model, x)}"
        raise ValueError(f"{name} must have feature maps (B, C, h, w), got {got}")
    return maps


def _is_last(module: nn.Module) -> bool:
    """Whether a module works on the last axis: what it gives, if it has four axes, is (B, h, w, C)."""
    # Subclasses, such as torchvision's LayerNorm2d, may move the axes themselves.
    return type(module) is nn.Linear or (type(module) is nn.LayerNorm and len(module.normalized_shape) == 1)


def _sides_fit(height: int, width: int, x: Tensor) -> bool:
    """Whether maps of this size can have come from the images: they are as much higher than wide, or less, up to 1."""
    longer = x.shape[-2] - x.shape[-1]
    return min(longer, 0) - 1 <= height - width <= max(longer, 0) + 1


def named_modules(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules that these names stand for.

    Args:
        model: any network.
        names: as `activations` takes them; of "relu#2" the module "relu" is looked up, "input" is left out.

    Returns:
        name, without the number of the call -> module.

    Raises:
        ValueError: an unknown name, for which the nearest ones, or the last ones, are listed; or a network of
            TorchScript.
    """
    check_model(model)
    if "" in names:
        raise ValueError("layer must be a module inside the network, got the network itself, ''")
    if INPUT in names and INPUT in model._modules:
        raise ValueError(f"model must have no module named {INPUT!r}, which stands for x, got one: rename it")
    bases = [name.partition("#")[0] for name in names if name != INPUT]
    if not bases:
        return {}
    known = dict(model.named_modules(remove_duplicate=False))
    del known[""]
    for base in bases:
        if base not in known:
            near = difflib.get_close_matches(base, known, n=5, cutoff=0.6)
            said = f"the nearest names are {', '.join(near)}" if near else f"the last ones are {_last_names(model)}"
            raise ValueError(f"layer must be one of the network's, got {base!r}; {said}")
    refuse_script(model, "layers can be looked into")
    return {base: known[base] for base in bases}


def _last_names(model: nn.Module) -> str:
    return ", ".join(layer_names(model)[-10:])


def refuse_script(model: nn.Module, what: str) -> None:
    """Raise ValueError for a traced or scripted network, or one with such a part: no Python looks on when it runs."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in check_model(model).modules()):
        raise ValueError(f"model must not be TorchScript, so that {what}: give the network that was traced or scripted")
