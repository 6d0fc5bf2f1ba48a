"""Curves and bars."""

import numpy as np
import pytest
from support.figures import written

from helpers import plots


def test_curves_draw_mean_spread_and_baselines():
    seeds = [[0, 2, 4], [2, 4, 12]]
    figure = plots.curves({"a": ([1, 2, 5], seeds), "b": [1, 0, 1]}, "epoch", "loss", baselines={"chance": 2.3})
    ax = figure.axes[0]
    a, b, chance = ax.lines
    np.testing.assert_array_equal(a.get_xydata(), [[1, 1], [2, 3], [5, 8]])
    np.testing.assert_array_equal(b.get_xydata(), [[0, 1], [1, 0], [2, 1]])
    assert chance.get_ydata() == [2.3, 2.3]
    edge = {tuple(point) for point in ax.collections[0].get_paths()[0].vertices}
    assert {(1, 0), (1, 2), (2, 2), (2, 4), (5, 4), (5, 12)} <= edge
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "chance"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert len({(line.get_color(), str(line.get_linestyle())) for line in ax.lines}) == 3
    named = plots.curves({"a": [1.0, 2.0, 3.0]}, "layer", "error", ticks=["conv1", "pool1", "fc1"])
    assert [label.get_text() for label in named.axes[0].get_xticklabels()] == ["conv1", "pool1", "fc1"]


def test_bars_show_mean_number_and_seeds():
    figure = plots.bars({"a": [1, 2, 6], "b": -0.5}, "hits", baselines={"chance": 0.25})
    ax = figure.axes[0]
    assert [bar.get_height() for bar in ax.patches] == [3, -0.5]
    assert written(figure) == ["3", "−0.5"]
    assert ax.collections[0].get_offsets()[:, 1].tolist() == [1, 2, 6]
    assert any(list(line.get_ydata()) == [0.25, 0.25] for line in ax.lines)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.curves({}, "x", "y"), "series must hold 1 .. 7"),
        (
            lambda: plots.curves({"a": [1, 2, 3]}, "x", "y", ticks=["a", "b"]),
            "ticks must name all 3 points, got 2",
        ),
        (lambda: plots.curves({"a": ([1, 2], [1, 2, 3])}, "x", "y"), r"must have shape \(3,\), as y has, got \(2,\)"),
        (lambda: plots.bars({}, "y"), "at least one bar"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
