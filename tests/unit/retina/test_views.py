"""What the book's networks are shown: from the centre of their own images, and from anywhere in larger ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import networks
from helpers.retina import LogPolar, inscribed_disc, log_polar, log_polar_grid, view, viewer, views


def test_what_the_disc_keeps():
    inside = torch.ones(4, 4)
    inside[[0, 0, 3, 3], [0, 3, 0, 3]] = 0  # corners: sqrt(1.5^2 + 1.5^2) > 2
    torch.testing.assert_close(inscribed_disc(torch.ones(1, 2, 4, 4)), inside.expand(1, 2, 4, 4))
    wide = inscribed_disc(torch.ones(1, 1, 4, 8))[0, 0]
    assert wide[:, 2:6].equal(inside)
    assert wide[:, :2].sum() + wide[:, 6:].sum() == 0
    # Away from the rim, where a sample mixes pixels from both sides of it, the retina sees the disc and nothing else.
    noise = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(log_polar(noise, r_max=0.95), log_polar(inscribed_disc(noise), r_max=0.95))
    rim = (log_polar(noise) - log_polar(inscribed_disc(noise)))[0, 0, 0].abs().amax(1)
    assert rim[0] > 0.1
    assert rim[2:].max() == 0


def test_what_the_page_of_the_networks_says_of_the_rim():
    image = torch.zeros(1, 1, 64, 64, requires_grad=True)
    touched = torch.autograd.grad(log_polar(image).sum(), image)[0][0, 0] > 0
    disc = inscribed_disc(torch.ones(1, 1, 64, 64))[0, 0] > 0
    assert (disc & ~touched).sum() / disc.sum() == pytest.approx(1 / 8, abs=0.02)
    rim = log_polar_grid(64, 64)[0] * 32  # pixels
    assert (rim[1] - rim[0]).norm().item() == pytest.approx(3.1, abs=0.1)


def test_the_layer_is_the_function():
    images = torch.rand(2, 3, 32, 32)
    layer = LogPolar((16, 24), r_min=0.1, start_angle=0.3)
    torch.testing.assert_close(layer(images), log_polar(images, None, (16, 24), 0.1, 1.0, 0.3)[:, 0])
    assert "size=(16, 24), r_min=0.1" in repr(layer)
    smooth = LogPolar((16, 24), antialias=True)(images)
    assert smooth.equal(log_polar(images, None, (16, 24), antialias=True)[:, 0])
    assert not smooth.equal(LogPolar((16, 24))(images))
    assert LogPolar((np.int64(16), 24)).geometry[:2] == (16, 24)
    assert nn.Sequential(layer, nn.Conv2d(3, 5, 3))(images).shape == (2, 5, 14, 22)


KINDS = {"photos-disc": "disc", "photos-logpolar": "log-polar", "scenes-gap": "whole"}


@pytest.fixture(scope="module", params=KINDS)
def net(request):
    return networks.load(request.param, "cpu")


def test_from_the_centre_of_its_own_images_a_network_sees_its_view(net):
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    from_centre = views(x, None, net)
    assert from_centre.shape == (2, 1, 3, 64, 64)
    torch.testing.assert_close(from_centre[:, 0], view(x, net), atol=1e-5, rtol=0)
    torch.testing.assert_close(views(x, torch.zeros(1, 2), net.card), from_centre)
    with torch.no_grad():
        torch.testing.assert_close(net(from_centre[:, 0]), net(view(x, net)), atol=1e-3, rtol=1e-3)


def test_from_elsewhere_it_sees_the_window_around_its_fixation(net):
    x = torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    pixels = [(80, 64), (48, 40), (0, 0), (160, 100)]  # x, y from the corner
    fixations = torch.tensor([[x / 80 - 1, y / 64 - 1] for x, y in pixels])
    from_fixations = views(x, fixations, net, r_max=0.5)
    assert from_fixations.shape == (2, 4, 3, 64, 64)
    padded = F.pad(x, (32, 32, 32, 32))
    windows = torch.stack([padded[:, :, y : y + 64, x : x + 64] for x, y in pixels], 1)
    rows = slice(2, None) if KINDS[net.card.name] == "log-polar" else slice(None)  # the rim looks beyond the window
    for u in range(4):
        expected = view(windows[:, u], net)
        torch.testing.assert_close(from_fixations[:, u, :, rows], expected[:, :, rows], atol=1e-4, rtol=0)
    assert viewer(net, 0.5)(x, fixations).equal(from_fixations)
    assert viewer(net.card)(x, fixations).equal(views(x, fixations, net))
    assert viewer(net)(x, None).shape == (2, 1, 3, 64, 64)


def test_fixations_of_their_own_equal_a_loop(net):
    draw = torch.Generator().manual_seed(4)
    x, fixations = torch.randn(3, 3, 96, 80, generator=draw), torch.rand(3, 4, 2, generator=draw) * 2 - 1
    from_fixations = views(x, fixations, net, r_max=0.7)
    for b, u in np.ndindex(3, 4):
        alone = views(x[b : b + 1], fixations[b, u : u + 1], net, r_max=0.7)
        torch.testing.assert_close(from_fixations[b, u], alone[0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(views(x, fixations[2], net, r_max=0.7)[2], from_fixations[2], atol=1e-5, rtol=0)


def test_a_log_polar_network_keeps_its_32_to_1():
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    expected = log_polar(x, None, (64, 64), r_min=0.5 / 32, r_max=0.5)
    assert views(x, None, networks.card("photos-logpolar"), r_max=0.5).equal(expected)


def test_a_disc_network_sees_a_larger_field_in_as_many_pixels():
    # Twice the field in half the resolution: 2 x 2 pixels a sample, read between the four.
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    whole = views(x, None, networks.card("scenes-gap"))[:, 0]
    torch.testing.assert_close(whole, F.avg_pool2d(x, 2), atol=1e-5, rtol=0)
    disc = views(x, None, networks.card("photos-disc"))[:, 0]
    torch.testing.assert_close(disc, inscribed_disc(F.avg_pool2d(x, 2)), atol=1e-5, rtol=0)


IMAGES = torch.rand(2, 3, 16, 16)
DISC, POLAR = networks.card("photos-disc"), networks.card("photos-logpolar")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LogPolar()(IMAGES[0]), "x must"),
        (lambda: view(IMAGES, nn.Identity()), r"network must have a card, or be one.*adopt"),
        (lambda: viewer(nn.Identity())(IMAGES, None), r"network must have a card, or be one.*adopt"),
        (lambda: views(IMAGES[0], None, DISC), "x must"),
        (lambda: views(IMAGES, torch.zeros(3), POLAR), "fixations must"),
        (lambda: views(IMAGES, None, DISC, r_max=0.0), "r_max must"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_views_stay_on_the_gpu():
    x, fixations = torch.rand(2, 3, 40, 50), torch.rand(2, 3, 2) * 2 - 1
    for on_device in (fixations, fixations.cuda()):
        assert views(x.cuda(), on_device, POLAR).is_cuda
