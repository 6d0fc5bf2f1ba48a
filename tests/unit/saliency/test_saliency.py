import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from support.untouched import Boom, assert_untouched
from torch import nn
from torchvision.ops import box_iou

import helpers.data
from helpers import networks
from helpers.saliency import (
    class_model,
    class_saliency,
    gradient_times_input,
    guided_backprop,
    input_gradient,
    integrated_gradients,
    occlusion,
    region_occlusion,
    saliency_box,
    smooth_gradient,
)


def by_hand(inplace=False):
    """x -> 2x -> ReLU -> mean -> (m, -3m): every number below is worked out by hand."""
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2, False)
    )
    with torch.no_grad():
        net[0].weight.fill_(2)
        net[4].weight.copy_(torch.tensor([[1.0], [-3.0]]))
    return net


X = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]])  # conv: 2 -4 6 8; ReLU: 2 0 6 8; mean 4; logits 4 -12


class Sum(nn.Module):
    """Logits: the sum of a function of the image, and minus that."""

    def __init__(self, function=lambda x: x):
        super().__init__()
        self.function = function

    def forward(self, x):
        score = self.function(x).sum((1, 2, 3))
        return torch.stack([score, -score], 1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tiny(seed=0, act=nn.ReLU, bias=0.0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), act(), nn.Conv2d(4, 5, 3, stride=2), act(), nn.Flatten(), nn.Linear(5 * 2 * 2, 3)
    ).double()
    with torch.no_grad():
        net[5].bias += bias
    return net


def batch(count=2, seed=1):
    return torch.randn(count, 3, 7, 7, generator=seeded(seed), dtype=torch.float64)


def score(net, x, target):
    with torch.no_grad():
        return net(x)[:, target]


REGIONS = torch.tensor([[1, 0, 0, 2, 3], [0, 2, 1, 7, 2], [0, 0, 0, 7, 7]])

METHODS = {
    "input_gradient": input_gradient,
    "input_gradient of the probability": partial(input_gradient, score="probability"),
    "class_saliency": class_saliency,
    "gradient_times_input": gradient_times_input,
    "integrated_gradients": partial(integrated_gradients, steps=3),
    "smooth_gradient": partial(smooth_gradient, samples=3),
    "guided_backprop": guided_backprop,
    "occlusion": partial(occlusion, window=3, stride=2),
    "region_drops": partial(region_occlusion, regions=REGIONS),
}
IN_PASSES = {name: METHODS[name] for name in ("integrated_gradients", "smooth_gradient", "occlusion", "region_drops")}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
each_method_in_passes = pytest.mark.parametrize("method", IN_PASSES.values(), ids=IN_PASSES)


# gradients by hand


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
    wanted = p * (w - (p * w).sum(1, keepdim=True))
    torch.testing.assert_close(input_gradient(net, x, every, score="probability"), wanted)
    torch.testing.assert_close(class_saliency(net, x, 1, score="probability"), wanted[:, 1].abs().amax(1))


@pytest.mark.parametrize("score", ["logit", "probability", "log-odds"])
def test_a_constant_added_to_all_logits_changes_no_gradient(score):
    found = [input_gradient(tiny(bias=bias), batch(), 1, score=score) for bias in (0, 5)]
    torch.testing.assert_close(*found)
    assert found[0].abs().max() > 1e-3


@each_method
def test_k_targets_equal_single_ones(method):
    net, x = tiny(), batch()
    several = method(net, x, torch.tensor([[0, 2], [2, 1]]))
    for k, target in enumerate(([0, 2], [2, 1])):
        torch.testing.assert_close(several[:, k], method(net, x, torch.tensor(target)))
    torch.testing.assert_close(method(net, x, 1), method(net, x, [1, 1]))
    torch.testing.assert_close(method(net, x, [[1], [1]])[:, 0], method(net, x, 1))
    assert not torch.allclose(several[:, 0], several[:, 1])


@each_method
def test_an_image_is_explained_alone_as_in_its_batch(method):
    special = {METHODS["smooth_gradient"]: {"noise": 0.0}, METHODS["region_drops"]: {"regions": REGIONS[1:]}}
    net, x, options = tiny(), batch(3), special.get(method, {})
    alone = method(net, x[:1], 1, **options)
    torch.testing.assert_close(alone, method(net, x, 1, **options)[: len(alone)])


@each_method
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(method, context):
    net, wanted = tiny(), method(tiny(), batch(), 1)
    with context():
        torch.testing.assert_close(method(net, batch(), 1), wanted)


@each_method
def test_results_are_detached_and_the_callers_images_left_alone(method):
    net, x = nn.Sequential(nn.ReLU(inplace=True), *tiny()), batch().requires_grad_()
    found = method(net, x, 1)
    assert not found.requires_grad
    assert x.grad is None
    assert torch.equal(x, batch())


@each_method
def test_dtype_is_kept(method):
    assert method(tiny(), batch(), 1).dtype == torch.float64
    assert method(tiny().float(), batch().float(), 1).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@each_method
def test_a_network_on_the_gpu_gives_the_same(method):
    found = method(tiny().cuda(), batch().cuda(), torch.tensor([0, 2]))
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), method(tiny(), batch(), [0, 2]))


# gradients against others


def oracle(name, net):
    attr = pytest.importorskip("captum.attr")
    method = getattr(attr, name)(net).attribute

    def call(*args, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method(*args, **options)

    return call


def test_input_gradient_is_captums_saliency():
    net, x, target = tiny(), batch(), torch.tensor([2, 0])
    assert torch.equal(input_gradient(net, x, target), oracle("Saliency", net)(x, target=target, abs=False))


@pytest.mark.parametrize("baseline", [0.0, batch(seed=5), torch.tensor([0.5, -1.0, 2.0]).double().view(3, 1, 1)])
def test_integrated_gradients_are_captums(baseline):
    net, x, target = tiny(), batch(), torch.tensor([2, 0])
    captums = baseline.expand(x.shape).clone() if isinstance(baseline, torch.Tensor) else baseline
    wanted = oracle("IntegratedGradients", net)(x, captums, target=target, n_steps=20)
    torch.testing.assert_close(
        integrated_gradients(net, x, target, steps=20, baseline=baseline), wanted, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backprop_is_captums(inplace):
    net, x, target = tiny(act=partial(nn.ReLU, inplace)), batch(), torch.tensor([2, 0])
    found = guided_backprop(net, x, target)
    assert torch.equal(found, oracle("GuidedBackprop", tiny())(x, target=target))
    assert not torch.allclose(found, input_gradient(net, x, target))


def test_guided_backprop_of_a_resnet_is_captums():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    x, target = torch.randn(2, 3, 48, 48), torch.tensor([3, 7])
    found = guided_backprop(net, x, target)
    torch.testing.assert_close(found, oracle("GuidedBackprop", net)(x, target=target), rtol=1e-6, atol=0)


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
    wanted = guided_backprop(tiny(), batch(), 1)
    torch.testing.assert_close(guided_backprop(Functional(first, second), batch(), 1), wanted, rtol=0, atol=0)


def test_guided_backprop_of_a_network_without_relus_is_refused():
    with pytest.raises(ValueError, match=r"^model must have ReLUs"):
        guided_backprop(tiny(act=nn.Tanh), batch(), 1)


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
    found = []
    for place in places:
        bump = torch.zeros_like(x)
        bump[(0, *place)] = step
        with torch.no_grad():
            ends = net(torch.cat([x + bump, x - bump]))
        ends = {"logit": ends, "probability": ends.softmax(1), "log-odds": ends.softmax(1).logit()}[score][:, target]
        found.append((ends[0] - ends[1]) / (2 * step))
    return torch.stack(found)


@pytest.mark.parametrize("score", ["logit", "probability", "log-odds"])
def test_input_gradient_against_finite_differences(score):
    net, x = tiny(act=nn.Tanh), batch(1)
    found = input_gradient(net, x, 2, score=score)[0]
    places = list(np.ndindex(3, 7, 7))
    wanted = slopes(net, x, 2, places, 1e-6, score).view(3, 7, 7)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_input_gradient_of_a_trained_network_against_finite_differences():
    net = networks.load("scenes-gap", "cpu").double()
    scene = helpers.data.scenes(1, seed=3)
    x, target = networks.normalize(scene.images.double(), net), int(scene.labels[0, 0])
    x = x + 1e-3 * torch.randn(x.shape, generator=seeded(0))  # on a plain ground max pooling has ties: kinks, no slope
    found = input_gradient(net, x, target)[0]
    used = found.nonzero()
    assert len(used) > 1000
    places = [tuple(place) for place in used[torch.randperm(len(used), generator=seeded(0))[:20]].tolist()]
    values = torch.stack([found[place] for place in places])
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
            wanted = net(x)[rows, target] - net(start)[rows, target]
        torch.testing.assert_close(sums[:, k], wanted, rtol=0, atol=1e-8)


@each_method_in_passes
def test_the_size_of_a_pass_does_not_change_the_result(method):
    net, x = tiny(), batch(3)
    wanted = method(net, x, [[0, 1]] * 3)
    for chunk in (1, 2, 4, 5, 1000):
        torch.testing.assert_close(method(net, x, [[0, 1]] * 3, chunk=chunk), wanted)


@each_method_in_passes
@pytest.mark.parametrize(("count", "chunk", "most"), [(3, 1, 1), (3, 2, 2), (3, 5, 5), (3, None, 8), (11, None, 11)])
def test_no_pass_sees_more_images_than_asked_for(method, count, chunk, most):
    net, seen = tiny(), []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    method(net, batch(count), 1, chunk=chunk)
    assert max(seen) <= most


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
    found = smooth_gradient(net, x, 1, samples=5, seed=4)
    before = torch.random.get_rng_state()
    assert torch.equal(smooth_gradient(net, x, 1, samples=5, seed=4), found)
    assert torch.equal(torch.random.get_rng_state(), before)
    for seed in (0, 3, 5):
        assert not torch.allclose(smooth_gradient(net, x, 1, samples=5, seed=seed), found)


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


# occlusion


def test_region_drops_by_hand():
    regions = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 1, 2], [0, 1, 0, 2, 2], [0, 0, 0, 2, 2]])
    assert region_occlusion(by_hand(), X, 0, regions).tolist() == [0.5, 0, 3.5, 4]
    assert region_occlusion(by_hand(), X, [[1, 0]], regions).tolist() == [[-1.5, 0.5], [0, 0], [-10.5, 3.5], [-12, 4]]
    # covered by 1, which the network makes 2: ReLU 2 2 6 8, 2 0 2 2, 2 2 2 2
    assert region_occlusion(by_hand(), X, 0, regions, fill=1).tolist() == [0, -0.5, 2.5, 2]


def test_each_region_is_taken_from_its_own_image_with_its_own_target():
    x = torch.stack([X[0], 10 * X[0]])
    regions = torch.tensor([[1, 0, 0, 1, 1], [0, 1, 1, 2, 2], [1, 1, 1, 2, 2], [0, 0, 0, 1, 1]])
    assert region_occlusion(by_hand(), x, torch.tensor([0, 1]), regions).tolist() == [-15, 2, -60, 0.5]
    fill = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 2.0)])
    assert region_occlusion(by_hand(), x, 0, regions, fill=fill).tolist() == [4, 2, 19, 0.5]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_regions_of_any_integers(dtype):
    net, x = tiny(), batch()
    torch.testing.assert_close(region_occlusion(net, x, 1, REGIONS.to(dtype)), region_occlusion(net, x, 1, REGIONS))


def test_occlusion_by_hand():
    x = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 1, 3)
    assert occlusion(Sum(), x, 0, window=(1, 2), stride=1).tolist() == [[[3, 4.5, 6]]]
    assert occlusion(Sum(), x, 0, window=(1, 2), stride=(1, 2)).tolist() == [[[3, 3, 4]]]  # the last one is cut
    assert occlusion(Sum(), x, [[0, 1]], window=1, stride=1).tolist() == [[[[1, 2, 4]], [[-1, -2, -4]]]]
    assert occlusion(Sum(), x, 1, window=(1, 2), stride=(1, 2), fill=1.0).tolist() == [[[-1, -1, -3]]]


@pytest.mark.parametrize("fill", [0.0, 0.5, batch(seed=9)])
def test_a_window_as_large_as_the_image_takes_the_whole_score(fill):
    net, x = tiny(), batch()
    filled = torch.as_tensor(fill, dtype=torch.float64).expand(x.shape)
    wanted = score(net, x, 2) - score(net, filled, 2)
    found = occlusion(net, x, 2, window=7, stride=7, fill=fill)
    torch.testing.assert_close(found, wanted[:, None, None].expand(2, 7, 7))


@pytest.mark.parametrize(
    ("window", "stride"),
    [(3, 1), (3, 2), (2, 2), (4, 3), (5, 4), ((2, 3), (2, 2)), ((3, 2), 2), ((4, 5), (3, 1)), ((7, 1), (4, 1))],
)
@pytest.mark.parametrize("wide", [7, 6])
def test_occlusion_is_captums(window, stride, wide):
    x, target = batch()[..., :wide], torch.tensor([2, 0])
    net = nn.Sequential(*tiny()[:4], nn.AdaptiveAvgPool2d(2), *tiny()[4:])
    pair = [(n, n) if isinstance(n, int) else n for n in (window, stride)]
    wanted = oracle("Occlusion", net)(x, (3, *pair[0]), (3, *pair[1]), baselines=0.3, target=target)
    found = occlusion(net, x, target, window=window, stride=stride, fill=0.3)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found[:, None].expand(-1, 3, -1, -1), wanted.double(), rtol=0, atol=1e-5 * scale)


# class models


def linear(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 4, 3)).to(dtype)


def weights(net):
    return net[1].weight.detach().view(-1, 2, 3, 4)


def test_a_class_models_first_steps_by_hand():
    net = linear()
    w, b = weights(net)[1], net[1].bias.detach()[1]
    found = class_model(net, 1, (2, 3, 4), l2=0.5, lr=0.25, steps=2)
    second = 0.25 * w + 0.25 * (w - 0.25 * w)  # x + lr (w - 2 l2 x) with 2 l2 = 1
    torch.testing.assert_close(found.image, second)
    square = w.square().sum()
    wanted = [b, b + 0.25 * square - 0.5 * 0.0625 * square, b + (w * second).sum() - 0.5 * second.square().sum()]
    torch.testing.assert_close(found.objective, torch.stack(wanted))


def test_a_linear_networks_class_model_is_its_weights_over_twice_the_penalty():
    net = linear()
    found = class_model(net, [0, 1, 2], (2, 3, 4), l2=0.1, lr=1.0, steps=200)
    torch.testing.assert_close(found.image, weights(net) / 0.2)
    best = weights(net).square().sum((1, 2, 3)) / 0.4 + net[1].bias.detach()
    torch.testing.assert_close(found.objective[:, -1], best)
    at_once = class_model(net, 2, (2, 3, 4), l2=0.1, lr=5.0, steps=1)  # lr = 1 / (2 l2)
    torch.testing.assert_close(at_once.image, weights(net)[2] / 0.2)
    there = class_model(net, 2, (2, 3, 4), l2=0.1, steps=3, start=weights(net)[2] / 0.2)
    torch.testing.assert_close(there.image, weights(net)[2] / 0.2)


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_the_objective_rises_from_the_score_of_the_zero_image(act):
    net = tiny(act=act)
    found = class_model(net, [2, 0], (3, 7, 7), lr=0.05, steps=30)
    assert found.image.shape == (2, 3, 7, 7)
    assert found.objective.shape == (2, 31)
    zero = net(torch.zeros(1, 3, 7, 7, dtype=torch.float64))[0, [2, 0]].detach()
    torch.testing.assert_close(found.objective[:, 0], zero)
    assert (found.objective.diff(dim=1) > 0).all()
    last = torch.stack([score(net, found.image, 2)[0], score(net, found.image, 0)[1]])
    torch.testing.assert_close(found.objective[:, -1], last - 0.01 * found.image.square().sum((1, 2, 3)))


def test_class_models_of_several_classes_equal_single_ones():
    net = tiny()
    several = class_model(net, torch.tensor([2, 0, 2]), (3, 7, 7), steps=5)
    for k, target in enumerate([2, 0, 2]):
        one = class_model(net, target, (3, 7, 7), steps=5)
        assert one.image.shape == (3, 7, 7)
        assert one.objective.shape == (6,)
        torch.testing.assert_close(several.image[k], one.image)
        torch.testing.assert_close(several.objective[k], one.objective)
    assert class_model(net, [1], (3, 7, 7), steps=1).image.shape == (1, 3, 7, 7)
    assert class_model(net, torch.tensor(1), (3, 7, 7), steps=1).image.shape == (3, 7, 7)


@pytest.mark.parametrize("start", [0.5, batch(), batch()[0]])
def test_a_class_model_begins_where_it_is_told_to(start):
    net, given = tiny(), torch.as_tensor(start).clone()
    full = given.to(torch.float64).expand(2, 3, 7, 7)
    found = class_model(net, [1, 0], (3, 7, 7), steps=3, start=start)
    wanted = net(full).detach()[[0, 1], [1, 0]] - 0.01 * full.square().sum((1, 2, 3))
    torch.testing.assert_close(found.objective[:, 0], wanted)
    assert torch.equal(torch.as_tensor(start), given)


def test_a_class_model_has_the_networks_dtype_and_no_graph():
    for dtype in (torch.float32, torch.float64):
        found = class_model(linear(dtype), 0, (2, 3, 4), steps=2)
        assert {found.image.dtype, found.objective.dtype} == {dtype}
        assert not found.image.requires_grad
        assert not found.objective.requires_grad
    started = class_model(linear(), 0, (2, 3, 4), steps=2, start=torch.ones(2, 3, 4).requires_grad_())
    assert not started.image.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_class_model_in_any_gradient_mode(context):
    net = tiny()
    wanted = class_model(net, [0, 1], (3, 7, 7), steps=3).image
    with context():
        found = class_model(net, [0, 1], (3, 7, 7), steps=3).image
    torch.testing.assert_close(found, wanted)


def test_an_ascent_that_diverges_is_refused():
    with pytest.raises(ValueError, match=r"objective is no longer finite after \d+ steps: lower lr, got 10"):
        class_model(linear(torch.float32), 0, (2, 3, 4), l2=1.0, lr=10.0)


# boxes


def blobs(side=10, **values):
    """A map that is zero but in rectangles: y0_x0_y1_x1 = value."""
    found = torch.zeros(1, side, side)
    for name, value in values.items():
        y0, x0, y1, x1 = map(int, name.strip("b").split("_"))
        found[0, y0:y1, x0:x1] = value
    return found


def test_the_largest_region_gets_the_box_even_if_another_is_stronger():
    maps = blobs(b1_2_3_5=1, b7_7_8_9=2)
    assert saliency_box(maps).tolist() == [[2, 1, 5, 3]]  # x0, y0, x1, y1; the last two exclusive
    assert saliency_box(maps.mT).tolist() == [[1, 2, 3, 5]]


def test_diagonal_neighbours_are_one_region():
    assert saliency_box(blobs(b0_0_2_2=1, b2_2_4_4=1, b7_5_8_10=1)).tolist() == [[0, 0, 4, 4]]


def test_regions_of_different_maps_are_kept_apart():
    maps = torch.cat([blobs(b8_0_10_3=1, b0_5_1_9=1), blobs(b0_0_2_4=1, b9_0_10_2=1)])
    assert saliency_box(maps).tolist() == [[0, 8, 3, 10], [0, 0, 4, 2]]
    stacked = torch.stack([maps, maps.mT, maps.flip(2)], 1)  # (2, 3, 10, 10)
    found = saliency_box(stacked)
    assert found.shape == (2, 3, 4)
    for b in range(2):
        assert torch.equal(found[b], saliency_box(stacked[b]))


def test_the_upper_quantile_says_what_is_the_object():
    ramp = torch.arange(100.0).view(1, 10, 10)
    assert saliency_box(ramp).tolist() == [[5, 9, 10, 10]]  # the last five pixels
    assert saliency_box(ramp, foreground=0.5).tolist() == [[0, 5, 10, 10]]
    assert saliency_box(-ramp, foreground=0.8, background=0.8).tolist() == [[0, 0, 10, 2]]


def test_an_object_smaller_than_the_quantiles_share_is_still_boxed():
    assert saliency_box(blobs(b4_3_6_5=1)).tolist() == [[3, 4, 5, 6]]  # 4 of 100 pixels; the quantile is 0


def test_a_constant_map_gets_the_whole_image():
    assert saliency_box(torch.zeros(2, 5, 9)).tolist() == [[0, 0, 9, 5]] * 2
    assert saliency_box(torch.full((1, 2, 5, 9), 3.0)).tolist() == [[[0, 0, 9, 5]] * 2]


def test_a_constant_map_gets_the_whole_image_whatever_is_on_it():
    lamp = blobs(40, b5_5_9_9=1)[None].expand(1, 3, 40, 40)
    for picture in (square()[0], lamp, 1 - lamp):
        assert saliency_box(torch.ones(1, 40, 40), picture).tolist() == [[0, 0, 40, 40]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_boxes_have_the_dtype_of_the_maps(dtype):
    found = saliency_box(blobs(b1_2_3_5=1).to(dtype))
    assert found.dtype == dtype
    assert found.tolist() == [[2, 1, 5, 3]]


def test_boxes_of_a_map_with_a_graph():
    maps = blobs(b1_2_3_5=1).requires_grad_()
    assert saliency_box(maps).tolist() == [[2, 1, 5, 3]]


def square(y=10, x=8, side=16, size=40, seed=0):
    """A red square on a grey ground with noise, and a map that is high only about the square's middle."""
    image = 0.4 + 0.05 * torch.randn(3, size, size, generator=seeded(seed))
    image[:, y : y + side, x : x + side] += torch.tensor([0.4, -0.2, -0.2])[:, None, None]
    ways = torch.arange(size) + 0.5
    apart = (ways - y - side / 2)[:, None].square() + (ways - x - side / 2).square()
    return image[None].clamp(0, 1), (-apart / 200).exp()[None]


SQUARE = torch.tensor([[8.0, 10.0, 24.0, 26.0]])


def test_colours_find_the_object_at_which_the_map_only_hints():
    picture, hint = square()
    with_images, without = (float(box_iou(saliency_box(hint, given), SQUARE)) for given in (picture, None))
    assert without < 0.5
    assert with_images > 0.85


@pytest.mark.parametrize("change", [lambda x: 255 * x, lambda x: 2 * x - 1, lambda x: x / 1000, lambda x: x.double()])
def test_the_units_of_the_images_do_not_matter(change):
    picture, hint = square()
    assert torch.equal(saliency_box(hint, change(picture)), saliency_box(hint, picture))


def test_images_of_bytes_give_the_same_box():
    picture, hint = square()
    coarse = (picture * 255).round()
    assert torch.equal(saliency_box(hint, coarse.byte()), saliency_box(hint, coarse))


def test_each_map_is_cut_with_its_own_image():
    places = [(2, 20), (20, 4)]
    pictures, hints = (torch.cat(parts) for parts in zip(*(square(*place) for place in places), strict=True))
    maps = torch.stack([hints, hints.roll(3, -1)], 1)  # (2, 2, 40, 40)
    found = saliency_box(maps, pictures)
    assert found.shape == (2, 2, 4)
    for b, (y, x) in enumerate(places):
        wanted = torch.tensor([[x, y, x + 16.0, y + 16.0]])
        for k in range(2):
            assert torch.equal(found[b, k], saliency_box(maps[b : b + 1, k], pictures[b : b + 1])[0])
            assert box_iou(found[b, k][None], wanted) > 0.8


def test_what_the_map_takes_for_background_stays_background():
    picture, hint = square(y=4, x=4, side=10)
    picture[..., 18:38, 18:38] = picture[..., 4:14, 4:14].repeat(1, 1, 2, 2)  # more of the same red
    small, large = torch.tensor([[4.0, 4.0, 14.0, 14.0]]), torch.tensor([[18.0, 18.0, 38.0, 38.0]])
    assert box_iou(saliency_box(hint, picture, background=0.01), large) > 0.8
    hint[:, 18:38, 18:38] = -1
    assert box_iou(saliency_box(hint, picture), small) > 0.6


@pytest.mark.parametrize("units", [1, 1e-3, 255])
def test_an_object_may_differ_from_its_ground_in_scatter_alone(units):
    _, hint = square()
    picture = torch.randn(1, 3, 40, 40, generator=seeded(0)) * 0.02
    picture[..., 10:26, 8:24] *= 15
    assert box_iou(saliency_box(hint, units * (0.5 + picture)), SQUARE) > 0.7


@pytest.mark.parametrize("grey", [0.0, 0.3])
def test_where_colours_tell_nothing_the_seeds_decide(grey):
    maps = blobs(b1_2_3_5=1, b7_7_8_9=2)
    assert saliency_box(maps, torch.full((1, 3, 10, 10), grey)).tolist() == [[2, 1, 5, 3]]


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 3), (4, 4)])
def test_images_of_a_few_pixels(size):
    torch.manual_seed(0)
    x0, y0, x1, y1 = saliency_box(torch.rand(1, *size), torch.rand(1, 3, *size))[0].tolist()
    assert 0 <= x0 < x1 <= size[1]
    assert 0 <= y0 < y1 <= size[0]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.rand(5, 5), r"got \(5, 5\)"),
        (torch.rand(1, 1, 1, 5, 5), r"got \(1, 1, 1, 5, 5\)"),
        (torch.rand(0, 5, 5), r"got \(0, 5, 5\)"),
        (torch.rand(1, 5, 0), r"got \(1, 5, 0\)"),
        (torch.ones(1, 5, 5, dtype=torch.long), "got torch.int64"),
        (torch.full((1, 5, 5), float("nan")), "finite"),
        (torch.full((1, 5, 5), float("inf")), "finite"),
        (np.ones((1, 5, 5)), "got ndarray"),
        (None, "got NoneType"),
    ],
)
def test_bad_maps_are_refused(maps, message):
    with pytest.raises(ValueError, match=f"^maps must.*{message}"):
        saliency_box(maps)


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 3, 5, 6),
        torch.rand(1, 3, 6, 5),
        torch.rand(3, 3, 5, 6),
        torch.rand(1, 5, 6),
        torch.rand(1, 0, 5, 6),
        torch.full((1, 3, 5, 6), float("nan")),
        torch.full((1, 3, 5, 6), float("inf")),
        np.ones((1, 3, 5, 6)),
        [0.5],
    ],
)
def test_bad_images_of_a_box_are_refused(images):
    with pytest.raises(ValueError, match=r"^images must"):
        saliency_box(torch.rand(1, 2, 5, 6), images)


@pytest.mark.parametrize(
    "quantiles",
    [
        {"foreground": 1.0},
        {"foreground": 1.5},
        {"foreground": float("nan")},
        {"background": 0.0},
        {"background": -0.1},
        {"background": float("nan")},
        {"foreground": 0.2, "background": 0.3},
        {"foreground": None},
        {"background": "low"},
    ],
)
def test_bad_quantiles_are_refused(quantiles):
    with pytest.raises(ValueError, match="quantiles must keep 0 < background <= foreground < 1"):
        saliency_box(torch.rand(1, 5, 5), **quantiles)


# what is refused


@each_method
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (batch()[0], r"got \(3, 7, 7\); one image is x\[None\]"),
        (batch()[None], r"got \(1, 2, 3, 7, 7\)"),
        (batch()[:0], r"not be empty, got shape \(0, 3, 7, 7\)"),
        (batch().long(), "floating point, got torch.int64"),
        (batch() * float("nan"), "finite"),
        (batch() / 0, "finite"),
        (batch().float(), "torch.float64, as the network's weights are, got torch.float32"),
        (batch()[:, :1], r"3 channels, .*got \(2, 1, 7, 7\)|got \(\d+, 1, 7, 7\)"),
        (batch().numpy(), "got ndarray"),
        (None, "got NoneType"),
    ],
)
def test_bad_images_are_refused(method, x, message):
    net = tiny()
    with pytest.raises(ValueError, match=f"^x must.*({message})"), assert_untouched(net):
        method(net, x, 1)


@each_method
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, r"0 .. 2 .*got 3"),
        (-1, r"0 .. 2 .*got -1"),
        ([0, 7], "got 7"),
        ([[0, 1], [-2, 1]], "got -2"),
        ([1], r"B = 2 images, got shape \(1,\)"),
        ([0, 1, 2], r"B = 2 images, got shape \(3,\)"),
        ([[0, 1]], r"got shape \(1, 2\)"),
        ([], r"got shape \(0,\)"),
        (1.0, "integers .*float32"),
        (torch.ones(2), "integers .*float32"),
        (True, "integers .*bool"),
        ("cat", "got 'cat'"),
        (None, "got None"),
    ],
)
def test_bad_targets_are_refused(method, target, message):
    net = tiny()
    with pytest.raises(ValueError, match=f"^target must.*{message}"), assert_untouched(net):
        method(net, batch(), target)


class First(nn.Module):
    def forward(self, x):
        return x.relu()[:1].flatten(1)


@each_method
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (tiny()[:2], r"got \(\d, 4, 5, 5\)"),
        (First(), r"got \(1, 147\)"),
        (nn.Sequential(*tiny(), nn.Flatten(0)), r"got \(\d+,\)"),
        (nn.Sequential(nn.ReLU(), nn.AdaptiveMaxPool2d(1, return_indices=True)), "got tuple"),
    ],
)
def test_a_network_without_logits_is_refused(method, net, message):
    with pytest.raises(ValueError, match=rf"^model must return logits \(B, classes\).*{message}"):
        method(net, batch(), 0)


NO_COUNTS = [0, -1, 1.5, True, "3", float("nan")]
NO_IMAGES = [float("nan"), float("inf"), torch.zeros(4, 7, 7), torch.zeros(1, 2, 3, 7, 7), batch() * float("nan"), "x"]
NO_IMAGES += [None, batch(3)]


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        *((integrated_gradients, "steps", value) for value in [*NO_COUNTS, None]),
        *((smooth_gradient, "samples", value) for value in [*NO_COUNTS, None]),
        *((method, "chunk", value) for method in IN_PASSES.values() for value in NO_COUNTS),
        *((integrated_gradients, "baseline", value) for value in NO_IMAGES),
        *((METHODS[method], "fill", value) for method in ("occlusion", "region_drops") for value in NO_IMAGES),
        *((smooth_gradient, "noise", value) for value in (-0.1, float("nan"), float("inf"), None, "loud")),
        *((smooth_gradient, "seed", value) for value in (1.5, None, "s")),
        *((occlusion, "window", value) for value in [*NO_COUNTS, None, (3,), (3, 3, 3), (3, 0), (2.0, 2), 8, (7, 8)]),
        *((METHODS["occlusion"], "stride", value) for value in [*NO_COUNTS, None, (1,), (1, 0), (1, 1.0), 4, (3, 4)]),
    ],
)
def test_bad_arguments_are_refused(method, name, value):
    net = tiny()
    with pytest.raises(ValueError, match=f"^{name} must"), assert_untouched(net):
        method(net, batch(), 1, **{name: value})


OUTSIDE = [[2, 0, 0, 1, 1], [-1, 0, 0, 1, 1], [0, -1, 0, 1, 1], [0, 0, -1, 1, 1], [0, 0, 0, 8, 1], [0, 0, 0, 1, 7]]
EMPTY = [[0, 2, 0, 2, 1], [0, 0, 2, 1, 2], [0, 3, 0, 2, 1], [0, 0, 3, 1, 2]]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([[0, 0, 0, 1, 1]], "got list"),
        (torch.tensor([0, 0, 0, 1, 1]), r"got \(5,\)"),
        (torch.zeros(0, 5, dtype=torch.long), r"got \(0, 5\)"),
        (torch.tensor([[0, 0, 1, 1]]), r"got \(1, 4\)"),
        (torch.tensor([[0, 0, 0, 1.0, 1]]), "integers, got torch.float32"),
        (torch.tensor([[0, 0, 0, 1, 1]]) > 0, "integers, got torch.bool"),
        *((torch.tensor([[0, 0, 0, 1, 1], row]), rf"2 images of 7 x 6 .*got row \{row}") for row in OUTSIDE + EMPTY),
    ],
)
def test_bad_regions_are_refused(regions, message):
    with pytest.raises(ValueError, match=f"^regions must.*{message}"):
        region_occlusion(Sum(), batch()[..., :6], 1, regions)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, r"0 .. 2 .*got 3"),
        (-1, "got -1"),
        ([0, 7], "got 7"),
        ([], r"got shape \(0,\)"),
        ([[0, 1]], r"got shape \(1, 2\)"),
        (1.0, "float32"),
        (True, "bool"),
        ("cat", "got 'cat'"),
        (None, "got None"),
        ([[0, 1], [2]], "got"),
    ],
)
def test_bad_targets_of_a_class_model_are_refused(target, message):
    with pytest.raises(ValueError, match=f"^target must.*{message}"):
        class_model(tiny(), target, (3, 7, 7))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("shape", value) for value in ((3, 7), (3, 7, 7, 1), (3, 7, 0), (3, 7.0, 7), (True, 7, 7), 7, None, "abc")),
        *(("steps", value) for value in [*NO_COUNTS, None]),
        *(("l2", value) for value in (-0.1, float("nan"), float("inf"), None, "much")),
        *(("lr", value) for value in (0, -1, float("nan"), float("inf"), None, "fast")),
        *(("start", value) for value in NO_IMAGES),
    ],
)
def test_bad_arguments_of_a_class_model_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        class_model(tiny(), 1, **{"shape": (3, 7, 7), name: value})


def test_class_models_of_what_is_no_classifier_are_refused():
    with pytest.raises(ValueError, match=r"^model must return logits \(B, classes\)"):
        class_model(tiny()[:2], 0, (3, 7, 7))
    with pytest.raises(ValueError, match="3 channels"):
        class_model(tiny(), 0, (1, 7, 7))


# the network is left as it was found


def mixed():
    """Mixed modes, a frozen parameter, a filled .grad, an in-place ReLU, and hooks of the user."""
    net = nn.Sequential(*tiny(act=partial(nn.ReLU, inplace=True)), nn.Dropout(0.5), nn.BatchNorm1d(3).double()).train()
    net[6].eval()
    net[0].bias.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    net[3].register_forward_hook(lambda *_: None)
    net[0].register_forward_pre_hook(lambda *_: None)
    return net


def calling(method):
    return lambda net: method(net, batch(), [[0, 1]] * 2)


CALLS = {name: calling(method) for name, method in METHODS.items()}
CALLS["class_model"] = lambda net: class_model(net, [0, 1], (3, 7, 7), steps=2)
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
def test_the_network_is_untouched(call):
    net = mixed()
    with assert_untouched(net):
        call(net)


@each_call
def test_the_network_is_untouched_when_its_forward_raises(call):
    net = nn.Sequential(*mixed(), Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        call(net)


@each_call
def test_the_network_is_looked_at_in_evaluation_mode(call):
    found, again, frozen = call(mixed()), call(mixed()), call(mixed().eval())
    for one in (again, frozen):
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, one)), strict=True):
            assert torch.equal(a, b)
