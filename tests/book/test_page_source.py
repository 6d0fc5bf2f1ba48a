"""A chapter as Sphinx reads it: bars on folded code, a question a section, and a foot."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.notebooks import code

from tools.links import Targets
from tools.project import ROOT

sys.path.insert(0, str(ROOT / "_ext"))
from page_source import Asked, Page, foot, prepared

PAGE = Page("ch03_cam", "https://github.com/owner/name")
NOTHING = Targets({}, (), ())


def question_of(section: str) -> str:
    return f'aria-label="Was this clear? Say what was not in: {section}"'


def read(*cells: dict[str, Any]) -> list[dict[str, Any]]:
    return prepared({"cells": list(cells)}, PAGE, NOTHING)["cells"]


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ('claim("a", 1, equals=1, text="a")', "Check"),
        ("plots.maps(x)", "Plot"),
        ("rows = 1\ntable(rows, [])", "Table"),
        ("x = 1", "Code"),
        ("", "Code"),
    ],
)
def test_the_bar_of_folded_code_says_what_it_is(source: str, word: str) -> None:
    setup, cell = read(code("import sys"), code(source))[:2]
    assert setup["metadata"]["mystnb"]["code_prompt_show"] == "Setup"
    assert set(cell["metadata"]["mystnb"].values()) == {word}


def test_a_figures_name_stays() -> None:
    cell = read(code(""), code("plots.maps(x)", mystnb={"figure": {"name": "fig-a"}}))[1]
    assert cell["metadata"]["mystnb"]["figure"] == {"name": "fig-a"}


def test_each_section_ends_with_a_question() -> None:
    asked = Asked(PAGE)
    texts = [
        asked("# T\n\nx\n\n## One `a`\n\ny"),
        asked("z\n\n```\n## no heading\n```\n\n## Two\n\n### Sub"),
        asked("## Three"),
    ]
    assert "clear" not in texts[0]
    assert question_of("One a") in texts[1].split("## Two")[0]
    assert "## no heading" in texts[1]
    assert texts[1].count("<p") == 1
    assert texts[2].startswith("<p")
    assert question_of("Two") in texts[2]


def test_exercises_are_not_asked_about() -> None:
    asked = Asked(PAGE)
    assert asked("## Exercises\n\n## What next") == "## Exercises\n\n## What next"


def test_the_question_opens_an_issue_that_names_the_section() -> None:
    asked = Asked(PAGE)
    link = asked("## What & why?\n\n## b").split('href="')[1].split('"')[0].replace("&amp;", "&")
    assert link.startswith("https://github.com/owner/name/issues/new?")
    query = parse_qs(urlsplit(link).query)
    assert query["title"] == ["Not clear: ch03_cam, “What & why?”"]
    assert "“What & why?”" in query["body"][0]


def test_the_foot_says_what_the_run_took() -> None:
    shown = foot(Page(PAGE.name, PAGE.repository, {"cpu_seconds": 41.6, "peak_bytes": 3 * 2**29}))
    assert "This page ran in 42 seconds on one core and 1.5 GB of memory at most" in shown
    assert 'href="https://github.com/owner/name/edit/main/book/ch03_cam.ipynb"' in shown
    assert "seconds" not in foot(PAGE)
    assert read()[-1]["source"] == foot(PAGE)
