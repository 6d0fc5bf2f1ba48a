"""Weights of filters, the heat map made of them, and how many filters they use: by hand, and against loops."""

import math

import pytest
import torch
from support.ablation_oracle import LABELS, X, Y, by_hand, close, images, nll, rand, slow, tiny
from support.refuses import refuses
from support.tensors import needs_cuda
from torch import nn

from helpers import data, networks
from helpers.similarnet import (
    ablation_errors,
    effective_number,
    heatmap,
    importance_weights,
    mean_excitation_weights,
    per_sample_weights,
)

# by hand


def test_weights_and_maps_by_hand():
    baseline, errors = ablation_errors(by_hand(), X, Y, layer="1")
    assert importance_weights(baseline, errors, normalization="none").tolist() == [-0.5, 0]
    assert importance_weights(baseline, errors, normalization="none", sign="code").tolist() == [0.5, 0]
    e = math.exp(-0.5)
    close(importance_weights(baseline, errors), torch.tensor([e / (e + 1), 1 / (e + 1)], dtype=torch.float64))
    e = math.exp(0.5 / 0.25)  # the code's sign, T = 1/4
    actual = importance_weights(baseline, errors, sign="code", temperature=0.25)
    close(actual, torch.tensor([e / (e + 1), 1 / (e + 1)], dtype=torch.float64))
    # 0.5 f0 - 0.25 f1
    features = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[2.0, 4.0]]]])
    actual = heatmap(features, torch.tensor([0.5, -0.25]))
    assert actual.tolist() == [[[0.5, 1.5]], [[-0.5, -1.0]]]


def test_other_weights_by_hand():
    # means over places and images: (2 + 0) / 2 and (0 + 3) / 2
    assert mean_excitation_weights(by_hand(), X, layer="1").tolist() == [1, 1.5]
    # f0 is zero in the second image and f1 in the first: 1 + 9 and 4 + 16 are what the others hold
    expected = [(nll(-0.5) - nll(1.5)) / 10, (nll(0.5) - nll(3.5)) / 20]
    close(per_sample_weights(by_hand(), X, Y, layer="1"), torch.tensor(expected, dtype=torch.float64), 1e-8)


def test_effective_number_by_hand():
    # (3 + 1)^2 / (9 + 1); the sign does not matter; 1 for one alone, F for F of the same size
    close(effective_number(torch.tensor([3.0, -1.0, 0.0])), torch.tensor(1.6), 1e-6)
    assert effective_number(torch.tensor([0.0, -7.0, 0.0])).item() == 1
    assert effective_number(torch.full((6,), 0.1)).item() == pytest.approx(6)
    assert effective_number(torch.tensor([2.0, -2.0])).item() == 2
    assert effective_number(torch.tensor([5.0])).item() == 1


# weights


@pytest.mark.parametrize("sign", ["paper", "code"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_equal_the_formulas_written_out(sign, dtype):
    baseline, errors = torch.tensor(0.3, dtype=dtype), rand(5, dtype=dtype)
    change = [(0.3 - e) * (1 if sign == "paper" else -1) for e in errors.tolist()]
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    actual = importance_weights(baseline, errors, sign=sign, normalization="none")
    close(actual, torch.tensor(change, dtype=dtype), tolerance)
    for temperature in (0.1, 1, 7.5):
        total = sum(math.exp(value / temperature) for value in change)
        expected = torch.tensor([math.exp(value / temperature) / total for value in change], dtype=dtype)
        actual = importance_weights(baseline, errors, sign=sign, temperature=temperature)
        close(actual, expected, tolerance)
        assert actual.dtype == dtype


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
    actual = importance_weights(
        torch.tensor(9.0).double(), torch.tensor([8.0, 3.0, 5.0]).double(), temperature=temperature
    )
    assert actual.tolist() == [0, 1, 0]


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
        actual = importance_weights(baseline, errors, **options)
        assert actual.shape == (3, 5)
        for k in range(3):
            close(actual[k], importance_weights(baseline[k], errors[:, k], **options))
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
    expected = (whole.sum() - without.sum(1)).softmax(0)
    close(importance_weights(baseline, errors, temperature=1 / count), expected)
    assert expected.std() > 1e-3


def test_the_default_is_the_papers():
    baseline, errors = rand(()), rand(5, seed=1)
    expected = importance_weights(baseline, errors, sign="paper", normalization="softmax", temperature=1.0)
    assert torch.equal(importance_weights(baseline, errors), expected)
    close(expected, (baseline - errors).softmax(0))


@pytest.mark.parametrize("baseline", [0, 1, 0.1, 0.25])
def test_a_baseline_may_be_a_plain_number(baseline):
    errors = torch.tensor([0.1, 0.7, 0.25], dtype=torch.float64)
    actual = importance_weights(baseline, errors, normalization="none")
    assert actual.tolist() == [baseline - e for e in errors.tolist()]  # in the errors' precision
    assert actual.dtype == torch.float64


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
    expected, skipped = torch.zeros(5 if layer == "fc" else 4, dtype=torch.float64), 0
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
                expected[i] += (without[i, 0] - whole[0]) / held
    handle.remove()
    close(per_sample_weights(net, x, LABELS, layer=layer, batch_size=batch), expected, 1e-10, 1e-10)
    assert expected.abs().max() > 1e-3
    if layer in ("relu", "pool"):
        assert skipped > len(x)  # the dead map in every image, another one in some
        assert expected[2] == 0


# heat maps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_heat_maps_equal_a_loop(dtype):
    features = rand(2, 3, 4, 5, dtype=dtype)
    for shape in ((3,), (6, 3), (2, 6, 3)):
        weights = rand(*shape, seed=1, dtype=dtype)
        actual = heatmap(features, weights)
        assert actual.dtype == dtype
        assert actual.shape == ((2, 4, 5) if len(shape) == 1 else (2, 6, 4, 5))
        for b in range(2):
            rows = weights if weights.ndim == 1 else (weights if weights.ndim == 2 else weights[b])
            for k, row in enumerate(rows if rows.ndim == 2 else rows[None]):
                expected = sum(row[i] * features[b, i] for i in range(3))
                close(
                    actual[b] if weights.ndim == 1 else actual[b, k],
                    expected,
                    1e-5 if dtype == torch.float32 else 1e-12,
                )


def test_class_by_class_weights_make_class_by_class_maps():
    lenet, (x, y, *_) = networks.load("lenet-mnist", "cpu"), data.digits(60, seed=3, rotate=25.0, shear=0.5)
    weights = importance_weights(*ablation_errors(lenet, x, y, layer="pool2", per_class=True))
    assert weights.shape == (10, 16)
    with torch.no_grad():
        features = lenet.features(x[:3])
    actual = heatmap(features, weights)
    assert actual.shape == (3, 10, 7, 7)
    for k in range(10):
        close(actual[:, k], torch.einsum("bfhw,f->bhw", features, weights[k].float()), 1e-5)


# the number of filters in use


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 16, 300])
def test_effective_number_lies_between_1_and_f(dtype, count):
    eps = torch.finfo(dtype).eps * count
    for seed in range(5):
        for power in (0.01, 1, 9):
            weights = rand(4, count, seed=seed, dtype=dtype)
            actual = effective_number(weights.sign() * weights.abs() ** power)
            assert actual.shape == (4,)
            assert actual.dtype == dtype
            assert (actual >= 1 - eps).all()
            assert (actual <= count * (1 + eps)).all()
    one_hot = torch.zeros(count, dtype=dtype)
    one_hot[-1] = -0.3
    assert effective_number(one_hot) == 1
    assert effective_number(torch.full((count,), -0.3, dtype=dtype)) == count


def test_effective_number_equals_the_formula_written_out():
    weights = rand(2, 3, 5)
    actual = effective_number(weights)
    for i in range(2):
        for j in range(3):
            row = weights[i, j].tolist()
            assert actual[i, j].item() == pytest.approx(sum(map(abs, row)) ** 2 / sum(w * w for w in row), rel=1e-12)
    close(effective_number(-weights), actual)


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
    actual = effective_number(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert actual.isnan().tolist() == [True, False]


def test_errors_and_weights_are_left_alone():
    baseline, errors = rand(3).requires_grad_(), rand(5, 3, seed=1).requires_grad_()
    originals = baseline.detach().clone(), errors.detach().clone()
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
    assert torch.equal(baseline, originals[0])
    assert torch.equal(errors, originals[1])


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

    expected = list(all_of_them(net, x, LABELS))
    for y in (LABELS, LABELS.cuda(), LABELS.tolist()):
        for on_gpu, on_cpu in zip(all_of_them(net.cuda(), x.cuda(), y), expected, strict=True):
            assert on_gpu.is_cuda
            close(on_gpu.cpu(), on_cpu, 1e-9)


def test_bad_arguments_are_refused():
    options = {"sign": "minus", "normalization": "max", "temperature": 0}
    arguments = {"baseline": rand(()), "errors": rand(5)}
    for normalization in ("softmax", "none"):
        refuses(importance_weights, arguments | {"normalization": normalization}, errors=rand(2, 3, 4), **options)
    for weights in (rand(4), rand(1, 6, 3)):
        refuses(heatmap, {"features": rand(2, 3, 4, 4), "weights": rand(3)}, features=rand(3, 4, 4), weights=weights)
    refuses(effective_number, {}, weights=rand(3, 0))


@pytest.mark.parametrize(
    ("baseline", "errors"),
    [(rand(5), rand(5)), (rand(1), rand(5)), (rand(()), rand(5, 3)), (rand(1), rand(5, 3)), (rand(5), rand(5, 3))],
)
def test_a_baseline_that_would_broadcast_all_the_same_is_refused(baseline, errors):
    refuses(importance_weights, {"errors": errors}, baseline=baseline)


def test_a_class_without_images_has_no_weights():
    actual = ablation_errors(tiny(), images(), LABELS.clamp_max(1), layer="conv", per_class=True)
    with pytest.raises(ValueError, match="NaN"):
        importance_weights(*actual)


class Rows(nn.Module):
    """Every row of an image is an image to the layer `read`."""

    def __init__(self):
        super().__init__()
        self.read, self.fc = nn.Linear(24, 6), nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.read(x.transpose(1, 2).flatten(0, 1).flatten(1)).view(len(x), -1, 6).mean(1))


@pytest.mark.parametrize("layer", ["read", "read#*"])
def test_layers_without_a_row_for_each_image_are_refused(layer):
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    for weights in (
        lambda: per_sample_weights(Rows(), x, y, layer=layer),
        lambda: mean_excitation_weights(Rows(), x, layer=layer),
    ):
        with pytest.raises(
            ValueError, match=r"layer must (have feature maps|be the name of one layer|be a single call)"
        ):
            weights()
