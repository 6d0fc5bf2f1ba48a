"""Networks that forget: copies in which one layer after the other gets new weights."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from helpers._validate import check_choice, check_count, check_images, check_model
from helpers.capture import is_packed, preserved, refuse_lazy, refuse_script, run

Redraw = Literal["initial", "shuffled"]
REDRAWS = ("initial", "shuffled")
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
LEARNED = ("weight", "bias")  # ends of the names under which layers keep what they learned
SEED_STEP = 1_000_003  # between two seeds: more than any network has layers, so that no two draws share a seed


def randomizable_layers(model: nn.Module, redraw: Redraw = "initial", x: Tensor | None = None) -> list[list[str]]:
    """The layers with weights, from the first to the last, each with the normalisations that follow it.

    Args:
        model: any network whose layers with weights can draw them anew (`reset_parameters`); for "shuffled" any at all.
        redraw: "initial" or "shuffled", as for `cascading_randomization`.
        x: images, (B, C, H, W), that show in which order the layers run; when left out, the order they were defined in.

    Returns:
        Names, a list a step; the first name of each is the layer's.

    Raises:
        ValueError: a network without such layers, with weights outside of them, or with layers that share weights.
    """
    refuse_lazy(check_model(model, held=True))
    refuse_script(model, "its layers can be drawn anew")
    layers = [(name, module) for name, module in model.named_modules() if _holds_values(module)]
    packed = [name for name, module in model.named_modules() if is_packed(module)]
    if packed:
        raise ValueError(
            "model must hold its weights as parameters, got some that are quantised and packed, in "
            f"{', '.join(packed[:5])}: give the network that was quantised"
        )
    unknown = [name or type(module).__name__ for name, module in layers if not _can_be_redrawn(module)]
    if unknown and redraw == "initial":
        raise ValueError(
            f"model must not have parameters that cannot be drawn anew, got some in {', '.join(unknown[:5])}; "
            'redraw="shuffled" needs no such way'
        )
    places = [weight.data_ptr() for _, module in layers for weight in _weights(module) if weight.numel()]
    if len(set(places)) < len(places):
        raise ValueError("model must have layers with weights of their own, got some that share theirs")
    if not layers:
        raise ValueError("model must have layers with weights, got none")
    return _grouped(layers) if x is None else _as_they_run(model, layers, x)


def _grouped(layers: list[tuple[str, nn.Module]]) -> list[list[str]]:
    """Names, a list a step: one begins at each layer that is no normalisation."""
    starts = [i for i, (_, module) in enumerate(layers) if i == 0 or not isinstance(module, NORMS)]
    return [[name for name, _ in layers[i:j]] for i, j in zip(starts, [*starts[1:], None], strict=True)]


def _as_they_run(model: nn.Module, layers: list[tuple[str, nn.Module]], x: Tensor) -> list[list[str]]:
    """Steps in the order in which layers first run; one that never does comes behind the one defined before it."""
    turns: dict[nn.Module, int] = {}

    def note(module: nn.Module, _inputs: tuple) -> None:
        turns.setdefault(module, len(turns))

    with preserved(model), torch.no_grad():  # which removes the hooks
        for _, module in layers:
            module.register_forward_pre_hook(note)
        run(model, check_images(x)[:1].detach().clone())
    steps = _grouped(sorted((layer for layer in layers if layer[1] in turns), key=lambda layer: turns[layer[1]]))
    for i, (name, module) in enumerate(layers):
        if module not in turns:
            before = next((k for k, step in enumerate(steps) if i and layers[i - 1][0] in step), -1)
            if isinstance(module, NORMS) and before >= 0:
                steps[before].append(name)
            else:
                steps.insert(before + 1, [name])
    return steps


def _holds_values(module: nn.Module) -> bool:
    """Whether a module has weights of its own, as containers may too, or a normalisation's running statistics."""
    has_buffers = next(module.buffers(recurse=False), None) is not None
    return bool(_weights(module)) or (isinstance(module, NORMS) and has_buffers)


def _weights(module: nn.Module) -> list[Tensor]:
    """What a layer has learned, as far as one can see: its parameters, and what it calls a weight or a bias.

    Frozen batch normalisation keeps these as buffers, others as plain tensors.
    """
    named = {**vars(module), **dict(module.named_buffers(recurse=False))}
    learned = (value for key, value in named.items() if key.endswith(LEARNED))
    others = [value for value in learned if isinstance(value, Tensor) and value.is_floating_point()]
    return [*module.parameters(recurse=False), *others]


def _other_buffers(module: nn.Module) -> bool:
    """Whether a module has floating-point buffers that are not called weights."""
    known = {id(weight) for weight in _weights(module)}
    return any(b.is_floating_point() and id(b) not in known for b in module.buffers(recurse=False))


def _can_be_redrawn(module: nn.Module) -> bool:
    """Whether a layer has a way to draw all that it learned, seen on a copy whose weights were made unusable first.

    Weight and spectral normalisation of old keep what is learned (weight_g, weight_orig ...) beside the weight that
    would be drawn.
    """
    probe = copied(module)
    reset = _reset(probe)
    if reset is None:
        return False
    with torch.no_grad():
        for weight in _weights(probe):
            weight.fill_(torch.nan if weight.is_floating_point() or weight.is_complex() else 0)
    with torch.random.fork_rng(devices=[]):
        try:
            reset()
        except Exception:  # whatever it is, such as an argument that it wants
            return False
    return not any(weight.isnan().any() for weight in _weights(probe))


def _reset(module: nn.Module) -> Callable[[], object] | None:
    """What draws a layer's weights as torch does when it makes one; None where there is nothing of the kind."""
    # nn.MultiheadAttention's has an underscore.
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of a network that holds the results of computations, which torch refuses to copy.

    Old weight normalisation holds such a one. Made outside inference mode, so that gradients can be asked of it.
    """
    held = [(vars(m), key, v) for m in model.modules() for key, v in vars(m).items() if isinstance(v, Tensor)]
    with torch.inference_mode(False):
        try:
            for attributes, key, value in held:
                attributes[key] = value.detach()
            return copy.deepcopy(model)
        finally:
            for attributes, key, value in held:
                attributes[key] = value


def cascading_randomization(
    model: nn.Module, *, seed: int = 0, redraw: Redraw = "initial", x: Tensor | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a network that forgets from the top down: the last layer random, the last two, ... all of them.

    Args:
        model: any network whose layers with weights have `reset_parameters` (for "shuffled" any at all); it is left as
            it was found. Normalisations are reset together with the layer before them, their running statistics too.
        seed: of the new weights; the same on every device. The state of torch's generators is left alone.
        redraw: "initial" draws weights as torch initialises such a layer; "shuffled" permutes the trained ones within
            each tensor, which keeps their distribution (and leaves running statistics as they are).
        x: images, (B, C, H, W), that show in which order the layers run; when left out, the order they were defined in.

    Yields:
        (name of the layer that was randomised last, the network), from the logits to the first layer.
        Layers that have not had their turn are bit for bit the trained ones.

    Raises:
        ValueError: a network without layers that can be drawn anew, or an unknown `redraw`.

    Source: Adebayo et al. 2018, section 3.1.
    """
    seed = check_count(seed, "seed", 0, 2**32 - 1)
    network = copied(check_model(model, held=True))
    for number, names in _steps(model, redraw, x):
        reinitialize_layers(network, names, seed=SEED_STEP * seed + number, redraw=redraw)
        yield names[0], copied(network)


def independent_randomization(
    model: nn.Module, *, seed: int = 0, redraw: Redraw = "initial", x: Tensor | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a network, each with one layer random and all others as trained.

    Args:
        model: as for `cascading_randomization`; it is left as it was found.
        seed: of the new weights: a layer gets the same ones as in the cascade of this seed.
        redraw: "initial" or "shuffled", as for `cascading_randomization`.
        x: as for `cascading_randomization`.

    Yields:
        (name of the random layer, the network), from the logits to the first layer.

    Raises:
        ValueError: a network without layers that can be drawn anew, or an unknown `redraw`.

    Source: Adebayo et al. 2018, section 3.2.
    """
    seed = check_count(seed, "seed", 0, 2**32 - 1)
    for number, names in _steps(model, redraw, x):
        network = copied(model)
        reinitialize_layers(network, names, seed=SEED_STEP * seed + number, redraw=redraw)
        yield names[0], network


def reinitialize_layers(network: nn.Module, names: list[str], *, seed: int, redraw: Redraw) -> None:
    """Give layers of a network new weights, in place.

    Args:
        network: is written into.
        names: of layers, as `randomizable_layers` gives them.
        seed: of the draw, which is made on the CPU: every device gets the same weights. The state of torch's
            generators is left alone.
        redraw: "initial" draws as torch initialises such a layer and resets running statistics; "shuffled" permutes
            the values within each parameter.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        for name in names:
            layer = network.get_submodule(name)
            fresh = copied(layer).cpu()
            if redraw == "initial":
                _reset(fresh)()  # ty: ignore[not-callable]  # randomizable_layers made sure of it
                if _is_same(fresh, layer):  # the network was made under this very seed, and never trained
                    _reset(fresh)()  # ty: ignore[not-callable]
            else:
                for weight in _weights(fresh):
                    order = torch.randperm(weight.numel(), device="cpu")
                    weight.data = weight.data.flatten()[order].view_as(weight)
            with torch.no_grad():  # its own alone: a layer may draw those of layers within it too
                for values, drawn in zip(_own(layer), _own(fresh), strict=True):
                    values.copy_(drawn)


def _own(layer: nn.Module) -> list[Tensor]:
    """The weights and buffers of a layer, without those of layers within it."""
    return [*_weights(layer), *layer.buffers(recurse=False)]


def _is_same(fresh: nn.Module, layer: nn.Module) -> bool:
    """Whether a layer that was drawn anew has a weight it had before; those that are always the same do not count."""
    pairs = zip(fresh.parameters(recurse=False), layer.parameters(recurse=False), strict=True)
    return any(torch.equal(new, old.cpu()) for new, old in pairs if (new != new.flatten()[0]).any())


def _steps(model: nn.Module, redraw: Redraw, x: Tensor | None) -> list[tuple[int, list[str]]]:
    """The number of each step's layer, from the first on, and the names to draw anew; the last layer comes first."""
    check_choice(redraw, "redraw", REDRAWS)
    steps = randomizable_layers(model, redraw, x)
    left = [name for name, module in model.named_modules() if not isinstance(module, NORMS) and _other_buffers(module)]
    if left:
        where = ", ".join(map(repr, left[:5]))
        said = f"buffers in {where} are left as they are: had they been learned, they would not be forgotten"
        warnings.warn(said, stacklevel=3)
    return list(enumerate(steps))[::-1]
