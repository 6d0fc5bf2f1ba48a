"""Architectures against counts worked out by hand; loading: the shipped files, damaged ones, torchvision's cache."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import shutil
import statistics
import time
import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.untouched import assert_untouched
from torch import nn

from helpers.experiments.train.recipes import RECIPES
from helpers.networks import (
    Card,
    LeNet,
    SmallVGG,
    WeightsError,
    WeightsMissing,
    available,
    card,
    load,
    normalize,
    rebuilt,
)
from helpers.networks import _store as store


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


# --- poolings that move by one pixel ----------------------------------------------------------------------------------

SCENES = {"stages": ((16,), (32,), (64,), (128,))}
PHOTOS = {"stages": ((24,), (48,), (96,), (192, 192)), "norm": True}
MIXED = {"stages": ((4, 5), (6,), (7, 8)), "channels": 2}


def plain_and_dense(atrous: int, **options: object) -> tuple[SmallVGG, SmallVGG]:
    """A network with random weights and random statistics of its normalisation, twice; float64."""
    torch.manual_seed(0)
    plain = SmallVGG(5, **options)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.5)
    dense = SmallVGG(5, **options, atrous=atrous)
    dense.load_state_dict(plain.state_dict())
    return plain.double().eval(), dense.double().eval()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert wanted.abs().max() > 1e-3  # something is there to compare
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("atrous", [1, 2, 3])
@pytest.mark.parametrize("options", [SCENES, PHOTOS], ids=["scenes", "photos"])
@pytest.mark.parametrize("size", [(64, 64), (40, 72), (8, 16)])
def test_at_every_second_place_dense_maps_are_the_plain_ones(size, options, atrous):
    plain, dense = plain_and_dense(atrous, **options)
    x, step = noise(2, 3, *size), 2**atrous
    with torch.no_grad():
        coarse, fine = plain.features(x), dense.features(x)
    assert coarse.shape[2:] == (size[0] // 8, size[1] // 8)
    assert fine.shape == (2, coarse.shape[1], coarse.shape[2] * step, coarse.shape[3] * step)
    close(fine[..., ::step, ::step], coarse)


@pytest.mark.parametrize("atrous", [1, 2])
def test_stages_of_several_convolutions_behind_the_first_dense_pooling(atrous):
    plain, dense = plain_and_dense(atrous, **MIXED)
    x = noise(2, 2, 24, 32)
    close(dense.features(x)[..., :: 2**atrous, :: 2**atrous], plain.features(x))


@pytest.mark.parametrize("atrous", [1, 2, 3])
@pytest.mark.parametrize("name", ["scenes-gap", "photos-gap"])
def test_dense_maps_of_the_shipped_networks(name, atrous):
    net = load(name, "cpu").double()
    dense = rebuilt(net, atrous=atrous)
    x = normalize(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64), net)
    with torch.no_grad():
        close(dense.features(x)[..., :: 2**atrous, :: 2**atrous], net.features(x))


@pytest.mark.parametrize("options", [SCENES, PHOTOS], ids=["scenes", "photos"])
@pytest.mark.parametrize(
    ("atrous", "move"), [(1, (4, 0)), (1, (0, 4)), (1, (4, 4)), (2, (2, 6)), (2, (6, 4)), (3, (1, 3))]
)
def test_between_those_places_dense_maps_are_those_of_the_moved_image(options, atrous, move):
    # cells of the plain maps are 8 pixels apart, of the dense ones 8 / 2^atrous
    plain, dense = plain_and_dense(atrous, **options)
    x, step = noise(1, 3, 96, 104), 2**atrous
    moved = x.roll((-move[0], -move[1]), (2, 3))
    first = [pixels * step // 8 for pixels in move]
    with torch.no_grad():
        coarse, fine = plain.features(moved), dense.features(x)[..., first[0] :: step, first[1] :: step]
    # A unit sees up to 35 pixels beyond its cell: behind conv1 1, pool1 2, conv2 4, pool2 6, conv3 10, pool3 14,
    # conv4 22, and conv5 30, rounded up to whole cells.
    far = 5
    coarse, fine = coarse[..., far:-far, far:-far], fine[..., far:-far, far:-far]
    assert coarse.shape[2:] == (2, 3)
    close(fine, coarse)


@pytest.mark.parametrize("size", [(65, 71), (68, 60), (67, 64)])
@pytest.mark.parametrize("atrous", [1, 2])
def test_sides_that_the_poolings_do_not_divide_keep_their_places_away_from_the_end(size, atrous):
    plain, dense = plain_and_dense(atrous, **SCENES)
    x, step = noise(1, 3, *size), 2**atrous
    with torch.no_grad():
        coarse, fine = plain.features(x), dense.features(x)
    assert coarse.shape[2:] == (size[0] // 8, size[1] // 8)
    # the first poolings move by two pixels and lose the odd one, the dense ones lose none
    assert fine.shape[2:] == (size[0] // 2 ** (3 - atrous), size[1] // 2 ** (3 - atrous))
    height, width = coarse.shape[2] - 3, coarse.shape[3] - 3
    close(fine[..., ::step, ::step][..., :height, :width], coarse[..., :height, :width])


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("pooling", ["gap", "gmp"])
def test_without_atrous_nothing_is_changed_and_with_it_only_what_must_be(pooling, norm):
    options = {"stages": ((4,), (5,), (6, 7)), "pooling": pooling, "norm": norm}
    plain, same, dense = SmallVGG(5, **options), SmallVGG(5, **options, atrous=0), SmallVGG(5, **options, atrous=1)
    assert repr(same) == repr(plain)
    names = [name for name, _ in plain.named_children()]
    assert [name for name, _ in dense.named_children()] == names
    assert dense.state_dict().keys() == plain.state_dict().keys()
    differ = [name for name in names if repr(getattr(dense, name)) != repr(getattr(plain, name))]
    assert differ == ["pool2", "conv3", "conv4"]
    assert type(plain.pool2) is nn.MaxPool2d
    for name in ("conv3", "conv4"):
        conv = getattr(dense, name)
        assert (conv.dilation, conv.padding, conv.stride) == ((2, 2), (2, 2), (1, 1))
        assert (conv.bias is None) == norm


def test_a_dense_pooling_by_hand():
    # stages of one 3x3 filter that copies its input: the maps are the image's own maxima over 2x2 pixels, then over
    # 2x2 of those, two pixels apart: over 4x4 pixels from each pixel on, as far as the image reaches
    net = SmallVGG(1, channels=1, stages=((1,), (1,), (1,)), atrous=2).double()
    for number in (1, 2, 3):
        conv = getattr(net, f"conv{number}")
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    x = noise(1, 1, 6, 9).abs()
    with torch.no_grad():
        found = net.features(x)[0, 0]
        assert net.pool1(x).shape == x.shape
    wanted = [[x[0, 0, r : r + 4, c : c + 4].max() for c in range(9)] for r in range(6)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=0)


def test_logits_of_a_dense_network_read_its_own_maps():
    for pooling in ("gap", "gmp"):
        _, dense = plain_and_dense(2, pooling=pooling)
        x = noise(2, 3, 32, 32)
        maps = dense.features(x)
        pooled = maps.mean((2, 3)) if pooling == "gap" else maps.amax((2, 3))
        close(dense(x), pooled @ dense.fc.weight.T + dense.fc.bias)


@pytest.mark.parametrize("atrous", [-1, 4, 1.0, True, False, None, "1"])
def test_more_dense_poolings_than_there_are_poolings_are_refused(atrous):
    with pytest.raises(ValueError, match=r"atrous must be an integer in 0 \.\. 3"):
        SmallVGG(5, atrous=atrous)


def test_one_stage_has_no_pooling_and_log_polar_views_no_dense_one():
    with pytest.raises(ValueError, match=r"atrous must be an integer in 0 \.\. 0"):
        SmallVGG(5, stages=((4,),), atrous=1)
    with pytest.raises(ValueError, match="atrous and angular"):
        SmallVGG(5, angular=True, atrous=1)
    assert SmallVGG(5, angular=True, atrous=0).pad1.pad == 1


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
    monkeypatch.setattr(store, "FILES", Path("nowhere"))
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


# --- the same weights, built otherwise --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scenes-gap", "photos-gap", "lenet-mnist"])
def test_a_network_rebuilt_without_changes_is_a_copy(name):
    net = load(name, "cpu")
    state = torch.get_rng_state()
    made = rebuilt(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(made) is type(net)
    assert repr(made) == repr(net)
    x = normalize(torch.rand(2, len(net.card.mean), *net.card.size), net)
    assert torch.equal(made(x), net(x))


def test_the_weights_of_a_rebuilt_network_are_its_own():
    net = load("photos-gap", "cpu")
    before = copy.deepcopy(net.state_dict())
    net.train()
    net.conv1.weight.requires_grad_(False)
    net.bn2.eval()
    with assert_untouched(net):
        made = rebuilt(net, atrous=1)
        ours, theirs = made.state_dict(), net.state_dict()
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key])
            assert value.dtype == theirs[key].dtype
            assert value.data_ptr() != theirs[key].data_ptr()
            value.zero_()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module.training for module in made.modules())
    assert made(torch.zeros(1, 3, 64, 64)).abs().max() == 0


def test_what_was_learned_since_loading_is_kept():
    net = load("scenes-gap", "cpu").double()
    with torch.no_grad():
        net.fc.bias += 7
    made = rebuilt(net, atrous=2)
    assert torch.equal(made.fc.bias, net.fc.bias)
    assert made.fc.bias.dtype == torch.float64
    assert all(p.requires_grad and p.device.type == "cpu" for p in made.parameters())


def test_the_card_says_what_was_changed_and_nothing_of_the_accuracy():
    net = load("scenes-gap", "cpu")
    known = copy.deepcopy(net.card)
    made = rebuilt(net, atrous=1, pooling="gmp")
    assert net.card == known == card("scenes-gap")
    assert isinstance(made.card, Card)
    assert math.isnan(made.card.accuracy)
    assert made.card.arguments == {**known.arguments, "atrous": 1, "pooling": "gmp"}
    assert made.card.about.startswith(known.about)
    assert "atrous=1" in made.card.about
    assert "pooling='gmp'" in made.card.about
    same = ("name", "architecture", "classes", "mean", "std", "view", "size", "test", "parameters", "sha256", "command")
    assert all(getattr(made.card, field) == getattr(known, field) for field in same)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(normalize(x, made), normalize(x, net))


def test_a_rebuilt_network_can_be_rebuilt():
    net = load("scenes-gap", "cpu").double()
    once, twice = rebuilt(net, atrous=2), rebuilt(rebuilt(net, atrous=1, pooling="gmp"), atrous=2)
    x = torch.rand(1, 3, 64, 64).double()
    torch.testing.assert_close(twice.features(x), once.features(x))
    assert twice.card.arguments == {**net.card.arguments, "atrous": 2, "pooling": "gmp"}
    assert repr(rebuilt(once, atrous=0)) == repr(net)


def test_rebuilding_as_the_docstring_says():
    net = load("photos-gap", "cpu").double()
    x = normalize(torch.rand(2, 3, 64, 64, dtype=torch.float64), net)
    with torch.no_grad():
        assert rebuilt(net, atrous=1).features(x).shape[2:] == (16, 16)
        # without the last pooling: the maps of the third stage, convolved by the fourth's weights as they are
        longer = rebuilt(net, stages=((24,), (48,), (96, 192, 192)))
        assert not hasattr(longer, "pool3")
        maps = net.features[: [name for name, _ in net.named_children()].index("pool3")](x)
        wanted = net.relu5(net.bn5(net.conv5(net.relu4(net.bn4(net.conv4(maps))))))
        assert wanted.shape == (2, 192, 16, 16)
        close(longer.features(x), wanted)
        top = rebuilt(net, pooling="gmp")
        close(top(x), net.features(x).amax((2, 3)) @ net.fc.weight.T + net.fc.bias)


def test_lenet_takes_another_pooling_too():
    net = load("lenet-mnist", "cpu")
    made = rebuilt(net, pool=nn.AvgPool2d)
    assert isinstance(made.pool2, nn.AvgPool2d)
    assert isinstance(net.pool2, nn.MaxPool2d)
    assert made(torch.rand(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_rebuilt_network_stays_on_the_device():
    assert {p.device.type for p in rebuilt(load("scenes-gap", "cuda"), atrous=1).parameters()} == {"cuda"}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("scenes-gap", {"classes": 9}, "changes: .*classes"),
        ("scenes-gap", {"channels": 1}, "changes: .*channels"),
        ("scenes-gap", {"norm": True}, "changes: .*norm"),
        ("photos-gap", {"norm": False}, "changes: .*norm"),
        ("scenes-gap", {"stages": ((16,), (32,), (64,))}, "changes: .*stages"),
        ("scenes-gap", {"stages": ((16,), (32,), (64,), (128, 128))}, "changes: .*stages"),
        ("scenes-gap", {"stages": 3}, "changes: .*stages"),
        ("scenes-gap", {"stages": ()}, "stages must"),
        ("scenes-gap", {"colour": "red"}, "changes: .*colour"),
        ("scenes-gap", {"pool": nn.AvgPool2d}, "changes: .*pool"),
        ("scenes-gap", {"pooling": "mean"}, "pooling must"),
        ("scenes-gap", {"atrous": 4}, "atrous must"),
        ("scenes-gap", {"atrous": 1, "angular": True}, "atrous and angular"),
        ("photos-logpolar", {"atrous": 1}, "atrous and angular"),
        ("lenet-mnist", {"atrous": 1}, "changes: .*atrous"),
        ("lenet-mnist", {"size": 32}, "changes: .*size"),
        ("lenet-mnist", {"size": 30}, "size must"),
    ],
)
def test_changes_that_do_not_fit_the_weights_are_refused(name, changes, message):
    net = load(name, "cpu")
    with assert_untouched(net), pytest.raises(ValueError, match=message):
        rebuilt(net, **changes)
    assert net.card == card(name)


@pytest.mark.parametrize("stranger", [SmallVGG(8), nn.Identity(), None, "scenes-gap", card("scenes-gap")])
def test_only_the_books_networks_are_rebuilt(stranger):
    with pytest.raises(ValueError, match=r"network must be one of the book's, from load\(\)"):
        rebuilt(stranger, atrous=1)


def test_torchvisions_networks_are_not_rebuilt(cache):
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(weights=None).state_dict(), cache / "squeezenet1_1-b8a52dc0.pth")
    with pytest.warns(UserWarning, match="not the file torchvision publishes"):
        net = load("torchvision/squeezenet1_1", "cpu")
    with pytest.raises(ValueError, match="network must be one of the book's"):
        rebuilt(net, atrous=1)
    fake = nn.Identity()
    fake.card = "scenes-gap"
    with pytest.raises(ValueError, match="network must be one of the book's"):
        rebuilt(fake)


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


@pytest.mark.parametrize(("atrous", "stride", "offset"), [(0, 8, 0.0), (1, 4, 2.0), (2, 2, 3.0), (3, 1, 3.5)])
def test_the_places_of_dense_maps_lie_where_their_offset_says(atrous, stride, offset):
    net = SmallVGG(2, stages=((4,), (4,), (4,), (4,)), atrous=atrous)
    assert net.stride == stride
    assert net.offset == offset
    # The plain network's place k lies at 8 k + 4, evenly spread; in the dense maps it is number k * 2^atrous.
    for k in range(3):
        assert (k * 2**atrous + 0.5) * stride + net.offset == 8 * k + 4


@pytest.mark.parametrize("net", [LeNet(), SmallVGG(3, stages=((4,), (4,)))], ids=["LeNet", "SmallVGG"])
def test_a_network_is_taken_apart_by_slices(net):
    names = [name for name, _ in net.named_children()]
    front, back = net[:4], net[4:]
    assert type(front) is torch.nn.Sequential
    assert [name for name, _ in front.named_children()] == names[:4]
    assert front[0] is net[0] is net[-len(net)]
    x = torch.rand(2, next(net.parameters()).shape[1], 28, 28)
    assert torch.equal(back(front(x)), net(x))
    assert [type(part) for part in net.features] == [type(part) for part in net[: len(net.features)]]
