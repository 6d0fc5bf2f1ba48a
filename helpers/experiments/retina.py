"""What the log-polar view changes for a network: `python -m helpers.experiments.retina`.

Two matched pairs of networks, each member seeing the same disc, one of them in log-polar coordinates: how often they
are right when the image is turned, zoomed, blurred, or looked at from beside its middle.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine
from tqdm.auto import tqdm

from helpers.experiments.matched_pairs import (
    PAIRS,
    REACH,
    Searched,
    by_network,
    load_images,
    object_middles,
    pair_header,
)
from helpers.experiments.report import Record, run_record, summary
from helpers.filters import blurred
from helpers.results import Row, frame, long_table
from helpers.retina import R_MIN, log_polar, viewer
from helpers.search import View, label_map

NAME = "retina"
TURNS = tuple(22.5 * k for k in range(9))  # degrees
ZOOMS = (0.5, 0.71, 0.84, 1.0, 1.19, 1.41, 2.0)  # size of the image's content
BLURS_PX = (0.0, 0.25, 0.4, 0.55, 0.75, 1.0)  # standard deviations; turning resamples, and smooths as well
SHIFTS_PX = (0, 4, 8, 12, 16, 24)  # of the gaze
WAYS = 4  # directions of a shift
BATCH = 500  # images that are turned at once
Change = Callable[[Tensor, Tensor], Tensor]  # images and the points that belong in their middles -> images


def transformed(x: Tensor, at: Tensor, turn: float = 0.0, zoom: float = 1.0) -> Tensor:
    """Images (N, C, S, S), S even, turned by degrees and zoomed about the points (N, 2) in [-1, 1].

    The point is brought to the middle first, by whole pixels, so that one transformation does for all. Beyond the edge,
    and farther from the point than half the image, all is 0.
    """
    size = x.shape[-1]
    pixels = (at * size / 2).round().long()
    rows = torch.arange(size, device=x.device)
    padded = torch.nn.functional.pad(x, [size // 2] * 4)
    across, down = (pixels[:, k, None].to(x.device) + rows + size // 2 for k in (0, 1))  # (N, S) columns, rows
    channels_last, image = padded.permute(0, 2, 3, 1), torch.arange(len(x))[:, None, None]
    moved = channels_last[image, down[:, :, None], across[:, None]].movedim(3, 1)
    return affine(moved, turn, [0, 0], zoom, [0.0, 0.0], InterpolationMode.BILINEAR)


def middles(images: Searched, kind: str) -> Tensor:
    """Where the gaze belongs, (N, 2) in [-1, 1]: on a scene's object, in the middle of a photograph."""
    return torch.zeros(len(images.x), 2) if kind == "photos" else object_middles(images)


def hits(model: nn.Module, images: Searched, at: Tensor, kind: str, change: Change, view: View | None = None) -> Tensor:
    """Which images are named rightly from their middles after a change.

    Args:
        model: the network.
        images: N of them.
        at: the middles, (N, 2) in [-1, 1].
        kind: of the images, "scenes" or "photos".
        change: of images and their middles.
        view: in place of the network's own.

    Returns:
        0 or 1 for each image, (N,).
    """
    right, view = [], viewer(model, REACH[kind]) if view is None else view
    for part in torch.arange(len(images.x)).split(BATCH):
        x = change(images.x[part.to(images.x.device)], at[part])
        answer = label_map(model, x, torch.zeros(1, 2), view)[:, 0].argmax(-1)
        right.append(answer.cpu() == images.labels[part])
    return torch.cat(right).double()


def displaced(model: nn.Module, images: Searched, at: Tensor, kind: str, pixels: int) -> Tensor:
    """Which share of looks from so many pixels beside the middle is answered rightly, (N,)."""
    angles = torch.arange(WAYS) * 2 * math.pi / WAYS
    step = (pixels * torch.stack([angles.cos(), angles.sin()], 1)).round() * 2 / images.x.shape[-1]
    places = (at[:, None] + step[: 1 if pixels == 0 else WAYS]).clamp(-1, 1)
    answer = label_map(model, images.x, places, viewer(model, REACH[kind])).argmax(-1)
    return (answer.cpu() == images.labels[:, None]).double().mean(1)


def measured(model: nn.Module, images: Searched, kind: str) -> dict[str, Any]:
    """The curves of one network, with standard errors over the images; of a retina also without its aliasing.

    Returns:
        The metrics of `axes`, a list of `summary` each, and single metrics.
    """
    at = middles(images, kind)

    def changed(change: Change) -> Tensor:
        return hits(model, images, at, kind, change)

    turned = [changed(partial(transformed, turn=turn)) for turn in tqdm(TURNS, desc="turns", leave=False)]
    zoomed = [changed(partial(transformed, zoom=zoom)) for zoom in tqdm(ZOOMS, desc="zooms", leave=False)]
    smoothed = [
        changed(lambda x, p, sigma=sigma: blurred(transformed(x, p), sigma))
        for sigma in tqdm(BLURS_PX, desc="blurs", leave=False)
    ]
    shifted = [displaced(model, images, at, kind, px) for px in tqdm(SHIFTS_PX, desc="shifts", leave=False)]
    unchanged = zoomed[ZOOMS.index(1.0)]
    extra = {}
    if model.card.view == "log-polar":
        clean = partial(log_polar, r_min=R_MIN * REACH[kind], r_max=REACH[kind], antialias=True)
        extra["anti-aliased"] = summary(hits(model, images, at, kind, transformed, clean))
    return {
        "turned": [summary(right) for right in turned],
        "zoomed": [summary(right) for right in zoomed],
        "blurred": [summary(right) for right in smoothed],
        "shifted": [summary(right) for right in shifted],
        "lost by the worst turn": summary(turned[0] - min(turned, key=lambda right: right.mean())),
        "lost by half the size": summary(unchanged - zoomed[0]),
        "lost by 16 px": summary(shifted[0] - shifted[SHIFTS_PX.index(16)]),
        **extra,
    }


def axes() -> dict[str, tuple[float, ...]]:
    """The settings of each metric that is a curve: degrees, magnifications, pixels, pixels."""
    return {"turned": TURNS, "zoomed": ZOOMS, "blurred": BLURS_PX, "shifted": SHIFTS_PX}


def rows(results: dict[str, Any], kind: str, count: int) -> list[Row]:
    """The rows of one world's networks, the table "curves"; metrics that are no curves have no setting.

    Args:
        results: name -> seed -> as `measured` gives it.
        kind: "scenes" or "photos".
        count: of images.
    """
    settings = axes()
    curves = {
        name: {
            seed: {
                metric: dict(zip(settings[metric], values, strict=True)) if metric in settings else values
                for metric, values in metrics.items()
            }
            for seed, metrics in by_seed.items()
        }
        for name, by_seed in results.items()
    }
    return long_table(curves, "network", "seed", "metric", "setting", table="curves", set=kind, n=count)


def record(out: Path, device: torch.device) -> Record:
    """The whole record."""
    settings = {key: list(values) for key, values in (
        ("turns", TURNS), ("zooms", ZOOMS), ("blurs", BLURS_PX), ("shifts", SHIFTS_PX)
    )} | {"ways": WAYS, "reach": REACH}  # fmt: skip
    measurements: list[Row] = []
    for kind in PAIRS:
        images = load_images(kind, device)

        # Defaults, so that images and kind are those of now, not of the loop's end.
        def measure(model: nn.Module, _seed: int, images: Searched = images, kind: str = kind) -> dict[str, Any]:
            return measured(model, images, kind)

        results = by_network(NAME, kind, images, measure, settings, out, device)
        measurements += rows(results, kind, len(images.x))
    return Record(pair_header(NAME, device, settings), frame(measurements).round(6))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "How a log-polar view bears turns, zooms and a gaze beside the object.", record, arguments)


if __name__ == "__main__":
    sys.exit(main())
