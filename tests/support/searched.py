"""What the tests of the long runs on matched pairs share: beliefs, images with objects, networks that say them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

from helpers import networks
from helpers.experiments import matched_pairs as P
from helpers.experiments.train.datasets import DataSplit, LabeledImages
from helpers.networks import SmallVGG

CPU = torch.device("cpu")


def noise(*shape, seed=0, kind=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(kind)


def beliefs(*shape, seed=0):
    """Log-probabilities."""
    return (2 * noise(*shape, seed=seed)).log_softmax(-1)


def whole_numbers(top, *shape, seed=0):
    return torch.randint(top, shape, generator=torch.Generator().manual_seed(seed))


def check(summary, values):
    values = np.asarray([float(value) for value in values])
    assert summary["mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert summary["error"] == pytest.approx(scipy.stats.sem(values), abs=1e-6)


def means(rows):
    return [row["mean"] for row in rows]


class Middle(nn.Module):
    """Names the number that is written in the middle of what it sees."""

    def __init__(self, classes=5, name="scenes-disc"):
        super().__init__()
        self.classes, self.card = classes, networks.card(name)

    def forward(self, x):
        side = x.shape[-1] // 2
        said = x[:, 0, side - 2 : side + 2, side - 2 : side + 2].mean((1, 2)).round().long()
        return 9.0 * F.one_hot(said.clamp(0, self.classes - 1), self.classes)


def marked(side=32, half=4):
    """Four images with a square around whole pixels, in it the image's label, and the squares' middles."""
    labels, middle = torch.tensor([1, 2, 3, 4]), torch.tensor([[16, 16], [10, 20], [22, 8], [8, 16]])
    x = torch.zeros(4, 3, side, side)
    for image, label, (column, row) in zip(x, labels, middle.tolist(), strict=True):
        image[:, row - half : row + half, column - half : column + half] = label
    return P.Searched(x, labels, torch.cat([middle - half, middle + half], 1).double()), middle


def held(recipe):
    test = LabeledImages(torch.full((2, 3, 2, 2), ord(recipe.name[0]), dtype=torch.uint8), torch.arange(2))
    return DataSplit(LabeledImages(test.images[:0], test.labels[:0]), {"test": test}, (), "")


def fake_world(monkeypatch, module, make):
    """Pairs of small networks and four images for a record."""
    monkeypatch.setattr(module, "load_images", lambda kind, device: marked()[0])
    monkeypatch.setattr(P, "stored_images", lambda kind: marked(side=64 if kind == "photos" else 128)[0])
    monkeypatch.setattr(P, "shipped_or_trained", lambda name, seed, out, device: make(name, seed))


def tiny(name, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SmallVGG(8, stages=((4,), (6,))).eval()
    model.card = networks.card(name)
    return model
