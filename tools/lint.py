"""The conventions of chapters: each check takes chapters and returns what is wrong, one line a problem.

`problems` runs them all. Nothing is executed; what a chapter does when it runs is for `tools.book` and the tests.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections import Counter
from pathlib import Path

from tools.cells import Cell
from tools.chapters import EQUATION_LABEL, Chapter, chapters, docstrings
from tools.links import CODE, PROTECTED, WORK, Targets, targets

MAX_LINES = 25
MAX_COLUMNS = 88  # what the page shows without scrolling
MEDIAN_LINES = 6
SETUP_LINES = 12
TYPED = re.compile(r"\b(?:[Ff]igure|[Ff]ig\.|[Ee]quation) \(?\d+\.\d+")  # those of a source have no chapter
# The folder of `import NAME` where it is not the distribution's own name.
DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn", "PIL": "pillow", "IPython": "ipykernel"}
# These come with a dependency that cannot do without them, and `helpers` is what the chapters are about.
ALWAYS_ALLOWED = {"helpers", "pillow", "ipykernel"}


def stored_outputs(chapter: Chapter) -> list[str]:
    """Outputs and execution counts left in the file; a cell tagged keep_output may keep both."""
    stripped = [cell for cell in chapter.code if "keep_output" not in cell.tags]
    outputs = [f"{where(chapter, cell)}: stored output" for cell in stripped if cell.raw.get("outputs")]
    counts = [
        f"{where(chapter, cell)}: execution count" for cell in stripped if cell.raw.get("execution_count") is not None
    ]
    return outputs + counts


def setup_cells(all_chapters: list[Chapter], repository: str) -> list[str]:
    """A setup cell that is missing, that differs between chapters, or that installs from another repository."""
    lines, texts = [], Counter(chapter.setup.source for chapter in all_chapters if chapter.setup)
    usual = max(texts, key=lambda text: texts[text], default="")
    for chapter in all_chapters:
        if chapter.setup is None:
            lines.append(f"{chapter.name}: no setup cell")
        elif chapter.setup.source != usual:
            lines.append(f"{chapter.name}: its setup cell differs from that of the other chapters")
        elif f"git+{repository}" not in chapter.setup.source:
            lines.append(f"{chapter.name}: its setup cell does not install from {repository}")
        else:
            lines += [f"{chapter.name}: its setup cell {problem}" for problem in careless(chapter.setup.source)]
    return lines


def careless(setup: str) -> list[str]:
    """What a setup cell does that it should not: change what Colab has, or be long. Tests say what it does when run."""
    commands = [line for line in setup.splitlines() if re.search(r"[%!]\s*pip", line)]
    faults = {
        "installs with dependencies": any("--no-deps" not in line for line in commands),
        "installs more than the book's package": any(re.search(r"torch|numpy|\s-U\b|--upgrade", c) for c in commands),
        f"has more than {SETUP_LINES} lines": len(setup.splitlines()) > SETUP_LINES,
    }
    return [fault for fault, there in faults.items() if there]


def imports(chapter: Chapter, allowed: set[str]) -> list[str]:
    """A missing imports cell, and imports of what is neither standard library nor a dependency of `helpers`.

    Nor may a page import `helpers.experiments`: what an experiment has measured, a page reads from `helpers.results`.

    Args:
        chapter: the chapter.
        allowed: the names of the distributions that `helpers` depends on, in lower case.

    Returns:
        One line a problem.
    """
    lines = [] if chapter.imports else [f"{chapter.name}: no cell is tagged imports"]
    for cell in chapter.code:
        modules = imported(cell)
        if any(module.startswith("helpers.experiments") for module in modules):
            lines.append(f"{where(chapter, cell)}: imports helpers.experiments, which is not for pages")
        for module in sorted({module.split(".")[0] for module in modules} - sys.stdlib_module_names):
            if DISTRIBUTIONS.get(module, module).lower() not in allowed | ALWAYS_ALLOWED:
                lines.append(f"{where(chapter, cell)}: imports {module}, which helpers does not depend on")
    return lines


def imported(cell: Cell) -> set[str]:
    """The dotted names of what a cell imports, those of a package's names among them."""
    names: set[str] = set()
    for node in ast.walk(cell.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def figures(chapter: Chapter) -> list[str]:
    """Cells that draw without alt text, a name and a caption, and widgets whose output would be left on the page."""
    lines = []
    for cell in chapter.code:
        hidden = bool({"remove-output", "remove-cell"} & cell.tags)
        # An explorable lives without a kernel; any other widget would be dead on the page.
        if any("_explorable" not in ast.unparse(call.func) for call in cell.calls("widgets.")) and not hidden:
            lines.append(f"{where(chapter, cell)}: a widget without the tag remove-output")
        if not cell.calls("plots.") or hidden:
            continue
        about = cell.metadata.get("mystnb", {})
        parts = {"alt text": about.get("image", {}).get("alt")}
        parts |= {f"a figure {key}": about.get("figure", {}).get(key) for key in ("name", "caption")}
        lines += [f"{where(chapter, cell)}: draws without {part}" for part, text in parts.items() if not text]
    return lines


def folds(chapter: Chapter) -> list[str]:
    """Cells whose code the site should fold and does not, and claims that share a cell with what is not one.

    A claim, a plot and a table are folded, with the tag hide-input; one whose code teaches carries show-input instead.
    """
    lines = []
    for cell in chapter.code:
        if cell.kind and not {"hide-input", "show-input", "remove-output", "remove-cell"} & cell.tags:
            lines.append(f"{where(chapter, cell)}: a {cell.kind} without the tag hide-input (or show-input)")
        if cell.calls("claim") and set(cell.called) != {"claim"}:
            lines.append(f"{where(chapter, cell)}: a claim in a cell with other code")
    return lines


def unlinked(chapter: Chapter, targets: Targets, docs: dict[str, str]) -> list[str]:
    """What the prose names and the site cannot link: works, names of the package, numbers written by hand.

    Args:
        chapter: the chapter.
        targets: what can be linked, as `tools.links.targets` gives it.
        docs: the docstring of each function by dotted name, as `tools.chapters.docstrings` gives it.

    Returns:
        One line a problem.
    """
    lines, rooms = [], {name.split(".")[1] for name in docs}
    for cell in chapter.cells:
        if not cell.is_markdown:
            continue
        prose, place = PROTECTED.sub(" ", cell.source), where(chapter, cell)
        for work in WORK.finditer(prose):
            if work["others"] and not targets.work(work):
                lines.append(f"{place}: no one work in references.bib is {work[0]})")
        for code in (match["name"] for match in CODE.finditer(cell.source)):
            room = code.removeprefix("helpers.").split(".")[0]
            if "." in code and room in rooms and not {code, f"helpers.{code}"} & {*docs, f"helpers.{room}"}:
                lines.append(f"{place}: `{code}` is not in helpers")
        lines += [f"{place}: {typed[0]!r} is typed, not a reference" for typed in TYPED.finditer(prose)]
    return lines


def figure_names(all_chapters: list[Chapter]) -> list[str]:
    """Figure names that are used twice."""
    return repeated("figure", [name for chapter in all_chapters for name in chapter.figures.values()])


def equations(all_chapters: list[Chapter], docs: dict[str, str]) -> list[str]:
    """Labelled equations and docstrings that do not name each other.

    Args:
        all_chapters: the chapters.
        docs: the docstring of each function by dotted name, as `tools.chapters.docstrings` gives it.

    Returns:
        One line a problem.
    """
    labelled = [equation for chapter in all_chapters for equation in chapter.equations]
    lines = repeated("equation", [equation.label for equation in labelled])
    for equation in labelled:
        place = f"{equation.section.chapter}: equation {equation.label}"
        if not equation.functions:
            lines.append(f"{place}: the text after it does not say 'Implemented by `helpers.module.function`'")
        for name in equation.functions:
            if name not in docs:
                lines.append(f"{place}: there is no {name}")
            elif equation.label not in EQUATION_LABEL.findall(docs[name]):
                lines.append(f"{place}: the docstring of {name} does not name it")
    known = {equation.label for equation in labelled}
    for name, text in docs.items():
        unknown = sorted(set(EQUATION_LABEL.findall(text)) - known)
        lines += [f"{name}: its docstring names {label}, which no chapter has" for label in unknown]
    return lines


def exercises(chapter: Chapter) -> list[str]:
    """Exercises that lack a part: stub with a message, check of the same number, hint, solution with code."""
    lines = []
    for exercise in chapter.exercises:
        raised = re.search(r"raise NotImplementedError\((['\"]).+\1\)", exercise.stub)
        parts = {
            "a cell that ends in check(number, answer)": exercise.answer,
            f"check({exercise.number!r}, ...) under its own number": exercise.name == exercise.number,
            'raise NotImplementedError("what to do")': raised,
            "a folded hint": exercise.hints,
            "a folded solution with a python fence": exercise.solution_code,
        }
        lines += [
            f"{chapter.name}: exercise {exercise.number} lacks {part}" for part, there in parts.items() if not there
        ]
    lines += [
        f"{where(chapter, cell)}: two folded parts without an empty line between them, which JupyterLab would not fold"
        for cell in chapter.cells
        if cell.is_markdown and re.search(r"</details>[ ]*\n?<details", cell.source)
    ]
    checked = sum(len(cell.calls("check")) for cell in chapter.code)
    if checked != len(chapter.exercises):
        lines.append(
            f"{chapter.name}: {checked} checks, but {len(chapter.exercises)} headings '### Exercise N.M (kind): title'"
        )
    return lines


def claims(all_chapters: list[Chapter]) -> list[str]:
    """Claims without an id, a text (both as plain strings) or a bound, and ids used twice."""
    all_claims = [claim for chapter in all_chapters for claim in chapter.claims]
    lines = repeated("claim", [claim.id for claim in all_claims if claim.id])
    for claim in all_claims:
        parts = {"an id": claim.id, "a text": claim.text, "a bound": claim.bounds}
        place = f"{claim.section.chapter}: claim {claim.id or '?'}"
        lines += [f"{place} lacks {part}, written out" for part, there in parts.items() if not there]
    return lines


def cell_sizes(chapter: Chapter) -> list[str]:
    """Code cells that are too long (empty lines and comments do not count) or too wide (the setup cell may be)."""
    sizes = {cell.index: len(re.findall(r"(?m)^\s*[^#\s].*$", cell.source)) for cell in chapter.code}
    median = statistics.median(sizes.values()) if sizes else 0
    lines = [f"{chapter.name}, cell {i}: {n} lines, {MAX_LINES} at most" for i, n in sizes.items() if n > MAX_LINES]
    if median > MEDIAN_LINES:
        lines.append(f"{chapter.name}: the median code cell has {median} lines, {MEDIAN_LINES} at most")
    wide = [cell.index for cell in chapter.code[1:] if max(map(len, cell.source.splitlines()), default=0) > MAX_COLUMNS]
    return lines + [f"{chapter.name}, cell {i}: a line of more than {MAX_COLUMNS} columns" for i in wide]


def cell_ids(chapter: Chapter) -> list[str]:
    """Cells without an id, and ids used twice; without stable ids every save changes the whole file."""
    missing = [f"{where(chapter, cell)}: no id" for cell in chapter.cells if not cell.raw.get("id")]
    return missing + repeated(
        f"{chapter.name}: cell id", [cell.raw["id"] for cell in chapter.cells if cell.raw.get("id")]
    )


def problems(root: Path, repository: str, allowed: set[str]) -> list[str]:
    """Everything that is wrong with the chapters of the book at `root`.

    Args:
        root: the book's root folder.
        repository: the repository's address.
        allowed: the distributions that `helpers` depends on.

    Returns:
        One line a problem.
    """
    book, docs, linkable = chapters(root), docstrings(root), targets(root)
    lines = setup_cells(book, repository) + figure_names(book) + equations(book, docs) + claims(book)
    for chapter in book:
        lines += unlinked(chapter, linkable, docs)
        lines += imports(chapter, allowed)
        for check in (stored_outputs, folds, figures, exercises, cell_sizes, cell_ids):
            lines += check(chapter)
    return lines


def where(chapter: Chapter, cell: Cell) -> str:
    """A cell's place, as it stands in front of a problem."""
    return f"{chapter.name}, cell {cell.index} ({next(iter(cell.source.splitlines()), '')[:40]})"


def repeated(kind: str, names: list[str]) -> list[str]:
    """A line for every name that occurs more than once."""
    return [f"{kind} {name} stands {count} times" for name, count in Counter(names).items() if count > 1]
