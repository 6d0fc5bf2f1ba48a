"""Grades many submissions side by side; what was graded stays, and one that breaks stops nothing."""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import random
import signal
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tools.course import judge
from tools.course.folder import Folder, write_whole
from tools.course.master import Master

USERS = 4000  # ids for sandboxes, of which as many run as there are workers
TRIES = 2  # of a submission whose worker died


@dataclass(frozen=True)
class Work:
    """A submission to grade."""

    student: str
    file: Path
    master: Master
    seed: str
    key: str
    sandbox: str
    only: str = ""


def end_with_parent() -> None:
    """Have the system end a worker when the one that hands out the work is killed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of Linux


def graded(work: Work) -> dict[str, Any]:
    """Grade one submission; an error of the grader itself is a result too."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (what a test may call draws from it)
    random.seed(0)
    try:
        with judge.processes(work.sandbox, os.getpid() % USERS, work.master) as child:
            return judge.grade(work.file, work.master, work.student, work.seed, child, only=work.only)
    except Exception:
        return failed(work, traceback.format_exc(limit=6))


def failed(work: Work, reason: str) -> dict[str, Any]:
    """The result of a submission that could not be graded."""
    result = {"assignment": work.master.name, "student": work.student, "tasks": {}, "written": {}, "points": 0.0}
    return result | {"notes": [], "copied": {}, "sandbox": work.sandbox, "failed": reason}


def to_do(
    folder: Folder, chosen: list[Master], students: list[str], sandbox: str, only: str, again: bool
) -> Iterator[Work]:
    """The submissions that have no result of this notebook, assignment, seed and grader."""
    for master in chosen:
        for student in students:
            file = folder.submission(student, master)
            if file is None:
                continue
            work = Work(student, file, master, folder.seed, folder.key(file, master), sandbox, only)
            before = result(folder, student, master)
            if again or only or before is None or before.get("key") != work.key or "failed" in before:
                yield work


def result(folder: Folder, student: str, master: Master) -> dict[str, Any] | None:
    """A student's result, or None; a damaged file counts as none."""
    file = folder.result_file(student, master)
    try:
        found = json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def keep(folder: Folder, work: Work, made: dict[str, Any]) -> dict[str, Any]:
    """Write a result; that of one task takes its place in what was there before."""
    before = result(folder, work.student, work.master)
    if work.only and before and "failed" not in before and "failed" not in made:
        tasks = before["tasks"] | made["tasks"]
        made = before | {"tasks": tasks, "points": round(sum(task["points"] for task in tasks.values()), 2)}
        key = before.get("key", "")  # of all tasks it is only this one that is new
    else:
        key = work.key
    made = made | {"key": key}
    write_whole(folder.result_file(work.student, work.master), json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    return made


def grade(
    folder: Folder, works: list[Work], workers: int, say: Callable[[int, Work, dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Grade submissions side by side, and keep every result as soon as it is there.

    Args:
        folder: the teacher's.
        works: the submissions.
        workers: how many at once.
        say: called with how many are done, the submission and its result.

    Returns:
        The results, in the order in which they came.
    """
    os.environ["TQDM_DISABLE"] = "1"  # bars of what the tests call would run through the lines about submissions
    results: list[dict[str, Any]] = []
    waiting, tries = list(works), dict.fromkeys(range(len(works)), 0)
    number = {id(work): i for i, work in enumerate(works)}

    def done(work: Work, made: dict[str, Any]) -> None:
        results.append(keep(folder, work, made))
        say(len(results), work, results[-1])

    while waiting:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent) as pool:
            running: dict[Future[dict[str, Any]], Work] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < workers:
                        running[pool.submit(graded, waiting[0])] = waiting[0]
                        waiting.pop(0)
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        work = running.pop(future)
                        try:
                            made = future.result()
                        except BrokenProcessPool:
                            running[future] = work
                            raise
                        except Exception as error:
                            made = failed(work, f"{type(error).__name__}: {error}")
                        done(work, made)
            except BrokenProcessPool:  # a worker was killed, as a rule for want of memory
                for work in running.values():
                    tries[number[id(work)]] += 1
                    if tries[number[id(work)]] < TRIES:
                        waiting.append(work)
                    else:
                        done(work, failed(work, "the grader's own process was ended by the system, twice"))
    return results
