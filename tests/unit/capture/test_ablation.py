"""Forwards that stop at a layer, or start there, against networks cut by hand and slow loops."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
from support.ablation_oracle import Around, close, counted, silenced
from support.cam import Call
from support.refuses import refuses
from support.tensors import needs_cuda
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.capture import ablated_logits, activations_up_to, logits_from
from helpers.networks._architectures import LeNet


def chain(seed=0, act=nn.ReLU, pool=nn.MaxPool2d):
    """Conv, batch norm, an activation, a pooling, conv; maps of any size; 7 x 7 pixels only for the end."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(2, 3, 2),
            norm=nn.BatchNorm2d(3),
            act=act(),
            pool=pool(2),
            last=nn.Conv2d(3, 4, 2),
            flatten=nn.Flatten(),
            drop=nn.Dropout(0.5),
            fc=nn.Linear(16, 5),
            relu=nn.ReLU(),
            end=nn.Linear(5, 3),
        )
    ).double()
    net.norm.running_mean.normal_()
    net.norm.bias.data.normal_()
    return net


def images(count=4, side=7, seed=1):
    return torch.randn(count, 2, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Counts(nn.Module):
    """Flattens by the number of images that came in, as many published networks do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.end = nn.Conv2d(2, 4, 3), nn.Linear(4 * 5 * 5, 3)
        self.double()

    def forward(self, x):
        return self.end(self.conv(x).view(x.shape[0], -1))


class Shared(nn.Module):
    """One ReLU used twice, a layer that never runs, a layer that gives a tuple."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.conv2 = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
        self.idle, self.pool = nn.Conv2d(4, 4, 1), nn.MaxPool2d(2, return_indices=True)
        self.end = nn.Linear(4, 3)
        self.double()

    def forward(self, x):
        x = self.relu(self.conv2(self.relu(self.conv(x))))
        return self.end(self.pool(x)[0].mean((2, 3)))


CALLS = {
    "activations_up_to": lambda net, x, layer: activations_up_to(net, x, layer),
    # logits_from is given the right values, so that only what the case is about can be wrong
    "logits_from": lambda net, x, layer: logits_from(net, x, layer, torch.zeros(2, 4, 2, 2, dtype=torch.float64)),
    "ablated_logits": lambda net, x, layer: ablated_logits(net, x, layer),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


# up to a layer


@pytest.mark.parametrize(("layer", "depth"), [("conv", 1), ("norm", 2), ("pool", 4), ("last", 5), ("fc", 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_up_to_equal_the_cut_network(layer, depth, dtype):
    net, x = chain().to(dtype).eval(), images().to(dtype)
    actual = activations_up_to(net, x, layer)
    with torch.no_grad():
        assert torch.equal(actual, net[:depth](x))
    assert actual.dtype == dtype
    for i in range(len(x)):
        close(activations_up_to(net, x[i : i + 1], layer)[0], actual[i], 1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("size", [(7, 7), (12, 9), (30, 41)])
def test_images_of_any_size_go_up_to_a_layer(size):
    net = chain().eval()
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(activations_up_to(net, x, "last"), net[:5](x))


def test_what_follows_the_layer_does_not_run():
    net = nn.Sequential(nn.Conv2d(2, 3, 2), Boom(), nn.Flatten()).double()
    runs = counted(net, "1")
    with assert_untouched(net):
        assert activations_up_to(net, images(2), "0").shape == (2, 3, 6, 6)
    assert runs == []


def test_poolings_are_left_out():
    net, x = chain().eval(), images(3, 10)
    # 10 - 1 = 9 pixels stay 9, and the last convolution makes 8 of them
    with torch.no_grad():
        expected = net.last(net.act(net.norm(net.conv(x))))
    actual = activations_up_to(net, x, "last", without=(nn.MaxPool2d, nn.AvgPool2d))
    assert torch.equal(actual, expected)
    assert actual.shape == (3, 4, 8, 8)
    with torch.no_grad():
        bare = net.last(net.norm(net.conv(x)))
    assert torch.equal(activations_up_to(net, x, "last", without=(nn.MaxPool2d, nn.ReLU)), bare)
    assert activations_up_to(net, x, "last", without=(nn.AvgPool2d,)).shape == (3, 4, 3, 3)  # there is none
    # the layer itself is of such a type: it hands on what it is given
    with torch.no_grad():
        assert torch.equal(activations_up_to(net, x, "pool", without=(nn.MaxPool2d,)), net[:3](x))


def test_a_layer_that_works_in_place_can_be_left_out_too():
    net, x = chain(act=partial(nn.ReLU, inplace=True)).eval(), images()
    with torch.no_grad():
        expected = net.pool(net.norm(net.conv(x)))
    assert (expected < 0).any()
    assert torch.equal(activations_up_to(net, x, "pool", without=(nn.ReLU,)), expected)


def test_the_first_run_of_a_shared_layer_counts():
    net, x = Shared(), images(2)
    with torch.no_grad():
        assert torch.equal(activations_up_to(net, x, "relu"), net.conv(x).relu())


def test_the_layers_own_hooks_count():
    net, x = chain().eval(), images()
    plain = activations_up_to(net, x, "pool")
    net.pool.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    with assert_untouched(net):
        assert torch.equal(activations_up_to(net, x, "pool"), 2 * plain)


def test_activations_up_to_are_a_detached_copy():
    net, x = nn.Sequential(nn.Identity(), nn.Flatten()), images(2).requires_grad_()
    before = x.detach().clone()
    actual = activations_up_to(net, x, "0")
    assert not actual.requires_grad
    actual.zero_()
    assert torch.equal(x, before)
    # a first layer in place
    activations_up_to(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()), x, "0")
    assert torch.equal(x, before)
    weight = nn.Conv2d(2, 3, 2).double()
    assert not activations_up_to(nn.Sequential(weight), x, "0").requires_grad


def test_a_layer_that_gives_a_weight_of_its_own_is_copied_too():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.ones(2, 3))

        def forward(self, x):
            return self.table

    net = nn.Sequential(Table()).double()
    actual = activations_up_to(net, images(2), "0")
    assert not actual.requires_grad
    with assert_untouched(net):
        actual.zero_()


# from a layer on


@pytest.mark.parametrize(("layer", "depth"), [("conv", 1), ("pool", 4), ("last", 5), ("fc", 8), ("end", 10)])
@pytest.mark.parametrize("count", [1, 2, 4, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_from_equal_the_cut_network(layer, depth, count, dtype):
    net, x = chain().to(dtype).eval(), images().to(dtype)
    with torch.no_grad():
        values = torch.randn(count, *net[:depth](x).shape[1:], dtype=dtype)
        expected = net[depth:](values)
    actual = logits_from(net, x, layer, values)
    close(actual, expected, 1e-5 if dtype == torch.float32 else 1e-12)
    assert actual.shape == (count, 3)
    assert actual.dtype == dtype
    assert not actual.requires_grad


def test_logits_from_the_input_are_the_logits():
    net, x = chain().eval(), images(5)
    with torch.no_grad():
        close(logits_from(net, x[:1], "input", x), net(x))


def test_one_image_sets_the_network_going():
    net, x = chain(), images(4)
    below, above = counted(net, "conv"), counted(net, "end")
    logits_from(net, x, "last", torch.zeros(9, 4, 2, 2, dtype=torch.float64))
    assert (below, above) == ([1], [9])


def test_values_take_on_the_layers_precision_and_not_what_the_layers_own_hooks_make():
    net, x = chain().eval(), images()
    values = torch.randn(3, 4, 2, 2)
    with torch.no_grad():
        expected = net[5:](values.double())
    close(logits_from(net, x, "last", values), expected)
    net.last.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    close(logits_from(net, x, "last", values), expected)


def test_a_shortcut_is_right_for_the_first_image_alone():
    net, x = Around(), images(3)
    values = activations_up_to(net, x, "inner")
    with torch.no_grad():
        whole = net(x)
    actual = logits_from(net, x, "inner", values)
    close(actual[0], whole[0])
    assert ((actual - whole).abs().amax(1)[1:] > 1e-3).all()


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU, nn.LeakyReLU])
def test_logits_from_write_into_nothing(act):
    # what follows the layer, and the network's first layer, work in place
    net = nn.Sequential(act(inplace=True), *chain(act=partial(act, inplace=True))).eval()
    x = images(2)
    values = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    originals = x.clone(), values.clone()
    actual = logits_from(net, x, "2", values)  # the batch norm
    assert torch.equal(values, originals[1])
    assert torch.equal(x, originals[0])
    with torch.no_grad():
        close(actual, net[3:](values.clone()))


def test_logits_from_the_last_layer_are_a_copy():
    values = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    actual = logits_from(chain(), images(), "end", values)
    assert not actual.requires_grad
    actual.zero_()
    assert (values != 0).all()


# each filter silenced


@pytest.mark.parametrize("layer", ["conv", "norm", "act", "pool", "last", "fc", "relu", "end"])
def test_ablated_logits_equal_a_slow_loop(layer):
    net, x = chain(), images(3)
    actual = ablated_logits(net, x, layer)
    close(actual, silenced(net, x, layer))
    assert not torch.allclose(actual[1][0], actual[1][1])


def test_ablated_logits_by_hand():
    # f = ReLU(x, -2x), logits (mean f0 + 1, mean f1)
    # x = (1, 3): f0 = (1, 3), f1 = 0; x = (-1, 0): f0 = 0, f1 = (2, 0)
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
        net[4].weight.copy_(torch.eye(2))
        net[4].bias.copy_(torch.tensor([1.0, 0.0]))
    whole, without = ablated_logits(net, torch.tensor([[[[1.0, 3.0]]], [[[-1.0, 0.0]]]]), "1")
    assert whole.tolist() == [[3, 0], [1, 1]]
    assert without.tolist() == [[[1, 0], [1, 1]], [[3, 0], [1, 0]]]


def test_channels_of_the_input_can_be_silenced():
    net, x = chain().eval(), images()
    whole, without = ablated_logits(net, x, "input")
    with torch.no_grad():
        close(whole, net(x))
        for channel in range(2):
            cut = x.clone()
            cut[:, channel] = 0
            close(without[channel], net(cut))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ablated_logits_keep_the_precision_and_the_order_of_images(dtype):
    net, x = LeNet().to(dtype), torch.rand(3, 1, 28, 28, dtype=dtype)
    whole, without = ablated_logits(net, x, "conv2")
    assert (whole.shape, without.shape) == ((3, 10), (16, 3, 10))
    assert whole.dtype == without.dtype == dtype
    assert not whole.requires_grad
    assert not without.requires_grad
    for i in range(3):
        alone = ablated_logits(net, x[i : i + 1], "conv2")
        close(alone[0][0], whole[i], 1e-6)
        close(alone[1][:, 0], without[:, i], 1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("make", "layer"), [(Around, "inner"), (partial(Around, "cat"), "inner"), (Counts, "conv")], ids=["add", "cat", "n"]
)
def test_a_shortcut_around_the_layer_and_a_network_that_counts_its_images_are_noticed(make, layer, count):
    net, x = make(), images(count)
    with assert_untouched(net.train()):
        actual = ablated_logits(net, x, layer)
    close(actual, silenced(net, x, layer))


def test_a_shortcut_is_noticed_whatever_the_logits_have_in_common():
    # what all logits share changes neither answer nor likelihood
    net, x = Around(), images(3)
    net.end.bias.data += 1e5
    close(ablated_logits(net, x, "inner")[1], silenced(net, x, "inner")[1], 1e-9)


@pytest.mark.parametrize("call", [1, 2])
def test_a_shared_layer_is_silenced_call_by_call(call):
    net, x = Shared(), images(3)
    close(ablated_logits(net, x, f"relu#{call}")[1], silenced(net, x, "relu", call)[1])


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU, nn.LeakyReLU])
def test_a_layer_that_is_followed_by_one_in_place(act):
    net, x = chain(act=partial(act, inplace=True)), images(3)
    close(ablated_logits(net, x, "norm"), silenced(chain(act=act), x, "norm"))


def test_the_network_runs_once_up_to_the_layer():
    net, x = chain(), images(8)
    below, above = counted(net, "conv"), counted(net, "end")
    ablated_logits(net, x, "last")
    assert sum(below) <= 8 + 3
    # as it is, started again to see whether that works, and for each filter
    assert 8 + 4 * 8 <= sum(above) <= 8 + (8 + 1) + 4 * 8


@pytest.mark.parametrize(("copies", "most"), [(1, 8), (128, 8), (255, 8), (256, 16), (400, 24), (10**9, 32)])
def test_copies_bound_what_is_held_at_once(copies, most):
    # 8 images x 4 filters x 2 x 2 places: 128 numbers a filter
    net, x = chain(), images(8)
    expected = ablated_logits(net, x, "last")[1]
    above = counted(net, "end")
    close(ablated_logits(net, x, "last", copies=copies)[1], expected)
    assert max(above[2:]) == most  # the first two are the network as it is, and started again


# the network and the images are left alone


@pytest.mark.parametrize("training", [True, False])
@each_call
def test_the_network_is_left_as_it_was(call, training):
    net, x = chain().train(training), images(2).requires_grad_()
    net.norm.eval()
    net.fc.weight.requires_grad_(False)
    net.conv.weight.grad = torch.ones_like(net.conv.weight)
    net.last.register_forward_hook(lambda *_: None)
    before, state = x.detach().clone(), torch.get_rng_state()
    with assert_untouched(net):
        first = call(net, x, "last")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before)
    assert x.grad is None
    torch.testing.assert_close(first, call(net.eval(), x, "last"))  # dropout and batch norm are in evaluation mode


@each_call
def test_the_network_is_left_as_it_was_after_an_exception(call):
    net = nn.Sequential(OrderedDict(act=nn.ReLU(inplace=True), boom=Boom(), last=nn.Flatten())).train()
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        call(net, images(2), "last")
    net = nn.Sequential(OrderedDict(last=nn.Conv2d(2, 4, 6), boom=Boom())).double().train()
    if call is not CALLS["activations_up_to"]:
        with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
            call(net, images(2), "last")


@each_call
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(call, context):
    net, x = chain(), images(2)
    expected = call(net, x, "last")
    with context():
        torch.testing.assert_close(call(net, x, "last"), expected)


@needs_cuda
def test_on_the_gpu_too():
    net, x = chain(), images(2)
    values = torch.randn(3, 4, 2, 2, dtype=torch.float64)
    expected = activations_up_to(net, x, "last"), logits_from(net, x, "last", values), *ablated_logits(net, x, "last")
    net, x = net.cuda(), x.cuda()
    actual = activations_up_to(net, x, "last"), logits_from(net, x, "last", values), *ablated_logits(net, x, "last")
    for on_gpu, on_cpu in zip(actual, expected, strict=True):
        assert on_gpu.is_cuda
        close(on_gpu.cpu(), on_cpu, 1e-9)
    close(ablated_logits(Around().cuda(), x, "inner")[1].cpu(), silenced(Around(), x.cpu(), "inner")[1], 1e-9)


@each_call
@pytest.mark.parametrize(("layer", "message"), [("idle", "layer must run|model must return"), ("pool", "layer")])
def test_layers_without_an_output_are_refused(call, layer, message):
    net = Shared()  # "idle" never runs, "pool" gives a tuple
    with pytest.raises(ValueError, match=message), assert_untouched(net):
        call(net, images(2), layer)


def test_where_a_layer_runs_twice_its_name_is_refused():
    net, x = Shared(), images(2)
    with pytest.raises(ValueError, match=r"layer must be one call, .* got 'relu', which runs 2 times"):
        ablated_logits(net, x, "relu")
    with pytest.raises(ValueError, match="layer"):  # else both calls would give the same values
        logits_from(net, x, "relu", activations_up_to(net, x, "relu"))
    with pytest.raises(ValueError, match="layer"):  # which never runs: one row would fit whatever it is
        logits_from(net, x, "idle", torch.zeros(1, 4, 5, 5, dtype=torch.float64))


def test_bad_arguments_are_refused():
    arguments = {"model": chain(), "x": images(2), "layer": "last"}
    bad = {"x": images()[0], "layer": "lats"}
    refuses(activations_up_to, arguments, **bad)
    refuses(activations_up_to, arguments, layer="input")
    refuses(ablated_logits, arguments, **bad, copies=0)
    values = torch.zeros(2, 4, 2, 2)
    for wrong in (None, values[..., :1], values.flatten(1), values[:0]):
        refuses(logits_from, arguments | {"values": values}, **bad, values=wrong)
    refuses(logits_from, arguments | {"layer": "input"}, values=torch.zeros(2, 2, 7))


class Mixing(nn.Module):
    """Gives one row however many images come in, or maps."""

    def __init__(self, end):
        super().__init__()
        self.conv, self.end = nn.Conv2d(2, 4, 7).double(), end

    def forward(self, x):
        return self.end(self.conv(x))


@pytest.mark.parametrize("end", [lambda y: y.mean(0).flatten()[None], lambda y: y, lambda y: (y.flatten(1),)])
def test_a_network_without_logits_is_refused(end):
    net = Mixing(end)
    with pytest.raises(ValueError, match=r"model must return logits \(B, classes\)"):
        ablated_logits(net, images(2), "conv")
    with pytest.raises(ValueError, match=r"model must return logits \(B, classes\) with B = 3, got"):
        logits_from(net, images(2), "conv", torch.zeros(3, 4, 1, 1, dtype=torch.float64))


def test_a_layer_without_filters_is_refused():
    net = nn.Sequential(Call(lambda x: x.sum((1, 2, 3))), nn.Unflatten(0, (-1, 1)))
    with pytest.raises(ValueError, match=r"layer must have feature maps \(B, C, h, w\), got '0' with \(2,\)"):
        ablated_logits(net, images(2), "0")
