"""What each policy scores and chooses, by hand and against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from support.search import PRIOR, close, each_dtype, logs, random_logs, seeded, slow_gain

from helpers.search import POLICIES, Policy, SearchState, expected_gain, search_precomputed

THREE = torch.tensor([[0.6, 0.0], [0.0, 0.5], [-0.3, 0.3]])  # 0.6, 0.5 and 0.42 from the centre


# glance (.5, .3, .2), the label sought is 1.
#   place   p(1)  margin of 1           confidence
#   0       .1    log .1 / .8           .8
#   1       .45   log .45 / .35 = .25   .45
#   2       .5    log .5 / .48 = .04    .5
CLEAR = (logs([[0.5, 0.3, 0.2]]), logs([[[0.8, 0.1, 0.1], [0.2, 0.45, 0.35], [0.48, 0.5, 0.02]]]))


# glance (.9, .1); fused: (.61, .39), (.988, .012), (.9, .1)
#   gain: .61 log .68 + .39 log 3.86 = .29; .988 log 1.098 + .012 log .12 = .07; 0
#   bound + log 2: .61 log .15 + .39 log .85 + .69 = -.53; .988 log .9 + .012 log .1 + .69 = .56; 0
TORN = (logs([[0.9, 0.1]]), logs([[[0.15, 0.85], [0.9, 0.1], [0.5, 0.5]]]))


# with two labels an answer is worth as much as its accuracy is far from 1/2: .2, .3 and .4 (nearly always wrong)
DOUBT = torch.tensor([0.7, 0.8, 0.1])


CHOICES = {
    "oracle": (CLEAR, {"target": 1}, [1, 2, 0]),
    "known_label": (CLEAR, {"target": [1]}, [2, 1, 0]),
    "max_confidence": (CLEAR, {}, [0, 2, 1]),
    "fused_confidence": (TORN, {}, [1, 2]),
    "information_gain": (TORN, {}, [0]),
    "information_gain_bound": (TORN, {}, [1]),
    "expected": (TORN, {"accuracy": DOUBT}, [2, 1, 0]),
    "center": (CLEAR, {}, [2, 1, 0]),
}


@each_dtype
@pytest.mark.parametrize(("policy", "case"), CHOICES.items(), ids=CHOICES)
def test_the_choices_by_hand(policy, case, dtype):
    (glance, log_p), options, choices = case
    trace = search_precomputed(policy, glance.to(dtype), log_p.to(dtype), THREE, len(choices), **options)
    assert trace.choices.tolist() == [choices]
    assert trace.choices.dtype == torch.int64
    assert torch.equal(trace.fixations[0], torch.cat([torch.zeros(1, 2), THREE[choices]]))
    assert trace.log_p.dtype == trace.beliefs.dtype == trace.scores.dtype == dtype
    assert torch.equal(trace.log_p[0, 0], glance[0].to(dtype))
    assert torch.equal(trace.log_p[0, 1:], log_p[0, choices].to(dtype))
    belief = glance[0].exp() * 1.0
    for step, choice in enumerate(choices):  # beliefs in probabilities
        belief = belief * log_p[0, choice].exp()
        close(trace.beliefs[0, step + 1].exp(), belief / belief.sum())
        assert (trace.scores[0, step, choices[:step]] == -math.inf).all()
        assert trace.scores[0, step, choices[step:]].isfinite().all()
    assert trace.forward_passes == 1 + (3 if POLICIES[policy].needs_all_views else len(choices))


def test_the_scores_by_hand():
    def scores(policy, case=CLEAR, **options):
        return search_precomputed(policy, *case, THREE, **options).scores[0, 0].tolist()

    assert scores("oracle", target=1) == pytest.approx([math.log(a) for a in (0.1 / 0.8, 0.45 / 0.35, 0.5 / 0.48)])
    assert scores("known_label", target=1) == pytest.approx([math.log(a) for a in (0.1, 0.45, 0.5)])
    assert scores("max_confidence") == pytest.approx([math.log(a) for a in (0.8, 0.45, 0.5)])
    # Of TORN, fused: (.61, .39), (.988, .012), (.9, .1)
    assert scores("fused_confidence", TORN) == pytest.approx([math.log(a) for a in (0.6136, 0.9878, 0.9)], abs=1e-3)
    assert scores("center") == pytest.approx([-0.36, -0.25, -0.18])
    assert scores("information_gain", TORN) == pytest.approx([0.287, 0.066, 0], abs=1e-3)
    assert scores("information_gain_bound", TORN) == pytest.approx([-0.534, 0.561, 0], abs=1e-3)


@pytest.mark.parametrize("policy", ["information_gain", "information_gain_bound"])
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["None", "uneven"])
def test_gain_policies_follow_the_belief_and_the_prior(policy, prior):
    glance, log_p = random_logs(6, 4), random_logs(6, 5, 4, seed=1)
    trace = search_precomputed(policy, glance, log_p, torch.rand(5, 2, generator=seeded()) * 2 - 1, 3, prior=prior)
    belief, visited = glance, torch.zeros(6, 5, dtype=torch.bool)
    for step in range(3):
        values = slow_gain(belief, log_p, prior)
        score = values["gain" if policy == "information_gain" else "full"].masked_fill(visited, -math.inf)
        assert torch.allclose(trace.scores[:, step], score, atol=1e-9)
        choice = score.argmax(1)
        assert torch.equal(trace.choices[:, step], choice)
        visited[torch.arange(6), choice] = True
        belief = values["fused"][torch.arange(6), choice].log()
        close(trace.beliefs[:, step + 1], belief)


def test_expected_is_worked_out_anew_from_every_belief():
    glance, log_p, accuracy = random_logs(4, 3), random_logs(4, 5, 3, seed=1), torch.rand(5, generator=seeded())
    trace = search_precomputed("expected", glance, log_p, torch.rand(5, 2, generator=seeded()), 3, accuracy=accuracy)
    for step in range(3):
        expected = expected_gain(trace.beliefs[:, step], accuracy.expand(4, 5))
        left = trace.scores[:, step] > -math.inf
        assert torch.allclose(trace.scores[:, step][left], expected[left])
    # Other accuracies for each image.
    each = torch.rand(4, 5, generator=seeded(1))
    trace = search_precomputed("expected", glance, log_p, torch.rand(5, 2, generator=seeded()), accuracy=each)
    assert torch.allclose(trace.scores[:, 0], expected_gain(glance, each))


def test_every_policy_says_what_it_is():
    assert list(POLICIES) == [
        "oracle", "known_label", "max_confidence", "fused_confidence", "information_gain", "information_gain_bound",
        "expected", "random", "center",
    ]  # fmt: skip
    assert all(isinstance(policy, Policy) and policy.about for policy in POLICIES.values())
    assert {name for name, policy in POLICIES.items() if not policy.needs_all_views} == {"expected", "random", "center"}
    assert {name for name, policy in POLICIES.items() if policy.needs_target} == {"oracle", "known_label"}


@pytest.mark.parametrize("name", [name for name, policy in POLICIES.items() if not policy.needs_all_views])
def test_policies_that_do_not_look_need_no_views(name):
    state = SearchState(random_logs(2, 3), torch.rand(2, 4, 2), accuracy=torch.rand(2, 4), generator=seeded())
    assert POLICIES[name].score(state).shape == (2, 4)


def test_random_is_drawn_from_seed_and_image():
    glance, log_p, fixations = random_logs(4, 3), random_logs(4, 30, 3, seed=1), torch.rand(30, 2, generator=seeded())

    def choices(count=4, **options):
        return search_precomputed("random", glance[:count], log_p[:count], fixations, 3, **options).choices

    state = torch.get_rng_state()
    assert torch.equal(choices(), choices())
    assert torch.equal(choices(seed=5), choices(seed=5))
    assert not torch.equal(choices(), choices(seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(row) for row in choices().tolist()}) == 4  # each image goes its own way
    assert torch.equal(choices(2)[:, 0], choices()[:2, 0])
    many = search_precomputed(
        "random", glance[:1].repeat(900, 1), log_p[:1, :3].repeat(900, 1, 1), THREE, seed=1
    ).choices
    assert (torch.bincount(many[:, 0], minlength=3) > 230).all()  # 300 each, standard deviation 14


@pytest.mark.parametrize("name", [name for name, policy in POLICIES.items() if policy.needs_all_views])
def test_a_policy_says_what_it_lacks(name):
    with pytest.raises(ValueError, match=r"^(log_p|target) must be known"):
        POLICIES[name].score(SearchState(random_logs(2, 3), torch.rand(2, 4, 2)))
