"""What is known of a trained network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MOST_CLASSES = 12  # that a card prints


class WeightsError(RuntimeError):
    """A weight file or its manifest is missing, damaged or not the one that belongs there."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Card:
    """What a reader should know of a trained network.

    Attributes:
        name: what `load` takes.
        about: one line.
        architecture: the class it is of.
        arguments: the arguments of that class.
        classes: names of its classes, in the order of its logits.
        mean: of each colour of images in [0, 1], subtracted before the network.
        std: what the result is divided by.
        view: what the network must be shown of an image: "whole", "disc" (`helpers.retina.inscribed_disc`) or
            "log-polar" (`helpers.retina.log_polar`), after normalising.
        size: (H, W) of the images it was trained on, in pixels.
        accuracy: share of test images it gets right, in [0, 1], as shipped.
        test: what it was tested on.
        parameters: number of trained numbers.
        bytes: size of the weight file.
        sha256: of the weight file.
        command: what made it.
    """

    name: str
    about: str = ""
    architecture: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    view: str = "whole"
    size: tuple[int, int]
    accuracy: float = float("nan")
    test: str = ""
    parameters: int = 0
    bytes: int = 0
    sha256: str = ""
    command: str = ""

    def __repr__(self) -> str:
        """All but the command and what is empty; of more than a dozen classes the first three."""
        shown = {key: value for key, value in vars(self).items() if key != "command" and value not in ("", {}, 0)}
        if len(self.classes) > MOST_CLASSES:
            shown["classes"] = (*self.classes[:3], f"... {len(self.classes)} of them")
        entries = [f"{key}={value!r}" for key, value in shown.items()]
        return f"Card({', '.join(entries)})"
