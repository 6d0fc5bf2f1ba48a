"""The errors of boxes: arithmetic on toys, and the record against a fresh measurement."""

import pytest
import torch
from support.located import located_scenes
from support.rows import pick, select

from helpers import networks, results
from helpers.data import tiny_imagenet
from helpers.experiments import localization, localization_errors
from helpers.experiments.localization_maps import class_maps
from helpers.experiments.train.datasets import prepare
from helpers.experiments.train.recipes import RECIPES


def test_even_images_choose_and_odd_ones_are_scored():
    truth = torch.tensor([[0.0, 0, 8, 8]]).repeat(4, 1)
    good, bad = truth[0], torch.tensor([30.0, 30, 40, 40])
    first = torch.stack([good, bad, good, bad])  # right on the even images alone
    second = torch.stack([bad, good, bad, good])
    correct = torch.tensor([[True, True, False, True], [True, True, False, True]])
    scores = localization_errors.errors_by_setting([first, second], [0.1, 0.2], truth, correct)
    assert set(scores) == {"axis", "chosen", *localization_errors.METRICS}
    assert scores["axis"] == [0.1, 0.2]
    assert scores["chosen"] == 0
    assert scores["known"] == [1, 0]
    assert scores["top1"] == [1, 0]
    assert scores["iou"] == [0, 1]
    assert scores["area"] == pytest.approx([100 / 64**2, 64 / 64**2])
    assert scores["small"] == [1, 0]
    named = torch.tensor([[True, False] * 2] * 2)
    other = localization_errors.errors_by_setting([second, first], [0.1, 0.2], truth, named)
    assert other["chosen"] == 1
    assert other["known"] == [0, 1]
    assert other["top1"] == [1, 1]  # the odd images are not named


def test_small_objects_are_those_below_a_quarter():
    large, small = [0.0, 0, 32, 32], [0.0, 0, 31, 32]
    truth = torch.tensor([large, large, small, small])
    boxes = truth.clone()
    boxes[1] = 0  # off, and not small
    correct = torch.ones(2, 4, dtype=torch.bool)
    scores = localization_errors.errors_by_setting([boxes], [0.5], truth, correct)
    assert (scores["known"], scores["small"]) == ([0.5], [0])


def test_a_network_is_measured():
    network, x, photos = located_scenes()
    result = localization_errors.network_results(network, x, photos, {"CAM": class_maps})
    assert result["images"] == 12  # the odd half
    assert 0 <= result["classification"]["top5"] <= result["classification"]["top1"] <= 0.2
    maps = result["maps"]["CAM"]
    assert len(maps["known"]) == len(localization_errors.THRESHOLDS) == len(maps["axis"])
    assert all(a >= b for a, b in zip(maps["top1"], maps["known"], strict=True))


def test_the_second_best_answer_counts_among_five_and_not_as_the_best():
    network, x, photos = located_scenes()
    second = network(x).topk(2, 1).indices[:, 1]
    result = localization_errors.network_results(network, x, photos._replace(labels=second), {"CAM": class_maps})
    assert result["classification"] == {"top1": 1, "top5": 0}
    maps = result["maps"]["CAM"]
    assert maps["top1"] == [1] * len(maps["axis"])
    assert maps["top5"] == maps["known"]


@pytest.mark.parametrize(("per_class", "most"), [(10, None), pytest.param(None, 0.003, marks=pytest.mark.slow)])
def test_the_record_is_what_a_fresh_measurement_gives(per_class, most, real_data, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(real_data))
    recipe = RECIPES["photos-gap"]
    photos = tiny_imagenet("val", recipe.classes, per_class)
    network, x = networks.load("photos-gap", "cpu"), prepare(recipe, photos.images)
    fresh = localization_errors.network_results(network, x, photos, {"CAM": class_maps})
    record = select(results.read("localization"), network="photos-gap", variant=localization.AS_IT_IS)
    assert pick(record, table="classification", metric="top1")["n"] == 1000
    error = most or 4 * (0.25 / fresh["images"]) ** 0.5  # four standard deviations of a share
    for key in ("known", "top1", "top5", "iou", "area"):
        expected = select(record, table="curves", method="CAM", metric=key)["value"].tolist()
        assert fresh["maps"]["CAM"][key] == pytest.approx(expected, abs=error)
