import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.data import photo
from helpers.quadtree import (
    build_quadtree,
    convolve_on_leaves,
    exact_conv_sites,
    leaf_boxes,
    leaf_gradient,
    leaf_map,
    leaf_means,
    occlusion_on_leaves,
    reconstruct,
    threshold_for,
)
from helpers.quadtree._convolution import _exact_places
from helpers.saliency import input_gradient, occlusion

EACH = pytest.mark.parametrize("criterion", ["range", "std", "error"])
SHAPES = [(16, 16), (8, 24), (13, 7), (1, 9), (12, 12)]


def spread(square, criterion):
    """The criterion of (C, h, w), the largest over the channels."""
    apart = square.double() - square[:, :1, :1].double()  # so that equal values are exactly 0
    apart = apart.flatten(1).numpy()
    if criterion == "range":
        return np.ptp(apart, 1).max()
    return (apart.std(1) if criterion == "std" else apart.var(1) * apart.shape[1]).max()


def grow(image, threshold, criterion="range", min_size=1, y=0, x=0, size=None):
    """The oracle: leaves and scores of the cut squares of (C, H, W), one square after the other."""
    height, width = image.shape[1:]
    size = size or 2 ** math.ceil(math.log2(max(height, width)))
    if y >= height or x >= width:
        return [], []
    score = spread(image[:, y : y + size, x : x + size], criterion)
    over = y + size > height or x + size > width
    if not over and (size <= min_size or score <= threshold):
        return [(y, x, size)], []
    leaves, cuts, half = [], [score], size // 2
    for down, right in [(y, x), (y, x + half), (y + half, x), (y + half, x + half)]:
        more = grow(image, threshold, criterion, min_size, down, right, half)
        leaves, cuts = leaves + more[0], cuts + more[1]
    return leaves, cuts


def wanted_tree(image, *args):
    return [list(leaf) for leaf in sorted(grow(image if image.ndim == 3 else image[None], *args)[0])]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)


def patchy(*shape, seed=0):
    """Even patches of side 4 and some uneven places: trees with leaves of many sizes."""
    height, width = shape[-2:]
    coarse = noise(*shape[:-2], -(-height // 4), -(-width // 4), seed=seed).mul(3).round() / 3
    even = coarse.repeat_interleave(4, -2).repeat_interleave(4, -1)[..., :height, :width]
    return even + 0.3 * noise(*shape, seed=seed + 1) * (noise(*shape, seed=seed + 2) < 0.05)


def crop(name="camera"):
    return photo(name)[:, 100:228, 180:308]


def pixels(height, width):
    """The tree of single pixels."""
    return torch.cartesian_prod(torch.arange(height), torch.arange(width), torch.ones(1, dtype=torch.int64))


def tiny(channels=2, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(4, 3, 3),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(27, 3),
    ).double()


# trees by hand


@EACH
@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_an_even_image_is_one_leaf(side, criterion):
    tree = build_quadtree(torch.full((side, side), 0.3), 0, criterion)
    assert tree.tolist() == [[0, 0, side]]
    assert tree.dtype == torch.int64


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.3, 0.1, 0.7, 1 / 3, 1e-3, 123.4])
def test_rounding_does_not_cut_an_even_image(value, dtype, criterion):
    assert build_quadtree(torch.full((3, 64, 64), value, dtype=dtype), 0, criterion).tolist() == [[0, 0, 64]]


@EACH
def test_a_single_bright_pixel_by_hand(criterion):
    small, large = torch.zeros(4, 4), torch.zeros(8, 8)
    small[1, 2] = large[5, 0] = 1
    assert build_quadtree(small, 0.1, criterion).tolist() == [
        [0, 0, 2], [0, 2, 1], [0, 3, 1], [1, 2, 1], [1, 3, 1], [2, 0, 2], [2, 2, 2],
    ]  # fmt: skip
    assert build_quadtree(large, 0.1, criterion).tolist() == [
        [0, 0, 4], [0, 4, 4], [4, 0, 1], [4, 1, 1], [4, 2, 2], [4, 4, 4], [5, 0, 1], [5, 1, 1], [6, 0, 2], [6, 2, 2],
    ]  # fmt: skip
    assert build_quadtree(large, 0.1, criterion, 2).tolist() == [
        [0, 0, 4], [0, 4, 4], [4, 0, 2], [4, 2, 2], [4, 4, 4], [6, 0, 2], [6, 2, 2],
    ]  # fmt: skip
    assert build_quadtree(large, 0.1, criterion, min_size=4).tolist() == [[0, 0, 4], [0, 4, 4], [4, 0, 4], [4, 4, 4]]


@EACH
@pytest.mark.parametrize("min_size", [8, 16])
def test_an_image_no_larger_than_the_least_square_is_one_leaf(min_size, criterion):
    assert build_quadtree(noise(8, 8), 0, criterion, min_size).tolist() == [[0, 0, 8]]
    assert [tree.tolist() for tree in build_quadtree(noise(2, 1, 8, 8), 0, criterion, min_size)] == [[[0, 0, 8]]] * 2


@EACH
@pytest.mark.parametrize("side", [4, 8])
def test_a_checkerboard_is_all_pixels(side, criterion):
    board = (torch.arange(side)[:, None] + torch.arange(side)) % 2
    tree = build_quadtree(board.float(), 0.4, criterion)
    assert tree.tolist() == [[y, x, 1] for y in range(side) for x in range(side)]


@pytest.mark.parametrize("min_size", [1, 2])
def test_squares_over_the_border_are_cut_by_hand(min_size):
    assert build_quadtree(torch.ones(3, 3), 5, min_size=min_size).tolist() == [
        [0, 0, 2], [0, 2, 1], [1, 2, 1], [2, 0, 1], [2, 1, 1], [2, 2, 1],
    ]  # fmt: skip
    wide = [[0, 0, 2], [0, 2, 2], [0, 4, 1], [1, 4, 1]]
    assert build_quadtree(torch.ones(2, 5), 5, "std", min_size).tolist() == wide
    high = [[0, 0, 2], [2, 0, 2], [4, 0, 1], [4, 1, 1]]
    assert build_quadtree(torch.ones(5, 2), 5, min_size=min_size).tolist() == high
    assert build_quadtree(torch.ones(1, 3), 5, min_size=min_size).tolist() == [[0, 0, 1], [0, 1, 1], [0, 2, 1]]


def test_a_square_is_cut_when_its_criterion_exceeds_the_threshold_not_when_it_meets_it():
    halves = torch.tensor([[0.0, 2], [0, 2]])  # range 2, standard deviation 1
    assert len(build_quadtree(halves, 2)) == len(build_quadtree(halves, 1, "std")) == 1
    assert len(build_quadtree(halves, 1.999)) == len(build_quadtree(halves, 0.999, "std")) == 4
    corner = torch.tensor([[0.0, 0], [0, 2]])  # mean 1/2, variance (3/4 + 9/4) / 4 = 3/4
    assert len(build_quadtree(corner, 0.8661, "std")) == len(build_quadtree(corner, 3, "error")) == 1
    assert len(build_quadtree(corner, 0.8660, "std")) == len(build_quadtree(corner, 2.999, "error")) == 4


def test_in_colour_the_criterion_is_the_largest_over_the_channels():
    red, green = torch.tensor([[0.0, 0.25], [0, 0.25]]), torch.tensor([[1.0, 1], [0.25, 0.25]])
    for image in (torch.stack([red, green]), torch.stack([green, red])):
        assert len(build_quadtree(image, 0.75)) == len(build_quadtree(image, 0.375, "std")) == 1
        assert len(build_quadtree(image, 0.74)) == len(build_quadtree(image, 0.374, "std")) == 4
    alone = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])  # each channel even, the two apart
    assert len(build_quadtree(alone, 0)) == len(build_quadtree(alone, 0, "std")) == 1


# trees against the oracle


@EACH
@pytest.mark.parametrize("min_size", [1, 2, 4])
@pytest.mark.parametrize("shape", [*SHAPES[1:4], (3, 16, 16), (3, 9, 20), (2, 31, 1), (1, 1, 1)])
def test_trees_against_the_oracle(shape, min_size, criterion):
    for image in (patchy(*shape, seed=3), noise(*shape, seed=4).float() - 3):
        for threshold in (0, 0.25, 0.8):
            found = build_quadtree(image, threshold, criterion, min_size)
            assert found.tolist() == wanted_tree(image, threshold, criterion, min_size)


@EACH
@pytest.mark.parametrize("name", ["camera", "astronaut"])
def test_trees_of_photographs_against_the_oracle(name, criterion):
    image = crop(name)
    for part, threshold, min_size in [(image, 0.1, 1), (image, 0.05, 4), (image[:, :30, 30:71], 0, 1)]:
        found = build_quadtree(part, threshold, criterion, min_size)
        assert found.tolist() == wanted_tree(part, threshold, criterion, min_size)
    assert len({leaf[2] for leaf in build_quadtree(image, 0.1, criterion).tolist()}) > 3


@EACH
def test_small_differences_far_from_zero_are_seen(criterion):
    image = 1000 + 1e-6 * patchy(16, 16)
    for threshold in (0.05, 0.2):
        threshold *= 1e-12 if criterion == "error" else 1e-6
        found = build_quadtree(image, threshold, criterion)
        assert found.tolist() == wanted_tree(image, threshold, criterion)
    assert len(found) > 4


@EACH
def test_leaves_are_three_times_the_cuts_plus_one(criterion):
    for image in (patchy(1, 32, 32), crop()[:1, :64, 32:96]):
        for threshold in (0.05, 0.1):
            cuts = grow(image, threshold, criterion)[1]
            assert len(build_quadtree(image, threshold, criterion)) == 3 * len(cuts) + 1 > 4


@EACH
@pytest.mark.parametrize("shape", [(16, 16), (13, 7)])
def test_a_batch_gives_the_trees_of_its_images(shape, criterion):
    batch = torch.stack([patchy(2, *shape), noise(2, *shape), torch.zeros(2, *shape), patchy(2, *shape, seed=9)])
    for threshold, min_size in [(0.2, 1), (0.05, 4)]:
        trees = build_quadtree(batch, threshold, criterion, min_size)
        assert isinstance(trees, list)
        assert [tree.tolist() for tree in trees] == [
            build_quadtree(image, threshold, criterion, min_size).tolist() for image in batch
        ]
    assert len({len(tree) for tree in build_quadtree(batch, 0.01, criterion)}) > 1
    assert [tree.tolist() for tree in build_quadtree(batch[:1], 0.2)] == [build_quadtree(batch[0], 0.2).tolist()]


def test_a_gray_image_may_come_with_or_without_its_channel():
    image = patchy(16, 16)
    assert torch.equal(build_quadtree(image, 0.2), build_quadtree(image[None], 0.2))


@EACH
def test_a_photograph_of_512_takes_less_than_50_ms(criterion):
    image, times, threads = photo("camera")[0], [], torch.get_num_threads()
    assert image.shape == (512, 512)
    torch.set_num_threads(1)
    for _ in range(10):
        start = time.process_time()  # of this process alone, whatever else the machine does
        build_quadtree(image, 0.1, criterion)
        times.append(time.process_time() - start)
    torch.set_num_threads(threads)
    assert min(times) < 0.05


# what a tree keeps of the image


@EACH
@pytest.mark.parametrize("shape", SHAPES)
def test_leaves_tile_the_image(shape, criterion):
    height, width = shape
    for threshold in (0.05, 0.3):
        tree = build_quadtree(patchy(*shape), threshold, criterion)
        numbers = leaf_map(tree, shape)
        assert numbers.shape == shape
        assert numbers.dtype == torch.int64
        assert tree[:, 2].square().sum() == height * width
        count = torch.zeros(shape, dtype=torch.int64)
        for number, (y, x, size) in enumerate(tree.tolist()):
            assert (numbers[y : y + size, x : x + size] == number).all()
            assert max(y + size - height, x + size - width) <= 0
            count[y : y + size, x : x + size] += 1
        assert (count == 1).all()


def test_leaf_map_by_hand():
    tree = torch.tensor([[0, 0, 2], [0, 2, 1], [1, 2, 1]])
    assert leaf_map(tree, (2, 3)).tolist() == [[0, 0, 1], [0, 0, 2]]
    assert leaf_map(tree[[2, 0, 1]], (2, 3)).tolist() == [[1, 1, 2], [1, 1, 0]]  # in any order


def test_leaf_means_and_reconstruct_by_hand():
    tree, image = torch.tensor([[0, 0, 2], [0, 2, 1], [1, 2, 1]]), torch.tensor([[1.0, 2, 7], [3, 6, 9]])
    assert leaf_means(image, tree).tolist() == [3, 7, 9]
    assert leaf_means(torch.stack([image, -image]), tree).tolist() == [[3, -3], [7, -7], [9, -9]]
    assert leaf_means(image[None], tree).tolist() == [[3], [7], [9]]
    assert reconstruct(tree, torch.tensor([3, 7, 9]), (2, 3)).tolist() == [[3, 3, 7], [3, 3, 9]]
    colours = torch.tensor([[3, -3, 0], [7, -7, 1], [9, -9, 2]])
    painted = reconstruct(tree, colours, torch.Size([2, 3]))
    assert painted.tolist() == [[[3, 3, 7], [3, 3, 9]], [[-3, -3, -7], [-3, -3, -9]], [[0, 0, 1], [0, 0, 2]]]
    assert reconstruct(tree, colours[:, :1], (2, 3)).shape == (1, 2, 3)


@pytest.mark.parametrize("shape", [(16, 16), (13, 7), (3, 9, 20)])
def test_leaf_means_of_a_reconstruction_are_its_values(shape):
    tree = build_quadtree(patchy(*shape), 0.2)
    values = noise(len(tree), *shape[:-2])
    again = leaf_means(reconstruct(tree, values, shape[-2:]), tree)
    torch.testing.assert_close(again, values, rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7])
def test_the_mean_over_a_large_leaf_is_as_exact_as_its_dtype(value):
    means = leaf_means(torch.full((3, 512, 512), value), torch.tensor([[0, 0, 512]]))
    torch.testing.assert_close(means, torch.full((1, 3), value), rtol=1e-6, atol=0)
    image = photo("camera")
    means = leaf_means(image, torch.tensor([[0, 0, 512]]))
    torch.testing.assert_close(means[0], image.double().mean((1, 2)).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(32, 32), (13, 22), (3, 16, 16), (3, 9, 20)])
def test_by_range_no_pixel_is_further_from_its_leaf_than_the_threshold(shape):
    image = patchy(*shape) + 0.1 * noise(*shape, seed=7)
    for threshold in (0, 0.05, 0.2, 0.5):
        tree = build_quadtree(image, threshold)
        found = reconstruct(tree, leaf_means(image, tree), shape[-2:])
        assert (found - image).abs().max() <= threshold + 1e-14


@EACH
def test_threshold_zero_keeps_the_image(criterion):
    for image in (patchy(16, 16), patchy(3, 13, 7), crop(), photo("camera")):
        tree = build_quadtree(image, 0, criterion)
        found = reconstruct(tree, leaf_means(image, tree), image.shape[-2:])
        torch.testing.assert_close(found, image, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(16, 16), (3, 9, 20)])
def test_by_error_no_leaf_errs_by_more_than_the_threshold(shape):
    image = patchy(*shape) + 0.1 * noise(*shape, seed=7)
    for threshold in (0.01, 0.1, 1):
        tree = build_quadtree(image, threshold, "error")
        apart = (reconstruct(tree, leaf_means(image, tree), shape[-2:]) - image).square()
        errors = leaf_means(apart, tree) * tree[:, 2].square().view(-1, *[1] * (len(shape) - 2))
        assert 0 < errors.max() <= threshold


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 13, 22), (3, 16, 16), (3, 9, 20)])
def test_by_deviation_the_squared_error_is_the_mean_variance_of_the_leaves(shape):
    image = patchy(*shape) + 0.1 * noise(*shape, seed=7)
    for threshold in (0.02, 0.1, 0.3):
        tree = build_quadtree(image, threshold, "std")
        error = (reconstruct(tree, leaf_means(image, tree), shape[1:]) - image).square().mean((1, 2))  # (C,)
        parts = [image[:, y : y + size, x : x + size].flatten(1) for y, x, size in tree.tolist()]
        weighted = sum(part.var(1, correction=0) * part.shape[1] for part in parts) / (shape[1] * shape[2])
        torch.testing.assert_close(error, weighted, rtol=1e-10, atol=1e-16)
        assert error.max() <= threshold**2
    assert error.max() > 0


# a threshold for a number of leaves


def test_threshold_for_by_hand():
    image = torch.zeros(4, 4)
    image[0, 0], image[3, 3] = 1, 3  # scores: whole 3, its quarters 1, 0, 0, 3
    for most, threshold, leaves in [(1, 3, 1), (6, 3, 1), (7, 1, 7), (9, 1, 7), (10, 0, 10), (999, 0, 10)]:
        assert threshold_for(image, most).tolist() == threshold
        assert len(build_quadtree(image, threshold)) == leaves
    assert threshold_for(image, 999, min_size=2).tolist() == 0
    assert threshold_for(image, 3, min_size=2).tolist() == 3
    assert threshold_for(torch.ones(1, 1), 1).tolist() == 0


@EACH
@pytest.mark.parametrize("min_size", [1, 2, 4])
@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8), (3, 7, 10)])
def test_no_threshold_gives_more_leaves_within_the_number(shape, min_size, criterion):
    image = noise(*shape, seed=2)
    cube = image if image.ndim == 3 else image[None]
    scores = grow(cube, 0, criterion, min_size)[1]  # of every square that can be cut
    counts = [len(grow(cube, t, criterion, min_size)[0]) for t in [0, *(score * (1 + 1e-9) for score in scores)]]
    smallest = min(counts)
    for most in [smallest, smallest + 1, smallest + 3, smallest + 10, smallest + 20, 2 * max(counts)]:
        threshold = threshold_for(image, most, criterion, min_size)
        assert threshold.shape == ()
        found = len(build_quadtree(image, threshold, criterion, min_size))
        assert found == max(count for count in counts if count <= most)
        assert len(build_quadtree(image, float(threshold), criterion, min_size)) == found
        if threshold > 0:
            less = np.nextafter(float(threshold), 0)
            assert len(build_quadtree(image, less, criterion, min_size)) > most


@EACH
def test_threshold_for_keeps_to_the_number_of_leaves_of_photographs(criterion):
    image = crop()
    for most in (1, 100, 1000, 5000):
        threshold = float(threshold_for(image, most, criterion))
        assert len(build_quadtree(image, threshold, criterion)) <= most
        less = float(np.nextafter(np.float32(threshold), np.float32(0))) if criterion == "range" else threshold - 1e-12
        assert len(build_quadtree(image, less, criterion)) > most


@EACH
@pytest.mark.parametrize(("shape", "min_size"), [((8, 8), 1), ((8, 8), 2), ((8, 8), 8), ((6, 5), 1), ((6, 5), 2)])
def test_threshold_for_a_batch(shape, min_size, criterion):
    batch = torch.stack([noise(2, *shape), patchy(2, *shape), torch.zeros(2, *shape)])
    found = threshold_for(batch, 20, criterion, min_size)
    assert found.shape == (3,)
    assert found.tolist() == [threshold_for(image, 20, criterion, min_size).tolist() for image in batch]


@EACH
def test_fewer_leaves_than_the_smallest_tree_has_are_refused(criterion):
    assert len(build_quadtree(noise(3, 3), threshold_for(noise(3, 3), 6, criterion), criterion)) == 6
    with pytest.raises(ValueError, match=r"^leaves must be at least 6, .*got 5"):
        threshold_for(noise(3, 3), 5, criterion)
    with pytest.raises(ValueError, match=r"^leaves must be at least 6"):
        threshold_for(noise(2, 3, 3, 3), 1, criterion, min_size=4)


@pytest.mark.parametrize("leaves", [0, -1, True, 2.5, None, "9"])
def test_a_bad_number_of_leaves_is_refused(leaves):
    with pytest.raises(ValueError, match=r"^leaves must be an integer of at least 1"):
        threshold_for(noise(4, 4), leaves)


# convolutions


@pytest.mark.parametrize(
    ("sides", "kernel", "wanted"),
    [
        ([8], 3, [64 - 36 + 1, 64 - 16 + 1, 64 - 4 + 1, 64, 64]),
        ([8], 1, [1, 1, 1]),
        ([8], 5, [64 - 16 + 1, 64]),
        ([8], 9, [64]),
        ([1], 3, [1, 1]),
        ([1], 1, [1]),
        ([2], 3, [4]),
        ([4], 3, [16 - 4 + 1, 16]),
        ([2, 2, 2, 2], 1, [4]),
        ([4, 4, 4, 4], 3, [4 * 13, 64]),
    ],
)
def test_places_of_an_exact_convolution_by_hand(sides, kernel, wanted):
    corners = [(0, 0), (0, sides[0]), (sides[0], 0), (sides[0], sides[0])]
    tree = torch.tensor([[y, x, side] for side, (y, x) in zip(sides, corners, strict=False)])
    found = exact_conv_sites(tree, kernel, len(wanted))
    assert found.tolist() == wanted
    assert found.dtype == torch.int64
    assert exact_conv_sites(tree, kernel).tolist() == wanted[:1]


def eroded_count(tree, shape, reach):
    """Places whose (2 reach + 1)-square holds another leaf or the outside, and one for each leaf that has others."""
    numbers = leaf_map(tree, shape)
    side = 2 * reach + 1
    windows = F.pad(numbers, [reach] * 4, value=-1).unfold(0, side, 1).unfold(1, side, 1).flatten(2)
    inside = (windows == numbers[..., None]).all(2)
    return int((~inside).sum()) + len(numbers[inside].unique())


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("shape", [(32, 32), (16, 40), (21, 13)])
def test_places_of_an_exact_convolution_against_erosion_and_against_what_is_computed(shape, kernel):
    for tree in (build_quadtree(patchy(*shape), 0.2), build_quadtree(noise(*shape), 0, min_size=8), pixels(*shape)):
        found = exact_conv_sites(tree, kernel, 4).tolist()
        reaches = [layer * (kernel // 2) for layer in (1, 2, 3, 4)]
        numbers = leaf_map(tree, shape)
        assert found == [eroded_count(tree, shape, reach) for reach in reaches]
        assert found == [len(_exact_places(tree, numbers, reach)[0]) for reach in reaches]
        assert max(found) <= shape[0] * shape[1]
        assert found == sorted(found)


def dense(x, weight, bias=None):
    return F.conv2d(x[None], weight, bias, padding=weight.shape[-1] // 2)[0]


def kernels(count, channels, side, seed=0):
    return torch.randn(count, channels, side, side, generator=seeded(seed), dtype=torch.float64)


def even(shape, channels=2):
    """A tree and an image that is even inside its leaves."""
    image = patchy(channels, *shape)
    tree = build_quadtree(image, 0.2)
    assert len(tree[:, 2].unique()) > 1
    return tree, reconstruct(tree, leaf_means(image, tree), shape)


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("shape", [(32, 32), (16, 40), (21, 13)])
def test_an_exact_convolution_on_an_even_image_is_the_dense_one(shape, side):
    tree, x = even(shape)
    weight, bias = kernels(4, 2, side), torch.tensor([0.5, -1, 2, 3], dtype=torch.float64)
    found = convolve_on_leaves(x, tree, weight)
    assert found.shape == (4, *shape)
    torch.testing.assert_close(found, dense(x, weight), rtol=1e-12, atol=1e-12)
    found = convolve_on_leaves(x, tree, weight, bias)
    torch.testing.assert_close(found, dense(x, weight, bias), rtol=1e-12, atol=1e-12)
    order = torch.randperm(len(tree), generator=seeded(1))
    torch.testing.assert_close(convolve_on_leaves(x, tree[order], weight, bias), found, rtol=1e-12, atol=1e-12)


def test_a_single_large_leaf_and_a_single_channel():
    tree, x = torch.tensor([[0, 0, 8]]), torch.ones(1, 8, 8)
    found = convolve_on_leaves(x, tree, torch.ones(1, 1, 3, 3))[0]
    assert found[0].tolist() == found[:, 7].tolist() == [4, 6, 6, 6, 6, 6, 6, 4]
    assert (found[1:7, 1:7] == 9).all()
    torch.testing.assert_close(convolve_on_leaves(x, tree, torch.ones(1, 1, 9, 9)), dense(x, torch.ones(1, 1, 9, 9)))


@pytest.mark.parametrize("sides", [(3, 3, 3), (3, 5, 1), (5, 1, 3)])
@pytest.mark.parametrize("shape", [(32, 32), (21, 13)])
def test_a_chain_of_exact_convolutions_with_a_growing_margin_is_the_dense_chain(shape, sides):
    tree, x = even(shape)
    wanted, margin = x, 0
    for seed, side in enumerate(sides):
        weight, bias = kernels(3, len(x), side, seed), kernels(3, 1, 1, seed + 9).flatten()
        x = convolve_on_leaves(x, tree, weight, bias, margin=margin).relu()
        wanted = dense(wanted, weight, bias).relu()
        torch.testing.assert_close(x, wanted, rtol=1e-11, atol=1e-11)
        margin += side // 2
    assert len(tree) < shape[0] * shape[1] / 2


def test_without_the_margin_the_second_layer_is_wrong():
    tree, ones = torch.tensor([[0, 0, 8]]), torch.ones(1, 1, 3, 3)
    first = convolve_on_leaves(torch.ones(1, 8, 8), tree, ones)  # 4 at the corners, 6 along the edges, 9 inside
    assert convolve_on_leaves(first, tree, ones, margin=1)[0, 4, 4] == 81 == dense(first, ones)[0, 4, 4]
    assert convolve_on_leaves(first, tree, ones)[0, 4, 4] != 81


def test_an_exact_convolution_computes_each_inside_once():
    tree, x, weight = torch.tensor([[0, 0, 8], [0, 8, 8]]), noise(2, 8, 16), kernels(3, 2, 3)
    wanted = dense(x, weight)
    for margin in (0, 1):  # x is uneven, so whatever is computed only once is even and elsewhere wrong
        found, cut = convolve_on_leaves(x, tree, weight, margin=margin), margin + 1
        inside = torch.zeros(8, 16, dtype=torch.bool)
        for left in (0, 8):
            inside[cut : 8 - cut, left + cut : left + 8 - cut] = True
            square = found[:, cut : 8 - cut, left + cut : left + 8 - cut]
            assert (square == square[:, :1, :1]).all()
        torch.testing.assert_close(found[:, ~inside], wanted[:, ~inside])
        assert not torch.isclose(found[:, inside], wanted[:, inside]).all(1).any()


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("shape", [(32, 32), (21, 13)])
def test_not_exact_is_the_dense_answer_at_each_leafs_centre(shape, side):
    x, weight, bias = patchy(2, *shape), kernels(3, 2, side), kernels(3, 1, 1).flatten()
    tree, wanted = build_quadtree(x, 0.2), dense(x, weight, bias)
    found = convolve_on_leaves(x, tree, weight, bias, exact=False)
    assert found.shape == (3, *shape)
    for y, x0, size in tree.tolist():
        centre = wanted[:, y + size // 2, x0 + size // 2]
        square = found[:, y : y + size, x0 : x0 + size]
        torch.testing.assert_close(square, centre[:, None, None].expand_as(square))
    alone = convolve_on_leaves(x, pixels(*shape), weight, bias, exact=False)
    torch.testing.assert_close(alone, wanted)
    torch.testing.assert_close(convolve_on_leaves(x, pixels(*shape), weight, exact=False), dense(x, weight))


# what a score owes to a leaf


def leafwise(net, image, tree, classes):
    """Autograd through z[leaf_map]: the gradient of each class's logit with respect to the leaves' values."""
    z = leaf_means(image, tree).requires_grad_()
    scores = net.eval()(z[leaf_map(tree, image.shape[-2:])].permute(2, 0, 1)[None])[0]
    return [torch.autograd.grad(scores[c], z, retain_graph=True)[0] for c in classes]


@pytest.mark.parametrize("shape", [(16, 16), (9, 14)])
def test_leaf_gradient_is_the_gradient_of_the_leaves_values(shape):
    net, x = tiny(), torch.stack([patchy(2, *shape), patchy(2, *shape, seed=5) - 1])
    trees = build_quadtree(x, 0.2)
    assert len(trees[0]) != len(trees[1])
    wanted = [leafwise(tiny(), image, tree, range(3)) for image, tree in zip(x, trees, strict=True)]
    close = {"rtol": 1e-12, "atol": 1e-12}
    one = leaf_gradient(net, x[:1], 1, trees[0])
    assert one.shape == (len(trees[0]), 2)
    torch.testing.assert_close(one, wanted[0][1], **close)
    several = leaf_gradient(net, x[:1], [[2, 0]], trees[0])
    assert several.shape == (2, len(trees[0]), 2)
    torch.testing.assert_close(several, torch.stack([wanted[0][2], wanted[0][0]]), **close)
    both = leaf_gradient(net, x, [1, 2], trees)
    assert isinstance(both, list)
    for found, right in zip(both, [wanted[0][1], wanted[1][2]], strict=True):
        torch.testing.assert_close(found, right, **close)
    both = leaf_gradient(net, x, torch.tensor([[1, 2], [0, 2]]), tuple(trees))
    for found, right in zip(both, [wanted[0][1:], wanted[1][::2]], strict=True):
        torch.testing.assert_close(found, torch.stack(right), **close)
    alone = leaf_gradient(net, x[:1], 1, trees[:1])
    assert isinstance(alone, list)
    torch.testing.assert_close(alone[0], one)


def test_leaf_gradient_in_single_precision():
    net, x = tiny().float(), patchy(1, 2, 16, 16).float()
    tree = build_quadtree(x[0], 0.2)
    found = leaf_gradient(net, x, 1, tree)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, leafwise(net, x[0], tree, [1])[0], rtol=1e-5, atol=1e-6)


def test_a_large_leafs_gradient_is_as_exact_as_its_dtype():
    net = nn.Sequential(nn.Flatten(), nn.Linear(256 * 256, 1))
    nn.init.constant_(net[1].weight, 0.1)
    found = leaf_gradient(net, torch.ones(1, 1, 256, 256), 0, torch.tensor([[0, 0, 256]]))
    torch.testing.assert_close(found, torch.tensor([[0.1 * 256 * 256]]), rtol=1e-6, atol=0)


def test_leaf_gradient_is_the_sum_of_the_dense_gradient_over_each_leaf():
    net, x = tiny(), patchy(1, 2, 16, 16)
    tree = build_quadtree(x[0], 0.2)
    slope = input_gradient(net, reconstruct(tree, leaf_means(x[0], tree), (16, 16))[None], 2)[0]
    wanted = torch.stack([slope[:, y : y + size, x0 : x0 + size].sum((1, 2)) for y, x0, size in tree.tolist()])
    torch.testing.assert_close(leaf_gradient(net, x, 2, tree), wanted, rtol=1e-12, atol=1e-12)


def test_leaf_gradient_on_single_pixels_is_the_dense_gradient():
    net, x = tiny(), noise(1, 2, 9, 7)
    found = reconstruct(pixels(9, 7), leaf_gradient(net, x, 2, pixels(9, 7)), (9, 7))
    torch.testing.assert_close(found, input_gradient(net, x, 2)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fill", [0, 0.7, torch.tensor([0.2, -1.0])[:, None, None], noise(2, 2, 9, 14, seed=3)])
def test_occlusion_on_leaves_by_hand(fill):
    net, x = tiny(), torch.stack([patchy(2, 9, 14), patchy(2, 9, 14, seed=5)])
    trees = [build_quadtree(x[0], 0.3), build_quadtree(x[1], 0.01)]
    assert len(trees[0]) != len(trees[1])
    cover, plain = torch.as_tensor(fill).double().expand_as(x), tiny().eval()
    wanted = []
    with torch.no_grad():
        for image, colour, tree in zip(x, cover, trees, strict=True):
            drops = []
            for y, x0, size in tree.tolist():
                covered, box = image.clone(), (slice(None), slice(y, y + size), slice(x0, x0 + size))
                covered[box] = colour[box]
                drops.append((plain(image[None]) - plain(covered[None]))[0])
            wanted.append(torch.stack(drops, 1))  # (classes, L)
    close = {"rtol": 1e-12, "atol": 1e-12}
    found = occlusion_on_leaves(net, x, [1, 2], trees, fill=fill)
    assert isinstance(found, list)
    torch.testing.assert_close(found[0], wanted[0][1], **close)
    torch.testing.assert_close(found[1], wanted[1][2], **close)
    found = occlusion_on_leaves(net, x, [[1, 2], [0, 2]], tuple(trees), fill=fill)
    torch.testing.assert_close(found[0], wanted[0][1:], **close)
    torch.testing.assert_close(found[1], wanted[1][::2], **close)
    first = fill[:1] if isinstance(fill, torch.Tensor) and fill.ndim == 4 else fill
    one = occlusion_on_leaves(net, x[:1], 0, trees[0], fill=first)
    assert one.shape == (len(trees[0]),)
    torch.testing.assert_close(one, wanted[0][0], **close)
    several = occlusion_on_leaves(net, x[:1], [[2, 0]], trees[0], fill=first)
    torch.testing.assert_close(several, wanted[0][[2, 0]], **close)
    assert isinstance(occlusion_on_leaves(net, x[:1], 0, trees[:1], fill=first), list)


def test_the_chunk_changes_nothing_but_the_passes():
    net, x, sizes = tiny(), patchy(1, 2, 9, 14), []
    tree = build_quadtree(x[0], 0.3)
    wanted = occlusion_on_leaves(net, x, 1, tree)
    net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    for chunk in (1, 3, 1000):
        sizes.clear()
        found = occlusion_on_leaves(net, x, 1, tree, chunk=chunk)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        assert max(sizes) == min(chunk, len(tree))


@pytest.mark.parametrize("target", [1, [[0, 2]]])
def test_occlusion_on_equal_squares_is_sliding_occlusion(target):
    net, x = tiny(), noise(1, 2, 32, 32)
    tree = build_quadtree(x[0], 0, min_size=8)
    assert len(tree) == 16
    found = occlusion_on_leaves(net, x, target, tree, fill=0.5)
    wanted = occlusion(net, x, target, window=8, stride=8, fill=0.5)[0]
    torch.testing.assert_close(reconstruct(tree, found.movedim(-1, 0), (32, 32)), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", [leaf_gradient, occlusion_on_leaves])
@pytest.mark.parametrize("training", [True, False])
def test_the_network_and_the_images_are_left_as_they_were_found(method, training):
    net, x = tiny().train(training), patchy(1, 2, 16, 16)
    tree, before = build_quadtree(x[0], 0.3), x.clone()
    leaves = tree.clone()
    with assert_untouched(net):
        found = method(net, x, 1, tree)
        torch.testing.assert_close(method(net, x.requires_grad_(), 1, [tree])[0], found)
    assert torch.equal(x, before)
    assert torch.equal(tree, leaves)
    assert x.grad is None
    assert not found.requires_grad
    broken = nn.Sequential(*tiny().train(training), Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(broken):
        method(broken, x, 1, tree)


# bad input


@pytest.mark.parametrize("method", [lambda x: build_quadtree(x, 0.1), lambda x: threshold_for(x, 100)])
@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(4),
        torch.zeros(1, 1, 1, 4, 4),
        torch.tensor(1.0),
        [[0.0, 1.0], [0.0, 1.0]],
        np.zeros((4, 4)),
        None,
        torch.zeros(4, 4, dtype=torch.uint8),
        torch.zeros(4, 4, dtype=torch.bool),
        torch.zeros(4, 4, dtype=torch.complex64),
        torch.tensor([[0.0, math.nan]]),
        torch.tensor([[0.0, -math.inf]]),
        torch.zeros(0, 4),
        torch.zeros(4, 0),
        torch.zeros(3, 0, 4),
        torch.zeros(3, 4, 0),
        torch.zeros(0, 4, 4),
        torch.zeros(0, 3, 4, 4),
        torch.zeros(2, 3, 0, 4),
    ],
)
def test_bad_images_are_refused(method, image):
    with pytest.raises(ValueError, match=r"^image must be "):
        method(image)
    with pytest.raises(ValueError, match=r"^image must be "):
        leaf_means(image, torch.tensor([[0, 0, 4]]))


def test_a_batch_has_no_one_tree_to_average_over():
    with pytest.raises(ValueError, match=r"^image must be \(H, W\) or \(C, H, W\)"):
        leaf_means(torch.zeros(2, 1, 4, 4), torch.tensor([[0, 0, 4]]))


@pytest.mark.parametrize(
    "threshold", [-0.1, -math.inf, math.inf, math.nan, None, "0.1", [0.1, 0.2, 0.3], torch.tensor([0.1, 0.2, 0.3])]
)
def test_a_bad_threshold_is_refused(threshold):
    with pytest.raises(ValueError, match=r"^threshold must be a finite number from 0 on"):
        build_quadtree(noise(2, 1, 4, 4), threshold)


@pytest.mark.parametrize("method", [lambda **more: build_quadtree(noise(4, 4), 0.1, **more),
                                    lambda **more: threshold_for(noise(4, 4), 100, **more)])  # fmt: skip
def test_a_bad_criterion_or_least_size_is_refused(method):
    for criterion in ("var", "Range", "", None, 1):
        with pytest.raises(ValueError, match=r"^criterion must be one of range, std.*, got "):
            method(criterion=criterion)
    for size in (0, -2, 3, 6, 12, True, 2.0, "2", None):
        with pytest.raises(ValueError, match=r"^min_size must be a"):
            method(min_size=size)


FOUR = torch.tensor([[0, 0, 2], [0, 2, 2], [2, 0, 2], [2, 2, 2]])
X = torch.rand(3, 4, 4, generator=seeded(0))
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))

NO_TREES = [
    ("a non-empty", None),
    ("a non-empty", [[0, 0, 4]]),
    ("a non-empty", torch.tensor([0, 0, 4])),
    ("a non-empty", torch.tensor([[0, 0, 4, 4]])),
    ("a non-empty", FOUR[None]),
    ("a non-empty", FOUR[:0]),
    ("int64", FOUR.float()),
    ("int64", FOUR.int()),
    ("begin at multiples of their size", torch.tensor([[0, 1, 2]])),
    ("begin at multiples of their size", torch.tensor([[1, 0, 2]])),
    ("begin at multiples of their size", torch.tensor([[0, 0, 0]])),
    ("begin at multiples of their size", torch.tensor([[0, 0, -4]])),
    ("begin at multiples of their size", torch.tensor([[-2, 0, 2]])),
    ("begin at multiples of their size", torch.tensor([[0, -2, 2]])),
]
NO_TILES = [
    ("tile", FOUR[:3]),  # a gap
    ("tile", FOUR[[0, 1, 2, 2]]),  # one twice
    ("tile", torch.cat([FOUR, FOUR[:1]])),
    ("tile", torch.cat([FOUR, torch.tensor([[0, 0, 4]])])),  # one over the others
    ("tile", torch.cat([FOUR[:3], FOUR[:3] // 2, torch.tensor([[1, 1, 1]])])),  # as many pixels, a gap
    ("(tile|lie in)", torch.tensor([[0, 0, 8]])),
    ("(tile|lie in)", torch.cat([FOUR, torch.tensor([[0, 4, 2]])])),  # beyond
    ("(tile|lie in)", torch.cat([FOUR, torch.tensor([[4, 0, 2]])])),
    ("(tile|lie in)", torch.cat([FOUR[:3], torch.tensor([[4, 4, 2]])])),
    ("(tile|lie in)", torch.tensor([[0, 0, 2**20]])),
]
USES = {
    "leaf_map": lambda tree: leaf_map(tree, (4, 4)),
    "leaf_means": lambda tree: leaf_means(X, tree),
    "reconstruct": lambda tree: reconstruct(tree, torch.ones(4), (4, 4)),
    "convolve_on_leaves": lambda tree: convolve_on_leaves(X, tree, torch.ones(1, 3, 3, 3)),
    "not exact": lambda tree: convolve_on_leaves(X, tree, torch.ones(1, 3, 3, 3), exact=False),
    "leaf_gradient": lambda tree: leaf_gradient(LINEAR, X[None], 0, tree),
    "occlusion_on_leaves": lambda tree: occlusion_on_leaves(LINEAR, X[None], 0, [tree]),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("message", "tree"), NO_TREES + NO_TILES)
def test_leaves_that_are_no_tree_or_do_not_tile_the_image_are_refused(message, tree, use):
    if use == "leaf_gradient" and not isinstance(tree, torch.Tensor):
        message = "a "  # a list is taken for a list of trees
    with pytest.raises(ValueError, match=f"^leaves must .*{message}"):
        USES[use](tree)


@pytest.mark.parametrize(("message", "tree"), NO_TREES)
def test_places_of_no_tree_are_refused(message, tree):
    with pytest.raises(ValueError, match=f"^leaves must be.*{message}|^leaves must {message}"):
        exact_conv_sites(tree, 3)


@pytest.mark.parametrize("method", [leaf_gradient, occlusion_on_leaves])
def test_another_number_of_trees_is_refused(method):
    for x, trees in [(X[None], []), (X[None], [FOUR, FOUR]), (X.expand(2, -1, -1, -1), FOUR), (X[None], (FOUR,) * 3)]:
        with pytest.raises(ValueError, match=f"^leaves must be a tree for each image: {len(x)} images"):
            method(LINEAR, x, 0, trees)
    for trees in (None, 5):
        with pytest.raises(ValueError, match=r"^leaves must "):
            method(LINEAR, X[None], 0, trees)


@pytest.mark.parametrize("method", [leaf_gradient, occlusion_on_leaves])
def test_bad_images_and_targets_of_a_network_are_refused(method):
    with pytest.raises(ValueError, match=r"^x must have shape \(B, C, H, W\)"):
        method(LINEAR, X, 0, FOUR)
    with pytest.raises(ValueError, match=r"^x must be finite"):
        method(LINEAR, X[None] * math.nan, 0, FOUR)
    with pytest.raises(ValueError, match=r"^target must "):
        method(LINEAR, X[None], 2, FOUR)
    for chunk in (0, True):
        with pytest.raises(ValueError, match=r"^chunk must be an integer of at least 1"):
            occlusion_on_leaves(LINEAR, X[None], 0, FOUR, chunk=chunk)
    with pytest.raises(ValueError, match=r"^fill must be"):
        occlusion_on_leaves(LINEAR, X[None], 0, FOUR, fill=torch.ones(5))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 1), (0, 4), (4, -4), (4.5, 4), 4, None, ("a", 4), ()])
def test_a_bad_shape_is_refused(shape):
    for call in (lambda: leaf_map(FOUR, shape), lambda: reconstruct(FOUR, torch.ones(4), shape)):
        with pytest.raises(ValueError, match=r"^shape must be \(H, W\), two positive integers"):
            call()


@pytest.mark.parametrize(
    "values",
    [torch.ones(3), torch.ones(5), torch.ones(3, 4), torch.ones(4, 1, 1), torch.tensor(1.0), [1.0] * 4, None],
)
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match=r"^values must be \(L,\) or \(L, C\) with L = 4 leaves"):
        reconstruct(FOUR, values, (4, 4))


@pytest.mark.parametrize("kernel", [0, 2, 4, -3, True, 3.0, None])
def test_a_bad_kernel_is_refused(kernel):
    with pytest.raises(ValueError, match=r"^kernel must be "):
        exact_conv_sites(FOUR, kernel)


@pytest.mark.parametrize("layers", [0, -1, True, 1.5, None])
def test_a_bad_number_of_layers_is_refused(layers):
    with pytest.raises(ValueError, match=r"^layers must be an integer of at least 1"):
        exact_conv_sites(FOUR, 3, layers)


@pytest.mark.parametrize("exact", [True, False])
def test_bad_margins_are_refused(exact):
    for margin in (-1, True, 1.0, None):
        with pytest.raises(ValueError, match=r"^margin must be an integer from 0 on"):
            convolve_on_leaves(X, FOUR, torch.ones(1, 3, 3, 3), margin=margin, exact=exact)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        (X[0], torch.ones(1, 3, 3, 3), None, r"x must be \(C, H, W\) and weight \(K, C, k, k\)"),
        (X[None], torch.ones(1, 3, 3, 3), None, r"x must be \(C, H, W\) and weight \(K, C, k, k\)"),
        (X, torch.ones(3, 3, 3), None, r"x must be .* and weight \(K, C, k, k\), got .* \(3, 3, 3\)"),
        (X, torch.ones(1, 2, 3, 3), None, r"x must be .* and weight \(K, C, k, k\), got .* \(1, 2, 3, 3\)"),
        (X, torch.ones(1, 3, 3, 1), None, r"x must be .* and weight \(K, C, k, k\)"),
        (X, torch.ones(1, 3, 2, 2), None, r"kernel must be odd"),
        (X, torch.ones(1, 3, 0, 0), None, r"kernel must be"),
        (X, torch.ones(2, 3, 3, 3), torch.ones(3), r"bias must be"),
        (X, torch.ones(2, 3, 3, 3), torch.ones(1), r"bias must be"),
        (X, torch.ones(2, 3, 3, 3), torch.ones(2, 2), r"bias must be"),
        (X, torch.ones(2, 3, 3, 3), torch.tensor(1.0), r"bias must be"),
        (X, torch.ones(2, 3, 3, 3).double(), None, r".*(x|weight) must .*float"),
        (None, torch.ones(2, 3, 3, 3), None, r"x must be"),
        (X, None, None, r".*weight"),
    ],
)
def test_images_and_kernels_that_do_not_fit_are_refused(x, weight, bias, message, exact):
    with pytest.raises(ValueError, match=f"^{message}"):
        convolve_on_leaves(x, FOUR, weight, bias, exact=exact)


def test_each_image_of_a_batch_may_have_its_own_threshold():
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    limits = threshold_for(images, 40, "error")
    trees = build_quadtree(images, limits, "error")
    assert [len(tree) for tree in trees] == [40, 40, 40]
    for image, limit, tree in zip(images, limits, trees, strict=True):
        assert torch.equal(build_quadtree(image, limit, "error"), tree)


def test_leaves_as_boxes():
    assert leaf_boxes(torch.tensor([[0, 4, 2], [8, 0, 8]])).tolist() == [[4, 0, 6, 2], [0, 8, 8, 16]]
    with pytest.raises(ValueError, match="leaves must be"):
        leaf_boxes(torch.zeros(3))
