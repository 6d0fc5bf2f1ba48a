"""axe-core on a page of the site: on a desktop and a phone, light and dark, with all folds open.

The page is loaded once and changed in place. Most of a page is code: of blocks with the same kinds of words one is kept
as it is, the others become plain text, and formulas boxes of their size. Nearly all of axe's time goes into contrast:
of texts that stand in the same elements with the same classes, and so look the same, one is kept when that is asked.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

CONTRAST, LINKS = "color-contrast", "link-in-text-block"
EXTRA = ("label-content-name-mismatch",)  # off by default, since axe counts it as an experiment
UNFOLD = """() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const still = document.createElement("style");  // colours change at once
  still.textContent = "* { transition: none !important; animation: none !important }";
  document.head.append(still);
  const seen = new Set();
  for (const block of document.querySelectorAll("pre, dt.sig")) {
    const within = block.closest("[class*=highlight-], dl")?.className;
    const kinds = [...block.querySelectorAll("*")]
      .map((word) => `${within} ${word.parentElement.className} ${word.className}`);
    if (kinds.every((kind) => seen.has(kind))) block.textContent = block.textContent;
    kinds.forEach((kind) => seen.add(kind));
  }
  for (const formula of document.querySelectorAll("mjx-math")) {
    const { width, height } = formula.getBoundingClientRect();
    formula.replaceChildren();
    formula.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
  }
}"""
# Rows of a table are striped, so that every other one looks different.
ALIKE = """() => {
  const seen = new Set(), texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), alike = [];
  while (texts.nextNode()) {
    const path = [];
    for (let node = texts.currentNode.parentElement; node; node = node.parentElement)
      path.push(node.tagName, node.getAttribute("class"), node.getAttribute("style"), node.rowIndex % 2);
    const key = path.join(" ");
    if (seen.has(key)) alike.push(texts.currentNode);
    else if (texts.currentNode.data.trim()) seen.add(key);
  }
  for (const text of alike) text.data = "";
}"""
SETTLED = "() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 400)))"
RUN = """async ([only, without, extra]) => {
  const runOnly = only.length ? { runOnly: { type: "rule", values: only } } : {};
  const rules = Object.fromEntries([...without.map((id) => [id, { enabled: false }]),
    ...(only.length ? [] : extra.map((id) => [id, { enabled: true }]))]);
  const { violations } = await axe.run(document, { resultTypes: ["violations"], rules, ...runOnly });
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 120)}`));
}"""


@cache
def axe() -> str:
    """axe-core, as its package brings it."""
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf8")


def violations(page: Any, desktop: dict[str, int], phone: dict[str, int]) -> list[str]:
    """What axe finds on the page that is open; the page is not as it was afterwards."""
    found: list[str] = []

    def ask(
        name: str, size: dict[str, int], theme: str, only: tuple[str, ...] = (), without: tuple[str, ...] = ()
    ) -> None:
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme }", theme)
        if page.viewport_size != size:
            page.set_viewport_size(size)
            page.evaluate(SETTLED)
        faults = page.evaluate(RUN, [only, without, EXTRA])
        found.extend(f"{name}, {theme}: {fault}" for fault in faults)

    page.evaluate(axe())
    page.evaluate(UNFOLD)
    page.evaluate(SETTLED)
    ask("desktop", desktop, "light", without=(CONTRAST,))
    ask("desktop", desktop, "dark", only=(LINKS,))
    ask("phone", phone, "light", without=(CONTRAST, LINKS))
    page.evaluate(ALIKE)
    for name, size in (("phone", phone), ("desktop", desktop)):
        for theme in ("light", "dark"):
            ask(name, size, theme, only=(CONTRAST,))
    return found
