"""What the book's networks are made of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn

from helpers._validate import check_choice, check_count, is_whole


class Chain(nn.Sequential):
    """A chain whose slices are plain `nn.Sequential`s that share its layers: `net[:6]`."""

    @overload
    def __getitem__(self, idx: slice) -> nn.Sequential: ...

    @overload
    def __getitem__(self, idx: int) -> nn.Module: ...

    def __getitem__(self, idx: slice | int) -> nn.Module:
        """The layer of that number, or those of a slice."""
        if isinstance(idx, slice):  # torch would call the subclass, which takes other arguments
            return nn.Sequential(OrderedDict(list(self.named_children())[idx]))
        return super().__getitem__(idx)


class LeNet(Chain):
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
        ValueError: `size` is not a positive multiple of 4, or no class or no channel.
    Source: Ghosh et al., SIMILARnet, Table 1 (the ReLUs are those of the released code).
    """

    def __init__(
        self, classes: int = 10, channels: int = 1, size: int = 28, pool: type[nn.Module] = nn.MaxPool2d
    ) -> None:
        if not is_whole(size) or size < 4 or size % 4:
            raise ValueError(f"size must be a positive multiple of 4 (two poolings halve it), got {size}")
        classes, channels = check_count(classes, "classes"), check_count(channels, "channels")
        side = int(size) // 4  # pixels of the last feature maps
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
        return self[:6]


class AngularPad2d(nn.Module):
    """Padding of log-polar maps around the circle: their last axis is the angle, whose two ends meet.

    `(B, C, n_radii, n_angles)` -> `(B, C, n_radii, n_angles + 2 * pad)`. A convolution after this layer that pads only
    its rows (`padding=(pad, 0)`: the periphery and the fovea do not meet) commutes exactly with a roll along the
    angles, that is with a rotation of the image.

    Args:
        pad: columns added on either side.

    Raises:
        ValueError: `pad` is not a positive integer; or, on use, maps of another rank or fewer than `pad` angles.
    """

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = check_count(pad, "pad")

    def forward(self, maps: Tensor) -> Tensor:
        """Pad maps (B, C, n_radii, n_angles)."""
        if maps.ndim != 4 or maps.shape[-1] < self.pad:
            raise ValueError(f"maps must be (B, C, n_radii, n_angles >= {self.pad}), got {tuple(maps.shape)}")
        # Not F.pad(mode="circular"), which loses the layout in memory that convolutions are fastest with.
        return torch.cat([maps[..., -self.pad :], maps, maps[..., : self.pad]], dim=-1)

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        return str(self.pad)


class _DensePool(nn.Sequential):
    """Max pooling over 2x2 places `apart` pixels from each other, at every pixel: (B, C, H, W) keeps its size."""

    def __init__(self, apart: int) -> None:
        # After a ReLU a padding of zeros never is the maximum of a window that has anything to say.
        super().__init__(nn.ZeroPad2d((0, apart, 0, apart)), nn.MaxPool2d(2, 1, dilation=apart))


POOLINGS = {"gap": nn.AdaptiveAvgPool2d, "gmp": nn.AdaptiveMaxPool2d}


class SmallVGG(Chain):
    """Stages of 3x3 convolutions that keep the size, with 2x2 max pooling between them, a global pooling, one layer.

    `(B, channels, H, W)` -> `(B, classes)` logits, for images of any size whose sides two to the power of the number of
    poolings divides (others lose a border of pixels). The last feature maps are H / 2^(stages - 1) high: 8x8 for 64x64
    pixels and four stages. Layer names: [pad1,] conv1, [bn1,] relu1, pool1, ..., gap or gmp, flatten, fc.

    Args:
        classes: number of logits.
        channels: colours of the input.
        stages: the number of filters of every convolution, stage by stage.
        pooling: "gap" averages each last feature map, "gmp" takes its greatest value.
        norm: batch normalisation after every convolution, which then has no bias.
        angular: the images are in log-polar coordinates; every convolution is padded as `AngularPad2d` says.
        atrous: how many of the last 2x2 poolings move by one pixel in place of two. The convolutions behind them are
            dilated, so that the same weights compute the same numbers, and those between them too: the last feature
            maps are 2^atrous times as high and wide, for sides that two to the power of the number of poolings
            divides.

    Raises:
        ValueError: an unknown pooling, a stage without a convolution, no class or no channel, or `atrous` not within
            0 .. number of poolings, or together with `angular`.
    Source: the design of VGG (Simonyan and Zisserman, ICLR 2015) with the head of Zhou et al., CVPR 2016, section 2.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        stages: Sequence[Sequence[int]] = ((16,), (32,), (64,), (128,)),
        *,
        pooling: str = "gap",
        norm: bool = False,
        angular: bool = False,
        atrous: int = 0,
    ) -> None:
        check_choice(pooling, "pooling", POOLINGS)
        if not stages or not all(isinstance(stage, Sequence) and stage for stage in stages):
            raise ValueError(
                f"stages must be the numbers of filters, stage by stage, as ((16,), (32, 32)), got {stages!r}"
            )
        stages = [[check_count(filters, "every number in stages") for filters in stage] for stage in stages]
        classes, channels = check_count(classes, "classes"), check_count(channels, "channels")
        atrous = check_count(atrous, "atrous", 0, len(stages) - 1)
        if atrous and angular:
            raise ValueError("atrous and angular do not go together: the padding around the circle is one pixel wide")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        wide, count, apart = channels, 0, 1  # apart: pixels between the taps of a kernel
        for number, stage in enumerate(stages, start=1):
            for filters in stage:
                count += 1
                if angular:
                    layers[f"pad{count}"] = AngularPad2d(1)
                padding = (apart, 0) if angular else apart
                layers[f"conv{count}"] = nn.Conv2d(wide, filters, 3, 1, padding, apart, bias=not norm)
                if norm:
                    layers[f"bn{count}"] = nn.BatchNorm2d(filters)
                layers[f"relu{count}"] = nn.ReLU()
                wide = filters
            if number < len(stages):
                dense = number >= len(stages) - atrous
                layers[f"pool{number}"] = _DensePool(apart) if dense else nn.MaxPool2d(2)
                apart *= 2 if dense else 1
        layers |= {pooling: POOLINGS[pooling](1), "flatten": nn.Flatten(), "fc": nn.Linear(wide, classes)}
        super().__init__(layers)
        self.stride = 2 ** (len(stages) - 1 - atrous)  # pixels from one place of the last maps to the next
        self.atrous = atrous

    @property
    def offset(self) -> float:
        """Pixels by which the places of the last maps lie further down and right than if spread evenly.

        0 without `atrous`. With it every 2^atrous-th place is one of the plain network's, in the middle of a square of
        2^poolings pixels, but the first of a group of 2^atrous.
        """
        return self.stride * (2**self.atrous - 1) / 2

    @property
    def features(self) -> nn.Sequential:
        """Everything up to the last feature maps, a ReLU's; shares the weights."""
        return self[:-3]
