"""Boxes in plain Python: drawings as masks, the box of a mask, overlaps in fractions."""

from fractions import Fraction

import torch

from support.tensors import NAN, needs_cuda, seeded  # noqa: F401 -- tests of boxes ask here


def picture(text):
    """Rows of digits -> (1, H, W); a dot is zero, a letter minus its place in the alphabet."""
    rows = [[int(c) if c.isdigit() else 0 if c == "." else 96 - ord(c) for c in row] for row in text.split()]
    return torch.tensor(rows, dtype=torch.float32)[None]


def same(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected).to(actual), rtol=0, atol=0, equal_nan=True)


def box_of(mask):
    """The rule in plain Python: grow every region place by place, keep the first of the largest."""
    height, width = mask.shape
    left, best = {(r, c) for r in range(height) for c in range(width) if mask[r, c]}, []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        region = [start]
        for r, c in region:  # grows while it is walked through
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            region += near
        best = region if len(region) > len(best) else best
    if not best:
        return [NAN] * 4
    rows, columns = zip(*best, strict=True)
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


def exact_iou(box, other):
    """In fractions, by counting the unit squares of integer boxes."""
    a, b = ({(x, y) for x in range(x0, x1) for y in range(y0, y1)} for x0, y0, x1, y1 in (box, other))
    return Fraction(len(a & b), len(a | b)) if a | b else None
