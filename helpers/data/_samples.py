"""Photographs of any size where they are present: the ImageNet sample, the COCO sample, and folders of one's own."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.ops import box_iou

from helpers._validate import check_count, check_number
from helpers.data._real import Photos, real_folder, say, whole

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
CROP = 0.875  # of the shorter side: 224 of 256 pixels, as torchvision's networks are tested
LEAST_INSIDE = 0.5  # of a box: objects that the crop cuts further are left out
SAME = 0.5  # intersection over union of a box and the box around an outline that belong together


class Objects(NamedTuple):
    """Photographs of several objects; M is the greatest number an image has.

    Attributes:
        images: (n, 3, S, S) uint8, 0 to 255.
        labels: (n, M) int64, position in `classes`; -1 where there is no object.
        boxes: (n, M, 4) float32, x0, y0, x1, y1 in pixel edges; NaN where there is no object.
        outlines: (n, S, S) int16, at each pixel the object (0 .. M - 1) that it belongs to, the smaller one where two
            lie over each other; -1 for the ground, and for objects without an outline.
        classes: names, in alphabetical order.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor
    outlines: Tensor
    classes: tuple[str, ...]


def imagenet_sample(size: int = 224, *, crop: float = CROP) -> Photos:
    """Load the ImageNet sample, one picture of each of the 1,000 classes, and print one line that says so.

    Args:
        size: sides of the images, in pixels.
        crop: side of the square in the middle that is taken, in shorter sides of the file, (0, 1].

    Returns:
        Photos with images (1000, 3, size, size) uint8; labels are 0 to 999 in torchvision's order; boxes are NaN.

    Raises:
        ValueError: sizes out of range.
        DataMissing: the sample is not there, or damaged; the message gives the command that brings it.
    """
    folder = real_folder("imagenet-sample")
    paths = sorted(folder.glob("*.jpg"))
    wnids, names = zip(*(path.stem.split("_", 1) for path in paths), strict=True)
    labels = torch.arange(len(paths), device="cpu")
    with whole(folder, "the ImageNet sample"):
        images = read_pictures(paths, size, crop)
    say("imagenet-sample", "one a class", len(paths))
    return Photos(images, labels, _no_boxes(len(paths)), wnids, tuple(name.replace("_", " ") for name in names))


def picture_folder(folder: Path | str, size: int = 224, *, crop: float = CROP) -> Photos:
    """Load photographs of one's own from a folder that holds a folder for each class.

    Args:
        folder: class folders with pictures (JPEG, PNG, WebP, BMP) in them, such as ILSVRC's "val".
        size: sides of the images, in pixels.
        crop: side of the square in the middle that is taken, in shorter sides of the file, (0, 1].

    Returns:
        Photos with images (N, 3, size, size) uint8, class by class; classes and names are those of the folders, in
        alphabetical order; boxes are NaN.

    Raises:
        ValueError: no folder, none with pictures in it, a picture that cannot be read, or sizes out of range.
    """
    root = Path(folder)
    homes = sorted(home for home in root.iterdir() if home.is_dir()) if root.is_dir() else []
    found = {home.name: sorted(p for p in home.iterdir() if p.suffix.lower() in SUFFIXES) for home in homes}
    found = {name: paths for name, paths in found.items() if paths}
    if not found:
        raise ValueError(f"folder must hold a folder of pictures for each class, got {root}")
    images = read_pictures([path for paths in found.values() for path in paths], size, crop)
    labels = [label for label, paths in enumerate(found.values()) for _ in paths]
    return Photos(images, torch.tensor(labels, device="cpu"), _no_boxes(len(labels)), tuple(found), tuple(found))


def coco_sample(size: int = 224, *, crop: float = 1.0) -> Objects:
    """Load the COCO sample, pictures of several objects with boxes and outlines, and print one line that says so.

    Args:
        size: sides of the images, in pixels.
        crop: side of the square in the middle that is taken, in shorter sides of the file, (0, 1]. Objects of whose
            box less than half is left are left out, and pictures without any.

    Returns:
        Objects, with images (N, 3, size, size).

    Raises:
        ValueError: sizes out of range.
        DataMissing: the sample is not there, or damaged; the message gives the command that brings it.
    """
    folder = real_folder("coco-sample")
    with whole(folder, "the COCO sample"):
        with (folder / "boxes.csv").open(encoding="utf8", newline="") as file:
            rows = list(csv.DictReader(file))
        outlines = json.loads((folder / "polygons.json").read_text(encoding="utf8"))
        classes = tuple(sorted({row["category"] for row in rows}))
        objects: dict[str, list[tuple[str, list[float]]]] = {}
        sizes = {}
        for row in rows:
            sizes[row["image"]] = (float(row["width"]), float(row["height"]))
            box = [float(row[key]) for key in ("x0", "y0", "x1", "y1")]
            objects.setdefault(row["image"], []).append((row["category"], box))
        frames = {name: _frame(*sizes[name], size, check_crop(crop)) for name in objects}
        inside = {name: _inside(boxes, frames[name], size) for name, boxes in objects.items()}
        names = [name for name, boxes in inside.items() if boxes]
        images = read_pictures([folder / "images" / name for name in names], size, crop)
    most = max(len(inside[name]) for name in names)
    labels = torch.full((len(names), most), -1, dtype=torch.int64, device="cpu")
    boxes = torch.full((len(names), most, 4), float("nan"), dtype=torch.float32, device="cpu")
    owner = torch.full((len(names), size, size), -1, dtype=torch.int16, device="cpu")
    for i, name in enumerate(names):
        labels[i, : len(inside[name])] = torch.tensor([classes.index(category) for category, _ in inside[name]])
        boxes[i, : len(inside[name])] = torch.tensor([box for _, box in inside[name]])
        owner[i] = _owners(outlines.get(name, []), inside[name], frames[name], size)
    say("coco-sample", "several objects each", len(names))
    return Objects(images, labels, boxes, owner, classes)


def read_pictures(paths: Sequence[Path], size: int, crop: float) -> Tensor:
    """Squares from the middles of pictures, (N, 3, size, size) uint8; ValueError for one that cannot be read."""
    size, crop = check_count(size, "size"), check_crop(crop)
    with ThreadPoolExecutor() as pool:
        squares = list(pool.map(lambda path: _square(path, size, crop), paths))
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


def check_crop(crop: float) -> float:
    """A share of the shorter side, (0, 1]."""
    return check_number(crop, "crop", 0, 1, above=True)


def _square(path: Path, size: int, crop: float) -> np.ndarray:
    """The square in the middle of a picture, (size, size, 3) bytes; nothing is resampled where it fits as it is."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError) as error:  # what Pillow raises for files that are cut, empty or something else
        raise ValueError(f"{path.name} cannot be read as a picture ({error})") from error
    side = max(1, round(crop * min(image.size)))
    left, top = ((length - side) // 2 for length in image.size)
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image if side == size else image.resize((size, size), Image.Resampling.BILINEAR))


def _frame(width: float, height: float, size: int, crop: float) -> tuple[float, float, float]:
    """Left and upper edge of the square that `_square` takes, in pixels of the file, and its scale."""
    side = max(1, round(crop * min(width, height)))
    return (width - side) // 2, (height - side) // 2, size / side


def _inside(
    objects: list[tuple[str, list[float]]], frame: tuple[float, float, float], size: int
) -> list[tuple[str, list[float]]]:
    """Objects whose boxes lie half or more in the frame, their boxes in its pixels."""
    left, top, scale = frame
    kept = []
    for category, (x0, y0, x1, y1) in objects:
        box = [(x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale]
        cut = [min(max(edge, 0.0), float(size)) for edge in box]
        area = (box[2] - box[0]) * (box[3] - box[1])
        if area > 0 and (cut[2] - cut[0]) * (cut[3] - cut[1]) >= LEAST_INSIDE * area:
            kept.append((category, cut))
    return kept


def _owners(
    outlines: list[dict], objects: list[tuple[str, list[float]]], frame: tuple[float, float, float], size: int
) -> Tensor:
    """At each pixel the object whose outline it lies in, (size, size) int16; larger outlines first, smaller on top."""
    left, top, scale = frame
    drawn = []
    for outline in outlines:
        points = (np.array(outline["polygon"], np.float32) - (left, top)) * scale
        mask = Image.new("1", (size, size))
        ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in points], fill=1)
        around = [*points.min(0).clip(0, size), *points.max(0).clip(0, size)]
        same = [k for k, (category, _) in enumerate(objects) if category == outline["category"]]
        if not same:
            continue
        boxes = torch.tensor([objects[k][1] for k in same])
        share, best = box_iou(torch.tensor([around]), boxes)[0].max(0)
        if share >= SAME:
            drawn.append((np.asarray(mask), same[int(best)]))
    owner = np.full((size, size), -1, np.int16)
    for mask, index in sorted(drawn, key=lambda pair: -pair[0].sum()):
        owner[mask] = index
    return torch.from_numpy(owner)


def _no_boxes(count: int) -> Tensor:
    return torch.full((count, 4), float("nan"), dtype=torch.float32, device="cpu")
