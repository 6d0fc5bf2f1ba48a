"""Moving the gaze: what is drawn is what the retina sees, and what is said is what the network says of it."""

import base64
import html
import io
import re
from dataclasses import replace

import ipywidgets
import pytest
import torch
from matplotlib.image import imread
from support.refuses import refuses
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers import plots, retina
from helpers.data import searched_scenes
from helpers.networks import load, normalize
from helpers.plots._film import Film
from helpers.widgets import gaze_explorer, gaze_film
from helpers.widgets._gaze import gaze_frame

IMAGES = searched_scenes(2, seed=3).images  # (2, 3, 128, 128)
KINDS = ("scenes-logpolar", "scenes-disc")
NAMES = ("which", "right", "down")
YELLOW = torch.tensor([0.94, 0.89, 0.26])
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def networks():
    return {kind: load(kind, "cpu") for kind in KINDS}


@pytest.fixture
def shown(monkeypatch):
    """What is drawn: (pictures, titles) of each figure."""
    calls, real = [], plots.gallery
    monkeypatch.setattr(plots, "gallery", lambda *x, **named: calls.append(x) or real(*x, **named))
    return calls


def parts(box):
    *controls, view = box.children
    return dict(zip(NAMES, controls, strict=True)), view


def directly(network, image, gaze, r_max):
    """What is seen, in the image's colours, and the text: from the views, the card and a softmax."""
    seen = retina.views(normalize(image[None], network), torch.tensor([gaze]), network, r_max)[0]
    with torch.no_grad():
        chances = network(seen)[0].softmax(0).tolist()
    card = network.card
    colours = torch.stack([plane * s + m for plane, m, s in zip(seen[0], card.mean, card.std, strict=True)])
    best = sorted(range(len(chances)), key=lambda i: -chances[i])[:5]
    said = ", ".join(f"{card.classes[i]} {chances[i]:.0%}" for i in best)
    return colours, f"gaze {gaze[0]:+.2f}, {gaze[1]:+.2f}: {said}"


def check_seen(drawn, network, image, gaze, r_max):
    (marked, seen), titles = drawn
    expected, said = directly(network, image, gaze, r_max)
    torch.testing.assert_close(seen, expected.clamp(0, 1))
    assert marked.shape == image.shape
    assert titles == ["the image and the gaze", "what the network sees"]
    return said


# one frame


@each_kind
@pytest.mark.parametrize(("gaze", "r_max"), [([0.0, 0.0], 1.0), ([0.35, -0.6], 0.5), ([-1.0, 1.0], 0.5), ([1, 1], 2.0)])
def test_a_frame_shows_what_is_seen_and_says_the_five_likeliest(networks, shown, kind, gaze, r_max):
    figure, text = gaze_frame(networks[kind], IMAGES[1], torch.tensor(gaze), r_max)
    assert isinstance(figure, plots.Picture)
    assert text == check_seen(shown[0], networks[kind], IMAGES[1], [float(value) for value in gaze], r_max)
    assert len(re.findall(r"\d%", text)) == 5


@each_kind
def test_beyond_the_edge_the_mean_is_seen(networks, shown, kind):
    gaze_frame(networks[kind], torch.ones(3, 128, 128), torch.tensor([1.0, 0.0]), 0.5)
    _, seen = shown[0][0]
    mean = torch.tensor(networks[kind].card.mean)
    assert kind in KINDS
    # To the right of the gaze, at angle 0 and at the middle of the disc's right rim, is nothing.
    nothing = seen[:, 0, 0] if kind == "scenes-logpolar" else seen[:, 32, 60]
    torch.testing.assert_close(nothing, mean)
    there = seen[:, 0, 32] if kind == "scenes-logpolar" else seen[:, 32, 4]
    torch.testing.assert_close(there, torch.ones(3))


def test_colours_are_given_back_one_by_one(networks, shown):
    # Every colour by its own mean and spread: photographs have three different ones.
    network = load("photos-logpolar", "cpu")
    assert len(set(network.card.mean)) == len(set(network.card.std)) == 3
    gaze, image = torch.tensor([0.2, 0.1]), IMAGES[0]
    gaze_frame(network, image, gaze, 0.5)  # the circles stay within the image
    seen = retina.log_polar(image[None], gaze[None], r_min=0.5 / 32, r_max=0.5)[0, 0]
    torch.testing.assert_close(shown[0][0][1], seen, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("shape", "gaze", "r_max"),
    [((128, 128), (0.0, 0.0), 0.5), ((64, 128), (0.5, -0.25), 0.25), ((150, 90), (1.0, 1.0), 1.0)],
)
def test_the_ring_is_a_circle_in_pixels_around_what_is_seen(networks, shown, shape, gaze, r_max):
    height, width = shape
    image = torch.zeros(3, height, width)
    gaze_frame(networks["scenes-logpolar"], image, torch.tensor(gaze), r_max)
    marked, _ = shown[0][0]
    x, y, short = (gaze[0] + 1) / 2 * width, (gaze[1] + 1) / 2 * height, min(height, width)
    thick = max(1, short / 64)
    for row in range(0, height, 3):
        for column in range(0, width, 3):
            away = ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2) ** 0.5
            if abs(abs(away - r_max * short / 2) - thick) < 1e-3 or abs(away - 1.5 * thick) < 1e-3:
                continue  # rounding decides
            on = abs(away - r_max * short / 2) < thick or away < 1.5 * thick
            assert marked[:, row, column].equal(YELLOW if on else torch.zeros(3)), (row, column)


@each_kind
def test_images_that_are_not_square_are_seen(networks, shown, kind):
    image = IMAGES[0][:, 20:100]  # 80 rows, 128 columns
    _, text = gaze_frame(networks[kind], image, torch.tensor([0.5, -0.5]), 0.8)
    assert text == check_seen(shown[0], networks[kind], image, [0.5, -0.5], 0.8)


def test_a_gaze_in_double_precision_or_whole_numbers_is_taken(networks):
    network = networks["scenes-logpolar"]
    _, said = gaze_frame(network, IMAGES[0], torch.tensor([0.0, 1.0]))
    for dtype in (torch.float64, torch.int64):
        assert gaze_frame(network, IMAGES[0], torch.tensor([0, 1], dtype=dtype))[1] == said


def test_a_network_in_training_mode_is_read_in_evaluation_and_left_in_training(networks):
    trained = load("scenes-disc", "cpu").train()
    with assert_untouched(trained):
        _, said = gaze_frame(trained, IMAGES[0], torch.zeros(2))
    assert said == gaze_frame(networks["scenes-disc"], IMAGES[0], torch.zeros(2))[1]


def test_fewer_than_five_classes_are_all_said(networks):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.card = networks["scenes-disc"].card
            self.scores = nn.Parameter(torch.tensor([[0.0, 3.0]]))

        def forward(self, x):
            return self.scores.expand(len(x), 2)

    # 1 / (1 + e^-3) = 0.953
    assert gaze_frame(Two(), IMAGES[0], torch.zeros(2))[1] == "gaze +0.00, +0.00: ring 95%, disk 5%"


@pytest.mark.parametrize(
    ("image", "gaze", "message"),
    [
        (IMAGES, torch.zeros(2), "images must be a non-empty"),
        (IMAGES[0] + 1, torch.zeros(2), r"images must lie in \[0, 1\]"),
        (IMAGES[0], torch.tensor([0.0, 1.1]), r"fixations must be .* in \[-1, 1\]"),
        (IMAGES[0], torch.zeros(3), "gaze must be"),
    ],
)
def test_a_bad_image_or_gaze_is_refused(networks, image, gaze, message):
    with pytest.raises(ValueError, match=message):
        gaze_frame(networks["scenes-logpolar"], image, gaze)


# a film


@each_kind
def test_a_film_follows_its_path(networks, shown, kind):
    path = torch.tensor([[0.0, 0.0], [0.5, -0.5], [1.0, 1.0]])
    shown_film = gaze_film(networks[kind], IMAGES[0], path, "The gaze <travels>.", 0.5)
    assert isinstance(shown_film, Film)
    assert len(shown_film.tags) == len(shown) == 3
    for drawn, tag, gaze in zip(shown, shown_film.tags, path.tolist(), strict=True):
        said = check_seen(drawn, networks[kind], IMAGES[0], gaze, 0.5)
        assert f'alt="{html.escape(said)}"' in tag
    assert "<p>The gaze &lt;travels&gt;.</p>" in shown_film._repr_html_()
    sizes = {picture.shape for picture in map(pixels, shown_film.tags)}
    assert len(sizes) == 1


@pytest.mark.parametrize("kind", [*KINDS, "photos-logpolar"])
def test_the_text_below_a_frame_is_the_said_one_and_not_cut_off(kind, monkeypatch):
    network, frames = load(kind, "cpu"), []
    real = plots.film
    monkeypatch.setattr(plots, "film", lambda figures, *rest: frames.extend(figures) or real(figures, *rest))
    path = torch.tensor([[0.0, 0.0], [-0.5, 0.4], [0.7, 0.7]])
    gaze_film(network, IMAGES[0], path, "c")
    for frame, gaze in zip(frames, path, strict=True):
        text = frame._supxlabel
        said = " ".join(text.get_text().split())
        assert said == gaze_frame(network, IMAGES[0], gaze)[1]
        assert text.get_fontsize() >= 9
        frame.draw_without_rendering()
        extent = text.get_window_extent()
        assert extent.x0 >= 0, said
        assert extent.x1 <= frame.bbox.x1, said
        below = min(ax.get_window_extent().y0 for ax in frame.axes)
        assert extent.y1 <= below  # nor over the pictures


def pixels(tag):
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', tag)
    return imread(io.BytesIO(base64.b64decode(data)))


# the widget


def check_view(view, drawn, network, image, gaze, r_max):
    said = html.escape(check_seen(drawn, network, image, gaze, r_max))
    assert view.value.count("<img") == 1
    assert f'alt="{said}"' in view.value
    assert view.value.endswith(f"<p>{said}</p>")


def test_the_sliders_run_from_edge_to_edge(networks):
    box = gaze_explorer(networks["scenes-logpolar"], IMAGES)
    known = {getattr(ipywidgets, name) for name in ("VBox", "Dropdown", "FloatSlider", "HTML")}
    assert {type(control) for control in (box, *box.children)} == known  # of ipywidgets 7.7, as Colab has
    controls, _ = parts(box)
    assert list(controls["which"].options) == [0, 1]
    for name in ("right", "down"):
        slider = controls[name]
        assert (slider.min, slider.max, slider.step, slider.description) == (-1, 1, 0.05, name)
        assert slider.continuous_update is False  # a drawing for every pixel of the way would lag behind


@each_kind
def test_every_control_draws_once(networks, shown, kind):
    network = networks[kind]
    gaze_explorer(network, IMAGES)  # the whole disc is seen unless told otherwise
    check_seen(shown.pop(), network, IMAGES[0], [0.0, 0.0], 1.0)
    controls, view = parts(gaze_explorer(network, IMAGES, 0.5))
    assert {name: control.value for name, control in controls.items()} == {"which": 0, "right": 0, "down": 0}
    check_view(view, shown[0], network, IMAGES[0], [0.0, 0.0], 0.5)
    moves = [("right", 0.5), ("down", -0.25), ("which", 1), ("right", -1.0), ("down", 1.0), ("which", 0)]
    state, before = {"which": 0, "right": 0.0, "down": 0.0}, view.value
    for number, (name, value) in enumerate(moves, start=2):
        controls[name].value = value
        state[name] = value
        assert len(shown) == number
        check_view(view, shown[-1], network, IMAGES[state["which"]], [state["right"], state["down"]], 0.5)
        assert view.value != before
        before = view.value


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.uint8])
def test_images_of_another_type_are_explored(networks, dtype):
    network, whole = networks["scenes-logpolar"], (IMAGES * 255).round()
    images = whole.byte() if dtype == torch.uint8 else (whole / 255).to(dtype)
    assert "<img" in parts(gaze_explorer(network, images))[1].value


def test_names_of_classes_are_escaped(networks):
    network = load("scenes-disc", "cpu")
    network.card = replace(network.card, classes=tuple(f'<b>"{name}"' for name in network.card.classes))
    view = parts(gaze_explorer(network, IMAGES))[1]
    assert "<b>" not in view.value
    assert view.value.count("&lt;b&gt;&quot;") == 10  # five in the alternative text, five below


@each_kind
def test_nothing_that_is_given_is_changed(networks, kind):
    images = IMAGES.clone()
    with assert_untouched(networks[kind]):
        controls, _ = parts(gaze_explorer(networks[kind], images))
        controls["which"].value = 1
        controls["down"].value = 0.5
    assert images.equal(IMAGES)
    broken = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), Boom()).train()
    broken.card = networks[kind].card
    with assert_untouched(broken), pytest.raises(RuntimeError, match="boom"):
        gaze_explorer(broken, IMAGES)


def test_bad_input_names_the_argument(networks):
    good = {"model": networks["scenes-logpolar"], "images": IMAGES}
    refuses(gaze_explorer, good, model=nn.Linear(1, 1), images=IMAGES[0], r_max=-0.5)
    refuses(gaze_explorer, good, model=load("scenes-gap", "cpu"), images=torch.stack([IMAGES[0], IMAGES[1] + 1]))
    refuses(gaze_explorer, good, images=(IMAGES * 255).long())
