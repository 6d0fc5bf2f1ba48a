"""The notebooks that readers open: `python -m tools.notebooks` writes them to `_build/notebooks`, from the last build.

The pages in `book/` are masters: without outputs, in MyST. Colab and JupyterLab know nothing of MyST, so here every
page keeps what its run put out, captions and alternative texts stand under the figures, references are words with links
to the site (`tools/notebook_text.py`), and the first cell leads back to the page. The setup cell installs the package
that the page was run with. The publishing workflow puts the folder on the branch `notebooks`, to which the Colab
buttons lead.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

from tools import book
from tools.cells import Cell, headings
from tools.chapters import Chapter, chapters
from tools.front_page import colab
from tools.links import Targets, targets
from tools.notebook_pictures import small_enough
from tools.notebook_text import PageText
from tools.project import ROOT, project, repository, site_address
from tools.run_pages import executed, run_dir

WIDGET = "application/vnd.jupyter.widget-view+json"
HOME = re.compile(r'class="explorable-home".*?(?P<picture><img\b[^>]*>)', re.DOTALL)
ATTRIBUTE = re.compile(r'\b(?P<name>alt|src)="(?P<value>[^"]*)"')
PNG = "data:image/png;base64,"
TABLES = {"documents", "labels", "sections", "works", "terms", "functions"}  # what _ext/labels.py writes
PACKAGE = re.compile(r"git\+https://[^\"'\s]+")


class NotBuilt(RuntimeError):
    """There is no built site to make the notebooks from."""


@dataclass(frozen=True)
class Edition:
    """What all notebooks of an edition share.

    `tables` is what Sphinx has numbered and named (`_ext/labels.py`), `site` the site's address, `package` what pip
    installs.
    """

    targets: Targets
    tables: dict[str, dict[str, Any]]
    site: str
    package: str
    version: str

    def page(self, name: str) -> PageText:
        """What translates the texts of the page of that name."""
        return PageText(name, self.tables, self.site, self.targets)


def edition(root: Path) -> Edition:
    """What the notebooks of the last build share.

    Raises:
        NotBuilt: the site was not built, or by another version of `_ext/labels.py`.
    """
    file = run_dir(root) / "labels.json"
    if not file.exists():
        raise NotBuilt(f"{file} is not there: build the book first, with `make book`")
    tables = contents(file)
    lacking = TABLES - tables.keys()
    if lacking:
        raise NotBuilt(f"{file} lacks {', '.join(sorted(lacking))}: build the book anew, with `make book`")
    for chapter in chapters(root):
        if not executed(run_dir(root), chapter.name).exists():  # then the site does not number its figures
            unknown = {"words": "Fig. ?", "place": f"book/{chapter.name}.html"}
            tables["labels"] |= dict.fromkeys(chapter.figures.values(), unknown)
    linkable = targets(root, set(tables["functions"]))
    return Edition(linkable, tables, site_address(root), package_of(root), str(project(root)["version"]))


def contents(file: Path) -> dict[str, Any]:
    """What a file that the build has left holds.

    Raises:
        NotBuilt: it is not whole.
    """
    try:
        return json.loads(file.read_text(encoding="utf8"))
    except ValueError as error:
        raise NotBuilt(f"{file} cannot be read ({error}): build the book anew, with `make book`") from None


def package_of(root: Path) -> str:
    """What pip installs: the repository at the version's tag, or at the commit where that is not the tagged one."""
    tag = f"v{project(root)['version']}"
    commit, tagged = git(root, "rev-parse", "HEAD"), git(root, "rev-parse", "--verify", "-q", f"{tag}^{{commit}}")
    return f"git+{repository(root)}@{tag if commit in ('', tagged) else commit}"


def git(root: Path, *words: str) -> str:
    """What git says, or nothing where it fails."""
    command = ["git", "-C", str(root), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def reading_edition(notebook: dict[str, Any], name: str, shared: Edition) -> dict[str, Any]:
    """The notebook that readers open, from that which the run of the page `name` has left."""
    text, setup, cells = shared.page(name), True, [greeting(notebook, name, shared)]
    for cell in (Cell(index, raw) for index, raw in enumerate(notebook["cells"])):
        if cell.is_markdown:
            cells.append({**cell.raw, "source": text.cell(cell.source)})
        elif cell.is_code:
            shown = {**cell.raw, "source": pinned(cell.source, shared.package) if setup else cell.source}
            cells += [{**shown, "outputs": outputs(cell)}, *below(cell, text)]
            setup = False  # it is the first code cell
        else:
            cells.append(cell.raw)
    for shown in cells:
        shown["source"] = "".join(shown["source"]).splitlines(keepends=True)
    kept = {key: notebook["metadata"][key] for key in ("kernelspec", "language_info") if key in notebook["metadata"]}
    return {**notebook, "cells": cells, "metadata": kept}


def greeting(notebook: dict[str, Any], name: str, shared: Edition) -> dict[str, Any]:
    """The first cell: the way back to the page, and what this is."""
    prose = [cell for cell in map(Cell, range(len(notebook["cells"])), notebook["cells"]) if cell.is_markdown]
    title = next((title for cell in prose for title in headings(cell.source)), name)
    said = (
        f"This is the notebook of the page [{title}]({shared.site}book/{name}.html) of the book "
        f"[Where Networks Look]({shared.site}), version {shared.version}. It shows what the page's own run has put "
        "out; to run it yourself, begin with the setup cell, which in Colab installs the book's package. What answers "
        "to a touch there is a still picture here until its cell is run."
    )
    return {"cell_type": "markdown", "id": "about-this-notebook", "metadata": {}, "source": f"> {said}"}


def pinned(setup: str, package: str) -> str:
    """The setup cell that installs this package and no other.

    Raises:
        ValueError: it does not install one package.
    """
    cell, count = PACKAGE.subn(package, setup)
    if count != 1:
        raise ValueError(f"the setup cell must install one package, got {count}")
    return cell


def outputs(cell: Cell) -> list[dict[str, Any]]:
    """What a cell shows without a kernel; its pictures say what is seen on them."""
    if {"remove-output", "remove-cell"} & cell.tags:
        return []  # as on the site
    shown = [output for output in map(still, cell.raw.get("outputs", [])) if output]
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
    for output in shown:
        if alt and "image/png" in output.get("data", {}):
            about = output.get("metadata", {})
            output["metadata"] = {**about, "image/png": {"alt": alt} | about.get("image/png", {})}
    return shown


def still(output: dict[str, Any]) -> dict[str, Any] | None:
    """An output without what needs a kernel: of an explorable its figure is left, of any other widget nothing."""
    data = output.get("data", {})
    home = HOME.search("".join(data.get("text/html", "")))
    if home:
        said = {match["name"]: unescape(match["value"]) for match in ATTRIBUTE.finditer(home["picture"])}
        picture = {"image/png": said["src"].removeprefix(PNG), "text/plain": said["alt"]}
        return {**output, "data": picture, "metadata": {"image/png": {"alt": said["alt"]}}}
    rest = {kind: value for kind, value in data.items() if kind != WIDGET}
    if WIDGET in data and set(rest) <= {"text/plain"}:
        return None
    return {**output, "data": rest} if data else dict(output)


def below(cell: Cell, text: PageText) -> list[dict[str, Any]]:
    """A cell under a figure: its number and caption, and what it shows in words, folded."""
    alts = [output.get("metadata", {}).get("image/png", {}).get("alt") for output in outputs(cell)]
    figure, alt = cell.metadata.get("mystnb", {}).get("figure", {}), next(filter(None, alts), "")
    if not outputs(cell) or not (figure or alt):
        return []
    number = text.plain(f"{{numref}}`{figure['name']}`") if figure else ""
    caption = f"**{number}** {text.plain(figure.get('caption', ''))}".strip() if figure else ""
    words = escape(alt).replace("$", "&#36;")
    folded = f"<details><summary>The picture in words</summary><p>{words}</p></details>" if alt else ""
    source = "\n\n".join(filter(None, (caption, folded)))
    return [{"cell_type": "markdown", "id": f"below-{cell.raw['id']}"[:64], "metadata": {}, "source": source}]


def about_the_branch(root: Path, shared: Edition, names: list[str]) -> str:
    """The file that explains the branch to those who come upon it."""
    rows = [
        f"| [{chapter.title}]({chapter.name}.ipynb) | [page]({shared.site}book/{chapter.name}.html) "
        f"| [Colab]({colab(root, chapter)}) |"
        for chapter in chapters(root)
        if chapter.name in names
    ]
    return (
        "# The notebooks of *Where Networks Look*\n\n"
        f"Each is the notebook of a page of [the book]({shared.site}), version {shared.version}, with the outputs of "
        "its run; the Colab button of the page opens it. `make notebooks` writes them anew with every change of "
        f"[the repository]({repository(root)}), so nothing is edited here: the masters are the files in its folder "
        "`book`.\n\n| notebook | on the site | run it |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "Text and figures are under CC BY 4.0, code is under the MIT license.\n"
    )


def of_chapter(chapter: Chapter, root: Path, shared: Edition) -> str | None:
    """The file of a page's notebook; None where the page was not run to its end.

    Raises:
        NotBuilt: the file that its run has left is not whole.
        ValueError: it cannot be made into a notebook.
    """
    page = executed(run_dir(root), chapter.name)
    if not page.exists():
        return None
    notebook = contents(page)
    try:
        return small_enough(reading_edition(notebook, chapter.name, shared))
    except ValueError as error:
        raise ValueError(f"{chapter.name}: {error}") from None


def write(root: Path, folder: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Write the edition; returns its folder, `_build/notebooks` unless another is given.

    A page that the last build did not run, or that failed, is passed over, and named.

    Raises:
        NotBuilt: the site was not built.
        ValueError: a page cannot be made into a notebook; the last edition is left as it was.
    """
    shared, folder, names = edition(root), folder or root / "_build" / "notebooks", []
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for chapter in chapters(root):
        text = of_chapter(chapter, root, shared)
        if text is None:
            say(f"  {chapter.name:24} not run to its end, passed over")
            continue
        (part / f"{chapter.name}.ipynb").write_text(text, encoding="utf8")
        names.append(chapter.name)
        say(f"  {chapter.name:24} {len(text.encode()) / 1e6:5.2f} MB")
    (part / "README.md").write_text(about_the_branch(root, shared, names), encoding="utf8")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks; builds the book first where it is not fresh.

    Args:
        arguments: the command line without the program's name; None takes that of the process.

    Returns:
        0 when all is written, otherwise 1. After a build that failed, the pages that ran are written all the same.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description="Write the notebooks for readers.")
    parser.add_argument("--root", metavar="DIR", type=Path, default=ROOT, help="the book's root folder")
    parser.add_argument("--chapter", metavar="NAME", help="where the book is not fresh, run only this chapter")
    parser.add_argument("--as-built", action="store_true", help="take the last build, even if it is not fresh")
    options = parser.parse_args(arguments)
    root, code = options.root.resolve(), 0
    if not options.as_built and not book.is_fresh(root):
        code = book.main(["--root", str(root), "--chapter", options.chapter or ""])
    try:
        folder = write(root)
    except (NotBuilt, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{folder}")
    return code


if __name__ == "__main__":
    sys.exit(main())
