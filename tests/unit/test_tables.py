import re

import numpy as np
import pytest

from helpers.tables import format_cell, table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (107_786, "107,786"),
        (0.5, "0.5"),
        (0.123456, "0.1235"),
        (0, "0"),
        (0.0, "0"),
        (3e-7, "3.00e-07"),
        (2.5e7, "2.50e+07"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (True, "True"),
        ("conv1", "conv1"),
        ((6, 28, 28), "(6, 28, 28)"),
        (np.int64(1200), "1,200"),
        (np.float32(0.5), "0.5"),
    ],
)
def test_cells_read_well(value, shown):
    assert format_cell(value) == shown


def test_text_aligns_numbers_to_the_right():
    shown = str(table([("a", 5), ("bcd", 1200)], ["name", "count"]))
    assert str(table([], ["a", "b"])) == "a  b"
    assert shown == "name  count\na         5\nbcd   1,200"


def test_html_is_escaped_and_aligned():
    shown = table([("<b>", 1)], ["a & b", "n"])._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    assert "a &amp; b" in shown
    assert re.search(r"\.col0 {\s*text-align: left", shown)
    assert re.search(r"\.col1 {\s*text-align: right", shown)
    assert re.search(r'<th [^>]*class="col_heading level0 col1"', shown), "the header is aligned as its column"


def test_a_truth_value_is_no_number():
    assert re.search(r"\.col0 {\s*text-align: left", table([(True,)], ["holds"])._repr_html_())


def test_a_ragged_row_and_a_column_named_twice_are_refused():
    with pytest.raises(ValueError, match=r"rows\[1\] must have 2 cells, as the header has, got 1"):
        table([(1, 2), (3,)], ["a", "b"])
    with pytest.raises(ValueError, match="header must name every column once"):
        table([(1, 2)], ["a", "a"])


def test_a_table_is_a_frame_that_keeps_its_cells():
    shown = table([("a", 1), ("b", 0.5)], ["name", "value"])
    assert shown["value"].tolist() == [1, 0.5]
    assert str(shown).splitlines()[1] == "a         1"  # not 1.0
