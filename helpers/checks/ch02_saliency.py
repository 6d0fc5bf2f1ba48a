"""Checks for the exercises of chapter 2."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import data, metrics, saliency
from helpers._validate import is_number, is_whole
from helpers.capture import in_batches, logits
from helpers.checks import exercise, expect, tensor_answer
from helpers.networks import load, normalize
from helpers.quadtree import exact_conv_sites

STEPS_TOLERANCE = 0.01  # exercise 2.3: how far the shares may miss the score's rise


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """The same network every time; the reader's random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return build()


@exercise("2.1")
def predict_the_slopes(answer: Callable[[], tuple[Tensor, float]]) -> str:
    """Slopes and constant of the four-pixel network at [[2, 3], [1, 3]]."""
    returned = answer()
    expect(
        isinstance(returned, tuple) and len(returned) == 2, "return two things: the slopes, (2, 2), and the constant b"
    )
    slopes = tensor_answer(returned[0], (2, 2), "the slopes")
    expect(slopes[0, 1] != 0, "the second unit is awake here: 3 - 1 is positive")
    expect(slopes[1, 0] != 5, "the second unit subtracts the lower left pixel: mind the sign")
    expect(slopes.flatten().tolist() == [2, 5, -5, 2], "each slope is the unit's weight times its weight in the score")
    expect(float(returned[1]) != 17, "17 is the score itself; take off what the four slopes explain")
    expect(float(returned[1]) == -3, "b is the score, 17, less the slopes times the pixels")
    return "slopes 2, 5, -5, 2 and b = -3: awake, the second unit has its say."


@exercise("2.2")
def saliency_by_hand(answer: Callable[[nn.Module, Tensor, int], Tensor]) -> str:
    """The class saliency map of one image (C, H, W), with torch alone."""
    model = _seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)))
    for draw in range(2):
        image = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(draw))
        original = image.clone()
        w = saliency.input_gradient(model, image[None], 1)[0].double()
        returned = tensor_answer(answer(model, image, 1), (6, 6), "the map of a (3, 6, 6) image")
        expect(torch.equal(image, original), "do not write into the image")
        expect(not torch.allclose(returned, w.abs().sum(0)), "that is the sum over the colours; keep the largest")
        late = bool((returned.abs() - w.amax(0).abs()).abs().max() < 1e-6)
        expect(not late, "take the absolute value before the largest colour, not after")
        chance = saliency.class_saliency(model, image[None], 1, score="probability")[0].double()
        expect(not torch.allclose(returned, chance), "that is the slope of the probability; ask the logit")
        expect(torch.allclose(returned, w.abs().amax(0), atol=1e-6), "take the slope of the score of class c alone")
    filled = any(parameter.grad is not None for parameter in model.parameters())
    expect(not filled, "right, but the network's .grad is full now: use torch.autograd.grad, not .backward()")
    return "the map of helpers.saliency.class_saliency, in three lines of torch."


@exercise("2.3")
def steps_of_the_integral(answer: Callable[[], int]) -> str:
    """The fewest steps whose shares add up to within 1 % for the cup of coffee."""
    steps = answer()
    expect(is_whole(steps), "return one whole number")
    expect(1 <= steps <= 50, "between 1 and 50 steps are enough")
    network = load("photos-gap", "cpu")
    coffee = F.interpolate(data.photo("coffee")[None, :, :, 100:500], size=(64, 64), mode="area")
    x = normalize(coffee, network)
    target = int(logits(network, x).argmax())
    rise = (logits(network, x) - logits(network, x * 0))[0, target].item()

    def miss(count: int) -> float:
        shares = saliency.integrated_gradients(network, x, target, steps=count)
        return abs(shares.sum().item() - rise) / abs(rise)

    expect(miss(steps) <= STEPS_TOLERANCE, f"with {steps} steps the shares miss the rise by {miss(steps):.1%}")
    fewer_do = any(miss(count) <= STEPS_TOLERANCE for count in range(steps - 1, 0, -1))
    expect(not fewer_do, f"{steps} steps are enough, but not the fewest: look below")
    return f"{steps} steps, and the shares add up to within 1 %."


@exercise("2.4")
def blind_spot(answer: Callable[[], tuple[nn.Module, Tensor]]) -> str:
    """A network and an image whose map is zero although a pixel matters."""
    returned = answer()
    expect(isinstance(returned, tuple) and len(returned) == 2, "return two things: the network, the image")
    model, image = returned
    expect(isinstance(model, nn.Module), f"the first must be a network, yours is a {type(model).__name__}")
    image = tensor_answer(image, (1, 1, 4, 4), "the image").float()
    score = logits(model, image)[0, 0]
    regions = torch.tensor([[0, y, x, y + 1, x + 1] for y in range(4) for x in range(4)])
    drop = saliency.region_occlusion(model, image, 0, regions).abs().max().item()
    expect(drop >= 1, f"covering a pixel with 0 changes the score of class 0 by {drop:.2g} at most; make it 1 or more")
    slope = saliency.class_saliency(model, image, 0).max().item()
    expect(slope == 0, f"the map is not zero: its largest value is {slope:.2g}")
    return f"the map is zero everywhere, but one pixel is worth {drop:.3g} of a score of {score:.3g}."


@exercise("2.5")
def one_step_up(answer: Callable[[nn.Module, Tensor, int, float, float], Tensor]) -> str:
    """One step of gradient ascent on the score minus l2 times the squared length."""
    model = _seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 9, 4)))
    image = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(5))
    w = saliency.input_gradient(model, image[None], 2)[0]
    for l2, lr in ((0.1, 0.5), (0.0, 1.0), (2.0, 0.01)):
        returned = tensor_answer(answer(model, image.clone(), 2, l2, lr), (1, 5, 5), "the new image").float()
        expect(not torch.allclose(returned, image - lr * (w - 2 * l2 * image), atol=1e-6), "that goes downhill")
        if l2:
            once = image + lr * (w - l2 * image)
            expect(
                not torch.allclose(returned, once, atol=1e-6), "the derivative of l2 times the square has a factor 2"
            )
            expect(not torch.allclose(returned, image + lr * w, atol=1e-6), "the penalty pulls too: what is its slope?")
            away = image + lr * (w + 2 * l2 * image)
            expect(not torch.allclose(returned, away, atol=1e-6), "the penalty is subtracted: it pulls towards zero")
        expected = saliency.class_model(model, 2, (1, 5, 5), l2=l2, lr=lr, steps=1, start=image).image
        expect(
            torch.allclose(returned, expected, atol=1e-5),
            f"the image after a step is not right for l2 = {l2}, lr = {lr}",
        )
    return "one step of helpers.saliency.class_model."


@exercise("2.6")
def places_in_a_leaf(answer: Callable[[int, int, int], int]) -> str:
    """Exact places in one leaf."""
    for side, kernel, layer in ((8, 3, 1), (8, 3, 2), (16, 5, 1), (4, 3, 2), (1, 3, 1), (2, 5, 3), (32, 3, 10)):
        expected = exact_conv_sites(torch.tensor([[0, 0, side]]), kernel, layer)[-1].item()
        returned = answer(side, kernel, layer)
        case = f"for a leaf of side {side}, kernels of {kernel} and layer {layer}"
        expect(returned == int(returned), f"{case} you get {returned}: places are counted in whole numbers")
        expect(returned <= side**2, f"{case} you get {returned:g}, but the leaf has only {side**2} pixels")
        expect(returned != expected - 1, f"{case} one is missing: the inner square needs one place, too")
        expect(
            returned == expected,
            f"{case} there are {expected} places, yours says {returned:g}: how large is the inner square?",
        )
    return "the rims grow with the layers until nothing even is left."


@exercise("2.7")
def without_the_network(answer: Callable[[Tensor], Tensor]) -> str:
    """A map that never saw the network and wins the pointing game on scenes of one object."""
    for seed in (771, 772, 773):
        scenes = data.scenes(100, seed)
        maps = tensor_answer(answer(scenes.images.clone()), (100, 64, 64), "the maps of 100 scenes")
        hits = metrics.pointing_game(maps, scenes.masks[:, 0]).mean().item()
        expect(hits >= 0.9, f"your map hits {hits:.0%} of the objects; 90 % and more can be had. What stands out?")
    return f"{hits:.0%} hits without a network: such a score says nothing about one."


@exercise("2.8")
def another_network(answer: Callable[[], float]) -> str:
    """How often the absolute gradient of scenes-gmp has more mass on the object asked about."""
    share = answer()
    expect(is_number(share) and 0 <= share <= 1, "return a share, a number between 0 and 1")
    network = load("scenes-gmp", "cpu")
    scenes = data.scenes(200, 201, objects=2)
    x = normalize(scenes.images, network)
    best = in_batches(logits, network, x).topk(2, 1).indices
    there = (best.sort(1).values == scenes.labels.sort(1).values).all(1)
    maps = in_batches(saliency.class_saliency, network, x[there], scenes.labels[there], batch_size=50)
    own, other = (metrics.mass_in_mask(maps, m) for m in (scenes.masks[there], scenes.masks[there].flip(1)))
    expected = (own > other).double().mean().item()
    hint = f"keep the {int(there.sum())} scenes whose two classes are the network's two best answers"
    expect(abs(share - expected) < 0.005, f"it is not {share:.3f}: {hint}, and count both classes of each")
    return f"{expected:.0%}: better than a coin, and far from sure."
