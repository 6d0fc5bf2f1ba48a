"""The map of the where pathway: cells around the fixation, on rings like the superior colliculus, and the way back.

A cell holds how probably the what pathway would answer rightly from a fixation at the cell. `collicular_target` makes
the cells out of an accuracy map, `predicted_map` an accuracy map out of the cells. The *display* is a square as
large as the image, the fixation its centre.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from helpers._validate import check_count, check_number, check_tensor
from helpers.device import own_precision, widened
from helpers.retina._grid import Geometry, grid_offsets, pixel_centers
from helpers.search._information import check_accuracy

# The layout of Daucé et al. 2020: 10 rings from the outermost inwards, each 1.41 times as far out as the next, the
# first at 0.8 of half the display; 24 azimuths.
RINGS, AZIMUTHS, RATIO, REACH = 10, 24, 1.41, 0.8
WIDTH = 0.25  # standard deviation of a cell's kernel, as a share of its eccentricity
RIDGE = 0.01  # of the pseudo-inverse, for kernels of unit norm
CHANCE = 0.1  # accuracy of a guess: 1 / 10 digits, as published


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # what is kept may serve where gradients are asked for
def _kernels(size: int) -> Tensor:
    """The weights with which each cell averages a display: (cells, size, size), those of a cell adding up to 1."""
    axis = pixel_centers(size, dtype=torch.float64)
    rings = Geometry(RINGS, AZIMUTHS, r_min=REACH / RATIO ** (RINGS - 1), r_max=REACH, start_angle=0.0)
    centres = grid_offsets(rings).flatten(0, 1)
    width = WIDTH * centres.norm(dim=1, keepdim=True)
    column, row = (torch.exp(-(((axis - centres[:, [k]]) / width) ** 2) / 2) for k in (0, 1))
    kernels = row[:, :, None] * column[:, None, :]
    return (kernels / kernels.sum((1, 2), keepdim=True)).float()


def collicular_target(accuracy: Tensor, places: Tensor, size: int = 128, chance: float = CHANCE) -> Tensor:
    """What the where pathway should say: the accuracy map of the what pathway, around the object, seen by the cells.

    Args:
        accuracy: how often the what pathway is right when it looks so many whole pixels beside the object, (h, w), both
            odd, the middle at the object, in [0, 1]: `accuracy_map` for offsets of whole pixels.
        places: the objects, seen from the fixation, (N, 2), x and y in whole pixels, each less than half the display.
        size: side of the display in pixels, even.
        chance: the accuracy beyond the map.

    Returns:
        (N, 10, 24), in [0, 1]: means over the display under each cell's kernel, a Gaussian as wide as a quarter of its
        eccentricity.

    Raises:
        ValueError: a map that is not (odd, odd) in [0, 1], places of another shape or outside the display, a size
            below 2, or a chance outside [0, 1].
    Source: Daucé, Albiges and Perrinet 2020; there the kernels are Gaussians of the log-polar plane, in the released
        code the filters' energies.
    """
    check_accuracy(accuracy, "h w")
    size, chance = _check_side(size), check_number(chance, "chance", 0, 1)
    if not all(side % 2 and side < size for side in accuracy.shape):
        raise ValueError(f"accuracy must be (h, w), odd sides below {size}, got {tuple(accuracy.shape)}")
    if not isinstance(places, Tensor) or len(places):  # no place is fine
        check_tensor(places, "places", "N 2", kind="integer")
        if int(places.abs().max()) >= size // 2:
            farthest = int(places.abs().max())
            raise ValueError(f"places must be whole pixels within +-{size // 2 - 1}, got one at {farthest}")
    kernels = _kernels(size)
    margin = [side // 2 for side in accuracy.shape]
    # With the object at p, looking at q is answered rightly with probability accuracy[q - p], counted from the map's
    # middle. Correlating each kernel with the map gives, for all p at once,
    # by_place[cell, p] = sum_q kernel[cell, q] (accuracy[q - p] - chance).
    # Padded, as the transform's correlation is circular and would wrap. With chance subtracted the map is 0 beyond its
    # edge, which the padding holds.
    padded = [size + 2 * m for m in margin]
    spectrum = torch.fft.rfft2(kernels, s=padded) * torch.fft.rfft2((accuracy.float().cpu() - chance), s=padded).conj()
    # The transform counts the map from its corner: the roll brings its middle to offset 0.
    by_place = torch.fft.irfft2(spectrum, s=padded).roll(margin, dims=(1, 2))[:, :size, :size]
    # Place 0, the centre of the display, is the corner between four pixels, and so is every place: the mean over the
    # four stands for it.
    pixels = places.cpu() + size // 2
    around = [by_place[:, pixels[:, 1] - i, pixels[:, 0] - j] for i in (0, 1) for j in (0, 1)]
    cells = chance + torch.stack(around).mean(0).T
    return cells.clamp(0, 1).unflatten(1, (RINGS, AZIMUTHS)).to(accuracy.device)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _map_from_cells(size: int) -> Tensor:
    """Pseudo-inverse of the kernels, (cells, size * size): from cells to the smallest map that nearly gives them."""
    # Kernels add up to 1, so small ones have large norms; scaled to norm 1, one ridge weighs on all alike. Cells /
    # norms are the responses of the unit kernels; because of the ridge the map gives them only nearly.
    kernels = _kernels(size).flatten(1).double()
    norms = kernels.norm(dim=1, keepdim=True)
    unit = kernels / norms
    gram = unit @ unit.T + RIDGE * torch.eye(len(unit), dtype=torch.float64, device="cpu")
    return (torch.linalg.solve(gram, unit) / norms).float()


def predicted_map(cells: Tensor, size: int = 128, chance: float = CHANCE) -> Tensor:
    """A map of cells as a map of the display: the accuracies of the what pathway that would give these cells.

    Args:
        cells: (N, 10, 24), in [0, 1].
        size: side of the display in pixels, even.
        chance: the accuracy where no cell says anything, and beyond the disc that the display holds.

    Returns:
        (N, size, size); the greatest value is where to look. On noiseless targets of an accuracy map that falls like a
        Gaussian of 3 to 8 pixels it lies within 4 pixels of the object, out to 40 of 64 (1 pixel in the mean).

    Raises:
        ValueError: cells of another shape, a size below 2, or a chance outside [0, 1].
    Source: Daucé, Albiges and Perrinet 2020: the pseudo-inverse of the cells' kernels, here with a ridge of 0.01.
    """
    check_tensor(cells, "cells", f"N {RINGS} {AZIMUTHS}")
    size, chance = _check_side(size), check_number(chance, "chance", 0, 1)
    return unchecked_predicted_map(cells, size, chance)


def _check_side(size: int) -> int:
    """The side of a display, if it is an even number of pixels."""
    size = check_count(size, "size", 2)
    if size % 2:
        raise ValueError(f"size must be even, for the centre lies between four pixels, got {size}")
    return size


def unchecked_predicted_map(cells: Tensor, size: int, chance: float = CHANCE) -> Tensor:
    """`predicted_map` of cells (N, rings, azimuths) that were checked: (N, size, size)."""
    wide = widened(cells.flatten(1)) - chance
    with own_precision(wide):
        maps = chance + (wide @ _map_from_cells(size).to(wide)).unflatten(1, (size, size))
    axis = pixel_centers(size, device=cells.device)
    return torch.where(axis.square() + axis[:, None].square() <= 1, maps, chance).to(cells.dtype)
