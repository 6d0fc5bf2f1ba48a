"""Rows of records, picked out by what they say."""

import pandas as pd

from helpers import results


def select(rows, **where):
    """The rows (a list of dictionaries, or a table) with these values, as a table; columns that are empty there go."""
    table = rows if isinstance(rows, pd.DataFrame) else results.frame(rows)
    for column, value in where.items():
        table = table[table[column] == value]
    return table.dropna(axis="columns", how="all")


def pick(rows, **where):
    """The one row with these values."""
    table = select(rows, **where)
    assert len(table) == 1, table.to_string()
    return table.iloc[0]


def assert_same_form(rows, name, ways=("table", "variant", "method", "metric")):
    """A small run's rows have the tables, columns, metrics and so on of the published record; `ways`: the same ones."""
    published = results.read(name)
    assert_same_rows(rows, published, ways=ways)
    for table, part in rows.groupby("table"):
        same = results.read(name, table)
        assert list(select(part).drop(columns="table").columns) == list(same.columns), table
        for column in {"metric", "variant", "set", "method"} & set(same.columns):
            assert set(part[column].dropna()) <= set(same[column].dropna()), (table, column)


def assert_same_rows(rows, published, networks=None, ways=("table", "network", "variant", "set", "method", "metric")):
    """A small run's rows, or a table, say of the same things as the published record: none is gone, none is new.

    Args:
        rows: of the small run.
        published: the record.
        networks: that the small run measured, where these are not all.
        ways: the columns that are compared.
    """
    table = rows if isinstance(rows, pd.DataFrame) else results.frame(rows)
    if networks is not None:
        published = published[published["network"].isin(networks) | published["network"].isna()]
    columns = [column for column in ways if column in published]
    expected, actual = (set(part[columns].fillna("").itertuples(index=False, name=None)) for part in (published, table))
    assert actual == expected, f"gone: {sorted(expected - actual)[:5]}, new: {sorted(actual - expected)[:5]}"
