"""What a training publishes, and whether the shipped networks are as good as their manifests say."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
import torch
from support.rows import pick, select
from support.trainings import TINY, refusal

from helpers import networks, results
from helpers.data import Digits, mnist, tiny_imagenet
from helpers.experiments import report
from helpers.experiments.train import datasets, publish
from helpers.experiments.train.picture import picture
from helpers.experiments.train.recipes import RECIPES
from helpers.experiments.train.run import Machine, Run, recipe_logits
from helpers.networks import _store as store
from helpers.training import topk_correct


def accuracies(name: str) -> pd.DataFrame:
    """Share of each test set that is classified correctly, by the seed of the training."""
    rows = results.read(name, "accuracy").query("metric == 'top 1'")
    return rows.pivot(index="seed", columns="set", values="value")


# Share right on some 500 images of each test set, measured on the networks as they were published: of scenes and digits
# the first 500, of MNIST every 20th, of Tiny ImageNet the first ones of each class.
ON_FEW: dict[str, dict[str, float]] = {
    "lenet-mnist": {"test": 0.986},
    "digits-gap": {"test": 0.982},
    "scenes-gap": {"test": 0.988},
    "scenes-gmp": {"test": 0.996},
    "scenes-biased": {"test": 0.988, "backgrounds swapped": 0.612, "backgrounds at random": 0.67},
    "scenes-places": {"test": 0.916},
    "scenes-first": {"test": 0.986},
    "scenes-last": {"test": 0.988},
    "scenes-beside": {"test": 0.814},
    "scenes-few": {"test": 0.818},
    "scenes-permuted": {"test": 0.112},
    "scenes-disc": {"test": 1.0},
    "scenes-logpolar": {"test": 0.97},
    "photos-gap": {"test": 0.683333},
    "photos-gmp": {"test": 0.7},
    "photos-200": {"test": 0.305},
    "photos-200-gmp": {"test": 0.3475},
    "photos-disc": {"test": 0.65},
    "photos-logpolar": {"test": 0.564583},
}


@pytest.fixture
def few_images(monkeypatch):
    """Test sets of some 500 images."""
    monkeypatch.setattr(datasets, "TEST_SCENES", 500)
    monkeypatch.setattr(
        datasets,
        "tiny_imagenet",
        lambda split, classes: tiny_imagenet(split, classes, 500 // len(classes or range(200))),
    )
    monkeypatch.setattr(datasets, "mnist", lambda split: Digits(*(field[::20] for field in mnist(split))))


def needs_data(name: str) -> bool:
    return RECIPES[name].world in ("mnist", "photos")


def measured(name: str) -> dict[str, float]:
    """Accuracy of the shipped network on each of its test sets, measured now."""
    recipe = RECIPES[name]
    return publish.measure(recipe, networks.load(name, "cpu"), datasets.held_out(recipe))["accuracy"]


def with_data(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if needs_data(name):
        monkeypatch.setenv("HELPERS_DATA", str(request.getfixturevalue("real_data")))


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_shipped_network_is_right_on_as_many_of_few_images_as_it_was(name, few_images, request, monkeypatch):
    with_data(name, request, monkeypatch)
    assert measured(name) == pytest.approx(ON_FEW[name], abs=0.0041)  # two images of 500


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RECIPES))
def test_a_shipped_network_is_as_good_as_its_manifest_says(name, request, monkeypatch):
    with_data(name, request, monkeypatch)
    manifest = json.loads((store.FILES / f"{name}.json").read_text(encoding="utf8"))
    assert measured(name) == pytest.approx(manifest["runs"][0]["accuracy"], abs=0.002)


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_card_has_the_accuracy_of_the_first_seed_and_few_images_tell_nothing_else(name):
    manifest = json.loads((store.FILES / f"{name}.json").read_text(encoding="utf8"))
    accuracies = manifest["runs"][0]["accuracy"]
    assert manifest["accuracy"] == networks.card(name).accuracy == next(iter(accuracies.values()))
    assert ON_FEW[name].keys() == accuracies.keys()
    for test, share in accuracies.items():
        assert ON_FEW[name][test] == pytest.approx(share, abs=4 * (0.25 / 400) ** 0.5)  # four standard deviations


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_record_and_the_manifest_tell_the_same(name):
    manifest = json.loads((store.FILES / f"{name}.json").read_text(encoding="utf8"))
    record = results.read(name)
    about, rows = record.attrs, {table: part for table, part in record.groupby("table")}
    assert about["settings"]["recipe"] == manifest["recipe"] == RECIPES[name].plain()
    assert about["settings"]["classes"] == manifest["classes"]
    assert about["command"] == manifest["command"] == publish.command(RECIPES[name])
    assert about["seeds"] == [run["seed"] for run in manifest["runs"]]
    for run in manifest["runs"]:
        assert accuracies(name).loc[run["seed"]].to_dict() == run["accuracy"]
        top5 = rows["accuracy"].query("metric == 'top 5' and seed == @run['seed']")["value"].tolist()
        assert top5 == ([] if run["top 5"] is None else [run["top 5"]])
        steps = rows["epochs"].query("seed == @run['seed'] and metric == 'train'")["step"]
        assert steps.tolist() == list(range(1, RECIPES[name].epochs + 1))
        assert (rows["classes"]["seed"] == run["seed"]).sum() == len(manifest["classes"])


def test_a_record_holds_all_that_was_measured():
    runs = [
        {
            "seed": seed, "accuracy": {"test": 0.5 + seed, "swapped": 0.25}, "by class": [0.75, None],
            "top 5": {"test": 0.875}, "data": "f" * 64,
            "environment": dict.fromkeys(("commit", "device", "threads", "python", "torch"), "x"),
            "epochs": [{"epoch": k, "loss": 2.0 / k, "train": k / 8, "test": k / 16, "seconds": 1.5} for k in (1, 2)],
        }
        for seed in (0, 4)
    ]  # fmt: skip
    nested = {"name": "toy", "command": "make toy", "what": "toys", "classes": ["a", "b"], "recipe": {"epochs": 2}}
    nested |= {"runs": runs, "published": None}
    record = results.from_text(results.to_text(publish.record_header(nested), publish.record_rows(nested)))
    assert record.attrs["data"] == {"seed 0": "f" * 64, "seed 4": "f" * 64}
    assert record.attrs["settings"]["environments"]["4"] == runs[1]["environment"]
    assert pick(record, table="accuracy", seed=4, metric="top 1", set="test")["value"] == 4.5
    assert select(record, table="accuracy", metric="top 5")["set"].tolist() == ["test", "test"]
    assert select(record, table="classes", seed=4)["label"].tolist() == [0, 1]
    assert pick(record, table="classes", seed=0, label=0)["value"] == 0.75
    assert math.isnan(pick(record, table="classes", seed=0, label=1).get("value", math.nan))
    assert pick(record, table="epochs", seed=0, step=2, metric="loss")["value"] == 1
    assert len(record) == 2 * (3 + 2 + 2 * 4)
    figure = picture("toy", record)
    (train, test) = (line.get_ydata().tolist() for line in figure.axes[0].get_lines()[:2])
    assert (train, test) == ([1 / 8, 2 / 8], [1 / 16, 2 / 16])


def test_accuracy_of_each_class_by_hand():
    scores = torch.tensor([[3.0, 2, 1], [1, 2, 3], [1, 3, 2], [3, 2, 1]])
    labels = torch.tensor([0, 1, 1, 2])
    assert publish.by_class(scores, labels) == [1.0, 0.5, 0.0]
    assert publish.by_class(scores[:3], labels[:3]) == [1.0, 0.5, None]


def test_among_more_than_ten_classes_five_answers_are_told_too(tmp_path):
    draw = torch.Generator().manual_seed(0)
    first, other = (
        datasets.LabeledImages(
            torch.randint(0, 256, (24, 3, 64, 64), generator=draw).byte(), torch.randint(0, 12, (24,), generator=draw)
        )
        for _ in range(2)
    )
    split = datasets.DataSplit(first, {"main": first, "other": other}, tuple("abcdefghijkl"), "noise")
    run = Run(RECIPES["photos-gap"], split, 0, tmp_path, Machine(torch.device("cpu")))
    result = publish.measured_runs(run.recipe, [run])
    scores = recipe_logits(run.recipe, publish.as_shipped(run.model), first.images)
    share = topk_correct(scores, first.labels, 5).double().mean().item()
    assert 0 < share < 1
    rows = select(publish.record_rows(result), table="accuracy")
    assert pick(rows, metric="top 5")[["set", "value"]].tolist() == ["main", share]
    assert select(rows, metric="top 1")["set"].tolist() == ["main", "other"]
    assert [entry["top 5"] for entry in publish.manifest(run.recipe, result, run)["runs"]] == [share]


def test_publishing_needs_a_checkout(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    assert "checkout" in refusal(capsys, *TINY, "--publish", "--out", str(tmp_path))
