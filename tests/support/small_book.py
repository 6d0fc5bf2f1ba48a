"""Small books, with the project's own configuration, for tests to build and to break."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from support.notebooks import write_notebook
from tools.project import ROOT

FOLDERS = ("_ext", "assets", "tools", "helpers", "book/appendix")
FILES = ("_config.yml", "pyproject.toml", "requirements.lock", "book/references.bib")


def small_book(root: Path, chapters: dict[str, list[dict[str, Any]]]) -> Path:
    """Make a book in the folder `root` out of chapters, each a list of cells; returns the folder."""
    # Drawing the page of the networks, and importing the package for its own, take longer than all the rest; both have
    # tests of their own.
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "networks.md", "api.md", "api")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, ignore=skip)
    for name in FILES:
        shutil.copy(ROOT / name, root / name)
    (root / "book" / "index.md").write_text("# A small book\n\nIt is there to be broken.\n", encoding="utf8")
    for name, cells in chapters.items():
        write_notebook(root / "book" / f"{name}.ipynb", cells)
    appendix = [f"appendix/{path.stem}" for path in sorted((root / "book" / "appendix").glob("*.md"))]
    parts = "".join(f"      - file: book/{name}\n" for name in [*chapters, *appendix])
    toc = f"format: jb-book\nroot: book/index\nparts:\n  - caption: All\n    numbered: 2\n    chapters:\n{parts}"
    (root / "_toc.yml").write_text(toc, encoding="utf8")
    return root
