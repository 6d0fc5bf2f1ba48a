"""Results of runs too long for a chapter, as the chapters print them.

Every file here is a copy of the one of the same name in the book's `book/results`, so that a chapter that runs alone,
with nothing but the installed package, can show it. Each holds its command, the data's hash, commit and versions.
"""

import difflib
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


def recorded(name: str) -> dict[str, Any]:
    """The record of a long run.

    Args:
        name: of the run, for example "localization".

    Raises:
        ValueError: there is no such record; near names are given.
    """
    names = sorted(path.stem for path in FOLDER.glob("*.json"))
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=3) or names
        raise ValueError(f"name: got {name!r}, want one of {', '.join(near)}")
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf8"))
