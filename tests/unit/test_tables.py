import re

import numpy as np
import pytest

from helpers.tables import format_cell, format_column, table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (107_786, "107,786"),
        (0.5, "0.5"),
        (0.123456, "0.123"),
        (0.9996, "0.9996"),
        (0.99999, "1"),
        (99.96, "99.96"),
        (1234.5, "1,234"),
        (1054.0, "1,054"),
        (0, "0"),
        (0.0, "0"),
        (3e-7, "3e-07"),
        (2.5e7, "2.5e+07"),
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


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.98765, 0.5], ["0.988", "0.500"]),
        ([0.5, 0.25], ["0.50", "0.25"]),
        ([12.345, 1.0], ["12.3", "1.0"]),
        ([1, 0.5], ["1", "0.5"]),
        ([0.9, 1e-6], ["0.9", "1e-06"]),
        ([250.4, 3.7], ["250", "4"]),
        ([1e7, 2.5], ["1e+07", "2.5"]),
        ([0.5, float("nan"), "none"], ["0.5", "nan", "none"]),
        ([0.0, 0.0], ["0", "0"]),
        ([], []),
    ],
)
def test_the_floats_of_a_column_have_the_same_decimals(values, shown):
    assert format_column(values) == shown


def test_html_is_escaped_and_aligned():
    shown = table([("<b>", 1)], ["a & b", "n"], "c < d")._repr_html_()
    assert "<b>" not in shown
    assert '<th scope="row" class="row_heading level0 row0" >&lt;b&gt;</th>' in shown
    assert '<th scope="col" class="index_name level0" >a &amp; b</th>' in shown
    assert "<caption>c &lt; d</caption>" in shown
    assert re.search(r"\.col0 {\s*text-align: right", shown)
    assert '<th scope="col" class="col_heading level0 col0"' in shown, "the header is aligned as its column"


def test_the_same_table_is_the_same_html_and_another_is_not():
    rows = [("a", 1)]
    shown = table(rows, ["name", "n"])._repr_html_()
    assert shown == table(rows, ["name", "n"])._repr_html_()
    assert shown.split()[2] != table(rows, ["name", "m"])._repr_html_().split()[2]  # its id


def test_a_table_of_numbers_only_has_no_row_headers():
    assert 'scope="row"' not in table([(1, 2.5)], ["a", "b"])._repr_html_()


def test_the_caption_stands_above_the_text():
    assert str(table([("a", 5)], ["name", "count"], "How many")) == "How many\nname  count\na         5"


def test_a_truth_value_is_no_number():
    assert re.search(r"\.col0 {\s*text-align: left", table([("a", True)], ["name", "holds"])._repr_html_())


def test_a_ragged_row_and_a_column_named_twice_are_refused():
    with pytest.raises(ValueError, match=r"rows\[1\] must have 2 cells, as the header has, got 1"):
        table([(1, 2), (3,)], ["a", "b"])
    with pytest.raises(ValueError, match="header must name every column once"):
        table([(1, 2)], ["a", "a"])


def test_a_table_is_a_frame_that_keeps_its_cells():
    shown = table([("a", 1), ("b", 0.5)], ["name", "value"])
    assert shown["value"].tolist() == [1, 0.5]
    assert str(shown).splitlines()[1] == "a         1"  # not 1.0
