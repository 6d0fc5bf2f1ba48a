"""What a class score owes to each leaf."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from helpers._validate import Target, check_images
from helpers.quadtree._leaves import check_leaves, leaf_map, leaf_means, leaf_sums, reconstruct
from helpers.saliency import input_gradient, region_occlusion

Trees = Tensor | Sequence[Tensor]


def leaf_gradient(model: nn.Module, x: Tensor, target: Target, leaves: Trees) -> Tensor | list[Tensor]:
    """The gradient of a class score with respect to the value of each leaf, at the image made of leaf means.

    Implements :eq:`eq-leaf-gradient`: the sum of the pixels' gradients over the leaf, chapter 2. It costs what the
    gradient of all pixels costs, from which it is made.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K classes of every image; None for each image's top class.
        leaves: the tree (L, 3) of a single image (B = 1), or a list of B trees.

    Returns:
        (L, C), or (K, L, C) for a (B, K) target; a list of B of them for a list of trees.

    Raises:
        ValueError: bad `x` or `target`, another number of trees, or leaves that do not tile the image.
    """
    trees, shape = _trees(leaves, check_images(x)), x.shape[-2:]
    coarse = [reconstruct(tree, leaf_means(image, tree), shape) for image, tree in zip(x, trees, strict=True)]
    gradients = input_gradient(model, torch.stack(coarse), target)  # (B, C, H, W) or (B, K, C, H, W)
    by_image = []
    for gradient, tree in zip(gradients, trees, strict=True):  # trees differ in length
        leaf_index, channels = leaf_map(tree, shape), gradient.flatten(0, -3)  # (C, H, W) or (K C, H, W)
        sums = leaf_sums(channels, leaf_index, len(tree)).to(gradient)  # (L, C) or (L, K C)
        by_image.append(sums if gradient.ndim == 3 else sums.view(len(tree), len(gradient), -1).transpose(0, 1))
    return by_image[0] if isinstance(leaves, Tensor) else by_image


def occlusion_on_leaves(
    model: nn.Module,
    x: Tensor,
    target: Target,
    leaves: Trees,
    *,
    fill: float | Tensor = 0.0,
    batch_size: int | None = None,
) -> Tensor | list[Tensor]:
    """What a class score loses when one leaf is covered: as many forward passes as there are leaves.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K classes of every image; None for each image's top class.
        leaves: the tree (L, 3) of a single image (B = 1), or a list of B trees, which may differ in length.
        fill: what covers: a number, or images that broadcast to x.
        batch_size: images a pass; max(len(x), 8) when left out: as many as x holds, but not one leaf a pass for a
            single image, which would be slow.

    Returns:
        Drops of the logit, (L,), or (K, L) for a (B, K) target; a list of B of them for a list of trees. Divided by
        the leaves' areas they are drops a pixel; `reconstruct` paints them.

    Raises:
        ValueError: as `helpers.saliency.region_occlusion`; another number of trees, or leaves that do not tile the
            image.
    """
    trees = _trees(leaves, check_images(x))
    for tree in trees:
        leaf_map(tree, x.shape[-2:])  # raises where the tree does not tile the image
    counts = torch.tensor([len(tree) for tree in trees], device=x.device)
    image_index = torch.arange(len(trees), device=x.device).repeat_interleave(counts)
    corner, size = torch.cat(trees).to(x.device).split([2, 1], 1)  # (N, 2), (N, 1)
    regions = torch.cat([image_index[:, None], corner, corner + size], 1)  # (N, 5): image, y0, x0, y1, x1
    drops = region_occlusion(model, x, target, regions, fill=fill, batch_size=batch_size)  # (N,) or (N, K)
    by_image = [part.T if part.ndim == 2 else part for part in drops.split([len(tree) for tree in trees])]
    return by_image[0] if isinstance(leaves, Tensor) else by_image


def _trees(leaves: Trees, x: Tensor) -> list[Tensor]:
    """One tree an image, on its device."""
    if not isinstance(leaves, Tensor | Sequence):
        raise ValueError(f"leaves must be a tree or a list of trees, got {type(leaves).__name__}")
    trees = [leaves] if isinstance(leaves, Tensor) else list(leaves)
    if len(trees) != len(x):
        raise ValueError(f"leaves must be a tree for each image: {len(x)} images, got {len(trees)} trees")
    return [check_leaves(tree).to(x.device) for tree in trees]
