"""A figure as HTML: one image with all its data and its own text."""

import base64
import html
import io
import re

import pytest
from matplotlib.image import imread

from helpers import plots
from helpers.plots._html import picture_tag


def test_a_picture_is_one_image_with_all_its_data() -> None:
    figure = plots.images([[[0.0, 0.5], [0.5, 1.0]]])
    data, own = (
        re.fullmatch(
            r'<img style="max-width:100%" alt="gray" src="data:image/png;base64,(.*)">', picture_tag(figure, "gray")
        )[1],
        io.BytesIO(),
    )
    figure.savefig(own, format="png", dpi="figure")
    own.seek(0)
    assert (imread(io.BytesIO(base64.b64decode(data))) == imread(own)).all()


@pytest.mark.parametrize("alt", ['a "quoted" <line> & more', "50 % “curly” ½ é", "two\nlines"])
def test_texts_are_escaped(alt: str) -> None:
    tag = picture_tag(plots.images([[[0.0, 1.0]]]), alt)
    assert tag.count("<") == tag.count(">") == 1
    assert html.unescape(re.search(r'alt="([^"]*)"', tag)[1]) == alt
