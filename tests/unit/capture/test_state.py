"""Names of layers, and networks left as they were found."""

import copy

import pytest
import torch
from support.capture import Shared, X, mixed
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers import saliency
from helpers.capture import activations, gradients, layer_names, logits, named_modules, preserved


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


def test_a_module_called_input_is_ambiguous():
    net = nn.Sequential()
    net.add_module("input", nn.Flatten())
    with pytest.raises(ValueError, match=r"^model must have no module named 'input', which stands for x"):
        activations(net, X, "input")


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


# images that do not fit, and networks that are odd


def classifier(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (IMAGES.double(), "x must be torch.float32, as the network's weights are, got torch.float64"),
        (IMAGES[:, :1], r"x must have 3 channels, \(B, 3, H, W\), got \(2, 1, 8, 8\)"),
        (IMAGES.to("meta"), "x must hold numbers, got a tensor on the meta device"),
        (
            torch.rand(2, 3, 9, 9),
            r"x must fit the network, got \(2, 3, 9, 9\) of torch.float32, .*196",
        ),
    ],
)
def test_images_that_do_not_fit_are_found_out_by_running(x, message):
    net = classifier()
    with pytest.raises(ValueError, match=message), assert_untouched(net):
        logits(net, x)


class Gray(nn.Module):
    """Makes three colours of one itself, and holds its head before its stem."""

    def __init__(self):
        super().__init__()
        self.head, self.stem = nn.Conv2d(8, 4, 1), nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.head(self.stem(x.repeat(1, 3, 1, 1)).relu()).mean((2, 3))


def test_what_a_network_takes_is_not_read_off_its_weights():
    torch.manual_seed(0)
    net, x = Gray(), IMAGES[:, :1].clone().requires_grad_()
    expected = torch.autograd.grad(net(x)[:, 1].sum(), x)[0]
    torch.testing.assert_close(saliency.input_gradient(net, x, 1), expected)


def test_batch_normalisation_without_statistics_is_refused_where_images_would_mix():
    net = classifier(nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ValueError, match=r"images of a batch independently, .* in '1': give it one image a pass"):
        saliency.input_gradient(net, IMAGES, 1)
    x = IMAGES[:1].clone().requires_grad_()
    torch.testing.assert_close(saliency.input_gradient(net, x, 1), torch.autograd.grad(net(x)[0, 1], x)[0])


class Counting(nn.Module):
    """Writes into its buffer, and keeps a tensor that is neither buffer nor parameter."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.last = torch.ones(1)

    def forward(self, x):
        self.count += 1
        self.last = x.mean()
        return x


def test_buffers_and_other_tensors_are_put_back():
    net = classifier(Counting())
    with assert_untouched(net):
        saliency.occlusion(net, IMAGES, 1, window=4, stride=4)


def test_a_network_made_in_inference_mode_runs_and_is_refused_for_gradients():
    with torch.inference_mode():
        net = classifier()
    assert logits(net, IMAGES).shape == (2, 5)
    assert all(parameter.requires_grad for parameter in net.parameters())
    with pytest.raises(ValueError, match=r"must be made outside torch.inference_mode\(\) for gradients"):
        gradients(net, IMAGES, 1, "input")


def test_a_compiled_network_gives_the_values_of_the_one_it_was_made_of():
    net = classifier()
    compiled = torch.compile(copy.deepcopy(net), backend="eager")
    ours = gradients(compiled, IMAGES, 1, ["input", "_orig_mod.1"]).gradients
    theirs = gradients(net, IMAGES, 1, ["input", "1"]).gradients
    torch.testing.assert_close(ours["input"], theirs["input"])
    torch.testing.assert_close(ours["_orig_mod.1"], theirs["1"])


def test_ways_that_cannot_be_differentiated_are_named():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.end = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x):
            from torch.utils.checkpoint import checkpoint

            return self.end(checkpoint(self.conv, x, use_reentrant=True).relu().mean((2, 3)))

    with pytest.raises(ValueError, match=r"cannot be differentiated .*use_reentrant=True"):
        gradients(Checkpointed(), IMAGES, 1, "conv")


class Undefined(torch.autograd.Function):
    """A function without a gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.relu()


UNDIFFERENTIABLE = {
    "no backward": Undefined.apply,
    "numbers taken out": lambda x: torch.from_numpy(x.numpy()),
    "overwritten": lambda x: x.exp().add_(1).exp_().add_(1),
}


@pytest.mark.parametrize("step", UNDIFFERENTIABLE.values(), ids=UNDIFFERENTIABLE)
def test_what_torch_cannot_differentiate_is_said_with_a_way_out(step):
    class Net(nn.Sequential):
        def forward(self, x):
            return step(super().forward(x))

    net, x = Net(nn.Flatten(), nn.Linear(12, 2)), torch.rand(2, 3, 2, 2)
    assert logits(net, x).shape == (2, 2)
    with (
        assert_untouched(net),
        pytest.raises(ValueError, match=r"differentiate it, .* occlusion and CAM need no gradient"),
    ):
        gradients(net, x, 1, "input")


def test_lazy_layers_must_have_run():
    with pytest.raises(ValueError, match=r"lazy layers that have never run: call model\(x\) once"):
        logits(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), torch.rand(2, 3, 2, 2))
