"""Names of layers, and networks left as they were found."""

import pytest
import torch
from support.capture import Shared, X, mixed
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.capture import activations, layer_names, named_modules, preserved


def test_layer_names_in_order_and_by_type():
    net = Shared()
    assert layer_names(net) == ["conv", "relu", "conv2", "idle", "pool", "aside", "end"]
    assert layer_names(net, nn.Conv2d) == ["conv", "conv2", "idle", "aside"]
    assert layer_names(nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh()), (nn.ReLU, nn.Tanh)) == ["0.0", "1"]
    assert named_modules(net, ["relu#2", "input"]) == {"relu": net.relu}
    assert layer_names(nn.ReLU()) == []
    twin = nn.Sequential(nn.Flatten())
    twin.add_module("other", twin[0])  # one module under two names: listed once, either name will do
    assert layer_names(twin) == ["0"]
    assert named_modules(twin, ["other"]) == {"other": twin[0]}


def test_a_module_called_input_is_ambiguous():
    net = nn.Sequential()
    net.add_module("input", nn.Flatten())
    with pytest.raises(ValueError, match=r"^model must have no module named 'input', which stands for x"):
        activations(net, X, "input")


def test_preserved_undoes_what_happens_inside():
    net = mixed()
    with assert_untouched(net), preserved(net):
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())
        net.train()
        net[2].inplace = False
        net[4].register_forward_hook(lambda *_: None, with_kwargs=True)
        net[4].register_full_backward_hook(lambda *_: None)
        net[3].weight.requires_grad_(True)
        net[3](torch.ones(1, 4, 5, 5, dtype=torch.float64)).sum().backward()


@pytest.mark.parametrize(
    "trace",
    [
        lambda net: net.train(),
        lambda net: net[2].__setattr__("inplace", False),
        lambda net: net[0].weight.requires_grad_(False),
        lambda net: net[0].weight.__setattr__("grad", torch.zeros_like(net[0].weight)),
        lambda net: net[7].weight.grad.zero_(),
        lambda net: net[0].weight.data.add_(1),
        lambda net: net[1].running_mean.add_(1),
        lambda net: net[5].register_forward_hook(lambda *_: None),
        lambda net: net.__setitem__(2, nn.Identity()),
    ],
)
def test_assert_untouched_sees_every_trace(trace):
    net = mixed()
    with pytest.raises(AssertionError), assert_untouched(net):
        trace(net)
    net, boom = mixed(), Boom()
    with pytest.raises(AssertionError), assert_untouched(net):
        boom(trace(net))
