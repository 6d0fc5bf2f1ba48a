"""The built site on a phone: pages fit, maths is set, hints and solutions are folded. A file of its own runs beside."""

from __future__ import annotations

from typing import Any

import pytest
from support.watched import CHAPTERS, PAGES, PHONE

from tools.chapters import chapters
from tools.project import ROOT


@pytest.mark.browser
@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_without_error_and_fits(path: str, watch: Any) -> None:
    watched = watch(PHONE)
    watched.open(path)
    assert watched.problems() == []


@pytest.mark.browser
@pytest.mark.parametrize("name", CHAPTERS)
def test_maths_is_typeset_and_hints_and_solutions_are_closed(name: str, watch: Any) -> None:
    page = watch(PHONE).open(f"book/{name}.html")
    page.wait_for_selector("mjx-container", timeout=10_000)
    assert page.locator("mjx-merror").count() == 0
    assert page.locator("article .math.notranslate:not(:has(mjx-container))").count() == 0
    folded = page.locator("article details:has(> summary:text-matches('Hint|Solution'))")
    assert folded.count() >= 2 * len(next(c for c in chapters(ROOT) if c.name == name).exercises)
    assert page.locator("article details[open]:has(> summary:text-matches('Hint|Solution'))").count() == 0
