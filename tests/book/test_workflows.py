"""What GitHub runs: the workflows are valid, and call `make` and nothing else; so do the hooks before a commit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.project import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE))


def complaints(schema: str, *files: Path) -> str:
    """What check-jsonschema says of files that break one of the schemas that come with it; empty where none does."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def foreign_steps(workflow: dict[str, Any]) -> list[str]:
    """The steps that run something else than `make` with a target that there is, or an action of no fixed version."""
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    runs = [step["run"] for step in steps if "run" in step]
    used = [step["uses"] for step in steps if "uses" in step]
    own = re.compile(rf"make ({'|'.join(TARGETS)})( PYTHON=python3)?")
    return [run for run in runs if not own.fullmatch(run)] + [use for use in used if not re.search(r"@v\d", use)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_valid_and_only_calls_make(path: Path) -> None:
    assert foreign_steps(yaml.safe_load(path.read_text(encoding="utf8"))) == []


def test_github_understands_them() -> None:
    assert {path.stem for path in WORKFLOWS} == {"test", "publish", "weekly"}
    assert complaints("vendor.github-workflows", *WORKFLOWS) == ""
    assert complaints("custom.github-workflows-require-timeout", *WORKFLOWS) == ""


def test_what_github_does_not_understand_is_seen(tmp_path: Path) -> None:
    text = WORKFLOWS[0].read_text(encoding="utf8")
    for old, new in (("runs-on", "run-on"), ("jobs:", "job:")):
        (tmp_path / "broken.yml").write_text(text.replace(old, new), encoding="utf8")
        assert complaints("vendor.github-workflows", tmp_path / "broken.yml")
    broken = {"jobs": {"a": {"steps": [{"run": "make tea"}, {"run": "make book && ls"}, {"uses": "a/b@main"}]}}}
    assert len(foreign_steps(broken)) == 3


def test_the_citation_is_valid(tmp_path: Path) -> None:
    assert complaints("vendor.citation-file-format", ROOT / "CITATION.cff") == ""
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\n", encoding="utf8")
    assert complaints("vendor.citation-file-format", tmp_path / "CITATION.cff")


def test_the_hooks_before_a_commit_are_local_and_call_make() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf8"))
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    entries = [hook["entry"] for repository in hooks["repos"] for hook in repository["hooks"]]
    assert entries
    assert [entry for entry in entries if entry.removeprefix("make ") not in TARGETS] == []
