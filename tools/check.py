"""Everything that CI runs: `python -m tools.check [pytest arguments]`.

Lint of code and notebooks first, then one run of pytest over the tests, the site in a browser and every chapter.
All of it always runs; the exit code is that of the first part that failed.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tools.chapters import chapters
from tools.project import ROOT

RUFF = [sys.executable, "-m", "ruff"]
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"]


def commands(pytest_arguments: list[str]) -> dict[str, list[str]]:
    """The commands to run, by what they check."""
    notebooks = [str(chapter.path.relative_to(ROOT)) for chapter in chapters(ROOT)]
    strip = [sys.executable, "-m", "nbstripout", "--verify", "--keep-count", "--keep-id"]
    return {
        "lint": [*RUFF, "check", "."],
        "format": [*RUFF, "format", "--check", "."],
        "notebooks stripped": [*strip, *notebooks],
        "tests": [sys.executable, "-m", "pytest", *(pytest_arguments or [*NBVAL, "tests", *notebooks])],
    }


def main(pytest_arguments: list[str]) -> int:
    """Run everything; 0 only if all of it passed."""
    # The kernels that nbval starts shall import this tree's helpers, and like everything else here stay offline.
    paths = [str(ROOT / "tools" / "offline"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),  # as in tools/book.py
    }
    codes = {}
    for name, command in commands(pytest_arguments).items():
        print(f"== {name}", flush=True)
        codes[name] = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    failed = [name for name, code in codes.items() if code]
    if failed and failed != ["tests"]:
        print(f"FAILED: {', '.join(failed)}", file=sys.stderr)
    return next((codes[name] for name in failed), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
