"""The maps and boxes that `helpers.experiments.localization` measures, all as large as the photographs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.cam import pooling_head, upsample, weighted_maps
from helpers.metrics import box_mask
from helpers.saliency import class_saliency, saliency_box

SIDE = 64  # pixels
CELL = 8  # pixels a side of a place of the last maps, which are SIDE / CELL = 8 places a side
Maps = Callable[[nn.Module, Tensor, Tensor], Tensor]  # network, images, their classes -> (N, SIDE, SIDE)

# What is made of a class's weights w_k^c before they weigh the maps, (N, C) -> (N, C).
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax of the weights": lambda w: w.softmax(1),
    "positive weights alone": lambda w: w.clamp(min=0),
    "all weights one": torch.ones_like,
    "positive weights at random": lambda w: random_weights(w.shape[1]).to(w).expand_as(w),
}


def random_weights(units: int) -> Tensor:
    """Even random numbers in [0, 1), the same for every class and every call, (units,)."""
    return torch.rand(units, generator=torch.Generator().manual_seed(0))


def class_maps(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    change: Callable[[Tensor], Tensor] = lambda w: w,
    times: int = 1,
) -> Tensor:
    """The maps of classes (N,) in images (N, C, H, W), as large as those; of a network with GAP or GMP.

    Args:
        model: the network.
        x: images as it expects them.
        labels: classes.
        change: of the weights.
        times: the network is shown each image so many times as large.
    """
    large = F.interpolate(x, scale_factor=times, mode="bilinear", align_corners=False) if times > 1 else x
    head = pooling_head(model, large)
    maps = weighted_maps(head.maps, change(head.weight[labels])[:, None])[:, 0]
    # A network à trous has its places off the even grid, by pixels of what it is shown. It is shown no larger images;
    # their maps are those of networks without an offset.
    offset = getattr(model, "offset", 0.0) if times == 1 else 0.0
    return upsample(maps, (x.shape[2], x.shape[3]), offset=offset)


def blurred_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The absolute gradient averaged over squares of `CELL` pixels a side, as coarse as the maps, (N, H, W)."""
    return upsample(F.avg_pool2d(class_saliency(model, x, labels)[:, None], CELL)[:, 0], (x.shape[2], x.shape[3]))


def downsampled_truth(truth: Tensor) -> Tensor:
    """The true boxes (N, 4) at the resolution of the maps, stretched as these are: what 8 x 8 places can say, each
    of `CELL` pixels a side."""
    inside = box_mask(truth, (SIDE, SIDE)).float()
    return upsample(F.avg_pool2d(inside[:, None], CELL)[:, 0], (SIDE, SIDE))


def centred_box(count: int, size: float) -> Tensor:
    """The same centred box for every image, (N, 4)."""
    low, high = SIDE * (1 - size) / 2, SIDE * (1 + size) / 2
    return torch.tensor([low, low, high, high]).expand(count, 4)


def gradient_boxes(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Chapter 2's boxes from the absolute gradient and the colours, (N, 4)."""
    return saliency_box(class_saliency(model, x, labels), x)


def less_mean(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Takes from each unit's weights their mean over the classes: other maps, the very same probabilities."""
    return lambda w: w - model.get_parameter("fc.weight").detach().mean(0)
