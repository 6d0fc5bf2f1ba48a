"""Boxes drawn on images, told apart by colour and dash."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from helpers.plots._panels import (
    BRIGHTNESS,
    INK,
    LINE_IN,
    SMALL_PT,
    Picture,
    Titles,
    array,
    image_array,
    legend,
    own_style,
    panels,
    show,
    unit,
)

BOX_COLORS = ("#F0E442", "#56B4E9", "#D55E00", "#009E73")  # of Okabe and Ito; a dark rim sets them off
BOX_DASHES = ("-", "--", "-.", ":")


@own_style()
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
    sets = [box_arrays(box_set, len(pictures)) for box_set in kinds.values()]
    if not 1 <= len(sets) <= len(BOX_COLORS):
        raise ValueError(f"boxes must be of 1 .. {len(BOX_COLORS)} kinds, which can be told apart, got {len(sets)}")
    if labels is not None and len(labels) != len(pictures):
        raise ValueError(f"labels must give a list for each of the {len(pictures)} images, got {len(labels)}")
    figure, axes = panels(len(pictures), columns, pictures.shape[1:3], titles)
    for i, (ax, picture) in enumerate(zip(axes, unit(pictures, black_white), strict=True)):
        show(ax, picture, cmap=BRIGHTNESS, vmin=0, vmax=1)
        for kind, box_lists in enumerate(sets):
            draw_boxes(ax, box_lists[i], kind, labels[i] if labels is not None and kind == 0 else (), thin)
    if isinstance(boxes, Mapping):
        figure.set_figheight(figure.get_figheight() + LINE_IN)
        lines = [Line2D([], [], color=BOX_COLORS[k], linestyle=BOX_DASHES[k], **dark_rim()) for k in range(len(sets))]
        legend(figure, lines, list(kinds))
    return figure


def box_arrays(boxes: Any, count: int) -> list[np.ndarray]:
    """N arrays (K, 4) from (N, 4), (N, K, 4) or a list."""
    try:
        each = [np.zeros((0, 4)) if len(entry) == 0 else array(entry, "boxes") for entry in boxes]
    except (TypeError, RuntimeError) as error:
        got = type(boxes).__name__
        raise ValueError(f"boxes must be (N, 4), (N, K, 4) or a list of N arrays, got a {got}") from error
    if len(each) != count:
        raise ValueError(f"boxes must give one entry for each of the {count} images, got {len(each)}")
    for entry in each:
        if entry.ndim > 2 or entry.shape[-1] != 4:
            raise ValueError(f"boxes must have shape (N, 4) or (N, K, 4), got an entry of shape {entry.shape}")
    return [entry.reshape(-1, 4) for entry in each]


def draw_boxes(ax: Axes, boxes: np.ndarray, kind: int, labels: Sequence[str], thin: bool) -> None:
    """Draw boxes (K, 4) of one kind on an image, with a label each as far as there are any."""
    for i, box in enumerate(boxes):
        if np.isnan(box).any():
            continue
        ax.add_patch(_box(box, kind, thin))
        if i < len(labels):
            style = {"facecolor": BOX_COLORS[kind], "edgecolor": "none", "pad": 1.5}
            inside = box[1] < 0.12 * ax.get_ylim()[0]  # no room above a box at the top edge
            va = "top" if inside else "bottom"
            ax.text(box[0], box[1], str(labels[i]), fontsize=SMALL_PT, color=INK, va=va, bbox=style)


def _box(box: Sequence[float], kind: int, thin: bool) -> Rectangle:
    x0, y0, x1, y1 = box
    style: dict[str, Any] = {
        "fill": False,
        "edgecolor": BOX_COLORS[kind],
        "linestyle": BOX_DASHES[kind],
        "clip_on": False,
    }
    return Rectangle((x0, y0), x1 - x0, y1 - y0, **style, **({"linewidth": 0.5} if thin else dark_rim()))


def dark_rim() -> dict[str, Any]:
    """A line with a dark rim, to be seen on any image."""
    return {"linewidth": 1.8, "path_effects": [patheffects.withStroke(linewidth=3.4, foreground="black")]}
