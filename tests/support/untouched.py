"""What every method of the book must keep: the network, and torch's settings, are left exactly as they were found.

    with assert_untouched(model):
        method(model, x, target)

`Boom` and `BackwardBoom` make networks whose forward, or backward, raises, for the same check after an exception.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack


class Boom(nn.Module):
    """A layer whose forward always raises RuntimeError("boom")."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("boom")


class BackwardBoom(nn.Module):
    """A layer that changes nothing, and whose backward always raises RuntimeError("boom")."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Raises.apply(x)


class _Raises(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("boom")


@contextmanager
def assert_untouched(model: nn.Module, *, draws: bool = True) -> Iterator[None]:
    """Fails when the block, also one that raises, leaves a trace on the model or on torch; names the first trace.

    With draws=False the block may not draw from torch's global generator either.
    """
    before = _state(model) | _settings(draws)
    try:
        yield
    finally:
        after = _state(model) | _settings(draws)
        assert before.keys() == after.keys(), f"came or went: {sorted(before.keys() ^ after.keys())}"
        changed = [key for key in before if before[key] != after[key]]
        assert not changed, f"{changed[0]}: was {before[changed[0]]!r:.80}, is {after[changed[0]]!r:.80}"


def _state(model: nn.Module) -> dict[str, object]:
    state: dict[str, object] = {}
    for name, module in model.named_modules():
        state[f"{name}: type"] = type(module)
        for key, value in vars(module).items():
            if key in ("training", "inplace", "_is_full_backward_hook", "forward"):
                state[f"{name}: {key}"] = value
            elif "_hooks" in key and value is not None:
                state[f"{name}: {key}"] = tuple(value.items())  # the hooks' numbers and the hooks, in order
            elif isinstance(value, torch.Tensor):
                state[f"{name}: {key}"] = _held(value)
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        state[f"{name}: grad"] = None if grad is None else _held(grad)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[f"{name}: values"] = _held(tensor)
    return state


def _settings(draws: bool) -> dict[str, object]:
    """What of torch holds for the whole process, or for the thread."""
    return {
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "random numbers": None if draws else _bytes(torch.get_rng_state()),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "anomalies": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "those that look on": tuple(map(id, _get_current_function_mode_stack())),
    }


def _held(tensor: torch.Tensor) -> tuple[object, ...]:
    """Which tensor it is, of which shape and dtype, and what it holds."""
    return id(tensor), tensor.shape, tensor.dtype, tensor.requires_grad, _bytes(tensor)


def _bytes(tensor: torch.Tensor) -> bytes:
    # A copy: numpy would bar the tensor's own storage from growing.
    copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return copy.flatten().view(torch.uint8).numpy().tobytes()
