"""More images than fit into one pass: those of the caller, and those that a method makes out of them."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from helpers._validate import check_count, check_images

LEAST_BATCH = 8  # images a pass, where the caller's batch is smaller


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
        ValueError: x is not a non-empty (N, C, H, W), or batch_size is not an integer of at least 1.
    """
    check_count(batch_size, "batch_size")
    check_images(x)

    def part(argument: Any, rows: slice) -> Any:
        is_cut = isinstance(argument, Tensor) and argument.ndim > 0 and len(argument) == len(x)
        return argument[rows] if is_cut else argument

    cuts = [slice(start, start + batch_size) for start in range(0, len(x), batch_size)]
    return torch.cat([method(model, x[rows], *(part(argument, rows) for argument in others)) for rows in cuts])


def chunks(count: int, batch_size: int | None, x: Tensor) -> Iterator[Tensor]:
    """The numbers 0 .. count - 1 of the images that a method makes out of x, cut into passes.

    Args:
        count: how many there are.
        batch_size: images a pass; the length of x, or 8 where x is shorter, when None.
        x: images, (B, C, H, W); the numbers lie on their device.

    Yields:
        (n,) int64, n at most `batch_size`.

    Raises:
        ValueError: batch_size is not an integer of at least 1.
    """
    size = max(len(x), LEAST_BATCH) if batch_size is None else check_count(batch_size, "batch_size")
    yield from torch.arange(count, device=x.device).split(size)
