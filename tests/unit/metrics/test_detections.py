"""Which of several objects are found, by hand and by a loop."""

import pytest
import torch

from helpers.metrics import Detections, detections

NAN = float("nan")
ABSENT = [NAN] * 4
A, B = [0, 0, 10, 10], [20, 20, 30, 40]  # areas 100 and 200


def boxes(*images, dtype=torch.float32):
    return torch.tensor(images, dtype=dtype)


def check(actual, expected, box, alarms):
    assert isinstance(actual, Detections)
    assert actual.found.dtype == torch.bool
    assert actual.box.dtype == actual.false_alarms.dtype == torch.int64
    assert actual.found.tolist() == expected
    assert actual.box.tolist() == box
    assert actual.false_alarms.tolist() == alarms


def test_the_second_box_on_one_object_is_a_false_alarm():
    # On A: 10 x 8 of 100 overlap by 0.8, 10 x 9 by 0.9; both would do, the better one counts.
    candidates = boxes([[0, 0, 10, 8], [0, 0, 10, 9], [20, 20, 30, 38]])
    check(detections(candidates, boxes([A, B])), [[True, True]], [[1, 2]], [1])


def test_a_box_on_nothing_is_a_false_alarm_and_the_first_of_equal_boxes_counts():
    check(detections(boxes([B, A, A]), boxes([A])), [[True]], [[1]], [2])
    check(detections(boxes([[50, 50, 60, 60], A, [0, 50, 9, 60]]), boxes([A])), [[True]], [[1]], [2])


def test_a_box_that_overlaps_too_little_is_a_false_alarm():
    # 10 x 5 moved by one pixel: 10 x 4 = 40 shared of 100 + 50 - 40 = 110: 0.36
    candidates = boxes([[0, -1, 10, 4]])
    check(detections(candidates, boxes([A])), [[False]], [[-1]], [1])
    check(detections(candidates, boxes([A]), iou=0.36), [[True]], [[0]], [0])
    check(detections(candidates, boxes([A]), iou=0.37), [[False]], [[-1]], [1])


@pytest.mark.parametrize(
    ("box", "limit"),
    [
        ([0, 0, 10, 5], 0.5),  # 50 of 100
        ([0, 0, 5, 6], 0.3),
        ([0, 5, 10, 15], 1 / 3),  # 50 of 150
        ([0, 0, 10, 10], 1),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_limit_a_box_has_found_its_object(box, limit, dtype):
    check(detections(boxes([box], dtype=dtype), boxes([A], dtype=dtype), iou=limit), [[True]], [[0]], [0])


def test_half_is_enough_by_default_and_less_is_not():
    check(detections(boxes([[0, 0, 10, 5]]), boxes([A])), [[True]], [[0]], [0])
    check(detections(boxes([[0, 0, 10, 4.99]]), boxes([A])), [[False]], [[-1]], [1])
    check(detections(boxes([[0, 0, 10, 9.99]]), boxes([A]), iou=1), [[False]], [[-1]], [1])


def test_absent_boxes_find_nothing_and_are_no_alarms():
    candidates = boxes([ABSENT, A, [NAN, 20, 30, 40], [20, 20, 30, NAN]])
    check(detections(candidates, boxes([A, B])), [[True, False]], [[1, -1]], [0])


def test_absent_objects_are_never_found():
    check(detections(boxes([A, B]), boxes([ABSENT, B, [0, 0, NAN, 10]])), [[False, True, False]], [[-1, 1, -1]], [1])
    check(detections(boxes([ABSENT]), boxes([ABSENT]), iou=1e-9), [[False]], [[-1]], [0])


def test_no_boxes_at_all():
    truth = boxes([A, B], [A, ABSENT])
    for candidates in (torch.zeros(2, 0, 4), torch.full((2, 3, 4), NAN)):
        check(detections(candidates, truth), [[False, False]] * 2, [[-1, -1]] * 2, [0, 0])


def test_no_objects_at_all():
    check(detections(boxes([A, B, ABSENT]), torch.zeros(1, 0, 4)), [[]], [[]], [2])
    check(detections(torch.zeros(1, 0, 4), torch.zeros(1, 0, 4)), [[]], [[]], [0])


def test_empty_boxes_overlap_nothing():
    point = [5, 5, 5, 5]
    check(detections(boxes([point, A]), boxes([A])), [[True]], [[1]], [1])
    check(detections(boxes([point]), boxes([point])), [[False]], [[-1]], [1])


def test_several_images_at_once():
    candidates = boxes([A, B, ABSENT], [B, [0, 0, 9, 10], A], [ABSENT] * 3)
    truth = boxes([A, ABSENT], [A, B], [B, A])
    actual = detections(candidates, truth)
    check(actual, [[True, False], [True, True], [False, False]], [[0, -1], [2, 0], [-1, -1]], [1, 1, 0])
    for i in range(3):  # no image sees another's boxes
        alone = detections(candidates[i : i + 1], truth[i : i + 1])
        assert all(torch.equal(part[0], whole[i]) for part, whole in zip(alone, actual, strict=True))


def share(box, other):
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    both = max(wide, 0) * max(high, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return both / (sum(areas) - both)


@pytest.mark.parametrize("limit", [0.5, 0.55, 0.75])
def test_against_a_loop(limit):
    # Objects in a row, far from each other; boxes near them, or anywhere.
    draw = torch.Generator().manual_seed(0)
    place = torch.arange(5.0)[:, None] * torch.tensor([100.0, 0, 100, 0])
    truth = (place + torch.tensor([0.0, 0, 20, 20])).repeat(8, 1, 1)
    truth[torch.rand(8, 5, generator=draw) < 0.3] = NAN
    own = torch.randint(5, (8, 12), generator=draw)
    candidates = place[own] + torch.tensor([0.0, 0, 20, 20]) + torch.randint(-4, 5, (8, 12, 4), generator=draw)
    candidates[torch.rand(8, 12, generator=draw) < 0.2] = NAN
    actual = detections(candidates, truth, iou=limit)
    for i in range(8):
        there = [m for m in range(12) if not candidates[i, m].isnan().any()]
        used = set()
        for t in range(5):
            shares = {m: share(candidates[i, m].tolist(), truth[i, t].tolist()) for m in there}
            best = max(shares, key=shares.get) if not truth[i, t].isnan().any() else None
            if best is None or shares[best] < limit:
                assert not actual.found[i, t]
                assert actual.box[i, t] == -1
                continue
            used.add(best)
            assert actual.found[i, t]
            assert shares[actual.box[i, t].item()] == shares[best]  # of equal ones either
        assert actual.false_alarms[i] == len(there) - len(used)


@pytest.mark.parametrize("limit", [0.5, 0.4])
def test_a_box_around_two_objects_side_by_side(limit):
    # 100 of 200 overlap with either. The objects do not overlap at all, and one box is used: no alarm, and not -1.
    actual = detections(boxes([[0, 0, 20, 10]]), boxes([A, [10, 0, 20, 10]]), iou=limit)
    assert actual.false_alarms.tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float16, torch.float64])
def test_boxes_and_objects_of_any_real_type(dtype):
    candidates, truth = boxes([A, B], dtype=dtype), boxes([B, A])
    check(detections(candidates, truth), [[True, True]], [[1, 0]], [0])
    check(detections(truth, candidates), [[True, True]], [[1, 0]], [0])


def test_what_is_given_is_left_alone():
    candidates, truth = boxes([A, ABSENT]), boxes([B, A])
    copies = candidates.clone(), truth.clone()
    detections(candidates, truth)
    torch.testing.assert_close((candidates, truth), copies, equal_nan=True)


@pytest.mark.parametrize(
    ("candidates", "truth", "message"),
    [
        (torch.zeros(2, 4), boxes([A]), r"boxes must be a tensor \(B, M, 4\), got \(2, 4\)"),
        (boxes([A]), torch.zeros(1, 1, 3), r"truth must be a tensor \(1, T, 4\), got \(1, 1, 3\)"),
        (boxes([[10, 0, 0, 10]]), boxes([A]), "boxes must have x0 <= x1"),
        (boxes([A]), boxes([[0, 10, 10, 0]]), "truth must have x0 <= x1"),
        (boxes([[0, 0, float("inf"), 1]]), boxes([A]), "boxes must be finite"),
    ],
)
def test_bad_boxes_are_refused(candidates, truth, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        detections(candidates, truth)
    for limit in (0, 1.01):
        with pytest.raises(ValueError, match=r"^iou must be"):
            detections(boxes([A]), boxes([A]), iou=limit)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_detections_are_the_same_on_the_gpu():
    candidates, truth = boxes([A, B, [0, 0, 9, 10]], [ABSENT] * 3), boxes([B, A], [A, ABSENT])
    for count in (3, 0):
        expected, actual = (
            detections(candidates[:, :count], truth),
            detections(candidates[:, :count].cuda(), truth.cuda()),
        )
        assert all(
            part.is_cuda and torch.equal(part.cpu(), on_cpu) for part, on_cpu in zip(actual, expected, strict=True)
        )


def test_the_first_of_equal_boxes_counts():
    check(detections(boxes([B, A, A]), boxes([A])), [[True]], [[1]], [2])


def test_edges_may_lie_between_pixels():
    check(detections(boxes([[0.25, 0, 10, 4.4]]), boxes([[0.25, 0, 10, 4.4]]), iou=1), [[True]], [[0]], [0])
