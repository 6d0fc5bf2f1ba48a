"""Gradients of other scores than the logit, targets that depend on the logits, layers named call by call, `reduce`."""

import copy
import math

import pytest
import torch
from support.capture import batch
from support.refuses import refuses
from support.tensors import needs_cuda
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.capture import activations, gradients, logits, masked_forward

SCORES = ["logit", "probability", "log-odds"]
each_score = pytest.mark.parametrize("score", SCORES)


def close(actual, expected, atol=1e-12):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def bare(*values):
    """Whatever the image: these logits; the layer "0" gives them."""
    net = nn.Sequential(nn.Linear(1, len(values)), nn.Identity()).double()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.copy_(torch.tensor(values, dtype=torch.float64))
    return nn.Sequential(nn.Flatten(), *net)


ONE = torch.ones(1, 1, 1, 1, dtype=torch.float64)


def tiny(seed=0, inplace=True):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace),
        nn.Conv2d(4, 5, 3, stride=2),
        nn.ReLU(inplace),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(5 * 2 * 2, 6),
        nn.ReLU(inplace),
        nn.Linear(6, 4),
    ).double()


class Calls(nn.Module):
    """`relu` runs on maps, on vectors, on maps again; `once` on maps, `flat` on vectors, `idle` never."""

    def __init__(self, end=None):
        super().__init__()
        torch.manual_seed(2)
        self.relu, self.once, self.flat, self.idle = (nn.ReLU(inplace=True) for _ in range(4))
        self.conv, self.conv2, self.gate = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 4)
        self.conv3, self.fc, self.end = nn.Conv2d(4, 5, 1), nn.Linear(5, 3), end or nn.Identity()
        self.double()

    def forward(self, x):
        x = self.relu(self.conv(x))
        gate = self.relu(self.gate(x.mean((2, 3))))
        x = self.once(self.conv2(x) * gate[..., None, None])
        x = self.relu(self.conv3(x))
        return self.end(self.fc(self.flat(x.mean((2, 3)))))


def by_parts(net, x):
    """The same forward, out of place and in plain sight: name -> what that call of the ReLU gave, and the logits."""
    first = net.conv(x).relu()
    gate = net.gate(first.mean((2, 3))).relu()
    once = (net.conv2(first) * gate[..., None, None]).relu()
    third = net.conv3(once).relu()
    flat = third.mean((2, 3)).relu()
    return {"relu#1": first, "relu#2": gate, "once": once, "relu#3": third, "flat": flat}, net.fc(flat)


# scores


def test_scores_by_hand():
    # chances 1/6, 2/6, 3/6
    net, every = bare(0, math.log(2), math.log(3)), [[0, 1, 2]]
    actual = {score: gradients(net, ONE, every, "1", score=score).gradients["1"][0] for score in SCORES}
    close(actual["logit"], torch.eye(3, dtype=torch.float64))
    assert torch.equal(gradients(net, ONE, every, "1").gradients["1"][0], actual["logit"])  # the default
    # dP_c / dS_j = P_c ([c = j] - P_j), in 36ths
    expected = [[5, -2, -3], [-2, 8, -6], [-3, -6, 9]]
    close(actual["probability"], torch.tensor(expected, dtype=torch.float64) / 36)
    # d log-odds / dS_c = 1, / dS_j = -P_j / (1 - P_c)
    expected = [[1, -2 / 5, -3 / 5], [-1 / 4, 1, -3 / 4], [-1 / 3, -2 / 3, 1]]
    close(actual["log-odds"], torch.tensor(expected, dtype=torch.float64))


def test_the_log_odds_is_the_logits_difference_for_two_classes():
    actual = gradients(bare(0.3, -5), ONE, [[0, 1]], "1", score="log-odds").gradients["1"]
    assert actual.tolist() == [[[1, -1], [-1, 1]]]


@pytest.mark.parametrize("layers", [["input"], ["0", "2", "4", "7"]])
def test_the_gradient_of_the_log_odds_has_the_direction_of_the_probabilitys(layers):
    net, x, every = tiny(), batch(3), [[0, 1, 2, 3]] * 3
    p = copy.deepcopy(net).eval()(x).detach().softmax(1)
    odds, chance = (gradients(net, x, every, layers, score=s).gradients for s in ("log-odds", "probability"))
    for name in layers:
        # log P / (1 - P) has the derivative 1 / P + 1 / (1 - P) = 1 / (P (1 - P))
        factor = (p * (1 - p)).view(3, 4, *[1] * (odds[name].ndim - 2))
        close(chance[name], factor * odds[name])
        assert odds[name].abs().amax() > 1e-3


@each_score
@pytest.mark.parametrize("name", ["input", "0", "2"])
def test_scores_against_autograd(score, name):
    net, x = tiny(), batch(2)
    actual = gradients(net, x, [1, 3], name, score=score)
    depth = {"input": 0, "0": 1, "2": 3}[name]
    plain = tiny(inplace=False).eval()
    start = plain[:depth](x).detach().requires_grad_()
    out = plain[depth:](start)
    p = out.softmax(1)
    values = {"logit": out, "probability": p, "log-odds": (p / (1 - p)).log()}[score]
    (expected,) = torch.autograd.grad(values[0, 1] + values[1, 3], start)
    close(actual.gradients[name], expected, 1e-10)
    close(actual.activations[name], start.detach())
    close(actual.logits, out.detach())
    assert not any(
        part.requires_grad for part in (actual.logits, *actual.activations.values(), *actual.gradients.values())
    )
    both = gradients(net, x, [[1, 2], [3, 0]], name, score=score).gradients[name]
    assert both.shape == (2, 2, *start.shape[1:])
    close(both[:, 0], actual.gradients[name])
    alone = gradients(net, x[1:], 3, name, score=score).gradients[name]
    close(alone, expected[1:], 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_the_softmax_is_saturated_only_the_log_odds_has_a_gradient(dtype):
    net, x = bare(1000.0, 0.0, math.log(3)).to(dtype), ONE.to(dtype)
    actual = {s: gradients(net, x, [[0, 1, 2]], "1", score=s).gradients["1"][0] for s in ("probability", "log-odds")}
    assert (actual["probability"] == 0).all()
    # beside 1000 the other logits do not count; among themselves they have 1/4 and 3/4
    close(actual["log-odds"], torch.tensor([[1, -0.25, -0.75], [-1, 1, 0], [-1, 0, 1]], dtype=dtype), 1e-6)
    # and through a whole network
    net = tiny().to(dtype)
    with torch.no_grad():
        net[9].bias[2] += 1000
    images, every = batch(2).to(dtype), [[0, 1, 2, 3]] * 2
    assert (gradients(net, images, every, "0", score="probability").gradients["0"] == 0).all()
    odds = gradients(net, images, every, "0", score="log-odds").gradients["0"]
    assert odds.dtype == dtype
    assert torch.isfinite(odds).all()
    assert (odds.abs().amax((2, 3, 4)) > 1e-3).all()


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_a_constant_added_to_all_logits_changes_no_log_odds(shift):
    actual = gradients(bare(*(v + shift for v in (0.0, 0.5, 2.0))), ONE, 1, "1", score="log-odds").gradients["1"]
    expected = gradients(bare(0.0, 0.5, 2.0), ONE, 1, "1", score="log-odds").gradients["1"]
    close(actual, expected, 1e-9)


def test_one_class_has_no_odds():
    net = bare(3.0)
    for score in ("log-odds", "probability"):
        message = rf"^model must have two classes at least for score=\"{score}\", got 1"
        with pytest.raises(ValueError, match=message), assert_untouched(net):
            gradients(net, ONE, 0, "1", score=score)
    assert gradients(net, ONE, 0, "1").gradients["1"].tolist() == [[1]]


# a target that depends on the logits


@pytest.mark.parametrize(
    "function",
    [
        lambda scores: 2,
        lambda scores: scores.argmax(1),
        lambda scores: scores.topk(3, dim=1).indices,
        lambda scores: scores.argsort(1).tolist(),
        lambda scores: scores.argmin(1).int(),
    ],
)
@each_score
def test_a_target_may_be_a_function_of_the_logits(function, score):
    net, x, runs, seen = tiny(), batch(3), [], []

    def target(scores):
        seen.append(scores)
        return function(scores)

    want = copy.deepcopy(net).eval()(x).detach()
    net.register_forward_pre_hook(lambda *_: runs.append(1))
    actual = gradients(net, x, target, ["0", "2"], score=score)
    assert len(runs) == len(seen) == 1
    close(seen[0], want)
    assert not seen[0].requires_grad
    expected = gradients(net, x, function(want), ["0", "2"], score=score)
    for name in ("0", "2"):
        assert torch.equal(actual.gradients[name], expected.gradients[name])
    assert torch.equal(actual.logits, expected.logits)


def test_bad_scores_and_what_the_function_gives_are_refused():
    arguments = {"model": tiny(), "x": batch(2), "target": 0, "layers": "0"}
    refuses(gradients, arguments, score="odds")
    for bad in (4, None, [0], torch.zeros(2, 4)):
        refuses(gradients, arguments, target=lambda scores, bad=bad: bad)
    for name in ("rleu#*", "input#*", "relu#**", "relu#4", "relu"):
        calls = {"model": Calls(), "x": torch.randn(1, 3, 8, 9, dtype=torch.float64)}
        refuses(activations, calls, layers=name)
        refuses(gradients, calls | {"target": 0}, layers=name)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@each_score
def test_a_function_of_the_logits_in_any_gradient_mode(context, score):
    net, x = tiny(), batch(2)
    expected = gradients(net, x, [[0, 1]] * 2, "0", score=score).gradients["0"]
    with context():
        fixed = torch.tensor([[0, 1]] * 2)
        actual = gradients(net, x.clone(), lambda scores: fixed, "0", score=score)
        close(actual.gradients["0"], expected)
        close(gradients(net, x.clone(), fixed, "0", score=score).gradients["0"], expected)


# reduce


def test_gradients_are_reduced_class_by_class_and_layer_by_layer():
    net, x, seen = tiny(), batch(2), []

    def reduce(g):
        seen.append((tuple(g.shape), g.requires_grad))
        return g.amax(1)

    full = gradients(net, x, [[0, 2, 3]] * 2, ["0", "4"], score="log-odds")
    actual = gradients(net, x, [[0, 2, 3]] * 2, ["0", "4"], score="log-odds", reduce=reduce)
    assert sorted(seen) == sorted([((2, 4, 5, 5), False), ((2, 5, 2, 2), False)] * 3)
    for name in ("0", "4"):
        assert torch.equal(actual.gradients[name], full.gradients[name].amax(2))
        assert torch.equal(actual.activations[name], full.activations[name])  # as they are
        assert not actual.gradients[name].requires_grad
    assert actual.gradients["0"].shape == (2, 3, 5, 5)
    for target in (2, [2, 2]):
        alone = gradients(net, x, target, "0", score="log-odds", reduce=reduce).gradients["0"]
        assert alone.shape == (2, 5, 5)
        close(alone, actual.gradients["0"][:, 1])
    assert gradients(net, x, 0, "0", reduce=lambda g: g.flatten(1)).gradients["0"].shape == (2, 100)


def test_masked_activations_are_reduced():
    net, x, seen = tiny(), batch(2), []

    def reduce(y):
        seen.append(tuple(y.shape))
        return y.sum(1)

    # "1" is overwritten by the ReLU in place that follows: it is reduced before
    mask = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=torch.float64).view(4, 1, 1)
    full = masked_forward(net, x, {"1": mask}, ["1", "4"])
    actual = masked_forward(net, x, {"1": mask}, ["1", "4"], reduce=reduce)
    assert seen == [(2, 4, 5, 5), (2, 5, 2, 2)]
    assert torch.equal(actual.logits, full.logits)
    assert list(actual.activations) == ["1", "4"]
    with torch.no_grad():
        plain = tiny(inplace=False).eval()
        after = plain[:2](x) * mask
        close(actual.activations["1"], after.sum(1))
        close(full.activations["1"], after)
        close(actual.activations["4"], plain[2:5](after).sum(1))
        close(actual.logits, plain[2:](after))
    assert masked_forward(net, x, {}, reduce=reduce).activations == {}  # nothing asked for, nothing reduced
    assert len(seen) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda net, x: gradients(net, x, lambda scores: Boom()(scores), "0"),
        lambda net, x: gradients(net, x, 0, "0", reduce=Boom()),
        lambda net, x: masked_forward(net, x, {}, "2", reduce=Boom()),
        lambda net, x: gradients(nn.Sequential(*net, Boom()), x, lambda scores: 0, "2#*", score="log-odds"),
    ],
)
def test_the_network_is_untouched_when_what_it_is_given_raises(call):
    net = tiny().train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    net[9].weight.grad = torch.ones_like(net[9].weight)
    net[2].register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        call(net, batch(2))


@each_score
def test_the_network_and_the_images_are_untouched(score):
    net, x = tiny().train(), batch(2).requires_grad_()
    before = x.detach().clone()
    net[9].weight.grad = torch.ones_like(net[9].weight)
    with assert_untouched(net):
        gradients(
            net, x, lambda scores: scores.topk(2).indices, ["input", "2#*"], score=score, reduce=lambda g: g.sum(1)
        )
    assert torch.equal(x, before)
    assert x.grad is None


# calls of one module


def test_all_calls_with_feature_maps_after_the_layers_that_are_named():
    net, x = Calls(), torch.randn(2, 3, 8, 9, dtype=torch.float64)
    parts, out = by_parts(net, x)
    names = ["relu#*", "once#*", "flat#*", "idle#*"]
    for layers, expected in [
        ("relu#*", ["relu#1", "relu#3"]),
        (["once#*", "conv", "flat#*"], ["conv", "once"]),
        (["conv", "once#*"], ["conv", "once"]),
    ]:
        actual = gradients(net, x, 1, layers)
        assert list(actual.gradients) == list(actual.activations) == expected
        assert list(activations(net, x, layers)) == expected
    actual, forward = gradients(net, x, 1, names), activations(net, x, names)
    close(actual.logits, out.detach())
    own = [parts[name] for name in ("relu#1", "relu#3", "once")]
    assert sorted(actual.gradients) == sorted(forward) == ["once", "relu#1", "relu#3"]
    for name, y, g in zip(("relu#1", "relu#3", "once"), own, torch.autograd.grad(out[:, 1].sum(), own), strict=True):
        close(actual.activations[name], y.detach())
        close(forward[name], y.detach())
        close(actual.gradients[name], g)


def test_all_calls_equal_the_calls_named_one_by_one_and_a_call_named_twice_is_given_once():
    net, x = Calls(), torch.randn(2, 3, 8, 9, dtype=torch.float64)
    options = {"score": "log-odds", "reduce": lambda g: g.amax(1)}
    named = gradients(net, x, [[0, 2]] * 2, ["relu#1", "relu#3", "once"], **options).gradients
    for layers in (["relu#*", "once#*"], ["relu#*", "relu#1"], ["relu#3", "relu#*"], ["once", "once#*", "relu#*"]):
        actual = gradients(net, x, [[0, 2]] * 2, layers, **options).gradients
        assert actual.keys() == {"relu#1", "relu#3"} | ({"once"} if "once#*" in layers else set())
        for name, g in actual.items():
            assert g.shape == (2, 2, *((6, 7) if name == "relu#1" else (4, 5)))
            close(g, named[name])
        assert activations(net, x, layers).keys() == actual.keys()


def test_a_vector_call_can_be_named_but_not_swept():
    net, x = Calls(), torch.randn(2, 3, 8, 9, dtype=torch.float64)
    actual = activations(net, x, ["relu#2", "flat"])
    parts, _ = by_parts(net, x)
    close(actual["relu#2"], parts["relu#2"].detach())
    close(actual["flat"], parts["flat"].detach())
    assert gradients(net, x, 0, ["relu#*", "relu#2"]).gradients.keys() == {"relu#1", "relu#2", "relu#3"}


@pytest.mark.parametrize("layers", ["flat#*", "idle#*", ["flat#*", "idle#*"]])
def test_where_no_call_gives_feature_maps_there_is_no_gradient(layers):
    net = Calls()
    with (
        pytest.raises(
            ValueError, match=r"^layers must name one that gives feature maps \(B, C, h, w\), got none that does"
        ),
        assert_untouched(net),
    ):
        gradients(net, torch.randn(1, 3, 8, 9, dtype=torch.float64), 0, layers)


def test_a_module_with_two_names_has_its_calls_under_both():
    torch.manual_seed(0)
    relu = nn.ReLU(inplace=True)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), relu, nn.Conv2d(2, 2, 3), relu, nn.Flatten(), nn.Linear(18, 3)).double()
    actual = activations(net, batch(1), ["1#*", "3#*"])
    assert sorted(actual) == ["1#1", "1#2", "3#1", "3#2"]
    close(actual["1#2"], actual["3#2"])
    assert actual["1#1"].shape == (1, 2, 5, 5)


def test_masks_of_calls():
    net, x = Calls(), torch.randn(2, 3, 8, 9, dtype=torch.float64)
    mask = torch.rand(2, 1, 4, 5, dtype=torch.float64)
    actual = masked_forward(net, x, {"relu#3": mask}, ["relu#1", "relu#3"], reduce=lambda y: y.sum(1))
    parts, _ = by_parts(net, x)
    close(actual.activations["relu#1"], parts["relu#1"].sum(1).detach())
    close(actual.activations["relu#3"], (parts["relu#3"] * mask).sum(1).detach())
    close(actual.logits, net.fc((parts["relu#3"] * mask).mean((2, 3))).detach())


def unless_refused(call):
    """What the call gives, or None where a ValueError says what argument is wrong."""
    try:
        return call()
    except ValueError as error:
        refusal = str(error)
    assert refusal.startswith(("layer", "masks", "capture"))
    return None


@pytest.mark.parametrize(("call", "names"), [("relu#*", ["relu#1", "relu#3"]), ("once#*", ["once"])])
def test_masks_and_captures_of_all_calls_are_written_and_given_or_refused(call, names):
    # "relu#*" stands for all its calls that give feature maps: a mask of that name is not passed over in silence
    net, x = Calls(), torch.randn(2, 3, 8, 9, dtype=torch.float64)
    silenced = torch.zeros((), dtype=torch.float64)
    actual = unless_refused(lambda: masked_forward(net, x, {call: silenced}))
    if actual is not None:
        close(actual.logits, masked_forward(net, x, dict.fromkeys(names, silenced)).logits)
    actual = unless_refused(lambda: masked_forward(net, x, {}, call))
    if actual is not None:
        assert list(actual.activations) == names
    half = {names[-1]: torch.tensor(0.5, dtype=torch.float64)}
    actual = unless_refused(lambda: masked_forward(net, x, half, call))
    if actual is not None:  # masked once, not once for each name
        close(actual.activations[names[-1]], masked_forward(net, x, half, names[-1]).activations[names[-1]])


@needs_cuda
@each_score
def test_scores_on_the_gpu_are_the_same(score):
    net, x = Calls(), torch.randn(2, 3, 8, 9, dtype=torch.float64)
    options = {"score": score, "reduce": lambda g: g.amax(1)}
    top = lambda scores: scores.topk(2).indices  # noqa: E731
    expected = gradients(net, x, top, ["relu#*", "once#*"], **options)
    actual = gradients(net.cuda(), x.cuda(), top, ["relu#*", "once#*"], **options)
    for name, g in actual.gradients.items():
        assert g.is_cuda
        close(g.cpu(), expected.gradients[name], 1e-10)
    # a target on the CPU is carried over
    fixed = torch.tensor([0, 1])
    assert gradients(net, x.cuda(), lambda scores: fixed, "once", score=score).gradients["once"].is_cuda


@pytest.mark.parametrize("made", [lambda y: y.argsort(1), lambda y: y.to(torch.complex64)])
def test_logits_must_be_floating_point(made):
    class Net(nn.Flatten):
        def forward(self, x):
            return made(super().forward(x))

    with pytest.raises(ValueError, match="model must return logits of floating-point numbers, got torch"):
        logits(Net(), torch.rand(2, 1, 2, 2))


def test_a_single_logit_is_refused_with_a_way_out():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match='two classes at least for score="log-odds", got 1; score="logit" takes it'):
        gradients(net, torch.rand(2, 1, 2, 2), 0, "input", score="log-odds")
