"""Grids of gray and colour images."""

from typing import Any

from helpers.plots._panels import BRIGHTNESS, Picture, Titles, image_array, map_grid, own_style, panels, show, unit


@own_style()
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
        return map_grid(pictures, titles, columns, scales, BRIGHTNESS, values, not (plain or values), label)
    if values:
        raise ValueError("values=True writes one number into a cell, so it wants gray images, got colour")
    figure, axes = panels(len(pictures), columns, pictures.shape[1:3], titles)
    for ax, picture in zip(axes, unit(pictures, black_white), strict=True):
        show(ax, picture)
    return figure
