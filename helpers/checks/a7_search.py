"""The open checks of assignment 7: a search that believes in places too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from helpers.checks import exercise, expect, tensor_answer

CLOSE = 1e-6
TURNED = "near[v, u]: the gaze comes first, then the thing; yours reads it the other way"
# Gaze 0 takes in things at 0 and at 1, the others only what lies where they look.
NEAR = torch.tensor([[True, True, False], [False, True, False], [False, False, True]])


def _is(value: Tensor, numbers: list[float]) -> bool:
    """Whether a tensor holds these numbers, row by row."""
    return torch.allclose(value.flatten(), torch.tensor(numbers, dtype=torch.float64), atol=CLOSE)


@exercise("a7.1", "tables")
def tables(answer: Callable[..., tuple[Tensor, Tensor]]) -> str:
    """The tables of two images, three places, two labels and three answers, counted by hand."""
    answers, labels, places = torch.tensor([[2, 2, 0], [0, 1, 0]]), torch.tensor([1, 0]), torch.tensor([1, 2])
    pair = answer(answers, labels, places, NEAR, 2, 3, 0.5)
    expect(isinstance(pair, (tuple, list)) and len(pair) == 2, "return the pair (on, off)")
    on, off = tensor_answer(pair[0], (2, 3), "on"), tensor_answer(pair[1], (3,), "off")
    expect(
        not _is(on[0], [1, 0, 0]), "`extra` is missing: an answer that was never counted must not have probability 0"
    )
    sums = torch.cat([on.sum(1), off.sum()[None]])
    expect(
        torch.allclose(sums, torch.ones(3, dtype=torch.float64), atol=CLOSE),
        "each row of `on` must add up to 1, and so must `off`: add `extra` to the counts, then divide by their sum",
    )
    expect(not _is(on[1], [0.2, 0.2, 0.6]), TURNED)
    expect(not _is(on[1], [5 / 9, 3 / 9, 1 / 9]), "`on` is for views that take in the thing, `off` for the others")
    expect(
        not _is(off, [0.5, 2 / 6, 1 / 6]),
        "`off` should count every view that does not take in the thing, of all images",
    )
    expect(
        _is(on, [0.6, 0.2, 0.2, 1 / 7, 1 / 7, 5 / 7]),
        "`on` is not what one counts by hand: which views take in the thing?",
    )
    expect(_is(off, [5 / 9, 3 / 9, 1 / 9]), "`off` is not what one counts by hand: `extra` once for each answer?")
    return "both tables of the check are as counted by hand."


@exercise("a7.2", "update")
def update(answer: Callable[..., Tensor]) -> str:
    """Two images, two labels, three places, by hand."""
    on = torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=torch.float64)
    off = torch.tensor([0.3, 0.7], dtype=torch.float64)
    even = [[1 / 6] * 3] * 2
    belief = torch.tensor([even, [[0.1, 0.2, 0.3], [0.1, 0.1, 0.2]]], dtype=torch.float64)
    before = belief.clone()
    after = tensor_answer(
        answer(belief, torch.tensor([0, 1]), torch.tensor([0, 1]), NEAR, on, off), (2, 2, 3), "the belief"
    )
    expect(belief.equal(before), "your function writes into the belief that it was given")
    sums = after.sum((1, 2))
    expect(
        torch.allclose(sums, torch.ones(2, dtype=torch.float64), atol=CLOSE),
        "all K x U entries of an image must add up to 1: divide by the sum over labels and places together",
    )
    turned = [0.8 / 2.4, 0.3 / 2.4, 0.3 / 2.4, 0.4 / 2.4, 0.3 / 2.4, 0.3 / 2.4]
    expect(not _is(after[0], turned), TURNED)
    stayed = [0.8 / 4.4, 0.8 / 4.4, 1 / 4.4, 0.4 / 4.4, 0.4 / 4.4, 1 / 4.4]
    expect(not _is(after[0], stayed), "places that the gaze does not take in get a factor too: off[answer]")
    first = [0.8 / 3, 0.8 / 3, 0.3 / 3, 0.4 / 3, 0.4 / 3, 0.3 / 3]
    expect(_is(after[0], first), "the first image differs from Bayes' rule by hand: which factor does each entry get?")
    second = [0.07 / 0.59, 0.04 / 0.59, 0.21 / 0.59, 0.07 / 0.59, 0.06 / 0.59, 0.14 / 0.59]
    expect(_is(after[1], second), "right for an even belief, wrong for an uneven one or for the second image")
    return "both images as by hand."


@exercise("a7.3", "worth")
def worth(answer: Callable[..., Tensor]) -> str:
    """Two places, two labels, an even belief: the chapter's 0.368 nats, and half a chance of it."""
    near = torch.tensor([[True, True], [False, True]])
    on = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    off = torch.tensor([0.5, 0.5], dtype=torch.float64)
    belief = torch.full((1, 2, 2), 0.25, dtype=torch.float64)
    values = tensor_answer(answer(belief, near, on, off), (1, 2), "the worths")
    close = torch.tensor([[0.36806, 0.18403]], dtype=torch.float64)
    expect(not torch.allclose(values, -close, atol=1e-4), "right but for its sign")
    expect(not torch.allclose(values, close / 0.693147, atol=1e-4), "these are bits; nats are asked for")
    expect(
        not _is(values, [0.6931471806] * 2),
        "this is how uncertain the answer is; label and place leave a part of it open",
    )
    expect(
        not torch.allclose(values, close.flip(1), atol=1e-4),
        TURNED,
    )
    alone = torch.tensor([[0.36806, 0.08228]], dtype=torch.float64)
    expect(
        not torch.allclose(values, alone, atol=1e-4),
        "this is what the answer tells of the label; of the place it tells too",
    )
    expect(
        abs(values[0, 0] - close[0, 0]) < 1e-4,
        "place 0 takes in everything: its worth should be expected_gain's, 0.368",
    )
    expect(abs(values[0, 1] - close[0, 1]) < 1e-4, "place 1 takes in the thing with a probability of one half only")
    return "0.368 nats where the gaze takes in everything, and half of it where it takes in half."


@exercise("a7.4", "explore")
def explore(answer: Callable[..., Tensor]) -> str:
    """Three images, five places in a row: four looks by each policy."""
    row = torch.arange(5)
    near = (row[:, None] - row).abs() <= 1
    near[0, 3] = True
    on = torch.tensor([[0.7, 0.1, 0.2], [0.1, 0.7, 0.2]], dtype=torch.float64)
    off = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    answers = torch.tensor([[0, 2, 1, 1, 0], [2, 1, 2, 1, 1], [0, 1, 0, 2, 0]])
    right = {
        "likeliest": [[2, 0, 1, 3], [2, 0, 3, 4], [2, 0, 1, 3]],
        "gain": [[2, 0, 1, 3], [2, 0, 3, 4], [2, 0, 3, 1]],
    }
    for policy, expected in right.items():
        path = answer(answers, near, on, off, 4, policy)
        path = tensor_answer(path, (3, 4), f"the path by {policy!r}")
        expect(
            bool((path == path.round()).all()) and bool(((path >= 0) & (path < 5)).all()),
            "a path holds numbers of places",
        )
        expect(bool((path[:, 0] == 2).all()), "the first look goes to the middle place, U // 2")
        expect(all(len(set(places)) == 4 for places in path.tolist()), f"by {policy!r} a place was looked at twice")
        expect(
            not bool((path[:, 1] == 3).all()),
            f"by {policy!r} all gazes go to place 3 first: near[v, u] has the gaze first, and did you use first_best?",
        )
        expect(
            path.tolist() == expected,
            f"by {policy!r} it looks elsewhere: is the belief updated after each look, with the answer from there?",
        )
    return "three paths by each policy."


@exercise("a7.5", "measured")
def measured(answer: Callable[[], Tensor]) -> str:
    """Whether the shares are ones that 50 scenes can give, and the first look the same for all."""
    shares = tensor_answer(answer(), (5, 6), "the shares")
    expect(bool(((shares >= 0) & (shares <= 1)).all()), "shares lie between 0 and 1")
    expect(
        bool(((shares * 50 - (shares * 50).round()).abs() < 1e-3).all()), "of 50 scenes a share is a multiple of 0.02"
    )
    first = shares[:3, 0]
    expect(
        bool((first == first[0]).all()),
        "rows 0 to 2 believe alike and look at the same place first: why does column 0 differ?",
    )
    expect(
        bool(shares[3, 0] == shares[4, 0]),
        "rows 3 and 4 believe alike and look at the same place first: why does column 0 differ?",
    )
    for a, b, why in ((0, 3, "believe differently"), (2, 4, "believe differently"), (0, 2, "look at different places")):
        expect(not torch.equal(shares[a], shares[b]), f"rows {a} and {b} {why}: yours are one row")
    return "five rows that 50 scenes can give."
