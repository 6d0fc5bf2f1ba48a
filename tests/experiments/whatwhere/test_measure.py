"""The record of the what/where model: training, data, maps, and what it writes."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from support.records import counted, numbers, read_back
from support.rows import assert_same_rows, pick, select
from support.searched import CPU, noise, whole_numbers
from support.untouched import assert_untouched
from torch import nn

from helpers import results
from helpers.data import Digits, digits
from helpers.experiments.run_files import RunError
from helpers.experiments.whatwhere import measure as W
from helpers.experiments.whatwhere import saccades as V
from helpers.search import WhereNet


class Killed(Exception):
    """Stands for a kill."""


def small_net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def drawn(kill=None, bad=None):
    """Three batches an epoch, others in every epoch; a kill or a NaN in the middle of one."""

    def batches(epoch):
        for step in range(3):
            if (epoch, step) == kill:
                raise Killed
            x, y = noise(4, 3, seed=100 * epoch + step), whole_numbers(2, 4, seed=100 * epoch + step)
            yield (x * math.nan if (epoch, step) == bad else x), y

    return batches


def run(model, path, batches=None, epochs=4, steps=3):
    return W.train(model, batches or drawn(), F.cross_entropy, epochs, steps, path, CPU)


def same(model, other):
    a, b = model.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


def test_training_is_adam_along_half_a_cosine(tmp_path):
    model, expected = small_net().eval(), small_net()  # it is trained as in training
    losses = run(model, tmp_path / "a.pt")
    optimiser = torch.optim.Adam(expected.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 12)
    for epoch in range(4):
        spent = []
        for x, y in drawn()(epoch):
            optimiser.zero_grad()
            loss = F.cross_entropy(expected(x), y)
            loss.backward()
            optimiser.step()
            schedule.step()
            spent.append(loss.item())
        assert losses[epoch] == pytest.approx(np.mean(spent), rel=1e-5)
    assert len(losses) == 4
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-4, atol=1e-6)
    assert not model.training


@pytest.mark.parametrize("kill", [(2, 1), (3, 2)])
def test_a_killed_training_ends_with_the_same_weights(tmp_path, kill):
    whole, killed, path = small_net(), small_net(), tmp_path / "b.pt"
    losses = run(whole, tmp_path / "a.pt")
    with pytest.raises(Killed):
        run(killed, path, drawn(kill))
    assert len(torch.load(path, weights_only=True)["losses"]) == kill[0]
    torch.manual_seed(99)
    other = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    assert run(other, path) == losses
    assert same(other, whole)
    assert not other.training
    done = small_net()
    assert run(done, path, drawn((0, 0))) == losses  # nothing is left to do
    assert same(done, whole)
    assert not done.training


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    run(small_net(), path)
    state = torch.load(path, weights_only=True)
    for key in state:
        torch.save({k: v for k, v in state.items() if k != key}, path)
        with pytest.raises(RunError, match=r"a\.pt is damaged"):
            run(small_net(), path)
    path.write_bytes(b"nothing")
    with pytest.raises(RunError, match="damaged"):
        run(small_net(), path)


def test_checkpoints_of_other_trainings_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    run(small_net(), path)
    before = path.read_bytes()
    for epochs, steps in ((5, 3), (3, 3), (4, 2), (3, 4)):
        with pytest.raises(RunError, match="other settings"):
            run(small_net(), path, epochs=epochs, steps=steps)
    with pytest.raises(RunError):
        run(nn.Linear(3, 2), path)
    assert path.read_bytes() == before


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_epoch(tmp_path):
    path, whole = tmp_path / "a.pt", small_net()
    with pytest.raises(RunError, match=r"nan in epoch 3: the last checkpoint is kept"):
        run(small_net(), path, drawn(bad=(2, 1)))
    state = torch.load(path, weights_only=True)
    assert len(state["losses"]) == 2
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    losses = run(whole, tmp_path / "b.pt")
    again = small_net()
    assert run(again, path) == losses
    assert same(again, whole)
    with pytest.raises(RunError, match=r"became (inf|nan) in epoch 1"):
        W.train(small_net(), drawn(), lambda x, y: x.sum() * math.inf + math.inf, 1, 3, tmp_path / "c.pt", CPU)
    assert not (tmp_path / "c.pt").exists()


def numbered(n):
    """Images full of their own number, which is the label too."""
    number = torch.arange(n)
    return Digits((number / n).view(n, 1, 1, 1).expand(n, 1, 28, 28).contiguous(), number, -torch.ones(n).long())


def test_digits_shift_ever_farther(monkeypatch):
    monkeypatch.setattr(W, "PART", 200)
    asked = []

    def noisy_displays(images, seed, places, size):
        assert size == 28
        asked.append((seed, places))
        return SimpleNamespace(images=images)

    monkeypatch.setattr(W, "noisy_displays", noisy_displays)
    some_digits = numbered(500)
    batches = W.what_batches(some_digits, 4, 1)
    spreads = []
    for epoch in range(4):
        asked.clear()
        x, y = zip(*batches(epoch), strict=True)
        assert [len(part) for part in x] == [100] * 5
        assert (torch.cat(x) + 0.5)[:, 0, 0, 0].mul(500).round().long().equal(torch.cat(y))  # labels go with them
        assert torch.cat(y).sort().values.tolist() == list(range(500))
        assert not torch.cat(y).equal(torch.arange(500))
        assert [len(places) for _, places in asked] == [200, 200, 100]
        assert len({seed for seed, _ in asked}) == 3
        shifts = torch.cat([places for _, places in asked])
        assert shifts.dtype == torch.int64
        assert shifts.abs().max() <= 27
        spreads.append(shifts.double().std(0))
    assert spreads[0].tolist() == [0, 0]
    for epoch, spread in enumerate(spreads):  # 5, 10 and 15 pixels, the last of them cut at 27
        assert spread.tolist() == pytest.approx([5 * epoch] * 2, rel=0.12)
    assert shifts.double().mean(0).abs().max() < 2
    assert (shifts.abs() == 27).any()
    asked.clear()
    list(W.what_batches(some_digits, 1, 1)(0))  # a single epoch does not divide by 0
    assert not any(places.any() for _, places in asked)


def test_the_same_seed_gives_the_same_windows():
    some_digits = digits(12, 5)
    first, again = (W.what_batches(some_digits, 3, 4) for _ in range(2))
    (x, y), (same_x, same_y) = (next(windows(2)) for windows in (first, again))
    assert x.equal(same_x)
    assert y.equal(same_y)
    assert -0.5 <= x.min() < -0.2
    assert 0.2 < x.max() <= 0.5
    other, elsewhere = next(first(1)), next(W.what_batches(some_digits, 3, 5)(2))
    for windows, labels in (other, elsewhere):
        ordered = [
            torch.stack([images[k] for k in said.argsort(stable=True)]) for images, said in ((x, y), (windows, labels))
        ]
        assert not ordered[0].equal(ordered[1])
        # Not only the digits': every pixel's noise.
        assert ((ordered[0] - ordered[1]).abs() > 1e-3).float().mean() > 0.8


def test_targets_belong_to_their_views(monkeypatch):
    monkeypatch.setattr(W, "PART", 4)
    monkeypatch.setattr(W, "BATCH", 3)
    seeds, accuracy = [], torch.rand(3, 3)

    def noisy_displays(images, seed):
        seeds.append(seed)
        return SimpleNamespace(images=images, places=(images[:, 0, 0, :2] * 10).round().long() * torch.tensor([1, -1]))

    def collicular_target(map_of_accuracy, places):
        assert map_of_accuracy is accuracy
        return places.float()

    monkeypatch.setattr(W, "noisy_displays", noisy_displays)
    monkeypatch.setattr(W, "dorsal_view", lambda x: x[:, None, :, :2, :2])
    monkeypatch.setattr(W, "collicular_target", collicular_target)
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        parts = list(W.where_batches(numbered(10), accuracy, seed)(epoch))
        assert [len(views) for views, _ in parts] == [3, 1, 3, 1, 2]
        for views, targets in parts:
            assert views.shape[1:] == (1, 2, 2)
            torch.testing.assert_close((views[:, 0, 0] + 0.5) * 10 * torch.tensor([1.0, -1.0]), targets)
        orders.append(torch.cat([targets[:, 0] for _, targets in parts]).tolist())
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] == orders[3] != orders[1]
    assert orders[0] != orders[2]
    assert len(set(seeds)) == 9  # of 12, the last three again


class Side(nn.Module):
    """Right, that is 1, when what it sees is brighter on one side; else 0."""

    def __init__(self, dim, first):
        super().__init__()
        self.dim, self.first = dim, first

    def forward(self, x):
        first, last = (part.clamp(min=0.05).mean((1, 2, 3)) for part in x.chunk(2, self.dim))
        more = first > last + 1e-4 if self.first else last > first + 1e-4
        return 5.0 * F.one_hot(more.long(), 2)


@pytest.mark.parametrize(("dim", "first"), [(3, False), (2, True)])
def test_an_accuracy_map_tells_where_the_gaze_lies_from_the_digit(monkeypatch, dim, first):
    real, asked = V.noisy_displays, []

    def quiet(images, seed, places):
        asked.append((seed, places))
        return real(images, seed, places=places, noise=0.0, contrast=1.0)

    monkeypatch.setattr(W, "noisy_displays", quiet)
    monkeypatch.setattr(W, "REACH_PX", 6)
    image = torch.zeros(2, 1, 28, 28)
    image[:, :, 10:18, 10:18] = 1
    bright = Digits(image, torch.ones(2).long(), torch.zeros(2).long())
    what = Side(dim, first)
    with assert_untouched(what):
        accuracy = W.measured_map(what, bright, 8, CPU)
    assert accuracy.shape == (13, 13)
    assert accuracy.dtype == torch.float32
    assert asked[0][0] == 8
    assert not asked[0][1].any()  # the digits lie in the middle
    # A digit to the right of the gaze: the gaze lies to its left, in the columns before the middle one.
    expected = torch.zeros(13, 13)
    lines = slice(7, None) if first else slice(0, 6)
    if dim == 3:
        expected[:, lines] = 1
    else:
        expected[lines] = 1
    assert accuracy.equal(expected)


def test_profiles_by_hand(monkeypatch):
    monkeypatch.setattr(W, "REACH_PX", 2)
    accuracy = torch.arange(25).view(5, 5) / 25
    # 1 pixel away: 6, 7, 8, 11, 13, 16, 17, 18 (sqrt 2 rounds to 1); 2: the border but for its corners (sqrt 5).
    accuracy[2, 2], accuracy[0, 1] = 0.9, 1.0
    border = [25, 2, 3, 5, 9, 10, 14, 15, 19, 21, 22, 23]
    assert W.profile(accuracy) == pytest.approx([0.9, 96 / 8 / 25, sum(border) / 12 / 25])


@pytest.fixture
def small_model(monkeypatch):
    values = {
        "WHAT_EPOCHS": 2, "WHERE_EPOCHS": 1, "BATCH": 10, "REACH_PX": 3, "MAP_DIGITS": 3, "ECCENTRICITIES_PX": (0, 8),
        "CONTRASTS": (0.7, 0.5), "TESTED": 3,
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(W, name, value)
    for name, value in {"TESTED": 3, "SACCADES": 1}.items():
        monkeypatch.setattr(V, name, value)
    sets = {"train": digits(24, 1), "test": digits(8, 2)}
    monkeypatch.setattr(W, "mnist", sets.__getitem__)
    monkeypatch.setattr(W, "WhereNet", lambda: WhereNet(8))
    return sets


def test_the_record_of_the_what_where_model(monkeypatch, small_model, tmp_path):
    maps, steps, models = [], [], []
    real_map, real_train, real_measured, real_record = W.measured_map, W.train, W.measured, W.record

    def measured_map(what, some_digits, seed, device):
        maps.append((some_digits, seed))
        assert not what.training
        return real_map(what, some_digits, seed, device)

    def train(model, batches, loss, epochs, count, *rest):
        steps.append((epochs, count, rest[0].name))
        return real_train(model, batches, loss, epochs, count, *rest)

    def measured(*arguments):
        models.append(real_measured(*arguments))
        return models[-1]

    monkeypatch.setattr(W, "measured_map", measured_map)
    monkeypatch.setattr(W, "train", train)
    monkeypatch.setattr(W, "measured", measured)
    monkeypatch.setattr(W, "record", lambda out, device: real_record(out, device, (0, 1)))
    out = tmp_path / "runs"
    assert W.main(["--out", str(out), "--device", "cpu"]) == 0
    record = read_back(out / "whatwhere.csv")
    assert_same_rows(record, results.read("whatwhere"), ways=("table", "variant", "method", "metric"))
    settings = record.attrs["settings"]
    assert settings["epochs"] == {"what": 2, "where": 1, "published what": 75, "published where": 60}
    assert settings["eccentricities (px)"] == [0, 8]
    assert settings["contrasts"] == [0.7, 0.5]
    assert settings["displays"] == 3
    assert record.attrs["published"] == W.PUBLISHED
    assert record.attrs["seeds"] == [0, 1]
    # 24 digits are 3 batches, the last one of 4.
    names = [f"{part}-{seed}.pt" for seed in (0, 1) for part in ("what", "where")]
    assert steps == [(2, 3, names[0]), (1, 3, names[1]), (2, 3, names[2]), (1, 3, names[3])]
    assert {path.name for path in out.iterdir()} == {*names, "whatwhere.csv"}
    train_set, test_set = small_model["train"], small_model["test"]
    for (learned, first), (reported, second) in zip(maps[::2], maps[1::2], strict=True):
        assert learned.images.equal(train_set.images[12:15])
        assert learned.labels.equal(train_set.labels[12:15])
        assert reported.images.equal(test_set.images[:3])
        assert reported.labels.equal(test_set.labels[:3])
        assert first != second
    for model in models:
        rows = select(record, seed=model["seed"])
        profile = select(rows, table="profile", metric="accuracy")["value"]
        assert profile.tolist() == pytest.approx(W.profile(torch.tensor(model["accuracy map"])))
        first = select(rows, table="curves", variant="always", set="contrast 0.7", metric="distance (px)", step=0)
        assert first["value"].tolist() == pytest.approx([0, 8], abs=0.8)
        assert set(select(rows, variant="always", metric="moved")["value"]) == {1}
        assert (select(rows, table="seconds")["value"] > 0).all()
    assert models[0]["what loss"] != models[1]["what loss"]
    # Another call reads the finished networks and measures the same again.
    assert W.main(["--out", str(out), "--device", "cpu"]) == 0
    before, after = (table[table["table"] != "seconds"] for table in (record, read_back(out / "whatwhere.csv")))
    pd.testing.assert_frame_equal(before, after)


def test_every_number_comes_into_its_own_row():
    draw = iter(range(1, 1000))

    def some(*shape):
        return [some(*shape[1:]) for _ in range(shape[0])] if shape else float(next(draw))

    def curves():
        return {
            str(contrast): [{"alone": some(4), "moved": some()} for _ in W.ECCENTRICITIES_PX]
            for contrast in W.CONTRASTS
        }

    result = {
        "what loss": some(2), "where loss": some(1), "accuracy map": some(3, 2), "profile": some(4),
        "mean over the map": some(), "blur of the lightest spot (px)": {"0.7": some(), "0.5": some()},
        "curves": {"always": curves(), "cautious": curves()},
        "scan": {"0.7": {"saccade": some(), "seconds a display": {"scan": some(), "saccade": some()}}},
    }  # fmt: skip
    rows = W.rows({"seed": 6, **result})
    assert counted(rows) == Counter(numbers(result))
    assert {row["seed"] for row in rows} == {6}
    assert pick(rows, table="accuracy map", y=2, x=1)["value"] == result["accuracy map"][2][1]
    assert pick(rows, table="losses", method="where", step=1)["value"] == result["where loss"][0]
    third = {"table": "curves", "variant": "cautious", "set": "contrast 0.5", "setting": W.ECCENTRICITIES_PX[2]}
    expected = result["curves"]["cautious"]["0.5"][2]
    assert pick(rows, metric="alone", step=3, **third)["value"] == expected["alone"][3]
    assert pick(rows, metric="moved", **third)["value"] == expected["moved"]
    scan = result["scan"]["0.7"]
    assert pick(rows, table="scan", method="saccade")["value"] == scan["saccade"]
    assert pick(rows, table="seconds", method="saccade")["value"] == scan["seconds a display"]["saccade"]
    assert pick(rows, table="blurs", set="contrast 0.5")["value"] == result["blur of the lightest spot (px)"]["0.5"]


def test_the_record_is_of_all_three_seeds(monkeypatch, small_model, tmp_path):
    monkeypatch.setattr(W, "measured", lambda seed, *rest: {"seed": seed})
    monkeypatch.setattr(W, "rows", lambda result: [{"table": "losses", "seed": result["seed"], "value": 0.5}])
    record = W.record(tmp_path, CPU)
    assert record.header["seeds"] == [row["seed"] for row in record.rows] == [0, 1, 2]
    assert [len(digest) for digest in record.header["data"].values()] == [64]
