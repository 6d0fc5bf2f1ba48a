"""Curves and bars."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from helpers.plots._panels import (
    CHAR_IN,
    FAINT,
    INK,
    SMALL_PT,
    TEXT_PT,
    WIDTH_IN,
    Picture,
    array,
    blank,
    number,
    own_style,
)

HEIGHT_IN, AROUND_IN = 3.6, 0.7  # of a chart, and what labels above and below the axes take of it
LABEL_IN = 1.5  # room on the right for the names of the lines
GAP = 0.01  # between two names, in heights of the axes
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
# The same colours for text, darkened until they stand out from white by 4.5 to 1.
TEXT_COLORS = ("#0072B2", "#B84F00", "#007A59", "#A8497F", "#8F6500", "#1F76A8", "#000000")
DASHES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)), (0, (6, 2)), (0, (2, 1)), "-")
BASELINE_DASHES = (":", (0, (5, 3)), (0, (1, 3)), (0, (8, 3, 1, 3)))


@own_style()
def curves(
    series: Mapping[str, Any],
    xlabel: str,
    ylabel: str,
    *,
    title: str = "",
    baselines: Mapping[str, float] | None = None,
    ylim: tuple[float, float] | None = None,
    log: bool = False,
    ticks: Sequence[str] | None = None,
) -> Picture:
    """Lines over a common axis; the name of each stands at its right end.

    Args:
        series: name -> y, or (x, y) as a tuple; up to seven. y is (n,), or (seeds, n): their mean is the line,
            from their least to their greatest value is shaded. x is 0 .. n - 1 when left out. NaN leaves a gap.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        title: above the axes.
        baselines: name -> value of a horizontal gray line.
        ylim: limits of the y axis.
        log: logarithmic y axis.
        ticks: names of the places 0, 1, 2 ... on the x axis, for example of layers.

    Raises:
        ValueError: no series or more than seven, another rank, x and y of different length, or another number of ticks
            than points.
    """
    _check_series(series, "series")
    figure, ax = _axes(title, ylabel)
    ends, whole = [], True
    for (name, line), color, ink, dash in zip(series.items(), COLORS, TEXT_COLORS, DASHES, strict=False):
        x, y = _xy(name, line)
        mean, whole = y.mean(0), whole and np.array_equal(x, x.round())
        ax.plot(x, mean, color=color, linestyle=dash, linewidth=2, marker="o" if len(x) == 1 else None)
        ends.append((name, ink, *_end(x, mean)))
        if len(y) > 1:
            ax.fill_between(x, y.min(0), y.max(0), color=color, alpha=0.18, linewidth=0)
    _baselines(ax, baselines or {})
    ax.set_xlabel(xlabel, fontsize=TEXT_PT, color=INK)
    ax.set_yscale("log" if log else "linear")
    ax.set_ylim(ylim)
    ax.margins(x=0.02)
    if ticks is not None:
        if len(ticks) != len(mean):
            raise ValueError(f"ticks must name all {len(mean)} points, got {len(ticks)}")
        ax.set_xticks(range(len(ticks)), ticks, fontsize=SMALL_PT)
    elif whole:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_lines(ax, ends + [(name, INK, ax.get_xlim()[1], value) for name, value in (baselines or {}).items()])
    return figure


@own_style()
def bars(
    values: Mapping[str, Any],
    ylabel: str,
    *,
    title: str = "",
    baselines: Mapping[str, float] | None = None,
    ylim: tuple[float, float] | None = None,
) -> Picture:
    """One bar a name, with its number; several seeds are drawn as points on the bar of their mean.

    Args:
        values: name -> a number, or a list of numbers, one a seed.
        ylabel: what the bars measure, with its unit.
        title: above the axes.
        baselines: name -> value of a horizontal gray line.
        ylim: limits of the y axis.

    Raises:
        ValueError: no value, or another rank.
    """
    if not values:
        raise ValueError("values must hold at least one bar, got none")
    seeds = [np.atleast_1d(array(value, f"values[{name!r}]")) for name, value in values.items()]
    if any(values_by_seed.ndim > 1 for values_by_seed in seeds):
        raise ValueError("values must be a number or a list of numbers a name, got an array of higher rank")
    figure, ax = _axes(title, ylabel, min(WIDTH_IN, 1.2 + 1.2 * len(seeds)))
    for i, values_by_seed in enumerate(seeds):
        mean = values_by_seed.mean()
        ax.bar(i, mean, width=0.62, color=COLORS[0])
        top = max(0.0, values_by_seed.max()) if mean >= 0 else min(0.0, values_by_seed.min())
        style: dict[str, Any] = {
            "ha": "center",
            "va": "bottom" if mean >= 0 else "top",
            "fontsize": SMALL_PT,
            "color": INK,
        }
        ax.annotate(number(mean), (i, top), (0, 3 if mean >= 0 else -3), textcoords="offset points", **style)
        if len(values_by_seed) > 1:
            spots = i + np.linspace(-0.16, 0.16, len(values_by_seed))
            ax.scatter(spots, values_by_seed, s=18, color="white", edgecolor=INK, linewidth=0.8, zorder=3)
    room = max(6, int(0.85 * figure.get_figwidth() / len(seeds) / CHAR_IN))  # characters under a bar
    ax.set_xticks(range(len(seeds)), [textwrap.fill(name, room) for name in values])
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.margins(y=0.12)
    ax.set_ylim(ylim)
    _baselines(ax, baselines or {})
    if baselines:
        ax.set_xlim(-0.5, len(seeds) - 0.5)
        _name_lines(ax, [(name, INK, ax.get_xlim()[1], value) for name, value in baselines.items()])
    return figure


def _axes(title: str, ylabel: str, width_in: float = WIDTH_IN) -> tuple[Picture, Axes]:
    figure = blank(width_in, HEIGHT_IN)
    ax = figure.subplots()
    ax.set_title(title, fontsize=TEXT_PT, color=INK, loc="left")
    ax.set_ylabel(ylabel, fontsize=TEXT_PT, color=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.tick_params(labelsize=SMALL_PT, labelcolor=INK, color=FAINT)
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    return figure, ax


def _end(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The last point of a line that there is."""
    there = np.flatnonzero(np.isfinite(y))
    last = there[-1] if len(there) else -1
    return float(x[last]), float(y[last])


def _name_lines(ax: Axes, ends: Sequence[tuple[str, str, float, float]]) -> None:
    """Write names beside the right ends of lines: (name, colour, x, y) each, spread where ends are near.

    A name stands to the right of the axes, at its line's height or, joined to it by a thin line, as near as may be.
    """
    room = max(8, int(LABEL_IN / CHAR_IN))
    names = [textwrap.fill(name, room) for name, *_ in ends]
    line_high = 1.25 * SMALL_PT / 72 / (HEIGHT_IN - AROUND_IN)  # a line of text, in heights of the axes
    heights = np.array([line_high * (name.count("\n") + 1) + GAP for name in names])
    to_axes = (ax.transData + ax.transAxes.inverted()).transform
    levels_of_ends = np.array([to_axes((x, y))[1] if np.isfinite(y) else 0.0 for *_, x, y in ends]).clip(0, 1)
    colors = [color for _, color, *_ in ends]
    for color, name, old, new in zip(colors, names, levels_of_ends, _spread(levels_of_ends, heights), strict=True):
        style: dict[str, Any] = {"xycoords": ax.transAxes, "textcoords": ax.transAxes, "annotation_clip": False}
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0.0, 0.5)}
        ax.annotate(
            name,
            (1.005, old),
            (1.03, new),
            **style,
            color=color,
            fontsize=SMALL_PT,
            va="center",
            linespacing=1.0,
            arrowprops=line if abs(new - old) > 0.5 * line_high else None,
        )


def _spread(levels_of_ends: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """The middles of texts of these heights, none over another, as near as may be to these levels."""
    order = np.argsort(levels_of_ends, kind="stable")
    apart = (heights[order][:-1] + heights[order][1:]) / 2
    offsets = np.concatenate([[0.0], np.cumsum(apart)])
    # With the offsets taken off, texts that must not meet are a sequence that must not fall: isotonic regression.
    levels = isotonic_regression(levels_of_ends[order] - offsets, increasing=True).x
    lowest, highest = heights[order[0]] / 2, 1 - offsets[-1] - heights[order[-1]] / 2
    levels = np.maximum(np.minimum(levels, highest), min(lowest, highest))
    middles = np.empty_like(levels_of_ends)
    middles[order] = levels + offsets
    return middles


def _baselines(ax: Axes, baselines: Mapping[str, float]) -> list:
    if len(baselines) > len(BASELINE_DASHES):
        raise ValueError(f"baselines must be at most {len(BASELINE_DASHES)}, got {len(baselines)}")
    pairs = zip(baselines.values(), BASELINE_DASHES, strict=False)
    return [ax.axhline(float(value), color=INK, linestyle=dash, linewidth=1.4) for value, dash in pairs]


def _check_series(series: Mapping[str, Any], name: str) -> None:
    if not 1 <= len(series) <= len(COLORS):
        raise ValueError(f"{name} must hold 1 .. {len(COLORS)} lines that can be told apart, got {len(series)}")


def _xy(name: str, line: Any) -> tuple[np.ndarray, np.ndarray]:
    """x (n,) and y (seeds, n)."""
    y = array(line[1] if isinstance(line, tuple) else line, f"series[{name!r}]")
    if y.ndim not in (1, 2):
        raise ValueError(f"series[{name!r}] must have shape (n,) or (seeds, n), got {y.shape}")
    y = np.atleast_2d(y)
    x = array(line[0], f"x of series[{name!r}]") if isinstance(line, tuple) else np.arange(y.shape[1])
    if x.shape != y.shape[1:]:
        raise ValueError(f"x of series[{name!r}] must have shape {y.shape[1:]}, as y has, got {x.shape}")
    return x, y
