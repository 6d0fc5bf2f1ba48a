"""A student's answers, by name, out of the syntax tree of a notebook, whatever else has happened to it.

Neither metadata nor the order or number of cells counts. Of the code only that is taken which an answer needs: the
statements that bind its name, and those that bind the names in these, and so on; all else stays unrun, be it a slow
plot, a test that was tampered with, or an endless loop. What the assignment itself gives is taken from the assignment.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGEST = 20 * 1024**2  # bytes of a notebook
MAGIC = ("%", "!", "?")


class Unreadable(ValueError):
    """A file that is no notebook."""


@dataclass(frozen=True)
class Statement:
    """A statement of a notebook: what it binds, what it needs, and its source."""

    source: str
    binds: frozenset[str]
    needs: frozenset[str]
    is_import: bool
    is_stub: bool = False


@dataclass
class Code:
    """The statements of a notebook's code cells, in order, and what is wrong with cells that are no Python."""

    statements: list[Statement] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook as they are.

    Raises:
        Unreadable: the file is too large, no JSON, or has no cells.
    """
    if path.stat().st_size > LARGEST:
        raise Unreadable(f"the file has more than {LARGEST // 1024**2} MB")
    try:
        notebook = json.loads(path.read_text(encoding="utf8", errors="replace"))
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        if not isinstance(cells, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise Unreadable("the file is no notebook: it is damaged, or something else") from error
    return [cell for cell in cells if isinstance(cell, dict)]


def source_of(cell: dict[str, Any]) -> str:
    """The text of a cell, which files hold as a text or as a list of lines."""
    source = cell.get("source", cell.get("input", ""))
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def without_magic(source: str) -> str:
    """Code without the lines that only IPython reads."""
    lines = []
    for line in source.splitlines():
        bare = line.strip()
        magic = bare.startswith(MAGIC) or (bare.endswith("?") and bare[:-1].isidentifier())
        lines.append(line[: len(line) - len(line.lstrip())] + "pass" if magic else line)
    return "\n".join(lines)


def code_of(cells: Iterable[dict[str, Any]]) -> Code:
    """The statements of some cells."""
    code = Code()
    for number, cell in enumerate(cells, 1):
        if cell.get("cell_type") != "code":
            continue
        source = without_magic(source_of(cell))
        try:
            tree = ast.parse(source)
            code.statements += [statement(node, source) for node in tree.body]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            code.problems.append(f"cell {number}{line} is no Python: {getattr(error, 'msg', None) or error}")
    return code


class _Names(ast.NodeVisitor):
    """The names that a statement binds in the notebook, and those that it reads there or inside of its functions."""

    def __init__(self) -> None:
        self.binds: set[str] = set()
        self.reads: set[str] = set()
        self.depth = 0

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) or self.depth:
            self.reads.add(node.id)
        else:
            self.binds.add(node.id)

    def visit_Global(self, node: ast.Global) -> None:
        self.binds |= set(node.names)
        self.reads |= set(node.names)

    def visit_alias(self, node: ast.alias) -> None:
        if not self.depth:
            self.binds.add((node.asname or node.name).split(".")[0])  # "*" stands for whatever it brings

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.reads |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}
        if not self.depth:
            self.binds |= roots([node.target])
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not self.depth:
            self.binds |= roots(node.targets)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and not self.depth:
            self.binds |= roots([call.func])  # x.append(1), x.weight.fill_(0)
        self.generic_visit(node)

    def _scope(self, node: Any) -> None:
        if not self.depth and hasattr(node, "name"):
            self.binds.add(node.name)
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = _scope


def roots(targets: Sequence[ast.expr]) -> set[str]:
    """The names that an assignment to places in them changes: x of `x[0] = 1` and of `x.a.b = 1`."""
    changed = set()
    for target in targets:
        while isinstance(target, (ast.Subscript, ast.Attribute, ast.Starred)):
            target = target.value
        if isinstance(target, ast.Name):
            changed.add(target.id)
    return changed


def statement(node: ast.stmt, source: str) -> Statement:
    """A statement as `Statement`."""
    names = _Names()
    names.visit(node)
    is_import = isinstance(node, (ast.Import, ast.ImportFrom))
    text = ast.get_source_segment(source, node) or ast.unparse(node)
    for decorator in getattr(node, "decorator_list", [])[::-1]:
        text = f"@{ast.unparse(decorator)}\n{text}"
    reads = names.reads | names.binds if changes_only(node) else names.reads
    return Statement(text, frozenset(names.binds), frozenset(reads), is_import, is_stub(node))


def changes_only(node: ast.stmt) -> bool:
    """Whether a statement changes something that must be there before."""
    if isinstance(node, ast.Assign):
        return any(not isinstance(target, (ast.Name, ast.Tuple, ast.List)) for target in node.targets)
    return isinstance(node, (ast.Expr, ast.AugAssign))


def is_stub(node: ast.stmt) -> bool:
    """Whether a function does nothing but say that it is still to be written."""
    if not isinstance(node, ast.FunctionDef):
        return False
    body = [inner for inner in node.body if not (isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant))]
    return len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0])


def program(name: str, student: Code, given: Code, student_id: str) -> str:
    """The code that an answer needs, ready to run; empty where nothing binds the answer.

    Args:
        name: of the answer.
        student: the student's notebook.
        given: the cells of the assignment that are no answers; they come first and win.
        student_id: takes the place of what the notebook says in STUDENT.
    """
    modules = frozenset().union(*(x.binds for x in [*given.statements, *student.statements] if x.is_import))
    theirs = [
        line
        for line in student.statements
        if line.is_import
        or not line.binds <= _bound(given.statements) | modules  # neither plots.show() nor torch.x = y
    ]
    written = frozenset().union(*(line.binds for line in theirs if not line.is_stub))
    theirs = [line for line in theirs if not (line.is_stub and line.binds <= written)]  # left over, in a copied cell
    chosen = needed({name}, [*given.statements, *theirs])
    if not any(name in line.binds for line in chosen):
        return ""
    after = _depending(chosen, _bound(theirs) - _bound(given.statements))
    first = [line for line in chosen if line in given.statements and line not in after]
    last = [line for line in chosen if line in given.statements and line in after]
    middle = [line for line in chosen if line not in given.statements]
    lines = [line.source for line in [*first, *middle, *last] if line.binds != {"STUDENT"}]
    future = [line for line in lines if line.startswith("from __future__")]
    return "\n".join([*future, f"STUDENT = {student_id!r}", *(line for line in lines if line not in future)]) + "\n"


def _bound(statements: Iterable[Statement]) -> frozenset[str]:
    return frozenset().union(*(line.binds for line in statements if not line.is_import))


def needed(names: set[str], statements: Sequence[Statement]) -> list[Statement]:
    """The statements that bind some names, and those that these need, in order."""
    wanted_names, chosen = set(names), set()
    while True:
        more = {i for i, line in enumerate(statements) if i not in chosen and line.binds & (wanted_names | {"*"})}
        if not more:
            return [statements[i] for i in sorted(chosen)]
        chosen |= more
        wanted_names |= {name for i in more for name in statements[i].needs}


def _depending(statements: Sequence[Statement], names: frozenset[str]) -> list[Statement]:
    """The statements that need some names, directly or through others."""
    names, dependent = set(names), []
    for line in statements:
        if line.needs & names and not line.is_import:
            dependent.append(line)
            names |= line.binds
    return dependent
