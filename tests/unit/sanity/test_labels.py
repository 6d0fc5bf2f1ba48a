"""Permuted labels, and the network that learns them by heart."""

import pytest
import torch
from support.sanity import changed, draws, seeded, snapshot
from support.untouched import assert_untouched
from torch import nn

from helpers.sanity import cascading_randomization, permuted_label_network, permuted_labels
from helpers.training import fit


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32])
def test_permuted_labels_keep_their_counts(dtype):
    labels = torch.tensor([3] * 20 + [1] * 7 + [0] * 3).to(dtype)
    before, state = labels.clone(), draws()
    actual = permuted_labels(labels)
    assert draws() == state
    assert actual.shape == (30,)
    assert actual.dtype == dtype
    assert actual.device == labels.device
    assert torch.equal(labels, before)
    assert torch.equal(actual.sort().values, labels.sort().values)
    assert not torch.equal(actual, labels)


def test_permuted_labels_hang_on_their_seed_alone():
    labels = torch.arange(50)
    actual = permuted_labels(labels, 3)
    torch.rand(2)
    assert torch.equal(permuted_labels(labels, seed=3), actual)
    assert torch.equal(permuted_labels(labels), permuted_labels(labels, 0))
    assert len({tuple(permuted_labels(labels, seed).tolist()) for seed in range(10)}) == 10
    assert torch.equal(permuted_labels(labels + 100, 3), actual + 100)  # an order of places, whatever stands there


def test_permuted_labels_of_one_or_none():
    assert permuted_labels(torch.tensor([4])).tolist() == [4]
    assert permuted_labels(torch.tensor([], dtype=torch.int64)).tolist() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_permuted_labels_are_the_same_on_a_gpu():
    labels = torch.arange(50)
    actual = permuted_labels(labels.cuda())
    assert actual.device.type == "cuda"
    assert torch.equal(actual.cpu(), permuted_labels(labels))


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
    (x, _), before = lesson(), lesson()
    with assert_untouched(model):
        network = permuted_label_network(model, x, labels, epochs=25, lr=1e-2, seed=seed, progress=False)
    assert torch.equal(x, before[0])
    assert torch.equal(labels, before[1])
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
    first, second = learner(5), learner(6)  # not the seed of the draws, which would be drawn twice
    second(5 * lesson()[0] + 3)
    assert changed(snapshot(first), snapshot(second))
    assert not changed(snapshot(learn(first, epochs=2)), snapshot(learn(second, epochs=2)))


def test_training_is_fits_on_permuted_labels_with_the_seed():
    model, (x, labels) = learner(), lesson()
    *_, (_, expected) = cascading_randomization(model, seed=3)
    fit(expected, x, permuted_labels(labels, 3), epochs=3, lr=2e-3, seed=3, progress=False)
    assert not changed(snapshot(expected), snapshot(learn(model, epochs=3, lr=2e-3, seed=3)))


def test_the_default_learning_rate_and_seed():
    model = learner()
    assert not changed(
        snapshot(learn(model, epochs=2, lr=1e-3)),
        snapshot(permuted_label_network(model, *lesson(), epochs=2, seed=0, progress=False)),
    )


def test_the_trained_network_hangs_on_its_seed_alone():
    model = learner()
    first = snapshot(learn(model, epochs=2, seed=5))
    torch.rand(3)
    state = draws()
    assert not changed(first, snapshot(learn(model, epochs=2, seed=5)))
    assert draws() == state
    assert "0.weight" in changed(first, snapshot(learn(model, epochs=2, seed=6)))


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_trained_network_is_on_the_models_device():
    network = learn(learner().cuda(), epochs=1)
    assert all(value.device.type == "cuda" for value in network.state_dict().values())


@pytest.mark.parametrize(
    ("change", "match"), [(lambda x, y: (x, y[:3]), "labels must be"), (lambda x, y: (x / 0, y), "loss")]
)
def test_what_fit_refuses_is_refused(change, match):
    model = learner()
    with assert_untouched(model), pytest.raises(ValueError, match=match):
        permuted_label_network(model, *change(*lesson()), epochs=1, progress=False)
