"""The error of a network without each filter, against slow loops, captum and numbers worked out by hand."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from support.ablation_oracle import (
    LABELS,
    Around,
    X,
    Y,
    by_hand,
    close,
    counted,
    images,
    losses,
    nll,
    rand,
    silenced,
    slow,
    tiny,
)
from support.refuses import refuses
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers import data, networks
from helpers.networks._architectures import LeNet
from helpers.similarnet import (
    AblationErrors,
    ablation_errors,
    heatmap,
    importance_weights,
    mean_excitation_weights,
    per_sample_weights,
)

each_error = pytest.mark.parametrize("error", ["rate", "nll"])


@pytest.fixture(scope="module")
def lenet():
    return networks.load("lenet-mnist", "cpu")


@pytest.fixture(scope="module")
def drawn():
    scenes = data.digits(60, seed=3, rotate=25.0, shear=0.5)
    return scenes.images, scenes.labels


# by hand


def test_ablation_errors_by_hand():
    # Without f0 the first image has logits (0, 0.5) and is taken for a 1; without f1 the second one keeps (0, 0.5).
    actual = ablation_errors(by_hand(), X, Y, layer="1")
    assert isinstance(actual, AblationErrors)
    assert actual.baseline.tolist() == 0
    assert actual.errors.tolist() == [0.5, 0]
    actual = ablation_errors(by_hand(), X, Y, layer="1", error="nll")
    close(actual.baseline, torch.tensor((nll(1.5) + nll(3.5)) / 2, dtype=torch.float64), 1e-7)
    expected = [(nll(-0.5) + nll(3.5)) / 2, (nll(1.5) + nll(0.5)) / 2]
    close(actual.errors, torch.tensor(expected, dtype=torch.float64), 1e-7)


def test_ablation_errors_class_by_class_by_hand():
    # three images: the first one twice, the second time as a 1, which is wrong until f0 is gone
    x, y = X[[0, 1, 0]], [0, 1, 1]
    actual = ablation_errors(by_hand(), x, y, layer="1", per_class=True)
    assert actual.baseline.tolist() == [0, 0.5]
    assert actual.errors.tolist() == [[1, 0], [0, 0.5]]  # (F, K)
    actual = ablation_errors(by_hand(), x, y, layer="1", error="nll", per_class=True)
    expected = [[nll(-0.5), (nll(3.5) + nll(0.5)) / 2], [nll(1.5), (nll(0.5) + nll(-1.5)) / 2]]
    close(actual.errors, torch.tensor(expected, dtype=torch.float64), 1e-7)
    close(actual.baseline, torch.tensor([nll(1.5), (nll(3.5) + nll(-1.5)) / 2], dtype=torch.float64), 1e-7)


# errors without each filter


@each_error
@pytest.mark.parametrize("layer", ["conv1", "relu1", "pool2", "fc1", "fc3"])
def test_errors_of_a_trained_lenet_equal_a_slow_loop(lenet, drawn, layer, error):
    x, y = drawn
    actual = ablation_errors(lenet, x, y, layer=layer, error=error)
    whole, without = slow(lenet, layer, x, y, error)
    close(actual.baseline, whole.mean(), 1e-6)
    close(actual.errors, without.mean(1), 1e-6)
    assert without.mean(1).std() > 1e-3
    actual = ablation_errors(lenet, x, y, layer=layer, error=error, per_class=True)
    for k in range(10):
        close(actual.baseline[k], whole[y == k].mean(), 1e-6)
        close(actual.errors[:, k], without[:, y == k].mean(1), 1e-6)


@each_error
@pytest.mark.parametrize("layer", ["conv1", "conv2", "pool2", "fc2"])
def test_errors_of_a_random_lenet_equal_a_slow_loop(layer, error):
    torch.manual_seed(1)
    net = LeNet(classes=4, channels=3, size=16, pool=nn.AvgPool2d).double()
    x = 3 * rand(12, 3, 16, 16)
    y = torch.arange(12) % 4
    actual, (whole, without) = ablation_errors(net, x, y, layer=layer, error=error), slow(net, layer, x, y, error)
    close(actual.baseline, whole.mean())
    close(actual.errors, without.mean(1))


@each_error
@pytest.mark.parametrize("join", ["add", "cat"])
def test_errors_with_a_shortcut_equal_a_slow_loop(join, error):
    net, x, y = Around(join), images(9), torch.arange(9) % 3
    with torch.no_grad():
        net.end.bias -= net(x).mean(0)  # so that some answers change
    whole, without = slow(net, "inner", x, y, error)
    for batch_size in (100, 4):  # 4 + 4 + 1: a batch of one
        actual = ablation_errors(net, x, y, layer="inner", error=error, batch_size=batch_size)
        close(actual.baseline, whole.mean())
        close(actual.errors, without.mean(1))
    assert without.mean(1).std() > 0


def captum_drops(net, module, x, y, error, filters):
    attr = pytest.importorskip("captum.attr")
    captum = attr.LayerFeatureAblation(lambda x: losses(net(x), y, error), module)
    drops = captum.attribute(x, layer_mask=torch.arange(filters).view(1, -1, 1, 1))[:, :, 0, 0].double().mean(0)
    assert drops.abs().max() > 1e-4
    return drops


def resnet(side):
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=5).eval()
    return net, torch.randn(2, 3, side, side), torch.tensor([3, 1])


@each_error
def test_errors_equal_captums_for_lenet(lenet, drawn, error):
    x, y = drawn[0][:20], drawn[1][:20]
    actual = ablation_errors(lenet, x, y, layer="pool2", error=error)
    close(actual.baseline - actual.errors, captum_drops(lenet, lenet.pool2, x, y, error, 16), 1e-6)


# inside a block a shortcut leads around conv1, and an in-place ReLU follows bn1
@pytest.mark.parametrize(
    ("layer", "side", "filters"), [pytest.param("layer4", 33, 512, marks=pytest.mark.slow), ("layer1.0.bn1", 24, 64)]
)
def test_errors_of_a_resnet_equal_captums(layer, side, filters):
    net, x, y = resnet(side)
    actual = ablation_errors(net, x, y, layer=layer, error="nll")
    expected = captum_drops(net, net.get_submodule(layer), x, y, "nll", filters)
    close(actual.baseline - actual.errors, expected, 1e-6)


def test_errors_of_a_resnets_last_stage_equal_a_slow_loop():
    net, x, y = resnet(33)  # maps of 2 x 2
    actual = ablation_errors(net, x, y, layer="layer4", error="nll")
    assert actual.errors.shape == (512,)
    filters = range(0, 512, 47)
    whole, without = silenced(net, x, "layer4", filters=filters)
    close(actual.baseline, losses(whole, y, "nll").mean(), 1e-6)
    for i, scores in zip(filters, without, strict=True):
        close(actual.errors[i], losses(scores, y, "nll").mean(), 1e-6)
    assert (actual.errors - actual.baseline).abs().max() > 1e-3


def test_a_layer_that_is_followed_by_one_in_place():
    for act in (nn.ReLU, nn.SiLU, nn.ELU):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), act(inplace=True), nn.Flatten(), nn.Linear(64, 3))
        actual = ablation_errors(net.double(), images(), LABELS, layer="1", error="nll")
        net[2] = act()
        close(actual.errors, slow(net, "1", images(), LABELS, "nll")[1].mean(1))


def test_the_trained_lenet_on_drawn_digits(lenet, drawn):
    x, y = drawn
    with torch.no_grad():
        right = (lenet(x).argmax(1) == y).double().mean()
    baseline, errors = ablation_errors(lenet, x, y, layer="pool2")
    close(baseline, 1 - right)
    assert baseline < 0.5  # another world than MNIST, and yet
    assert ((errors * 60).round() - errors * 60).abs().max() < 1e-9  # 60 images: whole numbers of them
    assert errors.mean() > baseline
    weights = importance_weights(baseline, errors, sign="code", normalization="none")
    with torch.no_grad():
        maps = lenet.features(x)
    close(heatmap(maps, weights), sum(w * maps[:, i] for i, w in enumerate(weights.float())), 1e-5)
    assert mean_excitation_weights(lenet, x, layer="pool2").shape == (16,)
    assert per_sample_weights(lenet, x, y, layer="pool2").shape == (16,)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("per_class", [False, True])
@each_error
def test_the_size_of_a_pass_does_not_matter(batch, per_class, error):
    net, x = tiny(), images()
    expected = ablation_errors(net, x, LABELS, layer="relu", error=error, per_class=per_class)
    close(ablation_errors(net, x, LABELS, layer="relu", error=error, per_class=per_class, batch_size=batch), expected)


def test_a_class_without_images_is_nan():
    actual = ablation_errors(tiny(), images(), LABELS.clamp_max(1), layer="conv", per_class=True)
    assert actual.baseline.isnan().tolist() == [False, False, True]
    assert actual.errors.isnan().tolist() == [[False, False, True]] * 4


@pytest.mark.parametrize("batch", [10, 25, 100])
def test_the_network_runs_once_up_to_the_layer(batch):
    net, x, y = LeNet(), torch.rand(50, 1, 28, 28), torch.arange(50) % 10
    below, above = counted(net, "conv1"), counted(net, "fc1")
    ablation_errors(net, x, y, layer="pool2", batch_size=batch)
    passes = -(-50 // batch)
    assert sum(below) <= 50 + 3 * passes
    assert max(below) == min(batch, 50)
    # as it is, started again to see whether that works, and without each filter
    assert 50 + 16 * 50 <= sum(above) <= 50 + (50 + passes) + 16 * 50


@each_error
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_dead_filter_changes_nothing(dtype, error):
    torch.manual_seed(0)
    net = LeNet().to(dtype)
    with torch.no_grad():
        net.conv2.weight[5] = 0
        net.conv2.bias[5] = 0
    x, y = torch.rand(20, 1, 28, 28, dtype=dtype), torch.arange(20) % 10
    limit = 0.0 if error == "rate" else 1e-15 if dtype == torch.float64 else 1e-7
    for layer in ("conv2", "relu2", "pool2"):
        baseline, errors = ablation_errors(net, x, y, layer=layer, error=error)
        close(errors[5], baseline, limit)
        assert importance_weights(baseline, errors, normalization="none")[5].abs() < 1e-7


def test_a_dead_filter_changes_nothing_at_all_where_the_numbers_are_whole():
    net, x = by_hand(), X
    with torch.no_grad():
        net[0].weight[1] = 0
    for error in ("rate", "nll"):
        baseline, errors = ablation_errors(net, x, Y, layer="1", error=error)
        assert errors[1] == baseline
        assert errors[0] != baseline


@pytest.mark.parametrize(
    "labels",
    [LABELS.tolist(), LABELS.numpy(), LABELS.to(torch.uint8), LABELS.int(), tuple(LABELS.tolist())],
    ids=["list", "numpy", "uint8", "int32", "tuple"],
)
@pytest.mark.parametrize("per_class", [False, True])
def test_labels_of_any_integer_kind(labels, per_class):
    expected = ablation_errors(tiny(), images(), LABELS, layer="conv", per_class=per_class)
    close(ablation_errors(tiny(), images(), labels, layer="conv", per_class=per_class), expected)


def test_one_call_of_a_shared_layer():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.relu, self.conv2 = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)
            self.end = nn.Linear(16, 3)
            self.double()

        def forward(self, x):
            return self.end(self.relu(self.conv2(self.relu(self.conv(x)))).flatten(1))

    net = Shared()
    actual = ablation_errors(net, images(), LABELS, layer="relu#1", error="nll").errors
    close(actual, slow(net, "conv", images(), LABELS, "nll")[1].mean(1))  # ReLU(0) = 0
    with pytest.raises(ValueError, match="got 'relu', which runs 2 times"):
        ablation_errors(net, images(), LABELS, layer="relu")


def test_float32_networks_give_float64():
    net, x = tiny().float(), images().float()
    for actual in (
        *ablation_errors(net, x, LABELS, layer="conv"),
        *ablation_errors(net, x, LABELS, layer="conv", per_class=True, error="nll"),
        mean_excitation_weights(net, x, layer="conv"),
        per_sample_weights(net, x, LABELS, layer="conv"),
    ):
        assert actual.dtype == torch.float64
        assert not actual.requires_grad


# the network and the images are left alone

CALLS = {
    "ablation_errors": lambda net, layer, x, **more: ablation_errors(net, x, LABELS[: len(x)], layer=layer, **more),
    "mean_excitation_weights": lambda net, layer, x, **more: mean_excitation_weights(net, x, layer=layer, **more),
    "per_sample_weights": lambda net, layer, x, **more: per_sample_weights(
        net, x, LABELS[: len(x)], layer=layer, **more
    ),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
each_with_labels = pytest.mark.parametrize("method", [ablation_errors, per_sample_weights])


@pytest.mark.parametrize("training", [True, False])
@each_call
def test_the_network_is_left_as_it_was(call, training):
    net, x = tiny().train(training), images().requires_grad_()
    net.relu.inplace = True
    net.fc.eval()
    net.end.weight.requires_grad_(False)
    net.conv.weight.grad = torch.ones_like(net.conv.weight)
    net.pool.register_forward_hook(lambda *_: None)
    before, labels, state = x.detach().clone(), LABELS.clone(), torch.get_rng_state()
    for layer in ("conv", "pool", "fc"):
        with assert_untouched(net):
            actual = call(net, layer, x)
        torch.testing.assert_close(actual, call(net.eval(), layer, x))  # dropout is in evaluation mode
        net.train(training)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before)
    assert torch.equal(LABELS, labels)
    assert x.grad is None


def test_images_are_left_alone_by_a_first_layer_in_place():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(2, 4, 3).double(), nn.Flatten(), nn.Linear(64, 3).double())
    for call in CALLS.values():
        x = images()
        before = x.clone()
        call(net, "1", x)
        assert torch.equal(x, before)


@each_call
def test_the_network_is_left_as_it_was_after_an_exception(call):
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(2, 4, 3), flatten=nn.Flatten(), boom=Boom())).double().train()
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        call(net, "conv", images())


def test_bad_arguments_are_refused():
    arguments = {"model": tiny(), "x": images(), "layer": "conv"}
    bad = {"x": images()[0], "layer": "cnov", "batch_size": 0}
    refuses(mean_excitation_weights, arguments, **bad)
    arguments["y"] = LABELS
    refuses(per_sample_weights, arguments, **bad, y=LABELS[:6])
    refuses(ablation_errors, arguments, **bad, y=LABELS.double(), error="Rate")


@each_with_labels
def test_what_is_bad_in_the_last_images_alone_is_refused_before_the_first_pass(method):
    for y in (LABELS - 1, [0, 1, 2, 1, 0, 2, 3], "cats"):
        refuses(method, {"model": tiny(), "x": images(), "y": LABELS, "layer": "conv", "batch_size": 2}, y=y)
    x = torch.cat([images()[:6], images()[6:] / 0])
    refuses(method, {"model": tiny(), "x": images(), "y": LABELS, "layer": "conv", "batch_size": 2}, x=x)


@each_call
def test_a_layer_without_filters_is_refused(call):
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.sums, self.end = nn.Flatten(0), nn.Linear(1, 3).double()

        def forward(self, x):
            return self.end(self.sums(x.mean((1, 2, 3)))[:, None])

    with pytest.raises(ValueError, match=r"layer must have feature maps \(B, C, h, w\), got 'sums' with \(7,\)"):
        call(Sums(), "sums", images())


@each_with_labels
def test_a_network_of_nan_is_refused(method):
    net = tiny()
    with torch.no_grad():
        net.end.bias[1] = float("nan")
    with pytest.raises(ValueError, match="NaN: check the network's weights"), assert_untouched(net):
        method(net, images(), LABELS, layer="conv")


@pytest.mark.parametrize("error", ["rate", "nll"])
def test_a_single_logit_is_refused(error):
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 1))
    with pytest.raises(ValueError, match="two classes at least, got 1, of which a softmax is always 1"):
        ablation_errors(net, torch.rand(2, 1, 2, 2), [0, 0], layer="0", error=error)
