"""Gradients of a score with respect to the pixels, by hand, by finite differences and against captum."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from support.refuses import refuses
from support.saliency import Sum, X, batch, by_hand, captum_attribution, seeded, tiny
from support.untouched import Boom
from torch import nn

import helpers.data
from helpers import networks
from helpers.saliency import (
    class_saliency,
    gradient_times_input,
    guided_backprop,
    input_gradient,
    integrated_gradients,
    smooth_gradient,
)


@pytest.mark.parametrize("inplace", [False, True])
def test_input_gradient_by_hand(inplace):
    net = by_hand(inplace)
    assert input_gradient(net, X, 0).tolist() == [[[[0.5, 0], [0.5, 0.5]]]]
    assert input_gradient(net, X, [1]).tolist() == [[[[-1.5, 0], [-1.5, -1.5]]]]
    assert input_gradient(net, X, [[1, 0]])[0, :, 0].tolist() == [[[-1.5, 0], [-1.5, -1.5]], [[0.5, 0], [0.5, 0.5]]]


def test_class_saliency_is_the_largest_absolute_gradient_over_colours_not_their_sum():
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([4.0, -12.0, 8.0]).view(1, 3, 1, 1))
    x = torch.ones(1, 3, 2, 2)  # the gradient is 1, -3, 2 at each of the four places
    assert class_saliency(net, x, 0).tolist() == [[[3, 3], [3, 3]]]
    assert class_saliency(net, x, [[0, 0]]).tolist() == [[[[3, 3], [3, 3]]] * 2]
    assert class_saliency(by_hand(), X, 1).tolist() == [[[1.5, 0], [1.5, 1.5]]]


def test_gradient_times_input_by_hand():
    assert gradient_times_input(by_hand(), X, 0).tolist() == [[[[0.5, 0], [1.5, 2]]]]
    assert gradient_times_input(by_hand(), X, [[0, 1]])[:, 1].tolist() == [[[[-1.5, 0], [-4.5, -6]]]]


def test_integrated_gradients_by_hand():
    net = by_hand()
    torch.testing.assert_close(integrated_gradients(net, X, 0), torch.tensor([[[[0.5, 0], [1.5, 2]]]]))
    # the gradient 3 x^2 in the middle of the way from 1 to 2, times that way
    middle = integrated_gradients(Sum(lambda x: x**3), torch.full((1, 1, 1, 1), 2.0), 0, steps=1, baseline=1.0)
    assert middle.tolist() == [[[[3 * 1.5**2 * 1]]]]


def test_guided_backprop_by_hand():
    assert guided_backprop(by_hand(), X, 0).tolist() == [[[[0.5, 0], [0.5, 0.5]]]]
    assert guided_backprop(by_hand(), X, 1).tolist() == [[[[0, 0], [0, 0]]]]  # nothing but negative gradients comes in


def test_the_gradient_after_softmax_weighs_the_logits_gradients():
    net, x = tiny(), batch()
    every = [[0, 1, 2]] * 2
    w, p = input_gradient(net, x, every), net(x).softmax(1).detach()[..., None, None, None]
    expected = p * (w - (p * w).sum(1, keepdim=True))
    torch.testing.assert_close(input_gradient(net, x, every, score="probability"), expected)
    torch.testing.assert_close(class_saliency(net, x, 1, score="probability"), expected[:, 1].abs().amax(1))


@pytest.mark.parametrize("score", ["logit", "probability", "log-odds"])
def test_a_constant_added_to_all_logits_changes_no_gradient(score):
    actual = [input_gradient(tiny(bias=bias), batch(), 1, score=score) for bias in (0, 5)]
    torch.testing.assert_close(*actual)
    assert actual[0].abs().max() > 1e-3


# gradients against others


def test_input_gradient_is_captums_saliency():
    net, x, target = tiny(), batch(), torch.tensor([2, 0])
    assert torch.equal(input_gradient(net, x, target), captum_attribution("Saliency", net)(x, target=target, abs=False))


@pytest.mark.parametrize("baseline", [0.0, batch(seed=5), torch.tensor([0.5, -1.0, 2.0]).double().view(3, 1, 1)])
def test_integrated_gradients_are_captums(baseline):
    net, x, target = tiny(), batch(), torch.tensor([2, 0])
    captums = baseline.expand(x.shape).clone() if isinstance(baseline, torch.Tensor) else baseline
    expected = captum_attribution("IntegratedGradients", net)(x, captums, target=target, n_steps=20)
    torch.testing.assert_close(
        integrated_gradients(net, x, target, steps=20, baseline=baseline), expected, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backprop_is_captums(inplace):
    net, x, target = tiny(act=partial(nn.ReLU, inplace)), batch(), torch.tensor([2, 0])
    actual = guided_backprop(net, x, target)
    assert torch.equal(actual, captum_attribution("GuidedBackprop", tiny())(x, target=target))
    assert not torch.allclose(actual, input_gradient(net, x, target))


def test_guided_backprop_of_a_resnet_is_captums():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    x, target = torch.randn(2, 3, 48, 48), torch.tensor([3, 7])
    actual = guided_backprop(net, x, target)
    torch.testing.assert_close(actual, captum_attribution("GuidedBackprop", net)(x, target=target), rtol=1e-6, atol=0)


class Functional(nn.Module):
    """The layers of `tiny` with ReLUs that are functions."""

    def __init__(self, first, second):
        super().__init__()
        self.layers, self.first, self.second = tiny(), first, second

    def forward(self, x):
        x = self.first(self.layers[0](x))
        return self.layers[4:](self.second(self.layers[2](x)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (F.relu, partial(F.relu, inplace=True)),
        (torch.relu, torch.relu_),
        (torch.Tensor.relu, lambda x: x.relu_()),
        (F.relu_, lambda x: x.relu()),
    ],
)
def test_guided_backprop_finds_relus_that_are_functions(first, second):
    expected = guided_backprop(tiny(), batch(), 1)
    torch.testing.assert_close(guided_backprop(Functional(first, second), batch(), 1), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "act",
    [
        nn.ReLU6(),
        nn.ReLU6(inplace=True),
        F.relu6,
        partial(F.hardtanh, min_val=0.0, max_val=6.0),
        lambda x: F.hardtanh_(x, 0.0, 6.0),
    ],
)
def test_guided_backprop_finds_relus_with_a_ceiling(act):
    x = 20 * batch()

    def capped(x):
        return F.relu(x).clamp(max=6)

    expected = guided_backprop(Functional(capped, capped), x, 1)
    assert not torch.allclose(expected, guided_backprop(Functional(F.relu, F.relu), x, 1))  # some reach the ceiling
    torch.testing.assert_close(guided_backprop(Functional(act, act), x, 1), expected, rtol=0, atol=1e-12)


def test_a_hardtanh_that_lets_negative_values_pass_is_no_relu():
    with pytest.raises(ValueError, match=r"^model must have ReLUs"):
        guided_backprop(tiny(act=nn.Hardtanh), batch(), 1)


def test_guided_backprop_of_a_network_without_relus_is_refused():
    with pytest.raises(ValueError, match=r"^model must have ReLUs"):
        guided_backprop(tiny(act=nn.Tanh), batch(), 1)


class Positioned(nn.Module):
    """Without ReLUs on the way from the image to the logits, but for the ReLUs of a bias of its own, as in Swin V2."""

    def __init__(self):
        super().__init__()
        self.layers, self.bias = tiny(act=nn.Tanh), nn.Parameter(torch.randn(3).double())

    def forward(self, x):
        return self.layers(x) + F.relu(self.bias)


def test_relus_that_do_not_see_the_image_do_not_count():
    net = Positioned()
    with pytest.raises(ValueError, match=r"^model must have ReLUs that see the image .* input_gradient, or grad_cam"):
        guided_backprop(net, batch(), 1)
    assert input_gradient(net, batch(), 1).any()


def test_guided_backprop_leaves_no_guide_behind():
    net, x = tiny(), batch()
    before = input_gradient(net, x, 1)
    guided_backprop(net, x, 1)
    assert torch.equal(input_gradient(net, x, 1), before)
    with pytest.raises(RuntimeError, match="boom"):
        guided_backprop(nn.Sequential(net, Boom()), x, 1)
    assert torch.equal(input_gradient(net, x, 1), before)


def slopes(net, x, target, places, step, score="logit"):
    """Central differences of a score of the single image x at (c, i, j)."""
    differences = []
    for place in places:
        bump = torch.zeros_like(x)
        bump[(0, *place)] = step
        with torch.no_grad():
            ends = net(torch.cat([x + bump, x - bump]))
        ends = {"logit": ends, "probability": ends.softmax(1), "log-odds": ends.softmax(1).logit()}[score][:, target]
        differences.append((ends[0] - ends[1]) / (2 * step))
    return torch.stack(differences)


@pytest.mark.parametrize("score", ["logit", "probability", "log-odds"])
def test_input_gradient_against_finite_differences(score):
    net, x = tiny(act=nn.Tanh), batch(1)
    actual = input_gradient(net, x, 2, score=score)[0]
    places = list(np.ndindex(3, 7, 7))
    expected = slopes(net, x, 2, places, 1e-6, score).view(3, 7, 7)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


def test_input_gradient_of_a_trained_network_against_finite_differences():
    net = networks.load("scenes-gap", "cpu").double()
    scene = helpers.data.scenes(1, seed=3)
    x, target = networks.normalize(scene.images.double(), net), int(scene.labels[0, 0])
    x = x + 1e-3 * torch.randn(x.shape, generator=seeded(0))  # on a plain ground max pooling has ties: kinks, no slope
    actual = input_gradient(net, x, target)[0]
    used = actual.nonzero()
    assert len(used) > 1000
    places = [tuple(place) for place in used[torch.randperm(len(used), generator=seeded(0))[:20]].tolist()]
    values = torch.stack([actual[place] for place in places])
    torch.testing.assert_close(values, slopes(net, x, target, places, 1e-6), rtol=1e-3, atol=1e-9)


# integrated gradients and SmoothGrad


@pytest.mark.parametrize("act", [nn.Tanh, nn.Softplus])
@pytest.mark.parametrize("baseline", [0.0, 0.7, batch(seed=3)])
def test_integrated_gradients_add_up_to_the_difference_of_the_scores(act, baseline):
    net, x = tiny(act=act), batch()
    start = torch.as_tensor(baseline, dtype=torch.float64).expand(x.shape)
    sums = integrated_gradients(net, x, [[0, 2], [1, 1]], steps=50, baseline=baseline).sum((2, 3, 4))
    for k, target in enumerate(([0, 1], [2, 1])):
        rows = torch.arange(2)
        with torch.no_grad():
            expected = net(x)[rows, target] - net(start)[rows, target]
        torch.testing.assert_close(sums[:, k], expected, rtol=0, atol=1e-8)


def test_integrated_gradients_fill_their_passes():
    net, seen = tiny(), []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    integrated_gradients(net, batch(3), [[0, 1, 2]] * 3, steps=5, batch_size=4)  # 15 images, however many classes
    assert seen == [4, 4, 4, 3]


def test_smooth_gradient_without_noise_is_the_gradient():
    net, x = tiny(), batch()
    torch.testing.assert_close(smooth_gradient(net, x, [0, 2], samples=4, noise=0), input_gradient(net, x, [0, 2]))


def test_smooth_gradient_follows_its_seed_and_nothing_else():
    net, x = tiny(act=nn.Tanh), batch()
    actual = smooth_gradient(net, x, 1, samples=5, seed=4)
    before = torch.random.get_rng_state()
    assert torch.equal(smooth_gradient(net, x, 1, samples=5, seed=4), actual)
    assert torch.equal(torch.random.get_rng_state(), before)
    for seed in (0, 3, 5):
        assert not torch.allclose(smooth_gradient(net, x, 1, samples=5, seed=seed), actual)


def squares_noise(x, **options):
    """The mean noise that SmoothGrad adds: the gradient of a sum of squares is 2 (x + noise)."""
    return smooth_gradient(Sum(torch.square), x, 0, **options) / 2 - x


def test_the_noise_is_a_share_of_each_images_range():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 40, 40, dtype=torch.float64) * torch.tensor([1.0, 6.0]).view(2, 1, 1, 1) - 1
    ranges = x.amax((1, 2, 3)) - x.amin((1, 2, 3))
    noise = squares_noise(x, samples=1, noise=0.2)
    torch.testing.assert_close(noise.std((1, 2, 3)), 0.2 * ranges, rtol=0.05, atol=0)
    torch.testing.assert_close(squares_noise(x, samples=1, noise=0.4), 2 * noise)
    many = squares_noise(x, samples=16, noise=0.2)  # drawn anew for each sample, each image and each pixel
    torch.testing.assert_close(many.std((1, 2, 3)), 0.2 * ranges / 4, rtol=0.05, atol=0)
    assert abs(torch.corrcoef(noise.flatten(1))[0, 1]) < 0.1
    other = squares_noise(x, samples=16, noise=0.2, seed=1)  # no sample of one seed is among those of the next
    assert abs(torch.corrcoef(torch.stack([many.flatten(), other.flatten()]))[0, 1]) < 0.1


def test_bad_arguments_are_refused():
    arguments = {"model": tiny(), "x": batch(), "target": 1}
    refuses(integrated_gradients, arguments, steps=0, baseline=torch.zeros(4, 7, 7))
    refuses(smooth_gradient, arguments, samples=1.5, noise=-0.1, seed=1.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_over_many_half_precision_gradients_are_rounded_once(dtype):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).to(dtype)
    x, weight = torch.rand(1, 1, 8, 8, generator=seeded(0)).to(dtype), net[1].weight[1].detach().view(1, 1, 8, 8)
    torch.testing.assert_close(smooth_gradient(net, x, 1, samples=300), weight, rtol=0, atol=0)
    torch.testing.assert_close(
        integrated_gradients(net, x, 1, steps=50), weight * x, rtol=torch.finfo(dtype).eps, atol=0
    )
