"""The shipped networks: loading, damaged and foreign files, cards, what images must be."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.bomb import Bomb
from torch import nn

from helpers.experiments.train.recipes import RECIPES
from helpers.networks import LeNet, WeightsError, available, card, load, normalize
from helpers.networks import _store as store

NAMES = sorted(RECIPES)


def test_every_network_is_there_and_the_table_shows_it():
    table = available()
    assert [entry.name for entry in table] == NAMES
    lines = repr(table).splitlines()
    assert len(lines) == 1 + len(NAMES)
    for entry, line in zip(table, lines[1:], strict=True):
        assert line.startswith(entry.name)
        assert f"{entry.accuracy:.1%}" in line
        assert len(line) <= 120


def test_the_weights_are_small_and_in_half_precision():
    files = list(store.FILES.glob("*.safetensors"))
    assert len(files) == len(NAMES)
    assert sum(file.stat().st_size for file in files) < 16e6
    for file in files:
        kinds = {value.dtype for value in safetensors.torch.load_file(file).values() if value.is_floating_point()}
        assert kinds == {torch.float16}


@pytest.mark.parametrize("name", NAMES)
def test_a_network_loads_ready_to_use_and_quickly(name):
    state = torch.get_rng_state()
    times = []
    for _ in range(5):
        start = time.process_time()
        net = load(name, "cpu")
        times.append(time.process_time() - start)
    assert statistics.median(times) < 0.2
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in net.modules())
    assert all(p.device.type == "cpu" and p.dtype == torch.float32 and p.requires_grad for p in net.parameters())
    about = net.card
    assert about == card(name)
    assert about.parameters == sum(p.numel() for p in net.parameters())
    x = normalize(torch.rand(2, len(about.mean), *about.size), net)
    assert net(x).shape == (2, len(about.classes))
    assert torch.isfinite(net(x)).all()


def test_the_manifest_keeps_recipe_seeds_and_command():
    for name in NAMES:
        manifest = json.loads((store.FILES / f"{name}.json").read_text(encoding="utf8"))
        assert manifest["command"].startswith(f"python -m helpers.experiments.train {name}")
        assert [run["seed"] for run in manifest["runs"]] == list(RECIPES[name].seeds)
        assert manifest["recipe"] == RECIPES[name].plain()
        assert manifest["runs"][0]["accuracy"]["test"] == manifest["accuracy"]
        assert {"commit", "torch", "device"} <= manifest["facts"].keys()


def test_networks_that_see_larger_images():
    for name in ("scenes-gap", "photos-gap", "photos-gmp"):
        net = load(name, "cpu")
        assert net.features(torch.zeros(1, 3, 64, 64)).shape[-2:] == (8, 8)
        assert net(torch.zeros(1, 3, 96, 160)).shape == (1, len(net.card.classes))


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """A copy of the weights folder that may be broken."""
    folder = tmp_path / "weights"
    shutil.copytree(store.FILES, folder)
    monkeypatch.setattr(store, "FILES", folder)
    return folder


def test_a_damaged_or_foreign_file_is_refused_and_never_unpickled(shelf):
    path = shelf / "lenet-mnist.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], b"", b"<html>404</html>"):
        path.write_bytes(content)
        with pytest.raises(
            WeightsError, match=r"lenet-mnist.safetensors is damaged or another file.*train lenet-mnist"
        ):
            load("lenet-mnist")
    torch.save({"conv1.weight": Bomb()}, path)
    with pytest.raises(WeightsError, match="damaged or another file"):
        load("lenet-mnist")
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load("lenet-mnist")


def rewrite(shelf: Path, name: str, **changes: object) -> None:
    path = shelf / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf8")) | changes), encoding="utf8")


def test_a_file_with_the_right_hash_that_is_no_safetensors_or_does_not_fit(shelf):
    path = shelf / "lenet-mnist.safetensors"
    torch.save({"conv1.weight": Bomb()}, path)
    rewrite(shelf, "lenet-mnist", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load("lenet-mnist")
    shutil.copy(shelf / "scenes-gap.safetensors", path)
    rewrite(shelf, "lenet-mnist", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="does not fit its manifest"):
        load("lenet-mnist")


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "lenet-mnist"}', "\udcff"])
def test_a_damaged_manifest_is_said(shelf, content):
    (shelf / "lenet-mnist.json").write_bytes(content.encode("utf8", "surrogateescape"))
    for call in (lambda: load("lenet-mnist"), available):
        with pytest.raises(WeightsError, match=r"lenet-mnist\.json is damaged"):
            call()


@pytest.mark.parametrize(
    "change",
    [{"sha256": 5}, {"mean": "abc"}, {"accuracy": "x"}, {"classes": None}, {"arguments": []}],
)
def test_a_manifest_with_an_entry_of_another_kind_is_said(shelf, change):
    rewrite(shelf, "lenet-mnist", **change)
    with pytest.raises(WeightsError, match=rf"lenet-mnist\.json is damaged .*{next(iter(change))}"):
        load("lenet-mnist")


def test_arguments_that_make_no_network_are_said(shelf):
    for arguments in ({"foo": 1}, {"classes": 0}):
        rewrite(shelf, "lenet-mnist", arguments=arguments)
        with pytest.raises(WeightsError, match="does not fit its manifest"):
            load("lenet-mnist")


def test_writing_replaces_both_files_or_neither(shelf, monkeypatch):
    before = {path: path.read_bytes() for path in shelf.glob("lenet-mnist.*")}
    manifest = json.loads((shelf / "lenet-mnist.json").read_text(encoding="utf8"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write(LeNet(), manifest | {"accuracy": float("nan")}, shelf)
    assert {path: path.read_bytes() for path in shelf.glob("lenet-mnist.*")} == before
    store.write(LeNet(), manifest, shelf)
    assert load("lenet-mnist").card.sha256 != manifest["sha256"]


def test_a_manifest_can_name_no_class_outside_the_book(shelf):
    rewrite(shelf, "lenet-mnist", architecture="nn.Module")
    with pytest.raises(WeightsError, match="not a manifest of the book"):
        load("lenet-mnist")


@pytest.mark.parametrize("name", ["photos_gap", "../setup", None])
def test_an_unknown_name_gets_near_ones(name):
    with pytest.raises(ValueError, match=r"name must be torchvision/\.\.\. or one of the book's"):
        load(name)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_an_unknown_device_is_an_error_before_anything_is_read(device, monkeypatch):
    monkeypatch.setattr(store, "FILES", Path("nowhere"))
    with pytest.raises(ValueError, match="device must be one that is there"):
        load("scenes-gap", device)


def test_normalising_by_hand():
    actual = card("photos-gap")
    images = torch.tensor(actual.mean).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(normalize(images, actual), torch.zeros(2, 3, 4, 4))
    white = normalize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), "photos-gap")
    expected = [(1 - m) / s for m, s in zip(actual.mean, actual.std, strict=True)]
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor(expected))
    assert normalize(images.double(), load("photos-gap", "cpu")).dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "network", "message"),
    [
        (torch.rand(1, 1, 8, 8), "photos-gap", r"\(B, 3, H, W\)"),
        (torch.rand(1, 3, 8, 8) * 255, "photos-gap", r"must lie in \[0, 1\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "photos-gap", "int64"),
        (torch.rand(1, 3, 8, 8), nn.Identity(), r"must have a card.*adopt\(model, mean"),
        (torch.rand(1, 3, 8, 8), "torchvision/resnet18", "load it, its card comes with it"),
    ],
)
def test_images_that_cannot_be_normalised_are_named(images, network, message):
    with pytest.raises(ValueError, match=message):
        normalize(images, network)
