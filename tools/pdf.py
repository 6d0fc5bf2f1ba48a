"""One PDF of the book's core pages: `python -m tools.pdf [--root DIR] [--output FILE]`.

Chromium prints each page of the built site (`assets/print.css`), a title and a table of contents; pypdf puts them
together. The numbers in the contents, the bookmarks and the links from page to page are those of the places that
Chromium reports for every anchor. Without a site of the present text it is built first.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from pypdf import PageObject, PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, NullObject, TextStringObject

from tools import book
from tools.browser import chromium
from tools.front_page import build_line
from tools.project import ROOT, project, site_address
from tools.server import serving

TITLE = "Where Networks Look"
APPENDIX = "Appendix"
LAST = ("book/appendix/glossary", "book/appendix/references")  # of the appendix only what the pages lean on
SCREEN = {"width": 1000, "height": 1400}
LEVELS = 2  # of headings in the contents; the bookmarks have all
# Every picture is loaded, and every anchor is linked to: Chromium names the places of those only.
READY = """async () => {
  for (const image of document.images) image.loading = "eager";
  const links = [...document.querySelectorAll("article [id]")].map(({ id }) => {
    const link = document.createElement("a");
    link.href = `#${encodeURIComponent(id)}`;
    return link;
  });
  const hidden = document.createElement("div");
  hidden.hidden = true;
  hidden.append(...links);
  document.body.append(hidden);
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
}"""
HEADINGS = """() => [...document.querySelectorAll("article :is(h1, h2, h3)")].map((heading) => {
  const copy = heading.cloneNode(true);
  copy.querySelectorAll(".headerlink").forEach((link) => link.remove());
  return [Number(heading.tagName[1]), copy.textContent.trim(), heading.closest("[id]")?.id ?? ""];
})"""
NUMBERED = """html { counter-reset: page %d }
@page {
  @bottom-left { content: "%s"; font: 8pt sans-serif; color: #555 }
  @bottom-right { content: counter(page); font: 8pt sans-serif; color: #555 }
}"""
FRONT = """<!doctype html><html lang="en"><meta charset="utf-8"><style>
@page { size: A4; margin: 18mm 17mm 20mm }
body { font: 10pt/1.4 sans-serif; color: #222 }
.title { break-after: page; padding-top: 60mm }
.title h1 { font-size: 34pt; margin: 0 0 4mm }
.title .about { font-size: 13pt; max-width: 130mm }
.title img { width: 100mm; margin: 12mm 0 }
.title .small { color: #555 }
h2 { font-size: 18pt }
h3 { font-size: 11pt; margin: 5mm 0 1mm; break-after: avoid }
ol { list-style: none; margin: 0; padding: 0 }
li a { display: flex; gap: 2mm; color: inherit; text-decoration: none; align-items: baseline }
li a span { flex: 1; border-bottom: 0.5px dotted #999 }
li.level-1 { font-weight: 600; margin-top: 2mm; break-after: avoid }
li.level-2 { padding-left: 6mm; font-size: 9pt }
</style>"""


@dataclass(frozen=True)
class Heading:
    """A heading of a page: 1 is the page's own title."""

    level: int
    title: str
    anchor: str


@dataclass
class Printed:
    """A page of the site on paper; `places` says on which of its sheets, and how high, each anchor stands."""

    path: str
    part: str
    headings: list[Heading]
    sheets: PdfReader | None = None
    first: int = 0  # the sheets of the book before it
    places: dict[str, tuple[int, float]] = field(default_factory=dict)

    def place(self, anchor: str) -> tuple[int, float | None]:
        """The sheet of the book, from 0, on which an anchor stands, and how high; unknown ones stand at the start."""
        sheet, top = self.places.get(anchor, (0, None))
        return self.first + sheet, top


def core_pages(root: Path) -> list[tuple[str, str]]:
    """The pages to print, each with the part of the book that it is in."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
    parts = [part for part in toc["parts"] if part["caption"] != APPENDIX]
    core = [(part["caption"], entry["file"]) for part in parts for entry in part["chapters"]]
    return core + [(APPENDIX, name) for name in LAST if (root / f"{name}.md").exists()]


def write(browser: Any, site: Path, pages: Sequence[tuple[str, str]], output: Path, front: str, public: str) -> None:
    """Print pages of a site into one file.

    Args:
        browser: Playwright's handle on Chromium.
        site: the folder of the built site.
        pages: part and name of each page, such as ("Maps", "book/ch03_cam").
        output: the file to write.
        front: the HTML of the title page.
        public: where the site is published; links to pages that are not printed lead there.
    """
    with serving(site) as address:
        screen = browser.new_page(viewport=SCREEN, color_scheme="light")
        printed = [seen(screen, address, part, f"{name}.html") for part, name in pages]
        ahead = len(on_paper(screen, front, contents(printed, address), address).pages)
        for page in printed:
            page.first, ahead = ahead, ahead + print_page(screen, address, page, ahead)
        opening = on_paper(screen, front, contents(printed, address), address)
        screen.close()
    merge(opening, printed, output, address, public)


def seen(screen: Any, address: str, part: str, path: str) -> Printed:
    """A page with its headings, not yet printed."""
    screen.goto(address + path, wait_until="load")
    return Printed(path, part, [Heading(*heading) for heading in screen.evaluate(HEADINGS)])


def print_page(screen: Any, address: str, page: Printed, ahead: int) -> int:
    """Print a page whose first sheet is number `ahead` + 1; returns the number of its sheets."""
    screen.goto(address + page.path, wait_until="load")
    screen.evaluate(READY)
    title = page.headings[0].title.replace("\\", "").replace('"', "'") if page.headings else ""
    screen.add_style_tag(content=NUMBERED % (ahead, title))
    page.sheets = PdfReader(io.BytesIO(screen.pdf(prefer_css_page_size=True, print_background=True)))
    for name, place in page.sheets.named_destinations.items():
        sheet = page.sheets.get_destination_page_number(place)
        page.places[unquote(name.removeprefix("/"))] = (sheet, float(place.top or 0))
    return len(page.sheets.pages)


def on_paper(screen: Any, front: str, listed: str, address: str) -> PdfReader:
    """The title page and the contents; `screen` shows a page of the site, so that its pictures may be shown."""
    screen.set_content(f'{FRONT}<base href="{address}"><div class="title">{front}</div>{listed}</html>')
    screen.evaluate("Promise.all([...document.images].map((image) => image.decode().catch(() => {})))")
    return PdfReader(io.BytesIO(screen.pdf(prefer_css_page_size=True, print_background=True)))


def contents(printed: Iterable[Printed], address: str) -> str:
    """The table of contents; its numbers are right once all pages are printed."""
    lines, part = ["<h2>Contents</h2>"], ""
    for page in printed:
        if page.part != part:
            part = page.part
            lines.append(f"<h3>{escape(part)}</h3>")
        entries = [heading for heading in page.headings if heading.level <= LEVELS]
        lines.append("<ol>" + "".join(entry(page, heading, address) for heading in entries) + "</ol>")
    return "\n".join(lines)


def entry(page: Printed, heading: Heading, address: str) -> str:
    """A line of the contents."""
    target, number = f"{address}{page.path}#{heading.anchor}", page.place(heading.anchor)[0] + 1
    line = f'<a href="{escape(target)}">{escape(heading.title)}<span></span>{number}</a>'
    return f'<li class="level-{heading.level}">{line}</li>'


def merge(opening: PdfReader, printed: Sequence[Printed], output: Path, address: str, public: str) -> None:
    """Put the sheets together, with bookmarks and with links that lead to their places."""
    writer = PdfWriter()
    for reader in (opening, *(page.sheets for page in printed)):
        writer.append(reader, import_outline=False)
    writer.root_object.pop("/Dests", None)  # the names of one page would hide those of another
    writer.root_object.pop("/Names", None)
    by_path, owners = {page.path: page for page in printed}, [None] * len(opening.pages)
    for page in printed:
        owners += [page] * len(page.sheets.pages)
        mark(writer, page)
    for sheet, owner in zip(writer.pages, owners, strict=True):
        for annotation in sheet.get("/Annots", ()):
            lead(writer, annotation.get_object(), owner, by_path, address, public)
    writer.add_metadata({"/Title": TITLE, "/Author": ", ".join(one["name"] for one in project()["authors"])})
    writer.root_object[NameObject("/Lang")] = TextStringObject("en")
    writer.page_mode = "/UseOutlines"
    writer.compress_identical_objects()
    output.parent.mkdir(parents=True, exist_ok=True)
    writer.write(output)


def mark(writer: PdfWriter, page: Printed) -> None:
    """Add a page's bookmarks, one within the other as its headings are."""
    above: list[tuple[int, Any]] = []
    for heading in page.headings:
        above = [(level, item) for level, item in above if level < heading.level]
        sheet, _ = page.place(heading.anchor)
        item = writer.add_outline_item(title=heading.title, page_number=sheet, parent=above[-1][1] if above else None)
        above.append((heading.level, item))


def lead(
    writer: PdfWriter,
    annotation: DictionaryObject,
    owner: Printed | None,
    by_path: dict[str, Printed],
    address: str,
    public: str,
) -> None:
    """Let a link lead to its place in the file, or, where that is not printed, to the published site."""
    action = annotation.get("/A", {})
    if "/Dest" in annotation and owner:
        goto(writer, annotation, owner, unquote(str(annotation["/Dest"]).removeprefix("/")))
    elif str(action.get("/URI", "")).startswith(address):
        rest = str(action["/URI"]).removeprefix(address)
        parts = urlsplit(rest)
        if parts.path in by_path:
            del annotation["/A"]
            goto(writer, annotation, by_path[parts.path], unquote(parts.fragment))
        else:
            action[NameObject("/URI")] = TextStringObject(public + rest)


def goto(writer: PdfWriter, annotation: DictionaryObject, page: Printed, anchor: str) -> None:
    """Let a link lead to an anchor of a printed page."""
    sheet, top = page.place(anchor)
    target: PageObject = writer.pages[sheet]
    height = NullObject() if top is None else FloatObject(top)
    place = [target.indirect_reference, NameObject("/XYZ"), NullObject(), height, NullObject()]
    annotation[NameObject("/Dest")] = ArrayObject(place)


def title_page(root: Path) -> str:
    """The title page of the book."""
    about = project(root)
    authors = ", ".join(one["name"] for one in about["authors"])
    return (
        f'<h1>{TITLE}</h1><p class="about">An executable book on where convolutional networks look, and how they would '
        f'choose where to look next</p><img src="_static/cover.png" alt=""><p>{escape(authors)}</p>'
        f'<p class="small">{escape(build_line(root))}<br>Live pages, code and exercises: '
        f"{escape(site_address(root))}<br>Text and figures: CC BY 4.0. Code: MIT.</p>"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the book; 1 where its site cannot be built.

    Args:
        arguments: the command line without the program's name; None takes that of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.pdf", description="Print the book's core pages into a PDF.")
    parser.add_argument("--root", metavar="DIR", type=Path, default=ROOT, help="the book's root folder")
    parser.add_argument("--output", metavar="FILE", type=Path, help="by default _build/where-networks-look.pdf")
    parser.add_argument("--as-built", action="store_true", help="print the site that is there, however old")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if not options.as_built and not book.is_fresh(root):
        built = book.build(root)
        if not built.passed:
            print(built.complaints, "\nThe site was not built, so there is nothing to print.", sep="\n")
            return 1
    output = options.output or root / "_build" / "where-networks-look.pdf"
    with chromium() as browser:
        write(browser, book.site_dir(root), core_pages(root), output, title_page(root), site_address(root))
    print(f"{output}: {len(PdfReader(output).pages)} pages, {output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
