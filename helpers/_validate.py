"""What a method may be given as images and as target."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

Target = int | Sequence | Tensor  # a class, (B,) classes, or (B, K)
LEAST_CHUNK = 8  # images a pass, where the caller's batch is smaller


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


def check_target(target: Target, batch: int, classes: int | None = None) -> tuple[Tensor, bool]:
    """Bring a target into the shape (B, K).

    Args:
        target: a class for the whole batch (int), one class an image (B,), or K classes of every image (B, K).
        batch: B, the number of images.
        classes: number of classes of the network; None while it is not known: their range is then not looked at.

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
    if classes is not None and (wanted.min() < 0 or wanted.max() >= classes):
        worst = int(wanted.min() if wanted.min() < 0 else wanted.max())
        raise ValueError(f"target must lie in 0 .. {classes - 1} (the network has {classes} classes), got {worst}")
    if wanted.ndim == 0:
        wanted = wanted.expand(batch)  # () -> (B,)
    return (wanted, True) if wanted.ndim == 2 else (wanted[:, None], False)  # (B,) -> (B, 1)


def check_positive(name: str, value: int) -> int:
    """Return a count unchanged if it is an integer of at least 1.

    Args:
        name: of the argument, for the message.
        value: what was given.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return value


def check_number(name: str, value: float, low: float, *, above: bool = False) -> float:
    """Return a number unchanged if it is finite and not below `low`.

    Args:
        name: of the argument, for the message.
        value: what was given.
        low: the least value allowed.
        above: refuse `low` itself too.

    Raises:
        ValueError: it is not.
    """
    good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value < float("inf")
    if not good or (above and value == low):
        bound = f"above {low:g}" if above else f"from {low:g} on"
        raise ValueError(f"{name} must be a finite number {bound}, got {value!r}")
    return value


def check_fill(value: float | Tensor, x: Tensor, name: str = "fill") -> Tensor:
    """A number or a tensor as images like x, on its device and in its dtype.

    Args:
        value: a finite number, or a tensor that broadcasts to x.
        x: images, (B, C, H, W).
        name: of the argument, for the message.

    Returns:
        (B, C, H, W), not to be written into.

    Raises:
        ValueError: it does not broadcast to the shape of x, or is not finite.
    """
    try:
        given = torch.as_tensor(value).detach()
        if given.is_complex():
            raise TypeError("complex")
        given = given.to(x)
        full = given.expand(x.shape)
    except (TypeError, ValueError, RuntimeError) as error:
        got = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"{name} must be a number or broadcast to {tuple(x.shape)}, got {got}") from error
    if not torch.isfinite(given).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return full


def chunks(count: int, batch_size: int | None, x: Tensor) -> Iterator[Tensor]:
    """The numbers 0 .. count - 1 of the images that a method makes out of x, cut into passes.

    Args:
        count: how many there are.
        batch_size: images a pass; the length of x, or 8 where x is shorter, when None.
        x: images, (B, C, H, W); the numbers lie on their device.

    Yields:
        (n,) int64, n at most the chunk.

    Raises:
        ValueError: chunk is not an integer of at least 1.
    """
    size = max(len(x), LEAST_CHUNK) if batch_size is None else check_positive("chunk", batch_size)
    yield from torch.arange(count, device=x.device).split(size)
