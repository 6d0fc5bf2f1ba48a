"""Moving the gaze, and seeing what a network sees."""

from __future__ import annotations

import html
import textwrap

import ipywidgets
import torch
from torch import Tensor, nn

from helpers import plots, retina, search
from helpers._validate import check_tensor
from helpers.networks import Card, normalize
from helpers.plots._film import Film, picture_tag
from helpers.retina._views import check_card


def gaze_frame(model: nn.Module, image: Tensor, gaze: Tensor, r_max: float = 1.0) -> tuple[plots.Picture, str]:
    """An image with a gaze on it, what the retina sees from there, and the five likeliest labels, as figure and text.

    Args:
        model: one of the book's networks that see the disc or a log-polar view.
        image: (3, H, W), values in [0, 1].
        gaze: (2,), x and y in [-1, 1].
        r_max: radius of what is seen, in half the image's shorter side.

    Raises:
        ValueError: an image or a gaze of another shape, or a network without a card.
    """
    if not isinstance(gaze, Tensor) or gaze.shape != (2,):
        raise ValueError(f"gaze must be (2,), x and y, got {getattr(gaze, 'shape', gaze)}")
    x, fixation = normalize(image[None], model).to(next(model.parameters())), gaze[None].to(torch.float32)
    view, card = retina.viewer(model, r_max), check_card(model)
    # What is seen, in the image's own colours: beyond the edge it is the mean.
    mean, std = (image.new_tensor(values)[:, None, None].cpu() for values in (card.mean, card.std))
    seen, image = ((picture.cpu() * std + mean).clamp(0, 1) for picture in (view(x, fixation)[0, 0], x[0]))
    chances = search.label_map(model, x, fixation, view)[0, 0].exp()
    best = chances.topk(min(5, len(chances)))
    answers = ", ".join(f"{card.classes[i]} {p:.0%}" for p, i in zip(best.values.tolist(), best.indices, strict=True))
    shown = plots.gallery(
        [_marked(image, gaze, r_max), seen], ["the image and the gaze", "what the network sees"], columns=2
    )
    return shown, f"gaze {gaze[0]:+.2f}, {gaze[1]:+.2f}: {answers}"


def _marked(image: Tensor, gaze: Tensor, r_max: float) -> Tensor:
    """The image with a ring around what is seen and a spot where the gaze lies."""
    height, width = image.shape[1:]
    rows, columns = (torch.arange(n, dtype=torch.float32, device="cpu") + 0.5 for n in (height, width))
    x, y = (gaze[0].item() + 1) / 2 * width, (gaze[1].item() + 1) / 2 * height
    away, unit = torch.hypot(columns - x, rows[:, None] - y), min(height, width)
    thick = max(1.0, unit / 64)  # pixels
    ring = ((away - r_max * unit / 2).abs() < thick) | (away < 1.5 * thick)
    return torch.where(ring, image.cpu().new_tensor([0.94, 0.89, 0.26])[:, None, None], image.cpu())


def gaze_film(model: nn.Module, image: Tensor, path: Tensor, caption: str, r_max: float = 1.0) -> Film:
    """A gaze that wanders over an image, as an animation for a page.

    Args:
        model: as in `gaze_frame`.
        image: (3, H, W), values in [0, 1].
        path: the gaze's places, (S, 2).
        caption: one line below.
        r_max: as in `gaze_frame`.

    Raises:
        ValueError: no place, or what `gaze_frame` refuses.
    """
    check_tensor(path, "path", "S 2", low=-1, high=1)
    frames, texts = zip(*(gaze_frame(model, image, gaze, r_max) for gaze in path), strict=True)
    for frame, text in zip(frames, texts, strict=True):
        frame.supxlabel(textwrap.fill(text, 64), fontsize=9)
    return plots.film(frames, texts, caption)


def gaze_explorer(model: nn.Module, images: Tensor, r_max: float = 1.0) -> ipywidgets.VBox:
    """Two sliders that move the gaze; beside the image what the retina sees from there, and what the network then says.

    Args:
        model: one of the book's networks that see the disc or a log-polar view.
        images: (N, 3, H, W), values in [0, 1].
        r_max: radius of what is seen, in half the image's shorter side.

    Returns:
        The widget; show it as a cell's last value.

    Raises:
        ValueError: bad images, or a network of another kind.
    """
    card = getattr(model, "card", None)
    if not isinstance(card, Card) or card.view not in ("disc", "log-polar"):
        raise ValueError(f"model must come from load() and see discs or log-polar views, got {card!r:.60}")
    normalize(images, model)  # refuses what is no batch of its images
    wide = {"layout": ipywidgets.Layout(width="420px"), "style": {"description_width": "80px"}}
    which = ipywidgets.Dropdown(options=list(range(len(images))), description="image", **wide)
    across, down = (
        ipywidgets.FloatSlider(value=0, min=-1, max=1, step=0.05, description=name, continuous_update=False, **wide)
        for name in ("right", "down")
    )
    view = ipywidgets.HTML()

    def draw(_change: object = None) -> None:
        gaze = torch.tensor([across.value, down.value], dtype=torch.float32, device="cpu")
        shown, about = gaze_frame(model, images[which.value], gaze, r_max)
        view.value = picture_tag(shown, about) + f"<p>{html.escape(about)}</p>"

    for control in (which, across, down):
        control.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([which, across, down, view])
