"""What a network gives, and what of it is differentiated or followed."""

from typing import Literal

import torch
from torch import Tensor

Score = Literal["logit", "probability", "log-odds"]


def check_logits(output: object, batch: int) -> Tensor:
    """Return what a network gave for a batch of images unchanged if it is logits, (B, classes).

    Raises:
        ValueError: it is not.
    """
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != batch:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"model must return logits (B, classes) with B = {batch}, got {shape}")
    return output


def class_scores(logits: Tensor, classes: Tensor, score: Score) -> Tensor:
    """What of some classes is differentiated or followed.

    Args:
        logits: (B, all classes).
        classes: int64, (B, K).
        score: their "logit", "probability" or "log-odds", as `gradients` takes it.

    Returns:
        (B, K).

    Raises:
        ValueError: the log-odds of a network with a single class.
    """
    if score == "probability":
        return logits.softmax(1).gather(1, classes)
    own = logits.gather(1, classes)
    if score == "logit":
        return own
    if logits.shape[1] < 2:
        raise ValueError(f'model must have two classes at least for score="log-odds", got {logits.shape[1]}')
    numbers = torch.arange(logits.shape[1], device=logits.device)
    rivals = logits[:, None].masked_fill(numbers == classes[..., None], float("-inf"))  # (B, K, all classes)
    return own - rivals.logsumexp(2)
