"""What the methods cost, in forward passes, beside a peer in the same run.

    python -m helpers.experiments.benchmark [saliency|cam|similarnet|licnn|search|all] [--json FILE] [--device D]

Every round times one forward pass of the batch, ours and the peer, one after the other, so that what else the machine
does meets all three; a cost is the median over the rounds of its ratio to the round's forward pass. On a CPU one
thread computes, and its own processor time counts. Peak memory is what a method needs above the level after one
forward pass, on a CPU as a fresh process sees it (Linux and macOS), on CUDA as torch counts it.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from helpers.capture import with_progress
from helpers.device import synchronize, timed, usable_device
from helpers.experiments.benchmark.cases import SUITES, Case, setting
from helpers.tables import table

COLUMNS = ("name", "ours_forwards", "peer", "peer_forwards", "ours_peak_mb", "peer_peak_mb")


def there(case: Case) -> bool:
    """Whether the peer is installed."""
    return importlib.util.find_spec(case.peer.split()[0]) is not None


def costs(case: Case, side: int, device: torch.device, rounds: int) -> dict[str, float | None]:
    """Cost of ours and of the peer in forward passes of the same batch, medians over interleaved rounds."""
    model, x, target = setting(case, side, device)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    runs = {"forward": forward, "ours": functools.partial(case.ours, model, x, target)}
    if there(case):
        runs["peer"] = functools.partial(case.theirs, model, x, target)
    forward()  # what only the first pass costs
    ratios: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        # Before and after: a machine whose speed drifts would favour whichever comes first.
        first, spent = _seconds(forward, device), {name: _seconds(run, device) for name, run in runs.items()}
        unit = (first + spent.pop("forward") + _seconds(forward, device)) / 3
        for name, seconds in spent.items():
            ratios[name].append(seconds / unit)
    return {name: statistics.median(values) if values else None for name, values in ratios.items()}


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """The time (s) of a call: on a CPU the processor's own, which other programs do not disturb."""
    with timed(clock=time.process_time if device.type == "cpu" else time.perf_counter) as timing:
        run()
    return timing.seconds


def own_peak_mb(case: Case, who: str, side: int, device: torch.device) -> float | None:
    """Peak memory (MiB) of one run above the level after one forward pass; on a CPU only right in a fresh process."""
    model, x, target = setting(case, side, device)
    with torch.no_grad():
        model(x)
    run = functools.partial(case.ours if who == "ours" else case.theirs, model, x, target)
    if device.type == "cuda":
        synchronize()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        synchronize()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before = _high_water_mb() if device.type == "cpu" else None
    run()
    after = _high_water_mb()
    return None if before is None or after is None else after - before


def _high_water_mb() -> float | None:
    """The most memory (MiB) this process has held; None on Windows."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage would tell the parent's peak, which a new process inherits
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10  # kilobytes
    if importlib.util.find_spec("resource") is None:
        return None
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def peak_mb(case: Case, who: str, side: int, device: torch.device) -> float | None:
    """The same in a fresh process; None where it cannot be told, or the peer is missing."""
    if who == "peer" and not there(case):
        return None
    options = ["--size", str(side), "--device", str(device), "--peak", case.name, who]
    done = subprocess.run(
        [sys.executable, "-m", "helpers.experiments.benchmark", *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {case.name} ({who}) failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: Case, side: int, device: torch.device, rounds: int, memory: bool) -> dict[str, Any]:
    """One row of the table; None where something could not be measured."""
    cost = costs(case, side, device, rounds)
    peaks = {who: peak_mb(case, who, side, device) if memory else None for who in ("ours", "peer")}
    return {
        "name": case.name,
        "ours_forwards": cost["ours"],
        "peer": case.peer if there(case) else f"{case.peer} (not installed)",
        "peer_forwards": cost["peer"],
        "ours_peak_mb": peaks["ours"],
        "peer_peak_mb": peaks["peer"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.experiments.benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("suite", nargs="?", default="all", choices=[*SUITES, "all"], help="a chapter's methods, or all")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the rows there")
    parser.add_argument("--device", help="cpu, cuda, mps ... (default: the best there is)")
    parser.add_argument("--size", metavar="PIXELS", type=int, default=128, help="side of the images, from 32 on")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; their median counts")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "WHO"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.size < 32 or options.rounds < 1:
        parser.error("--size must be at least 32 and --rounds at least 1")
    try:
        device = usable_device(options.device, "--device")
    except ValueError as error:
        parser.error(str(error))
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="captum")
            return run(options, device)
    finally:
        torch.set_num_threads(threads)  # whoever calls this from Python computes on as before


def run(options: argparse.Namespace, device: torch.device) -> int:
    """What the command line asks for; returns the exit status."""
    cases = [case for name, suite in SUITES.items() if options.suite in (name, "all") for case in suite(options.size)]
    if options.peak:
        name, who = options.peak
        print(json.dumps(own_peak_mb(next(case for case in cases if case.name == name), who, options.size, device)))
        return 0
    nets = " and ".join(sorted({case.network for case in cases}))
    sides = " and ".join(f"{side} x {side}" for side in sorted({case.size or options.size for case in cases}))
    print(f"{nets}, {sides} pixels, {device}, median of {options.rounds} rounds")
    rows = [
        measure(case, options.size, device, options.rounds, not options.no_memory)
        for case in with_progress(cases, "cases")
    ]
    print(table([[row[column] for column in COLUMNS] for row in rows], list(COLUMNS)))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf8")
    return 0
