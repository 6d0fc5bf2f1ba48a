"""Occlusion by hand and against captum."""

import pytest
import torch
from support.refuses import refuses
from support.saliency import REGIONS, Sum, X, batch, by_hand, captum_attribution, score, tiny
from torch import nn

from helpers.saliency import occlusion, region_occlusion


def test_region_drops_by_hand():
    regions = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 1, 2], [0, 1, 0, 2, 2], [0, 0, 0, 2, 2]])
    assert region_occlusion(by_hand(), X, 0, regions).tolist() == [0.5, 0, 3.5, 4]
    assert region_occlusion(by_hand(), X, [[1, 0]], regions).tolist() == [[-1.5, 0.5], [0, 0], [-10.5, 3.5], [-12, 4]]
    # covered by 1, which the network makes 2: ReLU 2 2 6 8, 2 0 2 2, 2 2 2 2
    assert region_occlusion(by_hand(), X, 0, regions, fill=1).tolist() == [0, -0.5, 2.5, 2]


def test_each_region_is_taken_from_its_own_image_with_its_own_target():
    x = torch.stack([X[0], 10 * X[0]])
    regions = torch.tensor([[1, 0, 0, 1, 1], [0, 1, 1, 2, 2], [1, 1, 1, 2, 2], [0, 0, 0, 1, 1]])
    assert region_occlusion(by_hand(), x, torch.tensor([0, 1]), regions).tolist() == [-15, 2, -60, 0.5]
    fill = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 2.0)])
    assert region_occlusion(by_hand(), x, 0, regions, fill=fill).tolist() == [4, 2, 19, 0.5]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_regions_of_any_integers(dtype):
    net, x = tiny(), batch()
    torch.testing.assert_close(region_occlusion(net, x, 1, REGIONS.to(dtype)), region_occlusion(net, x, 1, REGIONS))


def test_occlusion_by_hand():
    x = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 1, 3)
    assert occlusion(Sum(), x, 0, window=(1, 2), stride=1).tolist() == [[[3, 4.5, 6]]]
    assert occlusion(Sum(), x, 0, window=(1, 2), stride=(1, 2)).tolist() == [[[3, 3, 4]]]  # the last one is cut
    assert occlusion(Sum(), x, [[0, 1]], window=1, stride=1).tolist() == [[[[1, 2, 4]], [[-1, -2, -4]]]]
    assert occlusion(Sum(), x, 1, window=(1, 2), stride=(1, 2), fill=1.0).tolist() == [[[-1, -1, -3]]]


@pytest.mark.parametrize("fill", [0.0, 0.5, batch(seed=9)])
def test_a_window_as_large_as_the_image_takes_the_whole_score(fill):
    net, x = tiny(), batch()
    filled = torch.as_tensor(fill, dtype=torch.float64).expand(x.shape)
    expected = score(net, x, 2) - score(net, filled, 2)
    actual = occlusion(net, x, 2, window=7, stride=7, fill=fill)
    torch.testing.assert_close(actual, expected[:, None, None].expand(2, 7, 7))


@pytest.mark.parametrize(
    ("window", "stride"),
    [(3, 1), (3, 2), (2, 2), (4, 3), (5, 4), ((2, 3), (2, 2)), ((3, 2), 2), ((4, 5), (3, 1)), ((7, 1), (4, 1))],
)
@pytest.mark.parametrize("wide", [7, 6])
def test_occlusion_is_captums(window, stride, wide):
    x, target = batch()[..., :wide], torch.tensor([2, 0])
    net = nn.Sequential(*tiny()[:4], nn.AdaptiveAvgPool2d(2), *tiny()[4:])
    pair = [(n, n) if isinstance(n, int) else n for n in (window, stride)]
    expected = captum_attribution("Occlusion", net)(x, (3, *pair[0]), (3, *pair[1]), baselines=0.3, target=target)
    actual = occlusion(net, x, target, window=window, stride=stride, fill=0.3)
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual[:, None].expand(-1, 3, -1, -1), expected.double(), rtol=0, atol=1e-5 * scale)


OUTSIDE = [[2, 0, 0, 1, 1], [-1, 0, 0, 1, 1], [0, -1, 0, 1, 1], [0, 0, -1, 1, 1], [0, 0, 0, 8, 1], [0, 0, 0, 1, 7]]
EMPTY = [[0, 2, 0, 2, 1], [0, 0, 2, 1, 2]]


@pytest.mark.parametrize("row", OUTSIDE + EMPTY)
def test_regions_outside_their_image_or_empty_are_refused(row):
    regions = torch.tensor([[0, 0, 0, 1, 1], row])
    with pytest.raises(ValueError, match=rf"^regions must lie in 2 images of 7 x 6 .*got row \{row}"):
        region_occlusion(Sum(), batch()[..., :6], 1, regions)


def test_bad_arguments_are_refused():
    arguments = {"model": tiny(), "x": batch(), "target": 1}
    refuses(region_occlusion, arguments, regions=torch.tensor([[0, 0, 1, 1]]))
    for window, stride in ((0, 0), (8, 4), ((7, 8), (3, 4))):
        refuses(occlusion, arguments | {"window": 3, "stride": 2}, window=window, stride=stride)


def test_many_windows_do_not_overflow_half_precision():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 2, bias=False)).half()
    with torch.no_grad():
        net[1].weight.fill_(0.2)
    drops = occlusion(net, torch.ones(1, 1, 64, 64).half(), 0, window=32, stride=1, batch_size=256)
    assert drops.max().item() == pytest.approx(32 * 32 * 0.2, rel=2e-3)


@pytest.mark.parametrize(("size", "window", "stride"), [((64, 64), 16, 8), ((40, 24), (10, 6), (5, 3))])
def test_the_window_follows_the_size_of_the_images(size, window, stride):
    net = nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1], 2)).double()
    x = torch.rand(1, 1, *size, dtype=torch.float64)
    torch.testing.assert_close(occlusion(net, x, 1), occlusion(net, x, 1, window=window, stride=stride))
