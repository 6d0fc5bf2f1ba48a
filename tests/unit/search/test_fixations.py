"""Label maps against a loop over images and fixations, and what is read off them by hand."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from support.search import each_dtype, images, logs, net, seeded, seen_cartesian, slow_label_map
from support.untouched import assert_untouched
from torch import nn

from helpers import networks
from helpers.retina import log_polar, viewer
from helpers.search import (
    accuracy_map,
    confidence_map,
    fixation_grid,
    fixations_inside,
    label_map,
    likelihood_map,
    spread_map,
)


def seen_log_polar(x, fixations):
    return log_polar(x, fixations, (6, 8), 0.1)


VIEWS = {"log-polar": seen_log_polar, "cartesian": seen_cartesian}


each_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_the_grid_is_even_and_has_nothing_on_the_border(n):
    grid = fixation_grid(n)
    assert grid.shape == (n, n, 2)
    assert grid.dtype == torch.float32
    for row, column in itertools.product(range(n), repeat=2):
        # n + 1 gaps over a length of 2
        expected = [-1 + 2 * (column + 1) / (n + 1), -1 + 2 * (row + 1) / (n + 1)]
        assert grid[row, column].tolist() == pytest.approx(expected, abs=1e-6)


def some_fixations(kind):
    if kind == "grid":
        return 3, fixation_grid(3).flatten(0, 1)[None].expand(2, -1, -1), (2, 3, 3)
    own = torch.rand(2, 5, 2, generator=seeded(3), dtype=torch.float64) * 2 - 1
    own[1, 4] = torch.tensor([1.0, -1.0])  # a corner
    return (own[0], own[:1].expand(2, -1, -1), (2, 5)) if kind == "(U, 2)" else (own, own, (2, 5))


@each_dtype
@each_view
@pytest.mark.parametrize(("kind", "batch_size"), [("grid", 7), ("(U, 2)", 1), ("(B, U, 2)", 1000), ("(B, U, 2)", 7)])
def test_a_label_map_is_a_loop_over_images_and_fixations(dtype, view, kind, batch_size):
    x, model = images(dtype=dtype), net(dtype=dtype)
    fixations, own, shape = some_fixations(kind)
    before = x.clone()
    log_p = label_map(model, x, fixations, view, batch_size)
    assert log_p.shape == (*shape, 3)
    assert log_p.dtype == dtype
    assert not log_p.requires_grad
    assert max(model.sizes) == min(batch_size, own.shape[0] * own.shape[1])
    assert sum(model.sizes) == own.shape[0] * own.shape[1]
    assert torch.allclose(log_p.flatten(1, -2), slow_label_map(model, x, own, view), rtol=0, atol=1e-6)
    assert torch.equal(x, before)
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(shape, dtype=dtype), atol=1e-5)


@each_view
def test_logits_are_what_the_network_says(view):
    x, model = images(), net().eval()
    fixations = fixation_grid(3).flatten(0, 1)
    logits = label_map(model, x, 3, view, logits=True)
    with torch.no_grad():
        expected = torch.stack([model(view(x, fixation[None])[:, 0]) for fixation in fixations], 1)  # (2, 9, 3)
    assert torch.allclose(logits.flatten(1, 2), expected, atol=1e-5)
    assert torch.allclose(logits.log_softmax(-1), label_map(model, x, 3, view), atol=1e-6)
    assert not torch.allclose(logits.logsumexp(-1), torch.zeros_like(logits[..., 0]), atol=0.01)


def test_the_defaults_of_a_label_map_are_49_fixations_in_passes_of_64():
    model = net()
    assert label_map(model, images(), view=seen_cartesian).shape == (2, 7, 7, 3)
    assert model.sizes == [64, 34]


@pytest.mark.parametrize("boom", [False, True])
def test_a_label_map_leaves_the_network_as_it_was(boom):
    model = net(boom=boom)
    with assert_untouched(model), pytest.raises(RuntimeError, match="boom") if boom else nullcontext():
        assert not label_map(model, images().requires_grad_(), 2, seen_cartesian).requires_grad


class Wrong(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


LABELS = logs([[[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], [[0.3, 0.3, 0.4], [0.25, 0.5, 0.25]]]]).repeat(2, 1, 1, 1)


LABELS[1] = LABELS[1].roll(1, -1)


@each_dtype
def test_the_likelihood_map_by_hand(dtype):
    log_p, close = LABELS.to(dtype), {"atol": 1e-6, "rtol": 0}
    first = [[0.7, 0.1], [0.3, 0.25]]
    maps = likelihood_map(log_p, 0)
    assert maps.shape == (2, 2, 2)
    assert maps.dtype == dtype
    assert torch.allclose(maps[0], torch.tensor(first, dtype=dtype), **close)
    assert torch.allclose(maps[1], torch.tensor([[0.1, 0.3], [0.4, 0.25]], dtype=dtype), **close)  # was label 2
    each = likelihood_map(log_p, [0, 1])  # rolled by one, the second image's label 1 is the first one's 0
    assert torch.allclose(each, torch.tensor([first, first], dtype=dtype), **close)
    several = likelihood_map(log_p, torch.tensor([[0, 1], [1, 2]]))
    assert several.shape == (2, 2, 2, 2)
    second = [[0.2, 0.6], [0.3, 0.5]]
    assert torch.allclose(several, torch.tensor([[first, second]] * 2, dtype=dtype), **close)
    assert likelihood_map(log_p, [[0], [1]]).shape == (2, 1, 2, 2)
    assert torch.equal(likelihood_map(log_p.flatten(1, 2), 1), likelihood_map(log_p, 1).flatten(1))
    assert torch.equal(likelihood_map(log_p.flatten(1, 2), [[0, 1], [1, 2]]), several.flatten(2))


@each_dtype
def test_the_confidence_map_by_hand(dtype):
    maps = confidence_map(LABELS.to(dtype))
    assert maps.shape == (2, 2, 2)
    assert maps.dtype == dtype
    assert torch.allclose(maps, torch.tensor([[0.7, 0.6], [0.4, 0.5]], dtype=dtype), rtol=0, atol=1e-6)
    assert torch.equal(confidence_map(LABELS.to(dtype).flatten(1, 2)), maps.flatten(1))


def test_fixations_inside_by_hand():
    # Three by three fixations of an image 40 high and 80 wide: x 20, 40, 60, y 10, 20, 30.
    boxes = torch.tensor(
        [
            [10.0, 5, 45, 25],  # columns 0 and 1, rows 0 and 1
            [50.0, 15, 80, 40],  # column 2, rows 1 and 2
            [42.0, 22, 47, 27],  # between them; its middle, 44.5, 24.5, is nearest to 40, 20
            [46.0, 13, 52, 15],  # its middle, 49, 14, is 9.8 pixels from 40, 10 and 10.8 from 40, 20, 11.7 from 60, 10
            [math.nan] * 4,
            [20.0, 10, 40, 20],  # edges at fixations: none strictly inside; its middle, 30, 15, lies evenly between 4
        ]
    )
    inside = fixations_inside(boxes, fixation_grid(3), (40, 80))
    assert inside.dtype == torch.bool
    assert inside.shape == (6, 3, 3)
    assert inside[0].tolist() == [[True, True, False], [True, True, False], [False] * 3]
    assert inside[1].tolist() == [[False] * 3, [False, False, True], [False, False, True]]
    assert inside[2].nonzero().tolist() == [[1, 1]]
    assert inside[3].nonzero().tolist() == [[0, 1]]
    assert not inside[4].any()
    assert inside[5].sum() == 1
    assert torch.equal(fixations_inside(boxes, fixation_grid(3).flatten(0, 1), (40, 80)), inside.flatten(1))
    assert torch.equal(fixations_inside(boxes.double(), fixation_grid(3), (40, 80)), inside)
    assert torch.equal(fixations_inside(boxes[:2].long(), fixation_grid(3), (40, 80)), inside[:2])


def test_the_nearest_fixation_is_nearest_in_pixels():
    # 100 wide, 10 high: 60, 5 is 10 pixels from 50, 5 and 3.6 from 62, 8; in half images 0.2, and 0.6 from the other.
    fixations = torch.tensor([[0.0, 0.0], [0.24, 0.6]])
    assert fixations_inside(torch.tensor([[59.0, 4.0, 61.0, 6.0]]), fixations, (10, 100)).tolist() == [[False, True]]


def slow_accuracy(model, x, target, offsets, places, view):
    right = torch.zeros(len(offsets))
    for n, offset in enumerate(offsets.double()):
        for image, label, place in zip(x, target, places.double(), strict=True):
            fixation = torch.tensor(
                [[min(max(float(p + o), -1), 1) for p, o in zip(place, offset, strict=True)]]
            ).double()
            right[n] += int(slow_label_map(model, image[None], fixation[None], view)[0, 0].argmax()) == label
    return right / len(x)


@each_dtype
def test_an_accuracy_map_is_a_loop(dtype):
    model, x, target = net(dtype=dtype), images(5, dtype=dtype), [0, 1, 2, 1, 0]
    places = torch.rand(5, 2, generator=seeded(1)) * 2 - 1
    before = places.clone()
    offsets = torch.randn(2, 3, 2, generator=seeded(2))  # some lead beyond the edge
    with assert_untouched(model):
        shares = accuracy_map(model, x, target, offsets, places, seen_cartesian, 4)
    assert max(model.sizes) == 4
    assert shares.shape == (2, 3)
    assert torch.equal(places, before)
    expected = slow_accuracy(model, x, target, offsets.flatten(0, 1), places, seen_cartesian)
    assert torch.allclose(shares.flatten(), expected)
    assert len(shares.unique()) > 2
    flat = accuracy_map(model, x, target, offsets.flatten(0, 1), places, seen_cartesian)
    assert torch.equal(flat, shares.flatten())


def test_an_accuracy_map_of_a_grid_around_the_centre():
    model, x = net(), images(4)
    shares = accuracy_map(model, x, 1, 3, view=seen_log_polar)
    assert shares.shape == (3, 3)
    offsets = fixation_grid(3).flatten(0, 1)
    assert torch.allclose(
        shares.flatten(), slow_accuracy(model, x, [1] * 4, offsets, torch.zeros(4, 2), seen_log_polar)
    )


@pytest.mark.parametrize("name", ["scenes-gap", "photos-disc", "photos-logpolar"])
def test_without_a_view_a_network_of_the_book_sees_as_its_card_says(name):
    model, x = networks.load(name, "cpu"), torch.randn(2, 3, 64, 64, generator=seeded())
    assert torch.equal(label_map(model, x, 2), label_map(model, x, 2, viewer(model)))


def test_maps_are_spread_bilinearly_between_fixations_and_go_on_to_the_border():
    # Two by two fixations of an image of 6 x 12 pixels, at x = -1/3 and 1/3: between pixels 3 and 4, and 7 and 8.
    spread = spread_map(torch.tensor([[[0.0, 8.0], [0.0, 8.0]]]), (6, 12))
    assert spread.shape == (1, 6, 12)
    row = [0, 0, 0, 0, 1, 3, 5, 7, 8, 8, 8, 8]  # pixel 4 lies an eighth of the way from the first to the second
    assert torch.allclose(spread[0], torch.tensor(row).float().expand(6, -1), atol=1e-5)
    assert torch.allclose(spread_map(torch.full((3, 1, 1), 2.5), (4, 5)), torch.tensor(2.5))


REFUSED = {
    "a grid of 0": (lambda: fixation_grid(0), "n must"),
    "images": (lambda: label_map(net(), torch.zeros(2, 12, 12), 2, seen_cartesian), "x must"),
    "batch_size": (lambda: label_map(net(), images(), 2, seen_cartesian, 0), "batch_size must"),
    "fixations True": (lambda: label_map(net(), images(), True, seen_cartesian), "fixations must"),
    "fixations outside": (
        lambda: label_map(net(), images(), torch.tensor([[0.0, 1.01]]), seen_cartesian),
        "fixations must",
    ),
    "a tuple": (lambda: label_map(Wrong(lambda x: (x, x)), images(), 2, seen_cartesian), "model must"),
    "NaN": (lambda: label_map(Wrong(lambda x: x[:, :, 0, 0] * math.nan), images(), 2, seen_cartesian), "model must"),
    "no card": (lambda: label_map(net(), images(), 2), "view must be a function.*without a card"),
    "no log-probabilities": (lambda: confidence_map(LABELS.exp()), "log_p must"),
    "no such label": (lambda: likelihood_map(LABELS, 3), "target must"),
    "a map that is not square": (lambda: spread_map(torch.zeros(1, 2, 3), (4, 4)), "maps must"),
    "boxes": (lambda: fixations_inside(torch.zeros(2, 3), fixation_grid(3), (40, 80)), "boxes must"),
    "two labels an image": (
        lambda: accuracy_map(net(), images(), [[0, 1]] * 2, 2, None, seen_cartesian),
        "target must",
    ),
    "offsets": (lambda: accuracy_map(net(), images(), 0, torch.zeros(4), None, seen_cartesian), "offsets must"),
    "places": (lambda: accuracy_map(net(), images(), 0, 2, torch.zeros(3, 2), seen_cartesian), "places must"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()


def test_networks_that_give_no_logits_are_refused_as_elsewhere():
    class Pair(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)), x

    with pytest.raises(ValueError, match=r"model must return logits \(B, classes\) with B = 9, got tuple"):
        label_map(Pair(), torch.rand(1, 3, 8, 8), 3, log_polar)
    with pytest.raises(ValueError, match=r"x must be torch.float32, as the network's weights are, got torch.float64"):
        label_map(nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8).double(), 3, log_polar)


def test_a_single_logit_is_refused_where_a_softmax_would_be_1():
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), torch.rand(2, 3, 2, 2)
    options = {"fixations": 2, "view": lambda x, fixations: x[:, None].expand(-1, fixations.shape[1], -1, -1, -1)}
    with pytest.raises(ValueError, match=r"two classes at least, got 1, .*logits=True\) gives the logits themselves"):
        label_map(net, x, **options)
    assert label_map(net, x, **options, logits=True).shape == (2, 2, 2, 1)


def test_fixations_keep_their_places_beside_boxes_in_half_precision():
    boxes = torch.tensor([[512.0, 0, 520, 8]])
    # At (512.06, 7.5), inside by less than half precision can tell, and (516, 8.5), below but nearer to the middle.
    fixations = torch.tensor([[-0.49994, -0.0625], [-0.49609375, 0.0625]])
    assert fixations_inside(boxes.half(), fixations, (16, 2048)).tolist() == [[True, False]]
    assert fixations_inside(boxes.bfloat16(), fixations, (16, 2048)).tolist() == [[True, False]]
