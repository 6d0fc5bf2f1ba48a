"""Scenes: objects, backgrounds and words; scenes without an object."""

import math
import time

import pytest
import torch

from helpers import data
from helpers.data import CLASSES, scenes


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
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(v) for v in expected]


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
    expected = bias + (1 - bias) / 8
    assert tied == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 2000) + 1e-9)


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


def test_the_share_of_words_has_its_ends_and_is_checked_as_the_objects_are():
    assert (data.scenes(40, seed=3, text=1).labels[:, -1] == data.WORD_LABEL).all()
    assert torch.equal(data.scenes(8, seed=3, text=1.0).images, data.scenes(8, seed=3, text=True).images)
    for wrong in ({"text": 1.5}, {"text": "yes"}, {"objects": (0, 0)}, {"objects": (-1, 1)}, {"objects": (0, 17)}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must"):
            data.scenes(2, **wrong)


def test_empty_scenes_have_no_label_no_box_and_no_mask():
    assert scenes(0, objects=(0, 1)).images.shape == (0, 3, 64, 64)
    written = scenes(60, 15, objects=(0, 1), text=True)
    assert (written.labels[:, 1] == len(CLASSES)).all()
    assert written.masks[:, 1].flatten(1).any(1).all()
    s = scenes(400, 5, objects=(0, 1))
    assert s.images.shape == (400, 3, 64, 64)
    assert s.labels.shape == (400, 1)
    assert s.boxes.shape == (400, 1, 4)
    assert s.masks.shape == (400, 1, 64, 64)
    empty = s.labels[:, 0] == -1
    assert 160 < empty.sum() < 240  # about half: 200, four standard deviations are 40
    assert s.boxes[empty].isnan().all()
    assert not s.masks[empty].any()
    assert not s.boxes[~empty].isnan().any()
    assert s.masks[~empty].flatten(1).any(1).all()
    assert s.labels[~empty].min() == 0
    assert s.labels[~empty].max() == 7
    assert s.backgrounds.min() == 0  # an empty scene has its ground all the same
    assert set(s.backgrounds[empty].tolist()) == set(range(8))
    dtypes = [s.images.dtype, s.labels.dtype, s.boxes.dtype, s.masks.dtype, s.backgrounds.dtype]
    assert dtypes == [torch.float32, torch.int64, torch.float32, torch.bool, torch.int64]


@pytest.mark.parametrize("options", [{}, {"size": 96, "bias": 0.5}, {"background_shift": 3, "scale": (0.2, 0.3)}])
def test_scenes_that_have_an_object_are_those_that_always_have_one_byte_for_byte(options):
    some, always = scenes(200, 7, objects=(0, 1), **options), scenes(200, 7, **options)
    full = some.labels[:, 0] >= 0
    for first, second in zip(some, always, strict=True):
        assert first[full].equal(second[full])
    assert some.backgrounds.equal(always.backgrounds)
    # An empty scene is the same ground: 4 pixels from where the object would be (thin tips cover less than half of
    # their pixels, which are not in the mask), byte for byte; within it, not.
    empty = ~full
    near = torch.nn.functional.max_pool2d(always.masks.float(), 7, 1, 3).bool().expand(-1, 3, -1, -1)
    same = some.images == always.images
    assert same[empty][~near[empty]].all()
    inside = always.masks.expand(-1, 3, -1, -1)
    assert same[empty][inside[empty]].double().mean() < 0.05


def test_an_empty_scene_is_ground_alone():
    some = scenes(200, 9, objects=(0, 1))
    empty = some.labels[:, 0] < 0
    # A ground mixes two colours: its pixels lie on a line in the space of colours. An object has colours of its own.
    pixels = some.images.flatten(2).double()
    spread = torch.linalg.svdvals(pixels - pixels.mean(2, keepdim=True)) / 64  # root mean square along each axis
    assert spread[empty, 1].max() < 1 / 255
    assert (spread[~empty, 1] > 1 / 255).double().mean() > 0.95


def test_first_scenes_do_not_depend_on_how_many_there_are():
    for first, second in zip(scenes(10, 3, objects=(0, 1)), scenes(150, 3, objects=(0, 1)), strict=True):
        torch.testing.assert_close(first, second[:10], rtol=0, atol=0, equal_nan=True)


def test_whether_a_scene_is_empty_says_nothing_about_its_ground():
    s = scenes(2000, 11, objects=(0, 1), size=32)
    empty = (s.labels[:, 0] < 0).double()
    for ground in range(8):
        assert float(empty[s.backgrounds == ground].mean()) == pytest.approx(0.5, abs=0.13)  # four deviations of 0.032
    assert float(empty.mean()) == pytest.approx(0.5, abs=0.045)


def test_ranges_from_0_reach_further_than_1():
    s = scenes(600, 13, objects=(0, 2), size=32)
    objects = (s.labels >= 0).sum(1)
    for count in range(3):
        assert float((objects == count).double().mean()) == pytest.approx(1 / 3, abs=0.08)
    assert (s.labels[objects == 1, 0] >= 0).all()  # the first place is filled first
    assert (s.labels[objects == 1, 1] == -1).all()
    assert (s.labels >= 0).equal(s.masks.flatten(2).any(2))
    assert (s.labels < 0).equal(s.boxes.isnan().all(2))


def test_two_object_scenes_are_the_scenes_of_two_classes():
    pairs, drawn = data.two_object_scenes(40, 9), scenes(40, 9, objects=2)
    different = [k for k in range(40) if drawn.labels[k, 0] != drawn.labels[k, 1]]
    assert 25 < len(different) < 40
    for part, whole in zip(pairs, drawn, strict=True):
        torch.testing.assert_close(part, whole[different], rtol=0, atol=0, equal_nan=True)
    assert (pairs.labels >= 0).all()
