import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers import plots
from helpers.data import CLASSES, scenes
from helpers.networks import load, normalize
from helpers.widgets import cam_explorer, class_model_explorer, kernel_explorer, picture_html

PRESETS = {"edge": [[-1, 0, 1]] * 3, "average": [[1, 1, 1]] * 3}


def parts(widget):
    choice, *rows, rectify, view = widget.children
    return choice, [box for row in rows for box in row.children], rectify, view


def test_the_first_preset_is_shown_with_its_answers():
    image = torch.zeros(5, 5)
    image[:, 3:] = 1
    widget = kernel_explorer(image, PRESETS)
    choice, boxes, rectify, view = parts(widget)
    assert [box.value for box in boxes] == [-1, 0, 1] * 3
    kinds = {type(w).__name__ for w in (widget, choice, rectify, *boxes, view)}  # of ipywidgets 7.7, as Colab has
    assert kinds <= {"VBox", "HBox", "FloatText", "Dropdown", "Checkbox", "HTML"}
    assert "weights add up to 0" in view.value
    assert "from -3 to 3" in view.value


def test_choosing_typing_and_rectifying_redraw():
    choice, boxes, rectify, view = parts(kernel_explorer(torch.ones(5, 5), PRESETS))
    seen = [view.value]
    choice.value = "average"
    assert "from 4 to 9" in view.value
    seen.append(view.value)
    boxes[4].value = -9
    assert "from -6 to -1" in view.value
    seen.append(view.value)
    rectify.value = True
    assert "from 0 to 0" in view.value
    seen.append(view.value)
    assert len(set(seen)) == 4


def test_a_preset_draws_once(monkeypatch):
    choice, *_ = parts(kernel_explorer(torch.ones(5, 5), PRESETS))
    drawn = []
    monkeypatch.setattr(plots, "signed_maps", lambda x: drawn.append(x) or plots.images(x))
    choice.value = "average"
    assert len(drawn) == 1


def test_weights_too_large_to_compute_with_are_said():
    box = kernel_explorer(torch.rand(8, 8), {"one": [[0, 0, 0], [0, 1, 0], [0, 0, 0]]})
    weights = [w for row in box.children[1:4] for w in row.children]
    for value in (1e308, float("inf"), float("nan")):
        weights[4].value = value
        assert "too large" in box.children[-1].value
    weights[4].value = 1.0
    assert "<img" in box.children[-1].value


def test_the_picture_carries_its_alternative_text_and_is_a_png():
    tag = picture_html(plots.images(np.eye(4)), 'a "quoted" <line>')
    assert 'alt="a &quot;quoted&quot; &lt;line&gt;"' in tag
    data = base64.b64decode(re.search(r"base64,([^\"]+)", tag)[1])
    assert Image.open(io.BytesIO(data)).format == "PNG"


@pytest.mark.parametrize(
    ("image", "presets", "named"),
    [
        (torch.zeros(1, 5, 5), PRESETS, "image"),
        (torch.zeros(5, 5), {}, "presets"),
        (torch.zeros(5, 5), {"bad": [[1, 2], [3, 4]]}, "bad"),
    ],
)
def test_bad_input_names_the_argument(image, presets, named):
    with pytest.raises(ValueError, match=named):
        kernel_explorer(image, presets)


def test_the_class_model_follows_every_control():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    box = class_model_explorer(network, (1, 4, 4), ["left", "right"])
    choice, penalty, steps, start, view = box.children
    seen = [view.value]
    for control, value in ((choice, 1), (penalty, 1.0), (steps, 3), (start, 0.3)):
        control.value = value
        seen.append(view.value)
    assert len(set(seen)) == 5
    assert 'alt="The class model of right: objective' in view.value
    assert "after 3 steps" in view.value


def test_a_class_model_that_runs_away_says_so():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    nn.init.constant_(network[1].weight, 3e38)
    with pytest.raises(ValueError, match="classes"):
        class_model_explorer(network, (1, 4, 4), [])
    assert "lr must be lower" in class_model_explorer(network, (1, 4, 4), ["a", "b"]).children[-1].value


def test_the_map_and_the_box_follow_every_control():
    network = load("scenes-gap", "cpu")
    world = scenes(2, 5)
    box = cam_explorer(network, {"first": world.images[0], "second": world.images[1]})
    which, choice, threshold, view = box.children
    assert choice.value == world.labels[0, 0]  # the network's best answer
    seen = [view.value]
    for control, value in ((which, "second"), (choice, (choice.value + 1) % 8), (threshold, 0.7)):
        control.value = value
        seen.append(view.value)
    assert len(set(seen)) == 4
    assert f'alt="The map over the image. {CLASSES[choice.value]}: score' in view.value


def test_the_account_of_the_explorer_adds_up():
    network, world = load("scenes-gap", "cpu"), scenes(1, 9)
    view = cam_explorer(network, {"one": world.images[0]}).children[-1].value
    score, mean, bias = map(float, re.search(r"score (\S+) = mean (\S+) \+ bias (\S+);", view).groups())
    assert score == pytest.approx(mean + bias, abs=0.06 * abs(score) ** 0.5 + 0.01)
    assert network(normalize(world.images, network)).max().item() == pytest.approx(score, rel=0.01)


def test_no_box_is_drawn_where_nothing_speaks_for_a_class():
    network, world = load("scenes-gap", "cpu"), scenes(1, 9)
    with torch.no_grad():
        network.fc.weight[3] = -1
    box = cam_explorer(network, {"one": world.images[0]})
    box.children[1].value = 3
    assert "no place speaks for it" in box.children[-1].value


@pytest.mark.parametrize(("name", "images", "named"), [("scenes-gap", {}, "images"), ("scenes-gmp", None, "maxima")])
def test_the_map_explorer_refuses_what_it_cannot_show(name, images, named):
    images = {"one": torch.rand(3, 64, 64)} if images is None else images
    with pytest.raises(ValueError, match=named):
        cam_explorer(load(name, "cpu"), images)
