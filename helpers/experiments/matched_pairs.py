"""The matched pairs of chapters 6 and 7: one network sees the disc, the other the same in log-polar coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import normalize
from tqdm.auto import tqdm

from helpers import networks
from helpers.boxes import box_centers
from helpers.data import searched_scenes, tiny_imagenet
from helpers.data._scenes import DISPLAY, WINDOW
from helpers.experiments.environment import run_environment
from helpers.experiments.report import cached_part, header
from helpers.experiments.train.command import trained
from helpers.experiments.train.datasets import data_hash, held_out, prepare
from helpers.experiments.train.recipes import RECIPES

SEED = 10_501  # of scenes that no network was trained or tested on
SCENES = 2000
GRID = 7  # fixations a side, as the source
PAIRS = {"scenes": ("scenes-disc", "scenes-logpolar"), "photos": ("photos-disc", "photos-logpolar")}
SEEDS = {"scenes": (0, 1, 2), "photos": (0, 1)}
# Radius of what one fixation shows, in half the image: the disc in a quarter of a scene, all of a photograph's disc.
REACH = {"scenes": WINDOW / DISPLAY, "photos": 1.0}


class Searched(NamedTuple):
    """Images with an object to be found.

    Attributes:
        x: (N, 3, S, S), as the networks expect them.
        labels: (N,) int64.
        boxes: (N, 4), x0, y0, x1, y1 in pixel edges.
    """

    x: Tensor
    labels: Tensor
    boxes: Tensor


def load_images(kind: str, device: torch.device) -> Searched:
    """The images of a pair: 2,000 scenes of 128 pixels, or the validation photographs of the pair's classes.

    Raises:
        DataMissing: Tiny ImageNet is wanted and not there.
    """
    recipe = RECIPES[PAIRS[kind][0]]
    if kind == "photos":
        photos = tiny_imagenet("val", recipe.classes)
        return Searched(prepare(recipe, photos.images).to(device), photos.labels, photos.boxes)
    drawn = searched_scenes(SCENES, SEED)
    x = normalize(drawn.images, list(recipe.mean), list(recipe.std))
    return Searched(x.to(device), drawn.labels[:, 0], drawn.boxes[:, 0])


def object_middles(images: Searched) -> Tensor:
    """The middles of the true boxes, to whole pixels, (N, 2) in [-1, 1]."""
    return box_centers(images.boxes).round() * 2 / images.x.shape[-1] - 1


def pair(kind: str, out: Path, device: torch.device) -> Iterator[tuple[str, int, nn.Module]]:
    """Name, seed and network of every member of a pair; networks that are not shipped come from their runs in `out`.

    Raises:
        RunError: a run that is damaged or another one's.
        DataMissing: Tiny ImageNet is wanted and not there.
    """
    for name in PAIRS[kind]:
        for seed in SEEDS[kind]:
            if seed == RECIPES[name].seeds[0]:
                yield name, seed, networks.load(name, device)
                continue
            model = trained(name, seed, out, device)
            model.card = networks.card(name)  # ty: ignore[invalid-assignment] -- a module keeps any attribute
            yield name, seed, model


def by_network(
    record: str,
    kind: str,
    images: Searched,
    measure: Callable[[nn.Module, int], dict[str, Any]],
    settings: dict[str, Any],
    out: Path,
    device: torch.device,
) -> dict[str, dict[str, Any]]:
    """A measurement of every network of a pair, each kept in a file of its own: hours are not lost with the next one.

    Args:
        record: its name, the first part of the files' names.
        kind: of the pair.
        images: that are measured on.
        measure: of a network and its seed.
        settings: what the measurement depends on beside the images.
        out: folder of the files and of the networks' runs.
        device: where it is computed.

    Returns:
        name -> seed -> what was measured.

    Raises:
        RunError: a damaged file, or a run that is damaged or another one's.
        DataMissing: Tiny ImageNet is wanted and not there.
    """
    results: dict[str, dict[str, Any]] = {}
    for name, seed, model in tqdm(pair(kind, out, device), desc=f"{record}, {kind}"):
        path = out / f"{record}-{name}-{seed}.json"
        part = cached_part(path, partial(measure, model, seed), settings | {"images": len(images.x)})
        results.setdefault(name, {})[str(seed)] = part
    return results


def pair_header(record: str, device: torch.device, settings: dict[str, Any]) -> dict[str, Any]:
    """The header of a record of the pairs."""
    data = {names[0]: data_hash(held_out(RECIPES[names[0]])) for names in PAIRS.values()}
    return header(record, run_environment(device), data=data, seeds=SEEDS, settings=settings)
