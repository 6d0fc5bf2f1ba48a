"""How much the background decides: blur it, or blur the object, and see whether the network still knows.

If a network reads the object, blurring all else costs it little and blurring the object costs it much; if it reads the
background, the other way round. The object is where a map is large (`salient_region`), or the true mask.

One call::

    hits = accuracy_under_blur(model, x, labels, salient_region(maps), radii=(2, 5, 10))
    hits.outside.double().mean(-1)  # (radii, tops): share right with everything outside the region blurred

By hand::

    soft = torch.where(region[:, None], x, blurred(x, 5))  # (B, C, H, W): the object as it is, the rest blurred
    (model(soft).argmax(1) == labels).double().mean()

Blurring a background tells something about the background only beside its control: the same area blurred elsewhere
(`same_area_control`), and the true mask where it is known.

Source: Marcinek, arXiv 2005.02184, section 4; the controls are the book's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from helpers._validate import check_choice, check_count, check_images, check_number, check_tensor, describe, seeded
from helpers.capture import in_batches, logits
from helpers.filters import blurred
from helpers.training import topk_correct

THRESHOLD = 0.2  # of a map's range: what lies above belongs to the object (a fifth, as in the source's released code)
BLOB_SIGMA = 0.1  # of the noise whose peaks are the "random" control's blobs, in sides of the image (the longer one)
KINDS = ("shift", "random", "center")


class BlurHits(NamedTuple):
    """What `accuracy_under_blur` returns: which images are right; R radii, T tops, N images. Means are accuracies.

    Attributes:
        original: (T, N) bool, without blur.
        outside: (R, T, N) bool, everything outside the region blurred; (M, R, T, N) for M regions an image.
        inside: like `outside`, the region blurred.
    """

    original: Tensor
    outside: Tensor
    inside: Tensor


def salient_region(maps: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """The part of a map that counts as the object: what is above a share of its range.

    Args:
        maps: (B, H, W), or (..., H, W).
        threshold: from the least value of the map (0) to its greatest (1).

    Returns:
        bool, like maps; a constant map's region is everything.

    Raises:
        ValueError: maps are empty, not floating point or not finite, or a threshold outside 0 .. 1.

    Source: Marcinek 2020; a fifth of the range, as in the released code, but counted from the map's least value, which
    the code leaves out.
    """
    check_tensor(maps, "maps", "... H W")
    threshold = check_number(threshold, "threshold", 0, 1)
    # Halves, since the range of finite numbers may not be finite; and the difference, so that the peak is always in.
    low, high = maps.amin((-2, -1), keepdim=True) / 2, maps.amax((-2, -1), keepdim=True) / 2
    return maps / 2 - low >= threshold * (high - low)


def blur_outside(x: Tensor, region: Tensor, radius: float, *, leak: bool = True) -> Tensor:
    """Images whose background is blurred.

    Args:
        x: images, (B, C, H, W), in any units.
        region: (B, H, W) bool, the object: it stays as it is.
        radius: standard deviation of the blur in pixels.
        leak: blur the whole image and put the object back, as the source does: the object's colours run into its
            surroundings. False lets the background take its colours from the background alone.

    Returns:
        Like x.

    Raises:
        ValueError: bad `x` or radius, or a region that is not bool (B, H, W).
    """
    region = _check_region(x, region)
    return _blurred_where(x, ~region, radius, blurred(x, radius) if leak else None)


def blur_inside(x: Tensor, region: Tensor, radius: float, *, leak: bool = True) -> Tensor:
    """Images whose object is blurred: the counterpart of `blur_outside`.

    Args:
        x: images, (B, C, H, W), in any units.
        region: (B, H, W) bool, the object: it is blurred, the rest stays as it is.
        radius: standard deviation of the blur in pixels.
        leak: blur the whole image and put the background back; False takes the object's colours from the object alone.

    Returns:
        Like x.

    Raises:
        ValueError: bad `x` or radius, or a region that is not bool (B, H, W).
    """
    region = _check_region(x, region)
    return _blurred_where(x, region, radius, blurred(x, radius) if leak else None)


def same_area_control(region: Tensor, kind: Literal["shift", "random", "center"] = "shift", *, seed: int = 0) -> Tensor:
    """A region of as many pixels that has nothing to do with the network.

    Args:
        region: (B, H, W) bool.
        kind: "shift" moves it by a quarter to three quarters of each side, around the border: the same shape elsewhere.
            "random" takes the peaks of smooth noise, "center" the pixels nearest to the middle of the image.
        seed: of the shifts and of the noise; the same on every device.

    Returns:
        (B, H, W) bool, each image's area as in `region`.

    Raises:
        ValueError: a region that is not a non-empty bool (B, H, W), an unknown kind, or a seed below 0.
    """
    check_tensor(region, "region", "B H W", kind="bool")
    check_choice(kind, "kind", KINDS)
    on_cpu: Any = {"generator": seeded(seed), "dtype": torch.float32, "device": "cpu"}
    count, height, width = region.shape
    if kind == "shift":
        down, right = (_shifts(n, torch.rand(count, **on_cpu)) for n in (height, width))
        rows = (torch.arange(height, device="cpu") - down[:, None]) % height  # (B, H)
        columns = (torch.arange(width, device="cpu") - right[:, None]) % width
        image = torch.arange(count, device="cpu")[:, None, None]
        return region.cpu()[image, rows[:, :, None], columns[:, None]].to(region.device)
    if kind == "random":
        sigma = BLOB_SIGMA * max(height, width)
        rim = round(3 * sigma)  # cut off again: at a mirror smooth noise varies more, and would have its peaks there
        noise = torch.randn(count, 1, height + 2 * rim, width + 2 * rim, **on_cpu)
        priority = blurred(noise, sigma)[:, 0, rim : rim + height, rim : rim + width]
    else:
        # Squared distances differ by whole numbers; the noise decides between pixels that are equally far.
        rows, columns = (torch.arange(n, dtype=torch.float32, device="cpu") - (n - 1) / 2 for n in (height, width))
        priority = -(rows[:, None].square() + columns.square()) + 0.5 * torch.rand(count, height, width, **on_cpu)
    rank = priority.flatten(1).argsort(1, descending=True).argsort(1)  # 0 for the greatest
    return (rank < region.flatten(1).sum(1, keepdim=True).cpu()).view(region.shape).to(region.device)


def _shifts(length: int, share: Tensor) -> Tensor:
    """Whole numbers from a quarter to three quarters of a side, one for each share (B,) in [0, 1)."""
    least = -(-length // 4)
    most = max(least, 3 * length // 4)
    return least + (share * (most - least + 1)).long()


def accuracy_under_blur(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    region: Tensor,
    radii: Sequence[float],
    top: Sequence[int] = (1, 5),
    *,
    leak: bool = True,
    batch_size: int = 100,
) -> BlurHits:
    """Which images a network still gets right when their background, or their object, is blurred.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (N, C, H, W), normalised as the network expects.
        y: (N,), the true classes.
        region: (N, H, W) bool, the objects: `salient_region` of a map, a true mask, or `same_area_control` of either;
            (M, N, H, W) for M of them side by side: what they share is computed once.
        radii: of the blur, standard deviations in pixels.
        top: an image is right when its class is among so many largest logits.
        leak: as for `blur_outside`.
        batch_size: images a pass.

    Returns:
        Hits image by image, on the CPU, so that differences can be taken in pairs; their means are the accuracies.

    Raises:
        ValueError: bad `x`, `y`, `region`, radii or batch_size, or a `top` above the number of classes.
    """
    region = _check_region(x, region, several=True)
    regions = region if region.ndim == 4 else region[None]  # (M, N, H, W)
    check_tensor(y, "y", f"{len(x)}", kind="integer")
    for name, values in (("radii", radii), ("top", top)):
        if not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name} must be a sequence of at least one number, got {describe(values)}")
    ranks = [check_count(n, "top") for n in top]
    batch_size = check_count(batch_size, "batch_size")
    original = _hits(model, x, y, ranks, batch_size)
    outside, inside = [], []  # R of (M, T, N)
    for radius in radii:
        soft = blurred(x, radius) if leak else None
        for side, blurs in ((outside, ~regions), (inside, regions)):
            shown = (_blurred_where(x, where, radius, soft) for where in blurs)
            side.append(torch.stack([_hits(model, images, y, ranks, batch_size) for images in shown]))
    hits = BlurHits(original, torch.stack(outside, 1), torch.stack(inside, 1))  # (M, R, T, N)
    return hits if region.ndim == 4 else BlurHits(original, hits.outside[0], hits.inside[0])


def _hits(model: nn.Module, images: Tensor, y: Tensor, top: Sequence[int], batch_size: int) -> Tensor:
    """Whether each image's class is among the largest logits, (T, N) bool on the CPU."""
    scores = in_batches(logits, model, images, batch_size=batch_size).cpu()
    classes = scores.shape[1]
    if max(top) > classes:
        raise ValueError(f"top must lie in 1 .. {classes}, the network's classes, got {list(top)}")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"y must lie in 0 .. {classes - 1}, got {int(y.min())} .. {int(y.max())}")
    return torch.stack([topk_correct(scores, y.cpu(), k) for k in top])


def _blurred_where(x: Tensor, where: Tensor, radius: float, soft: Tensor | None) -> Tensor:
    """Images blurred at the places `where`: as in the blurred `soft`, or, if that is None, from the colours there."""
    if soft is not None:
        return torch.where(where[:, None], soft, x)
    weight = where[:, None].to(x)
    share = blurred(weight, radius)  # of the filter that lies at such places
    mean = blurred(x * weight, radius) / torch.where(share > 0, share, 1)
    return torch.where(where[:, None], mean, x)


def _check_region(x: Tensor, region: Tensor, several: bool = False) -> Tensor:
    """The region on the device of x, if it is one mask an image, of its size; or `several` of them, (M, B, H, W)."""
    count, _, height, width = check_images(x).shape
    layouts = [f"{count} {height} {width}", *([f"M {count} {height} {width}"] if several else [])]
    return check_tensor(region, "region", *layouts, kind="bool").to(x.device)
