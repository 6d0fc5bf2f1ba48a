"""The open checks of assignment 5: a map that was asked "this one rather than that one"."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.checks import exercise, expect, tensor_answer

CLOSE = 1e-4
COUNT = 6  # scenes that the check of the contest asks for
FORGOTTEN = 4  # likewise, of forgetting


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), atol=CLOSE)


def _network() -> nn.Sequential:
    """Two convolutions with ReLUs and a classifier of 3 classes with one more."""
    layers = (nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    network = nn.Sequential(*layers, *head).eval()
    for seed, parameter in enumerate(network.parameters()):
        parameter.data = _draw(seed, *parameter.shape) / parameter[0].numel() ** 0.5
    return network


def _list(value: object, length: int) -> list[Tensor]:
    expect(isinstance(value, (list, tuple)), f"return a list of maps, yours is a {type(value).__name__}")
    assert isinstance(value, (list, tuple))
    behind = ": one behind a Flatten gives no maps" if len(value) > length else ""
    expect(
        len(value) == length, f"the check's network has {length} ReLUs with maps, you return {len(value)} maps{behind}"
    )
    return list(value)


@exercise("a5.1", "surround")
def surround(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """The weighted mean of the neighbours that exist."""
    maps, weights = _draw(0, 2, 5, 6).double(), _draw(1, 3, 3).double().abs()
    weights[1, 1] = 0
    means = tensor_answer(answer(maps.clone(), weights.clone()), (2, 5, 6), "the means")

    def summed(values: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(values[:, None], kernel[None, None], padding=1)[:, 0]

    def mean(kernel: Tensor) -> Tensor:
        return summed(maps, kernel) / summed(torch.ones_like(maps), kernel)

    expect(not _equal(means, summed(maps, weights)), "this is the weighted sum; divide it by the sum of the weights")
    everywhere = summed(maps, weights) / weights.sum()
    expect(
        not _equal(means, everywhere), "right inside; at the border the missing neighbours still count in the divisor"
    )
    flipped = _equal(means, mean(weights.flip(0, 1))) or _equal(
        means[:, 1:-1, 1:-1], mean(weights.flip(0, 1))[:, 1:-1, 1:-1]
    )
    expect(not flipped, "your weights are turned round: the entry below the middle belongs to the neighbour below")
    expect(not _equal(means, mean(weights.T)), "rows and columns of the weights are exchanged")
    inside = _equal(means[:, 1:-1, 1:-1], mean(weights)[:, 1:-1, 1:-1])
    expect(inside, "even where all neighbours exist this is not their weighted mean")
    expect(_equal(means, mean(weights)), "right inside, but not at the border: only neighbours within the map count")
    return "weighted means, also at the border."


@exercise("a5.2", "contributions")
def contributions(answer: Callable[..., list[Tensor]]) -> str:
    """Max-C maps of the difference of two logits."""
    network, x = _network(), _draw(20, 2, 1, 6, 6)
    target, rival = torch.tensor([0, 2]), torch.tensor([1, 0])
    maps = _list(answer(network, x.clone(), target.clone(), rival.clone()), 2)
    outputs, before, h = [], [], x
    for layer in network:
        previous, h = h, layer(h)
        if isinstance(layer, nn.ReLU) and h.ndim == 4:
            outputs.append(h)
            before.append(previous)
    image = torch.arange(2)

    def slopes(score: Tensor, at: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(score.sum(), at, retain_graph=True)

    score = h[image, target] - h[image, rival]
    right, alone = slopes(score, outputs), slopes(h[image, target], outputs)
    at_input, chance = slopes(score, before), slopes(h.softmax(1)[image, target], outputs)
    for number, (answered, gradient) in enumerate(zip(maps, right, strict=True)):
        shape = (2, *gradient.shape[2:])
        own_map = tensor_answer(answered, shape, f"map {number}")
        wrong = {
            "this is the target's logit alone: where does the rival come in?": alone[number].amax(1),
            "this is the gradient of a probability: logits are asked for": chance[number].amax(1),
            "the sign is lost: the largest value is asked for, not the largest size": gradient.abs().amax(1),
            "added up over the channels: the largest of them is asked for": gradient.sum(1),
            "the mean over the channels: the largest of them is asked for": gradient.mean(1),
            "divided by the number of images: each image has its own score": gradient.amax(1) / 2,
            "target and rival are exchanged": (-gradient).amax(1),
            "this is the gradient at the input of the ReLU: its output is asked for": at_input[number].amax(1),
        }
        for message, other in wrong.items():
            expect(not _equal(own_map, other), message)
        expect(_equal(own_map, gradient.amax(1)), f"map {number} is not the largest gradient over the channels")
    return "Max-C maps of both ReLUs that give maps."


@exercise("a5.3", "what_is_left")
def what_is_left(answer: Callable[..., list[Tensor]]) -> str:
    """Sum-C maps of a pass with masks."""
    network, x = _network(), _draw(21, 2, 1, 6, 6)
    masks = [_draw(22, 2, 6, 6) > 0, _draw(23, 2, 6, 6) > 0]
    sums = _list(answer(network, x.clone(), [mask.clone() for mask in masks]), 2)
    with torch.no_grad():
        first = network[:2](x)
        plain = network[2:4](first)
        masked = first * masks[0][:, None]
        second = network[2:4](masked)
    right = (masked.sum(1), (second * masks[1][:, None]).sum(1))
    left = [tensor_answer(answered, (2, 6, 6), f"map {number}") for number, answered in enumerate(sums)]
    expect(not _equal(left[0], masked.mean(1)), "this is the mean over the channels: their sum is asked for")
    expect(not _equal(left[0], masked.amax(1)), "this is the largest of the channels: their sum is asked for")
    expect(not _equal(left[0], first.sum(1)), "the first map is not masked: add up what is left after the mask")
    expect(_equal(left[0], right[0]), "the first map is not the masked output of the first ReLU, summed over channels")
    unheard = (plain * masks[1][:, None]).sum(1)
    expect(not _equal(left[1], unheard), "the second ReLU still hears what the first mask has silenced")
    expect(not _equal(left[1], second.sum(1)), "the second map is not masked: add up what is left after the mask")
    expect(_equal(left[1], right[1]), "the first map is right, the second is not")
    return "both layers, the second from what the first has left."


@exercise("a5.4", "contest")
def contest(answer: Callable[[int], Tensor]) -> str:
    """The advantages of both maps of some scenes."""
    advantages = answer(COUNT)
    expect(isinstance(advantages, Tensor), f"return a tensor, yours is a {type(advantages).__name__}")
    shape = tuple(advantages.shape)
    expect(len(shape) == 2 and shape[1] == 2 and shape[0] <= COUNT, f"a row a scene, two columns, got shape {shape}")
    expect(bool(torch.isfinite(advantages).all()), "the advantages hold NaN or infinity")
    expect(bool((advantages.abs() <= 1).all()), "an advantage lies between -1 and 1: (o - e) / (o + e), of two means")
    expect(bool(advantages.any()), "all advantages are 0")
    same = _equal(advantages[:, 0], -advantages[:, 1])
    expect(not same, "both maps of a scene are the same: does the question come into the masks?")
    expect(
        not _equal(advantages[:, 0], advantages[:, 1]), "both columns are the same: the second asks the other way round"
    )
    return f"{shape[0]} scenes, two advantages each."


@exercise("a5.5", "forgetting")
def forgetting(answer: Callable[[int], Tensor]) -> str:
    """Four rank correlations for each scene."""
    rows = answer(FORGOTTEN)
    expect(isinstance(rows, Tensor), f"return a tensor, yours is a {type(rows).__name__}")
    shape = tuple(rows.shape)
    expect(
        len(shape) == 2 and shape[0] == 4 and shape[1] <= FORGOTTEN, f"four rows, a column a scene, got shape {shape}"
    )
    expect(bool(torch.isfinite(rows).all()), "the rank correlations hold NaN or infinity")
    expect(bool((rows.abs() <= 1 + CLOSE).all()), "a rank correlation lies between -1 and 1")
    expect(bool((rows < 1 - CLOSE).all()), "somewhere a map is compared with itself")
    expect(all(not _equal(rows[i], rows[j]) for i in range(4) for j in range(i)), "two of the four rows are the same")
    last, everything = rows[:2].mean(1).tolist()
    expect(last > everything, "who forgets everything should remember less than who forgets the last layer alone")
    return f"{shape[1]} scenes, four rank correlations each."
