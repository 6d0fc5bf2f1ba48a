"""Grids of images, and boxes and fixations drawn on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle

from helpers.plots._panels import (
    INK,
    LINE_IN,
    SMALL_PT,
    Picture,
    Titles,
    array,
    image_array,
    legend,
    map_grid,
    panels,
    show,
    unit,
)

BOX_COLORS = ("#F0E442", "#56B4E9", "#D55E00", "#009E73")  # of Okabe and Ito; a dark rim sets them off
BOX_DASHES = ("-", "--", "-.", ":")


def images(
    x: Any,
    titles: Titles = None,
    *,
    columns: int = 5,
    vmin: float | None = None,
    vmax: float | None = None,
    values: bool = False,
    label: str = "",
) -> Picture:
    """A grid of gray or colour images.

    Values in [0, 1] and bytes are shown as they are. Gray images with other values share the scale from their
    least to their greatest value, shown by a colour bar.

    Args:
        x: (H, W), (N, H, W), (N, 1, H, W) or (N, 3, H, W).
        titles: one for each image.
        columns: images in a row at most.
        vmin: value shown black.
        vmax: value shown white.
        values: write the numbers into the cells (gray images, up to about 12 x 12).
        label: what the colour bar measures.

    Raises:
        ValueError: another rank, no image, or colour values outside [0, 1] without limits.
    """
    pictures, black_white = image_array(x, vmin, vmax)
    if pictures.ndim == 3:
        plain = black_white in ((0, 1), (0, 255))
        scales = [black_white] * len(pictures)
        return map_grid(pictures, titles, columns, scales, "gray", values, not (plain or values), label)
    if values:
        raise ValueError("values=True writes one number into a cell, so it wants gray images, got colour")
    figure, axes = panels(len(pictures), columns, pictures.shape[1:3], titles)
    for ax, picture in zip(axes, unit(pictures, black_white), strict=True):
        show(ax, picture)
    return figure


def boxes(
    images: Any,
    boxes: Any,
    labels: Sequence[Sequence[str]] | None = None,
    titles: Titles = None,
    *,
    columns: int = 5,
    thin: bool = False,
) -> Picture:
    """Boxes drawn on images.

    Args:
        images: (N, H, W), (N, 1, H, W) or (N, 3, H, W), values in [0, 1] or bytes.
        boxes: (x0, y0, x1, y1) in pixel edges, x1 and y1 exclusive: (N, 4), (N, K, 4), or a list of N arrays
            (K, 4); rows of NaN are padding. A dict name -> boxes draws several kinds, told apart by colour and dash.
        labels: for each image a label for each box (of the first kind).
        titles: one for each image.
        columns: images in a row at most.
        thin: hairlines, for hundreds of boxes an image (the leaves of a tree).

    Raises:
        ValueError: other shapes, or another N.
    """
    pictures, black_white = image_array(images)
    kinds = boxes if isinstance(boxes, Mapping) else {"": boxes}
    sets = [_box_arrays(box_set, len(pictures)) for box_set in kinds.values()]
    if len(sets) > len(BOX_COLORS):
        raise ValueError(f"boxes must be of at most {len(BOX_COLORS)} kinds, which can be told apart, got {len(sets)}")
    if labels is not None and len(labels) != len(pictures):
        raise ValueError(f"labels must give a list for each of the {len(pictures)} images, got {len(labels)}")
    below = LINE_IN / -(-len(pictures) // columns) if isinstance(boxes, Mapping) else 0  # one legend, not one a row
    figure, axes = panels(len(pictures), columns, pictures.shape[1:3], titles, extra_in=(0, below))
    for i, (ax, picture) in enumerate(zip(axes, unit(pictures, black_white), strict=True)):
        show(ax, picture, cmap="gray", vmin=0, vmax=1)
        for kind, box_lists in enumerate(sets):
            _draw_boxes(ax, box_lists[i], kind, labels[i] if labels is not None and kind == 0 else (), thin)
    if isinstance(boxes, Mapping):
        lines = [Line2D([], [], color=BOX_COLORS[k], linestyle=BOX_DASHES[k], **_rim()) for k in range(len(sets))]
        legend(figure, lines, list(kinds))
    return figure


def scanpaths(
    images: Any,
    fixations: Any,
    titles: Titles = None,
    *,
    radius: float | None = None,
    boxes: Any = None,
    columns: int = 5,
) -> Picture:
    """Fixations on images, numbered in the order of looking and joined by lines.

    Args:
        images: (N, H, W), (N, 1, H, W) or (N, 3, H, W), values in [0, 1] or bytes.
        fixations: (N, S, 2), or (S, 2) for every image; x, y in [-1, 1] from edge to edge.
        titles: one for each image.
        radius: of a circle around the last fixation, in half the image's shorter side.
        boxes: what was to be found, as `boxes` takes them: (N, 4), (N, K, 4), or a list; under the path.
        columns: images in a row at most.

    Raises:
        ValueError: other shapes, another N, or fixations beyond the edges.
    """
    pictures, black_white = image_array(images)
    paths = array(fixations, "fixations")
    paths = np.broadcast_to(paths, (len(pictures), *paths.shape)) if paths.ndim == 2 else paths
    if paths.ndim != 3 or paths.shape[2] != 2 or len(paths) != len(pictures):
        raise ValueError(f"fixations must be (S, 2) or ({len(pictures)}, S, 2), got {paths.shape}")
    if not (np.abs(paths) <= 1).all():  # NaN too
        raise ValueError(f"fixations must lie in [-1, 1], got {np.min(paths):.3g} .. {np.max(paths):.3g}")
    sought = None if boxes is None else _box_arrays(boxes, len(pictures))
    figure, axes = panels(len(pictures), columns, pictures.shape[1:3], titles)
    height, width = pictures.shape[1:3]
    for k, ax in enumerate(axes if sought is not None else []):
        _draw_boxes(ax, sought[k], 2, (), thin=False)
    for ax, picture, path in zip(axes, unit(pictures, black_white), (paths + 1) / 2 * (width, height), strict=True):
        show(ax, picture, cmap="gray", vmin=0, vmax=1)
        ax.plot(*path.T, color=BOX_COLORS[0], **_rim())
        for number, (x, y) in enumerate(path):
            spot = {"boxstyle": "circle,pad=0.15", "facecolor": BOX_COLORS[0], "edgecolor": "black"}
            style = {"ha": "center", "va": "center", "fontsize": SMALL_PT - 1, "color": INK, "bbox": spot}
            ax.text(x, y, str(number), **style)
        if radius is not None:
            seen = Circle(
                tuple(path[-1].tolist()), radius * min(height, width) / 2, fill=False, edgecolor=BOX_COLORS[1], **_rim()
            )
            ax.add_patch(seen)
        ax.set(xlim=(0, width), ylim=(height, 0))  # a circle that reaches beyond the image must not shrink it
    return figure


def _box_arrays(boxes: Any, count: int) -> list[np.ndarray]:
    """N arrays (K, 4) from (N, 4), (N, K, 4) or a list."""
    each = [np.zeros((0, 4)) if len(entry) == 0 else array(entry, "boxes") for entry in boxes]
    if len(each) != count:
        raise ValueError(f"boxes must give one entry for each of the {count} images, got {len(each)}")
    for entry in each:
        if entry.ndim > 2 or entry.shape[-1] != 4:
            raise ValueError(f"boxes must have shape (N, 4) or (N, K, 4), got an entry of shape {entry.shape}")
    return [entry.reshape(-1, 4) for entry in each]


def _box(box: Sequence[float], kind: int, thin: bool) -> Rectangle:
    x0, y0, x1, y1 = box
    style = {"fill": False, "edgecolor": BOX_COLORS[kind], "linestyle": BOX_DASHES[kind], "clip_on": False}
    return Rectangle((x0, y0), x1 - x0, y1 - y0, **style, **({"linewidth": 0.5} if thin else _rim()))


def _rim() -> dict[str, Any]:
    """A line with a dark rim, to be seen on any image."""
    return {"linewidth": 1.8, "path_effects": [patheffects.withStroke(linewidth=3.4, foreground="black")]}


def _draw_boxes(ax: Axes, boxes: np.ndarray, kind: int, labels: Sequence[str], thin: bool) -> None:
    for i, box in enumerate(boxes):
        if np.isnan(box).any():
            continue
        ax.add_patch(_box(box, kind, thin))
        if i < len(labels):
            style = {"facecolor": BOX_COLORS[kind], "edgecolor": "none", "pad": 1.5}
            inside = box[1] < 0.12 * ax.get_ylim()[0]  # no room above a box at the top edge
            va = "top" if inside else "bottom"
            ax.text(box[0], box[1], str(labels[i]), fontsize=SMALL_PT, color=INK, va=va, bbox=style)
