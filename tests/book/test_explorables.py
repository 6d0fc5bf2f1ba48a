"""The explorables of the built site: nothing loads before it is seen, each comes alive and answers keys, and what goes
wrong leaves the figure and one sentence."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from support.watched import CHAPTERS, PHONE

from tools.project import ROOT

WHERE = {
    name: re.findall(r"\b(\w+)_explorable\(", (ROOT / "book" / f"{name}.ipynb").read_text(encoding="utf8"))
    for name in CHAPTERS
}
ALL = [("index", "cover"), *((page, kind) for page, kinds in WHERE.items() for kind in dict.fromkeys(kinds))]
each = pytest.mark.parametrize(("page", "kind"), ALL, ids=[kind for _, kind in ALL])
HOME = ".explorable-home[data-explorable='{}'] >> nth=0"
FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
MOST = 600_000  # bytes that the explorables of a page may add, compressed
FAULT = "This figure cannot be made to move here"


def seen(watched: Any, page: str, kind: str) -> Any:
    """The explorable of a page, scrolled into view."""
    home = watched.open(f"book/{page}.html").locator(HOME.format(kind))
    home.scroll_into_view_if_needed()
    return home


def alive(watched: Any, page: str, kind: str) -> Any:
    """The same, once it lives."""
    home = seen(watched, page, kind)
    watched.page.wait_for_selector(f"{HOME.format(kind)} >> .explorable-words:not(:empty)", timeout=10_000)
    return home


def test_there_are_explorables() -> None:
    kinds = {path.stem for path in (ROOT / "helpers" / "widgets" / "front").glob("*.js")} - {"nn", "ui", "retina"}
    assert {kind for _, kind in ALL} == kinds


@pytest.mark.browser
@each
def test_it_comes_alive_when_it_is_seen_and_answers(page: str, kind: str, watch: Any) -> None:
    watched = watch(PHONE)
    asked: list[str] = []
    watched.page.on("request", lambda request: asked.append(request.url))
    watched.open(f"book/{page}.html")
    if page != "index":  # whose picture is seen at once
        assert [url for url in asked if "/explorables/" in url and url.endswith(".js")] == [], (
            "nothing before it is seen"
        )
    home = watched.page.locator(HOME.format(kind))
    home.scroll_into_view_if_needed()
    watched.page.wait_for_selector(f"{HOME.format(kind)} >> .explorable-words:not(:empty)", timeout=10_000)
    assert any(url.endswith(f"/explorables/{kind}.js") for url in asked)
    assert home.locator("img").count() == 0
    assert home.evaluate("(home) => home.scrollWidth <= home.clientWidth"), "it fits a phone"
    check_keys(watched, home)
    check_controls(watched, home)
    assert watched.problems() == []


def check_keys(watched: Any, home: Any) -> None:
    """The arrow keys move what can be moved at once, and words say so, also to those who do not see them."""
    picture = home.locator("canvas.explorable-movable").first
    if home.get_attribute("data-explorable") in ("box", "filters", "question", "steps"):
        return
    before = picture.get_attribute("aria-label")
    picture.focus()
    watched.page.keyboard.press("ArrowRight")
    watched.page.evaluate(FRAME)
    assert picture.get_attribute("aria-label") != before
    watched.page.wait_for_timeout(600)
    assert home.locator("[aria-live=polite]").inner_text() == home.locator(".explorable-words").inner_text()


def check_controls(watched: Any, home: Any) -> None:
    """Every control has a name; sliders from end to end and lists from entry to entry compute something."""
    for control in home.locator("input, select").all():
        assert control.evaluate("(node) => !!(node.labels?.length || node.getAttribute('aria-label'))")
    words = home.locator(".explorable-words")
    for slider in home.locator("input[type=range]:visible").all():
        slider.focus()
        for key in ("End", "Home"):
            watched.page.keyboard.press(key)
            watched.page.evaluate(FRAME)
            assert "cannot be computed" not in words.inner_text()
    for choice in home.locator("select:visible").all():
        for option in choice.locator("option").all_inner_texts():
            choice.select_option(option)
            watched.page.evaluate(FRAME)
            assert "cannot be computed" not in words.inner_text()


@pytest.mark.browser
def test_bad_numbers_leave_one_sentence(watch: Any) -> None:
    watched = watch()
    home = alive(watched, "ch01_basics", "kernel")
    home.locator("input[type=number]").first.fill("")
    watched.page.wait_for_timeout(200)
    assert home.locator(".explorable-words").inner_text() == "This cannot be computed: every weight must be a number."
    home.locator("input[type=number]").first.fill("2")
    watched.page.wait_for_timeout(200)
    assert home.locator(".explorable-words").inner_text().startswith("At row")
    assert watched.troubles == []


@pytest.mark.browser
def test_without_its_arrays_the_figure_stays_with_one_sentence(watch: Any) -> None:
    watched = watch()
    watched.page.route(re.compile(r"/explorables/array-"), lambda route: route.abort())
    home = seen(watched, "ch01_basics", "kernel")
    watched.page.wait_for_selector(f"{HOME.format('kernel')} >> p", timeout=10_000)
    assert FAULT in home.inner_text()
    assert home.locator("img").count() == 1


@pytest.mark.browser
def test_numbers_that_are_none_leave_the_figure_and_one_sentence(watch: Any) -> None:
    watched = watch()
    nan = base64.b64encode(b"\xff" * 8).decode()  # half-precision NaN
    broken = "window.explorables.arrays[document.currentScript.src.match(/array-[0-9a-f]{12}/)[0]] = "

    def answer(route: Any) -> None:
        text = route.fetch().text()
        data = text.split('"')[3]
        route.fulfill(body=f'{broken}"{(nan * len(data))[: len(data)]}";', content_type="text/javascript")

    watched.page.route(re.compile(r"/explorables/array-"), answer)
    seen(watched, "ch03_cam", "box")
    watched.page.wait_for_selector(f"{HOME.format('box')} >> p", timeout=20_000)
    home = watched.page.locator(HOME.format("box"))
    assert home.locator("p").inner_text().startswith(FAULT)
    assert home.locator("img").count() == 1
    assert watched.troubles == []


def test_without_scripts_a_figure_stands_there(site: Path) -> None:
    for page, kind in ALL:
        html = (site / "book" / f"{page}.html").read_text(encoding="utf8")
        home = re.search(rf'data-explorable="{kind}">.*?</script>(<img [^>]*>)', html, re.DOTALL)
        assert 'alt="' in home[1], (page, kind)


def test_arrays_are_files_of_their_own(site: Path) -> None:
    files = {path.name for path in (site / "_static" / "explorables").iterdir()}
    for page, _ in ALL:
        html = (site / "book" / f"{page}.html").read_text(encoding="utf8")
        for given in re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL):
            assert len(given) < 20_000
            assert {f"{name}.js" for name in re.findall(r"array-[0-9a-f]{12}", given)} <= files


def test_a_page_loads_little_for_its_explorables(site: Path) -> None:
    for page in dict.fromkeys(page for page, _ in ALL):
        html = (site / "book" / f"{page}.html").read_text(encoding="utf8")
        files = {*re.findall(r"array-[0-9a-f]{12}", html), *re.findall(r'data-explorable="(\w+)"', html)}
        scripts = [(site / "_static" / "explorables" / f"{name}.js").read_bytes() for name in files]
        assert sum(len(gzip.compress(script)) for script in scripts) <= MOST, page
