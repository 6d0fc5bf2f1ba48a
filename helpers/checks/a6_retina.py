"""The open checks of assignment 6: how much has it turned since you last looked?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from helpers.checks import exercise, expect, tensor_answer

CLOSE = 1e-4
COUNT = 4  # pictures that the check of the readings asks for


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=CLOSE)


@exercise("a6.1", "where")
def where(answer: Callable[..., Tensor]) -> str:
    """Rows and columns of points."""
    # Gaze (20, 12) in a picture 48 wide and 32 high; radii 16, 8, 4, 2 and 1 pixels.
    points = torch.tensor([[28.0, 12.0], [20.0, 16.0], [18.0, 12.0], [20.0, -20.0]], dtype=torch.float64)
    places = tensor_answer(answer(points.clone(), (20.0, 12.0), (32, 48), (5, 12), 1 / 16), (4, 2), "the places")
    right = torch.tensor([[1.0, 0.0], [2.0, 3.0], [3.0, 6.0], [-1.0, 9.0]], dtype=torch.float64)
    expect(not _equal(places.flip(1), right), "row and column are exchanged: the row comes first")
    rows, columns = places.T
    expect(bool(((columns >= 0) & (columns < 12)).all()), "a column lies in 0 .. A: the one before column 0 is A - 1")
    up = torch.tensor([0.0, 9.0, 6.0, 3.0], dtype=torch.float64)
    expect(not _equal(columns, up), "the angle grows the wrong way round: below comes before above")
    expect(_equal(columns, right[:, 1]), "the columns are not right: where is the gaze, which way does the angle grow?")
    expect(not _equal(rows, 4 - right[:, 0]), "the rows are upside down: row 0 is the outermost circle")
    expect(not _equal(rows, right[:, 0] * 5 / 4), "from row 0 to the last row it is R - 1 steps, not R")
    longer = right[:, 0] + torch.tensor(1.5, dtype=torch.float64).log2()
    expect(not _equal(rows, longer), "the outermost radius is half the shorter side, yours is half the longer one")
    expect(
        not bool((rows[3] - 0).abs() < CLOSE),
        "a point beyond the outermost circle has a row below 0: do not cut it off",
    )
    expect(
        _equal(rows, right[:, 0]), "the columns are right, the rows are not: radii shrink by one factor from row to row"
    )
    return "four points, one of them beyond the rim."


def _means(fine: Tensor, m: int) -> Tensor:
    rows, columns, h = (fine.shape[2] - 1) // m + 1, fine.shape[3] // m, m // 2
    closed = torch.cat([fine[..., -h:], fine, fine[..., :h]], -1)
    coarse = [
        [closed[:, :, max(0, m * i - h) : m * i + h + 1, m * j : m * j + m].mean((2, 3)) for j in range(columns)]
        for i in range(rows)
    ]
    return torch.stack([torch.stack(row, -1) for row in coarse], -2)


@exercise("a6.2", "thinned")
def thinned(answer: Callable[[Tensor, int], Tensor]) -> str:
    """Means of the fine samples around each receptor."""
    fine = _draw(0, 2, 1, 10, 15)
    coarse = tensor_answer(answer(fine.clone(), 3), (2, 1, 4, 5), "the view")
    right = _means(fine, 3)
    expect(not _equal(coarse, fine[..., ::3, ::3]), "these are single fine samples: take the mean of those around each")
    late = torch.stack([fine[..., 1:-1, :].roll(-3 * j, -1)[..., :3].mean(-1) for j in range(5)], -1)
    shifted = _equal(coarse[:, :, 1, 1:], fine[:, :, 3:6].unflatten(-1, (5, 3)).mean((2, 4))[:, :, 1:])
    half = _equal(coarse[:, :, 1, 1:], late[:, :, 1:4].mean(2)[..., 1:])
    expect(not (shifted or half), "your window begins at the receptor: it should lie around it")
    expect(_equal(coarse[:, :, 1:-1, 1:], right[:, :, 1:-1, 1:]), "even away from the edges these are not the means")
    expect(
        _equal(coarse[:, :, 1:-1, :1], right[:, :, 1:-1, :1]),
        "column 0 is not right: its left neighbour is the last column",
    )
    wrapped = _equal(coarse[:, :, 0], _means(fine.roll(3, 2), 3)[:, :, 1])
    expect(not wrapped, "your radii close as the angles do: rim and fovea are no neighbours")
    padded = _equal(coarse[:, :, 0] * 3 / 2, right[:, :, 0])
    expect(not padded, "in the outermost row a row that does not exist counts as zeros: leave it out of the number too")
    expect(_equal(coarse, right), "the first or the last row is not right: only rows that exist count")
    return "the means, around the circle and at both ends."


@exercise("a6.3", "moved_view")
def moved_view(answer: Callable[[Tensor, float, float], Tensor]) -> str:
    """A view moved by rows and columns."""
    view = _draw(1, 1, 2, 5, 6)

    def moved(rows: float, columns: float) -> Tensor:
        return tensor_answer(answer(view.clone(), rows, columns), (1, 2, 5, 6), "the view")

    forwards = moved(0, 2)
    expect(not _equal(forwards, view.roll(-2, -1)), "columns go backwards: what was in column 0 should be in column 2")
    expect(_equal(forwards, view.roll(2, -1)), "moved by 2 columns and no row it is not the view rolled by 2")
    outwards = moved(1, 0)
    nothing = torch.zeros_like(view[:, :, :1])
    expect(
        not _equal(outwards, torch.cat([nothing, view[:, :, :-1]], 2)),
        "rows go inwards: moved outwards, what was in row 1 should be in row 0",
    )
    expect(not _equal(outwards, view.roll(-1, 2)), "the rim comes back at the fovea: radii do not close, the row is 0")
    held = _equal(outwards, torch.cat([view[:, :, 1:], view[:, :, -1:]], 2))
    expect(not held, "where the old view holds nothing the result is 0, not the last row again")
    expect(_equal(outwards, torch.cat([view[:, :, 1:], nothing], 2)), "moved by 1 row and no column it is not right")
    between = moved(0, 0.25)
    expect(not _equal(between, view), "parts of a column are lost: interpolate between the columns")
    turned = 0.75 * view.roll(1, -1) + 0.25 * view
    expect(
        not _equal(between, turned), "the shares are exchanged: a quarter of a column leaves three quarters in place"
    )
    expected = 0.75 * view + 0.25 * view.roll(1, -1)
    expect(_equal(between[..., 1:], expected[..., 1:]), "moved by a quarter of a column it is not right")
    expect(_equal(between, expected), "column 0 is not right: interpolate between the last column and column 0, too")
    return "rows, columns and parts of a column."


def _best(before: Tensor, after: Tensor, most: int, total: bool = False, closed: bool = False) -> list[float]:
    """Rows and columns of the smallest difference of two views (R, A): its mean, or its total, or with closed radii."""
    height, tries = len(before), {}
    for rows in range(-most, most + 1):
        there = [i for i in range(height) if closed or 0 <= i + rows < height]
        for columns in range(before.shape[1]):
            apart = after[there] - before[[(i + rows) % height for i in there]].roll(columns, -1)
            tries[rows, columns] = apart.square().sum().item() / (1 if total else len(there))
    return [float(n) for n in min(tries, key=lambda pair: tries[pair])]


@exercise("a6.4", "read_off")
def read_off(answer: Callable[[Tensor, Tensor, int], Tensor]) -> str:
    """Rows and columns by which views have moved."""
    before, after = _draw(2, 3, 1, 9, 8), _draw(3, 3, 1, 9, 8)
    after[0, :, :7] = before[0, :, 2:].roll(3, -1)
    after[1, :, 1:] = before[1, :, :-1].roll(6, -1)
    before[2], after[2] = _draw(18, 1, 9, 8), _draw(19, 1, 9, 8)  # these two have nothing to do with each other
    last = before[2, 0], after[2, 0], 4
    moves = tensor_answer(answer(before.clone(), after.clone(), 4), (3, 2), "the moves")
    right = torch.tensor([[2.0, 3.0], [-1.0, 6.0], _best(*last)], dtype=torch.float64)
    known = moves[:2]
    expect(not _equal(known.flip(1), right[:2]), "rows and columns are exchanged: the rows come first")
    expect(not _equal(known[:, 0], -right[:2, 0]), "the rows have the wrong sign: outwards, towards row 0, is positive")
    expect(not _equal(known[:, 1], 8 - right[:2, 1]), "the columns go the wrong way: forwards is positive")
    expect(bool(((moves[:, 1] >= 0) & (moves[:, 1] < 8)).all()), "columns lie in 0 .. A - 1")
    expect(not _equal(known, right[:1].expand(2, 2)), "each pair of views has a move of its own")
    expect(_equal(known, right[:2]), "the check's views were moved by other rows and columns")
    if not _equal(moves, right):
        said = moves[2].tolist()
        expect(said != _best(*last, total=True), "a large shift wins because it compares fewer rows: mean, not sum")
        expect(said != _best(*last, closed=True), "your rows close: compare only rows that both views have")
        expect(False, "where nothing fits well another move is less bad: which rows are compared, is it a mean?")
    return "three pairs of views, one moved outwards, one inwards, one that fits nowhere."


@exercise("a6.5", "my_errors")
def my_errors(answer: Callable[[int, float], Tensor]) -> str:
    """Errors of one's own readings, in degrees."""
    errors = tensor_answer(answer(COUNT, 0.0), (COUNT, 2), "the errors")
    expect(bool((errors >= 0).all()), "an error is a distance: not below 0")
    expect(bool((errors <= 180).all()), "around the circle no reading is more than 180 degrees off")
    expect(bool((errors > 0).any()), "all errors are 0: a reading is a whole number of columns, a turn is not")
    expect(float(errors.min()) < 30, "none of the readings is near: are the columns in degrees, 360/A each?")
    return f"{COUNT} pictures, two errors each, all possible."
