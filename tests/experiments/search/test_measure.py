"""The record of searches: its references, what it measures of a network, and what it writes."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from support.records import counted, numbers, read_back
from support.rows import assert_same_rows, pick, select
from support.searched import Middle, check, fake_world, marked, means, tiny, whole_numbers
from support.untouched import assert_untouched

from helpers import results
from helpers.experiments import matched_pairs as P
from helpers.experiments.search import measure as S


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
    log_p = one_good_view(images, classes, truth, 17, sure=0.5)
    others = log_p.roll(-17, 1)  # the good view first
    rows = S.search_among_more(log_p, others, truth)
    assert all(len(values) == len(S.TRIED) for values in rows.values())
    # In a random order, another one for each image, n of 49 places hold the good one with n / 49.
    for number, row in zip(S.TRIED, rows["any of them"], strict=True):
        assert row["mean"] == pytest.approx(number / 49, abs=0.09)
    assert means(rows["any of them"]) == sorted(means(rows["any of them"]))
    assert means(rows["any of them"])[-1] == 1
    assert rows["known label"] == rows["any of them"]
    # The good view is unsure: only alone it is the surest.
    assert means(rows["most confident"])[1:] == [0] * 6
    assert means(rows["most confident"])[0] == means(rows["any of them"])[0]
    assert means(rows["known label, random places"]) == [1] * 7  # these are taken as they come
    # Of three wrong labels one is said by all views.
    assert means(rows["wrong label found"])[1:] == pytest.approx([1 / 3] * 6, abs=0.09)
    assert set(rows) - set(S.search_among_more(log_p, None, truth)) == {"known label, random places"}
    assert S.search_among_more(log_p, None, truth)["known label"] == rows["known label"]


def test_a_wrong_label_is_never_the_true_one():
    truth = whole_numbers(3, 400)
    sure = (10 * F.one_hot(truth, 3).float()).log_softmax(-1)[:, None].expand(-1, 49, -1)
    assert means(S.search_among_more(sure, None, truth)["wrong label found"]) == [0] * 7
    # Every wrong label is looked for: of three, each one that is not true about as often.
    truth = torch.zeros(600, dtype=torch.int64)
    for label in (1, 2):
        said = torch.full((600, 49), label)
        rows = S.search_among_more((10 * F.one_hot(said, 3).float()).log_softmax(-1), None, truth)["wrong label found"]
        assert means(rows) == pytest.approx([0.5] * 7, abs=0.08)


def test_looks_at_the_true_boxes():
    images, _ = marked()
    wide = images._replace(boxes=images.boxes + torch.tensor([0.0, 0, 1, 1]))  # its middle is not a whole pixel
    for searched in (images, wide):
        log_p = S.at_object(Middle(), searched, "scenes")
        assert log_p.argmax(1).tolist() == [1, 2, 3, 4]
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(4))


@pytest.mark.parametrize(
    ("kind", "name", "seed"),
    [("scenes", "scenes-disc", 0), ("scenes", "scenes-disc", 1), ("photos", "photos-logpolar", 1)],
)
def test_everything_about_one_network(monkeypatch, kind, name, seed):
    images, _ = marked()
    if kind == "scenes":
        model = Middle()
        monkeypatch.setattr(S, "deep_maps", lambda model, x, truth: {"deep": torch.ones(4, 32, 32)})
    else:
        model = tiny(name, 3)
    with assert_untouched(model):
        row = S.measured(model, images, kind, seed)
    deep = ["deep"] if kind == "scenes" else ["Grad-CAM", "largest factor", "factor of the class"]
    deep += ["Grad-CAM from the likeliest fixation"] * (kind == "photos")  # of the log-polar network
    assert set(row["maps"]) == {"likelihood", "confidence", "bound on the gain", *deep}
    # Every number of it comes into a row, none twice.
    rows = S.network_rows(row, set=kind, network=name, seed=seed)
    assert counted(rows) + Counter(numbers([line.get("n") for line in rows])) == Counter(numbers(row))
    # Only the first seed of the scenes' networks is asked from other places.
    assert ("known label, random places" in row["tried"]) == (kind == "scenes" and seed == 0)
    if kind == "photos":
        published = results.read("search").query("network == @name and table != 'baselines'")
        assert_same_rows(rows, published, ways=("table", "variant", "method", "metric"))
    if (kind, seed) != ("scenes", 0):
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
    assert row["maps"]["likelihood"]["in/out ratio"]["mean"] > 20
    assert 0.9 < row["maps"]["confidence"]["in/out ratio"]["mean"] < 1.1  # as sure of nothing
    crops = row["tried"]["known label, random places"]
    assert crops[0]["mean"] < crops[-1]["mean"] == 1


def small_result(number):
    """What is measured of a network, small: every mean is the number and a third."""
    mean = {"mean": number + 1 / 3, "error": 0.5}
    policy = {"alone": [mean] * 6, "fused": [mean] * 6, "forward passes": 6}
    search = {"policies": {"random": policy}, "whole grid": {"votes": mean}, "claimed more than right": mean}
    return {
        "glance": mean,
        "at the object": mean,
        "confidence when wrong": {"mean": math.nan, "error": math.nan},
        "confidence when right": mean,
        "searches": {
            "temperatures": [2.0, 3.0],
            "by calibration": {"as they are": search, "by temperature": search},
        },
        "tried": {"known label": [mean] * 7},
        "maps": {"likelihood": {"iou": mean | {"n": 2}, "in/out ratio": {"mean": 2.5, "n": 3}, "threshold": 0.5}},
    }


def test_the_record_of_searches(monkeypatch, tmp_path):
    fake_world(monkeypatch, S, lambda name, seed: (name, seed))
    asked = []

    def measured(model, images, kind, seed):
        asked.append((model, kind, seed))
        return small_result(len(asked))

    monkeypatch.setattr(S, "measured", measured)
    assert S.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    record = read_back(tmp_path / "runs" / "search.csv")
    assert record.attrs["seeds"] == {"scenes": [0, 1, 2], "photos": [0, 1]}
    settings = record.attrs["settings"]
    assert settings["grid"] == 7
    assert settings["tried"] == [1, 2, 4, 9, 16, 25, 49]
    assert settings["images"] == {"scenes": 4, "photos": 4}
    assert settings["size"] == {"scenes": 32, "photos": 32}
    members = [(kind, name, seed) for kind, names in P.PAIRS.items() for name in names for seed in P.SEEDS[kind]]
    assert asked == [((name, seed), kind, seed) for kind, name, seed in members]
    for number, (kind, name, seed) in enumerate(members, start=1):
        rows = select(record, set=kind, network=name, seed=seed)
        assert pick(rows, table="glance", metric="glance")["value"] == round(1 / 3 + number, 6)
        assert pick(rows, table="maps", metric="in/out ratio")["n"] == 3
        assert pick(rows, table="maps", metric="iou")["n"] == 2
        assert "n" not in pick(rows, table="maps", metric="threshold")  # is no mean
        fused = select(rows, table="policies", variant="by temperature", method="random", metric="fused")
        assert fused["step"].tolist() == [0, 1, 2, 3, 4, 5]
        assert select(rows, table="tried", method="known label")["step"].tolist() == list(S.TRIED)
        assert select(rows, metric="temperature")["value"].tolist() == [2, 3]
    for kind in P.PAIRS:
        counts = select(record, table="baselines", set=kind, method="centre").set_index("metric")["n"]
        assert counts.dropna().to_dict() == {
            "pointing game": 4, "mass in the box": 4, "best fixation inside": 4, "in/out ratio": 4, "iou": 2, "found": 2
        }  # fmt: skip
        # The first square lies in the middle, the second reaches it, the last two do not.
        assert pick(record, table="baselines", set=kind, method="centre", metric="pointing game")["value"] == 0.25
        assert set(select(record, table="baselines", set=kind)["method"]) == {"centre", "blurred contrast"}


def test_the_published_record_says_of_how_many_images_each_number_is():
    for table in ("maps", "baselines"):
        record = results.read("search", table)
        assert record[record["metric"] == "threshold"]["n"].isna().all()
        # Scenes, and photographs: 38 boxes are the whole image, and 261 leave no fixation outside.
        for kind, (every, odd, both) in {"scenes": (2000, 1000, 2000), "photos": (1962, 981, 1739)}.items():
            counts = record[record["set"] == kind].groupby("metric")["n"].unique().map(list)
            for metric in ("pointing game", "mass in the box", "best fixation inside"):
                assert counts[metric] == [every]
            assert (counts["iou"], counts["found"], counts["in/out ratio"]) == ([odd], [odd], [both])
    # A share and its error tell how many it is of.
    shares = results.read("search", "maps").query("metric in ('found', 'best fixation inside')")
    error = (shares["value"] * (1 - shares["value"]) / (shares["n"] - 1)) ** 0.5
    assert shares["error"].tolist() == pytest.approx(error.tolist(), abs=2e-6)


def test_the_published_header_is_the_one_that_a_run_writes_today(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(S, "load_images", lambda kind, device: marked(side=32)[0])
    monkeypatch.setattr(S, "world_rows", lambda *_: [])
    monkeypatch.setattr(S, "pair_header", lambda name, device, settings: asked.update(settings) or {})
    S.record(tmp_path, torch.device("cpu"))
    published = results.read("search").attrs
    assert published["data"] == results.read("retina").attrs["data"]  # the same images
    assert set(published["settings"]) == {*asked, "seed of the scenes"}
    of_images = ("images", "size")
    assert {key: value for key, value in asked.items() if key not in of_images}.items() <= published["settings"].items()
