"""The open checks of the demonstration assignment."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from helpers.checks import exercise, expect, tensor_answer


@exercise("a0.1", "brightest")
def brightest(answer: Callable[[Tensor], Tensor]) -> str:
    """The place of the largest value of each map."""
    maps = torch.zeros(2, 3, 4)
    maps[0, 1, 2], maps[1, 2, 0] = 1, 5
    places = tensor_answer(answer(maps), (2, 2), "the places")
    expect(not torch.equal(places, torch.tensor([[1.0, 2.0], [2.0, 0.0]])), "x comes first: the column, then the row")
    expect(torch.equal(places, torch.tensor([[2.0, 1.0], [0.0, 2.0]])), "the maxima of the check's maps lie elsewhere")
    return "the places of both maxima."


@exercise("a0.2", "inside")
def inside(answer: Callable[[], int]) -> str:
    """How many of one's own maxima lie in the left half."""
    number = answer()
    expect(isinstance(number, int) and not isinstance(number, bool), "return one whole number")
    expect(0 <= number <= 20, "there are 20 maps")
    return "a whole number that is possible."
