"""Architectures against counts worked out by hand; loading: the shipped files, damaged ones, torchvision's cache."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import statistics
import time
import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from helpers.experiments.recipes import RECIPES
from helpers.networks import LeNet, SmallVGG, WeightsError, WeightsMissing, available, card, load, normalize, store


def test_lenet_is_table_1_of_similarnet():
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in LeNet().named_children()}
    assert {name: n for name, n in counts.items() if n} == {
        "conv1": 6 * 25 + 6,
        "conv2": 16 * 6 * 25 + 16,
        "fc1": 16 * 7 * 7 * 120 + 120,
        "fc2": 120 * 84 + 84,
        "fc3": 84 * 10 + 10,
    }
    assert sum(counts.values()) == 107_786


def test_maps_have_the_sizes_of_table_1():
    x, sides = torch.zeros(1, 1, 28, 28), []
    for layer in LeNet().features:
        x = layer(x)
        sides.append(x.shape[-1])
    assert sides == [28, 28, 14, 14, 14, 7]


@pytest.mark.parametrize(("size", "channels", "classes"), [(28, 1, 10), (48, 1, 10), (32, 3, 7), (4, 1, 2)])
def test_other_sizes_and_classes(size, channels, classes):
    net = LeNet(classes=classes, channels=channels, size=size)
    assert net(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_the_features_share_the_weights_and_take_any_size():
    net = LeNet()
    assert net.features[0] is net.conv1
    assert net.features(torch.zeros(1, 1, 40, 60)).shape == (1, 16, 10, 15)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(net.fc3(net.relu4(net.fc2(net.relu3(net.fc1(net.features(x).flatten(1)))))), net(x))


def test_the_pooling_can_be_chosen():
    assert isinstance(LeNet(pool=nn.AvgPool2d).pool1, nn.AvgPool2d)


@pytest.mark.parametrize("size", [0, 2, 30])
def test_a_size_that_two_poolings_cannot_halve_is_refused(size):
    with pytest.raises(ValueError, match="multiple of 4"):
        LeNet(size=size)


def test_small_vgg_by_hand():
    net = SmallVGG(5, stages=((4,), (6, 8)))
    assert [name for name, _ in net.named_children()] == (
        ["conv1", "relu1", "pool1", "conv2", "relu2", "conv3", "relu3", "gap", "flatten", "fc"]
    )
    assert sum(p.numel() for p in net.parameters()) == (27 * 4 + 4) + (36 * 6 + 6) + (54 * 8 + 8) + (8 * 5 + 5)
    x = torch.rand(2, 3, 16, 12)
    maps = net.features(x)
    assert maps.shape == (2, 8, 8, 6)
    torch.testing.assert_close(net(x), maps.mean((2, 3)) @ net.fc.weight.T + net.fc.bias)
    top = SmallVGG(5, stages=((4,), (6, 8)), pooling="gmp")
    top.load_state_dict(net.state_dict())
    torch.testing.assert_close(top(x), maps.amax((2, 3)) @ net.fc.weight.T + net.fc.bias)


def test_batch_norm_takes_the_place_of_the_bias_and_no_relu_works_in_place():
    net = SmallVGG(5, norm=True)
    assert all(m.bias is None for m in net.modules() if isinstance(m, nn.Conv2d))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 4
    assert not any(m.inplace for m in net.modules() if isinstance(m, nn.ReLU))


def test_an_angular_network_does_not_see_a_roll_of_whole_cells():
    torch.manual_seed(0)
    views = torch.rand(2, 3, 32, 32)
    angular, plain = (SmallVGG(5, angular=a) for a in (True, False))
    plain.load_state_dict(angular.state_dict())
    torch.testing.assert_close(angular(views.roll(8, -1)), angular(views))  # three poolings: a cell is 8 columns
    assert (plain(views.roll(8, -1)) - plain(views)).abs().max() > 1e-4


@pytest.mark.parametrize(
    "options", [{"pooling": "mean"}, {"stages": ()}, {"stages": ((8,), ())}, {"stages": (16, 32)}, {"channels": 0}]
)
def test_an_architecture_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SmallVGG(5, **options)


# --- loading ----------------------------------------------------------------------------------------------------------

NAMES = sorted(RECIPES)


def test_every_network_is_there_and_the_table_shows_it():
    table = available()
    assert [one.name for one in table] == NAMES
    lines = repr(table).splitlines()
    assert len(lines) == 1 + len(NAMES)
    for one, line in zip(table, lines[1:], strict=True):
        assert line.startswith(one.name)
        assert f"{one.accuracy:.1%}" in line
        assert len(line) <= 120


def test_the_weights_are_small_and_in_half_precision():
    files = list(store.WEIGHTS.glob("*.safetensors"))
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
        start = time.perf_counter()
        net = load(name, "cpu")
        times.append(time.perf_counter() - start)
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
        manifest = json.loads((store.WEIGHTS / f"{name}.json").read_text(encoding="utf8"))
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
    shutil.copytree(store.WEIGHTS, folder)
    monkeypatch.setattr(store, "WEIGHTS", folder)
    return folder


class Bomb:
    """Pickles into a call that must never happen."""

    def __reduce__(self):
        return pytest.fail, ("a weight file was unpickled",)


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


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "lenet-mnist"}', "\udcff"])
def test_a_damaged_manifest_is_said(shelf, content):
    (shelf / "lenet-mnist.json").write_bytes(content.encode("utf8", "surrogateescape"))
    for call in (lambda: load("lenet-mnist"), available):
        with pytest.raises(WeightsError, match=r"lenet-mnist\.json is damaged"):
            call()


@pytest.mark.parametrize(
    "change",
    [{"sha256": 5}, {"mean": "abc"}, {"accuracy": "x"}, {"classes": None}, {"arguments": []}, {"parameters": 1.5}],
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


@pytest.mark.parametrize("name", ["photos_gap", "lenet", "", "../setup", "resnet18", None])
def test_an_unknown_name_gets_near_ones(name):
    with pytest.raises(ValueError, match=r"want torchvision/\.\.\. or one of the book's"):
        load(name)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_an_unknown_device_is_an_error_before_anything_is_read(device, monkeypatch):
    monkeypatch.setattr(store, "WEIGHTS", Path("nowhere"))
    with pytest.raises(ValueError, match="device must be one that is there"):
        load("scenes-gap", device)


# --- normalising ------------------------------------------------------------------------------------------------------


def test_normalising_by_hand():
    found = card("photos-gap")
    images = torch.tensor(found.mean).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(normalize(images, found), torch.zeros(2, 3, 4, 4))
    white = normalize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), "photos-gap")
    expected = [(1 - m) / s for m, s in zip(found.mean, found.std, strict=True)]
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor(expected))
    assert normalize(images.double(), load("photos-gap", "cpu")).dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "network", "message"),
    [
        (torch.rand(3, 8, 8), "photos-gap", r"\(B, 3, H, W\)"),
        (torch.rand(0, 3, 8, 8), "photos-gap", "non-empty"),
        (torch.rand(1, 1, 8, 8), "photos-gap", r"\(B, 3, H, W\)"),
        (torch.rand(1, 3, 8, 8) * 255, "photos-gap", r"must lie in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), torch.nan), "photos-gap", "nan"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "photos-gap", "int64"),
        (torch.rand(1, 3, 8, 8), nn.Identity(), "must come from load"),
        ("image", "photos-gap", "got str"),
        (torch.rand(1, 3, 0, 8), "photos-gap", "non-empty"),
        (torch.rand(1, 3, 8, 8), "torchvision/resnet18", "load it, its card comes with it"),
    ],
)
def test_images_that_cannot_be_normalised_are_named(images, network, message):
    with pytest.raises(ValueError, match=message):
        normalize(images, network)


# --- torchvision's ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of torch's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torchvisions_networks_come_from_torchs_cache(cache):
    from torchvision.models import squeezenet1_1

    made = squeezenet1_1(weights=None).eval()
    torch.save(made.state_dict(), cache / "squeezenet1_1-b8a52dc0.pth")
    with pytest.warns(UserWarning, match="not the file torchvision publishes"):
        net = load("torchvision/squeezenet1_1", "cpu")
    x = normalize(torch.rand(1, 3, 64, 64), net)
    torch.testing.assert_close(net(x), made(x))
    assert not net.training
    assert net.card.mean == (0.485, 0.456, 0.406)
    assert net.card.classes[0] == "tench"
    assert len(net.card.classes) == 1000


@pytest.mark.parametrize("name", ["densenet121", "regnet_y_400mf", "googlenet"])
def test_networks_whose_files_need_special_care(cache, name):
    """DenseNet's published names differ, RegNet computes while it is built, GoogLeNet loses a part after loading."""
    from torchvision import models

    extra = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    state = models.get_model(name, weights=None, **extra).state_dict()
    if name == "densenet121":
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in state.items()}
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
        state = {key: value for key, value in state.items() if "num_batches" not in key}  # older than that counter
    torch.save(state, cache / models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[-1])
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="not the file torchvision publishes"):
        net = load(f"torchvision/{name}", "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_without_the_file_the_error_says_how_to_get_it(cache):
    with pytest.raises(WeightsMissing, match=r"load\('torchvision/resnet18', download=True\)") as caught:
        load("torchvision/resnet18")
    assert "resnet18-f37072fd.pth" in str(caught.value)
    assert str(cache) in str(caught.value)


def test_a_download_happens_only_when_it_is_allowed(cache, monkeypatch):
    asked = []

    def download(url, path, hash_prefix):
        asked.append((url, hash_prefix))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(WeightsMissing):
        load("torchvision/resnet18")
    assert asked == []
    with pytest.raises(WeightsMissing, match=r"no download \(.*no network.*\): the ImageNet weights of"):
        load("torchvision/resnet18", download=True)
    assert len(asked) == 1
    assert asked[0][1] == "f37072fd"


def test_a_damaged_or_foreign_file_in_the_cache_is_said(cache):
    path = cache / "resnet18-f37072fd.pth"
    for content in (b"", b"<html>404</html>", b"PK\x03\x04 cut short"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged or no weight file"):
            load("torchvision/resnet18")
    torch.save({"conv1.weight": Bomb()}, path)
    with pytest.raises(WeightsError, match="damaged or no weight file"):
        load("torchvision/resnet18")
    torch.save(LeNet().state_dict(), path)
    with pytest.warns(UserWarning, match="sha256 differs"), pytest.raises(WeightsError, match="holds no resnet18"):
        load("torchvision/resnet18")


@pytest.mark.parametrize("name", ["torchvision/resnet19", "torchvision/", "torchvision/fcn_resnet50"])
def test_an_unknown_torchvision_network_gets_near_names(name):
    with pytest.raises(ValueError, match="one of its networks, such as"):
        load(name)
