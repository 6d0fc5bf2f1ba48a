"""LICNN step by step, as the benchmark times it: the same maps as the package's."""

import pytest
import torch
from support.licnn import close, noise, slow_inhibition
from torch import nn

from helpers.experiments.benchmark import reference_licnn as reference
from helpers.licnn import attention_map, saliency_map


class Vgg(nn.Module):
    """A network with linear layers, and ReLUs of theirs, behind its features."""

    def __init__(self, classes=9):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(5, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(72, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, classes))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


@pytest.fixture
def vgg():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return Vgg().double().eval()


@pytest.mark.parametrize("shape", [(2, 9, 7), (1, 3, 12)])
def test_unfolding_is_equation_3(shape):
    x = noise(*shape, seed=6)
    before = x.clone()
    inhibition = reference.inhibition_by_unfolding(x)
    assert x.equal(before)
    close(inhibition, torch.stack([slow_inhibition(part) for part in x]), 1e-12)
    close(reference.inhibition_by_unfolding(x.float()), inhibition.float(), 1e-5)


def test_step_by_step_is_the_attention_map(vgg):
    x, target = noise(3, 3, 16, 20), torch.tensor([1, 8, 4])
    maps = reference.attention_by_steps(vgg, x, target)
    assert maps.shape == (3, 16, 20)
    assert not maps.requires_grad
    close(maps, attention_map(vgg, x, target), 1e-6)
    close(maps.square().sum((1, 2)), torch.ones(3, dtype=torch.float64))
    assert not any(module._forward_hooks for module in vgg.modules())
    assert (maps - reference.attention_by_steps(vgg, x, torch.tensor([0, 0, 0]))).abs().max() > 1e-3
    # The masks do something: without them the map is another.
    assert (maps - attention_map(vgg, x, target, suppress=None)).abs().max() > 1e-3


def test_class_by_class_is_the_saliency_map(vgg):
    x = noise(3, 3, 16, 20)
    maps = reference.saliency_class_by_class(vgg, x, torch.tensor([0, 0, 0]))
    close(maps, saliency_map(vgg, x), 1e-6)
    assert maps.equal(reference.saliency_class_by_class(vgg, x, None))
    assert (maps - saliency_map(vgg, x, top=4)).abs().max() > 1e-4
    close(maps.square().sum((1, 2)), torch.ones(3, dtype=torch.float64))
