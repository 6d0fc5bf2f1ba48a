"""The book's networks."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


class LeNet(nn.Sequential):
    """The LeNet of SIMILARnet: two convolutions of 5x5 that keep the size, two poolings, three linear layers.

    `(B, channels, size, size)` images in `[0, 1]` -> `(B, classes)` logits; 107,786 parameters at the defaults. Layer
    names: conv1, relu1, pool1, conv2, relu2, pool2, flatten, fc1, relu3, fc2, relu4, fc3. The paper's table gives maps
    of 28, 14, 14 and 7 pixels, so its convolutions are padded by 2; the classic LeNet-5 pads nowhere after the first
    and has 61,706 parameters.

    Args:
        classes: number of logits.
        channels: colours of the input.
        size: side of the input in pixels, a multiple of 4.
        pool: the pooling layer's class, `nn.MaxPool2d` as in the paper or `nn.AvgPool2d`.

    Raises:
        ValueError: `size` is not a positive multiple of 4.
    Source: Ghosh et al., SIMILARnet, Table 1 (the ReLUs are those of the released code).
    """

    def __init__(
        self, classes: int = 10, channels: int = 1, size: int = 28, pool: type[nn.Module] = nn.MaxPool2d
    ) -> None:
        if size < 4 or size % 4:
            raise ValueError(f"size must be a positive multiple of 4 (two poolings halve it), got {size}")
        side = size // 4  # pixels of the last feature maps
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(channels, 6, kernel_size=5, padding=2),
                relu1=nn.ReLU(),
                pool1=pool(2),
                conv2=nn.Conv2d(6, 16, kernel_size=5, padding=2),
                relu2=nn.ReLU(),
                pool2=pool(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(16 * side * side, 120),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                relu4=nn.ReLU(),
                fc3=nn.Linear(84, classes),
            )
        )

    @property
    def features(self) -> nn.Sequential:
        """Everything up to the last feature maps (B, 16, H/4, W/4); takes images of any size."""
        return nn.Sequential(OrderedDict(list(self.named_children())[:6]))
