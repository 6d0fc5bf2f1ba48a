"""SIMILARnet at full scale: `python -m helpers.experiments.similarnet`, on MNIST, five trainings.

Every LeNet is trained by the paper's protocol, in runs that go on where they were stopped. Its filters are ablated on
all training and all test images, and the weights made of the errors are compared with weights that know nothing: where
is one digit on a canvas, which of two digits was asked for, what is read in up to eight. Beside the LeNets stand
digits-gap's trainings, for the class activation maps.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.cam import class_activation_map, grad_cam, upsample
from helpers.capture import gradients
from helpers.data import DIGIT_BACKGROUNDS
from helpers.experiments.canvases import (
    SEED,
    Canvases,
    canvases,
    large,
    lettered,
    local_contrast,
    localized,
    read,
    shares,
    without_network,
)
from helpers.experiments.facts import facts
from helpers.experiments.pictures import on_pictures, signs
from helpers.experiments.recipes import PUBLISHED, RECIPES
from helpers.experiments.records import run_record
from helpers.experiments.train import run_folder
from helpers.experiments.trainer import Machine, Run, accuracy
from helpers.experiments.worlds import World, data_hash, world
from helpers.metrics import pixel_auc
from helpers.networks import load
from helpers.similarnet import (
    AblationErrors,
    ablation_errors,
    as_convolutions,
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
GAP_LAYER = "relu4"  # digits-gap's last feature maps
DRAWS = 5  # of random weights
SAMPLE = 5000  # training images that the slower weights are made of
# Digits a canvas, canvases, pixels a side.
ONE, TWO, MANY = (1, 200, 84), (2, 400, 84), ((1, 8), 200, 128)
BACKGROUNDS = tuple(f"{kind} {ground}" for kind in ("drawn", "written") for ground in DIGIT_BACKGROUNDS)
BRIGHTNESS = (1.0, 0.8, 0.6)  # of letters on photographs
READ = ("e - E, raw (code)", "softmax of E - e (paper)", "all weights one")
CUTS: tuple[str | float, ...] = ("otsu", "two sigma", 0.5)
SPLITS = ("training", "test")


def trained(name: str, seed: int, found: World, out: Path, device: torch.device) -> nn.Module:
    """A network of the book, trained under a seed.

    Args:
        name: of its recipe.
        seed: of the run.
        found: what it learns from.
        out: folder of the runs, which go on from their last checkpoints.
        device: where it is trained.

    Raises:
        RunError: a checkpoint that is damaged or of another run.
    """
    run = Run(RECIPES[name], found, seed, run_folder(out, name, seed), Machine(device))
    if run.checkpoint.exists():
        run.resume()
    run.train(progress=False)
    return run.model.eval()


def ablated(model: nn.Module, found: World, device: torch.device) -> dict[str, Any]:
    """Errors without each filter, on all training and test images, and how even the softmax makes them."""
    rows: dict[str, Any] = {}
    for split, part in zip(SPLITS, (found.train, next(iter(found.tests.values()))), strict=True):
        x = (part.images.float() / 255).to(device)
        for error in ("rate", "nll"):
            all_of_it = ablation_errors(model, LAYER, x, part.labels, error=error)
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
        "mean excitation (newer GAP)": mean_excitation_weights(model, LAYER, x),
        "by sample (ccGAP)": per_sample_weights(model, LAYER, x, y),
        "all weights one": torch.ones(filters),
    }
    rows |= {f"positive weights at random, {k + 1}": torch.rand(filters, generator=draw) for k in range(DRAWS)}
    return {name: weights.to(x) for name, weights in rows.items()}


def by_class(model: nn.Module, part: World, found: Canvases, layer: str) -> dict[str, float]:
    """`shares` of class-wise weights of filters: SIMILARnet's, and what they are to be compared with."""
    mixed = torch.randperm(len(part.train.labels), generator=torch.Generator().manual_seed(SEED))[:SAMPLE]
    x, y = (part.train.images[mixed].float() / 255).to(found.images), part.train.labels[mixed]
    features = features_at_any_size(model, found.images, layer)
    errors = ablation_errors(model, layer, x, y, error="nll", per_class=True)
    raw = importance_weights(*errors, sign="code", normalization="none")  # (K, F)
    own = [x[y.to(x.device) == c][:200] for c in range(len(raw))]
    slopes = [gradients(model, mine, c, layer).gradients[layer].mean((0, 2, 3)) for c, mine in enumerate(own)]
    excited = torch.stack([mean_excitation_weights(model, layer, mine) for mine in own])
    rows = {
        "e - E": raw,
        "e - E, less its mean over the classes": raw - raw.mean(0),
        "softmax of E - e": (-raw).softmax(1),
        "softmax of e - E": raw.softmax(1),
        "mean excitation, less its mean": excited - excited.mean(0),
        "mean gradient": torch.stack(slopes),
        "all weights one": torch.ones_like(raw),
    }
    return {name: shares(large(heatmap(features, w[found.labels]), found), found) for name, w in rows.items()}


def slid(model: nn.Sequential, found: Canvases) -> dict[str, float]:
    """`shares` of the logits and probabilities of a network slid over the canvases."""
    with torch.no_grad():
        scores = as_convolutions(model)(found.images)
    rows = torch.arange(len(scores), device=scores.device)[:, None]
    return {
        "slid over the canvas, logit": shares(large(scores[rows, found.labels], found), found),
        "slid over the canvas, probability": shares(large(scores.softmax(1)[rows, found.labels], found), found),
    }


def with_gap(model: nn.Module, found: Canvases) -> dict[str, float]:
    """`shares` of class activation maps and of Grad-CAM at several layers."""
    maps = {"CAM": class_activation_map(model, found.images, found.labels)}
    for layer in ("pool1", "pool2", "pool3", GAP_LAYER):
        maps[f"Grad-CAM at {layer}"] = grad_cam(model, found.images, found.labels, layer)
    return {name: shares(large(one, found), found) for name, one in maps.items()}


def lenet_rows(model: nn.Module, found: World, seed: int, device: torch.device) -> dict[str, Any]:
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
    classes = ablation_errors(model, LAYER, x, y, error="nll", per_class=True)
    row["class by class"] = {"baseline": classes.baseline.tolist(), "errors": classes.errors.tolist()}
    row["letters"] = {str(value): on_letters(model, weights, value, device) for value in BRIGHTNESS}
    row["authors' pictures"] = on_pictures(model, LAYER, {name: weights[name] for name in READ})
    row["authors' signs"] = signs(model)
    row["one digit"], row["two digits"], row["reading"] = {}, {}, {}
    for background in BACKGROUNDS:
        one, two, many = (canvases(background, *size, device) for size in (ONE, TWO, MANY))
        row["one digit"][background] = {
            name: localized(large(maps, one), one) for name, maps in heatmaps(model, one.images, weights).items()
        }
        row["two digits"][background] = {**by_class(model, found, two, LAYER), **slid(model, two)}
        few = {name: weights[name] for name in READ}
        hot = {name: large(maps, many) for name, maps in heatmaps(model, many.images, few).items()}
        hot["the image itself"] = many.images[:, 0]
        row["reading"][background] = {
            f"{name}, {cut}": read(model, maps, many, cut) for name, maps in hot.items() for cut in CUTS
        }
    return row


def on_letters(model: nn.Module, weights: Mapping[str, Tensor], value: float, device: torch.device) -> dict[str, float]:
    """Pixel AUC of heat maps for the letters on photographs, the mean over the photographs."""
    found: dict[str, list[float]] = {}
    for image, mask in lettered(value):
        maps = heatmaps(model, image.to(device), {name: weights[name] for name in READ})
        for name, one in maps.items():
            auc = pixel_auc(upsample(one, tuple(image.shape[2:])), mask.to(device))
            found.setdefault(name, []).append(auc.item())
    return {name: sum(values) / len(values) for name, values in found.items()}


def letters_without_network() -> dict[str, dict[str, float]]:
    """The same of the image's brightness, and of how much brighter a pixel is than its surroundings."""
    rules = {"brightness": lambda image: image[:, 0], "local contrast": local_contrast}
    return {
        str(value): {
            name: sum(pixel_auc(rule(image), mask).item() for image, mask in lettered(value)) / len(lettered(value))
            for name, rule in rules.items()
        }
        for value in BRIGHTNESS
    }


def heatmaps(model: nn.Module, images: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The heat maps of all weights, with the poolings and without."""
    found = {}
    for kept in (True, False):
        features = features_at_any_size(model, images, LAYER, keep_pools=kept)
        tail = "" if kept else ", no poolings"
        found |= {name + tail: heatmap(features, one) for name, one in weights.items()}
    return found


def record(out: Path, device: torch.device) -> dict[str, Any]:
    """Everything that is measured, as `book/results` keeps it."""
    result: dict[str, Any] = {"name": NAME, "command": COMMAND, "facts": facts(device)}
    result |= {"published": PUBLISHED["lenet-mnist"], "canvases": {"one": ONE, "two": TWO, "many": MANY}}
    found = world(RECIPES["lenet-mnist"])
    result["data"], result["networks"] = data_hash(found), []
    result["test images by class"] = torch.bincount(found.tests["test"].labels).tolist()
    for seed in tqdm((0, *SEEDS), desc="LeNets"):
        model = trained("lenet-mnist", seed, found, out, device) if seed else load("lenet-mnist", device)
        result["networks"].append(lenet_rows(model, found, seed, device))
    result["without a network"] = {name: without_network(canvases(name, *ONE, device)) for name in BACKGROUNDS}
    result["letters without a network"] = letters_without_network()
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


if __name__ == "__main__":
    sys.exit(main())
