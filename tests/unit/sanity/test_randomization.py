"""Networks that forget: which layers, in which order, with which weights, and what they leave alone."""

import warnings

import pytest
import torch
import torchvision
from support.refuses import refuses
from support.sanity import STEPS, WAYS, changed, draws, dressed, each_redraw, each_way, images, snapshot, tensors, tiny
from support.untouched import assert_untouched
from torch import nn

from helpers.saliency import class_saliency
from helpers.sanity import cascading_randomization, independent_randomization, randomizable_layers, sanity_check


def test_layers_come_from_the_first_to_the_last_with_the_normalisations_that_follow():
    assert randomizable_layers(tiny()) == [["conv1", "bn1"], ["conv2", "bn2"], ["conv3"], ["fc"]]


def test_a_single_layer_is_a_network():
    assert randomizable_layers(nn.Linear(3, 2)) == [[""]]
    (name, network), *rest = cascading_randomization(nn.Linear(3, 2))
    assert (name, rest) == ("", [])
    assert network(torch.zeros(1, 3)).shape == (1, 2)


def test_a_normalisation_before_all_layers_is_a_step_of_its_own():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    assert randomizable_layers(net) == [["0"], ["1", "3"]]


NORMALISATIONS = {
    "batch": lambda: nn.BatchNorm2d(4),
    "group": lambda: nn.GroupNorm(2, 4),
    "layer": lambda: nn.LayerNorm([4, 6, 6]),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "rms": lambda: nn.RMSNorm([4, 6, 6]),
}


@pytest.mark.parametrize("norm", NORMALISATIONS.values(), ids=NORMALISATIONS)
def test_normalisations_of_all_kinds_belong_to_the_layer_before_them(norm):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm(), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    assert randomizable_layers(net) == [["0", "1"], ["4"]]


def test_resnet18():
    steps = randomizable_layers(torchvision.models.resnet18(weights=None))
    assert steps[0] == ["conv1", "bn1"]
    assert steps[1] == ["layer1.0.conv1", "layer1.0.bn1"]
    assert steps[-1] == ["fc"]
    assert ["layer2.0.downsample.0", "layer2.0.downsample.1"] in steps
    assert len(steps) == 21  # 1 + 4 * 4 convolutions, 3 downsamplings, fc
    assert sum(map(len, steps)) == 41  # each convolution has its batch normalisation


class Scaled(nn.Module):
    """A container with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * self.body(x)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight


def old_spectral_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 2)))


def tied_by_their_numbers():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight.data = net[0].weight.data.T
    return net


class Hidden(nn.Module):
    """A weight that is no parameter."""

    def __init__(self, *, buffer):
        super().__init__()
        self.weight = torch.ones(3, 3)
        if buffer:
            del self.weight
            self.register_buffer("weight", torch.ones(3, 3))

    def forward(self, x):
        return x @ self.weight


class Complex(nn.Module):
    """A layer whose way to draw its weight anew does nothing."""

    def __init__(self):
        super().__init__()
        self.spectrum = nn.Parameter(torch.ones(3, dtype=torch.complex64))

    def reset_parameters(self):
        pass


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(3, 2))
        return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Linear(3, 2)))


REFUSED = {
    "container": (Scaled, "model must not have parameters that cannot be drawn anew, got some in Scaled"),
    "container within": (lambda: nn.Sequential(nn.Conv2d(3, 3, 1), Scaled()), r"model must not have .* in 1; redraw="),
    "many are not all named": (
        lambda: nn.Sequential(*[Scaled() for _ in range(9)]),
        r"in 0, 1, 2, 3, 4; redraw=",
    ),
    "parametrised": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))),
        "model must not have .* in 0.parametrizations.weight",
    ),
    "no weights": (lambda: nn.Sequential(nn.ReLU(), nn.Flatten()), "model must have layers with weights"),
    # reset_parameters would leave these, or draw them before their turn
    "spectral norm of old": (old_spectral_norm, "model"),
    "tied": (Tied, "model"),
    "tied by their numbers": (tied_by_their_numbers, "weights of their own"),
    # the trained weights would stay
    "weight in a buffer": (lambda: nn.Sequential(nn.Linear(3, 3), Hidden(buffer=True)), "cannot be drawn anew.* in 1;"),
    "weight in a tensor": (lambda: nn.Sequential(nn.Linear(3, 3), Hidden(buffer=False)), "cannot be drawn anew.* in 1"),
    "frozen normalisation": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), torchvision.ops.FrozenBatchNorm2d(4)),
        "cannot be drawn anew.* in 1;",
    ),
    "complex": (lambda: nn.Sequential(Complex()), "cannot be drawn anew.* in 0"),
    "quantised": (quantised, "quantised and packed, in 1"),
    "TorchScript": (scripted, "TorchScript"),
}


# cascading


def test_the_cascade_goes_from_the_logits_to_the_first_layer_and_piles_up():
    model = tiny()
    before = snapshot(model)
    names, after = [], {}
    for name, network in cascading_randomization(model):
        names.append(name)
        now = snapshot(network)
        assert changed(before, now) == tensors(*names)  # everything below is bit for bit the trained one
        assert not changed(after, {key: now[key] for key in after})  # what was forgotten stays as it was then
        after = {key: now[key] for key in tensors(*names)}
    assert names == STEPS


def test_the_shuffled_cascade_piles_up_too():
    model = tiny()
    before, moved = snapshot(model), {name: set() for name in STEPS}
    for seed in range(5):  # few values may by chance stay where they were
        after, names = {}, []
        for name, network in cascading_randomization(model, seed=seed, redraw="shuffled"):
            names.append(name)
            now = snapshot(network)
            moved[name] |= set(changed(before, now))
            assert not changed(after, {key: now[key] for key in after})
            after = {key: now[key] for key in tensors(*names)}
        assert names == STEPS
    for number, name in enumerate(STEPS):
        drawn = tensors(*STEPS[: number + 1])
        assert moved[name] == {key for key in drawn if "running" not in key and "tracked" not in key}


def test_a_batch_normalisation_is_reset_with_its_convolution():
    fresh = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
    trained = tiny()
    for name, network in cascading_randomization(trained):
        for norm, turns in (("bn2", ("conv2", "conv1")), ("bn1", ("conv1",))):
            for key, value in fresh.items():
                got, had = network.get_submodule(norm).state_dict()[key], trained.get_submodule(norm).state_dict()[key]
                assert (got == value).all() if name in turns else torch.equal(got, had)


@each_way
def test_a_normalisation_without_weights_forgets_its_running_statistics_too(randomization):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU())
    net(images())
    assert net[1].running_mean.abs().max() > 0
    ((_, network),) = randomization(net)
    assert network[1].running_mean.tolist() == [0] * 4
    assert network[1].running_var.tolist() == [1] * 4


@each_way
def test_new_weights_are_those_of_a_fresh_layer(randomization):
    net = nn.Sequential(nn.Conv2d(40, 50, 5), nn.ReLU(), nn.Flatten(), nn.Linear(1000, 300))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(9)
    *_, (name, network) = randomization(net)
    assert name == "0"
    *_, (_, last) = reversed(list(randomization(net)))
    for layer, inputs in ((network[0], 40 * 25), (last[3], 1000)):
        bound = inputs**-0.5  # torch draws evenly from -1 / sqrt(inputs) to 1 / sqrt(inputs)
        for value in (layer.weight, layer.bias):
            assert value.abs().max() <= bound
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)
        assert layer.weight.mean().abs() < 0.01 * bound


# independent


def test_independent_leaves_all_but_one_layer():
    model = tiny()
    before = snapshot(model)
    actual = list(independent_randomization(model))
    assert [name for name, _ in actual] == STEPS
    for name, network in actual:
        assert changed(before, snapshot(network)) == tensors(name)


@each_redraw
def test_independent_draws_the_cascades_weights(redraw):
    model = tiny()
    both = zip(
        cascading_randomization(model, seed=3, redraw=redraw),
        independent_randomization(model, seed=3, redraw=redraw),
        strict=True,
    )
    for (name, forgotten), (alone, network) in both:
        assert name == alone
        a, b = snapshot(forgotten), snapshot(network)
        assert not [key for key in tensors(name) if not torch.equal(a[key], b[key])]


class Outer(nn.Module):
    """A layer with weights of its own and a layer inside."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5))
        self.inner = nn.Linear(5, 5)

    def reset_parameters(self):
        nn.init.normal_(self.weight)

    def forward(self, x):
        return self.inner(self.weight * x)


@each_redraw
def test_a_layer_inside_a_layer_has_its_own_turn(redraw):
    model = nn.Sequential(Outer(), nn.Linear(5, 2))
    before = snapshot(model)
    actual = [(name, changed(before, snapshot(net))) for name, net in independent_randomization(model, redraw=redraw)]
    expected = [("1", ["1.weight", "1.bias"]), ("0.inner", ["0.inner.weight", "0.inner.bias"]), ("0", ["0.weight"])]
    assert actual == expected


# shuffled


@each_way
def test_shuffled_permutes_within_each_tensor(randomization):
    model = tiny()
    before = snapshot(model)
    for name, network in randomization(model, redraw="shuffled"):
        now = snapshot(network)
        for key, value in before.items():
            assert torch.equal(now[key].flatten().sort().values, value.flatten().sort().values)
            if "running" in key or "tracked" in key:
                assert torch.equal(now[key], value)
        assert set(tensors(name)) & set(changed(before, now))


def test_shuffled_permutes_over_all_axes():
    net = nn.Sequential(nn.Linear(20, 30))
    with torch.no_grad():
        net[0].weight.copy_(torch.arange(600.0).view(30, 20))
        net[0].bias.copy_(torch.arange(30.0))
    ((_, network),) = cascading_randomization(net, redraw="shuffled")
    weight = network[0].weight.long()
    assert (weight // 20).unique(dim=1).shape[1] == 20  # values of one row do not stay together
    assert all(len(row.unique()) > 8 for row in weight // 20)
    assert all(len(column.unique()) > 8 for column in weight.T % 20)
    assert network[0].bias.tolist() != list(range(30))


# seeds


@each_way
@each_redraw
def test_the_same_seed_gives_the_same_networks_and_another_seed_others(randomization, redraw):
    model = tiny()
    torch.manual_seed(5)
    first = [snapshot(network) for _, network in randomization(model, seed=1, redraw=redraw)]
    torch.manual_seed(6)  # where the global generator stands does not count
    torch.rand(7)
    again = [snapshot(network) for _, network in randomization(model, seed=1, redraw=redraw)]
    other = [snapshot(network) for _, network in randomization(model, seed=2, redraw=redraw)]
    for name, a, b, c in zip(STEPS, first, again, other, strict=True):
        assert not changed(a, b)
        assert f"{name}.weight" in changed(a, c)


def test_the_default_seed_is_0():
    model = tiny()
    for randomization in WAYS.values():
        for (_, a), (_, b) in zip(randomization(model), randomization(model, seed=0, redraw="initial"), strict=True):
            assert not changed(snapshot(a), snapshot(b))


def test_layers_of_one_shape_get_weights_of_their_own_for_all_seeds():
    net = nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])
    drawn = []
    for seed in range(4):
        *_, (_, network) = cascading_randomization(net, seed=seed)
        drawn += [tuple(layer.weight.flatten().tolist()) for layer in network]
    assert len(set(drawn)) == 16


@each_way
def test_what_a_layer_draws_does_not_hang_on_the_layers_above(randomization):
    model = tiny()
    *_, (_, whole) = randomization(model)
    *_, (_, short) = randomization(model[:3])
    assert torch.equal(whole.conv1.weight, short.conv1.weight)


@each_way
@each_redraw
def test_the_generators_are_left_alone(randomization, redraw, monkeypatch):
    model = tiny()
    seeded_elsewhere = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded_elsewhere.append)  # torch.manual_seed calls it
    state = draws()
    for _ in randomization(model, redraw=redraw):
        assert draws() == state
    assert draws() == state
    assert not seeded_elsewhere


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@each_way
def test_on_a_gpu_the_weights_are_the_same_and_its_generator_is_left_alone(randomization):
    model = tiny()
    twin = tiny().cuda()
    torch.cuda.manual_seed(123)
    torch.rand(3, device="cuda")
    state = torch.cuda.get_rng_state()
    for (_, a), (_, b) in zip(randomization(model), randomization(twin), strict=True):
        assert all(value.device.type == "cuda" for value in b.state_dict().values())
        assert not changed(snapshot(a), {name: value.cpu() for name, value in b.state_dict().items()})
    assert torch.equal(torch.cuda.get_rng_state(), state)


# what is given and what is left


@each_way
@each_redraw
def test_the_original_is_untouched_before_during_and_after(randomization, redraw):
    model = dressed()
    with assert_untouched(model):
        for _, network in randomization(model, redraw=redraw):
            with assert_untouched(model):
                with torch.no_grad():
                    for value in network.state_dict().values():
                        value.zero_()
                network.train()
                network.requires_grad_(True)


@each_way
@each_redraw
def test_networks_have_the_originals_modes_frozen_layers_and_dtype(randomization, redraw):
    model = dressed().double()
    modes = {name: module.training for name, module in model.named_modules()}
    frozen = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    own = {value.data_ptr() for value in model.state_dict().values()}
    seen = []
    for _, network in randomization(model, redraw=redraw):
        assert type(network) is type(model)
        assert {name: module.training for name, module in network.named_modules()} == modes
        assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == frozen
        assert network(images().double()).shape == (2, 3)
        assert all(value.dtype == model.state_dict()[name].dtype for name, value in network.state_dict().items())
        seen.append(network)
    places = [value.data_ptr() for network in seen for value in network.state_dict().values()]
    assert len(set(places)) == len(places)  # no two networks share memory
    assert not own & set(places)


@each_way
def test_what_is_done_to_one_network_does_not_reach_the_next(randomization):
    model = tiny()
    expected = [snapshot(network) for _, network in randomization(model)]
    for (_, network), untouched in zip(randomization(model), expected, strict=True):
        assert not network.training
        assert not changed(untouched, snapshot(network))
        network.train()
        with torch.no_grad():
            for value in network.state_dict().values():
                value.zero_()


@each_way
def test_a_walk_may_be_abandoned(randomization):
    model = dressed()
    state = draws()
    with assert_untouched(model):
        walk = randomization(model)
        assert next(walk)[0] == "fc"
        assert next(walk)[0] == "conv3"
        walk.close()
        assert draws() == state
        for name, _ in randomization(model):
            if name == "conv3":
                break
    assert draws() == state
    assert [name for name, _ in randomization(model)] == STEPS  # and begun again


class Unwilling(nn.Linear):
    def reset_parameters(self):
        if hasattr(self, "made"):
            torch.rand(3)
            raise RuntimeError("boom")
        super().reset_parameters()
        self.made = True


@each_way
def test_a_layer_that_fails_to_draw_anew_is_refused_and_leaves_no_trace(randomization):
    model = nn.Sequential(Unwilling(3, 3), nn.Linear(3, 3))
    state = draws()
    with assert_untouched(model), pytest.raises(ValueError, match="cannot be drawn anew, got some in 0"):
        next(randomization(model))
    assert draws() == state


def test_a_cascade_over_resnet18():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value += 3
    before, gone = snapshot(model), set()
    for name, network in cascading_randomization(model):
        gone |= {name, name.replace("conv", "bn"), name.replace("downsample.0", "downsample.1")}
        now = snapshot(network)
        actual = {key.rsplit(".", 1)[0] for key in changed(before, now)}
        assert actual == gone
        assert all((now[f"{layer}.running_mean"] == 0).all() for layer in actual if "bn" in layer)
        if name == "layer4.0.downsample.0":
            break
    assert actual == {
        *("fc", "layer4.1.bn2", "layer4.1.conv2", "layer4.1.bn1", "layer4.1.conv1"),
        *("layer4.0.downsample.1", "layer4.0.downsample.0"),
    }
    assert not changed(before, snapshot(model))


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED)
def test_networks_that_cannot_be_drawn_anew_are_refused(make, match):
    model = make()
    with assert_untouched(model):
        with pytest.raises(ValueError, match=match):
            randomizable_layers(model)
        for randomization in WAYS.values():
            with pytest.raises(ValueError, match=match):
                next(randomization(model))


@each_way
def test_an_unknown_redraw_is_refused(randomization):
    refuses(lambda model, redraw: next(randomization(model, redraw=redraw)), {"model": tiny()}, redraw="initials")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_weight_normalisation_is_refused_and_shuffled():
    torch.manual_seed(1)
    norm = nn.utils.weight_norm
    net = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(144, 5)))
    with pytest.raises(ValueError, match=r'got some in 0, 3; redraw="shuffled" needs no such way'):
        next(cascading_randomization(net))
    *_, (_, last) = cascading_randomization(net, redraw="shuffled")
    known = dict(net.named_parameters())
    assert not any(torch.equal(p, known[name]) for name, p in last.named_parameters())


def test_new_weights_are_not_those_that_the_seed_gave_before():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    for name, other in independent_randomization(net):
        assert not torch.equal(other.get_submodule(name).weight, net.get_submodule(name).weight)


def test_any_network_can_be_shuffled():
    torch.manual_seed(0)
    net = torchvision.models.swin_t(num_classes=5)
    with pytest.raises(ValueError, match="cannot be drawn anew"):
        randomizable_layers(net)
    assert len(randomizable_layers(net, "shuffled")) > 50


def test_an_attention_layer_is_drawn_without_the_layer_within():
    net = nn.MultiheadAttention(4, 2)
    with torch.no_grad():
        net.out_proj.bias.fill_(3)
    drawn = {name: other for name, other in independent_randomization(net)}
    assert not torch.equal(drawn[""].in_proj_weight, net.in_proj_weight)
    assert torch.equal(drawn[""].out_proj.bias, net.out_proj.bias)


def test_lazy_layers_must_have_run():
    net = nn.Sequential(nn.LazyConv2d(4, 3))
    with pytest.raises(ValueError, match=r"lazy layers that have never run: call model\(x\) once"):
        randomizable_layers(net)
    net(images())
    assert randomizable_layers(net) == [["0"]]


def test_hidden_weights_are_shuffled():
    net = nn.Sequential(nn.Linear(3, 3), Hidden(buffer=True), Hidden(buffer=False))
    net[1].weight, net[2].weight = torch.arange(9.0).view(3, 3), torch.arange(9.0).view(3, 3)
    for number, (_, other) in zip((2, 1), independent_randomization(net, redraw="shuffled"), strict=False):
        assert not torch.equal(other[number].weight, net[number].weight)
        assert torch.equal(other[number].weight.flatten().sort().values, torch.arange(9.0))


def test_buffers_that_stay_are_said():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU())
    net[2].register_buffer("tables", torch.ones(3))
    with pytest.warns(UserWarning, match="buffers in '2' are left as they are"):
        next(cascading_randomization(net))


class HeadFirst(nn.Module):
    """The head is defined before the stem, and an auxiliary head that never runs behind both."""

    def __init__(self):
        super().__init__()
        self.head, self.norm = nn.Linear(4, 5), nn.BatchNorm2d(4)
        self.stem, self.aux = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.norm(self.stem(x)).mean((2, 3)))


@each_way
def test_images_show_the_order_in_which_layers_run(randomization):
    net, x = HeadFirst().eval(), images()
    assert randomizable_layers(net) == [["head", "norm"], ["stem"], ["aux"]]
    with assert_untouched(net):
        assert randomizable_layers(net, x=x) == [["stem", "norm"], ["aux"], ["head"]]
        assert [name for name, _ in randomization(net, x=x)] == ["head", "aux", "stem"]
        assert sanity_check(class_saliency, net, x, 1).layers == ("head", "aux", "stem")
