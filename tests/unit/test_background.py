import itertools
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from support.untouched import Boom, assert_untouched
from torch import nn
from torchvision.transforms.functional import gaussian_blur

from helpers.background import accuracy_under_blur, blur_inside, blur_outside, salient_region, same_area_control
from helpers.filters import blurred

DTYPES = (torch.float32, torch.float64)
KINDS = ("shift", "random", "center")
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_kind = pytest.mark.parametrize("kind", KINDS)
each_leak = pytest.mark.parametrize("leak", [True, False])
each_half = pytest.mark.parametrize("blur", [blur_outside, blur_inside])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def images(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def somewhere(*shape, seed=2, share=0.4):
    return torch.rand(*shape, generator=seeded(seed)) < share


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def by_scipy(x, radius):
    # (B, C, H, W); "mirror" is the reflection about the centre of the border's pixels
    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, radius, radius), mode="mirror", truncate=3))


# salient_region


def test_the_region_by_hand():
    # 0 .. 10: a fifth of the range is 2, and what reaches it belongs to the object
    assert salient_region(torch.tensor([[0.0, 1.99], [2, 10]])).tolist() == [[False, False], [True, True]]
    # -5 .. 5: the cut is -5 + 10 / 5 = -3; the range alone, 2, would leave the last one
    assert salient_region(torch.tensor([[-5.0, -4], [-3, 5]])).tolist() == [[False, False], [True, True]]
    # 10 .. 20: the cut is 12; the range alone, 2, would take all
    assert salient_region(torch.tensor([[10.0, 11], [15, 20]])).tolist() == [[False, False], [True, True]]
    # 0 .. 8: half of the range is 4, three quarters of it 6
    assert salient_region(torch.tensor([[0.0, 4], [6, 8]]), 0.5).tolist() == [[False, True], [True, True]]
    assert salient_region(torch.tensor([[0.0, 4], [6, 8]]), 0.75).tolist() == [[False, False], [True, True]]


@each_dtype
def test_threshold_0_is_everything_and_1_the_peaks(dtype):
    maps = images(300, 5, 4, dtype=dtype)
    maps[:, 0, 0] = maps[:, 4, 3] = maps.amax((1, 2))  # two peaks
    assert salient_region(maps, 0).all()
    assert salient_region(maps, 1).equal(maps == maps.amax((1, 2), keepdim=True))
    assert salient_region(maps, 1.0).flatten(1).sum(1).min() == 2


@each_dtype
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e-30])
@pytest.mark.parametrize("threshold", [0, 0.2, 1])
def test_a_constant_map_is_everything(dtype, value, threshold):
    found = salient_region(torch.full((2, 3, 4), value, dtype=dtype), threshold)
    assert found.dtype == torch.bool
    assert found.shape == (2, 3, 4)
    assert found.all()


def test_adding_to_a_map_or_scaling_it_changes_no_region():
    maps = torch.randint(0, 64, (5, 6, 7), generator=seeded(3)).double() / 8  # sums of eighths are exact
    region = salient_region(maps, 0.25)
    assert 0.5 < region.double().mean() < 0.9
    for other in (maps + 5, maps - 100, 4 * maps, 0.5 * maps - 3):
        assert salient_region(other, 0.25).equal(region)


@each_dtype
def test_every_map_has_its_own_range(dtype):
    maps = images(2, 3, 6, 5, dtype=dtype) * torch.tensor([1.0, 100, 1e-3], dtype=dtype)[:, None, None]
    kept = maps.clone()
    region = salient_region(maps, 0.6)
    assert region.shape == maps.shape
    assert region.dtype == torch.bool
    assert maps.equal(kept)
    for i in range(2):
        for j in range(3):
            one = maps[i, j].tolist()
            low, high = min(map(min, one)), max(map(max, one))
            wanted = [[value - low >= 0.6 * (high - low) for value in row] for row in one]
            assert region[i, j].tolist() == wanted == salient_region(maps[i, j], 0.6).tolist()
    assert salient_region(maps, 0.6)[0].equal(salient_region(maps[0], 0.6))


def test_the_default_threshold_is_a_fifth():
    maps = images(4, 9, 9)
    assert salient_region(maps).equal(salient_region(maps, 0.2))
    assert not salient_region(maps).equal(salient_region(maps, 0.25))


@pytest.mark.parametrize(("dtype", "greatest"), [(torch.float32, 3e38), (torch.float64, 1.7e308), (torch.float16, 6e4)])
def test_a_range_beyond_the_largest_number_is_no_empty_region(dtype, greatest):
    maps = torch.tensor([[-greatest, 0, greatest]], dtype=dtype)
    assert salient_region(maps).tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        (torch.rand(4), "maps"),
        (torch.tensor(1.0), "maps"),
        (torch.rand(0, 4, 4), "maps"),
        (torch.rand(2, 0, 4), "maps"),
        (torch.ones(2, 4, 4, dtype=torch.long), "maps.*int64"),
        (torch.ones(2, 4, 4, dtype=torch.bool), "maps.*bool"),
        (torch.ones(2, 4, 4, dtype=torch.complex64), "maps"),
        (np.ones((2, 4, 4)), "maps.*ndarray"),
        (None, "maps"),
        (torch.tensor([[0.0, float("nan")]]), "maps must be finite"),
        (torch.tensor([[0.0, float("inf")]]), "maps must be finite"),
        (torch.tensor([[0.0, -float("inf")]]), "maps must be finite"),
    ],
)
def test_bad_maps_are_refused(maps, said):
    with pytest.raises(ValueError, match=said):
        salient_region(maps)


@pytest.mark.parametrize("threshold", [-0.1, 1.01, 20, float("nan"), float("inf"), True, "0.2", None])
def test_bad_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        salient_region(torch.rand(2, 4, 4), threshold)


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


def test_blur_of_a_point_by_hand():
    x = torch.zeros(1, 1, 9, 11, dtype=torch.float64)
    x[0, 0, 4, 5] = 1
    # exp(-k^2 / 2) for k = 0 .. 3, and what a row of them sums up to: 1 + 2 (0.607 + 0.135 + 0.011)
    one = [1, 0.6065306597126334, 0.1353352832366127, 0.0111089965382423]
    total = 1 + 2 * sum(one[1:])
    found = blurred(x, 1)[0, 0]
    for down in range(4):
        for right in range(4):
            close(found[4 + down, 5 - right], torch.tensor(one[down] * one[right] / total**2, dtype=torch.float64))
    assert found[0].abs().max() == found[:, 9].abs().max() == 0  # beyond three standard deviations: nothing


def test_the_border_is_mirrored_without_repeating_it():
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[..., 1] = 1  # column 1; mirrored about column 0 it is column -1 too, so column 0 has it twice
    one = [1, 0.6065306597126334, 0.1353352832366127, 0.0111089965382423]
    total = 1 + 2 * sum(one[1:])
    found = blurred(x, 1)[0, 0, 4]
    close(found[:4], torch.tensor([2 * one[1], one[0] + one[2], one[1] + one[3], one[2]], dtype=torch.float64) / total)


def test_the_radius_is_pillows():
    # Pillow's filter is three box blurs in bytes, an approximation: far from the border they agree to a few levels.
    picture = torch.randint(0, 256, (64, 64), generator=seeded(4), dtype=torch.uint8)
    soft = Image.fromarray(picture.numpy()).filter(ImageFilter.GaussianBlur(3))
    found = blurred(picture.double()[None, None], 3)[0, 0]
    inner = (slice(12, -12), slice(12, -12))
    assert (found - torch.from_numpy(np.array(soft)).double())[inner].abs().max() < 3
    assert found[inner].std() > 5  # so that the agreement means something


@pytest.mark.parametrize("size", [(31, 31), (12, 40), (2, 2), (1, 9), (1, 1)])
@pytest.mark.parametrize("radius", [0.4, 5, 11])
def test_a_wide_filter_reaches_as_far_as_mirroring_once_allows(size, radius):
    # Mirrored once about its border pixel, a side of n pixels goes on for n - 1 pixels.
    x = images(2, 1, *size)
    reach = [min(round(3 * radius), n - 1) for n in size]
    wanted = x.numpy()
    for axis, far in zip((2, 3), reach, strict=True):
        offsets = np.arange(-far, far + 1)
        weights = np.exp(-0.5 * (offsets / radius) ** 2)
        padded = np.pad(wanted, [(far, far) if k == axis else (0, 0) for k in range(4)], mode="reflect")
        n = wanted.shape[axis]
        parts = [w * np.take(padded, np.arange(n) + far + o, axis) for w, o in zip(weights, offsets, strict=True)]
        wanted = sum(parts) / weights.sum()
    close(blurred(x, radius), torch.from_numpy(wanted))


@pytest.mark.parametrize("size", [(16, 16), (5, 40), (2, 7), (1, 1), (1, 12)])
@pytest.mark.parametrize("radius", [0.7, 10, 500, 1e6])
def test_a_wide_filter_keeps_size_range_and_constants(size, radius):
    x = images(2, 3, *size)
    found = blurred(x, radius)
    assert found.shape == x.shape
    assert torch.isfinite(found).all()
    assert found.min() >= x.min() - 1e-12
    assert found.max() <= x.max() + 1e-12
    close(blurred(torch.full_like(x, 3.7), radius), torch.full_like(x, 3.7))


def test_more_radius_is_less_detail():
    x = images(4, 1, 33, 33)
    detail = [float(blurred(x, radius).std()) for radius in (0, 0.5, 1, 2, 4, 8, 16)]
    assert detail == sorted(detail, reverse=True)
    assert detail[-1] < 0.1 * detail[0]


@pytest.mark.parametrize("radius", [1e-3, 1e-20, 1e-50, 1e-320])
def test_a_radius_of_next_to_nothing_changes_nothing(radius):
    x = images(1, 1, 5, 5, dtype=torch.float32)
    assert blurred(x, radius).equal(x)


def test_a_radius_beyond_all_images_is_an_even_mean():
    x = images(1, 1, 5, 5)
    close(blurred(x, 1e308), blurred(x, 1e9))


@pytest.mark.parametrize("radius", [0, 0.0])
def test_radius_0_is_a_copy(radius):
    x = images(2, 3, 6, 5)
    found = blurred(x, radius)
    assert found.equal(x)
    assert found.data_ptr() != x.data_ptr()


@each_dtype
def test_blur_keeps_dtype_and_input_and_mixes_neither_images_nor_channels(dtype):
    x = images(4, 3, 12, 17, dtype=dtype)
    kept = x.clone()
    found = blurred(x, 2)
    assert found.dtype == dtype
    assert found.shape == x.shape
    assert x.equal(kept)
    for i in range(4):
        for c in range(3):
            alone = blurred(x[i : i + 1, c : c + 1], 2)[0, 0]
            torch.testing.assert_close(found[i, c], alone, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)


BAD_IMAGES = [
    None,
    torch.rand(3, 8, 8),
    torch.rand(0, 3, 8, 8),
    torch.ones(2, 3, 8, 8, dtype=torch.uint8),
    torch.full((2, 3, 8, 8), float("nan")),
    torch.full((2, 3, 8, 8), float("inf")),
]
BAD_RADII = [-1, -0.1, float("nan"), float("inf"), True, "2", None, (1, 2)]


@pytest.mark.parametrize("x", BAD_IMAGES, ids=range(len(BAD_IMAGES)))
def test_bad_images_are_refused(x):
    region = torch.ones(2, 8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\bx must"):
        blurred(x, 1)
    with pytest.raises(ValueError, match=r"\bx must"):
        blurred(x, 0)
    for blur in (blur_outside, blur_inside):
        with pytest.raises(ValueError, match=r"\bx must"):
            blur(x, region, 1)
    with pytest.raises(ValueError, match=r"\bx must"):
        accuracy_under_blur(tiny(), x, torch.tensor([0, 1]), region, (1,))


@pytest.mark.parametrize("radius", BAD_RADII)
def test_bad_radii_are_refused(radius):
    x, region = torch.rand(2, 3, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="radius"):
        blurred(x, radius)
    for blur in (blur_outside, blur_inside):
        for leak in (True, False):
            with pytest.raises(ValueError, match="radius"):
                blur(x, region, radius, leak=leak)


# blur_outside, blur_inside


def outside_of(region, x):
    return ~region[:, None].expand_as(x)


@each_leak
@pytest.mark.parametrize("radius", [0.5, 2, 30])
def test_what_is_kept_is_kept_bit_for_bit(leak, radius):
    x, region = images(3, 3, 13, 18, dtype=torch.float32), somewhere(3, 13, 18)
    out = outside_of(region, x)
    found = blur_outside(x, region, radius, leak=leak)
    assert found[~out].equal(x[~out])
    assert (found[out] != x[out]).any()
    found = blur_inside(x, region, radius, leak=leak)
    assert found[out].equal(x[out])
    assert (found[~out] != x[~out]).any()


def test_with_leak_the_rest_is_the_whole_images_blur_and_that_is_the_default():
    x, region = images(3, 3, 21, 18), somewhere(3, 21, 18)
    soft, out = by_scipy(x, 2), outside_of(region, x)
    close(blur_outside(x, region, 2)[out], soft[out])
    close(blur_inside(x, region, 2)[~out], soft[~out])
    assert blur_outside(x, region, 2).equal(blur_outside(x, region, 2, leak=True))
    assert blur_inside(x, region, 2).equal(blur_inside(x, region, 2, leak=True))
    assert not blur_outside(x, region, 2).equal(blur_outside(x, region, 2, leak=False))
    assert not blur_inside(x, region, 2).equal(blur_inside(x, region, 2, leak=False))


@each_leak
def test_the_two_are_each_others_complement(leak):
    x, region = images(2, 3, 13, 18), somewhere(2, 13, 18)
    assert blur_inside(x, region, 2, leak=leak).equal(blur_outside(x, ~region, 2, leak=leak))
    assert blur_outside(x, region, 2, leak=leak).equal(blur_inside(x, ~region, 2, leak=leak))


@pytest.mark.parametrize("radius", [0.5, 1, 2.7])
def test_without_leak_it_is_a_mean_over_the_background_alone(radius):
    x, region = images(2, 3, 19, 24), somewhere(2, 19, 24)
    out = outside_of(region, x)
    wanted = by_scipy(x * out, radius) / by_scipy(out.double(), radius)
    close(blur_outside(x, region, radius, leak=False)[out], wanted[out])
    wanted = by_scipy(x * ~out, radius) / by_scipy((~out).double(), radius)
    close(blur_inside(x, region, radius, leak=False)[~out], wanted[~out])


def test_without_leak_by_hand():
    # One row: object, ground 2, ground 5, object; reach 1 (three standard deviations of 0.33 pixels)
    x = torch.tensor([[[[100.0, 2, 5, 100]]]], dtype=torch.float64)
    region = torch.tensor([[[True, False, False, True]]])
    near = float(np.exp(-0.5 / 0.33**2))  # the neighbour's weight beside 1
    wanted = torch.tensor([100, (2 + 5 * near) / (1 + near), (5 + 2 * near) / (1 + near), 100], dtype=torch.float64)
    close(blur_outside(x, region, 0.33, leak=False)[0, 0, 0], wanted)
    # the object's pixels have each other nowhere near: alone, they stay
    close(blur_inside(x, region, 0.33, leak=False), x)


@pytest.mark.parametrize("radius", [1, 3, 40])
@each_dtype
def test_without_leak_the_object_is_nowhere_in_the_background(radius, dtype):
    x, region = images(3, 3, 16, 20, dtype=dtype), somewhere(3, 16, 20)
    out = outside_of(region, x)
    for other in (0, -7, 1e20):
        changed = torch.where(out, x, other)
        seen = blur_outside(changed, region, radius, leak=False)[out]
        assert seen.equal(blur_outside(x, region, radius, leak=False)[out])
        assert not blur_outside(changed, region, radius)[out].equal(blur_outside(x, region, radius)[out])
        changed = torch.where(out, other, x)
        seen = blur_inside(changed, region, radius, leak=False)[~out]
        assert seen.equal(blur_inside(x, region, radius, leak=False)[~out])


@pytest.mark.parametrize("radius", [0.5, 2, 10, 1000])
def test_without_leak_a_constant_background_stays(radius):
    x, region = images(2, 3, 24, 17), somewhere(2, 24, 17, share=0.8)
    x = torch.where(outside_of(region, x), 0.37, x)
    close(blur_outside(x, region, radius, leak=False), x)
    assert (blur_outside(x, region, radius) - x).abs().max() > 0.01


@each_leak
def test_a_region_that_is_everything_or_nothing(leak):
    x = images(2, 3, 21, 18)
    every = torch.ones(2, 21, 18, dtype=torch.bool)
    soft = by_scipy(x, 2)
    assert blur_outside(x, every, 2, leak=leak).equal(x)
    assert blur_inside(x, ~every, 2, leak=leak).equal(x)
    close(blur_outside(x, ~every, 2, leak=leak), soft)
    close(blur_inside(x, every, 2, leak=leak), soft)
    mixed = torch.stack([every[0], ~every[0]])  # an image each
    close(blur_outside(x, mixed, 2, leak=leak), torch.stack([x[0], soft[1]]))


def test_one_pixel_alone_keeps_its_own_colour_without_leak():
    x = images(1, 3, 15, 15)
    region = torch.zeros(1, 15, 15, dtype=torch.bool)
    region[0, 3, 12] = True
    close(blur_inside(x, region, 4, leak=False), x)
    assert (blur_inside(x, region, 4) - x).abs().max() > 0.1


@each_half
@each_leak
@each_dtype
def test_half_blurs_keep_shape_dtype_and_inputs_and_work_one_by_one(blur, leak, dtype):
    x, region = images(4, 3, 12, 17, dtype=dtype), somewhere(4, 12, 17)
    kept = x.clone(), region.clone()
    found = blur(x, region, 2, leak=leak)
    assert found.shape == x.shape
    assert found.dtype == dtype
    assert found.data_ptr() != x.data_ptr()
    assert x.equal(kept[0])
    assert region.equal(kept[1])
    for i in range(4):
        one = blur(x[i : i + 1], region[i : i + 1], 2, leak=leak)[0]
        torch.testing.assert_close(found[i], one, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)
    assert blur(x, region, 0, leak=leak).equal(x)


BAD_REGIONS = [
    torch.ones(2, 8, 8),
    torch.ones(2, 8, 8, dtype=torch.uint8),
    torch.ones(8, 8, dtype=torch.bool),
    torch.ones(2, 1, 8, 8, dtype=torch.bool),
    torch.ones(1, 8, 8, dtype=torch.bool),
    torch.ones(3, 8, 8, dtype=torch.bool),
    torch.ones(2, 8, 9, dtype=torch.bool),
    torch.ones(2, 4, 8, dtype=torch.bool),
    torch.ones(0, 8, 8, dtype=torch.bool),
    np.ones((2, 8, 8), bool),
    None,
]


@pytest.mark.parametrize("region", BAD_REGIONS, ids=range(len(BAD_REGIONS)))
def test_bad_regions_are_refused(region):
    x = torch.rand(2, 3, 8, 8)
    for blur in (blur_outside, blur_inside):
        with pytest.raises(ValueError, match="region"):
            blur(x, region, 1)
    with pytest.raises(ValueError, match="region"):
        accuracy_under_blur(tiny(), x.double(), torch.tensor([0, 1]), region, (1,))


def test_a_region_of_the_wrong_side_is_told_both():
    with pytest.raises(ValueError, match=re.escape("region must be (2, 8, 9) like x, got (2, 9, 8)")):
        blur_outside(torch.rand(2, 3, 8, 9), torch.ones(2, 9, 8, dtype=torch.bool), 1)


# same_area_control


@each_kind
@pytest.mark.parametrize("size", [(16, 16), (12, 20), (7, 9), (1, 5), (1, 1)])
def test_a_control_has_each_images_area(kind, size):
    region = torch.rand(9, *size, generator=seeded(5)) < torch.linspace(0, 1, 9)[:, None, None]
    region[0], region[8] = False, True
    kept = region.clone()
    found = same_area_control(region, kind, seed=3)
    assert found.shape == region.shape
    assert found.dtype == torch.bool
    assert region.equal(kept)
    assert found.flatten(1).sum(1).equal(region.flatten(1).sum(1))
    assert not found[0].any()
    assert found[8].all()


@each_kind
def test_the_same_seed_is_the_same_control_and_the_global_generator_is_left_alone(kind):
    region = somewhere(6, 16, 20)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = same_area_control(region, kind, seed=4)
    assert torch.random.get_rng_state().equal(before)
    torch.manual_seed(2)
    assert same_area_control(region, kind, seed=4).equal(first)
    assert same_area_control(region, kind).equal(same_area_control(region, kind, seed=0))
    if kind != "center":
        assert not same_area_control(region, kind, seed=5).equal(first)


def test_shift_is_the_default():
    region = somewhere(6, 16, 20)
    assert same_area_control(region).equal(same_area_control(region, "shift"))


def shifts(found, region):
    """Every (down, right) that turns region (H, W) into found."""
    height, width = region.shape
    return [
        (down, right)
        for down in range(height)
        for right in range(width)
        if region.roll((down, right), (0, 1)).equal(found)
    ]


@pytest.mark.parametrize("size", [(16, 16), (8, 20), (24, 12)])
def test_a_shift_is_cyclic_and_of_a_quarter_to_three_quarters_of_each_side(size):
    region = somewhere(40, *size)
    found = same_area_control(region, "shift", seed=1)
    moved = []
    for one, other in zip(found, region, strict=True):
        [only] = shifts(one, other)
        moved.append(only)
    for side, n in enumerate(size):
        by = [move[side] for move in moved]
        assert n / 4 <= min(by)
        assert max(by) <= 3 * n / 4
        assert min(by) < 0.4 * n
        assert max(by) > 0.6 * n
    assert len(set(moved)) > 20  # each image its own, and the two sides not alike
    assert len({(down / size[0], right / size[1]) for down, right in moved if down / size[0] != right / size[1]}) > 15


@pytest.mark.parametrize("side", [2, 3, 5, 6, 7, 9, 10, 11])
def test_a_shift_is_a_quarter_also_of_sides_that_four_does_not_divide(side):
    region = torch.zeros(300, side, side, dtype=torch.bool)
    region[:, 0, 0] = True  # a point: where it lies afterwards is how far it was moved
    found = same_area_control(region, "shift", seed=1)
    down, right = found.any(2).int().argmax(1), found.any(1).int().argmax(1)
    for by in (down, right):
        assert side / 4 <= by.min()
        assert by.max() <= 3 * side / 4


@pytest.mark.parametrize("side", [7, 8, 12, 15])
def test_center_is_the_pixels_nearest_to_the_middle(side):
    middle = (side - 1) / 2
    far = torch.tensor([[(i - middle) ** 2 + (j - middle) ** 2 for j in range(side)] for i in range(side)])
    areas = list(range(0, side * side + 1, 5))
    region = torch.stack([(torch.arange(side * side) < area).view(side, side) for area in areas])
    found = same_area_control(region, "center", seed=2)
    nearest = far.flatten().sort().values
    for one, area in zip(found, areas, strict=True):
        # whichever of equally distant pixels is taken, the distances are the smallest
        assert far[one].sort().values.equal(nearest[:area])


def test_center_in_an_oblong_image_is_the_pixels_nearest_to_the_middle_too():
    region = torch.zeros(1, 9, 21, dtype=torch.bool)
    region[0, 0, :13] = True
    # the 13 pixels within 2 pixels of (4, 10): a diamond of 1, 3, 5, 3, 1
    wanted = torch.tensor([[abs(i - 4) + abs(j - 10) <= 2 for j in range(21)] for i in range(9)])
    assert same_area_control(region, "center")[0].equal(wanted)


def test_center_says_nothing_about_where_the_region_was():
    left, right = torch.zeros(2, 3, 10, 10, dtype=torch.bool)
    left[:, 1:4, :5] = right[:, 5:8, 5:] = True
    assert same_area_control(left, "center", seed=1).equal(same_area_control(right, "center", seed=1))


def test_random_differs_by_image_and_says_nothing_about_where_the_region_was():
    left, right = torch.zeros(2, 8, 24, 32, dtype=torch.bool)
    left[:, 1:9, :10] = right[:, 12:20, 20:30] = True
    found = same_area_control(left, "random", seed=1)
    assert found.equal(same_area_control(right, "random", seed=1))
    assert len({one.numpy().tobytes() for one in found}) == 8


def test_random_regions_grow_with_their_area():
    sizes = [10, 50, 200, 400]
    region = torch.stack([(torch.arange(480) < area).view(1, 20, 24) for area in sizes])
    several = [same_area_control(one.expand(3, -1, -1), "random", seed=7) for one in region]
    for small, large in itertools.pairwise(several):
        assert (large | ~small).all()  # the peaks of the same noise


def test_random_regions_are_blobs():
    region = (torch.arange(64 * 64) < 800).view(1, 64, 64).expand(20, -1, -1)
    found = same_area_control(region, "random", seed=3).double()
    rims = (found[:, 1:] != found[:, :-1]).double().sum((1, 2)) + (found[:, :, 1:] != found[:, :, :-1]).double().sum(
        (1, 2)
    )
    # Independent pixels would change 2 * 0.2 * 0.8 * 8064 = 2540 times; one disc of 800 pixels changes 128 times.
    assert rims.min() > 50
    assert rims.max() < 600


def test_random_regions_do_not_prefer_the_border():
    region = (torch.arange(32 * 32) < 200).view(1, 32, 32).expand(3000, -1, -1)
    often = same_area_control(region, "random", seed=1).double().mean(0)
    # every pixel should be taken 200 / 1024 = 0.195 of the time
    assert often.mean() == pytest.approx(200 / 1024)
    parts = {
        "corners": often[[0, 0, 1, -1, -1, -2], [0, -1, 1, 0, -1, -2]],
        "edges": often[0, 12:20],
        "middle": often[12:20, 12:20],
    }
    for name, part in parts.items():
        assert float(part.mean()) == pytest.approx(200 / 1024, rel=0.15), name


@pytest.mark.parametrize("kind", ["Shift", "centre", "", None, 3])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(ValueError, match="kind must be"):
        same_area_control(somewhere(2, 8, 8), kind)


@each_kind
@pytest.mark.parametrize(
    "region",
    [
        torch.ones(2, 8, 8),
        torch.ones(2, 8, 8, dtype=torch.uint8),
        torch.ones(8, 8, dtype=torch.bool),
        torch.ones(2, 1, 8, 8, dtype=torch.bool),
        torch.ones(0, 8, 8, dtype=torch.bool),
        torch.ones(2, 0, 8, dtype=torch.bool),
        np.ones((2, 8, 8), bool),
        None,
    ],
    ids=range(8),
)
def test_a_control_of_no_region_is_refused(kind, region):
    with pytest.raises(ValueError, match="region must be"):
        same_area_control(region, kind)


# accuracy_under_blur


def tiny(seed=0, classes=7, channels=3):
    """In training mode, with layers that then behave otherwise."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(24, classes),
    ).double()  # fmt: skip
    with torch.no_grad():
        net[1].running_mean.uniform_(-0.3, 0.3)
        net[1].running_var.uniform_(0.5, 2)
        net[6].weight *= 8
    return net


N = 30
X, Y, REGION = images(N, 3, 21, 18, seed=6), torch.arange(N) % 7, somewhere(N, 21, 18, seed=7)


def right(net, image, label, top):
    net.eval()
    with torch.no_grad():
        scores = net(image)[0].tolist()
    net.train()
    return label in sorted(range(len(scores)), key=lambda c: -scores[c])[:top]


def loop(net, radii, tops, leak):
    original, outside, inside = [], [], []
    for top in tops:
        original.append([right(net, X[i : i + 1], int(Y[i]), top) for i in range(N)])
    for radius in radii:
        for found, where in ((outside, ~REGION), (inside, REGION)):
            found.append([[] for _ in tops])
            for i in range(N):
                x, w = X[i : i + 1], where[i][None, None].expand(1, 3, -1, -1)
                soft = by_scipy(x, radius) if leak else by_scipy(x * w, radius) / by_scipy(w.double(), radius)
                seen = torch.where(w, soft, x)
                for k, top in enumerate(tops):
                    found[-1][k].append(right(net, seen, int(Y[i]), top))
    return original, outside, inside


@each_leak
@pytest.mark.parametrize(("radii", "tops"), [((1, 2.7), (1, 5)), ((2,), (3,)), ([0.5, 1, 2], [5, 1, 2])])
def test_hits_are_those_of_a_plain_loop(leak, radii, tops):
    net = tiny()
    found = accuracy_under_blur(net, X, Y, REGION, radii, tops, leak=leak)
    original, outside, inside = loop(net, radii, tops, leak)
    assert found.original.shape == (len(tops), N)
    assert found.outside.shape == found.inside.shape == (len(radii), len(tops), N)
    assert all(part.dtype == torch.bool for part in found)
    assert found.original.tolist() == original
    assert found.outside.tolist() == outside
    assert found.inside.tolist() == inside
    assert outside != inside
    assert 0 < found.original.double().mean() < 1


def test_top_1_and_5_and_the_leak_are_the_defaults():
    net = tiny()
    found = accuracy_under_blur(net, X, Y, REGION, (2,))
    for part, wanted in zip(found, accuracy_under_blur(net, X, Y, REGION, (2,), (1, 5), leak=True), strict=True):
        assert part.equal(wanted)
    assert (found.original[1] | ~found.original[0]).all()  # in the first five whenever first
    assert found.original[1].sum() > found.original[0].sum() > 0


def test_hits_by_hand():
    # logits: (greatest pixel, 0.5). One bright point on a dark ground is class 0, dark all over is class 1.
    class Peak(nn.Module):
        def forward(self, x):
            peak = x.amax((1, 2, 3))
            return torch.stack([peak, torch.full_like(peak, 0.5)], 1)

    x = torch.zeros(3, 1, 15, 15)
    x[0, 0, 7, 7] = x[1, 0, 7, 7] = 1
    region = torch.zeros(3, 15, 15, dtype=torch.bool)
    region[0, 6:9, 6:9] = True  # the point is inside
    region[1, :3, :3] = True  # the point is outside
    region[2, 6:9, 6:9] = True
    # a blur of radius 1 leaves the point 0.4^2 = 0.16, less than 0.5: class 0 is no longer seen
    found = accuracy_under_blur(Peak(), x, torch.tensor([0, 0, 1]), region, (0, 1), (1, 2))
    assert found.original.tolist() == [[True, True, True]] * 2
    assert found.outside.tolist() == [[[True, True, True]] * 2, [[True, False, True], [True, True, True]]]
    assert found.inside.tolist() == [[[True, True, True]] * 2, [[False, True, True], [True, True, True]]]


@pytest.mark.parametrize("batch", [1, 7, N, 1000])
def test_the_batch_changes_nothing(batch):
    net = tiny()
    wanted = accuracy_under_blur(net, X, Y, REGION, (1, 2))
    for part, other in zip(accuracy_under_blur(net, X, Y, REGION, (1, 2), batch_size=batch), wanted, strict=True):
        assert part.equal(other)


def test_no_pass_holds_more_images_than_the_batch():
    seen = []
    net = tiny()
    net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    accuracy_under_blur(net, X, Y, REGION, (1,), batch_size=8)
    assert seen == [8, 8, 8, 6] * 3
    seen.clear()
    accuracy_under_blur(net, X.repeat(4, 1, 1, 1), Y.repeat(4), REGION.repeat(4, 1, 1), (1,))
    assert seen == [100, 20] * 3


@each_leak
def test_without_blur_everything_is_the_original(leak):
    found = accuracy_under_blur(tiny(), X, Y, REGION, (0,), leak=leak)
    assert found.outside[0].equal(found.original)
    assert found.inside[0].equal(found.original)


def test_a_region_that_is_everything_leaves_the_outside_and_one_that_is_nothing_the_inside():
    net, every = tiny(), torch.ones_like(REGION)
    whole, none = (accuracy_under_blur(net, X, Y, region, (2,)) for region in (every, ~every))
    assert whole.outside[0].equal(whole.original)
    assert none.inside[0].equal(none.original)
    assert whole.inside.equal(none.outside)
    assert not whole.inside[0].equal(whole.original)


def test_as_many_tops_as_classes_is_always_right():
    found = accuracy_under_blur(tiny(), X, Y, REGION, (2,), (7,))
    assert found.original.all()
    assert found.outside.all()
    assert found.inside.all()


@each_dtype
def test_accuracy_leaves_network_and_inputs_as_found(dtype):
    net = tiny().to(dtype)
    net[4].register_forward_hook(lambda *_: None)
    net[0].weight.requires_grad_(False)
    net[6].weight.grad = torch.ones_like(net[6].weight)
    x, y, region = X.to(dtype), Y.clone(), REGION.clone()
    with assert_untouched(net):
        found = accuracy_under_blur(net, x, y, region, (0, 2))
    assert net.training
    assert x.equal(X.to(dtype))
    assert y.equal(Y)
    assert region.equal(REGION)
    assert found.original.dtype == torch.bool
    assert torch.is_grad_enabled()


def test_accuracy_takes_a_first_layer_that_writes_into_its_input():
    net = nn.Sequential(nn.ReLU(inplace=True), tiny())
    x = X.clone()
    with assert_untouched(net):
        found = accuracy_under_blur(net, x, Y, REGION, (0, 2))
    assert x.equal(X)
    assert found.outside[0].equal(found.original)


def test_accuracy_leaves_a_network_that_raises_as_found():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Boom()).double()
    with assert_untouched(net), pytest.raises(RuntimeError, match="boom"):
        accuracy_under_blur(net, X, Y, REGION, (1,))
    assert net.training


BAD_LABELS = {
    "too few": Y[:-1],
    "too many": torch.cat([Y, Y[:1]]),
    "too great": Y + 1,
    "below 0": Y - 1,
    "floats": Y.double(),
    "bools": Y > 3,
    "five columns": Y[:, None].expand(-1, 5),  # as many as the greatest top: must not be compared rank by rank
    "two columns": Y[:, None].expand(-1, 2),
    "none": Y[:0],
    "words": ["disk"] * N,
}


@pytest.mark.parametrize("y", BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_labels_are_refused(y):
    with pytest.raises(ValueError, match=r"\by must|target must"):
        accuracy_under_blur(tiny(), X, y, REGION, (1,))


@pytest.mark.parametrize("y", [BAD_LABELS[key] for key in ("too few", "too great", "floats")])
def test_the_message_about_bad_labels_names_them(y):
    with pytest.raises(ValueError, match=r"\by\b"):
        accuracy_under_blur(tiny(), X, y, REGION, (1,))


@pytest.mark.parametrize("radii", [(), [], (-1,), (2, -1), (float("nan"),), (2, float("inf")), (True,), (None,), 2.0])
def test_bad_lists_of_radii_are_refused(radii):
    with pytest.raises(ValueError, match="radi"):
        accuracy_under_blur(tiny(), X, Y, REGION, radii)


@pytest.mark.parametrize("top", [(), [], (0,), (1, 0), (-1, 2), (8,), (1, 8), (1.5,), 1])
def test_bad_tops_are_refused(top):
    with pytest.raises(ValueError, match="top"):
        accuracy_under_blur(tiny(), X, Y, REGION, (1,), top)


def test_the_usual_tops_are_too_many_for_four_classes():
    with pytest.raises(ValueError, match=r"top must lie in 1 \.\. 4"):
        accuracy_under_blur(tiny(classes=4), X, Y % 4, REGION, (1,))


@pytest.mark.parametrize("batch", [0, -1, 2.5])
def test_bad_batches_are_refused(batch):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        accuracy_under_blur(tiny(), X, Y, REGION, (1,), batch_size=batch)


def test_images_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ValueError, match="x must"):
        accuracy_under_blur(tiny(), X.float(), Y, REGION, (1,))
    with pytest.raises(ValueError, match="x must have 3 channels"):
        accuracy_under_blur(tiny(), X[:, :1], Y, REGION, (1,))


def test_the_call_of_the_modules_first_lines():
    found = accuracy_under_blur(tiny(), X, Y, salient_region(X.mean(1), 0.6), radii=(2, 5, 10))
    shares = found.outside.double().mean(-1)
    assert shares.shape == (3, 2)
    assert (shares[:, 1] >= shares[:, 0]).all()


# CUDA


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_everything_stays_there_and_is_the_same():
    x, region = X.cuda(), REGION.cuda()
    assert salient_region(x[:, 0]).device == x.device
    assert blurred(x, 2).device == x.device
    torch.testing.assert_close(blurred(x, 2).cpu(), blurred(X, 2))
    for leak in (True, False):
        for where in (region, REGION):  # a region may lie elsewhere
            found = blur_outside(x, where, 2, leak=leak)
            assert found.device == x.device
            torch.testing.assert_close(found.cpu(), blur_outside(X, REGION, 2, leak=leak))
    for kind in KINDS:
        found = same_area_control(region, kind, seed=3)
        assert found.device == region.device
        assert found.cpu().equal(same_area_control(REGION, kind, seed=3))
    on_gpu = accuracy_under_blur(tiny().cuda(), x, Y, REGION, (1, 2))
    for part, wanted in zip(on_gpu, accuracy_under_blur(tiny(), X, Y, REGION, (1, 2)), strict=True):
        assert part.cpu().equal(wanted)
