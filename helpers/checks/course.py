"""What the assignments stand on: numbers of one's own, hidden inputs, points, and a list of what is still to do.

In an assignment a student's parameters are drawn from the student's id (`own`), so that a number copied from a
neighbour is wrong. Its hidden tests draw their inputs from a seed that only the teacher has (`secret`), and `points`
makes of the open check and of the hidden parts the points of a task. Whoever grades says who and which seed by
`graded`, or, in nbgrader, by the environment.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from helpers.checks import Wrong, answer_names, expect, mark, verdict

OPEN_SHARE = 0.3  # of a task's points are given for the open check
UNSEEN = "one of the hidden tests found another result"
_grading: ContextVar[Grading | None] = ContextVar("grading", default=None)


@dataclass
class Grading:
    """Whose work is graded, with which seed, and what came out of it, by task."""

    student: str
    seed: str
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)


@contextmanager
def graded(student: str, seed: str) -> Iterator[Grading]:
    """Grade one student's work inside of this; `points` leaves there what it found."""
    token = _grading.set(Grading(student, seed))
    try:
        grading = _grading.get()
        assert grading is not None
        yield grading
    finally:
        _grading.reset(token)


def student() -> str:
    """The id of the student whose work is graded: the grader's word, not the notebook's.

    Outside of `graded`, as in nbgrader: `COURSE_STUDENT`, else the folder above the assignment's.
    """
    grading = _grading.get()
    return grading.student if grading else os.environ.get("COURSE_STUDENT") or Path.cwd().parent.name


def _generator(*words: str) -> np.random.Generator:
    """Random numbers that depend on nothing but the words, on every machine alike."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def own(student: str, task: str) -> np.random.Generator:
    """A student's own random numbers for a task, such as "a1.2", the same on every machine and at every call.

    Raises:
        ValueError: the id is empty, or still the one that the assignment came with.
    """
    if not isinstance(student, str) or not student.strip() or student == "your id":
        raise ValueError(f'STUDENT must be your id, as your teacher has it, in quotes, got "{student}"')
    return _generator("own", student.strip(), task)


def secret(task: str) -> np.random.Generator:
    """Random numbers for the hidden tests of a task, of the teacher's seed (`COURSE_SEED`) and the student's id."""
    grading = _grading.get()
    seed = grading.seed if grading else os.environ.get("COURSE_SEED", "")
    return _generator("secret", seed, student(), task)


def points(task: str, answer: Any, worth: float, parts: Mapping[str, Callable[[], Any]]) -> float:
    """The points of a task: three tenths for the open check, the rest in equal shares for the hidden parts.

    Args:
        task: its number, such as "a1.2".
        answer: what the student gave, a function or a value.
        worth: the points for all of it.
        parts: by words that a student may read, functions without arguments. A part is right when its function
            returns without raising, and not False; `Wrong` says something to the student, other errors only their kind.

    Returns:
        The points, 0 .. `worth`, to two digits behind the point.
    """
    open_check = verdict(task, answer)
    rows = [("the open check", open_check.status == "right", open_check.message)]
    if open_check.status != "todo":
        rows += [(name, *_judged(part)) for name, part in parts.items()]
    else:
        rows += [(name, False, "still to do") for name in parts]
    shares = [OPEN_SHARE, *[(1 - OPEN_SHARE) / len(parts)] * len(parts)]
    total = round(worth * sum(share for share, (_, right, _) in zip(shares, rows, strict=True) if right), 2)
    grading = _grading.get()
    if grading is not None:
        kinds = ("part", "right", "message")
        said = [dict(zip(kinds, row, strict=True)) for row in rows]
        grading.tasks[task] = {"points": total, "worth": float(worth), "status": open_check.status, "parts": said}
    return total


def _judged(part: Callable[[], Any]) -> tuple[bool, str]:
    """Whether a hidden part is right, and what the student is told."""
    try:
        right = part() is not False
        return right, "right" if right else UNSEEN
    except Wrong as wrong:
        return False, str(wrong)
    except NotImplementedError:
        return False, "still to do"
    except AssertionError:
        return False, UNSEEN
    except Exception as error:  # whatever a student's code raises is an answer, and a wrong one
        return False, f"your code raised {type(error).__name__}"


def close(value: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Raise `Wrong` unless a number, a tensor, or a tuple or list of them is near what is expected.

    Args:
        value: the answer.
        expected: what is right, of the same structure; tensors in any precision.
        tolerance: largest difference allowed, as a share of the largest expected magnitude (at least 1e-6).
    """
    import torch

    if isinstance(expected, (tuple, list)):
        expect(
            isinstance(value, (tuple, list)) and len(value) == len(expected), f"{len(expected)} values are asked for"
        )
        for own_value, right in zip(value, expected, strict=True):
            close(own_value, right, tolerance)
        return
    if isinstance(expected, torch.Tensor):
        expect(isinstance(value, torch.Tensor), f"a tensor is asked for, not {type(value).__name__}")
        expect(value.shape == expected.shape, f"shape {tuple(value.shape)}, where {tuple(expected.shape)} is right")
    else:
        expect(
            isinstance(value, (int, float, np.number, torch.Tensor)),
            f"a number is asked for, not {type(value).__name__}",
        )
    got = torch.as_tensor(value).double()
    right = torch.as_tensor(expected).double()
    expect(got.numel() == right.numel() and bool(torch.isfinite(got).all()), "NaN, infinity or more than one number")
    limit = max(tolerance * right.abs().max().item() if right.numel() else 0, 1e-6)
    expect(bool(((got.reshape(right.shape) - right).abs() <= limit).all()), UNSEEN)


def summary(assignment: str, names: Mapping[str, Any]) -> None:
    """Print which answers of an assignment were found, and what the open checks say of each.

    Args:
        assignment: its number, such as "a1".
        names: the notebook's own, `globals()`.
    """
    open_tasks = 0
    for task, name in answer_names(assignment).items():
        if name not in names:
            print(f"{mark('wrong')} {task}: there is no `{name}`; was its cell run?")
            open_tasks += 1
            continue
        judged = verdict(task, names[name])
        open_tasks += judged.status != "right"
        print(f"{mark(judged.status)} {task} `{name}`: {judged.message}")
    print("All answers pass the open checks." if not open_tasks else f"Still to do or to mend: {open_tasks}.")
    print("The hidden tests, with other inputs, give seven tenths of the points; the written parts are read by people.")
