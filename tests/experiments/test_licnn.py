"""The long run of chapter 5: what LICNN is compared with, the naive version beside it, and the record's arithmetic."""

import json
import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from support.untouched import assert_untouched
from torch import nn

from helpers import cam, compare, networks, saliency
from helpers.data import CLASSES, Digits, Photos, scenes, two_object_scenes
from helpers.experiments import licnn as L
from helpers.experiments.benchmark import reference_licnn as naive
from helpers.experiments.report import _plain
from helpers.experiments.train.datasets import DataSplit, LabeledImages
from helpers.experiments.train.recipes import IMAGENET_MEAN, IMAGENET_STD, RECIPES
from helpers.licnn import attention_map, inhibition_mask, rms_mask, saliency_map
from helpers.licnn import variants as A
from helpers.metrics import blurred_map, center_map, edge_map, mass_in_mask, pixel_auc, pointing_game
from helpers.networks import LeNet, SmallVGG
from helpers.sanity import cascading_randomization, sanity_check

CPU = torch.device("cpu")
NAN = float("nan")


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tiny(classes=8, seed=0, pooling="gap", kind=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallVGG(classes, stages=((4,), (6,)), pooling=pooling).to(kind or torch.float32).eval()


def with_card(name="scenes-gap", seed=0, **options):
    model = tiny(seed=seed, kind=torch.float32, **options)
    model.card = networks.card(name)
    return model


def squares(n, side):
    """Masks (n, side, side): squares of growing size, each elsewhere."""
    found = torch.zeros(n, side, side, dtype=torch.bool)
    for k in range(n):
        found[k, k : k + 3 + k % 3, 2 * k % (side - 5) :][:, : 4 + k % 2] = True
    return found


def close(found, wanted, atol=1e-9):
    torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


def slow_inhibition(x):
    """Equation 3 of one map (h, w) with the text's numbers: four loops."""
    (height, width), values = x.shape, x.tolist()
    result = torch.zeros(height, width, dtype=torch.float64)
    terms = torch.zeros(2, height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            total = differences = 0.0
            for u in range(i - 3, i + 4):
                for v in range(j - 3, j + 4):
                    neighbour = values[u][v] if 0 <= u < height and 0 <= v < width else 0.0
                    d = math.hypot(u - i, v - j) / 7
                    total += neighbour
                    differences += d * math.exp(-d) * max(0.0, neighbour - values[i][j])
            terms[:, i, j] = torch.tensor([0.1 * math.exp(-total / 49), 0.9 * differences])
            result[i, j] = 0.1 * math.exp(-total / 49) + 0.9 * differences
    return result, terms


# --- what LICNN's masks are compared with -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 9, 11), (2, 3, 8, 8), (7, 12)])
def test_the_mexican_hat_is_a_difference_of_gaussians(shape):
    g = noise(*shape)
    kept = g.clone()
    found = A.center_surround_mask(g)
    assert g.equal(kept)
    assert found.dtype == torch.bool
    assert found.shape == g.shape
    for one, mask in zip(g.reshape(-1, *shape[-2:]), found.reshape(-1, *shape[-2:]), strict=True):
        fine, wide = (gaussian_filter(one.numpy(), sigma, mode="mirror", truncate=3) for sigma in (1, 2))
        assert mask.tolist() == (fine > wide).tolist()
    assert A.center_surround_mask(g.float()).shape == g.shape


def test_the_mexican_hat_keeps_a_peak_and_nothing_of_nothing():
    g = torch.zeros(1, 15, 15)
    assert not A.center_surround_mask(g).any()
    g[0, 7, 7] = 1
    found = A.center_surround_mask(g)[0]
    assert found[7, 7]
    # exp(-d^2/2) / 2 pi > exp(-d^2/8) / 8 pi while d^2 < 8 ln 4 / 3 = 3.7
    assert found.nonzero().sub(7).square().sum(1).max() == 2
    assert found.sum() == 9


@pytest.mark.parametrize("shape", [(5, 9, 11), (2, 3, 8, 8)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_as_many_random_places_as_licnn_keeps(shape, kind):
    g = noise(*shape, seed=3).to(kind)
    found, ours = A.random_places(g), inhibition_mask(g)
    assert found.dtype == torch.bool
    assert found.shape == g.shape
    assert found.sum((-2, -1)).equal(ours.sum((-2, -1)))
    assert (ours.sum((-2, -1)) > 0).all()
    assert found.equal(A.random_places(g))
    # As independent of LICNN's own as chance makes it: of 30 % of the places about 30 % are shared.
    share = ours.double().mean()
    assert (found & ours).sum() / ours.sum() < share + 0.25
    flat = found.reshape(-1, *shape[-2:])
    assert not flat[0].equal(flat[1])


def test_random_places_have_nothing_to_do_with_the_values():
    g = torch.linspace(-1, 2, 20 * 20).view(1, 20, 20)
    kept = A.random_places(g)
    places = kept.nonzero()[:, 1:].double().mean(0)
    assert inhibition_mask(g).nonzero()[:, 1].double().mean() > 12  # LICNN's lie below, where the values are
    assert (places - 9.5).abs().max() < 2
    assert not A.random_places(torch.zeros(1, 4, 4)).any()


# --- methods ----------------------------------------------------------------------------------------------------------


def known_methods(layer):
    return {
        "gradient": lambda m, x, c: saliency.input_gradient(m, x, c).sum(1),
        "|gradient|": lambda m, x, c: saliency.input_gradient(m, x, c).abs().amax(1),
        "gradient x input": lambda m, x, c: (saliency.input_gradient(m, x, c) * x).sum(1),
        "integrated gradients": lambda m, x, c: saliency.integrated_gradients(m, x, c, steps=10).sum(1),
        "guided backprop": lambda m, x, c: saliency.guided_backprop(m, x, c).sum(1),
        "Grad-CAM": lambda m, x, c: F.interpolate(
            cam.grad_cam(m, x, c, layer=layer)[:, None], x.shape[2:], mode="bilinear", align_corners=False
        )[:, 0],
        "LICNN": lambda m, x, c: attention_map(m, x, c),
        "nothing inhibited": lambda m, x, c: attention_map(m, x, c, suppress=None),
        "edge detector": lambda m, x, c: edge_map(x),
    }


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
def test_methods_are_the_books(layer):
    model, x, labels = tiny(), noise(3, 3, 12, 16), torch.tensor([2, 0, 7])
    found, wanted = compare.attribution_methods(layer), known_methods(layer)
    assert list(found) == list(wanted)
    for name, method in found.items():
        with assert_untouched(model):
            maps = method(model, x, labels)
        assert maps.shape == (3, 12, 16), name
        assert maps.dtype == torch.float64
        close(maps, wanted[name](model, x, labels))
        close(maps[1:2], method(model, x[1:2], labels[1:2]))
    signed = [name for name, method in found.items() if (method(model, x, labels) < 0).any()]
    assert signed == ["gradient", "gradient x input", "integrated gradients", "guided backprop"]


def test_other_maps_have_cam_only_where_it_is_known():
    model, x, labels = tiny(), noise(2, 3, 12, 16), torch.tensor([2, 5])
    found = compare.two_object_methods(model, "relu2")
    signed = ["gradient x input", "integrated gradients", "Grad-CAM"]
    assert list(found) == ["|gradient|", *signed, "|guided backprop|", "CAM"]
    close(found["|guided backprop|"](model, x, labels), saliency.guided_backprop(model, x, labels).abs().amax(1))
    for name in ("|gradient|", *signed):
        close(found[name](model, x, labels), known_methods("relu2")[name](model, x, labels))
    assert "CAM" not in compare.two_object_methods(tiny(pooling="gmp"), "relu2")
    with torch.no_grad():
        last = torch.einsum("nf,nfhw->nhw", model.fc.weight[labels], model.features(x))
    wanted = F.interpolate(last[:, None], (12, 16), mode="bilinear", align_corners=False)[:, 0]
    close(found["CAM"](model, x, labels), wanted)


KNOWN_VARIANTS = {
    "LICNN": {},
    "above the RMS": {"suppress": rms_mask},
    "b = 0": {"suppress": lambda g: inhibition_mask(g, 7, 0.1, 0.0)},
    "a = 0": {"suppress": lambda g: inhibition_mask(g, 7, 0.0, 0.9)},
    "k = 3": {"suppress": lambda g: inhibition_mask(g, 3, 0.1, 0.9)},
    "k = 15": {"suppress": lambda g: inhibition_mask(g, 15, 0.1, 0.9)},
    "Max-C not normalised": {"suppress": lambda g: inhibition_mask(g, 7, 0.1, 0.9, normalize=False)},
    "true Mexican hat": {"suppress": A.center_surround_mask},
    "as many random places": {"suppress": A.random_places},
    "nothing inhibited": {"suppress": None},
    "last ReLU masked too": {"skip_last": False},
    "layers normalised after resizing": {"normalize_layers": "after"},
    "layers not normalised (code)": {"normalize_layers": None},
    "before the softmax": {"score": "logit"},
    "gradient-based": {"mode": "gradient"},
    "gradient-based, above the RMS": {"mode": "gradient", "suppress": rms_mask},
}


def test_every_variant_and_baseline_is_measured():
    model, x, labels, truth = tiny(), noise(3, 3, 16, 16), torch.tensor([2, 0, 7]), squares(3, 16)
    with assert_untouched(model):
        found = compare.compare_attention(model, x, labels, truth, "relu2")
    maps = {name: attention_map(model, x, labels, **options) for name, options in KNOWN_VARIANTS.items()}
    maps["saliency map, top 5"] = saliency_map(model, x, top=5)
    maps |= {name: known_methods("relu2")[name](model, x, labels) for name in ("|gradient|", "Grad-CAM")}
    maps |= {"centre": center_map(x), "blurred image": blurred_map(x), "edges": edge_map(x)}
    assert list(found) == list(maps)
    for name, one in maps.items():
        assert list(found[name]) == ["auc", "mass", "pointing"]
        close(found[name]["auc"], pixel_auc(one, truth))
        close(found[name]["mass"], mass_in_mask(one, truth))
        close(found[name]["pointing"], pointing_game(one, truth))
    for k in range(3):
        auc = roc_auc_score(truth[k].flatten(), maps["LICNN"][k].flatten())
        assert found["LICNN"]["auc"][k].item() == pytest.approx(auc)
    several = {name for name, one in maps.items() if any(one.equal(other) for n, other in maps.items() if n != name)}
    assert not several  # what is compared differs


def test_images_are_compared_batch_by_batch(monkeypatch):
    model, x, labels, truth = tiny(), noise(3, 3, 16, 16), torch.tensor([2, 0, 7]), squares(3, 16)
    seen = []
    model.conv1.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    whole = compare.compare_attention(model, x, labels, truth, "relu2")
    assert 3 in seen
    seen.clear()
    monkeypatch.setattr(A, "BATCH", 2)
    parts = compare.compare_attention(model, x, labels, truth, "relu2")
    assert 3 not in seen
    for name in whole:
        if name != "as many random places":  # the same noise for every batch
            close(parts[name]["auc"], whole[name]["auc"])


def test_three_measures_by_hand():
    maps = torch.tensor([[[4.0, 1.0], [3.0, 2.0]], [[0.0, 0.0], [1.0, 3.0]]])
    truth = torch.tensor([[[True, False], [False, True]], [[True, False], [True, False]]])
    found = compare.measure_maps(maps, truth)
    # First: 4 > 1, 4 > 3, 2 > 1, 2 < 3. Second: 0 = 0, 0 < 3, 1 > 0, 1 < 3.
    assert found["auc"].tolist() == [0.75, 0.375]
    assert found["mass"].tolist() == pytest.approx([6 / 10, 1 / 4])
    assert found["pointing"].tolist() == [1, 0]


# --- how LICNN's rule compares with plain ones ------------------------------------------------------------------------


def unit(x):
    return x / x.square().sum((-2, -1), keepdim=True).sqrt()


@pytest.mark.parametrize(("pooling", "seed"), [("gap", 0), ("gmp", 1)])
def test_the_rules_agree_by_hand(pooling, seed):
    model, x, labels = tiny(seed=seed, pooling=pooling), noise(3, 3, 12, 12), torch.tensor([2, 0, 7])
    with assert_untouched(model):
        rows = A.agreement(model, x, labels)
    # The Max-C maps: the gradient of log p - log(1 - p), which is z_c - log of the others' sum of exponentials.
    maps = [model.conv1(x).relu()]
    maps.append(model.conv2(model.pool1(maps[0])).relu())
    logits = model.fc(maps[1].mean((2, 3)) if pooling == "gap" else F.adaptive_max_pool2d(maps[1], 1).flatten(1))
    others = logits.clone()
    others[torch.arange(3), labels] = -math.inf
    odds = logits[torch.arange(3), labels] - others.logsumexp(1)
    contributions = [g.amax(1) for g in torch.autograd.grad(odds.sum(), maps)]
    assert len(rows) == 2
    for row, g, side in zip(rows.values(), contributions, (12, 6), strict=True):
        g = unit(g)
        both = [slow_inhibition(one) for one in g]
        ours = g > unit(torch.stack([one for one, _ in both]))
        terms = torch.stack([one for _, one in both], 1)  # (2, N, h, w)
        average, plain = g > unit(terms[0]), g > g.square().mean((1, 2), keepdim=True).sqrt()
        assert row["side"] == side
        wanted = {
            "agree": (ours == plain).double().mean(),
            "average agrees": (average == plain).double().mean(),
            "iou": (ours & plain).sum() / (ours | plain).sum(),
            "kept": ours.double().mean(),
            "kept by RMS": plain.double().mean(),
            "average least": terms[0].min(),
            "average greatest": terms[0].max(),
            "difference": terms[1].sum() / terms.sum(),
        }
        assert list(row) == ["side", *wanted]
        for name, value in wanted.items():
            assert row[name] == pytest.approx(value.item(), rel=1e-6), name
        beyond = bool((plain & ~ours).any())
        assert beyond == (pooling == "gmp" and side == 12)  # else the union is LICNN's own places
    json.dumps(rows, allow_nan=False)
    assert len({row["agree"] for row in rows.values()}) == 2


# --- two objects ------------------------------------------------------------------------------------------------------


def test_pairs_are_the_scenes_with_two_classes():
    found, drawn = two_object_scenes(40, 9), scenes(40, 9, objects=2)
    kept = [k for k in range(40) if drawn.labels[k, 0] != drawn.labels[k, 1]]
    assert 25 < len(kept) < 40
    for one, all_of_them in zip(found, drawn, strict=True):
        torch.testing.assert_close(one, all_of_them[kept], rtol=0, atol=0, equal_nan=True)
    assert (found.labels >= 0).all()


def test_whose_object_a_map_lies_on(monkeypatch):
    monkeypatch.setattr(A, "BATCH", 2)
    masks = torch.zeros(3, 2, 4, 4, dtype=torch.bool)
    masks[:, 0, :, 0] = True  # four pixels
    masks[:, 1, 1:3, 3] = True  # two pixels
    labels = torch.tensor([[5, 2], [1, 3], [4, 0]])
    large, small = masks[0, 0].double(), masks[0, 1].double()
    maps = {
        (0, 5): large,  # 1 on its own object, 0 on the other
        (0, 2): large,  # 0 on its own, 1 on the other
        (1, 1): 3 * large + 5 * small,  # sums of 12 and 10, but means of 3 and 5: the other one's
        (1, 3): 3 * large + 5 * small,  # the same map, and the second object is its own
        (2, 4): torch.full((4, 4), 0.3, dtype=torch.float64),  # 0.3 and 0.3: a tie
        (2, 0): small - 2 * large,  # 1 against -2
    }
    x = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    sizes = []

    def method(model, x, target):
        sizes.append(len(x))
        return torch.stack([maps[int(n), int(c)] for n, c in zip(x[:, 0, 0, 0], target, strict=True)])

    found = compare.two_object_test(nn.Identity(), x, labels, masks, method)
    assert found.tolist() == [[1, 0], [0, 1], [0.5, 1]]
    assert found.dtype == torch.float64
    assert sizes == [2, 1, 2, 1]


# --- the naive version ------------------------------------------------------------------------------------------------


class Vgg(nn.Module):
    """A network with linear layers, and ReLUs of theirs, behind its features."""

    def __init__(self, classes=9):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(5, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(72, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, classes))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


@pytest.fixture
def vgg():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return Vgg().double().eval()


@pytest.mark.parametrize("shape", [(2, 9, 7), (1, 3, 12)])
def test_unfolding_is_equation_3(shape):
    x = noise(*shape, seed=6)
    kept = x.clone()
    found = naive.inhibition_by_unfolding(x)
    assert x.equal(kept)
    close(found, torch.stack([slow_inhibition(one)[0] for one in x]), 1e-12)
    close(naive.inhibition_by_unfolding(x.float()), found.float(), 1e-5)


def test_step_by_step_is_the_attention_map(vgg):
    x, target = noise(3, 3, 16, 20), torch.tensor([1, 8, 4])
    found = naive.attention_by_steps(vgg, x, target)
    assert found.shape == (3, 16, 20)
    assert not found.requires_grad
    close(found, attention_map(vgg, x, target), 1e-6)
    close(found.square().sum((1, 2)), torch.ones(3, dtype=torch.float64))
    assert not any(module._forward_hooks for module in vgg.modules())
    assert (found - naive.attention_by_steps(vgg, x, torch.tensor([0, 0, 0]))).abs().max() > 1e-3
    # The masks do something: without them the map is another.
    assert (found - attention_map(vgg, x, target, suppress=None)).abs().max() > 1e-3


def test_class_by_class_is_the_saliency_map(vgg):
    x = noise(3, 3, 16, 20)
    found = naive.saliency_class_by_class(vgg, x, torch.tensor([0, 0, 0]))
    close(found, saliency_map(vgg, x), 1e-6)
    assert found.equal(naive.saliency_class_by_class(vgg, x, None))
    assert (found - saliency_map(vgg, x, top=4)).abs().max() > 1e-4
    close(found.square().sum((1, 2)), torch.ones(3, dtype=torch.float64))


# --- the record's arithmetic ------------------------------------------------------------------------------------------


def test_a_summary_by_hand():
    # 1, 2, 3, 4: squares of the differences to 2.5 add up to 5, so that the error is sqrt(5 / 3) / sqrt(4).
    found = L.summary(torch.tensor([1.0, NAN, 2.0, 3.0, 4.0, NAN]))
    assert found == {"mean": 2.5, "error": pytest.approx(math.sqrt(5 / 12))}
    one = L.summary(torch.tensor([NAN, 7.0]))
    assert one["mean"] == 7
    assert math.isnan(one["error"])
    none = L.summary(torch.tensor([NAN, NAN]))
    assert math.isnan(none["mean"])
    assert math.isnan(none["error"])
    assert math.isnan(L.summary(torch.zeros(0))["mean"])
    assert L.summary(torch.tensor([0.5, 0.5])) == {"mean": 0.5, "error": 0.0}
    assert L.summary(torch.tensor([16777217, 16777219], dtype=torch.float64))["mean"] == 16777218
    assert L.summary(torch.full((1000,), 0.1))["mean"] == pytest.approx(0.1, abs=1e-8)
    assert {type(value) for value in found.values()} <= {float}


def test_differences_to_the_first_row_are_taken_in_pairs():
    rows = {
        "a": {"m": torch.tensor([1.0, 2.0, 6.0]), "n": torch.tensor([0.0, 1.0, 1.0])},
        "b": {"m": torch.tensor([2.0, 3.0, 7.0]), "n": torch.tensor([1.0, NAN, 0.0])},
    }
    found = L.against_first(rows)
    assert list(found) == ["a", "b"]
    assert found["a"]["m"]["mean"] == 3
    assert found["a"]["m"]["more"] == {"mean": 0, "error": 0}
    assert found["b"]["m"]["mean"] == 4
    assert found["b"]["m"]["error"] == pytest.approx(math.sqrt(7 / 3))  # (4 + 1 + 9) / 2 / 3
    assert found["b"]["m"]["more"] == {"mean": 1, "error": 0}  # each image by 1: no spread at all
    # 1 - 0 and 0 - 1; the image without a value is left out of both.
    assert found["b"]["n"]["more"] == {"mean": 0, "error": pytest.approx(1)}
    assert found["b"]["n"]["mean"] == 0.5


def test_images_evenly_spaced():
    x, y = torch.arange(10), torch.arange(10) * 2
    found = L.spread_over(4, (x, y))
    assert [one.tolist() for one in found] == [[0, 2, 5, 7], [0, 4, 10, 14]]
    assert L.spread_over(10, (x,))[0].equal(x)
    assert L.spread_over(1, (x,))[0].tolist() == [0]


def test_no_image_counts_twice():
    assert L.spread_over(6, (torch.arange(4),))[0].tolist() == [0, 1, 2, 3]


# --- images -----------------------------------------------------------------------------------------------------------


def photos(n=12):
    """Photographs whose boxes grow: the k-th covers k / n of the image."""
    draw = torch.Generator().manual_seed(3)
    boxes = torch.tensor([[0.0, 0, 16, 16 * (k + 1) / n] for k in range(n)])
    images = torch.randint(0, 256, (n, 3, 16, 16), generator=draw).byte()
    return Photos(images, torch.arange(n) % 8, boxes, tuple("abcdefgh"), tuple("abcdefgh"))


@pytest.fixture
def no_data(monkeypatch):
    """Made-up photographs in place of Tiny ImageNet's, and tiny networks in place of the book's."""
    asked = []

    def loaded(split, classes):
        asked.append((split, classes))
        return photos()

    monkeypatch.setattr(L, "tiny_imagenet", loaded)
    return asked


def test_photographs_as_a_network_sees_them(no_data):
    x, labels, truth = L.photographs("photos-gap", CPU)
    assert no_data == [("val", RECIPES["photos-gap"].classes)]
    found = photos()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    close(x, (found.images.float() / 255 - mean) / std, 1e-6)
    assert labels.equal(found.labels)
    # Rows whose centre lies above 16 (k + 1) / 12: row r does if r + 0.5 is less.
    rows = [sum(r + 0.5 < 16 * (k + 1) / 12 for r in range(16)) for k in range(12)]
    assert truth.dtype == torch.bool
    assert truth.sum((1, 2)).tolist() == [16 * r for r in rows]
    assert truth[0, 0].all()
    assert not truth[0, 8].any()
    L.photographs("photos-200", CPU)
    assert no_data[1] == ("val", None)  # all of them


def test_images_hold_objects_that_do_not_fill_them(no_data):
    x, labels, truth = L.images_of("photos-gap", 3, CPU)
    # Boxes of 1 to 5 twelfths lie below a half (the sixth is one); three of five, evenly: 0, 1 and 3.
    assert labels.tolist() == [0, 1, 3]
    close(x, L.photographs("photos-gap", CPU)[0][[0, 1, 3]])
    assert truth.sum((1, 2)).tolist() == [16, 16 * 3, 16 * 5]


@pytest.mark.parametrize("name", L.SCENE_NETWORKS)
def test_scenes_are_drawn_for_the_scene_networks(name):
    x, labels, truth = L.images_of(name, 5, CPU)
    found = scenes(5, L.SEED)
    close(x, (found.images - 0.5) / 0.25, 1e-6)
    assert labels.equal(found.labels[:, 0])
    assert truth.equal(found.masks[:, 0])


@pytest.mark.parametrize("make", [tiny, LeNet])
def test_the_last_maps_are_not_behind_a_linear_layer(make):
    assert L.last_maps(make()) == "relu2"


# --- the parts of the record ------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_networks(monkeypatch, no_data):
    """Every network of the book is a tiny one with random weights."""
    made = {}

    def load(name, device):
        if name == "lenet-mnist":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return made.setdefault(name, LeNet().to(device).eval())
        pooling = "gmp" if "gmp" in name else "gap"
        return made.setdefault(name, with_card(name if name.startswith("scenes") else "photos-gap", pooling=pooling))

    monkeypatch.setattr(L.networks, "load", load)
    draw = torch.Generator().manual_seed(5)
    digits = Digits(torch.rand(10, 1, 28, 28, generator=draw), torch.arange(10), torch.full((10,), -1))
    monkeypatch.setattr(L, "mnist", lambda split: {"test": digits}[split])
    return made


def test_the_parts_of_the_rule_on_scenes(monkeypatch, tiny_networks):
    monkeypatch.setattr(L, "IMAGES", 4)
    found = L.parts_of_the_rule("scenes-gap", CPU)
    model = tiny_networks["scenes-gap"]
    x, labels, truth = L.images_of("scenes-gap", 4, CPU)
    assert found["images"] == 4
    assert found["area"] == pytest.approx(truth.double().mean().item())
    assert found["masks"] == A.agreement(model, x, labels)
    maps = compare.compare_attention(model, x, labels, truth, "relu2")
    for name, row in maps.items():
        for measure, values in row.items():
            one = found["maps"][name][measure]
            more = (values - maps["LICNN"][measure]).double()
            assert one["mean"] == pytest.approx(np.mean(values.tolist()))
            assert one["error"] == pytest.approx(scipy.stats.sem(values.double().numpy()), abs=1e-9)
            assert one["more"]["mean"] == pytest.approx(more.mean().item(), abs=1e-9)
    two = two_object_scenes(4, L.SEED)
    x = (two.images - 0.5) / 0.25
    named = {name: partial(attention_map, **options) for name, options in KNOWN_VARIANTS.items()}
    sizes = ("|gradient|", "gradient x input", "integrated gradients", "Grad-CAM")
    others = {name: known_methods("relu2")[name] for name in sizes}
    others["|guided backprop|"] = lambda m, x, c: saliency.guided_backprop(m, x, c).abs().amax(1)
    assert list(found["two objects"]) == [*named, *others, "CAM"]
    for name, method in (named | others).items():
        own = []
        for n in range(len(two.labels)):
            for k in range(2):
                one = method(model, x[n : n + 1], two.labels[n : n + 1, k])[0].double()
                means = [one[mask].mean().item() for mask in two.masks[n]]
                own.append(0.5 if means[0] == means[1] else float(means[k] > means[1 - k]))
        if name != "as many random places":  # other noise for another number of images
            assert found["two objects"][name]["own"]["mean"] == pytest.approx(np.mean(own)), name


def test_the_parts_of_the_rule_on_photographs(monkeypatch, tiny_networks):
    monkeypatch.setattr(L, "IMAGES", 3)
    found = L.parts_of_the_rule("photos-gmp", CPU)
    assert list(found) == ["images", "area", "masks", "maps"]
    assert found["images"] == 3
    assert found["area"] == pytest.approx((1 + 3 + 5) / 3 / 16)


@pytest.mark.parametrize(("name", "layers"), [("scenes-gap", ["fc", "conv2", "conv1"]), ("lenet-mnist", None)])
def test_a_network_is_checked(monkeypatch, tiny_networks, name, layers):
    monkeypatch.setattr(L, "CHECKED", 2)
    monkeypatch.setattr(L, "SEEDS", (0, 4))
    asked = []

    def few(layer):
        asked.append(layer)
        return {
            "|gradient|": compare.attribution_methods(layer)["|gradient|"],
            "Grad-CAM": compare.attribution_methods(layer)["Grad-CAM"],
        }

    did = []

    def check(method, model, x, labels, *, order, redraw, seed):
        did.append((order, redraw, seed))
        return sanity_check(method, model, x, labels, order=order, redraw=redraw, seed=seed)

    monkeypatch.setattr(L, "attribution_methods", few)
    monkeypatch.setattr(L, "sanity_check", check)
    found = L.checked(name, CPU)
    assert asked == ["relu2"]
    assert found["images"] == 2
    layers = layers or ["fc3", "fc2", "fc1", "conv2", "conv1"]
    assert [one.rstrip("0123456789") for one in found["layers"]] == [one.rstrip("0123456789") for one in layers]
    assert [(run["order"], run["redraw"], run["seed"]) for run in found["runs"]] == [
        ("cascading", "initial", 0),
        ("cascading", "initial", 4),
        ("independent", "initial", 0),
        ("cascading", "shuffled", 0),
    ]
    for run in found["runs"]:
        assert list(run["similarity"]) == ["|gradient|", "Grad-CAM"]
        for row in run["similarity"].values():
            assert list(row) == ["spearman", "spearman_abs", "ssim", "hog"]
            assert all(len(steps) == len(layers) for steps in row.values())
            assert all(set(step) == {"mean", "error"} for steps in row.values() for step in steps)
    for row in found["floors"].values():
        assert set(row) == {"edges", "permuted", "another image"}
    json.dumps(_plain(found), allow_nan=False)
    given = [(row["order"], row["redraw"], row["seed"]) for row in found["runs"]]
    assert did == [one for one in given for _ in range(2)]  # the options that the record names are those of the runs
    # One number by hand: maps of the network and of one that forgot its last layer, image by image.
    model = tiny_networks[name]
    if name == "lenet-mnist":
        digits = L.mnist("test")
        x, labels = digits.images[[0, 5]], digits.labels[[0, 5]]
    else:
        x, labels, _ = L.images_of(name, 2, CPU)
    # The floors are those of the last run; only "permuted" depends on its seed.
    for key, method in few("relu2").items():
        floors = sanity_check(method, model, x, labels, seed=0).baselines
        for kind, part in floors.items():
            for measure, values in part.items():
                there = [value for value in values.tolist() if value == value]
                wanted = pytest.approx(np.mean(there) if there else NAN, abs=1e-6, nan_ok=True)
                assert found["floors"][key][kind][measure]["mean"] == wanted
    run = next(run for run in found["runs"] if run["seed"] == 4)
    _, forgotten = next(cascading_randomization(model, seed=4))
    maps = [saliency.class_saliency(one, x, labels).flatten(1).numpy() for one in (model, forgotten)]
    wanted = [scipy.stats.spearmanr(a, b)[0] for a, b in zip(*maps, strict=True)]
    assert run["similarity"]["|gradient|"]["spearman"][0]["mean"] == pytest.approx(np.mean(wanted), abs=1e-5)


class FakeRun:
    """What a training leaves of its run."""

    def __init__(self, recipe, found, seed, folder, machine):
        self.asked, self.did = (recipe, found, seed, folder, machine.device), []
        self.checkpoint, self.model = folder / "checkpoint.pt", nn.Dropout()
        self.model.run = self

    def resume(self):
        self.did.append("resume")

    def train(self, progress=True):
        self.did.append(("train", progress))


def test_a_training_goes_on_where_it_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(L.train, "Run", FakeRun)
    monkeypatch.setattr(L, "world", lambda recipe, seed: (recipe.name, seed))
    folder = tmp_path / "scenes-few" / "seed-2"
    recipe = RECIPES["scenes-few"]
    model = L.trained("scenes-few", 2, tmp_path, CPU)
    assert model.run.asked == (recipe, ("scenes-few", 2), 2, folder, CPU)
    assert model.run.did == [("train", False)]
    assert not model.training
    folder.mkdir(parents=True)
    model.run.checkpoint.touch()
    assert L.trained("scenes-few", 2, tmp_path, CPU).run.did == ["resume", ("train", False)]


class Known(nn.Module):
    """A network whose maps are known."""

    def __init__(self, maps):
        super().__init__()
        self.relu4, self.maps = nn.ReLU(), maps


def spearman(a, b):
    return np.mean([scipy.stats.spearmanr(p.flatten(), q.flatten())[0] for p, q in zip(a, b, strict=True)])


def test_maps_of_networks_that_learned_by_heart(monkeypatch, tmp_path):
    monkeypatch.setattr(L, "CHECKED", 2)
    made, seen = {}, []

    def trained(name, seed, out, device):
        assert (out, device) == (tmp_path, CPU)
        made[name, seed] = Known(noise(2, 64, 64, seed=10 * seed + (name == "scenes-permuted")))
        return made[name, seed]

    def methods(layer):
        assert layer == "relu4"
        return {"known": lambda model, x, labels: seen.append((x, labels)) or model.maps}

    monkeypatch.setattr(L, "trained", trained)
    monkeypatch.setattr(L, "attribution_methods", methods)
    found = L.learned_by_heart(tmp_path, CPU)
    assert set(made) == {(name, seed) for name in ("scenes-few", "scenes-permuted") for seed in (0, 1, 2)}
    assert found["images"] == 2
    fresh = scenes(2, L.SEED)
    for x, labels in seen:
        close(x, (fresh.images - 0.5) / 0.25, 1e-6)
        assert labels.equal(fresh.labels[:, 0])
    row = found["similarity"]["known"]
    assert set(row["true"]) == set(L.MEASURES)
    maps = {key: model.maps for key, model in made.items()}
    true = [spearman(maps["scenes-few", a], maps["scenes-few", b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    mixed = ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))  # never of the same initial weights
    permuted = [spearman(maps["scenes-few", a], maps["scenes-permuted", b]) for a, b in mixed]
    assert row["true"]["spearman"] == pytest.approx(true, abs=1e-9)
    assert row["permuted"]["spearman"] == pytest.approx(permuted, abs=1e-9)
    assert all(len(values) == 6 for values in row["permuted"].values())


class Half(nn.Module):
    """A network that knows half of the shapes."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):  # surer of bright images
        return torch.arange(4.0) * (1 + (x.mean((1, 2, 3)) > 0).float())[:, None]


@pytest.fixture
def halves(monkeypatch):
    """Networks that see their own shapes three times as bright as others, and a little of everything."""
    monkeypatch.setattr(L, "IMAGES", 16)
    monkeypatch.setattr(L, "SEEDS", (0, 5))
    monkeypatch.setattr(L, "BATCH", 5)
    asked = []

    def trained(name, seed, out, device):
        asked.append((name, seed))
        return Half(int(name == "scenes-last"))

    drawn = [scenes(16, L.SEED), two_object_scenes(32, L.SEED)]
    known = {}
    for found in drawn:
        seen = ((found.images * 255).round() / 255 - 0.5) / 0.25
        for x, labels, masks in zip(seen, found.labels, found.masks, strict=True):
            known[tuple(x[:, ::7, ::7].mul(100).round().int().flatten().tolist())] = labels, masks

    def seen_by(model, x, top):
        assert top == 1
        maps = []
        for one in x:
            labels, masks = known[tuple(one[:, ::7, ::7].mul(100).round().int().flatten().tolist())]
            own = (labels < 4) == (model.part == 0)
            level = torch.full((64, 64), 0.5)
            for mine, mask in zip(own, masks, strict=True):
                level[mask] = 3.0 if mine else 1.0
            maps.append(level)
        return torch.stack(maps)

    monkeypatch.setattr(L, "trained", trained)
    monkeypatch.setattr(L, "saliency_map", seen_by)
    return asked


def test_shapes_that_a_network_was_never_trained_on(halves, tmp_path):
    found = L.never_trained(tmp_path, CPU)
    assert halves[:4] == [(name, seed) for seed in (0, 5) for name in ("scenes-first", "scenes-last")]
    assert halves[4:] == [("scenes-beside", 0), ("scenes-beside", 1)]
    assert [row["seed"] for row in found["beside"]] == [0, 1]
    first = found["runs"][0]["two objects"]["scenes-first"]  # this fake sees the same in its own shapes
    assert all({"seed": row["seed"]} | first == row for row in found["beside"])
    drawn, two = scenes(16, L.SEED), two_object_scenes(32, L.SEED)
    mixed = [k for k, (a, b) in enumerate(two.labels.tolist()) if (a < 4) != (b < 4)]
    assert found["images"] == 16
    assert found["pairs"] == len(mixed) > 10
    assert len(CLASSES) == 8
    # The likeliest of four classes has exp(3) / (1 + e + ...), or exp(6) / (1 + exp(2) + ...) in bright images.
    likeliest = [math.exp(3 * s) / sum(math.exp(k * s) for k in range(4)) for s in (1, 2)]
    sure = [likeliest[int(two.images[k].mean() > 0.5)] for k in mixed]
    assert len(set(sure)) == 2
    area = drawn.masks[:, 0].double().sum((1, 2))
    own, other = (v * area / (v * area + 0.5 * (4096 - area)) for v in (3, 1))
    assert [row["seed"] for row in found["runs"]] == [0, 5]
    for row in found["runs"]:
        one = row["one object"]
        assert list(one) == ["trained", "not trained"]
        assert one["trained"]["mass"]["mean"] == pytest.approx(own.mean().item(), rel=1e-5)
        assert one["not trained"]["mass"]["mean"] == pytest.approx(other.mean().item(), rel=1e-5)
        more = (other - own).numpy()
        assert one["not trained"]["mass"]["more"]["mean"] == pytest.approx(more.mean(), rel=1e-5)
        assert one["not trained"]["mass"]["more"]["error"] == pytest.approx(scipy.stats.sem(more), rel=1e-4)
        assert one["trained"]["pointing"]["mean"] == 1
        assert list(row["two objects"]) == ["scenes-first", "scenes-last"]
        for part, name in enumerate(("scenes-first", "scenes-last")):
            dense = {3: [], 1: []}
            for k in mixed:
                sizes = two.masks[k].double().sum((1, 2))
                bright = [3 if (c >= 4) == part else 1 for c in two.labels[k].tolist()]
                total = sum(v * n for v, n in zip(bright, sizes, strict=True)) + 0.5 * (4096 - sizes.sum())
                for v, n in zip(bright, sizes, strict=True):
                    dense[v].append((v * n / total / (n / 4096)).item())
            given = row["two objects"][name]
            assert given["trained"]["mean"] == pytest.approx(np.mean(dense[3]), rel=1e-5)
            assert given["trained"]["error"] == pytest.approx(scipy.stats.sem(dense[3]), rel=1e-4)
            assert given["not trained"]["mean"] == pytest.approx(np.mean(dense[1]), rel=1e-5)
            assert given["trained denser"] == {"mean": 1, "error": 0}
            assert given["sure"] == pytest.approx(np.mean(sure), rel=1e-5)
    json.dumps(found, allow_nan=False)


# --- the whole record -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_record(monkeypatch, tiny_networks, tmp_path):
    for name, value in {"IMAGES": 3, "CHECKED": 2, "SEEDS": (0, 1), "SCENE_NETWORKS": ("scenes-gap",)}.items():
        monkeypatch.setattr(L, name, value)
    few = ("|gradient|", "Grad-CAM", "LICNN")
    monkeypatch.setattr(
        L, "attribution_methods", lambda layer: {name: compare.attribution_methods(layer)[name] for name in few}
    )
    monkeypatch.setattr(
        L,
        "trained",
        lambda name, seed, out, device: tiny(
            4 if name in ("scenes-first", "scenes-last", "scenes-beside") else 8, seed, kind=None
        ),
    )
    empty = LabeledImages(torch.zeros(0, 1, 2, 2).byte(), torch.zeros(0).long())

    def held(recipe):
        images = torch.full((2, 3, 2, 2), len(recipe.name), dtype=torch.uint8)
        return DataSplit(empty, {"test": LabeledImages(images, torch.arange(2))}, (), "")

    monkeypatch.setattr(L, "held_out", held)
    return L.record(tmp_path, CPU)


def test_the_whole_record(small_record):
    found = small_record
    assert list(found) == ["name", "command", "data", "facts", "rule", "sanity", "data test", "never trained"]
    assert found["name"] == "licnn"
    assert found["command"] == "python -m helpers.experiments.licnn --publish"
    assert set(found["data"]) == {"Tiny ImageNet", "MNIST"}
    assert all(len(digest) == 64 for digest in found["data"].values())  # tests/test_recorded.py reads them by name
    assert len(set(found["data"].values())) == 2
    assert list(found["rule"]) == ["scenes-gap", "photos-gap", "photos-gmp", "photos-200"]
    assert list(found["sanity"]) == ["scenes-gap", "photos-gap", "photos-gmp", "lenet-mnist"]
    assert "two objects" in found["rule"]["scenes-gap"]
    assert "two objects" not in found["rule"]["photos-gap"]
    assert [row["seed"] for row in found["never trained"]["runs"]] == [0, 1]
    assert list(found["data test"]["similarity"]) == ["|gradient|", "Grad-CAM", "LICNN"]
    text = json.dumps(_plain(found), allow_nan=False)
    assert json.loads(text)["rule"]["scenes-gap"]["images"] == 3


def test_the_command_line_writes_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(L, "record", lambda out, device: {"out": out.name, "device": device.type, "no": NAN})
    assert L.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "runs" / "licnn.json").read_text(encoding="utf8"))
    assert found == {"out": "runs", "device": "cpu", "no": None}


def test_without_the_data_the_command_line_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    assert L.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("error: Tiny ImageNet is not in")
