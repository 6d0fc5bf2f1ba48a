"""Read the chapters: their cells, equations, claims, figures and exercises.

The site's appendix, the linter and the tests all see the book through this file, so nothing is listed by hand.
Standard library only, and nothing is executed: notebooks are JSON, their code and `helpers` are read as syntax trees.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tools.cells import Cell, anchor, headings, split_stub, string, unfenced, unique

TOC_ENTRY = re.compile(r"^\s*(?:-\s*)?(?:file|root):\s*(\S+)\s*$", re.MULTILINE)
CHAPTER_NAME = re.compile(r"ch\d+_\w+")
EQUATION = re.compile(r"\$\$(?P<body>.+?)\$\$\s*\((?P<label>eq-[\w-]+)\)", re.DOTALL)
IMPLEMENTED = re.compile(r"implemented by\s+((?:`helpers\.[\w.]+`(?:,\s*(?:and\s+)?|\s+and\s+)?)+)", re.IGNORECASE)
EQUATION_LABEL = re.compile(r"\beq-[\w-]+")
EXERCISE = re.compile(
    r"^###\s+Exercise\s+(?P<number>\d+\.\d+)\s+\((?P<kind>[^)]+)\):\s+(?P<title>.+?)\s*$", re.MULTILINE
)
FOLDED = re.compile(r"<details>\s*<summary>(?P<title>[^<]*)</summary>(?P<body>.*?)</details>", re.DOTALL)
PYTHON_FENCE = re.compile(r"^```python\s*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Section:
    """A heading: its chapter's name, its text and the anchor that it gets on the page."""

    chapter: str
    title: str
    anchor: str


@dataclass(frozen=True)
class Equation:
    """A labelled equation and the functions (dotted names) that the text after it says implement it."""

    label: str
    body: str
    functions: tuple[str, ...]
    section: Section


@dataclass(frozen=True)
class Claim:
    """A `claim("id", value, ..., text="...")` call; `bounds` are its keywords other than text, as source."""

    id: str
    text: str
    bounds: dict[str, str]
    section: Section


@dataclass(frozen=True)
class Exercise:
    """An exercise: heading, stub cell, folded parts. What is missing is empty.

    `name` is the id given to `check`, `answer` the expression it is given, `stub` the code cell without that call.
    """

    number: str
    kind: str
    title: str
    chapter: str
    name: str
    answer: str
    stub: str
    hints: tuple[str, ...]
    solution: str

    @property
    def heading(self) -> str:
        """Its heading."""
        return f"Exercise {self.number} ({self.kind}): {self.title}"

    @property
    def solution_code(self) -> str:
        """The Python of the solution, all its fences together."""
        return "\n".join(PYTHON_FENCE.findall(self.solution))


@dataclass(frozen=True)
class Chapter:
    """A notebook of the book."""

    path: Path

    @property
    def name(self) -> str:
        """Its file's name without the ending, as in `make book CHAPTER=`."""
        return self.path.stem

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The notebook's JSON."""
        return json.loads(self.path.read_text(encoding="utf8"))

    @cached_property
    def cells(self) -> list[Cell]:
        """Its cells."""
        return [Cell(index, raw) for index, raw in enumerate(self.raw["cells"])]

    @property
    def core_seconds(self) -> float:
        """What its metadata says that it takes on one core; pages run in this order until they have been timed here."""
        return self.raw["metadata"].get("core_seconds", len(self.code))

    @property
    def title(self) -> str:
        """Its first heading, without markup."""
        return next((title for cell in self.cells if cell.is_markdown for title in headings(cell.source)), self.name)

    @property
    def code(self) -> list[Cell]:
        """Its code cells."""
        return [cell for cell in self.cells if cell.is_code]

    @property
    def setup(self) -> Cell | None:
        """The cell that installs `helpers` where it is missing: the first code cell."""
        return self.code[0] if self.code else None

    @property
    def imports(self) -> Cell | None:
        """The cell tagged `imports`."""
        return next((cell for cell in self.code if "imports" in cell.tags), None)

    @cached_property
    def sections(self) -> list[Section]:
        """For every cell the heading under which it ends (its own last one, if it has any)."""
        by_cell, used, current = [], set(), Section(self.name, self.name, "")
        for cell in self.cells:
            for title in headings(cell.source) if cell.is_markdown else ():
                current = Section(self.name, title, unique(anchor(title), used))
            by_cell.append(current)
        return by_cell

    @property
    def equations(self) -> list[Equation]:
        """Its labelled equations, each with the functions named between it and the next one."""
        entries = []
        for cell in self.cells:
            if not cell.is_markdown:
                continue
            matches = list(EQUATION.finditer(cell.source))
            ends = [match.start() for match in matches[1:]] + [len(cell.source)]
            for match, end in zip(matches, ends, strict=False):
                names = IMPLEMENTED.search(cell.source[match.end() : end])
                functions = tuple(re.findall(r"`([\w.]+)`", names[1])) if names else ()
                body = " ".join(match["body"].split())
                entries.append(Equation(match["label"], body, functions, self.sections[cell.index]))
        return entries

    @property
    def claims(self) -> list[Claim]:
        """Its claims. An id or a text that is not a plain string is given as the empty string."""
        entries = []
        for cell in self.code:
            for call in cell.calls("claim"):
                bounds = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg not in ("text", None)}
                text = next((word.value for word in call.keywords if word.arg == "text"), None)
                name = call.args[0] if call.args else None
                entries.append(Claim(string(name), string(text), bounds, self.sections[cell.index]))
        return entries

    @property
    def figures(self) -> dict[int, str]:
        """The figure name of every code cell that has one, by cell index."""
        named = {cell.index: cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in self.code}
        return {index: name for index, name in named.items() if name}

    @property
    def exercises(self) -> list[Exercise]:
        """Its exercises, each read up to the next heading of the same or a higher level."""
        return [self._exercise(cell) for cell in self.cells if cell.is_markdown and EXERCISE.search(cell.source)]

    def _exercise(self, start: Cell) -> Exercise:
        heading = EXERCISE.search(start.source)
        later = self.cells[start.index + 1 :]
        stop = next(
            (c.index for c in later if c.is_markdown and re.search(r"^#{1,3}\s", unfenced(c.source), re.M)), None
        )
        body = self.cells[start.index : stop]
        stub = next((cell for cell in body if cell.is_code and cell.calls("check")), None)
        folded = [match for cell in body if cell.is_markdown for match in FOLDED.finditer(cell.source)]
        parts = [(match["title"].lower(), match["body"].strip()) for match in folded]
        hints = tuple(body for title, body in parts if "hint" in title)
        solutions = [body for title, body in parts if "solution" in title]
        name, answer, code = split_stub(stub) if stub else ("", "", "")
        place = (heading["number"], heading["kind"], heading["title"].strip(), self.name)
        return Exercise(*place, name, answer, code, hints, "\n\n".join(solutions))


def chapters(root: Path) -> list[Chapter]:
    """The chapters in the order of the table of contents.

    Args:
        root: the book's root folder, where `_toc.yml` lies.

    Returns:
        One `Chapter` for every listed `book/chNN_name.ipynb`.
    """
    return [Chapter(root / f"{page}.ipynb") for page in pages(root) if CHAPTER_NAME.fullmatch(page.split("/")[-1])]


def pages(root: Path) -> list[str]:
    """Every page of the table of contents, as a path from `root` without its ending."""
    return TOC_ENTRY.findall((root / "_toc.yml").read_text(encoding="utf8"))


def docstrings(root: Path) -> dict[str, str]:
    """The docstring of every function and class of `helpers` by dotted name.

    What a package's submodule defines is found under the package's name too, and what a module with `__all__` hands on
    is found under that module's, as it is imported.
    """
    texts: dict[str, str] = {}
    handed_on: list[tuple[str, str]] = []
    for path in sorted((root / "helpers").rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        body = ast.parse(path.read_text(encoding="utf8")).body
        public = any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" for node in body)
        for node in body:
            if public and isinstance(node, ast.ImportFrom):
                handed_on += [(f"{module}.{alias.name}", f"{node.module}.{alias.name}") for alias in node.names]
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                texts[f"{module}.{node.name}"] = ast.get_docstring(node) or ""
                if module.count(".") > 1:
                    texts.setdefault(f"{module.rsplit('.', 1)[0]}.{node.name}", texts[f"{module}.{node.name}"])
    for name, source in handed_on:
        if source in texts:
            texts.setdefault(name, texts[source])
    return texts
