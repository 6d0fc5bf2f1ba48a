"""Drawn and handwritten digits, alone, on larger canvases and placed."""

import numpy as np
import pytest
import torch

from helpers import data
from helpers.boxes import mask_boxes


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
    boxes = mask_boxes(drawn)
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
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


def test_place_puts_every_image_where_it_was_told():
    images = torch.rand(3, 2, 4, 5)
    corners = torch.tensor([[0, 0], [6, 5], [2, 3]])
    canvases = data.place(images, corners, 10)
    assert canvases.shape == (3, 2, 10, 10)
    for image, canvas, (r, c) in zip(images, canvases, corners.tolist(), strict=True):
        assert torch.equal(canvas[:, r : r + 4, c : c + 5], image)
    torch.testing.assert_close(canvases.sum((1, 2, 3)), images.sum((1, 2, 3)))
    assert data.place(images[:0], corners[:0], 10).shape == (0, 2, 10, 10)


@pytest.mark.parametrize("corners", [[[0, 0]], [[0, 0], [0, 7], [0, 0]], [[0, 0], [-1, 0], [0, 0]]])
def test_place_refuses_what_would_leave_the_canvas(corners):
    with pytest.raises(ValueError, match="corners"):
        data.place(torch.rand(3, 1, 4, 4), torch.tensor(corners), 10)
