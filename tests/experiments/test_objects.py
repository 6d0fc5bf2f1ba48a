"""Images with one known object: as a network sees them, with the truth in the right places."""

import pytest
import torch
from support.licnn import close

from helpers.data import Photos, scenes
from helpers.experiments import objects
from helpers.experiments.train.recipes import IMAGENET_MEAN, IMAGENET_STD, RECIPES

CPU = torch.device("cpu")


def photos(count=12):
    """Photographs whose boxes grow: the k-th covers k / count of the image."""
    draw = torch.Generator().manual_seed(3)
    boxes = torch.tensor([[0.0, 0, 16, 16 * (k + 1) / count] for k in range(count)])
    images = torch.randint(0, 256, (count, 3, 16, 16), generator=draw).byte()
    return Photos(images, torch.arange(count) % 8, boxes, tuple("abcdefgh"), tuple("abcdefgh"))


def test_photographs_as_a_network_sees_them(monkeypatch):
    asked = []
    monkeypatch.setattr(objects, "tiny_imagenet", lambda split, classes: asked.append((split, classes)) or photos())
    x, labels, masks = objects.photographs("photos-gap", CPU)
    assert asked == [("val", RECIPES["photos-gap"].classes)]
    expected = photos()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    close(x, (expected.images.float() / 255 - mean) / std, 1e-6)
    assert labels.equal(expected.labels)
    # Rows whose centre lies above 16 (k + 1) / 12: row r does if r + 0.5 is less.
    rows = [sum(r + 0.5 < 16 * (k + 1) / 12 for r in range(16)) for k in range(12)]
    assert masks.dtype == torch.bool
    assert masks.sum((1, 2)).tolist() == [16 * r for r in rows]
    assert masks[0, 0].all()
    assert not masks[0, 8].any()
    objects.photographs("photos-200", CPU)
    assert asked[1] == ("val", None)  # all of them


@pytest.mark.parametrize("options", [{}, {"bias": 0.9, "background_shift": 4}])
def test_scenes_as_a_network_sees_them(options):
    x, labels, masks = objects.drawn_scenes("scenes-gmp", 5, 77, CPU, **options)
    expected = scenes(5, 77, **options)
    close(x, (expected.images - 0.5) / 0.25, 1e-6)
    assert labels.equal(expected.labels[:, 0])
    assert masks.equal(expected.masks[:, 0])
