"""Checks for the exercises of chapter 5."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers.checks import exercise, expect, is_truth, tensor_answer
from helpers.networks import LeNet

CLOSE = 1e-6  # of answers in double precision
FAR = 500.0  # how far logits lie apart where the softmax has saturated, in nats


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@exercise("5.1")
def predict_the_mask(answer: Callable[[], tuple[bool, bool]]) -> str:
    """Whether a factor changes the mask, with the map divided by its norm and as it stands."""
    returned = answer()
    expect(isinstance(returned, tuple) and len(returned) == 2, "return two truth values, (normalised, raw)")
    expect(all(map(is_truth, returned)), "both must be True or False")
    expect(not returned[0], "divided by its norm, what is left of the factor 1,000?")
    expect(returned[1], "without the norm, one side of the comparison grows by 1,000: does the other side follow?")
    return "the mask depends on the scale of the gradient only where nobody took the scale away."


def _four_loops(x: Tensor, k: int, a: float, b: float) -> Tensor:
    """Equation 3 for one map (h, w), place by place."""
    out, (height, width), reach = torch.zeros_like(x), x.shape, k // 2
    for i in range(height):
        for j in range(width):
            total = larger = 0.0
            for u in range(i - reach, i + reach + 1):
                for v in range(j - reach, j + reach + 1):
                    value = x[u, v].item() if 0 <= u < height and 0 <= v < width else 0.0
                    d = math.hypot(u - i, v - j) / k
                    total += value
                    larger += d * math.exp(-d) * max(0.0, value - x[i, j].item())
            out[i, j] = a * math.exp(-total / k**2) + b * larger
    return out


@exercise("5.2")
def inhibition_without_loops(answer: Callable[..., Tensor]) -> str:
    """The inhibition (B, h, w) of maps (B, h, w), equation 3."""
    only_average = answer(_draw(0, 1, 9, 9), b=0.0)
    expected = _four_loops(_draw(0, 1, 9, 9)[0], 7, 0.1, 0.0)[None]
    expect(
        torch.allclose(tensor_answer(only_average, (1, 9, 9), "the inhibition"), expected, atol=CLOSE),
        "with b = 0 the average term alone should be left: a exp(-mean), the mean over all k x k places of the zone, "
        "zeros beyond the border included",
    )
    for seed, (shape, k, a, b) in enumerate(
        [((1, 9, 9), 7, 0.0, 0.9), ((2, 5, 8), 3, 0.2, 0.5), ((3, 4, 3), 5, 0.1, 0.9)]
    ):
        x = _draw(seed, *shape)
        before = x.clone()
        inhibition = tensor_answer(answer(x, k=k, a=a, b=b), shape, "the inhibition")
        expect(x.equal(before), "your function writes into the maps it was given")
        expected = torch.stack([_four_loops(single_map, k, a, b) for single_map in x])
        reason = "the differential term differs" if a == 0 else f"with k = {k}, a = {a}, b = {b} it differs"
        expect(
            torch.allclose(inhibition, expected, atol=CLOSE),
            f"{reason} from four loops on maps {shape}: d is the distance over k, and only larger neighbours count",
        )
    return "your inhibition equals four loops, on square and other maps, for three zones."


@exercise("5.3")
def gradient_that_does_not_drown(answer: Callable[[Tensor, Tensor, int], Tensor]) -> str:
    """The gradient of a class's log-odds with respect to what its logits (B, classes) depend on."""
    weight = _draw(1, 4, 6)
    for scale, what in ((1.0, "logits of ordinary size"), (FAR, "logits far apart")):
        x = _draw(2, 3, 6).requires_grad_()
        logits = scale * x @ weight.T
        for c in (0, 2):
            rivals = [j for j in range(4) if j != c]
            shares = logits.detach()[:, rivals].softmax(1)  # how much each rival counts
            expected = scale * (weight[c] - shares @ weight[rivals])
            gradient = tensor_answer(answer(logits + 0.0, x, c), (3, 6), "the gradient")
            expect(
                torch.allclose(gradient, expected, rtol=CLOSE, atol=CLOSE),
                f"for {what} and class {c} it is not the slope of S_c - log sum exp of the other logits",
            )
            logits = scale * x @ weight.T  # a graph that autograd.grad may use up
    return "it is the class's slope minus the mean slope of its rivals, and stays so when the softmax has saturated."


@exercise("5.4")
def rule_of_a_tenth(answer: Callable[[Tensor], Tensor]) -> str:
    """bool masks of the largest tenth of the places of maps (..., h, w)."""
    for seed, shape in enumerate([(1, 10, 10), (4, 7, 9), (2, 3, 8, 8)]):
        g = _draw(seed, *shape)
        mask = answer(g)
        expect(isinstance(mask, Tensor) and mask.dtype == torch.bool, "return a bool tensor")
        expect(
            tuple(mask.shape) == shape, f"the mask must have the maps' shape, {shape}, yours has {tuple(mask.shape)}"
        )
        count = -(-shape[-1] * shape[-2] // 10)
        sizes = mask.flatten(-2).sum(-1)
        expect(bool((sizes == count).all()), f"keep {count} of {shape[-1] * shape[-2]} places of each map")
        low = g.masked_fill(~mask, torch.inf).amin((-2, -1))
        high = g.masked_fill(mask, -torch.inf).amax((-2, -1))
        expect(bool((low > high).all()), "a place that is kept is smaller than one that is not")
    return "exactly a tenth of each map, whatever its values."


@exercise("5.5")
def only_the_last_layer(answer: Callable[..., nn.Module]) -> str:
    """A copy of a network whose last linear layer is drawn anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = LeNet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    redrawn, again, other = answer(model, 0), answer(model, 0), answer(model, 1)
    expect(isinstance(redrawn, nn.Module), f"return a network, yours is a {type(redrawn).__name__}")
    expect(torch.get_rng_state().equal(state), "the state of torch's generator must be as it was: fork_rng")
    same = all(value.equal(before[name]) for name, value in model.state_dict().items())
    expect(same, "the original has changed: copy it first")
    new = redrawn.state_dict()
    changed = sorted(name for name in before if not new[name].equal(before[name]))
    expect(bool(changed), "nothing was drawn anew")
    expect(
        changed == ["fc3.bias", "fc3.weight"],
        f"weight and bias of fc3 should be new and nothing else, changed: {', '.join(changed)}",
    )
    expect(new["fc3.weight"].equal(again.state_dict()["fc3.weight"]), "the same seed must give the same weights")
    expect(not new["fc3.weight"].equal(other.state_dict()["fc3.weight"]), "another seed must give other weights")
    bound = 1 / math.sqrt(84)  # of torch's uniform draw for 84 inputs
    expect(
        bool(new["fc3.weight"].abs().max() <= bound) and bool(new["fc3.weight"].std() > bound / 3),
        "draw the weights as torch initialises the layer: reset_parameters()",
    )
    return "the classifier has forgotten, everything below it has not."


@exercise("5.6")
def blur_with_control(answer: Callable[[Tensor, Tensor, Tensor], tuple[float, ...]]) -> str:
    """The fall, the control's fall, their difference and its standard error, from bool (N,)."""
    for seed, n in enumerate((40, 500)):
        draw = torch.Generator().manual_seed(seed)
        original = torch.rand(n, generator=draw) < 0.8
        outside = original & (torch.rand(n, generator=draw) < 0.8)
        control = outside & (torch.rand(n, generator=draw) < 0.6)
        returned = answer(original, outside, control)
        expect(isinstance(returned, tuple) and len(returned) == 4, "return four numbers")
        fall, control_fall, difference, standard_error = (float(number) for number in returned)
        sharp, blurred, control_blurred = (right.double() for right in (original, outside, control))
        falls = [(sharp - blurred).mean().item(), (sharp - control_blurred).mean().item()]
        expect(abs(fall - falls[0]) < CLOSE, "the fall is the share right without blur minus the share right with it")
        expect(abs(control_fall - falls[1]) < CLOSE, "the control's fall starts from the same images without blur")
        expect(abs(difference - (falls[1] - falls[0])) < CLOSE, "the difference is the control's fall minus the map's")
        expected = (blurred - control_blurred).std().item() / n**0.5
        expect(
            abs(standard_error - expected) < 1e-3 * expected,
            "take the difference image by image first, then its standard deviation, divided by the root of N",
        )
    return "in pairs, because the images are the same; now say what the number is about: the map, or the background?"
