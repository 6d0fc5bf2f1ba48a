"""The maps and boxes of the record of localization, on a few scenes."""

import pytest
import torch
import torch.nn.functional as F
from support.located import located_scenes

from helpers import networks
from helpers.cam import class_activation_map, upsample
from helpers.experiments import localization_maps
from helpers.saliency import class_saliency, saliency_box


def test_class_maps_are_the_class_activation_maps_stretched():
    network, x, photos = located_scenes(6)
    expected = upsample(class_activation_map(network, x, photos.labels), (64, 64))
    torch.testing.assert_close(localization_maps.class_maps(network, x, photos.labels), expected)
    large = F.interpolate(x, scale_factor=2, mode="bilinear")
    expected = upsample(class_activation_map(network, large, photos.labels), (64, 64))
    torch.testing.assert_close(localization_maps.class_maps(network, x, photos.labels, times=2), expected)


def test_the_changes_of_weights():
    w = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    changed = {name: change(w) for name, change in localization_maps.WEIGHTS.items()}
    torch.testing.assert_close(changed["softmax of the weights"].sum(1), torch.ones(2))
    assert changed["positive weights alone"].tolist() == [[1, 0], [0.5, 3]]
    assert changed["all weights one"].tolist() == [[1, 1], [1, 1]]


def test_a_centred_box():
    assert localization_maps.centred_box(2, 0.5).tolist() == [[16, 16, 48, 48]] * 2
    assert localization_maps.centred_box(1, 1.0).tolist() == [[0, 0, 64, 64]]


@pytest.mark.parametrize("times", [1, 2])
def test_maps_of_a_dense_network_lie_where_they_were_computed(times):
    network, x, photos = located_scenes(12)
    dense = networks.rebuilt(network, atrous=1)
    plain, fine = (localization_maps.class_maps(model, x, photos.labels, times=times) for model in (network, dense))
    shown = F.interpolate(x, scale_factor=times, mode="bilinear")
    maps = class_activation_map(dense, shown, photos.labels)
    shifted = upsample(maps, (64, 64))
    likeness = [torch.corrcoef(torch.stack([plain.flatten(), maps.flatten()]))[0, 1] for maps in (fine, shifted)]
    assert likeness[0] > 0.97 > likeness[1]
    # Every other place is one of the plain network's: where it was computed, the map has the plain one's value.
    torch.testing.assert_close(maps[:, ::2, ::2], class_activation_map(network, shown, photos.labels))


def test_random_weights_are_the_same_for_all_and_every_time():
    w = torch.randn(3, 5)
    random = localization_maps.WEIGHTS["positive weights at random"](w)
    assert torch.equal(random, localization_maps.WEIGHTS["positive weights at random"](w))
    assert torch.equal(random[0], random[2])
    assert (random >= 0).all()


def test_weights_less_their_mean_leave_the_differences():
    network = networks.load("scenes-gap", "cpu")
    w = network.fc.weight.detach()
    changed = localization_maps.less_mean(network)(w)
    torch.testing.assert_close(changed[0] - changed[5], w[0] - w[5])
    torch.testing.assert_close(changed.mean(0), torch.zeros(128), atol=1e-6, rtol=0)


def test_the_perfect_map_is_the_box():
    maps = localization_maps.downsampled_truth(torch.tensor([[16.0, 8, 48, 40]]))
    assert maps.shape == (1, 64, 64)
    assert maps[0, 24, 32] == 1
    assert maps[0, 60, 60] == 0


def test_the_coarse_gradient_is_the_mean_of_squares():
    network, x, photos = located_scenes(2)
    gradient = class_saliency(network, x, photos.labels)
    squares = gradient.unfold(1, 8, 8).unfold(2, 8, 8).mean((3, 4))  # (2, 8, 8)
    maps = localization_maps.coarse_gradient(network, x, photos.labels)
    torch.testing.assert_close(maps, upsample(squares, (64, 64)))


def test_boxes_of_the_gradient_begin_at_the_quantile_that_the_record_tells(monkeypatch):
    network, _, photos = located_scenes(6)
    x = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))  # whose colours tell nothing
    gradient = class_saliency(network, x, photos.labels)
    expected = {quantile: saliency_box(gradient, x, foreground=quantile) for quantile in (0.95, 0.6)}
    assert not expected[0.95].equal(expected[0.6])
    assert localization_maps.gradient_boxes(network, x, photos.labels).equal(expected[0.95])
    monkeypatch.setattr(localization_maps, "FOREGROUND", 0.6)
    assert localization_maps.gradient_boxes(network, x, photos.labels).equal(expected[0.6])
