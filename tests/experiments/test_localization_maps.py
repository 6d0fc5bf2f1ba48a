"""The maps and boxes of the record of localization, on a few scenes."""

import torch
import torch.nn.functional as F

from helpers import networks
from helpers.cam import class_activation_map, upsample
from helpers.data import Photos, scenes
from helpers.experiments import localization_maps
from helpers.networks import normalize


def world(n=24):
    drawn = scenes(n, 77)
    network = networks.load("scenes-gap", "cpu")
    photos = Photos(drawn.images, drawn.labels[:, 0], drawn.boxes[:, 0], (), ())
    return network, normalize(drawn.images, network), photos


def test_class_maps_are_the_class_activation_maps_stretched():
    network, x, photos = world(6)
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


def test_maps_of_a_dense_network_lie_where_they_were_computed():
    network, x, photos = world(12)
    dense = networks.rebuilt(network, atrous=1)
    plain, fine = (localization_maps.class_maps(model, x, photos.labels) for model in (network, dense))
    shifted = upsample(class_activation_map(dense, x, photos.labels), (64, 64))
    likeness = [torch.corrcoef(torch.stack([plain.flatten(), maps.flatten()]))[0, 1] for maps in (fine, shifted)]
    assert likeness[0] > 0.97 > likeness[1]


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
