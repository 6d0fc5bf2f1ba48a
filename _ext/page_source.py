"""A chapter as Sphinx reads it: its run's outputs, links in its prose, and a word for each kind of folded code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.cells import Cell  # noqa: E402 (the root is on the path only now)
from tools.links import Targets, site_linker  # noqa: E402

# What stands on the bar that unfolds a cell's code.
WORDS = {"claim": "Check", "plot": "Plot", "table": "Table", "setup": "Setup", "": "Code"}


def prepared(notebook: dict[str, Any], page: str, targets: Targets) -> dict[str, Any]:
    """The notebook of a page with links in its prose, and with a word on the bar of every folded cell."""
    link, setup = site_linker(targets, page), True
    for index, raw in enumerate(notebook["cells"]):
        cell = Cell(index, raw)
        if cell.is_markdown:
            raw["source"] = link(cell.source)
        elif cell.is_code:
            word = WORDS["setup" if setup else cell.kind]
            raw["metadata"].setdefault("mystnb", {}).update(code_prompt_show=word, code_prompt_hide=word)
            setup = False  # it is the first code cell
    return notebook


def prepared_text(text: str, page: str, targets: Targets) -> str:
    """The same for a notebook as text."""
    return json.dumps(prepared(json.loads(text), page, targets), ensure_ascii=False)
