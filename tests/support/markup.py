"""Whether a page is sound HTML: what a validator would say of it, as far as it matters to a reader.

html5lib parses as browsers do and says what they have to guess; what may stand in what, and which ids are meant, is
asked here. No validator is on PyPI that needs neither Java nor node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import html5lib

PHRASING_ONLY = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "span", "em", "strong", "b", "i", "small", "sub", "sup", "code"),
    *("kbd", "mark", "abbr", "cite", "q", "button", "label", "summary", "time", "var"),
}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
BLOCKS = {
    *("address", "article", "aside", "blockquote", "details", "dialog", "div", "dl", "dt", "dd", "fieldset", "figure"),
    *("figcaption", "footer", "form", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "ul"),
    *HEADINGS,
}
INTERACTIVE = {"a", "button", "input", "select", "textarea", "summary", "label"}
CHILDREN = {
    "ul": {"li", "script", "template"},
    "ol": {"li", "script", "template"},
    "dl": {"dt", "dd", "div", "script", "template"},
}
PARENTS = {"li": {"ul", "ol", "menu"}, "dt": {"dl", "div"}, "dd": {"dl", "div"}, "summary": {"details"}}
REFERENCES = ("for", "aria-labelledby", "aria-describedby", "aria-controls", "aria-owns")


def faults(text: str) -> list[str]:
    """What is wrong with a page, each fault in a line."""
    parser = html5lib.HTMLParser(tree=html5lib.getTreeBuilder("etree"), namespaceHTMLElements=False)
    root = parser.parse(text)
    found = [f"line {line}: {code} {data or ''}".strip() for (line, _), code, data in parser.errors]
    elements = [element for element in root.iter() if isinstance(element.tag, str)]
    ids = Counter(element.get("id") for element in elements if element.get("id"))
    found += [f"the id {name} stands {count} times" for name, count in ids.items() if count > 1]
    for element in elements:
        for name in REFERENCES:
            missing = [word for word in element.get(name, "").split() if word not in ids]
            found += [f"{name} of {shown(element)}: no {word}" for word in missing]
    return found + list(misplaced(root, ()))


def misplaced(element: Any, above: tuple[str, ...]) -> Iterator[str]:
    """Elements that may not stand where they stand; `above` are the tags that they stand in, the outermost first."""
    tag, parent = element.tag, above[-1] if above else ""
    if parent in PHRASING_ONLY and tag in BLOCKS and not (parent == "summary" and tag in HEADINGS):
        yield f"{shown(element)} in <{parent}>"
    if tag in INTERACTIVE and INTERACTIVE.intersection(above) and not (tag in ("input", "select") and "label" in above):
        yield f"{shown(element)} in <{next(name for name in reversed(above) if name in INTERACTIVE)}>"
    if tag in PARENTS and parent not in PARENTS[tag]:
        yield f"{shown(element)} in <{parent}>"
    if parent in CHILDREN and tag not in CHILDREN[parent]:
        yield f"{shown(element)} in <{parent}>"
    if tag == "dl" and len(element) and "dt" not in {child.tag for child in element.iter()}:
        yield f"{shown(element)} without a word that it defines"
    for child in element:
        if isinstance(child.tag, str) and not child.tag.startswith("{"):  # not into SVG and MathML
            yield from misplaced(child, (*above, tag))


def shown(element: Any) -> str:
    """An element's tag, with its id or class."""
    names = [f'{name}="{element.get(name)}"' for name in ("id", "class") if element.get(name)]
    return f"<{' '.join([element.tag, *names[:1]])}>"
