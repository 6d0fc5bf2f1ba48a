"""Notices an answer that is a function of `helpers`: its syntax tree with the names taken out."""

from __future__ import annotations

import ast
from difflib import SequenceMatcher
from functools import cache

from tools.course.answers import Code
from tools.project import ROOT

ALIKE = 0.9  # share of the nodes in the same order
SMALLEST = 25  # nodes of a function that is looked at; shorter ones are alike by chance


def skeleton(node: ast.AST) -> list[str]:
    """The kinds of a function's nodes in order, with the attributes and constants, without names and docstrings."""
    kinds: list[str] = []
    for inner in walk(node):
        kinds.append(type(inner).__name__)
        if isinstance(inner, ast.Attribute):
            kinds.append(inner.attr)
        elif isinstance(inner, ast.Constant):
            kinds.append(repr(inner.value)[:20])
    return kinds


def walk(node: ast.AST) -> list[ast.AST]:
    """The nodes of a function's statements in the order of its text; annotations and docstrings are left out."""
    nodes: list[ast.AST] = []
    body = getattr(node, "body", [])
    for statement in body if isinstance(body, list) else [body]:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        stack: list[ast.AST] = [statement]
        while stack:
            inner = stack.pop()
            nodes.append(inner)
            stack += [
                child
                for name, field in reversed(list(ast.iter_fields(inner)))
                if name not in ("annotation", "returns", "ctx")
                for child in (reversed(field) if isinstance(field, list) else [field])
                if isinstance(child, ast.AST)
            ]
    return nodes


@cache
def package() -> dict[str, list[str]]:
    """The functions of `helpers`, by dotted name."""
    functions: dict[str, list[str]] = {}
    for path in sorted((ROOT / "helpers").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.FunctionDef):
                kinds = skeleton(node)
                if len(kinds) >= SMALLEST:
                    functions[f"{module}.{node.name}"] = kinds
    return functions


def notice(code: Code, names: list[str]) -> dict[str, str]:
    """The answers that are nearly a function of the package, by name, and which function that is."""
    noticed: dict[str, str] = {}
    for line in code.statements:
        for name in line.binds & set(names):
            node = ast.parse(line.source).body[0]
            kinds = skeleton(node) if isinstance(node, ast.FunctionDef) else []
            if len(kinds) >= SMALLEST:
                best = max(package(), key=lambda known: _alike(kinds, package()[known]))
                if _alike(kinds, package()[best]) >= ALIKE:
                    noticed[name] = best
    return noticed


def _alike(a: list[str], b: list[str]) -> float:
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if matcher.real_quick_ratio() < ALIKE or matcher.quick_ratio() < ALIKE:
        return 0.0
    return matcher.ratio()
