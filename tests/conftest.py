"""What several test files share: the built site, a server for it, a browser, and small books to break."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from support.server import serving
from support.small_book import small_book
from support.watched import DESKTOP, Watched

from tools import book, browser
from tools.project import ROOT
from tools.wheel import build_wheel, install_wheel


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the book's site.

    `tools.check` builds it beside the first tests and says in a file how that ended. Without that it is built here,
    unless the one that is there is fresh; the other workers wait.
    """
    if os.environ.get("HELPERS_SITE") == "building":
        state = book.site_state(ROOT)
        while not state.exists():
            time.sleep(0.2)
        if state.read_text(encoding="utf8") != "built":
            pytest.skip("the site was not built; why stands above the tests")
    else:
        (ROOT / "_build").mkdir(exist_ok=True)
        with FileLock(ROOT / "_build" / "site.lock"):
            if not book.is_fresh(ROOT):
                built = book.build(ROOT, quiet=True)
                assert built.passed, built.complaints
    return book.site_dir(ROOT)


@pytest.fixture(scope="session")
def served(site: Path) -> Iterator[str]:
    """The address of the served site."""
    with serving(site) as address:
        yield address


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Playwright's handle on the system's Chromium; without one the test is skipped, but fails in CI."""
    if browser.chromium_path() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(browser.MISSING)
    with browser.chromium() as started:
        yield started


@pytest.fixture
def watch(chromium: Any, served: str) -> Any:
    """A function that opens a watched page; it is closed after the test."""
    opened = []

    def start(viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Watched:
        opened.append(Watched(chromium, served, viewport, scheme))
        return opened[-1]

    yield start
    for watched in opened:
        watched.context.close()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of `helpers`."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def packages(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel."""
    return install_wheel(wheel, tmp_path_factory.mktemp("packages"))


@pytest.fixture
def scratch_book(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a small book out of chapters given as lists of cells."""

    def make(**chapters: list[dict[str, Any]]) -> Path:
        return small_book(tmp_path / "scratch", chapters)

    return make


# Archives of the real data: beside the checkout, as the project's own CI has them, or where the variable says.
ARCHIVES = Path(os.environ.get("HELPERS_ARCHIVES", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with MNIST and Tiny ImageNet's validation images; the test is skipped where there are none."""
    from helpers.data import available, data_dir
    from helpers.data._download import import_data

    if available("mnist") and available("tiny-imagenet"):
        return data_dir()
    photos = ARCHIVES / "tiny-imagenet-200"
    if not (photos / "val.tar.gz").exists() or not (ARCHIVES / "mnist").is_dir():
        pytest.skip("needs MNIST and Tiny ImageNet: under $HELPERS_DATA, or as archives in $HELPERS_ARCHIVES")
    folder = tmp_path_factory.mktemp("data")
    import_data("mnist", ARCHIVES, folder)
    # The validation images alone: all of Tiny ImageNet takes a minute to unpack, and no test reads the rest.
    with tarfile.open(photos / "val.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    for name in ("wnids.txt", "words.txt"):
        shutil.copy(photos / name, folder / "tiny-imagenet-200" / name)
    (folder / "tiny-imagenet-200" / "train").mkdir(exist_ok=True)
    return folder
