from collections import OrderedDict
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers import networks
from helpers.cam import Head, class_activation_map, grad_cam, pooling_head, upsample, weighted_maps


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def gap():
    return nn.AdaptiveAvgPool2d(1)


def ended(*, pool=None, act=nn.ReLU, neck=(), behind=(), bias=True, seed=0, classes=4):
    """Two convolutions, a pooling, one linear layer; whatever else between them and behind."""
    torch.manual_seed(seed)
    layers = OrderedDict(
        layer1=nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        layer4=nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), act()),
        pool=pool or gap(),
        flatten=nn.Flatten(),
        neck=nn.Sequential(*neck),
        fc=nn.Linear(6, classes, bias),
        behind=nn.Sequential(*behind),
    )
    return nn.Sequential(layers).double()


def features(net, x):
    with torch.no_grad():
        return net.layer4(net.layer1(x))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def batch(count=2, height=8, width=8, seed=1):
    return torch.randn(count, 3, height, width, generator=seeded(seed), dtype=torch.float64)


def naive(maps, rows):
    """sum_k w_k f_k(u), place by place, for the weights (C,) of each image."""
    found = torch.zeros(len(maps), *maps.shape[2:], dtype=maps.dtype)
    for b, (image, row) in enumerate(zip(maps, rows, strict=True)):
        for i in range(image.shape[1]):
            for j in range(image.shape[2]):
                found[b, i, j] = sum(w.item() * image[k, i, j].item() for k, w in enumerate(row))
    return found


close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
close32 = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


# by hand

# Two maps of means 9/9 = 1 and 18/9 = 2. Class 0: 2*1 - 1*2 + 0.5 = 0.5; class 1: 0*1 + 1*2 - 1 = 1.
MAPS = torch.tensor([[[[1.0, 2, 0], [0, 3, 0], [0, 0, 3]], [[0, 0, 9], [0, 0, 0], [0, 0, 9]]]])
CAM = torch.tensor([[[2.0, 4, -9], [0, 6, 0], [0, 0, -3]], [[0, 0, 9], [0, 0, 0], [0, 0, 9]]])


def toy(bias=True, pool=None):
    """A network whose images are its feature maps."""
    net = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), pool or gap(), nn.Flatten(), nn.Linear(2, 2, bias))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        net[3].weight.copy_(torch.tensor([[2.0, -1], [0, 1]]))
        if bias:
            net[3].bias.copy_(torch.tensor([0.5, -1]))
    return net


def test_the_toy_by_hand():
    assert class_activation_map(toy(), MAPS, 0).tolist() == [CAM[0].tolist()]
    assert class_activation_map(toy(), MAPS, [1]).tolist() == [CAM[1].tolist()]
    assert class_activation_map(toy(), MAPS, [[1, 0]]).tolist() == [CAM.flip(0).tolist()]
    assert weighted_maps(MAPS, torch.tensor([2.0, -1])).tolist() == [CAM[0].tolist()]


@pytest.mark.parametrize(("bias", "wanted"), [(True, [0.5, -1]), (False, [0, 0])])
def test_the_head_of_the_toy_by_hand(bias, wanted):
    head = pooling_head(toy(bias), MAPS)
    assert isinstance(head, Head)
    assert head.pooling == "gap"
    assert torch.equal(head.maps, MAPS)
    assert head.weight.tolist() == [[2, -1], [0, 1]]
    assert head.bias.tolist() == wanted
    # without the bias: 2*1 - 1*2 = 0, 0*1 + 1*2 = 2
    torch.testing.assert_close(head.logits, torch.tensor([[0.0 + wanted[0], 2 + wanted[1]]]))


def test_the_head_of_the_toys_maxima_by_hand():
    head = pooling_head(toy(pool=nn.AdaptiveMaxPool2d(1)), MAPS)
    assert head.pooling == "gmp"
    assert torch.equal(head.maps, MAPS)
    assert head.logits.tolist() == [[2 * 3 - 9 + 0.5, 9 - 1]]  # maxima 3 and 9


def test_grad_cam_of_the_toy_by_hand():
    # dS_c/df_k = w_k / 9 at each of the nine places
    for c in (0, 1):
        torch.testing.assert_close(grad_cam(toy(), MAPS, c, layer="0"), CAM[c : c + 1].clamp_min(0) / 9)
        torch.testing.assert_close(grad_cam(toy(), MAPS, c, layer="0", relu=False), CAM[c : c + 1] / 9)
    several = grad_cam(toy(), MAPS, [[1, 0]], layer="0", relu=False)
    torch.testing.assert_close(several, CAM.flip(0)[None] / 9)


def test_grad_cam_weighs_by_the_mean_of_the_gradient_not_by_the_gradient():
    # S = 4 a + 8 d - 4 b of the map [[a, b], [c, d]]: alpha = (4 - 4 + 0 + 8) / 4 = 2
    slopes = torch.tensor([[4.0, -4], [0, 8]])
    net = nn.Sequential(nn.Identity(), Call(lambda f: (f * slopes).sum((2, 3))))
    x = torch.tensor([[[[1.0, -2], [3, 4]]]])
    assert grad_cam(net, x, 0, layer="0", relu=False).tolist() == [[[2, -4], [6, 8]]]
    assert grad_cam(net, x, 0, layer="0").tolist() == [[[2, 0], [6, 8]]]
    assert grad_cam(net, x, 0, layer="input").tolist() == [[[2, 0], [6, 8]]]


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


# grad_cam and class_activation_map against each other


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (2, 2)])
def test_grad_cam_of_a_network_that_averages_is_its_map_over_the_number_of_places(size):
    net, x = ended(act=nn.Identity), batch(3, *size)
    cam = class_activation_map(net, x, [1, 0, 3])
    places = cam[0].numel()
    close(grad_cam(net, x, [1, 0, 3], layer="layer4"), cam.clamp_min(0) / places)
    close(grad_cam(net, x, [1, 0, 3], layer="layer4", relu=False), cam / places)
    assert (cam < 0).any()


def test_grad_cam_of_a_network_that_takes_maxima_is_the_weighted_sum_too():
    # the gradient is w at the one place of the maximum, 0 elsewhere: its mean is w / (h w)
    net, x = ended(pool=nn.AdaptiveMaxPool2d(1), act=nn.Identity), batch()
    head = pooling_head(net, x)
    wanted = naive(features(net, x), net.fc.weight[[2, 2]].detach())
    close(weighted_maps(head.maps, head.weight[2]), wanted)
    close(grad_cam(net, x, 2, layer="layer4"), wanted.clamp_min(0) / 16)


# grad_cam against autograd by hand


@pytest.mark.parametrize("cut", ["pool2", "conv2", "relu1"])
def test_grad_cam_of_a_lenet_with_its_linear_layers(cut):
    torch.manual_seed(0)
    net = networks.LeNet().double()
    x, target = torch.rand(3, 1, 28, 28, generator=seeded(0), dtype=torch.float64), [7, 0, 2]
    at = list(dict(net.named_children())).index(cut) + 1
    below, above = (nn.Sequential(*part) for part in (list(net)[:at], list(net)[at:]))
    wanted = []
    for image, c in zip(x, target, strict=True):
        f = below(image[None]).detach().requires_grad_()
        (slope,) = torch.autograd.grad(above(f)[0, c], f)
        alpha = slope.sum((2, 3)) / (f.shape[2] * f.shape[3])
        wanted.append(naive(f.detach(), alpha))
    wanted = torch.cat(wanted)
    close(grad_cam(net, x, target, layer=cut, relu=False), wanted)
    close(grad_cam(net, x, target, layer=cut), torch.where(wanted > 0, wanted, 0.0))
    assert (wanted < 0).any()
    assert (wanted > 0).any()
    with pytest.raises(ValueError, match=r"^model must end in .*grad_cam"):
        class_activation_map(net, x, target)


def test_grad_cam_looks_at_maps_before_an_inplace_relu_behind_the_layer():
    net, inplace, x = ended(), ended(act=partial(nn.ReLU, inplace=True)), batch()
    layer = "layer4.0"  # the convolution in front of the ReLU
    wanted = grad_cam(net, x, 1, layer=layer, relu=False)
    close(grad_cam(inplace, x, 1, layer=layer, relu=False), wanted)
    f = net.layer4[0](net.layer1(x)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(net[2:](torch.relu(f))[:, 1].sum(), f)
    close(wanted, naive(f.detach(), slope.mean((2, 3))))
    assert (f < 0).any()
    close(grad_cam(inplace, x, 1, layer="layer4"), grad_cam(net, x, 1, layer="layer4"))
    close(class_activation_map(inplace, x, 1), class_activation_map(net, x, 1))


def test_a_module_that_runs_twice_is_named_call_by_call():
    relu = nn.ReLU()

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.relu = ended(act=nn.Identity), relu

        def forward(self, x):
            return self.parts[2:](self.relu(self.parts.layer4(self.relu(self.parts.layer1(x)))))

    net, x = Twice(), batch()
    close(grad_cam(net, x, 1, layer="relu#2"), class_activation_map(net, x, 1).clamp_min(0) / 16)
    with pytest.raises(ValueError, match=r"^layers: 'relu' runs 2 times"):
        grad_cam(net, x, 1, layer="relu")


# against others


def resnet(seed=0):
    torch.manual_seed(seed)
    return torchvision.models.resnet18(weights=None, num_classes=10).eval()


OTHERS = {
    "small": lambda: (ended().float().eval(), batch(3, 9, 14).float(), [1, 0, 3]),
    "small, signed maps": lambda: (ended(act=nn.Identity).float().eval(), batch(3, 9, 14).float(), [1, 0, 3]),
    "resnet18": lambda: (resnet(), torch.randn(3, 3, 64, 64, generator=seeded(0)), [1, 7, 3]),
}
each_other = pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)


@each_other
def test_class_activation_maps_are_torchcams(case):
    methods = pytest.importorskip("torchcam.methods")
    net, x, target = case()
    found = class_activation_map(net, x, target)
    with methods.CAM(net, "layer4", "fc") as extractor, torch.no_grad():
        net(x)
        wanted = extractor(target, normalized=False)[0]
    close32(found, wanted)
    assert found.std() > 1e-3


@each_other
def test_grad_cam_is_torchcams(case):
    methods = pytest.importorskip("torchcam.methods")
    net, x, target = case()
    found = grad_cam(net, x, target, layer="layer4")
    with methods.GradCAM(net, "layer4") as extractor:
        scores = net(x)
        wanted = extractor(target, scores, normalized=False)[0]
    close32(found, wanted.detach())
    assert found.std() > 1e-3


@each_other
@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_is_captums(case, relu):
    attr = pytest.importorskip("captum.attr")
    net, x, target = case()
    found = grad_cam(net, x, torch.tensor(target), layer="layer4", relu=relu)
    layer = attr.LayerGradCam(net, net.layer4)
    wanted = layer.attribute(x, target=torch.tensor(target), relu_attributions=relu)[:, 0]
    close32(found, wanted.detach())


def test_grad_cam_of_a_lenet_is_captums():
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    net, x = networks.LeNet().double().eval(), torch.rand(2, 1, 28, 28, generator=seeded(0), dtype=torch.float64)
    wanted = attr.LayerGradCam(net, net.pool2).attribute(x, target=3, relu_attributions=True)[:, 0]
    close(grad_cam(net, x, 3, layer="pool2"), wanted.detach())


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
        assert "grad_cam(model, x, target, layer)" in str(error)  # noqa: PT017 (either way is right)
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


def test_a_relu_of_pooled_values_counts_with_maps_of_a_single_place_too():
    net, x = ended(act=nn.Identity, neck=[nn.ReLU()]), batch(2, 2, 2)
    assert (features(net, x) < 0).any()
    with pytest.raises(ValueError, match=r"^model must end in a global pooling.*grad_cam"):
        pooling_head(net, x)


def doubled(logits):
    return logits.mul_(2)


def prior(logits):
    logits += torch.tensor([1.0, 0, 0, -1])
    return logits


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
    "a temperature in place": {"behind": [Call(doubled)]},
    "a softmax": {"behind": [nn.Softmax(1)]},
    "a log softmax": {"behind": [nn.LogSoftmax(1)]},
    "a ReLU behind": {"behind": [nn.ReLU()]},
    "a ReLU in place behind": {"behind": [nn.ReLU(inplace=True)]},
    "a second bias": {"behind": [Call(lambda logits: logits + 1)]},
    "a second bias in place": {"behind": [Call(prior)]},
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
def test_networks_with_another_end_are_refused_but_have_a_grad_cam(case):
    net, x = ended(**case), batch()
    for method in (pooling_head, partial(class_activation_map, target=1)):
        with pytest.raises(ValueError, match=r"^model must end in a global pooling.*grad_cam\(model, x, target"):
            method(net, x)
    assert grad_cam(net, x, 1, layer="layer4").shape == (2, 4, 4)


def test_networks_without_a_linear_layer_are_refused():
    x = batch()
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), gap(), nn.Flatten()).double()  # as in "Network in Network"
    with pytest.raises(ValueError, match=r"^model must end in .*grad_cam"):
        pooling_head(conv, x)
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 4)).double()
    with pytest.raises(ValueError, match=r"^model must end in .*grad_cam"):
        pooling_head(flat, x)


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
    found = pooling_head(net, x)
    close(found.maps, net.last)
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
        wanted = net.eval()(x)
    assert maps.shape == (1, 2, side, side)
    *_, last = (module for module in net.modules() if isinstance(module, nn.Linear))
    torch.testing.assert_close(maps.mean((2, 3)) + last.bias[[0, 4]].detach(), wanted[:, [0, 4]], rtol=0, atol=1e-5)
    torch.testing.assert_close(head.logits, wanted)


def vgg():
    return torchvision.models.vgg16(weights=None, init_weights=False)


def squeezenet():
    return torchvision.models.squeezenet1_1(weights=None, num_classes=5)


def convnext():
    blocks = [
        torchvision.models.convnext.CNBlockConfig(8, 16, 1),
        torchvision.models.convnext.CNBlockConfig(16, None, 1),
    ]
    return torchvision.models.ConvNeXt(blocks, num_classes=5)


def vit():
    made = torchvision.models.VisionTransformer(64, 16, 1, 2, 16, 32, num_classes=5)
    nn.init.normal_(made.heads.head.weight)  # zeros otherwise
    return made


OTHER_ENDS = {"vgg16": (vgg, "features"), "squeezenet": (squeezenet, "features"), "convnext": (convnext, "features")}


@pytest.mark.parametrize(("make", "layer"), [*OTHER_ENDS.values(), (vit, "conv_proj")], ids=[*OTHER_ENDS, "vit"])
def test_torchvisions_networks_with_another_end_are_refused(make, layer):
    torch.manual_seed(0)
    net, x = make(), torch.randn(1, 3, 64, 64, generator=seeded(0))
    with pytest.raises(ValueError, match=r"^model must end in a global pooling.*grad_cam\(model, x, target, layer\)"):
        class_activation_map(net, x, 0)
    maps = grad_cam(net, x, 0, layer=layer, relu=False)
    assert maps.ndim == 3
    assert torch.isfinite(maps).all()


# one class or many, one image or many

METHODS = {
    "class_activation_map": class_activation_map,
    "grad_cam": partial(grad_cam, layer="layer4"),
    "signed grad_cam": partial(grad_cam, layer="layer4.0", relu=False),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
CALLS = {"pooling_head": lambda net, x, _target: pooling_head(net, x)} | METHODS
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_method
def test_k_targets_equal_single_ones(method):
    net, x = ended(), batch()
    several = method(net, x, torch.tensor([[0, 2, 3], [2, 1, 2]]))
    assert several.shape == (2, 3, 4, 4)
    for k, target in enumerate(([0, 2], [2, 1], [3, 2])):
        close(several[:, k], method(net, x, torch.tensor(target)))
    close(method(net, x, 1), method(net, x, [1, 1]))
    single = method(net, x, [[1], [1]])
    assert single.shape == (2, 1, 4, 4)
    close(single[:, 0], method(net, x, 1))
    assert not torch.allclose(several[:, 0], several[:, 1])


@each_method
def test_an_image_is_explained_alone_as_in_its_batch(method):
    net, x = ended(), batch(3)
    together = method(net, x, [1, 0, 3])
    for b, c in enumerate([1, 0, 3]):
        close(method(net, x[b : b + 1], c), together[b : b + 1])


@each_method
def test_one_network_takes_images_of_several_sizes(method):
    for size in [(8, 8), (4, 12), (11, 6)]:
        assert method(ended(), batch(2, *size), 1).shape == (2, (size[0] + 1) // 2, (size[1] + 1) // 2)


@each_call
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_are_detached_and_of_the_images_dtype(call, dtype):
    net, x = ended().to(dtype), batch().to(dtype).requires_grad_()
    found = call(net, x, 1)
    for one in found[:4] if isinstance(found, Head) else [found]:
        assert one.dtype == dtype
        assert one.device == x.device
        assert not one.requires_grad
    assert x.grad is None


@each_call
def test_the_callers_images_are_left_alone(call):
    net, x = ended(), batch()
    net.layer1.insert(0, nn.ReLU(inplace=True))
    call(net, x, 1)
    assert torch.equal(x, batch())


@each_call
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(call, context):
    wanted = call(ended(), batch(), 1)
    net, x = ended(), batch()
    with context():
        found = call(net, x, torch.tensor([1, 1]))
    for a, b in zip(*((one[:4] if isinstance(one, Head) else [one]) for one in (found, wanted)), strict=True):
        close(a.clone(), b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@each_method
def test_a_network_on_the_gpu_gives_the_same(method):
    for target in (torch.tensor([0, 2]), torch.tensor([0, 2]).cuda(), [[0, 1], [2, 3]]):
        found = method(ended().cuda(), batch().cuda(), target)
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), method(ended(), batch(), torch.as_tensor(target).cpu()))


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


# the network is left as it was found


def mixed(pool=None):
    """Mixed modes, a frozen parameter, a filled .grad, in-place layers, and hooks of the user."""
    neck = [nn.Dropout(0.5, inplace=True)]
    net = ended(act=partial(nn.ReLU, inplace=True), neck=neck, pool=nn.Sequential(nn.BatchNorm2d(6), gap())).train()
    net.layer4.eval()
    net.layer1[0].bias.requires_grad_(False)
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    net.layer4.register_forward_hook(lambda *_: None)
    net.layer1.register_forward_pre_hook(lambda *_: None)
    return net


@each_call
def test_the_network_is_untouched(call):
    net = mixed()
    with assert_untouched(net):
        call(net, batch(), [[0, 1]] * 2)


@each_call
def test_the_network_is_untouched_when_its_forward_raises(call):
    net = mixed()
    net.behind.append(Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        call(net, batch(), 1)
    assert torch.overrides._get_current_function_mode_stack() == []  # nobody looks on any more


@pytest.mark.parametrize("target", [99, [1, 1, 1], 1.5])
@each_method
def test_the_network_is_untouched_when_the_target_is_refused(method, target):
    net = mixed()
    with pytest.raises(ValueError, match=r"^target must"), assert_untouched(net):
        method(net, batch(), target)


@each_call
def test_the_network_is_looked_at_in_evaluation_mode(call):
    found = [call(net, batch(), 1) for net in (mixed(), mixed(), mixed().eval())]
    for one in found[1:]:
        for a, b in zip(*((r[:4] if isinstance(r, Head) else [r]) for r in (found[0], one)), strict=True):
            assert torch.equal(a, b)


@each_call
def test_nobody_looks_on_afterwards(call):
    call(ended(), batch(), 1)
    assert torch.overrides._get_current_function_mode_stack() == []


# how much is computed


class Spy(nn.Module):
    """Counts its calls and notes whether gradients are recorded there."""

    def __init__(self):
        super().__init__()
        self.calls, self.recording, self.wanted = 0, [], []

    def forward(self, x):
        self.calls += 1
        self.recording.append(torch.is_grad_enabled())
        self.wanted.append(x.requires_grad)
        return x


@each_call
@pytest.mark.parametrize("target", [1, [[0, 1, 2, 3]] * 2])
def test_one_forward_whatever_the_number_of_classes(call, target):
    net = ended()
    first, last = Spy(), Spy()
    net.layer1.insert(0, first)
    net.behind.append(last)
    call(net, batch(), target)
    assert (first.calls, last.calls) == (1, 1)


def test_the_forward_of_a_class_activation_map_records_no_graph():
    spy = Spy()
    with torch.enable_grad():
        class_activation_map(ended(behind=[spy]), batch(), 1)
    assert spy.recording == [False]
    assert spy.wanted == [False]


class NoBackward(torch.autograd.Function):
    """The identity, whose backward must not run."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise AssertionError("a gradient below the layer")


@pytest.mark.parametrize("wants", [False, True])
def test_no_gradient_is_computed_below_the_layer(wants):
    net, below, above = ended(), Spy(), Spy()
    factor = torch.ones((), dtype=torch.float64, requires_grad=wants)  # no parameter: nobody freezes it
    net.layer1.append(Call(lambda f: NoBackward.apply(f * factor)))
    net.layer1.insert(0, below)
    net.behind.append(above)
    x = batch().requires_grad_()
    close(grad_cam(net, x, [[0, 1]] * 2, layer="layer4"), grad_cam(ended(), batch(), [[0, 1]] * 2, layer="layer4"))
    assert below.wanted == [False]
    assert above.wanted == [True]
    assert factor.grad is None
    assert x.grad is None
    with pytest.raises(AssertionError, match="below the layer"):
        grad_cam(net, x, 0, layer="layer1.0")


def test_no_gradient_of_a_weight_above_the_layer_is_computed():
    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx, f, weight):
            ctx.save_for_backward(weight)
            return f * weight

        @staticmethod
        def backward(ctx, grad):
            assert ctx.needs_input_grad == (True, False)
            return grad * ctx.saved_tensors[0], None

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, f):
            return Scale.apply(f, self.weight)

    net, x = ended(pool=nn.Sequential(Scaled(), gap())), batch()
    close(grad_cam(net, x, 1, layer="layer4"), 2 * grad_cam(ended(), x, 1, layer="layer4"))


# bad arguments

NO_IMAGES = [
    (lambda x: x[0], "x\\[None\\]"),
    (lambda x: x.numpy(), "torch tensor"),
    (lambda x: x[:0], "empty"),
    (lambda x: (x * 10).long(), "floating point"),
    (lambda x: x / 0, "finite"),
    (lambda x: x * float("nan"), "finite"),
    (lambda x: x.float(), "float64"),
    (lambda x: x[:, :2], "3 channels"),
]


@each_call
@pytest.mark.parametrize(("spoil", "message"), NO_IMAGES)
def test_bad_images_are_refused(call, spoil, message):
    net = mixed()
    with pytest.raises(ValueError, match=f"^x must.*({message})"), assert_untouched(net):
        call(net, spoil(batch()), 1)


NO_TARGETS = [
    (4, "0 .. 3"),
    (-1, "0 .. 3"),
    ([0, 4], "0 .. 3"),
    ([[0, 1], [-1, 2]], "0 .. 3"),
    ([0], "B = 2"),
    ([0, 1, 2], "B = 2"),
    ([[0, 1]], "B = 2"),
    ([[[0]], [[1]]], "B = 2"),
    ([], "B = 2"),
    (1.0, "integers"),
    ([0.0, 1.0], "integers"),
    (True, "integers"),
    (torch.tensor([True, False]), "integers"),
    (None, "int"),
    ("dog", "int"),
]


@each_method
@pytest.mark.parametrize(("target", "message"), NO_TARGETS)
def test_bad_targets_are_refused(method, target, message):
    net = ended()
    with pytest.raises(ValueError, match=f"^target must.*{message}"), assert_untouched(net):
        method(net, batch(), target)


@each_call
def test_what_gives_no_logits_is_refused(call):
    with pytest.raises(ValueError, match=r"^model must return logits \(B, classes\)"):
        call(ended()[:2], batch(), 1)


@pytest.mark.parametrize("layer", [["layer4"], None, 4, ("layer4", "layer1"), b"layer4"])
def test_a_layer_that_is_not_one_name_is_refused(layer):
    with pytest.raises(ValueError, match=r"^layer must be one name"):
        grad_cam(ended(), batch(), 1, layer=layer)


@pytest.mark.parametrize(("layer", "message"), [("layer5", "nearest names are.*layer4"), ("", "no layer")])
def test_an_unknown_layer_is_refused(layer, message):
    net = mixed()
    with pytest.raises(ValueError, match=f"^layers?.*{message}"), assert_untouched(net):
        grad_cam(net, batch(), 1, layer=layer)


@pytest.mark.parametrize("layer", ["flatten", "fc", "neck"])
def test_a_layer_without_feature_maps_is_refused(layer):
    net = mixed()
    message = r"^layer must have feature maps \(B, C, h, w\), but '" + layer + r"' gives \(2, .*layer4\.0, layer4\.1$"
    with pytest.raises(ValueError, match=message), assert_untouched(net):
        grad_cam(net, batch(), 1, layer=layer)


def test_the_refusal_of_a_layer_ends_in_words_where_the_network_has_no_feature_maps():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).double()
    with pytest.raises(ValueError, match=r"^layer must have feature maps.*[a-z)]$"):
        grad_cam(net, batch(), 1, layer="0")


def test_a_layer_that_does_not_reach_the_logits_is_refused():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.aside, self.idle = ended(), nn.Conv2d(3, 2, 1).double(), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            self.aside(x)
            return self.parts(x)

    with pytest.raises(ValueError, match="do not depend on what aside"):
        grad_cam(Aside(), batch(), 1, layer="aside")
    with pytest.raises(ValueError, match="'idle' does not run"):
        grad_cam(Aside(), batch(), 1, layer="idle")


# weighted_maps


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


@pytest.mark.parametrize("size", [(3, 4), (1, 1), (1, 5), (6, 2)])
def test_weighted_maps_against_a_loop(size):
    maps = noise(2, 3, *size)
    one, rows, own = noise(3, seed=1), noise(2, 3, seed=2), noise(2, 4, 3, seed=3)
    found = weighted_maps(maps, one)
    assert found.shape == (2, *size)
    close(found, naive(maps, [one, one]))
    found = weighted_maps(maps, rows)  # as many rows as images: still both rows for both images
    assert found.shape == (2, 2, *size)
    for k in range(2):
        close(found[:, k], naive(maps, [rows[k]] * 2))
    found = weighted_maps(maps, own)
    assert found.shape == (2, 4, *size)
    for k in range(4):
        close(found[:, k], naive(maps, own[:, k]))


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
    kept = maps.clone(), weights.clone()
    found = weighted_maps(maps, weights)
    assert found.dtype == dtype
    assert torch.equal(maps, kept[0])
    assert torch.equal(weights, kept[1])
    assert torch.equal(weighted_maps(maps, torch.tensor([1, 0, -2])), weighted_maps(maps, torch.tensor([1.0, 0, -2])))
    close32(weighted_maps(maps.to(memory_format=torch.channels_last), weights), found)


@pytest.mark.parametrize("maps", [noise(3, 4, 4), noise(1, 2, 3, 4, 4), noise(0, 3, 4, 4), noise(2, 3, 0, 4), [[1.0]]])
def test_bad_maps_have_no_weighted_sum(maps):
    with pytest.raises(ValueError, match=r"^maps must be non-empty floating-point feature maps \(B, C, h, w\), got"):
        weighted_maps(maps, torch.ones(3))


@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 2), (5, 4), (3, 1, 3), (1, 2, 3), (2, 2, 4), (2, 1, 2, 3)])
def test_weights_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"^weights must be \(3,\), \(K, 3\) or \(2, K, 3\), got"):
        weighted_maps(noise(2, 3, 4, 4), torch.ones(shape))


def test_weights_that_are_no_tensor_are_refused():
    with pytest.raises(ValueError, match=r"^weights must be .*got list"):
        weighted_maps(noise(2, 3, 4, 4), [1.0, 2.0, 3.0])


# upsample


def test_upsampling_a_row_by_hand():
    # pixel i of 4 lies at (i + 1/2) / 2 - 1/2 = -1/4, 1/4, 3/4, 5/4 cells
    assert upsample(torch.tensor([[0.0, 4]]), (1, 4)).tolist() == [[0, 1, 3, 4]]
    assert upsample(torch.tensor([[0.0], [4]]), (4, 1)).tolist() == [[0], [1], [3], [4]]
    assert upsample(torch.tensor([[0.0, 4]]), (2, 4)).tolist() == [[0, 1, 3, 4]] * 2
    # pixel i of 6: (i + 1/2) / 3 - 1/2 = -1/3, 0, 1/3, 2/3, 1, 4/3 cells
    found = upsample(torch.tensor([[0.0, 3]], dtype=torch.float64), (1, 6))
    close(found, torch.tensor([[0.0, 0, 1, 2, 3, 3]], dtype=torch.float64))


def stretched(image, size):
    """Bilinear, pixel by pixel, from the formula."""
    (h, w), found = image.shape, torch.zeros(size, dtype=image.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            total = 0.0
            for a in range(h):
                for b in range(w):
                    total += max(0, 1 - abs(y - a)) * max(0, 1 - abs(x - b)) * image[a, b].item()
            found[i, j] = total
    return found


@pytest.mark.parametrize("size", [(9, 15), (7, 11), (3, 5), (4, 3), (1, 1), (2, 40)])
def test_upsampling_from_the_formula(size):
    maps = noise(3, 5)
    close(upsample(maps, size), stretched(maps, size))


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_upsampling_any_leading_axes_is_torchs(lead, dtype):
    maps = noise(*lead, 3, 5, dtype=dtype)
    kept = maps.clone()
    wanted = F.interpolate(maps.view(-1, 1, 3, 5), (8, 7), mode="bilinear", align_corners=False, antialias=False)
    found = upsample(maps, (8, 7))
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted.view(*lead, 8, 7))
    assert torch.equal(maps, kept)
    for index in range(lead[0] if lead else 0):
        assert torch.equal(found[index], upsample(maps[index], [8, 7]))


def test_upsampling_views():
    maps = noise(2, 4, 5, 3)
    wanted = upsample(maps.transpose(2, 3).contiguous(), (9, 8))
    assert torch.equal(upsample(maps.transpose(2, 3), (9, 8)), wanted)
    assert torch.equal(upsample(maps.permute(1, 0, 3, 2), torch.Size((9, 8))), wanted.transpose(0, 1))
    assert torch.equal(upsample(maps[:, :1].expand(2, 4, 5, 3), (9, 8))[:, 3], upsample(maps[:, 0], (9, 8)))


def test_upsampling_keeps_signs_and_stays_within_the_maps_own_range():
    maps = noise(4, 5, 6) - 5
    large = upsample(maps, (31, 17))
    for one, many in zip(maps, large, strict=True):
        assert one.min() - 1e-12 <= many.min()  # up to rounding
        assert many.max() <= one.max() + 1e-12
        assert many[0, 0] == one[0, 0]  # the border goes on
        assert many[-1, -1] == one[-1, -1]
    assert torch.equal(upsample(maps, (5, 6)), maps)
    assert torch.equal(upsample(torch.full((1, 1), -3.0), (4, 6)), torch.full((4, 6), -3.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_upsampling_and_weighing_on_the_gpu():
    maps, weights = noise(2, 3, 4, 5), noise(2, 3)
    torch.testing.assert_close(upsample(maps.cuda(), (9, 8)), upsample(maps, (9, 8)).cuda())
    torch.testing.assert_close(weighted_maps(maps.cuda(), weights), weighted_maps(maps, weights).cuda())


@pytest.mark.parametrize(
    "maps", [noise(5), torch.tensor(1.0), noise(0, 3, 3), noise(2, 0, 3), torch.ones(3, 3).long(), [[1.0]], None]
)
def test_what_cannot_be_upsampled_is_refused(maps):
    with pytest.raises(ValueError, match=r"^maps must be a non-empty floating-point tensor \(\.\.\., h, w\), got"):
        upsample(maps, (4, 4))


@pytest.mark.parametrize(
    "size",
    [
        8,
        (8,),
        (8, 8, 8),
        (8.0, 8),
        (8, 0),
        (0, 8),
        (-1, 8),
        (True, 8),
        (8, True),
        (8, None),
        "88",
        None,
        torch.tensor([8, 8]),
    ],
)
def test_bad_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"^size must be \(H, W\), two positive integers, got"):
        upsample(noise(3, 3), size)


def test_an_offset_moves_the_map_by_that_many_pixels():
    maps = torch.zeros(1, 4, 4, dtype=torch.float64)
    maps[0, 1, 2] = 1  # centre at row 6, column 10 of 16 x 16 pixels
    rows, columns = (torch.arange(16, dtype=torch.float64) + 0.5 for _ in range(2))
    for offset in (0.0, 1.0, 2.5, -3.0):
        large = upsample(maps, (16, 16), offset=offset)[0]
        # A tent of slope 1 / 4 around the centre, by hand; far enough from the border to be whole.
        tent = [(1 - (one - at - offset).abs() / 4).clamp(min=0) for one, at in ((rows, 6), (columns, 10))]
        if offset != 2.5:
            torch.testing.assert_close(large, tent[0][:, None] * tent[1])
        else:
            torch.testing.assert_close(large[:12, :12], (tent[0][:, None] * tent[1])[:12, :12])


def test_an_offset_of_almost_nothing_is_none_and_the_border_goes_on():
    maps = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(upsample(maps, (20, 30), offset=1e-9), upsample(maps, (20, 30)), rtol=0, atol=1e-7)
    assert (upsample(maps, (20, 30), offset=40.0) == maps[..., :1, :1]).all()


@pytest.mark.parametrize("offset", [float("nan"), float("inf"), "2", None, True])
def test_an_offset_that_is_no_number_is_refused(offset):
    with pytest.raises(ValueError, match=r"^offset must be a finite number of pixels"):
        upsample(torch.rand(1, 4, 4), (8, 8), offset=offset)
