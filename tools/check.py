"""Everything that CI runs: `python -m tools.check [--all | --read] [pytest arguments]`.

First the code is read (lint, format, imports, types) while the book is built: every page is run once, and the site is
written from their outputs. Then come the tests, those of the site in a browser among them, side by side. `--all` adds
the tests marked slow, `--read` stops after reading the code. All of it always runs; the exit code is not 0 when any
part failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tools import book
from tools.chapters import chapters
from tools.project import ROOT
from tools.run_pages import MEMORY, THREADS, failure, workers

PYTHON = (sys.executable, "-m")
# Long files first, so that no core is idle at the end; those of the site once it is likely to be written.
BEFORE, WITH_SITE = ("test_build", "test_run_pages"), ("test_site", "test_access", "test_chapters")
TESTS = (
    *(f"tests/book/{name}.py" for name in BEFORE),
    "tests/course",
    "tests/experiments",
    *(f"tests/book/{name}.py" for name in WITH_SITE),
    "tests/unit",
    "tests/book",
)
LINT_IMPORTS = (sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")


def readings() -> dict[str, list[str]]:
    """The commands that read the code without running it, by what they check."""
    notebooks = [str(chapter.path.relative_to(ROOT)) for chapter in chapters(ROOT)]
    return {
        "lint": [*PYTHON, "ruff", "check", "."],
        "format": [*PYTHON, "ruff", "format", "--check", "."],
        "notebooks stripped": [*PYTHON, "nbstripout", "--verify", "--keep-count", "--keep-id", *notebooks],
        "imports run one way": [*LINT_IMPORTS, "--no-cache"],
        "types": [*PYTHON, "ty", "check", "helpers", "--no-progress"],
    }


def test_command(everything: bool, arguments: list[str]) -> list[str]:
    """The command of the tests: those given, or all, without those marked slow unless `everything` is asked for."""
    chosen = [] if everything else ["-m", "not slow"]
    return [
        *PYTHON,
        "pytest",
        "-n",
        str(workers()),
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        *chosen,
        *(arguments or TESTS),
    ]


def run_tests(command: list[str]) -> int:
    """Run the tests; those that need the site wait until it is written."""
    variables = environment() | {"HELPERS_SITE": "building"}
    return subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode


def environment() -> dict[str, str]:
    """The variables of every command: this tree's `helpers`, offline, one thread a process, memory kept."""
    paths = [str(ROOT / "tools" / "offline"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), **dict.fromkeys(THREADS, "1"), **MEMORY}


def read(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that reads the code, and keep what it says."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=ROOT, env=environment(), text=True, encoding="utf8", check=False, **pipes)


def report(part: str, passed: bool, seconds: float, said: str = "") -> None:
    """Print how a part ended; what it said only if it failed."""
    print(f"== {part}: {'passed' if passed else 'FAILED'} after {seconds:.0f} s", flush=True)
    if not passed and said.strip():
        print(said, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run everything; 0 only if all of it passed.

    Args:
        arguments: the command line without the program's name; None takes that of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.check", description="Run everything that CI runs.")
    parser.add_argument("--all", action="store_true", help="also the tests marked slow")
    parser.add_argument("--read", action="store_true", help="only what reads the code without running it")
    options, tests = parser.parse_known_args(arguments)
    start, failed = time.perf_counter(), []

    def note(part: str, passed: bool, said: str = "") -> None:
        report(part, passed, time.perf_counter() - start, said)
        failed.extend([] if passed else [part])

    def note_reading(part: str, command: list[str]) -> None:
        done = read(command)
        note(part, done.returncode == 0, done.stdout)

    pages_ended = threading.Event()
    with ThreadPoolExecutor(2) as whole, ThreadPoolExecutor(workers()) as pool:
        running = [pool.submit(note_reading, part, command) for part, command in readings().items()]
        if options.read:
            for future in running:
                future.result()  # raises what went wrong in it
            return 1 if failed else 0
        building = whole.submit(book.build, ROOT, pool=pool, quiet=True, pages_ended=pages_ended)
        building.add_done_callback(lambda _: pages_ended.set())
        for future in running:
            future.result()  # raises what went wrong in it
        pages_ended.wait()
        testing = whole.submit(run_tests, test_command(options.all, tests))
        built, state = None, "failed"
        try:
            built = building.result()
            state = "built" if built.passed else "failed"
        finally:
            book.say_state(ROOT, state)
        for page in built.failed_pages:
            note(page.name, False, failure(page))
        note("site", built.site_code == 0, built.output)
        note("tests", testing.result() == 0)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
