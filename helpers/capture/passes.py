"""Forward passes that keep or mask the activations of named layers, and the gradients of class scores there."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from helpers.capture.inputs import check_fit, check_images, check_positive, check_target
from helpers.capture.state import INPUT, named_modules, preserved

Visit = Callable[[str, Tensor], Tensor]


class Gradients(NamedTuple):
    """What `gradients` returns; all detached. K is the number of classes asked for every image."""

    logits: Tensor  # (B, classes)
    activations: dict[str, Tensor]  # name -> (B, C, h, w) or (B, F)
    gradients: dict[str, Tensor]  # name -> like the activation, or (B, K, ...) for a (B, K) target


class Masked(NamedTuple):
    """What `masked_forward` returns; all detached."""

    logits: Tensor  # (B, classes)
    activations: dict[str, Tensor]  # name -> (B, C, h, w) or (B, F), after the masks


def activations(model: nn.Module, x: Tensor, layers: str | Sequence[str]) -> dict[str, Tensor]:
    """Outputs of named layers for a batch, in one forward.

    Args:
        model: any network.
        x: images, (B, C, H, W).
        layers: one name or several.

    Returns:
        name -> output, (B, C, h, w) or (B, F), in the order asked; detached copies.

    Raises:
        ValueError: bad `x`; a name that is unknown, never runs, runs several times, or gives no tensor.
    """
    names = _names(layers)
    found: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        found[name] = output.clone()  # what follows may overwrite the output in place
        return output

    with preserved(model), torch.no_grad():
        _forward(model, x, names, keep)
    return {name: found[name] for name in names}


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Logits of a batch in evaluation mode, without a graph.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W).

    Returns:
        (B, classes).

    Raises:
        ValueError: bad `x`, or an output that is not (B, classes).
    """
    return masked_forward(model, x, {}).logits


def in_batches(method: Callable[..., Tensor], model: nn.Module, x: Tensor, *others: Any, size: int = 100) -> Tensor:
    """A method's result for many images, computed batch by batch: small batches stay in the processor's cache.

    Args:
        method: called as `method(model, x, *others)`; give its options with `functools.partial`.
        model: any network.
        x: images, (N, C, H, W).
        others: further arguments; tensors of length N are cut along with the images, everything else is handed on.
        size: images a call.

    Returns:
        The results, joined along their first axis.

    Raises:
        ValueError: x is not a non-empty (N, C, H, W), or size is less than 1.
    """
    check_positive("size", size)
    check_images(x)

    def part(one: Any, rows: slice) -> Any:
        return one[rows] if isinstance(one, Tensor) and one.ndim and len(one) == len(x) else one

    cuts = [slice(start, start + size) for start in range(0, len(x), size)]
    return torch.cat([method(model, x[rows], *(part(one, rows) for one in others)) for rows in cuts])


def gradients(
    model: nn.Module,
    x: Tensor,
    target: int | Sequence | Tensor,
    layers: str | Sequence[str],
    *,
    after_softmax: bool = False,
) -> Gradients:
    """Gradients of class scores with respect to named layers: one forward for all classes and layers.

    The graph starts at the first named layer; nothing is stored below it. Parameters are frozen meanwhile,
    so that no gradient of a weight is computed.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes).
        x: images, (B, C, H, W).
        target: int, (B,), or (B, K) for K classes of every image.
        layers: one name or several; "input" is `x` itself.
        after_softmax: differentiate the softmax probability in place of the logit.

    Returns:
        Logits (B, classes), activations (B, C, h, w), and gradients, (B, C, h, w) for an int or (B,) target and
        (B, K, C, h, w) for a (B, K) target; raw and signed.

    Raises:
        ValueError: bad `x`, `target` or `layers`, an output that is not (B, classes), or logits that do not
            depend on a layer.
    """
    names = _names(layers)
    found: dict[str, Tensor] = {}

    def cut(name: str, output: Tensor) -> Tensor:
        # Without a named layer before it the output carries no graph: the graph starts here.
        kept = output.clone() if output.requires_grad else output.clone().requires_grad_()
        found[name] = kept
        return kept.clone()  # what follows may overwrite the output in place

    with preserved(model), torch.inference_mode(False), torch.enable_grad():
        logits = _logits(_forward(model, x, names, cut), len(x))
        wanted, several = check_target(target, *logits.shape)
        wanted = wanted.to(logits.device).clone()  # a tensor made in inference mode may not be saved for backward
        scores = (logits.softmax(1) if after_softmax else logits).gather(1, wanted)  # (B, K)
        captured, last = [found[name] for name in names], wanted.shape[1] - 1
        by_class = [_differentiate(score, captured, names, k < last) for k, score in enumerate(scores.unbind(1))]
    stacked = [torch.stack(one, dim=1) for one in zip(*by_class, strict=True)]  # (B, K, C, h, w) a layer
    return Gradients(
        logits.detach(),
        {name: found[name].detach() for name in names},
        {name: g if several else g[:, 0] for name, g in zip(names, stacked, strict=True)},
    )


def masked_forward(
    model: nn.Module, x: Tensor, masks: Mapping[str, Tensor], capture: str | Sequence[str] = ()
) -> Masked:
    """A forward in which each named activation is multiplied by its mask.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes).
        x: images, (B, C, H, W).
        masks: name -> mask that broadcasts to the layer's output: (B, C, h, w), (C, 1, 1), (h, w) ...; any real
            or boolean values. "input" masks `x` itself.
        capture: names of layers whose outputs are returned, after the masks.

    Returns:
        Logits (B, classes), and the captured activations (B, C, h, w).

    Raises:
        ValueError: bad `x` or names, or a mask that does not broadcast to its activation.
    """
    wanted = _names(capture) if capture else []
    found: dict[str, Tensor] = {}

    def mask(name: str, output: Tensor) -> Tensor:
        if name in masks:
            output = output * _fitting(masks[name], output, name)
        if name in wanted:
            found[name] = output.clone()
        return output

    with preserved(model), torch.no_grad():
        logits = _logits(_forward(model, x, [*masks, *wanted], mask), len(x))
    return Masked(logits, {name: found[name] for name in wanted})


def _names(layers: str | Sequence[str]) -> list[str]:
    several = isinstance(layers, Sequence) and all(isinstance(name, str) for name in layers)
    if not several:
        raise ValueError(f"layers must be a name or a sequence of names, got {layers!r}")
    names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    if not names:
        raise ValueError("layers must name at least one layer, got none")
    return names


def _forward(model: nn.Module, x: Tensor, names: Sequence[str], visit: Visit) -> Tensor:
    """One forward; `visit(name, output)` sees each named output and returns what the network goes on with.

    Runs inside `preserved`, which removes the hooks.
    """
    modules = named_modules(model, names)
    x = check_fit(model, check_images(x)).detach().clone()  # a first layer in place must not write into the caller's x
    calls: Counter[str] = Counter()

    def hook(base: str, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(f"layers: {base!r} gives a {type(output).__name__}, wanted a layer that gives one tensor")
        calls[base] += 1
        for name in dict.fromkeys(names):
            if name in (base, f"{base}#{calls[base]}"):
                output = visit(name, output)
        return output

    for base, module in modules.items():
        module.register_forward_hook(lambda _module, _inputs, output, base=base: hook(base, output))
    output = model(visit(INPUT, x) if INPUT in names else x)
    for name in names:
        _check_calls(name, calls)
    return output


def _check_calls(name: str, calls: Counter[str]) -> None:
    base, numbered, number = name.partition("#")
    runs = calls[base]
    if name == INPUT:
        return
    if runs == 0:
        raise ValueError(f"layers: {base!r} does not run in the forward of this network")
    if not numbered and runs > 1:
        raise ValueError(f"layers: {base!r} runs {runs} times; name the call: '{base}#1' .. '{base}#{runs}'")
    if numbered and number not in map(str, range(1, runs + 1)):
        raise ValueError(f"layers: there is no call {name!r}; {base!r} runs {runs} times, counted from '{base}#1'")


def _logits(output: Tensor, batch: int) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != batch:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"model must return logits (B, classes) with B = {batch}, got {got}")
    return output


def _differentiate(score: Tensor, captured: list[Tensor], names: list[str], again: bool) -> tuple[Tensor, ...]:
    """Gradients of (B,) scores. In evaluation mode images do not mix, so the sum serves the whole batch."""
    if score.requires_grad:
        found = torch.autograd.grad(score.sum(), captured, retain_graph=again, allow_unused=True)
        unused = [name for name, gradient in zip(names, found, strict=True) if gradient is None]
    else:
        unused = names
    if unused:
        raise ValueError(f"layers: the logits do not depend on what {', '.join(unused)} returned")
    return found


def _fitting(mask: Tensor, output: Tensor, name: str) -> Tensor:
    try:
        mask = torch.as_tensor(mask).to(output)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"masks: the mask of {name!r} must be a tensor or a number, got {mask!r}") from error
    if not torch.isfinite(mask).all():
        raise ValueError(f"masks: the mask of {name!r} holds NaN or infinite values")
    try:
        fits = torch.broadcast_shapes(mask.shape, output.shape) == output.shape
    except RuntimeError:
        fits = False
    if not fits:
        given, wanted = tuple(mask.shape), tuple(output.shape)
        raise ValueError(f"masks: the mask of {name!r} has shape {given}, wanted one that broadcasts to {wanted}")
    return mask
