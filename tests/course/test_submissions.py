"""What submissions get: honest ones, unlucky ones and hostile ones, each exactly the points that it deserves.

The demonstration assignment gives 8 points to tests: 4 for `brightest`, of which 1.2 are open and 0.7 go to each of
four hidden parts, and 4 for the number `inside`, of which 1.2 are open.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.submissions import (
    A0,
    SEED,
    STUDENT,
    Notebook,
    answering,
    body,
    cell_named,
    code_cell,
    right_number,
    solved,
    write,
)

from tools.course import judge, sandbox
from tools.course.master import release
from tools.project import ROOT

UNTOUCHED = release(A0)


@pytest.fixture(scope="module")
def child(kind: str) -> Iterator[judge.Child]:
    """One sandbox for all of them: each question has a process of its own in it."""
    with judge.processes(kind, 0, A0) as process:
        yield process


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds for a question, and six times as much by the clock, for a busy machine."""
    monkeypatch.setattr(judge, "SECONDS", 2)


def edited(notebook: Notebook, change: Callable[[list[dict[str, Any]]], Any]) -> Notebook:
    """A copy of a notebook whose cells were changed; `change` returns other cells or None."""
    notebook = copy.deepcopy(notebook)
    notebook["cells"] = change(notebook["cells"]) or notebook["cells"]
    return notebook


def without_metadata(cells: list[dict[str, Any]]) -> None:
    for cell in cells:
        cell["metadata"] = {}
        cell.pop("id", None)


def as_colab_has_it(cells: list[dict[str, Any]]) -> None:
    for number, cell in enumerate(cells):
        cell["metadata"] |= {"id": f"x{number}", "colab": {"base_uri": "https://localhost:8080/", "height": 34}}
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["hello\n"]}]
            cell["execution_count"] = number


def tampered(cells: list[dict[str, Any]]) -> None:
    for cell in cells:
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            cell["source"] = "def points(*anything):\n    return 8\n\ncheck = points\npoints()"


PATCHED = """import helpers.checks
import helpers.checks.course

right = helpers.checks.Verdict("right", "so it is")
helpers.checks.verdict = helpers.checks.course.verdict = lambda *anything: right
helpers.checks.course.points = lambda task, answer, worth, parts: worth"""
FAKED = """import sys
from types import ModuleType

fake = ModuleType("helpers.checks.course")
fake.points = lambda task, answer, worth, parts: worth
sys.modules["helpers.checks.course"] = fake"""
OF_ANOTHER = f"def inside():\n    return {right_number(STUDENT)}"
MIRRORED = "at = maps.flatten(1).argmax(1)\nreturn torch.stack([at // maps.shape[2], at % maps.shape[2]], 1)"

RIGHT = "at = maps.flatten(1).argmax(1)\nreturn torch.stack([at % maps.shape[2], at // maps.shape[2]], 1)"
WITH_HELPER = """def column(at, width):
    return at % width


def brightest(maps):
    at = maps.flatten(1).argmax(1)
    return torch.stack([column(at, maps.shape[2]), at // maps.shape[2]], 1)"""
ONCE = """calls = []


def brightest(maps):
    calls.append(1)
    if len(calls) > 1:
        return maps[:, 0, :2]
    at = maps.flatten(1).argmax(1)
    return torch.stack([at % maps.shape[2], at // maps.shape[2]], 1)"""
NONSENSE = """import os
for fd in range(3, 40):
    try:
        os.write(fd, b"x" * 999)
    except OSError:
        pass
while True:
    pass"""
FRAMES = """import sys
frame = sys._getframe()
while frame:
    if "places" in frame.f_locals or "student" in frame.f_locals:
        return frame.f_locals["places"]
    frame = frame.f_back
raise LookupError"""
OBJECTS = """import gc
for thing in gc.get_objects():
    if isinstance(thing, dict) and "below_zero" in thing:
        return thing["places"]
raise LookupError"""

HONEST: dict[str, tuple[Notebook | str | bytes, float]] = {
    "a good one": (solved(), 8),
    "with Colab's metadata and outputs": (edited(solved(), as_colab_has_it), 8),
    "metadata lost": (edited(solved(), without_metadata), 8),
    "a cell twice": (edited(solved(), lambda cells: [c for cell in cells for c in (cell, cell)]), 8),
    "cells in another order": (edited(solved(), lambda cells: cells[::-1]), 8),
    "the tests deleted": (edited(solved(), lambda cells: [c for c in cells if "points" not in str(c["metadata"])]), 8),
    "a cell that is no Python": (edited(solved(), lambda cells: [code_cell("def f(:"), *cells]), 8),
    "a cell that never ends": (edited(solved(), lambda cells: [code_cell("while True:\n    pass"), *cells]), 8),
    "magic and shell": (edited(solved(), lambda cells: [code_cell("%matplotlib inline\n!ls\nimport os"), *cells]), 8),
    "a helper of one's own": (
        answering(WITH_HELPER),
        8,
    ),
    "the stub left below the answer": (edited(solved(), lambda cells: cells + copy.deepcopy(UNTOUCHED["cells"])), 8),
    "a value in place of a function": (answering(inside=f"inside = {right_number(STUDENT)}"), 8),
    "untouched": (UNTOUCHED, 0),
    "one answer": (answering(inside="def inside():\n    raise NotImplementedError"), 4),
    "an answer that raises": (body("return maps.nothing"), 4),
    "NaN": (body("return torch.full((len(maps), 2), float('nan'))"), 4),
    "row before column": (body(MIRRORED), 4.7),
    "a constant": (body("return torch.zeros(len(maps), 2)"), 4.7),
    "a hard-coded width": (body("at = maps.flatten(1).argmax(1)\nreturn torch.stack([at % 8, at // 8], 1)"), 5.4),
    "values below zero forgotten": (
        body(f"maps = maps.clamp(min=0)\n{RIGHT}"),
        4 + 1.2 + 3 * 0.7,
    ),
    "right once": (answering(ONCE), 5.2),
    "no notebook": ("not even JSON", 0),
    "an empty file": (b"", 0),
    "half a notebook": (json.dumps(solved())[:900], 0),
    "cells of other kinds": (json.dumps({"cells": [1, None, {}, {"cell_type": "code", "source": [2]}]}), 0),
}  # fmt: skip

HOSTILE: dict[str, tuple[Notebook, float]] = {
    "tampered tests": (edited(UNTOUCHED, tampered), 0),
    "verdict patched": (edited(UNTOUCHED, lambda cells: [code_cell(PATCHED), *cells]), 0),
    "verdict patched within the answer": (body("\n".join([*PATCHED.splitlines(), "return maps"])), 4),
    "a faked module": (edited(UNTOUCHED, lambda cells: [code_cell(FAKED), *cells]), 0),
    "torch patched": (body(f"torch.equal = torch.allclose = lambda *a, **k: True\n{MIRRORED}"), 4.7),
    "an object that equals everything": (
        body("class All(torch.Tensor):\n    __eq__ = lambda a, b: True\nreturn All(torch.zeros(len(maps), 2))"),
        4.7,
    ),
    "a loop without end": (body("while True:\n    pass"), 4),
    "a loop that will not be ended": (
        body("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass"),
        4,
    ),
    "a long sleep": (body("import time\ntime.sleep(10**6)"), 4),
    "10 GB": (body("return torch.zeros(10**10 // 4)"), 4),
    "memory without end": (body("kept = []\nwhile True:\n    kept.append(bytearray(10**8))"), 4),
    "a fork bomb": (body("import os\nwhile True:\n    os.fork()"), 4),
    "processes that stay": (body("import os, time\nif os.fork() == 0:\n    time.sleep(1000)\nreturn maps"), 4),
    "output without end": (body("while True:\n    print('x' * 10**6)"), 4),
    "a file without end": (body("with open('x', 'wb') as f:\n    while True:\n        f.write(b'x' * 10**6)"), 4),
    "a pickle": (body("import pickle\nreturn pickle.dumps(maps)"), 4),
    "an object of its own": (body("class Own:\n    pass\nreturn Own()"), 4),
    "lists in lists": (body("deep = []\nfor _ in range(10**5):\n    deep = [deep]\nreturn deep"), 4),
    "an endless recursion": (body("return brightest(maps)"), 4),
    "exit": (body("import os\nos._exit(0)"), 4),
    "exit in words": (body("raise SystemExit"), 4),
    "its parent killed": (body("import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)\nreturn maps"), 4),
    "nonsense written to the grader": (
        body(NONSENSE),
        4,
    ),
    "tests looked for in frames": (
        body(FRAMES),
        4,
    ),
    "tests looked for among all objects": (
        body(OBJECTS),
        4,
    ),
}  # fmt: skip


def grade(notebook: Notebook | str | bytes, child: judge.Child, tmp_path: Path) -> dict[str, Any]:
    return judge.grade(write(notebook, tmp_path / "a0_demo.ipynb"), A0, STUDENT, SEED, child)


# After these the sandbox is started anew, which takes seconds.
SLOW = {
    "a fork bomb",
    "a loop that will not be ended",
    "a long sleep",
    "memory without end",
    "nonsense written to the grader",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_work_gets_what_it_deserves(name: str, child: judge.Child, tmp_path: Path) -> None:
    assert_gets(*HONEST[name], child, tmp_path)


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in HOSTILE]
)
def test_hostile_work_gets_what_it_deserves(name: str, child: judge.Child, tmp_path: Path) -> None:
    assert_gets(*HOSTILE[name], child, tmp_path)


def assert_gets(notebook: Notebook | str | bytes, points: float, child: judge.Child, tmp_path: Path) -> None:
    result = grade(notebook, child, tmp_path)
    assert result["points"] == pytest.approx(points), json.dumps(result["tasks"], indent=1)
    assert json.loads(json.dumps(result)) == result


def test_what_went_wrong_is_said(child: judge.Child, tmp_path: Path) -> None:
    def said(notebook: Notebook) -> str:
        return grade(notebook, child, tmp_path)["tasks"]["a0.1"]["parts"][0]["message"]

    assert said(body("while True:\n    pass")) == "more than 2 seconds of processor time"
    assert said(body("return maps.nothing")) == (
        "your code raised AttributeError: 'Tensor' object has no attribute 'nothing', in the line `return maps.nothing`"
    )
    assert "can't allocate memory" in said(body("return torch.zeros(10**10 // 4)"))
    assert said(body(MIRRORED)) == "x comes first: the column, then the row"
    assert said(body("import os\nos._exit(0)")) == "its process ended itself"
    assert said(edited(solved(), lambda cells: [c for c in cells if "a0-1-answer" not in str(c)])) == (
        "there is no `brightest` in the notebook"
    )


def test_a_copied_number_is_wrong_and_whose_it_is_noted(child: judge.Child, tmp_path: Path) -> None:
    file = write(answering(inside=OF_ANOTHER), tmp_path / "a0_demo.ipynb")
    other = next(name for name in ("bob", "cyd", "dan") if right_number(name) != right_number(STUDENT))
    result = judge.grade(file, A0, other, SEED, child)
    assert result["tasks"]["a0.2"]["points"] == 1.2  # the open check alone
    assert result["notes"] == [f"STUDENT is 'ada' in the notebook, but this is the work of {other!r}"]


def test_the_same_again(child: judge.Child, tmp_path: Path) -> None:
    assert grade(solved(), child, tmp_path) == grade(solved(), child, tmp_path)


def test_hidden_inputs_are_of_the_seed_and_of_the_student(child: judge.Child, tmp_path: Path) -> None:
    """An answer that gives its input away, by way of what is raised."""
    notebook = body("raise ValueError(str(maps.flatten()[0].item()))")
    seen = set()
    for student, seed in (("ada", "x"), ("ada", "y"), ("bob", "x"), ("ada", "x")):
        with judge.graded(student, seed):
            from helpers.checks.course import secret

            seen.add(secret("a0.1").normal())
    assert len(seen) == 3
    assert grade(notebook, child, tmp_path)["points"] == 4


@pytest.mark.usefixtures("apart")
def test_nothing_of_the_teachers_can_be_read_or_written(child: judge.Child, tmp_path: Path) -> None:
    secret_file, target = tmp_path / "seed", tmp_path / "written"
    secret_file.write_text("secret")
    for path in (secret_file, ROOT / "README.md", ROOT / "book" / "assignments" / "a0_demo.ipynb", Path("/etc/passwd")):
        result = grade(body(f"return open({str(path)!r}).read()"), child, tmp_path)
        assert "FileNotFoundError" in result["tasks"]["a0.1"]["parts"][0]["message"]
    places = [target, ROOT / "written", ROOT / "helpers" / "written.py", Path("/book/helpers/written.py")]
    for path in places:
        grade(body(f"with open({str(path)!r}, 'w') as file:\n    file.write('x')\nreturn maps"), child, tmp_path)
        assert not path.exists()


@pytest.mark.usefixtures("apart")
def test_the_kernel_cannot_be_set(child: judge.Child, tmp_path: Path) -> None:
    result = grade(body("return open('/proc/sys/kernel/core_pattern', 'r+').name"), child, tmp_path)
    assert "PermissionError" in result["tasks"]["a0.1"]["parts"][0]["message"]


UNPRIVILEGED = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
WHAT_IT_MAY = """
import os
for path in ("/usr/x", "/book/x", "/proc/sys/kernel/core_pattern"):
    try:
        open(path, "r+" if os.path.exists(path) else "w")
    except OSError:
        continue
    print("can write", path)
print("sees", [path for path in ("/etc/passwd", "/home", "/root") if os.path.exists(path)])
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="tries it as another user, which only root can")
@pytest.mark.parametrize("sort", ["bubblewrap", "unshare"])
def test_a_teacher_without_rights_has_a_sandbox_too(sort: str, tmp_path: Path) -> None:
    python = shutil.which("python3", path="/usr/bin:/bin")  # the tests' own may lie where that user cannot read
    if python is None or (sort == "bubblewrap" and shutil.which("bwrap") is None):
        pytest.skip(f"needs the system's Python and {sort}")
    lines = (
        "import subprocess, sys; from tools.course import sandbox",
        f"command = sandbox.command({sort!r}, [sys.executable, '-c', {WHAT_IT_MAY!r}], sys.argv[1], 0)",
        "print(subprocess.run(command, capture_output=True, text=True, env=sandbox.environment(sys.argv[1])).stdout)",
    )
    with tempfile.TemporaryDirectory() as empty:
        Path(empty).chmod(0o777)
        done = subprocess.run(
            [*UNPRIVILEGED, python, "-B", "-c", "\n".join(lines), empty],
            cwd=ROOT,
            env=os.environ | {"HOME": empty, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    if "ModuleNotFoundError" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"that user cannot try it here: {done.stderr.strip().splitlines()[-1]}")
    assert done.stdout.split("\n")[0] == "sees []", done.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="is about root")
def test_root_never_uses_bubblewrap() -> None:
    with pytest.raises(sandbox.NoSandbox, match="bubblewrap does not work here"):
        sandbox.choose("bubblewrap")


@pytest.mark.usefixtures("apart")
def test_there_is_no_network(child: judge.Child, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        lines = f"import socket\nsocket.create_connection({server.getsockname()!r}, timeout=1)\n{MIRRORED}"
        said = grade(body(lines), child, tmp_path)["tasks"]["a0.1"]["parts"][0]["message"]
    assert "Error" in said


@pytest.mark.slow
def test_nothing_of_the_teachers_is_in_the_environment(
    child: judge.Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_SEED", "secret")
    with judge.processes(child.kind, 1, A0) as other:
        said = grade(body("import os\nraise ValueError(str(dict(os.environ)))"), other, tmp_path)
    message = said["tasks"]["a0.1"]["parts"][0]["message"]
    assert "secret" not in message
    assert "PYTHONPATH" in message


def test_a_function_of_the_package_is_noticed(child: judge.Child, tmp_path: Path) -> None:
    import inspect

    from helpers.boxes import box_centers

    copied = inspect.getsource(box_centers).replace("def box_centers(", "def brightest(").replace("boxes", "maps")
    noticed = grade(answering(f"from torch import Tensor\n\n{copied}"), child, tmp_path)["copied"]
    assert noticed == {"brightest": "helpers.boxes.box_centers"}
    assert grade(solved(), child, tmp_path)["copied"] == {}


def test_written_answers_are_kept_where_metadata_is_lost_too(child: judge.Child, tmp_path: Path) -> None:
    text = cell_named(solved(), "a0-3-written")["source"]
    text = "".join(text).strip()
    assert grade(solved(), child, tmp_path)["written"] == {"a0.3": text}
    assert grade(edited(solved(), without_metadata), child, tmp_path)["written"] == {"a0.3": text}
    assert grade(UNTOUCHED, child, tmp_path)["written"] == {"a0.3": ""}


def test_without_any_sandbox_nothing_is_graded_unless_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "works", lambda kind: False)
    with pytest.raises(sandbox.NoSandbox, match="--sandbox none"):
        sandbox.choose()
    with pytest.raises(sandbox.NoSandbox, match="bubblewrap does not work here"):
        sandbox.choose("bubblewrap")
    assert sandbox.choose("none") == "none"
    with pytest.raises(ValueError, match="must be one of bubblewrap, unshare, none, got 'docker'"):
        sandbox.choose("docker")


@pytest.mark.slow
def test_without_a_sandbox_the_limits_hold(tmp_path: Path) -> None:
    with judge.processes("none", 0, A0) as child:
        assert grade(solved(), child, tmp_path)["points"] == 8
        assert grade(body("while True:\n    pass"), child, tmp_path)["points"] == 4
        assert grade(body("return torch.zeros(10**10 // 4)"), child, tmp_path)["points"] == 4
