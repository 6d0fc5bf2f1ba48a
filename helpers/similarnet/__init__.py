"""SIMILARnet: what a network loses without each filter, the heat map made of it, and what is read where it is hot.

A filter is important when the network makes more errors without it. So each filter of a layer is silenced in turn,
the change of the error becomes its weight, and the layer's feature maps, added up with these weights, make a heat map
that shows where the important filters answer. The layer sees pictures of any size; boxes around the hottest regions
are then cut out, and the same network, trained on one small image at a time, reads each of them.

One call each::

    baseline, errors = ablation_errors(model, x, y, layer="pool2")  # the error as it is, and without each filter
    weights = importance_weights(baseline, errors)  # (F,)
    maps = heatmap(features_at_any_size(model, pictures, layer="pool2"), weights)  # (B, h, w)
    maps = upsample(maps, pictures.shape[-2:])  # of helpers.filters: (B, H, W)
    boxes = hotspots(maps, map_threshold(maps))  # (B, M, 4), the hottest first
    read_hotspots(model, pictures, boxes).labels  # (B, M): what the network reads there

By hand, for a network in two parts, `features` and `head`::

    f = features(x)  # (N, F, h, w)
    f[:, i] = 0  # without filter i
    (head(f).argmax(1) != y).float().mean()  # e_i, the error without filter i; E is the same with all filters
    w = (E - e).softmax(0)  # (F,), with the paper's sign; the released code takes e - E, and no softmax
    (w[:, None, None] * features(picture)).sum(1)  # (1, h, w), the heat map

Source: Ghosh, Bhattacharya, Basu Roy Chowdhury, "SIMILARnet: Simultaneous intelligent localization and recognition
network", and the authors' released code, Advanced-GAP.
"""

from helpers.similarnet._ablation import AblationErrors, ablation_errors
from helpers.similarnet._any_size import as_convolutions, features_at_any_size
from helpers.similarnet._hotspots import hotspots, map_threshold
from helpers.similarnet._reading import Reading, read_hotspots
from helpers.similarnet._weights import (
    effective_number,
    heatmap,
    importance_weights,
    mean_excitation_weights,
    per_sample_weights,
)

__all__ = [
    "AblationErrors",
    "Reading",
    "ablation_errors",
    "as_convolutions",
    "effective_number",
    "features_at_any_size",
    "heatmap",
    "hotspots",
    "importance_weights",
    "map_threshold",
    "mean_excitation_weights",
    "per_sample_weights",
    "read_hotspots",
]
