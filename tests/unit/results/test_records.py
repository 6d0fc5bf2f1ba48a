"""All records that the package carries: one schema, and what reading them gives."""

from __future__ import annotations

import pandas as pd
import pytest
from support.records import check_record

from helpers import networks, results
from helpers.results import FOLDER

NAMES = results.names()


def test_every_network_and_every_long_run_has_its_record():
    runs = {"background", "licnn", "localization", "matrix", "retina", "search", "similarnet", "whatwhere"}
    assert set(NAMES) == runs | {card.name for card in networks.available()}
    assert sorted(path.name for path in FOLDER.iterdir() if path.suffix not in (".csv", ".py", "")) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_record_keeps_the_schema(name):
    check_record(results.read(name), name)


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_written_as_it_was_read(name):
    record = results.read(name)
    assert results.to_text(record.attrs, record) == (FOLDER / f"{name}.csv").read_text(encoding="utf8")


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_of_a_record_are_its_parts(name):
    record = results.read(name)
    parts = []
    for table in record["table"].unique():
        part = results.read(name, table)
        assert "table" not in part
        assert part.attrs == record.attrs
        assert part.drop(columns="value").notna().any().all()  # empty columns go
        assert part.index.tolist() == list(range(len(part)))
        parts.append(part["value"])
    assert pd.concat(parts).notna().sum() == record["value"].notna().sum()


def test_an_unknown_record_names_the_near_ones():
    with pytest.raises(ValueError, match=r"name must be one of 'localization'.*, got 'localisation'"):
        results.read("localisation")


def test_an_unknown_table_names_the_near_ones():
    with pytest.raises(ValueError, match=r"table must be one of 'curves', got 'curve'"):
        results.read("retina", "curve")
    with pytest.raises(ValueError, match=r"table must be one of 'curves', got 'nothing'"):
        results.read("retina", "nothing")


def test_numbers_that_a_page_quotes():
    curves = results.read("retina", "curves")
    assert curves.columns.tolist() == ["network", "seed", "set", "metric", "setting", "value", "error", "n"]
    row = curves.query("network == 'scenes-disc' and seed == 0 and metric == 'turned' and setting == 22.5")
    assert row["value"].tolist() == [0.8025]
    assert row["error"].tolist() == [0.008904]
    assert curves.attrs["seeds"] == {"scenes": [0, 1, 2], "photos": [0, 1]}
    assert results.read("scenes-gap", "accuracy")["value"].tolist() == [0.9895, 0.9865, 0.9935]
