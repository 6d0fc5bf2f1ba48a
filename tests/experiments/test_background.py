"""The long run of chapter 5 on backgrounds: its regions, its arithmetic on small cases, and its record."""

import numpy as np
import pytest
import scipy.stats
import torch
from support.licnn import noise, tiny_network
from support.rows import assert_same_form, pick, select
from support.searched import held
from support.untouched import assert_untouched
from torch import nn

from helpers import results
from helpers.background import accuracy_under_blur
from helpers.data import scenes
from helpers.experiments import background as B
from helpers.experiments.objects import ObjectImages
from helpers.licnn import saliency_map

CPU = torch.device("cpu")


def rectangles(n, side=16):
    masks = torch.zeros(n, side, side, dtype=torch.bool)
    for k in range(n):
        masks[k, 2 : 6 + k, 3 : 9 + k % 3] = True
    return masks


def moved(region):
    """Every way of moving a region around the border."""
    height, width = region.shape
    return [region.roll((down, right), (0, 1)) for down in range(height) for right in range(width)]


# --- regions ----------------------------------------------------------------------------------------------------------


def test_regions_have_one_area_and_know_less_and_less(monkeypatch):
    monkeypatch.setattr(B, "BATCH", 2)
    model, x, masks = tiny_network(), noise(3, 3, 16, 16), rectangles(3)
    images = ObjectImages(x, torch.arange(3), masks)
    with assert_untouched(model):
        regions = B.regions(model, images)
    assert list(regions) == ["LICNN", "LICNN, moved", "the middle", "true", "true, moved"]
    maps = saliency_map(model, x)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    assert regions["LICNN"].equal((maps - low) / (high - low) >= 0.2)
    assert regions["true"].equal(masks)
    for name, region in regions.items():
        like = masks if name.startswith("true") else regions["LICNN"]
        assert region.dtype == torch.bool
        assert region.sum((1, 2)).tolist() == like.sum((1, 2)).tolist(), name
        assert not any(region.equal(part) for other, part in regions.items() if other != name), name
    assert regions["LICNN"].sum((1, 2)).min() > 16
    assert regions["LICNN"].sum((1, 2)).max() < 250
    rows, columns = (torch.arange(16) - 7.5 for _ in range(2))
    far = rows[:, None] ** 2 + columns**2
    for region in regions["the middle"]:
        assert far[region].max() <= far[~region].min()
    for name in ("LICNN", "true"):
        for region, other in zip(regions[name], regions[f"{name}, moved"], strict=True):
            assert any(other.equal(part) for part in moved(region))


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_a_network_is_measured_on_sets_of_images(monkeypatch):
    monkeypatch.setattr(B, "RADII", (1.0, 3.0))
    monkeypatch.setattr(B, "TOPS", (1, 3))
    monkeypatch.setattr(B, "BATCH", 3)
    model, x, masks = tiny_network(dtype=torch.float32), noise(7, 3, 16, 16).float(), rectangles(7)
    with torch.no_grad():
        model.fc.bias -= model(x).mean(0)  # else it says the same of all images
        order = model(x).argsort(1, descending=True)
    labels = order[torch.arange(7), torch.tensor([0, 0, 1, 0, 2, 0, 5])]
    images = ObjectImages(x, labels, masks)
    sets = {"all": torch.ones(7, dtype=torch.bool), "some": torch.tensor([1, 0, 1, 1, 0, 1, 1]).bool()}
    with assert_untouched(model):
        rows = results.frame(B.experiment_rows(model, images, sets, network="net"))
    regions = B.regions(model, images)
    hits = {name: accuracy_under_blur(model, x, labels, part, (1.0, 3.0), (1, 3)) for name, part in regions.items()}
    assert set(rows["set"]) == {"all", "some"}

    for name, chosen in sets.items():

        def check(values, name=name, chosen=chosen, **where):
            row = pick(rows, set=name, **where)
            values = [float(value) for value in values[chosen]]
            assert row["n"] == len(values) == {"all": 7, "some": 5}[name]
            assert row["value"] == pytest.approx(np.mean(values), abs=1e-9)
            assert row["error"] == pytest.approx(scipy.stats.sem(values), abs=1e-9)

        # How much of the object LICNN's region holds, not the other way round.
        covered = torch.tensor([regions["LICNN"][k][masks[k]].double().mean() for k in range(7)])
        value = pick(rows, table="covered", set=name)["value"]
        assert value == pytest.approx(covered[chosen].mean().item(), abs=1e-6)
        for region, mask in regions.items():
            check(mask.sum((1, 2)) / 256, table="area", method=region)
            for t, top in enumerate(("top-1", "top-3")):
                where = {"table": "accuracy", "method": region, "metric": top}
                check(hits[region].original[t], variant="original", **where)
                for r, radius in enumerate((1.0, 3.0)):
                    check(hits[region].outside[r, t], variant="outside", setting=radius, **where)
                    check(hits[region].inside[r, t], variant="inside", setting=radius, **where)
        for region in ("LICNN", "true"):
            whole, control = hits[region], hits[f"{region}, moved"]
            for t, top in enumerate(("top-1", "top-3")):
                for r, radius in enumerate((1.0, 3.0)):
                    where = {"method": region, "metric": top, "setting": radius}
                    check(whole.outside[r, t].double() - control.outside[r, t].double(), table="lead", **where)
                    check(whole.original[t].double() - whole.outside[r, t].double(), table="fall", **where)
    # The measurement tells something: blur changes answers.
    assert any(not part.original[0].equal(part.outside[1, 0]) for part in hits.values())


# --- photographs ------------------------------------------------------------------------------------------------------


class Judge(nn.Module):
    """Says that an image shows the class written in its first pixel."""

    def __init__(self, wrong=()):
        super().__init__()
        self.wrong = wrong

    def forward(self, x):
        answer = x[:, 0, 0, 0].long()
        lies = torch.isin(answer, torch.tensor(self.wrong, dtype=torch.long))
        return nn.functional.one_hot(torch.where(lies, (answer + 1) % 8, answer), 8).to(x)


def test_hard_is_what_the_judge_gets_wrong(monkeypatch):
    monkeypatch.setattr(B, "BATCH", 3)
    monkeypatch.setattr(B, "JUDGES", {"a": "judge-a", "b": "judge-b"})
    y = torch.arange(8)
    x = y.float().view(8, 1, 1, 1).expand(8, 3, 16, 16).contiguous()
    masks = torch.zeros(8, 16, 16, dtype=torch.bool)
    for k, height in enumerate((2, 8, 7, 16, 5, 5, 12, 1)):  # 8 of 16 rows is not below half
        masks[k, :height] = True
    networks = {"judge-a": Judge((1, 2, 6)), "judge-b": Judge((0,)), "a": Judge(), "b": Judge()}
    images, asked, measured = ObjectImages(x, y, masks), [], {}

    def load(name, device):
        assert device == CPU
        return networks[name]

    def rows_of(model, *arguments, network):
        measured[network] = (model, *arguments)
        return [network]

    monkeypatch.setattr(B.networks, "load", load)
    monkeypatch.setattr(B, "photographs", lambda name, device: asked.append(name) or images)
    monkeypatch.setattr(B, "experiment_rows", rows_of)
    assert B.photo_rows(CPU) == asked == ["a", "b"]
    model, seen, sets = measured["a"]
    assert model is networks["a"]
    assert seen is images
    assert {name: chosen.nonzero()[:, 0].tolist() for name, chosen in sets.items()} == {
        "natural": list(range(8)),
        "hard": [1, 2, 6],
        "easy": [0, 3, 4, 5, 7],
        "natural, box below half": [0, 2, 4, 5, 7],
        "hard, box below half": [2],
    }
    assert measured["b"][2]["hard"].nonzero()[:, 0].tolist() == [0]


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_networks_of_scenes(monkeypatch, tmp_path):
    monkeypatch.setattr(B, "SCENES", 5)
    monkeypatch.setattr(B, "SEEDS", (0, 3))
    models, measured = [], []

    def network_of(name, seed, out, device):
        assert (out, device) == (tmp_path, CPU)
        models.append((name, seed))
        return models[-1]

    def rows_of(model, images, sets, network, seed):
        measured.append((model, images, (network, seed, list(sets))))
        assert [chosen.tolist() for chosen in sets.values()] == [[True] * 5]
        return [len(measured)]

    monkeypatch.setattr(B, "shipped_or_trained", network_of)
    monkeypatch.setattr(B, "experiment_rows", rows_of)
    assert B.scene_rows(tmp_path, CPU) == list(range(1, 13))
    assert models == [("scenes-gap", 0), ("scenes-gap", 3), ("scenes-biased", 0), ("scenes-biased", 3)]
    options = {"matched": {"bias": 33 / 35}, "swapped": {"bias": 33 / 35, "background_shift": 4}, "at random": {}}
    calls = iter(measured)
    for model in models:
        for ground, bias in options.items():
            used, images, named = next(calls)
            assert used == model
            assert named == (*model, [ground])
            drawn = scenes(5, B.SEED, **bias)
            torch.testing.assert_close(images.x, (drawn.images - 0.5) / 0.25)
            assert images.labels.equal(drawn.labels[:, 0])
            assert images.masks.equal(drawn.masks[:, 0])


# --- the whole record -------------------------------------------------------------------------------------------------


def test_the_record_has_the_form_of_the_published_one(monkeypatch, tmp_path):
    monkeypatch.setattr(B, "SCENES", 3)
    monkeypatch.setattr(B, "SEEDS", (0, 1))
    monkeypatch.setattr(B.networks, "load", lambda name, device: tiny_network(seed=len(name), dtype=torch.float32))
    monkeypatch.setattr(
        B, "shipped_or_trained", lambda name, seed, out, device: tiny_network(seed=seed, dtype=torch.float32)
    )
    asked = []

    def photographs(name, device):
        asked.append(name)
        return ObjectImages(noise(6, 3, 16, 16).float(), torch.arange(6), rectangles(6))

    monkeypatch.setattr(B, "photographs", photographs)
    monkeypatch.setattr(B, "held_out", lambda recipe: asked.append(recipe.name) or held(recipe))
    header, rows = B.record(tmp_path, CPU)
    assert asked == ["photos-200", "photos-200"]
    published = results.read("background").attrs
    assert header["command"] == published["command"] == "python -m helpers.experiments.background --publish"
    assert {key: sorted(header[key]) for key in ("data", "settings")} == {
        key: sorted(published[key]) for key in ("data", "settings")
    }
    assert_same_form(rows, "background")
    counts = select(rows, table="covered", network="photos-200").set_index("set")["n"]
    assert counts["natural"] == 6
    assert counts["hard"] + counts["easy"] == 6
    drawn = select(rows, table="covered", set="swapped")
    assert drawn[["network", "seed", "n"]].to_numpy().tolist() == [
        ["scenes-gap", 0, 3], ["scenes-gap", 1, 3], ["scenes-biased", 0, 3], ["scenes-biased", 1, 3],
    ]  # fmt: skip
