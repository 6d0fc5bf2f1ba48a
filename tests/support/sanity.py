"""A network that could have been trained, and what is compared before and after it forgets."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from helpers.sanity import cascading_randomization, independent_randomization
from support.tensors import seeded

WAYS = {"cascading": cascading_randomization, "independent": independent_randomization}
each_way = pytest.mark.parametrize("randomization", WAYS.values(), ids=WAYS)
each_redraw = pytest.mark.parametrize("redraw", ["initial", "shuffled"])
STEPS = ["fc", "conv3", "conv2", "conv1"]  # from the logits down


def tiny(seed=0):
    """A network that could have been trained: nothing in it has the value a fresh layer would have."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 4, 3),
            bn1=nn.BatchNorm2d(4),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(4, 6, 3, bias=False),
            bn2=nn.BatchNorm2d(6),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            conv3=nn.Conv2d(6, 6, 3, padding=1),
            relu3=nn.ReLU(),
            mean=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(6, 3),
        )
    )
    with torch.no_grad():
        for value in net.state_dict().values():
            value.copy_(torch.rand(value.shape) + 2 if value.is_floating_point() else torch.tensor(17))
        for name in ("conv1", "conv2", "conv3", "fc"):
            weight = net.get_submodule(name).weight
            weight.copy_(torch.randn(weight.shape))
    return net.eval()


def images(count=2, seed=1, side=12):
    return torch.randn(count, 3, side, side, generator=seeded(seed))


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    """Names of tensors that are not bit for bit the same, in the state's order."""
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


def tensors(*layers):
    """Names of all of tiny's tensors that belong to these steps."""
    own = {"conv1": ("conv1", "bn1"), "conv2": ("conv2", "bn2"), "conv3": ("conv3",), "fc": ("fc",)}
    heads = [name for layer in layers for name in own[layer]]
    return [name for name in tiny().state_dict() if name.split(".")[0] in heads]


def draws():
    """The state of every generator of the CPU."""
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state())  # noqa: NPY002 -- the global one is meant


def dressed(seed=0):
    """A network with everything a careless function could lose: modes, frozen layers, hooks, gradients."""
    model = tiny(seed)
    model.bn1.train()
    model.relu2.train()
    for parameter in model.conv2.parameters():
        parameter.requires_grad_(False)
    model.conv1.register_forward_hook(lambda module, inputs, output: None)
    model.fc.register_full_backward_hook(lambda module, inputs, output: None)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    return model
