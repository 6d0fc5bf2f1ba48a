"""Photographs of any size: class folders, the ImageNet sample and the COCO sample, made up of a few pictures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import data


def save(path, width, height, colour=(200, 30, 90)):
    """A picture with a dark left half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), colour, np.uint8)
    pixels[:, : width // 2] = 0
    Image.fromarray(pixels).save(path)


def test_class_folders_are_read_in_order_whatever_the_pictures_sizes(tmp_path):
    save(tmp_path / "b" / "1.png", 40, 32)
    save(tmp_path / "a" / "2.JPG", 32, 50)
    save(tmp_path / "a" / "1.png", 32, 32)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    photos = data.picture_folder(tmp_path, 28)
    assert photos.images.shape == (3, 3, 28, 28)
    assert photos.images.dtype == torch.uint8
    assert photos.labels.tolist() == [0, 0, 1]
    assert photos.names == ("a", "b")
    assert photos.boxes.isnan().all()


def test_the_middle_is_cut_out_and_not_resampled_where_it_fits(tmp_path):
    values = np.arange(32 * 40, dtype=np.uint8).reshape(32, 40)
    (tmp_path / "a").mkdir()
    Image.fromarray(values).convert("RGB").save(tmp_path / "a" / "1.png")
    image = data.picture_folder(tmp_path, 28).images[0]  # 0.875 of 32 pixels
    assert (image[1].numpy() == values[2:30, 6:34]).all()
    assert (data.picture_folder(tmp_path, 32, crop=1.0).images[0, 2].numpy() == values[:, 4:36]).all()
    half = data.picture_folder(tmp_path, 16, crop=1.0).images
    assert half.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_picture_that_cannot_be_read_is_named(content, tmp_path):
    save(tmp_path / "a" / "1.png", 32, 32)
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "2.png").write_bytes(whole[:60] if content is None else content)
    with pytest.raises(ValueError, match=r"2\.png cannot be read as a picture"):
        data.picture_folder(tmp_path)


def test_no_folder_and_bad_sizes_are_refused(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="folder must hold a folder of pictures for each class"):
            data.picture_folder(folder)
    save(tmp_path / "a" / "1.png", 32, 32)
    for options in ({"size": 0}, {"size": 8, "crop": 0}, {"size": 8, "crop": 1.5}):
        with pytest.raises(ValueError, match=r"size|crop"):
            data.picture_folder(tmp_path, **options)


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """A data folder with both samples, of three pictures each."""
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    home = tmp_path / "imagenet-sample"
    for wnid, name in (("n01440764", "tench"), ("n02", "great_white_shark"), ("n03", "cup")):
        save(home / f"{wnid}_{name}.jpg", 300, 256)
    home = tmp_path / "coco-sample"
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        save(home / "images" / name, 80, 40)
    boxes = ["image,width,height,category,x0,y0,x1,y1"]
    boxes += ["1.jpg,80,40,cup,30,10,50,30", "1.jpg,80,40,apple,20,0,60,40"]  # the frame is 20 .. 60
    boxes += ["2.jpg,80,40,cup,0,0,30,10", "2.jpg,80,40,dog,0,0,25,5"]  # a third of it inside, and a fifth
    boxes += ["3.jpg,80,40,dog,10,0,40,40"]  # two thirds inside
    (home / "boxes.csv").write_text("\n".join(boxes))
    square = {"category": "cup", "polygon": [[30, 10], [50, 10], [50, 30], [30, 30]]}
    large = {"category": "apple", "polygon": [[20, 0], [60, 0], [60, 40], [20, 40]]}
    far = {"category": "cup", "polygon": [[0, 0], [4, 0], [4, 4]]}  # belongs to no box
    (home / "polygons.json").write_text(json.dumps({"1.jpg": [square, large, far]}))
    return tmp_path


def test_the_imagenet_sample_is_in_the_order_of_its_classes(sample, capsys):
    photos = data.imagenet_sample()
    assert photos.images.shape == (3, 3, 224, 224)
    assert photos.names == ("tench", "great white shark", "cup")
    assert photos.labels.tolist() == [0, 1, 2]
    assert "the ImageNet sample, one a class: 3 images" in capsys.readouterr().out


def test_objects_are_moved_with_the_frame_by_hand(sample):
    objects = data.coco_sample(80)  # pixels of the files times two
    assert objects.classes == ("apple", "cup", "dog")
    assert len(objects.images) == 2  # of the second picture nothing is left
    assert objects.labels.tolist() == [[1, 0], [2, -1]]
    assert objects.boxes[0].tolist() == [[20, 20, 60, 60], [0, 0, 80, 80]]
    assert objects.boxes[1, 0].tolist() == [0, 0, 40, 80]
    assert objects.boxes[1, 1].isnan().all()
    owner = objects.outlines[0]
    assert (owner[30:50, 30:50] == 0).all()  # the cup lies on the apple, and is the smaller one
    assert (owner[:18] == 1).all()
    assert (objects.outlines[1] == -1).all()


def test_damaged_samples_say_so(sample):
    (sample / "coco-sample" / "boxes.csv").write_text("image,width\n1.jpg,eighty")
    with pytest.raises(data.DataMissing, match="damaged: remove it and get the COCO sample again"):
        data.coco_sample()
    (sample / "imagenet-sample" / "n02_great_white_shark.jpg").write_bytes(b"")
    with pytest.raises(data.DataMissing, match="damaged: remove it and get the ImageNet sample again"):
        data.imagenet_sample()


def test_missing_samples_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    for load in (data.imagenet_sample, data.coco_sample):
        with pytest.raises(data.DataMissing, match=r"python -m helpers\.data import"):
            load()
