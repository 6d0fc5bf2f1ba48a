"""Recipes: which differ in what, and what their networks are."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from helpers import networks, retina
from helpers.data import scenes
from helpers.experiments.train import datasets as worlds
from helpers.experiments.train.recipes import BIAS_OF_95_PERCENT, FORTY, PUBLISHED, RECIPES
from helpers.experiments.train.run import build

RECIPE = RECIPES["digits-gap"]


def test_the_recipe_s_seeds_are_not_those_of_the_test_set():
    assert max(RECIPE.seeds) < worlds.TEST_SEED
    assert RECIPE.images == 9000


NAMES = ("scenes-places", "scenes-first", "scenes-last", "scenes-few", "scenes-permuted")
EVERY_SCENE = [name for name, recipe in RECIPES.items() if recipe.world not in ("mnist", "photos")]


@lru_cache(maxsize=32)
def world(name, seed=0, images=None):
    with pytest.MonkeyPatch.context() as patch:  # 400 test scenes in place of 2000, whose number held_out tells
        patch.setattr(worlds, "TEST_SCENES", 400)
        return worlds.world(RECIPES[name], seed, images)


def differences(first, second):
    first, second = RECIPES[first].plain(), RECIPES[second].plain()
    return {key for key in first if first[key] != second[key]}


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
    split = world(name, images=64)
    assert len(split.classes) == classes
    net = build(RECIPES[name], len(split.classes)).eval()
    x = worlds.prepare(RECIPES[name], split.train.images[:2])
    assert net(x).shape == (2, classes)


def test_the_networks_of_the_record_train_on_no_test_scene():
    pair = {"scenes-disc", "scenes-logpolar"}  # windows of larger scenes
    assert {*NAMES, *pair, "scenes-gap", "scenes-gmp", "scenes-beside", "scenes-biased", "digits-gap"} == set(
        EVERY_SCENE
    )
    assert all(0 <= seed < worlds.TEST_SEED for name in NAMES for seed in RECIPES[name].seeds)


def test_the_published_overall_accuracy_is_the_mean_of_its_classes():
    sizes = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of MNIST's test classes
    table = PUBLISHED["lenet-mnist"]
    mean = sum(n * a for n, a in zip(sizes, table["by class"], strict=True)) / sum(sizes)
    assert mean == pytest.approx(table["accuracy"], abs=1e-4)


def test_the_bias_makes_the_background_tell_the_class_95_times_in_100():
    assert pytest.approx(0.95) == BIAS_OF_95_PERCENT + (1 - BIAS_OF_95_PERCENT) / 8
    split = scenes(4000, 5, bias=BIAS_OF_95_PERCENT)
    assert (split.backgrounds == split.labels[:, 0]).double().mean() == pytest.approx(0.95, abs=0.015)


def test_the_forty_classes_are_forty_and_known(real_data, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(real_data))
    split = worlds.held_out(RECIPES["photos-gap"])
    assert split.classes == FORTY
    assert len(set(FORTY)) == 40
    assert torch.bincount(split.tests["test"].labels).tolist() == [50] * 40
    assert networks.card("photos-gap").classes == FORTY


def test_the_matched_pair_differs_in_its_view_alone():
    disc, polar = (RECIPES[f"photos-{kind}"].plain() for kind in ("disc", "logpolar"))
    assert {key for key in disc if disc[key] != polar[key]} == {"name", "about", "view", "arguments"}
    assert {k for k in disc["arguments"] if disc["arguments"][k] != polar["arguments"][k]} == {"angular"}
    counts = [sum(p.numel() for p in build(RECIPES[n], 40).parameters()) for n in ("photos-disc", "photos-logpolar")]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", list(RECIPES))
def test_what_a_network_was_trained_on_is_what_a_reader_gives_it(name):
    recipe, about = RECIPES[name], networks.card(name)
    images = torch.randint(0, 256, (2, len(about.mean), *about.size), dtype=torch.uint8)
    trained_on = retina.VIEWS[recipe.view](worlds.prepare(recipe, images))
    torch.testing.assert_close(retina.view(networks.normalize(images, about), about), trained_on)


FIXATED = ("scenes-disc", "scenes-logpolar")


def test_the_pair_under_the_gaze_differs_in_its_view_alone():
    disc, polar = (RECIPES[name].plain() for name in FIXATED)
    assert {key for key in disc if disc[key] != polar[key]} == {"name", "about", "view", "arguments"}
    assert {k for k in disc["arguments"] if disc["arguments"][k] != polar["arguments"][k]} == {"angular"}
    assert disc["world"] == polar["world"] == "fixated"
    counts = [sum(p.numel() for p in build(RECIPES[name], 8).parameters()) for name in FIXATED]
    assert counts[0] == counts[1]
