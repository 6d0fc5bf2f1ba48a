"""The matched pairs of chapters 6 and 7: their networks, their images."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from support.records import read_back
from support.rows import select
from support.searched import CPU, fake_world, whole_numbers

from helpers import networks
from helpers.data import Photos, scenes
from helpers.experiments import matched_pairs as P
from helpers.experiments import retina as R
from helpers.experiments.run_files import RunError
from helpers.experiments.search import measure as S
from helpers.results import long_table


def test_only_the_first_seed_is_shipped(monkeypatch, tmp_path):
    asked = []
    cards = {name: networks.card(name) for members in P.PAIRS.values() for name in members}

    def load(name, device):
        asked.append(("load", name, device))
        return SimpleNamespace(card=cards[name], number=len(asked))

    def trained(name, seed, out, device):
        asked.append(("trained", name, seed, out, device))
        return SimpleNamespace(number=len(asked))

    monkeypatch.setattr(P.networks, "load", load)
    monkeypatch.setattr(P, "trained", trained)
    for kind in P.PAIRS:
        asked.clear()
        networks_of_pair = list(P.pair(kind, tmp_path, CPU))
        expected = [(name, seed) for name in P.PAIRS[kind] for seed in P.SEEDS[kind]]
        assert [(name, seed) for name, seed, _ in networks_of_pair] == expected
        assert asked == [
            ("load", name, CPU) if seed == 0 else ("trained", name, seed, tmp_path, CPU) for name, seed in expected
        ]
        assert [model.number for *_, model in networks_of_pair] == list(range(1, len(expected) + 1))
        assert all(model.card == cards[name] for name, _, model in networks_of_pair)


def test_scenes_to_be_searched(monkeypatch):
    monkeypatch.setattr(P, "SCENES", 3)
    actual, drawn = P.load_images("scenes", CPU), scenes(3, P.SEED, size=128, scale=(1 / 8, 1 / 4))
    torch.testing.assert_close(actual.x, (drawn.images - 0.5) / 0.25)
    assert actual.labels.equal(drawn.labels[:, 0])
    assert actual.boxes.equal(drawn.boxes[:, 0])
    assert P.REACH["scenes"] == 0.5  # 64 of 128 pixels
    assert P.SEED > 10_000 + 1  # no test scenes


def test_photographs_to_be_searched(monkeypatch):
    images = whole_numbers(256, 2, 3, 64, 64).byte()
    boxes = torch.tensor([[0.0, 0, 64, 64], [3, 4, 20, 30]])
    asked = []

    def tiny_imagenet(split, classes):
        asked.append((split, classes))
        return Photos(images, torch.tensor([7, 3]), boxes, (), ())

    monkeypatch.setattr(P, "tiny_imagenet", tiny_imagenet)
    actual = P.load_images("photos", CPU)
    assert asked == [("val", P.RECIPES["photos-disc"].classes)]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(actual.x, (images / 255 - mean) / std)
    assert actual.labels.tolist() == [7, 3]
    assert actual.boxes.equal(boxes)


@pytest.mark.parametrize("module", [R, S])
def test_what_was_measured_is_not_measured_again(monkeypatch, tmp_path, capsys, module):
    fake_world(monkeypatch, module, lambda name, seed: (name, seed))
    asked = []

    def measured(model, images, kind, *seed):
        asked.append(model)
        if len(asked) == 3:
            raise RunError("killed")
        return {"number": len(asked), "none": math.nan}

    monkeypatch.setattr(module, "measured", measured)
    monkeypatch.setattr(S, "network_rows", lambda result, **what: long_table(result, "metric", table="glance", **what))
    options = ["--out", str(tmp_path), "--device", "cpu"]
    path = tmp_path / f"{module.NAME}.csv"
    assert module.main(options) == 1
    assert not path.exists()
    assert asked == [("scenes-disc", 0), ("scenes-disc", 1), ("scenes-disc", 2)]
    assert module.main(options) == 0
    expected = [(name, seed) for kind, names in P.PAIRS.items() for name in names for seed in P.SEEDS[kind]]
    assert asked == expected[:3] + expected[2:]
    record = read_back(path)
    assert module.main(options) == 0
    assert len(asked) == 11
    pd.testing.assert_frame_equal(read_back(path), record)
    rows = select(record, metric="number")
    assert rows["value"].tolist() == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert list(zip(rows["network"], rows["seed"], strict=True)) == expected
    assert record[record["metric"] == "none"]["value"].isna().sum() == 10
    # Other settings, all is measured anew.
    monkeypatch.setattr(module, *(("ZOOMS", (0.5, 1.0)) if module is R else ("THRESHOLDS", (0.1, 0.2))))
    assert module.main(options) == 0
    assert asked[11:] == expected
    (tmp_path / f"{module.NAME}-photos-disc-1.json").write_text("{", encoding="utf8")
    assert module.main(options) == 1
    assert "damaged" in capsys.readouterr().err
