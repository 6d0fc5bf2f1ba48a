"""The pages of the package on the site: every public name stands there, once, with its links."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import get_origin

import pytest

import helpers
from tools import api_page
from tools.chapters import chapters, pages
from tools.project import ROOT

FOLDER = "book/appendix/api"
NAMES = [page for page in pages(ROOT) if page.startswith(FOLDER)]
OPENING = re.compile(r'<dt class="sig sig-object py" id="(helpers\.[\w.]+)">')


def offered(room: str) -> set[str]:
    """The public names of a room, found without the help of what writes the pages."""
    module = import_module(f"helpers.{room}")
    if hasattr(module, "__all__"):
        return set(module.__all__)
    own = {
        name
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == f"helpers.{room}"
    }
    aliases = {
        name
        for name in re.findall(r"^([A-Z]\w*) = ", inspect.getsource(module), re.MULTILINE)
        if get_origin(getattr(module, name)) is not None
    }
    return {name for name in own | aliases if not name.startswith("_")}


@pytest.fixture(scope="module")
def shown(site: Path) -> dict[str, str]:
    """The entries on the site by dotted name, methods left out: each one's HTML up to the next."""
    found: dict[str, str] = {}
    for page in NAMES:
        _, *rest = OPENING.split((site / f"{page}.html").read_text(encoding="utf8"))
        for name, text in zip(rest[::2], rest[1::2], strict=True):
            assert name not in found, f"{name} stands there twice"
            found[name] = text
    return found


def is_member(name: str) -> bool:
    """Whether a dotted name is a method or a property of a class."""
    parent = name.rsplit(".", 1)[0]
    return parent.count(".") == 2


@pytest.mark.book
def test_every_public_name_is_on_the_site_and_no_other(shown: dict[str, str]) -> None:
    public = {f"helpers.{room}.{name}" for room in helpers.ROOMS for name in offered(room)} | {"helpers.explain"}
    there = {name for name in shown if not is_member(name)}
    assert sorted(public - there) == []
    assert sorted(there - public) == []
    assert len(public) > 200


@pytest.mark.book
def test_every_entry_leads_to_a_page_of_the_book_and_to_its_equations(shown: dict[str, str]) -> None:
    entries = api_page.entries()
    equations = api_page.equations(ROOT)
    names = "|".join(chapter.name for chapter in chapters(ROOT))
    for name, html in shown.items():
        if is_member(name):
            continue
        # The links of a class stand before its methods, those of the others at their end.
        (line, *_) = re.findall(r'<div class="api-links[^"]*">(.*?)</div>', html, re.DOTALL) or [""]
        assert re.search(rf'Page: <a class="[^"]*" href="(\.\./)+({names})\.html(#[\w-]+)?"', line), name
        for equation in equations.get(entries[name].home, []):
            assert f"#equation-{equation.label}" in line, name


@pytest.mark.book
def test_docstrings_are_set_and_not_shown_raw(shown: dict[str, str]) -> None:
    for name, html in shown.items():
        prose = re.sub(r"<(pre|code|cite).*?</\1>", "", html, flags=re.DOTALL)
        assert "`" not in prose, name
    found = shown["helpers.cam.LocalizationError"]
    assert all(part in found for part in ("top1", "float", "the best answer is not the class"))
    assert 'href="#helpers.cam.class_activation_map"' in shown["helpers.cam.weighted_maps"] + found + "".join(
        html for name, html in shown.items() if name.startswith("helpers.cam.")
    )


def test_every_room_has_a_page_of_the_book_and_stands_on_one_page() -> None:
    assert set(api_page.PAGE_OF) == set(helpers.ROOMS)
    assert set(api_page.PAGE_OF.values()) <= {chapter.name for chapter in chapters(ROOT)}
    markers = [(ROOT / f"{page}.md").read_text(encoding="utf8") for page in NAMES]
    rooms = [
        room for text in markers for m in re.findall(r"<!-- generated: rooms (.*?) -->", text) for room in m.split()
    ]
    assert sorted(rooms) == sorted(helpers.ROOMS)


def test_an_equation_names_a_public_function() -> None:
    assert set(api_page.equations(ROOT)) <= {entry.home for entry in api_page.entries().values()}
