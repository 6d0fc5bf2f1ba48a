"""What Sphinx numbers and names, written to `labels.json` in the folder of the run for those who have no Sphinx.

The edition of the notebooks (`tools/notebooks.py`) is read without the site's builder: where a page says
{numref}`fig-box`, it needs "Fig. 3.4" and the place on the site. The file has one table a kind of role, each from a
name to the words that the site shows and the place, as an address below the site's:

    documents   labels   sections   works   terms   functions

`works` has words for every way in which a work can be cited; `sections` is by page, from a heading's anchor as links
write it to the place, since the site's own anchors differ.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

NAME = "labels.json"
CITED_AS = ("p", "t", "year", "author")


def place(document: str, anchor: str) -> str:
    """A place on the site."""
    return f"{document}.html#{anchor}" if anchor else f"{document}.html"


def named(words: str, document: str, anchor: str = "") -> dict[str, str]:
    """An entry: what the site shows, and where it leads."""
    return {"words": words, "place": place(document, anchor)}


def labels(env: BuildEnvironment) -> dict[str, dict[str, str]]:
    """Sections by their titles, figures and equations by their numbers."""
    standard, equations = env.get_domain("std"), env.get_domain("math").equations
    entries = {name: named(str(title), *where) for name, (*where, title) in standard.labels.items()}
    for name, (document, anchor) in standard.anonlabels.items():
        number = env.toc_fignumbers.get(document, {}).get("figure", {}).get(anchor)
        if number:
            entries[name] = named(env.config.numfig_format["figure"] % dotted(number), document, anchor)
        else:
            entries.setdefault(name, named(name, document, anchor))
    for name, (document, number) in equations.items():
        anchor = f"equation-{name}"
        numbers = env.toc_fignumbers.get(document, {}).get("displaymath", {}).get(anchor)
        entries[name] = named(f"({dotted(numbers) if numbers else number})", document, anchor)
    return entries


def dotted(numbers: tuple[int, ...]) -> str:
    """3.4 for (3, 4)."""
    return ".".join(map(str, numbers))


def sections(env: BuildEnvironment) -> dict[str, dict[str, str]]:
    """The headings of each page: from the anchor of a link to the place."""
    slugs = {name: data.get("myst_slugs", {}) for name, data in env.metadata.items()}
    return {
        name: {slug: place(name, entry[1]) for slug, entry in headings.items()}
        for name, headings in slugs.items()
        if headings
    }


def works(app: Sphinx) -> dict[str, dict[str, str]]:
    """The words of each work, by the role that cites it, and its place in the references."""
    domain = app.env.get_domain("cite")
    found = {}
    for entry in domain.citations:
        document = entry.bibliography_key.docname
        found[entry.key] = {role: cited(app, role, entry.key, document) for role in CITED_AS}
        found[entry.key]["place"] = place(document, entry.citation_id)
    return found


def cited(app: Sphinx, role: str, key: str, document: str) -> str:
    """A citation as it stands on the site, without the brackets around all of it."""
    node = pending_xref("", refdomain="cite", reftype=role, reftarget=key, refdoc=document)
    shown = app.env.get_domain("cite").resolve_xref(
        app.env, document, app.builder, role, key, node, nodes.inline(key, key)
    )
    words = shown.astext().replace("\u00a0", " ")
    return words[1:-1] if role == "p" else words


def tables(app: Sphinx) -> dict[str, dict[str, Any]]:
    """Everything that the file holds."""
    env, objects = app.env, app.env.get_domain("std").objects
    return {
        "documents": {name: named(title.astext(), name) for name, title in env.titles.items()},
        "labels": labels(env),
        "sections": sections(env),
        "works": works(app),
        "terms": {name: named(name, *where) for (kind, name), where in objects.items() if kind == "term"},
        "functions": {
            name: named(name, entry.docname, entry.node_id) for name, entry in env.get_domain("py").objects.items()
        },
    }


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the file once the site stands."""
    if exception is None and app.builder.name == "html":
        text = json.dumps(tables(app), ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        target = Path(os.environ["HELPERS_RUN"], NAME)
        part = target.with_suffix(".part")
        part.write_text(text, encoding="utf8")
        part.replace(target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
