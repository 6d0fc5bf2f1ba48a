"""RISE by loops, and what its masks are."""

import pytest
import torch
from support.saliency import batch, tiny
from torch import nn

from helpers.saliency import rise
from helpers.saliency._rise import drawn_masks


@pytest.mark.parametrize("size", [(12, 12), (7, 20), (3, 3)])
@pytest.mark.parametrize("cells", [1, 4, 9])
def test_masks_are_smooth_cells_that_are_seen_as_often_as_asked(size, cells):
    masks = drawn_masks(400, size, cells, 0.3, 5)(torch.arange(400))
    assert masks.shape == (400, *size)
    assert 0 <= masks.min() < masks.max() <= 1
    assert masks.mean() == pytest.approx(0.3, abs=0.08)
    if cells == 4 and size == (12, 12):
        assert (masks[:, 1:] - masks[:, :-1]).abs().max() < 0.5  # a cell of three pixels: steps of a third and less
        assert len({mask.sum().item() for mask in masks}) > 300  # they are cut at different places


def test_masks_do_not_depend_on_how_they_are_asked_for():
    draw = drawn_masks(10, (8, 9), 3, 0.5, 1)
    whole = draw(torch.arange(10))
    assert torch.cat([draw(torch.arange(4)), draw(torch.arange(4, 10))]).equal(whole)
    assert not drawn_masks(10, (8, 9), 3, 0.5, 2)(torch.arange(10)).equal(whole)


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_it_is_the_mean_score_where_a_pixel_is_seen(score):
    net, x, fill = tiny(), batch(2), 0.3
    masks = drawn_masks(6, tuple(x.shape[2:]), 3, 0.4, 7, x.dtype)(torch.arange(6))
    expected = torch.zeros(2, 2, *x.shape[2:], dtype=x.dtype)
    classes = [[0, 2], [1, 0]]
    for b in range(2):
        for mask in masks:
            with torch.no_grad():
                logits = net((x[b] * mask + fill * (1 - mask))[None])[0]
            scores = logits.softmax(0) if score == "probability" else logits
            for k, c in enumerate(classes[b]):
                expected[b, k] += scores[c] * mask / 6 / 0.4
    actual = rise(net, x, classes, masks=6, cells=3, keep=0.4, fill=fill, score=score, seed=7)
    torch.testing.assert_close(actual, expected)
    for size in (1, 4, 50):
        torch.testing.assert_close(
            rise(net, x, classes, masks=6, cells=3, keep=0.4, fill=fill, score=score, seed=7, batch_size=size), expected
        )


def test_it_finds_the_pixel_that_decides():
    class Decided(nn.Module):
        def forward(self, x):
            seen = 8 * x[:, 0, 5, 9] - 4
            return torch.stack([seen, -seen], 1)

    maps = rise(Decided(), torch.ones(1, 3, 14, 14), 0, masks=800, cells=7)
    assert divmod(maps[0].argmax().item(), 14) == (5, 9) or maps[0, 5, 9] > 0.98 * maps.max()
    corner = maps[0, 13, 0]
    assert maps[0, 5, 9] > 1.5 * corner


def test_what_cannot_be_is_refused():
    net, x = tiny(), batch()
    for options in ({"masks": 0}, {"cells": 0}, {"keep": 0}, {"keep": 1.2}, {"batch_size": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must"):
            rise(net, x, 1, **({"masks": 2} | options))
    with pytest.raises(ValueError, match="two classes at least"):
        rise(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), torch.rand(1, 3, 2, 2), 0, masks=2)
