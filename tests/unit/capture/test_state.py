"""Names of layers, and networks left as they were found."""

import copy
from contextlib import nullcontext

import pytest
import torch
from support.capture import Shared, X, mixed
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers import cam, compare, licnn, saliency
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
        lambda net: net[1].running_mean.resize_(1, 4),
        lambda net: net[1]._buffers.update(running_var=net[1].running_var.clone()),
        lambda net: net[5].register_forward_hook(lambda *_: None),
        lambda net: net[5].register_forward_pre_hook(lambda *_: None),
        lambda net: net[5].register_full_backward_hook(lambda *_: None),
        lambda net: net[5].__setattr__("forward", lambda x: x),
        lambda _: torch.set_grad_enabled(False),
        lambda _: torch.set_default_dtype(torch.float64),
        lambda _: torch.use_deterministic_algorithms(True),
        lambda _: torch.set_autocast_enabled("cpu", True),
        lambda _: torch.rand(1),
        lambda net: net.__setitem__(2, nn.Identity()),
    ],
)
def test_assert_untouched_sees_every_trace(trace):
    for after in (nn.Identity(), Boom()):
        net = mixed()
        try:
            with pytest.raises(AssertionError), assert_untouched(net, draws=False):
                after(trace(net))
        finally:
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
            torch.use_deterministic_algorithms(False)
            torch.set_autocast_enabled("cpu", False)


# images that do not fit, and networks that are odd


def classifier(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


WITHOUT = ("occlusion", "rise", "class_activation_map", "score_cam")
GRADIENT_METHODS = [name for name in compare.METHODS if name not in WITHOUT]
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


class TwoPrecisions(nn.Module):
    """Casts what it is given to bfloat16 itself, and goes on in single precision."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.end, self.body = nn.Linear(8, 4), nn.Conv2d(3, 8, 3).bfloat16()

    def forward(self, x):
        return self.end(self.body(x.bfloat16()).relu().mean((2, 3)).float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_network_of_two_precisions_takes_whatever_it_runs_with(dtype):
    net, x = TwoPrecisions(), IMAGES.to(dtype).requires_grad_()
    expected = torch.autograd.grad(net(x)[:, 1].sum(), x)[0]
    actual = saliency.input_gradient(net, x, 1)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert cam.grad_cam(net, x, 1, "body").shape == (2, 6, 6)


def test_batch_normalisation_without_statistics_is_refused_where_images_would_mix():
    net = classifier(nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ValueError, match=r"images of a batch independently, .* in '1': give it one image a pass"):
        saliency.input_gradient(net, IMAGES, 1)
    x = IMAGES[:1].clone().requires_grad_()
    torch.testing.assert_close(saliency.input_gradient(net, x, 1), torch.autograd.grad(net(x)[0, 1], x)[0])


class Counting(nn.Module):
    """Writes into buffers and other tensors: in place, past autograd, in other shapes; and keeps one of its input."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("seen", torch.zeros(0))
        self.register_buffer("table", torch.zeros(300, 300))  # as large as is copied by itself
        self.last, self.plain, self.wide = torch.ones(1), torch.zeros(2), torch.zeros(1).expand(4)

    def forward(self, x):
        self.count += 1
        self.mean.data.add_(1)  # not counted in the tensor's version
        self.seen.resize_(len(self.seen) + 1).fill_(1)
        self.table[0] += 1
        self.plain += 1
        self.wide[:1] += 1
        self.last = x.mean()
        self.first = x.sum()
        return x


def test_buffers_and_other_tensors_are_put_back():
    net = classifier(Counting())
    net(IMAGES)  # what a forward sets for the first time stays
    with assert_untouched(net):
        saliency.occlusion(net, IMAGES, 1, window=4, stride=4)
    boom = nn.Sequential(net[:2], Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(boom):
        logits(boom, IMAGES)


ODD = {
    "meta": lambda: torch.empty(4, device="meta"),
    "sparse": lambda: torch.eye(4).to_sparse(),
    "compressed": lambda: torch.eye(4).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.qint8),
    "complex": lambda: torch.ones(3, dtype=torch.complex64).conj(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_buffers_of_every_kind_are_borne(make):
    net = classifier()
    net.register_buffer("odd", make())
    assert torch.equal(logits(net, IMAGES), logits(classifier(), IMAGES))


@pytest.mark.filterwarnings("ignore")
def test_a_sparse_buffer_is_put_back():
    net = classifier()
    net.register_buffer("odd", torch.eye(4).to_sparse())

    def double(module, _inputs):
        module.odd.mul_(2)

    net.register_forward_pre_hook(double)
    before = net.odd.to_dense()
    logits(net, IMAGES)
    assert torch.equal(net.odd.to_dense(), before)


def test_a_graph_of_the_caller_is_not_broken():
    net = classifier(nn.BatchNorm2d(4))  # whose running statistics the graph holds
    loss = net(IMAGES).sum()
    saliency.occlusion(net, IMAGES, 1, window=4, stride=4)
    loss.backward()
    assert net[0].weight.grad is not None


def test_a_scripted_network_is_put_back_into_training():
    with pytest.warns(FutureWarning, match="deprecated") if torch.__version__ >= "2.10" else nullcontext():
        net = torch.jit.script(classifier(nn.Dropout(0.5)).train())
    torch.testing.assert_close(logits(net, IMAGES), logits(net, IMAGES))  # without dropout
    assert all(module.training for module in net.modules())


@pytest.mark.filterwarnings("ignore")
def test_observers_of_a_network_prepared_for_quantisation_learn_nothing():
    net = classifier()
    net.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    net = torch.ao.quantization.prepare(net)
    net(IMAGES)
    with assert_untouched(net):
        saliency.smooth_gradient(net, IMAGES, 1, samples=2, noise=2.0)
    before = net[0].activation_post_process.max_val.clone()
    net(3 * IMAGES)  # in the caller's own hands they go on learning
    assert net[0].activation_post_process.max_val > before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_a_quantised_head_is_said_not_to_be_differentiable(name):
    net = torch.ao.quantization.quantize_dynamic(classifier(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(
        ValueError, match=r"a way that can be differentiated \(a quantised layer.*occlusion and CAM need no"
    ):
        compare.explain(net, IMAGES, name, 1)
    assert saliency.occlusion(net, IMAGES, 1, window=4).abs().max() > 0


def test_a_network_made_in_inference_mode_runs_and_is_refused_for_gradients():
    with torch.inference_mode():
        net = classifier()
    assert logits(net, IMAGES).shape == (2, 5)
    assert all(parameter.requires_grad for parameter in net.parameters())
    with pytest.raises(ValueError, match=r"must be made outside torch.inference_mode\(\) for gradients"):
        gradients(net, IMAGES, 1, "input")


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network_gives_the_values_of_the_one_it_was_made_of(backend):
    net = classifier(nn.ReLU(), nn.Conv2d(4, 4, 1))
    compiled = torch.compile(copy.deepcopy(net), backend=backend)
    torch.testing.assert_close(licnn.attention_map(compiled, IMAGES, 1), licnn.attention_map(net, IMAGES, 1))
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
