"""The repository's address: one setting, followed everywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.project import ROOT, repository
from tools.repository import files, move, slug, strangers

NEW = "https://github.com/some-owner/some.name"
MUST_NAME_IT = ("pyproject.toml", "_config.yml", "CITATION.cff", "README.md")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that name the repository."""
    for path in files(ROOT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def contents(root: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files(root)}


def test_every_place_follows_the_setting() -> None:
    assert strangers(ROOT) == []
    own = slug(repository(ROOT))
    missing = [name for name in MUST_NAME_IT if own not in (ROOT / name).read_text(encoding="utf8")]
    assert missing == []


def test_there_and_back_again_changes_nothing(copy: Path) -> None:
    before, old = contents(copy), repository(copy)
    changed = {path.relative_to(copy).as_posix() for path in move(copy, NEW + ".git")}
    assert set(MUST_NAME_IT) <= changed
    assert any(name.endswith(".ipynb") for name in changed)
    assert repository(copy) == NEW
    assert strangers(copy) == []
    assert not any(slug(old).encode() in data for data in contents(copy).values())
    move(copy, old + "/")
    assert contents(copy) == before


@pytest.mark.parametrize("name", ["CITATION.cff", "_config.yml", "README.md", "book/ch01_basics.ipynb"])
def test_a_place_left_behind_is_seen(name: str, copy: Path) -> None:
    path = copy / name
    path.write_text(path.read_text(encoding="utf8").replace(slug(repository(copy)), "other/place"), encoding="utf8")
    assert strangers(copy), name
    assert all(line.startswith(f"{name} names other/place") for line in strangers(copy))


def test_a_longer_name_is_not_taken_for_the_repository(copy: Path) -> None:
    other = f"{repository(copy)}-data\n"
    (copy / "book" / "note.md").write_text(other, encoding="utf8")
    move(copy, NEW)
    assert (copy / "book" / "note.md").read_text(encoding="utf8") == other


@pytest.mark.parametrize(
    "bad", ["", "github.com/a/b", "http://github.com/a/b", "https://github.com/a", "https://x.org/a/b"]
)
def test_what_is_not_an_address_is_refused(bad: str, copy: Path) -> None:
    before = contents(copy)
    with pytest.raises(ValueError, match="OWNER/NAME is wanted"):
        move(copy, bad)
    assert contents(copy) == before


def test_the_command_refuses_too() -> None:
    command = [sys.executable, "-m", "tools.repository", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "OWNER/NAME is wanted" in done.stderr
