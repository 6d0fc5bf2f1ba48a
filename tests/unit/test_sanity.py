import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from scipy.stats import spearmanr
from skimage.filters import sobel
from support.untouched import assert_untouched
from torch import nn

from helpers.metrics import edge_map, map_similarity
from helpers.saliency import class_saliency
from helpers.sanity import (
    cascading_randomization,
    independent_randomization,
    permuted_label_network,
    permuted_labels,
    randomizable_layers,
    sanity_check,
)
from helpers.training import fit

WAYS = {"cascading": cascading_randomization, "independent": independent_randomization}
each_way = pytest.mark.parametrize("randomization", WAYS.values(), ids=WAYS)
each_redraw = pytest.mark.parametrize("redraw", ["initial", "shuffled"])
STEPS = ["fc", "conv3", "conv2", "conv1"]  # from the logits down
MEASURES = ["spearman", "spearman_abs", "ssim", "hog"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tiny(seed=0):
    """A network that could have been trained: nothing in it has the value a fresh layer would have."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 4, 3),
            bn1=nn.BatchNorm2d(4),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(4, 6, 3, bias=False),
            bn2=nn.BatchNorm2d(6),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            conv3=nn.Conv2d(6, 6, 3, padding=1),
            relu3=nn.ReLU(),
            mean=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(6, 3),
        )
    )
    with torch.no_grad():
        for value in net.state_dict().values():
            value.copy_(torch.rand(value.shape) + 2 if value.is_floating_point() else torch.tensor(17))
        for name in ("conv1", "conv2", "conv3", "fc"):
            weight = net.get_submodule(name).weight
            weight.copy_(torch.randn(weight.shape))
    return net.eval()


def images(count=2, seed=1, side=12):
    return torch.randn(count, 3, side, side, generator=seeded(seed))


def kept(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    """Names of tensors that are not bit for bit the same, in the state's order."""
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


def tensors(*layers):
    """Names of all of tiny's tensors that belong to these steps."""
    own = {"conv1": ("conv1", "bn1"), "conv2": ("conv2", "bn2"), "conv3": ("conv3",), "fc": ("fc",)}
    heads = [name for layer in layers for name in own[layer]]
    return [name for name in tiny().state_dict() if name.split(".")[0] in heads]


def draws():
    """The state of every generator of the CPU."""
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state())  # noqa: NPY002 -- the global one is meant


# which layers


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


def weight_normalised():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))


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


REFUSED = {
    "container": (Scaled, "model has parameters that cannot be drawn anew, in Scaled"),
    "container within": (lambda: nn.Sequential(nn.Conv2d(3, 3, 1), Scaled()), r"model has parameters .*, in 1$"),
    "attention": (lambda: nn.Sequential(nn.MultiheadAttention(4, 2)), "model has parameters .*, in 0"),
    "parametrised": (weight_normalised, "model has parameters .*, in 0.parametrizations.weight"),
    "no weights": (lambda: nn.Sequential(nn.ReLU(), nn.Flatten()), "model must have layers with weights"),
    # reset_parameters would leave these, or draw them before their turn
    "spectral norm of old": (old_spectral_norm, "model"),
    "tied": (Tied, "model"),
}


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED)
def test_networks_that_cannot_be_drawn_anew_are_refused(make, match):
    model = make()
    with assert_untouched(model):
        with pytest.raises(ValueError, match=match):
            randomizable_layers(model)
        for randomization in WAYS.values():
            with pytest.raises(ValueError, match=match):
                next(randomization(model))
    x, labels = images(), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=match):
        permuted_label_network(model, x, labels, epochs=1, progress=False)
    with pytest.raises(ValueError, match=match):
        sanity_check(lambda m, x, c: edge_map(x), model, x, 0)


def test_many_parameters_that_cannot_be_drawn_anew_are_not_all_named():
    net = nn.Sequential(*[Scaled() for _ in range(9)])
    with pytest.raises(ValueError, match=r"in 0, 1, 2, 3, 4$"):
        randomizable_layers(net)


@each_way
@pytest.mark.parametrize("redraw", ["initials", "shuffle", "", None])
def test_an_unknown_redraw_is_refused(randomization, redraw):
    with pytest.raises(ValueError, match='redraw must be "initial" or "shuffled"'):
        next(randomization(tiny(), redraw=redraw))
    with pytest.raises(ValueError, match='redraw must be "initial" or "shuffled"'):
        sanity_check(lambda m, x, c: edge_map(x), tiny(), images(), 0, redraw=redraw)


# cascading


def test_the_cascade_goes_from_the_logits_to_the_first_layer_and_piles_up():
    model = tiny()
    before = kept(model)
    names, after = [], {}
    for name, network in cascading_randomization(model):
        names.append(name)
        now = kept(network)
        assert changed(before, now) == tensors(*names)  # everything below is bit for bit the trained one
        assert not changed(after, {key: now[key] for key in after})  # what was forgotten stays as it was then
        after = {key: now[key] for key in tensors(*names)}
    assert names == STEPS


def test_the_shuffled_cascade_piles_up_too():
    model = tiny()
    before, moved = kept(model), {name: set() for name in STEPS}
    for seed in range(5):  # few values may by chance stay where they were
        after, names = {}, []
        for name, network in cascading_randomization(model, seed=seed, redraw="shuffled"):
            names.append(name)
            now = kept(network)
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
    before = kept(model)
    found = list(independent_randomization(model))
    assert [name for name, _ in found] == STEPS
    for name, network in found:
        assert changed(before, kept(network)) == tensors(name)


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
        a, b = kept(forgotten), kept(network)
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
    before = kept(model)
    found = [(name, changed(before, kept(net))) for name, net in independent_randomization(model, redraw=redraw)]
    wanted = [("1", ["1.weight", "1.bias"]), ("0.inner", ["0.inner.weight", "0.inner.bias"]), ("0", ["0.weight"])]
    assert found == wanted


# shuffled


@each_way
def test_shuffled_permutes_within_each_tensor(randomization):
    model = tiny()
    before = kept(model)
    for name, network in randomization(model, redraw="shuffled"):
        now = kept(network)
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
    first = [kept(network) for _, network in randomization(model, seed=1, redraw=redraw)]
    torch.manual_seed(6)  # where the global generator stands does not count
    torch.rand(7)
    again = [kept(network) for _, network in randomization(model, seed=1, redraw=redraw)]
    other = [kept(network) for _, network in randomization(model, seed=2, redraw=redraw)]
    for name, a, b, c in zip(STEPS, first, again, other, strict=True):
        assert not changed(a, b)
        assert f"{name}.weight" in changed(a, c)


def test_the_default_seed_is_0():
    model = tiny()
    for randomization in WAYS.values():
        for (_, a), (_, b) in zip(randomization(model), randomization(model, seed=0, redraw="initial"), strict=True):
            assert not changed(kept(a), kept(b))


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
        assert not changed(kept(a), {name: value.cpu() for name, value in b.state_dict().items()})
    assert torch.equal(torch.cuda.get_rng_state(), state)


# what is given and what is left


def dressed(seed=0):
    """A network with everything a careless function could lose: modes, frozen layers, hooks, gradients."""
    model = tiny(seed)
    model.bn1.train()
    model.relu2.train()
    for parameter in model.conv2.parameters():
        parameter.requires_grad_(False)
    model.conv1.register_forward_hook(lambda module, inputs, output: None)
    model.fc.register_full_backward_hook(lambda module, inputs, output: None)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    return model


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
    wanted = [kept(network) for _, network in randomization(model)]
    for (_, network), untouched in zip(randomization(model), wanted, strict=True):
        assert not network.training
        assert not changed(untouched, kept(network))
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
def test_an_exception_on_the_way_leaves_no_trace(randomization):
    model = nn.Sequential(Unwilling(3, 3), nn.Linear(3, 3))
    state = draws()
    with assert_untouched(model):
        walk = randomization(model)
        next(walk)
        with pytest.raises(RuntimeError, match="boom"):
            next(walk)
    assert draws() == state


def test_a_cascade_over_resnet18():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value += 3
    before, gone = kept(model), set()
    for name, network in cascading_randomization(model):
        gone |= {name, name.replace("conv", "bn"), name.replace("downsample.0", "downsample.1")}
        now = kept(network)
        found = {key.rsplit(".", 1)[0] for key in changed(before, now)}
        assert found == gone
        assert all((now[f"{layer}.running_mean"] == 0).all() for layer in found if "bn" in layer)
        if name == "layer4.0.downsample.0":
            break
    assert found == {
        *("fc", "layer4.1.bn2", "layer4.1.conv2", "layer4.1.bn1", "layer4.1.conv1"),
        *("layer4.0.downsample.1", "layer4.0.downsample.0"),
    }
    assert not changed(before, kept(model))


# sanity_check


def edges(model, x, target):
    return edge_map(x)


def saliency(model, x, target):
    return class_saliency(model, x, target)


def last_weights(model, x, target):
    """Maps that hang on the logits' weights and on nothing else."""
    return model.fc.weight.detach()[None].expand(len(x), -1, -1).clone()


def first_weights(model, x, target):
    return model.conv1.weight.detach().flatten(1)[None].expand(len(x), -1, -1).clone()


@pytest.mark.parametrize("order", WAYS)
@each_redraw
def test_sanity_check_compares_the_maps_of_the_randomised_networks(order, redraw):
    model, x, target = tiny(), images(3), [2, 0, 1]
    found = sanity_check(saliency, model, x, target, order=order, seed=4, redraw=redraw)
    assert found.layers == tuple(STEPS)
    assert found.maps.shape == (5, 3, 12, 12)
    networks = [model, *(network for _, network in WAYS[order](model, seed=4, redraw=redraw))]
    wanted = torch.stack([saliency(network, x, torch.tensor(target)) for network in networks])
    torch.testing.assert_close(found.maps, wanted)
    assert list(found.similarity) == MEASURES
    for values in found.similarity.values():
        assert values.shape == (4, 3)
        assert values.dtype == torch.float32
    for step in range(4):
        for image in range(3):
            first, later = found.maps[0, image].flatten(), found.maps[step + 1, image].flatten()
            for measure, a, b in (("spearman", first, later), ("spearman_abs", first.abs(), later.abs())):
                assert found.similarity[measure][step, image].item() == pytest.approx(
                    spearmanr(a, b).statistic, abs=1e-5
                )
        both = map_similarity(found.maps[0], found.maps[step + 1])  # itself tested in test_similarity.py
        for measure in ("ssim", "hog"):
            torch.testing.assert_close(found.similarity[measure][step], both[measure])


def test_the_defaults_are_the_cascade_of_seed_0():
    model, x = tiny(), images()
    plain, told = (
        sanity_check(saliency, model, x, 1, **more)
        for more in ({}, {"order": "cascading", "seed": 0, "redraw": "initial"})
    )
    assert torch.equal(plain.maps, told.maps)
    assert not torch.equal(plain.maps, sanity_check(saliency, model, x, 1, seed=1).maps)
    assert not torch.equal(plain.maps, sanity_check(saliency, model, x, 1, order="independent").maps)


@pytest.mark.parametrize("order", WAYS)
def test_an_edge_detector_fails_the_check_it_never_changes(order):
    found = sanity_check(lambda m, x, c: edge_map(x), tiny(), images(3), 0, order=order)
    for values in found.similarity.values():
        torch.testing.assert_close(values, torch.ones(4, 3))
    for values in found.baselines["edges"].values():
        torch.testing.assert_close(values, torch.ones(3))
    assert (found.baselines["permuted"]["spearman"] < 0.5).all()
    assert (found.baselines["another image"]["spearman"] < 0.5).all()


@pytest.mark.parametrize("order", WAYS)
def test_a_method_of_one_layer_falls_when_this_layers_turn_comes(order):
    last = sanity_check(last_weights, tiny(), images(), 0, order=order).similarity["spearman"]
    first = sanity_check(first_weights, tiny(), images(), 0, order=order).similarity["spearman"]
    assert (last[0] < 0.9).all()
    if order == "cascading":
        assert (last < 0.9).all()
    else:
        torch.testing.assert_close(last[1:], torch.ones(3, 2))
    torch.testing.assert_close(first[:3], torch.ones(3, 2))
    assert (first[3] < 0.9).all()


def test_similarity_keeps_the_sign_for_the_methods_that_give_one():
    def turns(model, x, target):
        return edge_map(x) * (1 if model.fc.weight.sum() == given else -1)

    model = tiny()
    given = model.fc.weight.sum()
    found = sanity_check(turns, model, images(), 0).similarity
    torch.testing.assert_close(found["spearman"], -torch.ones(4, 2))
    for measure in ("spearman_abs", "ssim", "hog"):
        torch.testing.assert_close(found[measure], torch.ones(4, 2))


@pytest.mark.parametrize(
    ("target", "wanted"), [(2, [2, 2]), ([2, 1], [2, 1]), (torch.tensor([0, 2], dtype=torch.int32), [0, 2])]
)
def test_the_target_stays_what_it_was_given_as(target, wanted):
    seen = []

    def records(model, x, target):
        seen.append((target.tolist(), target.dtype, target.device, model(x).argmax(1).tolist()))
        return edge_map(x)

    x = images()
    for seed in range(6):
        sanity_check(records, tiny(), x, target, seed=seed)
    assert [(one, dtype, device) for one, dtype, device, _ in seen] == [(wanted, torch.int64, x.device)] * 5 * 6
    assert len({tuple(predicted) for *_, predicted in seen}) > 1  # though the networks change their minds


@pytest.mark.parametrize("order", WAYS)
def test_the_method_is_given_networks_in_the_modes_they_were_found_in(order):
    model, seen = dressed(), []

    def records(network, x, target):
        seen.append([module.training for module in network.modules()])
        return edge_map(x)

    sanity_check(records, model, images(), 0, order=order)
    assert seen == [[module.training for module in model.modules()]] * 5
    assert {True, False} <= set(seen[0])


@pytest.mark.parametrize(("side", "maps"), [(12, 4), (12, 6), (12, 3), (12, 24), (13, 5)])
def test_maps_of_another_resolution(side, maps):
    def coarse(model, x, target):
        return F.adaptive_avg_pool2d(model.conv1(x)[:, 0], maps).detach()

    x = images(3, side=side)
    found = sanity_check(coarse, tiny(), x, 0)
    assert found.maps.shape == (5, 3, maps, maps)
    # edges come to the maps by the mean over each place
    edge = torch.tensor(np.stack([sobel(one) for one in x.double().mean(1).numpy()]))
    ratio = side / maps
    spans = [(int(i * ratio + 1e-9), int(np.ceil((i + 1) * ratio - 1e-9))) for i in range(maps)]
    means = torch.stack([torch.stack([edge[:, a:b, c:d].mean((1, 2)) for c, d in spans], 1) for a, b in spans], 1)
    for image in range(3):
        wanted = spearmanr(found.maps[0, image].flatten(), means[image].flatten()).statistic
        assert found.baselines["edges"]["spearman"][image].item() == pytest.approx(wanted, abs=1e-3)


def test_maps_need_not_be_square():
    x = images(2)[..., :9]
    found = sanity_check(saliency, tiny(), x, 0)
    assert found.maps.shape == (5, 2, 12, 9)
    low = sanity_check(lambda m, x, c: edge_map(x)[:, ::2, ::3], tiny(), x, 0)
    assert low.maps.shape == (5, 2, 6, 3)


# baselines


def test_one_image_has_no_other():
    found = sanity_check(saliency, tiny(), images(1), 0)
    assert list(found.baselines) == ["edges", "permuted"]
    several = sanity_check(saliency, tiny(), images(2), 0)
    assert list(several.baselines) == ["edges", "permuted", "another image"]
    for baseline in several.baselines.values():
        assert list(baseline) == MEASURES
        assert all(values.shape == (2,) for values in baseline.values())


def test_another_image_is_the_next_one_and_the_first_after_the_last():
    found = sanity_check(saliency, tiny(), images(4), 0)
    maps = found.maps[0].flatten(1)
    wanted = [spearmanr(maps[i], maps[(i + 1) % 4]).statistic for i in range(4)]
    assert found.baselines["another image"]["spearman"].tolist() == pytest.approx(wanted, abs=1e-5)


def test_the_edges_are_those_of_the_same_image():
    x = images(3)
    found = sanity_check(saliency, tiny(), x, 0)
    wanted = [
        spearmanr(one.flatten(), sobel(image.double().mean(0).numpy()).ravel()).statistic
        for one, image in zip(found.maps[0], x, strict=True)
    ]
    assert found.baselines["edges"]["spearman"].tolist() == pytest.approx(wanted, abs=1e-4)


def test_the_permuted_map_has_the_same_values_in_other_places():
    def one_hot(model, x, target):
        maps = torch.zeros(len(x), 5, 5)
        maps[:, 1, 3] = 2.0
        return maps

    values = sanity_check(one_hot, tiny(), images(40), 0).baselines["permuted"]["spearman"]
    # one place of 25: hit (1), or missed (-1 / 24, the correlation of two one-hot vectors)
    missed = (values + 1 / 24).abs() < 1e-5
    assert (missed | ((values - 1).abs() < 1e-5)).all()
    assert missed.sum() >= 30


def test_each_image_is_permuted_in_its_own_way_by_the_seed():
    x = images(1).expand(6, -1, -1, -1).contiguous()

    def permuted(**more):
        return sanity_check(edges, tiny(), x, 0, **more).baselines["permuted"]["spearman"]

    values = permuted()
    assert len(values.unique()) == 6
    assert values.abs().max() < 0.4  # of 144 places: sigma 1 / 12
    assert torch.equal(permuted(seed=0), values)
    torch.rand(3)
    assert torch.equal(permuted(), values)
    assert not torch.equal(permuted(seed=1), values)


# what sanity_check refuses, keeps and leaves


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (lambda m, x, c: x, r"method must give maps \(B, h, w\) with B = 2, got \(2, 3, 12, 12\)"),
        (lambda m, x, c: x[:, :1], r"method must give maps \(B, h, w\).*\(2, 1, 12, 12\)"),  # (B, K, H, W)
        (lambda m, x, c: x[0, 0], r"method must give maps .*\(12, 12\)"),
        (lambda m, x, c: x[:1, 0], r"method must give maps .* with B = 2, got \(1, 12, 12\)"),
        (lambda m, x, c: m(x), r"method must give maps .*\(2, 3\)"),
        (lambda m, x, c: x[:, 0].numpy(), "method must give maps .* ndarray"),
        (lambda m, x, c: [x[0], x[1]], "method must give maps .* list"),
        (lambda m, x, c: None, "method must give maps .* NoneType"),
        # maps that nothing can be compared with: the message must not speak of a and b, which nobody gave
        (lambda m, x, c: x[:, 0, :2], "method"),
        (lambda m, x, c: x[:, 0] / 0, "method"),
        (lambda m, x, c: x[:, 0] > 0, "method"),
    ],
)
def test_maps_of_another_shape_are_refused(method, match):
    model = tiny()
    with assert_untouched(model), pytest.raises(ValueError, match=match):
        sanity_check(method, model, images(), 0)


def test_a_method_that_changes_the_shape_of_its_maps_is_refused():
    model = tiny()

    def unsteady(m, x, c):
        return edge_map(x) if torch.equal(m.fc.weight, model.fc.weight) else edge_map(x)[:, 1:]

    with pytest.raises(ValueError, match="method"):
        sanity_check(unsteady, model, images(), 0)


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ([[0, 1], [1, 2]], r"target must be an int or \(B,\), one class an image, got shape \(2, 2\)"),
        ([[0], [1]], r"target must be an int or \(B,\), one class an image"),
        ([0, 1, 2], "target must be"),
        (1.0, "target must hold integers"),
        ("cat", "target must be"),
        (None, "target must be"),
    ],
)
def test_other_targets_are_refused(target, match):
    with pytest.raises(ValueError, match=match):
        sanity_check(edges, tiny(), images(), target)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (images()[0], "x must have shape"),
        (images()[:0], "x must not be empty"),
        (images().byte(), "x must be floating"),
    ],
)
def test_other_images_are_refused(x, match):
    with pytest.raises(ValueError, match=match):
        sanity_check(edges, tiny(), x, 0)


@pytest.mark.parametrize("order", ["cascade", "Independent", "", None])
def test_an_unknown_order_is_refused(order):
    with pytest.raises(ValueError, match='order must be "cascading" or "independent", got'):
        sanity_check(edges, tiny(), images(), 0, order=order)


@pytest.mark.parametrize("seed", [0.5, "a", None, True, 2**70])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        sanity_check(edges, tiny(), images(), 0, seed=seed)


def test_nothing_is_computed_when_redraw_or_order_are_wrong():
    def never(model, x, target):
        raise AssertionError

    for wrong in ({"redraw": "shuffle"}, {"order": "cascade"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            sanity_check(never, tiny(), images(), 0, **wrong)


@pytest.mark.parametrize("order", WAYS)
def test_sanity_check_leaves_network_images_and_generators(order):
    model, x, target = dressed(), images(), torch.tensor([0, 2])
    model.bn1.eval()  # in training mode a forward pass would move its statistics, whoever makes it
    before, state = (x.clone(), target.clone()), draws()
    with assert_untouched(model):
        sanity_check(saliency, model, x, target, order=order)
    assert torch.equal(x, before[0])
    assert torch.equal(target, before[1])
    assert draws() == state


@pytest.mark.parametrize("at", [0, 2])
def test_sanity_check_leaves_the_network_when_the_method_fails(at):
    calls = []

    def fails(model, x, target):
        calls.append(1)
        if len(calls) > at:
            raise RuntimeError("boom")
        return edge_map(x)

    model, state = dressed(), draws()
    with assert_untouched(model), pytest.raises(RuntimeError, match="boom"):
        sanity_check(fails, model, images(), 0)
    assert draws() == state


def test_results_hang_on_no_graph():
    def graph(model, x, target):
        return model.conv1(x).sum(1)

    found = sanity_check(graph, tiny(), images().requires_grad_(), 0)
    groups = [found.similarity, *found.baselines.values()]
    assert not any(values.requires_grad for group in groups for values in group.values())
    assert not found.maps.requires_grad


def test_sanity_check_in_double_precision():
    found = sanity_check(saliency, tiny().double(), images().double(), 0)
    assert found.maps.dtype == torch.float64
    for group in (found.similarity, *found.baselines.values()):
        assert all(values.dtype == torch.float64 for values in group.values())


def test_a_batch_is_what_its_images_are_one_by_one():
    model, x, target = tiny(), images(3), [0, 2, 1]
    found = sanity_check(saliency, model, x, target)
    for image in range(3):
        one = sanity_check(saliency, model, x[image : image + 1], target[image : image + 1])
        torch.testing.assert_close(one.maps, found.maps[:, image : image + 1])
        for measure in MEASURES:
            torch.testing.assert_close(
                one.similarity[measure], found.similarity[measure][:, image : image + 1], rtol=1e-4, atol=1e-4
            )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_sanity_check_keeps_the_device():
    found = sanity_check(saliency, tiny().cuda(), images().cuda(), torch.tensor([0, 1]))
    assert found.maps.device.type == "cuda"
    for group in (found.similarity, *found.baselines.values()):
        assert all(values.device.type == "cuda" for values in group.values())


# permuted labels


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32])
def test_permuted_labels_keep_their_counts(dtype):
    labels = torch.tensor([3] * 20 + [1] * 7 + [0] * 3).to(dtype)
    before, state = labels.clone(), draws()
    found = permuted_labels(labels)
    assert draws() == state
    assert found.shape == (30,)
    assert found.dtype == dtype
    assert found.device == labels.device
    assert torch.equal(labels, before)
    assert torch.equal(found.sort().values, labels.sort().values)
    assert not torch.equal(found, labels)


def test_permuted_labels_hang_on_their_seed_alone():
    labels = torch.arange(50)
    found = permuted_labels(labels, 3)
    torch.rand(2)
    assert torch.equal(permuted_labels(labels, seed=3), found)
    assert torch.equal(permuted_labels(labels), permuted_labels(labels, 0))
    assert len({tuple(permuted_labels(labels, seed).tolist()) for seed in range(10)}) == 10
    assert torch.equal(permuted_labels(labels + 100, 3), found + 100)  # an order of places, whatever stands there


def test_permuted_labels_of_one_or_none():
    assert permuted_labels(torch.tensor([4])).tolist() == [4]
    assert permuted_labels(torch.tensor([], dtype=torch.int64)).tolist() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_permuted_labels_are_the_same_on_a_gpu():
    labels = torch.arange(50)
    found = permuted_labels(labels.cuda())
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu(), permuted_labels(labels))


def learner(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4))


def lesson():
    x = torch.randn(16, 3, 8, 8, generator=seeded(7))
    return x, torch.arange(16) % 4


def learn(model, **more):
    x, labels = lesson()
    return permuted_label_network(model, x, labels, **({"epochs": 25, "lr": 1e-2, "progress": False} | more))


def share_right(network, labels):
    with torch.no_grad():
        return (network(lesson()[0]).argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize("seed", [0, 1])
def test_permuted_labels_are_learned_by_heart(seed):
    model, (_, labels) = learner(), lesson()
    with assert_untouched(model):
        network = learn(model, seed=seed)
    wrong = permuted_labels(labels, seed)
    assert share_right(network, wrong) == 1.0
    assert share_right(network, labels) == (wrong == labels).float().mean().item() < 0.7


def test_the_network_is_of_the_same_build_trained_and_in_evaluation_mode():
    for model in (learner().train(), learner().eval()):
        network = learn(model, epochs=1)
        assert type(network) is type(model)
        assert not any(module.training for module in network.modules())
        assert {name: value.shape for name, value in network.state_dict().items()} == {
            name: value.shape for name, value in model.state_dict().items()
        }
        assert {value.dtype for value in network.parameters()} == {torch.float32}
        own = {value.data_ptr() for value in model.state_dict().values()}
        assert not own & {value.data_ptr() for value in network.state_dict().values()}


def test_training_starts_from_scratch():
    # whatever the given network knows, its running statistics too, does not reach the new one
    one, other = learner(0), learner(1)
    other(5 * lesson()[0] + 3)
    assert changed(kept(one), kept(other))
    assert not changed(kept(learn(one, epochs=2)), kept(learn(other, epochs=2)))


def test_training_is_fits_on_permuted_labels_with_the_seed():
    model, (x, labels) = learner(), lesson()
    *_, (_, wanted) = cascading_randomization(model, seed=3)
    fit(wanted, x, permuted_labels(labels, 3), epochs=3, lr=2e-3, seed=3, progress=False)
    assert not changed(kept(wanted), kept(learn(model, epochs=3, lr=2e-3, seed=3)))


def test_the_default_learning_rate_and_seed():
    model = learner()
    assert not changed(
        kept(learn(model, epochs=2, lr=1e-3)),
        kept(permuted_label_network(model, *lesson(), epochs=2, seed=0, progress=False)),
    )


def test_the_trained_network_hangs_on_its_seed_alone():
    model = learner()
    first = kept(learn(model, epochs=2, seed=5))
    torch.rand(3)
    state = draws()
    assert not changed(first, kept(learn(model, epochs=2, seed=5)))
    assert draws() == state
    assert "0.weight" in changed(first, kept(learn(model, epochs=2, seed=6)))


def test_frozen_layers_are_learned_too_and_stay_frozen_in_the_original():
    model = learner().requires_grad_(False)
    with assert_untouched(model):
        network = learn(model)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert share_right(network, permuted_labels(lesson()[1])) == 1.0


def test_a_progress_bar_is_shown_unless_it_is_not_wanted(capfd):
    learn(learner(), epochs=1)
    assert capfd.readouterr() == ("", "")
    permuted_label_network(learner(), *lesson(), epochs=1)
    assert "training" in capfd.readouterr().err


def test_images_and_labels_are_left_alone():
    x, labels = lesson()
    before = x.clone(), labels.clone()
    permuted_label_network(learner(), x, labels, epochs=1, progress=False)
    assert torch.equal(x, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x, y: (x[0], y), "images must be"),
        (lambda x, y: (x[:0], y[:0]), "images must be a non-empty"),
        (lambda x, y: (x, y[:3]), r"labels must be \(16,\)"),
        (lambda x, y: (x, y.float()), "labels must be"),
        (lambda x, y: (x, y + 1), r"labels must lie in 0 \.\. 3"),
        (lambda x, y: (x, y - 1), r"labels must lie in 0 \.\. 3"),
        (lambda x, y: (x / 0, y), "loss"),
    ],
)
def test_permuted_label_network_refuses_what_fit_refuses(change, match):
    model = learner()
    with assert_untouched(model), pytest.raises(ValueError, match=match):
        permuted_label_network(model, *change(*lesson()), epochs=1, progress=False)
    with pytest.raises(ValueError, match="epochs"):
        learn(model, epochs=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_trained_network_is_on_the_models_device():
    network = learn(learner().cuda(), epochs=1)
    assert all(value.device.type == "cuda" for value in network.state_dict().values())
