"""MaxBoxAccV2 and the overlap of masks, by hand and by loops."""

import pytest
import torch
from skimage.measure import label, regionprops

from helpers import metrics


def test_boxes_by_hand():
    # Two regions: at thresholds up to a half both, 3 and 2 wide; above it the first alone.
    field = torch.zeros(1, 6, 10)
    field[0, 1:4, 1:4] = 1.0
    field[0, 1:4, 6:8] = 0.5
    left, right = [1.0, 1, 4, 4], [6.0, 1, 8, 4]
    for truth, accuracy in ((left, 1.0), (right, 1.0), ([1.0, 1, 8, 4], 0.0)):
        result = metrics.max_box_acc(field, torch.tensor([truth]), ious=(0.9,), steps=4)
        assert result.accuracy.tolist() == [accuracy]
    # thresholds 0 (everything), 0.25, 0.5 and 0.75: the right one is found at 0.25 and 0.5 alone
    result = metrics.max_box_acc(field, torch.tensor([right]), ious=(0.9,), steps=4)
    assert result.curves.tolist() == [[0, 1, 1, 0]]
    assert result.thresholds.tolist() == [0.25]
    both = torch.tensor([[left, right]])
    assert metrics.max_box_acc(field, both, ious=(0.9,), steps=4).curves.tolist() == [[0, 1, 1, 1]]


def test_the_threshold_is_that_of_other_images():
    field = torch.zeros(1, 6, 10)
    field[0, 1:4, 1:4], field[0, 1:4, 4:8] = 1.0, 0.5
    small, large = torch.tensor([[1.0, 1, 4, 4]]), torch.tensor([[1.0, 1, 8, 4]])
    assert metrics.max_box_acc(field, small, ious=(0.9,), steps=4).accuracy.item() == 1  # at 0.75
    held_out = metrics.max_box_acc(field, small, (field, large), ious=(0.9,), steps=4)
    assert (held_out.thresholds.item(), held_out.accuracy.item()) == (0.25, 0)


def by_loops(maps, truth, iou, steps):
    curve = []
    for k in range(steps):
        right = 0
        for values, box in zip(maps, truth, strict=True):
            scaled = (values - values.min()) / (values.max() - values.min())
            best = 0
            for region in regionprops(label((scaled >= k / steps).numpy(), connectivity=2)):
                y0, x0, y1, x1 = region.bbox
                across, down = min(x1, box[2]) - max(x0, box[0]), min(y1, box[3]) - max(y0, box[1])
                shared = max(across, 0) * max(down, 0)
                union = (x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - shared
                best = max(best, shared / union)
            right += best >= iou
        curve.append(right / len(maps))
    return curve


def test_the_curves_are_those_of_loops():
    draw = torch.Generator().manual_seed(0)
    maps = torch.nn.functional.avg_pool2d(torch.randn(6, 20, 24, generator=draw).double(), 5, 1)
    truth = torch.tensor(
        [[2.0, 3, 12, 11], [0, 0, 20, 16], [5, 5, 9, 9], [10, 0, 19, 8], [1, 1, 4, 15], [3, 3, 18, 12]]
    )
    result = metrics.max_box_acc(maps, truth, steps=10)
    for own, iou in zip(result.curves, (0.3, 0.5, 0.7), strict=True):
        assert own.tolist() == pytest.approx(by_loops(maps, truth.tolist(), iou, 10))
    assert result.mean == pytest.approx(result.curves.amax(1).mean().item())
    for scale in (1e-30, 1e30):  # nothing depends on the unit of the maps
        assert metrics.max_box_acc(maps * scale, truth, steps=10).curves.equal(result.curves)


def test_images_without_a_box_are_left_out_and_constant_maps_are_one_box():
    maps = torch.zeros(3, 4, 6)
    maps[0, 1:3, 1:3] = 1
    truth = torch.tensor([[1.0, 1, 3, 3], [0, 0, 6, 4], [float("nan")] * 4])
    result = metrics.max_box_acc(maps, truth, ious=(1.0,), steps=2)
    assert result.curves.tolist() == [[0.5, 1.0]]


def test_bad_localization_is_refused():
    maps, truth = torch.rand(2, 5, 5), torch.tensor([[0.0, 0, 3, 3]] * 2)
    for options, message in (
        ({"maps": maps[0]}, "maps must"),
        ({"maps": maps * float("nan")}, "maps must be finite"),
        ({"truth": truth[:1]}, "truth must"),
        ({"truth": truth * float("nan")}, "truth must hold a box"),
        ({"ious": ()}, "ious must hold"),
        ({"ious": (0.0,)}, "ious must"),
        ({"steps": 0}, "steps must"),
        ({"held_out": (maps[0], truth)}, "held_out must"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.max_box_acc(**({"maps": maps, "truth": truth} | options))


def test_masks_by_hand():
    maps = torch.tensor([[[0.0, 2], [4, 1]], [[0, 2], [4, 1]], [[3, 3], [3, 3]], [[0, 2], [4, 1]]])
    masks = torch.tensor([[[0, 1], [1, 0]], [[0, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]]).bool()
    actual = metrics.mask_iou(maps, masks, 0.5)
    torch.testing.assert_close(actual, torch.tensor([1, 0.5, 0.25, float("nan")]), equal_nan=True)
    # one threshold a map: 2 of 4 is marked at 0.5, three at 0.25
    torch.testing.assert_close(
        metrics.mask_iou(maps[:2], masks[:2], torch.tensor([0.25, 1.0])), torch.tensor([2 / 3, 0])
    )
    torch.testing.assert_close(metrics.mask_iou(maps[None], masks[None], 0.5)[0], actual, equal_nan=True)
    assert metrics.mask_iou(-maps[0] * 1e30, masks[0], 1.0).item() == 0


def test_bad_masks_are_refused():
    maps, masks = torch.rand(2, 3, 3), torch.ones(2, 3, 3).bool()
    for arguments, message in (
        ((maps, masks[:1], 0.5), "masks must"),
        ((maps, masks.float(), 0.5), "masks must"),
        ((maps, masks, 1.5), "threshold must"),
        ((maps, masks, torch.rand(3)), "threshold must"),
        ((maps, masks, float("nan")), "threshold must"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.mask_iou(*arguments)
