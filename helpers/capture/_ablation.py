"""Forwards that stop at a layer, or start there: what `helpers.similarnet` switches filters off with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from helpers._validate import check_count, check_fit, check_images
from helpers.capture._hooks import logits, masked_forward
from helpers.capture._state import INPUT, named_modules, preserved

COPIES = 2**22  # activations held at once: 16 MiB in single precision
SAME = 1e-4  # how far logits may lie apart, relative to the largest, for a restarted forward to count as the same


class _Stop(Exception):
    """Ends a forward at the layer that was asked for."""


@contextmanager
def _left_out(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let modules hand on what they are given, as a hook behind them could not where they fail or work in place."""
    own = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            vars(module)["forward"] = lambda x, *_others: x
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            vars(module).pop("forward", None) if forward is None else vars(module).update(forward=forward)


def activations_up_to(model: nn.Module, x: Tensor, layer: str, *, without: tuple[type[nn.Module], ...] = ()) -> Tensor:
    """Output of one layer, for images of any size: what follows the layer does not run.

    Args:
        model: network whose first part takes images of this size; it is left as it was found.
        x: images, (B, C, H, W).
        layer: name of the layer; where it runs several times, its first run counts.
        without: types of modules that are left out on the way: each hands on what it is given.

    Returns:
        (B, C, h, w) or (B, F), a detached copy.

    Raises:
        ValueError: bad `x`, an unknown layer, or one that never runs.
    """
    if not isinstance(layer, str):
        raise ValueError(f"layer must be one name, got {layer!r}")
    found: list[Tensor] = []

    def stop(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        if not isinstance(output, Tensor):
            raise ValueError(f"layer must give one tensor, but {layer!r} gives a {type(output).__name__}")
        found.append(output)
        raise _Stop

    with preserved(model):
        module = named_modules(model, [layer]).get(layer)
        if module is None:
            raise ValueError(f"layer must be the plain name of a layer, without a number, got {layer!r}")
        module.register_forward_hook(stop)
        with _left_out([other for other in model.modules() if isinstance(other, without)]):
            try:
                masked_forward(model, x, {})
            except _Stop:
                return found[0].detach().clone()
    raise ValueError(f"layer: {layer!r} does not run in the forward of this network")


def logits_from(model: nn.Module, x: Tensor, layer: str, values: Tensor) -> Tensor:
    """Logits of a network that goes on from given outputs of a layer.

    What comes before the layer runs for one image only, to set the network going. Right where everything that
    follows depends on the image through this layer alone; where a shortcut leads around it, the logits are wrong for
    every image but the first: compare `logits_from(model, x, layer, activations(model, x, layer)[layer])` with
    `logits(model, x)`.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W); the first one is used.
        layer: name of the layer, or "input".
        values: outputs of the layer to go on from, (N, C, h, w) or (N, F), N of any size.

    Returns:
        (N, classes).

    Raises:
        ValueError: bad `x` or `layer`, values of another shape than the layer gives, or a network that mixes them up.
    """
    if not isinstance(layer, str):
        raise ValueError(f"layer must be one name, got {layer!r}")
    if layer == INPUT:
        try:
            return logits(model, values)
        except ValueError as error:
            raise ValueError(f"values: {error}") from error
    first = check_fit(model, check_images(x))[:1].detach().clone()  # a first layer in place must not write into x
    runs: list[int] = []

    def replace(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        runs.append(1)
        if not isinstance(output, Tensor):
            raise ValueError(f"layer must give one tensor, but {layer!r} gives a {type(output).__name__}")
        if not isinstance(values, Tensor) or values.shape[1:] != output.shape[1:] or len(values) == 0:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"values must be (N, {', '.join(map(str, output.shape[1:]))}), as {layer!r} gives, got {got}"
            )
        return values.detach().to(output, copy=True)  # what follows may work in place

    with preserved(model), torch.no_grad():
        module = named_modules(model, [layer]).get(layer)
        if module is None:
            raise ValueError(f"layer must be the plain name of a layer, without a number, got {layer!r}")
        module.register_forward_hook(replace)
        found = model(first)
    if len(runs) != 1:
        raise ValueError(f"layer must run once in the forward of this network, {layer!r} runs {len(runs)} times")
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(values):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"model must give logits ({len(values)}, classes) from {layer!r} on, got {got}")
    return found


def ablated_logits(model: nn.Module, x: Tensor, layer: str, *, copies: int = COPIES) -> tuple[Tensor, Tensor]:
    """Logits of a network with all filters of a layer, and with each one silenced in turn.

    The network runs once up to the layer; only what follows runs for every filter, on masked copies of the
    activations. Where a shortcut leads around the layer that would be wrong: it is noticed, and the whole network
    runs for each filter.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W).
        layer: name of a layer with C filters: feature maps (B, C, h, w), or C numbers an image.
        copies: activations held at once, which bounds the memory.

    Returns:
        Logits as they are, (B, classes), and with filter f silenced, (C, B, classes).

    Raises:
        ValueError: bad `x` or `layer`, or a layer whose output is not (B, C, ...).
    """
    check_count(copies, "copies")
    if not isinstance(layer, str) or not layer:
        raise ValueError(f"layer must be one name, got {layer!r}")
    kept = masked_forward(model, x, {}, capture=layer)
    values = kept.activations[layer]
    if values.ndim < 2:
        raise ValueError(f"layer must give (B, C, ...), but {layer!r} gives {tuple(values.shape)}")
    whole, filters = kept.logits, values.shape[1]
    ones = (filters, *[1] * (values.ndim - 2))  # a mask of the layer's output without its batch axis
    masks = (1 - torch.eye(filters, dtype=values.dtype, device=values.device)).view(filters, *ones)
    if not _restarts(model, x, layer, values, whole):
        return whole, torch.stack([masked_forward(model, x, {layer: mask}).logits for mask in masks])
    some = max(1, copies // values.numel())
    parts = [
        logits_from(model, x, layer, (values * part[:, None]).flatten(0, 1)).unflatten(0, (len(part), len(x)))
        for part in masks.split(some)
    ]
    return whole, torch.cat(parts)


def _restarts(model: nn.Module, x: Tensor, layer: str, values: Tensor, whole: Tensor) -> bool:
    """Whether the network, started again at the layer, gives the logits it gave."""
    try:
        # One more than there are images: a shortcut around the layer that carries one image fits one copy of it.
        again = logits_from(model, x, layer, torch.cat([values, values[:1]]))[:-1]
    except Exception:  # a shortcut that meets another number of images: what it raises is up to the network
        return False
    limit = SAME * (whole - whole.mean(1, keepdim=True)).abs().amax().clamp_min(torch.finfo(whole.dtype).tiny)
    return again.shape == whole.shape and bool((again - whole).abs().amax() <= limit)
