"""Intervals of means and of paired differences: against the formula for normal numbers, and what pairing is for."""

import numpy as np
import pytest
import torch

from helpers import metrics

DRAW = torch.Generator().manual_seed(0)


def test_an_interval_is_about_two_standard_errors():
    values = torch.randn(400, generator=DRAW)
    mean, low, high = metrics.mean_interval(values)
    error = values.std().item() / 20
    assert mean == pytest.approx(values.mean().item())
    assert (mean - low, high - mean) == (pytest.approx(1.96 * error, rel=0.15), pytest.approx(1.96 * error, rel=0.15))
    narrow = metrics.mean_interval(values, confidence=0.5)
    assert high - low > 2 * (narrow.high - narrow.low)
    assert metrics.mean_interval(values) == metrics.mean_interval(values)
    assert metrics.mean_interval(values, seed=1) != metrics.mean_interval(values)


def test_it_holds_the_true_mean_as_often_as_it_says():
    held = []
    for seed in range(200):
        values = torch.rand(40, generator=torch.Generator().manual_seed(seed))
        _, low, high = metrics.mean_interval(values, confidence=0.8, resamples=300, seed=seed)
        held.append(low <= 0.5 <= high)
    assert 0.72 <= sum(held) / 200 <= 0.88


def test_equal_values_and_missing_ones():
    assert metrics.mean_interval(torch.full((5,), 2.0)) == (2, 2, 2)
    assert metrics.mean_interval(torch.tensor([1.0, float("nan"), 3.0])).mean == 2


def test_pairing_finds_a_small_difference_between_images_that_differ_much():
    images = 10 * torch.randn(200, generator=DRAW)
    better = images + 0.5 + 0.5 * torch.randn(200, generator=DRAW)
    table = metrics.paired_differences({"base": images, "better": better, "same": images.clone()}, "base")
    assert table["method"].tolist() == ["better", "same"]
    row, same = table.iloc[0], table.iloc[1]
    assert row["low"] > 0.3
    assert row["p"] < 0.01
    assert (same["mean"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)
    assert table["n"].tolist() == [200, 200]
    alone = metrics.mean_interval(better)
    assert alone.low < images.mean() < alone.high  # unpaired, nothing would be seen
    turned = metrics.paired_differences({"better": better, "base": images}, "better")
    assert turned["mean"].item() == pytest.approx(-row["mean"])


def test_chance_is_corrected_for_the_number_of_comparisons():
    noise = {f"{k}": torch.randn(50, generator=DRAW) for k in range(21)}
    table = metrics.paired_differences(noise, "0", resamples=1000)
    raw = [
        metrics.paired_differences({"0": noise["0"], k: noise[k]}, "0", resamples=1000)["p"].item()
        for k in table["method"]
    ]
    assert (table["p"].to_numpy() >= np.array(raw) - 1e-12).all()
    assert min(raw) < table["p"].min()


def test_images_without_a_score_are_left_out_of_all():
    scores = {"a": torch.tensor([1.0, 2, 3, float("nan")]), "b": torch.tensor([1.0, float("nan"), 5, 6])}
    row = metrics.paired_differences(scores, "a").iloc[0]
    assert (row["mean"], row["n"]) == (1, 2)


def test_bad_scores_are_refused():
    a, b = torch.rand(5), torch.rand(4)
    for call, message in (
        (lambda: metrics.mean_interval(a[:1]), "the number of values must"),
        (lambda: metrics.mean_interval(a[None]), "values must"),
        (lambda: metrics.mean_interval(a, confidence=1.0), "confidence must"),
        (lambda: metrics.mean_interval(a, resamples=0), "resamples must"),
        (lambda: metrics.paired_differences({"a": a}, "a"), "the number of methods must"),
        (lambda: metrics.paired_differences({"a": a, "b": b}, "a"), r"scores\['b'\] must"),
        (lambda: metrics.paired_differences({"a": a, "b": a}, "c"), "reference must"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
