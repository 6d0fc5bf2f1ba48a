from pathlib import Path

import pytest
from support.trainings import TINY

from helpers.experiments.train import command


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory) -> Path:
    """The folder of a run that was left alone; nobody writes into it."""
    out = tmp_path_factory.mktemp("uninterrupted")
    assert command.main([*TINY, "--out", str(out)]) == 0
    return out
