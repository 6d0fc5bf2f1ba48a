"""Does a map depend on what the network learned? Compare it with the maps of networks that have forgotten.

One call::

    found = sanity_check(saliency.class_saliency, model, x, target)
    found.similarity["spearman_abs"]  # (layers, B): to the trained network's map, after each layer more is random

By hand::

    for name, forgotten in cascading_randomization(model):  # "fc", then "conv4" as well, ... down to the first layer
        map_similarity(method(model, x, target), method(forgotten, x, target))["spearman_abs"]

Source: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import Target, check_images, check_target
from helpers.metrics import edge_map, map_similarity
from helpers.metrics._masks import check_maps
from helpers.training import fit

__all__ = [
    "SanityCheck",
    "cascading_randomization",
    "independent_randomization",
    "map_similarity",
    "permuted_label_network",
    "permuted_labels",
    "randomizable_layers",
    "sanity_check",
]
Method = Callable[[nn.Module, Tensor, Tensor], Tensor]
Redraw = Literal["initial", "shuffled"]
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class SanityCheck(NamedTuple):
    """What `sanity_check` returns; L layers, B images.

    Attributes:
        layers: the layer that was randomised last (cascading) or alone (independent), in the order of the steps.
        similarity: measure -> (L, B), of each step's maps with those of the network as given.
        baselines: "edges", "permuted" and, for two images and more, "another image" -> measure -> (B,): how similar
            the given network's maps are to the edges of the images, to themselves with their places permuted, and to
            the map of the next image. A method that has forgotten everything need not come lower than these.
        maps: (L + 1, B, h, w), those of the network as given first.
    """

    layers: tuple[str, ...]
    similarity: dict[str, Tensor]
    baselines: dict[str, dict[str, Tensor]]
    maps: Tensor


def randomizable_layers(model: nn.Module) -> list[list[str]]:
    """The layers with weights, in the order they were defined in, each with the normalisations that follow it.

    Args:
        model: any network whose layers with weights can draw them anew (`reset_parameters`).

    Returns:
        Names, a list a step; the first name of each is the layer's.

    Raises:
        ValueError: a network without such layers, or parameters outside of them.
    """
    # A module's own parameters: containers may hold some too, which nothing here could draw anew.
    own = [
        (name, m)
        for name, m in model.named_modules()
        if next(m.parameters(recurse=False), None) is not None
        or (isinstance(m, NORMS) and next(m.buffers(recurse=False), None) is not None)
    ]
    # Spectral normalisation of old keeps the weight that is learned beside the one that is drawn.
    unknown = [
        name or type(m).__name__
        for name, m in own
        if not hasattr(m, "reset_parameters")
        or any(one.endswith("_orig") for one, _ in m.named_parameters(recurse=False))
    ]
    if unknown:
        raise ValueError(f"model has parameters that cannot be drawn anew, in {', '.join(unknown[:5])}")
    each = [id(parameter) for _, m in own for parameter in m.parameters(recurse=False)]
    if len(set(each)) < len(each):
        raise ValueError("model must have layers with weights of their own, in this one some share theirs")
    if not own:
        raise ValueError("model must have layers with weights, this one has none")
    starts = [i for i, (_, module) in enumerate(own) if i == 0 or not isinstance(module, NORMS)]
    return [[name for name, _ in own[i:j]] for i, j in zip(starts, [*starts[1:], None], strict=True)]


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
    for number, names in reversed(list(enumerate(_steps(model, redraw)))):
        reinitialize_layers(network, names, seed, number, redraw)
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
    for number, names in reversed(list(enumerate(_steps(model, redraw)))):
        network = copy.deepcopy(model)
        reinitialize_layers(network, names, seed, number, redraw)
        yield names[0], network


def _steps(model: nn.Module, redraw: Redraw) -> list[list[str]]:
    if redraw not in ("initial", "shuffled"):
        raise ValueError(f'redraw must be "initial" or "shuffled", got {redraw!r}')
    return randomizable_layers(model)


def reinitialize_layers(network: nn.Module, names: list[str], seed: int, number: int, redraw: Redraw) -> None:
    """Give layers new weights, in place; drawn on the CPU, so that every device gets the same."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed * 1_000_003 + number)  # torch.manual_seed would seed GPUs too
        for name in names:
            module = network.get_submodule(name)
            fresh = copy.deepcopy(module).cpu()
            if redraw == "initial":
                fresh.reset_parameters()
            else:
                for value in fresh.parameters(recurse=False):
                    value.data = value.data.flatten()[torch.randperm(value.numel())].view_as(value)
            module.load_state_dict(fresh.state_dict())


def sanity_check(
    method: Method,
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    order: Literal["cascading", "independent"] = "cascading",
    seed: int = 0,
    redraw: Redraw = "initial",
) -> SanityCheck:
    """The model parameter randomisation test: do the maps change when the network forgets?

    The classes stay those that are given, whatever the random networks would say.

    Args:
        method: called as `method(model, x, target)`; gives maps (B, h, w), raw and signed. Of a method that keeps its
            colours give a reduction: `lambda m, x, c: gradient_times_input(m, x, c).sum(-3)`.
        model: any network that `cascading_randomization` takes; it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, or (B,) indices.
        order: "cascading" forgets from the top down, "independent" one layer at a time.
        seed: of the random weights, and of the permuted maps.
        redraw: "initial" or "shuffled", as for `cascading_randomization`.

    Returns:
        Similarities (L, B), baselines (B,) and maps (L + 1, B, h, w).

    Raises:
        ValueError: bad `x`, `target`, `order`, `seed` or `redraw`, or a method that does not give (B, h, w) maps.

    Source: Adebayo et al. 2018, section 3.
    """
    orders = {"cascading": cascading_randomization, "independent": independent_randomization}
    if order not in orders:
        raise ValueError(f'order must be "cascading" or "independent", got {order!r}')
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer in 0 .. 2**32 - 1, got {seed!r}")
    _steps(model, redraw)
    wanted, several = check_target(target, len(check_images(x)))
    if several:
        raise ValueError(f"target must be an int or (B,), one class an image, got shape {tuple(wanted.shape)}")
    wanted = wanted[:, 0].to(x.device)
    given = _maps(method, model, x, wanted)
    steps = [
        (name, _maps(method, network, x, wanted)) for name, network in orders[order](model, seed=seed, redraw=redraw)
    ]
    names, maps = zip(*steps, strict=True)
    if any(one.shape != given.shape for one in maps):
        raise ValueError(f"method must give maps of one shape, got {sorted({tuple(one.shape) for one in maps})}")
    rows = [map_similarity(given, one) for one in maps]
    return SanityCheck(
        names,
        {measure: torch.stack([row[measure] for row in rows]) for measure in rows[0]},
        _baselines(given, x, seed),
        torch.stack([given, *maps]),
    )


def _maps(method: Method, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    found = method(model, x, target)
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if not isinstance(found, Tensor) or found.ndim != 3 or len(found) != len(x):
        raise ValueError(f"method must give maps (B, h, w) with B = {len(x)}, got {shape}")
    check_maps(found, "the maps of method")
    if min(found.shape[1:]) < 3:
        raise ValueError(f"method must give maps with sides of at least 3, got {shape}")
    return found.detach()


def _baselines(maps: Tensor, x: Tensor, seed: int) -> dict[str, dict[str, Tensor]]:
    """Similarity of maps (B, h, w) with what knows nothing of the network."""
    edges = F.interpolate(edge_map(x)[:, None], size=maps.shape[1:], mode="area")[:, 0].to(maps)
    order = torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed)).flatten(1).argsort(1)
    permuted = maps.flatten(1).gather(1, order.to(maps.device)).view_as(maps)
    others = {"edges": edges, "permuted": permuted} | ({"another image": maps.roll(-1, 0)} if len(maps) > 1 else {})
    return {name: map_similarity(maps, other) for name, other in others.items()}


def permuted_labels(labels: Tensor, seed: int = 0) -> Tensor:
    """The same labels in another order: how often each class occurs stays, what it has to do with an image goes.

    Args:
        labels: (N,).
        seed: of the order; the same on every device.

    Returns:
        (N,).
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return labels[order.to(labels.device)]


def permuted_label_network(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    """The data randomisation test's network: of the same build, trained from scratch on permuted labels.

    It can only learn its images by heart. A map that explains what was learned must differ from the one of a network
    that was trained on the true labels.

    Args:
        model: a network whose layers with weights have `reset_parameters`; it is left as it was found.
        x: training images, (N, C, H, W), normalised as the network expects.
        labels: (N,) int64, the true labels.
        epochs: passes over the images; learning by heart takes many.
        lr: Adam's learning rate.
        seed: of the permutation, the new weights and the order of the images.
        progress: show a progress bar.

    Returns:
        The network, in evaluation mode, on the device of `model`. `helpers.training.accuracy` with
        `permuted_labels(labels, seed)` tells how much of it was learned.

    Raises:
        ValueError: a network that cannot be drawn anew, or what `helpers.training.fit` refuses.

    Source: Adebayo et al. 2018, section 3.3.
    """
    *_, (_, network) = cascading_randomization(model, seed=seed)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    fit(network, x, permuted_labels(labels, seed), epochs=epochs, lr=lr, seed=seed, progress=progress)
    return network.eval()
