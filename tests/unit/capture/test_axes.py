"""On which axis the channels lie, where sides alone cannot tell."""

import pytest
import torch
from torch import nn

from helpers.cam import grad_cam
from helpers.capture import feature_layers, last_feature_layer
from helpers.capture._axes import NOWHERE, ChannelAxes
from helpers.licnn import attention_steps
from helpers.similarnet import features_at_any_size

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Last(nn.Module):
    """As many channels as rows and columns, behind the places: (B, 8, 8, 8)."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)
        self.relu, self.back, self.fc = nn.ReLU(), nn.ReLU(), nn.Linear(8, 5)

    def forward(self, x):
        y = self.relu(self.linear(self.conv(x).permute(0, 2, 3, 1)))
        return self.fc(self.back(y.movedim(3, 1)).mean((2, 3)))


class Flat(nn.Module):
    """A stride of 4 across alone: maps of 8 x 2."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 8, 3, stride=(1, 4), padding=1), nn.ReLU(), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


class Attention(nn.Module):
    """Dropout of a table (B, heads, tokens, tokens), as many rows as columns, like images."""

    def __init__(self):
        super().__init__()
        self.conv, self.drop, self.fc = nn.Conv2d(3, 8, 2, 2), nn.Dropout(), nn.Linear(8, 5)

    def forward(self, x):
        tokens = self.conv(x).flatten(2).mT.unflatten(2, (2, 4)).transpose(1, 2)  # (B, heads, tokens, 4)
        table = self.drop((tokens @ tokens.mT).softmax(-1))
        return self.fc((table @ tokens).transpose(1, 2).flatten(2).mean(1))


CASES = {
    "channels last": (Last(), ["conv", "back"], {"linear": "its channels last", "relu": "its channels last"}),
    "anisotropic": (Flat(), ["conv", "relu"], {}),
    "attention": (Attention(), ["conv"], {"drop": "whose second axis is none of channels"}),
}


@pytest.mark.parametrize(("net", "maps", "others"), CASES.values(), ids=CASES)
def test_feature_maps_are_told_by_what_made_them(net, maps, others):
    assert list(feature_layers(net, X)) == maps
    assert last_feature_layer(net, X) == maps[-1]
    for name in maps:
        assert grad_cam(net, X, 1, name).shape == features_at_any_size(net, X, layer=name)[:, 0].shape
    for name, said in others.items():
        for method in (lambda net, x, layer: grad_cam(net, x, 1, layer), features_at_any_size):
            with pytest.raises(
                ValueError, match=f"layer must have feature maps .*{said}; layers that do are .*{maps[-1]}"
            ):
                method(net, X, layer=name)


def test_licnn_takes_the_relus_with_feature_maps_each_time():
    for net, relu in ((Last(), "back"), (Flat(), "relu")):
        for _ in range(2):
            assert list(attention_steps(net, X, 1).masks) == [relu]


def test_channels_are_followed():
    x, table = torch.rand(2, 8, 8, 8), torch.rand(8, 8)
    with ChannelAxes(x) as axes:
        assert axes.of(x.transpose(1, 3)) == 3
        assert axes.of(x.relu().mean(3, keepdim=True)) == 1
        assert axes.of(x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(1, (8, 8)) + table) == 3
        assert axes.of(x.flatten(2).mT) == 2
        assert axes.of(x.flatten(2).mT.mT.reshape(x.shape)) == 1
        assert axes.of(x.chunk(2, dim=1)[0]) == axes.of(torch.cat([x, x], 1)) == 1
        assert axes.of(x @ x) == NOWHERE
        assert axes.of(nn.functional.layer_norm(x, (8, 8, 8))) == 1
        assert axes.of(nn.functional.layer_norm(x, (8,))) == 3
        assert axes.of(x.reshape(8, 2, 8, 8)) is None
        assert axes.of(table) is None
