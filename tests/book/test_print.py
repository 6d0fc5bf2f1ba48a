"""Paper: what a page prints, and the PDF of the book, whose numbers and links must be right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pypdf import PdfReader
from pypdf.generic import ArrayObject
from support.watched import CHAPTERS, DESKTOP

from tools import pdf
from tools.project import ROOT

# What would be wrong on paper; the page has been told that it is printed.
WRONG = """() => {
  const shown = (node) => node.checkVisibility({ visibilityProperty: true });
  const found = [];
  for (const node of document.querySelectorAll("article *")) {
    const { overflowX, overflowY } = getComputedStyle(node);
    if (/auto|scroll/.test(overflowX + overflowY) && shown(node) &&
        (node.scrollWidth > node.clientWidth + 1 || node.scrollHeight > node.clientHeight + 1))
      found.push(`scrolls: ${node.tagName} ${node.className}`);
  }
  for (const fold of document.querySelectorAll("article details")) {
    const secret = /^(Hint|Solution)/.test(fold.querySelector("summary").textContent.trim());
    if (fold.open === secret) found.push(`${fold.open ? "open" : "closed"}: ${fold.textContent.trim().slice(0, 40)}`);
  }
  const screen = "nav, dialog, button, .headerlink, .prev-next-footer, .bd-header-article, p.clear, p.page-foot";
  for (const node of document.querySelectorAll(screen))
    if (shown(node)) found.push(`shown: ${node.className || node.tagName}`);
  for (const link of document.querySelectorAll("article p > a.reference.external"))
    if (!link.closest(".citation, figcaption") && !getComputedStyle(link, "::after").content.includes("http"))
      found.push(`no address: ${link.href}`);
  for (const code of document.querySelectorAll("article pre"))
    if (getComputedStyle(code).whiteSpaceCollapse !== "preserve" || getComputedStyle(code).textWrapMode !== "wrap")
      found.push("code does not wrap");
  if (getComputedStyle(document.documentElement).colorScheme.includes("dark")) found.push("dark");
  return [...new Set(found)];
}"""


OUTWARD = """() => document.querySelector("article p")
  .insertAdjacentHTML("beforeend", '<a class="reference external" href="https://example.org/">far</a>')"""


@pytest.mark.browser
def test_a_page_on_paper(watch: Any) -> None:
    page = watch(DESKTOP, "dark").open(f"book/{CHAPTERS[2]}.html")
    page.evaluate(OUTWARD)
    on_screen = page.evaluate(WRONG)
    assert {"dark", "code does not wrap"} <= set(on_screen), "what is wrong on paper must be seen"
    assert [fault for fault in on_screen if fault.startswith("closed: ")]
    assert [fault for fault in on_screen if fault.startswith("shown: ")]
    assert [fault for fault in on_screen if fault.startswith("no address: ")]
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(WRONG) == []
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(WRONG) == on_screen, "the screen is as it was"


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>
@page {{ size: A4; margin: 20mm }} .long {{ height: {height}mm }}</style>
<article><section id="top"><h1>{name}<a class="headerlink" href="#top">#</a></h1><p>Opening of {name}.</p>
<p class="long"></p><section id="here"><h2>Where {name} is</h2><p>{link}</p></section>
<section id="there"><h3>Below {name}</h3><p id="spot">A spot of {name}.</p></section></section></article></html>"""
LINKS = {
    "one": '<a href="two.html#here">across</a> <a href="#spot">within</a>',
    "two": '<a href="one.html">back</a> <a href="other.html#x">out</a> <a href="https://example.org/">far</a>',
}
PUBLIC = "https://public.example/book/"


@pytest.fixture(scope="module")
def printed(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> PdfReader:
    """A book of two pages, of three and two sheets."""
    site = tmp_path_factory.mktemp("site")
    (site / "index.html").write_text("<title>Home</title>", encoding="utf8")
    for name, height in (("one", 500), ("two", 300)):
        (site / f"{name}.html").write_text(PAGE.format(name=name, height=height, link=LINKS[name]), encoding="utf8")
    output = site / "book.pdf"
    pdf.write(chromium, site, [("Part A", "one"), ("Part B", "two")], output, "<h1>A title</h1>", PUBLIC)
    return PdfReader(output)


def texts(book: PdfReader) -> list[str]:
    """The text of each sheet, without blanks."""
    return [re.sub(r"\s+", "", sheet.extract_text()) for sheet in book.pages]


def sheet_of(book: PdfReader, words: str) -> int:
    """The number, from 1, of the sheet of a page of the book on which words stand."""
    found = [number for number, text in enumerate(texts(book), 1) if re.sub(r"\s+", "", words) in text and number > 2]
    assert len(found) == 1, (words, found)
    return found[0]


@pytest.mark.browser
def test_the_numbers_of_the_contents_are_those_of_the_sheets(printed: PdfReader) -> None:
    title, contents, *sheets = texts(printed)
    assert title == "Atitle"
    assert len(sheets) == 5
    lines = re.findall(r"(PartA|PartB)|(Where(?:one|two)is|one|two)(\d+)", contents.removeprefix("Contents"))
    one, two = sheet_of(printed, "Opening of one"), sheet_of(printed, "Opening of two")
    assert [part or f"{name} {number}" for part, name, number in lines] == [
        *("PartA", f"one {one}", f"Whereoneis {sheet_of(printed, 'Where one is')}"),
        *("PartB", f"two {two}", f"Wheretwois {sheet_of(printed, 'Where two is')}"),
    ]
    assert (one, two) == (3, 6)
    for number, text in enumerate(sheets, 3):
        assert text.startswith(f"{number}{'one' if number < two else 'two'}"), "the foot"


def bookmarks(book: PdfReader, items: Any, level: int = 1) -> Iterator[tuple[int, str, int]]:
    """Level, title and sheet, from 1, of each bookmark."""
    for item in items:
        if isinstance(item, list):
            yield from bookmarks(book, item, level + 1)
        else:
            yield level, item.title, book.get_destination_page_number(item) + 1


@pytest.mark.browser
def test_the_bookmarks_lead_to_the_headings(printed: PdfReader) -> None:
    assert list(bookmarks(printed, printed.outline)) == [
        (level, title, sheet_of(printed, place))
        for name in ("one", "two")
        for level, title, place in (
            (1, name, f"Opening of {name}"),
            (2, f"Where {name} is", f"Where {name} is"),
            (3, f"Below {name}", f"Below {name}"),
        )
    ]


@pytest.mark.browser
def test_links_lead_to_their_places(printed: PdfReader) -> None:
    led: dict[int, list[Any]] = {}
    numbers = {page.indirect_reference.idnum: number for number, page in enumerate(printed.pages, 1)}
    for number, sheet in enumerate(printed.pages, 1):
        for annotation in (one.get_object() for one in sheet.get("/Annots", ())):
            target = annotation.get("/Dest")
            place = numbers[target[0].idnum] if isinstance(target, ArrayObject) else annotation["/A"]["/URI"]
            led.setdefault(number, []).append(place)
    where = {name: sheet_of(printed, f"Where {name} is") for name in ("one", "two")}
    assert led[where["one"]] == [where["two"], sheet_of(printed, "A spot of one")]
    assert led[where["two"]] == [3, f"{PUBLIC}other.html#x", "https://example.org/"]
    assert led[2] == [3, where["one"], 6, where["two"]], "the contents"


def test_the_core_pages_are_the_chapters_and_what_they_lean_on() -> None:
    pages = pdf.core_pages(ROOT)
    assert [name for part, name in pages if part != pdf.APPENDIX][:2] == [f"book/{name}" for name in CHAPTERS[:2]]
    assert [name for part, name in pages if part == pdf.APPENDIX] == list(pdf.LAST)
    assert all((ROOT / f"{name}{ending}").exists() for _, name in pages for ending in [suffix_of(name)])


def suffix_of(name: str) -> str:
    """The ending of a page's source."""
    return ".ipynb" if (ROOT / f"{name}.ipynb").exists() else ".md"
