"""Build the book: `python -m tools.book [--chapter NAME] [--root DIR]`.

Runs every chapter afresh, without a network, with warnings as errors, and writes the site to `_build/html`.
Prints each chapter's time and peak memory, and at the end the address of the page to open.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.chapters import chapters

HERE = Path(__file__).resolve().parent
INPUTS = ("_config.yml", "_toc.yml", "_ext", "assets", "book", "helpers", "tools", "requirements.lock")
PASSED_OVER = {"__pycache__", ".ipynb_checkpoints"}
# The installed command by its entry point: it may not be on PATH, and the package has no __main__.
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
BUDGET_SECONDS = 90.0
BUDGET_BYTES = 2 * 1024**3
TRACEBACK_LINES = 25
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def site_dir(root: Path) -> Path:
    """Where the site of the book at `root` is written."""
    return root / "_build" / "html"


def run_dir(root: Path) -> Path:
    """Where the last build of the book at `root` left its logs: claims.jsonl, cells.jsonl, fingerprint."""
    return root / "_build" / "run"


def fingerprint(root: Path) -> str:
    """A hash of everything the site is made from; the same hash means the site need not be built again."""
    digest = hashlib.sha256()
    for name in INPUTS:
        path = root / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not PASSED_OVER & set(file.parts):
                digest.update(file.relative_to(root).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def is_fresh(root: Path) -> bool:
    """Whether the whole site was built, without an error, from what is there now."""
    mark = run_dir(root) / "fingerprint"
    return mark.exists() and mark.read_text(encoding="utf8") == fingerprint(root)


def environment(root: Path, chapter: str | None) -> dict[str, str]:
    """The variables under which Sphinx and its kernels run: offline, watched, and logging claims.

    Args:
        root: the book's root folder; its `helpers` is the one that the chapters import.
        chapter: the only chapter to execute, or None for all.
    """
    run = run_dir(root)
    profile = run / "ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    shutil.copy(HERE / "kernel" / "log_cells.py", profile / "startup" / "00-log-cells.py")
    shutil.copy(HERE / "kernel" / "config.py", profile / "ipython_kernel_config.py")
    paths = [str(HERE / "offline"), str(root), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUTF8": "1",
        # The kernel is this environment's own, whatever the user's settings list before it.
        "JUPYTER_PATH": "",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),  # spinning threads crawl on a busy machine
        "IPYTHONDIR": str(run / "ipython"),
        "HELPERS_CELLS_LOG": str(run / "cells.jsonl"),
        "HELPERS_CLAIMS_LOG": str(run / "claims.jsonl"),
        "HELPERS_CHAPTER": chapter or "",
    }


def build(root: Path, chapter: str | None = None, *, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run Jupyter Book on `root`.

    Args:
        root: the book's root folder, with `_config.yml` and `_toc.yml`.
        chapter: the only chapter to execute, or None for all.
        capture: return what is printed instead of printing it.

    Returns:
        The finished process; its return code is 0 only if there was no warning and no error.

    Raises:
        ValueError: there is no chapter of that name.
    """
    names = [known.name for known in chapters(root)]
    if chapter and chapter not in names:
        raise ValueError(f"chapter is {chapter!r}, but the table of contents has: {', '.join(names)}")
    # Old logs and pages must not pass for new ones.
    for folder in (run_dir(root), site_dir(root)):
        shutil.rmtree(folder, ignore_errors=True)
    before = fingerprint(root)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root), "-W", "-n", "--keep-going", "--all"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if capture else {}
    done = subprocess.run(command, env=environment(root, chapter), text=True, encoding="utf8", check=False, **output)
    if done.returncode == 0 and not chapter:
        (run_dir(root) / "fingerprint").write_text(before, encoding="utf8")
    return done


def costs(root: Path) -> dict[str, dict[str, Any]]:
    """The last line that each executed page logged: `total_seconds` and `peak_bytes` (None where unknown)."""
    path = run_dir(root) / "cells.jsonl"
    lines = path.read_text(encoding="utf8").splitlines() if path.exists() else []
    return {row["notebook"]: row for row in map(json.loads, lines)}


def cost_line(name: str, row: dict[str, Any]) -> str:
    """One line on what a page cost to run."""
    seconds, peak = row["total_seconds"], row["peak_bytes"] or 0
    over = seconds > BUDGET_SECONDS or peak > BUDGET_BYTES
    memory = f"{peak / 1024**2:6.0f} MB at most" if peak else "memory unknown"
    return f"  {name:24} {seconds:6.1f} s   {memory}" + ("   OVER BUDGET (90 s, 2 GB)" if over else "")


def complaints(output: str) -> list[str]:
    """The lines of the build's output that are warnings or errors, without colours."""
    return [line for line in COLOUR.sub("", output).splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]


def tracebacks(root: Path) -> list[str]:
    """For every page whose execution failed: where its traceback is, and the traceback's last lines."""
    found = []
    for report in sorted((site_dir(root) / "reports").rglob("*.err.log")):
        lines = COLOUR.sub("", report.read_text(encoding="utf8")).splitlines()
        found.append(f"\n{report}:\n" + "\n".join(lines[-TRACEBACK_LINES:]))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Build, then report.

    Args:
        arguments: the command line without the program's name; None takes that of the process.

    Returns:
        0 when there was no warning and no error, otherwise 1 or 2.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.book", description="Build the book without a network.")
    parser.add_argument("--chapter", metavar="NAME", help="execute only this chapter, for example ch01_basics")
    parser.add_argument("--root", metavar="DIR", type=Path, default=HERE.parent, help="the book's root folder")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if not (root / "_toc.yml").exists():
        parser.error(f"{root} holds no book: there is no _toc.yml")
    try:
        done = build(root, options.chapter or None)
    except ValueError as error:
        parser.error(str(error))
    print("\nTime and peak memory:")
    print("\n".join(cost_line(name, row) for name, row in costs(root).items()) or "  no page was executed")
    if done.returncode != 0:
        print(*tracebacks(root), "\nThe book was NOT built: the warnings and errors above count.", sep="\n")
        return 1
    page = f"book/{options.chapter}.html" if options.chapter else "index.html"
    print(f"\nOpen  {(site_dir(root) / page).as_uri()}\nor run  make lab  to work through the chapters.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
