"""Checks for the exercises of chapter 6."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers._validate import is_number, is_whole
from helpers.checks import exercise, expect, is_truth, tensor_answer
from helpers.retina import log_polar

CLOSE = 1e-5


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise("6.1")
def predict_the_line(answer: Callable[[], tuple[float, bool, bool]]) -> str:
    """Where a vertical line comes closest to the fovea, if it is seen behind the gaze, if its shape changes."""
    prediction = answer()
    expect(
        isinstance(prediction, tuple) and len(prediction) == 3,
        "return (angle in degrees, True or False, True or False)",
    )
    angle, behind, changes = prediction
    expect(
        is_truth(behind) and is_truth(changes),
        "the second and the third answer are True or False",
    )
    expect(
        is_number(angle) and 0 <= angle <= 360,
        "the first answer is an angle in degrees, 0 to 360",
    )
    expect(angle % 360 == 0, "the line's nearest point lies straight to the right of the gaze: at which angle is that?")
    expect(not behind, "180 degrees is to the left of the gaze, and the line lies to its right")
    expect(not changes, "ln(2 d / cos) = ln 2 + ln(d / cos): what does the first term do to the curve?")
    return "one curve for all distances, shifted: that is what a convolution can learn once."


@exercise("6.2")
def grid_of_circles(answer: Callable[..., Tensor]) -> str:
    """Places (n_radii, n_angles, 2) for grid_sample, circles in pixels on images of any shape."""
    for n_radii, n_angles, r_min, height, width in (
        (3, 4, 0.25, 8, 8),
        (5, 6, 0.1, 20, 20),
        (4, 8, 0.125, 10, 30),
        (4, 8, 0.125, 30, 10),
    ):
        grid = answer(n_radii, n_angles, r_min, height, width)
        grid = tensor_answer(grid, (n_radii, n_angles, 2), f"the grid of {n_radii} circles and {n_angles} angles")
        pixels = grid.double() * torch.tensor([width / 2, height / 2], dtype=torch.float64)
        radii = pixels.norm(dim=-1) / (min(height, width) / 2)
        shape = f"on an image of {height} x {width} pixels"
        expect(
            bool(((radii - radii[:, :1]).abs() < CLOSE).all()),
            f"{shape} the samples of one row do not lie on a circle: how long is a unit of x, and of y, in pixels?",
        )
        expect(abs(radii[0, 0].item() - 1) < CLOSE, f"{shape} row 0 should have radius 1, half the shorter side")
        expect(abs(radii[-1, 0].item() - r_min) < CLOSE, f"{shape} the last row should have the radius r_min")
        ratios = radii[1:, 0] / radii[:-1, 0]
        expect(
            bool(((ratios - ratios[0]).abs() < CLOSE).all()), "the radii should shrink by one factor from row to row"
        )
        turns = torch.atan2(pixels[0, :, 1], pixels[0, :, 0]).remainder(2 * math.pi)
        angles = torch.arange(n_angles, dtype=torch.float64) * 2 * math.pi / n_angles
        off = torch.minimum((turns - angles).abs(), 2 * math.pi - (turns - angles).abs())
        expect(
            bool((off < 1e-4).all()),
            "column 0 should lie to the right (x first), the next ones further down, and the last one "
            "a step before the circle closes",
        )
    return "circles on square, wide and tall images: a turn will be a roll on all of them."


@exercise("6.3")
def around_the_circle(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """A 5 x 5 convolution (B, K, n_radii, n_angles) that closes the angles and not the radii."""
    views, weight = _draw(0, 2, 3, 8, 12), _draw(1, 4, 3, 5, 5)
    features = tensor_answer(answer(views, weight), (2, 4, 8, 12), "the convolution").float()
    rolled = answer(views.roll(5, -1), weight)
    expect(
        torch.allclose(rolled, features.roll(5, -1), atol=1e-4),
        "rolled views do not give rolled features: at the first and last two columns the kernel must see the other end",
    )
    changed = views.clone()
    changed[:, :, 0] += 10
    expect(
        torch.allclose(answer(changed, weight)[:, :, -2:], features[:, :, -2:], atol=1e-4),
        "a change at the rim (row 0) reaches the fovea (the last rows): pad the radii with zeros",
    )
    inner = F.conv2d(views, weight)
    expect(
        torch.allclose(features[:, :, 2:-2, 2:-2], inner, atol=1e-3),
        "away from the borders it should be the plain convolution (torch's conv2d)",
    )
    closed = torch.cat([views[..., -2:], views, views[..., :2]], -1)
    expect(
        torch.allclose(features, F.conv2d(closed, weight, padding=(2, 0)), atol=1e-3),
        "at the first and last rows there should be zeros beyond the border",
    )
    return "it commutes with every roll, and keeps rim and fovea apart."


@exercise("6.4")
def mirror_a_view(answer: Callable[[Tensor], Tensor]) -> str:
    """The view (..., n_radii, n_angles) of the mirrored image, made from the view alone."""
    for seed, angles in ((0, 8), (1, 16), (2, 6)):
        image = _draw(seed, 1, 2, 32, 32)
        view, expected = (log_polar(picture, size=(6, angles))[0, 0] for picture in (image, image.flip(-1)))
        mirrored = tensor_answer(answer(view), (2, 6, angles), "the mirrored view").float()
        expect(
            not torch.allclose(mirrored, view.flip(-1), atol=CLOSE),
            "this reverses the columns; but column 0 lies to the right before, and belongs to the left after",
        )
        up_down = log_polar(image.flip(-2), size=(6, angles))[0, 0]
        expect(not torch.allclose(mirrored, up_down, atol=CLOSE), "this mirrors up and down, not left and right")
        expect(
            torch.allclose(mirrored, expected, atol=1e-4),
            f"it differs from the view of the mirrored image with {angles} angles: an angle a goes to 180 degrees - a",
        )
    return "the same as mirroring first, for 6, 8 and 16 angles."


@exercise("6.5")
def count_the_samples(answer: Callable[[float, float, float], tuple[int, int]]) -> str:
    """The smallest (n_radii, n_angles) whose neighbours are nowhere farther apart than a share of their radius."""
    for outer, inner, share in ((400, 4, 0.1), (100, 1, 0.2), (64, 2, 0.05), (32, 8, 0.3)):
        counts = answer(outer, inner, share)
        expect(
            isinstance(counts, tuple) and len(counts) == 2 and all(map(is_whole, counts)),
            "return two whole numbers, (n_radii, n_angles)",
        )
        radii, angles = counts
        expect(
            radii >= 2 and angles >= 3, f"two circles and three angles are the least that have neighbours, got {counts}"
        )
        case = f"for {outer} to {inner} pixels and a share of {share}"
        expect(2 * math.pi / angles <= share * (1 + 1e-9), f"{case} the samples along a circle are too far apart")
        expect(2 * math.pi / (angles - 1) > share, f"{case} fewer angles would do")
        step = 1 - (inner / outer) ** (1 / (radii - 1))
        expect(step <= share * (1 + 1e-9), f"{case} the circles are too far apart: by {step:.3f} of the larger radius")
        expect(1 - (inner / outer) ** (1 / (radii - 2)) > share, f"{case} fewer circles would do")
    return "right for four retinas; note how little the outer radius costs."


@exercise("6.6")
def judge_the_comparison(answer: Callable[[str], bool]) -> str:
    """Which differences between two networks could explain a result without the log-polar view."""
    reasons = {
        "a": (True, "whoever is shown a square loses its corners when it is turned, in whatever coordinates"),
        "b": (True, "training on images cut out around the object is a difference of its own"),
        "c": (False, "the padding around the circle belongs to the log-polar view: without it there is a seam"),
        "d": (True, "who stands higher has more to lose: look at what is left, too"),
    }
    for letter, (explains, reason) in reasons.items():
        judgement = answer(letter)
        expect(is_truth(judgement), f"return True or False for {letter!r}")
        expect(bool(judgement) is explains, f"({letter}): {reason}")
    return "three reasons for a control, and one for an ablation."
