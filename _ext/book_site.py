"""What the site needs beyond Jupyter Book's settings.

- The pages were run before (tools/run_pages.py): each is shown with the outputs that its run left in the folder
  HELPERS_RUN; a page that is not there is shown without any, as the others of `make book CHAPTER=...` are.
- appendix/equations and appendix/claims are generated from the pages and what their runs logged, and
  appendix/networks from the networks' manifests and records.
- MathJax comes from an installed package, so that no page asks another host for anything.
- What the chapters leave unlinked is linked, and folded code says what it is for (_ext/page_source.py).
- Scripts of sphinx-thebe, which would fetch a live kernel from elsewhere and log an error, are left out.
"""

import os
import re
import sys
from functools import cache, partial
from html import escape
from importlib.metadata import distribution
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.fileutil import copy_asset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from page_source import Page, prepared_text  # noqa: E402 (the root is on the path only now)

from tools.chapters import Chapter, Claim, Section, chapters  # noqa: E402
from tools.front_page import build_line, colab, cover, pages_table  # noqa: E402
from tools.links import Targets, targets  # noqa: E402
from tools.project import repository, site_address  # noqa: E402
from tools.run_pages import costs, executed, read_log  # noqa: E402

log = logging.getLogger(__name__)

APPENDIX = "book/appendix/"
DESCRIPTION = {
    "book/index": "An executable book on where convolutional networks look: saliency maps, class activation maps, "
    "LICNN, log-polar vision and visual search, rebuilt in PyTorch and measured against honest baselines.",
}
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def run() -> Path:
    """The folder that the run of the pages has left."""
    return Path(os.environ["HELPERS_RUN"])


def check_run(app: Sphinx) -> None:
    """Stop where the pages were not run: a site without outputs must not pass for the book."""
    if not os.environ.get("HELPERS_RUN"):
        raise RuntimeError("the pages were not run: build the site with `python -m tools.book`")


def not_run() -> list[Chapter]:
    """The pages that this build shows without outputs."""
    return [chapter for chapter in chapters(ROOT) if not executed(run(), chapter.name).exists()]


def excuse_not_run(app: Sphinx, domain: Any, node: Any) -> bool | None:
    """Stay silent about a reference to a figure of a page that was not run: the figure is not there."""
    figures = {name for chapter in not_run() for name in chapter.figures.values()}
    return True if node.get("reftarget") in figures else None


def fill_in(app: Sphinx, name: str, source: list[str]) -> None:
    """Read a page as its run left it, and put what is generated into the appendix."""
    page = executed(run(), name.rsplit("/", 1)[-1])
    if page.exists():
        source[0] = page.read_text(encoding="utf8")
    if name in {f"book/{chapter.name}" for chapter in chapters(ROOT)}:
        about = Page(page.stem, repository(ROOT), page_costs().get(page.stem) if page.exists() else None)
        source[0] = prepared_text(source[0], about, link_targets())
    for marker, content in GENERATED.items():
        place = f"<!-- generated: {marker} -->"
        if place in source[0] and not name.endswith("ipynb"):
            source[0] = source[0].replace(place, content())


@cache
def link_targets() -> Targets:
    """What the pages can link to; the package's own pages say which functions there are."""
    from tools.api_page import entries  # with torch: only where there are pages of the package

    return targets(ROOT, set(entries()) if (ROOT / APPENDIX / "api").exists() else ())


def network_list() -> str:
    """The shipped networks: a table, then a section each; `tools.book` has drawn their learning curves."""
    from tools.networks_page import overview, sections  # pandas: only where the page is there

    return f"## At a glance\n\n{overview(ROOT)}\n\n## One by one\n\n{sections(ROOT)}"


@cache
def page_costs() -> dict[str, Any]:
    """What each page's run took."""
    return costs(ROOT)


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
    measured = {row["id"]: row for row in read_log(run() / "claims.jsonl")}
    silent = {chapter.name for chapter in not_run()}
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
    text = f"{claim.text[:1].upper()}{claim.text[1:]}"
    if measured is None:
        return f"- {text}: not run. `{claim.id}`"
    place = f"../{claim.section.chapter}.html#claim-{claim.id}"
    return (
        f"- {text}: measured **{measured['value']}**, must be {measured['bound']}. "
        f'<a href="{place}"><code>{claim.id}</code></a>'
    )


# What stands on a page in place of `<!-- generated: NAME -->`.
GENERATED = {
    "equations": equation_list,
    "claims": claim_list,
    "networks": network_list,
    "cover": cover,
    "pages": partial(pages_table, ROOT),
    "build": partial(build_line, ROOT),
}


def add_head(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """A page's description for search engines and for who shares a link; the front page has no title twice."""
    chapter = next((chapter for chapter in chapters(ROOT) if page == f"book/{chapter.name}"), None)
    description = chapter.raw["metadata"].get("about", {}).get("description") if chapter else DESCRIPTION.get(page)
    if description:
        context["metatags"] = (
            context.get("metatags", "") + f'\n<meta name="description" content="{escape(description)}">'
        )
        context["meta"] = (context.get("meta") or {}) | {"og:description": description}
    if page == app.config.root_doc:
        context["docstitle"] = ""


def lead_to_notebooks(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Let the Colab button open the notebook that keeps its outputs (tools.notebooks), not the master."""
    for chapter in chapters(ROOT):
        if page == f"book/{chapter.name}":
            for group in context.get("header_buttons", []):
                for button in group.get("buttons", ()):
                    if "colab.research.google.com" in button.get("url", ""):
                        button["url"] = colab(ROOT, chapter)


def say_build(app: Sphinx, config: Any) -> None:
    """Where the site is published; version, commit and date at the foot of every page."""
    config.html_baseurl = config.ogp_site_url = site_address(ROOT)
    config.notfound_urls_prefix = urlsplit(site_address(ROOT)).path
    # `make links` passes over what is the book's own: it is there once it has been published.
    config.linkcheck_ignore = [re.escape(own) for own in (repository(ROOT), site_address(ROOT))]
    config.html_theme_options["extra_footer"] = f"<p>{build_line(ROOT)}</p>" + config.html_theme_options["extra_footer"]


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out the scripts of sphinx-thebe."""
    scripts = context.get("script_files", [])
    context["script_files"] = [
        s for s in scripts if "thebe" not in str(getattr(s, "filename", s)) + str(getattr(s, "attributes", ""))
    ]


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
    app.connect("config-inited", say_build)
    app.connect("builder-inited", check_run)
    app.connect("source-read", fill_in)
    app.connect("warn-missing-reference", excuse_not_run)
    app.connect("html-page-context", add_head, priority=400)  # before sphinxext.opengraph
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", lead_to_notebooks, priority=900)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
