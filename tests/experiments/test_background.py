"""The long run of chapter 5 on backgrounds: its regions, its arithmetic on small cases, and its record."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from support.untouched import assert_untouched
from torch import nn

from helpers.background import BlurHits, accuracy_under_blur
from helpers.data import BACKGROUNDS, scenes
from helpers.experiments import background as B
from helpers.experiments.report import _plain
from helpers.experiments.train.datasets import DataSplit, LabeledImages
from helpers.licnn import saliency_map
from helpers.networks import SmallVGG

CPU = torch.device("cpu")


def noise(*shape, seed=0, kind=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(kind)


def tiny(seed=0, kind=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallVGG(8, stages=((4,), (6,))).to(kind).eval()


def rectangles(n, side=16):
    found = torch.zeros(n, side, side, dtype=torch.bool)
    for k in range(n):
        found[k, 2 : 6 + k, 3 : 9 + k % 3] = True
    return found


def moved(region):
    """Every way of moving a region around the border."""
    height, width = region.shape
    return [region.roll((down, right), (0, 1)) for down in range(height) for right in range(width)]


# --- regions ----------------------------------------------------------------------------------------------------------


def test_regions_have_one_area_and_know_less_and_less(monkeypatch):
    monkeypatch.setattr(B, "BATCH", 2)
    model, x, truth = tiny(kind=torch.float64), noise(3, 3, 16, 16), rectangles(3)
    with assert_untouched(model):
        found = B.regions(model, x, truth)
    assert list(found) == [
        "LICNN", "LICNN, moved", "the middle", "true", "true, moved",
    ]  # fmt: skip
    maps = saliency_map(model, x)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    assert found["LICNN"].equal((maps - low) / (high - low) >= 0.2)
    assert found["true"].equal(truth)
    for name, region in found.items():
        like = truth if name.startswith("true") else found["LICNN"]
        assert region.dtype == torch.bool
        assert region.sum((1, 2)).tolist() == like.sum((1, 2)).tolist(), name
        others = [one for other, one in found.items() if other != name]
        assert not any(region.equal(other) for other in others), name
    assert found["LICNN"].sum((1, 2)).min() > 16
    assert found["LICNN"].sum((1, 2)).max() < 250
    rows, columns = (torch.arange(16) - 7.5 for _ in range(2))
    far = rows[:, None] ** 2 + columns**2
    for region in found["the middle"]:
        assert far[region].max() <= far[~region].min()
    for name in ("LICNN", "true"):
        for region, other in zip(found[name], found[f"{name}, moved"], strict=True):
            assert any(other.equal(one) for one in moved(region))
    again = B.regions(model, x, truth)
    assert all(found[name].equal(again[name]) for name in found)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def crafted():
    """Hits of five images: three radii, two tops."""
    original = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 0]]).bool()
    outside = torch.tensor([
        [[1, 0, 0, 1, 0], [1, 1, 1, 1, 0]],
        [[1, 0, 0, 0, 0], [1, 0, 1, 0, 0]],
        [[0, 0, 0, 0, 1], [1, 0, 0, 0, 1]],
    ]).bool()  # fmt: skip
    inside = torch.tensor([
        [[0, 1, 0, 0, 0], [1, 1, 0, 1, 0]],
        [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0]],
        [[0, 0, 0, 1, 0], [0, 0, 0, 1, 1]],
    ]).bool()  # fmt: skip
    return BlurHits(original, outside, inside)


ALL = torch.ones(5, dtype=torch.bool)
FIRST_FOUR = torch.tensor([True, True, True, True, False])


def test_accuracies_by_hand():
    found = B.accuracies(crafted(), FIRST_FOUR)
    assert list(found) == ["original", "outside", "inside"]
    # Three of four: squares of the differences to 0.75 add up to 0.75, so that the error is sqrt(0.75 / 3 / 4).
    assert found["original"]["1"] == {"mean": 0.75, "error": pytest.approx(0.25)}
    assert found["original"]["5"] == {"mean": 1, "error": 0}
    assert list(found["outside"]) == list(found["inside"]) == ["2.0", "5.0", "10.0"]
    outside, inside = ([[row[t]["mean"] for t in ("1", "5")] for row in found[k].values()] for k in list(found)[1:])
    assert outside == [[0.5, 1], [0.25, 0.5], [0, 0.25]]
    assert inside == [[0.25, 0.75], [0, 0.25], [0.25, 0.25]]
    whole = B.accuracies(crafted(), ALL)
    assert whole["original"]["1"]["mean"] == pytest.approx(0.6)
    assert whole["outside"]["10.0"]["5"]["mean"] == pytest.approx(0.4)
    none = B.accuracies(crafted(), ~ALL)
    assert math.isnan(none["inside"]["2.0"]["1"]["mean"])


def test_differences_by_hand():
    hits, control = crafted(), crafted()
    control = control._replace(outside=control.inside, inside=control.outside, original=~control.original)
    found = B.differences(hits, control, FIRST_FOUR)
    # Radius 2, top 1: 1 - 0, 0 - 1, 0, 1 - 0 = 1, -1, 0, 1: mean 1/4, squares of the differences 2.75, / 3 / 4.
    assert found["2.0"]["1"] == {"mean": 0.25, "error": pytest.approx(math.sqrt(2.75 / 12))}
    means = [[one["mean"] for one in row.values()] for row in found.values()]
    assert means == [[0.25, 0.25], [0.25, 0.25], [-0.25, 0]]
    assert list(found) == ["2.0", "5.0", "10.0"]
    assert list(found["5.0"]) == ["1", "5"]
    assert B.differences(hits, control, ALL)["10.0"]["1"]["mean"] == pytest.approx(0)  # -1 and 1: the last one's


def test_a_network_is_measured_on_sets_of_images(monkeypatch):
    monkeypatch.setattr(B, "RADII", (1.0, 3.0))
    monkeypatch.setattr(B, "TOPS", (1, 3))
    monkeypatch.setattr(B, "BATCH", 3)
    model, x, truth = tiny(), noise(7, 3, 16, 16, kind=torch.float32), rectangles(7)
    with torch.no_grad():
        model.fc.bias -= model(x).mean(0)  # else it says the same of all images
        order = model(x).argsort(1, descending=True)
    y = order[torch.arange(7), torch.tensor([0, 0, 1, 0, 2, 0, 5])]
    sets = {"all": torch.ones(7, dtype=torch.bool), "some": torch.tensor([1, 0, 1, 1, 0, 1, 1]).bool()}
    with assert_untouched(model):
        found = B.measured(model, x, y, truth, sets)
    regions = B.regions(model, x, truth)
    hits = {name: accuracy_under_blur(model, x, y, one, (1.0, 3.0), (1, 3)) for name, one in regions.items()}
    assert list(found) == ["all", "some"]
    assert [row["images"] for row in found.values()] == [7, 5]

    def check(given, values, chosen):
        values = [float(value) for value, kept in zip(values.tolist(), chosen.tolist(), strict=True) if kept]
        assert given["mean"] == pytest.approx(np.mean(values), abs=1e-9)
        assert given["error"] == pytest.approx(scipy.stats.sem(values), abs=1e-9)

    for key, chosen in sets.items():
        row = found[key]
        assert list(row) == [
            "images", "covered", "area", "accuracy", "more than moved", "lost",
        ]  # fmt: skip
        # How much of the object LICNN's region holds, not the other way round.
        covered = torch.tensor([regions["LICNN"][k][truth[k]].double().mean() for k in range(7)])
        assert row["covered"]["mean"] == pytest.approx(covered[chosen].mean().item(), abs=1e-6)
        assert list(row["area"]) == list(row["accuracy"]) == list(regions)
        for name, region in regions.items():
            check(row["area"][name], region.sum((1, 2)) / 256, chosen)
        assert list(row["more than moved"]) == list(row["lost"]) == ["LICNN", "true"]
        for name, one in hits.items():
            for t, top in enumerate(("1", "3")):
                check(row["accuracy"][name]["original"][top], one.original[t], chosen)
                for r, radius in enumerate(("1.0", "3.0")):
                    check(row["accuracy"][name]["outside"][radius][top], one.outside[r, t], chosen)
                    check(row["accuracy"][name]["inside"][radius][top], one.inside[r, t], chosen)
        for name in ("LICNN", "true"):
            for t, top in enumerate(("1", "3")):
                for r, radius in enumerate(("1.0", "3.0")):
                    one, control = hits[name], hits[f"{name}, moved"]
                    more = one.outside[r, t].double() - control.outside[r, t].double()
                    check(row["more than moved"][name][radius][top], more, chosen)
                    lost = one.original[t].double() - one.outside[r, t].double()
                    check(row["lost"][name][radius][top], lost, chosen)
    json.dumps(found, allow_nan=False)
    # The measurement tells something: blur changes answers.
    assert any(not one.original[0].equal(one.outside[1, 0]) for one in hits.values())


# --- photographs ------------------------------------------------------------------------------------------------------


class Judge(nn.Module):
    """Says that an image shows the class written in its first pixel."""

    def __init__(self, wrong=()):
        super().__init__()
        self.wrong = wrong

    def forward(self, x):
        said = x[:, 0, 0, 0].long()
        said = torch.where(torch.isin(said, torch.tensor(self.wrong, dtype=torch.long)), (said + 1) % 8, said)
        return nn.functional.one_hot(said, 8).to(x)


def test_hard_is_what_the_judge_gets_wrong(monkeypatch):
    monkeypatch.setattr(B, "BATCH", 3)
    monkeypatch.setattr(B, "JUDGES", {"a": "judge-a", "b": "judge-b"})
    y = torch.arange(8)
    x = y.float().view(8, 1, 1, 1).expand(8, 3, 16, 16).contiguous()
    truth = torch.zeros(8, 16, 16, dtype=torch.bool)
    for k, rows in enumerate((2, 8, 7, 16, 5, 5, 12, 1)):  # 8 of 16 rows is not below half
        truth[k, :rows] = True
    made = {"judge-a": Judge((1, 2, 6)), "judge-b": Judge((0,)), "a": Judge(), "b": Judge()}
    asked, given = [], {}

    def load(name, device):
        assert device == CPU
        return made[name]

    monkeypatch.setattr(B.networks, "load", load)
    monkeypatch.setattr(B, "photographs", lambda name, device: asked.append(name) or (x, y, truth))
    monkeypatch.setattr(B, "measured", lambda model, *rest: given.setdefault(id(model), rest) and len(given))
    assert list(B.on_photographs(CPU)) == asked == ["a", "b"]
    images, labels, masks, sets = given[id(made["a"])]
    assert images.equal(x)
    assert labels.equal(y)
    assert masks.equal(truth)
    chosen = {name: one.nonzero()[:, 0].tolist() for name, one in sets.items()}
    assert chosen == {
        "natural": list(range(8)),
        "hard": [1, 2, 6],
        "easy": [0, 3, 4, 5, 7],
        "natural, box below half": [0, 2, 4, 5, 7],
        "hard, box below half": [2],
    }
    images, labels, masks, sets = given[id(made["b"])]
    assert labels.equal(y)
    assert sets["hard"].nonzero()[:, 0].tolist() == [0]


def test_the_judges_are_not_the_judged():
    assert B.JUDGES == {"photos-200": "photos-200-gmp"}
    for name, judge in B.JUDGES.items():
        one, other = (B.RECIPES[key] for key in (name, judge))
        # Both see the same images, and know the same classes.
        assert (one.mean, one.std, one.classes, one.view) == (other.mean, other.std, other.classes, other.view)


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_three_kinds_of_backgrounds():
    found = {name: scenes(240, B.SEED, **options) for name, options in B.GROUNDS.items()}
    assert list(found) == ["matched", "swapped", "at random"]
    labels = found["matched"].labels[:, 0]
    assert len(BACKGROUNDS) == 8
    tied = {name: (one.backgrounds == labels).double().mean().item() for name, one in found.items()}
    assert tied["matched"] == pytest.approx(0.95, abs=0.05)
    assert tied["swapped"] < 0.05
    assert tied["at random"] == pytest.approx(1 / 8, abs=0.08)
    other = (found["swapped"].backgrounds == (labels + 4) % 8).double().mean().item()
    assert other == pytest.approx(tied["matched"])
    assert found["swapped"].masks.equal(found["matched"].masks)  # the same objects elsewhere


def test_networks_of_scenes(monkeypatch, tmp_path):
    monkeypatch.setattr(B, "SCENES", 5)
    monkeypatch.setattr(B, "SEEDS", (0, 3))
    made, given = [], []

    def load(name, device):
        made.append((name, "shipped"))
        return made[-1]

    def trained(name, seed, out, device):
        assert (out, device) == (tmp_path, CPU)
        made.append((name, seed))
        return made[-1]

    def measured(model, x, y, truth, sets):
        given.append((model, x, y, truth))
        assert list(sets) == ["all"]
        assert sets["all"].tolist() == [True] * 5
        return {"all": {"number": len(given)}}

    monkeypatch.setattr(B.networks, "load", load)
    monkeypatch.setattr(B, "trained", trained)
    monkeypatch.setattr(B, "measured", measured)
    rows = B.on_scenes(tmp_path, CPU)
    assert [(row["network"], row["seed"]) for row in rows] == [
        ("scenes-gap", 0), ("scenes-gap", 3), ("scenes-biased", 0), ("scenes-biased", 3),
    ]  # fmt: skip
    assert made == [("scenes-gap", "shipped"), ("scenes-gap", 3), ("scenes-biased", "shipped"), ("scenes-biased", 3)]
    numbers = iter(range(1, 13))
    for row in rows:
        assert row["grounds"] == {name: {"number": next(numbers)} for name in ("matched", "swapped", "at random")}
    options = [{"bias": 33 / 35}, {"bias": 33 / 35, "background_shift": 4}, {}] * 4
    for (model, x, y, truth), option, network in zip(given, options, [m for m in made for _ in range(3)], strict=True):
        found = scenes(5, B.SEED, **option)
        assert model == network
        torch.testing.assert_close(x, (found.images - 0.5) / 0.25)
        assert y.equal(found.labels[:, 0])
        assert truth.equal(found.masks[:, 0])


# --- the whole record -------------------------------------------------------------------------------------------------


def test_the_whole_record(monkeypatch, tmp_path):
    for name, value in {
        "SCENES": 3, "SEEDS": (0, 1), "RADII": (2.0,),
    }.items():  # fmt: skip
        monkeypatch.setattr(B, name, value)
    monkeypatch.setattr(B.networks, "load", lambda name, device: tiny(len(name)))
    monkeypatch.setattr(B, "trained", lambda name, seed, out, device: tiny(seed))
    asked = []

    def photographs(name, device):
        asked.append(name)
        return noise(6, 3, 16, 16, kind=torch.float32), torch.arange(6), rectangles(6)

    test = LabeledImages(torch.zeros(2, 3, 2, 2).byte(), torch.arange(2))
    monkeypatch.setattr(B, "photographs", photographs)
    monkeypatch.setattr(
        B, "held_out", lambda recipe: asked.append(recipe.name) or DataSplit(test, {"test": test}, (), "")
    )
    found = B.record(tmp_path, CPU)
    assert asked == ["photos-200", "photos-200"]
    assert list(found) == ["name", "command", "data", "facts", "radii", "photographs", "scenes"]
    assert found["name"] == "background"
    assert found["command"] == "python -m helpers.experiments.background --publish"
    assert [len(digest) for digest in found["data"].values()] == [64]
    assert list(found["data"]) == ["Tiny ImageNet"]
    assert found["radii"] == [2.0]
    sets = found["photographs"]["photos-200"]
    assert sets["natural"]["images"] == 6
    assert sets["hard"]["images"] + sets["easy"]["images"] == 6
    assert len(found["scenes"]) == 4
    row = found["scenes"][0]["grounds"]["swapped"]
    assert row["images"] == 3
    assert list(row["accuracy"]["true"]["outside"]) == ["2.0"]
    text = json.dumps(_plain(found), allow_nan=False)
    assert json.loads(text)["scenes"][3]["seed"] == 1


def test_the_command_line_writes_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(B, "record", lambda out, device: {"out": out.name, "device": device.type})
    assert B.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "runs" / "background.json").read_text(encoding="utf8"))
    assert found == {"out": "runs", "device": "cpu"}


def test_without_the_data_the_command_line_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    assert B.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("error: Tiny ImageNet is not in")
