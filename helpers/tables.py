"""Small tables that read well in a notebook, on the site and in a terminal."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from numbers import Integral, Real

import pandas as pd


def format_cell(value: object) -> str:
    """A value as the tables print it: whole numbers with thousands separators, floats with four significant digits."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        return str(number)
    return f"{number:.2e}" if number != 0 and not 1e-3 <= abs(number) < 1e6 else f"{number:.4g}"


class Table(pd.DataFrame):
    """A DataFrame without an index that shows rounded numbers: HTML in Jupyter, aligned text under `print`."""

    def _numeric(self) -> list[Hashable]:
        """The columns that hold numbers only."""
        return [name for name in self if len(self) and all(map(_is_number, self[name]))]

    def __str__(self) -> str:
        """Aligned text, numbers to the right."""
        numeric, columns = self._numeric(), []
        for name in self:
            cells = pd.Series([name, *map(format_cell, self[name])], dtype=str)
            side = "left" if name in numeric else "right"  # where the blanks go
            columns.append(cells.str.pad(cells.str.len().max(), side))
        return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Numbers to the right, text to the left, every cell escaped."""
        numeric = self._numeric()
        style = pd.DataFrame(self).style.format(format_cell, escape="html").format_index(escape="html", axis="columns")
        style.hide(axis="index").set_table_attributes('class="dataframe"')
        sides = ["right" if name in numeric else "left" for name in self]
        # Header and cells of a column alike: both carry the class of its position.
        return style.set_table_styles(
            [{"selector": f".col{i}", "props": f"text-align: {side}"} for i, side in enumerate(sides)]
        ).to_html()


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> Table:
    """Make a table of `rows`, one sequence of cells a row.

    Args:
        rows: the cells; ints get thousands separators, floats four significant digits, anything else `str`.
        header: the column names, each once.

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
    return Table([list(row) for row in rows], columns=list(header), dtype=object)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
