"""Exact random numbers and rendering."""

import math

import numpy as np
import pytest

from helpers.data._draw import random as raster
from helpers.data._draw import sdf as outlines


def test_uniforms_are_the_top_53_bits():
    raw = np.random.PCG64([3, 1]).random_raw(2)
    expected = [int(r) // 2**11 / 2**53 for r in raw]
    assert raster.uniforms(raster.bit_stream(3, 1), 2).tolist() == expected


def test_rotation_agrees_with_cos_and_sin():
    degrees = np.linspace(-90, 90, 37)
    cos, sin = raster.rotation(degrees)
    np.testing.assert_allclose(cos, [math.cos(math.radians(d)) for d in degrees], atol=4e-4)
    np.testing.assert_allclose(sin, [math.sin(math.radians(d)) for d in degrees], atol=4e-4)
    np.testing.assert_allclose(cos * cos + sin * sin, 1, atol=1e-15)


def test_coverage_of_a_square_by_hand():
    # A square of 8 x 8 pixels about (8, 8) in 16 x 16; then moved by half a pixel to the right.
    field = outlines._field([np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])])[None]
    matrix, zero = np.eye(2)[None] / 4, np.zeros(1)
    centred = raster.coverage(field, np.array([0]), matrix, np.array([[8.0, 8.0]]), np.array([4.0]), 16, zero)[0]
    assert centred[4:12, 4:12].min() > 0.9
    assert centred.sum() == pytest.approx(64, abs=2)
    moved = raster.coverage(field, np.array([0]), matrix, np.array([[8.5, 8.0]]), np.array([4.0]), 16, zero)[0]
    np.testing.assert_allclose(moved[8, [3, 4, 5, 11, 12, 13]], [0, 0.5, 1, 1, 0.5, 0], atol=0.02)
    grown = raster.coverage(field, np.array([0]), matrix, np.array([[8.0, 8.0]]), np.array([4.0]), 16, zero + 1)[0]
    assert (grown[8] > 0.5).sum() == 10


def test_coverage_reads_between_grid_points():
    """A half-plane's distance is linear, so sampling it between grid points must give it back."""
    axis = np.linspace(-1.5, 1.5, raster.FIELD_POINTS)
    field = (0.6 * axis[None, :] + 0.8 * axis[:, None]).astype(np.float32)[None]
    centre, scale = np.array([[3.1, 4.7]]), np.array([5.0])
    drawn = raster.coverage(field, np.array([0]), np.eye(2)[None] / 5, centre, scale, 8, np.zeros(1))[0]
    x, y = np.meshgrid(np.arange(8) + 0.5 - 3.1, np.arange(8) + 0.5 - 4.7)
    np.testing.assert_allclose(drawn, np.clip(0.5 - (0.6 * x + 0.8 * y), 0, 1), atol=1e-5)
