"""The command line of trainings: what it refuses, and what it leaves."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.rows import select
from support.trainings import RUN, TINY, refusal

from helpers import results
from helpers.experiments.environment import commit
from helpers.experiments.train import command as train
from helpers.experiments.train.run import CHECKPOINT, HISTORY, Run
from tools.project import ROOT


def started(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "helpers.experiments.train", *TINY, "--out", str(out), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # A shell that runs the tests in the background has its children ignore Ctrl-C; this one shall hear it.
    hearing = None if sys.platform == "win32" else functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, preexec_fn=hearing, **streams)


def epochs_done(out: Path) -> int:
    try:
        return len(json.loads((out / RUN / HISTORY).read_text(encoding="utf8")))
    except FileNotFoundError:
        return 0


def stopped_after_an_epoch(out: Path, how: signal.Signals) -> tuple[int, str]:
    """Start a run, stop it once an epoch is done, and return its exit status and output."""
    process, deadline = started(out), time.monotonic() + 200
    while epochs_done(out) == 0 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    output = process.communicate(timeout=120)[0]
    assert 1 <= epochs_done(out) < 6, output
    return process.returncode, output


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / "scenes-gap" / "scenes-gap.safetensors")


def test_a_run_leaves_weights_manifest_record_and_curves(uninterrupted):
    home = uninterrupted / "scenes-gap"
    assert {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()} == {
        "scenes-gap.safetensors", "scenes-gap.json", "results/scenes-gap.csv", "results/scenes-gap.png",
        f"seed-3/{CHECKPOINT}", f"seed-3/{HISTORY}",
    }  # fmt: skip
    record = results.from_text((home / "results" / "scenes-gap.csv").read_text(encoding="utf8"))
    assert select(record, table="epochs", metric="loss")["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert record.attrs["commit"] == commit()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(tmp_path, uninterrupted):
    status, _ = stopped_after_an_epoch(tmp_path, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert train.main([*TINY, "--out", str(tmp_path), "--resume"]) == 0
    ours, theirs = tensors(tmp_path), tensors(uninterrupted)
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in ours)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_the_last_epoch_and_says_so(tmp_path, how, uninterrupted):
    status, output = stopped_after_an_epoch(tmp_path, how)
    assert status == 130
    assert "--resume goes on from there" in output
    assert "Traceback" not in output
    assert train.main([*TINY, "--out", str(tmp_path), "--resume"]) == 0
    assert all(value.equal(tensors(uninterrupted)[key]) for key, value in tensors(tmp_path).items())


class Bomb:
    """Pickles into a call that must never happen."""

    def __reduce__(self):
        return pytest.fail, ("a checkpoint was unpickled",)


def test_a_run_is_never_overwritten_by_mistake(uninterrupted, capsys):
    before = (uninterrupted / RUN / CHECKPOINT).read_bytes()
    assert "go on with --resume, or throw it away with --restart" in refusal(capsys, *TINY, "--out", str(uninterrupted))
    said = refusal(capsys, *TINY, "--epochs", "7", "--out", str(uninterrupted), "--resume")
    assert "other settings (epochs)" in said
    # Runs are made by commands, too, that have no --restart.
    assert (
        f"remove {uninterrupted / RUN} or give another --out (in a training: the same settings, or --restart)" in said
    )
    assert "other settings (data)" in refusal(capsys, *TINY, "--images", "128", "--out", str(uninterrupted), "--resume")
    assert "other settings (bfloat16)" in refusal(capsys, *TINY, "--bfloat16", "--out", str(uninterrupted), "--resume")
    assert (uninterrupted / RUN / CHECKPOINT).read_bytes() == before


def test_a_restart_throws_the_old_run_away_at_once(tmp_path, capsys, monkeypatch):
    short = [*TINY, "--epochs", "1", "--out", str(tmp_path)]
    assert train.main(short) == 0

    def interrupted(self, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "train", interrupted)
    assert train.main([*short, "--restart"]) == 130
    assert "no epoch was finished" in capsys.readouterr().err
    assert not (tmp_path / RUN / CHECKPOINT).exists()


def test_every_seed_is_looked_at_before_the_first_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Run, "train", lambda self, progress: pytest.fail("trained"))
    later = tmp_path / "scenes-gap" / "seed-5"
    later.mkdir(parents=True)
    (later / CHECKPOINT).write_bytes(b"damaged")
    two = [*TINY, "--seeds", "3", "5", "--out", str(tmp_path)]
    assert "there is a run in" in refusal(capsys, *two)
    assert "damaged" in refusal(capsys, *two, "--resume")


def test_progress_is_shown(tmp_path, capsys):
    loud = [word for word in TINY if word != "--quiet"]
    assert train.main([*loud, "--epochs", "1", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "scenes-gap, seed 3, epoch 1/1" in captured.err
    assert "epoch 1/1: loss 2." in captured.out


def test_a_damaged_checkpoint_is_said_and_can_be_thrown_away(tmp_path, capsys):
    short = [*TINY, "--epochs", "1", "--out", str(tmp_path)]
    assert train.main(short) == 0
    path = tmp_path / RUN / CHECKPOINT
    whole = torch.load(path, weights_only=True)
    for content in (b"", path.read_bytes()[:1000]):
        path.write_bytes(content)
        assert "damaged" in refusal(capsys, *short, "--resume")
    for foreign in ({"identity": "{}"}, whole | {"model": {}}, {**whole, "identity": Bomb()}, {"history": "[]"}):
        torch.save(foreign, path)
        assert "damaged" in refusal(capsys, *short, "--resume")
    assert train.main([*short, "--restart"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scenes-gap", "--epochs", "0"], "--epochs must be at least 1"),
        (["scenes-gap", "--classes", "goldfish"], "--classes is for the photo networks"),
        (["scenes-gap", "--images", "3"], "--images must be at least one batch (64)"),
        (["scenes-gap", "--device", "tpu"], "--device must be one that is there (cpu, cuda, mps), got 'tpu'"),
        (["photos-gap", "--data", "nowhere"], "Tiny ImageNet is not in nowhere"),
        (["scenes-gap", "--seeds", "0", "10000"], "seed must be less than 10,000, the seed of the test scenes"),
        (["lenet-mnist", "--seeds", "0", "-1"], "seed must be an integer in 0 .. 4294967295, got -1"),
        (["scenes-gap", "--seeds", "1", "2", "1"], "--seeds must differ, got 1 2 1"),
        (["scenes-gap", "--images", "64", "--publish"], "--publish takes the recipe as it is"),
        (["scenes-gap", "--epochs", "1", "--publish"], "--publish takes the recipe as it is"),
    ],
)
def test_bad_arguments_are_named(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))  # restored afterwards: --data sets it
    assert message in refusal(capsys, *arguments, "--out", str(tmp_path))
    assert not list(tmp_path.rglob(CHECKPOINT))


def test_an_unknown_class_is_named(tmp_path, capsys, real_data):
    arguments = ["photos-gap", "--classes", "goldfisch", "--data", str(real_data), "--out", str(tmp_path)]
    assert "classes must be ids or names such as goldfish" in refusal(capsys, *arguments)


def test_a_bug_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(self, progress):
        raise ValueError("a bug")

    monkeypatch.setattr(Run, "train", broken)
    with pytest.raises(ValueError, match="a bug"):
        train.main([*TINY, "--out", str(tmp_path)])
