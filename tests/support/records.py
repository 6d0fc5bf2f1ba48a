"""The schema that every record keeps, and what tests of records share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import results


def check_record(record: pd.DataFrame, name: str) -> None:
    """Whether a record has the header and the columns that `helpers.results` promises."""
    header = record.attrs
    assert set(results.HEADER) <= set(header)
    assert header["name"] == name
    assert header["command"].startswith("python -m helpers.experiments.")
    assert name in header["command"].split()[2].split(".") + header["command"].split()[3:4]
    assert re.fullmatch(r"[0-9a-f]{12}\+?|version .+", header["commit"])
    assert {"python", "torch"} <= set(header["versions"])
    assert header["device"]
    assert header["threads"] >= 1
    assert header["data"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in header["data"].values())
    assert header["seeds"]
    assert header["published"] == {} or header["published"]["source"]
    assert list(record.columns) == [column for column in results.COLUMNS if column in record.columns]
    assert record["table"].notna().all()
    assert not record.duplicated([column for column in record.columns if column not in ("value", "error", "n")]).any()
    for table, rows in record.groupby("table"):
        assert rows["value"].notna().any(), table
        assert "error" not in rows or (rows["error"].dropna() >= 0).all(), table


def read_back(path: Path) -> pd.DataFrame:
    """The record of a file, if it keeps the schema."""
    record = results.from_text(path.read_text(encoding="utf8"))
    check_record(record, path.stem)
    return record


def numbers(nested: Any) -> Iterator[float]:
    """Every number at the ends of nested dictionaries and lists, without NaN."""
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, (list, tuple)):
        for inner in nested:
            yield from numbers(inner)
    elif nested is not None and not isinstance(nested, str) and not math.isnan(nested):
        yield float(nested)


def counted(rows: list[dict[str, Any]]) -> Counter[float]:
    """How often each number stands in rows as value or error."""
    return Counter(numbers([[row.get("value"), row.get("error")] for row in rows]))
