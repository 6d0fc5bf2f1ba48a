"""The cells of the where pathway against loops over pixels, and back to a map of the display."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from support.refuses import refuses
from support.search import each_dtype, seeded

from helpers.search import collicular_target, predicted_map


def slow_kernels(size):
    """(240, size, size), pixel by pixel."""
    weights = np.zeros((240, size, size))
    for n, (ring, azimuth) in enumerate(itertools.product(range(10), range(24))):
        radius, angle = 0.8 / 1.41**ring, 2 * math.pi * azimuth / 24
        centre = radius * math.cos(angle), radius * math.sin(angle)
        for row, column in itertools.product(range(size), repeat=2):
            x, y = (2 * column + 1) / size - 1, (2 * row + 1) / size - 1
            weights[n, row, column] = math.exp(-(math.dist((x, y), centre) ** 2) / (2 * (0.25 * radius) ** 2))
    return weights / weights.sum((1, 2), keepdims=True)


KERNELS = {}


def kernels(size):
    if size not in KERNELS:
        KERNELS[size] = slow_kernels(size)
    return KERNELS[size]


@pytest.mark.parametrize("shape", [(5, 7), (3, 3), (15, 1)])
@pytest.mark.parametrize("chance", [0.1, 0.25])
def test_a_collicular_target_is_a_loop_over_pixels(shape, chance):
    size = 16
    accuracy = torch.rand(shape, generator=seeded(1))
    places = torch.tensor([[0, 0], [3, -2], [-7, 7], [7, -7], [1, 0]])
    before = accuracy.clone(), places.clone()
    cells = collicular_target(accuracy, places, size, chance)
    assert cells.shape == (5, 10, 24)
    middle = shape[0] // 2, shape[1] // 2
    for n, (x, y) in enumerate(places.tolist()):
        expected = np.zeros(240)
        for row, column, right, low in itertools.product(range(size), range(size), (0, 1), (0, 1)):
            # the object at one of the four pixels around the corner that place 0 is
            dy, dx = row - (size // 2 + y - low), column - (size // 2 + x - right)
            inside = abs(dy) <= middle[0] and abs(dx) <= middle[1]
            here = accuracy[dy + middle[0], dx + middle[1]].item() if inside else chance
            expected += kernels(size)[:, row, column] * here / 4
        assert cells[n].flatten().numpy() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(before[0], accuracy)
    assert torch.equal(before[1], places)
    assert (cells >= 0).all()
    assert (cells <= 1).all()


def test_a_target_of_chance_alone_is_chance_and_the_defaults_are_128_and_a_tenth():
    places = torch.tensor([[63, -63], [-63, 0]])
    assert torch.allclose(collicular_target(torch.full((3, 3), 0.1), places), torch.tensor(0.1), atol=1e-6)
    accuracy = torch.zeros(3, 3)
    accuracy[1, 1] = 1
    assert torch.equal(collicular_target(accuracy, places), collicular_target(accuracy, places, 128, 0.1))
    assert collicular_target(accuracy, places[:0]).shape == (0, 10, 24)
    assert torch.equal(collicular_target(accuracy.double(), places), collicular_target(accuracy, places))


@each_dtype
def test_a_predicted_map_is_a_ridge_regression(dtype):
    size, chance = 16, 0.2
    cells = torch.rand(3, 10, 24, generator=seeded(), dtype=torch.float64).to(dtype)
    before = cells.clone()
    # The map m that minimises |E m - c|^2 + 0.01 |m|^2, with kernels of unit norm and cells scaled alike.
    plain = kernels(size).reshape(240, -1)
    norms = np.linalg.norm(plain, axis=1)
    even, asked = plain / norms[:, None], (cells.double().flatten(1).numpy() - chance) / norms
    expected = (
        np.linalg.solve(even.T @ even + 0.01 * np.eye(size**2), even.T @ asked.T).T.reshape(3, size, size) + chance
    )
    for row, column in itertools.product(range(size), repeat=2):
        if math.hypot(2 * row + 1 - size, 2 * column + 1 - size) > size:
            expected[:, row, column] = chance
    maps = predicted_map(cells, size, chance)
    assert maps.shape == (3, size, size)
    assert maps.dtype == dtype
    assert maps.double().numpy() == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert (maps[:, 0, 0] == torch.tensor(chance, dtype=dtype)).all()
    assert torch.equal(cells, before)


def bump(width, side=55):
    axis = torch.arange(side) - side // 2
    return 0.1 + 0.85 * torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * width**2))


@pytest.mark.parametrize("width", [3, 5, 8])
def test_a_predicted_map_points_at_the_object(width):
    places = torch.randint(-40, 41, (150, 2), generator=seeded())
    places = places[places.double().norm(dim=1) <= 40]
    best = predicted_map(collicular_target(bump(width), places)).flatten(1).argmax(1)
    # Pixel i lies at i + 1/2 from the left edge, the display's centre at 64.
    apart = (torch.stack([best % 128, best // 128], 1) + 0.5 - 64 - places).norm(dim=1)
    assert apart.max() <= 4
    assert apart.mean() < 1.5


def test_bad_collicular_targets_are_refused():
    good = {"accuracy": torch.zeros(3, 3), "places": torch.tensor([[0, 0]]), "size": 16}
    refuses(collicular_target, good, accuracy=torch.zeros(4, 3), places=torch.zeros(1, 2))
    refuses(collicular_target, good, accuracy=torch.full((3, 3), 1.1), places=torch.tensor([[0, -8]]))


def test_cells_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"^cells must"):
        predicted_map(torch.zeros(1, 24, 10))
