"""Unpacking of archives that may be damaged or hostile: plain files below one folder, or nothing."""

import gzip
import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

BLOCK_BYTES = 1 << 20
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


class DataError(RuntimeError):
    """Data that cannot be imported; the message says why and what to do."""


class _Counted:
    """A file that reports how many bytes were read: what a progress bar needs from a stream."""

    def __init__(self, file: BinaryIO, report: Callable[[int], object]) -> None:
        self.file, self.report = file, report

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.report(len(block))
        return block


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file."""
    state = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


def safe_path(member: str, folder: Path, archive: str) -> Path:
    """Return where a member belongs below `folder`; DataError if its name leads out of it.

    Args:
        member: the name in the archive.
        folder: the folder to unpack into.
        archive: the archive's name, for the message.
    """
    name = PurePosixPath(member)
    odd = not member or "\\" in member or ":" in member or "\0" in member
    if odd or name.is_absolute() or ".." in name.parts:
        raise DataError(f"{archive}: refused, the member {member!r} leads out of the folder")
    return folder.joinpath(*name.parts)


def _write(source: BinaryIO, path: Path, archive: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as target:
            shutil.copyfileobj(source, target, BLOCK_BYTES)
    except FileExistsError as error:
        raise DataError(f"{archive}: refused, it holds {path.name} twice") from error


def _unpack_tar(archive: Path, folder: Path, report: Callable[[int], object]) -> None:
    with archive.open("rb") as raw:
        # tarfile's own gzip reader does not compare the checksum at the end; the gzip module does.
        stream = _Counted(raw, report)
        packed = stream if archive.suffix == ".tar" else gzip.GzipFile(fileobj=stream)
        with tarfile.open(fileobj=packed, mode="r|") as tar:
            for member in tar:
                path = safe_path(member.name, folder, archive.name)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                elif member.isreg() and (source := tar.extractfile(member)) is not None:
                    _write(source, path, archive.name)
                else:
                    raise DataError(f"{archive.name}: refused, {member.name!r} is a link or a device, not a plain file")
        while packed.read(BLOCK_BYTES):  # to the very end, where the checksum is
            pass


def _unpack_zip(archive: Path, folder: Path, report: Callable[[int], object]) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            path = safe_path(member.filename, folder, archive.name)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            else:  # zipfile never makes links or devices: such members come out as plain files
                with packed.open(member) as source:
                    _write(source, path, archive.name)
            report(member.compress_size)


def unpack(archive: Path, folder: Path, report: Callable[[int], object] = lambda _: None) -> None:
    """Unpack a tar (plain or compressed), zip or gz file below a folder.

    Args:
        archive: the archive.
        folder: an existing folder; a gz file becomes one file in it, named without ".gz".
        report: called with the number of archive bytes done since the last call.

    Raises:
        DataError: the archive is damaged, or a member would leave the folder, or is no plain file.
    """
    try:
        if archive.name.endswith((".tar", ".tar.gz", ".tgz")):
            _unpack_tar(archive, folder, report)
        elif archive.suffix == ".zip":
            _unpack_zip(archive, folder, report)
        elif archive.suffix == ".gz":
            with archive.open("rb") as raw, gzip.open(_Counted(raw, report)) as source:
                _write(source, folder / archive.stem, archive.name)
        else:
            shutil.copyfile(archive, folder / archive.name)
            report(os.path.getsize(archive))
    except DAMAGE as error:
        raise DataError(f"{archive.name} is damaged: {error}. Get it again.") from error
