"""The run that measures boxes on Tiny ImageNet: its arithmetic on toys, and its record against a fresh measurement."""

from collections import Counter

import pytest
import torch
from support.records import counted, numbers, read_back
from support.rows import assert_same_rows, pick, select

from helpers import networks, results
from helpers.data import Photos, scenes, tiny_imagenet
from helpers.experiments import localization
from helpers.experiments.train.datasets import DataSplit, LabeledImages, prepare
from helpers.experiments.train.recipes import RECIPES
from helpers.networks import normalize


def world(n=24):
    drawn = scenes(n, 77)
    network = networks.load("scenes-gap", "cpu")
    photos = Photos(drawn.images, drawn.labels[:, 0], drawn.boxes[:, 0], (), ())
    return network, normalize(drawn.images, network), photos


def test_even_images_choose_and_odd_ones_are_scored():
    truth = torch.tensor([[0.0, 0, 8, 8]]).repeat(4, 1)
    good, bad = truth[0], torch.tensor([30.0, 30, 40, 40])
    first = torch.stack([good, bad, good, bad])  # right on the even images alone
    second = torch.stack([bad, good, bad, good])
    correct = torch.tensor([[True, True, False, True], [True, True, False, True]])
    scores = localization.errors_by_setting([first, second], [0.1, 0.2], truth, correct)
    assert scores["chosen"] == 0
    assert scores["known"] == [1, 0]
    assert scores["top1"] == [1, 0]
    assert scores["iou"] == [0, 1]
    assert scores["area"] == pytest.approx([100 / 64**2, 64 / 64**2])
    assert scores["small"] == [1, 0]
    other = localization.errors_by_setting([second, first], [0.1, 0.2], truth, torch.tensor([[True, False] * 2] * 2))
    assert other["chosen"] == 1
    assert other["known"] == [0, 1]
    assert other["top1"] == [1, 1]  # the odd images are not named


def test_a_network_is_measured():
    network, x, photos = world()
    result = localization.measured(network, x, photos, {"CAM": localization.class_maps})
    assert result["images"] == 12  # the odd half
    assert 0 <= result["classification"]["top5"] <= result["classification"]["top1"] <= 0.2
    maps = result["maps"]["CAM"]
    assert len(maps["known"]) == len(localization.THRESHOLDS) == len(maps["axis"])
    assert all(a >= b for a, b in zip(maps["top1"], maps["known"], strict=True))


def curve(start, axis=(0.1, 0.2, 0.4), chosen=1):
    """What `scores` gives, its numbers all different."""
    values = {key: [start + k + step / 8 for step in range(len(axis))] for k, key in enumerate(localization.METRICS)}
    return {"axis": list(axis), **values, "chosen": chosen}


def measured(start):
    return {"images": 5, "classification": {"top1": start, "top5": start + 0.5}, "maps": {"CAM": curve(start + 1)}}


def test_every_number_comes_into_a_row():
    photographs = {
        name: {
            **measured(100 * k),
            localization.ATROUS: measured(100 * k + 20),
            "baselines": {"box": curve(100 * k + 50)},
        }
        for k, name in enumerate(localization.NETWORKS)
    }
    scenes_gap = {"scenes-gap": {"0": measured(400), "1": measured(450)}}
    reshaped = {"other shape": measured(500)}
    rows = localization.rows(photographs, scenes_gap, reshaped)
    everything = results.frame(rows)  # refuses rows that say the same
    curves = counted(select(rows, table="curves").to_dict("records"))
    nested = [photographs, scenes_gap, reshaped]
    all_numbers = Counter(numbers(nested))
    assert curves + counted(select(rows, table="classification").to_dict("records")) <= all_numbers
    assert len(select(rows, table="curves")) == 12 * 6 * 3  # curves, metrics, settings
    # The chosen setting's own numbers, once more.
    chosen = select(rows, table="scores")
    assert len(chosen) == 12 * 6
    assert set(chosen["setting"]) == {0.2}
    row = pick(chosen, network="photos-gmp", variant=localization.AS_IT_IS, method="CAM", metric="iou")
    assert row["value"] == 100 + 1 + localization.METRICS.index("iou") + 1 / 8
    where = {"network": "photos-gap", "variant": localization.ATROUS, "metric": "top1"}
    assert pick(rows, table="classification", **where)["value"] == 20
    assert pick(rows, table="classification", **where)["n"] == 5
    assert pick(rows, table="classification", network="scenes-gap", seed=1, metric="top5")["value"] == 450.5
    assert pick(chosen, variant="other shape", metric="known")["value"] == 501 + 1 / 8
    assert set(everything["network"]) == {*localization.NETWORKS, "scenes-gap"}


def test_the_whole_record_on_few_images(tmp_path, monkeypatch):
    network, _, photos = world(6)
    split = DataSplit(LabeledImages(photos.images[:0], photos.labels[:0]), {"test": LabeledImages(*photos[:2])}, (), "")
    monkeypatch.setattr(localization, "SCENES", 4)
    monkeypatch.setattr(localization, "NETWORKS", ("photos-gap",))
    monkeypatch.setattr(localization, "tiny_imagenet", lambda part, classes: photos)
    monkeypatch.setattr(localization, "prepare", lambda recipe, images: normalize(images, network))
    monkeypatch.setattr(localization, "held_out", lambda recipe: split)
    monkeypatch.setattr(localization, "trained", lambda name, seed, out, device: networks.load(name, device))
    monkeypatch.setattr(localization, "train_further", lambda changes, folder, device: network)
    assert localization.main(["--out", str(tmp_path), "--device", "cpu"]) == 0
    record = read_back(tmp_path / "localization.csv")
    assert record.attrs["seeds"] == {"scenes-gap": [0, 1, 2], "scenes-gmp": [0, 1, 2]}
    assert record.attrs["published"]["GoogLeNet-GAP"] == [56.4, 43]
    assert record.attrs["settings"]["side"] == 64
    assert_same_rows(record, results.read("localization"), networks={"photos-gap", "scenes-gap", "scenes-gmp"})


@pytest.mark.parametrize(("per_class", "most"), [(10, None), pytest.param(None, 0.003, marks=pytest.mark.slow)])
def test_the_record_is_what_a_fresh_measurement_gives(per_class, most, real_data, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(real_data))
    recipe = RECIPES["photos-gap"]
    photos = tiny_imagenet("val", recipe.classes, *[per_class] * (per_class is not None))
    network = networks.load("photos-gap", "cpu")
    fresh = localization.measured(network, prepare(recipe, photos.images), photos, {"CAM": localization.class_maps})
    record = select(results.read("localization"), network="photos-gap", variant=localization.AS_IT_IS)
    assert pick(record, table="classification", metric="top1")["n"] == 1000
    error = most or 4 * (0.25 / fresh["images"]) ** 0.5  # four standard deviations of a share
    for key in ("known", "top1", "top5", "iou", "area"):
        expected = select(record, table="curves", method="CAM", metric=key)["value"].tolist()
        assert fresh["maps"]["CAM"][key] == pytest.approx(expected, abs=error)


def test_the_second_best_answer_counts_among_five_and_not_as_the_best():
    network, x, photos = world()
    second = network(x).topk(2, 1).indices[:, 1]
    result = localization.measured(network, x, photos._replace(labels=second), {"CAM": localization.class_maps})
    assert result["classification"] == {"top1": 1, "top5": 0}
    maps = result["maps"]["CAM"]
    assert maps["top1"] == [1] * len(maps["axis"])
    assert maps["top5"] == maps["known"]
