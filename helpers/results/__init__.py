"""Results of runs too long for a page, and of the networks' trainings, as the pages print them.

Each is one file here, a record: how it was made, and one long table of what was measured (`helpers.results._format`).

    >>> from helpers import results
    >>> curves = results.read("retina", "curves")  # a pandas DataFrame
    >>> curves.attrs["command"]
    'python -m helpers.experiments.retina --publish'
    >>> turned = curves.query("network == 'scenes-disc' and metric == 'turned'")
    >>> turned.pivot(index="setting", columns="seed", values="value")  # doctest: +SKIP
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers.results._format import COLUMNS, DIMENSIONS, HEADER, Row, frame, from_text, long_table, to_text, typed

__all__ = [
    "COLUMNS",
    "DIMENSIONS",
    "FOLDER",
    "HEADER",
    "Row",
    "frame",
    "from_text",
    "long_table",
    "names",
    "read",
    "to_text",
]

FOLDER = Path(__file__).resolve().parent


def names() -> list[str]:
    """The names of all records."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def read(name: str, table: str | None = None) -> pd.DataFrame:
    """A record, or one table of it.

    Args:
        name: of the record: of a long run, for example "localization", or of a network, for example "photos-gap".
        table: a part of the record; None reads all, with the column `table`.

    Returns:
        One row for each number, in the columns of `DIMENSIONS` that are not empty, then `value`, and `error` and `n`
        where there are any. The header is in `attrs`, with the keys of `HEADER` and perhaps more.

    Raises:
        ValueError: there is no such record, or it has no such table; near names are given.
    """
    _known("name", name, names())
    try:
        rows = from_text((FOLDER / f"{name}.csv").read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the record {name}.csv is damaged ({error}): install the package again") from error
    if table is None:
        return rows
    _known("table", table, list(rows["table"].unique()))
    part = typed(rows[rows["table"] == table].drop(columns="table").reset_index(drop=True))
    part.attrs = rows.attrs
    return part


def _known(what: str, name: str, choices: Sequence[str]) -> None:
    """Refuse a name that is none of the choices; the message gives those that are near."""
    if name not in choices:
        near = difflib.get_close_matches(str(name), choices, n=3) or choices
        raise ValueError(f"{what} must be one of {', '.join(map(repr, near))}, got {name!r}")
