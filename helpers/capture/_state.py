"""Running a network, and leaving it as it was found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from helpers._validate import check_model

MISFIT = re.compile(r"type|dtype|channels|shape|size|dimension", re.IGNORECASE)  # in what torch says of inputs


@contextmanager
def preserved(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode with frozen parameters inside; afterwards the model exactly as it was found.

    Put back, also after an exception: each module's `training` and `inplace` flags and hooks (those added
    inside are removed), its buffers and its other tensors, each parameter's `requires_grad` and `.grad`. Flags are set
    module by module, because a module may override `train()`, and modules may be in mixed modes.

    Args:
        model: any network.

    Yields:
        The same model.
    """
    modules, parameters = list(check_model(model).modules()), list(model.parameters())
    flags = [{key: vars(m)[key] for key in ("training", "inplace") if key in vars(m)} for m in modules]
    # The weight that old weight normalisation computes is such a tensor: no parameter, no buffer.
    tensors = [{key: value for key, value in vars(m).items() if isinstance(value, Tensor)} for m in modules]
    registries = [
        value
        for m in modules
        for key, value in vars(m).items()
        if ("_hooks" in key or key == "_buffers") and isinstance(value, dict)
    ]
    entries = [(registry, dict(registry)) for registry in registries]
    buffers = [(buffer, _version(buffer), buffer.clone()) for buffer in model.buffers()]
    grads = [(p.requires_grad, p.grad) for p in parameters]
    try:
        for module in modules:
            module.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, saved, held in zip(modules, flags, tensors, strict=True):
            vars(module).update(saved | held)
        for registry, saved in entries:
            registry.clear()
            registry.update(saved)
        for buffer, version, copy in buffers:
            if version is None or buffer._version != version:
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.resize_(copy.shape).copy_(copy)
        for parameter, (requires_grad, grad) in zip(parameters, grads, strict=True):
            if parameter.requires_grad != requires_grad:
                with torch.inference_mode(parameter.is_inference()):  # elsewhere torch refuses it for such tensors
                    parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def run(model: nn.Module, x: Tensor, name: str = "x") -> Any:
    """What a network gives for images. Whether they fit it is found out by running it.

    Args:
        model: any network, inside `preserved`.
        x: images, (B, C, H, W).
        name: of the argument, for the message.

    Raises:
        ValueError: images that do not fit, or a network in which the images of a batch influence each other.
    """
    devices = {parameter.device for parameter in model.parameters()}
    if devices and x.device not in devices:
        raise ValueError(f"{name} must be on the network's device, {', '.join(map(str, devices))}, got {x.device}")
    if len(x) > 1:
        _refuse_mixing(model)
    with _eager(model):
        return fitting(model, x, name)


def fitting(model: nn.Module, x: Tensor, name: str = "x") -> Any:
    """What a network gives for images, as it stands; in what `run` does the rest is prepared.

    Args:
        model: any network.
        x: images, (B, C, H, W).
        name: of the argument, for the message.

    Raises:
        ValueError: images that do not fit.
    """
    try:
        return model(x)
    except RuntimeError as error:
        misfit = _misfit(model, x, str(error))
        if misfit is None:
            raise
        raise ValueError(f"{name} must {misfit}") from error


def refuse_inference(model: nn.Module) -> None:
    """ValueError for a network of which no gradient can be asked, as its parameters were made in inference mode."""
    if any(parameter.is_inference() for parameter in check_model(model).parameters()):
        raise ValueError(
            "model must be made outside torch.inference_mode() for gradients, got parameters that were made inside: "
            "copy.deepcopy(model) outside makes usable ones. Occlusion and CAM need no gradient"
        )


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written into; None for those that keep no count."""
    return None if tensor.is_inference() else tensor._version


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Inside, what torch.compile made of a network, or of parts of it, runs as it was written, and calls our hooks."""
    compiled = [module for module in model.modules() if type(module).__name__ == "OptimizedModule"]
    forwards = [vars(module).get("forward") for module in compiled]
    try:
        for module in compiled:
            vars(module)["forward"] = module._orig_mod
        yield
    finally:
        for module, forward in zip(compiled, forwards, strict=True):
            vars(module).pop("forward") if forward is None else vars(module).update(forward=forward)


def _refuse_mixing(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ValueError(
                "model must treat the images of a batch independently, got batch normalisation without running "
                f"statistics in {name!r}: give it one image a pass (x[:1], batch_size=1)"
            )


def _misfit(model: nn.Module, x: Tensor, said: str) -> str | None:
    """What is wrong with images that a network cannot take, judged by what torch said; None where it is not they."""
    dtypes = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    if dtypes and x.dtype not in dtypes:
        return f"be {dtypes[0]}, as the network's weights are, got {x.dtype}"
    channels = re.search(r"to have (\d+) channels, but got (\d+) channels", said)
    if channels and int(channels[2]) == x.shape[1]:
        needed = channels[1]
        return f"have {needed} channels, (B, {needed}, H, W), got {tuple(x.shape)}"
    if MISFIT.search(said):
        return f"fit the network, got {tuple(x.shape)} of {x.dtype}, of which it says: {said.splitlines()[0]}"
    return None
