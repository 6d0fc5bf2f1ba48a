"""The appendix pages of the package, out of its own docstrings: which names are public, and what stands at each.

A page of `book/appendix/api` names its rooms in a marker; `rooms` writes their sections, which autodoc fills
(`_ext/api_reference.py`). Nothing is listed by hand but `PAGE_OF`, the page of the book that each room belongs to.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from tools.chapters import Chapter, Equation, Section, chapters
from tools.docstrings import to_rst

# The chapter that a room is made for, or the first that uses it.
PAGE_OF = {
    "background": "ch05_licnn",
    "basics": "ch01_basics",
    "boxes": "ch03_cam",
    "cam": "ch03_cam",
    "capture": "ch01_basics",
    "checks": "ch01_basics",
    "claims": "ch01_basics",
    "compare": "ch05_licnn",
    "data": "ch01_basics",
    "device": "ch01_basics",
    "factors": "ch03_cam",
    "filters": "ch03_cam",
    "licnn": "ch05_licnn",
    "metrics": "ch02_saliency",
    "networks": "ch01_basics",
    "plots": "ch01_basics",
    "quadtree": "ch02_saliency",
    "readout": "ch01_basics",
    "results": "ch03_cam",
    "retina": "ch06_retina",
    "saliency": "ch02_saliency",
    "sanity": "ch05_licnn",
    "search": "ch07_search",
    "similarnet": "ch04_similarnet",
    "tables": "ch01_basics",
    "training": "ch01_basics",
    "widgets": "ch01_basics",
}
EXPLAIN = "helpers.explain"
KINDS = ("function", "class", "exception", "type", "data")  # in the order of a room's section
LONGEST_VALUE = 100  # characters of a constant that are shown


@dataclass(frozen=True, eq=False)
class Entry:
    """A public name: what it stands for, and the name under which that is documented (as a rule the same)."""

    name: str
    home: str
    kind: str
    value: Any

    @property
    def short(self) -> str:
        """The name without its room."""
        return self.name.rsplit(".", 1)[1]


def room_names() -> tuple[str, ...]:
    """The rooms of the package."""
    return import_module("helpers").ROOMS


def public_names(module: ModuleType) -> list[str]:
    """What a room offers: its `__all__`, or without one the functions, classes and type aliases that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    assigned = assignments(module.__name__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            ((inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__)
            or (name in assigned and get_origin(value) is not None)
        )
    ]


def kind(value: Any) -> str:
    """Which of `KINDS` a value is."""
    if inspect.isclass(value) and get_origin(value) is None:
        return "exception" if issubclass(value, BaseException) else "class"
    if inspect.isroutine(value):
        return "function"
    return "data" if get_origin(value) is None else "type"


@cache
def entries() -> dict[str, Entry]:
    """Every public name of every room, and `helpers.explain`, by dotted name."""
    modules = {room: import_module(f"helpers.{room}") for room in room_names()}
    values = {f"helpers.{room}.{name}": getattr(m, name) for room, m in modules.items() for name in public_names(m)}
    found: dict[str, Entry] = {}
    for name, value in values.items():
        homes = [name]
        if inspect.isclass(value) or inspect.isfunction(value):
            homes = [other for other, same in values.items() if same is value] or homes
        owned = [
            home for home in homes if f"{getattr(value, '__module__', '')}.".startswith(f"{home.rsplit('.', 1)[0]}.")
        ]
        found[name] = Entry(name, owned[0] if owned else homes[0], kind(value), value)
    explain = found["helpers.compare.explain"]
    found[EXPLAIN] = Entry(EXPLAIN, explain.name, explain.kind, explain.value)
    return found


def of_room(room: str) -> list[Entry]:
    """The entries of a room in the order of its section."""
    own = [entry for entry in entries().values() if entry.name.rsplit(".", 1)[0] == f"helpers.{room}"]
    return sorted(own, key=lambda entry: (KINDS.index(entry.kind), entry.short.lower()))


# --- what the source says beside the docstrings ---


@cache
def source(module: str) -> tuple[list[str], ast.Module]:
    """The lines of a module and its syntax tree."""
    text = inspect.getsource(import_module(module))
    return text.splitlines(), ast.parse(text)


def assignments(module: str) -> dict[str, ast.Assign | ast.AnnAssign]:
    """The names that a module assigns at its top level."""
    found: dict[str, ast.Assign | ast.AnnAssign] = {}
    for node in source(module)[1].body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            found |= {name.id: node for name in names if isinstance(name.ctx, ast.Store)}
    return found


def assigned(module: str, name: str) -> tuple[str, ast.Assign | ast.AnnAssign] | None:
    """The module of the package that assigns a name which another imports, and the assignment; None where none does."""
    here = assignments(module).get(name)
    if here is not None:
        return module, here
    for node in source(module)[1].body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers"):
            for alias in node.names:
                if (alias.asname or alias.name) == name and inspect.ismodule(import_module(node.module or "")):
                    return assigned(node.module or "", alias.name)
    return None


def comment(lines: list[str], node: ast.stmt) -> str:
    """What is said of an assignment: behind it on its line, or in the lines above."""
    behind = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset :].decode().strip()
    if behind.startswith("#"):
        return behind.lstrip("# ")
    said: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        said.insert(0, line.strip().lstrip("# "))
    return " ".join(said)


@dataclass(frozen=True)
class Field:
    """A field of a result: its name, its type as written, its default or nothing, what the source says of it."""

    name: str
    type: str
    default: str
    about: str


@cache
def definitions(module: str) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """The functions and classes of a module, and what stands in these classes, by qualified name."""
    found: dict[str, ast.FunctionDef | ast.ClassDef] = {}
    for node in source(module)[1].body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
            if isinstance(node, ast.ClassDef):
                own = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
                found |= {f"{node.name}.{inner.name}": inner for inner in own}
    return found


def definition(value: Any) -> ast.FunctionDef | ast.ClassDef | None:
    """The syntax tree of a function or a class; None for what the package does not define."""
    plain = inspect.unwrap(value)
    return definitions(plain.__module__).get(plain.__qualname__)


def body(value: type) -> list[ast.stmt]:
    """The statements of a class."""
    node = definition(value)
    return node.body if node is not None else []


def is_result(value: Any) -> bool:
    """Whether a class is nothing but its fields: a NamedTuple or a dataclass."""
    return inspect.isclass(value) and (hasattr(value, "_fields") or hasattr(value, "__dataclass_fields__"))


def fields(value: type) -> list[Field]:
    """The fields of a NamedTuple or a dataclass, in order."""
    lines, _ = source(value.__module__)
    nodes = [node for node in body(value) if isinstance(node, ast.AnnAssign)]
    return [
        Field(
            ast.unparse(node.target),
            ast.unparse(node.annotation),
            "" if node.value is None or "field(" in ast.unparse(node.value) else ast.unparse(node.value),
            comment(lines, node),
        )
        for node in nodes
    ]


def methods(value: type) -> list[str]:
    """The documented public methods and properties of a class that no class of another package has defined before."""
    own = [node for node in body(value) if isinstance(node, ast.FunctionDef) and ast.get_docstring(node)]
    foreign = [base for base in value.__mro__ if not base.__module__.startswith("helpers")]
    return [
        node.name
        for node in own
        if not node.name.startswith("_") and not any(hasattr(base, node.name) for base in foreign)
    ]


class _Spelled(ast.NodeTransformer):
    """Type aliases that are nobody's public name, written out."""

    def __init__(self, module: str) -> None:
        self.module = import_module(module)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name by what is assigned to it."""
        value = getattr(self.module, node.id, None)
        public = any(entry.value is value for entry in entries().values() if entry.kind == "type")
        found = None if public else assigned(self.module.__name__, node.id)
        if found is None or found[1].value is None:
            return node
        return _Spelled(found[0]).visit(ast.parse(ast.unparse(found[1].value), mode="eval").body)


@cache
def signature(value: Any, *, bound: bool = False) -> tuple[str, str | None] | None:
    """Arguments and return type as the source writes them, defaults that are named constants as their values.

    Returns:
        The two parts, the second None where there is none; None for what has no source, and two empty ones for
        results, whose fields are listed instead.
    """
    if is_result(value):
        return "", None
    function = value.__dict__.get("__init__") if inspect.isclass(value) else value
    if not inspect.isfunction(function):
        return ("", None) if inspect.isclass(value) else None
    node = deepcopy(definition(function))
    if not isinstance(node, ast.FunctionDef):
        return None
    arguments, spelled = node.args, _Spelled(function.__module__)
    if inspect.isclass(value) or bound:
        arguments.args = arguments.args[1:]
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    every = [*arguments.posonlyargs, *arguments.args]
    for names, values in ((every[len(every) - len(arguments.defaults) :], arguments.defaults),):
        values[:] = [_shown(defaults.get(a.arg), v) for a, v in zip(names, values, strict=True)]
    arguments.kw_defaults = [
        v if v is None else _shown(defaults.get(a.arg), v)
        for a, v in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    for argument in [*every, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if argument is not None and argument.annotation is not None:
            argument.annotation = spelled.visit(argument.annotation)
    returns = None if node.returns is None or inspect.isclass(value) else ast.unparse(spelled.visit(node.returns))
    return f"({ast.unparse(arguments)})", returns


def _shown(value: Any, node: ast.expr) -> ast.expr:
    """A default as it is shown."""
    named = isinstance(node, (ast.Name, ast.Attribute))
    return ast.Constant(value) if named and isinstance(value, (bool, int, float, str)) else node


# --- where a name belongs in the book ---


@cache
def equations(root: Path) -> dict[str, list[Equation]]:
    """The equations that each documented name implements, by that name."""
    found: dict[str, list[Equation]] = {}
    for equation in (equation for chapter in chapters(root) for equation in chapter.equations):
        for name in equation.functions:
            entry = entries().get(name)
            found.setdefault(entry.home if entry else name, []).append(equation)
    return found


@cache
def uses(root: Path) -> dict[str, list[Section]]:
    """The sections whose code names each documented name, in the order of the book."""
    found: dict[str, list[Section]] = {}
    for chapter in chapters(root):
        for name, section in _named(chapter):
            entry = entries().get(name)
            if entry is not None and section not in found.setdefault(entry.home, []):
                found[entry.home].append(section)
    return found


def _named(chapter: Chapter) -> Iterator[tuple[str, Section]]:
    """The dotted names in a chapter's code, in order, each with its section; imports only say what a name means."""
    meaning: dict[str, str] = {}
    for cell in chapter.code:
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers"):
                meaning |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        for node in ast.walk(cell.tree):
            if isinstance(node, (ast.Name, ast.Attribute)):
                first, *rest = ast.unparse(node).split(".")
                yield ".".join([meaning.get(first, first), *rest]), chapter.sections[cell.index]


@cache
def section(root: Path, entry: Entry) -> Section:
    """Where the book speaks of a name: its equation's section, else where its room's chapter, or any, first uses it.

    A class that no chapter names stands with the function that returns it.
    """
    page = PAGE_OF[entry.home.split(".")[1]]
    implemented = equations(root).get(entry.home, [])
    if implemented:
        return implemented[0].section
    used = [place for place in uses(root).get(entry.home, []) if place.anchor]
    own = [place for place in used if place.chapter == page]
    if own or used or entry.kind != "class":
        return next(iter(own or used), Section(page, "", ""))
    makers = [other for other in of_room(entry.home.split(".")[1]) if returns(other, entry.short)]
    return section(root, makers[0]) if makers else Section(page, "", "")


def returns(entry: Entry, name: str) -> bool:
    """Whether an entry is a function whose return type is, or holds, the class `name`."""
    node = definition(entry.value) if entry.kind == "function" else None
    said = ast.unparse(node.returns) if isinstance(node, ast.FunctionDef) and node.returns else ""
    return re.search(rf"\b{name}\b", said) is not None


# --- the pages ---


@cache
def titles(root: Path) -> dict[str, str]:
    """The title of each chapter, by its name."""
    return {chapter.name: chapter.title for chapter in chapters(root)}


def section_link(root: Path, place: Section) -> str:
    """The role that links to a section, as `_ext/api_reference.py` reads it."""
    number = int(place.chapter[2:4])
    title = re.sub(r"[`*$<>]", "", place.title or titles(root)[place.chapter])
    return f":section:`chapter {number}, {title} <book/{place.chapter}{'#' * bool(place.anchor)}{place.anchor}>`"


def links(root: Path, entry: Entry) -> list[str]:
    """The last line of an entry: the page of the book and the equations, in reStructuredText."""
    parts = [f"Page: {section_link(root, section(root, entry))}"]
    labels = [f":eq:`{equation.label}`" for equation in equations(root).get(entry.home, [])]
    if labels:
        parts.append(f"Equation{'s' * (len(labels) > 1)}: {', '.join(labels)}")
    return ["", ".. container:: api-links", "", f"   {' · '.join(parts)}", ""]


def overview(root: Path) -> str:
    """A line for each room: what it holds, and its chapter."""
    lines = ["| room | what it holds | chapter |", "|---|---|---|"]
    for room in room_names():
        about = (import_module(f"helpers.{room}").__doc__ or "").split("\n\n")[0].replace("\n", " ")
        chapter = f'[{int(PAGE_OF[room][2:4])}](../{PAGE_OF[room]}.ipynb "{titles(root)[PAGE_OF[room]]}")'
        lines.append(f"| {{py:mod}}`~helpers.{room}` | {about} | {chapter} |")
    return "\n".join(lines)


def rooms(root: Path, names: list[str]) -> str:
    """The sections of some rooms, in MyST."""
    return "\n\n".join(room_section(root, name) for name in names)


def room_section(root: Path, room: str) -> str:
    """The section of a room: its docstring, a table of what it offers, every entry."""
    own = of_room(room)
    entry_lines = [line for entry in own for line in [*described(root, entry), ""]]
    parts = [f"## `helpers.{room}`", to_myst([f".. automodule:: helpers.{room}"]), summary(own), to_myst(entry_lines)]
    return "\n\n".join(filter(None, parts))


def to_myst(lines: list[str]) -> str:
    """Lines of reStructuredText in a page of MyST."""
    return "\n".join(["```{eval-rst}", *lines, "```"])


def summary(own: list[Entry]) -> str:
    """A line for each function and class, with the first sentence of its docstring; nothing where there is none.

    autosummary would import and parse everything a second time for it, a fifth of the time of writing the site.
    """
    listed = [entry for entry in own if entry.kind not in ("type", "data")]
    lines = [f"| {{py:obj}}`{entry.short} <{entry.home}>` | {first_sentence(entry.value)} |" for entry in listed]
    return "\n".join(["| name | what it is |", "|---|---|", *lines]) if lines else ""


def first_sentence(value: Any) -> str:
    """The first sentence of a docstring, fit for a table of MyST."""
    paragraph = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.?!]) ", paragraph)[0]
    return re.sub(r"[|$*<_](?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\\g<0>", re.sub(r":(\w+):(?=`)", r"{\1}", sentence))


def described(root: Path, entry: Entry) -> list[str]:
    """An entry in reStructuredText: autodoc's directive, or the whole of it where autodoc has nothing to read."""
    if entry.name != entry.home:
        lines = [f".. py:{entry.kind}:: {entry.short}{'(...)' * (entry.kind == 'function')}", ""]
        return lines + indented([f"The same as :py:obj:`{entry.home}`.", *links(root, entry)])
    if entry.kind in ("type", "data"):
        return constant(root, entry)
    lines = [f".. auto{entry.kind}:: {entry.name}"]
    own = methods(entry.value) if entry.kind != "function" else []
    return [*lines, f"   :members: {', '.join(own)}"] if own else lines


def constant(root: Path, entry: Entry) -> list[str]:
    """A constant or a type alias: its value, and what its comment says."""
    module, name = entry.name.rsplit(".", 1)
    found = assigned(module, name)
    about, written = "", ""
    if found is not None:
        about = comment(source(found[0])[0], found[1])
        written = ast.unparse(found[1].value) if found[1].value is not None else ""
    value = written if entry.kind == "type" else repr(entry.value)
    lines = [f".. py:data:: {entry.short}"]
    lines += [f"   :value: {value}"] if len(value) <= LONGEST_VALUE and " object at " not in value else []
    body = [""]
    if about:
        body += [to_rst(f"{about[:1].upper()}{about[1:]}.", {}), ""]
    if len(lines) == 1:
        body += [*elements(entry.value), ""]
    return [*lines, *indented([*body, *links(root, entry)])]


def elements(value: Any) -> list[str]:
    """What a large constant holds: its names, with a word on each where there is one."""
    if not isinstance(value, (dict, tuple, list, set, frozenset)):
        return [f"A {type(value).__name__}."]
    if isinstance(value, dict):
        words = {key: getattr(v, "about", None) or getattr(v, "needs", None) or v for key, v in value.items()}
        if all(isinstance(text, str) for text in words.values()):
            return [f"- ``{key!r}``: {to_rst(text, {})}" for key, text in words.items()]
    return [", ".join(f"``{element!r}``" for element in value) + "."]


def indented(lines: list[str]) -> list[str]:
    """Lines moved into a directive."""
    return [f"   {line}" if line else "" for line in lines]
