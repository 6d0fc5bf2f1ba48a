import functools
import math

import pytest
import scipy.ndimage
import scipy.stats
import sklearn.metrics
import torch
import torchvision
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.metrics import (
    blurred_map,
    box_iou,
    box_mask,
    center_map,
    deletion,
    in_out_ratio,
    insertion,
    mass_in_mask,
    pixel_auc,
    pointing_game,
    random_map,
    rank_correlation,
)

NAN, INF = float("nan"), float("inf")
close = torch.testing.assert_close
float64 = functools.partial(torch.tensor, dtype=torch.float64)


def exactly(found, wanted):
    close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=0, atol=0, equal_nan=True)


def masks_of(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def draw(*shape, seed=0, levels=None, dtype=torch.float64):
    """Seeded normal numbers, or integers below `levels`, of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    if levels is None:
        return torch.randn(shape, generator=generator, dtype=dtype)
    return torch.randint(levels, shape, generator=generator).to(dtype)


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
        (0.5, ["X....", ".....", ".....", "....."]),
        (1, ["XX...", "X....", ".....", "....."]),
        (1.4, ["XX...", "X....", ".....", "....."]),
        (1.5, ["XX...", "XX...", ".....", "....."]),
        (2, ["XXX..", "XX...", "X....", "....."]),
        (2.5, ["XXX..", "XXX..", "XX...", "....."]),
        (3, ["XXXX.", "XXX..", "XXX..", "X...."]),
        (5, ["XXXXX", "XXXXX", "XXXXX", "XXXXX"]),
        (60.5, ["XXXXX"] * 4),
    ],
)
def test_tolerance_is_a_euclidean_distance_in_pixels(tolerance, near):
    mask = torch.zeros(20, 4, 5, dtype=torch.bool)
    mask[:, 0, 0] = True
    everywhere = torch.eye(20).view(20, 4, 5)  # the maximum at each place in turn
    wanted = [[float(place == "X") for place in row] for row in near]
    exactly(pointing_game(everywhere, mask, tolerance=tolerance).view(4, 5), wanted)


def test_a_tolerance_far_larger_than_the_image_costs_nothing():
    exactly(pointing_game(M, masks_of([1, 0, 0], [0, 0, 0]), tolerance=1e6), 1)


def test_mass_in_mask_by_hand():
    exactly(mass_in_mask(M, OBJECT), 0.4)  # 1 + 3 of 1 + 3 + 2 + 4
    exactly(mass_in_mask(M, torch.ones_like(OBJECT)), 1)
    exactly(mass_in_mask(M, masks_of([0, 1, 1], [0, 0, 0])), 0)
    exactly(mass_in_mask(torch.full((2, 3), 0.25), OBJECT), 0.5)  # an even map: the share of the area
    exactly(mass_in_mask(-torch.ones(2, 3), OBJECT), 0)
    exactly(mass_in_mask(torch.zeros(2, 3), torch.ones_like(OBJECT)), 0)
    assert mass_in_mask(M, OBJECT).shape == ()


def test_mass_in_mask_does_not_depend_on_the_scale():
    for scale in (1e-37, 1e-20, 1e20):
        close(mass_in_mask(M * scale, OBJECT), torch.tensor(0.4))


def test_mass_in_mask_survives_sums_beyond_the_largest_number():
    even = torch.full((100, 100), 10.0, dtype=torch.float16)
    exactly(mass_in_mask(even, torch.ones(100, 100, dtype=torch.bool)), 1)
    close(mass_in_mask(M / 5 * 3e38, OBJECT), torch.tensor(0.4))


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
    wanted = [sklearn.metrics.roc_auc_score(b.flatten(), a.flatten()) for a, b in zip(maps, masks, strict=True)]
    close(pixel_auc(maps, masks), torch.tensor(wanted, dtype=dtype), rtol=1e-7, atol=0)


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
    wanted = [
        scipy.stats.spearmanr(a.flatten(), b.flatten()).statistic
        for a, b in zip(maps.numpy(), others.numpy(), strict=1)
    ]
    close(rank_correlation(maps, others), torch.tensor(wanted, dtype=dtype), rtol=1e-7, atol=0)


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
        (M[None], OBJECT, r"maps and masks must have one shape, got \(1, 2, 3\) and \(2, 3\)"),
        (M.mT, OBJECT, r"maps and masks must have one shape, got \(3, 2\) and \(2, 3\)"),
        (M, OBJECT[:1], r"maps and masks must have one shape, got \(2, 3\) and \(1, 3\)"),
        (M.long(), OBJECT, "maps must be floating point, got torch.int64"),
        (OBJECT, OBJECT, "maps must be floating point, got torch.bool"),
        (M * NAN, OBJECT, "maps must be finite"),
        (M * INF, OBJECT, "maps must be finite"),
        (-M.exp() * INF, OBJECT, "maps must be finite"),
        (M[0], OBJECT[0], r"maps must be a non-empty tensor \(..., H, W\), got \(3,\)"),
        (M[:0], OBJECT[:0], r"maps must be a non-empty tensor \(..., H, W\), got \(0, 3\)"),
        (M[None][:0], OBJECT[None][:0], r"maps must be a non-empty tensor \(..., H, W\), got \(0, 2, 3\)"),
        (M.tolist(), OBJECT, r"maps must be a non-empty tensor \(..., H, W\), got list"),
        (None, OBJECT, r"maps must be a non-empty tensor \(..., H, W\), got NoneType"),
        (M, OBJECT.float(), r"masks must be a bool tensor \(..., H, W\), got torch.float32"),
        (M, OBJECT.byte(), r"masks must be a bool tensor \(..., H, W\), got torch.uint8"),
        (M, OBJECT.numpy(), r"masks must be a bool tensor \(..., H, W\), got ndarray"),
    ],
)
def test_bad_maps_and_masks_are_refused(measure, maps, masks, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        measure(maps, masks)


@pytest.mark.parametrize(
    ("maps", "others", "message"),
    [
        (M, M[None], r"maps and others must have one shape, got \(2, 3\) and \(1, 2, 3\)"),
        (M, M.mT, r"maps and others must have one shape, got \(2, 3\) and \(3, 2\)"),
        (M.long(), M, "maps must be floating point, got torch.int64"),
        (M, OBJECT, "others must be floating point, got torch.bool"),
        (M * NAN, M, "maps must be finite"),
        (M, M * INF, "others must be finite"),
        (M[:, :0], M, r"maps must be a non-empty tensor \(..., H, W\), got \(2, 0\)"),
        (M, M[:0], r"others must be a non-empty tensor \(..., H, W\), got \(0, 3\)"),
        (M[0], M[0], r"maps must be a non-empty tensor \(..., H, W\), got \(3,\)"),
        (M, None, r"others must be a non-empty tensor \(..., H, W\), got NoneType"),
    ],
)
def test_bad_pairs_of_maps_are_refused(maps, others, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        rank_correlation(maps, others)


@pytest.mark.parametrize("tolerance", [-1, -1e-9, NAN, INF, "1", None])
def test_a_tolerance_that_is_no_distance_is_refused(tolerance):
    with pytest.raises(ValueError, match=f"^tolerance must be a number of pixels from 0 on, got '?{tolerance}"):
        pointing_game(M, OBJECT, tolerance=tolerance)


# boxes


@pytest.mark.parametrize(
    ("box", "other", "wanted"),
    [
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7),
        ([0, 0, 4, 2], [1, 0, 3, 2], 4 / 8),  # one inside the other
        ([0, 0, 4, 1], [3, 0, 5, 1], 1 / 5),
        ([0, 0, 1, 4], [0, 3, 1, 5], 1 / 5),
        ([-2, -2, 0, 0], [-1, -2, 1, 0], 2 / 6),
        ([0.5, 0, 1.5, 1], [1, 0, 2, 1], 0.5 / 1.5),
        ([1, 2, 3, 4], [1, 2, 3, 4], 1),
        ([0, 0, 2, 2], [3, 0, 5, 2], 0),  # beside
        ([0, 0, 2, 2], [0, 3, 2, 5], 0),  # above
        ([0, 0, 2, 2], [3, 3, 5, 5], 0),  # apart on both axes
        ([0, 0, 2, 2], [2, 0, 4, 2], 0),  # touching at a side
        ([0, 0, 2, 2], [2, 2, 4, 4], 0),  # touching at a corner
        ([1, 1, 1, 3], [0, 0, 4, 4], 0),  # one empty
        ([1, 1, 1, 3], [1, 1, 1, 3], NAN),  # both empty
        ([NAN] * 4, [0, 0, 2, 2], NAN),
        ([NAN] * 4, [NAN] * 4, NAN),
        ([NAN, 0, 2, 2], [0, 0, 2, 2], NAN),
        ([0, 0, 2, NAN], [3, 0, 5, 2], NAN),
    ],
)
def test_box_iou_by_hand(box, other, wanted):
    box, other, wanted = (torch.tensor(one, dtype=torch.float64) for one in (box, other, wanted))
    close(box_iou(box, other), wanted, equal_nan=True)
    close(box_iou(other, box), wanted, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
def test_box_iou_in_whole_numbers(dtype):
    boxes = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 200, 200]], dtype=dtype)
    others = torch.tensor([[1, 1, 3, 3], [5, 5, 9, 9], [100, 0, 200, 200]], dtype=dtype)
    close(box_iou(boxes, others), torch.tensor([1 / 7, 0, 1 / 2]))


def some_boxes(*shape, seed=0):
    ends = draw(*shape, 2, 2, seed=seed).mul(10).sort(-2).values
    return ends.flatten(-2)


def test_box_iou_against_torchvision():
    boxes, others = some_boxes(60), some_boxes(60, seed=1)
    found = box_iou(boxes, others)
    close(found, torchvision.ops.box_iou(boxes, others).diagonal())
    assert 5 < (found > 0).sum() < 55
    exactly(box_iou(boxes.view(5, 12, 4), others.view(5, 12, 4)), found.view(5, 12))
    exactly(box_iou(boxes[0], others[0]), found[0])
    assert box_iou(boxes.float(), others.float()).dtype == torch.float32
    assert box_iou(boxes[:0], others[:0]).shape == (0,)


B = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0]])


@pytest.mark.parametrize(
    ("boxes", "others", "message"),
    [
        (B, B[0], r"boxes and others must have one shape, \(..., 4\), got \(2, 4\) and \(4,\)"),
        (B[:, :3], B[:, :3], r"boxes.* must have.* shape,? \(..., 4\), got \(2, 3\)"),
        (B[0, 0], B[0, 0], r"boxes.* must have.* shape,? \(..., 4\), got \(\)"),
        (B[:, [2, 1, 0, 3]], B, r"boxes must have x0 <= x1 and y0 <= y1"),
        (B, B[:, [0, 3, 2, 1]], r"others must have x0 <= x1 and y0 <= y1"),
    ],
)
def test_bad_boxes_are_refused(boxes, others, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        box_iou(boxes, others)


@pytest.mark.parametrize(("boxes", "others", "name"), [(B.tolist(), B, "boxes"), (B, None, "others")])
def test_boxes_that_are_no_tensors_are_refused(boxes, others, name):
    with pytest.raises(ValueError, match=name):
        box_iou(boxes, others)
    if name == "boxes":
        with pytest.raises(ValueError, match=name):
            box_mask(boxes, (3, 4))


@pytest.mark.parametrize("boxes", [B.bool(), B * INF, B.to(torch.complex64)])
def test_boxes_that_are_no_finite_numbers_are_refused(boxes):
    with pytest.raises(ValueError, match="boxes"):
        box_iou(boxes, B)
    with pytest.raises(ValueError, match="others"):
        box_iou(B, boxes)


@pytest.mark.parametrize("box", [(1, 0, 3, 2), (0, 0, 5, 4), (4, 3, 5, 4), (2, 1, 3, 4), (2, 2, 2, 3), (-3, 1, 2, 99)])
def test_a_box_stands_for_a_slice(box):
    x0, y0, x1, y1 = box
    wanted = torch.zeros(4, 5, dtype=torch.bool)
    wanted[max(y0, 0) : y1, max(x0, 0) : x1] = True
    for dtype in (torch.int64, torch.float32, torch.float64):
        assert torch.equal(box_mask(torch.tensor(box, dtype=dtype), (4, 5)), wanted)


def test_a_pixel_counts_when_its_centre_lies_inside():
    def columns(x0, x1):
        return box_mask(torch.tensor([x0, 0, x1, 1]), (1, 4))[0].tolist()

    assert columns(0.4, 1.6) == [True, True, False, False]
    assert columns(0.6, 1.4) == [False, False, False, False]
    assert columns(0.6, 3.4) == [False, True, True, False]
    assert columns(0.5, 2.5) == [False, True, False, False]  # centres on the edge lie outside
    assert box_mask(torch.tensor([0, 0.6, 1, 2.4]), (3, 1))[:, 0].tolist() == [False, True, False]
    assert box_mask(torch.tensor([0, 0.5, 1, 2.5]), (3, 1))[:, 0].tolist() == [False, True, False]


def test_box_mask_takes_leading_axes_and_gives_an_empty_mask_for_an_absent_box():
    boxes = torch.tensor([[[0, 0, 2, 2], [1, 2, 4, 3], [5, 0, 7, 6]], [[0, 5, 7, 6], [3, 3, 4.5, 4], [0] * 4]])
    boxes[1, 2] = NAN
    found = box_mask(boxes, (6, 7))
    assert found.shape == (2, 3, 6, 7)
    assert found.dtype == torch.bool
    assert found.sum((2, 3)).tolist() == [[4, 3, 12], [7, 1, 0]]
    assert not found[1, 2].any()
    for i in range(2):
        for k in range(3):
            assert torch.equal(box_mask(boxes[i, k], [6, 7]), found[i, k])
    assert not box_mask(torch.tensor([NAN, 0, 4, 4]), (4, 4)).any()
    assert not box_mask(torch.tensor([0, 0, 4, NAN]), (4, 4)).any()
    assert box_mask(boxes[:0], torch.Size((6, 7))).shape == (0, 3, 6, 7)


def test_masks_to_boxes_and_back():
    boxes = torch.tensor([[0, 0, 1, 1], [3, 1, 7, 4], [6, 5, 7, 6], [0, 0, 7, 6.0]])
    masks = box_mask(boxes, (6, 7))
    last_pixel = torch.tensor([0, 0, 1, 1])  # torchvision's boxes end at the last pixel, ours behind it
    assert torch.equal(torchvision.ops.masks_to_boxes(masks) + last_pixel, boxes)


@pytest.mark.parametrize("boxes", [B[:, :3], B[0, 0], B[None, :, :, None]])
def test_boxes_of_a_bad_shape_give_no_mask(boxes):
    with pytest.raises(ValueError, match=r"^boxes must have shape \(..., 4\), got \("):
        box_mask(boxes, (3, 4))


def test_boxes_that_end_before_they_begin_give_no_mask():
    with pytest.raises(ValueError, match=r"^boxes must have x0 <= x1 and y0 <= y1"):
        box_mask(B[:, [2, 1, 0, 3]], (3, 4))


@pytest.mark.parametrize("shape", [(3,), (1, 3, 4), (0, 4), (3, 0), (3, -4), (), (2.5, 4), (3, 4.0), 5, None, "ab"])
def test_a_shape_of_no_mask_is_refused(shape):
    with pytest.raises(ValueError, match=r"^shape must be \(H, W\), two positive integers, got"):
        box_mask(B, shape)


# the score while pixels go


def linear(*weights):
    """Logits sum of w * x, one for each w (H, W)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), len(weights), bias=False)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.stack(weights).flatten(1))
    return net


W0 = torch.tensor([[1.0, -1.0], [2.0, 5.0]]).double()
W1 = torch.tensor([[0.0, 3.0], [1.0, 0.0]]).double()
X = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).double()
PARTS = W0 * X[:, 0]  # 1 -2 6 20 of the logit 25; the order is 20 6 1 -2
by_logit = {"score": "logit", "steps": 4}


def test_deletion_by_hand():
    auc, scores = deletion(linear(W0, W1), X, 0, PARTS, **by_logit)
    exactly(scores, [[25, 5, -1, -2, 0]])
    exactly(auc, [(25 / 2 + 5 - 1 - 2 + 0) / 4])
    auc, scores = deletion(linear(W0, W1), X, 1, PARTS, **by_logit)  # 0 6 3 0
    exactly(scores, [[9, 9, 6, 6, 0]])
    exactly(auc, [(9 / 2 + 9 + 6 + 6 + 0) / 4])


def test_insertion_by_hand():
    auc, scores = insertion(linear(W0, W1), X, 0, PARTS, **by_logit)
    exactly(scores, [[0, 20, 26, 27, 25]])
    exactly(auc, [(0 + 20 + 26 + 27 + 25 / 2) / 4])


def test_the_probability_is_followed_by_default():
    found = deletion(linear(W0, W1), X / 10, 0, PARTS, steps=4).scores
    margins = float64([[2.5 - 0.9, 0.5 - 0.9, -0.1 - 0.6, -0.2 - 0.6, 0]])
    close(found, margins.sigmoid(), rtol=1e-12, atol=0)
    exactly(found[0, -1], 0.5)
    close(deletion(linear(W0, W1), X / 10, [[1]], PARTS[:, None], steps=4).scores[:, 0], 1 - found)
    close(insertion(linear(W0, W1), X / 10, 0, -PARTS, steps=4).scores, found.flip(1))


def test_steps_that_do_not_divide_the_pixels_are_rounded_down():
    auc, scores = deletion(linear(W0), X, 0, PARTS, steps=3, score="logit")  # 0 1 2 4 pixels
    exactly(scores, [[25, 5, -1, 0]])
    exactly(auc, [(25 + 5) / 2 / 4 + (5 - 1) / 2 / 4 + (-1 + 0) / 2 / 2])
    auc, scores = deletion(linear(W0), X, 0, PARTS, steps=6, score="logit")  # 0 0 1 2 2 3 4 pixels
    exactly(scores, [[25, 25, 5, -1, -1, -2, 0]])
    exactly(auc, [3.625])
    auc, scores = deletion(linear(W0), X, 0, PARTS, steps=1, score="logit")
    exactly(scores, [[25, 0]])
    exactly(auc, [12.5])
    assert deletion(linear(W0), X, 0, PARTS).scores.shape == (1, 17)


def test_the_area_is_as_precise_as_the_scores():
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]]).double()
    auc, scores = deletion(linear(torch.ones(1, 3)), x, 0, x[:, 0], steps=3, score="logit")
    exactly(scores, [[6, 3, 1, 0]])
    close(auc, float64([7 / 3]), rtol=1e-14, atol=0)


def test_fill_is_a_number_or_images():
    net = linear(W0)
    for fill in (1.0, 1, torch.tensor(1), torch.ones(2, 2), torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1)):
        auc, scores = deletion(net, X, 0, PARTS, fill=fill, **by_logit)
        exactly(scores, [[25, 10, 6, 6, 7]])
        exactly(auc, [9.5])
        exactly(insertion(net, X, 0, PARTS, fill=fill, **by_logit).scores, [[7, 22, 26, 26, 25]])
    ramp = torch.tensor([[0.0, 1.0], [2.0, 3.0]])  # its parts are 0 -1 4 15
    exactly(deletion(net, X, 0, PARTS, fill=ramp, **by_logit).scores, [[25, 20, 18, 17, 18]])
    both = torch.stack([ramp, ramp + 1])[:, None]  # one fill for each image: parts 1 -2 6 20, as X itself
    found = deletion(net, X.expand(2, -1, -1, -1), 0, PARTS.expand(2, -1, -1), fill=both, **by_logit).scores
    exactly(found, [[25, 20, 18, 17, 18], [25] * 5])


def test_equal_values_go_in_reading_order():
    net = linear(W0)
    for value in (0.0, 7.0):
        exactly(deletion(net, X, 0, torch.full((1, 2, 2), value), **by_logit).scores, [[25, 24, 26, 20, 0]])
    exactly(deletion(net, X, 0, torch.tensor([[[-0.0, 0.0], [1.0, 0.0]]]), **by_logit).scores, [[25, 19, 18, 20, 0]])
    weights, x = draw(20, 30), draw(2, 1, 20, 30, seed=1)
    levels = draw(2, 20, 30, levels=3)
    reading = torch.arange(600).view(20, 30) / 1000
    for curve in (deletion, insertion):
        found = curve(linear(weights), x, 0, levels, steps=600, score="logit")
        wanted = curve(linear(weights), x, 0, levels - reading, steps=600, score="logit")
        exactly(found.scores, wanted.scores)


def tiny(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(80, 3)
    ).double()


IMAGES = draw(3, 3, 6, 7, seed=5)  # 42 pixels
CURVES = {"deletion": deletion, "insertion": insertion}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_a_curve_runs_between_the_image_and_the_fill(curve):
    net, target, fill = tiny(), [2, 0, 1], draw(3, 3, 6, 7, seed=6)
    for score in ("probability", "logit"):
        found = curve(net, IMAGES, target, draw(3, 6, 7), steps=5, fill=fill, score=score)
        ends = [tiny().eval()(x) for x in (IMAGES, fill)]
        ends = [(one.softmax(1) if score == "probability" else one)[range(3), target].detach() for one in ends]
        first, last = ends if curve is deletion else ends[::-1]
        close(found.scores[:, 0], first)
        close(found.scores[:, -1], last)
        assert found.scores.shape == (3, 6)
        assert found.auc.shape == (3,)
        assert not found.scores.requires_grad
        assert found.scores.dtype == found.auc.dtype == torch.float64


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_every_point_is_the_score_of_the_image_so_far(curve):
    net, maps, fill = tiny().eval(), draw(3, 6, 7), draw(3, 3, 6, 7, seed=6)
    found = curve(net, IMAGES, 1, maps, steps=4, fill=fill).scores
    for i in range(3):
        order = sorted(range(42), key=lambda p: -float(maps[i].flatten()[p]))
        for point, count in enumerate([0, 10, 21, 31, 42]):
            here, there = (IMAGES, fill) if curve is deletion else (fill, IMAGES)
            mixed = here[i].clone()
            for p in order[:count]:
                mixed[:, p // 7, p % 7] = there[i, :, p // 7, p % 7]
            close(found[i, point], net(mixed[None]).softmax(1)[0, 1].detach())


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("chunk", [1, 2, 5, 13, 1000])
def test_chunks_change_nothing(curve, chunk):
    net, maps = tiny(), draw(3, 2, 6, 7)
    target = [[0, 1], [2, 1], [1, 1]]
    wanted = curve(net, IMAGES, target, maps, steps=5)
    found = curve(net, IMAGES, target, maps, steps=5, chunk=chunk)
    close(found.scores, wanted.scores, rtol=1e-12, atol=0)
    close(found.auc, wanted.auc, rtol=1e-12, atol=0)


def passes(net):
    sizes = []
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    return sizes


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_no_pass_is_larger_than_the_chunk(curve):
    for chunk, largest in [(1, 1), (2, 2), (5, 5), (None, 8)]:
        net = tiny()
        sizes = passes(net)
        curve(net, IMAGES, 0, draw(3, 6, 7), steps=5, chunk=chunk)
        assert max(sizes) == largest
        assert 18 <= sum(sizes) <= 21
    net = tiny()
    sizes = passes(net)
    curve(net, IMAGES.repeat(4, 1, 1, 1), 0, draw(12, 6, 7), steps=5)
    assert max(sizes) == 12


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_several_classes_equal_the_single_ones(curve):
    net, maps, target = tiny(), draw(3, 2, 6, 7), torch.tensor([[0, 1], [2, 1], [1, 1]])
    several = curve(net, IMAGES, target, maps, steps=5)
    assert several.scores.shape == (3, 2, 6)
    assert several.auc.shape == (3, 2)
    for k in range(2):
        single = curve(net, IMAGES, target[:, k], maps[:, k], steps=5)
        close(several.scores[:, k], single.scores)
        close(several.auc[:, k], single.auc)
    column = curve(net, IMAGES, target[:, 1:], maps[:, 1:], steps=5)  # (B, 1) keeps its axis
    exactly(column.scores, several.scores[:, 1:])
    for given in (1, [1, 1, 1], torch.tensor(1, dtype=torch.uint8)):
        exactly(curve(net, IMAGES, given, maps[:, 1], steps=5).auc[2], several.auc[2, 1])


def test_the_perfect_order_beats_chance_on_a_linear_network():
    weights, x = draw(8, 9), draw(4, 1, 8, 9, seed=1)
    net, downsampled_truth = linear(weights), weights * x[:, 0]
    best = [curve(net, x, 0, downsampled_truth, score="logit") for curve in (deletion, insertion)]
    for seed in range(5):
        chance = random_map(x, seed)
        assert (best[0].auc < deletion(net, x, 0, chance, score="logit").auc).all()
        assert (best[1].auc > insertion(net, x, 0, chance, score="logit").auc).all()
        assert (best[0].scores <= deletion(net, x, 0, chance, score="logit").scores + 1e-9).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("filled", [False, True])
def test_deletion_and_insertion_against_torchcam(score, filled):
    methods, metrics = (pytest.importorskip(f"torchcam.{name}") for name in ("methods", "metrics"))
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    x, target = torch.randn(2, 3, 64, 64), [3, 7]
    fill = torch.randn(2, 3, 64, 64) if filled else None
    final = functools.partial(torch.softmax, dim=-1) if score == "probability" else None
    with methods.CAM(net, "layer4", "fc") as extractor:
        metric = metrics.DeletionInsertionMetric(extractor, final, steps=16, baseline=fill)
        metric.update(x, target)
        scores = net(x)
        cams = extractor(target, scores)[0]
    maps = nn.functional.interpolate(cams[:, None], (64, 64), mode="bilinear", align_corners=False)[:, 0]
    options = {"score": score, "fill": fill if filled else 0.0}
    wanted = metric.summary()
    for curve, name in [(deletion, "deletion_auc"), (insertion, "insertion_auc")]:
        found = curve(net, x, target, maps, **options).auc.mean()
        assert float(found) == pytest.approx(wanted[name], rel=0, abs=1e-6)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_the_network_and_what_is_given_are_left_alone(curve):
    net = tiny().train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    net[2].register_forward_hook(lambda *_: None)
    given = [IMAGES.clone().requires_grad_(), draw(3, 6, 7), torch.tensor([0, 1, 2]), draw(3, 6, 7).requires_grad_()]
    before = [one.detach().clone() for one in given]
    with assert_untouched(net):
        found = curve(net, given[0], given[2], given[1], fill=given[3][:, None], steps=3)
    assert not found.auc.requires_grad
    assert all(torch.equal(one, was) for one, was in zip(given, before, strict=True))
    assert given[0].grad is None


class BoomLater(nn.Module):
    """Raises from its third forward on."""

    def __init__(self):
        super().__init__()
        self.boom, self.runs = Boom(), 0

    def forward(self, x):
        self.runs += 1
        return x if self.runs < 3 else self.boom(x)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("boom", [Boom, BoomLater])
def test_the_network_is_left_alone_when_its_forward_raises(curve, boom):
    net = nn.Sequential(*tiny().train(), boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        curve(net, IMAGES, 0, draw(3, 6, 7), chunk=1)


MAPS = draw(3, 6, 7)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": MAPS[:2]}, r"maps must have shape \(3, 6, 7\).*got \(2, 6, 7\)"),
        ({"maps": MAPS[0]}, r"maps must have shape \(3, 6, 7\).*got \(6, 7\)"),
        ({"maps": MAPS.mT}, r"maps must have shape \(3, 6, 7\).*got \(3, 7, 6\)"),
        ({"maps": MAPS[:, None]}, r"maps must have shape \(3, 6, 7\).*got \(3, 1, 6, 7\)"),
        ({"target": [[0, 1]] * 3}, r"maps must have shape \(3, 2, 6, 7\).*got \(3, 6, 7\)"),
        ({"target": [[0]] * 3}, r"maps must have shape \(3, 1, 6, 7\).*got \(3, 6, 7\)"),
        ({"maps": MAPS.long()}, "maps must be floating point"),
        ({"maps": MAPS * NAN}, "maps must be finite"),
        ({"maps": MAPS * INF}, "maps must be finite"),
        ({"maps": MAPS[:0]}, "maps must be a non-empty tensor"),
        ({"maps": MAPS.numpy()}, "maps must be a non-empty tensor"),
        ({"x": IMAGES[0]}, "x must have shape"),
        ({"x": IMAGES * NAN}, "x must be finite"),
        ({"x": IMAGES.float()}, "x must be torch.float64"),
        ({"x": IMAGES[:, :2]}, "x must have 3 channels"),
        ({"x": IMAGES[:0]}, "x must not be empty"),
        ({"target": 3}, r"target must lie in 0 .. 2 .*got 3"),
        ({"target": -1}, r"target must lie in 0 .. 2 .*got -1"),
        ({"target": [0, 1]}, "target must be an int"),
        ({"target": 1.0}, "target must hold integers"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": -2}, "steps must be an integer of at least 1, got -2"),
        ({"steps": 1.5}, "steps must be an integer of at least 1, got 1.5"),
        ({"steps": None}, "steps must be an integer of at least 1, got None"),
        ({"chunk": 0}, "chunk must be an integer of at least 1, got 0"),
        ({"chunk": 2.0}, "chunk must be an integer of at least 1, got 2.0"),
        ({"chunk": True}, "chunk must be an integer of at least 1, got True"),
        ({"fill": NAN}, "fill must be finite"),
        ({"fill": torch.full((3, 1, 1), INF)}, "fill must be finite"),
        ({"fill": torch.zeros(3, 6)}, r"fill must be a number or broadcast to \(3, 3, 6, 7\), got \(3, 6\)"),
        ({"fill": torch.zeros(1, 3, 3, 6, 7)}, r"fill must be a number or broadcast to \(3, 3, 6, 7\), got \(1, 3"),
        ({"fill": 1j}, r"fill must be a number or broadcast"),
        ({"fill": None}, r"fill must be a number or broadcast to \(3, 3, 6, 7\), got None"),
    ],
)
def test_bad_curves_are_refused(curve, change, message):
    net = tiny()
    with pytest.raises(ValueError, match=f"^{message}"), assert_untouched(net):
        curve(net, **{"x": IMAGES, "target": 0, "maps": MAPS} | change)


# baselines


def test_center_map_by_hand():
    def found(height, width):
        return center_map(torch.ones(1, 3, height, width).double())[0]

    exactly(found(1, 1), [[1]])
    one = math.exp(-((4 / 3) ** 2) / 2)  # a pixel of three beside the centre: 1 / 0.75 standard deviations
    close(found(1, 3), float64([[one, 1, one]]))
    close(found(3, 3), float64([[one**2, one, one**2], [one, 1, one], [one**2, one, one**2]]))
    row = [math.exp(-(1 + 1.5**2) / 2), math.exp(-(1 + 0.5**2) / 2)]  # 2 x 4: +-1 and +-0.5, +-1.5 deviations
    close(found(2, 4), float64([row + row[::-1]] * 2))
    close(found(4, 2), found(2, 4).mT)


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (5, 12), (64, 31)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_center_map_is_symmetric_and_largest_in_the_middle(shape, dtype):
    found = center_map(draw(2, 3, *shape, dtype=dtype))
    assert found.shape == (2, *shape)
    assert found.dtype == dtype
    exactly(found[1], found[0])
    exactly(found.flip(1), found)
    exactly(found.flip(2), found)
    (height, width), top = shape, found[0] == found.max()
    rows, columns = ([(n - 1) // 2, n // 2] for n in (height, width))
    assert all(top[i, j] for i in rows for j in columns)
    assert top.sum() == len(set(rows)) * len(set(columns))
    assert (found[0].diff(dim=0)[: (height - 1) // 2] > 0).all()
    assert (found[0].diff(dim=1)[:, : (width - 1) // 2] > 0).all()


def test_center_maps_of_a_batch_do_not_share_memory():
    found = center_map(torch.zeros(2, 1, 3, 3))
    found[0] = 9
    assert found[1].max() == 1


def test_blurred_map_of_a_tiny_image_by_hand():
    exactly(blurred_map(torch.full((1, 3, 1, 1), 0.7)), [[[0]]])
    x = torch.tensor([[0.0, 0, 0], [0, 0, 6]])  # too small to blur; the mean is 1
    exactly(blurred_map(x[None, None]), [[[1, 1, 1], [1, 1, 5]]])
    two = torch.stack([x, torch.tensor([[-4.0, 0, 2], [2, 0, 0]])])  # the second one's mean is 0
    exactly(blurred_map(two[None]), [[[4, 1, 2], [2, 1, 5]]])
    exactly(blurred_map(torch.stack([two, two * 10])), [[[4, 1, 2], [2, 1, 5]], [[40, 10, 20], [20, 10, 50]]])


@pytest.mark.parametrize(
    ("shape", "sigma", "radius"),
    [((20, 20), 1, (3, 3)), ((12, 20), 1, (3, 3)), ((60, 40), 3, (9, 9)), ((3, 20), 1, (2, 3)), ((20, 2), 1, (3, 1))],
)
def test_blurred_map_against_scipy(shape, sigma, radius):
    x = draw(2, 3, *shape)
    wanted = []
    for image in x.numpy():
        blurred = [scipy.ndimage.gaussian_filter(one, sigma, mode="mirror", radius=radius) for one in image]
        wanted.append(max_of([abs(b - one.mean()) for b, one in zip(blurred, image, strict=True)]))
    found = blurred_map(x)
    close(found, torch.stack(wanted))
    assert blurred_map(x.float()).dtype == torch.float32
    close(blurred_map(x.float()).double(), found, rtol=1e-4, atol=1e-5)


def max_of(arrays):
    return torch.stack([torch.from_numpy(one) for one in arrays]).amax(0)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (17, 23), (40, 3)])
def test_a_constant_image_has_a_blurred_map_of_nothing(shape):
    found = blurred_map(torch.tensor([0.37, -2.0, 5.0]).view(1, 3, 1, 1).expand(2, -1, *shape))
    assert found.shape == (2, *shape)
    assert found.abs().max() < 1e-5


@pytest.mark.parametrize("sign", [1, -1])
def test_blurred_map_finds_what_stands_out(sign):
    x = torch.zeros(1, 3, 30, 40)
    mask = box_mask(torch.tensor([[25, 8, 33, 16]]), (30, 40))
    x[:, 1][mask] = sign
    found = blurred_map(x)
    assert pointing_game(found, mask) == 1
    assert pixel_auc(found, mask) > 0.99
    close(found[0, 12, 29], found.max())


def test_random_map_is_reproducible_by_its_seed():
    x = draw(2, 3, 50, 40, dtype=torch.float32)
    state = torch.get_rng_state()
    found = random_map(x, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.shape == (2, 50, 40)
    assert torch.equal(random_map(x * 0, seed=3), found)
    assert not torch.equal(random_map(x, seed=4), found)
    assert torch.equal(random_map(x), random_map(x, seed=0))
    assert not torch.equal(found[0], found[1])
    assert random_map(x.double(), seed=3).dtype == torch.float64
    close(random_map(x.double(), seed=3).float(), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_random_map_is_even_between_0_and_1(dtype):
    found = random_map(torch.zeros(1, 1, 128, 128, dtype=dtype))
    assert found.dtype == dtype
    assert found.min() >= 0
    assert found.max() < 1
    assert torch.histc(found.float(), 8, 0, 1).sub(2048).abs().max() < 200


BASELINES = {"center_map": center_map, "blurred_map": blurred_map, "random_map": random_map}


@pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (None, r"must be a torch tensor \(B, C, H, W\), got NoneType"),
        (IMAGES[0], r"must have shape \(B, C, H, W\), got \(3, 6, 7\)"),
        (IMAGES[:0], "must not be empty"),
        (IMAGES[..., :0], "must not be empty"),
        (IMAGES.long(), "must be floating point"),
        (IMAGES * NAN, "must be finite"),
        (IMAGES * INF, "must be finite"),
    ],
)
def test_baselines_refuse_bad_images(baseline, x, message):
    with pytest.raises(ValueError, match=f"^x {message}"):
        baseline(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_everything_is_the_same_on_the_gpu():
    x, maps, masks = IMAGES, draw(3, 6, 7, levels=9), draw(3, 6, 7, seed=1, levels=2) == 0
    for name, measure in MEASURES.items():
        found = measure(maps.cuda(), masks.cuda())
        assert found.is_cuda, name
        close(found.cpu(), measure(maps, masks))
    for name, measure in MASKED.items():  # masks on the CPU are carried over
        close(measure(maps.cuda(), masks).cpu(), measure(maps, masks), msg=name)
    for baseline in BASELINES.values():
        assert baseline(x.cuda()).is_cuda
        close(baseline(x.cuda()).cpu(), baseline(x))
    for curve in CURVES.values():
        found = curve(tiny().cuda(), x.cuda(), [0, 1, 2], maps.cuda(), fill=x.flip(0))
        assert found.auc.is_cuda
        close(found.auc.cpu(), curve(tiny(), x, [0, 1, 2], maps, fill=x.flip(0)).auc)
    boxes = some_boxes(5).cuda()
    assert box_iou(boxes, boxes).is_cuda
    assert torch.equal(box_mask(boxes, (6, 7)).cpu(), box_mask(boxes.cpu(), (6, 7)))


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
    kept = maps.clone(), masks.clone()
    insides, outsides = [], []
    for one, mask in zip(maps.tolist(), masks.tolist(), strict=True):
        pairs = [(value, on) for row, hits in zip(one, mask, strict=True) for value, on in zip(row, hits, strict=True)]
        within, beside = [v for v, on in pairs if on], [v for v, on in pairs if not on]
        if within and beside:
            insides.append(math.fsum(within) / len(within))
            outsides.append(math.fsum(beside) / len(beside))
    found = in_out_ratio(maps, masks)
    assert found.dtype == dtype
    close(found, torch.tensor(sum(insides) / sum(outsides), dtype=dtype))
    exactly(maps, kept[0])
    assert masks.equal(kept[1])
    close(in_out_ratio(3 * maps, masks), found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_out_ratio_counts_its_pixels_also_in_half_precision(dtype):
    maps, masks = torch.ones(1, 600, 600, dtype=dtype), torch.zeros(1, 600, 600, dtype=torch.bool)
    masks[:, :300] = True  # 180,000 pixels, more than half precision's largest number
    exactly(in_out_ratio(maps, masks), 1)


def test_in_out_ratio_survives_sums_beyond_the_largest_number():
    maps, masks = torch.full((2, 4, 4), 3e38), torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 1:3, 1:3] = True
    close(in_out_ratio(maps, masks), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (-M[None], OBJECT[None], "maps must be at least 0"),
        (M[None], OBJECT[None], "maps must be at least 0"),
        (M.abs()[None], OBJECT, "maps and masks must have one shape"),
        (M.abs()[None].mT, OBJECT[None], "maps and masks must have one shape"),
        (M.abs()[None] * NAN, OBJECT[None], "maps must be finite"),
        (M.abs()[None].exp() * INF, OBJECT[None], "maps must be finite"),
        (M.abs()[None].long(), OBJECT[None], "maps must be floating point"),
        (M.abs()[None], OBJECT[None].float(), "masks must be a bool tensor"),
        (M[:0][None], OBJECT[:0][None], "maps must be a non-empty tensor"),
        (None, OBJECT[None], "maps must be a non-empty tensor"),
    ],
)
def test_bad_input_of_the_ratio_is_refused(maps, masks, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        in_out_ratio(maps, masks)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_ratio_is_the_same_on_the_gpu():
    maps, masks = draw(3, 6, 7).abs(), draw(3, 6, 7, seed=1, levels=2) == 0
    for given in (masks, masks.cuda()):
        found = in_out_ratio(maps.cuda(), given)
        assert found.is_cuda
        close(found.cpu(), in_out_ratio(maps, masks))
