"""Notebooks made of a few cells, for books that are there to be broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def markdown(source: str) -> dict[str, Any]:
    """A markdown cell."""
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, *tags: str, **metadata: Any) -> dict[str, Any]:
    """A code cell with tags and other metadata."""
    about = metadata | ({"tags": list(tags)} if tags else {})
    return {"cell_type": "code", "execution_count": None, "metadata": about, "outputs": [], "source": source}


def write_notebook(path: Path, cells: list[dict[str, Any]]) -> None:
    """Write cells as a notebook; each gets an id."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    numbered = [{"id": f"cell-{index}"} | cell for index, cell in enumerate(cells)]
    notebook = {"cells": numbered, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf8")
