"""The long runs of chapters 6 and 7: matched pairs, turns and zooms, searches, and the what/where model."""

import json
import math
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from support.untouched import assert_untouched
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from helpers import networks
from helpers.cam import grad_cam
from helpers.capture import activations
from helpers.data import DataMissing, Digits, Photos, digits, scenes
from helpers.experiments import matched_pairs as P
from helpers.experiments import retina as R
from helpers.experiments.run_files import RunError
from helpers.experiments.search import calibration as C
from helpers.experiments.search import maps as M
from helpers.experiments.search import record as S
from helpers.experiments.train.datasets import DataSplit, LabeledImages
from helpers.experiments.whatwhere import record as W
from helpers.experiments.whatwhere import saccades as V
from helpers.factors import deep_feature_factorization
from helpers.filters import blurred
from helpers.networks import SmallVGG
from helpers.retina import R_MIN, inverse_log_polar, log_polar
from helpers.search import POLICIES, Glimpses, WhatNet, WhereNet, expected_gain, fixation_grid, information_gain_bound

CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, kind=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(kind)


def beliefs(*shape, seed=0):
    """Log-probabilities."""
    return (2 * noise(*shape, seed=seed)).log_softmax(-1)


def whole_numbers(top, *shape, seed=0):
    return torch.randint(top, shape, generator=torch.Generator().manual_seed(seed))


def check(given, values):
    values = np.asarray([float(value) for value in values])
    assert given["mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert given["error"] == pytest.approx(scipy.stats.sem(values), abs=1e-6)


def means(rows):
    return [row["mean"] for row in rows]


class Middle(nn.Module):
    """Names the number that is written in the middle of what it sees."""

    def __init__(self, classes=5, name="scenes-disc"):
        super().__init__()
        self.classes, self.card = classes, networks.card(name)

    def forward(self, x):
        side = x.shape[-1] // 2
        said = x[:, 0, side - 2 : side + 2, side - 2 : side + 2].mean((1, 2)).round().long()
        return 9.0 * F.one_hot(said.clamp(0, self.classes - 1), self.classes)


def marked(side=32, half=4):
    """Four images with a square around whole pixels, in it the image's label, and the squares' middles."""
    labels, middle = torch.tensor([1, 2, 3, 4]), torch.tensor([[16, 16], [10, 20], [22, 8], [8, 16]])
    x = torch.zeros(4, 3, side, side)
    for image, label, (column, row) in zip(x, labels, middle.tolist(), strict=True):
        image[:, row - half : row + half, column - half : column + half] = label
    return P.Searched(x, labels, torch.cat([middle - half, middle + half], 1).double()), middle


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_only_the_first_seed_is_shipped(monkeypatch, tmp_path):
    asked = []
    cards = {name: networks.card(name) for members in P.PAIRS.values() for name in members}

    def load(name, device):
        asked.append(("load", name, device))
        return SimpleNamespace(card=cards[name], number=len(asked))

    def trained(name, seed, out, device):
        asked.append(("trained", name, seed, out, device))
        return SimpleNamespace(number=len(asked))

    monkeypatch.setattr(P.networks, "load", load)
    monkeypatch.setattr(P, "trained", trained)
    for kind in P.PAIRS:
        asked.clear()
        found = list(P.pair(kind, tmp_path, CPU))
        wanted = [(name, seed) for name in P.PAIRS[kind] for seed in P.SEEDS[kind]]
        assert [(name, seed) for name, seed, _ in found] == wanted
        assert asked == [
            ("load", name, CPU) if seed == 0 else ("trained", name, seed, tmp_path, CPU) for name, seed in wanted
        ]
        assert [model.number for *_, model in found] == list(range(1, len(wanted) + 1))
        assert all(model.card == cards[name] for name, _, model in found)


def test_members_of_a_pair_differ_in_what_they_see_alone():
    for one, other in (map(P.RECIPES.get, members) for members in P.PAIRS.values()):
        assert (one.view, other.view) == ("disc", "log-polar")
        assert (one.classes, one.mean, one.std, one.world) == (other.classes, other.mean, other.std, other.world)
        assert (one.epochs, one.lr, one.batch, one.images) == (other.epochs, other.lr, other.batch, other.images)
    for kind, members in P.PAIRS.items():
        assert all(P.SEEDS[kind][0] == P.RECIPES[name].seeds[0] for name in members)


def test_scenes_to_be_searched(monkeypatch):
    monkeypatch.setattr(P, "SCENES", 3)
    found, wanted = P.images("scenes", CPU), scenes(3, P.SEED, size=128, scale=(1 / 8, 1 / 4))
    torch.testing.assert_close(found.x, (wanted.images - 0.5) / 0.25)
    assert found.labels.equal(wanted.labels[:, 0])
    assert found.boxes.equal(wanted.boxes[:, 0])
    assert P.REACH["scenes"] == 0.5  # 64 of 128 pixels
    assert P.SEED > 10_000 + 1  # no test scenes


def test_photographs_to_be_searched(monkeypatch):
    images = whole_numbers(256, 2, 3, 64, 64).byte()
    boxes = torch.tensor([[0.0, 0, 64, 64], [3, 4, 20, 30]])
    asked = []

    def tiny_imagenet(split, classes):
        asked.append((split, classes))
        return Photos(images, torch.tensor([7, 3]), boxes, (), ())

    monkeypatch.setattr(P, "tiny_imagenet", tiny_imagenet)
    found = P.images("photos", CPU)
    assert asked == [("val", P.RECIPES["photos-disc"].classes)]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(found.x, (images / 255 - mean) / std)
    assert found.labels.tolist() == [7, 3]
    assert found.boxes.equal(boxes)


def test_missing_photographs_are_said_to_be_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    with pytest.raises(DataMissing):
        P.images("photos", CPU)


# --- turns, zooms and shifts ------------------------------------------------------------------------------------------


def slow(image, pixel, turn, zoom):
    """One channel (S, S) turned clockwise and zoomed about the corner between pixels size / 2 + pixel: loops."""
    size, result = len(image), torch.zeros_like(image)
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    for row in range(size):
        for column in range(size):
            x, y = column + 0.5 - size / 2, row + 0.5 - size / 2
            # Where it came from: turned back, shrunk back, and as far from the point as it is now from the middle.
            u = (x * cosine + y * sine) / zoom + size / 2 + pixel[0] - 0.5
            v = (-x * sine + y * cosine) / zoom + size / 2 + pixel[1] - 0.5
            left, top = math.floor(u), math.floor(v)
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                if 0 <= top + i < size and 0 <= left + j < size:
                    weight = (1 - abs(v - top - i)) * (1 - abs(u - left - j))
                    result[row, column] += weight * image[top + i, left + j]
    return result


@pytest.mark.parametrize(("turn", "zoom"), [(0.0, 1.0), (90.0, 1.0), (30.0, 1.0), (0.0, 2.0), (0.0, 0.5), (-20.0, 1.4)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_images_turn_and_zoom_about_a_point(turn, zoom, kind):
    x, size = noise(4, 2, 12, 12, kind=kind), 12
    pixels = torch.tensor([[0, 0], [3, -1], [-4, 2], [1, 5]])
    kept = x.clone()
    found = R.transformed(x, pixels * 2 / size, turn=turn, zoom=zoom)
    assert x.equal(kept)
    assert found.dtype == kind
    assert found.shape == x.shape
    axis = torch.arange(size) + 0.5 - size / 2
    # What lies farther from the point than half an image is cut off first; inside this disc it is not seen.
    disc = (axis.square() + axis[:, None].square()).sqrt() < (size / 2 - 1) * min(zoom, 1)
    for k, pixel in enumerate(pixels.tolist()):
        for c in range(2):
            wanted = slow(x[k, c], pixel, turn, zoom)
            torch.testing.assert_close(found[k, c][disc], wanted[disc], rtol=0, atol=1e-4)
    one = R.transformed(x[1:2], pixels[1:2] * 2 / size, turn=turn, zoom=zoom)
    torch.testing.assert_close(one, found[1:2])


@pytest.mark.parametrize(("turn", "zoom"), [(45.0, 1.0), (0.0, 1.41), (17.0, 0.7)])
def test_about_the_middle_it_is_torchvisions(turn, zoom):
    x = noise(2, 3, 10, 10)
    wanted = affine(x, turn, [0, 0], zoom, [0.0, 0.0], InterpolationMode.BILINEAR)
    torch.testing.assert_close(R.transformed(x, torch.zeros(2, 2), turn=turn, zoom=zoom), wanted)


def test_a_point_comes_to_the_middle_by_whole_pixels():
    x = noise(2, 1, 8, 8)
    # 0.3 * 4 = 1.2 and -0.8 * 4 = -3.2: 1 to the right, 3 up; beyond the edge is 0.
    found = R.transformed(x, torch.tensor([[0.3, -0.8], [1.0, -1.0]]))
    torch.testing.assert_close(found[0, 0, 3:, :7], x[0, 0, :5, 1:])
    assert not found[0, 0, :3].any()
    assert not found[0, 0, :, 7].any()
    torch.testing.assert_close(found[1, 0, 4:, :4], x[1, 0, :4, 4:])
    assert not found[1, 0, :4].any()


def test_where_the_gaze_belongs():
    found, middle = marked()
    assert R.middles(found, "scenes").equal(middle.double() / 16 - 1)
    assert R.middles(found, "photos").equal(torch.zeros(4, 2))
    odd = found._replace(boxes=torch.tensor([[0.0, 10, 5, 17]]), x=found.x[:1])
    assert R.middles(odd, "scenes").tolist() == [[2 / 16 - 1, 14 / 16 - 1]]  # 2.5 and 13.5 to whole pixels


def test_hits_through_another_view():
    found, _ = marked()

    def blank(x, fixations):
        return torch.full((len(x), 1, 3, 32, 32), 3.0)

    assert R.hits(Middle(), found, R.middles(found, "scenes"), "scenes", R.transformed, blank).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("name", ["scenes-disc", "scenes-logpolar"])
def test_hits_are_looks_at_changed_images(monkeypatch, name):
    monkeypatch.setattr(R, "BATCH", 3)
    found, _ = marked()
    model, at, seen = Middle(name=name), R.middles(found, "scenes"), []

    class Fovea(Middle):
        def forward(self, x):  # the last circles are those nearest to the gaze
            said = x[:, 0, -20:].mean((1, 2)).round().long().clamp(0, 4)
            return 9.0 * F.one_hot(said, 5)

    model = Fovea(name=name) if "polar" in name else model

    def change(x, p):
        seen.append((x, p))
        return R.transformed(x, p, turn=40.0)

    with assert_untouched(model):
        hits = R.hits(model, found, at, "scenes", change)
    assert hits.tolist() == [1, 1, 1, 1]
    assert hits.dtype == torch.float64
    assert [len(x) for x, _ in seen] == [3, 1]
    assert torch.cat([x for x, _ in seen]).equal(found.x)
    assert torch.cat([p for _, p in seen]).equal(at)
    # From the middle of the image only the first object, which lies there, is seen.
    assert R.hits(model, found, at, "scenes", lambda x, p: x).tolist() == [1, 0, 0, 0]
    wrong = found._replace(labels=torch.tensor([1, 3, 3, 1]))
    assert R.hits(model, wrong, at, "scenes", R.transformed).tolist() == [1, 0, 1, 0]


def test_looks_from_beside_the_middle(monkeypatch):
    asked = []

    def label_map(model, x, places, view):
        asked.append((model, x, places, view))
        # Image 0 is named rightly from the right and from below, image 1 from nowhere.
        right = (places[..., 0] > 0.01) | (places[..., 1] > 0.01)
        return torch.stack([~right, right], -1).double().log()

    monkeypatch.setattr(R, "label_map", label_map)
    monkeypatch.setattr(R, "viewer", lambda model, reach: (model, reach))
    found = P.Searched(torch.zeros(2, 3, 16, 16), torch.tensor([1, 1]), torch.zeros(2, 4))
    at = torch.tensor([[0.0, 0.0], [-0.75, -0.875]], dtype=torch.float64)
    assert R.displaced("net", found, at, "scenes", 4).tolist() == [0.5, 0]
    model, x, places, view = asked[0]
    assert (model, view) == ("net", ("net", 0.5))
    assert x is found.x
    # 4 of 8 pixels are 0.5: right, down, left, up; beyond the edge the gaze stays on it.
    wanted = [[[0.5, 0], [0, 0.5], [-0.5, 0], [0, -0.5]]]
    wanted += [[[-0.25, -0.875], [-0.75, -0.375], [-1, -0.875], [-0.75, -1]]]
    torch.testing.assert_close(places, torch.tensor(wanted, dtype=torch.float64))
    R.displaced("net", found, at, "photos", 0)
    assert asked[1][2].equal(at[:, None])
    assert asked[1][3] == ("net", 1.0)


def test_an_object_is_seen_from_near_it():
    found, _ = marked(half=3)
    at = R.middles(found, "scenes")
    assert R.displaced(Middle(), found, at, "scenes", 0).tolist() == [1, 1, 1, 1]
    assert R.displaced(Middle(), found, at, "scenes", 1).tolist() == [1, 1, 1, 1]
    assert R.displaced(Middle(), found, at, "scenes", 7).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["scenes-disc", "scenes-logpolar"])
def test_what_is_lost_is_paired(monkeypatch, name):
    monkeypatch.setattr(R, "TURNS", (0.0, 45.0, 90.0))
    monkeypatch.setattr(R, "ZOOMS", (0.5, 1.0, 2.0))
    monkeypatch.setattr(R, "BLURS_PX", (0.0, 2.0))
    monkeypatch.setattr(R, "SHIFTS_PX", (0, 16, 24))
    found = marked()[0]._replace(x=noise(4, 3, 32, 32))
    points = R.middles(found, "scenes")
    right = {
        (0.0, 1.0): [1, 1, 1, 0], (45.0, 1.0): [0, 0, 1, 0], (90.0, 1.0): [1, 0, 0, 1], (0.0, 0.5): [0, 1, 0, 0],
        (0.0, 2.0): [0, 0, 0, 0],
    }  # fmt: skip
    beside = {0: [1, 1, 0.0, 1], 16: [0.25, 0.5, 0.5, 0], 24: [0, 0, 0, 0.25]}

    net, views = SimpleNamespace(card=networks.card(name)), []

    def hits(model, given, at, kind, change, view=None):
        assert model is net
        assert (given, kind) == (found, "scenes")
        assert at.equal(points)
        made = change(found.x, at)
        if view is not None:
            views.append(view)
            assert made.equal(R.transformed(found.x, points))
            return torch.tensor([0, 1, 1, 0]).double()
        soft = blurred(R.transformed(found.x, points), 2.0)
        if made.equal(soft):
            return torch.tensor([0, 0, 0, 1]).double()
        same = [
            values
            for (turn, zoom), values in right.items()
            if made.equal(R.transformed(found.x, points, turn=turn, zoom=zoom))
        ]
        assert len(same) == 1
        return torch.tensor(same[0]).double()

    monkeypatch.setattr(R, "hits", hits)
    monkeypatch.setattr(R, "displaced", lambda model, given, at, kind, d: torch.tensor(beside[d]).double())
    row = R.measured(net, found, "scenes")
    lost = ["lost by the worst turn", "lost by half the size", "lost by 16 px"]
    assert list(row) == ["turned", "zoomed", "blurred", "shifted", *lost] + ["anti-aliased"] * ("polar" in name)
    for given, values in zip(row["blurred"], ([1, 1, 1, 0], [0, 0, 0, 1]), strict=True):
        check(given, values)
    if "polar" in name:
        check(row["anti-aliased"], [0, 1, 1, 0])
        fine = noise(1, 3, 512, 512)  # finer than the retina's samples
        seen = views[0](fine, torch.zeros(1, 2))
        torch.testing.assert_close(seen, log_polar(fine, r_min=R_MIN / 2, r_max=0.5, antialias=True))
        assert not torch.allclose(seen, log_polar(fine, r_min=R_MIN / 2, r_max=0.5), atol=0.1)
    for key, wanted in (
        ("turned", [right[t, 1.0] for t in (0.0, 45.0, 90.0)]),
        ("zoomed", [right[0.0, z] for z in (0.5, 1.0, 2.0)]),
        ("shifted", list(beside.values())),
    ):
        assert len(row[key]) == 3
        for given, values in zip(row[key], wanted, strict=True):
            check(given, values)
    check(row["lost by the worst turn"], [1, 1, 0, 0])  # that of 45 degrees
    check(row["lost by half the size"], [1, 0, 1, 0])
    check(row["lost by 16 px"], [0.75, 0.5, -0.5, 1])


def held(recipe):
    test = LabeledImages(torch.full((2, 3, 2, 2), ord(recipe.name[0]), dtype=torch.uint8), torch.arange(2))
    return DataSplit(LabeledImages(test.images[:0], test.labels[:0]), {"test": test}, (), "")


def fake_world(monkeypatch, module, make):
    """Pairs of small networks and four images for a record."""
    monkeypatch.setattr(module, "images", lambda kind, device: marked()[0])
    monkeypatch.setattr(P, "held_out", held)

    def pair(kind, out, device):
        for name in P.PAIRS[kind]:
            for seed in P.SEEDS[kind]:
                yield name, seed, make(name, seed)

    monkeypatch.setattr(P, "pair", pair)


def check_origin(found, name):
    # As tests/test_recorded.py wants it of every published record.
    assert found["name"] == name
    assert found["command"] == f"python -m helpers.experiments.{name} --publish"
    assert {"commit", "python", "torch", "device"} <= found["facts"].keys()
    assert all(len(digest) == 64 for digest in found["data"].values())
    assert len(set(found["data"].values())) == 2


SEEDS = {"scenes": [0, 1, 2], "photos": [0, 1]}


def test_the_record_of_turns_and_zooms(monkeypatch, tmp_path):
    monkeypatch.setattr(R, "TURNS", (0.0, 90.0))
    monkeypatch.setattr(R, "ZOOMS", (0.5, 1.0))
    monkeypatch.setattr(R, "SHIFTS_PX", (0, 16))
    fake_world(monkeypatch, R, lambda name, seed: Middle(name=name.replace("logpolar", "disc")))
    assert R.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "runs" / "retina.json").read_text(encoding="utf8"))
    check_origin(found, "retina")
    assert found["seeds"] == SEEDS
    assert found["turns (degrees)"] == [0, 90]
    assert found["zooms"] == [0.5, 1]
    assert found["shifts (px)"] == [0, 16]
    for kind, names in P.PAIRS.items():
        assert found["pairs"][kind]["images"] == 4
        assert list(found["pairs"][kind]["networks"]) == list(names)
        for rows in found["pairs"][kind]["networks"].values():
            assert list(rows) == [str(seed) for seed in SEEDS[kind]]
            for row in rows.values():
                # Photographs are looked at in their middle, where only the first image has its object.
                assert row["turned"][0]["mean"] == (1 if kind == "scenes" else 0.25)
                assert [len(row[key]) for key in ("turned", "zoomed", "shifted")] == [2, 2, 2]


@pytest.mark.parametrize("module", [R, S])
def test_what_was_measured_is_not_measured_again(monkeypatch, tmp_path, capsys, module):
    fake_world(monkeypatch, module, lambda name, seed: (name, seed))
    asked = []

    def measured(model, found, kind, *seed):
        asked.append(model)
        if len(asked) == 3:
            raise RunError("killed")
        return {"number": len(asked), "none": math.nan}

    monkeypatch.setattr(module, "measured", measured)
    options = ["--out", str(tmp_path), "--device", "cpu"]
    path = tmp_path / f"{module.NAME}.json"
    assert module.main(options) == 1
    assert not path.exists()
    assert asked == [("scenes-disc", 0), ("scenes-disc", 1), ("scenes-disc", 2)]
    assert module.main(options) == 0
    wanted = [(name, seed) for kind, names in P.PAIRS.items() for name in names for seed in P.SEEDS[kind]]
    assert asked == wanted[:3] + wanted[2:]
    text = path.read_text(encoding="utf8")
    assert module.main(options) == 0
    assert len(asked) == 11
    assert path.read_text(encoding="utf8") == text
    kinds = json.loads(text)["pairs" if module is R else "worlds"].values()
    numbers = [row for kind in kinds for rows in kind["networks"].values() for row in rows.values()]
    assert numbers == [{"number": k, "none": None} for k in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11)]
    # Other settings, all is measured anew.
    monkeypatch.setattr(module, *(("ZOOMS", (0.5, 1.0)) if module is R else ("THRESHOLDS", (0.1, 0.2))))
    assert module.main(options) == 0
    assert asked[11:] == wanted
    (tmp_path / f"{module.NAME}-photos-disc-1.json").write_text("{", encoding="utf8")
    assert module.main(options) == 1
    assert "damaged" in capsys.readouterr().err


def test_the_curves_hold_what_the_losses_need():
    assert R.TURNS[0] == 0
    assert R.ZOOMS[0] == 0.5
    assert 1.0 in R.ZOOMS
    assert R.SHIFTS_PX[0] == R.BLURS_PX[0] == 0
    assert 16 in R.SHIFTS_PX


# --- policies and references ------------------------------------------------------------------------------------------


def test_right_by_hand():
    log_p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]]).log()
    assert S.right(log_p, torch.tensor([0, 2])).tolist() == [1, 0]
    views = torch.stack([log_p, log_p.flip(-1)], 1)  # answers 0, 2 and 1, 1
    found = S.right(views, torch.tensor([2, 1]))
    assert found.tolist() == [[0, 1], [1, 1]]
    assert found.dtype == torch.float64
    assert S.right(views[:, None], torch.tensor([0, 1])).tolist() == [[[1, 0]], [[1, 1]]]


def test_policies_by_a_loop(monkeypatch):
    monkeypatch.setattr(S, "GRID", 3)
    images, places, classes = 7, 9, 4
    glance, labels = beliefs(images, classes), beliefs(images, places, classes, seed=1)
    truth = whole_numbers(classes, images)
    logits, accuracy = 3 * noise(images, places, classes, seed=5), torch.rand(images, places, generator=seeded(6))
    bare = S.policies(glance, labels, truth)
    again = "information_gain_bound, returns allowed"
    assert list(bare) == [name for name in POLICIES if name != "expected"] + [again]
    found = S.policies(glance, labels, truth, logits, accuracy)
    assert set(found) == {*POLICIES, "max_logit", again}
    assert {name: found[name] for name in bare} == bare
    assert S.SACCADES == 5
    draw = torch.Generator().manual_seed(0)
    chance = [torch.rand(images, places, generator=draw) for _ in range(5)]
    far = fixation_grid(3).flatten(0, 1).norm(dim=1)

    def bound(belief, k):
        return information_gain_bound(belief[None], labels[k][None])[0]

    scores = {
        "known_label": lambda k, _, step: labels[k, :, truth[k]],
        "max_confidence": lambda k, _, step: labels[k].amax(1),
        "max_logit": lambda k, _, step: logits[k].amax(1),
        "fused_confidence": lambda k, belief, step: (belief + labels[k]).softmax(-1).amax(-1),
        "expected": lambda k, belief, step: expected_gain(belief[None], accuracy[[k]])[0],
        "information_gain_bound": lambda k, belief, step: bound(belief, k),
        "random": lambda k, _, step: chance[step][k],
        "center": lambda k, _, step: -far.square(),
    }

    def followed(score, inhibit=True):
        alone, fused, walks = [], [], []
        for k in range(images):
            belief, seen, walk = glance[k], [4] if inhibit else [], []  # place 4 is the middle
            one, both = [int(glance[k].argmax() == truth[k])], [int(glance[k].argmax() == truth[k])]
            for step in range(5):
                ranked = score(k, belief, step).clone()
                ranked[seen] = -math.inf
                place = int(ranked.argmax())
                seen += [place] if inhibit else []
                walk.append(place)
                belief = (belief + labels[k, place]).log_softmax(0)
                one.append(int(labels[k, place].argmax() == truth[k]))
                both.append(int(belief.argmax() == truth[k]))
            alone.append(one)
            fused.append(both)
            walks.append(walk)
        return np.array(alone), np.array(fused), walks

    by_chance = followed(scores["random"])[1]
    for name, score in scores.items():
        alone, fused, _ = followed(score)
        row = found[name]
        assert list(row) == ["alone", "fused", "fused, more than random", "views"]
        for step in range(6):
            check(row["alone"][step], alone[:, step])
            check(row["fused"][step], fused[:, step])
            check(row["fused, more than random"][step], fused[:, step] - by_chance[:, step])
        assert len(row["alone"]) == len(row["fused"]) == 6
    looked = {name: row["views"] for name, row in found.items() if "views" in row}
    assert looked == {name: 6 if name in ("random", "center", "expected") else 10 for name in looked}
    _, fused, walks = followed(scores["information_gain_bound"], inhibit=False)
    again = found[again]
    assert list(again) == ["fused", "returns"]
    for step in range(6):
        check(again["fused"][step], fused[:, step])
    check(again["returns"], [np.mean([a == b for a, b in pairwise(w)]) for w in walks])
    assert again["returns"]["mean"] > 0


def test_cooled_answers_stay_the_same():
    log_p = beliefs(3, 4, 5)
    torch.testing.assert_close(C.apply_temperature(log_p, 1.0), log_p)
    found = C.apply_temperature(log_p, 3.0)
    torch.testing.assert_close(found, torch.from_numpy(scipy.special.log_softmax(log_p.numpy() / 3, -1)))
    assert found.argmax(-1).equal(log_p.argmax(-1))
    assert (found.amax(-1) < log_p.amax(-1)).all()


def test_the_whole_grid_by_a_loop():
    labels, truth = beliefs(40, 5, 3), whole_numbers(3, 40, seed=4)
    found = S.whole(labels, truth)
    assert list(found) == ["votes", "mean probability", "summed evidence"]
    right = {name: [] for name in found}
    for views, label in zip(labels.tolist(), truth.tolist(), strict=True):
        votes = Counter(int(np.argmax(view)) for view in views)
        right["votes"].append(max(range(3), key=lambda k: votes[k]) == label)
        right["mean probability"].append(np.exp(views).mean(0).argmax() == label)
        right["summed evidence"].append(np.sum(views, 0).argmax() == label)
    for name, values in right.items():
        check(found[name], values)
    assert len({tuple(values) for values in right.values()}) == 3


def test_the_chosen_view_has_the_greatest_score():
    labels = beliefs(3, 4, 5)
    score = torch.tensor([[0.0, 3, 1, 2], [5, 3, 1, 2], [-4, -3, -2, -1]])
    assert S.chosen(labels, score).equal(torch.stack([labels[0, 1], labels[1, 0], labels[2, 3]]))


def one_good_view(images, classes, truth, where, sure):
    """All views say the class behind the true one, surely; one says the true one, a little less surely."""
    other = (truth + 1) % classes
    p = torch.full((images, 49, classes), 0.05 / classes)
    p[torch.arange(images)[:, None], torch.arange(49), other[:, None]] = 0.95
    p[torch.arange(images), where] = 0.05 / classes
    p[torch.arange(images), where, truth] = sure
    return (p / p.sum(-1, keepdim=True)).log()


def test_ever_more_places_are_tried():
    images, classes = 300, 4
    truth = whole_numbers(classes, images)
    labels = one_good_view(images, classes, truth, 17, sure=0.5)
    others = labels.roll(-17, 1)  # the good view first
    found = S.tried(labels, others, truth)
    assert list(found) == [
        "known label", "most confident", "any of them", "wrong label found", "known label, random places"
    ]  # fmt: skip
    assert all(len(rows) == len(S.TRIED) for rows in found.values())
    # In a random order, another one for each image, n of 49 places hold the good one with n / 49.
    for number, row in zip(S.TRIED, found["any of them"], strict=True):
        assert row["mean"] == pytest.approx(number / 49, abs=0.09)
    assert means(found["any of them"]) == sorted(means(found["any of them"]))
    assert means(found["any of them"])[-1] == 1
    assert found["known label"] == found["any of them"]
    # The good view is unsure: only alone it is the surest.
    assert means(found["most confident"])[1:] == [0] * 6
    assert means(found["most confident"])[0] == means(found["any of them"])[0]
    assert means(found["known label, random places"]) == [1] * 7  # these are taken as they come
    # Of three wrong labels one is said by all views.
    assert means(found["wrong label found"])[1:] == pytest.approx([1 / 3] * 6, abs=0.09)
    assert list(S.tried(labels, None, truth)) == list(found)[:4]
    assert S.tried(labels, None, truth)["known label"] == found["known label"]


def test_tried_views_by_a_loop():
    images, classes = 9, 5
    labels, others = beliefs(images, 49, classes), beliefs(images, 49, classes, seed=1)
    truth = whole_numbers(classes, images)
    found = S.tried(labels, others, truth)
    everything = {name: [] for name in ("known label", "most confident", "any of them", "known label, random places")}
    for k, label in enumerate(truth.tolist()):
        views, beside = labels[k].tolist(), others[k].tolist()
        said = [int(np.argmax(view)) for view in views]
        everything["known label"].append(said[int(np.argmax([view[label] for view in views]))] == label)
        everything["most confident"].append(said[int(np.argmax([max(view) for view in views]))] == label)
        everything["any of them"].append(label in said)
        best = beside[int(np.argmax([view[label] for view in beside]))]
        everything["known label, random places"].append(int(np.argmax(best)) == label)
    for name, values in everything.items():
        check(found[name][-1], values)
    steps = means(found["any of them"])
    assert all(a <= b for a, b in pairwise(steps))


def test_a_wrong_label_is_never_the_true_one():
    truth = whole_numbers(3, 400)
    sure = (10 * F.one_hot(truth, 3).float()).log_softmax(-1)[:, None].expand(-1, 49, -1)
    assert means(S.tried(sure, None, truth)["wrong label found"]) == [0] * 7
    truth = whole_numbers(2, 50)
    wrong = (10 * F.one_hot(1 - truth, 2).float()).log_softmax(-1)[:, None].expand(-1, 49, -1)
    assert means(S.tried(wrong, None, truth)["wrong label found"]) == [1] * 7
    # Every wrong label is looked for: of three, each one that is not true about as often.
    truth = torch.zeros(600, dtype=torch.int64)
    for label in (1, 2):
        said = torch.full((600, 49), label)
        rows = S.tried((10 * F.one_hot(said, 3).float()).log_softmax(-1), None, truth)["wrong label found"]
        assert means(rows) == pytest.approx([0.5] * 7, abs=0.08)


def overconfident(images=40, seed=0):
    truth = whole_numbers(4, images, seed=seed)
    scores = noise(images, 49, 4, seed=seed) + 1.2 * F.one_hot(truth, 4)[:, None]
    return (5 * scores).log_softmax(-1), truth


def test_each_half_of_the_images_calibrates_the_other():
    labels, truth = overconfident(41)
    logits = labels + 3 * noise(41, 49, 1, seed=2)
    glance = (labels[:, 24] * 0.9).log_softmax(-1)
    found = S.calibrated(glance, labels, truth, logits)
    assert list(found) == ["temperatures", "as they are", "by temperature", "by confidence"]
    parity = np.arange(41) % 2

    def likelihood(temperature, half):
        soft = scipy.special.log_softmax(labels.numpy() / temperature, -1)
        return np.mean([soft[k, u, truth[k]] for k in range(41) if parity[k] == half for u in range(49)])

    best = [max(C.TEMPERATURES, key=lambda t, half=half: likelihood(t, half)) for half in (1, 0)]
    assert found["temperatures"] == best
    assert best[0] not in (C.TEMPERATURES[0], C.TEMPERATURES[-1])
    hits = labels.argmax(-1) == truth[:, None]
    accuracy = torch.stack([hits[parity != parity[k]].float().mean(0) for k in range(41)])
    drawn = [C.histogram_binning(labels[parity != half], truth[parity != half]) for half in (0, 1)]
    ways = {
        "as they are": lambda one, half: one,
        "by temperature": lambda one, half: (one / best[half]).log_softmax(-1),
        "by confidence": lambda one, half: drawn[half](one),
    }
    for name, mended in ways.items():
        first, all_of = (torch.stack([mended(one[k], parity[k]) for k in range(41)]) for one in (glance, labels))
        assert found[name]["policies"] == S.policies(first, all_of, truth, logits, accuracy)
        assert found[name]["whole grid"] == S.whole(all_of, truth)
        sure, right = all_of.exp().amax(-1), all_of.argmax(-1) == truth[:, None]
        check(found[name]["claimed more than right"], (sure - right.float()).mean(1))
    assert len({json.dumps(found[name]) for name in ways}) == 3
    gaps = [abs(found[name]["claimed more than right"]["mean"]) for name in ways]
    assert gaps[0] > 0.15
    assert gaps[2] < 0.05


def test_no_image_calibrates_itself():
    labels, truth = overconfident(40)
    logits, glance = labels, labels[:, 24]
    wrong = truth.clone()
    wrong[1::2] = (truth[1::2] + 1) % 4  # odd images, sure and wrong, ask for another temperature
    one, other = (S.calibrated(glance, labels, some, logits)["temperatures"] for some in (truth, wrong))
    assert other[1] == one[1]  # of odd images, chosen by even ones
    assert other[0] == C.TEMPERATURES[-1] != one[0]


def test_drawers_by_hand():
    # Four views claim .6, and one of them is right; four claim .9, and three are.
    p = torch.tensor([[0.6, 0.4, 0.0], [0.9, 0.1, 0.0]]).clamp(min=1e-9)
    labels = p.log().repeat_interleave(4, 0)[:, None]  # (8, 1, 3)
    truth = torch.tensor([0, 1, 1, 2, 0, 0, 0, 1])
    mended = C.histogram_binning(labels, truth, bins=2)
    found = mended(p.log()).exp()
    torch.testing.assert_close(found[1], torch.tensor([0.75, 0.125, 0.125]), rtol=0, atol=1e-3)
    # Right less often than by chance: kept a hair above it, or the answer would change.
    chance = 1 / 3 + C.MARGIN
    torch.testing.assert_close(found[0], torch.tensor([chance, (1 - chance) / 2, (1 - chance) / 2]), rtol=0, atol=1e-3)
    # New views go where their confidence belongs, whatever their answer.
    new = mended(torch.tensor([[0.05, 0.05, 0.9], [0.3, 0.5, 0.2]]).log()).exp()
    assert new.argmax(1).tolist() == [2, 1]
    torch.testing.assert_close(new.amax(1), torch.tensor([0.75, chance]), rtol=0, atol=1e-3)
    torch.testing.assert_close(new.sum(1), torch.ones(2))
    assert mended(labels[None]).shape == (1, 8, 1, 3)
    # Never all wrong, never certain.
    sure = C.histogram_binning(labels, torch.zeros(8, dtype=torch.int64), bins=2)(labels)
    assert sure.isfinite().all()
    torch.testing.assert_close(sure.exp().amax(-1), torch.full((8, 1), 1 - C.MARGIN), rtol=0, atol=2e-4)
    assert sure.exp().amax() < 1


def test_views_of_one_drawer_keep_their_order():
    p = torch.tensor([0.5, 0.8, 0.6, 0.9])
    labels = torch.stack([p, 1 - p], 1).log()[None]  # (1, 4, 2), all in one drawer
    found = C.histogram_binning(labels, torch.zeros(1, dtype=torch.int64), bins=1)(labels)[0, :, 0]
    assert found.argsort().equal(p.argsort())
    assert found.exp().max() - found.exp().min() < 1e-3


def test_drawers_that_stay_empty():
    labels = torch.tensor([0.7, 0.3]).log().expand(5, 2, 2)  # all as sure
    found = C.histogram_binning(labels, torch.tensor([0, 0, 0, 0, 1]))(labels).exp()
    torch.testing.assert_close(found, torch.tensor([0.8, 0.2]).expand(5, 2, 2), rtol=0, atol=1e-3)


def test_a_search_by_score():
    glance, labels = beliefs(2, 3), beliefs(2, 7, 3, seed=1)
    score = torch.tensor([[1.0, 5, 2, 9, 3, 4, 0], [9, 8, 7, 6, 5, 4, 3]])  # place 3 is the centre
    views, fused = S.by_score(glance, labels, score)
    for k, walk in enumerate([[1, 5, 4, 2, 0], [0, 1, 2, 4, 5]]):
        torch.testing.assert_close(views[k], torch.cat([glance[[k]], labels[k, walk]]))
        belief = glance[k].exp()
        for step, place in enumerate(walk):
            belief = belief * labels[k, place].exp()
            torch.testing.assert_close(fused[k, step + 1].exp(), belief / belief.sum())


# --- maps -------------------------------------------------------------------------------------------------------------


def test_looks_at_the_true_boxes():
    found, _ = marked()
    wide = found._replace(boxes=found.boxes + torch.tensor([0.0, 0, 1, 1]))  # its middle is not a whole pixel
    for one in (found, wide):
        log_p = S.looked_at(Middle(), one, "scenes")
        assert log_p.argmax(1).tolist() == [1, 2, 3, 4]
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(4))


def ridges(n):
    """Maps whose core of 4 x 4 pixels is 1, around it 8 x 8 of 0.42."""
    maps, core, all_of_it = torch.zeros(n, 32, 32), torch.zeros(n, 4), torch.zeros(n, 4)
    for k in range(n):
        maps[k, 4 + k : 12 + k, 8:16] = 0.42
        maps[k, 6 + k : 10 + k, 10:14] = 1.0
        core[k] = torch.tensor([10, 6 + k, 14, 10 + k])
        all_of_it[k] = torch.tensor([8, 4 + k, 16, 12 + k])
    return maps, core, all_of_it


def test_even_images_choose_the_threshold_of_odd_ones(monkeypatch):
    monkeypatch.setattr(M, "THRESHOLDS", (0.0, 0.4, 0.45, 0.9))
    maps, core, wide = ridges(6)
    boxes = wide.clone()
    boxes[::2] = core[::2]
    found = M.boxed(maps, boxes)
    assert list(found) == ["threshold", "iou", "found"]
    assert found["threshold"] == 0.45  # the first above 0.42
    assert found["iou"] == {"mean": 0.25, "error": 0}  # 16 of 64
    assert found["found"] == {"mean": 0, "error": 0}
    boxes = core.clone()
    boxes[::2] = wide[::2]
    assert M.boxed(maps, boxes)["threshold"] == 0
    found = M.boxed(maps, core)
    assert found["iou"] == found["found"] == {"mean": 1, "error": 0}
    maps[3] = 0  # no box: nothing is found
    found = M.boxed(maps, core)
    check(found["iou"], [1, 0, 1])
    check(found["found"], [1, 0, 1])


def test_thresholds_are_shares_of_the_maximum():
    assert all(0 <= one < 1 for one in M.THRESHOLDS)
    assert len(set(M.THRESHOLDS)) == len(M.THRESHOLDS) > 1


def test_half_an_overlap_is_found():
    maps = torch.zeros(4, 16, 16)
    maps[:, 4:8, 4:8] = 1
    boxes = torch.tensor([[4.0, 4, 8, 8], [4, 4, 8, 12], [4, 4, 8, 8], [4, 4, 8, 13]])
    check(M.boxed(maps, boxes)["found"], [1, 0])  # 16 of 32, and of 36


def test_where_maps_lie_by_a_loop():
    side, maps = 32, noise(6, 32, 32).abs()
    boxes = torch.tensor(
        [[5.0, 6, 20, 22], [0, 0, 32, 32], [2, 10, 9, 30], [13, 13, 15, 15], [0, 0, 32, 31], [1, 1, 7, 9]]
    )
    maps[0, 10, 10] = maps[2, 5, 20] = maps[3, 30, 30] = maps[4, 31, 3] = maps[5, 2, 2] = 9.0
    kept = maps.clone()
    found = M.localised({"a": maps, "b": -maps.neg()}, P.Searched(torch.zeros(6, 3, 32, 32), None, boxes))
    assert maps.equal(kept)
    assert list(found) == ["a", "b", "images"]
    assert found["images"] == 5  # the second box is the whole image
    row = found["a"]
    keys = ["pointing game", "mass in the box", "best fixation inside", "in/out ratio", "threshold", "iou", "found"]
    assert list(row) == keys
    check(row["pointing game"], [1, 0, 0, 0, 1])
    mass, within, without, best = [], [], [], []
    for k, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        one = maps[k].double()
        if k != 1:
            mass.append(one[y0:y1, x0:x1].sum() / one.sum())
        inside, outside = [], []
        for v in range(4, side, 4):  # the fixations lie between pixels
            for u in range(4, side, 4):
                value = one[v - 1 : v + 1, u - 1 : u + 1].mean().item()
                # No fixation lies on the fourth object, and 12, 12 as near as 16, 16: the first of them counts.
                hit = (x0 < u < x1 and y0 < v < y1) if k != 3 else (u, v) == (12, 12)
                (inside if hit else outside).append(value)
        if k != 1:
            best.append(max(inside, default=-1) > max(outside, default=-1))
        if inside and outside:
            within.append(np.mean(inside))
            without.append(np.mean(outside))
    check(row["mass in the box"], mass)
    check(row["best fixation inside"], best)
    assert 0 < sum(best) < len(best)
    assert len(within) == 4  # all fixations lie on the second object, and on the fifth
    assert row["in/out ratio"] == pytest.approx(np.mean(within) / np.mean(without), rel=1e-4)
    some = [0, 2, 3, 4, 5]
    assert {key: row[key] for key in ("threshold", "iou", "found")} == M.boxed(maps[some], boxes[some])


@pytest.mark.parametrize("name", ["scenes-disc", "scenes-logpolar"])
def test_maps_of_whole_scenes(monkeypatch, name):
    attr = pytest.importorskip("captum.attr")
    monkeypatch.setattr(M, "BATCH", 2)
    monkeypatch.setattr(P, "SCENES", 3)
    model, (x, truth, _) = networks.load(name), P.images("scenes", CPU)
    with assert_untouched(model):
        found = M.deep_maps(model, x, truth)
    assert list(found) == ["Grad-CAM", "largest factor", "factor of the class"]
    polar = "polar" in name
    seen = log_polar(x)[:, 0] if polar else x
    relu = [key for key, module in model.named_modules() if isinstance(module, nn.ReLU)][-1]
    explainer = attr.LayerGradCam(model, model.get_submodule(relu))
    cam = explainer.attribute(seen, target=truth, relu_attributions=True)[:, 0].detach()
    signed = explainer.attribute(seen, target=truth)[:, 0].detach()
    parts = torch.cat([
        deep_feature_factorization(activations(model, part, relu)[relu], 4, together=False) for part in seen.split(2)
    ])  # fmt: skip
    mine = []
    for k in range(3):
        lies = [F.cosine_similarity(part.flatten(), signed[k].flatten(), dim=0).item() for part in parts[k]]
        mine.append(parts[k, int(np.argmax(lies))])

    def back(maps):
        wide = F.interpolate(maps[:, None], seen.shape[-2:], mode="bilinear", align_corners=False)
        return inverse_log_polar(wide[:, None], (128, 128), r_min=R_MIN)[:, 0, 0] if polar else wide[:, 0]

    wanted = {"Grad-CAM": cam, "largest factor": parts[:, 0], "factor of the class": torch.stack(mine)}
    axis = torch.arange(128) - 63.5
    corner = (axis.square() + axis[:, None].square()).sqrt() > 64
    for key, one in found.items():
        assert one.shape == (3, 128, 128)
        assert (one >= 0).all()
        assert one.flatten(1).any(1).all()
        torch.testing.assert_close(one, back(wanted[key]), rtol=1e-3, atol=1e-4 * one.max().item())
        assert not polar or not one[:, corner].any()  # a retina sees nothing there


def test_grad_cam_from_a_fixation(monkeypatch):
    monkeypatch.setattr(M, "BATCH", 2)
    monkeypatch.setattr(P, "SCENES", 3)
    model, (x, truth, boxes) = networks.load("scenes-logpolar"), P.images("scenes", CPU)
    at = ((boxes[:, :2] + boxes[:, 2:]) / 128 - 1).float()
    found = M.cam_from(model, x, truth, at, 0.5)
    assert found.shape == (3, 128, 128)
    relu = [key for key, module in model.named_modules() if isinstance(module, nn.ReLU)][-1]
    axis = (torch.arange(128) + 0.5) / 64 - 1
    for k in range(3):  # one image, one fixation at a time
        seen = log_polar(x[k : k + 1], at[k : k + 1], r_min=R_MIN / 2, r_max=0.5)[:, 0]
        wide = F.interpolate(
            grad_cam(model, seen, truth[k : k + 1], layer=relu)[:, None], seen.shape[-2:], mode="bilinear"
        )
        wanted = inverse_log_polar(wide[:, None], (128, 128), at[k : k + 1], r_min=R_MIN / 2, r_max=0.5)[0, 0, 0]
        torch.testing.assert_close(found[k], wanted, rtol=1e-3, atol=1e-4 * wanted.max().item())
        away = ((axis - at[k, 0]).square() + (axis[:, None] - at[k, 1]).square()).sqrt()
        assert not found[k][away > 0.52].any()  # beyond the retina
        assert found[k].any()


def tiny(name, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SmallVGG(8, stages=((4,), (6,))).eval()
    model.card = networks.card(name)
    return model


def test_the_best_fixation_by_hand():
    at = torch.tensor([[[1.0, 2], [3, 4]], [[1, 2], [3, 4]], [[5, 5], [1, 1]], [[5, 1], [1, 5]]])
    inside = torch.tensor([[[0, 0], [0, 1]], [[0, 0], [1, 0]], [[1, 0], [0, 0]], [[1, 0], [0, 1]]]).bool()
    assert M.best_inside(at, inside).tolist() == [1, 0, 0, 1]  # as good as one beside the object is not better


def test_the_class_has_the_part_that_its_signed_evidence_lies_on():
    model, x, truth = tiny("scenes-disc", 3), noise(24, 3, 32, 32, seed=5), whole_numbers(8, 24)
    relu = [key for key, module in model.named_modules() if isinstance(module, nn.ReLU)][-1]
    parts = deep_feature_factorization(activations(model, x, relu)[relu], M.PARTS, together=False)
    signed = grad_cam(model, x, truth, layer=relu, relu=False)

    def best(evidence):
        overlap = F.cosine_similarity(parts.flatten(2), evidence.flatten(1)[:, None], dim=2)
        return parts[torch.arange(24), overlap.argmax(1)]

    wide = F.interpolate(best(signed)[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    found = M.deep_maps(model, x, truth)["factor of the class"]
    torch.testing.assert_close(found, wide, rtol=1e-4, atol=1e-5)
    assert not best(signed).equal(best(signed.relu()))  # what speaks against the class counts


def test_the_record_of_searches(monkeypatch, tmp_path):
    monkeypatch.setattr(P, "SEEDS", {"scenes": (0, 1, 2), "photos": (0, 1)})
    fake_world(monkeypatch, S, lambda name, seed: (name, seed))
    asked = []

    def measured(model, found, kind, seed):
        asked.append((model, kind, seed))
        return {"value": 1 / 3 + len(asked)}

    monkeypatch.setattr(S, "measured", measured)
    assert S.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "runs" / "search.json").read_text(encoding="utf8"))
    check_origin(found, "search")
    assert found["seeds"] == SEEDS
    assert found["grid"] == 7
    assert found["tried"] == [1, 2, 4, 9, 16, 25, 49]
    number = 0
    for kind, names in P.PAIRS.items():
        rows = found["worlds"][kind]
        assert list(rows) == ["images", "size", "networks", "baselines"]
        assert (rows["images"], rows["size"]) == (4, 32)
        assert list(rows["baselines"]) == ["centre", "blurred contrast", "images"]
        # The first square lies in the middle, the second reaches it, the last two do not.
        assert rows["baselines"]["centre"]["pointing game"]["mean"] == 0.25
        for name in names:
            assert list(rows["networks"][name]) == [str(seed) for seed in SEEDS[kind]]
            for seed in SEEDS[kind]:
                number += 1
                assert rows["networks"][name][str(seed)] == {"value": round(1 / 3 + number, 6)}
                assert asked[number - 1] == ((name, seed), kind, seed)


@pytest.mark.parametrize(("kind", "name", "seed"), [("scenes", "scenes-disc", 0), ("photos", "photos-logpolar", 1)])
def test_everything_about_one_network(monkeypatch, kind, name, seed):
    found, _ = marked()
    if kind == "scenes":
        model = Middle()
        monkeypatch.setattr(S, "deep_maps", lambda model, x, truth: {"deep": torch.ones(4, 32, 32)})
    else:
        model = tiny(name, 3)
    with assert_untouched(model):
        row = S.measured(model, found, kind, seed)
    assert list(row) == [
        "glance", "at the object", "confidence when wrong", "confidence when right", "searches", "tried",
        "maps",
    ]  # fmt: skip
    deep = ["deep"] if kind == "scenes" else ["Grad-CAM", "largest factor", "factor of the class"]
    deep += ["Grad-CAM from the likeliest fixation"] * (kind == "photos")  # of the log-polar network
    assert list(row["maps"]) == ["likelihood", "confidence", "bound on the gain", *deep, "images"]
    # Only the first network of the scenes is asked from other places.
    assert ("known label, random places" in row["tried"]) == (kind == "scenes")
    if kind == "photos":
        return
    # What lies in the middle of the image is known there, the rest only under the gaze.
    check(row["glance"], [1, 0, 0, 0])
    assert row["at the object"]["mean"] == 1
    sure = math.exp(9) / (math.exp(9) + 4)
    assert row["confidence when wrong"]["mean"] == pytest.approx(sure)
    assert row["confidence when right"]["mean"] == pytest.approx(sure)
    assert row["tried"]["any of them"][-1]["mean"] == 1
    assert row["tried"]["known label"][-1]["mean"] == 1
    assert row["maps"]["likelihood"]["pointing game"]["mean"] == 1
    assert row["maps"]["likelihood"]["in/out ratio"] > 20
    assert 0.9 < row["maps"]["confidence"]["in/out ratio"] < 1.1  # as sure of nothing
    crops = row["tried"]["known label, random places"]
    assert crops[0]["mean"] < crops[-1]["mean"] == 1


def test_only_the_first_seed_is_shown_random_places(monkeypatch):
    found, _ = marked()
    monkeypatch.setattr(S, "deep_maps", lambda model, x, truth: {})
    asked = []
    real = S.label_map

    def label_map(model, x, fixations, view, **kw):
        asked.append(fixations)
        return real(model, x, fixations, view, **kw)

    monkeypatch.setattr(S, "label_map", label_map)
    assert "known label, random places" not in S.measured(Middle(), found, "scenes", 1)["tried"]
    assert len(asked) == 3
    asked.clear()
    S.measured(Middle(), found, "scenes", 0)
    crops = next(one for one in asked if isinstance(one, torch.Tensor) and one.shape == (4, 49, 2))
    assert 0.6 < crops.abs().max() <= 0.75  # as far out as the grid, whose outermost places are 6 / 8


# --- the what/where model: training -----------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for a kill."""


def small_net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def drawn(kill=None, bad=None):
    """Three batches an epoch, others in every epoch; a kill or a NaN in the middle of one."""

    def batches(epoch):
        for step in range(3):
            if (epoch, step) == kill:
                raise Killed
            x, y = noise(4, 3, seed=100 * epoch + step), whole_numbers(2, 4, seed=100 * epoch + step)
            yield (x * math.nan if (epoch, step) == bad else x), y

    return batches


def run(model, path, batches=None, epochs=4, steps=3):
    return W.train(model, batches or drawn(), F.cross_entropy, epochs, steps, path, CPU)


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


def test_training_is_adam_along_half_a_cosine(tmp_path):
    model, wanted = small_net().eval(), small_net()  # it is trained as in training
    losses = run(model, tmp_path / "a.pt")
    optimiser = torch.optim.Adam(wanted.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 12)
    for epoch in range(4):
        spent = []
        for x, y in drawn()(epoch):
            optimiser.zero_grad()
            loss = F.cross_entropy(wanted(x), y)
            loss.backward()
            optimiser.step()
            schedule.step()
            spent.append(loss.item())
        assert losses[epoch] == pytest.approx(np.mean(spent), rel=1e-5)
    assert len(losses) == 4
    for key, value in wanted.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-4, atol=1e-6)
    assert not model.training


@pytest.mark.parametrize("kill", [(2, 0), (2, 1), (1, 2), (3, 2)])
def test_a_killed_training_ends_with_the_same_weights(tmp_path, kill):
    whole, killed, path = small_net(), small_net(), tmp_path / "b.pt"
    losses = run(whole, tmp_path / "a.pt")
    with pytest.raises(Killed):
        run(killed, path, drawn(kill))
    assert len(torch.load(path, weights_only=True)["losses"]) == kill[0]
    torch.manual_seed(99)
    other = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    assert run(other, path) == losses
    assert same(other, whole)
    assert not other.training
    done = small_net()
    assert run(done, path, drawn((0, 0))) == losses  # nothing is left to do
    assert same(done, whole)
    assert not done.training


def test_a_kill_before_the_first_epoch_leaves_nothing(tmp_path):
    with pytest.raises(Killed):
        run(small_net(), tmp_path / "a.pt", drawn((0, 2)))
    assert not list(tmp_path.iterdir())


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    run(small_net(), path)
    good = path.read_bytes()
    state = torch.load(path, weights_only=True)
    for bad in (b"", b"nothing", good[: len(good) // 2], good[:-100]):
        path.write_bytes(bad)
        with pytest.raises(RunError, match="damaged"):
            run(small_net(), path)
        assert path.read_bytes() == bad
    for key in state:
        torch.save({k: v for k, v in state.items() if k != key}, path)
        with pytest.raises(RunError, match=r"a\.pt is damaged"):
            run(small_net(), path)
    torch.save([1, 2], path)
    with pytest.raises(RunError, match="damaged"):
        run(small_net(), path)


def test_checkpoints_of_other_trainings_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    run(small_net(), path)
    kept = path.read_bytes()
    for epochs, steps in ((5, 3), (3, 3), (4, 2), (3, 4)):
        with pytest.raises(RunError, match="other settings"):
            run(small_net(), path, epochs=epochs, steps=steps)
    with pytest.raises(RunError):
        run(nn.Linear(3, 2), path)
    assert path.read_bytes() == kept


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_epoch(tmp_path):
    path, whole = tmp_path / "a.pt", small_net()
    with pytest.raises(RunError, match=r"nan in epoch 3: the last checkpoint is kept"):
        run(small_net(), path, drawn(bad=(2, 1)))
    state = torch.load(path, weights_only=True)
    assert len(state["losses"]) == 2
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    losses = run(whole, tmp_path / "b.pt")
    again = small_net()
    assert run(again, path) == losses
    assert same(again, whole)
    with pytest.raises(RunError, match=r"became (inf|nan) in epoch 1"):
        W.train(small_net(), drawn(), lambda x, y: x.sum() * math.inf + math.inf, 1, 3, tmp_path / "c.pt", CPU)
    assert not (tmp_path / "c.pt").exists()


# --- the what/where model: data and maps ------------------------------------------------------------------------------


def numbered(n):
    """Images full of their own number, which is the label too."""
    number = torch.arange(n)
    return Digits((number / n).view(n, 1, 1, 1).expand(n, 1, 28, 28).contiguous(), number, -torch.ones(n).long())


def test_digits_shift_ever_farther(monkeypatch):
    monkeypatch.setattr(W, "PART", 200)
    asked = []

    def noisy_displays(images, seed, places, size):
        assert size == 28
        asked.append((seed, places))
        return SimpleNamespace(images=images)

    monkeypatch.setattr(W, "noisy_displays", noisy_displays)
    found = numbered(500)
    batches = W.what_batches(found, 4, 1)
    spreads = []
    for epoch in range(4):
        asked.clear()
        x, y = zip(*batches(epoch), strict=True)
        assert [len(part) for part in x] == [100] * 5
        assert (torch.cat(x) + 0.5)[:, 0, 0, 0].mul(500).round().long().equal(torch.cat(y))  # labels go with them
        assert torch.cat(y).sort().values.tolist() == list(range(500))
        assert not torch.cat(y).equal(torch.arange(500))
        assert [len(places) for _, places in asked] == [200, 200, 100]
        assert len({seed for seed, _ in asked}) == 3
        shifts = torch.cat([places for _, places in asked])
        assert shifts.dtype == torch.int64
        assert shifts.abs().max() <= 27
        spreads.append(shifts.double().std(0))
    assert spreads[0].tolist() == [0, 0]
    for epoch, spread in enumerate(spreads):  # 5, 10 and 15 pixels, the last of them cut at 27
        assert spread.tolist() == pytest.approx([5 * epoch] * 2, rel=0.12)
    assert shifts.double().mean(0).abs().max() < 2
    assert (shifts.abs() == 27).any()
    asked.clear()
    list(W.what_batches(found, 1, 1)(0))  # a single epoch does not divide by 0
    assert not any(places.any() for _, places in asked)


def test_the_same_seed_gives_the_same_windows():
    found = digits(12, 5)
    first, again = (W.what_batches(found, 3, 4) for _ in range(2))
    (x, y), (same_x, same_y) = (next(one(2)) for one in (first, again))
    assert x.shape == (12, 1, 28, 28)
    assert x.dtype == torch.float32
    assert x.equal(same_x)
    assert y.equal(same_y)
    assert -0.5 <= x.min() < -0.2
    assert 0.2 < x.max() <= 0.5
    assert abs(x.mean()) < 0.15  # mid-gray is 0
    other, elsewhere = next(first(1)), next(W.what_batches(found, 3, 5)(2))
    for one, labels in (other, elsewhere):
        ordered = [
            torch.stack([images[k] for k in said.argsort(stable=True)]) for images, said in ((x, y), (one, labels))
        ]
        assert not ordered[0].equal(ordered[1])
        # Not only the digits': every pixel's noise.
        assert ((ordered[0] - ordered[1]).abs() > 1e-3).float().mean() > 0.8


def test_targets_belong_to_their_views(monkeypatch):
    monkeypatch.setattr(W, "PART", 4)
    monkeypatch.setattr(W, "BATCH", 3)
    seeds, accuracy = [], torch.rand(3, 3)

    def noisy_displays(images, seed):
        seeds.append(seed)
        return SimpleNamespace(images=images, places=(images[:, 0, 0, :2] * 10).round().long() * torch.tensor([1, -1]))

    def collicular_target(given, places):
        assert given is accuracy
        return places.float()

    monkeypatch.setattr(W, "noisy_displays", noisy_displays)
    monkeypatch.setattr(W, "dorsal_view", lambda x: x[:, None, :, :2, :2])
    monkeypatch.setattr(W, "collicular_target", collicular_target)
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        parts = list(W.where_batches(numbered(10), accuracy, seed)(epoch))
        assert [len(views) for views, _ in parts] == [3, 1, 3, 1, 2]
        for views, targets in parts:
            assert views.shape[1:] == (1, 2, 2)
            torch.testing.assert_close((views[:, 0, 0] + 0.5) * 10 * torch.tensor([1.0, -1.0]), targets)
        orders.append(torch.cat([targets[:, 0] for _, targets in parts]).tolist())
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] == orders[3] != orders[1]
    assert orders[0] != orders[2]
    assert len(set(seeds)) == 9  # of 12, the last three again


def test_targets_are_high_where_the_digit_lies():
    accuracy = torch.full((55, 55), 0.1)
    accuracy[22:33, 22:33] = 1.0
    views, targets = next(W.where_batches(digits(6, 1), accuracy, 0)(0))
    assert views.shape == (6, 1, 40, 96)
    assert targets.shape == (6, 10, 24)
    assert (targets.flatten(1).amax(1) > 0.3).all()
    assert WhereNet(4)(views).shape == targets.shape


class Side(nn.Module):
    """Right, that is 1, when what it sees is brighter on one side; else 0."""

    def __init__(self, dim, first):
        super().__init__()
        self.dim, self.first = dim, first

    def forward(self, x):
        first, last = (part.clamp(min=0.05).mean((1, 2, 3)) for part in x.chunk(2, self.dim))
        more = first > last + 1e-4 if self.first else last > first + 1e-4
        return 5.0 * F.one_hot(more.long(), 2)


class Aimed(nn.Module):
    """Right, that is 1, when the four pixels in the middle of what it sees are bright."""

    def forward(self, x):
        side = x.shape[-1] // 2
        return 5.0 * F.one_hot((x[:, 0, side - 1 : side + 1, side - 1 : side + 1].mean((1, 2)) > 0.3).long(), 2)


def test_an_accuracy_map_counts_whole_pixels(monkeypatch):
    real = V.noisy_displays
    monkeypatch.setattr(W, "REACH_PX", 3)
    monkeypatch.setattr(
        W, "noisy_displays", lambda images, seed, places: real(images, seed, places=places, noise=0.0, contrast=1.0)
    )
    image = torch.zeros(1, 1, 28, 28)
    image[:, :, 13:15, 13:15] = 1  # 0.5 above the ground: 0.25 in the mean of a window one pixel beside
    accuracy = W.measured_map(Aimed(), Digits(image, torch.ones(1).long(), torch.zeros(1).long()), 0, CPU)
    wanted = torch.zeros(7, 7)
    wanted[3, 3] = 1
    assert accuracy.equal(wanted)


@pytest.mark.parametrize(("dim", "first"), [(3, False), (3, True), (2, False), (2, True)])
def test_an_accuracy_map_tells_where_the_gaze_lies_from_the_digit(monkeypatch, dim, first):
    real, asked = V.noisy_displays, []

    def quiet(images, seed, places):
        asked.append((seed, places))
        return real(images, seed, places=places, noise=0.0, contrast=1.0)

    monkeypatch.setattr(W, "noisy_displays", quiet)
    monkeypatch.setattr(W, "REACH_PX", 6)
    image = torch.zeros(2, 1, 28, 28)
    image[:, :, 10:18, 10:18] = 1
    found = Digits(image, torch.ones(2).long(), torch.zeros(2).long())
    what = Side(dim, first)
    with assert_untouched(what):
        accuracy = W.measured_map(what, found, 8, CPU)
    assert accuracy.shape == (13, 13)
    assert accuracy.dtype == torch.float32
    assert asked[0][0] == 8
    assert not asked[0][1].any()  # the digits lie in the middle
    # A digit to the right of the gaze: the gaze lies to its left, in the columns before the middle one.
    wanted = torch.zeros(13, 13)
    lines = slice(7, None) if first else slice(0, 6)
    if dim == 3:
        wanted[:, lines] = 1
    else:
        wanted[lines] = 1
    assert accuracy.equal(wanted)


def test_profiles_by_hand(monkeypatch):
    monkeypatch.setattr(W, "REACH_PX", 2)
    accuracy = torch.arange(25).view(5, 5) / 25
    # 1 pixel away: 6, 7, 8, 11, 13, 16, 17, 18 (sqrt 2 rounds to 1); 2: the border but for its corners (sqrt 5).
    accuracy[2, 2], accuracy[0, 1] = 0.9, 1.0
    border = [25, 2, 3, 5, 9, 10, 14, 15, 19, 21, 22, 23]
    assert W.profile(accuracy) == pytest.approx([0.9, 96 / 8 / 25, sum(border) / 12 / 25])
    monkeypatch.undo()
    axis = torch.arange(-27, 28)
    away = (axis.square() + axis[:, None].square()).float().sqrt()
    found = W.profile(away)
    assert len(found) == 28
    assert found == pytest.approx(list(range(28)), abs=0.5)


# --- the what/where model: searching ----------------------------------------------------------------------------------


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value.expand(len(x), *self.value.shape)


def test_the_lightest_spot_is_a_patch_and_not_a_pixel():
    x = torch.zeros(2, 1, 64, 64)
    x[0, 0, 40:47, 16:23] = 1  # its middle is pixel (19, 43), whose left upper corner is where the gaze goes
    x[0, 0, 5, 60] = 3  # lighter, and alone
    x[1, 0, 3:10, 51:58] = 1
    at = (V.lightest(x, 4.0) + 1) * 32
    assert at.tolist() == [[19, 43], [54, 6]]


def test_searches_are_counted(monkeypatch):
    monkeypatch.setattr(V, "TESTED", 4)
    found, asked, shown = digits(9, 2), [], []
    real = V.noisy_displays

    def displays(images, seed, places, contrast):
        shown.append((images, seed, places, contrast))
        return real(images, seed, places=places, contrast=contrast)

    views, fused = (F.one_hot(whole_numbers(10, 4, 4, seed=s), 10).double().clamp(min=1e-6).log() for s in (1, 2))

    def dual_pathway(what, where, x, saccades, view, cautious):
        asked.append((what, where, x, saccades, view, cautious))
        places = shown[-1][2]
        off = torch.tensor([
            [[-places[0, 0], -places[0, 1]], [0, 0], [3, 4], [0, 10]],
            [[-places[1, 0], -places[1, 1]], [-places[1, 0], -places[1, 1]], [0, 11], [6, 8]],
            [[-places[2, 0], -places[2, 1]], [0, 2], [12, 0], [0, -20]],
            [[-places[3, 0], -places[3, 1]], [0, 3], [13, 0], [0, 1]],
        ])  # fmt: skip
        return Glimpses((places[:, None] + off) / 64, views, fused, None)

    looks = []

    def label_map(what, x, at, view):
        looks.append((what, x, at, view))
        return views[:, len(looks) % 2][:, None]  # column 1 for the lightest spots, column 0 for the true places

    monkeypatch.setattr(V, "noisy_displays", displays)
    monkeypatch.setattr(V, "dual_pathway", dual_pathway)
    monkeypatch.setattr(V, "label_map", label_map)
    row = V.searched("what", "where", found, 20, 0.5, 6, CPU, True, 4.0)
    images, seed, places, contrast = shown[0]
    assert (len(images), seed, contrast) == (4, 6, 0.5)
    assert places.dtype == torch.int64
    assert places.double().norm(dim=1).tolist() == pytest.approx([20] * 4, abs=0.8)
    assert len({tuple(place) for place in places.tolist()}) == 4
    what, where, x, saccades, view, cautious = asked[0]
    assert (what, where, saccades, cautious) == ("what", "where", 3, True)
    assert view is V.window
    torch.testing.assert_close(x, real(images, 6, places=places, contrast=0.5).images - 0.5)
    labels = [next(k for k in range(9) if found.images[k].equal(one)) for one in images]
    labels = found.labels[labels]
    others = ["one saccade to the lightest spot", "one saccade to the true place"]
    assert list(row) == [*others, "alone", "fused", "distance (px)", "missed", "moved"]
    for key, column, (asked_of, seen, at, how) in zip(others, (1, 0), looks, strict=True):
        assert row[key] == pytest.approx(np.mean([views[k, column].argmax() == labels[k] for k in range(4)]))
        assert (asked_of, how) == ("what", V.window)
        torch.testing.assert_close(seen, x)
        assert at.shape == (4, 1, 2)
    torch.testing.assert_close(looks[1][2][:, 0].double() * 64, places.double())
    torch.testing.assert_close(looks[0][2][:, 0], V.lightest(x, 4.0))
    for key, one in (("alone", views), ("fused", fused)):
        wanted = [np.mean([one[k, s].argmax() == labels[k] for k in range(4)]) for s in range(4)]
        assert row[key] == pytest.approx(wanted)
    # Distances after a saccade: 0, 20, 2, 3; then 5, 11, 12, 13; then 10, 10, 20, 1. The median is the lower one.
    assert row["distance (px)"][1:] == pytest.approx([2, 11, 10], abs=1e-4)
    assert row["missed"] == pytest.approx([1, 0.25, 0.75, 0.25])  # 10 pixels are near enough
    assert row["moved"] == 0.75  # the second one stays
    assert V.searched("what", "where", found, 0, 0.5, 6, CPU, False, 4.0)
    assert not shown[1][2].any()
    assert asked[1][-1] is False
    assert shown[1][0].equal(images)  # the same seed, the same digits


@pytest.mark.parametrize(("step", "moved"), [((0.25, 0.0), 1), ((0.0, 0.25), 1), ((0.0, 0.0), 0)])
def test_a_saccade_along_one_axis_is_one(monkeypatch, step, moved):
    monkeypatch.setattr(V, "TESTED", 3)
    said = beliefs(3, 2, 10)
    path = torch.tensor([[0.0, 0.0], step]).expand(3, -1, -1)
    monkeypatch.setattr(V, "dual_pathway", lambda *_, **kw: Glimpses(path, said, said, None))
    monkeypatch.setattr(V, "label_map", lambda what, x, at, view: said[:, :1])
    assert V.searched("what", "where", digits(9, 2), 8, 0.7, 0, CPU, False, 4.0)["moved"] == moved


def test_a_search_with_small_networks(monkeypatch):
    monkeypatch.setattr(V, "TESTED", 6)
    monkeypatch.setattr(V, "SACCADES", 2)
    found = digits(10, 0)
    what = Constant(4.0 * F.one_hot(torch.tensor(3), 10))
    where = Constant(torch.full((10, 24), -4.0))
    where.value[2, 0] = 4.0  # far to the right
    row = V.searched(what, where, found, 12, 0.7, 1, CPU, False, 4.0)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))[:6]
    share = (found.labels[order] == 3).float().mean().item()
    assert row["alone"] == pytest.approx([share] * 3)
    assert row["fused"] == pytest.approx([share] * 3)
    assert row["moved"] == 1
    assert row["distance (px)"][0] == pytest.approx(12, abs=0.8)
    assert row["missed"] == [1, 1, 1]
    # Of a place that promises less than the what pathway's own confidence a cautious gaze makes nothing.
    where.value[2, 0] = -4.0
    row = V.searched(what, where, found, 12, 0.7, 1, CPU, True, 4.0)
    assert row["moved"] == 0
    assert row["distance (px)"] == [row["distance (px)"][0]] * 3


def test_the_blur_that_leads_best_is_chosen(monkeypatch):
    monkeypatch.setattr(V, "TESTED", 4)
    found, asked = digits(9, 2), []
    _, labels = V.displays(found, 24, 0.3, 5)

    def lightest(x, blur_px):
        asked.append((x, blur_px))
        return torch.full((4, 2), blur_px)

    right = {2.0: 1, 4.0: 3, 6.0: 2}
    monkeypatch.setattr(V, "SPOTS_PX", tuple(right))
    monkeypatch.setattr(V, "lightest", lightest)
    monkeypatch.setattr(
        V, "named", lambda what, x, at: torch.where(torch.arange(4) < right[at[0, 0].item()], labels, 99)
    )
    assert V.best_blur("what", found, 0.3, 5, CPU) == 4.0
    assert [px for _, px in asked] == [2.0, 4.0, 6.0]
    torch.testing.assert_close(asked[0][0], V.displays(found, 24, 0.3, 5)[0].images - 0.5)


def test_a_scan_is_every_fourth_window():
    torch.manual_seed(4)
    what = WhatNet().eval()
    x = noise(2, 1, 128, 128)
    found = V.scan(what, x)
    edges = torch.arange(0, 101, 4)
    assert found.shape == (2, len(edges) ** 2, 10)
    with torch.no_grad():
        for number, (row, column) in enumerate((int(a), int(b)) for a in edges for b in edges):
            if number % 37 == 0 or number == found.shape[1] - 1:
                wanted = what(x[:, :, row : row + 28, column : column + 28]).log_softmax(1)
                torch.testing.assert_close(found[:, number], wanted, rtol=1e-4, atol=1e-5)
    # And a window is what the gaze sees from its middle.
    at = torch.tensor([[(40 + 14) / 64 - 1, (60 + 14) / 64 - 1]])
    torch.testing.assert_close(V.window(x, at)[:, 0], x[:, :, 60:88, 40:68], rtol=1e-3, atol=1e-4)


def test_scans_beside_saccades(monkeypatch):
    monkeypatch.setattr(V, "TESTED", 4)
    monkeypatch.setattr(V, "SCAN_BATCH", 3)
    found = digits(9, 2)
    _, labels = V.displays(found, 24, 0.5, 6)
    wrong = (labels + 1) % 10

    def said(label, sure):
        return (torch.full((10,), (1 - sure) / 9).scatter(0, label, sure)).log()

    # The surest of three windows is right on the first two displays; all together say so of the last one alone.
    rows = torch.stack([
        torch.stack([said(labels[0], 0.9), said(wrong[0], 0.8), said(wrong[0], 0.8)]),
        torch.stack([said(wrong[1], 0.6), said(wrong[1], 0.6), said(labels[1], 0.7)]),
        torch.stack([said(wrong[2], 0.9), said(labels[2], 0.3), said(wrong[2], 0.3)]),
        torch.stack([said(wrong[3], 0.8), said(labels[3], 0.7), said(labels[3], 0.7)]),
    ])  # fmt: skip
    led = torch.stack([said(one, 0.5) for one in torch.stack([labels[0], labels[1], labels[2], wrong[3]])])
    asked, done = [], 0

    def scan(what, x):
        asked.append(x)
        return rows[done : done + len(x)]

    def dual_pathway(what, where, x, saccades, view):
        nonlocal done
        assert (what, where, saccades) == ("what", "where", 1)
        assert view is V.window
        here = led[done : done + len(x)]
        done += len(x)
        return Glimpses(None, torch.stack([-here, here], 1), None, None)

    monkeypatch.setattr(V, "scan", scan)
    monkeypatch.setattr(V, "dual_pathway", dual_pathway)
    row = V.scanned("what", "where", found, 0.5, 6, CPU)
    assert [len(x) for x in asked] == [3, 1]
    torch.testing.assert_close(torch.cat(asked), V.displays(found, 24, 0.5, 6)[0].images - 0.5)
    assert list(row) == ["scan, most confident", "scan, summed evidence", "saccade", "seconds a display"]
    assert row["scan, most confident"] == pytest.approx(0.5)
    assert row["scan, summed evidence"] == pytest.approx(0.25)
    assert row["saccade"] == pytest.approx(0.75)
    assert list(row["seconds a display"]) == ["scan", "saccade"]


@pytest.fixture
def small_model(monkeypatch):
    values = {
        "WHAT_EPOCHS": 2, "WHERE_EPOCHS": 1, "BATCH": 10, "REACH_PX": 3, "MAP_DIGITS": 3, "ECCENTRICITIES_PX": (0, 8),
        "CONTRASTS": (0.7, 0.5), "TESTED": 3,
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(W, name, value)
    for name, value in {"TESTED": 3, "SACCADES": 1}.items():
        monkeypatch.setattr(V, name, value)
    sets = {"train": digits(24, 1), "test": digits(8, 2)}
    monkeypatch.setattr(W, "mnist", sets.__getitem__)
    monkeypatch.setattr(W, "WhereNet", lambda: WhereNet(8))
    return sets


def test_the_record_of_the_what_where_model(monkeypatch, small_model, tmp_path):
    maps, steps = [], []
    real_map, real_train = W.measured_map, W.train

    def measured_map(what, found, seed, device):
        maps.append((found, seed))
        assert not what.training
        return real_map(what, found, seed, device)

    def train(model, batches, loss, epochs, count, *rest):
        steps.append((epochs, count, rest[0].name))
        return real_train(model, batches, loss, epochs, count, *rest)

    monkeypatch.setattr(W, "measured_map", measured_map)
    monkeypatch.setattr(W, "train", train)
    real = W.record
    monkeypatch.setattr(W, "record", lambda out, device: real(out, device, (0, 1)))
    out = tmp_path / "runs"
    assert W.main(["--out", str(out), "--device", "cpu"]) == 0
    text = (out / "whatwhere.json").read_text(encoding="utf8")
    found = json.loads(text)
    assert found["command"] == "python -m helpers.experiments.whatwhere --publish"
    assert [one["seed"] for one in found["models"]] == [0, 1]
    assert found["epochs"] == {"what": 2, "where": 1, "published what": 75, "published where": 60}
    assert found["eccentricities (px)"] == [0, 8]
    assert found["contrasts"] == [0.7, 0.5]
    assert found["displays"] == 3
    assert found["published"] == W.PUBLISHED
    # 24 digits are 3 batches, the last one of 4.
    names = [f"{part}-{seed}.pt" for seed in (0, 1) for part in ("what", "where")]
    assert steps == [(2, 3, names[0]), (1, 3, names[1]), (2, 3, names[2]), (1, 3, names[3])]
    assert {path.name for path in out.iterdir()} == {*names, "whatwhere.json"}
    train_set, test_set = small_model["train"], small_model["test"]
    for (learned, first), (reported, second) in zip(maps[::2], maps[1::2], strict=True):
        assert learned.images.equal(train_set.images[12:15])
        assert learned.labels.equal(train_set.labels[12:15])
        assert reported.images.equal(test_set.images[:3])
        assert reported.labels.equal(test_set.labels[:3])
        assert first != second
    for one in found["models"]:
        assert list(one) == [
            "seed", "what loss", "where loss", "accuracy map", "profile", "mean over the map",
            "blur of the lightest spot (px)", "curves", "scan",
        ]  # fmt: skip
        assert (len(one["what loss"]), len(one["where loss"])) == (2, 1)
        accuracy = torch.tensor(one["accuracy map"])
        assert accuracy.shape == (7, 7)
        assert one["mean over the map"] == pytest.approx(accuracy.mean().item())
        assert one["profile"] == pytest.approx(W.profile(accuracy))
        assert list(one["curves"]) == ["always", "cautious"]
        for rows in one["curves"].values():
            assert list(rows) == ["0.7", "0.5"]
            assert all(len(row) == 2 and len(row[0]["alone"]) == 2 for row in rows.values())
            assert rows["0.7"][0]["distance (px)"][0] == 0
            assert rows["0.7"][1]["distance (px)"][0] == pytest.approx(8, abs=0.8)
        assert all(row["moved"] == 1 for rows in one["curves"]["always"].values() for row in rows)
        assert list(one["scan"]) == ["0.7", "0.5"]
        assert set(one["blur of the lightest spot (px)"].values()) <= set(V.SPOTS_PX)
    assert found["models"][0]["what loss"] != found["models"][1]["what loss"]
    # Another call reads the finished networks and measures the same again.
    assert W.main(["--out", str(out), "--device", "cpu"]) == 0
    again = json.loads((out / "whatwhere.json").read_text(encoding="utf8"))
    for record in (found, again):
        for row in (row for one in record["models"] for row in one["scan"].values()):
            assert all(value > 0 for value in row.pop("seconds a display").values())
    assert again == found


def test_the_what_where_record_says_where_it_comes_from(monkeypatch, small_model, tmp_path):
    # As tests/test_recorded.py wants it of every published record.
    monkeypatch.setattr(W, "model", lambda seed, *rest: {"seed": seed})
    found = W.record(tmp_path, CPU)
    assert [one["seed"] for one in found["models"]] == [0, 1, 2]
    assert found.get("name") == "whatwhere"
    assert {"commit", "python", "torch", "device"} <= found.get("facts", {}).keys()
    assert isinstance(found["data"], dict)
    assert all(len(digest) == 64 for digest in found["data"].values())
    assert found["seeds"] == [0, 1, 2]


def test_without_the_digits_the_command_line_says_how_to_get_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    assert W.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("error: MNIST is not in")
