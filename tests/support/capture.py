"""Small networks whose numbers are worked out by hand, and one in every state that has to be put back."""

import torch
from torch import nn

from support.untouched import Boom


def by_hand(inplace=True):
    """x -> 2x -> ReLU -> mean -> (m, -3m): every number below is worked out by hand."""
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2, False)
    )
    with torch.no_grad():
        net[0].weight.fill_(2)
        net[4].weight.copy_(torch.tensor([[1.0], [-3.0]]))
    return net


X = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]])  # conv: 2 -4 6 8; ReLU: 2 0 6 8; mean 4; logits 4 -12


def tiny(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3, stride=2),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(5 * 2 * 2, 3),
    ).double()


def batch(count=2, seed=1):
    return torch.randn(count, 3, 7, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Shared(nn.Module):
    """One ReLU used twice, one layer never used, one that returns a pair, one whose result goes nowhere."""

    def __init__(self, boom=False):
        super().__init__()
        self.conv, self.relu, self.conv2 = nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1)
        self.idle, self.pool, self.aside = nn.Conv2d(1, 1, 1), nn.MaxPool2d(2, return_indices=True), nn.Conv2d(2, 2, 1)
        self.end = Boom() if boom else nn.Identity()

    def forward(self, x):
        x = self.relu(self.conv(x))
        self.aside(x)
        x, _ = self.pool(self.relu(self.conv2(x)))
        return self.end(x).mean((2, 3))


def mixed():
    """Mixed modes, a frozen parameter, a filled .grad, and hooks of the user."""
    net = tiny().train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    net[7].weight.grad = torch.ones_like(net[7].weight)
    net[3].register_forward_hook(lambda *_: None)
    net[0].register_forward_pre_hook(lambda *_: None)
    return net
