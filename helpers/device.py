"""Which device to compute on, seeds for everything that draws numbers, and timing."""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

VARIABLE = "HELPERS_DEVICE"
SEEDS = 2**32  # numpy's global generator takes 32 bits


def best_device() -> torch.device:
    """The device the book computes on: cuda, else mps, else cpu.

    The environment variable HELPERS_DEVICE ("cpu", "cuda:1", ...) goes before.

    Raises:
        ValueError: HELPERS_DEVICE names no device, or one that is not there.
    """
    wanted = os.environ.get(VARIABLE, "").strip()
    if wanted:
        return _usable(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def widest_float(device: torch.device) -> torch.dtype:
    """The most precise floating-point type of a device: float64, but float32 on mps, which has no other.

    Args:
        device: any.
    """
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


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
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < SEEDS:
        raise ValueError(f"seed must be an integer in 0 .. 2**32 - 1, got {seed!r}")
    seed = int(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- libraries that draw from numpy's global generator are meant here
    torch.manual_seed(seed)  # cuda and mps too
    return torch.Generator().manual_seed(seed)


@dataclass
class Timing:
    """What `timed` yields; `seconds` is NaN until the block has ended."""

    seconds: float = float("nan")


@contextmanager
def timed(label: str | None = None) -> Iterator[Timing]:
    """Measure the wall-clock time of a block; work queued on a GPU is waited for at both ends.

    Args:
        label: printed with the time at the end, also after an exception; nothing is printed without one.

    Yields:
        An object whose `seconds` holds the time (s) once the block has ended.
    """
    timing = Timing()
    _synchronise()
    start = time.perf_counter()
    try:
        yield timing
    finally:
        _synchronise()
        timing.seconds = time.perf_counter() - start
        if label is not None:
            print(f"{label}: {timing.seconds:.2f} s")


def median_time(run: Callable[[], Any], times: int = 9) -> float:
    """The median time (s) of a call; work queued on a GPU is waited for.

    Args:
        run: called without arguments.
        times: calls; what else the machine does disturbs some of them.

    Raises:
        ValueError: times is below 1.
    """
    if times < 1:
        raise ValueError(f"times must be at least 1, got {times}")
    taken = []
    for _ in range(times):
        with timed() as clock:
            run()
        taken.append(clock.seconds)
    return median(taken)


def _usable(wanted: str) -> torch.device:
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"{VARIABLE} must name a device that is there (cpu, cuda, mps), got {wanted!r}") from error
    return device


def _synchronise() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()
