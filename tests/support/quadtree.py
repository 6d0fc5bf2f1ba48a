"""Images of the quadtree tests."""

import torch
from torch import nn

from helpers.data import photo
from support.tensors import seeded, uniform


def noise(*shape, seed=0):
    return uniform(*shape, seed=seed, dtype=torch.float64)


def patchy(*shape, seed=0):
    """Even patches of side 4 and some uneven places: trees with leaves of many sizes."""
    height, width = shape[-2:]
    coarse = noise(*shape[:-2], -(-height // 4), -(-width // 4), seed=seed).mul(3).round() / 3
    even = coarse.repeat_interleave(4, -2).repeat_interleave(4, -1)[..., :height, :width]
    return even + 0.3 * noise(*shape, seed=seed + 1) * (noise(*shape, seed=seed + 2) < 0.05)


def crop(name="camera"):
    return photo(name)[:, 100:228, 180:308]


def pixels(height, width):
    """The tree of single pixels."""
    return torch.cartesian_prod(torch.arange(height), torch.arange(width), torch.ones(1, dtype=torch.int64))


# Four leaves of an image of 4 x 4, the image, and a network for it.
FOUR = torch.tensor([[0, 0, 2], [0, 2, 2], [2, 0, 2], [2, 2, 2]])
X = torch.rand(1, 3, 4, 4, generator=seeded(0))
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
