"""How good a map is: against known masks and boxes, against the network itself, and against baselines.

Every function takes whole batches. A map and a mask are (..., H, W) with the same leading axes, for example (B, H, W)
or (B, K, H, W); one number a map comes back, (...). Where there is nothing to measure (an empty mask, an absent
box) it is NaN, to be left out with `nanmean`; a constant map never counts as a hit.

`paired_differences` says how sure a difference between methods is, `mean_interval` how sure a mean.

Four baselines that know nothing of the network stand beside them: `center_map`, `blurred_map`, `edge_map` and
`random_map`.
"""

from helpers.boxes import box_mask
from helpers.metrics._baselines import blurred_map, center_map, edge_map, random_map
from helpers.metrics._boxes import Detections, box_iou, detections
from helpers.metrics._curves import Curve, deletion, insertion
from helpers.metrics._intervals import Interval, mean_interval, paired_differences
from helpers.metrics._localization import MaxBoxAcc, mask_iou, max_box_acc
from helpers.metrics._masks import best_inside, in_out_ratio, mass_in_mask, pixel_auc, pointing_game, rank_correlation
from helpers.metrics._similarity import map_similarity

__all__ = [
    "Curve",
    "Detections",
    "Interval",
    "MaxBoxAcc",
    "best_inside",
    "blurred_map",
    "box_iou",
    "box_mask",
    "center_map",
    "deletion",
    "detections",
    "edge_map",
    "in_out_ratio",
    "insertion",
    "map_similarity",
    "mask_iou",
    "mass_in_mask",
    "max_box_acc",
    "mean_interval",
    "paired_differences",
    "pixel_auc",
    "pointing_game",
    "random_map",
    "rank_correlation",
]
