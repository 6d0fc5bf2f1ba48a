"""A teacher's folder: the seed, the students, the rules, what was handed in and what came of it.

course.toml              name, dates and rules; what is not there has the values of `Rules`
seed                     of the hidden inputs: a secret, as are the assignments below
roster.csv               id, first, last, email, and optionally section, canvas_id
assignments/*.ipynb      masters of one's own; they join the book's or, under the same name, replace them
release/*.ipynb          what students get
submissions/ID/*.ipynb   what they hand in; times.csv there says when, else the file's own time does
results/  marks/  feedback/  gradebook/
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tools.course.master import Master, masters
from tools.project import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PUBLIC = ROOT / "book" / "assignments"
ROSTER = ("id", "first", "last", "email")
EXAMPLE = "id,first,last,email,section,canvas_id\nada,Ada,Lovelace,ada@example.org,1,\n"
SETTINGS = """name = "Where Networks Look"

[late]  # points are taken for each day that has begun after the free hours
free_hours = 0
percent_a_day = 10
most_days = 7  # after these it counts nothing

[due]  # of each assignment, in your time
# a1_basics = 2027-01-22T23:59:00+01:00

[extensions.ada]  # of one student
# a1_basics = 2027-01-29T23:59:00+01:00
"""


class BadFolder(ValueError):
    """Something in the teacher's folder is missing or wrong."""


@dataclass(frozen=True)
class Late:
    """What handing in late costs."""

    free_hours: float = 0.0
    percent_a_day: float = 10.0
    most_days: int = 7

    def factor(self, late: timedelta) -> float:
        """The share of the points that is left, in [0, 1]."""
        days = -(-(late - timedelta(hours=self.free_hours)) // timedelta(days=1))
        if days <= 0:
            return 1.0
        return 0.0 if days > self.most_days else max(0.0, 1 - days * self.percent_a_day / 100)


@dataclass(frozen=True)
class Rules:
    """Dates and rules of a course."""

    name: str = "Where Networks Look"
    late: Late = Late()
    due: dict[str, datetime] = field(default_factory=dict)
    extensions: dict[str, dict[str, datetime]] = field(default_factory=dict)

    def due_of(self, assignment: str, student: str) -> datetime | None:
        """When a student's work is due, or None."""
        due = self.extensions.get(student, {}).get(assignment, self.due.get(assignment))
        return due.astimezone() if due is not None else None


@dataclass(frozen=True, eq=False)
class Folder:
    """A teacher's folder."""

    path: Path

    @cached_property
    def rules(self) -> Rules:
        """What course.toml says.

        Raises:
            BadFolder: it is no TOML, or has other settings.
        """
        file = self.path / "course.toml"
        try:
            said = tomllib.loads(file.read_text(encoding="utf8")) if file.exists() else {}
            return Rules(**{**said, "late": Late(**said.get("late", {}))})
        except (tomllib.TOMLDecodeError, TypeError) as error:
            raise BadFolder(f"course.toml: {error}") from error

    @cached_property
    def seed(self) -> str:
        """The secret seed.

        Raises:
            BadFolder: there is none.
        """
        file = self.path / "seed"
        if not file.exists() or not file.read_text(encoding="utf8").strip():
            raise BadFolder(f"there is no seed in {self.path}: `python -m tools.course release {self.path}` makes one")
        return file.read_text(encoding="utf8").strip()

    @cached_property
    def roster(self) -> pd.DataFrame:
        """The students by id, every column a text.

        Raises:
            BadFolder: a column is missing, or an id stands twice.
        """
        file = self.path / "roster.csv"
        if not file.exists():
            raise BadFolder(f"there is no roster.csv in {self.path}; its columns are {', '.join(ROSTER)}")
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig").map(str.strip)
        missing = set(ROSTER) - set(table)
        if missing:
            raise BadFolder(
                f"roster.csv must have the columns {', '.join(ROSTER)}; {', '.join(sorted(missing))} is missing"
            )
        twice = sorted(set(table["id"][table["id"].duplicated()]))
        if twice or "" in set(table["id"]):
            raise BadFolder(f"roster.csv: every student has an id of their own; {twice or 'an empty one'} stands twice")
        odd = [
            student for student in table["id"] if not re.fullmatch(r"[\w@+-][\w.@+-]*", student)
        ]  # they name folders
        if odd:
            raise BadFolder(f"roster.csv: ids are letters, digits, and . _ @ + -, got {odd[0]!r}")
        return table.set_index("id", drop=False)

    @cached_property
    def masters(self) -> dict[str, Master]:
        """The assignments by name: the book's, and the folder's own."""
        return {master.name: master for master in masters(PUBLIC, self.path / "assignments")}

    def choose(self, names: list[str]) -> list[Master]:
        """The assignments of these names or numbers; all when there are none.

        Raises:
            BadFolder: there is none of that name.
        """
        unknown = [name for name in names if not self._matching(name)]
        if unknown:
            raise BadFolder(f"there is no assignment {', '.join(unknown)}; there are {', '.join(self.masters)}")
        return [
            master for master in self.masters.values() if not names or any(master in self._matching(n) for n in names)
        ]

    def _matching(self, name: str) -> list[Master]:
        return [master for master in self.masters.values() if name in (master.name, master.number)]

    def submission(self, student: str, master: Master) -> Path | None:
        """A student's notebook: the newest whose name holds the assignment's, however a browser changed the rest."""
        folder = self.path / "submissions" / student
        files = sorted(folder.rglob("*.ipynb"), key=lambda path: (path.stat().st_mtime, path.name))
        fitting = [path for path in files if re.search(rf"(?<![a-z0-9]){master.name}(?![a-z0-9_])", path.stem.lower())]
        return fitting[-1] if fitting else None

    def handed_in(self, student: str, master: Master) -> datetime | None:
        """When: as submissions/times.csv (student, assignment, time) says, else the file's time; None for nothing."""
        file = self.submission(student, master)
        if file is None:
            return None
        rows = self.times[(self.times["student"] == student) & (self.times["assignment"] == master.name)]
        if len(rows):
            return datetime.fromisoformat(rows["time"].iloc[-1]).astimezone()
        return datetime.fromtimestamp(file.stat().st_mtime).astimezone()

    @cached_property
    def times(self) -> pd.DataFrame:
        """The rows of submissions/times.csv."""
        file = self.path / "submissions" / "times.csv"
        columns = ["student", "assignment", "time"]
        return pd.read_csv(file, dtype=str) if file.exists() else pd.DataFrame(columns=columns, dtype=str)

    def lateness(self, student: str, master: Master) -> timedelta:
        """How late a student's work is; zero in time, or where nothing is due."""
        due, came = self.rules.due_of(master.name, student), self.handed_in(student, master)
        return max(came - due, timedelta()) if due and came else timedelta()

    def result_file(self, student: str, master: Master) -> Path:
        """Where a student's result is kept."""
        return self.path / "results" / master.name / f"{student}.json"

    def key(self, file: Path, master: Master) -> str:
        """What a result depends on: the notebook, the assignment, the seed and the code that grades."""
        digest = hashlib.sha256(grader().encode())
        for part in (file.read_bytes(), repr(master.notebook).encode(), self.seed.encode()):
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()


def grader() -> str:
    """A digest of the code that grades."""
    digest = hashlib.sha256()
    for folder in (ROOT / "tools" / "course", ROOT / "helpers" / "checks"):
        for file in sorted(folder.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def prepare(path: Path) -> Folder:
    """Make what a new folder lacks, the seed above all; what is there stays as it is.

    Raises:
        BadFolder: the folder lies in this repository, where its seed and marks would be published with the next commit.
    """
    if path.resolve().is_relative_to(ROOT):
        raise BadFolder(f"{path} lies in the repository, which is public: choose a folder outside of it")
    for name in ("assignments", "release", "submissions"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for name, content in (("course.toml", SETTINGS), ("roster.csv", EXAMPLE)):
        if not (path / name).exists():
            (path / name).write_text(content, encoding="utf8")
    seed = path / "seed"
    if not seed.exists():
        with os.fdopen(os.open(seed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf8") as file:
            file.write(secrets.token_hex(16) + "\n")
    return Folder(path)


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: who is killed meanwhile leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf8")
    part.replace(path)


def rows_of(path: Path) -> Any:
    """A table of texts; empty where there is no such file."""
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()
