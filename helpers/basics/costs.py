"""What each layer of a network makes and costs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.capture import preserved


class LayerCost(NamedTuple):
    """What one layer makes and costs for a single image."""

    layer: str
    kind: str
    output: tuple[int, ...]  # without the batch
    parameters: int
    multiply_adds: int


def layer_costs(model: nn.Module, shape: tuple[int, ...]) -> list[LayerCost]:
    """Output shape, parameters and multiply-adds of every layer, in the order of the forward pass.

    Implements :eq:`eq-cost`, chapter 1. Operations are counted while they run (torch's own counter), so any module
    will do; as usual only multiply-adds of convolutions and matrix products count, not additions of biases, ReLUs or
    maxima. A layer that runs twice is listed twice, its parameters once.

    Args:
        model: any module, on any device (on "meta" nothing is computed and no memory is needed).
        shape: of one image, (C, H, W).

    Raises:
        ValueError: shape is not (C, H, W).
    """
    if len(shape) != 3:
        raise ValueError(f"shape must be that of one image, (C, H, W), got {shape}")
    first = next(model.parameters(), torch.empty(0))
    rows: list[LayerCost] = []
    before: dict[nn.Module, int] = {}
    seen: set[int] = set()  # parameters counted already, by identity
    with preserved(model), torch.no_grad(), FlopCounterMode(display=False) as counter:

        def start(module: nn.Module, _: object) -> None:
            before[module] = counter.get_total_flops()

        def stop(module: nn.Module, _: object, output: Tensor) -> None:
            fresh = [p for p in module.parameters() if id(p) not in seen]
            seen.update(map(id, fresh))
            spent = (counter.get_total_flops() - before[module]) // 2  # one multiply-add is two operations
            made = sum(p.numel() for p in fresh)
            rows.append(LayerCost(names[module], type(module).__name__, tuple(output.shape[1:]), made, spent))

        names = {module: name for name, module in model.named_modules() if not any(module.children())}
        for module in names:  # `preserved` takes the hooks away again
            module.register_forward_pre_hook(start)
            module.register_forward_hook(stop)
        model(torch.zeros(1, *shape, device=first.device, dtype=first.dtype))
    return rows
