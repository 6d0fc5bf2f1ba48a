"""Log-polar sampling against hand-worked places, a plain-loop reference and the symmetries it must have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import networks
from helpers.retina import (
    AngularPad2d,
    LogPolar,
    cartesian,
    inscribed_disc,
    inverse_log_polar,
    log_polar,
    log_polar_grid,
    view,
    viewer,
    views,
)

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


# --- the promises in numbers ------------------------------------------------------------------------------------------

FINE = (224, 224)
# The spots must stay within the image (all beyond it is 0), and be wide enough, in pixels, for bilinear sampling.
WIDE_AND_SQUARE = [
    ((224, 224), (0.0, 0.0), 0.15),
    ((224, 224), (0.1, -0.1), 0.1),
    ((112, 224), (0.0, 0.0), 0.15),
    ((112, 224), (0.3, 0.0), 0.15),
]


def gaussians(shape, turn=0.0, zoom=1.0, about=(0.0, 0.0), spread=0.15):
    """Three spots of height 1, turned and zoomed about a fixation; lengths in half the shorter side."""
    half = min(shape) / 2
    cx, cy = ((1 + place) * side / 2 - 0.5 for place, side in zip(about, shape[::-1], strict=True))
    y, x = torch.meshgrid((torch.arange(shape[0]) - cy) / half, (torch.arange(shape[1]) - cx) / half, indexing="ij")
    image = torch.zeros(shape)
    for radius, angle in ((0.4, 0.5), (0.35, 2.6), (0.45, 4.6)):
        left, down = zoom * radius * math.cos(angle + turn), zoom * radius * math.sin(angle + turn)
        image += torch.exp(-((x - left) ** 2 + (y - down) ** 2) / (2 * (zoom * spread) ** 2))
    return image[None, None]


def naive(image, size=FINE):
    """The same retina in the units of grid_sample, as if every image were a square."""
    radius = (2**-5) ** (torch.arange(size[0]) / (size[0] - 1))[:, None]
    angle = torch.arange(size[1]) * 2 * math.pi / size[1]
    places = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)[None]
    return F.grid_sample(image, places, align_corners=False)[0, 0]


def rotation_error(seen, shape, steps, **spots):
    turned = seen(gaussians(shape, turn=2 * math.pi * steps / 224, **spots))
    return (turned - seen(gaussians(shape, **spots)).roll(steps, 1)).abs().max()


def zoom_error(seen, shape, rows, **spots):
    zoomed = seen(gaussians(shape, zoom=32 ** (rows / 223), **spots))
    return (zoomed[:-rows] - seen(gaussians(shape, **spots))[rows:]).abs().max()


@pytest.mark.parametrize(("shape", "about", "spread"), WIDE_AND_SQUARE)
def test_rotation_and_zoom_at_the_size_of_photographs(shape, about, spread):
    def seen(image):
        return log_polar(image, torch.tensor([about]), FINE)[0, 0, 0]

    spots = {"about": about, "spread": spread}
    assert gaussians(shape, **spots).max() == pytest.approx(1, abs=0.02)
    for steps in (1, 30, 56, 101):
        assert rotation_error(seen, shape, steps, **spots) < 5e-3
    for rows in (1, 5, 10):
        assert zoom_error(seen, shape, rows, **spots) < 3e-2


def test_a_grid_that_knows_no_aspect_has_neither_symmetry_on_a_wide_image():
    assert rotation_error(naive, (224, 224), 30) < 5e-3  # it is the shape that it gets wrong
    assert rotation_error(naive, (112, 224), 30) > 0.2
    assert rotation_error(naive, (112, 224), 56) > 0.2


@pytest.mark.parametrize("shape", [(224, 224), (112, 224), (224, 112)])
@pytest.mark.parametrize("start_angle", [0.0, 1.0, -2.5])
def test_there_and_back_loses_little_of_a_smooth_image(shape, start_angle):
    image = gaussians(shape)
    at = torch.tensor([[0.0, 0.0], [0.25, -0.25], [-0.5, 0.3], [0.1, 0.6]])
    made = log_polar(image, at, FINE, start_angle=start_angle)
    back = inverse_log_polar(made, shape, at, start_angle=start_angle)
    assert back.shape == (1, 4, 1, *shape)
    contrast = image.max() - image.min()
    for u, (px, py) in enumerate(at.tolist()):
        y = (torch.arange(shape[0]) + 0.5 - (py + 1) * shape[0] / 2)[:, None] / (min(shape) / 2)
        x = (torch.arange(shape[1]) + 0.5 - (px + 1) * shape[1] / 2) / (min(shape) / 2)
        radius = (x**2 + y**2).sqrt()
        lost = (back[0, u, 0] - image[0, 0]).abs()
        assert lost[(radius >= 2**-5) & (radius <= 1)].max() < 0.02 * contrast
        assert back[0, u, 0][radius > 1.001].abs().max() == 0


def test_the_way_back_equals_a_plain_loop():
    draw = torch.Generator().manual_seed(0)
    made = torch.rand(2, 3, 1, 4, 5, generator=draw)
    at = torch.rand(2, 3, 2, generator=draw) * 2 - 1
    height, width, r_min, r_max, start = 7, 10, 0.2, 1.3, 0.7
    back = inverse_log_polar(made, (height, width), at, r_min, r_max, start)
    for b, u, i, j in np.ndindex(2, 3, height, width):
        x = (j + 0.5 - (at[b, u, 0].item() + 1) * width / 2) / 3.5  # half the shorter side
        y = (i + 0.5 - (at[b, u, 1].item() + 1) * height / 2) / 3.5
        radius, angle = math.hypot(x, y), (math.atan2(y, x) - start) % (2 * math.pi)
        wanted = 0.0
        if radius <= r_max:
            row = math.log(r_max / max(radius, r_min)) / math.log(r_max / r_min) * 3
            column = angle / (2 * math.pi) * 5
            top, left = min(int(row), 2), int(column) % 5
            down, right = row - top, column - int(column)
            view = made[b, u, 0]
            upper = (1 - right) * view[top, left] + right * view[top, (left + 1) % 5]
            lower = (1 - right) * view[top + 1, left] + right * view[top + 1, (left + 1) % 5]
            wanted = ((1 - down) * upper + down * lower).item()
        assert back[b, u, 0, i, j].item() == pytest.approx(wanted, abs=1e-5)


def test_the_seam_closes():
    # Columns 0 .. 3 look right, down, left and up. A pixel 45 degrees above the x axis lies half way between the last
    # column (4) and the first (1): 2.5. One 45 degrees below it is half way between 1 and 2: 1.5.
    made = torch.tensor([1.0, 2, 3, 4]).expand(1, 1, 1, 3, 4)
    back = inverse_log_polar(made, (4, 4))[0, 0, 0]
    torch.testing.assert_close(back[1, 2].item(), 2.5)
    torch.testing.assert_close(back[2, 2].item(), 1.5)
    # No line across angle 0: neighbours on its two sides differ as much as they do in the image, which is smooth there.
    image = gaussians((224, 224), turn=-0.5)  # a spot lies on the seam
    back = inverse_log_polar(log_polar(image, size=(224, 24)), (224, 224))[0, 0, 0]
    jump = (back[112, 120:200] - back[111, 120:200]).abs()
    elsewhere = (back[113, 120:200] - back[112, 120:200]).abs()
    assert jump.max() < 0.01
    assert elsewhere.max() < 0.02


def test_inside_the_innermost_circle_the_nearest_sample_stands():
    made = torch.arange(12.0).view(1, 1, 1, 3, 4)  # the fovea is 8 9 10 11
    back = inverse_log_polar(made, (5, 5), r_min=0.9)[0, 0, 0]
    assert back[2, 3].item() == pytest.approx(8)  # right: (1, 0) pixels, radius 0.4
    assert back[3, 2].item() == pytest.approx(9, abs=1e-5)  # down
    assert back[2, 1].item() == pytest.approx(10, abs=1e-5)  # left
    assert back[0, 0] == 0  # outside


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_way_back_keeps_the_dtype_and_its_input(dtype):
    made = torch.rand(2, 3, 2, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    at, kept = torch.tensor([[0.0, 0.0], [0.5, 0.5], [-1.0, 0.0]]), made.clone()
    back = inverse_log_polar(made, (9, 12), at)
    assert back.dtype == dtype
    assert back.shape == (2, 3, 2, 9, 12)
    assert made.equal(kept)
    wanted = inverse_log_polar(made.double(), (9, 12), at)
    torch.testing.assert_close(back.double(), wanted, atol=1e-5 if dtype.itemsize > 2 else 0.01, rtol=0)
    for u in range(3):
        alone = inverse_log_polar(made[1:, u : u + 1], (9, 12), at[u : u + 1])
        torch.testing.assert_close(alone[0, 0], back[1, u])


def test_gradients_come_back_through_the_way_back():
    made = torch.rand(1, 2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    at = torch.tensor([[0.0, 0.0], [0.3, -0.2]])
    assert torch.autograd.gradcheck(lambda one: inverse_log_polar(one, (5, 6), at), made)


# --- no aliases in the periphery --------------------------------------------------------------------------------------


def halved(image):
    """Means of 2 x 2 pixels, or of those that are there; one at a time."""
    rows, columns = -(-image.shape[0] // 2), -(-image.shape[1] // 2)
    return torch.tensor(
        [[image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(columns)] for i in range(rows)]
    )


@pytest.mark.parametrize("shape", [(32, 32), (16, 32), (21, 35)])
@pytest.mark.parametrize("size", [(6, 8), (4, 40), (12, 3)])
def test_antialiased_samples_equal_a_plain_loop(shape, size):
    image = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    at, r_min, r_max = (0.25, -0.125), 0.1, 0.9
    found = log_polar(image[None, None], torch.tensor([at]), size, r_min, r_max, 0.3, antialias=True)[0, 0, 0]
    copies = [image]
    while min(copies[-1].shape) > 1:
        copies.append(halved(copies[-1]))
    half = min(shape) / 2
    # Neighbours on a circle are 2 pi r / n_angles apart, those on a ray r ln(r_max / r_min) / (n_radii - 1).
    share = max(2 * math.pi / size[1], math.log(r_max / r_min) / (size[0] - 1))
    levels = []
    for i, j in np.ndindex(*size):
        radius = r_max * (r_min / r_max) ** (i / (size[0] - 1)) * half
        angle = 0.3 + 2 * math.pi * j / size[1]
        x = (at[0] + 1) * shape[1] / 2 + radius * math.cos(angle)
        y = (at[1] + 1) * shape[0] / 2 + radius * math.sin(angle)
        level = max(0.0, math.log2(radius * share))
        level = min(level, math.floor(math.log2(min(shape))))  # the last copy of at least one whole pixel a side
        low = min(int(level), len(copies) - 2)
        values = [bilinear(copies[k], x / 2**k - 0.5, y / 2**k - 0.5) for k in (low, low + 1)]
        assert found[i, j].item() == pytest.approx(values[0] + (level - low) * (values[1] - values[0]), abs=1e-4)
        levels.append(level)
    assert max(levels) > (2.5 if size == (12, 3) else 0)


def textures(shape):
    y, x = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    return {"checkerboard": 1.0 - 2 * ((x + y) % 2), "grating": torch.sin(2 * math.pi * x / 3 + 0.4)}


@pytest.mark.parametrize("shape", [(224, 224), (225, 227), (112, 224)])
@pytest.mark.parametrize("kind", ["checkerboard", "grating"])
def test_what_is_finer_than_the_periphery_averages_out(kind, shape):
    image = textures(shape)[kind][None, None]
    plain, smooth = (log_polar(image, antialias=a, r_max=0.9)[0, 0, 0] for a in (False, True))
    # The outermost circle has 64 samples 2 pi 0.9 112 / 64 = 9.9 pixels apart (4.9 on the wide image).
    outer = smooth[:8] if kind == "checkerboard" or min(shape) > 200 else smooth[:3]
    assert plain[:8].abs().max() > 0.8
    assert plain[:8].std() > 0.2
    assert outer.abs().max() < (0.02 if kind == "checkerboard" else 0.25)
    assert outer.std() < 0.3 * plain[:8].std()


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (51, 90), (97, 131)])
def test_constant_images_stay_constant_and_ramps_stay_where_they_are(shape):
    ones = torch.ones(2, 1, *shape)
    at = torch.tensor([[0.0, 0.0], [0.1, -0.1]])
    found = log_polar(ones, at, (32, 24), r_max=0.6, antialias=True)
    torch.testing.assert_close(found, torch.ones_like(found), atol=1e-6, rtol=0)
    # Means of a ramp are the ramp: a copy that lay a fraction of a pixel off would show.
    y, x = torch.meshgrid(torch.arange(shape[0]) * 0.3, torch.arange(shape[1]) * 1.0, indexing="ij")
    ramp = (x - y)[None, None]
    smooth, plain = (log_polar(ramp, at, (32, 24), r_max=0.6, antialias=a) for a in (True, False))
    torch.testing.assert_close(smooth, plain, atol=1e-3, rtol=0)


def test_the_fovea_is_as_sharp_as_without():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth, plain = (log_polar(image, antialias=a)[0, 0] for a in (True, False))
    # Samples are 2 pi r / 64 pixels apart, a pixel at r = 64 / 2 pi = 10.19 = 32 / 32^(i / 63): i = 20.8.
    torch.testing.assert_close(smooth[:, 21:], plain[:, 21:], atol=1e-6, rtol=0)
    assert (smooth[:, :20] - plain[:, :20]).abs().amax((0, 2)).min() > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_antialiasing_keeps_dtype_input_and_batches(dtype):
    draw = torch.Generator().manual_seed(2)
    images, at = torch.rand(3, 2, 33, 40, generator=draw).to(dtype), torch.rand(3, 4, 2, generator=draw) * 2 - 1
    kept = images.clone()
    found = log_polar(images, at, (7, 9), antialias=True)
    assert found.shape == (3, 4, 2, 7, 9)
    assert found.dtype == dtype
    assert images.equal(kept)
    close = {"atol": 1e-5 if dtype.itemsize > 2 else 0.02, "rtol": 0}
    for b, u in np.ndindex(3, 4):
        alone = log_polar(images[b : b + 1], at[b, u : u + 1], (7, 9), antialias=True)
        torch.testing.assert_close(found[b, u], alone[0, 0], **close)
    shared = log_polar(images, at[1], (7, 9), antialias=True)
    torch.testing.assert_close(shared[1], found[1], **close)


def test_gradients_flow_through_the_pyramid():
    image = torch.rand(1, 1, 9, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: log_polar(x, None, (4, 5), 0.1, 0.9, antialias=True), image)
    layer = LogPolar((4, 5), r_min=0.1, r_max=0.9, antialias=True)
    touched = torch.autograd.grad(layer(image).sum(), image)[0] != 0
    plain = torch.autograd.grad(LogPolar((4, 5), r_min=0.1, r_max=0.9)(image).sum(), image)[0] != 0
    assert touched.sum() > plain.sum()


def test_the_layer_hands_antialias_on():
    images = torch.rand(2, 3, 64, 48)
    layer = LogPolar((16, 24), antialias=True)
    assert layer(images).equal(log_polar(images, None, (16, 24), antialias=True)[:, 0])
    assert not layer(images).equal(LogPolar((16, 24))(images))
    assert not LogPolar().antialias


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 50)])
def test_images_of_a_few_pixels_have_a_pyramid_too(shape):
    found = log_polar(torch.ones(1, 1, *shape), None, (4, 3), 0.1, 1.0, antialias=True)
    assert found.isfinite().all()
    assert found.max() <= 1 + 1e-6


# --- the control: the same places as they are -------------------------------------------------------------------------


@pytest.mark.parametrize("side", [2, 10, 64, 224])
def test_from_the_centre_the_control_is_the_disc(side):
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cartesian(image)[:, 0], inscribed_disc(image), atol=1e-4, rtol=0)
    torch.testing.assert_close(cartesian(image, disc=False)[:, 0], image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(32, 32), (32, 64), (64, 32)])
@pytest.mark.parametrize("disc", [True, False])
def test_at_whole_pixels_it_is_a_slice_of_the_padded_image(shape, disc):
    image = torch.rand(1, 2, *shape, generator=torch.Generator().manual_seed(0))
    corners = [(0, 0), (shape[1], shape[0]), (16, 16), (5, 20), (shape[1] - 1, 3)]  # x, y in pixels from the corner
    at = torch.tensor([[2 * x / shape[1] - 1, 2 * y / shape[0] - 1] for x, y in corners])
    found = cartesian(image, at, r_max=0.5, disc=disc)
    assert found.shape == (1, 5, 2, 16, 16)
    padded = F.pad(image, (8, 8, 8, 8))
    inside = torch.ones(16, 16)
    if disc:  # centres within 8 pixels of the middle
        inside = torch.tensor([[float((i - 7.5) ** 2 + (j - 7.5) ** 2 <= 64) for j in range(16)] for i in range(16)])
    for u, (x, y) in enumerate(corners):
        torch.testing.assert_close(found[0, u], padded[0, :, y : y + 16, x : x + 16] * inside, atol=1e-5, rtol=0)


def test_other_sizes_equal_a_plain_loop():
    image = torch.rand(9, 14, generator=torch.Generator().manual_seed(0))
    found = cartesian(image[None, None], torch.tensor([[0.3, -0.6]]), size=5, r_max=0.8)[0, 0, 0]
    for i, j in np.ndindex(5, 5):
        x, y = (0.8 * ((k + 0.5) * 2 / 5 - 1) for k in (j, i))
        wanted = bilinear(image, 1.3 * 7 - 0.5 + 4.5 * x, 0.4 * 4.5 - 0.5 + 4.5 * y) if math.hypot(x, y) <= 0.8 else 0.0
        assert found[i, j].item() == pytest.approx(wanted, abs=1e-5)


def test_the_image_s_own_pixels_are_as_many_as_the_square_holds():
    image = torch.rand(1, 1, 20, 30)
    assert cartesian(image).shape == (1, 1, 1, 20, 20)
    assert cartesian(image, r_max=0.5).shape[-2:] == (10, 10)
    assert cartesian(image, r_max=1.5).shape[-2:] == (30, 30)
    assert cartesian(image, r_max=2).shape[-2:] == (40, 40)  # a whole number will do
    assert cartesian(image, r_max=1e-3).shape[-2:] == (2, 2)
    assert cartesian(image, size=np.int64(7)).shape[-2:] == (7, 7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_control_keeps_dtype_input_and_batches(dtype):
    draw = torch.Generator().manual_seed(3)
    images, at = torch.rand(3, 2, 12, 20, generator=draw).to(dtype), torch.rand(3, 4, 2, generator=draw) * 2 - 1
    kept, places = images.clone(), at.clone()
    found = cartesian(images, at, size=6)
    assert found.shape == (3, 4, 2, 6, 6)
    assert found.dtype == dtype
    assert images.equal(kept)
    assert at.equal(places)
    for b, u in np.ndindex(3, 4):
        alone = cartesian(images[b : b + 1], at[b, u : u + 1], size=6)
        torch.testing.assert_close(found[b, u], alone[0, 0])
    torch.testing.assert_close(cartesian(images, at[1], size=6)[1], found[1])


def test_gradients_flow_through_the_control():
    image = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    at = torch.tensor([[0.0, 0.0], [0.9, -0.4]])
    assert torch.autograd.gradcheck(lambda x: cartesian(x, at, 4), image)


# --- what a network is shown ------------------------------------------------------------------------------------------

KINDS = {"photos-disc": "disc", "photos-logpolar": "log-polar", "scenes-gap": "whole"}


@pytest.fixture(scope="module", params=KINDS)
def net(request):
    return networks.load(request.param, "cpu")


def test_from_the_centre_of_its_own_images_a_network_sees_its_view(net):
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = views(x, None, net)
    assert found.shape == (2, 1, 3, 64, 64)
    torch.testing.assert_close(found[:, 0], view(x, net), atol=1e-5, rtol=0)
    torch.testing.assert_close(views(x, torch.zeros(1, 2), net.card), found)
    with torch.no_grad():
        torch.testing.assert_close(net(found[:, 0]), net(view(x, net)), atol=1e-3, rtol=1e-3)


def test_from_elsewhere_it_sees_the_window_around_its_fixation(net):
    x = torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    pixels = [(80, 64), (48, 40), (0, 0), (160, 100)]  # x, y from the corner
    at = torch.tensor([[x / 80 - 1, y / 64 - 1] for x, y in pixels])
    found = views(x, at, net, r_max=0.5)
    assert found.shape == (2, 4, 3, 64, 64)
    padded = F.pad(x, (32, 32, 32, 32))
    windows = torch.stack([padded[:, :, y : y + 64, x : x + 64] for x, y in pixels], 1)
    rows = slice(2, None) if KINDS[net.card.name] == "log-polar" else slice(None)  # the rim looks beyond the window
    for u in range(4):
        wanted = view(windows[:, u], net)
        torch.testing.assert_close(found[:, u, :, rows], wanted[:, :, rows], atol=1e-4, rtol=0)
    assert viewer(net, 0.5)(x, at).equal(found)
    assert viewer(net.card)(x, at).equal(views(x, at, net))
    assert viewer(net)(x, None).shape == (2, 1, 3, 64, 64)


def test_fixations_of_their_own_equal_a_loop(net):
    draw = torch.Generator().manual_seed(4)
    x, at = torch.randn(3, 3, 96, 80, generator=draw), torch.rand(3, 4, 2, generator=draw) * 2 - 1
    found = views(x, at, net, r_max=0.7)
    for b, u in np.ndindex(3, 4):
        alone = views(x[b : b + 1], at[b, u : u + 1], net, r_max=0.7)
        torch.testing.assert_close(found[b, u], alone[0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(views(x, at[2], net, r_max=0.7)[2], found[2], atol=1e-5, rtol=0)


def test_a_log_polar_network_keeps_its_32_to_1():
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    wanted = log_polar(x, None, (64, 64), r_min=0.5 / 32, r_max=0.5)
    assert views(x, None, networks.card("photos-logpolar"), r_max=0.5).equal(wanted)


def test_a_disc_network_sees_a_larger_field_in_as_many_pixels():
    # Twice the field in half the resolution: 2 x 2 pixels a sample, read between the four.
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    whole = views(x, None, networks.card("scenes-gap"))[:, 0]
    torch.testing.assert_close(whole, F.avg_pool2d(x, 2), atol=1e-5, rtol=0)
    disc = views(x, None, networks.card("photos-disc"))[:, 0]
    torch.testing.assert_close(disc, inscribed_disc(F.avg_pool2d(x, 2)), atol=1e-5, rtol=0)


VIEWS_OF_TWO = torch.rand(2, 3, 1, 4, 5)
THREE = torch.zeros(3, 2)
DISC, POLAR = networks.card("photos-disc"), networks.card("photos-logpolar")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: inverse_log_polar(VIEWS_OF_TWO[0], (8, 8), THREE), r"views must be .* got \(3, 1, 4, 5\)"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO[..., :1], (8, 8), THREE), "views must be .*n_angles >= 2"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO[..., :1, :], (8, 8), THREE), "views must be .*n_radii >= 2"),
        (lambda: inverse_log_polar([1.0], (8, 8)), "views must be .*got list"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO * math.nan, (8, 8), THREE), "finite"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO.long(), (8, 8), THREE), "floating point"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO[:0], (8, 8), THREE), "empty"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, 8, THREE), r"shape must be \(height, width\), got 8"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, (8, 1), THREE), "width must be"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, (8.0, 8), THREE), "height must be"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, (8, 8)), "fixations must be 3, one a view, got 1"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, (8, 8), THREE[:2]), "fixations must be 3, one a view, got 2"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, (8, 8), torch.zeros(1, 3, 2)), "fixations must be"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, (8, 8), THREE + 2), r"fixations .*in \[-1, 1\]"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, (8, 8), THREE, r_min=1.0), "r_min"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, (8, 8), THREE, r_max=math.inf), "r_max"),
        (lambda: inverse_log_polar(VIEWS_OF_TWO, (8, 8), THREE, start_angle=math.nan), "start_angle"),
        (lambda: cartesian(IMAGES[0]), "x must have"),
        (lambda: cartesian(IMAGES * math.nan), "x must be finite"),
        (lambda: cartesian(IMAGES, torch.zeros(3, 1, 2)), "fixations"),
        (lambda: cartesian(IMAGES, torch.full((1, 2), 1.01)), "fixations"),
        (lambda: cartesian(IMAGES, size=1), "size"),
        (lambda: cartesian(IMAGES, size=2.5), "size"),
        (lambda: cartesian(IMAGES, size=True), "size"),
        (lambda: cartesian(IMAGES, r_max=0), "r_max"),
        (lambda: cartesian(IMAGES, r_max=0.0), "r_max"),
        (lambda: cartesian(IMAGES, r_max=-1.0), "r_max"),
        (lambda: cartesian(IMAGES, r_max="1"), "r_max"),
        (lambda: log_polar(IMAGES, antialias=True, r_max=0.01), "r_min"),
        (lambda: log_polar(IMAGES, torch.zeros(0, 2), antialias=True), "fixations"),
        (lambda: views(IMAGES, None, nn.Identity()), "must come from networks.load"),
        (lambda: viewer(nn.Identity())(IMAGES, None), "must come from networks.load"),
        (lambda: views(IMAGES[0], None, DISC), "x must have"),
        (lambda: views(IMAGES, torch.zeros(3), POLAR), "fixations"),
        (lambda: views(IMAGES, None, DISC, r_max=0.0), "r_max"),
        (lambda: views(IMAGES, None, POLAR, r_max=-1.0), "r_max"),
    ],
)
def test_bad_input_of_the_way_back_and_of_views_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Two messages that blame another argument than the one that was wrong.
@pytest.mark.parametrize("r_max", [math.nan, math.inf])
def test_a_radius_that_is_no_number_is_named(r_max):
    with pytest.raises(ValueError, match=r"^r_max must be"):
        cartesian(IMAGES, r_max=r_max)
    with pytest.raises(ValueError, match=r"^r_max must be"):
        views(IMAGES, None, POLAR, r_max=r_max)


@pytest.mark.parametrize("r_max", [None, "1"])
def test_a_radius_of_a_log_polar_network_that_is_no_number_is_named(r_max):
    with pytest.raises(ValueError, match=r"^r_max must be"):
        views(IMAGES, None, POLAR, r_max=r_max)


def test_bad_values_of_views_are_blamed_on_views():
    with pytest.raises(ValueError, match=r"^views must be finite"):
        inverse_log_polar(VIEWS_OF_TWO * math.nan, (8, 8), THREE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_everything_is_the_same_on_the_gpu():
    x, at = torch.rand(2, 3, 40, 50), torch.rand(2, 3, 2) * 2 - 1
    for fixations in (at, at.cuda()):
        made = log_polar(x.cuda(), fixations, (9, 8), antialias=True)
        assert made.is_cuda
        torch.testing.assert_close(made.cpu(), log_polar(x, at, (9, 8), antialias=True), atol=1e-4, rtol=0)
        back = inverse_log_polar(made, (20, 30), fixations)
        assert back.is_cuda
        torch.testing.assert_close(back.cpu(), inverse_log_polar(made.cpu(), (20, 30), at), atol=1e-4, rtol=0)
        cut = cartesian(x.cuda(), fixations, 10)
        assert cut.is_cuda
        torch.testing.assert_close(cut.cpu(), cartesian(x, at, 10), atol=1e-4, rtol=0)
        assert views(x.cuda(), fixations, POLAR).is_cuda
