"""What a recipe trains on and is tested on, and what its network sees of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.data import CLASSES, mnist, scenes, tiny_imagenet
from helpers.experiments.recipes import Recipe
from helpers.retina import inscribed_disc, log_polar

TEST_SEED = 10_000  # of test scenes; training uses seeds far below it
TEST_SCENES = 2000
SWAP = 4  # steps along the list of backgrounds: each class gets the background tied to another one
CROP = (0.7, 1.0)  # side of a training crop, in sides of the image

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "whole": lambda x: x,
    "disc": inscribed_disc,
    "log-polar": lambda x: log_polar(x)[:, 0],
}


class Labelled(NamedTuple):
    """Images (N, C, H, W), uint8 in 0 .. 255, and their labels (N,)."""

    images: Tensor
    labels: Tensor


class World(NamedTuple):
    """What a network learns from and is tested on.

    Attributes:
        train: the training set.
        tests: test sets by name; the first one is the one meant by "the accuracy".
        classes: names of the classes.
        what: one line that says what the data is.
    """

    train: Labelled
    tests: Mapping[str, Labelled]
    classes: tuple[str, ...]
    what: str


def held_out(recipe: Recipe) -> World:
    """The test sets of a recipe alone; `train` is empty.

    Raises:
        DataMissing: real data is wanted that is not there.
    """
    return _load(recipe, None)


def world(recipe: Recipe, seed: int = 0, images: int | None = None) -> World:
    """The training and test sets of a recipe.

    Args:
        recipe: says which.
        seed: of the run; other seeds get other training scenes.
        images: train on so many images only, evenly spaced in the set, so that all classes are among them.

    Raises:
        DataMissing: real data is wanted that is not there.
        ValueError: an unknown world or class.
    """
    found = _load(recipe, seed)
    if images is None:
        return found
    kept = torch.arange(images) * len(found.train.images) // images
    return found._replace(train=Labelled(*(part[kept] for part in found.train)))


def _load(recipe: Recipe, seed: int | None) -> World:
    loaders = {"mnist": _mnist, "scenes": _scenes, "photos": _photos}
    if recipe.world not in loaders:
        raise ValueError(f"world: got {recipe.world!r}, want one of {', '.join(loaders)}")
    return loaders[recipe.world](recipe, seed)


def _bytes(images: Tensor, labels: Tensor) -> Labelled:
    """Images in [0, 1] as the bytes they were made from: a quarter of the memory, and nothing is lost."""
    return Labelled((images * 255).round().byte(), labels)


def _mnist(recipe: Recipe, seed: int | None) -> World:
    sets = [_bytes(*mnist(split)[:2]) for split in (("test",) if seed is None else ("train", "test"))]
    train = sets[0] if seed is not None else Labelled(sets[0].images[:0], sets[0].labels[:0])
    return World(train, {"test": sets[-1]}, tuple("0123456789"), "MNIST")


def _scenes(recipe: Recipe, seed: int | None) -> World:
    def drawn(n: int, seed: int, **options: float) -> Labelled:
        found = scenes(n, seed, **options)
        return _bytes(found.images, found.labels[:, 0])

    tests = {"test": drawn(TEST_SCENES, TEST_SEED, bias=recipe.bias)}
    if recipe.bias:
        tests["backgrounds swapped"] = drawn(TEST_SCENES, TEST_SEED, bias=recipe.bias, background_shift=SWAP)
        tests["backgrounds at random"] = drawn(TEST_SCENES, TEST_SEED)
    what = (
        f"scenes of `helpers.data`, bias {recipe.bias:.3g}, {recipe.images:,} training and {TEST_SCENES:,} test images"
    )
    train = drawn(recipe.images if seed is not None else 0, seed or 0, bias=recipe.bias)
    return World(train, tests, CLASSES, what)


def _photos(recipe: Recipe, seed: int | None) -> World:
    chosen = recipe.classes or None
    test = tiny_imagenet("val", chosen)
    train = tiny_imagenet("train", chosen) if seed is not None else test
    count = len(train.labels) if seed is not None else 0
    what = f"Tiny ImageNet, {len(test.classes)} classes, its validation images as test images"
    learned = Labelled(train.images[:count], train.labels[:count])
    return World(learned, {"test": Labelled(test.images, test.labels)}, test.names, what)


def data_hash(found: World) -> str:
    """sha256 over the bytes of all images and labels, training set first."""
    digest = hashlib.sha256()
    for part in (found.train, *found.tests.values()):
        for tensor in part:
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def prepare(recipe: Recipe, images: Tensor) -> Tensor:
    """Images (B, C, H, W), uint8, as a network expects them: in [0, 1], then normalised as the recipe says."""
    x = images.float() / 255
    mean, std = (x.new_tensor(values).view(-1, 1, 1) for values in (recipe.mean, recipe.std))
    return (x - mean) / std


def augmented(x: Tensor, draw: torch.Generator) -> Tensor:
    """Random crops of images (B, C, H, W), brought back to their size; every other one mirrored.

    Args:
        x: normalised images.
        draw: a generator on the CPU, so that every device gets the same crops.
    """
    u = torch.rand(4, len(x), generator=draw)
    side = CROP[0] + (CROP[1] - CROP[0]) * u[0]
    room = 1 - side  # how far a crop's centre may lie from the image's, in half sides
    matrix = torch.zeros(len(x), 2, 3)
    matrix[:, 0, 0] = torch.where(u[3] < 0.5, -side, side)
    matrix[:, 1, 1] = side
    matrix[:, :, 2] = ((2 * u[1:3] - 1) * room).T
    grid = F.affine_grid(matrix.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
