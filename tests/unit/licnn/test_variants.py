"""What LICNN's masks are compared with, and how often its rule agrees with a plain one."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from support.licnn import noise, slow_terms, tiny_network
from support.untouched import assert_untouched

from helpers.licnn import center_surround_mask, inhibition_mask, random_places, rule_agreement


@pytest.mark.parametrize("shape", [(2, 9, 11), (2, 3, 8, 8), (7, 12)])
def test_the_mexican_hat_is_a_difference_of_gaussians(shape):
    g = noise(*shape)
    before = g.clone()
    masks = center_surround_mask(g)
    assert g.equal(before)
    assert masks.dtype == torch.bool
    assert masks.shape == g.shape
    for part, mask in zip(g.reshape(-1, *shape[-2:]), masks.reshape(-1, *shape[-2:]), strict=True):
        fine, wide = (gaussian_filter(part.numpy(), sigma, mode="mirror", truncate=3) for sigma in (1, 2))
        assert mask.tolist() == (fine > wide).tolist()
    assert center_surround_mask(g.float()).shape == g.shape


def test_the_mexican_hat_keeps_a_peak_and_nothing_of_nothing():
    g = torch.zeros(1, 15, 15)
    assert not center_surround_mask(g).any()
    g[0, 7, 7] = 1
    mask = center_surround_mask(g)[0]
    assert mask[7, 7]
    # exp(-d^2/2) / 2 pi > exp(-d^2/8) / 8 pi while d^2 < 8 ln 4 / 3 = 3.7
    assert mask.nonzero().sub(7).square().sum(1).max() == 2
    assert mask.sum() == 9


@pytest.mark.parametrize("shape", [(5, 9, 11), (2, 3, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_many_random_places_as_licnn_keeps(shape, dtype):
    g = noise(*shape, seed=3).to(dtype)
    places, licnn = random_places(g), inhibition_mask(g)
    assert places.dtype == torch.bool
    assert places.shape == g.shape
    assert places.sum((-2, -1)).equal(licnn.sum((-2, -1)))
    assert (licnn.sum((-2, -1)) > 0).all()
    assert places.equal(random_places(g))
    # As independent of LICNN's own as chance makes it: of 30 % of the places about 30 % are shared.
    share = licnn.double().mean()
    assert (places & licnn).sum() / licnn.sum() < share + 0.25
    flat = places.reshape(-1, *shape[-2:])
    assert not flat[0].equal(flat[1])


def test_random_places_have_nothing_to_do_with_the_values():
    g = torch.linspace(-1, 2, 20 * 20).view(1, 20, 20)
    middle = random_places(g).nonzero()[:, 1:].double().mean(0)
    assert inhibition_mask(g).nonzero()[:, 1].double().mean() > 12  # LICNN's lie below, where the values are
    assert (middle - 9.5).abs().max() < 2
    assert not random_places(torch.zeros(1, 4, 4)).any()


def unit(x):
    return x / x.square().sum((-2, -1), keepdim=True).sqrt()


@pytest.mark.parametrize(("pooling", "seed"), [("gap", 0), ("gmp", 1)])
def test_the_rules_agree_by_hand(pooling, seed):
    model, x, labels = tiny_network(seed=seed, pooling=pooling), noise(3, 3, 12, 12), torch.tensor([2, 0, 7])
    with assert_untouched(model):
        rows = rule_agreement(model, x, labels)
    # The Max-C maps: the gradient of log p - log(1 - p), which is z_c - log of the others' sum of exponentials.
    maps = [model.conv1(x).relu()]
    maps.append(model.conv2(model.pool1(maps[0])).relu())
    logits = model.fc(maps[1].mean((2, 3)) if pooling == "gap" else F.adaptive_max_pool2d(maps[1], 1).flatten(1))
    others = logits.clone()
    others[torch.arange(3), labels] = -math.inf
    odds = logits[torch.arange(3), labels] - others.logsumexp(1)
    contributions = [g.amax(1) for g in torch.autograd.grad(odds.sum(), maps)]
    assert len(rows) == 2
    for row, g, side in zip(rows.values(), contributions, (12, 6), strict=True):
        g = unit(g)
        terms = torch.stack([slow_terms(part) for part in g], 1)  # (2, N, h, w)
        licnn = g > unit(terms.sum(0))
        average, plain = g > unit(terms[0]), g > g.square().mean((1, 2), keepdim=True).sqrt()
        expected = {
            "agree": (licnn == plain).double().mean(),
            "average agrees": (average == plain).double().mean(),
            "iou": (licnn & plain).sum() / (licnn | plain).sum(),
            "kept": licnn.double().mean(),
            "kept by RMS": plain.double().mean(),
            "average least": terms[0].min(),
            "average greatest": terms[0].max(),
            "difference": terms[1].sum() / terms.sum(),
        }
        assert row == pytest.approx({"side": side, **{name: value.item() for name, value in expected.items()}})
        beyond = bool((plain & ~licnn).any())
        assert beyond == (pooling == "gmp" and side == 12)  # else the union is LICNN's own places
    json.dumps(rows, allow_nan=False)
    assert len({row["agree"] for row in rows.values()}) == 2
