"""What tests of the explorables share."""

from __future__ import annotations

from torch import Tensor, nn

# The rules of the search as the browser names them, and as `helpers.search` does.
RULES = {
    "information gain": "information_gain",
    "the bound on it, IGUB": "information_gain_bound",
    "confidence": "max_confidence",
    "fused confidence": "fused_confidence",
    "a search that is told the label": "known_label",
    "the middle first": "center",
}


class Times(nn.Module):
    """Feature maps times one number a channel."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        return x * self.numbers


def silenced(model: nn.Sequential, layer: str, on: Tensor) -> nn.Sequential:
    """A chain whose layer's maps are multiplied by `on`, one number a channel."""
    parts: list[nn.Module] = []
    for name, module in model.named_children():
        parts += [module, Times(on)] if name == layer else [module]
    return nn.Sequential(*parts)
