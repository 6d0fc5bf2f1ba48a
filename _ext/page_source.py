"""A chapter as Sphinx reads it: its run's outputs, links in its prose, a word for each kind of folded code, a foot.

At the end of each section stands a link by which a reader says that it was not clear, and at the end of the page what
its run took, where its text can be changed, and the same link for the whole page.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from site_explorables import without_kernel  # noqa: E402 (the root is on the path only now)

from tools.cells import FENCE, Cell  # noqa: E402
from tools.links import Targets, site_linker  # noqa: E402

# What stands on the bar that unfolds a cell's code.
WORDS = {"claim": "Check", "plot": "Plot", "table": "Table", "setup": "Setup", "": "Code"}
SECTION = re.compile(r"^##\s+(?P<title>.+?)\s*$", re.MULTILINE)
UNASKED = {"Exercises", "What next", "References"}  # sections that say nothing


@dataclass(frozen=True)
class Page:
    """What the foot of a page needs: its name, the book's repository, and what its run took, if it was run."""

    name: str
    repository: str
    cost: dict[str, Any] | None = None


def prepared(notebook: dict[str, Any], page: Page, targets: Targets) -> dict[str, Any]:
    """The notebook of a page, ready for Sphinx."""
    link, setup, asked = site_linker(targets, page.name), True, Asked(page)
    for index, raw in enumerate(notebook["cells"]):
        cell = Cell(index, raw)
        if cell.is_markdown:
            raw["source"] = asked(link(cell.source))
        elif cell.is_code:
            word = WORDS["setup" if setup else cell.kind]
            raw["metadata"].setdefault("mystnb", {}).update(code_prompt_show=word, code_prompt_hide=word)
            without_kernel(raw.get("outputs", []))
            setup = False  # it is the first code cell
    notebook["cells"].append({"cell_type": "markdown", "id": "foot", "metadata": {}, "source": foot(page)})
    return notebook


def prepared_text(text: str, page: Page, targets: Targets) -> str:
    """The same for a notebook as text."""
    return json.dumps(prepared(json.loads(text), page, targets), ensure_ascii=False)


class Asked:
    """Puts a question at the end of each section, cell by cell."""

    def __init__(self, page: Page) -> None:
        self.page, self.section = page, ""

    def __call__(self, text: str) -> str:
        """A markdown cell with the questions of the sections that end in it."""
        fences = [match.span() for match in FENCE.finditer(text)]

        def before(match: re.Match[str]) -> str:
            if any(start <= match.start() < end for start, end in fences):
                return match[0]
            ended, self.section = self.section, match["title"]
            return f"{question(self.page, ended)}\n\n{match[0]}" if ended and ended not in UNASKED else match[0]

        return SECTION.sub(before, text)


def question(page: Page, section: str) -> str:
    """A line that asks whether a section was clear; its link opens an issue that names the section."""
    plain = re.sub(r"[*`$]", "", section)
    where = f"{page.name}, “{plain}”"
    address = issue(page, f"Not clear: {where}", f"In {where}, I did not understand:\n\n")
    label = escape(f"Was this clear? Say what was not in: {plain}")
    return f'<p class="clear"><a href="{address}" aria-label="{label}">Was this clear?</a></p>'


def foot(page: Page) -> str:
    """What the run of the page took, and where its text can be changed."""
    took = ""
    if page.cost:
        seconds, peak = page.cost["cpu_seconds"], page.cost["peak_bytes"] or 0
        memory = f" and {peak / 1024**3:.1f} GB of memory at most" if peak else ""
        took = f"This page ran in {seconds:.0f} seconds on one core{memory} when the site was built. "
    edit = f"{page.repository}/edit/main/book/{page.name}.ipynb"
    report = issue(page, f"{page.name}: ", "")
    links = f'<a href="{edit}">Improve this page</a> or <a href="{report}">say what is wrong with it</a>.'
    return f'<p class="page-foot">{took}{links}</p>'


def issue(page: Page, title: str, body: str) -> str:
    """The address at which an issue can be written that has this title and text already."""
    return escape(f"{page.repository}/issues/new?{urlencode({'title': title, 'body': body})}")
