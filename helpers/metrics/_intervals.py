"""How sure a mean is, and a difference of two: bootstrap intervals, paired, with a correction for many comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from helpers._validate import check_choice, check_count, check_number, check_tensor

RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean and where it would lie for other images like these."""

    mean: float
    low: float
    high: float


def mean_interval(values: Tensor, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of a score over images, with its bootstrap interval.

    Args:
        values: (N,), one score an image; NaN is left out.
        confidence: of the interval, in (0, 1).
        resamples: how often the images are drawn anew, with replacement.
        seed: of the drawing.

    Returns:
        `Interval`, by the percentiles of the resampled means; of width 0 where all scores are the same.

    Raises:
        ValueError: values are not (N,), or fewer than two are numbers; confidence or resamples out of range.

    Source: Efron, Tibshirani, "An introduction to the bootstrap", 1993, chapter 13; scipy computes it.
    """
    scores = check_tensor(values, "values", "N", kind="real", finite=False).detach().cpu().double().numpy()
    scores = scores[~np.isnan(scores)]
    check_count(len(scores), "the number of values", 2)
    confidence = check_number(confidence, "confidence", 0, 1, above=True, below=True)
    result = stats.bootstrap(
        (scores,),
        np.mean,
        n_resamples=check_count(resamples, "resamples"),
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(scores.mean()), float(result.low), float(result.high))


def paired_differences(
    scores: Mapping[str, Tensor],
    reference: str,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Each method against one of them, image by image: the mean difference, its interval, and how often chance does it.

    The images are the same for all methods, so what differs from image to image cancels. The probabilities are those
    of a test that exchanges the two scores of an image at random, corrected for the number of methods by Benjamini and
    Hochberg: of the differences called real at 0.05, about one in twenty is not.

    Args:
        scores: name -> (N,), one score an image; images with a NaN in any of them are left out.
        reference: the name of the method that the others are compared with.
        confidence: of the intervals, in (0, 1).
        resamples: how often the images are drawn anew, and the scores exchanged.
        seed: of both.

    Returns:
        A row a method, without the reference: "method", "mean" difference (positive where it is above the reference),
        "low", "high", "p" (corrected) and "n", the number of images.

    Raises:
        ValueError: fewer than two methods, no such reference, scores of different lengths, fewer than two images, or
            confidence or resamples out of range.
    """
    check_choice(reference, "reference", scores)
    check_count(len(scores), "the number of methods", 2)
    count = len(scores[reference])
    table = np.stack([_numbers(values, name, count) for name, values in scores.items()])
    table = table[:, ~np.isnan(table).any(0)]  # (methods, images)
    base = table[list(scores).index(reference)]
    rows = []
    for name, own in zip(scores, table, strict=True):
        if name == reference:
            continue
        difference = own - base
        mean, low, high = mean_interval(
            torch.from_numpy(difference), confidence=confidence, resamples=resamples, seed=seed
        )
        rows.append((name, mean, low, high, _chance(difference, resamples, seed), len(difference)))
    result = pd.DataFrame(rows, columns=["method", "mean", "low", "high", "p", "n"])
    return result.assign(p=stats.false_discovery_control(result["p"]))


def _numbers(values: Tensor, name: str, count: int) -> np.ndarray:
    checked = check_tensor(values, f"scores[{name!r}]", f"{count}", kind="real", finite=False)
    return checked.detach().cpu().double().numpy()


def _chance(differences: np.ndarray, resamples: int, seed: int) -> float:
    """How often the mean of differences (n,) with signs drawn at random is as far from zero, once counted in itself."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (resamples, len(differences)))
    far = np.abs(signs @ differences) >= np.abs(differences.sum()) * (1 - 1e-12)
    return float((far.sum() + 1) / (resamples + 1))
