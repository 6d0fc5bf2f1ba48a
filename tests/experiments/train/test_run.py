"""Trainings: checkpoints, kills and resumes, damaged files, losses that explode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.rows import assert_same_rows

from helpers import networks, results
from helpers.experiments.run_files import RunError
from helpers.experiments.train import command as train
from helpers.experiments.train import datasets as worlds
from helpers.experiments.train import publish
from helpers.experiments.train.recipes import RECIPES
from helpers.experiments.train.run import Machine, Run, accuracy, logits
from helpers.networks import _store as store
from helpers.results import frame

CPU = Machine(torch.device("cpu"))
TINY = ["scenes-gap", "--images", "192", "--epochs", "6", "--seeds", "3", "--device", "cpu", "--quiet"]
RUN = Path("scenes-gap", "seed-3")


def test_what_is_shipped_is_what_was_measured(tmp_path, monkeypatch):
    recipe = replace(RECIPES["scenes-gap"], epochs=1, seeds=(7,))
    split = worlds.load_split(recipe, 7, images=64)
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
    scores = logits(recipe, net, split.tests["test"].images)
    assert accuracy(scores, split.tests["test"].labels) == record["runs"][0]["accuracy"]["test"] == net.card.accuracy
    with torch.no_grad():
        run.model[0].weight[0, 0, 0, 0] = 1e6
    with pytest.raises(RunError, match=r"conv1\.weight holds numbers that half precision cannot"):
        publish.as_shipped(run.model)
    torch.testing.assert_close(scores, unrounded, atol=0.02, rtol=0.02)
    assert (scores - unrounded).abs().max() > 0  # half precision did round


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert train.main([*TINY, "--out", str(out)]) == 0
    return out


def test_words_about_a_network_may_change_without_a_new_training(uninterrupted, monkeypatch):
    recipe = replace(RECIPES["scenes-gap"], about="other words", epochs=6, seeds=(3,))
    run = Run(recipe, worlds.load_split(recipe, 3, 192), 3, uninterrupted / RUN, CPU)
    run.resume()
    assert len(run.history) == 6
    assert "before" not in run.run_environment


@pytest.mark.parametrize("steps", [1, 4, 5, 8])
def test_a_run_may_be_as_short_as_one_step(tmp_path, steps):
    recipe = replace(RECIPES["scenes-gap"], epochs=steps)
    run = Run(recipe, worlds.load_split(recipe, 0, images=64), 0, tmp_path, CPU)
    run.optimiser.step()  # torch wants one before the schedule's first
    rates = [run.schedule.get_last_lr()[0]]
    for _ in range(steps - 1):
        run.schedule.step()
        rates.append(run.schedule.get_last_lr()[0])
    assert len(rates) == steps
    assert 0 < min(rates) <= max(rates) <= recipe.lr * 1.000001


def test_a_loss_that_explodes_is_said_and_the_checkpoint_kept(tmp_path):
    recipe = replace(RECIPES["scenes-gap"], epochs=2, lr=1e30)
    run = Run(recipe, worlds.load_split(recipe, 0, images=128), 0, tmp_path, CPU)
    with pytest.raises(RunError, match="the loss became"):
        run.train(progress=False)
