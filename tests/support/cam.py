"""Networks that end in a pooling and a linear layer, and a class activation map worked out by hand."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
import torchvision
from torch import nn


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def gap():
    return nn.AdaptiveAvgPool2d(1)


def ended(*, pool=None, act=nn.ReLU, neck=(), behind=(), bias=True, seed=0, classes=4):
    """Two convolutions, a pooling, one linear layer; whatever else between them and behind."""
    torch.manual_seed(seed)
    layers = OrderedDict(
        layer1=nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        layer4=nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), act()),
        pool=pool or gap(),
        flatten=nn.Flatten(),
        neck=nn.Sequential(*neck),
        fc=nn.Linear(6, classes, bias),
        behind=nn.Sequential(*behind),
    )
    return nn.Sequential(layers).double()


def features(net, x):
    with torch.no_grad():
        return net.layer4(net.layer1(x))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def batch(count=2, height=8, width=8, seed=1):
    return torch.randn(count, 3, height, width, generator=seeded(seed), dtype=torch.float64)


def naive(maps, rows):
    """sum_k w_k f_k(u), place by place, for the weights (C,) of each image."""
    actual = torch.zeros(len(maps), *maps.shape[2:], dtype=maps.dtype)
    for b, (image, row) in enumerate(zip(maps, rows, strict=True)):
        for i in range(image.shape[1]):
            for j in range(image.shape[2]):
                actual[b, i, j] = sum(w.item() * image[k, i, j].item() for k, w in enumerate(row))
    return actual


close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
close32 = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


# Two maps of means 9/9 = 1 and 18/9 = 2. Class 0: 2*1 - 1*2 + 0.5 = 0.5; class 1: 0*1 + 1*2 - 1 = 1.
MAPS = torch.tensor([[[[1.0, 2, 0], [0, 3, 0], [0, 0, 3]], [[0, 0, 9], [0, 0, 0], [0, 0, 9]]]])
CAM = torch.tensor([[[2.0, 4, -9], [0, 6, 0], [0, 0, -3]], [[0, 0, 9], [0, 0, 0], [0, 0, 9]]])


def toy(bias=True, pool=None):
    """A network whose images are its feature maps."""
    net = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), pool or gap(), nn.Flatten(), nn.Linear(2, 2, bias))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        net[3].weight.copy_(torch.tensor([[2.0, -1], [0, 1]]))
        if bias:
            net[3].bias.copy_(torch.tensor([0.5, -1]))
    return net


def resnet(seed=0):
    torch.manual_seed(seed)
    return torchvision.models.resnet18(weights=None, num_classes=10).eval()


def mixed():
    """Mixed modes, a frozen parameter, a filled .grad, in-place layers, and hooks of the user."""
    neck = [nn.Dropout(0.5, inplace=True)]
    net = ended(act=partial(nn.ReLU, inplace=True), neck=neck, pool=nn.Sequential(nn.BatchNorm2d(6), gap())).train()
    net.layer4.eval()
    net.layer1[0].bias.requires_grad_(False)
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    net.layer4.register_forward_hook(lambda *_: None)
    net.layer1.register_forward_pre_hook(lambda *_: None)
    return net


class Spy(nn.Module):
    """Counts its calls and notes whether gradients are recorded there."""

    def __init__(self):
        super().__init__()
        self.calls, self.recording, self.expected = 0, [], []

    def forward(self, x):
        self.calls += 1
        self.recording.append(torch.is_grad_enabled())
        self.expected.append(x.requires_grad)
        return x


# Networks, images and classes that other packages are asked about, too.
OTHERS = {
    "small": lambda: (ended().float().eval(), batch(3, 9, 14).float(), [1, 0, 3]),
    "small, signed maps": lambda: (ended(act=nn.Identity).float().eval(), batch(3, 9, 14).float(), [1, 0, 3]),
    "resnet18": lambda: (resnet(), torch.randn(3, 3, 64, 64, generator=seeded(0)), [1, 7, 3]),
}
each_other = pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
