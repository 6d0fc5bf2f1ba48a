"""The pages in Colab, without Colab: its packages suffice, and the setup cell says what to do when it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from support.notebooks import code

from tools import lint, notebooks, run_pages
from tools.cells import Cell
from tools.chapters import Chapter, chapters
from tools.project import ROOT, name_of, project, repository, requirements
from tools.run_pages import run_dir

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


def imported_by(cells: list[Cell]) -> set[str]:
    """The distributions that cells import, those of Python and the book's own left out."""
    modules = {name.split(".")[0] for cell in cells for name in lint.imported(cell)}
    return {lint.DISTRIBUTIONS.get(name, name).lower() for name in modules - sys.stdlib_module_names - {"helpers"}}


def imported_by_the_package() -> set[str]:
    """The distributions that the package imports, anywhere in it but in its experiments, which no page may import."""
    files = [path for path in (ROOT / "helpers").rglob("*.py") if "experiments" not in path.parts]
    return imported_by([Cell(0, code(path.read_text(encoding="utf8"))) for path in files])


def along(listed: dict[str, Version]) -> set[str]:
    """What the packages of a list need themselves, as pooch does requests."""
    needed = [line for name in listed.keys() - {"python"} for line in metadata.requires(name) or ()]
    return {name_of(line) for line in needed if "extra ==" not in line}


def test_colab_has_what_is_imported() -> None:
    pages = imported_by([cell for chapter in chapters(ROOT) for cell in chapter.code])
    assert pages - LISTED.keys() == set()
    assert imported_by_the_package() - LISTED.keys() - along(LISTED) == set()
    assert "requests" in along(LISTED)
    assert not {"numba", "jax"} & along(LISTED)


def test_what_colab_lacks_is_named() -> None:
    assert unmet(["torch>=99", "gone>=1", "numpy>=1"], LISTED) == ["torch>=99", "gone>=1"]
    assert imported_by([Cell(0, code("import numba\nimport skimage.io\nfrom helpers import cam"))]) == {
        "numba",
        "scikit-image",
    }


# Runs a setup cell in IPython as Colab or anybody else would: is it Colab, is the package there, does pip bring it?
SHELL = """
import importlib.util, sys
from types import ModuleType
from IPython.core.interactiveshell import InteractiveShell

colab, there, brings = (argument == "True" for argument in sys.argv[1:])
found = {"helpers"} if there else set()
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: (name in found or None) if name == "helpers" else real(name, *more)

def pip(line):
    print("pip", line)
    found.update({"helpers"} if brings else ())
    print("done" if brings else "ERROR: Failed to establish a new connection")

if colab:
    sys.modules["google.colab"] = ModuleType("google.colab")
shell = InteractiveShell(colors="NoColor")
shell.register_magic_function(pip, "line", "pip")
sys.exit(not shell.run_cell(sys.stdin.read()).success)
"""


def run_setup(
    folder: Path, setup: str, *, colab: bool, there: bool = False, brings: bool = False
) -> tuple[int, list[str]]:
    """The exit code of a setup cell, 0 where it did not stop, and the lines that it printed."""
    command = [sys.executable, "-c", SHELL, *map(str, (colab, there, brings))]
    variables = os.environ | {"IPYTHONDIR": str(folder), "PYTHONUTF8": "1"}
    done = subprocess.run(command, input=setup, env=variables, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, [line for line in done.stdout.splitlines() if line.strip()]


def test_the_setup_cell_installs_the_package_alone(tmp_path: Path) -> None:
    stopped, lines = run_setup(tmp_path, SETUP, colab=True, brings=True)
    assert (stopped, lines) == (0, [f'pip install -q --no-deps "git+{repository(ROOT)}"', "done"])
    assert lint.careless(SETUP) == []


@pytest.mark.parametrize("colab", [True, False])
def test_the_setup_cell_does_nothing_where_the_package_is(colab: bool, tmp_path: Path) -> None:
    assert run_setup(tmp_path, SETUP, colab=colab, there=True) == (0, [])


def last_words(folder: Path, setup: str, *, colab: bool) -> str:
    """The last line of a setup cell that stops because the package is not there."""
    stopped, lines = run_setup(folder, setup, colab=colab)
    assert stopped == 1, "it goes on without the package"
    assert ("pip" in lines[0]) is colab
    assert len(lines) < 30
    return lines[-1]


@pytest.mark.parametrize("colab", [True, False])
def test_without_the_package_the_last_line_says_what_to_do(colab: bool, tmp_path: Path) -> None:
    said = last_words(tmp_path, SETUP, colab=colab)
    assert said.startswith("RuntimeError: The book's package is not installed.")  # Colab adds its own to ImportError
    assert "check the connection and run this cell again" in said
    assert repository(ROOT) in said


def test_a_setup_cell_that_goes_on_is_seen(tmp_path: Path) -> None:
    silent = SETUP.split("if importlib.util.find_spec", 2)
    with pytest.raises(AssertionError, match="goes on without the package"):
        last_words(tmp_path, "if importlib.util.find_spec".join(silent[:2]), colab=True)


def test_assignments_have_the_setup_cell_of_the_chapters() -> None:
    sources = {
        path.stem: Chapter(path).setup.source for path in sorted((ROOT / "book" / "assignments").glob("*.ipynb"))
    }
    assert sources
    assert {name for name, source in sources.items() if source != SETUP} == set()


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


def colabs_environment(folder: Path) -> str:
    """The Python of a new environment with exactly the listed versions; skips the test where they are not to be had."""
    python = str(folder / "bin" / "python")
    subprocess.run([colabs_python(), "-m", "venv", str(folder)], check=True)
    pins = [f"{name}=={version}" for name, version in LISTED.items() if name != "python"]
    online = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-m", "pip", "install", "--quiet", *pins, "nbclient"]
    installed = subprocess.run(command, env=online, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"Colab's versions are not to be had here: {installed.stderr.strip()[-300:]}")
    return python


def played(python: str, notebook: dict[str, Any], folder: Path) -> str:
    """What goes wrong when a notebook is run by that Python, with the book's wheel and without a network."""
    (folder / "page.ipynb").write_text(json.dumps(notebook), encoding="utf8")
    run = "import nbformat, nbclient; nbclient.NotebookClient(nbformat.read('page.ipynb', 4), timeout=600).execute()"
    variables = {"PYTHONPATH": os.pathsep.join((str(ROOT / "tools" / "offline"), str(run_dir(ROOT) / "packages")))}
    variables |= {"IPYTHONDIR": str(folder / "ipython"), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [python, "-c", run], cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    return done.stderr if done.returncode else ""


# The first cell of what is run there: the kernel must have what Colab has, and not what is beside it.
SAME = """
import importlib.metadata, sys
for name, version in {listed}.items():
    here = "%d.%d" % sys.version_info[:2] if name == "python" else importlib.metadata.version(name)
    assert version.startswith(here), f"{{name}} is {{here}}, not {{version}}"
"""

# The last one: an explorable keeps to the widgets that Colab has. `set_state` is what a message of the browser calls.
ALIVE = """
import torch
from helpers.widgets import kernel_explorable
shown, heard = kernel_explorable(torch.rand(8, 8), {"edge": [[-1, 0, 1]] * 3}), []
data, _ = shown._repr_mimebundle_()
assert "application/vnd.jupyter.widget-view+json" in data and "explorable-home" in data["text/html"]
assert shown.get_state(["_esm"])["_esm"].endswith("export default { render };")
shown.observe(lambda change: heard.append(change["new"]["relu"]), names="state")
shown.set_state({"state": {**shown.state, "relu": True}})
assert heard == [True] and shown.state["relu"]
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_page_runs_on_colabs_own_versions(site: Path, tmp_path: Path) -> None:
    """The cheapest page of the edition and an explorable, and that a page can fail there."""
    python = colabs_environment(tmp_path / "venv")
    costs, shared = run_pages.costs(ROOT), notebooks.edition(ROOT)
    cheapest = min(chapters(ROOT), key=lambda chapter: costs[chapter.name]["cpu_seconds"])
    notebook = json.loads(notebooks.of_chapter(cheapest, ROOT, shared))
    same = {"id": "same", **code(SAME.format(listed={name: str(version) for name, version in LISTED.items()}))}
    notebook["cells"] = [same, *notebook["cells"], {"id": "alive", **code(ALIVE)}]
    assert played(python, notebook, tmp_path) == ""
    same["source"] = SAME.format(listed={"torch": "0.1"})
    assert "not 0.1" in played(python, notebook, tmp_path)
