"""The samples of a retina by hand, and what is refused as a retina and as fixations."""

from __future__ import annotations

import math

import pytest
import torch

from helpers.retina import log_polar_grid
from helpers.retina._grid import check_fixations, check_geometry


def test_the_grid_worked_out_by_hand():
    grid = log_polar_grid(3, 4, r_min=0.25)
    rays = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])  # right, down, left, up
    torch.testing.assert_close(grid, torch.stack([rays, rays / 2, rays / 4]), atol=1e-6, rtol=0)
    turned = log_polar_grid(3, 4, r_min=0.25, start_angle=math.pi / 2)
    torch.testing.assert_close(turned, grid.roll(-1, dims=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((64, 0.1, 1.0, 0.0), r"size must be \(n_radii, n_angles\), got 64"),
        (((1, 8), 0.1, 1.0, 0.0), "n_radii must be an integer of at least 2, got 1"),
        (((8, 2.5), 0.1, 1.0, 0.0), "n_angles must be"),
        (((8, 8), 0.0, 1.0, 0.0), r"r_min must be a finite number in \(0, 1\), got 0"),
        (((8, 8), 0.1, math.nan, 0.0), "r_max must be a finite number above 0, got nan"),
        (((8, 8), 0.1, 1.0, math.inf), "start_angle must be"),
    ],
)
def test_a_retina_that_has_no_samples_is_refused(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        check_geometry(*arguments)


def test_fixations_are_shared_or_one_list_an_image():
    assert check_fixations(None, 3).tolist() == [[[0, 0]]]
    shared, own = torch.tensor([[0.5, -1.0]]), torch.zeros(3, 4, 2, requires_grad=True)
    assert check_fixations(shared, 3).tolist() == [[[0.5, -1.0]]]
    assert check_fixations(own, 3).shape == (3, 4, 2)
    for fixations in (shared, own, None):
        checked = check_fixations(fixations, 3)
        assert (checked.dtype, checked.device.type, checked.requires_grad) == (torch.float64, "cpu", False)


@pytest.mark.parametrize(
    ("fixations", "message"),
    [
        (torch.zeros(3), r"a non-empty tensor \(U, 2\) or \(2, U, 2\), got \(3,\)"),
        (torch.zeros(3, 1, 2), "a non-empty tensor"),
        (torch.tensor([[0.0, 8.0]]), r"numbers in \[-1, 1\], from edge to edge of the image, got 0 \.\. 8"),
    ],
)
def test_what_is_no_fixation_is_refused(fixations, message):
    with pytest.raises(ValueError, match=rf"^fixations must be {message}"):
        check_fixations(fixations, 2)
