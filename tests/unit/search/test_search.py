"""The search: the same on label maps computed before and on images, no place twice, and nothing left behind."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from support.refuses import refuses
from support.search import close, each_dtype, images, logs, net, random_logs, seeded, seen_cartesian, slow_label_map
from support.untouched import assert_untouched
from torch import nn

from helpers.search import POLICIES, fixation_grid, label_map, search, search_precomputed

GIVEN = {"oracle": {"target": [0, 2]}, "known_label": {"target": [0, 2]}}


AROUND = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.0, 0.0], [-0.5, 0.5], [0.5, 0.5]])


each_policy = pytest.mark.parametrize("policy", POLICIES)


def needs_of(policy, count=5):
    return GIVEN.get(policy, {"accuracy": torch.linspace(0.4, 0.9, count)} if policy == "expected" else {})


@each_policy
def test_no_place_is_looked_at_twice(policy):
    trace = search_precomputed(policy, random_logs(2, 3), random_logs(2, 5, 3, seed=1), AROUND, 4, **needs_of(policy))
    for choices in trace.choices.tolist():
        assert sorted(choices) == [0, 1, 3, 4]  # 2, the centre, is where the first glance was
    assert (trace.scores[:, :, 2] == -math.inf).all()


def test_without_inhibition_the_most_confident_place_is_looked_at_again():
    log_p = random_logs(2, 5, 3, seed=1)
    log_p[:, 2] = logs([0.98, 0.01, 0.01])  # where the first glance was
    trace = search_precomputed("max_confidence", random_logs(2, 3), log_p, AROUND, 4, inhibit=False)
    assert trace.choices.tolist() == [[2] * 4] * 2
    assert trace.scores.isfinite().all()


def test_inhibition_holds_where_no_place_has_a_chance():
    # The label sought has probability 0 everywhere, so both places score -inf.
    glance, log_p = logs([[0.5, 0.5]]), logs([[[0.0, 1.0], [0.0, 1.0]]])
    for policy in ("known_label", "oracle"):
        choices = search_precomputed(policy, glance, log_p, AROUND[:2], 2, target=0).choices
        assert sorted(choices[0].tolist()) == [0, 1], policy


class Where(nn.Module):
    """How right each candidate's answer will be, from the whole image; leaves traces in training mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2).double()
        self.slope = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.asked = []

    def forward(self, x, fixations):
        self.asked.append(tuple(fixations.shape))
        return (self.norm(x).mean((1, 2, 3))[:, None] + fixations[..., 0] * self.slope).sigmoid()


def candidates(kind):
    if kind == "grid":
        return 3, fixation_grid(3).flatten(0, 1)
    own = torch.rand(2, 5, 2, generator=seeded(3)) * 2 - 1
    return (own[0], own[0]) if kind == "(U, 2)" else (own, own)


@each_dtype
@each_policy
@pytest.mark.parametrize("kind", ["grid", "(U, 2)", "(B, U, 2)"])
def test_a_search_is_a_precomputed_search_on_its_label_maps(policy, kind, dtype):
    model, x = net(dtype=dtype), images(dtype=dtype)
    fixations, points = candidates(kind)
    options = needs_of(policy, points.shape[-2])
    prior = torch.tensor([0.5, 0.3, 0.2])
    glance = label_map(model, x, torch.zeros(1, 2), seen_cartesian)[:, 0]
    expected = search_precomputed(
        policy, glance, label_map(model, x, points, seen_cartesian), points, 3, prior=prior, seed=2, **options
    )
    model.sizes.clear()
    with assert_untouched(model):
        trace = search(
            model, x, policy, 3, fixations=fixations, prior=prior, seed=2, view=seen_cartesian, batch_size=4, **options
        )
    count = points.shape[-2] if POLICIES[policy].needs_all_views else 3
    assert trace.forward_passes == expected.forward_passes == 1 + count
    assert sum(model.sizes) == 2 * (1 + count)
    assert max(model.sizes) <= 4
    assert torch.equal(trace.choices, expected.choices)
    assert trace.fixations.shape == (2, 4, 2)
    assert torch.allclose(trace.fixations, expected.fixations, rtol=0, atol=1e-7)
    for name in ("log_p", "beliefs", "scores"):
        assert getattr(trace, name).dtype == dtype
        assert torch.allclose(getattr(trace, name), getattr(expected, name), rtol=0, atol=1e-5), name
    assert trace.scores.shape == (2, 3, points.shape[-2])


@each_policy
@pytest.mark.parametrize("boom", [False, True])
def test_search_leaves_the_network_as_it_was(policy, boom):
    model, x = net(boom=boom), images()
    before = x.clone()
    with assert_untouched(model), pytest.raises(RuntimeError, match="boom") if boom else nullcontext():
        trace = search(model, x, policy, 2, fixations=AROUND, view=seen_cartesian, **needs_of(policy))
        assert not trace.scores.requires_grad
    assert torch.equal(x, before)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "random"])
def test_a_batch_is_searched_as_its_images_one_by_one(policy):
    model, x = net(), images()
    options = needs_of(policy, 9)
    both = search(model, x, policy, 3, fixations=3, view=seen_cartesian, **options)
    for b in range(2):
        own = {key: value[b] if key == "target" else value for key, value in options.items()}
        alone = search(model, x[b : b + 1], policy, 3, fixations=3, view=seen_cartesian, **own)
        assert torch.equal(alone.choices[0], both.choices[b])
        assert torch.allclose(alone.beliefs[0], both.beliefs[b], rtol=0, atol=1e-9)


def test_the_defaults_of_search():
    model, x = net(), images()
    trace = search(model, x, view=seen_cartesian)
    assert trace.choices.shape == (2, 1)
    assert trace.forward_passes == 50
    expected = search(model, x, "information_gain_bound", 1, fixations=7, view=seen_cartesian)
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(trace, expected, strict=True))


@each_policy
def test_no_saccade_is_the_glance(policy):
    model, x = net(), images()
    trace = search(model, x, policy, 0, fixations=AROUND, view=seen_cartesian, **needs_of(policy))
    glance = slow_label_map(model, x, torch.zeros(2, 1, 2), seen_cartesian)
    assert torch.equal(trace.fixations, torch.zeros(2, 1, 2))
    assert (trace.choices.shape, trace.choices.dtype) == ((2, 0), torch.int64)
    assert trace.scores.shape == (2, 0, 5)
    close(trace.log_p, glance)
    close(trace.beliefs, glance)
    assert trace.forward_passes == (6 if POLICIES[policy].needs_all_views else 1)


@pytest.mark.parametrize("each", [False, True])
def test_the_first_glance_is_where_start_says(each):
    model, x = net(), images()
    start = torch.tensor([[0.5, -0.5], [-0.5, 0.5]]) if each else torch.tensor([0.5, -0.5])
    rows = start.expand(2, 2)
    trace = search(model, x, "max_confidence", 4, fixations=AROUND, start=start, view=seen_cartesian)
    assert torch.equal(trace.fixations[:, 0], rows)
    close(trace.log_p[:, :1], slow_label_map(model, x, rows[:, None], seen_cartesian))
    visited = [1, 3] if each else [1, 1]
    for b in range(2):
        assert sorted(trace.choices[b].tolist()) == [k for k in range(5) if k != visited[b]]
    with pytest.raises(ValueError, match="saccades must be at most 4"):
        search(model, x, "max_confidence", 5, fixations=AROUND, start=start, view=seen_cartesian)


def test_only_the_place_of_the_first_glance_is_inhibited():
    # One beside the centre by a hundredth of a pixel's half, one at the centre in one coordinate alone.
    fixations = torch.tensor([[0.001, 0.0], [0.0, 0.4], [0.4, 0.0]])
    log_p = logs([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]])
    assert search_precomputed("max_confidence", logs([[0.5, 0.5]]), log_p, fixations, 3).choices.tolist() == [[0, 1, 2]]


def test_a_second_network_gives_the_accuracy():
    model, where, x = net(), Where().train(), images()
    with assert_untouched(where):
        assert not search((model, where), x, "expected", fixations=3, view=seen_cartesian).scores.requires_grad
    where.eval()
    fixations = torch.rand(2, 5, 2, generator=seeded(3)) * 2 - 1
    with torch.no_grad():
        accuracy = where(x, fixations)
    where.asked.clear()
    trace = search((model, where), x, "expected", 2, fixations=fixations, view=seen_cartesian)
    expected = search(model, x, "expected", 2, fixations=fixations, accuracy=accuracy, view=seen_cartesian)
    assert where.asked == [(2, 5, 2)]
    assert torch.equal(trace.choices, expected.choices)
    assert torch.allclose(trace.scores, expected.scores)
    search((model, where), x, "expected", fixations=fixations, accuracy=accuracy, view=seen_cartesian)
    search((model, where), x, "center", fixations=fixations, view=seen_cartesian)
    assert len(where.asked) == 1  # it is asked by the policy that needs it alone, and only for what is not given


@each_policy
def test_a_search_checks_its_beliefs_at_the_door_alone(policy, monkeypatch):
    checks = []
    monkeypatch.setattr("helpers.search._information.check_log_p", lambda *_: checks.append("again"))
    monkeypatch.setattr("helpers.search._search.check_log_p", lambda *_: checks.append("door"))
    search_precomputed(policy, random_logs(2, 3), random_logs(2, 5, 3, seed=1), AROUND, 3, **needs_of(policy))
    assert checks == ["door", "door"]
    search(net(), images(), policy, 3, fixations=AROUND, view=seen_cartesian, **needs_of(policy))
    assert checks == ["door", "door"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_half_precision_are_searched_with(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 100)).to(dtype)
    trace = search(model, images(dtype=dtype), saccades=3, fixations=AROUND, view=seen_cartesian)
    assert trace.beliefs.dtype == torch.float32  # half precision rounds away that probabilities add up to 1
    torch.testing.assert_close(trace.beliefs.logsumexp(2), torch.zeros(trace.beliefs.shape[:2]), atol=1e-5, rtol=0)


def test_bad_input_of_search_is_refused():
    good = {"models": net(), "x": images(), "policy": "center", "fixations": AROUND, "view": seen_cartesian}
    bad = {"policy": "best", "saccades": 5, "batch_size": 0, "prior": torch.tensor([0.5, 0.5, 0.5])}
    refuses(search, good, x=torch.zeros(3), start=torch.tensor([0.0, 1.5]), fixations=AROUND * 3, **bad)
    refuses(search, good | {"policy": "oracle"}, target=None)
    refuses(search, good | {"policy": "oracle"}, target=[[0, 1], [1, 2]])
    refuses(search, good | {"policy": "expected"}, accuracy=None)
    refuses(search, good | {"policy": "expected"}, accuracy=torch.full((5,), 2.0))


def test_bad_input_of_a_precomputed_search_is_refused():
    good = {"policy": "max_confidence", "glance": random_logs(2, 3), "log_p": random_logs(2, 5, 3), "fixations": AROUND}
    probabilities = random_logs(2, 5, 3).exp()
    refuses(
        search_precomputed, good, policy="best", glance=random_logs(3, 3), log_p=probabilities, fixations=AROUND[:4]
    )
    refuses(search_precomputed, good | {"log_p": random_logs(2, 5, 4)}, glance=random_logs(2, 3))  # other labels
