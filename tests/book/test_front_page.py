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


def test_the_picture_knows_what_both_networks_say_everywhere() -> None:
    shown = front_page.cover(ROOT)
    says = json.loads(re.search(r"<script[^>]*json\">(.*?)</script>", shown)[1])
    assert [len(own) for own in says["says"]] == [says["places"] ** 2] * 2
    # The words of the front page: one network says square everywhere, the other disk.
    assert [{name for name, _ in own} for own in says["says"]] == [{"square"}, {"disk"}]


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
    from tools import cover

    for file in cover.main(tmp_path):
        committed = ROOT / file.relative_to(tmp_path)
        if file.suffix == ".json":
            pairs = [[json.loads(path.read_text())["says"][k] for path in (file, committed)] for k in (0, 1)]
            for drawn, kept in pairs:
                assert [name for name, _ in drawn] == [name for name, _ in kept]
                assert max(abs(a[1] - b[1]) for a, b in zip(drawn, kept, strict=True)) <= 0.02
        else:
            from PIL import Image, ImageChops

            drawn, kept = (Image.open(path).convert("RGB") for path in (file, committed))
            assert drawn.size == kept.size
            difference = ImageChops.difference(drawn, kept).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
            assert max(difference) < 3, file.name
