"""Forwards that stop at a layer, or start there: what `helpers.similarnet` switches filters off with.

A network whose layer L has 64 filters would have to run 64 times to see what each filter is worth. What comes before L
is the same every time, so it runs once (`activations_up_to`), and only what follows L runs for every filter
(`logits_from`). torch has no way to start a network in the middle: `logits_from` runs the whole of it on one image, and
a hook on L puts the given values in the place of what L has computed; what follows never notices.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from helpers._validate import check_count, check_images, check_tensor
from helpers.capture._hooks import logits, masked_forward
from helpers.capture._layers import INPUT, Layer, check_feature_maps, layer_name, named_modules
from helpers.capture._scores import check_logits
from helpers.capture._state import preserved, run

COPIES = 2**22  # activations held at once: 16 MiB in single precision
SAME = 1e-4  # how far logits may lie apart, relative to the largest, for a restarted forward to count as the same


class _Stop(Exception):
    """Ends a forward at the layer that was asked for."""


@contextmanager
def _skipped(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, each of these modules returns its input unchanged; afterwards it computes again.

    A hook that gives the input back would come too late: the module would have run, and might have failed on images
    that small, or have overwritten its input. So each module gets a `forward` of its own for the time being, which
    hides that of its class.
    """
    own_forwards = [vars(module).get("forward") for module in modules]  # None where the class's forward is used
    try:
        for module in modules:
            vars(module)["forward"] = lambda x, *_others: x
        yield
    finally:
        for module, forward in zip(modules, own_forwards, strict=True):
            vars(module).pop("forward", None) if forward is None else vars(module).update(forward=forward)


def _single_module(model: nn.Module, layer: str) -> nn.Module:
    module = named_modules(model, [layer]).get(layer)
    if module is None:
        raise ValueError(f"layer must be the plain name of a layer, without the number of a call, got {layer!r}")
    return module


def _check_output(output: object, layer: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise ValueError(f"layer must give one tensor, got {layer!r}, which gives a {type(output).__name__}")
    return output


def activations_up_to(
    model: nn.Module, x: Tensor, layer: Layer, *, without: tuple[type[nn.Module], ...] = ()
) -> Tensor:
    """Output of one layer, for images of any size: what follows the layer does not run.

    Args:
        model: network whose first part takes images of this size; it is left as it was found.
        x: images, (B, C, H, W).
        layer: name of the layer, or the module itself; where it runs several times, its first run counts.
        without: types of modules that are left out on the way: each hands on what it is given.

    Returns:
        (B, C, h, w) or (B, F), a detached copy.

    Raises:
        ValueError: bad `x`, an unknown layer, or one that never runs.
    """
    layer = layer_name(model, layer)
    outputs: list[Tensor] = []

    def stop(_module: nn.Module, _inputs: tuple, output: object) -> None:
        outputs.append(_check_output(output, layer))
        raise _Stop

    with preserved(model):  # which removes the hook
        _single_module(model, layer).register_forward_hook(stop)
        with _skipped([module for module in model.modules() if isinstance(module, without)]):
            try:
                masked_forward(model, x, {})
            except _Stop:
                return outputs[0].detach().clone()
    raise ValueError(f"layer must run in the forward of this network, got {layer!r}, which does not")


def logits_from(model: nn.Module, x: Tensor, layer: Layer, values: Tensor) -> Tensor:
    """Logits of a network that goes on from given outputs of a layer.

    What comes before the layer runs for one image only, to set the network going. Right where everything that
    follows depends on the image through this layer alone; where a shortcut leads around it, the logits are wrong for
    every image but the first: compare `logits_from(model, x, layer, activations(model, x, layer)[layer])` with
    `logits(model, x)`.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W); the first one is used.
        layer: name of the layer, or the module itself, or "input".
        values: outputs of the layer to go on from, (N, C, h, w) or (N, F), N of any size.

    Returns:
        (N, classes).

    Raises:
        ValueError: bad `x` or `layer`, values of another shape than the layer gives, or a network that mixes them up.
    """
    layer = layer_name(model, layer)
    if layer == INPUT:
        return logits(model, check_images(values, "values"))
    image = check_images(x)[:1].detach().clone()  # a first layer in place must not write into x
    runs = 0

    def replace(_module: nn.Module, _inputs: tuple, output: object) -> Tensor:
        nonlocal runs
        runs += 1
        output = _check_output(output, layer)
        check_tensor(values, "values", "N " + " ".join(map(str, output.shape[1:])), kind="real", finite=False)
        return values.detach().to(output, copy=True)  # what follows may work in place

    with preserved(model), torch.no_grad():  # `preserved` removes the hook
        _single_module(model, layer).register_forward_hook(replace)
        answers = run(model, image)
    if runs != 1:
        raise ValueError(f"layer must run once in the forward of this network, got {layer!r}, which runs {runs} times")
    return check_logits(answers, len(values))


def ablated_logits(model: nn.Module, x: Tensor, layer: Layer, *, copies: int = COPIES) -> tuple[Tensor, Tensor]:
    """Logits of a network with all filters of a layer, and with each one silenced in turn.

    The network runs once up to the layer; only what follows runs for every filter, on masked copies of the
    activations, many filters a pass. That is wrong where a shortcut leads around the layer, as in a residual block:
    such a network is recognised by its logits (`_can_restart`), and then the whole of it runs for each filter.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W).
        layer: a layer with C filters, by name or the module itself: feature maps (B, C, h, w), or C numbers an image.
        copies: activations held at once, which bounds the memory.

    Returns:
        Logits as they are, (B, classes), and with filter f silenced, (C, B, classes).

    Raises:
        ValueError: bad `x` or `layer`, or a layer whose output is not (B, C, ...).
    """
    copies = check_count(copies, "copies")
    layer = layer_name(model, layer)
    captured = masked_forward(model, x, {}, capture=[layer])
    whole, values = captured.logits, captured.activations[layer]
    if values.ndim != 2:
        check_feature_maps(values, layer, model, x)
    filters = values.shape[1]
    one_each = (filters, *[1] * (values.ndim - 2))  # a mask of the layer's output, without the batch axis
    masks = (1 - torch.eye(filters, dtype=values.dtype, device=values.device)).view(filters, *one_each)
    if not _can_restart(model, x, layer, values, whole):
        return whole, torch.stack([masked_forward(model, x, {layer: mask}).logits for mask in masks])
    filters_a_pass = max(1, copies // values.numel())
    parts = [
        logits_from(model, x, layer, (values * part[:, None]).flatten(0, 1)).unflatten(0, (len(part), len(x)))
        for part in masks.split(filters_a_pass)
    ]
    return whole, torch.cat(parts)


def _can_restart(model: nn.Module, x: Tensor, layer: str, values: Tensor, whole: Tensor) -> bool:
    """Whether the network, started at a layer with what the layer gave, gives the logits it gave as a whole.

    A shortcut around the layer carries the one image that sets the network going, in place of all. For a batch of a
    single image that would be right; so one value more is given than there are images, as ablation does.
    """
    try:
        again = logits_from(model, x, layer, torch.cat([values, values[:1]]))[:-1]
    except Exception:  # a shortcut that meets another number of images: what it raises is up to the network
        return False
    limit = SAME * (whole - whole.mean(1, keepdim=True)).abs().amax().clamp_min(torch.finfo(whole.dtype).tiny)
    return again.shape == whole.shape and bool((again - whole).abs().amax() <= limit)
