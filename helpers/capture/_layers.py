"""Layers: their names, those that a network runs, and which of their axes are what."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from helpers._validate import check_images, check_model, describe
from helpers.capture._state import preserved, run

INPUT = "input"  # the name of x itself among the layers
EVERY_CALL = "#*"  # behind the name of a module: all its calls that give feature maps
Layer = str | nn.Module
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish)


def layer_names(model: nn.Module, kind: type | tuple[type, ...] = nn.Module) -> list[str]:
    """Names of the leaf modules, in order of registration.

    Args:
        model: any network.
        kind: keep only leaves of this type (or these types), for example `nn.Conv2d`.

    Returns:
        Names that `activations`, `gradients` and `masked_forward` accept. Those accept inner modules
        too ("layer4"); a module registered under two names is listed once.
    """
    leaves = (
        (name, module) for name, module in check_model(model).named_modules() if name and not any(module.children())
    )
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
    kind = type(layer).__name__
    raise ValueError(f"{name} must be a module of this network, got a {kind} that is none of them (a copy's, perhaps)")


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
    names = {module: name for name, module in check_model(model).named_modules() if name}
    shapes: dict[str, tuple[int, int, int]] = {}
    image = check_images(x)[:1].detach().clone()

    def note(module: nn.Module, _inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and is_feature_maps(module, output, image):
            shapes.pop(names[module], None)  # of several runs the last one's place in the order
            channels, height, width = output.shape[1:]
            shapes[names[module]] = (channels, height, width)

    refuse_script(model, "layers can be found")
    with preserved(model), torch.no_grad():  # which removes the hooks
        for module in names:
            module.register_forward_hook(note)
        run(model, image)
    return shapes


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
    """Names of the last layers with feature maps, for the end of an error: activation functions where there are any."""
    leaves = [name for name in feature_layers(model, x) if not any(model.get_submodule(name).children())]
    active = [name for name in leaves if isinstance(model.get_submodule(name), ACTIVATIONS)]
    return ", ".join(map(repr, (active or leaves)[-count:])) or "none"


def is_feature_maps(module: nn.Module, output: Tensor, x: Tensor) -> bool:
    """Whether a module's output is feature maps (B, C, h, w) of more than one place, and not (B, h, w, C) or a table.

    The sides of maps go with those of the images: layers divide both alike, and borders take the same from both.
    """
    return (
        output.ndim == 4
        and len(output) == len(x)
        and output[0, 0].numel() > 1
        and not _is_last(module)
        and _sides_fit(*output.shape[2:], x)
    )


def check_feature_maps(maps: Tensor, layer: str, model: nn.Module, x: Tensor) -> Tensor:
    """Return what a layer gave unchanged if it is feature maps, (B, C, h, w).

    Args:
        maps: the activations.
        layer: its name, for the message.
        model: its network, for the names of layers that have some.
        x: the images, (B, C, H, W).

    Raises:
        ValueError: another rank, or maps (B, h, w, C) with the channels last, as in Swin.
    """
    if maps.ndim != 4 or len(maps) != len(x):
        got = f"{layer!r} with {tuple(maps.shape)}; layers that have some are {suggested_layers(model, x)}"
        raise ValueError(f"layer must have feature maps (B, C, h, w), got {got}")
    module = dict(model.named_modules(remove_duplicate=False)).get(layer.partition("#")[0])
    last = _sides_fit(*maps.shape[1:3], x) and not _sides_fit(*maps.shape[2:], x)
    if last or (module is not None and _is_last(module)):
        got = f"{layer!r} with {tuple(maps.shape)}, its channels last; layers that do are {suggested_layers(model, x)}"
        raise ValueError(f"layer must have feature maps (B, C, h, w), got {got}")
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
    known = dict(check_model(model).named_modules(remove_duplicate=False))
    del known[""]
    if INPUT in names and INPUT in known:
        raise ValueError(f"model must have no module named {INPUT!r}, which stands for x, got one: rename it")
    bases = [name.partition("#")[0] for name in names if name != INPUT]
    for base in bases:
        if base not in known:
            near = difflib.get_close_matches(base, known, n=5, cutoff=0.6)
            said = f"the nearest names are {', '.join(near)}" if near else f"the last ones are {_last_names(model)}"
            raise ValueError(f"layer must be one of the network's, got {base!r}; {said}")
    if bases:
        refuse_script(model, "layers can be looked into")
    return {base: known[base] for base in bases}


def _last_names(model: nn.Module) -> str:
    return ", ".join(layer_names(model)[-10:])


def refuse_script(model: nn.Module, what: str) -> None:
    """Raise ValueError for a traced or scripted network, or one with such a part: no Python looks on when it runs."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in check_model(model).modules()):
        raise ValueError(f"model must not be TorchScript, so that {what}: give the network that was traced or scripted")
