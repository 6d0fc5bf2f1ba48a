"""The notebooks that readers open: words and links for what only MyST knows, captions, sizes, and their buttons."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image
from support.notebooks import code, markdown
from support.watched import CHAPTERS

from tools import notebooks
from tools.links import Targets
from tools.notebooks import Edition, NotBuilt, Page, pinned, reading_edition, small_enough, smaller
from tools.project import ROOT, repository

SITE = "https://owner.github.io/name/"
PLACES = {
    "labels": {
        "fig-a": {"place": "book/ch03_cam.html#fig-a", "text": "Fig. 3.1"},
        "eq-cam": {"place": "book/ch03_cam.html#equation-eq-cam", "text": "(3.1)"},
    },
    "works": {"zhou": {"place": "book/references.html#id5", "text": ""}},
    "terms": {"feature map": {"place": "book/glossary.html#term-feature-map", "text": "feature map"}},
    "functions": {"helpers.cam.grad_cam": {"place": "book/api.html#helpers.cam.grad_cam", "text": "x"}},
}
SHARED = Edition(
    Targets({1: "/book/ch01_a.ipynb"}, ["feature map"], ["helpers.cam.grad_cam"]),
    PLACES,
    {"zhou": ("Zhou et al.", "2016"), "ng": ("Ng", "n.d.")},
    SITE,
    "git+https://github.com/owner/name@v1.0",
    "1.0",
)
PAGE = Page(SHARED, "ch03_cam")
SETUP = '%pip install "git+https://github.com/owner/name"'
WORK = f"{SITE}book/references.html#id5"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{cite:p}`zhou`", f"([Zhou et al., 2016]({WORK}))"),
        ("{cite:p}`zhou, ng`", f"([Zhou et al., 2016]({WORK}); Ng, n.d.)"),
        ("{cite:t}`zhou`", f"[Zhou et al. (2016)]({WORK})"),
        ("{numref}`fig-a`", f"[Fig. 3.1]({SITE}book/ch03_cam.html#fig-a)"),
        ("{eq}`eq-cam`", f"[(3.1)]({SITE}book/ch03_cam.html#equation-eq-cam)"),
        ("{doc}`the claims <appendix/claims>`", f"[the claims]({SITE}book/appendix/claims.html)"),
        ("{term}`Feature maps <feature map>`", f"[Feature maps]({SITE}book/glossary.html#term-feature-map)"),
        ("a feature map", f"a [feature map]({SITE}book/glossary.html#term-feature-map)"),
        ("see chapter 1", f"see [chapter 1]({SITE}book/ch01_a.html)"),
        ("`cam.grad_cam`", f"[`cam.grad_cam`]({SITE}book/api.html#helpers.cam.grad_cam)"),
        ("$$\nx = 1\n$$ (eq-cam)\n\nso", "$$\nx = 1 \\tag{3.1}\n$$\n\nso"),
        ("(a-label)=\n## A", "## A"),
        (
            ":::{admonition} In three lines\n:class: lines\n\nOne.\n\nTwo.\n:::",
            "> **In three lines**\n>\n> One.\n>\n> Two.",
        ),
        (":::{note}\nOne.\n:::", "> **Note**\n>\n> One."),
        ("`{term}`", "`{term}`"),
    ],
)
def test_what_only_myst_knows_becomes_words_and_links(source: str, shown: str) -> None:
    assert Page(SHARED, "ch03_cam").text(source) == shown


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{numref}`fig-gone`", "ch03_cam: there is no label fig-gone"),
        ("{cite:p}`gone`", "cites gone, which references.bib does not have"),
        ("{download}`x`", r"the role \{download\} has no words"),
    ],
)
def test_what_cannot_be_said_is_refused(source: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PAGE.text(source)


def png(side: int = 64, colours: int = 1000) -> str:
    """A noisy picture, in base64."""
    pixels = np.random.default_rng(0).integers(0, colours, (side, side, 3)).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, format="png")
    return base64.b64encode(target.getvalue()).decode()


def shown(**data: str) -> dict[str, Any]:
    return {"output_type": "display_data", "metadata": {}, "data": data}


def page_of(*cells: dict[str, Any]) -> dict[str, Any]:
    numbered = [{"id": f"cell-{i}"} | cell for i, cell in enumerate([markdown("# Maps: where?"), code(SETUP), *cells])]
    return {"cells": numbered, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def test_a_figure_keeps_its_caption_number_and_words() -> None:
    about = {
        "mystnb": {"figure": {"name": "fig-a", "caption": "A map, {cite:p}`zhou`."}, "image": {"alt": "Red <on> blue."}}
    }
    figure = code("plots.maps(x)", **about) | {"outputs": [shown(**{"image/png": png()})]}
    made = reading_edition(page_of(figure), PAGE)
    nbformat.validate(nbformat.from_dict(made))
    first, below = ("".join(made["cells"][i]["source"]) for i in (0, 4))
    assert first.startswith(f"The notebook of [Maps: where?]({SITE}book/ch03_cam.html)")
    assert below.startswith(f"**Fig. 3.1** A map, ([Zhou et al., 2016]({WORK})).")
    assert "<details><summary>The picture in words</summary>\n\nRed &lt;on&gt; blue." in below
    assert "".join(made["cells"][2]["source"]) == '%pip install "git+https://github.com/owner/name@v1.0"'


def test_a_figure_that_was_not_drawn_has_no_caption() -> None:
    figure = code("plots.maps(x)", mystnb={"figure": {"name": "fig-a", "caption": "A map."}})
    assert len(reading_edition(page_of(figure), PAGE)["cells"]) == 4


def test_a_widget_without_a_kernel_leaves_its_figure() -> None:
    home = '<div class="explorable-home"><script>{}</script><img alt="a" src="b"></div>'
    outputs = [shown(**{"text/html": home, notebooks.WIDGET: "{}"}), shown(**{"text/html": "<p>x</p>"})]
    made = reading_edition(page_of(code("x") | {"outputs": outputs}), PAGE)
    assert [output["data"] for output in made["cells"][3]["outputs"]] == [
        {"text/html": '<img alt="a" src="b">'}, {"text/html": "<p>x</p>"},
    ]  # fmt: skip


def test_a_setup_cell_installs_one_package() -> None:
    with pytest.raises(ValueError, match="must install one package, got 0"):
        pinned("pip install x", SHARED.package)


def test_pictures_get_smaller_until_a_notebook_is_small_enough() -> None:
    picture = png(256)
    html = f'<img src="data:image/png;base64,{picture}">'
    page = page_of(code("x") | {"outputs": [shown(**{"image/png": picture, "text/html": html})]})
    whole = len(small_enough(page).encode())
    fewer, half = (len(small_enough(page, most).encode()) for most in (whole - 1, whole // 3))
    assert half < fewer < whole
    assert whole == len(small_enough(page, whole + 1).encode())
    with pytest.raises(ValueError, match="at most, with small pictures"):
        small_enough(page, 1000)


def test_a_picture_is_never_made_larger_or_lost() -> None:
    tiny = png(1)
    assert smaller(tiny, notebooks.LEVELS[2]) == tiny
    with Image.open(io.BytesIO(base64.b64decode(smaller(png(), notebooks.LEVELS[2])))) as image:
        assert image.size == (32, 32)
    with pytest.raises(ValueError, match="cannot be read"):
        smaller("AAAA", notebooks.LEVELS[1])


def test_without_a_built_site_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match="build the book first"):
        notebooks.edition(tmp_path)


def test_the_package_is_that_of_the_commit_or_of_its_tag(tmp_path: Path) -> None:
    at = notebooks.package_of(ROOT).rsplit("@", 1)[1]
    assert re.fullmatch(r"[0-9a-f]{40}|v\d+\.\d+\.\d+", at)


@pytest.fixture(scope="module")
def written(site: Path) -> Path:
    return notebooks.write(ROOT, say=lambda line: None)


@pytest.mark.book
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_notebook_keeps_everything(name: str, written: Path) -> None:
    path = written / f"{name}.ipynb"
    made = json.loads(path.read_text(encoding="utf8"))
    nbformat.validate(nbformat.from_dict(made))
    assert path.stat().st_size < notebooks.MOST_BYTES
    texts = ["".join(cell["source"]) for cell in made["cells"] if cell["cell_type"] == "markdown"]
    left = re.compile(r"(?<!`)\{[\w:]+\}`|^:::|\(eq-[\w-]+\)\s*$", re.MULTILINE)
    assert [match[0] for text in texts for match in left.finditer(text)] == []
    drawn = [cell for cell in made["cells"] if cell.get("metadata", {}).get("mystnb", {}).get("figure")]
    assert len(drawn) == sum(text.startswith("**Fig. ") for text in texts)
    assert all(cell["outputs"] for cell in drawn)


@pytest.mark.book
def test_the_same_run_gives_the_same_notebooks(written: Path) -> None:
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    notebooks.write(ROOT, say=lambda line: None)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before


@pytest.mark.book
def test_every_colab_button_leads_to_a_notebook(site: Path, written: Path) -> None:
    own = re.escape(repository(ROOT).removeprefix("https://github.com/"))
    button = re.compile(rf"https://colab\.research\.google\.com/github/{own}/blob/notebooks/([^\"?#]+)")
    for page in sorted((site / "book").glob("*.html")):
        html = page.read_text(encoding="utf8")
        names = set(button.findall(html))
        assert html.count("colab.research.google.com") == len(button.findall(html))
        assert all((written / name).is_file() for name in names)
        if page.stem in CHAPTERS:
            assert names == {f"{page.stem}.ipynb"}


def test_a_page_that_was_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(notebooks, "edition", lambda root: SHARED)
    monkeypatch.setattr(notebooks, "repository", lambda root: "https://github.com/owner/name")
    (tmp_path / "_toc.yml").write_text("- file: book/ch01_a\n", encoding="utf8")
    folder = notebooks.write(tmp_path, say=said.append)
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    assert [line.split() for line in said] == [["ch01_a", "not", "run,", "passed", "over"]]
