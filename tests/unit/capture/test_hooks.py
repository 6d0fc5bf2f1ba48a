"""What is captured, differentiated and masked at named layers."""

import pytest
import torch
import torchvision
from support.capture import Shared, X, batch, by_hand, mixed, tiny
from support.refuses import refuses
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.capture import activations, gradients, in_batches, logits, masked_forward


def test_activations_by_hand_survive_an_inplace_relu():
    actual = activations(by_hand(), X, ["1", "0", "4", "input"])
    assert list(actual) == ["1", "0", "4", "input"]
    assert actual["0"].tolist() == [[[[2, -4], [6, 8]]]]
    assert actual["1"].tolist() == [[[[2, 0], [6, 8]]]]
    assert actual["4"].tolist() == [[4, -12]]
    assert torch.equal(actual["input"], X)
    assert not any(output.requires_grad for output in actual.values())


@pytest.mark.parametrize("inplace", [True, False])
def test_gradients_by_hand(inplace):
    actual = gradients(by_hand(inplace), X, [[0, 1]], ("input", "0", "1"))
    assert actual.logits.tolist() == [[4, -12]]
    assert actual.activations["0"].tolist() == [[[[2, -4], [6, 8]]]]
    assert actual.gradients["1"].tolist() == [[[[[0.25, 0.25], [0.25, 0.25]]], [[[-0.75, -0.75], [-0.75, -0.75]]]]]
    assert actual.gradients["0"].tolist() == [[[[[0.25, 0], [0.25, 0.25]]], [[[-0.75, 0], [-0.75, -0.75]]]]]
    assert actual.gradients["input"].tolist() == [[[[[0.5, 0], [0.5, 0.5]]], [[[-1.5, 0], [-1.5, -1.5]]]]]
    assert not any(output.requires_grad for part in actual[1:] for output in part.values())


def test_gradient_after_softmax_by_hand():
    p = torch.tensor([4.0, -12.0]).softmax(0)
    actual = gradients(by_hand(), X, 0, "1", score="probability").gradients["1"]
    torch.testing.assert_close(actual, torch.full((1, 1, 2, 2), float(p[0] * p[1])))  # p0 (1 - p0) (0.25 + 0.75)


def test_shapes_follow_the_target():
    net, x = tiny(), batch(2)
    single = gradients(net, x, 1, ["0", "7"]).gradients
    several = gradients(net, x, [[0, 1], [2, 1]], ["0", "7"]).gradients
    assert single["0"].shape == (2, 4, 5, 5)
    assert single["7"].shape == (2, 3)
    assert several["0"].shape == (2, 2, 4, 5, 5)
    assert several["7"].tolist() == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 1, 0]]]
    each = gradients(net, x, torch.tensor([0, 2]), "0").gradients["0"]
    torch.testing.assert_close(several["0"][:, 0], each)
    torch.testing.assert_close(several["0"][:, 1], single["0"])
    torch.testing.assert_close(gradients(net, x[1:], 2, "0").gradients["0"], each[1:])  # a batch of one


@pytest.mark.parametrize("score", ["logit", "probability", "log-odds"])
def test_gradients_against_finite_differences(score):
    net, x, step = tiny().eval(), batch(2), 1e-6
    head = net[4:]
    actual = gradients(net, x, 1, ["input", "3"], score=score)

    def value(function, at):
        logits = function(at)
        chance = logits.softmax(1)[:, 1]
        return {"logit": logits[:, 1], "probability": chance, "log-odds": (chance / (1 - chance)).log()}[score].sum()

    with torch.no_grad():
        for name, function, start in [("input", net, x), ("3", head, actual.activations["3"])]:
            for index in [(0, 0, 0, 0), (1, 2, 1, 1)]:
                bump = torch.zeros_like(start)
                bump[index] = step
                slope = (value(function, start + bump) - value(function, start - bump)) / (2 * step)
                torch.testing.assert_close(actual.gradients[name][index], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["layer2.0.conv1", "layer4", "layer1.1.relu#2", "fc"])
def test_resnet_against_captum(name):
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    x, target = torch.randn(2, 3, 48, 48), torch.tensor([3, 7])
    # captum cannot tell the calls apart; but what the second ReLU gives is what its block returns
    module = net.get_submodule(name.removesuffix(".relu#2"))
    expected = attr.LayerActivation(net, module).attribute(x)
    product = attr.LayerGradientXActivation(net, module).attribute(x, target=target)
    actual = gradients(net, x, target, name)
    torch.testing.assert_close(activations(net, x, name)[name], expected)
    torch.testing.assert_close(actual.activations[name], expected)
    torch.testing.assert_close(actual.gradients[name] * actual.activations[name], product)


def test_vgg_with_inplace_relus_against_the_plain_network():
    torch.manual_seed(0)
    net = torchvision.models.vgg11(weights=None, num_classes=4).eval()
    x = torch.randn(1, 3, 32, 32)
    actual = gradients(net, x, 2, "features.3")
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    after = net.features[:4](x).detach().requires_grad_()
    logits = net.classifier(net.avgpool(net.features[4:](after)).flatten(1))
    torch.testing.assert_close(actual.activations["features.3"], after)
    torch.testing.assert_close(actual.gradients["features.3"], torch.autograd.grad(logits[:, 2].sum(), after)[0])


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
    expected = gradients(net, batch(2), 1, "0").gradients["0"]
    with context():
        torch.testing.assert_close(gradients(net, batch(2), 1, "0").gradients["0"], expected)


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
    for actual in (activations(Overwriting(), X, "relu"), gradients(Overwriting(), X, 0, "relu").activations):
        assert actual["relu"].tolist() == [[[[1, 0], [3, 4]]]]


def test_dtype_is_kept():
    net, x = tiny().float(), batch(1).float()
    actual = gradients(net, x, 0, "0")
    assert {actual.logits.dtype, actual.activations["0"].dtype, actual.gradients["0"].dtype} == {torch.float32}
    assert gradients(net.double(), x.double(), 0, "0").gradients["0"].dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_network_on_the_gpu_gives_the_same():
    net, x = tiny(), batch(2)
    expected = gradients(net, x, [0, 2], "0").gradients["0"]
    actual = gradients(net.cuda(), x.cuda(), [0, 2], "0").gradients["0"]
    assert actual.is_cuda
    torch.testing.assert_close(actual.cpu(), expected)
    masked = masked_forward(net, x.cuda(), {"0": torch.ones(4, 1, 1)})  # a mask on the CPU is carried over
    torch.testing.assert_close(masked.logits, activations(net, x.cuda(), "7")["7"])


# masks


def test_masked_forward_by_hand():
    mask = torch.tensor([[1, 0], [0, 1]], dtype=torch.bool)
    actual = masked_forward(by_hand(), X, {"0": mask}, ["0", "1"])  # ReLU(2 0 0 8), mean 2.5
    assert actual.logits.tolist() == [[2.5, -7.5]]
    assert actual.activations["0"].tolist() == [[[[2, 0], [0, 8]]]]
    assert masked_forward(by_hand(), X, {"input": -torch.ones(()), "1": 2 * torch.ones(1)}).logits.tolist() == [[2, -6]]
    assert masked_forward(by_hand(), X, {}).logits.tolist() == [[4, -12]]


def test_masked_forward_against_the_split_network():
    net, x = tiny().eval(), batch(2)
    mask = torch.rand(2, 4, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        expected = net[3:](net[:3](x) * mask)
    torch.testing.assert_close(masked_forward(net, x, {"2": mask}).logits, expected)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 5, 6), (1, 2, 4, 5, 5), (3, 4, 5, 5)])
def test_a_mask_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"^masks\['0'\] must be a number or broadcast to \(2, 4, 5, 5\), got"):
        masked_forward(tiny(), batch(2), {"0": torch.ones(shape)})


# names


def test_calls_of_a_shared_layer_are_told_apart():
    net, x = Shared(), torch.randn(2, 1, 4, 4)
    actual = activations(net, x, ["conv", "relu#1", "conv2", "relu#2"])
    torch.testing.assert_close(actual["relu#1"], actual["conv"].relu())
    torch.testing.assert_close(actual["relu#2"], actual["conv2"].relu())
    silent = masked_forward(net, x, {"relu#1": torch.zeros(())}, ["relu#2"]).activations["relu#2"]
    torch.testing.assert_close(silent, net.conv2.bias.relu()[:, None, None].expand(2, 2, 4, 4))
    parts = gradients(net, x, 0, ["relu#1", "relu#2"]).gradients
    assert (parts["relu#2"][:, 1] == 0).all()
    assert (parts["relu#1"][:, 1] != 0).any()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("cnov2", r"layer must be one of the network's, got 'cnov2'; the nearest names are .*conv2"),
        ("relu", r"layer must be one call, 'relu#1' .. 'relu#2', got 'relu', which runs 2 times"),
        ("relu#3", r"layer must be a call that there is, 'relu#1' .. 'relu#2', got 'relu#3'"),
        ("conv#", r"layer must be a call that there is, .* got 'conv#'"),
        ("idle", r"layer must run in the forward of this network, got 'idle', which does not"),
        ("pool", r"layer must give one tensor, got 'pool', which gives a tuple"),
        ([], r"layers must name at least one layer, got none"),
        (["conv", 2], "layers must be the name of one layer, or the module itself, got 2"),
    ],
)
@pytest.mark.parametrize("method", [activations, lambda net, x, layers: gradients(net, x, 0, layers)])
def test_bad_layers_are_refused(method, layers, message):
    net = Shared()
    with pytest.raises(ValueError, match=message), assert_untouched(net):
        method(net, torch.randn(2, 1, 4, 4), layers)


def test_a_layer_the_logits_do_not_depend_on_is_refused():
    for layers in (["conv", "aside"], ["aside"]):
        with pytest.raises(ValueError, match=r"^layers must be such that the logits depend on them, got aside"):
            gradients(Shared(), torch.randn(2, 1, 4, 4), 0, layers)


def test_a_network_without_logits_is_refused():
    net = nn.Sequential(nn.Conv2d(1, 1, 1))
    for call in (lambda: gradients(net, X, 0, "0"), lambda: logits(net, X)):
        with pytest.raises(ValueError, match=r"logits \(B, classes\) with B = 1, got \(1, 1, 2, 2\)"):
            call()


def test_bad_arguments_are_refused():
    arguments = {"model": by_hand(), "x": X}
    for x in (X[0], X / 0, X.double()):
        refuses(activations, arguments | {"layers": "0"}, x=x)
        refuses(gradients, arguments | {"layers": "0", "target": 0}, x=x, target=2)
        refuses(masked_forward, arguments | {"masks": {}}, x=x)
        refuses(logits, arguments, x=x)
    for mask in (None, float("nan"), torch.ones(3)):
        refuses(masked_forward, arguments, masks={"0": mask})


# the network is left as it was found


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


def test_logits_by_hand_and_in_evaluation_mode():
    assert logits(by_hand(), X).tolist() == [[4, -12]]
    net, x = tiny().train(), batch(3).requires_grad_()
    actual = logits(net, x)
    torch.testing.assert_close(actual, tiny().eval()(x).detach())
    assert not actual.requires_grad
    assert x.grad is None
    torch.testing.assert_close(logits(net, x[1:2]), actual[1:2])
