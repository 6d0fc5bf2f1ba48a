"""Class models by hand, on networks whose best image is known."""

import pytest
import torch
from support.refuses import refuses
from support.saliency import batch, score, tiny
from torch import nn

from helpers.saliency import class_model


def linear(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 4, 3)).to(dtype)


def weights(net):
    return net[1].weight.detach().view(-1, 2, 3, 4)


def test_a_class_models_first_steps_by_hand():
    net = linear()
    w, b = weights(net)[1], net[1].bias.detach()[1]
    actual = class_model(net, 1, (2, 3, 4), l2=0.5, lr=0.25, steps=2)
    second = 0.25 * w + 0.25 * (w - 0.25 * w)  # x + lr (w - 2 l2 x) with 2 l2 = 1
    torch.testing.assert_close(actual.image, second)
    square = w.square().sum()
    expected = [b, b + 0.25 * square - 0.5 * 0.0625 * square, b + (w * second).sum() - 0.5 * second.square().sum()]
    torch.testing.assert_close(actual.objective, torch.stack(expected))


def test_a_linear_networks_class_model_is_its_weights_over_twice_the_penalty():
    net = linear()
    actual = class_model(net, [0, 1, 2], (2, 3, 4), l2=0.1, lr=1.0, steps=200)
    torch.testing.assert_close(actual.image, weights(net) / 0.2)
    best = weights(net).square().sum((1, 2, 3)) / 0.4 + net[1].bias.detach()
    torch.testing.assert_close(actual.objective[:, -1], best)
    at_once = class_model(net, 2, (2, 3, 4), l2=0.1, lr=5.0, steps=1)  # lr = 1 / (2 l2)
    torch.testing.assert_close(at_once.image, weights(net)[2] / 0.2)
    there = class_model(net, 2, (2, 3, 4), l2=0.1, steps=3, start=weights(net)[2] / 0.2)
    torch.testing.assert_close(there.image, weights(net)[2] / 0.2)


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_the_objective_rises_from_the_score_of_the_zero_image(act):
    net = tiny(act=act)
    actual = class_model(net, [2, 0], (3, 7, 7), lr=0.05, steps=30)
    assert actual.image.shape == (2, 3, 7, 7)
    assert actual.objective.shape == (2, 31)
    zero = net(torch.zeros(1, 3, 7, 7, dtype=torch.float64))[0, [2, 0]].detach()
    torch.testing.assert_close(actual.objective[:, 0], zero)
    assert (actual.objective.diff(dim=1) > 0).all()
    last = torch.stack([score(net, actual.image, 2)[0], score(net, actual.image, 0)[1]])
    torch.testing.assert_close(actual.objective[:, -1], last - 0.01 * actual.image.square().sum((1, 2, 3)))


def test_class_models_of_several_classes_equal_single_ones():
    net = tiny()
    several = class_model(net, torch.tensor([2, 0, 2]), (3, 7, 7), steps=5)
    for k, target in enumerate([2, 0, 2]):
        single = class_model(net, target, (3, 7, 7), steps=5)
        assert single.image.shape == (3, 7, 7)
        assert single.objective.shape == (6,)
        torch.testing.assert_close(several.image[k], single.image)
        torch.testing.assert_close(several.objective[k], single.objective)
    assert class_model(net, [1], (3, 7, 7), steps=1).image.shape == (1, 3, 7, 7)
    assert class_model(net, torch.tensor(1), (3, 7, 7), steps=1).image.shape == (3, 7, 7)


@pytest.mark.parametrize("start", [0.5, batch(), batch()[0]])
def test_a_class_model_begins_where_it_is_told_to(start):
    net, before = tiny(), torch.as_tensor(start).clone()
    full = before.to(torch.float64).expand(2, 3, 7, 7)
    actual = class_model(net, [1, 0], (3, 7, 7), steps=3, start=start)
    expected = net(full).detach()[[0, 1], [1, 0]] - 0.01 * full.square().sum((1, 2, 3))
    torch.testing.assert_close(actual.objective[:, 0], expected)
    assert torch.equal(torch.as_tensor(start), before)


def test_a_class_model_has_the_networks_dtype_and_no_graph():
    for dtype in (torch.float32, torch.float64):
        actual = class_model(linear(dtype), 0, (2, 3, 4), steps=2)
        assert {actual.image.dtype, actual.objective.dtype} == {dtype}
        assert not actual.image.requires_grad
        assert not actual.objective.requires_grad
    started = class_model(linear(), 0, (2, 3, 4), steps=2, start=torch.ones(2, 3, 4).requires_grad_())
    assert not started.image.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_class_model_in_any_gradient_mode(context):
    net = tiny()
    expected = class_model(net, [0, 1], (3, 7, 7), steps=3).image
    with context():
        actual = class_model(net, [0, 1], (3, 7, 7), steps=3).image
    torch.testing.assert_close(actual, expected)


def test_an_ascent_that_diverges_is_refused():
    with pytest.raises(ValueError, match=r"^lr must be lower: the objective is no longer finite .*got 10"):
        class_model(linear(torch.float32), 0, (2, 3, 4), l2=1.0, lr=10.0)


def test_class_models_of_what_is_no_classifier_are_refused():
    with pytest.raises(ValueError, match=r"^model must return logits \(B, classes\)"):
        class_model(tiny()[:2], 0, (3, 7, 7))
    with pytest.raises(ValueError, match="3 channels"):
        class_model(tiny(), 0, (1, 7, 7))


def test_bad_arguments_are_refused():
    arguments = {"model": tiny(), "target": 1, "shape": (3, 7, 7)}
    refuses(class_model, arguments, target=3, shape=(3, 7), steps=0, l2=-0.1, lr=0, start=torch.zeros(4, 7, 7))
    refuses(class_model, arguments, target=[[0, 1]], shape=(3, 7, 0), start=float("nan"))


def test_an_objective_that_never_moves_is_said():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        net[0].weight.fill_(1)
        net[0].bias.copy_(torch.tensor([-1.0, 1.0]))
    with pytest.warns(UserWarning, match=r"never moves for classes \[0\]"):
        class_model(net, [0, 1], (1, 4, 4), steps=2)


def test_the_penalty_of_a_large_half_precision_image_is_finite():
    net = nn.Sequential(nn.Flatten(), nn.Linear(40_000, 2, bias=False)).half()
    with torch.no_grad():
        net[1].weight.zero_()
    objective = class_model(net, 0, (1, 200, 200), steps=1, start=2.0, lr=1.0).objective
    torch.testing.assert_close(objective[0].item(), -0.01 * 4 * 40_000, rtol=1e-3, atol=0)
