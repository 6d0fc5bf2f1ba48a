"""What the front page shows that is generated: the picture that can be touched, the table of pages, the build."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import date, datetime, timezone
from html import escape
from pathlib import Path

from tools.chapters import Chapter, chapters
from tools.project import project, repository

MINUTES = re.compile(r"\*\*Time\.\*\*\s+(\d+) minutes")
STILL = (
    "The same square on stripes at three places, seen by two networks. Above, the first network says square at each, "
    "and the red of its evidence moves along with the square. Below, the second says disk at each; its red lies "
    "partly on the square's upper edge and partly on the stripes."
)


def cover() -> str:
    """The picture of the front page: a still one, in whose place the two networks come to life."""
    from tools.cover import explorable  # imports torch: for the front page alone

    still = f'<img src="../_static/cover.png" width="480" alt="{escape(STILL)}">'
    return f'<div class="cover">{explorable().html(still)}</div>'


def minutes(chapter: Chapter) -> int | None:
    """How long a page says that it takes to read."""
    match = next(filter(None, (MINUTES.search(cell.source) for cell in chapter.cells if cell.is_markdown)), None)
    return int(match[1]) if match else None


def pages_table(root: Path) -> str:
    """A row for each page: question, methods, minutes, and the notebook in Colab."""
    rows = []
    for chapter in chapters(root):
        about = chapter.raw["metadata"].get("about", {})
        name = f"Chapter {int(chapter.name[2:4])}"
        rows.append(
            f'<tr><th scope="row"><a href="{chapter.name}.html">{name}</a></th>'
            f"<td>{escape(about.get('question', chapter.title))}</td>"
            f'<td class="methods">{escape(about.get("methods", ""))}</td><td>{minutes(chapter) or ""}</td>'
            f'<td><a href="{colab(root, chapter)}" aria-label="Colab: {name}">Colab</a></td></tr>'
        )
    head = '<th scope="col">page</th><th scope="col">question</th><th scope="col" class="methods">methods</th>'
    head += '<th scope="col">minutes</th><th scope="col">run it</th>'
    return (
        f'<table class="pages-table"><thead><tr>{head}</tr></thead>\n<tbody>\n' + "\n".join(rows) + "</tbody></table>"
    )


def colab(root: Path, chapter: Chapter) -> str:
    """Where Colab opens the edition of a page that readers get (`tools.notebooks`)."""
    slug = repository(root).removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{slug}/blob/notebooks/{chapter.name}.ipynb"


def build_line(root: Path) -> str:
    """Version, commit and date of this build."""
    return f"Version {project(root)['version']}, {commit(root)}, built on {today().isoformat()}."


def commit(root: Path) -> str:
    """The commit that is checked out, in words."""
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    try:
        return f"commit {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):
        return "commit unknown"


def today() -> date:
    """The day of the build; SOURCE_DATE_EPOCH sets it where a build must be repeated."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    return moment.date()
