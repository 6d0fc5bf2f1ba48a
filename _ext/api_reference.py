"""The appendix pages of the package: autodoc reads the docstrings, and this file makes them fit for the site.

- A marker on a page of `book/appendix/api` becomes the sections of its rooms (`tools.api_page`).
- Docstrings are written to be read in a notebook: backticks for code, and |M| or x_ for themselves. Here they become
  reStructuredText; the names of public functions become links, and results show their fields.
- Signatures stand as the source writes them, not as Python expands them.
- Every entry ends with a line of links: the page of the book, and the equation.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.docstrings import returns_as_field, rewritten, to_rst  # noqa: E402 (the root is on the path only now)

PAGES = "book/appendix/api"
MARKER = re.compile(r"<!-- generated: (?P<what>rooms|overview|explain|matrix)(?P<names>(?: \w+)*) -->")


class SectionRole(SphinxRole):
    """A link to a section of a chapter, by its MyST anchor, which reStructuredText has no word for."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The node that MyST makes of `[text](chapter.ipynb#anchor)`."""
        text, target = re.fullmatch(r"(.+?)\s*<([^<]+)>", self.text, re.DOTALL).groups()
        page, _, anchor = target.partition("#")
        link = addnodes.pending_xref(
            refdomain="doc",
            reftype="myst",
            reftarget=page,
            reftargetid=anchor or None,
            refdoc=self.env.docname,
            refexplicit=True,
        )
        link += nodes.inline(text, text, classes=["xref", "myst"])
        return [link], []


def fill_in(app: Sphinx, name: str, source: list[str]) -> None:
    """Put what is generated, and the lines of README.md, into a page of the package."""
    if name.startswith(PAGES) and MARKER.search(source[0]):
        source[0] = MARKER.sub(lambda marker: generated(marker["what"], marker["names"].split()), source[0])
        source[0] = source[0].replace("<!-- generated: twelve lines -->", readme_lines())


def readme_lines() -> str:
    """The block of README.md that uses the package on a network of one's own."""
    return re.search(r"```python\n.*?```", (ROOT / "README.md").read_text(encoding="utf8"), re.DOTALL)[0]


def generated(what: str, names: list[str]) -> str:
    """What takes the place of a marker."""
    from tools import api_page  # helpers, and so torch: only where a page needs it

    if what == "overview":
        return api_page.overview(ROOT)
    if what == "rooms":
        return api_page.rooms(ROOT, names)
    if what == "explain":
        lines = [".. py:module:: helpers", "", *api_page.described(ROOT, api_page.entries()[api_page.EXPLAIN])]
        return "```{eval-rst}\n" + "\n".join(lines) + "\n```"
    return matrix_table()


def matrix_table() -> str:
    """The heading and the table of methods and networks, once both the record and the page's writer are there."""
    if not (ROOT / "helpers" / "results" / "matrix.csv").exists() or not (ROOT / "tools" / "matrix_page.py").exists():
        return ""
    from tools.matrix_page import table

    return f"## Methods and networks\n\n{table(ROOT)}"


def with_fields(lines: list[str], value: Any) -> list[str]:
    """The docstring of a result with the type and default of each field; where it lists no fields, they are added."""
    from tools.api_page import fields  # helpers, and so torch: only where a page needs it

    own = {field.name: field for field in fields(value)}
    typed = {name: f"({as_type(field.type, field.default)})" for name, field in own.items()}
    if "Attributes:" in lines:
        start = lines.index("Attributes:")
        entry = re.compile(r"    (\w+):(?= )")

        def typed_entry(match: re.Match[str]) -> str:
            return f"    {match[1]} {typed[match[1]]}:" if match[1] in own else match[0]

        return lines[: start + 1] + [entry.sub(typed_entry, line) for line in lines[start + 1 :]]
    said = [f"    {name} {typed[name]}: {to_rst(field.about, {})}".rstrip() for name, field in own.items()]
    return [*lines, "", "Attributes:", *said, ""] if said else lines


def as_type(annotation: str, default: str) -> str:
    """The type and the default of a field; as code where its quotes would be set as those of a sentence."""
    text = f"{annotation} = {default}" if default else annotation
    return f"``{text}``" if re.search("['\"]", text) else text


@cache
def known_names(name: str, value: Any) -> dict[str, str]:
    """What a name in a docstring may link to: rooms, public names in full or with their room, those of its own room."""
    from tools.api_page import entries, room_names

    known = {dotted: entry.home for dotted, entry in entries().items()}
    known |= {dotted.removeprefix("helpers."): home for dotted, home in known.items() if dotted.count(".") == 2}
    known |= {f"helpers.{room}": f"helpers.{room}" for room in room_names()}
    room = ".".join(name.split(".")[:2])
    known |= {entry.short: entry.home for dotted, entry in entries().items() if dotted.rsplit(".", 1)[0] == room}
    code = getattr(value, "__code__", None)
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if code else ()
    return {short: home for short, home in known.items() if home != name and short not in arguments}


def to_napoleon(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Make a docstring what napoleon and docutils expect."""
    from tools.api_page import is_result

    if not name.startswith("helpers"):
        return
    done = rewritten(list(lines), known_names(name, value))
    if is_result(value):
        done = with_fields(done, value)
    lines[:] = returns_as_field(done)


def add_links(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """End an entry with its links."""
    from tools.api_page import entries, links

    if name in entries():
        lines += links(ROOT, entries()[name])


def as_written(
    app: Sphinx, what: str, name: str, value: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """The signature as the source has it."""
    from tools.api_page import signature

    return signature(value, bound=what == "method") if name.startswith("helpers.") else None


def resolve_alias(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Link a type alias of the package in a signature, where Sphinx looks for a class."""
    if node.get("refdomain") != "py" or node.get("reftype") not in ("class", "exc"):
        return None
    if not str(node.get("refdoc", "")).startswith(PAGES):
        return None
    from tools.api_page import entries

    target = node["reftarget"].rsplit(".", 1)[-1]
    homes = {entry.home for entry in entries().values() if entry.short == target and entry.kind != "data"}
    if len(homes) != 1:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", homes.pop(), node, content)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")  # whose events are connected to below
    app.add_role("section", SectionRole())
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", to_napoleon, priority=400)
    app.connect("autodoc-process-docstring", add_links, priority=600)
    app.connect("autodoc-process-signature", as_written)
    app.connect("missing-reference", resolve_alias)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
