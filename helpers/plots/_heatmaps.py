"""Grids of maps: plain, signed, of different sizes, over their images; feature maps and kernels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from helpers.plots._panels import (
    BAR_IN,
    BRIGHTNESS,
    DIVERGING,
    LUMA,
    OWN_BAR_IN,
    SEQUENTIAL,
    Picture,
    Titles,
    array,
    color_bar,
    colors,
    image_array,
    limits,
    map_array,
    map_grid,
    own_bar,
    own_style,
    panels,
    show,
    symmetric,
    unit,
)

LARGE = 128 * 128  # places of a map, beyond which the ends of an overlay's scale are cut


@own_style()
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
    aligned: bool = False,
) -> Picture:
    """A grid of magnitudes on one scale, with its colour bar; NaN is gray. Evidence, of both signs, is `signed_maps`'.

    Args:
        x: (H, W) or (N, H, W).
        titles: one for each map.
        columns: maps in a row at most.
        vmin: lower limit; the least value of all maps when left out. It must be given where a value is below zero.
        vmax: upper limit; the greatest value of all maps when left out.
        each: every map on a scale of its own, which stands below it.
        values: write the numbers into the cells (up to about 12 x 12).
        label: what the colour bar measures.
        aligned: the columns mean something, so that there are `columns` of them, however narrow.

    Raises:
        ValueError: another rank, no map, no finite value, a negative one without vmin, or vmin not below vmax.
    """
    fields = map_array(x)
    if vmin is None and (fields < 0).any():
        least = np.nanmin(fields)
        raise ValueError(
            f"x must be magnitudes, 0 or more (signed_maps draws both signs), or vmin given, got {least:.3g}"
        )
    scales = [limits(field, vmin, vmax) for field in (fields if each else [fields] * len(fields))]
    return map_grid(fields, titles, columns, scales, SEQUENTIAL, values, not (each or values), label, each, aligned)


@own_style()
def gallery(pictures: Sequence[Any], titles: Titles = None, *, columns: int = 3) -> Picture:
    """Pictures and maps of different sizes, all equally wide; every map on a scale of its own, which stands below it.

    Args:
        pictures: images (1, H, W) or (3, H, W) with values in [0, 1], and maps (H, W), in any order. A map of both
            signs is drawn around zero.
        titles: one for each.
        columns: panels in a row at most.

    Raises:
        ValueError: no picture, another rank, or colours outside [0, 1].
    """
    if not hasattr(pictures, "__len__") or len(pictures) == 0:
        raise ValueError("pictures must hold at least one, got none")
    arrays = [array(entry, f"pictures[{i}]") for i, entry in enumerate(pictures)]
    for i, entry in enumerate(arrays):
        if entry.ndim not in (2, 3) or (entry.ndim == 3 and len(entry) not in (1, 3)):
            raise ValueError(f"pictures[{i}] must be (H, W), (1, H, W) or (3, H, W), got {entry.shape}")
    shapes = [entry.shape[-2:] for entry in arrays]
    below = OWN_BAR_IN if any(entry.ndim == 2 for entry in arrays) else 0
    figure, axes = panels(len(arrays), columns, shapes, titles, extra_in=below)
    for ax, entry in zip(axes, arrays, strict=True):
        if entry.ndim == 2:
            signed = (entry < 0).any() and (entry > 0).any()
            low, high = symmetric(entry, None) if signed else limits(entry, None, None)
            own_bar(ax, show(ax, entry, cmap=colors(DIVERGING if signed else SEQUENTIAL), vmin=low, vmax=high))
        else:
            if not (entry.min() >= 0 and entry.max() <= 1):
                raise ValueError(f"pictures must have values in [0, 1], got {entry.min():.3g} to {entry.max():.3g}")
            picture, shown = image_array(entry[None], 0, 1)
            show(ax, unit(picture, shown)[0], cmap=BRIGHTNESS, vmin=0, vmax=1)
    return figure


@own_style()
def signed_maps(
    x: Any,
    titles: Titles = None,
    *,
    columns: int = 5,
    limit: float | None = None,
    each: bool = False,
    values: bool = False,
    label: str = "",
    aligned: bool = False,
) -> Picture:
    """A grid of signed maps, symmetric around zero: zero white, positive red, negative blue; NaN is gray.

    Args:
        x: (H, W) or (N, H, W).
        titles: one for each map.
        columns: maps in a row at most.
        limit: the scale runs from -limit to limit; the greatest absolute value when left out.
        each: every map on a scale of its own, which stands below it.
        values: write the numbers into the cells (up to about 12 x 12).
        label: what the colour bar measures.
        aligned: the columns mean something, so that there are `columns` of them, however narrow.

    Raises:
        ValueError: another rank, no map, no finite value, or a limit that is not positive.
    """
    fields = map_array(x)
    scales = [symmetric(field, limit) for field in (fields if each else [fields] * len(fields))]
    return map_grid(fields, titles, columns, scales, DIVERGING, values, not (each or values), label, each, aligned)


@own_style()
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
    clip: float | None = None,
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
        each: every map on a scale of its own, which stands below it.
        smooth: interpolate between the cells of the map; otherwise its cells are seen.
        clip: share of a map's places that may lie beyond the ends of its scale, where these are not given. When left
            out none in maps of up to 128 x 128 places, and 0.005 in larger ones: a few pixels of a gradient would leave
            all others dark.
        label: what the colour bar measures.

    Raises:
        ValueError: as `images` and `maps`, when N differs, or a clip outside [0, 0.5).
    """
    fields = map_array(maps, "maps")
    pictures, black_white = image_array(images)
    if len(pictures) not in (1, len(fields)):
        raise ValueError(f"maps must be one for each of the {len(pictures)} images, got {len(fields)}")
    gray = unit(pictures @ LUMA if pictures.ndim == 4 else pictures, black_white)
    gray = np.broadcast_to(gray, (len(fields), *gray.shape[1:]))  # (N, H, W)
    clipped = _clipped(fields, clip)  # for the scales alone
    groups = clipped if each else [clipped] * len(fields)
    scales = [symmetric(field, vmax) if signed else limits(field, vmin, vmax) for field in groups]
    each_in, all_in = (OWN_BAR_IN, 0.0) if each else (0.0, BAR_IN)
    figure, axes = panels(len(fields), columns, gray.shape[1:], titles, extra_in=each_in, below_in=all_in)
    style = {"cmap": colors(DIVERGING if signed else SEQUENTIAL), "interpolation": "bilinear" if smooth else "nearest"}
    for ax, picture, field, (low, high) in zip(axes, gray, fields, scales, strict=True):
        show(ax, picture, cmap=BRIGHTNESS, vmin=0, vmax=1)
        drawn = show(ax, field, picture.shape, vmin=low, vmax=high, alpha=alpha, **style)
        if each:
            own_bar(ax, drawn)
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
        each: every map on a scale of its own, which stands below it.
        values: write the numbers into the cells.
        label: what the colour bar measures.

    Raises:
        ValueError: not of rank 3.
    """
    fields = array(activations, "activations")
    if fields.ndim != 3:
        raise ValueError(f"activations must be those of one image, (C, h, w), got {fields.shape}")
    titles = [str(i) for i in range(len(fields))] if titles is None else titles
    style: dict[str, Any] = {"columns": columns, "vmin": vmin, "vmax": vmax, "each": each, "values": values}
    return maps(fields, titles, label=label, **style)


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
    stack = array(weights, "weights")
    if stack.ndim != 4:
        raise ValueError(f"weights must have shape (out, in, k, k), got {stack.shape}")
    outputs, inputs = stack.shape[:2]
    if inputs > 8:
        raise ValueError(f"weights must have at most 8 input channels, got {inputs}; take a part, weights[:, :8]")
    if titles is None:
        names = [(f"{o}", f"{o} ← {i}") for o in range(outputs) for i in range(inputs)]
        titles = [short if inputs == 1 else long for short, long in names]
    flat = stack.reshape(-1, *stack.shape[2:])  # (out * in, k, k)
    columns = columns if inputs == 1 else inputs
    style: dict[str, Any] = {"columns": columns, "limit": limit, "values": values, "label": label}
    return signed_maps(flat, titles, **style, aligned=inputs > 1)


def _clipped(fields: np.ndarray, clip: float | None) -> np.ndarray:
    """Maps (N, h, w) without the values beyond the quantiles that leave a share of each map's places out."""
    clip = (0.0 if fields[0].size <= LARGE else 0.005) if clip is None else clip
    if not 0 <= clip < 0.5:
        raise ValueError(f"clip must be a share in [0, 0.5), got {clip!r}")
    if clip == 0:
        return fields
    low, high = np.nanquantile(fields, (clip / 2, 1 - clip / 2), axis=(1, 2), keepdims=True)
    return np.clip(fields, low, high)
