"""What a network loses without each of its filters."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import as_tensor, check_choice, check_count, check_images, check_tensor, describe
from helpers.capture import Layer, ablated_logits, check_several, logits, with_progress
from helpers.device import widest_float

BATCH = 100  # images a pass: what is computed of them for every filter stays in the processor's cache
ErrorMeasure = Literal["rate", "nll"]


class AblationErrors(NamedTuple):
    """What `ablation_errors` returns; F filters, K classes."""

    baseline: Tensor  # (), or (K,) class by class: the error of the whole network
    errors: Tensor  # (F,), or (F, K): the error without each filter


def ablation_errors(
    model: nn.Module,
    x: Tensor,
    y: Any,
    *,
    layer: Layer,
    batch_size: int = BATCH,
    error: ErrorMeasure = "rate",
    per_class: bool = False,
) -> AblationErrors:
    """The error of a network as it is, and with each filter of a layer silenced in turn.

    Implements :eq:`eq-ablation`: e_i, the mean over labelled images of the loss with feature map i set to zero, chapter
    4. The network runs once up to the layer; only what follows runs for every filter.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (N, C, H, W), normalised as the network expects.
        y: their classes, (N,) integers: a tensor, an array or a list.
        layer: a layer with F filters, by name or the module itself: feature maps (B, F, h, w), or F numbers an image.
        batch_size: images a pass.
        error: "rate", the share of wrong answers, 0 to 1; or "nll", the mean negative log-likelihood of the true class,
            in nats.
        per_class: the errors among the images of each class; NaN for a class without images.

    Returns:
        `AblationErrors`, float64 (float32 on MPS), on the device of x.

    Raises:
        ValueError: bad `x`, `y`, `layer`, `batch_size` or `error`, or a network whose logits are NaN.

    Source: Ghosh et al., SIMILARnet, section 2; the released code takes the log-likelihood, summed.
    """
    whole, without = image_losses(model, x, y, layer, batch_size, error)  # (N,), (F, N)
    if not per_class:
        return AblationErrors(whole.mean(), without.mean(1))
    classes = logits(model, x[:1]).shape[1]
    members = F.one_hot(as_tensor(y).to(x.device).long(), classes).to(whole)  # (N, K)
    counts = members.sum(0)
    return AblationErrors(whole @ members / counts, without @ members / counts)


def image_losses(
    model: nn.Module, x: Tensor, y: Any, layer: Layer, batch_size: int, error: ErrorMeasure
) -> tuple[Tensor, Tensor]:
    """The loss of every image with all filters, (N,), and without each of them, (F, N).

    Arguments and errors as for `ablation_errors`; for "rate" the loss of an image is 1 where the answer is wrong.
    """
    check_choice(error, "error", ("rate", "nll"))
    batch_size = check_count(batch_size, "batch_size")
    labels = _check_labels(y, len(check_images(x))).to(x.device)
    whole, without = [], []
    batches = list(zip(x.split(batch_size), labels.split(batch_size), strict=True))
    for images, classes in with_progress(batches):
        scores, ablated_scores = ablated_logits(model, images, layer)  # (B, K), (F, B, K)
        check_several(scores, "capture.ablated_logits gives the logits without each filter")
        _check_labels(classes, len(images), scores.shape[1])  # once more: only now the number of classes is known
        whole.append(_loss(scores, classes, error))
        without.append(_loss(ablated_scores, classes.expand(len(ablated_scores), -1), error))
    return torch.cat(whole), torch.cat(without, dim=1)


def _check_labels(y: Any, count: int, classes: int | None = None) -> Tensor:
    """The classes of the images as int64 (N,), if each is one of the network's; None while their number is unknown."""
    try:
        labels = as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"y must be the classes of the images, ({count},) integers, got {describe(y)}") from error
    high = math.inf if classes is None else classes - 1
    return check_tensor(labels, "y", str(count), kind="integer", low=0, high=high).long()


def _loss(scores: Tensor, y: Tensor, error: ErrorMeasure) -> Tensor:
    """Logits (..., K) and classes (...) -> (...), in the widest numbers the device has."""
    if scores.isnan().any():
        raise ValueError("model must give finite logits, got NaN: check the network's weights")
    scores = scores.to(widest_float(scores.device))
    if error == "rate":
        return (scores.argmax(-1) != y).to(scores)
    return -scores.log_softmax(-1).gather(-1, y[..., None])[..., 0]
