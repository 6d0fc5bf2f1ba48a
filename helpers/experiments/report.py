"""The command line of the long runs whose results a chapter prints."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.data import DataMissing
from helpers.device import best_device
from helpers.experiments.environment import ROOT
from helpers.experiments.train.trainer import RunError, write_safely
from helpers.results import FOLDER


def run_record(
    name: str,
    about: str,
    record: Callable[[Path, torch.device], dict[str, Any]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Measure something at full scale and write it down: into --out, or, with --publish, where the book reads it.

    Args:
        name: of the record and of the module that makes it.
        about: one line.
        record: makes it, given the folder of the runs and a device.
        arguments: the command line, by default the process's own.

    Returns:
        The exit status: 0, or 1 after saying what is wrong.
    """
    parser = argparse.ArgumentParser(prog=f"python -m helpers.experiments.{name}", description=about)
    parser.add_argument("--data", metavar="DIR", help="folder of the real data (default: $HELPERS_DATA)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs", name), help="where the runs lie")
    parser.add_argument("--device", help="cpu, cuda, mps ... (default: the best there is)")
    parser.add_argument("--publish", action="store_true", help="make the record that of the book (checkout)")
    options = parser.parse_args(arguments)
    if options.data:
        os.environ["HELPERS_DATA"] = options.data
    try:
        device = _device(options.device)
        # All that can fail is tried before the hours of measuring.
        options.out.mkdir(parents=True, exist_ok=True)
        folders = [ROOT / "book" / "results", FOLDER] if options.publish else [options.out]
        missing = [str(folder) for folder in folders if not folder.is_dir()]
        if missing:
            raise RunError(f"--publish works in a checkout of the book only: there is no {missing[0]}")
        found = record(options.out, device)
    except (RunError, DataMissing, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # NaN, where there was nothing to measure, is written as null: JSON knows no NaN, and nothing measured is lost.
    text = (json.dumps(_plain(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    for folder in folders:
        write_safely(folder / f"{name}.json", text)
        print(folder / f"{name}.json")
    return 0


def summary(values: Tensor) -> dict[str, float]:
    """Mean and standard error of (N,) numbers, without those that are NaN."""
    known = values[~values.isnan()].cpu().double()
    spread = known.std().item() / len(known) ** 0.5 if len(known) > 1 else float("nan")
    return {"mean": known.mean().item() if len(known) else float("nan"), "error": spread}


def rounded(value: Any) -> Any:
    """The same with every number to six decimals, which halves the record."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


def cached_part(path: Path, make: Callable[[], dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """A part of a long record: what an earlier run left in a file, or made now and left there for the next one.

    Args:
        path: of the file, JSON.
        make: makes the part, of what JSON knows.
        settings: what the part depends on beside the code; a file with other settings is made anew.

    Raises:
        RunError: a file that is damaged.
    """
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf8"))
            if found["settings"] == settings:
                return found["part"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error!s:.80}): remove it") from error
    part = _plain(make())
    write_safely(path, json.dumps({"settings": settings, "part": part}).encode())
    return part


def _device(name: str | None) -> torch.device:
    """The device of the command line, or the best there is; RunError where there is no such device."""
    try:
        device = torch.device(name) if name else best_device()
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        raise RunError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def _plain(value: Any) -> Any:
    """The same with None in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
