"""Trees by hand and against an oracle that cuts one square after the other; thresholds for a number of leaves."""

import math
import time

import numpy as np
import pytest
import torch
from support.quadtree import crop, noise, patchy
from support.refuses import refuses

from helpers.data import photo
from helpers.quadtree import build_quadtree, leaf_map, leaf_means, reconstruct, threshold_for

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


def expected_tree(image, *args):
    return [list(leaf) for leaf in sorted(grow(image if image.ndim == 3 else image[None], *args)[0])]


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
            actual = build_quadtree(image, threshold, criterion, min_size)
            assert actual.tolist() == expected_tree(image, threshold, criterion, min_size)


@EACH
@pytest.mark.parametrize("name", ["camera", "astronaut"])
def test_trees_of_photographs_against_the_oracle(name, criterion):
    image = crop(name)
    for part, threshold, min_size in [(image, 0.1, 1), (image, 0.05, 4), (image[:, :30, 30:71], 0, 1)]:
        actual = build_quadtree(part, threshold, criterion, min_size)
        assert actual.tolist() == expected_tree(part, threshold, criterion, min_size)
    assert len({leaf[2] for leaf in build_quadtree(image, 0.1, criterion).tolist()}) > 3


@EACH
def test_small_differences_far_from_zero_are_seen(criterion):
    image = 1000 + 1e-6 * patchy(16, 16)
    for threshold in (0.05, 0.2):
        threshold *= 1e-12 if criterion == "error" else 1e-6
        actual = build_quadtree(image, threshold, criterion)
        assert actual.tolist() == expected_tree(image, threshold, criterion)
    assert len(actual) > 4


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
    gray = patchy(*shape)  # may come with or without its channel
    assert torch.equal(build_quadtree(gray, 0.2), build_quadtree(gray[None], 0.2))


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


@pytest.mark.parametrize("shape", [(32, 32), (13, 22), (3, 16, 16), (3, 9, 20)])
def test_by_range_no_pixel_is_further_from_its_leaf_than_the_threshold(shape):
    image = patchy(*shape) + 0.1 * noise(*shape, seed=7)
    for threshold in (0, 0.05, 0.2, 0.5):
        tree = build_quadtree(image, threshold)
        actual = reconstruct(tree, leaf_means(image, tree), shape[-2:])
        assert (actual - image).abs().max() <= threshold + 1e-14


@EACH
def test_threshold_zero_keeps_the_image(criterion):
    for image in (patchy(16, 16), patchy(3, 13, 7), crop(), photo("camera")):
        tree = build_quadtree(image, 0, criterion)
        actual = reconstruct(tree, leaf_means(image, tree), image.shape[-2:])
        torch.testing.assert_close(actual, image, rtol=1e-6, atol=0)


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
        actual = len(build_quadtree(image, threshold, criterion, min_size))
        assert actual == max(count for count in counts if count <= most)
        assert len(build_quadtree(image, float(threshold), criterion, min_size)) == actual
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
    actual = threshold_for(batch, 20, criterion, min_size)
    assert actual.shape == (3,)
    assert actual.tolist() == [threshold_for(image, 20, criterion, min_size).tolist() for image in batch]


@EACH
def test_fewer_leaves_than_the_smallest_tree_has_are_refused(criterion):
    assert len(build_quadtree(noise(3, 3), threshold_for(noise(3, 3), 6, criterion), criterion)) == 6
    with pytest.raises(ValueError, match=r"^leaves must be at least 6, .*got 5"):
        threshold_for(noise(3, 3), 5, criterion)
    with pytest.raises(ValueError, match=r"^leaves must be at least 6"):
        threshold_for(noise(2, 3, 3, 3), 1, criterion, min_size=4)


def test_each_image_of_a_batch_may_have_its_own_threshold():
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    limits = threshold_for(images, 40, "error")
    trees = build_quadtree(images, limits, "error")
    assert [len(tree) for tree in trees] == [40, 40, 40]
    for image, limit, tree in zip(images, limits, trees, strict=True):
        assert torch.equal(build_quadtree(image, limit, "error"), tree)


def test_bad_arguments_are_refused():
    for image in (torch.zeros(4), torch.tensor([[0.0, math.nan]])):
        refuses(build_quadtree, {"threshold": 0.1}, image=image)
        refuses(threshold_for, {"leaves": 100}, image=image)
    bad = {"criterion": "var", "min_size": 6}
    for threshold in (-0.1, math.inf, torch.tensor([0.1, 0.2, 0.3])):
        refuses(build_quadtree, {"image": noise(2, 1, 4, 4), "threshold": 0.1}, threshold=threshold, **bad)
    refuses(threshold_for, {"image": noise(4, 4), "leaves": 100}, leaves=0, **bad)
