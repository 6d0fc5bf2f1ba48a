"""Boxes against boxes, by hand and by torchvision."""

import pytest
import torch
import torchvision
from support.metrics import INF, NAN, close, draw, exactly

from helpers.metrics import box_iou

# boxes


@pytest.mark.parametrize(
    ("box", "other", "expected"),
    [
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7),
        ([0, 0, 4, 2], [1, 0, 3, 2], 4 / 8),  # one inside the other
        ([0, 0, 1, 4], [0, 3, 1, 5], 1 / 5),
        ([-2, -2, 0, 0], [-1, -2, 1, 0], 2 / 6),
        ([0.5, 0, 1.5, 1], [1, 0, 2, 1], 0.5 / 1.5),
        ([1, 2, 3, 4], [1, 2, 3, 4], 1),
        ([0, 0, 2, 2], [3, 0, 5, 2], 0),  # beside
        ([0, 0, 2, 2], [3, 3, 5, 5], 0),  # apart on both axes
        ([0, 0, 2, 2], [2, 0, 4, 2], 0),  # touching at a side
        ([0, 0, 2, 2], [2, 2, 4, 4], 0),  # touching at a corner
        ([1, 1, 1, 3], [0, 0, 4, 4], 0),  # one empty
        ([1, 1, 1, 3], [1, 1, 1, 3], NAN),  # both empty
        ([NAN] * 4, [0, 0, 2, 2], NAN),
        ([NAN, 0, 2, 2], [0, 0, 2, 2], NAN),
        ([0, 0, 2, NAN], [3, 0, 5, 2], NAN),
    ],
)
def test_box_iou_by_hand(box, other, expected):
    box, other, expected = (torch.tensor(values, dtype=torch.float64) for values in (box, other, expected))
    close(box_iou(box, other), expected, equal_nan=True)
    close(box_iou(other, box), expected, equal_nan=True)


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
    actual = box_iou(boxes, others)
    close(actual, torchvision.ops.box_iou(boxes, others).diagonal())
    assert 5 < (actual > 0).sum() < 55
    exactly(box_iou(boxes.view(5, 12, 4), others.view(5, 12, 4)), actual.view(5, 12))
    exactly(box_iou(boxes[0], others[0]), actual[0])
    assert box_iou(boxes.float(), others.float()).dtype == torch.float32
    assert box_iou(boxes[:0], others[:0]).shape == (0,)


B = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0]])


@pytest.mark.parametrize(
    ("boxes", "others", "message"),
    [
        (B, B[0], r"boxes and others must have one shape, \(..., 4\), got \(2, 4\) and \(4,\)"),
        (B[:, :3], B[:, :3], r"boxes must be a tensor \(..., 4\), got \(2, 3\)"),
        (B, B * INF, "others must be finite, or NaN where there is no box"),
        (B[:, [2, 1, 0, 3]], B, r"boxes must have x0 <= x1 and y0 <= y1"),
        (B, B[:, [0, 3, 2, 1]], r"others must have x0 <= x1 and y0 <= y1"),
    ],
)
def test_bad_boxes_are_refused(boxes, others, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        box_iou(boxes, others)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_boxes_are_the_same_on_the_gpu():
    boxes = some_boxes(5).cuda()
    assert box_iou(boxes, boxes).is_cuda
