"""Calibrated probabilities, by hand."""

from __future__ import annotations

import scipy.special
import scipy.stats
import torch
from support.searched import beliefs

from helpers.experiments.search import calibration as C


def test_cooled_answers_stay_the_same():
    log_p = beliefs(3, 4, 5)
    torch.testing.assert_close(C.apply_temperature(log_p, 1.0), log_p)
    cooled = C.apply_temperature(log_p, 3.0)
    torch.testing.assert_close(cooled, torch.from_numpy(scipy.special.log_softmax(log_p.numpy() / 3, -1)))
    assert cooled.argmax(-1).equal(log_p.argmax(-1))
    assert (cooled.amax(-1) < log_p.amax(-1)).all()


def test_bins_by_hand():
    # Four views claim .6, and one of them is right; four claim .9, and three are.
    p = torch.tensor([[0.6, 0.4, 0.0], [0.9, 0.1, 0.0]]).clamp(min=1e-9)
    log_p = p.log().repeat_interleave(4, 0)[:, None]  # (8, 1, 3)
    truth = torch.tensor([0, 1, 1, 2, 0, 0, 0, 1])
    mended = C.histogram_binning(log_p, truth, bins=2)
    probabilities = mended(p.log()).exp()
    torch.testing.assert_close(probabilities[1], torch.tensor([0.75, 0.125, 0.125]), rtol=0, atol=1e-3)
    # Right less often than by chance: kept a hair above it, or the answer would change.
    chance = 1 / 3 + C.MARGIN
    torch.testing.assert_close(
        probabilities[0], torch.tensor([chance, (1 - chance) / 2, (1 - chance) / 2]), rtol=0, atol=1e-3
    )
    # New views go where their confidence belongs, whatever their answer.
    new = mended(torch.tensor([[0.05, 0.05, 0.9], [0.3, 0.5, 0.2]]).log()).exp()
    assert new.argmax(1).tolist() == [2, 1]
    torch.testing.assert_close(new.amax(1), torch.tensor([0.75, chance]), rtol=0, atol=1e-3)
    torch.testing.assert_close(new.sum(1), torch.ones(2))
    assert mended(log_p[None]).shape == (1, 8, 1, 3)
    # Never all wrong, never certain.
    sure = C.histogram_binning(log_p, torch.zeros(8, dtype=torch.int64), bins=2)(log_p)
    assert sure.isfinite().all()
    torch.testing.assert_close(sure.exp().amax(-1), torch.full((8, 1), 1 - C.MARGIN), rtol=0, atol=2e-4)
    assert sure.exp().amax() < 1


def test_views_of_one_bin_keep_their_order():
    p = torch.tensor([0.5, 0.8, 0.6, 0.9])
    log_p = torch.stack([p, 1 - p], 1).log()[None]  # (1, 4, 2), all in one bin
    calibrated = C.histogram_binning(log_p, torch.zeros(1, dtype=torch.int64), bins=1)(log_p)[0, :, 0]
    assert calibrated.argsort().equal(p.argsort())
    assert calibrated.exp().max() - calibrated.exp().min() < 1e-3


def test_bins_that_stay_empty():
    log_p = torch.tensor([0.7, 0.3]).log().expand(5, 2, 2)  # all as sure
    probabilities = C.histogram_binning(log_p, torch.tensor([0, 0, 0, 0, 1]))(log_p).exp()
    torch.testing.assert_close(probabilities, torch.tensor([0.8, 0.2]).expand(5, 2, 2), rtol=0, atol=1e-3)
