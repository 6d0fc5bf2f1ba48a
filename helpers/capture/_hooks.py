"""Forward passes that keep or mask the activations of named layers, and the gradients of class scores there."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from helpers._validate import Target, check_fit, check_images, check_target
from helpers.capture._state import INPUT, named_modules, preserved

Visit = Callable[[str, Tensor], Tensor]
Reduce = Callable[[Tensor], Tensor]
Score = Literal["logit", "probability", "log-odds"]
EVERY_CALL = "*"  # in place of a call's number


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
        ValueError: bad `x`; a name that is unknown, never runs, runs several times, or gives no tensor. ("relu#*" may
            stand for no call at all: what never runs then has no entry.)
    """
    names = _names(layers)
    found: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        found[name] = output.clone()  # what follows may overwrite the output in place
        return output

    with preserved(model), torch.no_grad():
        _, calls = _forward(model, x, names, keep)
    return _named(found, names, calls)


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
    layers: str | Sequence[str],
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
        target: int, (B,), or (B, K) for K classes of every image; or a function of the logits (B, classes) that gives
            one, such as the five largest: `lambda logits: logits.topk(5).indices`.
        layers: one name or several; "input" is `x` itself. The calls that "relu#*" stands for come last, in the order
            in which they run.
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
    if score not in get_args(Score):
        raise ValueError(f"score must be one of {', '.join(get_args(Score))}, got {score!r}")
    names = _names(layers)
    found: dict[str, Tensor] = {}

    def cut(name: str, output: Tensor) -> Tensor:
        # Without a named layer before it the output carries no graph: the graph starts here.
        kept = output.clone() if output.requires_grad else output.clone().requires_grad_()
        found[name] = kept
        return kept.clone()  # what follows may overwrite the output in place

    with preserved(model), torch.inference_mode(False), torch.enable_grad():
        output, calls = _forward(model, x, names, cut)
        logits = _logits(output, len(x))
        asked = target(logits.detach()) if callable(target) else target
        wanted, several = check_target(asked, *logits.shape)
        wanted = wanted.to(logits.device).clone()  # a tensor made in inference mode may not be saved for backward
        kept, last = _named(found, names, calls), wanted.shape[1] - 1
        by_class = [
            _differentiate(one, kept, k < last, reduce)
            for k, one in enumerate(class_scores(logits, wanted, score).unbind(1))
        ]
    stacked = [torch.stack(one, dim=1) for one in zip(*by_class, strict=True)]  # (B, K, C, h, w) a layer
    return Gradients(
        logits.detach(),
        {name: one.detach() for name, one in kept.items()},
        {name: g if several else g[:, 0] for name, g in zip(kept, stacked, strict=True)},
    )


def class_scores(logits: Tensor, wanted: Tensor, score: Score) -> Tensor:
    """The scores (B, K) of the classes `wanted` (B, K)."""
    if score == "probability":
        return logits.softmax(1).gather(1, wanted)
    own = logits.gather(1, wanted)
    if score == "logit":
        return own
    if logits.shape[1] < 2:
        raise ValueError('score: "log-odds" takes a network with two classes at least')
    every = torch.arange(logits.shape[1], device=logits.device)
    rivals = logits[:, None].masked_fill(every == wanted[..., None], float("-inf"))  # (B, K, classes)
    return own - rivals.logsumexp(2)


def masked_forward(
    model: nn.Module,
    x: Tensor,
    masks: Mapping[str, Tensor],
    capture: str | Sequence[str] = (),
    *,
    reduce: Reduce | None = None,
) -> Masked:
    """A forward in which each named activation is multiplied by its mask.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes).
        x: images, (B, C, H, W).
        masks: name -> mask that broadcasts to the layer's output: (B, C, h, w), (C, 1, 1), (h, w) ...; any real
            or boolean values. "input" masks `x` itself.
        capture: names of layers whose outputs are returned, after the masks.
        reduce: applied to each captured output (B, C, h, w) at once, such as a sum over channels, so that all else of
            it is forgotten.

    Returns:
        Logits (B, classes), and the captured activations (B, C, h, w).

    Raises:
        ValueError: bad `x` or names, or a mask that does not broadcast to its activation.
    """
    wanted = _names(capture) if capture else []
    for name in [*masks, *wanted]:
        if name.endswith(f"#{EVERY_CALL}"):
            raise ValueError(f"layers: masked_forward takes calls one by one, such as 'relu#1', got {name!r}")
    found: dict[str, Tensor] = {}

    def mask(name: str, output: Tensor) -> Tensor:
        if name in masks:
            output = output * _fitting(masks[name], output, name)
        if name in wanted:
            found[name] = reduce(output) if reduce else output.clone()
        return output

    with preserved(model), torch.no_grad():
        output, _ = _forward(model, x, [*masks, *wanted], mask)
        logits = _logits(output, len(x))
    return Masked(logits, {name: found[name] for name in wanted})


def _names(layers: str | Sequence[str]) -> list[str]:
    several = isinstance(layers, Sequence) and all(isinstance(name, str) for name in layers)
    if not several:
        raise ValueError(f"layers must be a name or a sequence of names, got {layers!r}")
    names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    if not names:
        raise ValueError("layers must name at least one layer, got none")
    return names


def _forward(model: nn.Module, x: Tensor, names: Sequence[str], visit: Visit) -> tuple[Tensor, Counter[str]]:
    """One forward; `visit(name, output)` sees each named output and returns what the network goes on with.

    Runs inside `preserved`, which removes the hooks. Returns the output, and how often each named module ran.
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
            elif name == f"{base}#{EVERY_CALL}" and output.ndim == 4:
                output = visit(f"{base}#{calls[base]}", output)
        return output

    for base, module in modules.items():
        module.register_forward_hook(lambda _module, _inputs, output, base=base: hook(base, output))
    output = model(visit(INPUT, x) if INPUT in names else x)
    for name in names:
        _check_calls(name, calls)
    return output, calls


def _named(found: Mapping[str, Tensor], names: Sequence[str], calls: Counter[str]) -> dict[str, Tensor]:
    """What was found, by the names asked for; "relu#*" becomes "relu#1", "relu#2" ..., or "relu" where it ran once."""
    swept = {name.partition("#")[0] for name in names if name.endswith(f"#{EVERY_CALL}")}
    named = {name: found[name] for name in names if not name.endswith(f"#{EVERY_CALL}")}
    for key in found:  # in the order in which they ran
        base, number, _ = key.partition("#")
        if number and base in swept:
            named[base if calls[base] == 1 else key] = found[key]
    return named


def _check_calls(name: str, calls: Counter[str]) -> None:
    base, numbered, number = name.partition("#")
    runs = calls[base]
    if name == INPUT or number == EVERY_CALL:
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


def _differentiate(score: Tensor, captured: Mapping[str, Tensor], again: bool, reduce: Reduce | None) -> list[Tensor]:
    """Gradients of (B,) scores. In evaluation mode images do not mix, so the sum serves the whole batch."""
    if not captured:
        raise ValueError("layers: none of them gives feature maps (B, C, h, w) in the forward of this network")
    unused = list(captured)
    if score.requires_grad:
        found = torch.autograd.grad(score.sum(), list(captured.values()), retain_graph=again, allow_unused=True)
        unused = [name for name, gradient in zip(captured, found, strict=True) if gradient is None]
    if unused:
        raise ValueError(f"layers: the logits do not depend on what {', '.join(unused)} returned")
    return [reduce(gradient) for gradient in found] if reduce else list(found)


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
