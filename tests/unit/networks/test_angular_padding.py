"""Padding around the circle of log-polar maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers.networks import AngularPad2d


def test_angular_padding_by_hand_and_its_exact_equivariance():
    maps = torch.tensor([[1.0, 2, 3], [4, 5, 6]])[None, None]
    assert AngularPad2d(1)(maps)[0, 0].tolist() == [[3, 1, 2, 3, 1], [6, 4, 5, 6, 4]]
    draw = torch.Generator().manual_seed(0)
    x, w = torch.randn(1, 3, 8, 12, generator=draw), torch.randn(4, 3, 3, 3, generator=draw)

    def conv(x):
        return F.conv2d(AngularPad2d(1)(x), w, padding=(1, 0))

    torch.testing.assert_close(conv(x.roll(5, -1)), conv(x).roll(5, -1))
    with_zeros = F.conv2d(x, w, padding=1)
    assert (F.conv2d(x.roll(5, -1), w, padding=1) - with_zeros.roll(5, -1)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AngularPad2d(0), "pad must"),
        (lambda: AngularPad2d(2)(torch.zeros(1, 1, 4, 1)), "maps must be .*n_angles >= 2"),
        (lambda: AngularPad2d(1)(torch.zeros(4, 4)), "maps must be"),
    ],
)
def test_maps_that_cannot_be_padded_are_refused(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()
