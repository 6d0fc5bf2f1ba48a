"""Images as they are: their scale, their numbers, and the picture that a notebook shows once."""

import numpy as np
import pytest
import torch
from support.figures import COLOR, GRAY, arrays, has_bar, limits, written

from helpers import plots


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


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_images_of_one_value_are_shown_as_they_are(value):
    plain = np.full((1, 3, 2, 2), value)
    assert limits(plots.images(plain[:, 0])) == [(0, 1)]
    for figure in (plots.images(plain), plots.scanpaths(plain, [[0, 0]])):
        np.testing.assert_array_equal(arrays(figure)[0], plain[0].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.images(np.zeros(3)), r"images must have shape .*got \(3,\)"),
        (lambda: plots.images(COLOR * 2), r"colour must lie in \[0, 1\]"),
        (lambda: plots.images(COLOR, values=True), "wants gray images"),
        (lambda: plots.images(GRAY, ["a"]), "titles must give 3"),
        (lambda: plots.images(GRAY, columns=0), "columns must be a positive integer"),
        (lambda: plots.images(GRAY, vmin=2, vmax=1), "vmin must be below vmax"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
