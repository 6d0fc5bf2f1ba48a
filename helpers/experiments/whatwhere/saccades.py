"""What the what/where model gets right: after saccades, beside other ways of choosing the place, and beside a scan."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.data import Digits, noisy_displays
from helpers.data._displays import Displays
from helpers.device import timed
from helpers.filters import blurred
from helpers.retina import cartesian
from helpers.search import dual_pathway, label_map
from helpers.training import topk_correct

DISPLAY, WINDOW = 128, 28  # pixels a side
TESTED = 1000  # displays for each eccentricity and contrast
SACCADES = 3
SPOTS_PX = (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0)  # of blurs before the lightest spot is taken, standard deviations
SCANNED_PX = 24  # how far out the digits of the scanned displays lie
NEAR_PX = 10  # a saccade that ends farther from the digit has missed it
SCAN_BATCH = 50  # displays scanned at once


def window(x: Tensor, fixations: Tensor | None) -> Tensor:
    """What the what pathway sees of displays (B, 1, 128, 128): 28 x 28 pixels, (B, U, 1, 28, 28)."""
    return cartesian(x, fixations, WINDOW, WINDOW / DISPLAY, disc=False)


def lightest(x: Tensor, blur_px: float) -> Tensor:
    """The lightest spot of displays (N, 1, S, S), blurred, as a fixation (N, 2): what needs no learning."""
    size = x.shape[-1]
    spot = blurred(x, blur_px)[:, 0].flatten(1).argmax(1).cpu()
    return torch.stack([spot % size, spot // size], dim=1) * 2 / size - 1


def displays(digits: Digits, eccentricity: int, contrast: float, seed: int) -> tuple[Displays, Tensor]:
    """Displays whose digit lies so many pixels from the centre, in any direction, and the digits' labels."""
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(digits.images), generator=draw)[:TESTED]
    angle = 2 * math.pi * torch.rand(len(chosen), generator=draw)
    places = (eccentricity * torch.stack([angle.cos(), angle.sin()], dim=1)).round().long()
    return noisy_displays(digits.images[chosen], seed, places=places, contrast=contrast), digits.labels[chosen]


def answers(what: nn.Module, x: Tensor, fixations: Tensor) -> Tensor:
    """What the what pathway says of displays from a fixation each, (N, 2): labels (N,)."""
    return label_map(what, x, fixations[:, None].clamp(-1, 1), window)[:, 0].argmax(-1).cpu()


def best_blur(what: nn.Module, digits: Digits, contrast: float, seed: int, device: torch.device) -> float:
    """The blur of `SPOTS_PX` whose lightest spots lead to most right answers; `digits` are none of the tested ones."""
    shown, labels = displays(digits, SCANNED_PX, contrast, seed)
    x = (shown.images - 0.5).to(device)
    return max(SPOTS_PX, key=lambda px: int((answers(what, x, lightest(x, px)) == labels).sum()))


def searched(
    what: nn.Module, where: nn.Module, digits: Digits, eccentricity: int, contrast: float, seed: int,
    device: torch.device, cautious: bool, blur_px: float,
) -> dict[str, Any]:  # fmt: skip
    """What the model gets right on displays whose digit lies so far from the centre, after 0 to 3 saccades.

    Beside it, one saccade to the lightest spot, blurred by `blur_px`, and one to the true place.
    """
    shown, labels = displays(digits, eccentricity, contrast, seed)
    places = shown.places
    x = (shown.images - 0.5).to(device)
    seen = dual_pathway(what, where, x, SACCADES, view=window, cautious=cautious)
    off = ((seen.fixations * DISPLAY / 2) - places[:, None]).norm(dim=-1)  # pixels beside the digit
    alone, fused = (
        topk_correct(log_p.cpu(), labels[:, None]).float().mean(0).tolist() for log_p in (seen.log_p, seen.beliefs)
    )
    moved = (seen.fixations[:, 1] != seen.fixations[:, 0]).any(-1)
    targets = {"lightest spot": lightest(x, blur_px), "true place": places * 2 / DISPLAY}
    return {
        **{
            f"one saccade to the {name}": (answers(what, x, fixations) == labels).float().mean().item()
            for name, fixations in targets.items()
        },
        "alone": alone,
        "fused": fused,
        "distance (px)": off.median(0).values.tolist(),
        "missed": (off > NEAR_PX).float().mean(0).tolist(),
        "moved": moved.float().mean().item(),
    }


def scan(what: nn.Sequential, x: Tensor) -> Tensor:
    """Log-probabilities of every fourth window of displays (N, 1, S, S), row by row: (N, windows, K).

    By convolution: `WhatNet` pools by four, so that its maps of a display hold those of all these windows.
    """
    features, head = what[:6], what[7:]  # between them, Flatten
    with torch.no_grad():
        windows = F.unfold(features(x), 4).transpose(1, 2)  # (N, windows, 50 * 4 * 4)
        return head(windows).log_softmax(-1)


def scanned(
    what: nn.Sequential, where: nn.Module, digits: Digits, contrast: float, seed: int, device: torch.device
) -> dict[str, Any]:
    """A scan of whole displays beside one saccade: what each gets right, and the seconds a display."""
    shown, labels = displays(digits, SCANNED_PX, contrast, seed)
    x = (shown.images - 0.5).to(device)
    seconds: dict[str, list[float]] = {"scan": [], "saccade": []}
    log_p: dict[str, list[Tensor]] = {"scan, most confident": [], "scan, summed evidence": [], "saccade": []}
    for batch in x.split(SCAN_BATCH):
        with timed() as scan_time:
            windows = scan(what, batch).cpu()
        with timed() as saccade_time:
            views = dual_pathway(what, where, batch, 1, view=window).log_p[:, 1].cpu()
        seconds["scan"].append(scan_time.seconds / len(batch))
        seconds["saccade"].append(saccade_time.seconds / len(batch))
        surest = windows.amax(-1).argmax(1)
        log_p["scan, most confident"].append(windows[torch.arange(len(batch)), surest])
        log_p["scan, summed evidence"].append(windows.sum(1))
        log_p["saccade"].append(views)
    right = {name: topk_correct(torch.cat(parts), labels).float().mean().item() for name, parts in log_p.items()}
    return right | {"seconds a display": {name: median(values) for name, values in seconds.items()}}
