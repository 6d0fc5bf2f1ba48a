"""Score-CAM: feature maps weighed by what the network says of the image seen through each of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helpers._validate import Target, check_count
from helpers.cam._head import weighted_maps
from helpers.capture import (
    Layer,
    Score,
    activations,
    check_feature_maps,
    chosen_classes,
    chunks,
    class_scores,
    last_feature_layer,
    logits,
    single_layer,
)
from helpers.filters import upsample


def score_cam(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    layer: Layer | None = None,
    *,
    channels: int | None = None,
    score: Score = "logit",
    relu: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    """Score-CAM: each feature map becomes a mask, and weighs as much as the class scores where only it is seen.

    Implements :eq:`eq-score-cam`: relu(sum_k w_k f_k(u)), w = softmax_k S_c(x h_k), chapter 3; h_k is the map f_k
    stretched over the image and brought to [0, 1]. Nothing is differentiated. All classes of an image share its passes,
    one for each map.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (B, C, H, W), normalised as the network expects, so that 0, where a mask hides, is the mean colour.
        target: class index, (B,) indices, or (B, K) for K maps an image; each image's top class when left out.
        layer: a layer with feature maps (B, C, h, w), by name or the module itself; the last one that has more than
            one place when left out.
        channels: only so many maps, those of the largest standard deviation over their places; all when left out.
        score: of the masked images, the class's "logit", "probability" or "log-odds".
        relu: keep only the evidence for the class; False gives the signed map.
        batch_size: images a pass, which bounds the memory; the length of x, or 8 where x is shorter, when left out.

    Returns:
        Maps, (B, h, w) or (B, K, h, w), at the layer's resolution; not negative unless `relu` is False. Maps that are
        the same at every place hide nothing or all, and count as a mask of zeros.

    Raises:
        ValueError: bad `x` or `target`; a layer that is unknown or has no feature maps; channels below 1.

    Source: Wang et al., "Score-CAM: score-weighted visual explanations for convolutional neural networks", CVPRW 2020;
    the score of the blank image, which is subtracted there, does not change the softmax.
    """
    layer = last_feature_layer(model, x) if layer is None else single_layer(model, layer)
    maps = check_feature_maps(activations(model, x, layer)[layer], layer, model, x)  # (B, C, h, w)
    count = maps.shape[1] if channels is None else min(check_count(channels, "channels"), maps.shape[1])
    spread = maps.flatten(2).std(2, correction=0)  # (B, C)
    used = torch.sort(spread, dim=1, descending=True, stable=True).indices[:, :count]  # (B, N)
    full = torch.cat([logits(model, x[part]) for part in chunks(len(x), batch_size, x)])
    classes, several = chosen_classes(target, full)  # (B, K)
    rows = []
    for b in range(len(x)):
        said = []
        for part in chunks(count, batch_size, x):
            mask = _unit_range(upsample(maps[b, used[b, part]], (x.shape[-2], x.shape[-1])))  # (n, H, W)
            said.append(class_scores(logits(model, x[b] * mask[:, None]), classes[b].expand(len(part), -1), score))
        rows.append(torch.cat(said).softmax(0).mT)  # (K, N)
    weights = full.new_zeros(*classes.shape, maps.shape[1])
    weights.scatter_(2, used[:, None].expand(-1, classes.shape[1], -1), torch.stack(rows))
    mixed = weighted_maps(maps, weights)  # (B, K, h, w)
    mixed = torch.relu_(mixed) if relu else mixed
    return mixed if several else mixed[:, 0]


def _unit_range(maps: Tensor) -> Tensor:
    """Maps (n, H, W), each brought to [0, 1]; a constant one to zeros."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)
