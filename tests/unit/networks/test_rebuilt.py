"""Networks rebuilt with other arguments and the same weights."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from support.untouched import assert_untouched

from helpers.networks import Card, SmallVGG, card, load, normalize, rebuilt


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.abs().max() > 1e-3  # something is there to compare
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["scenes-gap", "photos-gap", "lenet-mnist"])
def test_a_network_rebuilt_without_changes_is_a_copy(name):
    net = load(name, "cpu")
    state = torch.get_rng_state()
    network = rebuilt(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(network) is type(net)
    assert repr(network) == repr(net)
    x = normalize(torch.rand(2, len(net.card.mean), *net.card.size), net)
    assert torch.equal(network(x), net(x))


def test_the_weights_of_a_rebuilt_network_are_its_own():
    net = load("photos-gap", "cpu")
    before = copy.deepcopy(net.state_dict())
    net.train()
    net.conv1.weight.requires_grad_(False)
    net.bn2.eval()
    with assert_untouched(net):
        network = rebuilt(net, atrous=1)
        ours, theirs = network.state_dict(), net.state_dict()
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key])
            assert value.dtype == theirs[key].dtype
            assert value.data_ptr() != theirs[key].data_ptr()
            value.zero_()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert network(torch.zeros(1, 3, 64, 64)).abs().max() == 0


def test_what_was_learned_since_loading_is_kept():
    net = load("scenes-gap", "cpu").double()
    with torch.no_grad():
        net.fc.bias += 7
    network = rebuilt(net, atrous=2)
    assert torch.equal(network.fc.bias, net.fc.bias)
    assert network.fc.bias.dtype == torch.float64
    assert all(p.requires_grad and p.device.type == "cpu" for p in network.parameters())


def test_the_card_says_what_was_changed_and_nothing_of_the_accuracy():
    net = load("scenes-gap", "cpu")
    known = copy.deepcopy(net.card)
    network = rebuilt(net, atrous=1, pooling="gmp")
    assert net.card == known == card("scenes-gap")
    assert isinstance(network.card, Card)
    assert math.isnan(network.card.accuracy)
    assert network.card.arguments == {**known.arguments, "atrous": 1, "pooling": "gmp"}
    assert network.card.about.startswith(known.about)
    assert "atrous=1" in network.card.about
    assert "pooling='gmp'" in network.card.about
    same = ("name", "architecture", "classes", "mean", "std", "view", "size", "test", "parameters", "sha256", "command")
    assert all(getattr(network.card, field) == getattr(known, field) for field in same)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(normalize(x, network), normalize(x, net))


def test_a_rebuilt_network_can_be_rebuilt():
    net = load("scenes-gap", "cpu").double()
    once, twice = rebuilt(net, atrous=2), rebuilt(rebuilt(net, atrous=1, pooling="gmp"), atrous=2)
    x = torch.rand(1, 3, 64, 64).double()
    torch.testing.assert_close(twice.features(x), once.features(x))
    assert twice.card.arguments == {**net.card.arguments, "atrous": 2, "pooling": "gmp"}
    assert repr(rebuilt(once, atrous=0)) == repr(net)


def test_rebuilding_as_the_docstring_says():
    net = load("photos-gap", "cpu").double()
    x = normalize(torch.rand(2, 3, 64, 64, dtype=torch.float64), net)
    with torch.no_grad():
        assert rebuilt(net, atrous=1).features(x).shape[2:] == (16, 16)
        # without the last pooling: the maps of the third stage, convolved by the fourth's weights as they are
        longer = rebuilt(net, stages=((24,), (48,), (96, 192, 192)))
        assert not hasattr(longer, "pool3")
        maps = net.features[: [name for name, _ in net.named_children()].index("pool3")](x)
        expected = net.relu5(net.bn5(net.conv5(net.relu4(net.bn4(net.conv4(maps))))))
        assert expected.shape == (2, 192, 16, 16)
        close(longer.features(x), expected)
        top = rebuilt(net, pooling="gmp")
        close(top(x), net.features(x).amax((2, 3)) @ net.fc.weight.T + net.fc.bias)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_rebuilt_network_stays_on_the_device():
    assert {p.device.type for p in rebuilt(load("scenes-gap", "cuda"), atrous=1).parameters()} == {"cuda"}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("scenes-gap", {"classes": 9}, "changes must fit .*classes"),
        ("scenes-gap", {"norm": True}, "changes must fit .*norm"),
        ("scenes-gap", {"stages": ((16,), (32,), (64,), (128, 128))}, "changes must fit .*stages"),
        ("scenes-gap", {"colour": "red"}, "changes must fit .*colour"),
        ("photos-logpolar", {"atrous": 1}, "atrous and angular"),
        ("lenet-mnist", {"size": 32}, "changes must fit .*size"),
        ("lenet-mnist", {"size": 30}, "size must"),
    ],
)
def test_changes_that_do_not_fit_the_weights_are_refused(name, changes, message):
    net = load(name, "cpu")
    with assert_untouched(net), pytest.raises(ValueError, match=message):
        rebuilt(net, **changes)
    assert net.card == card(name)


@pytest.mark.parametrize("stranger", [SmallVGG(8), "scenes-gap", card("scenes-gap")])
def test_only_the_books_networks_are_rebuilt(stranger):
    with pytest.raises(ValueError, match=r"network must be one of the book's, from load\(\)"):
        rebuilt(stranger, atrous=1)
