import pytest
import torch
from torch import nn

from helpers.networks import LeNet


def test_lenet_is_table_1_of_similarnet():
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in LeNet().named_children()}
    assert {name: n for name, n in counts.items() if n} == {
        "conv1": 6 * 25 + 6,
        "conv2": 16 * 6 * 25 + 16,
        "fc1": 16 * 7 * 7 * 120 + 120,
        "fc2": 120 * 84 + 84,
        "fc3": 84 * 10 + 10,
    }
    assert sum(counts.values()) == 107_786


def test_maps_have_the_sizes_of_table_1():
    x, sides = torch.zeros(1, 1, 28, 28), []
    for layer in LeNet().features:
        x = layer(x)
        sides.append(x.shape[-1])
    assert sides == [28, 28, 14, 14, 14, 7]


@pytest.mark.parametrize(("size", "channels", "classes"), [(28, 1, 10), (48, 1, 10), (32, 3, 7), (4, 1, 2)])
def test_other_sizes_and_classes(size, channels, classes):
    net = LeNet(classes=classes, channels=channels, size=size)
    assert net(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_the_features_share_the_weights_and_take_any_size():
    net = LeNet()
    assert net.features[0] is net.conv1
    assert net.features(torch.zeros(1, 1, 40, 60)).shape == (1, 16, 10, 15)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(net.fc3(net.relu4(net.fc2(net.relu3(net.fc1(net.features(x).flatten(1)))))), net(x))


def test_the_pooling_can_be_chosen():
    assert isinstance(LeNet(pool=nn.AvgPool2d).pool1, nn.AvgPool2d)


@pytest.mark.parametrize("size", [0, 2, 30])
def test_a_size_that_two_poolings_cannot_halve_is_refused(size):
    with pytest.raises(ValueError, match="multiple of 4"):
        LeNet(size=size)
