"""Installing: the lists agree, and the wheel is complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tools.project import ROOT, name_of, project_file, requirements
from tools.wheel import build_wheel

EXTRAS = ("book", "test")
LOCKED = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text(encoding="utf8").splitlines()
    if line and not line.startswith("#")
]


def pip_lines() -> list[str]:
    """The requirements that environment.yml hands to pip."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf8"))["dependencies"]
    return next(entry["pip"] for entry in entries if isinstance(entry, dict))


def test_conda_users_get_the_same_list() -> None:
    listed = pip_lines()
    assert listed[-1] == "-e ."
    assert sorted(listed[:-1]) == sorted(requirements(ROOT, EXTRAS))


def test_the_lock_satisfies_every_requirement() -> None:
    for requirement in map(Requirement, requirements(ROOT, EXTRAS)):
        pins = [pin for pin in LOCKED if name_of(pin.name) == name_of(requirement.name)]
        assert pins, f"{requirement.name} is not locked"
        assert any(pin.marker is None or pin.marker.evaluate() for pin in pins), (
            f"{requirement.name}: not for this Python"
        )
        for pin in pins:
            version = next(iter(pin.specifier)).version
            assert requirement.specifier.contains(version), f"{requirement} does not allow {pin}"


def test_the_lock_holds_versions_only() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf8")
    assert "://" not in text
    assert not any(line.startswith("-") for line in text.splitlines())
    assert all(pin.url is None and str(pin.specifier).startswith("==") for pin in LOCKED)
    assert {"torch", "torchvision", "setuptools"} <= {pin.name for pin in LOCKED}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {path for path in (ROOT / "helpers").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert held == {path.relative_to(ROOT).as_posix() for path in package}
    assert "helpers/py.typed" in held


def test_a_wheel_does_not_hold_what_an_old_build_left(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "build" / "lib" / "helpers" / "gone.py"
    for file in (tmp_path / "helpers" / "__init__.py", old):
        file.parent.mkdir(parents=True)
        file.write_text("", encoding="utf8")
    wheel = build_wheel(tmp_path, tmp_path / "dist")
    assert [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")] == ["helpers/__init__.py"]
    assert not (tmp_path / "where_networks_look.egg-info").exists()


@pytest.mark.slow
def test_the_wheel_is_built_by_the_oldest_setuptools_allowed(tmp_path: Path) -> None:
    """Without build isolation nothing installs a newer one: the bound in pyproject.toml must be true."""
    (requirement,) = project_file(ROOT)["build-system"]["requires"]
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    venv.EnvBuilder(with_pip=True).create(python.parents[1])
    online = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [str(python), "-m", "pip", "install", "--quiet", requirement.replace(">=", "==")]
    done = subprocess.run(install, env=online, capture_output=True, text=True, check=False)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"no {requirement} to be had: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    wheel = build_wheel(ROOT, tmp_path, str(python))
    about = next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    metadata = zipfile.ZipFile(wheel).read(about).decode()
    assert "License-Expression: MIT" in metadata
    assert "License-File: LICENSE" in metadata
