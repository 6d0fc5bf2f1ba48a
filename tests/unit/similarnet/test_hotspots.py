import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.filters import threshold_otsu
from support.untouched import Boom, assert_untouched
from torch import nn
from torchvision.ops import box_iou

from helpers.data import digit_scenes, digits
from helpers.networks import LeNet, SmallVGG, load
from helpers.similarnet import Reading, as_convolutions, features_at_any_size, hotspots, map_threshold, read_hotspots
from tools.project import ROOT

SIZES = [(28, 28), (29, 31), (64, 200)]
NAN = float("nan")

LARGE = (720, 1280)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=seeded(seed), dtype=dtype)


def signed(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def lenet(**options):
    torch.manual_seed(1)
    return LeNet(**options).eval()


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
BAD_X = [
    (None, "x must be a torch tensor"),
    (noise(1, 28, 28), r"x must have shape .* one image is x\[None\]"),
    (noise(0, 1, 28, 28), "x must not be empty"),
    (torch.ones(1, 1, 28, 28, dtype=torch.uint8), "x must be floating point"),
    (torch.full((1, 1, 28, 28), NAN), "x must be finite"),
    (noise(1, 3, 28, 28), "x must have 1 channels"),
    (noise(1, 1, 28, 28, dtype=torch.float64), "x must be torch.float32"),
]


# Feature maps of any size.


@EACH_NET
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_those_of_the_networks_first_part(name, size, dtype):
    net, x = NETS[name]().to(dtype), noise(2, 1, *size, dtype=dtype)
    with torch.no_grad():
        wanted = net.features(x)
    found = features_at_any_size(net, x, layer=LAST.get(name, "relu4"))
    assert found.dtype == dtype
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted)


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
    net, x, last = NETS[name](), noise(2, 1, *size), LAST.get(name, "relu4")
    with torch.no_grad():
        wanted = without_pools(net, x, last)
    found = features_at_any_size(net, x, layer=last, keep_pools=False)
    assert found.shape[2:] == x.shape[2:]
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"])
@pytest.mark.parametrize("keep", [True, False])
def test_every_layer_can_be_asked(layer, keep):
    net, x = lenet(), noise(1, 1, 37, 22)
    names = [key for key, _ in net.named_children()]
    with torch.no_grad():
        wanted = net[: names.index(layer) + 1](x) if keep else without_pools(net, x, layer)
    torch.testing.assert_close(features_at_any_size(net, x, layer=layer, keep_pools=keep), wanted)


@pytest.mark.parametrize("keep", [True, False])
def test_a_large_image_takes_little_time(keep):
    net, x = lenet(), noise(1, 1, *LARGE)
    with torch.no_grad():
        wanted = net.features(x) if keep else without_pools(net, x, "pool2")
    start = time.perf_counter()
    found = features_at_any_size(net, x, layer="pool2", keep_pools=keep)
    assert time.perf_counter() - start < 5  # asked for: 1 s on two cores; a busy machine is given more
    assert found.shape == (1, 16, *(LARGE if not keep else (LARGE[0] // 4, LARGE[1] // 4)))
    torch.testing.assert_close(found, wanted)


PEAK = """
import torch
from helpers.networks import LeNet
from tools.project import ROOT
from helpers.similarnet import features_at_any_size

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

net, x = LeNet(), torch.rand(1, 1, 720, 1280)
before = status("VmRSS")
for keep in (True, False):
    features_at_any_size(net, x, "pool2", keep_pools=keep)
    print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_large_image_takes_little_memory():
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [int(peak) < 500e6 for peak in done.stdout.split()] == [True, True]  # beyond what torch itself takes


def test_a_batch_gives_what_its_images_give_one_by_one():
    net, x = lenet(), noise(3, 1, 40, 33)
    for keep in (True, False):
        whole = features_at_any_size(net, x, layer="pool2", keep_pools=keep)
        parts = [features_at_any_size(net, one[None], layer="pool2", keep_pools=keep) for one in x]
        torch.testing.assert_close(whole, torch.cat(parts))


@pytest.mark.parametrize("keep", [True, False])
def test_the_network_and_the_images_are_left_alone(keep):
    net = lenet().train()
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    net.relu1.inplace = True
    net.conv2.register_forward_hook(lambda module, inputs, output: output * 2)
    x = noise(1, 1, 40, 33).requires_grad_()
    copy = x.detach().clone()
    with assert_untouched(net):
        found = features_at_any_size(net, x, layer="conv2", keep_pools=keep)
        with pytest.raises(ValueError, match="no layer"):
            features_at_any_size(net, x, layer="relu9", keep_pools=keep)
    assert not found.requires_grad
    assert torch.equal(x, copy)
    with torch.no_grad():  # the network's own hook has its say
        here = net.relu1(net.conv1(copy))
        wanted = net.conv2(net.pool1(here) if keep else here)
    torch.testing.assert_close(found, wanted)


def test_what_is_found_stays_when_what_follows_works_in_place():
    net, x = lenet(), noise(1, 1, 28, 28)
    net.relu1.inplace = True
    with torch.no_grad():
        wanted = net.conv1(x)
    torch.testing.assert_close(features_at_any_size(net, x, layer="conv1"), wanted)


def test_evaluation_mode_whatever_the_network_is_in():
    net, x = vgg(norm=True), noise(3, 1, 32, 32)
    with torch.no_grad():
        wanted = net.features(x)
    torch.testing.assert_close(features_at_any_size(net.train(), x, layer="relu4"), wanted)


@pytest.mark.parametrize("keep", [True, False])
def test_what_follows_the_layer_does_not_run(keep):
    net = lenet()
    net.flatten = Boom()
    assert features_at_any_size(net, noise(1, 1, 28, 28), layer="pool2", keep_pools=keep).ndim == 4


@pytest.mark.parametrize("keep", [True, False])
def test_the_network_is_left_alone_when_its_forward_raises(keep):
    net = lenet().train()
    net.relu2 = Boom()
    with assert_untouched(net), pytest.raises(RuntimeError, match="boom"):
        features_at_any_size(net, noise(1, 1, 28, 28), layer="pool2", keep_pools=keep)


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
    net, x = Nested(), noise(2, 1, 11, 14)
    with torch.no_grad():
        kept, wanted = net.last(F.relu(net.block(x))), net.last(F.relu(net.block[0](x)))
    torch.testing.assert_close(features_at_any_size(net, x, layer="last"), kept)
    torch.testing.assert_close(features_at_any_size(net, x, layer="last", keep_pools=False), wanted)
    torch.testing.assert_close(features_at_any_size(net, x, layer="block", keep_pools=False), net.block[0](x).detach())


@pytest.mark.parametrize(("x", "message"), BAD_X)
def test_features_of_bad_images_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        features_at_any_size(lenet(), x, layer="pool2")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("pool3", "no layer 'pool3'"),
        ("flatten", "layer must have feature maps"),
        ("fc1", "layer must have feature maps"),
        ("input", "layer must be the plain name"),
        ("relu1#1", "layer must be the plain name"),
        (3, "layer must be one name"),
        (["conv1"], "layer must be one name"),
        (None, "layer must be one name"),
    ],
)
def test_bad_layers_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        features_at_any_size(lenet(), noise(1, 1, 28, 28), layer=layer)


def test_a_layer_that_never_runs_is_refused():
    net = Nested()
    net.idle = nn.ReLU()
    with pytest.raises(ValueError, match="layer: 'idle' does not run"):
        features_at_any_size(net, noise(1, 1, 8, 8), layer="idle")


def test_a_layer_that_gives_no_tensor_is_refused():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, return_indices=True))
    with assert_untouched(net), pytest.raises(ValueError, match="layer"):
        features_at_any_size(net, noise(1, 1, 8, 8), layer="1")


@pytest.mark.parametrize("atrous", [1, 2])
def test_poolings_that_others_pad_or_dilate_for_cannot_be_left_out(atrous):
    net, x = vgg(atrous=atrous), noise(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(features_at_any_size(net, x, layer="relu4"), net.features(x))
    with assert_untouched(net), pytest.raises(ValueError, match="keep_pools must be True here"):
        features_at_any_size(net, x, layer="relu4", keep_pools=False)


def test_a_pooling_whose_dilation_is_written_as_a_pair_of_ones_can_be_left_out():
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, dilation=(1, 1))), noise(1, 1, 8, 8)
    torch.testing.assert_close(features_at_any_size(net, x, layer="1", keep_pools=False), net[0](x).detach())


def test_an_image_one_pixel_high_has_features_without_poolings():
    net, x = lenet(), noise(1, 1, 1, 9)
    with torch.no_grad():
        wanted = without_pools(net, x, "pool2")
    torch.testing.assert_close(features_at_any_size(net, x, layer="pool2", keep_pools=False), wanted)


# A chain as convolutions.


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
        maps, wanted = dense(x), net(x)
    assert maps.dtype == dtype
    assert maps.shape == (len(x), wanted.shape[1], 2 * middle + 1, 2 * middle + 1)
    torch.testing.assert_close(maps[:, :, middle, middle], wanted)


def test_the_trained_network_reads_the_same_in_one_forward():
    net, found = load("lenet-mnist"), digits(50, seed=9)
    with torch.no_grad():
        maps, wanted = as_convolutions(net)(found.images), net(found.images)
    torch.testing.assert_close(maps[:, :, 3, 3], wanted, atol=1e-4, rtol=1e-5)
    assert torch.equal(maps[:, :, 3, 3].argmax(1), wanted.argmax(1))


def test_a_place_has_the_logits_of_the_window_around_it():
    # Nothing is padded before the large convolution, so that a window sees the same alone and within the image.
    net, x = own_chain().eval(), noise(1, 2, 31, 45)
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
    net, x = lenet(size=size), noise(1, 1, size, size)
    with torch.no_grad():
        assert as_convolutions(net)(x).shape[2:] == net.features(x).shape[2:]


def test_one_module_used_twice_runs_twice():
    torch.manual_seed(0)
    act = nn.Tanh()
    net = nn.Sequential(nn.Conv2d(1, 2, 1), act, nn.Conv2d(2, 3, 1), act, nn.Flatten(), nn.Linear(27, 4))
    x = signed(1, 1, 3, 3)
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
    x = noise(1, 2, 15, 15)
    with torch.no_grad():
        net.eval()
        before = as_convolutions(net)(x)
        net.wide.weight.mul_(2)
        net.out.bias.add_(1)
        dense = dense.eval()
        torch.testing.assert_close(dense(x)[:, :, 2, 2], net(x))
    assert not torch.allclose(dense(x), before)


def test_modes_are_kept():
    assert not any(
        module.training for module in as_convolutions(own_chain().eval()).modules() if list(module.modules())[1:] == []
    )


def test_a_batch_on_the_dense_chain_equals_its_images():
    dense, x = as_convolutions(lenet()), noise(3, 1, 40, 52)
    with torch.no_grad():
        torch.testing.assert_close(dense(x), torch.cat([dense(one[None]) for one in x]))


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
    with pytest.raises(ValueError, match="model must"):
        as_convolutions(NO_CHAINS[name])


def test_a_chain_in_another_class_is_refused():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(27, 2)

    with pytest.raises(ValueError, match="model must be a chain"):
        as_convolutions(Other())


# Where to cut.


def otsu_by_hand(values, bins=256):
    """The oracle: the middle of the bin after which the spread between the two groups is greatest."""
    counts, edges = np.histogram(values, bins)
    middles = (edges[:-1] + edges[1:]) / 2
    best, cut = -1.0, None
    for k in range(1, bins):
        low, high = counts[:k].sum(), counts[k:].sum()
        if low and high:
            apart = (counts[:k] * middles[:k]).sum() / low - (counts[k:] * middles[k:]).sum() / high
            if low * high * apart**2 > best * (1 + 1e-9):
                best, cut = low * high * apart**2, middles[k - 1]
    return cut


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 9, 13), (3, 20, 20), (2, 1, 50)])
def test_otsu_against_scikit_image_and_by_the_formula(shape, dtype):
    maps = signed(*shape, dtype=dtype) + 4 * (noise(*shape, seed=1, dtype=dtype) > 0.8)
    found = map_threshold(maps, "otsu")
    assert found.shape == shape[:1]
    assert found.dtype == dtype
    wanted = torch.tensor([float(threshold_otsu(one.numpy())) for one in maps], dtype=dtype)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for cut, one in zip(found.tolist(), maps.double().numpy(), strict=True):
        assert cut == pytest.approx(otsu_by_hand(one), abs=1e-4)
    torch.testing.assert_close(map_threshold(maps), found)  # the default


def test_otsu_parts_two_levels():
    maps = torch.zeros(2, 4, 4)
    maps[0, :2] = 1
    maps[1, 0, 0] = -5  # one dark place: everything else lies above
    cut = map_threshold(maps)
    assert 0 <= cut[0] < 1
    assert -5 <= cut[1] < 0
    assert (maps > cut[:, None, None]).sum((1, 2)).tolist() == [8, 15]


def test_the_cut_of_a_constant_map_is_its_value():
    assert map_threshold(torch.tensor([0.0, -3.5, 2.0]).view(3, 1, 1).expand(3, 4, 5)).tolist() == [0.0, -3.5, 2.0]


@pytest.mark.parametrize(
    "maps",
    [
        torch.ones(1, 4, 4).index_fill(2, torch.tensor(0), 1 + 2e-7),
        torch.full((1, 4, 4), 1e6).index_fill(2, torch.tensor(0), 1e6 + 1),
        torch.arange(16.0).view(1, 4, 4) * 1e-42,
    ],
    ids=["rounding at 1", "rounding at a million", "next to nothing"],
)
def test_otsu_of_maps_that_are_constant_but_for_rounding(maps):
    cut = map_threshold(maps)
    assert maps.min() <= cut <= maps.max()


def test_otsu_in_double_precision():
    maps = (1 + 1e-9 * torch.arange(16, dtype=torch.float64)).view(1, 4, 4)
    assert 5 <= (maps > map_threshold(maps)[:, None, None]).sum() <= 11  # about half


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_sigma_against_numpy(dtype):
    maps = 3 + signed(3, 7, 5, dtype=dtype)
    wanted = maps.numpy().mean((1, 2)) + 2 * maps.numpy().std((1, 2), ddof=1)  # torch7's std, too, divides by n - 1
    found = map_threshold(maps, "two sigma")
    assert found.dtype == dtype
    torch.testing.assert_close(found, torch.from_numpy(wanted))


def test_two_sigma_by_hand():
    maps = torch.tensor([[[0.0, 2.0], [4.0, 2.0]]])  # mean 2, squares 4 + 0 + 4 + 0 over 3
    assert map_threshold(maps, "two sigma").item() == pytest.approx(2 + 2 * (8 / 3) ** 0.5)


def test_two_sigma_of_a_map_of_one_place_is_a_number():
    assert map_threshold(torch.ones(1, 1, 1), "two sigma").tolist() == [1.0]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_a_share_of_the_maximum(share):
    maps = signed(3, 6, 5, dtype=torch.float64)
    maps[2] -= 10  # all below 0
    wanted = torch.tensor([share * max(one.flatten().tolist()) for one in maps], dtype=torch.float64)
    torch.testing.assert_close(map_threshold(maps, share), wanted)


@pytest.mark.parametrize("rule", ["otsu", "two sigma", 0.4])
def test_cuts_come_map_by_map_and_leave_the_maps_alone(rule):
    maps = signed(4, 8, 9).requires_grad_()
    copy = maps.detach().clone()
    found = map_threshold(maps, rule)
    assert not found.requires_grad
    assert torch.equal(maps, copy)
    torch.testing.assert_close(found, torch.cat([map_threshold(one[None], rule) for one in maps]))


BAD_MAPS = [
    (None, "maps must be"),
    ([[[1.0]]], "maps must be"),
    (noise(4, 4), "maps must be"),
    (noise(1, 1, 4, 4), "maps must be"),
    (torch.ones(1, 4, 4, dtype=torch.long), "maps must be"),
    (noise(0, 4, 4), "maps must be"),
    (noise(1, 0, 4), "maps must be"),
    (torch.full((1, 2, 2), NAN), "maps must be finite"),
    (torch.tensor([[[1.0, float("inf")]]]), "maps must be finite"),
]


@pytest.mark.parametrize(("maps", "message"), BAD_MAPS)
def test_bad_maps_are_refused(maps, message):
    for rule in ("otsu", "two sigma", 0.5):
        with pytest.raises(ValueError, match=message):
            map_threshold(maps, rule)
    with pytest.raises(ValueError, match=message):
        hotspots(maps, 0.5)


@pytest.mark.parametrize("rule", ["Otsu", "", None, True, 0, 0.0, 1, 1.0, 1.5, -0.5, NAN, float("inf"), [0.5]])
def test_unknown_rules_are_refused(rule):
    with pytest.raises(ValueError, match="rule must be"):
        map_threshold(noise(1, 4, 4), rule)


# Hot spots.


def flood(mask):
    """The oracle: lists of (row, column), one a region, neighbours across corners included."""
    left, regions = {(r, c) for r, c in zip(*np.nonzero(mask), strict=True)}, []
    while left:
        stack, region = [left.pop()], []
        while stack:
            r, c = stack.pop()
            region.append((int(r), int(c)))
            near = {(r + dr, c + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)} & left
            left -= near
            stack += near
        regions.append(region)
    return regions


def boxes_by_hand(one, cut, least):
    found = [region for region in flood(one > cut) if len(region) >= least]
    found.sort(key=lambda region: -sum(float(one[place]) for place in region))
    return [
        [min(c for _, c in r), min(y for y, _ in r), max(c for _, c in r) + 1, max(y for y, _ in r) + 1] for r in found
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("least", [1, 2, 5])
@pytest.mark.parametrize("shape", [(4, 11, 17), (2, 24, 9), (3, 1, 20), (3, 20, 1), (1, 30, 30)])
@pytest.mark.parametrize("cut", [0.5, 1.2, -0.3])
def test_hotspots_against_a_flood_fill(shape, cut, least, dtype):
    maps = signed(*shape, seed=sum(shape), dtype=dtype)
    found = hotspots(maps, cut, min_area=least)
    wanted = [boxes_by_hand(one, cut, least) for one in maps.double().numpy()]
    assert found.shape == (shape[0], max(map(len, wanted)), 4)
    assert found.dtype == torch.float32
    for boxes, own in zip(found, wanted, strict=True):
        assert boxes[: len(own)].tolist() == own
        assert boxes[len(own) :].isnan().all()


def canvas(*blocks, shape=(8, 10)):
    """A map of zeros with blocks (x0, y0, x1, y1, value)."""
    one = torch.zeros(shape)
    for x0, y0, x1, y1, value in blocks:
        one[y0:y1, x0:x1] = value
    return one[None]


def test_hot_spots_come_in_the_order_of_their_sums():
    maps = canvas((0, 0, 2, 2, 1.0), (4, 0, 7, 3, 0.5), (1, 5, 2, 6, 4.25), (6, 5, 10, 8, 0.3))
    # sums 4 * 1 = 4, 9 * 0.5 = 4.5, 4.25, 12 * 0.3 = 3.6; of the areas 4, 9, 1, 12 and means 1, 0.5, 4.25, 0.3 no order
    assert hotspots(maps, 0.1, 1)[0].tolist() == [[4, 0, 7, 3], [1, 5, 2, 6], [0, 0, 2, 2], [6, 5, 10, 8]]


def test_regions_below_the_least_area_are_left_out():
    maps = canvas((0, 0, 4, 3, 1.0), (6, 0, 9, 3, 9.0))  # 12 and 9 places
    assert hotspots(maps, 0.5)[0].tolist() == [[0, 0, 4, 3]]  # by default at least 12
    assert hotspots(maps, 0.5, min_area=12).shape == (1, 1, 4)
    assert hotspots(maps, 0.5, min_area=13).shape == (1, 0, 4)
    assert hotspots(maps, 0.5, min_area=9)[0].tolist() == [[6, 0, 9, 3], [0, 0, 4, 3]]


def test_diagonal_neighbours_touch():
    maps = canvas((0, 0, 2, 2, 1.0), (2, 2, 4, 4, 1.0), (4, 0, 6, 2, 1.0))
    assert hotspots(maps, 0.5, 1)[0].tolist() == [[0, 0, 6, 4]]


def test_a_place_counts_when_it_lies_above():
    maps = canvas((0, 0, 2, 2, 0.5), (5, 5, 6, 6, 0.75))
    assert hotspots(maps, 0.5, 1)[0].tolist() == [[5, 5, 6, 6]]


def test_maps_below_zero_have_hot_spots_too():
    maps = canvas((0, 0, 3, 3, 6.0), (5, 5, 7, 7, 8.0)) - 10  # -10 around; sums 9 * -4 = -36 and 4 * -2 = -8
    assert hotspots(maps, -9, 1)[0].tolist() == [[5, 5, 7, 7], [0, 0, 3, 3]]


def test_nan_fills_up_behind_the_last_region():
    maps = torch.cat([canvas((1, 1, 2, 2, 1.0)), canvas(), canvas((0, 0, 1, 1, 2.0), (3, 3, 5, 5, 1.0))])
    found = hotspots(maps, 0.5, 1)
    assert found.shape == (3, 2, 4)
    assert found.isnan().all(2).tolist() == [[False, True], [True, True], [False, False]]
    assert found.isnan().any(2).equal(found.isnan().all(2))
    assert found[2].tolist() == [[3, 3, 5, 5], [0, 0, 1, 1]]


@pytest.mark.parametrize("threshold", [5.0, float("inf"), torch.tensor([5.0, 6.0])])
def test_no_region_at_all(threshold):
    assert hotspots(canvas((0, 0, 9, 8, 5.0)).repeat(2, 1, 1), threshold).shape == (2, 0, 4)


@pytest.mark.parametrize("threshold", [-1, -1.0, -float("inf")])
def test_everything_is_hot(threshold):
    assert hotspots(noise(2, 6, 7), threshold).tolist() == [[[0, 0, 7, 6]], [[0, 0, 7, 6]]]


@pytest.mark.parametrize("kind", [torch.tensor, list, lambda cuts: torch.tensor(cuts, dtype=torch.float64)])
def test_thresholds_one_a_map(kind):
    maps = signed(3, 12, 12)
    cuts = [0.3, 1.1, -0.4]
    found = hotspots(maps, kind(cuts), 1)
    for boxes, one, cut in zip(found, maps, cuts, strict=True):
        own = hotspots(one[None], cut, 1)[0]
        assert torch.equal(boxes[: len(own)], own)
        assert boxes[len(own) :].isnan().all()


def test_a_threshold_of_a_single_tensor_serves_every_map():
    maps = signed(2, 9, 9)
    torch.testing.assert_close(hotspots(maps, torch.tensor(0.5), 1), hotspots(maps, 0.5, 1), equal_nan=True)


def test_the_cuts_of_a_rule_fit():
    maps = canvas((2, 1, 6, 5, 3.0)).repeat(2, 1, 1) * torch.tensor([1.0, 9.0])[:, None, None]
    for rule in ("otsu", 0.5):
        assert hotspots(maps, map_threshold(maps, rule)).tolist() == [[[2, 1, 6, 5]], [[2, 1, 6, 5]]]


def test_maps_are_left_alone_by_hotspots():
    maps = signed(2, 9, 9).requires_grad_()
    cuts = torch.zeros(2, requires_grad=True)
    copy = maps.detach().clone()
    assert not hotspots(maps, cuts, 1).requires_grad
    assert torch.equal(maps, copy)


@pytest.mark.parametrize(
    "threshold",
    [
        torch.zeros(3),
        torch.zeros(1),
        torch.zeros(2, 1),
        torch.zeros(2, 9, 9),
        [0.5],
        NAN,
        torch.tensor([0.5, NAN]),
        "otsu",
        None,
        1j,
    ],
)
def test_thresholds_that_do_not_fit_are_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be"):
        hotspots(noise(2, 9, 9), threshold)


@pytest.mark.parametrize("area", [0, -1, 1.0, True, None, "12"])
def test_an_area_below_one_is_refused(area):
    with pytest.raises(ValueError, match="min_area must be"):
        hotspots(noise(1, 4, 4), 0.5, min_area=area)


# What is read there.


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
    image = F.pad(noise(1, 1, 24, 20, seed=5), (45, 43, 42, 42))
    moved = [edge + 30 for edge in box]
    found = windows(image, torch.tensor([[moved]], dtype=torch.float32), side=side, ink=ink)
    assert found.shape == (1, 1, side, side)
    np.testing.assert_allclose(found[0, 0].numpy(), window_by_hand(image[0, 0], moved, side, ink), atol=5e-4)


@pytest.mark.parametrize("box", [(0, 0, 19, 18), (12, 9, 30, 26), (0, 7, 12, 26), (0, 0, 30, 26), (29, 0, 30, 1)])
def test_beyond_the_image_everything_is_black(box):
    image = 0.5 + 0.5 * noise(1, 1, 26, 30, seed=6)
    boxes = torch.tensor([[box]], dtype=torch.float32)
    found = windows(image, boxes)
    around = windows(F.pad(image, (40,) * 4), boxes + 40)
    np.testing.assert_allclose(found.numpy(), around.numpy(), atol=5e-4)
    np.testing.assert_allclose(found[0, 0].numpy(), window_by_hand(image[0, 0], box), atol=5e-4)


def test_a_white_square_as_wide_as_the_image_stays_as_wide():
    found = windows(torch.ones(1, 1, 20, 20), torch.tensor([[[0.0, 0, 20, 20]]]))
    assert found.sum().item() == pytest.approx(400, abs=0.1)  # 20 x 20 of 28 x 28


def test_a_window_of_the_images_own_pixels():
    # A box of 20 pixels gives a window of 28, from 4 pixels before it on; bright symmetrically, so it stays there.
    image = torch.zeros(1, 1, 50, 60)
    image[0, 0, 15:35, 22:42] = 0.5
    image[0, 0, 20:30, 27:37] = 1.0
    found = windows(image, torch.tensor([[[22.0, 15, 42, 35]]]))
    torch.testing.assert_close(found, image[:, :, 11:39, 18:46], atol=5e-4, rtol=0)


def test_a_window_moves_to_the_centre_of_what_is_bright():
    # The box is off by 3 columns and 2 rows; the window ends up around the square all the same.
    image = torch.zeros(1, 1, 60, 60)
    image[0, 0, 22:32, 25:35] = 1.0
    found = windows(image, torch.tensor([[[23.0, 15, 43, 35]]]))
    torch.testing.assert_close(found, image[:, :, 13:41, 16:44], atol=5e-4, rtol=0)


def test_channels_share_one_centre():
    x = F.pad(noise(1, 3, 12, 12, seed=3), (20,) * 4)
    box = torch.tensor([[[20.0, 20, 32, 32]]])
    found = windows(x, box)
    whole = windows(x.sum(1, keepdim=True), box)
    torch.testing.assert_close(found.sum(1, keepdim=True), whole, atol=1e-5, rtol=1e-5)


def read_scenes(**options):
    return digit_scenes(options.pop("n", 150), 5, **options)


NET = load("lenet-mnist")


@pytest.mark.parametrize("options", [{}, {"size": 112, "digits": 3}, {"height": 12}, {"size": 128, "height": 45}])
def test_drawn_digits_are_read(options):
    found = read_scenes(**options)
    reading = read_hotspots(NET, found.images, found.boxes)
    assert isinstance(reading, Reading)
    assert reading.labels.shape == found.labels.shape
    assert reading.labels.dtype == torch.int64
    assert reading.probabilities.shape == (*found.labels.shape, 10)
    assert (reading.labels == found.labels).float().mean() >= 0.85


def test_the_reading_is_the_networks_softmax_of_the_windows():
    found = read_scenes(n=12, size=90, digits=2)
    seen = windows(found.images, found.boxes)
    with torch.no_grad():
        wanted = NET(seen).softmax(1).unflatten(0, (12, 2))
    reading = read_hotspots(NET, found.images, found.boxes)
    torch.testing.assert_close(reading.probabilities, wanted)
    assert torch.equal(reading.labels, wanted.argmax(2))
    assert not reading.probabilities.requires_grad


def test_moving_the_digit_by_whole_pixels_changes_nothing():
    found = read_scenes(n=20, size=60)
    reading = read_hotspots(NET, found.images, found.boxes)
    for left, top in [(1, 0), (7, 13), (40, 22)]:
        moved = F.pad(found.images, (left, 60 - left, top, 60 - top))
        boxes = found.boxes + torch.tensor([left, top, left, top])
        again = read_hotspots(NET, F.pad(moved, (20,) * 4), boxes + 20)
        inner = read_hotspots(NET, F.pad(found.images, (30,) * 4), found.boxes + 30)
        torch.testing.assert_close(again.probabilities, inner.probabilities, atol=2e-4, rtol=0)
        assert torch.equal(again.labels, reading.labels)


def test_moving_a_digit_as_large_as_the_frame_changes_nothing():
    # Boxes of 20 pixels, MNIST's own size: a window of 28 image pixels for its 28, one sample each. Rounding must not
    # make it two samples here and one there.
    found = read_scenes(n=150, size=64)
    exact = (found.boxes[:, 0, 2:] - found.boxes[:, 0, :2]).amax(1) == 20
    images, boxes = F.pad(found.images[exact], (30,) * 4), found.boxes[exact] + 30
    before = windows(images, boxes)
    for left, top in [(7, 13), (40, 22), (300, 5)]:
        after = windows(F.pad(images, (left, 0, top, 0)), boxes + torch.tensor([left, top, left, top]))
        torch.testing.assert_close(after, before, atol=2e-3, rtol=0)


@pytest.mark.parametrize("bad", [(0,), (3,), (1, 2), (0, 1, 2, 3)])
def test_absent_boxes_are_read_as_nothing(bad):
    found = read_scenes(n=3, size=90, digits=2)
    boxes = found.boxes.clone()
    boxes[1, 0, list(bad)] = NAN
    boxes[2] = NAN
    reading, whole = (read_hotspots(NET, found.images, one) for one in (boxes, found.boxes))
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
    reading = read_hotspots(net, noise(2, 2, 33, 30, dtype=dtype), boxes, side=20, ink=14)
    assert reading.labels.equal(torch.full(boxes.shape[:2], -1))
    assert reading.probabilities.shape == (*boxes.shape[:2], 4)
    assert reading.probabilities.dtype == dtype
    assert reading.probabilities.isnan().all()


@pytest.mark.parametrize("box", [(20, 20, 21, 21), (0, 0, 1, 1), (0, 0, 64, 64), (-30, -30, -5, -5), (60, 3, 90, 9)])
@pytest.mark.parametrize("image", [torch.zeros(1, 1, 64, 64), torch.full((1, 1, 64, 64), 0.5), noise(1, 1, 64, 64)])
@pytest.mark.parametrize("stretch", [False, True])
def test_any_box_on_any_image_gives_probabilities(box, image, stretch):
    reading = read_hotspots(NET, image, torch.tensor([[box]]), stretch=stretch)
    assert 0 <= reading.labels.item() < 10
    assert reading.probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert reading.probabilities.argmax() == reading.labels.item()


@pytest.mark.parametrize("stretch", [False, True])
def test_a_black_image_is_read_as_a_black_window(stretch):
    with torch.no_grad():
        wanted = NET(torch.zeros(1, 1, 28, 28)).softmax(1)
    reading = read_hotspots(NET, torch.zeros(1, 1, 40, 50), torch.tensor([[[3.0, 4, 20, 22]]]), stretch=stretch)
    torch.testing.assert_close(reading.probabilities[0], wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stretch", [False, True])
def test_several_images_and_boxes_equal_one_by_one(dtype, stretch):
    found, net = read_scenes(n=4, size=110, digits=(1, 3)), load("lenet-mnist").to(dtype)
    images = found.images.to(dtype)
    reading = read_hotspots(net, images, found.boxes, stretch=stretch)
    assert reading.probabilities.dtype == dtype
    for i in range(4):
        for j in range(3):
            one = read_hotspots(net, images[i : i + 1], found.boxes[i : i + 1, j : j + 1], stretch=stretch)
            assert one.labels.item() == reading.labels[i, j]
            torch.testing.assert_close(
                one.probabilities[0, 0], reading.probabilities[i, j], equal_nan=True, atol=1e-5, rtol=1e-5
            )


def test_a_dim_digit_is_read_as_the_bright_one_when_stretched():
    found = read_scenes(n=60, size=64)
    bright = read_hotspots(NET, found.images, found.boxes)
    dim = read_hotspots(NET, found.images * 0.3, found.boxes, stretch=True)
    assert torch.equal(dim.labels, bright.labels)
    torch.testing.assert_close(dim.probabilities, bright.probabilities, atol=1e-4, rtol=0)
    plain = read_hotspots(NET, found.images * 0.3, found.boxes)
    assert (plain.probabilities - bright.probabilities).abs().max() > 0.1  # as it is, it is another image


def test_stretching_is_from_0_to_1_window_by_window():
    x = 0.2 + 0.3 * noise(2, 2, 60, 60)
    boxes = torch.tensor([[[20.0, 20, 40, 40], [25, 22, 36, 40]], [[20.0, 24, 40, 40], [22, 22, 38, 35]]])
    plain, found = windows(x, boxes), windows(x, boxes, stretch=True)
    for before, after in zip(plain.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(after, (before - before.min()) / (before.max() - before.min()), atol=1e-5)


def test_another_networks_side_and_ink():
    torch.manual_seed(0)
    net, x = lenet(size=20, classes=3, channels=2), noise(2, 2, 50, 44)
    boxes = torch.tensor([[[10.0, 12, 24, 25]], [[15.0, 15, 22, 30]]])
    reading = read_hotspots(net, x, boxes, side=20, ink=14)
    with torch.no_grad():
        wanted = net(windows(x, boxes, side=20, ink=14)).softmax(1)
    torch.testing.assert_close(reading.probabilities[:, 0], wanted)


def test_boxes_of_whole_numbers_and_of_double_precision():
    found = read_scenes(n=5)
    wanted = read_hotspots(NET, found.images, found.boxes)
    for boxes in (found.boxes.long(), found.boxes.double(), found.boxes.int()):
        torch.testing.assert_close(read_hotspots(NET, found.images, boxes).probabilities, wanted.probabilities)


def test_everything_is_left_alone_by_the_reading():
    found, net = read_scenes(n=3), lenet().train()
    net.relu1.inplace = True
    x, boxes = found.images.clone().requires_grad_(), found.boxes.clone()
    with assert_untouched(net):
        reading = read_hotspots(net, x, boxes, stretch=True)
        read_hotspots(net, x, torch.full((3, 1, 4), NAN))
    assert not reading.probabilities.requires_grad
    assert torch.equal(x, found.images)
    assert torch.equal(boxes, found.boxes)
    net.fc3 = Boom()
    with assert_untouched(net), pytest.raises(RuntimeError, match="boom"):
        read_hotspots(net, x, boxes)


@pytest.mark.parametrize(("x", "message"), BAD_X)
def test_bad_images_are_not_read(x, message):
    boxes = torch.tensor([[[2.0, 2, 20, 20]]])
    with pytest.raises(ValueError, match=message):
        read_hotspots(lenet(), x, boxes)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (None, "boxes must be"),
        ([[[1.0, 1, 2, 2]]], "boxes must be"),
        (torch.zeros(1, 4), "boxes must be"),
        (torch.zeros(1, 2, 5), "boxes must be"),
        (torch.zeros(2, 1, 4), "boxes must be"),
        (torch.tensor([[[5.0, 1, 2, 9]]]), "boxes must be finite with x0 < x1"),
        (torch.tensor([[[1.0, 9, 2, 3]]]), "boxes must be finite with x0 < x1"),
        (torch.tensor([[[1.0, 1, 1, 3]]]), "boxes must be finite with x0 < x1"),
        (torch.tensor([[[1.0, 3, 2, 3]]]), "boxes must be finite with x0 < x1"),
        (torch.tensor([[[1.0, 3, 2, float("inf")]]]), "boxes must be finite"),
        (torch.tensor([[[-float("inf"), 3, 2, 5]]]), "boxes must be finite"),
        (torch.tensor([[[1.0, 1, 2, 2], [5.0, 1, 2, 9]]]), "boxes must be finite with x0 < x1"),
    ],
)
def test_bad_boxes_are_not_read(boxes, message):
    with pytest.raises(ValueError, match=message):
        read_hotspots(lenet(), noise(1, 1, 28, 28), boxes)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"side": bad}, "side must be") for bad in (0, -28, 28.0, True, None)]
    + [({"ink": bad}, "ink must be") for bad in (0, -1.0, NAN, float("inf"), True, None, "20")],
)
def test_sizes_that_are_not_positive_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        read_hotspots(lenet(), noise(1, 1, 28, 28), torch.tensor([[[2.0, 2, 20, 20]]]), **options)


def test_from_the_picture_to_the_digit():
    # All of it: maps, cut, boxes and reading, on black canvases, where the picture itself can be the map.
    found = read_scenes(n=40, size=90, digits=2)
    maps = found.images[:, 0]
    boxes = hotspots(maps, map_threshold(maps, 0.5))
    assert boxes.shape == (40, 2, 4)
    reading = read_hotspots(NET, found.images, boxes)
    right = []
    for own, label, wanted, true in zip(boxes, reading.labels, found.boxes, found.labels, strict=True):
        shared, which = box_iou(wanted, own).max(1)
        assert shared.min() > 0.9
        right += (label[which] == true).tolist()
    assert sum(right) / len(right) >= 0.85


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_everything_is_the_same_on_the_gpu():
    found, net = read_scenes(n=6, size=96, digits=(1, 3)), load("lenet-mnist")
    there, images, boxes = load("lenet-mnist").cuda(), found.images.cuda(), found.boxes.cuda()
    for keep in (True, False):
        maps = features_at_any_size(there, images, layer="pool2", keep_pools=keep)
        assert maps.device == images.device
        wanted = features_at_any_size(net, found.images, layer="pool2", keep_pools=keep)
        torch.testing.assert_close(maps.cpu(), wanted, atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        dense, wanted = as_convolutions(there)(images), as_convolutions(net)(found.images)
    torch.testing.assert_close(dense.cpu(), wanted, atol=1e-2, rtol=1e-2)
    for rule in ("otsu", "two sigma", 0.5):
        cut = map_threshold(images[:, 0], rule)
        assert cut.device == images.device
        torch.testing.assert_close(cut.cpu(), map_threshold(found.images[:, 0], rule))
    hot = hotspots(images[:, 0], 0.5)
    assert hot.device == images.device
    torch.testing.assert_close(hot.cpu(), hotspots(found.images[:, 0], 0.5), equal_nan=True)
    for given in (boxes, found.boxes):  # boxes may come from the processor
        reading, here = read_hotspots(there, images, given), read_hotspots(net, found.images, found.boxes)
        assert reading.labels.device == images.device
        assert torch.equal(reading.labels.cpu(), here.labels)
        torch.testing.assert_close(
            reading.probabilities.cpu(), here.probabilities, equal_nan=True, atol=1e-2, rtol=1e-2
        )
