"""Class activation maps: the last feature maps of a network, weighed by its last layer."""

import re
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from helpers._validate import Target, check_target, check_tensor
from helpers.capture import logits

GRAD_CAM_HINT = "grad_cam(model, x, target, layer=...) needs no such head"
POOLING = re.compile("pool|mean|amax")  # in the names of torch functions that pool; names of modules play no part
SAME = 1e-4  # two tensors hold the same numbers up to this difference, relative to the largest of them


class Head(NamedTuple):
    """The head of a network: it pools the last feature maps over all places and reads them with one linear layer."""

    maps: Tensor  # (B, C, h, w): the last feature maps
    weight: Tensor  # (classes, C): of the linear layer, w_k^c in row c
    bias: Tensor  # (classes,): zero where the layer has none
    logits: Tensor  # (B, classes)
    pooling: str  # "gap", the mean of each map, or "gmp", its maximum


def pooling_head(model: nn.Module, x: Tensor) -> Head:
    """The last feature maps of a batch, and the linear layer that reads their means or maxima.

    Found by looking on during one forward, not by the names of modules: the logits must come out of a linear layer
    whose input is the mean, or the maximum, of every feature map, for this batch. The pooling may be a module, a
    function or `x.mean((2, 3))`; one that takes several steps (`x.mean(3).mean(2)`) is not seen.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.

    Returns:
        A `Head`, detached, on the device of x.

    Raises:
        ValueError: bad `x`, or a network with another head.
    """
    with _Watch() as watch:
        scores = logits(model, x)
    linear = watch.linear
    if linear is None or not _same(linear.output, scores):
        raise ValueError(f"model must end in a global pooling and one linear layer, this one does not; {GRAD_CAM_HINT}")
    features, weight, bias = linear.features, linear.weight, linear.bias
    for maps, pooled in watch.pooled:
        # What the linear layer read must be these very numbers, and they the means or the maxima of the maps.
        if pooled.numel() == features.numel() and torch.equal(pooled.reshape(features.shape), features):
            for pooling, values in (("gap", maps.mean((2, 3))), ("gmp", maps.amax((2, 3)))):
                if _same(values, features):
                    bias = weight.new_zeros(len(weight)) if bias is None else bias
                    return Head(maps.detach(), weight.detach().clone(), bias.detach().clone(), scores, pooling)
    raise ValueError(
        "model must end in a global pooling, done in one step, and one linear layer; the last linear layer of this one "
        f"was not seen to read the means (or maxima) of its last feature maps; {GRAD_CAM_HINT}"
    )


def weighted_maps(maps: Tensor, weights: Tensor) -> Tensor:
    """Feature maps added up with weights: one map for each row of weights.

    Args:
        maps: feature maps, (B, C, h, w).
        weights: (C,) for one map an image; (K, C) for K maps of every image; (B, K, C) for K maps with weights of
            each image's own.

    Returns:
        Raw signed maps, (B, h, w), or (B, K, h, w) for weights with a K axis.

    Raises:
        ValueError: shapes that do not go together, or maps that are not floating point.
    """
    count, channels = check_tensor(maps, "maps", "B C h w", finite=False).shape[:2]
    layouts = (f"{channels}", f"K {channels}", f"{count} K {channels}")
    check_tensor(weights, "weights", *layouts, kind="real", finite=False)
    rows = weights.to(maps)
    rows = rows[None] if rows.ndim == 1 else rows  # (K, C) or (B, K, C)
    mixed = (rows @ maps.flatten(2)).unflatten(2, maps.shape[2:])  # (B, K, h, w)
    return mixed[:, 0] if weights.ndim == 1 else mixed


def class_activation_map(model: nn.Module, x: Tensor, target: Target) -> Tensor:
    """Evidence for a class at each place of the last feature maps.

    Implements :eq:`eq-cam`: M_c(u) = sum_k w_k^c f_k(u), chapter 3.

    Args:
        model: network that ends in global average pooling and one linear layer; it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K maps an image.

    Returns:
        Raw signed maps, (B, h, w) or (B, K, h, w), at the resolution of the last feature maps; their mean plus the
        bias is the logit.

    Raises:
        ValueError: bad `x` or `target`, or the network does not end in global average pooling and one linear layer.

    Source: Zhou et al., CVPR 2016, section 2.
    """
    head = pooling_head(model, x)
    if head.pooling != "gap":
        raise ValueError(
            "model must average its last feature maps, this one takes their maxima: its logit is not the mean of a "
            "map. pooling_head and weighted_maps give the weighted sum all the same; " + GRAD_CAM_HINT
        )
    classes, several = check_target(target, *head.logits.shape)
    weights = head.weight[classes.to(head.weight.device)]  # (B, K, C)
    maps = weighted_maps(head.maps, weights)
    return maps if several else maps[:, 0]


def _same(values: Tensor, others: Tensor) -> bool:
    """Whether two tensors hold the same numbers, up to rounding."""
    if values.shape != others.shape:
        return False
    limit = SAME * others.abs().amax().clamp_min(torch.finfo(others.dtype).tiny)
    return bool((values - others).abs().amax() <= limit)


class _Linear(NamedTuple):
    """What a linear layer read and gave."""

    features: Tensor  # (B, C)
    weight: Tensor  # (classes, C)
    bias: Tensor | None  # (classes,)
    output: Tensor  # (B, classes)


class _Watch(TorchFunctionMode):
    """Looks on at a forward: keeps the last linear layer, and every step that turns maps into one number a map.

    It sees functions, and with them modules, which call functions: no module is replaced and no hook is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear: _Linear | None = None
        self.pooled: list[tuple[Tensor, Tensor]] = []  # maps (B, C, h, w), and B C numbers made of them

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func is F.linear:
            # A copy: after an in-place ReLU the output itself would be the logits, and the model would pass although
            # its logits are not linear. Features are not copied: changed in place, they no longer are the maps' means
            # or maxima, and the model is refused, which is the safe side.
            self.linear = _Linear(*_linear_arguments(*args, **(kwargs or {})), output.clone())
        elif isinstance(output, Tensor) and args and isinstance(args[0], Tensor) and args[0].ndim == 4:
            maps = args[0]
            one_a_map = output.numel() == len(maps) * maps.shape[1] and output.is_floating_point()
            # On 1 x 1 maps every step gives one number a map, so the count proves nothing, and only a function whose
            # name says pooling is taken: else a ReLU, a norm or a flatten behind the pooling would pass for it, and the
            # pooled values for the last feature maps.
            if one_a_map and (maps.numel() > output.numel() or POOLING.search(getattr(func, "__name__", ""))):
                self.pooled.append((maps, output))
        return output


def _linear_arguments(
    input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments of `F.linear`, however they were passed."""
    return input, weight, bias
