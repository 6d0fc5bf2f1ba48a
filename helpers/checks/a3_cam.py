"""The open checks of the assignment on class activation maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.checks import Wrong, exercise, expect, tensor_answer

CLOSE = 1e-4  # of answers in single precision
SCENES = 120  # of a3.5, before those with two objects of one class are left out


def _close(value: Tensor, other: Tensor) -> bool:
    return torch.allclose(value, other.double(), atol=CLOSE, rtol=0)


@exercise("a3.1", "account")
def account(answer: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]) -> str:
    """The points (B, 3) that a score has from the object, from beside it, and from the bias."""
    maps = torch.tensor([[[[4.0, 0, 2]], [[0.0, 6, 3]]], [[[1.0, 1, 1]], [[3.0, 0, 0]]]])  # (2, 2, 1, 3)
    weight, bias = torch.tensor([[1.0, -1.0], [0.5, 2.0]]), torch.tensor([0.25, -0.5])
    cover = torch.tensor([[[1.0, 0.5, 0.0]], [[0.0, 0.0, 1.0]]])
    points = tensor_answer(answer(maps, weight, bias, torch.tensor([0, 1]), cover), (2, 3), "the account")
    right = torch.tensor([[1 / 3, -4 / 3, 0.25], [0.5 / 3, 7 / 3, -0.5]])
    expect(not _close(points, right[:, [1, 0, 2]]), "the object comes first, what lies beside it second")
    expect(not _close(points, right * torch.tensor([3.0, 3.0, 1.0])), "the score is a mean: share it by all places")
    expect(_close(points[:, 2], right[:, 2]), "the third column is the bias of the class that was asked for")
    expect(
        _close(points.sum(1), right.sum(1)),
        "each row must add up to the logit of its class; places that speak against the class count too",
    )
    expect(_close(points, right), "a place that the object covers by half gives half of its share to the object")
    return "both scores are shared out, and nothing is left over."


@exercise("a3.2", "peak_shares")
def peak_shares(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """Maps (B, h, w) whose sum is the score of a network that takes maxima, less its bias."""
    maps = torch.tensor([[[[0.0, 5, 1], [0, 2, 0]], [[0.0, 0, 0], [3, 1, 2]], [[0.0, 4, 0], [0, 0, 4]]]])
    weight = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5]])
    shares = tensor_answer(answer(maps, weight, torch.tensor([1])), (1, 2, 3), "the map")
    right = torch.tensor([[[0.0, 7, 0], [-6, 0, 0]]])
    everywhere = (weight[1][:, None, None] * maps[0]).sum(0)[None]
    expect(not _close(shares, everywhere), "a maximum reads one place of each map; the other places earned nothing")
    expect(not _close(shares, right / 6), "a maximum is no mean: there is nothing to divide by")
    wrong_ties = torch.tensor([[[0.0, 7, 0], [-6, 0, 2]]])
    expect(not _close(shares, wrong_ties), "of several places with the same maximum the first alone gets the share")
    expect(
        not _close(shares, torch.tensor([[[0.0, 2, 0], [-6, 0, 0]]]))
        and not _close(shares, torch.tensor([[[0.0, 5, 0], [-6, 0, 0]]])),
        "two maps have their maximum at one place: their shares add up there",
    )
    expect(not _close(shares, right.clamp(min=0)), "keep what speaks against the class")
    expect(_close(shares, right), "the share of map k is its weight times its maximum, at the place of that maximum")
    return "the shares add up to the score, less the bias."


@exercise("a3.3", "two_gradients")
def two_gradients(answer: Callable[[nn.Module, Tensor, Tensor, int], tuple[Tensor, Tensor]]) -> str:
    """Slope times map, with the slopes averaged over places, and place by place."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        conv, linear = nn.Conv2d(1, 2, (1, 2), bias=False), nn.Linear(6, 2)
        conv.weight.copy_(torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]]))
        linear.weight.copy_(torch.tensor([[1.0, 0, 2, 0, -3, 0], [0.0, 3, 0, 1, 0, -1]]))
    network = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear)
    x = torch.tensor([[[[1.0, 2, 3, 4]]], [[[2.0, 0, 1, 5]]]])
    returned = answer(network, x, torch.tensor([0, 1]), 1)
    expect(isinstance(returned, tuple) and len(returned) == 2, "return two things: the averaged map, that by place")
    averaged, by_place = (
        tensor_answer(returned[0], (2, 1, 3), "the first"),
        tensor_answer(returned[1], (2, 1, 3), "the second"),
    )
    right_averaged = torch.tensor([[[-1.0, -1, -1]], [[2.0, 0, 1]]])
    right_by_place = torch.tensor([[[1.0, -9, 6]], [[0.0, 0, -5]]])
    expect(bool((averaged < 0).any()) and bool((by_place < 0).any()), "keep the signs: no ReLU at the end")
    expect(not _close(averaged, right_averaged * 3), "average the slopes over the places; do not add them up")
    expect(
        not (_close(averaged, right_by_place) and _close(by_place, right_averaged)),
        "the map with the averaged slopes comes first",
    )
    expect(
        _close(by_place, right_by_place),
        "the second map is slope times value at each place, added up over the feature maps; the slope is that of one "
        "logit of each picture, not of a probability, and the maps are those that leave layer `at`",
    )
    expect(_close(averaged, right_averaged), "the first map weighs each feature map by the mean of its own slopes")
    return "Grad-CAM without its ReLU, and the same place by place."


@exercise("a3.4", "box_at_peak")
def box_at_peak(answer: Callable[[Tensor, float], Tensor]) -> str:
    """The box (B, 4) around the region that holds each map's maximum."""
    maps = torch.zeros(2, 6, 8)
    maps[0, 0:3, 0:3] = 5  # the larger region
    maps[0, 3, 5], maps[0, 4, 6], maps[0, 4, 7], maps[0, 5, 5] = 9, 6, 4.5, 7  # the hottest one, by corners
    maps[1] = -1
    boxes = answer(maps, 0.5)
    expect(isinstance(boxes, Tensor) and boxes.shape == (2, 4), "return a tensor (2, 4) for two maps")
    expect(bool(boxes[1].isnan().all()), "a map without a positive value has no box: four NaN")
    box = boxes[0].tolist()
    messages = {
        (0, 0, 3, 3): "that is the largest region; the one with the map's maximum is asked for",
        (0, 0, 7, 6): "that box holds all regions; only the one with the map's maximum is asked for",
        (3, 5, 6, 7): "x comes before y: x0, y0, x1, y1",
        (5, 3, 6, 5): "x1 and y1 lie just outside of the region: add one to its last column and row",
        (5, 3, 6, 4): "places that touch by a corner belong together",
        (5, 3, 8, 6): "a place counts when it lies above the share of the maximum, not on it",
    }
    if tuple(box) in messages:
        raise Wrong(messages[tuple(box)])
    expect(box == [5, 3, 7, 6], "around the places that are above half of the maximum and hang together with it")
    return "one box, and none where nothing speaks for the class."


@exercise("a3.5", "measure")
def measure(answer: Callable[[], Tensor]) -> str:
    """How often boxes go where they were asked to: counts (4, 3)."""
    counts = tensor_answer(answer(), (4, 3), "the table")
    expect(bool((counts == counts.round()).all()) and bool((counts >= 0).all()), "counts are whole numbers, from 0 on")
    expect(bool((counts[:, :2].sum(1) <= SCENES).all()), f"there are at most {SCENES} scenes")
    decided = counts[[0, 1, 3], :2].sum(1)  # row 2 may be left at zero
    expect(bool((decided >= SCENES / 2).all()), "nearly every box overlaps one of the two objects more: count them all")
    return "a table that is possible."
