"""What a recipe trains on and is tested on, and what its network sees of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import normalize

from helpers._validate import check_choice, check_count, describe
from helpers.boxes import box_centers
from helpers.data import (
    BACKGROUNDS,
    CLASSES,
    DIGIT_BACKGROUNDS,
    Scenes,
    digit_scenes,
    mnist,
    scenes,
    searched_scenes,
    tiny_imagenet,
)
from helpers.data._scenes import DISPLAY, WINDOW
from helpers.device import SEEDS
from helpers.experiments.environment import tensors_hash
from helpers.experiments.train.recipes import Recipe
from helpers.retina import cartesian
from helpers.sanity import permuted_labels

GAZE_PX = 8  # standard deviation of the gaze around the object: the radius of the smallest objects

TEST_SEED = 10_000  # of test scenes; training uses seeds far below it
TEST_SCENES = 2000
CANVAS = 64  # pixels a side of the canvases a digit lies on
SWAP = 4  # steps along the list of backgrounds: each class gets the background tied to another one
SMALL_OBJECTS = (0.1, 0.2)  # diameter, in sides of the image, of objects so small that the ground names the picture
CROP = (0.7, 1.0)  # side of a training crop, in sides of the image


class LabeledImages(NamedTuple):
    """Images (N, C, H, W), uint8 in 0 .. 255, and their labels (N,)."""

    images: Tensor
    labels: Tensor


class DataSplit(NamedTuple):
    """What a network learns from and is tested on.

    Attributes:
        train: the training set.
        tests: test sets by name, the main one first.
        classes: names of the classes.
        what: one line that says what the data is.
    """

    train: LabeledImages
    tests: Mapping[str, LabeledImages]
    classes: tuple[str, ...]
    what: str

    @property
    def main_test(self) -> str:
        """The name of the test set that is meant by "the accuracy"."""
        return next(iter(self.tests))


def check_seed(recipe: Recipe, seed: int) -> None:
    """Refuse a seed that no generator takes, or whose training scenes would be the test scenes.

    Raises:
        ValueError: outside 0 .. 2**32 - 1, or one of the seeds kept for testing.
    """
    seed = check_count(seed, "seed", 0, SEEDS - 1)
    if recipe.world not in ("mnist", "photos") and seed >= TEST_SEED:
        raise ValueError(f"seed must be less than {TEST_SEED:,}, the seed of the test scenes, got {seed:,}")


def held_out(recipe: Recipe) -> DataSplit:
    """The test sets of a recipe alone; `train` is empty.

    Raises:
        DataMissing: real data is wanted that is not there.
    """
    return _load(recipe, None, None)


def load_split(recipe: Recipe, seed: int = 0, images: int | None = None) -> DataSplit:
    """The training and test sets of a recipe.

    Args:
        recipe: says which.
        seed: of the run; other seeds get other training scenes.
        images: at most so many images of each set, evenly spaced in real data and the first of drawn ones, to try
            things out.

    Raises:
        DataMissing: real data is wanted that is not there.
        ValueError: an unknown world or class, or a seed that `check_seed` refuses.
    """
    check_seed(recipe, seed)
    return _load(recipe, seed, images)


def _load(recipe: Recipe, seed: int | None, images: int | None) -> DataSplit:
    loaders = {
        "mnist": _mnist, "digits": _digits, "scenes": _scenes, "permuted": _permuted, "places": _places,
        "beside": _beside, "fixated": _fixated, "photos": _photos,
    }  # fmt: skip
    return loaders[check_choice(recipe.world, "world", loaders)](recipe, seed, images)


def _bytes(images: Tensor, labels: Tensor) -> LabeledImages:
    """Images in [0, 1] as bytes, a quarter of the memory.

    Digits and scenes are made from bytes, and nothing is lost of them. The gray 0.5 around a scene, see
    `under_the_gaze`, is no byte: it becomes 128 / 255.
    """
    return LabeledImages((images * 255).round().byte(), labels)


def evenly_spaced(total: int, count: int) -> Tensor:
    """So many of the numbers 0 .. total - 1, evenly spaced, (count,) int64; all where there are fewer."""
    count = min(count, total)
    return torch.arange(count) * total // count


def _evenly_spaced(labeled: LabeledImages, images: int | None) -> LabeledImages:
    """At most so many images, evenly spaced in the set."""
    if images is None or images >= len(labeled.images):
        return labeled
    rows = evenly_spaced(len(labeled.images), images)
    return LabeledImages(labeled.images[rows], labeled.labels[rows])


def _empty(like: LabeledImages) -> LabeledImages:
    return LabeledImages(like.images[:0], like.labels[:0])


def _drawn_sets(
    draw: Callable[[int, int], LabeledImages], recipe: Recipe, seed: int | None, images: int | None
) -> tuple[LabeledImages, LabeledImages]:
    """The training set, empty without a seed, and the test set of what is drawn: `draw` is told how many, and a seed.

    Of each set there are at most `images`.
    """
    test = draw(min(TEST_SCENES, images or TEST_SCENES), TEST_SEED)
    train = _empty(test) if seed is None else draw(min(recipe.images, images or recipe.images), seed)
    return train, test


def _real_sets(
    load: Callable[[str], LabeledImages], test_part: str, seed: int | None, images: int | None
) -> tuple[LabeledImages, LabeledImages]:
    """The same of real images: `load` gives the part "train", or the one to test on."""
    test = _evenly_spaced(load(test_part), images)
    train = _empty(test) if seed is None else _evenly_spaced(load("train"), images)
    return train, test


def _mnist(_recipe: Recipe, seed: int | None, images: int | None) -> DataSplit:
    train, test = _real_sets(lambda part: _bytes(*mnist(part)[:2]), "test", seed, images)
    return DataSplit(train, {"test": test}, tuple("0123456789"), "MNIST")


def _digits(recipe: Recipe, seed: int | None, images: int | None) -> DataSplit:
    def draw(n: int, seed: int) -> LabeledImages:
        each = math.ceil(n / len(DIGIT_BACKGROUNDS))
        # A seed of its own for each background: the same seed would draw the same digits three times.
        parts = [
            digit_scenes(each, len(DIGIT_BACKGROUNDS) * seed + k, size=CANVAS, background=background)
            for k, background in enumerate(DIGIT_BACKGROUNDS)
        ]
        return _bytes(torch.cat([p.images for p in parts])[:n], torch.cat([p.labels[:, 0] for p in parts])[:n])

    train, test = _drawn_sets(draw, recipe, seed, images)
    return DataSplit(train, {"test": test}, tuple("0123456789"), "one drawn digit, on black, noise or fragments")


def _scenes(recipe: Recipe, seed: int | None, images: int | None) -> DataSplit:
    names = recipe.classes or CLASSES
    if not set(names) <= set(CLASSES):
        raise ValueError(f"classes must be names of shapes, got {', '.join(sorted(set(names) - set(CLASSES)))}")
    position = torch.full((len(CLASSES),), -1)  # -1: a shape that is no class here
    position[[CLASSES.index(name) for name in names]] = torch.arange(len(names))

    def draw(n: int, seed: int, bias: float = recipe.bias, shift: int = 0) -> LabeledImages:
        # Every eight scenes hold each shape once: so many give n of the shapes that are wanted.
        count = n if len(names) == len(CLASSES) else math.ceil(n / len(names)) * len(CLASSES)
        drawn_scenes = scenes(count, seed, bias=bias, background_shift=shift)
        labels = position[drawn_scenes.labels[:, 0]]
        rows = (labels >= 0).nonzero()[:n, 0]
        return _bytes(drawn_scenes.images[rows], labels[rows])

    train, test = _drawn_sets(draw, recipe, seed, images)
    tests = {"test": test}
    if recipe.bias:
        tests["backgrounds swapped"] = draw(len(test.images), TEST_SEED, shift=SWAP)
        tests["backgrounds at random"] = draw(len(test.images), TEST_SEED, bias=0.0)
    what = f"scenes, bias {recipe.bias:.3g}" if recipe.bias else "scenes, backgrounds independent of the class"
    return DataSplit(train, tests, names, what)


def _permuted(recipe: Recipe, seed: int | None, images: int | None) -> DataSplit:
    split = _scenes(recipe, seed, images)
    labels = permuted_labels(split.train.labels, seed or 0)  # no seed: no training set, and nothing to permute
    train = LabeledImages(split.train.images, labels)
    return DataSplit(train, split.tests, split.classes, "scenes whose labels were permuted for training")


def _places(recipe: Recipe, seed: int | None, images: int | None) -> DataSplit:
    def draw(n: int, seed: int) -> LabeledImages:
        # Seeds of their own: the same one would put the same objects on the same grounds, large and small.
        large = scenes(n // 2, 2 * seed)
        small = scenes(n - n // 2, 2 * seed + 1, objects=(0, 1), scale=SMALL_OBJECTS)
        labels = torch.cat([large.labels[:, 0], len(CLASSES) + small.backgrounds])
        return _bytes(torch.cat([large.images, small.images]), labels)

    train, test = _drawn_sets(draw, recipe, seed, images)
    what = "scenes: of an object where it is large, of their ground where it is small or missing"
    return DataSplit(train, {"test": test}, (*CLASSES, *BACKGROUNDS), what)


def _beside(recipe: Recipe, seed: int | None, images: int | None) -> DataSplit:
    known = torch.tensor(sorted(CLASSES.index(name) for name in recipe.classes))  # `searchsorted` wants them sorted

    def draw(n: int, seed: int) -> LabeledImages:
        # With four classes of eight shapes about half of the scenes count, those with one shape of each kind. Three are
        # drawn for each that is wanted, and 64 more, where few are wanted and chance might leave too few.
        drawn_scenes = scenes(3 * n + 64, seed, objects=2)
        is_known = torch.isin(drawn_scenes.labels, known)
        rows = (is_known.sum(1) == 1).nonzero()[:n, 0]
        if len(rows) < n:
            raise RuntimeError(f"only {len(rows)} of {n} scenes have one shape that is a class and one that is not")
        shape = drawn_scenes.labels[rows][is_known[rows]]
        return _bytes(drawn_scenes.images[rows], torch.searchsorted(known, shape))

    train, test = _drawn_sets(draw, recipe, seed, images)
    names = tuple(CLASSES[shape] for shape in known)
    return DataSplit(train, {"test": test}, names, "scenes of two objects, one of another shape, never named")


def _fixated(recipe: Recipe, seed: int | None, images: int | None) -> DataSplit:
    def draw(n: int, seed: int) -> LabeledImages:
        drawn_scenes = searched_scenes(n, seed)
        return _bytes(under_the_gaze(drawn_scenes, seed), drawn_scenes.labels[:, 0])

    train, test = _drawn_sets(draw, recipe, seed, images)
    return DataSplit(train, {"test": test}, CLASSES, "windows of scenes, around a gaze near the object")


def _photos(recipe: Recipe, seed: int | None, images: int | None) -> DataSplit:
    chosen = recipe.classes or None
    photos = tiny_imagenet("val", chosen)

    def load(part: str) -> LabeledImages:
        loaded = photos if part == "val" else tiny_imagenet("train", chosen)
        return LabeledImages(loaded.images, loaded.labels)

    train, test = _real_sets(load, "val", seed, images)
    what = f"Tiny ImageNet, {len(photos.classes)} classes, its validation images as test images"
    return DataSplit(train, {"test": test}, photos.names, what)


def data_hash(split: DataSplit) -> str:
    """sha256 over the bytes of all images and labels, training set first."""
    return tensors_hash(tensor for part in (split.train, *split.tests.values()) for tensor in part)


def prepare(recipe: Recipe, images: Tensor) -> Tensor:
    """Images (B, C, H, W), uint8, as a network expects them: in [0, 1], then normalised as the recipe says.

    Raises:
        ValueError: images of another dtype, which may lie in [0, 1] already.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 in 0 .. 255, got {describe(images)}")
    return normalize(images.float() / 255, list(recipe.mean), list(recipe.std))


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


def under_the_gaze(searched: Scenes, seed: int) -> Tensor:
    """Windows (N, 3, 64, 64) of scenes, each around a gaze near the object; beyond the scene all is 0.5, the mean gray.

    The gaze lies whole pixels from the scene's middle, so that no pixel is resampled.

    Args:
        searched: scenes of `DISPLAY` pixels a side, one object each.
        seed: of the gazes.
    """
    draw = torch.Generator().manual_seed(seed)
    centers = box_centers(searched.boxes[:, 0])
    gaze = (centers + GAZE_PX * torch.randn(len(centers), 2, generator=draw)).round().clamp(0, DISPLAY)
    fixations = gaze * 2 / DISPLAY - 1
    # `cartesian` fills in 0 outside: shifted, so that it is 0.5.
    return cartesian(searched.images - 0.5, fixations[:, None], WINDOW, WINDOW / DISPLAY, disc=False)[:, 0] + 0.5
