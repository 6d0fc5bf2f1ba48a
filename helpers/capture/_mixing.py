"""Whether the images of a batch influence each other: seen by following their axis through one forward."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from helpers.capture._axes import PERMUTATIONS, RESHAPES, moved, tensors_in

# torch's functions by their names. Each reduction with the place of its axes among the arguments, and the default axes.
REDUCTIONS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("mean", "sum", "amax", "amin", "std", "var", "prod", "logsumexp", "median", "nanmean"), (1, None)),
    **dict.fromkeys(
        ("max", "min", "argmax", "argmin", "softmax", "log_softmax", "cumsum", "cumprod", "var_mean"), (1, None)
    ),
    **dict.fromkeys(("sort", "argsort", "flip"), (1, -1)),
    **{"norm": (2, None), "normalize": (2, 1), "topk": (2, -1), "vector_norm": (2, None), "roll": (2, None)},
}
PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "mv"}
PREFIX = RESHAPES | {"unfold", "fold", "embedding", "one_hot"}  # the axes up to the images' may stay the first ones
LOST = {"stack", "outer", "diag", "diag_embed", "diagonal", "nonzero", "bincount", "meshgrid", "broadcast_tensors"}
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
BATCH_FIRST = 8  # the place of this flag among their arguments


class Mixing(TorchFunctionMode):
    """Follows the axis of the images through everything that is computed inside.

    Where it loses it, as behind a reshape that joins axes, nothing is said; and axes of the same length may be taken
    for each other: what is said is a suspicion.

    Args:
        x: a batch of images, (B, C, H, W), B at least 2, with which a forward begins.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._axes, self._mixed = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()
        self._axes[x] = 0

    def is_mixed(self, values: object) -> bool:
        """Whether a result was made across the images."""
        return isinstance(values, Tensor) and values in self._mixed

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        known = [(t, self._axes[t]) for t in tensors_in((*args, *kwargs.values())) if t in self._axes]
        was_mixed = any(t in self._mixed for t in tensors_in((*args, *kwargs.values())))
        for part in output if isinstance(output, tuple | list) else (output,):
            if isinstance(part, Tensor):
                axis, mixes = None, False
                with suppress(Exception):  # arguments in an unusual shape: nothing is known then
                    axis, mixes = _followed(func, part, known, args, kwargs) if known else (None, False)
                if axis is not None:
                    self._axes[part] = axis
                if mixes or was_mixed:
                    self._mixed[part] = True
        return output


def _followed(
    func, output: Tensor, known: list[tuple[Tensor, int]], args: tuple, kwargs: dict
) -> tuple[int | None, bool]:
    """The axis of the images in what a function gave, if it is known, and whether the function mixes them."""
    name = getattr(func, "__name__", "")
    (first, axis), size = known[0], output.ndim
    if name in LOST or (size == 0 and name not in REDUCTIONS):
        return None, False
    if name in REDUCTIONS and first is args[0] and not (len(args) > 1 and isinstance(args[1], Tensor)):
        return _reduced(output, first.ndim, axis, _dims(name, args, kwargs, first.ndim))
    if name in PERMUTATIONS and first is args[0]:
        return moved(func, first, axis, args[1:], kwargs), False
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        stays = axis == 0 and (index[0] is Ellipsis or index[0] == slice(None)) and size > 0
        return (0 if stays else None), False
    if name in PREFIX:
        return _reshaped(first.shape, output.shape, axis), False
    if name in PRODUCTS:
        return _multiplied(output, known, args)
    if name == "batch_norm":
        training = args[5] if len(args) > 5 else kwargs.get("training", False)
        return axis, bool(training) or axis != 0
    if name == "einsum" and isinstance(args[0], str) and "->" in args[0] and "." not in args[0]:
        return _summed(known, args)
    sequence = _sequence_axis(name, first, args, kwargs)
    if sequence is not None:
        return axis, axis == sequence
    places = {size - t.ndim + a for t, a in known if t.ndim <= size and output.shape[size - t.ndim + a] == t.shape[a]}
    return (min(places) if places else None), len(places) > 1


def _dims(name: str, args: tuple, kwargs: dict, ndim: int) -> set[int]:
    """The axes that a reduction is over, counted from 0."""
    place, default = REDUCTIONS[name]
    names = ("dim", "axis", "dims")
    dims = next((kwargs[key] for key in names if key in kwargs), args[place] if len(args) > place else default)
    if dims is None or isinstance(dims, bool | torch.dtype):
        return set(range(ndim))
    return {d % ndim for d in (dims if isinstance(dims, Sequence) else (dims,))} or set(range(ndim))


def _reduced(output: Tensor, ndim: int, axis: int, dims: set[int]) -> tuple[int | None, bool]:
    if axis in dims:
        return (axis if output.ndim == ndim else None), True
    return axis - (sum(d < axis for d in dims) if output.ndim < ndim else 0), False


def _reshaped(before: torch.Size, after: torch.Size, axis: int) -> int | None:
    behind = len(before) - axis  # axes from the images' on
    if before[: axis + 1] == after[: axis + 1]:
        return axis
    return len(after) - behind if behind <= len(after) and before[axis:] == after[len(after) - behind :] else None


def _multiplied(output: Tensor, known: list[tuple[Tensor, int]], args: tuple) -> tuple[int | None, bool]:
    """Of a product of matrices: an axis that is summed over mixes, and so do two that end up side by side."""
    places = set()
    for t, axis in known:
        for operand, inner in ((args[0], 1), (args[1], min(2, t.ndim))):
            if t is operand:
                if axis == t.ndim - inner:
                    return None, True
                places.add(output.ndim - (t.ndim - axis))
    place = min(places, default=-1)
    return (place if 0 <= place < output.ndim else None), len(places) > 1


def _summed(known: list[tuple[Tensor, int]], args: tuple) -> tuple[int | None, bool]:
    """Of a sum in Einstein's notation: a letter of the images that vanishes mixes, and so do two that stay."""
    letters, result = args[0].replace(" ", "").split("->")
    operands = zip(letters.split(","), tensors_in(args[1:]), strict=False)
    images = {names[axis] for names, operand in operands for t, axis in known if t is operand}
    if len(images) != 1 or not images <= set(result):
        return None, bool(images)
    return result.index(*images), False


def _sequence_axis(name: str, first: Tensor, args: tuple, kwargs: dict) -> int | None:
    """The axis along which a function of attention or recurrence, or a linear layer, looks at everything."""
    if name in ("linear", "layer_norm", "rms_norm"):
        return first.ndim - 1
    if name == "multi_head_attention_forward":
        return 0
    if name in ("_native_multi_head_attention", "_transformer_encoder_layer_fwd"):
        return 1
    if name == "scaled_dot_product_attention":
        return first.ndim - 2
    if name in RECURRENT and len(args) > BATCH_FIRST:
        return int(bool(args[BATCH_FIRST]))
    return None
