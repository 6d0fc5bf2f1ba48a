"""What every method of the book must keep: the network is left exactly as it was found.

    with assert_untouched(model):
        method(model, x, target)

`Boom` makes a network whose forward raises, for the same check after an exception.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Boom(nn.Module):
    """A layer whose forward always raises RuntimeError("boom")."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("boom")


@contextmanager
def assert_untouched(model: nn.Module) -> Iterator[None]:
    """Fails when the block, also one that raises, leaves a trace on the model; names the first trace."""
    before = _state(model)
    try:
        yield
    finally:
        after = _state(model)
        assert before.keys() == after.keys(), f"came or went: {sorted(before.keys() ^ after.keys())}"
        changed = [key for key in before if before[key] != after[key]]
        assert not changed, f"{changed[0]}: was {before[changed[0]]!r:.80}, is {after[changed[0]]!r:.80}"


def _state(model: nn.Module) -> dict[str, object]:
    state: dict[str, object] = {}
    for name, module in model.named_modules():
        state[f"{name}: type"] = type(module)
        for key, value in vars(module).items():
            if key in ("training", "inplace"):
                state[f"{name}: {key}"] = value
            elif "_hooks" in key and value is not None:
                state[f"{name}: {key}"] = tuple(value)  # the hooks' numbers, in order
            elif isinstance(value, torch.Tensor):
                state[f"{name}: {key}"] = _bytes(value)
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        state[f"{name}: requires_grad"] = parameter.requires_grad
        state[f"{name}: grad"] = None if grad is None else (id(grad), _bytes(grad))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[f"{name}: values"] = (id(tensor), _bytes(tensor))
    return state


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
