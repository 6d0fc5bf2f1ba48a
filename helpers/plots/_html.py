"""A figure as HTML, for what is more than a figure."""

from __future__ import annotations

import base64
import html
import io

from matplotlib.figure import Figure


def picture_tag(figure: Figure, alt: str) -> str:
    """A figure as an HTML image that carries its own alternative text and all its data.

    Args:
        figure: any matplotlib figure.
        alt: what is seen, for readers who do not see it.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi="figure")
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img style="max-width:100%" alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}">'
