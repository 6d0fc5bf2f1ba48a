"""Scenes without an object, and what the networks of chapter 5's scenes learn from and are tested on."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from helpers.data import BACKGROUNDS, CLASSES, digit_scenes, scenes
from helpers.experiments.train import datasets as worlds
from helpers.experiments.train.recipes import RECIPES
from helpers.experiments.train.trainer import build

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


# --- scenes that may be empty -----------------------------------------------------------------------------------------


def test_empty_scenes_have_no_label_no_box_and_no_mask():
    s = scenes(400, 5, objects=(0, 1))
    assert s.images.shape == (400, 3, 64, 64)
    assert s.labels.shape == (400, 1)
    assert s.boxes.shape == (400, 1, 4)
    assert s.masks.shape == (400, 1, 64, 64)
    empty = s.labels[:, 0] == -1
    assert 160 < empty.sum() < 240  # about half: 200, four standard deviations are 40
    assert s.boxes[empty].isnan().all()
    assert not s.masks[empty].any()
    assert not s.boxes[~empty].isnan().any()
    assert s.masks[~empty].flatten(1).any(1).all()
    assert s.labels[~empty].min() == 0
    assert s.labels[~empty].max() == 7
    assert s.backgrounds.min() == 0  # an empty scene has its ground all the same
    assert set(s.backgrounds[empty].tolist()) == set(range(8))
    dtypes = [s.images.dtype, s.labels.dtype, s.boxes.dtype, s.masks.dtype, s.backgrounds.dtype]
    assert dtypes == [torch.float32, torch.int64, torch.float32, torch.bool, torch.int64]


@pytest.mark.parametrize("options", [{}, {"size": 96, "bias": 0.5}, {"background_shift": 3, "scale": (0.2, 0.3)}])
def test_scenes_that_have_an_object_are_those_that_always_have_one_byte_for_byte(options):
    some, always = scenes(200, 7, objects=(0, 1), **options), scenes(200, 7, **options)
    full = some.labels[:, 0] >= 0
    for one, other in zip(some, always, strict=True):
        assert one[full].equal(other[full])
    assert some.backgrounds.equal(always.backgrounds)
    # An empty scene is the same ground: 4 pixels from where the object would be (thin tips cover less than half of
    # their pixels, which are not in the mask), byte for byte; within it, not.
    empty = ~full
    near = torch.nn.functional.max_pool2d(always.masks.float(), 7, 1, 3).bool().expand(-1, 3, -1, -1)
    same = some.images == always.images
    assert same[empty][~near[empty]].all()
    inside = always.masks.expand(-1, 3, -1, -1)
    assert same[empty][inside[empty]].double().mean() < 0.05


def test_an_empty_scene_is_ground_alone():
    some = scenes(200, 9, objects=(0, 1))
    empty = some.labels[:, 0] < 0
    # A ground mixes two colours: its pixels lie on a line in the space of colours. An object has colours of its own.
    pixels = some.images.flatten(2).double()
    spread = torch.linalg.svdvals(pixels - pixels.mean(2, keepdim=True)) / 64  # root mean square along each axis
    assert spread[empty, 1].max() < 1 / 255
    assert (spread[~empty, 1] > 1 / 255).double().mean() > 0.95


def test_first_scenes_do_not_depend_on_how_many_there_are():
    for one, other in zip(scenes(10, 3, objects=(0, 1)), scenes(150, 3, objects=(0, 1)), strict=True):
        torch.testing.assert_close(one, other[:10], rtol=0, atol=0, equal_nan=True)


def test_whether_a_scene_is_empty_says_nothing_about_its_ground():
    s = scenes(2000, 11, objects=(0, 1), size=32)
    empty = (s.labels[:, 0] < 0).double()
    for ground in range(8):
        assert float(empty[s.backgrounds == ground].mean()) == pytest.approx(0.5, abs=0.13)  # four deviations of 0.032
    assert float(empty.mean()) == pytest.approx(0.5, abs=0.045)


def test_ranges_from_0_reach_further_than_1():
    s = scenes(600, 13, objects=(0, 2), size=32)
    found = (s.labels >= 0).sum(1)
    for count in range(3):
        assert float((found == count).double().mean()) == pytest.approx(1 / 3, abs=0.08)
    assert (s.labels[found == 1, 0] >= 0).all()  # the first place is filled first
    assert (s.labels[found == 1, 1] == -1).all()
    assert (s.labels >= 0).equal(s.masks.flatten(2).any(2))
    assert (s.labels < 0).equal(s.boxes.isnan().all(2))


def test_an_empty_scene_may_have_a_word():
    s = scenes(60, 15, objects=(0, 1), text=True)
    empty = s.labels[:, 0] < 0
    assert 0 < empty.sum() < 60
    assert (s.labels[:, 1] == len(CLASSES)).all()
    assert not s.masks[empty, 0].any()
    assert s.masks[:, 1].flatten(1).any(1).all()


def test_no_scenes_that_may_be_empty():
    s = scenes(0, objects=(0, 1))
    assert s.images.shape == (0, 3, 64, 64)
    assert s.labels.shape == (0, 1)


@pytest.mark.parametrize("objects", [0, 0.0, (0, 0), [0, 0], False, (-1, 1), (0, 1.5), (0.5, 1), (1, 0), (0, 17), (0,)])
def test_objects_without_room_for_one_are_refused(objects):
    with pytest.raises(ValueError, match="objects"):
        scenes(4, objects=objects)


@pytest.mark.parametrize("digits", [0, (0, 1), (0, 0)])
def test_digit_scenes_are_never_empty(digits):
    with pytest.raises(ValueError, match="digits"):
        digit_scenes(4, digits=digits)


# --- recipes ----------------------------------------------------------------------------------------------------------


def differences(one, other):
    one, other = RECIPES[one].plain(), RECIPES[other].plain()
    return {key for key in one if one[key] != other[key]}


def test_the_recipes_differ_where_they_should_and_nowhere_else():
    assert differences("scenes-gap", "scenes-places") == {"name", "about", "world"}
    assert differences("scenes-gap", "scenes-first") == {"name", "about", "classes", "images"}
    assert differences("scenes-first", "scenes-last") == {"name", "about", "classes"}
    assert differences("scenes-gap", "scenes-few") == {"name", "about", "images", "epochs"}
    assert differences("scenes-few", "scenes-permuted") == {"name", "about", "world"}


def test_the_recipes_say_what_the_networks_are_for():
    assert RECIPES["scenes-first"].classes == ("disk", "ring", "square", "triangle")
    assert RECIPES["scenes-last"].classes == ("star", "cross", "crescent", "arrow")
    assert {name: RECIPES[name].images for name in NAMES} == {
        "scenes-places": 8192, "scenes-first": 4096, "scenes-last": 4096, "scenes-few": 512, "scenes-permuted": 512,
    }  # fmt: skip
    assert {name: RECIPES[name].world for name in NAMES} == {
        "scenes-places": "places", "scenes-first": "scenes", "scenes-last": "scenes", "scenes-few": "scenes",
        "scenes-permuted": "permuted",
    }  # fmt: skip
    assert all(RECIPES[name].bias == 0 for name in NAMES)
    assert all(RECIPES[name].name == name for name in NAMES)
    assert all("seeds" not in RECIPES[name].plain() for name in NAMES)


@pytest.mark.parametrize(("name", "classes"), [("scenes-places", 16), ("scenes-first", 4), ("scenes-permuted", 8)])
def test_networks_have_an_output_a_class(name, classes):
    found = world(name, images=64)
    assert len(found.classes) == classes
    net = build(RECIPES[name], len(found.classes)).eval()
    x = worlds.prepare(RECIPES[name], found.train.images[:2])
    assert net(x).shape == (2, classes)


# --- worlds -----------------------------------------------------------------------------------------------------------


@each_network
def test_images_are_bytes_and_labels_lie_among_the_classes(name):
    found = world(name, images=128)
    for part in (found.train, found.tests["test"]):
        assert part.images.dtype == torch.uint8
        assert part.images.shape == (128, 3, 64, 64)
        assert part.labels.dtype == torch.int64
        assert part.labels.shape == (128,)
        assert set(part.labels.tolist()) == set(range(len(found.classes)))
    assert list(found.tests) == ["test"]
    assert found.what


@each_network
def test_held_out_has_the_test_images_and_none_to_train_on(name):
    held = held_out(name)
    assert held.train.images.shape == (0, 3, 64, 64)
    assert held.train.images.dtype == torch.uint8
    assert held.train.labels.shape == (0,)
    assert held.train.labels.dtype == torch.int64
    test = held.tests["test"]
    assert len(test.images) == len(test.labels) == 2000
    found = world(name, images=256)
    assert held.classes == found.classes
    assert held.what == found.what
    # a world of fewer images is tested on some of them; places are two halves
    some = [*range(128), *range(1000, 1128)] if name == "scenes-places" else list(range(256))
    assert found.tests["test"].images.equal(test.images[some])
    assert found.tests["test"].labels.equal(test.labels[some])
    assert len(worlds.data_hash(held)) == 64


@each_network
def test_test_images_are_not_trained_on_and_other_seeds_have_other_images(name):
    sets = [world(name, seed, 128).train.images for seed in (0, 1, 2)] + [world(name, 0, 128).tests["test"].images]
    different = {image.numpy().tobytes() for images in sets for image in images}
    assert len(different) == 4 * 128
    for seed in (1, 2):
        assert world(name, seed, 128).tests["test"].images.equal(world(name, 0, 128).tests["test"].images)
        assert world(name, seed, 128).tests["test"].labels.equal(world(name, 0, 128).tests["test"].labels)


@pytest.mark.parametrize("seed", [10_000, 10_001, 123_456])
@pytest.mark.parametrize("name", EVERY_SCENE)
def test_seeds_of_the_test_scenes_are_refused(name, seed):
    with pytest.raises(ValueError, match=r"seed must be less than 10,000"):
        worlds.world(RECIPES[name], seed, 16)
    with pytest.raises(ValueError, match=r"seed must be less than 10,000"):
        worlds.check_seed(RECIPES[name], seed)


@each_network
def test_the_last_seed_below_the_test_scenes_is_allowed(name):
    worlds.check_seed(RECIPES[name], 9_999)
    found = worlds.world(RECIPES[name], 9_999, 16)
    assert not found.train.images.equal(found.tests["test"].images)


def test_the_networks_of_the_record_train_on_no_test_scene():
    pair = {"scenes-disc", "scenes-logpolar"}  # windows of larger scenes
    assert {*NAMES, *pair, "scenes-gap", "scenes-gmp", "scenes-beside", "scenes-biased", "digits-gap"} == set(
        EVERY_SCENE
    )
    assert all(0 <= seed < worlds.TEST_SEED for name in NAMES for seed in RECIPES[name].seeds)


@pytest.mark.parametrize("seed", [-1, 1.5, "0"])
@each_network
def test_bad_seeds_are_refused(name, seed):
    with pytest.raises((ValueError, TypeError)):
        worlds.world(RECIPES[name], seed, 16)


def test_an_unknown_world_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"world: got 'moon', want one of .*scenes.*permuted.*places"):
        worlds.held_out(replace(RECIPES["scenes-gap"], world="moon"))


@each_network
@pytest.mark.parametrize("images", [1, 3, 65])
def test_there_are_at_most_as_many_images_as_asked_for(name, images):
    found = worlds.world(RECIPES[name], 0, images)
    assert [len(part.labels) for part in (found.train, found.tests["test"])] == [images] * 2
    assert [len(part.images) for part in (found.train, found.tests["test"])] == [images] * 2


# --- some of the shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 4])
def test_a_network_of_four_shapes_sees_no_other_and_counts_them_anew(first, fewer_tests):
    recipe = RECIPES["scenes-last" if first else "scenes-first"]
    # 512 in place of 4096: the numbers of the recipes are looked at above
    found = worlds.world(replace(recipe, images=512), 0)
    assert found.classes == CLASSES[first : first + 4]
    assert counts(found.train.labels, 4) == [128] * 4  # as many of each as in 1024 scenes of all shapes
    assert counts(found.tests["test"].labels, 4) == [100] * 4
    for part, seed in ((found.train, 0), (found.tests["test"], 10_000)):
        drawn = scenes(800, seed)
        kept = (drawn.labels[:, 0] >= first) & (drawn.labels[:, 0] < first + 4)
        assert kept.sum() == 400
        assert part.images[:400].equal(as_bytes(drawn.images[kept]))
        assert part.labels[:400].equal(drawn.labels[kept, 0] - first)


def test_classes_are_counted_in_the_order_they_are_named_in():
    chosen = ("arrow", "disk", "star")
    found = worlds.world(replace(RECIPES["scenes-first"], classes=chosen, images=90), 3)
    drawn = scenes(240, 3)
    kept = [i for i, label in enumerate(drawn.labels[:, 0].tolist()) if CLASSES[label] in chosen]
    assert found.classes == chosen
    assert found.train.labels.tolist() == [chosen.index(CLASSES[drawn.labels[i, 0]]) for i in kept]
    assert found.train.images.equal(as_bytes(drawn.images[kept]))
    assert counts(found.train.labels, 3) == [30] * 3


def test_all_classes_named_is_no_class_named():
    named = worlds.world(replace(RECIPES["scenes-few"], classes=CLASSES), 0, 100)
    assert worlds.data_hash(named) == worlds.data_hash(world("scenes-few", 0, 100))


def test_some_shapes_keep_the_bias_and_its_tests(fewer_tests):
    biased = replace(RECIPES["scenes-biased"], classes=("cross", "disk"))
    found = worlds.world(biased, 0, 40)
    assert list(found.tests) == ["test", "backgrounds swapped", "backgrounds at random"]
    for part in (found.train, *found.tests.values()):
        assert counts(part.labels, 2) == [20, 20]


@pytest.mark.parametrize("world_name", ["scenes", "permuted"])
def test_an_unknown_shape_is_refused(world_name):
    with pytest.raises(ValueError, match=r"hexagon"):
        worlds.world(replace(RECIPES["scenes-first"], world=world_name, classes=("disk", "hexagon")), 0, 16)


# --- few scenes, and their labels permuted ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scenes-few", "scenes-permuted"])
@pytest.mark.parametrize("seed", [0, 1])
def test_few_are_512_and_balanced(name, seed):
    found = world(name, seed)
    assert len(found.train.images) == 512
    assert counts(found.train.labels, 8) == [64] * 8
    assert found.classes == CLASSES


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
    found = held_out("scenes-permuted")
    assert found.tests["test"].images.equal(as_bytes(drawn.images))
    assert found.tests["test"].labels.equal(drawn.labels[:, 0])
    assert counts(found.tests["test"].labels, 8) == [250] * 8
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


# --- places -----------------------------------------------------------------------------------------------------------


def test_places_are_named_by_large_objects_and_by_grounds_with_little_on_them():
    found = worlds.world(replace(RECIPES["scenes-places"], images=800), 2)
    assert found.classes == (*CLASSES, *BACKGROUNDS)
    for part, seed in ((found.train, 2), (found.tests["test"], 10_000)):
        half = len(part.labels) // 2
        large = scenes(half, 2 * seed)
        small = scenes(len(part.labels) - half, 2 * seed + 1, objects=(0, 1), scale=(0.1, 0.2))
        assert part.images[:half].equal(as_bytes(large.images))
        assert part.images[half:].equal(as_bytes(small.images))
        named = [found.classes[label] for label in part.labels]
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
    found = worlds.world(replace(RECIPES["scenes-beside"], images=40), 3)
    drawn = scenes(3 * 40 + 64, 3, objects=2)
    known = drawn.labels < 4
    kept = (known.sum(1) == 1).nonzero()[:40, 0]
    assert found.train.images.equal(as_bytes(drawn.images[kept]))
    assert found.train.labels.tolist() == [int(one[k]) for one, k in zip(drawn.labels[kept], known[kept], strict=True)]
    assert found.classes == CLASSES[:4]
    assert len(found.tests["test"].images) == 2000
