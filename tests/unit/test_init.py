"""`import helpers` alone."""

import subprocess
import sys
from pathlib import Path

import pytest

import helpers

FRESH = """
import sys, helpers
assert "torch" not in sys.modules, "importing the package alone must be quick"
assert "cam" in dir(helpers)
assert helpers.tables.format_cell(1200) == "1,200"
"""


def test_a_room_is_imported_when_it_is_first_named():
    subprocess.run([sys.executable, "-c", FRESH], check=True)


def test_all_rooms_are_listed():
    folder = Path(helpers.__file__).parent
    modules = {path.stem for path in folder.glob("[a-z]*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    assert set(helpers.ROOMS) == modules - {"experiments"}  # long runs are commands, not for import


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'helpers' has no attribute 'polar'"):
        helpers.polar
