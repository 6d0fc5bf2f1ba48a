"""From maps to boxes."""

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from helpers.boxes import region_boxes

ROUNDS = 3  # of colour models; GrabCut, too, repeats its fit
SMOOTH_PX = 1.0  # standard deviation of the blur that makes neighbours agree
LEAST_VARIANCE = 1e-3  # added to a colour model, as a share of the image's own variance
LEAST_PIXELS = 8  # of an object; a segmentation that shrinks below falls back on its seeds


def saliency_box(
    maps: Tensor, images: Tensor | None = None, *, foreground: float = 0.95, background: float = 0.30
) -> Tensor:
    """One box an image: around the largest connected region of what a saliency map takes for the object.

    Pixels above the upper quantile of a map are seeds of the object, those below the lower one seeds of the rest. With
    `images`, one Gaussian of colours is fitted to either side, every other pixel joins the side that explains its
    colour and its neighbours' better, and the fit is repeated: GrabCut, with one Gaussian in place of a mixture and a
    blur in place of the graph cut. Without, undecided pixels count as background: the plain threshold.

    Args:
        maps: (B, H, W) or (B, K, H, W), the larger the more salient; a constant map gets the whole image.
        images: (B, C, H, W) of the same size, in any units.
        foreground: quantile of a map above which a pixel is a seed of the object, in (0, 1).
        background: quantile below which it is a seed of the background, in (0, 1), not above `foreground`.

    Returns:
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive: (B, 4) or (B, K, 4), float.

    Raises:
        ValueError: maps or images of another shape, empty, or not finite; quantiles outside their range.

    Source: Simonyan et al. 2013, section 3.2 (the quantiles as others quote them).
    """
    _check(maps, images, foreground, background)
    flat = maps.detach().reshape(-1, *maps.shape[-2:])  # (N, H, W)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    values = flat.flatten(1)
    least = values.amin(1, keepdim=True)
    above = (values >= values.quantile(foreground, 1, keepdim=True)) & (values > least)
    above |= values.amax(1, keepdim=True) == least  # a constant map names no place
    mask = above.view_as(flat)
    if images is not None:
        below = (values <= values.quantile(background, 1, keepdim=True)) & ~above
        copies = len(flat) // len(images)
        mask = _segment(images.detach().to(flat).repeat_interleave(copies, 0), mask, below.view_as(flat))
    return region_boxes(mask).to(maps).view(*maps.shape[:-2], 4)


def _segment(images: Tensor, object_seed: Tensor, rest_seed: Tensor) -> Tensor:
    """(N, C, H, W) images and their seeds (N, H, W) -> masks (N, H, W)."""
    mask, rest = object_seed, rest_seed
    # The blur reflects at the border and must reach less far than the image.
    width, height = (2 * min(int(3 * SMOOTH_PX), n - 1) + 1 for n in (images.shape[-1], images.shape[-2]))
    least = LEAST_VARIANCE * images.flatten(2).var(2, correction=0).mean(1).clamp_min(1e-12)
    for _ in range(ROUNDS):
        ratio = (_log_density(images, mask, least) - _log_density(images, rest, least)).clamp(-10, 10)
        ratio = gaussian_blur(ratio[:, None], [width, height], [SMOOTH_PX, SMOOTH_PX])[:, 0]
        mask = (ratio > 0) & ~rest_seed
        lost = (mask.sum((1, 2)) < LEAST_PIXELS) | ~rest_seed.any(2).any(1)
        mask = torch.where(lost[:, None, None], object_seed, mask)
        rest = ~mask
    return mask


def _log_density(images: Tensor, region: Tensor, least: Tensor) -> Tensor:
    """Log density of every pixel's colour, (N, H, W), under the Gaussian of the colours inside a region.

    `least` (N,) is added to the variances: a region of one colour has none.
    """
    colours = images.flatten(2)  # (N, C, P)
    weight = region.flatten(1).to(images)
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)
    apart = colours - colours @ weight[..., None]  # (N, C, P)
    spread = (apart * weight[:, None]) @ apart.mT  # (N, C, C)
    unit = torch.eye(colours.shape[1]).to(images)
    root = torch.linalg.cholesky(spread + least[:, None, None] * unit)
    z = torch.linalg.solve_triangular(root, unit, upper=False) @ apart
    volume = root.diagonal(dim1=1, dim2=2).log().sum(1)
    return (-z.square().sum(1) / 2 - volume[:, None]).view(region.shape)


def _check(maps: Tensor, images: Tensor | None, foreground: float, background: float) -> None:
    if not isinstance(maps, Tensor) or maps.ndim not in (3, 4) or maps.numel() == 0:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps must be a non-empty (B, H, W) or (B, K, H, W), got {got}")
    if not maps.is_floating_point() or not torch.isfinite(maps).all():
        raise ValueError(f"maps must be finite floating-point numbers, got {maps.dtype} or NaN or infinite values")
    numbers = all(isinstance(q, float) for q in (background, foreground))
    if not numbers or not 0 < background <= foreground < 1:
        raise ValueError(f"quantiles must keep 0 < background <= foreground < 1, got {background!r} and {foreground!r}")
    if images is None:
        return
    wanted = (len(maps), *maps.shape[-2:])
    shape = tuple(images.shape) if isinstance(images, Tensor) else ()
    if len(shape) != 4 or (shape[0], *shape[2:]) != wanted or shape[1] == 0:
        got = shape or type(images).__name__
        raise ValueError(f"images must be a tensor (B, C, H, W) with (B, H, W) = {wanted}, got {got}")
    if not torch.isfinite(images).all():
        raise ValueError("images must be finite, got NaN or infinite values")
