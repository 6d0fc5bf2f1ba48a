"""What a network says of an image from many fixations: label maps, and what can be read off them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import Target, check_count, check_images, check_size, check_target, check_tensor
from helpers.boxes import box_centers
from helpers.capture import check_logits, check_several, preserved, run, with_progress
from helpers.device import widened
from helpers.networks import Card
from helpers.retina._grid import check_fixations, check_inside, pixel_centers
from helpers.retina._views import check_card, sample_views

View = Callable[[Tensor, Tensor], Tensor]  # images (B, C, H, W), fixations (B, U, 2) -> (B, U, C, h, w)
ONE_LOGIT = "label_map(..., logits=True) gives the logits themselves"
BATCH_SIZE = 64  # views a forward pass: on CPUs larger ones are slower, for they leave the cache


def fixation_grid(n: int) -> Tensor:
    """n x n fixations spread evenly over an image, none on its border.

    Args:
        n: fixations a side, from 1 on; 1 is the centre alone.

    Returns:
        (n, n, 2) float32, x and y in (-1, 1), row by row from the top left.

    Raises:
        ValueError: n is not an integer of at least 1.
    Source: the released code (bicv/Retinotopy): `linspace(0, H, n + 2)[1:-1]`.
    """
    axis = torch.linspace(-1, 1, check_count(n, "n") + 2, dtype=torch.float32, device="cpu")[1:-1]
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)


def label_map(
    model: nn.Module,
    x: Tensor,
    fixations: int | Tensor = 7,
    view: View | None = None,
    batch_size: int = BATCH_SIZE,
    logits: bool = False,
) -> Tensor:
    """What a network says of images from each of many fixations: log p(k | x_u).

    Args:
        model: network that maps a view (B, C, h, w) to logits (B, K); left as it was found.
        x: images, (B, C, H, W), normalised as the network expects them.
        fixations: n for `fixation_grid(n)`, or (U, 2), or (B, U, 2), other ones for each image; in [-1, 1].
        view: what is seen from fixations, called as `view(x, fixations)`, for example `retina.log_polar` or
            `retina.cartesian`, which returns (B, U, C, h, w); None for one of the book's networks, whose card
            (`networks.Card`, the record of a trained network: view, size, classes ...) says what it is shown.
        batch_size: views that are computed at once: bounds the memory, whatever the number of images and fixations.
        logits: True returns the logits, without log-softmax.

    Returns:
        (B, n, n, K) for a number, (B, U, K) for a list: log-probabilities (log-softmax of the logits), or
        the logits.

    Raises:
        ValueError: bad images or fixations, a network without a card where `view` is None, a batch size below 1, or a
            network that gives no logits (B, K) or NaN.
    Source: Jérémie, Perrinet and Daucé, CCN 2025, section I.
    """
    check_images(x)
    points, sides = as_candidates(fixations, len(x))
    view, batch_size = resolve_view(view, model), check_count(batch_size, "batch_size")
    return unchecked_label_map(model, x, points, view, batch_size, logits).unflatten(1, sides)


def unchecked_label_map(
    model: nn.Module, x: Tensor, fixations: Tensor, view: View, batch_size: int, logits: bool = False
) -> Tensor:
    """`label_map` of arguments that were checked: fixations (B or 1, U, 2) on the CPU -> (B, U, K)."""
    fixations = fixations.double().expand(len(x), -1, -1)  # positions are computed in float64
    count = fixations.shape[1]
    parts = []
    with preserved(model), torch.no_grad():
        # Pairs of an image and a fixation, so that a pass is as large for 1 image as for 1,000.
        for pair in with_progress(torch.arange(len(x) * count, device="cpu").split(batch_size), "views"):
            images, fixation = x[(pair // count).to(x.device)], fixations.flatten(0, 1)[pair, None]  # (n, 1, 2)
            seen = view(images, fixation)[:, 0]
            scores = check_logits(run(model, seen), len(pair))
            parts.append(scores if logits else widened(check_several(scores, ONE_LOGIT)).log_softmax(1))
    log_p = torch.cat(parts)
    if bool(log_p.isnan().any()):
        raise ValueError("model must give logits that are numbers, got NaN")
    return log_p.unflatten(0, (len(x), count))


def likelihood_map(log_p: Tensor, target: Target) -> Tensor:
    """How likely a known label is from each fixation, read off a label map.

    Implements :eq:`eq-likelihood-map`: L*(u) = p(k* | x_u), chapter 6.

    Args:
        log_p: log-probabilities, (B, n, n, K) or (B, U, K), from `label_map`.
        target: the known label: an int, (B,), or (B, T) for T labels of every image.

    Returns:
        (B, n, n) or (B, T, n, n), probabilities; likewise (B, U) or (B, T, U).

    Raises:
        ValueError: a label map of another shape, or a target that does not fit it.
    Source: Jérémie, Perrinet and Daucé, CCN 2025, section III.
    """
    _check_label_map(log_p)
    labels, several = check_target(target, len(log_p), log_p.shape[-1])  # (B, T)
    flat = log_p.flatten(1, -2)  # (B, U, K)
    maps = flat.gather(2, labels.to(log_p.device)[:, None].expand(-1, flat.shape[1], -1)).exp()
    maps = maps.transpose(1, 2).unflatten(2, log_p.shape[1:-1])  # (B, T, ...)
    return maps if several else maps[:, 0]


def confidence_map(log_p: Tensor) -> Tensor:
    """How sure the network is of its own answer from each fixation: the map when no label is known.

    Implements :eq:`eq-confidence-map`: L(u) = max_k p(k | x_u), chapter 7. The source prints arg max, which is a label
    and no score.

    Args:
        log_p: log-probabilities, (B, n, n, K) or (B, U, K), from `label_map`.

    Returns:
        (B, n, n), or (B, U), probabilities.

    Raises:
        ValueError: a label map of another shape.
    Source: Jérémie, Perrinet and Daucé, CCN 2025, section III.
    """
    return _check_label_map(log_p).amax(-1).exp()


def spread_map(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Maps over a grid of fixations, enlarged to the size of the images.

    Bilinear between the fixations; beyond the outermost ones their values go on to the border.

    Args:
        maps: (B, n, n), one value a fixation of `fixation_grid(n)`.
        shape: of the images, (H, W).

    Returns:
        (B, H, W).

    Raises:
        ValueError: maps that are not (B, n, n), or a shape that is not two positive integers.
    """
    check_tensor(maps, "maps", "B n n", finite=False)
    if maps.shape[1] != maps.shape[2]:
        raise ValueError(f"maps must be (B, n, n), over a square grid of fixations, got {tuple(maps.shape)}")
    height, width = check_size(shape, "shape")
    outermost = (maps.shape[1] - 1) / (maps.shape[1] + 1)  # x of the outermost fixations; 0 for a single one
    y, x = (pixel_centers(n, device=maps.device) for n in (height, width))
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) / max(outermost, 1e-6)
    wide = widened(maps)[:, None]  # places in half precision are off by whole pixels
    points = points.clamp(-1, 1).to(wide.dtype).expand(len(maps), -1, -1, -1)
    spread = F.grid_sample(wide, points, mode="bilinear", padding_mode="border", align_corners=True)
    return spread[:, 0].to(maps.dtype)


def fixations_inside(boxes: Tensor, fixations: Tensor, shape: tuple[int, int]) -> Tensor:
    """Which fixations lie inside the box around each image's object.

    A box so small that it lies between all fixations gets one nevertheless: the nearest to its middle, in pixels.

    Args:
        boxes: (B, 4), x0, y0, x1, y1 in pixels, at the edges of the object; NaN for an image without one.
        fixations: (n, n, 2), as `fixation_grid` gives them, or (U, 2), the same for all images.
        shape: of the images, (H, W).

    Returns:
        (B, n, n), or (B, U), bool: True strictly inside. At least one True an image, but none for a box of NaN.

    Raises:
        ValueError: boxes or fixations of another shape, or a shape that is not two positive integers.
    """
    check_tensor(boxes, "boxes", "B 4", kind="real", finite=False)
    check_tensor(fixations, "fixations", "n n 2", "U 2", kind="real")
    height, width = check_size(shape, "shape")
    boxes = boxes.double() if boxes.device.type != "mps" else boxes.float()
    flat = fixations.reshape(-1, 2).to(boxes)
    pixels = (flat + 1) / 2 * flat.new_tensor([width, height])  # (U, 2)
    inside = ((pixels > boxes[:, None, :2]) & (pixels < boxes[:, None, 2:])).all(-1)  # (B, U)
    nearest = (pixels - box_centers(boxes)[:, None]).square().sum(-1).argmin(1)  # (B,)
    missed = ~inside.any(1) & ~boxes.isnan().any(1)
    inside[missed, nearest[missed]] = True
    return inside.unflatten(1, fixations.shape[:-1])


def accuracy_map(
    model: nn.Module,
    x: Tensor,
    target: Target,
    offsets: int | Tensor,
    places: Tensor | None = None,
    view: View | None = None,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """How often a network is right when it looks beside the object: the share of images, offset by offset.

    Args:
        model: as in `label_map`.
        x: images, (B, C, H, W).
        target: their labels, an int or (B,).
        offsets: of the fixation from the object, x and y in half the image's width and height: n for
            `fixation_grid(n)`, or (n, m, 2) or (U, 2). For `collicular_target` choose offsets one pixel apart, the
            middle one 0: x and y from `torch.arange(-27, 28) * 2 / side`, `side` being the images' in pixels.
        places: (B, 2), where the objects are, in [-1, 1]; None is the centre. Fixations beyond the edge are moved onto
            it.
        view: as in `label_map`.
        batch_size: as in `label_map`.

    Returns:
        (n, n), (n, m) or (U,), in [0, 1].

    Raises:
        ValueError: as `label_map`, or targets and places that do not fit the images.
    Source: Daucé, Albiges and Perrinet, Journal of Vision 20(8):22, 2020 (there 55 x 55 offsets of whole pixels).
    """
    check_images(x)
    labels = as_labels(target, len(x))  # (B,)
    offsets = offsets if isinstance(offsets, Tensor) else fixation_grid(check_count(offsets, "offsets"))
    check_tensor(offsets, "offsets", "n m 2", "U 2", kind="real")
    places = as_start(None, len(x)) if places is None else check_tensor(places, "places", f"{len(x)} 2", kind="real")
    view, batch_size = resolve_view(view, model), check_count(batch_size, "batch_size")
    fixations = places.double().cpu()[:, None] + offsets.double().cpu().reshape(1, -1, 2)  # (B, U, 2)
    answers = unchecked_label_map(model, x, fixations.clamp(-1, 1), view, batch_size).argmax(-1)  # (B, U)
    right = answers == labels.to(answers.device)[:, None]
    return right.double().mean(0).float().unflatten(0, offsets.shape[:-1])


def resolve_view(view: View | None, model: nn.Module) -> View:
    """A view, or that of one of the book's networks when None."""
    if view is not None:
        return view
    if not isinstance(getattr(model, "card", None), Card):
        hint = "such as retina.log_polar or retina.cartesian"
        way = "networks.adopt(model, mean, std, size, classes) gives it one"
        raise ValueError(f"view must be a function, {hint}, for a network without a card, got None; {way}")
    return partial(sample_views, card=check_card(model))


def as_candidates(fixations: int | Tensor, batch: int) -> tuple[Tensor, tuple[int, ...]]:
    """Fixations as (B or 1, U, 2), float64 on the CPU, and the sides of their grid: (n, n) for a number n, or (U,)."""
    if isinstance(fixations, Tensor):
        points = check_fixations(fixations, batch)
        return points, (points.shape[1],)
    n = check_count(fixations, "fixations")
    return check_fixations(fixation_grid(n).flatten(0, 1), batch), (n, n)


def as_start(start: Tensor | None, batch: int) -> Tensor:
    """The first fixation of each image, (B, 2), float32 on the CPU, of one for all (2,), (B, 2) or None, the centre."""
    if start is None:
        return torch.zeros(batch, 2, dtype=torch.float32, device="cpu")
    check_tensor(start, "start", "2", f"{batch} 2", kind="real")
    return check_inside(start, "start").float().cpu().expand(batch, 2)


def as_labels(target: Target, batch: int, classes: int | None = None) -> Tensor:
    """One label an image, (B,) int64; ValueError unless the target is an int or (B,)."""
    labels, several = check_target(target, batch, classes)
    if several:
        raise ValueError(f"target must be an int or ({batch},), got {tuple(labels.shape)}")
    return labels[:, 0]


def _check_label_map(log_p: Any) -> Tensor:
    """Return a label map unchanged; ValueError unless it is (B, U, K) or (B, n, m, K) of logarithms up to 0."""
    check_tensor(log_p, "log_p", "B U K", "B n m K", finite=False)
    if not bool((log_p <= 0).all()):  # NaN too
        raise ValueError(f"log_p must be log-probabilities, at most 0, got {log_p.max().item():.4g}")
    return log_p
