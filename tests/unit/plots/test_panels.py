"""The panels of every figure: readable, opaque, shown once, and as large as their pictures ask."""

import io
import itertools
import subprocess
import sys

import nbformat
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from nbclient import NotebookClient
from support.figures import BOXES, COLOR, GRAY, PATHS, RNG, SIGNED

from helpers import plots
from helpers.plots._panels import BAR_IN, CHAR_IN, LINE_IN, MAX_PANEL_IN, OWN_BAR_IN, WIDTH_IN, panels
from tools.project import ROOT

LONG = ["a short one", "a title that is too long for its panel", "x"]

TEN = RNG.random((10, 8, 8))  # in two rows of five columns

GALLERY = {
    "images gray": lambda: plots.images(GRAY, LONG),
    "images colour": lambda: plots.images(torch.tensor(COLOR), LONG, columns=2),
    "images many": lambda: plots.images(RNG.random((12, 8, 8)), [f"class {i}" for i in range(12)]),
    "images scaled": lambda: plots.images(GRAY * 100 - 50, LONG, label="intensity"),
    "images values": lambda: plots.images(RNG.integers(0, 255, (2, 3, 3)), LONG[:2], values=True),
    "maps": lambda: plots.maps(SIGNED**2, LONG, label="saliency"),
    "maps each": lambda: plots.maps(SIGNED**2 * 1e-4, LONG, each=True),
    "maps values": lambda: plots.maps(RNG.random((8, 8)), values=True),
    "signed": lambda: plots.signed_maps(SIGNED, LONG, label="gradient"),
    "signed values": lambda: plots.signed_maps(-SIGNED * 100, LONG, values=True),
    "overlay": lambda: plots.overlay(COLOR, SIGNED**2, LONG, label="Grad-CAM"),
    "overlay each": lambda: plots.overlay(GRAY, SIGNED, LONG, signed=True, each=True),
    "overlay each of ten": lambda: plots.overlay(TEN, TEN - 0.123, LONG[::2] * 5, signed=True, each=True),
    "maps each of ten": lambda: plots.maps(TEN * 1.234e-5, LONG[::2] * 5, each=True),
    "boxes": lambda: plots.boxes(GRAY, {"truth": BOXES, "found": BOXES + 1}, titles=LONG),
    "boxes named": lambda: plots.boxes(GRAY, BOXES[[1, 1, 0]], [["disk"], ["ring"], ["star"]], LONG),
    "scan paths": lambda: plots.scanpaths(COLOR, PATHS, LONG, radius=0.5),
    "scan path": lambda: plots.scanpaths(GRAY, PATHS[2], columns=2),
    "features": lambda: plots.feature_maps(RNG.random((13, 6, 6))),
    "kernels": lambda: plots.kernels(RNG.random((7, 1, 3, 3)) - 0.5),
    "kernels colour": lambda: plots.kernels(RNG.random((2, 3, 3, 3)) - 0.5, values=True),
    "curves": lambda: plots.curves(
        {name: RNG.random((3, 9)) for name in ("Grad-CAM", "gradient saliency", "occlusion", "SIMILARnet")},
        "share of pixels deleted", "probability of the class", title="Deletion",
        baselines={"random order": 0.5, "blurred input": 0.2},
    ),
    "bars": lambda: plots.bars(
        {"centre": 0.2, "uniform weights kept": 0.3, "integrated gradients": [0.7, 0.6], "gradient saliency": -0.1},
        "pointing game (share of hits)", baselines={"chance": 0.25},
    ),
    "gallery": lambda: plots.gallery([GRAY[:1], SIGNED[0], COLOR[0], SIGNED[1].T], ["t"] * 4),
}  # fmt: skip


def texts(figure):
    """Every text that is drawn."""
    for ax in figure.axes:
        yield from [ax.title, ax.get_legend(), ax.xaxis.label, ax.yaxis.label, *ax.texts]
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
            yield from (text for place, text in ticks if low <= place <= high)
        yield ax.title
    for legend in figure.legends:
        yield from legend.get_texts()


@pytest.mark.parametrize("make", GALLERY.values(), ids=GALLERY)
def test_every_figure_is_readable(make):
    figure = make()
    assert isinstance(figure, Figure)
    assert figure.get_figwidth() <= 8
    assert figure.dpi == 120
    assert figure.get_facecolor() == (1, 1, 1, 1)
    figure.draw_without_rendering()
    shown = {id(t): t for t in texts(figure) if t is not None and t.get_text() and t.get_visible()}.values()
    assert min((text.get_fontsize() for text in shown), default=9) >= 9
    extents = [(text.get_text(), text.get_window_extent()) for text in shown]
    for (name, here), (other, there) in itertools.combinations(extents, 2):
        across = min(here.x1, there.x1) - max(here.x0, there.x0)
        down = min(here.y1, there.y1) - max(here.y0, there.y0)
        assert not (across > 1 and down > 1), f"{name!r} lies over {other!r}"


@pytest.mark.parametrize("make", GALLERY.values(), ids=GALLERY)
def test_every_figure_is_an_opaque_png(make):
    png, shown = make()._repr_png_()
    pixels = imread(io.BytesIO(png))
    assert pixels.shape[2] == 3  # no transparency
    assert (pixels[0, 0] == 1).all()
    # Twice as sharp as it is large.
    assert (shown["width"], shown["height"]) == (pixels.shape[1] // 2, pixels.shape[0] // 2)
    assert shown["width"] <= 8 * 120 + 30


def test_no_pyplot_and_no_torch_is_needed():
    code = "import sys; from helpers import plots; plots.images([[0, 1]])._repr_png_()"
    code += "; assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_notebook_shows_a_figure_exactly_once():
    draw = "plots.images([[0, 1], [1, 0]])"
    cells = ["from helpers import plots", draw, "%matplotlib inline", draw, "import matplotlib.pyplot as plt", draw]
    cells += [f"kept = {draw}", "plt.get_fignums()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(ROOT)}}).execute()
    counts = [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells]
    assert counts == [0, 1, 0, 1, 0, 1, 0, 0]
    assert [len(cell.outputs) for cell in notebook.cells] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert notebook.cells[-1].outputs[0].data["text/plain"] == "[]"


@pytest.mark.parametrize("shape", [(8, 10), (1, 30)])
@pytest.mark.parametrize(("count", "columns", "across"), [(1, 5, 1), (5, 5, 3), (7, 3, 3), (4, 3, 2), (2, 2, 2)])
@pytest.mark.parametrize("extra", [(0.0, 0.0), (0.0, BAR_IN), (OWN_BAR_IN, 0.0)])
def test_panels_of_one_shape_fill_even_rows_and_are_wide_enough(shape, count, columns, across, extra):
    titles = ["a title of two lines or more, as narrow as it is"] + ["x"] * (count - 1)
    figure, axes = panels(count, columns, shape, titles, extra_in=extra[0], below_in=extra[1])
    side = min(MAX_PANEL_IN, WIDTH_IN / across)
    assert side * 120 >= 160  # pixels of the page
    down = -(-count // across)
    lines = axes[0].get_title().count("\n") + 1
    assert len(axes[0].get_title().split("\n")[0]) <= max(6, int(side / CHAR_IN))
    height = down * (side * shape[0] / shape[1] + lines * LINE_IN + extra[0] + 0.06) + extra[1]
    assert figure.get_figwidth() == pytest.approx(across * side)
    assert figure.get_figheight() == pytest.approx(height)
    assert len(axes) == len(figure.axes) == count
    grid = axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (down, across)
    ratios = grid.get_height_ratios()
    assert ratios == pytest.approx([ratios[0]] * down)


def test_columns_that_mean_something_stay_as_they_are():
    maps = RNG.random((14, 4, 4))
    grids = {aligned: plots.maps(maps, columns=7, aligned=aligned).axes[0].get_gridspec() for aligned in (True, False)}
    assert (grids[True].nrows, grids[True].ncols) == (2, 7)
    assert (grids[False].nrows, grids[False].ncols) == (4, 4)


def test_narrow_panels_go_on_in_new_rows():
    # 8 inches hold two panels of 3.5; then the rows are [2 x 1, 1 x 1] with heights 2 and 1 times the width.
    figure, axes = panels(3, 5, [(2, 1), (1, 1), (1, 1)], None, panel_in=3.5)
    assert figure.get_size_inches() == pytest.approx([7.0, 3.5 * (2 + 1) + 2 * 0.06])
    assert [ax.get_subplotspec().rowspan.start for ax in axes] == [0, 0, 1]


def test_figures_do_not_depend_on_the_readers_settings():
    import matplotlib as mpl

    picture = torch.zeros(1, 8, 8)
    picture[0, :2] = 1  # bright at the top

    def drawn():
        pixels = imread(io.BytesIO(plots.images(picture)._repr_png_()[0]))[..., 0]
        return pixels[len(pixels) // 8].mean(), pixels[-len(pixels) // 8].mean()

    expected = drawn()
    assert expected[0] > expected[1]
    with mpl.rc_context({"image.origin": "lower"}):
        assert drawn() == expected
    with mpl.style.context("dark_background"):
        axes = plots.bars({"a": 1.0}, "y", baselines={"chance": 0.5}).axes[0]
    assert axes.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
