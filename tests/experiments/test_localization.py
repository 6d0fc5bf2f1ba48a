"""The run that measures boxes on Tiny ImageNet and on scenes: what it writes, and what it says of itself."""

import json
from collections import Counter

import pytest
import torch
from support.located import located_scenes
from support.records import counted, numbers, read_back
from support.rows import assert_same_rows, pick, select

from helpers import networks, results
from helpers.data import scenes
from helpers.experiments import localization
from helpers.experiments.localization_errors import METRICS
from helpers.experiments.train import datasets
from helpers.networks import normalize


def curve(start, axis=(0.1, 0.2, 0.4), chosen=1):
    """What `errors_by_setting` gives, its numbers all different."""
    values = {key: [start + k + step / 8 for step in range(len(axis))] for k, key in enumerate(METRICS)}
    return {"axis": list(axis), **values, "chosen": chosen}


def network_results(start):
    return {"images": 5, "classification": {"top1": start, "top5": start + 0.5}, "maps": {"CAM": curve(start + 1)}}


def test_every_number_comes_into_a_row():
    photo_results = {
        name: {
            **network_results(100 * k),
            localization.ATROUS: network_results(100 * k + 20),
            "baselines": {"box": curve(100 * k + 50)},
        }
        for k, name in enumerate(localization.NETWORKS)
    }
    reshaped_results = {"other shape": network_results(500)}
    scene_results = {"scenes-gap": {"0": network_results(400), "1": network_results(450)}}
    rows = localization.rows(photo_results, reshaped_results, scene_results)
    everything = results.frame(rows)  # refuses rows that say the same
    curves = counted(select(rows, table="curves").to_dict("records"))
    all_numbers = Counter(numbers([photo_results, reshaped_results, scene_results]))
    assert curves + counted(select(rows, table="classification").to_dict("records")) <= all_numbers
    assert len(select(rows, table="curves")) == 12 * 6 * 3  # curves, metrics, settings
    # The chosen setting's own numbers, once more.
    chosen = select(rows, table="scores")
    assert len(chosen) == 12 * 6
    assert set(chosen["setting"]) == {0.2}
    row = pick(chosen, network="photos-gmp", variant=localization.AS_IT_IS, method="CAM", metric="iou")
    assert row["value"] == 100 + 1 + METRICS.index("iou") + 1 / 8
    where = {"network": "photos-gap", "variant": localization.ATROUS, "metric": "top1"}
    assert pick(rows, table="classification", **where)["value"] == 20
    assert pick(rows, table="classification", **where)["n"] == 5
    assert pick(rows, table="classification", network="scenes-gap", seed=1, metric="top5")["value"] == 450.5
    assert pick(chosen, variant="other shape", metric="known")["value"] == 501 + 1 / 8
    assert set(everything["network"]) == {*localization.NETWORKS, "scenes-gap"}


def test_the_whole_record_on_few_images(tmp_path, monkeypatch):
    network, _, photos = located_scenes(6)
    monkeypatch.setattr(localization, "SCENES", 4)
    monkeypatch.setattr(localization, "NETWORKS", ("photos-gap",))
    monkeypatch.setattr(localization, "tiny_imagenet", lambda part, classes: photos)
    monkeypatch.setattr(localization, "prepare", lambda recipe, images: normalize(images, network))
    monkeypatch.setattr(localization, "trained", lambda name, seed, out, device: networks.load(name, device))
    monkeypatch.setattr(localization, "train_further", lambda changes, folder, device: network)
    assert localization.main(["--out", str(tmp_path), "--device", "cpu"]) == 0
    record = read_back(tmp_path / "localization.csv")
    assert record.attrs["seeds"] == {"scenes-gap": [0, 1, 2], "scenes-gmp": [0, 1, 2]}
    assert record.attrs["published"]["GoogLeNet-GAP"] == [56.4, 43]
    assert record.attrs["settings"]["scenes"] == {"number": 4, "seed": 10_001}
    assert set(record.attrs["data"]) == {"photos-gap", "scenes"}
    assert_same_rows(record, results.read("localization"), networks={"photos-gap", "scenes-gap", "scenes-gmp"})


def test_the_published_header_is_the_one_that_a_run_writes_today():
    published = results.read("localization").attrs
    assert published["settings"] == json.loads(json.dumps(localization.settings()))
    assert set(published["data"]) == {*localization.NETWORKS, "scenes"}
    drawn = scenes(localization.SCENES, localization.UNSEEN_SEED)
    test = datasets.LabeledImages((drawn.images * 255).round().byte(), drawn.labels[:, 0])
    split = datasets.DataSplit(datasets.LabeledImages(test.images[:0], test.labels[:0]), {"test": test}, (), "")
    assert published["data"]["scenes"] == datasets.data_hash(split)
    axes = published["settings"]["column `setting`"].values()
    curves = results.read("localization", "curves")
    assert {value for axis in axes for value in axis} == set(curves["setting"])


def test_without_the_photographs_no_network_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    monkeypatch.setattr(localization, "trained", lambda *_: pytest.fail("trained before the data was looked for"))
    assert localization.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("error: Tiny ImageNet is not in")


def test_photographs_are_hashed_as_the_set_that_their_network_is_tested_on():
    images, labels = torch.randint(256, (3, 3, 4, 4), dtype=torch.uint8), torch.arange(3)
    test = datasets.LabeledImages(images, labels)
    split = datasets.DataSplit(datasets.LabeledImages(images[:0], labels[:0]), {"test": test}, (), "")
    assert localization.tensors_hash([images, labels]) == datasets.data_hash(split)
