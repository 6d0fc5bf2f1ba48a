"""Boxes over images."""

import pytest
from support.figures import BOXES, GRAY, written

from helpers import plots


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.boxes(GRAY, BOXES[:2]), "one entry for each of the 3 images, got 2"),
        (lambda: plots.boxes(GRAY, BOXES, labels=[["a"]]), "labels must give a list for each of the 3"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
