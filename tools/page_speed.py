"""How fast the pages of the site are on a slow phone: `python -m tools.page_speed [PAGE ...] [--root DIR]`.

With `--explorables`, how long the explorables of the pages take to answer a move, on this machine as it is: each slider
is dragged through its range, every list through its entries, and what can be moved is moved by keys.

Each page is loaded with an empty cache from a server that compresses text, on Chromium's "Slow 4G" (1.44 Mbit/s, 563 ms
before each answer) with a processor four times slower than this one. Printed are the first paint, the largest one,
how far the page jumped while it loaded, the bytes that came, and the files for which the first paint waited. Times are
those of this machine while nothing else runs: a measurement to look at, not a test.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.book import site_dir
from tools.browser import chromium
from tools.chapters import pages
from tools.project import ROOT
from tools.server import GzipHandler, serving

PHONE = {"width": 390, "height": 844}
# What Chromium's developer tools set under that name, in bytes a second and milliseconds.
SLOW_4G = {"downloadThroughput": 180_000, "uploadThroughput": 84_375, "latency": 562.5}
SLOWER = 4  # times
LIMIT = 2.5  # seconds until the first paint
WATCH = """
  window.seen = {largest: 0, jumped: 0};
  new PerformanceObserver((list) => list.getEntries().forEach((e) => { seen.largest = e.startTime }))
    .observe({type: "largest-contentful-paint", buffered: true});
  new PerformanceObserver((list) => list.getEntries().forEach((e) => { seen.jumped += e.value }))
    .observe({type: "layout-shift", buffered: true});
"""
SHOWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
READ = """() => ({
  first: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN,
  ...window.seen,
  blocking: performance.getEntriesByType("resource").filter((e) => e.renderBlockingStatus === "blocking")
    .map((e) => new URL(e.name).pathname.split("/").pop()),
})"""


@dataclass(frozen=True)
class Speed:
    """How one page loaded: times in seconds, bytes as they came over the wire."""

    page: str
    first: float
    largest: float
    jumped: float
    size: int
    blocking: list[str]

    def __str__(self) -> str:
        """One line of the table."""
        times = f"{self.first:6.2f} s {self.largest:7.2f} s {self.jumped:7.3f} {self.size / 1e6:6.2f} MB"
        return f"{self.page:34} {times}  {len(self.blocking)}: {' '.join(self.blocking)}"


@contextmanager
def slow_phone(browser: Any) -> Iterator[tuple[Any, list[int]]]:
    """A page of a browser on a slow phone, and a list that the bytes of each answer are added to."""
    context = browser.new_context(viewport=PHONE, device_scale_factor=3, is_mobile=True, has_touch=True)
    page, sizes = context.new_page(), []
    devtools = context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.send("Network.emulateNetworkConditions", {"offline": False, **SLOW_4G})
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    devtools.on("Network.loadingFinished", lambda event: sizes.append(int(event["encodedDataLength"])))
    page.add_init_script(WATCH)
    yield page, sizes
    context.close()


def measured(browser: Any, address: str, path: str) -> Speed:
    """How a page loads."""
    with slow_phone(browser) as (page, sizes):
        page.goto(address + path, wait_until="load", timeout=120_000)
        page.wait_for_timeout(1000)
        seen = page.evaluate(READ)
    times = (seen["first"] / 1000, seen["largest"] / 1000, seen["jumped"])
    return Speed(path, *times, sum(sizes), seen["blocking"])


@dataclass(frozen=True)
class Answers:
    """How long an explorable took for each of its moves, in milliseconds."""

    page: str
    kind: str
    took: list[float]

    def __str__(self) -> str:
        """One line of the table."""
        middle, late = statistics.median(self.took), statistics.quantiles(self.took, n=20)[-1]
        return f"{self.page:24} {self.kind:10} {middle:6.1f} ms {late:8.1f} ms {len(self.took):6}"


def answers(browser: Any, address: str, path: str) -> list[Answers]:
    """How the explorables of a page answer."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address + path, wait_until="load")
    measured = []
    for home in page.locator(".explorable-home").all():
        home.scroll_into_view_if_needed()
        home.locator(".explorable-words:not(:empty)").wait_for(state="attached")
        took: list[float] = []

        def moved(home: Any = home, took: list[float] = took) -> None:
            page.evaluate(SHOWN)
            took.append(home.locator(".explorable").evaluate("(el) => el.took"))

        for slider in home.locator("input[type=range]:visible").all():
            low, high, step = (float(slider.get_attribute(name) or 0) for name in ("min", "max", "step"))
            for part in range(9):
                slider.fill(f"{low + round((high - low) * part / 8 / step) * step:g}")
                moved()
        for choice in home.locator("select:visible").all():
            for option in choice.locator("option").all_inner_texts():
                choice.select_option(option)
                moved()
        for movable in home.locator(".explorable-movable:visible").all():
            for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp") * 2:
                movable.press(key)
                moved()
        measured.append(Answers(path, home.get_attribute("data-explorable"), took[1:]))  # the first one compiles
    context.close()
    return measured


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 where a page's first paint comes too late.

    Args:
        arguments: the command line without the program's name; None takes that of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.page_speed", description="Measure the pages on a slow phone."
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as book/ch03_cam.html; all without one")
    parser.add_argument("--explorables", action="store_true", help="measure how the explorables answer instead")
    parser.add_argument("--root", metavar="DIR", type=Path, default=ROOT, help="the book's root folder")
    options = parser.parse_args(arguments)
    paths = options.pages or [f"{page}.html" for page in pages(options.root)]
    if options.explorables:
        print(f"{'page':24} {'explorable':10} {'median':>9} {'95 %':>11} {'moves':>6}")
        with serving(site_dir(options.root), GzipHandler) as address, chromium() as browser:
            for path in paths:
                for line in answers(browser, address, path):
                    print(line, flush=True)
        return 0
    print(f"{'page':34} {'first':>8} {'largest':>9} {'jumped':>7} {'bytes':>9}  waited for")
    slow = 0
    with serving(site_dir(options.root), GzipHandler) as address, chromium() as browser:
        for path in paths:
            speed = measured(browser, address, path)
            slow += not speed.first < LIMIT
            print(speed, flush=True)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
