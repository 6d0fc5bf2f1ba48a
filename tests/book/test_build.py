"""tools.book: a good book is built, and each planted fault stops it with its reason named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.notebooks import code, markdown

from tools import book, networks_page
from tools.project import ROOT

pytestmark = pytest.mark.book

CLAIM = "from helpers.claims import claim\n\nclaim('two', 1 + 1, equals=2, text='one and one make two')"
REFUSED = """import socket
import urllib.request

try:
    urllib.request.urlopen("http://example.org", timeout=5)
except OSError as error:
    assert "built without a network" in str(error), error
else:
    raise AssertionError("the network was reached")
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
server.close()"""
REACH = "import http.client\n\nhttp.client.HTTPConnection('192.0.2.1', timeout=5).connect()"
FIGURE = {"mystnb": {"image": {"alt": "A blue dot."}, "figure": {"name": "fig-dot", "caption": "A dot."}}}
DRAW = "import matplotlib.pyplot as plt\n\nplt.plot([1], [1], 'o');"
EQUATION = "$$s = a | b$$ (eq-sum)\n\nImplemented by `helpers.device.best_device`; see {eq}`eq-sum`."


def test_a_good_book_is_built_offline_and_its_appendix_generated(scratch_book: Callable[..., Path]) -> None:
    root = scratch_book(
        ch01_good=[markdown(f"# Good\n\n{EQUATION}\n\n## One `and` one?\n"), code(CLAIM), code(REFUSED)],
        ch02_figure=[markdown("# Figure\n\nSee {numref}`fig-dot`."), code(DRAW, **FIGURE)],
    )
    done = book.build(root, capture=True)
    assert done.returncode == 0, done.stdout
    assert book.is_fresh(root)

    costs = book.costs(root)
    assert list(costs) == ["ch01_good", "ch02_figure"]
    assert costs["ch01_good"]["cell"] == 2
    assert 0 < costs["ch01_good"]["total_seconds"] < 60
    if sys.platform != "win32":
        assert 10e6 < costs["ch01_good"]["peak_bytes"] < 4e9

    logged = json.loads((book.run_dir(root) / "claims.jsonl").read_text(encoding="utf8"))
    assert (logged["id"], logged["holds"], logged["notebook"]) == ("two", True, "ch01_good")
    claims = (book.site_dir(root) / "book" / "appendix" / "claims.html").read_text(encoding="utf8")
    assert "One and one make two" in claims
    assert 'href="../ch01_good.html#one-and-one"' in claims
    equations = (book.site_dir(root) / "book" / "appendix" / "equations.html").read_text(encoding="utf8")
    assert "helpers.device.best_device" in equations
    assert 'href="../ch01_good.html#equation-eq-sum"' in equations

    with (root / "book" / "index.md").open("a", encoding="utf8") as index:
        index.write("One more sentence.\n")
    assert not book.is_fresh(root)


FAULTS = {
    "a broken cross-reference": ([markdown("# A\n\nSee {ref}`nowhere`.")], "nowhere"),
    "a broken equation reference": ([markdown("# A\n\nSee {eq}`eq-none`.")], "eq-none"),
    "a notebook that raises": ([markdown("# A"), code("1 / 0")], "ZeroDivisionError"),
    "a false claim": ([markdown("# A"), code(CLAIM.replace("1 + 1", "1 + 2"))], "ClaimFailed"),
    "a claim that is not run": ([markdown("# A"), code("if False:\n    " + CLAIM.split("\n\n")[1])], "was not checked"),
    "a warning in a cell": ([markdown("# A"), code("import warnings\n\nwarnings.warn('careful')")], "stderr was found"),
    "the network": ([markdown("# A"), code(REACH)], "built without a network"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_stops_the_build(fault: str, scratch_book: Callable[..., Path]) -> None:
    cells, reason = FAULTS[fault]
    root = scratch_book(ch01_bad=cells)
    done = book.build(root, capture=True)
    assert done.returncode != 0
    assert reason in done.stdout + "".join(book.tracebacks(root))
    assert not book.is_fresh(root)


def test_the_command_reports_and_fails(scratch_book: Callable[..., Path]) -> None:
    root = scratch_book(ch01_bad=[markdown("# A"), code("raise RuntimeError('planted')")])
    command = [sys.executable, "-m", "tools.book", "--root", str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf8", check=False)
    assert done.returncode == 1
    assert "RuntimeError: planted" in done.stdout
    assert "NOT built" in done.stdout
    assert "ch01_bad" in done.stdout


def test_one_chapter_is_executed_alone(
    scratch_book: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A kernel of the same name that the user's settings list first must not be taken.
    foreign = tmp_path / "foreign" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["false"], "display_name": "other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "foreign"))
    root = scratch_book(
        ch01_one=[markdown("# One\n\nSee {numref}`fig-dot`, which is not there yet."), code(CLAIM)],
        ch02_two=[markdown("# Two"), code(DRAW + "\n1 / 0", **FIGURE), code("claim('never', 1, at_most=2, text='no')")],
    )
    done = book.build(root, "ch01_one", capture=True)
    assert done.returncode == 0, done.stdout
    assert list(book.costs(root)) == ["ch01_one"]
    assert (book.site_dir(root) / "book" / "ch02_two.html").exists()
    assert not book.is_fresh(root), "a site with one chapter executed must not pass for the whole"
    with pytest.raises(ValueError, match=r"chapter is 'ch09'.*ch01_one, ch02_two"):
        book.build(root, "ch09")


def test_a_folder_without_a_book_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        book.main(["--root", str(tmp_path)])
    assert "there is no _toc.yml" in capsys.readouterr().err


def test_what_is_over_budget_is_said() -> None:
    assert "OVER" not in book.cost_line("ch01", {"total_seconds": 89.0, "peak_bytes": 1024**3})
    assert "OVER" in book.cost_line("ch01", {"total_seconds": 91.0, "peak_bytes": 1024**3})
    assert "OVER" in book.cost_line("ch01", {"total_seconds": 1.0, "peak_bytes": 3 * 1024**3})
    assert "unknown" in book.cost_line("ch01", {"total_seconds": 1.0, "peak_bytes": None})


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
    "name": "toy", "classes": ["a", "b"],
    "published": {"source": "Somebody, Table 9", "accuracy": 0.9, "by class": [0.8, 1.0]},
    "runs": [
        {"seed": s, "accuracy": {"test": a, "swapped": a / 2}, "by class": [0.5, 0.25], "top 5": None,
         "epochs": [{"epoch": 3, "train": 0.99, "test": a}]}
        for s, a in ((0, 0.91234), (1, 0.875))
    ],
}  # fmt: skip


def test_the_page_of_the_networks_says_what_the_files_say(tmp_path: Path) -> None:
    for folder, content in (("helpers/networks/files", MADE_UP), ("book/results", RECORD)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "toy.json").write_text(json.dumps(content), encoding="utf8")
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
        "```{figure} ../results/toy.png\n:name: fig-toy\n",
        "on test images at 87.50 – 91.23 %.\n\nAccuracy of `toy` while it learned",
    ):
        assert said in text, said
