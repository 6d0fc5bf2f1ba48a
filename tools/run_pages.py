"""Run pages side by side, each once: alone in an empty folder, with nothing but the installed wheel, offline.

Every page has a process and a thread of its own. nbval runs it cell by cell; `tools.keep_outputs` keeps what the cells
put out. In the book's `_build/run` this leaves

    pages/NAME.ipynb            the page with its outputs, if every cell of it passed
    claims.jsonl  cells.jsonl   what its claims logged; time and memory after each cell
    packages/                   the wheel of `helpers`, unpacked
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools.chapters import Chapter
from tools.project import ROOT
from tools.wheel import build_wheel, install_wheel

TOOLS = Path(__file__).resolve().parent
NBVAL = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "tools.keep_outputs")
# The project's settings of pytest without their options, which are for its tests; no colours in what is kept.
PYTEST = ("-c", str(ROOT / "pyproject.toml"), "-o", "addopts=", "-p", "no:cacheprovider", "-q", "--color=no")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# glibc gives every large block back to the system and asks for it anew, and the system hands it out in small pages:
# a tenth of the processor time. Others than glibc pass these over.
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": str(1024**3),
    "MALLOC_TOP_PAD_": str(64 * 1024**2),
    "THP_MEM_ALLOC_ENABLE": "1",
}
LOGS = ("claims", "cells")
BUDGET_SECONDS = 90.0  # of processor time
BUDGET_BYTES = 2 * 1024**3
FAILURE_LINES = 60
COLOUR = re.compile(r"\x1b\[[\d;]*m")


@dataclass(frozen=True)
class PageRun:
    """How the run of a page ended; `output` is what pytest said."""

    name: str
    passed: bool
    output: str


def run_dir(root: Path) -> Path:
    """Where the last run of the book at `root` left its pages and logs."""
    return root / "_build" / "run"


def executed(run: Path, name: str) -> Path:
    """The page of that name with its outputs; there only if all of it passed."""
    return run / "pages" / f"{name}.ipynb"


def workers() -> int:
    """Pages to run at once: as many as there are cores, and as memory allows where a page may take its whole budget."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows
        return cores
    return max(1, min(cores, memory // BUDGET_BYTES))


def environment(run: Path, name: str, packages: Path) -> dict[str, str]:
    """The variables under which a page runs: one thread, offline, the wheel before this tree, everything logged."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join((str(TOOLS / "offline"), str(packages))),
        "PYTHONUTF8": "1",
        "TQDM_DISABLE": "1",  # a bar is for those who wait, not for the page
        "IPYTHONDIR": str(run / "ipython"),
        "HELPERS_NOTEBOOK": name,
        **{f"HELPERS_{log.upper()}_LOG": str(run / "logs" / f"{name}.{log}.jsonl") for log in LOGS},
        **dict.fromkeys(THREADS, "1"),
        **MEMORY,
    }


def prepare(root: Path, packages: Path | None = None) -> Path:
    """Empty the run's folder, and put the kernels' profile and the installed wheel there.

    Args:
        root: the book's root folder.
        packages: a folder where the wheel is installed already; None builds and installs that of `root`.

    Returns:
        The folder of the packages.
    """
    run = run_dir(root)
    shutil.rmtree(run, ignore_errors=True)  # old pages and logs must not pass for new ones
    profile = run / "ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    shutil.copy(TOOLS / "kernel" / "log_cells.py", profile / "startup" / "00-log-cells.py")
    shutil.copy(TOOLS / "kernel" / "config.py", profile / "ipython_kernel_config.py")
    for folder in ("pages", "logs"):
        (run / folder).mkdir()
    return packages or install_wheel(build_wheel(root, run), run / "packages")


def run_page(page: Chapter, run: Path, packages: Path) -> PageRun:
    """Run a page and keep its outputs."""
    target = executed(run, page.name)
    with tempfile.TemporaryDirectory() as empty:
        shutil.copy(page.path, empty)
        notebook = Path(empty, page.path.name)
        command = [sys.executable, "-m", "pytest", *PYTEST, *NBVAL, f"--rootdir={empty}", "--executed", str(target)]
        done = subprocess.run(
            [*command, str(notebook)],
            cwd=ROOT,  # where `tools` is; the kernel starts in the notebook's folder
            env=environment(run, page.name, packages),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf8",
            check=False,
        )
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:  # a page without code
        shutil.copy(page.path, target)
    return PageRun(page.name, target.exists(), done.stdout)


def run_pages(
    root: Path,
    pages: list[Chapter],
    packages: Path | None = None,
    pool: Executor | None = None,
) -> list[PageRun]:
    """Run pages side by side, those first that took longest the last time; prints a line when one is done.

    Args:
        root: the book's root folder.
        pages: the pages to run.
        packages: a folder where the wheel is installed already; None builds and installs that of `root`.
        pool: what runs them; None makes a pool of `workers()` threads, each of which waits for a page's process.

    Returns:
        How each ended, in the order of `pages`.
    """
    last_time, run = costs(root), run_dir(root)
    packages = prepare(root, packages)
    order = sorted(pages, key=lambda page: -last_time.get(page.name, {}).get("total_seconds", page.core_seconds))
    with ThreadPoolExecutor(workers()) as own_pool:
        futures: list[Future[PageRun]] = [(pool or own_pool).submit(run_page, page, run, packages) for page in order]
        ended = {}
        for future in as_completed(futures):
            page_run = future.result()
            ended[page_run.name] = page_run
            print(report(page_run, run), flush=True)
    join_logs(run, [page.name for page in pages])
    return [ended[page.name] for page in pages]


def join_logs(run: Path, names: list[str]) -> None:
    """Put the pages' logs together, in the order of the pages."""
    for log in LOGS:
        parts = [run / "logs" / f"{name}.{log}.jsonl" for name in names]
        text = "".join(part.read_text(encoding="utf8") for part in parts if part.exists())
        (run / f"{log}.jsonl").write_text(text, encoding="utf8")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; none where there is no such file."""
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()] if path.exists() else []


def costs(root: Path) -> dict[str, dict[str, Any]]:
    """The last row that each page of the last run logged, with what it had taken by then."""
    return {row["notebook"]: row for row in read_log(run_dir(root) / "cells.jsonl")}


def report(page_run: PageRun, run: Path) -> str:
    """A line on a page that is done."""
    rows = read_log(run / "logs" / f"{page_run.name}.cells.jsonl")
    cost = cost_line(page_run.name, rows[-1]) if rows else f"  {page_run.name:24} no cell was run"
    return cost if page_run.passed else f"{cost}   FAILED"


def cost_line(name: str, row: dict[str, Any]) -> str:
    """A line on what a page cost to run."""
    seconds, peak = row["cpu_seconds"], row["peak_bytes"] or 0
    over = seconds > BUDGET_SECONDS or peak > BUDGET_BYTES
    memory = f"{peak / 1024**2:6.0f} MB at most" if peak else "memory unknown"
    times = f"{row['total_seconds']:6.1f} s, {seconds:6.1f} s of a core"
    return f"  {name:24} {times}   {memory}" + ("   OVER BUDGET (90 s, 2 GB)" if over else "")


def failure(page_run: PageRun) -> str:
    """What pytest said about a page that failed: the cell and the end of its traceback."""
    lines = COLOUR.sub("", page_run.output).splitlines()
    return "\n".join([f"\n== {page_run.name}", *lines[-FAILURE_LINES:]])
