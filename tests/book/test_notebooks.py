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
from matplotlib import colormaps
from PIL import Image
from support.notebooks import code, markdown
from support.watched import CHAPTERS

from tools import notebooks
from tools.chapters import chapters
from tools.links import Targets
from tools.notebook_pictures import MOST_BYTES, STEPS, fitted, reduced, small_enough
from tools.notebook_text import PageText
from tools.notebooks import Edition, NotBuilt, pinned, reading_edition
from tools.project import ROOT, repository, site_address
from tools.run_pages import executed, run_dir

SITE = "https://owner.github.io/name/"
ZHOU = {"p": "Zhou et al., 2016", "t": "Zhou et al. [2016]", "year": "2016", "author": "Zhou et al."}
TABLES = {
    "documents": {
        "book/ch01_a": {"words": "Networks", "place": "book/ch01_a.html"},
        "book/ch03_cam": {"words": "Maps", "place": "book/ch03_cam.html"},
        "book/appendix/claims": {"words": "Claims", "place": "book/appendix/claims.html"},
    },
    "sections": {"book/ch01_a": {"exercise-12-build": "book/ch01_a.html#exercise-1-2-build"}},
    "labels": {
        "fig-a": {"words": "Fig. 3.1", "place": "book/ch03_cam.html#fig-a"},
        "eq-cam": {"words": "(3.1)", "place": "book/ch03_cam.html#equation-eq-cam"},
        "a-part": {"words": "A part", "place": "book/ch01_a.html#a-part"},
    },
    "works": {
        "zhou": ZHOU | {"place": "book/references.html#id5"},
        "ng": dict.fromkeys(ZHOU, "Ng, n.d.") | {"place": "book/references.html#id6"},
    },
    "terms": {"feature map": {"words": "feature map", "place": "book/glossary.html#term-feature-map"}},
    "functions": {"helpers.cam.grad_cam": {"words": "x", "place": "book/api.html#helpers.cam.grad_cam"}},
}
TARGETS = Targets(
    {1: "/book/ch01_a.ipynb"},
    ["feature map"],
    ["helpers.cam.grad_cam"],
    {"1.2": "/book/ch01_a.ipynb#exercise-12-build"},
    {("Zhou", "2016"): {"zhou": []}},
)
SHARED = Edition(TARGETS, TABLES, SITE, "git+https://github.com/owner/name@v1.0", "1.0")
SETUP = '%pip install "git+https://github.com/owner/name"'
WORK = f"{SITE}book/references.html#id5"
FIGURE = f"[Fig. 3.1]({SITE}book/ch03_cam.html#fig-a)"
EQUATION = f"[(3.1)]({SITE}book/ch03_cam.html#equation-eq-cam)"
MAPS = f"({SITE}book/glossary.html#term-feature-map)"
GRAD_CAM = f"({SITE}book/api.html#helpers.cam.grad_cam)"
ONE = f"{SITE}book/ch01_a.html"


def text() -> PageText:
    return SHARED.page("ch03_cam")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{cite:p}`zhou`", f"([Zhou et al., 2016]({WORK}))"),
        ("{cite:p}`zhou, ng`", f"([Zhou et al., 2016]({WORK}); [Ng, n.d.]({SITE}book/references.html#id6))"),
        ("{cite:t}`zhou`", f"[Zhou et al. (2016)]({WORK})"),
        ("({cite:year}`zhou`)", f"([2016]({WORK}))"),
        ("Zhou (2016) say", f"Zhou ([2016]({WORK})) say"),
        ("see {numref}`fig-a`.", f"see {FIGURE}."),
        ("{numref}`figure %s <fig-a>`", f"[figure 3.1]({SITE}book/ch03_cam.html#fig-a)"),
        ("{eq}`eq-cam`", EQUATION),
        ("{ref}`a-part`, {ref}`that <a-part>`", f"[A part]({ONE}#a-part), [that]({ONE}#a-part)"),
        ("{doc}`/book/ch01_a`", f"[Networks]({ONE})"),
        ("{doc}`appendix/claims`", f"[Claims]({SITE}book/appendix/claims.html)"),
        ("{doc}`there <ch01_a>`", f"[there]({ONE})"),
        ("{term}`Feature maps <feature map>`", f"[Feature maps]{MAPS}"),
        ("{term}`Feature map`", f"[Feature map]{MAPS}"),
        ("a feature map, a feature map", f"a [feature map]{MAPS}, a feature map"),
        ("{py:obj}`helpers.cam.grad_cam`", f"[`helpers.cam.grad_cam`]{GRAD_CAM}"),
        ("{py:func}`~helpers.cam.grad_cam`", f"[`grad_cam`]{GRAD_CAM}"),
        ("`cam.grad_cam`", f"[`cam.grad_cam`]{GRAD_CAM}"),
        ("chapter 1, exercise 1.2", f"[chapter 1]({ONE}), [exercise 1.2]({ONE}#exercise-1-2-build)"),
        ("[there](ch01_a.ipynb#exercise-12-build)", f"[there]({ONE}#exercise-1-2-build)"),
        ("[there](/book/ch01_a.ipynb)", f"[there]({ONE})"),
        ("[c](appendix/claims.md#claim-a)", f"[c]({SITE}book/appendix/claims.html#claim-a)"),
        ("[a](#fig-a) [b](https://x.org/a_(b))", f"[a]({SITE}book/ch03_cam.html#fig-a) [b](https://x.org/a_(b))"),
        ("{math}`x^2`", "$x^2$"),
        ("so\n\n$$\nx = 1\n$$ (eq-cam)\n\nwith", f"so\n\n$$\nx = 1\n$$\n\nEquation {EQUATION}\n\nwith"),
        ("$$x$$ (eq-cam)\nwith", f"$$\nx\n$$\n\nEquation {EQUATION}\n\nwith"),
        ("(a-label)=\n## A", "## A"),
    ],
)  # fmt: skip
def test_what_only_myst_knows_becomes_words_and_links(source: str, shown: str) -> None:
    assert text().cell(source) == shown


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (":::{admonition} Three\n:class: lines\n\nOne.\n\nTwo.\n:::\nx", "> **Three**\n>\n> One.\n>\n> Two.\n\nx"),
        (":::{note}\nOne.\n:::", "> **Note**\n>\n> One."),
        ("```{tip} One.\nTwo.\n```", "> **Tip**\n>\n> One.\n> Two."),
        (
            ":::{admonition} A slip & more\n:class: slips dropdown\n\n{numref}`fig-a`\n:::",
            f"<details><summary>A slip &amp; more</summary>\n\n{FIGURE}\n\n</details>",
        ),
        (
            "::::{note}\n:::{tip}\nIn.\n:::\n$$x$$ (eq-cam)\n::::",
            f"> **Note**\n>\n> > **Tip**\n> >\n> > In.\n>\n> $$\n> x\n> $$\n>\n> Equation {EQUATION}",
        ),
        (":::{note}\n```python\nx  # :::\n```\n:::", "> **Note**\n>\n> ```python\n> x  # :::\n> ```"),
    ],
)  # fmt: skip
def test_boxes_become_quotations(source: str, shown: str) -> None:
    assert text().cell(source) == shown


@pytest.mark.parametrize(
    "source",
    [
        "```\n{numref}`fig-a`\n:::{note}\n:::\n[a](b.md)\n```",
        "~~~\n$$x$$ (eq-cam)\n~~~",
        "`{term}` and ``{eq}`eq-cam` ``",
        "$x[1](2)$ and $$y$$",
        "<details><summary>Hint</summary>\n\nx\n\n</details>",
    ],
)
def test_code_formulas_and_html_stay(source: str) -> None:
    assert text().cell(source) == source


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{numref}`fig-gone`", "the site has nothing for {numref}`fig-gone`"),
        ("$$x$$ (eq-gone)", "nothing for {eq}`eq-gone`"),
        ("{cite:p}`gone`", "nothing for {cite:p}`gone`"),
        ("{cite:alp}`zhou`", "no words for {cite:alp}"),
        ("{download}`x`", "no words for {download}"),
        ("[x](gone.md)", "nothing for {doc}`book/gone`"),
        ("![x](images/x.png)", "images/x.png does not travel"),
        (":::{figure} x.png\n:::", "nothing like {figure}"),
    ],
)
def test_what_cannot_be_said_is_refused(source: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        text().cell(source)


def png(side: int = 64, colours: int = 256) -> str:
    """A noisy picture, in base64."""
    return in_base64(np.random.default_rng(0).integers(0, colours, (side, side, 3)).astype(np.uint8))


def in_base64(pixels: np.ndarray) -> str:
    """Pixels as a PNG file, in base64."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, format="png")
    return base64.b64encode(target.getvalue()).decode()


def size(picture: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        return image.size


def page_of(prose: str = "", setup: str = SETUP) -> dict[str, Any]:
    """A page of its title, its setup cell and a text."""
    cells = [{"id": f"cell-{i}"} | cell for i, cell in enumerate([markdown("# A"), code(setup), markdown(prose)])]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def shown(**data: str) -> dict[str, Any]:
    return {"output_type": "display_data", "metadata": {}, "data": data}


def made_of(*cells: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells of the edition behind the first cell, the title and the setup."""
    numbered = [{"id": f"cell-{i}"} | cell for i, cell in enumerate([markdown("# Maps: where?"), code(SETUP), *cells])]
    notebook = {"cells": numbered, "metadata": {"about": {}}, "nbformat": 4, "nbformat_minor": 5}
    made = reading_edition(notebook, "ch03_cam", SHARED)
    nbformat.validate(nbformat.from_dict(made))
    first, _, setup, *rest = made["cells"]
    assert f"[Maps: where?]({SITE}book/ch03_cam.html)" in "".join(first["source"])
    assert "".join(setup["source"]) == '%pip install "git+https://github.com/owner/name@v1.0"'
    return rest


ABOUT = {"figure": {"name": "fig-a", "caption": "A map, {cite:p}`zhou`."}, "image": {"alt": "Red <on> $blue$."}}
WORDS = "<details><summary>The picture in words</summary><p>Red &lt;on&gt; &#36;blue&#36;.</p></details>"


def test_a_figure_keeps_its_caption_number_and_words() -> None:
    figure = code("plots.maps(x)", mystnb=ABOUT) | {"outputs": [shown(**{"image/png": png()})]}
    drawn, below = made_of(figure)
    assert "".join(below["source"]) == f"**{FIGURE}** A map, ([Zhou et al., 2016]({WORK})).\n\n{WORDS}"
    assert drawn["outputs"][0]["metadata"]["image/png"]["alt"] == ABOUT["image"]["alt"]


def test_a_figure_that_was_not_drawn_has_no_caption() -> None:
    assert len(made_of(code("plots.maps(x)", mystnb=ABOUT))) == 1


def test_of_a_live_picture_the_figure_is_left() -> None:
    picture = png()
    tag = f'<img style="b" alt="Red &lt;on&gt; $blue$." src="data:image/png;base64,{picture}">'
    home = f'<div class="explorable-home" data-explorable="a"><script>{{"a": 1}}</script>{tag}</div>'
    outputs = [shown(**{"text/html": home, notebooks.WIDGET: "{}"})]
    cell, below = made_of(code("x") | {"outputs": outputs})
    assert cell["outputs"][0]["data"] == {"image/png": picture, "text/plain": "Red <on> $blue$."}
    assert "".join(below["source"]) == WORDS


def test_what_needs_a_kernel_is_left_out_and_the_rest_stays() -> None:
    table = shown(**{"text/html": "<p>x</p>", "text/plain": "x"})
    said = {"output_type": "stream", "name": "stdout", "text": "1\n"}
    outputs = [shown(**{"text/plain": "HBox()", notebooks.WIDGET: "{}"}), table, said]
    kept, hidden = made_of(code("x") | {"outputs": outputs}, code("y", "remove-output") | {"outputs": [table]})
    assert kept["outputs"] == [table, said]
    assert hidden["outputs"] == []


@pytest.mark.parametrize("setup", ["pip install x", f"{SETUP}\n{SETUP}"])
def test_a_setup_cell_installs_one_package(setup: str) -> None:
    with pytest.raises(ValueError, match="must install one package, got"):
        pinned(setup, SHARED.package)


def with_pictures(*pictures: str, **data: str) -> dict[str, Any]:
    outputs = [shown(**{"image/png": picture}) for picture in pictures] + [shown(**data)] * bool(data)
    return {"cells": [{"id": "a"} | code("x") | {"outputs": outputs}], "metadata": {}, "nbformat": 4}


def pictures_of(notebook: str) -> list[dict[str, Any]]:
    return json.loads(notebook)["cells"][0]["outputs"]


def test_the_largest_pictures_lose_first_and_are_shown_at_their_size() -> None:
    large, small = png(256), png(32)
    page = with_pictures(large, small)
    whole = small_enough(page)
    assert [output["data"]["image/png"] for output in pictures_of(whole)] == [large, small]
    assert len(small_enough(page, len(whole) + 1)) == len(whole)
    first, second = pictures_of(small_enough(page, len(whole)))
    assert (size(first["data"]["image/png"]), second["data"]["image/png"]) == ((256, 256), small)
    assert len(first["data"]["image/png"]) < len(large)
    half = pictures_of(small_enough(page, len(whole) // 4))[0]
    assert size(half["data"]["image/png"]) == (128, 128)
    assert half["metadata"]["image/png"] == {"height": 256, "width": 256}
    with pytest.raises(ValueError, match="with small pictures"):
        small_enough(page, 1000)


def test_no_picture_loses_twice_before_all_have_lost_once() -> None:
    large, small = png(256), png(128)
    once = [reduced(large, 1), reduced(small, 1)]
    saved = len(large + small) - len("".join(once))
    assert fitted([(small, 1), (large, 3)], saved) == once[::-1]
    assert fitted([(small, 1), (large, 3)], saved + 1) == [once[1], reduced(large, 2)]


def test_a_small_colour_bar_beside_a_large_picture_stays_smooth() -> None:
    drawn = np.random.default_rng(0)
    ramp = (colormaps["RdBu_r"](np.linspace(0, 1, 512))[:, :3] * 255).round().astype(np.uint8)
    bar, gray = ramp[None].repeat(8, 0), drawn.normal(150, 20, (256, 512, 1)) + drawn.normal(0, 2, (256, 512, 3))
    picture = in_base64(np.concatenate([bar, gray.clip(0, 255).astype(np.uint8)]))
    with Image.open(io.BytesIO(base64.b64decode(reduced(picture, 1)))) as image:
        error = np.abs(np.asarray(image.convert("RGB"))[:8].astype(int) - bar)
    assert error.max() <= 10  # of 255; the usual way to choose 256 colours is wrong by 60


def test_pictures_in_html_keep_their_pixels() -> None:
    page = with_pictures(**{"text/html": f'<img src="data:image/png;base64,{png(128)}">'})
    made = pictures_of(small_enough(page, len(small_enough(page))))[0]["data"]["text/html"]
    inside = re.search(r"base64,([^\"]+)", made)[1]
    assert (size(inside), len(inside) < len(png(128))) == ((128, 128), True)
    assert inside == reduced(png(128), 1)
    with pytest.raises(ValueError, match="with small pictures"):  # no further step is left
        small_enough(page, len(small_enough(page, len(small_enough(page)))))


def test_a_picture_is_never_made_larger() -> None:
    flat = png(8, 1)
    assert len(reduced(flat, 1)) >= len(flat)
    page = with_pictures(flat, png(64))
    smallest = [output["data"]["image/png"] for output in pictures_of(small_enough(page, 5000))]
    assert smallest == [flat, reduced(png(64), len(STEPS) - 1)]
    assert fitted([(flat, len(STEPS))], excess=10**6) == [flat]


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        small_enough(with_pictures("AAAA"))


def test_without_a_built_site_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match="build the book first"):
        notebooks.edition(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The root of a book of one page with a figure, built as far as it takes; the page was not run."""
    figure = {"name": "fig-b", "caption": "B."}
    page = {"cells": [markdown("# A"), code("x", mystnb={"figure": figure})], "metadata": {}}
    (tmp_path / "_toc.yml").write_text("- file: book/ch01_a\n", encoding="utf8")
    project = '[project]\nversion = "1.0"\nurls.Repository = "https://github.com/owner/name"\n'
    (tmp_path / "pyproject.toml").write_text(project, encoding="utf8")
    for folder, name, text in (("book", "ch01_a.ipynb", page), ("_build/run", "labels.json", TABLES)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_text(json.dumps(text), encoding="utf8")
    return tmp_path


def test_a_figure_of_a_page_that_was_not_run_has_no_number(small: Path) -> None:
    assert notebooks.edition(small).page("ch02_b").plain("{numref}`fig-b`") == f"[Fig. ?]({ONE})"
    ran(small, "{}")
    with pytest.raises(ValueError, match="the site has nothing for"):
        notebooks.edition(small).page("ch02_b").plain("{numref}`fig-b`")


def ran(root: Path, text: str) -> None:
    """What the run of the only page of a small book has left."""
    page = executed(run_dir(root), "ch01_a")
    page.parent.mkdir(exist_ok=True)
    page.write_text(text, encoding="utf8")


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("labels.json", '{"labels": {', "labels.json cannot be read .*: build the book anew"),
        ("labels.json", '{"labels": {}}', "labels.json lacks documents, functions, sections, terms, works: build"),
        ("pages/ch01_a.ipynb", '{"cells": [', "ch01_a.ipynb cannot be read .*: build the book anew"),
        ("pages/ch01_a.ipynb", json.dumps(page_of("{eq}`gone`")), "ch01_a: the site has nothing for {eq}`gone`"),
        ("pages/ch01_a.ipynb", json.dumps(page_of(setup="x")), "ch01_a: the setup cell must install one package"),
    ],
)
def test_what_a_build_left_by_half_is_named(
    file: str, text: str, reason: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = notebooks.write(small, say=lambda line: None)
    (before / "README.md").write_text("the last edition", encoding="utf8")
    ran(small, json.dumps(page_of()))
    (run_dir(small) / file).write_text(text, encoding="utf8")
    assert notebooks.main(["--root", str(small), "--as-built"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(reason, line)
    assert [(path.name, path.read_text(encoding="utf8")) for path in before.iterdir()] == [
        ("README.md", "the last edition"),
    ]  # fmt: skip


def test_a_page_without_a_heading_is_called_by_its_name(small: Path) -> None:
    ran(small, json.dumps({"cells": [code(SETUP)], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    made = json.loads((notebooks.write(small, say=lambda line: None) / "ch01_a.ipynb").read_text(encoding="utf8"))
    assert f"[ch01_a]({ONE})" in "".join(made["cells"][0]["source"])


def test_the_package_is_that_of_the_tag_or_of_a_commit_without_one(tmp_path: Path, monkeypatch: Any) -> None:
    said = {"HEAD": "c1", "v1.0^{commit}": "c1"}
    monkeypatch.setattr(notebooks, "project", lambda root: {"version": "1.0"})
    monkeypatch.setattr(notebooks, "repository", lambda root: "https://github.com/owner/name")
    monkeypatch.setattr(notebooks, "git", lambda root, *words: said.get(words[-1], ""))
    assert notebooks.package_of(tmp_path) == "git+https://github.com/owner/name@v1.0"
    said["HEAD"] = "c2"  # main has gone on since
    assert notebooks.package_of(tmp_path) == "git+https://github.com/owner/name@c2"
    said.clear()  # an archive without a history
    assert notebooks.package_of(tmp_path) == "git+https://github.com/owner/name@v1.0"


def test_a_page_that_was_not_run_is_passed_over(small: Path) -> None:
    said: list[str] = []
    folder = notebooks.write(small, say=said.append)
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    assert [" ".join(line.split()) for line in said] == ["ch01_a not run to its end, passed over"]
    assert {path.name for path in folder.parent.iterdir()} == {"notebooks", "run"}


@pytest.mark.parametrize(
    ("fresh", "code", "did"), [(True, 0, ["write"]), (False, 0, ["book", "write"]), (False, 1, ["book", "write"])]
)
def test_the_book_is_built_first_where_it_is_not_fresh(
    fresh: bool, code: int, did: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(notebooks.book, "is_fresh", lambda root: fresh)
    asked: list[str] = []
    monkeypatch.setattr(
        notebooks.book, "main", lambda arguments: (asked.extend(arguments), done.append("book")) and code
    )
    monkeypatch.setattr(notebooks, "write", lambda root: done.append("write"))
    assert (notebooks.main(["--chapter", "ch01_a"]), done) == (code, did)
    assert asked[2:] == ([] if fresh else ["--chapter", "ch01_a"])


# Below: what the site and its notebooks say of the book.


@pytest.fixture(scope="module")
def written(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The edition of the built book."""
    return notebooks.write(ROOT, tmp_path_factory.mktemp("edition") / "notebooks", say=lambda line: None)


@pytest.fixture(scope="module")
def tables(site: Path) -> dict[str, dict[str, Any]]:
    """What Sphinx has numbered and named."""
    return json.loads((run_dir(ROOT) / "labels.json").read_text(encoding="utf8"))


def missing_places(site: Path, places: set[str]) -> list[str]:
    """The places, below the site's address, that are not there."""
    ids: dict[str, set[str]] = {}
    for path in {place.partition("#")[0] for place in places}:
        html = (site / path).read_text(encoding="utf8") if (site / path).is_file() else ""
        ids[path] = {"", *re.findall(r'\bid="([^"]*)"', html)} if html else set()
    return sorted(place for place in places if place.partition("#")[2] not in ids[place.partition("#")[0]])


@pytest.mark.book
def test_every_label_has_its_place_on_the_site(site: Path, tables: dict[str, dict[str, Any]]) -> None:
    entries = [entry for name in tables.keys() - {"sections"} for entry in tables[name].values()]
    places = {entry["place"] for entry in entries} | {p for page in tables["sections"].values() for p in page.values()}
    assert len(places) > 500
    assert missing_places(site, places) == []
    assert missing_places(site, {"book/gone.html", "book/index.html#gone", "book/index.html"}) == [
        *("book/gone.html", "book/index.html#gone"),
    ]  # fmt: skip


@pytest.mark.book
@pytest.mark.parametrize("name", CHAPTERS)
def test_labels_have_the_numbers_of_the_site(name: str, site: Path, tables: dict[str, dict[str, Any]]) -> None:
    html = (site / "book" / f"{name}.html").read_text(encoding="utf8")
    figures = r'id="(fig-[\w-]+)">(?:(?!<figure).)*?caption-number">(Fig\. [\d.]+) '
    numbers = dict(re.findall(figures, html, re.DOTALL))
    numbers |= {b: a for a, b in re.findall(r'eqno">(\([\d.]+\))<a[^>]*href="#equation-([\w-]+)"', html)}
    assert numbers
    assert {label: tables["labels"][label]["words"] for label in numbers} == numbers
    drawn = set(next(chapter for chapter in chapters(ROOT) if chapter.name == name).figures.values())
    assert drawn <= numbers.keys()


LEFT = re.compile(
    r"""
    ^(?:```.*?^```|~~~.*?^~~~) | ``.+?`` | `[^`\n]+`                          # code
    | (?P<left>\{[\w:]+\}` | ^:{3,} | \$\$\s*\([\w-]+\) | ^\([\w-]+\)=)
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


def left_over(texts: list[str]) -> list[str]:
    """What only MyST knows, outside of code."""
    return [match["left"] for text in texts for match in LEFT.finditer(text) if match["left"]]


def test_what_only_myst_knows_is_seen() -> None:
    assert left_over(["a {eq}`x`", ":::{note}", "$$x$$ (def-a)", "(a)="]) == ["{eq}`", ":::", "$$ (def-a)", "(a)="]
    assert left_over(["```\n{eq}`x`\n```", "``{eq}`x` ``", "`{eq}`", "f(x)=1"]) == []


@pytest.mark.book
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_notebook_keeps_everything(name: str, written: Path, site: Path) -> None:
    path = written / f"{name}.ipynb"
    made = json.loads(path.read_text(encoding="utf8"))
    nbformat.validate(nbformat.from_dict(made))
    assert path.stat().st_size < MOST_BYTES
    texts = ["".join(cell["source"]) for cell in made["cells"] if cell["cell_type"] == "markdown"]
    assert left_over(texts) == []
    address = re.compile(rf"\]\({re.escape(site_address(ROOT))}([^)\s]*)\)")
    places = {match[1] or "index.html" for text in texts for match in address.finditer(text)}
    assert missing_places(site, places) == []
    drawn = [cell for cell in made["cells"] if cell.get("metadata", {}).get("mystnb", {}).get("figure")]
    assert drawn
    assert all(cell["outputs"] for cell in drawn)
    assert len(drawn) == sum(text.startswith("**[Fig. ") for text in texts)
    outputs = [output for cell in made["cells"] for output in cell.get("outputs", [])]
    assert not any(notebooks.WIDGET in output.get("data", {}) for output in outputs)
    assert "explorable-home" not in json.dumps(outputs)


@pytest.mark.book
def test_the_same_run_gives_the_same_notebooks(written: Path, tmp_path: Path) -> None:
    again = notebooks.write(ROOT, tmp_path / "again", say=lambda line: None)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in written.iterdir()
    }


def colab_buttons(html: str) -> set[str]:
    """Where the Colab buttons of a page lead: to a file of the edition, or the whole address where to no such file."""
    own = f"https://colab.research.google.com/github/{repository(ROOT).removeprefix('https://github.com/')}/blob/notebooks/"
    return {link.removeprefix(own) for link in re.findall(r'"(https://colab\.[^"]+)"', html)}


@pytest.mark.book
def test_every_colab_button_leads_to_a_notebook(site: Path, written: Path) -> None:
    there = {path.name for path in written.glob("*.ipynb")}
    buttons = {path: colab_buttons(path.read_text(encoding="utf8")) for path in (site / "book").rglob("*.html")}
    assert {str(path): left for path, names in buttons.items() if (left := names - there)} == {}
    assert {name: buttons[site / "book" / f"{name}.html"] for name in CHAPTERS} == {
        name: {f"{name}.ipynb"} for name in CHAPTERS
    }
    assert buttons[site / "book" / "index.html"] == there


def test_a_button_that_leads_elsewhere_is_seen() -> None:
    master = "https://colab.research.google.com/github/owner/name/blob/main/book/ch01_a.ipynb"
    assert colab_buttons(f'<a href="{master}">') == {master}
