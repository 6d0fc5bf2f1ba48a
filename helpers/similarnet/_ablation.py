"""What a network loses without each of its filters, and weights made of it."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers._validate import check_count, check_images, check_number, check_target
from helpers.cam._head import weighted_maps
from helpers.capture import ablated_logits, activations, logits
from helpers.device import widest_float

ERRORS, SIGNS, NORMALIZATIONS = ("rate", "nll"), ("paper", "code"), ("softmax", "none")
BATCH = 100  # images a pass: their copies stay in the processor's cache


class AblationErrors(NamedTuple):
    """What `ablation_errors` returns; F filters, K classes."""

    baseline: Tensor  # (), or (K,) class by class: the error of the whole network
    errors: Tensor  # (F,), or (F, K): the error without each filter


def ablation_errors(
    model: nn.Module,
    layer: str,
    x: Tensor,
    y: Tensor,
    *,
    error: str = "rate",
    per_class: bool = False,
    batch_size: int = BATCH,
) -> AblationErrors:
    """The error of a network as it is, and with each filter of a layer silenced in turn.

    Implements :eq:`eq-ablation`: e_i, the mean over labelled images of the loss with feature map i set to zero, chapter
    4. The network runs once up to the layer; only what follows runs for every filter.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        layer: name of a layer with F filters: feature maps (B, F, h, w), or F numbers an image.
        x: images, (N, C, H, W), normalised as the network expects.
        y: their classes, (N,).
        error: "rate", the share of wrong answers, 0 to 1; or "nll", the mean negative log-likelihood of the true class,
            in nats.
        per_class: the errors among the images of each class; NaN for a class without images.
        batch_size: images a pass.

    Returns:
        `AblationErrors`, float64 (float32 on MPS), on the device of x.

    Raises:
        ValueError: bad `x`, `y`, `layer` or `error`.

    Source: Ghosh et al., SIMILARnet, section 2; the released code takes the log-likelihood, summed.
    """
    if error not in ERRORS:
        raise ValueError(f"error must be one of {', '.join(ERRORS)}, got {error!r}")
    whole, without = _losses(model, layer, x, y, error, batch_size)  # (N,), (F, N)
    if not per_class:
        return AblationErrors(whole.mean(), without.mean(1))
    classes = logits(model, x[:1]).shape[1]
    members = F.one_hot(torch.as_tensor(y).to(x.device).long(), classes).to(whole)  # (N, K)
    counts = members.sum(0)
    return AblationErrors(whole @ members / counts, without @ members / counts)


def importance_weights(
    baseline: Tensor,
    errors: Tensor,
    *,
    sign: str = "paper",
    normalization: str = "softmax",
    temperature: float = 1.0,
) -> Tensor:
    """SIMILARnet's weights: how much the error changes without each filter.

    Implements :eq:`eq-importance`: w'_i = E - e_i, and :eq:`eq-softmax-weights`: w_i = exp(w'_i / T) / sum_j exp(w'_j /
    T), chapter 4. The paper's sign gives the filters that matter the most negative number; the released code turns it
    round, and takes no softmax.

    Args:
        baseline: error with all filters, a number or (); (K,) class by class.
        errors: errors without each filter, (F,); (F, K) class by class.
        sign: "paper", E - e_i, or "code", e_i - E.
        normalization: "softmax" over the filters, or "none".
        temperature: T of the softmax, in the unit of the errors; 1/N makes of mean errors over N images the softmax of
            summed ones.

    Returns:
        (F,); (K, F) class by class, as `heatmap` takes them.

    Raises:
        ValueError: shapes that do not go together, NaN (a class without images), an unknown sign or normalization, or
            a temperature that is not positive.

    Source: Ghosh et al., SIMILARnet, equation 1 and the line after it.
    """
    if sign not in SIGNS or normalization not in NORMALIZATIONS:
        raise ValueError(
            f"sign must be one of {', '.join(SIGNS)} and normalization one of {', '.join(NORMALIZATIONS)}, "
            f"got {sign!r} and {normalization!r}"
        )
    check_number(temperature, "temperature", 0, above=True)
    errors = _numbers("errors", errors)
    if isinstance(baseline, int | float) and not isinstance(baseline, bool):
        baseline = errors.new_tensor(baseline)
    baseline = _numbers("baseline", baseline).to(errors)
    if errors.ndim not in (1, 2) or baseline.shape != errors.shape[1:]:
        raise ValueError(
            f"errors must be (F,) with a baseline (), or (F, K) with (K,), got {tuple(errors.shape)} and "
            f"{tuple(baseline.shape)}"
        )
    change = baseline - errors if sign == "paper" else errors - baseline
    change = change.T if change.ndim == 2 else change  # (F,) or (K, F)
    if normalization == "none":
        return change
    return ((change - change.amax(-1, keepdim=True)) / temperature).softmax(-1)


def mean_excitation_weights(model: nn.Module, layer: str, x: Tensor, *, batch_size: int = BATCH) -> Tensor:
    """The mean of each filter's feature map over images and places: the authors' "newer GAP", which asks for no error.

    Args:
        model: network; it is left as it was found.
        layer: name of a layer with F filters.
        x: images, (N, C, H, W).
        batch_size: images a pass.

    Returns:
        (F,), float64 (float32 on MPS).

    Raises:
        ValueError: bad `x` or `layer`.

    Source: the authors' newer_GAP.lua.
    """
    check_count(batch_size, "batch_size")
    if not isinstance(layer, str):
        raise ValueError(f"layer must be one name, got {layer!r}")
    total = sum(
        _filters(activations(model, part, layer)[layer], layer).mean(2).sum(0) for part in _parts(x, batch_size)
    )
    return total / len(x)


def per_sample_weights(model: nn.Module, layer: str, x: Tensor, y: Tensor, *, batch_size: int = BATCH) -> Tensor:
    """The authors' "ccGAP": each image's change of log-loss, divided by what the filter's map holds there, added up.

    w_i = sum_n (e_i(n) - E(n)) / |F_i(n)|^2 over all images n whose map F_i(n) is not zero.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        layer: name of a layer with F filters.
        x: images, (N, C, H, W), normalised as the network expects.
        y: their classes, (N,).
        batch_size: images a pass.

    Returns:
        (F,), float64 (float32 on MPS), in nats per squared activation.

    Raises:
        ValueError: bad `x`, `y` or `layer`.

    Source: the authors' ccGAP.lua.
    """
    whole, without = _losses(model, layer, x, y, "nll", batch_size)
    maps = torch.cat([_filters(activations(model, part, layer)[layer], layer) for part in _parts(x, batch_size)])
    held = maps.square().sum(2).mT  # (F, N)
    return torch.where(held > 0, (without - whole) / held, 0).sum(1)


def heatmap(features: Tensor, weights: Tensor) -> Tensor:
    """SIMILARnet's heat map: feature maps added up with the filters' weights.

    Implements :eq:`eq-heatmap`: H = sum_i w_i F_i, chapter 4. The same sum as `helpers.cam.weighted_maps`.

    Args:
        features: feature maps, (B, F, h, w), as `features_at_any_size` gives them.
        weights: (F,); (K, F) for K maps of every image; (B, K, F) for weights of each image's own.

    Returns:
        Raw signed maps, (B, h, w), or (B, K, h, w) for weights with a K axis.

    Raises:
        ValueError: shapes that do not go together, or features that are not floating point.

    Source: Ghosh et al., SIMILARnet, equation 2.
    """
    try:
        return weighted_maps(features, weights)
    except ValueError as error:
        raise ValueError(str(error).replace("maps must", "features must")) from error


def effective_number(weights: Tensor) -> Tensor:
    """How many filters a set of weights makes use of: 1 for one alone, F for F weights of the same size.

    Implements :eq:`eq-effective-number`: n = (sum_i |w_i|)^2 / sum_i w_i^2, chapter 4.

    Args:
        weights: (..., F), any sign.

    Returns:
        (...), from 1 to F; NaN where all weights are zero.

    Raises:
        ValueError: not floating point, no weight, or not finite.

    Source: the participation ratio of statistical physics (Bell and Dean 1970); Kish's effective sample size.
    """
    weights = _numbers("weights", weights)
    if weights.ndim == 0:
        raise ValueError("weights must have shape (..., F), got a single number")
    # Scaled first: squares of very small or large weights would leave the range of the numbers.
    share = weights.abs() / weights.abs().amax(-1, keepdim=True)
    return share.sum(-1) * (share.sum(-1) / share.square().sum(-1))


def _numbers(name: str, given: Tensor) -> Tensor:
    if not isinstance(given, Tensor) or not given.is_floating_point() or given.numel() == 0:
        got = f"{tuple(given.shape)} of {given.dtype}" if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(f"{name} must be a non-empty floating-point tensor, got {got}")
    if not torch.isfinite(given).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    return given.detach()


def _losses(model: nn.Module, layer: str, x: Tensor, y: Tensor, error: str, batch_size: int) -> tuple[Tensor, Tensor]:
    """The loss of every image with all filters, (N,), and without each, (F, N)."""
    check_count(batch_size, "batch_size")
    if not isinstance(layer, str):
        raise ValueError(f"layer must be one name, got {layer!r}")
    wanted, whole, without = _labels(y, len(check_images(x))).to(x.device), [], []
    for part, own in zip(_parts(x, batch_size), wanted.split(batch_size), strict=True):
        kept, cut = ablated_logits(model, part, layer)
        _labels(own, len(part), kept.shape[1])
        whole.append(_loss(kept, own, error))
        without.append(_loss(cut, own.expand(len(cut), -1), error))
    return torch.cat(whole), torch.cat(without, dim=1)


def _labels(y: Tensor, count: int, classes: int | None = None) -> Tensor:
    """The classes of the images, (N,) int64."""
    try:
        labels = torch.as_tensor(y)
        if labels.ndim != 1:
            raise ValueError(f"must be the classes of the images, (N,), got shape {tuple(labels.shape)}")
        return check_target(labels, count, classes)[0][:, 0]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"y {str(error).removeprefix('target ')}") from error


def _loss(scores: Tensor, y: Tensor, error: str) -> Tensor:
    """Logits (..., K) and classes (...) -> (...), in the widest numbers the device has."""
    if scores.isnan().any():
        raise ValueError("the logits are NaN: check the network's weights")
    scores = scores.to(widest_float(scores.device))
    if error == "rate":
        return (scores.argmax(-1) != y).to(scores)
    return -scores.log_softmax(-1).gather(-1, y[..., None])[..., 0]


def _parts(x: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    return check_images(x).split(batch_size)


def _filters(values: Tensor, layer: str) -> Tensor:
    """A layer's output as (B, F, places), in the widest numbers the device has."""
    if values.ndim < 2:
        raise ValueError(f"layer must give (B, F, ...), but {layer!r} gives {tuple(values.shape)}")
    return values.to(widest_float(values.device)).reshape(*values.shape[:2], math.prod(values.shape[2:]))
