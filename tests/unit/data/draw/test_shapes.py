"""Colours of shapes."""

import numpy as np

from helpers.data._draw import shapes as drawing


def test_luminance_is_exact():
    u = np.random.default_rng(0).random((100, 3))
    luminance = np.linspace(0.06, 0.94, 100)
    colour = drawing.luminance_colour(u, luminance, np.ones(100))
    np.testing.assert_allclose(colour @ [0.299, 0.587, 0.114], luminance, atol=1e-6)
    assert colour.min() >= -1e-6
    assert colour.max() <= 1 + 1e-6
