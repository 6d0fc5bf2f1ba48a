"""The embedded worlds and the loaders of real data."""

import hashlib
import math
import time

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Polygon
from PIL import Image

from helpers import data
from helpers.data._draw import random as raster
from helpers.data._draw import sdf as outlines
from helpers.data._draw import shapes as drawing
from helpers.data._draw import textures


def sha256(*tensors: torch.Tensor) -> str:
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return state.hexdigest()


# --- same seed, same bytes -------------------------------------------------------------------------------------------

PINNED = {
    "digits": (lambda: data.digits(64, seed=5), "fa20eebfc313d321f33d7c576b0dec331f0f2ed7abe5cc2b162ea55a1830de89"),
    "digits on a large canvas": (
        lambda: data.digits(20, seed=5, size=56, rotate=40, fonts="STIX General"),
        "2db1f8d5475393ed18fc99d30beb4568b02e0e642dfd3b530d255a4a59dca558",
    ),
    "blank": (
        lambda: data.digit_scenes(20, seed=7, digits=(1, 4)),
        "ec703f02370b46fe27036893b27a76d2c02f1a3b3979cae99a9ecdb629f606fa",
    ),
    "noise": (
        lambda: data.digit_scenes(20, seed=7, background="noise"),
        "45254df3d47dd602e288caae64ea998497858a61a40e1ef9f3f847ca0f926ff4",
    ),
    "fragments": (
        lambda: data.digit_scenes(20, seed=7, background="fragments"),
        "9b126331d00440c678da849cb31be37f685441d230f7882b7545d2380e14ef7d",
    ),
    "scenes": (lambda: data.scenes(64, seed=5), "2be13f910a7b20b0366b81e140bd767d9c8c6ec376ad1d36840c1cf15223ca12"),
    "several objects": (
        lambda: data.scenes(32, seed=6, objects=(1, 4), text=True, size=96, bias=0.5),
        "66c281fcd09e44eef16022f9eba344971c1b53cb6f31d54743a1895db5f417f1",
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_bytes_are_pinned(name):
    """These hashes are the same with numpy 1.26, matplotlib 3.8 and scikit-image 0.22 as with the newest."""
    make, wanted = PINNED[name]
    assert sha256(*make()) == wanted


@pytest.mark.parametrize("make", [data.digits, data.scenes, lambda n: data.scenes(n, objects=(1, 3), text=True)])
def test_first_images_do_not_depend_on_n(make):
    many, few = make(300), make(7)
    for a, b in zip(many, few, strict=True):
        torch.testing.assert_close(a[:7], b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("make", [data.digits, data.scenes, data.digit_scenes])
def test_seed_matters(make):
    assert not torch.equal(make(8, 0).images, make(8, 1).images)


# --- the core --------------------------------------------------------------------------------------------------------


def test_uniforms_are_the_top_53_bits():
    raw = np.random.PCG64([3, 1]).random_raw(2)
    wanted = [int(r) // 2**11 / 2**53 for r in raw]
    assert raster.uniforms(raster.bit_stream(3, 1), 2).tolist() == wanted


def test_rotation_agrees_with_cos_and_sin():
    degrees = np.linspace(-90, 90, 37)
    cos, sin = raster.rotation(degrees)
    np.testing.assert_allclose(cos, [math.cos(math.radians(d)) for d in degrees], atol=4e-4)
    np.testing.assert_allclose(sin, [math.sin(math.radians(d)) for d in degrees], atol=4e-4)
    np.testing.assert_allclose(cos * cos + sin * sin, 1, atol=1e-15)


def test_signed_distance_of_a_square_by_hand():
    square = [np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])]
    x, y = np.array([0.0, 0.5, 2.0, 4.0, -1.0]), np.array([0.0, 0.0, 0.0, 5.0, 0.0])
    # The middle, inside, outside a side, outside a corner (3-4-5), on a side.
    assert outlines.signed_distance(square, x, y).tolist() == [-1.0, -0.5, 1.0, 5.0, 0.0]


def test_signed_distance_leaves_the_hole_of_a_ring_open():
    x, y = np.array([0.0, 0.75, 1.2]), np.zeros(3)
    assert (outlines.signed_distance(outlines.shape_contours("ring"), x, y) < 0).tolist() == [False, True, False]


@pytest.mark.parametrize("name", [n for n in data.CLASSES if n != "ring"])
def test_inside_agrees_with_matplotlib(name):
    contour = outlines.shape_contours(name)[0]
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 2))
    inside = outlines.signed_distance([contour], points[:, 0], points[:, 1]) < 0
    assert (inside == Polygon(contour).contains_points(points)).all()


def test_glyph_contours_are_font_units():
    # The "1" of DejaVu Sans, read off the font: one contour of straight lines.
    (contour,) = outlines.glyph_contours("DejaVuSans.ttf", "1")
    assert contour[:5].tolist() == [[254, 170], [584, 170], [584, 1309], [225, 1237], [225, 1421]]
    assert len(outlines.glyph_contours("DejaVuSans.ttf", "8")) == 3  # the outline and its two holes


def test_coverage_of_a_square_by_hand():
    # A square of 8 x 8 pixels about (8, 8) in 16 x 16; then moved by half a pixel to the right.
    field = outlines._field([np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])])[None]
    matrix, zero = np.eye(2)[None] / 4, np.zeros(1)
    centred = raster.coverage(field, np.array([0]), matrix, np.array([[8.0, 8.0]]), np.array([4.0]), 16, zero)[0]
    assert centred[4:12, 4:12].min() > 0.9
    assert centred.sum() == pytest.approx(64, abs=2)
    moved = raster.coverage(field, np.array([0]), matrix, np.array([[8.5, 8.0]]), np.array([4.0]), 16, zero)[0]
    np.testing.assert_allclose(moved[8, [3, 4, 5, 11, 12, 13]], [0, 0.5, 1, 1, 0.5, 0], atol=0.02)
    grown = raster.coverage(field, np.array([0]), matrix, np.array([[8.0, 8.0]]), np.array([4.0]), 16, zero + 1)[0]
    assert (grown[8] > 0.5).sum() == 10


def test_coverage_reads_between_grid_points():
    """A half-plane's distance is linear, so sampling it between grid points must give it back."""
    axis = np.linspace(-1.5, 1.5, raster.FIELD_POINTS)
    field = (0.6 * axis[None, :] + 0.8 * axis[:, None]).astype(np.float32)[None]
    centre, scale = np.array([[3.1, 4.7]]), np.array([5.0])
    drawn = raster.coverage(field, np.array([0]), np.eye(2)[None] / 5, centre, scale, 8, np.zeros(1))[0]
    x, y = np.meshgrid(np.arange(8) + 0.5 - 3.1, np.arange(8) + 0.5 - 4.7)
    np.testing.assert_allclose(drawn, np.clip(0.5 - (0.6 * x + 0.8 * y), 0, 1), atol=1e-5)


def test_mask_boxes_by_hand():
    masks = np.zeros((2, 5, 6), bool)
    masks[0, 1:3, 2] = masks[0, 2, 4] = True
    boxes = raster.mask_boxes(masks)
    assert boxes[0].tolist() == [2, 1, 5, 3]
    assert np.isnan(boxes[1]).all()


def test_luminance_is_exact():
    u = np.random.default_rng(0).random((100, 3))
    wanted = np.linspace(0.06, 0.94, 100)
    colour = drawing.luminance_colour(u, wanted, np.ones(100))
    np.testing.assert_allclose(colour @ [0.299, 0.587, 0.114], wanted, atol=1e-6)
    assert colour.min() >= -1e-6
    assert colour.max() <= 1 + 1e-6


@pytest.mark.parametrize("kind", range(8))
def test_textures_use_their_whole_range(kind):
    rng = np.random.default_rng(0)
    shape = (4, textures.PARAMETERS), (4, textures.CLOUD_VALUES)
    drawn = textures.background(np.full(4, kind), rng.random(shape[0]), rng.random(shape[1]), 64)
    assert drawn.shape == (4, 64, 64)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert (np.quantile(drawn, 0.9, axis=(1, 2)) - np.quantile(drawn, 0.1, axis=(1, 2)) > 0.25).all()


# --- digits ----------------------------------------------------------------------------------------------------------


def test_digits_contract():
    images, labels, fonts = data.digits(103, seed=2, size=32)
    assert images.shape == (103, 1, 32, 32)
    assert (images.dtype, labels.dtype, fonts.dtype) == (torch.float32, torch.int64, torch.int64)
    assert images.min() == 0
    assert images.max() == 1
    counts = labels.bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    assert fonts.unique().tolist() == list(range(len(data.DIGIT_FONTS)))


def test_digits_are_framed_like_mnist():
    drawn = data.digits(200, rotate=0, shear=0, scale=(1, 1), shift=0, stroke=(0, 0)).images[:, 0] >= 0.5
    boxes = raster.mask_boxes(drawn.numpy())
    longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    assert longer.min() >= 19
    assert longer.max() <= 22
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, 14, atol=1)


def test_digits_shift_and_stroke():
    plain = {"rotate": 0, "shear": 0, "scale": (1, 1), "shift": 0}
    thin = data.digits(50, stroke=(0, 0), **plain).images.sum()
    assert data.digits(50, stroke=(1, 1), **plain).images.sum() > 1.3 * thin
    still = data.digits(50, rotate=0, shear=0, scale=(1, 1), stroke=(0, 0), shift=0).images
    assert not torch.equal(still, data.digits(50, rotate=0, shear=0, scale=(1, 1), stroke=(0, 0), shift=3).images)


def test_fonts_can_be_held_out():
    names = list(data.DIGIT_FONTS)
    train, test = data.digits(50, fonts=names[:6]), data.digits(50, fonts=names[6])
    assert set(train.fonts.tolist()) == set(range(6))
    assert set(test.fonts.tolist()) == {6}


def test_digit_scenes_contract():
    s = data.digit_scenes(60, seed=1, digits=(1, 4))
    assert s.images.shape == (60, 1, 84, 84)
    there = s.labels >= 0
    assert set(there.sum(1).tolist()) == {1, 2, 3, 4}
    assert s.masks.flatten(2).any(-1).equal(there)
    assert s.boxes.isnan().all(-1).equal(~there)
    assert (s.masks.sum(1) <= 1).all()  # no two digits on one pixel
    assert s.images[s.masks.any(1, keepdim=True)].min() >= 0.5
    assert not s.images[~s.masks.any(1, keepdim=True)].max() >= 0.5


def test_digit_scenes_backgrounds():
    blank, noise, fragments = (data.digit_scenes(20, background=b) for b in data.DIGIT_BACKGROUNDS)
    assert [int(s.backgrounds[0]) for s in (blank, noise, fragments)] == [0, 1, 2]
    for other in (noise, fragments):
        assert other.masks.equal(blank.masks)
        assert other.images.mean() > blank.images.mean() + 0.02
        assert (other.images >= blank.images).all()


def test_handwritten():
    images, labels, fonts = data.handwritten()
    assert images.shape == (1797, 1, 8, 8)
    assert images.max() == 1
    assert labels[:10].tolist() == list(range(10))
    assert (fonts == -1).all()


# --- scenes ----------------------------------------------------------------------------------------------------------


def test_scenes_contract():
    s = data.scenes(80, seed=1, objects=(1, 3), size=48)
    assert s.images.shape == (80, 3, 48, 48)
    assert s.labels.shape == (80, 3)
    assert s.boxes.shape == (80, 3, 4)
    assert s.masks.shape == (80, 3, 48, 48)
    assert s.backgrounds.shape == (80,)
    there = s.labels >= 0
    assert set(there.sum(1).tolist()) == {1, 2, 3}
    assert there[:, 0].all()
    assert s.masks.flatten(2).any(-1).equal(there)
    assert (s.masks.sum(1) <= 1).all()
    counts = s.labels[:, 0].bincount()
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("objects", [1, (2, 4)])
def test_boxes_are_tight(objects):
    s = data.scenes(40, seed=3, objects=objects)
    for mask, box in zip(s.masks.flatten(0, 1), s.boxes.flatten(0, 1), strict=True):
        if mask.any():
            rows, columns = mask.nonzero(as_tuple=True)
            wanted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(v) for v in wanted]


def test_objects_stay_inside_and_keep_their_scale():
    s = data.scenes(400, seed=4, scale=(0.3, 0.4))
    assert s.boxes.min() >= 1
    assert s.boxes.max() <= 63
    longer = (s.boxes[:, 0, 2:] - s.boxes[:, 0, :2]).amax(1)
    assert longer.min() >= 0.3 * 64 * 0.7
    assert longer.max() <= 0.4 * 64 * 1.03
    wide = data.scenes(64, size=256, scale=(0.9, 0.9))
    assert not wide.masks[..., 0].any()
    assert not wide.masks[..., -1].any()


def test_background_shift_leaves_objects_alone():
    a, b = data.scenes(64, seed=2), data.scenes(64, seed=2, background_shift=3)
    assert b.backgrounds.equal((a.backgrounds + 3) % 8)
    for field in ("labels", "boxes", "masks"):
        assert getattr(a, field).equal(getattr(b, field))
    # The interior: pixels whose eight neighbours belong to the object too (the rim is antialiased).
    inside = -torch.nn.functional.max_pool2d(-a.masks.float(), 3, 1, 1) > 0
    inside = inside.expand_as(a.images)
    assert inside.sum() > 1000
    assert a.images[inside].equal(b.images[inside])
    outside = ~(torch.nn.functional.max_pool2d(a.masks.float(), 5, 1, 2) > 0).expand_as(a.images)
    assert (a.images[outside] != b.images[outside]).float().mean() > 0.8


@pytest.mark.parametrize("bias", [0.0, 0.6, 1.0])
def test_bias_is_the_documented_probability(bias):
    s = data.scenes(2000, seed=8, bias=bias, size=32)
    tied = (s.backgrounds == s.labels[:, 0]).float().mean().item()
    wanted = bias + (1 - bias) / 8
    assert tied == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / 2000) + 1e-9)


def test_contrast_is_guaranteed():
    s = data.scenes(200, seed=9)
    gray = (s.images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    inside = -torch.nn.functional.max_pool2d(-s.masks.float(), 3, 1, 1)[:, 0] > 0
    # Three pixels away: the horns of a crescent cover their last pixels by less than half.
    outside = ~(torch.nn.functional.max_pool2d(s.masks.float(), 7, 1, 3)[:, 0] > 0)
    for image, own, rest in zip(gray, inside, outside, strict=True):
        low, high = (own, rest) if image[own].mean() < image[rest].mean() else (rest, own)
        assert image[high].min() - image[low].max() >= 0.15


def test_colour_and_place_say_nothing_about_the_class():
    s = data.scenes(3000, seed=10, size=32)
    labels = s.labels[:, 0]
    centre = (s.boxes[:, 0, :2] + s.boxes[:, 0, 2:]) / 2
    features = torch.cat([s.images.mean((2, 3)), centre / 32, torch.ones(3000, 1)], 1)
    onehot = torch.nn.functional.one_hot(labels, 8).float()
    weights = torch.linalg.lstsq(features[:2000], onehot[:2000]).solution
    right = ((features[2000:] @ weights).argmax(1) == labels[2000:]).float().mean()
    assert right < 0.125 + 4 * math.sqrt(0.125 * 0.875 / 1000)


def test_words():
    s = data.scenes(60, seed=11, objects=(1, 2), text=True)
    assert s.labels.shape == (60, 3)
    assert (s.labels[:, 2] == data.WORD_LABEL).all()
    assert (s.masks.sum(1) <= 1).all()
    width, height = (s.boxes[:, 2, 2:] - s.boxes[:, 2, :2]).unbind(1)
    assert (width > 1.8 * height).all()
    assert {bool(top < 32) for top in s.boxes[:, 2, 1]} == {True, False}


def test_scenes_are_quick():
    data.scenes(8)  # the fields of the shapes are made once
    start = time.process_time()
    data.scenes(1000)
    assert time.process_time() - start < 3  # a tenth of 10,000 in 30 s on one core


# --- arguments -------------------------------------------------------------------------------------------------------


def test_nothing_is_fine():
    assert data.digits(0).images.shape == (0, 1, 28, 28)
    assert data.scenes(0, objects=(1, 2)).boxes.shape == (0, 2, 4)
    assert data.digit_scenes(0).masks.shape == (0, 1, 84, 84)


@pytest.mark.parametrize(
    ("make", "arguments", "name"),
    [
        (data.digits, {"n": -1}, "n"),
        (data.digits, {"n": 2.5}, "n"),
        (data.digits, {"n": 1, "seed": -1}, "seed"),
        (data.digits, {"n": 1, "seed": 1.5}, "seed"),
        (data.digits, {"n": 1, "size": 3}, "size"),
        (data.digits, {"n": 1, "fonts": ["Comic Sans"]}, "fonts"),
        (data.digits, {"n": 1, "fonts": []}, "fonts"),
        (data.digits, {"n": 1, "rotate": 120}, "rotate"),
        (data.digits, {"n": 1, "scale": (1.2, 0.8)}, "scale"),
        (data.digits, {"n": 1, "stroke": "bold"}, "stroke"),
        (data.digit_scenes, {"n": 1, "background": "grass"}, "background"),
        (data.digit_scenes, {"n": 1, "digits": 16}, "digits"),
        (data.digit_scenes, {"n": 1, "digits": 0}, "digits"),
        (data.digit_scenes, {"n": 1, "digits": 1.5}, "digits"),
        (data.scenes, {"n": 1, "bias": 1.5}, "bias"),
        (data.scenes, {"n": 1, "bias": float("nan")}, "bias"),
        (data.scenes, {"n": 1, "bias": (0.2, 0.4)}, "bias"),
        (data.scenes, {"n": 1, "objects": 9, "size": 32}, "objects"),
        (data.scenes, {"n": 1, "objects": (3, 2)}, "objects"),
        (data.scenes, {"n": 1, "background_shift": -1}, "background_shift"),
        (data.scenes, {"n": True}, "n"),
    ],
)
def test_bad_arguments_are_named(make, arguments, name):
    with pytest.raises(ValueError, match=rf"^{name}: got .*want"):
        make(**arguments)


# --- photographs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", data.PHOTOS)
def test_photos(name):
    picture = data.photo(name)
    assert picture.dtype == torch.float32
    assert picture.ndim == 3
    assert picture.shape[0] == 3
    assert picture.min() >= 0
    assert 0.5 < picture.max() <= 1
    assert picture.is_contiguous()


def test_photos_are_upright_and_in_colour():
    assert data.photo("cat").shape == (3, 300, 451)
    assert data.photo("brick")[0].equal(data.photo("brick")[2])
    red, _, blue = data.photo("rocket")[:, 200:400].mean((1, 2))
    assert red != blue
    red, green, blue = data.photo("retina")[:, 600:800, 600:800].mean((1, 2))
    assert red > green > blue  # an eye's background is orange


def test_unknown_photo_lists_near_names():
    with pytest.raises(ValueError, match="did you mean astronaut"):
        data.photo("astronat")


# --- loaders, on made-up data in the true formats ---------------------------------------------------------------------


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
    only = data.tiny_imagenet("val", classes="goldfish", per_class=1)
    assert (len(only.images), only.labels.tolist(), only.classes) == (1, [0], ("n02",))
    assert data.tiny_imagenet("val", classes=1).names == ("bullfrog",)
    gray = data.tiny_imagenet("train")
    assert gray.images[0, 0].equal(gray.images[0, 2])
    assert gray.boxes.tolist() == [[0, 0, 64, 64]] * 2


def test_loaders_name_bad_arguments(folder):
    write_tiny_imagenet(folder)
    with pytest.raises(ValueError, match="split: got 'valid'"):
        data.tiny_imagenet("valid")
    with pytest.raises(ValueError, match=r"classes: got 'goldfisch'.*goldfish"):
        data.tiny_imagenet("val", classes=["goldfisch"])
    with pytest.raises(ValueError, match=r"classes: .*each once"):
        data.tiny_imagenet("val", classes=["n01", "n01"])
    with pytest.raises(ValueError, match="per_class: got 0"):
        data.tiny_imagenet("val", per_class=0)
    with pytest.raises(ValueError, match="split: got 'val'"):
        data.mnist("val")
    with pytest.raises(ValueError, match="name: got 'cifar'"):
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


def test_worlds_open_no_socket(monkeypatch):
    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    data.digits(1), data.scenes(1), data.digit_scenes(1), data.handwritten(), data.photo("coffee")


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


def test_place_puts_every_image_where_it_was_told():
    images = torch.rand(3, 2, 4, 5)
    corners = torch.tensor([[0, 0], [6, 5], [2, 3]])
    made = data.place(images, corners, 10)
    assert made.shape == (3, 2, 10, 10)
    for image, canvas, (r, c) in zip(images, made, corners.tolist(), strict=True):
        assert torch.equal(canvas[:, r : r + 4, c : c + 5], image)
    torch.testing.assert_close(made.sum((1, 2, 3)), images.sum((1, 2, 3)))


@pytest.mark.parametrize(
    "corners", [[[0, 0]], [[0, 0], [0, 7], [0, 0]], [[0, 0], [-1, 0], [0, 0]], [[0.0, 0], [0, 0], [0, 0]]]
)
def test_place_refuses_what_would_leave_the_canvas(corners):
    with pytest.raises(ValueError, match="corners"):
        data.place(torch.rand(3, 1, 4, 4), torch.tensor(corners), 10)


def test_place_of_nothing_is_nothing():
    assert data.place(torch.zeros(0, 1, 4, 4), torch.zeros(0, 2, dtype=torch.long), 10).shape == (0, 1, 10, 10)


def test_a_share_of_scenes_has_a_word_and_the_others_the_same_room():
    half, whole = data.scenes(300, seed=21, text=0.5), data.scenes(300, seed=21, text=True)
    written = half.labels[:, -1] == data.WORD_LABEL
    assert 0.4 < written.double().mean() < 0.6
    assert set(half.labels[:, -1].tolist()) == {-1, data.WORD_LABEL}
    assert torch.equal(half.images[written], whole.images[written])
    assert half.boxes[~written][:, -1].isnan().all()
    assert not half.masks[~written][:, -1].any()
    # Without a word: the same scene but for the letters' pixels (and the half-covered ones around them).
    changed = (half.images[~written] != whole.images[~written]).any(1)
    rows = changed.any(2).double().sum(1)
    assert rows.max() <= 64 * 7 // 32
    assert changed[whole.masks[~written][:, -1]].double().mean() > 0.99
    assert torch.equal(half.masks[:, 0], whole.masks[:, 0])


def test_the_share_of_words_has_its_ends_and_is_checked():
    assert (data.scenes(40, seed=3, text=1).labels[:, -1] == data.WORD_LABEL).all()
    assert torch.equal(data.scenes(8, seed=3, text=1.0).images, data.scenes(8, seed=3, text=True).images)
    for share in (-0.1, 1.5, float("nan"), "yes"):
        with pytest.raises(ValueError, match="text"):
            data.scenes(2, text=share)
