import io
import itertools
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Circle, Rectangle
from nbclient import NotebookClient

from helpers import plots
from tools.project import ROOT

RNG = np.random.Generator(np.random.PCG64(0))
GRAY, COLOR = RNG.random((3, 8, 10)), RNG.random((3, 3, 8, 10))
SIGNED = RNG.random((3, 4, 5)) - 0.5
BOXES = np.array([[1, 2, 5, 6], [0, 0, 10, 8], [np.nan] * 4])
PATHS = np.array([[[-1, -1], [0, 0.5], [1, 1]], [[0, 0], [-0.5, 0], [0.2, 0.9]], [[0.6, -0.8], [0, 0], [-0.6, 0.8]]])
LONG = ["a short one", "a title that is too long for its panel", "x"]

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
    "boxes": lambda: plots.boxes(GRAY, {"truth": BOXES, "found": BOXES + 1}, titles=LONG),
    "boxes named": lambda: plots.boxes(GRAY, BOXES[[1, 1, 0]], [["disk"], ["ring"], ["star"]], LONG),
    "scan paths": lambda: plots.scanpaths(COLOR, PATHS, LONG, radius=0.5),
    "scan path": lambda: plots.scanpaths(GRAY, PATHS[2], columns=2),
    "features": lambda: plots.feature_maps(RNG.random((13, 6, 6))),
    "kernels": lambda: plots.kernels(RNG.random((7, 1, 3, 3)) - 0.5),
    "kernels colour": lambda: plots.kernels(RNG.random((2, 3, 3, 3)) - 0.5, values=True),
    "curves": lambda: plots.curves(
        {name: RNG.random((3, 9)) for name in ("Grad-CAM", "gradient saliency", "occlusion", "SIMILARnet")},
        "share of pixels deleted",
        "probability of the class",
        title="Deletion",
        baselines={"random order": 0.5, "blurred input": 0.2},
    ),
    "bars": lambda: plots.bars(
        {
            "centre": 0.2,
            "uniform weights kept": 0.3,
            "integrated gradients": [0.7, 0.8, 0.6],
            "gradient saliency": -0.1,
        },
        "pointing game (share of hits)",
        baselines={"chance": 0.25},
    ),
}


def arrays(figure):
    return [np.asarray(ax.images[-1].get_array()) for ax in figure.axes if ax.images]


def limits(figure):
    return [ax.images[-1].get_clim() for ax in figure.axes if ax.images]


def has_bar(figure):
    return any(not ax.images and ax.get_label() == "<colorbar>" for ax in figure.axes)


def written(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


# every figure


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
    pixels = imread(io.BytesIO(make()._repr_png_()))
    assert (pixels[..., 3] == 1).all()
    assert (pixels[0, 0, :3] == 1).all()
    assert pixels.shape[1] <= 8 * 120 + 30


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


# what is drawn


def test_images_are_shown_as_they_are():
    figure = plots.images(GRAY)
    np.testing.assert_array_equal(arrays(figure), GRAY)
    assert limits(figure) == [(0, 1)] * 3
    assert not has_bar(figure)
    np.testing.assert_array_equal(arrays(plots.images(torch.tensor(COLOR)))[1], COLOR[1].transpose(1, 2, 0))
    whole = torch.full((1, 1, 2, 2), 51, dtype=torch.uint8)
    assert limits(plots.images(whole)) == [(0, 255)]
    np.testing.assert_allclose(arrays(plots.images(whole.expand(1, 3, 2, 2)))[0], 0.2)
    assert arrays(plots.images(torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)))[0].shape == (2, 3)


def test_other_values_share_a_scale_that_is_shown():
    figure = plots.images([[[0, 3]], [[-1, 2]]])
    assert limits(figure) == [(-1, 3)] * 2
    assert has_bar(figure)
    assert limits(plots.images([[0, 3]], vmin=-5, vmax=5)) == [(-5, 5)]
    np.testing.assert_allclose(arrays(plots.images(COLOR * 4 - 2, vmin=-2, vmax=2))[0], COLOR[0].transpose(1, 2, 0))


def test_numbers_in_cells_by_hand():
    figure = plots.images([[0, 9], [4, -3]], values=True)
    assert written(figure) == ["0", "9", "4", "−3"]
    assert [text.get_color() for text in figure.axes[0].texts] == ["white", "black", "black", "white"]
    assert [text.get_position() for text in figure.axes[0].texts][:3] == [(0.5, 0.5), (1.5, 0.5), (0.5, 1.5)]
    assert not has_bar(figure)
    assert written(plots.signed_maps([[0.25, -1, np.nan, -1e-9]], values=True)) == ["0.25", "−1.00", "–", "0.00"]
    assert written(plots.maps(torch.tensor([[0.1, 1 / 3]]), values=True)) == ["0.100", "0.333"]
    assert written(plots.maps(torch.tensor([[0.1, 0.3]]), values=True)) == ["0.1", "0.3"]


def test_signed_maps_are_centred_at_zero_on_one_scale():
    maps = [[[1, -4]], [[2, np.nan]]]
    assert limits(plots.signed_maps(maps)) == [(-4, 4)] * 2
    assert limits(plots.signed_maps(maps, limit=10)) == [(-10, 10)] * 2
    each = plots.signed_maps(maps, each=True)
    assert limits(each) == [(-4, 4), (-2, 2)]
    assert [ax.get_xlabel() for ax in each.axes] == ["−4 … 4", "−2 … 2"]
    assert not has_bar(each)
    assert limits(plots.signed_maps(np.zeros((2, 2)))) == [(-1, 1)]
    image = plots.signed_maps(maps).axes[1].images[0]
    zero, nothing = image.to_rgba(np.ma.masked_invalid([0.0, np.nan]))[:, :3]
    assert zero.min() > 0.95
    np.testing.assert_allclose(nothing, to_rgb("#c8c8c8"), atol=0.01)


def test_maps_share_limits_or_write_their_own():
    maps = [[[1.0, 4]], [[2, np.nan]]]
    assert limits(plots.maps(maps)) == [(1, 4)] * 2
    assert has_bar(plots.maps(maps))
    each = plots.maps(maps, each=True, vmin=0)
    assert limits(each) == [(0, 4), (0, 2)]
    assert [ax.get_xlabel() for ax in each.axes] == ["0 … 4", "0 … 2"]
    low, high = limits(plots.maps([[7, 7]], each=True))[0]
    assert low < 7 < high


def test_an_overlay_covers_its_image():
    figure = plots.overlay(COLOR[:1], SIGNED)  # one image, three maps
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == 3
    for ax, field in zip(panels, SIGNED, strict=True):
        below, above = ax.images
        assert below.get_extent() == above.get_extent() == [0, 10, 8, 0]
        np.testing.assert_allclose(below.get_array(), np.tensordot([0.299, 0.587, 0.114], COLOR[0], 1))
        np.testing.assert_array_equal(above.get_array(), field)
        assert above.get_clim() == (SIGNED.min(), SIGNED.max())
    assert has_bar(figure)
    each = plots.overlay(GRAY, SIGNED, signed=True, each=True)
    greatest = np.abs(SIGNED).max((1, 2))
    assert limits(each) == [(-limit, limit) for limit in greatest]
    assert all(ax.get_xlabel() for ax in each.axes)


def test_boxes_lie_on_pixel_edges():
    figure = plots.boxes(GRAY, {"truth": BOXES, "found": [BOXES[:2], [], BOXES[1:2]]})
    drawn = [[patch.get_bbox().extents.tolist() for patch in ax.patches] for ax in figure.axes]
    first, second = [1, 2, 5, 6], [0, 0, 10, 8]
    assert drawn == [[first, first, second], [second], [second]]
    assert figure.axes[0].images[0].get_extent() == [0, 10, 8, 0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["truth", "found"]
    named = plots.boxes(GRAY[:1], BOXES[None], [["disk", "ring", "padding"]])
    assert written(named) == ["disk", "ring"]
    assert not named.legends


def test_scan_paths_lie_where_the_gaze_was():
    wide = np.zeros((2, 4, 10))
    path = [[0, 0], [-1, 1], [0.5, -0.5]]
    figure = plots.scanpaths(wide, [path, path[::-1]], ["there", "back"])
    # x 0 is in the middle, 5; -1 the left edge, 0; 0.5 is 1.5 / 2 * 10 = 7.5; y likewise 2, 4 and 0.5 / 2 * 4 = 1.
    pixels = [[5, 2], [0, 4], [7.5, 1]]
    assert [ax.lines[0].get_xydata().tolist() for ax in figure.axes] == [pixels, pixels[::-1]]
    assert [[list(text.get_position()) for text in ax.texts] for ax in figure.axes] == [pixels, pixels[::-1]]
    assert written(figure) == ["0", "1", "2"] * 2
    assert [ax.get_title() for ax in figure.axes] == ["there", "back"]
    assert all(text.get_bbox_patch() is not None for ax in figure.axes for text in ax.texts)
    assert not any(ax.patches for ax in figure.axes)


@pytest.mark.parametrize("make", [torch.tensor, np.array, list])
def test_one_path_is_drawn_on_every_image(make):
    figure = plots.scanpaths(COLOR, make([[0.0, 0.0], [1.0, -1.0]]))
    assert [ax.lines[0].get_xydata().tolist() for ax in figure.axes] == [[[5, 4], [10, 0]]] * 3
    np.testing.assert_array_equal(arrays(figure)[2], COLOR[2].transpose(1, 2, 0))


def test_a_circle_is_drawn_around_the_last_fixation():
    figure = plots.scanpaths(np.zeros((1, 4, 10)), [[0, 0], [0.5, -0.5]], radius=0.75)
    (circle,) = figure.axes[0].patches
    assert isinstance(circle, Circle)
    assert circle.center == (7.5, 1)
    assert circle.radius == 1.5  # 0.75 times half the shorter side, 2
    assert not circle.get_fill()
    (circle,) = plots.scanpaths(np.zeros((1, 6, 2)), [[0, 0]], radius=1).axes[0].patches
    assert (circle.center, circle.radius) == ((1, 3), 1)


def test_what_was_sought_is_drawn_under_the_path():
    sought = [[1, 2, 5, 6], [np.nan] * 4, [0, 0, 10, 8]]
    figure = plots.scanpaths(GRAY, [[0, 0], [0.5, -0.5]], radius=0.5, boxes=np.array(sought))
    drawn = [[p for p in ax.patches if isinstance(p, Rectangle)] for ax in figure.axes]
    assert [[(*p.get_xy(), p.get_width(), p.get_height()) for p in patches] for patches in drawn] == [
        [(1, 2, 4, 4)], [], [(0, 0, 10, 8)]
    ]  # fmt: skip
    circle = next(p for p in figure.axes[0].patches if isinstance(p, Circle))
    assert drawn[0][0].get_edgecolor() != circle.get_edgecolor()
    assert [(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes] == [((0, 10), (8, 0))] * 3


@pytest.mark.parametrize("path", [[[0, 0]], [[-1, -1], [1, 1]], [[0.9, 0.9], [-0.9, 0.1]]])
@pytest.mark.parametrize("radius", [None, 0.3, 1.0])
def test_a_scan_path_leaves_the_panel_as_large_as_its_image(path, radius):
    figure = plots.scanpaths(GRAY, path, radius=radius)
    figure.draw_without_rendering()
    assert [(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes] == [((0, 10), (8, 0))] * 3


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_images_of_one_value_are_shown_as_they_are(value):
    plain = np.full((1, 3, 2, 2), value)
    assert limits(plots.images(plain[:, 0])) == [(0, 1)]
    for figure in (plots.images(plain), plots.scanpaths(plain, [[0, 0]])):
        np.testing.assert_array_equal(arrays(figure)[0], plain[0].transpose(1, 2, 0))


def test_scan_paths_show_gray_images_and_bytes_from_black_to_white():
    whole = torch.tensor([[[0, 51], [255, 102]]], dtype=torch.uint8)
    figure = plots.scanpaths(whole, torch.zeros(1, 2))
    np.testing.assert_allclose(arrays(figure)[0], [[0, 0.2], [1, 0.4]])
    assert limits(figure) == [(0, 1)]
    assert figure.axes[0].images[0].cmap.name == "gray"
    columns = {round(ax.get_position().x0, 3) for ax in plots.scanpaths(GRAY, PATHS, columns=2).axes}
    assert len(columns) == 2


def test_feature_maps_and_kernels():
    figure = plots.feature_maps(torch.tensor(GRAY))
    assert [ax.get_title() for ax in figure.axes[:3]] == ["0", "1", "2"]
    np.testing.assert_array_equal(arrays(figure), GRAY)
    weights = torch.arange(-6.0, 12).reshape(2, 1, 3, 3)
    figure = plots.kernels(weights)
    assert limits(figure) == [(-11, 11)] * 2
    np.testing.assert_array_equal(arrays(figure), weights[:, 0])
    figure = plots.kernels(weights.reshape(1, 2, 3, 3).expand(4, 2, 3, 3))
    assert [ax.get_title() for ax in figure.axes[:3]] == ["0 ← 0", "0 ← 1", "1 ← 0"]
    columns = {round(ax.get_position().x0, 3) for ax in figure.axes[:8]}
    assert len(columns) == 2


def test_curves_draw_mean_spread_and_baselines():
    seeds = [[0, 2, 4], [2, 4, 12]]
    figure = plots.curves({"a": ([1, 2, 5], seeds), "b": [1, 0, 1]}, "epoch", "loss", baselines={"chance": 2.3})
    ax = figure.axes[0]
    a, b, chance = ax.lines
    np.testing.assert_array_equal(a.get_xydata(), [[1, 1], [2, 3], [5, 8]])
    np.testing.assert_array_equal(b.get_xydata(), [[0, 1], [1, 0], [2, 1]])
    assert chance.get_ydata() == [2.3, 2.3]
    edge = {tuple(point) for point in ax.collections[0].get_paths()[0].vertices}
    assert {(1, 0), (1, 2), (2, 2), (2, 4), (5, 4), (5, 12)} <= edge
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "chance"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert len({(line.get_color(), str(line.get_linestyle())) for line in ax.lines}) == 3


def test_bars_show_mean_number_and_seeds():
    figure = plots.bars({"a": [1, 2, 6], "b": -0.5}, "hits", baselines={"chance": 0.25})
    ax = figure.axes[0]
    assert [bar.get_height() for bar in ax.patches] == [3, -0.5]
    assert written(figure) == ["3", "−0.5"]
    assert ax.collections[0].get_offsets()[:, 1].tolist() == [1, 2, 6]
    assert any(list(line.get_ydata()) == [0.25, 0.25] for line in ax.lines)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]


# what is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.images(np.zeros(3)), r"images must have shape .*got \(3,\)"),
        (lambda: plots.images(np.zeros((2, 4, 3, 3))), r"images must have shape .*got \(2, 4, 3, 3\)"),
        (lambda: plots.images(np.zeros((0, 3, 3))), "must not be empty"),
        (lambda: plots.images(["cat"]), "tensor or an array of numbers"),
        (lambda: plots.images(COLOR * 2), r"colour must lie in \[0, 1\]"),
        (lambda: plots.images(COLOR, values=True), "wants gray images"),
        (lambda: plots.images(GRAY, ["a"]), "titles must give 3"),
        (lambda: plots.images(GRAY, columns=0), "columns must be a positive integer"),
        (lambda: plots.images(GRAY, vmin=2, vmax=1), "vmin must be below vmax"),
        (lambda: plots.maps(np.zeros((40, 40)), values=True), "room for about 12 x 12"),
        (lambda: plots.maps(COLOR), r"x must have shape \(H, W\) or \(N, H, W\)"),
        (lambda: plots.maps(np.full((2, 2), np.nan)), "at least one finite value"),
        (lambda: plots.signed_maps(SIGNED, limit=0), "limit must be positive"),
        (lambda: plots.overlay(GRAY[:2], SIGNED), "one for each of the 2 images, got 3"),
        (lambda: plots.overlay(GRAY, COLOR), r"maps must have shape"),
        (lambda: plots.boxes(GRAY, BOXES[:2]), "one entry for each of the 3 images, got 2"),
        (lambda: plots.boxes(GRAY, np.zeros((3, 5))), r"an entry of shape \(5,\)"),
        (lambda: plots.boxes(GRAY, BOXES, labels=[["a"]]), "labels must give a list for each of the 3"),
        (lambda: plots.scanpaths(GRAY, PATHS[:2]), r"fixations must be \(S, 2\) or \(3, S, 2\), got \(2, 3, 2\)"),
        (lambda: plots.scanpaths(GRAY, np.zeros((4, 3))), r"fixations must be \(S, 2\) or .*got \(3, 4, 3\)"),
        (lambda: plots.scanpaths(GRAY, np.zeros(2)), r"fixations must be \(S, 2\) or .*got \(2,\)"),
        (lambda: plots.scanpaths(GRAY, PATHS[None]), "fixations must be"),
        (lambda: plots.scanpaths(GRAY, np.zeros((0, 2))), "fixations must not be empty"),
        (lambda: plots.scanpaths(GRAY, "left"), "fixations must be a tensor or an array"),
        (lambda: plots.scanpaths(COLOR[:, 0, 0], PATHS[0, 0]), "fixations must be"),
        (lambda: plots.scanpaths(np.zeros(3), PATHS), "images must have shape"),
        (lambda: plots.scanpaths(COLOR * 2, PATHS), r"images in colour must lie in \[0, 1\]"),
        (lambda: plots.scanpaths(GRAY, PATHS, ["a"]), "titles must give 3"),
        (lambda: plots.scanpaths(GRAY, PATHS, boxes=np.zeros((2, 4))), "boxes must give one entry"),
        (lambda: plots.scanpaths(GRAY, PATHS, boxes=np.zeros((3, 3))), "boxes must have shape"),
        (lambda: plots.scanpaths(GRAY, PATHS, columns=0), "columns must be a positive"),
        (lambda: plots.feature_maps(COLOR), r"activations must be those of one image"),
        (lambda: plots.kernels(GRAY), r"weights must have shape \(out, in, k, k\)"),
        (lambda: plots.kernels(np.zeros((2, 9, 3, 3))), "at most 8 input channels, got 9"),
        (lambda: plots.curves({}, "x", "y"), "series must hold 1 .. 7"),
        (lambda: plots.curves({"a": GRAY}, "x", "y"), r"series\['a'\] must have shape"),
        (lambda: plots.curves({"a": ([1, 2], [1, 2, 3])}, "x", "y"), r"must have shape \(3,\), as y has, got \(2,\)"),
        (lambda: plots.bars({}, "y"), "at least one bar"),
        (lambda: plots.bars({"a": [[1]]}, "y"), "higher rank"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_ticks_name_the_points_of_a_curve():
    figure = plots.curves({"a": [1.0, 2.0, 3.0]}, "layer", "error", ticks=["conv1", "pool1", "fc1"])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["conv1", "pool1", "fc1"]
    with pytest.raises(ValueError, match="ticks must name all 3 points, got 2"):
        plots.curves({"a": [1.0, 2.0, 3.0]}, "layer", "error", ticks=["a", "b"])
