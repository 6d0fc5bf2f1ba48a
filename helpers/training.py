"""Short trainings, live in a chapter: one loop for all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

Loss = Callable[[Tensor, Tensor], Tensor]


def _check(images: Tensor, labels: Tensor) -> None:
    """Refuse what cannot be trained on or measured."""
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be a non-empty (N, C, H, W), got {tuple(images.shape)}")
    if labels.shape != (len(images),) or labels.dtype != torch.int64:
        raise ValueError(
            f"labels must be ({len(images)},) of int64, one an image, got {tuple(labels.shape)} of {labels.dtype}"
        )


def _check_range(labels: Tensor, logits: Tensor) -> None:
    """Refuse labels that the network has no logit for."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"labels must lie in 0 .. {logits.shape[1] - 1}, as the network has logits, got {low} .. {high}"
        )


def _device(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    if first is None:
        raise ValueError("model must have parameters, got a network without any")
    return first.device


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    lr: float = 1e-3,
    batch_size: int = 128,
    weight_decay: float = 0.0,
    seed: int = 0,
    progress: bool = True,
    loss: Loss | None = None,
) -> list[float]:
    """Train a network in place with Adam: a classifier on the cross-entropy of its logits, or on another loss.

    Args:
        model: maps (B, C, H, W) to logits (B, K), or to what the loss takes; it stays on its device and is left in the
            mode it was found in.
        images: (N, C, H, W), with a loss of your own (N, ...), in any memory; batches travel to the model's device.
        labels: (N,) int64 class indices; with a loss of your own (N, ...), what it compares the outputs with.
        epochs: passes over the data.
        lr: Adam's learning rate.
        batch_size: images a step.
        weight_decay: Adam's L2 penalty.
        seed: of the order of the images; the weights must be seeded where the model is made.
        progress: show a progress bar.
        loss: of a batch's outputs and targets, a scalar; None is the cross-entropy, in nats.

    Returns:
        The loss of every step.

    Raises:
        ValueError: wrong shapes, an empty set, labels that are not int64 or have no logit, a network without
            parameters, or a loss that is no longer finite.
    """
    if loss is None:
        _check(images, labels)
    elif images.ndim < 2 or len(images) == 0 or labels.ndim == 0 or len(labels) != len(images):
        got = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"images and labels must be a non-empty (N, ...) and (N, ...), got {got}")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch must be at least 1, got {epochs} and {batch_size}")
    device = _device(model)
    if device.type == "cpu":
        model.to(memory_format=torch.channels_last)  # faster there, and the same up to rounding
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    order = torch.Generator().manual_seed(seed)
    modes = {module: module.training for module in model.modules()}
    model.train()
    losses: list[float] = []
    steps = [chunk for _ in range(epochs) for chunk in torch.randperm(len(images), generator=order).split(batch_size)]
    try:
        for chunk in tqdm(steps, desc="training", unit="step", disable=not progress, leave=False):
            outputs = model(images[chunk].to(device))
            if not losses and loss is None:
                _check_range(labels, outputs)
            value = (loss or F.cross_entropy)(outputs, labels[chunk].to(device))
            if not torch.isfinite(value):
                raise ValueError(f"the loss became {value.item()} at step {len(losses)}: lower lr ({lr}), check images")
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            losses.append(value.item())
    finally:
        model.to(memory_format=torch.contiguous_format)
        for module, mode in modes.items():
            module.training = mode
    return losses


def predict(
    model: nn.Module, images: Tensor, *, batch_size: int = 1000, prepare: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Logits (N, K) of a whole set in evaluation mode, without a graph, on the CPU.

    Args:
        model: maps (B, C, H, W) to (B, K); every module is left in the mode it was found in.
        images: (N, C, H, W).
        batch_size: images a forward pass.
        prepare: what is done to the images of a batch, on the model's device, before the model sees them.

    Raises:
        ValueError: images is not a non-empty (N, C, H, W), or batch is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch must be at least 1, got {batch_size}")
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be a non-empty (N, C, H, W), got {tuple(images.shape)}")
    device = _device(model)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            chunks = (chunk.to(device) for chunk in images.split(batch_size))
            return torch.cat([model(prepare(chunk) if prepare else chunk).cpu() for chunk in chunks])
    finally:
        for module, mode in modes.items():
            module.training = mode


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images (N, C, H, W) whose largest logit is that of their label (N,), in [0, 1].

    Raises:
        ValueError: wrong shapes, an empty set, labels that are not int64, or logits that are NaN.
    """
    _check(images, labels)
    logits = predict(model, images)
    if logits.isnan().any():
        raise ValueError("the logits are NaN: check images for NaN and infinite values")
    return (logits.argmax(1) == labels.cpu()).double().mean().item()
