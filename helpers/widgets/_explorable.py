"""What all explorables share: Python hands arrays and settings over once, and the reader's browser computes and draws.

An explorable is an anywidget, so it is alive in JupyterLab and Colab. On the site the same code runs without a kernel:
`_repr_mimebundle_` also gives HTML with the arrays, which the site's host (`assets/explorables.js`) brings to life when
it comes into view; where there are no scripts, the figure in it stays.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import anywidget
import matplotlib
import numpy as np
import traitlets

from helpers.plots import Picture
from helpers.plots._html import picture_tag

COLOURS = {"signed": "RdBu_r", "magnitude": "viridis"}  # the colour maps of `helpers.plots`
IMPORT = re.compile(r"^import .*? from \"\./(.*?)\";\n", re.MULTILINE | re.DOTALL)
EXPORT = re.compile(r"^export (?=const|function|class|let)", re.MULTILINE)


@cache
def source(name: str) -> str:
    """The JavaScript of an explorable in one piece: colour maps, the files it imports, its own. It defines `render`."""
    tables = {kind: base64.b64encode(_table(colours)).decode() for kind, colours in COLOURS.items()}
    return "\n".join([f"const COLOURS = {json.dumps(tables)};", *_parts(f"{name}.js", {}).values()])


def _parts(file: str, parts: dict[str, str]) -> dict[str, str]:
    """A file of `front` behind those that it imports, each once, without a word of importing: they share one scope."""
    text = (files("helpers.widgets") / "front" / file).read_text(encoding="utf8")
    for needed in IMPORT.findall(text):
        if needed not in parts:
            _parts(needed, parts)
    parts[file] = EXPORT.sub("", IMPORT.sub("", text))
    return parts


def style() -> str:
    """The style sheet of all explorables."""
    return (files("helpers.widgets") / "front" / "explorable.css").read_text(encoding="utf8")


def _table(colours: str) -> bytes:
    """A colour map as 256 red, green and blue bytes."""
    rgba = matplotlib.colormaps[colours](np.linspace(0, 1, 256))
    return (rgba[:, :3] * 255).round().astype(np.uint8).tobytes()


class Explorable(anywidget.AnyWidget):
    """Something on a page that answers when it is touched.

    Attributes:
        state: what the reader has set, by name; it can be read, observed and set.
        arrays: what the browser computes with, as `helpers.widgets._export.packed` gives it.
        settings: what does not change: layers of networks, names of classes and methods.
    """

    state = traitlets.Dict().tag(sync=True)
    arrays = traitlets.Dict().tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        name: str,
        state: Mapping[str, Any],
        arrays: Mapping[str, Mapping[str, Any]],
        settings: Mapping[str, Any],
        figure: Picture,
        alt: str,
    ) -> None:
        """Make the explorable of `front/NAME.js`; `figure`, described by `alt`, stands where it cannot live."""
        self._name, self._figure, self._alt = name, figure, alt
        self._esm, self._css = f"{source(name)}\nexport default {{ render }};", style()
        super().__init__(state=dict(state), arrays=dict(arrays), settings=dict(settings))

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """What a notebook shows: the widget, and HTML for pages without a kernel."""
        shown = super()._repr_mimebundle_(**options)
        if shown is None:
            return None
        data, about = shown if isinstance(shown, tuple) else (shown, {})
        return {**data, "text/html": self.html(), "text/plain": f"Explorable: {self._alt}"}, about

    def html(self, still: str | None = None) -> str:
        """The explorable for a page without a kernel: its arrays and settings, and the figure until they are alive.

        `still` is HTML to stand there in place of the figure.
        """
        arrays = {
            name: {**entry, "data": base64.b64encode(entry["data"]).decode()} for name, entry in self.arrays.items()
        }
        content = json.dumps({"state": self.state, "settings": self.settings, "arrays": arrays}).replace("<", "\\u003c")
        return (
            f'<div class="explorable-home" data-explorable="{escape(self._name)}">'
            f'<script type="application/json">{content}</script>{still or picture_tag(self._figure, self._alt)}</div>'
        )
