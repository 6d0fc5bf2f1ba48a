"""SIMILARnet at full scale: `python -m helpers.experiments.similarnet`, on MNIST, five trainings.

Every LeNet is trained by the paper's protocol, in runs that go on where they were stopped. Its filters are ablated on
all training and all test images, and the weights made of the errors are compared with weights that know nothing: where
is one digit on a canvas, which of two digits was asked for, what is read in up to eight. Beside the LeNets stand
digits-gap's trainings, for the class activation maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.cam import upsample
from helpers.capture import masked_forward
from helpers.data import DIGIT_BACKGROUNDS
from helpers.experiments.environment import run_environment
from helpers.experiments.report import run_record
from helpers.experiments.similarnet.canvases import (
    SEED,
    blurred,
    canvases,
    large,
    lettered,
    letters_without_network,
    localized,
    read,
    without_network,
)
from helpers.experiments.similarnet.class_weights import GAP_LAYER, SAMPLE, by_class, slid, with_gap
from helpers.experiments.similarnet.pictures import on_pictures, painted_digits
from helpers.experiments.train.command import trained
from helpers.experiments.train.datasets import DataSplit, data_hash, world
from helpers.experiments.train.recipes import PUBLISHED, RECIPES
from helpers.experiments.train.trainer import accuracy
from helpers.metrics import pixel_auc
from helpers.networks import load
from helpers.similarnet import (
    AblationErrors,
    ablation_errors,
    effective_number,
    features_at_any_size,
    heatmap,
    importance_weights,
    mean_excitation_weights,
    per_sample_weights,
)
from helpers.training import predict

NAME = "similarnet"
COMMAND = f"python -m helpers.experiments.{NAME} --publish"
SEEDS = (1, 2, 3, 4)  # of LeNets beside the shipped one, whose seed is 0
LAYER = "pool2"
DRAWS, PERMUTED, HALVES = 5, 10, 10  # of random weights, of the measured ones' order, and of halves of the filters
# Digits a canvas, canvases, pixels a side.
ONE, TWO, MANY = (1, 200, 84), (2, 400, 84), ((1, 8), 200, 128)
BACKGROUNDS = tuple(f"{kind} {ground}" for kind in ("drawn", "written") for ground in DIGIT_BACKGROUNDS)
MARGIN = 2.0  # pixels that boxes of hot spots are made smaller by, on every side
BRIGHTNESS = (1.0, 0.6)  # of letters on photographs
READ = ("e - E, raw (code)", "softmax of E - e (paper)", "all weights one")
CUTS: tuple[str | float, ...] = ("otsu", "two sigma", 0.5)
SPLITS = ("training", "test")


def ablated(model: nn.Module, found: DataSplit, device: torch.device) -> dict[str, Any]:
    """Errors without each filter, on all training and test images, and how even the softmax makes them."""
    rows: dict[str, Any] = {}
    for split, part in zip(SPLITS, (found.train, next(iter(found.tests.values()))), strict=True):
        x = (part.images.float() / 255).to(device)
        for error in ("rate", "nll"):
            all_of_it = ablation_errors(model, x, part.labels, layer=LAYER, error=error)
            even = {
                f"{sign}, {kind}": effective_number(importance_weights(*all_of_it, sign=sign, temperature=t)).item()
                for sign in ("paper", "code")
                for kind, t in (("mean", 1.0), ("sum", 1 / len(x)))
            }
            rows[f"{split}, {error}"] = {
                "images": len(x),
                "baseline": all_of_it.baseline.item(),
                "errors": all_of_it.errors.tolist(),
                "effective number": even,
            }
    return rows


def weightings(
    model: nn.Module, found: AblationErrors, x: Tensor, y: Tensor, count: int, seed: int
) -> dict[str, Tensor]:
    """All the weights that are compared, name -> (F,).

    Args:
        model: the network.
        found: its mean log-losses, over `count` images.
        x: some training images, for the authors' later variants.
        y: their classes.
        count: number of images behind `found`.
        seed: of the random weights.
    """
    draw = torch.Generator().manual_seed(seed)
    filters = len(found.errors)
    rows = {
        "E - e, raw": importance_weights(*found, normalization="none"),
        "e - E, raw (code)": importance_weights(*found, sign="code", normalization="none"),
        "softmax of E - e (paper)": importance_weights(*found),
        "softmax of e - E": importance_weights(*found, sign="code"),
        "softmax of E - e, summed": importance_weights(*found, temperature=1 / count),
        "softmax of e - E, summed": importance_weights(*found, sign="code", temperature=1 / count),
        "mean excitation (newer GAP)": mean_excitation_weights(model, x, layer=LAYER),
        "by sample (ccGAP)": per_sample_weights(model, x, y, layer=LAYER),
        "all weights one": torch.ones(filters),
    }
    rows |= {f"positive weights at random, {k + 1}": torch.rand(filters, generator=draw) for k in range(DRAWS)}
    measured = rows["e - E, raw (code)"]
    rows |= {f"e - E, permuted, {k + 1}": measured[torch.randperm(filters, generator=draw)] for k in range(PERMUTED)}
    return {name: weights.to(x) for name, weights in rows.items()}


def lenet_rows(model: nn.Module, found: DataSplit, seed: int, device: torch.device) -> dict[str, Any]:
    """Everything that is measured on one LeNet."""
    test = next(iter(found.tests.values()))
    scores = predict(model, test.images.float() / 255)
    row: dict[str, Any] = {"seed": seed, "accuracy": accuracy(scores, test.labels)}
    row["by class"] = [accuracy(scores[test.labels == c], test.labels[test.labels == c]) for c in range(10)]
    row["ablation"] = ablated(model, found, device)
    kept = row["ablation"]["training, nll"]
    errors = AblationErrors(torch.tensor(kept["baseline"]), torch.tensor(kept["errors"]))
    x, y = (found.train.images[:SAMPLE].float() / 255).to(device), found.train.labels[:SAMPLE]
    weights = weightings(model, errors, x, y, kept["images"], seed)
    row["weights"] = {name: one.tolist() for name, one in weights.items()}
    classes = ablation_errors(model, x, y, layer=LAYER, error="nll", per_class=True)
    row["class by class"] = {"baseline": classes.baseline.tolist(), "errors": classes.errors.tolist()}
    row["letters"] = {str(value): on_letters(model, weights, value, device) for value in BRIGHTNESS}
    row["halves"] = halves(model, errors, found, device)
    row["authors' pictures"] = on_pictures(model, LAYER, {name: weights[name] for name in READ})
    row["painted digits"] = painted_digits(model)
    row["one digit"], row["two digits"], row["reading"] = {}, {}, {}
    for background in BACKGROUNDS:
        one, two, many = (canvases(background, *size, device) for size in (ONE, TWO, MANY))
        row["one digit"][background] = {
            name: localized(large(maps, one), one) for name, maps in heatmaps(model, one.images, weights).items()
        }
        for name in READ:
            maps = heatmap(features_at_any_size(model, one.images, layer=LAYER), weights[name])
            row["one digit"][background][f"{name}, blurred"] = localized(blurred(large(maps, one)), one)
        row["two digits"][background] = {**by_class(model, found, two, LAYER), **slid(model, two)}
        few = {name: weights[name] for name in READ}
        hot = {name: large(maps, many) for name, maps in heatmaps(model, many.images, few).items()}
        hot["the image itself"] = many.images[:, 0]
        row["reading"][background] = {
            f"{name}, {cut}": read(model, maps, many, cut) for name, maps in hot.items() for cut in CUTS
        }
        for name, maps in hot.items():
            row["reading"][background][f"{name}, otsu, smaller"] = read(model, maps, many, "otsu", MARGIN)
    return row


def halves(model: nn.Module, errors: AblationErrors, found: DataSplit, device: torch.device) -> dict[str, list[float]]:
    """What half of the filters is good for: share of test digits named with it alone, and AUC on drawn canvases.

    Returns:
        "most missed", "least missed" and random halves -> the share, the mean AUC over the drawn backgrounds, and the
        pointing game within `NEAR` pixels among fragments.
    """
    test = next(iter(found.tests.values()))
    x, y = (test.images.float() / 255).to(device), test.labels.to(device)
    order, filters = errors.errors.argsort(descending=True), len(errors.errors)
    draw = torch.Generator().manual_seed(SEED)
    chosen = {"most missed": order[: filters // 2], "least missed": order[filters // 2 :]}
    chosen |= {f"random, {k + 1}": torch.randperm(filters, generator=draw)[: filters // 2] for k in range(HALVES)}
    drawn = [canvases(name, *ONE, device) for name in BACKGROUNDS if name.startswith("drawn")]
    features = [features_at_any_size(model, one.images, layer=LAYER) for one in drawn]
    rows = {}
    for name, on in chosen.items():
        mask = torch.zeros(filters).index_fill(0, on, 1.0).to(device)
        answers = torch.cat([masked_forward(model, part, {LAYER: mask[:, None, None]}).logits for part in x.split(500)])
        named = (answers.argmax(1) == y).float().mean().item()
        told = [localized(large(heatmap(f, mask), one), one) for f, one in zip(features, drawn, strict=True)]
        rows[name] = [named, sum(auc for auc, *_ in told) / len(told), told[-1][2]]
    return rows


def on_letters(model: nn.Module, weights: Mapping[str, Tensor], value: float, device: torch.device) -> dict[str, float]:
    """Pixel AUC of heat maps, weights (F,), for the letters on photographs: the mean over the photographs."""
    found: dict[str, list[float]] = {}
    for image, mask in lettered(value):
        maps = heatmaps(model, image.to(device), {name: weights[name] for name in READ})
        for name, one in maps.items():
            auc = pixel_auc(upsample(one, tuple(image.shape[2:])), mask.to(device))
            found.setdefault(name, []).append(auc.item())
    return {name: sum(values) / len(values) for name, values in found.items()}


def heatmaps(model: nn.Module, images: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Heat maps (N, h, w) of images (N, 1, H, W) by weights (F,), with poolings and, but for permuted ones, without."""
    features = features_at_any_size(model, images, layer=LAYER)
    found = {name: heatmap(features, one) for name, one in weights.items()}
    features = features_at_any_size(model, images, layer=LAYER, keep_pools=False)
    fine = {name: one for name, one in weights.items() if "permuted" not in name}
    return found | {f"{name}, no poolings": heatmap(features, one) for name, one in fine.items()}


def record(out: Path, device: torch.device) -> dict[str, Any]:
    """Everything that is measured, as `book/results` keeps it."""
    result: dict[str, Any] = {"name": NAME, "command": COMMAND, "facts": run_environment(device)}
    result |= {"published": PUBLISHED["lenet-mnist"], "canvases": {"one": ONE, "two": TWO, "many": MANY}}
    found = world(RECIPES["lenet-mnist"])
    result["data"], result["networks"] = {"lenet-mnist": data_hash(found)}, []
    result["test images by class"] = torch.bincount(found.tests["test"].labels).tolist()
    for seed in tqdm((0, *SEEDS), desc="LeNets"):
        model = trained("lenet-mnist", seed, found, out, device) if seed else load("lenet-mnist", device)
        result["networks"].append(lenet_rows(model, found, seed, device))
    result["without a network"] = {name: without_network(canvases(name, *ONE, device)) for name in BACKGROUNDS}
    result["letters without a network"] = letters_without_network(BRIGHTNESS)
    result["digits-gap"] = []
    for seed in RECIPES["digits-gap"].seeds:
        found = world(RECIPES["digits-gap"], seed)
        model = trained("digits-gap", seed, found, out, device)
        rows = {}
        for background in DIGIT_BACKGROUNDS:
            two = canvases(f"drawn {background}", *TWO, device)
            rows[background] = {**by_class(model, found, two, GAP_LAYER), **with_gap(model, two)}
        result["digits-gap"].append({"seed": seed, "two digits": rows})
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    return run_record(NAME, __doc__.split("\n")[0], record, arguments)
