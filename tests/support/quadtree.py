"""Images of the quadtree tests."""

import torch

from helpers.data import photo


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)


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
