"""What a recipe trains on and is tested on: what all that is drawn has in common, then kind by kind."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch

from helpers.data import BACKGROUNDS, CLASSES, DIGIT_BACKGROUNDS, digit_scenes, scenes
from helpers.experiments.train import datasets
from helpers.experiments.train.recipes import BIAS_OF_95_PERCENT, RECIPES

EVERY_SCENE = [name for name, recipe in RECIPES.items() if recipe.world not in ("mnist", "photos")]


@pytest.fixture(autouse=True)
def fewer_tests(monkeypatch):
    """120 test scenes in place of 2000."""
    assert datasets.TEST_SCENES == 2000
    monkeypatch.setattr(datasets, "TEST_SCENES", 120)


def world(name, seed=0, images=None, **changes):
    return datasets.load_split(replace(RECIPES[name], **changes), seed, images)


def unlike(*parts):
    """Whether no image is there twice."""
    images = [image.numpy().tobytes() for part in parts for image in part.images]
    return len(set(images)) == len(images)


def counts(labels, classes):
    return torch.bincount(labels, minlength=classes).tolist()


def as_bytes(images):
    return (images * 255).round().byte()


@pytest.mark.parametrize("name", EVERY_SCENE)
def test_what_is_drawn(name):
    split, held = world(name, images=24), datasets.held_out(RECIPES[name])
    channels = 1 if name == "digits-gap" else 3
    for part in (split.train, *split.tests.values()):
        assert (part.images.dtype, part.labels.dtype) == (torch.uint8, torch.int64)
        assert (part.images.shape, part.labels.shape) == ((24, channels, 64, 64), (24,))
        assert 0 <= part.labels.min() <= part.labels.max() < len(split.classes)
    assert (held.classes, held.what, list(held.tests)) == (split.classes, split.what, list(split.tests))
    assert (held.train.images.shape, held.train.labels.shape) == ((0, channels, 64, 64), (0,))
    assert (held.train.images.dtype, held.train.labels.dtype) == (torch.uint8, torch.int64)
    assert [len(part.labels) for part in held.tests.values()] == [120] * len(held.tests)
    if name not in ("scenes-places", "digits-gap"):  # made of parts, each of which is shorter
        assert all(part.images.equal(held.tests[key].images[:24]) for key, part in split.tests.items())
        assert all(part.labels.equal(held.tests[key].labels[:24]) for key, part in split.tests.items())
    # Every seed has images of its own, the same every time, and the same test images.
    state = torch.random.get_rng_state()
    others = [world(name, seed, 24) for seed in (1, 2, datasets.TEST_SEED - 1)]
    assert torch.random.get_rng_state().equal(state)
    assert unlike(split.train, split.tests["test"], *(other.train for other in others))
    assert all(other.tests["test"].images.equal(split.tests["test"].images) for other in others)
    assert datasets.data_hash(world(name, images=24)) == datasets.data_hash(split) != datasets.data_hash(others[0])
    for images in (1, 3, 65):
        few = world(name, images=images)
        assert [len(part.labels) for part in (few.train, *few.tests.values())] == [images] * (1 + len(few.tests))
    with pytest.raises(ValueError, match=r"seed must be less than 10,000"):
        datasets.load_split(RECIPES[name], datasets.TEST_SEED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world": "moon"}, r"world must be one of .*scenes.*permuted.*places.*got 'moon'"),
        ({"classes": ("disk", "hexagon")}, "hexagon"),
        ({"world": "permuted", "classes": ("disk", "hexagon")}, "hexagon"),
    ],
)
def test_what_cannot_be_drawn(changes, message):
    with pytest.raises(ValueError, match=message):
        world("scenes-first", **changes)


@pytest.mark.parametrize("first", [0, 4])
def test_a_network_of_four_shapes_sees_no_other_and_counts_them_anew(first):
    split = world("scenes-last" if first else "scenes-first", images=64)
    assert split.classes == CLASSES[first : first + 4]
    for part, seed in ((split.train, 0), (split.tests["test"], 10_000)):
        drawn = scenes(128, seed)
        rows = (drawn.labels[:, 0] >= first) & (drawn.labels[:, 0] < first + 4)
        assert rows.sum() == 64
        assert part.images.equal(as_bytes(drawn.images[rows]))
        assert part.labels.equal(drawn.labels[rows, 0] - first)


def test_some_shapes_keep_the_bias_and_its_tests():
    split = world("scenes-biased", images=40, classes=("cross", "disk"))
    assert list(split.tests) == ["test", "backgrounds swapped", "backgrounds at random"]
    for part in (split.train, *split.tests.values()):
        assert counts(part.labels, 2) == [20, 20]


def test_permuted_are_the_images_of_few_with_labels_that_are_wrong_7_times_in_8():
    wrong = []
    for seed in (0, 1):
        few, permuted, drawn = world("scenes-few", seed), world("scenes-permuted", seed), scenes(512, seed)
        assert few.train.images.equal(as_bytes(drawn.images))
        assert few.train.labels.equal(drawn.labels[:, 0])
        assert permuted.train.images.equal(few.train.images)
        order = torch.randperm(512, generator=torch.Generator().manual_seed(seed))  # every run has an order of its own
        assert permuted.train.labels.equal(drawn.labels[order, 0])
        wrong.append(permuted.train.labels != few.train.labels)
        # 512 labels at random are wrong 448 times; the standard deviation is (512 * 7 / 64)^0.5 = 7.5
        assert 448 - 30 < int(wrong[-1].sum()) < 448 + 30
        assert permuted.tests["test"].labels.equal(scenes(120, 10_000).labels[:, 0])  # tested on the true ones
    assert not wrong[0].equal(wrong[1])


def test_places_are_named_by_large_objects_and_by_grounds_with_little_on_them():
    split = world("scenes-places", 2, images=90)
    assert split.classes == (*CLASSES, *BACKGROUNDS)
    for part, seed in ((split.train, 2), (split.tests["test"], 10_000)):
        large = scenes(45, 2 * seed)
        small = scenes(45, 2 * seed + 1, objects=(0, 1), scale=(0.1, 0.2))
        assert part.images.equal(as_bytes(torch.cat([large.images, small.images])))
        names = [CLASSES[shape] for shape in large.labels[:, 0]] + [BACKGROUNDS[ground] for ground in small.backgrounds]
        assert [split.classes[label] for label in part.labels] == names


def test_beside_names_the_one_of_two_objects_whose_shape_is_a_class():
    split, drawn = world("scenes-beside", 3, images=40), scenes(3 * 40 + 64, 3, objects=2)
    known = drawn.labels < 4
    rows = (known.sum(1) == 1).nonzero()[:40, 0]
    assert split.train.images.equal(as_bytes(drawn.images[rows]))
    labels = [int(pair[own]) for pair, own in zip(drawn.labels[rows], known[rows], strict=True)]
    assert split.train.labels.tolist() == labels
    assert split.classes == CLASSES[:4]


def test_swapped_backgrounds_keep_the_objects_and_mislead_every_time_the_others_lead():
    split = datasets.held_out(RECIPES["scenes-biased"]).tests
    drawn = scenes(120, datasets.TEST_SEED, bias=BIAS_OF_95_PERCENT)
    other = scenes(120, datasets.TEST_SEED, bias=BIAS_OF_95_PERCENT, background_shift=datasets.SWAP)
    swapped = split["backgrounds swapped"]
    assert swapped.labels.equal(split["test"].labels)
    assert swapped.images.equal(as_bytes(other.images))
    assert split["backgrounds at random"].images.equal(as_bytes(scenes(120, datasets.TEST_SEED).images))
    same, inside = swapped.images == split["test"].images, drawn.masks.any(1)[:, None].expand(-1, 3, -1, -1)
    assert same[inside].double().mean() > 0.8  # rims are mixed with the ground
    assert same[~inside].double().mean() < 0.5
    leads = drawn.backgrounds == drawn.labels[:, 0]
    assert (other.backgrounds[leads] == (drawn.labels[leads, 0] + 4) % 8).all()


def test_digits_are_of_every_background_and_of_seeds_of_their_own():
    # Seeds 3 * 5 + 0, 1, 2: no run shares one with another run, nor one background with another.
    split = world("digits-gap", 5, images=31)
    for part, seed in ((split.train, 5), (split.tests["test"], datasets.TEST_SEED)):
        drawn = [
            digit_scenes(11, 3 * seed + k, size=64, background=ground) for k, ground in enumerate(DIGIT_BACKGROUNDS)
        ]
        assert part.images.equal(as_bytes(torch.cat([scene.images for scene in drawn])[:31]))
        assert part.labels.equal(torch.cat([scene.labels[:, 0] for scene in drawn])[:31])
    assert split.classes == tuple("0123456789")


def test_evenly_spaced():
    assert datasets.evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]
    assert datasets.evenly_spaced(10, 10).tolist() == list(range(10))
    assert datasets.evenly_spaced(10, 1).tolist() == [0]
    assert datasets.evenly_spaced(4, 6).tolist() == [0, 1, 2, 3]  # none counts twice


def test_fewer_images_are_spread_over_the_whole_set():
    full = datasets.LabeledImages(torch.arange(1000), torch.arange(1000) // 100)
    some = datasets._evenly_spaced(full, 30)
    assert some.images[:4].tolist() == [0, 33, 66, 100]
    assert torch.bincount(some.labels).tolist() == [3] * 10
    assert datasets._evenly_spaced(full, None) is datasets._evenly_spaced(full, 1000) is full


def test_classes_are_counted_in_the_order_they_are_named_in():
    chosen = ("arrow", "disk", "star")
    split = datasets.load_split(replace(RECIPES["scenes-first"], classes=chosen, images=90), 3)
    drawn = scenes(240, 3)
    rows = [i for i, label in enumerate(drawn.labels[:, 0].tolist()) if CLASSES[label] in chosen]
    assert split.classes == chosen
    assert split.train.labels.tolist() == [chosen.index(CLASSES[drawn.labels[i, 0]]) for i in rows]
    assert split.train.images.equal(as_bytes(drawn.images[rows]))
    assert counts(split.train.labels, 3) == [30] * 3


def test_crops_by_hand(monkeypatch):
    x = torch.rand(64, 3, 16, 16)
    monkeypatch.setattr(datasets, "CROP", (1.0, 1.0))
    whole = datasets.augmented(x, torch.Generator().manual_seed(0))
    rows = (whole - x).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (whole - x.flip(-1)).abs().amax((1, 2, 3)) < 1e-5
    assert (rows ^ mirrored).all()
    assert 16 < rows.sum() < 48
    monkeypatch.setattr(datasets, "CROP", (0.5, 0.5))
    ramp = torch.linspace(0, 1, 32).expand(64, 1, 32, 32)  # grows to the right
    halves = datasets.augmented(ramp, torch.Generator().manual_seed(0))
    rise = (halves[..., -1] - halves[..., 0]).abs()
    torch.testing.assert_close(rise, torch.full_like(rise, 0.5), atol=0.02, rtol=0)
    assert halves.min() >= 0
    assert halves.max() <= 1


def test_only_bytes_are_prepared():
    recipe = RECIPES["photos-gap"]
    images = torch.randint(0, 256, (2, 3, 8, 8)).byte()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (recipe.mean, recipe.std))
    torch.testing.assert_close(datasets.prepare(recipe, images), (images / 255 - mean) / std)
    with pytest.raises(ValueError, match=r"images must be uint8 in 0 \.\. 255, got \(2, 3, 8, 8\) of torch\.float32"):
        datasets.prepare(recipe, images / 255)


def test_the_hash_of_data_is_of_all_its_bytes_training_set_first():
    split = world("scenes-biased", images=3)
    parts = (split.train, *(split.tests[name] for name in ("test", "backgrounds swapped", "backgrounds at random")))
    content = b"".join(tensor.numpy().tobytes() for part in parts for tensor in part)
    assert datasets.data_hash(split) == hashlib.sha256(content).hexdigest()
    assert split.main_test == "test"


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5])
def test_a_seed_that_no_generator_takes(seed):
    with pytest.raises(ValueError, match=r"seed must be an integer in 0 \.\. 4294967295"):
        datasets.check_seed(RECIPES["lenet-mnist"], seed)
