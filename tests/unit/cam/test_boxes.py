"""Boxes from maps, and ILSVRC's localisation error."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from support.boxes import NAN, box_of, exact_iou, needs_cuda, picture, same, seeded
from support.refuses import refuses

from helpers.cam import LocalizationError, largest_component_box, localization_error

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
    actual = largest_component_box(maps, threshold)
    assert actual.shape == (4, 3, 4)
    assert actual.dtype == dtype
    for image, box in zip(maps.flatten(0, 1), actual.flatten(0, 1), strict=True):
        top = max(image.max().item(), 0)
        same(box, box_of(np.array([[value > threshold * top for value in row] for row in image.tolist()])))


def test_the_k_axis_is_kept_and_batches_equal_one_by_one():
    maps = torch.randn(5, 2, 6, 6, generator=seeded(1))
    actual = largest_component_box(maps)
    same(actual, torch.stack([largest_component_box(maps[:, k]) for k in range(2)], 1))
    same(actual, torch.cat([largest_component_box(image[None]) for image in maps]))


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
    actual = largest_component_box(maps.cuda())
    assert actual.is_cuda
    same(actual.cpu(), largest_component_box(maps))


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
    actual = localization_error(boxes, truth, torch.tensor(top1), torch.tensor(top5), iou=float(iou))
    expected = (
        ilsvrc_error([five[:1] for five in answers], labels, truths, iou),
        ilsvrc_error(answers, labels, truths, iou),
        ilsvrc_error([[(label, box)] for label, box in zip(labels, own, strict=True)], labels, truths, iou),
    )
    assert isinstance(actual, LocalizationError)
    assert actual == pytest.approx(expected, abs=1e-12)
    assert actual.top1 > actual.top5 > actual.known > 0


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
    originals = [tensor.clone() for tensor in (BOXES, TRUTH, TOP1, TOP5)]
    assert localization_error(BOXES.double(), TRUTH, TOP1, TOP5) == (0.75, 0.5, 0.5)
    assert localization_error(BOXES, TRUTH.double(), TOP1, TOP5) == (0.75, 0.5, 0.5)
    assert localization_error(BOXES, TRUTH.long(), TOP1, TOP5) == (0.75, 0.5, 0.5)
    for tensor, original in zip((BOXES, TRUTH, TOP1, TOP5), originals, strict=True):
        same(tensor, original)


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


def test_bad_arguments_are_refused():
    for threshold in (1, -0.1):
        refuses(largest_component_box, {"maps": TWO}, maps=torch.rand(4, 4), threshold=threshold)
    arguments = {"boxes": BOXES, "truth": TRUTH, "top1": TOP1, "top5": TOP5}
    refuses(localization_error, arguments, boxes=BOXES[:, :3], truth=TRUTH[:3], top1=TOP1.long(), top5=TOP5[:1], iou=0)
