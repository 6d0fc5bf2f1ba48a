"""The course as a teacher runs it: releases, batches that are killed, marks, feedback, gradebooks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.submissions import A0, body, solved, write

from helpers.checks.course import close, own, points
from tools.course import __main__ as course
from tools.course import batch, feedback, gradebook, judge, marks
from tools.course.folder import BadFolder, Folder, Late, prepare
from tools.course.master import (
    CRITERIA,
    MARKS,
    STUB,
    WRITTEN_STUB,
    BadMaster,
    Master,
    masters,
    read,
    release,
    role,
    source_of,
)
from tools.project import ROOT

MASTERS = masters(ROOT / "book" / "assignments")
COURSE = [master for master in MASTERS if master.number not in ("a0", "p1")]
by_name = pytest.mark.parametrize("master", MASTERS, ids=lambda master: master.name)


@by_name
def test_a_release_holds_no_solution_no_hidden_test_and_no_output(master: Master) -> None:
    text = "\n".join(source_of(cell) for cell in release(master)["cells"])
    assert MARKS.search(text) is None
    open_lines, inside = {STUB, WRITTEN_STUB, ""}, False
    for cell in master.cells:
        for line in map(str.strip, source_of(cell).splitlines()):
            inside = (inside or line.startswith("### BEGIN")) and not line.startswith("### END")
            if not inside and MARKS.match(line) is None and role(cell) != "written":
                open_lines.add(line)
    assert {line.strip() for line in text.splitlines()} - open_lines == set()
    for cell, kept in zip(master.cells, release(master)["cells"], strict=True):
        if role(cell) == "written":
            assert source_of(cell).strip() not in text
        assert not kept.get("outputs")
        assert kept.get("execution_count") is None


@by_name
def test_a_master_has_no_outputs_and_the_points_of_the_course(master: Master) -> None:
    assert [cell for cell in master.cells if cell.get("outputs") or cell.get("execution_count")] == []
    worth = (sum(task.worth for task in master.tasks), sum(part.worth for part in master.written))
    assert worth == {"a0": (8, 2), "p1": (0, 40)}.get(master.number, (14, 6))


def test_there_are_seven_assignments_and_a_project() -> None:
    assert [master.number for master in MASTERS] == ["a0", *(f"a{n}" for n in range(1, 8)), "p1"]


@pytest.mark.slow
@pytest.mark.parametrize("master", COURSE, ids=lambda master: master.name)
def test_the_solutions_get_everything_and_the_release_nothing(master: Master, kind: str, tmp_path: Path) -> None:
    with judge.processes(kind, 2, master) as child:
        right = judge.grade(write(solved(master), tmp_path / "right.ipynb"), master, "bob-42", "seed", child)
        assert right["points"] == 14, json.dumps(right["tasks"], indent=1)
        empty = judge.grade(write(release(master), tmp_path / "empty.ipynb"), master, "ada", "seed", child)
        assert empty["points"] == 0
        assert {task["status"] for task in empty["tasks"].values()} == {"todo"}


ROSTER = "id,first,last,email,section,canvas_id\n" + "".join(
    f'{name},{name.title()},"O\'{name.title()}, Jr.",{name}@example.org,{1 + n % 2},{10 + n}\n'
    for n, name in enumerate(("ada", "bob", "cyd", "dan"))
)


def a_course(path: Path) -> Folder:
    """A folder with a good, an unlucky and a broken submission, and one that is missing."""
    folder = prepare(path)
    (path / "roster.csv").write_text(ROSTER, encoding="utf8")
    write(solved(), path / "submissions" / "ada" / "Copy of a0_demo (1).ipynb")
    write(body("return maps.nothing"), path / "submissions" / "bob" / "a0_demo.ipynb")
    write("not even JSON", path / "submissions" / "cyd" / "a0_demo.ipynb")
    return folder


@pytest.fixture(scope="module")
def graded(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder after `release`, and a `grade` that was killed once."""
    folder = a_course(tmp_path_factory.mktemp("course"))
    command = [
        sys.executable,
        "-m",
        "tools.course",
        "grade",
        str(folder.path),
        "a0",
        "--workers",
        "1",
        "--sandbox",
        kind,
    ]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 240
    while not any(folder.path.glob("results/*/*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = {path.name: path.stat().st_mtime_ns for path in folder.path.glob("results/*/*.json")}
    assert 1 <= len(before) < 3
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{3 - len(before)} to grade, 1 at once, each in a sandbox of {kind}." in done.stdout
    assert all(
        (folder.path / "results/a0_demo" / name).stat().st_mtime_ns == time_ns for name, time_ns in before.items()
    )
    return Folder(folder.path)


def test_a_batch_goes_on_after_a_kill_and_nothing_is_lost(graded: Folder) -> None:
    found = {student: batch.result(graded, student, A0) for student in graded.roster["id"]}
    assert {student: result and result["points"] for student, result in found.items()} == {
        "ada": 8, "bob": found["bob"]["tasks"]["a0.2"]["points"], "cyd": 0, "dan": None,
    }  # fmt: skip
    assert list(batch.to_do(graded, [A0], list(graded.roster["id"]), "none", "", again=False)) == []


def test_another_notebook_is_graded_again_and_one_task_alone_where_asked(graded: Folder, monkeypatch: Any) -> None:
    work = next(batch.to_do(graded, [A0], ["ada"], "none", "a0.1", again=False))
    before = batch.result(graded, "ada", A0)
    made = json.loads(json.dumps(before))
    made["tasks"] = {"a0.1": before["tasks"]["a0.1"] | {"points": 2.0}}
    kept = batch.keep(graded, work, made)
    assert kept["points"] == 6.0
    assert kept["tasks"]["a0.2"] == before["tasks"]["a0.2"]
    batch.keep(graded, next(batch.to_do(graded, [A0], ["ada"], "none", "", again=True)), before)
    assert batch.result(graded, "ada", A0)["points"] == 8
    graded.result_file("ada", A0).with_name("bob.json").write_text("{", encoding="utf8")
    assert [w.student for w in batch.to_do(graded, [A0], list(graded.roster["id"]), "none", "", again=False)] == ["bob"]


def test_an_error_of_the_grader_is_a_result_and_stops_nothing(graded: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    work = next(batch.to_do(graded, [A0], ["ada"], "none", "", again=True))
    monkeypatch.setattr(judge, "grade", lambda *args, **options: 1 / 0)
    assert "ZeroDivisionError" in batch.graded(work)["failed"]


def test_marks_join_the_points_and_the_gradebooks_have_the_documented_columns(graded: Folder) -> None:
    results = {s: r for s in graded.roster["id"] if (r := batch.result(graded, s, A0)) is not None}
    marks.update(graded, A0, results)
    file = marks.file_of(graded, A0)
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.loc[table["student"] == "ada", list(CRITERIA)] = ["2", "1", "1,5"]
    table.loc[table["student"] == "ada", "comment"] = "Say <b>how many</b>."
    table.to_csv(file, index=False)
    marks.update(graded, A0, results)  # keeps what people wrote
    assert marks.read(graded, A0)["ada", "a0.3"] == (1.5, "Say <b>how many</b>.")

    tables = gradebook.export(graded, [A0])
    row = tables["all"].set_index("student").loc["ada"]
    assert (row["automatic"], row["written"], row["points"], row["worth"]) == (8, 1.5, 9.5, 10)
    canvas = pd.read_csv(graded.path / "gradebook" / "canvas.csv", dtype=str, keep_default_na=False)
    assert list(canvas) == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "a0_demo"]
    assert canvas.iloc[0].tolist() == ["    Points Possible", "", "", "", "", "10.0"]
    assert canvas.iloc[1].tolist() == ["O'Ada, Jr., Ada", "10", "ada", "ada@example.org", "1", "9.5"]
    assert canvas["a0_demo"].tolist()[3:] == ["", ""]  # not marked, not handed in: no zero by mistake
    moodle = pd.read_csv(graded.path / "gradebook" / "moodle.csv", dtype=str, keep_default_na=False)
    names = ["First name", "Last name", "ID number", "Email address", "a0_demo (Real)", "a0_demo (Feedback)"]
    assert list(moodle) == names
    assert moodle["a0_demo (Feedback)"].tolist()[0] == "tests 8, written 1.5"
    assert moodle["a0_demo (Feedback)"].tolist()[3] == "not handed in"
    scope = pd.read_csv(graded.path / "gradebook" / "gradescope.csv", dtype=str, keep_default_na=False)
    assert list(scope) == [
        *("First Name", "Last Name", "SID", "Email", "Sections", "a0_demo", "a0_demo - Max Points"),
        *("a0_demo - Submission Time", "a0_demo - Lateness (H:M:S)"),
    ]


def test_marks_that_are_none_are_said(graded: Folder) -> None:
    file = marks.file_of(graded, A0)
    before = file.read_text(encoding="utf8")
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.loc[table["student"] == "bob", list(CRITERIA)] = ["3", "1", "good"]
    table.to_csv(file, index=False)
    with pytest.raises(
        BadFolder, match=r"marks/a0_demo.csv, bob, a0.3: marks must be numbers in 0 .. 2, got 3, 1, good"
    ):
        marks.read(graded, A0)
    file.write_text(before, encoding="utf8")


def test_a_students_page_needs_nothing_else_and_shows_no_hidden_code(graded: Folder) -> None:
    results = {s: r for s in graded.roster["id"] if (r := batch.result(graded, s, A0)) is not None}
    assert feedback.write(graded, A0, results) == len(results)
    page = (graded.path / "feedback" / "ada" / "a0_demo.html").read_text(encoding="utf8")
    assert not re.search(r"https?://|<script|src=|url\(", page)
    for task in A0.tasks:
        assert not any(line.strip() in page for line in task.hidden.splitlines() if len(line.strip()) > 20)
    assert "a0.1: 4 of 4" in page
    assert graded.seed not in page


def test_what_a_student_wrote_is_text_in_the_page_and_in_the_table(tmp_path: Path) -> None:
    folder = a_course(tmp_path)
    said = '=HYPERLINK("x")<script>alert(1)</script>'
    result = {"tasks": {}, "written": {"a0.3": said}, "notes": ["<img>"], "copied": {}, "points": 0.0}
    page = feedback.page(folder, A0, "<ada>", result, {})
    assert "<script>" not in page
    assert "<img>" not in page
    assert "&lt;script&gt;" in page
    marks.update(folder, A0, {"ada": result})
    assert pd.read_csv(marks.file_of(folder, A0))["answer"].iloc[0] == f"'{said}"


def test_lateness_takes_a_share_for_each_day_begun() -> None:
    rule = Late(free_hours=2, percent_a_day=10, most_days=3)
    hours = {0: 1.0, 2: 1.0, 2.5: 0.9, 26: 0.9, 27: 0.8, 74: 0.7, 75: 0.0}
    assert {h: pytest.approx(rule.factor(timedelta(hours=h))) for h in hours} == hours


def test_lateness_and_extensions_are_read_from_the_folder(tmp_path: Path) -> None:
    folder = a_course(tmp_path)
    due = "2026-01-10T12:00:00+00:00"
    settings = f"[due]\na0_demo = {due}\n[extensions.bob]\na0_demo = 2026-01-12T12:00:00+00:00\n"
    (tmp_path / "course.toml").write_text(settings, encoding="utf8")
    times = "student,assignment,time\n" + "".join(f"{s},a0_demo,2026-01-11T13:00:00+00:00\n" for s in ("ada", "bob"))
    (tmp_path / "submissions" / "times.csv").write_text(times, encoding="utf8")
    assert folder.lateness("ada", A0) == timedelta(hours=25)
    assert folder.lateness("bob", A0) == timedelta()
    assert folder.lateness("dan", A0) == timedelta()  # nothing came
    (tmp_path / "course.toml").write_text("due = 3 =", encoding="utf8")
    with pytest.raises(BadFolder, match=r"course\.toml"):
        _ = Folder(tmp_path).rules


@pytest.mark.parametrize(
    ("roster", "said"),
    [
        ("id,first,last\nada,A,B\n", "email is missing"),
        ("id,first,last,email\nada,A,B,c\nada,C,D,e\n", r"\['ada'\] stands twice"),
        (None, "there is no roster.csv"),
    ],
)
def test_a_roster_that_will_not_do_is_said(roster: str | None, said: str, tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    (tmp_path / "roster.csv").unlink()
    if roster is not None:
        (tmp_path / "roster.csv").write_text(roster, encoding="utf8")
    with pytest.raises(BadFolder, match=said):
        _ = folder.roster


def test_a_folder_is_made_once_and_its_seed_is_for_its_owner(tmp_path: Path, capsys: Any) -> None:
    assert course.main(["release", str(tmp_path / "mine"), "a0"]) == 0
    seed = tmp_path / "mine" / "seed"
    content = seed.read_text(encoding="utf8")
    assert len(content.strip()) == 32
    assert seed.stat().st_mode & 0o077 == 0
    assert course.main(["release", str(tmp_path / "mine"), "a0"]) == 0
    assert seed.read_text(encoding="utf8") == content
    assert [path.name for path in (tmp_path / "mine" / "release").iterdir()] == ["a0_demo.ipynb"]
    assert course.main(["release", str(tmp_path / "mine"), "a9"]) == 2
    assert "there is no assignment a9; there are a0_demo" in capsys.readouterr().err
    assert course.main(["grade", str(tmp_path / "nowhere")]) == 2
    assert course.main(["export", str(tmp_path / "mine")]) == 2
    assert "nothing was handed in yet" in capsys.readouterr().err


def test_an_assignment_of_ones_own_takes_the_place_of_the_books(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    text = json.dumps(A0.notebook).replace("Where is a map brightest?", "Mine")
    (tmp_path / "assignments" / "a0_demo.ipynb").write_text(text, encoding="utf8")
    (tmp_path / "assignments" / "a8_mine.ipynb").write_text(text.replace("a0", "a8"), encoding="utf8")
    assert "Mine" in json.dumps(folder.masters["a0_demo"].notebook)
    assert [task.number for task in folder.masters["a8_mine"].tasks] == ["a8.1", "a8.2"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('points(\\"a0.1\\"', 'points(\\"a0.2\\"', "must be a0.1, a0.2"),
        ("### END SOLUTION", "### END", "a mark without its pair"),
        ("def brightest", "def darkest", "no answer binds brightest"),
        ("brightest, 4, {", "brightest, 5, {", "5.0 points, but 4 for nbgrader"),
        ("### BEGIN HIDDEN TESTS", "", "there are no hidden tests"),
    ],
)
def test_a_master_that_could_not_be_graded_is_refused(before: str, after: str, said: str, tmp_path: Path) -> None:
    text = json.dumps(A0.notebook)
    assert before in text
    (tmp_path / "a0_demo.ipynb").write_text(text.replace(before, after), encoding="utf8")
    with pytest.raises(BadMaster, match=said):
        read(tmp_path / "a0_demo.ipynb")


def test_points_are_three_tenths_open_and_the_rest_in_equal_shares() -> None:
    def right(maps: Any) -> Any:
        import torch

        at = maps.flatten(1).argmax(1)
        return torch.stack([at % maps.shape[2], at // maps.shape[2]], 1)

    def fails() -> None:
        close(1.0, 2.0)

    assert points("a0.1", right, 4, {"x": lambda: None, "y": lambda: True}) == 4
    assert points("a0.1", right, 4, {"x": lambda: None, "y": lambda: False}) == pytest.approx(4 * 0.65)
    assert points("a0.1", right, 4, {"x": fails, "y": lambda: 1 / 0}) == pytest.approx(1.2)
    assert points("a0.1", lambda maps: None, 4, {"x": lambda: None}) == pytest.approx(2.8)


def test_a_students_numbers_are_the_same_everywhere_and_nobody_elses() -> None:
    draws = [
        own("ada", "a1.2").integers(2**40),
        own(" ada ", "a1.2").integers(2**40),
        own("bob", "a1.2").integers(2**40),
    ]
    assert draws[0] == draws[1] != draws[2]
    for unset in ("your id", "", None):
        with pytest.raises(ValueError, match="STUDENT must be your id"):
            own(unset, "a1.2")


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.skipif("CI" in os.environ and "CI_FULL" not in os.environ, reason="ten minutes alone: only with CI_FULL")
def test_two_hundred_submissions(kind: str, tmp_path: Path) -> None:
    """One in ten broken, killed once in between: every student has one result, the same as graded alone."""
    folder = prepare(tmp_path)
    names = [f"s{n:03d}" for n in range(200)]
    rows = "".join(f"{name},F,L,{name}@example.org\n" for name in names)
    (tmp_path / "roster.csv").write_text("id,first,last,email\n" + rows, encoding="utf8")
    for n, name in enumerate(names):
        notebook = "{" if n % 10 == 9 else solved() if n % 2 else body("return maps.nothing")
        write(notebook, tmp_path / "submissions" / name / "a0_demo.ipynb")
    command = [sys.executable, "-m", "tools.course", "grade", str(tmp_path), "a0", "--sandbox", kind]
    start = time.monotonic()
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(list(tmp_path.glob("results/*/*.json"))) < 60:
        time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert time.monotonic() - start < 30 * 60
    results = [batch.result(folder, name, A0) for name in names]
    assert all(results)
    got = [result["tasks"]["a0.1"]["points"] for result in results if result]
    assert got == [0 if n % 10 == 9 else 4 if n % 2 else 0 for n in range(200)]
    assert done.stdout.count(" a0_demo s") <= 140


def test_a_private_folder_lies_outside_of_the_public_repository() -> None:
    with pytest.raises(BadFolder, match="choose a folder outside of it"):
        prepare(ROOT / "book" / "mine")
    assert not (ROOT / "book" / "mine").exists()


def test_ids_of_students_name_no_other_folder(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    (tmp_path / "roster.csv").write_text("id,first,last,email\n../x,A,B,c\n", encoding="utf8")
    with pytest.raises(BadFolder, match=r"ids are letters, digits, and \. _ @ \+ -, got '\.\./x'"):
        _ = folder.roster


def test_answers_by_name_need_only_what_they_use(tmp_path: Path) -> None:
    from tools.course.answers import code_of, program

    cells = [{"cell_type": "code", "source": text} for text in (
        "import math, os\nfrom os import *\nwidth = 3\nheight = 4",
        "def area():\n    return width * math.pi",
        "width += 1\nheights = [height]\nheights.append(5)",
        "import torch\ntorch.manual_seed(0)\nprint(area())",
    )]  # fmt: skip
    code = program("area", code_of(cells), code_of([]), "ada")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["area"]() == pytest.approx(4 * 3.141592653589793)
    assert "heights" not in code
    assert "print" not in code
    assert names["STUDENT"] == "ada"
    assert "append" in program("heights", code_of(cells), code_of([]), "ada")
    assert program("nothing", code_of(cells), code_of([]), "ada") == ""


@pytest.mark.slow
def test_nbgrader_gives_honest_work_the_same_points(kind: str, tmp_path: Path) -> None:
    """Its own generate_assignment and autograde, on the demonstration assignment."""
    pytest.importorskip("nbgrader")
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()\nc.CourseDirectory.course_id = 'book'\n")
    variables = os.environ | {"COURSE_SEED": "seed", "PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it calls alembic

    def nbgrader(*command: str) -> None:
        run = [sys.executable, "-m", "nbgrader", *command]
        done = subprocess.run(run, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    write(A0.notebook, tmp_path / "source" / "a0_demo" / "a0_demo.ipynb")
    nbgrader("generate_assignment", "a0_demo")
    released = json.loads((tmp_path / "release" / "a0_demo" / "a0_demo.ipynb").read_text(encoding="utf8"))
    text = json.dumps(released)
    assert "HIDDEN" not in text
    assert "argmax" not in text
    mirrored = "return torch.stack([at // maps.shape[2], at % maps.shape[2]], 1)"
    half = f"def brightest(maps):\n    at = maps.flatten(1).argmax(1)\n    {mirrored}"
    answers = {"ada": None, "bob": half, "cyd": "def brightest(maps):\n    raise NotImplementedError"}
    for student, answer in answers.items():
        notebook = json.loads(text)
        for cell, master_cell in zip(notebook["cells"], A0.cells, strict=True):
            if role(master_cell) == "answer":
                own_answer = answer if answer and "brightest" in source_of(cell) else source_of(master_cell)
                cell["source"] = own_answer.replace("your id", student)
        write(notebook, tmp_path / "submitted" / student / "a0_demo" / "a0_demo.ipynb")
    nbgrader("autograde", "a0_demo", "--create")
    nbgrader("export", "--to=grades.csv")
    grades = pd.read_csv(tmp_path / "grades.csv").set_index("student_id")["raw_score"]
    with judge.processes(kind, 3, A0) as child:
        for student in answers:
            file = tmp_path / "submitted" / student / "a0_demo" / "a0_demo.ipynb"
            assert grades[student] == pytest.approx(judge.grade(file, A0, student, "seed", child)["points"]), student


def test_a_local_name_of_a_function_is_nobody_elses() -> None:
    from tools.course.answers import code_of, program

    def cell(source: str) -> dict[str, Any]:
        return {"cell_type": "code", "source": source}

    given = code_of([cell("def helper():\n    side = 3\n    side += 1\n    return side")])
    code = program("answer", code_of([cell("side = 7"), cell("def answer():\n    return side")]), given, "ada")
    assert "side = 7" in code
    counted = code_of([cell("n = 0"), cell("def f():\n    global n\n    n += 1\n    return n")])
    assert "n = 0" in program("f", counted, code_of([]), "ada")


def test_what_is_sent_comes_as_it_was() -> None:
    import numpy as np
    import torch
    from torch import nn

    from tools.course import wire

    torch.manual_seed(0)
    network = (
        nn.Sequential(nn.Conv2d(2, 3, (3, 1), padding="same", bias=False), nn.ReLU(), nn.Flatten()).double().eval()
    )
    there = wire.decode(wire.encode({"net": network, 1: [None, True, (2, 2.5, "x")], "t": torch.ones(2, 3).half().T}))
    assert there[1] == [None, True, (2, 2.5, "x")]
    assert there["t"].equal(torch.ones(3, 2).half())
    x = torch.rand(1, 2, 5, 4).double()
    torch.testing.assert_close(there["net"](x), network(x))
    assert isinstance(wire.decode(wire.encode(np.arange(3))), np.ndarray)
    for value in (object(), {1, 2}, b"x", 2**64, nn.Sequential(nn.LSTM(2, 2)), torch.eye(2).to_sparse()):
        with pytest.raises(wire.Unsendable):
            wire.encode(value)
    message = wire.encode([1, torch.ones(2)])
    for damaged in (message[:-1], message[:20] + b"x" + message[21:]):
        with pytest.raises(ValueError, match="a message"):
            wire.decode(damaged)
