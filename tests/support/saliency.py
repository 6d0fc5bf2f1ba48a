"""Small networks and images of the saliency tests."""

import torch
from torch import nn


def by_hand(inplace=False):
    """x -> 2x -> ReLU -> mean -> (m, -3m): every number below is worked out by hand."""
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2, False)
    )
    with torch.no_grad():
        net[0].weight.fill_(2)
        net[4].weight.copy_(torch.tensor([[1.0], [-3.0]]))
    return net


X = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]])  # conv: 2 -4 6 8; ReLU: 2 0 6 8; mean 4; logits 4 -12


class Sum(nn.Module):
    """Logits: the sum of a function of the image, and minus that."""

    def __init__(self, function=lambda x: x):
        super().__init__()
        self.function = function

    def forward(self, x):
        score = self.function(x).sum((1, 2, 3))
        return torch.stack([score, -score], 1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


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
