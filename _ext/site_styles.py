"""One style sheet for all pages, without what no page uses.

The theme and its extensions come as twelve files of 0.6 MB, and a page is not drawn before the last of them is there.
Here they become one. A rule whose classes stand on no page and in no script is left out, and of the icon fonts only
the signs that are used stay, in the sheet itself: so there is neither the theme's script of icons, which is 1.5 MB, nor
a font to wait for.
"""

from __future__ import annotations

import base64
import hashlib
import io
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

SHEET = re.compile(
    r'\s*<link\b(?=[^>]*\brel="stylesheet")[^>]*?\bhref="(?P<root>[^"]*?)_static/(?P<file>[^"?]+)[^"]*"[^>]*>'
)
# Those of extensions that no page uses, by what would have to stand on a page.
NEEDED_FOR = {
    "sphinx-thebe.css": "thebe-",
    "sphinx-design.min.css": 'class="sd-',
    "togglebutton.css": 'class="toggle',
}
MADE_BY_SCRIPTS = ("bs-",)  # beginnings of classes that a script puts together
NOT_READ = re.compile(r"^mathjax/|fontawesome|/array-")  # scripts that put no class on a page
COMMENT = re.compile(r"/\*(?!!).*?\*/", re.DOTALL)
NOTICE = re.compile(r"/\*!.*?\*/", re.DOTALL)
IMPORT = re.compile(r'@import\s+"([^"]+)";')
URL = re.compile(r"url\(\s*(['\"]?)(?!data:|#)([^'\")]+)\1\s*\)")
PIECE = re.compile(r"(?P<opens>[^{}]+)\{|(?P<closes>\})")
FUNCTION = re.compile(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)")
CLASS = re.compile(r"\.(-?[A-Za-z_][\w-]*)")
WORD = re.compile(r"-?[A-Za-z_][\w-]*")
IN_PAGE = re.compile(r'\bclass="([^"]*)"')
FACE = re.compile(r"@font-face\{[^}]*?url\((?P<file>[^)]*fontawesome[^)]*)\.woff2\)[^}]*\}")
SIGN = re.compile("[\ue000-\uf8ff]")  # the private characters that the theme's variables hold
FONTS = {
    "fa-solid-900": "--fa-font-solid",
    "fa-regular-400": "--fa-font-regular",
    "fa-brands-400": "--fa-font-brands",
}  # the variables by which the styles ask for the icon fonts
NAME = "Font Awesome\\ 6"  # under older names the same fonts stand there again


def bundled(static: Path, pages: Iterable[str]) -> str:
    """Write the one sheet into the folder of static files; returns its name with a mark of its content."""
    pages = list(pages)
    names = dict.fromkeys(match["file"] for page in pages for match in SHEET.finditer(page))
    names = [name for name in names if any(NEEDED_FOR.get(name, "") in page for page in pages)]
    text = "\n".join(read(static, name) for name in names)
    notices = "\n".join(dict.fromkeys(NOTICE.findall(text)))
    rules = "".join(kept(NOTICE.sub("", text), known(static, pages)))
    sheet = f"{notices}\n{with_signs(rules, static)}"
    (static / "site.css").write_text(sheet, encoding="utf8")
    return f"site.css?v={hashlib.sha256(sheet.encode()).hexdigest()[:8]}"


def read(static: Path, name: str) -> str:
    """A sheet without comments, with those that it imports, its addresses as seen from the folder of static files."""
    folder = posixpath.dirname(name)
    text = COMMENT.sub("", (static / name).read_text(encoding="utf8"))
    text = URL.sub(lambda match: f"url({posixpath.normpath(posixpath.join(folder, match[2]))})", text)
    return IMPORT.sub(lambda match: read(static, posixpath.normpath(posixpath.join(folder, match[1]))), text)


def known(static: Path, pages: Iterable[str]) -> set[str]:
    """The classes that stand on a page, and all words of scripts, which may put classes on it."""
    names = {name for page in pages for classes in IN_PAGE.findall(page) for name in classes.split()}
    scripts = (path for path in static.rglob("*.js") if not NOT_READ.search(path.relative_to(static).as_posix()))
    return names.union(*(WORD.findall(path.read_text(encoding="utf8")) for path in scripts))


def kept(css: str, names: set[str]) -> Iterator[str]:
    """The rules of a sheet that may apply where only these classes are there."""
    position = 0
    while match := PIECE.search(css, position):
        if match["closes"]:
            position = match.end()
            continue
        head, end = match["opens"].strip(), closing(css, match.end())
        body, position = css[match.end() : end], end + 1
        while head.startswith("@") and ";" in head:  # such as @charset, which ends before the rule
            head = head.partition(";")[2].strip()
        if head.startswith(("@media", "@supports")):
            inner = "".join(kept(body, names))
            if inner:
                yield f"{head}{{{inner}}}\n"
        elif head.startswith("@"):
            yield f"{head}{{{body.strip()}}}\n"
        elif selectors := [selector for selector in split(head) if applies(selector, names)]:
            yield f"{','.join(selectors)}{{{' '.join(body.split())}}}\n"


def closing(css: str, start: int) -> int:
    """Where the brace closes that was opened just before `start`."""
    depth = 1
    for match in re.compile(r"[{}]").finditer(css, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    return len(css)


def split(selectors: str) -> list[str]:
    """The selectors of a list; commas within parentheses do not part them."""
    return [" ".join(part.split()) for part in re.split(r",(?![^(]*\))", selectors)]


def applies(selector: str, names: set[str]) -> bool:
    """Whether all classes that a selector asks for are known; what stands in :not() and its like may be missing."""
    asked = CLASS.findall(FUNCTION.sub("", selector))
    return all(name in names or name.startswith(MADE_BY_SCRIPTS) for name in asked)


def with_signs(css: str, static: Path) -> str:
    """The sheet with its icon fonts inside, each cut down to the signs that the sheet names."""
    signs = set(map(ord, SIGN.findall(css)))

    def inside(face: re.Match[str]) -> str:
        path = static / f"{face['file']}.ttf"
        asked = FONTS.get(path.stem, "") if NAME in face[0] else ""
        return cut(face[0], path, signs) if asked and f"var({asked})" in css else ""

    return FACE.sub(inside, css)


def cut(face: str, path: Path, signs: set[int]) -> str:
    """A font's rule with the font inside, or nothing where it has none of the signs."""
    font = TTFont(path, recalcTimestamp=False)
    own = signs & set(font.getBestCmap())
    if not own:
        return ""
    cutter = subset.Subsetter(subset.Options(notdef_outline=False, name_IDs=[]))
    cutter.populate(unicodes=own)
    cutter.subset(font)
    font.flavor, stream = "woff", io.BytesIO()
    font.save(stream)
    data = base64.b64encode(stream.getvalue()).decode()
    return re.sub(r"src:[^}]*", f'src:url(data:font/woff;base64,{data}) format("woff")', face)
