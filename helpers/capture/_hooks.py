"""Forward passes that keep or mask the activations of named layers, and the gradients of class scores there.

All of them are one forward, `_forward`, with a hook on each named layer. The hook counts the layer's calls and hands
each output that was asked for to a function, a `Visit`; the network goes on with what that function returns.
`activations` keeps a copy, `gradients` starts a graph there, `masked_forward` multiplies by a mask.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from helpers._validate import Target, all_finite, as_tensor, check_choice, check_images, describe
from helpers.capture._axes import ChannelAxes, is_known, note_axis, noted_axis
from helpers.capture._batches import chunks
from helpers.capture._layers import EVERY_CALL, INPUT, Layer, is_feature_maps, layer_name, named_modules
from helpers.capture._scores import Score, check_logits, chosen_classes, class_scores
from helpers.capture._state import differentiable, preserved, refuse_inference, run

Visit = Callable[[str, Tensor], Tensor]  # name and output of a call -> what the network goes on with
Reduce = Callable[[Tensor], Tensor]  # (B, C, h, w) -> what is kept of it


class NoLayers(ValueError):
    """None of the layers that were named, or meant by "relu#*", gives feature maps."""


class Gradients(NamedTuple):
    """What `gradients` returns; all detached. K is the number of classes asked for every image."""

    logits: Tensor  # (B, classes)
    activations: dict[str, Tensor]  # name -> (B, C, h, w) or (B, F)
    gradients: dict[str, Tensor]  # name -> like the activation, or (B, K, ...) for a (B, K) target


class Masked(NamedTuple):
    """What `masked_forward` returns; all detached."""

    logits: Tensor  # (B, classes)
    activations: dict[str, Tensor]  # name -> (B, C, h, w) or (B, F), after the masks


Layers = Layer | Sequence[Layer]


def activations(model: nn.Module, x: Tensor, layers: Layers) -> dict[str, Tensor]:
    """Outputs of named layers for a batch, in one forward.

    Args:
        model: any network.
        x: images, (B, C, H, W).
        layers: one or several, by name or the modules themselves.

    Returns:
        name -> output, (B, C, h, w) or (B, F), in the order asked; detached copies.

    Raises:
        ValueError: bad `x`; a name that is unknown, never runs, runs several times, or gives no tensor. ("relu#*" may
            stand for no call at all: what never runs then has no entry.)
    """
    names = _names(model, layers)
    outputs: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        outputs[name] = output.clone()  # what follows may overwrite the output in place
        return output

    with preserved(model), torch.no_grad():
        _, calls = _forward(model, x, names, keep)
    return _as_asked(outputs, names, calls)


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


def gradients(
    model: nn.Module,
    x: Tensor,
    target: Target | Callable[[Tensor], Target],
    layers: Layers,
    *,
    score: Score = "logit",
    reduce: Reduce | None = None,
) -> Gradients:
    """Gradients of class scores with respect to named layers: one forward for all classes and layers.

    The graph starts at the first named layer; nothing is stored below it. Parameters are frozen meanwhile,
    so that no gradient of a weight is computed. With score="log-odds" implements :eq:`eq-log-odds`, chapter 5.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes).
        x: images, (B, C, H, W).
        target: int, (B,), or (B, K) for K classes of every image; None for each image's top class; or a function of the
            logits (B, classes) that gives one, such as the five largest: `lambda logits: logits.topk(5).indices`.
        layers: one or several, by name or the modules themselves; "input" is `x`. The calls that "relu#*" stands for
            come last, in the order in which they run.
        score: what is differentiated: the "logit" S_c, the "probability" P_c after the softmax, or the "log-odds"
            log P_c / (1 - P_c) = S_c - log sum_(j != c) exp S_j, whose gradient has the direction of the probability's
            and does not vanish where the softmax is saturated.
        reduce: applied to each gradient (B, C, h, w) as soon as it is known, such as a maximum over channels: all else
            of it is forgotten, which keeps many layers and classes small.

    Returns:
        Logits (B, classes), activations (B, C, h, w), and gradients, (B, C, h, w) for an int or (B,) target and
        (B, K, C, h, w) for a (B, K) target; raw and signed.

    Raises:
        ValueError: bad `x`, `target`, `layers` or `score`, an output that is not (B, classes), or logits that do not
            depend on a layer.
    """
    check_choice(score, "score", get_args(Score))
    names = _names(model, layers)
    outputs: dict[str, Tensor] = {}
    apart: list[str] = []  # that run where torch records no gradient
    refuse_inference(model)

    def start_graph(name: str, output: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            apart.append(name)
        # Without a named layer before it the output carries no graph: the graph starts here.
        outputs[name] = output.clone() if output.requires_grad else output.clone().requires_grad_()
        return outputs[name].clone()  # what follows may overwrite the output in place

    with preserved(model), torch.inference_mode(False), torch.enable_grad():
        output, calls = _forward(model, x, names, start_graph)
        logits = check_logits(output, len(x))
        classes, several = chosen_classes(target, logits)
        classes = classes.clone()  # a tensor made in inference mode may not be saved for backward
        activations, last = _as_asked(outputs, names, calls), classes.shape[1] - 1
        by_class = [
            _differentiate(class_score, activations, k < last, reduce, apart)
            for k, class_score in enumerate(class_scores(logits, classes, score).unbind(1))
        ]
    by_layer = [torch.stack(of_classes, dim=1) for of_classes in zip(*by_class, strict=True)]  # (B, K, C, h, w) each
    return Gradients(
        logits.detach(),
        {name: activation.detach() for name, activation in activations.items()},
        {name: g if several else g[:, 0] for name, g in zip(activations, by_layer, strict=True)},
    )


def masked_forward(
    model: nn.Module,
    x: Tensor,
    masks: Mapping[str, Tensor],
    capture: Layers = (),
    *,
    reduce: Reduce | None = None,
) -> Masked:
    """A forward in which each named activation is multiplied by its mask.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes).
        x: images, (B, C, H, W).
        masks: name -> mask that broadcasts to the layer's output: (B, C, h, w), (C, 1, 1), (h, w) ...; any real
            or boolean values. "input" masks `x` itself.
        capture: layers whose outputs are returned, after the masks, by name or the modules themselves.
        reduce: applied to each captured output (B, C, h, w) at once, such as a sum over channels, so that all else of
            it is forgotten.

    Returns:
        Logits (B, classes), and the captured activations (B, C, h, w).

    Raises:
        ValueError: bad `x` or names, or a mask that does not broadcast to its activation.
    """
    captured = _names(model, capture) if isinstance(capture, nn.Module) or capture else []
    for name in [*masks, *captured]:
        if name.endswith(EVERY_CALL):
            raise ValueError(f"layer must be a single call here, such as 'relu#1', got {name!r}")
    outputs: dict[str, Tensor] = {}

    def mask(name: str, output: Tensor) -> Tensor:
        if name in masks:
            output = output * _check_mask(masks[name], output, name)
        if name in captured:
            outputs[name] = reduce(output) if reduce else output.clone()
        return output

    with preserved(model), torch.no_grad():
        output, _ = _forward(model, x, [*masks, *captured], mask)
        logits = check_logits(output, len(x))
    return Masked(logits, {name: outputs[name] for name in captured})


def top_classes(model: nn.Module, x: Tensor, batch_size: int | None = None) -> Tensor:
    """Each image's top class, the one of the largest logit.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        batch_size: images a pass, as for `chunks`.

    Returns:
        (B,) int64.

    Raises:
        ValueError: as `logits`.
    """
    return torch.cat([logits(model, x[part]).argmax(1) for part in chunks(len(check_images(x)), batch_size, x)])


def _names(model: nn.Module, layers: Layers) -> list[str]:
    several = [layers] if isinstance(layers, str | nn.Module) else layers
    if not isinstance(several, Sequence):
        raise ValueError(f"layers must be a layer's name or module, or a sequence of them, got {describe(layers)}")
    names = list(dict.fromkeys(layer_name(model, layer, "layers") for layer in several))
    if not names:
        raise NoLayers("layers must name at least one layer, got none")
    return names


def _forward(model: nn.Module, x: Tensor, names: Sequence[str], visit: Visit) -> tuple[Tensor, Counter[str]]:
    """One forward, inside `preserved`, which removes the hooks.

    Args:
        model: any network.
        x: images, (B, C, H, W); checked here.
        names: of layers, "input" and calls ("relu#2", "relu#*") among them.
        visit: is given each output that was named, by the name of its call, in the order in which the layers run.

    Returns:
        What the network gives, and how often each module that was named ran.
    """
    modules = named_modules(model, names)
    x = check_images(x).detach().clone()  # a first layer in place must not write into the caller's x
    calls: Counter[str] = Counter()

    def hook(base: str, output: object) -> Tensor:  # base: the name without the number of a call
        if not isinstance(output, Tensor):
            raise ValueError(f"layer must give one tensor, got {base!r}, which gives a {type(output).__name__}")
        calls[base] += 1
        if looks_on:
            note_axis(modules[base], calls[base], axes.of(output))
        axis = noted_axis(modules[base], calls[base])
        for name in dict.fromkeys(names):
            if name in (base, f"{base}#{calls[base]}"):
                output = visit(name, output)
            elif name == f"{base}{EVERY_CALL}" and is_feature_maps(modules[base], output, x, axis):
                output = visit(f"{base}#{calls[base]}", output)
        return output

    for base, module in modules.items():
        module.register_forward_hook(lambda _module, _inputs, output, base=base: hook(base, output))
    x = visit(INPUT, x) if INPUT in names else x
    axes, looks_on = ChannelAxes(x), not all(map(is_known, modules.values()))  # which costs time, once for each layer
    with axes if looks_on else nullcontext():
        output = run(model, x)
    for name in names:
        _check_calls(name, calls)
    return output, calls


def _as_asked(outputs: Mapping[str, Tensor], names: Sequence[str], calls: Counter[str]) -> dict[str, Tensor]:
    """Outputs in the order asked; those of "relu#*" last, as "relu#1", "relu#2" ..., or "relu" where it ran once."""
    every_call_of = {name.partition("#")[0] for name in names if name.endswith(EVERY_CALL)}
    asked = {name: outputs[name] for name in names if not name.endswith(EVERY_CALL)}
    for name in outputs:  # in the order in which they ran
        base, numbered, _ = name.partition("#")
        if numbered and base in every_call_of:
            asked[base if calls[base] == 1 else name] = outputs[name]
    return asked


def _check_calls(name: str, calls: Counter[str]) -> None:
    """Whether what a name stands for ran, and is one call."""
    base, numbered, number = name.partition("#")
    runs = calls[base]
    if name == INPUT or name.endswith(EVERY_CALL):
        return
    if runs == 0:
        raise ValueError(f"layer must run in the forward of this network, got {base!r}, which does not")
    if not numbered and runs > 1:
        raise ValueError(
            f"layer must be one call, '{base}#1' .. '{base}#{runs}', got {name!r}, which runs {runs} times"
        )
    if numbered and number not in map(str, range(1, runs + 1)):
        raise ValueError(f"layer must be a call that there is, '{base}#1' .. '{base}#{runs}', got {name!r}")


def _differentiate(
    scores: Tensor, activations: Mapping[str, Tensor], keep_graph: bool, reduce: Reduce | None, apart: Sequence[str]
) -> list[Tensor]:
    """Gradients of scores (B,) with respect to each activation, (B, C, h, w).

    In evaluation mode images do not mix, so the gradient of the scores' sum holds that of each image's own score.
    `keep_graph` where another class is to be differentiated after this one; `apart` names what ran without gradients.
    """
    if not activations:
        raise NoLayers("layers must name one that gives feature maps (B, C, h, w), got none that does")
    without_gradient, gradients = list(activations), ()
    if scores.requires_grad:
        with differentiable():
            gradients = torch.autograd.grad(
                scores.sum(), list(activations.values()), retain_graph=keep_graph, allow_unused=True
            )
        without_gradient = [name for name, gradient in zip(activations, gradients, strict=True) if gradient is None]
    if without_gradient:
        names = ", ".join(without_gradient)
        reason = "on which they do not, or not by a way that can be differentiated"
        if not scores.requires_grad or set(without_gradient) & set(apart):
            reason = "but the way from there cannot be differentiated"
        raise ValueError(
            f"layers must be such that the logits depend on them, got {names}, {reason} (a quantised layer, "
            "torch.no_grad or a checkpoint with use_reentrant=True lies on it); occlusion and CAM need no gradient"
        )
    return [reduce(gradient) if reduce else gradient for gradient in gradients]


def _check_mask(mask: Tensor | float, output: Tensor, name: str) -> Tensor:
    """A layer's mask on the device and in the dtype of its output, if it broadcasts to it."""
    try:
        values = as_tensor(mask).to(output)
        fits = torch.broadcast_shapes(values.shape, output.shape) == output.shape
    except (TypeError, ValueError, RuntimeError):
        values, fits = output, False
    if not fits:
        raise ValueError(
            f"masks[{name!r}] must be a number or broadcast to {tuple(output.shape)}, got {describe(mask)}"
        )
    if not all_finite(values):
        raise ValueError(f"masks[{name!r}] must be finite, got NaN or infinite values")
    return values
