import itertools
import math

import numpy as np
import pytest
import torch
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers import retina
from helpers.retina import cartesian, log_polar
from helpers.search import (
    POLICIES,
    Policy,
    SearchState,
    WhatNet,
    WhereNet,
    accuracy_map,
    collicular_grid,
    collicular_target,
    confidence_map,
    dorsal_view,
    dual_pathway,
    expected_gain,
    fixation_grid,
    fixations_inside,
    fuse,
    information_gain,
    information_gain_bound,
    label_map,
    likelihood_map,
    predicted_map,
    redundancy,
    search,
    search_precomputed,
)

DTYPES = [torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=2, side=12, seed=0, dtype=torch.float64):
    return torch.randn(count, 2, side, side, generator=seeded(seed), dtype=dtype)


def seen_log_polar(x, at):
    return log_polar(x, at, (6, 8), 0.1)


def seen_cartesian(x, at):
    return cartesian(x, at, 6)


VIEWS = {"log-polar": seen_log_polar, "cartesian": seen_cartesian}
each_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


class Net(nn.Module):
    """Batch normalisation, dropout and an in-place ReLU: what a forward in training mode would leave traces on."""

    def __init__(self, labels=3, dtype=torch.float64, boom=False):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.5), Boom() if boom else nn.Identity(), nn.Linear(16, labels),
        ).to(dtype)  # fmt: skip
        with torch.no_grad():
            self.layers[7].weight.mul_(4)  # answers that differ from place to place
            if not boom:  # none of the labels always wins
                self.layers[7].bias -= self.eval().layers(images(40, 6, 9, dtype)).mean(0)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.layers(x)


def net(labels=3, dtype=torch.float64, boom=False):
    found = Net(labels, dtype, boom).train()
    found.layers[5].eval()  # mixed modes
    found.layers[1].weight.requires_grad_(False)
    found.layers[7].bias.grad = torch.ones_like(found.layers[7].bias)
    return found


def naive_labels(model, x, at, view):
    """One image, one fixation at a time; `at` (B, U, 2)."""
    was = {m: m.training for m in model.modules()}
    model.eval()
    with torch.no_grad():
        rows = [
            torch.stack([model(view(one[None], place[None])[:, 0])[0].log_softmax(0) for place in places])
            for one, places in zip(x, at, strict=True)
        ]
    for module, mode in was.items():
        module.training = mode
    return torch.stack(rows)


def logs(rows, dtype=torch.float64):
    return torch.tensor(rows, dtype=torch.float64).log().to(dtype)


def random_logs(*shape, seed=0, dtype=torch.float64, scale=2.0):
    return (torch.randn(*shape, generator=seeded(seed), dtype=torch.float64) * scale).log_softmax(-1).to(dtype)


# fixations


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_the_grid_is_even_and_has_nothing_on_the_border(n):
    grid = fixation_grid(n)
    assert grid.shape == (n, n, 2)
    assert grid.dtype == torch.float32
    for row, column in itertools.product(range(n), repeat=2):
        # n + 1 gaps over a length of 2
        wanted = [-1 + 2 * (column + 1) / (n + 1), -1 + 2 * (row + 1) / (n + 1)]
        assert grid[row, column].tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3", None])
def test_a_bad_grid_is_refused(n):
    with pytest.raises(ValueError, match="n must be"):
        fixation_grid(n)


# label maps


def some_fixations(kind):
    if kind == "grid":
        return 3, fixation_grid(3).flatten(0, 1)[None].expand(2, -1, -1), (2, 3, 3)
    own = torch.rand(2, 5, 2, generator=seeded(3), dtype=torch.float64) * 2 - 1
    own[1, 4] = torch.tensor([1.0, -1.0])  # a corner
    return (own[0], own[:1].expand(2, -1, -1), (2, 5)) if kind == "(U, 2)" else (own, own, (2, 5))


@each_dtype
@each_view
@pytest.mark.parametrize("kind", ["grid", "(U, 2)", "(B, U, 2)"])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_label_map_is_a_loop_over_images_and_fixations(dtype, view, kind, chunk):
    x, model = images(dtype=dtype), net(dtype=dtype)
    given, at, shape = some_fixations(kind)
    before = x.clone()
    found = label_map(model, x, given, view, chunk)
    assert found.shape == (*shape, 3)
    assert found.dtype == dtype
    assert not found.requires_grad
    assert max(model.sizes) == min(chunk, at.shape[0] * at.shape[1])
    assert sum(model.sizes) == at.shape[0] * at.shape[1]
    assert torch.allclose(found.flatten(1, -2), naive_labels(model, x, at, view), rtol=0, atol=1e-6)
    assert torch.equal(x, before)
    assert torch.allclose(found.exp().sum(-1), torch.ones(shape, dtype=dtype), atol=1e-5)


@each_view
def test_logits_are_what_the_network_says(view):
    x, model = images(), net().eval()
    at = fixation_grid(3).flatten(0, 1)
    found = label_map(model, x, 3, view, logits=True)
    with torch.no_grad():
        wanted = torch.stack([model(view(x, one[None])[:, 0]) for one in at], 1)  # (2, 9, 3)
    assert torch.allclose(found.flatten(1, 2), wanted, atol=1e-5)
    assert torch.allclose(found.log_softmax(-1), label_map(model, x, 3, view), atol=1e-6)
    assert not torch.allclose(found.logsumexp(-1), torch.zeros_like(found[..., 0]), atol=0.01)


def test_the_defaults_of_a_label_map_are_49_fixations_in_passes_of_64():
    model = net()
    assert label_map(model, images(), view=seen_cartesian).shape == (2, 7, 7, 3)
    assert model.sizes == [64, 34]


@pytest.mark.parametrize("boom", [False, True])
def test_a_label_map_leaves_the_network_as_it_was(boom):
    model = net(boom=boom)
    with assert_untouched(model):
        if boom:
            with pytest.raises(RuntimeError, match="boom"):
                label_map(model, images(), 2, seen_cartesian)
        else:
            label_map(model, images(), 2, seen_cartesian)


def test_no_graph_is_kept_of_images_that_want_a_gradient():
    assert not label_map(net(), images().requires_grad_(), 2, seen_cartesian).requires_grad


class Wrong(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


BAD_MAPS = {
    "images": ({"x": torch.zeros(2, 12, 12)}, "x must"),
    "NaN": ({"x": torch.full((1, 2, 12, 12), math.nan)}, "x must"),
    "chunk 0": ({"chunk": 0}, "chunk must"),
    "chunk True": ({"chunk": True}, "chunk must"),
    "chunk 1.5": ({"chunk": 1.5}, "chunk must"),
    "no grid": ({"fixations": 0}, "n must"),
    "bool": ({"fixations": True}, "fixations must"),
    "float": ({"fixations": 3.0}, "fixations must"),
    "fixations outside": ({"fixations": torch.tensor([[0.0, 1.01]])}, "fixations must"),
    "fixations NaN": ({"fixations": torch.tensor([[0.0, math.nan]])}, "fixations must"),
    "no fixations": ({"fixations": torch.zeros(0, 2)}, "fixations must"),
    "fixations of other images": ({"fixations": torch.zeros(3, 4, 2)}, "fixations must"),
    "(U, 3)": ({"fixations": torch.zeros(4, 3)}, "fixations must"),
    "feature maps": ({"model": Wrong(lambda x: x)}, "model must"),
    "one row": ({"model": Wrong(lambda x: x.mean((1, 2, 3), keepdim=True)[:1, :, 0, 0])}, "model must"),
}


@pytest.mark.parametrize(("given", "message"), BAD_MAPS.values(), ids=BAD_MAPS)
def test_bad_input_of_a_label_map_is_refused(given, message):
    good = {"model": net(), "x": images(), "fixations": 2, "view": seen_cartesian, "chunk": 8}
    with pytest.raises(ValueError, match=message):
        label_map(**{**good, **given})


def test_without_a_view_the_network_needs_a_card():
    with pytest.raises(ValueError, match="card"):
        label_map(net(), images(), 2)


def test_without_a_view_the_network_sees_as_its_card_says(monkeypatch):
    asked = []

    def viewer(network):
        asked.append(network)
        return seen_cartesian

    monkeypatch.setattr(retina, "viewer", viewer)
    model = net()
    assert torch.equal(label_map(model, images(), 2), label_map(model, images(), 2, seen_cartesian))
    assert asked == [model]


# maps read off

LABELS = logs([[[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], [[0.3, 0.3, 0.4], [0.25, 0.5, 0.25]]]]).repeat(2, 1, 1, 1)
LABELS[1] = LABELS[1].roll(1, -1)


@each_dtype
def test_the_likelihood_map_by_hand(dtype):
    labels, close = LABELS.to(dtype), {"atol": 1e-6, "rtol": 0}
    first = [[0.7, 0.1], [0.3, 0.25]]
    found = likelihood_map(labels, 0)
    assert found.shape == (2, 2, 2)
    assert found.dtype == dtype
    assert torch.allclose(found[0], torch.tensor(first, dtype=dtype), **close)
    assert torch.allclose(found[1], torch.tensor([[0.1, 0.3], [0.4, 0.25]], dtype=dtype), **close)  # was label 2
    each = likelihood_map(labels, [0, 1])  # rolled by one, the second image's label 1 is the first one's 0
    assert torch.allclose(each, torch.tensor([first, first], dtype=dtype), **close)
    several = likelihood_map(labels, torch.tensor([[0, 1], [1, 2]]))
    assert several.shape == (2, 2, 2, 2)
    second = [[0.2, 0.6], [0.3, 0.5]]
    assert torch.allclose(several, torch.tensor([[first, second]] * 2, dtype=dtype), **close)
    assert likelihood_map(labels, [[0], [1]]).shape == (2, 1, 2, 2)
    assert torch.equal(likelihood_map(labels.flatten(1, 2), 1), likelihood_map(labels, 1).flatten(1))
    assert torch.equal(likelihood_map(labels.flatten(1, 2), [[0, 1], [1, 2]]), several.flatten(2))


@each_dtype
def test_the_confidence_map_by_hand(dtype):
    found = confidence_map(LABELS.to(dtype))
    assert found.shape == (2, 2, 2)
    assert found.dtype == dtype
    assert torch.allclose(found, torch.tensor([[0.7, 0.6], [0.4, 0.5]], dtype=dtype), rtol=0, atol=1e-6)
    assert torch.equal(confidence_map(LABELS.to(dtype).flatten(1, 2)), found.flatten(1))


def test_a_label_map_that_is_not_square_is_read_off_too():
    labels = random_logs(2, 3, 5, 4)
    assert torch.allclose(likelihood_map(labels, [[0, 3]] * 2)[:, 1], labels[..., 3].exp())
    assert torch.allclose(confidence_map(labels), labels.exp().amax(-1))


@pytest.mark.parametrize(
    "labels",
    [
        torch.zeros(2, 3),
        torch.zeros(1, 2, 2, 2, 3),
        torch.zeros(2, 0, 3),
        torch.zeros(1, 2, 3).long(),
        torch.full((1, 2, 3), 0.5),
        torch.full((1, 2, 3), math.nan),
        [[[0.0]]],
    ],
)
def test_what_is_no_label_map_is_refused(labels):
    for read in (confidence_map, lambda labels: likelihood_map(labels, 0)):
        with pytest.raises(ValueError, match="labels must"):
            read(labels)


@pytest.mark.parametrize("target", [3, -1, [0], [0, 0, 0], 1.0, None])
def test_a_target_that_does_not_fit_the_label_map_is_refused(target):
    with pytest.raises(ValueError, match="target must"):
        likelihood_map(LABELS, target)


# fixations inside boxes


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
    found = fixations_inside(boxes, fixation_grid(3), (40, 80))
    assert found.dtype == torch.bool
    assert found.shape == (6, 3, 3)
    assert found[0].tolist() == [[True, True, False], [True, True, False], [False] * 3]
    assert found[1].tolist() == [[False] * 3, [False, False, True], [False, False, True]]
    assert found[2].nonzero().tolist() == [[1, 1]]
    assert found[3].nonzero().tolist() == [[0, 1]]
    assert not found[4].any()
    assert found[5].sum() == 1
    assert torch.equal(fixations_inside(boxes, fixation_grid(3).flatten(0, 1), (40, 80)), found.flatten(1))
    assert torch.equal(fixations_inside(boxes.double(), fixation_grid(3), (40, 80)), found)


def test_the_nearest_fixation_is_nearest_in_pixels():
    # 100 wide, 10 high: 60, 5 is 10 pixels from 50, 5 and 3.6 from 62, 8; in half images 0.2, and 0.6 from the other.
    at = torch.tensor([[0.0, 0.0], [0.24, 0.6]])
    assert fixations_inside(torch.tensor([[59.0, 4.0, 61.0, 6.0]]), at, (10, 100)).tolist() == [[False, True]]


def test_boxes_of_whole_numbers():
    boxes = [[10, 5, 45, 25], [50, 15, 80, 40]]
    wanted = fixations_inside(torch.tensor(boxes).float(), fixation_grid(3), (40, 80))
    assert torch.equal(fixations_inside(torch.tensor(boxes), fixation_grid(3), (40, 80)), wanted)


@pytest.mark.parametrize("boxes", [torch.zeros(4), torch.zeros(2, 3), [[0, 0, 1, 1]]])
def test_bad_boxes_are_refused(boxes):
    with pytest.raises(ValueError, match="boxes must"):
        fixations_inside(boxes, fixation_grid(3), (40, 80))


@pytest.mark.parametrize("at", [torch.zeros(2), torch.zeros(4, 3), torch.zeros(1, 2, 2, 2), [[0, 0]]])
def test_bad_fixations_of_boxes_are_refused(at):
    with pytest.raises(ValueError, match="fixations must"):
        fixations_inside(torch.zeros(1, 4), at, (40, 80))


# accuracy maps


def naive_accuracy(model, x, target, offsets, places, view):
    right = torch.zeros(len(offsets))
    for n, offset in enumerate(offsets.double()):
        for image, label, place in zip(x, target, places.double(), strict=True):
            at = torch.tensor([[min(max(float(p + o), -1), 1) for p, o in zip(place, offset, strict=True)]]).double()
            right[n] += int(naive_labels(model, image[None], at[None], view)[0, 0].argmax()) == label
    return right / len(x)


@each_dtype
def test_an_accuracy_map_is_a_loop(dtype):
    model, x, target = net(dtype=dtype), images(5, dtype=dtype), [0, 1, 2, 1, 0]
    places = torch.rand(5, 2, generator=seeded(1)) * 2 - 1
    kept = places.clone()
    offsets = torch.randn(2, 3, 2, generator=seeded(2))  # some lead beyond the edge
    with assert_untouched(model):
        found = accuracy_map(model, x, target, offsets, places, seen_cartesian, 4)
    assert max(model.sizes) == 4
    assert found.shape == (2, 3)
    assert torch.equal(places, kept)
    wanted = naive_accuracy(model, x, target, offsets.flatten(0, 1), places, seen_cartesian)
    assert torch.allclose(found.flatten(), wanted)
    assert len(found.unique()) > 2
    flat = accuracy_map(model, x, target, offsets.flatten(0, 1), places, seen_cartesian)
    assert torch.equal(flat, found.flatten())


def test_an_accuracy_map_of_a_grid_around_the_centre():
    model, x = net(), images(4)
    found = accuracy_map(model, x, 1, 3, view=seen_log_polar)
    assert found.shape == (3, 3)
    at = fixation_grid(3).flatten(0, 1)
    assert torch.allclose(found.flatten(), naive_accuracy(model, x, [1] * 4, at, torch.zeros(4, 2), seen_log_polar))


BAD_ACCURACY = {
    "images": ({"x": torch.zeros(3)}, "x must"),
    "several targets": ({"target": [[0, 1], [1, 2]]}, "target must"),
    "other images' targets": ({"target": [0, 1, 2]}, "target must"),
    "a float": ({"target": 0.5}, "target must"),
    "offsets (4,)": ({"offsets": torch.zeros(4)}, "offsets must"),
    "offsets (4, 3)": ({"offsets": torch.zeros(4, 3)}, "offsets must"),
    "offsets (1, 1, 1, 2)": ({"offsets": torch.zeros(1, 1, 1, 2)}, "offsets must"),
    "offsets a list": ({"offsets": [[0, 0]]}, "offsets must"),
    "no offsets": ({"offsets": 0}, "must be an integer"),
    "places of other images": ({"places": torch.zeros(3, 2)}, "places must"),
    "one place": ({"places": torch.zeros(2)}, "places must"),
    "places a list": ({"places": [[0, 0], [0, 0]]}, "places must"),
    "NaN": ({"places": torch.full((2, 2), math.nan)}, "must be"),
    "chunk": ({"chunk": 0}, "chunk must"),
}


@pytest.mark.parametrize(("given", "message"), BAD_ACCURACY.values(), ids=BAD_ACCURACY)
def test_bad_input_of_an_accuracy_map_is_refused(given, message):
    good = {"model": net(), "x": images(), "target": 0, "offsets": 2, "view": seen_cartesian}
    with pytest.raises(ValueError, match=message):
        accuracy_map(**{**good, **given})


# gain

PRIOR = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
priors = pytest.mark.parametrize("prior", [None, torch.full((4,), 0.25), PRIOR], ids=["None", "even", "uneven"])


def naive_gain(log_p0, log_pu, prior):
    """Fused, Z, gain, bound, in probabilities; log_p0 (B, K), log_pu (B, U, K)."""
    p0, pu = log_p0.double().exp().numpy(), log_pu.double().exp().numpy()
    count = p0.shape[-1]
    pk = np.full(count, 1 / count) if prior is None else prior.double().numpy()
    found = {name: np.zeros(pu.shape[:2]) for name in ("z", "gain", "bound", "full")} | {"fused": np.zeros(pu.shape)}
    for b, u in itertools.product(*map(range, pu.shape[:2])):
        z = sum(p0[b, k] * pu[b, u, k] / pk[k] for k in range(count))
        found["z"][b, u] = z
        for k in range(count):
            p = p0[b, k] * pu[b, u, k] / pk[k] / z
            found["fused"][b, u, k] = p
            if p > 0:
                found["gain"][b, u] += p * math.log(p / p0[b, k])
                found["bound"][b, u] += p * math.log(pu[b, u, k])
                found["full"][b, u] += p * (math.log(pu[b, u, k]) - math.log(pk[k]))
    return {name: torch.from_numpy(value) for name, value in found.items()}


def close(found, wanted, atol=1e-6):
    assert found.shape == wanted.shape
    assert torch.allclose(found.double(), wanted.double(), rtol=0, atol=atol)


@each_dtype
@priors
def test_gain_against_probabilities(dtype, prior):
    log_p0, log_pu = random_logs(3, 4, dtype=dtype, scale=1.5), random_logs(3, 5, 4, seed=1, dtype=dtype, scale=1.5)
    kept = log_p0.clone(), log_pu.clone()
    wanted = naive_gain(log_p0, log_pu, prior)
    fused, shared = fuse(log_p0, log_pu, prior), redundancy(log_p0, log_pu, prior)
    gain, full = information_gain(log_p0, log_pu, prior), information_gain_bound(log_p0, log_pu, prior)
    bound = information_gain_bound(log_p0, log_pu, prior, constant=False)
    assert {found.dtype for found in (fused, shared, gain, full, bound)} == {dtype}
    close(fused.exp(), wanted["fused"])
    close(fused.exp().sum(-1), torch.ones(3, 5))
    close(shared, wanted["z"].log())
    close(gain, wanted["gain"])
    close(bound, wanted["bound"])
    close(full, wanted["full"])
    assert (bound <= 0).all()
    close(gain, full - shared)
    if prior is not PRIOR:
        close(gain, bound + math.log(4) - shared)
    assert torch.equal(kept[0], log_p0)
    assert torch.equal(kept[1], log_pu)


def test_the_default_of_the_bound_is_with_its_constant():
    log_p0, log_pu = random_logs(3, 4), random_logs(3, 5, 4, seed=1)
    with_it = information_gain_bound(log_p0, log_pu, constant=True)
    assert torch.equal(information_gain_bound(log_p0, log_pu), with_it)


@priors
def test_views_in_any_arrangement(prior):
    log_p0, log_pu = random_logs(2, 4), random_logs(2, 3, 5, 4, seed=1)
    for function in (fuse, redundancy, information_gain, information_gain_bound):
        found = function(log_p0, log_pu, prior)
        assert found.shape[:3] == (2, 3, 5)
        flat = function(log_p0, log_pu.flatten(1, 2), prior)
        assert torch.allclose(found.flatten(1, 2), flat)
        one = torch.stack([function(log_p0, log_pu[:, i, j], prior) for i in range(3) for j in range(5)], 1)
        assert torch.allclose(one, flat)
        alone = torch.cat([function(log_p0[b : b + 1], log_pu[b : b + 1], prior) for b in range(2)])
        assert torch.allclose(alone, found)


def test_single_precision_keeps_what_probabilities_round_to_0():
    # p0 = (1, e^-200), pu = (e^-200, 1): fused even, though e^-200 is 0 in single precision. Z = 2 (2 e^-200).
    log_p0, log_pu = torch.tensor([[0.0, -200.0]]), torch.tensor([[-200.0, 0.0]])
    assert fuse(log_p0, log_pu).exp().tolist() == [[pytest.approx(0.5, abs=1e-5)] * 2]
    assert redundancy(log_p0, log_pu).item() == pytest.approx(math.log(4) - 200)
    # KL((1/2, 1/2) || (1, e^-200)) = -log 2 + 100
    assert information_gain(log_p0, log_pu).item() == pytest.approx(100 - math.log(2), rel=1e-5)
    assert information_gain_bound(log_p0, log_pu, constant=False).item() == pytest.approx(-100, rel=1e-5)


@pytest.mark.parametrize("far", [200.0, 3000.0, 50_000.3])
def test_fused_rows_add_up_to_1_where_views_contradict_each_other(far):
    log_p0, log_pu = torch.tensor([[0.0, -far, -far]]), torch.tensor([[-far, 0.0, -far + 0.3]]).log_softmax(-1)
    fused = fuse(log_p0, log_pu)
    assert fused.exp().sum().item() == pytest.approx(1, abs=1e-6)
    fuse(fused, log_pu)  # a belief that may be fused again


@each_dtype
def test_labels_of_probability_0(dtype):
    log_p0, log_pu = logs([[0.5, 0.5, 0.0]], dtype), logs([[[0.5, 0.0, 0.5], [0.25, 0.75, 0.0]]], dtype)
    # first: fused (1, 0, 0), Z = 3 / 4, gain log 2, bound log 1/2; second: fused (1/4, 3/4, 0), Z = 3 / 2.
    gain = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    bound = 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    close(fuse(log_p0, log_pu).exp(), torch.tensor([[[1, 0, 0], [0.25, 0.75, 0]]]))
    close(redundancy(log_p0, log_pu), torch.tensor([[math.log(0.75), math.log(1.5)]]))
    close(information_gain(log_p0, log_pu), torch.tensor([[math.log(2), gain]]))
    close(information_gain_bound(log_p0, log_pu, constant=False), torch.tensor([[-math.log(2), bound]]))
    close(information_gain_bound(log_p0, log_pu), torch.tensor([[math.log(1.5), bound + math.log(3)]]))
    close(information_gain(log_p0, log_pu), naive_gain(log_p0, log_pu, None)["gain"])


def test_views_that_exclude_each_other_are_refused():
    log_p0, log_pu = logs([[0.5, 0.5], [1.0, 0.0]]), logs([[[0.5, 0.5], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    for function in (fuse, redundancy, information_gain, information_gain_bound):
        with pytest.raises(ValueError, match="exclude"):
            function(log_p0, log_pu)


def test_the_bound_may_lie_below_the_gain():
    # p0 = (.9, .1), pu = (.1, .9): fused (1/2, 1/2), gain = log(1/2) - log(.3), and Z = 2 (.09 + .09) = .36.
    log_p0, log_pu = logs([[0.9, 0.1]]), logs([[0.1, 0.9]])
    gain, bound = information_gain(log_p0, log_pu), information_gain_bound(log_p0, log_pu)
    assert gain.item() == pytest.approx(math.log(0.5) - math.log(0.3))
    assert bound.item() == pytest.approx(math.log(0.3) - math.log(0.5))
    assert bound < gain
    assert redundancy(log_p0, log_pu).item() == pytest.approx(math.log(0.36))


def test_a_view_that_says_what_the_prior_says_teaches_nothing():
    log_p0 = random_logs(3, 4)
    even, own = torch.full((3, 2, 4), 0.25, dtype=torch.float64).log(), PRIOR.log().expand(3, 2, 4)
    for log_pu, prior in ((even, None), (own, PRIOR)):
        close(fuse(log_p0, log_pu, prior), log_p0[:, None].expand(-1, 2, -1))
        assert (information_gain(log_p0, log_pu, prior) >= 0).all()  # also after rounding
        close(information_gain(log_p0, log_pu, prior), torch.zeros(3, 2))
        close(redundancy(log_p0, log_pu, prior), torch.zeros(3, 2))


def test_the_gain_is_never_below_0_in_single_precision():
    log_p0 = random_logs(200, 4, dtype=torch.float32)
    assert (information_gain(log_p0, torch.full((200, 1, 4), 0.25).log()) >= 0).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("even", [True, False])
def test_on_average_gain_and_bound_are_mutual_information(seed, even):
    # A world: a label, and two views that are independent once it is known.
    draw = np.random.default_rng(seed)
    labels, first, second = 3, 4, 5
    pk = np.full(labels, 1 / labels) if even else draw.dirichlet(np.full(labels, 2.0))
    p_first, p_second = (draw.dirichlet(np.full(n, 0.5), size=labels) for n in (first, second))
    joint = pk[:, None, None] * p_first[:, :, None] * p_second[:, None, :]  # p(k, x0, xu)
    both = joint.sum(0)  # p(x0, xu)
    log_p0 = torch.from_numpy(joint.sum(2) / joint.sum((0, 2))).log().T  # (x0, K)
    log_pu = torch.from_numpy(joint.sum(1) / joint.sum((0, 1))).log().T[None].expand(first, -1, -1)
    prior = None if even else torch.from_numpy(pk)
    close(fuse(log_p0, log_pu, prior).exp(), torch.from_numpy(joint / both).permute(1, 2, 0))
    gain, bound = information_gain(log_p0, log_pu, prior), information_gain_bound(log_p0, log_pu, prior)
    # I(x0; xu), I(k; xu | x0) and their sum I(k; xu), each from the joint.
    shared = (both * np.log(both / both.sum(1, keepdims=True) / both.sum(0, keepdims=True))).sum()
    p_label = joint / joint.sum((0, 2))[None, :, None]  # p(k, xu | x0)
    of_k, of_xu = p_label.sum(2, keepdims=True), p_label.sum(0, keepdims=True)
    taught = (joint * np.log(p_label / of_k / of_xu)).sum()
    pair = joint.sum(1)
    alone = (pair * np.log(pair / pair.sum(0) / pair.sum(1, keepdims=True))).sum()
    weights = torch.from_numpy(both)
    assert (weights * (bound - gain)).sum().item() == pytest.approx(shared, abs=1e-9)
    assert (weights * redundancy(log_p0, log_pu, prior)).sum().item() == pytest.approx(shared, abs=1e-9)
    assert (weights * gain).sum().item() == pytest.approx(taught, abs=1e-9)
    assert (weights * bound).sum().item() == pytest.approx(alone, abs=1e-9)


GOOD0, GOODU = random_logs(2, 3), random_logs(2, 4, 3, seed=1)
BAD_GAIN = {
    "log_p0 probabilities": ((GOOD0.exp(), GOODU), "log_p0 must be log-probabilities.*did you give"),
    "log_pu probabilities": ((GOOD0, GOODU.exp()), "log_pu must be log-probabilities.*did you give"),
    "log_p0 logits": ((GOOD0 - 1, GOODU), "log_p0 must be log-probabilities"),
    "log_pu logits": ((GOOD0, GOODU - 1), "log_pu must be log-probabilities"),
    "one row is none": ((GOOD0, GOODU - torch.tensor([0, 0, 0, 0.01])[:, None]), "log_pu must be log-probabilities"),
    "log_p0 NaN": ((GOOD0 * math.nan, GOODU), "log_p0 must not hold NaN"),
    "log_pu NaN": ((GOOD0, GOODU * math.nan), "log_pu must not hold NaN"),
    "log_p0 a list": ((GOOD0.tolist(), GOODU), "log_p0 must be"),
    "log_pu integers": ((GOOD0, torch.zeros(2, 4, 1).long()), "log_pu must be"),
    "empty": ((GOOD0, torch.zeros(2, 0, 3)), "log_pu must be"),
    "other images": ((GOOD0, GOODU[:1]), "log_p0 must be .* and log_pu"),
    "other labels": ((random_logs(2, 5), GOODU), "log_p0 must be .* and log_pu"),
    "rank of log_p0": ((GOODU, GOODU), "log_p0 must be .* and log_pu"),
    "rank of log_pu": ((GOOD0, GOOD0[0]), "log_p0 must be .* and log_pu"),
    "prior of other labels": ((GOOD0, GOODU, torch.full((4,), 0.25)), "prior must"),
    "prior a list": ((GOOD0, GOODU, [0.2, 0.3, 0.5]), "prior must"),
    "prior integers": ((GOOD0, GOODU, torch.tensor([1, 1, 1])), "prior must"),
    "prior 0": ((GOOD0, GOODU, torch.tensor([0.5, 0.5, 0.0])), "prior must"),
    "prior NaN": ((GOOD0, GOODU, torch.tensor([0.5, 0.5, math.nan])), "prior must"),
    "prior of logarithms": ((GOOD0, GOODU, torch.tensor([0.2, 0.3, 0.5]).log()), "prior must"),
    "prior of counts": ((GOOD0, GOODU, torch.tensor([2.0, 3.0, 5.0])), "prior must"),
}


@pytest.mark.parametrize(("given", "message"), BAD_GAIN.values(), ids=BAD_GAIN)
@pytest.mark.parametrize("function", [fuse, redundancy, information_gain, information_gain_bound])
def test_bad_beliefs_are_refused(function, given, message):
    with pytest.raises(ValueError, match=message):
        function(*given)


@each_dtype
@pytest.mark.parametrize("labels", [2, 3, 10])
def test_the_expected_gain_is_a_mutual_information(dtype, labels):
    log_p = random_logs(3, labels, dtype=dtype)
    accuracy = torch.tensor([[0.0, 0.1, 0.5, 0.9, 1.0]] * 3, dtype=dtype)
    accuracy[2] = torch.tensor([0.3, 1 / labels, 0.7, 0.99, 0.01])
    found = expected_gain(log_p, accuracy)
    assert found.dtype == dtype
    assert (found >= 0).all()
    wanted = torch.zeros(3, 5, dtype=torch.float64)
    for b, u in itertools.product(range(3), range(5)):
        p, a = log_p[b].double().exp().numpy(), accuracy[b, u].item()
        joint = np.array(
            [[p[k] * (a if k == y else (1 - a) / (labels - 1)) for y in range(labels)] for k in range(labels)]
        )
        ratio = joint / joint.sum(0).clip(1e-300) / joint.sum(1, keepdims=True)
        wanted[b, u] = (joint * np.log(np.where(joint > 0, ratio, 1))).sum()
    close(found, wanted)


def test_the_expected_gain_by_hand():
    # Sure: nothing left to learn. Even between two of three: a right answer is worth log 2.
    log_p = logs([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    accuracy = torch.tensor([[0.9, 1.0], [1 / 3, 1.0], [1 / 3, 1.0]], dtype=torch.float64)
    wanted = torch.tensor([[0, 0], [0, math.log(2)], [0, math.log(3)]])
    close(expected_gain(log_p, accuracy), wanted)


BAD_EXPECTED = {
    "probabilities": ((GOOD0.exp(), torch.zeros(2, 4)), "log_p must"),
    "one image": ((GOOD0[0], torch.zeros(3, 4)), "accuracy must|log_p must"),
    "one label": ((torch.zeros(2, 1), torch.zeros(2, 4)), "accuracy must|log_p must"),
    "other images": ((GOOD0, torch.zeros(3, 4)), "accuracy must"),
    "(U,)": ((GOOD0, torch.zeros(4)), "accuracy must"),
    "a number": ((GOOD0, 0.5), "accuracy must"),
    "above 1": ((GOOD0, torch.tensor([[0.5, 1.1]] * 2)), "accuracy must"),
    "below 0": ((GOOD0, torch.tensor([[0.5, -0.1]] * 2)), "accuracy must"),
    "NaN": ((GOOD0, torch.tensor([[0.5, math.nan]] * 2)), "accuracy must"),
}


@pytest.mark.parametrize(("given", "message"), BAD_EXPECTED.values(), ids=BAD_EXPECTED)
def test_bad_input_of_the_expected_gain_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        expected_gain(*given)


# policies

THREE = torch.tensor([[0.6, 0.0], [0.0, 0.5], [-0.3, 0.3]])  # 0.6, 0.5 and 0.42 from the centre
# glance (.5, .3, .2), the label sought is 1.
#   place   p(1)  margin of 1           confidence
#   0       .1    log .1 / .8           .8
#   1       .45   log .45 / .35 = .25   .45
#   2       .5    log .5 / .48 = .04    .5
CLEAR = (logs([[0.5, 0.3, 0.2]]), logs([[[0.8, 0.1, 0.1], [0.2, 0.45, 0.35], [0.48, 0.5, 0.02]]]))
# glance (.9, .1); fused: (.61, .39), (.988, .012), (.9, .1)
#   gain: .61 log .68 + .39 log 3.86 = .29; .988 log 1.098 + .012 log .12 = .07; 0
#   bound + log 2: .61 log .15 + .39 log .85 + .69 = -.53; .988 log .9 + .012 log .1 + .69 = .56; 0
TORN = (logs([[0.9, 0.1]]), logs([[[0.15, 0.85], [0.9, 0.1], [0.5, 0.5]]]))
# with two labels an answer is worth as much as its accuracy is far from 1/2: .2, .3 and .4 (nearly always wrong)
DOUBT = torch.tensor([0.7, 0.8, 0.1])

CHOICES = {
    "oracle": (CLEAR, {"target": 1}, [1, 2, 0]),
    "known_label": (CLEAR, {"target": [1]}, [2, 1, 0]),
    "max_confidence": (CLEAR, {}, [0, 2, 1]),
    "fused_confidence": (TORN, {}, [1, 2]),
    "information_gain": (TORN, {}, [0]),
    "information_gain_bound": (TORN, {}, [1]),
    "expected": (TORN, {"accuracy": DOUBT}, [2, 1, 0]),
    "center": (CLEAR, {}, [2, 1, 0]),
}


@each_dtype
@pytest.mark.parametrize(("policy", "case"), CHOICES.items(), ids=CHOICES)
def test_the_choices_by_hand(policy, case, dtype):
    (glance, labels), given, wanted = case
    trace = search_precomputed(policy, glance.to(dtype), labels.to(dtype), THREE, len(wanted), **given)
    assert trace.places.tolist() == [wanted]
    assert trace.places.dtype == torch.int64
    assert torch.equal(trace.fixations[0], torch.cat([torch.zeros(1, 2), THREE[wanted]]))
    assert trace.views.dtype == trace.beliefs.dtype == trace.scores.dtype == dtype
    assert torch.equal(trace.views[0, 0], glance[0].to(dtype))
    assert torch.equal(trace.views[0, 1:], labels[0, wanted].to(dtype))
    seen = glance[0].exp() * 1.0
    for step, place in enumerate(wanted):  # beliefs in probabilities
        seen = seen * labels[0, place].exp()
        close(trace.beliefs[0, step + 1].exp(), seen / seen.sum())
        assert (trace.scores[0, step, wanted[:step]] == -math.inf).all()
        assert trace.scores[0, step, wanted[step:]].isfinite().all()
    assert trace.forwards == 1 + (3 if POLICIES[policy].needs_all_views else len(wanted))


def test_the_scores_by_hand():
    def scores(policy, case=CLEAR, **given):
        return search_precomputed(policy, *case, THREE, **given).scores[0, 0].tolist()

    assert scores("oracle", target=1) == pytest.approx([math.log(a) for a in (0.1 / 0.8, 0.45 / 0.35, 0.5 / 0.48)])
    assert scores("known_label", target=1) == pytest.approx([math.log(a) for a in (0.1, 0.45, 0.5)])
    assert scores("max_confidence") == pytest.approx([math.log(a) for a in (0.8, 0.45, 0.5)])
    # Of TORN, fused: (.61, .39), (.988, .012), (.9, .1)
    assert scores("fused_confidence", TORN) == pytest.approx([math.log(a) for a in (0.6136, 0.9878, 0.9)], abs=1e-3)
    assert scores("center") == pytest.approx([-0.36, -0.25, -0.18])
    assert scores("information_gain", TORN) == pytest.approx([0.287, 0.066, 0], abs=1e-3)
    assert scores("information_gain_bound", TORN) == pytest.approx([-0.534, 0.561, 0], abs=1e-3)


@pytest.mark.parametrize("policy", ["information_gain", "information_gain_bound"])
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["None", "uneven"])
def test_gain_policies_follow_the_belief_and_the_prior(policy, prior):
    glance, labels = random_logs(6, 4), random_logs(6, 5, 4, seed=1)
    trace = search_precomputed(policy, glance, labels, torch.rand(5, 2, generator=seeded()) * 2 - 1, 3, prior=prior)
    belief, done = glance, torch.zeros(6, 5, dtype=torch.bool)
    for step in range(3):
        naive = naive_gain(belief, labels, prior)
        score = naive["gain" if policy == "information_gain" else "full"].masked_fill(done, -math.inf)
        assert torch.allclose(trace.scores[:, step], score, atol=1e-9)
        place = score.argmax(1)
        assert torch.equal(trace.places[:, step], place)
        done[torch.arange(6), place] = True
        belief = naive["fused"][torch.arange(6), place].log()
        close(trace.beliefs[:, step + 1], belief)


def test_expected_is_worked_out_anew_from_every_belief():
    glance, labels, accuracy = random_logs(4, 3), random_logs(4, 5, 3, seed=1), torch.rand(5, generator=seeded())
    trace = search_precomputed("expected", glance, labels, torch.rand(5, 2, generator=seeded()), 3, accuracy=accuracy)
    for step in range(3):
        wanted = expected_gain(trace.beliefs[:, step], accuracy.expand(4, 5))
        left = trace.scores[:, step] > -math.inf
        assert torch.allclose(trace.scores[:, step][left], wanted[left])
    # Other accuracies for each image.
    each = torch.rand(4, 5, generator=seeded(1))
    trace = search_precomputed("expected", glance, labels, torch.rand(5, 2, generator=seeded()), accuracy=each)
    assert torch.allclose(trace.scores[:, 0], expected_gain(glance, each))


def test_every_policy_says_what_it_is():
    assert list(POLICIES) == [
        "oracle", "known_label", "max_confidence", "fused_confidence", "information_gain", "information_gain_bound",
        "expected", "random", "center",
    ]  # fmt: skip
    assert all(isinstance(rule, Policy) and rule.about for rule in POLICIES.values())
    assert {name for name, rule in POLICIES.items() if not rule.needs_all_views} == {"expected", "random", "center"}
    assert {name for name, rule in POLICIES.items() if rule.needs_target} == {"oracle", "known_label"}


@pytest.mark.parametrize("name", [name for name, rule in POLICIES.items() if not rule.needs_all_views])
def test_policies_that_do_not_look_need_no_views(name):
    now = SearchState(GOOD0, torch.rand(2, 4, 2), accuracy=torch.rand(2, 4), draw=seeded())
    assert POLICIES[name].score(now).shape == (2, 4)


GIVEN = {"oracle": {"target": [0, 2]}, "known_label": {"target": [0, 2]}}
AROUND = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.0, 0.0], [-0.5, 0.5], [0.5, 0.5]])
each_policy = pytest.mark.parametrize("policy", POLICIES)


def given_to(policy, count=5):
    return GIVEN.get(policy, {"accuracy": torch.linspace(0.4, 0.9, count)} if policy == "expected" else {})


@each_policy
def test_no_place_is_looked_at_twice(policy):
    trace = search_precomputed(policy, random_logs(2, 3), random_logs(2, 5, 3, seed=1), AROUND, 4, **given_to(policy))
    for places in trace.places.tolist():
        assert sorted(places) == [0, 1, 3, 4]  # 2, the centre, is where the first glance was
    assert (trace.scores[:, :, 2] == -math.inf).all()


def test_without_inhibition_the_most_confident_place_is_looked_at_again():
    labels = random_logs(2, 5, 3, seed=1)
    labels[:, 2] = logs([0.98, 0.01, 0.01])  # where the first glance was
    trace = search_precomputed("max_confidence", random_logs(2, 3), labels, AROUND, 4, inhibit=False)
    assert trace.places.tolist() == [[2] * 4] * 2
    assert trace.scores.isfinite().all()


def test_inhibition_holds_where_no_place_has_a_chance():
    # The label sought has probability 0 everywhere, so both places score -inf.
    glance, labels = logs([[0.5, 0.5]]), logs([[[0.0, 1.0], [0.0, 1.0]]])
    for policy in ("known_label", "oracle"):
        places = search_precomputed(policy, glance, labels, THREE[:2], 2, target=0).places
        assert sorted(places[0].tolist()) == [0, 1], policy


def test_random_is_drawn_from_seed_and_image():
    glance, labels, at = random_logs(4, 3), random_logs(4, 30, 3, seed=1), torch.rand(30, 2, generator=seeded())

    def places(count=4, **given):
        return search_precomputed("random", glance[:count], labels[:count], at, 3, **given).places

    state = torch.get_rng_state()
    assert torch.equal(places(), places())
    assert torch.equal(places(seed=5), places(seed=5))
    assert not torch.equal(places(), places(seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(row) for row in places().tolist()}) == 4  # each image goes its own way
    assert torch.equal(places(2)[:, 0], places()[:2, 0])
    many = search_precomputed(
        "random", glance[:1].repeat(900, 1), labels[:1, :3].repeat(900, 1, 1), THREE, seed=1
    ).places
    assert (torch.bincount(many[:, 0], minlength=3) > 230).all()  # 300 each, standard deviation 14


# search


class Where(nn.Module):
    """How right each candidate's answer will be, from the whole image; leaves traces in training mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2).double()
        self.slope = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.asked = []

    def forward(self, x, fixations):
        self.asked.append(tuple(fixations.shape))
        return (self.norm(x).mean((1, 2, 3))[:, None] + fixations[..., 0] * self.slope).sigmoid()


def candidates(kind):
    if kind == "grid":
        return 3, fixation_grid(3).flatten(0, 1)
    own = torch.rand(2, 5, 2, generator=seeded(3)) * 2 - 1
    return (own[0], own[0]) if kind == "(U, 2)" else (own, own)


@each_dtype
@each_policy
@pytest.mark.parametrize("kind", ["grid", "(U, 2)", "(B, U, 2)"])
def test_search_is_follow_on_its_label_maps(policy, kind, dtype):
    model, x = net(dtype=dtype), images(dtype=dtype)
    given, at = candidates(kind)
    told = given_to(policy, at.shape[-2])
    prior = torch.tensor([0.5, 0.3, 0.2])
    glance = label_map(model, x, torch.zeros(1, 2), seen_cartesian)[:, 0]
    wanted = search_precomputed(
        policy, glance, label_map(model, x, at, seen_cartesian), at, 3, prior=prior, seed=2, **told
    )
    model.sizes.clear()
    with assert_untouched(model):
        found = search(
            model, x, policy, 3, fixations=given, prior=prior, seed=2, view=seen_cartesian, batch_size=4, **told
        )
    count = at.shape[-2] if POLICIES[policy].needs_all_views else 3
    assert found.forwards == wanted.forwards == 1 + count
    assert sum(model.sizes) == 2 * (1 + count)
    assert max(model.sizes) <= 4
    assert torch.equal(found.places, wanted.places)
    assert found.fixations.shape == (2, 4, 2)
    assert torch.allclose(found.fixations, wanted.fixations, rtol=0, atol=1e-7)
    for name in ("views", "beliefs", "scores"):
        assert getattr(found, name).dtype == dtype
        assert torch.allclose(getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-5), name
    assert found.scores.shape == (2, 3, at.shape[-2])


@each_policy
@pytest.mark.parametrize("boom", [False, True])
def test_search_leaves_the_network_as_it_was(policy, boom):
    model, x = net(boom=boom), images()
    kept = x.clone()
    with assert_untouched(model):
        try:
            trace = search(model, x, policy, 2, fixations=AROUND, view=seen_cartesian, **given_to(policy))
            assert not trace.scores.requires_grad
        except RuntimeError as error:
            assert boom and str(error) == "boom"  # noqa: PT017, PT018
        else:
            assert not boom
    assert torch.equal(x, kept)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "random"])
def test_a_batch_is_searched_as_its_images_one_by_one(policy):
    model, x = net(), images()
    told = given_to(policy, 9)
    both = search(model, x, policy, 3, fixations=3, view=seen_cartesian, **told)
    for b in range(2):
        mine = {key: value[b] if key == "target" else value for key, value in told.items()}
        alone = search(model, x[b : b + 1], policy, 3, fixations=3, view=seen_cartesian, **mine)
        assert torch.equal(alone.places[0], both.places[b])
        assert torch.allclose(alone.beliefs[0], both.beliefs[b], rtol=0, atol=1e-9)


def test_the_defaults_of_search():
    model, x = net(), images()
    found = search(model, x, view=seen_cartesian)
    assert found.places.shape == (2, 1)
    assert found.forwards == 50
    wanted = search(model, x, "information_gain_bound", 1, fixations=7, view=seen_cartesian)
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(found, wanted, strict=True))


@each_policy
def test_no_saccade_is_the_glance(policy):
    model, x = net(), images()
    found = search(model, x, policy, 0, fixations=AROUND, view=seen_cartesian, **given_to(policy))
    glance = naive_labels(model, x, torch.zeros(2, 1, 2), seen_cartesian)
    assert torch.equal(found.fixations, torch.zeros(2, 1, 2))
    assert (found.places.shape, found.places.dtype) == ((2, 0), torch.int64)
    assert found.scores.shape == (2, 0, 5)
    close(found.views, glance)
    close(found.beliefs, glance)
    assert found.forwards == (6 if POLICIES[policy].needs_all_views else 1)


@pytest.mark.parametrize("each", [False, True])
def test_the_first_glance_is_where_start_says(each):
    model, x = net(), images()
    start = torch.tensor([[0.5, -0.5], [-0.5, 0.5]]) if each else torch.tensor([0.5, -0.5])
    rows = start.expand(2, 2)
    found = search(model, x, "max_confidence", 4, fixations=AROUND, start=start, view=seen_cartesian)
    assert torch.equal(found.fixations[:, 0], rows)
    close(found.views[:, :1], naive_labels(model, x, rows[:, None], seen_cartesian))
    shut = [1, 3] if each else [1, 1]
    for b in range(2):
        assert sorted(found.places[b].tolist()) == [k for k in range(5) if k != shut[b]]
    with pytest.raises(ValueError, match="saccades must be at most 4"):
        search(model, x, "max_confidence", 5, fixations=AROUND, start=start, view=seen_cartesian)


def test_only_the_place_of_the_first_glance_is_inhibited():
    # One beside the centre by a hundredth of a pixel's half, one at the centre in one coordinate alone.
    at = torch.tensor([[0.001, 0.0], [0.0, 0.4], [0.4, 0.0]])
    labels = logs([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]])
    assert search_precomputed("max_confidence", logs([[0.5, 0.5]]), labels, at, 3).places.tolist() == [[0, 1, 2]]


def test_a_second_network_gives_the_accuracy():
    model, where, x = net(), Where().eval(), images()
    at = torch.rand(2, 5, 2, generator=seeded(3)) * 2 - 1
    with torch.no_grad():
        accuracy = where(x, at)
    where.asked.clear()
    found = search((model, where), x, "expected", 2, fixations=at, view=seen_cartesian)
    wanted = search(model, x, "expected", 2, fixations=at, accuracy=accuracy, view=seen_cartesian)
    assert where.asked == [(2, 5, 2)]
    assert torch.equal(found.places, wanted.places)
    assert torch.allclose(found.scores, wanted.scores)
    search((model, where), x, "expected", fixations=at, accuracy=accuracy, view=seen_cartesian)
    search((model, where), x, "center", fixations=at, view=seen_cartesian)
    assert len(where.asked) == 1  # it is asked by the policy that needs it alone, and only for what is not given


def test_the_second_network_is_left_as_it_was():
    where = Where().train()
    with assert_untouched(where):
        trace = search((net(), where), images(), "expected", fixations=3, view=seen_cartesian)
    assert not trace.scores.requires_grad


BAD_SEARCH = {
    "images": ({"x": torch.zeros(3)}, "x must"),
    "policy": ({"policy": "best"}, "policy must"),
    "oracle": ({"policy": "oracle"}, "target must be given"),
    "known_label": ({"policy": "known_label"}, "target must be given"),
    "target of other images": ({"policy": "oracle", "target": [0, 1, 2]}, "target must"),
    "target of no label": ({"policy": "oracle", "target": 3}, "target must"),
    "several targets": ({"policy": "oracle", "target": [[0, 1], [1, 2]]}, "target must"),
    "expected": ({"policy": "expected"}, "accuracy must be given"),
    "accuracy of other places": ({"policy": "expected", "accuracy": torch.zeros(3)}, "accuracy must"),
    "accuracy of other images": ({"policy": "expected", "accuracy": torch.zeros(3, 5)}, "accuracy must"),
    "accuracy a number": ({"policy": "expected", "accuracy": 0.5}, "accuracy must"),
    "accuracy above 1": ({"policy": "expected", "accuracy": torch.full((5,), 2.0)}, "accuracy must"),
    "saccades -1": ({"saccades": -1}, "saccades must"),
    "saccades 1.0": ({"saccades": 1.0}, "saccades must"),
    "saccades True": ({"saccades": True}, "saccades must"),
    "saccades 5 of 4": ({"saccades": 5}, "saccades must"),
    "saccades 6 of 5": ({"saccades": 6, "inhibit": False}, "saccades must"),
    "start (3,)": ({"start": torch.zeros(3)}, "start must"),
    "start of other images": ({"start": torch.zeros(3, 2)}, "start must"),
    "start a tuple": ({"start": (0, 0)}, "start must"),
    "start outside": ({"start": torch.tensor([0.0, 1.5])}, "must be"),
    "fixations outside": ({"fixations": torch.tensor([[0.0, 1.5]])}, "fixations must"),
    "fixations 0": ({"fixations": 0}, "must be an integer"),
    "fixations a float": ({"fixations": 2.5}, "fixations must"),
    "chunk": ({"chunk": 0}, "chunk must"),
    "prior": ({"prior": torch.tensor([0.5, 0.5, 0.5])}, "prior must"),
}


@pytest.mark.parametrize(("given", "message"), BAD_SEARCH.values(), ids=BAD_SEARCH)
def test_bad_input_of_search_is_refused(given, message):
    good = {"models": net(), "x": images(), "fixations": AROUND, "view": seen_cartesian}
    with pytest.raises(ValueError, match=message):
        search(**{**good, **given})


def test_as_many_saccades_as_places_are_fine():
    assert search_precomputed("max_confidence", *CLEAR, THREE, 3).places.shape == (1, 3)
    assert search_precomputed("max_confidence", *CLEAR, THREE, 3, inhibit=False).places.tolist() == [[0, 0, 0]]


BAD_FOLLOW = {
    "glance": ({"glance": random_logs(3, 3)}, "glance must"),
    "labels": ({"labels": random_logs(2, 3)}, "labels"),
    "other labels": ({"labels": random_logs(2, 5, 4)}, "labels"),
    "other fixations": ({"fixations": AROUND[:4]}, "fixations must"),
    "fixations outside": ({"fixations": AROUND * 3}, "fixations must"),
    "policy": ({"policy": "best"}, "policy must"),
    "told": ({"policy": "oracle"}, "target must"),
    "several": ({"policy": "oracle", "target": [[0, 1], [1, 2]]}, "target must"),
    "probabilities": ({"labels": random_logs(2, 5, 3).exp()}, "must be log-probabilities"),
}


@pytest.mark.parametrize(("given", "message"), BAD_FOLLOW.values(), ids=BAD_FOLLOW)
def test_bad_input_of_follow_is_refused(given, message):
    good = {"policy": "max_confidence", "glance": random_logs(2, 3), "labels": random_logs(2, 5, 3)}
    with pytest.raises(ValueError, match=message):
        search_precomputed(**{**good, "fixations": AROUND, **given})


# the where pathway


def test_the_collicular_grid_by_hand():
    grid = collicular_grid()
    assert grid.shape == (10, 24, 2)
    assert grid.dtype == torch.float32
    for ring, azimuth in itertools.product(range(10), range(24)):
        radius, angle = 0.8 / 1.41**ring, 2 * math.pi * azimuth / 24
        wanted = [radius * math.cos(angle), radius * math.sin(angle)]
        assert grid[ring, azimuth].tolist() == pytest.approx(wanted, abs=1e-6)
    ends = grid[[0, 9], 0, 0] * 64  # pixels, of a display of 128
    assert ends.tolist() == pytest.approx([51.2, 2.32], abs=0.01)


@each_dtype
def test_the_dorsal_view_is_gray_and_four_samples_a_cell(dtype):
    x = images(side=64, dtype=dtype)
    kept = x.clone()
    at = torch.tensor([[0.0, 0.0], [0.3, -0.2], [1.0, 1.0]])
    found = dorsal_view(x, at)
    assert found.shape == (2, 3, 1, 40, 96)
    assert found.dtype == dtype
    assert torch.equal(x, kept)
    # Rings from 0.8 x 1.41^(3/8) inwards, four to a factor of 1.41: those of a cell lie around the cell's own.
    wanted = log_polar(x.mean(1, keepdim=True), at, (40, 96), 0.8 / 1.41**9.375, 0.8 * 1.41**0.375, antialias=True)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-6)
    assert torch.equal(dorsal_view(x), dorsal_view(x, torch.zeros(1, 2)))
    assert torch.equal(dorsal_view(x, torch.zeros(2, 3, 2)), dorsal_view(x, torch.zeros(3, 2)))
    plain = dorsal_view(x.mean(1, keepdim=True))
    assert torch.allclose(dorsal_view(x), plain, rtol=0, atol=1e-6)


def test_bad_input_of_the_dorsal_view_is_refused():
    with pytest.raises(ValueError, match="x must"):
        dorsal_view(torch.zeros(1, 64, 64))
    with pytest.raises(ValueError, match="fixations must"):
        dorsal_view(torch.zeros(1, 1, 64, 64), torch.tensor([[0.0, 2.0]]))


def test_the_where_net_is_as_published():
    torch.manual_seed(0)
    model = WhereNet().eval()
    assert model(torch.randn(2, 1, 40, 96)).shape == (2, 10, 24)
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [
        (2880, 1000), (1000, 1000), (1000, 240),
    ]  # fmt: skip
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.weight.shape for m in convolutions] == [(12, 1, 9, 9)]
    # batch normalisation of the filters and after each hidden layer, and none of the output
    assert [m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm1d)] == [2880, 1000, 1000]
    assert [m.out_features for m in WhereNet(7).modules() if isinstance(m, nn.Linear)] == [7, 7, 240]
    with torch.no_grad():  # logits, not probabilities
        model.layers[-1].bias.fill_(50)
    assert (model(torch.zeros(1, 1, 40, 96)) > 10).all()


@pytest.mark.parametrize("hidden", [0, -1, 2.5, True, None])
def test_hidden_units_are_counted(hidden):
    with pytest.raises(ValueError, match="hidden must"):
        WhereNet(hidden)


@pytest.mark.parametrize(
    "shape", [(1, 40, 96), (1, 3, 40, 96), (1, 1, 96, 40), (1, 1, 44, 96), (1, 1, 40, 100), (1, 1, 1, 40, 96)]
)
def test_views_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="views must"):
        WhereNet(4)(torch.zeros(shape))


def test_the_filters_follow_a_rotation_by_whole_cells():
    torch.manual_seed(0)
    model, views = WhereNet(4).double(), torch.randn(2, 1, 40, 96, dtype=torch.float64)
    maps = model.retina(views).unflatten(1, (12, 10, 24))
    for cells in (1, 5, 23):
        turned = model.retina(views.roll(4 * cells, -1)).unflatten(1, (12, 10, 24))
        assert torch.allclose(turned, maps.roll(cells, -1), rtol=0, atol=1e-12)
    # By hand: cell (i, j) sees samples 4 i - 4 .. 4 i + 4 and 4 j - 4 .. 4 j + 4, 0 beyond the rim, on beyond the seam.
    convolution = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    for i, j in ((0, 0), (4, 23), (9, 7)):
        patch = torch.zeros(9, 9, dtype=torch.float64)
        for a, b in itertools.product(range(9), repeat=2):
            if 0 <= 4 * i + a - 4 < 40:
                patch[a, b] = views[0, 0, 4 * i + a - 4, (4 * j + b - 4) % 96]
        wanted = ((convolution.weight[:, 0] * patch).sum((1, 2)) + convolution.bias).clamp(min=0)
        assert torch.allclose(maps[0, :, i, j], wanted, rtol=0, atol=1e-12)


def test_the_what_net_is_as_published():
    model = WhatNet()
    assert sum(p.numel() for p in model.parameters()) == 431_080
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert WhatNet(3)(torch.zeros(2, 1, 28, 28)).shape == (2, 3)
    assert [m.weight.shape[:2] for m in model if isinstance(m, nn.Conv2d)] == [(20, 1), (50, 20)]
    with torch.no_grad():  # the last layer is linear: logits may be negative
        model[-1].bias.fill_(-50)
    assert (model(torch.zeros(1, 1, 28, 28)) < 0).all()


@pytest.mark.parametrize("classes", [0, 1.5, True])
def test_classes_are_counted(classes):
    with pytest.raises(ValueError, match="classes must"):
        WhatNet(classes)


def naive_kernels(size):
    """(240, size, size), pixel by pixel."""
    found = np.zeros((240, size, size))
    for n, (ring, azimuth) in enumerate(itertools.product(range(10), range(24))):
        radius, angle = 0.8 / 1.41**ring, 2 * math.pi * azimuth / 24
        centre = radius * math.cos(angle), radius * math.sin(angle)
        for row, column in itertools.product(range(size), repeat=2):
            x, y = (2 * column + 1) / size - 1, (2 * row + 1) / size - 1
            found[n, row, column] = math.exp(-(math.dist((x, y), centre) ** 2) / (2 * (0.25 * radius) ** 2))
    return found / found.sum((1, 2), keepdims=True)


KERNELS = {}


def kernels(size):
    if size not in KERNELS:
        KERNELS[size] = naive_kernels(size)
    return KERNELS[size]


@pytest.mark.parametrize("shape", [(5, 7), (3, 3), (15, 1)])
@pytest.mark.parametrize("chance", [0.1, 0.25])
def test_a_collicular_target_is_a_loop_over_pixels(shape, chance):
    size = 16
    accuracy = torch.rand(shape, generator=seeded(1))
    places = torch.tensor([[0, 0], [3, -2], [-7, 7], [7, -7], [1, 0]])
    kept = accuracy.clone(), places.clone()
    found = collicular_target(accuracy, places, size, chance)
    assert found.shape == (5, 10, 24)
    middle = shape[0] // 2, shape[1] // 2
    for n, (x, y) in enumerate(places.tolist()):
        wanted = np.zeros(240)
        for row, column, right, low in itertools.product(range(size), range(size), (0, 1), (0, 1)):
            # the object at one of the four pixels around the corner that place 0 is
            dy, dx = row - (size // 2 + y - low), column - (size // 2 + x - right)
            inside = abs(dy) <= middle[0] and abs(dx) <= middle[1]
            here = accuracy[dy + middle[0], dx + middle[1]].item() if inside else chance
            wanted += kernels(size)[:, row, column] * here / 4
        assert found[n].flatten().numpy() == pytest.approx(wanted, abs=1e-5)
    assert torch.equal(kept[0], accuracy)
    assert torch.equal(kept[1], places)
    assert (found >= 0).all()
    assert (found <= 1).all()


def test_a_target_of_chance_alone_is_chance_and_the_defaults_are_128_and_a_tenth():
    places = torch.tensor([[63, -63], [-63, 0]])
    assert torch.allclose(collicular_target(torch.full((3, 3), 0.1), places), torch.tensor(0.1), atol=1e-6)
    one = torch.zeros(3, 3)
    one[1, 1] = 1
    assert torch.equal(collicular_target(one, places), collicular_target(one, places, 128, 0.1))
    assert collicular_target(one, places[:0]).shape == (0, 10, 24)
    assert torch.equal(collicular_target(one.double(), places), collicular_target(one, places))


BAD_TARGETS = {
    "even": ({"accuracy": torch.zeros(4, 3)}, "accuracy must"),
    "even columns": ({"accuracy": torch.zeros(3, 4)}, "accuracy must"),
    "rank": ({"accuracy": torch.zeros(3)}, "accuracy must"),
    "too large": ({"accuracy": torch.zeros(17, 3)}, "accuracy must"),
    "above 1": ({"accuracy": torch.full((3, 3), 1.1)}, "accuracy must"),
    "below 0": ({"accuracy": torch.full((3, 3), -0.1)}, "accuracy must"),
    "NaN": ({"accuracy": torch.full((3, 3), math.nan)}, "accuracy must"),
    "a list": ({"accuracy": [[0.1]]}, "accuracy must"),
    "places of floats": ({"places": torch.zeros(1, 2)}, "places must"),
    "one place": ({"places": torch.zeros(2).long()}, "places must"),
    "(N, 3)": ({"places": torch.zeros(1, 3).long()}, "places must"),
    "outside right": ({"places": torch.tensor([[8, 0]])}, "places must"),
    "outside above": ({"places": torch.tensor([[0, -8]])}, "places must"),
    "places a list": ({"places": [[0, 0]]}, "places must"),
}


@pytest.mark.parametrize(("given", "message"), BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_bad_collicular_targets_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        collicular_target(**{"accuracy": torch.zeros(3, 3), "places": torch.tensor([[0, 0]]), "size": 16, **given})


@each_dtype
def test_a_predicted_map_is_a_ridge_regression(dtype):
    size, chance = 16, 0.2
    cells = torch.rand(3, 10, 24, generator=seeded(), dtype=torch.float64).to(dtype)
    kept = cells.clone()
    # The map m that minimises |E m - c|^2 + 0.01 |m|^2, with kernels of unit norm and cells scaled alike.
    plain = kernels(size).reshape(240, -1)
    norms = np.linalg.norm(plain, axis=1)
    even, asked = plain / norms[:, None], (cells.double().flatten(1).numpy() - chance) / norms
    wanted = np.linalg.solve(even.T @ even + 0.01 * np.eye(size**2), even.T @ asked.T).T.reshape(3, size, size) + chance
    for row, column in itertools.product(range(size), repeat=2):
        if math.hypot(2 * row + 1 - size, 2 * column + 1 - size) > size:
            wanted[:, row, column] = chance
    found = predicted_map(cells, size, chance)
    assert found.shape == (3, size, size)
    assert found.dtype == dtype
    assert found.double().numpy() == pytest.approx(wanted, rel=1e-4, abs=1e-3)
    assert (found[:, 0, 0] == torch.tensor(chance, dtype=dtype)).all()
    assert torch.equal(cells, kept)


def bump(width, side=55):
    axis = torch.arange(side) - side // 2
    return 0.1 + 0.85 * torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * width**2))


@pytest.mark.parametrize("width", [3, 5, 8])
def test_a_predicted_map_points_at_the_object(width):
    places = torch.randint(-40, 41, (150, 2), generator=seeded())
    places = places[places.double().norm(dim=1) <= 40]
    best = predicted_map(collicular_target(bump(width), places)).flatten(1).argmax(1)
    # Pixel i lies at i + 1/2 from the left edge, the display's centre at 64.
    apart = (torch.stack([best % 128, best // 128], 1) + 0.5 - 64 - places).norm(dim=1)
    assert apart.max() <= 4
    assert apart.mean() < 1.5


def test_a_predicted_map_of_chance_is_chance():
    found = predicted_map(torch.full((1, 10, 24), 0.1))
    assert found.shape == (1, 128, 128)
    assert torch.allclose(found, torch.tensor(0.1), atol=1e-5)


@pytest.mark.parametrize("cells", [torch.zeros(10, 24), torch.zeros(1, 24, 10), torch.zeros(1, 1, 10, 24), [[0.1]]])
def test_cells_of_other_shapes_are_refused(cells):
    with pytest.raises(ValueError, match="cells must"):
        predicted_map(cells)


# both pathways

SIDE = 32


class Pointer(nn.Module):
    """A where network that always points at one cell; leaves a trace in training mode."""

    def __init__(self, ring, azimuth, logit=3.0, boom=False):
        super().__init__()
        cells = torch.full((10, 24), -2.2)  # chance
        cells[ring, azimuth] = logit
        self.cells = nn.Parameter(cells)
        self.norm = nn.BatchNorm2d(1)
        self.boom = Boom() if boom else nn.Identity()
        self.seen = []

    def forward(self, views):
        self.seen.append(views)
        self.norm(views)
        return self.boom(self.cells).expand(len(views), -1, -1)


def gray(count=3, channels=2, seed=0):
    return torch.randn(count, channels, SIDE, SIDE, generator=seeded(seed))


def step_of(where):
    """Where the mean of four neighbouring pixels is greatest, from the fixation, in whole pixels, right and down."""
    found = predicted_map(where.cells.detach().sigmoid()[None], SIDE)[0]
    four = (found[:-1, :-1] + found[1:, :-1] + found[:-1, 1:] + found[1:, 1:]) / 4
    best = int(four.argmax())
    # between pixel i and the next
    return best % (SIDE - 1) + 1 - SIDE // 2, best // (SIDE - 1) + 1 - SIDE // 2


CELLS = {
    "right": (2, 1),
    "below": (2, 7),
    "left": (3, 13),
    "above": (2, 19),
    "far": (1, 4),
}  # between the axes: no ties


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_gaze_goes_where_the_map_says_and_on_from_there(cell):
    what, where, x = net(dtype=torch.float32), Pointer(*cell), gray()
    found = dual_pathway(what, where, x, 2, view=seen_cartesian)
    step = torch.tensor(step_of(where)).float()
    # within two pixels of the cell's centre
    assert (step - collicular_grid()[cell] * SIDE / 2).abs().max() <= 2
    wanted = torch.stack([torch.zeros(2), step / 16, (2 * step / 16).clamp(-1, 1)])
    assert torch.allclose(found.fixations, wanted.expand(3, -1, -1), rtol=0, atol=1e-6)
    close(found.views, naive_labels(what, x, found.fixations, seen_cartesian), 1e-5)
    together = found.views.double().cumsum(1).log_softmax(-1)  # an even prior
    close(found.beliefs, together, 1e-5)
    assert torch.allclose(found.maps, where.cells.detach().sigmoid().expand(3, 2, -1, -1), rtol=0, atol=1e-6)
    for number, view in enumerate(where.seen):  # what it sees is around the gaze
        assert torch.allclose(view, dorsal_view(x, found.fixations[:, number, None])[:, 0], rtol=0, atol=1e-5)
    assert len(where.seen) == 2


def test_each_image_goes_its_own_way():
    class Two(nn.Module):
        def forward(self, views):
            cells = torch.full((len(views), 10, 24), -2.2)
            cells[:, 2, 1] = torch.where(views.mean((1, 2, 3)) > 0, 3.0, -2.2)
            cells[:, 2, 7] = torch.where(views.mean((1, 2, 3)) > 0, -2.2, 3.0)
            return cells

    x = torch.ones(3, 1, SIDE, SIDE)
    x[1] = -1
    for chunk in (1, 2, 64):
        view = dual_pathway(net_gray(), Two(), x, view=seen_cartesian, batch_size=chunk)
        right, below = (torch.tensor(step_of(Pointer(2, n))) / 16 for n in (1, 7))
        assert torch.allclose(view.fixations[:, 1], torch.stack([right, below, right]))


def net_gray():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def test_the_gaze_is_held_at_the_edge_and_starts_where_it_is_told():
    what, where, x = net(dtype=torch.float32), Pointer(0, 1), gray()
    found = dual_pathway(what, where, x, 3, view=seen_cartesian)
    assert found.fixations[:, :, 0].tolist() == [[0, pytest.approx(step_of(where)[0] / 16), 1, 1]] * 3
    start = torch.tensor([[0.9, 0.5], [-0.5, 0.0], [0.0, -0.25]])
    found = dual_pathway(what, where, x, 1, view=seen_cartesian, start=start)
    assert torch.equal(found.fixations[:, 0], start)
    step = torch.tensor(step_of(where)) / 16
    assert torch.allclose(found.fixations[:, 1], (start + step).clamp(-1, 1))
    one = dual_pathway(what, where, x, 1, view=seen_cartesian, start=start[0])
    assert torch.allclose(one.fixations[:, 0], start[:1].expand(3, 2))
    close(found.views, naive_labels(what, x, found.fixations, seen_cartesian), 1e-5)


class Sure(nn.Module):
    """Two labels; the first one's probability is what the image's channel holds there."""

    def forward(self, views):
        p = views.mean((1, 2, 3)).clamp(0.01, 0.99)
        return torch.stack([p.log(), (1 - p).log()], 1)


def test_a_cautious_gaze_stays_where_nothing_better_is_promised():
    x = torch.zeros(2, 1, SIDE, SIDE)
    x[0], x[1] = 0.9, 0.6  # confidences
    where = Pointer(2, 1, 0.8)
    top = predicted_map(where.cells.detach().sigmoid()[None], SIDE).max().item()
    # Scaled so that the map's greatest value lies between the two confidences.
    with torch.no_grad():
        cells = 0.1 + (where.cells.sigmoid() - 0.1) * (0.75 - 0.1) / (top - 0.1)
        where.cells.copy_(cells.clamp(1e-4, 1 - 1e-4).logit())
    top = predicted_map(where.cells.detach().sigmoid()[None], SIDE).max().item()
    assert 0.65 < top < 0.85
    step = torch.tensor(step_of(where)) / 16

    def view(x, at):
        return cartesian(x, torch.zeros((*at.shape[:-1], 2)), 4, 0.2, disc=False)  # the centre, wherever the gaze is

    found = dual_pathway(Sure(), where, x, 2, view=view, cautious=True)
    assert torch.equal(found.fixations[0], torch.zeros(3, 2))
    assert torch.allclose(found.fixations[1], torch.stack([0 * step, step, (2 * step).clamp(-1, 1)]))
    assert found.views.exp()[0, :, 0].tolist() == pytest.approx([0.9] * 3)
    assert found.beliefs.exp()[0, :, 0].tolist() == pytest.approx([0.9] * 3)  # not fused a second time
    # .6 .6 / (.6 .6 + .4 .4) = .692; .6^3 / (.6^3 + .4^3) = .771
    assert found.beliefs.exp()[1, :, 0].tolist() == pytest.approx([0.6, 0.36 / 0.52, 0.216 / 0.28])
    bold = dual_pathway(Sure(), where, x, 2, view=view)
    assert torch.allclose(bold.fixations[0], found.fixations[1])


def test_what_may_see_another_picture_than_where():
    what, where, x, other = net(dtype=torch.float32), Pointer(2, 1), gray(channels=1), gray(seed=5)
    found = dual_pathway(what, where, x, view=seen_cartesian, ventral=other)
    close(found.views, naive_labels(what, other, found.fixations, seen_cartesian), 1e-5)
    assert torch.allclose(where.seen[0], dorsal_view(x)[:, 0], rtol=0, atol=1e-6)


def test_both_pathways_without_a_saccade():
    what, where, x = net(dtype=torch.float32), Pointer(2, 1), gray()
    found = dual_pathway(what, where, x, 0, view=seen_cartesian)
    assert [part.shape for part in found] == [(3, 1, 2), (3, 1, 3), (3, 1, 3), (3, 0, 10, 24)]
    assert torch.equal(found.views, found.beliefs)
    assert not where.seen
    assert dual_pathway(what, where, x, view=seen_cartesian).fixations.shape == (3, 2, 2)


@each_dtype
@pytest.mark.parametrize("chunk", [1, 2, 50])
def test_both_pathways_in_passes(chunk, dtype):
    what, where, x = net(dtype=dtype), Pointer(2, 1).to(dtype), gray().to(dtype)
    found = dual_pathway(what, where, x, 2, view=seen_cartesian, batch_size=chunk)
    assert max(what.sizes) == max(map(len, where.seen)) == min(chunk, 3)
    assert found.views.dtype == found.beliefs.dtype == found.maps.dtype == dtype
    alone = dual_pathway(what, where, x[1:2], 2, view=seen_cartesian)
    assert all(torch.allclose(a[1], b[0], rtol=0, atol=1e-6) for a, b in zip(found, alone, strict=True))


@pytest.mark.parametrize("boom", ["", "what", "where"])
def test_both_pathways_are_left_as_they_were(boom):
    what, where, x = net(dtype=torch.float32, boom=boom == "what"), Pointer(2, 1, boom=boom == "where").train(), gray()
    kept = x.clone()
    where.seen = None  # tensors that come and go would count as traces
    where.seen = []
    with assert_untouched(what), assert_untouched(where):
        if boom:
            with pytest.raises(RuntimeError, match="boom"):
                dual_pathway(what, where, x, view=seen_cartesian)
        else:
            assert not any(part.requires_grad for part in dual_pathway(what, where, x, view=seen_cartesian))
    assert torch.equal(x, kept)


def test_a_where_net_fits_in():
    torch.manual_seed(0)
    found = dual_pathway(net(dtype=torch.float32), WhereNet(8), gray(), view=seen_cartesian)
    assert found.maps.shape == (3, 1, 10, 24)
    assert ((found.maps > 0) & (found.maps < 1)).all()


BAD_DUAL = {
    "images": ({"x": torch.zeros(3)}, "x must"),
    "not square": ({"x": torch.zeros(2, 2, 32, 30)}, "x must"),
    "odd": ({"x": torch.zeros(2, 2, 31, 31)}, "x must"),
    "saccades -1": ({"saccades": -1}, "saccades must"),
    "saccades 1.0": ({"saccades": 1.0}, "saccades must"),
    "saccades True": ({"saccades": True}, "saccades must"),
    "start outside": ({"start": torch.tensor([0.0, 1.5])}, "must be"),
    "start (3,)": ({"start": torch.zeros(3)}, "start must"),
    "start (1,)": ({"start": torch.zeros(1)}, "start must"),
    "start of other images": ({"start": torch.zeros(2, 2)}, "start must"),
    "ventral of other images": ({"ventral": torch.zeros(2, 2, 32, 32)}, "must be"),
    "ventral of rank 3": ({"ventral": torch.zeros(3, 32, 32)}, "x must"),
    "chunk": ({"chunk": 0}, "chunk must"),
}


@pytest.mark.parametrize(("given", "message"), BAD_DUAL.values(), ids=BAD_DUAL)
def test_bad_input_of_both_pathways_is_refused(given, message):
    good = {"what": net(dtype=torch.float32), "where": Pointer(2, 1), "x": gray(), "view": seen_cartesian}
    with pytest.raises(ValueError, match=message):
        dual_pathway(**{**good, **given})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@each_policy
def test_search_on_cuda(policy):
    model, x = net(), images()
    told = given_to(policy, 9)
    found = search(model.cuda(), x.cuda(), policy, 2, fixations=3, view=seen_cartesian, **told)
    wanted = search(model.cpu(), x, policy, 2, fixations=3, view=seen_cartesian, **told)
    assert found.beliefs.device.type == found.scores.device.type == "cuda"
    assert torch.equal(found.places, wanted.places)
    assert torch.allclose(found.beliefs.cpu(), wanted.beliefs, rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_both_pathways_on_cuda():
    what, where, x = net(dtype=torch.float32), Pointer(2, 1), gray()
    wanted = dual_pathway(what, where, x, 2, view=seen_cartesian)
    found = dual_pathway(what.cuda(), where.cuda(), x.cuda(), 2, view=seen_cartesian)
    assert found.beliefs.device.type == found.maps.device.type == "cuda"
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a.cpu(), b, rtol=0, atol=1e-4)
