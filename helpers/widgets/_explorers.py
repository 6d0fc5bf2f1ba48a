"""Explorers that need a kernel, in the API of ipywidgets 7.7, which Colab has; the site shows figures instead."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import partial

import ipywidgets
import torch
from torch import Tensor, nn

from helpers import background, cam, licnn, plots, saliency, similarnet
from helpers.capture import logits, masked_forward
from helpers.licnn._inhibition import AVERAGE, DIFFERENCE, ZONE_SIDE
from helpers.networks import Card, normalize
from helpers.plots._film import picture_tag
from helpers.training import topk_correct


def class_model_explorer(model: nn.Module, shape: tuple[int, int, int], classes: Sequence[str]) -> ipywidgets.VBox:
    """The image that a class likes best, under a penalty, a number of steps and a start to set.

    Args:
        model: network that maps (1, C, H, W) to logits (1, classes).
        shape: of its images, (C, H, W); the mean over the colours is shown.
        classes: names of the classes.

    Returns:
        The widget; show it as a cell's last value.

    Raises:
        ValueError: there is no class.
    """
    if not classes:
        raise ValueError("classes must name at least one class, got none")
    wide = {"continuous_update": False, "style": {"description_width": "90px"}}
    options = [(name, i) for i, name in enumerate(classes)]
    choice = ipywidgets.Dropdown(options=options, value=0, description="class", style=wide["style"])
    penalty = ipywidgets.FloatLogSlider(value=0.1, base=10, min=-3, max=0, step=0.25, description="l2", **wide)
    steps = ipywidgets.IntSlider(value=50, min=1, max=200, description="steps", **wide)
    start = ipywidgets.FloatSlider(value=0.0, min=0, max=0.5, step=0.05, description="noise at start", **wide)
    view = ipywidgets.HTML()

    def draw(_change: object = None) -> None:
        numbers = torch.Generator().manual_seed(0)
        noise = start.value * torch.randn(shape, generator=numbers, dtype=torch.float32, device="cpu")
        options = {"l2": penalty.value, "steps": steps.value, "lr": 0.3, "start": noise}
        try:
            result = saliency.class_model(model, choice.value, shape, **options)
        except ValueError as error:
            view.value = f"<p>{html.escape(str(error))}</p>"
            return
        about = (
            f"objective {result.objective[0]:.3g} at the start, {result.objective[-1]:.3g} after {steps.value} steps"
        )
        picture = plots.signed_maps(result.image.mean(0), [classes[choice.value]], each=True)
        view.value = picture_tag(picture, f"The class model of {classes[choice.value]}: {about}.") + f"<p>{about}</p>"

    for control in (choice, penalty, steps, start):
        control.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([choice, penalty, steps, start, view])


def filter_explorer(
    model: nn.Module, layer: str, images: Mapping[str, Tensor], weights: Tensor, x: Tensor, y: Tensor
) -> ipywidgets.VBox:
    """Filters to switch off, the heat map of those that are left, and what the network still gets right without them.

    Args:
        model: network that maps (N, C, H, W) to logits; its layers up to `layer` take images of any size.
        layer: name of a layer with F feature maps.
        images: name -> (C, H, W), pictures for the heat map, as the network expects them.
        weights: of the filters in the heat map, (F,).
        x: test images, (N, C, H, W), as the network expects them.
        y: their classes, (N,).

    Returns:
        The widget; show it as a cell's last value.

    Raises:
        ValueError: there is no image, weights do not fit the layer, or y is not one class an image.
    """
    if not images:
        raise ValueError("images must hold at least one image, got none")
    features = {
        name: similarnet.features_at_any_size(model, image[None], layer=layer) for name, image in images.items()
    }
    filters = next(iter(features.values())).shape[1]
    if y.shape != (len(x),):
        raise ValueError(f"y must be ({len(x)},), a class an image, got {tuple(y.shape)}")
    if weights.shape != (filters,):
        raise ValueError(f"weights must be ({filters},), got {tuple(weights.shape)}")
    narrow = ipywidgets.Layout(width="90px")
    switches = [
        ipywidgets.Checkbox(value=True, description=f"{i}", indent=False, layout=narrow) for i in range(filters)
    ]
    which = ipywidgets.Dropdown(options=list(images), description="picture")
    view = ipywidgets.HTML()

    def draw(_change: object = None) -> None:
        on = weights.new_tensor([float(switch.value) for switch in switches])
        answers = masked_forward(model, x, {layer: on[:, None, None]}).logits
        share = topk_correct(answers, y).float().mean()
        about = f"{int(on.sum())} of {filters} filters on; {share:.1%} of {len(x)} digits named rightly"
        heat = similarnet.heatmap(features[which.value], weights * on)
        height, width = images[which.value].shape[1:]
        picture = plots.maps(cam.upsample(heat, (height, width)), vmin=float(heat.min()) - 1e-9, label="heat")
        view.value = picture_tag(picture, f"The heat map. {about}.") + f"<p>{about}</p>"

    for control in (which, *switches):
        control.observe(draw, names="value")
    draw()
    rows = [ipywidgets.HBox(switches[i : i + 8]) for i in range(0, filters, 8)]
    return ipywidgets.VBox([which, *rows, view])


def attention_explorer(model: nn.Module, images: Tensor, labels: Tensor | None = None) -> ipywidgets.VBox:
    """LICNN's attention map with other settings, and what the network says when all outside its region is blurred.

    Args:
        model: one of the book's networks that see whole images.
        images: (N, C, H, W), values in [0, 1]; each is first shown with the network's best answer.
        labels: (N,), their classes, shown beside their numbers.

    Returns:
        The widget; show it as a cell's last value.

    Raises:
        ValueError: bad images, labels that are not one class an image, or a network of another kind.
    """
    if not isinstance(card := getattr(model, "card", None), Card) or card.view != "whole":
        raise ValueError(f"model must come from load() and see whole images, got {getattr(card, 'view', model)!r:.60}")
    normalize(images, model)  # refuses what is no batch of its images
    if not images.is_floating_point():
        raise ValueError(f"images must be floating-point numbers in [0, 1], got {images.dtype}")
    names, images = card.classes, images.to(next(model.parameters()))
    hints, known = [""] * len(images), {i: f": {name}" for i, name in enumerate(names)}
    if labels is not None:
        if not isinstance(labels, Tensor) or labels.shape != (len(images),) or not {*labels.tolist()} <= {*known}:
            raise ValueError(f"labels must be ({len(images)},), each in 0 .. {len(names) - 1}, got {labels!r:.80}")
        hints = [known[c] for c in labels.tolist()]
    wide = {"layout": ipywidgets.Layout(width="420px"), "style": {"description_width": "110px"}}
    late = {"continuous_update": False, **wide}
    which = ipywidgets.Dropdown(options=[(f"{i}{t}", i) for i, t in enumerate(hints)], description="image", **wide)
    choice = ipywidgets.Dropdown(options=[(name, i) for i, name in enumerate(names)], description="class", **wide)
    a = ipywidgets.FloatSlider(value=AVERAGE, min=0, max=1, step=0.05, description="a", **late)
    b = ipywidgets.FloatSlider(value=DIFFERENCE, min=0, max=2, step=0.05, description="b", **late)
    k = ipywidgets.SelectionSlider(options=list(range(1, 16, 2)), value=ZONE_SIDE, description="k", **late)
    mode = ipywidgets.Dropdown(options=["response", "gradient"], description="mode", **wide)
    radius = ipywidgets.FloatSlider(value=5, min=0, max=10, step=0.5, description="blur radius", **late)
    view = ipywidgets.HTML()

    def draw(_change: object = None) -> None:
        image, c = images[which.value, None], choice.value
        suppress = partial(licnn.inhibition_mask, k=k.value, a=a.value, b=b.value)
        attention = licnn.attention_map(model, normalize(image, model), c, mode=mode.value, suppress=suppress)
        region = background.salient_region(attention)
        blurred = background.blur_outside(image, region, radius.value).clamp(0, 1)  # rounding may leave [0, 1]
        both = torch.cat([image, blurred])
        chances = logits(model, normalize(both, model)).softmax(1)
        titles = []  # hard spaces keep a name and its number together where a title is wrapped
        for probabilities, when in zip(chances, ("before", "after"), strict=True):
            best = probabilities.topk(min(3, len(names))).indices.tolist()
            titles.append(
                f"{when}: " + ", ".join(f"{names[i]} {probabilities[i].item():.1%}".replace(" ", "\xa0") for i in best)
            )
        about = f"{names[c]}: {chances[0, c].item():.1%} before the blur, {chances[1, c].item():.1%} after it; "
        sharp = f"{region.float().mean().item():.0%} of the image stays sharp"
        about += sharp if attention.any() else "nothing is left of the map, so nothing is blurred"
        left, right = plots.overlay(image, attention, [names[c]], label="attention"), plots.images(both, titles)
        shown = picture_tag(left, f"The attention map over the image. {about}.")
        shown += picture_tag(right, f"The image, and blurred outside the region. {'; '.join(titles)}.")
        view.value = shown + f"<p>{html.escape(about)}</p>"

    def pick(_change: object = None) -> None:
        best = logits(model, normalize(images[which.value, None], model)).argmax().item()
        if best == choice.value:
            draw()
        choice.value = best  # draws where it is another

    for control in (choice, a, b, k, mode, radius):
        control.observe(draw, names="value")
    which.observe(pick, names="value")
    pick()
    return ipywidgets.VBox([which, choice, a, b, k, mode, radius, view])
