"""Log-polar sampling against hand-worked values, plain loops and the symmetries it must have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.retina import LogPolar, cartesian, inscribed_disc, inverse_log_polar, log_polar

RADII, ANGLES = 64, 96


def seen(image: torch.Tensor, **options: float) -> torch.Tensor:
    return log_polar(image, size=(RADII, ANGLES), r_min=1 / 16, **options)[0, 0, 0]


def test_row_0_is_the_periphery_and_the_last_the_fovea():
    image = torch.zeros(1, 1, 64, 64)
    image[..., 28:36, 28:36] = 1  # a bright centre
    view = seen(image)
    assert view[0].abs().max() == 0
    assert view[-1].min().item() == pytest.approx(1)


def test_a_translation_is_neither():
    image = gaussians((96, 96))
    plain, moved = seen(image), seen(image.roll(12, dims=-1))
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


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.01), (torch.float16, 0.001), (torch.float64, 1e-6)])
def test_every_precision_samples_the_same_places(dtype, error):
    image = torch.rand(1, 1, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)
    view = log_polar(image)
    assert view.dtype == dtype
    torch.testing.assert_close(view.double(), log_polar(image.float()).double(), atol=error + 1e-4, rtol=0)


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


def rotation_error(view_of, shape, steps, **spots):
    turned = view_of(gaussians(shape, turn=2 * math.pi * steps / 224, **spots))
    return (turned - view_of(gaussians(shape, **spots)).roll(steps, 1)).abs().max()


def zoom_error(view_of, shape, rows, **spots):
    zoomed = view_of(gaussians(shape, zoom=32 ** (rows / 223), **spots))
    return (zoomed[:-rows] - view_of(gaussians(shape, **spots))[rows:]).abs().max()


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


@pytest.mark.parametrize(("shape", "start_angle"), [((224, 224), 0.0), ((112, 224), 1.0), ((224, 112), -2.5)])
def test_there_and_back_loses_little_of_a_smooth_image(shape, start_angle):
    image = gaussians(shape)
    fixations = torch.tensor([[0.0, 0.0], [0.25, -0.25], [-0.5, 0.3], [0.1, 0.6]])
    views = log_polar(image, fixations, FINE, start_angle=start_angle)
    back = inverse_log_polar(views, shape, fixations, start_angle=start_angle)
    assert back.shape == (1, 4, 1, *shape)
    contrast = image.max() - image.min()
    for u, (px, py) in enumerate(fixations.tolist()):
        y = (torch.arange(shape[0]) + 0.5 - (py + 1) * shape[0] / 2)[:, None] / (min(shape) / 2)
        x = (torch.arange(shape[1]) + 0.5 - (px + 1) * shape[1] / 2) / (min(shape) / 2)
        radius = (x**2 + y**2).sqrt()
        lost = (back[0, u, 0] - image[0, 0]).abs()
        assert lost[(radius >= 2**-5) & (radius <= 1)].max() < 0.02 * contrast
        assert back[0, u, 0][radius > 1.001].abs().max() == 0


def test_the_way_back_equals_a_plain_loop():
    draw = torch.Generator().manual_seed(0)
    views = torch.rand(2, 3, 1, 4, 5, generator=draw)
    fixations = torch.rand(2, 3, 2, generator=draw) * 2 - 1
    height, width, r_min, r_max, start = 7, 10, 0.2, 1.3, 0.7
    back = inverse_log_polar(views, (height, width), fixations, r_min, r_max, start)
    for b, u, i, j in np.ndindex(2, 3, height, width):
        x = (j + 0.5 - (fixations[b, u, 0].item() + 1) * width / 2) / 3.5  # half the shorter side
        y = (i + 0.5 - (fixations[b, u, 1].item() + 1) * height / 2) / 3.5
        radius, angle = math.hypot(x, y), (math.atan2(y, x) - start) % (2 * math.pi)
        expected = 0.0
        if radius <= r_max:
            row = math.log(r_max / max(radius, r_min)) / math.log(r_max / r_min) * 3
            column = angle / (2 * math.pi) * 5
            top, left = min(int(row), 2), int(column) % 5
            down, right = row - top, column - int(column)
            view = views[b, u, 0]
            upper = (1 - right) * view[top, left] + right * view[top, (left + 1) % 5]
            lower = (1 - right) * view[top + 1, left] + right * view[top + 1, (left + 1) % 5]
            expected = ((1 - down) * upper + down * lower).item()
        assert back[b, u, 0, i, j].item() == pytest.approx(expected, abs=1e-5)


def test_the_seam_closes():
    # Columns 0 .. 3 look right, down, left and up. A pixel 45 degrees above the x axis lies half way between the last
    # column (4) and the first (1): 2.5. One 45 degrees below it is half way between 1 and 2: 1.5.
    views = torch.tensor([1.0, 2, 3, 4]).expand(1, 1, 1, 3, 4)
    back = inverse_log_polar(views, (4, 4))[0, 0, 0]
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
    views = torch.arange(12.0).view(1, 1, 1, 3, 4)  # the fovea is 8 9 10 11
    back = inverse_log_polar(views, (5, 5), r_min=0.9)[0, 0, 0]
    assert back[2, 3].item() == pytest.approx(8)  # right: (1, 0) pixels, radius 0.4
    assert back[3, 2].item() == pytest.approx(9, abs=1e-5)  # down
    assert back[2, 1].item() == pytest.approx(10, abs=1e-5)  # left
    assert back[0, 0] == 0  # outside


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_way_back_keeps_the_dtype_and_its_input(dtype):
    views = torch.rand(2, 3, 2, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    fixations, before = torch.tensor([[0.0, 0.0], [0.5, 0.5], [-1.0, 0.0]]), views.clone()
    back = inverse_log_polar(views, (9, 12), fixations)
    assert back.dtype == dtype
    assert back.shape == (2, 3, 2, 9, 12)
    assert views.equal(before)
    expected = inverse_log_polar(views.double(), (9, 12), fixations)
    torch.testing.assert_close(back.double(), expected, atol=1e-5 if dtype.itemsize > 2 else 0.01, rtol=0)
    for u in range(3):
        alone = inverse_log_polar(views[1:, u : u + 1], (9, 12), fixations[u : u + 1])
        torch.testing.assert_close(alone[0, 0], back[1, u])


def test_gradients_come_back_through_both_ways_and_the_control():
    image = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    around = torch.tensor([[0.0, 0.0], [0.9, -0.4]])
    assert torch.autograd.gradcheck(lambda x: cartesian(x, around, 4), image)
    assert torch.autograd.gradcheck(lambda x: log_polar(x, around, (4, 8)), image)
    views = torch.rand(1, 2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    fixations = torch.tensor([[0.0, 0.0], [0.3, -0.2]])
    assert torch.autograd.gradcheck(lambda x: inverse_log_polar(x, (5, 6), fixations), views)


def halved(image):
    """Means of 2 x 2 pixels, or of those that are there; one at a time."""
    rows, columns = -(-image.shape[0] // 2), -(-image.shape[1] // 2)
    return torch.tensor(
        [[image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(columns)] for i in range(rows)]
    )


@pytest.mark.parametrize(
    ("shape", "size"), [((32, 32), (12, 3)), ((16, 32), (6, 8)), ((21, 35), (4, 40)), ((21, 35), (12, 3))]
)
def test_antialiased_samples_equal_a_plain_loop(shape, size):
    image = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    fixation, r_min, r_max = (0.25, -0.125), 0.1, 0.9
    view = log_polar(image[None, None], torch.tensor([fixation]), size, r_min, r_max, 0.3, antialias=True)[0, 0, 0]
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
        x = (fixation[0] + 1) * shape[1] / 2 + radius * math.cos(angle)
        y = (fixation[1] + 1) * shape[0] / 2 + radius * math.sin(angle)
        level = max(0.0, math.log2(radius * share))
        level = min(level, math.floor(math.log2(min(shape))))  # the last copy of at least one whole pixel a side
        low = min(int(level), len(copies) - 2)
        values = [bilinear(copies[k], x / 2**k - 0.5, y / 2**k - 0.5) for k in (low, low + 1)]
        assert view[i, j].item() == pytest.approx(values[0] + (level - low) * (values[1] - values[0]), abs=1e-4)
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
    fixations = torch.tensor([[0.0, 0.0], [0.1, -0.1]])
    views = log_polar(ones, fixations, (32, 24), r_max=0.6, antialias=True)
    torch.testing.assert_close(views, torch.ones_like(views), atol=1e-6, rtol=0)
    # Means of a ramp are the ramp: a copy that lay a fraction of a pixel off would show.
    y, x = torch.meshgrid(torch.arange(shape[0]) * 0.3, torch.arange(shape[1]) * 1.0, indexing="ij")
    ramp = (x - y)[None, None]
    smooth, plain = (log_polar(ramp, fixations, (32, 24), r_max=0.6, antialias=a) for a in (True, False))
    torch.testing.assert_close(smooth, plain, atol=1e-3, rtol=0)


def test_the_fovea_is_as_sharp_as_without():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth, plain = (log_polar(image, antialias=a)[0, 0] for a in (True, False))
    # Samples are 2 pi r / 64 pixels apart, a pixel at r = 64 / 2 pi = 10.19 = 32 / 32^(i / 63): i = 20.8.
    torch.testing.assert_close(smooth[:, 21:], plain[:, 21:], atol=1e-6, rtol=0)
    assert (smooth[:, :20] - plain[:, :20]).abs().amax((0, 2)).min() > 0.01


WAYS = {
    "log-polar": lambda x, fixations: log_polar(x, fixations, (7, 9)),
    "antialiased": lambda x, fixations: log_polar(x, fixations, (7, 9), antialias=True),
    "control": lambda x, fixations: cartesian(x, fixations, size=6),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_way_keeps_dtype_input_and_batches(way, dtype):
    draw = torch.Generator().manual_seed(2)
    images, fixations = torch.rand(3, 2, 33, 40, generator=draw).to(dtype), torch.rand(3, 4, 2, generator=draw) * 2 - 1
    before, fixations_before = images.clone(), fixations.clone()
    views = way(images, fixations)
    assert views.shape[:3] == (3, 4, 2)
    assert views.dtype == dtype
    assert images.equal(before)
    assert fixations.equal(fixations_before)
    close = {"atol": 1e-5 if dtype.itemsize > 2 else 0.02, "rtol": 0}
    for b, u in np.ndindex(3, 4):
        alone = way(images[b : b + 1], fixations[b, u : u + 1])
        torch.testing.assert_close(views[b, u], alone[0, 0], **close)
    torch.testing.assert_close(way(images, fixations[1])[1], views[1], **close)


def test_gradients_flow_through_the_pyramid():
    image = torch.rand(1, 1, 9, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: log_polar(x, None, (4, 5), 0.1, 0.9, antialias=True), image)
    layer = LogPolar((4, 5), r_min=0.1, r_max=0.9, antialias=True)
    touched = torch.autograd.grad(layer(image).sum(), image)[0] != 0
    plain = torch.autograd.grad(LogPolar((4, 5), r_min=0.1, r_max=0.9)(image).sum(), image)[0] != 0
    assert touched.sum() > plain.sum()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 50)])
def test_images_of_a_few_pixels_have_a_pyramid_too(shape):
    view = log_polar(torch.ones(1, 1, *shape), None, (4, 3), 0.1, 1.0, antialias=True)
    assert view.isfinite().all()
    assert view.max() <= 1 + 1e-6


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
    fixations = torch.tensor([[2 * x / shape[1] - 1, 2 * y / shape[0] - 1] for x, y in corners])
    views = cartesian(image, fixations, r_max=0.5, disc=disc)
    assert views.shape == (1, 5, 2, 16, 16)
    padded = F.pad(image, (8, 8, 8, 8))
    inside = torch.ones(16, 16)
    if disc:  # centres within 8 pixels of the middle
        inside = torch.tensor([[float((i - 7.5) ** 2 + (j - 7.5) ** 2 <= 64) for j in range(16)] for i in range(16)])
    for u, (x, y) in enumerate(corners):
        torch.testing.assert_close(views[0, u], padded[0, :, y : y + 16, x : x + 16] * inside, atol=1e-5, rtol=0)


def test_other_sizes_equal_a_plain_loop():
    image = torch.rand(9, 14, generator=torch.Generator().manual_seed(0))
    view = cartesian(image[None, None], torch.tensor([[0.3, -0.6]]), size=5, r_max=0.8)[0, 0, 0]
    for i, j in np.ndindex(5, 5):
        x, y = (0.8 * ((k + 0.5) * 2 / 5 - 1) for k in (j, i))
        expected = (
            bilinear(image, 1.3 * 7 - 0.5 + 4.5 * x, 0.4 * 4.5 - 0.5 + 4.5 * y) if math.hypot(x, y) <= 0.8 else 0.0
        )
        assert view[i, j].item() == pytest.approx(expected, abs=1e-5)


def test_the_image_s_own_pixels_are_as_many_as_the_square_holds():
    image = torch.rand(1, 1, 20, 30)
    assert cartesian(image).shape == (1, 1, 1, 20, 20)
    assert cartesian(image, r_max=0.5).shape[-2:] == (10, 10)
    assert cartesian(image, r_max=1.5).shape[-2:] == (30, 30)
    assert cartesian(image, r_max=2).shape[-2:] == (40, 40)  # a whole number will do
    assert cartesian(image, r_max=1e-3).shape[-2:] == (2, 2)
    assert cartesian(image, size=np.int64(7)).shape[-2:] == (7, 7)


IMAGES = torch.rand(2, 3, 16, 16)
VIEWS = torch.rand(2, 3, 1, 4, 5)
THREE = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_polar(IMAGES[0]), r"x must have shape .* got \(3, 16, 16\)"),
        (lambda: log_polar(IMAGES, size=64), "size must"),
        (lambda: log_polar(IMAGES, antialias=True, r_max=0.01), "r_min must"),
        (lambda: inverse_log_polar(VIEWS[0], (8, 8), THREE), r"views must be .* got \(3, 1, 4, 5\)"),
        (lambda: inverse_log_polar(VIEWS[..., :1], (8, 8), THREE), "views must be .*n_angles >= 2"),
        (lambda: inverse_log_polar(VIEWS, 8, THREE), "shape must"),
        (lambda: inverse_log_polar(VIEWS, (8, 8)), "fixations must be 3, one a view, got 1"),
        (lambda: cartesian(IMAGES * math.nan), "x must be finite"),
        (lambda: cartesian(IMAGES, torch.full((1, 2), 1.01)), "fixations must"),
        (lambda: cartesian(IMAGES, size=1), "size must"),
        (lambda: cartesian(IMAGES, r_max=0), "r_max must"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_everything_is_the_same_on_the_gpu():
    x, on_cpu = torch.rand(2, 3, 40, 50), torch.rand(2, 3, 2) * 2 - 1
    for fixations in (on_cpu, on_cpu.cuda()):
        views = log_polar(x.cuda(), fixations, (9, 8), antialias=True)
        assert views.is_cuda
        torch.testing.assert_close(views.cpu(), log_polar(x, on_cpu, (9, 8), antialias=True), atol=1e-4, rtol=0)
        back = inverse_log_polar(views, (20, 30), fixations)
        assert back.is_cuda
        torch.testing.assert_close(back.cpu(), inverse_log_polar(views.cpu(), (20, 30), on_cpu), atol=1e-4, rtol=0)
        cut = cartesian(x.cuda(), fixations, 10)
        assert cut.is_cuda
        torch.testing.assert_close(cut.cpu(), cartesian(x, on_cpu, 10), atol=1e-4, rtol=0)
