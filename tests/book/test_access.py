"""Everybody can read the site: axe-core, sound HTML, and the keyboard.

Each page is loaded once, then opened, darkened and narrowed in place (support/axe.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.axe import violations
from support.markup import faults
from support.server import serving
from support.watched import CHAPTERS, DESKTOP, PAGES, PHONE, Watched


@pytest.mark.browser
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing(path: str, watch: Any) -> None:
    watched = watch(DESKTOP)
    assert violations(watched.open(path), DESKTOP, PHONE) == []
    assert watched.troubles == []


HARD = """<!doctype html><html lang="en" data-theme="light"><title>Hard</title><link rel="icon" href="data:,"><style>
html[data-theme="dark"] body { background: #111 } html[data-theme="dark"] p { color: #333 }
header p { color: #ccc } @media (min-width: 600px) { header { display: none } }
@media (max-width: 600px) { pre { overflow: auto; width: 300px } }
</style><header><p>pale on a phone</p></header><main><h1>Hard to read</h1><p>text</p><p>text</p>
<img src="data:," width="9" height="9"><details><summary>fold</summary><p style="color: #ddd">pale</p></details>
<button aria-label="Go">Search</button>
<article><pre>%s</pre></article></main></html>""" % ("wide " * 200)


@pytest.mark.browser
def test_what_is_hard_to_read_is_seen(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "hard.html").write_text(HARD, encoding="utf8")
    with serving(tmp_path) as address:
        watched = Watched(chromium, address, DESKTOP)
        found = violations(watched.open("hard.html"), DESKTOP, PHONE)
        watched.context.close()
    everywhere = ("image-alt", "label-content-name-mismatch")
    assert {fault.split(": <")[0] for fault in found} == {
        *(f"{size}, light: {rule}" for size in ("desktop", "phone") for rule in everywhere),
        *(f"{size}, {theme}: color-contrast" for size in ("desktop", "phone") for theme in ("light", "dark")),
        "phone, light: scrollable-region-focusable",
    }
    assert sum("pale on a phone" in fault for fault in found) == 2
    assert sum("text" in fault for fault in found) == 2, "on dark, on either"


def test_the_pages_are_sound_html(site: Path) -> None:
    own = (path for path in site.rglob("*.html") if not {"_static", "_sources"} & set(path.relative_to(site).parts))
    redirect = site / "index.html"  # Jupyter Book writes it last
    assert {path.name: found for path in own if path != redirect and (found := faults(path.read_text("utf8")))} == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<p>a & b &copy c</p>", "line 1: named-entity-without-semicolon"),
        ("<p>a</p></div>", "line 1: end-tag-too-early"),
        ('<p id="a"></p><p id="a"></p>', "the id a stands 2 times"),
        ('<label for="b">x</label>', "for of <label>: no b"),
        ("<details><summary><p>x</p></summary></details>", "<p> in <summary>"),
        ('<span><div class="d">x</div></span>', '<div class="d"> in <span>'),
        ('<a href="c"><button>x</button></a>', "<button> in <a>"),
        ("<ul><div></div></ul>", "<div> in <ul>"),
        ("<div><li>x</li></div>", "<li> in <div>"),
        ("<dl><dd>x</dd></dl>", "<dl> without a word that it defines"),
        ("<summary>x</summary>", "<summary> in <body>"),
    ],
)
def test_unsound_html_is_seen(text: str, fault: str) -> None:
    (found,) = faults(f"<!doctype html><html lang='en'><title>x</title><body>{text}</body></html>")
    assert found.startswith(fault)


def test_sound_html_passes() -> None:
    text = "<dl><dt>a</dt><dd><p>b</p></dd></dl><details><summary><h2>x</h2></summary></details><ul><li>y</li></ul>"
    assert faults(f"<!doctype html><html lang='en'><title>x</title><body>{text}</body></html>") == []


# Everything that the tabulator key should reach, in its order, numbered.
NUMBER = """() => {
  const all = "a[href], button, input, select, textarea, summary, [tabindex]";
  const shown = (node) => node.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: false });
  const stops = [...document.querySelectorAll(all)]
    .filter((node) => node.tabIndex >= 0 && !node.disabled && node.type !== "hidden" && shown(node));
  stops.forEach((node, i) => { node.dataset.stop = i; });
  return stops.length;
}"""
# Where the focus is, and whether one sees it: on the element, or on what the theme marks in its stead.
FOCUS = """() => {
  const node = document.activeElement;
  const marked = [node, ...node.querySelectorAll("*"), node.closest("form")].filter(Boolean).some((part) => {
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(part);
    return (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || boxShadow !== "none";
  }) && node.checkVisibility({ opacityProperty: true });
  return [Number(node.dataset.stop ?? -1), marked, node.outerHTML.slice(0, 120)];
}"""


def walked(page: Any) -> tuple[list[int], list[str]]:
    """The stops of the tabulator key in the order in which it reaches them, and those where the focus is not seen."""
    order, unseen = [], []
    for _ in range(page.evaluate(NUMBER)):
        page.keyboard.press("Tab")
        stop, marked, shown = page.evaluate(FOCUS)
        order.append(stop)
        unseen += [] if marked else [shown]
    return order, unseen


@pytest.mark.browser
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_tabulator_key_reaches_everything(viewport: dict[str, int], watch: Any) -> None:
    page = watch(viewport).open(f"book/{CHAPTERS[0]}.html")
    order, unseen = walked(page)
    assert len(order) > 40
    assert order == list(range(len(order)))
    assert unseen == []


HIDDEN = """<!doctype html><title>x</title><style>a:focus { outline: none } .pale { opacity: 0 }</style>
<button>one</button>
<div style="display: none"><button>never</button></div><a href="#">two</a>
<button tabindex="2">first</button><button class="pale">last</button>"""


@pytest.mark.browser
def test_stops_out_of_order_and_unseen_are_noticed(chromium: Any) -> None:
    page = chromium.new_page()
    page.set_content(HIDDEN)
    order, unseen = walked(page)
    page.close()
    assert order == [2, 0, 1, 3]
    assert unseen == ['<a href="#" data-stop="1">two</a>', '<button class="pale" data-stop="3">last</button>']
