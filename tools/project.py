"""What `pyproject.toml` says: the dependencies and the repository's address."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def project_file(root: Path = ROOT) -> dict[str, Any]:
    """All of `pyproject.toml`."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))


def project(root: Path = ROOT) -> dict[str, Any]:
    """The table `[project]`."""
    return project_file(root)["project"]


def repository(root: Path = ROOT) -> str:
    """The repository's address: the setting that `make repository` changes."""
    return project(root)["urls"]["Repository"]


def site_address(root: Path = ROOT) -> str:
    """Where the site is published: GitHub's pages of the repository, with a slash at the end."""
    owner, name = repository(root).removeprefix("https://github.com/").split("/")
    return f"https://{owner}.github.io/{name}/"


def requirements(root: Path = ROOT, extras: tuple[str, ...] = ()) -> list[str]:
    """The dependencies of `helpers` and those of the given extras, as written."""
    table = project(root)
    return [*table["dependencies"], *(line for extra in extras for line in table["optional-dependencies"][extra])]


def name_of(requirement: str) -> str:
    """The distribution's name in a requirement or in a line of the lock, in lower case and with hyphens."""
    return re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")
