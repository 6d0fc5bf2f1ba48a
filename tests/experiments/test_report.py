"""The command line of the long runs: what it writes where, and what it says when it cannot."""

import json
import math
import os
import signal

import pytest
import scipy.stats
import torch
from support.records import read_back
from support.rows import pick

from helpers.data import DataMissing
from helpers.experiments import background, licnn, report
from helpers.experiments.report import Record, best_on_even, cached_part, header, run_record, summary
from helpers.experiments.run_files import RunError
from helpers.experiments.similarnet import measure as similarnet
from helpers.experiments.whatwhere import measure as whatwhere
from helpers.networks import WeightsError
from helpers.results import long_table

ENVIRONMENT = {"commit": "0123456789ab", "python": "3.11.1", "torch": "2.9", "device": "cpu", "threads": 2}
ABOUT = header("toy", ENVIRONMENT, data={"Übung": "f" * 64}, seeds=(0, 1), settings={"sizes": [1, 2]})
ROWS = long_table({"net": {"hits": {"mean": 0.5, "error": 0.25}, "none": None}}, "network", "metric", table="a", seed=0)
TOY = Record(ABOUT, ROWS)


def toy(_out, _device):
    return TOY


def run(*arguments, record=toy):
    return run_record("toy", "A toy.", record, [*map(str, arguments)])


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of its own; gives the folder of the records."""
    folder = tmp_path / "checkout" / "helpers" / "results"
    (tmp_path / "checkout" / "book").mkdir(parents=True)
    (tmp_path / "checkout" / "book" / "index.md").touch()
    folder.mkdir(parents=True)
    monkeypatch.setattr(report, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(report, "FOLDER", folder)
    return folder


def files(folder):
    every = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in every if path != "checkout/book/index.md")


def test_a_header_has_all_that_a_record_must_tell():
    assert ABOUT == {
        "name": "toy",
        "command": "python -m helpers.experiments.toy --publish",
        "commit": "0123456789ab",
        "device": "cpu",
        "threads": 2,
        "versions": {"python": "3.11.1", "torch": "2.9"},
        "data": {"Übung": "f" * 64},
        "seeds": [0, 1],
        "settings": {"sizes": [1, 2]},
        "published": {},
    }
    other = header("toy", ENVIRONMENT, data={}, seeds={"a": (1,)}, settings={}, published={"source": "b"}, command="c")
    assert (other["seeds"], other["published"], other["command"]) == ({"a": [1]}, {"source": "b"}, "c")


@pytest.mark.parametrize("publish", [False, True])
def test_a_record_is_written_into_out_or_published(tmp_path, checkout, capsys, publish):
    out = tmp_path / "deep" / "runs"
    folder, other = (checkout, out) if publish else (out, checkout)
    assert run("--out", out, "--device", "cpu", *["--publish"] * publish) == 0
    record = read_back(folder / "toy.csv")
    assert record.attrs == ABOUT
    assert pick(record, table="a", network="net", metric="hits")[["value", "error"]].tolist() == [0.5, 0.25]
    assert record["value"].isna().tolist() == [False, True]
    assert (files(folder), files(other)) == (["toy.csv"], [])
    assert capsys.readouterr().out == f"{folder / 'toy.csv'}\n"


def test_a_record_is_made_with_what_the_command_line_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", "before")
    monkeypatch.setattr("helpers.device.best_device", lambda: torch.device("meta"))
    monkeypatch.chdir(tmp_path)
    seen = []

    def look(out, device):
        seen.append((out.as_posix(), device.type, os.environ["HELPERS_DATA"]))
        return TOY

    assert run(record=look) == 0
    assert files(tmp_path) == ["runs/toy/toy.csv"]
    assert run("--out", "other", "--device", "cpu", "--data", "data", record=look) == 0
    assert seen == [("runs/toy", "meta", "before"), ("other", "cpu", "data")]
    assert os.environ["HELPERS_DATA"] == "before"
    monkeypatch.setattr(report, "ROOT", tmp_path / "no checkout")  # nothing is measured that cannot be published
    assert run("--publish", record=look) == 1
    assert len(seen) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        DataMissing("MNIST is not there. To get it: do this"),
        RunError("another run lies there"),
        WeightsError("net.safetensors is damaged: install the package again"),
        OSError("disk full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_trouble_is_one_line_and_status_1(tmp_path, checkout, capsys, trouble):
    def fail(_out, _device):
        raise trouble

    assert run("--out", tmp_path / "runs", "--device", "cpu", "--publish", record=fail) == 1
    said = capsys.readouterr()
    assert said.err == f"error: {trouble}\n"
    assert said.out == ""
    assert files(tmp_path) == []


def test_a_disk_that_is_full_at_the_end_is_one_line(tmp_path, capsys, monkeypatch):
    def full(path, content):
        raise OSError("disk full")

    monkeypatch.setattr(report, "write_safely", full)
    assert run("--out", tmp_path, "--device", "cpu") == 1
    assert capsys.readouterr().err == "error: disk full\n"


def test_a_bug_keeps_its_traceback(tmp_path):
    def broken(_out, _device):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run("--out", tmp_path, "--device", "cpu", record=broken)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_one_line_and_status_130(tmp_path, capsys, monkeypatch, how):
    monkeypatch.delenv("HELPERS_DATA", raising=False)
    handler = signal.getsignal(signal.SIGTERM)

    def stopped(_out, _device):
        signal.raise_signal(how)
        pytest.fail("went on")

    # A process that is started in the background may not hear Ctrl-C at all.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run("--out", tmp_path, "--device", "cpu", "--data", "there", record=stopped) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err
    assert said == f"\nstopped; what is finished is kept in {tmp_path}: the same command goes on from there\n"
    assert "HELPERS_DATA" not in os.environ
    assert signal.getsignal(signal.SIGTERM) is handler


def test_data_in_the_home_of_nobody_is_one_line(tmp_path, capsys):
    assert run("--out", tmp_path, "--device", "cpu", "--data", "~nobody-of-this-name/data") == 1
    assert capsys.readouterr().err.startswith("error: HELPERS_DATA is '~nobody-of-this-name/data': ")


@pytest.mark.parametrize("inside", ["", "book/chapter.ipynb"])
def test_an_installed_package_publishes_nothing(tmp_path, monkeypatch, capsys, inside):
    (tmp_path / inside).parent.mkdir(exist_ok=True)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    assert run("--out", tmp_path / "runs", "--device", "cpu", "--publish") == 1
    assert "--publish works in a checkout of the book only" in capsys.readouterr().err


def test_a_part_is_made_once_and_reads_the_same(tmp_path):
    path, calls = tmp_path / "part.json", []

    def make():
        calls.append(1)
        return {"values": (1.5, math.nan), 0.5: {"a": None}}

    first = cached_part(path, make, lambda: {"images": (3,)})
    assert first["0.5"] == {"a": None}  # as the next run will read it
    assert first["values"][0] == 1.5
    assert math.isnan(first["values"][1])
    assert json.dumps(cached_part(path, make, lambda: {"images": (3,)})) == json.dumps(first)
    assert len(calls) == 1
    cached_part(path, make, lambda: {"images": 4})
    assert len(calls) == 2
    # A network that is trained for the part: the file says of which weights it is.
    cached_part(path, make, lambda: {"weights": len(calls)})
    cached_part(path, make, lambda: {"weights": 3})
    assert len(calls) == 3
    cached_part(path, make, lambda: {"images": 4})
    for damaged in ("{", "[]", '{"settings": {"images": 4}}'):
        path.write_text(damaged)
        with pytest.raises(RunError, match=r"part\.json is damaged"):
            cached_part(path, make, lambda: {"images": 4})


def test_mean_and_standard_error_without_what_is_missing():
    values = torch.tensor([0.25, math.nan, 1.0, 0.5])
    assert summary(values)["mean"] == pytest.approx(1.75 / 3)
    assert summary(values)["error"] == pytest.approx(scipy.stats.sem([0.25, 1, 0.5]))
    assert summary(values[:1])["mean"] == 0.25
    assert math.isnan(summary(values[:1])["error"])
    assert math.isnan(summary(values[1:2])["mean"])


def test_even_images_choose_and_the_first_of_equals_is_taken():
    scores = torch.tensor([[0.1, 9, 0.1], [0.5, 0, 0.3], [0.4, 5, 0.4], [0.3, 9, 0.3]])
    assert best_on_even(scores) == 1
    assert best_on_even(torch.ones(3, 4)) == 0


def test_an_unknown_device_is_status_1(tmp_path, capsys):
    assert run("--out", tmp_path, "--device", "foo") == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("module", "data"),
    [(background, "Tiny ImageNet"), (licnn, "Tiny ImageNet"), (similarnet, "MNIST"), (whatwhere, "MNIST")],
)
def test_without_the_data_a_run_says_how_to_get_it(module, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    assert module.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: {data} is not in")
    assert "To get it: python -m helpers.data" in message
    assert files(tmp_path) == []
