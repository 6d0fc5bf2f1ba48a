"""What a function may be given: one check for each kind of argument, one dialect of errors.

Every check takes the value and the argument's name, returns the value (numbers as Python's own) and raises
`ValueError("name must be ..., got ...")`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

SEEDS = 2**63  # that torch's generators take
Target = int | Sequence[Any] | Tensor | None  # a class, (B,) classes, (B, K), or each image's top class


def check_images(x: Tensor, name: str = "x") -> Tensor:
    """Return `x` unchanged if it is a batch of images, (B, C, H, W), floating point and finite.

    Args:
        x: what a method was given as images.
        name: of the argument, for the message.

    Raises:
        ValueError: not a tensor, not of rank 4, an empty side, not floating point, NaN or infinite values.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a torch tensor (B, C, H, W), got {type(x).__name__}")
    check_held(x, name)
    if x.ndim != 4:
        hint = f"; one image is {name}[None]" if x.ndim == 3 else ""
        raise ValueError(f"{name} must have shape (B, C, H, W), got {tuple(x.shape)}{hint}")
    if x.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {x.dtype}; images of bytes are {name}.float() / 255")
    if not all_finite(x):
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return x


def all_finite(values: Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinite."""
    # A sum is finite only where all its terms are, and on a CPU it is found 60 times as fast; an infinite sum of finite
    # terms has overflowed.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def as_tensor(value: Any) -> Tensor:
    """What was given as a tensor, whatever torch's default device and type are: numbers on the CPU, in full precision.

    Raises:
        TypeError, ValueError, RuntimeError: as `torch.as_tensor`, where it is neither a tensor nor made of numbers.
    """
    if isinstance(value, Tensor):
        return check_held(value, "it")
    numbers = torch.as_tensor(value, device="cpu")
    plain = numbers.is_floating_point() and not isinstance(value, np.ndarray | np.generic)
    return torch.as_tensor(value, dtype=torch.float64, device="cpu") if plain else numbers


def check_held(value: Tensor, name: str) -> Tensor:
    """Return a tensor unchanged if its numbers are there, one beside the other.

    Raises:
        ValueError: it is on the meta device, sparse, nested, quantised or otherwise packed.
    """
    if value.is_meta:
        raise ValueError(f"{name} must hold numbers, got a tensor on the meta device, which has none")
    if value.is_nested or value.is_quantized or value.layout != torch.strided:
        kind = "nested" if value.is_nested else "quantised" if value.is_quantized else str(value.layout)
        raise ValueError(
            f"{name} must be a plain (dense) tensor, got a {kind} one: to_dense() or dequantize() gives one"
        )
    return value


def check_model(model: Any, name: str = "model", *, held: bool = False) -> nn.Module:
    """Return a network unchanged.

    Args:
        model: what was given.
        name: of the argument, for the message.
        held: refuse a network on the meta device, which has no weights.

    Raises:
        ValueError: it is no torch module.
    """
    if not isinstance(model, nn.Module):
        hint = "; networks.load gives one for a name" if isinstance(model, str) else ""
        raise ValueError(f"{name} must be a network, a torch nn.Module, got {describe(model)}{hint}")
    if held and any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(f"{name} must have weights, got a network on the meta device, which has none")
    return model


def check_target(target: Target, batch: int, classes: int | None = None) -> tuple[Tensor, bool]:
    """Bring a target into the shape (B, K).

    Args:
        target: a class for the whole batch (int), one class an image (B,), or K classes of every image (B, K).
        batch: B, the number of images.
        classes: number of classes of the network; None while it is not known: their range is then not looked at.

    Returns:
        The target as int64 (B, K), and whether it was given as (B, K), so that results keep their K axis.

    Raises:
        ValueError: not integers, another shape, or a class outside 0 .. classes - 1.
    """
    try:
        chosen = as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"target must be an int, (B,) or (B, K) integers, got {describe(target)}") from error
    shape = tuple(chosen.shape)
    if chosen.ndim > 2 or chosen.numel() == 0 or (chosen.ndim > 0 and shape[0] != batch):
        raise ValueError(f"target must be an int, (B,) or (B, K) with B = {batch} images, got shape {shape}")
    if chosen.dtype == torch.bool or chosen.is_floating_point() or chosen.is_complex():
        raise ValueError(f"target must hold integers (class numbers), got {chosen.dtype}")
    chosen = chosen.long()
    if classes is not None and (chosen.min() < 0 or chosen.max() >= classes):
        worst = int(chosen.min() if chosen.min() < 0 else chosen.max())
        raise ValueError(f"target must lie in 0 .. {classes - 1} (the network has {classes} classes), got {worst}")
    if chosen.ndim == 0:
        chosen = chosen.expand(batch)  # () -> (B,)
    return (chosen, True) if chosen.ndim == 2 else (chosen[:, None], False)  # (B,) -> (B, 1)


def check_classes(target: Target, classes: int | None = None) -> tuple[Tensor, bool]:
    """Bring a class, or K of them, that belong to no images into the shape (K,).

    Args:
        target: a class (int), or K classes (K,).
        classes: number of classes of the network; None while it is not known: their range is then not looked at.

    Returns:
        The classes as int64 (K,), and whether several were asked for, so that results keep their K axis.

    Raises:
        ValueError: not integers, another shape, or a class outside 0 .. classes - 1.
    """
    try:
        chosen = as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"target must be a class or (K,) classes, got {describe(target)}") from error
    if chosen.ndim > 1 or chosen.numel() == 0:
        raise ValueError(f"target must be a class or (K,) classes, got shape {tuple(chosen.shape)}")
    rows, _ = check_target(chosen.reshape(-1), chosen.numel(), classes)
    return rows[:, 0], chosen.ndim == 1


def check_integers(value: Any, name: str, *layouts: str) -> Tensor:
    """Integers, such as the classes of images, of a tensor, an array or a list, as int64.

    Args:
        value: what was given.
        name: of the argument, for the message.
        layouts: as for `check_tensor`.

    Raises:
        ValueError: they are no integers, or of another shape.
    """
    try:
        numbers = as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        shapes = " or ".join(f"({', '.join(layout.split())})" for layout in layouts)
        raise ValueError(f"{name} must be integers {shapes}, got {describe(value)}") from error
    return check_tensor(numbers, name, *layouts, kind="integer").long()


def describe(value: object) -> str:
    """What a value is, for the end of an error: shape and dtype of a tensor or an array, anything else itself."""
    if isinstance(value, Tensor) and value.is_nested:
        return "a nested tensor"
    if isinstance(value, Tensor) and (value.is_meta or value.layout != torch.strided):
        kind = "on the meta device, without numbers" if value.is_meta else f"in the layout {value.layout}"
        return f"{tuple(value.shape)} of {value.dtype} {kind}"
    if isinstance(value, Tensor | np.ndarray):
        return f"{tuple(value.shape)} of {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else type(value).__name__


def check_tensor(
    value: Any,
    name: str,
    *layouts: str,
    kind: Literal["floating point", "bool", "integer", "real"] = "floating point",
    low: float = -math.inf,
    high: float = math.inf,
    finite: bool = True,
    empty: bool = False,
) -> Tensor:
    """Return a tensor unchanged if it has one of the layouts, and numbers of the right kind and range.

    Args:
        value: what was given.
        name: of the argument, for the message.
        layouts: the axes of each shape that will do, such as "B H W", "B K H W", "... 4", "... H W"; a number is the
            length that this axis must have.
        kind: of its numbers; "real" is anything but bool and complex.
        low: the least value allowed.
        high: the greatest value allowed.
        finite: refuse NaN and infinite values.
        empty: allow a tensor without any number.

    Raises:
        ValueError: not a tensor, empty, of another shape or dtype, not finite, or out of range.
    """
    shapes = " or ".join(f"({', '.join(layout.split())})" for layout in layouts)
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch tensor {shapes}, got {type(value).__name__}")
    check_held(value, name)
    if not any(_fits(value.shape, layout.split()) for layout in layouts) or not (empty or value.numel()):
        raise ValueError(f"{name} must be a {'' if empty else 'non-empty '}tensor {shapes}, got {tuple(value.shape)}")
    floating, boolean = value.is_floating_point(), value.dtype == torch.bool
    whole = not (floating or boolean or value.is_complex())
    if not {"floating point": floating, "bool": boolean, "integer": whole, "real": floating or whole}[kind]:
        raise ValueError(f"{name} must be {kind}, got {value.dtype}")
    if finite and floating and not all_finite(value):
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    if (math.isfinite(low) and (value < low).any()) or (math.isfinite(high) and (value > high).any()):
        limits = f"be at least {low:g}" if math.isinf(high) else f"lie in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must {limits}, got {value.min().item():.4g} .. {value.max().item():.4g}")
    return value


def _fits(shape: Sequence[int], axes: list[str]) -> bool:
    """Whether a shape has these axes; a leading "..." stands for any number of them."""
    if axes[0] == "...":
        axes = axes[1:]
        shape = shape[max(len(shape) - len(axes), 0) :]
    return len(shape) == len(axes) and all(not a.isdigit() or int(a) == n for a, n in zip(axes, shape, strict=True))


def check_count(value: Any, name: str, low: int = 1, high: int | None = None) -> int:
    """Return an integer, numpy's too, as Python's own if it lies in low .. high.

    Raises:
        ValueError: it is not an integer, or lies outside.
    """
    if not is_whole(value) or value < low or (high is not None and value > high):
        limits = f"of at least {low}" if high is None else f"in {low} .. {high}"
        raise ValueError(f"{name} must be an integer {limits}, got {describe(value)}")
    return int(value)


def check_size(value: Any, name: str = "size") -> tuple[int, int]:
    """Return height and width in pixels, (H, W), as Python's own integers if both are at least 1.

    Raises:
        ValueError: they are not two such integers.
    """
    try:
        height, width = (check_count(side, name) for side in (value if isinstance(value, tuple | list) else ()))
    except ValueError as error:
        raise ValueError(f"{name} must be (H, W), two positive integers, got {describe(value)}") from error
    return height, width


def check_shape(value: Any, name: str = "shape") -> tuple[int, int, int]:
    """Return the shape of an image, (C, H, W), as Python's own integers if all are at least 1.

    Raises:
        ValueError: they are not three such integers.
    """
    try:
        channels, height, width = (check_count(n, name) for n in (value if isinstance(value, tuple | list) else ()))
    except ValueError as error:
        raise ValueError(f"{name} must be (C, H, W), three positive integers, got {describe(value)}") from error
    return channels, height, width


def seeded(seed: Any, name: str = "seed") -> torch.Generator:
    """A generator on the CPU that begins at a seed.

    Raises:
        ValueError: the seed is not an integer from 0 to 2**63 - 1.
    """
    return torch.Generator().manual_seed(check_count(seed, name, 0, SEEDS - 1))


def check_number(
    value: Any, name: str, low: float = -math.inf, high: float = math.inf, *, above: bool = False, below: bool = False
) -> float:
    """Return a finite number, numpy's too, as Python's own if it lies in [low, high].

    Args:
        value: what was given.
        name: of the argument, for the message.
        low: the least value allowed.
        high: the greatest value allowed.
        above: refuse `low` itself too.
        below: refuse `high` itself too.

    Raises:
        ValueError: it is no number, not finite, or lies outside.
    """
    inside = is_number(value) and math.isfinite(value) and low <= value <= high
    if inside and not (above and value == low) and not (below and value == high):
        return float(value)
    bound = "" if math.isinf(low) else f" above {low:g}" if above else f" from {low:g} on"
    if math.isfinite(high):
        bound = f" in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
    raise ValueError(f"{name} must be a finite number{bound}, got {describe(value)}")


def is_whole(value: object) -> bool:
    """Whether a value is an integer: Python's or numpy's, but not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a real number: Python's or numpy's, but not a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_range(value: Any, name: str, low: float, high: float) -> tuple[float, float]:
    """Return a number, or a pair (from, to), as a pair of floats if low <= from <= to <= high.

    Raises:
        ValueError: it is neither, or lies outside.
    """
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(map(is_number, pair)) or not low <= pair[0] <= pair[1] <= high:
        limits = f"{low:g} <= from <= to <= {high:g}"
        raise ValueError(f"{name} must be a number or (from, to) with {limits}, got {describe(value)}")
    return float(pair[0]), float(pair[1])


def check_choice(value: Any, name: str, choices: Collection[Any]) -> Any:
    """Return the choice that a value is; numpy's numbers count as Python's, but True is not 1.

    Raises:
        ValueError: it is none of them.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    for choice in choices:
        if plain is choice or (type(plain) is type(choice) and plain == choice):
            return choice
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {describe(value)}")


def check_fill(value: float | Tensor, x: Tensor, name: str = "fill") -> Tensor:
    """A number or a tensor as images like x, on its device and in its dtype.

    Args:
        value: a finite number, or a tensor that broadcasts to x.
        x: images, (B, C, H, W).
        name: of the argument, for the message.

    Returns:
        (B, C, H, W), not to be written into.

    Raises:
        ValueError: it does not broadcast to the shape of x, or is not finite.
    """
    try:
        number = as_tensor(value).detach()
        if number.is_complex():
            raise TypeError("complex")
        number = number.to(x)
        full = number.expand(x.shape)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a number or broadcast to {(*x.shape,)}, got {describe(value)}") from error
    if not all_finite(number):
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return full
