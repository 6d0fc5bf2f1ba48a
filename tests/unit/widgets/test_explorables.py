"""Explorables in Python: what they hand over, what a notebook shows, and what they refuse."""

import base64
import json
import re

import pytest
import torch
from torch import nn

from helpers import data, networks, retina, search
from helpers.readout import position_rule
from helpers.widgets import (
    box_explorable,
    digit_explorable,
    filters_explorable,
    gaze_explorable,
    kernel_explorable,
    question_explorable,
    search_explorable,
    steps_explorable,
)
from helpers.widgets._explorables import quadrature

EDGE = {"edge": [[-1, 0, 1]] * 3, "blur": [[1, 1, 1]] * 3}
SCENES = data.scenes(2, seed=3)
PICTURES = {"one": SCENES.images[0], "two": SCENES.images[1]}


GRAY = torch.rand(1, 9, 9)
DIGITS = data.digits(6, seed=1)
SEARCHED = data.searched_scenes(2, seed=7)
GRID = search.fixation_grid(3).flatten(0, 1)


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    return networks.load("scenes-gap", "cpu")


@pytest.fixture(scope="module")
def eye() -> nn.Sequential:
    return networks.load("scenes-logpolar", "cpu")


@pytest.fixture(scope="module")
def lenet() -> nn.Sequential:
    torch.manual_seed(0)
    return networks.LeNet().eval()


def silence(model: nn.Sequential, layer: str = "pool2", images=None, lost=None, y=DIGITS.labels):
    images = {"a": torch.rand(1, 30, 40)} if images is None else images
    return filters_explorable(model, layer, images, torch.zeros(16) if lost is None else lost, DIGITS.images, y)


def look(model: nn.Sequential, images=SEARCHED.images, labels=SEARCHED.labels[:, 0], fixations=GRID, saccades=2):
    return search_explorable(model, images, labels, SEARCHED.boxes[:, 0], fixations=fixations, saccades=saccades)


def test_a_reader_s_settings_can_be_read_set_and_observed() -> None:
    explorable, heard = kernel_explorable(torch.rand(8, 8), EDGE), []
    assert explorable.state["weights"] == [-1, 0, 1] * 3
    explorable.observe(lambda change: heard.append(change["new"]["relu"]), names="state")
    explorable.state = {**explorable.state, "relu": True}
    assert heard == [True]


def test_a_notebook_gets_the_widget_and_pages_without_a_kernel_get_html() -> None:
    data_, _ = kernel_explorable(torch.rand(8, 8), EDGE)._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= data_.keys()
    html = data_["text/html"]
    assert html.startswith('<div class="explorable-home" data-explorable="kernel"><script type="application/json">')
    assert re.search(r'<img [^>]*alt="The map that the kernel “edge” makes of the image\."', html)


def test_the_html_holds_what_the_widget_does(net: nn.Sequential) -> None:
    explorable = question_explorable(net, {"<one>": SCENES.images[0]}, target=4)
    given = re.search(r'json">(.*?)</script>', explorable.html(), re.DOTALL)[1]
    assert "<" not in given
    values = json.loads(given)
    assert (values["state"], values["settings"]) == (explorable.state, explorable.settings)
    for name, entry in explorable.arrays.items():
        assert base64.b64decode(values["arrays"][name]["data"]) == entry["data"]


def test_the_code_is_one_module_without_imports(net: nn.Sequential) -> None:
    code = kernel_explorable(torch.rand(8, 8), EDGE)._esm
    assert code.endswith("export default { render };")
    assert not re.search(r"^(import|export (?!default))", code, re.MULTILINE)


def test_the_weights_add_up_as_numpys_quadrature() -> None:
    for steps in (1, 3, 8):
        assert sum(weight for _, weight in quadrature(steps)) == pytest.approx(1)
        assert sum(weight * place**2 for place, weight in quadrature(steps)) == pytest.approx(
            1 / 3 if steps > 1 else 1 / 4
        )


def test_a_network_for_the_browser_has_a_byte_a_weight_and_the_right_layers(lenet: nn.Sequential) -> None:
    weights = [value.clone() for value in lenet.parameters()]
    rule = position_rule(lenet, DIGITS.images, torch.rand(6, 2), "fc2")
    explorable = digit_explorable(lenet, {"0": DIGITS.images[0], "1": DIGITS.images[1]}, rule, "fc2")
    assert explorable.settings["shown"] == ["relu1", "pool1", "relu2", "pool2"]
    assert explorable.arrays["fc1.weight"]["dtype"] == "int8"
    assert all(a.equal(b) for a, b in zip(weights, lenet.parameters(), strict=True))


def test_a_search_hands_over_what_the_network_says_from_everywhere(eye: nn.Sequential) -> None:
    explorable = look(eye)
    log_p = search.label_map(eye, networks.normalize(SEARCHED.images, eye), GRID, retina.viewer(eye, 0.5))
    views = torch.frombuffer(bytearray(explorable.arrays["views"]["data"]), dtype=torch.float32).view(2, 9, 8)
    torch.testing.assert_close(views, log_p)
    assert explorable.state["cursor"] == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: kernel_explorable(torch.rand(2, 8), EDGE), "image must be gray"),
        (lambda net: kernel_explorable(torch.rand(8, 8), {}), "presets must hold at least one kernel"),
        (
            lambda net: kernel_explorable(torch.rand(8, 8), {"bad": [[1, 2], [3, 4]]}),
            r"presets\['bad'\] must be 3 rows",
        ),
        (lambda net: question_explorable(net, {}), "images must hold at least one"),
        (lambda net: question_explorable(net, {"a": torch.rand(3, 8, 9)}), "images must be square"),
        (lambda net: question_explorable(net, PICTURES, target=8), "target"),
        (lambda net: question_explorable(nn.Sequential(nn.ReLU()), PICTURES), "card"),
        (lambda net: box_explorable({}, PICTURES, SCENES.boxes[:, 0]), "models must hold at least one"),
        (lambda net: box_explorable({"a": net}, PICTURES, SCENES.boxes[:1, 0]), r"boxes must be \(2, 4\)"),
        (lambda net: gaze_explorable({}), "images must hold at least one"),
        (lambda net: gaze_explorable({"a": torch.rand(2, 8, 8)}), r"images\['a'\] must be \(1, H, W\)"),
        (lambda net: gaze_explorable({"a": GRAY}, size=(1, 8)), "size"),
        (lambda net: gaze_explorable({"a": GRAY}, r_min=1), r"r_min must lie in \(0, 1\)"),
        (
            lambda net: gaze_explorable({"a": GRAY}, model=net),
            "model must see log-polar views, got one that sees 'whole'",
        ),
        (lambda net: steps_explorable(net, {}), "images must hold at least one"),
        (lambda net: steps_explorable(net, PICTURES, target=-1), "target"),
        (lambda net: steps_explorable(nn.Sequential(nn.ReLU()), PICTURES), "card"),
        (lambda net: look(net), "model must see log-polar views"),
    ],
)
def test_bad_input_is_refused(make, message, net) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(net)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net, eye: digit_explorable(net, {}, nn.Linear(84, 2), "fc2"), "images must hold at least one"),
        (
            lambda net, eye: digit_explorable(net, {"0": DIGITS.images[0]}, nn.Linear(9, 2), "fc2"),
            r"rule must be nn.Linear\(84, 2\)",
        ),
        (lambda net, eye: digit_explorable(net, PICTURES, nn.Linear(84, 2), "fc2"), "digits must be gray"),
        (lambda net, eye: silence(net, images={}), "images must hold at least one"),
        (lambda net, eye: silence(net, images={"a": torch.rand(3, 9, 9)}), r"images\['a'\] must be"),
        (lambda net, eye: silence(net, "pool9"), "layer must be one of conv1"),
        (lambda net, eye: silence(net, lost=torch.zeros(15)), "lost must be"),
        (lambda net, eye: silence(net, y=DIGITS.labels[:3]), "y must be"),
        (lambda net, eye: look(eye, images=SEARCHED.images[:, :, :64]), "fixations must be a square grid"),
        (lambda net, eye: look(eye, fixations=GRID[:8]), "fixations must be a square grid"),
        (lambda net, eye: look(eye, labels=torch.tensor([0, 8])), "labels must"),
        (lambda net, eye: look(eye, saccades=9), "saccades must be"),
    ],
)
def test_bad_digits_filters_and_searches_are_refused(make, message, lenet, eye) -> None:
    with pytest.raises(ValueError, match=message):
        make(lenet, eye)
