"""The written answers: a table for people to fill in, and what it adds to the points."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tools.course.folder import BadFolder, Folder, rows_of, write_whole
from tools.course.master import CRITERIA, MOST, Master, Written

FIXED = ("student", "task", "answer")
COMMENT = "comment"
FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet would compute


def file_of(folder: Folder, master: Master) -> Any:
    """Where an assignment's table lies."""
    return folder.path / "marks" / f"{master.name}.csv"


def update(folder: Folder, master: Master, results: dict[str, dict[str, Any]]) -> int:
    """Add the written answers that the table lacks; marks that stand there stay. Returns how many have none yet.

    Where a student hands in another answer, the row gets the new text, and its marks and comment stay for people to
    look at again.
    """
    if not master.written:
        return 0
    table = rows_of(file_of(folder, master))
    rows = {(row["student"], row["task"]): row for row in table.to_dict("records")} if len(table) else {}
    for student, result in results.items():
        for task, answer in result["written"].items():
            row = rows.setdefault((student, task), dict.fromkeys((*CRITERIA, COMMENT), ""))
            rows[student, task] = row | {"student": student, "task": task, "answer": harmless(answer)}
    ordered = pd.DataFrame([rows[key] for key in sorted(rows)], columns=[*FIXED, *CRITERIA, COMMENT])
    write_whole(file_of(folder, master), ordered.to_csv(index=False))
    return int((ordered[list(CRITERIA)] == "").any(axis=1).sum())


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def read(folder: Folder, master: Master) -> dict[tuple[str, str], tuple[float | None, str]]:
    """The points of the written answers by student and task, None where marks are missing, and the comments.

    Raises:
        BadFolder: a mark is no number in 0 .. 2.
    """
    marks: dict[tuple[str, str], tuple[float | None, str]] = {}
    worth = {part.number: part for part in master.written}
    for row in rows_of(file_of(folder, master)).to_dict("records"):
        if row["task"] in worth:
            marks[row["student"], row["task"]] = _points(row, worth[row["task"]], master), row.get(COMMENT, "")
    return marks


def _points(row: dict[str, str], part: Written, master: Master) -> float | None:
    given = [row.get(criterion, "").strip() for criterion in CRITERIA]
    if "" in given:
        return None
    try:
        numbers = [float(mark.replace(",", ".")) for mark in given]
    except ValueError:
        numbers = [-1.0]
    if not all(0 <= number <= MOST for number in numbers):
        where = f"marks/{master.name}.csv, {row['student']}, {row['task']}"
        raise BadFolder(f"{where}: marks must be numbers in 0 .. {MOST}, got {', '.join(given)}")
    return round(part.worth * sum(numbers) / (MOST * len(CRITERIA)), 2)
