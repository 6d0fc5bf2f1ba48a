"""What `python -m helpers.experiments.matrix` compares with: twenty networks, and every method computed a second time.

Nothing here asks `helpers`: the layers are those that torchvision's source names, and each map is worked out for one
image at a time, by autograd, plain hooks, loops and the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import roots_legendre
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.maxvit import MaxVit

CLASSES = 7
SIZE = (64, 96)  # pixels, height and width: not square, so that a map on its side would not fit
STEPS, SAMPLES = 5, 4  # of integrated gradients and SmoothGrad
MASKS, CELLS, KEEP = 5, 3, 0.5  # of RISE
CHANNELS = 6  # of Score-CAM
SPREAD = 0.15  # of SmoothGrad's noise, in shares of an image's range
ZONE, AVERAGE, DIFFERENCE = 7, 0.1, 0.9  # k, a and b of LICNN
TOLERANCE = 1e-9  # of the check that a class activation map and the bias make the logit

Cam = Callable[[nn.Module, Tensor, int], tuple[Tensor, Tensor | float]]  # (model, maps, class) -> (h, w), bias


class Network(NamedTuple):
    """A network of the matrix, as its source in torchvision tells it.

    Attributes:
        name: of the architecture.
        make: makes it, with weights drawn at random.
        size: of its images, (H, W).
        last: the last module with feature maps (B, C, h, w) of more than one place.
        cam: makes a class's map and its bias of what `last` gives, (C, h, w); None where it is not averaged, or where
            more than one linear layer follows.
    """

    name: str
    make: Callable[[], nn.Module]
    size: tuple[int, int]
    last: str
    cam: Cam | None = None


def read_by(linear: str, *, relu: bool = False) -> Cam:
    """A class activation map by the weights of the linear layer of this name; `relu`: behind a ReLU of the maps."""

    def cam(model: nn.Module, maps: Tensor, label: int) -> tuple[Tensor, Tensor | float]:
        layer: Any = model.get_submodule(linear)
        total = torch.zeros_like(maps[0])
        for weight, features in zip(layer.weight[label], maps, strict=True):
            total += weight * (features.clamp(min=0) if relu else features)
        return total, layer.bias[label]

    return cam


def as_they_are(model: nn.Module, maps: Tensor, label: int) -> tuple[Tensor, Tensor | float]:
    """The class activation map where the maps are the classes' own: their mean is the logit."""
    return maps[label], 0.0


def _torchvision(name: str, last: str, cam: Cam | None = None, size: tuple[int, int] = SIZE, **options: Any) -> Network:
    make = partial(get_model, name, weights=None, num_classes=CLASSES, **options)
    return Network(name, make, size, last, cam)


def _maxvit_t() -> nn.Module:
    """maxvit_t with partitions of 2 x 2 places: its own of 7 x 7 take images of 224 pixels and more."""
    return MaxVit(
        (64, 64),
        stem_channels=64,
        partition_size=2,
        block_channels=[64, 128, 256, 512],
        block_layers=[2, 2, 5, 2],
        head_dim=32,
        stochastic_depth_prob=0.2,
        num_classes=CLASSES,
    )


NETWORKS = (
    _torchvision("alexnet", "features", size=(96, 128)),
    _torchvision("vgg11_bn", "features"),
    _torchvision("squeezenet1_1", "classifier.2", as_they_are),
    _torchvision("resnet18", "layer4", read_by("fc")),
    _torchvision("resnext50_32x4d", "layer4", read_by("fc")),
    _torchvision("densenet121", "features", read_by("classifier", relu=True)),
    _torchvision("googlenet", "inception5b", read_by("fc"), init_weights=False),
    _torchvision("inception_v3", "Mixed_7c", read_by("fc"), (128, 160), init_weights=False),
    _torchvision("mobilenet_v2", "features", read_by("classifier.1")),
    _torchvision("mobilenet_v3_small", "features"),
    _torchvision("efficientnet_b0", "features", read_by("classifier.1")),
    _torchvision("efficientnet_v2_s", "features", read_by("classifier.1")),
    _torchvision("mnasnet0_5", "layers", read_by("classifier.1")),
    _torchvision("shufflenet_v2_x0_5", "conv5", read_by("fc")),
    _torchvision("regnet_y_400mf", "trunk_output", read_by("fc")),
    _torchvision("convnext_tiny", "features"),
    _torchvision("vit_b_16", "conv_proj", size=(64, 64), image_size=64),
    _torchvision("swin_t", "permute", read_by("head")),
    _torchvision("swin_v2_t", "permute", read_by("head")),
    Network("maxvit_t", _maxvit_t, (64, 64), "blocks.3"),
)

# (model, network, x (B, C, H, W), classes) -> maps (B, H, W), or None where the method is not defined. The model is in
# evaluation mode, its parameters frozen, so that what requires a gradient was made of the image.
Oracle = Callable[[nn.Module, Network, Tensor, Sequence[int]], Tensor | None]


def image_by_image(of_image: Callable[[nn.Module, Network, Tensor, int], Tensor | None]) -> Oracle:
    """An oracle out of one for a single image, (1, C, H, W), and its class."""

    def oracle(model: nn.Module, network: Network, x: Tensor, labels: Sequence[int]) -> Tensor | None:
        maps = [of_image(model, network, image[None], label) for image, label in zip(x, labels, strict=True)]
        known = [map for map in maps if map is not None]
        return torch.stack(known) if known else None

    return oracle


def slope(model: nn.Module, image: Tensor, label: int) -> Tensor:
    """The gradient of a logit at an image (1, C, H, W): (C, H, W)."""
    image = image.clone().requires_grad_()
    return torch.autograd.grad(model(image)[0, label], image)[0][0]


def input_gradient(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """The gradient, added up over the colours."""
    return slope(model, image, label).sum(0)


def class_saliency(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """The largest size of the gradient among the colours."""
    return slope(model, image, label).abs().max(0).values


def gradient_times_input(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """The gradient times the image, added up over the colours."""
    return (slope(model, image, label) * image[0]).sum(0)


def integrated_gradients(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """The image times the mean gradient between black and it, at scipy's Gauss-Legendre nodes."""
    nodes, weights = roots_legendre(STEPS)  # on -1 .. 1
    mean = torch.zeros_like(image[0])
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        mean += weight / 2 * slope(model, (1 + node) / 2 * image, label)
    return (image[0] * mean).sum(0)


def smooth_gradient(model: nn.Module, network: Network, x: Tensor, labels: Sequence[int]) -> Tensor:
    """The mean gradient of noisy copies: sample s has the noise of seed s, drawn for the whole batch."""
    maps = torch.zeros_like(x[:, 0])
    for sample in range(SAMPLES):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(sample)).to(x)
        for k, label in enumerate(labels):
            noisy = x[k] + SPREAD * (x[k].max() - x[k].min()) * noise[k]
            maps[k] += slope(model, noisy[None], label).sum(0) / SAMPLES
    return maps


class _Guided(torch.autograd.Function):
    """A ReLU whose backward pass lets through what is positive there and was positive here, below the ceiling."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, ceiling: float) -> Tensor:
        ctx.save_for_backward((features > 0) & (features < ceiling))
        return features.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (passed,) = ctx.saved_tensors
        return torch.where(passed & (gradients[0] > 0), gradients[0], 0), None


@contextmanager
def guided_relus() -> Iterator[list[float]]:
    """Inside, torch's functions of the name of a ReLU are guided; yields a list with the ceiling of each that ran."""
    ran: list[float] = []
    hardtanh = F.hardtanh

    def relu(features: Tensor, inplace: bool = False, ceiling: float = math.inf) -> Tensor:
        if features.requires_grad:  # made of the image: nothing else is differentiated
            ran.append(ceiling)
        return _Guided.apply(features, ceiling)

    def hard(features: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
        return relu(features, inplace, max_val) if min_val == 0 else hardtanh(features, min_val, max_val, inplace)

    six = partial(relu, ceiling=6.0)
    with patch.object(F, "relu", relu), patch.object(F, "relu6", six), patch.object(F, "hardtanh", hard):
        yield ran


def guided_backprop(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor | None:
    """The gradient, through ReLUs that are guided; None where none runs."""
    with guided_relus() as ran:
        gradient = slope(model, image, label)
    return gradient.sum(0) if ran else None


@torch.no_grad()
def occlusion(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """Windows of a quarter of the image, by steps of half a window; each place is given the mean drop."""
    height, width = image.shape[2:]
    (high, wide) = window = math.ceil(height / 4), math.ceil(width / 4)
    down, across = (math.ceil(side / 2) for side in window)
    total, covering = torch.zeros_like(image[0, 0]), torch.zeros_like(image[0, 0])
    whole = model(image)[0, label]
    for top in range(0, height - high + down, down):
        for left in range(0, width - wide + across, across):
            covered = image.clone()
            covered[:, :, top : top + high, left : left + wide] = 0
            total[top : top + high, left : left + wide] += whole - model(covered)[0, label]
            covering[top : top + high, left : left + wide] += 1
    return total / covering


@contextmanager
def watched(modules: Sequence[nn.Module], seen: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the network goes on with what `seen` makes of each output of these modules."""
    hooks = [module.register_forward_hook(lambda _module, _inputs, output: seen(output)) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def rise(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """The mean probability over masks, each place counting where a mask leaves it visible."""
    draw = torch.Generator().manual_seed(0)
    seen = torch.rand(MASKS, 1, CELLS, CELLS, generator=draw) < KEEP
    cell = [math.ceil(side / CELLS) for side in network.size]
    down, right = (torch.randint(0, side, (MASKS,), generator=draw).tolist() for side in cell)
    total = torch.zeros_like(image[0, 0])
    for grid, i, j in zip(seen[:, 0], down, right, strict=True):
        large = stretched(grid.to(image), ((CELLS + 1) * cell[0], (CELLS + 1) * cell[1]))
        mask = large[i : i + network.size[0], j : j + network.size[1]]
        total += model(image * mask)[0].softmax(0)[label] * mask
    return total / KEEP / MASKS


def last_maps(model: nn.Module, network: Network, image: Tensor, label: int) -> tuple[Tensor, Tensor, Tensor]:
    """The last feature maps (C, h, w), the gradient of the logit there, and the logit."""
    outputs: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        outputs.append(output.clone())
        return outputs[-1].clone()  # what follows may work in place

    with watched([model.get_submodule(network.last)], keep):
        logit = model(image.clone().requires_grad_())[0, label]
    (maps,) = outputs
    return maps[0].detach(), torch.autograd.grad(logit, maps)[0][0], logit.detach()


def class_activation_map(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor | None:
    """The last maps by the weights of the layer that reads their means; mean and bias must make the logit."""
    if network.cam is None:
        return None
    maps, _, logit = last_maps(model, network, image, label)
    with torch.no_grad():
        cam, bias = network.cam(model, maps, label)
        if abs(cam.mean() + bias - logit) > TOLERANCE * max(cam.abs().max(), abs(logit)):
            raise ArithmeticError(f"{network.name}: {network.last} and the weights do not make the logit")
        return stretched(cam, network.size)


def grad_cam(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """The last maps by the means of their gradients, where positive."""
    maps, slopes, _ = last_maps(model, network, image, label)
    total = torch.zeros_like(maps[0])
    for features, gradient in zip(maps, slopes, strict=True):
        total += gradient.sum() / gradient.numel() * features
    return stretched(total.clamp(min=0), network.size)


def hires_cam(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """The last maps by their gradients, place by place."""
    maps, slopes, _ = last_maps(model, network, image, label)
    total = torch.zeros_like(maps[0])
    for features, gradient in zip(maps, slopes, strict=True):
        total += gradient * features
    return stretched(total, network.size)


def layer_cam(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """The last maps by their positive gradients, place by place; where positive."""
    maps, slopes, _ = last_maps(model, network, image, label)
    total = torch.zeros_like(maps[0])
    for features, gradient in zip(maps, slopes, strict=True):
        total += torch.where(gradient > 0, gradient, 0) * features
    return stretched(total.clamp(min=0), network.size)


def score_cam(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor:
    """The last maps that vary most, by the softmax of the logits of the image seen through each; where positive."""
    maps, _, _ = last_maps(model, network, image, label)
    spread = [(-float(features.std(correction=0)), k) for k, features in enumerate(maps)]
    used, scores = [k for _, k in sorted(spread)[:CHANNELS]], []
    for k in used:
        mask = stretched(maps[k], network.size)
        mask = mask - mask.min()
        with torch.no_grad():
            scores.append(model(image * (mask / mask.max() if mask.any() else mask))[0, label])
    weights = torch.stack(scores).softmax(0)
    total = sum((weight * maps[k] for weight, k in zip(weights, used, strict=True)), torch.zeros_like(maps[0]))
    return stretched(total.clamp(min=0), network.size)


def attention_map(model: nn.Module, network: Network, image: Tensor, label: int) -> Tensor | None:
    """LICNN, on every call of a ReLU module that gives maps of the image, of several places; None where none does."""
    relus = [module for module in model.modules() if isinstance(module, (nn.ReLU, nn.ReLU6))]
    outputs: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        if not has_places(output):
            return output
        outputs.append(output.clone())
        return outputs[-1].clone()

    with watched(relus, keep):
        logits = model(image.clone().requires_grad_())[0]
    if not outputs:
        return None
    rivals = torch.cat([logits[:label], logits[label + 1 :]])
    log_odds = logits[label] - rivals.max() - (rivals - rivals.max()).exp().sum().log()
    masks = [winners(gradient[0].max(0).values) for gradient in torch.autograd.grad(log_odds, outputs)]
    masks[-1] = torch.ones_like(masks[-1])  # the last layer is not masked
    remaining, sums = iter(masks), []

    def mask(output: Tensor) -> Tensor:
        if not has_places(output):
            return output
        masked = output * next(remaining)
        sums.append(masked[0].sum(0).detach())
        return masked

    with watched(relus, mask):
        model(image.clone().requires_grad_())
    return unit(sum((stretched(unit(part), network.size) for part in sums), torch.zeros(())))


def has_places(output: Tensor) -> bool:
    """Whether an output is feature maps of more than one place, and made of the image."""
    return output.ndim == 4 and output.shape[2] * output.shape[3] > 1 and output.requires_grad


def winners(slopes: Tensor) -> Tensor:
    """The places of a Max-C map (h, w) that win against their neighbours, place by place."""
    values = unit(slopes).cpu().numpy()
    offsets = np.arange(ZONE) - ZONE // 2
    distance = np.hypot(offsets[:, None], offsets) / ZONE
    padded, inhibition = np.pad(values, ZONE // 2), np.zeros_like(values)
    for i, j in np.ndindex(values.shape):
        zone = padded[i : i + ZONE, j : j + ZONE]
        more = np.maximum(zone - values[i, j], 0)
        inhibition[i, j] = AVERAGE * np.exp(-zone.mean()) + DIFFERENCE * (distance * np.exp(-distance) * more).sum()
    return torch.from_numpy(values > inhibition / np.linalg.norm(inhibition)).to(slopes.device)


def unit(map: Tensor) -> Tensor:
    """A map (h, w) divided by its norm, or the zeros that it is."""
    norm = map.square().sum().sqrt()
    return map / norm if norm > 0 else map


def stretched(map: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (h, w) stretched over an image: bilinear, centres of places on the centres of their pixels."""
    down, across = (between(places, pixels).to(map) for places, pixels in zip(map.shape, size, strict=True))
    return down @ map @ across.T


def between(places: int, pixels: int) -> Tensor:
    """How much of each place every pixel along an axis is given: (pixels, places)."""
    shares = torch.zeros(pixels, places, dtype=torch.float64)
    for pixel in range(pixels):
        at = min(max((pixel + 0.5) * places / pixels - 0.5, 0), places - 1)
        below = int(at)
        shares[pixel, below] += 1 - (at - below)
        shares[pixel, min(below + 1, places - 1)] += at - below
    return shares


ORACLES: dict[str, Oracle] = {
    "input_gradient": image_by_image(input_gradient),
    "class_saliency": image_by_image(class_saliency),
    "gradient_times_input": image_by_image(gradient_times_input),
    "integrated_gradients": image_by_image(integrated_gradients),
    "smooth_gradient": smooth_gradient,
    "guided_backprop": image_by_image(guided_backprop),
    "occlusion": image_by_image(occlusion),
    "rise": image_by_image(rise),
    "class_activation_map": image_by_image(class_activation_map),
    "grad_cam": image_by_image(grad_cam),
    "hires_cam": image_by_image(hires_cam),
    "layer_cam": image_by_image(layer_cam),
    "score_cam": image_by_image(score_cam),
    "attention_map": image_by_image(attention_map),
}
