"""Scan paths over images."""

import numpy as np
import pytest
import torch
from matplotlib.patches import Circle, Rectangle
from support.figures import GRAY, PATHS, arrays, limits, written

from helpers import plots


def test_scan_paths_lie_where_the_gaze_was():
    wide = np.zeros((2, 4, 10))
    path = [[0, 0], [-1, 1], [0.5, -0.5]]
    figure = plots.scanpaths(wide, [path, path[::-1]], ["there", "back"])
    # x 0 is in the middle, 5; -1 the left edge, 0; 0.5 is 1.5 / 2 * 10 = 7.5; y likewise 2, 4 and 0.5 / 2 * 4 = 1.
    pixels = [[5, 2], [0, 4], [7.5, 1]]
    assert [ax.lines[0].get_xydata().tolist() for ax in figure.axes] == [pixels, pixels[::-1]]
    assert [[list(text.get_position()) for text in ax.texts] for ax in figure.axes] == [pixels, pixels[::-1]]
    assert written(figure) == ["0", "1", "2"] * 2
    assert [ax.get_title() for ax in figure.axes] == ["there", "back"]
    assert all(text.get_bbox_patch() is not None for ax in figure.axes for text in ax.texts)
    assert not any(ax.patches for ax in figure.axes)


def test_a_circle_is_drawn_around_the_last_fixation():
    figure = plots.scanpaths(np.zeros((1, 4, 10)), [[0, 0], [0.5, -0.5]], radius=0.75)
    (circle,) = figure.axes[0].patches
    assert isinstance(circle, Circle)
    assert circle.center == (7.5, 1)
    assert circle.radius == 1.5  # 0.75 times half the shorter side, 2
    assert not circle.get_fill()
    (circle,) = plots.scanpaths(np.zeros((1, 6, 2)), [[0, 0]], radius=1).axes[0].patches
    assert (circle.center, circle.radius) == ((1, 3), 1)


def test_what_was_sought_is_drawn_under_the_path():
    sought = [[1, 2, 5, 6], [np.nan] * 4, [0, 0, 10, 8]]
    figure = plots.scanpaths(GRAY, [[0, 0], [0.5, -0.5]], radius=0.5, boxes=np.array(sought))
    drawn = [[p for p in ax.patches if isinstance(p, Rectangle)] for ax in figure.axes]
    assert [[(*p.get_xy(), p.get_width(), p.get_height()) for p in patches] for patches in drawn] == [
        [(1, 2, 4, 4)], [], [(0, 0, 10, 8)]
    ]  # fmt: skip
    circle = next(p for p in figure.axes[0].patches if isinstance(p, Circle))
    assert drawn[0][0].get_edgecolor() != circle.get_edgecolor()
    assert [(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes] == [((0, 10), (8, 0))] * 3
    assert [ax.lines[0].get_xydata().tolist() for ax in figure.axes] == [[[5, 4], [7.5, 2]]] * 3  # one path on each


@pytest.mark.parametrize("path", [[[0, 0]], torch.tensor([[-1.0, -1], [1, 1]])])
@pytest.mark.parametrize("radius", [None, 1.0])
def test_a_scan_path_leaves_the_panel_as_large_as_its_image(path, radius):
    figure = plots.scanpaths(GRAY, path, radius=radius)
    figure.draw_without_rendering()
    assert [(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes] == [((0, 10), (8, 0))] * 3


def test_scan_paths_show_gray_images_and_bytes_from_black_to_white():
    whole = torch.tensor([[[0, 51], [255, 102]]], dtype=torch.uint8)
    figure = plots.scanpaths(whole, torch.zeros(1, 2))
    np.testing.assert_allclose(arrays(figure)[0], [[0, 0.2], [1, 0.4]])
    assert limits(figure) == [(0, 1)]
    assert figure.axes[0].images[0].cmap.name == "gray"
    columns = {round(ax.get_position().x0, 3) for ax in plots.scanpaths(GRAY, PATHS, columns=2).axes}
    assert len(columns) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.scanpaths(GRAY, PATHS[:2]), r"fixations must be \(S, 2\) or \(3, S, 2\), got \(2, 3, 2\)"),
        (lambda: plots.scanpaths(GRAY, PATHS, ["a"]), "titles must give 3"),
        (lambda: plots.scanpaths(GRAY, PATHS, boxes=np.zeros((2, 4))), "boxes must give one entry"),
        (lambda: plots.scanpaths(GRAY, PATHS, columns=0), "columns must be a positive"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
