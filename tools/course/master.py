"""An assignment's master in nbgrader's format, and the release that students get: no solution, no hidden test.

A master is a notebook whose cells nbgrader's metadata tells apart: answers (between BEGIN SOLUTION and END SOLUTION
stands what is right), tests (`check` is open, what stands between BEGIN HIDDEN TESTS and END HIDDEN TESTS is not),
written answers, and what is given. Cells without nbgrader's metadata only show something; no grader runs them.
"""

from __future__ import annotations

import ast
import copy
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tools.course.answers import Code, code_of, source_of

SOLUTION = re.compile(
    r"^(?P<indent>[ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[^\n]*\n?", re.DOTALL | re.MULTILINE
)
HIDDEN = re.compile(
    r"^[ \t]*### BEGIN HIDDEN TESTS\n(?P<code>.*?)^[ \t]*### END HIDDEN TESTS[^\n]*\n?", re.DOTALL | re.MULTILINE
)
MARKS = re.compile(r"### (?:BEGIN|END) (?:SOLUTION|HIDDEN TESTS)")
STUB = 'raise NotImplementedError("your answer")'
WRITTEN_STUB = "*Your answer here, in your own words.*"
CRITERIA = (
    "the measurement is named",
    "the baseline is named",
    "the conclusion is no stronger than the evidence",
)
MOST = 2  # points of a criterion
CALL = re.compile(r"\bpoints\(\s*[\"'](?P<number>[\w.]+)[\"']\s*,\s*(?P<name>\w+)\s*,\s*(?P<worth>[\d.]+)")


class BadMaster(ValueError):
    """A master that could not be graded."""


@dataclass(frozen=True)
class Task:
    """A task that is graded by tests: its number, the name of its answer, its points, and the hidden code."""

    number: str
    name: str
    worth: float
    hidden: str


@dataclass(frozen=True)
class Written:
    """A written answer: its number, the cell's id, its points."""

    number: str
    cell: str
    worth: float


@dataclass(frozen=True, eq=False)
class Master:
    """An assignment with its solutions and hidden tests."""

    name: str
    notebook: dict[str, Any]

    @property
    def number(self) -> str:
        """What its tasks' numbers begin with, such as "a1"."""
        return self.name.split("_")[0]

    @property
    def title(self) -> str:
        """The first heading of its text."""
        texts = (source_of(cell) for cell in self.cells if cell["cell_type"] == "markdown")
        headings = (line for text in texts for line in text.splitlines() if line.startswith("# "))
        return next(headings, self.name).removeprefix("# ")

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The cells."""
        return self.notebook["cells"]

    @cached_property
    def tasks(self) -> list[Task]:
        """The tasks that tests grade, in order."""
        return [task_of(self.name, cell) for cell in self.cells if role(cell) == "tests"]

    @cached_property
    def written(self) -> list[Written]:
        """The written answers, in order; they count on from the tasks."""
        cells = [cell for cell in self.cells if role(cell) == "written"]
        first = len(self.tasks) + 1
        return [
            Written(f"{self.number}.{first + i}", settings(cell)["grade_id"], float(settings(cell)["points"]))
            for i, cell in enumerate(cells)
        ]

    @cached_property
    def given(self) -> Code:
        """The code of the cells that are neither answers nor tests."""
        return code_of(cell for cell in self.cells if role(cell) == "given")

    @property
    def worth(self) -> float:
        """The points of all of it."""
        return sum(task.worth for task in self.tasks) + sum(part.worth for part in self.written)


def settings(cell: dict[str, Any]) -> dict[str, Any]:
    """nbgrader's metadata of a cell; empty where there is none."""
    found = cell.get("metadata", {}).get("nbgrader", {})
    return found if isinstance(found, dict) else {}


def role(cell: dict[str, Any]) -> str:
    """What a cell of a master is: "answer", "tests", "written", "given", or "plain", which only shows something."""
    marks = settings(cell)
    if marks.get("grade") and marks.get("solution"):
        return "written"
    if marks.get("grade"):
        return "tests"
    if marks.get("solution"):
        return "answer"
    return "given" if marks else "plain"


def task_of(master: str, cell: dict[str, Any]) -> Task:
    """The task that a cell of tests grades.

    Raises:
        BadMaster: it has no hidden tests, or they do not end in `points("a1.2", answer, worth, {...})`, or nbgrader's
            points differ from that.
    """
    cell_id = settings(cell).get("grade_id")
    hidden = HIDDEN.search(source_of(cell) + "\n")
    if hidden is None:
        raise BadMaster(f"{master}, cell {cell_id}: there are no hidden tests")
    call = CALL.search(hidden["code"])
    if call is None or not isinstance(ast.parse(hidden["code"]).body[-1], ast.Expr):
        raise BadMaster(f'{master}, cell {cell_id}: the hidden tests must end in points("a1.2", answer, worth, parts)')
    worth = float(call["worth"])
    if worth != float(settings(cell)["points"]):
        raise BadMaster(f"{master}, cell {cell_id}: {worth} points, but {settings(cell)['points']} for nbgrader")
    return Task(call["number"], call["name"], worth, hidden["code"])


def read(path: Path) -> Master:
    """The master in a file.

    Raises:
        BadMaster: a task's number is not that of the assignment or stands twice, an answer is bound nowhere, or marks
            of solutions or hidden tests do not pair.
    """
    master = Master(path.stem, json.loads(path.read_text(encoding="utf8")))
    numbers = [task.number for task in master.tasks]
    if len(set(numbers)) != len(numbers) or any(not n.startswith(f"{master.number}.") for n in numbers):
        raise BadMaster(f"{master.name}: the tasks must be {master.number}.1, {master.number}.2 ..., got {numbers}")
    answers = code_of(cell for cell in master.cells if role(cell) == "answer")
    bound = frozenset().union(*(statement.binds for statement in answers.statements))
    missing = [task.name for task in master.tasks if task.name not in bound]
    if missing:
        raise BadMaster(f"{master.name}: no answer binds {', '.join(missing)}")
    left = [cell["source"] for cell in release(master)["cells"] if MARKS.search(source_of(cell))]
    if left:
        raise BadMaster(f"{master.name}: a mark without its pair in {source_of({'source': left[0]})[:60]!r}")
    return master


def release(master: Master) -> dict[str, Any]:
    """The notebook that students get."""
    notebook = copy.deepcopy(master.notebook)
    for cell in notebook["cells"]:
        source = source_of(cell)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        if role(cell) == "written":
            source = WRITTEN_STUB
        elif role(cell) == "answer":
            source = SOLUTION.sub(rf"\g<indent>{STUB}\n", source + "\n").rstrip("\n")
        elif role(cell) == "tests":
            source = HIDDEN.sub("", source + "\n").rstrip("\n")
        cell["source"] = source.splitlines(keepends=True)
    return notebook


def masters(*folders: Path) -> list[Master]:
    """The masters of some folders, each by its name; a later folder's takes the place of an earlier one's."""
    paths = {path.stem: path for folder in folders for path in sorted(folder.glob("*.ipynb"))}
    return [read(path) for _, path in sorted(paths.items())]
