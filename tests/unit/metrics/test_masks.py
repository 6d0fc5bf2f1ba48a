"""Maps against masks and against each other: by hand, by scipy and by scikit-learn."""

import functools
import math

import pytest
import scipy.ndimage
import scipy.stats
import sklearn.metrics
import torch
from support.metrics import INF, NAN, close, draw, exactly, float64, masks_of

from helpers.metrics import (
    best_inside,
    in_out_ratio,
    mass_in_mask,
    pixel_auc,
    pointing_game,
    rank_correlation,
)

# maps against masks

M = torch.tensor([[1.0, -5.0, 0.0], [3.0, 2.0, 4.0]])
OBJECT = masks_of([1, 1, 0], [1, 0, 0])


def test_pointing_game_by_hand():
    exactly(pointing_game(M, OBJECT), 0)
    exactly(pointing_game(M, ~OBJECT), 1)
    exactly(pointing_game(-M, OBJECT), 1)
    assert pointing_game(M, OBJECT).shape == ()


def test_pointing_game_shares_a_hit_among_tied_maxima():
    tied = torch.tensor([[7.0, 7.0, 0.0], [7.0, 1.0, 7.0]])
    exactly(pointing_game(tied, OBJECT), 0.75)
    exactly(pointing_game(tied, ~OBJECT), 0.25)
    exactly(pointing_game(tied, masks_of([0, 0, 1], [0, 1, 0])), 0)
    exactly(pointing_game(tied, masks_of([0, 0, 0], [0, 0, 1]), tolerance=1), 0.25)
    exactly(pointing_game(tied, masks_of([0, 0, 1], [0, 0, 0]), tolerance=1), 0.5)


def test_a_constant_map_never_hits():
    for value in (0.0, 3.0, -2.0):
        for mask in (OBJECT, torch.ones_like(OBJECT)):
            exactly(pointing_game(torch.full((2, 3), value), mask, tolerance=2), 0)
    exactly(pointing_game(torch.ones(1, 1), masks_of([1])), 0)


def test_an_empty_mask_has_nothing_to_point_at():
    for maps in (M, torch.zeros(2, 3)):
        for tolerance in (0, 5):
            exactly(pointing_game(maps, torch.zeros_like(OBJECT), tolerance=tolerance), NAN)
        exactly(mass_in_mask(maps, torch.zeros_like(OBJECT)), NAN)


@pytest.mark.parametrize(
    ("tolerance", "near"),
    [
        (0, ["X....", ".....", ".....", "....."]),
        (1, ["XX...", "X....", ".....", "....."]),
        (1.5, ["XX...", "XX...", ".....", "....."]),
        (2, ["XXX..", "XX...", "X....", "....."]),
        (2.5, ["XXX..", "XXX..", "XX...", "....."]),
        (3, ["XXXX.", "XXX..", "XXX..", "X...."]),
        (5, ["XXXXX", "XXXXX", "XXXXX", "XXXXX"]),
        (1e6, ["XXXXX"] * 4),
    ],
)
def test_tolerance_is_a_euclidean_distance_in_pixels(tolerance, near):
    mask = torch.zeros(20, 4, 5, dtype=torch.bool)
    mask[:, 0, 0] = True
    everywhere = torch.eye(20).view(20, 4, 5)  # the maximum at each place in turn
    expected = [[float(place == "X") for place in row] for row in near]
    exactly(pointing_game(everywhere, mask, tolerance=tolerance).view(4, 5), expected)


def test_mass_in_mask_by_hand():
    exactly(mass_in_mask(M, OBJECT), 0.4)  # 1 + 3 of 1 + 3 + 2 + 4
    exactly(mass_in_mask(M, torch.ones_like(OBJECT)), 1)
    exactly(mass_in_mask(M, masks_of([0, 1, 1], [0, 0, 0])), 0)
    exactly(mass_in_mask(torch.full((2, 3), 0.25), OBJECT), 0.5)  # an even map: the share of the area
    exactly(mass_in_mask(-torch.ones(2, 3), OBJECT), 0)
    exactly(mass_in_mask(torch.zeros(2, 3), torch.ones_like(OBJECT)), 0)
    assert mass_in_mask(M, OBJECT).shape == ()


def test_mass_in_mask_does_not_depend_on_the_scale_and_survives_sums_beyond_the_largest_number():
    even = torch.full((100, 100), 10.0, dtype=torch.float16)
    exactly(mass_in_mask(even, torch.ones(100, 100, dtype=torch.bool)), 1)
    for scale in (1e-37, 1e-20, 1e20, 3e38 / 5):
        close(mass_in_mask(M * scale, OBJECT), torch.tensor(0.4))


def test_pixel_auc_by_hand():
    row = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    exactly(pixel_auc(row, masks_of([0, 1, 0, 1])), 0.75)  # of four pairs only 2 against 3 is lost
    exactly(pixel_auc(row, masks_of([0, 0, 1, 1])), 1)
    exactly(pixel_auc(row, masks_of([1, 0, 0, 0])), 0)
    exactly(pixel_auc(torch.tensor([[0.0, 1.0, 1.0, 1.0]]), masks_of([0, 0, 1, 1])), 0.75)  # 1, 1, half, half
    exactly(pixel_auc(torch.tensor([[-0.0, 0.0]]), masks_of([0, 1])), 0.5)
    assert pixel_auc(row, masks_of([0, 1, 0, 1])).shape == ()


def test_pixel_auc_of_constant_maps_and_of_empty_and_full_masks():
    exactly(pixel_auc(torch.full((2, 3), 0.1), OBJECT), 0.5)
    for maps in (M, torch.zeros(2, 3)):
        exactly(pixel_auc(maps, torch.zeros_like(OBJECT)), NAN)
        exactly(pixel_auc(maps, torch.ones_like(OBJECT)), NAN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("levels", "shape"), [(3, (9, 7)), (20, (9, 7)), (None, (9, 7)), (50, (224, 224))])
def test_pixel_auc_against_scikit_learn(levels, shape, dtype):
    maps, masks = draw(4, *shape, levels=levels, dtype=dtype), draw(4, *shape, seed=1, levels=3) == 0
    expected = [sklearn.metrics.roc_auc_score(b.flatten(), a.flatten()) for a, b in zip(maps, masks, strict=True)]
    close(pixel_auc(maps, masks), torch.tensor(expected, dtype=dtype), rtol=1e-7, atol=0)


def test_rank_correlation_by_hand():
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    close(rank_correlation(a, torch.tensor([[1.0, 3.0], [2.0, 4.0]])), torch.tensor(0.8))  # 1 - 6 * 2 / (4 * 15)
    tied = torch.tensor([[1.0, 1.0], [2.0, 3.0]])  # ranks 1.5 1.5 3 4
    close(rank_correlation(tied, a), torch.tensor(4.5 / math.sqrt(4.5 * 5)))
    exactly(rank_correlation(a, a.exp()), 1)
    exactly(rank_correlation(a, -(a**3)), -1)
    exactly(rank_correlation(torch.tensor([[-0.0, 0.0, 1.0]]), torch.tensor([[5.0, 5.0, 6.0]])), 1)
    assert rank_correlation(a, a).shape == ()


def test_rank_correlation_of_a_constant_map_is_nan():
    for constant in (torch.full((2, 3), 0.1), torch.zeros(2, 3)):
        exactly(rank_correlation(M, constant), NAN)
        exactly(rank_correlation(constant, M), NAN)
        exactly(rank_correlation(constant, constant), NAN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("levels", "shape"), [(3, (9, 7)), (20, (9, 7)), (None, (9, 7)), (50, (224, 224))])
def test_rank_correlation_against_scipy(levels, shape, dtype):
    maps = draw(4, *shape, levels=levels, dtype=dtype)
    others = draw(4, *shape, seed=1, levels=levels, dtype=dtype) + maps
    expected = [
        scipy.stats.spearmanr(a.flatten(), b.flatten()).statistic
        for a, b in zip(maps.numpy(), others.numpy(), strict=1)
    ]
    close(rank_correlation(maps, others), torch.tensor(expected, dtype=dtype), rtol=1e-7, atol=0)


MEASURES = {
    "pointing_game": functools.partial(pointing_game, tolerance=1),
    "mass_in_mask": mass_in_mask,
    "pixel_auc": pixel_auc,
    "rank_correlation": lambda maps, masks: rank_correlation(maps, torch.where(masks, maps, 0)),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_number_a_map_whatever_the_leading_axes(measure, dtype):
    maps, masks = draw(2, 3, 5, 4, levels=6, dtype=dtype), draw(2, 3, 5, 4, seed=1, levels=2) == 0
    masks[0, 1] = False
    maps[1, 2] = 4
    several = measure(maps, masks)
    assert several.shape == (2, 3)
    assert several.dtype == dtype
    exactly(measure(maps[0], masks[0]), several[0])
    exactly(measure(maps[:, :, None], masks[:, :, None]), several[:, :, None])
    for i in range(2):
        for k in range(3):
            exactly(measure(maps[i, k], masks[i, k]), several[i, k])
    turned = measure(maps.mT.contiguous().mT, masks.mT.contiguous().mT)  # the same numbers, laid out by columns
    close(turned, several, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pixels_are_counted_also_in_half_precision(dtype):
    maps, mask = torch.zeros(300, 300, dtype=dtype), torch.zeros(300, 300, dtype=torch.bool)
    maps[0, 0], mask[:150] = -1, True
    exactly(pointing_game(maps, mask), torch.tensor(44999 / 89999).to(dtype))


MASKED = {"pointing_game": pointing_game, "mass_in_mask": mass_in_mask, "pixel_auc": pixel_auc}


@pytest.mark.parametrize("measure", MASKED.values(), ids=MASKED)
@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (M.mT, OBJECT, r"maps and masks must have one shape, got \(3, 2\) and \(2, 3\)"),
        (M * NAN, OBJECT, "maps must be finite"),
        (M, OBJECT.float(), "masks must be bool, got torch.float32"),
    ],
)
def test_bad_maps_and_masks_are_refused(measure, maps, masks, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        measure(maps, masks)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_correlation(M, M.mT), r"maps and others must have one shape, got \(2, 3\) and \(3, 2\)"),
        (lambda: rank_correlation(M * NAN, M), "maps must be finite"),
        (lambda: rank_correlation(M, OBJECT), "others must be floating point, got torch.bool"),
        (lambda: pointing_game(M, OBJECT, tolerance=-1e-9), "tolerance must be a finite number from 0 on, got -1e-09"),
        (lambda: in_out_ratio(M[None], OBJECT[None]), "maps must be at least 0, got -5"),
        (lambda: in_out_ratio(M.abs()[None], OBJECT), "maps and masks must have one shape"),
        (lambda: in_out_ratio(M.abs()[None], OBJECT[None].float()), "masks must be bool"),
        (lambda: best_inside(M[None], OBJECT), "maps and masks must have one shape"),
    ],
)
def test_other_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_measures_are_the_same_on_the_gpu():
    maps, masks = draw(3, 6, 7, levels=9), draw(3, 6, 7, seed=1, levels=2) == 0
    for name, measure in MEASURES.items():
        result = measure(maps.cuda(), masks.cuda())
        assert result.is_cuda, name
        close(result.cpu(), measure(maps, masks))
    for name, measure in MASKED.items():  # masks on the CPU are carried over
        close(measure(maps.cuda(), masks).cpu(), measure(maps, masks), msg=name)


# a ratio of means over a whole set


def test_in_out_ratio_by_hand():
    maps = float64([[[1, 2, 3], [4, 5, 6]], [[2, 0, 0], [0, 8, 0]]])
    masks = torch.stack([masks_of([0, 0, 1], [0, 0, 1]), masks_of([0, 0, 0], [0, 1, 0])])
    # Inside (3 + 6) / 2 = 4.5 and 8, outside (1 + 2 + 4 + 5) / 4 = 3 and 2 / 5 = 0.4: 6.25 / 1.7, not the mean of the
    # ratios 1.5 and 20, nor that of all pixels, (17 / 3) / (14 / 9).
    close(in_out_ratio(maps, masks), float64(6.25 / 1.7))
    assert in_out_ratio(maps, masks).shape == ()
    close(in_out_ratio(maps[:1], masks[:1]), float64(1.5))
    close(in_out_ratio(maps, ~masks), float64(1.7 / 6.25))
    close(in_out_ratio(torch.ones_like(maps), masks), float64(1))


def test_maps_without_an_inside_or_an_outside_are_left_out():
    maps, masks = draw(4, 3, 3).abs(), draw(4, 3, 3, seed=1, levels=2) == 0
    masks[1], masks[2] = False, True
    close(in_out_ratio(maps, masks), in_out_ratio(maps[[0, 3]], masks[[0, 3]]))
    assert in_out_ratio(maps, masks).isfinite()
    assert in_out_ratio(maps[1:3], masks[1:3]).isnan()
    exactly(in_out_ratio(masks[:1].double(), masks[:1]), INF)  # nothing beside the object


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 2, 2), (40, 13, 9)])
def test_in_out_ratio_equals_a_plain_loop(dtype, shape):
    maps, masks = draw(*shape, dtype=dtype).abs(), draw(*shape, seed=1, levels=3) == 0
    masks[0, 0, 0], masks[0, 0, 1] = True, False
    originals = maps.clone(), masks.clone()
    insides, outsides = [], []
    for values, mask in zip(maps.tolist(), masks.tolist(), strict=True):
        pairs = [
            (value, on) for row, hits in zip(values, mask, strict=True) for value, on in zip(row, hits, strict=True)
        ]
        within, beside = [v for v, on in pairs if on], [v for v, on in pairs if not on]
        if within and beside:
            insides.append(math.fsum(within) / len(within))
            outsides.append(math.fsum(beside) / len(beside))
    actual = in_out_ratio(maps, masks)
    assert actual.dtype == dtype
    close(actual, torch.tensor(sum(insides) / sum(outsides), dtype=dtype))
    exactly(maps, originals[0])
    assert masks.equal(originals[1])
    close(in_out_ratio(3 * maps, masks), actual)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_out_ratio_counts_its_pixels_also_in_half_precision(dtype):
    maps, masks = torch.ones(1, 600, 600, dtype=dtype), torch.zeros(1, 600, 600, dtype=torch.bool)
    masks[:, :300] = True  # 180,000 pixels, more than half precision's largest number
    exactly(in_out_ratio(maps, masks), 1)


def test_in_out_ratio_survives_sums_beyond_the_largest_number():
    maps, masks = torch.full((2, 4, 4), 3e38), torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 1:3, 1:3] = True
    close(in_out_ratio(maps, masks), torch.tensor(1.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_ratio_is_the_same_on_the_gpu():
    maps, masks = draw(3, 6, 7).abs(), draw(3, 6, 7, seed=1, levels=2) == 0
    for either in (masks, masks.cuda()):
        actual = in_out_ratio(maps.cuda(), either)
        assert actual.is_cuda
        close(actual.cpu(), in_out_ratio(maps, masks))


# the best place


def test_the_best_place_is_on_the_object():
    maps = torch.tensor([[[1.0, 2], [3, 4]], [[1, 2], [3, 4]], [[5, 5], [1, 1]], [[5, 1], [1, 5]]])
    masks = torch.tensor([[[0, 0], [0, 1]], [[0, 0], [1, 0]], [[1, 0], [0, 0]], [[1, 0], [0, 1]]]).bool()
    assert best_inside(maps, masks).tolist() == [1, 0, 0, 1]  # as good as one beside the object is not better


def test_mass_in_mask_does_not_depend_on_the_scale():
    for scale in (1e-37, 1e-20, 1e20):
        close(mass_in_mask(M * scale, OBJECT), torch.tensor(0.4))


def test_mass_in_mask_survives_sums_beyond_the_largest_number():
    even = torch.full((100, 100), 10.0, dtype=torch.float16)
    exactly(mass_in_mask(even, torch.ones(100, 100, dtype=torch.bool)), 1)
    close(mass_in_mask(M / 5 * 3e38, OBJECT), torch.tensor(0.4))
