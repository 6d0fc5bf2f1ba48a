"""What a student gets back: one page, without hidden code or inputs, that needs no other file and no other host."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from tools.course import gradebook, marks
from tools.course.folder import Folder, write_whole
from tools.course.master import Master

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 1.8rem 0 .4rem; }
ul { list-style: none; padding: 0; margin: 0; } li { padding: .15rem 0 .15rem 1.6rem; position: relative; }
li::before { position: absolute; left: 0; content: "\\2717"; color: #b3261e; }
li.right::before { content: "\\2713"; color: #1b6e3c; }
li.todo::before { content: "\\2026"; color: inherit; }
blockquote { margin: .5rem 0; padding-left: .8rem; border-left: 3px solid #8888; }
blockquote { white-space: pre-wrap; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { li::before { color: #f2b8b5; } li.right::before { color: #8fd6a5; } }
"""


def page(folder: Folder, master: Master, student: str, result: dict[str, Any], marked: dict[Any, Any]) -> str:
    """A student's page as HTML."""
    parts = [
        f"<h1>{escape(master.title)}</h1>",
        f"<p>{escape(student)}</p>",
        total(folder, master, student, result, marked),
    ]
    if "failed" in result:
        parts.append("<p>Your notebook could not be graded. Your teacher knows, and will tell you more.</p>")
    parts += [f"<p>{escape(note)}</p>" for note in result["notes"]]
    for number, task in sorted(result["tasks"].items(), key=lambda item: order(item[0])):
        parts.append(f"<h2>{escape(number)}: {task['points']:g} of {task['worth']:g}</h2>")
        same = (
            {part["message"] for part in task["parts"]} if not any(part["right"] for part in task["parts"]) else set()
        )
        lines = task["parts"][:1] if len(same) == 1 else task["parts"]  # the same of all parts is said once
        parts.append("<ul>" + "".join(map(part_line, lines)) + "</ul>")
    for part in master.written:
        points, comment = marked.get((student, part.number), (None, ""))
        said = "not marked yet" if points is None else f"{points:g} of {part.worth:g}"
        parts.append(f"<h2>{escape(part.number)}, written: {said}</h2>")
        parts.append(f"<p>{escape(comment)}</p>" if comment else "")
        answer = result["written"].get(part.number, "")
        parts.append(f"<blockquote>{escape(answer) or 'no answer'}</blockquote>")
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(master.name)}</title>'
    )
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    body = "\n".join(filter(None, parts))
    top = f'<!doctype html>\n<html lang="en"><head>{head}{policy}<style>{STYLE}</style></head>'
    return f"{top}\n<body>\n{body}\n</body></html>\n"


def order(number: str) -> list[int]:
    """A task's number to sort by."""
    return [int(part) for part in number.lstrip("abcdefghijklmnopqrstuvwxyz").split(".")]


def part_line(part: dict[str, Any]) -> str:
    """A part of a task as an item of a list."""
    kind = "right" if part["right"] else "todo" if part["message"].startswith("still to do") else "wrong"
    said = "" if part["message"] == "right" else f": {as_code(escape(part['message']))}"
    return f'<li class="{kind}">{escape(part["part"])}{said}</li>'


def as_code(text: str) -> str:
    """HTML whose words in backticks are code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def total(folder: Folder, master: Master, student: str, result: dict[str, Any], marked: dict[Any, Any]) -> str:
    """The points so far, and what lateness took."""
    parts = [marked.get((student, part.number), (None, ""))[0] for part in master.written]
    written = sum(points for points in parts if points is not None)
    late = folder.lateness(student, master)
    factor = folder.rules.late.factor(late)
    said = f"{round((result['points'] + written) * factor, 2):g} of {master.worth:g} points"
    said += ", the written part not marked yet" if None in parts else ""
    said += f"; {gradebook.late_words(late)}, so {factor:.0%} of them count" if late else ""
    return f"<p><strong>{said}.</strong></p>"


def write(folder: Folder, master: Master, results: dict[str, dict[str, Any]]) -> int:
    """Write the pages of an assignment; returns how many."""
    marked = marks.read(folder, master)
    for student, result in results.items():
        target = folder.path / "feedback" / student / f"{master.name}.html"
        write_whole(target, page(folder, master, student, result, marked))
    return len(results)
