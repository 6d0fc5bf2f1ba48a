"""What a network gives, and what of it is differentiated or followed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor

from helpers._validate import Target, check_target, check_tensor

Score = Literal["logit", "probability", "log-odds"]


def check_logits(output: object, batch: int) -> Tensor:
    """Return what a network gave for a batch of images unchanged if it is logits, (B, classes).

    Raises:
        ValueError: it is not.
    """
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != batch:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"model must return logits (B, classes) with B = {batch}, got {shape}")
    if not output.is_floating_point():
        raise ValueError(f"model must return logits of floating-point numbers, got {output.dtype}")
    return output


def check_several(logits: Tensor, way_out: str) -> Tensor:
    """Return logits (..., classes) unchanged if there are two classes at least: a softmax over one of them is always 1.

    Raises:
        ValueError: there is one.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"model must have two classes at least, got 1, of which a softmax is always 1: {way_out}")
    return logits


def chosen_classes(target: Target | Callable[[Tensor], Target], logits: Tensor) -> tuple[Tensor, bool]:
    """The classes that a target stands for.

    Args:
        target: None for each image's top class, a class for the whole batch, (B,) classes, (B, K), or a function of the
            logits that gives one of these.
        logits: (B, classes).

    Returns:
        int64 (B, K) on the device of the logits, and whether the target was (B, K), so that results keep their K axis.

    Raises:
        ValueError: not integers, another shape, or a class that the network does not have.
    """
    if target is None:
        target = logits.argmax(1)
    asked = cast(Target, target(logits.detach()) if callable(target) else target)
    classes, several = check_target(asked, *logits.shape)
    return classes.to(logits.device), several


def class_scores(logits: Tensor, classes: Tensor, score: Score) -> Tensor:
    """What of some classes is differentiated or followed.

    Args:
        logits: (B, all classes).
        classes: int64, (B, K).
        score: their "logit", "probability" or "log-odds", as `gradients` takes it.

    Returns:
        (B, K).

    Raises:
        ValueError: the probability or the log-odds of a network with a single logit, which are 1 and infinite.
    """
    check_tensor(logits, "logits", "B classes", finite=False)
    check_tensor(classes, "classes", f"{len(logits)} K", kind="integer", low=0, high=logits.shape[1] - 1)
    if score == "logit":
        return logits.gather(1, classes)
    if logits.shape[1] < 2:
        way_out = 'score="logit" takes it'
        raise ValueError(f'model must have two classes at least for score="{score}", got {logits.shape[1]}; {way_out}')
    if score == "probability":
        return logits.softmax(1).gather(1, classes)
    own = logits.gather(1, classes)
    numbers = torch.arange(logits.shape[1], device=logits.device)
    rivals = logits[:, None].masked_fill(numbers == classes[..., None], float("-inf"))  # (B, K, all classes)
    return own - rivals.logsumexp(2)
