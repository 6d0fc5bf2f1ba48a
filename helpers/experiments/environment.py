"""On what a result was measured: the code, the versions, the machine, the data."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import helpers

PACKAGE = Path(helpers.__file__).resolve().parent
ROOT = PACKAGE.parent
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


@cache
def code_hash() -> str:
    """sha256 over the package's modules as they are when it is first asked for: changes that no commit holds count."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def tensors_hash(tensors: Iterable[Tensor]) -> str:
    """sha256 over the bytes of tensors, one after the other, wherever they lie."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(memoryview(tensor.detach().cpu().reshape(-1).contiguous().numpy()).cast("B"))
    return digest.hexdigest()
