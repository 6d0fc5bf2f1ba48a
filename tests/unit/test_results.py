"""Recorded results: the copy that the package carries, and what must be told of each run."""

import json
from pathlib import Path

import pytest

from helpers.results import FOLDER, recorded

RESULTS = Path(__file__).resolve().parents[1] / "book" / "results"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def test_there_are_records():
    assert "localization" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_packages_copy_is_the_books(name):
    assert (FOLDER / f"{name}.json").read_bytes() == (RESULTS / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_record_says_where_it_comes_from(name):
    found = recorded(name)
    assert found["name"] == name
    assert found["command"].startswith(f"python -m helpers.experiments.{name}")
    assert {"commit", "python", "torch", "device"} <= found["facts"].keys()
    assert all(len(digest) == 64 for digest in found["data"].values())


def test_an_unknown_record_names_the_near_ones():
    with pytest.raises(ValueError, match="localization"):
        recorded("localisation")


def test_a_record_is_json_without_nan():
    for name in NAMES:
        json.loads((FOLDER / f"{name}.json").read_text(), parse_constant=pytest.fail)
