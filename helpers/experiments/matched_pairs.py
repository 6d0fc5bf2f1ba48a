"""The matched pairs of chapters 6 and 7: one network sees the disc, the other the same in log-polar coordinates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.boxes import box_centers
from helpers.data import searched_scenes, tiny_imagenet
from helpers.data._scenes import DISPLAY, WINDOW
from helpers.experiments.environment import code_hash, run_environment, tensors_hash
from helpers.experiments.report import cached_part, header
from helpers.experiments.train.datasets import prepare
from helpers.experiments.train.recipes import RECIPES
from helpers.experiments.train.run import shipped_or_trained, weights_file_hash

SEED = 10_501  # of scenes that no network was trained or tested on
SCENES = 2000
GRID = 7  # fixations a side, as the source
PAIRS = {"scenes": ("scenes-disc", "scenes-logpolar"), "photos": ("photos-disc", "photos-logpolar")}
SEEDS = {"scenes": (0, 1, 2), "photos": (0, 1)}
# Radius of the disc that one fixation shows, in half sides of the image: 32 of a scene's 64 pixels, all of a photo's.
REACH = {"scenes": WINDOW / DISPLAY, "photos": 1.0}


class Searched(NamedTuple):
    """Images with an object to be found.

    Attributes:
        x: (N, 3, S, S), as the networks expect them; or the bytes that they are made from.
        labels: (N,) int64.
        boxes: (N, 4), x0, y0, x1, y1 in pixel edges.
    """

    x: Tensor
    labels: Tensor
    boxes: Tensor


def stored_images(kind: str) -> Searched:
    """The images of a pair as bytes: 2,000 scenes of 128 pixels, or the validation photographs of the pair's classes.

    Raises:
        DataMissing: Tiny ImageNet is wanted and not there.
    """
    if kind == "photos":
        photos = tiny_imagenet("val", RECIPES[PAIRS[kind][0]].classes)
        return Searched(photos.images, photos.labels, photos.boxes)
    drawn = searched_scenes(SCENES, SEED)
    return Searched((drawn.images * 255).round().byte(), drawn.labels[:, 0], drawn.boxes[:, 0])


def load_images(kind: str, device: torch.device) -> Searched:
    """The same images as the networks of the pair expect them.

    Raises:
        DataMissing: Tiny ImageNet is wanted and not there.
    """
    images = stored_images(kind)
    return images._replace(x=prepare(RECIPES[PAIRS[kind][0]], images.x).to(device))


def object_middles(images: Searched) -> Tensor:
    """The middles of the true boxes, to whole pixels, (N, 2) in [-1, 1]."""
    return box_centers(images.boxes).round() * 2 / images.x.shape[-1] - 1


def by_network(
    record: str,
    kind: str,
    images: Searched,
    measure: Callable[[nn.Module, int], dict[str, Any]],
    settings: dict[str, Any],
    out: Path,
    device: torch.device,
) -> dict[str, dict[str, Any]]:
    """A measurement of every network of a pair, each kept in a file of its own: an interruption costs one at most.

    A file is good for the same code, images, settings and weights alone. The network is not loaded, or trained, where
    its measurement is there.

    Args:
        record: its name, the first part of the files' names.
        kind: of the pair.
        images: that are measured on.
        measure: of a network and its seed.
        settings: what the measurement depends on beside code, images and weights.
        out: folder of the files, and of the runs of networks that are not shipped.
        device: where it is computed.

    Returns:
        name -> seed -> what was measured.

    Raises:
        RunError: a damaged file, or a run that is damaged or another one's.
        DataMissing: Tiny ImageNet is wanted and not there.
        WeightsError: a shipped network is damaged.
    """
    known = settings | {"code": code_hash(), "images": tensors_hash(images)}

    def part(name: str, seed: int) -> dict[str, Any]:
        return cached_part(
            out / f"{record}-{name}-{seed}.json",
            lambda: measure(shipped_or_trained(name, seed, out, device), seed),
            lambda: known | {"weights": weights_file_hash(name, seed, out)},
        )

    members = [(name, seed) for name in PAIRS[kind] for seed in SEEDS[kind]]
    results: dict[str, dict[str, Any]] = {}
    for name, seed in tqdm(members, desc=f"{record}, {kind}"):
        results.setdefault(name, {})[str(seed)] = part(name, seed)
    return results


def pair_header(record: str, device: torch.device, settings: dict[str, Any]) -> dict[str, Any]:
    """The header of a record of the pairs; data is what was measured on, images and labels."""
    stored = {kind: stored_images(kind) for kind in PAIRS}
    data = {kind: tensors_hash([images.x, images.labels]) for kind, images in stored.items()}
    settings = settings | {"seed of the scenes": SEED}
    return header(record, run_environment(device), data=data, seeds=SEEDS, settings=settings)
