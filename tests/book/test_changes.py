"""tools.changes: CI runs the slow tests when a change touches what only they check."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools import changes

SLOW = f"@pytest.{changes.SLOW}\n"
FILES = {
    "helpers/cam/_head.py": "",
    "helpers/cam/_boxes.py": "",
    "helpers/training.py": "",
    "helpers/networks/files/net.json": "",
    "helpers/experiments/search/measure.py": "",
    "tests/unit/cam/test_head.py": SLOW,
    "tests/unit/cam/test_boxes.py": "",
    "tests/unit/test_training.py": SLOW,
    "tests/experiments/test_search.py": SLOW,
    "tests/book/test_install.py": SLOW,
    "tools/colab/packages.txt": "",
    "README.md": "",
}


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    command = ["git", "-C", str(root), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one commit."""
    for variable in ("CI_FULL", "CI_BASE"):
        monkeypatch.delenv(variable, raising=False)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def change(root: Path, name: str) -> None:
    """Commit a change of a file."""
    with (root / name).open("a", encoding="utf8") as file:
        file.write("# changed\n")
    git(root, "commit", "-qam", name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("README.md", "test"),
        ("helpers/cam/_boxes.py", "test"),
        ("tests/unit/cam/test_boxes.py", "test"),
        ("helpers/cam/_head.py", "test-all"),
        ("tests/unit/cam/test_head.py", "test-all"),
        ("helpers/training.py", "test-all"),
        ("helpers/experiments/search/measure.py", "test-all"),
        ("helpers/networks/files/net.json", "test-all"),
        ("tests/book/test_install.py", "test-all"),
        ("tools/colab/packages.txt", "test-all"),
    ],
)
def test_the_change_decides(name: str, expected: str, repository: Path) -> None:
    change(repository, name)
    assert changes.target(repository) == expected


def test_a_branch_is_compared_with_where_it_left_main(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    change(repository, "helpers/cam/_head.py")
    change(repository, "README.md")
    assert changes.target(repository) == "test-all"
    git(repository, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert changes.target(repository) == "test", "on main itself the last commit is what changed"
    monkeypatch.setenv("CI_BASE", "HEAD~2")
    assert changes.target(repository) == "test-all"


def test_the_variable_asks_for_everything(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_FULL", "1")
    assert changes.target(repository) == "test-all"


def test_without_history_the_usual_tests_run(repository: Path, tmp_path: Path) -> None:
    assert changes.target(repository) == "test"  # a single commit
    (tmp_path / ".git").rename(tmp_path / "elsewhere")
    assert changes.target(repository) == "test"


def test_slow_tests_of_the_project_watch_what_exists() -> None:
    assert [path for path in changes.watched(changes.ROOT) if not (changes.ROOT / path).exists()] == []
