"""Canvases with digits on them, drawn or from MNIST, and how well maps tell where and what the digits are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import check_choice
from helpers.boxes import box_centers
from helpers.cam import upsample
from helpers.data import DIGIT_BACKGROUNDS, digit_scenes, mnist, photo, place, write
from helpers.data._digits import FRAGMENTS
from helpers.data._scenes import object_count
from helpers.filters import blurred, dilate_masks
from helpers.metrics import blurred_map, box_mask, center_map, detections, mass_in_mask, pixel_auc, pointing_game
from helpers.metrics._baselines import BLUR_SIGMA
from helpers.similarnet import hotspots, map_threshold, read_hotspots

SEED = 77  # of the canvases
KINDS = tuple(f"{kind} {ground}" for kind in ("drawn", "written") for ground in DIGIT_BACKGROUNDS)

NOISE = 0.4  # the brightest noise, in blocks of 2 x 2 pixels
LETTERED = ("china", "coffee", "astronaut", "flower", "rocket", "camera", "brick", "grass", "gravel")  # photographs
TEXT = "TOP 10"
NEAR = 4  # pixels: a place of LeNet's last feature maps
AROUND = 10  # pixels on either side of a pixel that its local mean takes in
PIECE = 9  # pixels a side of a fragment
INK = (4, 24)  # rows and columns of MNIST's images that its digits fill, first and one past the last


class Canvases(NamedTuple):
    """Digits on canvases; D digits at most, absent ones have label -1 and a box of NaN.

    Attributes:
        images: (N, 1, S, S) in [0, 1], white on black.
        labels: (N, D) int64.
        boxes: (N, D, 4), x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive.
        mask: (N, S, S) bool, the ink of all digits.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor
    mask: Tensor


def handwritten_canvases(
    images: Tensor, labels: Tensor, n: int, seed: int, side: int, digits: int | tuple[int, int], background: str
) -> Canvases:
    """Put digits of 28 x 28 pixels on canvases, each in a cell of its own.

    Args:
        images: (M, 1, 28, 28) in [0, 1].
        labels: (M,).
        n: number of canvases.
        seed: of everything that is drawn.
        side: of the canvases, in pixels.
        digits: how many a canvas holds, a number or a range (low, high).
        background: one of `DIGIT_BACKGROUNDS`.

    Raises:
        ValueError: an unknown background, a number of digits that is none, or canvases too small for so many.
    """
    check_choice(background, "background", DIGIT_BACKGROUNDS)
    low, high = object_count(digits, "digits")
    cells = 1
    while cells**2 < high:
        cells += 1
    room = side // cells - images.shape[-1]  # pixels a digit may be moved by within its cell
    if room < 0:
        raise ValueError(f"side must be at least {cells * images.shape[-1]} for {high} digits, got {side}")
    draw = torch.Generator().manual_seed(seed)
    chosen, count = _below(draw, len(images), n, high), low + _below(draw, high - low + 1, n)
    cell = torch.rand(n, cells**2, generator=draw).argsort(1)[:, :high]
    corners = torch.stack([cell // cells, cell % cells], dim=2) * (side // cells) + _below(draw, room + 1, n, high, 2)
    present = torch.arange(high) < count[:, None]  # (n, D)
    layers = place(images[chosen.flatten()], corners.flatten(0, 1), side).view(n, high, side, side)
    layers = layers * present[..., None, None]
    ink = layers >= 0.5
    boxes = torch.stack([_edges(ink.any(2)), _edges(ink.any(3))], dim=2)  # (n, D, 2, 2): x and y, from and to
    boxes = torch.where(present[..., None], boxes.transpose(2, 3).flatten(2), torch.nan)
    canvas = torch.maximum(_ground(draw, images, n, side, background), layers.amax(1))
    return Canvases(canvas[:, None], torch.where(present, labels[chosen], -1), boxes, ink.any(1))


def _below(draw: torch.Generator, high: int, *shape: int) -> Tensor:
    """Whole numbers drawn from 0 .. high - 1."""
    return torch.randint(high, shape, generator=draw)


def _ground(draw: torch.Generator, images: Tensor, n: int, side: int, background: str) -> Tensor:
    """What lies behind the digits, (n, side, side): nothing, noise, or pieces of the digits `images`."""
    if background == "noise":
        blocks = torch.rand(n, 1, -(-side // 2), -(-side // 2), generator=draw) * NOISE
        return F.interpolate(blocks, scale_factor=2.0)[:, 0, :side, :side]
    if background == "fragments":
        pieces = n * FRAGMENTS
        rows, columns = (
            _below(draw, INK[1] - INK[0] - PIECE + 1, pieces, 1) + INK[0] + torch.arange(PIECE) for _ in range(2)
        )
        source = images[_below(draw, len(images), pieces), 0]
        cut = source[torch.arange(pieces)[:, None, None], rows[:, :, None], columns[:, None]]
        corners = _below(draw, side - PIECE + 1, pieces, 2)
        return place(cut[:, None], corners, side).view(n, FRAGMENTS, side, side).amax(1)
    return torch.zeros(n, side, side)


def _edges(line: Tensor) -> Tensor:
    """First place and one past the last of what is true, (..., L) -> (..., 2)."""
    length = line.shape[-1]
    first, last = line.float().argmax(-1), length - line.flip(-1).float().argmax(-1)
    return torch.stack([first, last], dim=-1).float()


def make_canvases(
    kind: str, digits: int | tuple[int, int], n: int, side: int, device: torch.device | str = "cpu"
) -> Canvases:
    """Canvases of one kind; of those with exactly two digits, only the ones whose digits differ.

    Args:
        kind: one of `KINDS`: drawn digits, or MNIST's test digits ("written"), on one of three grounds.
        digits: how many a canvas holds, a number or a range.
        n: how many canvases are drawn.
        side: of the canvases, in pixels.
        device: where they are wanted.

    Raises:
        ValueError: a kind of another name.
        DataMissing: handwriting is wanted, and MNIST is not there.
    """
    check_choice(kind, "kind", KINDS)
    hand, _, background = kind.partition(" ")
    if hand == "written":
        canvases = handwritten_canvases(*_test_digits(), n, SEED, side, digits, background)
    else:
        drawn = digit_scenes(n, SEED, size=side, digits=digits, background=background)
        canvases = Canvases(drawn.images, drawn.labels, drawn.boxes, drawn.masks.any(1))
    rows = canvases.labels[:, 0] != canvases.labels[:, 1] if digits in (2, (2, 2)) else slice(None)
    return Canvases(*(part[rows].to(device) for part in canvases))


@lru_cache(maxsize=1)
def _test_digits() -> tuple[Tensor, Tensor]:
    test = mnist("test")
    return test.images, test.labels


def lettered(value: float) -> list[tuple[Tensor, Tensor]]:
    """Gray photographs with a line of letters and digits: images (1, 1, H, W) and masks of the strokes (1, H, W).

    Args:
        value: brightness of the letters, in [0, 1].
    """
    pairs = []
    for name in LETTERED:
        gray = photo(name).mean(0, keepdim=True)
        height, width = gray.shape[1:]
        written = write(gray, TEXT, (height // 8, width // 12), height=height / 9, value=value)
        pairs.append((written.image[None], written.mask[None]))
    return pairs


def local_contrast(images: Tensor) -> Tensor:
    """How much brighter each pixel is than the mean of the square around it, (N, H, W)."""
    around = F.avg_pool2d(F.pad(images, [AROUND] * 4, mode="reflect"), 2 * AROUND + 1, 1)
    return (images - around)[:, 0]


def letters_without_network(values: Sequence[float]) -> dict[float, dict[str, float]]:
    """Pixel AUC, over the lettered photographs, of brightness and of local contrast, for letters of several values."""
    rules = {"brightness": lambda image: image[:, 0], "local contrast": local_contrast}
    scores = {}
    for value in values:
        pairs = lettered(value)
        scores[value] = {
            name: sum(pixel_auc(rule(image), mask).item() for image, mask in pairs) / len(pairs)
            for name, rule in rules.items()
        }
    return scores


def blurred_like_image(maps: Tensor) -> Tensor:
    """Maps (N, H, W) blurred as `metrics.blurred_map` blurs an image."""
    return blurred(maps[:, None], BLUR_SIGMA * max(maps.shape[1:]))[:, 0]


def enlarged(maps: Tensor, canvases: Canvases) -> Tensor:
    """Maps (B, h, w) or (B, K, h, w) as large as the canvases."""
    return upsample(maps, (canvases.images.shape[2], canvases.images.shape[3]))


def ink_scores(maps: Tensor, canvases: Canvases) -> dict[str, float]:
    """How well maps (N, H, W) find the ink: pixel AUC and pointing game, means over the canvases.

    "pointing near" is the pointing game within `NEAR` pixels of the ink.
    """
    scores = {
        "auc": pixel_auc(maps, canvases.mask),
        "pointing": pointing_game(maps, canvases.mask),
        "pointing near": pointing_game(maps, canvases.mask, tolerance=NEAR),
    }
    return {metric: values.nanmean().item() for metric, values in scores.items()}


def without_network(canvases: Canvases) -> dict[str, dict[str, float]]:
    """Baselines that know no network: name -> metric -> mean.

    The last, "share of the ink", is the chance that a place drawn by its brightness is right, or nearly so.
    """
    brightness = canvases.images[:, 0]
    reached = {"pointing": canvases.mask, "pointing near": dilate_masks(canvases.mask, NEAR)}
    return {
        "the image itself": ink_scores(brightness, canvases),
        "blurred image": ink_scores(blurred_map(canvases.images), canvases),
        "centre": ink_scores(center_map(canvases.images), canvases),
        "share of the ink": {
            metric: ((brightness * mask).sum((1, 2)) / brightness.sum((1, 2))).mean().item()
            for metric, mask in reached.items()
        },
    }


def digit_scores(maps: Tensor, canvases: Canvases) -> dict[str, float]:
    """How often a map for one of two digits knows which was meant.

    Args:
        maps: (N, 2, H, W), for the first and the second digit.
        canvases: of two digits.

    Returns:
        "more in its box": how often more of the map's positive part lies in its own digit's box than in the other's, a
        coin gets 1/2; "hottest in its box": how often its hottest place does.
    """
    inside = box_mask(canvases.boxes, (maps.shape[2], maps.shape[3]))  # (N, 2, H, W)
    own, other = mass_in_mask(maps, inside), mass_in_mask(maps, inside.flip(1))
    more = (own > other).float() + (own == other).float() / 2  # equal: a coin
    return {"more in its box": more.mean().item(), "hottest in its box": pointing_game(maps, inside).mean().item()}


def reading_scores(
    model: nn.Module, maps: Tensor, canvases: Canvases, cut: str | float, margin: float = 0.0
) -> dict[str, float]:
    """Shares of digits found and read by hot spots, and false alarms a canvas.

    Args:
        model: reads the hot spots.
        maps: (N, H, W), as large as the canvases.
        canvases: what the maps were made of.
        cut: where the maps are cut, as for `map_threshold`.
        margin: pixels that the boxes of hot spots are made smaller by, on every side.
    """
    boxes = hotspots(maps, map_threshold(maps, cut))
    center = box_centers(boxes)
    half = ((boxes[..., 2:] - boxes[..., :2]) / 2 - margin).clamp_min(1)
    boxes = torch.cat([center - half, center + half], dim=-1)
    matched, reading = detections(boxes, canvases.boxes), read_hotspots(model, canvases.images, boxes)
    present = canvases.labels >= 0
    right = matched.found
    if boxes.shape[1]:
        right = right & (reading.labels.gather(1, matched.box.clamp_min(0)) == canvases.labels)
    return {
        "found": matched.found[present].float().mean().item(),
        "read": right[present].float().mean().item(),
        "false alarms": matched.false_alarms.float().mean().item(),
    }
