"""Windows of scenes under a gaze near the object."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.experiments.train import datasets
from helpers.experiments.train.recipes import RECIPES


@pytest.fixture(scope="module")
def searched():
    return datasets.searched_scenes(80, 3)


@pytest.fixture(scope="module")
def gazes(searched):
    """Where each window was cut, x and y in pixels: found by its pixels, wherever they may lie in the padded scene."""
    windows = datasets.under_the_gaze(searched, 5)
    padded = torch.nn.functional.pad(searched.images, (32, 32, 32, 32), value=0.5)
    places_found = []
    for scene, window in zip(padded, windows, strict=True):
        same = torch.ones(129, 129, dtype=torch.bool)  # a gaze from 0 to 128 along each axis
        for row in range(3, 64, 10):
            for column in range(3, 64, 10):
                place = scene[:, row : row + 129, column : column + 129]
                same &= (place - window[:, row, column, None, None]).abs().amax(0) < 1e-5
        places = [
            (x, y) for y, x in same.nonzero().tolist() if (scene[:, y : y + 64, x : x + 64] - window).abs().max() < 1e-5
        ]
        assert len(places) == 1  # no window but the one; and every pixel is one of the scene's, or 0.5
        places_found.append(places[0])
    return torch.tensor(places_found, dtype=torch.float32)


def test_windows_are_slices_around_a_gaze_near_the_object(searched, gazes):
    windows = datasets.under_the_gaze(searched, 5)
    assert windows.shape == (80, 3, 64, 64)
    assert windows.dtype == torch.float32
    middle = (searched.boxes[:, 0, :2] + searched.boxes[:, 0, 2:]) / 2
    away = gazes - middle
    inside = ((gazes > 0) & (gazes < 128)).all(1)  # the others were held at the edge
    assert inside.double().mean() > 0.8
    assert away[inside].std(0).tolist() == pytest.approx([8, 8], abs=1.6)
    assert away[inside].mean(0).tolist() == pytest.approx([0, 0], abs=3)
    assert away.abs().max() < 35
    assert torch.corrcoef(away[inside].T)[0, 1].abs() < 0.35


def test_beyond_the_scene_all_is_gray(searched, gazes):
    windows = datasets.under_the_gaze(searched, 5)
    beyond = 0
    for (x, y), window in zip(gazes.int().tolist(), windows, strict=True):
        rows = torch.arange(64) + y - 32
        columns = torch.arange(64) + x - 32
        off = ((rows < 0) | (rows > 127))[:, None] | ((columns < 0) | (columns > 127))
        assert (window[:, off] == 0.5).all()
        beyond += bool(off.any())
    assert beyond > 20


def test_the_world_under_the_gaze(monkeypatch):
    monkeypatch.setattr(datasets, "TEST_SCENES", 24)
    recipe = replace(RECIPES["scenes-disc"], images=16)
    split = datasets.load_split(recipe, 2)
    assert list(split.tests) == ["test"]
    assert split.classes == datasets.CLASSES
    assert "gaze" in split.what
    for part, n, seed in ((split.train, 16, 2), (split.tests["test"], 24, datasets.TEST_SEED)):
        assert part.images.shape == (n, 3, 64, 64)
        assert part.images.dtype == torch.uint8
        drawn = datasets.searched_scenes(n, seed)
        assert part.labels.equal(drawn.labels[:, 0])
        # A scene's pixels are bytes, of which nothing is lost; the gray beyond it is none, and is rounded.
        exact = datasets.under_the_gaze(drawn, seed) * 255
        assert (part.images - exact).abs().max() <= 0.5 + 1e-4
        grey = (exact - 127.5).abs() < 1e-3
        assert ((exact - exact.round()).abs() < 1e-3)[~grey].all()
        assert grey.any()
        assert (part.images[grey] == 128).all()
