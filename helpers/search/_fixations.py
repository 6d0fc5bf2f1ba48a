"""What a network says of an image from many fixations: label maps, and what can be read off them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import retina
from helpers._validate import Target, check_count, check_images, check_target
from helpers.capture import preserved
from helpers.retina._grid import check_fixations, check_size

View = Callable[[Tensor, Tensor | None], Tensor]  # images, fixations -> (B, U, C, h, w)
CHUNK = 64  # views a forward pass: on CPUs larger ones are slower, for they leave the cache


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
    axis = torch.linspace(-1, 1, check_count(n, "n") + 2)[1:-1]
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)


def label_map(
    model: nn.Module,
    x: Tensor,
    fixations: int | Tensor = 7,
    view: View | None = None,
    batch_size: int = CHUNK,
    logits: bool = False,
) -> Tensor:
    """What a network says of images from each of many fixations: log p(k | x_u).

    Args:
        model: network that maps a view (B, C, h, w) to logits (B, K); left as it was found.
        x: images, (B, C, H, W), normalised as the network expects them.
        fixations: n for `fixation_grid(n)`, or (U, 2), or (B, U, 2), other ones for each image; in [-1, 1].
        view: what is seen from fixations, called as `view(images, fixations)`, for example `retina.log_polar` or
            `retina.cartesian`, which returns (B, U, C, h, w); None for one of the book's networks, which know their
            own (`retina.viewer`).
        batch_size: views that are computed at once: bounds the memory, whatever the number of images and fixations.
        logits: return these as they are.

    Returns:
        (B, n, n, K) for a number, (B, U, K) for a list: log-probabilities (log-softmax of the logits).

    Raises:
        ValueError: bad images or fixations, a network without a card where `view` is None, or a chunk below 1.
    Source: Jérémie, Perrinet and Daucé, CCN 2025, section I.
    """
    check_images(x)
    check_count(batch_size, "batch_size")
    view = retina.viewer(model) if view is None else view
    grid = fixation_grid(fixations) if isinstance(fixations, int) and not isinstance(fixations, bool) else None
    at = check_fixations(x, fixations if grid is None else grid.flatten(0, 1))
    at = at.expand(len(x), -1, -1)  # (B, U, 2)
    count = at.shape[1]
    found = []
    with preserved(model), torch.no_grad():
        # Pairs of an image and a fixation, so that a pass is as large for 1 image as for 1,000.
        for pairs in torch.arange(len(x) * count).split(batch_size):
            images, one = pairs // count, at.flatten(0, 1)[pairs, None]  # (n,), (n, 1, 2)
            scores = model(view(x[images.to(x.device)], one)[:, 0])
            if scores.ndim != 2 or len(scores) != len(pairs):
                raise ValueError(f"model must map (B, C, h, w) to logits (B, K), got {tuple(scores.shape)}")
            found.append(scores if logits else scores.log_softmax(1))
    labels = torch.cat(found).unflatten(0, (len(x), count))
    return labels if grid is None else labels.unflatten(1, grid.shape[:2])


def likelihood_map(labels: Tensor, target: Target) -> Tensor:
    """How likely a known label is from each fixation, read off a label map.

    Implements :eq:`eq-likelihood-map`: L*(u) = p(k* | x_u), chapter 6.

    Args:
        labels: (B, n, n, K), or (B, U, K), from `label_map`.
        target: the known label: an int, (B,), or (B, T) for T labels of every image.

    Returns:
        (B, n, n) or (B, T, n, n), probabilities; likewise (B, U) or (B, T, U).

    Raises:
        ValueError: labels of another shape, or a target that does not fit them.
    Source: Jérémie, Perrinet and Daucé, CCN 2025, section III.
    """
    _check_labels(labels)
    wanted, several = check_target(target, len(labels), labels.shape[-1])
    flat = labels.flatten(1, -2)  # (B, U, K)
    found = flat.gather(2, wanted.to(labels.device)[:, None].expand(-1, flat.shape[1], -1)).exp()
    found = found.transpose(1, 2).unflatten(2, labels.shape[1:-1])  # (B, T, ...)
    return found if several else found[:, 0]


def confidence_map(labels: Tensor) -> Tensor:
    """How sure the network is of its own answer from each fixation: the map when no label is known.

    Implements :eq:`eq-confidence-map`: L(u) = max_k p(k | x_u), chapter 7. The source prints arg max, which is a label
    and no score.

    Args:
        labels: (B, n, n, K), or (B, U, K), from `label_map`.

    Returns:
        (B, n, n), or (B, U), probabilities.

    Raises:
        ValueError: labels of another shape.
    Source: Jérémie, Perrinet and Daucé, CCN 2025, section III.
    """
    return _check_labels(labels).amax(-1).exp()


def spread_map(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """A map over a grid of fixations as large as the image: bilinear between them, the outermost ones' values beyond.

    Args:
        maps: (B, n, n), one value a fixation of `fixation_grid(n)`.
        shape: of the images, (H, W).

    Returns:
        (B, H, W).

    Raises:
        ValueError: maps that are not (B, n, n), or a shape that is not two integers of at least 2.
    """
    if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.shape[1] != maps.shape[2] or maps.numel() == 0:
        raise ValueError(f"maps must be a non-empty (B, n, n), got {getattr(maps, 'shape', maps)}")
    height, width = check_size("shape", shape, "(height, width)")
    reach = (maps.shape[1] - 1) / (maps.shape[1] + 1)  # of the outermost fixations; 0 for a single one
    y, x = ((torch.arange(n, device=maps.device) * 2 + 1) / n - 1 for n in (height, width))
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) / max(reach, 1e-6)
    places = places.clamp(-1, 1).to(maps.dtype).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps[:, None], places, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]


def fixations_inside(boxes: Tensor, fixations: Tensor, shape: tuple[int, int]) -> Tensor:
    """Which fixations lie on an object; of a box that lies between all of them, the one nearest to its middle.

    Args:
        boxes: (B, 4), x0, y0, x1, y1 in pixel edges; NaN where there is none.
        fixations: (n, n, 2), as `fixation_grid` gives them, or (U, 2).
        shape: of the images, (H, W).

    Returns:
        (B, n, n), or (B, U), bool; none for a box of NaN.

    Raises:
        ValueError: shapes that do not go together.
    """
    if not isinstance(boxes, Tensor) or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (B, 4), got {tuple(boxes.shape) if isinstance(boxes, Tensor) else boxes!r}")
    if not isinstance(fixations, Tensor) or fixations.ndim not in (2, 3) or fixations.shape[-1] != 2:
        raise ValueError(f"fixations must be (n, n, 2) or (U, 2), got {getattr(fixations, 'shape', fixations)}")
    height, width = shape
    boxes = boxes if boxes.is_floating_point() else boxes.double()
    flat = fixations.reshape(-1, 2).to(boxes)
    at = (flat + 1) / 2 * flat.new_tensor([width, height])  # (U, 2) pixels
    inside = ((at > boxes[:, None, :2]) & (at < boxes[:, None, 2:])).all(-1)  # (B, U)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = (at - middle[:, None]).square().sum(-1).argmin(1)  # (B,)
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
    batch_size: int = CHUNK,
) -> Tensor:
    """How often a network is right when it looks beside the object: the share of images, place by place.

    Args:
        model: as in `label_map`.
        x: images, (B, C, H, W).
        target: their labels, an int or (B,).
        offsets: of the fixation from the object: n for `fixation_grid(n)`, or (n, m, 2) or (U, 2), in half images.
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
    wanted, several = check_target(target, len(x))
    if several:
        raise ValueError(f"target must be an int or ({len(x)},), got {tuple(wanted.shape)}")
    grid = fixation_grid(offsets) if isinstance(offsets, int) else offsets
    if not isinstance(grid, Tensor) or grid.ndim not in (2, 3) or grid.shape[-1] != 2:
        raise ValueError(f"offsets must be an integer, (n, m, 2) or (U, 2), got {getattr(grid, 'shape', grid)}")
    middle = torch.zeros(len(x), 2) if places is None else places
    if not isinstance(middle, Tensor) or middle.shape != (len(x), 2):
        raise ValueError(f"places must be ({len(x)}, 2), got {getattr(middle, 'shape', middle)}")
    at = (middle.double().cpu()[:, None] + grid.double().cpu().reshape(1, -1, 2)).clamp(-1, 1)
    answer = label_map(model, x, at, view, batch_size).argmax(-1)  # (B, U)
    return (answer == wanted.to(answer.device)).double().mean(0).float().unflatten(0, grid.shape[:-1])


def _check_labels(labels: Tensor) -> Tensor:
    """A label map; ValueError unless (B, U, K) or (B, n, m, K)."""
    if not isinstance(labels, Tensor) or labels.ndim not in (3, 4) or labels.numel() == 0:
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"labels must be (B, n, n, K) or (B, U, K), from label_map, got {got}")
    if not labels.is_floating_point() or bool((labels > 0).any()) or bool(labels.isnan().any()):
        raise ValueError("labels must be log-probabilities, at most 0")
    return labels
