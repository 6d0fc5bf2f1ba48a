"""The points of all students as tables: one for the teacher, and those that Canvas, Moodle and Gradescope read.

Columns as documented: Canvas, "How do I import grades in the Gradebook?" (Student, ID, SIS User ID, SIS Login ID,
Section, one for each assignment; a second row with the points possible); Moodle, "Grade import" (CSV, users mapped by
email address or ID number, a column for each grade and its feedback); Gradescope, the columns of its own export
(First Name, Last Name, SID, Email, Sections, and four for each assignment).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pandas as pd

from tools.course import batch, marks
from tools.course.folder import Folder, write_whole
from tools.course.master import Master


def rows(folder: Folder, chosen: list[Master]) -> pd.DataFrame:
    """A row for every student and assignment.

    Returns:
        Columns student, assignment, automatic, written (None while marks are missing), late (seconds), factor, points
        (None where nothing was handed in or marks are missing), worth, handed_in (None or a time).
    """
    table = []
    for master in chosen:
        marked = marks.read(folder, master)
        for student in folder.roster["id"]:
            found = batch.result(folder, student, master)
            parts = [marked.get((student, part.number), (None, ""))[0] for part in master.written]
            late = folder.lateness(student, master)
            factor = folder.rules.late.factor(late)
            automatic = found["points"] if found and "failed" not in found else None
            written = None if None in parts else sum(part for part in parts if part is not None)
            whole = None if automatic is None or written is None else round((automatic + written) * factor, 2)
            table.append(
                {
                    "student": student, "assignment": master.name, "automatic": automatic, "written": written,
                    "late": late.total_seconds(), "factor": factor, "points": whole, "worth": master.worth,
                    "handed_in": folder.handed_in(student, master),
                }
            )  # fmt: skip
    return pd.DataFrame(table)


def hours(seconds: float) -> str:
    """A time as hours, minutes and seconds."""
    minutes, left = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{left:02d}"


def canvas(folder: Folder, table: pd.DataFrame) -> pd.DataFrame:
    """What Canvas imports."""
    students = folder.roster
    columns: dict[str, Any] = {
        "Student": students["last"] + ", " + students["first"],
        "ID": students.get("canvas_id", pd.Series("", students.index)),
        "SIS User ID": students["id"],
        "SIS Login ID": students["email"],
        "Section": students.get("section", pd.Series("", students.index)),
    }
    worth = {"Student": "    Points Possible", **dict.fromkeys(("ID", "SIS User ID", "SIS Login ID", "Section"), "")}
    for assignment, own in table.groupby("assignment", sort=False):
        columns[str(assignment)] = own.set_index("student")["points"].reindex(students.index)
        worth[str(assignment)] = own["worth"].iloc[0]
    return pd.concat([pd.DataFrame([worth]), pd.DataFrame(columns)], ignore_index=True)


def moodle(folder: Folder, table: pd.DataFrame) -> pd.DataFrame:
    """What Moodle imports."""
    students = folder.roster
    columns: dict[str, Any] = {
        "First name": students["first"], "Last name": students["last"],
        "ID number": students["id"], "Email address": students["email"],
    }  # fmt: skip
    for assignment, own in table.groupby("assignment", sort=False):
        of_student = own.set_index("student").reindex(students.index)
        columns[f"{assignment} (Real)"] = of_student["points"]
        columns[f"{assignment} (Feedback)"] = [sentence(row) for row in of_student.to_dict("records")]
    return pd.DataFrame(columns)


def sentence(row: dict[str, Any]) -> str:
    """A row of the table in words."""
    if pd.isna(row["automatic"]):
        return "not handed in" if row["handed_in"] is None or pd.isna(row["handed_in"]) else "not graded yet"
    written = "not marked yet" if pd.isna(row["written"]) else f"{row['written']:g}"
    late = f", {hours(row['late'])} late: times {row['factor']:g}" if row["late"] else ""
    return f"tests {row['automatic']:g}, written {written}{late}"


def gradescope(folder: Folder, table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a table that Gradescope exports."""
    students = folder.roster
    columns: dict[str, Any] = {
        "First Name": students["first"], "Last Name": students["last"], "SID": students["id"],
        "Email": students["email"], "Sections": students.get("section", pd.Series("", students.index)),
    }  # fmt: skip
    for assignment, own in table.groupby("assignment", sort=False):
        of_student = own.set_index("student").reindex(students.index)
        columns[str(assignment)] = of_student["points"]
        columns[f"{assignment} - Max Points"] = of_student["worth"]
        columns[f"{assignment} - Submission Time"] = [
            "" if pd.isna(time) else time.strftime("%Y-%m-%d %H:%M:%S %z") for time in of_student["handed_in"]
        ]
        columns[f"{assignment} - Lateness (H:M:S)"] = [hours(seconds) for seconds in of_student["late"]]
    return pd.DataFrame(columns)


def export(folder: Folder, chosen: list[Master]) -> dict[str, pd.DataFrame]:
    """Write all four tables below gradebook/; returns them by name."""
    table = rows(folder, chosen)
    tables = {
        "all": table,
        "canvas": canvas(folder, table),
        "moodle": moodle(folder, table),
        "gradescope": gradescope(folder, table),
    }
    for name, one in tables.items():
        write_whole(folder.path / "gradebook" / f"{name}.csv", one.to_csv(index=False))
    return tables


def late_words(late: timedelta) -> str:
    """How late, in words."""
    days, hours_left = late.days, late.seconds // 3600
    return f"{days} days and {hours_left} hours late" if days else f"{hours_left + 1} hours late or less"
