"""Blurred backgrounds and objects, their controls, and what networks still get right, by hand and in plain loops."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from support.refuses import refuses
from support.tensors import normal, seeded
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.background import accuracy_under_blur, blur_inside, blur_outside, salient_region, same_area_control
from helpers.filters import blurred

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def images(*shape, seed=1, dtype=torch.float64):
    return normal(*shape, seed=seed, dtype=dtype)


def somewhere(*shape, seed=2, share=0.4):
    return torch.rand(*shape, generator=seeded(seed)) < share


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def by_scipy(x, radius):
    # (B, C, H, W); "mirror" is the reflection about the centre of the border's pixels
    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, radius, radius), mode="mirror", truncate=3))


KINDS = ("shift", "random", "center")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_leak = pytest.mark.parametrize("leak", [True, False])
each_half = pytest.mark.parametrize("blur", [blur_outside, blur_inside])


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
    actual = salient_region(torch.full((2, 3, 4), value, dtype=dtype), threshold)
    assert actual.dtype == torch.bool
    assert actual.shape == (2, 3, 4)
    assert actual.all()


def test_adding_to_a_map_or_scaling_it_changes_no_region():
    maps = torch.randint(0, 64, (5, 6, 7), generator=seeded(3)).double() / 8  # sums of eighths are exact
    region = salient_region(maps, 0.25)
    assert 0.5 < region.double().mean() < 0.9
    for other in (maps + 5, maps - 100, 4 * maps, 0.5 * maps - 3):
        assert salient_region(other, 0.25).equal(region)


@each_dtype
def test_every_map_has_its_own_range(dtype):
    maps = images(2, 3, 6, 5, dtype=dtype) * torch.tensor([1.0, 100, 1e-3], dtype=dtype)[:, None, None]
    before = maps.clone()
    region = salient_region(maps, 0.6)
    assert region.shape == maps.shape
    assert region.dtype == torch.bool
    assert maps.equal(before)
    for i in range(2):
        for j in range(3):
            single = maps[i, j].tolist()
            low, high = min(map(min, single)), max(map(max, single))
            expected = [[value - low >= 0.6 * (high - low) for value in row] for row in single]
            assert region[i, j].tolist() == expected == salient_region(maps[i, j], 0.6).tolist()
    assert salient_region(maps, 0.6)[0].equal(salient_region(maps[0], 0.6))


def test_the_default_threshold_is_a_fifth():
    maps = images(4, 9, 9)
    assert salient_region(maps).equal(salient_region(maps, 0.2))
    assert not salient_region(maps).equal(salient_region(maps, 0.25))


@pytest.mark.parametrize(("dtype", "greatest"), [(torch.float32, 3e38), (torch.float64, 1.7e308), (torch.float16, 6e4)])
def test_a_range_beyond_the_largest_number_is_no_empty_region(dtype, greatest):
    maps = torch.tensor([[-greatest, 0, greatest]], dtype=dtype)
    assert salient_region(maps).tolist() == [[False, True, True]]


# blur_outside, blur_inside


def outside_of(region, x):
    return ~region[:, None].expand_as(x)


@each_leak
@pytest.mark.parametrize("radius", [0.5, 2, 30])
def test_what_is_kept_is_kept_bit_for_bit(leak, radius):
    x, region = images(3, 3, 13, 18, dtype=torch.float32), somewhere(3, 13, 18)
    out = outside_of(region, x)
    actual = blur_outside(x, region, radius, leak=leak)
    assert actual[~out].equal(x[~out])
    assert (actual[out] != x[out]).any()
    actual = blur_inside(x, region, radius, leak=leak)
    assert actual[out].equal(x[out])
    assert (actual[~out] != x[~out]).any()


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
    expected = by_scipy(x * out, radius) / by_scipy(out.double(), radius)
    close(blur_outside(x, region, radius, leak=False)[out], expected[out])
    expected = by_scipy(x * ~out, radius) / by_scipy((~out).double(), radius)
    close(blur_inside(x, region, radius, leak=False)[~out], expected[~out])


def test_without_leak_by_hand():
    # One row: object, ground 2, ground 5, object; reach 1 (three standard deviations of 0.33 pixels)
    x = torch.tensor([[[[100.0, 2, 5, 100]]]], dtype=torch.float64)
    region = torch.tensor([[[True, False, False, True]]])
    near = float(np.exp(-0.5 / 0.33**2))  # the neighbour's weight beside 1
    expected = torch.tensor([100, (2 + 5 * near) / (1 + near), (5 + 2 * near) / (1 + near), 100], dtype=torch.float64)
    close(blur_outside(x, region, 0.33, leak=False)[0, 0, 0], expected)
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
    before = x.clone(), region.clone()
    actual = blur(x, region, 2, leak=leak)
    assert actual.shape == x.shape
    assert actual.dtype == dtype
    assert actual.data_ptr() != x.data_ptr()
    assert x.equal(before[0])
    assert region.equal(before[1])
    for i in range(4):
        alone = blur(x[i : i + 1], region[i : i + 1], 2, leak=leak)[0]
        torch.testing.assert_close(actual[i], alone, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)
    assert blur(x, region, 0, leak=leak).equal(x)


# same_area_control


@each_kind
@pytest.mark.parametrize("size", [(16, 16), (12, 20), (7, 9), (1, 5), (1, 1)])
def test_a_control_has_each_images_area(kind, size):
    region = torch.rand(9, *size, generator=seeded(5)) < torch.linspace(0, 1, 9)[:, None, None]
    region[0], region[8] = False, True
    before = region.clone()
    actual = same_area_control(region, kind, seed=3)
    assert actual.shape == region.shape
    assert actual.dtype == torch.bool
    assert region.equal(before)
    assert actual.flatten(1).sum(1).equal(region.flatten(1).sum(1))
    assert not actual[0].any()
    assert actual[8].all()


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
    assert same_area_control(region).equal(same_area_control(region, "shift"))  # the default
    if kind != "center":
        assert not same_area_control(region, kind, seed=5).equal(first)


def shifts(actual, region):
    """Every (down, right) that turns region (H, W) into found."""
    height, width = region.shape
    return [
        (down, right)
        for down in range(height)
        for right in range(width)
        if region.roll((down, right), (0, 1)).equal(actual)
    ]


@pytest.mark.parametrize("size", [(16, 16), (8, 20), (24, 12)])
def test_a_shift_is_cyclic_and_of_a_quarter_to_three_quarters_of_each_side(size):
    region = somewhere(40, *size)
    actual = same_area_control(region, "shift", seed=1)
    moved = []
    for control, original in zip(actual, region, strict=True):
        [only] = shifts(control, original)
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
    actual = same_area_control(region, "shift", seed=1)
    down, right = actual.any(2).int().argmax(1), actual.any(1).int().argmax(1)
    for by in (down, right):
        assert side / 4 <= by.min()
        assert by.max() <= 3 * side / 4


@pytest.mark.parametrize("side", [7, 8, 12, 15])
def test_center_is_the_pixels_nearest_to_the_middle(side):
    middle = (side - 1) / 2
    far = torch.tensor([[(i - middle) ** 2 + (j - middle) ** 2 for j in range(side)] for i in range(side)])
    areas = list(range(0, side * side + 1, 5))
    region = torch.stack([(torch.arange(side * side) < area).view(side, side) for area in areas])
    actual = same_area_control(region, "center", seed=2)
    nearest = far.flatten().sort().values
    for control, area in zip(actual, areas, strict=True):
        # whichever of equally distant pixels is taken, the distances are the smallest
        assert far[control].sort().values.equal(nearest[:area])


def test_center_in_an_oblong_image_is_the_pixels_nearest_to_the_middle_too():
    region = torch.zeros(1, 9, 21, dtype=torch.bool)
    region[0, 0, :13] = True
    # the 13 pixels within 2 pixels of (4, 10): a diamond of 1, 3, 5, 3, 1
    expected = torch.tensor([[abs(i - 4) + abs(j - 10) <= 2 for j in range(21)] for i in range(9)])
    assert same_area_control(region, "center")[0].equal(expected)


def test_center_and_random_say_nothing_about_where_the_region_was_and_random_differs_by_image():
    left, right = torch.zeros(2, 8, 24, 32, dtype=torch.bool)
    left[:, 1:9, :10] = right[:, 12:20, 20:30] = True
    for kind in ("center", "random"):
        actual = same_area_control(left, kind, seed=1)
        assert actual.equal(same_area_control(right, kind, seed=1))
    assert len({control.numpy().tobytes() for control in actual}) == 8


def test_random_regions_grow_with_their_area():
    sizes = [10, 50, 200, 400]
    region = torch.stack([(torch.arange(480) < area).view(1, 20, 24) for area in sizes])
    several = [same_area_control(single.expand(3, -1, -1), "random", seed=7) for single in region]
    for small, large in itertools.pairwise(several):
        assert (large | ~small).all()  # the peaks of the same noise


def test_random_regions_are_blobs():
    region = (torch.arange(64 * 64) < 800).view(1, 64, 64).expand(20, -1, -1)
    actual = same_area_control(region, "random", seed=3).double()
    rims = (actual[:, 1:] != actual[:, :-1]).double().sum((1, 2)) + (
        actual[:, :, 1:] != actual[:, :, :-1]
    ).double().sum((1, 2))
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
        for actual, where in ((outside, ~REGION), (inside, REGION)):
            actual.append([[] for _ in tops])
            for i in range(N):
                x, w = X[i : i + 1], where[i][None, None].expand(1, 3, -1, -1)
                soft = by_scipy(x, radius) if leak else by_scipy(x * w, radius) / by_scipy(w.double(), radius)
                seen = torch.where(w, soft, x)
                for k, top in enumerate(tops):
                    actual[-1][k].append(right(net, seen, int(Y[i]), top))
    return original, outside, inside


@each_leak
@pytest.mark.parametrize(("radii", "tops"), [((1, 2.7), (1, 5)), ((2,), (3,)), ([0.5, 1, 2], [5, 1, 2])])
def test_hits_are_those_of_a_plain_loop(leak, radii, tops):
    net = tiny()
    actual = accuracy_under_blur(net, X, Y, REGION, radii, tops, leak=leak)
    original, outside, inside = loop(net, radii, tops, leak)
    assert actual.original.shape == (len(tops), N)
    assert actual.outside.shape == actual.inside.shape == (len(radii), len(tops), N)
    assert all(part.dtype == torch.bool for part in actual)
    assert actual.original.tolist() == original
    assert actual.outside.tolist() == outside
    assert actual.inside.tolist() == inside
    assert outside != inside
    assert 0 < actual.original.double().mean() < 1


def test_top_1_and_5_and_the_leak_are_the_defaults():
    net = tiny()
    actual = accuracy_under_blur(net, X, Y, REGION, (2,))
    for part, expected in zip(actual, accuracy_under_blur(net, X, Y, REGION, (2,), (1, 5), leak=True), strict=True):
        assert part.equal(expected)
    assert (actual.original[1] | ~actual.original[0]).all()  # in the first five whenever first
    assert actual.original[1].sum() > actual.original[0].sum() > 0


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
    actual = accuracy_under_blur(Peak(), x, torch.tensor([0, 0, 1]), region, (0, 1), (1, 2))
    assert actual.original.tolist() == [[True, True, True]] * 2
    assert actual.outside.tolist() == [[[True, True, True]] * 2, [[True, False, True], [True, True, True]]]
    assert actual.inside.tolist() == [[[True, True, True]] * 2, [[False, True, True], [True, True, True]]]


@pytest.mark.parametrize("batch", [1, 7, N, 1000])
def test_the_batch_changes_nothing(batch):
    net = tiny()
    expected = accuracy_under_blur(net, X, Y, REGION, (1, 2))
    for part, other in zip(accuracy_under_blur(net, X, Y, REGION, (1, 2), batch_size=batch), expected, strict=True):
        assert part.equal(other)


def test_no_pass_holds_more_images_than_the_batch():
    seen = []
    net = tiny()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    accuracy_under_blur(net, X, Y, REGION, (1,), batch_size=8)
    assert seen == [8, 8, 8, 6] * 3
    seen.clear()
    accuracy_under_blur(net, X.repeat(4, 1, 1, 1), Y.repeat(4), REGION.repeat(4, 1, 1), (1,))
    assert seen == [100, 20] * 3


@each_leak
def test_several_regions_are_each_alone_and_the_original_runs_once(leak):
    net, shown = tiny(), []
    net.register_forward_pre_hook(lambda _, inputs: shown.append(len(inputs[0])))
    regions = torch.stack([REGION, ~REGION, somewhere(N, 21, 18, seed=8)])
    actual = accuracy_under_blur(net, X, Y, regions, (1, 2.7), leak=leak)
    assert sum(shown) == N * (1 + 3 * 2 * 2)
    for row, region in enumerate(regions):
        alone = accuracy_under_blur(net, X, Y, region, (1, 2.7), leak=leak)
        assert actual.original.equal(alone.original)
        assert actual.outside[row].equal(alone.outside)
        assert actual.inside[row].equal(alone.inside)
    assert not actual.outside[0].equal(actual.outside[2])


@each_leak
def test_without_blur_everything_is_the_original(leak):
    actual = accuracy_under_blur(tiny(), X, Y, REGION, (0,), leak=leak)
    assert actual.outside[0].equal(actual.original)
    assert actual.inside[0].equal(actual.original)


def test_a_region_that_is_everything_leaves_the_outside_and_one_that_is_nothing_the_inside():
    net, every = tiny(), torch.ones_like(REGION)
    whole, none = (accuracy_under_blur(net, X, Y, region, (2,)) for region in (every, ~every))
    assert whole.outside[0].equal(whole.original)
    assert none.inside[0].equal(none.original)
    assert whole.inside.equal(none.outside)
    assert not whole.inside[0].equal(whole.original)


def test_as_many_tops_as_classes_is_always_right():
    assert all(part.all() for part in accuracy_under_blur(tiny(), X, Y, REGION, (2,), (7,)))


@each_dtype
def test_accuracy_leaves_network_and_inputs_as_found(dtype):
    net = tiny().to(dtype)
    net[4].register_forward_hook(lambda *_: None)
    net[0].weight.requires_grad_(False)
    net[6].weight.grad = torch.ones_like(net[6].weight)
    x, y, region = X.to(dtype), Y.clone(), REGION.clone()
    with assert_untouched(net):
        actual = accuracy_under_blur(net, x, y, region, (0, 2))
    assert net.training
    assert x.equal(X.to(dtype))
    assert y.equal(Y)
    assert region.equal(REGION)
    assert actual.original.dtype == torch.bool
    assert torch.is_grad_enabled()


def test_accuracy_takes_a_first_layer_that_writes_into_its_input():
    net = nn.Sequential(nn.ReLU(inplace=True), tiny())
    x = X.clone()
    with assert_untouched(net):
        actual = accuracy_under_blur(net, x, Y, REGION, (0, 2))
    assert x.equal(X)
    assert actual.outside[0].equal(actual.original)


def test_accuracy_leaves_a_network_that_raises_as_found():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Boom()).double()
    with assert_untouched(net), pytest.raises(RuntimeError, match="boom"):
        accuracy_under_blur(net, X, Y, REGION, (1,))
    assert net.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_everything_stays_there_and_is_the_same():
    x, region = X.cuda(), REGION.cuda()
    assert salient_region(x[:, 0]).device == x.device
    assert blurred(x, 2).device == x.device
    torch.testing.assert_close(blurred(x, 2).cpu(), blurred(X, 2))
    for leak in (True, False):
        for where in (region, REGION):  # a region may lie elsewhere
            actual = blur_outside(x, where, 2, leak=leak)
            assert actual.device == x.device
            torch.testing.assert_close(actual.cpu(), blur_outside(X, REGION, 2, leak=leak))
    for kind in KINDS:
        actual = same_area_control(region, kind, seed=3)
        assert actual.device == region.device
        assert actual.cpu().equal(same_area_control(REGION, kind, seed=3))
    on_gpu = accuracy_under_blur(tiny().cuda(), x, Y, REGION, (1, 2))
    for part, expected in zip(on_gpu, accuracy_under_blur(tiny(), X, Y, REGION, (1, 2)), strict=True):
        assert part.cpu().equal(expected)


def test_bad_arguments_are_refused():
    refuses(salient_region, {"maps": torch.rand(2, 4, 4)}, maps=torch.rand(4), threshold=1.01)
    refuses(same_area_control, {"region": somewhere(2, 8, 8)}, region=torch.ones(2, 8, 8), kind="centre")
    region = torch.ones(2, 8, 9, dtype=torch.bool)
    for wrong in (region.float(), region[:1], region.mT):
        arguments = {"x": torch.rand(2, 3, 8, 9), "region": region, "radius": 1}
        for blur in (blur_outside, blur_inside):
            refuses(blur, arguments, x=torch.rand(3, 8, 9), region=wrong, radius=-1)


def test_bad_arguments_of_the_accuracy_are_refused():
    arguments = {"model": tiny(), "x": X, "y": Y, "region": REGION, "radii": (1,)}
    ranks = Y[:, None].expand(-1, 5)  # as many as the greatest top: must not be compared rank by rank
    for y, radii, top in ((Y[:-1], (), ()), (Y + 1, 2.0, (1, 0)), (Y - 1, [], (1, 8)), (ranks, (), ())):
        refuses(accuracy_under_blur, arguments, x=X.float(), y=y, region=REGION[:, 1:], radii=radii, top=top)
    refuses(accuracy_under_blur, arguments, batch_size=0)
    with pytest.raises(ValueError, match=r"^radius must"):
        accuracy_under_blur(**arguments | {"radii": (2, -1)})
