"""What a network loses without each filter, against slow loops, captum and numbers worked out by hand."""

import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from support.ablation_oracle import counted, silenced
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers import data, networks
from helpers.networks._architectures import LeNet
from helpers.similarnet import (
    AblationErrors,
    ablation_errors,
    effective_number,
    heatmap,
    importance_weights,
    mean_excitation_weights,
    per_sample_weights,
)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
each_error = pytest.mark.parametrize("error", ["rate", "nll"])


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(found, wanted, atol=1e-12, rtol=0.0):
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)


def by_hand():
    """f = ReLU(x, -x), logits (mean f0, mean f1 + 1/2): two filters, two classes."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        net[4].weight.copy_(torch.eye(2))
        net[4].bias.copy_(torch.tensor([0.0, 0.5]))
    return net


# f0 = (1, 3), f1 = 0, logits (2, 0.5); and f0 = 0, f1 = (2, 4), logits (0, 3.5)
X, Y = torch.tensor([[[[1.0, 3.0]]], [[[-2.0, -4.0]]]]), torch.tensor([0, 1])


def nll(ahead):
    """Of the true class of two, whose logit lies so far ahead of the other."""
    return math.log(1 + math.exp(-ahead))


class Around(nn.Module):
    """A shortcut leads around `inner`; what comes of it is added, or stacked as channels."""

    def __init__(self, join="add"):
        super().__init__()
        torch.manual_seed(0)
        self.outer, self.inner = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.end, self.join = nn.Linear(4 if join == "add" else 8, 3), join
        self.double()

    def forward(self, x):
        short = self.outer(x).tanh()
        inner = self.inner(short)
        both = inner + short if self.join == "add" else torch.cat([inner, short], 1)
        return self.end(both.relu().mean((2, 3)))


def tiny(classes=3):
    torch.manual_seed(0)
    net = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(2, 4, 3), relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten(), drop=nn.Dropout(0.5)
        )
    )
    net.add_module("fc", nn.Linear(16, 5))
    net.add_module("end", nn.Linear(5, classes))
    return net.double()


def images(count=7, seed=1):
    return rand(count, 2, 6, 6, seed=seed)


LABELS = torch.tensor([0, 1, 2, 1, 0, 2, 1])


@pytest.fixture(scope="module")
def lenet():
    return networks.load("lenet-mnist", "cpu")


@pytest.fixture(scope="module")
def drawn():
    found = data.digits(60, seed=3, rotate=25.0, shear=0.5)
    return found.images, found.labels


def losses(scores, y, error):
    scores = scores.double()
    return (scores.argmax(1) != y).double() if error == "rate" else F.cross_entropy(scores, y, reduction="none")


def slow(net, layer, x, y, error):
    """The loss of every image, (N,), and without each filter, (F, N): the whole network runs for each."""
    whole, without = silenced(net, x, layer)
    return losses(whole, y, error), torch.stack([losses(one, y, error) for one in without])


# by hand


def test_ablation_errors_by_hand():
    # Without f0 the first image has logits (0, 0.5) and is taken for a 1; without f1 the second one keeps (0, 0.5).
    found = ablation_errors(by_hand(), X, Y, layer="1")
    assert isinstance(found, AblationErrors)
    assert found.baseline.tolist() == 0
    assert found.errors.tolist() == [0.5, 0]
    found = ablation_errors(by_hand(), X, Y, layer="1", error="nll")
    close(found.baseline, torch.tensor((nll(1.5) + nll(3.5)) / 2, dtype=torch.float64), 1e-7)
    wanted = [(nll(-0.5) + nll(3.5)) / 2, (nll(1.5) + nll(0.5)) / 2]
    close(found.errors, torch.tensor(wanted, dtype=torch.float64), 1e-7)


def test_ablation_errors_class_by_class_by_hand():
    # three images: the first one twice, the second time as a 1, which is wrong until f0 is gone
    x, y = X[[0, 1, 0]], [0, 1, 1]
    found = ablation_errors(by_hand(), x, y, layer="1", per_class=True)
    assert found.baseline.tolist() == [0, 0.5]
    assert found.errors.tolist() == [[1, 0], [0, 0.5]]  # (F, K)
    found = ablation_errors(by_hand(), x, y, layer="1", error="nll", per_class=True)
    wanted = [[nll(-0.5), (nll(3.5) + nll(0.5)) / 2], [nll(1.5), (nll(0.5) + nll(-1.5)) / 2]]
    close(found.errors, torch.tensor(wanted, dtype=torch.float64), 1e-7)
    close(found.baseline, torch.tensor([nll(1.5), (nll(3.5) + nll(-1.5)) / 2], dtype=torch.float64), 1e-7)


def test_weights_and_maps_by_hand():
    baseline, errors = ablation_errors(by_hand(), X, Y, layer="1")
    assert importance_weights(baseline, errors, normalization="none").tolist() == [-0.5, 0]
    assert importance_weights(baseline, errors, normalization="none", sign="code").tolist() == [0.5, 0]
    e = math.exp(-0.5)
    close(importance_weights(baseline, errors), torch.tensor([e / (e + 1), 1 / (e + 1)], dtype=torch.float64))
    e = math.exp(0.5 / 0.25)  # the code's sign, T = 1/4
    found = importance_weights(baseline, errors, sign="code", temperature=0.25)
    close(found, torch.tensor([e / (e + 1), 1 / (e + 1)], dtype=torch.float64))
    # 0.5 f0 - 0.25 f1
    features = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[2.0, 4.0]]]])
    found = heatmap(features, torch.tensor([0.5, -0.25]))
    assert found.tolist() == [[[0.5, 1.5]], [[-0.5, -1.0]]]


def test_other_weights_by_hand():
    # means over places and images: (2 + 0) / 2 and (0 + 3) / 2
    assert mean_excitation_weights(by_hand(), X, layer="1").tolist() == [1, 1.5]
    # f0 is zero in the second image and f1 in the first: 1 + 9 and 4 + 16 are what the others hold
    wanted = [(nll(-0.5) - nll(1.5)) / 10, (nll(0.5) - nll(3.5)) / 20]
    close(per_sample_weights(by_hand(), X, Y, layer="1"), torch.tensor(wanted, dtype=torch.float64), 1e-8)


def test_effective_number_by_hand():
    # (3 + 1)^2 / (9 + 1); the sign does not matter; 1 for one alone, F for F of the same size
    close(effective_number(torch.tensor([3.0, -1.0, 0.0])), torch.tensor(1.6), 1e-6)
    assert effective_number(torch.tensor([0.0, -7.0, 0.0])).item() == 1
    assert effective_number(torch.full((6,), 0.1)).item() == pytest.approx(6)
    assert effective_number(torch.tensor([2.0, -2.0])).item() == 2
    assert effective_number(torch.tensor([5.0])).item() == 1


# errors without each filter


@each_error
@pytest.mark.parametrize("layer", ["conv1", "relu1", "pool2", "fc1", "fc3"])
def test_errors_of_a_trained_lenet_equal_a_slow_loop(lenet, drawn, layer, error):
    x, y = drawn
    found = ablation_errors(lenet, x, y, layer=layer, error=error)
    whole, without = slow(lenet, layer, x, y, error)
    close(found.baseline, whole.mean(), 1e-6)
    close(found.errors, without.mean(1), 1e-6)
    assert without.mean(1).std() > 1e-3


@each_error
@pytest.mark.parametrize("layer", ["conv1", "pool2"])
def test_errors_of_a_lenet_class_by_class_equal_a_slow_loop(lenet, drawn, layer, error):
    x, y = drawn
    found = ablation_errors(lenet, x, y, layer=layer, error=error, per_class=True)
    whole, without = slow(lenet, layer, x, y, error)
    for k in range(10):
        close(found.baseline[k], whole[y == k].mean(), 1e-6)
        close(found.errors[:, k], without[:, y == k].mean(1), 1e-6)
    assert found.errors.shape == (6 if layer == "conv1" else 16, 10)


@each_error
@pytest.mark.parametrize("layer", ["conv1", "conv2", "pool2", "fc2"])
def test_errors_of_a_random_lenet_equal_a_slow_loop(layer, error):
    torch.manual_seed(1)
    net = LeNet(classes=4, channels=3, size=16, pool=nn.AvgPool2d).double()
    x = 3 * rand(12, 3, 16, 16)
    y = torch.arange(12) % 4
    found, (whole, without) = ablation_errors(net, x, y, layer=layer, error=error), slow(net, layer, x, y, error)
    close(found.baseline, whole.mean())
    close(found.errors, without.mean(1))


@each_error
@pytest.mark.parametrize("join", ["add", "cat"])
def test_errors_with_a_shortcut_equal_a_slow_loop(join, error):
    net, x, y = Around(join), images(9), torch.arange(9) % 3
    with torch.no_grad():
        net.end.bias -= net(x).mean(0)  # so that some answers change
    found, (whole, without) = ablation_errors(net, x, y, layer="inner", error=error), slow(net, "inner", x, y, error)
    close(found.baseline, whole.mean())
    close(found.errors, without.mean(1))
    assert without.mean(1).std() > 0


@pytest.mark.parametrize("join", ["add", "cat"])
def test_a_batch_of_one_with_a_shortcut_equals_a_slow_loop(join):
    net, x, y = Around(join), images(9), torch.arange(9) % 3
    wanted = slow(net, "inner", x, y, "nll")[1].mean(1)
    close(ablation_errors(net, x, y, layer="inner", error="nll", batch_size=4).errors, wanted)  # 4 + 4 + 1


@each_error
def test_errors_equal_captums_for_lenet(lenet, drawn, error):
    attr = pytest.importorskip("captum.attr")
    x, y = drawn[0][:20], drawn[1][:20]
    found = ablation_errors(lenet, x, y, layer="pool2", error=error)
    captum = attr.LayerFeatureAblation(lambda x: losses(lenet(x), y, error), lenet.pool2)
    drops = captum.attribute(x, layer_mask=torch.arange(16).view(1, 16, 1, 1))
    close(found.baseline - found.errors, drops[:, :, 0, 0].double().mean(0), 1e-6)
    assert drops.abs().max() > 1e-3


def test_errors_equal_captums_for_resnet18():
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=5).eval()
    x, y = torch.randn(2, 3, 33, 33), torch.tensor([3, 1])  # maps of 2 x 2
    found = ablation_errors(net, x, y, layer="layer4", error="nll")
    captum = attr.LayerFeatureAblation(lambda x: losses(net(x), y, "nll"), net.layer4)
    drops = captum.attribute(x, layer_mask=torch.arange(512).view(1, 512, 1, 1))
    close(found.baseline - found.errors, drops[:, :, 0, 0].double().mean(0), 1e-6)
    assert drops.abs().max() > 1e-3


def test_errors_inside_a_resnet_equal_captums():
    # conv1 of a block: its shortcut leads around it, and an in-place ReLU follows bn1
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=5).eval()
    x, y = torch.randn(2, 3, 24, 24), torch.tensor([3, 1])
    found = ablation_errors(net, x, y, layer="layer1.0.bn1", error="nll")
    captum = attr.LayerFeatureAblation(lambda x: losses(net(x), y, "nll"), net.layer1[0].bn1)
    drops = captum.attribute(x, layer_mask=torch.arange(64).view(1, 64, 1, 1))
    close(found.baseline - found.errors, drops[:, :, 0, 0].double().mean(0), 1e-6)
    assert drops.abs().max() > 1e-4


def test_a_layer_that_is_followed_by_one_in_place():
    for act in (nn.ReLU, nn.SiLU, nn.ELU):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), act(inplace=True), nn.Flatten(), nn.Linear(64, 3))
        found = ablation_errors(net.double(), images(), LABELS, layer="1", error="nll")
        net[2] = act()
        close(found.errors, slow(net, "1", images(), LABELS, "nll")[1].mean(1))


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
    assert (
        mean_excitation_weights(lenet, x, layer="pool2").shape
        == per_sample_weights(lenet, x, y, layer="pool2").shape
        == (16,)
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("per_class", [False, True])
@each_error
def test_the_size_of_a_pass_does_not_matter(batch, per_class, error):
    net, x = tiny(), images()
    wanted = ablation_errors(net, x, LABELS, layer="relu", error=error, per_class=per_class)
    close(ablation_errors(net, x, LABELS, layer="relu", error=error, per_class=per_class, batch_size=batch), wanted)


def test_errors_are_those_of_the_images_one_by_one():
    net, x = tiny(), images()
    alone = [ablation_errors(net, x[i : i + 1], LABELS[i : i + 1], layer="relu", error="nll") for i in range(7)]
    found = ablation_errors(net, x, LABELS, layer="relu", error="nll")
    close(found.baseline, sum(one.baseline for one in alone) / 7)
    close(found.errors, sum(one.errors for one in alone) / 7)


def test_a_class_without_images_is_nan():
    found = ablation_errors(tiny(), images(), LABELS.clamp_max(1), layer="conv", per_class=True)
    assert found.baseline.isnan().tolist() == [False, False, True]
    assert found.errors.isnan().tolist() == [[False, False, True]] * 4


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
    for layer in ("conv2", "relu2", "pool2"):
        baseline, errors = ablation_errors(net, x, y, layer=layer, error=error)
        if error == "rate" or dtype == torch.float64:
            close(errors[5], baseline, 0.0 if error == "rate" else 1e-15)
        else:
            close(errors[5], baseline, 1e-7)
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
    wanted = ablation_errors(tiny(), images(), LABELS, layer="conv", per_class=per_class)
    close(ablation_errors(tiny(), images(), labels, layer="conv", per_class=per_class), wanted)


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
    found = ablation_errors(net, images(), LABELS, layer="relu#1", error="nll").errors
    close(found, slow(net, "conv", images(), LABELS, "nll")[1].mean(1))  # ReLU(0) = 0
    with pytest.raises(ValueError, match="'relu' runs 2 times"):
        ablation_errors(net, images(), LABELS, layer="relu")


# weights


@pytest.mark.parametrize("sign", ["paper", "code"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_equal_the_formulas_written_out(sign, dtype):
    baseline, errors = torch.tensor(0.3, dtype=dtype), rand(5, dtype=dtype)
    change = [(0.3 - e) * (1 if sign == "paper" else -1) for e in errors.tolist()]
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    found = importance_weights(baseline, errors, sign=sign, normalization="none")
    close(found, torch.tensor(change, dtype=dtype), tolerance)
    for temperature in (0.1, 1, 7.5):
        total = sum(math.exp(one / temperature) for one in change)
        wanted = torch.tensor([math.exp(one / temperature) / total for one in change], dtype=dtype)
        found = importance_weights(baseline, errors, sign=sign, temperature=temperature)
        close(found, wanted, tolerance)
        assert found.dtype == dtype


@pytest.mark.parametrize("sign", ["paper", "code"])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
def test_softmax_weights_sum_to_1(sign, temperature):
    for shape in ((16,), (16, 10)):
        weights = importance_weights(
            rand(shape[1:]), rand(*shape, seed=1), sign=sign, temperature=temperature, normalization="softmax"
        )
        close(weights.sum(-1), torch.ones(shape[1:], dtype=torch.float64))
        assert (weights >= 0).all()


@pytest.mark.parametrize("temperature", [1e-300, 1e-320])
def test_the_smallest_temperatures_leave_the_best_filter(temperature):
    found = importance_weights(
        torch.tensor(9.0).double(), torch.tensor([8.0, 3.0, 5.0]).double(), temperature=temperature
    )
    assert found.tolist() == [0, 1, 0]


def test_the_sign_turns_the_raw_map_round():
    baseline, errors, features = rand(()), rand(6, seed=1), rand(2, 6, 3, 4, seed=2)
    paper, code = (
        heatmap(features, importance_weights(baseline, errors, sign=sign, normalization="none"))
        for sign in ("paper", "code")
    )
    assert torch.equal(paper, -code)
    assert paper.abs().max() > 0.1


def test_class_by_class_weights_equal_those_of_each_class():
    baseline, errors = rand(3), rand(5, 3, seed=1)
    for options in ({}, {"sign": "code"}, {"normalization": "none"}, {"temperature": 0.1}):
        found = importance_weights(baseline, errors, **options)
        assert found.shape == (3, 5)
        for k in range(3):
            close(found[k], importance_weights(baseline[k], errors[:, k], **options))
    # as many classes as filters, or one of either
    assert (
        importance_weights(rand(4), rand(4, 4, seed=1), normalization="none")[1, 2]
        == rand(4)[1] - rand(4, 4, seed=1)[2, 1]
    )
    assert importance_weights(rand(1), rand(5, 1)).shape == (1, 5)
    assert importance_weights(rand(3), rand(1, 3)).tolist() == [[1], [1], [1]]


def test_a_temperature_of_one_nth_makes_the_softmax_of_summed_errors():
    net, x, count = tiny(), images(), 7
    baseline, errors = ablation_errors(net, x, LABELS, layer="relu", error="nll")
    whole, without = slow(net, "relu", x, LABELS, "nll")
    wanted = (whole.sum() - without.sum(1)).softmax(0)
    close(importance_weights(baseline, errors, temperature=1 / count), wanted)
    assert wanted.std() > 1e-3


def test_the_default_is_the_papers():
    baseline, errors = rand(()), rand(5, seed=1)
    wanted = importance_weights(baseline, errors, sign="paper", normalization="softmax", temperature=1.0)
    assert torch.equal(importance_weights(baseline, errors), wanted)
    close(wanted, (baseline - errors).softmax(0))


@pytest.mark.parametrize("baseline", [0, 1, 0.1, 0.25])
def test_a_baseline_may_be_a_plain_number(baseline):
    errors = torch.tensor([0.1, 0.7, 0.25], dtype=torch.float64)
    found = importance_weights(baseline, errors, normalization="none")
    assert found.tolist() == [baseline - e for e in errors.tolist()]  # in the errors' precision
    assert found.dtype == torch.float64


def test_mean_excitation_equals_the_mean_of_the_cut_network():
    net, x = tiny(), images()
    with torch.no_grad():
        close(mean_excitation_weights(net, x, layer="conv"), net.conv(x).mean((0, 2, 3)))
        close(mean_excitation_weights(net, x, layer="relu"), net.conv(x).relu().mean((0, 2, 3)))
        close(mean_excitation_weights(net, x, layer="fc"), net.fc(net[:4](x)).mean(0))  # without the dropout
        close(mean_excitation_weights(net, x, layer="input"), x.mean((0, 2, 3)))
    for batch in (1, 2, 3, 6, 7, 8):
        close(
            mean_excitation_weights(net, x, layer="conv", batch_size=batch),
            mean_excitation_weights(net, x, layer="conv"),
        )


@pytest.mark.parametrize("layer", ["conv", "relu", "pool", "fc"])
@pytest.mark.parametrize("batch", [2, 100])
def test_per_sample_weights_equal_a_loop_over_images(layer, batch):
    net, x = tiny(), images()
    with torch.no_grad():
        net.conv.weight[2] = 0
        net.conv.bias[2] = -1  # behind the ReLU this map is zero for every image
        net.conv.bias[1] -= 1
        x[3] = 0  # conv gives its biases, the ReLU what is positive of them
    outputs = []
    handle = net.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    wanted, skipped = torch.zeros(5 if layer == "fc" else 4, dtype=torch.float64), 0
    for n in range(len(x)):
        outputs.clear()
        with torch.no_grad():
            net.eval()(x[n : n + 1])
        maps = outputs[0][0].clone()
        whole, without = slow(net, layer, x[n : n + 1], LABELS[n : n + 1], "nll")
        for i in range(len(maps)):
            held = sum(value**2 for value in maps[i].flatten().tolist())
            skipped += held == 0
            if held > 0:
                wanted[i] += (without[i, 0] - whole[0]) / held
    handle.remove()
    close(per_sample_weights(net, x, LABELS, layer=layer, batch_size=batch), wanted, 1e-10, 1e-10)
    assert wanted.abs().max() > 1e-3
    if layer in ("relu", "pool"):
        assert skipped > len(x)  # the dead map in every image, another one in some
        assert wanted[2] == 0


def test_float32_networks_give_float64():
    net, x = tiny().float(), images().float()
    for found in (
        *ablation_errors(net, x, LABELS, layer="conv"),
        *ablation_errors(net, x, LABELS, layer="conv", per_class=True, error="nll"),
        mean_excitation_weights(net, x, layer="conv"),
        per_sample_weights(net, x, LABELS, layer="conv"),
    ):
        assert found.dtype == torch.float64
        assert not found.requires_grad


# heat maps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_heat_maps_equal_a_loop(dtype):
    features = rand(2, 3, 4, 5, dtype=dtype)
    for shape in ((3,), (6, 3), (2, 6, 3)):
        weights = rand(*shape, seed=1, dtype=dtype)
        found = heatmap(features, weights)
        assert found.dtype == dtype
        assert found.shape == ((2, 4, 5) if len(shape) == 1 else (2, 6, 4, 5))
        for b in range(2):
            rows = weights if weights.ndim == 1 else (weights if weights.ndim == 2 else weights[b])
            for k, row in enumerate(rows if rows.ndim == 2 else rows[None]):
                wanted = sum(row[i] * features[b, i] for i in range(3))
                close(found[b] if weights.ndim == 1 else found[b, k], wanted, 1e-5 if dtype == torch.float32 else 1e-12)


def test_class_by_class_weights_make_class_by_class_maps(lenet, drawn):
    x, y = drawn
    weights = importance_weights(*ablation_errors(lenet, x, y, layer="pool2", per_class=True))
    assert weights.shape == (10, 16)
    with torch.no_grad():
        features = lenet.features(x[:3])
    found = heatmap(features, weights)
    assert found.shape == (3, 10, 7, 7)
    for k in range(10):
        close(found[:, k], torch.einsum("bfhw,f->bhw", features, weights[k].float()), 1e-5)


# the number of filters in use


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 16, 300])
def test_effective_number_lies_between_1_and_f(dtype, count):
    eps = torch.finfo(dtype).eps * count
    for seed in range(5):
        for power in (0.01, 1, 9):
            one = rand(4, count, seed=seed, dtype=dtype)
            found = effective_number(one.sign() * one.abs() ** power)
            assert found.shape == (4,)
            assert found.dtype == dtype
            assert (found >= 1 - eps).all()
            assert (found <= count * (1 + eps)).all()
    one_hot = torch.zeros(count, dtype=dtype)
    one_hot[-1] = -0.3
    assert effective_number(one_hot) == 1
    assert effective_number(torch.full((count,), -0.3, dtype=dtype)) == count


def test_effective_number_equals_the_formula_written_out():
    weights = rand(2, 3, 5)
    found = effective_number(weights)
    for i in range(2):
        for j in range(3):
            row = weights[i, j].tolist()
            assert found[i, j].item() == pytest.approx(sum(map(abs, row)) ** 2 / sum(w * w for w in row), rel=1e-12)
    close(effective_number(-weights), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e30])
def test_effective_number_is_free_of_scale(dtype, scale):
    weights = rand(6, dtype=dtype)
    close(effective_number(weights * scale), effective_number(weights), 0, 1e-5)
    assert effective_number(torch.tensor([scale, -scale, 0.0], dtype=dtype)) == 2
    rows = torch.tensor([[scale, scale], [1.0, 0.0], [1 / scale, -1 / scale]], dtype=dtype)  # each by itself
    assert effective_number(rows).tolist() == [2, 1, 2]


def test_effective_number_in_half_precision():
    assert effective_number(torch.full((512,), 0.5, dtype=torch.float16)) == 512


def test_no_weight_at_all_has_no_effective_number():
    found = effective_number(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert found.isnan().tolist() == [True, False]


# the network and the images are left alone

CALLS = {
    "ablation_errors": lambda net, layer, x, **more: ablation_errors(net, x, LABELS[: len(x)], layer=layer, **more),
    "mean_excitation_weights": mean_excitation_weights,
    "per_sample_weights": lambda net, layer, x, **more: per_sample_weights(
        net, x, LABELS[: len(x)], layer=layer, **more
    ),
}
WITH_LABELS = {"ablation_errors": ablation_errors, "per_sample_weights": per_sample_weights}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
each_with_labels = pytest.mark.parametrize("call", WITH_LABELS.values(), ids=WITH_LABELS)


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
            found = call(net, layer, x)
        torch.testing.assert_close(found, call(net.eval(), layer, x))  # dropout is in evaluation mode
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


def test_errors_and_weights_are_left_alone():
    baseline, errors = rand(3).requires_grad_(), rand(5, 3, seed=1).requires_grad_()
    kept = baseline.detach().clone(), errors.detach().clone()
    weights = importance_weights(baseline, errors, normalization="none")
    assert not weights.requires_grad
    before = weights.clone()
    assert not effective_number(weights.requires_grad_()).requires_grad
    features = rand(2, 5, 3, 3)
    same = features.clone()
    heatmap(features, weights)
    assert torch.equal(weights, before)
    assert torch.equal(features, same)
    weights.detach().zero_()
    assert torch.equal(baseline, kept[0])
    assert torch.equal(errors, kept[1])


@needs_cuda
def test_on_the_gpu_too():
    net, x = tiny(), images()

    def all_of_them(net, x, y):
        baseline, errors = ablation_errors(net, x, y, layer="relu", error="nll", per_class=True)
        weights = importance_weights(baseline, errors)
        yield from (baseline, errors, weights, effective_number(weights), mean_excitation_weights(net, x, layer="relu"))
        yield per_sample_weights(net, x, y, layer="relu")
        yield heatmap(rand(2, 4, 3, 3).to(x.device), weights)
        yield importance_weights(0.25, errors)

    wanted = list(all_of_them(net, x, LABELS))
    for y in (LABELS, LABELS.cuda(), LABELS.tolist()):
        for one, other in zip(all_of_them(net.cuda(), x.cuda(), y), wanted, strict=True):
            assert one.is_cuda
            close(one.cpu(), other, 1e-9)


# bad input


@each_call
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images().numpy(), "got ndarray"),
        (images()[0], r"got \(2, 6, 6\); one image is x\[None\]"),
        (images()[:0], "empty"),
        (images().long(), "floating point"),
        (images() * float("nan"), "finite"),
        (torch.cat([images()[:6], images()[6:] / 0]), "finite"),  # in the last image alone
        (images().float(), "must be torch.float64"),
        (images()[:, :1], "must have 2 channels"),
    ],
)
def test_bad_images_are_refused(call, x, message):
    net = tiny()
    with pytest.raises(ValueError, match=f"^x .*{message}"), assert_untouched(net):
        call(net, "conv", x)


@each_call
@pytest.mark.parametrize("layer", ["cnov", "", "conv#2", "drop#0", None, 3, ["conv"], ("conv",)])
def test_bad_layers_are_refused(call, layer):
    net = tiny()
    with pytest.raises(ValueError, match="layer"), assert_untouched(net):
        call(net, layer, images())


@each_call
def test_a_layer_without_filters_is_refused(call):
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.sums, self.end = nn.Flatten(0), nn.Linear(1, 3).double()

        def forward(self, x):
            return self.end(self.sums(x.mean((1, 2, 3)))[:, None])

    with pytest.raises(ValueError, match=r"layer must give \(B, ., ...\), but 'sums' gives \(7,\)"):
        call(Sums(), "sums", images())


@each_call
@pytest.mark.parametrize("batch", [0, -1, 2.0, True, None])
def test_bad_batches_are_refused(call, batch):
    with pytest.raises(ValueError, match="batch must be an integer of at least 1"):
        call(tiny(), "conv", images(), batch=batch)


@each_with_labels
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (LABELS[:6], r"\(6,\)"),
        ([*LABELS.tolist(), 0], r"\(8,\)"),
        (LABELS[:, None], r"\(7, 1\)"),
        (1, r"\(\)"),
        ([], r"\(0,\)"),
        (LABELS.double(), "integers"),
        (LABELS > 0, "integers"),
        (LABELS + 1, "got 3"),
        (LABELS - 1, "got -1"),
        ([0, 1, 2, 1, 0, 2, 3], "got 3"),  # in the last image alone
        (None, ""),
        ("cats", ""),
        ([[0, 1], [2]], ""),
    ],
)
def test_bad_labels_are_refused(call, y, message):
    net = tiny()
    with pytest.raises(ValueError, match=rf"^y .*{message}"), assert_untouched(net):
        call(net, "conv", images(), y)
    with pytest.raises(ValueError, match=r"^y "):
        call(net, "conv", images(), y, batch=2)


@pytest.mark.parametrize("error", ["Rate", "loss", "", None, 1, ["rate"]])
def test_bad_errors_are_refused(error):
    with pytest.raises(ValueError, match="error must be one of rate, nll, got"):
        ablation_errors(tiny(), images(), LABELS, layer="conv", error=error)


@each_with_labels
def test_a_network_of_nan_is_refused(call):
    net = tiny()
    with torch.no_grad():
        net.end.bias[1] = float("nan")
    with pytest.raises(ValueError, match="NaN: check the network's weights"), assert_untouched(net):
        call(net, "conv", images(), LABELS)


@pytest.mark.parametrize(
    ("baseline", "errors", "message"),
    [
        (rand(()), rand(2, 3, 4), r"errors must be .*\(2, 3, 4\) and \(\)"),
        (rand(()), rand(()), r"errors must be"),
        (rand(()), rand(0), r"errors must be a non-empty"),
        (rand(()), [0.1, 0.2], r"errors must be .*got list"),
        (rand(()), torch.tensor([0, 1]), r"errors must be .*int64"),
        (rand(()), torch.tensor([0.1, float("nan")]), "errors must be finite"),
        (rand(()), torch.tensor([0.1, float("inf")]), "errors must be finite"),
        (rand(()), torch.tensor([0.1j]), "errors must be"),
        (rand(3), rand(5), r"errors must be .*\(5,\) and \(3,\)"),
        (rand(5), rand(5), r"baseline"),
        (rand(()), rand(5, 3), r"baseline"),
        (rand(5), rand(5, 3), r"baseline"),
        (rand(1), rand(5, 3), r"baseline"),
        (rand(1, 3), rand(5, 3), r"baseline"),
        (rand(1), rand(5), r"baseline"),
        (torch.tensor([0.1, float("nan"), 0.3]), rand(5, 3), "baseline must be finite"),
        (float("nan"), rand(5), "baseline must be finite"),
        (float("inf"), rand(5), "baseline must be finite"),
        (None, rand(5), "baseline"),
        ("low", rand(5), "baseline"),
        (rand(0), rand(5), "baseline"),
        (1j, rand(5), "baseline"),
    ],
)
def test_bad_baselines_and_errors_are_refused(baseline, errors, message):
    for options in ({}, {"normalization": "none"}):
        with pytest.raises(ValueError, match=message):
            importance_weights(baseline, errors, **options)


def test_a_class_without_images_has_no_weights():
    found = ablation_errors(tiny(), images(), LABELS.clamp_max(1), layer="conv", per_class=True)
    with pytest.raises(ValueError, match="NaN"):
        importance_weights(*found)


@pytest.mark.parametrize(
    "options", [{"sign": "minus"}, {"sign": None}, {"normalization": "max"}, {"normalization": ""}]
)
def test_bad_signs_and_normalizations_are_refused(options):
    with pytest.raises(ValueError, match="sign must be one of paper, code and normalization one of softmax, none, got"):
        importance_weights(rand(()), rand(5), **options)


@pytest.mark.parametrize("temperature", [0, 0.0, -1, float("nan"), float("inf"), True, None, "1", 1j])
def test_bad_temperatures_are_refused(temperature):
    for normalization in ("softmax", "none"):
        with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
            importance_weights(rand(()), rand(5), temperature=temperature, normalization=normalization)


@pytest.mark.parametrize(
    ("features", "weights", "name"),
    [
        (rand(3, 4, 4), rand(3), "features"),
        (rand(2, 3), rand(3), "features"),
        (rand(2, 3, 4, 4).long(), rand(3), "features"),
        (rand(0, 3, 4, 4), rand(3), "features"),
        (rand(2, 3, 4, 4).numpy(), rand(3), "features"),
        (rand(2, 3, 4, 4), rand(4), "weights"),
        (rand(2, 3, 4, 4), rand(()), "weights"),
        (rand(2, 3, 4, 4), rand(3, 6), "weights"),
        (rand(2, 3, 4, 4), rand(3, 6, 3), "weights"),
        (rand(2, 3, 4, 4), rand(1, 6, 3), "weights"),
        (rand(2, 3, 4, 4), rand(2, 1, 6, 3), "weights"),
        (rand(2, 3, 4, 4), rand(0, 3), "weights"),
        (rand(2, 3, 4, 4), [1.0, 2.0, 3.0], "weights"),
    ],
)
def test_bad_features_and_weights_are_refused(features, weights, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        heatmap(features, weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.1, 0.2], "got list"),
        (None, "got NoneType"),
        (torch.tensor([1, 2]), "int64"),
        (torch.tensor([1j]), "complex"),
        (rand(0), r"\(0,\)"),
        (rand(3, 0), r"\(3, 0\)"),
        (rand(()), "single number"),
        (torch.tensor([0.1, float("nan")]), "finite"),
        (torch.tensor([0.1, float("inf")]), "finite"),
    ],
)
def test_bad_weights_have_no_effective_number(weights, message):
    with pytest.raises(ValueError, match=f"^weights must .*{message}"):
        effective_number(weights)
