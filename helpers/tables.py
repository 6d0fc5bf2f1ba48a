"""Small tables that read well in a notebook, on the site and in a terminal."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Hashable, Sequence
from html import escape
from numbers import Integral, Real
from typing import ClassVar

import pandas as pd

FIGURES = 3  # significant ones


def format_cell(value: object) -> str:
    """A value as the tables print it: whole numbers with thousands separators, floats with three significant digits.

    A fourth digit is shown where three would make a whole number of one that is not: 0.9996.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    number = float(value)
    if not math.isfinite(number):
        return str(number)
    if number != 0 and not 1e-3 <= abs(number) < 1e6:
        return f"{number:.2g}"
    if abs(number) >= 10**FIGURES:
        return f"{number:,.0f}"
    shown = f"{number:.{FIGURES}g}"
    return f"{number:.{FIGURES + 1}g}" if float(shown).is_integer() else shown


def format_column(values: Sequence[object]) -> list[str]:
    """The cells of a column as the tables print them: its floats with the same number of decimals."""
    floats = [value for value in map(_as_float, values) if value is not None]
    largest = max((abs(number) for number in floats if math.isfinite(number)), default=0.0)
    if not 1e-3 <= largest < 1e6:
        return [format_cell(value) for value in values]
    decimals = min(max(FIGURES - 1 - math.floor(math.log10(largest)), 0), FIGURES)
    if any(number != 0 and round(number, decimals) == 0 for number in floats):
        return [format_cell(value) for value in values]
    while decimals and all(round(n, decimals) == round(n, decimals - 1) for n in floats if math.isfinite(n)):
        decimals -= 1
    pairs = zip(values, map(_as_float, values), strict=True)
    return [format_cell(value) if number is None else f"{number:,.{decimals}f}" for value, number in pairs]


class Table(pd.DataFrame):
    """A DataFrame without an index that shows rounded numbers: HTML in Jupyter, aligned text under `print`."""

    _metadata: ClassVar = ["caption"]  # so that pandas takes it for an attribute
    caption = ""

    def _numeric(self) -> list[Hashable]:
        """The columns that hold numbers only."""
        return [name for name in self if len(self) and all(map(_is_number, self[name]))]

    def _cells(self) -> pd.DataFrame:
        """Every cell as text."""
        return pd.DataFrame({name: format_column(list(self[name])) for name in self}, dtype=object)

    def __str__(self) -> str:
        """Aligned text, numbers to the right; the caption above it."""
        numeric, cells, columns = self._numeric(), self._cells(), []
        for name in self:
            column = pd.Series([name, *cells[name]], dtype=str)
            side = "left" if name in numeric else "right"  # where the blanks go
            columns.append(column.str.pad(column.str.len().max(), side))
        lines = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
        return "\n".join([self.caption, *lines] if self.caption else lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Captioned, every cell escaped; numbers to the right; the first column is a header where it is text."""
        from pandas.io.formats.style import Styler  # with jinja2: only where a table is shown

        numeric, cells, names = self._numeric(), self._cells(), list(self)
        headed = len(names) > 1 and names[0] not in numeric
        if headed:
            cells = cells.set_index(names[0])
            cells.index.name, cells.columns.name = None, escape(str(names[0]))  # the name stands in the corner
        # The same table gets the same id in every run, so that a page built anew is the same file.
        name = hashlib.sha256(str(self).encode()).hexdigest()[:8]
        style = Styler(cells, uuid=name, cell_ids=False).format(escape="html")
        style.format_index(escape="html", axis="columns").format_index(escape="html", axis="index")
        style.set_table_attributes('class="dataframe"')
        if self.caption:
            style.set_caption(escape(self.caption))
        if not headed:
            style.hide(axis="index")
        # Header and cells of a column alike: both carry the class of its position.
        sides = ["right" if name in numeric else "left" for name in names[headed:]]
        styles = [{"selector": f".col{i}", "props": f"text-align: {side}"} for i, side in enumerate(sides)]
        styles.append({"selector": "th.row_heading, th.index_name", "props": "text-align: left"})
        return _scoped(style.set_table_styles(styles).to_html())


def table(rows: Sequence[Sequence[object]], header: Sequence[str], caption: str = "") -> Table:
    """Make a table of `rows`, one sequence of cells a row.

    Args:
        rows: the cells; ints get thousands separators, the floats of a column three significant digits in its largest
            and the same number of decimals, anything else `str`.
        header: the column names, each once.
        caption: what the table shows; it stands above it.

    Returns:
        A `Table`: HTML in a notebook, aligned text under `print`, a DataFrame for everything else.

    Raises:
        ValueError: a row has another number of cells than the header, or the header names a column twice.
    """
    if len(set(header)) < len(header):
        raise ValueError(f"header must name every column once, got {tuple(header)}")
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(
                f"rows[{i}] must have {len(header)} cells, as the header has, got {len(row)}: {tuple(row)}"
            )
    # As objects: a column of 1 and 0.5 stays as it was given.
    frame = Table([list(row) for row in rows], columns=list(header), dtype=object)
    frame.caption = caption
    return frame


def _scoped(html: str) -> str:
    """The table with what every header is a header of, as screen readers want it."""
    html = re.sub(r'<th (?=[^>]*class="(?:col_heading|index_name|blank))', '<th scope="col" ', html)
    return re.sub(r'<th (?=[^>]*class="row_heading)', '<th scope="row" ', html)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _as_float(value: object) -> float | None:
    """A number that is not whole by its type; None for anything else."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool | Integral) else None
