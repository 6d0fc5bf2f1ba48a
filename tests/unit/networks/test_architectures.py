"""Architectures against counts worked out by hand; poolings that move by one pixel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers.networks import LeNet, SmallVGG, load, normalize, rebuilt

MIXED = {"stages": ((4, 5), (6,), (7, 8)), "channels": 2}


def test_lenet_is_table_1_of_similarnet():
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in LeNet().named_children()}
    assert {name: n for name, n in counts.items() if n} == {
        "conv1": 6 * 25 + 6,
        "conv2": 16 * 6 * 25 + 16,
        "fc1": 16 * 7 * 7 * 120 + 120,
        "fc2": 120 * 84 + 84,
        "fc3": 84 * 10 + 10,
    }
    assert sum(counts.values()) == 107_786


@pytest.mark.parametrize(("size", "channels", "classes"), [(28, 1, 10), (48, 1, 10), (32, 3, 7), (4, 1, 2)])
def test_other_sizes_and_classes(size, channels, classes):
    net = LeNet(classes=classes, channels=channels, size=size, pool=nn.AvgPool2d)
    assert isinstance(net.pool1, nn.AvgPool2d)
    assert net(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_the_features_share_the_weights_and_take_any_size():
    net = LeNet()
    assert net.features[0] is net.conv1
    assert [net[: n + 1](torch.zeros(1, 1, 28, 28)).shape[-1] for n in range(6)] == [28, 28, 14, 14, 14, 7]  # table 1
    assert net.features(torch.zeros(1, 1, 40, 60)).shape == (1, 16, 10, 15)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(net.fc3(net.relu4(net.fc2(net.relu3(net.fc1(net.features(x).flatten(1)))))), net(x))


def test_small_vgg_by_hand():
    net = SmallVGG(5, stages=((4,), (6, 8)))
    assert [name for name, _ in net.named_children()] == (
        ["conv1", "relu1", "pool1", "conv2", "relu2", "conv3", "relu3", "gap", "flatten", "fc"]
    )
    assert sum(p.numel() for p in net.parameters()) == (27 * 4 + 4) + (36 * 6 + 6) + (54 * 8 + 8) + (8 * 5 + 5)
    x = torch.rand(2, 3, 16, 12)
    maps = net.features(x)
    assert maps.shape == (2, 8, 8, 6)
    torch.testing.assert_close(net(x), maps.mean((2, 3)) @ net.fc.weight.T + net.fc.bias)
    top = SmallVGG(5, stages=((4,), (6, 8)), pooling="gmp")
    top.load_state_dict(net.state_dict())
    torch.testing.assert_close(top(x), maps.amax((2, 3)) @ net.fc.weight.T + net.fc.bias)


def test_batch_norm_takes_the_place_of_the_bias_and_no_relu_works_in_place():
    net = SmallVGG(5, norm=True)
    assert all(m.bias is None for m in net.modules() if isinstance(m, nn.Conv2d))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 4
    assert not any(m.inplace for m in net.modules() if isinstance(m, nn.ReLU))


def test_an_angular_network_does_not_see_a_roll_of_whole_cells():
    torch.manual_seed(0)
    views = torch.rand(2, 3, 32, 32)
    angular, plain = (SmallVGG(5, angular=a) for a in (True, False))
    plain.load_state_dict(angular.state_dict())
    torch.testing.assert_close(angular(views.roll(8, -1)), angular(views))  # three poolings: a cell is 8 columns
    assert (plain(views.roll(8, -1)) - plain(views)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "pooling must"),
        ({"stages": ()}, "stages must"),
        ({"stages": ((8,), ())}, "stages must"),
        ({"stages": (16, 32)}, "stages must"),
        ({"channels": 0}, "channels must"),
        ({"atrous": 4}, r"atrous must be an integer in 0 \.\. 3"),
        ({"atrous": True}, "atrous must be"),
        ({"atrous": 1, "stages": ((4,),)}, r"atrous must be an integer in 0 \.\. 0"),
        ({"atrous": 1, "angular": True}, "atrous and angular"),
    ],
)
def test_an_architecture_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match="^" + message):
        SmallVGG(5, **options)
    with pytest.raises(ValueError, match="multiple of 4"):
        LeNet(size=30)


SCENES = {"stages": ((16,), (32,), (64,), (128,))}
PHOTOS = {"stages": ((24,), (48,), (96,), (192, 192)), "norm": True}


def plain_and_dense(atrous: int, **options: object) -> tuple[SmallVGG, SmallVGG]:
    """A network with random weights and random statistics of its normalisation, twice; float64."""
    torch.manual_seed(0)
    plain = SmallVGG(5, **options)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.5)
    dense = SmallVGG(5, **options, atrous=atrous)
    dense.load_state_dict(plain.state_dict())
    return plain.double().eval(), dense.double().eval()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.abs().max() > 1e-3  # something is there to compare
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("atrous", [1, 2, 3])
@pytest.mark.parametrize("options", [SCENES, PHOTOS], ids=["scenes", "photos"])
@pytest.mark.parametrize("size", [(40, 72), (8, 16)])
def test_at_every_second_place_dense_maps_are_the_plain_ones(size, options, atrous):
    plain, dense = plain_and_dense(atrous, **options)
    x, step = noise(2, 3, *size), 2**atrous
    with torch.no_grad():
        coarse, fine = plain.features(x), dense.features(x)
    assert coarse.shape[2:] == (size[0] // 8, size[1] // 8)
    assert fine.shape == (2, coarse.shape[1], coarse.shape[2] * step, coarse.shape[3] * step)
    close(fine[..., ::step, ::step], coarse)


@pytest.mark.parametrize("options", [SCENES, PHOTOS], ids=["scenes", "photos"])
@pytest.mark.parametrize(
    ("atrous", "move"), [(1, (4, 0)), (1, (0, 4)), (1, (4, 4)), (2, (2, 6)), (2, (6, 4)), (3, (1, 3))]
)
def test_between_those_places_dense_maps_are_those_of_the_moved_image(options, atrous, move):
    # cells of the plain maps are 8 pixels apart, of the dense ones 8 / 2^atrous
    plain, dense = plain_and_dense(atrous, **options)
    x, step = noise(1, 3, 96, 104), 2**atrous
    moved = x.roll((-move[0], -move[1]), (2, 3))
    first = [pixels * step // 8 for pixels in move]
    with torch.no_grad():
        coarse, fine = plain.features(moved), dense.features(x)[..., first[0] :: step, first[1] :: step]
    # A unit sees up to 35 pixels beyond its cell: behind conv1 1, pool1 2, conv2 4, pool2 6, conv3 10, pool3 14,
    # conv4 22, and conv5 30, rounded up to whole cells.
    far = 5
    coarse, fine = coarse[..., far:-far, far:-far], fine[..., far:-far, far:-far]
    assert coarse.shape[2:] == (2, 3)
    close(fine, coarse)


@pytest.mark.parametrize("size", [(65, 71), (68, 60), (67, 64)])
@pytest.mark.parametrize("atrous", [1, 2])
def test_sides_that_the_poolings_do_not_divide_keep_their_places_away_from_the_end(size, atrous):
    plain, dense = plain_and_dense(atrous, **SCENES)
    x, step = noise(1, 3, *size), 2**atrous
    with torch.no_grad():
        coarse, fine = plain.features(x), dense.features(x)
    assert coarse.shape[2:] == (size[0] // 8, size[1] // 8)
    # the first poolings move by two pixels and lose the odd one, the dense ones lose none
    assert fine.shape[2:] == (size[0] // 2 ** (3 - atrous), size[1] // 2 ** (3 - atrous))
    height, width = coarse.shape[2] - 3, coarse.shape[3] - 3
    close(fine[..., ::step, ::step][..., :height, :width], coarse[..., :height, :width])


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("pooling", ["gap", "gmp"])
def test_without_atrous_nothing_is_changed_and_with_it_only_what_must_be(pooling, norm):
    options = {"stages": ((4,), (5,), (6, 7)), "pooling": pooling, "norm": norm}
    plain, same, dense = SmallVGG(5, **options), SmallVGG(5, **options, atrous=0), SmallVGG(5, **options, atrous=1)
    assert repr(same) == repr(plain)
    names = [name for name, _ in plain.named_children()]
    assert [name for name, _ in dense.named_children()] == names
    assert SmallVGG(5, angular=True, atrous=0).pad1.pad == 1
    assert dense.state_dict().keys() == plain.state_dict().keys()
    differ = [name for name in names if repr(getattr(dense, name)) != repr(getattr(plain, name))]
    assert differ == ["pool2", "conv3", "conv4"]
    assert type(plain.pool2) is nn.MaxPool2d
    for name in ("conv3", "conv4"):
        conv = getattr(dense, name)
        assert (conv.dilation, conv.padding, conv.stride) == ((2, 2), (2, 2), (1, 1))
        assert (conv.bias is None) == norm


def test_a_dense_pooling_by_hand():
    # stages of one 3x3 filter that copies its input: the maps are the image's own maxima over 2x2 pixels, then over
    # 2x2 of those, two pixels apart: over 4x4 pixels from each pixel on, as far as the image reaches
    net = SmallVGG(1, channels=1, stages=((1,), (1,), (1,)), atrous=2).double()
    for number in (1, 2, 3):
        conv = getattr(net, f"conv{number}")
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    x = noise(1, 1, 6, 9).abs()
    with torch.no_grad():
        actual = net.features(x)[0, 0]
        assert net.pool1(x).shape == x.shape
    expected = [[x[0, 0, r : r + 4, c : c + 4].max() for c in range(9)] for r in range(6)]
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0)


def test_logits_of_a_dense_network_read_its_own_maps():
    for pooling in ("gap", "gmp"):
        _, dense = plain_and_dense(2, pooling=pooling)
        x = noise(2, 3, 32, 32)
        maps = dense.features(x)
        pooled = maps.mean((2, 3)) if pooling == "gap" else maps.amax((2, 3))
        close(dense(x), pooled @ dense.fc.weight.T + dense.fc.bias)


@pytest.mark.parametrize(("atrous", "stride", "offset"), [(0, 8, 0.0), (1, 4, 2.0), (2, 2, 3.0), (3, 1, 3.5)])
def test_the_places_of_dense_maps_lie_where_their_offset_says(atrous, stride, offset):
    net = SmallVGG(2, stages=((4,), (4,), (4,), (4,)), atrous=atrous)
    assert net.stride == stride
    assert net.offset == offset
    # The plain network's place k lies at 8 k + 4, evenly spread; in the dense maps it is number k * 2^atrous.
    for k in range(3):
        assert (k * 2**atrous + 0.5) * stride + net.offset == 8 * k + 4


@pytest.mark.parametrize("net", [LeNet(), SmallVGG(3, stages=((4,), (4,)))], ids=["LeNet", "SmallVGG"])
def test_a_network_is_taken_apart_by_slices(net):
    names = [name for name, _ in net.named_children()]
    front, back = net[:4], net[4:]
    assert type(front) is torch.nn.Sequential
    assert [name for name, _ in front.named_children()] == names[:4]
    assert front[0] is net[0] is net[-len(net)]
    x = torch.rand(2, next(net.parameters()).shape[1], 28, 28)
    assert torch.equal(back(front(x)), net(x))
    assert [type(part) for part in net.features] == [type(part) for part in net[: len(net.features)]]


@pytest.mark.parametrize("atrous", [1, 2])
def test_stages_of_several_convolutions_behind_the_first_dense_pooling(atrous):
    plain, dense = plain_and_dense(atrous, **MIXED)
    x = noise(2, 2, 24, 32)
    close(dense.features(x)[..., :: 2**atrous, :: 2**atrous], plain.features(x))


@pytest.mark.parametrize("atrous", [1, 2, 3])
@pytest.mark.parametrize("name", ["scenes-gap", "photos-gap"])
def test_dense_maps_of_the_shipped_networks(name, atrous):
    net = load(name, "cpu").double()
    dense = rebuilt(net, atrous=atrous)
    x = normalize(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64), net)
    with torch.no_grad():
        close(dense.features(x)[..., :: 2**atrous, :: 2**atrous], net.features(x))
