"""Runs: what they ship, what a resume keeps and refuses, how short they may be, losses that explode."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import pytest
import torch
from support.canvases import small_split
from support.rows import assert_same_rows
from support.trainings import RUN

from helpers import networks, results
from helpers.experiments.run_files import RunError
from helpers.experiments.train import datasets, publish
from helpers.experiments.train import run as run_module
from helpers.experiments.train.recipes import RECIPES
from helpers.experiments.train.run import (
    CHECKPOINT,
    Machine,
    Run,
    build,
    recipe_logits,
    run_to_end,
    shipped_or_trained,
    trained,
    weights_file_hash,
    weights_hash,
)
from helpers.networks import _store as store
from helpers.results import frame
from helpers.training import share_right

CPU = Machine(torch.device("cpu"))


def test_what_is_shipped_is_what_was_measured(tmp_path, monkeypatch):
    recipe = replace(RECIPES["scenes-gap"], epochs=1, seeds=(7,))
    split = datasets.load_split(recipe, 7, images=64)
    run = Run(recipe, split, 7, tmp_path / "run", CPU)
    run.train(progress=False)
    unrounded = run.logits(split.tests["test"])
    record = publish.measured_runs(recipe, [run], images=64)
    publish.write(recipe, [run], record, tmp_path / "weights", tmp_path / "results")
    rows = frame(publish.record_rows(record))
    assert_same_rows(rows, results.read("scenes-gap"), ways=("table", "set", "metric"))
    assert record["command"] == ("python -m helpers.experiments.train scenes-gap --epochs 1 --images 64 --seeds 7")
    monkeypatch.setattr(store, "FILES", tmp_path / "weights")
    net = networks.load("scenes-gap", "cpu")
    scores = recipe_logits(recipe, net, split.tests["test"].images)
    assert share_right(scores, split.tests["test"].labels) == record["runs"][0]["accuracy"]["test"] == net.card.accuracy
    with torch.no_grad():
        run.model[0].weight[0, 0, 0, 0] = 1e6
    with pytest.raises(RunError, match=r"conv1\.weight holds numbers that half precision cannot"):
        publish.as_shipped(run.model)
    torch.testing.assert_close(scores, unrounded, atol=0.02, rtol=0.02)
    assert (scores - unrounded).abs().max() > 0  # half precision did round


def test_words_about_a_network_may_change_without_a_new_training(uninterrupted, monkeypatch):
    recipe = replace(RECIPES["scenes-gap"], about="other words", epochs=6, seeds=(3,))
    run = Run(recipe, datasets.load_split(recipe, 3, 192), 3, uninterrupted / RUN, CPU)
    run.resume()
    assert len(run.history) == 6
    assert "before" not in run.environment


def killed_after_an_epoch(run):
    save = run.save

    def save_and_die():
        save()
        raise KeyboardInterrupt

    run.save = save_and_die
    with pytest.raises(KeyboardInterrupt):
        run.train(progress=False)


def test_all_machines_that_a_run_was_on_are_remembered(tmp_path, monkeypatch):
    recipe = replace(RECIPES["scenes-gap"], epochs=4)
    split = datasets.load_split(recipe, 0, images=64)

    def on(machine, train=killed_after_an_epoch):
        """The environment that is kept when the run is gone on with there."""
        monkeypatch.setattr(run_module, "run_environment", lambda device: {"device": machine})
        run = Run(recipe, split, 0, tmp_path, CPU)
        if run.checkpoint.exists():
            run.resume()
        train(run)
        return run.environment

    a, b = ({"device": name, "bfloat16": False} for name in "ab")
    assert on("a") == a
    assert on("b") == b | {"before": a}
    assert on("b") == b | {"before": a}
    assert on("a", lambda run: run.train(progress=False)) == a | {"before": b | {"before": a}}
    assert on("b", lambda run: run.train(progress=False)) == a | {"before": b | {"before": a}}  # nothing was left to do


@pytest.fixture
def small(monkeypatch):
    """LeNet's recipe made small, on drawn digits."""
    recipe = replace(RECIPES["lenet-mnist"], epochs=1, batch=50)
    monkeypatch.setitem(RECIPES, "lenet-mnist", recipe)
    monkeypatch.setattr(run_module, "load_split", lambda recipe, seed: small_split())
    return recipe


def same(first, second):
    return all(a.equal(b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


def test_a_network_is_trained_once_and_gone_on_with(tmp_path, small):
    model = trained("lenet-mnist", 3, tmp_path, CPU.device)
    assert not model.training
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert any("seed-3" in path.as_posix() for path in times)
    assert same(model, trained("lenet-mnist", 3, tmp_path, CPU.device))
    assert not same(model, trained("lenet-mnist", 4, tmp_path, CPU.device))
    checkpoints = [path for path in times if path.name == CHECKPOINT]
    assert checkpoints
    assert all(path.stat().st_mtime_ns == times[path] for path in checkpoints)


def test_a_run_that_started_from_other_weights_is_not_gone_on_with(tmp_path, small):
    weights = build(small, 10).state_dict()
    other = weights | {"conv1.bias": weights["conv1.bias"] + 0.25}
    first = run_to_end(small, 3, tmp_path, CPU.device, weights)
    assert same(first, run_to_end(small, 3, tmp_path, CPU.device, dict(reversed(weights.items()))))
    for initial in (other, None):
        with pytest.raises(RunError, match=r"made with other settings \(initial weights\): remove .* or give another"):
            run_to_end(small, 3, tmp_path, CPU.device, initial)
    assert not same(first, run_to_end(small, 3, tmp_path / "other", CPU.device, other))
    run_to_end(small, 3, tmp_path / "drawn", CPU.device)
    with pytest.raises(RunError, match="initial weights"):
        run_to_end(small, 3, tmp_path / "drawn", CPU.device, weights)


def test_a_checkpoint_of_drawn_weights_that_is_older_than_their_hash_is_gone_on_with(tmp_path, small):
    run = Run(small, small_split(), 3, tmp_path, CPU)
    del run.identity["initial weights"]
    run.save()
    Run(small, small_split(), 3, tmp_path, CPU).resume()


def test_weights_have_one_hash_in_any_order_and_layout():
    weights = {"b": torch.arange(24.0).reshape(1, 2, 3, 4), "a": torch.tensor(3)}
    assert weights_hash(weights) == weights_hash(dict(reversed(weights.items())))
    assert weights_hash(weights) == weights_hash(weights | {"b": weights["b"].to(memory_format=torch.channels_last)})
    assert weights_hash(weights) != weights_hash(weights | {"a": torch.tensor(4)})
    by_hand = weights["a"].numpy().tobytes() + weights["b"].numpy().tobytes()
    assert weights_hash(weights) == hashlib.sha256(by_hand).hexdigest()


def test_the_first_seed_is_shipped_and_others_are_trained(tmp_path, small, monkeypatch):
    shipped = shipped_or_trained("lenet-mnist", 0, tmp_path, CPU.device)
    assert list(tmp_path.iterdir()) == []
    card = networks.card("lenet-mnist")
    assert same(shipped, networks.load("lenet-mnist", "cpu"))
    assert shipped.card == card
    assert weights_file_hash("lenet-mnist", 0, tmp_path) == card.sha256
    assert weights_file_hash("lenet-mnist", 1, tmp_path) == ""
    model = shipped_or_trained("lenet-mnist", 1, tmp_path, CPU.device)
    assert same(model, trained("lenet-mnist", 1, tmp_path, CPU.device))
    # What is known of the shipped network alone is not said of this one.
    assert math.isnan(model.card.accuracy)
    assert replace(model.card, accuracy=card.accuracy, sha256=card.sha256) == card
    file = tmp_path / "lenet-mnist" / "seed-1" / CHECKPOINT
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert weights_file_hash("lenet-mnist", 1, tmp_path) == digest != card.sha256
    assert model.card.sha256 == ""


@pytest.mark.parametrize("steps", [1, 4, 5, 8])
def test_a_run_may_be_as_short_as_one_step(tmp_path, steps):
    recipe = replace(RECIPES["scenes-gap"], epochs=steps)
    run = Run(recipe, datasets.load_split(recipe, 0, images=64), 0, tmp_path, CPU)
    run.optimiser.step()  # torch wants one before the schedule's first
    rates = [run.schedule.get_last_lr()[0]]
    for _ in range(steps - 1):
        run.schedule.step()
        rates.append(run.schedule.get_last_lr()[0])
    assert len(rates) == steps
    assert 0 < min(rates) <= max(rates) <= recipe.lr * 1.000001


def test_a_loss_that_explodes_is_said_and_the_checkpoint_kept(tmp_path):
    recipe = replace(RECIPES["scenes-gap"], epochs=2, lr=1e30)
    run = Run(recipe, datasets.load_split(recipe, 0, images=128), 0, tmp_path, CPU)
    with pytest.raises(RunError, match="the loss became"):
        run.train(progress=False)
