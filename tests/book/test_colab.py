"""The pages in Colab, without Colab: its packages suffice, and the setup cell says what to do when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from support.notebooks import code

from tools import lint, notebooks, run_pages
from tools.cells import Cell
from tools.chapters import Chapter, chapters
from tools.project import ROOT, name_of, project, repository, requirements
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
    code, lines = run_setup(tmp_path, SETUP, colab=True, brings=True)
    assert (code, lines) == (0, [f'pip install -q --no-deps "git+{repository(ROOT)}"', "done"])
    assert lint.careless(SETUP) == []


@pytest.mark.parametrize("colab", [True, False])
def test_the_setup_cell_does_nothing_where_the_package_is(colab: bool, tmp_path: Path) -> None:
    assert run_setup(tmp_path, SETUP, colab=colab, there=True) == (0, [])


def last_words(folder: Path, setup: str, *, colab: bool) -> str:
    """The last line of a setup cell that stops because the package is not there."""
    code, lines = run_setup(folder, setup, colab=colab)
    assert code == 1, "it goes on without the package"
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
