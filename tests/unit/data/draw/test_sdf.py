"""Outlines and their signed distance fields."""

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from helpers import data
from helpers.data._draw import sdf as outlines


def test_signed_distance_of_a_square_by_hand():
    square = [np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])]
    x, y = np.array([0.0, 0.5, 2.0, 4.0, -1.0]), np.array([0.0, 0.0, 0.0, 5.0, 0.0])
    # The middle, inside, outside a side, outside a corner (3-4-5), on a side.
    assert outlines.signed_distance(square, x, y).tolist() == [-1.0, -0.5, 1.0, 5.0, 0.0]


def test_signed_distance_leaves_the_hole_of_a_ring_open():
    x, y = np.array([0.0, 0.75, 1.2]), np.zeros(3)
    assert (outlines.signed_distance(outlines.shape_contours("ring"), x, y) < 0).tolist() == [False, True, False]


@pytest.mark.parametrize("name", [n for n in data.CLASSES if n != "ring"])
def test_inside_agrees_with_matplotlib(name):
    contour = outlines.shape_contours(name)[0]
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 2))
    inside = outlines.signed_distance([contour], points[:, 0], points[:, 1]) < 0
    assert (inside == Polygon(contour).contains_points(points)).all()


def test_glyph_contours_are_font_units():
    # The "1" of DejaVu Sans, read off the font: one contour of straight lines.
    (contour,) = outlines.glyph_contours("DejaVuSans.ttf", "1")
    assert contour[:5].tolist() == [[254, 170], [584, 170], [584, 1309], [225, 1237], [225, 1421]]
    assert len(outlines.glyph_contours("DejaVuSans.ttf", "8")) == 3  # the outline and its two holes
