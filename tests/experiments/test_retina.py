"""The record of turned, zoomed and displaced views: its arithmetic by loops, and what it writes."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from support.records import counted, numbers, read_back
from support.rows import assert_same_rows, pick, select
from support.searched import Middle, check, fake_world, marked, noise, whole_numbers
from support.untouched import assert_untouched

from helpers import results
from helpers.experiments import matched_pairs as P
from helpers.experiments import retina as R
from helpers.filters import blurred
from helpers.retina import R_MIN, log_polar


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
def test_images_turn_and_zoom_about_a_point(turn, zoom):
    x, size = noise(4, 2, 12, 12, kind=torch.float64), 12
    pixels = torch.tensor([[0, 0], [3, -1], [-4, 2], [1, 5]])
    before = x.clone()
    turned = R.transformed(x, pixels * 2 / size, turn=turn, zoom=zoom)
    assert x.equal(before)
    assert turned.dtype == torch.float64
    assert turned.shape == x.shape
    axis = torch.arange(size) + 0.5 - size / 2
    # What lies farther from the point than half an image is cut off first; inside this disc it is not seen.
    disc = (axis.square() + axis[:, None].square()).sqrt() < (size / 2 - 1) * min(zoom, 1)
    for k, pixel in enumerate(pixels.tolist()):
        for c in range(2):
            expected = slow(x[k, c], pixel, turn, zoom)
            torch.testing.assert_close(turned[k, c][disc], expected[disc], rtol=0, atol=1e-4)
    alone = R.transformed(x[1:2], pixels[1:2] * 2 / size, turn=turn, zoom=zoom)
    torch.testing.assert_close(alone, turned[1:2])


def test_a_point_comes_to_the_middle_by_whole_pixels():
    x = noise(2, 1, 8, 8)
    # 0.3 * 4 = 1.2 and -0.8 * 4 = -3.2: 1 to the right, 3 up; beyond the edge is 0.
    moved = R.transformed(x, torch.tensor([[0.3, -0.8], [1.0, -1.0]]))
    torch.testing.assert_close(moved[0, 0, 3:, :7], x[0, 0, :5, 1:])
    assert not moved[0, 0, :3].any()
    assert not moved[0, 0, :, 7].any()
    torch.testing.assert_close(moved[1, 0, 4:, :4], x[1, 0, :4, 4:])
    assert not moved[1, 0, :4].any()


def test_where_the_gaze_belongs():
    images, middle = marked()
    assert R.middles(images, "scenes").equal(middle.double() / 16 - 1)
    assert R.middles(images, "photos").equal(torch.zeros(4, 2))
    odd = images._replace(boxes=torch.tensor([[0.0, 10, 5, 17]]), x=images.x[:1])
    assert R.middles(odd, "scenes").tolist() == [[2 / 16 - 1, 14 / 16 - 1]]  # 2.5 and 13.5 to whole pixels


@pytest.mark.parametrize("name", ["scenes-disc", "scenes-logpolar"])
def test_hits_are_looks_at_changed_images(monkeypatch, name):
    monkeypatch.setattr(R, "BATCH", 3)
    images, _ = marked()
    model, at, seen = Middle(name=name), R.middles(images, "scenes"), []

    class Fovea(Middle):
        def forward(self, x):  # the last circles are those nearest to the gaze
            said = x[:, 0, -20:].mean((1, 2)).round().long().clamp(0, 4)
            return 9.0 * F.one_hot(said, 5)

    model = Fovea(name=name) if "polar" in name else model

    def change(x, p):
        seen.append((x, p))
        return R.transformed(x, p, turn=40.0)

    with assert_untouched(model):
        hits = R.hits(model, images, at, "scenes", change)
    assert hits.tolist() == [1, 1, 1, 1]
    assert hits.dtype == torch.float64
    assert [len(x) for x, _ in seen] == [3, 1]
    assert torch.cat([x for x, _ in seen]).equal(images.x)
    assert torch.cat([p for _, p in seen]).equal(at)
    # From the middle of the image only the first object, which lies there, is seen.
    assert R.hits(model, images, at, "scenes", lambda x, p: x).tolist() == [1, 0, 0, 0]
    blank = torch.full((3, 1, 3, 32, 32), 3.0)  # another view than the network's own
    assert R.hits(model, images, at, "scenes", change, lambda x, _: blank[: len(x)]).tolist() == [0, 0, 1, 0]
    wrong = images._replace(labels=torch.tensor([1, 3, 3, 1]))
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
    images = P.Searched(torch.zeros(2, 3, 16, 16), torch.tensor([1, 1]), torch.zeros(2, 4))
    at = torch.tensor([[0.0, 0.0], [-0.75, -0.875]], dtype=torch.float64)
    assert R.displaced("net", images, at, "scenes", 4).tolist() == [0.5, 0]
    model, x, places, view = asked[0]
    assert (model, view) == ("net", ("net", 0.5))
    assert x is images.x
    # 4 of 8 pixels are 0.5: right, down, left, up; beyond the edge the gaze stays on it.
    expected = [[[0.5, 0], [0, 0.5], [-0.5, 0], [0, -0.5]]]
    expected += [[[-0.25, -0.875], [-0.75, -0.375], [-1, -0.875], [-0.75, -1]]]
    torch.testing.assert_close(places, torch.tensor(expected, dtype=torch.float64))
    R.displaced("net", images, at, "photos", 0)
    assert asked[1][2].equal(at[:, None])
    assert asked[1][3] == ("net", 1.0)


@pytest.mark.parametrize("name", ["scenes-disc", "scenes-logpolar"])
def test_what_is_lost_is_paired(monkeypatch, name):
    turns, zooms, blurs, shifts = (0.0, 45.0, 90.0), (0.5, 1.0, 2.0), (0.0, 2.0), (0, 16, 24)
    for axis, settings in (("TURNS", turns), ("ZOOMS", zooms), ("BLURS_PX", blurs), ("SHIFTS_PX", shifts)):
        monkeypatch.setattr(R, axis, settings)
    boxes = torch.tensor([10.0, 8, 16, 20]).expand(24, 4)
    images = P.Searched(2 + 4 * noise(24, 3, 32, 32), whole_numbers(3, 24) + 1, boxes)
    model, at = Middle(name=name), R.middles(images, "scenes")

    answers = [
        R.hits(model, images._replace(labels=torch.full((24,), k)), at, "scenes", R.transformed) for k in range(5)
    ]
    images.labels[:18] = torch.stack(answers).argmax(0)[:18]  # upright most of them are named

    def hits(view=None, sigma=0.0, **change):
        return R.hits(model, images, at, "scenes", lambda x, p: blurred(R.transformed(x, p, **change), sigma), view)

    views, real = [], R.hits
    monkeypatch.setattr(R, "hits", lambda *arguments: views.append(arguments[5:]) or real(*arguments))
    row = R.measured(model, images, "scenes")
    monkeypatch.setattr(R, "hits", real)
    curves = {
        "turned": [hits(turn=turn) for turn in turns],
        "zoomed": [hits(zoom=zoom) for zoom in zooms],
        "blurred": [hits(sigma=sigma) for sigma in blurs],
        "shifted": [R.displaced(model, images, at, "scenes", px) for px in shifts],
    }
    for metric, values in curves.items():
        assert len({tuple(part.tolist()) for part in values}) > 1
        assert len(row[metric]) == len(values)
        for summary, part in zip(row[metric], values, strict=True):
            check(summary, part)
    upright = curves["turned"][0]
    check(row["lost by the worst turn"], upright - min(curves["turned"], key=lambda part: part.sum()))
    check(row["lost by half the size"], upright - curves["zoomed"][0])
    check(row["lost by 16 px"], curves["shifted"][0] - curves["shifted"][1])
    assert ("anti-aliased" in row) == ("polar" in name)
    if "polar" in name:
        retina, fine = partial(log_polar, r_min=R_MIN / 2, r_max=0.5), noise(1, 3, 512, 512)
        check(row["anti-aliased"], hits(partial(retina, antialias=True)))
        seen = views[-1][0](fine, torch.zeros(1, 2))  # of an image that is finer than the retina's samples
        torch.testing.assert_close(seen, retina(fine, antialias=True))
        assert not torch.allclose(seen, retina(fine), atol=0.1)


def test_the_curves_hold_what_the_losses_need():
    assert R.TURNS[0] == 0
    assert R.ZOOMS[0] == 0.5
    assert 1.0 in R.ZOOMS
    assert R.SHIFTS_PX[0] == R.BLURS_PX[0] == 0
    assert 16 in R.SHIFTS_PX


def test_the_record_of_turns_and_zooms(monkeypatch, tmp_path):
    monkeypatch.setattr(R, "TURNS", (0.0, 90.0))
    monkeypatch.setattr(R, "ZOOMS", (0.5, 1.0))
    monkeypatch.setattr(R, "SHIFTS_PX", (0, 16))
    fake_world(monkeypatch, R, lambda name, seed: Middle(name=name))
    assert R.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    record = read_back(tmp_path / "runs" / "retina.csv")
    assert_same_rows(record, results.read("retina"), ways=("table", "set", "metric", "network"))
    assert record.attrs["seeds"] == {"scenes": [0, 1, 2], "photos": [0, 1]}
    assert set(record.attrs["data"]) == {"scenes", "photos"}
    assert len(set(record.attrs["data"].values())) == 2
    assert record.attrs["settings"]["turns"] == [0, 90]
    assert set(record["n"]) == {4}
    for kind, names in P.PAIRS.items():
        upright = select(record, set=kind, metric="turned", setting=0.0)
        members = [(name, seed) for name in names for seed in P.SEEDS[kind]]
        assert list(zip(upright["network"], upright["seed"], strict=True)) == members
        # Photographs are looked at in their middle, where only the first image has its object.
        assert set(upright["value"]) == {1 if kind == "scenes" else 0.25}
        for metric, settings in R.axes().items():
            assert select(record, network=names[0], seed=0, metric=metric)["setting"].tolist() == list(settings)
        assert "setting" not in select(record, network=names[0], seed=1, metric="lost by 16 px")


def test_every_number_comes_into_a_row_with_its_setting():
    draw = iter(range(100))
    result = {
        metric: [{"mean": next(draw) / 8, "error": next(draw) / 8} for _ in settings]
        for metric, settings in R.axes().items()
    }
    result["lost by half the size"] = {"mean": 50.0, "error": 51.0}
    rows = R.rows({"scenes-disc": {"2": result}}, "scenes", 4)
    assert counted(rows) == Counter(numbers(result))
    for metric, settings in R.axes().items():
        for setting, summary in zip(settings, result[metric], strict=True):
            row = pick(rows, metric=metric, setting=setting)
            assert (row["value"], row["error"]) == (summary["mean"], summary["error"])
            assert (row["table"], row["network"], row["seed"], row["set"]) == ("curves", "scenes-disc", 2, "scenes")
    assert pick(rows, metric="lost by half the size")["value"] == 50
