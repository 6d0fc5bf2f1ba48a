"""From a class activation map to a box, and how wrong boxes are."""

from typing import NamedTuple

from torch import Tensor

from helpers._validate import check_number, check_tensor
from helpers.boxes import overlap, region_boxes
from helpers.device import widened

THRESHOLD = 0.2  # of a map's maximum; Zhou et al. 2016, section 3.2
IOU = 0.5  # overlap from which on a box counts as right; ILSVRC


class LocalizationError(NamedTuple):
    """Error rates of localisation, a result and no exception: shares of the images that are wrong, 0 to 1.

    NaN where no image has a box to compare with.
    """

    top1: float  # the best answer is not the class, or its box is off
    top5: float  # none of the five best answers is the class, or its box is off
    known: float  # the box is off, the class being given ("GT-known"): the map of the true class is looked at


def largest_component_box(maps: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """One box a map: around the largest connected region above a share of the map's maximum.

    Stretch the map over the image first (`upsample`): the box comes in the map's own cells. Diagonal neighbours touch;
    of regions of one size the first in reading order is taken. Where no place is positive, nothing speaks for the
    class and there is no box: four NaN, which `metrics.box_iou` and `localization_error` understand.

    Args:
        maps: (B, H, W) or (B, K, H, W), raw and signed.
        threshold: as a share of each map's maximum, in [0, 1); a place counts when it lies above. 0 keeps every
            positive place.

    Returns:
        x0, y0, x1, y1 in pixel edges, x1 and y1 exclusive, float32 or wider: (B, 4) or (B, K, 4).

    Raises:
        ValueError: maps of another shape, empty or not finite, or a threshold outside [0, 1).

    Source: Zhou et al., CVPR 2016, section 3.2.
    """
    check_tensor(maps, "maps", "B H W", "B K H W")
    threshold = check_number(threshold, "threshold", 0, 1, below=True)
    flat = maps.detach().reshape(-1, *maps.shape[-2:])  # (N, H, W)
    top = flat.amax((1, 2), keepdim=True)
    # For a threshold just below 1 the product can round to the maximum, and nothing would lie above: the maximum
    # always counts.
    above = ((flat > threshold * top) | (flat == top)) & (flat > 0)
    # Half precision cannot tell pixels above 2048 apart.
    return region_boxes(above).to(widened(flat)).view(*maps.shape[:-2], 4)


def localization_error(
    boxes: Tensor, truth: Tensor, top1: Tensor, top5: Tensor, *, iou: float = IOU
) -> LocalizationError:
    """The errors of ILSVRC's localisation task: class and box must both be right.

    Among five answers only the one that names the true class can be right, so the box of the true class's map is all
    that is needed of each image.

    Args:
        boxes: (B, 4), from the map of the true class; x0, y0, x1, y1 in pixel edges, NaN where there is none, which
            is an error.
        truth: (B, 4), or (B, M, 4) where an image may hold several objects of the class, any of which will do; NaN
            where there is none. Images without any are left out.
        top1: (B,) bool, whether the network's best answer is the true class.
        top5: (B,) bool, whether it is among the five best.
        iou: intersection over union from which on a box is right.

    Returns:
        A `LocalizationError` of three shares.

    Raises:
        ValueError: shapes that do not go together, top1 or top5 that are not bool, or iou outside (0, 1].

    Source: Russakovsky et al., IJCV 2015, section 4.2; Zhou et al., CVPR 2016, table 2.
    """
    iou = check_number(iou, "iou", 0, 1, above=True)
    count = len(check_tensor(boxes, "boxes", "B 4", kind="real", finite=False))
    check_tensor(truth, "truth", f"{count} 4", f"{count} M 4", kind="real", finite=False, empty=True)
    check_tensor(top1, "top1", f"{count}", kind="bool")
    check_tensor(top5, "top5", f"{count}", kind="bool")
    boxes = boxes if boxes.is_floating_point() else boxes.float()
    truth = (truth[:, None] if truth.ndim == 2 else truth).to(boxes)  # (B, M, 4)
    has_truth = ~truth.isnan().any(-1).all(-1)
    box_right = (overlap(boxes[:, None], truth) >= iou).any(-1)  # an absent box overlaps nothing
    right = (top1.to(box_right.device) & box_right, top5.to(box_right.device) & box_right, box_right)
    return LocalizationError(*(1 - hits[has_truth].double().mean().item() for hits in right))
