"""The contract of everything that is given a network: it, and torch, are left as they were found, whatever happens."""

from contextlib import nullcontext
from functools import cache

import pytest
import torch
from support.tensors import seeded
from support.untouched import BackwardBoom, Boom, assert_untouched
from torch import nn

from helpers import (
    background,
    basics,
    cam,
    capture,
    compare,
    explain,
    licnn,
    metrics,
    quadtree,
    readout,
    retina,
    saliency,
    sanity,
    search,
    similarnet,
)


class Counts(nn.Module):
    """Writes into a buffer and into a tensor that is none, also in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("images", torch.zeros((), dtype=torch.int64))
        self.passes = torch.zeros(1)

    def forward(self, x):
        self.images += len(x)
        self.passes += 1
        return x


def net(*middle):
    """In training, with everything that has to be put back: modes, hooks, gradients, statistics, frozen weights."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        Counts(), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 5),
    ]  # fmt: skip
    network = nn.Sequential(*layers).train()
    network[1].running_mean.uniform_(-0.3, 0.3)
    network[3].eval()
    network[0].bias.requires_grad_(False)
    network[-1].weight.requires_grad_(False)
    network[4].weight.grad = torch.ones_like(network[4].weight)
    network[4].register_forward_hook(lambda *_: None)
    network[0].register_forward_pre_hook(lambda *_: None)
    network[2].register_full_backward_hook(lambda *_: None)
    return network


X = torch.rand(2, 3, 16, 16, generator=seeded(1)) - 0.5
M, Y, REGION = X[:, 0], torch.tensor([1, 2]), X[:, 0] > 0
MANY = torch.rand(8, 3, 16, 16, generator=seeded(2))
LEAVES = [torch.tensor([[0, 0, 8], [0, 8, 8], [8, 0, 8], [8, 8, 8]])] * 2
VIEWS = {"view": retina.log_polar, "batch_size": 4}
FEW = {
    "integrated_gradients": {"steps": 3},
    "smooth_gradient": {"samples": 2},
    "occlusion": {"window": 8, "stride": 8},
    "rise": {"masks": 5, "cells": 3},
    "grad_cam": {"layer": "5"},
    "hires_cam": {"layer": "5"},
    "layer_cam": {"layer": "5"},
    "score_cam": {"layer": "5"},
}
METHODS = {
    name: lambda net, name=name: explain(net, X, name, [[0, 1], [2, 1]], **FEW.get(name, {}))
    for name in compare.METHODS
}
OTHERS = {
    "activations": lambda net: capture.activations(net, X, ["2", "5"])["5"],
    "gradients": lambda net: capture.gradients(net, X, None, "input").gradients["input"],
    "masked_forward": lambda net: capture.masked_forward(net, X, {"2": torch.zeros(())}).logits,
    "logits": lambda net: capture.logits(net, X),
    "top_classes": lambda net: capture.top_classes(net, X),
    "ablated_logits": lambda net: capture.ablated_logits(net, X, "5")[1],
    "activations_up_to": lambda net: capture.activations_up_to(net, X, "10"),
    "logits_from": lambda net: capture.logits_from(net, X, "5", torch.ones(3, 6, 14, 14)),
    "feature_layers": lambda net: torch.tensor(list(capture.feature_layers(net, X).values())),
    "region_occlusion": lambda net: saliency.region_occlusion(net, X, 1, torch.tensor([[0, 0, 0, 3, 3]])),
    "class_model": lambda net: saliency.class_model(net, 1, (3, 8, 8), steps=2).image,
    "pooling_head": lambda net: cam.pooling_head(net, X).maps,
    "class_specific_units": lambda net: cam.class_specific_units(net, 1, 2).weights,
    "receptive_field_crop": lambda net: cam.receptive_field_crop(net, X, [0], 4, 2, layer="5")[0],
    "saliency_map": lambda net: licnn.saliency_map(net, X, 2),
    "deletion": lambda net: metrics.deletion(net, X, 1, M, steps=3).auc,
    "leaf_gradient": lambda net: quadtree.leaf_gradient(net, X, 1, LEAVES)[0],
    "occlusion_on_leaves": lambda net: quadtree.occlusion_on_leaves(net, X, 1, LEAVES)[0],
    "ablation_errors": lambda net: similarnet.ablation_errors(net, X, Y, layer="5").errors,
    "mean_excitation_weights": lambda net: similarnet.mean_excitation_weights(net, X, layer="5"),
    "position_readout": lambda net: torch.tensor(readout.position_readout(net, MANY, MANY[:, 0, 0, :2], ["5"])["5"]),
    "accuracy_under_blur": lambda net: background.accuracy_under_blur(net, X, Y, REGION, [1], [1]).outside,
    "layer_costs": lambda net: torch.tensor([cost.multiply_adds for cost in basics.layer_costs(net, (3, 16, 16))]),
    "unit_gradient": lambda net: basics.unit_gradient(net, X, "5"),
    "sanity_check": lambda net: sanity.sanity_check(saliency.class_saliency, net, X, 1).maps,
    "label_map": lambda net: search.label_map(net, X, 2, **VIEWS),
    "search": lambda net: search.search(net, X, saccades=1, fixations=2, **VIEWS).beliefs,
}  # fmt: skip
CALLS = METHODS | OTHERS
WITHOUT_GRADIENTS = {
    "occlusion", "rise", "score_cam",
    "class_activation_map", "activations", "masked_forward", "logits", "top_classes", "ablated_logits",
    "activations_up_to", "logits_from", "feature_layers", "region_occlusion", "pooling_head", "class_specific_units",
    "receptive_field_crop", "deletion", "occlusion_on_leaves", "ablation_errors", "mean_excitation_weights",
    "position_readout", "accuracy_under_blur", "layer_costs", "unit_gradient", "label_map", "search",
}  # fmt: skip
each = pytest.mark.parametrize("name", CALLS)


@cache
def expected(name):
    return CALLS[name](net().eval().requires_grad_(True))


@each
@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode])
def test_the_network_is_looked_at_in_evaluation_mode_and_left_as_it_was_found(name, context):
    right, network = expected(name), net()
    with context():
        with assert_untouched(network, draws=False):
            actual = CALLS[name](network)
        torch.testing.assert_close(actual.clone(), right)


@each
def test_a_forward_that_raises_in_the_middle_leaves_no_trace(name):
    network = net(Boom())
    # Noise that a network does not take is no error: the images are asked for.
    message = "^x must be given: images" if name == "class_specific_units" else "boom"
    with pytest.raises((RuntimeError, ValueError), match=message), assert_untouched(network, draws=False):
        CALLS[name](network)


@each
def test_a_backward_that_raises_leaves_no_trace(name):
    network = net(BackwardBoom())
    raises = nullcontext() if name in WITHOUT_GRADIENTS else pytest.raises((RuntimeError, ValueError), match="boom")
    with raises, assert_untouched(network, draws=False):
        CALLS[name](network)


AT_A_LAYER = {
    **{
        f"explain, {name}": lambda net, layer, name=name: explain(net, X, name, 1, layer)
        for name in ("grad_cam", "hires_cam", "layer_cam", "score_cam", "attention_map")
    },
    "explain, several": lambda net, layer: explain(net, X, "attention_map", 1, [layer]),
    "grad_cam": lambda net, layer: cam.grad_cam(net, X, 1, layer),
    "attention_map": lambda net, layer: licnn.attention_map(net, X, 1, layers=layer),
    "attention_steps": lambda net, layer: licnn.attention_steps(net, X, 1, layers=layer).map,
    "receptive_field_crop": lambda net, layer: cam.receptive_field_crop(net, X, [0], 4, 2, layer=layer)[0],
    "activations": lambda net, layer: capture.activations(net, X, layer)["5"],
    "gradients": lambda net, layer: capture.gradients(net, X, 1, [layer]).gradients["5"],
    "masked_forward": lambda net, layer: capture.masked_forward(net, X, {}, layer).activations["5"],
    "ablated_logits": lambda net, layer: capture.ablated_logits(net, X, layer)[1],
    "activations_up_to": lambda net, layer: capture.activations_up_to(net, X, layer),
    "logits_from": lambda net, layer: capture.logits_from(net, X, layer, torch.ones(3, 6, 14, 14)),
    "path_counts": lambda net, layer: basics.path_counts(net, layer, (3, 16, 16)),
    "unit_gradient": lambda net, layer: basics.unit_gradient(net, X, layer),
    "ablation_errors": lambda net, layer: similarnet.ablation_errors(net, X, Y, layer=layer).errors,
    "mean_excitation_weights": lambda net, layer: similarnet.mean_excitation_weights(net, X, layer=layer),
    "per_sample_weights": lambda net, layer: similarnet.per_sample_weights(net, X, Y, layer=layer),
    "features_at_any_size": lambda net, layer: similarnet.features_at_any_size(net, X, layer=layer),
    "position_readout": lambda net, layer: readout.position_readout(net, MANY, MANY[:, 0, 0, :2], [layer])["5"],
    "compare_attention": lambda net, layer: compare.compare_attention(net, X, Y, REGION, layer=layer)["Grad-CAM"][
        "auc"
    ],
}


@pytest.mark.parametrize("call", AT_A_LAYER.values(), ids=AT_A_LAYER)
def test_a_layer_is_its_name_or_the_module_itself(call):
    network = net()
    torch.testing.assert_close(call(network, network[5]), call(network, "5"), rtol=0, atol=0)
    with pytest.raises(ValueError, match="must be a module of this network, got a ReLU"):
        call(network, nn.ReLU())


def test_every_method_with_a_layer_takes_a_module():
    layered = [name for name, method in compare.METHODS.items() if method.layer is not None]
    assert {f"explain, {name}" for name in layered} <= AT_A_LAYER.keys()
