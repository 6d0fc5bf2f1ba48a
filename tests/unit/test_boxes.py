"""Boxes around regions and their overlap, against plain Python."""

import random

import numpy as np
import pytest
import torch
from scipy import ndimage
from support.boxes import NAN, box_of, exact_iou, picture, same, seeded

from helpers.boxes import overlap, region_boxes

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
