"""What a method may be given as images and as target."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def check_images(x: Tensor) -> Tensor:
    """Return `x` unchanged if it is a batch of images, (B, C, H, W), floating point and finite.

    Args:
        x: what a method was given as images.

    Raises:
        ValueError: not a tensor, not of rank 4, an empty side, not floating point, NaN or infinite values.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a torch tensor (B, C, H, W), got {type(x).__name__}")
    if x.ndim != 4:
        hint = "; one image is x[None]" if x.ndim == 3 else ""
        raise ValueError(f"x must have shape (B, C, H, W), got {tuple(x.shape)}{hint}")
    if x.numel() == 0:
        raise ValueError(f"x must not be empty, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point, got {x.dtype}; images of bytes are x.float() / 255")
    if not torch.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinite values")
    return x


def check_fit(model: nn.Module, x: Tensor) -> Tensor:
    """Return `x` unchanged if the network can compute with it: its device, its precision, its number of channels.

    Args:
        model: any network; its first parameter tells device and precision, and its weights, if it is a convolution's or
            a linear layer's, the number of inputs.
        x: images, (B, C, H, W).

    Raises:
        ValueError: x lies on another device, is of another dtype, or has another number of channels.
    """
    first = next(model.parameters(), None)
    if first is None or not first.is_floating_point():
        return x
    if x.device != first.device:
        raise ValueError(f"x must be on the network's device, {first.device}, got {x.device}")
    if x.dtype != first.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"x must be {first.dtype}, as the network's weights are, got {x.dtype}")
    entry = next((m for m in model.modules() if getattr(m, "weight", None) is first), None)
    if isinstance(entry, nn.Conv2d) and x.shape[1] != entry.in_channels:
        raise ValueError(
            f"x must have {entry.in_channels} channels, (B, {entry.in_channels}, H, W), got {tuple(x.shape)}"
        )
    return x


def check_target(target: int | Sequence | Tensor, batch: int, classes: int) -> tuple[Tensor, bool]:
    """Bring a target into the shape (B, K).

    Args:
        target: a class for the whole batch (int), one class an image (B,), or K classes of every image (B, K).
        batch: B, the number of images.
        classes: number of classes of the network.

    Returns:
        The target as int64 (B, K), and whether it was given as (B, K), so that results keep their K axis.

    Raises:
        ValueError: not integers, another shape, or a class outside 0 .. classes - 1.
    """
    try:
        wanted = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"target must be an int, (B,) or (B, K) integers, got {target!r}") from error
    shape = tuple(wanted.shape)
    if wanted.ndim > 2 or wanted.numel() == 0 or (wanted.ndim > 0 and shape[0] != batch):
        raise ValueError(f"target must be an int, (B,) or (B, K) with B = {batch} images, got shape {shape}")
    if wanted.dtype == torch.bool or wanted.is_floating_point() or wanted.is_complex():
        raise ValueError(f"target must hold integers (class numbers), got {wanted.dtype}")
    wanted = wanted.long()
    if wanted.min() < 0 or wanted.max() >= classes:
        worst = int(wanted.min() if wanted.min() < 0 else wanted.max())
        raise ValueError(f"target must lie in 0 .. {classes - 1} (the network has {classes} classes), got {worst}")
    if wanted.ndim == 0:
        wanted = wanted.expand(batch)  # () -> (B,)
    return (wanted, True) if wanted.ndim == 2 else (wanted[:, None], False)  # (B,) -> (B, 1)
