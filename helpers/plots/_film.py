"""Figures one after the other, moved by a slider: an animation that needs no kernel and no network."""

from __future__ import annotations

import base64
import html
import io
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from helpers.plots._panels import Picture

FILM_DPI = 80  # pixels an inch of the frames: a page holds many

_SCRIPT = """
<script>
(function () {
  var film = document.getElementById("%s"), frames = film.querySelectorAll("img"), slider = film.querySelector("input");
  function show() {
    for (var i = 0; i < frames.length; i++) { frames[i].style.display = i == slider.value ? "block" : "none"; }
    slider.setAttribute("aria-valuetext", frames[slider.value].alt);
  }
  slider.addEventListener("input", show); show();
})();
</script>
"""


def picture_tag(figure: Picture, alt: str, dpi: float | None = None, style: str = "max-width:100%") -> str:
    """A figure as an HTML image that carries its own alternative text and all its data.

    Args:
        figure: any matplotlib figure.
        alt: what is seen, for readers who do not see it.
        dpi: pixels an inch; the figure's own when None.
        style: CSS of the image.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi or "figure")
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img style="{style}" alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}">'


@dataclass(frozen=True, repr=False)
class Film:
    """What `film` returns; the last value of a cell is shown with its slider."""

    tags: tuple[str, ...]
    caption: str

    def _repr_html_(self) -> str:
        name = f"film-{uuid.uuid4().hex[:12]}"  # several films on a page must not move each other
        frames = "\n".join(self.tags)
        slider = (
            f'<input type="range" min="0" max="{len(self.tags) - 1}" value="0" step="1" style="width:100%" '
            f'aria-label="{html.escape(self.caption, quote=True)}">'
        )
        caption = f"<p>{html.escape(self.caption)}</p>"
        return f'<div id="{name}" class="film">{slider}\n{frames}\n{caption}</div>{_SCRIPT % name}'

    def __repr__(self) -> str:
        """For terminals."""
        return f"Film of {len(self.tags)} frames: {self.caption}"


def film(frames: Sequence[Picture], alts: Sequence[str], caption: str) -> Film:
    """Frames and a slider, in one piece of HTML that holds all its data.

    Without scripts the first frame is shown.

    Args:
        frames: figures of one size.
        alts: what is seen on each.
        caption: one line below.

    Raises:
        ValueError: no frame, or another number of texts.
    """
    if not isinstance(frames, Sequence) or not all(isinstance(frame, Figure) for frame in frames):
        raise ValueError("frames must be figures, such as those that helpers.plots makes")
    if len(frames) == 0 or len(frames) != len(alts) or isinstance(alts, str):
        raise ValueError(f"frames and alts must be as many, one at least, got {len(frames)} and {len(alts)}")
    shown = ["max-width:100%" + ("" if i == 0 else ";display:none") for i in range(len(frames))]
    triples = zip(frames, alts, shown, strict=True)
    return Film(tuple(picture_tag(frame, alt, FILM_DPI, style) for frame, alt, style in triples), caption)
