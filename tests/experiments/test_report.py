"""The command line of the long runs: what it writes where, and what it says when it cannot."""

import json
import os

import pytest
import torch

from helpers.data import DataMissing
from helpers.experiments import report as records
from helpers.experiments.report import run_record
from helpers.experiments.run_files import RunError

RESULT = {"name": "toy", "of": "Übung", "values": [1, 0.5], "nested": {"a": None}}


def toy(_out, _device):
    return RESULT


def run(*arguments, record=toy):
    return run_record("toy", "A toy.", record, [*map(str, arguments)])


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout and an installed package of its own."""
    root, folder = tmp_path / "checkout", tmp_path / "package" / "recorded"
    (root / "book" / "results").mkdir(parents=True)
    folder.mkdir(parents=True)
    monkeypatch.setattr(records, "ROOT", root)
    monkeypatch.setattr(records, "FOLDER", folder)
    return root / "book" / "results", folder


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_record_is_written_into_out(tmp_path, checkout, capsys):
    out = tmp_path / "deep" / "runs"
    assert run("--out", out, "--device", "cpu") == 0
    text = (out / "toy.json").read_text(encoding="utf8")
    assert json.loads(text) == RESULT
    assert "Übung" in text
    assert text.startswith('{\n "name": "toy",\n')
    assert text.endswith("}\n")
    assert files(out) == ["toy.json"]
    assert capsys.readouterr().out == f"{out / 'toy.json'}\n"
    assert [files(folder) for folder in checkout] == [[], []]


def test_an_old_record_is_replaced(tmp_path):
    (tmp_path / "toy.json").write_text("old " * 1000)
    assert run("--out", tmp_path, "--device", "cpu") == 0
    assert json.loads((tmp_path / "toy.json").read_text(encoding="utf8")) == RESULT


def test_published_records_lie_in_the_book_and_in_the_package(tmp_path, checkout, capsys):
    out = tmp_path / "runs"
    assert run("--out", out, "--device", "cpu", "--publish") == 0
    assert [files(folder) for folder in checkout] == [["toy.json"]] * 2
    one, other = ((folder / "toy.json").read_bytes() for folder in checkout)
    assert one == other
    assert json.loads(one) == RESULT
    assert files(out) == []
    assert capsys.readouterr().out.splitlines() == [str(folder / "toy.json") for folder in checkout]


def test_a_record_is_made_with_what_the_command_line_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", "before")  # put back after the test, whatever happens to it
    seen = []

    def look(out, device):
        seen.append((out, device, os.environ["HELPERS_DATA"]))
        return {}

    assert run("--out", tmp_path, "--device", "meta", "--data", tmp_path / "data", record=look) == 0
    assert seen == [(tmp_path, torch.device("meta"), str(tmp_path / "data"))]


def test_what_is_left_out_is_the_best_device_the_data_that_are_set_and_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", "before")
    monkeypatch.setattr(records, "best_device", lambda: torch.device("meta"))
    monkeypatch.chdir(tmp_path)
    seen = []

    def look(out, device):
        seen.append((out.as_posix(), device, os.environ["HELPERS_DATA"]))
        return {}

    assert run(record=look) == 0
    assert seen == [("runs/toy", torch.device("meta"), "before")]
    assert files(tmp_path) == ["runs/toy/toy.json"]


def test_the_process_s_own_command_line_is_taken_where_none_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["toy", "--out", str(tmp_path), "--device", "cpu"])
    assert run_record("toy", "A toy.", toy) == 0
    assert files(tmp_path) == ["toy.json"]


@pytest.mark.parametrize(
    "trouble",
    [DataMissing("MNIST is not there. To get it: do this"), RunError("another run lies there"), OSError("disk full")],
    ids=lambda one: type(one).__name__,
)
def test_trouble_is_one_line_and_status_1(tmp_path, checkout, capsys, trouble):
    def fail(_out, _device):
        raise trouble

    assert run("--out", tmp_path / "runs", "--device", "cpu", "--publish", record=fail) == 1
    said = capsys.readouterr()
    assert said.err == f"error: {trouble}\n"
    assert said.out == ""
    assert files(tmp_path) == []


def test_a_fault_of_the_code_is_not_hushed_up(tmp_path):
    def fail(_out, _device):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("--out", tmp_path, "--device", "cpu", record=fail)


def test_a_number_that_json_does_not_know_is_written_as_null(tmp_path):
    def record(_out, _device):
        return {"auc": float("nan"), "rows": [1.5, (float("inf"), 2)], "deep": {"x": [float("nan")]}}

    assert run("--out", tmp_path, "--device", "cpu", record=record) == 0
    written = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert written == {"auc": None, "rows": [1.5, [None, 2]], "deep": {"x": [None]}}


def test_help_names_the_module_and_the_options(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "usage: python -m helpers.experiments.toy" in said
    assert "A toy." in said
    assert all(f"--{name}" in said for name in ("data", "out", "device", "publish"))


def test_an_unknown_device_is_status_1(tmp_path, capsys):
    assert run("--out", tmp_path, "--device", "foo") == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_nothing_is_measured_that_cannot_be_published(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "ROOT", tmp_path / "no checkout")
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    measured = []

    def look(_out, _device):
        measured.append(1)
        return {}

    assert run("--out", tmp_path / "runs", "--device", "cpu", "--publish", record=look) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert measured == []


def test_a_folder_that_cannot_be_made_is_status_1(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert run("--out", tmp_path / "taken", "--device", "cpu") == 1
    assert capsys.readouterr().err.startswith("error: ")
