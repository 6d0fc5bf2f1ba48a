"""The form of a record: a header, then one long table.

A record is one file, `NAME.csv`. Its first lines start with "# " and hold one JSON object, the header (`HEADER`). A CSV
follows, one measured number a row: to which `table` of the record it belongs, what it was measured of (`DIMENSIONS`; a
table leaves those empty that it does not need), the `value`, its standard `error` where it has one, and `n`, of how
many images or places it is the mean, where that is known. What is empty was not measured, or is not defined.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

# Every record's header has these keys; it may have more.
HEADER = {
    "name": "of the record",
    "command": "that makes it",
    "commit": "of the code that made it",
    "device": "on which it was made",
    "threads": "of the processor",
    "versions": "of Python and torch: {name: version}",
    "data": "SHA-256 of the data: {set: hash}",
    "seeds": "of networks or draws; a list, or {set: list}",
    "settings": "on which the numbers depend: {name: value}",
    "published": "numbers of the source, with the source; empty where there are none",
}
DIMENSIONS = {
    "network": "the network, as `helpers.networks.load` knows it",
    "seed": "of its training, or of the draw",
    "set": "the images: a world, a data set, a part of one",
    "variant": "what was changed of the network, of the images or of the probabilities",
    "method": "that makes the maps, the boxes or the answers; of a search, its policy",
    "layer": "the layer",
    "unit": "a feature map of the layer, from 0",
    "label": "a class, from 0",
    "metric": "what was measured",
    "setting": "a number along an axis: a threshold, an angle, pixels; the page or `settings` says which",
    "step": "a count: of epochs, of saccades, of a run's steps",
    "x": "column of a map, from 0",
    "y": "row of a map, from 0",
}
NUMBERS = ("value", "error", "n")
COLUMNS = ("table", *DIMENSIONS, *NUMBERS)
INTEGERS = ("seed", "unit", "label", "step", "x", "y", "n")
FLOATS = ("setting", "value", "error")
Row = dict[str, Any]


def long_table(nested: Any, *dimensions: str, **constants: Any) -> list[Row]:
    """The rows of nested measurements: one for each number.

    Args:
        nested: dictionaries in dictionaries, one level for each of `dimensions`, whose keys become the values of that
            column; a list counts its positions from 0. At the ends are numbers, or dictionaries of "mean", "error" and
            perhaps "n"; None is a number that is not defined. An end above the last level leaves the rest empty.
        dimensions: columns, from the outermost level to the innermost.
        constants: columns that are the same in all rows, `table` among them.

    Raises:
        ValueError: a column that no record has, or levels without a name.
    """
    unknown = sorted({*dimensions, *constants} - set(COLUMNS))
    if unknown:
        raise ValueError(f"dimensions must be of {', '.join(COLUMNS)}, got {', '.join(unknown)}")
    return [{**constants, **row} for row in _rows(nested, dimensions)]


def _rows(nested: Any, dimensions: Sequence[str]) -> Iterator[Row]:
    if hasattr(nested, "tolist"):  # an array or a tensor
        nested = nested.tolist()
    if isinstance(nested, Mapping) and "mean" in nested and set(nested) <= {"mean", "error", "n"}:
        yield {"value": nested["mean"], **{key: nested[key] for key in ("error", "n") if key in nested}}
    elif isinstance(nested, (Mapping, list, tuple)):
        if not dimensions:
            raise ValueError(f"nested must have one level for each of dimensions, got one more: {nested!r:.80}")
        items = nested.items() if isinstance(nested, Mapping) else enumerate(nested)
        for key, inner in items:
            for row in _rows(inner, dimensions[1:]):
                yield {dimensions[0]: key, **row}
    else:
        yield {"value": nested}


def frame(rows: Iterable[Row] | pd.DataFrame) -> pd.DataFrame:
    """The rows as a table: columns in the order of `COLUMNS`, without empty ones, numbers as numbers.

    Whole numbers are int64, or Int64 where some are missing; `setting`, `value` and `error` are float64.

    Raises:
        ValueError: a column that no record has, or two rows that say what they measure in the same words.
    """
    table = pd.DataFrame(rows if isinstance(rows, pd.DataFrame) else list(rows))
    unknown = sorted(set(table.columns) - set(COLUMNS))
    if unknown:
        raise ValueError(f"rows must have columns of {', '.join(COLUMNS)}, got {', '.join(unknown)}")
    table = typed(table)
    twice = table[table.duplicated([name for name in table.columns if name not in NUMBERS], keep=False)]
    if len(twice):
        raise ValueError(f"rows must differ in a dimension, got\n{twice.head(4).to_string()}")
    return table


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table without empty columns (but for `value`), in order, with each column's type."""
    names = [name for name in COLUMNS if name == "value" or (name in table.columns and table[name].notna().any())]
    table = table.reindex(columns=names)
    for name in names:
        if name in FLOATS:
            table[name] = pd.to_numeric(table[name]).astype("float64")
        elif name in INTEGERS:
            whole = pd.to_numeric(table[name])
            table[name] = whole.astype("Int64" if whole.isna().any() else "int64")
    return table


def to_text(header: Mapping[str, Any], rows: Iterable[Row] | pd.DataFrame) -> str:
    """A record as its file holds it.

    Args:
        header: at least the keys of `HEADER`.
        rows: as `long_table` makes them, or a table of them.

    Raises:
        ValueError: a header without a key, an unknown column, two rows of the same words.
    """
    missing = [key for key in HEADER if key not in header]
    if missing:
        raise ValueError(f"header must have the keys {', '.join(HEADER)}, got none of the name {', '.join(missing)}")
    lines = json.dumps(header, indent=1, ensure_ascii=False, allow_nan=False).split("\n")
    return "".join(f"# {line}\n" for line in lines) + frame(rows).to_csv(index=False, lineterminator="\n")


def from_text(text: str) -> pd.DataFrame:
    """A record from its file's text: the whole table, the header in `attrs`.

    Raises:
        ValueError: a text that is no record, or was cut.
    """
    lines = text.split("\n")
    start = next((position for position, line in enumerate(lines) if not line.startswith("# ")), 0)
    if start == 0 or lines[-1] or lines[start].split(",")[0] != COLUMNS[0]:
        raise ValueError("text must be a record: a header in lines that begin with '# ', a table, and an end of line")
    body = io.StringIO("\n".join(lines[start:]))
    # Only what is empty is missing: a method may be called "None". Numbers come back to the last bit.
    words = {name: str for name in COLUMNS if name not in INTEGERS}
    table = pd.read_csv(body, dtype=words, keep_default_na=False, na_values=[""])
    for name in set(FLOATS) & set(table.columns):  # pandas' own parser may miss the last bit
        table[name] = table[name].map(float, na_action="ignore")
    table = typed(table)
    table.attrs = json.loads("".join(line[2:] for line in lines[:start]))
    return table
