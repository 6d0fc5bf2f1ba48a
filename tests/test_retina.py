"""Log-polar sampling against hand-worked places, a plain-loop reference and the symmetries it must have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.retina import AngularPad2d, LogPolar, inscribed_disc, log_polar, log_polar_grid, view

RADII, ANGLES = 64, 96


def spots(height: int, width: int, turn: float = 0.0, zoom: float = 1.0) -> torch.Tensor:
    """Smooth spots (1, 1, H, W), turned by an angle and zoomed about the centre; drawn, not resampled."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5 - height / 2, torch.arange(width) + 0.5 - width / 2, indexing="ij")
    image = torch.zeros(height, width)
    for radius, angle, spread in ((20.0, 0.3, 6.0), (28.0, 2.0, 5.0), (14.0, 4.4, 4.0)):
        cx, cy = zoom * radius * math.cos(angle + turn), zoom * radius * math.sin(angle + turn)
        image += torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (zoom * spread) ** 2))
    return image[None, None]


def seen(image: torch.Tensor, **options: float) -> torch.Tensor:
    return log_polar(image, size=(RADII, ANGLES), r_min=1 / 16, **options)[0, 0, 0]


def test_the_grid_worked_out_by_hand():
    grid = log_polar_grid(3, 4, r_min=0.25)
    rays = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])  # right, down, left, up
    torch.testing.assert_close(grid, torch.stack([rays, rays / 2, rays / 4]), atol=1e-6, rtol=0)
    turned = log_polar_grid(3, 4, r_min=0.25, start_angle=math.pi / 2)
    torch.testing.assert_close(turned, grid.roll(-1, dims=1), atol=1e-6, rtol=0)


def test_row_0_is_the_periphery_and_the_last_the_fovea():
    image = torch.zeros(1, 1, 64, 64)
    image[..., 28:36, 28:36] = 1  # a bright centre
    view = seen(image)
    assert view[0].abs().max() == 0
    assert view[-1].min().item() == pytest.approx(1)


@pytest.mark.parametrize("shape", [(96, 96), (96, 160), (160, 96)])
@pytest.mark.parametrize("steps", [1, 17, 48])
def test_a_rotation_is_a_roll_along_the_angles_on_images_of_any_shape(shape, steps):
    plain = seen(spots(*shape))
    turned = seen(spots(*shape, turn=2 * math.pi * steps / ANGLES))
    assert (turned - plain.roll(steps, dims=1)).abs().max() < 0.01
    assert (turned - plain).abs().max() > 0.05 * min(steps, 10)


@pytest.mark.parametrize("shape", [(96, 96), (96, 160)])
def test_a_zoom_is_a_shift_along_the_radii(shape):
    rows = 9
    zoom = 16 ** (rows / (RADII - 1))  # ln(1 / r_min) / (n_radii - 1) a row
    plain, zoomed = seen(spots(*shape)), seen(spots(*shape, zoom=zoom))
    # A larger image is farther out: its row k is row k + rows of the plain one.
    assert (zoomed[:-rows] - plain[rows:]).abs().max() < 0.03  # bilinear sampling of spots a few pixels wide
    assert (zoomed - plain).abs().max() > 0.3


def test_a_translation_is_neither():
    plain, moved = seen(spots(96, 96)), seen(spots(96, 96).roll(12, dims=-1))
    rolled = torch.stack([plain.roll((a, b), (0, 1)) for a in range(-8, 9) for b in range(ANGLES)])
    assert (rolled - moved).abs().amax((1, 2)).min() > 0.3


def bilinear(image: torch.Tensor, x: float, y: float) -> float:
    """The value at x, y in pixels from the centre of the first pixel; 0 outside. One place at a time."""
    left, top = math.floor(x), math.floor(y)
    total = 0.0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            total += (1 - abs(x - column)) * (1 - abs(y - row)) * image[row, column].item()
    return total


@pytest.mark.parametrize("fixation", [(0.0, 0.0), (0.5, -0.25), (-1.0, 1.0)])
def test_every_sample_equals_a_plain_loop(fixation):
    image = torch.rand(7, 5, generator=torch.Generator().manual_seed(0))
    view = log_polar(image[None, None], torch.tensor([fixation]), size=(4, 6), r_min=0.2)[0, 0, 0]
    half = 5 / 2  # of the shorter side, in pixels
    for i in range(4):
        for j in range(6):
            radius, angle = half * 0.2 ** (i / 3), 2 * math.pi * j / 6
            x = fixation[0] * 5 / 2 + 5 / 2 - 0.5 + radius * math.cos(angle)
            y = fixation[1] * 7 / 2 + 7 / 2 - 0.5 + radius * math.sin(angle)
            assert view[i, j].item() == pytest.approx(bilinear(image, x, y), abs=1e-5)


def test_all_fixations_of_all_images_at_once():
    draw = torch.Generator().manual_seed(1)
    images, fixations = torch.rand(3, 2, 20, 30, generator=draw), torch.rand(3, 4, 2, generator=draw) * 2 - 1
    views = log_polar(images, fixations, size=(8, 9))
    assert views.shape == (3, 4, 2, 8, 9)
    for b in range(3):
        for u in range(4):
            alone = log_polar(images[b : b + 1], fixations[b, u : u + 1], size=(8, 9))
            torch.testing.assert_close(views[b, u], alone[0, 0], atol=1e-5, rtol=0)
    shared = log_polar(images, fixations[0], size=(8, 9))
    torch.testing.assert_close(shared[0], views[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.01), (torch.float16, 0.001), (torch.float64, 1e-6)])
def test_every_precision_samples_the_same_places(dtype, error):
    image = torch.rand(1, 1, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)
    view = log_polar(image)
    assert view.dtype == dtype
    torch.testing.assert_close(view.double(), log_polar(image.float()).double(), atol=error + 1e-4, rtol=0)


def test_it_keeps_the_dtype_and_lets_gradients_through():
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    view = log_polar(image, size=(4, 8))
    assert view.dtype == torch.float64
    view.sum().backward()
    assert image.grad[0, 0, 8, 8] > 0
    assert image.grad[0, 0, 0, 0] == 0  # outside the disc


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
    assert LogPolar((np.int64(16), 24)).size == (16, 24)
    assert nn.Sequential(layer, nn.Conv2d(3, 5, 3))(images).shape == (2, 5, 14, 22)


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


IMAGES = torch.rand(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_polar_grid(1, 8), "n_radii"),
        (lambda: log_polar_grid(8, 2.5), "n_angles"),
        (lambda: log_polar_grid(8, True), "n_angles"),
        (lambda: log_polar_grid(8, 8, r_min=0), "r_min"),
        (lambda: log_polar_grid(8, 8, r_min=1.0), "r_min"),
        (lambda: log_polar_grid(8, 8, r_max=math.nan), "r_max"),
        (lambda: log_polar_grid(8, 8, r_min="0.1"), "r_min"),
        (lambda: log_polar_grid(8, 8, start_angle=math.inf), "start_angle"),
        (lambda: log_polar(IMAGES, size=64), r"size must be \(n_radii, n_angles\), got 64"),
        (lambda: log_polar(IMAGES, size=(64,)), "size must be"),
        (lambda: LogPolar(64), "size must be"),
        (lambda: log_polar(IMAGES * torch.nan), "NaN"),
        (lambda: log_polar(IMAGES, torch.tensor([[8.0, 8.0]])), r"in \[-1, 1\] .*got 8 \.\. 8"),
        (lambda: inscribed_disc(IMAGES / 0), "infinite"),
        (lambda: view(IMAGES, nn.Identity()), "must come from networks.load"),
        (lambda: log_polar(IMAGES[0]), r"x must have shape .* got \(3, 16, 16\)"),
        (lambda: log_polar(IMAGES[:0]), "not be empty"),
        (lambda: log_polar((IMAGES * 255).byte()), "uint8"),
        (lambda: log_polar("image"), "x must be"),
        (lambda: log_polar(IMAGES, torch.zeros(3)), r"fixations must be \(U, 2\) or \(2, U, 2\)"),
        (lambda: log_polar(IMAGES, torch.zeros(0, 2)), "U at least 1"),
        (lambda: log_polar(IMAGES, torch.zeros(3, 1, 2)), "fixations"),
        (lambda: log_polar(IMAGES, torch.tensor([[0.0, math.nan]])), "fixations .*nan"),
        (lambda: log_polar(IMAGES, (0, 0)), "fixations"),
        (lambda: inscribed_disc(IMAGES[0]), "x must have"),
        (lambda: LogPolar((8, 1)), "n_angles"),
        (lambda: AngularPad2d(0), "pad"),
        (lambda: AngularPad2d(2)(torch.zeros(1, 1, 4, 1)), "n_angles >= 2"),
        (lambda: AngularPad2d(1)(torch.zeros(4, 4)), "maps must be"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
