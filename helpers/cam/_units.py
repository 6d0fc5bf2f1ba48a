"""Single feature maps ("units") of the last layer: which of them a class reads, and what excites them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helpers._validate import as_tensor, check_classes, check_count, check_images, check_tensor
from helpers.cam._head import output_weights
from helpers.capture import Layer, activations, check_feature_maps, single_layer


class Units(NamedTuple):
    """The units that a class weighs most."""

    units: Tensor  # (k,) int64, indices of feature maps, the largest weight first; (K, k) for K classes
    weights: Tensor  # like units: w_k^c


class Crops(NamedTuple):
    """The patches that excite units most."""

    patches: Tensor  # (U, n, C, side, side), the strongest first
    images: Tensor  # (U, n) int64, the index of the image each is from
    corners: Tensor  # (U, n, 2) int64, row and column of its upper left pixel
    values: Tensor  # (U, n), the unit's activation there


def class_specific_units(
    model: nn.Module, target: int | Sequence[int] | Tensor, k: int = 5, *, x: Tensor | None = None
) -> Units:
    """The feature maps that speak most for a class, by their weight in the layer that gives the logits.

    Which layer that is, is seen in a forward: a linear one, or a 1 x 1 convolution before or behind a global average.

    Args:
        model: network whose last layer reads one number a unit, feature map or not; it is left as it was found.
        target: class index, or (K,) indices.
        k: how many units.
        x: images to look on with, (B, C, H, W); when left out, noise of the size on the network's card, or of usual
            sizes.

    Returns:
        `Units`, the largest weight first.

    Raises:
        ValueError: logits that are not what such a layer gave, a class out of range, or k outside 1 .. number of units.

    Source: Zhou et al., CVPR 2016, section 5.
    """
    weight = output_weights(model, x)  # (classes, C)
    k = check_count(k, "k", high=weight.shape[1])
    classes, several = check_classes(target, len(weight))
    top = weight[classes.to(weight.device)].topk(k, dim=1)
    return Units(top.indices, top.values) if several else Units(top.indices[0], top.values[0])


def receptive_field_crop(
    model: nn.Module,
    x: Tensor,
    units: Sequence[int] | Tensor,
    side: int,
    n: int = 5,
    *,
    layer: Layer,
    batch_size: int = 100,
) -> Crops:
    """The image patches that excite units of a layer most, one patch an image at most.

    A patch is a square around the place where the unit's map has its maximum, moved inside the image where it would
    reach beyond the border. The map's cells are taken to lie evenly over the image, as they do where every layer
    keeps the size or divides it evenly.

    Args:
        model: any network; it is left as it was found.
        x: images, (N, C, H, W), normalised as the network expects; patches are cut from them.
        units: indices of feature maps of the layer, (U,).
        side: of the patches, in pixels: choose the receptive field's, which `basics.receptive_fields` gives.
        n: patches a unit.
        layer: a layer with feature maps (B, C, h, w), by name or the module itself.
        batch_size: images a pass.

    Returns:
        `Crops`, the strongest first.

    Raises:
        ValueError: bad `x`; a layer that is unknown or has no feature maps; a unit out of range; side larger than
            the images, or n than their number.

    Source: Zhou et al., "Object detectors emerge in deep scene CNNs", ICLR 2015; CVPR 2016, section 5.
    """
    layer = single_layer(model, layer)
    height, width = check_images(x).shape[2:]
    side = check_count(side, "side", high=min(height, width))
    n = check_count(n, "n", high=len(x))
    unit_index, peaks = _unit_indices(units), []
    for images in x.split(check_count(batch_size, "batch_size")):
        maps = _maps_of(model, images, layer, unit_index)  # (b, U, h, w)
        peaks.append(maps.flatten(2).max(2))
    h, w = maps.shape[2:]
    best = torch.cat([peak.values for peak in peaks]).T.topk(n, dim=1)  # (U, n)
    place = torch.cat([peak.indices for peak in peaks]).T.gather(1, best.indices)  # (U, n), 0 .. h w - 1
    corners = torch.stack([_corner(place // w, h, height, side), _corner(place % w, w, width, side)], dim=2)
    step = torch.arange(side, device=x.device)
    rows, columns = (corners[..., i, None] + step for i in (0, 1))  # (U, n, side)
    # A slice between index tensors puts C last: (U, n, side, side, C).
    patches = x.detach()[best.indices[..., None, None], :, rows[..., :, None], columns[..., None, :]]
    return Crops(patches.movedim(-1, 2), best.indices, corners, best.values)


def _maps_of(model: nn.Module, images: Tensor, layer: str, unit_index: Tensor) -> Tensor:
    """The maps of some units, (b, U, h, w)."""
    maps = check_feature_maps(activations(model, images, layer)[layer], layer, model, images)
    if unit_index.min() < 0 or unit_index.max() >= maps.shape[1]:
        raise ValueError(f"units must lie in 0 .. {maps.shape[1] - 1}, got {unit_index.tolist()}")
    return maps[:, unit_index.to(maps.device)]


def _corner(cell: Tensor, cells: int, pixels: int, side: int) -> Tensor:
    """First pixel of a patch around the middle of a cell, kept inside the image.

    It is (cell + 1/2) pixels / cells - side / 2, halves rounded up; in whole numbers, so that every image is cut alike.
    """
    return (((2 * cell + 1) * pixels - side * cells + cells) // (2 * cells)).clamp(0, pixels - side)


def _unit_indices(units: Sequence[int] | Tensor) -> Tensor:
    """Units as (U,) int64."""
    try:
        unit_index = as_tensor(units)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"units must be the indices of feature maps, (U,), got {units!r}") from error
    return check_tensor(unit_index, "units", "U", kind="integer").long()
