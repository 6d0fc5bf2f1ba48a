"""Import of real data from archives in a local folder, or by download: checked, and all or nothing."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from helpers.data._real import FOLDERS, TITLES, available, data_dir
from helpers.data._unpack import BLOCK_BYTES, DataError, digest, unpack

TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


@dataclass(frozen=True)
class Source:
    """How one data set comes, and what it must hold.

    Attributes:
        archives: sets of file names, each of which alone makes the data set.
        into: the folder, below the data set's parent, that the archives unpack into.
        archive_hashes: digests of archives, "algorithm:hexadecimal"; others are trusted for what they hold.
        file_hashes: sha256 of unpacked files, below the data set's folder.
        counts: (folder pattern, number of files in all folders that match).
        needs_bytes: room on disk while importing.
    """

    archives: tuple[tuple[str, ...], ...]
    into: str = ""
    archive_hashes: dict[str, str] = field(default_factory=dict)
    file_hashes: dict[str, str] = field(default_factory=dict)
    counts: tuple[tuple[str, int], ...] = ()
    needs_bytes: int = 0


_MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_TINY_PARTS = {
    "train-0.tar.gz": "e9250d96b8ddfcaf8771243e68a975ae1e5762d86e445db56bb24528d7427567",
    "train-1.tar.gz": "21f409242561e33d186f4408deea3df61a7244f13272d9c73d99eb4782717155",
    "train-2.tar.gz": "885ca152ee830e3cf13d7abc2d2a42c62f8dfc2924bda2f99571b7bb85fcdb40",
    "train-3.tar.gz": "b4a9d8127c582f81f21711a118806ea893993b34c2272875918507db4ff9f7c6",
    "train-4.tar.gz": "a83c71e9ba234e1123a3556b28fae1e74fe58332344be2abf27610201bf5fdd8",
    "val.tar.gz": "6bd453bb1c80e405af9e2c3c9f897561d519eddc520ced5fea9a9750051264a5",
    "wnids.txt": "342d6acf18911d62da4c981221f833718a3ef8299e55512239e09c64e49a344c",
    "words.txt": "5ce1fc83f3ad864c433325e4b078784c719bf0d5268c261f951aaa5334b045b5",
}
SOURCES: dict[str, Source] = {
    "mnist": Source(
        archives=(tuple(f"{name}.gz" for name in _MNIST_FILES), tuple(_MNIST_FILES)),
        into="MNIST/raw",
        file_hashes={f"raw/{name}": value for name, value in _MNIST_FILES.items()},
        needs_bytes=60_000_000,
    ),
    "tiny-imagenet": Source(
        archives=(tuple(_TINY_PARTS), ("tiny-imagenet-200.zip",)),
        archive_hashes={
            **{name: f"sha256:{value}" for name, value in _TINY_PARTS.items()},
            "tiny-imagenet-200.zip": "md5:90528d7ca1a48142e341f4ef8d21d0de",
        },
        counts=(("train/*/images", 100_000), ("train/*", 200), ("val/images", 10_000)),
        needs_bytes=900_000_000,
    ),
    "similarnet": Source(archives=(("numbers5.png",),), into="similarnet", needs_bytes=2_000_000),
}


def find(name: str, folder: Path) -> list[Path]:
    """Return the files in `folder` or a folder directly below it that make the data set; [] if there are none.

    Raises:
        DataError: some of its files are there and others are not.
    """
    lacking = ""
    for place in [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]:
        for names in SOURCES[name].archives:
            there = [place / file for file in names if (place / file).is_file()]
            if len(there) == len(names):
                pictures = (".png", ".jpg")  # the SIMILARnet images: whatever lies beside the first one
                return sorted(p for p in place.iterdir() if p.suffix in pictures) if name == "similarnet" else there
            if there and not lacking:
                lacking = ", ".join(file for file in names if not (place / file).is_file())
                lacking = f"{TITLES[name]} in {place} is incomplete: it lacks {lacking}"
    if lacking:
        raise DataError(lacking)
    return []


def _check_archives(name: str, files: list[Path], folder: Path) -> None:
    """Compare archives with the built-in digests and with SHA256SUMS beside or above them."""
    listed: dict[Path, str] = {}
    for place in {folder, files[0].parent}:
        sums = place / "SHA256SUMS"
        if sums.is_file():
            listed.update({(place / path).resolve(): f"sha256:{value}" for value, path in _sums(sums)})
    for file in files:
        for wanted in {listed.get(file.resolve()), SOURCES[name].archive_hashes.get(file.name)} - {None}:
            algorithm, value = wanted.split(":")
            if digest(file, algorithm) != value.lower():
                raise DataError(f"{file} is damaged: its {algorithm} is not {value}. Get it again.")


def _sums(path: Path) -> list[tuple[str, str]]:
    """Digests and file names of a SHA256SUMS."""
    try:
        lines = [line.split(maxsplit=1) for line in path.read_text(encoding="utf8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no list of digests: it is not a text") from error
    for line in lines:
        if len(line) != 2 or not re.fullmatch(r"[0-9a-fA-F]{64}", line[0]):
            raise DataError(f"{path} is no list of digests: it has the line {' '.join(line)!r}")
    return [(value, file.lstrip("*").strip()) for value, file in lines]


def _check_contents(name: str, folder: Path) -> None:
    """Check what was unpacked: hashes of its key files, and how many files there are."""
    for file, value in SOURCES[name].file_hashes.items():
        if not (folder / file).is_file():
            raise DataError(f"{TITLES[name]}: {file} was not in the archives")
        if digest(folder / file) != value:
            raise DataError(f"{TITLES[name]}: {file} is not the original (its sha256 is not {value})")
    for pattern, wanted in SOURCES[name].counts:
        found = sum(len(os.listdir(place)) if pattern.endswith("images") else 1 for place in folder.glob(pattern))
        if found != wanted:
            raise DataError(f"{TITLES[name]}: {found:,} entries in {pattern}, want {wanted:,}")


@contextlib.contextmanager
def _alone(name: str, dest: Path) -> Iterator[None]:
    """Hold the lock of a data set's import; the system releases it when the process ends, however it ends."""
    # Not in `dest`, where it would be left behind: removing a lock is not safe against somebody who just opened it.
    user = os.getuid() if hasattr(os, "getuid") else ""
    key = hashlib.sha256(f"{user} {dest.resolve()} {name}".encode()).hexdigest()[:16]
    with Path(tempfile.gettempdir(), f"where-networks-look-{key}.lock").open("a") as lock:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise DataError(f"{TITLES[name]} is being imported into {dest} at this moment: wait for it") from error
        yield


@contextlib.contextmanager
def _workspace(name: str, dest: Path) -> Iterator[Path]:
    """Give a temporary folder inside dest, removed at the end; what an interrupted import left is cleared first."""
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with _alone(name, dest):
            for left in dest.glob(f".importing-{name}-*"):
                shutil.rmtree(left)
            room, needed = shutil.disk_usage(dest).free, SOURCES[name].needs_bytes
            if room < needed:
                raise DataError(
                    f"no space: {TITLES[name]} needs {needed >> 20} MiB in {dest}, {room >> 20} MiB are free"
                )
            work = Path(tempfile.mkdtemp(prefix=f".importing-{name}-", dir=dest))
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{error.filename or dest} is a file: the data folder must be a folder") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"no space left in {dest}: free some, or give --to another folder") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DataError(
                f"no permission for {error.filename or dest}: mend it, or give --to another folder"
            ) from error
        raise


def _install(name: str, files: list[Path], work: Path, dest: Path) -> None:
    """Unpack files in `work`, check the result, and give it its final name in one step."""
    place = FOLDERS[name][0]
    into = work / (SOURCES[name].into or ".")
    into.mkdir(parents=True, exist_ok=True)
    total = sum(file.stat().st_size for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc=TITLES[name]) as bar:
        for file in files:
            loose = (
                name == "tiny-imagenet" and file.suffix == ".txt"
            )  # lies beside the archives, belongs in their folder
            unpack(file, work / place if loose else into, bar.update)
    _check_contents(name, work / place)
    os.rename(work / place, dest / place)


def _already(name: str, dest: Path) -> str | None:
    """Return the line that says a data set is there, or None if its place is free; DataError if it is taken."""
    place = dest / FOLDERS[name][0]
    if available(name, dest):
        return f"{TITLES[name]}: already in {dest}, nothing to do"
    if place.exists():
        raise DataError(f"{place} is in the way, and it is not all of {TITLES[name]}: move it away and try again")
    return None


def import_data(name: str, folder: Path, dest: Path | None = None) -> str:
    """Import one data set from the archives in a folder; what is there already stays as it is.

    Args:
        name: "mnist", "tiny-imagenet" or "similarnet".
        folder: where the archives lie, themselves or one folder down.
        dest: where it goes; `data_dir()` by default.

    Returns:
        One line that says what was done.

    Raises:
        DataError: incomplete, damaged or refused archives, no space, no permission.
    """
    dest = data_dir() if dest is None else dest
    if line := _already(name, dest):
        return line
    files = find(name, folder)
    if not files:
        return f"{TITLES[name]}: not in {folder}"
    _check_archives(name, files, folder)
    with _workspace(name, dest) as work:
        _install(name, files, work, dest)
    return f"{TITLES[name]}: imported into {dest}"


def download(name: str, dest: Path | None = None) -> str:
    """Download one data set ("mnist" or "tiny-imagenet") and import it; return one line that says what was done.

    Raises:
        DataError: no network, a damaged download, no space, no permission.
    """
    dest = data_dir() if dest is None else dest
    if line := _already(name, dest):
        return line
    with _workspace(name, dest) as work:
        try:
            if name == "mnist":
                from torchvision.datasets import MNIST

                MNIST(str(work / "fetched"), download=True)
                files = [work / "fetched" / "MNIST" / "raw" / file for file in _MNIST_FILES]
            else:
                files = [work / "tiny-imagenet-200.zip"]
                _fetch(TINY_IMAGENET_URL, files[0])
        except (urllib.error.URLError, ConnectionError, TimeoutError, RuntimeError) as error:
            raise DataError(f"{TITLES[name]} could not be downloaded: {error}. Is there a network?") from error
        _check_archives(name, files, work)
        _install(name, files, work, dest)
    return f"{TITLES[name]}: downloaded into {dest}"


def _fetch(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as file:
        size = int(answer.headers.get("Content-Length", 0)) or None
        with tqdm(total=size, unit="B", unit_scale=True, desc=path.name) as bar:
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                bar.update(len(block))
