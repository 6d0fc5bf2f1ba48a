"""Tested claims: a sentence of the book with the number that proves it.

A chapter that says "the map's mean plus the bias is the score" writes beside it

    claim("cam-mean-is-logit", (shares.mean() + b - logit).abs(), at_most=1e-6,
          text="the map's mean plus the bias is the score")

The call computes nothing: it compares the value with its bound and shows one small line, "✓ 0.80 against 0.34 for the
centre", which unfolds in a notebook to the sentence, what was measured and what it must be; in a terminal it is text.
It raises `ClaimFailed` when the sentence has stopped being true, so that a book with a false sentence cannot be built.
`summary()` at the end of a chapter collects what was found.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from statistics import median
from typing import Any

from helpers.tables import Table, format_cell, table

LOG_VARIABLE = "HELPERS_CLAIMS_LOG"  # the book's build sets it: one JSON object a line for each claim that was checked
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_checked: dict[str, Claim] = {}


class ClaimFailed(AssertionError):
    """A sentence of the book is not true of the numbers computed beside it."""


@dataclass(frozen=True, repr=False)
class Claim:
    """One checked claim, as `summary` and the appendix print it; `line` is the small line on the page."""

    id: str
    text: str
    value: str
    bound: str
    holds: bool
    line: str

    def __str__(self) -> str:
        """One line of text: the verdict, the sentence, the measured value beside its bound."""
        mark = "✓ holds" if self.holds else "✗ FAILS"
        return f"{mark}: {self.text} [{self.value}; {self.bound}]  ({self.id})"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The small line, which unfolds to the sentence, the measured value and its bound."""
        sentence = self.text[:1].upper() + self.text[1:].rstrip(".")
        return (
            f'<details class="claim" id="claim-{self.id}" style="font-size: 0.85em">'
            f"<summary>{'✓' if self.holds else '✗'} {escape(self.line)}</summary>"
            f"<p>{escape(sentence)}. Measured: {escape(self.value)}; must be {escape(self.bound)}. "
            f"<code>{self.id}</code></p></details>"
        )


def _numbers(value: Any, what: str) -> list[float]:
    """One float for a scalar, one a seed for a sequence, a 1-D tensor or a 1-D array."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    items = list(value) if isinstance(value, Sequence | set) and not isinstance(value, str) else [value]
    if not items or not all(isinstance(item, bool | int | float) for item in items):
        raise ValueError(f"{what} must be a number, a truth value or a flat sequence of them, got {value!r}")
    return [float(item) for item in items]


def _show(numbers: Sequence[float], per: str) -> str:
    """The number itself, or median and range over the seeds (or whatever there is one number `per`)."""
    if len(set(numbers)) == 1:
        often = "" if len(numbers) == 1 else f" for each of {len(numbers)} {per}s"
        return _short(numbers) + often
    low, high = format_cell(float(min(numbers))), format_cell(float(max(numbers)))
    return f"{format_cell(float(median(numbers)))} in the median of {len(numbers)} {per}s, from {low} to {high}"


def _short(numbers: Sequence[float]) -> str:
    """The number, or the median."""
    middle = float(median(numbers))
    whole = middle.is_integer() and abs(middle) < 1e15 and len(set(numbers)) == 1
    return format_cell(int(middle) if whole else middle)


def _against(numbers: list[float], baseline: Mapping[str, Any], sign: int, per: str) -> tuple[bool, str, str]:
    """Compare seed by seed with every named baseline; sign +1: must be above, -1: below.

    Returns whether it holds, the bound in words, and the baselines for the small line.
    """
    holds, bounds, parts = True, [], []
    for name, value in baseline.items():
        others = _numbers(value, f"the baseline {name!r}")
        if len(others) not in (1, len(numbers)):
            raise ValueError(f"the baseline {name!r} has {len(others)} values, the claim {len(numbers)}")
        others = others * len(numbers) if len(others) == 1 else others
        holds &= all(sign * (a - b) > 0 for a, b in zip(numbers, others, strict=True))
        bounds.append(f"{'above' if sign > 0 else 'below'} {name}: {_show(_numbers(value, name), per)}")
        parts.append(f"{_short(others)} for {name}")
    return holds, ", ".join(bounds), " and ".join(parts)


def claim(
    id: str,
    value: Any,
    *,
    text: str,
    at_least: float | None = None,
    at_most: float | None = None,
    equals: float | None = None,
    tolerance: float = 0.0,
    above: Mapping[str, Any] | None = None,
    below: Mapping[str, Any] | None = None,
    per: str = "seed",
) -> None:
    """Check one sentence of the book against the number computed beside it.

    Args:
        id: lower-case words joined by hyphens, unique in the book.
        value: a number, a truth value, or one number a seed (sequence, 1-D tensor or array): every one of them must
            satisfy the bounds.
        text: the sentence that is claimed.
        at_least: the smallest value allowed.
        at_most: the largest value allowed.
        equals: the value wanted, up to `tolerance` (absolute).
        tolerance: how far from `equals` still counts.
        above: named baselines that the value must exceed, seed by seed: `{"centre": 0.41}`.
        below: named baselines that the value must stay under.
        per: what there is one number of where there are several: "seed", "training", "image".

    Raises:
        ClaimFailed: the value breaks a bound, or is NaN.
        ValueError: no bound is given, the id is malformed, or the value is not numeric.
    """
    if not _ID.fullmatch(id):
        raise ValueError(f"a claim's id is lower-case words joined by hyphens, got {id!r}")
    if not text.strip():
        raise ValueError(f"claim {id!r} says nothing: text is empty")
    numbers = _numbers(value, f"the value of claim {id!r}")
    for name, bound in (("at_least", at_least), ("at_most", at_most), ("equals", equals), ("tolerance", tolerance)):
        if bound is not None and len(_numbers(bound, f"{name} of claim {id!r}")) != 1:
            raise ValueError(f"{name} of claim {id!r} must be one number, got {bound!r}")
    verdicts: list[tuple[bool, str]] = []
    if at_least is not None:
        verdicts.append((min(numbers) >= at_least, f"at least {format_cell(at_least)}"))
    if at_most is not None:
        verdicts.append((max(numbers) <= at_most, f"at most {format_cell(at_most)}"))
    if equals is not None:
        near = all(abs(n - equals) <= tolerance for n in numbers)
        spread = f" within {format_cell(tolerance)}" if tolerance else ""
        verdicts.append((near, f"equal to {format_cell(equals)}{spread}"))
    others: list[str] = []
    for baseline, sign in ((above, +1), (below, -1)):
        if baseline:
            holds, bound, part = _against(numbers, baseline, sign, per)
            verdicts.append((holds, bound))
            others.append(part)
    if not verdicts:
        raise ValueError(f"claim {id!r} cannot fail: give at_least, at_most, equals, above or below")
    holds = all(ok for ok, _ in verdicts) and not any(map(math.isnan, numbers))
    truth = equals is True or equals is False
    shown = str(bool(value)) if truth else _show(numbers, per)
    line = " against ".join([shown if truth else _short(numbers), *filter(None, [" and ".join(others)])])
    if len(numbers) > 1:
        line += f" ({len(numbers)} {per}s)"
    checked = Claim(id, text, shown, "; ".join(bound for _, bound in verdicts), holds, line)
    _record(checked)
    if not holds:
        raise ClaimFailed(str(checked))
    _say(checked)


def _say(checked: Claim) -> None:
    """Show a claim as HTML in a notebook, as a line of text elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        print(checked)
    else:
        from IPython.display import display

        display(checked)


def _record(checked: Claim) -> None:
    _checked[checked.id] = checked
    if path := os.environ.get(LOG_VARIABLE):
        with open(path, "a", encoding="utf8") as log:
            log.write(json.dumps({**asdict(checked), "notebook": os.environ.get("HELPERS_NOTEBOOK", "")}) + "\n")


def summary() -> Table:
    """What was found: every claim checked so far in this session, as a table."""
    return table([(c.text, c.value, c.bound) for c in _checked.values()], ["what we found", "measured", "must be"])
