"""The model parameter randomisation test."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import Target, check_choice, check_count, check_images, check_target, check_tensor, seeded
from helpers.capture import top_classes
from helpers.metrics import edge_map, map_similarity
from helpers.sanity._randomization import (
    REDRAWS,
    Redraw,
    cascading_randomization,
    independent_randomization,
    randomizable_layers,
)

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]
ORDERS = {"cascading": cascading_randomization, "independent": independent_randomization}
LEAST_SIDE = 3  # of a map, in places


class SanityCheck(NamedTuple):
    """What `sanity_check` returns; L layers, B images.

    Attributes:
        layers: the layer that was randomised last (cascading) or alone (independent), in the order of the steps.
        similarity: measure -> (L, B), of each step's maps with those of the network as given; NaN for constant maps,
            which have none: `means()` leaves them out, `undefined()` counts them.
        baselines: "edges", "permuted" and, for two images and more, "another image" -> measure -> (B,): how similar
            the given network's maps are to the edges of the images, to themselves with their places permuted, and to
            the map of the next image. Maps that share nothing are about as similar: no method need come lower.
        maps: (L + 1, B, h, w), those of the network as given first.
    """

    layers: tuple[str, ...]
    similarity: dict[str, Tensor]
    baselines: dict[str, dict[str, Tensor]]
    maps: Tensor

    def means(self) -> dict[str, Tensor]:
        """Measure -> (L,), the mean similarity over the images where there is one; NaN where there is none."""
        return {measure: rows.nanmean(1) for measure, rows in self.similarity.items()}

    def undefined(self) -> dict[str, Tensor]:
        """Measure -> (L,) int64, in how many images there is none: a constant map has no correlation with another.

        A random network that ends in a ReLU may give logits of 0, and so maps of 0.
        """
        return {measure: rows.isnan().sum(1) for measure, rows in self.similarity.items()}


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
        target: class index, or (B,) indices; None for each image's top class.
        order: "cascading" forgets from the top down, "independent" one layer at a time.
        seed: of the random weights, and of the permuted maps.
        redraw: "initial" or "shuffled", as for `cascading_randomization`.

    Returns:
        Similarities (L, B), baselines (B,) and maps (L + 1, B, h, w).

    Raises:
        ValueError: bad `x`, `target`, `order`, `seed` or `redraw`, or a method that does not give (B, h, w) maps.

    Source: Adebayo et al. 2018, section 3.
    """
    randomization = ORDERS[check_choice(order, "order", ORDERS)]
    seed = check_count(seed, "seed", 0, 2**32 - 1)
    check_choice(redraw, "redraw", REDRAWS)
    randomizable_layers(model, redraw, x)  # raises before any map is computed
    target = top_classes(model, x) if target is None else target
    classes, several = check_target(target, len(check_images(x)))
    if several:
        raise ValueError(f"target must be an int or (B,), one class an image, got shape {tuple(classes.shape)}")
    classes = classes[:, 0].to(x.device)  # (B,)
    trained = _maps(method, model, x, classes)
    networks = randomization(model, seed=seed, redraw=redraw, x=x)
    layers, maps = zip(*((name, _maps(method, network, x, classes)) for name, network in networks), strict=True)
    shapes = {tuple(step.shape) for step in (trained, *maps)}
    if len(shapes) > 1:
        raise ValueError(f"method must give maps of one shape, got {sorted(shapes)}")
    rows = [map_similarity(trained, step) for step in maps]
    return SanityCheck(
        layers,
        {measure: torch.stack([row[measure] for row in rows]) for measure in rows[0]},
        _baselines(trained, x, seed),
        torch.stack([trained, *maps]),
    )


def _maps(method: Method, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """What a method gives, if it is maps (B, h, w) that can be compared: `ssim` looks at 3 x 3 places at least."""
    maps = check_tensor(method(model, x, target), "method(model, x, target)", f"{len(x)} h w")
    if min(maps.shape[1:]) < LEAST_SIDE:
        raise ValueError(f"method must give maps with sides of at least {LEAST_SIDE}, got {tuple(maps.shape)}")
    return maps.detach()


def _baselines(maps: Tensor, x: Tensor, seed: int) -> dict[str, dict[str, Tensor]]:
    """Similarity of maps (B, h, w) with what knows nothing of the network."""
    edges = F.interpolate(edge_map(x)[:, None], size=maps.shape[1:], mode="area")[:, 0].to(maps)
    draw = seeded(seed)
    order = torch.rand(maps.shape, generator=draw, dtype=torch.float32, device="cpu").flatten(1).argsort(1)
    permuted = maps.flatten(1).gather(1, order.to(maps.device)).view_as(maps)
    others = {"edges": edges, "permuted": permuted} | ({"another image": maps.roll(-1, 0)} if len(maps) > 1 else {})
    return {name: map_similarity(maps, other) for name, other in others.items()}
