"""Which of `make test` and `make test-all` a change needs: `python3 -m tools.changes` prints the one for .ci/run.

The tests marked slow check what nothing else checks. So a change needs them when it touches a test file with such a
mark or the module which that file mirrors, or one of `ALWAYS`; and always when $CI_FULL is set. The change is
everything since the commit $CI_BASE, or since this branch left `origin/main`, or, on main itself, since the commit
before. Where there is no history to compare with, `make test` it is.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The shipped weights, what trains them, and what decides which versions are installed and how the wheel is built.
# And the assignments with what grades them: whether a solution still gets all its points takes seconds for each.
# And the list of what Colab has: a page is run on exactly that.
ALWAYS = (
    *("helpers/networks/files", "helpers/experiments/train", "pyproject.toml", "requirements.lock"),
    *("book/assignments", "tools/course", "helpers/checks", "tools/colab"),
)
SLOW = "mark.slow"


def mirrored(root: Path, test: Path) -> list[str]:
    """What a test file is about: tests/unit/cam/test_head.py mirrors helpers/cam/_head.py, else all of helpers/cam."""
    place = test.relative_to(root / "tests").parts[:-1]
    if not place or place[0] not in ("unit", "experiments"):
        return []
    room = Path("helpers", *(place[1:] if place[0] == "unit" else place))
    name = test.stem.removeprefix("test_")
    modules = [room / f"_{name}.py", room / f"{name}.py", room / name]
    there = [module.as_posix() for module in modules if (root / module).exists()]
    return there or [room.as_posix()]


def watched(root: Path) -> set[str]:
    """The paths whose change only a slow test may notice."""
    paths = set(ALWAYS)
    for test in (root / "tests").rglob("test_*.py"):
        if SLOW in test.read_text(encoding="utf8"):
            paths |= {test.relative_to(root).as_posix(), *mirrored(root, test)}
    return paths


def git(root: Path, *arguments: str) -> str | None:
    """What git says, or None where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def changed(root: Path) -> list[str]:
    """The paths that differ from the commit to compare with; none where there is no such commit."""
    base = os.environ.get("CI_BASE") or git(root, "merge-base", "HEAD", "origin/main")
    if not base or base == git(root, "rev-parse", "HEAD"):
        base = "HEAD~1"
    return (git(root, "diff", "--name-only", base) or "").splitlines()


def target(root: Path) -> str:
    """`test` or `test-all`."""
    if os.environ.get("CI_FULL"):
        return "test-all"
    paths = watched(root)
    touched = any(file == path or file.startswith(f"{path}/") for file in changed(root) for path in paths)
    return "test-all" if touched else "test"


if __name__ == "__main__":
    print(target(ROOT))
