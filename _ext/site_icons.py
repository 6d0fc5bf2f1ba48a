"""The icons of the pages as drawings in their text, each taken from the theme's icon fonts.

The theme draws them with a script of 1.5 MB, which holds two thousand others and keeps the page from being shown; its
styles are made for the drawings that this script would put into the page, and these are the same.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.pens.transformPen import TransformPen
from fontTools.ttLib import TTFont

STYLE = r"fa(?:s|r|b|-solid|-regular|-brands)"
ICON = re.compile(rf'<(?P<tag>i|span) class="(?P<classes>(?:[^"]*\s)?{STYLE}\s[^"]*)"(?P<rest>[^>]*)></\1>')
STYLES = {
    **dict.fromkeys(("fas", "fa-solid"), "fa-solid-900"),
    **dict.fromkeys(("far", "fa-regular"), "fa-regular-400"),
    **dict.fromkeys(("fab", "fa-brands"), "fa-brands-400"),
}


def with_icons(html: str, static: Path) -> str:
    """A page with its icons drawn."""

    def drawing(match: re.Match[str]) -> str:
        classes = match["classes"].split()
        style = next(name for name in classes if name in STYLES)
        others = [name for name in classes if name != style]
        code = next(codes(static)[name] for name in others if name in codes(static))
        box, path = outline(files(static)[STYLES[style]], code)
        return (
            f'<svg class="{" ".join(["svg-inline--fa", *others])}"{match["rest"]} aria-hidden="true" viewBox="{box}">'
            f'<path fill="currentColor" d="{path}"/></svg>'
        )

    return ICON.sub(drawing, html)


@cache
def codes(static: Path) -> dict[str, int]:
    """The sign of each icon's class, as the theme's styles give them, wherever its version has them."""
    sheets = (path.read_text(encoding="utf8") for path in static.rglob("*.css"))
    text = "".join(sheet for sheet in sheets if ".fa-" in sheet)
    rules = re.findall(r'((?:\.fa-[\w-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}', text)
    return {name: int(code, 16) for names, code in rules for name in re.findall(r"\.(fa-[\w-]+):", names)}


@cache
def files(static: Path) -> dict[str, Path]:
    """The icon fonts by name."""
    return {path.stem: path for path in static.rglob("fa-*.ttf")}


@cache
def font(path: Path) -> TTFont:
    """One of the icon fonts."""
    return TTFont(path)


@cache
def outline(path: Path, code: int) -> tuple[str, str]:
    """The box and the path of a sign, top down as SVG counts."""
    signs = font(path)
    name, glyphs = signs.getBestCmap()[code], signs.getGlyphSet()
    pen = SVGPathPen(glyphs, ntos=lambda number: f"{number:.0f}")
    glyphs[name].draw(TransformPen(pen, (1, 0, 0, -1, 0, signs["hhea"].ascent)))
    return f"0 0 {glyphs[name].width} {signs['head'].unitsPerEm}", pen.getCommands()
