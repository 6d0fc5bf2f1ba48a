"""Maps: signed, sequential, over images, of features and kernels, and of different sizes in one figure."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from support.figures import COLOR, GRAY, RNG, SIGNED, arrays, drawn_images, has_bar, limits, own_bars

from helpers import plots
from helpers.plots._panels import MAX_PANEL_IN, WIDTH_IN


def test_signed_maps_are_centred_at_zero_on_one_scale():
    maps = [[[1, -4]], [[2, np.nan]]]
    assert limits(plots.signed_maps(maps)) == [(-4, 4)] * 2
    assert limits(plots.signed_maps(maps, limit=10)) == [(-10, 10)] * 2
    each = plots.signed_maps(maps, each=True)
    assert limits(each) == [(-4, 4), (-2, 2)]
    assert own_bars(each) == ["−4 0 4", "−2 0 2"]
    assert limits(plots.signed_maps(np.zeros((2, 2)))) == [(-1, 1)]
    image = plots.signed_maps(maps).axes[1].images[0]
    zero, nothing = image.to_rgba(np.ma.masked_invalid([0.0, np.nan]))[:, :3]
    assert zero.min() > 0.95
    np.testing.assert_allclose(nothing, to_rgb("#c8c8c8"), atol=0.01)


def test_maps_share_a_scale_or_have_one_each():
    maps = [[[1.0, 4]], [[2, np.nan]]]
    assert limits(plots.maps(maps)) == [(1, 4)] * 2
    assert has_bar(plots.maps(maps))
    each = plots.maps(maps, each=True, vmin=0)
    assert limits(each) == [(0, 4), (0, 2)]
    assert own_bars(each) == ["0 4", "0 2"]
    assert own_bars(plots.maps([[0, 1234.5]], each=True)) == ["0 1234"]
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
    assert own_bars(each) == [f"−{limit:.2g} 0 {limit:.2g}" for limit in greatest]


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


# pictures and maps of different sizes

PICTURE, PHOTO = RNG.random((1, 20, 30)), RNG.random((3, 30, 15))
MAP, TALL = RNG.random((6, 9)) - 0.5, RNG.random((12, 4)) * 100
MIXED = [PICTURE, MAP, PHOTO, TALL, MAP[:, :3]]


def test_pictures_and_maps_are_shown_as_they_are():
    first, second, third, fourth, fifth = drawn_images(plots.gallery(MIXED))
    np.testing.assert_allclose(first.get_array(), PICTURE[0])
    np.testing.assert_array_equal(second.get_array(), MAP)
    np.testing.assert_allclose(third.get_array(), PHOTO.transpose(1, 2, 0))
    np.testing.assert_array_equal(fourth.get_array(), TALL)
    np.testing.assert_array_equal(fifth.get_array(), MAP[:, :3])


def panel_axes(figure):
    """The panels, without the bars below them."""
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def test_every_map_has_a_scale_of_its_own_and_images_run_from_0_to_1():
    figure = plots.gallery([PICTURE * 0.5, abs(MAP), PHOTO, np.array([[-2.0, 3], [0, 1]])])
    limits = [image.get_clim() for image in drawn_images(figure)]
    assert limits == [(0, 1), (abs(MAP).min(), abs(MAP).max()), (0, 1), (-3, 3)]
    assert own_bars(figure) == [f"{abs(MAP).min():.2g} {abs(MAP).max():.2g}", "−3 0 3"]
    names = [image.get_cmap().name for image in drawn_images(figure)]
    assert [names[0], names[1], names[3]] == ["gray", "viridis", "RdBu_r"]


def test_a_kind_of_number_has_one_look_and_nan_is_gray():
    looks = {
        "viridis": [plots.maps(abs(SIGNED)), plots.feature_maps(GRAY), plots.overlay(GRAY, abs(SIGNED))],
        "RdBu_r": [plots.signed_maps(SIGNED), plots.kernels(SIGNED[None]), plots.overlay(GRAY, SIGNED, signed=True)],
        "gray": [plots.images(GRAY)],
    }
    for name, figures in looks.items():
        assert {ax.images[-1].get_cmap().name for figure in figures for ax in panel_axes(figure)} == {name}
    drawn, _ = drawn_images(plots.gallery([np.array([[0, np.nan, 4.0]]), PICTURE]))
    assert drawn.get_clim() == (0, 4)
    np.testing.assert_allclose(drawn.to_rgba(np.ma.masked_invalid([np.nan]))[0, :3], [0xC8 / 255] * 3, atol=0.01)


def test_a_constant_map_is_drawn_in_the_middle_of_its_scale():
    figure = plots.gallery([np.full((3, 3), 7.0)])
    assert drawn_images(figure)[0].get_clim() == (6.5, 7.5)
    assert own_bars(figure) == ["6.5 7.5"]


def test_titles_stand_above_their_panels():
    figure = plots.gallery(MIXED, [f"panel {i}" for i in range(5)])
    assert [ax.get_title() for ax in panel_axes(figure)] == [f"panel {i}" for i in range(5)]
    assert [ax.get_title() for ax in panel_axes(plots.gallery(MIXED))] == [""] * 5
    assert plots.gallery([MAP], "one").axes[0].get_title() == "one"


def drawn_sizes(figure):
    """Widths and heights of the panels as they are drawn, in inches."""
    figure.draw_without_rendering()
    extents = [ax.get_window_extent() for ax in panel_axes(figure)]
    return [box.width / figure.dpi for box in extents], [box.height / figure.dpi for box in extents]


@pytest.mark.parametrize(
    "pictures",
    [MIXED, [PICTURE], [TALL, TALL, TALL, RNG.random((2, 40))], [RNG.random((5, 5)), RNG.random((1, 50, 50))]],
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


@pytest.mark.parametrize(("columns", "rows"), [(1, [1] * 5), (2, [2, 2, 1]), (3, [3, 2]), (5, [3, 2]), (9, [3, 2])])
def test_panels_fill_rows_from_left_to_right(columns, rows):
    figure = plots.gallery(MIXED, columns=columns)
    figure.draw_without_rendering()
    cells = [ax.get_subplotspec() for ax in panel_axes(figure)]
    assert [(cell.rowspan.start, cell.colspan.start) for cell in cells] == [
        (row, column) for row, count in enumerate(rows) for column in range(count)
    ]


def test_the_size_of_the_figure_by_hand():
    # Three columns: 5.8 / 3 = 1.933 inches a panel. First row: highest 20 / 30, 6 / 9, 30 / 15 -> 2; second: 12 / 4 and
    # 6 / 3 -> 3. Two rows of one line of title, 0.34 for a bar and 0.06.
    figure = plots.gallery(MIXED, ["t"] * 5)
    line = 1.35 * 11 / 72
    assert figure.get_figwidth() == pytest.approx(5.8)
    assert figure.get_figheight() == pytest.approx(5.8 / 3 * (2 + 3) + 2 * (line + 0.34 + 0.06))
    assert figure.axes[0].get_subplotspec().get_gridspec().get_height_ratios() == [2, 3]
    # Images alone: no bars. Two columns: 5.8 / 2 = 2.9, but at most 2.4. Rows: 2/3 and 2, 2/3.
    figure = plots.gallery([PICTURE, PHOTO, PICTURE], columns=2)
    assert figure.get_figwidth() == pytest.approx(4.8)
    assert figure.get_figheight() == pytest.approx(2.4 * (2 + 2 / 3) + 2 * 0.06)


def test_tensors_and_lists_are_taken_and_nothing_is_changed():
    image, field = torch.rand(3, 4, 5, requires_grad=True), torch.rand(2, 3, dtype=torch.float64)
    before = field.clone()
    first, second, third = drawn_images(plots.gallery((image, field, [[0, 1], [2, 3]])))
    np.testing.assert_allclose(first.get_array(), image.detach().permute(1, 2, 0))
    np.testing.assert_allclose(second.get_array(), field)
    np.testing.assert_array_equal(third.get_array(), [[0, 1], [2, 3]])
    assert field.equal(before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.maps(np.zeros((40, 40)), values=True), "room for about 12 x 12"),
        (lambda: plots.maps(np.full((2, 2), np.nan)), "at least one finite value"),
        (
            lambda: plots.maps(SIGNED),
            r"x must be magnitudes, 0 or more \(signed_maps draws both signs\), or vmin given, got -0",
        ),
        (lambda: plots.signed_maps(SIGNED, limit=0), "limit must be positive"),
        (lambda: plots.overlay(GRAY[:2], SIGNED), "one for each of the 2 images, got 3"),
        (lambda: plots.feature_maps(COLOR), r"activations must be those of one image"),
        (lambda: plots.kernels(GRAY), r"weights must have shape \(out, in, k, k\)"),
        (lambda: plots.kernels(np.zeros((2, 9, 3, 3))), "at most 8 input channels, got 9"),
        (lambda: plots.gallery([]), "pictures must hold at least one, got none"),
        (lambda: plots.gallery([np.zeros((2, 3, 3))]), r"pictures\[0\] must be .*got \(2, 3, 3\)"),
        (lambda: plots.gallery([MAP, np.zeros((0, 3))]), r"pictures\[1\] must not be empty"),
        (lambda: plots.gallery([np.full((2, 2), np.nan)]), "at least one finite value"),
        (lambda: plots.gallery([MAP, PICTURE], ["a"]), "titles must give 2"),
        (lambda: plots.gallery([MAP], columns=0), "columns must be a positive integer"),
        (lambda: plots.gallery([MAP, -PHOTO]), r"\[0, 1\]"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_few_pixels_of_a_large_map_do_not_set_its_scale():
    field = np.zeros((200, 200))
    field[5:105] = np.linspace(0, 1, 200)
    field[0, :3] = 1000.0
    (low, high) = plots.overlay(np.zeros((200, 200)), field).axes[0].images[-1].get_clim()
    assert low == 0
    assert high < 2
    assert plots.overlay(np.zeros((200, 200)), field, clip=0).axes[0].images[-1].get_clim() == (0, 1000)
    with pytest.raises(ValueError, match="clip must be a share"):
        plots.overlay(np.zeros((200, 200)), field, clip=0.5)
