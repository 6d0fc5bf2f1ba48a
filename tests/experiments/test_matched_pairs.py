"""The matched pairs of chapters 6 and 7: their networks, their images."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from support.records import read_back
from support.rows import select
from support.searched import CPU, fake_world, whole_numbers

from helpers import networks, results
from helpers.data import Photos, scenes
from helpers.experiments import matched_pairs as P
from helpers.experiments import retina as R
from helpers.experiments.environment import tensors_hash
from helpers.experiments.run_files import RunError
from helpers.experiments.search import measure as S
from helpers.experiments.train.run import CHECKPOINT, run_folder
from helpers.results import long_table


@pytest.fixture
def few_scenes(monkeypatch):
    """Three scenes of a seed, and a network's measurement that says what it was given."""
    monkeypatch.setattr(P, "SCENES", 3)
    return P.load_images("scenes", CPU)


def measured_pairs(monkeypatch, images, out, **settings):
    """What `by_network` gives of the scenes' pair, and what was loaded for it."""
    loaded = []

    def network_of(name, seed, runs, device):
        loaded.append((name, seed))
        checkpoint = run_folder(runs, name, seed) / CHECKPOINT
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        if seed and not checkpoint.exists():
            checkpoint.write_bytes(b"weights")
        return (name, seed, runs, device)

    monkeypatch.setattr(P, "shipped_or_trained", network_of)
    parts = P.by_network("toy", "scenes", images, lambda model, seed: {"of": [*model[:2], seed]}, settings, out, CPU)
    return parts, loaded


def test_a_network_is_loaded_only_where_it_is_not_measured(monkeypatch, tmp_path, few_scenes):
    everyone = [(name, seed) for name in ("scenes-disc", "scenes-logpolar") for seed in (0, 1, 2)]
    parts, loaded = measured_pairs(monkeypatch, few_scenes, tmp_path)
    assert parts == {name: {str(s): {"of": [name, s, s]} for s in (0, 1, 2)} for name in P.PAIRS["scenes"]}
    assert loaded == everyone
    assert measured_pairs(monkeypatch, few_scenes, tmp_path) == (parts, [])

    # Anything that a number depends on, and it is measured anew; what does not hang on it is not.
    run_folder(tmp_path, "scenes-disc", 2).joinpath(CHECKPOINT).write_bytes(b"other weights")
    assert measured_pairs(monkeypatch, few_scenes, tmp_path)[1] == [("scenes-disc", 2)]
    shipped, cards = networks.card("scenes-logpolar"), networks.card
    other = replace(shipped, sha256="0" * 64)
    monkeypatch.setattr(networks, "card", lambda name: other if name == shipped.name else cards(name))
    assert measured_pairs(monkeypatch, few_scenes, tmp_path)[1] == [("scenes-logpolar", 0)]
    monkeypatch.setattr(P, "code_hash", lambda: "other code")
    assert measured_pairs(monkeypatch, few_scenes, tmp_path)[1] == everyone
    for change in ("x", "labels", "boxes"):
        images = few_scenes._replace(**{change: getattr(few_scenes, change) + 1})
        assert measured_pairs(monkeypatch, images, tmp_path)[1] == everyone, change
    assert measured_pairs(monkeypatch, few_scenes, tmp_path, sizes=2)[1] == everyone
    assert measured_pairs(monkeypatch, few_scenes, tmp_path, sizes=2)[1] == []


def test_a_header_tells_the_images_that_were_measured(monkeypatch):
    monkeypatch.setattr(P, "SCENES", 3)
    photos = Photos(whole_numbers(256, 2, 3, 64, 64).byte(), torch.tensor([7, 3]), torch.zeros(2, 4), (), ())
    monkeypatch.setattr(P, "tiny_imagenet", lambda split, classes: photos)
    about = P.pair_header("toy", CPU, {"sizes": [1]})
    drawn = scenes(3, P.SEED, size=128, scale=(1 / 8, 1 / 4))
    pictures = (drawn.images * 255).round().byte()
    expected = {"scenes": (pictures, drawn.labels[:, 0]), "photos": (photos.images, photos.labels)}
    for kind, parts in expected.items():
        content = b"".join(part.contiguous().numpy().tobytes() for part in parts)
        assert about["data"][kind] == hashlib.sha256(content).hexdigest()
    assert about["settings"] == {"sizes": [1], "seed of the scenes": P.SEED}
    assert about["seeds"] == {"scenes": [0, 1, 2], "photos": [0, 1]}


@pytest.mark.parametrize("kind", ["scenes", "photos"])
def test_the_records_are_of_the_images_that_the_code_draws_or_loads(kind, request, monkeypatch):
    if kind == "photos":
        monkeypatch.setenv("HELPERS_DATA", str(request.getfixturevalue("real_data")))
    stored = P.stored_images(kind)
    for name in (R.NAME, S.NAME):
        header = results.read(name).attrs
        assert header["data"][kind] == tensors_hash([stored.x, stored.labels]), name
        assert header["settings"]["seed of the scenes"] == P.SEED, name


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
