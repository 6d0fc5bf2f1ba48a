"""The picture on the first page: it is what the code draws, and its caption is true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from helpers.networks import LeNet
from tools import cover

pytestmark = pytest.mark.slow  # it trains a network


@pytest.fixture(scope="module")
def net() -> LeNet:
    """The network of the picture; it takes a quarter of a minute to train."""
    return cover.network()


def test_the_committed_picture_is_what_the_code_draws(net: LeNet, tmp_path: Path) -> None:
    committed = cover.ROOT / "book" / "images" / "cover.png"
    drawn, expected = (torch.tensor(imread(file))[..., :3] for file in (cover.main(tmp_path, net), committed))
    assert drawn.shape == expected.shape
    # Training on another machine may differ in the last digits of a map, not in the picture.
    assert (drawn - expected).abs().mean() < 0.02


def test_the_caption_is_true(net: LeNet) -> None:
    images = cover.pictures()
    with torch.no_grad():
        assert net(images).argmax(1).tolist() == [cover.DIGIT] * 3
        maps = net.features(images).sum(1)  # (3, 12, 12)
    right, down = (torch.tensor(cover.CORNERS[i]) - torch.tensor(cover.CORNERS[0]) for i in (1, 2))
    for other, shift in ((1, right), (2, down)):
        rows, columns = (shift // 4).tolist()
        inner = slice(2, 7)
        moved = maps[other, 2 + rows : 7 + rows, 2 + columns : 7 + columns]
        assert torch.allclose(maps[0, inner, inner], moved, atol=1e-4)
