"""The map of the where pathway: cells around the fixation, on rings like the superior colliculus, and the way back.

A cell holds how probably a look at its place would be answered rightly. `collicular_target` makes the cells out of an
accuracy map, `predicted_map` an accuracy map out of the cells.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from helpers._validate import check_tensor
from helpers.retina._grid import Geometry, grid_offsets
from helpers.search._information import check_accuracy

# The published layout: 10 eccentricities, each 1.41 times the next, out to 0.8 of half the display, and 24 azimuths.
RINGS, AZIMUTHS, RATIO, REACH = 10, 24, 1.41, 0.8
WIDTH = 0.25  # standard deviation of a cell's kernel, in its eccentricity
RIDGE = 0.01  # of the pseudo-inverse, for kernels of unit norm


@lru_cache(maxsize=4)
def _kernels(size: int) -> Tensor:
    """The weights with which each cell averages a display: (cells, size, size), those of a cell adding up to 1."""
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    centres = grid_offsets(Geometry(RINGS, AZIMUTHS, REACH / RATIO ** (RINGS - 1), REACH, 0.0)).flatten(0, 1)
    width = WIDTH * centres.norm(dim=1, keepdim=True)
    column, row = (torch.exp(-(((axis - centres[:, [k]]) / width) ** 2) / 2) for k in (0, 1))
    kernels = row[:, :, None] * column[:, None, :]
    return (kernels / kernels.sum((1, 2), keepdim=True)).float()


def collicular_target(accuracy: Tensor, places: Tensor, size: int = 128, chance: float = 0.1) -> Tensor:
    """What the where pathway should say: the accuracy map of the what pathway, around the object, seen by the cells.

    Args:
        accuracy: how often the what pathway is right when it looks so many pixels beside the object, (h, w), both odd,
            the middle at the object, in [0, 1].
        places: the objects, seen from the fixation, (N, 2), x and y in whole pixels, each less than half the display.
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
    check_accuracy(accuracy, "h w")
    if not all(side % 2 and side < size for side in accuracy.shape):
        raise ValueError(f"accuracy must be (h, w), odd sides below {size}, got {tuple(accuracy.shape)}")
    if not isinstance(places, Tensor) or len(places):  # no place is fine
        check_tensor(places, "places", "N 2", kind="integer")
        if int(places.abs().max()) >= size // 2:
            farthest = int(places.abs().max())
            raise ValueError(f"places must be whole pixels within +-{size // 2 - 1}, got one at {farthest}")
    kernels = _kernels(size)
    margin = [side // 2 for side in accuracy.shape]
    # The accuracy of looking at q when the object is at place: accuracy[q - place]. Correlating each kernel with the
    # map gives the sums for all places at once.
    padded = [size + 2 * m for m in margin]
    spectrum = torch.fft.rfft2(kernels, s=padded) * torch.fft.rfft2((accuracy.float().cpu() - chance), s=padded).conj()
    sums = torch.fft.irfft2(spectrum, s=padded)  # shifted by the map's middle, wrapped around
    sums = sums.roll(margin, dims=(1, 2))[:, :size, :size]
    # Places are counted from the centre, which lies between the pixels size / 2 - 1 and size / 2: an object at place 0
    # is looked at best from there, so the mean over the four pixels around it stands for it.
    pixels = places.cpu() + size // 2
    around = [sums[:, pixels[:, 1] - i, pixels[:, 0] - j] for i in (0, 1) for j in (0, 1)]
    cells = chance + torch.stack(around).mean(0).T
    return cells.clamp(0, 1).unflatten(1, (RINGS, AZIMUTHS)).to(accuracy.device)


@lru_cache(maxsize=4)
def _readout(size: int) -> Tensor:
    """Pseudo-inverse of the kernels, (cells, size * size): from cells to the least map that would give such cells."""
    kernels = _kernels(size).flatten(1).double()
    norms = kernels.norm(dim=1, keepdim=True)
    unit = kernels / norms  # else the fovea's small kernels would outweigh all others
    gram = unit @ unit.T + RIDGE * torch.eye(len(unit), dtype=torch.float64)
    return (torch.linalg.solve(gram, unit) / norms).float()


def predicted_map(cells: Tensor, size: int = 128, chance: float = 0.1) -> Tensor:
    """A map of cells as a map of the display: the accuracies of the what pathway that would give these cells.

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
    check_tensor(cells, "cells", f"N {RINGS} {AZIMUTHS}")
    return unchecked_predicted_map(cells, size, chance)


def unchecked_predicted_map(cells: Tensor, size: int, chance: float = 0.1) -> Tensor:
    """`predicted_map` of arguments that were checked."""
    maps = chance + ((cells.flatten(1) - chance) @ _readout(size).to(cells)).unflatten(1, (size, size))
    axis = (torch.arange(size, device=cells.device) + 0.5) * 2 / size - 1
    return torch.where(axis.square() + axis[:, None].square() <= 1, maps, chance)
