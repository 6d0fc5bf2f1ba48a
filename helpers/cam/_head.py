"""Class activation maps: the last feature maps of a network, weighed by its last layer."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from helpers._validate import Target, check_model, check_tensor
from helpers.capture import chosen_classes, last_feature_layer, logits, refuse_script
from helpers.device import own_precision

PROBE_SIDES = (64, 224, 299, 32, 28)  # of images that are tried on a network of which none are given
POOLING = re.compile("pool|mean|amax")  # in the names of torch functions that pool; names of modules play no part
SAME = 1e-4  # two tensors hold the same numbers up to this difference, relative to the largest of them


class Head(NamedTuple):
    """The head of a network: a pooling over all places and one linear layer, or 1 x 1 convolution, behind or before it.

    Attributes:
        maps: (B, C, h, w): the last feature maps, those that the layer reads.
        weight: (classes, C): of the layer, w_k^c in row c.
        bias: (classes,): what the mean of a class activation map lacks to the logit; zero where the layer has none.
        logits: (B, classes).
        pooling: "gap", the mean of each map, or "gmp", its maximum.
        class_maps: (B, classes, h, w), the class activation maps themselves where a ReLU stands between the layer and
            the pooling, as in SqueezeNet, so that they are no weighted sums; None elsewhere.
    """

    maps: Tensor
    weight: Tensor
    bias: Tensor
    logits: Tensor
    pooling: str
    class_maps: Tensor | None = None


def pooling_head(model: nn.Module, x: Tensor) -> Head:
    """The last feature maps of a batch, and the linear layer that reads their means or maxima.

    Found by looking on during one forward, not by the names of modules: for this batch, the logits must be what a
    linear layer (or a 1 x 1 convolution) makes of the means, or the maxima, of all feature maps; or themselves the
    means of maps that a 1 x 1 convolution, with or without a ReLU, made of the last feature maps. The pooling may be a
    module, a function or `x.mean((2, 3))`; one that takes several steps (`x.mean(3).mean(2)`) is not seen.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.

    Returns:
        A `Head`, detached, on the device of x.

    Raises:
        ValueError: bad `x`, or a network with another head.
    """
    watch, scores = _watched(model, x)
    linear = watch.linear
    if linear is not None and _same(linear.output, scores):
        features, weight, bias = linear.features, linear.weight, linear.bias
        for maps, pooled in watch.pooled:
            # What the linear layer read must be these very numbers, and they the means or the maxima of the maps.
            if pooled.numel() == features.numel() and torch.equal(pooled.reshape(features.shape), features):
                for pooling, values in (("gap", maps.mean((2, 3))), ("gmp", maps.amax((2, 3)))):
                    if _same(values, features):
                        return Head(maps.detach(), *_copies(weight, bias), scores, pooling)
        raise ValueError(
            "model must end in a global pooling, done in one step, and one linear layer; the last linear layer of this "
            f"one was not seen to read the means (or maxima) of its last feature maps; {_way_out(model, x)}"
        )
    for maps, _ in reversed(watch.pooled):
        if maps.shape[:2] == scores.shape and _same(maps.mean((2, 3)), scores):
            return _averaged_head(maps.detach(), watch.pointwise, scores)
    raise ValueError(f"model must end in a global pooling and one linear layer, it does not; {_way_out(model, x)}")


def output_weights(model: nn.Module, x: Tensor | None) -> Tensor:
    """The weights of the layer that gives the logits: a linear one, or a 1 x 1 convolution before a global average.

    Args:
        model: as for `pooling_head`, but what the layer reads need not be means of feature maps.
        x: images to look on with, (B, C, H, W); None tries noise of the size on the network's card, or of usual ones.

    Returns:
        (classes, units), a copy.

    Raises:
        ValueError: a network of another kind, or one that takes no image of a usual size.
    """
    for images in _probes(model) if x is None else (x,):
        try:
            watch, scores = _watched(model, images)
        except Exception:  # noise that it does not take: what it raises is up to the network
            if x is not None:
                raise
            continue
        if watch.linear is not None and _same(watch.linear.output, scores):
            return watch.linear.weight.detach().clone()
        return pooling_head(model, images).weight
    raise ValueError("x must be given: images to see on which layer gives the logits, got None")


def _way_out(model: nn.Module, x: Tensor) -> str:
    """What to do with a network that has another head, for the end of an error."""
    try:
        layer = repr(last_feature_layer(model, x))
    except ValueError:
        layer = "..."
    return f"grad_cam(model, x, target, layer={layer}) needs no such head"


def _probes(model: nn.Module) -> Iterator[Tensor]:
    """Noise that may pass for two images of a network."""
    like = next((p for p in check_model(model).parameters() if p.is_floating_point()), torch.zeros((), device="cpu"))
    card = getattr(model, "card", None)
    sizes = [card.size] if hasattr(card, "size") else [(side, side) for side in PROBE_SIDES]
    channels = dict.fromkeys(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels < 5)
    for colours in (*channels, 3, 1):
        for size in sizes:
            shape, draw = (2, colours, *size), torch.Generator().manual_seed(0)
            noise = torch.rand(shape, generator=draw, dtype=torch.float32, device="cpu")
            yield noise.to(like.device, like.dtype)


def _watched(model: nn.Module, x: Tensor) -> tuple["_Watch", Tensor]:
    """A forward that was looked on, and its logits (B, classes)."""
    refuse_script(model, "its last layer can be seen")
    with _Watch() as watch:
        scores = logits(model, x)
    return watch, scores


def _averaged_head(class_maps: Tensor, pointwise: "_Linear | None", scores: Tensor) -> Head:
    """The head of a network whose logits are means of maps (B, classes, h, w), by the convolution that made these."""
    if pointwise is not None and len(pointwise.weight) == class_maps.shape[1]:
        weight, bias = _copies(pointwise.weight, pointwise.bias)
        mixed = weighted_maps(pointwise.features.detach(), weight)
        if _same(mixed + bias[:, None, None], class_maps):
            return Head(pointwise.features.detach(), weight, bias, scores, "gap")
        if _same((mixed + bias[:, None, None]).relu(), class_maps):
            return Head(pointwise.features.detach(), weight, torch.zeros_like(bias), scores, "gap", class_maps)
    identity = torch.eye(class_maps.shape[1], dtype=class_maps.dtype, device=class_maps.device)
    return Head(class_maps, identity, identity.new_zeros(len(identity)), scores, "gap")


def _copies(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """A layer's weights and its bias, or zeros in its place."""
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    return weight.detach().clone(), bias.detach().clone()


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
    with own_precision(maps):
        mixed = (rows @ maps.flatten(2)).unflatten(2, maps.shape[2:])  # (B, K, h, w)
    return mixed[:, 0] if weights.ndim == 1 else mixed


def class_activation_map(model: nn.Module, x: Tensor, target: Target = None) -> Tensor:
    """Evidence for a class at each place of the last feature maps.

    Implements :eq:`eq-cam`: M_c(u) = sum_k w_k^c f_k(u), chapter 3.

    Args:
        model: network that ends in global average pooling and one linear layer (or a 1 x 1 convolution, before or
            behind it), as `pooling_head` takes it; it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.

    Returns:
        Raw signed maps, (B, h, w) or (B, K, h, w), at the resolution of the last feature maps; their mean plus the
        bias is the logit. (Behind a ReLU, as in SqueezeNet, they hold the bias already, and are not negative.)

    Raises:
        ValueError: bad `x` or `target`, or the network does not end in global average pooling and one linear layer.

    Source: Zhou et al., CVPR 2016, section 2.
    """
    head = pooling_head(model, x)
    if head.pooling != "gap":
        raise ValueError(
            "model must average its last feature maps, this one takes their maxima: its logit is not the mean of a "
            f"map. pooling_head and weighted_maps give the weighted sum all the same; {_way_out(model, x)}"
        )
    classes, several = chosen_classes(target, head.logits)  # (B, K)
    if head.class_maps is None:
        maps = weighted_maps(head.maps, head.weight[classes])  # (B, K, h, w)
    else:
        images = torch.arange(len(classes), device=classes.device)[:, None]
        maps = head.class_maps[images, classes]
    return maps if several else maps[:, 0]


def _same(values: Tensor, others: Tensor) -> bool:
    """Whether two tensors hold the same numbers, up to rounding."""
    if values.shape != others.shape:
        return False
    limit = SAME * others.abs().amax().clamp_min(torch.finfo(others.dtype).tiny)
    return bool((values - others).abs().amax() <= limit)


class _Linear(NamedTuple):
    """What a linear layer, or a 1 x 1 convolution, read and gave."""

    features: Tensor  # (B, C), or (B, C, h, w)
    weight: Tensor  # (classes, C)
    bias: Tensor | None  # (classes,)
    output: Tensor  # (B, classes), or what became of (B, classes, h, w) afterwards


class _Watch(TorchFunctionMode):
    """Looks on at a forward: keeps the last linear layer, the last 1 x 1 convolution, and every pooling to one place.

    It sees functions, and with them modules, which call functions: no module is replaced and no hook is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear: _Linear | None = None  # also a 1 x 1 convolution of a single place
        self.pointwise: _Linear | None = None
        self.pooled: list[tuple[Tensor, Tensor]] = []  # maps (B, C, h, w), and B C numbers made of them

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func is F.linear:
            # A copy: after an in-place ReLU the output itself would be the logits, and the model would pass although
            # its logits are not linear. Features are not copied: changed in place, they no longer are the maps' means
            # or maxima, and the model is refused, which is the safe side.
            self.linear = _Linear(*_linear_arguments(*args, **(kwargs or {})), output.clone())
        elif func is F.conv2d and (layer := _pointwise(output, *args, **(kwargs or {}))):
            self.pointwise = layer
            if output[0, 0].numel() == 1:
                self.linear = _Linear(layer.features.flatten(1), *layer[1:3], output.flatten(1).clone())
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


def _pointwise(
    output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1, groups=1
) -> _Linear | None:
    """The arguments of `F.conv2d` and what it gave, if it is a linear layer at every place."""
    whole = weight.shape[2:] == (1, 1) and groups == 1 and output.shape[2:] == input.shape[2:] and output.ndim == 4
    return _Linear(input, weight[:, :, 0, 0], bias, output) if whole else None
