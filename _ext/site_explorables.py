"""Explorables on the site: their arrays and their code become scripts that a page loads when it needs them.

A cell that shows an explorable leaves HTML with its arrays (`helpers.widgets`). Here each array is written to
`_static/explorables` under a name made of its contents, once for all pages, and the page keeps the names. Scripts, not
data files: a page opened from a folder may load those.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HOME = re.compile(
    r'(?P<start><div class="explorable-home" data-explorable="(?P<name>[\w-]+)"><script type="application/json">)'
    r"(?P<given>.*?)(?=</script>)",
    re.DOTALL,
)
WIDGET = "application/vnd.jupyter.widget-view+json"
HOST = "explorables.js"


def without_kernel(outputs: list[dict[str, Any]]) -> None:
    """Leave a widget's view out where there is HTML for pages that have no kernel."""
    for output in outputs:
        data = output.get("data", {})
        if WIDGET in data and "explorable-home" in "".join(data.get("text/html", "")):
            del data[WIDGET]


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write the scripts, and let the pages load them."""
    if exception or app.builder.name != "html":
        return
    site = Path(app.outdir)
    names: set[str] = set()
    for page in sorted((site / "book").rglob("*.html")):
        html = page.read_text(encoding="utf8")
        if HOME.search(html):
            names |= {match["name"] for match in HOME.finditer(html)}
            depth = "../" * len(page.relative_to(site).parts[:-1])
            html = HOME.sub(lambda match: f"{match['start']}{with_files(match['given'], site)}", html)
            host = f'<link rel="stylesheet" href="{depth}_static/explorables/explorables.css">'
            host += f'<script defer src="{depth}_static/{HOST}"></script>'
            page.write_text(html.replace("</head>", f"{host}</head>", 1), encoding="utf8")
    if names:
        from helpers.widgets._explorable import source, style  # only where there are any

        folder = site / "_static" / "explorables"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "explorables.css").write_text(style(), encoding="utf8")
        for name in names:
            text = f'window.explorables.modules["{name}"] = (() => {{\n{source(name)}\nreturn {{ render }};\n}})();\n'
            (folder / f"{name}.js").write_text(text, encoding="utf8")


def with_files(given: str, site: Path) -> str:
    """What an explorable was given, with its arrays in files of the site."""
    values = json.loads(given)
    for entry in values["arrays"].values():
        data = entry.pop("data")
        entry["file"] = f"array-{hashlib.sha256(data.encode()).hexdigest()[:12]}"
        target = site / "_static" / "explorables" / f"{entry['file']}.js"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(f'window.explorables.arrays["{entry["file"]}"] = "{data}";\n', encoding="utf8")
    return json.dumps(values).replace("<", "\\u003c")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("build-finished", finish, priority=400)  # before the pages are finished
    return {"parallel_read_safe": True, "parallel_write_safe": True}
