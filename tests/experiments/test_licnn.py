"""The long run of chapter 5: its images, and the arithmetic of its record on small cases, by hand."""

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from support.licnn import KNOWN_VARIANTS, close, known_methods, noise, tiny_network
from support.rows import assert_same_form, pick, select
from support.searched import held
from torch import nn

from helpers import compare, networks, results, saliency
from helpers.data import CLASSES, Digits, scenes, two_object_scenes
from helpers.experiments import licnn as L
from helpers.experiments.objects import ObjectImages
from helpers.licnn import attention_map, rule_agreement
from helpers.networks import LeNet, SmallVGG
from helpers.sanity import cascading_randomization, sanity_check

CPU = torch.device("cpu")
NAN = float("nan")


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_leads_over_the_first_row_are_taken_in_pairs():
    scores = {
        "a": {"m": torch.tensor([1.0, 2.0, 6.0]), "n": torch.tensor([0.0, 1.0, 1.0])},
        "b": {"m": torch.tensor([2.0, 3.0, 7.0]), "n": torch.tensor([1.0, NAN, 0.0])},
    }
    rows = L.score_rows(scores, "toy", "method", network="net")
    assert set(select(rows)["network"]) == {"net"}
    mean, lead = (partial(pick, rows, table=table) for table in ("toy", "toy_lead"))
    assert mean(method="a", metric="m")["value"] == 3
    assert lead(method="a", metric="m")[["value", "error"]].tolist() == [0, 0]
    assert mean(method="b", metric="m")["value"] == 4
    assert mean(method="b", metric="m")["error"] == pytest.approx(math.sqrt(7 / 3))  # (4 + 1 + 9) / 2 / 3
    assert lead(method="b", metric="m")[["value", "error"]].tolist() == [1, 0]  # each image by 1: no spread at all
    # 1 - 0 and 0 - 1; the image without a value is left out of both.
    assert lead(method="b", metric="n")[["value", "error"]].tolist() == [0, pytest.approx(1)]
    assert mean(method="b", metric="n")["value"] == 0.5


# --- images -----------------------------------------------------------------------------------------------------------


def photographs(name, device):
    """Photographs whose boxes grow: the k-th covers k + 1 of 12 columns, rounded."""
    masks = torch.zeros(12, 16, 16, dtype=torch.bool)
    for k in range(12):
        masks[k, : round(16 * (k + 1) / 12)] = True
    return ObjectImages(noise(12, 3, 16, 16, seed=3).float(), torch.arange(12) % 8, masks)


@pytest.fixture
def no_data(monkeypatch):
    """Made-up photographs in place of Tiny ImageNet's."""
    monkeypatch.setattr(L, "photographs", photographs)


def test_images_hold_objects_that_do_not_fill_them(no_data):
    x, labels, masks = L.images_of("photos-gap", 3, CPU)
    # Boxes of 1 to 5 twelfths lie below a half (the sixth is one); three of five, evenly: 0, 1 and 3.
    assert labels.tolist() == [0, 1, 3]
    assert x.equal(photographs("", CPU).x[[0, 1, 3]])
    assert masks.sum((1, 2)).tolist() == [16, 16 * 3, 16 * 5]


@pytest.mark.parametrize("name", L.SCENE_NETWORKS)
def test_scenes_are_drawn_for_the_scene_networks(name):
    x, labels, masks = L.images_of(name, 5, CPU)
    drawn = scenes(5, L.SEED)
    close(x, (drawn.images - 0.5) / 0.25, 1e-6)
    assert labels.equal(drawn.labels[:, 0])
    assert masks.equal(drawn.masks[:, 0])


@pytest.mark.parametrize("make", [partial(SmallVGG, 8, stages=((4,), (6,))), LeNet])
def test_the_last_maps_are_not_behind_a_linear_layer(make):
    assert L.last_maps(make()) == "relu2"


# --- the rule ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_networks(monkeypatch, no_data):
    """Every network of the book is a tiny one with random weights; what was loaded, by name."""
    loaded = {}

    def load(name, device):
        if name not in loaded and name == "lenet-mnist":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                loaded[name] = LeNet().to(device).eval()
        elif name not in loaded:
            loaded[name] = tiny_network(pooling="gmp" if "gmp" in name else "gap", dtype=torch.float32)
            loaded[name].card = networks.card(name if name.startswith("scenes") else "photos-gap")
        return loaded[name]

    monkeypatch.setattr(L.networks, "load", load)
    draw = torch.Generator().manual_seed(5)
    digits = Digits(torch.rand(10, 1, 28, 28, generator=draw), torch.arange(10), torch.full((10,), -1))
    monkeypatch.setattr(L, "mnist", lambda split: {"test": digits}[split])
    return loaded


@pytest.fixture(scope="module")
def scene_rule():
    """A tiny network that passes for scenes-gap, and its rows for four scenes."""
    model = tiny_network(dtype=torch.float32)
    model.card = networks.card("scenes-gap")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L.networks, "load", lambda name, device: model)
        patch.setattr(L, "IMAGES", 4)
        return model, results.frame(L.rule_rows("scenes-gap", CPU))


def test_the_parts_of_the_rule_on_scenes(scene_rule):
    model, rows = scene_rule
    assert set(select(rows)["network"]) == {"scenes-gap"}
    x, labels, masks = L.images_of("scenes-gap", 4, CPU)
    area = pick(rows, table="area")
    assert (area["value"], area["n"]) == (pytest.approx(masks.double().mean().item()), 4)
    for layer, row in rule_agreement(model, x, labels).items():
        for metric, value in row.items():
            assert pick(rows, table="agreement", layer=layer, metric=metric)["value"] == value
    scores = compare.compare_attention(model, x, labels, masks, layer="relu2")
    assert set(select(rows, table="maps", set="one object")["method"]) == set(scores)
    for name, row in scores.items():
        for metric, values in row.items():
            where = {"set": "one object", "method": name, "metric": metric}
            mean = pick(rows, table="maps", **where)
            assert mean["value"] == pytest.approx(np.mean(values.tolist()))
            assert mean["error"] == pytest.approx(scipy.stats.sem(values.double().numpy()), abs=1e-9)
            lead = (values - scores["LICNN"][metric]).double().mean().item()
            assert pick(rows, table="maps_lead", **where)["value"] == pytest.approx(lead, abs=1e-9)


def test_the_two_object_test_on_scenes(scene_rule):
    model, rows = scene_rule
    rows, two = select(rows, table="maps", set="two objects", metric="own"), two_object_scenes(4, L.SEED)
    x = (two.images - 0.5) / 0.25
    variants = {name: partial(attention_map, **options) for name, options in KNOWN_VARIANTS.items()}
    others = {
        name: known_methods("relu2")[name]
        for name in ("|gradient|", "gradient x input", "integrated gradients", "Grad-CAM")
    }
    others["|guided backprop|"] = lambda m, x, c: saliency.guided_backprop(m, x, c).abs().amax(1)
    assert list(rows["method"]) == [*variants, *others, "CAM"]
    for name, method in (variants | others).items():
        own = []
        for n in range(len(two.labels)):
            for k in range(2):
                maps = method(model, x[n : n + 1], two.labels[n : n + 1, k])[0].double()
                means = [maps[mask].mean().item() for mask in two.masks[n]]
                own.append(0.5 if means[0] == means[1] else float(means[k] > means[1 - k]))
        if name != "as many random places":  # other noise for another number of images
            assert pick(rows, method=name)["value"] == pytest.approx(np.mean(own)), name


# --- sanity checks ----------------------------------------------------------------------------------------------------


def few_methods(layer):
    methods = compare.attribution_methods(layer=layer)
    return {name: methods[name] for name in ("|gradient|", "Grad-CAM")}


@pytest.mark.parametrize(
    ("name", "layers"),
    [("scenes-gap", ["fc", "conv2", "conv1"]), ("lenet-mnist", ["fc3", "fc2", "fc1", "conv2", "conv1"])],
)
def test_a_network_is_checked(monkeypatch, tiny_networks, name, layers):
    monkeypatch.setattr(L, "CHECKED", 2)
    monkeypatch.setattr(L, "SEEDS", (0, 4))
    monkeypatch.setattr(L, "attribution_methods", few_methods)
    checks = []

    def checked(method, model, x, labels, **options):
        checks.append((tuple(options.values()), sanity_check(method, model, x, labels, **options)))
        return checks[-1][1]

    monkeypatch.setattr(L, "sanity_check", checked)
    rows = L.sanity_rows(name, CPU)
    runs = [
        ("cascading", "initial", 0),
        ("cascading", "initial", 4),
        ("independent", "initial", 0),
        ("cascading", "shuffled", 0),
    ]
    assert [options for options, _ in checks] == [run for run in runs for _ in range(2)]
    table = select(rows, table="sanity")
    assert len(table) == len(runs) * 2 * 4 * len(layers)  # methods, metrics
    for k, ((order, redraw, seed), check) in enumerate(checks):  # a row names the options that it was made with
        method = ("|gradient|", "Grad-CAM")[k % 2]
        for metric in ("spearman", "spearman_abs", "ssim", "hog"):
            part = select(table, variant=f"{order}, {redraw}", seed=seed, method=method, metric=metric)
            assert list(part["layer"]) == list(check.layers) == layers
            assert list(part["step"]) == list(range(len(layers)))
            expected = check.similarity[metric].double().nanmean(1).tolist()
            assert part["value"].tolist() == pytest.approx(expected, nan_ok=True)
    for method, (_, check) in zip(("|gradient|", "Grad-CAM"), checks[-2:], strict=True):
        for floor, part in check.baselines.items():  # those of the last run
            for metric, values in part.items():
                row = pick(rows, table="floors", method=method, set=floor, metric=metric)
                assert row.get("value", NAN) == pytest.approx(values.nanmean().item(), abs=1e-6, nan_ok=True)
    # One number by hand: maps of the network and of one that forgot its last layer, image by image.
    model = tiny_networks[name]
    if name == "lenet-mnist":
        digits = L.mnist("test")
        x, labels = digits.images[[0, 5]], digits.labels[[0, 5]]
    else:
        x, labels, _ = L.images_of(name, 2, CPU)
    _, forgotten = next(cascading_randomization(model, seed=4))
    maps = [saliency.class_saliency(network, x, labels).flatten(1).numpy() for network in (model, forgotten)]
    by_hand = np.mean([scipy.stats.spearmanr(a, b)[0] for a, b in zip(*maps, strict=True)])
    first = pick(table, seed=4, method="|gradient|", metric="spearman", step=0)
    assert first["value"] == pytest.approx(by_hand, abs=1e-5)


# --- permuted labels --------------------------------------------------------------------------------------------------


class Known(nn.Module):
    """A network whose maps are known."""

    def __init__(self, maps):
        super().__init__()
        self.relu4, self.maps = nn.ReLU(), maps


def spearman(a, b):
    return np.mean([scipy.stats.spearmanr(p.flatten(), q.flatten())[0] for p, q in zip(a, b, strict=True)])


def test_maps_of_networks_that_learned_by_heart(monkeypatch, tmp_path):
    monkeypatch.setattr(L, "CHECKED", 2)
    maps, seen = {}, []

    def trained(name, seed, out, device):
        assert (out, device) == (tmp_path, CPU)
        maps[name, seed] = noise(2, 64, 64, seed=10 * seed + (name == "scenes-permuted"))
        return Known(maps[name, seed])

    def methods(layer):
        assert layer == "relu4"
        return {"known": lambda model, x, labels: seen.append((x, labels)) or model.maps}

    monkeypatch.setattr(L, "trained", trained)
    monkeypatch.setattr(L, "attribution_methods", methods)
    rows = L.label_rows(tmp_path, CPU)
    assert set(maps) == {(name, seed) for name in ("scenes-few", "scenes-permuted") for seed in (0, 1, 2)}
    drawn = scenes(2, L.SEED)
    for x, labels in seen:
        close(x, (drawn.images - 0.5) / 0.25, 1e-6)
        assert labels.equal(drawn.labels[:, 0])
    pairs = {"true": ((0, 1), (0, 2), (1, 2)), "permuted": ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))}
    for (kind, part), other in zip(pairs.items(), ("scenes-few", "scenes-permuted"), strict=True):
        expected = [spearman(maps["scenes-few", a], maps[other, b]) for a, b in part]  # never of one seed
        table = select(rows, table="labels", variant=kind, method="known", metric="spearman")
        assert table["value"].tolist() == pytest.approx(expected, abs=1e-9)
        assert set(select(rows, variant=kind)["metric"]) == {"spearman", "spearman_abs", "ssim", "hog"}


# --- shapes that a network never saw ----------------------------------------------------------------------------------


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

    def fingerprint(x):
        return tuple(x[:, ::7, ::7].mul(100).round().int().flatten().tolist())

    known = {}
    for drawn in (scenes(16, L.SEED), two_object_scenes(32, L.SEED)):
        seen = ((drawn.images * 255).round() / 255 - 0.5) / 0.25
        for x, labels, masks in zip(seen, drawn.labels, drawn.masks, strict=True):
            known[fingerprint(x)] = labels, masks

    def seen_by(model, x, top):
        assert top == 1
        maps = torch.full((len(x), 64, 64), 0.5)
        for brightness, image in zip(maps, x, strict=True):
            labels, masks = known[fingerprint(image)]
            for mine, mask in zip((labels < 4) == (model.part == 0), masks, strict=True):
                brightness[mask] = 3.0 if mine else 1.0
        return maps

    monkeypatch.setattr(L, "trained", trained)
    monkeypatch.setattr(L, "saliency_map", seen_by)
    return asked


def test_shapes_that_a_network_was_never_trained_on(halves, tmp_path):
    rows = L.unseen_rows(tmp_path, CPU)
    assert halves[:4] == [(name, seed) for seed in (0, 5) for name in ("scenes-first", "scenes-last")]
    assert halves[4:] == [("scenes-beside", 0), ("scenes-beside", 1)]
    drawn = scenes(16, L.SEED)
    area = drawn.masks[:, 0].double().sum((1, 2))
    own, other = (v * area / (v * area + 0.5 * (4096 - area)) for v in (3, 1))
    lead = (other - own).numpy()
    for seed in (0, 5):
        of_seed = partial(pick, rows, seed=seed)
        assert of_seed(table="unseen", variant="trained", metric="mass")["value"] == pytest.approx(
            own.mean().item(), rel=1e-5
        )
        unknown = of_seed(table="unseen", variant="not trained", metric="mass")
        assert unknown["value"] == pytest.approx(other.mean().item(), rel=1e-5)
        more = of_seed(table="unseen_lead", variant="not trained", metric="mass")
        assert more["value"] == pytest.approx(lead.mean(), rel=1e-5)
        assert more["error"] == pytest.approx(scipy.stats.sem(lead), rel=1e-4)
        assert of_seed(table="unseen", variant="trained", metric="pointing")["value"] == 1


def test_one_shape_of_each_half(halves, tmp_path):
    table = select(L.unseen_rows(tmp_path, CPU), table="unseen_two")
    two = two_object_scenes(32, L.SEED)
    mixed = [k for k, (a, b) in enumerate(two.labels.tolist()) if (a < 4) != (b < 4)]
    assert len(CLASSES) == 8
    assert set(table["n"]) == {len(mixed)}
    assert len(mixed) > 10
    # The likeliest of four classes has exp(3) / (1 + e + ...), or exp(6) / (1 + exp(2) + ...) in bright images.
    likeliest = [math.exp(3 * s) / sum(math.exp(k * s) for k in range(4)) for s in (1, 2)]
    sure = [likeliest[int(two.images[k].mean() > 0.5)] for k in mixed]
    assert len(set(sure)) == 2
    asked = [(name, seed) for seed in (0, 5) for name in ("scenes-first", "scenes-last")]
    asked += [("scenes-beside", 0), ("scenes-beside", 1)]
    assert list(table[["network", "seed"]].drop_duplicates().itertuples(index=False, name=None)) == asked
    for name, seed in asked:
        dense = {3: [], 1: []}
        for k in mixed:
            sizes = two.masks[k].double().sum((1, 2))
            bright = [3 if (label >= 4) == (name == "scenes-last") else 1 for label in two.labels[k].tolist()]
            total = sum(v * n for v, n in zip(bright, sizes, strict=True)) + 0.5 * (4096 - sizes.sum())
            for v, n in zip(bright, sizes, strict=True):
                dense[v].append((v * n / total / (n / 4096)).item())
        known, unknown, denser, chance = (
            pick(table, network=name, seed=seed, metric=metric)
            for metric in ("trained", "not trained", "trained denser", "sure")
        )
        assert known["value"] == pytest.approx(np.mean(dense[3]), rel=1e-5)
        assert known["error"] == pytest.approx(scipy.stats.sem(dense[3]), rel=1e-4)
        assert unknown["value"] == pytest.approx(np.mean(dense[1]), rel=1e-5)
        assert (denser["value"], denser["error"]) == (1, 0)
        assert chance["value"] == pytest.approx(np.mean(sure), rel=1e-5)


# --- the whole record -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_record(monkeypatch, tiny_networks, tmp_path):
    for name, value in {"IMAGES": 3, "CHECKED": 2, "SCENE_NETWORKS": ("scenes-gap",)}.items():
        monkeypatch.setattr(L, name, value)
    monkeypatch.setattr(L, "attribution_methods", few_methods)

    def trained(name, seed, out, device):
        return tiny_network(4 if name in (*L.HALVES, L.BESIDE) else 8, seed, dtype=torch.float32)

    monkeypatch.setattr(L, "trained", trained)
    monkeypatch.setattr(L, "held_out", held)
    return L.record(tmp_path, CPU)


def test_the_record_has_the_form_of_the_published_one(small_record):
    header, rows = small_record
    published = results.read("licnn")
    assert header["command"] == published.attrs["command"] == "python -m helpers.experiments.licnn --publish"
    assert {key: sorted(header[key]) for key in ("data", "settings")} == {
        key: sorted(published.attrs[key]) for key in ("data", "settings")
    }
    assert len(set(header["data"].values())) == 2
    assert header["settings"]["images"] == 3
    assert_same_form(rows, "licnn", ways=("table", "variant", "metric"))  # few methods in "sanity" and "labels"
    assert set(select(rows, table="maps")["network"]) == {"scenes-gap", *L.PHOTO_NETWORKS}
    assert set(select(rows, table="maps")["method"]) == set(results.read("licnn", "maps")["method"])
    assert set(select(rows, table="sanity")["network"]) == {"scenes-gap", "photos-gap", "photos-gmp", "lenet-mnist"}
