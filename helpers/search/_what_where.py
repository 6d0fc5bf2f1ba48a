"""The two pathways: "what" names what lies under the gaze, "where" says from the periphery where looking would help."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import check_count, check_images
from helpers.capture import preserved
from helpers.networks import AngularPad2d
from helpers.networks._architectures import Chain
from helpers.retina._grid import fine_grid, log_polar_grid
from helpers.retina._sampling import log_polar
from helpers.search._fixations import CHUNK, View, label_map
from helpers.search._information import fuse

# The published layout: 10 eccentricities, each 1.41 times the next, out to 0.8 of half the display, and 24 azimuths.
RINGS, AZIMUTHS, RATIO, REACH = 10, 24, 1.41, 0.8
ORIENTATIONS, PHASES = 6, 2  # of the published filters, whose place 12 learned ones take
HIDDEN = 1000
PER_CELL = 4  # samples of the dorsal retina for each cell of the map, along either axis
RIDGE = 0.01  # of the pseudo-inverse, for kernels of unit norm
WIDTH = 0.25  # standard deviation of a cell's kernel, in its eccentricity


def collicular_grid() -> Tensor:
    """Centres of the cells of the where pathway's map: 10 eccentricities by 24 azimuths.

    Returns:
        (10, 24, 2), x and y from the fixation, in half the display; row 0 is the outermost ring. On a display of 128
        pixels the rings lie 51 to 2.3 pixels out.

    Source: Daucé, Albiges and Perrinet, Journal of Vision 20(8):22, 2020, and its released code.
    """
    return log_polar_grid(RINGS, AZIMUTHS, REACH / RATIO ** (RINGS - 1), REACH)


def dorsal_view(x: Tensor, fixations: Tensor | None = None) -> Tensor:
    """What the where pathway sees: the whole display, gray, log-polar, anti-aliased; four by four samples a cell.

    Args:
        x: images, (B, C, H, W), whose mean is 0; colours are averaged.
        fixations: (U, 2) or (B, U, 2), in [-1, 1]; None is the centre.

    Returns:
        (B, U, 1, 40, 96).

    Raises:
        ValueError: as `log_polar`.
    """
    # Four samples a cell, its centre in their middle: one and a half samples farther out and in than the rings.
    outer, inner = REACH * RATIO ** (3 / 8), REACH / RATIO ** (RINGS - 1 + 3 / 8)
    size = (RINGS * PER_CELL, AZIMUTHS * PER_CELL)
    return log_polar(check_images(x).mean(1, keepdim=True), fixations, size, inner, outer, antialias=True)


class WhereNet(nn.Module):
    """From a dorsal view to a map of how probably a look at each place would be answered rightly.

    (B, 1, 40, 96) -> logits (B, 10, 24), whose sigmoid is the predicted accuracy. Twelve filters of 9 x 9 samples at
    every cell, learned here (the published ones are log-Gabors of 6 orientations and 2 phases, as many), then two
    hidden layers with batch normalisation and one number a cell.

    Args:
        hidden: units of each hidden layer; 1000 as published.

    Raises:
        ValueError: hidden is not a positive integer, or, on use, a view of another shape.
    Source: Daucé, Albiges and Perrinet, Journal of Vision 20(8):22, 2020: 2880-1000-1000-240.
    """

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        check_count(hidden, "hidden")
        filters, side = ORIENTATIONS * PHASES, 2 * PER_CELL + 1
        self.retina = nn.Sequential(
            AngularPad2d(PER_CELL), nn.Conv2d(1, filters, side, PER_CELL, (PER_CELL, 0)), nn.ReLU(), nn.Flatten()
        )
        wide = filters * RINGS * AZIMUTHS
        self.layers = nn.Sequential(
            nn.BatchNorm1d(wide),
            nn.Linear(wide, hidden), nn.ReLU(), nn.BatchNorm1d(hidden),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.BatchNorm1d(hidden),
            nn.Linear(hidden, RINGS * AZIMUTHS),
        )  # fmt: skip

    def forward(self, views: Tensor) -> Tensor:
        """Logits (B, 10, 24) of views (B, 1, 40, 96)."""
        wanted = (1, RINGS * PER_CELL, AZIMUTHS * PER_CELL)
        if views.ndim != 4 or views.shape[1:] != wanted:
            raise ValueError(f"views must be (B, {', '.join(map(str, wanted))}), got {tuple(views.shape)}")
        return self.layers(self.retina(views)).unflatten(1, (RINGS, AZIMUTHS))


class WhatNet(Chain):
    """The published what pathway, a LeNet for windows of 28 x 28 pixels: (B, 1, 28, 28) -> logits (B, classes).

    Two convolutions of 5 x 5 (20 and 50 maps, the article says three, its code has two), 500 hidden units; 431,080
    parameters for ten classes.

    Args:
        classes: number of logits.

    Source: the released code of Daucé, Albiges and Perrinet, Journal of Vision 20(8):22, 2020.
    """

    def __init__(self, classes: int = 10) -> None:
        check_count(classes, "classes")
        super().__init__(
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(50 * 4 * 4, 500), nn.ReLU(), nn.Linear(500, classes),
        )  # fmt: skip


@lru_cache(maxsize=4)
def _kernels(size: int) -> Tensor:
    """What each cell collects of a display: (cells, size, size), each adding up to 1."""
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    centres = fine_grid(RINGS, AZIMUTHS, REACH / RATIO ** (RINGS - 1), REACH, 0.0).flatten(0, 1)
    spread = WIDTH * centres.norm(dim=1, keepdim=True)
    column, row = (torch.exp(-(((axis - centres[:, [k]]) / spread) ** 2) / 2) for k in (0, 1))
    found = row[:, :, None] * column[:, None, :]
    return (found / found.sum((1, 2), keepdim=True)).float()


def collicular_target(accuracy: Tensor, places: Tensor, size: int = 128, chance: float = 0.1) -> Tensor:
    """What the where pathway should say: the accuracy map of the what pathway, around the object, seen by the cells.

    Args:
        accuracy: how often the what pathway is right when it looks so many pixels beside the object, (h, w), both odd,
            the middle at the object, in [0, 1].
        places: from the fixation to the object, (N, 2), x and y in whole pixels, each less than half the display.
        size: side of the display in pixels, even.
        chance: the accuracy beyond the map.

    Returns:
        (N, 10, 24), in [0, 1]: means over the display under each cell's kernel, a Gaussian as wide as a quarter of its
        eccentricity.

    Raises:
        ValueError: a map that is not (odd, odd) in [0, 1], or places of another shape or outside the display.
    Source: Daucé, Albiges and Perrinet 2020; there the kernels are Gaussians of the log-polar plane, in the released
        code the filters' energies.
    """
    good = isinstance(accuracy, Tensor) and accuracy.ndim == 2 and all(n % 2 and n < size for n in accuracy.shape)
    if not good or not bool(((accuracy >= 0) & (accuracy <= 1)).all()):
        got = getattr(accuracy, "shape", accuracy)
        raise ValueError(f"accuracy must be (h, w), odd sides below {size}, in [0, 1], got {got}")
    whole = isinstance(places, Tensor) and places.ndim == 2 and places.shape[1] == 2 and not places.is_floating_point()
    if not whole or (places.numel() and int(places.abs().max()) >= size // 2):
        raise ValueError(f"places must be (N, 2) whole pixels within +-{size // 2 - 1}, got {places!r:.80}")
    kernels = _kernels(size)
    reach = [n // 2 for n in accuracy.shape]
    # The accuracy of looking at q when the object is at place: accuracy[q - place]. Correlating each kernel with the
    # map gives the sums for all places at once.
    wide = [size + 2 * r for r in reach]
    spectrum = torch.fft.rfft2(kernels, s=wide) * torch.fft.rfft2((accuracy.float().cpu() - chance), s=wide).conj()
    sums = torch.fft.irfft2(spectrum, s=wide)  # shifted by the map's middle, wrapped around
    sums = sums.roll(reach, dims=(1, 2))[:, :size, :size]
    # Places are counted from the centre, which lies between the pixels size / 2 - 1 and size / 2: an object at place 0
    # is looked at best from there, so the mean over the four pixels around it stands for it.
    at = places.cpu() + size // 2
    near = [sums[:, at[:, 1] - i, at[:, 0] - j] for i in (0, 1) for j in (0, 1)]
    found = chance + torch.stack(near).mean(0).T
    return found.clamp(0, 1).unflatten(1, (RINGS, AZIMUTHS)).to(accuracy.device)


@lru_cache(maxsize=4)
def _readout(size: int) -> Tensor:
    """Pseudo-inverse of the kernels, (cells, size * size): from cells to the smallest map that they could have seen."""
    kernels = _kernels(size).flatten(1).double()
    heights = kernels.norm(dim=1, keepdim=True)
    even = kernels / heights  # else the fovea's small kernels would outweigh all others
    gram = even @ even.T + RIDGE * torch.eye(len(even), dtype=torch.float64)
    return (torch.linalg.solve(gram, even) / heights).float()


def predicted_map(cells: Tensor, size: int = 128, chance: float = 0.1) -> Tensor:
    """A map of cells as a map of the display: what the what pathway's accuracy would have to be to make these cells.

    Args:
        cells: (N, 10, 24), in [0, 1].
        size: side of the display in pixels, even.
        chance: the accuracy where no cell says anything, and beyond the disc that the display holds.

    Returns:
        (N, size, size); the greatest value is where to look. On noiseless targets of an accuracy map that falls like a
        Gaussian of 3 to 8 pixels it lies within 4 pixels of the object, out to 40 of 64 (1 pixel in the mean).

    Raises:
        ValueError: cells of another shape.
    Source: Daucé, Albiges and Perrinet 2020: the pseudo-inverse of the cells' kernels, here with a ridge of 0.01.
    """
    if not isinstance(cells, Tensor) or cells.ndim != 3 or cells.shape[1:] != (RINGS, AZIMUTHS):
        raise ValueError(f"cells must be (N, {RINGS}, {AZIMUTHS}), got {getattr(cells, 'shape', cells)}")
    found = chance + ((cells.flatten(1) - chance) @ _readout(size).to(cells)).unflatten(1, (size, size))
    axis = (torch.arange(size, device=cells.device) + 0.5) * 2 / size - 1
    return torch.where(axis.square() + axis[:, None].square() <= 1, found, chance)


class Glimpses(NamedTuple):
    """What `dual_pathway` returns; S saccades.

    Attributes:
        fixations: (B, S + 1, 2), in [-1, 1].
        views: (B, S + 1, K) log-probabilities, of each view alone.
        beliefs: (B, S + 1, K) log-probabilities, of all views so far, fused.
        maps: (B, S, 10, 24), the accuracy that the where pathway predicted before each saccade, around its fixation.
    """

    fixations: Tensor
    views: Tensor
    beliefs: Tensor
    maps: Tensor


def dual_pathway(
    what: nn.Module,
    where: nn.Module,
    x: Tensor,
    saccades: int = 1,
    *,
    view: View,
    ventral: Tensor | None = None,
    start: Tensor | None = None,
    cautious: bool = False,
    batch_size: int = CHUNK,
) -> Glimpses:
    """Look, ask the where pathway for a better place, go there, look again.

    Args:
        what: maps a view to logits (B, K).
        where: a `WhereNet`.
        x: images, (B, C, S, S), square, whose mean is 0.
        saccades: how many, from 0 on.
        view: what the what pathway sees, as in `label_map`.
        ventral: what it sees it of, (B, C', S, S); x itself when None.
        start: the first fixation, (2,) or (B, 2); None is the centre.
        cautious: the gaze stays where it is when no place promises more than the what pathway's confidence, as
            published; such a view is not fused a second time.
        batch_size: views a forward pass.

    Returns:
        `Glimpses`.

    Raises:
        ValueError: images that are not square, or what `label_map` refuses.
    Source: Daucé, Albiges and Perrinet 2020; Jérémie, Perrinet and Daucé, CCN 2025, figure 7.
    """
    check_images(x)
    size = x.shape[-1]
    if x.shape[-2] != size or size % 2:
        raise ValueError(f"x must be square, of even sides, got {tuple(x.shape)}")
    if isinstance(saccades, bool) or not isinstance(saccades, int) or saccades < 0:
        raise ValueError(f"saccades must be an integer from 0 on, got {saccades!r}")
    seen = x if ventral is None else check_images(ventral)
    start = torch.zeros(2) if start is None else start
    if not isinstance(start, Tensor) or start.shape not in ((2,), (len(x), 2)):
        raise ValueError(f"start must be (2,) or ({len(x)}, 2), got {getattr(start, 'shape', start)}")
    at = start.float().cpu().expand(len(x), 2)
    fixations, views, maps = [at], [label_map(what, seen, at[:, None], view, batch_size)[:, 0]], []
    beliefs = [views[0]]
    for _ in range(saccades):
        with preserved(where), torch.no_grad():
            parts = zip(x.split(batch_size), at[:, None].split(batch_size), strict=True)
            cells = torch.cat([where(dorsal_view(*part)[:, 0]) for part in parts]).sigmoid()
        # Between four pixels each, so that the gaze moves by whole pixels and a window need not be resampled.
        promised = torch.cat(
            [F.avg_pool2d(predicted_map(part, size), 2, 1).flatten(1) for part in cells.cpu().split(batch_size)]
        )
        best = promised.max(1)
        step = torch.stack([best.indices % (size - 1), best.indices // (size - 1)], 1) + 1 - size // 2  # pixels
        goes = best.values > views[-1].amax(1).exp().cpu() if cautious else torch.ones(len(x), dtype=torch.bool)
        at = torch.where(goes[:, None], (at + step * 2 / size).clamp(-1, 1), at)
        one = label_map(what, seen, at[:, None], view, batch_size)[:, 0]
        told = fuse(beliefs[-1], one)
        beliefs.append(torch.where(goes[:, None].to(one.device), told, beliefs[-1]))
        fixations.append(at)
        views.append(one)
        maps.append(cells)
    empty = x.new_zeros(len(x), 0, RINGS, AZIMUTHS)
    return Glimpses(
        torch.stack(fixations, 1),
        torch.stack(views, 1),
        torch.stack(beliefs, 1),
        torch.stack(maps, 1) if maps else empty,
    )
