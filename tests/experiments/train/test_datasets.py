"""What a recipe trains on and is tested on: scenes, some of their shapes, permuted labels, places."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from helpers.data import BACKGROUNDS, CLASSES, scenes
from helpers.experiments.train import datasets as worlds
from helpers.experiments.train.recipes import BIAS_OF_95_PERCENT, RECIPES

NAMES = ("scenes-places", "scenes-first", "scenes-last", "scenes-few", "scenes-permuted")
EVERY_SCENE = [name for name, recipe in RECIPES.items() if recipe.world not in ("mnist", "photos")]
each_network = pytest.mark.parametrize("name", NAMES)


@lru_cache(maxsize=32)
def world(name, seed=0, images=None):
    with pytest.MonkeyPatch.context() as patch:  # 400 test scenes in place of 2000, whose number held_out tells
        patch.setattr(worlds, "TEST_SCENES", 400)
        return worlds.world(RECIPES[name], seed, images)


@lru_cache(maxsize=8)
def held_out(name):
    return worlds.held_out(RECIPES[name])


@pytest.fixture
def fewer_tests(monkeypatch):
    """400 test scenes in place of 2000, whose number is looked at elsewhere."""
    monkeypatch.setattr(worlds, "TEST_SCENES", 400)


def counts(labels, classes):
    return torch.bincount(labels, minlength=classes).tolist()


def as_bytes(images):
    return (images * 255).round().byte()


@each_network
def test_images_are_bytes_and_labels_lie_among_the_classes(name):
    split = world(name, images=128)
    for part in (split.train, split.tests["test"]):
        assert part.images.dtype == torch.uint8
        assert part.images.shape == (128, 3, 64, 64)
        assert part.labels.dtype == torch.int64
        assert part.labels.shape == (128,)
        assert set(part.labels.tolist()) == set(range(len(split.classes)))
    assert list(split.tests) == ["test"]
    assert split.what


@each_network
def test_held_out_has_the_test_images_and_none_to_train_on(name):
    held = held_out(name)
    assert held.train.images.shape == (0, 3, 64, 64)
    assert held.train.images.dtype == torch.uint8
    assert held.train.labels.shape == (0,)
    assert held.train.labels.dtype == torch.int64
    test = held.tests["test"]
    assert len(test.images) == len(test.labels) == 2000
    split = world(name, images=256)
    assert held.classes == split.classes
    assert held.what == split.what
    # a world of fewer images is tested on some of them; places are two halves
    some = [*range(128), *range(1000, 1128)] if name == "scenes-places" else list(range(256))
    assert split.tests["test"].images.equal(test.images[some])
    assert split.tests["test"].labels.equal(test.labels[some])
    assert len(worlds.data_hash(held)) == 64


@each_network
def test_test_images_are_not_trained_on_and_other_seeds_have_other_images(name):
    sets = [world(name, seed, 128).train.images for seed in (0, 1, 2)] + [world(name, 0, 128).tests["test"].images]
    different = {image.numpy().tobytes() for images in sets for image in images}
    assert len(different) == 4 * 128
    for seed in (1, 2):
        assert world(name, seed, 128).tests["test"].images.equal(world(name, 0, 128).tests["test"].images)
        assert world(name, seed, 128).tests["test"].labels.equal(world(name, 0, 128).tests["test"].labels)


@pytest.mark.parametrize("seed", [10_000, 123_456])
@pytest.mark.parametrize("name", EVERY_SCENE)
def test_seeds_of_the_test_scenes_are_refused(name, seed):
    with pytest.raises(ValueError, match=r"seed must be less than 10,000"):
        worlds.world(RECIPES[name], seed, 16)
    with pytest.raises(ValueError, match=r"seed must be less than 10,000"):
        worlds.check_seed(RECIPES[name], seed)


@each_network
def test_the_last_seed_below_the_test_scenes_is_allowed(name):
    worlds.check_seed(RECIPES[name], 9_999)
    split = worlds.world(RECIPES[name], 9_999, 16)
    assert not split.train.images.equal(split.tests["test"].images)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be"):
        worlds.world(RECIPES["scenes-few"], -1, 16)


def test_an_unknown_world_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"world must be one of .*scenes.*permuted.*places.*got 'moon'"):
        worlds.held_out(replace(RECIPES["scenes-gap"], world="moon"))


@each_network
@pytest.mark.parametrize("images", [1, 3, 65])
def test_there_are_at_most_as_many_images_as_asked_for(name, images):
    split = worlds.world(RECIPES[name], 0, images)
    assert [len(part.labels) for part in (split.train, split.tests["test"])] == [images] * 2
    assert [len(part.images) for part in (split.train, split.tests["test"])] == [images] * 2


@pytest.mark.parametrize("first", [0, 4])
def test_a_network_of_four_shapes_sees_no_other_and_counts_them_anew(first, fewer_tests):
    recipe = RECIPES["scenes-last" if first else "scenes-first"]
    # 512 in place of 4096: the numbers of the recipes are looked at above
    split = worlds.world(replace(recipe, images=512), 0)
    assert split.classes == CLASSES[first : first + 4]
    assert counts(split.train.labels, 4) == [128] * 4  # as many of each as in 1024 scenes of all shapes
    assert counts(split.tests["test"].labels, 4) == [100] * 4
    for part, seed in ((split.train, 0), (split.tests["test"], 10_000)):
        drawn = scenes(800, seed)
        rows = (drawn.labels[:, 0] >= first) & (drawn.labels[:, 0] < first + 4)
        assert rows.sum() == 400
        assert part.images[:400].equal(as_bytes(drawn.images[rows]))
        assert part.labels[:400].equal(drawn.labels[rows, 0] - first)


def test_classes_are_counted_in_the_order_they_are_named_in():
    chosen = ("arrow", "disk", "star")
    split = worlds.world(replace(RECIPES["scenes-first"], classes=chosen, images=90), 3)
    drawn = scenes(240, 3)
    rows = [i for i, label in enumerate(drawn.labels[:, 0].tolist()) if CLASSES[label] in chosen]
    assert split.classes == chosen
    assert split.train.labels.tolist() == [chosen.index(CLASSES[drawn.labels[i, 0]]) for i in rows]
    assert split.train.images.equal(as_bytes(drawn.images[rows]))
    assert counts(split.train.labels, 3) == [30] * 3


def test_all_classes_named_is_no_class_named():
    named = worlds.world(replace(RECIPES["scenes-few"], classes=CLASSES), 0, 100)
    assert worlds.data_hash(named) == worlds.data_hash(world("scenes-few", 0, 100))


def test_some_shapes_keep_the_bias_and_its_tests(fewer_tests):
    biased = replace(RECIPES["scenes-biased"], classes=("cross", "disk"))
    split = worlds.world(biased, 0, 40)
    assert list(split.tests) == ["test", "backgrounds swapped", "backgrounds at random"]
    for part in (split.train, *split.tests.values()):
        assert counts(part.labels, 2) == [20, 20]


@pytest.mark.parametrize("world_name", ["scenes", "permuted"])
def test_an_unknown_shape_is_refused(world_name):
    with pytest.raises(ValueError, match=r"hexagon"):
        worlds.world(replace(RECIPES["scenes-first"], world=world_name, classes=("disk", "hexagon")), 0, 16)


@pytest.mark.parametrize("name", ["scenes-few", "scenes-permuted"])
@pytest.mark.parametrize("seed", [0, 1])
def test_few_are_512_and_balanced(name, seed):
    split = world(name, seed)
    assert len(split.train.images) == 512
    assert counts(split.train.labels, 8) == [64] * 8
    assert split.classes == CLASSES


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_permuted_are_the_images_of_few_with_labels_that_are_wrong_7_times_in_8(seed):
    few, permuted = world("scenes-few", seed), world("scenes-permuted", seed)
    drawn = scenes(512, seed)
    assert few.train.images.equal(as_bytes(drawn.images))
    assert few.train.labels.equal(drawn.labels[:, 0])
    assert permuted.train.images.equal(few.train.images)
    order = torch.randperm(512, generator=torch.Generator().manual_seed(seed))  # every run has an order of its own
    assert permuted.train.labels.equal(drawn.labels[order, 0])
    wrong = permuted.train.labels != few.train.labels
    # 512 labels at random are wrong 448 times; the standard deviation is (512 * 7 / 64)^0.5 = 7.5
    assert 448 - 30 < int(wrong.sum()) < 448 + 30
    # and no class is left alone or wholly renamed
    table = torch.zeros(8, 8).index_put_((few.train.labels, permuted.train.labels), torch.ones(512), accumulate=True)
    assert table.sum(0).tolist() == table.sum(1).tolist() == [64] * 8
    assert table.max() < 24  # 8 expected; a class that kept its images would have 64


def test_permuted_are_tested_on_the_true_labels():
    drawn = scenes(2000, 10_000)
    split = held_out("scenes-permuted")
    assert split.tests["test"].images.equal(as_bytes(drawn.images))
    assert split.tests["test"].labels.equal(drawn.labels[:, 0])
    assert counts(split.tests["test"].labels, 8) == [250] * 8
    for seed in (0, 1):
        assert world("scenes-permuted", seed).tests["test"].labels.equal(drawn.labels[:400, 0])


def test_every_run_permutes_its_own_way_and_each_time_the_same(fewer_tests):
    first = world("scenes-permuted", 0).train.labels
    assert worlds.world(RECIPES["scenes-permuted"], 0).train.labels.equal(first)
    orders = []
    for seed in (0, 1, 2):
        true = scenes(512, seed).labels[:, 0]
        orders.append((true != world("scenes-permuted", seed).train.labels).tolist())
    assert len(set(map(tuple, orders))) == 3
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    worlds.world(RECIPES["scenes-permuted"], 0, 64)
    assert torch.random.get_rng_state().equal(before)


def test_fewer_permuted_images_are_permuted_among_themselves():
    few, permuted = world("scenes-few", 0, 96), world("scenes-permuted", 0, 96)
    assert permuted.train.images.equal(few.train.images)
    assert counts(permuted.train.labels, 8) == counts(few.train.labels, 8) == [12] * 8
    assert 68 < int((permuted.train.labels != few.train.labels).sum()) < 96  # 84 expected, the deviation is 3.2


def test_places_are_named_by_large_objects_and_by_grounds_with_little_on_them():
    split = worlds.world(replace(RECIPES["scenes-places"], images=800), 2)
    assert split.classes == (*CLASSES, *BACKGROUNDS)
    for part, seed in ((split.train, 2), (split.tests["test"], 10_000)):
        half = len(part.labels) // 2
        large = scenes(half, 2 * seed)
        small = scenes(len(part.labels) - half, 2 * seed + 1, objects=(0, 1), scale=(0.1, 0.2))
        assert part.images[:half].equal(as_bytes(large.images))
        assert part.images[half:].equal(as_bytes(small.images))
        named = [split.classes[label] for label in part.labels]
        assert named[:half] == [CLASSES[shape] for shape in large.labels[:, 0]]
        assert named[half:] == [BACKGROUNDS[ground] for ground in small.backgrounds]
        # About half of the grounds carry a small object.
        assert 0.4 < (small.labels[:, 0] >= 0).double().mean() < 0.6


def test_places_are_balanced():
    part = world("scenes-places", 0, 2000).train.labels
    test = held_out("scenes-places").tests["test"].labels
    for labels in (part, test):
        assert len(labels) == 2000
        # 125 of each class; the standard deviation is (2000 / 16 * 15 / 16)^0.5 = 10.8
        assert min(counts(labels, 16)) > 125 - 45
        assert max(counts(labels, 16)) < 125 + 45
        assert (labels < 8).double().mean() == pytest.approx(0.5, abs=0.05)


def test_beside_names_the_one_of_two_objects_whose_shape_is_a_class():
    split = worlds.world(replace(RECIPES["scenes-beside"], images=40), 3)
    drawn = scenes(3 * 40 + 64, 3, objects=2)
    known = drawn.labels < 4
    rows = (known.sum(1) == 1).nonzero()[:40, 0]
    assert split.train.images.equal(as_bytes(drawn.images[rows]))
    assert split.train.labels.tolist() == [
        int(first[k]) for first, k in zip(drawn.labels[rows], known[rows], strict=True)
    ]
    assert split.classes == CLASSES[:4]
    assert len(split.tests["test"].images) == 2000


def test_swapped_backgrounds_keep_the_objects_and_mislead_every_time_the_others_lead():
    split = worlds.held_out(replace(RECIPES["scenes-biased"])).tests
    drawn = scenes(worlds.TEST_SCENES, worlds.TEST_SEED, bias=BIAS_OF_95_PERCENT)
    swapped = split["backgrounds swapped"]
    assert swapped.labels.equal(split["test"].labels)
    inside = drawn.masks.any(1)[:, None].expand(-1, 3, -1, -1)
    same = (swapped.images == split["test"].images)[inside].double().mean()
    assert same > 0.8  # rims are mixed with the ground
    assert (swapped.images == split["test"].images)[~inside].double().mean() < 0.5
    other = scenes(worlds.TEST_SCENES, worlds.TEST_SEED, bias=BIAS_OF_95_PERCENT, background_shift=worlds.SWAP)
    assert worlds._bytes(other.images, other.labels[:, 0]).images.equal(swapped.images)
    leads = drawn.backgrounds == drawn.labels[:, 0]
    assert (other.backgrounds[leads] == (drawn.labels[leads, 0] + 4) % 8).all()


def test_training_and_test_scenes_differ():
    split = worlds.world(RECIPES["scenes-gap"], seed=0, images=64)
    train_set = {image.numpy().tobytes() for image in split.train.images}
    assert len(train_set) == 64
    assert not train_set & {image.numpy().tobytes() for image in split.tests["test"].images}
    assert all(seed < worlds.TEST_SEED for recipe in RECIPES.values() for seed in recipe.seeds)


def test_fewer_images_are_spread_over_the_whole_set():
    full = worlds.LabeledImages(torch.arange(1000), torch.arange(1000) // 100)
    some = worlds._evenly_spaced(full, 30)
    assert some.images[:4].tolist() == [0, 33, 66, 100]
    assert torch.bincount(some.labels).tolist() == [3] * 10
    assert worlds._evenly_spaced(full, None) is worlds._evenly_spaced(full, 1000) is full
    few = worlds.world(RECIPES["scenes-biased"], 0, 100)
    assert [len(part.labels) for part in (few.train, *few.tests.values())] == [100] * 4


def test_crops_by_hand(monkeypatch):
    x = torch.rand(64, 3, 16, 16)
    monkeypatch.setattr(worlds, "CROP", (1.0, 1.0))
    whole = worlds.augmented(x, torch.Generator().manual_seed(0))
    rows = (whole - x).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (whole - x.flip(-1)).abs().amax((1, 2, 3)) < 1e-5
    assert (rows ^ mirrored).all()
    assert 16 < rows.sum() < 48
    monkeypatch.setattr(worlds, "CROP", (0.5, 0.5))
    ramp = torch.linspace(0, 1, 32).expand(64, 1, 32, 32)  # grows to the right
    halves = worlds.augmented(ramp, torch.Generator().manual_seed(0))
    rise = (halves[..., -1] - halves[..., 0]).abs()
    torch.testing.assert_close(rise, torch.full_like(rise, 0.5), atol=0.02, rtol=0)
    assert halves.min() >= 0
    assert halves.max() <= 1
