"""Photographs of the installed wheels."""

import pytest
import torch

from helpers import data


@pytest.mark.parametrize("name", data.PHOTOS)
def test_photos(name):
    picture = data.photo(name)
    assert picture.dtype == torch.float32
    assert picture.ndim == 3
    assert picture.shape[0] == 3
    assert picture.min() >= 0
    assert 0.5 < picture.max() <= 1
    assert picture.is_contiguous()


def test_photos_are_upright_and_in_colour():
    assert data.photo("cat").shape == (3, 300, 451)
    assert data.photo("brick")[0].equal(data.photo("brick")[2])
    red, _, blue = data.photo("rocket")[:, 200:400].mean((1, 2))
    assert red != blue
    red, green, blue = data.photo("retina")[:, 600:800, 600:800].mean((1, 2))
    assert red > green > blue  # an eye's background is orange


def test_unknown_photo_lists_near_names():
    with pytest.raises(ValueError, match="did you mean astronaut"):
        data.photo("astronat")
