"""tools.book: a good book is built, and each planted fault stops it with its reason named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.notebooks import code, markdown
from support.small_book import small_book

from helpers.experiments.train import publish
from helpers.results import to_text
from tools import book, networks_page, run_pages

pytestmark = pytest.mark.book

CLAIM = "from helpers.claims import claim\n\nclaim('two', 1 + 1, equals=2, text='one and one make two')"
NEVER = "claim('never', 1, at_most=2, text='no')"
LOOPBACK = """import socket

server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
server.close()"""
FIGURE = {"mystnb": {"image": {"alt": "A blue dot."}, "figure": {"name": "fig-dot", "caption": "A dot."}}}
DRAW = "import matplotlib.pyplot as plt\n\nplt.plot([1], [1], 'o');"
EQUATION = "$$s = a | b$$ (eq-sum)\n\nImplemented by `helpers.device.best_device`; see {eq}`eq-sum`."


def test_a_good_book_is_built_and_its_appendix_generated(scratch_book: Callable[..., Path], packages: Path) -> None:
    root = scratch_book(
        ch01_good=[
            markdown(f"# Good\n\nSee {{numref}}`fig-dot`.\n\n{EQUATION}\n\n## One `and` one?\n"),
            *(code(CLAIM), code(LOOPBACK), code(DRAW, **FIGURE), code("2 ** 70")),
        ],
    )
    built = book.build(root, packages=packages, quiet=True)
    assert built.passed, built.complaints
    assert book.is_fresh(root)

    site = book.site_dir(root) / "book"
    figure = (site / "ch01_good.html").read_text(encoding="utf8")
    assert re.search(r'<figure [^>]*id="fig-dot">.*?<img [^>]*alt="A blue dot\."', figure, re.DOTALL)
    assert str(2**70) in figure
    claims = (site / "appendix" / "claims.html").read_text(encoding="utf8")
    assert "One and one make two" in claims
    assert 'href="../ch01_good.html#one-and-one"' in claims
    equations = (site / "appendix" / "equations.html").read_text(encoding="utf8")
    assert "helpers.device.best_device" in equations
    assert 'href="../ch01_good.html#equation-eq-sum"' in equations
    assert '"outputs": []' in (root / "book" / "ch01_good.ipynb").read_text(encoding="utf8"), "the source was changed"

    with (root / "book" / "index.md").open("a", encoding="utf8") as index:
        index.write("One more sentence.\n")
    assert not book.is_fresh(root)


# One page that runs to its end and one that does not; that each failure of a page is said is tested in test_run_pages.
ENDS, FAILS = "ch01_bad", "ch02_bad"
FAULTS = {  # the page, and what the build says
    "a broken cross-reference": (ENDS, "nowhere"),
    "a broken equation reference": (ENDS, "eq-none"),
    "a claim that is not run": (ENDS, "'never' of ch01_bad was not checked"),
    "a warning in a cell": (ENDS, "stderr was found"),
    "a false claim": (FAILS, "ClaimFailed"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> str:
    """What the build of a book says that has all the faults."""
    chapters = {
        ENDS: [
            markdown("# A\n\nSee {ref}`nowhere` and {eq}`eq-none`."),
            code("import warnings\n\nwarnings.warn('careful')"),
            code("if False:\n    " + NEVER),
        ],
        FAILS: [markdown("# B"), code(CLAIM.replace("1 + 1", "1 + 2"))],
    }
    root = small_book(tmp_path_factory.mktemp("broken"), chapters)
    built = book.build(root, packages=packages, quiet=True)
    assert not built.passed
    assert built.site_code != 0
    assert [run.name for run in built.failed_pages] == [FAILS]
    assert not book.is_fresh(root)
    return built.complaints


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_stops_the_build(fault: str, broken: str) -> None:
    page, reason = FAULTS[fault]
    site, _, failure = broken.partition(f"== {FAILS}")
    if reason == "ClaimFailed":
        assert reason in failure
    else:
        assert [line for line in site.splitlines() if reason in line and (page in line or "claim" in line)]


def test_each_way_to_fail_is_enough() -> None:
    failed = [run_pages.PageRun("ch01", False, "")]
    assert book.Build([], 0, "").passed
    assert not book.Build(failed, 0, "").passed
    assert not book.Build([], 1, "").passed


def test_the_command_runs_one_chapter_alone(
    scratch_book: Callable[..., Path], packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A kernel of the same name that the user's settings list first must not be taken.
    foreign = tmp_path / "foreign" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["false"], "display_name": "other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "foreign"))
    root = scratch_book(
        ch01_one=[markdown("# One\n\nSee {numref}`fig-dot`, which is not there yet."), code(CLAIM)],
        ch02_two=[markdown("# Two"), code(DRAW + "\n1 / 0", **FIGURE), code(NEVER)],
    )
    built = book.build(root, "ch01_one", packages=packages, quiet=True)
    assert built.passed, built.complaints
    assert list(run_pages.costs(root)) == ["ch01_one"]
    assert (book.site_dir(root) / "book" / "ch02_two.html").exists()
    assert not book.is_fresh(root), "a site with one chapter executed must not pass for the whole"
    with pytest.raises(ValueError, match=r"chapter must be .*ch01_one, ch02_two.*, got 'ch09'"):
        book.build(root, "ch09")


def test_the_command_reports_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "_toc.yml").write_text("root: book/index\n", encoding="utf8")
    failed = run_pages.PageRun("ch01_bad", False, "RuntimeError: planted")
    monkeypatch.setattr(book, "build", lambda root, chapter: book.Build([failed], 0, ""))
    assert book.main(["--root", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    for part in ("== ch01_bad\nRuntimeError: planted", "NOT built"):
        assert part in said
    monkeypatch.setattr(book, "build", lambda root, chapter: book.Build([], 0, ""))
    assert book.main(["--root", str(tmp_path)]) == 0
    assert "_build/html/index.html" in capsys.readouterr().out


def test_a_folder_without_a_book_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        book.main(["--root", str(tmp_path)])
    assert "there is no _toc.yml" in capsys.readouterr().err


def test_the_site_is_not_written_without_a_run(scratch_book: Callable[..., Path]) -> None:
    root = scratch_book(ch01_good=[markdown("# Good")])
    command = [sys.executable, "-c", book.JUPYTER_BOOK, "build", str(root), "-W"]
    variables = {name: value for name, value in os.environ.items() if name != "HELPERS_RUN"} | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "the pages were not run" in done.stdout + done.stderr


MADE_UP = {
    "name": "toy", "about": "a toy", "view": "disc", "classes": ["a", "b"], "parameters": 1234, "bytes": 5678,
    "accuracy": 0.91234, "architecture": "SmallVGG", "data": "Toys: 3 training and 4 test images",
    "command": "python -m helpers.experiments.train toy", "facts": {"commit": "abc", "torch": "9.9", "device": "cpu"},
    "runs": [{"seed": 0, "accuracy": {"test": 0.91234}}, {"seed": 1, "accuracy": {"test": 0.875}}],
    "recipe": {
        "arguments": {"stages": [[4], [8, 8]], "pooling": "gmp", "norm": True}, "schedule": "one-cycle", "lr": 0.05,
        "lr_decay": 0.0, "epochs": 3, "optimiser": "sgd", "batch": 64, "weight_decay": 5e-4, "label_smoothing": 0.0,
        "augment": True,
    },
}  # fmt: skip
RECORD = {
    "name": "toy", "command": "", "what": "", "recipe": {}, "classes": ["a", "b"],
    "published": {"source": "Somebody, Table 9", "accuracy": 0.9, "by class": [0.8, 1.0]},
    "runs": [
        {"seed": s, "accuracy": {"test": a, "swapped": a / 2}, "by class": [0.5, 0.25], "data": "",
         "environment": dict.fromkeys(("commit", "device", "threads", "python", "torch")),
         "epochs": [{"epoch": 3, "train": 0.99, "test": a}]}
        for s, a in ((0, 0.91234), (1, 0.875))
    ],
}  # fmt: skip


def test_the_page_of_the_networks_says_what_the_files_say(tmp_path: Path) -> None:
    manifest, record = tmp_path / "helpers/networks/files/toy.json", tmp_path / "helpers/results/toy.csv"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps(MADE_UP), encoding="utf8")
    record.parent.mkdir(parents=True)
    record.write_text(to_text(publish.record_header(RECORD), publish.record_rows(RECORD)), encoding="utf8")
    (line,) = [line for line in networks_page.overview(tmp_path).splitlines() if "toy" in line]
    assert line == "| [`toy`](#toy) | 91.23 % | 87.50 – 91.23 % | 2 | 1,234 | 6 kB |"
    text = networks_page.sections(tmp_path)
    for said in (
        "A toy. It sees the inscribed disc. Toys: 3 training and 4 test images.",
        "`SmallVGG`, filters by stage 4, 8+8 with batch normalisation, ending in GMP.",
        "3 epochs of SGD, learning rate at most 0.05 in one cycle, batches of 64, weight decay 0.0005, random crops",
        "python -m helpers.experiments.train toy",
        "| 0 (shipped) | 91.23 % | 45.62 % |",
        "| 1 | 87.50 % | 43.75 % |",
        "beside that of Somebody, Table 9",
        "| class | paper | seed 0 | seed 1 |",
        "| b | 100.00 | 25.00 | 25.00 |",
        "| all | 90.00 | 91.23 | 87.50 |",
        "```{figure} /_build/curves/toy.png\n:name: fig-toy\n",
        "on test images at 87.50 – 91.23 %.\n\nAccuracy of `toy` while it learned",
    ):
        assert said in text, said
    networks_page.draw_curves(tmp_path)
    assert (tmp_path / networks_page.CURVES / "toy.png").stat().st_size > 5000
