"""Real data where it is present under `data_dir()`: MNIST and Tiny ImageNet. Nothing here downloads."""

import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from helpers._validate import check_choice, check_count, is_whole
from helpers.data._digits import Digits
from helpers.data._sources import FOLDERS, TITLES

MANY_IMAGES = 2000  # above this a progress bar is worth its line


class DataMissing(FileNotFoundError):
    """A data set is not under `data_dir()`; the message says how to get it."""


class Photos(NamedTuple):
    """Photographs of one object each.

    Attributes:
        images: (n, 3, S, S) uint8, 0 to 255; Tiny ImageNet's are of 64 pixels.
        labels: (n,) int64, position in `classes`.
        boxes: (n, 4) float32, x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive; NaN where none are known.
        classes: WordNet ids, such as "n01443537", or names of folders.
        names: the first name of each class, such as "goldfish".
    """

    images: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]


def data_dir() -> Path:
    """Return the folder of the real data: $HELPERS_DATA, else where-networks-look in the platform's cache folder.

    Raises:
        ValueError: HELPERS_DATA begins with the home of a user who is not there.
    """
    if os.environ.get("HELPERS_DATA"):
        try:
            return Path(os.environ["HELPERS_DATA"]).expanduser()
        except RuntimeError as error:
            raise ValueError(f"HELPERS_DATA is {os.environ['HELPERS_DATA']!r}: {error}") from error
    if sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        cache = "~/Library/Caches"
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "where-networks-look"


def available(name: str, folder: Path | None = None) -> bool:
    """Say whether a data set, such as "mnist" or "coco-sample", is under `folder`, by default `data_dir()`."""
    place, needed = FOLDERS[check_choice(name, "name", FOLDERS)]
    return all((folder or data_dir()).joinpath(place, file).exists() for file in needed)


def real_folder(name: str) -> Path:
    """Return a data set's folder, or raise DataMissing with the commands that bring it."""
    if not available(name):
        commands = "python -m helpers.data import FOLDER_WITH_THE_ARCHIVES"
        if name in ("mnist", "tiny-imagenet"):
            commands += f"   or   python -m helpers.data download {name}"
        raise DataMissing(f"{TITLES[name]} is not in {data_dir()}. To get it: {commands}")
    return data_dir() / FOLDERS[name][0]


def say(name: str, split: str, count: int) -> None:
    """Print where a data set was found."""
    # The folder's setting, not its path: the line may end up on a published page.
    where = "$HELPERS_DATA" if os.environ.get("HELPERS_DATA") else "the user cache"
    print(f"{TITLES[name]}, {split}: {count:,} images from {where}")


def mnist(split: str = "train") -> Digits:
    """Load MNIST and print one line that says so.

    Args:
        split: "train" (60,000 images) or "test" (10,000).

    Returns:
        Digits with images (N, 1, 28, 28) float32 in [0, 1]; `fonts` is -1 throughout.

    Raises:
        ValueError: an unknown split.
        DataMissing: MNIST is not there; the message gives the command that brings it.
    """
    check_choice(split, "split", ("train", "test"))
    folder = real_folder("mnist")
    from torchvision.datasets import MNIST  # imported here: it takes seconds, and only this function needs it

    try:
        stored = MNIST(str(folder.parent), train=split == "train", download=False)
        if stored.data.shape[1:] != (28, 28) or not 0 < len(stored.targets) == len(stored.data):
            raise ValueError(f"{tuple(stored.data.shape)} images, {len(stored.targets)} labels")
    except (
        RuntimeError,
        ValueError,
        TypeError,
        AssertionError,
        EOFError,
        IndexError,
    ) as error:  # of torchvision's reader
        raise DataMissing(f"{folder} is incomplete: remove it and import or download MNIST again ({error})") from error
    images, labels = stored.data[:, None].float() / 255, stored.targets.long()
    say("mnist", split, len(images))
    return Digits(images, labels, torch.full_like(labels, -1))


def tiny_imagenet(
    split: str = "val", classes: Sequence[str] | int | None = None, per_class: int | None = None
) -> Photos:
    """Load Tiny ImageNet, or some classes of it, and print one line that says so.

    Some boxes cover the whole image and some are wrong: look before you trust them.

    Args:
        split: "train" (500 images a class) or "val" (50 a class); the test split has no public labels.
        classes: WordNet ids or first names ("goldfish"), in the order the labels shall count; None takes all 200,
            sorted by id, and an integer k the first k of them.
        per_class: the first so many images of each class; None takes all.

    Returns:
        Photos with images (N, 3, 64, 64) uint8, class by class.

    Raises:
        ValueError: an unknown split or class, or a number out of range.
        DataMissing: Tiny ImageNet is not there; the message gives the command that brings it.
    """
    check_choice(split, "split", ("train", "val"))
    limit = None if per_class is None else check_count(per_class, "per_class")
    folder = real_folder("tiny-imagenet")
    with whole(folder, TITLES["tiny-imagenet"]):
        listed = _listed(folder)
    wnids, names = _classes(listed, classes)
    with whole(folder, TITLES["tiny-imagenet"]):
        rows = _train_rows(folder, wnids) if split == "train" else _val_rows(folder, wnids)
        if not all(rows):
            raise ValueError(f"no images of {wnids[rows.index([])]}")
        rows = [row for own in rows for row in own[:limit]]
        images = np.zeros((len(rows), 3, 64, 64), np.uint8)
        for k, (path, *_) in enumerate(tqdm(rows, desc="Tiny ImageNet", disable=len(rows) < MANY_IMAGES, leave=False)):
            images[k] = _read_image(path)
    labels = torch.tensor([label for _, label, _ in rows], dtype=torch.int64, device="cpu")
    boxes = torch.tensor([box for _, _, box in rows], dtype=torch.float32, device="cpu").reshape(-1, 4)
    boxes[:, 2:] += 1  # the files hold the last pixel inside
    say("tiny-imagenet", split, len(rows))
    return Photos(torch.from_numpy(images), labels, boxes, wnids, names)


@contextmanager
def whole(folder: Path, title: str) -> Iterator[None]:
    """Inside, files that are cut, missing or something else raise DataMissing."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        way = f"remove it and get {title} again"
        raise DataMissing(f"{folder} is incomplete or damaged: {way} ({error})") from error


def _listed(folder: Path) -> dict[str, str]:
    """Return the first name of each class, by its id."""
    # Sorted, because copies of the data set list their classes in different orders.
    wnids = sorted((folder / "wnids.txt").read_text(encoding="utf8").split())
    words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text(encoding="utf8").splitlines() if line)
    if not wnids:
        raise ValueError("wnids.txt lists no class")
    return {wnid: words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids}


def _classes(names: dict[str, str], chosen: Sequence[str] | int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return ids and first names of the chosen classes."""
    wnids = list(names)
    if chosen is None or isinstance(chosen, int) or is_whole(chosen):
        ids = wnids if chosen is None else wnids[: check_count(chosen, "classes", 1, len(wnids))]
        return tuple(ids), tuple(names[w] for w in ids)
    by_name = {name: wnid for wnid, name in reversed(names.items())}
    known, ids = {**by_name, **{w: w for w in wnids}}, []
    for name in [chosen] if isinstance(chosen, str) else chosen:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3) or list(by_name)[:3]
            raise ValueError(f"classes must be ids or names such as {', '.join(near)}, got {name!r}")
        ids.append(known[name])
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"classes must be one or more, each once, got {chosen!r}")
    return tuple(ids), tuple(names[w] for w in ids)


Row = tuple[Path, int, list[int]]  # file, label, box with inclusive ends


def _train_rows(folder: Path, wnids: Sequence[str]) -> list[list[Row]]:
    rows: list[list[Row]] = []
    for label, wnid in enumerate(wnids):
        home = folder / "train" / wnid
        lines = (line.split() for line in (home / f"{wnid}_boxes.txt").read_text(encoding="utf8").splitlines() if line)
        rows.append([(home / "images" / file, label, _box(box)) for file, *box in lines])
    return rows


def _val_rows(folder: Path, wnids: Sequence[str]) -> list[list[Row]]:
    rows: list[list[Row]] = [[] for _ in wnids]
    place = {wnid: label for label, wnid in enumerate(wnids)}
    for line in (folder / "val" / "val_annotations.txt").read_text(encoding="utf8").splitlines():
        if not line:
            continue
        file, wnid, *box = line.split()
        if wnid in place:
            label = place[wnid]
            rows[label].append((folder / "val" / "images" / file, label, _box(box)))
    return rows


def _box(words: Sequence[str]) -> list[int]:
    """The four numbers of a box; ValueError for other words."""
    x0, y0, x1, y1 = map(int, words)
    return [x0, y0, x1, y1]


def _read_image(path: Path) -> NDArray[np.uint8]:
    """Read one JPEG as (3, 64, 64); some files are gray, they get three equal channels."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
