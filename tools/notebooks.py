"""The notebooks that readers open: `python -m tools.notebooks` writes them to `_build/notebooks`, from the last build.

The pages in `book/` are masters: without outputs, in MyST. Colab and JupyterLab know nothing of MyST, so here every
page keeps what its run put out, captions and alternative texts stand under the figures, references are words with links
to the site, formulas carry their numbers, and the first cell leads back to the page. The setup cell installs the
package of the very commit (or, where that has one, of the version's tag) that the page was run with. The publishing
workflow puts the folder on the branch `notebooks`, to which the Colab buttons lead.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from tools import book
from tools.cells import Cell
from tools.chapters import EQUATION, Chapter, chapters
from tools.links import Linker, Targets, bibliography, targets
from tools.project import ROOT, project, repository, site_address
from tools.run_pages import executed, run_dir

ROLE = re.compile(r"\{(?P<role>[\w:]+)\}`(?:(?P<text>[^`<]*?)\s*<(?P<target>[^`>]*)>|(?P<only>[^`]*))`")
BOX = re.compile(r"^(?P<fence>:{3,})\{(?P<kind>[\w-]+)\}[ ]*(?P<title>.*?)\n(?P<body>.*?)^(?P=fence)[ ]*$", re.M | re.S)
OPTION = re.compile(r"^:[\w-]+:.*?\n", re.MULTILINE)
LABEL = re.compile(r"^\([\w-]+\)=\s*\n", re.MULTILINE)
DATA_URI = re.compile(r"data:image/png;base64,(?P<data>[\w+/=]+)")
MIB = 2**20
MOST_BYTES = 2 * MIB
WIDGET = "application/vnd.jupyter.widget-view+json"
# Ever smaller pictures, until a notebook is small enough: as they are, 256 colours, half the size.
LEVELS = ("as it is", "fewer colours", "half the size")


class NotBuilt(RuntimeError):
    """There is no built site to make the notebooks from."""


@dataclass(frozen=True)
class Edition:
    """What all notebooks of an edition share.

    `labels` is what Sphinx has numbered and named (`_ext/labels.py`), `site` its address, `package` what pip installs.
    """

    targets: Targets
    labels: dict[str, dict[str, dict[str, str]]]
    works: dict[str, tuple[str, str]]
    site: str
    package: str
    version: str

    def address(self, place: str) -> str:
        """The address of a place on the site."""
        return f"{self.site}{place}"


@dataclass
class Page:
    """The texts of one page, cell by cell."""

    edition: Edition
    name: str
    _link: Linker = field(init=False)

    def __post_init__(self) -> None:
        """Make what writes the links that the page leaves unwritten."""
        edition = self.edition
        self._link = Linker(
            edition.targets,
            self.name,
            to_chapter=lambda text, target: self._to(text, target.removeprefix("/").replace(".ipynb", ".html", 1)),
            to_term=lambda text, term: self._named(text, "terms", term),
            to_function=lambda text, name: self._named(f"`{text}`", "functions", name),
            to_work=lambda year, key: self._named(year, "works", key),
        )

    def text(self, source: str) -> str:
        """A markdown text without anything that only MyST knows."""
        source = BOX.sub(self._box, source)
        source = EQUATION.sub(self._formula, LABEL.sub("", source))
        return ROLE.sub(self._role, self._link(source))

    def _box(self, match: re.Match[str]) -> str:
        title = match["title"] if match["kind"] == "admonition" else match["title"] or match["kind"].title()
        body = OPTION.sub("", match["body"]).strip()
        lines = [f"**{title}**", "", *body.splitlines()]
        return "\n".join(f"> {line}".rstrip() for line in lines)

    def _formula(self, match: re.Match[str]) -> str:
        number = self._label(match["label"])["text"].strip("()")
        return f"$$\n{match['body'].strip()} \\tag{{{number}}}\n$$"

    def _role(self, match: re.Match[str]) -> str:
        role, text, target = match["role"], match["text"], match["target"] or match["only"]
        if role.startswith("cite:"):
            return self._citation(role, target)
        if role == "doc":
            place = f"book/{target.removeprefix('/book/')}.html"
            return self._to(text or Path(target).name, place)
        if role in ("numref", "eq", "ref"):
            label = self._label(target)
            return self._to(text or label["text"], label["place"])
        if role == "term":
            return self._named(text or target, "terms", target)
        if role == "py:obj":
            return self._named(f"`{text or target}`", "functions", target)
        raise ValueError(f"{self.name}: the role {{{role}}} has no words in a notebook")

    def _citation(self, role: str, keys: str) -> str:
        words = []
        for key in (key.strip() for key in keys.split(",")):
            if key not in self.edition.works:
                raise ValueError(f"{self.name}: {{{role}}} cites {key}, which references.bib does not have")
            who, year = self.edition.works[key]
            shown = {"cite:t": f"{who} ({year})", "cite:year": year}.get(role, f"{who}, {year}")
            words.append(self._named(shown, "works", key))
        return "; ".join(words) if role in ("cite:t", "cite:year") else f"({'; '.join(words)})"

    def _label(self, name: str) -> dict[str, str]:
        try:
            return self.edition.labels["labels"][name]
        except KeyError:
            raise ValueError(f"{self.name}: there is no label {name} on the site") from None

    def _named(self, text: str, kind: str, name: str) -> str:
        entry = self.edition.labels[kind].get(name)
        return self._to(text, entry["place"]) if entry else text

    def _to(self, text: str, place: str) -> str:
        return f"[{text}]({self.edition.address(place)})"


def reading_edition(notebook: dict[str, Any], page: Page) -> dict[str, Any]:
    """The notebook that readers open, from that of a page's run."""
    cells = [_greeting(notebook, page)]
    setup = True
    for index, raw in enumerate(notebook["cells"]):
        cell = Cell(index, raw)
        if cell.is_markdown:
            cells.append({**raw, "source": page.text(cell.source)})
            continue
        if setup and cell.is_code:
            raw = {**raw, "source": pinned(cell.source, page.edition.package)}
            setup = False
        cells.append({**raw, "outputs": [_for_readers(output) for output in raw.get("outputs", [])]})
        cells += _below(cell, page)
    for cell in cells:
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
    return {**notebook, "cells": cells}


def _greeting(notebook: dict[str, Any], page: Page) -> dict[str, Any]:
    """The first cell: what this is, and the way back to the page."""
    title = next(cell.source for cell in map(Cell, range(9), notebook["cells"]) if cell.is_markdown).splitlines()[0]
    link = page._to(title.lstrip("# "), f"book/{page.name}.html")
    about = f"The notebook of {link}, from the book *Where Networks Look*, version {page.edition.version}. "
    about += "It keeps what the book's own run has put out; the cells can be run again, from the first one on."
    return {"cell_type": "markdown", "id": "about-this", "metadata": {}, "source": about}


def _below(cell: Cell, page: Page) -> list[dict[str, Any]]:
    """The caption of a figure and what it shows in words, in a cell below it."""
    about = cell.metadata.get("mystnb", {})
    figure, alt = about.get("figure", {}), about.get("image", {}).get("alt")
    if not figure.get("caption") or not cell.raw.get("outputs"):
        return []
    number = page._label(figure["name"])["text"]
    words = f"\n\n<details><summary>The picture in words</summary>\n\n{escape(alt)}\n\n</details>" if alt else ""
    text = f"**{number}** {page.text(figure['caption'])}{words}"
    return [{"cell_type": "markdown", "id": f"{cell.raw['id']}-caption"[-64:], "metadata": {}, "source": text}]


def _for_readers(output: dict[str, Any]) -> dict[str, Any]:
    """An output without the view of a widget whose kernel is gone; of an explorable its figure is left."""
    data = dict(output.get("data", {}))
    if WIDGET in data:
        del data[WIDGET]
        html = "".join(data.get("text/html", ""))
        still = re.search(r"<img [^>]*>", html)
        if still:
            data["text/html"] = still[0]
    return {**output, "data": data} if "data" in output else output


def pinned(setup: str, package: str) -> str:
    """The setup cell that installs this package and no other."""
    cell, count = re.subn(r"git\+https://[^\"'\s]+", package, setup)
    if count != 1:
        raise ValueError(f"the setup cell must install one package, got {count}")
    return cell


def small_enough(notebook: dict[str, Any], most: int = MOST_BYTES) -> str:
    """The notebook as a file of at most so many bytes, its pictures as good as that allows."""
    for level in LEVELS:
        text = json.dumps(_with_pictures(notebook, level), indent=1, ensure_ascii=False) + "\n"
        if len(text.encode()) < most:
            return text
    raise ValueError(
        f"the notebook has {len(text.encode()) / MIB:.1f} MiB, {most / MIB:.1f} at most, with small pictures"
    )


def _with_pictures(notebook: dict[str, Any], level: str) -> dict[str, Any]:
    """The notebook with its pictures made smaller."""
    if level == LEVELS[0]:
        return notebook

    def output(entry: dict[str, Any]) -> dict[str, Any]:
        data = dict(entry.get("data", {}))
        if "image/png" in data:
            data["image/png"] = smaller("".join(data["image/png"]), level)
        if "text/html" in data:
            html = "".join(data["text/html"])
            data["text/html"] = DATA_URI.sub(
                lambda match: f"data:image/png;base64,{smaller(match['data'], level)}", html
            )
        return {**entry, "data": data} if "data" in entry else entry

    cells = [
        {**cell, "outputs": [output(entry) for entry in cell["outputs"]]} if cell.get("outputs") else cell
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}


def smaller(data: str, level: str) -> str:
    """A PNG picture in base64, with 256 colours or also half as large, if that makes it smaller."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            picture = image.convert("RGB")
    except (binascii.Error, OSError) as error:
        raise ValueError(f"a picture of the notebook cannot be read: {error}") from None
    if level == LEVELS[2]:
        picture = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(target, format="png", optimize=True)
    coded = base64.b64encode(target.getvalue()).decode()
    return min(data.replace("\n", ""), coded, key=len)


def package_of(root: Path) -> str:
    """What pip installs: the repository at the version's tag, or at the commit where that has none."""
    tag = f"v{project(root)['version']}"

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    commit = git("rev-parse", "HEAD")
    at = tag if not commit or git("rev-parse", "--verify", "-q", f"{tag}^{{commit}}") == commit else commit
    return f"git+{repository(root)}@{at}"


def edition(root: Path) -> Edition:
    """What the notebooks of the last build share.

    Raises:
        NotBuilt: the site was not built.
    """
    file = run_dir(root) / "labels.json"
    if not file.exists():
        raise NotBuilt(f"{file} is not there: build the book first, with `make book`")
    labels = json.loads(file.read_text(encoding="utf8"))
    text = (root / "book" / "references.bib").read_text(encoding="utf8")
    works = {}
    for (first, year), entries in bibliography(text).items():
        for key, others in entries.items():
            who = f"{first} and {others[0]}" if len(others) == 1 else f"{first} et al." if others else first
            works[key] = (who, year)
    linkable = targets(root, set(labels["functions"]))
    version = str(project(root)["version"])
    return Edition(linkable, labels, works, site_address(root), package_of(root), version)


README = """# The notebooks of *Where Networks Look*

Made by `make notebooks` from {commit} of {repository}; nothing here is edited by hand.
Each is the notebook of one page of {site}, with the outputs of the book's own run. The Colab button of a page opens it.
"""


def write(root: Path, say: Callable[[str], None] = print) -> Path:
    """Write the edition; returns its folder. A page that the last build did not run is passed over, and named.

    Raises:
        NotBuilt: the site was not built.
        ValueError: a page cannot be made into a notebook; nothing is left half written.
    """
    shared, folder = edition(root), root / "_build" / "notebooks"
    part = folder.with_name("notebooks.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for chapter in chapters(root):
        text = of_chapter(chapter, root, shared)
        if text is None:
            say(f"  {chapter.name:24} not run, passed over")
            continue
        (part / f"{chapter.name}.ipynb").write_text(text, encoding="utf8")
        say(f"  {chapter.name:24} {len(text.encode()) / MIB:5.2f} MiB")
    about = {"commit": shared.package.rsplit("@", 1)[-1], "repository": repository(root), "site": shared.site}
    (part / "README.md").write_text(README.format(**about), encoding="utf8")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    return folder


def of_chapter(chapter: Chapter, root: Path, shared: Edition) -> str | None:
    """The file of a page's notebook; None where its page was not run."""
    page = executed(run_dir(root), chapter.name)
    if not page.exists():
        return None
    return small_enough(reading_edition(json.loads(page.read_text(encoding="utf8")), Page(shared, chapter.name)))


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks; builds the book first where it is not fresh."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description="Write the notebooks for readers.")
    parser.add_argument("--root", metavar="DIR", type=Path, default=ROOT, help="the book's root folder")
    parser.add_argument("--as-built", action="store_true", help="take the last build, even if it is not fresh")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    if not options.as_built and not book.is_fresh(root):
        code = book.main(["--root", str(root)])
        if code:
            return code
    try:
        folder = write(root)
    except (NotBuilt, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
