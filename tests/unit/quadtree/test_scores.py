"""Gradients and occlusion of leaves against autograd and a loop."""

from functools import partial

import pytest
import torch
from support.quadtree import FOUR, LINEAR, X, noise, patchy, pixels
from support.refuses import refuses
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.quadtree import build_quadtree, leaf_gradient, leaf_map, leaf_means, occlusion_on_leaves, reconstruct
from helpers.saliency import input_gradient, occlusion

close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)


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
    expected = [leafwise(tiny(), image, tree, range(3)) for image, tree in zip(x, trees, strict=True)]
    single = leaf_gradient(net, x[:1], 1, trees[0])
    assert single.shape == (len(trees[0]), 2)
    close(single, expected[0][1])
    several = leaf_gradient(net, x[:1], [[2, 0]], trees[0])
    assert several.shape == (2, len(trees[0]), 2)
    close(several, torch.stack([expected[0][2], expected[0][0]]))
    both = leaf_gradient(net, x, [1, 2], trees)
    assert isinstance(both, list)
    for actual, right in zip(both, [expected[0][1], expected[1][2]], strict=True):
        close(actual, right)
    both = leaf_gradient(net, x, torch.tensor([[1, 2], [0, 2]]), tuple(trees))
    for actual, right in zip(both, [expected[0][1:], expected[1][::2]], strict=True):
        close(actual, torch.stack(right))
    alone = leaf_gradient(net, x[:1], 1, trees[:1])
    assert isinstance(alone, list)
    close(alone[0], single)


def test_leaf_gradient_in_single_precision():
    net, x = tiny().float(), patchy(1, 2, 16, 16).float()
    tree = build_quadtree(x[0], 0.2)
    actual = leaf_gradient(net, x, 1, tree)
    assert actual.dtype == torch.float32
    close(actual, leafwise(net, x[0], tree, [1])[0], rtol=1e-5, atol=1e-6)


def test_a_large_leafs_gradient_is_as_exact_as_its_dtype():
    net = nn.Sequential(nn.Flatten(), nn.Linear(256 * 256, 1))
    nn.init.constant_(net[1].weight, 0.1)
    actual = leaf_gradient(net, torch.ones(1, 1, 256, 256), 0, torch.tensor([[0, 0, 256]]))
    close(actual, torch.tensor([[0.1 * 256 * 256]]), rtol=1e-6, atol=0)


def test_leaf_gradient_is_the_sum_of_the_dense_gradient_over_each_leaf():
    net, x = tiny(), patchy(1, 2, 16, 16)
    tree = build_quadtree(x[0], 0.2)
    slope = input_gradient(net, reconstruct(tree, leaf_means(x[0], tree), (16, 16))[None], 2)[0]
    expected = torch.stack([slope[:, y : y + size, x0 : x0 + size].sum((1, 2)) for y, x0, size in tree.tolist()])
    close(leaf_gradient(net, x, 2, tree), expected)


def test_leaf_gradient_on_single_pixels_is_the_dense_gradient():
    net, x = tiny(), noise(1, 2, 9, 7)
    actual = reconstruct(pixels(9, 7), leaf_gradient(net, x, 2, pixels(9, 7)), (9, 7))
    close(actual, input_gradient(net, x, 2)[0])


@pytest.mark.parametrize("fill", [0, 0.7, torch.tensor([0.2, -1.0])[:, None, None], noise(2, 2, 9, 14, seed=3)])
def test_occlusion_on_leaves_by_hand(fill):
    net, x = tiny(), torch.stack([patchy(2, 9, 14), patchy(2, 9, 14, seed=5)])
    trees = [build_quadtree(x[0], 0.3), build_quadtree(x[1], 0.01)]
    assert len(trees[0]) != len(trees[1])
    cover, plain = torch.as_tensor(fill, dtype=x.dtype).expand_as(x), tiny().eval()
    expected = []
    with torch.no_grad():
        for image, colour, tree in zip(x, cover, trees, strict=True):
            drops = []
            for y, x0, size in tree.tolist():
                covered, box = image.clone(), (slice(None), slice(y, y + size), slice(x0, x0 + size))
                covered[box] = colour[box]
                drops.append((plain(image[None]) - plain(covered[None]))[0])
            expected.append(torch.stack(drops, 1))  # (classes, L)
    actual = occlusion_on_leaves(net, x, [1, 2], trees, fill=fill)
    assert isinstance(actual, list)
    close(actual[0], expected[0][1])
    close(actual[1], expected[1][2])
    actual = occlusion_on_leaves(net, x, [[1, 2], [0, 2]], tuple(trees), fill=fill)
    close(actual[0], expected[0][1:])
    close(actual[1], expected[1][::2])
    first = fill[:1] if isinstance(fill, torch.Tensor) and fill.ndim == 4 else fill
    single = occlusion_on_leaves(net, x[:1], 0, trees[0], fill=first)
    assert single.shape == (len(trees[0]),)
    close(single, expected[0][0])
    several = occlusion_on_leaves(net, x[:1], [[2, 0]], trees[0], fill=first)
    close(several, expected[0][[2, 0]])
    assert isinstance(occlusion_on_leaves(net, x[:1], 0, trees[:1], fill=first), list)


def test_the_batch_size_changes_nothing_but_the_passes():
    net, x, sizes = tiny(), patchy(1, 2, 9, 14), []
    tree = build_quadtree(x[0], 0.3)
    expected = occlusion_on_leaves(net, x, 1, tree)
    net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    for batch_size in (1, 3, 1000):
        sizes.clear()
        actual = occlusion_on_leaves(net, x, 1, tree, batch_size=batch_size)
        close(actual, expected)
        assert max(sizes) == min(batch_size, len(tree))


@pytest.mark.parametrize("target", [1, [[0, 2]]])
def test_occlusion_on_equal_squares_is_sliding_occlusion(target):
    net, x = tiny(), noise(1, 2, 32, 32)
    tree = build_quadtree(x[0], 0, min_size=8)
    assert len(tree) == 16
    actual = occlusion_on_leaves(net, x, target, tree, fill=0.5)
    expected = occlusion(net, x, target, window=8, stride=8, fill=0.5)[0]
    close(reconstruct(tree, actual.movedim(-1, 0), (32, 32)), expected)


@pytest.mark.parametrize("method", [leaf_gradient, occlusion_on_leaves])
@pytest.mark.parametrize("training", [True, False])
def test_the_network_and_the_images_are_left_as_they_were_found(method, training):
    net, x = tiny().train(training), patchy(1, 2, 16, 16)
    tree, before = build_quadtree(x[0], 0.3), x.clone()
    leaves = tree.clone()
    with assert_untouched(net):
        actual = method(net, x, 1, tree)
        close(method(net, x.requires_grad_(), 1, [tree])[0], actual)
    assert torch.equal(x, before)
    assert torch.equal(tree, leaves)
    assert x.grad is None
    assert not actual.requires_grad
    broken = nn.Sequential(*tiny().train(training), Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(broken):
        method(broken, x, 1, tree)


@pytest.mark.parametrize("method", [leaf_gradient, occlusion_on_leaves])
def test_another_number_of_trees_is_refused(method):
    for x, trees in [(X, []), (X, [FOUR, FOUR]), (X.expand(2, -1, -1, -1), FOUR), (X, (FOUR,) * 3)]:
        with pytest.raises(ValueError, match=f"^leaves must be a tree for each image: {len(x)} images"):
            method(LINEAR, x, 0, trees)


def test_bad_arguments_are_refused():
    arguments = {"model": LINEAR, "x": X, "target": 0, "leaves": FOUR}
    refuses(leaf_gradient, arguments, x=X[0], target=2, leaves=5)
    refuses(occlusion_on_leaves, arguments, x=X[0], target=2, leaves=5, batch_size=0, fill=torch.ones(5))
