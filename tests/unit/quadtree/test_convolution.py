"""Convolutions on leaves against dense ones."""

import pytest
import torch
import torch.nn.functional as F
from support.quadtree import FOUR, X, noise, patchy, pixels, seeded
from support.refuses import refuses

from helpers.quadtree import build_quadtree, convolve_on_leaves, exact_conv_sites, leaf_map, leaf_means, reconstruct
from helpers.quadtree._convolution import _exact_places


@pytest.mark.parametrize(
    ("sides", "kernel", "expected"),
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
def test_places_of_an_exact_convolution_by_hand(sides, kernel, expected):
    corners = [(0, 0), (0, sides[0]), (sides[0], 0), (sides[0], sides[0])]
    tree = torch.tensor([[y, x, side] for side, (y, x) in zip(sides, corners, strict=False)])
    actual = exact_conv_sites(tree, kernel, len(expected))
    assert actual.tolist() == expected
    assert actual.dtype == torch.int64
    assert exact_conv_sites(tree, kernel).tolist() == expected[:1]


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
        actual = exact_conv_sites(tree, kernel, 4).tolist()
        reaches = [layer * (kernel // 2) for layer in (1, 2, 3, 4)]
        numbers = leaf_map(tree, shape)
        assert actual == [eroded_count(tree, shape, reach) for reach in reaches]
        assert actual == [len(_exact_places(tree, numbers, reach)[0]) for reach in reaches]
        assert max(actual) <= shape[0] * shape[1]
        assert actual == sorted(actual)


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
    actual = convolve_on_leaves(x, tree, weight)
    assert actual.shape == (4, *shape)
    torch.testing.assert_close(actual, dense(x, weight), rtol=1e-12, atol=1e-12)
    actual = convolve_on_leaves(x, tree, weight, bias)
    torch.testing.assert_close(actual, dense(x, weight, bias), rtol=1e-12, atol=1e-12)
    order = torch.randperm(len(tree), generator=seeded(1))
    torch.testing.assert_close(convolve_on_leaves(x, tree[order], weight, bias), actual, rtol=1e-12, atol=1e-12)


def test_a_single_large_leaf_and_a_single_channel():
    tree, x = torch.tensor([[0, 0, 8]]), torch.ones(1, 8, 8)
    actual = convolve_on_leaves(x, tree, torch.ones(1, 1, 3, 3))[0]
    assert actual[0].tolist() == actual[:, 7].tolist() == [4, 6, 6, 6, 6, 6, 6, 4]
    assert (actual[1:7, 1:7] == 9).all()
    torch.testing.assert_close(convolve_on_leaves(x, tree, torch.ones(1, 1, 9, 9)), dense(x, torch.ones(1, 1, 9, 9)))


@pytest.mark.parametrize("sides", [(3, 3, 3), (3, 5, 1), (5, 1, 3)])
@pytest.mark.parametrize("shape", [(32, 32), (21, 13)])
def test_a_chain_of_exact_convolutions_with_a_growing_margin_is_the_dense_chain(shape, sides):
    tree, x = even(shape)
    expected, margin = x, 0
    for seed, side in enumerate(sides):
        weight, bias = kernels(3, len(x), side, seed), kernels(3, 1, 1, seed + 9).flatten()
        x = convolve_on_leaves(x, tree, weight, bias, margin=margin).relu()
        expected = dense(expected, weight, bias).relu()
        torch.testing.assert_close(x, expected, rtol=1e-11, atol=1e-11)
        margin += side // 2
    assert len(tree) < shape[0] * shape[1] / 2


def test_without_the_margin_the_second_layer_is_wrong():
    tree, ones = torch.tensor([[0, 0, 8]]), torch.ones(1, 1, 3, 3)
    first = convolve_on_leaves(torch.ones(1, 8, 8), tree, ones)  # 4 at the corners, 6 along the edges, 9 inside
    assert convolve_on_leaves(first, tree, ones, margin=1)[0, 4, 4] == 81 == dense(first, ones)[0, 4, 4]
    assert convolve_on_leaves(first, tree, ones)[0, 4, 4] != 81


def test_an_exact_convolution_computes_each_inside_once():
    tree, x, weight = torch.tensor([[0, 0, 8], [0, 8, 8]]), noise(2, 8, 16), kernels(3, 2, 3)
    expected = dense(x, weight)
    for margin in (0, 1):  # x is uneven, so whatever is computed only once is even and elsewhere wrong
        actual, cut = convolve_on_leaves(x, tree, weight, margin=margin), margin + 1
        inside = torch.zeros(8, 16, dtype=torch.bool)
        for left in (0, 8):
            inside[cut : 8 - cut, left + cut : left + 8 - cut] = True
            square = actual[:, cut : 8 - cut, left + cut : left + 8 - cut]
            assert (square == square[:, :1, :1]).all()
        torch.testing.assert_close(actual[:, ~inside], expected[:, ~inside])
        assert not torch.isclose(actual[:, inside], expected[:, inside]).all(1).any()


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("shape", [(32, 32), (21, 13)])
def test_not_exact_is_the_dense_answer_at_each_leafs_centre(shape, side):
    x, weight, bias = patchy(2, *shape), kernels(3, 2, side), kernels(3, 1, 1).flatten()
    tree, expected = build_quadtree(x, 0.2), dense(x, weight, bias)
    actual = convolve_on_leaves(x, tree, weight, bias, exact=False)
    assert actual.shape == (3, *shape)
    for y, x0, size in tree.tolist():
        centre = expected[:, y + size // 2, x0 + size // 2]
        square = actual[:, y : y + size, x0 : x0 + size]
        torch.testing.assert_close(square, centre[:, None, None].expand_as(square))
    alone = convolve_on_leaves(x, pixels(*shape), weight, bias, exact=False)
    torch.testing.assert_close(alone, expected)
    torch.testing.assert_close(convolve_on_leaves(x, pixels(*shape), weight, exact=False), dense(x, weight))


def test_bad_arguments_are_refused():
    for kernel in (2, 0):
        refuses(exact_conv_sites, {"leaves": FOUR, "kernel": 3}, leaves=[[0, 0, 4]], kernel=kernel, layers=0)
    weight = torch.ones(1, 3, 3, 3)
    for exact in (True, False):
        arguments = {"x": X[0], "leaves": FOUR, "weight": weight, "exact": exact}
        for wrong in (weight[0], weight[:, :2], weight[..., :1], weight.double()):
            refuses(convolve_on_leaves, arguments, weight=wrong)
        refuses(convolve_on_leaves, arguments, x=X, bias=torch.ones(3), margin=-1)
        with pytest.raises(ValueError, match=r"^kernel must be odd"):
            convolve_on_leaves(X[0], FOUR, weight[..., :2, :2], exact=exact)
