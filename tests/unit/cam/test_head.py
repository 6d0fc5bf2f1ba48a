"""Class activation maps by hand, and which ends of networks have them."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from support import tensors
from support.cam import (
    CAM,
    MAPS,
    Call,
    Spy,
    batch,
    close,
    close32,
    each_other,
    ended,
    features,
    gap,
    naive,
    seeded,
    toy,
)
from support.refuses import refuses
from support.untouched import assert_untouched
from torch import nn

from helpers import networks
from helpers.cam import Head, class_activation_map, grad_cam, pooling_head, weighted_maps

# by hand


def test_the_toy_by_hand():
    assert class_activation_map(toy(), MAPS, 0).tolist() == [CAM[0].tolist()]
    assert class_activation_map(toy(), MAPS, [1]).tolist() == [CAM[1].tolist()]
    assert class_activation_map(toy(), MAPS, [[1, 0]]).tolist() == [CAM.flip(0).tolist()]
    assert weighted_maps(MAPS, torch.tensor([2.0, -1])).tolist() == [CAM[0].tolist()]


@pytest.mark.parametrize(("bias", "expected"), [(True, [0.5, -1]), (False, [0, 0])])
def test_the_head_of_the_toy_by_hand(bias, expected):
    head = pooling_head(toy(bias), MAPS)
    assert isinstance(head, Head)
    assert head.pooling == "gap"
    assert torch.equal(head.maps, MAPS)
    assert head.weight.tolist() == [[2, -1], [0, 1]]
    assert head.bias.tolist() == expected
    # without the bias: 2*1 - 1*2 = 0, 0*1 + 1*2 = 2
    torch.testing.assert_close(head.logits, torch.tensor([[0.0 + expected[0], 2 + expected[1]]]))


def test_the_head_of_the_toys_maxima_by_hand():
    head = pooling_head(toy(pool=nn.AdaptiveMaxPool2d(1)), MAPS)
    assert head.pooling == "gmp"
    assert torch.equal(head.maps, MAPS)
    assert head.logits.tolist() == [[2 * 3 - 9 + 0.5, 9 - 1]]  # maxima 3 and 9


# the identity: mean of the map plus bias is the logit


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act", [nn.ReLU, nn.Identity, partial(nn.ReLU, inplace=True)])
@pytest.mark.parametrize("size", [(8, 8), (5, 9), (12, 3), (1, 7), (7, 1), (2, 2)])
def test_the_map_is_the_weighted_sum_and_its_mean_plus_bias_the_logit(bias, act, size):
    net, x = ended(act=act, bias=bias), batch(3, *size)
    maps = class_activation_map(net, x, torch.tensor([0, 3, 2]))
    close(maps, naive(features(net, x), net.fc.weight[[0, 3, 2]].detach()))
    every = class_activation_map(net, x, [[0, 1, 2, 3]] * 3)
    shift = net.fc.bias.detach() if bias else 0
    close(every.mean((2, 3)) + shift, net(x).detach())
    assert every.shape == (3, 4, *features(net, x).shape[2:])


@pytest.mark.parametrize("name", ["scenes-gap", "scenes-gmp"])
def test_the_books_own_networks(name):
    if name not in [card.name for card in networks.available()]:
        pytest.skip(f"{name} is not there")
    net = networks.load(name, "cpu")  # in channels_last layout
    colours = len(net.card.mean)
    x = networks.normalize(torch.rand(3, colours, *net.card.size, generator=seeded(0)), net)
    head = pooling_head(net, x)
    assert head.pooling == name[-3:]
    torch.testing.assert_close(head.maps, net.features(x).detach())
    if head.pooling == "gap":
        maps = class_activation_map(net, x, [[0, 2]] * 3)
        torch.testing.assert_close(maps.mean((2, 3)) + net.fc.bias[[0, 2]], net(x)[:, [0, 2]], rtol=1e-5, atol=1e-5)
        close32(maps[:, 1].double(), naive(net.features(x).detach(), net.fc.weight[[2, 2, 2]]).double())


@pytest.mark.parametrize("options", [{}, {"norm": True}, {"atrous": 1}, {"angular": True}])
@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_small_vggs(options, size):
    torch.manual_seed(0)
    net = networks.SmallVGG(5, stages=((4,), (6,), (8,)), **options).double().eval()
    x = batch(2, *size)
    maps = class_activation_map(net, x, 4)
    assert maps.shape[1:] == net.features(x).shape[2:]
    close(maps.mean((1, 2)) + net.fc.bias[4].detach(), net(x)[:, 4].detach())


def test_a_map_negative_everywhere_keeps_its_sign_and_is_zero_after_the_relu():
    net, x = toy(), MAPS.abs() + 1
    with torch.no_grad():
        net[3].weight[0] = torch.tensor([-1.0, -2])
    maps = class_activation_map(net, x, 0)
    assert maps.max() <= -3  # no value of either map is below 1: -1 * 1 - 2 * 1
    assert torch.equal(grad_cam(net, x, 0, layer="0"), torch.zeros(1, 3, 3))
    torch.testing.assert_close(grad_cam(net, x, 0, layer="0", relu=False), maps / 9)


# against others


@each_other
def test_class_activation_maps_are_torchcams(case):
    methods = pytest.importorskip("torchcam.methods")
    net, x, target = case()
    actual = class_activation_map(net, x, target)
    with methods.CAM(net, "layer4", "fc") as extractor, torch.no_grad():
        net(x)
        expected = extractor(target, normalized=False)[0]
    close32(actual, expected)
    assert actual.std() > 1e-3


# which ends are found


AVERAGES = {
    "AdaptiveAvgPool2d": gap,
    "AdaptiveAvgPool2d((1, 1))": lambda: nn.AdaptiveAvgPool2d((1, 1)),
    "AvgPool2d over all": lambda: nn.AvgPool2d(4),
    "F.adaptive_avg_pool2d": lambda: Call(lambda f: F.adaptive_avg_pool2d(f, 1)),
    "F.avg_pool2d": lambda: Call(lambda f: F.avg_pool2d(f, f.shape[2:])),
    "x.mean((2, 3))": lambda: Call(lambda f: f.mean((2, 3))),
    "x.mean([-1, -2])": lambda: Call(lambda f: f.mean([-1, -2])),
    "x.mean(dim=..., keepdim=True)": lambda: Call(lambda f: f.mean(dim=(2, 3), keepdim=True)),
    "torch.mean": lambda: Call(lambda f: torch.mean(f, dim=(3, 2))),
    "F.interpolate": lambda: Call(lambda f: F.interpolate(f, 1, mode="area")),
    "a convolution": lambda: Call(lambda f: F.conv2d(f, torch.full((6, 1, 4, 4), 1 / 16, dtype=f.dtype), groups=6)),
    "a ReLU that does nothing": lambda: nn.Sequential(gap(), nn.ReLU()),
    "dropout behind": lambda: nn.Sequential(gap(), nn.Dropout(0.5)),
    "dropout in front": lambda: nn.Sequential(nn.Dropout2d(0.5), gap()),
    "dropout in place behind": lambda: nn.Sequential(gap(), nn.Dropout(0.5, inplace=True)),
}
MAXIMA = {
    "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(1),
    "MaxPool2d over all": lambda: nn.MaxPool2d(4),
    "F.adaptive_max_pool2d": lambda: Call(lambda f: F.adaptive_max_pool2d(f, 1)),
    "x.amax((2, 3))": lambda: Call(lambda f: f.amax((2, 3))),
    "torch.amax": lambda: Call(lambda f: torch.amax(f, (-1, -2), keepdim=True)),
}
each_average = pytest.mark.parametrize("pool", AVERAGES.values(), ids=AVERAGES)
each_maximum = pytest.mark.parametrize("pool", MAXIMA.values(), ids=MAXIMA)


@each_average
def test_every_way_of_averaging_is_found(pool):
    net, x = ended(pool=pool()).train(), batch()
    head = pooling_head(net, x)
    assert head.pooling == "gap"
    close(head.maps, features(net, x))
    assert torch.equal(head.weight, net.fc.weight)
    assert torch.equal(head.bias, net.fc.bias)
    close(head.logits, net.eval()(x).detach())
    close(class_activation_map(net, x, 2), naive(features(net, x), net.fc.weight[[2, 2]].detach()))


@each_maximum
def test_maxima_are_found_but_have_no_class_activation_map(pool):
    net, x = ended(pool=pool()), batch()
    head = pooling_head(net, x)
    assert head.pooling == "gmp"
    close(head.maps, features(net, x))
    close(head.logits, head.maps.flatten(2).max(2).values @ net.fc.weight.T.detach() + net.fc.bias.detach())
    with pytest.raises(ValueError, match=r"^model must average .*pooling_head and weighted_maps.*grad_cam"):
        class_activation_map(net, x, 0)


def test_means_and_logits_may_all_be_negative():
    net, x = ended(act=lambda: Call(lambda f: -1 - f.relu()), pool=nn.AvgPool2d(4)).float(), batch().float()
    with torch.no_grad():
        net.fc.weight.abs_()
        net.fc.bias.fill_(-0.3)
    maps = class_activation_map(net, x, [[0, 1, 2, 3]] * 2)
    assert maps.max() < 0
    close32(maps.mean((2, 3)) - 0.3, net(x).detach())
    # rounding makes a difference, here or for other numbers
    assert all(pooling_head(net, batch(seed=seed).float()).pooling == "gap" for seed in range(10))


# Global means and maxima in steps, or of named arguments: found, or refused in words, never wrong.


ROUNDABOUT = {
    "x.mean(3).mean(2)": (lambda f: f.mean(3).mean(2), "gap"),
    "x.flatten(2).mean(2)": (lambda f: f.flatten(2).mean(2), "gap"),
    "sum over number": (lambda f: f.sum((2, 3)) / (f.shape[2] * f.shape[3]), "gap"),
    "torch.mean(input=x)": (lambda f: torch.mean(input=f, dim=(2, 3)), "gap"),
    "x.amax(3).amax(2)": (lambda f: f.amax(3).amax(2), "gmp"),
    "x.flatten(2).max(2)": (lambda f: f.flatten(2).max(2).values, "gmp"),
    "x.mean(3).mean(2), one row": (lambda f: f[:, :, :1].mean(3).mean(2), "gap"),
}


@pytest.mark.parametrize(("pool", "kind"), ROUNDABOUT.values(), ids=ROUNDABOUT)
def test_roundabout_poolings_are_found_or_refused(pool, kind):
    net, x = ended(pool=Call(pool)), batch()
    try:
        head = pooling_head(net, x)
    except ValueError as error:
        assert "grad_cam(model, x, target, layer=" in str(error)  # noqa: PT017 (either way is right)
    else:
        assert head.pooling == kind
        values = head.maps.mean((2, 3)) if kind == "gap" else head.maps.amax((2, 3))
        close(values @ net.fc.weight.T.detach() + net.fc.bias.detach(), net(x).detach())
        assert head.maps.shape[3] == 4


def test_the_maps_in_front_of_the_first_of_two_poolings_are_found():
    # Networks for several image sizes have both; the second pools maps of a single place.
    for pool in (nn.Sequential(nn.AvgPool2d(4), gap()), nn.Sequential(gap(), gap())):
        net, x = ended(pool=pool), batch()
        assert pooling_head(net, x).maps.shape == (2, 6, 4, 4)
        close(class_activation_map(net, x, 2), naive(features(net, x), net.fc.weight[[2, 2]].detach()))


def test_a_pooling_in_steps_is_found_at_its_last_step():
    net, x = ended(pool=nn.Sequential(nn.AvgPool2d(2), gap())), batch()
    close(pooling_head(net, x).maps, F.avg_pool2d(features(net, x), 2))


def test_last_maps_of_a_single_place():
    net, x = ended(act=nn.Identity), batch(2, 2, 2)
    head = pooling_head(net, x)
    assert head.maps.shape == (2, 6, 1, 1)
    maps = class_activation_map(net, x, 1)
    assert maps.shape == (2, 1, 1)
    close(maps[:, 0, 0] + net.fc.bias[1].detach(), net(x)[:, 1].detach())
    close(grad_cam(net, x, 1, layer="layer4", relu=False), maps)
    # without a pooling there is none to be found, though the linear layer reads one number a map
    for other in (nn.Identity(), nn.ReLU()):
        with pytest.raises(ValueError, match=r"^model must end in a global pooling.*grad_cam"):
            pooling_head(ended(pool=other), x)
    # and a ReLU of pooled values counts
    net = ended(act=nn.Identity, neck=[nn.ReLU()])
    assert (features(net, x) < 0).any()
    with pytest.raises(ValueError, match=r"^model must end in a global pooling.*grad_cam"):
        pooling_head(net, x)


def a_little_off(logits):
    first = torch.zeros_like(logits)
    first[0, 0] = 3e-4 * logits.abs().max()
    return logits + first


REFUSED = {
    "a hidden linear layer": {"neck": [nn.Linear(6, 6), nn.ReLU()]},
    "a LayerNorm": {"neck": [nn.LayerNorm(6)]},
    "a BatchNorm": {"neck": [nn.BatchNorm1d(6, eps=0.5)]},
    "a BatchNorm that has not learnt": {"neck": [nn.BatchNorm1d(6)]},
    "a ReLU": {"neck": [nn.ReLU()], "act": nn.Identity},
    "a ReLU in place": {"neck": [nn.ReLU(inplace=True)], "act": nn.Identity},
    "a factor in front": {"neck": [Call(lambda z: 2 * z)]},
    "a normalisation": {"neck": [Call(F.normalize)]},
    "a temperature": {"behind": [Call(lambda logits: logits / 2)]},
    "a temperature in place": {"behind": [Call(lambda logits: logits.mul_(2))]},
    "a softmax": {"behind": [nn.Softmax(1)]},
    "a log softmax": {"behind": [nn.LogSoftmax(1)]},
    "a ReLU behind": {"behind": [nn.ReLU()]},
    "a ReLU in place behind": {"behind": [nn.ReLU(inplace=True)]},
    "a second bias": {"behind": [Call(lambda logits: logits + 1)]},
    "a second bias in place": {"behind": [Call(lambda logits: logits.add_(torch.tensor([1.0, 0, 0, -1])))]},
    "one logit a little off": {"behind": [Call(a_little_off)]},
    "fewer logits": {"behind": [Call(lambda logits: logits[:, :3])]},
    "logits in another order": {"behind": [Call(lambda logits: logits.flip(1))]},
    "sums": {"pool": Call(lambda f: f.sum((2, 3)))},
    "most places": {"pool": nn.AvgPool2d(3)},
    "one place": {"pool": Call(lambda f: f[:, :, 0, 0])},
    "soft maxima": {"pool": Call(lambda f: f.logsumexp((2, 3)))},
    "means of squares": {"pool": Call(lambda f: (f * f).sum((2, 3)).sqrt())},
    "means of every second map twice": {"pool": Call(lambda f: f.mean((2, 3))[:, [0, 0, 2, 2, 4, 4]])},
    "maps in another order": {"pool": Call(lambda f: f.mean((2, 3)).flip(1))},
    "means and maxima": {"pool": Call(lambda f: torch.cat([f.mean((2, 3))[:, :3], f.amax((2, 3))[:, 3:]], 1))},
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_networks_with_another_head_are_refused_but_have_a_grad_cam(case):
    net, x = ended(**case), batch()
    for method in (pooling_head, partial(class_activation_map, target=1)):
        with pytest.raises(ValueError, match=r"^model must end in a global pooling.*grad_cam\(model, x, target"):
            method(net, x)
    assert grad_cam(net, x, 1, layer="layer4").shape == (2, 4, 4)


def test_networks_without_a_linear_layer_are_refused():
    sums = nn.Sequential(nn.Conv2d(3, 4, 3), Call(lambda f: f.sum((2, 3))))
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 4))
    for net in (sums, flat):
        with pytest.raises(ValueError, match=r"^model must end in .*grad_cam"):
            pooling_head(net.double(), batch())


def test_a_linear_layer_called_with_named_arguments_is_no_other_error():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = ended()

        def forward(self, x):
            fc = self.parts.fc
            return F.linear(input=self.parts[:5](x), weight=fc.weight, bias=fc.bias)

    net, x = Named(), batch()
    close(class_activation_map(net, x, 1), class_activation_map(net.parts, x, 1))


def test_a_second_head_that_is_not_the_logits_does_not_mislead():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.other = ended(), nn.Linear(6, 4).double()

        def forward(self, x):
            pooled = self.parts[:4](x)
            self.other(pooled)
            return self.parts.fc(pooled)

    net, x = TwoHeads(), batch()
    assert torch.equal(pooling_head(net, x).weight, net.parts.fc.weight)
    close(class_activation_map(net, x, 1), class_activation_map(net.parts, x, 1))


def test_squeeze_and_excitation_in_between_does_not_mislead():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.gate = ended(), nn.Linear(6, 6).double()

        def forward(self, x):
            f = self.parts[:2](x)
            self.last = f * torch.sigmoid(self.gate(f.mean((2, 3))))[:, :, None, None]
            return self.parts[2:](self.last)

    net, x = Squeezed(), batch()
    actual = pooling_head(net, x)
    close(actual.maps, net.last)
    close(class_activation_map(net, x, 1).mean((1, 2)) + net.parts.fc.bias[1].detach(), net(x)[:, 1].detach())


def test_counts_on_the_side_do_not_mislead():
    count = Call(lambda f: ((f > 0).sum((2, 3)), f)[1])  # one number a map, but integers
    net, x = ended(pool=nn.Sequential(count, gap())), batch()
    close(class_activation_map(net, x, 1), class_activation_map(ended(), x, 1))


ACCEPTED = {
    "densenet121": (partial(torchvision.models.densenet121, num_classes=5), 3),
    "mobilenet_v2": (partial(torchvision.models.mobilenet_v2, num_classes=5), 3),
    "googlenet": (partial(torchvision.models.googlenet, num_classes=5, init_weights=False), 3),
    "shufflenet_v2_x0_5": (partial(torchvision.models.shufflenet_v2_x0_5, num_classes=5), 3),
    "resnet18": (partial(torchvision.models.resnet18, num_classes=5), 3),
}


@pytest.mark.parametrize(("make", "side"), ACCEPTED.values(), ids=ACCEPTED)
def test_torchvisions_networks_that_average(make, side):
    torch.manual_seed(0)
    net, x = make(weights=None), torch.randn(1, 3, 96, 96, generator=seeded(0))  # in training mode
    maps = class_activation_map(net, x, [[0, 4]])
    head = pooling_head(net, x)
    assert net.training
    with torch.no_grad():
        expected = net.eval()(x)
    assert maps.shape == (1, 2, side, side)
    *_, last = (module for module in net.modules() if isinstance(module, nn.Linear))
    torch.testing.assert_close(maps.mean((2, 3)) + last.bias[[0, 4]].detach(), expected[:, [0, 4]], rtol=0, atol=1e-5)
    torch.testing.assert_close(head.logits, expected)


def vgg():
    return torchvision.models.vgg16(weights=None, init_weights=False)


def convnext():
    block = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.ConvNeXt([block(8, 16, 1), block(16, None, 1)], num_classes=5)


def vit():
    net = torchvision.models.VisionTransformer(64, 16, 1, 2, 16, 32, num_classes=5)
    nn.init.normal_(net.heads.head.weight)  # zeros otherwise
    return net


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        pytest.param(vgg, "features", marks=pytest.mark.slow),  # its hidden linear layers: REFUSED has one
        (convnext, "features"),
        (vit, "conv_proj"),
    ],
)
def test_torchvisions_networks_with_another_head_are_refused(make, layer):
    torch.manual_seed(0)
    net, x = make(), torch.randn(1, 3, 64, 64, generator=seeded(0))
    with pytest.raises(
        ValueError, match=r"^model must end in a global pooling.*grad_cam\(model, x, target, layer=.*\) needs no"
    ):
        class_activation_map(net, x, 0)
    maps = grad_cam(net, x, 0, layer=layer, relu=False)
    assert maps.ndim == 3
    assert torch.isfinite(maps).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_half_precision(dtype):
    net, x = ended().to(dtype), batch().to(dtype)
    maps = class_activation_map(net, x, 1)
    assert maps.dtype == dtype
    torch.testing.assert_close(maps.double(), class_activation_map(ended(), batch(), 1), rtol=0.05, atol=0.02)


def test_a_head_may_be_written_into_without_harm_to_the_network():
    net, x = ended(), batch()
    with assert_untouched(net):
        head = pooling_head(net, x)
        head.weight.zero_()
        head.bias.zero_()


# how much is computed


def test_the_forward_of_a_class_activation_map_records_no_graph():
    spy = Spy()
    with torch.enable_grad():
        class_activation_map(ended(behind=[spy]), batch(), 1)
    assert spy.recording == [False]
    assert spy.expected == [False]


# weighted_maps

noise = partial(tensors.normal, dtype=torch.float64)


@pytest.mark.parametrize("size", [(3, 4), (1, 1), (1, 5), (6, 2)])
def test_weighted_maps_against_a_loop(size):
    maps = noise(2, 3, *size)
    row, rows, own = (noise(3, seed=1), noise(2, 3, seed=2), noise(2, 4, 3, seed=3))
    actual = weighted_maps(maps, row)
    assert actual.shape == (2, *size)
    close(actual, naive(maps, [row, row]))
    actual = weighted_maps(maps, rows)  # as many rows as images: still both rows for both images
    assert actual.shape == (2, 2, *size)
    for k in range(2):
        close(actual[:, k], naive(maps, [rows[k]] * 2))
    actual = weighted_maps(maps, own)
    assert actual.shape == (2, 4, *size)
    for k in range(4):
        close(actual[:, k], naive(maps, own[:, k]))


def test_weighted_maps_keep_an_axis_of_one_row():
    maps = noise(2, 3, 4, 5)
    row = noise(1, 3, seed=1)
    assert weighted_maps(maps, row).shape == (2, 1, 4, 5)
    assert weighted_maps(maps, row.expand(2, 1, 3)).shape == (2, 1, 4, 5)
    close(weighted_maps(maps, row)[:, 0], weighted_maps(maps, row[0]))
    assert weighted_maps(maps[:1], noise(1, 2, 3)).shape == (1, 2, 4, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weighted_maps_are_of_the_dtype_of_the_maps(dtype):
    maps, weights = noise(2, 3, 4, 4, dtype=dtype), noise(5, 3, seed=1)
    before = maps.clone(), weights.clone()
    actual = weighted_maps(maps, weights)
    assert actual.dtype == dtype
    assert torch.equal(maps, before[0])
    assert torch.equal(weights, before[1])
    assert torch.equal(weighted_maps(maps, torch.tensor([1, 0, -2])), weighted_maps(maps, torch.tensor([1.0, 0, -2])))
    close32(weighted_maps(maps.to(memory_format=torch.channels_last), weights), actual)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (5, 4), (3, 1, 3)])
def test_weights_and_maps_that_do_not_fit_are_refused(shape):
    arguments = {"maps": noise(2, 3, 4, 4), "weights": torch.ones(3)}
    refuses(weighted_maps, arguments, weights=torch.ones(shape), maps=noise(3, 4, 4))


HEADS = {
    "a linear layer behind the average": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), gap(), nn.Flatten(), nn.Linear(6, 4)
    ),
    "one without a bias": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), gap(), nn.Flatten(), nn.Linear(6, 4, bias=False)),
    "1 x 1 convolution behind the average": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), gap(), nn.Conv2d(6, 4, 1), nn.Flatten()
    ),
    "1 x 1 convolution before it": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1), gap(), nn.Flatten()),
    "and a ReLU": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1), nn.ReLU(inplace=True), gap(), nn.Flatten()
    ),
    "maps that are no such convolution's": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), gap(), nn.Flatten()),
}


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
def test_mean_and_bias_are_the_logit_for_every_kind_of_head(make):
    torch.manual_seed(0)
    net, x = make().double(), batch()
    head, classes = pooling_head(net, x), torch.tensor([[0, 3]] * len(x))
    maps = class_activation_map(net, x, classes)
    close(maps.mean((2, 3)) + head.bias[classes], net(x).detach().gather(1, classes))
    close(class_activation_map(net, x), class_activation_map(net, x, net(x).argmax(1)))
