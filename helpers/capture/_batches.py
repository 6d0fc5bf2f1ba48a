"""More images than fit into one pass: those of the caller, and those that a method makes out of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers._validate import check_count, check_held, check_images

LEAST_BATCH = 8  # images a pass, where the caller's batch is smaller
PATIENCE = 3.0  # seconds after which a progress bar is shown

Item = TypeVar("Item")


def with_progress(items: Sequence[Item], label: str = "passes") -> Iterator[Item]:
    """The items one after the other, with a progress bar if they take more than a few seconds.

    Args:
        items: what is gone through.
        label: of the bar.
    """
    yield from tqdm(items, desc=label, delay=PATIENCE, leave=False)


def in_batches(
    method: Callable[..., Tensor], model: nn.Module, x: Tensor, *others: Any, batch_size: int = 100
) -> Tensor:
    """A method's result for many images, computed batch by batch: small batches stay in the processor's cache.

    Args:
        method: called as `method(model, x, *others)`; give its options with `functools.partial`.
        model: any network.
        x: images, (N, C, H, W).
        others: further arguments: tensors, arrays and lists of length N are cut along with the images, everything else
            is handed on; so is a tensor (C, 1, 1), which is one number a colour.
        batch_size: images a call.

    Returns:
        The results, joined along their first axis.

    Raises:
        ValueError: x is not a non-empty (N, C, H, W), or batch_size is not an integer of at least 1.
    """
    batch_size = check_count(batch_size, "batch_size")
    check_images(x)

    def part(argument: Any, rows: slice) -> Any:
        if isinstance(argument, Tensor):
            check_held(argument, "others")
        try:
            shape = np.shape(argument) if isinstance(argument, Tensor | np.ndarray | list) else ()
        except ValueError:  # lists of different lengths: whether they may be is for the method to say
            shape = (len(argument),)
        is_cut = shape[:1] == (len(x),) and shape != (x.shape[1], 1, 1)
        return argument[rows] if is_cut else argument

    cuts = [slice(start, start + batch_size) for start in range(0, len(x), batch_size)]
    results = (method(model, x[rows], *(part(argument, rows) for argument in others)) for rows in with_progress(cuts))
    return torch.cat(list(results))


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
    yield from with_progress(torch.arange(count, device=x.device).split(size))
