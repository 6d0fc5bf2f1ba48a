"""One cell of a notebook, and what can be read off its text."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*$", re.MULTILINE)
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*\s*$", re.MULTILINE | re.DOTALL)
KINDS = {"claim": "claim", "table": "table", "summary": "table"}  # by the function that a cell's last line calls
MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook; `raw` is its JSON."""

    index: int
    raw: dict[str, Any] = field(repr=False)

    @property
    def is_code(self) -> bool:
        """Whether it is a code cell."""
        return self.raw["cell_type"] == "code"

    @property
    def is_markdown(self) -> bool:
        """Whether it is a markdown cell."""
        return self.raw["cell_type"] == "markdown"

    @property
    def source(self) -> str:
        """Its text, however the file splits it into lines."""
        return "".join(self.raw.get("source", ""))

    @property
    def metadata(self) -> dict[str, Any]:
        """Its metadata."""
        return self.raw.get("metadata", {})

    @property
    def tags(self) -> set[str]:
        """Its tags."""
        return set(self.metadata.get("tags", []))

    @cached_property
    def tree(self) -> ast.Module:
        """Its code as a syntax tree; lines with IPython magics are left out.

        Raises:
            SyntaxError: the cell is not Python.
        """
        return ast.parse(MAGIC.sub(r"\1pass", self.source))

    @property
    def kind(self) -> str:
        """What it is for: "claim", "plot" or "table" where its last line is a call of that kind, otherwise ""."""
        called = self.called[-1] if self.called else ""
        return "plot" if called.startswith("plots.") else KINDS.get(called, "")

    @property
    def called(self) -> list[str]:
        """For every statement the name of the function that it calls and does no more; "" for any other statement."""
        values = [getattr(statement, "value", None) for statement in self.tree.body]
        calls = zip(self.tree.body, values, strict=True)
        return [ast.unparse(v.func) if isinstance(s, ast.Expr) and isinstance(v, ast.Call) else "" for s, v in calls]

    def calls(self, name: str) -> list[ast.Call]:
        """The calls of a function `name`, or of any function of a module `name` when it ends in a dot, in order."""
        matches = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == name or (name.endswith(".") and called.startswith(name)):
                    matches.append(node)
        return sorted(matches, key=lambda node: (node.lineno, node.col_offset))


def headings(text: str) -> list[str]:
    """The headings of a markdown text, those inside fences left out."""
    return [match[2] for match in HEADING.finditer(unfenced(text))]


def unfenced(text: str) -> str:
    """A markdown text without its fenced code."""
    return FENCE.sub("", text)


def anchor(title: str) -> str:
    """The anchor that MyST gives to a heading (that of GitHub)."""
    plain = re.sub(r"\$[^$]*\$|[*`]", "", title)
    return re.sub(r"[^\w\u4e00-\u9fff\- ]", "", plain.lower()).replace(" ", "-")


def unique(name: str, used: set[str]) -> str:
    """`name`, numbered as MyST does it when it is in `used`; the result is added to `used`."""
    count = 1
    while name in used:
        name, count = f"{name}-{count}", count + 1
    used.add(name)
    return name


def string(node: ast.expr | None) -> str:
    """The value of a plain string in a syntax tree, otherwise the empty string."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def split_stub(cell: Cell) -> tuple[str, str, str]:
    """An exercise's cell as the id and the answer that its last `check(id, answer)` gets, and the code before it."""
    last = cell.tree.body[-1]
    if not (isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) and len(last.value.args) == 2):
        return "", "", cell.source
    before = ast.unparse(ast.Module(cell.tree.body[:-1], []))
    return string(last.value.args[0]), ast.unparse(last.value.args[1]), before
