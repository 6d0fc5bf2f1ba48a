"""What a page of the site costs its reader: bytes, files to wait for, and pictures that push the text about."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tools.server import travelling

MOST = 1_500_000  # bytes of a page with all its pictures, compressed as they travel
MAY_BLOCK = {"site.css"}  # what may keep a page from being drawn
BLOCKING = """() => performance.getEntriesByType("resource")
  .filter((entry) => entry.renderBlockingStatus === "blocking")
  .map((entry) => new URL(entry.name).pathname.split("/").pop())"""
PICTURES = """() => [...document.images].map((image) => image.src)"""
# A picture says its size before it is there; the first of the text is loaded at once, the others when they are near.
UNTOLD = """() => [...document.querySelectorAll("article img")].flatMap((image, i) => {
  const name = image.src.split("/").pop().slice(-40), found = [];
  if (!image.hasAttribute("width") || !image.hasAttribute("height")) found.push(`no size: ${name}`);
  if ((image.loading === "lazy") === (i === 0)) found.push(`${i === 0 ? "late" : "early"}: ${name}`);
  const shape = image.getAttribute("width") / image.getAttribute("height");
  if (image.complete && image.naturalWidth && Math.abs(shape / (image.naturalWidth / image.naturalHeight) - 1) > 0.02)
    found.push(`another shape: ${name}`);
  return found;
})"""
UNUSED = """() => [
  ...(window.MathJax && !document.querySelector(".math") ? ["MathJax without a formula"] : []),
  ...(document.querySelector("script[type*=widget-state]") ? ["the state of a widget"] : []),
]"""


def costs(page: Any, requested: Iterable[str], site: Path, served: str) -> list[str]:
    """What is too dear about the page that is open; `requested` are the addresses that it has asked for."""
    weight = sum(travelling(file) for file in files({*requested, *page.evaluate(PICTURES)}, site, served))
    found = [f"{weight / 1e6:.2f} MB"] if weight > MOST else []
    found += [f"waits for {name}" for name in page.evaluate(BLOCKING) if name not in MAY_BLOCK]
    return found + page.evaluate(UNTOLD) + page.evaluate(UNUSED)


def files(addresses: Iterable[str], site: Path, served: str) -> set[Path]:
    """The files of the site that stand at these addresses."""
    inside = (address.removeprefix(served) for address in addresses if address.startswith(served))
    paths = {site / unquote(urlsplit(address).path) for address in inside}
    return {path for path in paths if path.is_file()}
