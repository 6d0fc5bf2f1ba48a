"""Curves and bars."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from support.figures import written

from helpers import plots
from helpers.plots._charts import TEXT_COLORS, _spread


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
    assert not figure.legends
    assert written(figure) == ["a", "b", "chance"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert len({(line.get_color(), str(line.get_linestyle())) for line in ax.lines}) == 3
    named = plots.curves({"a": [1.0, 2.0, 3.0]}, "layer", "error", ticks=["conv1", "pool1", "fc1"])
    assert [label.get_text() for label in named.axes[0].get_xticklabels()] == ["conv1", "pool1", "fc1"]


def named(figure):
    """Where the names of lines stand, in heights of the axes."""
    return {text.get_text().replace("\n", " "): text.get_position()[1] for text in figure.axes[0].texts}


def test_names_stand_at_the_ends_of_their_lines():
    figure = plots.curves({"low": [1.0, 0.0], "gone": [0.5, np.nan], "high": [0.0, 1.0]}, "x", "y", ylim=(0, 1))
    places = named(figure)
    assert (places["low"], places["gone"], places["high"]) == pytest.approx((0.04, 0.5, 0.96), abs=0.02)
    log = plots.curves({"a": [1.0, 1e-2]}, "x", "y", baselines={"b": 1e-4}, ylim=(1e-4, 1), log=True)
    assert named(log)["a"] == pytest.approx(0.5, abs=0.02)


def test_names_of_lines_that_meet_do_not():
    lines = {f"line {k}": [0.0, 0.5] for k in range(7)}
    baselines = {f"baseline {k} of two lines": 0.5 for k in range(4)}
    places = sorted(named(plots.curves(lines, "x", "y", baselines=baselines, ylim=(0, 1))).values())
    assert len(places) == 11
    assert min(np.diff(places)) > 0.04
    assert np.mean(places) == pytest.approx(0.5, abs=0.1)
    assert 0 < places[0] < places[-1] < 1


@pytest.mark.parametrize(
    ("wanted", "middles"), [([0.5, 0.5], [0.4, 0.6]), ([0.9, 0.1], [0.9, 0.1]), ([1, 1], [0.7, 0.9])]
)
def test_spread_moves_as_little_as_may_be(wanted, middles):
    np.testing.assert_allclose(_spread(np.array(wanted, float), np.array([0.2, 0.2])), middles)


def test_the_names_can_be_read():
    for color in TEXT_COLORS:
        r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(color))
        assert 1.05 / (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05) >= 4.5, color  # WCAG's contrast with white


def test_bars_show_mean_number_and_seeds():
    figure = plots.bars({"a": [1, 2, 6], "b": -0.5}, "hits", baselines={"chance": 0.25})
    ax = figure.axes[0]
    assert [bar.get_height() for bar in ax.patches] == [3, -0.5]
    assert written(figure) == ["3", "−0.5", "chance"]
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
