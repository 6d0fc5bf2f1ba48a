"""Links that the pages do not write out, so that their sentences read well everywhere.

"chapter 3", "exercise 3.2", "Zhou and others (2016)", a word of the glossary at its first use on a page, and
`cam.grad_cam` are plain text in the notebooks. On the site, and in the edition of the notebooks that readers open, they
are links; this file finds them in the text. Code, formulas, headings, HTML and what is a link already are left alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.cells import anchor
from tools.chapters import chapters

# What is not prose. The longest come first: a fence holds anything, code holds dollars, a role holds code.
PROTECTED = re.compile(
    r"""
    ^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)[`~]*[ ]*$      # fenced code
    | ^:{3,}.*?$                                        # where a box begins and ends; in it is prose
    | ^\#{1,6}[ ].*?$                                   # a heading
    | ^\([\w-]+\)=\s*$ | ^:[\w-]+:.*?$ | ^\s*<.*?$      # a label, an option, a line of HTML
    | \$\$.*?\$\$(?:[ ]*\([\w-]+\))? | (?<![\\$])\$[^$\n]+?\$ # formulas
    | \{[\w:]+\}`[^`]*`                                 # roles
    | !?\[[^\]]*\]\([^)]*\) | <[^<>\n]+> | https?://\S+ # links, HTML, addresses
    | ``.+?`` | `[^`\n]+`                               # code
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
CODE = re.compile(r"`(?P<name>(?:\w+\.)*\w+)`")
CHAPTER = re.compile(
    r"\b(?P<word>[Cc]hapters?)(?P<space>\s+)(?P<numbers>\d+(?:(?:,\s*|,?\s+(?:and|or|to)\s+)\d+)*)\b(?!\.\d)"
)
EXERCISE = re.compile(r"\b[Ee]xercise\s+(?P<number>\d+\.\d+)\b")
WORK = re.compile(
    r"\b(?P<author>[A-Z][\w-]+)(?P<others>(?:,? [A-Z][\w-]+| and| others| et al\.|,)*) \((?P<year>\d{4})(?=[,)])"
)
ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308"}  # as TeX writes them, and Unicode
ACCENT = re.compile(r"\{\\(?P<accent>['`^\"])(?P<letter>\w)\}")
ENTRY = re.compile(r"^@\w+\{(?P<key>[^,\s]+),(?P<fields>.*?)^\}", re.MULTILINE | re.DOTALL)
GLOSSARY = re.compile(r"```\{glossary\}\n(?P<body>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Targets:
    """What can be linked to.

    Chapters and exercises by number, words of the glossary, public functions by dotted name; for the surname of a first
    author and a year the works' keys, each with the surnames of the other authors.
    """

    chapters: dict[int, str]
    terms: Collection[str]
    functions: Collection[str]
    exercises: Mapping[str, str] = field(default_factory=dict)
    works: Mapping[tuple[str, str], Mapping[str, list[str]]] = field(default_factory=dict)
    _forms: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Note the forms in which each word of the glossary occurs."""
        for term in self.terms:
            for form in forms(term):
                self._forms.setdefault(form, term)

    @property
    def term_pattern(self) -> re.Pattern[str]:
        """Any form of any word of the glossary, the longest first."""
        words = sorted(self._forms, key=len, reverse=True)
        return re.compile(
            rf"(?<![\w-])(?:{'|'.join(map(_spaced, words))})(?![\w-])" if words else r"(?!)", re.IGNORECASE
        )

    def term(self, form: str) -> str:
        """The word of the glossary that has this form."""
        return self._forms[" ".join(form.lower().split())]

    def work(self, named: re.Match[str]) -> str | None:
        """The key of the work that a match of `WORK` names, if it is only one."""
        others = re.findall(r"[A-Z][\w-]+", named["others"])
        some = re.search(r"others|et al", named["others"])
        candidates = self.works.get((named["author"], named["year"]), {})
        keys = [key for key, rest in candidates.items() if (set(others) <= set(rest) if some else others == rest)]
        return keys[0] if len(keys) == 1 else None

    def function(self, code: str) -> str | None:
        """The public function that a piece of code names, with or without `helpers.` in front."""
        names = (code, f"helpers.{code}")
        return next((name for name in names if name in self.functions), None) if "." in code else None


def targets(root: Path, functions: Collection[str] = ()) -> Targets:
    """What the book at `root` has to link to; the public functions are the caller's to find."""
    numbers = {int(chapter.name[2:4]): f"/book/{chapter.path.name}" for chapter in reversed(chapters(root))}
    glossary = root / "book" / "appendix" / "glossary.md"
    terms = glossary_terms(glossary.read_text(encoding="utf8")) if glossary.exists() else ()
    exercises = {
        exercise.number: f"/book/{chapter.path.name}#{anchor(exercise.heading)}"
        for chapter in chapters(root)
        for exercise in chapter.exercises
    }
    works = root / "book" / "references.bib"
    return Targets(
        numbers, terms, functions, exercises, bibliography(works.read_text(encoding="utf8")) if works.exists() else {}
    )


def bibliography(text: str) -> dict[tuple[str, str], dict[str, list[str]]]:
    """The works of a BibTeX file, as `Targets` holds them."""
    text = ACCENT.sub(lambda match: unicodedata.normalize("NFC", match["letter"] + ACCENTS[match["accent"]]), text)
    works: dict[tuple[str, str], dict[str, list[str]]] = {}
    for entry in ENTRY.finditer(text):
        authors = re.search(r"author\s*=\s*\{(?P<names>[^{}]+)\}", entry["fields"])
        year = re.search(r"year\s*=\s*\{?(?P<year>\d{4}|n\.d\.)", entry["fields"])
        if authors and year:
            first, *others = (name.split(",")[0].strip() for name in re.split(r"\s+and\s+", authors["names"]))
            works.setdefault((first, year["year"]), {})[entry["key"]] = others
    return works


def glossary_terms(text: str) -> list[str]:
    """The words that a page's glossary explains."""
    body = GLOSSARY.search(text)
    lines = body["body"].splitlines() if body else []
    return [line.strip() for line in lines if line.strip() and not line[0].isspace()]


def forms(term: str) -> Iterator[str]:
    """A word as it stands in the glossary, and its plural, in lower case; what stands in brackets is no part of it."""
    plain = re.sub(r"\s*\(.*?\)", "", term).lower()
    yield plain
    ending = re.search(r"(?:[^aeiou]y|s|x|ch|sh)$", plain)
    yield f"{plain}s" if not ending else f"{plain[:-1]}ies" if plain.endswith("y") else f"{plain}es"


@dataclass
class Linker:
    """Writes the links of one page; a word of the glossary becomes one only once.

    `page` is the page's own name: it does not link to itself. The functions write the links.
    """

    targets: Targets
    page: str
    to_chapter: Callable[[str, str], str]
    to_term: Callable[[str, str], str]
    to_function: Callable[[str, str], str]
    to_work: Callable[[str, str], str] = lambda year, key: year
    used: set[str] = field(default_factory=set)

    def __call__(self, text: str) -> str:
        """A markdown text with its links."""
        return _between(PROTECTED, text, self._code, self._prose)

    def _code(self, match: re.Match[str]) -> str:
        code = CODE.fullmatch(match[0])
        name = self.targets.function(code["name"]) if code else None
        return self.to_function(code["name"], name) if name else match[0]

    def _prose(self, text: str) -> str:
        return _between(CHAPTER, text, self._chapters, self._numbered)

    def _numbered(self, text: str) -> str:
        return _between(EXERCISE, text, self._exercise, self._works)

    def _works(self, text: str) -> str:
        return _between(WORK, text, self._work, self._terms)

    def _work(self, match: re.Match[str]) -> str:
        key = self.targets.work(match)
        year = self.to_work(match["year"], key) if key else match["year"]
        return f"{match['author']}{match['others']} ({year}"

    def _exercise(self, match: re.Match[str]) -> str:
        target = self.targets.exercises.get(match["number"])
        return self.to_chapter(match[0], target) if target else match[0]

    def _chapters(self, match: re.Match[str]) -> str:
        single = re.fullmatch(r"\d+", match["numbers"])
        if single:
            return self._chapter(match[0], int(match["numbers"]))
        numbers = re.sub(r"\d+", lambda number: self._chapter(number[0], int(number[0])), match["numbers"])
        return f"{match['word']}{match['space']}{numbers}"

    def _chapter(self, text: str, number: int) -> str:
        target = self.targets.chapters.get(number)
        if target is None or Path(target).stem == self.page:
            return text
        return self.to_chapter(text, target)

    def _terms(self, text: str) -> str:
        def first(match: re.Match[str]) -> str:
            term = self.targets.term(match[0])
            abbreviation = term.isupper() and not match[0].startswith(term)  # GAP is no gap
            if abbreviation or term in self.used:
                return match[0]
            self.used.add(term)
            return self.to_term(match[0], term)

        return self.targets.term_pattern.sub(first, text)


def site_linker(targets: Targets, page: str) -> Linker:
    """The links of a page of the site, in MyST."""
    return Linker(
        targets,
        page,
        to_chapter=lambda text, target: f"[{text}]({target})",
        to_term=lambda text, term: f"{{term}}`{text} <{term}>`",
        to_function=lambda text, name: f"{{py:obj}}`{text} <{name}>`",
        to_work=lambda year, key: f"{{cite:year}}`{key}`",
    )


def _between(
    pattern: re.Pattern[str], text: str, matched: Callable[[re.Match[str]], str], rest: Callable[[str], str]
) -> str:
    """The text with every match of the pattern changed by one function, and what lies between by another, in order."""
    parts, end = [], 0
    for match in pattern.finditer(text):
        parts += [rest(text[end : match.start()]), matched(match)]
        end = match.end()
    return "".join([*parts, rest(text[end:])])


def _spaced(words: str) -> str:
    """A pattern of words between which a line may break."""
    return r"\s+".join(map(re.escape, words.split()))
