"""Recipes: which differ in what, and what their networks are."""

from __future__ import annotations

import pytest
import torch

from helpers import networks, retina
from helpers.experiments.train import datasets
from helpers.experiments.train.recipes import BIAS_OF_95_PERCENT, FORTY, PUBLISHED, RECIPES
from helpers.experiments.train.run import build


def differences(first, second):
    first, second = RECIPES[first].plain(), RECIPES[second].plain()
    return {key for key in first if first[key] != second[key]}


def test_the_recipes_differ_where_they_should_and_nowhere_else():
    assert differences("scenes-gap", "scenes-places") == {"name", "about", "world"}
    assert differences("scenes-gap", "scenes-first") == {"name", "about", "classes", "images"}
    assert differences("scenes-first", "scenes-last") == {"name", "about", "classes"}
    assert differences("scenes-gap", "scenes-few") == {"name", "about", "images", "epochs"}
    assert differences("scenes-few", "scenes-permuted") == {"name", "about", "world"}


@pytest.mark.parametrize(("name", "classes"), [("scenes-places", 16), ("scenes-first", 4), ("scenes-permuted", 8)])
def test_networks_have_an_output_a_class(name, classes):
    split = datasets.load_split(RECIPES[name], images=64)
    assert len(split.classes) == classes
    net = build(RECIPES[name], len(split.classes)).eval()
    x = datasets.prepare(RECIPES[name], split.train.images[:2])
    assert net(x).shape == (2, classes)


def test_the_published_overall_accuracy_is_the_mean_of_its_classes():
    sizes = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of MNIST's test classes
    table = PUBLISHED["lenet-mnist"]
    mean = sum(n * a for n, a in zip(sizes, table["by class"], strict=True)) / sum(sizes)
    assert mean == pytest.approx(table["accuracy"], abs=1e-4)


def test_the_forty_classes_are_forty_and_known(real_data, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(real_data))
    split = datasets.held_out(RECIPES["photos-gap"])
    assert split.classes == FORTY
    assert len(set(FORTY)) == 40
    assert torch.bincount(split.tests["test"].labels).tolist() == [50] * 40
    assert networks.card("photos-gap").classes == FORTY


@pytest.mark.parametrize("name", list(RECIPES))
def test_what_a_network_was_trained_on_is_what_a_reader_gives_it(name):
    recipe, about = RECIPES[name], networks.card(name)
    images = torch.randint(0, 256, (2, len(about.mean), *about.size), dtype=torch.uint8)
    trained_on = retina.VIEWS[recipe.view](datasets.prepare(recipe, images))
    torch.testing.assert_close(retina.view(networks.normalize(images, about), about), trained_on)


def test_no_run_has_the_seed_of_the_test_scenes():
    assert all(0 <= seed < datasets.TEST_SEED for recipe in RECIPES.values() for seed in recipe.seeds)


@pytest.mark.parametrize("kind", ["photos", "scenes"])
def test_matched_pairs_differ_in_their_view_alone(kind):
    assert differences(f"{kind}-disc", f"{kind}-logpolar") == {"name", "about", "view", "arguments"}
    disc, polar = (RECIPES[f"{kind}-{view}"].arguments for view in ("disc", "logpolar"))
    assert {key for key in disc if disc[key] != polar[key]} == {"angular"}
    counts = [sum(p.numel() for p in build(RECIPES[f"{kind}-{view}"], 8).parameters()) for view in ("disc", "logpolar")]
    assert counts[0] == counts[1]


def test_the_bias_makes_the_background_tell_the_class_95_times_in_100():
    assert pytest.approx(0.95) == BIAS_OF_95_PERCENT + (1 - BIAS_OF_95_PERCENT) / 8
