"""What a network reads in boxes of a picture, against windows cut by hand and drawn digits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.ablation_oracle import lenet
from support.refuses import refuses
from support.tensors import NAN, needs_cuda, uniform
from support.untouched import Boom, assert_untouched
from torch import nn
from torchvision.ops import box_iou

from helpers.data import digit_scenes
from helpers.networks import load
from helpers.similarnet import Reading, hotspots, map_threshold, read_hotspots


class Spy(nn.Module):
    """Keeps the windows that it is given; its logits are (0, mean, ...)."""

    def __init__(self, classes=3):
        super().__init__()
        self.classes, self.seen = classes, []

    def forward(self, x):
        self.seen.append(x.clone())
        return x.mean((1, 2, 3))[:, None] * torch.arange(self.classes).to(x)


def windows(x, boxes, **options):
    spy = Spy()
    read_hotspots(spy, x, boxes, **options)
    return spy.seen[-1]


def sample(image, xs, ys):
    """The oracle's bilinear values of (H, W) at points in pixel edges; black outside."""
    image = np.pad(np.asarray(image, np.float64), 1)
    high, wide = image.shape
    value = np.zeros((len(ys), len(xs)))
    for i, y in enumerate(np.clip(np.asarray(ys) + 0.5, 0, high - 1)):
        for j, x in enumerate(np.clip(np.asarray(xs) + 0.5, 0, wide - 1)):
            r, c = min(int(y), high - 2), min(int(x), wide - 2)
            fy, fx = y - r, x - c
            value[i, j] = (image[r, c] * (1 - fx) + image[r, c + 1] * fx) * (1 - fy)
            value[i, j] += (image[r + 1, c] * (1 - fx) + image[r + 1, c + 1] * fx) * fy
    return value


def cut_by_hand(image, centre, edge, side):
    """A square window of a given edge, each of its pixels the mean of ceil(edge / side) points a side."""
    many = int(np.ceil(edge / side - 1e-9))
    steps = (np.arange(side * many) + 0.5) / (side * many) * edge - edge / 2
    fine = sample(image, centre[0] + steps, centre[1] + steps)
    return fine.reshape(side, many, side, many).mean((1, 3))


def window_by_hand(image, box, side=28, ink=20):
    x0, y0, x1, y1 = box
    edge = max(x1 - x0, y1 - y0) * side / ink
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    seen = cut_by_hand(image, centre, edge, side)
    light = seen - seen.min()
    if light.sum() > 0:
        at = ((np.arange(side) + 0.5) / side - 0.5) * edge
        centre = centre + np.array([light.sum(0) @ at, light.sum(1) @ at]) / light.sum()
    return cut_by_hand(image, centre, edge, side)


@pytest.mark.parametrize(
    ("box", "side", "ink"),
    [
        ((14.5, 12, 34, 31.5), 28, 20),
        ((17, 12, 29, 31), 28, 20),  # taller than wide
        ((10, 20, 31, 29), 28, 20),  # wider than tall
        ((15.25, 13.5, 24.75, 27.125), 28, 20),
        ((5, 6, 43, 40), 28, 20),  # larger than the window
        ((14, 12, 33, 32), 16, 11),
        ((14, 12, 33, 32), 12, 12),
        ((14, 12, 33, 32), 15, 9.5),
        ((20, 20, 21, 21), 28, 20),  # one pixel
    ],
)
def test_windows_are_framed_by_the_box_and_centred_on_what_is_bright(box, side, ink):
    # Well inside the image, and the box never a whole multiple of what the window samples.
    image = F.pad(uniform(1, 1, 24, 20, seed=5), (45, 43, 42, 42))
    moved = [edge + 30 for edge in box]
    actual = windows(image, torch.tensor([[moved]], dtype=torch.float32), side=side, ink=ink)
    assert actual.shape == (1, 1, side, side)
    np.testing.assert_allclose(actual[0, 0].numpy(), window_by_hand(image[0, 0], moved, side, ink), atol=5e-4)


@pytest.mark.parametrize("box", [(0, 0, 19, 18), (12, 9, 30, 26), (0, 7, 12, 26), (0, 0, 30, 26), (29, 0, 30, 1)])
def test_beyond_the_image_everything_is_black(box):
    image = 0.5 + 0.5 * uniform(1, 1, 26, 30, seed=6)
    boxes = torch.tensor([[box]], dtype=torch.float32)
    actual = windows(image, boxes)
    around = windows(F.pad(image, (40,) * 4), boxes + 40)
    np.testing.assert_allclose(actual.numpy(), around.numpy(), atol=5e-4)
    np.testing.assert_allclose(actual[0, 0].numpy(), window_by_hand(image[0, 0], box), atol=5e-4)


def test_a_white_square_as_wide_as_the_image_stays_as_wide():
    actual = windows(torch.ones(1, 1, 20, 20), torch.tensor([[[0.0, 0, 20, 20]]]))
    assert actual.sum().item() == pytest.approx(400, abs=0.1)  # 20 x 20 of 28 x 28


def test_a_window_of_the_images_own_pixels():
    # A box of 20 pixels gives a window of 28, from 4 pixels before it on; bright symmetrically, so it stays there.
    image = torch.zeros(1, 1, 50, 60)
    image[0, 0, 15:35, 22:42] = 0.5
    image[0, 0, 20:30, 27:37] = 1.0
    actual = windows(image, torch.tensor([[[22.0, 15, 42, 35]]]))
    torch.testing.assert_close(actual, image[:, :, 11:39, 18:46], atol=5e-4, rtol=0)


def test_a_window_moves_to_the_centre_of_what_is_bright():
    # The box is off by 3 columns and 2 rows; the window ends up around the square all the same.
    image = torch.zeros(1, 1, 60, 60)
    image[0, 0, 22:32, 25:35] = 1.0
    actual = windows(image, torch.tensor([[[23.0, 15, 43, 35]]]))
    torch.testing.assert_close(actual, image[:, :, 13:41, 16:44], atol=5e-4, rtol=0)


def test_channels_share_one_centre():
    x = F.pad(uniform(1, 3, 12, 12, seed=3), (20,) * 4)
    box = torch.tensor([[[20.0, 20, 32, 32]]])
    actual = windows(x, box)
    whole = windows(x.sum(1, keepdim=True), box)
    torch.testing.assert_close(actual.sum(1, keepdim=True), whole, atol=1e-5, rtol=1e-5)


def read_scenes(**options):
    return digit_scenes(options.pop("n", 150), 5, **options)


NET = load("lenet-mnist")


@pytest.mark.parametrize("options", [{}, {"size": 112, "digits": 3}, {"height": 12}, {"size": 128, "height": 45}])
def test_drawn_digits_are_read(options):
    scenes = read_scenes(**options)
    reading = read_hotspots(NET, scenes.images, scenes.boxes)
    assert isinstance(reading, Reading)
    assert reading.labels.shape == scenes.labels.shape
    assert reading.labels.dtype == torch.int64
    assert reading.probabilities.shape == (*scenes.labels.shape, 10)
    assert (reading.labels == scenes.labels).float().mean() >= 0.85


def test_the_reading_is_the_networks_softmax_of_the_windows():
    scenes = read_scenes(n=12, size=90, digits=2)
    seen = windows(scenes.images, scenes.boxes)
    with torch.no_grad():
        expected = NET(seen).softmax(1).unflatten(0, (12, 2))
    reading = read_hotspots(NET, scenes.images, scenes.boxes)
    torch.testing.assert_close(reading.probabilities, expected)
    assert torch.equal(reading.labels, expected.argmax(2))
    assert not reading.probabilities.requires_grad


def test_moving_the_digit_by_whole_pixels_changes_nothing():
    scenes = read_scenes(n=20, size=60)
    reading = read_hotspots(NET, scenes.images, scenes.boxes)
    for left, top in [(1, 0), (7, 13), (40, 22)]:
        moved = F.pad(scenes.images, (left, 60 - left, top, 60 - top))
        boxes = scenes.boxes + torch.tensor([left, top, left, top])
        again = read_hotspots(NET, F.pad(moved, (20,) * 4), boxes + 20)
        inner = read_hotspots(NET, F.pad(scenes.images, (30,) * 4), scenes.boxes + 30)
        torch.testing.assert_close(again.probabilities, inner.probabilities, atol=2e-4, rtol=0)
        assert torch.equal(again.labels, reading.labels)


def test_moving_a_digit_as_large_as_the_frame_changes_nothing():
    # Boxes of 20 pixels, MNIST's own size: a window of 28 image pixels for its 28, one sample each. Rounding must not
    # make it two samples here and one there.
    scenes = read_scenes(n=150, size=64)
    exact = (scenes.boxes[:, 0, 2:] - scenes.boxes[:, 0, :2]).amax(1) == 20
    images, boxes = F.pad(scenes.images[exact], (30,) * 4), scenes.boxes[exact] + 30
    before = windows(images, boxes)
    for left, top in [(7, 13), (40, 22), (300, 5)]:
        after = windows(F.pad(images, (left, 0, top, 0)), boxes + torch.tensor([left, top, left, top]))
        torch.testing.assert_close(after, before, atol=2e-3, rtol=0)


@pytest.mark.parametrize("bad", [(0,), (3,), (1, 2), (0, 1, 2, 3)])
def test_absent_boxes_are_read_as_nothing(bad):
    scenes = read_scenes(n=3, size=90, digits=2)
    boxes = scenes.boxes.clone()
    boxes[1, 0, list(bad)] = NAN
    boxes[2] = NAN
    reading, whole = (read_hotspots(NET, scenes.images, some) for some in (boxes, scenes.boxes))
    absent = torch.tensor([[False, False], [True, False], [True, True]])
    assert (reading.labels == -1).equal(absent)
    assert reading.probabilities.isnan().all(2).equal(absent)
    assert reading.probabilities.isnan().any(2).equal(absent)
    assert torch.equal(reading.labels[~absent], whole.labels[~absent])
    torch.testing.assert_close(reading.probabilities[~absent], whole.probabilities[~absent])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("boxes", [torch.full((2, 3, 4), NAN), torch.zeros(2, 0, 4)])
def test_no_box_at_all(boxes, dtype):
    net = lenet(classes=4, size=20, channels=2).to(dtype)
    reading = read_hotspots(net, uniform(2, 2, 33, 30, dtype=dtype), boxes, side=20, ink=14)
    assert reading.labels.equal(torch.full(boxes.shape[:2], -1))
    assert reading.probabilities.shape == (*boxes.shape[:2], 4)
    assert reading.probabilities.dtype == dtype
    assert reading.probabilities.isnan().all()


@pytest.mark.parametrize("box", [(20, 20, 21, 21), (0, 0, 1, 1), (0, 0, 64, 64), (-30, -30, -5, -5), (60, 3, 90, 9)])
@pytest.mark.parametrize("image", [torch.zeros(1, 1, 64, 64), torch.full((1, 1, 64, 64), 0.5), uniform(1, 1, 64, 64)])
@pytest.mark.parametrize("stretch", [False, True])
def test_any_box_on_any_image_gives_probabilities(box, image, stretch):
    reading = read_hotspots(NET, image, torch.tensor([[box]]), stretch=stretch)
    assert 0 <= reading.labels.item() < 10
    assert reading.probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert reading.probabilities.argmax() == reading.labels.item()


@pytest.mark.parametrize("stretch", [False, True])
def test_a_black_image_is_read_as_a_black_window(stretch):
    with torch.no_grad():
        expected = NET(torch.zeros(1, 1, 28, 28)).softmax(1)
    reading = read_hotspots(NET, torch.zeros(1, 1, 40, 50), torch.tensor([[[3.0, 4, 20, 22]]]), stretch=stretch)
    torch.testing.assert_close(reading.probabilities[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stretch", [False, True])
def test_several_images_and_boxes_equal_one_by_one(dtype, stretch):
    scenes, net = read_scenes(n=4, size=110, digits=(1, 3)), load("lenet-mnist").to(dtype)
    images = scenes.images.to(dtype)
    reading = read_hotspots(net, images, scenes.boxes, stretch=stretch)
    assert reading.probabilities.dtype == dtype
    for i in range(4):
        for j in range(3):
            single = read_hotspots(net, images[i : i + 1], scenes.boxes[i : i + 1, j : j + 1], stretch=stretch)
            assert single.labels.item() == reading.labels[i, j]
            torch.testing.assert_close(
                single.probabilities[0, 0], reading.probabilities[i, j], equal_nan=True, atol=1e-5, rtol=1e-5
            )


def test_a_dim_digit_is_read_as_the_bright_one_when_stretched():
    scenes = read_scenes(n=60, size=64)
    bright = read_hotspots(NET, scenes.images, scenes.boxes)
    dim = read_hotspots(NET, scenes.images * 0.3, scenes.boxes, stretch=True)
    assert torch.equal(dim.labels, bright.labels)
    torch.testing.assert_close(dim.probabilities, bright.probabilities, atol=1e-4, rtol=0)
    plain = read_hotspots(NET, scenes.images * 0.3, scenes.boxes)
    assert (plain.probabilities - bright.probabilities).abs().max() > 0.1  # as it is, it is another image


def test_stretching_is_from_0_to_1_window_by_window():
    x = 0.2 + 0.3 * uniform(2, 2, 60, 60)
    boxes = torch.tensor([[[20.0, 20, 40, 40], [25, 22, 36, 40]], [[20.0, 24, 40, 40], [22, 22, 38, 35]]])
    plain, actual = windows(x, boxes), windows(x, boxes, stretch=True)
    for before, after in zip(plain.numpy(), actual.numpy(), strict=True):
        np.testing.assert_allclose(after, (before - before.min()) / (before.max() - before.min()), atol=1e-5)


def test_another_networks_side_and_ink():
    torch.manual_seed(0)
    net, x = lenet(size=20, classes=3, channels=2), uniform(2, 2, 50, 44)
    boxes = torch.tensor([[[10.0, 12, 24, 25]], [[15.0, 15, 22, 30]]])
    reading = read_hotspots(net, x, boxes, side=20, ink=14)
    with torch.no_grad():
        expected = net(windows(x, boxes, side=20, ink=14)).softmax(1)
    torch.testing.assert_close(reading.probabilities[:, 0], expected)


def test_boxes_of_whole_numbers_and_of_double_precision():
    scenes = read_scenes(n=5)
    expected = read_hotspots(NET, scenes.images, scenes.boxes)
    for boxes in (scenes.boxes.long(), scenes.boxes.double(), scenes.boxes.int()):
        torch.testing.assert_close(read_hotspots(NET, scenes.images, boxes).probabilities, expected.probabilities)


def test_everything_is_left_alone_by_the_reading():
    scenes, net = read_scenes(n=3), lenet().train()
    net.relu1.inplace = True
    x, boxes = scenes.images.clone().requires_grad_(), scenes.boxes.clone()
    with assert_untouched(net):
        reading = read_hotspots(net, x, boxes, stretch=True)
        read_hotspots(net, x, torch.full((3, 1, 4), NAN))
    assert not reading.probabilities.requires_grad
    assert torch.equal(x, scenes.images)
    assert torch.equal(boxes, scenes.boxes)
    net.fc3 = Boom()
    with assert_untouched(net), pytest.raises(RuntimeError, match="boom"):
        read_hotspots(net, x, boxes)


def test_bad_arguments_are_refused():
    arguments = {"model": lenet(), "x": uniform(1, 1, 28, 28), "boxes": torch.tensor([[[2.0, 2, 20, 20]]])}
    refuses(read_hotspots, arguments, x=uniform(1, 28, 28), boxes=torch.zeros(2, 1, 4), side=0, ink=0)
    for box in ([1.0, 1, 1, 3], [1.0, 3, 2, 3], [1.0, 3, 2, float("inf")]):
        refuses(read_hotspots, arguments, boxes=torch.tensor([[box]]))
    with pytest.raises(ValueError, match=r"x0 < x1 .*got \[5.0, 1.0, 2.0, 9.0\]"):
        read_hotspots(lenet(), arguments["x"], torch.tensor([[[1.0, 1, 2, 2], [5.0, 1, 2, 9]]]))


def test_from_the_picture_to_the_digit():
    # All of it: maps, cut, boxes and reading, on black canvases, where the picture itself can be the map.
    scenes = read_scenes(n=40, size=90, digits=2)
    maps = scenes.images[:, 0]
    boxes = hotspots(maps, map_threshold(maps, 0.5))
    assert boxes.shape == (40, 2, 4)
    reading = read_hotspots(NET, scenes.images, boxes)
    right = []
    for own, label, expected, true in zip(boxes, reading.labels, scenes.boxes, scenes.labels, strict=True):
        shared, which = box_iou(expected, own).max(1)
        assert shared.min() > 0.9
        right += (label[which] == true).tolist()
    assert sum(right) / len(right) >= 0.85


@needs_cuda
def test_everything_is_the_same_on_the_gpu():
    scenes, net, there = read_scenes(n=6, size=96, digits=(1, 3)), load("lenet-mnist"), load("lenet-mnist").cuda()
    images, expected = scenes.images.cuda(), read_hotspots(net, scenes.images, scenes.boxes)
    for boxes in (scenes.boxes.cuda(), scenes.boxes):  # boxes may come from the processor
        reading = read_hotspots(there, images, boxes)
        assert reading.labels.is_cuda
        assert torch.equal(reading.labels.cpu(), expected.labels)
        torch.testing.assert_close(
            reading.probabilities.cpu(), expected.probabilities, equal_nan=True, atol=1e-2, rtol=1e-2
        )


def test_a_single_logit_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 1))
    with pytest.raises(ValueError, match="two classes at least, got 1, of which a softmax is always 1"):
        read_hotspots(net, torch.rand(1, 1, 40, 40), torch.tensor([[[2.0, 2, 20, 20]]]))


def test_a_network_in_bfloat16_reads_the_same_windows():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x, boxes = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0)), torch.tensor([[[3.0, 4, 11, 13]]])
    right = read_hotspots(net, x, boxes, side=8, ink=6).probabilities
    half = read_hotspots(net.bfloat16(), x.bfloat16(), boxes, side=8, ink=6).probabilities
    torch.testing.assert_close(half.float(), right, rtol=0.03, atol=0.01)
