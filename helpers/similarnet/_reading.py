"""What a network of single digits reads in the boxes of a larger picture."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from helpers._validate import check_count, check_images, check_number, check_tensor
from helpers.boxes import box_centers
from helpers.capture import check_several, logits
from helpers.device import widened

SIDE, INK = 28, 20  # MNIST's images, and the longer side of the digits in them, in pixels


class Reading(NamedTuple):
    """What `read_hotspots` returns; M boxes an image, absent ones (NaN) read as class -1 and probability NaN."""

    labels: Tensor  # (B, M) int64: the most probable class
    probabilities: Tensor  # (B, M, K): the softmax over the K classes


def read_hotspots(
    model: nn.Module, x: Tensor, boxes: Tensor, *, side: int = SIDE, ink: float = INK, stretch: bool = False
) -> Reading:
    """What a network reads in boxes: each is framed as MNIST frames a digit, and classified.

    A square window of `side` x `side` pixels is cut out, scaled so that the box's longer side measures `ink` of them,
    and moved until the centre of what is bright in it lies in its middle, as MNIST was made (LeCun's page). Beyond the
    image everything is black.

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
    side = check_count(side, "side")
    ink = check_number(ink, "ink", 0, above=True)
    check_tensor(boxes, "boxes", f"{len(x)} M 4", kind="real", finite=False, empty=True)
    is_present = ~boxes.isnan().any(2)  # (B, M)
    present = boxes[is_present].to(widened(x))  # (N, 4)
    is_inverted = (present[:, :2] >= present[:, 2:]).any(1)
    if is_inverted.any() or present.isinf().any():
        bad = present[is_inverted | present.isinf().any(1)][0].tolist()
        raise ValueError(f"boxes must be finite with x0 < x1 and y0 < y1, or NaN, got {bad}")
    if len(present):
        windows = _windows(x, present, is_present.nonzero()[:, 0], side, ink, stretch)
    else:  # a black window all the same: it tells how many classes there are
        windows = x.new_zeros(1, x.shape[1], side, side)
    scores = check_several(logits(model, windows), "give it a second one").softmax(1)  # (N, K)
    labels = torch.full(is_present.shape, -1, dtype=torch.long, device=x.device)
    probabilities = scores.new_full((*is_present.shape, scores.shape[1]), float("nan"))
    if len(present):
        labels[is_present], probabilities[is_present] = scores.argmax(1), scores
    return Reading(labels, probabilities)


def _windows(x: Tensor, boxes: Tensor, images: Tensor, side: int, ink: float, stretch: bool) -> Tensor:
    """Square windows (N, C, side, side) of images, around the centre of what is bright in boxes.

    Args:
        x: images, (B, C, H, W).
        boxes: (N, 4), in pixel edges.
        images: (N,), the number in x of the image that each box lies in.
        side: of the windows, in pixels.
        ink: pixels of a window that its box's longer side becomes.
        stretch: bring each window's darkest and brightest value to 0 and 1.
    """
    dtype, x, boxes = x.dtype, widened(x), widened(boxes)  # in half precision roi_align is missing, places too coarse
    x = F.pad(x, (1, 1, 1, 1))  # roi_align goes on with the image's own rim for half a pixel
    centre = box_centers(boxes) + 1  # of the padded images
    # A little less than it should be: a window of exactly `side` pixels may get one or two samples a pixel by rounding.
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) * side / ink / 2 * (1 - 1e-5)  # (N, 1)

    def cut(centre: Tensor) -> Tensor:
        rois = torch.cat([images[:, None].to(boxes), centre - half, centre + half], dim=1)
        return roi_align(x, rois, side, aligned=True)

    brightness = cut(centre).sum(1)  # (N, side, side)
    light = (brightness - brightness.amin((1, 2), keepdim=True)).clamp_min(0)
    total = light.sum((1, 2)).clamp_min(torch.finfo(light.dtype).tiny)
    position = (torch.arange(side, device=x.device, dtype=x.dtype) + 0.5) / side * 2 - 1  # -1 .. 1 over the window
    shift = torch.stack([(light.sum(axis) * position).sum(1) / total for axis in (1, 2)], dim=1)  # (N, 2): x, y
    windows = cut(centre + shift * half)
    if stretch:
        low, high = windows.amin((1, 2, 3), keepdim=True), windows.amax((1, 2, 3), keepdim=True)
        windows = (windows - low) / (high - low).clamp_min(torch.finfo(windows.dtype).tiny)
    return windows.to(dtype)
