"""Convolutions computed where a tree calls for it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers._validate import check_count, check_tensor, describe
from helpers.device import own_precision
from helpers.quadtree._leaves import check_leaves, leaf_map


def exact_conv_sites(leaves: Tensor, kernel: int, layers: int = 1) -> Tensor:
    """At how many places a chain of convolutions must be computed, on an image that is constant inside its leaves.

    Implements :eq:`eq-exact-sites`, chapter 2: the outputs are equal only where the whole window stays inside one leaf.
    So of a leaf of side s the n-th layer of k x k kernels needs all places but an inner square of side s - n (k - 1),
    and one place for all of that.

    Args:
        leaves: a tree, (L, 3).
        kernel: side k of the kernels, odd.
        layers: length of the chain, stride 1, padded to keep the size.

    Returns:
        (layers,) int64, the places of layer 1, 2, ...; at most the number of pixels.

    Raises:
        ValueError: leaves are no tree, an even kernel, or fewer than one layer.
    """
    size = check_leaves(leaves)[:, 2]
    _check_kernel(kernel)
    depth = torch.arange(1, check_count(layers, "layers") + 1, device=size.device)
    inner = (size - depth[:, None] * (kernel - 1)).clamp(min=0)  # (layers, L)
    return (size.square() - inner.square() + (inner > 0)).sum(1)


def convolve_on_leaves(
    x: Tensor, leaves: Tensor, weight: Tensor, bias: Tensor | None = None, *, margin: int = 0, exact: bool = True
) -> Tensor:
    """A convolution, padded with zeros to keep the size, computed only at the places that a tree calls for.

    Exact: at every place whose window reaches beyond the constant inside of its leaf, and at one place for all of each
    inside; equal to `F.conv2d` when x is constant inside the leaves. Not exact: at one place a leaf, its centre, whose
    output is painted over the leaf, as Banik (2021) proposes.

    Args:
        x: (C, H, W), constant in each leaf up to `margin` pixels from its edge.
        leaves: the tree, (L, 3).
        weight: kernels, (K, C, k, k), k odd.
        bias: (K,) or None.
        margin: how far from its edge a leaf is not constant any more after the earlier layers, in pixels: the sum of
            their k // 2; 0 for the first layer.
        exact: compute at every place whose output differs, or at one place a leaf.

    Returns:
        (K, H, W).

    Raises:
        ValueError: shapes that do not fit, an even kernel, a negative margin, or leaves that do not tile x.
    """
    check_tensor(x, "x", "C H W")
    check_tensor(weight, "weight", f"K {len(x)} k k")
    k = _check_kernel(weight.shape[2])
    if weight.shape[3] != k or weight.dtype != x.dtype:
        raise ValueError(f"weight must be square and {x.dtype} as x is, got {describe(weight)}")
    if bias is not None:
        check_tensor(bias, "bias", f"{len(weight)}")
    margin = check_count(margin, "margin", 0)
    leaf_index = leaf_map(leaves, x.shape[1:])
    if exact:
        rows, columns, place_of_pixel = _exact_places(leaves, leaf_index, margin + k // 2)
    else:
        (rows, columns), place_of_pixel = (leaves[:, :2] + leaves[:, 2:] // 2).unbind(1), leaf_index
    windows = F.pad(x, [k // 2] * 4).unfold(1, k, 1).unfold(2, k, 1)  # (C, H, W, k, k), a view
    patches = windows[:, rows, columns].transpose(0, 1).flatten(1)  # (places, C k k)
    with own_precision(x):
        outputs = patches @ weight.flatten(1).T
    outputs = outputs if bias is None else outputs + bias
    return outputs[place_of_pixel].permute(2, 0, 1)  # (H, W, K) -> (K, H, W)


def _exact_places(leaves: Tensor, leaf_index: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns of the places, (places,) each, and for each pixel (H, W) the place whose output it gets.

    `leaf_index` (H, W) is the leaf map; `reach` is how far from a leaf's edge the outputs may differ, in pixels.
    """
    y, x, size = leaves[leaf_index].unbind(-1)  # (H, W) each: of the pixel's leaf
    rows, columns = (torch.arange(n, device=leaves.device) for n in leaf_index.shape)
    down, right = rows[:, None] - y, columns - x
    inside = (down >= reach) & (down < size - reach) & (right >= reach) & (right < size - reach)
    first = (down == reach) & (right == reach)  # the place that stands for its leaf's inside
    is_place = ~inside | first
    place_index = is_place.flatten().cumsum(0).view(is_place.shape) - 1  # of each place, in reading order
    # Clamped: out of range only for leaves without an inside, whose entry is not used.
    first_of_leaf = place_index[(y + reach).clamp(max=len(rows) - 1), (x + reach).clamp(max=len(columns) - 1)]
    rows, columns = is_place.nonzero().unbind(1)
    return rows, columns, torch.where(inside, first_of_leaf, place_index)


def _check_kernel(kernel: int) -> int:
    if check_count(kernel, "kernel") % 2 == 0:
        raise ValueError(f"kernel must be odd, so that it has a centre, got {kernel}")
    return kernel
