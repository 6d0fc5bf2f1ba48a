"""A box around the object that a saliency map points at, with the colours of the image to help."""

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from helpers._validate import check_number, check_tensor
from helpers.boxes import region_boxes
from helpers.device import own_precision, widened

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
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive, float32 or wider: (B, 4) or (B, K, 4).

    Raises:
        ValueError: maps or images of another shape, empty, or not finite; quantiles outside their range.

    Source: Simonyan et al. 2013, section 3.2; the two quantiles are those that later works quote from it.
    """
    _check(maps, images, foreground, background)
    flat = maps.detach().reshape(-1, *maps.shape[-2:])  # (N, H, W)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    values = flat.flatten(1)
    least = values.amin(1, keepdim=True)
    above = (values >= values.quantile(foreground, 1, keepdim=True)) & (values > least)
    above |= values.amax(1, keepdim=True) == least  # of a constant map: everything
    mask = above.view_as(flat)
    if images is not None:
        below = (values <= values.quantile(background, 1, keepdim=True)) & ~above
        copies = len(flat) // len(images)
        with own_precision(flat):
            mask = _segment(images.detach().to(flat).repeat_interleave(copies, 0), mask, below.view_as(flat))
    # Half precision cannot tell pixels above 2048 apart.
    return region_boxes(mask).to(widened(flat)).view(*maps.shape[:-2], 4)


def _segment(images: Tensor, object_seed: Tensor, rest_seed: Tensor) -> Tensor:
    """The masks (N, H, W) of objects in images (N, C, H, W), grown from seeds (N, H, W) of object and rest."""
    mask, rest = object_seed, rest_seed
    # The blur reflects at the border and must reach less far than the image.
    width, height = (2 * min(int(3 * SMOOTH_PX), n - 1) + 1 for n in (images.shape[-1], images.shape[-2]))
    ridge = LEAST_VARIANCE * images.flatten(2).var(2, correction=0).mean(1).clamp_min(1e-12)
    for _ in range(ROUNDS):
        ratio = (_log_density(images, mask, ridge) - _log_density(images, rest, ridge)).clamp(-10, 10)
        ratio = gaussian_blur(ratio[:, None], [width, height], [SMOOTH_PX, SMOOTH_PX])[:, 0]
        mask = (ratio > 0) & ~rest_seed
        # Too little is left of the object, or there is no seed of the rest to tell it from: the seeds must do.
        failed = (mask.sum((1, 2)) < LEAST_PIXELS) | ~rest_seed.any(2).any(1)
        mask = torch.where(failed[:, None, None], object_seed, mask)
        rest = ~mask
    return mask


def _log_density(images: Tensor, region: Tensor, ridge: Tensor) -> Tensor:
    """Log density of every pixel's colour, (N, H, W), up to a constant, under the Gaussian of the colours in a region.

    `ridge` (N,) is added to the variances: a region of one colour has none.
    """
    colours = images.flatten(2)  # (N, C, P), P = H W pixels
    weight = region.flatten(1).to(images)
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)
    deviation = colours - colours @ weight[..., None]  # (N, C, P)
    covariance = (deviation * weight[:, None]) @ deviation.mT  # (N, C, C)
    unit = torch.eye(colours.shape[1], dtype=images.dtype, device=images.device)
    root = torch.linalg.cholesky(covariance + ridge[:, None, None] * unit)
    whitened = torch.linalg.solve_triangular(root, unit, upper=False) @ deviation  # of unit covariance in the region
    half_log_det = root.diagonal(dim1=1, dim2=2).log().sum(1)  # of the covariance
    return (-whitened.square().sum(1) / 2 - half_log_det[:, None]).view(region.shape)


def _check(maps: Tensor, images: Tensor | None, foreground: float, background: float) -> None:
    check_tensor(maps, "maps", "B H W", "B K H W")
    background = check_number(background, "background", 0, 1, above=True, below=True)
    foreground = check_number(foreground, "foreground", background, 1, below=True)
    if images is not None:
        height, width = maps.shape[-2:]
        check_tensor(images, "images", f"{len(maps)} C {height} {width}", kind="real")
