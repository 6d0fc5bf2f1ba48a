"""tools.check: every part runs, each can fail, and the contracts on imports and types are not empty."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools import book, check
from tools.project import ROOT
from tools.run_pages import PageRun


def finished(code: int) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, "what it said")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What each part returns, and how the tests were called; nothing is run."""
    state: dict[str, Any] = {"codes": {}, "built": book.Build([], 0, ""), "tests": 0}
    readings = check.readings()

    def read(command: list[str]) -> subprocess.CompletedProcess[str]:
        (part,) = (name for name, known in readings.items() if known == command)
        return finished(state["codes"].get(part, 0))

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        state.update(command=command, variables=options["env"])
        return finished(state["tests"])

    monkeypatch.setattr(check, "read", read)
    monkeypatch.setattr(check.book, "build", lambda root, pool, quiet, pages_ended: state["built"])
    monkeypatch.setattr(check.book, "site_state", lambda root: tmp_path / "site")
    monkeypatch.setattr(check.subprocess, "run", run)
    return state


def test_all_is_well(parts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert parts["variables"]["HELPERS_SITE"] == "building"
    assert (tmp_path / "site").read_text() == "built"
    assert parts["variables"]["OMP_NUM_THREADS"] == "1"
    assert "not slow" in parts["command"]
    assert tuple(parts["command"][-len(check.TESTS) :]) == check.TESTS


def test_slow_tests_are_asked_for(parts: dict[str, Any]) -> None:
    assert check.main(["--all"]) == 0
    assert "not slow" not in parts["command"]
    check.main(["-k", "something"])
    assert parts["command"][-2:] == ["-k", "something"]


@pytest.mark.parametrize("part", check.readings())
def test_a_reading_that_fails_is_said(part: str, parts: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    parts["codes"][part] = 1
    assert check.main([]) == 1
    said = capsys.readouterr().out
    assert f"== {part}: FAILED" in said
    assert "what it said" in said
    assert tuple(parts["command"][-len(check.TESTS) :]) == check.TESTS, "the rest runs all the same"


@pytest.mark.parametrize(
    "built", [book.Build([PageRun("ch01", False, "its traceback")], 0, ""), book.Build([], 1, "its traceback")]
)
def test_a_book_that_is_not_built_is_said(
    built: book.Build, parts: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts["built"] = built
    assert check.main([]) == 1
    assert "its traceback" in capsys.readouterr().out
    assert (tmp_path / "site").read_text() == "failed"


def test_failed_tests_are_enough(parts: dict[str, Any]) -> None:
    parts["tests"] = 1
    assert check.main([]) == 1


# Below: the contracts on imports and types, each with a fault planted in a copy.


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its settings, to break."""
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=shutil.ignore_patterns("__pycache__", "files"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def reading(name: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Run a reading in another folder."""
    variables = check.environment() | {"PYTHONPATH": str(root)}
    command = check.readings()[name]
    return subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False)


AGAINST_THE_FLOORS = {  # file: the line to add, and the import that the contract names
    "data/_digits.py": ("from helpers import cam", "helpers.data._digits -> helpers.cam"),
    "boxes.py": ("from helpers.capture import activations", "helpers.boxes -> helpers.capture"),
    "metrics/_curves.py": ("import helpers.saliency", "helpers.metrics._curves -> helpers.saliency"),
    "compare/__init__.py": ("from helpers.plots import images", "helpers.compare -> helpers.plots"),
    "tables.py": ("from helpers.experiments import environment", "helpers.tables -> helpers.experiments.environment"),
    "new_room.py": ("import torch", "new_room"),
}


def test_imports_against_the_floors_are_seen(copy: Path) -> None:
    for file, (line, _) in AGAINST_THE_FLOORS.items():
        with (copy / "helpers" / file).open("a", encoding="utf8") as module:
            module.write(f"\n{line}\n")
    done = reading("imports run one way", copy)
    assert done.returncode == 1
    assert "Imports run one way BROKEN" in done.stdout
    assert [named for _, named in AGAINST_THE_FLOORS.values() if named not in done.stdout] == []


def test_two_rooms_that_import_each_other_are_seen(copy: Path) -> None:
    with (copy / "helpers" / "cam" / "_head.py").open("a", encoding="utf8") as module:
        module.write("\nfrom helpers import similarnet\n")
    assert "No room imports a room that imports it BROKEN" in reading("imports run one way", copy).stdout


ERRORS = ("x: int = 'a'", "check_number()", "check_number(1, 'x').nothing", "undefined_name", "'a' + 1")


def test_errors_of_types_are_seen(copy: Path) -> None:
    path = copy / "helpers" / "_validate.py"
    lines = len(path.read_text(encoding="utf8").splitlines())
    with path.open("a", encoding="utf8") as module:
        module.write("\n".join(ERRORS) + "\n")
    done = reading("types", copy)
    assert done.returncode == 1
    places = {int(number) for number in re.findall(r"helpers/_validate\.py:(\d+):", done.stdout)}
    assert places >= set(range(lines + 1, lines + 1 + len(ERRORS)))
