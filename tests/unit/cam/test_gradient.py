"""Grad-CAM by hand, by autograd, and against torchcam and captum."""

import warnings
from functools import partial

import pytest
import torch
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
    mixed,
    naive,
    seeded,
    toy,
)
from support.refuses import refuses
from support.untouched import assert_untouched
from torch import nn

from helpers import networks
from helpers.cam import class_activation_map, grad_cam, pooling_head, weighted_maps

# by hand


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
    expected = naive(features(net, x), net.fc.weight[[2, 2]].detach())
    close(weighted_maps(head.maps, head.weight[2]), expected)
    close(grad_cam(net, x, 2, layer="layer4"), expected.clamp_min(0) / 16)


def test_a_map_of_one_place_is_warned_of_and_layers_are_named_that_have_more():
    net, x = ended(), batch()
    with pytest.warns(UserWarning, match=r"'pool' has maps of one place, .*; others are 'layer1\.1', 'layer4\.1'$"):
        assert grad_cam(net, x, 1, layer="pool").shape == (2, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grad_cam(net, x, 1, layer="layer4").shape == grad_cam(net, x, 1).shape == (2, 4, 4)


# grad_cam against autograd by hand


@pytest.mark.parametrize("cut", ["pool2", "conv2", "relu1"])
def test_grad_cam_of_a_lenet_with_its_linear_layers(cut):
    torch.manual_seed(0)
    net = networks.LeNet().double()
    x, target = torch.rand(3, 1, 28, 28, generator=seeded(0), dtype=torch.float64), [7, 0, 2]
    at = list(dict(net.named_children())).index(cut) + 1
    below, above = (nn.Sequential(*part) for part in (list(net)[:at], list(net)[at:]))
    expected = []
    for image, c in zip(x, target, strict=True):
        f = below(image[None]).detach().requires_grad_()
        (slope,) = torch.autograd.grad(above(f)[0, c], f)
        alpha = slope.sum((2, 3)) / (f.shape[2] * f.shape[3])
        expected.append(naive(f.detach(), alpha))
    expected = torch.cat(expected)
    close(grad_cam(net, x, target, layer=cut, relu=False), expected)
    close(grad_cam(net, x, target, layer=cut), torch.where(expected > 0, expected, 0.0))
    assert (expected < 0).any()
    assert (expected > 0).any()
    with pytest.raises(ValueError, match=r"^model must end in .*grad_cam"):
        class_activation_map(net, x, target)


def test_grad_cam_looks_at_maps_before_an_inplace_relu_behind_the_layer():
    net, inplace, x = ended(), ended(act=partial(nn.ReLU, inplace=True)), batch()
    layer = "layer4.0"  # the convolution in front of the ReLU
    expected = grad_cam(net, x, 1, layer=layer, relu=False)
    close(grad_cam(inplace, x, 1, layer=layer, relu=False), expected)
    f = net.layer4[0](net.layer1(x)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(net[2:](torch.relu(f))[:, 1].sum(), f)
    close(expected, naive(f.detach(), slope.mean((2, 3))))
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
    with pytest.raises(ValueError, match=r"^layer must be one call, 'relu#1' .. 'relu#2', got 'relu'"):
        grad_cam(net, x, 1, layer="relu")


# against others


@each_other
def test_grad_cam_is_torchcams(case):
    methods = pytest.importorskip("torchcam.methods")
    net, x, target = case()
    actual = grad_cam(net, x, target, layer="layer4")
    with methods.GradCAM(net, "layer4") as extractor:
        scores = net(x)
        expected = extractor(target, scores, normalized=False)[0]
    close32(actual, expected.detach())
    assert actual.std() > 1e-3


@each_other
@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_is_captums(case, relu):
    attr = pytest.importorskip("captum.attr")
    net, x, target = case()
    actual = grad_cam(net, x, torch.tensor(target), layer="layer4", relu=relu)
    layer = attr.LayerGradCam(net, net.layer4)
    expected = layer.attribute(x, target=torch.tensor(target), relu_attributions=relu)[:, 0]
    close32(actual, expected.detach())


def test_grad_cam_of_a_lenet_is_captums():
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    net, x = networks.LeNet().double().eval(), torch.rand(2, 1, 28, 28, generator=seeded(0), dtype=torch.float64)
    expected = attr.LayerGradCam(net, net.pool2).attribute(x, target=3, relu_attributions=True)[:, 0]
    close(grad_cam(net, x, 3, layer="pool2"), expected.detach())


# how much is computed


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
    assert below.expected == [False]
    assert above.expected == [True]
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


def test_bad_arguments_are_refused():
    for layer in ("layer5", ["layer4"], "layer4#*"):
        refuses(grad_cam, {"model": mixed(), "x": batch(), "target": 1}, layer=layer)


@pytest.mark.parametrize("layer", ["flatten", "fc", "neck"])
def test_a_layer_without_feature_maps_is_refused(layer):
    net = mixed()
    message = rf"^layer must have feature maps \(B, C, h, w\), got '{layer}' with \(2, .*'layer1\.1', 'layer4\.1'$"
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

    with pytest.raises(ValueError, match="logits depend on them, got aside"):
        grad_cam(Aside(), batch(), 1, layer="aside")
    with pytest.raises(ValueError, match="got 'idle', which does not"):
        grad_cam(Aside(), batch(), 1, layer="idle")
