"""Probabilities made to mean what they say: one temperature for all views, or what each bin of confidence has proved.

Log-probabilities (N, U, K) of N images seen from U places, of which (N,) labels are true.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
BINS = 10  # of confidence, as many views in each
# How far a bin's probability stays from 1, which no later view could ever outweigh, and above chance, 1 / K, at which
# the answer would no longer be the likeliest label.
MARGIN = 1e-3
TIE = 1e-4  # of the old confidence added to the new one: within a bin the surer view stays the surer one


def apply_temperature(log_p: Tensor, temperature: float) -> Tensor:
    """Log-probabilities (..., K) of the same answers, less sure of themselves: softened by a temperature above 1."""
    return (log_p / temperature).log_softmax(-1)


def best_temperature(log_p: Tensor, truth: Tensor) -> float:
    """The temperature of `TEMPERATURES` under which the true labels are likeliest, over all views.

    Args:
        log_p: log-probabilities, (N, U, K).
        truth: (N,).

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.
    """

    def likelihood(temperature: float) -> float:
        index = truth[:, None, None].expand(-1, log_p.shape[1], 1)
        return apply_temperature(log_p, temperature).gather(2, index).mean().item()

    return max(TEMPERATURES, key=likelihood)


def histogram_binning(log_p: Tensor, truth: Tensor, bins: int = BINS) -> Callable[[Tensor], Tensor]:
    """Views sorted by confidence into bins of equal size; each view's answer gets the bin's share of right ones.

    Args:
        log_p: log-probabilities, (N, U, K).
        truth: (N,).
        bins: how many.

    Returns:
        A function of log-probabilities (..., K): no answer changes, the other labels share the rest evenly; within a
        bin the order of the views stays as it was.

    Source: Zadrozny and Elkan, "Obtaining calibrated probability estimates from decision trees and naive Bayesian
    classifiers", ICML 2001 (histogram binning).
    """
    classes = log_p.shape[-1]
    confidence = log_p.amax(-1).exp()
    edges = confidence.flatten().double().quantile(torch.arange(1, bins, dtype=torch.float64) / bins).to(confidence)
    of_bin = torch.bucketize(confidence, edges)
    right = (log_p.argmax(-1) == truth[:, None]).double()
    # Many equal confidences may lie on an edge, and leave a bin empty: it gets the share of all views.
    shares = torch.stack([right[of_bin == k].mean() if (of_bin == k).any() else right.mean() for k in range(bins)])
    shares = shares.clamp(1 / classes + MARGIN, 1 - MARGIN).to(log_p)

    def calibrated(log_p: Tensor) -> Tensor:
        confidence = log_p.amax(-1).exp()
        top = (shares[torch.bucketize(confidence, edges)] + TIE * confidence)[..., None]
        answer = F.one_hot(log_p.argmax(-1), classes).bool()
        return torch.where(answer, top, (1 - top) / (classes - 1)).log()

    return calibrated
