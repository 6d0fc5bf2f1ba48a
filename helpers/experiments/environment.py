"""On what a result was measured: the code's commit, the versions, the machine."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import helpers

ROOT = Path(helpers.__file__).resolve().parents[1]
WRITTEN = (":!helpers/networks/files", ":!helpers/results/*.csv")  # by the runs themselves, with --publish


def commit() -> str:
    """The commit of the code that runs, with "+" where the package differs from it; installed, its version."""
    if not (ROOT / ".git").exists():
        return f"version {helpers.__version__}"
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "helpers", *WRITTEN) else "")
    except (OSError, subprocess.CalledProcessError):
        return f"version {helpers.__version__}"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf8")
    return done.stdout.strip()


def run_environment(device: torch.device) -> dict[str, Any]:
    """Commit, versions and device, as a record keeps them."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {platform.machine()}"
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": kind,
        "threads": torch.get_num_threads(),
    }
