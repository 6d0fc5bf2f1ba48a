"""What stops a run with a plain message, and files that are never half written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from helpers.training import LossError


class RunError(Exception):
    """A run that cannot be started or gone on with; the message says why and what to do."""


@contextmanager
def values_refused() -> Iterator[None]:
    """Say what a check of the command line's values says; around such checks alone, so that no bug loses its traceback.

    Raises:
        RunError: a ValueError inside.
    """
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error


@contextmanager
def damage_refused(checkpoint: Path, remedy: str) -> Iterator[None]:
    """Say that a checkpoint is damaged, and what to do, whatever goes wrong while it is read.

    Raises:
        RunError: the one raised inside, or that the file is damaged.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # torch.load has no error of its own: anything may come out of a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{checkpoint} is damaged ({reason:.80}); {remedy}") from error


@contextmanager
def divergence_refused() -> Iterator[None]:
    """Say that a training that diverged can be gone on with before it did.

    Raises:
        RunError: the loss inside is no longer finite.
    """
    try:
        yield
    except LossError as error:
        stopped = f"the loss became {error.value} in epoch {error.epoch + 1}"
        raise RunError(f"{stopped}: the last checkpoint is kept") from error


def write_safely(path: Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new one is whole."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint likewise."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
