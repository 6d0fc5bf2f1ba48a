"""The zone around a place and what it does to it: Max-C maps, lateral inhibition, the masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers._validate import check_count, check_number

ZONE_PX = 7  # k, side of the zone that inhibits a place, in places of the map (Cao et al., "selected intuitively")
AVERAGE, DIFFERENCE = 0.1, 0.9  # a and b, weights of the two terms (likewise)


def max_channel(g: Tensor) -> Tensor:
    """The Max-C map: at each place the largest value over the channels.

    Args:
        g: (B, C, h, w), or (..., C, h, w); signed.

    Returns:
        (B, h, w), or (..., h, w).

    Raises:
        ValueError: fewer than three axes, or an empty one.

    Source: Marcinek 2020, section 2.2.
    """
    if not isinstance(g, Tensor) or g.ndim < 3 or g.numel() == 0:
        got = tuple(g.shape) if isinstance(g, Tensor) else type(g).__name__
        raise ValueError(f"g must be a non-empty tensor (..., C, h, w), got {got}")
    return g.amax(-3)


def inhibition_kernel(k: int = ZONE_PX) -> Tensor:
    """The weight of each neighbour in the differential term: d exp(-d), d the distance in zones.

    It grows with the distance as long as d < 1, and the corners of the zone lie at d < 0.71: the farthest neighbours
    inhibit the most.

    Args:
        k: side of the zone, odd.

    Returns:
        (k, k), float64 on the CPU, 0 in the middle.

    Raises:
        ValueError: k is not an odd integer of at least 1.
    """
    if check_count(k, "k") % 2 == 0:
        raise ValueError(f"k must be odd, so that a place lies in the middle of its zone, got {k}")
    offset = torch.arange(k, dtype=torch.float64) - k // 2
    distance = torch.sqrt(offset[:, None].square() + offset.square()) / k
    return distance * torch.exp(-distance)


def lateral_inhibition(x: Tensor, k: int = ZONE_PX, a: float = AVERAGE, b: float = DIFFERENCE) -> Tensor:
    """How strongly the neighbours of each place inhibit it.

    Implements :eq:`eq-lateral-inhibition`: a exp(-mean of the zone) + b sum_uv d_uv exp(-d_uv) relu(x_uv - x_ij),
    chapter 5. The zone is the k x k places around (i, j), zeros beyond the border, which the mean counts too.

    Args:
        x: maps, (B, h, w), or (..., h, w); signed.
        k: side of the zone in places, odd.
        a: weight of the average term, from 0 on.
        b: weight of the differential term, from 0 on.

    Returns:
        Like x; not negative.

    Raises:
        ValueError: x is not a non-empty floating-point (..., h, w) of finite values, k is not odd and positive, or a
            or b is negative or not finite.

    Source: Marcinek 2020, equation 3.
    """
    x = _check_maps(x).detach()
    weights = inhibition_kernel(k).tolist()
    check_number(a, "a", 0)
    check_number(b, "b", 0)
    height, width = x.shape[-2:]
    padded = F.pad(x, [k // 2] * 4)
    total, differences = torch.zeros_like(x), torch.zeros_like(x)
    # A pass for each neighbour keeps one map in the cache, where unfolding would hold k * k copies of it.
    for row in range(k):
        for column in range(k):
            neighbour = padded[..., row : row + height, column : column + width]
            total += neighbour
            if weights[row][column] > 0:
                differences.add_((neighbour - x).clamp_(min=0), alpha=weights[row][column])
    return differences.mul_(b).add_(total.div_(-k * k).exp_(), alpha=a)


def inhibition_mask(
    x: Tensor, k: int = ZONE_PX, a: float = AVERAGE, b: float = DIFFERENCE, *, normalize: bool = True
) -> Tensor:
    """The places of a Max-C map that win against the inhibition by their neighbours.

    Implements :eq:`eq-inhibition-mask`: x_ij > LI_ij / |LI|, x divided by its own L2 norm before, chapter 5.

    Args:
        x: maps, (B, h, w), or (..., h, w); signed.
        k: side of the zone in places, odd.
        a: weight of the average term, from 0 on.
        b: weight of the differential term, from 0 on.
        normalize: divide each map by its L2 norm first, as the released code does, so that the mask does not depend
            on the map's scale. The text says nothing of it: False compares the raw map with a normalised inhibition.

    Returns:
        bool, like x; all False for a map of zeros.

    Raises:
        ValueError: as `lateral_inhibition`.

    Source: Marcinek 2020, equation 4.
    """
    x = unit_norm(_check_maps(x)) if normalize else _check_maps(x)
    return x > unit_norm(lateral_inhibition(x, k, a, b))


def rms_mask(x: Tensor) -> Tensor:
    """The plain rule that LICNN's comes close to: the places above the map's root mean square.

    Args:
        x: maps, (B, h, w), or (..., h, w); signed.

    Returns:
        bool, like x; all False for a map of zeros.

    Raises:
        ValueError: x is not a non-empty floating-point (..., h, w) of finite values.
    """
    largest = _check_maps(x).abs().amax((-2, -1), keepdim=True)
    scaled = x / torch.where(largest > 0, largest, 1)  # squares of tiny gradients would round to zero
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
    maps = _check_maps(maps, "maps")
    # By the largest value first: squares of tiny gradients would round to zero.
    largest = maps.abs().amax((-2, -1), keepdim=True)
    scaled = maps / torch.where(largest > 0, largest, 1)
    norm = scaled.square().sum((-2, -1), keepdim=True).sqrt()
    return scaled / torch.where(norm > 0, norm, 1)


def _check_maps(x: Tensor, name: str = "x") -> Tensor:
    if not isinstance(x, Tensor) or x.ndim < 2 or x.numel() == 0 or not x.is_floating_point():
        got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a non-empty floating-point tensor (..., h, w), got {got}")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return x
