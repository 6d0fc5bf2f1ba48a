"""What the figures share: arrays from tensors, limits, grids of panels, numbers in cells, colour bars, legends."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Literal, cast

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

DPI, DENSITY = 120, 2  # of the page's pixels, and the pixels of a picture for each of them
WIDTH_IN, MAX_WIDTH_IN = 5.8, 8.0  # narrow, so that text stays readable when a phone shrinks it; the widest figure
MIN_PANEL_IN, MAX_PANEL_IN = 160 / DPI, 2.4
TEXT_PT, SMALL_PT = 11.0, 10.0
CHAR_IN = 0.6 * SMALL_PT / 72  # mean width of a character
LINE_IN = 1.35 * TEXT_PT / 72
BAR_IN = 0.62  # room for a colour bar, its numbers and its name
OWN_BAR_IN = 0.34  # room below a panel for a bar of its own
SEQUENTIAL, DIVERGING, BRIGHTNESS = "viridis", "RdBu_r", "gray"  # magnitudes, evidence around zero, pictures
INK, FAINT, NEUTRAL = "#222222", "#8a8a8a", "#c8c8c8"  # text, axes, NaN
LUMA = np.array((0.299, 0.587, 0.114))  # ITU-R BT.601

Limits = tuple[float, float]
Titles = str | Sequence[str] | None


@contextmanager
def own_style() -> Iterator[None]:
    """Inside, matplotlib has its own settings, not the reader's: a dark style would leave dark text on dark ground."""
    with matplotlib.style.context("default"):
        yield


class Picture(Figure):
    """A Figure that any notebook shows by itself, whether or not pyplot or the inline backend is loaded."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The picture, sharp on screens of twice the density, and its size in the page's pixels."""
        drawn, small = io.BytesIO(), io.BytesIO()
        with own_style():
            self.savefig(drawn, format="png", bbox_inches="tight", dpi=DENSITY * self.dpi)
        with Image.open(drawn) as image:
            image.convert("RGB").save(small, format="png", optimize=True, dpi=image.info["dpi"])
            width, height = image.size
        return small.getvalue(), {"width": width // DENSITY, "height": height // DENSITY}


def blank(width_in: float, height_in: float, layout: Literal["constrained", "compressed"] = "constrained") -> Picture:
    """An empty white figure of this size (inches)."""
    return Picture(figsize=(width_in, height_in), dpi=DPI, layout=layout, facecolor="white")


def array(x: Any, name: str) -> np.ndarray:
    """A float64 array from a tensor or anything numpy takes, not empty; `name` is the argument's name."""
    try:
        x = x.detach().cpu().double().numpy() if hasattr(x, "detach") else x
        values = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # on the meta device, sparse, a list of words
        got = type(x).__name__
        raise ValueError(f"{name} must hold numbers, in a plain (dense) tensor or an array, got a {got}") from error
    if values.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {values.shape}")
    return values


def map_array(x: Any, name: str = "x") -> np.ndarray:
    """Maps as (N, H, W) from (H, W) or (N, H, W)."""
    fields = array(x, name)
    if fields.ndim not in (2, 3):
        raise ValueError(f"{name} must have shape (H, W) or (N, H, W), got {fields.shape}")
    return fields if fields.ndim == 3 else fields[None]


def image_array(x: Any, vmin: float | None = None, vmax: float | None = None) -> tuple[np.ndarray, Limits]:
    """Images as (N, H, W) gray or (N, H, W, 3) colour, and the values shown black and white."""
    pictures = array(x, "images")
    if pictures.ndim == 4 and pictures.shape[1] in (1, 3):
        pictures = pictures[:, 0] if pictures.shape[1] == 1 else np.moveaxis(pictures, 1, -1)  # (N, H, W[, 3])
    elif pictures.ndim not in (2, 3):
        layouts = "(H, W), (N, H, W), (N, 1, H, W) or (N, 3, H, W)"
        raise ValueError(f"images must have shape {layouts}, got {pictures.shape}")
    pictures = pictures[None] if pictures.ndim == 2 else pictures
    low, high = _finite_range(pictures)
    if "uint8" in str(getattr(x, "dtype", "")):
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif pictures.ndim == 4 and (vmin is None or vmax is None):
        got = f"{number(low)} .. {number(high)}"
        raise ValueError(f"images in colour must lie in [0, 1] or be bytes, got {got}; or give vmin and vmax")
    return pictures, limits(np.array((low, high)), vmin, vmax)


def limits(x: np.ndarray, vmin: float | None, vmax: float | None) -> Limits:
    """The least and the greatest finite value, where they are not given."""
    least, greatest = _finite_range(x)
    low, high = float(least if vmin is None else vmin), float(greatest if vmax is None else vmax)
    if low > high or (low == high and None not in (vmin, vmax)):
        raise ValueError(f"vmin must be below vmax, got {number(low)} and {number(high)}")
    return (low, high) if low < high else (low - 0.5, high + 0.5)  # a constant map is drawn mid-scale


def symmetric(x: np.ndarray, limit: float | None) -> Limits:
    """Limits -limit, limit; the greatest absolute value where none is given."""
    if limit is None:
        limit = max(map(abs, _finite_range(x))) or 1.0
    if not limit > 0:
        raise ValueError(f"limit must be positive, got {limit}")
    return -float(limit), float(limit)


def number(value: float) -> str:
    """Three significant digits, with a true minus sign; NaN is a dash."""
    return _typeset(value, ".3g")


def numbers(x: np.ndarray) -> np.ndarray:
    """The numbers of an array as text, all with the same decimals: as few as tell them exactly, or three digits."""
    greatest = max(map(abs, _finite_range(x)))
    form = ".3g"
    if greatest == 0 or 1e-3 < greatest < 1e5:
        most = int(np.clip(2 - np.floor(np.log10(greatest or 1)), 0, 4))
        exact = (d for d in range(most) if np.allclose(np.round(x, d), x, rtol=0, atol=1e-6 * greatest, equal_nan=True))
        form = f".{next(exact, most)}f"
    return np.array([_typeset(value, form) for value in x.ravel()]).reshape(x.shape)


def unit(x: np.ndarray, black_white: Limits) -> np.ndarray:
    """Images with black at 0 and white at 1; NaN is gray."""
    return np.nan_to_num(np.clip((x - black_white[0]) / (black_white[1] - black_white[0]), 0, 1), nan=0.78)


def colors(name: str) -> Colormap:
    """A colour map that shows NaN in neutral gray."""
    return matplotlib.colormaps[name].with_extremes(bad=NEUTRAL)


def check_columns(columns: Any) -> int:
    """A number of columns, numpy's too, as Python's own. (The room's own check: `helpers._validate` needs torch.)"""
    if not isinstance(columns, Integral) or isinstance(columns, bool) or columns < 1:
        raise ValueError(f"columns must be a positive integer, got {columns!r}")
    return int(columns)


def panels(
    count: int,
    columns: int,
    shape: Sequence[int] | Sequence[Sequence[int]],
    titles: Titles,
    *,
    panel_in: float | None = None,
    extra_in: float = 0.0,
    below_in: float = 0.0,
    aligned: bool = False,
) -> tuple[Picture, list[Axes]]:
    """A grid of `count` bare axes for pictures of `shape` (H, W), or one shape each, `panel_in` inches wide.

    Without that width there are so few in a row, at most `columns`, that none is narrower than `MIN_PANEL_IN`; rows are
    filled evenly; if they are `aligned`, the columns mean something and stay as they are. `extra_in` leaves room below
    every row (for bars or text), `below_in` below the last.
    """
    columns = check_columns(columns)
    titles = [titles] if isinstance(titles, str) else titles
    if titles is not None and len(titles) != count:
        raise ValueError(f"titles must give {count}, one for each panel, got {len(titles)}")
    columns = min(columns, count)
    if panel_in is None:
        columns = columns if aligned else even_columns(count, min(columns, int(WIDTH_IN / MIN_PANEL_IN)))
        panel_in = min(MAX_PANEL_IN, WIDTH_IN / columns)
    columns = min(columns, max(1, int(MAX_WIDTH_IN / panel_in)))
    wrapped = [textwrap.fill(str(title), max(6, int(panel_in / CHAR_IN))) for title in titles or [""] * count]
    rows = -(-count // columns)
    lines = max(title.count("\n") + 1 if title else 0 for title in wrapped)
    shapes: list[Any] = list(shape) if isinstance(shape[0], Sequence) else [shape] * count
    aspects = [max(h / w for h, w in shapes[i : i + columns]) for i in range(0, count, columns)]  # of the rows
    height = panel_in * sum(aspects) + rows * (lines * LINE_IN + extra_in + 0.06) + below_in
    # "compressed" would make pictures of different aspects in one row equally high.
    even = all(h / w == aspects[i // columns] for i, (h, w) in enumerate(shapes))
    figure = blank(columns * panel_in, height, "compressed" if even else "constrained")
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=aspects).ravel()
    for ax, title in zip(grid, wrapped, strict=False):
        ax.set_title(title, fontsize=SMALL_PT, color=INK, pad=4)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(color=FAINT, linewidth=0.6)
    for ax in grid[count:]:
        ax.remove()
    return figure, list(grid[:count])


def even_columns(count: int, most: int) -> int:
    """As few columns as the same number of rows needs: five panels are three and two, not four and one."""
    rows = -(-count // most)
    return -(-count // rows)


def show(ax: Axes, picture: np.ndarray, shape: Sequence[int] | None = None, **style: Any) -> AxesImage:
    """Draw (h, w) or (h, w, 3) in pixel-edge coordinates over `shape` (H, W); pixel i covers i .. i + 1."""
    height, width = (shape or picture.shape)[:2]
    style = {"interpolation": "nearest", "origin": "upper"} | style  # whatever the reader's settings say
    return ax.imshow(picture, extent=(0, width, height, 0), **style)


def write_values(ax: Axes, field: np.ndarray, text: np.ndarray, drawn: AxesImage) -> None:
    """The text of every cell of (H, W), black or white by the cell's luminance."""
    light = drawn.to_rgba(field)[..., :3] @ LUMA > 0.5
    for (row, column), value in np.ndenumerate(text):
        style: dict[str, Any] = {"color": "black" if light[row, column] else "white", "fontsize": SMALL_PT}
        ax.text(column + 0.5, row + 0.5, value, ha="center", va="center", **style)


def cell_in(text: np.ndarray) -> float:
    """The side of a cell in inches that holds any text of (N, H, W); refuses maps whose numbers do not fit."""
    side = max(0.34, max(map(len, text.ravel())) * CHAR_IN + 0.14)
    if side * max(text.shape[1:]) > MAX_WIDTH_IN:
        raise ValueError(f"values=True has room for about 12 x 12 cells, got {text.shape[1]} x {text.shape[2]}")
    return side


def own_bar(ax: Axes, drawn: ScalarMappable) -> None:
    """The scale of one panel, below it: a thin bar with its ends, and zero where they lie on both sides of it."""
    bar = cast(Picture, ax.get_figure()).colorbar(drawn, ax=ax, location="bottom", fraction=0.05, pad=0.03, aspect=22)
    low, high = drawn.get_clim()
    places = [low, 0.0, high] if low < 0 < high else [low, high]
    bar.set_ticks(places, labels=[_typeset(place, ".0f" if abs(place) >= 100 else ".2g") for place in places])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL_PT, labelcolor=INK, length=0, pad=2)
    labels = bar.ax.get_xticklabels()
    labels[0].set_horizontalalignment("left")  # inside of the panel, so that neighbours do not meet
    labels[-1].set_horizontalalignment("right")


def color_bar(figure: Picture, axes: list[Axes], drawn: ScalarMappable, label: str) -> None:
    """The scale that all panels share, below them, so that it takes none of their width."""
    bar = figure.colorbar(drawn, ax=axes, location="bottom", fraction=0.05, pad=0.02, aspect=36)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL_PT, labelcolor=INK, color=FAINT, length=3, width=0.6)
    bar.ax.locator_params(nbins=3 if figure.get_figwidth() < 3 else 5)
    bar.set_label(label, fontsize=SMALL_PT, color=INK)


def legend(figure: Picture, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Names below the panels, in one row where they fit."""
    room = figure.get_figwidth() / CHAR_IN  # characters in a row; a line and its gaps take about seven
    longest, total = max(map(len, names)) + 7, sum(map(len, names)) + 7 * len(names)
    columns = len(names) if total < room else max(1, int(room / longest))
    style = {"fontsize": SMALL_PT, "labelcolor": INK, "frameon": False, "columnspacing": 1.2, "handlelength": 2.4}
    figure.legend(handles, names, loc="outside lower center", ncols=columns, **style)


def map_grid(
    fields: np.ndarray,
    titles: Titles,
    columns: int,
    scales: Sequence[Limits],
    cmap: str,
    values: bool,
    bar: bool,
    label: str,
    own: bool = False,
    aligned: bool = False,
) -> Picture:
    """A figure of maps (N, H, W), each between its limits: with numbers, a colour bar, or a bar below each."""
    text = numbers(fields) if values else None
    side = None if text is None else cell_in(text) * fields.shape[2] + 0.1
    room = {"extra_in": OWN_BAR_IN if own else 0, "below_in": BAR_IN if bar else 0}
    figure, axes = panels(len(fields), columns, fields.shape[1:], titles, panel_in=side, aligned=aligned, **room)
    for i, (ax, field, (low, high)) in enumerate(zip(axes, fields, scales, strict=True)):
        drawn = show(ax, field, cmap=colors(cmap), vmin=low, vmax=high)
        if text is not None:
            write_values(ax, field, text[i], drawn)
        if own:
            own_bar(ax, drawn)
    if bar:
        color_bar(figure, axes, drawn, label)
    return figure


def _finite_range(x: np.ndarray) -> Limits:
    finite = x[np.isfinite(x)]
    if finite.size == 0:
        raise ValueError("a map or an image must hold at least one finite value, got none")
    return float(finite.min()), float(finite.max())


def _typeset(value: float, form: str) -> str:
    text = "–" if np.isnan(value) else format(value, form)
    return text.lstrip("-") if float(text.replace("–", "0")) == 0 else text.replace("-", "−")
