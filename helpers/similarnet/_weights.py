"""Weights of the filters, the heat map they make of feature maps, and how many filters they make use of."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from helpers._validate import check_choice, check_number, check_tensor, is_number
from helpers.cam import weighted_maps
from helpers.capture import Layer, activations, check_feature_maps, in_batches
from helpers.device import widest_float
from helpers.similarnet._ablation import BATCH, image_losses


def importance_weights(
    baseline: float | Tensor,
    errors: Tensor,
    *,
    sign: Literal["paper", "code"] = "paper",
    normalization: Literal["softmax", "none"] = "softmax",
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
    check_choice(sign, "sign", ("paper", "code"))
    check_choice(normalization, "normalization", ("softmax", "none"))
    temperature = check_number(temperature, "temperature", 0, above=True)
    errors = check_tensor(errors, "errors", "F", "F K").detach()
    if is_number(baseline):
        baseline = errors.new_tensor(baseline)
    baseline = check_tensor(baseline, "baseline", "...").detach().to(errors)
    if baseline.shape != errors.shape[1:]:
        raise ValueError(
            f"baseline must be a number for errors (F,), or (K,) for errors (F, K), got {tuple(baseline.shape)} for "
            f"errors {tuple(errors.shape)}"
        )
    change = baseline - errors if sign == "paper" else errors - baseline
    change = change.T if change.ndim == 2 else change  # (F,) or (K, F)
    if normalization == "none":
        return change
    return ((change - change.amax(-1, keepdim=True)) / temperature).softmax(-1)


def mean_excitation_weights(model: nn.Module, x: Tensor, *, layer: Layer, batch_size: int = BATCH) -> Tensor:
    """The mean of each filter's feature map over images and places: the authors' "newer GAP", which asks for no error.

    Args:
        model: network; it is left as it was found.
        x: images, (N, C, H, W), normalised as the network expects.
        layer: a layer with F filters, by name or the module itself.
        batch_size: images a pass.

    Returns:
        (F,), float64 (float32 on MPS).

    Raises:
        ValueError: bad `x`, `layer` or `batch_size`.

    Source: the authors' newer_GAP.lua.
    """

    def mean_excitations(model: nn.Module, x: Tensor) -> Tensor:
        return _filter_maps(model, x, layer).mean(2)

    return in_batches(mean_excitations, model, x, batch_size=batch_size).mean(0)  # (N, F) -> (F,)


def per_sample_weights(model: nn.Module, x: Tensor, y: Any, *, layer: Layer, batch_size: int = BATCH) -> Tensor:
    """The authors' "ccGAP": each image's change of log-loss, divided by what the filter's map holds there, added up.

    w_i = sum_n (e_i(n) - E(n)) / |F_i(n)|^2 over all images n whose map F_i(n) is not zero; E(n) is the log-loss of
    image n, e_i(n) the same without filter i, and |F_i(n)|^2 the sum of the squares of filter i's feature map.

    Args:
        model: network that maps (B, C, H, W) to logits (B, classes); it is left as it was found.
        x: images, (N, C, H, W), normalised as the network expects.
        y: their classes, (N,) integers: a tensor, an array or a list.
        layer: a layer with F filters, by name or the module itself.
        batch_size: images a pass.

    Returns:
        (F,), float64 (float32 on MPS), in nats per squared activation.

    Raises:
        ValueError: bad `x`, `y`, `layer` or `batch_size`, or a network whose logits are NaN.

    Source: the authors' ccGAP.lua.
    """
    whole, without = image_losses(model, x, y, layer, batch_size, "nll")  # (N,), (F, N)
    maps = in_batches(_filter_maps, model, x, layer, batch_size=batch_size)  # (N, F, places)
    squares = maps.square().sum(2).mT  # (F, N), |F_i(n)|^2
    return torch.where(squares > 0, (without - whole) / squares, 0).sum(1)


def _filter_maps(model: nn.Module, x: Tensor, layer: Layer) -> Tensor:
    """A layer's output as (B, F, places), in the widest numbers the device has."""
    ((name, values),) = activations(model, x, [layer]).items()
    if values.ndim != 2:
        check_feature_maps(values, name, model, x)
    return values.to(widest_float(values.device)).reshape(*values.shape[:2], -1)


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
    check_tensor(features, "features", "B F h w", finite=False)
    return weighted_maps(features, weights)


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
    weights = check_tensor(weights, "weights", "... F").detach()
    # Scaled first: squares of very small or large weights would leave the range of the numbers.
    share = weights.abs() / weights.abs().amax(-1, keepdim=True)
    return share.sum(-1) * (share.sum(-1) / share.square().sum(-1))
