"""What the site needs beyond Jupyter Book's settings.

- appendix/equations and appendix/claims are generated from the chapters, after these have run, and
  appendix/networks from the networks' manifests and records;
- MathJax comes from an installed package, so that no page asks another host for anything;
- scripts of sphinx-thebe, which would fetch a live kernel from elsewhere and log an error, are left out;
- HELPERS_CHAPTER executes one chapter only (`make book CHAPTER=...`).
"""

import json
import os
import sys
from importlib.metadata import distribution
from itertools import groupby
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.fileutil import copy_asset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.chapters import Chapter, Claim, Section, chapters  # noqa: E402 (the root is on the path only now)
from tools.networks_page import overview, sections  # noqa: E402

log = logging.getLogger(__name__)

APPENDIX = "book/appendix/"
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def unexecuted() -> list[Chapter]:
    """The chapters that this build shows without running them."""
    only = os.environ.get("HELPERS_CHAPTER")
    return [chapter for chapter in chapters(ROOT) if only and chapter.name != only]


def choose_chapters(app: Sphinx, config: Config) -> None:
    """Execute only the chapter that HELPERS_CHAPTER names, if it names one."""
    left_out = [chapter.path.relative_to(ROOT).as_posix() for chapter in unexecuted()]
    config.nb_execution_excludepatterns = [*config.nb_execution_excludepatterns, *left_out]


def excuse_unexecuted(app: Sphinx, domain: Any, node: Any) -> bool | None:
    """Stay silent about a reference to a figure of a chapter that was not run: the figure is not there."""
    figures = {name for chapter in unexecuted() for name in chapter.figures.values()}
    return True if node.get("reftarget") in figures else None


def appendix_last(app: Sphinx, env: BuildEnvironment, names: list[str]) -> None:
    """Read the appendix after the chapters have run and logged their claims."""
    names.sort(key=lambda name: name.startswith(APPENDIX))


def fill_markers(app: Sphinx, name: str, source: list[str]) -> None:
    """Tell the kernel whose page it runs, and put what is generated into the appendix."""
    os.environ["HELPERS_NOTEBOOK"] = name.rsplit("/", 1)[-1]
    for marker, content in (("equations", equation_list), ("claims", claim_list), ("networks", network_list)):
        place = f"<!-- generated: {marker} -->"
        if name.startswith(APPENDIX) and place in source[0]:
            source[0] = source[0].replace(place, content())


def network_list() -> str:
    """The shipped networks: a table, then a section each."""
    return f"## At a glance\n\n{overview(ROOT)}\n\n## One by one\n\n{sections(ROOT)}"


def link(section: Section) -> str:
    """A link to a section of a chapter, as seen from the appendix."""
    return f"[{section.title}](../{section.chapter}.ipynb{'#' if section.anchor else ''}{section.anchor})"


def equation_list() -> str:
    """All labelled equations, each with the functions that compute it and the section that derives it."""
    entries = []
    for equation in (equation for chapter in chapters(ROOT) for equation in chapter.equations):
        functions = ", ".join(f"`{name}`" for name in equation.functions)
        entries.append(f"- {{eq}}`{equation.label}` is computed by {functions}: {link(equation.section)}")
        entries.append(f"  $${equation.body}$$")
    return "\n\n".join(entries) or "None yet."


def claim_list() -> str:
    """All claims by chapter and section, each with what this build measured.

    A claim that a chapter makes but that its run did not log is a warning, and so an error of the build.
    """
    measured, silent = claims_log(), {chapter.name for chapter in unexecuted()}
    parts: list[str] = []
    for chapter in chapters(ROOT):
        parts.append(f"## {chapter.title}")
        for section, claims in groupby(chapter.claims, key=lambda claim: claim.section):
            parts.append(f"**{link(section)}**")
            for claim in claims:
                if claim.id not in measured and chapter.name not in silent:
                    log.warning("claim %r of %s was not checked by the chapter's run", claim.id, chapter.name)
                parts.append(claim_entry(claim, measured.get(claim.id)))
    return "\n\n".join(parts) or "None yet."


def claim_entry(claim: Claim, measured: dict[str, Any] | None) -> str:
    """A claim's entry; `measured` is what its run logged, None where it was not run."""
    found = "not run" if measured is None else f"measured **{measured['value']}**, must be {measured['bound']}"
    return f"- {claim.text[:1].upper()}{claim.text[1:]}: {found}. `{claim.id}`"


def claims_log() -> dict[str, dict[str, Any]]:
    """What the claims of this build logged, by id."""
    path = Path(os.environ.get("HELPERS_CLAIMS_LOG", "claims.jsonl"))
    lines = path.read_text(encoding="utf8").splitlines() if path.exists() else []
    return {row["id"]: row for row in map(json.loads, lines)}


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out the scripts of sphinx-thebe."""
    scripts = context.get("script_files", [])
    kept = [s for s in scripts if "thebe" not in str(getattr(s, "filename", s)) + str(getattr(s, "attributes", ""))]
    context["script_files"] = kept


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy the part of MathJax that the pages use; its licence comes with assets/mathjax."""
    if error is not None or app.builder.format != "html":
        return
    source = Path(str(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax")))
    for part in MATHJAX:
        target = Path(app.outdir, "_static", "mathjax", part)
        copy_asset(str(source / part), str(target if (source / part).is_dir() else target.parent))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything with Sphinx."""
    app.connect("config-inited", choose_chapters)
    app.connect("env-before-read-docs", appendix_last)
    app.connect("source-read", fill_markers)
    app.connect("warn-missing-reference", excuse_unexecuted)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", copy_mathjax)
    # The appendix needs every chapter's claims, and the kernel its page's name: one page after the other.
    return {"parallel_read_safe": False, "parallel_write_safe": True}
