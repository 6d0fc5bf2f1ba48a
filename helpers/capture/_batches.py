"""A method on more images than fit into one pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from helpers._validate import check_count, check_images


def in_batches(
    method: Callable[..., Tensor], model: nn.Module, x: Tensor, *others: Any, batch_size: int = 100
) -> Tensor:
    """A method's result for many images, computed batch by batch: small batches stay in the processor's cache.

    Args:
        method: called as `method(model, x, *others)`; give its options with `functools.partial`.
        model: any network.
        x: images, (N, C, H, W).
        others: further arguments; tensors of length N are cut along with the images, everything else is handed on.
        batch_size: images a call.

    Returns:
        The results, joined along their first axis.

    Raises:
        ValueError: x is not a non-empty (N, C, H, W), or size is less than 1.
    """
    check_count(batch_size, "batch_size")
    check_images(x)

    def part(one: Any, rows: slice) -> Any:
        return one[rows] if isinstance(one, Tensor) and one.ndim and len(one) == len(x) else one

    cuts = [slice(start, start + batch_size) for start in range(0, len(x), batch_size)]
    return torch.cat([method(model, x[rows], *(part(one, rows) for one in others)) for rows in cuts])
