"""The widget that switches filters off: what it says is what the network does, and its picture is the heat map."""

import re

import ipywidgets
import pytest
import torch
import torch.nn.functional as F
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers import plots
from helpers.capture import masked_forward
from helpers.data import digit_scenes, digits
from helpers.networks import load
from helpers.widgets import filter_explorer

LAYER = "pool2"
DRAWN = digits(60, seed=4)
X, Y = DRAWN.images, DRAWN.labels
PICTURES = {"one": digit_scenes(1, 1).images[0], "wide": digit_scenes(1, 2, size=100, digits=2).images[0, :, :60]}
WEIGHTS = torch.linspace(-1, 1, 16)


@pytest.fixture(scope="module")
def network():
    return load("lenet-mnist", "cpu")


@pytest.fixture
def shown(monkeypatch):
    """The maps that are drawn, one after the other."""
    drawn_maps = []
    real = plots.maps
    monkeypatch.setattr(plots, "maps", lambda x, *rest, **named: drawn_maps.append(x) or real(x, *rest, **named))
    return drawn_maps


def parts(box):
    which, *rows, view = box.children
    return which, [switch for row in rows for switch in row.children], view


def said(view):
    on, of, share, count = re.search(r"(\d+) of (\d+) filters on; ([\d.]+)% of (\d+) digits", view.value).groups()
    assert view.value.count(f"{on} of {of} filters on; {share}%") == 2  # below the picture, and in its place
    return int(on), int(of), float(share), int(count)


def right(network, keep):
    """Percent of X that is named rightly, the layers run one by one."""
    with torch.no_grad():
        features = network[:6](X) * torch.tensor(keep, dtype=torch.float32)[:, None, None]
        return 100 * (network[6:](features).argmax(1) == Y).double().mean().item()


def test_with_all_filters_on_it_says_the_networks_own_accuracy(network):
    _, switches, view = parts(filter_explorer(network, LAYER, PICTURES, WEIGHTS, X, Y))
    assert [switch.value for switch in switches] == [True] * 16
    assert [switch.description for switch in switches] == [str(i) for i in range(16)]
    with torch.no_grad():
        whole = 100 * (network(X).argmax(1) == Y).double().mean().item()
    assert said(view) == (16, 16, pytest.approx(whole, abs=0.051), 60)
    assert 20 < whole < 100  # neither a network that knows nothing, nor nothing to lose


@pytest.mark.parametrize("off", [(15,), (2, 7, 11), tuple(range(16))])
def test_without_filters_it_says_what_the_masked_network_gets_right(network, off):
    _, switches, view = parts(filter_explorer(network, LAYER, PICTURES, WEIGHTS, X, Y))
    for i in off:
        switches[i].value = False
    keep = [float(i not in off) for i in range(16)]
    masked = masked_forward(network, X, {LAYER: torch.tensor(keep)[:, None, None]}).logits.argmax(1) == Y
    assert right(network, keep) == pytest.approx(100 * masked.double().mean().item())
    assert said(view) == (16 - len(off), 16, pytest.approx(right(network, keep), abs=0.051), 60)


def test_every_filter_counts_and_comes_back(network):
    _, switches, view = parts(filter_explorer(network, LAYER, PICTURES, WEIGHTS, X, Y))
    before, seen = view.value, []
    for i, switch in enumerate(switches):
        switch.value = False
        keep = [float(k != i) for k in range(16)]
        assert said(view)[2] == pytest.approx(right(network, keep), abs=0.051)
        seen.append(said(view)[2])
        switch.value = True
    assert view.value == before
    assert len(set(seen)) > 3  # the filters do differ


def test_the_picture_is_the_heat_map_of_the_filters_that_are_left(network, shown):
    which, switches, _ = parts(filter_explorer(network, LAYER, PICTURES, WEIGHTS, X, Y))
    switches[15].value = False
    which.value = "wide"
    weights = WEIGHTS.clone()
    for drawn, name, off in zip(shown, ("one", "one", "wide"), (None, 15, 15), strict=True):
        if off is not None:
            weights[off] = 0
        with torch.no_grad():
            summed = (network[:6](PICTURES[name][None]) * weights[:, None, None]).sum(1, keepdim=True)
        expected = F.interpolate(summed, PICTURES[name].shape[1:], mode="bilinear", align_corners=False)[:, 0]
        torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=1e-4)
        assert drawn.shape == (1, *PICTURES[name].shape[1:])


def test_every_control_redraws(network):
    which, switches, view = parts(filter_explorer(network, LAYER, PICTURES, WEIGHTS.double(), X, Y))  # as measured
    seen = [view.value]
    assert which.options == ("one", "wide")
    which.value = "wide"
    seen.append(view.value)
    for i in (3, 9):
        switches[i].value = False
        seen.append(view.value)
    assert len(set(seen)) == 4
    assert 'alt="The heat map. 14 of 16 filters on;' in view.value


def test_another_layer_has_as_many_switches_as_filters(network):
    box = filter_explorer(network, "conv1", PICTURES, torch.ones(6), X, Y)
    _, switches, view = parts(box)
    assert len(switches) == 6
    switches[0].value = False
    masked = masked_forward(network, X, {"conv1": torch.tensor([0.0, 1, 1, 1, 1, 1])[:, None, None]}).logits
    share = 100 * (masked.argmax(1) == Y).double().mean().item()
    assert said(view) == (5, 6, pytest.approx(share, abs=0.051), 60)


def test_switches_come_in_rows_of_eight_and_only_the_widgets_of_7_7_are_used(network):
    box = filter_explorer(network, LAYER, PICTURES, WEIGHTS, X, Y)
    which, *rows, view = box.children
    assert [len(row.children) for row in rows] == [8, 8]
    kinds = {
        type(control) for control in (box, which, view, *rows, *(switch for row in rows for switch in row.children))
    }
    known = {getattr(ipywidgets, name) for name in ("VBox", "HBox", "Dropdown", "Checkbox", "HTML")}
    assert kinds == known


def test_nothing_that_is_given_is_changed(network):
    copies = [tensor.clone() for tensor in (WEIGHTS, X, Y, *PICTURES.values())]
    with assert_untouched(network):
        _, switches, _ = parts(filter_explorer(network, LAYER, PICTURES, WEIGHTS, X, Y))
        switches[1].value = False
    broken = nn.Sequential(nn.Conv2d(1, 3, 3), Boom())
    with assert_untouched(broken), pytest.raises(RuntimeError, match="boom"):
        filter_explorer(broken, "0", PICTURES, torch.ones(3), X, Y)
    for tensor, before in zip((WEIGHTS, X, Y, *PICTURES.values()), copies, strict=True):
        assert tensor.equal(before)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"y": Y[:59]}, "y"),
        ({"images": {}}, "images must hold at least one image"),
        ({"weights": torch.ones(15)}, r"weights must be \(16,\), got \(15,\)"),
        ({"layer": "pool3"}, "pool3"),
        ({"layer": "fc1", "images": {"small": X[0]}}, "layer must have feature maps"),
        ({"images": {"flat": torch.zeros(84, 84)}}, "x must"),
    ],
)
def test_bad_input_names_the_argument(network, arguments, named):
    arguments = {"layer": LAYER, "images": PICTURES, "weights": WEIGHTS, "x": X, "y": Y} | arguments
    with pytest.raises(ValueError, match=named):
        filter_explorer(network, **arguments)
