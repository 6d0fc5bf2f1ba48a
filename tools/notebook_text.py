"""The text of a page for readers whose notebook knows no MyST: words, and links to the site.

Colab and JupyterLab show {numref}`fig-box` as it is typed. Here it becomes "Fig. 3.4" with a link, by what the site's
builder has numbered and named (`_ext/labels.py`); boxes become quotations, and a formula's number stands below it. What
there are no words for is refused, so that nothing is published half translated.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from tools.links import Linker, Targets

# Code comes first, so that what looks like a box or a role in it stays as it is.
BOX = re.compile(
    r"""
    ^(?P<code>`{3,}|~{3,})(?![`~{]).*?^(?P=code)[`~]*[ ]*$
    | ^(?P<fence>:{3,}|`{3,})\{(?P<kind>[\w:-]+)\}[ ]*(?P<title>[^\n]*)\n(?P<body>(?:[^\n]*\n)*?)(?P=fence)[ ]*$
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
OPTIONS = re.compile(r"(?::[\w-]+:[^\n]*\n)*")
MARKUP = re.compile(
    r"""
    ^(?P<code>`{3,}|~{3,}).*?^(?P=code)[`~]*[ ]*$ | (?P<ticks>``+)(?!`).+?(?P=ticks)
    | \{(?P<role>[\w:]+)\}`(?P<content>[^`]*)`
    | `[^`\n]+`
    | \$\$(?P<body>.+?)\$\$[ ]*\((?P<equation>[\w-]+)\)(?P<on>(?=\n\S))? | \$\$.+?\$\$ | (?<![\\$])\$[^$\n]+?\$
    | (?P<image>!?)\[(?P<words>[^\]]*)\]\((?P<target>[^()\s]+)\)
    | ^\((?P<label>[\w-]+)\)=[ ]*\n
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
WITH_TEXT = re.compile(r"(?P<text>.+?)\s*<(?P<target>[^<>]+)>", re.DOTALL)
TABLES = {"numref": "labels", "ref": "labels", "eq": "labels", "doc": "documents", "term": "terms"}  # by role
NUMBER = re.compile(r"%s|\{number\}")
KINDS = {
    *("admonition", "attention", "caution", "danger", "error", "hint"),
    *("important", "note", "seealso", "tip", "warning"),
}


@dataclass
class PageText:
    """Translates the texts of one page, cell by cell.

    `tables` is what `_ext/labels.py` has written, `site` the site's address with a slash at the end, `page` the page's
    name; the words of the glossary are linked at their first use on the page, as on the site.
    """

    page: str
    tables: Mapping[str, Mapping[str, Any]]
    site: str
    targets: Targets
    _link: Linker = field(init=False)

    def __post_init__(self) -> None:
        """Make what writes the links that the page leaves unwritten."""
        self._link = Linker(
            self.targets,
            self.page,
            to_chapter=lambda text, target: f"[{text}]({self.address(target)})",
            to_term=lambda text, term: self._to(text, self._entry("term", "terms", term)),
            to_function=lambda text, name: self._to(f"`{text}`", self._entry("py:obj", "functions", name)),
            to_work=lambda year, key: self._to(year, self._entry("cite:year", "works", key)),
        )

    def cell(self, source: str) -> str:
        """A markdown cell, with the links that its text leaves unwritten."""
        return self.plain(self._link(source))

    def plain(self, text: str) -> str:
        """A markdown text without what only MyST knows."""
        parts, end = [], 0
        for match in BOX.finditer(text):
            parts += [self._marked(text[end : match.start()]), match[0] if match["code"] else self._box(match)]
            end = match.end()
            parts += [] if match["code"] or not re.match(r"\n\S", text[end:]) else ["\n"]  # else it would go on
        return "".join([*parts, self._marked(text[end:])])

    def address(self, target: str) -> str:
        """Where a link of the page leads: to the site, if it led to a page of the book."""
        if re.match(r"[a-z][\w+.-]*:", target):
            return target
        path, _, anchor = target.partition("#")
        if not path and anchor in self.tables["labels"]:
            return f"{self.site}{self.tables['labels'][anchor]['place']}"
        document = self._document(path) if path else f"book/{self.page}"
        place = self._entry("doc", "documents", document)["place"]
        known = self.tables["sections"].get(document, {})
        return f"{self.site}{known.get(anchor, f'{place}#{anchor}') if anchor else place}"

    def _document(self, path: str) -> str:
        """The page to which a path leads, from the root of the book or from this page."""
        whole = path.lstrip("/") if path.startswith("/") else posixpath.normpath(f"book/{path}")
        return re.sub(r"\.(ipynb|md|html)$", "", whole)

    def _marked(self, text: str) -> str:
        return MARKUP.sub(self._markup, text)

    def _markup(self, match: re.Match[str]) -> str:
        if match["role"]:
            return self._role(match["role"], match["content"])
        if match["equation"]:
            return self._formula(match) + ("\n" if match["on"] is not None else "")
        if match["target"]:
            if match["image"] and not re.match(r"https?:|data:", match["target"]):
                raise ValueError(f"the picture {match['target']} does not travel with the notebook")
            return f"{match['image']}[{self._marked(match['words'])}]({self.address(match['target'])})"
        return "" if match["label"] else match[0]

    def _formula(self, match: re.Match[str]) -> str:
        number = self._to(**self._named("eq", match["equation"]))
        return f"$$\n{match['body'].strip()}\n$$\n\nEquation {number}"

    def _role(self, role: str, content: str) -> str:
        given = WITH_TEXT.fullmatch(content)
        text, target = (given["text"], given["target"]) if given else ("", content)
        if role.startswith("cite:"):
            return self._cited(role, target)
        if role.startswith("py:"):
            shown = text or (target.rsplit(".", 1)[-1] if target.startswith("~") else target)
            return self._to(f"`{shown}`", self._entry(role, "functions", target.lstrip("~")))
        if role == "math":
            return f"${content}$"
        named = self._named(role, target)
        if NUMBER.search(text):
            text = NUMBER.sub(named["words"].rsplit(" ", 1)[-1], text)
        return self._to(text or named["words"], named["entry"])

    def _cited(self, role: str, keys: str) -> str:
        """Works in words; round brackets, because square ones are Markdown's."""
        way = role.removeprefix("cite:")
        links = []
        for key in map(str.strip, keys.split(",")):
            entry = self._entry(role, "works", key)
            if way not in entry or way == "place":
                raise ValueError(f"there are no words for {{{role}}}")
            links.append(self._to(entry[way].replace("[", "(").replace("]", ")"), entry))
        return f"({'; '.join(links)})" if way == "p" else ", ".join(links)

    def _named(self, role: str, target: str) -> dict[str, Any]:
        """What a role points to: its words on the site, and its entry."""
        if role not in TABLES:
            raise ValueError(f"there are no words for {{{role}}}")
        entry = self._entry(role, TABLES[role], self._document(target) if role == "doc" else target)
        return {"words": target if role == "term" else entry["words"], "entry": entry}

    def _entry(self, role: str, table: str, name: str) -> Mapping[str, str]:
        entries = self.tables[table]
        known = name if name in entries else next((key for key in entries if key.lower() == name.lower()), None)
        if known is None:
            raise ValueError(f"the site has nothing for {{{role}}}`{name}`")
        return entries[known]

    def _to(self, words: str, entry: Mapping[str, str]) -> str:
        return f"[{words}]({self.site}{entry['place']})"

    def _box(self, match: re.Match[str]) -> str:
        kind, title = match["kind"], match["title"].strip()
        if kind not in KINDS:
            raise ValueError(f"there is nothing like {{{kind}}} in a notebook")
        options = OPTIONS.match(match["body"])[0]
        body = match["body"][len(options) :].strip()
        if kind != "admonition":
            title, body = kind.capitalize(), f"{title}\n{body}".strip()
        text = self.plain(body)
        if "dropdown" in options.split():
            return f"<details><summary>{escape(title, quote=False)}</summary>\n\n{text}\n\n</details>"
        lines = [f"**{self.plain(title)}**", "", *text.splitlines()]
        return "\n".join(f"> {line}".rstrip() for line in lines)
