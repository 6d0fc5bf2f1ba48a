"""Oracles of the ablation tests: the whole network run again for every filter, and what a layer has seen.

Beside them the networks of these tests: `by_hand` with its two images, small enough for a pencil, and `tiny`.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from helpers.networks import LeNet


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def silenced(net, x, layer, call=1, filters=None):
    """Logits, (B, K), and without each filter of a layer (in its call-th run), (F, B, K); `filters` picks some."""
    module, runs, width, silent = net.get_submodule(layer), [], [], None

    def hook(_module, _inputs, output):
        runs.append(1)
        width[:] = [output.shape[1]]
        if silent is None or len(runs) != call:
            return None
        output = output.clone()
        output[:, silent] = 0
        return output

    was = net.training
    net.eval()
    handle = module.register_forward_hook(hook)
    with torch.no_grad():
        whole, without = net(x.clone()), []
        for silent in range(width[0]) if filters is None else filters:  # noqa: B007 (the hook reads it)
            runs.clear()
            without.append(net(x.clone()))
    handle.remove()
    net.train(was)
    return whole, torch.stack(without)


def counted(net, layer):
    """Images that a layer sees, a list that grows run by run."""
    seen = []
    net.get_submodule(layer).register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    return seen


def by_hand():
    """f = ReLU(x, -x), logits (mean f0, mean f1 + 1/2): two filters, two classes."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        net[4].weight.copy_(torch.eye(2))
        net[4].bias.copy_(torch.tensor([0.0, 0.5]))
    return net


# f0 = (1, 3), f1 = 0, logits (2, 0.5); and f0 = 0, f1 = (2, 4), logits (0, 3.5)
X, Y = torch.tensor([[[[1.0, 3.0]]], [[[-2.0, -4.0]]]]), torch.tensor([0, 1])


def nll(ahead):
    """Of the true class of two, whose logit lies so far ahead of the other."""
    return math.log(1 + math.exp(-ahead))


def tiny(classes=3):
    torch.manual_seed(0)
    net = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(2, 4, 3), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(), drop=nn.Dropout(0.5)
        )
    )
    net.add_module("fc", nn.Linear(16, 5))
    net.add_module("end", nn.Linear(5, classes))
    return net.double()


def images(count=7, seed=1):
    return rand(count, 2, 6, 6, seed=seed)


LABELS = torch.tensor([0, 1, 2, 1, 0, 2, 1])


def losses(scores, y, error):
    scores = scores.double()
    return (scores.argmax(1) != y).double() if error == "rate" else F.cross_entropy(scores, y, reduction="none")


def slow(net, layer, x, y, error):
    """The loss of every image, (N,), and without each filter, (F, N): the whole network runs for each."""
    whole, without = silenced(net, x, layer)
    return losses(whole, y, error), torch.stack([losses(scores, y, error) for scores in without])


class Around(nn.Module):
    """A shortcut leads around `inner`; what comes of it is added, or stacked as channels."""

    def __init__(self, join="add"):
        super().__init__()
        torch.manual_seed(0)
        self.outer, self.inner = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.end, self.join = nn.Linear(4 if join == "add" else 8, 3), join
        self.double()

    def forward(self, x):
        short = self.outer(x).tanh()
        inner = self.inner(short)
        both = inner + short if self.join == "add" else torch.cat([inner, short], 1)
        return self.end(both.relu().mean((2, 3)))


def close(actual, expected, atol=1e-12, rtol=0.0):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def lenet(**options):
    torch.manual_seed(1)
    return LeNet(**options).eval()
