"""The form of a record: rows from nested measurements, and a file that gives back what was written."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers.results import COLUMNS, DIMENSIONS, HEADER, frame, from_text, long_table, to_text

ABOUT = dict.fromkeys(HEADER) | {"name": "Übung # 1", "settings": {"sizes": [1, 2.5]}}
NAN = math.nan


def test_nested_measurements_by_hand():
    nested = {"disc": {"0": {"hits": [{"mean": 0.5, "error": 0.1}, {"mean": 1.0, "error": None, "n": 3}], "views": 50}}}
    assert long_table(nested, "network", "seed", "metric", "step", table="policies", set="scenes") == [
        {"table": "policies", "set": "scenes", "network": "disc", "seed": "0", "metric": "hits", "step": 0,
         "value": 0.5, "error": 0.1},
        {"table": "policies", "set": "scenes", "network": "disc", "seed": "0", "metric": "hits", "step": 1,
         "value": 1.0, "error": None, "n": 3},
        {"table": "policies", "set": "scenes", "network": "disc", "seed": "0", "metric": "views", "value": 50},
    ]  # fmt: skip


def test_a_number_alone_arrays_and_tensors():
    assert long_table(0.25, table="a") == [{"table": "a", "value": 0.25}]
    grid = [[1.0, 2.0], [3.0, 4.0]]
    expected = [{"y": y, "x": x, "value": grid[y][x]} for y in (0, 1) for x in (0, 1)]
    for values in (grid, tuple(map(tuple, grid)), np.array(grid), torch.tensor(grid)):
        assert long_table(values, "y", "x") == expected


def test_rows_that_say_too_little_are_refused():
    with pytest.raises(ValueError, match=r"dimensions must be of .*, got kind"):
        long_table({"a": 1}, "kind")
    with pytest.raises(ValueError, match=r"dimensions must be of .*, got where"):
        long_table(1, where="here")
    with pytest.raises(ValueError, match=r"one level for each of dimensions"):
        long_table({"a": {"b": 1}}, "method")
    with pytest.raises(ValueError, match=r"rows must have columns of .*, got way"):
        frame([{"table": "a", "way": "b", "value": 1}])
    with pytest.raises(ValueError, match="rows must differ in a dimension"):
        frame([{"table": "a", "seed": 0, "value": 1}, {"table": "a", "seed": "0", "value": 2}])


def test_a_table_has_types_and_no_empty_columns():
    rows = [
        {"value": 1, "table": "a", "setting": "0.7", "seed": "1", "error": None, "method": "m"},
        {"value": None, "table": "b", "step": 2, "seed": 0, "error": NAN, "method": None},
    ]
    table = frame(rows)
    assert table.columns.tolist() == ["table", "seed", "method", "setting", "step", "value"]
    assert {name: str(table[name].dtype) for name in ("seed", "setting", "step", "value")} == {
        "seed": "int64", "setting": "float64", "step": "Int64", "value": "float64"
    }  # fmt: skip
    assert table["setting"].tolist()[0] == 0.7
    assert table["step"].isna().tolist() == [True, False]
    assert set(DIMENSIONS) < set(COLUMNS)


def test_a_file_gives_back_what_was_written():
    rows = [
        {"table": "a", "method": "None", "variant": "012", "label": 3, "value": 0.1 + 0.2, "error": 1e-300},
        {"table": "a", "method": 'with, "quotes"', "variant": "nan", "label": 4, "value": NAN, "n": 7},
        {"table": "b", "setting": 1 / 3, "value": -1e22},
    ]
    text = to_text(ABOUT, rows)
    assert text.startswith('# {\n#  "name": "Übung # 1",\n')
    assert "\ntable,variant,method,label,setting,value,error,n\n" in text
    table = from_text(text)
    assert table.attrs == ABOUT
    assert table["value"].tolist()[::2] == [0.1 + 0.2, -1e22]  # to the last bit
    assert table["error"][0] == 1e-300
    assert table["setting"][2] == 1 / 3
    assert table["method"].tolist()[:2] == ["None", 'with, "quotes"']
    assert table["variant"].tolist()[:2] == ["012", "nan"]
    assert table.isna().sum(axis=1).tolist() == [2, 3, 5]
    assert to_text(table.attrs, table) == text


def test_a_header_needs_its_keys_and_knows_no_nan():
    with pytest.raises(ValueError, match=r"header must have the keys .* got none of the name data, seeds"):
        to_text({key: None for key in HEADER if key not in ("data", "seeds")}, [])
    with pytest.raises(ValueError, match="Out of range"):
        to_text(ABOUT | {"published": {"a": NAN}}, [{"table": "a", "value": 1}])


@pytest.mark.parametrize("cut", ["", "<html>", to_text(ABOUT, [{"table": "a", "value": 1}])[:-3], "# {}\n"])
def test_a_cut_record_is_none(cut):
    with pytest.raises(ValueError, match="text must be a record: a header"):
        from_text(cut)
