"""Import of real data from archives in a local folder, or by download: checked, and all or nothing."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
from requests.exceptions import RequestException
from tqdm import tqdm
from tqdm.utils import CallbackIOWrapper

from helpers.data._real import available, data_dir
from helpers.data._sources import FOLDERS, SOURCES, TINY_IMAGENET_URL, TITLES

BLOCK_BYTES = 1 << 20
DAMAGE = (tarfile.TarError, shutil.ReadError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
# Early patch releases of Python 3.10 and 3.11 know no filter. What it refuses is refused before, by _check_members.
TAR_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


class DataError(RuntimeError):
    """Data that cannot be imported; the message says why and what to do."""


def find(name: str, folder: Path) -> list[Path]:
    """Return the files in `folder` or a folder directly below it that make the data set; [] if there are none.

    Raises:
        DataError: some of its files are there and others are not.
    """
    if not SOURCES[name].archives:
        own = [place for place in (folder, folder / FOLDERS[name][0]) if available(name, place.parent)]
        return sorted(path for path in own[0].rglob("*") if path.is_file()) if own else []
    incomplete = ""
    for place in [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]:
        for names in SOURCES[name].archives:
            there = [place / file for file in names if (place / file).is_file()]
            if len(there) == len(names):
                pictures = (".png", ".jpg")  # the SIMILARnet images: whatever lies beside the first one
                return sorted(p for p in place.iterdir() if p.suffix in pictures) if name == "similarnet" else there
            if there and not incomplete:
                missing = ", ".join(file for file in names if not (place / file).is_file())
                incomplete = f"{TITLES[name]} in {place} is incomplete: it lacks {missing}"
    if incomplete:
        raise DataError(incomplete)
    return []


def _check_archives(name: str, files: list[Path], folder: Path) -> None:
    """Compare archives with the built-in digests and with SHA256SUMS beside or above them."""
    listed: dict[Path, str] = {}
    for place in {folder, files[0].parent}:
        sums = place / "SHA256SUMS"
        if sums.is_file():
            listed.update({(place / path).resolve(): f"sha256:{value}" for value, path in _sums(sums)})
    for file in files:
        for expected in filter(None, {listed.get(file.resolve()), SOURCES[name].archive_hashes.get(file.name)}):
            algorithm, value = expected.split(":")
            if pooch.file_hash(str(file), alg=algorithm) != value.lower():
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
        if pooch.file_hash(str(folder / file)) != value:
            raise DataError(f"{TITLES[name]}: {file} is not the original (its sha256 is not {value})")
    for pattern, expected in SOURCES[name].counts:
        count = sum(len(os.listdir(place)) if pattern.endswith("images") else 1 for place in folder.glob(pattern))
        if count != expected:
            raise DataError(f"{TITLES[name]}: {pattern} must hold {expected:,} entries, got {count:,}")


def _members(archive: Path, bar: tqdm) -> Iterator[tuple[str, bool, bool]]:
    """Name of each member of a tar or zip, whether it is a folder, and whether it is a plain file."""
    if archive.suffix == ".zip":  # zipfile makes no links or devices: such members come out as plain files
        with zipfile.ZipFile(archive) as packed:
            yield from ((entry.filename, entry.is_dir(), not entry.is_dir()) for entry in packed.infolist())
        return
    with archive.open("rb") as raw:
        counted: Any = CallbackIOWrapper(bar.update, raw, "read")
        stream: Any = counted if archive.suffix == ".tar" else gzip.GzipFile(fileobj=counted)
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            yield from ((entry.name, entry.isdir(), entry.isreg()) for entry in tar)
        while stream.read(BLOCK_BYTES):  # to the very end, where gzip's checksum is: tarfile does not read it
            pass


def _check_members(archive: Path, bar: tqdm) -> None:
    """Refuse an archive with a member that is no plain file or folder, leads out of the folder, or comes twice."""
    files: set[PurePosixPath] = set()
    for name, is_folder, is_file in _members(archive, bar):
        path = PurePosixPath(name)
        if not name or set(name) & {"\\", ":", "\0"} or path.is_absolute() or ".." in path.parts:
            raise DataError(f"{archive.name}: refused, the member {name!r} leads out of the folder")
        if not is_folder and not is_file:
            raise DataError(f"{archive.name}: refused, {name!r} is a link or a device, not a plain file")
        if path in files:
            raise DataError(f"{archive.name}: refused, it holds {path.name} twice")
        if is_file:
            files.add(path)


def unpack(archive: Path, folder: Path, bar: tqdm) -> None:
    """Unpack a tar (plain or compressed), zip or gz file below a folder; a file of another kind is copied there.

    Args:
        archive: the archive; it may be damaged or hostile.
        folder: an existing folder; a gz file becomes one file in it, named without ".gz".
        bar: moved on by the archive's bytes.

    Raises:
        DataError: the archive is damaged, or a member would leave the folder, or is no plain file.
    """
    try:
        done = bar.n
        if archive.name.endswith((".tar", ".tar.gz", ".tgz", ".zip")):
            _check_members(archive, bar)
            shutil.unpack_archive(archive, folder, **({} if archive.suffix == ".zip" else TAR_FILTER))
        elif archive.suffix == ".gz":
            with gzip.open(archive) as source, (folder / archive.stem).open("xb") as target:
                shutil.copyfileobj(source, target, BLOCK_BYTES)
        else:
            shutil.copyfile(archive, folder / archive.name)
        bar.update(done + archive.stat().st_size - bar.n)
    except DAMAGE as error:
        raise DataError(f"{archive.name} is damaged: {error}. Get it again.") from error


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
    if not SOURCES[name].archives:
        whole = next(path for path in files[0].parents if path.name == place)
        shutil.copytree(whole, work / place, copy_function=shutil.copyfile)
        if tree_digest(work / place) != SOURCES[name].tree_hash:
            raise DataError(f"{TITLES[name]} in {whole} is incomplete or damaged: its files are not the original ones")
        os.rename(work / place, dest / place)
        return
    into = work / (SOURCES[name].into or ".")
    into.mkdir(parents=True, exist_ok=True)
    total = sum(file.stat().st_size for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc=TITLES[name]) as bar:
        for file in files:
            # The lists of classes lie beside the archives and belong in their folder.
            beside = name == "tiny-imagenet" and file.suffix == ".txt"
            unpack(file, work / place if beside else into, bar)
    _check_contents(name, work / place)
    os.rename(work / place, dest / place)


def tree_digest(folder: Path) -> str:
    """A sha256 over the names and contents of all files in a folder and below it."""
    digest = hashlib.sha256()
    for path in sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.as_posix()):
        digest.update(f"{pooch.file_hash(str(path))}  {path.relative_to(folder).as_posix()}\n".encode())
    return digest.hexdigest()


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
        name: one of `SOURCES`.
        folder: where the archives or the data set's own folder lie, themselves or one folder down.
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
    zip_name = "tiny-imagenet-200.zip"
    with _workspace(name, dest) as work:
        try:
            if name == "mnist":
                from torchvision.datasets import MNIST

                MNIST(str(work / "fetched"), download=True)
                files = [work / "fetched" / "MNIST" / file for file in SOURCES[name].file_hashes]
            else:
                # Any: pooch's own downloader does not fit its type for downloaders.
                fetch: Any = pooch.HTTPDownloader(progressbar=True, chunk_size=BLOCK_BYTES, timeout=60)
                known_hash = SOURCES[name].archive_hashes.get(zip_name)
                files = [Path(pooch.retrieve(TINY_IMAGENET_URL, known_hash, zip_name, work, downloader=fetch))]
        except (urllib.error.URLError, RequestException, ConnectionError, TimeoutError, RuntimeError) as error:
            raise DataError(f"{TITLES[name]} could not be downloaded: {error}. Is there a network?") from error
        except ValueError as error:
            raise DataError(f"{TITLES[name]} came damaged: {error}") from error
        _install(name, files, work, dest)
    return f"{TITLES[name]}: downloaded into {dest}"
