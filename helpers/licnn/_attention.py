"""Attention: one pass back from a class, masks on every layer, one pass forth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from helpers._validate import Target, check_choice, check_count, check_tensor
from helpers.capture import (
    LEAST_BATCH,
    Layer,
    NoLayers,
    Score,
    check_feature_maps,
    gradients,
    layer_names,
    masked_forward,
    suggested_layers,
)
from helpers.filters import upsample
from helpers.licnn._inhibition import inhibition_mask, max_channel, unit_norm

RELUS = (nn.ReLU, nn.ReLU6)
TOP = 5  # classes of the saliency map (Cao et al.)


class Attention(NamedTuple):
    """What `attention_steps` returns; K is there for a (B, K) target. Layers from the first to the last.

    Attributes:
        logits: (B, classes), of the first forward pass.
        contributions: layer -> (B, h, w) or (B, K, h, w), the Max-C maps: the largest gradient over the channels.
        masks: layer -> the same shape, bool: the places that are kept; all of them in a layer that is not masked.
        sums: layer -> the same shape: what each layer adds, before normalising and resizing.
        map: (B, H, W) or (B, K, H, W), the attention map.
    """

    logits: Tensor
    contributions: dict[str, Tensor]
    masks: dict[str, Tensor]
    sums: dict[str, Tensor]
    map: Tensor


def attention_steps(
    model: nn.Module,
    x: Tensor,
    target: Target | Callable[[Tensor], Target],
    *,
    layers: Layer | Sequence[Layer] | None = None,
    mode: Literal["response", "gradient"] = "response",
    score: Score = "log-odds",
    skip_last: bool = True,
    normalize_layers: Literal["before", "after"] | None = "before",
    suppress: Callable[[Tensor], Tensor] | None = inhibition_mask,
) -> Attention:
    """LICNN step by step: forward, backward, a mask for each layer, forward again, the sum.

    Arguments, errors and source as for `attention_map`; `target` may also be a function of the logits (B, classes).

    Returns:
        An `Attention`: logits, contributions, masks, sums and the map.
    """
    check_choice(mode, "mode", ("response", "gradient"))
    check_choice(normalize_layers, "normalize_layers", ("before", "after", None))
    # "#*" stands for all calls of a module that give feature maps: classifiers have ReLUs without.
    names = [f"{name}#*" for name in layer_names(model, RELUS)] if layers is None else layers
    try:
        backward = gradients(model, x, target, names, score=score, reduce=_max_c)
    except NoLayers as error:
        if layers is not None:
            raise
        reason = f"got none; layers that will do are {suggested_layers(model, x)}"
        raise ValueError(
            f"model must have nn.ReLU modules with feature maps, or layers name others, {reason}"
        ) from error
    contributions = backward.gradients
    for name, maps in backward.activations.items():
        check_feature_maps(maps, name, model, x)
    keep = suppress or partial(torch.ones_like, dtype=torch.bool)
    masks = {name: _check_mask(keep(maps), maps) for name, maps in contributions.items()}
    if mode == "gradient":
        sums = {name: maps * masks[name] for name, maps in contributions.items()}
    else:
        last = list(masks)[-1]
        masks |= {last: torch.ones_like(masks[last])} if skip_last else {}
        sums = _masked_sums(model, x, masks)
    attention = _combined(sums, (x.shape[-2], x.shape[-1]), normalize_layers)
    return Attention(backward.logits, contributions, masks, sums, attention)


def attention_map(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    layers: Layer | Sequence[Layer] | None = None,
    mode: Literal["response", "gradient"] = "response",
    score: Score = "log-odds",
    skip_last: bool = True,
    normalize_layers: Literal["before", "after"] | None = "before",
    suppress: Callable[[Tensor], Tensor] | None = inhibition_mask,
) -> Tensor:
    """LICNN's category-specific attention map: the features that are left when all that is inhibited is silenced.

    Implements :eq:`eq-attention`: the sum over the layers of their resized, normalised Sum-C maps (what is left of the
    activations, added up over the channels), chapter 5. There is one forward for all classes, and for each class one
    backward to the activations and one forward with masks.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects, of any size the network takes.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.
        layers: layers with feature maps (B, C, h, w), by name or the modules themselves, from the first to the last;
            when left out every ReLU (or ReLU6) module with feature maps of more than one place, call by call.
        mode: "response" sums the activations of the second forward; "gradient" takes the Max-C maps themselves where
            they are not inhibited, and needs no second forward.
        score: what is back-propagated, the class's "log-odds", "logit" or "probability". The source takes the
            probability; the gradient of the log-odds has the same direction, which is all that normalised maps depend
            on, and does not vanish where the softmax is saturated.
        skip_last: in the second forward, leave the last layer unmasked, as the released code does.
        normalize_layers: divide each layer's map by its L2 norm "before" it is resized to the image, as the text says;
            "after"; or not at all (None), as in the released code.
        suppress: from Max-C maps (B, h, w) or (B, K, h, w) to the bool masks of the places that are kept;
            `functools.partial(inhibition_mask, k=3)` sets its options, `rms_mask` is a plain rule to compare with, None
            keeps everything.

    Returns:
        Maps, (B, H, W) or (B, K, H, W), of unit L2 norm; all zero where nothing is left. Not negative as long as the
            layers are ReLUs and, for mode "gradient", `suppress` keeps positive places alone.

    Raises:
        ValueError: bad `x` or `target`, an unknown mode or normalize_layers, layers that are unknown, without feature
            maps or without a way to the logits, masks that are not bool or of another shape, or a network without ReLU
            modules when `layers` is left out, or with a single class after the softmax.

    Source: Marcinek 2020, section 2.2, "Algorithm scheme"; resizing is bilinear.
    """
    return attention_steps(
        model,
        x,
        target,
        layers=layers,
        mode=mode,
        score=score,
        skip_last=skip_last,
        normalize_layers=normalize_layers,
        suppress=suppress,
    ).map


def saliency_map(model: nn.Module, x: Tensor, top: int = TOP, **options: Any) -> Tensor:
    """LICNN's saliency map: the attention maps of the likeliest classes, added up.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects.
        top: how many classes, those of the largest logits.
        options: of `attention_map`.

    Returns:
        Maps, (B, H, W), of unit L2 norm; not negative where attention maps are not.

    Raises:
        ValueError: as `attention_map`; top is less than 1 or more than the network has classes.

    Source: Marcinek 2020, section 2.2; Cao et al. 2018 take the five likeliest classes.
    """
    top = check_count(top, "top")

    def likeliest(logits: Tensor) -> Tensor:
        if top > logits.shape[1]:
            raise ValueError(f"top must be at most {logits.shape[1]}, the network's classes, got {top}")
        return logits.topk(top, dim=1).indices

    return unit_norm(attention_steps(model, x, likeliest, **options).map.sum(1))


def _max_c(g: Tensor) -> Tensor:
    """The Max-C maps of a layer's gradients, if the layer has feature maps."""
    if g.ndim != 4:
        raise ValueError(f"layers must give feature maps (B, C, h, w), got one that gives {tuple(g.shape)}")
    return max_channel(g)


def _check_mask(mask: Tensor, maps: Tensor) -> Tensor:
    """What a rule returned for maps, if it is a bool mask of their shape."""
    return check_tensor(mask, "what suppress returns", " ".join(map(str, maps.shape)), kind="bool")


def _masked_sums(model: nn.Module, x: Tensor, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every layer's activations added up over the channels, in a forward with masks (B, h, w) or (B, K, h, w).

    Classes share a pass as long as it stays small: many images at once cost a CPU more than one pass after the other.
    """
    by_class = {name: mask.reshape(len(x), -1, 1, *mask.shape[-2:]) for name, mask in masks.items()}  # (B, K, 1, h, w)
    classes, at_once = next(iter(by_class.values())).shape[1], max(1, LEAST_BATCH // len(x))
    sums: dict[str, list[Tensor]] = {name: [] for name in masks}
    for first in range(0, classes, at_once):
        count = min(at_once, classes - first)  # classes of this pass
        copies = x.repeat_interleave(count, dim=0)  # (B * count, C, H, W)
        rows = {name: mask[:, first : first + count].flatten(0, 1) for name, mask in by_class.items()}
        forward = masked_forward(model, copies, rows, capture=list(rows), reduce=lambda y: y.sum(1))
        for name, summed in forward.activations.items():
            sums[name].append(summed.view(len(x), count, *summed.shape[-2:]))
    return {name: torch.cat(parts, dim=1).view(masks[name].shape) for name, parts in sums.items()}


def _combined(sums: dict[str, Tensor], size: tuple[int, int], normalize: str | None) -> Tensor:
    """The layers' maps at the image's size (H, W), added up, of unit norm."""
    resized = [upsample(unit_norm(maps) if normalize == "before" else maps, size) for maps in sums.values()]
    if normalize == "after":
        resized = [unit_norm(maps) for maps in resized]
    return unit_norm(reduce(torch.add, resized))
