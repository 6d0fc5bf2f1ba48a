"""The run that measures boxes on Tiny ImageNet: its arithmetic on toys, and its record against a fresh measurement."""

import json

import pytest
import torch

from helpers import networks
from helpers.cam import class_activation_map, upsample
from helpers.data import Photos, scenes, tiny_imagenet
from helpers.experiments import localization
from helpers.experiments.train.datasets import prepare
from helpers.experiments.train.recipes import RECIPES
from helpers.networks import normalize
from helpers.results import recorded


def world(n=24):
    found = scenes(n, 77)
    network = networks.load("scenes-gap", "cpu")
    photos = Photos(found.images, found.labels[:, 0], found.boxes[:, 0], (), ())
    return network, normalize(found.images, network), photos


def test_class_maps_are_the_class_activation_maps_stretched():
    network, x, photos = world(6)
    wanted = upsample(class_activation_map(network, x, photos.labels), (64, 64))
    torch.testing.assert_close(localization.class_maps(network, x, photos.labels), wanted)


def test_the_changes_of_weights():
    w = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    made = {name: change(w) for name, change in localization.WEIGHTS.items()}
    torch.testing.assert_close(made["softmax of the weights"].sum(1), torch.ones(2))
    assert made["positive weights alone"].tolist() == [[1, 0], [0.5, 3]]
    assert made["all weights one"].tolist() == [[1, 1], [1, 1]]


def test_a_larger_image_gives_maps_of_the_old_size():
    network, x, photos = world(2)
    assert localization.class_maps(network, x, photos.labels, times=2).shape == (2, 64, 64)


def test_even_images_choose_and_odd_ones_are_scored():
    truth = torch.tensor([[0.0, 0, 8, 8]]).repeat(4, 1)
    good, bad = truth[0], torch.tensor([30.0, 30, 40, 40])
    first = torch.stack([good, bad, good, bad])  # right on the even images alone
    second = torch.stack([bad, good, bad, good])
    named = torch.tensor([[True, True, False, True], [True, True, False, True]])
    found = localization.scores([first, second], [0.1, 0.2], truth, named)
    assert found["chosen"] == 0
    assert found["known"] == [1, 0]
    assert found["top1"] == [1, 0]
    assert found["iou"] == [0, 1]
    assert found["area"] == pytest.approx([100 / 64**2, 64 / 64**2])
    assert found["small"] == [1, 0]
    other = localization.scores([second, first], [0.1, 0.2], truth, torch.tensor([[True, False] * 2] * 2))
    assert other["chosen"] == 1
    assert other["known"] == [0, 1]
    assert other["top1"] == [1, 1]  # the odd images are not named


def test_a_centred_box():
    assert localization.centred(2, 0.5).tolist() == [[16, 16, 48, 48]] * 2
    assert localization.centred(1, 1.0).tolist() == [[0, 0, 64, 64]]


def test_a_network_is_measured():
    network, x, photos = world()
    found = localization.measured(network, x, photos, {"CAM": localization.class_maps})
    assert found["images"] == 12  # the odd half
    assert 0 <= found["classification"]["top5"] <= found["classification"]["top1"] <= 0.2
    maps = found["maps"]["CAM"]
    assert len(maps["known"]) == len(localization.THRESHOLDS) == len(maps["axis"])
    assert all(a >= b for a, b in zip(maps["top1"], maps["known"], strict=True))
    json.dumps(found, allow_nan=False)


def test_no_data_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(localization, "on_scenes", lambda out, device: {})
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    assert localization.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("error: Tiny ImageNet is not in")


def test_the_record_is_what_a_fresh_measurement_gives(real_data, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(real_data))
    recipe = RECIPES["photos-gap"]
    found = tiny_imagenet("val", recipe.classes)
    network = networks.load("photos-gap", "cpu")
    now = localization.measured(network, prepare(recipe, found.images), found, {"CAM": localization.class_maps})
    kept = recorded("localization")["networks"]["photos-gap"]
    assert now["images"] == kept["images"] == 1000
    for key in ("known", "top1", "top5", "iou", "area"):
        assert now["maps"]["CAM"][key] == pytest.approx(kept["maps"]["CAM"][key], abs=0.003)


def test_maps_of_a_dense_network_lie_where_they_were_computed():
    network, x, photos = world(12)
    dense = networks.rebuilt(network, atrous=1)
    plain, fine = (localization.class_maps(model, x, photos.labels) for model in (network, dense))
    shifted = upsample(class_activation_map(dense, x, photos.labels), (64, 64))
    likeness = [torch.corrcoef(torch.stack([plain.flatten(), one.flatten()]))[0, 1] for one in (fine, shifted)]
    assert likeness[0] > 0.97 > likeness[1]


def test_random_weights_are_the_same_for_all_and_every_time():
    w = torch.randn(3, 5)
    made = localization.WEIGHTS["positive weights at random"](w)
    assert torch.equal(made, localization.WEIGHTS["positive weights at random"](w))
    assert torch.equal(made[0], made[2])
    assert (made >= 0).all()


def test_weights_less_their_mean_leave_the_differences():
    network = networks.load("scenes-gap", "cpu")
    w = network.fc.weight.detach()
    made = localization.less_mean(network)(w)
    torch.testing.assert_close(made[0] - made[5], w[0] - w[5])
    torch.testing.assert_close(made.mean(0), torch.zeros(128), atol=1e-6, rtol=0)


def test_the_perfect_map_is_the_box():
    found = localization.downsampled_truth(torch.tensor([[16.0, 8, 48, 40]]))
    assert found.shape == (1, 64, 64)
    assert found[0, 24, 32] == 1
    assert found[0, 60, 60] == 0


def test_the_second_best_answer_counts_among_five_and_not_as_the_best():
    network, x, photos = world()
    second = network(x).topk(2, 1).indices[:, 1]
    found = localization.measured(network, x, photos._replace(labels=second), {"CAM": localization.class_maps})
    assert found["classification"] == {"top1": 1, "top5": 0}
    maps = found["maps"]["CAM"]
    assert maps["top1"] == [1] * len(maps["axis"])
    assert maps["top5"] == maps["known"]
