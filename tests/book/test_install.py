"""Installing: the lists agree, the wheel is complete, and a chapter runs alone with nothing but the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tools.chapters import chapters
from tools.project import ROOT, name_of, requirements

EXTRAS = ("book", "test")
LOCKED = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text(encoding="utf8").splitlines()
    if line and not line.startswith("#")
]
# Runs a notebook where it lies, then asks its kernel whose helpers and interpreter it had, and whether it sees tools.
RUNNER = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
probe = "import helpers, importlib.util, sys; print(helpers.__file__, sys.prefix, importlib.util.find_spec('tools'))"
notebook.cells.append(nbformat.v4.new_code_cell(probe))
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
print(notebook.cells[-1].outputs[0]["text"])
"""


def pip_lines() -> list[str]:
    """The requirements that environment.yml hands to pip."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf8"))["dependencies"]
    return next(entry["pip"] for entry in entries if isinstance(entry, dict))


def test_conda_users_get_the_same_list() -> None:
    listed = pip_lines()
    assert listed[-1] == "-e ."
    assert sorted(listed[:-1]) == sorted(requirements(ROOT, EXTRAS))


def test_the_lock_satisfies_every_requirement() -> None:
    for wanted in map(Requirement, requirements(ROOT, EXTRAS)):
        pins = [pin for pin in LOCKED if name_of(pin.name) == name_of(wanted.name)]
        assert pins, f"{wanted.name} is not locked"
        assert any(pin.marker is None or pin.marker.evaluate() for pin in pins), f"{wanted.name}: not for this Python"
        for pin in pins:
            version = next(iter(pin.specifier)).version
            assert wanted.specifier.contains(version), f"{wanted} does not allow {pin}"


def test_the_lock_holds_versions_only() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf8")
    assert "://" not in text
    assert not any(line.startswith("-") for line in text.splitlines())
    assert all(pin.url is None and str(pin.specifier).startswith("==") for pin in LOCKED)
    assert {"torch", "torchvision", "setuptools"} <= {pin.name for pin in LOCKED}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of helpers, built without a network from a copy (a build leaves files behind)."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("helpers", "tests", "tools", "book"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "-w", str(target), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {path for path in (ROOT / "helpers").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert held == {path.relative_to(ROOT).as_posix() for path in package}
    assert "helpers/py.typed" in held


@pytest.fixture(scope="module")
def lonely_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has this one's packages and the wheel, but not the working tree.

    A .pth line that names a folder does not process the .pth files in it, so the editable install stays out.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.EnvBuilder(with_pip=False).create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(packages)]
    subprocess.run([*pip, str(wheel)], check=True)
    (packages / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf8")
    return python


@pytest.mark.book
@pytest.mark.parametrize("name", [chapter.name for chapter in chapters(ROOT)])
def test_a_chapter_runs_alone(name: str, lonely_python: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(ROOT / "book" / f"{name}.ipynb", empty)
    offline = {
        "PYTHONPATH": str(ROOT / "tools" / "offline"),
        "JUPYTER_DATA_DIR": str(tmp_path),
        "IPYTHONDIR": str(tmp_path),
    }
    command = [str(lonely_python), "-c", RUNNER, f"{name}.ipynb"]
    done = subprocess.run(command, cwd=empty, env=os.environ | offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    file, prefix, tools = done.stdout.split()[-3:]
    assert Path(prefix).resolve() == lonely_python.parents[1].resolve()
    assert Path(file).resolve().is_relative_to(Path(prefix).resolve()), "helpers is not the wheel's"
    assert tools == "None"
