"""Networks that forget: copies in which one layer after the other gets new weights."""

import copy
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

from helpers._validate import check_choice

Redraw = Literal["initial", "shuffled"]
REDRAWS = ("initial", "shuffled")
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
SEED_STEP = 1_000_003  # between two seeds: more than any network has layers, so that no two draws share a seed


def randomizable_layers(model: nn.Module) -> list[list[str]]:
    """The layers with weights, in the order they were defined in, each with the normalisations that follow it.

    Args:
        model: any network whose layers with weights can draw them anew (`reset_parameters`).

    Returns:
        Names, a list a step; the first name of each is the layer's.

    Raises:
        ValueError: a network without such layers, with parameters outside of them, or with layers that share weights.
    """
    layers = [(name, module) for name, module in model.named_modules() if _holds_values(module)]
    if unknown := [name or type(module).__name__ for name, module in layers if not _can_be_redrawn(module)]:
        raise ValueError(
            f"model must not have parameters that cannot be drawn anew, got some in {', '.join(unknown[:5])}"
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
    """Whether `reset_parameters` draws all that was learned.

    `nn.utils.spectral_norm` keeps the weight that is learned, weight_orig, beside the one that would be drawn.
    """
    names = [name for name, _ in module.named_parameters(recurse=False)]
    return hasattr(module, "reset_parameters") and not any(name.endswith("_orig") for name in names)


def cascading_randomization(
    model: nn.Module, *, seed: int = 0, redraw: Redraw = "initial"
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a network that forgets from the top down: the last layer random, the last two, ... all of them.

    Args:
        model: any network whose layers with weights have `reset_parameters`; it is left as it was found. Normalisations
            are reset together with the layer before them, their running statistics too.
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
    network = copy.deepcopy(model)
    for number, names in _steps(model, redraw):
        reinitialize_layers(network, names, seed=SEED_STEP * seed + number, redraw=redraw)
        yield names[0], copy.deepcopy(network)


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
    for number, names in _steps(model, redraw):
        network = copy.deepcopy(model)
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
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        for name in names:
            layer = network.get_submodule(name)
            fresh = copy.deepcopy(layer).cpu()
            if redraw == "initial":
                fresh.reset_parameters()  # ty: ignore[not-callable]  # randomizable_layers made sure of it
            else:
                for parameter in fresh.parameters(recurse=False):
                    order = torch.randperm(parameter.numel())
                    parameter.data = parameter.data.flatten()[order].view_as(parameter)
            layer.load_state_dict(fresh.state_dict())


def _steps(model: nn.Module, redraw: Redraw) -> list[tuple[int, list[str]]]:
    """The number of each step's layer, from the first on, and the names to draw anew; the last layer comes first."""
    check_choice(redraw, "redraw", REDRAWS)
    return list(enumerate(randomizable_layers(model)))[::-1]
