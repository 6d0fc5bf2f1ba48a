"""Checks for the exercises of chapter 1."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import vgg16

from helpers._validate import is_whole
from helpers.basics import output_size, receptive_fields
from helpers.checks import Wrong, exercise, expect, tensor_answer


@exercise("1.1")
def predict_the_layer(answer: Callable[[], tuple[int, int]]) -> str:
    """Side and parameters of a layer of eight 3x3 kernels on a colour image of 7x7, stride 2, padding 1."""
    returned = answer()
    expect(isinstance(returned, tuple) and len(returned) == 2, "return two whole numbers: the side, the parameters")
    side, parameters = returned
    expect(is_whole(side) and is_whole(parameters), "the side first, as one number; then the parameters")
    expect(side < parameters, "the side comes first, the parameters second")
    expect(side != 3, "3 is the side without padding; count the padded pixels too")
    expect(side != 5, "5 is not the number of places: the window moves two pixels at a time")
    expect(side == output_size(7, 3, stride=2, padding=1), "list the columns where a window of three can start")
    expect(parameters != 8 * 9 + 8, "a kernel reaches through all three colours")
    expect(parameters != 8 * 27, "each kernel has a bias as well")
    expect(parameters == 8 * (3 * 9 + 1), "weights of one kernel, plus its bias, times the kernels")
    return "4 by 4 places, and 8 x (3 x 9 + 1) = 224 parameters, however large the image is."


@exercise("1.2")
def read_off_vgg(answer: Callable[[], tuple[str, int]]) -> str:
    """First layer of VGG-16 that sees at least 112 pixels, and what its last layer sees."""
    returned = answer()
    expect(isinstance(returned, tuple) and len(returned) == 2, "return two things: a layer's name, a number of pixels")
    name, last = returned
    with torch.device("meta"):
        fields = receptive_fields(vgg16().features)
    sizes = {field.layer: field.size for field in fields}
    expect(str(name) in sizes, f"{name!r} is no layer of vgg16().features; the names run from '0' to '30'")
    expect(sizes[str(name)] >= 112, f"a unit of layer {name} sees {sizes[str(name)]} pixels, fewer than 112")
    first = next(field.layer for field in fields if field.size >= 112)
    expect(str(name) == first, f"layer {name} sees enough, but it is not the first")
    expect(last == fields[-1].size, "the second number is the size of the list's last entry, not its stride")
    return f"layer {first} is the first; the last sees {last} of 224 pixels, so no unit sees the whole photograph."


@exercise("1.3")
def correlate_without_pixels(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Cross-correlation of an (H, W) image and an (h, w) kernel, no padding, stride 1."""
    draw = torch.Generator().manual_seed(3)
    for shape, size in (((6, 6), (3, 3)), ((5, 9), (3, 3)), ((8, 7), (2, 4))):
        image = torch.randn(shape, generator=draw)
        kernel = torch.randn(size, generator=draw)
        originals = image.clone(), kernel.clone()
        expected = F.conv2d(image[None, None].double(), kernel[None, None].double())[0, 0]
        flipped = F.conv2d(image[None, None].double(), kernel.flip(0, 1)[None, None].double())[0, 0]
        returned = tensor_answer(
            answer(image, kernel), tuple(expected.shape), f"the map of a {shape} image and a {size} kernel"
        )
        expect(
            torch.equal(image, originals[0]) and torch.equal(kernel, originals[1]), "do not write into the arguments"
        )
        expect(not torch.allclose(returned, flipped, atol=1e-4), "you flipped the kernel: that is the true convolution")
        expect(
            torch.allclose(returned, expected, atol=1e-4),
            f"shapes agree, values do not, for a {size} kernel: tap (u, v) meets the slice from row u, column v",
        )
    return "equal to F.conv2d on square and oblong images and kernels."


@exercise("1.4")
def diagonal_detector(answer: Callable[[], Tensor]) -> str:
    """A (3, 3) kernel for edges with the bright side below the main diagonal."""
    kernel = tensor_answer(answer(), (3, 3), "the kernel")
    total = kernel.sum().item()
    expect(abs(total) < 1e-6, f"on an even grey it must answer 0, yours answers {total:.3g} times the grey")
    lower = torch.ones(3, 3, dtype=torch.float64).tril(-1)
    expect((kernel * lower).sum().item() > 0, "it must be positive where the lower left is bright, upper right dark")
    vertical = abs(kernel.sum(0)[0] - kernel.sum(0)[2]).item()
    horizontal = abs(kernel.sum(1)[0] - kernel.sum(1)[2]).item()
    diagonal = ((kernel * lower).sum() - (kernel * lower.T).sum()).item()
    expect(diagonal > max(vertical, horizontal), "an upright or a level edge excites it as much as the diagonal one")
    along = kernel.flip(1)
    expect(
        abs((along * lower).sum().item()) < diagonal / 2,
        "it answers to the other diagonal nearly as much: give the pixels on that line the same weight",
    )
    return "silent on even grey, loudest for the diagonal edge."


@exercise("1.5")
def receptive_field_rule(answer: Callable[[list[tuple[int, int]]], int]) -> str:
    """Receptive field of a chain of (kernel, stride) layers."""
    chains = {
        "a single 3x3": [(3, 1)],
        "two 3x3 in a row": [(3, 1), (3, 1)],
        "LeNet's four layers": [(5, 1), (2, 2), (5, 1), (2, 2)],
        "a 7x7 of stride 2, then a 3x3 of stride 2, then a 3x3": [(7, 2), (3, 2), (3, 1)],
        "no layer at all": [],
    }
    for name, chain in chains.items():
        model = nn.Sequential(*(nn.MaxPool2d(kernel, stride) for kernel, stride in chain))
        expected = receptive_fields(model)[-1].size if chain else 1
        returned = answer(list(chain))
        hint = "a layer widens the field by the stride it finds, not by its own"
        expect(returned == expected, f"for {name} one unit sees {expected} pixels, yours says {returned}: {hint}")
    return "the steps multiply, the reaches add up."


@exercise("1.6")
def pooling_is_not_linear(answer: Callable[[], tuple[Tensor, Tensor]]) -> str:
    """Two (2, 2) images on which max pooling breaks the rule of linearity."""
    returned = answer()
    expect(isinstance(returned, tuple) and len(returned) == 2, "return two images, a and b")
    a, b = (tensor_answer(g, (2, 2), name)[None, None] for g, name in zip(returned, "ab", strict=True))
    shown = torch.stack([torch.eye(4)[0], torch.eye(4)[3]]).double()  # the pair of the text
    known = torch.stack([a.flatten(), b.flatten()])
    scaled = known / known.abs().amax(1, keepdim=True).clamp_min(1e-12)
    expect(not torch.equal(scaled, shown) and not torch.equal(scaled, shown.flip(0)), "that is the pair of the text")
    whole = F.max_pool2d(a + b, 2).item()
    parts = (F.max_pool2d(a, 2) + F.max_pool2d(b, 2)).item()
    expect(abs(whole - parts) > 1e-6, f"here max(a + b) = {whole:.3g} = max(a) + max(b): put the maxima apart")
    return f"max(a + b) = {whole:.3g}, but max(a) + max(b) = {parts:.3g}."


@exercise("1.7")
def cross_entropy_by_hand(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Mean cross-entropy of logits (N, K) and labels (N,), safe for large logits."""
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 3.0, 0.5]])
    labels = torch.tensor([0, 2, 0])
    expected = F.cross_entropy(logits, labels)
    returned = tensor_answer(answer(logits, labels), (), "the loss")
    expect(
        not torch.isclose(returned, 3 * expected.double(), atol=1e-4), "that is the sum over the images: take the mean"
    )
    expect(not torch.isclose(returned, -expected.double(), atol=1e-4), "the sign: a loss is never negative")
    expect(
        torch.isclose(returned, expected.double(), atol=1e-4),
        f"three images should give {expected:.4f}, yours {returned:.4f}",
    )
    huge = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    try:
        steep = tensor_answer(answer(huge, torch.tensor([0, 0])), (), "the loss of logits of 1000")
    except Wrong as wrong:
        raise Wrong(f"{wrong}: exp(1000) overflows; subtract the largest logit first, or use logsumexp") from None
    expect(torch.isclose(steep, torch.tensor(500.0).double()), "logits of 1000: one image costs 0, the other 1000")
    apart = torch.tensor([[1000.0, 0.0], [-1000.0, 0.0]])
    try:
        safe = tensor_answer(answer(apart, torch.tensor([0, 1])), (), "the loss of [1000, 0] beside [-1000, 0]")
    except Wrong as wrong:
        raise Wrong(f"{wrong}: each image needs its own largest logit subtracted") from None
    expect(abs(safe.item()) < 1e-4, "[1000, 0] and [-1000, 0] with labels 0 and 1 cost nothing")
    return "right, and safe where exp(1000) would overflow."


@exercise("1.8")
def blind_to_place(answer: Callable[[], nn.Module]) -> str:
    """LeNet's features with a head whose logits do not change when the digit moves by a multiple of four pixels."""
    model = answer()
    expect(isinstance(model, nn.Module), f"return a network (an nn.Module), yours is a {type(model).__name__}")
    digit = torch.zeros(1, 1, 28, 28)  # a small mark: here and moved, no unit sees both it and the padding
    digit[0, 0, 10:14, 10:14] = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    moved = digit.roll((4, 4), (2, 3))
    with torch.no_grad():
        here, there = model.eval()(digit), model(moved)
    expect(tuple(here.shape) == (1, 10), f"ten logits are wanted, (1, 10), yours gives {tuple(here.shape)}")
    expect(not torch.allclose(here.sum(), torch.tensor(1.0)), "these are probabilities; ten logits are wanted")
    expect((here - model(torch.zeros_like(digit))).abs().max().item() > 1e-6, "the logits ignore the image altogether")
    gap = (here - there).abs().max().item()
    expect(gap < 1e-5, f"moved by four pixels the logits still change by {gap:.2g}: something keeps the places apart")
    count = sum(parameter.numel() for parameter in model.parameters())
    expect(count < 10_000, f"{count:,} parameters; a head that cannot tell places apart needs far fewer weights")
    return f"the same logits after the move, with {count:,} parameters in place of 107,786."
