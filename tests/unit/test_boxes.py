"""Boxes around regions and their overlap, against plain Python."""

import random

import numpy as np
import pytest
import torch
import torchvision
from scipy import ndimage
from support.boxes import NAN, box_of, exact_iou, picture, same, seeded

from helpers.boxes import box_centers, box_mask, mask_boxes, overlap, region_boxes

# the box of a mask


def test_mask_boxes_by_hand():
    masks = torch.zeros(2, 3, 5, 6, dtype=torch.bool)
    masks[0, 1, 1:3, 2] = masks[0, 1, 2, 4] = masks[1, 2] = True
    boxes = mask_boxes(masks)
    assert boxes.dtype == torch.float32
    expected = torch.full((2, 3, 4), NAN)
    expected[0, 1], expected[1, 2] = torch.tensor([2.0, 1, 5, 3]), torch.tensor([0.0, 0, 6, 5])
    same(boxes, expected)
    assert mask_boxes(masks[:0]).shape == (0, 3, 4)
    with pytest.raises(ValueError, match=r"^masks must be bool, got torch.float32"):
        mask_boxes(masks.float())


def test_mask_boxes_equal_torchvisions():
    masks = torch.rand(40, 9, 14, generator=seeded(0)) < 0.05
    masks = masks[masks.flatten(1).any(1)]
    last_pixel = torch.tensor([0, 0, 1, 1])  # torchvision's boxes end at the last pixel, ours behind it
    same(mask_boxes(masks), torchvision.ops.masks_to_boxes(masks) + last_pixel)
    same(mask_boxes(masks.mT.contiguous().mT), mask_boxes(masks))


# regions


def test_region_boxes_by_hand():
    masks = torch.stack([picture(text)[0] > 0 for text in ("11.. 1... ...1", ".... .... ....", "...1 ..1. .1.1")])
    same(region_boxes(masks), [[0, 0, 2, 2], [NAN] * 4, [1, 0, 4, 3]])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(9, 14), (1, 20), (20, 1)])
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
    same(region_boxes(picture("..1 1.. 1..") > 0), [[0, 1, 1, 3]])  # nor the end of a row the next one's beginning


# centres


def test_box_centers_by_hand():
    boxes = torch.tensor([[[0.0, 2, 3, 8], [NAN] * 4, [1, 1, 1, 1]]])
    same(box_centers(boxes), torch.tensor([[[1.5, 5], [NAN] * 2, [1, 1]]]))
    assert box_centers(torch.tensor([2, 0, 7, 9])).tolist() == [4.5, 4.5]
    assert box_centers(boxes[:, :0]).shape == (1, 0, 2)
    with pytest.raises(ValueError, match=r"^boxes must"):
        box_centers(boxes[..., :3])


# overlap


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
    actual = overlap(torch.tensor(ours).double()[:, None], torch.tensor(theirs).double())
    assert actual.shape == (15, 20)
    expected = [[float(exact_iou(a, b)) for b in theirs] for a in ours]
    same(actual, torch.tensor(expected, dtype=torch.float64))
    same(overlap(torch.tensor(theirs).double()[:, None], torch.tensor(ours).double()), actual.T)


# the mask of a box


B = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0]])


@pytest.mark.parametrize("box", [(1, 0, 3, 2), (0, 0, 5, 4), (4, 3, 5, 4), (2, 1, 3, 4), (2, 2, 2, 3), (-3, 1, 2, 99)])
def test_a_box_stands_for_a_slice(box):
    x0, y0, x1, y1 = box
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[max(y0, 0) : y1, max(x0, 0) : x1] = True
    for dtype in (torch.int64, torch.float32, torch.float64):
        assert torch.equal(box_mask(torch.tensor(box, dtype=dtype), (4, 5)), expected)


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
    actual = box_mask(boxes, (6, 7))
    assert actual.shape == (2, 3, 6, 7)
    assert actual.dtype == torch.bool
    assert actual.sum((2, 3)).tolist() == [[4, 3, 12], [7, 1, 0]]
    assert not actual[1, 2].any()
    for i in range(2):
        for k in range(3):
            assert torch.equal(box_mask(boxes[i, k], [6, 7]), actual[i, k])
    assert not box_mask(torch.tensor([NAN, 0, 4, 4]), (4, 4)).any()
    assert not box_mask(torch.tensor([0, 0, 4, NAN]), (4, 4)).any()
    assert box_mask(boxes[:0], torch.Size((6, 7))).shape == (0, 3, 6, 7)


@pytest.mark.parametrize(
    ("boxes", "shape", "message"),
    [
        (B[:, :3], (3, 4), r"boxes must be a tensor \(..., 4\), got \(2, 3\)"),
        (B[:, [2, 1, 0, 3]], (3, 4), "boxes must have x0 <= x1 and y0 <= y1, got"),
        (B, 5, r"shape must be \(H, W\), two positive integers, got 5"),
    ],
)
def test_what_gives_no_mask_is_refused(boxes, shape, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        box_mask(boxes, shape)
