"""SIMILARnet at full scale: `python -m helpers.experiments.similarnet`, on MNIST, five trainings.

Every LeNet is trained by the paper's protocol, in runs that go on where they were stopped. Its filters are ablated on
all training and all test images, and the weights made of the errors are compared with weights that know nothing: where
is one digit on a canvas, which of two digits was asked for, what is read in up to eight. Beside the LeNets stand
digits-gap's trainings, for the class activation maps.

The record's tables; a method is a set of weights of the filters, or a map, and a set the kind of canvases:

- "accuracy" of each LeNet, with a label that of one class; "test_images": how many each class has.
- "ablation": the error without each filter (unit), on training and test images, as error "rate" and as "nll";
  "baseline": with all filters; "effective_number": of the filters, in a softmax of mean and of summed errors.
- "class_ablation" and "class_baseline": the log-loss of each class (label), on the training images of a sample.
- "weights": of every method, a number for each filter; "halves": what half of the filters is good for.
- "one_digit": is the ink found? Rows without a network are baselines. "two_digits": is the digit found that was asked
  for? "reading": what hot spots find and read; a variant is where the map is cut.
- "letters": of a brightness (setting) on photographs, pixel AUC. "pictures" and "painted": the authors' own pictures,
  signs found, and what is read (value) of painted digits (label).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.cam import upsample
from helpers.capture import masked_forward
from helpers.data import DIGIT_BACKGROUNDS
from helpers.experiments.environment import run_environment
from helpers.experiments.report import Record, header, run_record
from helpers.experiments.similarnet.canvases import (
    KINDS,
    SEED,
    blurred_like_image,
    enlarged,
    ink_scores,
    lettered,
    letters_without_network,
    make_canvases,
    reading_scores,
    without_network,
)
from helpers.experiments.similarnet.class_weights import (
    GAP_LAYER,
    SAMPLE,
    class_weight_scores,
    gap_scores,
    sliding_scores,
)
from helpers.experiments.similarnet.filter_weights import LAYER, Weights, filter_weights, heatmaps
from helpers.experiments.similarnet.pictures import painted_digits, picture_scores
from helpers.experiments.train.datasets import DataSplit, data_hash, load_split
from helpers.experiments.train.recipes import PUBLISHED, RECIPES
from helpers.experiments.train.run import shipped_or_trained, trained
from helpers.metrics import pixel_auc
from helpers.results import long_table
from helpers.results._format import Row
from helpers.similarnet import (
    AblationErrors,
    ablation_errors,
    effective_number,
    features_at_any_size,
    heatmap,
    importance_weights,
)
from helpers.training import predict, share_right, topk_correct

NAME, NETWORK = "similarnet", "lenet-mnist"
SEEDS = (1, 2, 3, 4)  # of LeNets beside the shipped one, whose seed is 0
HALVES = 10  # random halves of the filters
# Digits a canvas, canvases, pixels a side.
ONE, TWO, MANY = (1, 200, 84), (2, 400, 84), ((1, 8), 200, 128)
MARGIN = 2.0  # pixels that boxes of hot spots are made smaller by, on every side
BRIGHTNESS = (1.0, 0.6)  # of letters on photographs
COMPARED = ("e - E, raw (code)", "softmax of E - e (paper)", "all weights one")  # weights whose maps are read too
CUTS: tuple[str | float, ...] = ("otsu", "two sigma", 0.5)
ERRORS = ("rate", "nll")


def parts_of(split: DataSplit, device: torch.device) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The parts "training" and "test", their images (N, 1, 28, 28) in [0, 1] and their labels (N,)."""
    for name, part in (("training", split.train), ("test", split.tests["test"])):
        yield name, (part.images.float() / 255).to(device), part.labels


def accuracy_rows(model: nn.Module, split: DataSplit, seed: int) -> list[Row]:
    """Share of test images named, of all and of each class."""
    test = split.tests["test"]
    scores = predict(model, test.images.float() / 255)
    members = [test.labels == label for label in range(scores.shape[1])]
    by_class = [share_right(scores[own], test.labels[own]) for own in members]
    where = {"table": "accuracy", "network": NETWORK, "seed": seed, "set": "test"}
    return long_table(share_right(scores, test.labels), **where) + long_table(by_class, "label", **where)


def ablated(
    model: nn.Module, split: DataSplit, seed: int, device: torch.device
) -> tuple[dict[tuple[str, str], AblationErrors], list[Row]]:
    """Errors without each filter, on all training and all test images, as (split, error) -> errors and as rows."""
    errors: dict[tuple[str, str], AblationErrors] = {}
    rows: list[Row] = []
    for name, x, y in parts_of(split, device):
        for error in ERRORS:
            filters = errors[name, error] = ablation_errors(model, x, y, layer=LAYER, error=error)
            spread = {
                f"{sign}, {kind}": effective_number(importance_weights(*filters, sign=sign, temperature=t)).item()
                for sign in ("paper", "code")
                for kind, t in (("mean", 1.0), ("sum", 1 / len(x)))
            }
            where = {"network": NETWORK, "seed": seed, "set": name, "metric": error, "n": len(x)}
            rows += long_table(filters.baseline.item(), table="baseline", **where)
            rows += long_table(filters.errors, "unit", table="ablation", layer=LAYER, **where)
            rows += long_table(spread, "variant", table="effective_number", **where)
    return errors, rows


def lenet_rows(model: nn.Sequential, split: DataSplit, seed: int, device: torch.device) -> list[Row]:
    """Everything that is measured on one LeNet."""
    where: dict[str, Any] = {"network": NETWORK, "seed": seed}
    errors, rows = ablated(model, split, seed, device)
    # In single precision, as all that the weights meet.
    losses = AblationErrors(*(part.float() for part in errors["training", "nll"]))
    x, y = (split.train.images[:SAMPLE].float() / 255).to(device), split.train.labels[:SAMPLE]
    weights = filter_weights(model, losses, x, y, len(split.train.labels), seed)
    classes = ablation_errors(model, x, y, layer=LAYER, error="nll", per_class=True)
    few = {name: weights[name] for name in COMPARED}
    rows += accuracy_rows(model, split, seed)
    rows += long_table(weights, "method", "unit", table="weights", layer=LAYER, **where)
    rows += long_table(classes.baseline, "label", table="class_baseline", metric="nll", **where)
    rows += long_table(classes.errors, "unit", "label", table="class_ablation", layer=LAYER, metric="nll", **where)
    letters = {value: letter_scores(model, few, value, device) for value in BRIGHTNESS}
    rows += long_table(letters, "setting", "method", table="letters", metric="auc", **where)
    rows += long_table(half_scores(model, losses, split, device), "method", "metric", table="halves", **where)
    pictures = picture_scores(model, LAYER, few)
    rows += long_table(pictures or {}, "set", "method", "metric", table="pictures", **where)
    rows += long_table(painted_digits(model) or {}, "variant", "label", table="painted", **where)
    for kind in KINDS:
        rows += canvas_rows(model, split, weights, kind, device, set=kind, **where)
    return rows


def canvas_rows(
    model: nn.Sequential, split: DataSplit, weights: Weights, kind: str, device: torch.device, **constants: Any
) -> list[Row]:
    """What maps of one LeNet tell on canvases of one kind: of one digit, of two, and of several."""
    single, two, several = (make_canvases(kind, *size, device) for size in (ONE, TWO, MANY))
    few = {name: weights[name] for name in COMPARED}
    ink = {
        name: ink_scores(enlarged(maps, single), single)
        for name, maps in heatmaps(model, single.images, weights).items()
    }
    features = features_at_any_size(model, single.images, layer=LAYER)
    for name, part in few.items():
        ink[f"{name}, blurred"] = ink_scores(blurred_like_image(enlarged(heatmap(features, part), single)), single)
    asked = class_weight_scores(model, split.train, two, LAYER) | sliding_scores(model, two)
    maps = {name: enlarged(part, several) for name, part in heatmaps(model, several.images, few).items()}
    maps["the image itself"] = several.images[:, 0]
    reading = {
        name: {str(cut): reading_scores(model, part, several, cut) for cut in CUTS}
        | {"otsu, smaller": reading_scores(model, part, several, "otsu", MARGIN)}
        for name, part in maps.items()
    }
    return [
        *long_table(ink, "method", "metric", table="one_digit", **constants),
        *long_table(asked, "method", "metric", table="two_digits", **constants),
        *long_table(reading, "method", "variant", "metric", table="reading", **constants),
    ]


def half_scores(
    model: nn.Module, errors: AblationErrors, split: DataSplit, device: torch.device
) -> dict[str, dict[str, float]]:
    """What half of the filters is good for: most missed, least missed, and random halves.

    Returns:
        half -> "named", the share of test digits named with it alone; "auc", the mean over the drawn backgrounds; and
        "pointing near", the pointing game within `NEAR` pixels among fragments.
    """
    *_, (_, x, y) = parts_of(split, device)
    order, filters = errors.errors.argsort(descending=True), len(errors.errors)
    draw = torch.Generator().manual_seed(SEED)
    halves = {"most missed": order[: filters // 2], "least missed": order[filters // 2 :]}
    halves |= {f"random, {k + 1}": torch.randperm(filters, generator=draw)[: filters // 2] for k in range(HALVES)}
    drawn = [make_canvases(f"drawn {background}", *ONE, device) for background in DIGIT_BACKGROUNDS]
    features = [features_at_any_size(model, canvases.images, layer=LAYER) for canvases in drawn]
    scores = {}
    for name, half in halves.items():
        mask = torch.zeros(filters).index_fill(0, half, 1.0).to(device)
        answers = torch.cat([masked_forward(model, part, {LAYER: mask[:, None, None]}).logits for part in x.split(500)])
        ink = [
            ink_scores(enlarged(heatmap(part, mask), canvases), canvases)
            for part, canvases in zip(features, drawn, strict=True)
        ]
        scores[name] = {
            "named": topk_correct(answers, y).float().mean().item(),
            "auc": sum(part["auc"] for part in ink) / len(ink),
            "pointing near": ink[-1]["pointing near"],  # the last ground: fragments
        }
    return scores


def letter_scores(model: nn.Module, weights: Weights, value: float, device: torch.device) -> dict[str, float]:
    """Pixel AUC of heat maps for the letters on photographs, of a brightness: the mean over the photographs."""
    scores: dict[str, list[float]] = {}
    for image, mask in lettered(value):
        size = (image.shape[2], image.shape[3])
        for name, maps in heatmaps(model, image.to(device), weights).items():
            auc = pixel_auc(upsample(maps, size), mask.to(device))
            scores.setdefault(name, []).append(auc.item())
    return {name: sum(values) / len(values) for name, values in scores.items()}


def gap_rows(seed: int, out: Path, device: torch.device) -> list[Row]:
    """Which of two digits was asked for, by maps of one training of digits-gap."""
    split = load_split(RECIPES["digits-gap"], seed)
    model = trained("digits-gap", seed, out, device)
    rows: list[Row] = []
    for background in DIGIT_BACKGROUNDS:
        two = make_canvases(f"drawn {background}", *TWO, device)
        scores = class_weight_scores(model, split.train, two, GAP_LAYER) | gap_scores(model, two)
        where = {"network": "digits-gap", "seed": seed, "set": f"drawn {background}"}
        rows += long_table(scores, "method", "metric", table="two_digits", **where)
    return rows


def record(out: Path, device: torch.device) -> Record:
    """Everything that is measured."""
    split = load_split(RECIPES[NETWORK])
    seeds = {NETWORK: (0, *SEEDS), "digits-gap": RECIPES["digits-gap"].seeds}
    settings = {"digits, canvases, pixels a side": {"one_digit": ONE, "two_digits": TWO, "reading": MANY}}
    about = header(
        NAME,
        run_environment(device),
        data={NETWORK: data_hash(split)},
        seeds=seeds,
        settings=settings,
        published=PUBLISHED[NETWORK],
    )
    rows = long_table(torch.bincount(split.tests["test"].labels), "label", table="test_images", set="test")
    for seed in tqdm(seeds[NETWORK], desc="LeNets"):
        model = shipped_or_trained(NETWORK, seed, out, device)
        assert isinstance(model, nn.Sequential), "a LeNet is a chain, which can be slid"
        rows += lenet_rows(model, split, seed, device)
    baselines = {kind: without_network(make_canvases(kind, *ONE, device)) for kind in KINDS}
    rows += long_table(baselines, "set", "method", "metric", table="one_digit")
    letters = letters_without_network(BRIGHTNESS)
    rows += long_table(letters, "setting", "method", table="letters", metric="auc")
    for seed in seeds["digits-gap"]:
        rows += gap_rows(seed, out, device)
    return Record(about, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    about = "Which filters of LeNet would be missed, and whether they know where to look."
    return run_record(NAME, about, record, arguments)
