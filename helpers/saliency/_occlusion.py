"""Occlusion: what a score loses when a part of the image is covered."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import Target, check_count, check_fill, check_images, check_tensor, describe
from helpers.boxes import box_mask
from helpers.capture import chosen_classes, chunks, logits
from helpers.device import own_precision, widened

Pair = int | tuple[int, int]


def region_occlusion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    regions: Tensor,
    *,
    fill: float | Tensor = 0.0,
    batch_size: int | None = None,
) -> Tensor:
    """How much a class score drops when a rectangle of an image is covered; each rectangle is one image more to run.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K classes of every image; each image's top class when left out.
        regions: (N, 5) integers, rows (image, y0, x0, y1, x1), y1 and x1 exclusive; images in any order.
        fill: what covers: a number, or images that broadcast to x.
        batch_size: images a pass, which bounds the memory; the length of x, or 8 where x is shorter, when left out.

    Returns:
        Drops of the logit, (N,) or (N, K); positive where the rectangle spoke for the class.

    Raises:
        ValueError: bad `x` or `target`; regions of another shape, outside their image or empty; a fill that does not
            fit; batch_size below 1.
    """
    cover = check_fill(fill, check_images(x))
    regions = _check_regions(regions, x)
    full = torch.cat([logits(model, x[part]) for part in chunks(len(x), batch_size, x)])
    classes, several = chosen_classes(target, full)  # (B, K)
    size = (x.shape[2], x.shape[3])
    drops = []
    for part in chunks(len(regions), batch_size, x):
        image, y0, x0, y1, x1 = regions[part].unbind(1)  # (n,) each
        inside = box_mask(torch.stack([x0, y0, x1, y1], dim=1), size)[:, None]  # (n, 1, H, W)
        covered = torch.where(inside, cover[image], x[image])  # (n, C, H, W)
        drops.append((full[image] - logits(model, covered)).gather(1, classes[image]))
    joined = torch.cat(drops)  # (N, K)
    return joined if several else joined[:, 0]


def occlusion(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    window: Pair | None = None,
    stride: Pair | None = None,
    fill: float | Tensor = 0.0,
    batch_size: int | None = None,
) -> Tensor:
    """Occlusion maps: a window slides over the image, and each place is given the mean drop of the windows over it.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.
        window: side of the window in pixels, or (height, width); where it would reach over the border it is cut off. A
            quarter of the image's sides when left out.
        stride: step in pixels, or (down, right); at most the window's side. Half the window when left out, so that the
            number of passes does not depend on the size of the images.
        fill: what covers: a number, or images that broadcast to x.
        batch_size: images a pass, which bounds the memory; the length of x, or 8 where x is shorter, when left out.

    Returns:
        Mean drops of the logit, (B, H, W) or (B, K, H, W), signed.

    Raises:
        ValueError: as `region_occlusion`; a window larger than the image, a stride below 1 or larger than the window.

    Source: Zeiler, Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.
    """
    size = check_images(x).shape[-2:]
    window = _check_pair(_share(size, 4) if window is None else window, "window", size)
    # A larger one would leave places out.
    stride = _check_pair(_share(window, 2) if stride is None else stride, "stride", window)
    count = [-(-(n - w) // s) + 1 for n, w, s in zip(size, window, stride, strict=True)]  # of windows, rounded up
    steps = [torch.arange(n, device=x.device) for n in (len(x), *count)]
    image, i, j = torch.meshgrid(*steps, indexing="ij")  # (B, rows, columns)
    top, left = i * stride[0], j * stride[1]
    bottom, right = (top + window[0]).clamp(max=size[0]), (left + window[1]).clamp(max=size[1])
    regions = torch.stack([image, top, left, bottom, right], -1).flatten(0, 2)
    drops = region_occlusion(model, x, target, regions, fill=fill, batch_size=batch_size)
    several = drops.ndim == 2
    drops = drops.view(len(x), *count, -1).permute(0, 3, 1, 2)  # (B, K, rows, columns)
    maps = _mean_over_windows(drops, window, stride, size)
    return maps if several else maps[:, 0]


def _mean_over_windows(drops: Tensor, window: tuple[int, int], stride: tuple[int, int], size: Sequence[int]) -> Tensor:
    """(B, K, rows, columns) of windows as (B, K, H, W): at each place the mean over the windows that cover it."""
    flat = drops.flatten(0, 1)[:, None]  # (B * K, 1, rows, columns)
    flat = widened(flat)  # a sum over many windows overflows half precision
    ones = flat.new_ones(1, 1, *window)
    with own_precision(flat):
        total = F.conv_transpose2d(flat, ones, stride=stride)
        covering = F.conv_transpose2d(torch.ones_like(flat[:1]), ones, stride=stride)
    mean = (total / covering)[..., : size[0], : size[1]]
    return mean.to(drops.dtype).view(*drops.shape[:2], *size)


def _check_regions(regions: Tensor, x: Tensor) -> Tensor:
    """Regions as int64 on the device of x, if each lies inside its image."""
    regions = check_tensor(regions, "regions", "N 5", kind="integer").to(x.device).long()
    image, y0, x0, y1, x1 = regions.unbind(1)
    height, width = x.shape[-2:]
    good = (image >= 0) & (image < len(x)) & (y0 >= 0) & (y0 < y1) & (y1 <= height)
    good &= (x0 >= 0) & (x0 < x1) & (x1 <= width)
    if not good.all():
        worst = regions[~good][0].tolist()
        raise ValueError(f"regions must lie in {len(x)} images of {height} x {width} and hold a pixel, got row {worst}")
    return regions


def _share(sides: Sequence[int], parts: int) -> tuple[int, int]:
    """One part of each of two sides, rounded up."""
    down, across = (-(-side // parts) for side in sides)
    return down, across


def _check_pair(value: Pair, name: str, limits: Sequence[int]) -> tuple[int, int]:
    """A number of pixels, or two of them (down, across), as two, if each lies in 1 .. its limit."""
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be an integer or two of them, (down, across), got {describe(value)}")
    down, across = (check_count(side, name, high=limit) for side, limit in zip(pair, limits, strict=True))
    return down, across
