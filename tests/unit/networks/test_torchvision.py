"""torchvision's networks from torch's cache."""

from __future__ import annotations

import re
import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.bomb import Bomb
from torch import nn

from helpers.networks import LeNet, WeightsError, WeightsMissing, load, normalize, rebuilt


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of torch's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torchvisions_networks_come_from_torchs_cache_and_are_not_rebuilt(cache):
    from torchvision.models import squeezenet1_1

    network = squeezenet1_1(weights=None).eval()
    torch.save(network.state_dict(), cache / "squeezenet1_1-b8a52dc0.pth")
    with pytest.warns(UserWarning, match="not the file torchvision publishes"):
        net = load("torchvision/squeezenet1_1", "cpu")
    x = normalize(torch.rand(1, 3, 64, 64), net)
    torch.testing.assert_close(net(x), network(x))
    assert not net.training
    assert net.card.mean == (0.485, 0.456, 0.406)
    assert net.card.classes[0] == "tench"
    assert len(net.card.classes) == 1000
    fake = nn.Identity()
    fake.card = "scenes-gap"
    for stranger in (net, fake):
        with pytest.raises(ValueError, match="network must be one of the book's"):
            rebuilt(stranger, atrous=1)


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

    def download(url, path, hash_prefix, progress):
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


@pytest.mark.parametrize("name", ["torchvision/resnet19", "torchvision/fcn_resnet50"])
def test_an_unknown_torchvision_network_gets_near_names(name):
    with pytest.raises(ValueError, match="one of its networks, such as"):
        load(name)


def test_foreign_weights_have_no_published_accuracy_and_rubbish_is_refused(cache):
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(weights=None).state_dict(), cache / "squeezenet1_1-b8a52dc0.pth")
    with pytest.warns(UserWarning, match="not the file torchvision publishes"):
        card = load("torchvision/squeezenet1_1", "cpu").card
    assert card.accuracy != card.accuracy  # NaN
    assert "... 1000 of them" in repr(card)
    (cache / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"rubbish")
    with pytest.raises(WeightsError, match="is damaged or no weight file"):
        load("torchvision/squeezenet1_1", "cpu")


@pytest.fixture
def squeezenet() -> nn.Module:
    from torchvision.models import squeezenet1_0

    torch.manual_seed(0)
    return squeezenet1_0(weights=None).eval()


def half(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.half() for key, value in network.state_dict().items()}


def test_imported_weights_serve_where_torchs_cache_has_none(cache, tmp_path, monkeypatch, squeezenet):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path / "data"))
    with pytest.raises(WeightsMissing):
        load("torchvision/squeezenet1_0", "cpu")
    (tmp_path / "data" / "squeezenet").mkdir(parents=True)
    safetensors.torch.save_file(half(squeezenet), tmp_path / "data" / "squeezenet" / "squeezenet1_0.safetensors")
    before = torch.get_rng_state()
    net = load("torchvision/squeezenet1_0", "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert net.card.name == "torchvision/squeezenet1_0"
    assert (net.card.test, net.card.command) == ("", "squeezenet1_0.safetensors")
    assert net.features[0].weight.equal(squeezenet.features[0].weight.half().float())
    torch.save(squeezenet.state_dict(), cache / "squeezenet1_0-b66bff10.pth")  # the cache comes first
    with pytest.warns(UserWarning, match="not the file torchvision publishes"):
        assert load("torchvision/squeezenet1_0", "cpu").features[0].weight.equal(squeezenet.features[0].weight)


@pytest.mark.parametrize("name", ["squeezenet1_0.safetensors", "squeezenet1_0-mine.pth"])
def test_a_weight_file_is_a_network(name, tmp_path, squeezenet):
    path = tmp_path / name
    save = safetensors.torch.save_file if path.suffix == ".safetensors" else torch.save
    save(squeezenet.state_dict(), path)
    net = load(str(path), "cpu")
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net(x), squeezenet(x))
    assert net.card.name == str(path)
    assert net.card.size == (224, 224)
    torch.testing.assert_close(normalize(x, net)[0, 0], (x[0, 0] - 0.485) / 0.229)


def test_weight_files_that_are_none_are_refused(tmp_path, squeezenet):
    with pytest.raises(WeightsMissing, match="cannot be read"):
        load(str(tmp_path / "squeezenet1_0.pth"), "cpu")
    (tmp_path / "squeezenet1_0.pth").write_bytes(b"nothing")
    torch.save(Bomb(), tmp_path / "squeezenet1_0-bomb.pth")
    for name in ("squeezenet1_0.pth", "squeezenet1_0-bomb.pth"):
        with pytest.raises(WeightsError, match="damaged or no weight file"):
            load(str(tmp_path / name), "cpu")
    torch.save(squeezenet.state_dict(), tmp_path / "vgg16.pth")
    with pytest.raises(WeightsError, match="holds no vgg16 with its 1,000 classes"):
        load(str(tmp_path / "vgg16.pth"), "cpu")
    with pytest.raises(ValueError, match="name must be torchvision/ and one of its networks"):
        load(str(tmp_path / "unknown.pth"), "cpu")
