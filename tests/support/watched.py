"""A page of the built site in a browser, watched for everything that goes wrong on it."""

from __future__ import annotations

from typing import Any

from tools.chapters import chapters, pages
from tools.project import ROOT

ALLOWED_EXTERNAL = ()  # beginnings of the addresses outside the site that a page may load
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
PAGES = [*(f"{page}.html" for page in pages(ROOT)), "search.html", "genindex.html"]
CHAPTERS = [chapter.name for chapter in chapters(ROOT)]

# Shorter than to wait for half a second without a request, which is what "networkidle" means; a tick for late errors.
SETTLED = """async () => {
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  await new Promise((resolve) => setTimeout(resolve, 100));
}"""
NO_ALT = "[...document.images].filter((image) => !image.alt.trim()).map((image) => image.src)"


class Watched:
    """A page of the browser that remembers everything that goes wrong on it."""

    def __init__(self, browser: Any, served: str, viewport: dict[str, int], scheme: str = "light") -> None:
        self.served, self.troubles, self.external, self.requested = served, [], [], []
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: m.type == "error" and self.troubles.append(f"console: {m.text}"))
        self.page.on("pageerror", lambda error: self.troubles.append(f"page error: {error}"))
        self.page.on("requestfailed", lambda request: self.troubles.append(f"failed: {request.url}"))
        self.page.on("response", lambda r: r.status >= 400 and self.troubles.append(f"{r.status}: {r.url}"))
        self.page.on("request", self.see)

    def see(self, request: Any) -> None:
        """Note a request, and apart those that leave the site."""
        self.requested.append(request.url)
        if not request.url.startswith((self.served, "data:", "blob:", *ALLOWED_EXTERNAL)):
            self.external.append(request.url)

    def open(self, path: str) -> Any:
        """Go to a page of the site and wait until its files are there, its formulas set and its fonts loaded."""
        self.page.goto(self.served + path, wait_until="load")
        self.page.evaluate(SETTLED)
        return self.page

    def resize(self, viewport: dict[str, int]) -> None:
        """Show the page that is open in a window of another size."""
        self.page.set_viewport_size(viewport)
        self.page.evaluate(SETTLED)

    def problems(self) -> list[str]:
        """What is wrong with the page that is open."""
        width, wide = self.page.viewport_size["width"], self.page.evaluate("document.documentElement.scrollWidth")
        problems = [*self.troubles, *(f"external: {url}" for url in self.external)]
        problems += [f"{wide} px wide in a window of {width} px"] if wide > width else []
        problems += [f"no alt text: {src}" for src in self.page.evaluate(NO_ALT)]
        problems += [] if self.page.title().strip() else ["no title"]
        return problems + ([] if self.page.evaluate("document.documentElement.lang") == "en" else ["no language"])
