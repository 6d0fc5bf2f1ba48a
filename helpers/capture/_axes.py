"""On which axis of a layer's output the channels lie: seen by following them through one forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

NOWHERE = -1  # the axis where there are no channels, as in a table of attention
# What torch's functions do with channels, by their names. All others leave them where they are, if they keep the axes.
SECOND = {"conv2d", "conv3d", "conv_transpose2d", "batch_norm", "group_norm", "pixel_shuffle", "pixel_unshuffle"}
LAST = {"linear", "layer_norm", "rms_norm"}
ACTIVATIONS = {"relu", "relu6", "hardtanh", "silu", "gelu", "hardswish", "leaky_relu", "elu", "mish", "clamp_min"}
PRODUCTS = {"matmul", "__matmul__", "bmm", "einsum", "softmax", "scaled_dot_product_attention"}
RESHAPES = {"reshape", "view", "flatten", "unflatten", "reshape_as", "view_as", "unsqueeze", "squeeze", "__getitem__"}
PERMUTATIONS = {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "__get__"}  # x.mT is a __get__


class ChannelAxes(TorchFunctionMode):
    """Follows the channels of everything that is computed inside.

    Args:
        x: images, (B, C, H, W), with which a forward begins.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._axes, self._active = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()
        self._axes[x] = 1

    def of(self, values: Tensor) -> int | None:
        """The axis of a tensor's channels, `NOWHERE`, or None where nothing is known of them."""
        return self._axes.get(values)

    def is_active(self, values: Tensor) -> bool:
        """Whether an activation function, as a module or not, gave a tensor."""
        return values in self._active

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "").rstrip("_") in ACTIVATIONS and isinstance(output, Tensor):
            self._active[output] = True
        first = args[0] if args else None
        parts = output if isinstance(output, tuple | list) else [output]
        for part in parts:
            if isinstance(part, Tensor) and part.ndim > 1:
                with suppress(Exception):  # arguments in an unusual shape: nothing is known then
                    axis = self._followed(func, part, first, args, kwargs or {})
                    if axis is not None:
                        self._axes[part] = axis
        return output

    def _followed(self, func, output: Tensor, first: object, args: tuple, kwargs: dict) -> int | None:
        name = getattr(func, "__name__", "")
        known = [t for t in tensors_in(args) if self._axes.get(t) is not None]
        if name in SECOND:
            return 1
        if name in LAST:
            is_whole = name != "linear" and len(args[1] if len(args) > 1 else kwargs["normalized_shape"]) > 1
            return self._axes.get(first) if is_whole else output.ndim - 1
        if name in PRODUCTS:
            return NOWHERE if output.ndim == 4 else None
        if not known:
            return None
        if name in PERMUTATIONS and first is known[0]:
            return moved(func, first, self._axes[first], args[1:], kwargs)
        if name in RESHAPES:
            return _reshaped(known[0].shape, output.shape, self._axes[known[0]])
        axes = [self._axes[t] for t in known if t.ndim == output.ndim]
        known_axes = [axis for axis in axes if axis != NOWHERE]
        return known_axes[0] if known_axes else axes[0] if axes else None


def tensors_in(args: tuple) -> Iterator[Tensor]:
    """The tensors among arguments, those in a list or a tuple included."""
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, tuple | list):
            yield from (part for part in arg if isinstance(part, Tensor))


def moved(func, values: Tensor, axis: int, args: tuple, kwargs: dict) -> int | None:
    """Where an axis goes, seen on a tensor without numbers whose sides all differ."""
    if axis == NOWHERE:
        return axis
    sides = list(range(2, 2 + values.ndim))
    output = func(torch.empty(sides, device="meta"), *args, **kwargs)
    return list(output.shape).index(sides[axis]) if sorted(output.shape) == sides else None


def _reshaped(before: torch.Size, after: torch.Size, axis: int) -> int | None:
    if axis == 1 and before[:2] == after[:2]:
        return 1
    return len(after) - 1 if axis == len(before) - 1 and before[-1] == after[-1] else None


_known: WeakKeyDictionary[nn.Module, dict[int, int | None]] = WeakKeyDictionary()  # module -> number of a call -> axis


def is_known(module: nn.Module) -> bool:
    """Whether it was noted on which axis a module's channels lie."""
    return module in _known


def note_axis(module: nn.Module, call: int, axis: int | None) -> None:
    """Note on which axis a module's channels lie in one of its calls, counted from 1."""
    _known.setdefault(module, {})[call] = axis


def noted_axis(module: nn.Module, call: int) -> int | None:
    """What was noted; None where nothing was, or nothing is known."""
    return _known.get(module, {}).get(call)
