"""The search leads to the section: twelve words of students, asked on the site as a reader asks."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.server import serving
from support.watched import CHAPTERS, PHONE, Watched

from tools.project import ROOT

sys.path.insert(0, str(ROOT / "_ext"))

import site_search

# For each query the pages that explain it, and the sections of them.
QUERIES = {
    "class activation map": (r"ch03_", r"class-activation-maps"),
    "grad-cam": (r"ch03_", r"grad-cam"),
    "saliency map": (r"ch02_", r"the-saliency-map"),
    "receptive field": (r"ch01_", r"receptive-fields"),
    "log-polar": (r"ch06_", r"log-polar-sampling"),
    "information gain": (r"ch07_", r"information-gain"),
    "lateral inhibition": (r"ch05_", r"lateral-inhibition"),
    "sanity check": (r"ch05_", r"sanity-checks"),
    "global average pooling": (r"ch03_", r"global-average-pooling"),
    "how to install": (r"index", r"how-to-install"),
    "exercises": (r"ch\d\d_", r"exercises"),
    "deletion": (r"ch02_|appendix/glossary", r"term-deletion|deletion"),
}
PAGES_RIGHT, SECTIONS_RIGHT = 11, 9
# Submit a query on the page of the search; its results, each an address, when they are there.
ASK = """async (words) => {
  const form = document.querySelector(".bd-search-container form");
  const list = document.querySelector("#search-results ol.found");
  form.querySelector("input").value = words;
  delete list.dataset.asked;
  list.replaceChildren();
  form.requestSubmit();
  for (let i = 0; i < 100 && !list.children.length; i++) await new Promise((resolve) => setTimeout(resolve, 50));
  return [...list.querySelectorAll("a")].map((link) => link.href);
}"""


def misses(firsts: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The queries whose first result is on the wrong page, and those whose first result is not the right section."""
    pages, sections = [], []
    for words, (page, section) in QUERIES.items():
        path, _, anchor = firsts.get(words, "").partition("#")
        found = re.search(rf"book/({page})", path)
        pages += [] if found else [words]
        sections += [] if found and re.match(section, anchor) else [words]
    return pages, sections


@pytest.mark.browser
def test_students_find_the_section(watch: Any) -> None:
    watched = watch()
    page = watched.open("search.html")
    firsts = {words: next(iter(page.evaluate(ASK, words)), "") for words in QUERIES}
    pages, sections = misses(firsts)
    assert len(QUERIES) - len(pages) >= PAGES_RIGHT, {words: firsts[words] for words in pages}
    assert len(QUERIES) - len(sections) >= SECTIONS_RIGHT, {words: firsts[words] for words in sections}
    assert watched.problems() == []


def test_wrong_results_are_seen() -> None:
    assert misses({}) == (list(QUERIES), list(QUERIES))
    right = {
        "grad-cam": "https://x/book/ch03_cam.html#grad-cam-what-if",
        "deletion": "https://x/book/ch02_a.html#deletion",
    }
    top = {"saliency map": "https://x/book/ch02_saliency.html"}
    pages, sections = misses(right | top)
    assert set(QUERIES) - set(pages) == {"grad-cam", "deletion", "saliency map"}
    assert set(QUERIES) - set(sections) == {"grad-cam", "deletion"}


@pytest.fixture(scope="module")
def below(site: Path) -> Iterator[str]:
    """The address of the site where it is not at the root of its host, as on GitHub's pages."""
    with serving(site.parent) as address:
        yield f"{address}{site.name}/"


DIALOG = ":is(#pst-search-dialog, .search-button__search-container)"  # in the theme's versions since 0.16, and before


@pytest.mark.browser
def test_the_dialog_finds_and_closes(chromium: Any, below: str) -> None:
    watched = Watched(chromium, below, PHONE)
    page = watched.open(f"book/{CHAPTERS[0]}.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("receptive field", delay=5)
    first = page.locator(f"{DIALOG} ol.found a").first
    first.wait_for(timeout=10_000)
    assert re.fullmatch(r"\d+ places", page.locator(f"{DIALOG} .found-status").inner_text())
    assert page.locator(f"{DIALOG} ol.found mark").count() > 0
    assert watched.problems() == [], "the list must fit a phone too"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('ol.found') !== null"), "results are reached by keys"
    page.keyboard.press("Escape")
    assert not page.locator(DIALOG).is_visible()
    page.keyboard.press("Control+k")
    page.keyboard.press("Escape")
    assert not page.locator(DIALOG).is_visible()
    page.keyboard.press("Control+k")
    page.locator(f"{DIALOG} input[name=q]").fill("receptive field")  # Escape may have emptied it, and then the list
    page.wait_for_timeout(300)
    first.click()
    page.wait_for_url(re.compile(r"/html/book/ch01_\w+\.html#receptive-fields"))
    watched.context.close()


@pytest.mark.browser
def test_what_is_not_there_and_what_cannot_be_read_is_said(watch: Any) -> None:
    watched = watch()
    page = watched.open("search.html?q=xyzzyx")
    page.get_by_text("Nothing found").wait_for(timeout=10_000)
    assert watched.troubles == []
    page = watch().page
    page.route("**/pagefind/**", lambda route: route.abort())
    page.goto(f"{watched.served}search.html?q=cam")
    page.get_by_text("The search cannot be read").wait_for(timeout=10_000)


PAGE = r"""<nav>not this</nav><article class="bd-article">
<section id="top"><h1>3. Maps &amp; more<a class="headerlink" href="#top">#</a></h1><p>The opening.</p>
<section id="one"><span id="label"></span><h2>3.1. One?</h2><p>It is <span class="math">\(\sum_k w_k^{c}
\cdot \alpha\)</span>.</p><p>More.</p><div class="highlight"><pre>x = code</pre></div><div class="math">\[y\]</div>
<details class="claim" id="c"><summary>✓ 0</summary><p>Said.</p></details><table><tr><td>0.8</td></tr></table>
<style>p {}</style>
<p class="clear"><a href="#">Was this clear?</a></p></section></section>
<dl><dt class="sig sig-object py" id="helpers.cam.f"><span>f</span>(x)</dt>
<dd><p>What it does.</p><p>Page: <a href="#">3</a></p></dd>
<dt id="term-CAM">CAM<a class="headerlink" href="#term-CAM">#</a></dt><dd><p>A map.</p></dd></dl>
</article><footer>nor this</footer>"""


def test_a_page_is_taken_apart_at_what_can_be_linked_to() -> None:
    parts = list(site_search.parts_of(PAGE, "book/ch03_x.html"))
    assert {part.page for part in parts} == {"3. Maps & more"}
    assert [(part.url.removeprefix("book/ch03_x.html"), part.title, part.text) for part in parts] == [
        ("", "3. Maps & more", "The opening."),
        ("#one", "3.1. One?", "It is ∑_k w_k^c ·α. More."),
        ("#helpers.cam.f", "helpers.cam.f", "What it does."),
        ("#term-CAM", "CAM", "A map."),
    ]
    assert list(site_search.parts_of("<p>an index of names</p>", "genindex.html")) == []


def test_what_explains_weighs_more_than_what_lists() -> None:
    def weight(url: str) -> float:
        text = site_search.document(site_search.Part(url, "title", "page", "text"))
        return float(re.search(r'<p data-pagefind-weight="([\d.]+)"', text)[1])

    section, top = weight("book/ch03_cam.html#grad-cam"), weight("book/ch03_cam.html")
    entry, claims = weight("book/appendix/api/maps.html#helpers.cam"), weight("book/appendix/claims.html#one")
    assert section > top > entry > claims
    assert section > weight("book/ch03_cam.html#exercise-3-1") > weight("book/ch03_cam.html#references")
