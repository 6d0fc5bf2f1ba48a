"""Leaf maps, means and pictures by hand; what is no tree."""

import pytest
import torch
from support.quadtree import noise, patchy, seeded
from torch import nn

from helpers.data import photo
from helpers.quadtree import (
    build_quadtree,
    convolve_on_leaves,
    leaf_boxes,
    leaf_gradient,
    leaf_map,
    leaf_means,
    occlusion_on_leaves,
    reconstruct,
)

# what a tree keeps of the image


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


# bad input


def test_leaves_as_boxes():
    assert leaf_boxes(torch.tensor([[0, 4, 2], [8, 0, 8]])).tolist() == [[4, 0, 6, 2], [0, 8, 8, 16]]
    with pytest.raises(ValueError, match="leaves must be"):
        leaf_boxes(torch.zeros(3))


# what is refused

FOUR = torch.tensor([[0, 0, 2], [0, 2, 2], [2, 0, 2], [2, 2, 2]])
X = torch.rand(3, 4, 4, generator=seeded(0))
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
NO_TREES = {
    "a list": ([[0, 0, 4]], "leaves must"),
    "one row": (torch.tensor([0, 0, 4]), "leaves must be a non-empty"),
    "no row": (FOUR[:0], "leaves must be a non-empty"),
    "four columns": (torch.tensor([[0, 0, 4, 4]]), "leaves must be a non-empty"),
    "floats": (FOUR.float(), "leaves must be integer"),
    "32 bits": (FOUR.int(), "leaves must be int64"),
    "beside the grid": (torch.tensor([[0, 1, 2]]), "leaves must begin at multiples"),
    "above the grid": (torch.tensor([[1, 0, 2]]), "leaves must begin at multiples"),
    "no side": (torch.tensor([[0, 0, 0]]), "leaves must begin at multiples"),
    "a negative side": (torch.tensor([[0, 0, -4]]), "leaves must begin at multiples"),
    "a negative row": (torch.tensor([[-2, 0, 2]]), "leaves must begin at multiples"),
    "a negative column": (torch.tensor([[0, -2, 2]]), "leaves must begin at multiples"),
}
NO_TILES = {
    "a gap": FOUR[:3],
    "one in place of another": FOUR[[0, 1, 2, 2]],
    "one twice": torch.cat([FOUR, FOUR[:1]]),
    "one over the others": torch.cat([FOUR, torch.tensor([[0, 0, 4]])]),
    "as many pixels, and a gap": torch.cat([FOUR[:3], FOUR[:3] // 2, torch.tensor([[1, 1, 1]])]),
    "too large": torch.tensor([[0, 0, 8]]),
    "far too large": torch.tensor([[0, 0, 2**20]]),
    "beyond the right": torch.cat([FOUR, torch.tensor([[0, 4, 2]])]),
    "beyond the bottom": torch.cat([FOUR, torch.tensor([[4, 0, 2]])]),
    "beyond the corner": torch.cat([FOUR[:3], torch.tensor([[4, 4, 2]])]),
}


@pytest.mark.parametrize(("tree", "message"), NO_TREES.values(), ids=NO_TREES)
def test_what_is_no_tree_is_refused(tree, message):
    for call in (leaf_boxes, lambda leaves: leaf_map(leaves, (4, 4))):
        with pytest.raises(ValueError, match=f"^{message}"):
            call(tree)


@pytest.mark.parametrize("tree", NO_TILES.values(), ids=NO_TILES)
def test_leaves_that_do_not_tile_the_image_are_refused(tree):
    with pytest.raises(ValueError, match=r"^leaves must (tile|lie in)"):
        leaf_map(tree, (4, 4))


USES = {
    "leaf_means": lambda tree: leaf_means(X, tree),
    "reconstruct": lambda tree: reconstruct(tree, torch.ones(4), (4, 4)),
    "convolve_on_leaves": lambda tree: convolve_on_leaves(X, tree, torch.ones(1, 3, 3, 3)),
    "not exact": lambda tree: convolve_on_leaves(X, tree, torch.ones(1, 3, 3, 3), exact=False),
    "leaf_gradient": lambda tree: leaf_gradient(LINEAR, X[None], 0, tree),
    "occlusion_on_leaves": lambda tree: occlusion_on_leaves(LINEAR, X[None], 0, [tree]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_whatever_takes_a_tree_refuses_one_that_does_not_tile_its_image(use):
    for tree in (FOUR[[0, 1, 2, 2]], torch.cat([FOUR[:3], FOUR[:3] // 2, torch.tensor([[1, 1, 1]])]), FOUR.int()):
        with pytest.raises(ValueError, match=r"^leaves must"):
            use(tree)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (4.5, 4), 4])
def test_a_bad_shape_is_refused(shape):
    for call in (lambda: leaf_map(FOUR, shape), lambda: reconstruct(FOUR, torch.ones(4), shape)):
        with pytest.raises(ValueError, match=r"^shape must be \(H, W\), two positive integers"):
            call()


@pytest.mark.parametrize("values", [torch.ones(3), torch.ones(3, 4), torch.ones(4, 1, 1), [1.0] * 4])
def test_another_number_of_values_is_refused(values):
    with pytest.raises(ValueError, match=r"^values must be .*\(4\) or \(4, C\)"):
        reconstruct(FOUR, values, (4, 4))


def test_a_batch_is_refused_where_one_tree_needs_one_image():
    with pytest.raises(ValueError, match=r"^image must be .*\(H, W\) or \(C, H, W\)"):
        leaf_means(torch.zeros(2, 1, 4, 4), torch.tensor([[0, 0, 4]]))
