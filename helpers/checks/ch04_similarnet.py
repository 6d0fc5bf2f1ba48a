"""Checks for the exercises of chapter 4."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import data, metrics, similarnet
from helpers.checks import exercise, expect, tensor_answer
from helpers.networks import LeNet, load

CLOSE = 1e-5  # of answers in single precision
NEAR = 0.01  # relative, of an effective number
FAIR = 0.9  # exercise 4.8: balanced accuracy wanted


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _lenet(seed: int, size: int) -> LeNet:
    """A LeNet with random weights that leaves the caller's random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LeNet(size=size).eval()


@exercise("4.1")
def predict_the_errors(answer: Callable[[], tuple[float, Tensor]]) -> str:
    """The error E and the errors (3,) of the toy whose third filter speaks for the other class."""
    returned = answer()
    expect(isinstance(returned, tuple) and len(returned) == 2, "return two things: E, a number, and e, (3,)")
    errors = tensor_answer(returned[1], (3,), "e")
    expect(
        float(returned[0]) != 0.25,
        "E is another one now: look at the third image with filter 2 on its own class's side",
    )
    expect(abs(float(returned[0])) < CLOSE, "with all three filters every image is named rightly: what is E then?")
    expect(abs(errors[2].item()) < CLOSE, "without filter 2 the two others decide, as they did before: who is wrong?")
    expect(
        torch.allclose(errors, torch.tensor([0.25, 0.5, 0.0]).double(), atol=CLOSE),
        "go image by image: without filter 0 class 0 is left with what filter 2 says for it, without filter 1 class 1 "
        "is left with nothing",
    )
    return "filter 2 now does no harm, and no good either: e equals E, its weight E - e is zero."


@exercise("4.2")
def errors_by_hand(answer: Callable[[Tensor, Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Tensor]]) -> str:
    """The error rate with all filters, and without each, (F,), of feature maps (N, F, h, w) and what reads them."""
    for seed, (n, filters, h, w) in enumerate([(40, 5, 3, 2), (7, 3, 1, 4)]):
        maps, weight = _draw(seed, n, filters, h, w), _draw(seed + 5, 4, filters * h * w) - 0.5
        maps[:, 1] = 0  # a dead filter
        y = torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(seed))

        def head(f: Tensor, weight: Tensor = weight) -> Tensor:
            return f.flatten(1) @ weight.T

        mine = maps.clone()
        returned = answer(mine, head, y)
        expect(isinstance(returned, tuple) and len(returned) == 2, "return two things: E, and e of shape (F,)")
        expect(torch.equal(mine, maps), "the maps were changed: silence a filter in a copy")
        baseline = tensor_answer(torch.as_tensor(returned[0]), (), "E")
        errors = tensor_answer(returned[1], (filters,), "e")
        whole = (head(maps).argmax(1) != y).double().mean()
        expected = []
        for i in range(filters):
            mask = torch.ones(filters).index_fill(0, torch.tensor(i), 0)[:, None, None]
            expected.append((head(maps * mask).argmax(1) != y).double().mean())
        expect(
            torch.allclose(baseline, whole, rtol=0, atol=CLOSE), "E is the share of wrong answers with all filters on"
        )
        expect(
            torch.allclose(errors[1], whole, rtol=0, atol=CLOSE),
            "filter 1 is dead: without it the error must be E again",
        )
        expect(not torch.allclose(errors, 1 - torch.stack(expected), atol=CLOSE), "that is the share of right answers")
        expect(
            torch.allclose(errors, torch.stack(expected), atol=CLOSE),
            "e[i] is the share of wrong answers with feature map i, all of it, set to zero and the others as they are",
        )
    return "E and e, and the dead filter costs nothing."


@exercise("4.3")
def temperature(answer: Callable[[Tensor, float], float]) -> str:
    """The temperature at which the softmax of changes (F,) has a wanted effective number."""
    for seed, number in ((0, 2.0), (1, 8.0), (2, 15.0)):
        change = _draw(seed, 16).double() * 10.0 ** (1 - 2 * seed)
        returned = float(answer(change.clone(), number))
        expect(returned > 0, "a temperature is positive")
        actual = similarnet.effective_number((change / returned).softmax(0)).item()
        expect(
            abs(actual / number - 1) < NEAR,
            f"at your temperature {actual:.3g} filters count, wanted are {number:g}; the number rises with the "
            "temperature, from 1 to 16, so halve the interval again and again, on a logarithmic scale",
        )
    return (
        "there is a temperature for every effective number: so neither the paper nor the code fixes it by its formula."
    )


@exercise("4.4")
def size_of_the_map(answer: Callable[[int, int, int, bool], tuple[int, int]]) -> str:
    """The size of LeNet's last feature maps for an image, with a padding of the convolutions, with or without pools."""
    for h, w, padding, pools in ((608, 1080, 0, False), (608, 1080, 2, False), (28, 28, 2, True), (28, 28, 0, True),
                                 (375, 501, 0, True), (33, 70, 1, True)):  # fmt: skip
        layers = [nn.Conv2d(1, 1, 5, padding=padding), nn.MaxPool2d(2), nn.Conv2d(1, 1, 5, padding=padding)]
        layers = [*layers, nn.MaxPool2d(2)] if pools else [layers[0], layers[2]]
        with torch.no_grad():
            expected = tuple(nn.Sequential(*layers)(torch.zeros(1, 1, h, w)).shape[2:])
        returned = tuple(int(side) for side in answer(h, w, padding, pools))
        expect(
            returned == expected,
            f"an image of {h} x {w}, padded by {padding}, {'with' if pools else 'without'} poolings, gives {expected}; "
            f"you have {returned}. A convolution of 5 loses 4 pixels less twice the padding, a pooling halves and "
            "rounds down",
        )
    return "and the published maps are 8 pixels smaller each way than their pictures."


@exercise("4.5")
def mean_ablation(answer: Callable[[nn.Module, str, Tensor, Tensor], Tensor]) -> str:
    """The mean log-loss (F,) with each filter's map replaced by its own mean over images and places."""
    model, x = _lenet(3, size=16), _draw(4, 30, 1, 16, 16)
    y = torch.arange(30) % 10
    returned = tensor_answer(answer(model, "pool2", x, y), (16,), "the errors")
    with torch.no_grad():
        maps = model[:6](x)
        expected, of_zeros = [], []
        for i in range(16):
            for value, errors in ((maps[:, i].mean(), expected), (0.0, of_zeros)):
                changed = maps.clone()
                changed[:, i] = value
                errors.append(F.cross_entropy(model[6:](changed), y))
    expected, of_zeros = torch.stack(expected).double(), torch.stack(of_zeros).double()
    expect(not torch.allclose(returned, of_zeros, atol=1e-6), "these filters are set to zero, not to their mean")
    expect(
        torch.allclose(returned, expected, atol=1e-5),
        "replace map i, at every place and in every image, by one number: its mean over all images and places; then go "
        "on from there (helpers.capture.logits_from) and take the mean cross-entropy",
    )
    return "a filter that always says the same costs nothing any more: only what varies can be missed."


@exercise("4.6")
def linear_as_convolution(answer: Callable[[nn.Linear, int], nn.Module]) -> str:
    """The first linear layer of a network as a convolution over feature maps of that many channels."""
    for channels, side, out in ((16, 7, 12), (3, 2, 5)):
        linear = nn.Linear(channels * side * side, out)
        with torch.no_grad():  # drawn by hand: the caller's random numbers stay as they are
            linear.weight.copy_(_draw(side, *linear.weight.shape) - 0.5)
            linear.bias.copy_(_draw(side + 1, out))
        conv = answer(linear, channels)
        expect(isinstance(conv, nn.Conv2d), f"return an nn.Conv2d, yours is a {type(conv).__name__}")
        maps = _draw(side + 2, 2, channels, side + 3, side + 1)
        with torch.no_grad():
            returned = conv(maps)
            expect(
                returned.shape == (2, out, 4, 2),
                f"maps of {side + 3} x {side + 1} hold 4 x 2 windows of {side} x {side}: the answer is "
                f"(2, {out}, 4, 2), yours is {tuple(returned.shape)}",
            )
            for row, column in ((0, 0), (3, 1), (1, 1)):
                window = maps[:, :, row : row + side, column : column + side]
                expect(
                    torch.allclose(returned[:, :, row, column], linear(window.flatten(1)), atol=CLOSE),
                    "at each place the convolution must say what the linear layer says of the window that begins "
                    "there: reshape its weights as the flattening laid them out, and take the bias along",
                )
    return "the same numbers, and no longer tied to one size of image."


@exercise("4.7")
def baseline_table(answer: Callable[[Tensor, Tensor, Tensor, Tensor], dict[str, float]]) -> str:
    """Mean pixel AUC on cluttered canvases (N, 1, H, W) of four maps: weighted, uniform, random, the image itself."""
    net = load("lenet-mnist", "cpu")
    scenes = data.digit_scenes(60, seed=404, background="fragments")
    features, mask = similarnet.features_at_any_size(net, scenes.images, layer="pool2"), scenes.masks.any(1)
    weights = torch.linspace(0.01, 0.12, 16)
    returned = answer(features, scenes.images, mask, weights)
    names = ("weighted", "uniform", "random", "image")
    expect(
        isinstance(returned, dict) and set(returned) == set(names), f"return a dict with the keys {', '.join(names)}"
    )

    def auc(weights: Tensor) -> float:
        maps = F.interpolate(similarnet.heatmap(features, weights)[:, None], scale_factor=4.0, mode="bilinear")
        return metrics.pixel_auc(maps[:, 0], mask).mean().item()

    for name, expected in (("weighted", auc(weights)), ("uniform", auc(torch.ones(16)))):
        expect(
            abs(float(returned[name]) - expected) < 0.005,
            f"{name}: {expected:.3f} is what the stretched heat map earns on the mean over the canvases, yours is "
            f"{float(returned[name]):.3f}",
        )
    expect(abs(float(returned["image"]) - metrics.pixel_auc(scenes.images[:, 0], mask).mean().item()) < 0.005,
           "image: the brightness of the picture itself is the map")  # fmt: skip
    expect(0.7 < float(returned["random"]) < 0.99, "random: positive weights, drawn at random")
    expect(
        float(returned["random"]) not in (float(returned["weighted"]), float(returned["uniform"])),
        "random: draw weights",
    )
    gain = float(returned["weighted"]) - float(returned["uniform"])
    return f"weighted less uniform is {gain:+.3f}: a claim about weights has to be larger than what random ones do."


@exercise("4.8")
def digits_or_fragments(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Whether each hot spot (B, M) is a digit, from its box (B, M, 4) and the network's probabilities (B, M, K)."""
    net = load("lenet-mnist", "cpu")
    scenes = data.digit_scenes(120, seed=405, digits=(1, 6), size=128, background="fragments")
    boxes = similarnet.hotspots(scenes.images[:, 0], 0.5)
    reading = similarnet.read_hotspots(net, scenes.images, boxes)
    is_present = ~boxes.isnan().any(2)
    returned = answer(boxes.clone(), reading.probabilities.clone())
    expect(
        isinstance(returned, Tensor) and returned.dtype == torch.bool and returned.shape == is_present.shape,
        f"return bool of shape {tuple(is_present.shape)}, one answer a hot spot",
    )
    matched = metrics.detections(boxes, scenes.boxes)
    is_digit = torch.zeros_like(is_present)
    rows = torch.arange(len(boxes))[:, None].expand_as(matched.box)
    is_digit[rows[matched.found], matched.box[matched.found]] = True
    hits = returned[is_digit].double().mean().item()
    rejections = (~returned)[is_present & ~is_digit].double().mean().item()
    fair = (hits + rejections) / 2
    expect(
        fair > FAIR,
        f"you keep {hits:.0%} of the digits and drop {rejections:.0%} of the fragments, {fair:.0%} on average; "
        f"{FAIR:.0%} is wanted. Plot both groups: the largest probability, and the sides of the boxes",
    )
    return (
        f"{hits:.0%} of the digits kept, {rejections:.0%} of the fragments dropped. Did the network have a part in it?"
    )
