"""Fixations drawn on images, in the order of looking."""

from typing import Any

import numpy as np
from matplotlib.patches import Circle

from helpers.plots._boxes import BOX_COLORS, box_arrays, dark_rim, draw_boxes
from helpers.plots._panels import (
    BRIGHTNESS,
    INK,
    SMALL_PT,
    Picture,
    Titles,
    array,
    image_array,
    own_style,
    panels,
    show,
    unit,
)


@own_style()
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
    sought = None if boxes is None else box_arrays(boxes, len(pictures))
    figure, axes = panels(len(pictures), columns, pictures.shape[1:3], titles)
    height, width = pictures.shape[1:3]
    for ax, box_set in zip(axes, sought or [], strict=False):
        draw_boxes(ax, box_set, 2, (), thin=False)
    for ax, picture, path in zip(axes, unit(pictures, black_white), (paths + 1) / 2 * (width, height), strict=True):
        show(ax, picture, cmap=BRIGHTNESS, vmin=0, vmax=1)
        ax.plot(*path.T, color=BOX_COLORS[0], **dark_rim())
        for number, (x, y) in enumerate(path):
            spot = {"boxstyle": "circle,pad=0.15", "facecolor": BOX_COLORS[0], "edgecolor": "black"}
            style: dict[str, Any] = {
                "ha": "center",
                "va": "center",
                "fontsize": SMALL_PT - 1,
                "color": INK,
                "bbox": spot,
            }
            ax.text(x, y, str(number), **style)
        if radius is not None:
            seen = Circle(
                tuple(path[-1].tolist()),
                radius * min(height, width) / 2,
                fill=False,
                edgecolor=BOX_COLORS[1],
                **dark_rim(),
            )
            ax.add_patch(seen)
        ax.set(xlim=(0, width), ylim=(height, 0))  # a circle that reaches beyond the image must not shrink it
    return figure
