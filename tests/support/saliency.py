"""Small networks and images of the saliency tests."""

import warnings

import pytest
import torch
from torch import nn

from support.capture import X, by_hand  # noqa: F401 -- the tests of this room ask here
from support.tensors import seeded


class Sum(nn.Module):
    """Logits: the sum of a function of the image, and minus that."""

    def __init__(self, function=lambda x: x):
        super().__init__()
        self.function = function

    def forward(self, x):
        score = self.function(x).sum((1, 2, 3))
        return torch.stack([score, -score], 1)


def tiny(seed=0, act=nn.ReLU, bias=0.0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), act(), nn.Conv2d(4, 5, 3, stride=2), act(), nn.Flatten(), nn.Linear(5 * 2 * 2, 3)
    ).double()
    with torch.no_grad():
        net[5].bias += bias
    return net


def batch(count=2, seed=1):
    return torch.randn(count, 3, 7, 7, generator=seeded(seed), dtype=torch.float64)


def score(net, x, target):
    with torch.no_grad():
        return net(x)[:, target]


REGIONS = torch.tensor([[1, 0, 0, 2, 3], [0, 2, 1, 7, 2], [0, 0, 0, 7, 7]])


def captum_attribution(name, net):
    """A method of captum's, its warnings silenced."""
    attr = pytest.importorskip("captum.attr")
    method = getattr(attr, name)(net).attribute

    def call(*args, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method(*args, **options)

    return call
