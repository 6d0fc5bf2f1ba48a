"""Feature maps of images of any size, the regions where a map is hot, and what a network reads there."""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops_table
from torch import Tensor, nn
from torchvision.ops import roi_align

from helpers._validate import check_count, check_images, check_number
from helpers.capture import activations_up_to, logits

POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)
SIGMAS = 2.0  # standard deviations above the mean; the authors' deploy_ccGAP.lua
SIDE, INK = 28, 20  # MNIST's images, and the longer side of the digits in them, in pixels
MIN_AREA = 12  # pixels of a hot spot


class Reading(NamedTuple):
    """What `read_hotspots` returns; M boxes an image, absent ones (NaN) read as class -1 and probability NaN."""

    labels: Tensor  # (B, M) int64: the most probable class
    probabilities: Tensor  # (B, M, K): the softmax over the K classes


def features_at_any_size(model: nn.Module, x: Tensor, layer: str, *, keep_pools: bool = True) -> Tensor:
    """Feature maps of images of any size: what follows the layer, which may take one size only, does not run.

    Args:
        model: network whose first part is made of convolutions; it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        layer: name of the layer.
        keep_pools: False leaves every max or average pooling of a window out, as the authors do for their heat maps:
            the maps are as large as the image, and filters behind a pooling see it at a scale they were not trained
            for.

    Returns:
        (B, F, h, w), detached.

    Raises:
        ValueError: bad `x`, an unknown layer, one without feature maps, or poolings that cannot be left out.
    """
    dense = [name for name, m in model.named_modules() if isinstance(m, POOLINGS) and _moves_by_one(m)]
    if dense and not keep_pools:
        raise ValueError(f"keep_pools must be True here: {dense[0]!r} moves by one pixel, so it makes nothing coarser")
    found = activations_up_to(model, x, layer, without=() if keep_pools else POOLINGS)
    if found.ndim != 4:
        raise ValueError(f"layer must have feature maps (B, F, h, w), but {layer!r} gives {tuple(found.shape)}")
    return found


def _moves_by_one(pool: nn.Module) -> bool:
    """Whether a pooling moves by one pixel and has its padding done before it, as `SmallVGG(atrous=...)`'s do."""
    return pool.stride in (1, (1, 1)) and pool.padding in (0, (0, 0))


def as_convolutions(model: nn.Sequential) -> nn.Sequential:
    """A chain whose linear layers are convolutions: it classifies every window of an image in one forward.

    The first linear layer behind the flattening becomes a convolution as large as the feature maps it was trained on,
    padded so that their size stays; the others look at single places. The weights are shared.

    Args:
        model: a chain of layers with one flattening, then linear layers; square feature maps.

    Returns:
        A chain that maps (B, C, H, W) to logits (B, classes, h, w), h and w those of the feature maps: each place has
        the logits of the window around it. (At the window's edges the convolutions see the image, not zeros.)

    Raises:
        ValueError: a network that is no such chain.

    Source: Sermanet et al., "OverFeat", ICLR 2014; Long et al., CVPR 2015, section 3.1.
    """
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"model must be a chain, nn.Sequential, got {type(model).__name__}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, flat, first = None, False, True
    for name, module in model._modules.items():  # named_children would leave out a layer that is used again
        if isinstance(module, nn.Flatten):
            flat = True
            continue
        if isinstance(module, nn.Linear):
            side = round((module.in_features / channels) ** 0.5) if flat and channels else 0
            if not flat or not channels or channels * side**2 != module.in_features:
                raise ValueError(f"model must flatten square feature maps before its first linear layer, {name!r}")
            module, channels, first = _as_convolution(module, channels, side), module.out_features, False
        elif isinstance(module, nn.Conv2d):
            channels = module.out_channels
        elif flat and not isinstance(module, nn.ReLU | nn.Dropout | nn.Identity | nn.Tanh | nn.Sigmoid):
            raise ValueError(f"model must have linear layers and activations alone behind nn.Flatten, got {name!r}")
        layers[name] = module
    if first:
        raise ValueError("model must be a chain of feature layers, nn.Flatten and nn.Linear, this one has no such end")
    found = nn.Sequential(layers)
    found.training = model.training  # its own flag: train() would set those of the shared layers too
    return found


def _as_convolution(linear: nn.Linear, channels: int, side: int) -> nn.Conv2d:
    wanted = (nn.Conv2d, channels, linear.out_features, side)
    found = nn.utils.skip_init(*wanted, padding="same", bias=linear.bias is not None)
    found.weight = nn.Parameter(linear.weight.detach().view_as(found.weight), requires_grad=False)
    if linear.bias is not None:
        found.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return found.train(linear.training)


def map_threshold(maps: Tensor, rule: str | float = "otsu") -> Tensor:
    """Where to cut each map, by a rule.

    Args:
        maps: (B, H, W), raw and signed.
        rule: "otsu", the value that parts the map's values into two groups of the least spread (scikit-image); "two
            sigma", mean plus two standard deviations, as the authors cut the maps of their later variant; or a number
            in (0, 1), a share of each map's maximum.

    Returns:
        (B,), in the unit of the maps.

    Raises:
        ValueError: maps of another shape or not finite, or an unknown rule.

    Source: Otsu, IEEE SMC 1979; the authors' deploy_ccGAP.lua.
    """
    flat = _check(maps).flatten(1)
    if rule == "two sigma":
        return flat.mean(1) + SIGMAS * flat.std(1, correction=min(1, flat.shape[1] - 1))
    if rule == "otsu":
        cuts = [_otsu(one) for one in flat.double().cpu().numpy()]
        return torch.tensor(cuts, dtype=torch.float64).to(flat)
    if isinstance(rule, str) or check_number(rule, "rule", 0, above=True) >= 1:
        raise ValueError(f"rule must be 'otsu', 'two sigma' or a share of the maximum in (0, 1), got {rule!r}")
    return flat.amax(1) * rule


def _otsu(values: np.ndarray) -> float:
    """Otsu's threshold of numbers (n,) of any size; their own value where they are all the same."""
    low, span = values.min(), values.max() / 2 - values.min() / 2  # halves: the span itself may be too large a number
    if span == 0:
        return float(low)
    return float(threshold_otsu((values / 2 - low / 2) / span) * span * 2 + low)


def hotspots(maps: Tensor, threshold: float | Tensor, min_area: int = MIN_AREA) -> Tensor:
    """Boxes around the connected regions of each map above a threshold, the hottest first.

    Stretch the map over the image first (`cam.upsample`): boxes come in the map's own cells. Diagonal neighbours touch.

    Args:
        maps: (B, H, W).
        threshold: a number, or (B,), one a map: `map_threshold` gives them. A place counts when it lies above.
        min_area: places a region must have.

    Returns:
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive, (B, M, 4) float32; M is the greatest number of regions a map
        has. Sorted by the sum of the map over the region, NaN behind the last one.

    Raises:
        ValueError: maps of another shape or not finite, thresholds that do not fit, or a min_area below 1.
    """
    check_count(min_area, "min_area")
    _check(maps)
    try:
        cuts = torch.as_tensor(threshold).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"threshold must be numbers, map_threshold gives them, got {threshold!r}") from error
    if cuts.is_complex() or cuts.dtype == torch.bool or cuts.isnan().any():
        raise ValueError(f"threshold must be real numbers, got {threshold!r}")
    if cuts.ndim > 1 or (cuts.ndim == 1 and len(cuts) != len(maps)):
        raise ValueError(f"threshold must be a number or ({len(maps)},), got shape {tuple(cuts.shape)}")
    cuts = cuts.to(maps)
    above = (maps > cuts.view(-1, 1, 1)).cpu().numpy()
    found = [
        _regions(mask, one, min_area) for mask, one in zip(above, maps.detach().cpu().double().numpy(), strict=True)
    ]
    boxes = torch.full((len(maps), max(map(len, found)), 4), float("nan"))
    for row, own in zip(boxes, found, strict=True):
        row[: len(own)] = torch.from_numpy(own)
    return boxes.to(maps.device)


def _regions(mask: np.ndarray, values: np.ndarray, min_area: int) -> np.ndarray:
    """Boxes (M, 4) of one mask's regions, the largest sum of values first."""
    table = regionprops_table(label(mask, connectivity=2), values, properties=("bbox", "area", "intensity_mean"))
    kept = np.flatnonzero(table["area"] >= min_area)
    order = kept[np.argsort(-(table["area"] * table["intensity_mean"])[kept], kind="stable")]
    return np.stack([table[f"bbox-{i}"][order] for i in (1, 0, 3, 2)], axis=1).astype(np.float32)


def read_hotspots(
    model: nn.Module, x: Tensor, boxes: Tensor, *, side: int = SIDE, ink: float = INK, stretch: bool = False
) -> Reading:
    """What a network reads in boxes: each is framed as MNIST frames a digit, and classified.

    The box's longer side becomes `ink` of `side` pixels; the window is then moved so that the centre of what is bright
    in it lies in its middle, as MNIST was made (LeCun's page). Beyond the image everything is black.

    Args:
        model: network that maps (B, C, side, side) to logits (B, K); it is left as it was found.
        x: images, (B, C, H, W), bright writing on dark ground, as the network expects.
        boxes: (B, M, 4) in pixel edges, NaN where there is none.
        side: of the images the network was trained on, in pixels.
        ink: longer side of the digits in them, in pixels.
        stretch: bring the darkest and brightest value of each window to 0 and 1; for writing that is not as bright.

    Returns:
        `Reading`, M boxes an image.

    Raises:
        ValueError: bad `x`, boxes that are not (B, M, 4), inverted boxes, or sizes that are not positive.
    """
    check_images(x)
    check_count(side, "side")
    check_number(ink, "ink", 0, above=True)
    if not isinstance(boxes, Tensor) or boxes.ndim != 3 or len(boxes) != len(x) or boxes.shape[2] != 4:
        got = tuple(boxes.shape) if isinstance(boxes, Tensor) else type(boxes).__name__
        raise ValueError(f"boxes must be ({len(x)}, M, 4), got {got}")
    there = ~boxes.isnan().any(2)  # (B, M)
    own = boxes[there].to(x)  # (N, 4)
    if (own[:, :2] >= own[:, 2:]).any() or own.isinf().any():
        raise ValueError("boxes must be finite with x0 < x1 and y0 < y1, or NaN")
    labels = torch.full(there.shape, -1, dtype=torch.long, device=x.device)
    if len(own) == 0:
        return Reading(
            labels,
            x.new_full((*there.shape, logits(model, x.new_zeros(1, x.shape[1], side, side)).shape[1]), float("nan")),
        )
    found = logits(model, _windows(x, own, there.nonzero()[:, 0], side, ink, stretch)).softmax(1)  # (N, K)
    probabilities = found.new_full((*there.shape, found.shape[1]), float("nan"))
    labels[there], probabilities[there] = found.argmax(1), found
    return Reading(labels, probabilities)


def _windows(x: Tensor, boxes: Tensor, images: Tensor, side: int, ink: float, stretch: bool) -> Tensor:
    """Square windows (N, C, side, side) around boxes (N, 4) of images (N,), centred on what is bright."""
    x = F.pad(x, (1, 1, 1, 1))  # roi_align goes on with the image's own rim for half a pixel
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + 1
    # A little less than it should be: a window of exactly `side` pixels may get one or two samples a pixel by rounding.
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) * side / ink / 2 * (1 - 1e-5)  # (N, 1)

    def cut(centre: Tensor) -> Tensor:
        rois = torch.cat([images[:, None].to(boxes), centre - half, centre + half], dim=1)
        return roi_align(x, rois, side, aligned=True)

    seen = cut(centre)
    light = (seen.sum(1) - seen.sum(1).amin((1, 2), keepdim=True)).clamp_min(0)  # (N, side, side)
    total = light.sum((1, 2)).clamp_min(torch.finfo(light.dtype).tiny)
    at = (torch.arange(side, device=x.device, dtype=x.dtype) + 0.5) / side * 2 - 1  # -1 .. 1 over the window
    off = torch.stack([(light.sum(1) @ at) / total, (light.sum(2) @ at) / total], dim=1)  # (N, 2): x, y
    seen = cut(centre + off * half)
    if stretch:
        low, high = seen.amin((1, 2, 3), keepdim=True), seen.amax((1, 2, 3), keepdim=True)
        seen = (seen - low) / (high - low).clamp_min(torch.finfo(seen.dtype).tiny)
    return seen


def _check(maps: Tensor) -> Tensor:
    if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.numel() == 0 or not maps.is_floating_point():
        got = f"{tuple(maps.shape)} of {maps.dtype}" if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps must be non-empty floating-point maps (B, H, W), got {got}")
    if not torch.isfinite(maps).all():
        raise ValueError("maps must be finite, got NaN or infinite values")
    return maps.detach()
