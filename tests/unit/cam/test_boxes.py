"""Boxes from maps, ILSVRC's localisation error, and the patches that excite single units."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import ndimage
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.boxes import overlap, region_boxes
from helpers.cam import (
    LocalizationError,
    class_specific_units,
    largest_component_box,
    localization_error,
    receptive_field_crop,
)

NAN = float("nan")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def picture(text):
    """Rows of digits -> (1, H, W); a dot is zero, a letter minus its place in the alphabet."""
    rows = [[int(c) if c.isdigit() else 0 if c == "." else 96 - ord(c) for c in row] for row in text.split()]
    return torch.tensor(rows, dtype=torch.float32)[None]


def same(found, wanted):
    torch.testing.assert_close(found, torch.as_tensor(wanted).to(found), rtol=0, atol=0, equal_nan=True)


def box_of(mask):
    """The rule in plain Python: grow every region place by place, keep the first of the largest."""
    height, width = mask.shape
    left, best = {(r, c) for r in range(height) for c in range(width) if mask[r, c]}, []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        region = [start]
        for r, c in region:  # grows while it is walked through
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            region += near
        best = region if len(region) > len(best) else best
    if not best:
        return [NAN] * 4
    rows, columns = zip(*best, strict=True)
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


# regions


def test_region_boxes_by_hand():
    masks = torch.stack([picture(text)[0] > 0 for text in ("11.. 1... ...1", ".... .... ....", "...1 ..1. .1.1")])
    same(region_boxes(masks), [[0, 0, 2, 2], [NAN] * 4, [1, 0, 4, 3]])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.4, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (1, 20), (20, 1)])
def test_region_boxes_equal_a_flood_fill(share, shape):
    masks = torch.rand(12, *shape, generator=seeded(int(share * 10))) < share
    same(region_boxes(masks), [box_of(mask.numpy()) for mask in masks])


def test_region_boxes_equal_scipy_where_one_region_is_the_largest():
    compared = 0
    for seed in range(40):
        mask = torch.rand(30, 23, generator=seeded(seed)) < 0.33
        numbers, _ = ndimage.label(mask.numpy(), structure=np.ones((3, 3)))
        sizes = np.bincount(numbers.ravel())[1:]
        if (sizes == sizes.max()).sum() == 1:
            rows, columns = ndimage.find_objects(numbers)[sizes.argmax()]
            same(region_boxes(mask[None])[0], [columns.start, rows.start, columns.stop, rows.stop])
            compared += 1
    assert compared > 20


def test_masks_of_one_batch_do_not_touch_each_other():
    # the last row of the one above the first row of the next
    masks = torch.zeros(3, 2, 3, dtype=torch.bool)
    masks[0, 1] = masks[1, 0] = masks[2, 1, 2] = True
    same(region_boxes(masks), [[0, 1, 3, 2], [0, 0, 3, 1], [2, 1, 3, 2]])


def test_the_end_of_a_row_does_not_touch_the_beginning_of_the_next():
    same(region_boxes(picture("..1 1.. 1..") > 0), [[0, 1, 1, 3]])


# overlap


def exact_iou(one, other):
    """In fractions, by counting the unit squares of integer boxes."""
    a, b = ({(x, y) for x in range(x0, x1) for y in range(y0, y1)} for x0, y0, x1, y1 in (one, other))
    return Fraction(len(a & b), len(a | b)) if a | b else None


def test_overlap_by_hand():
    boxes = torch.tensor([[0.0, 0, 4, 2], [0, 0, 2, 2], [0, 0, 1, 1], [1, 1, 1, 3], [NAN] * 4, [1, 1, 1, 1]])
    others = torch.tensor([[1.0, 1, 5, 4], [2, 0, 4, 2], [0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 1, 1], [2, 2, 2, 2]])
    # 3 in common of 8 + 12 - 3; side by side; equal; an empty one in another; an absent one; two empty ones
    same(overlap(boxes, others), torch.tensor([3 / 17, 0, 1, 0, NAN, NAN]))


def test_overlap_equals_counting_squares_and_broadcasts():
    draw = random.Random(0)

    def some(count):
        pairs = [[sorted(draw.sample(range(12), 2)) for _ in range(2)] for _ in range(count)]
        return [[xs[0], ys[0], xs[1], ys[1]] for xs, ys in pairs]

    ours, theirs = some(15), some(20)
    found = overlap(torch.tensor(ours).double()[:, None], torch.tensor(theirs).double())
    assert found.shape == (15, 20)
    wanted = [[float(exact_iou(a, b)) for b in theirs] for a in ours]
    same(found, torch.tensor(wanted, dtype=torch.float64))
    same(overlap(torch.tensor(theirs).double()[:, None], torch.tensor(ours).double()), found.T)


# the box of a map

TWO = picture("""
    .........
    .99......
    .9....333
    ......333
    .....3333
    aaaaaaaaa
""")


@pytest.mark.parametrize(
    ("threshold", "box"),
    [
        (0, [5, 2, 9, 5]),  # 10 places against 3
        (0.2, [5, 2, 9, 5]),  # above 1.8
        (0.33, [5, 2, 9, 5]),  # above 2.97
        (0.34, [1, 1, 3, 3]),  # above 3.06: the three nines
        (0.99, [1, 1, 3, 3]),
    ],
)
def test_two_blobs_by_hand(threshold, box):
    same(largest_component_box(TWO, threshold), [box])


def test_the_threshold_is_a_fifth_unless_another_is_given():
    # 0.2 * 10 = 2: the three ones are out, so are the twos at the threshold, the 5 is in
    maps = torch.tensor([[[10.0, 0, 1, 1, 1, 0, 2, 2, 2, 0, 5, 5]]])
    same(largest_component_box(maps), [[10, 0, 12, 1]])
    same(largest_component_box(maps), largest_component_box(maps, threshold=0.2))
    same(largest_component_box(maps, 0.19), [[6, 0, 9, 1]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_place_at_the_threshold_does_not_count(dtype):
    maps = torch.tensor([[[4.0, 0, 2, 2, 2, 2]]], dtype=dtype)  # half of 4 is 2, exactly
    same(largest_component_box(maps, 0.5), [[0, 0, 1, 1]])
    same(largest_component_box(maps, 0.4375), [[2, 0, 6, 1]])


@pytest.mark.parametrize("threshold", [0, 0.2, 0.999])
def test_where_nothing_is_positive_there_is_no_box(threshold):
    maps = torch.stack(
        [torch.zeros(3, 4), torch.full((3, 4), -2.0), -torch.rand(3, 4) - 0.1, picture("abc. b..a a..a")[0]]
    )
    same(largest_component_box(maps, threshold), [[NAN] * 4] * 4)


def test_a_constant_positive_map_gets_the_whole_image():
    same(largest_component_box(torch.full((2, 3, 4), 0.7), 0.9), [[0, 0, 4, 3]] * 2)


def test_negative_values_do_not_move_the_threshold():
    # a share of the maximum, not of the range: 0.2 * 10 = 2 whether the least is 0 or -90
    maps = torch.tensor([[[10.0, 3, 1, -90]], [[10.0, 3, 1, 0]]])
    same(largest_component_box(maps), [[0, 0, 2, 1]] * 2)


def test_of_regions_of_one_size_the_first_in_reading_order_is_taken():
    same(largest_component_box(picture("....1 1...1 1...."), 0), [[4, 0, 5, 2]])
    same(largest_component_box(picture("..... 11... ...11"), 0), [[0, 1, 2, 2]])
    same(largest_component_box(picture("1.9.1"), 0), [[0, 0, 1, 1]])  # of the places, not of the values


def test_diagonal_neighbours_touch():
    same(largest_component_box(picture("1...9 .1.9. ..9.."), 0), [[0, 0, 5, 3]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0, 0.2, 0.5, 0.9])
def test_boxes_of_random_maps_equal_a_flood_fill(threshold, dtype):
    maps = torch.randn(4, 3, 7, 11, generator=seeded(3), dtype=dtype)
    maps[1, 2].neg_().abs_().neg_()
    found = largest_component_box(maps, threshold)
    assert found.shape == (4, 3, 4)
    assert found.dtype == dtype
    for one, box in zip(maps.flatten(0, 1), found.flatten(0, 1), strict=True):
        top = max(one.max().item(), 0)
        same(box, box_of(np.array([[value > threshold * top for value in row] for row in one.tolist()])))


def test_the_k_axis_is_kept_and_batches_equal_one_by_one():
    maps = torch.randn(5, 2, 6, 6, generator=seeded(1))
    found = largest_component_box(maps)
    same(found, torch.stack([largest_component_box(maps[:, k]) for k in range(2)], 1))
    same(found, torch.cat([largest_component_box(one[None]) for one in maps]))


def test_maps_of_one_place_and_huge_ones():
    same(largest_component_box(torch.tensor([[[3.0]], [[0.0]], [[-1.0]]])), [[0, 0, 1, 1], [NAN] * 4, [NAN] * 4])
    huge = torch.zeros(2, 700, 1000)
    huge[0, 10:600, 20:990] = 1
    huge[1, :, 999] = 1
    huge[1, 699, :3] = 2
    same(largest_component_box(huge), [[20, 10, 990, 600], [999, 0, 1000, 700]])
    same(largest_component_box(huge.half()), [[20, 10, 990, 600], [999, 0, 1000, 700]])


@pytest.mark.parametrize(
    ("dtype", "threshold"), [(torch.bfloat16, 0.999), (torch.float16, 0.9999), (torch.float32, 1 - 1e-9)]
)
def test_the_maximum_itself_counts_however_close_to_1_the_threshold_is(dtype, threshold):
    # the share times the maximum, rounded to the map's precision, must not become the maximum
    maps = torch.tensor([[[0.5, 1.0, 1.0, 0.5]]], dtype=dtype)
    same(largest_component_box(maps, threshold), [[1, 0, 3, 1]])


def test_the_map_is_left_as_it_was_and_no_graph_is_kept():
    maps = torch.randn(2, 5, 5, generator=seeded(0), requires_grad=True)
    before = maps.detach().clone()
    assert not largest_component_box(maps).requires_grad
    assert torch.equal(maps, before)
    strided = torch.randn(2, 5, 6, generator=seeded(0)).transpose(1, 2)
    same(largest_component_box(strided), largest_component_box(strided.contiguous()))


@needs_cuda
def test_boxes_stay_on_the_device():
    maps = torch.randn(2, 3, 8, 8, generator=seeded(0))
    found = largest_component_box(maps.cuda())
    assert found.is_cuda
    same(found.cpu(), largest_component_box(maps))


@pytest.mark.parametrize(
    "maps",
    [
        torch.rand(4, 4),
        torch.rand(1, 1, 1, 4, 4),
        torch.rand(0, 4, 4),
        torch.rand(2, 0, 4),
        torch.rand(2, 0, 3, 4),
        torch.ones(1, 4, 4, dtype=torch.int64),
        torch.ones(1, 4, 4, dtype=torch.bool),
        torch.tensor([[[1.0, NAN]]]),
        torch.tensor([[[1.0, math.inf]]]),
        torch.tensor([[[1.0, -math.inf]]]),
        np.ones((1, 3, 3)),
        None,
    ],
)
def test_maps_that_cannot_be_boxed_are_named(maps):
    with pytest.raises(ValueError, match="maps must be"):
        largest_component_box(maps)


@pytest.mark.parametrize("threshold", [1, 1.0, 1.5, -0.1, NAN, math.inf, "0.2", None, True])
def test_a_threshold_outside_its_range_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be"):
        largest_component_box(TWO, threshold)


# ILSVRC's error


def ilsvrc_error(answers, labels, truths, iou):
    """The rule, written out: the error of an image is the least over its answers and over the true boxes of
    max(is the class wrong, is the box off); the score is the mean over the images.
    """
    errors = []
    for five, label, boxes in zip(answers, labels, truths, strict=True):
        least = 1
        for answer, box in five:
            for true in boxes:
                class_wrong = 0 if answer == label else 1
                share = None if box is None else exact_iou(box, true)
                box_off = 0 if share is not None and share >= iou else 1
                least = min(least, max(class_wrong, box_off))
        errors.append(least)
    return sum(errors) / len(errors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(12))
def test_the_error_equals_the_rule_with_five_answers_written_out(seed, dtype):
    draw = random.Random(seed)
    count, classes, side = 40, 12, 8
    iou = (Fraction(1, 2), Fraction(1, 4), Fraction(3, 4))[seed % 3]

    def a_box():
        (x0, x1), (y0, y1) = (sorted(draw.sample(range(side + 1), 2)) for _ in range(2))
        return (x0, y0, x1, y1)

    def near(box):
        moved = tuple(edge + draw.choice((-1, 0, 0, 1)) for edge in box)
        return moved if moved[0] < moved[2] and moved[1] < moved[3] and min(moved) >= 0 else box

    answers, labels, truths, own, top1, top5 = [], [], [], [], [], []
    for _ in range(count):
        label, ranking = draw.randrange(classes), draw.sample(range(classes), classes)
        if draw.random() < 0.6:  # put the class among the best
            ranking.remove(label)
            ranking.insert(draw.randrange(4), label)
        true = [a_box() for _ in range(draw.randrange(1, 4))]
        # every class has a box of its own; that of the true class is often near, now and then it is absent
        boxes = [a_box() for _ in range(classes)]
        chance = draw.random()
        boxes[label] = None if chance < 0.1 else near(draw.choice(true)) if chance < 0.8 else boxes[label]
        answers.append([(answer, boxes[answer]) for answer in ranking[:5]])
        labels.append(label)
        truths.append(true)
        own.append(boxes[label])
        top1.append(ranking[0] == label)
        top5.append(label in ranking[:5])

    most = max(map(len, truths))
    truth = torch.tensor([[*true, *[[NAN] * 4] * (most - len(true))] for true in truths], dtype=dtype)
    truth = truth[:, torch.randperm(most, generator=seeded(seed))]  # the absent ones anywhere
    boxes = torch.tensor([[NAN] * 4 if box is None else box for box in own], dtype=dtype)
    found = localization_error(boxes, truth, torch.tensor(top1), torch.tensor(top5), iou=float(iou))
    wanted = (
        ilsvrc_error([five[:1] for five in answers], labels, truths, iou),
        ilsvrc_error(answers, labels, truths, iou),
        ilsvrc_error([[(label, box)] for label, box in zip(labels, own, strict=True)], labels, truths, iou),
    )
    assert isinstance(found, LocalizationError)
    assert found == pytest.approx(wanted, abs=1e-12)
    assert found.top1 > found.top5 > found.known > 0


BOXES = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [NAN] * 4])
TRUTH = torch.tensor([[0.0, 0, 4, 2], [0, 0, 4, 1], [0, 0, 4, 4], [0, 0, 4, 4]])
TOP1 = torch.tensor([True, True, False, True])
TOP5 = torch.tensor([True, True, True, True])


def test_localization_error_by_hand():
    # IoU 8/16, exactly at the limit: right; 4/16; 16/16, but not the best answer; no box
    assert localization_error(BOXES, TRUTH, TOP1, TOP5) == (0.75, 0.5, 0.5)
    assert localization_error(BOXES, TRUTH, TOP1, TOP5, iou=0.25) == (0.5, 0.25, 0.25)
    assert localization_error(BOXES, TRUTH, TOP1, TOP5, iou=0.5000001) == (1, 0.75, 0.75)
    assert localization_error(BOXES, TRUTH, TOP1, TOP5, iou=1) == (1, 0.75, 0.75)
    assert localization_error(BOXES, TRUTH, TOP1, TOP5).known == 0.5
    assert all(isinstance(share, float) for share in localization_error(BOXES, TRUTH, TOP1, TOP5))


def test_half_is_the_limit_unless_another_is_given():
    # 49 of 100 pixels, and 50
    truth = torch.tensor([[0.0, 0, 7, 7], [0, 0, 10, 5]])
    yes = torch.tensor([True, True])
    assert localization_error(torch.tensor([[0.0, 0, 10, 10]] * 2), truth, yes, yes) == (0.5, 0.5, 0.5)


def test_any_of_several_true_boxes_will_do():
    truth = torch.tensor([[[9.0, 9, 10, 10], [NAN] * 4, [0, 0, 4, 4]]])
    yes = torch.tensor([True])
    assert localization_error(BOXES[:1], truth, yes, yes) == (0, 0, 0)
    assert localization_error(BOXES[:1], truth[:, :2], yes, yes) == (1, 1, 1)


def test_images_without_truth_are_left_out():
    truth = TRUTH.clone()
    truth[1] = NAN  # one of the two wrong boxes, and one of the three best answers
    assert localization_error(BOXES, truth, TOP1, TOP5) == pytest.approx((2 / 3, 1 / 3, 1 / 3))
    several = torch.stack([truth, torch.full((4, 4), NAN)], 1)
    assert localization_error(BOXES, several, TOP1, TOP5) == pytest.approx((2 / 3, 1 / 3, 1 / 3))
    nothing = localization_error(BOXES, torch.full((4, 4), NAN), TOP1, TOP5)
    assert all(math.isnan(share) for share in nothing)
    assert all(math.isnan(share) for share in localization_error(BOXES, torch.zeros(4, 0, 4), TOP1, TOP5))


def test_the_answers_count_image_by_image():
    # both boxes right, one class each
    boxes = TRUTH[2:].clone()
    first, none = torch.tensor([True, False]), torch.tensor([False, False])
    assert localization_error(boxes, boxes, first, first) == (0.5, 0.5, 0)
    assert localization_error(boxes, boxes, none, first) == (1, 0.5, 0)


def test_localization_error_takes_boxes_and_truth_of_different_dtype_and_leaves_them():
    kept = [one.clone() for one in (BOXES, TRUTH, TOP1, TOP5)]
    assert localization_error(BOXES.double(), TRUTH, TOP1, TOP5) == (0.75, 0.5, 0.5)
    assert localization_error(BOXES, TRUTH.double(), TOP1, TOP5) == (0.75, 0.5, 0.5)
    assert localization_error(BOXES, TRUTH.long(), TOP1, TOP5) == (0.75, 0.5, 0.5)
    for one, before in zip((BOXES, TRUTH, TOP1, TOP5), kept, strict=True):
        same(one, before)


def test_integer_boxes_do_not_cut_the_truth_to_integers():
    # the true box ends at 3.9, not at 3: IoU 15.6/16, not 12/16; and an image without truth stays out
    boxes = torch.tensor([[0, 0, 4, 4]] * 2)
    truth = torch.tensor([[0.0, 0, 4, 3.9], [NAN] * 4])
    yes = torch.tensor([True, True])
    assert localization_error(boxes, truth, yes, yes, iou=0.9) == (0, 0, 0)


def test_boxes_of_half_precision_do_not_overflow():
    # 700 * 1000 pixels are more than float16 can say
    box = largest_component_box(torch.ones(1, 700, 1000, dtype=torch.float16))
    yes = torch.tensor([True])
    assert localization_error(box, torch.tensor([[0.0, 0, 1000, 700]]), yes, yes) == (0, 0, 0)


@needs_cuda
def test_localization_error_takes_answers_from_another_device():
    assert localization_error(BOXES.cuda(), TRUTH, TOP1, TOP5) == (0.75, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("boxes", BOXES[0]),
        ("boxes", BOXES[None]),
        ("boxes", BOXES[:, :3]),
        ("boxes", BOXES[:0]),
        ("boxes", BOXES.tolist()),
        ("truth", TRUTH[:3]),
        ("truth", TRUTH[0]),
        ("truth", TRUTH[:, :2]),
        ("truth", TRUTH[:, None, None]),
        ("truth", TRUTH.tolist()),
        ("top1", TOP1.long()),
        ("top1", TOP1[:3]),
        ("top1", TOP1[:, None]),
        ("top1", TOP1.tolist()),
        ("top5", TOP5.float()),
        ("top5", TOP5[:1]),
        ("top5", True),
        ("iou", 0),
        ("iou", 0.0),
        ("iou", 1.01),
        ("iou", -0.5),
        ("iou", NAN),
        ("iou", "0.5"),
        ("iou", True),
    ],
)
def test_what_does_not_go_together_is_named(name, value):
    given = {"boxes": BOXES, "truth": TRUTH, "top1": TOP1, "top5": TOP5, "iou": 0.5} | {name: value}
    with pytest.raises(ValueError, match=f"^{name} must"):
        localization_error(given["boxes"], given["truth"], given["top1"], given["top5"], iou=given["iou"])


# the units of a class


def reader(weight):
    """A network of one unit a column of `weight`, whose first linear layer is not the one that reads the classes."""
    weight = torch.tensor(weight)
    classes, units = weight.shape
    net = nn.Sequential(
        nn.Conv2d(3, 7, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, units),
        nn.ReLU(),
        nn.Linear(units, classes),
    ).to(weight.dtype)
    with torch.no_grad():
        net[5].weight.copy_(weight)
        net[5].bias.copy_(torch.arange(classes) * 100)  # says nothing about units
    return net


WEIGHTS = [[1.0, -9, 3, 2], [0, 5, -1, 4], [-1, -2, -3, -4]]


def test_class_specific_units_by_hand():
    net = reader(WEIGHTS)
    with assert_untouched(net):
        found = class_specific_units(net, 0, 3)
    assert found.units.tolist() == [2, 3, 0]  # the large negative weight of unit 1 speaks against the class
    assert found.weights.tolist() == [3, 2, 1]
    assert found.units.dtype == torch.int64
    assert not found.weights.requires_grad
    assert class_specific_units(net, 2, 4).units.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("target", [[1, 0], (1, 0), torch.tensor([1, 0]), torch.tensor([1, 0], dtype=torch.int32)])
def test_several_classes_by_hand(target):
    found = class_specific_units(reader(WEIGHTS), target, 2)
    assert found.units.tolist() == [[1, 3], [2, 3]]
    assert found.weights.tolist() == [[5, 4], [3, 2]]


@pytest.mark.parametrize("target", [1, torch.tensor(1), np.int64(1)])
def test_one_class_has_no_class_axis(target):
    assert class_specific_units(reader(WEIGHTS), target, 1).units.tolist() == [1]


@pytest.mark.parametrize("target", [[1], (1,), torch.tensor([1])])
def test_a_list_of_one_class_keeps_its_axis(target):
    assert class_specific_units(reader(WEIGHTS), target, 1).units.tolist() == [[1]]


def test_five_units_unless_another_number_is_asked_and_all_of_them_by_sorting():
    weight = torch.randn(6, 20, generator=seeded(0), dtype=torch.float64)
    net = reader(weight.tolist()).double()
    found = class_specific_units(net, list(range(6)))
    assert found.weights.dtype == torch.float64
    for row, units, weights in zip(weight.tolist(), found.units.tolist(), found.weights.tolist(), strict=True):
        wanted = sorted(range(20), key=lambda unit, row=row: -row[unit])[:5]
        assert units == wanted
        assert weights == pytest.approx([row[unit] for unit in wanted], rel=1e-6)


def test_equal_weights_give_any_of_the_units():
    found = class_specific_units(reader([[1.0, 1, 1, 0]]), 0, 2)
    assert found.weights.tolist() == [1, 1]
    assert set(found.units.tolist()) < {0, 1, 2}
    assert len(set(found.units.tolist())) == 2


@pytest.mark.parametrize(
    ("target", "k", "message"),
    [
        (3, 1, "target must lie in 0 .. 2"),
        (-1, 1, "target must lie in 0 .. 2"),
        ([0, 3], 1, "target must lie in 0 .. 2"),
        ([[0, 1]], 1, "target must be a class or"),
        ([[0], [1]], 1, "target must be a class or"),
        (torch.tensor([[0], [1]]), 1, "target must be a class or"),
        ([], 1, "target must"),
        (1.0, 1, "target must"),
        (True, 1, "target must"),
        ("cat", 1, "target must"),
        (None, 1, "target must"),
        (0, 0, "k must"),
        (0, 5, "k must be at most 4"),
        (0, 2.0, "k must"),
        (0, True, "k must"),
    ],
)
def test_units_that_cannot_be_had_are_named(target, k, message):
    with pytest.raises(ValueError, match=message):
        class_specific_units(reader(WEIGHTS), target, k)


def test_a_network_without_a_linear_layer_has_no_such_units():
    with pytest.raises(ValueError, match="model must have a linear layer"):
        class_specific_units(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()), 0)


# the patches of a unit


def eye(pool=1, dtype=torch.float32):
    """Unit 0 is how bright colour 0 is, unit 1 colour 1, unit 2 minus colour 0; of the brightest of pool x pool."""
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool2d(pool), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0]])[..., None, None])
        net[0].bias.copy_(torch.tensor([0.0, 10, 0]))
    return net.to(dtype)


def dots(height, width, *places, dtype=torch.float32):
    """One image a place: a pixel of colour 0 there, and one of colour 1 at the opposite place."""
    images = torch.zeros(len(places), 2, height, width, dtype=dtype)
    for number, (row, column) in enumerate(places):
        images[number, 0, row, column] = number + 1
        images[number, 1, height - 1 - row, width - 1 - column] = 2 * number + 1
    return images


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_crops_by_hand(dtype):
    # sides of 3 around the pixels (4, 5), (0, 0) and (6, 8) of 7 x 9; the corners lie inside the image
    images = dots(7, 9, (4, 5), (0, 0), (6, 8), dtype=dtype)
    net = eye(dtype=dtype)
    before = images.clone()
    with assert_untouched(net):
        found = receptive_field_crop(net, images, [0], 3, 3, layer="0")
    assert found.values.tolist() == [[3, 2, 1]]
    assert found.images.tolist() == [[2, 1, 0]]
    assert found.corners.tolist() == [[[4, 6], [0, 0], [3, 4]]]
    assert found.patches.shape == (1, 3, 2, 3, 3)
    assert found.patches.dtype == found.values.dtype == dtype
    assert found.images.dtype == found.corners.dtype == torch.int64
    assert found.patches[0, 0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 3]]
    assert found.patches[0, 1, 0].tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert found.patches[0, 2, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert torch.equal(images, before)


def test_units_have_an_axis_of_their_own_in_the_order_asked():
    images = dots(6, 5, (0, 0), (2, 1), (5, 4))
    found = receptive_field_crop(eye(), images, [1, 0, 1], 1, 2, layer="0")
    assert found.values.tolist() == [[15, 13], [3, 2], [15, 13]]  # 10 + 2 number + 1 for unit 1
    assert found.images.tolist() == [[2, 1]] * 3
    assert found.corners.tolist() == [[[0, 0], [3, 3]], [[5, 4], [2, 1]], [[0, 0], [3, 3]]]
    assert found.patches[0, :, 1, 0, 0].tolist() == [5, 3]
    assert found.patches[1, :, 0, 0, 0].tolist() == [3, 2]
    for same_units in (torch.tensor([1, 0, 1]), (1, 0, 1), np.array([1, 0, 1])):
        again = receptive_field_crop(eye(), images, same_units, 1, 2, layer="0")
        assert all(torch.equal(*pair) for pair in zip(again, found, strict=True))


def test_five_crops_unless_another_number_is_asked():
    assert receptive_field_crop(eye(), dots(4, 4, *[(1, 1)] * 7), [0], 2, layer="0").images.tolist() == [
        [6, 5, 4, 3, 2]
    ]


@pytest.mark.parametrize("pool", [1, 2, 4])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7, 8, 12])
@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_the_patch_lies_around_the_cell_and_inside_the_image(shape, side, pool):
    height, width = shape
    places = [(r, c) for r in range(0, height, 3) for c in range(0, width, 3)] + [(height - 1, width - 1)]
    images = dots(height, width, *places)
    found = receptive_field_crop(eye(pool), images, [0], side, len(places), layer="1")
    assert found.images[0].tolist() == list(range(len(places)))[::-1]
    for patch, number, corner in zip(found.patches[0], found.images[0], found.corners[0].tolist(), strict=True):
        (top, left), place = corner, places[number]
        assert torch.equal(patch, images[number, :, top : top + side, left : left + side])
        for at, pixel, size in zip(corner, place, shape, strict=True):
            middle = (pixel // pool + 0.5) * pool  # of the cell that answered
            assert 0 <= at <= size - side
            wanted = min(max(middle - side / 2, 0), size - side)
            assert abs(at - wanted) <= 0.5


@pytest.mark.parametrize(("side", "pool"), [(2, 1), (4, 1), (3, 2), (3, 4), (4, 2)])
@pytest.mark.parametrize("size", [28, 36, 44])
def test_a_moved_image_gives_the_same_patch(size, side, pool):
    # One cell further the corner is one cell further, also where the middle of the cell lies between two corners.
    places = [(row, 1) for row in range(2 * pool, size - 2 * pool, pool)]
    found = receptive_field_crop(eye(pool), dots(size, 12, *places), [0], side, len(places), layer="1")
    tops = found.corners[0, :, 0].flip(0)
    assert (tops.diff() == pool).all(), tops.tolist()


def test_maps_that_do_not_fit_evenly_are_stretched_over_the_image():
    # 10 pixels, no padding, a 3x3 filter: 8 cells of 10/8 pixels; cell 4's centre is 4.5 * 1.25 = 5.625,
    # cell 7's 9.375; a side of 2 begins at round(4.625) = 5 and at min(round(8.375), 8) = 8
    net = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.Flatten())
    with torch.no_grad():
        net[0].weight.zero_()[0, 0, 1, 1] = 1
    images = torch.zeros(2, 1, 10, 10)
    images[0, 0, 5, 8], images[1, 0, 8, 5] = 2, 1
    assert receptive_field_crop(net, images, [0], 2, 2, layer="0").corners.tolist() == [[[5, 8], [8, 5]]]


def test_a_filter_that_finds_a_corner_is_found_where_it_is():
    # bright right and below, dark left and above: the filter answers most at the square's upper left corner
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[-1.0, -1, -1], [-1, 1, 1], [-1, 1, 1]]))
    images = torch.zeros(2, 1, 15, 11)
    images[0, 0, 6:12, 3:8], images[1, 0, 3:9, 5:9] = 1, 0.5
    found = receptive_field_crop(net, images, [0], 3, 2, layer="1")
    assert found.values.tolist() == [[4, 2]]
    assert found.corners.tolist() == [[[5, 2], [2, 4]]]
    assert found.patches[0, 0, 0].tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_negative_answers_are_compared_too():
    images = torch.tensor([5.0, 3, 4])[:, None, None, None].expand(3, 2, 4, 4).clone()
    images[:, 0, 2, 1] -= 1
    found = receptive_field_crop(eye(), images, [2], 1, 3, layer="0")  # minus the brightness: the least dark place
    assert found.values.tolist() == [[-2, -3, -4]]
    assert found.corners.tolist() == [[[2, 1]] * 3]


def test_the_whole_image_may_be_the_patch():
    images = dots(5, 5, (1, 3), (0, 0))
    found = receptive_field_crop(eye(), images, [0], 5, 2, layer="0")
    assert torch.equal(found.patches[0], images.flip(0))
    wide = dots(5, 8, (1, 7))
    assert receptive_field_crop(eye(), wide, [0], 5, 1, layer="0").corners.tolist() == [[[0, 3]]]


def test_more_than_a_hundred_images_equal_a_plain_search():
    images = torch.rand(230, 2, 6, 7, generator=seeded(0))
    found = receptive_field_crop(eye(), images, [0, 1], 3, 12, layer="0")
    for unit in (0, 1):
        peaks = sorted(((image[unit].max().item(), number) for number, image in enumerate(images)), reverse=True)[:12]
        assert found.images[unit].tolist() == [number for _, number in peaks]
        assert found.values[unit].tolist() == pytest.approx([value + 10 * unit for value, _ in peaks])
        for (_, number), corner in zip(peaks, found.corners[unit].tolist(), strict=True):
            at = divmod(images[number, unit].argmax().item(), 7)
            assert corner == [min(max(at[0] - 1, 0), 3), min(max(at[1] - 1, 0), 4)]
    values = found.values
    assert (values.diff(dim=1) <= 0).all()


def test_crops_of_the_images_themselves_and_no_graph():
    images = dots(6, 6, (2, 3)).requires_grad_()
    found = receptive_field_crop(eye(), images, [0], 1, 1, layer="input")
    assert found.corners.tolist() == [[[2, 3]]]
    assert not any(one.requires_grad for one in receptive_field_crop(eye(), images, [0], 2, 1, layer="0"))


def test_a_precision_of_eight_bits_still_finds_the_place():
    # bfloat16 tells neither 300.5 / 400 from its neighbours nor the corner 299 from 300
    images = dots(400, 2, (301, 0), dtype=torch.bfloat16)
    found = receptive_field_crop(eye(dtype=torch.bfloat16), images, [0], 1, 1, layer="0")
    assert found.corners.tolist() == [[[301, 0]]]


def test_the_network_is_left_alone_when_it_raises():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), Boom())
    net.train()
    with assert_untouched(net), pytest.raises(RuntimeError, match="boom"):
        receptive_field_crop(net, dots(4, 4, (1, 1)), [0], 2, 1, layer="0")


@needs_cuda
def test_crops_stay_on_the_device():
    images = dots(6, 5, (0, 0), (2, 1))
    found = receptive_field_crop(eye().cuda(), images.cuda(), [1, 0], 2, 2, layer="0")
    assert all(one.is_cuda for one in found)
    for one, other in zip(found, receptive_field_crop(eye(), images, [1, 0], 2, 2, layer="0"), strict=True):
        torch.testing.assert_close(one.cpu(), other)


IMAGES = dots(5, 6, (1, 1), (2, 2))
GIVEN = {"images": IMAGES, "units": [0], "layer": "0", "side": 2, "n": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("units", [3]),
        ("units", [-1]),
        ("units", []),
        ("units", 0),
        ("units", [[0]]),
        ("units", [0.0]),
        ("units", [True]),
        ("units", None),
        ("units", "ab"),
        ("units", ["a"]),
        ("units", [[0], [1, 2]]),
        ("units", torch.tensor([1j])),
        ("layer", "nowhere"),
        ("layer", "3"),
        ("layer", "4"),
        ("layer", ["0"]),
        ("layer", None),
        ("side", 6),
        ("side", 0),
        ("side", 2.0),
        ("side", True),
        ("n", 3),
        ("n", 0),
        ("n", 1.0),
        ("n", True),
    ],
)
def test_crops_that_cannot_be_had_are_named(name, value):
    net = eye()
    with assert_untouched(net), pytest.raises(ValueError, match=name):
        receptive_field_crop(net, **(GIVEN | {name: value}))


@pytest.mark.parametrize(
    "images",
    [IMAGES[0], IMAGES[:0], IMAGES[:, :1], IMAGES.double(), IMAGES.long(), IMAGES * NAN, IMAGES.tolist(), None],
)
def test_bad_images_are_refused(images):
    net = eye()
    with assert_untouched(net), pytest.raises(ValueError, match=r"\b(x|images) must"):
        receptive_field_crop(net, images, [0], 2, 1, layer="0")
