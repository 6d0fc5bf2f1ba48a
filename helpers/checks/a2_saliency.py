"""The open checks of the assignment on chapter 2."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers import metrics, quadtree, saliency
from helpers.capture import logits
from helpers.checks import exercise, expect, tensor_answer


def _network(colours: int, scale: float = 1.0) -> nn.Sequential:
    """A small network with three classes, the same every time; the student's random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        last = nn.Linear(20, 3)
        model = nn.Sequential(
            nn.Conv2d(colours, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), last
        )
    with torch.no_grad():
        last.weight *= scale
    return model


def _images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(6))


@exercise("a2.1", "lead_map")
def lead_map(answer: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]) -> str:
    """Gradient of the lead times input."""
    model, x = _network(2), _images(2, 2, 6, 6)
    asked, rival = torch.tensor([0, 2]), torch.tensor([1, 0])
    maps = answer(model, x.clone(), asked, rival)
    expect(not isinstance(maps, Tensor) or maps.shape != x.shape, "add up over the colours: (B, H, W)")
    maps = tensor_answer(maps, (2, 6, 6), "the maps of two images of 6 by 6")
    slopes = saliency.input_gradient(model, x, torch.stack([asked, rival], 1)).double()  # (B, 2, C, H, W)
    slope, pixels = slopes[:, 0] - slopes[:, 1], x.double()

    def same(other: Tensor) -> bool:
        return torch.allclose(maps, other, atol=1e-5)

    right = (slope * pixels).sum(1)
    expect(not same(-right), "the sign: the class asked about less its rival")
    expect(not same(slope.sum(1)), "this is the slope; times the pixel, please")
    expect(not same((slopes[:, 0] * pixels).sum(1)), "this is the score of the class alone: take off its rival's")
    expect(not same(right.abs()) and not same((slope * pixels).abs().sum(1)), "no absolute value: keep the sign")
    expect(not same((slope * pixels).amax(1)), "add up over the colours; the largest colour is for absolute slopes")
    chances = saliency.input_gradient(model, x, torch.stack([asked, rival], 1), score="probability").double()
    expect(not same(((chances[:, 0] - chances[:, 1]) * pixels).sum(1)), "those are probabilities; ask the logits")
    firsts = saliency.input_gradient(model, x, torch.tensor([[0, 1], [0, 1]])).double()
    alike = ((firsts[:, 0] - firsts[:, 1]) * pixels).sum(1)
    expect(not same(alike), "every image has its own two classes, yours asks all images about the first one's")
    expect(same(right), "not the slope of the lead times the pixel, added up over the colours")
    return "both maps of the check, each for its own two classes."


@exercise("a2.2", "cut")
def cut(answer: Callable[[Tensor, float], Tensor]) -> str:
    """A quadtree by squared error."""
    picture = torch.zeros(8, 8)
    picture[1, 1], picture[0, 5], picture[4:, :4] = 1, 1, 0.25
    squares = answer(picture, 0.8)
    expect(isinstance(squares, Tensor), "return a tensor (L, 3): torch.tensor of a list of rows does it")
    expect(squares.ndim == 2 and squares.shape[1] == 3, "each row is (y, x, size): shape (L, 3)")
    expect(not squares.is_floating_point(), "rows are whole numbers: int64")
    rows = [tuple(row) for row in squares.tolist()]
    right, ranged = (
        [tuple(row) for row in quadtree.build_quadtree(picture[None, None], 0.8, criterion)[0].tolist()]
        for criterion in ("error", "range")
    )
    expect(sum(size * size for *_, size in rows) == 64, "the squares must cover each of the 64 pixels once")
    expect(len(rows) != 1, "nothing is cut: the error of a square is a sum over its pixels, not their mean")
    expect(sorted(rows) != sorted(ranged), "that is the range of a square, its largest less its least pixel")
    turned = sorted((x, y, size) for y, x, size in right)
    expect(sorted(rows) != turned, "the row comes first: (y, x, size)")
    expect(sorted(rows) == sorted(right), "these are not the squares whose errors are within the limit")
    expect(rows == right, "the squares are right, their order is not: by y, and where y is equal by x")
    return f"the {len(right)} squares of the check's picture."


@exercise("a2.3", "drop_map")
def drop_map(answer: Callable[[nn.Module, Tensor, int, Tensor], Tensor]) -> str:
    """Drops of the logit on squares."""
    model, image = _network(2), _images(2, 4, 6) + torch.tensor([[[1.0]], [[-0.5]]])
    squares = torch.tensor([[0, 0, 2], [0, 4, 1], [2, 2, 2]])
    result = tensor_answer(answer(model, image.clone(), 1, squares), (4, 6), "the map of an image 4 high and 6 wide")
    y, x, size = squares.unbind(1)
    regions = torch.stack([0 * y, y, x, y + size, x + size], 1)

    def painted(fill: float | Tensor, share: Tensor) -> Tensor:
        drops = saliency.region_occlusion(model, image[None], 1, regions, fill=fill) / share
        maps = torch.zeros(4, 6, dtype=torch.float64)
        for drop, (top, left, side) in zip(drops, squares.tolist(), strict=True):
            maps[top : top + side, left : left + side] = drop
        return maps

    def same(other: Tensor) -> bool:
        return torch.allclose(result, other, atol=1e-5)

    mean = image.mean((1, 2))[None, :, None, None]
    right = painted(mean, size**2)
    expect(not same(-right), "the sign: the whole image's score less that of the painted one")
    expect(not same(painted(mean, torch.ones(3))), "share the drop out: divide by the pixels of the square")
    expect(not same(painted(mean, size)), "a square of side 2 has 4 pixels")
    expect(not same(painted(0.0, size**2)), "painted with 0; the image's mean colour is asked for")
    expect(not same(painted(image.mean(), size**2)), "one mean for all colours; each colour has its own")
    before = (image, answer(model, image, 1, squares))[0]
    expect(torch.equal(before, _images(2, 4, 6) + torch.tensor([[[1.0]], [[-0.5]]])), "do not paint into the image")
    expect(same(right), "not the drops of the check's three squares: is each painted alone, in a copy?")
    return "the drops of the check's three squares, and 0 beside them."


@exercise("a2.4", "deletion_area")
def deletion_area(answer: Callable[[nn.Module, Tensor, int, Tensor, int], float]) -> str:
    """The area under the deletion curve."""
    model, image = _network(2, 4.0), _images(2, 4, 6) + torch.tensor([[[1.0]], [[-0.5]]])
    ranking = _images(1, 4, 6)[0].abs()
    area = answer(model, image.clone(), 1, ranking, 6)
    if isinstance(area, Tensor):
        expect(area.numel() == 1, "return one number")
    area = float(area)
    mean = image.mean((1, 2))[None, :, None, None]

    def curve(fill: float | Tensor = mean, sign: int = 1, score: str = "probability") -> metrics.Curve:
        return metrics.deletion(model, image[None], 1, sign * ranking[None], steps=6, fill=fill, score=score)  # ty: ignore

    def same(other: Tensor | float) -> bool:
        return abs(area - float(other)) < 1e-4

    right = curve()
    expect(not same(curve(sign=-1).auc), "the map's largest value goes first")
    expect(not same(curve(score="logit").auc), "those are logits; the softmax makes probabilities of them")
    expect(not same(curve(fill=0.0).auc), "painted with 0; the image's mean colour is asked for")
    expect(not same(right.scores.sum()) and not same(right.scores.mean()), "the area is that of trapezoids")
    expect(not same(6 * right.auc), "the width of the curve is a share: 1 in all")
    expect(not same(torch.trapezoid(right.scores[:, 1:]) / 6), "point 0, the untouched image, is missing")
    expect(bool(logits(model, image[None]).isfinite().all()) and same(right.auc), "not the area of the check's curve")
    return "the area under the check's curve."


@exercise("a2.5", "my_judgements")
def my_judgements(answer: Callable[[], Tensor]) -> str:
    """Four maps under three judgements, on one's own scenes."""
    judged = tensor_answer(answer(), (3, 4, 32), "the judgements")
    expect(bool(((judged >= 0) & (judged <= 1)).all()), "shares, hits and areas lie between 0 and 1")
    hit, near, area = judged
    expect(bool((near >= hit).all()), "within three pixels a map hits at least as often: are the judgements in order?")
    expect(bool((hit.mean(1) > 0).any()), "no map hits anything: do masks and maps belong to the same scenes?")
    expect(bool((area.std(1) > 0).all()), "every scene has an area of its own, yours all have one and the same")
    expect(bool((area > 0).all()), "a probability is never 0, nor is the area under it")
    return "three judgements of four maps that are possible."
