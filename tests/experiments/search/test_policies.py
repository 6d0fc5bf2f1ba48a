"""Policies, the whole grid and calibration, by loops."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F
from support.searched import beliefs, check, noise, whole_numbers

from helpers.experiments.search import calibration as C
from helpers.experiments.search import policies as S
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
    results = S.policies(glance, log_p, truth, logits, accuracy)
    free = results.pop("information_gain_bound, returns allowed")
    assert set(results) == {*POLICIES, "max_logit"}
    assert set(S.WITHOUT_ACCURACY) == {*POLICIES} - {"expected"}
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
    looked = {name: row["forward passes"] for name, row in results.items()}
    assert looked == {name: 6 if name in ("random", "center", "expected") else 10 for name in looked}
    _, fused, walks = followed(scores["information_gain_bound"], inhibit=False)
    assert set(free) == {"fused", "stays"}
    for step in range(6):
        check(free["fused"][step], fused[:, step])
    check(free["stays"], [np.mean([a == b for a, b in pairwise(w)]) for w in walks])
    assert free["stays"]["mean"] > 0


def test_places_that_score_alike_are_looked_at_in_order():
    glance, log_p = beliefs(2, 3), beliefs(2, 49, 3, seed=1)
    views, _ = S.by_score(glance, log_p, torch.zeros(2, 49))
    torch.testing.assert_close(views, torch.cat([glance[:, None], log_p[:, :5]], 1))
    score = torch.zeros(2, 49)
    score[:, 24], score[:, 30] = 2, 1  # the middle was seen at the glance
    views, fused = S.by_score(glance, log_p, score)
    torch.testing.assert_close(views[:, 1:3], log_p[:, [30, 0]])
    torch.testing.assert_close(fused[:, 1], (glance + log_p[:, 30]).log_softmax(-1))


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


def overconfident(images=40, seed=0):
    truth = whole_numbers(4, images, seed=seed)
    scores = noise(images, 49, 4, seed=seed) + 1.2 * F.one_hot(truth, 4)[:, None]
    return (5 * scores).log_softmax(-1), truth


def test_each_half_of_the_images_calibrates_the_other():
    log_p, truth = overconfident(41)
    logits = log_p + 3 * noise(41, 49, 1, seed=2)
    glance = (log_p[:, 24] * 0.9).log_softmax(-1)
    measured = S.policies_by_calibration(glance, log_p, truth, logits)
    results = measured["by calibration"]
    parity = np.arange(41) % 2

    def likelihood(temperature, half):
        soft = scipy.special.log_softmax(log_p.numpy() / temperature, -1)
        return np.mean([soft[k, u, truth[k]] for k in range(41) if parity[k] == half for u in range(49)])

    best = [max(C.TEMPERATURES, key=lambda t, half=half: likelihood(t, half)) for half in (1, 0)]
    assert measured["temperatures"] == best
    assert best[0] not in (C.TEMPERATURES[0], C.TEMPERATURES[-1])
    hits = log_p.argmax(-1) == truth[:, None]
    accuracy = torch.stack([hits[parity != parity[k]].float().mean(0) for k in range(41)])
    drawn = [C.histogram_binning(log_p[parity != half], truth[parity != half]) for half in (0, 1)]
    ways = {
        "as they are": lambda answers, half: answers,
        "by temperature": lambda answers, half: (answers / best[half]).log_softmax(-1),
        "by confidence": lambda answers, half: drawn[half](answers),
    }
    assert set(results) == set(ways)
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
