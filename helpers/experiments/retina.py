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

from helpers.experiments.matched_pairs import PAIRS, REACH, Searched, by_network, images, origin
from helpers.experiments.report import rounded, run_record, summary
from helpers.filters import blurred
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
    y, z = (pixels[:, k, None].to(x.device) + rows + size // 2 for k in (1, 0))
    moved = padded.permute(0, 2, 3, 1)[torch.arange(len(x))[:, None, None], y[:, :, None], z[:, None]].movedim(3, 1)
    return affine(moved, turn, [0, 0], zoom, [0.0, 0.0], InterpolationMode.BILINEAR)


def middles(found: Searched, kind: str) -> Tensor:
    """Where the gaze belongs, (N, 2) in [-1, 1]: on a scene's object, in the middle of a photograph."""
    if kind == "photos":
        return torch.zeros(len(found.x), 2)
    middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    return middle.round() * 2 / found.x.shape[-1] - 1


def hits(model: nn.Module, found: Searched, at: Tensor, kind: str, change: Change, view: View | None = None) -> Tensor:
    """Which images are named rightly from their middles after a change, (N,); `view` in place of the network's own."""
    rows, view = [], viewer(model, REACH[kind]) if view is None else view
    for part in torch.arange(len(found.x)).split(BATCH):
        x = change(found.x[part.to(found.x.device)], at[part])
        answer = label_map(model, x, torch.zeros(1, 2), view)[:, 0].argmax(-1)
        rows.append(answer.cpu() == found.labels[part])
    return torch.cat(rows).double()


def displaced(model: nn.Module, found: Searched, at: Tensor, kind: str, pixels: int) -> Tensor:
    """Which share of looks from so many pixels beside the middle is answered rightly, (N,)."""
    angles = torch.arange(WAYS) * 2 * math.pi / WAYS
    step = (pixels * torch.stack([angles.cos(), angles.sin()], 1)).round() * 2 / found.x.shape[-1]
    places = (at[:, None] + step[: 1 if pixels == 0 else WAYS]).clamp(-1, 1)
    answer = label_map(model, found.x, places, viewer(model, REACH[kind])).argmax(-1)
    return (answer.cpu() == found.labels[:, None]).double().mean(1)


def measured(model: nn.Module, found: Searched, kind: str) -> dict[str, Any]:
    """The curves of one network, with standard errors over the images; of a retina also without its aliasing."""
    at = middles(found, kind)
    turned = [
        hits(model, found, at, kind, lambda x, p, a=a: transformed(x, p, turn=a))
        for a in tqdm(TURNS, desc="turns", leave=False)
    ]
    zoomed = [
        hits(model, found, at, kind, lambda x, p, z=z: transformed(x, p, zoom=z))
        for z in tqdm(ZOOMS, desc="zooms", leave=False)
    ]
    smoothed = [
        hits(model, found, at, kind, lambda x, p, b=b: blurred(transformed(x, p), b))
        for b in tqdm(BLURS_PX, desc="blurs", leave=False)
    ]
    shifted = [displaced(model, found, at, kind, d) for d in tqdm(SHIFTS_PX, desc="shifts", leave=False)]
    middle = zoomed[ZOOMS.index(1.0)]
    extra = {}
    if model.card.view == "log-polar":
        clean = partial(log_polar, r_min=R_MIN * REACH[kind], r_max=REACH[kind], antialias=True)
        extra["anti-aliased"] = summary(hits(model, found, at, kind, transformed, clean))
    return {
        "turned": [summary(one) for one in turned],
        "zoomed": [summary(one) for one in zoomed],
        "blurred": [summary(one) for one in smoothed],
        "shifted": [summary(one) for one in shifted],
        "lost by the worst turn": summary(turned[0] - min(turned, key=lambda one: one.mean())),
        "lost by half the size": summary(middle - zoomed[0]),
        "lost by 16 px": summary(shifted[0] - shifted[SHIFTS_PX.index(16)]),
        **extra,
    }


def record(out: Path, device: torch.device) -> dict[str, Any]:
    """The whole record."""
    rows: dict[str, Any] = {}
    settings = {
        "turns": list(TURNS), "zooms": list(ZOOMS), "blurs": list(BLURS_PX), "shifts": list(SHIFTS_PX), "ways": WAYS,
        "reach": REACH,
    }  # fmt: skip
    for kind in PAIRS:
        found = images(kind, device)

        def measure(model: nn.Module, seed: int, found: Searched = found, kind: str = kind) -> dict[str, Any]:
            return measured(model, found, kind)

        networks = by_network(NAME, kind, found, measure, settings, out, device)
        rows[kind] = {"images": len(found.x), "networks": networks}
    return rounded({
        **origin(NAME, device),
        "turns (degrees)": list(TURNS),
        "zooms": list(ZOOMS),
        "blurs (px)": list(BLURS_PX),
        "shifts (px)": list(SHIFTS_PX),
        "pairs": rows,
    })  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "How a log-polar view bears turns, zooms and a gaze beside the object.", record, arguments)


if __name__ == "__main__":
    sys.exit(main())
