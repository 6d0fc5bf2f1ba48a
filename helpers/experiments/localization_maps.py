"""The maps and boxes that `helpers.experiments.localization` measures, all as large as the photographs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.cam import pooling_head, upsample, weighted_maps
from helpers.metrics import box_mask
from helpers.saliency import class_saliency, saliency_box

SIDE = 64  # pixels a side of a photograph and of a scene
CELL = 8  # pixels a side of what one place of the last maps stands for
PLACES = f"{SIDE // CELL} x {SIDE // CELL}"  # of the last maps, in names of methods
FOREGROUND = 0.95  # quantile of the gradient above which the object begins
MapMethod = Callable[[nn.Module, Tensor, Tensor], Tensor]  # network, images, their classes -> maps (N, SIDE, SIDE)

# What may be made of the weights before they weigh the maps: (N, C), those of each image's class for the C last maps,
# to (N, C).
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax of the weights": lambda w: w.softmax(1),
    "positive weights alone": lambda w: w.clamp(min=0),
    "all weights one": torch.ones_like,
    "positive weights at random": lambda w: random_weights(w.shape[1]).to(w).expand_as(w),
}


def random_weights(units: int) -> Tensor:
    """A weight for each of so many maps, (units,), even in [0, 1): no class has its own, every call gives the same."""
    return torch.rand(units, generator=torch.Generator().manual_seed(0))


def class_maps(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    change: Callable[[Tensor], Tensor] = lambda w: w,
    times: int = 1,
) -> Tensor:
    """Class activation maps, as large as the images, of a network with GAP or GMP.

    Args:
        model: the network.
        x: images as it expects them, (N, 3, H, W).
        labels: the class whose map is wanted of each image, (N,).
        change: what is made of the weights of these classes, (N, C) -> (N, C) for C last maps.
        times: a whole number; the network is shown each image so many times as high and wide.

    Returns:
        (N, H, W), raw and signed.
    """
    large = F.interpolate(x, scale_factor=times, mode="bilinear", align_corners=False) if times > 1 else x
    head = pooling_head(model, large)
    maps = weighted_maps(head.maps, change(head.weight[labels])[:, None])[:, 0]
    # The places of a network à trous lie off the even grid, by pixels of what it is shown; `upsample` wants those of x.
    offset = getattr(model, "offset", 0.0) / times
    return upsample(maps, (x.shape[2], x.shape[3]), offset=offset)


def coarse_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The absolute gradient averaged over squares of `CELL` pixels a side, as coarse as the last maps, (N, H, W)."""
    return upsample(F.avg_pool2d(class_saliency(model, x, labels)[:, None], CELL)[:, 0], (x.shape[2], x.shape[3]))


def downsampled_truth(truth: Tensor) -> Tensor:
    """The true boxes (N, 4) as maps (N, SIDE, SIDE) that say no more than the places of the last maps can.

    Each place has the share of its square of `CELL` pixels a side that lies in the box, and is stretched as the maps.
    """
    inside = box_mask(truth, (SIDE, SIDE)).float()
    return upsample(F.avg_pool2d(inside[:, None], CELL)[:, 0], (SIDE, SIDE))


def centred_box(count: int, size: float) -> Tensor:
    """The same box in the middle of every image, (count, 4) in pixel edges; its sides are a share of the image's."""
    low, high = SIDE * (1 - size) / 2, SIDE * (1 + size) / 2
    return torch.tensor([low, low, high, high]).expand(count, 4)


def gradient_boxes(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Chapter 2's boxes from the absolute gradient and the colours, (N, 4)."""
    return saliency_box(class_saliency(model, x, labels), x, foreground=FOREGROUND)


def less_mean(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A change of weights: each less the mean, over all classes, of the weights that read the same map.

    All logits of an image then change by one number, so that the probabilities stay what they are; the maps do not.
    """
    mean = model.get_parameter("fc.weight").detach().mean(0)  # the last layer's name in every network of the book
    return lambda w: w - mean
