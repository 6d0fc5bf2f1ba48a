"""The units of a class, and the patches that excite single units."""

import numpy as np
import pytest
import torch
from support.boxes import needs_cuda, seeded
from support.refuses import refuses
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.cam import class_specific_units, receptive_field_crop

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
        actual = class_specific_units(net, 0, 3)
    assert actual.units.tolist() == [2, 3, 0]  # the large negative weight of unit 1 speaks against the class
    assert actual.weights.tolist() == [3, 2, 1]
    assert actual.units.dtype == torch.int64
    assert not actual.weights.requires_grad
    assert class_specific_units(net, 2, 4).units.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_several_classes_by_hand(kind):
    actual = class_specific_units(reader(WEIGHTS), kind([1, 0]), 2)
    assert actual.units.tolist() == [[1, 3], [2, 3]]
    assert actual.weights.tolist() == [[5, 4], [3, 2]]
    assert class_specific_units(reader(WEIGHTS), kind([1]), 1).units.tolist() == [[1]]  # keeps its axis


@pytest.mark.parametrize("target", [1, torch.tensor(1), np.int64(1)])
def test_one_class_has_no_class_axis(target):
    assert class_specific_units(reader(WEIGHTS), target, 1).units.tolist() == [1]


def test_five_units_unless_another_number_is_asked_and_all_of_them_by_sorting():
    weight = torch.randn(6, 20, generator=seeded(0), dtype=torch.float64)
    net = reader(weight.tolist()).double()
    actual = class_specific_units(net, list(range(6)))
    assert actual.weights.dtype == torch.float64
    for row, units, weights in zip(weight.tolist(), actual.units.tolist(), actual.weights.tolist(), strict=True):
        expected = sorted(range(20), key=lambda unit, row=row: -row[unit])[:5]
        assert units == expected
        assert weights == pytest.approx([row[unit] for unit in expected], rel=1e-6)


def test_equal_weights_give_any_of_the_units():
    actual = class_specific_units(reader([[1.0, 1, 1, 0]]), 0, 2)
    assert actual.weights.tolist() == [1, 1]
    assert set(actual.units.tolist()) < {0, 1, 2}
    assert len(set(actual.units.tolist())) == 2


def test_a_network_without_a_linear_layer_has_no_such_units():
    with pytest.raises(ValueError, match="model must end in a global pooling and one linear layer"):
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
        actual = receptive_field_crop(net, images, [0], 3, 3, layer="0")
    assert actual.values.tolist() == [[3, 2, 1]]
    assert actual.images.tolist() == [[2, 1, 0]]
    assert actual.corners.tolist() == [[[4, 6], [0, 0], [3, 4]]]
    assert actual.patches.shape == (1, 3, 2, 3, 3)
    assert actual.patches.dtype == actual.values.dtype == dtype
    assert actual.images.dtype == actual.corners.dtype == torch.int64
    assert actual.patches[0, 0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 3]]
    assert actual.patches[0, 1, 0].tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert actual.patches[0, 2, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert torch.equal(images, before)


def test_units_have_an_axis_of_their_own_in_the_order_asked():
    images = dots(6, 5, (0, 0), (2, 1), (5, 4))
    actual = receptive_field_crop(eye(), images, [1, 0, 1], 1, 2, layer="0")
    assert actual.values.tolist() == [[15, 13], [3, 2], [15, 13]]  # 10 + 2 number + 1 for unit 1
    assert actual.images.tolist() == [[2, 1]] * 3
    assert actual.corners.tolist() == [[[0, 0], [3, 3]], [[5, 4], [2, 1]], [[0, 0], [3, 3]]]
    assert actual.patches[0, :, 1, 0, 0].tolist() == [5, 3]
    assert actual.patches[1, :, 0, 0, 0].tolist() == [3, 2]
    for same_units in (torch.tensor([1, 0, 1]), (1, 0, 1), np.array([1, 0, 1])):
        again = receptive_field_crop(eye(), images, same_units, 1, 2, layer="0")
        assert all(torch.equal(*pair) for pair in zip(again, actual, strict=True))


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
    actual = receptive_field_crop(eye(pool), images, [0], side, len(places), layer="1")
    assert actual.images[0].tolist() == list(range(len(places)))[::-1]
    for patch, number, corner in zip(actual.patches[0], actual.images[0], actual.corners[0].tolist(), strict=True):
        (top, left), place = corner, places[number]
        assert torch.equal(patch, images[number, :, top : top + side, left : left + side])
        for at, pixel, size in zip(corner, place, shape, strict=True):
            middle = (pixel // pool + 0.5) * pool  # of the cell that answered
            assert 0 <= at <= size - side
            expected = min(max(middle - side / 2, 0), size - side)
            assert abs(at - expected) <= 0.5


@pytest.mark.parametrize(("side", "pool"), [(2, 1), (4, 1), (3, 2), (3, 4), (4, 2)])
@pytest.mark.parametrize("size", [28, 36, 44])
def test_a_moved_image_gives_the_same_patch(size, side, pool):
    # One cell further the corner is one cell further, also where the middle of the cell lies between two corners.
    places = [(row, 1) for row in range(2 * pool, size - 2 * pool, pool)]
    actual = receptive_field_crop(eye(pool), dots(size, 12, *places), [0], side, len(places), layer="1")
    tops = actual.corners[0, :, 0].flip(0)
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
    actual = receptive_field_crop(net, images, [0], 3, 2, layer="1")
    assert actual.values.tolist() == [[4, 2]]
    assert actual.corners.tolist() == [[[5, 2], [2, 4]]]
    assert actual.patches[0, 0, 0].tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_negative_answers_are_compared_too():
    images = torch.tensor([5.0, 3, 4])[:, None, None, None].expand(3, 2, 4, 4).clone()
    images[:, 0, 2, 1] -= 1
    actual = receptive_field_crop(eye(), images, [2], 1, 3, layer="0")  # minus the brightness: the least dark place
    assert actual.values.tolist() == [[-2, -3, -4]]
    assert actual.corners.tolist() == [[[2, 1]] * 3]


def test_the_whole_image_may_be_the_patch():
    images = dots(5, 5, (1, 3), (0, 0))
    actual = receptive_field_crop(eye(), images, [0], 5, 2, layer="0")
    assert torch.equal(actual.patches[0], images.flip(0))
    wide = dots(5, 8, (1, 7))
    assert receptive_field_crop(eye(), wide, [0], 5, 1, layer="0").corners.tolist() == [[[0, 3]]]


def test_more_than_a_hundred_images_equal_a_plain_search():
    images = torch.rand(230, 2, 6, 7, generator=seeded(0))
    actual = receptive_field_crop(eye(), images, [0, 1], 3, 12, layer="0")
    for unit in (0, 1):
        peaks = sorted(((image[unit].max().item(), number) for number, image in enumerate(images)), reverse=True)[:12]
        assert actual.images[unit].tolist() == [number for _, number in peaks]
        assert actual.values[unit].tolist() == pytest.approx([value + 10 * unit for value, _ in peaks])
        for (_, number), corner in zip(peaks, actual.corners[unit].tolist(), strict=True):
            at = divmod(images[number, unit].argmax().item(), 7)
            assert corner == [min(max(at[0] - 1, 0), 3), min(max(at[1] - 1, 0), 4)]
    values = actual.values
    assert (values.diff(dim=1) <= 0).all()


def test_crops_of_the_images_themselves_and_no_graph():
    images = dots(6, 6, (2, 3)).requires_grad_()
    actual = receptive_field_crop(eye(), images, [0], 1, 1, layer="input")
    assert actual.corners.tolist() == [[[2, 3]]]
    assert not any(part.requires_grad for part in receptive_field_crop(eye(), images, [0], 2, 1, layer="0"))


def test_a_precision_of_eight_bits_still_finds_the_place():
    # bfloat16 tells neither 300.5 / 400 from its neighbours nor the corner 299 from 300
    images = dots(400, 2, (301, 0), dtype=torch.bfloat16)
    actual = receptive_field_crop(eye(dtype=torch.bfloat16), images, [0], 1, 1, layer="0")
    assert actual.corners.tolist() == [[[301, 0]]]


def test_the_network_is_left_alone_when_it_raises():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), Boom())
    net.train()
    with assert_untouched(net), pytest.raises(RuntimeError, match="boom"):
        receptive_field_crop(net, dots(4, 4, (1, 1)), [0], 2, 1, layer="0")


@needs_cuda
def test_crops_stay_on_the_device():
    images = dots(6, 5, (0, 0), (2, 1))
    actual = receptive_field_crop(eye().cuda(), images.cuda(), [1, 0], 2, 2, layer="0")
    assert all(part.is_cuda for part in actual)
    for part, expected in zip(actual, receptive_field_crop(eye(), images, [1, 0], 2, 2, layer="0"), strict=True):
        torch.testing.assert_close(part.cpu(), expected)


def test_bad_arguments_are_refused():
    for target, k in ((3, 0), ([[0], [1]], 5)):
        refuses(class_specific_units, {"model": reader(WEIGHTS), "target": 0, "k": 1}, target=target, k=k)
    images = dots(5, 6, (1, 1), (2, 2))
    arguments = {"model": eye(), "x": images, "units": [0], "layer": "0", "side": 2, "n": 1}
    refuses(receptive_field_crop, arguments, x=images[0], units=[3], layer="nowhere", side=6, n=3, batch_size=0)
    refuses(receptive_field_crop, arguments, units=[-1], layer="4")


def test_the_batch_size_changes_nothing():
    images = torch.rand(7, 2, 6, 7, generator=seeded(0))
    expected = receptive_field_crop(eye(), images, [0, 1], 3, 4, layer="0")
    for batch_size in (1, 3, 100):
        actual = receptive_field_crop(eye(), images, [0, 1], 3, 4, layer="0", batch_size=batch_size)
        assert all(torch.equal(*parts) for parts in zip(actual, expected, strict=True))


class Gated(nn.Module):
    """Holds its gate, a linear layer, behind its head."""

    def __init__(self):
        super().__init__()
        self.fc, self.conv, self.gate = nn.Linear(8, 4), nn.Conv2d(3, 8, 3), nn.Linear(8, 8)

    def forward(self, x):
        maps = self.conv(x).relu()
        gate = self.gate(maps.mean((2, 3))).sigmoid()
        return self.fc((maps * gate[..., None, None]).mean((2, 3)))


def test_the_layer_that_gives_the_logits_is_read_not_the_last_one_that_was_registered():
    torch.manual_seed(0)
    net = Gated()
    for x in (None, torch.rand(2, 3, 8, 8)):
        assert class_specific_units(net, 2, 3, x=x).units.tolist() == net.fc.weight[2].topk(3).indices.tolist()
    with pytest.raises(ValueError, match=r"target must lie in 0 .. 3 .*, got 7"):
        class_specific_units(net, 7, 3)


def test_the_units_of_a_convolution_before_the_average():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert class_specific_units(net, 1, 3).units.tolist() == net[1].weight[1].flatten().topk(3).indices.tolist()
