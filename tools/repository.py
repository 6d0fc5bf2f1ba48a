"""Set the repository's address everywhere: `python -m tools.repository https://github.com/OWNER/NAME`.

The setting lies in `pyproject.toml`, under `[project.urls]`. Everything else that names the repository follows it:
the site's buttons, the setup cell of every chapter, the citation, and links in README and pages.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tools.project import ROOT, repository

ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
FILES = ("pyproject.toml", "_config.yml", "CITATION.cff", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PATTERNS = ("book/**/*.md", "book/**/*.ipynb")
# The places that must name this repository, whatever other links a file has.
OWN_LINK = re.compile(
    r"""colab\.research\.google\.com/github/(?P<colab>[\w.-]+/[\w.-]+?)/blob/
    |git\+https://github\.com/(?P<pip>[\w.-]+/[\w.-]+?)(?=[@"'\\\s]|$)
    |^\s*(?:url|repository-code|Repository):?\s*=?\s*"?https://github\.com/(?P<setting>[\w.-]+/[\w.-]+)""",
    re.VERBOSE | re.MULTILINE,
)


def slug(address: str) -> str:
    """OWNER/NAME of an address.

    Raises:
        ValueError: it is not the address of a repository on GitHub, without which there is no Colab button.
    """
    match = ADDRESS.fullmatch(address)
    if not match:
        raise ValueError(f"address is {address!r}, but https://github.com/OWNER/NAME is wanted")
    return match[1]


def files(root: Path) -> list[Path]:
    """The files that may name the repository, as far as they exist."""
    named = [root / name for name in FILES]
    pages = [
        path for pattern in PATTERNS for path in sorted(root.glob(pattern)) if ".ipynb_checkpoints" not in path.parts
    ]
    return [path for path in named if path.exists()] + pages


def strangers(root: Path) -> list[str]:
    """Places that name another repository than the setting does, one line each."""
    own = slug(repository(root))
    return [
        f"{path.relative_to(root).as_posix()} names {match[match.lastgroup]}, the setting is {own}"
        for path in files(root)
        for match in OWN_LINK.finditer(path.read_text(encoding="utf8"))
        if match[match.lastgroup] != own
    ]


def move(root: Path, address: str) -> list[Path]:
    """Replace the present address by a new one in every file that names it.

    Args:
        root: the book's root folder.
        address: https://github.com/OWNER/NAME, with or without .git or a slash at the end.

    Returns:
        The files that were changed.

    Raises:
        ValueError: the address is not of that form.
    """
    new, old = slug(address), slug(repository(root))
    present = re.compile(rf"(github\.com/|/github/){re.escape(old)}(?![\w-]|\.(?!git)\w)")
    changed = []
    for path in files(root):
        before = path.read_bytes().decode("utf8")
        after = present.sub(rf"\g<1>{new}", before)
        if after != before:
            path.write_bytes(after.encode("utf8"))
            changed.append(path)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Move to the address on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.repository", description="Set the repository's address.")
    parser.add_argument("url", metavar="URL", help="https://github.com/OWNER/NAME")
    options = parser.parse_args(arguments)
    try:
        changed = move(ROOT, options.url)
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(f"changed {path.relative_to(ROOT).as_posix()}" for path in changed) or "nothing to change")
    return 0


if __name__ == "__main__":
    sys.exit(main())
