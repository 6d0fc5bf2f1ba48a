"""What Sphinx has numbered and named, for the notebooks that readers open: `labels.json` in the folder of the run.

Those notebooks (`tools.notebooks`) have no Sphinx: where a page says {numref}`fig-box` they need "Fig. 3.4" and the
address of its place.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def labels(app: Sphinx) -> dict[str, dict[str, dict[str, str]]]:
    """Labels, works, words of the glossary and functions: each with its place on the site, and its number or title."""
    env = app.env

    def place(document: str, anchor: str, text: str) -> dict[str, str]:
        return {"place": f"{document}.html" + (f"#{anchor}" if anchor else ""), "text": str(text)}

    standard = env.get_domain("std")
    named = {name: place(*entry) for name, entry in standard.labels.items()}
    for name, (document, anchor, _) in standard.labels.items():
        numbers = env.toc_fignumbers.get(document, {}).get("figure", {}).get(anchor)
        if numbers:
            named[name]["text"] = app.config.numfig_format["figure"] % ".".join(map(str, numbers))
    for name, (document, _) in env.get_domain("math").equations.items():
        anchor = f"equation-{name}"
        numbers = env.toc_fignumbers.get(document, {}).get("displaymath", {}).get(anchor, ())
        named[name] = place(document, anchor, f"({'.'.join(map(str, numbers))})")
    terms = {name: entry for (kind, name), entry in standard.objects.items() if kind == "term"}
    return {
        "labels": named,
        "works": {
            entry.key: place(entry.bibliography_key.docname, entry.citation_id, "")
            for entry in env.get_domain("cite").citations
        },
        "terms": {name: place(*entry, name) for name, entry in terms.items()},
        "functions": {
            name: place(entry.docname, entry.node_id, name) for name, entry in env.get_domain("py").objects.items()
        },
    }


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the file, once the site stands."""
    if exception is None and app.builder.name == "html":
        text = json.dumps(labels(app), ensure_ascii=False, indent=1, sort_keys=True)
        (Path(os.environ["HELPERS_RUN"]) / "labels.json").write_text(text, encoding="utf8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
