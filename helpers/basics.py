"""Chapter 1: what a convolution computes, what it costs, and how much of the picture it sees.

One call: `convolve(x, weight)` equals `F.conv2d(x, weight)`; `receptive_fields(LeNet())[-1].size` is 16 pixels.
By hand: the chapter computes both on numbers small enough to check in the head.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from helpers._validate import check_count, check_images, check_model, check_shape, check_tensor, describe, is_whole
from helpers.capture import Layer, differentiable, layer_name, named_modules, preserved, refuse_inference, run
from helpers.device import own_precision


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
    check_tensor(x, "x", "B C H W", kind="real", finite=False)
    check_tensor(weight, "weight", f"K {x.shape[1]} k_h k_w", kind="real", finite=False)
    if not x.is_floating_point() or weight.dtype != x.dtype:
        raise ValueError(f"x and weight must be floating point, both of one dtype, got {x.dtype} and {weight.dtype}")
    stride, padding = check_count(stride, "stride"), check_count(padding, "padding", 0)
    size = weight.shape[2:]
    h, w = (output_size(n, k, stride=stride, padding=padding) for n, k in zip(x.shape[2:], size, strict=True))
    patches = F.unfold(x, size, stride=stride, padding=padding)  # (B, C*k_h*k_w, h*w)
    with own_precision(x):
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
    named = (("size", size), ("kernel", kernel), ("stride", stride), ("dilation", dilation))
    size, kernel, stride, dilation = (check_count(value, name) for name, value in named)
    padding = check_count(padding, "padding", 0)
    reach = dilation * (kernel - 1) + 1  # pixels the window spans
    if reach > size + 2 * padding:
        raise ValueError(f"kernel must fit in {size} pixels padded by {padding}, got a window of {reach} pixels")
    return (size + 2 * padding - reach) // stride + 1


class LayerCost(NamedTuple):
    """What one layer makes and costs for a single image."""

    layer: str
    kind: str
    output: tuple[int, ...]  # without the batch
    parameters: int
    multiply_adds: int


def layer_costs(model: nn.Module, shape: tuple[int, int, int]) -> list[LayerCost]:
    """Output shape, parameters and multiply-adds of every layer, in the order of the forward pass.

    Implements :eq:`eq-cost`, chapter 1. Operations are counted while they run (torch's own counter), so any module
    will do whose parameters sit in leaf modules. As usual only multiply-adds of convolutions and matrix products
    count, not additions of biases, ReLUs or maxima. A layer that runs twice is listed twice, its parameters once.

    Args:
        model: any module, on any device (on "meta" nothing is computed and no memory is needed).
        shape: of one image, (C, H, W).

    Raises:
        ValueError: shape is not (C, H, W), parameters sit outside the leaf modules that run, or a layer gives more than
            one tensor, as recurrent ones do, whose operations torch does not count.
    """
    shape = check_shape(shape)
    first = next(check_model(model).parameters(), torch.empty(0, device="cpu"))
    rows: list[LayerCost] = []
    before: dict[nn.Module, int] = {}
    seen: set[int] = set()  # parameters counted already, by identity
    # In inference mode torch 2.4 counts nothing.
    with preserved(model), torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:

        def start(module: nn.Module, _: object) -> None:
            before[module] = counter.get_total_flops()

        def stop(module: nn.Module, _: object, output: object) -> None:
            if not isinstance(output, Tensor):
                gives = f"{names[module]!r}, a {type(module).__name__}, which gives a {type(output).__name__}"
                raise ValueError(f"model must have layers that give one tensor and whose operations count, got {gives}")
            fresh = [p for p in module.parameters() if id(p) not in seen]
            seen.update(map(id, fresh))
            multiply_adds = (counter.get_total_flops() - before[module]) // 2  # one multiply-add is two operations
            parameters = sum(p.numel() for p in fresh)
            kind, shape = type(module).__name__, tuple(output.shape[1:])
            rows.append(LayerCost(names[module], kind, shape, parameters, multiply_adds))

        names = {module: name for name, module in model.named_modules() if not any(module.children())}
        for module in names:  # `preserved` takes the hooks away again
            module.register_forward_pre_hook(start)
            module.register_forward_hook(stop)
        run(model, torch.zeros(1, *shape, device=first.device, dtype=first.dtype), "shape")
    missed = sum(p.numel() for p in model.parameters() if id(p) not in seen)
    if missed:
        raise ValueError(f"model must hold all parameters in leaf modules that run, got {missed:,} outside of them")
    return rows


class ReceptiveField(NamedTuple):
    """The pixels that one unit of a layer can see, along one side."""

    layer: str
    size: int  # pixels seen by one unit
    stride: int  # pixels between the fields of neighbouring units
    start: int  # first pixel of the first unit's field; negative where it reaches into the padding


_POINTWISE = (nn.ReLU, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity, nn.Sigmoid, nn.Tanh, nn.GELU)
_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def _side(module: nn.Module, name: str) -> int:
    """A setting of a layer that must be the same along both sides."""
    value: Any = getattr(module, name, 1)
    pair = (int(value),) * 2 if is_whole(value) else tuple(value)
    if isinstance(value, str) or pair[0] != pair[1]:
        kind = type(module).__name__
        raise ValueError(f"{name} of a {kind} must be one whole number for both sides, got {value!r}")
    return pair[0]


def receptive_fields(model: nn.Module) -> list[ReceptiveField]:
    """How much of the image one unit of each layer sees: size, stride and place, in pixels.

    Implements :eq:`eq-receptive-field`, chapter 1, layer by layer from the input; stops at the first layer that mixes
    all places (flatten, linear, adaptive pooling).

    Args:
        model: an `nn.Sequential` (nested ones too) of convolutions, poolings and point-wise layers.

    Returns:
        One entry a layer, up to the last one whose units have a place.

    Raises:
        ValueError: the modules do not form a chain, or a layer is unknown or not square.

    Source: Dumoulin and Visin, A guide to convolution arithmetic, 2016; Araujo et al., Distill 2019.
    """
    size, stride, start = 1, 1, 0
    fields: list[ReceptiveField] = []
    modules = check_model(model).named_modules(remove_duplicate=False)  # a layer used twice widens the field twice
    for name, module in modules:
        if isinstance(module, nn.Sequential):
            continue
        if isinstance(module, nn.Flatten | nn.Linear | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            break
        if isinstance(module, _WINDOWED):
            reach = _side(module, "dilation") * (_side(module, "kernel_size") - 1)
            size, start = size + reach * stride, start - _side(module, "padding") * stride
            stride *= _side(module, "stride")
        elif not isinstance(module, _POINTWISE):
            layers = "convolutions, poolings and point-wise layers"
            kind = type(module).__name__
            raise ValueError(f"model must be a chain (nn.Sequential) of {layers}, got {name!r}, a {kind}")
        fields.append(ReceptiveField(name, size, stride, start))
    return fields


def path_counts(model: nn.Module, layer: Layer, shape: tuple[int, int, int]) -> Tensor:
    """In how many ways each pixel can reach the middle unit of a layer: the oracle for `receptive_fields`.

    A copy of the network gets all weights one, no biases, and sums in place of maxima; the gradient of one unit then
    counts the paths from each pixel to it, and is zero exactly outside its receptive field.

    Args:
        model: as for `receptive_fields`; it is not changed.
        layer: the layer whose middle unit is asked, by name or the module itself.
        shape: of one image, (C, H, W); large enough that the field does not touch the border.

    Returns:
        (H, W), float64, non-negative, largest value 1.

    Raises:
        ValueError: no such layer, or a dilated pooling.
    """
    layer, shape = layer_name(model, layer), check_shape(shape)
    with torch.inference_mode(False):  # or no gradient could be asked of the copy
        linear = copy.deepcopy(check_model(model)).double()
    for name, module in linear.named_modules():
        if isinstance(module, nn.MaxPool2d):
            if _side(module, "dilation") != 1:
                raise ValueError(f"model must have no dilated pooling, for which no mean can stand in, got {name!r}")
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
            parent, _, child = name.rpartition(".")
            setattr(linear.get_submodule(parent), child, mean)
    with torch.no_grad():
        for name, parameter in linear.named_parameters():
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    first = next(linear.parameters(), torch.empty(0, device="cpu"))
    image = torch.ones(1, *shape, dtype=torch.float64, device=first.device)
    ways = unit_gradient(linear, image, layer)[0].sum(0)  # (H, W)
    return ways / ways.max()


def _copy(output: object) -> object:
    return output.clone() if isinstance(output, Tensor) else output


def _check_place(at: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Row and column of a place, if they are two integers within maps of this size."""
    pair = at if isinstance(at, tuple | list) else ()
    if len(pair) != 2 or not all(is_whole(n) and 0 <= n < side for n, side in zip(pair, (height, width), strict=True)):
        raise ValueError(f"at must be (row, column) and lie within the maps of {height} x {width}, got {describe(at)}")
    return int(pair[0]), int(pair[1])


def unit_gradient(model: nn.Module, x: Tensor, layer: Layer, at: tuple[int, int] | None = None) -> Tensor:
    """How the units at one place of a layer, all channels added up, depend on every pixel.

    Args:
        model: any network; it is left as it was found.
        x: images, (B, C, H, W).
        layer: a layer with maps (B, K, h, w), by name or the module itself.
        at: row and column of the unit; None for the middle one, (h // 2, w // 2).

    Returns:
        The gradient with respect to the pixels, (B, C, H, W).

    Raises:
        ValueError: no such layer, one that does not run or has no places, or a place outside its maps.
    """
    layer = layer_name(model, layer)
    modules = named_modules(model, [layer])
    if layer not in modules:
        raise ValueError(f"layer must be the name of a layer, without the number of a call, got {layer!r}")
    refuse_inference(model)
    with preserved(model), torch.inference_mode(False), torch.enable_grad():
        pixels = check_images(x).detach().clone().requires_grad_()
        outputs: list[object] = []
        # A copy: what follows may overwrite the output in place.
        modules[layer].register_forward_hook(lambda _module, _inputs, output: outputs.append(_copy(output)))
        run(model, pixels + 0)  # a first layer in place may not write into a leaf
        maps = outputs[-1] if outputs else None
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            kind = f"a tensor {tuple(maps.shape)}" if isinstance(maps, Tensor) else "nothing of that kind"
            raise ValueError(f"layer must run and give maps (B, K, h, w), got {layer!r}, which gives {kind}")
        h, w = maps.shape[2:]
        i, j = (h // 2, w // 2) if at is None else _check_place(at, h, w)
        with differentiable():
            return torch.autograd.grad(maps[:, :, i, j].sum(), pixels)[0]
