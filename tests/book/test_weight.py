"""The pages are light: what is asked of each is in support/weighed.py; test_site asks it, which loads them all."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.server import GzipHandler, serving
from support.watched import PHONE, Watched
from support.weighed import costs

from tools import page_speed
from tools.project import ROOT

sys.path.insert(0, str(ROOT / "_ext"))

import site_html
import site_icons
import site_pictures
import site_styles

HEAVY = """<!doctype html><html lang="en"><title>Heavy</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="other.css"><script src="slow.js"></script><script>window.MathJax = {}</script>
<script type="application/vnd.jupyter.widget-state+json">{}</script>
<article><img src="large.png" alt="a" loading="lazy"><img src="large.png" alt="b" width="30" height="10"></article>"""


@pytest.mark.browser
def test_what_is_dear_about_a_page_is_seen(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "heavy.html").write_text(HEAVY, encoding="utf8")
    (tmp_path / "other.css").write_text("p { color: red }", encoding="utf8")
    (tmp_path / "slow.js").write_text("// nothing", encoding="utf8")
    noise = np.random.default_rng(0).integers(0, 256, (720, 720, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    with serving(tmp_path) as address:
        watched = Watched(chromium, address, PHONE)
        watched.open("heavy.html")
        found = costs(watched.page, watched.requested, tmp_path, address)
        watched.context.close()
    assert re.fullmatch(r"1\.5\d MB", found[0])
    assert found[1:] == [
        *("waits for other.css", "waits for slow.js", "no size: large.png", "late: large.png"),
        *("early: large.png", "another shape: large.png", "MathJax without a formula", "the state of a widget"),
    ]


def png(width: int, height: int, **how: Any) -> bytes:
    """A picture with a rectangle in it."""
    picture = Image.new("RGBA", (width, height), (255, 255, 255, 255))
    picture.paste((200, 30, 30, 255), (width // 4, height // 4, width // 2, height // 2))
    stream = io.BytesIO()
    picture.save(stream, "PNG", **how)
    return stream.getvalue()


def test_a_drawing_becomes_smaller_and_stays_the_same(tmp_path: Path) -> None:
    (tmp_path / "drawing.png").write_bytes(png(400, 300))
    before = np.asarray(Image.open(tmp_path / "drawing.png").convert("RGB"))
    assert site_pictures.compressed(tmp_path) == {"drawing"}
    assert not (tmp_path / "drawing.png").exists()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawing.webp").convert("RGB")), before)


def test_noise_becomes_much_smaller_and_nearly_the_same(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).normal(0, 6, (300, 400)).cumsum(1).clip(-120, 120) + 128
    Image.fromarray(steps.astype(np.uint8)).save(tmp_path / "noise.png")
    size = (tmp_path / "noise.png").stat().st_size
    assert site_pictures.compressed(tmp_path) == {"noise"}
    assert (tmp_path / "noise.webp").stat().st_size < size / 2
    after = np.asarray(Image.open(tmp_path / "noise.webp").convert("L"), dtype=float)
    assert np.abs(after - steps).mean() < 4


def test_pictures_say_their_size_and_wait(tmp_path: Path) -> None:
    (tmp_path / "_images").mkdir()
    for name in ("first", "second", "kept"):
        (tmp_path / "_images" / f"{name}.png").write_bytes(png(400, 300))
    html = (
        '<img src="logo.svg" alt="Home"/><article><a href="../_images/first.png"><img src="../_images/first.png" '
        'alt="1 &gt; 0" style="width: 200px; height: 150px;" /></a>'
        '<img alt="2" src="../_images/kept.png" style="color: red; width: 50%">'
        '<img alt="3" src="../_images/second.png" width="100"></article>'
    )
    (tmp_path / "book").mkdir()
    replaced = {"first", "second"}
    for name in replaced:
        (tmp_path / "_images" / f"{name}.png").rename(tmp_path / "_images" / f"{name}.webp")
    done = site_pictures.with_pictures(html, tmp_path / "book" / "page.html", replaced)
    logo, first, kept, second = site_pictures.PICTURE.findall(done)
    assert "loading" not in logo
    assert first == '<img src="../_images/first.webp" alt="1 &gt; 0" width="200" height="150" decoding="async">'
    assert 'href="../_images/first.webp"' in done
    assert 'width="400" height="300"' in kept
    assert 'style="color: red; width: 50%"' in kept
    assert 'loading="lazy"' in kept
    assert 'width="100" height="75" loading="lazy"' in second


def test_large_pictures_leave_the_text(tmp_path: Path) -> None:
    data = png(60, 40, compress_level=0)
    html = f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}"><img src="data:image/png;base64,iVBO">'
    done = site_pictures.taken_out(html, tmp_path / "book" / "deep" / "page.html", tmp_path / "_images")
    (file,) = (tmp_path / "_images").iterdir()
    assert file.read_bytes() == data
    assert f'src="../../_images/{file.name}"' in done
    assert "base64,iVBO" in done


STYLES = """/* said */ @charset "utf8"; .used, .gone { color: red } .gone .used { color: blue }
.used:not(.gone) { top: 0 } :is(.gone, .used) { left: 0 } p { margin: 0 }
@media print { .gone { width: 1px } .used { width: 2px } } @media screen { .gone { a: b } }
@keyframes turn { from { top: 0 } to { top: 1px } } .bs-made-by-a-script { d: e }"""


def test_rules_that_cannot_apply_are_left_out() -> None:
    rules = "".join(site_styles.kept(site_styles.COMMENT.sub("", STYLES), {"used"}))
    assert rules.split("\n") == [
        *(".used{color: red}", ".used:not(.gone){top: 0}", ":is(.gone, .used){left: 0}", "p{margin: 0}"),
        *("@media print{.used{width: 2px}", "}", "@keyframes turn{from { top: 0 } to { top: 1px }}"),
        *(".bs-made-by-a-script{d: e}", ""),
    ]


def test_style_sheets_become_one_with_the_icons_inside(site: Path, tmp_path: Path) -> None:
    sheet = (site / "_static" / "site.css").read_text(encoding="utf8")
    assert "@import" not in sheet
    assert set(re.findall(r"url\((?![\"']?data:)([^)]*)\)", sheet)) <= {"file.png"}, "a file that the sheet waits for"
    assert sheet.count("@font-face{") == 1, "more than the signs that the styles name"
    assert "Copyright" in sheet, "the licences' notices"
    assert len(sheet) < 200_000
    page = (site / "book" / "index.html").read_text(encoding="utf8")
    assert page.count('rel="stylesheet"') == 1
    assert "fontawesome" not in page


def test_icons_are_those_of_the_theme(site: Path) -> None:
    drawn = site_icons.with_icons('<i class="fa-solid fa-bars fa-lg" title="x"></i>', site / "_static")
    assert drawn.startswith(
        '<svg class="svg-inline--fa fa-bars fa-lg" title="x" aria-hidden="true" viewBox="0 0 448 512"><path'
    )


SCRIPTS = """<script src="_static/a.js"></script><script async src="b.js"></script>
<script>window.MathJax = {}</script><script defer src="_static/mathjax/tex.js"></script>
<script src="_static/scripts/fontawesome.js"></script>
<script type="application/vnd.jupyter.widget-state+json">{}</script>
<script type="application/json">{"MathJax": 1}</script><link rel="preload" as="script" href="c.js" />"""


@pytest.mark.parametrize("formula", ["", '<span class="math notranslate">x</span>'])
def test_scripts_are_those_that_the_page_needs_and_none_is_waited_for(formula: str, site: Path) -> None:
    done = site_html.mended(SCRIPTS + formula, site / "_static")
    assert '<script defer src="_static/a.js">' in done
    assert '<script async src="b.js">' in done
    assert '<script type="application/json">{"MathJax": 1}</script>' in done
    for gone in ("fontawesome", "widget-state", "preload"):
        assert gone not in done
    assert ("mathjax/tex.js" in done) == ("window.MathJax" in done) == bool(formula)


@pytest.mark.browser
def test_the_speed_of_a_page_is_measured(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "slow.html").write_text(HEAVY.replace("large.png", "none.png"), encoding="utf8")
    (tmp_path / "other.css").write_text("p { color: red }" * 1000, encoding="utf8")
    (tmp_path / "slow.js").write_text("// nothing", encoding="utf8")
    with serving(tmp_path, GzipHandler) as address:
        speed = page_speed.measured(chromium, address, "slow.html")
    latency = page_speed.SLOW_4G["latency"] / 1000
    assert speed.first > 2 * latency, "the page, and then what it waits for"
    assert 1000 < speed.size < 5000, "text travels compressed"
    assert sorted(speed.blocking) == ["other.css", "slow.js"]
    assert str(speed).startswith("slow.html ")
