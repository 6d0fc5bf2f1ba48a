"""Small tables that read well in a notebook, on the site and in a terminal."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass


def format_cell(value: object) -> str:
    """A value as the tables print it: whole numbers with thousands separators, floats with four significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    return f"{value:.2e}" if value != 0 and not 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


@dataclass(frozen=True, repr=False)
class Table:
    """Rows under a header; Jupyter shows it as HTML, `print` as aligned text."""

    header: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    def __str__(self) -> str:
        """Aligned text, numbers to the right."""
        lines = [self.header, *(tuple(map(format_cell, row)) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        right = [self._numeric(i) for i in range(len(self.header))]
        return "\n".join(
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
            for line in lines
        )

    __repr__ = __str__

    def _numeric(self, column: int) -> bool:
        """Whether the column holds numbers only."""
        return bool(self.rows) and all(
            isinstance(row[column], int | float) and not isinstance(row[column], bool) for row in self.rows
        )

    def _repr_html_(self) -> str:
        align = ["right" if self._numeric(i) else "left" for i in range(len(self.header))]

        def line(tag: str, cells: Sequence[str]) -> str:
            made = (
                f'<{tag} style="text-align:{a}">{html.escape(c)}</{tag}>' for c, a in zip(cells, align, strict=True)
            )
            return f"<tr>{''.join(made)}</tr>"

        body = "".join(line("td", [format_cell(c) for c in row]) for row in self.rows)
        return f'<table class="dataframe"><thead>{line("th", self.header)}</thead><tbody>{body}</tbody></table>'


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> Table:
    """Make a table of `rows`, one sequence of cells a row.

    Args:
        rows: the cells; ints get thousands separators, floats four significant digits, anything else `str`.
        header: the column names.

    Returns:
        A `Table`: HTML in a notebook, aligned text under `print`.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"rows[{i}] has {len(row)} cells, but the header has {len(header)}: {tuple(header)}")
    return Table(tuple(header), tuple(tuple(row) for row in rows))
