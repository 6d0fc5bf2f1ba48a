"""Weights of filters against naive ones, and the heat maps they make."""

import pytest
import torch
from support.canvases import DRAWN, naive_errors, pooled
from support.untouched import assert_untouched

from helpers import similarnet
from helpers.experiments.similarnet import filter_weights as W
from helpers.experiments.similarnet.canvases import make_canvases


def test_all_the_weightings(network):
    x, y = DRAWN.images[:25], DRAWN.labels[:25]
    draw = torch.Generator().manual_seed(5)
    baseline, errors = torch.tensor(0.5), torch.rand(16, generator=draw) * 0.2 + 0.4
    before = errors.clone()
    with assert_untouched(network):
        rows = W.filter_weights(network, similarnet.AblationErrors(baseline, errors), x, y, 40, 3)
    assert errors.equal(before)
    up = (errors - 0.5).double()  # e - E

    def soft(w):
        return w.exp() / w.exp().sum()

    maps = pooled(network, x).double()
    whole, without = naive_errors(network, x, y)["nll"]
    own = torch.zeros(16, dtype=torch.float64)
    for f in range(16):
        for n in range(25):
            held = maps[n, f].square().sum()
            own[f] += (without[f, n] - whole[n]) / held if held > 0 else 0
    expected = {
        "E - e, raw": -up,
        "e - E, raw (code)": up,
        "softmax of E - e (paper)": soft(-up),
        "softmax of e - E": soft(up),
        "softmax of E - e, summed": soft(-up * 40),
        "softmax of e - E, summed": soft(up * 40),
        "mean excitation (newer GAP)": maps.mean((0, 2, 3)),
        "by sample (ccGAP)": own,
        "all weights one": torch.ones(16),
    }
    shuffled = [f"e - E, permuted, {k}" for k in range(1, 11)]
    assert list(rows) == [*expected, *(f"positive weights at random, {k}" for k in range(1, 6)), *shuffled]
    for name in shuffled:
        torch.testing.assert_close(rows[name].sort().values, up.float().sort().values)
    assert len({tuple(rows[name].tolist()) for name in shuffled}) == 10
    for name, w in expected.items():
        torch.testing.assert_close(rows[name], w.float(), rtol=1e-3, atol=1e-6)
    chance = torch.stack([rows[f"positive weights at random, {k}"] for k in range(1, 6)])
    assert (chance > 0).all()
    assert chance.mean().item() == pytest.approx(0.5, abs=0.1)  # 80 even numbers: 0.5 +- 0.03
    assert len(chance[:, 0].unique()) == 5
    assert {w.dtype for w in rows.values()} == {torch.float32}
    assert {w.shape for w in rows.values()} == {(16,)}
    again, other = (
        W.filter_weights(network, similarnet.AblationErrors(baseline, errors), x[:2], y[:2], 40, seed)
        for seed in (3, 4)
    )
    for k in range(1, 6):
        name = f"positive weights at random, {k}"
        assert rows[name].equal(again[name])
        assert not rows[name].equal(other[name])


def test_heat_maps_with_the_poolings_and_without(network):
    x = make_canvases("drawn blank", 1, 3, 84).images
    weights = {"a": torch.randn(16), "b": torch.ones(16)}
    with assert_untouched(network):
        maps = W.heatmaps(network, x, weights)
    assert list(maps) == ["a", "b", "a, no poolings", "b, no poolings"]
    with torch.no_grad():
        bare = network.conv2(network.conv1(x).relu()).relu()
    for name, w in weights.items():
        expected = (pooled(network, x) * w[:, None, None]).sum(1)
        torch.testing.assert_close(maps[name], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(maps[f"{name}, no poolings"], (bare * w[:, None, None]).sum(1), rtol=1e-4, atol=1e-4)
    assert maps["a"].shape == (3, 21, 21)
    assert maps["a, no poolings"].shape == (3, 84, 84)
