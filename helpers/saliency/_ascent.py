"""The class model: an image made so that a class score is as large as possible."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers._validate import check_count, check_fill, check_number
from helpers.capture import INPUT, gradients


class ClassModel(NamedTuple):
    """What `class_model` returns; without the K axis where one class was asked for."""

    image: Tensor  # (K, C, H, W), normalised as the network's input
    objective: Tensor  # (K, steps + 1): the objective before each step and after the last one


def class_model(
    model: nn.Module,
    target: int | Sequence[int] | Tensor,
    shape: tuple[int, int, int],
    *,
    l2: float = 0.01,
    steps: int = 100,
    lr: float = 1.0,
    start: float | Tensor = 0.0,
) -> ClassModel:
    """The image that a class likes best: gradient ascent on its logit minus l2 times the image's squared length.

    Implements :eq:`eq-class-model`: argmax_I S_c(I) - l2 ||I||^2, from the zero image, chapter 2. Zero is the mean
    colour of the training images where the network's input is normalised; add the mean back to look at the result.

    Args:
        model: network that maps (K, C, H, W) to logits (K, classes); it is left as it was found.
        target: one class, or K of them, each of which gets its image.
        shape: of an image, (C, H, W).
        l2: weight of the penalty, 0 or more, in score units per squared unit of the image.
        steps: steps of ascent.
        lr: length of a step, in image units per unit of the objective's gradient.
        start: where to begin: a number, or a tensor that broadcasts to (K, C, H, W).

    Returns:
        The images and the course of the objective.

    Raises:
        ValueError: bad `target`, `shape` or `start`, a negative or non-finite l2 or lr, steps below 1, or an objective
            that is no longer finite.

    Source: Simonyan et al. 2013, section 2.
    """
    _check(shape, l2, steps, lr)
    try:
        classes = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"target must be one class or a sequence of K of them, got {target!r}") from error
    if classes.ndim > 1 or classes.numel() == 0:
        raise ValueError(f"target must be one class or a sequence of K of them, got shape {tuple(classes.shape)}")
    one = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    count = max(classes.numel(), 1)
    x = check_fill(start, one.new_empty((count, *shape)), "start").clone()
    course = []
    for step in range(steps + 1):
        if not torch.isfinite(x).all():
            raise ValueError(f"the image is no longer finite after {step} steps: lower lr, got {lr}")
        found = gradients(model, x, classes, INPUT)
        score = found.logits.gather(1, classes.to(x.device).expand(count)[:, None])[:, 0]
        course.append(score - l2 * x.square().sum((1, 2, 3)))
        if not torch.isfinite(course[-1]).all():
            raise ValueError(f"the objective is no longer finite after {step} steps: lower lr, got {lr}")
        if step < steps:
            x = x + lr * (found.gradients[INPUT] - 2 * l2 * x)
    objective = torch.stack(course, dim=1)  # (K, steps + 1)
    return ClassModel(x, objective) if classes.ndim else ClassModel(x[0], objective[0])


def _check(shape: tuple[int, int, int], l2: float, steps: int, lr: float) -> None:
    sides = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sides) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in sides):
        raise ValueError(f"shape must be (C, H, W), three positive integers, got {shape!r}")
    check_count(steps, "steps")
    check_number(l2, "l2", 0)
    check_number(lr, "lr", 0, above=True)
