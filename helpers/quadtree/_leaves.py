"""Images and the leaves of their trees: which leaf a pixel belongs to, means over leaves, leaves painted and boxed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from helpers._validate import check_size, check_tensor
from helpers.device import widest_float


def leaf_map(leaves: Tensor, shape: Sequence[int]) -> Tensor:
    """The index of the leaf that each pixel belongs to.

    Args:
        leaves: a tree, (L, 3).
        shape: of the image, (H, W).

    Returns:
        (H, W) int64, 0 .. L - 1.

    Raises:
        ValueError: leaves are no tree, or do not tile an image of this shape.
    """
    leaves, (height, width) = check_leaves(leaves), check_size(shape, "shape")
    if (leaves[:, 2] > max(height, width)).any():
        raise ValueError(f"leaves must lie in an image of {height} x {width}, got side {leaves[:, 2].max()}")
    leaf_index = torch.full((height, width), -1, device=leaves.device)
    for size in leaves[:, 2].unique().tolist():  # on a grid of squares of this size: the index of a leaf, or -1
        of_size = (leaves[:, 2] == size).nonzero()[:, 0]
        row, column = (leaves[of_size, :2] // size).unbind(1)
        grid = torch.full((-(-height // size), -(-width // size)), -1, device=leaves.device)
        if (row >= len(grid)).any() or (column >= grid.shape[1]).any():
            raise ValueError(f"leaves must lie in an image of {height} x {width}, those of side {size} reach beyond")
        grid[row, column] = of_size
        painted = grid.repeat_interleave(size, 0).repeat_interleave(size, 1)[:height, :width]
        leaf_index = torch.where(painted >= 0, painted, leaf_index)
    area = int(leaves[:, 2].square().sum())
    if area != height * width or (leaf_index < 0).any():
        raise ValueError(f"leaves must tile an image of {height} x {width} pixels, got {area} pixels or gaps")
    return leaf_index


def leaf_boxes(leaves: Tensor) -> Tensor:
    """The leaves as boxes.

    Args:
        leaves: a tree, (L, 3).

    Returns:
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive: (L, 4) int64.

    Raises:
        ValueError: leaves are no tree.
    """
    y, x, size = check_leaves(leaves).unbind(1)
    return torch.stack([x, y, x + size, y + size], 1)


def leaf_means(image: Tensor, leaves: Tensor) -> Tensor:
    """The mean of an image over each leaf.

    Args:
        image: (H, W) or (C, H, W), any units.
        leaves: its tree, (L, 3).

    Returns:
        (L,) for (H, W), (L, C) for (C, H, W).

    Raises:
        ValueError: a bad image, or leaves that do not tile it.
    """
    check_tensor(image, "image", "H W", "C H W")
    channels = image if image.ndim == 3 else image[None]
    sums = leaf_sums(channels, leaf_map(leaves, image.shape[-2:]), len(leaves))  # (L, C)
    means = (sums / leaves[:, 2:].to(sums).square()).to(image)
    return means if image.ndim == 3 else means[:, 0]


def leaf_sums(image: Tensor, leaf_index: Tensor, count: int) -> Tensor:
    """Sums of an image over leaves.

    Args:
        image: (C, H, W).
        leaf_index: of each pixel, (H, W), as `leaf_map` gives it.
        count: L, the number of leaves.

    Returns:
        (L, C), as precise as the device can.
    """
    # Thousands of pixels are added one after another: in single precision the last digits would be lost.
    pixels = image.flatten(1).T.to(widest_float(image.device))  # (P, C)
    return pixels.new_zeros(count, len(image)).index_add_(0, leaf_index.flatten().to(image.device), pixels)


def reconstruct(leaves: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """Paint each leaf with its value.

    Args:
        leaves: a tree, (L, 3).
        values: (L,), or (L, C) for C channels.
        shape: of the image, (H, W).

    Returns:
        (H, W) or (C, H, W).

    Raises:
        ValueError: leaves that do not tile the image, or another number of values.
    """
    leaf_index = leaf_map(leaves, shape)
    check_tensor(values, "values", f"{len(leaves)}", f"{len(leaves)} C", kind="real", finite=False)
    painted = values[leaf_index.to(values.device)]  # (H, W) or (H, W, C)
    return painted if values.ndim == 1 else painted.permute(2, 0, 1)


def as_batch(image: Tensor) -> tuple[Tensor, bool]:
    """Bring an image into the shape of a batch.

    Args:
        image: (H, W), (C, H, W) or (B, C, H, W).

    Returns:
        (B, C, H, W), and whether it was given as a batch.

    Raises:
        ValueError: another rank, empty, not floating point, or not finite.
    """
    check_tensor(image, "image", "H W", "C H W", "B C H W")
    return image[(None,) * (4 - image.ndim)], image.ndim == 4


def check_leaves(leaves: Tensor) -> Tensor:
    """Return leaves unchanged if they can be a tree: (L, 3) int64, rows (y, x, size), each at a multiple of its size.

    Args:
        leaves: what was given; whether they tile an image is for `leaf_map` to say.

    Raises:
        ValueError: they cannot.
    """
    if check_tensor(leaves, "leaves", "L 3", kind="integer").dtype != torch.int64:
        raise ValueError(f"leaves must be int64, got {leaves.dtype}")
    y, x, size = leaves.unbind(1)
    good = (size > 0) & (y >= 0) & (x >= 0)
    good &= (y % size.clamp(min=1) == 0) & (x % size.clamp(min=1) == 0)
    if not good.all():
        raise ValueError(f"leaves must begin at multiples of their size, got row {leaves[~good][0].tolist()}")
    return leaves
