"""Finishes the site once Sphinx has written it: quick on a slow phone, and sound for those who hear it or use keys.

- Styles become one file (site_styles), pictures smaller files with a size (site_pictures), and no script keeps a page
  from being drawn; those that a page has no use for, MathJax without a formula above all, are left out.
- What the theme and its extensions get wrong of HTML and of ARIA is mended here, each fault in a line of its own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parent))

from site_icons import with_icons
from site_pictures import compressed, taken_out, with_pictures
from site_search import indexed
from site_styles import SHEET, bundled

OTHERS = {"_static", "_sources"}
SCRIPT = re.compile(r"\s*<script\b(?P<attributes>[^>]*)>(?P<text>.*?)</script>", re.DOTALL)
# Scripts that only some pages need: a part of the address or of the text, and what stands on a page that needs them.
NEEDED_FOR = {
    "mathjax": re.compile(r'class="[^"]*\bmath\b'),
    "MathJax": re.compile(r'class="[^"]*\bmath\b'),
    "togglebutton": re.compile(r'class="[^"]*\btoggle\b'),
    "toggleHint": re.compile(r'class="[^"]*\btoggle\b'),
    "toggleOpenOnPrint": re.compile(r'class="[^"]*\btoggle\b'),
    "design-tabs": re.compile(r'class="sd-tab'),
    "clipboard": re.compile(r'<div class="highlight'),
    "copybutton": re.compile(r'<div class="highlight'),
}
# Never: the icons come with the styles, a widget's state needs a kernel, and so does thebe; no page asks its own name;
# the search is assets/search.js.
UNUSED = (
    *("fontawesome", "widget-state+json", "text/x-thebe-config", "kernelName", "DOCUMENTATION_OPTIONS.pagename"),
    *("sphinx_highlight", "searchtools", "language_data", "searchindex", "Activate the search field"),
)
PRELOADED = re.compile(r'\s*<link rel="preload" as="(?:script|font)"[^>]*>')


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Rewrite all pages, then index what they say."""
    if exception or app.builder.name != "html":
        return
    site = Path(app.outdir)
    static, images = site / "_static", site / "_images"
    pages = {path: taken_out(path.read_text(encoding="utf8"), path, images) for path in written(site)}
    replaced = compressed(images)
    pages = {path: mended(with_pictures(html, path, replaced), static) for path, html in pages.items()}
    sheet = bundled(static, pages.values())
    pages = {path: with_sheet(html, sheet) for path, html in pages.items()}
    for path, html in pages.items():
        path.write_text(html, encoding="utf8")
    (site / "searchindex.js").unlink(missing_ok=True)  # what Sphinx's own search would read
    indexed(site, pages)


def written(site: Path) -> list[Path]:
    """The pages of a site."""
    return sorted(path for path in site.rglob("*.html") if not OTHERS & set(path.relative_to(site).parts))


def mended(html: str, static: Path) -> str:
    """A page with the scripts that it needs, its icons drawn, its faults mended."""
    html = PRELOADED.sub("", SCRIPT.sub(lambda match: script(match, html), with_icons(html, static)))
    for fault, sound in FAULTS:
        html = fault.sub(sound, html)
    return without_lists(html)


def with_sheet(html: str, sheet: str) -> str:
    """A page whose style sheets are one."""
    first = SHEET.search(html)
    if not first:
        return html
    link = f'\n    <link rel="stylesheet" href="{first["root"]}_static/{sheet}">'
    return html[: first.start()] + link + SHEET.sub("", html[first.start() :])


def script(match: re.Match[str], html: str) -> str:
    """A script of a page, which does not keep it from being drawn; nothing where the page has no use for it."""
    attributes, text = match["attributes"], match["text"]
    said = attributes if "type=" in attributes else attributes + text  # what has a type may be data
    if any(name in said for name in UNUSED):
        return ""
    if any(name in said and not mark.search(html) for name, mark in NEEDED_FOR.items()):
        return ""
    if "src=" in attributes and not re.search(r"\b(defer|async|module)\b", attributes):
        return match[0].replace("<script", "<script defer", 1)
    return match[0]


# Each fault of the theme or an extension, and what stands in its place.
FAULTS: list[tuple[re.Pattern[str], str]] = [
    # The page is drawn before the theme's script chooses dark or light: so this line chooses already.
    (
        re.compile(r'(dataset\.theme = )localStorage\.getItem\("theme"\) \|\| "auto"'),
        r'\1["light", "dark"].includes(localStorage.getItem("mode")) ? localStorage.getItem("mode") : '
        r'matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"',
    ),
    # The logo and the search stand in no landmark.
    (
        re.compile(r'<div ((?:id="pst-primary-sidebar" )?class="bd-sidebar-primary )'),
        r'<div role="region" aria-label="Book" \1',
    ),
    # What unfolds a part of the contents has no name.
    (
        re.compile(r'(<a class="[^"]*reference internal" href="[^"]*">([^<]*)</a><details[^>]*>)<summary>'),
        r'\1<summary aria-label="Pages below: \2">',
    ),
    # Names that do not say what is seen.
    (re.compile(r'(<button class="btn search-button-field[^>]*) aria-label="Search"'), r"\1"),
    (
        re.compile(
            r'<summary aria-label="Toggle hidden content">\s*<p class="collapsed admonition-title">(.*?)</p>\s*'
            r'<p class="expanded admonition-title">.*?</p>\s*</summary>'
        ),
        r'<summary><span class="admonition-title">\1</span></summary>',
    ),
    # The same id twice, in an older version of the theme.
    (re.compile(r'\s*id="search-input"'), ""),
    # The entries of a bibliography are the items of a list.
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),
    # An address with a bare ampersand.
    (re.compile(r"(issues/new\?title=[^\"&]*)&body="), r"\1&amp;body="),
    # A paragraph around the paragraphs of a field.
    (re.compile(r'(<dd class="field-\w+">)<p>(<p>(?:(?!</dd>).)*)\n</p>\n(?=</dd>)', re.DOTALL), r"\1\2\n"),
    # A table scrolls in a box of its own, so that it stays a table; an output is such a box already.
    (re.compile(r"(<table\b.*?</table>)", re.DOTALL), r'<div class="scrolls">\1</div>'),
    (re.compile(r'(<details class="claim"[^>]*><summary>)([✓✗])'), r'\1<span class="mark">\2</span>'),
]
SIGNATURE = re.compile(r'(?<=<span class="sig-paren">\(</span>)\s*<dl>(.*?)</dl>', re.DOTALL)


def without_lists(html: str) -> str:
    """A page whose signatures are no lists of definitions: their arguments define nothing."""

    def lines(match: re.Match[str]) -> str:
        text = match[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
        return f"<span>{text}</span>"

    return SIGNATURE.sub(lines, html)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything with Sphinx."""
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
