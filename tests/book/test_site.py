"""The built site: every link resolves, and in Chromium no page logs an error or asks another host for anything.

A page is loaded once, on a phone, and then shown on a desktop: loading it is what takes the time.
"""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from support.server import serving
from support.watched import CHAPTERS, DESKTOP, PAGES, PHONE, Watched
from support.weighed import costs

from tools.chapters import chapters
from tools.project import ROOT, repository, site_address

ADDRESS = site_address(ROOT)
PREFIX = urlsplit(ADDRESS).path
READABLE_CONTRAST = 4.5  # WCAG AA for text of normal size
EXERCISES = {f"book/{chapter.name}.html": len(chapter.exercises) for chapter in chapters(ROOT)}
FOLDED = "> summary:text-matches('Hint|Solution')"

# The contrast of the text of an article with what lies behind it, by WCAG's formula.
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const text = document.querySelector("article p");
  let behind = text;
  while (behind.parentElement && /rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor))
    behind = behind.parentElement;
  const [a, b] = [getComputedStyle(text).color, getComputedStyle(behind).backgroundColor].map(rgb).map(luminance);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.mark.browser
@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_without_error_and_fits(path: str, watch: Any, site: Path) -> None:
    watched = watch(PHONE)
    page = watched.open(path)
    assert watched.problems() == []
    assert costs(page, watched.requested, site, watched.served) == []
    if path in EXERCISES:
        assert maths_and_folds(page, EXERCISES[path]) == []
    watched.resize(DESKTOP)
    assert watched.problems() == []


def maths_and_folds(page: Any, exercises: int) -> list[str]:
    """What is wrong with the formulas of a chapter, and with its hints and solutions, which are closed at first."""
    counts = {
        "formulas with an error": (page.locator("mjx-merror").count(), 0),
        "formulas that are not set": (page.locator("article .math.notranslate:not(:has(mjx-container))").count(), 0),
        "open hints": (page.locator(f"article details[open]:has({FOLDED})").count(), 0),
    }
    problems = [f"{count} {what}" for what, (count, limit) in counts.items() if count > limit]
    if page.locator("mjx-container").count() == 0:
        problems.append("no formula is set")
    if page.locator(f"article details:has({FOLDED})").count() < 2 * exercises:
        problems.append(f"fewer hints and solutions than {exercises} exercises have")
    return problems


BAD_PAGE = """<!doctype html><title> </title><link rel="icon" href="data:,"><img src="gone.png" alt=" ">
<script>console.error("said"); setTimeout(() => { throw new Error("thrown") })</script>
<script src="http://192.0.2.1/x.js" async></script><body style="margin: 0"><div style="width: 500px">wide</div>
<article><p class="math notranslate">x</p><mjx-merror>y</mjx-merror>
<details open><summary>Hint</summary>z</details></article>"""


@pytest.mark.browser
def test_what_is_wrong_with_a_page_is_seen(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(BAD_PAGE, encoding="utf8")
    with serving(tmp_path) as address:
        watched = Watched(chromium, address, PHONE)
        watched.page.route("http://192.0.2.1/**", lambda route: route.abort())
        watched.open("bad.html")
        problems = "\n".join(watched.problems())
        folds = maths_and_folds(watched.page, 2)
        watched.context.close()
    for fault in ("console: said", "page error: thrown", "404: ", "failed: http://192.0.2.1/x.js"):
        assert fault in problems
    for fault in ("external: http://192.0.2.1/x.js", "500 px wide", "no alt text: ", "no title", "no language"):
        assert fault in problems
    assert folds == [
        *("1 formulas with an error", "1 formulas that are not set", "1 open hints", "no formula is set"),
        "fewer hints and solutions than 2 exercises have",
    ]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_as_the_system_prefers(scheme: str, watch: Any) -> None:
    page = watch(scheme=scheme).open(f"book/{CHAPTERS[0]}.html")
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate(CONTRAST) >= READABLE_CONTRAST


@pytest.mark.browser
def test_the_switch_leads_to_a_readable_dark_page(watch: Any) -> None:
    page = watch().open(f"book/{CHAPTERS[0]}.html")
    seen = set()
    for _ in range(3):  # auto, light, dark, in the theme's order
        page.locator("button.theme-switch-button:visible").first.click()
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
        assert page.evaluate(CONTRAST) >= READABLE_CONTRAST
    assert seen == {"light", "dark"}


class Anchors(HTMLParser):
    """Collects the ids of a page and the addresses that it links to or loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element's ids and addresses."""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.ids.add(value or "")
            elif name in ("href", "src") and value:
                self.links.append(value)


@cache
def anchors(path: Path) -> Anchors:
    """What a built page has to link to."""
    return Anchors(path.read_text(encoding="utf8"))


def broken_links(site: Path, path: Path) -> list[str]:
    """The links of a built page that lead to no file or to no place in it."""
    broken = []
    for link in anchors(path).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        own = parts.path.removeprefix(PREFIX)  # as the page for what is not there links, from wherever it is shown
        folder = site if own != parts.path else path.parent
        target = path if not parts.path else (folder / unquote(own)).resolve()
        target = target / "index.html" if target.is_dir() else target
        place = unquote(parts.fragment)
        if not target.is_relative_to(site.resolve()) or not target.exists():
            broken.append(f"{path.name}: {link} is not there")
        elif place and target.suffix == ".html" and place not in anchors(target).ids:
            broken.append(f"{path.name}: {link} has no such place")
    return broken


def test_every_link_inside_the_site_resolves(site: Path) -> None:
    site = site.resolve()
    built = [path for path in site.rglob("*.html") if not {"_static", "_sources"} & set(path.relative_to(site).parts)]
    assert len(built) >= len(PAGES)
    assert [problem for path in built for problem in broken_links(site, path)] == []


def test_broken_links_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="here"><a href="a.html#here">1</a><a href="#gone">2</a><img src="no.png">')
    broken = broken_links(tmp_path, tmp_path / "a.html")
    assert broken == ["a.html: #gone has no such place", "a.html: no.png is not there"]


def head(site: Path, path: str) -> dict[str, str]:
    """What a page says of itself to search engines, and to those who are shown a link to it."""
    html = (site / path).read_text(encoding="utf8")
    said = dict(re.findall(r'<meta (?:name|property)="([\w:]+)"\s+content="([^"]*)"', html))
    return said | {"canonical": re.search(r'<link rel="canonical" href="([^"]*)"', html)[1]}


@pytest.mark.parametrize("path", [path for path in PAGES if path.startswith("book/")])
def test_a_page_says_what_it_is(path: str, site: Path) -> None:
    said = head(site, path)
    assert said["canonical"] == said["og:url"] == f"{ADDRESS}{path}"
    assert said["og:site_name"] == "Where Networks Look"
    assert (site / said["og:image"].removeprefix(ADDRESS)).is_file()
    if path == "book/index.html" or path in EXERCISES:
        assert 60 <= len(said["description"]) <= 220
        assert said["og:description"] == said["description"]


def test_search_engines_are_told_of_every_page(site: Path) -> None:
    listed = set(re.findall(r"<loc>([^<]*)</loc>", (site / "sitemap.xml").read_text(encoding="utf8")))
    assert set(f"{ADDRESS}{path}" for path in PAGES) <= listed
    assert [page for page in listed if not (site / page.removeprefix(ADDRESS)).is_file()] == []


def test_what_is_not_there_leads_to_what_is(site: Path) -> None:
    html = (site / "404.html").read_text(encoding="utf8")
    assert "This page is not there" in html
    assert f'href="{PREFIX}book/{CHAPTERS[0]}.html"' in html


def test_every_page_says_which_build_it_is(site: Path) -> None:
    for path in PAGES:
        assert re.search(
            r"Version \d+\.\d+\.\d+, commit \w+, built on \d{4}-\d\d-\d\d", (site / path).read_text("utf8")
        )


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_buttons_of_a_chapter_lead_to_its_file(name: str, site: Path) -> None:
    html = (site / "book" / f"{name}.html").read_text(encoding="utf8")
    own = re.escape(repository(ROOT).removeprefix("https://github.com/"))
    paths = set(re.findall(rf"https://github\.com/{own}/edit/main/([^\"?#]+)", html))  # Colab's are in test_notebooks
    assert paths == {f"book/{name}.ipynb"}
    assert (ROOT / f"book/{name}.ipynb").is_file()
    assert f'href="{repository(ROOT)}"' in html
    assert urljoin(f"{repository(ROOT)}/", "issues/new") in html
