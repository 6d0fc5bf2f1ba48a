"""The authors' own pictures: the strongest hot spots lie on the writing. Skipped where the pictures are not there."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import data, results, similarnet
from helpers.cam import upsample
from helpers.experiments.similarnet.pictures import SIGNS
from helpers.networks import load

ARCHIVES = Path(os.environ.get("HELPERS_ARCHIVES", Path(__file__).resolve().parents[3] / "shared" / "data"))
# Around all signs of a picture, with some pixels to spare.
WRITING = {
    name: (min(s[0] for s in signs) - 8, min(s[1] for s in signs) - 10, max(s[2] for s in signs) + 8,
           max(s[3] for s in signs) + 10)
    for name, signs in SIGNS.items()
}  # fmt: skip
RULES = ("e - E, raw (code)", "softmax of E - e (paper)")


def picture(name: str) -> torch.Tensor:
    """One of the authors' pictures, gray, (1, 1, H, W) in [0, 1]."""
    folders = [data.data_dir() / "similarnet", ARCHIVES / "similarnet"]
    paths = [folder / name for folder in folders if (folder / name).exists()]
    if not paths:
        pytest.skip("the SIMILARnet authors' pictures are not here")
    return torch.from_numpy(np.array(Image.open(paths[0]).convert("L")))[None, None].float() / 255


def hottest(image: torch.Tensor, rule: str, count: int, keep_pools: bool = False, cut: str = "two sigma"):
    table = results.read("similarnet", "weights").query("seed == 0 and method == @rule")
    weights = torch.tensor(table["value"].to_numpy(), dtype=torch.float32)
    maps = similarnet.features_at_any_size(load("lenet-mnist", "cpu"), image, layer="pool2", keep_pools=keep_pools)
    heat = upsample(similarnet.heatmap(maps, weights), tuple(image.shape[2:]))
    return similarnet.hotspots(heat, similarnet.map_threshold(heat, cut), min_area=100)[0, :count]


@pytest.mark.parametrize("name", WRITING)
def test_the_hottest_spots_lie_on_the_writing(name):
    spots = hottest(picture(name), "e - E, raw (code)", count=4)
    x0, y0, x1, y1 = WRITING[name]
    assert len(spots) == 4
    assert (spots >= torch.tensor([x0, y0, x0, y0])).all()
    assert (spots <= torch.tensor([x1, y1, x1, y1])).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("keep_pools", [True, False])
def test_the_four_signs_of_the_light_painting_are_its_hottest_spots(rule, keep_pools):
    spots = hottest(picture("numbers4.jpg"), rule, count=4, keep_pools=keep_pools)
    # "0", "8", "5" and the degree sign, from left to right.
    expected = torch.tensor([[158, 187, 241, 450], [302, 162, 413, 467], [423, 146, 571, 492], [610, 125, 723, 267]])
    assert (spots[spots[:, 0].argsort()] - expected).abs().max() < 12
