"""Trainings: one loop for the short ones, live in a chapter, and the long ones of `helpers.experiments`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers._validate import check_count, check_held, check_model, check_tensor, describe, seeded
from helpers.capture import check_logits, check_several, fitting, preserved, refuse_inference

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]  # of an epoch, counted from 0: inputs and their targets
ONE_LOGIT = "of a single one the sign may say the class, as in a loss of your own"


class LossError(ValueError):
    """A loss that is no longer finite.

    Attributes:
        value: of the loss.
        epoch: in which it was met, counted from 0.
    """

    def __init__(self, value: float, epoch: int, step: int) -> None:
        super().__init__(f"the loss became {value} at step {step}: lower the learning rate, check the images")
        self.value, self.epoch = value, epoch


def _check(images: Tensor, labels: Tensor) -> None:
    """Refuse what cannot be trained on or measured."""
    check_tensor(images, "images", "N C H W", kind="real", finite=False)
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.dtype != torch.int64:
        raise ValueError(f"labels must be ({len(images)},) of int64, one an image, got {describe(labels)}")
    check_held(labels, "labels")


def _device(model: nn.Module) -> torch.device:
    first = next(check_model(model, held=True).parameters(), None)
    if first is None:
        raise ValueError("model must have parameters, got a network without any")
    return first.device


@contextmanager
def _modes_restored(model: nn.Module) -> Iterator[None]:
    """Leave every module in training or evaluation mode as it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _class_loss(labels: Tensor) -> Loss:
    """The cross-entropy, in nats, that refuses labels (N,) which the network has no logit for."""
    low, high = int(labels.min()), int(labels.max())

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        check_logits(logits, len(targets))
        if low < 0 or high >= logits.shape[1]:
            limits = f"0 .. {logits.shape[1] - 1}, as the network has logits"
            raise ValueError(f"labels must lie in {limits}, got {low} .. {high}")
        check_several(logits, ONE_LOGIT)
        return F.cross_entropy(logits, targets)

    return loss


def fit_batches(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    steps: int,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    first_epoch: int = 0,
    forward: Callable[[Tensor], Tensor] | None = None,
    on_step: Callable[[Tensor, Tensor, float], None] | None = None,
    on_epoch: Callable[[int, list[float]], None] | None = None,
    progress: bool = True,
    label: str = "training",
) -> list[float]:
    """The one training loop: steps of an optimiser over batches that are made epoch by epoch.

    Args:
        model: stays on its device; it is left in training mode.
        batches: of an epoch, counted from 0, the inputs (B, ...) and their targets (B, ...), in any memory.
        loss: of a batch's outputs and targets, a scalar.
        optimiser: of the model's parameters.
        epochs: passes, those before `first_epoch` included.
        steps: batches a pass, for the progress bar.
        schedule: of the learning rate; it steps after every batch.
        first_epoch: where to go on; model, optimiser and schedule must be as they were then.
        forward: outputs of a batch of inputs on the model's device; the model itself when None.
        on_step: called after every step with outputs, targets and the loss.
        on_epoch: called after every epoch with its number, from 0, and the loss of each of its steps; it may evaluate
            the model and keep a checkpoint.
        progress: show a progress bar.
        label: of the bar.

    Returns:
        The loss of every step.

    Raises:
        LossError: the loss is no longer finite; the weights are those before that step.
        ValueError: a network without parameters.
    """
    device, forward = _device(model), forward or partial(fitting, model, name="images")
    # Optimisers of torch 2.4 count their steps on whatever device is the default.
    elsewhere = torch.empty(0).device.type != "cpu"
    counting_on_cpu = torch.device("cpu") if elsewhere else nullcontext()
    losses: list[float] = []
    with tqdm(total=epochs * steps, initial=first_epoch * steps, unit="step", disable=not progress, leave=False) as bar:
        for epoch in range(first_epoch, epochs):
            bar.set_description(f"{label}, epoch {epoch + 1}/{epochs}")
            model.train()
            start = len(losses)
            for inputs, targets in batches(epoch):
                targets = targets.to(device)
                outputs = forward(inputs.to(device))
                value = loss(outputs, targets)
                if not torch.isfinite(value):
                    raise LossError(value.item(), epoch, len(losses))
                optimiser.zero_grad()
                value.backward()
                with counting_on_cpu:
                    optimiser.step()
                if schedule is not None:
                    schedule.step()
                losses.append(value.item())
                if on_step is not None:
                    on_step(outputs, targets, losses[-1])
                bar.update()
            if on_epoch is not None:
                on_epoch(epoch, losses[start:])
    return losses


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
        loss = _class_loss(labels)
    elif images.ndim < 2 or len(images) == 0 or labels.ndim == 0 or len(labels) != len(images):
        got = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"images and labels must be a non-empty (N, ...) and (N, ...), got {got}")
    epochs, batch_size = check_count(epochs, "epochs"), check_count(batch_size, "batch_size")
    device = _device(model)
    refuse_inference(model)
    order = seeded(seed)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(images), generator=order, device="cpu").split(batch_size):
            yield images[rows], labels[rows]

    with _modes_restored(model), torch.inference_mode(False), torch.enable_grad():
        if device.type == "cpu":
            model.to(memory_format=torch.channels_last)  # faster there, and the same up to rounding
        optimiser = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
        try:
            steps = -(-len(images) // batch_size)
            return fit_batches(model, batches, loss, optimiser, epochs=epochs, steps=steps, progress=progress)
        finally:
            model.to(memory_format=torch.contiguous_format)


def predict(
    model: nn.Module, images: Tensor, *, batch_size: int = 1000, prepare: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Logits (N, K) of a whole set in evaluation mode, without a graph, on the CPU.

    Args:
        model: maps (B, C, H, W) to (B, K); it is left as it was found.
        images: (N, C, H, W).
        batch_size: images a forward pass.
        prepare: what is done to the images of a batch, on the model's device, before the model sees them.

    Raises:
        ValueError: images is not a non-empty (N, C, H, W), batch_size is less than 1, or an output is not (B, K).
    """
    batch_size = check_count(batch_size, "batch_size")
    check_tensor(images, "images", "N C H W", kind="real", finite=False)
    device = _device(model)
    with preserved(model), torch.no_grad():
        batches = (batch.to(device) for batch in images.split(batch_size))
        prepared = (prepare(batch) if prepare else batch for batch in batches)
        return torch.cat([check_logits(fitting(model, batch, "images"), len(batch)).cpu() for batch in prepared])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images (N, C, H, W) whose largest logit is that of their label (N,), in [0, 1].

    Raises:
        ValueError: wrong shapes, an empty set, labels that are not int64, or logits that are NaN.
    """
    _check(images, labels)
    logits = check_several(predict(model, images), ONE_LOGIT)
    if logits.isnan().any():
        raise ValueError("the logits are NaN: check images for NaN and infinite values")
    return share_right(logits, labels)


def share_right(logits: Tensor, labels: Tensor, k: int = 1) -> float:
    """Share of labels that are among the k largest logits, in [0, 1]; the arguments are those of `topk_correct`."""
    return topk_correct(logits, labels, k).double().mean().item()


def topk_correct(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """Whether the label is among the k largest logits.

    Args:
        logits: (..., K), on any device; log-probabilities and scores of other kinds will do.
        labels: integers (...), or of a shape that broadcasts to it, on any device.
        k: how many answers are allowed, 1 .. K.

    Returns:
        (...) bool, on the device of the logits.

    Raises:
        ValueError: k is not an integer in 1 .. K.
    """
    check_tensor(logits, "logits", "... K", finite=False)
    k = check_count(k, "k", 1, logits.shape[-1])
    labels = check_tensor(labels, "labels", "...", kind="integer").to(logits.device)
    try:
        torch.broadcast_shapes(labels.shape, logits.shape[:-1])
    except RuntimeError as error:
        shapes = f"{tuple(labels.shape)} for logits {tuple(logits.shape)}"
        raise ValueError(f"labels must be one for each row of logits, or broadcast to that, got {shapes}") from error
    if k == 1:
        return logits.argmax(-1) == labels
    return (logits.topk(k, dim=-1).indices == labels[..., None]).any(-1)
