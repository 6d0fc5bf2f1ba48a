"""Feature maps of images of any size, and classifiers of every window, against the networks themselves."""

import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.ablation_oracle import lenet
from support.refuses import refuses
from support.tensors import needs_cuda, normal, uniform
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.data import digit_scenes, digits
from helpers.networks import SmallVGG, load
from helpers.similarnet import as_convolutions, features_at_any_size
from tools.project import ROOT

SIZES = [(28, 28), (29, 31), (64, 200)]
LARGE = (720, 1280)


def vgg(**options):
    torch.manual_seed(2)
    return SmallVGG(3, 1, ((4,), (5, 6), (7,)), **options).eval()


NETS = {
    "lenet": lenet,
    "lenet, averages": lambda: lenet(pool=nn.AvgPool2d),
    "vgg": vgg,
    "vgg, norm": lambda: vgg(norm=True),
    "vgg, greatest": lambda: vgg(pooling="gmp"),
}
LAST = {"lenet": "pool2", "lenet, averages": "pool2"}  # the others: relu4
EACH_NET = pytest.mark.parametrize("name", NETS)


# feature maps of any size


@EACH_NET
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_those_of_the_networks_first_part(name, size, dtype):
    net, x = NETS[name]().to(dtype), uniform(2, 1, *size, dtype=dtype)
    with torch.no_grad():
        expected = net.features(x)
    actual = features_at_any_size(net, x, layer=LAST.get(name, "relu4"))
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected)


def without_pools(net, x, last):
    """The oracle: the chain up to a layer, its poolings left out."""
    names = [key for key, _ in net.named_children()]
    for key in names[: names.index(last) + 1]:
        if not key.startswith("pool"):
            x = net.get_submodule(key)(x)
    return x


@EACH_NET
@pytest.mark.parametrize("size", SIZES)
def test_features_without_poolings_are_those_of_a_chain_without_them(name, size):
    net, x, last = NETS[name](), uniform(2, 1, *size), LAST.get(name, "relu4")
    with torch.no_grad():
        expected = without_pools(net, x, last)
    actual = features_at_any_size(net, x, layer=last, keep_pools=False)
    assert actual.shape[2:] == x.shape[2:]
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"])
@pytest.mark.parametrize("keep", [True, False])
def test_every_layer_can_be_asked(layer, keep):
    net, x = lenet(), uniform(1, 1, 37, 22)
    names = [key for key, _ in net.named_children()]
    with torch.no_grad():
        expected = net[: names.index(layer) + 1](x) if keep else without_pools(net, x, layer)
    torch.testing.assert_close(features_at_any_size(net, x, layer=layer, keep_pools=keep), expected)


@pytest.mark.parametrize("keep", [True, False])
def test_a_large_image_takes_little_time(keep):
    net, x = lenet(), uniform(1, 1, *LARGE)
    with torch.no_grad():
        expected = net.features(x) if keep else without_pools(net, x, "pool2")
    start = time.perf_counter()
    actual = features_at_any_size(net, x, layer="pool2", keep_pools=keep)
    assert time.perf_counter() - start < 5  # asked for: 1 s on two cores; a busy machine is given more
    assert actual.shape == (1, 16, *(LARGE if not keep else (LARGE[0] // 4, LARGE[1] // 4)))
    torch.testing.assert_close(actual, expected)


PEAK = """
import torch
from helpers.networks import LeNet
from helpers.similarnet import features_at_any_size

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

net, x = LeNet(), torch.rand(1, 1, 720, 1280)
before = status("VmRSS")
for keep in (True, False):
    features_at_any_size(net, x, layer="pool2", keep_pools=keep)
    print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_large_image_takes_little_memory():
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [int(peak) < 500e6 for peak in done.stdout.split()] == [True, True]  # beyond what torch itself takes


def test_a_batch_gives_what_its_images_give_one_by_one():
    net, x = lenet(), uniform(3, 1, 40, 33)
    for keep in (True, False):
        whole = features_at_any_size(net, x, layer="pool2", keep_pools=keep)
        parts = [features_at_any_size(net, image[None], layer="pool2", keep_pools=keep) for image in x]
        torch.testing.assert_close(whole, torch.cat(parts))


@pytest.mark.parametrize("keep", [True, False])
def test_the_network_and_the_images_are_left_alone(keep):
    net = lenet().train()
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    net.relu1.inplace = True
    net.conv2.register_forward_hook(lambda module, inputs, output: output * 2)
    x = uniform(1, 1, 40, 33).requires_grad_()
    copy = x.detach().clone()
    with assert_untouched(net):
        actual = features_at_any_size(net, x, layer="conv2", keep_pools=keep)
        with pytest.raises(ValueError, match="layer must be one of"):
            features_at_any_size(net, x, layer="relu9", keep_pools=keep)
    assert not actual.requires_grad
    assert torch.equal(x, copy)
    with torch.no_grad():  # the network's own hook has its say
        here = net.relu1(net.conv1(copy))
        expected = net.conv2(net.pool1(here) if keep else here)
    torch.testing.assert_close(actual, expected)


def test_what_is_found_stays_when_what_follows_works_in_place():
    net, x = lenet(), uniform(1, 1, 28, 28)
    net.relu1.inplace = True
    with torch.no_grad():
        expected = net.conv1(x)
    torch.testing.assert_close(features_at_any_size(net, x, layer="conv1"), expected)


def test_evaluation_mode_whatever_the_network_is_in():
    net, x = vgg(norm=True), uniform(3, 1, 32, 32)
    with torch.no_grad():
        expected = net.features(x)
    torch.testing.assert_close(features_at_any_size(net.train(), x, layer="relu4"), expected)


@pytest.mark.parametrize("keep", [True, False])
def test_what_follows_the_layer_does_not_run(keep):
    net = lenet()
    net.flatten = Boom()
    assert features_at_any_size(net, uniform(1, 1, 28, 28), layer="pool2", keep_pools=keep).ndim == 4


@pytest.mark.parametrize("keep", [True, False])
def test_the_network_is_left_alone_when_its_forward_raises(keep):
    net = lenet().train()
    net.relu2 = Boom()
    with assert_untouched(net), pytest.raises(RuntimeError, match="boom"):
        features_at_any_size(net, uniform(1, 1, 28, 28), layer="pool2", keep_pools=keep)


class Nested(nn.Module):
    """Poolings inside of a block, and one that is functional."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.AvgPool2d(2), nn.MaxPool2d(3, 1, 1))
        self.last = nn.Conv2d(2, 3, 1)

    def forward(self, x):
        return self.last(F.relu(self.block(x))).mean((2, 3))


def test_poolings_inside_of_blocks_are_left_out_too():
    torch.manual_seed(0)
    net, x = Nested(), uniform(2, 1, 11, 14)
    with torch.no_grad():
        with_pools = net.last(F.relu(net.block(x)))
        without = net.last(F.relu(net.block[0](x)))
    torch.testing.assert_close(features_at_any_size(net, x, layer="last"), with_pools)
    torch.testing.assert_close(features_at_any_size(net, x, layer="last", keep_pools=False), without)
    torch.testing.assert_close(features_at_any_size(net, x, layer="block", keep_pools=False), net.block[0](x).detach())


def test_bad_arguments_are_refused():
    arguments = {"model": lenet(), "x": uniform(1, 1, 28, 28), "layer": "pool2"}
    refuses(features_at_any_size, arguments, x=uniform(1, 28, 28), layer="pool3")
    refuses(features_at_any_size, arguments, x=uniform(1, 3, 28, 28), layer=["conv1"])


@pytest.mark.parametrize(
    ("layer", "message"), [("fc1", "layer must have feature maps"), ("relu1#1", "layer must be the plain name")]
)
def test_layers_without_maps_and_calls_of_layers_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        features_at_any_size(lenet(), uniform(1, 1, 28, 28), layer=layer)


def test_a_layer_that_never_runs_or_gives_no_tensor_is_refused():
    net, x = Nested(), uniform(1, 1, 8, 8)
    net.idle = nn.ReLU()
    with pytest.raises(ValueError, match="layer must run in the forward of this network, got 'idle'"):
        features_at_any_size(net, x, layer="idle")
    pair = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, return_indices=True))
    refuses(features_at_any_size, {"model": pair, "x": x}, layer="1")


@pytest.mark.parametrize("atrous", [1, 2])
def test_poolings_that_others_pad_or_dilate_for_cannot_be_left_out(atrous):
    net, x = vgg(atrous=atrous), uniform(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(features_at_any_size(net, x, layer="relu4"), net.features(x))
    with assert_untouched(net), pytest.raises(ValueError, match=r"keep_pools must be True .*got False"):
        features_at_any_size(net, x, layer="relu4", keep_pools=False)


def test_a_pooling_whose_dilation_is_written_as_a_pair_of_ones_can_be_left_out():
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, dilation=(1, 1))), uniform(1, 1, 8, 8)
    torch.testing.assert_close(features_at_any_size(net, x, layer="1", keep_pools=False), net[0](x).detach())


def test_an_image_one_pixel_high_has_features_without_poolings():
    net, x = lenet(), uniform(1, 1, 1, 9)
    with torch.no_grad():
        expected = without_pools(net, x, "pool2")
    torch.testing.assert_close(features_at_any_size(net, x, layer="pool2", keep_pools=False), expected)


# a chain as convolutions


def own_chain(dtype=torch.float32, bias=True):
    """Convolutions without padding: 15 pixels -> 13 -> 6 -> 5; one place every 2 pixels."""
    torch.manual_seed(3)
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(2, 3, 3),
            act=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            second=nn.Conv2d(3, 4, 2),
            norm=nn.BatchNorm2d(4),
            flat=nn.Flatten(),
            drop=nn.Dropout(0.5),
            wide=nn.Linear(4 * 25, 9, bias=bias),
            act2=nn.Tanh(),
            out=nn.Linear(9, 5, bias=bias),
        )
    ).to(dtype)


def drawn(size, channels, n=6):
    images = digits(n, seed=4, size=size).images
    return torch.cat([images / (k + 1) for k in range(channels)], dim=1)


CHAINS = {
    "28": (lenet, 28, 1, 3),
    "20, 3 classes, 2 channels": (lambda: lenet(size=20, classes=3, channels=2), 20, 2, 2),
    "12": (lambda: lenet(size=12), 12, 1, 1),
    "own": (lambda: own_chain().eval(), 15, 2, 2),
    "own, no bias": (lambda: own_chain(bias=False).eval(), 15, 2, 2),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_middle_place_has_the_networks_own_logits(name, dtype):
    build, size, channels, middle = CHAINS[name]
    net, x = build().to(dtype), drawn(size, channels).to(dtype)
    dense = as_convolutions(net)
    with torch.no_grad():
        maps, expected = dense(x), net(x)
    assert maps.dtype == dtype
    assert maps.shape == (len(x), expected.shape[1], 2 * middle + 1, 2 * middle + 1)
    torch.testing.assert_close(maps[:, :, middle, middle], expected)


def test_the_trained_network_reads_the_same_in_one_forward():
    net, scenes = load("lenet-mnist"), digits(50, seed=9)
    with torch.no_grad():
        maps, expected = as_convolutions(net)(scenes.images), net(scenes.images)
    torch.testing.assert_close(maps[:, :, 3, 3], expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(maps[:, :, 3, 3].argmax(1), expected.argmax(1))


def test_a_place_has_the_logits_of_the_window_around_it():
    # Nothing is padded before the large convolution, so that a window sees the same alone and within the image.
    net, x = own_chain().eval(), uniform(1, 2, 31, 45)
    with torch.no_grad():
        maps = as_convolutions(net)(x)
        assert maps.shape == (1, 5, 13, 20)  # 31 -> 29 -> 14 -> 13, 45 -> 43 -> 21 -> 20
        for row, column in [(2, 2), (2, 17), (10, 2), (7, 11)]:
            top, left = 2 * (row - 2), 2 * (column - 2)  # the first of 5 places, 2 pixels apart
            window = x[:, :, top : top + 15, left : left + 15]
            torch.testing.assert_close(maps[:, :, row, column], net(window))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (5, 9), (11, 4)])
def test_a_crop_of_a_black_canvas_reads_as_the_place_in_its_middle(row, column):
    # Black has to stay 0 behind the first convolution, as the padding is; so its bias must not be above 0.
    net = lenet()
    with torch.no_grad():
        net.conv1.bias.clamp_(max=0)
    canvas = torch.zeros(1, 1, 28 + 4 * 14, 28 + 4 * 18)
    canvas[:, :, 4 * row : 4 * row + 28, 4 * column : 4 * column + 28] = digits(1, seed=2).images
    with torch.no_grad():
        maps = as_convolutions(net)(canvas)
        crop = net(canvas[:, :, 4 * row : 4 * row + 28, 4 * column : 4 * column + 28])
    assert maps.shape == (1, 10, 21, 25)
    torch.testing.assert_close(maps[:, :, row + 3, column + 3], crop)
    assert not torch.allclose(maps[:, :, row + 4, column + 3], crop)


def test_the_first_linear_layer_sees_zeros_beyond_the_maps():
    # One filter, 3 x 3 places, weights 1 .. 9 row by row. At the corner of a map of ones the window holds the lower
    # right 2 x 2: 5 + 6 + 8 + 9 = 28; above the middle the lower two rows: 4 + ... + 9 = 39; in the middle all: 45.
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(9, 1))
    with torch.no_grad():
        net[0].weight.fill_(1)
        net[2].weight.copy_(torch.arange(1.0, 10))
        net[2].bias.fill_(0.5)
        maps = as_convolutions(net)(torch.ones(1, 1, 3, 3))[0, 0]
    assert maps[0, 0].item() == 28.5
    assert maps[0, 1].item() == 39.5
    assert maps[1, 1].item() == 45.5
    assert maps[2, 0].item() == 2 + 3 + 5 + 6 + 0.5


@pytest.mark.parametrize("size", [8, 16, 32])
def test_maps_of_an_even_side_keep_their_size(size):
    net, x = lenet(size=size), uniform(1, 1, size, size)
    with torch.no_grad():
        assert as_convolutions(net)(x).shape[2:] == net.features(x).shape[2:]


def test_one_module_used_twice_runs_twice():
    torch.manual_seed(0)
    act = nn.Tanh()
    net = nn.Sequential(nn.Conv2d(1, 2, 1), act, nn.Conv2d(2, 3, 1), act, nn.Flatten(), nn.Linear(27, 4))
    x = normal(1, 1, 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(as_convolutions(net)(x)[:, :, 1, 1], net(x))


def test_the_weights_are_shared_and_the_network_is_left_alone():
    net = own_chain().train()
    with assert_untouched(net):
        dense = as_convolutions(net)
        assert all(module.training for module in dense.modules())
    assert [name for name, _ in dense.named_children()] == [n for n, _ in net.named_children() if n != "flat"]
    assert dense.wide.weight.data_ptr() == net.wide.weight.data_ptr()
    assert dense.out.bias.data_ptr() == net.out.bias.data_ptr()
    assert dense.first is net.first
    x = uniform(1, 2, 15, 15)
    with torch.no_grad():
        net.eval()
        before = as_convolutions(net)(x)
        net.wide.weight.mul_(2)
        net.out.bias.add_(1)
        dense = dense.eval()
        torch.testing.assert_close(dense(x)[:, :, 2, 2], net(x))
    assert not torch.allclose(dense(x), before)


def test_a_batch_on_the_dense_chain_equals_its_images():
    dense, x = as_convolutions(lenet()), uniform(3, 1, 40, 52)
    with torch.no_grad():
        torch.testing.assert_close(dense(x), torch.cat([dense(image[None]) for image in x]))


CONV = nn.Conv2d(1, 3, 3, padding=1)
NO_CHAINS = {
    "a block": Nested(),
    "nothing": nn.Sequential(),
    "no flattening": nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()),
    "a linear layer before the flattening": nn.Sequential(CONV, nn.Linear(5, 5), nn.Flatten(), nn.Linear(75, 2)),
    "no convolution": nn.Sequential(nn.Flatten(), nn.Linear(9, 2)),
    "oblong maps": nn.Sequential(CONV, nn.Flatten(), nn.Linear(3 * 20, 2)),
    "not whole channels": nn.Sequential(CONV, nn.Flatten(), nn.Linear(26, 2)),
    "a convolution in a block": nn.Sequential(nn.Sequential(CONV), nn.Flatten(), nn.Linear(75, 2)),
    "no linear layer": nn.Sequential(CONV, nn.Flatten()),
    "linear layers in a block": nn.Sequential(CONV, nn.Flatten(), nn.Sequential(nn.Linear(75, 2))),
}


@pytest.mark.parametrize("name", NO_CHAINS)
def test_a_network_that_is_no_chain_is_refused(name):
    refuses(lambda model: as_convolutions(model), {}, model=NO_CHAINS[name])


@needs_cuda
def test_everything_is_the_same_on_the_gpu():
    images, net, there = (
        digit_scenes(6, 5, size=96, digits=(1, 3)).images,
        load("lenet-mnist"),
        load("lenet-mnist").cuda(),
    )
    for keep in (True, False):
        maps = features_at_any_size(there, images.cuda(), layer="pool2", keep_pools=keep)
        assert maps.is_cuda
        expected = features_at_any_size(net, images, layer="pool2", keep_pools=keep)
        torch.testing.assert_close(maps.cpu(), expected, atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        dense, expected = as_convolutions(there)(images.cuda()), as_convolutions(net)(images)
    torch.testing.assert_close(dense.cpu(), expected, atol=1e-2, rtol=1e-2)
