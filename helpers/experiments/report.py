"""What the long runs share: their command line, and what a record is made of."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from helpers.data import DataMissing, data_dir
from helpers.device import usable_device
from helpers.experiments.environment import ROOT
from helpers.experiments.run_files import RunError, values_refused, write_safely
from helpers.metrics import box_iou
from helpers.networks import WeightsError
from helpers.results import FOLDER
from helpers.results._format import Row, to_text


class Record(NamedTuple):
    """What a long run leaves behind.

    Attributes:
        header: how it was made, with the keys of `helpers.results.HEADER`, see `header`.
        rows: what was measured, see `helpers.results.long_table`; or `frame(rows).round(6)`, half as large.
    """

    header: dict[str, Any]
    rows: list[Row] | pd.DataFrame


def header(
    name: str,
    environment: Mapping[str, Any],
    *,
    data: Mapping[str, str],
    seeds: Sequence[int] | Mapping[str, Sequence[int]],
    settings: Mapping[str, Any],
    published: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """The header of a record.

    Args:
        name: of the record and of the module that makes it.
        environment: as `run_environment` gives it.
        data: SHA-256 of every set of data that was measured on.
        seeds: of networks or draws.
        settings: on which the numbers depend, of what JSON knows.
        published: numbers of the source, with the source.
        command: that makes it, by default the module's.
    """
    return {
        "name": name,
        "command": command or f"python -m helpers.experiments.{name} --publish",
        **{key: environment[key] for key in ("commit", "device", "threads")},
        "versions": {key: environment[key] for key in ("python", "torch")},
        "data": dict(data),
        "seeds": {key: list(some) for key, some in seeds.items()} if isinstance(seeds, Mapping) else list(seeds),
        "settings": dict(settings),
        "published": dict(published or {}),
    }


def run_record(
    name: str,
    about: str,
    record: Callable[[Path, torch.device], Record],
    arguments: Sequence[str] | None = None,
) -> int:
    """Measure something at full scale and write it down: into --out, or, with --publish, where the book reads it.

    Args:
        name: of the record and of the module that makes it.
        about: one line.
        record: makes it, given the folder of the runs and a device.
        arguments: the command line, by default the process's own.

    Returns:
        The exit status, see `exit_status`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m helpers.experiments.{name}", description=about)
    parser.add_argument("--data", metavar="DIR", type=Path, help="folder of the real data (default: $HELPERS_DATA)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs", name), help="where the runs lie")
    parser.add_argument("--device", help="cpu, cuda, mps ... (default: the best there is)")
    parser.add_argument("--publish", action="store_true", help="make the record that of the book (checkout)")
    options = parser.parse_args(arguments)
    resume_hint = f"what is finished is kept in {options.out}: the same command goes on from there"

    def make() -> None:
        # The device, the folder and the checkout are looked at before the hours of measuring.
        device = chosen_device(options.device)
        options.out.mkdir(parents=True, exist_ok=True)
        if options.publish:
            check_checkout()
        path = (FOLDER if options.publish else options.out) / f"{name}.csv"
        write_safely(path, to_text(*record(options.out, device)).encode())
        print(path)

    return exit_status(make, options.data, lambda: resume_hint)


def exit_status(work: Callable[[], None], data: Path | None, resume_hint: Callable[[], str]) -> int:
    """Work for a command line, and say in one line why it did not end; a bug keeps its traceback.

    Args:
        work: what is to be done.
        data: folder of the real data, None for $HELPERS_DATA.
        resume_hint: says after an interruption, by Ctrl-C or SIGTERM, what is left of the work.

    Returns:
        0; 1 after saying what is wrong; 130 when interrupted.
    """
    before = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        with data_folder(data):
            work()
    except (RunError, DataMissing, WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; {resume_hint()}", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _as_interrupt(_signum: int, _frame: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def data_folder(folder: Path | None) -> Iterator[None]:
    """Read real data from a folder, or where $HELPERS_DATA says when None; the variable is put back afterwards.

    Raises:
        RunError: it begins with the home of a user who is not there.
    """
    before = os.environ.get("HELPERS_DATA")
    if folder is not None:
        os.environ["HELPERS_DATA"] = str(folder)
    try:
        with values_refused():
            data_dir()
        yield
    finally:
        if before is None:
            os.environ.pop("HELPERS_DATA", None)
        else:
            os.environ["HELPERS_DATA"] = before


def chosen_device(name: str | None) -> torch.device:
    """The device of the command line, or the best there is.

    Raises:
        RunError: there is no such device.
    """
    with values_refused():
        return usable_device(name, "--device")


def check_checkout() -> None:
    """Refuse to publish where there is no book.

    Raises:
        RunError: the package is installed without one.
    """
    if not (ROOT / "book" / "index.md").exists():
        raise RunError("--publish works in a checkout of the book only: this is an installed package")


def summary(values: Tensor) -> dict[str, float]:
    """Mean and standard error of (N,) numbers, without those that are NaN."""
    known = values[~values.isnan()].cpu().double()
    spread = known.std().item() / len(known) ** 0.5 if len(known) > 1 else float("nan")
    return {"mean": known.mean().item() if len(known) else float("nan"), "error": spread}


def box_overlaps(boxes: Sequence[Tensor], truth: Tensor) -> Tensor:
    """IoU of each setting's boxes, (N, 4), with the true ones (N, 4): (settings, N), 0 where a box is missing."""
    return torch.stack([box_iou(part.to(truth), truth).nan_to_num(0) for part in boxes])


def best_on_even(scores: Tensor) -> int:
    """Which setting is best on the images at even positions; those at odd ones then judge it.

    Args:
        scores: of every setting and image, greater is better, (S, N).

    Returns:
        The first setting with the greatest mean.
    """
    means = scores[:, ::2].mean(1).tolist()
    return means.index(max(means))


def cached_part(
    path: Path, make: Callable[[], dict[str, Any]], depends_on: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """A part of a long record: what an earlier run left in a file, or made now and left there for the next one.

    Args:
        path: of the file, JSON.
        make: makes the part, of what JSON knows.
        depends_on: all that the part depends on, of what JSON knows; where it is no longer what the file says, the part
            is made anew. It is asked again once that is done: a network may have been trained for it.

    Raises:
        RunError: a file that is damaged.
    """
    if path.exists():
        try:
            cache = json.loads(path.read_text(encoding="utf8"))
            if cache["settings"] == json.loads(json.dumps(depends_on())):
                return cache["part"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error!s:.80}): remove it") from error
    part = make()
    text = json.dumps({"settings": depends_on(), "part": part})
    write_safely(path, text.encode())
    return json.loads(text)["part"]  # what the next run will read: keys are strings, tuples lists
