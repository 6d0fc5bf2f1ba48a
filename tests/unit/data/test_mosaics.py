"""Mosaics: four pictures of four classes, each where its mask says."""

import pytest
import torch

from helpers import data, metrics

IMAGES = torch.arange(6 * 3 * 4 * 5).view(6, 3, 4, 5)
LABELS = torch.tensor([7, 2, 2, 9, 4, 0])


def test_each_quadrant_holds_its_picture():
    mosaics = data.mosaics(IMAGES, LABELS, 20, seed=1)
    assert mosaics.images.shape == (20, 3, 8, 10)
    assert mosaics.images.dtype == IMAGES.dtype
    for image, labels, masks, pictures in zip(*mosaics, strict=True):
        assert len(set(labels.tolist())) == 4
        assert labels.equal(LABELS[pictures])
        for mask, picture in zip(masks, pictures, strict=True):
            assert image[:, mask].view(3, 4, 5).equal(IMAGES[picture])
        assert masks.sum(0).eq(1).all()
    assert (mosaics.pictures == 1).any()
    assert (mosaics.pictures == 2).any()  # both pictures of the class come up


def test_a_map_of_the_right_quadrant_scores_one_and_an_even_one_a_quarter():
    mosaics = data.mosaics(IMAGES, LABELS, 2)
    right = mosaics.masks.float()
    assert metrics.mass_in_mask(right, mosaics.masks).eq(1).all()
    torch.testing.assert_close(metrics.mass_in_mask(torch.ones_like(right), mosaics.masks), torch.full((2, 4), 0.25))


def test_the_seed_decides():
    first, again, other = (data.mosaics(IMAGES, LABELS, 9, seed=seed).pictures for seed in (3, 3, 4))
    assert first.equal(again)
    assert not first.equal(other)


def test_too_few_classes_and_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="four classes at least, got 3"):
        data.mosaics(IMAGES[:4], LABELS[:4], 1)
    for arguments in (
        (IMAGES[0], LABELS, 1),
        (IMAGES, LABELS[:5], 1),
        (IMAGES, LABELS.float(), 1),
        (IMAGES, LABELS, 0),
    ):
        with pytest.raises(ValueError, match=r"must"):
            data.mosaics(*arguments)
