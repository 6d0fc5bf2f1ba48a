"""Maps that know nothing of the network."""

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers._validate import check_images, seeded
from helpers.device import widened
from helpers.filters import blurred

CENTER_SIGMA = 0.25  # standard deviation of `center_map`, in sides of the image
BLUR_SIGMA = 0.05  # of `blurred_map`, in sides of the image (its larger one)


def center_map(x: Tensor) -> Tensor:
    """The baseline that always says "in the middle": a Gaussian around the centre.

    Args:
        x: images, (B, C, H, W); only their shape matters.

    Returns:
        (B, H, W), 1 at the very centre; standard deviation a quarter of each side.
    """
    rows, columns = (
        (torch.arange(n, device=x.device, dtype=widened(x[:0]).dtype) - (n - 1) / 2) / (CENTER_SIGMA * n)
        for n in check_images(x).shape[-2:]
    )
    return torch.exp(-(rows[:, None].square() + columns.square()) / 2).to(x.dtype).expand(len(x), -1, -1).clone()


def blurred_map(x: Tensor) -> Tensor:
    """The baseline that only looks at the image: how far its blurred colour is from the image's mean colour.

    Args:
        x: images, (B, C, H, W), in any units.

    Returns:
        (B, H, W), the largest difference over the colours, in the units of x.
    """
    wide = widened(check_images(x))
    smooth = blurred(wide, BLUR_SIGMA * max(x.shape[-2:]))
    return (smooth - wide.mean((2, 3), keepdim=True)).abs().amax(1).to(x.dtype)


def edge_map(x: Tensor) -> Tensor:
    """The baseline that only draws outlines: the length of the brightness's slope, by Sobel's filter.

    Args:
        x: images, (B, C, H, W), in any units; the colours are averaged.

    Returns:
        (B, H, W), not negative, in the units of x a pixel; at the border the outermost pixels are repeated.
    """
    gray = F.pad(widened(check_images(x)).mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")[:, 0]
    # Differences first: even parts give exactly 0, which a convolution's rounding does not.
    across, down = (gray[..., 2:] - gray[..., :-2]) / 2, (gray[:, 2:] - gray[:, :-2]) / 2
    across = (across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]) / 4
    down = (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 4
    return torch.hypot(across, down).to(x.dtype)


def random_map(x: Tensor, seed: int = 0) -> Tensor:
    """The baseline that guesses: an even random number at each place.

    Args:
        x: images, (B, C, H, W); only their shape matters.
        seed: of the numbers; the same on every device.

    Returns:
        (B, H, W), in [0, 1).

    Raises:
        ValueError: bad `x`, or a seed that is no integer from 0 on.
    """
    draw = seeded(seed)
    shape = (len(check_images(x)), *x.shape[-2:])
    numbers = torch.rand(shape, generator=draw, dtype=torch.float32, device="cpu")
    return numbers.to(x).clamp(max=1 - torch.finfo(x.dtype).eps / 2)
