"""Canvases with digits on them, drawn or from MNIST, and how well maps tell where and what the digits are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import background
from helpers.cam import upsample
from helpers.data import DIGIT_BACKGROUNDS, digit_scenes, mnist, photo, place, write
from helpers.data._digits import FRAGMENTS
from helpers.data._scenes import object_count
from helpers.filters import dilate_masks
from helpers.metrics import blurred_map, box_mask, center_map, detections, mass_in_mask, pixel_auc, pointing_game
from helpers.metrics._baselines import BLUR_SIGMA
from helpers.similarnet import hotspots, map_threshold, read_hotspots

SEED = 77  # of the canvases

NOISE = 0.4  # the brightest noise, in blocks of 2 x 2 pixels
LETTERED = ("china", "coffee", "astronaut", "flower", "rocket", "camera", "brick", "grass", "gravel")  # photographs
TEXT = "TOP 10"
NEAR = 4  # pixels: a place of LeNet's last feature maps
AROUND = 10  # pixels on either side of a pixel that its local mean takes in
PIECE = 9  # pixels a side of a fragment


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
    if background not in DIGIT_BACKGROUNDS:
        raise ValueError(f"background must be one of {DIGIT_BACKGROUNDS}, got {background!r}")
    low, high = object_count("digits", digits)
    cells = 1
    while cells**2 < high:
        cells += 1
    room = side // cells - images.shape[-1]  # pixels a digit may be moved by within its cell
    if room < 0:
        raise ValueError(f"side must be at least {cells * images.shape[-1]} for {high} digits, got {side}")
    draw = torch.Generator().manual_seed(seed)

    def whole(top: int, *shape: int) -> Tensor:
        return torch.randint(top, shape, generator=draw)

    chosen, count = whole(len(images), n, high), low + whole(high - low + 1, n)
    cell = torch.rand(n, cells**2, generator=draw).argsort(1)[:, :high]
    corners = torch.stack([cell // cells, cell % cells], dim=2) * (side // cells) + whole(room + 1, n, high, 2)
    present = torch.arange(high) < count[:, None]  # (n, D)
    layers = place(images[chosen.flatten()], corners.flatten(0, 1), side).view(n, high, side, side)
    layers = layers * present[..., None, None]
    ground = torch.zeros(n, side, side)
    if background == "noise":
        blocks = torch.rand(n, 1, -(-side // 2), -(-side // 2), generator=draw) * NOISE
        ground = F.interpolate(blocks, scale_factor=2.0)[:, 0, :side, :side]
    if background == "fragments":
        rows, columns = (whole(20 - PIECE + 1, n * FRAGMENTS, 1) + 4 + torch.arange(PIECE) for _ in range(2))
        source = images[whole(len(images), n * FRAGMENTS), 0]
        pieces = source[torch.arange(len(source))[:, None, None], rows[:, :, None], columns[:, None]]
        spots = whole(side - PIECE + 1, n * FRAGMENTS, 2)
        ground = place(pieces[:, None], spots, side).view(n, FRAGMENTS, side, side).amax(1)
    ink = layers >= 0.5
    boxes = torch.stack([_edges(ink.any(2)), _edges(ink.any(3))], dim=2)  # (n, D, 2, 2): x and y, from and to
    boxes = torch.where(present[..., None], boxes.transpose(2, 3).flatten(2), torch.nan)
    canvas = torch.maximum(ground, layers.amax(1))
    return Canvases(canvas[:, None], torch.where(present, labels[chosen], -1), boxes, ink.any(1))


def _edges(line: Tensor) -> Tensor:
    """First place and one past the last of what is true, (..., L) -> (..., 2)."""
    length = line.shape[-1]
    first, last = line.float().argmax(-1), length - line.flip(-1).float().argmax(-1)
    return torch.stack([first, last], dim=-1).float()


def canvases(
    background: str, digits: int | tuple[int, int], n: int, side: int, device: torch.device | str = "cpu"
) -> Canvases:
    """Canvases of one kind; of those with exactly two digits, only the ones whose digits differ.

    Args:
        background: "drawn blank" and so on, or "written blank" with MNIST's test digits.
        digits: how many a canvas holds, a number or a range.
        n: how many canvases are drawn.
        side: of the canvases, in pixels.
        device: where they are wanted.

    Raises:
        ValueError: a background of another name.
        DataMissing: handwriting is wanted, and MNIST is not there.
    """
    kind, _, ground = background.partition(" ")
    if kind not in ("drawn", "written") or ground not in DIGIT_BACKGROUNDS:
        raise ValueError(
            f"background must be 'drawn' or 'written', then one of {DIGIT_BACKGROUNDS}, got {background!r}"
        )
    if kind == "written":
        found = handwritten_canvases(*_test_digits(), n, SEED, side, digits, ground)
    else:
        drawn = digit_scenes(n, SEED, size=side, digits=digits, background=ground)
        found = Canvases(drawn.images, drawn.labels, drawn.boxes, drawn.masks.any(1))
    kept = found.labels[:, 0] != found.labels[:, 1] if digits in (2, (2, 2)) else slice(None)
    return Canvases(*(part[kept].to(device) for part in found))


@lru_cache(maxsize=1)
def _test_digits() -> tuple[Tensor, Tensor]:
    found = mnist("test")
    return found.images, found.labels


def lettered(value: float) -> list[tuple[Tensor, Tensor]]:
    """Gray photographs with a line of letters and digits: images (1, 1, H, W) and masks of the strokes (1, H, W).

    Args:
        value: brightness of the letters, in [0, 1].
    """
    found = []
    for name in LETTERED:
        gray = photo(name).mean(0, keepdim=True)
        height, width = gray.shape[1:]
        written = write(gray, TEXT, (height // 8, width // 12), height=height / 9, value=value)
        found.append((written.image[None], written.mask[None]))
    return found


def local_contrast(images: Tensor) -> Tensor:
    """How much brighter each pixel is than the mean of the square around it, (N, H, W)."""
    around = F.avg_pool2d(F.pad(images, [AROUND] * 4, mode="reflect"), 2 * AROUND + 1, 1)
    return (images - around)[:, 0]


def letters_without_network(values: Sequence[float]) -> dict[str, dict[str, float]]:
    """Pixel AUC, over the lettered photographs, of brightness and of local contrast, for letters of several values."""
    rules = {"brightness": lambda image: image[:, 0], "local contrast": local_contrast}
    found = {}
    for value in values:
        pairs = lettered(value)
        found[str(value)] = {
            name: sum(pixel_auc(rule(image), mask).item() for image, mask in pairs) / len(pairs)
            for name, rule in rules.items()
        }
    return found


def blurred(maps: Tensor) -> Tensor:
    """Maps (N, H, W) blurred as `metrics.blurred_map` blurs an image."""
    return background.blurred(maps[:, None], BLUR_SIGMA * max(maps.shape[1:]))[:, 0]


def localized(maps: Tensor, found: Canvases) -> list[float]:
    """Pixel AUC, pointing game, and pointing game within `NEAR` pixels of maps (N, H, W), means over the canvases."""
    near = pointing_game(maps, found.mask, tolerance=NEAR)
    return [one.nanmean().item() for one in (pixel_auc(maps, found.mask), pointing_game(maps, found.mask), near)]


def large(maps: Tensor, found: Canvases) -> Tensor:
    """Maps (B, h, w) or (B, K, h, w) as large as the canvases."""
    return upsample(maps, tuple(found.images.shape[2:]))


def without_network(found: Canvases) -> dict[str, list[float]]:
    """Baselines that know no network; the last is the chance that a place drawn by its ink is right, or nearly so."""
    ink = found.images[:, 0]
    near = dilate_masks(found.mask, NEAR)
    shares = [((ink * one).sum((1, 2)) / ink.sum((1, 2))).mean().item() for one in (found.mask, near)]
    return {
        "the image itself": localized(ink, found),
        "blurred image": localized(blurred_map(found.images), found),
        "centre": localized(center_map(found.images), found),
        "share of the ink": shares,
    }


def shares(maps: Tensor, found: Canvases) -> list[float]:
    """How often a map for one of two digits knows which was meant.

    Args:
        maps: (N, 2, H, W), for the first and the second digit.
        found: canvases of two digits.

    Returns:
        How often more of the map's positive part lies in its own digit's box than in the other's, a coin gets 1/2; and
        how often its hottest place lies in its own digit's box.
    """
    inside = box_mask(found.boxes, maps.shape[2:])  # (N, 2, H, W)
    own, other = mass_in_mask(maps, inside), mass_in_mask(maps, inside.flip(1))
    more = (own > other).float() + (own == other).float() / 2  # equal: a coin
    return [more.mean().item(), pointing_game(maps, inside).mean().item()]


def read(model: nn.Module, maps: Tensor, found: Canvases, cut: str | float, margin: float = 0.0) -> dict[str, float]:
    """Digits found and read by hot spots of maps (N, H, W), made smaller by a margin, and false alarms a canvas."""
    boxes = hotspots(maps, map_threshold(maps, cut))
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = ((boxes[..., 2:] - boxes[..., :2]) / 2 - margin).clamp_min(1)
    boxes = torch.cat([middle - half, middle + half], dim=-1)
    matched, reading = detections(boxes, found.boxes), read_hotspots(model, found.images, boxes)
    there = found.labels >= 0
    right = matched.found
    if boxes.shape[1]:
        right = right & (reading.labels.gather(1, matched.box.clamp_min(0)) == found.labels)
    return {
        "found": matched.found[there].float().mean().item(),
        "read": right[there].float().mean().item(),
        "false alarms": matched.false_alarms.float().mean().item(),
    }
