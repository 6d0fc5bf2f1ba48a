"""Seeded numbers, exact comparisons and a small network for the tests of the metrics."""

import functools

import torch

NAN, INF = float("nan"), float("inf")
close = torch.testing.assert_close
float64 = functools.partial(torch.tensor, dtype=torch.float64)


def exactly(actual, expected):
    close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=0, equal_nan=True)


def masks_of(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def draw(*shape, seed=0, levels=None, dtype=torch.float64):
    """Seeded normal numbers, or integers below `levels`, of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    if levels is None:
        return torch.randn(shape, generator=generator, dtype=dtype)
    return torch.randint(levels, shape, generator=generator).to(dtype)


IMAGES = draw(3, 3, 6, 7, seed=5)  # 42 pixels
