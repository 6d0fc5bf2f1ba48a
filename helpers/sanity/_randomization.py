"""Networks that forget: copies in which one layer after the other gets new weights."""

import copy
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from helpers._validate import check_choice, check_count, check_model

Redraw = Literal["initial", "shuffled"]
REDRAWS = ("initial", "shuffled")
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
SEED_STEP = 1_000_003  # between two seeds: more than any network has layers, so that no two draws share a seed


def randomizable_layers(model: nn.Module, redraw: Redraw = "initial") -> list[list[str]]:
    """The layers with weights, in the order they were defined in, each with the normalisations that follow it.

    Args:
        model: any network whose layers with weights can draw them anew (`reset_parameters`); for "shuffled" any at all.
        redraw: "initial" or "shuffled", as for `cascading_randomization`.

    Returns:
        Names, a list a step; the first name of each is the layer's.

    Raises:
        ValueError: a network without such layers, with parameters outside of them, or with layers that share weights.
    """
    layers = [(name, module) for name, module in check_model(model, held=True).named_modules() if _holds_values(module)]
    unknown = [name or type(module).__name__ for name, module in layers if not _can_be_redrawn(module)]
    if unknown and redraw == "initial":
        raise ValueError(
            f"model must not have parameters that cannot be drawn anew, got some in {', '.join(unknown[:5])}; "
            'redraw="shuffled" needs no such way'
        )
    parameters = [id(parameter) for _, module in layers for parameter in module.parameters(recurse=False)]
    if len(set(parameters)) < len(parameters):
        raise ValueError("model must have layers with weights of their own, got some that share theirs")
    if not layers:
        raise ValueError("model must have layers with weights, got none")
    # A step begins at each layer that is no normalisation.
    starts = [i for i, (_, module) in enumerate(layers) if i == 0 or not isinstance(module, NORMS)]
    return [[name for name, _ in layers[i:j]] for i, j in zip(starts, [*starts[1:], None], strict=True)]


def _holds_values(module: nn.Module) -> bool:
    """Whether a module has parameters of its own, as containers may too, or a normalisation's running statistics."""
    has_buffers = next(module.buffers(recurse=False), None) is not None
    return next(module.parameters(recurse=False), None) is not None or (isinstance(module, NORMS) and has_buffers)


def _can_be_redrawn(module: nn.Module) -> bool:
    """Whether a layer has a way to draw all that it learned, seen on a copy whose parameters were made unusable first.

    Weight and spectral normalisation of old keep what is learned (weight_g, weight_orig ...) beside the weight that
    would be drawn.
    """
    probe = copied(module)
    reset = _reset(probe)
    if reset is None:
        return False
    with torch.no_grad():
        for parameter in probe.parameters(recurse=False):
            parameter.fill_(torch.nan if parameter.is_floating_point() else 0)
    with torch.random.fork_rng(devices=[]):
        try:
            reset()
        except Exception:  # whatever it is, it comes again when it is the layer's turn
            return True
    return not any(parameter.isnan().any() for parameter in probe.parameters(recurse=False))


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
    model: nn.Module, *, seed: int = 0, redraw: Redraw = "initial"
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a network that forgets from the top down: the last layer random, the last two, ... all of them.

    Args:
        model: any network whose layers with weights have `reset_parameters` (for "shuffled" any at all); it is left as
            it was found. Normalisations are reset together with the layer before them, their running statistics too.
        seed: of the new weights; the same on every device. The state of torch's generators is left alone.
        redraw: "initial" draws weights as torch initialises such a layer; "shuffled" permutes the trained ones within
            each tensor, which keeps their distribution (and leaves running statistics as they are).

    Yields:
        (name of the layer that was randomised last, the network), from the logits to the first layer, in the order
        opposite to the one they were defined in. Layers that have not had their turn are bit for bit the trained ones.

    Raises:
        ValueError: a network without layers that can be drawn anew, or an unknown `redraw`.

    Source: Adebayo et al. 2018, section 3.1.
    """
    seed = check_count(seed, "seed", 0, 2**32 - 1)
    network = copied(check_model(model, held=True))
    for number, names in _steps(model, redraw):
        reinitialize_layers(network, names, seed=SEED_STEP * seed + number, redraw=redraw)
        yield names[0], copied(network)


def independent_randomization(
    model: nn.Module, *, seed: int = 0, redraw: Redraw = "initial"
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a network, each with one layer random and all others as trained.

    Args:
        model: as for `cascading_randomization`; it is left as it was found.
        seed: of the new weights: a layer gets the same ones as in the cascade of this seed.
        redraw: "initial" or "shuffled", as for `cascading_randomization`.

    Yields:
        (name of the random layer, the network), from the logits to the first layer.

    Raises:
        ValueError: a network without layers that can be drawn anew, or an unknown `redraw`.

    Source: Adebayo et al. 2018, section 3.2.
    """
    seed = check_count(seed, "seed", 0, 2**32 - 1)
    for number, names in _steps(model, redraw):
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
                for parameter in fresh.parameters(recurse=False):
                    order = torch.randperm(parameter.numel(), device="cpu")
                    parameter.data = parameter.data.flatten()[order].view_as(parameter)
            with torch.no_grad():  # its own alone: a layer may draw those of layers within it too
                for values, drawn in zip(_own(layer), _own(fresh), strict=True):
                    values.copy_(drawn)


def _own(layer: nn.Module) -> list[Tensor]:
    """The parameters and buffers of a layer, without those of layers within it."""
    return [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]


def _is_same(fresh: nn.Module, layer: nn.Module) -> bool:
    """Whether a layer that was drawn anew has a weight it had before; those that are always the same do not count."""
    pairs = zip(fresh.parameters(recurse=False), layer.parameters(recurse=False), strict=True)
    return any(torch.equal(new, old.cpu()) for new, old in pairs if new.unique().numel() > 1)


def _steps(model: nn.Module, redraw: Redraw) -> list[tuple[int, list[str]]]:
    """The number of each step's layer, from the first on, and the names to draw anew; the last layer comes first."""
    check_choice(redraw, "redraw", REDRAWS)
    return list(enumerate(randomizable_layers(model, redraw)))[::-1]
