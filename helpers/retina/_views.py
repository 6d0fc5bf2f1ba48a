"""What the book's networks see of an image: all of it, the inscribed disc, or a log-polar view."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from helpers._validate import check_images, check_number
from helpers.networks import Card
from helpers.retina._grid import R_MIN, Geometry, check_fixations, check_geometry
from helpers.retina._sampling import sample_cartesian, sample_log_polar

CENTRE = check_fixations(None, 1)  # (1, 1, 2): one fixation, shared by all images
SIZE = (64, 64)  # circles and angles of the book's retina


class LogPolar(nn.Module):
    """`log_polar` at the centre, as a layer to put before any network: (B, C, H, W) -> (B, C, n_radii, n_angles).

    Args:
        size: (n_radii, n_angles).
        r_min: radius of the innermost circle, in half the image's shorter side.
        r_max: radius of the outermost circle.
        start_angle: angle of column 0, in radians.
        antialias: as in `log_polar`.

    Raises:
        ValueError: a grid that is refused, or, on use, images that are.
    """

    def __init__(
        self,
        size: tuple[int, int] = SIZE,
        r_min: float = R_MIN,
        r_max: float = 1.0,
        start_angle: float = 0.0,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        self.geometry = check_geometry(size, r_min, r_max, start_angle)
        self.antialias = antialias

    def forward(self, x: Tensor) -> Tensor:
        """See images (B, C, H, W) from their centres."""
        return sample_log_polar(check_images(x), CENTRE, self.geometry, self.antialias)[:, 0]

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        n_radii, n_angles, r_min, r_max, start_angle = self.geometry
        radii = f"r_min={r_min:g}, r_max={r_max:g}"
        return f"size=({n_radii}, {n_angles}), {radii}, start_angle={start_angle:g}, antialias={self.antialias}"


def inscribed_disc(x: Tensor) -> Tensor:
    """Images whose pixels outside the largest disc around the centre are 0: what `log_polar` sees, left in its place.

    The match is to within a pixel at the rim: bilinear samples on the circle itself mix pixels from both sides of it.

    Args:
        x: images, (B, C, H, W); a pixel stays where its centre is within half the shorter side of the image's centre.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: x is not a non-empty (B, C, H, W) of finite floating-point numbers.
    """
    return _disc(check_images(x))


def _disc(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    rows, columns = (torch.arange(n, device=x.device, dtype=torch.float32) + 0.5 - n / 2 for n in (height, width))
    inside = rows[:, None] ** 2 + columns**2 <= (min(height, width) / 2) ** 2
    return x * inside


# What a network is shown of images that were checked, by the word on its card.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "whole": lambda x: x,
    "disc": _disc,
    "log-polar": lambda x: sample_log_polar(x, CENTRE, Geometry(*SIZE, R_MIN, 1.0, 0.0))[:, 0],
}


def check_card(network: nn.Module | Card) -> Card:
    """The card of a network, or a card itself; ValueError where there is none, or its view is unknown."""
    card = getattr(network, "card", network)
    if not isinstance(card, Card) or card.view not in VIEWS:
        way = "networks.adopt(model, mean, std, size, classes) gives one to a network of your own"
        raise ValueError(f"network must have a card, or be one, got {type(network).__name__}; {way}")
    return card


def view(x: Tensor, network: nn.Module | Card) -> Tensor:
    """What one of the book's networks must be shown of normalised images: all, the disc, or a log-polar view.

    Args:
        x: images, (B, C, H, W), after `networks.normalize`.
        network: a loaded network or its card, whose `view` says which.

    Returns:
        (B, C, H, W) for "whole" and "disc", (B, C, 64, 64) for "log-polar".

    Raises:
        ValueError: a network without a card, an unknown view, or images that are refused.
    """
    return VIEWS[check_card(network).view](check_images(x))


def views(x: Tensor, fixations: Tensor | None, network: nn.Module | Card, r_max: float = 1.0) -> Tensor:
    """What one of the book's networks must be shown from fixations: of larger images, or away from their centres.

    Args:
        x: images, (B, C, H, W), after `networks.normalize`; all beyond their edges is seen as 0.
        fixations: (U, 2) for all images or (B, U, 2), each x, y in [-1, 1]; None is the centre.
        network: a loaded network or its card, whose `view` and `size` say what it sees.
        r_max: half the side of the square, or the radius of the disc, that is seen, in half the image's shorter side;
            a log-polar retina keeps its 32 to 1 between the outermost circle and the innermost.

    Returns:
        (B, U, C, h, w), (h, w) as `view` gives them for images of the network's size.

    Raises:
        ValueError: as `view` and `log_polar`.
    """
    card, r_max = check_card(network), check_number(r_max, "r_max", 0, above=True)
    check_images(x)
    return sample_views(x, check_fixations(fixations, len(x)), card, r_max)


def sample_views(x: Tensor, fixations: Tensor, card: Card, r_max: float = 1.0) -> Tensor:
    """`views` of arguments that were checked: fixations (B or 1, U, 2), float64 on the CPU."""
    if card.view == "log-polar":
        return sample_log_polar(x, fixations, Geometry(*SIZE, R_MIN * r_max, r_max, 0.0))
    return sample_cartesian(x, fixations, card.size[0], r_max, disc=card.view == "disc")


def viewer(network: nn.Module | Card, r_max: float = 1.0) -> Callable[[Tensor, Tensor | None], Tensor]:
    """`views` of one network, as a function of images and fixations.

    Args:
        network: as in `views`.
        r_max: as in `views`.

    Returns:
        A function, called as `view(x, fixations)`, that returns (B, U, C, h, w); `search.label_map` takes such a one.
    """
    return partial(views, network=network, r_max=r_max)
