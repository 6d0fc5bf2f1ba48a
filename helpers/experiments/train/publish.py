"""What a finished training leaves behind: weights and manifest, and the full record."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from helpers.experiments.report import header
from helpers.experiments.run_files import RunError, write_safely
from helpers.experiments.train.datasets import DataSplit
from helpers.experiments.train.recipes import PUBLISHED, RECIPES, Recipe
from helpers.experiments.train.run import Run, recipe_logits
from helpers.networks import _store as store
from helpers.results import Row, long_table, to_text
from helpers.training import share_right, topk_correct


def command(recipe: Recipe, images: int | None = None, bfloat16: bool = False) -> str:
    """The command that makes a network the way it was made; `images` and `bfloat16` as the options of that name."""
    usual = RECIPES[recipe.name]
    words = ["python", "-m", "helpers.experiments.train", recipe.name]
    if recipe.epochs != usual.epochs:
        words += ["--epochs", str(recipe.epochs)]
    if images is not None:
        words += ["--images", str(images)]
    if recipe.classes != usual.classes:
        words += ["--classes", *(recipe.classes or ("all",))]
    if recipe.seeds != usual.seeds:
        words += ["--seeds", *map(str, recipe.seeds)]
    if bfloat16:
        words += ["--bfloat16"]
    return shlex.join(words)


def measure(recipe: Recipe, model: nn.Module, split: DataSplit) -> dict[str, Any]:
    """Accuracy of one network on every test set, and of each class on the main one.

    Returns:
        "accuracy": {test set: share right}, "by class": a list, and, with more than ten classes, "top 5": {main test
        set: share right}.
    """
    measured: dict[str, Any] = {"accuracy": {}}
    for name, test in split.tests.items():
        scores = recipe_logits(recipe, model, test.images)
        measured["accuracy"][name] = share_right(scores, test.labels)
        if name == split.main_test:
            measured["by class"] = by_class(scores, test.labels)
            if scores.shape[1] > 10:  # among ten, half of the answers would count as right
                measured["top 5"] = {name: share_right(scores, test.labels, 5)}
    return measured


def by_class(scores: Tensor, labels: Tensor) -> list[float | None]:
    """Share of each class's images that are classified as it, (K,); None where a class has none."""
    correct = topk_correct(scores, labels).double()
    counts = torch.bincount(labels, minlength=scores.shape[1])
    shares = torch.bincount(labels, weights=correct, minlength=scores.shape[1]) / counts
    return [share if count else None for share, count in zip(shares.tolist(), counts.tolist(), strict=True)]


def as_shipped(model: nn.Module) -> nn.Module:
    """A copy of a network, its numbers rounded to half precision, as its file will hold them.

    Raises:
        RunError: a number that half precision cannot hold.
    """
    rounded = copy.deepcopy(model)
    for name, value in rounded.state_dict().items():
        if value.is_floating_point():
            value.copy_(value.half())
            if not torch.isfinite(value).all():
                raise RunError(f"{name} holds numbers that half precision cannot: they cannot be shipped")
    return rounded


def measured_runs(recipe: Recipe, runs: Sequence[Run], images: int | None = None) -> dict[str, Any]:
    """Everything measured on the finished runs of a recipe, weights rounded as they are shipped.

    Args:
        recipe: what was made.
        runs: the finished runs, one a seed.
        images: how many images it was trained on, where not on all.
    """
    entries = []
    for run in runs:
        measured = measure(recipe, as_shipped(run.model), run.split)
        entries.append(
            {
                "seed": run.seed,
                **measured,
                "data": run.identity["data"],
                "environment": run.environment,
                "epochs": run.history,
            }
        )
    return {
        "name": recipe.name,
        "command": command(recipe, images, runs[0].machine.bfloat16),
        "what": described(runs[0].split),
        "classes": list(runs[0].split.classes),
        "recipe": recipe.plain(),
        "runs": entries,
        "published": PUBLISHED.get(recipe.name),
    }


def described(split: DataSplit) -> str:
    """The data in one line."""
    tested = len(split.tests[split.main_test].labels)
    return f"{split.what}: {len(split.train.labels):,} training and {tested:,} test images"


def manifest(recipe: Recipe, result: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """What the manifest says: the card of the first run's network, its recipe, and the accuracy of every run."""
    first = result["runs"][0]
    main = run.split.main_test
    return {
        "name": recipe.name,
        "about": recipe.about,
        "architecture": recipe.architecture,
        "arguments": {"classes": len(run.split.classes), **recipe.plain()["arguments"]},
        "classes": list(run.split.classes),
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "view": recipe.view,
        "size": list(run.split.train.images.shape[-2:]),
        "accuracy": first["accuracy"][main],
        "test": f"{len(run.split.tests[main].labels):,} test images",
        "command": result["command"],
        "data": result["what"],
        "seed": run.seed,
        "runs": [
            {"seed": entry["seed"], "accuracy": entry["accuracy"], "top 5": entry.get("top 5", {}).get(main)}
            for entry in result["runs"]
        ],
        "recipe": recipe.plain(),
        "facts": first["environment"],  # so called in the manifests
    }


def write(recipe: Recipe, runs: Sequence[Run], result: Mapping[str, Any], weights: Path, results: Path) -> None:
    """Write weights and manifest into one folder, the record into another.

    Args:
        recipe: what was made.
        runs: the finished runs, one a seed; the first one's weights are written.
        result: what `measured_runs` gives for them.
        weights: where weights and manifest go.
        results: where the record goes.
    """
    store.write(runs[0].model, manifest(recipe, result, runs[0]), weights)
    results.mkdir(parents=True, exist_ok=True)
    write_safely(
        results / f"{recipe.name}.csv",
        to_text(record_header(result), record_rows(result)).encode(),
    )


def record_header(result: Mapping[str, Any]) -> dict[str, Any]:
    """The header of the record that `measured_runs` gives, as its file keeps it."""
    runs = result["runs"]
    settings = {
        "what": result["what"],
        "classes": result["classes"],
        "recipe": result["recipe"],
        "environments": {str(run["seed"]): run["environment"] for run in runs},
    }
    return header(
        result["name"], runs[0]["environment"], data={f"seed {run['seed']}": run["data"] for run in runs},
        seeds=[run["seed"] for run in runs], settings=settings, published=result["published"],
        command=result["command"],
    )  # fmt: skip


def record_rows(result: Mapping[str, Any]) -> list[Row]:
    """The rows of the record that `measured_runs` gives.

    The tables: "accuracy", by test set (`set`), "top 1" or "top 5" (`metric`); "classes", the accuracy of each
    (`label`) on the main test set; "epochs" (`step`), by `metric`:

    - "loss" (nats, as trained with, label smoothing included) and "train", the share classified correctly, are counted
      during the epoch, on the batches as shown (augmented, where the recipe says so), while the weights change;
    - "test", the share of the main test set's images, right after the epoch, before the weights are rounded;
    - "seconds", of the training alone.
    """
    runs = result["runs"]
    accuracies = {
        run["seed"]: {"top 1": run["accuracy"], **({"top 5": run["top 5"]} if "top 5" in run else {})} for run in runs
    }
    classes = {run["seed"]: run["by class"] for run in runs}
    epochs = {
        run["seed"]: {
            row["epoch"]: {key: value for key, value in row.items() if key != "epoch"} for row in run["epochs"]
        }
        for run in runs
    }  # fmt: skip
    return [
        *long_table(accuracies, "seed", "metric", "set", table="accuracy"),
        *long_table(classes, "seed", "label", table="classes", metric="top 1"),
        *long_table(epochs, "seed", "step", "metric", table="epochs"),
    ]
