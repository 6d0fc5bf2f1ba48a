"""Activations of named layers, their gradients, and masks written onto them.

Every attribution method of the book stands on `activations`, `gradients` and `masked_forward`. They share one rule,
kept by `preserved`: the network is left exactly as it was found.

One call::

    result = gradients(model, x, target=3, layers="conv2")
    result.gradients["conv2"]  # (B, C, h, w): d logit 3 / d conv2

By hand, for a network in two parts, `body` up to conv2 and `head` after it::

    a = body(x).detach().requires_grad_()
    torch.autograd.grad(head(a)[:, 3].sum(), a)

A layer is named as in `model.named_modules()`, or given as the module itself. The name "input" stands for `x`. A module
that runs several times in one forward (one ReLU used twice) is named call by call: "relu#1", "relu#2"; "relu#*" stands
for all its calls that give feature maps (B, C, h, w) of more than one place.
"""

from helpers._validate import Target
from helpers.capture._ablation import ablated_logits, activations_up_to, logits_from
from helpers.capture._batches import LEAST_BATCH, chunks, in_batches, with_progress
from helpers.capture._hooks import (
    Gradients,
    Masked,
    NoLayers,
    activations,
    gradients,
    logits,
    masked_forward,
    top_classes,
)
from helpers.capture._layers import (
    INPUT,
    Layer,
    check_feature_maps,
    feature_layers,
    last_feature_layer,
    layer_name,
    layer_names,
    named_modules,
    refuse_script,
    single_layer,
    suggested_layers,
)
from helpers.capture._scores import Score, check_logits, check_several, chosen_classes, class_scores
from helpers.capture._state import differentiable, fitting, is_packed, preserved, refuse_inference, refuse_lazy, run

__all__ = [
    "INPUT",
    "LEAST_BATCH",
    "Gradients",
    "Layer",
    "Masked",
    "NoLayers",
    "Score",
    "Target",
    "ablated_logits",
    "activations",
    "activations_up_to",
    "check_feature_maps",
    "check_logits",
    "check_several",
    "chosen_classes",
    "chunks",
    "class_scores",
    "differentiable",
    "feature_layers",
    "fitting",
    "gradients",
    "in_batches",
    "is_packed",
    "last_feature_layer",
    "layer_name",
    "layer_names",
    "logits",
    "logits_from",
    "masked_forward",
    "named_modules",
    "preserved",
    "refuse_inference",
    "refuse_lazy",
    "refuse_script",
    "run",
    "single_layer",
    "suggested_layers",
    "top_classes",
    "with_progress",
]
