"""The data of one drawn digit on a larger canvas."""

from dataclasses import replace

import pytest
import torch

from helpers.data import DIGIT_BACKGROUNDS, digit_scenes
from helpers.experiments.train import datasets as worlds
from helpers.experiments.train.recipes import RECIPES

RECIPE = RECIPES["digits-gap"]
SMALL = replace(RECIPE, images=90)


@pytest.fixture(scope="module")
def held_out():
    return worlds.held_out(RECIPE)


def share_of_black(images):
    """Of the canvas, image by image."""
    return (images == 0).double().mean((1, 2, 3))


def grounds(images):
    """How many images lie on black, on noise and on fragments, told by their pixels alone.

    A digit of 20 pixels is on 64 x 64 = 4096; noise leaves hardly any other pixel black. Drawn digits alone are one
    region of ink or two; ten fragments are more.
    """
    from skimage.measure import label

    noise = share_of_black(images) < 0.2
    regions = torch.tensor([int(label(image[0].numpy() > 0, connectivity=2).max()) for image in images])
    return noise, ~noise & (regions <= 2), ~noise & (regions > 2)


def test_the_test_set_is_2000_digits_on_three_backgrounds(held_out):
    part = held_out.tests["test"]
    assert list(held_out.tests) == ["test"]
    assert part.images.shape == (2000, 1, 64, 64)
    assert part.images.dtype == torch.uint8
    assert part.labels.shape == (2000,)
    assert part.labels.dtype == torch.int64
    assert held_out.classes == tuple("0123456789")
    assert "digit" in held_out.what
    noise, blank, fragments = grounds(part.images)
    # 2000 = 667 + 667 + 666; one or two fragment scenes may have their pieces in two heaps.
    assert noise.sum() == 667
    assert noise[667:1334].all()
    assert blank[:667].all()
    assert fragments[1334:].double().mean() > 0.95


def test_held_out_has_no_training_images(held_out):
    assert held_out.train.images.shape == (0, 1, 64, 64)
    assert held_out.train.labels.shape == (0,)


def test_labels_are_balanced(held_out):
    assert torch.bincount(held_out.tests["test"].labels, minlength=10).tolist() == pytest.approx([200] * 10, abs=2)
    split = worlds.world(SMALL, 3).train
    assert torch.bincount(split.labels, minlength=10).tolist() == [9] * 10
    for k in range(3):  # 30 images on each background
        assert torch.bincount(split.labels[30 * k : 30 * k + 30], minlength=10).tolist() == [3] * 10


def test_the_images_are_digit_scenes_of_seeds_of_their_own():
    # Seeds 3 * 5 + 0, 1, 2: no run shares one with another run, nor one background with another.
    split = worlds.world(SMALL, 5).train
    for k, background in enumerate(DIGIT_BACKGROUNDS):
        drawn = digit_scenes(30, 15 + k, size=64, background=background)
        part = slice(30 * k, 30 * k + 30)
        assert split.labels[part].equal(drawn.labels[:, 0])
        assert (split.images[part].float() / 255).allclose(drawn.images, atol=1e-6)


def test_the_test_set_is_that_of_the_seed_kept_for_it(held_out):
    drawn = digit_scenes(5, 3 * worlds.TEST_SEED, size=64, background="blank")
    assert (held_out.tests["test"].images[:5].float() / 255).allclose(drawn.images, atol=1e-6)
    for seed in (0, 7):
        split = worlds.world(SMALL, seed)
        for mine, expected in zip(split.tests["test"], held_out.tests["test"], strict=True):
            assert mine.equal(expected)


def test_training_and_test_digits_differ(held_out):
    test = {image.numpy().tobytes() for image in held_out.tests["test"].images}
    assert len(test) == 2000
    seen: set[bytes] = set()
    for seed in (0, 1, 2, worlds.TEST_SEED - 1):  # 9,999 is the greatest seed there may be: 29,997 and two more
        train = {image.numpy().tobytes() for image in worlds.world(SMALL, seed).train.images}
        assert len(train) == 90
        assert not train & (test | seen)
        seen |= train


def test_the_same_seed_makes_the_same_world():
    assert worlds.data_hash(worlds.world(SMALL, 4)) == worlds.data_hash(worlds.world(SMALL, 4))
    assert worlds.data_hash(worlds.world(SMALL, 4)) != worlds.data_hash(worlds.world(SMALL, 5))


@pytest.mark.parametrize("seed", [worlds.TEST_SEED, 10**6])
def test_seeds_kept_for_testing_are_refused(seed):
    with pytest.raises(ValueError, match=r"seed must be less than 10,000"):
        worlds.world(RECIPE, seed)


def test_fewer_images_are_of_every_background():
    split = worlds.world(RECIPE, 0, 30)
    assert [len(part.labels) for part in (split.train, split.tests["test"])] == [30, 30]
    for part in (split.train, split.tests["test"]):
        noise, blank, fragments = grounds(part.images)
        assert blank[:10].all()
        assert noise[10:20].all()
        assert fragments[20:].sum() >= 9
        assert torch.bincount(part.labels, minlength=10).tolist() == [3] * 10


@pytest.mark.parametrize("images", [1, 10, 100])
def test_at_most_so_many_images_are_made(images):
    split = worlds.world(RECIPE, 0, images)
    assert [len(part.labels) for part in (split.train, split.tests["test"])] == [images] * 2
    assert [len(part.images) for part in (split.train, split.tests["test"])] == [images] * 2


def test_more_images_than_there_are_change_nothing(held_out):
    split = worlds.world(SMALL, 0, 100_000)
    assert len(split.train.labels) == 90
    assert split.tests["test"].images.equal(held_out.tests["test"].images)
