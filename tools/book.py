"""Build the book: `python -m tools.book [--chapter NAME | --links] [--root DIR]`.

Runs every page once, side by side (`tools.run_pages`), and writes the site to `_build/html` from their outputs, with
warnings as errors. Prints each page's time and peak memory, and at the end the address of the page to open.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.chapters import chapters
from tools.run_pages import COLOUR, PageRun, failure, run_dir, run_pages, workers

HERE = Path(__file__).resolve().parent
SETTINGS = ("_config.yml", "_toc.yml", "pyproject.toml", "requirements.lock")
INPUTS = (*SETTINGS, "_ext", "assets", "book", "helpers", "tools")
PASSED_OVER = {"__pycache__", ".ipynb_checkpoints"}
NETWORKS = Path("book", "appendix", "networks.md")
# The installed command by its entry point: it may not be on PATH, and the package has no __main__.
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


@dataclass(frozen=True)
class Build:
    """How a build ended: the pages that did not run to their end, the site builder's return code and what it said."""

    failed_pages: list[PageRun]
    site_code: int
    output: str

    @property
    def passed(self) -> bool:
        """Whether there was no warning and no error."""
        return not self.failed_pages and self.site_code == 0

    @property
    def complaints(self) -> str:
        """Why it did not pass: the site builder's warnings, then the failures of pages."""
        lines = [line for line in COLOUR.sub("", self.output).splitlines() if re.search(r"\b(WARNING|ERROR)\b", line)]
        return "\n".join([*lines, *map(failure, self.failed_pages)])


def site_dir(root: Path) -> Path:
    """Where the site of the book at `root` is written."""
    return root / "_build" / "html"


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


def site_state(root: Path) -> Path:
    """Where `tools.check` says how the site ended, "built" or "failed", to the tests that wait for it."""
    return run_dir(root) / "site"


def say_state(root: Path, state: str) -> None:
    """Say how the site ended, in one step: who waits must not read half of it."""
    path = site_state(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("site.part")
    part.write_text(state, encoding="utf8")
    part.replace(path)


def build(
    root: Path,
    chapter: str | None = None,
    *,
    packages: Path | None = None,
    pool: Executor | None = None,
    quiet: bool = False,
    pages_ended: threading.Event | None = None,
) -> Build:
    """Run the pages, then write the site from their outputs.

    The site is written after failures too, so that one build shows all that is wrong; a page that failed stands there
    without outputs.

    Args:
        root: the book's root folder, with `_config.yml` and `_toc.yml`.
        chapter: the only page to run, or None for all; the others stand on the site without outputs.
        packages: a folder where the wheel of `helpers` is installed; None builds and installs it.
        pool: what runs the pages, as in `tools.run_pages.run_pages`.
        quiet: keep what the site builder says instead of printing it.
        pages_ended: set when the pages have run and the site is being written, which leaves all cores but one idle.

    Returns:
        How it ended.

    Raises:
        ValueError: there is no chapter of that name.
    """
    pages = chapters(root)
    if chapter and chapter not in [page.name for page in pages]:
        names = ", ".join(page.name for page in pages)
        raise ValueError(f"chapter must be in the table of contents ({names}), got {chapter!r}")
    before = fingerprint(root)
    chosen = [page for page in pages if chapter in (None, page.name)]
    print("Time and peak memory of the pages:", flush=True)
    with ThreadPoolExecutor(workers()) as own_pool:
        pool = pool or own_pool
        drawing = pool.submit(draw_curves, root)
        runs = run_pages(root, chosen, packages, pool)
        drawing.result()  # raises what went wrong in it
    if pages_ended:
        pages_ended.set()
    done = write_site(root, quiet=quiet)
    result = Build([run for run in runs if not run.passed], done.returncode, done.stdout or "")
    if result.passed and not chapter:
        (run_dir(root) / "fingerprint").write_text(before, encoding="utf8")
    return result


def draw_curves(root: Path) -> None:
    """Draw the learning curves for the page of the networks, if the book has it."""
    if (root / NETWORKS).exists():
        command = [sys.executable, "-m", "tools.networks_page", str(root)]
        subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=True)


def write_site(root: Path, *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Write the site of the book at `root` from the outputs of its last run; nothing is executed."""
    shutil.rmtree(site_dir(root), ignore_errors=True)
    paths = [str(HERE / "offline"), str(root)]
    variables = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1", "HELPERS_RUN": str(run_dir(root))}
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root), "-W", "-n", "--keep-going", "--all"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if quiet else {}
    return subprocess.run(command, env=os.environ | variables, text=True, encoding="utf8", check=False, **output)


def check_links(root: Path) -> int:
    """Ask for every address outside of the site that the pages link to, and print those that do not answer.

    Returns:
        0 when all did, otherwise 1.
    """
    target = root / "_build" / "links"
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root), "--builder", "custom"]
    command += ["--custom-builder", "linkcheck", "--path-output", str(target), "--all"]
    variables = {"PYTHONPATH": str(root), "PYTHONUTF8": "1", "HELPERS_RUN": str(run_dir(root))}
    # Sphinx's own exit code is of no use: Jupyter Book's is 0 whatever the builder found.
    said = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, encoding="utf8", check=False
    )
    report = target / "_build" / "linkcheck" / "output.txt"
    if not report.exists():
        print(COLOUR.sub("", said.stdout + said.stderr))
        return 1
    broken = [line for line in report.read_text(encoding="utf8").splitlines() if "[broken]" in line]
    print("\n".join(broken) or "Every link answers.")
    return 1 if broken else 0


def main(arguments: list[str] | None = None) -> int:
    """Build, then report.

    Args:
        arguments: the command line without the program's name; None takes that of the process.

    Returns:
        0 when there was no warning and no error, otherwise 1 or 2.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.book", description="Build the book without a network.")
    parser.add_argument("--chapter", metavar="NAME", help="run only this chapter, for example ch01_basics")
    parser.add_argument("--root", metavar="DIR", type=Path, default=HERE.parent, help="the book's root folder")
    parser.add_argument("--links", action="store_true", help="check the links to other sites after the last build")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if not (root / "_toc.yml").exists():
        parser.error(f"{root} holds no book: there is no _toc.yml")
    if options.links:
        return check_links(root)
    try:
        result = build(root, options.chapter or None)
    except ValueError as error:
        parser.error(str(error))
    if not result.passed:
        print(*map(failure, result.failed_pages), sep="\n")
        print("\nThe book was NOT built: the warnings and errors above count.")
        return 1
    page = f"book/{options.chapter}.html" if options.chapter else "index.html"
    print(f"\nOpen  {(site_dir(root) / page).as_uri()}\nor run  make lab  to work through the chapters.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
