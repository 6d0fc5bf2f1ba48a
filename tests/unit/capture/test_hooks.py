import functools

import pytest
import torch
import torchvision
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.capture import (
    activations,
    gradients,
    in_batches,
    layer_names,
    logits,
    masked_forward,
    named_modules,
    preserved,
)


def by_hand(inplace=True):
    """x -> 2x -> ReLU -> mean -> (m, -3m): every number below is worked out by hand."""
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2, False)
    )
    with torch.no_grad():
        net[0].weight.fill_(2)
        net[4].weight.copy_(torch.tensor([[1.0], [-3.0]]))
    return net


X = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]])  # conv: 2 -4 6 8; ReLU: 2 0 6 8; mean 4; logits 4 -12


def tiny(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3, stride=2),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(5 * 2 * 2, 3),
    ).double()


def batch(count=2, seed=1):
    return torch.randn(count, 3, 7, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Shared(nn.Module):
    """One ReLU used twice, one layer never used, one that returns a pair, one whose result goes nowhere."""

    def __init__(self, boom=False):
        super().__init__()
        self.conv, self.relu, self.conv2 = nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1)
        self.idle, self.pool, self.aside = nn.Conv2d(1, 1, 1), nn.MaxPool2d(2, return_indices=True), nn.Conv2d(2, 2, 1)
        self.end = Boom() if boom else nn.Identity()

    def forward(self, x):
        x = self.relu(self.conv(x))
        self.aside(x)
        x, _ = self.pool(self.relu(self.conv2(x)))
        return self.end(x).mean((2, 3))


# what is captured


def test_activations_by_hand_survive_an_inplace_relu():
    found = activations(by_hand(), X, ["1", "0", "4", "input"])
    assert list(found) == ["1", "0", "4", "input"]
    assert found["0"].tolist() == [[[[2, -4], [6, 8]]]]
    assert found["1"].tolist() == [[[[2, 0], [6, 8]]]]
    assert found["4"].tolist() == [[4, -12]]
    assert torch.equal(found["input"], X)
    assert not any(one.requires_grad for one in found.values())


@pytest.mark.parametrize("inplace", [True, False])
def test_gradients_by_hand(inplace):
    found = gradients(by_hand(inplace), X, [[0, 1]], ("input", "0", "1"))
    assert found.logits.tolist() == [[4, -12]]
    assert found.activations["0"].tolist() == [[[[2, -4], [6, 8]]]]
    assert found.gradients["1"].tolist() == [[[[[0.25, 0.25], [0.25, 0.25]]], [[[-0.75, -0.75], [-0.75, -0.75]]]]]
    assert found.gradients["0"].tolist() == [[[[[0.25, 0], [0.25, 0.25]]], [[[-0.75, 0], [-0.75, -0.75]]]]]
    assert found.gradients["input"].tolist() == [[[[[0.5, 0], [0.5, 0.5]]], [[[-1.5, 0], [-1.5, -1.5]]]]]
    assert not any(one.requires_grad for part in found[1:] for one in part.values())


def test_gradient_after_softmax_by_hand():
    p = torch.tensor([4.0, -12.0]).softmax(0)
    found = gradients(by_hand(), X, 0, "1", score="probability").gradients["1"]
    torch.testing.assert_close(found, torch.full((1, 1, 2, 2), float(p[0] * p[1])))  # p0 (1 - p0) (0.25 + 0.75)


def test_shapes_follow_the_target():
    net, x = tiny(), batch(2)
    one = gradients(net, x, 1, ["0", "7"]).gradients
    several = gradients(net, x, [[0, 1], [2, 1]], ["0", "7"]).gradients
    assert one["0"].shape == (2, 4, 5, 5)
    assert one["7"].shape == (2, 3)
    assert several["0"].shape == (2, 2, 4, 5, 5)
    assert several["7"].tolist() == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 1, 0]]]
    each = gradients(net, x, torch.tensor([0, 2]), "0").gradients["0"]
    torch.testing.assert_close(several["0"][:, 0], each)
    torch.testing.assert_close(several["0"][:, 1], one["0"])
    torch.testing.assert_close(gradients(net, x[1:], 2, "0").gradients["0"], each[1:])  # a batch of one


@pytest.mark.parametrize("score", ["logit", "probability", "log-odds"])
def test_gradients_against_finite_differences(score):
    net, x, step = tiny().eval(), batch(2), 1e-6
    head = net[4:]
    found = gradients(net, x, 1, ["input", "3"], score=score)

    def value(function, at):
        logits = function(at)
        chance = logits.softmax(1)[:, 1]
        return {"logit": logits[:, 1], "probability": chance, "log-odds": (chance / (1 - chance)).log()}[score].sum()

    with torch.no_grad():
        for name, function, start in [("input", net, x), ("3", head, found.activations["3"])]:
            for index in [(0, 0, 0, 0), (1, 2, 1, 1)]:
                bump = torch.zeros_like(start)
                bump[index] = step
                slope = (value(function, start + bump) - value(function, start - bump)) / (2 * step)
                torch.testing.assert_close(found.gradients[name][index], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["layer2.0.conv1", "layer4", "layer1.1.relu#2", "fc"])
def test_resnet_against_captum(name):
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    x, target = torch.randn(2, 3, 48, 48), torch.tensor([3, 7])
    # captum cannot tell the calls apart; but what the second ReLU gives is what its block returns
    module = net.get_submodule(name.removesuffix(".relu#2"))
    wanted = attr.LayerActivation(net, module).attribute(x)
    product = attr.LayerGradientXActivation(net, module).attribute(x, target=target)
    found = gradients(net, x, target, name)
    torch.testing.assert_close(activations(net, x, name)[name], wanted)
    torch.testing.assert_close(found.activations[name], wanted)
    torch.testing.assert_close(found.gradients[name] * found.activations[name], product)


def test_vgg_with_inplace_relus_against_the_plain_network():
    torch.manual_seed(0)
    net = torchvision.models.vgg11(weights=None, num_classes=4).eval()
    x = torch.randn(1, 3, 32, 32)
    found = gradients(net, x, 2, "features.3")
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    after = net.features[:4](x).detach().requires_grad_()
    logits = net.classifier(net.avgpool(net.features[4:](after)).flatten(1))
    torch.testing.assert_close(found.activations["features.3"], after)
    torch.testing.assert_close(found.gradients["features.3"], torch.autograd.grad(logits[:, 2].sum(), after)[0])


# how it is computed


def test_one_forward_serves_all_classes_and_layers():
    net, runs = tiny(), []
    net.register_forward_pre_hook(lambda *_: runs.append(1))
    gradients(net, batch(2), [[0, 1, 2]] * 2, ["input", "0", "3"])
    assert len(runs) == 1


def test_nothing_is_stored_below_the_first_layer_and_no_weight_is_differentiated():
    net, stored, seen = tiny(), [], {}
    net[3].register_forward_hook(lambda *_: seen.update(below=len(stored), frozen=not net[3].weight.requires_grad))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t) or t, lambda t: t):
        gradients(net, batch(2), 0, "3")
    assert seen == {"below": 0, "frozen": True}
    assert stored


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(context):
    net = tiny()
    wanted = gradients(net, batch(2), 1, "0").gradients["0"]
    with context():
        torch.testing.assert_close(gradients(net, batch(2), 1, "0").gradients["0"], wanted)


def test_the_callers_images_are_left_alone():
    x = batch(1).requires_grad_()
    before = x.detach().clone()
    net = nn.Sequential(nn.ReLU(inplace=True), *tiny())
    gradients(net, x, 1, ["input", "0"])
    activations(net, x, "0")
    assert torch.equal(x, before)
    assert x.grad is None


class Overwriting(nn.Module):
    """Overwrites the storage of its ReLU's output when the ReLU is done."""

    def __init__(self):
        super().__init__()
        self.relu, self.head = nn.ReLU(inplace=True), nn.Flatten()

    def forward(self, x):
        same = self.relu(x)
        x.zero_()
        return self.head(same + 0)


def test_an_activation_is_what_the_layer_returned_whatever_becomes_of_its_storage():
    for found in (activations(Overwriting(), X, "relu"), gradients(Overwriting(), X, 0, "relu").activations):
        assert found["relu"].tolist() == [[[[1, 0], [3, 4]]]]


def test_dtype_is_kept():
    net, x = tiny().float(), batch(1).float()
    found = gradients(net, x, 0, "0")
    assert {found.logits.dtype, found.activations["0"].dtype, found.gradients["0"].dtype} == {torch.float32}
    assert gradients(net.double(), x.double(), 0, "0").gradients["0"].dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_network_on_the_gpu_gives_the_same():
    net, x = tiny(), batch(2)
    wanted = gradients(net, x, [0, 2], "0").gradients["0"]
    found = gradients(net.cuda(), x.cuda(), [0, 2], "0").gradients["0"]
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), wanted)
    masked = masked_forward(net, x.cuda(), {"0": torch.ones(4, 1, 1)})  # a mask on the CPU is carried over
    torch.testing.assert_close(masked.logits, activations(net, x.cuda(), "7")["7"])


# masks


def test_masked_forward_by_hand():
    mask = torch.tensor([[1, 0], [0, 1]], dtype=torch.bool)
    found = masked_forward(by_hand(), X, {"0": mask}, ["0", "1"])  # ReLU(2 0 0 8), mean 2.5
    assert found.logits.tolist() == [[2.5, -7.5]]
    assert found.activations["0"].tolist() == [[[[2, 0], [0, 8]]]]
    assert masked_forward(by_hand(), X, {"input": -torch.ones(()), "1": 2 * torch.ones(1)}).logits.tolist() == [[2, -6]]
    assert masked_forward(by_hand(), X, {}).logits.tolist() == [[4, -12]]


def test_masked_forward_against_the_split_network():
    net, x = tiny().eval(), batch(2)
    mask = torch.rand(2, 4, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        wanted = net[3:](net[:3](x) * mask)
    torch.testing.assert_close(masked_forward(net, x, {"2": mask}).logits, wanted)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 5, 6), (1, 2, 4, 5, 5), (3, 4, 5, 5)])
def test_a_mask_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"masks: the mask of '0' has shape .*broadcasts to \(2, 4, 5, 5\)"):
        masked_forward(tiny(), batch(2), {"0": torch.ones(shape)})


# names


def test_layer_names_in_order_and_by_type():
    net = Shared()
    assert layer_names(net) == ["conv", "relu", "conv2", "idle", "pool", "aside", "end"]
    assert layer_names(net, nn.Conv2d) == ["conv", "conv2", "idle", "aside"]
    assert layer_names(nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh()), (nn.ReLU, nn.Tanh)) == ["0.0", "1"]
    assert named_modules(net, ["relu#2", "input"]) == {"relu": net.relu}
    assert layer_names(nn.ReLU()) == []
    twin = nn.Sequential(nn.Flatten())
    twin.add_module("other", twin[0])  # one module under two names: listed once, either name will do
    assert layer_names(twin) == ["0"]
    assert named_modules(twin, ["other"]) == {"other": twin[0]}


def test_calls_of_a_shared_layer_are_told_apart():
    net, x = Shared(), torch.randn(2, 1, 4, 4)
    found = activations(net, x, ["conv", "relu#1", "conv2", "relu#2"])
    torch.testing.assert_close(found["relu#1"], found["conv"].relu())
    torch.testing.assert_close(found["relu#2"], found["conv2"].relu())
    silent = masked_forward(net, x, {"relu#1": torch.zeros(())}, ["relu#2"]).activations["relu#2"]
    torch.testing.assert_close(silent, net.conv2.bias.relu()[:, None, None].expand(2, 2, 4, 4))
    parts = gradients(net, x, 0, ["relu#1", "relu#2"]).gradients
    assert (parts["relu#2"][:, 1] == 0).all()
    assert (parts["relu#1"][:, 1] != 0).any()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("cnov2", r"no layer 'cnov2'; the nearest names are .*conv2"),
        ("conv9", r"no layer 'conv9'; the nearest names are conv"),
        ("qqq", r"no layer 'qqq'; the nearest names are conv, relu"),
        ("", r"no layer ''"),
        ("relu", r"'relu' runs 2 times; name the call: 'relu#1' .. 'relu#2'"),
        ("relu#3", r"no call 'relu#3'; 'relu' runs 2 times"),
        ("relu#0", r"no call 'relu#0'"),
        ("idle", r"'idle' does not run"),
        ("pool", r"'pool' gives a tuple, wanted a layer that gives one tensor"),
        ([], r"at least one layer"),
        (None, r"a name or a sequence of names, got None"),
        (5, r"got 5"),
        (["conv", 2], r"got \['conv', 2\]"),
        ("conv#", r"no call 'conv#'"),
    ],
)
@pytest.mark.parametrize("method", [activations, lambda net, x, layers: gradients(net, x, 0, layers)])
def test_bad_layers_are_refused(method, layers, message):
    net = Shared()
    with pytest.raises(ValueError, match=message), assert_untouched(net):
        method(net, torch.randn(2, 1, 4, 4), layers)


def test_a_layer_the_logits_do_not_depend_on_is_refused():
    for layers in (["conv", "aside"], ["aside"]):
        with pytest.raises(ValueError, match="do not depend on what aside returned"):
            gradients(Shared(), torch.randn(2, 1, 4, 4), 0, layers)


def test_a_module_called_input_is_ambiguous():
    net = nn.Sequential()
    net.add_module("input", nn.Flatten())
    with pytest.raises(ValueError, match="'input' stands for x"):
        activations(net, X, "input")


def test_a_network_without_logits_is_refused():
    with pytest.raises(ValueError, match=r"logits \(B, classes\) with B = 1, got \(1, 1, 2, 2\)"):
        gradients(nn.Sequential(nn.Conv2d(1, 1, 1)), X, 0, "0")


# images


@pytest.mark.parametrize("x", [X[0], X.long(), X / 0, X.double(), X.expand(-1, 3, -1, -1)])
def test_bad_images_are_refused(x):
    net = by_hand()
    for method in (activations, lambda net, x, layer: gradients(net, x, 0, layer), lambda net, x, _: logits(net, x)):
        with pytest.raises(ValueError, match=r"^x must"), assert_untouched(net):
            method(net, x, "0")


@pytest.mark.parametrize("mask", [None, "all", float("nan"), torch.tensor([1.0, float("inf")])])
def test_a_mask_that_is_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match="masks: the mask of '0'"):
        masked_forward(by_hand(), X, {"0": mask})


# the network is left as it was found


def mixed():
    """Mixed modes, a frozen parameter, a filled .grad, and hooks of the user."""
    net = tiny().train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    net[7].weight.grad = torch.ones_like(net[7].weight)
    net[3].register_forward_hook(lambda *_: None)
    net[0].register_forward_pre_hook(lambda *_: None)
    return net


METHODS = {
    "activations": lambda net, x: activations(net, x, ["0", "2"]),
    "gradients": lambda net, x: gradients(net, x, [[0, 1]] * len(x), ["input", "0", "2"]),
    "masked_forward": lambda net, x: masked_forward(net, x, {"0": torch.zeros(())}, "2"),
    "logits": logits,
    "in_batches": lambda net, x: in_batches(logits, net, x, batch_size=1),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_network_is_untouched(method):
    net = mixed()
    with assert_untouched(net):
        method(net, batch(2))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_network_is_untouched_when_its_forward_raises(method):
    net = nn.Sequential(*mixed(), Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        method(net, batch(2))


def test_preserved_undoes_what_happens_inside():
    net = mixed()
    with assert_untouched(net), preserved(net):
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())
        net.train()
        net[2].inplace = False
        net[4].register_forward_hook(lambda *_: None, with_kwargs=True)
        net[4].register_full_backward_hook(lambda *_: None)
        net[3].weight.requires_grad_(True)
        net[3](torch.ones(1, 4, 5, 5, dtype=torch.float64)).sum().backward()


@pytest.mark.parametrize(
    "trace",
    [
        lambda net: net.train(),
        lambda net: net[2].__setattr__("inplace", False),
        lambda net: net[0].weight.requires_grad_(False),
        lambda net: net[0].weight.__setattr__("grad", torch.zeros_like(net[0].weight)),
        lambda net: net[7].weight.grad.zero_(),
        lambda net: net[0].weight.data.add_(1),
        lambda net: net[1].running_mean.add_(1),
        lambda net: net[5].register_forward_hook(lambda *_: None),
        lambda net: net.__setitem__(2, nn.Identity()),
    ],
)
def test_assert_untouched_sees_every_trace(trace):
    net = mixed()
    with pytest.raises(AssertionError), assert_untouched(net):
        trace(net)
    net, boom = mixed(), Boom()
    with pytest.raises(AssertionError), assert_untouched(net):
        boom(trace(net))


# logits, alone and batch by batch


def test_logits_by_hand_and_in_evaluation_mode():
    assert logits(by_hand(), X).tolist() == [[4, -12]]
    net, x = tiny().train(), batch(3).requires_grad_()
    found = logits(net, x)
    torch.testing.assert_close(found, tiny().eval()(x).detach())
    assert not found.requires_grad
    assert x.grad is None
    torch.testing.assert_close(logits(net, x[1:2]), found[1:2])


def test_logits_refuses_bad_images_and_networks_without_logits():
    with pytest.raises(ValueError, match=r"^x must have shape \(B, C, H, W\), got \(1, 2, 2\)"):
        logits(by_hand(), X[0])
    with pytest.raises(ValueError, match=r"^x must be torch.float32"):
        logits(by_hand(), X.double())
    with pytest.raises(ValueError, match=r"logits \(B, classes\) with B = 1, got \(1, 1, 2, 2\)"):
        logits(nn.Sequential(nn.Conv2d(1, 1, 1)), X)


def test_batches_are_joined_in_order():
    net, x = tiny(), batch(7)
    whole = logits(net, x)
    for size in (1, 2, 3, 7, 100):
        sizes = []
        with torch.no_grad(), preserved(net):
            net.register_forward_pre_hook(lambda _, given, sizes=sizes: sizes.append(len(given[0])))
            torch.testing.assert_close(in_batches(logits, net, x, batch_size=size), whole)
        assert sizes == [size] * (7 // size) + [7 % size] * (7 % size > 0)
    counts = in_batches(lambda _, part: torch.tensor([len(part)]), net, torch.zeros(201, 1, 1, 1))
    assert counts.tolist() == [100, 100, 1]


def test_tensors_as_long_as_the_images_are_cut_along_and_the_rest_is_handed_on():
    seen = []

    def method(model, part, *others):
        seen.append((model, part.flatten().tolist(), *others))
        return part.flatten()

    net, mixed, pair = object(), [1, 2, 3], torch.arange(2)
    x = torch.arange(3.0).view(3, 1, 1, 1)
    number, rows = torch.tensor(5), torch.arange(6).view(3, 2)
    assert in_batches(method, net, x, x * 2, mixed, "abc", pair, number, rows, None, batch_size=2).tolist() == [0, 1, 2]
    assert [one[1] for one in seen] == [[0, 1], [2]]
    assert [one[2].flatten().tolist() for one in seen] == [[0, 2], [4]]
    assert [one[7].tolist() for one in seen] == [[[0, 1], [2, 3]], [[4, 5]]]
    for one in seen:
        assert one[0] is net
        assert one[3] is mixed
        assert one[4] == "abc"
        assert one[5] is pair
        assert one[6] is number
        assert one[8] is None


def test_options_of_a_batched_method_come_with_partial():
    net, x, target = tiny(), batch(3), torch.tensor([0, 2, 1])

    def gradient(model, part, wanted, score):
        return gradients(model, part, wanted, "0", score=score).gradients["0"]

    found = in_batches(functools.partial(gradient, score="probability"), net, x, target, batch_size=2)
    torch.testing.assert_close(found, gradient(net, x, target, "probability"))


@pytest.mark.parametrize("size", [0, -3, 1.5, "2", None])
def test_a_bad_size_of_the_batches_is_refused(size):
    with pytest.raises(ValueError, match=r"^batch_size must be"):
        in_batches(logits, by_hand(), X, batch_size=size)


@pytest.mark.parametrize("x", [None, X[0], X[:0], X.long(), X / 0])
def test_bad_images_are_refused_before_they_are_cut(x):
    def never(*_):
        raise AssertionError("called")

    with pytest.raises(ValueError, match=r"^x must"):
        in_batches(never, by_hand(), x)
