"""Pictures and maps of different sizes in one figure: their panels, scales and titles, and what is refused."""

import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from helpers import plots
from helpers.plots._panels import BAR_IN, CHAR_IN, LINE_IN, MAX_PANEL_IN, WIDTH_IN, panels

RNG = np.random.Generator(np.random.PCG64(1))
GRAY, COLOR = RNG.random((1, 20, 30)), RNG.random((3, 30, 15))
MAP, TALL = RNG.random((6, 9)) - 0.5, RNG.random((12, 4)) * 100
MIXED = [GRAY, MAP, COLOR, TALL, MAP[:, :3]]


def drawn_sizes(figure):
    """Widths and heights of the panels as they are drawn, in inches."""
    figure.draw_without_rendering()
    extents = [ax.get_window_extent() for ax in figure.axes]
    return [box.width / figure.dpi for box in extents], [box.height / figure.dpi for box in extents]


def images_of(figure):
    return [ax.images[0] for ax in figure.axes]


def test_pictures_and_maps_are_shown_as_they_are():
    first, second, third, fourth, fifth = images_of(plots.gallery(MIXED))
    np.testing.assert_allclose(first.get_array(), GRAY[0])
    np.testing.assert_array_equal(second.get_array(), MAP)
    np.testing.assert_allclose(third.get_array(), COLOR.transpose(1, 2, 0))
    np.testing.assert_array_equal(fourth.get_array(), TALL)
    np.testing.assert_array_equal(fifth.get_array(), MAP[:, :3])


def test_every_map_has_a_scale_of_its_own_written_below_it_and_images_run_from_0_to_1():
    figure = plots.gallery([GRAY * 0.5, MAP, COLOR, np.array([[-2.0, 3], [0, 1]])])
    limits = [image.get_clim() for image in images_of(figure)]
    assert limits == [(0, 1), (MAP.min(), MAP.max()), (0, 1), (-2, 3)]
    below = [ax.get_xlabel() for ax in figure.axes]
    assert [below[0], below[2], below[3]] == ["", "", "−2 … 3"]
    assert below[1].split(" … ") == [f"{v:.3g}".replace("-", "−") for v in (MAP.min(), MAP.max())]
    names = [image.get_cmap().name for image in images_of(figure)]
    assert [names[0], names[1], names[3]] == ["gray", "viridis", "viridis"]


def test_gray_is_gray_between_black_and_white():
    image = images_of(plots.gallery([np.array([[[0, 0.5, 1]]])]))[0]
    np.testing.assert_allclose(image.to_rgba(image.get_array())[0, :, 0], [0, 0.5, 1], atol=0.005)


def test_the_colours_of_maps_are_the_callers_choice_and_nan_is_gray():
    figure = plots.gallery([np.array([[0, np.nan, 4.0]]), GRAY], cmap="magma")
    drawn, other = images_of(figure)
    assert (drawn.get_cmap().name, other.get_cmap().name) == ("magma", "gray")
    assert drawn.get_clim() == (0, 4)
    np.testing.assert_allclose(drawn.to_rgba(np.ma.masked_invalid([np.nan]))[0, :3], [0xC8 / 255] * 3, atol=0.01)


def test_a_constant_map_is_drawn_in_the_middle_of_its_scale():
    figure = plots.gallery([np.full((3, 3), 7.0)])
    assert images_of(figure)[0].get_clim() == (6.5, 7.5)
    assert figure.axes[0].get_xlabel() == "6.5 … 7.5"


def test_titles_stand_above_their_panels():
    figure = plots.gallery(MIXED, [f"panel {i}" for i in range(5)])
    assert [ax.get_title() for ax in figure.axes] == [f"panel {i}" for i in range(5)]
    assert [ax.get_title() for ax in plots.gallery(MIXED).axes] == [""] * 5
    assert plots.gallery([MAP], "one").axes[0].get_title() == "one"


@pytest.mark.parametrize(
    "pictures",
    [
        MIXED,
        [GRAY, COLOR],
        [MAP, TALL],
        [GRAY],
        [TALL, TALL, TALL, RNG.random((2, 40))],
        [RNG.random((5, 5)), RNG.random((1, 50, 50)), RNG.random((10, 10))],
    ],
    ids=len,
)
def test_all_panels_are_equally_wide_and_as_high_as_their_pictures(pictures):
    titles = ["a title that is too long for its panel and goes on"] + ["x"] * (len(pictures) - 1)
    figure = plots.gallery(pictures, titles)
    widths, heights = drawn_sizes(figure)
    np.testing.assert_allclose(widths, widths[0], rtol=0.03)
    for width, height, picture in zip(widths, heights, pictures, strict=True):
        tall, wide = np.shape(picture)[-2:]
        assert height / width == pytest.approx(tall / wide, rel=0.03)
    assert widths[0] > 0.85 * min(MAX_PANEL_IN, WIDTH_IN / min(3, len(pictures)))


@pytest.mark.parametrize(("columns", "rows"), [(1, [1] * 5), (2, [2, 2, 1]), (3, [3, 2]), (5, [5]), (9, [5])])
def test_panels_fill_rows_from_left_to_right(columns, rows):
    figure = plots.gallery(MIXED, columns=columns)
    figure.draw_without_rendering()
    cells = [ax.get_subplotspec() for ax in figure.axes]
    assert [(cell.rowspan.start, cell.colspan.start) for cell in cells] == [
        (row, column) for row, count in enumerate(rows) for column in range(count)
    ]


def test_the_size_of_the_figure_by_hand():
    # Three columns: 5.8 / 3 = 1.933 inches a panel. First row: highest 20 / 30, 6 / 9, 30 / 15 -> 2; second: 12 / 4 and
    # 6 / 3 -> 3. Two rows of one line of title, one line of limits and 0.06.
    figure = plots.gallery(MIXED, ["t"] * 5)
    line = 1.35 * 11 / 72
    assert figure.get_figwidth() == pytest.approx(5.8)
    assert figure.get_figheight() == pytest.approx(5.8 / 3 * (2 + 3) + 2 * (2 * line + 0.06))
    assert figure.axes[0].get_subplotspec().get_gridspec().get_height_ratios() == [2, 3]
    # Images alone: no line for limits. Two columns: 5.8 / 2 = 2.9, but at most 2.4. Rows: 2/3 and 2, 2/3.
    figure = plots.gallery([GRAY, COLOR, GRAY], columns=2)
    assert figure.get_figwidth() == pytest.approx(4.8)
    assert figure.get_figheight() == pytest.approx(2.4 * (2 + 2 / 3) + 2 * 0.06)


def test_tensors_and_lists_are_taken_and_nothing_is_changed():
    image, field = torch.rand(3, 4, 5, requires_grad=True), torch.rand(2, 3, dtype=torch.float64)
    before = field.clone()
    first, second, third = images_of(plots.gallery((image, field, [[0, 1], [2, 3]])))
    np.testing.assert_allclose(first.get_array(), image.detach().permute(1, 2, 0))
    np.testing.assert_allclose(second.get_array(), field)
    np.testing.assert_array_equal(third.get_array(), [[0, 1], [2, 3]])
    assert field.equal(before)


def test_it_is_an_opaque_png_no_wider_than_a_page():
    pixels = imread(io.BytesIO(plots.gallery(MIXED, ["t"] * 5)._repr_png_()))
    assert (pixels[..., 3] == 1).all()
    assert pixels.shape[1] <= 8 * 120 + 30


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.gallery([]), "pictures must hold at least one, got none"),
        (lambda: plots.gallery([MAP, np.zeros(3)]), r"pictures\[1\] must be .*got \(3,\)"),
        (lambda: plots.gallery([np.zeros((2, 3, 3))]), r"pictures\[0\] must be .*got \(2, 3, 3\)"),
        (lambda: plots.gallery([np.zeros((4, 3, 3))]), r"pictures\[0\] must be .*got \(4, 3, 3\)"),
        (lambda: plots.gallery([np.zeros((1, 1, 3, 3))]), r"pictures\[0\] must be .*got \(1, 1, 3, 3\)"),
        (lambda: plots.gallery([MAP, np.zeros((0, 3))]), r"pictures\[1\] must not be empty"),
        (lambda: plots.gallery([MAP, "cat"]), r"pictures\[1\] must be a tensor or an array"),
        (lambda: plots.gallery([np.full((2, 2), np.nan)]), "at least one finite value"),
        (lambda: plots.gallery([MAP, GRAY], ["a"]), "titles must give 2"),
        (lambda: plots.gallery([MAP], columns=0), "columns must be a positive integer"),
        (lambda: plots.gallery([COLOR * 2]), r"\[0, 1\]"),
        (lambda: plots.gallery([MAP, -COLOR]), r"\[0, 1\]"),
        (lambda: plots.gallery([GRAY + 1]), r"\[0, 1\]"),
        (lambda: plots.gallery([torch.full((3, 4, 4), 200, dtype=torch.uint8)]), r"\[0, 1\]"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The grid of panels for pictures of one shape, as it was before each could have its own.


@pytest.mark.parametrize("shape", [(8, 10), (10, 8), (5, 5), (1, 30)])
@pytest.mark.parametrize(("count", "columns"), [(1, 5), (3, 5), (5, 5), (7, 3), (12, 5)])
@pytest.mark.parametrize("extra", [(0.0, 0.0), (BAR_IN, 0.0), (0.0, LINE_IN)])
def test_panels_of_one_shape_are_as_they_were(shape, count, columns, extra):
    titles = ["a title of two lines or more, as narrow as it is"] + ["x"] * (count - 1)
    figure, axes = panels(count, columns, shape, titles, extra_in=extra)
    across = min(columns, count)
    side = min(MAX_PANEL_IN, (WIDTH_IN - extra[0]) / across)
    down = -(-count // across)
    lines = axes[0].get_title().count("\n") + 1
    assert len(axes[0].get_title().split("\n")[0]) <= max(6, int(side / CHAR_IN))
    height = down * (side * shape[0] / shape[1] + lines * LINE_IN + extra[1] + 0.06)
    assert figure.get_figwidth() == pytest.approx(across * side + extra[0])
    assert figure.get_figheight() == pytest.approx(height)
    assert len(axes) == len(figure.axes) == count
    grid = axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (down, across)
    ratios = grid.get_height_ratios()
    assert ratios == pytest.approx([ratios[0]] * down)


def test_panels_of_one_shape_lie_where_equal_shapes_put_them():
    for shape in ((8, 10), (12, 4)):
        single, several = (panels(5, 3, shapes, ["t"] * 5)[0] for shapes in (shape, [shape] * 5))
        for figure in (single, several):
            figure.draw_without_rendering()
        assert single.get_size_inches() == pytest.approx(several.get_size_inches())
        for mine, other in zip(single.axes, several.axes, strict=True):
            assert mine.get_position().bounds == pytest.approx(other.get_position().bounds)


def test_narrow_panels_go_on_in_new_rows():
    # 8 inches hold two panels of 3.5; then the rows are [2 x 1, 1 x 1] with heights 2 and 1 times the width.
    figure, axes = panels(3, 5, [(2, 1), (1, 1), (1, 1)], None, panel_in=3.5)
    assert figure.get_size_inches() == pytest.approx([7.0, 3.5 * (2 + 1) + 2 * 0.06])
    assert [ax.get_subplotspec().rowspan.start for ax in axes] == [0, 0, 1]
