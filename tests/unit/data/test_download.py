"""The importer of real data: small made-up archives, honest and hostile."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tqdm import tqdm

from helpers.data import __main__ as command
from helpers.data import _download as importer
from helpers.data._download import DataError, import_data, unpack
from helpers.data._real import available
from helpers.data._sources import Source
from tools.project import ROOT

IDX = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar_gz(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def small_sources() -> dict[str, Source]:
    """Data sets in the true layout, of a few bytes."""
    return {
        "mnist": Source(
            archives=(tuple(f"{name}.gz" for name in IDX),),
            into="MNIST/raw",
            file_hashes={f"raw/{name}": sha256(name.encode()) for name in IDX},
        ),
        "tiny-imagenet": Source(
            archives=(("train-0.tar.gz", "val.tar.gz", "wnids.txt", "words.txt"), ("tiny-imagenet-200.zip",)),
            counts=(("train/*/images", 2), ("train/*", 1), ("val/images", 1)),
        ),
        "similarnet": Source(archives=(("numbers5.png",),), into="similarnet"),
        **{name: Source(tree_hash=hash_of(files)) for name, files in TREES.items()},
    }


def hash_of(files: dict[str, bytes]) -> str:
    """The digest of a folder, from its files."""
    lines = sorted(f"{name}\0{sha256(content)}" for name, content in files.items())
    return sha256("".join("{1}  {0}\n".format(*line.split("\0")) for line in lines).encode())


# Data sets that come as a folder of their own.
TREES = {
    "imagenet-sample": {"n01440764_tench.jpg": b"tench", "n01443537_goldfish.jpg": b"goldfish"},
    "coco-sample": {"boxes.csv": b"image", "polygons.json": b"{}", "images/1.jpg": b"one"},
    "squeezenet": {"squeezenet1_0.safetensors": b"weights"},
}


TRAIN = {f"tiny-imagenet-200/train/n01/images/n01_{k}.JPEG": b"jpeg" * 99 for k in range(2)}
VAL = {"tiny-imagenet-200/val/val_annotations.txt": b"val_0.JPEG\tn01", "tiny-imagenet-200/val/images/val_0.JPEG": b"v"}


def zipped(folder: Path) -> Path:
    """A folder with all of a small Tiny ImageNet in one zip."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny-imagenet-200.zip", "w") as packed:
        texts = {"tiny-imagenet-200/wnids.txt": b"n01", "tiny-imagenet-200/words.txt": b"n01\tgoldfish"}
        for name, content in {**TRAIN, **VAL, **texts}.items():
            packed.writestr(name, content)
    return folder


def make_archives(folder: Path) -> Path:
    for place in ("mnist", "tiny-imagenet-200", "similarnet"):
        (folder / place).mkdir(parents=True)
    for name in IDX:
        (folder / "mnist" / f"{name}.gz").write_bytes(gzip.compress(name.encode()))
    tiny = folder / "tiny-imagenet-200"
    tar_gz(tiny / "train-0.tar.gz", TRAIN)
    tar_gz(tiny / "val.tar.gz", VAL)
    (tiny / "wnids.txt").write_text("n01\n")
    (tiny / "words.txt").write_text("n01\tgoldfish\n")
    for name in ("numbers5.png", "numbers5_thresh.jpg"):
        (folder / "similarnet" / name).write_bytes(name.encode())
    files = sorted(p for p in folder.rglob("*") if p.is_file() and "similarnet" not in p.parts)
    for name, contents in TREES.items():
        for file, content in contents.items():
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_bytes(content)
    sums = (f"{sha256(p.read_bytes())}  {p.relative_to(folder).as_posix()}\n" for p in files)
    (folder / "SHA256SUMS").write_text("".join(sums))
    return folder


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(importer, "SOURCES", small_sources())
    return make_archives(tmp_path / "source")


def leftovers(dest: Path) -> list[str]:
    return [p.name for p in dest.glob(".importing*")] if dest.exists() else []


def test_everything_is_imported(source, tmp_path, capsys):
    dest = tmp_path / "new" / "dest"
    assert command.main(["import", str(source), "--to", str(dest)]) == 0
    assert capsys.readouterr().out.count("imported into") == 6
    for name in IDX:
        assert (dest / "MNIST" / "raw" / name).read_bytes() == name.encode()
    tiny = dest / "tiny-imagenet-200"
    assert (tiny / "train" / "n01" / "images" / "n01_1.JPEG").read_bytes() == b"jpeg" * 99
    assert (tiny / "words.txt").read_text() == "n01\tgoldfish\n"
    assert sorted(p.name for p in (dest / "similarnet").iterdir()) == ["numbers5.png", "numbers5_thresh.jpg"]
    assert all(available(name, dest) for name in small_sources())
    assert not leftovers(dest)


def test_a_folder_is_imported_whole_from_itself_or_from_above(source, tmp_path):
    dest = tmp_path / "dest"
    assert "imported" in import_data("coco-sample", source / "coco-sample", dest)
    assert "imported" in import_data("imagenet-sample", source, dest)
    for name in ("coco-sample", "imagenet-sample"):
        copied = {
            p.relative_to(dest / name).as_posix(): p.read_bytes() for p in (dest / name).rglob("*") if p.is_file()
        }
        assert copied == TREES[name]


@pytest.mark.parametrize("damage", ["changed", "missing", "added"])
def test_a_folder_of_other_files_is_refused(damage, source, tmp_path):
    place = source / "coco-sample"
    if damage == "changed":
        (place / "images" / "1.jpg").write_bytes(b"two")
    elif damage == "missing":
        (place / "images" / "1.jpg").unlink()
    else:
        (place / "images" / "2.jpg").write_bytes(b"two")
    with pytest.raises(DataError, match=r"the COCO sample in .* is incomplete or damaged"):
        import_data("coco-sample", source, tmp_path / "dest")
    assert not (tmp_path / "dest" / "coco-sample").exists()
    assert not leftovers(tmp_path / "dest")


def test_second_import_does_nothing(source, tmp_path, capsys):
    dest = tmp_path / "dest"
    import_data("mnist", source, dest)
    before = (dest / "MNIST" / "raw" / IDX[0]).stat().st_mtime_ns
    assert "already in" in import_data("mnist", source, dest)
    assert (dest / "MNIST" / "raw" / IDX[0]).stat().st_mtime_ns == before


def test_only_one_and_the_default_place(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path / "dest"))
    assert command.main(["import", str(source / "mnist"), "--only", "mnist"]) == 0
    assert command.main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"data folder: {tmp_path / 'dest'}"
    assert [("not there" in line) for line in lines[2:]] == [False] + [True] * 5


def test_zip_makes_tiny_imagenet_too(source, tmp_path):
    import_data("tiny-imagenet", zipped(tmp_path / "zipped"), tmp_path / "dest")
    assert available("tiny-imagenet", tmp_path / "dest")


# --- an interrupted import starts over --------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{here!r}, {root!r}]
import test_download as t
from tools.project import ROOT
from helpers.data import _download as importer
importer.SOURCES = t.small_sources()
whole = importer.unpack
def half(archive, folder, bar):
    whole(archive, folder, bar)
    if archive.name == "val.tar.gz":
        os.kill(os.getpid(), signal.SIGKILL)
importer.unpack = half
importer.import_data("tiny-imagenet", Path({source!r}), Path({dest!r}))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_killed_import_leaves_nothing_under_the_final_name(source, tmp_path):
    dest = tmp_path / "dest"
    names = {"here": str(Path(__file__).parent), "root": str(ROOT), "source": str(source), "dest": str(dest)}
    done = subprocess.run([sys.executable, "-c", KILLED.format(**names)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert leftovers(dest)
    assert not (dest / "tiny-imagenet-200").exists()
    assert "imported" in import_data("tiny-imagenet", source, dest)
    assert available("tiny-imagenet", dest)
    assert not leftovers(dest)


def test_interrupt_clears_up_and_is_one_line(source, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(importer, "unpack", stop)
    with pytest.raises(KeyboardInterrupt):
        import_data("mnist", source, tmp_path / "dest")
    assert os.listdir(tmp_path / "dest") == []
    assert command.main(["import", str(source), "--to", str(tmp_path / "dest")]) == 130
    assert "nothing half done is left behind" in capsys.readouterr().err


def test_two_imports_at_once_do_not_disturb_each_other(source, tmp_path, monkeypatch):
    dest, whole, seen = tmp_path / "dest", importer.unpack, []

    def meanwhile(archive, folder, bar):
        with pytest.raises(DataError, match=r"MNIST is being imported into .* at this moment"):
            import_data("mnist", source, dest)
        seen.append(archive)
        monkeypatch.setattr(importer, "unpack", whole)
        whole(archive, folder, bar)

    monkeypatch.setattr(importer, "unpack", meanwhile)
    assert "imported" in import_data("mnist", source, dest)
    assert len(seen) == 1
    assert available("mnist", dest)


# --- damaged and incomplete archives ----------------------------------------------------------------------------------


def refuse(source: Path, tmp_path: Path, name: str, message: str) -> None:
    dest = tmp_path / "dest"
    with pytest.raises(DataError, match=message):
        import_data(name, source, dest)
    assert not dest.exists() or os.listdir(dest) == []


def test_wrong_checksum_is_refused(source, tmp_path):
    path = source / "tiny-imagenet-200" / "words.txt"
    path.write_text("n01\tgoldfisch\n")
    refuse(source, tmp_path, "tiny-imagenet", r"words\.txt is damaged: its sha256 is not")


@pytest.mark.parametrize("content", [b"only-one-word\n", b"abc  mnist/x\n", b"\xff\xfe\x00"])
def test_a_list_of_digests_that_is_none_is_said(source, tmp_path, content):
    (source / "SHA256SUMS").write_bytes(content)
    refuse(source, tmp_path, "mnist", "SHA256SUMS is no list of digests")


def test_built_in_checksum_is_refused(source, tmp_path, monkeypatch):
    known = {"val.tar.gz": "sha256:" + "0" * 64}
    tiny = Source(archives=importer.SOURCES["tiny-imagenet"].archives, archive_hashes=known)
    monkeypatch.setitem(importer.SOURCES, "tiny-imagenet", tiny)
    refuse(source, tmp_path, "tiny-imagenet", r"val\.tar\.gz is damaged")


def test_contents_that_are_not_the_original_are_refused(source, tmp_path):
    (source / "SHA256SUMS").unlink()
    (source / "mnist" / f"{IDX[1]}.gz").write_bytes(gzip.compress(b"other digits"))
    refuse(source, tmp_path, "mnist", "is not the original")


@pytest.mark.parametrize("cut", [20, -30, -4])
def test_cut_archives_are_refused(source, tmp_path, cut):
    (source / "SHA256SUMS").unlink()
    path = source / "tiny-imagenet-200" / "train-0.tar.gz"
    path.write_bytes(path.read_bytes()[:cut])
    refuse(source, tmp_path, "tiny-imagenet", "train-0.tar.gz is damaged")


def test_flipped_bit_is_refused(source, tmp_path):
    (source / "SHA256SUMS").unlink()
    for name, path in [("mnist", f"mnist/{IDX[0]}.gz"), ("tiny-imagenet", "tiny-imagenet-200/train-0.tar.gz")]:
        content = bytearray((source / path).read_bytes())
        content[-6] ^= 1  # in the checksum at the end
        (source / path).write_bytes(content)
        refuse(source, tmp_path, name, "damaged")


def test_missing_images_and_archives_are_named(source, tmp_path):
    (source / "SHA256SUMS").unlink()
    tar_gz(source / "tiny-imagenet-200" / "train-0.tar.gz", dict(list(TRAIN.items())[:1]))
    refuse(source, tmp_path, "tiny-imagenet", r"train/\*/images must hold 2 entries, got 1")
    (source / "tiny-imagenet-200" / "val.tar.gz").unlink()
    refuse(source, tmp_path, "tiny-imagenet", r"incomplete: it lacks val\.tar\.gz")


def test_what_is_in_the_way_is_left_alone(source, tmp_path):
    (tmp_path / "dest" / "MNIST").mkdir(parents=True)
    with pytest.raises(DataError, match="in the way"):
        import_data("mnist", source, tmp_path / "dest")
    assert os.listdir(tmp_path / "dest") == ["MNIST"]


# --- hostile archives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/../../evil", "/evil", "..", "c:/evil", "a\\..\\evil"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_that_leave_the_folder_are_refused(tmp_path, name, kind):
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    archive = tmp_path / f"bad.{'tar.gz' if kind == 'tar' else 'zip'}"
    if kind == "tar":
        tar_gz(archive, {"good": b"1", name: b"2"})
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(name, b"2")
    with pytest.raises(DataError, match="leads out of the folder"):
        unpack(archive, folder, tqdm(disable=True))
    assert not any(p.name.endswith("evil") for p in tmp_path.rglob("*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("pointer")
        info.type, info.linkname = kind, ".."
        tar.addfile(info)
    (tmp_path / "inside").mkdir()
    with pytest.raises(DataError, match="link or a device"):
        unpack(archive, tmp_path / "inside", tqdm(disable=True))
    assert os.listdir(tmp_path / "inside") == []


def test_a_name_given_twice_is_refused(tmp_path):
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("file"))
    (tmp_path / "inside").mkdir()
    with pytest.raises(DataError, match="holds file twice"):
        unpack(archive, tmp_path / "inside", tqdm(disable=True))


# --- the command line says what is wrong ------------------------------------------------------------------------------


def test_errors_are_one_line(source, tmp_path, capsys, monkeypatch):
    def error(*arguments: str) -> str:
        assert command.main([*arguments, "--to", str(tmp_path / "dest")]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    assert "no such folder" in error("import", str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "nothing to import" in error("import", str(tmp_path / "empty"))
    monkeypatch.setitem(
        importer.SOURCES, "mnist", Source(archives=small_sources()["mnist"].archives, needs_bytes=1 << 60)
    )
    assert "no space: MNIST needs" in error("import", str(source), "--only", "mnist")
    monkeypatch.setitem(importer.SOURCES, "mnist", small_sources()["mnist"])
    (tmp_path / "dest").rmdir()
    (tmp_path / "dest").write_text("a file")
    assert "is a file: the data folder must be a folder" in error("import", str(source))


def test_the_home_of_nobody_is_an_error_of_one_line(monkeypatch, capsys):
    monkeypatch.setenv("HELPERS_DATA", "~nobody-of-that-name/data")
    assert command.main(["status"]) == 1
    assert "HELPERS_DATA is '~nobody-of-that-name/data'" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "message"), [("ENOSPC", "no space left"), ("EACCES", "no permission for")])
def test_disk_errors_are_explained(source, tmp_path, monkeypatch, number, message):
    import errno

    def full(*_):
        raise OSError(getattr(errno, number), "made up")

    monkeypatch.setattr(importer, "unpack", full)
    refuse(source, tmp_path, "mnist", message)


def test_download_without_a_network(tmp_path, monkeypatch, capsys):
    def refuse_network(*_, **__):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse_network)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("tiny-imagenet", "mnist"):
        assert command.main(["download", name, "--to", str(tmp_path / "dest")]) == 1
        assert "could not be downloaded" in capsys.readouterr().err
        assert os.listdir(tmp_path / "dest") == []


@pytest.fixture
def tiny_imagenet_server(tmp_path, monkeypatch):
    """A server of this machine that has a small Tiny ImageNet; the archive's path."""
    folder = zipped(tmp_path / "served")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(
            importer, "TINY_IMAGENET_URL", f"http://127.0.0.1:{server.server_port}/tiny-imagenet-200.zip"
        )
        monkeypatch.setattr(importer, "SOURCES", small_sources())
        yield folder / "tiny-imagenet-200.zip"
        server.shutdown()


def test_download_of_tiny_imagenet(tmp_path, tiny_imagenet_server):
    assert "downloaded" in importer.download("tiny-imagenet", tmp_path / "dest")
    assert available("tiny-imagenet", tmp_path / "dest")
    assert not leftovers(tmp_path / "dest")


def test_a_download_that_is_not_the_published_one_is_refused(tmp_path, tiny_imagenet_server, monkeypatch):
    tiny = importer.SOURCES["tiny-imagenet"]
    published = replace(tiny, archive_hashes={"tiny-imagenet-200.zip": "md5:" + "0" * 32})
    monkeypatch.setitem(importer.SOURCES, "tiny-imagenet", published)
    with pytest.raises(DataError, match="Tiny ImageNet came damaged: MD5 hash"):
        importer.download("tiny-imagenet", tmp_path / "dest")
    assert os.listdir(tmp_path / "dest") == []
    tiny_imagenet_server.unlink()
    with pytest.raises(DataError, match="could not be downloaded: 404"):
        importer.download("tiny-imagenet", tmp_path / "dest")


def test_where_python_knows_no_filter_archives_are_checked_all_the_same(source, tmp_path, monkeypatch):
    monkeypatch.setattr(importer, "TAR_FILTER", {})
    assert "imported" in import_data("tiny-imagenet", source, tmp_path / "dest")
