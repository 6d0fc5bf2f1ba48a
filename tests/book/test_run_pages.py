"""tools.run_pages: each page runs once, alone, with the wheel, and what its cells put out is kept as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from support.notebooks import code, markdown, write_notebook

from tools import run_pages
from tools.chapters import Chapter

pytestmark = pytest.mark.book

ALONE = """import importlib.util
import os

import helpers
import torch

assert os.listdir() == ["ch01_passes.ipynb"], os.listdir()
assert importlib.util.find_spec("tools") is None
assert importlib.util.find_spec("tests") is None
assert torch.get_num_threads() == 1
print(helpers.__file__)"""
REFUSED = """import urllib.request

try:
    urllib.request.urlopen("http://example.org", timeout=5)
except OSError as error:
    assert "built without a network" in str(error), error
else:
    raise AssertionError("the network was reached")"""
OUTPUTS = """import sys

from IPython.display import HTML, display

print("one")
display(HTML("<b>two</b>"), metadata={"text/html": {"key": 1}})
print("three", file=sys.stderr)
4"""
CLAIM = "from helpers.claims import claim\n\nclaim('two', 1 + 1, equals=2, text='one and one make two')"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> tuple[Path, dict[str, run_pages.PageRun]]:
    """A folder where three pages were run, one of which fails, and how each ended."""
    root = tmp_path_factory.mktemp("pages")
    pages = {
        "ch01_passes": [markdown("# One"), *map(code, (OUTPUTS, CLAIM, "None", "5;", "_ + 1", ALONE, REFUSED))],
        "ch02_fails": [code("print('before')"), code("raise RuntimeError('planted')"), code("never_defined")],
        "ch03_text": [markdown("# Three")],
    }
    for name, cells in pages.items():
        write_notebook(root / f"{name}.ipynb", cells)
    runs = run_pages.run_pages(root, [Chapter(root / f"{name}.ipynb") for name in pages], packages)
    assert [run.name for run in runs] == list(pages)
    return root, {run.name: run for run in runs}


def cells_of(root: Path, name: str) -> list[Any]:
    """The code cells of a page as its run left it."""
    notebook = nbformat.read(run_pages.executed(run_pages.run_dir(root), name), as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_a_page_runs_alone_with_the_wheel_offline(results: Any, packages: Path) -> None:
    root, runs = results
    assert runs["ch01_passes"].passed, runs["ch01_passes"].output
    assert cells_of(root, "ch01_passes")[5].outputs[0].text == f"{packages / 'helpers' / '__init__.py'}\n"


def test_every_output_is_kept(results: Any) -> None:
    root, _ = results
    first, _, nothing, hidden, after, *_ = cells_of(root, "ch01_passes")
    assert [(out.output_type, out.get("name")) for out in first.outputs] == [
        ("stream", "stdout"), ("display_data", None), ("stream", "stderr"), ("execute_result", None),
    ]  # fmt: skip
    printed, shown, warned, value = first.outputs
    assert (printed.text, warned.text, value.data["text/plain"]) == ("one\n", "three\n", "4")
    assert (shown.data["text/html"], shown.metadata) == ("<b>two</b>", {"text/html": {"key": 1}})
    assert nothing.outputs == []
    assert hidden.outputs == [], "a semicolon hides the value"
    assert after.outputs[0].data["text/plain"] == "5", "the last value shown was 4"
    assert json.loads((root / "ch01_passes.ipynb").read_text())["cells"][1]["outputs"] == []


def test_a_page_that_fails_is_not_kept_and_says_why(results: Any) -> None:
    root, runs = results
    assert not runs["ch02_fails"].passed
    assert not run_pages.executed(run_pages.run_dir(root), "ch02_fails").exists()
    said = run_pages.failure(runs["ch02_fails"])
    assert "RuntimeError" in said
    assert "planted" in said
    assert "\x1b" not in said
    assert "never_defined" not in said, "what follows from the first failure is left out"
    assert "1 failed, 1 passed, 1 skipped" in said


def test_a_page_without_code_passes(results: Any) -> None:
    assert results[1]["ch03_text"].passed


def test_time_memory_and_claims_are_logged(results: Any) -> None:
    root, _ = results
    costs = run_pages.costs(root)
    assert list(costs) == ["ch01_passes", "ch02_fails"]
    row = costs["ch01_passes"]
    assert row["cell"] == 7
    assert 0 < row["total_seconds"] < 120
    assert 0 < row["cpu_seconds"] < 60
    assert row["peak_bytes"] is None or 10e6 < row["peak_bytes"] < 4e9
    (claim,) = run_pages.read_log(run_pages.run_dir(root) / "claims.jsonl")
    assert (claim["id"], claim["holds"], claim["notebook"]) == ("two", True, "ch01_passes")


def test_an_old_page_does_not_pass_for_a_new_one(results: Any, tmp_path: Path, packages: Path) -> None:
    run = run_pages.run_dir(tmp_path)
    old = run_pages.executed(run, "ch01_old")
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    run_pages.prepare(tmp_path, packages)
    assert not old.exists()


def test_what_is_over_budget_is_said() -> None:
    def line(seconds: float, peak: int | None) -> str:
        return run_pages.cost_line("ch01", {"total_seconds": 1.0, "cpu_seconds": seconds, "peak_bytes": peak})

    assert "OVER" not in line(89.0, 1024**3)
    assert "OVER" in line(91.0, 1024**3)
    assert "OVER" in line(1.0, 3 * 1024**3)
    assert "unknown" in line(1.0, None)


def test_no_more_pages_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(16), raising=False)
    sizes = {"SC_PHYS_PAGES": 5 * 2**20, "SC_PAGE_SIZE": 1024}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__, raising=False)
    assert run_pages.workers() == 2  # 5 GB, 2 GB a page
    sizes["SC_PHYS_PAGES"] = 2**10
    assert run_pages.workers() == 1
    sizes["SC_PHYS_PAGES"] = 2**30
    assert run_pages.workers() == 16
