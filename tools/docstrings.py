"""Docstrings as reStructuredText.

They are written to be read in a notebook or an editor: single backticks for code, |M|, a * b and x_ for themselves.
"""

from __future__ import annotations

import re

CODE = re.compile(r"(``.+?``|:[\w:]+:`[^`]+`|`[^`]+`)", re.DOTALL)
EMPHASIS = re.compile(r"(?<![\w*])(?:\*\w[^*\n]*(?<=\w)\*|\*\*\w[^*\n]*(?<=\w)\*\*)(?![\w*])")
RETURNS = {"Returns:": ":returns:", "Yields:": ":returns:"}


def to_rst(text: str, names: dict[str, str]) -> str:
    """Prose of a docstring as reStructuredText.

    Args:
        text: the prose, without literal blocks.
        names: what a name in backticks links to.
    """
    parts = CODE.split(text)
    for index, part in enumerate(parts):
        if index % 2 == 0:
            parts[index] = escaped(part)
        elif part.startswith("`") and not part.startswith("``"):
            before = "\\ " if re.search(r"[\w)]$", parts[index - 1]) else ""
            after = "\\ " if re.match(r"\w", parts[index + 1]) else ""
            parts[index] = before + linked(part.strip("`"), names) + after
    return "".join(parts)


def linked(code: str, names: dict[str, str]) -> str:
    """Code in a docstring: a link where it is a public name, otherwise as it is."""
    target = names.get(code.removesuffix("()"))
    return f":py:obj:`{code} <{target}>`" if target else f"``{code}``"


def escaped(text: str) -> str:
    """Text whose bars, stars and trailing underscores mean themselves; *emphasis* is kept."""
    text = re.sub(r"\|", r"\\|", text)
    text = re.sub(r"(?<=[^\W_])_(?!\w)", r"\\_", text)
    kept = EMPHASIS.findall(text)
    between = [part.replace("*", r"\*") for part in EMPHASIS.split(text)]
    return "".join(a + b for a, b in zip(between, [*kept, ""], strict=True))


def rewritten(lines: list[str], names: dict[str, str]) -> list[str]:
    """A docstring as reStructuredText: its prose block by block, literal blocks and doctests left alone."""
    done: list[str] = []
    prose: list[str] = []
    literal: int | None = None  # the indent of the paragraph before a literal block

    def flush() -> None:
        done.extend(to_rst("\n".join(prose), names).split("\n") if prose else [])
        prose.clear()

    for line in lines:
        indent = len(line) - len(line.lstrip())
        if literal is not None and (not line.strip() or indent > literal):
            done.append(line)
            continue
        literal = None
        if line.lstrip().startswith(">>>"):
            flush()
            done.append(line)
            literal = indent - 1
            continue
        prose.append(line)
        if line.endswith("::"):
            flush()
            literal = indent
        elif not line.strip():
            flush()
    flush()
    return done


def returns_as_field(lines: list[str]) -> list[str]:
    """The section of what is returned as a field: napoleon would read a type into the words before the first colon."""
    done, inside = [], False
    for line in lines:
        if line in RETURNS:
            done += ["", RETURNS[line]]
            inside = True
            continue
        inside = inside and (not line or line.startswith(" "))
        if inside and done[-1] in RETURNS.values():
            done[-1] += f" {line.strip()}"
        else:
            done.append(line)
    return done
