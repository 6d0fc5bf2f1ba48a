"""Blurs against scipy and torchvision, maps stretched from the formula."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from torchvision.transforms.functional import gaussian_blur

from helpers.filters import blurred, dilate_masks, upsample

DTYPES = (torch.float32, torch.float64)

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def images(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def by_scipy(x, radius):
    # (B, C, H, W); "mirror" is the reflection about the centre of the border's pixels
    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, radius, radius), mode="mirror", truncate=3))


# blurred


@pytest.mark.parametrize("radius", [0.3, 0.5, 1, 2, 2.7, 5])
@pytest.mark.parametrize("size", [(31, 31), (32, 45), (40, 33)])
def test_blur_is_scipys(size, radius):
    x = images(2, 3, *size)
    close(blurred(x, radius), by_scipy(x, radius))


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_blur_is_torchvisions_with_three_standard_deviations(radius):
    x = images(2, 3, 31, 40)
    close(blurred(x, radius), gaussian_blur(x, 6 * radius + 1, radius))


# exp(-k^2 / 2) for k = 0 .. 3, and what a row of them sums up to: 1 + 2 (0.607 + 0.135 + 0.011)
BELL = torch.tensor([1, 0.6065306597126334, 0.1353352832366127, 0.0111089965382423], dtype=torch.float64)
TOTAL = 1 + 2 * BELL[1:].sum()


def test_blur_of_a_point_by_hand():
    x = torch.zeros(1, 1, 9, 11, dtype=torch.float64)
    x[0, 0, 4, 5] = 1
    actual = blurred(x, 1)[0, 0]
    for down in range(4):
        for right in range(4):
            close(actual[4 + down, 5 - right], BELL[down] * BELL[right] / TOTAL**2)
    assert actual[0].abs().max() == actual[:, 9].abs().max() == 0  # beyond three standard deviations: nothing


def test_the_border_is_mirrored_without_repeating_it():
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[..., 1] = 1  # column 1; mirrored about column 0 it is column -1 too, so column 0 has it twice
    expected = torch.stack([2 * BELL[1], BELL[0] + BELL[2], BELL[1] + BELL[3], BELL[2]]) / TOTAL
    close(blurred(x, 1)[0, 0, 4, :4], expected)


def test_the_radius_is_pillows():
    # Pillow's filter is three box blurs in bytes, an approximation: far from the border they agree to a few levels.
    picture = torch.randint(0, 256, (64, 64), generator=seeded(4), dtype=torch.uint8)
    soft = Image.fromarray(picture.numpy()).filter(ImageFilter.GaussianBlur(3))
    actual = blurred(picture.double()[None, None], 3)[0, 0]
    inner = (slice(12, -12), slice(12, -12))
    assert (actual - torch.from_numpy(np.array(soft)).double())[inner].abs().max() < 3
    assert actual[inner].std() > 5  # so that the agreement means something


@pytest.mark.parametrize("size", [(31, 31), (12, 40), (2, 2), (1, 9), (1, 1)])
@pytest.mark.parametrize("radius", [0.4, 5, 11])
def test_a_wide_filter_reaches_as_far_as_mirroring_once_allows_and_keeps_range_and_constants(size, radius):
    # Mirrored once about its border pixel, a side of n pixels goes on for n - 1 pixels.
    x = images(2, 1, *size)
    reach = [min(round(3 * radius), n - 1) for n in size]
    expected = x.numpy()
    for axis, far in zip((2, 3), reach, strict=True):
        offsets = np.arange(-far, far + 1)
        weights = np.exp(-0.5 * (offsets / radius) ** 2)
        padded = np.pad(expected, [(far, far) if k == axis else (0, 0) for k in range(4)], mode="reflect")
        n = expected.shape[axis]
        parts = [w * np.take(padded, np.arange(n) + far + o, axis) for w, o in zip(weights, offsets, strict=True)]
        expected = sum(parts) / weights.sum()
    close(blurred(x, radius), torch.from_numpy(expected))
    x = images(2, 3, *size)
    for wide in (radius, 500, 1e6, 1e308):
        actual = blurred(x, wide)
        assert actual.min() >= x.min() - 1e-12
        assert actual.max() <= x.max() + 1e-12
        close(blurred(torch.full_like(x, 3.7), wide), torch.full_like(x, 3.7))


@pytest.mark.parametrize("radius", [1e-3, 1e-20, 1e-50, 1e-320])
def test_a_radius_of_next_to_nothing_changes_nothing(radius):
    x = images(1, 1, 5, 5, dtype=torch.float32)
    assert blurred(x, radius).equal(x)


@pytest.mark.parametrize("radius", [0, 0.0])
def test_radius_0_is_a_copy(radius):
    x = images(2, 3, 6, 5)
    actual = blurred(x, radius)
    assert actual.equal(x)
    assert actual.data_ptr() != x.data_ptr()


@each_dtype
def test_blur_keeps_dtype_and_input_and_mixes_neither_images_nor_channels(dtype):
    x = images(4, 3, 12, 17, dtype=dtype)
    before = x.clone()
    actual = blurred(x, 2)
    assert actual.dtype == dtype
    assert actual.shape == x.shape
    assert x.equal(before)
    for i in range(4):
        for c in range(3):
            alone = blurred(x[i : i + 1, c : c + 1], 2)[0, 0]
            torch.testing.assert_close(actual[i, c], alone, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)


# upsample


def test_upsampling_a_row_by_hand():
    # pixel i of 4 lies at (i + 1/2) / 2 - 1/2 = -1/4, 1/4, 3/4, 5/4 cells
    assert upsample(torch.tensor([[0.0, 4]]), (1, 4)).tolist() == [[0, 1, 3, 4]]
    assert upsample(torch.tensor([[0.0], [4]]), (4, 1)).tolist() == [[0], [1], [3], [4]]
    assert upsample(torch.tensor([[0.0, 4]]), (2, 4)).tolist() == [[0, 1, 3, 4]] * 2
    # pixel i of 6: (i + 1/2) / 3 - 1/2 = -1/3, 0, 1/3, 2/3, 1, 4/3 cells
    actual = upsample(torch.tensor([[0.0, 3]], dtype=torch.float64), (1, 6))
    close(actual, torch.tensor([[0.0, 0, 1, 2, 3, 3]], dtype=torch.float64))


def stretched(image, size):
    """Bilinear, pixel by pixel, from the formula."""
    (h, w), actual = image.shape, torch.zeros(size, dtype=image.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            total = 0.0
            for a in range(h):
                for b in range(w):
                    total += max(0, 1 - abs(y - a)) * max(0, 1 - abs(x - b)) * image[a, b].item()
            actual[i, j] = total
    return actual


@pytest.mark.parametrize("size", [(9, 15), (7, 11), (3, 5), (4, 3), (1, 1), (2, 40)])
def test_upsampling_from_the_formula(size):
    maps = images(3, 5)
    close(upsample(maps, size), stretched(maps, size))


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_upsampling_any_leading_axes_is_torchs(lead, dtype):
    maps = images(*lead, 3, 5, dtype=dtype)
    before = maps.clone()
    expected = F.interpolate(maps.view(-1, 1, 3, 5), (8, 7), mode="bilinear", align_corners=False, antialias=False)
    actual = upsample(maps, (8, 7))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, expected.view(*lead, 8, 7))
    assert torch.equal(maps, before)
    for index in range(lead[0] if lead else 0):
        assert torch.equal(actual[index], upsample(maps[index], [8, 7]))


def test_upsampling_keeps_signs_and_stays_within_the_maps_own_range():
    maps = images(4, 5, 6) - 5
    large = upsample(maps, (31, 17))
    for small, wide in zip(maps, large, strict=True):
        assert small.min() - 1e-12 <= wide.min()  # up to rounding
        assert wide.max() <= small.max() + 1e-12
        assert wide[0, 0] == small[0, 0]  # the border goes on
        assert wide[-1, -1] == small[-1, -1]
    assert torch.equal(upsample(maps, (5, 6)), maps)
    assert torch.equal(upsample(torch.full((1, 1), -3.0), (4, 6)), torch.full((4, 6), -3.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_upsampling_on_the_gpu():
    maps = images(2, 3, 4, 5)
    torch.testing.assert_close(upsample(maps.cuda(), (9, 8)), upsample(maps, (9, 8)).cuda())


def test_an_offset_moves_the_map_by_that_many_pixels():
    maps = torch.zeros(1, 4, 4, dtype=torch.float64)
    maps[0, 1, 2] = 1  # centre at row 6, column 10 of 16 x 16 pixels
    rows, columns = (torch.arange(16, dtype=torch.float64) + 0.5 for _ in range(2))
    for offset in (0.0, 1.0, 2.5, -3.0):
        large = upsample(maps, (16, 16), offset=offset)[0]
        # A tent of slope 1 / 4 around the centre, by hand; far enough from the border to be whole.
        tent = [(1 - (centres - at - offset).abs() / 4).clamp(min=0) for centres, at in ((rows, 6), (columns, 10))]
        if offset != 2.5:
            torch.testing.assert_close(large, tent[0][:, None] * tent[1])
        else:
            torch.testing.assert_close(large[:12, :12], (tent[0][:, None] * tent[1])[:12, :12])


def test_an_offset_of_almost_nothing_is_none_and_the_border_goes_on():
    maps = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(upsample(maps, (20, 30), offset=1e-9), upsample(maps, (20, 30)), rtol=0, atol=1e-7)
    assert (upsample(maps, (20, 30), offset=40.0) == maps[..., :1, :1]).all()


# what is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: upsample(images(5), (4, 4)), "maps must"),
        (lambda: upsample(images(3, 3), 8), r"size must be \(H, W\), two positive integers"),
        (lambda: upsample(images(3, 3), (8, 8), offset=float("nan")), "offset must be a finite number"),
        (lambda: blurred(images(2, 3, 8, 8), -0.1), "radius must be a finite number from 0 on"),
        (lambda: blurred(images(3, 8, 8), 0), "x must"),
        (lambda: dilate_masks(torch.ones(3, 3), 1), "masks must be bool"),
        (lambda: dilate_masks(torch.ones(3, 3) > 0, -1), "tolerance must be a finite number from 0 on, got -1"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


# masks grown by a margin


@pytest.mark.parametrize(("tolerance", "area"), [(0, 1), (0.9, 1), (1, 5), (1.5, 9), (2, 13), (60, 35)])
def test_a_dilated_point_is_a_disc(tolerance, area):
    masks = torch.zeros(2, 1, 5, 7, dtype=torch.bool)
    masks[0, 0, 2, 3] = True
    grown = dilate_masks(masks, tolerance)
    assert grown.sum((-2, -1)).tolist() == [[area], [0]]
    distance = torch.hypot(torch.arange(5.0)[:, None] - 2, torch.arange(7.0) - 3)
    assert torch.equal(grown[0, 0], distance <= tolerance)


@pytest.mark.parametrize("offset", [0.0, 3.5])
def test_places_are_not_rounded_to_the_precision_of_half_maps(offset):
    maps = torch.rand(1, 8, 8, generator=seeded(0)).bfloat16()
    large = upsample(maps, (224, 224), offset=offset)
    assert large.dtype == torch.bfloat16
    torch.testing.assert_close(large.float(), upsample(maps.float(), (224, 224), offset=offset), rtol=0, atol=0.004)
