"""tools.book: a good book is built, and each planted fault stops it with its reason named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, code, markdown

from tools import book

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


def test_one_chapter_is_executed_alone(scratch_book: Callable[..., Path]) -> None:
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


def test_what_is_over_budget_is_said() -> None:
    assert "OVER" not in book.cost_line("ch01", {"total_seconds": 89.0, "peak_bytes": 1024**3})
    assert "OVER" in book.cost_line("ch01", {"total_seconds": 91.0, "peak_bytes": 1024**3})
    assert "OVER" in book.cost_line("ch01", {"total_seconds": 1.0, "peak_bytes": 3 * 1024**3})
    assert "unknown" in book.cost_line("ch01", {"total_seconds": 1.0, "peak_bytes": None})
