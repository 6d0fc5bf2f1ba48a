"""What the tests of `helpers.search` share.

A network that a careless forward would change, random beliefs, and the same things computed one image, one fixation and
one label at a time.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from helpers.retina import cartesian
from support.untouched import Boom

DTYPES = [torch.float32, torch.float64]


each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=2, side=12, seed=0, dtype=torch.float64):
    return torch.randn(count, 2, side, side, generator=seeded(seed), dtype=dtype)


def seen_cartesian(x, fixations):
    return cartesian(x, fixations, 6)


class Net(nn.Module):
    """Batch normalisation, dropout and an in-place ReLU: what a forward in training mode would leave traces on."""

    def __init__(self, labels=3, dtype=torch.float64, boom=False):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.5), Boom() if boom else nn.Identity(), nn.Linear(16, labels),
        ).to(dtype)  # fmt: skip
        with torch.no_grad():
            self.layers[7].weight.mul_(4)  # answers that differ from place to place
            if not boom:  # none of the labels always wins
                self.layers[7].bias -= self.eval().layers(images(40, 6, 9, dtype)).mean(0)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.layers(x)


def net(labels=3, dtype=torch.float64, boom=False):
    model = Net(labels, dtype, boom).train()
    model.layers[5].eval()  # mixed modes
    model.layers[1].weight.requires_grad_(False)
    model.layers[7].bias.grad = torch.ones_like(model.layers[7].bias)
    return model


def slow_label_map(model, x, fixations, view):
    """`label_map`, one image and one fixation at a time; fixations (B, U, 2)."""
    was = {m: m.training for m in model.modules()}
    model.eval()
    with torch.no_grad():
        rows = [
            torch.stack([model(view(image[None], fixation[None])[:, 0])[0].log_softmax(0) for fixation in own])
            for image, own in zip(x, fixations, strict=True)
        ]
    for module, mode in was.items():
        module.training = mode
    return torch.stack(rows)


def logs(rows, dtype=torch.float64):
    return torch.tensor(rows, dtype=torch.float64).log().to(dtype)


def random_logs(*shape, seed=0, dtype=torch.float64, scale=2.0):
    return (torch.randn(*shape, generator=seeded(seed), dtype=torch.float64) * scale).log_softmax(-1).to(dtype)


PRIOR = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)


def slow_gain(belief, log_p, prior):
    """Fused, Z, gain, bound, in probabilities; log_p0 (B, K), log_pu (B, U, K)."""
    p_belief, p_view = belief.double().exp().numpy(), log_p.double().exp().numpy()
    count = p_belief.shape[-1]
    pk = np.full(count, 1 / count) if prior is None else prior.double().numpy()
    values = {name: np.zeros(p_view.shape[:2]) for name in ("z", "gain", "bound", "full")} | {
        "fused": np.zeros(p_view.shape)
    }
    for b, u in itertools.product(*map(range, p_view.shape[:2])):
        z = sum(p_belief[b, k] * p_view[b, u, k] / pk[k] for k in range(count))
        values["z"][b, u] = z
        for k in range(count):
            p = p_belief[b, k] * p_view[b, u, k] / pk[k] / z
            values["fused"][b, u, k] = p
            if p > 0:
                values["gain"][b, u] += p * math.log(p / p_belief[b, k])
                values["bound"][b, u] += p * math.log(p_view[b, u, k])
                values["full"][b, u] += p * (math.log(p_view[b, u, k]) - math.log(pk[k]))
    return {name: torch.from_numpy(value) for name, value in values.items()}


def close(actual, expected, atol=1e-6):
    assert actual.shape == expected.shape
    assert torch.allclose(actual.double(), expected.double(), rtol=0, atol=atol)
