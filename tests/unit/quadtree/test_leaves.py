"""Leaf maps, means and pictures by hand; what is no tree."""

import pytest
import torch
from support.quadtree import FOUR, LINEAR, X, noise, patchy
from support.refuses import refuses

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


def test_leaves_as_boxes():
    assert leaf_boxes(torch.tensor([[0, 4, 2], [8, 0, 8]])).tolist() == [[4, 0, 6, 2], [0, 8, 8, 16]]


NO_TREES = {
    "four columns": torch.tensor([[0, 0, 4, 4]]),
    "32 bits": FOUR.int(),
    "beside the grid": torch.tensor([[0, 1, 2]]),
    "above the grid": torch.tensor([[1, 0, 2]]),
    "no side": torch.tensor([[0, 0, 0]]),
    "a negative side": torch.tensor([[0, 0, -4]]),
    "a negative row": torch.tensor([[-2, 0, 2]]),
    "a negative column": torch.tensor([[0, -2, 2]]),
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


@pytest.mark.parametrize("tree", NO_TREES.values(), ids=NO_TREES)
def test_what_is_no_tree_is_refused(tree):
    refuses(leaf_boxes, {}, leaves=tree)
    refuses(leaf_map, {"shape": (4, 4)}, leaves=tree)


@pytest.mark.parametrize("tree", NO_TILES.values(), ids=NO_TILES)
def test_leaves_that_do_not_tile_the_image_are_refused(tree):
    with pytest.raises(ValueError, match=r"^leaves must (tile|lie in)"):
        leaf_map(tree, (4, 4))


USES = {
    "leaf_means": lambda leaves: leaf_means(X[0], leaves),
    "reconstruct": lambda leaves: reconstruct(leaves, torch.ones(4), (4, 4)),
    "convolve_on_leaves": lambda leaves: convolve_on_leaves(X[0], leaves, torch.ones(1, 3, 3, 3)),
    "not exact": lambda leaves: convolve_on_leaves(X[0], leaves, torch.ones(1, 3, 3, 3), exact=False),
    "leaf_gradient": lambda leaves: leaf_gradient(LINEAR, X, 0, leaves),
    "occlusion_on_leaves": lambda leaves: occlusion_on_leaves(LINEAR, X, 0, [leaves]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_whatever_takes_a_tree_refuses_one_that_does_not_tile_its_image(use):
    for tree in (NO_TILES["one in place of another"], NO_TILES["as many pixels, and a gap"], FOUR.int()):
        refuses(use, {}, leaves=tree)


def test_bad_arguments_are_refused():
    refuses(leaf_means, {"leaves": FOUR}, image=X)  # a batch
    refuses(leaf_map, {"leaves": FOUR}, shape=(4,))
    for values in (torch.ones(3), torch.ones(4, 1, 1)):
        refuses(reconstruct, {"leaves": FOUR, "values": torch.ones(4), "shape": (4, 4)}, values=values, shape=(0, 4))
