"""Background textures."""

import numpy as np
import pytest

from helpers.data._draw import textures


@pytest.mark.parametrize("kind", range(8))
def test_textures_use_their_whole_range(kind):
    rng = np.random.default_rng(0)
    shape = (4, textures.PARAMETERS), (4, textures.CLOUD_VALUES)
    drawn = textures.background(np.full(4, kind), rng.random(shape[0]), rng.random(shape[1]), 64)
    assert drawn.shape == (4, 64, 64)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert (np.quantile(drawn, 0.9, axis=(1, 2)) - np.quantile(drawn, 0.1, axis=(1, 2)) > 0.25).all()
