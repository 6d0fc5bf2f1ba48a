"""The course from the command line: `python -m tools.course COMMAND FOLDER [ASSIGNMENT ...]`.

FOLDER is the teacher's own and stays private; `release` makes it. An assignment is named as its file, or by its number,
such as a1; none means all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tools.course import batch, feedback, gradebook, marks, sandbox
from tools.course.folder import BadFolder, Folder, prepare, write_whole
from tools.course.master import BadMaster, Master, release
from tools.run_pages import workers


def results_of(folder: Folder, master: Master) -> dict[str, dict[str, Any]]:
    """The results that are there, by student in the roster's order."""
    found = {student: batch.result(folder, student, master) for student in folder.roster["id"]}
    return {student: result for student, result in found.items() if result is not None}


def do_release(options: argparse.Namespace) -> int:
    """Write what students get."""
    folder = prepare(options.folder)
    for master in folder.choose(options.assignments):
        text = json.dumps(release(master), indent=1, ensure_ascii=False) + "\n"
        write_whole(folder.path / "release" / f"{master.name}.ipynb", text)
        counts = f"{len(master.tasks)} tasks and {len(master.written)} written"
        print(f"  release/{master.name}.ipynb: {master.worth:g} points, {counts}")
    print(f"Your folder is {folder.path}. Give students what is in release/, and keep the rest, the seed above all.")
    return 0


def do_grade(options: argparse.Namespace) -> int:
    """Grade what was handed in; 1 when something could not be graded."""
    folder = Folder(options.folder)
    kind = sandbox.choose(options.sandbox)
    chosen, students = folder.choose(options.assignments), options.student or list(folder.roster["id"])
    check_students(folder, students)
    if options.task:
        chosen = [master for master in chosen if options.task in [task.number for task in master.tasks]]
        if not chosen:
            raise BadFolder(f"no assignment that was named has a task {options.task}")
    works = list(batch.to_do(folder, chosen, students, kind, options.task or "", options.again))
    print(f"{len(works)} to grade, {options.workers} at once, each in a sandbox of {kind}.", flush=True)
    start = time.monotonic()

    def say(done: int, work: batch.Work, result: dict[str, Any]) -> None:
        worth = sum(task.worth for task in work.master.tasks)
        said = "could not be graded" if "failed" in result else f"{result['points']:g} of {worth:g}"
        print(
            f"  {done}/{len(works)} {work.master.name} {work.student}: {said} ({time.monotonic() - start:.0f} s)",
            flush=True,
        )

    batch.grade(folder, works, options.workers, say)
    return summarise(folder, chosen)


def check_students(folder: Folder, students: list[str]) -> None:
    """Refuse ids that are not in the roster, and say whose folders are not."""
    unknown = [student for student in students if student not in folder.roster.index]
    if unknown:
        raise BadFolder(f"not in roster.csv: {', '.join(unknown)}")
    there = folder.path / "submissions"
    strangers = (
        [p.name for p in sorted(there.iterdir()) if p.is_dir() and p.name not in folder.roster.index]
        if there.exists()
        else []
    )
    if strangers:
        print(f"Not in roster.csv, so not graded: {', '.join(strangers)}")


def summarise(folder: Folder, chosen: list[Master]) -> int:
    """Say what is graded, what is not, and what people should look at."""
    trouble = 0
    for master in chosen:
        results = results_of(folder, master)
        missing = [student for student in folder.roster["id"] if folder.submission(student, master) is None]
        unmarked = marks.update(folder, master, results)
        bad = [student for student, result in results.items() if "failed" in result]
        trouble += len(bad)
        print(f"{master.name}: {len(results)} graded, {len(missing)} not handed in")
        if unmarked:
            print(f"  marks/{master.name}.csv: {unmarked} written answers wait for marks, 0 to 2 each")
        for student in bad:
            print(f"  could not be graded: {student}; results/{master.name}/{student}.json says why")
        for student, result in results.items():
            for name, original in result["copied"].items():
                print(f"  to look at: `{name}` of {student} is nearly {original}")
    return 1 if trouble else 0


def do_feedback(options: argparse.Namespace) -> int:
    """Write the students' pages."""
    folder = Folder(options.folder)
    pages = sum(
        feedback.write(folder, master, results_of(folder, master)) for master in folder.choose(options.assignments)
    )
    print(f"{pages} pages in {folder.path / 'feedback'}, a folder for each student")
    return 0


def do_export(options: argparse.Namespace) -> int:
    """Write the gradebooks."""
    folder = Folder(options.folder)
    chosen = folder.choose(options.assignments)
    for master in chosen:
        marks.update(folder, master, results_of(folder, master))
    if not options.assignments:  # what nobody was set is no column
        chosen = [master for master in chosen if any(folder.submission(s, master) for s in folder.roster["id"])]
    if not chosen:
        raise BadFolder("nothing was handed in yet")
    table = gradebook.export(folder, chosen)["all"]
    print(f"{len(table)} rows in gradebook/all.csv; canvas.csv, moodle.csv and gradescope.csv lie beside it")
    waiting = int((table["automatic"].notna() & table["points"].isna()).sum())
    if waiting:
        print(f"{waiting} have no points yet: their written answers wait for marks (marks/)")
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="python -m tools.course", description=(__doc__ or "").split("\n\n")[1])
    commands = top.add_subparsers(dest="command", required=True)
    for name, run in (("release", do_release), ("grade", do_grade), ("feedback", do_feedback), ("export", do_export)):
        command = commands.add_parser(name, help=(run.__doc__ or "").rstrip("."), description=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("folder", type=Path, help="your private folder")
        command.add_argument("assignments", nargs="*", help="names or numbers, such as a1; all when left out")
        if name == "grade":
            command.add_argument("--student", action="append", help="only this one; may be given several times")
            command.add_argument("--task", help="only this task, such as a1.2: a regrading of one question")
            command.add_argument("--again", action="store_true", help="also what has a result already")
            command.add_argument("--sandbox", choices=sandbox.KINDS, help="how students' code is kept apart")
            command.add_argument("--workers", type=int, default=workers(), help="submissions at once")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when all went well, 1 when something could not be graded, 2 when something is missing."""
    options = parser().parse_args(arguments)
    try:
        if options.command != "release" and not options.folder.is_dir():
            raise BadFolder(f"there is no folder {options.folder}; `release` makes one")
        if getattr(options, "workers", 1) < 1:
            raise BadFolder(f"workers must be at least 1, got {options.workers}")
        return options.run(options)
    except (BadFolder, BadMaster, sandbox.NoSandbox) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
