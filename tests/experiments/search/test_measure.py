"""The record of searches: policies, references and calibration by loops, and what it writes."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from support.records import counted, numbers, read_back
from support.rows import assert_same_rows, pick, select
from support.searched import Middle, beliefs, check, fake_world, marked, means, noise, tiny, whole_numbers
from support.untouched import assert_untouched

from helpers import results
from helpers.experiments import matched_pairs as P
from helpers.experiments.search import calibration as C
from helpers.experiments.search import measure as S
from helpers.search import POLICIES, expected_gain, fixation_grid, information_gain_bound


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_right_by_hand():
    log_p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]]).log()
    assert S.right(log_p, torch.tensor([0, 2])).tolist() == [1, 0]
    views = torch.stack([log_p, log_p.flip(-1)], 1)  # answers 0, 2 and 1, 1
    hits = S.right(views, torch.tensor([2, 1]))
    assert hits.tolist() == [[0, 1], [1, 1]]
    assert hits.dtype == torch.float64
    assert S.right(views[:, None], torch.tensor([0, 1])).tolist() == [[[1, 0]], [[1, 1]]]


def test_policies_by_a_loop(monkeypatch):
    monkeypatch.setattr(S, "GRID", 3)
    images, places, classes = 7, 9, 4
    glance, log_p = beliefs(images, classes), beliefs(images, places, classes, seed=1)
    truth = whole_numbers(classes, images)
    logits, accuracy = 3 * noise(images, places, classes, seed=5), torch.rand(images, places, generator=seeded(6))
    bare = S.policies(glance, log_p, truth)
    again = "information_gain_bound, returns allowed"
    assert set(bare) == {*POLICIES, again} - {"expected"}
    results = S.policies(glance, log_p, truth, logits, accuracy)
    assert set(results) == {*POLICIES, "max_logit", again}
    assert {name: results[name] for name in bare} == bare
    assert S.SACCADES == 5
    draw = torch.Generator().manual_seed(0)
    chance = [torch.rand(images, places, generator=draw) for _ in range(5)]
    far = fixation_grid(3).flatten(0, 1).norm(dim=1)

    def bound(belief, k):
        return information_gain_bound(belief[None], log_p[k][None])[0]

    scores = {
        "known_label": lambda k, _, step: log_p[k, :, truth[k]],
        "max_confidence": lambda k, _, step: log_p[k].amax(1),
        "max_logit": lambda k, _, step: logits[k].amax(1),
        "fused_confidence": lambda k, belief, step: (belief + log_p[k]).softmax(-1).amax(-1),
        "expected": lambda k, belief, step: expected_gain(belief[None], accuracy[[k]])[0],
        "information_gain_bound": lambda k, belief, step: bound(belief, k),
        "random": lambda k, _, step: chance[step][k],
        "center": lambda k, _, step: -far.square(),
    }

    def followed(score, inhibit=True):
        alone, fused, walks = [], [], []
        for k in range(images):
            belief, seen, walk = glance[k], [4] if inhibit else [], []  # place 4 is the middle
            last, both = [int(glance[k].argmax() == truth[k])], [int(glance[k].argmax() == truth[k])]
            for step in range(5):
                ranked = score(k, belief, step).clone()
                ranked[seen] = -math.inf
                place = int(ranked.argmax())
                seen += [place] if inhibit else []
                walk.append(place)
                belief = (belief + log_p[k, place]).log_softmax(0)
                last.append(int(log_p[k, place].argmax() == truth[k]))
                both.append(int(belief.argmax() == truth[k]))
            alone.append(last)
            fused.append(both)
            walks.append(walk)
        return np.array(alone), np.array(fused), walks

    by_chance = followed(scores["random"])[1]
    for name, score in scores.items():
        alone, fused, _ = followed(score)
        row = results[name]
        for step in range(6):
            check(row["alone"][step], alone[:, step])
            check(row["fused"][step], fused[:, step])
            check(row["fused, more than random"][step], fused[:, step] - by_chance[:, step])
        assert len(row["alone"]) == len(row["fused"]) == 6
    looked = {name: row["forward passes"] for name, row in results.items() if "forward passes" in row}
    assert looked == {name: 6 if name in ("random", "center", "expected") else 10 for name in looked}
    _, fused, walks = followed(scores["information_gain_bound"], inhibit=False)
    again = results[again]
    for step in range(6):
        check(again["fused"][step], fused[:, step])
    check(again["returns"], [np.mean([a == b for a, b in pairwise(w)]) for w in walks])
    assert again["returns"]["mean"] > 0


def test_the_whole_grid_by_a_loop():
    log_p, truth = beliefs(40, 5, 3), whole_numbers(3, 40, seed=4)
    shares = S.whole_grid(log_p, truth)
    right = {name: [] for name in shares}
    for views, label in zip(log_p.tolist(), truth.tolist(), strict=True):
        votes = Counter(int(np.argmax(view)) for view in views)
        right["votes"].append(max(range(3), key=lambda k: votes[k]) == label)
        right["mean probability"].append(np.exp(views).mean(0).argmax() == label)
        right["summed evidence"].append(np.sum(views, 0).argmax() == label)
    for name, values in right.items():
        check(shares[name], values)
    assert len({tuple(values) for values in right.values()}) == 3


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


def overconfident(images=40, seed=0):
    truth = whole_numbers(4, images, seed=seed)
    scores = noise(images, 49, 4, seed=seed) + 1.2 * F.one_hot(truth, 4)[:, None]
    return (5 * scores).log_softmax(-1), truth


def test_each_half_of_the_images_calibrates_the_other():
    log_p, truth = overconfident(41)
    logits = log_p + 3 * noise(41, 49, 1, seed=2)
    glance = (log_p[:, 24] * 0.9).log_softmax(-1)
    results = S.policies_by_calibration(glance, log_p, truth, logits)
    assert set(results) == {"temperatures", "as they are", "by temperature", "by confidence"}
    parity = np.arange(41) % 2

    def likelihood(temperature, half):
        soft = scipy.special.log_softmax(log_p.numpy() / temperature, -1)
        return np.mean([soft[k, u, truth[k]] for k in range(41) if parity[k] == half for u in range(49)])

    best = [max(C.TEMPERATURES, key=lambda t, half=half: likelihood(t, half)) for half in (1, 0)]
    assert results["temperatures"] == best
    assert best[0] not in (C.TEMPERATURES[0], C.TEMPERATURES[-1])
    hits = log_p.argmax(-1) == truth[:, None]
    accuracy = torch.stack([hits[parity != parity[k]].float().mean(0) for k in range(41)])
    drawn = [C.histogram_binning(log_p[parity != half], truth[parity != half]) for half in (0, 1)]
    ways = {
        "as they are": lambda answers, half: answers,
        "by temperature": lambda answers, half: (answers / best[half]).log_softmax(-1),
        "by confidence": lambda answers, half: drawn[half](answers),
    }
    for name, mended in ways.items():
        first, all_of = (torch.stack([mended(answers[k], parity[k]) for k in range(41)]) for answers in (glance, log_p))
        assert results[name]["policies"] == S.policies(first, all_of, truth, logits, accuracy)
        assert results[name]["whole grid"] == S.whole_grid(all_of, truth)
        sure, right = all_of.exp().amax(-1), all_of.argmax(-1) == truth[:, None]
        check(results[name]["claimed more than right"], (sure - right.float()).mean(1))
    assert len({json.dumps(results[name]) for name in ways}) == 3
    gaps = [abs(results[name]["claimed more than right"]["mean"]) for name in ways]
    assert gaps[0] > 0.15
    assert gaps[2] < 0.05


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
    assert set(row["maps"]) == {"likelihood", "confidence", "bound on the gain", *deep, "images"}
    # Every number of it comes into a row, none twice.
    rows = S.network_rows(row, set=kind, network=name, seed=seed)
    assert counted(rows) + Counter([float(row["maps"]["images"])]) == Counter(numbers(row))
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
    assert row["maps"]["likelihood"]["in/out ratio"] > 20
    assert 0.9 < row["maps"]["confidence"]["in/out ratio"] < 1.1  # as sure of nothing
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
        "searches": {"temperatures": [2.0, 3.0], "as they are": search, "by temperature": search},
        "tried": {"known label": [mean] * 7},
        "maps": {"likelihood": {"iou": mean, "in/out ratio": 2.5}, "images": 3},
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
        fused = select(rows, table="policies", variant="by temperature", method="random", metric="fused")
        assert fused["step"].tolist() == [0, 1, 2, 3, 4, 5]
        assert select(rows, table="tried", method="known label")["step"].tolist() == list(S.TRIED)
        assert select(rows, metric="temperature")["value"].tolist() == [2, 3]
    for kind in P.PAIRS:
        # The first square lies in the middle, the second reaches it, the last two do not.
        assert pick(record, table="baselines", set=kind, method="centre", metric="pointing game")["value"] == 0.25
        assert set(select(record, table="baselines", set=kind)["method"]) == {"centre", "blurred contrast"}
