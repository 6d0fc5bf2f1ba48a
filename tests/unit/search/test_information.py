"""Fused beliefs and what a view is worth, against sums of probabilities and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from support.search import PRIOR, close, each_dtype, logs, random_logs, slow_gain

from helpers.search import expected_gain, fuse, information_gain, information_gain_bound, redundancy

priors = pytest.mark.parametrize("prior", [None, torch.full((4,), 0.25), PRIOR], ids=["None", "even", "uneven"])


@each_dtype
@priors
def test_gain_against_probabilities(dtype, prior):
    belief, log_p = random_logs(3, 4, dtype=dtype, scale=1.5), random_logs(3, 5, 4, seed=1, dtype=dtype, scale=1.5)
    before = belief.clone(), log_p.clone()
    expected = slow_gain(belief, log_p, prior)
    fused, shared = fuse(belief, log_p, prior), redundancy(belief, log_p, prior)
    gain, full = information_gain(belief, log_p, prior), information_gain_bound(belief, log_p, prior)
    bound = information_gain_bound(belief, log_p, prior, constant=False)
    assert {values.dtype for values in (fused, shared, gain, full, bound)} == {dtype}
    close(fused.exp(), expected["fused"])
    close(fused.exp().sum(-1), torch.ones(3, 5))
    close(shared, expected["z"].log())
    close(gain, expected["gain"])
    close(bound, expected["bound"])
    close(full, expected["full"])
    assert (bound <= 0).all()
    close(gain, full - shared)
    if prior is not PRIOR:
        close(gain, bound + math.log(4) - shared)
    assert torch.equal(before[0], belief)
    assert torch.equal(before[1], log_p)


@priors
def test_views_in_any_arrangement(prior):
    belief, log_p = random_logs(2, 4), random_logs(2, 3, 5, 4, seed=1)
    for function in (fuse, redundancy, information_gain, information_gain_bound):
        values = function(belief, log_p, prior)
        assert values.shape[:3] == (2, 3, 5)
        flat = function(belief, log_p.flatten(1, 2), prior)
        assert torch.allclose(values.flatten(1, 2), flat)
        one_by_one = torch.stack([function(belief, log_p[:, i, j], prior) for i in range(3) for j in range(5)], 1)
        assert torch.allclose(one_by_one, flat)
        alone = torch.cat([function(belief[b : b + 1], log_p[b : b + 1], prior) for b in range(2)])
        assert torch.allclose(alone, values)


def test_single_precision_keeps_what_probabilities_round_to_0():
    # p0 = (1, e^-200), pu = (e^-200, 1): fused even, though e^-200 is 0 in single precision. Z = 2 (2 e^-200).
    belief, log_p = torch.tensor([[0.0, -200.0]]), torch.tensor([[-200.0, 0.0]])
    assert fuse(belief, log_p).exp().tolist() == [[pytest.approx(0.5, abs=1e-5)] * 2]
    assert redundancy(belief, log_p).item() == pytest.approx(math.log(4) - 200)
    # KL((1/2, 1/2) || (1, e^-200)) = -log 2 + 100
    assert information_gain(belief, log_p).item() == pytest.approx(100 - math.log(2), rel=1e-5)
    assert information_gain_bound(belief, log_p, constant=False).item() == pytest.approx(-100, rel=1e-5)


@pytest.mark.parametrize("far", [200.0, 3000.0, 50_000.3])
def test_fused_rows_add_up_to_1_where_views_contradict_each_other(far):
    belief, log_p = torch.tensor([[0.0, -far, -far]]), torch.tensor([[-far, 0.0, -far + 0.3]]).log_softmax(-1)
    fused = fuse(belief, log_p)
    assert fused.exp().sum().item() == pytest.approx(1, abs=1e-6)
    fuse(fused, log_p)  # a belief that may be fused again


@each_dtype
def test_labels_of_probability_0(dtype):
    belief, log_p = logs([[0.5, 0.5, 0.0]], dtype), logs([[[0.5, 0.0, 0.5], [0.25, 0.75, 0.0]]], dtype)
    # first: fused (1, 0, 0), Z = 3 / 4, gain log 2, bound log 1/2; second: fused (1/4, 3/4, 0), Z = 3 / 2.
    gain = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    bound = 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    close(fuse(belief, log_p).exp(), torch.tensor([[[1, 0, 0], [0.25, 0.75, 0]]]))
    close(redundancy(belief, log_p), torch.tensor([[math.log(0.75), math.log(1.5)]]))
    close(information_gain(belief, log_p), torch.tensor([[math.log(2), gain]]))
    close(information_gain_bound(belief, log_p, constant=False), torch.tensor([[-math.log(2), bound]]))
    close(information_gain_bound(belief, log_p), torch.tensor([[math.log(1.5), bound + math.log(3)]]))
    close(information_gain(belief, log_p), slow_gain(belief, log_p, None)["gain"])


def test_views_that_exclude_each_other_are_refused():
    belief, log_p = logs([[0.5, 0.5], [1.0, 0.0]]), logs([[[0.5, 0.5], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    for function in (fuse, redundancy, information_gain, information_gain_bound):
        with pytest.raises(ValueError, match="exclude"):
            function(belief, log_p)


def test_the_bound_may_lie_below_the_gain():
    # p0 = (.9, .1), pu = (.1, .9): fused (1/2, 1/2), gain = log(1/2) - log(.3), and Z = 2 (.09 + .09) = .36.
    belief, log_p = logs([[0.9, 0.1]]), logs([[0.1, 0.9]])
    gain, bound = information_gain(belief, log_p), information_gain_bound(belief, log_p)
    assert gain.item() == pytest.approx(math.log(0.5) - math.log(0.3))
    assert bound.item() == pytest.approx(math.log(0.3) - math.log(0.5))
    assert bound < gain
    assert redundancy(belief, log_p).item() == pytest.approx(math.log(0.36))


def test_a_view_that_says_what_the_prior_says_teaches_nothing():
    belief = random_logs(200, 4, dtype=torch.float32)
    assert (information_gain(belief, torch.full((200, 1, 4), 0.25).log()) >= 0).all()
    belief = random_logs(3, 4)
    even, own = torch.full((3, 2, 4), 0.25, dtype=torch.float64).log(), PRIOR.log().expand(3, 2, 4)
    for log_p, prior in ((even, None), (own, PRIOR)):
        close(fuse(belief, log_p, prior), belief[:, None].expand(-1, 2, -1))
        assert (information_gain(belief, log_p, prior) >= 0).all()  # also after rounding
        close(information_gain(belief, log_p, prior), torch.zeros(3, 2))
        close(redundancy(belief, log_p, prior), torch.zeros(3, 2))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("even", [True, False])
def test_on_average_gain_and_bound_are_mutual_information(seed, even):
    # A world: a label, and two views that are independent once it is known.
    draw = np.random.default_rng(seed)
    labels, first, second = 3, 4, 5
    pk = np.full(labels, 1 / labels) if even else draw.dirichlet(np.full(labels, 2.0))
    p_first, p_second = (draw.dirichlet(np.full(n, 0.5), size=labels) for n in (first, second))
    joint = pk[:, None, None] * p_first[:, :, None] * p_second[:, None, :]  # p(k, x0, xu)
    both = joint.sum(0)  # p(x0, xu)
    belief = torch.from_numpy(joint.sum(2) / joint.sum((0, 2))).log().T  # (x0, K)
    log_p = torch.from_numpy(joint.sum(1) / joint.sum((0, 1))).log().T[None].expand(first, -1, -1)
    prior = None if even else torch.from_numpy(pk)
    close(fuse(belief, log_p, prior).exp(), torch.from_numpy(joint / both).permute(1, 2, 0))
    gain, bound = information_gain(belief, log_p, prior), information_gain_bound(belief, log_p, prior)
    # I(x0; xu), I(k; xu | x0) and their sum I(k; xu), each from the joint.
    shared = (both * np.log(both / both.sum(1, keepdims=True) / both.sum(0, keepdims=True))).sum()
    p_label = joint / joint.sum((0, 2))[None, :, None]  # p(k, xu | x0)
    of_k, of_xu = p_label.sum(2, keepdims=True), p_label.sum(0, keepdims=True)
    taught = (joint * np.log(p_label / of_k / of_xu)).sum()
    pair = joint.sum(1)
    alone = (pair * np.log(pair / pair.sum(0) / pair.sum(1, keepdims=True))).sum()
    weights = torch.from_numpy(both)
    assert (weights * (bound - gain)).sum().item() == pytest.approx(shared, abs=1e-9)
    assert (weights * redundancy(belief, log_p, prior)).sum().item() == pytest.approx(shared, abs=1e-9)
    assert (weights * gain).sum().item() == pytest.approx(taught, abs=1e-9)
    assert (weights * bound).sum().item() == pytest.approx(alone, abs=1e-9)


@each_dtype
@pytest.mark.parametrize("labels", [2, 10])
def test_the_expected_gain_is_a_mutual_information(dtype, labels):
    belief = random_logs(3, labels, dtype=dtype)
    accuracy = torch.tensor([[0.0, 0.1, 0.5, 0.9, 1.0]] * 3, dtype=dtype)
    accuracy[2] = torch.tensor([0.3, 1 / labels, 0.7, 0.99, 0.01])
    gain = expected_gain(belief, accuracy)
    assert gain.dtype == dtype
    assert (gain >= 0).all()
    expected = torch.zeros(3, 5, dtype=torch.float64)
    for b, u in itertools.product(range(3), range(5)):
        p, a = belief[b].double().exp().numpy(), accuracy[b, u].item()
        joint = np.array(
            [[p[k] * (a if k == y else (1 - a) / (labels - 1)) for y in range(labels)] for k in range(labels)]
        )
        ratio = joint / joint.sum(0).clip(1e-300) / joint.sum(1, keepdims=True)
        expected[b, u] = (joint * np.log(np.where(joint > 0, ratio, 1))).sum()
    close(gain, expected)


def test_the_expected_gain_by_hand():
    # Sure: nothing left to learn. Even between two of three: a right answer is worth log 2.
    belief = logs([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    accuracy = torch.tensor([[0.9, 1.0], [1 / 3, 1.0], [1 / 3, 1.0]], dtype=torch.float64)
    expected = torch.tensor([[0, 0], [0, math.log(2)], [0, math.log(3)]])
    close(expected_gain(belief, accuracy), expected)


BELIEF, LOG_P = random_logs(2, 3), random_logs(2, 4, 3, seed=1)
REFUSED = {
    "a belief of probabilities": ((BELIEF.exp(), LOG_P), "belief must be log-probabilities.*did you give"),
    "views of logits": ((BELIEF, LOG_P - 1), "log_p must be log-probabilities"),
    "other labels": ((random_logs(2, 5), LOG_P), "belief must be .* and log_p"),
    "prior of other labels": ((BELIEF, LOG_P, torch.full((4,), 0.25)), "prior must"),
    "prior of counts": ((BELIEF, LOG_P, torch.tensor([2.0, 3.0, 5.0])), "prior must"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("function", [fuse, redundancy, information_gain, information_gain_bound])
def test_bad_beliefs_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        function(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((BELIEF.exp(), torch.zeros(2, 4)), "belief must"),
        ((torch.zeros(2, 1), torch.zeros(2, 4)), "the number of labels must"),
        ((BELIEF, torch.tensor([[0.5, 1.1]] * 2)), "accuracy must"),
    ],
)
def test_bad_input_of_the_expected_gain_is_refused(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        expected_gain(*arguments)


@pytest.mark.parametrize(("dtype", "labels"), [(torch.float16, 200), (torch.bfloat16, 10), (torch.bfloat16, 1000)])
def test_rounded_logarithms_are_probabilities_still(dtype, labels):
    even = torch.full((1, labels), 1 / labels)
    rounded = even.log().to(dtype)
    fused = fuse(rounded, rounded, even[0].to(dtype))
    assert fused.dtype == dtype
    torch.testing.assert_close(fused.float(), even.log(), rtol=torch.finfo(dtype).eps, atol=0)
