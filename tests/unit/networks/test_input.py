"""A card for a network of one's own, and images as networks expect them, there and back."""

import math

import pytest
import torch
from torch import nn

from helpers import networks, retina, search
from helpers.networks import adopt, denormalize, normalize

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)


def own():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def test_an_adopted_network_knows_its_input():
    net = own()
    assert adopt(net, MEAN, torch.tensor(STD), 32, 5) is net
    assert net.card.size == (32, 32)
    assert net.card.classes == ("0", "1", "2", "3", "4")
    assert net.card.view == "whole"
    assert math.isnan(net.card.accuracy)
    images = torch.rand(2, 3, 32, 32)
    x = normalize(images, net)
    torch.testing.assert_close(x[:, 1], (images[:, 1] - 0.5) / 0.25)
    torch.testing.assert_close(denormalize(x, net), images)
    assert search.label_map(net, x, 3).shape == (2, 3, 3, 5)
    assert "_card" not in "".join(net.state_dict())


def test_without_a_card_the_way_to_one_is_said():
    for call in (
        lambda: normalize(torch.rand(1, 3, 8, 8), own()),
        lambda: denormalize(torch.rand(1, 3, 8, 8), own()),
        lambda: search.label_map(own(), torch.rand(1, 3, 8, 8)),
        lambda: retina.view(torch.rand(1, 3, 8, 8), own()),
    ):
        with pytest.raises(ValueError, match=r"adopt\(model, mean, std, size, classes\)"):
            call()
    assert search.search(own(), torch.rand(1, 3, 32, 32), fixations=3, view=retina.log_polar).beliefs.shape == (1, 2, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5,)}, "mean and std must be one number a colour each"),
        ({"std": (0.5, 0.5, 0.0)}, "std above 0"),
        ({"size": (0, 3)}, "size must be"),
        ({"classes": []}, "classes must name at least one"),
        ({"model": 3}, "model must be a torch module"),
    ],
)
def test_bad_cards_are_refused(changes, message):
    arguments = {"model": own(), "mean": MEAN, "std": STD, "size": 32, "classes": ["a", "b"]} | changes
    with pytest.raises(ValueError, match=message):
        adopt(**arguments)


def test_an_image_may_leave_its_range_by_a_rounding():
    normalize(torch.full((1, 3, 64, 64), 1.0000001), "scenes-gap")
    with pytest.raises(ValueError, match=r"got 1.01 .. 1.01|got 1.00999999 .. 1.00999999"):
        normalize(torch.full((1, 3, 64, 64), 1.01), "scenes-gap")
    assert networks.card("scenes-gap").accuracy > 0.9
    retina.log_polar(torch.rand(1, 3, 8, 8), torch.tensor([[1.00001, 0.0]]))
