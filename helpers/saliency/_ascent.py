"""The class model: an image made so that a class score is as large as possible."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers._validate import (
    all_finite,
    check_classes,
    check_count,
    check_fill,
    check_model,
    check_number,
    check_shape,
)
from helpers.capture import INPUT, gradients
from helpers.device import widened


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
    """The image with the largest score of a class: gradient ascent on its logit minus l2 times the squared image.

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
        The images, and the objective step by step. Where it never moves, as where a ReLU gives the class a logit and a
        gradient of 0 at the start, a warning says so: another `start` (noise) is the way out.

    Raises:
        ValueError: bad `target`, `shape` or `start`, a negative or non-finite l2 or lr, steps below 1, or an objective
            that is no longer finite.

    Source: Simonyan et al. 2013, section 2.
    """
    check_model(model, held=True)
    shape = check_shape(shape)
    steps = check_count(steps, "steps")
    l2 = check_number(l2, "l2", 0)
    lr = check_number(lr, "lr", 0, above=True)
    classes, several = check_classes(target)  # (K,)
    # Its device and dtype are the network's.
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros((), device="cpu"))
    x = check_fill(start, like.new_empty((len(classes), *shape)), "start").clone()
    objectives = []
    for step in range(steps + 1):
        if not all_finite(x):
            raise ValueError(f"lr must be lower: the image is no longer finite after {step} steps, got {lr}")
        ascent = gradients(model, x, classes, INPUT)
        score = ascent.logits.gather(1, classes.to(x.device)[:, None])[:, 0]
        objectives.append(score - l2 * widened(x).square().sum((1, 2, 3)))
        if not all_finite(objectives[-1]):
            raise ValueError(f"lr must be lower: the objective is no longer finite after {step} steps, got {lr}")
        if step < steps:
            x = x + lr * (ascent.gradients[INPUT] - 2 * l2 * x)
    objective = torch.stack(objectives, dim=1)  # (K, steps + 1)
    still = classes[(objective == objective[:, :1]).all(1).cpu()].tolist()
    if still:
        warnings.warn(f"the objective never moves for classes {still}: give another start, such as noise", stacklevel=2)
    return ClassModel(x, objective) if several else ClassModel(x[0], objective[0])
