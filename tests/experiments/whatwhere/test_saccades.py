"""What the what/where model gets right, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.searched import CPU, beliefs, noise, whole_numbers
from torch import nn

from helpers.data import digits
from helpers.experiments.whatwhere import saccades as V
from helpers.search import Glimpses, WhatNet


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
    some_digits, asked, shown = digits(9, 2), [], []
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
    row = V.searched("what", "where", some_digits, 20, 0.5, 6, CPU, True, 4.0)
    images, seed, places, contrast = shown[0]
    assert (len(images), seed, contrast) == (4, 6, 0.5)
    assert places.dtype == torch.int64
    assert places.double().norm(dim=1).tolist() == pytest.approx([20] * 4, abs=0.8)
    assert len({tuple(place) for place in places.tolist()}) == 4
    what, where, x, saccades, view, cautious = asked[0]
    assert (what, where, saccades, cautious) == ("what", "where", 3, True)
    assert view is V.window
    torch.testing.assert_close(x, real(images, 6, places=places, contrast=0.5).images - 0.5)
    labels = [next(k for k in range(9) if some_digits.images[k].equal(log_p)) for log_p in images]
    labels = some_digits.labels[labels]
    others = ["one saccade to the lightest spot", "one saccade to the true place"]
    for key, column, (asked_of, seen, at, how) in zip(others, (1, 0), looks, strict=True):
        assert row[key] == pytest.approx(np.mean([views[k, column].argmax() == labels[k] for k in range(4)]))
        assert (asked_of, how) == ("what", V.window)
        torch.testing.assert_close(seen, x)
        assert at.shape == (4, 1, 2)
    torch.testing.assert_close(looks[1][2][:, 0].double() * 64, places.double())
    torch.testing.assert_close(looks[0][2][:, 0], V.lightest(x, 4.0))
    for key, log_p in (("alone", views), ("fused", fused)):
        expected = [np.mean([log_p[k, s].argmax() == labels[k] for k in range(4)]) for s in range(4)]
        assert row[key] == pytest.approx(expected)
    # Distances after a saccade: 0, 20, 2, 3; then 5, 11, 12, 13; then 10, 10, 20, 1. The median is the lower one.
    assert row["distance (px)"][1:] == pytest.approx([2, 11, 10], abs=1e-4)
    assert row["missed"] == pytest.approx([1, 0.25, 0.75, 0.25])  # 10 pixels are near enough
    assert row["moved"] == 0.75  # the second one stays
    assert V.searched("what", "where", some_digits, 0, 0.5, 6, CPU, False, 4.0)
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


def test_the_blur_that_leads_best_is_chosen(monkeypatch):
    monkeypatch.setattr(V, "TESTED", 4)
    some_digits, asked = digits(9, 2), []
    _, labels = V.displays(some_digits, 24, 0.3, 5)

    def lightest(x, blur_px):
        asked.append((x, blur_px))
        return torch.full((4, 2), blur_px)

    right = {2.0: 1, 4.0: 3, 6.0: 2}
    monkeypatch.setattr(V, "SPOTS_PX", tuple(right))
    monkeypatch.setattr(V, "lightest", lightest)
    monkeypatch.setattr(
        V, "answers", lambda what, x, at: torch.where(torch.arange(4) < right[at[0, 0].item()], labels, 99)
    )
    assert V.best_blur("what", some_digits, 0.3, 5, CPU) == 4.0
    assert [px for _, px in asked] == [2.0, 4.0, 6.0]
    torch.testing.assert_close(asked[0][0], V.displays(some_digits, 24, 0.3, 5)[0].images - 0.5)


def test_a_scan_is_every_fourth_window():
    torch.manual_seed(4)
    what = WhatNet().eval()
    x = noise(2, 1, 128, 128)
    log_p = V.scan(what, x)
    edges = torch.arange(0, 101, 4)
    assert log_p.shape == (2, len(edges) ** 2, 10)
    with torch.no_grad():
        for number, (row, column) in enumerate((int(a), int(b)) for a in edges for b in edges):
            if number % 37 == 0 or number == log_p.shape[1] - 1:
                expected = what(x[:, :, row : row + 28, column : column + 28]).log_softmax(1)
                torch.testing.assert_close(log_p[:, number], expected, rtol=1e-4, atol=1e-5)
    # And a window is what the gaze sees from its middle.
    at = torch.tensor([[(40 + 14) / 64 - 1, (60 + 14) / 64 - 1]])
    torch.testing.assert_close(V.window(x, at)[:, 0], x[:, :, 60:88, 40:68], rtol=1e-3, atol=1e-4)


def test_scans_beside_saccades(monkeypatch):
    monkeypatch.setattr(V, "TESTED", 4)
    monkeypatch.setattr(V, "SCAN_BATCH", 3)
    some_digits = digits(9, 2)
    _, labels = V.displays(some_digits, 24, 0.5, 6)
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
    led = torch.stack([said(label, 0.5) for label in torch.stack([labels[0], labels[1], labels[2], wrong[3]])])
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
    row = V.scanned("what", "where", some_digits, 0.5, 6, CPU)
    assert [len(x) for x in asked] == [3, 1]
    torch.testing.assert_close(torch.cat(asked), V.displays(some_digits, 24, 0.5, 6)[0].images - 0.5)
    assert row["scan, most confident"] == pytest.approx(0.5)
    assert row["scan, summed evidence"] == pytest.approx(0.25)
    assert row["saccade"] == pytest.approx(0.75)
    assert set(row["seconds a display"]) == {"scan", "saccade"}
    assert set(row) == {"scan, most confident", "scan, summed evidence", "saccade", "seconds a display"}
