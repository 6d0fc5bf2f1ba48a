"""The search: an index of sections, so that a result leads to the place and not only to the page.

Pagefind indexes what is given to it here: for each section of a page, each function of the package and each word of the
glossary, its title, its page and its prose. Code, printed numbers and controls are left out, and formulas are made
readable, so that an excerpt is a sentence. The browser asks `assets/search.js`, which reads the index file by file.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ARTICLE = re.compile(r"<article\b[^>]*>(?P<text>.*)</article>", re.DOTALL)
# What starts a part of a page that can be linked to: a section, an entry of the package, a word of the glossary.
PART = re.compile(
    r'<section\b[^>]*\bid="(?P<section>[^"]+)"[^>]*>\s*(?:<span id="[^"]*"></span>\s*)*'
    r"<h(?P<level>[1-6])>(?P<title>.*?)</h\2>"
    r'|<dt class="sig[^>]*\bid="(?P<entry>[^"]+)"[^>]*>.*?</dt>'
    r'|<dt id="(?P<term>term-[^"]+)"[^>]*>(?P<word>.*?)</dt>',
    re.DOTALL,
)
LEFT_OUT = re.compile(
    r'<div class="highlight.*?</pre>|<pre\b.*?</pre>|<table\b.*?</table>|<summary\b.*?</summary>'
    r"|<script\b.*?</script>|<style\b.*?</style>|<p>Page: <a.*?</p>"
    r'|<details class="claim".*?</details>|<p class="(?:clear|page-foot)".*?</p>'
    r'|<a class="headerlink".*?</a>|<div class="math\b.*?</div>',
    re.DOTALL,
)
FORMULA = re.compile(r'<span class="math[^>]*>\\\((.*?)\\\)</span>', re.DOTALL)
TAG = re.compile(r"<[^>]+>")
COMMAND = re.compile(r"\\([A-Za-z]+|.)\s?")
SIGNS = {
    "sum": "∑", "prod": "∏", "int": "∫", "sqrt": "√", "partial": "∂", "nabla": "∇", "infty": "∞", "cdot": "·",
    "times": "×", "pm": "±", "odot": "⊙", "ast": "∗", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "approx": "≈",
    "ne": "≠", "neq": "≠", "in": "∈", "to": "→", "mapsto": "↦", "mid": "|", "lVert": "‖", "rVert": "‖", "dots": "…",
    "ldots": "…", "cdots": "…", **{name: name for name in ("max", "min", "log", "ln", "exp", "sin", "cos", "arg")},
}  # fmt: skip
# What explains a thing comes before what only lists it.
TITLE = 7.0  # a word of a title counts as so many of the text
WEIGHTS = [
    (re.compile(r"#(references|what-next)$"), 0.25),
    (re.compile(r"#exercise-"), 0.5),
    (re.compile(r"appendix/(api|glossary)"), 0.5),
    (re.compile(r"appendix/(claims|equations)"), 0.1),  # lists of what the chapters say
    (re.compile(r"appendix/"), 0.25),
    (re.compile(r"^[^#]*$"), 0.75),  # the opening of a page, which promises what its sections say
    (re.compile(""), 1.0),
]


@dataclass(frozen=True)
class Part:
    """One thing that the search can find."""

    url: str
    title: str
    page: str
    text: str


def indexed(site: Path, pages: Mapping[Path, str]) -> None:
    """Write the index of all pages into the folder `pagefind` of the site.

    Pagefind reads a folder of pages, so each part becomes one for it. Its Python interface would do without, but takes
    a tenth of a second for every part.
    """
    parts = [part for path, text in pages.items() for part in parts_of(text, path.relative_to(site).as_posix())]
    bundle = site / "pagefind"
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(parts):
            (Path(folder) / f"{number}.html").write_text(document(part), encoding="utf8")
        command = [sys.executable, "-m", "pagefind", "--site", folder, "--output-path", str(bundle), "--silent"]
        subprocess.run(command, check=True)
    for file in bundle.glob("pagefind-*"):
        if re.search(r"-ui\.|-highlight\.", file.name):  # Pagefind's own interfaces
            file.unlink()


def document(part: Part) -> str:
    """A part as a page that Pagefind reads."""
    title, text = html.escape(part.title), html.escape(part.text)
    url, page = (
        f'<meta data-pagefind-meta="{name}[content]" content="{html.escape(value)}">'
        for name, value in (("url", part.url), ("page", part.page))
    )
    weight = next(weight for pattern, weight in WEIGHTS if pattern.search(part.url))
    return (
        f'<html lang="en"><body>{url}{page}<h1 data-pagefind-meta="title" data-pagefind-weight="{TITLE * weight:g}">'
        f'{title}</h1><p data-pagefind-weight="{weight:g}">{text}</p></body></html>'
    )


def parts_of(text: str, url: str) -> Iterator[Part]:
    """The parts of a page; nothing of a page without an article, such as the index of names."""
    article = ARTICLE.search(text)
    starts = list(PART.finditer(article["text"])) if article else []
    ends = [start.start() for start in starts[1:]] + [None]
    for start, end in zip(starts, ends, strict=False):
        page, body = plain(starts[0]["title"]), article["text"][start.end() : end]
        if start["section"]:
            first = start["level"] == "1"
            address = url if first else f"{url}#{start['section']}"
            yield Part(address, plain(start["title"]), page, plain(body))
        elif start["entry"]:
            yield Part(f"{url}#{start['entry']}", start["entry"], page, plain(body))
        else:
            yield Part(f"{url}#{start['term']}", plain(start["word"]), page, plain(body))


def plain(text: str) -> str:
    """The prose of a piece of a page."""
    text = FORMULA.sub(lambda match: formula(html.unescape(match[1])), LEFT_OUT.sub(" ", text))
    return " ".join(html.unescape(TAG.sub("", text.replace("</p>", "</p> ").replace("</li>", "</li> "))).split())


def formula(tex: str) -> str:
    """A formula as one line that can be read."""

    def sign(match: re.Match[str]) -> str:
        name = match[1]
        if name in SIGNS:
            return SIGNS[name]
        case = "CAPITAL" if name[:1].isupper() else "SMALL"
        try:
            return unicodedata.lookup(f"GREEK {case} LETTER {name.upper()}")
        except KeyError:
            return ""

    return html.escape(re.sub(r"[{}]", "", COMMAND.sub(sign, tex)))
