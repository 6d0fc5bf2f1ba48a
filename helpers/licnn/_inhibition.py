"""Which places of a map win against their neighbours: Max-C maps, lateral inhibition, masks.

The zone of a place (i, j) is the square of k x k places around it, (i, j) in the middle. It is the neighbourhood whose
values inhibit the value at (i, j).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers._validate import check_count, check_number, check_tensor
from helpers.device import widened

ZONE_SIDE = 7  # k, side of the zone in places of the map (Cao et al., "selected intuitively")
AVERAGE, DIFFERENCE = 0.1, 0.9  # a and b, weights of the two terms (likewise)


def max_channel(gradients: Tensor) -> Tensor:
    """The Max-C map: at each place the largest value over the channels.

    Args:
        gradients: gradients of a layer, (B, C, h, w), or (..., C, h, w); signed.

    Returns:
        (B, h, w), or (..., h, w).

    Raises:
        ValueError: fewer than three axes, no value, or bool or complex ones.

    Source: Marcinek 2020, section 2.2.
    """
    return check_tensor(gradients, "gradients", "... C h w", kind="real", finite=False).amax(-3)


def inhibition_kernel(k: int = ZONE_SIDE) -> Tensor:
    """The weight of each neighbour in the differential term: d exp(-d), d its distance from the middle divided by k.

    The weight grows with the distance as long as d < 1, and even the corners of the zone lie at d < 0.71: the farthest
    neighbours inhibit the most.

    Args:
        k: side of the zone in places, odd.

    Returns:
        (k, k), float64 on the CPU, 0 in the middle.

    Raises:
        ValueError: k is not an odd integer of at least 1.
    """
    k = check_count(k, "k")
    if k % 2 == 0:
        raise ValueError(f"k must be odd, so that a place lies in the middle of its zone, got {k}")
    offset = torch.arange(k, dtype=torch.float64, device="cpu") - k // 2
    distance = torch.sqrt(offset[:, None].square() + offset.square()) / k
    return distance * torch.exp(-distance)


def lateral_inhibition(maps: Tensor, k: int = ZONE_SIDE, a: float = AVERAGE, b: float = DIFFERENCE) -> Tensor:
    """How strongly the neighbours of each place inhibit it.

    Implements :eq:`eq-lateral-inhibition`: a exp(-mean of the zone) + b sum_uv d_uv exp(-d_uv) relu(x_uv - x_ij),
    chapter 5; x is a map, and (u, v) runs over the zone of (i, j), the k x k places around it. Where the zone reaches
    beyond the border of the map there are zeros, and the mean counts them too.

    Args:
        maps: (B, h, w), or (..., h, w); signed.
        k: side of the zone in places, odd.
        a: weight of the average term, from 0 on.
        b: weight of the differential term, from 0 on.

    Returns:
        Like maps; not negative.

    Raises:
        ValueError: maps is not a non-empty floating-point (..., h, w) of finite values, k is not odd and positive, or a
            or b is negative or not finite.

    Source: Marcinek 2020, equation 3.
    """
    dtype = check_tensor(maps, "maps", "... h w").dtype
    maps = widened(maps.detach())
    weights = inhibition_kernel(k).tolist()
    k, a, b = len(weights), check_number(a, "a", 0), check_number(b, "b", 0)
    height, width = maps.shape[-2:]
    padded = F.pad(maps, [k // 2] * 4)
    total, differences = torch.zeros_like(maps), torch.zeros_like(maps)
    # A pass for each neighbour keeps one map in the cache, where unfolding would hold k * k copies of it.
    for row in range(k):
        for column in range(k):
            neighbour = padded[..., row : row + height, column : column + width]
            total += neighbour
            if weights[row][column] > 0:
                differences.add_((neighbour - maps).clamp_(min=0), alpha=weights[row][column])
    return differences.mul_(b).add_(total.div_(-k * k).exp_(), alpha=a).to(dtype)


def inhibition_mask(
    maps: Tensor, k: int = ZONE_SIDE, a: float = AVERAGE, b: float = DIFFERENCE, *, normalize: bool = True
) -> Tensor:
    """The places of a Max-C map that win against the inhibition by their neighbours.

    Implements :eq:`eq-inhibition-mask`: x_ij > LI_ij / |LI|, chapter 5; x is a map divided by its L2 norm, LI its
    lateral inhibition and |LI| the L2 norm of that.

    Args:
        maps: (B, h, w), or (..., h, w); signed.
        k: side of the zone in places, odd.
        a: weight of the average term, from 0 on.
        b: weight of the differential term, from 0 on.
        normalize: divide each map by its L2 norm first, as the released code does, so that the mask does not depend
            on the map's scale. The text says nothing of it: False compares the raw map with a normalised inhibition.

    Returns:
        bool, like maps; all False for a map of zeros.

    Raises:
        ValueError: as `lateral_inhibition`.

    Source: Marcinek 2020, equation 4.
    """
    maps = widened(check_tensor(maps, "maps", "... h w"))
    maps = unit_norm(maps) if normalize else maps
    return maps > unit_norm(lateral_inhibition(maps, k, a, b))


def rms_mask(maps: Tensor) -> Tensor:
    """The plain rule that LICNN's comes close to: the places above the map's root mean square.

    Args:
        maps: (B, h, w), or (..., h, w); signed.

    Returns:
        bool, like maps; all False for a map of zeros.

    Raises:
        ValueError: maps is not a non-empty floating-point (..., h, w) of finite values.
    """
    maps = widened(check_tensor(maps, "maps", "... h w"))  # squares in half precision round, and their sums overflow
    largest = maps.abs().amax((-2, -1), keepdim=True)
    scaled = maps / torch.where(largest > 0, largest, 1)  # squares of tiny gradients would round to zero
    return scaled > scaled.square().mean((-2, -1), keepdim=True).sqrt()


def unit_norm(maps: Tensor) -> Tensor:
    """Maps, each divided by its L2 norm.

    Args:
        maps: (B, h, w), or (..., h, w); signed.

    Returns:
        Like maps, the squares of each adding up to 1; a map of zeros stays one.

    Raises:
        ValueError: maps is not a non-empty floating-point (..., h, w) of finite values.
    """
    dtype = check_tensor(maps, "maps", "... h w").dtype
    maps = widened(maps)
    # Divided by the largest value first: squares of tiny gradients would round to zero.
    largest = maps.abs().amax((-2, -1), keepdim=True)
    scaled = maps / torch.where(largest > 0, largest, 1)
    norm = scaled.square().sum((-2, -1), keepdim=True).sqrt()
    return (scaled / torch.where(norm > 0, norm, 1)).to(dtype)
