"""The training that tests of the command line run: seconds long, six epochs to be stopped in."""

from pathlib import Path

import pytest

from helpers.experiments.train import command

TINY = ["scenes-gap", "--images", "192", "--epochs", "6", "--seeds", "3", "--device", "cpu", "--quiet"]
RUN = Path("scenes-gap", "seed-3")  # below --out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command line says when it does not do what it is told to."""
    assert command.main(list(arguments)) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("error: ")
    return captured
