"""The conventions of chapters, found in the notebooks without any list by hand; and that each check can fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from support.notebooks import code, markdown, write_notebook
from support.wrong_answers import WRONG_ANSWERS

from helpers.checks import available, verdict
from tools import lint, run_pages
from tools.cells import anchor
from tools.chapters import Chapter, Exercise, chapters, docstrings
from tools.project import ROOT, name_of, repository, requirements

CHAPTERS = chapters(ROOT)
EXERCISES = [exercise for chapter in CHAPTERS for exercise in chapter.exercises]
ALLOWED = set(map(name_of, requirements(ROOT)))
MIN_WRONG_ANSWERS = 3
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.number)


def test_the_chapters_keep_the_conventions() -> None:
    assert CHAPTERS
    assert lint.problems(ROOT, repository(ROOT), ALLOWED) == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)
def test_a_chapter_is_a_valid_notebook(chapter: Chapter) -> None:
    nbformat.validate(chapter.raw)
    assert (chapter.raw["nbformat"], chapter.raw["nbformat_minor"]) == (4, 5)


def test_every_notebook_of_the_book_is_in_the_contents() -> None:
    there = {path.stem for path in (ROOT / "book").glob("ch*.ipynb")}
    assert there == {chapter.name for chapter in CHAPTERS}


@pytest.mark.book
def test_every_claim_was_checked_in_the_built_site_and_held(site: Path) -> None:
    rows = run_pages.read_log(run_pages.run_dir(ROOT) / "claims.jsonl")
    assert all(row["holds"] for row in rows)
    assert {row["id"] for row in rows} == {claim.id for chapter in CHAPTERS for claim in chapter.claims}
    page = (site / "book" / "appendix" / "claims.html").read_text(encoding="utf8")
    assert [row["id"] for row in rows if row["id"] not in page] == []


@pytest.mark.book
def test_every_chapter_keeps_its_budget(site: Path, tmp_path: Path) -> None:
    costs = run_pages.costs(ROOT)
    assert set(costs) == {chapter.name for chapter in CHAPTERS}
    memory = {name: row["peak_bytes"] or 0 for name, row in costs.items()}
    assert {name: peak for name, peak in memory.items() if peak > run_pages.BUDGET_BYTES} == {}
    if os.environ.get("CI"):  # elsewhere the time says as much about the machine
        slow = [chapter for chapter in CHAPTERS if costs[chapter.name]["cpu_seconds"] > run_pages.BUDGET_SECONDS]
        # Even processor time grows when cores are shared, so a slow page may show a second time what it takes.
        assert all(run.passed for run in run_pages.run_pages(tmp_path, slow, run_pages.run_dir(ROOT) / "packages"))
        again = {name: row["cpu_seconds"] for name, row in run_pages.costs(tmp_path).items()}
        assert {name: seconds for name, seconds in again.items() if seconds > run_pages.BUDGET_SECONDS} == {}


@pytest.mark.book
def test_every_chapter_ran_with_the_wheel(site: Path) -> None:
    packages = run_pages.run_dir(ROOT) / "packages"
    outside = [
        row["notebook"] for row in run_pages.costs(ROOT).values() if not row["helpers"].startswith(str(packages))
    ]
    assert outside == []


def namespace(exercise: Exercise, source: str) -> dict[str, Any]:
    """What a reader has who ran only the imports cell and then `source`."""
    chapter = next(chapter for chapter in CHAPTERS if chapter.name == exercise.chapter)
    names: dict[str, Any] = {}
    exec(chapter.imports.source, names)
    exec(source, names)
    return names


@each_exercise
def test_the_stub_is_still_to_do(exercise: Exercise) -> None:
    judged = verdict(exercise.number, eval(exercise.answer, namespace(exercise, exercise.stub)))
    assert judged.status == "todo"
    assert judged.message.strip()


NUMPYS = {int: np.int64, float: np.longdouble, bool: np.bool_}  # numpy's usual float is one of Python's


def in_numpys_numbers(answer: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    """The same answer with numpy's numbers in place of Python's, which are noted."""

    def numpys(value: Any) -> Any:
        if type(value) in NUMPYS:
            seen.append(value)
            return NUMPYS[type(value)](value)
        if type(value) is dict:
            return {key: numpys(entry) for key, entry in value.items()}
        return type(value)(map(numpys, value)) if type(value) in (tuple, list) else value

    return lambda *arguments, **options: numpys(answer(*arguments, **options))


@each_exercise
def test_the_shown_solution_is_right_also_in_numpys_numbers(exercise: Exercise) -> None:
    answer, numbers = eval(exercise.answer, namespace(exercise, exercise.solution_code)), []
    judged = verdict(exercise.number, in_numpys_numbers(answer, numbers))
    assert judged.status == "right", judged.message
    if numbers:  # of Python's own
        judged = verdict(exercise.number, answer)
        assert judged.status == "right", judged.message


def test_a_solution_that_no_longer_passes_is_caught() -> None:
    exercise = EXERCISES[0]
    broken = replace(exercise, solution=f"```python\n{exercise.stub}\n```")
    with pytest.raises(AssertionError, match="still to do"):
        test_the_shown_solution_is_right_also_in_numpys_numbers(broken)


@each_exercise
def test_wrong_answers_are_refused_with_a_message(exercise: Exercise) -> None:
    answers = WRONG_ANSWERS.get(exercise.number, [])
    assert len(answers) >= MIN_WRONG_ANSWERS
    verdicts = [verdict(exercise.number, answer) for answer in answers]
    assert [judged.status for judged in verdicts] == ["wrong"] * len(answers)
    assert all(judged.message.strip() for judged in verdicts)


def test_checks_and_wrong_answers_belong_to_exercises() -> None:
    numbers = [exercise.number for exercise in EXERCISES]
    assert len(numbers) == len(set(numbers))
    assert sorted(available()) == sorted(numbers)
    assert sorted(WRONG_ANSWERS) == sorted(numbers)


# Below: a chapter that is right, and what each check says about it with one fault planted.

URL = "https://github.com/owner/name"
SETUP = f'import sys\n\nif "google.colab" in sys.modules:\n    %pip install --no-deps "git+{URL}"'
STUB = 'def f(x):\n    raise NotImplementedError("return x")\n\n\ncheck("1.1", f)'
SOLUTION = "```python\n# the same\ndef f(x):\n    return x\n```"
HINT = "<details><summary>Hint</summary>\n\nx\n\n</details>"
ABOUT = {"mystnb": {"image": {"alt": "a"}, "figure": {"name": "fig-a", "caption": "c"}}}
DOCS = {"helpers.m.f": "Computes eq-one.", "helpers.m.g": "Computes eq-two."}


def right_cells() -> list[dict[str, Any]]:
    """The cells of a chapter without a fault."""
    maths = (
        "## How?\n\n$$a$$ (eq-one)\n\nImplemented by `helpers.m.f`.\n\n$$b$$ (eq-two)\n\nimplemented by `helpers.m.g`"
    )
    folded = f"{HINT}\n\n<details><summary>Solution</summary>\n\n{SOLUTION}\n\n</details>"
    return [
        markdown("# Why?"),
        code(SETUP),
        code("import torch\n\nfrom helpers import plots", "imports"),
        markdown(maths),
        code("plots.images(torch.ones(1, 2, 2))", "hide-input", **ABOUT),
        code('claim("one-is-one", 1, equals=1, text="one is one")', "hide-input"),
        code("widgets.pick(torch)", "remove-output"),
        markdown("### Exercise 1.1 (build): the same"),
        code(STUB),
        markdown(folded),
    ]


def problems_of(tmp_path: Path, *chapters_cells: list[dict[str, Any]]) -> list[str]:
    """What all checks say about chapters made of the given cells."""
    (tmp_path / "book").mkdir()
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "m.py").write_text("".join(f'def {n[-1]}():\n    "{d}"\n' for n, d in DOCS.items()))
    names = [f"book/ch{index:02d}_made" for index, _ in enumerate(chapters_cells, 1)]
    (tmp_path / "_toc.yml").write_text("root: book/index\n" + "".join(f"  - file: {name}\n" for name in names))
    for name, cells in zip(names, chapters_cells, strict=True):
        write_notebook(tmp_path / f"{name}.ipynb", cells)
    return lint.problems(tmp_path, URL, {"torch"})


def test_a_right_chapter_has_no_problems(tmp_path: Path) -> None:
    assert problems_of(tmp_path, right_cells()) == []


MATHS = "$$a$$ (eq-one) implemented by `helpers.m.{}`"
ONE = 'claim("a", 1, equals=1, text="t")'
FAULTS = {  # the cell, what is changed in it, and what is said; a text alone is another source
    "a stored output": (4, {"outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}]}, "stored output"),
    "an execution count": (4, {"execution_count": 3}, "execution count"),
    "a setup cell of another place": (1, SETUP.replace("owner", "other"), "does not install from"),
    "a setup cell with dependencies": (1, SETUP.replace("--no-deps ", ""), "setup cell installs with dependencies"),
    "a setup cell that replaces torch": (1, SETUP.replace("git+", "torch git+"), "more than the book's package"),
    "a setup cell that upgrades": (1, SETUP.replace("--no-deps", "--no-deps -U"), "more than the book's package"),
    "a long setup cell": (1, SETUP + "\nprint(1)" * 9, "setup cell has more than 12 lines"),
    "no imports cell": (2, {"metadata": {}}, "no cell is tagged imports"),
    "an import from elsewhere": (2, "import numba", "imports numba"),
    "an import of experiments": (2, "from helpers.experiments import licnn", "imports helpers.experiments"),
    "an import of experiments as a name": (2, "from helpers import experiments", "imports helpers.experim"),
    "experiments imported whole": (2, "import helpers.experiments.licnn as l", "imports helpers.experiments"),
    "no alt text": (4, {"metadata": {"mystnb": {"figure": ABOUT["mystnb"]["figure"]}}}, "draws without alt text"),
    "no caption": (4, {"metadata": {"mystnb": {"image": {"alt": "a"}, "figure": {"name": "n"}}}}, "a figure caption"),
    "a plot that is not folded": (4, {"metadata": ABOUT}, "a plot without the tag hide-input"),
    "a claim that is not folded": (5, {"metadata": {}}, "a claim without the tag hide-input"),
    "a table that is not folded": (2, "table([(1,)], ['a'])", "a table without the tag hide-input"),
    "a claim beside other code": (5, f"b = 1\n{ONE}", "a claim in a cell with other code"),
    "a claim in other code": (5, f"for _ in range(1):\n    {ONE}", "a claim in a cell with other code"),
    "a widget on the page": (6, {"metadata": {}}, "without the tag remove-output"),
    "an equation without a function": (
        3, "$$a$$ (eq-one) and $$b$$ (eq-two) implemented by `helpers.m.g`", "eq-one: the text after it does not say",
    ),
    "an equation of no function": (3, MATHS.format("none"), "there is no helpers.m.none"),
    "an equation of another function": (3, MATHS.format("g"), "docstring of helpers.m.g does not name it"),
    "a docstring of no equation": (3, MATHS.format("f"), "names eq-two, which no chapter has"),
    "a work that is not known": (3, "Nobody and others (1900) say", "references.bib is Nobody and others (1900)"),
    "a function that is not there": (3, "as `m.gone` does", "`m.gone` is not in helpers"),
    "a figure's number": (3, "see figure 3.2", "'figure 3.2' is typed, not a reference"),
    "a claim without a bound": (5, 'claim("a", 1, text="t")', "lacks a bound"),
    "a claim without a text": (5, 'claim("a", 1, equals=1)', "lacks a text"),
    "a claim with a made-up id": (5, 'claim(f"a{1}", 1, equals=1, text="t")', "lacks an id"),
    "a claim made twice": (5, f"{ONE}\n{ONE}\n", "claim a stands 2 times"),
    "a stub without a message": (8, STUB.replace('"return x"', ""), "lacks raise NotImplementedError"),
    "a stub without a check": (8, STUB.replace("check", "print"), "lacks a cell that ends in check"),
    "a check of another exercise": (8, STUB.replace("1.1", "1.2"), "under its own number"),
    "no hint": (9, f"<details><summary>Solution</summary>\n\n{SOLUTION}\n</details>", "lacks a folded hint"),
    "no solution": (9, HINT, "lacks a folded solution"),
    "two folded parts in one": (9, f"{HINT}\n{HINT}", "two folded parts without an empty line"),
    "a heading of another form": (7, "### Exercise 1.1", "1 checks, but 0 headings"),
    "a long cell": (5, "x = 1\n" * 26, "26 lines, 25 at most"),
    "a wide cell": (5, "x = " + "1" * 85, "more than 88 columns"),
    "no cell id": (0, {"id": None}, "no id"),
    "a cell id used twice": (0, {"id": "cell-1"}, "cell id cell-1 stands 2 times"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault: str, tmp_path: Path) -> None:
    index, change, reason = FAULTS[fault]
    cells = right_cells()
    cells[index] |= {"source": change} if isinstance(change, str) else change
    problems = problems_of(tmp_path, cells)
    assert any(reason in line for line in problems), problems


def test_a_setup_cell_changed_in_one_chapter_is_named(tmp_path: Path) -> None:
    first, second, third = ([cell for i, cell in enumerate(right_cells()) if i < 3] for _ in range(3))
    second[1]["source"] += "\nprint(sys.version)"
    problems = problems_of(tmp_path, first, second, third)
    assert [line for line in problems if "setup" in line] == [
        "ch02_made: its setup cell differs from that of the other chapters"
    ]


def test_a_figure_name_used_in_two_chapters_is_named(tmp_path: Path) -> None:
    cells = [cell for i, cell in enumerate(right_cells()) if i in (0, 1, 2, 4)]
    assert "figure fig-a stands 2 times" in problems_of(tmp_path, cells, cells)


def test_what_is_kept_on_purpose_is_not_a_problem(tmp_path: Path) -> None:
    cells = right_cells()
    output = {"output_type": "stream", "name": "stdout", "text": "1"}
    cells[5] |= {"outputs": [output], "execution_count": 1, "metadata": {"tags": ["keep_output", "hide-input"]}}
    assert problems_of(tmp_path, cells) == []


def test_exercises_are_read_part_by_part(tmp_path: Path) -> None:
    cells = [
        *right_cells(),
        markdown("## Next\n\n<details><summary>Solution</summary>\n\n```python\n1 / 0\n```\n</details>"),
    ]
    write_notebook(tmp_path / "ch01_made.ipynb", cells)
    (exercise,) = Chapter(tmp_path / "ch01_made.ipynb").exercises
    assert (exercise.number, exercise.kind, exercise.title) == ("1.1", "build", "the same")
    assert (exercise.name, exercise.answer, exercise.hints) == ("1.1", "f", ("x",))
    assert exercise.solution_code == "# the same\ndef f(x):\n    return x\n"
    assert "check" not in exercise.stub


def test_anchors_are_those_of_github() -> None:
    assert anchor("Can `F.conv2d` *see* what $x_0$ is, here?") == "can-fconv2d-see-what--is-here"
    assert anchor("What `best_device` returns") == "what-best_device-returns"


def test_docstrings_are_found_under_a_packages_own_name_too() -> None:
    docs = docstrings(ROOT)
    assert docs["helpers.checks.verdict"].startswith("Judge an answer")
    assert "helpers.device.best_device" in docs
    assert docs["helpers.saliency.occlusion"].startswith("Occlusion maps")  # handed on from another package
