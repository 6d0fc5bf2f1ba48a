"""LICNN as its seven steps read, class by class: what the book's own is measured against in the benchmark."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.licnn import inhibition_kernel

K, A, B = 7, 0.1, 0.9  # side of the zone in places, weights of the average and the differential term


def inhibition_by_unfolding(x: Tensor) -> Tensor:
    """Equation 3 for maps (N, h, w), with all neighbours side by side: 49 copies of the map."""
    count, height, width = x.shape
    zones = F.unfold(x[:, None], K, padding=K // 2).view(count, K * K, height, width)
    weights = inhibition_kernel(K).flatten().to(x)[:, None, None]
    return A * torch.exp(-zones.mean(1)) + B * (weights * torch.relu(zones - x[:, None])).sum(1)


def attention_by_steps(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """The attention map of one class an image, every step as it is written.

    Args:
        model: a network whose ReLU modules each run once, in the order they were defined in, and not in place.
        x: images, (N, C, H, W).
        target: (N,).

    Returns:
        (N, H, W), of unit norm.
    """
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        outputs[module] = output

    hooks = [module.register_forward_hook(keep) for module in relus]
    chance = model(x).softmax(1).gather(1, target[:, None])
    chance.sum().backward()  # the gradients of the weights too
    for hook in hooks:
        hook.remove()
    maps = {module: outputs[module] for module in relus if outputs[module].ndim == 4}
    masks = {}
    for module, output in maps.items():
        assert output.grad is not None  # kept by retain_grad
        g = output.grad.amax(1)
        g = g / g.norm(dim=(1, 2), keepdim=True)
        inhibition = inhibition_by_unfolding(g)
        masks[module] = (g > inhibition / inhibition.norm(dim=(1, 2), keepdim=True))[:, None]
    masks[list(masks)[-1]] = torch.ones_like(masks[list(masks)[-1]])
    masked: list[Tensor] = []

    def mask(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        masked.append(output * masks[module])
        return masked[-1]

    hooks = [module.register_forward_hook(mask) for module in maps]
    model(x)
    for hook in hooks:
        hook.remove()
    sums = [layer_map.detach().sum(1) for layer_map in masked]
    sums = [layer_map / layer_map.norm(dim=(1, 2), keepdim=True) for layer_map in sums]
    large = [F.interpolate(layer_map[:, None], size=x.shape[-2:], mode="bilinear")[:, 0] for layer_map in sums]
    total = torch.stack(large).sum(0)
    return total / total.norm(dim=(1, 2), keepdim=True)


def saliency_class_by_class(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """The saliency map: the attention maps of the five likeliest classes, one after the other; `target` is not used.

    Args:
        model: as for `attention_by_steps`.
        x: images, (N, C, H, W).
        target: anything.

    Returns:
        (N, H, W), of unit norm.
    """
    with torch.no_grad():
        likeliest = model(x).topk(5, dim=1).indices
    total = torch.stack([attention_by_steps(model, x, classes) for classes in likeliest.unbind(1)]).sum(0)
    return total / total.norm(dim=(1, 2), keepdim=True)
