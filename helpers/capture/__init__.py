"""Activations of named layers, their gradients, and masks written onto them.

Every attribution method of the book stands on `activations`, `gradients` and `masked_forward`. They share one rule,
kept by `preserved`: the network is left exactly as it was found.

One call::

    result = gradients(model, x, target=3, layers="conv2")
    result.gradients["conv2"]  # (B, C, h, w): d logit 3 / d conv2

By hand, for a network in two parts, `body` up to conv2 and `head` after it::

    a = body(x).detach().requires_grad_()
    torch.autograd.grad(head(a)[:, 3].sum(), a)

A layer is named as in `model.named_modules()`. The name "input" stands for `x` itself. A module that runs several
times in one forward (one ReLU used twice) is named call by call: "relu#1", "relu#2"; "relu#*" stands for all its calls
that give feature maps (B, C, h, w).
"""

from helpers._validate import Target
from helpers.capture._ablation import ablated_logits, activations_up_to, logits_from
from helpers.capture._batches import LEAST_BATCH, chunks, in_batches
from helpers.capture._hooks import Gradients, Masked, activations, gradients, logits, masked_forward
from helpers.capture._scores import Score, class_scores
from helpers.capture._state import INPUT, check_feature_maps, layer_names, named_modules, preserved

__all__ = [
    "INPUT",
    "LEAST_BATCH",
    "Gradients",
    "Masked",
    "Score",
    "Target",
    "ablated_logits",
    "activations",
    "activations_up_to",
    "check_feature_maps",
    "chunks",
    "class_scores",
    "gradients",
    "in_batches",
    "layer_names",
    "logits",
    "logits_from",
    "masked_forward",
    "named_modules",
    "preserved",
]
