"""Running a network, and leaving it as it was found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from helpers._validate import check_model
from helpers.capture._mixing import Mixing

ALONE = "give it one image a pass (x[:1], batch_size=1)"
MISFIT = re.compile(r"type|dtype|channels|shape|size|dimension", re.IGNORECASE)  # in what torch says of inputs
_independent: WeakSet[nn.Module] = WeakSet()  # networks that were seen to treat images one by one

STANDARD = frozenset(vars(nn.Module()))  # attributes that every module has
REGISTRIES = ("_buffers", *sorted(name for name in STANDARD if "_hooks" in name))
PLAIN = frozenset({bool, int, float, str, tuple, type(None)})  # types of attributes that hold neither tensors nor hooks
FLAGS = ("inplace", "_is_full_backward_hook")
SMALL = 2**14  # numbers; tensors up to this size are copied and compared together


@contextmanager
def preserved(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode with frozen parameters inside; afterwards the model exactly as it was found.

    Put back, also after an exception: each module's `training` and `inplace` flags and hooks (those added
    inside are removed), its buffers and other tensors with what they held, each parameter's `requires_grad` and
    `.grad`. Flags are set module by module, because a module may override `train()`, and modules may be in mixed modes.
    Not put back: a tensor that a forward sets for the first time, and what is no tensor, such as a counter.

    Args:
        model: any network.

    Yields:
        The same model.

    Raises:
        ValueError: a network with lazy layers, whose weights do not exist yet.
    """
    refuse_lazy(check_model(model))
    modules = _modules(model)
    attributes = [vars(module) for module in modules]
    flags = [{key: own[key] for key in FLAGS if key in own} for own in attributes]
    odd = [[e for e in own.items() if e[0] not in STANDARD and type(e[1]) not in PLAIN] for own in attributes]
    # The weight that old weight normalisation computes is such a tensor: no parameter, no buffer.
    tensors = [{key: value for key, value in own if isinstance(value, Tensor)} for own in odd]
    registries = [own[key] for own in attributes for key in REGISTRIES if isinstance(own.get(key), dict)]
    registries += [value for own in odd for key, value in own if "_hooks" in key and isinstance(value, dict)]
    filled = [(registry, dict(registry)) for registry in registries if registry]
    buffers = [buffer for module in modules for buffer in module._buffers.values() if buffer is not None]
    held = _Copies([*buffers, *(tensor for own in tensors for tensor in own.values())])
    parameters = [value for module in modules for value in module._parameters.values() if value is not None]
    grads = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    modes = [module.training for module in modules]  # TorchScript keeps them elsewhere
    try:
        _set_modes(modules, [False] * len(modules))
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield model
    finally:
        _set_modes(modules, modes)
        for own, saved, before in zip(attributes, flags, tensors, strict=True):
            own.update(saved)
            own.update(before)
        for registry in registries:
            if registry:
                registry.clear()
        for registry, saved in filled:
            registry.update(saved)
        held.put_back()
        for parameter, (requires_grad, grad) in zip(parameters, grads, strict=True):
            if parameter.requires_grad != requires_grad:
                with torch.inference_mode(parameter.is_inference()):  # elsewhere torch refuses it for such tensors
                    parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _modules(model: nn.Module) -> list[nn.Module]:
    """What `model.modules()` gives, in another order and several times as fast."""
    modules, seen = [model], {model}
    for module in modules:  # which grows meanwhile
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                modules.append(child)
    return modules


def _set_modes(modules: Sequence[nn.Module], modes: Sequence[bool]) -> None:
    """Set the `training` flag of each module; past `__setattr__`, which takes its time, where there is one."""
    for module, mode in zip(modules, modes, strict=True):
        own = vars(module)
        if "training" in own:
            own["training"] = mode
        else:
            module.training = mode


class _Copies:
    """What tensors hold, to be put back where it has changed.

    That it has changed is seen by comparing: what writes by way of `.data` is not counted in a tensor's version. Small
    tensors of a kind are copied and compared as one, which takes a tenth of the time.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.alone: list[tuple[Tensor, Tensor]] = []
        self.counted: list[tuple[Tensor, int, Tensor]] = []  # sparse and nested ones, which torch does not compare
        self.joined: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for each in tensors:
            if each.is_meta:  # holds nothing
                continue
            if each.is_nested or each.layout != torch.strided:
                if not each.is_inference():
                    self.counted.append((each, each._version, each.detach().clone()))
            elif each.numel() <= SMALL and not each.is_quantized:
                self.joined.setdefault((each.dtype, each.device), []).append(each)
            else:
                self.alone.append((each, each.detach().clone()))
        self.shapes = {kind: [each.shape for each in group] for kind, group in self.joined.items()}
        self.lines = {kind: _line(group) for kind, group in self.joined.items()}

    def put_back(self) -> None:
        for tensor, copy in self.alone:
            _put_back(tensor, copy)
        for tensor, version, copy in self.counted:
            if tensor._version != version:
                with torch.no_grad():
                    tensor.copy_(copy)
        for kind, group in self.joined.items():
            line = self.lines[kind]
            if not torch.equal(_line(group), line):
                shapes = self.shapes[kind]
                parts = line.split([shape.numel() for shape in shapes])
                for tensor, part, shape in zip(group, parts, shapes, strict=True):
                    _put_back(tensor, part.view(shape))


def _line(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers of some tensors, one after the other; a copy."""
    with torch.no_grad():
        return torch.cat([tensor if tensor.ndim == 1 else tensor.reshape(-1) for tensor in tensors])


def _put_back(tensor: Tensor, copy: Tensor) -> None:
    """Write into a tensor what it held, unless it holds it: to write would break a graph that saved the tensor."""
    if tensor.shape == copy.shape and torch.equal(tensor, copy):
        return
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if tensor.shape != copy.shape:
            tensor.resize_(copy.shape)
        # Along an axis that was expanded there is one number, which may be written once.
        once = tuple(slice(1) if step == 0 else slice(None) for step in tensor.stride())
        tensor[once].copy_(copy[once])


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
    if len(x) > 1:
        _refuse_mixing(model)
    watch = Mixing(x) if len(x) > 1 and model not in _independent else None  # which costs time, once for each network
    with _eager(model), watch or nullcontext():
        output = fitting(model, x, name)
    answers = isinstance(output, Tensor) and output.ndim == 2 and len(output) == len(x)  # else it is refused elsewhere
    if watch and answers and watch.is_mixed(output) and _answers_differ(model, x):
        raise ValueError(f"model must treat the images of a batch independently, got an output across them: {ALONE}")
    if watch:
        _independent.add(model)
    return output


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
        if "requires grad" in str(error):  # as where numbers are taken out of torch
            with differentiable():
                raise
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


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Inside, what torch.compile made of a network, or of parts of it, runs as it was written, and calls our hooks."""
    compiled = [module for module in _modules(model) if type(module).__name__ == "OptimizedModule"]
    forwards = [vars(module).get("forward") for module in compiled]
    try:
        for module in compiled:
            vars(module)["forward"] = module._orig_mod
        yield
    finally:
        for module, forward in zip(compiled, forwards, strict=True):
            vars(module).pop("forward") if forward is None else vars(module).update(forward=forward)


def _refuse_mixing(model: nn.Module) -> None:
    if not any(isinstance(module, _BatchNorm) and module.running_mean is None for module in _modules(model)):
        return
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ValueError(
                "model must treat the images of a batch independently, got batch normalisation without running "
                f"statistics in {name!r}: {ALONE}"
            )


def _misfit(model: nn.Module, x: Tensor, said: str) -> str | None:
    """What is wrong with images that a network cannot take, judged by what torch said; None where it is not they."""
    devices = {parameter.device for parameter in model.parameters()}
    if devices and x.device not in devices:
        return f"be on the network's device, {', '.join(map(str, devices))}, got {x.device}"
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
