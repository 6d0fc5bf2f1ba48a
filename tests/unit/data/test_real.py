"""The loaders of real data, on made-up data in the true formats and on the real data."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    return tmp_path


def write_mnist(folder, counts=(6, 4)):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in zip(("train", "t10k"), counts, strict=True):
        pixels = np.arange(n * 784).astype(np.uint8)
        head = b"".join(v.to_bytes(4, "big") for v in (0x803, n, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = b"".join(v.to_bytes(4, "big") for v in (0x801, n))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + bytes(range(n)))


def test_mnist(folder, capsys):
    write_mnist(folder)
    images, labels, _ = data.mnist("test")
    assert images.shape == (4, 1, 28, 28)
    assert labels.tolist() == [0, 1, 2, 3]
    assert images[0, 0, 1, 2].item() == pytest.approx(30 / 255)
    assert capsys.readouterr().out == "MNIST, test: 4 images from $HELPERS_DATA\n"
    assert len(data.mnist("train").images) == 6


def write_tiny_imagenet(folder):
    root = folder / "tiny-imagenet-200"
    words = {"n02": "goldfish, Carassius auratus", "n01": "bullfrog"}
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(words))
    (root / "words.txt").write_text("".join(f"{k}\t{v}\n" for k, v in words.items()))
    lines = ""
    for k, wnid in enumerate(["n02", "n01", "n02"]):
        Image.new("RGB", (64, 64), (40 * k, 0, 200)).save(root / "val" / "images" / f"val_{k}.JPEG")
        lines += f"val_{k}.JPEG\t{wnid}\t{k}\t1\t10\t63\n"
    (root / "val" / "val_annotations.txt").write_text(lines)
    for wnid in words:
        (root / "train" / wnid / "images").mkdir(parents=True)
        Image.new("L", (64, 64), 100).save(root / "train" / wnid / "images" / f"{wnid}_0.JPEG")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")


def test_tiny_imagenet(folder, capsys):
    write_tiny_imagenet(folder)
    p = data.tiny_imagenet("val")
    assert capsys.readouterr().out == "Tiny ImageNet, val: 3 images from $HELPERS_DATA\n"
    assert p.images.dtype == torch.uint8
    assert p.images.shape == (3, 3, 64, 64)
    assert p.classes == ("n01", "n02")  # sorted, whatever the order in the file
    assert p.names == ("bullfrog", "goldfish")
    assert p.labels.tolist() == [0, 1, 1]
    assert p.boxes[0].tolist() == [1, 1, 11, 64]  # inclusive ends in the file, exclusive here
    assert abs(int(p.images[0, 2, 5, 5]) - 200) < 8
    numpys = data.tiny_imagenet("val", classes=np.int64(1), per_class=np.int64(1))
    assert torch.equal(numpys.images, data.tiny_imagenet("val", classes=1, per_class=1).images)
    only = data.tiny_imagenet("val", classes="goldfish", per_class=1)
    assert (len(only.images), only.labels.tolist(), only.classes) == (1, [0], ("n02",))
    assert data.tiny_imagenet("val", classes=1).names == ("bullfrog",)
    gray = data.tiny_imagenet("train")
    assert gray.images[0, 0].equal(gray.images[0, 2])
    assert gray.boxes.tolist() == [[0, 0, 64, 64]] * 2


def test_loaders_name_bad_arguments(folder):
    write_tiny_imagenet(folder)
    with pytest.raises(ValueError, match="split must be one of 'train', 'val', got 'valid'"):
        data.tiny_imagenet("valid")
    with pytest.raises(ValueError, match=r"classes must be .*goldfish.*got 'goldfisch'"):
        data.tiny_imagenet("val", classes=["goldfisch"])
    with pytest.raises(ValueError, match="classes must be one or more, each once"):
        data.tiny_imagenet("val", classes=["n01", "n01"])
    with pytest.raises(ValueError, match="per_class must be an integer of at least 1, got 0"):
        data.tiny_imagenet("val", per_class=0)
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'val'"):
        data.mnist("val")
    with pytest.raises(ValueError, match=r"name must be one of .*got 'cifar'"):
        data.available("cifar")


@pytest.mark.parametrize(("load", "name"), [(data.mnist, "mnist"), (data.tiny_imagenet, "tiny-imagenet")])
def test_missing_data_says_how_to_get_it(folder, load, name):
    assert not data.available(name)
    with pytest.raises(
        data.DataMissing, match=rf"python -m helpers.data import .*python -m helpers.data download {name}"
    ):
        load("train")


def test_data_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    assert data.data_dir() == tmp_path
    monkeypatch.delenv("HELPERS_DATA")
    assert data.data_dir().name == "where-networks-look"


@pytest.mark.skipif(not data.available("mnist"), reason="MNIST is not in the data folder")
def test_real_mnist():
    images, labels, _ = data.mnist("test")
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images.mean().item() == pytest.approx(0.1325, abs=1e-3)


@pytest.mark.skipif(not data.available("tiny-imagenet"), reason="Tiny ImageNet is not in the data folder")
def test_real_tiny_imagenet():
    p = data.tiny_imagenet("train", classes=3, per_class=20)
    assert p.labels.bincount().tolist() == [20, 20, 20]
    assert (p.boxes[:, 2:] > p.boxes[:, :2]).all()
    assert p.boxes.max() <= 64


@pytest.mark.parametrize("content", [b"", b"<html>403</html>" * 9])
def test_an_mnist_of_other_files_is_missing(folder, content):
    write_mnist(folder)
    for path in (folder / "MNIST" / "raw").iterdir():
        path.write_bytes(content)
    with pytest.raises(data.DataMissing, match="is incomplete: remove it and import or download MNIST again"):
        data.mnist("test")


HALF = b"\xff\xd8\xff\xe0 half a photograph"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("val/val_annotations.txt", "val_0.JPEG\tn01\n"),
        ("val/val_annotations.txt", "<html>403</html>"),
        ("val/val_annotations.txt", ""),
        ("wnids.txt", ""),
        ("words.txt", "<html>"),
        ("words.txt", b"\xff\xfe"),
        ("val/images", None),
        ("val/images", b""),
        ("val/images", HALF),
    ],
)
def test_a_tiny_imagenet_of_other_files_is_missing(folder, file, content):
    write_tiny_imagenet(folder)
    path = folder / "tiny-imagenet-200" / file
    content = content.encode() if isinstance(content, str) else content
    for target in path.iterdir() if path.is_dir() else [path]:
        target.unlink() if content is None else target.write_bytes(content)
    with pytest.raises(data.DataMissing, match="is incomplete or damaged: remove it and get Tiny Image"):
        data.tiny_imagenet("val")
