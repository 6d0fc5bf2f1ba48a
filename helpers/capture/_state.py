"""Running a network, and leaving it as it was found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from helpers.capture._mixing import Mixing

ALONE = "give it one image a pass (x[:1], batch_size=1)"
MISFIT = re.compile(r"type|dtype|channels|shape|size|dimension", re.IGNORECASE)  # in what torch says of inputs
_independent: WeakSet[nn.Module] = WeakSet()  # networks that were seen to treat images one by one


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

    Raises:
        ValueError: a network with lazy layers, whose weights do not exist yet.
    """
    refuse_lazy(model)
    modules, parameters = list(model.modules()), list(model.parameters())
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


def is_packed(module: nn.Module) -> bool:
    """Whether a layer keeps weights where nothing can get at them, as quantised layers do."""
    return any(isinstance(value, torch.ScriptObject) for value in vars(module).values())


def refuse_lazy(model: nn.Module) -> None:
    """Raise ValueError for a network with layers that make their weights when they first run."""
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError("model must have its weights, got lazy layers that have never run: call model(x) once")


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
    watch = Mixing(x) if len(x) > 1 and model not in _independent else None  # which costs time, once for each network
    try:
        with _eager(model), watch or nullcontext():
            output = model(x)
    except RuntimeError as error:
        if "requires grad" in str(error):  # as where numbers are taken out of torch
            with differentiable():
                raise
        misfit = _misfit(model, x, str(error))
        if misfit is None:
            raise
        raise ValueError(f"{name} must {misfit}") from error
    answers = isinstance(output, Tensor) and output.ndim == 2 and len(output) == len(x)  # else it is refused elsewhere
    if watch and answers and watch.is_mixed(output) and _answers_differ(model, x):
        raise ValueError(f"model must treat the images of a batch independently, got an output across them: {ALONE}")
    if watch:
        _independent.add(model)
    return output


@contextmanager
def differentiable() -> Iterator[None]:
    """Turns what torch raises where it cannot differentiate into a ValueError with a way out."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"model must be such that torch can differentiate it, which says: {_first_sentence(error)}; occlusion and "
            "CAM need no gradient"
        ) from error


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].split(". ")[0]


def _answers_differ(model: nn.Module, x: Tensor) -> bool:
    """Whether two images get other outputs together than alone, by more than rounding; hooks are not called."""
    first, second = x[:1], x[:1] + 1 if torch.equal(x[0], x[1]) else x[1:2]
    registries = [r for m in model.modules() for r in (m._forward_hooks, m._forward_pre_hooks)]
    hooks = [dict(registry) for registry in registries]
    try:
        for registry in registries:
            registry.clear()
        with torch.no_grad(), _eager(model):
            alone = torch.cat([model(first.clone()), model(second.clone())])
            together = model(torch.cat([first, second]))
    finally:
        for registry, held in zip(registries, hooks, strict=True):
            registry.update(held)
    limit = torch.finfo(alone.dtype).eps ** 0.5 * alone.abs().amax()
    return alone.shape != together.shape or bool((alone - together).abs().amax() > limit)


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
                f"statistics in {name!r}: {ALONE}"
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
