"""The two pathways: "what" names what lies under the gaze, "where" says from the periphery where looking would help.

Brain researchers call the what pathway *ventral* and the where pathway *dorsal*.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import check_count, check_images, check_tensor
from helpers.capture import preserved
from helpers.networks import AngularPad2d
from helpers.networks._architectures import Chain
from helpers.retina._grid import Geometry, check_fixations
from helpers.retina._sampling import sample_log_polar
from helpers.search._colliculus import AZIMUTHS, RATIO, REACH, RINGS, unchecked_predicted_map
from helpers.search._fixations import BATCH_SIZE, View, as_start, unchecked_label_map
from helpers.search._information import unchecked_fuse

FILTERS = 12  # as many as the published 6 orientations x 2 phases
HIDDEN = 1000
PER_CELL = 4  # samples of the dorsal retina for each cell of the map, along either axis
# Radially cell i lies in the middle of its 4 samples (row 4 i + 1.5): the retina reaches 1.5 samples, 3/8 of a ring,
# beyond the outermost and the innermost ring. Along the azimuth cell j lies on a sample (column 4 j).
DORSAL_RETINA = Geometry(
    RINGS * PER_CELL,
    AZIMUTHS * PER_CELL,
    r_min=REACH / RATIO ** (RINGS - 1 + 3 / 8),
    r_max=REACH * RATIO ** (3 / 8),
    start_angle=0.0,
)


def dorsal_view(x: Tensor, fixations: Tensor | None = None) -> Tensor:
    """What the where pathway sees around fixations: gray, log-polar, anti-aliased, four by four samples for each cell.

    Args:
        x: images, (B, C, H, W), normalised so that 0 is the mean of their pixels, since what lies outside an image is
            seen as 0; colours are averaged.
        fixations: (U, 2) or (B, U, 2), in [-1, 1]; None is the centre.

    Returns:
        (B, U, 1, 40, 96).

    Raises:
        ValueError: as `log_polar`.
    """
    check_images(x)
    return _dorsal_view(x, check_fixations(fixations, len(x)))


def _dorsal_view(x: Tensor, fixations: Tensor) -> Tensor:
    return sample_log_polar(x.mean(1, keepdim=True), fixations, DORSAL_RETINA, antialias=True)


class WhereNet(nn.Module):
    """From a dorsal view to a map: how probably the what pathway would answer rightly from a fixation at each cell.

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
        hidden = check_count(hidden, "hidden")
        # A filter spans its middle sample and a cell's width, 4 samples, to either side: 9. Radially its middle is row
        # 4 i, not the cell's 4 i + 1.5, which does not matter, as it is learned.
        side = 2 * PER_CELL + 1
        self.retina = nn.Sequential(
            AngularPad2d(PER_CELL),  # the azimuth is a circle: padded with its other end, not with zeros
            nn.Conv2d(1, FILTERS, side, stride=PER_CELL, padding=(PER_CELL, 0)),
            nn.ReLU(),
            nn.Flatten(),
        )
        features = FILTERS * RINGS * AZIMUTHS
        self.layers = nn.Sequential(
            nn.BatchNorm1d(features),
            nn.Linear(features, hidden), nn.ReLU(), nn.BatchNorm1d(hidden),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.BatchNorm1d(hidden),
            nn.Linear(hidden, RINGS * AZIMUTHS),
        )  # fmt: skip

    def forward(self, views: Tensor) -> Tensor:
        """Logits (B, 10, 24) of views (B, 1, 40, 96)."""
        check_tensor(views, "views", f"B 1 {RINGS * PER_CELL} {AZIMUTHS * PER_CELL}", finite=False)
        return self.layers(self.retina(views)).unflatten(1, (RINGS, AZIMUTHS))


class WhatNet(Chain):
    """The published what pathway, a LeNet for windows of 28 x 28 pixels: (B, 1, 28, 28) -> logits (B, classes).

    Two convolutions of 5 x 5, 20 and 50 maps (the article speaks of three convolutions, its code has two), 500 hidden
    units; 431,080 parameters for ten classes.

    Args:
        classes: number of logits.

    Source: the released code of Daucé, Albiges and Perrinet, Journal of Vision 20(8):22, 2020.
    """

    def __init__(self, classes: int = 10) -> None:
        classes = check_count(classes, "classes")
        super().__init__(
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(50 * 4 * 4, 500), nn.ReLU(), nn.Linear(500, classes),
        )  # fmt: skip


class Glimpses(NamedTuple):
    """What `dual_pathway` returns; S saccades.

    Attributes:
        fixations: (B, S + 1, 2), in [-1, 1].
        log_p: (B, S + 1, K) log-probabilities, of each view alone.
        beliefs: (B, S + 1, K) log-probabilities, of all views so far, fused.
        maps: (B, S, 10, 24), the accuracy that the where pathway predicted before each saccade, around its fixation.
    """

    fixations: Tensor
    log_p: Tensor
    beliefs: Tensor
    maps: Tensor


def dual_pathway(
    what: nn.Module,
    where: nn.Module,
    x: Tensor,
    saccades: int = 1,
    *,
    view: View,
    what_images: Tensor | None = None,
    start: Tensor | None = None,
    cautious: bool = False,
    batch_size: int = BATCH_SIZE,
) -> Glimpses:
    """Look, ask the where pathway for a better fixation, go there, look again.

    Where no cell says anything, the where pathway's map holds an accuracy of 0.1, whatever the number of labels K.

    Args:
        what: maps a view to logits (B, K).
        where: a `WhereNet`.
        x: images, (B, C, H, H), square, which the where pathway sees; normalised as for `dorsal_view`.
        saccades: how many, from 0 on.
        view: what the what pathway sees from a fixation, as in `label_map`.
        what_images: what the what pathway looks at, (B, C', H, H), when it is not `x`: in colour, for example.
        start: the first fixation, (2,) or (B, 2); None is the centre.
        cautious: the gaze stays where it is when no fixation promises more than the what pathway's confidence, as
            published; what it sees there again is not fused a second time.
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
    saccades, batch_size = check_count(saccades, "saccades", 0), check_count(batch_size, "batch_size")
    what_images = x if what_images is None else check_tensor(what_images, "what_images", f"{len(x)} C H W")
    fixation = as_start(start, len(x))  # (B, 2)

    def look(fixation: Tensor) -> Tensor:
        return unchecked_label_map(what, what_images, fixation[:, None], view, batch_size)[:, 0]

    fixations, log_p, maps = [fixation], [look(fixation)], []
    beliefs = [log_p[0]]
    for _ in range(saccades):
        cells = _where_cells(where, x, fixation, batch_size)
        promised, step = _best_step(cells, size, batch_size)
        moves = promised > (log_p[-1].amax(1).exp().cpu() if cautious else float("-inf"))
        fixation = torch.where(moves[:, None], (fixation + step * 2 / size).clamp(-1, 1), fixation)
        fixations.append(fixation)
        log_p.append(look(fixation))
        fused = unchecked_fuse(beliefs[-1], log_p[-1], None)
        beliefs.append(torch.where(moves[:, None].to(fused.device), fused, beliefs[-1]))
        maps.append(cells)
    return Glimpses(
        torch.stack(fixations, 1),
        torch.stack(log_p, 1),
        torch.stack(beliefs, 1),
        torch.stack(maps, 1) if maps else x.new_zeros(len(x), 0, RINGS, AZIMUTHS),
    )


def _where_cells(where_net: nn.Module, x: Tensor, fixation: Tensor, batch_size: int) -> Tensor:
    """The accuracies that the where pathway predicts around one fixation an image, (B, 2) -> (B, 10, 24)."""
    batches = zip(x.split(batch_size), fixation.double()[:, None].split(batch_size), strict=True)
    with preserved(where_net), torch.no_grad():
        return torch.cat([where_net(_dorsal_view(images, points)[:, 0]) for images, points in batches]).sigmoid()


def _best_step(cells: Tensor, size: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """The greatest accuracy that cells promise, (B,), and the way there in whole pixels, right and down, (B, 2)."""
    # Means of four neighbouring pixels, so that the gaze moves by whole pixels and a window need not be resampled:
    # pixel i lies i + 1/2 - size / 2 from the fixation, the middle of pixels i and i + 1 lies i + 1 - size / 2, a whole
    # number. A row has size - 1 of these means.
    maps = (unchecked_predicted_map(part, size) for part in cells.cpu().split(batch_size))
    means = torch.cat([F.avg_pool2d(batch, kernel_size=2, stride=1) for batch in maps])
    promised, best = means.flatten(1).max(1)
    return promised, torch.stack([best % (size - 1), best // (size - 1)], 1) + 1 - size // 2
