"""Instant feedback for the exercises: `check("1.3", my_function)`.

A check never raises: a missing answer, a wrong one and one that crashes each get one line that says what to do next,
so a chapter runs to its end with its exercises still open. The checks of chapter 1 stand in
`helpers.checks.ch01_basics` and so on, the open checks of the assignments in `helpers.checks.a1_basics` and so on.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_checks: dict[str, Callable[[Any], str]] = {}
_names: dict[str, str] = {}  # of the answers of assignments, by task
_MARKS = {"right": "✓", "wrong": "✗", "todo": "…"}


class Wrong(Exception):
    """An answer is not right; the message says what to look at, never what to type."""


@dataclass(frozen=True)
class Verdict:
    """What a check found: status is "right", "wrong" or "todo"."""

    status: str
    message: str


def exercise(number: str, name: str = "") -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """Register the decorated function as the check of one exercise, for example `@exercise("1.3")`.

    The function takes the reader's answer, raises `Wrong` with a helpful message, or returns what to say when right.

    Args:
        number: of a chapter's exercise, such as "1.3", or of an assignment's task, such as "a1.3".
        name: of the answer, in an assignment.
    """

    def register(function: Callable[[Any], str]) -> Callable[[Any], str]:
        if number in _checks:
            raise ValueError(f"exercise {number} has a check already")
        _checks[number] = function
        if name:
            _names[number] = name
        return function

    return register


def expect(condition: bool | Tensor, message: str) -> None:
    """Raise `Wrong(message)` unless the condition holds."""
    if not condition:
        raise Wrong(message)


def is_truth(value: object) -> bool:
    """Whether a value is True or False, Python's or numpy's."""
    return isinstance(value, bool | np.bool_)


def tensor_answer(value: Any, shape: tuple[int, ...], what: str) -> Tensor:
    """The answer as a finite tensor of the wanted shape in double precision, or a helpful refusal.

    Args:
        value: what the reader's code returned.
        shape: the shape that is right.
        what: names it in the message.

    Raises:
        Wrong: another type or shape, NaN or infinity.
    """
    expect(isinstance(value, Tensor), f"{what} must be a torch tensor, yours is a {type(value).__name__}")
    expect(tuple(value.shape) == shape, f"{what} must have shape {shape}, yours has {tuple(value.shape)}")
    expect(bool(torch.isfinite(value).all()), f"{what} holds NaN or infinity")
    return value.detach().double()


def available() -> list[str]:
    """The numbers of the chapters' exercises that have a check, in order."""
    return [number for number in _numbers() if not number.startswith("a")]


def answer_names(assignment: str) -> dict[str, str]:
    """The names of an assignment's answers, such as "a1", by task, in order."""
    return {number: _names[number] for number in _numbers() if number.startswith(f"{assignment}.")}


def _numbers() -> list[str]:
    """The numbers of all checks, those of chapters first."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(_checks, key=lambda number: (number[0] == "a", [int(part) for part in number.lstrip("a").split(".")]))


def verdict(number: str, answer: Any) -> Verdict:
    """Judge an answer without printing.

    Args:
        number: the exercise, for example "1.3".
        answer: what the exercise asks for, as a rule a function.

    Returns:
        A `Verdict`; an answer that raises counts as wrong, and one that raises `NotImplementedError` as still to do.

    Raises:
        ValueError: there is no such exercise.
    """
    if not isinstance(number, str):
        raise ValueError(f'the number of an exercise is a text such as "1.3", got {number!r}')
    if number not in _checks and number not in _numbers():
        raise ValueError(f"there is no exercise {number}; there are {', '.join(available())}")
    try:
        return Verdict("right", _checks[number](answer))
    except NotImplementedError as todo:
        return Verdict("todo", f"still to do: {todo}")
    except Wrong as wrong:
        return Verdict("wrong", str(wrong))
    except Exception as error:  # the reader's code may raise anything: that is an answer too, and a wrong one
        return Verdict("wrong", f"your code raised {type(error).__name__}: {error}")


def mark(status: str) -> str:
    """The sign that stands before what is said of a status."""
    return _MARKS[status]


def check(number: str, answer: Any) -> None:
    """Judge an answer and print one line that says what to do next; see `verdict`."""
    judged = verdict(number, answer)
    print(f"{mark(judged.status)} Exercise {number}: {judged.message}")
