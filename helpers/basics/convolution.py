"""The convolution itself, and how many places it has."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """What a convolutional layer computes: one weighted sum for each place and each kernel.

    Implements :eq:`eq-conv`, chapter 1. Patches become columns, so that the layer is a single matrix product. As in
    every deep-learning library the kernel is not flipped: this is the cross-correlation of the textbooks.

    Args:
        x: (B, C, H, W).
        weight: kernels, (K, C, k_h, k_w).
        bias: (K,), or None for zero.
        stride: step between neighbouring patches, in pixels.
        padding: zeros added on each side, in pixels.

    Returns:
        Feature maps (B, K, h, w), with h and w as `output_size` says.

    Raises:
        ValueError: x or weight is not 4-dimensional, or their numbers of channels differ.
    Source: Marcinek, LICNN, equation 1.
    """
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"x must be (B, C, H, W) and weight (K, C, k_h, k_w) with the same C, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    size = weight.shape[2:]
    h, w = (output_size(n, k, stride=stride, padding=padding) for n, k in zip(x.shape[2:], size, strict=True))
    patches = F.unfold(x, size, stride=stride, padding=padding)  # (B, C*k_h*k_w, h*w)
    maps = weight.flatten(1) @ patches  # (B, K, h*w)
    if bias is not None:
        maps = maps + bias[:, None]
    return maps.unflatten(2, (h, w))


def output_size(size: int, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Side of the map that a convolution or a pooling makes of an image, in pixels.

    Implements :eq:`eq-output-size`, chapter 1: the number of places where the window fits.

    Args:
        size: side of the input, in pixels.
        kernel: side of the window, in taps.
        stride: step between windows.
        padding: pixels added on each side.
        dilation: distance between neighbouring taps.

    Raises:
        ValueError: an argument is out of range, or the window does not fit in the padded input.
    """
    if min(size, kernel, stride, dilation) < 1 or padding < 0:
        raise ValueError(
            f"size, kernel, stride and dilation must be at least 1 and padding at least 0, "
            f"got {size}, {kernel}, {stride}, {dilation} and {padding}"
        )
    reach = dilation * (kernel - 1) + 1  # pixels the window spans
    if reach > size + 2 * padding:
        raise ValueError(f"a window of {reach} pixels does not fit in {size} pixels padded by {padding}")
    return (size + 2 * padding - reach) // stride + 1
