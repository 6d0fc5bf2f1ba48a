"""Which device to compute on, seeds for everything that draws numbers, and timing."""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helpers._validate import check_count

VARIABLE = "HELPERS_DEVICE"
SEEDS = 2**32  # numpy's global generator takes 32 bits


def best_device() -> torch.device:
    """The device the book computes on: cuda, else mps, else cpu.

    The environment variable HELPERS_DEVICE ("cpu", "cuda:1", ...) goes before.

    Raises:
        ValueError: HELPERS_DEVICE names no device, or one that is not there.
    """
    name = os.environ.get(VARIABLE, "").strip()
    if name:
        return usable_device(name, VARIABLE)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usable_device(device: torch.device | str | None, name: str = "device") -> torch.device:
    """A device that is there and takes tensors.

    Args:
        device: the device or its name ("cpu", "cuda:1", ...); None for `best_device()`.
        name: of the argument or option, for the message.

    Raises:
        ValueError: there is no such device.
    """
    if device is None:
        return best_device()
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(f"{name} must be one that is there (cpu, cuda, mps), got {device!r}") from error
    return place


def widest_float(device: torch.device) -> torch.dtype:
    """The most precise floating-point type of a device: float64, but float32 on mps, which has no other.

    Args:
        device: any.
    """
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def widened(values: Tensor) -> Tensor:
    """Values in single precision, or as precise as they are: for sums, coordinates and logarithms, which half loses.

    Args:
        values: any tensor of real numbers.

    Returns:
        The same, float32 or float64.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def own_precision(values: Tensor) -> Iterator[None]:
    """Inside, products of matrices and convolutions keep the precision of the values, under `torch.autocast` too.

    Args:
        values: any tensor; on its device autocast is off meanwhile.
    """
    kind = values.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        yield


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, numpy and torch (on every device).

    Same seed, same numbers, on one machine and one version of torch; some GPU kernels still differ in the last bits.

    Args:
        seed: 0 .. 2**32 - 1.

    Returns:
        A generator on the CPU with the same seed, for calls that take one (`torch.randn(..., generator=g)`).

    Raises:
        ValueError: not an integer, or outside the range.
    """
    seed = check_count(seed, "seed", 0, SEEDS - 1)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- libraries that draw from numpy's global generator are meant here
    torch.manual_seed(seed)  # cuda and mps too
    return torch.Generator().manual_seed(seed)


@dataclass
class Timing:
    """What `timed` yields; `seconds` is NaN until the block has ended."""

    seconds: float = float("nan")


@contextmanager
def timed(label: str | None = None, *, clock: Callable[[], float] | None = None) -> Iterator[Timing]:
    """Measure the time of a block; work queued on a GPU is waited for at both ends.

    Args:
        label: printed with the time at the end, also after an exception; nothing is printed without one.
        clock: what is read (s); None for the wall clock, `time.perf_counter`.

    Yields:
        An object whose `seconds` holds the time (s) once the block has ended.
    """
    timing, clock = Timing(), clock or time.perf_counter
    synchronize()
    start = clock()
    try:
        yield timing
    finally:
        synchronize()
        timing.seconds = clock() - start
        if label is not None:
            print(f"{label}: {timing.seconds:.2f} s")


def median_time(run: Callable[[], Any], times: int = 9) -> float:
    """The median time (s) of a call; work queued on a GPU is waited for.

    Args:
        run: called without arguments.
        times: calls; what else the machine does disturbs some of them.

    Raises:
        ValueError: times is not an integer of at least 1.
    """
    seconds = []
    for _ in range(check_count(times, "times")):
        with timed() as timing:
            run()
        seconds.append(timing.seconds)
    return median(seconds)


def synchronize() -> None:
    """Wait until all work queued on GPUs is done; nothing where there is none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()
