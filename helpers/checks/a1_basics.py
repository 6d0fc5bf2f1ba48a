"""The open checks of the assignment on chapter 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from helpers._validate import is_whole
from helpers.checks import exercise, expect, tensor_answer

Layers = Sequence[tuple[int, int, int]]  # kernel, stride, padding


@exercise("a1.1", "field")
def field(answer: Callable[[Layers, tuple[int, int]], tuple[int, int, int, int]]) -> str:
    """The pixels that one unit sees."""
    box = answer([(3, 1, 1), (2, 2, 0), (3, 1, 0)], (2, 1))
    expect(isinstance(box, (tuple, list)) and len(box) == 4, "return four numbers, (x0, y0, x1, y1)")
    expect(all(is_whole(edge) for edge in box), "pixels are counted in whole numbers")
    x0, y0, x1, y1 = map(int, box)
    expect(x1 > x0 and y1 > y0, "both corners belong together as (x0, y0, x1, y1): the second is right of and below")
    expect((x1 - x0, y1 - y0) != (7, 7), "the last pixel is in, but x1 and y1 are the edges behind it, one further")
    side = "one unit of the check's three layers sees as many pixels across as down"
    expect(x1 - x0 == y1 - y0, f"{side}, yours {x1 - x0} and {y1 - y0}")
    widened = "by how many pixels does a layer widen the field, if neighbouring units of the layer below lie apart?"
    expect(x1 - x0 == 8, f"the side is not {x1 - x0}: {widened}")
    expect((x0, y0) != (1, 3), "x comes first: the unit's column, then its row")
    expect((x0, y0) != (4, 2), "the padding is missing: it moves the first field to the left and upwards")
    expect((x0, y0) != (5, 3), "the padding goes the other way: the first field begins left of the picture")
    expect((x0, y0) == (3, 1), "the side is right, the place is not: how far apart do neighbouring fields begin?")
    return "the field of the unit in column 2, row 1 of the check's three layers."


@exercise("a1.2", "untouched")
def untouched(answer: Callable[[Layers, int, int], Tensor]) -> str:
    """Which units saw nothing but the picture."""
    keep = answer([(3, 2, 1), (3, 1, 1)], 11, 13)
    expect(not isinstance(keep, Tensor) or tuple(keep.shape) != (7, 6), "the rows come first: shape (h, w)")
    keep = tensor_answer(
        keep, (6, 7), "the answer for a picture 11 pixels high and 13 wide, and the check's two layers,"
    )
    expect(bool(((keep == 0) | (keep == 1)).all()), "True or False for every unit")
    expect(bool(keep.any()), "some units do see nothing but the picture")
    expect(not bool(keep.all()), "the units in the corners see padding")
    last = torch.zeros(6, 7, dtype=torch.float64)
    last[1:-1, 1:-1] = 1  # what the last layer's own padding leaves
    expect(not torch.equal(keep, last), "the first layer was padded too, and what it made of that goes on")
    right = torch.zeros(6, 7, dtype=torch.float64)
    right[2:4, 2:5] = 1  # fields of 7 pixels that begin at -3, -1, 1 ...
    expect(torch.equal(keep, right), "compare the field of each unit with the four edges of the picture")
    return "the units of the check's two layers that saw no padding."


@exercise("a1.3", "pointed")
def pointed(answer: Callable[[Tensor, Tensor, Layers], Tensor]) -> str:
    """The place that maps point at."""
    maps = torch.zeros(2, 2, 3, 4)
    maps[0, 0, 0, 1], maps[0, 1, 2, 3] = 3, 1
    maps[1, 0, 1, 2], maps[1, 0, 2, 0], maps[1, 1, 2, 0] = 2, 2, -3
    keep = torch.ones(3, 4, dtype=torch.bool)
    points = tensor_answer(answer(maps, keep, [(4, 4, 0)]), (2, 2), "the points")
    right = torch.tensor([[8.0, 4.0], [10.0, 6.0]], dtype=torch.float64)
    expect(not torch.allclose(points, right.flip(1)), "x comes first: the column, then the row")
    expect(
        not torch.allclose(points, right - 2), "that is where fields begin; a unit stands for the middle of its field"
    )
    expect(
        not torch.allclose(points, right - 0.5), "pixel edges: the first pixel reaches from 0 to 1, its middle is 0.5"
    )
    expect(
        not torch.allclose(points, (right - 2) / 4), "those are cells of the map; pixels of the picture are asked for"
    )
    expect(torch.allclose(points[0], right[0]), "the first picture's maps point at another place")
    expect(torch.allclose(points[1], right[1]), "add the maps up first; then a sum below zero counts as nothing")
    return "the places that the check's two pictures point at."


@exercise("a1.4", "my_errors")
def my_errors(answer: Callable[[], Tensor]) -> str:
    """How far off five ways to point are, on one's own pictures."""
    errors = answer()
    turned = isinstance(errors, Tensor) and tuple(errors.shape) == (120, 5)
    expect(not turned, "one row for each way, one column for each picture: (5, 120)")
    errors = tensor_answer(errors, (5, 120), "the distances")
    expect(bool((errors >= 0).all()), "distances are never below zero")
    expect(bool((errors.std(1) > 0).all()), "every picture has a distance of its own, yours all have one and the same")
    expect(bool((errors <= 91).all()), "no two places of a picture of 64 pixels are further apart than 91")
    expect(
        errors[0].mean() > 5, "the first row is the distance from the middle of the picture, and digits stand anywhere"
    )
    return "five rows of distances that are possible."
