"""Grids of maps: plain, signed, of different sizes, over their images; feature maps and kernels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from helpers.plots._panels import (
    BAR_IN,
    LINE_IN,
    LUMA,
    Picture,
    Titles,
    array,
    color_bar,
    colors,
    image_array,
    limits,
    map_array,
    map_grid,
    note,
    panels,
    show,
    symmetric,
    unit,
)


def maps(
    x: Any,
    titles: Titles = None,
    *,
    columns: int = 5,
    vmin: float | None = None,
    vmax: float | None = None,
    each: bool = False,
    values: bool = False,
    label: str = "",
    cmap: str = "viridis",
) -> Picture:
    """A grid of maps on one scale, with its colour bar; NaN is gray.

    Args:
        x: (H, W) or (N, H, W).
        titles: one for each map.
        columns: maps in a row at most.
        vmin: lower limit; the least value of all maps when left out.
        vmax: upper limit; the greatest value of all maps when left out.
        each: every map on a scale of its own, its limits written below it.
        values: write the numbers into the cells (up to about 12 x 12).
        label: what the colour bar measures.
        cmap: a perceptually uniform colour map.

    Raises:
        ValueError: another rank, no map, no finite value, or vmin not below vmax.
    """
    found = map_array(x)
    shown = [limits(one, vmin, vmax) for one in (found if each else [found] * len(found))]
    return map_grid(found, titles, columns, shown, cmap, values, not (each or values), label, each)


def gallery(pictures: Sequence[Any], titles: Titles = None, *, columns: int = 3, cmap: str = "viridis") -> Picture:
    """Pictures and maps of different sizes, all equally wide; every map on a scale of its own, written below it.

    Args:
        pictures: images (1, H, W) or (3, H, W) with values in [0, 1], and maps (H, W), in any order.
        titles: one for each.
        columns: panels in a row at most.
        cmap: of the maps, perceptually uniform.

    Raises:
        ValueError: no picture, another rank, or colours outside [0, 1].
    """
    if len(pictures) == 0:
        raise ValueError("pictures must hold at least one, got none")
    found = [array(one, f"pictures[{i}]") for i, one in enumerate(pictures)]
    for i, one in enumerate(found):
        if one.ndim not in (2, 3) or (one.ndim == 3 and len(one) not in (1, 3)):
            raise ValueError(f"pictures[{i}] must be (H, W), (1, H, W) or (3, H, W), got {one.shape}")
    shapes = [one.shape[-2:] for one in found]
    below = LINE_IN if any(one.ndim == 2 for one in found) else 0
    figure, axes = panels(len(found), columns, shapes, titles, extra_in=(0, below))
    for ax, one in zip(axes, found, strict=True):
        if one.ndim == 2:
            low, high = limits(one, None, None)
            show(ax, one, cmap=colors(cmap), vmin=low, vmax=high)
            note(ax, (low, high))
        else:
            if not (one.min() >= 0 and one.max() <= 1):
                raise ValueError(f"pictures must have values in [0, 1], got {one.min():.3g} to {one.max():.3g}")
            picture, shown = image_array(one[None], 0, 1)
            show(ax, unit(picture, shown)[0], cmap="gray", vmin=0, vmax=1)
    return figure


def signed_maps(
    x: Any,
    titles: Titles = None,
    *,
    columns: int = 5,
    limit: float | None = None,
    each: bool = False,
    values: bool = False,
    label: str = "",
    cmap: str = "RdBu_r",
) -> Picture:
    """A grid of signed maps, symmetric around zero: zero white, positive red, negative blue; NaN is gray.

    Args:
        x: (H, W) or (N, H, W).
        titles: one for each map.
        columns: maps in a row at most.
        limit: the scale runs from -limit to limit; the greatest absolute value when left out.
        each: every map on a scale of its own, its limits written below it.
        values: write the numbers into the cells (up to about 12 x 12).
        label: what the colour bar measures.
        cmap: a diverging colour map.

    Raises:
        ValueError: another rank, no map, no finite value, or a limit that is not positive.
    """
    found = map_array(x)
    shown = [symmetric(one, limit) for one in (found if each else [found] * len(found))]
    return map_grid(found, titles, columns, shown, cmap, values, not (each or values), label, each)


def overlay(
    images: Any,
    maps: Any,
    titles: Titles = None,
    *,
    columns: int = 5,
    alpha: float = 0.6,
    vmin: float | None = None,
    vmax: float | None = None,
    signed: bool = False,
    each: bool = False,
    smooth: bool = False,
    label: str = "",
) -> Picture:
    """Maps laid over their images in gray, with their scale; a coarse map is stretched over the whole image.

    Args:
        images: (H, W), (N, H, W), (N, 1, H, W) or (N, 3, H, W); one image may carry several maps.
        maps: (h, w) or (N, h, w).
        titles: one for each map.
        columns: panels in a row at most.
        alpha: opacity of the map, 0 .. 1.
        vmin: lower limit of the scale; the least value of all maps when left out.
        vmax: upper limit; the greatest value of all maps when left out.
        signed: a diverging colour map with limits -vmax, vmax.
        each: every map on a scale of its own, its limits written below it.
        smooth: interpolate between the cells of the map; otherwise its cells are seen.
        label: what the colour bar measures.

    Raises:
        ValueError: as `images` and `maps`, or when N differs.
    """
    found = map_array(maps, "maps")
    pictures, black_white = image_array(images)
    if len(pictures) not in (1, len(found)):
        raise ValueError(f"maps must be one for each of the {len(pictures)} images, got {len(found)}")
    gray = unit(pictures @ LUMA if pictures.ndim == 4 else pictures, black_white)
    gray = np.broadcast_to(gray, (len(found), *gray.shape[1:]))  # (N, H, W)
    groups = found if each else [found] * len(found)
    shown = [symmetric(one, vmax) if signed else limits(one, vmin, vmax) for one in groups]
    extra = (0, LINE_IN) if each else (BAR_IN, 0)
    figure, axes = panels(len(found), columns, gray.shape[1:], titles, extra_in=extra)
    style = {"cmap": colors("RdBu_r" if signed else "viridis"), "interpolation": "bilinear" if smooth else "nearest"}
    for ax, picture, one, (low, high) in zip(axes, gray, found, shown, strict=True):
        show(ax, picture, cmap="gray", vmin=0, vmax=1)
        drawn = show(ax, one, picture.shape, vmin=low, vmax=high, alpha=alpha, **style)
        if each:
            note(ax, (low, high))
    if not each:
        color_bar(figure, axes, drawn, label)
    return figure


def feature_maps(
    activations: Any,
    titles: Titles = None,
    *,
    columns: int = 5,
    vmin: float | None = None,
    vmax: float | None = None,
    each: bool = False,
    values: bool = False,
    label: str = "activation",
) -> Picture:
    """The feature maps of one image at one layer, on one scale.

    Args:
        activations: (C, h, w), for example `activations(model, x, "conv1")["conv1"][0]`.
        titles: one for each map; its number when left out.
        columns: maps in a row at most.
        vmin: lower limit of the scale; the least value when left out.
        vmax: upper limit; the greatest value when left out.
        each: every map on a scale of its own, its limits written below it.
        values: write the numbers into the cells.
        label: what the colour bar measures.

    Raises:
        ValueError: not of rank 3.
    """
    found = array(activations, "activations")
    if found.ndim != 3:
        raise ValueError(f"activations must be those of one image, (C, h, w), got {found.shape}")
    titles = [str(i) for i in range(len(found))] if titles is None else titles
    style = {"columns": columns, "vmin": vmin, "vmax": vmax, "each": each, "values": values}
    return maps(found, titles, label=label, cmap="magma", **style)


def kernels(
    weights: Any,
    titles: Titles = None,
    *,
    columns: int = 5,
    limit: float | None = None,
    values: bool = False,
    label: str = "weight",
) -> Picture:
    """The kernels of a convolution as signed maps on one scale.

    Args:
        weights: (out, in, k, k), as in `nn.Conv2d.weight`. With in = 1 the grid is wrapped; otherwise a row is an
            output channel and a column an input channel.
        titles: one for each kernel, row by row; the channel numbers when left out.
        columns: kernels in a row at most (in = 1).
        limit: the scale runs from -limit to limit; the greatest absolute value when left out.
        values: write the weights into the cells.
        label: what the colour bar measures.

    Raises:
        ValueError: not of rank 4, or more than 8 input channels.
    """
    found = array(weights, "weights")
    if found.ndim != 4:
        raise ValueError(f"weights must have shape (out, in, k, k), got {found.shape}")
    outputs, inputs = found.shape[:2]
    if inputs > 8:
        raise ValueError(f"weights: a row holds up to 8 input channels, got {inputs}; take a part, weights[:, :8]")
    if titles is None:
        names = [(f"{o}", f"{o} ← {i}") for o in range(outputs) for i in range(inputs)]
        titles = [short if inputs == 1 else long for short, long in names]
    flat = found.reshape(-1, *found.shape[2:])  # (out * in, k, k)
    columns = columns if inputs == 1 else inputs
    return signed_maps(flat, titles, columns=columns, limit=limit, values=values, label=label)
