"""Submissions of the demonstration assignment, honest and hostile, as students' notebooks."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from tools.course.folder import PUBLIC
from tools.course.master import Master, read, release, settings

Notebook = dict[str, Any]
A0 = read(PUBLIC / "a0_demo.ipynb")
STUDENT, SEED = "ada", "a seed for tests"
BRIGHTEST = """def brightest(maps):
    at = maps.flatten(1).argmax(1)
    return torch.stack([at % maps.shape[2], at // maps.shape[2]], 1)"""


def cell_named(notebook: Notebook, cell_id: str) -> dict[str, Any]:
    """The cell with that id of nbgrader."""
    return next(cell for cell in notebook["cells"] if settings(cell).get("grade_id") == cell_id)


def code_cell(source: str) -> dict[str, Any]:
    """A cell that a student adds."""
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None}


def solved(master: Master = A0) -> Notebook:
    """The assignment with its solutions, as a good student has it."""
    notebook = copy.deepcopy(master.notebook)
    for ours, theirs in zip(notebook["cells"], release(master)["cells"], strict=True):
        if settings(ours).get("grade") and ours["cell_type"] == "code":
            ours["source"] = theirs["source"]
    return notebook


def answering(brightest: str = BRIGHTEST, inside: str | None = None) -> Notebook:
    """The demonstration assignment with these answers; without `inside` the number that is right for `STUDENT`."""
    notebook = solved()
    cell_named(notebook, "a0-student")["source"] = f'STUDENT = "{STUDENT}"'
    cell_named(notebook, "a0-1-answer")["source"] = brightest
    number = f"def inside():\n    return {right_number(STUDENT)}"
    cell_named(notebook, "a0-2-answer")["source"] = number if inside is None else inside
    return notebook


def body(lines: str) -> Notebook:
    """The demonstration assignment with a first answer of these lines, and the right number as the second."""
    indented = "\n".join(f"    {line}" for line in lines.strip().splitlines())
    return answering(f"def brightest(maps):\n{indented}")


def right_number(student: str) -> int:
    """The second answer of the demonstration assignment, computed without it."""
    from helpers.checks.course import own

    return int((own(student, "a0.2").normal(size=(20, 6, 10)).reshape(20, -1).argmax(1) % 10 < 5).sum())


def write(notebook: Notebook | str | bytes, path: Path) -> Path:
    """Put a submission into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(notebook) if isinstance(notebook, dict) else notebook
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
