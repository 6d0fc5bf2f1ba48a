"""Where a map is cut, and the boxes of what lies above: against scikit-image, a flood fill and by hand."""

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu
from support.refuses import refuses
from support.tensors import NAN, needs_cuda, normal, uniform

from helpers.data import digit_scenes
from helpers.similarnet import hotspots, map_threshold

# where to cut


def otsu_by_hand(values, bins=256):
    """The oracle: the middle of the bin after which the spread between the two groups is greatest."""
    counts, edges = np.histogram(values, bins)
    middles = (edges[:-1] + edges[1:]) / 2
    best, cut = -1.0, None
    for k in range(1, bins):
        low, high = counts[:k].sum(), counts[k:].sum()
        if low and high:
            apart = (counts[:k] * middles[:k]).sum() / low - (counts[k:] * middles[k:]).sum() / high
            if low * high * apart**2 > best * (1 + 1e-9):
                best, cut = low * high * apart**2, middles[k - 1]
    return cut


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 9, 13), (3, 20, 20), (2, 1, 50)])
def test_otsu_against_scikit_image_and_by_the_formula(shape, dtype):
    maps = normal(*shape, dtype=dtype) + 4 * (uniform(*shape, seed=1, dtype=dtype) > 0.8)
    actual = map_threshold(maps, "otsu")
    assert actual.shape == shape[:1]
    assert actual.dtype == dtype
    expected = torch.tensor([float(threshold_otsu(values.numpy())) for values in maps], dtype=dtype)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    for cut, values in zip(actual.tolist(), maps.double().numpy(), strict=True):
        assert cut == pytest.approx(otsu_by_hand(values), abs=1e-4)
    torch.testing.assert_close(map_threshold(maps), actual)  # the default


def test_otsu_parts_two_levels():
    maps = torch.zeros(2, 4, 4)
    maps[0, :2] = 1
    maps[1, 0, 0] = -5  # one dark place: everything else lies above
    cut = map_threshold(maps)
    assert 0 <= cut[0] < 1
    assert -5 <= cut[1] < 0
    assert (maps > cut[:, None, None]).sum((1, 2)).tolist() == [8, 15]


def test_the_cut_of_a_constant_map_is_its_value():
    assert map_threshold(torch.tensor([0.0, -3.5, 2.0]).view(3, 1, 1).expand(3, 4, 5)).tolist() == [0.0, -3.5, 2.0]


@pytest.mark.parametrize(
    "maps",
    [
        torch.ones(1, 4, 4).index_fill(2, torch.tensor(0), 1 + 2e-7),
        torch.full((1, 4, 4), 1e6).index_fill(2, torch.tensor(0), 1e6 + 1),
        torch.arange(16.0).view(1, 4, 4) * 1e-42,
    ],
    ids=["rounding at 1", "rounding at a million", "next to nothing"],
)
def test_otsu_of_maps_that_are_constant_but_for_rounding(maps):
    cut = map_threshold(maps)
    assert maps.min() <= cut <= maps.max()


def test_otsu_in_double_precision():
    maps = (1 + 1e-9 * torch.arange(16, dtype=torch.float64)).view(1, 4, 4)
    assert 5 <= (maps > map_threshold(maps)[:, None, None]).sum() <= 11  # about half


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_sigma_against_numpy(dtype):
    maps = 3 + normal(3, 7, 5, dtype=dtype)
    expected = maps.numpy().mean((1, 2)) + 2 * maps.numpy().std((1, 2), ddof=1)  # torch7's std, too, divides by n - 1
    actual = map_threshold(maps, "two sigma")
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, torch.from_numpy(expected))


def test_two_sigma_by_hand():
    maps = torch.tensor([[[0.0, 2.0], [4.0, 2.0]]])  # mean 2, squares 4 + 0 + 4 + 0 over 3
    assert map_threshold(maps, "two sigma").item() == pytest.approx(2 + 2 * (8 / 3) ** 0.5)
    assert map_threshold(torch.ones(1, 1, 1), "two sigma").tolist() == [1.0]  # of one place


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_a_share_of_the_maximum(share):
    maps = normal(3, 6, 5, dtype=torch.float64)
    maps[2] -= 10  # all below 0
    expected = torch.tensor([share * max(values.flatten().tolist()) for values in maps], dtype=torch.float64)
    torch.testing.assert_close(map_threshold(maps, share), expected)


@pytest.mark.parametrize("rule", ["otsu", "two sigma", 0.4])
def test_cuts_come_map_by_map_and_leave_the_maps_alone(rule):
    maps = normal(4, 8, 9).requires_grad_()
    copy = maps.detach().clone()
    actual = map_threshold(maps, rule)
    assert not actual.requires_grad
    assert torch.equal(maps, copy)
    torch.testing.assert_close(actual, torch.cat([map_threshold(values[None], rule) for values in maps]))


# hot spots


def flood(mask):
    """The oracle: lists of (row, column), one a region, neighbours across corners included."""
    left, regions = {(r, c) for r, c in zip(*np.nonzero(mask), strict=True)}, []
    while left:
        stack, region = [left.pop()], []
        while stack:
            r, c = stack.pop()
            region.append((int(r), int(c)))
            near = {(r + dr, c + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)} & left
            left -= near
            stack += near
        regions.append(region)
    return regions


def boxes_by_hand(values, cut, least):
    regions = [region for region in flood(values > cut) if len(region) >= least]
    regions.sort(key=lambda region: -sum(float(values[place]) for place in region))
    return [
        [min(c for _, c in r), min(y for y, _ in r), max(c for _, c in r) + 1, max(y for y, _ in r) + 1]
        for r in regions
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("least", [1, 2, 5])
@pytest.mark.parametrize("shape", [(4, 11, 17), (2, 24, 9), (3, 1, 20), (3, 20, 1), (1, 30, 30)])
@pytest.mark.parametrize("cut", [0.5, 1.2, -0.3])
def test_hotspots_against_a_flood_fill(shape, cut, least, dtype):
    maps = normal(*shape, seed=sum(shape), dtype=dtype)
    actual = hotspots(maps, cut, min_area=least)
    expected = [boxes_by_hand(values, cut, least) for values in maps.double().numpy()]
    assert actual.shape == (shape[0], max(map(len, expected)), 4)
    assert actual.dtype == torch.float32
    for boxes, own in zip(actual, expected, strict=True):
        assert boxes[: len(own)].tolist() == own
        assert boxes[len(own) :].isnan().all()


def canvas(*blocks, shape=(8, 10)):
    """A map of zeros with blocks (x0, y0, x1, y1, value)."""
    values = torch.zeros(shape)
    for x0, y0, x1, y1, value in blocks:
        values[y0:y1, x0:x1] = value
    return values[None]


def test_hot_spots_come_in_the_order_of_their_sums():
    maps = canvas((0, 0, 2, 2, 1.0), (4, 0, 7, 3, 0.5), (1, 5, 2, 6, 4.25), (6, 5, 10, 8, 0.3))
    # sums 4 * 1 = 4, 9 * 0.5 = 4.5, 4.25, 12 * 0.3 = 3.6; of the areas 4, 9, 1, 12 and means 1, 0.5, 4.25, 0.3 no order
    assert hotspots(maps, 0.1, 1)[0].tolist() == [[4, 0, 7, 3], [1, 5, 2, 6], [0, 0, 2, 2], [6, 5, 10, 8]]


def test_regions_below_the_least_area_are_left_out():
    maps = canvas((0, 0, 4, 3, 1.0), (6, 0, 9, 3, 9.0))  # 12 and 9 places
    assert hotspots(maps, 0.5)[0].tolist() == [[0, 0, 4, 3]]  # by default at least 12
    assert hotspots(maps, 0.5, min_area=12).shape == (1, 1, 4)
    assert hotspots(maps, 0.5, min_area=13).shape == (1, 0, 4)
    assert hotspots(maps, 0.5, min_area=9)[0].tolist() == [[6, 0, 9, 3], [0, 0, 4, 3]]


def test_diagonal_neighbours_touch():
    maps = canvas((0, 0, 2, 2, 1.0), (2, 2, 4, 4, 1.0), (4, 0, 6, 2, 1.0))
    assert hotspots(maps, 0.5, 1)[0].tolist() == [[0, 0, 6, 4]]


def test_a_place_counts_when_it_lies_above():
    maps = canvas((0, 0, 2, 2, 0.5), (5, 5, 6, 6, 0.75))
    assert hotspots(maps, 0.5, 1)[0].tolist() == [[5, 5, 6, 6]]


def test_maps_below_zero_have_hot_spots_too():
    maps = canvas((0, 0, 3, 3, 6.0), (5, 5, 7, 7, 8.0)) - 10  # -10 around; sums 9 * -4 = -36 and 4 * -2 = -8
    assert hotspots(maps, -9, 1)[0].tolist() == [[5, 5, 7, 7], [0, 0, 3, 3]]


def test_nan_fills_up_behind_the_last_region():
    maps = torch.cat([canvas((1, 1, 2, 2, 1.0)), canvas(), canvas((0, 0, 1, 1, 2.0), (3, 3, 5, 5, 1.0))])
    actual = hotspots(maps, 0.5, 1)
    assert actual.shape == (3, 2, 4)
    assert actual.isnan().all(2).tolist() == [[False, True], [True, True], [False, False]]
    assert actual.isnan().any(2).equal(actual.isnan().all(2))
    assert actual[2].tolist() == [[3, 3, 5, 5], [0, 0, 1, 1]]


@pytest.mark.parametrize("threshold", [5.0, float("inf"), torch.tensor([5.0, 6.0])])
def test_no_region_at_all(threshold):
    assert hotspots(canvas((0, 0, 9, 8, 5.0)).repeat(2, 1, 1), threshold).shape == (2, 0, 4)


@pytest.mark.parametrize("threshold", [-1, -1.0, -float("inf")])
def test_everything_is_hot(threshold):
    assert hotspots(uniform(2, 6, 7), threshold).tolist() == [[[0, 0, 7, 6]], [[0, 0, 7, 6]]]


@pytest.mark.parametrize("kind", [torch.tensor, list, lambda cuts: torch.tensor(cuts, dtype=torch.float64)])
def test_thresholds_one_a_map(kind):
    maps = normal(3, 12, 12)
    cuts = [0.3, 1.1, -0.4]
    actual = hotspots(maps, kind(cuts), 1)
    for boxes, values, cut in zip(actual, maps, cuts, strict=True):
        own = hotspots(values[None], cut, 1)[0]
        assert torch.equal(boxes[: len(own)], own)
        assert boxes[len(own) :].isnan().all()
    torch.testing.assert_close(hotspots(maps, torch.tensor(0.5), 1), hotspots(maps, 0.5, 1), equal_nan=True)


def test_the_cuts_of_a_rule_fit():
    maps = canvas((2, 1, 6, 5, 3.0)).repeat(2, 1, 1) * torch.tensor([1.0, 9.0])[:, None, None]
    for rule in ("otsu", 0.5):
        assert hotspots(maps, map_threshold(maps, rule)).tolist() == [[[2, 1, 6, 5]], [[2, 1, 6, 5]]]


def test_maps_are_left_alone_by_hotspots():
    maps = normal(2, 9, 9).requires_grad_()
    cuts = torch.zeros(2, requires_grad=True)
    copy = maps.detach().clone()
    assert not hotspots(maps, cuts, 1).requires_grad
    assert torch.equal(maps, copy)


def test_bad_arguments_are_refused():
    for rule in ("Otsu", 1.0):
        refuses(map_threshold, {"maps": uniform(1, 4, 4)}, maps=uniform(4, 4), rule=rule)
    for threshold in (torch.zeros(1), torch.tensor([0.5, NAN]), "otsu"):
        arguments = {"maps": uniform(2, 9, 9), "threshold": 0.5}
        refuses(hotspots, arguments, maps=uniform(4, 4), threshold=threshold, min_area=0)


@needs_cuda
def test_everything_is_the_same_on_the_gpu():
    maps = digit_scenes(6, 5, size=96, digits=(1, 3)).images[:, 0]
    for rule in ("otsu", "two sigma", 0.5):
        cut = map_threshold(maps.cuda(), rule)
        assert cut.is_cuda
        torch.testing.assert_close(cut.cpu(), map_threshold(maps, rule))
    boxes = hotspots(maps.cuda(), 0.5)
    assert boxes.is_cuda
    torch.testing.assert_close(boxes.cpu(), hotspots(maps, 0.5), equal_nan=True)
