"""The pages in Colab, without Colab: its packages suffice, and the setup cell says what to do when it fails."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tools import lint, notebooks, run_pages
from tools.chapters import chapters
from tools.project import ROOT, name_of, project, requirements
from tools.run_pages import executed, run_dir

LISTED = {
    name_of(line): Version(line.split("==")[1])
    for line in (ROOT / "tools" / "colab" / "packages.txt").read_text(encoding="utf8").splitlines()
    if not line.startswith("#")
}
SETUP = chapters(ROOT)[0].setup.source


def unmet(wanted: list[str], listed: dict[str, Version]) -> list[str]:
    """The requirements that a list of packages does not meet."""
    return [
        line
        for line in wanted
        if name_of(line) not in listed or not Requirement(line).specifier.contains(listed[name_of(line)])
    ]


def test_colab_has_what_the_package_asks_for() -> None:
    assert unmet(requirements(ROOT), LISTED) == []
    assert unmet([f"python{project(ROOT)['requires-python']}"], LISTED) == []


def test_colab_has_what_the_pages_import() -> None:
    modules = {
        name.split(".")[0] for chapter in chapters(ROOT) for cell in chapter.code for name in lint.imported(cell)
    }
    named = {lint.DISTRIBUTIONS.get(name, name).lower() for name in modules - sys.stdlib_module_names - {"helpers"}}
    assert named - LISTED.keys() == set()


def test_what_colab_lacks_is_named() -> None:
    assert unmet(["torch>=99", "gone>=1", "numpy>=1"], LISTED) == ["torch>=99", "gone>=1"]


def run_setup(monkeypatch: pytest.MonkeyPatch, *, colab: bool, there: list[bool]) -> list[str]:
    """What the setup cell asks pip for; `there` is whether helpers can be imported, each time that it looks."""
    asked: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there.pop(0) or None)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    lines = [line.replace("%pip", "pip(r'''") + "''')" if "%pip" in line else line for line in SETUP.splitlines()]
    exec("\n".join(lines), {"pip": asked.append})
    return asked


def test_the_setup_cell_installs_the_package_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    (asked,) = run_setup(monkeypatch, colab=True, there=[False, True])
    assert "--no-deps" in asked
    assert asked.count("git+") == 1
    assert not any(name in asked for name in ("torch", "numpy"))


def test_the_setup_cell_does_nothing_where_nothing_is_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_setup(monkeypatch, colab=False, there=[False]) == []
    assert run_setup(monkeypatch, colab=True, there=[True]) == []


def test_the_last_line_says_what_to_do_when_nothing_was_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError) as failed:
        run_setup(monkeypatch, colab=True, there=[False, False])
    (message,) = str(failed.value).splitlines()
    assert "Check the connection and run this cell again" in message
    assert "/issues" in message


def colabs_python() -> str:
    """A Python of Colab's minor version."""
    wanted = ".".join(str(LISTED["python"]).split(".")[:2])
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*(str(path) for path in sorted(pyenv.glob(f"{wanted}*/bin/python"))), f"python{wanted}"]
    for python in found:
        try:
            subprocess.run([python, "--version"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip(f"needs Python {wanted}, which Colab has")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_page_runs_on_colabs_own_versions(site: Path, tmp_path: Path) -> None:
    """The cheapest page's notebook, in an environment of exactly those versions, without a network."""
    subprocess.run([colabs_python(), "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    pins = [f"{name}=={version}" for name, version in LISTED.items() if name != "python"]
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", *pins, "nbclient"], capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(f"Colab's versions cannot be had here: {installed.stderr.strip().splitlines()[-1]}")
    costs = run_pages.costs(ROOT)
    cheapest = min(chapters(ROOT), key=lambda chapter: costs[chapter.name]["cpu_seconds"])
    text = notebooks.of_chapter(cheapest, ROOT, notebooks.edition(ROOT))
    (tmp_path / "page.ipynb").write_text(text, encoding="utf8")
    code = "import nbformat, nbclient; nbclient.NotebookClient(nbformat.read('page.ipynb', 4), timeout=600).execute()"
    paths = [str(ROOT / "tools" / "offline"), str(run_dir(ROOT) / "packages")]
    done = subprocess.run(
        [python, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert executed(run_dir(ROOT), cheapest.name).exists()
