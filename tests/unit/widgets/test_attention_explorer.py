"""The widget of LICNN's settings: its map, its blurred image and its numbers are those of a direct computation."""

import re
from functools import partial

import ipywidgets
import pytest
import torch
from support.refuses import refuses
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers import plots
from helpers.background import salient_region
from helpers.data import digits, scenes
from helpers.filters import blurred
from helpers.licnn import attention_map, inhibition_mask
from helpers.networks import load, normalize
from helpers.widgets import attention_explorer

WORLD = scenes(3, 9)
IMAGES, LABELS = WORLD.images, WORLD.labels[:, 0]
NAMES = ("which", "choice", "a", "b", "k", "mode", "radius")
SETTINGS = {"a": 0.1, "b": 0.9, "k": 7, "mode": "response", "radius": 5.0}


@pytest.fixture(scope="module")
def network():
    return load("scenes-gap", "cpu")


@pytest.fixture
def shown(monkeypatch):
    """What is drawn: (images, maps, titles) of each overlay, and (images, titles) of each row of images."""
    calls_by_name = {"overlay": [], "images": []}
    for name, calls in calls_by_name.items():
        real = getattr(plots, name)
        monkeypatch.setattr(
            plots, name, lambda *x, _real=real, _calls=calls, **named: _calls.append(x) or _real(*x, **named)
        )
    return calls_by_name


def parts(box):
    *controls, view = box.children
    return dict(zip(NAMES, controls, strict=True)), view


def directly(network, image, target, settings):
    """The map, what is seen after the blur, and the chances (2, classes) before and after."""
    rule = partial(inhibition_mask, **{name: settings[name] for name in ("a", "b", "k")})
    attention = attention_map(network, normalize(image[None], network), target, mode=settings["mode"], suppress=rule)
    inside = salient_region(attention)[0]
    after = torch.where(inside, image, blurred(image[None], settings["radius"])[0])
    with torch.no_grad():
        x = normalize(torch.stack([image, after.clamp(0, 1)]), network)
        return attention, after, inside, network(x).softmax(1)


def three(chances, names):
    order = sorted(range(len(names)), key=lambda i: -chances[i].item())[:3]
    return ", ".join(f"{names[i]} {chances[i].item():.1%}" for i in order)


def plain(title):
    return title.replace("\xa0", " ")


def check_drawn(network, shown, image, target, settings, view):
    """The last drawing is what these settings give."""
    attention, after, inside, chances = directly(network, image, target, settings)
    names = network.card.classes
    under, drawn, titles = shown["overlay"][-1]
    torch.testing.assert_close(under, image[None])
    torch.testing.assert_close(drawn, attention)
    assert titles == [names[target]]
    pair, titles = shown["images"][-1]
    torch.testing.assert_close(pair, torch.stack([image, after]))
    assert pair[1][:, inside].equal(image[:, inside])
    said = [f"before: {three(chances[0], names)}", f"after: {three(chances[1], names)}"]
    assert [plain(title) for title in titles] == said
    assert "; ".join(said) in plain(view.value)  # the alternative text has the numbers too
    about = f"{names[target]}: {chances[0, target]:.1%} before the blur, {chances[1, target]:.1%} after it; "
    about += f"{inside.float().mean():.0%} of the image stays sharp"
    assert f"The attention map over the image. {about}." in view.value
    assert view.value.endswith(f"<p>{about}</p>")


def test_it_starts_with_the_likeliest_class_and_the_settings_of_the_paper(network, shown):
    controls, view = parts(attention_explorer(network, IMAGES))
    best = network(normalize(IMAGES, network)).argmax(1)
    assert {name: controls[name].value for name in SETTINGS} == SETTINGS
    assert (controls["which"].value, controls["choice"].value) == (0, best[0])
    assert [len(calls) for calls in shown.values()] == [1, 1]  # drawn once
    check_drawn(network, shown, IMAGES[0], best[0].item(), SETTINGS, view)
    assert view.value.count("<img") == 2


def test_the_sliders_run_where_they_should(network):
    box = attention_explorer(network, IMAGES)
    controls, _ = parts(box)
    ends = {name: (controls[name].min, controls[name].max) for name in ("a", "b", "radius")}
    assert ends == {"a": (0, 1), "b": (0, 2), "radius": (0, 10)}
    assert list(controls["k"].options) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert list(controls["mode"].options) == ["response", "gradient"]
    assert [name for name, _ in controls["choice"].options] == list(network.card.classes)
    names = ("VBox", "Dropdown", "FloatSlider", "SelectionSlider", "HTML")  # those of ipywidgets 7.7, as Colab has
    assert {type(control) for control in (box, *box.children)} == {getattr(ipywidgets, name) for name in names}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("choice", 3),
        ("a", 0.0),
        ("b", 2.0),
        ("k", 1),
        ("k", 15),
        ("mode", "gradient"),
        ("radius", 0.0),
        ("radius", 10.0),
    ],
)
def test_every_control_changes_what_is_drawn(network, shown, name, value):
    controls, view = parts(attention_explorer(network, IMAGES))
    before, target = view.value, controls["choice"].value
    assert controls[name].value != value
    controls[name].value = value
    target = value if name == "choice" else target
    check_drawn(network, shown, IMAGES[0], target, SETTINGS | {name: value}, view)
    assert view.value != before
    assert [len(calls) for calls in shown.values()] == [2, 2]
    if name == "radius":
        torch.testing.assert_close(shown["overlay"][1][1], shown["overlay"][0][1])  # the same map
    else:
        assert not torch.allclose(shown["overlay"][1][1], shown["overlay"][0][1])


def test_another_image_comes_with_its_own_class_in_one_drawing(network, shown):
    controls, view = parts(attention_explorer(network, IMAGES))
    best = network(normalize(IMAGES, network)).argmax(1).tolist()
    assert len(set(best)) == 3
    first = view.value
    controls["k"].value = 5
    for drawings, i in enumerate((2, 1, 0), start=3):
        controls["which"].value = i
        assert controls["choice"].value == best[i]
        assert [len(calls) for calls in shown.values()] == [drawings] * 2
        check_drawn(network, shown, IMAGES[i], best[i], SETTINGS | {"k": 5}, view)
    controls["k"].value = 7
    assert view.value == first  # settings go back
    controls, view = parts(attention_explorer(network, IMAGES[[0, 0]].clone()))
    controls["which"].value = 1  # another image of the same class is drawn too
    assert [len(calls) for calls in shown.values()] == [8, 8]


def test_labels_name_the_images(network):
    which = parts(attention_explorer(network, IMAGES))[0]["which"]
    assert [name for name, _ in which.options] == ["0", "1", "2"]
    named = parts(attention_explorer(network, IMAGES, LABELS))[0]["which"]
    classes = network.card.classes
    assert [name for name, _ in named.options] == [f"{i}: {classes[c]}" for i, c in enumerate(LABELS.tolist())]


def test_gray_digits_and_double_precision_are_taken(shown):
    network, images = load("lenet-mnist", "cpu"), digits(2, seed=4).images
    controls, view = parts(attention_explorer(network, images.double()))
    check_drawn(network, shown, images[0], controls["choice"].value, SETTINGS, view)


def test_long_names_stay_with_their_numbers(shown):
    network = load("photos-gap", "cpu")
    box = attention_explorer(network, IMAGES[:1])  # it is not sure of these: all three have a chance
    controls, view = parts(box)
    check_drawn(network, shown, IMAGES[0], controls["choice"].value, SETTINGS, view)
    _, titles = shown["images"][-1]
    for title in titles:
        words = title.split(" ")  # hard spaces are not split at
        assert words[0] in ("before:", "after:")
        assert len(words) == 4
        assert all(re.fullmatch(r".+\xa0[\d.]+%,?", word) for word in words[1:])
    assert len(box.children[1].options) == 40


def test_a_map_of_which_nothing_is_left_is_said(network, monkeypatch, shown):
    monkeypatch.setattr("helpers.licnn.attention_map", lambda model, x, *rest, **named: torch.zeros(1, 64, 64))
    view = attention_explorer(network, IMAGES).children[-1]
    assert "nothing is left of the map, so nothing is blurred" in view.value
    pair, _ = shown["images"][-1]
    assert pair[1].equal(pair[0])


def test_a_blur_that_rounds_above_white_is_shown(network):
    white = torch.ones(1, 3, 64, 64)
    white[..., 20:30, 20:30] = 0
    controls, view = parts(attention_explorer(network, white))
    for radius in (0.5, 1.5, 3.0, 10.0):
        controls["radius"].value = radius
        assert view.value.count("<img") == 2


def test_nothing_that_is_given_is_changed(network):
    images, labels = IMAGES.clone(), LABELS.clone()
    with assert_untouched(network):
        controls, _ = parts(attention_explorer(network, images, labels))
        for name, value in {"which": 1, "choice": 5, "k": 3, "mode": "gradient", "radius": 2.0}.items():
            controls[name].value = value
    assert images.equal(IMAGES)
    assert labels.equal(LABELS)
    broken = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), Boom())
    broken.card = network.card
    with assert_untouched(broken), pytest.raises(RuntimeError, match="boom"):
        attention_explorer(broken, IMAGES)


def test_a_network_in_training_mode_is_read_in_evaluation_and_left_in_training(network, shown):
    trained = load("scenes-gap", "cpu").train()
    with assert_untouched(trained):
        controls, view = parts(attention_explorer(trained, IMAGES))
    check_drawn(network, shown, IMAGES[0], controls["choice"].value, SETTINGS, view)


def test_bad_input_names_the_argument(network):
    good = {"model": network, "images": IMAGES, "labels": None}
    refuses(attention_explorer, good, model=nn.Linear(1, 1), images=IMAGES[0], labels=LABELS[:2])
    refuses(
        attention_explorer, good, model=load("photos-disc", "cpu"), images=IMAGES + 1, labels=["ring", "disk", "star"]
    )
    refuses(attention_explorer, good, images=(IMAGES * 255).byte(), labels=torch.tensor([0, 1, 8]))
