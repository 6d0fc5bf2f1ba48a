"""The open checks of the assignment on SIMILARnet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.checks import exercise, expect, tensor_answer

CLOSE = 1e-4  # of answers in single precision
CANVASES = 120  # of a4.5, before those that hold the wanted digit twice are left out
COUNTS = ("canvases", "luck", "plain", "map", "reading")


def _close(value: Tensor, other: Tensor) -> bool:
    return torch.allclose(value, other.double(), atol=CLOSE, rtol=0)


@exercise("a4.1", "class_weights")
def class_weights(answer: Callable[[nn.Module, int, Tensor, Tensor], Tensor]) -> str:
    """What each class loses without each filter, (K, F)."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        conv, linear = nn.Conv2d(1, 2, 1), nn.Linear(4, 3)
        conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        linear.weight.copy_(torch.tensor([[1.0, 0.5, -1, 0], [0, -0.5, 1, 0.5], [0.5, 0, 0, -1]]))
        for layer, bias in ((conv, [0.5, 1.0]), (linear, [0.0, 0.25, -0.5])):
            if layer.bias is not None:
                layer.bias.copy_(torch.tensor(bias))
    network = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear)
    x = torch.tensor([[2.0, -1], [0.0, 1], [-1.0, -2], [3.0, 0], [-2.0, 0.5]]).view(5, 1, 1, 2)
    y = torch.tensor([0, 1, 0, 0, 1])
    weights = answer(network, 0, x.clone(), y.clone())
    expect(isinstance(weights, Tensor), f"return a tensor, yours is a {type(weights).__name__}")
    expect(weights.shape == (3, 2), f"a row a class, a column a filter: here (3, 2), yours is {tuple(weights.shape)}")
    expect(not weights[2].isnan().any(), "class 2 has no images here: its row is zeros, not NaN")
    weights = tensor_answer(weights, (3, 2), "the weights")
    with torch.no_grad():
        f = network[0](x)
        silenced = [f * torch.tensor([[0.0], [1]])[..., None], f * torch.tensor([[1.0], [0]])[..., None], f * 0]
        whole = F.cross_entropy(network[1:](f), y, reduction="none")
        change = torch.stack([F.cross_entropy(network[1:](m), y, reduction="none") - whole for m in silenced])
        wrong = torch.stack([(network[1:](m).argmax(1) != y).float() for m in [f, *silenced[:2]]])

    def by_class(losses: Tensor, count: int = 0) -> Tensor:
        return torch.stack([losses[:, y == c].sum(1) / (count or max(int((y == c).sum()), 1)) for c in range(3)])

    right = by_class(change[:2])
    expect(
        not _close(weights, -right), "a filter that is missed counts above zero: its loss less that with all filters"
    )
    expect(not _close(weights, by_class(change[:2], 5)), "take the mean over the images of the class, not over all")
    expect(not _close(weights, by_class(change[:2], 1)), "take the mean over the images of a class, not the sum")
    expect(not _close(weights, by_class(wrong[1:] - wrong[0])), "take the log-loss, not the share of wrong answers")
    expect(
        not _close(weights, by_class(change[[0, 2]])),
        "one filter at a time: filter 0 must be on again when filter 1 is off. Silence it in a copy",
    )
    expect(
        _close(weights, right),
        "row c, column i: over the images of class c, the mean log-loss with map i of layer `at` set to zero, less the "
        "mean log-loss with all maps",
    )
    return "what each class loses without each filter."


@exercise("a4.2", "digit_maps")
def digit_maps(answer: Callable[[Tensor, Tensor, Tensor, tuple[int, int]], Tensor]) -> str:
    """Heat maps (B, H, W), each with the weights of its own digit."""
    features = torch.tensor([[[[1.0, 3], [0, 2]], [[2.0, 0], [4, 0]]], [[[0.0, 0], [6, 1]], [[1.0, 1], [0, 2]]]])
    weights = torch.tensor([[1.0, 0.0], [0.5, -1.0], [2.0, 3.0]])
    digits = torch.tensor([1, 0])
    maps = tensor_answer(answer(features.clone(), weights, digits, (4, 6)), (2, 4, 6), "the maps")
    small = (weights[digits][:, :, None, None] * features).sum(1)[:, None]
    right = F.interpolate(small, (4, 6), mode="bilinear", align_corners=False)[:, 0]
    expect(not _close(maps, right.clamp(min=0)), "keep what is below zero")
    expect(
        not _close(maps, F.interpolate(small, (4, 6))[:, 0])
        and not _close(maps, F.interpolate(small, (4, 6), mode="bilinear", align_corners=True)[:, 0]),
        "stretch the maps with cam.upsample, which interpolates between the centres of the cells",
    )
    expect(
        _close(maps, right), "picture b: its own feature maps, with the row of weights that belongs to its own digit"
    )
    return "a map for each picture, of the digit that it was asked for."


@exercise("a4.3", "spot_heat")
def spot_heat(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """The mean of each map inside of each of its boxes, (B, M)."""
    maps = torch.arange(24.0).view(1, 4, 6)
    maps[0, 3, 5] = -90
    nan = float("nan")
    boxes = torch.tensor([[[1.0, 0, 3, 2], [4, 2, 6, 4], [nan, nan, nan, nan]]])
    heat = answer(maps.clone(), boxes.clone())
    expect(isinstance(heat, Tensor) and heat.shape == (1, 3), "return a tensor (B, M), here (1, 3)")
    heat = heat.detach().double()
    expect(bool(heat[0, 2].isnan()), "where there is no box there is no heat: NaN")
    first, second = heat[0, :2].tolist()
    expect(abs(first - 18) > CLOSE, "the mean over the box's pixels, not their sum")
    expect(abs(first - 8) > CLOSE, "x1 and y1 lie just outside of the box")
    expect(abs(first - 9.5) > CLOSE, "x comes before y: columns x0 to x1, rows y0 to y1")
    expect(abs(first - 4.5) < CLOSE, "the mean over rows y0 to y1 - 1 and columns x0 to x1 - 1")
    expect(abs(second - 13.75) > CLOSE, "values below zero count as they are")
    expect(abs(second + 8.75) < CLOSE, "the first box is right, the second not: are all boxes treated alike?")
    return "the mean inside of each box."


@exercise("a4.4", "matches")
def matches(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Which box belongs to which digit, (T,); each box to one digit at most."""
    nan = float("nan")
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [0, 20, 10, 36]])
    boxes = torch.tensor(
        [[21.0, 0, 30, 10], [nan, nan, nan, nan], [20, 0, 30, 10], [0, 3, 10, 10], [47, 0, 57, 10], [0, 20, 10, 28]]
    )
    returned = answer(boxes.clone(), truth.clone())
    expect(isinstance(returned, Tensor) and not returned.is_floating_point(), "return a tensor of whole numbers")
    numbers = tensor_answer(returned, (4,), "the numbers of the boxes").long().tolist()
    expect(numbers[2] == -1, "an overlap (IoU) below one half finds nothing: -1")
    expect(numbers[3] != -1, "an overlap of exactly one half finds the digit")
    expect(numbers[1] != 0, "of two boxes on one digit the one that overlaps it more is taken")
    expect(numbers == [3, 2, -1, 5], "each digit has the number of its box, counted from 0 in the order of `boxes`")
    close_by = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 14]])
    returned = answer(torch.tensor([[0.0, 0, 10, 13]]), close_by)
    expect(isinstance(returned, Tensor) and returned.shape == (2,), "two digits, two numbers")
    expect(returned.tolist() != [0, 0], "one box cannot belong to two digits: the larger overlap has it")
    expect(returned.tolist() == [-1, 0], "the pair with the largest overlap comes first, whichever digit it is")
    return "each digit has its box, and no box has two digits."


@exercise("a4.5", "find")
def find(answer: Callable[[], dict[str, Any]]) -> str:
    """How often each way picks the spot of the wanted digit."""
    counts = answer()
    expect(isinstance(counts, dict) and set(counts) == set(COUNTS), f"return a dict with the keys {', '.join(COUNTS)}")
    values = {name: float(counts[name]) for name in COUNTS}
    total = values["canvases"]
    expect(0 < total <= CANVASES, f"there are at most {CANVASES} canvases")
    expect(all(0 <= value <= total for value in values.values()), "no count is larger than the number of canvases")
    expect(
        all(value == round(value) for name, value in values.items() if name != "luck"), "all but luck are whole numbers"
    )
    expect(
        values["luck"] <= total / 3 + 1,
        "each canvas has three spots and more: one drawn by luck is right once in three times, or less often",
    )
    return "counts that are possible."
