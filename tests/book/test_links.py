"""What pages leave unlinked is linked on the site: chapters, words of the glossary, functions; and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.notebooks import markdown, write_notebook

from tools.links import Targets, forms, site_linker, targets

TARGETS = Targets(
    {1: "/book/ch01_one.ipynb", 3: "/book/ch03_cam.ipynb"},
    ["GAP", "class activation map", "feature map", "policy", "box", "Max-C map", "window (of time)"],
    {"helpers.cam.grad_cam", "helpers.explain"},
    {"3.2": "/book/ch03_cam.ipynb#exercise-32-build-a-box"},
    {
        ("Zhou", "2016"): {"zhou": ["Khosla", "Li"], "other": ["Ng"]},
        ("Le", "1998"): {"lecun": ["Bottou", "Ng"], "le": ["Ng"], "alone": []},
    },
)
MAPS = "{term}`feature maps <feature map>`"


def linked(text: str, page: str = "ch02_other") -> str:
    return site_linker(TARGETS, page)(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see chapter 3.", "see [chapter 3](/book/ch03_cam.ipynb)."),
        ("Chapter 3 says", "[Chapter 3](/book/ch03_cam.ipynb) says"),
        ("chapters 1 and 3", "chapters [1](/book/ch01_one.ipynb) and [3](/book/ch03_cam.ipynb)"),
        ("chapters 1, 2 and 3", "chapters [1](/book/ch01_one.ipynb), 2 and [3](/book/ch03_cam.ipynb)"),
        ("Zhou, Khosla and others (2016) say", "Zhou, Khosla and others ({cite:year}`zhou`) say"),
        ("Zhou and Ng (2016)", "Zhou and Ng ({cite:year}`other`)"),
        ("Zhou and others (2016)", "Zhou and others (2016)"),
        ("Le (1998)", "Le ({cite:year}`alone`)"),
        ("Le, Bottou and Ng (1998, page 3)", "Le, Bottou and Ng ({cite:year}`lecun`, page 3)"),
        ("Zhou (2015), Ng and Zhou (2016)", "Zhou (2015), Ng and Zhou (2016)"),
        ("in exercise 3.2", "in [exercise 3.2](/book/ch03_cam.ipynb#exercise-32-build-a-box)"),
        ("exercise 3.9", "exercise 3.9"),
        ("chapter 9", "chapter 9"),
        ("chapter 3.2", "chapter 3.2"),
        ("feature maps", MAPS),
        ("feature\nmaps", "{term}`feature\nmaps <feature map>`"),
        ("Feature maps, feature maps", "{term}`Feature maps <feature map>`, feature maps"),
        ("policies", "{term}`policies <policy>`"),
        ("boxes", "{term}`boxes <box>`"),
        ("a sandbox", "a sandbox"),
        ("windows", "{term}`windows <window (of time)>`"),
        ("a gap, a GAP", "a gap, a {term}`GAP <GAP>`"),
        ("`cam.grad_cam`", "{py:obj}`cam.grad_cam <helpers.cam.grad_cam>`"),
        ("`helpers.explain`", "{py:obj}`helpers.explain <helpers.explain>`"),
        ("`grad_cam`, `cam.gone`", "`grad_cam`, `cam.gone`"),
        ("`cam.grad_cam(net, x)`", "`cam.grad_cam(net, x)`"),
    ],
)
def test_what_can_be_linked_is(text: str, shown: str) -> None:
    assert linked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "# Feature maps in chapter 3",
        "[a feature map of chapter 3](x.md)",
        "![feature map](x.png)",
        "{term}`feature map`",
        "`a feature map`",
        "``a `feature map` ``",
        "```\nfeature map\n```",
        "```python\n# chapter 3\n```",
        "$box$ and $$box$$ (eq-box)",
        "<summary>feature map, chapter 3</summary>",
        "https://example.org/box/chapter 3",
        ":::{note} feature map\n:class: box\n:::",
        "(feature-map)=",
    ],
)
def test_what_is_no_prose_is_left_alone(text: str) -> None:
    assert linked(text) == text


def test_in_a_box_is_prose() -> None:
    assert linked(":::{note} A box\nfeature maps\n:::") == f":::{{note}} A box\n{MAPS}\n:::"


def test_a_page_does_not_link_to_itself() -> None:
    assert linked("chapter 3", "ch03_cam") == "chapter 3"


def test_a_word_is_linked_once_a_page() -> None:
    link = site_linker(TARGETS, "ch02_other")
    assert [link("feature maps"), link("feature maps")] == [MAPS, "feature maps"]


def test_forms_are_a_word_and_its_plural() -> None:
    assert list(forms("policy")) == ["policy", "policies"]
    assert list(forms("bias (of a unit)")) == ["bias", "biases"]


def test_the_targets_are_read_off_the_book(tmp_path: Path) -> None:
    (tmp_path / "book" / "appendix").mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text("root: book/index\n- file: book/ch02_a\n  - file: book/ch02_a_deeper\n")
    for name in ("ch02_a", "ch02_a_deeper"):
        cells = (
            [markdown("# A"), markdown("### Exercise 2.1 (build): a `box`")] if name == "ch02_a" else [markdown("# A")]
        )
        write_notebook(tmp_path / "book" / f"{name}.ipynb", cells)
    text = "```{glossary}\nbox\n    What holds.\n\nGAP\n    An average.\n```\n"
    (tmp_path / "book" / "appendix" / "glossary.md").write_text(text)
    entry = "@article{%s,\n  author = {Ng, Ann and L{\\'i}, Bo},\n  year = {%d}\n}\n"
    (tmp_path / "book" / "references.bib").write_text(entry % ("a", 2001) + entry % ("b", 2002) + entry % ("c", 2002))
    works = {("Ng", "2001"): {"a": ["Lí"]}, ("Ng", "2002"): {"b": ["Lí"], "c": ["Lí"]}}
    exercises = {"2.1": "/book/ch02_a.ipynb#exercise-21-build-a-box"}
    assert targets(tmp_path) == Targets({2: "/book/ch02_a.ipynb"}, ["box", "GAP"], (), exercises, works)
