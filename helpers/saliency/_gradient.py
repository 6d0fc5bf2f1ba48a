"""The gradient of a class score with respect to the pixels, and the attributions made from gradients."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from helpers._validate import SEEDS, Target, check_count, check_fill, check_images, check_number, check_target
from helpers.capture import INPUT, Score, chunks, gradients, refuse_script, suggested_layers, top_classes
from helpers.device import widened

RELUS = {F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
HARDTANHS = {F.hardtanh, F.hardtanh_}  # from 0 on it is a ReLU with a ceiling: what nn.ReLU6 calls


def input_gradient(model: nn.Module, x: Tensor, target: Target = None, *, score: Score = "logit") -> Tensor:
    """How a class score answers to each pixel: the slope w of the score at the image.

    Implements the w of :eq:`eq-taylor`: w = dS_c/dI at I_0, and of :eq:`eq-softmax-gradient` after the softmax,
    P_c (w_c - sum_j P_j w_j); chapter 2.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K classes of every image; each image's top class when left out.
        score: what of the class is differentiated: its "logit", "probability" or "log-odds".

    Returns:
        Raw signed gradients, (B, C, H, W) or (B, K, C, H, W), in score units per unit of x.

    Raises:
        ValueError: bad `x` or `target`, or an output that is not (B, classes).

    Source: Simonyan et al. 2013, section 3.
    """
    return gradients(model, x, target, INPUT, score=score).gradients[INPUT]


def class_saliency(model: nn.Module, x: Tensor, target: Target = None, *, score: Score = "logit") -> Tensor:
    """The image-specific class saliency map: the largest absolute gradient over the colours of each place.

    Implements :eq:`eq-class-saliency`: M_ij = max_h |w_(h, i, j)|, chapter 2.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.
        score: what of the class is differentiated: its "logit", "probability" or "log-odds".

    Returns:
        Maps, (B, H, W) or (B, K, H, W), not negative, in score units per unit of x.

    Raises:
        ValueError: as `input_gradient`.

    Source: Simonyan et al. 2013, section 3.1.
    """
    return input_gradient(model, x, target, score=score).abs().amax(-3)


def gradient_times_input(model: nn.Module, x: Tensor, target: Target = None) -> Tensor:
    """Gradient times input: what each pixel would add to the score if the network were linear, with this gradient.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects; a pixel of value 0 is given 0.
        target: class index, (B,) indices, or (B, K) for K classes of every image; each image's top class when left out.

    Returns:
        Signed attributions, (B, C, H, W) or (B, K, C, H, W), in score units.

    Raises:
        ValueError: as `input_gradient`.

    Source: Shrikumar et al., "Not just a black box", 2016.
    """
    gradient = input_gradient(model, x, target)
    return gradient * (x if gradient.ndim == x.ndim else x[:, None]).detach()


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    steps: int = 50,
    baseline: float | Tensor = 0.0,
    batch_size: int | None = None,
) -> Tensor:
    """Integrated gradients: the gradient averaged on the straight way from a baseline to the image, times that way.

    Implements :eq:`eq-integrated`: (x - x') times the mean gradient between x' and x, chapter 2. Summed over colours
    and places it is the score at x minus the score at the baseline, up to the error of the quadrature.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K classes of every image; each image's top class when left out.
        steps: points of the Gauss-Legendre quadrature.
        baseline: the image without information: a number, or a tensor that broadcasts to x.
        batch_size: images a pass, which bounds the memory; the length of x, or 8 where x is shorter, when left out.

    Returns:
        Signed attributions, (B, C, H, W) or (B, K, C, H, W), in score units.

    Raises:
        ValueError: as `input_gradient`; steps or batch_size below 1, a baseline that does not fit or is not finite.

    Source: Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", ICML 2017.
    """
    steps = check_count(steps, "steps")
    x = check_images(x).detach()
    start = check_fill(baseline, x, "baseline")
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on -1 .. 1, weights that add up to 2
    wide, start = widened(x), widened(start)
    along, weights = (torch.as_tensor(v / 2, dtype=wide.dtype, device=x.device) for v in (nodes + 1, weights))

    def on_the_way(image: Tensor, step: Tensor) -> Tensor:
        return (start[image] + along[step, None, None, None] * (wide[image] - start[image])).to(x.dtype)

    mean = _mean_gradient(model, x, target, on_the_way, weights, batch_size)
    way = wide - start
    return (mean * (way if mean.ndim == way.ndim else way[:, None])).to(x.dtype)


def smooth_gradient(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """SmoothGrad: the gradient averaged over noisy copies of the image.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K classes of every image; each image's top class when left out.
        samples: noisy copies of each image.
        noise: standard deviation of the noise, as a share of each image's range from least to greatest value.
        seed: of the noise; from 0 on; the same on every device and for every `batch_size`.
        batch_size: images a pass, which bounds the memory; the length of x, or 8 where x is shorter, when left out.

    Returns:
        Raw signed mean gradients, (B, C, H, W) or (B, K, C, H, W), in score units per unit of x.

    Raises:
        ValueError: as `input_gradient`; samples or batch_size below 1, or noise that is negative or not finite.

    Source: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.
    """
    samples = check_count(samples, "samples")
    noise = check_number(noise, "noise", 0)
    seed = check_count(seed, "seed", 0, (SEEDS - 1) // samples - 1)
    x = check_images(x).detach()
    spread = noise * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))  # (B,)

    @lru_cache(maxsize=1)  # a pass may end in the middle of a sample, with which the next pass begins
    def noise_of(sample: int) -> Tensor:
        # For the whole batch, so that `batch_size` does not change the noise; on the CPU, nor does the device.
        draw = torch.Generator().manual_seed(seed * samples + sample)  # no two seeds share a sample
        return torch.randn(x.shape, generator=draw, dtype=torch.float32, device="cpu").to(x)

    def noisy(image: Tensor, sample: Tensor) -> Tensor:
        first = int(sample[0])
        draws = torch.stack([noise_of(s) for s in range(first, int(sample[-1]) + 1)])  # (samples, B, C, H, W)
        return x[image] + spread[image, None, None, None] * draws[sample - first, image]

    weights = widened(x).new_full((samples,), 1 / samples)
    return _mean_gradient(model, x, target, noisy, weights, batch_size).to(x.dtype)


def guided_backprop(model: nn.Module, x: Tensor, target: Target = None) -> Tensor:
    """Guided backpropagation: the backward pass in which every ReLU also stops negative gradients.

    Not the gradient of any function of the image; chapter 2 measures what it knows of the class all the same.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes), with ReLUs, as modules or as functions; it is
            left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K classes of every image; each image's top class when left out.

    Returns:
        Raw signed maps, (B, C, H, W) or (B, K, C, H, W).

    Raises:
        ValueError: as `input_gradient`, or a network in which no ReLU sees the image.

    Source: Springenberg et al., "Striving for simplicity: the all convolutional net", 2014.
    """
    refuse_script(model, "its ReLUs can be guided")
    with _GuidedReLUs() as guide:
        maps = input_gradient(model, x, target)
    if not guide.count:
        raise ValueError(
            "model must have ReLUs that see the image for guided backpropagation, got one without: input_gradient, or "
            f"grad_cam at one of its layers ({suggested_layers(model, x)}), will do"
        )
    return maps


def _mean_gradient(
    model: nn.Module,
    x: Tensor,
    target: Target,
    points: Callable[[Tensor, Tensor], Tensor],
    weights: Tensor,
    batch_size: int | None,
) -> Tensor:
    """The weighted sum of the gradients at S points for each image, in the precision of the weights.

    `points(image, point)` gives the images of one pass, (n, C, H, W): for the numbers of the images, (n,), and of the
    points, (n,), that go into it.
    """
    classes, several = check_target(top_classes(model, x, batch_size) if target is None else target, len(x))
    classes = classes.to(x.device)  # (B, K)
    total = weights.new_zeros(len(x), classes.shape[1], *x.shape[1:])
    for rows in chunks(len(x) * len(weights), batch_size, x):
        point, image = rows // len(x), rows % len(x)
        gradient = input_gradient(model, points(image, point), classes[image])  # (n, K, C, H, W)
        total.index_add_(0, image, gradient * weights[point].view(-1, 1, 1, 1, 1))
    return total if several else total[:, 0]


class _GuidedReLUs(TorchFunctionMode):
    """Inside, the gradient at the output of every ReLU loses its negative part; `count` says how many there were.

    It sees functions, and with them modules, which call functions: no module is replaced and no hook is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        guided = func in RELUS or (func in HARDTANHS and _floor(*args, **(kwargs or {})) == 0)
        # What needs no gradient was not made of the image: Swin V2 has ReLUs that are given positions alone.
        if guided and output.requires_grad:
            self.count += 1
            output.register_hook(_guided)
        return output


def _guided(gradient: Tensor | None) -> Tensor | None:
    """A gradient without its negative part; there is none where what follows cannot be differentiated."""
    return None if gradient is None else gradient.clamp(min=0)


def _floor(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> float:
    """Where a hardtanh begins, however its arguments were passed."""
    return min_val
