"""The front page: the table of pages, the picture, the build; all generated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools import front_page
from tools.chapters import chapters
from tools.project import ROOT, project, site_address


@pytest.mark.parametrize("chapter", chapters(ROOT), ids=lambda chapter: chapter.name)
def test_a_page_says_what_it_is_about(chapter) -> None:
    about = chapter.raw["metadata"]["about"]
    assert about["question"].endswith("?")
    assert about["methods"]
    assert 60 <= len(about["description"]) <= 170
    assert chapter.title.lower().endswith(about["question"].lower()) or about["question"] != chapter.title
    assert front_page.minutes(chapter)


def test_the_table_has_a_row_for_each_page() -> None:
    table = front_page.pages_table(ROOT)
    assert re.findall(r'href="(ch\w+)\.html"', table) == [chapter.name for chapter in chapters(ROOT)]
    assert re.findall(r'blob/notebooks/(\w+)\.ipynb"', table) == [chapter.name for chapter in chapters(ROOT)]


def test_wherever_the_square_stands_on_stripes_one_network_says_square_and_the_other_disk() -> None:
    from tools import cover

    _, _, mask = cover.parts()
    down, across = (range(0, cover.SIDE - side + 1, 4) for side in mask.shape)
    places = [(top, left) for top in down for left in across]
    said = [
        [set(cover.evidence(name, cover.pictures(places, ground))[1]) for name in cover.NETWORKS]
        for ground in cover.GROUNDS
    ]
    assert said == [[{"square"}, {"disk"}], [{"square"}, {"square"}]]  # the words of the front page


def test_the_picture_hands_both_networks_over() -> None:
    given = json.loads(re.search(r'data-explorable="cover"><script[^>]*json">(.*?)</script>', front_page.cover())[1])
    assert list(given["settings"]["networks"]) == ["network one", "network two"]
    assert {
        "scenes-gap.fc.weight",
        "scenes-biased.fc.weight",
        "ground stripes",
        "ground dots",
        "shape",
        "mask",
    } <= given["arrays"].keys()


def test_the_build_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    line = front_page.build_line(ROOT)
    assert line.startswith(f"Version {project(ROOT)['version']}, commit ")
    assert line.endswith("built on 1970-01-02.")
    assert front_page.commit(tmp_path) == "commit unknown"


def test_the_sites_address_follows_the_repositorys(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/owner/name"\n')
    assert site_address(tmp_path) == "https://owner.github.io/name/"


def test_the_cover_draws_the_committed_files(tmp_path: Path) -> None:
    from PIL import Image, ImageChops

    from tools import cover

    for file in cover.main(tmp_path):
        committed = ROOT / file.relative_to(tmp_path)
        drawn, kept = (Image.open(path).convert("RGB") for path in (file, committed))
        assert drawn.size == kept.size
        difference = ImageChops.difference(drawn, kept).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        assert max(difference) < 3, file.name
