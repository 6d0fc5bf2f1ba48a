"""The wheel of `helpers`: built without a network, and installed into a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PIP = ("-m", "pip", "--disable-pip-version-check")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "helpers")


def build_wheel(root: Path, folder: Path, python: str = sys.executable) -> Path:
    """Build the wheel of the project at `root`.

    It is built from a copy: setuptools leaves files beside the sources, and would put those of the last build into the
    next wheel.

    Args:
        root: the project's root folder.
        folder: where the wheel is put.
        python: whose setuptools builds it.

    Returns:
        The wheel.

    Raises:
        subprocess.CalledProcessError: it cannot be built; pip has said why.
    """
    with tempfile.TemporaryDirectory() as copy:
        for name in SOURCES:
            if (root / name).is_dir():
                shutil.copytree(root / name, Path(copy, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(root / name, copy)
        options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
        subprocess.run([python, *PIP, "wheel", *options, "-w", str(folder), copy], check=True)
    return next(folder.glob("*.whl"))


def install_wheel(wheel: Path, folder: Path) -> Path:
    """Install a wheel, without what it depends on, into a folder; returns the folder."""
    options = ("--quiet", "--no-deps", "--no-index")
    subprocess.run([sys.executable, *PIP, "install", *options, "--target", str(folder), str(wheel)], check=True)
    return folder
