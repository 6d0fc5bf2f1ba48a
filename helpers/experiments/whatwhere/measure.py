"""The published what/where model at full scale: `python -m helpers.experiments.whatwhere`.

For each seed a what pathway learns MNIST digits in noisy windows, ever farther from their middle; how often it is right
at each distance is what a where pathway then learns to predict from the periphery; the two together look for digits on
displays of 128 x 128 pixels. Every network's last finished epoch is kept in --out, and a run goes on from there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.data import Digits, mnist, noisy_displays
from helpers.experiments.environment import run_environment
from helpers.experiments.report import Record, header, run_record
from helpers.experiments.run_files import RunError, damage_refused, divergence_refused, write_state
from helpers.experiments.train.datasets import DataSplit, LabeledImages, data_hash
from helpers.experiments.whatwhere.saccades import DISPLAY, TESTED, WINDOW, best_blur, scanned, searched, window
from helpers.results import Row, long_table
from helpers.search import WhatNet, WhereNet, accuracy_map, collicular_target, dorsal_view
from helpers.training import Batches, fit_batches

NAME = "whatwhere"
SEEDS = (0, 1, 2)
WHAT_EPOCHS, WHERE_EPOCHS = 24, 15  # published: 75 and 60
BATCH = 100  # as published
LR = 1e-3
SPREAD_PX = 15  # standard deviation of the digits' shift at the end of the what pathway's curriculum
REACH_PX = 27  # of the accuracy map: 55 x 55 places
PART = 2000  # displays made at once
MAP_DIGITS = 100  # digits an accuracy map is measured with, each at 3,025 places (published: 1,000 at each place)
ECCENTRICITIES_PX = tuple(range(0, 44, 4))
CONTRASTS = (0.7, 0.5, 0.3)
# Seeds of draws: every model's lie so far apart that none of its epochs (below 500 each) or displays has another's.
EPOCH_SEEDS, DISPLAY_SEEDS = 1009, 7919
WHERE_SEED, BLUR_SEED, SCAN_SEED = 500, 6007, 4001  # the first of each kind's own, counted from the model's

# Daucé, Albiges and Perrinet, Journal of Vision 20(8):22, 2020: text, figures and released code.
PUBLISHED: dict[str, Any] = {
    "source": "Daucé, Albiges and Perrinet, Journal of Vision 20(8):22, 2020",
    "central accuracy": {"0.7": 0.92, "0.5": 0.82, "0.3": 0.53},
    "what accuracy, shifts of 15 px": 0.34,
    "what accuracy above 0.7 within (px)": 7,
    "chance from (px)": 20,
    "after one saccade, contrast 0.7": {"0 px": 0.90, "40 px": 0.60},
    "gain of a second saccade": 0.10,
    "gain of a third saccade": 0.02,
    "false detections at 40 px": {"0.7": 0.40, "0.5": 0.60, "0.3": 0.80},
}


def what_batches(digits: Digits, epochs: int, seed: int) -> Batches:
    """Windows around digits that shift ever farther; mean 0."""

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(seed * EPOCH_SEEDS + epoch)
        spread = SPREAD_PX * epoch / max(1, epochs - 1)
        for chunk in torch.randperm(len(digits.images), generator=draw).split(PART):
            shift = (spread * torch.randn(len(chunk), 2, generator=draw)).round().clamp(-REACH_PX, REACH_PX).long()
            noise = int(torch.randint(2**31, (), generator=draw))
            windows = noisy_displays(digits.images[chunk], noise, places=shift, size=WINDOW).images - 0.5
            yield from zip(windows.split(BATCH), digits.labels[chunk].split(BATCH), strict=True)

    return batches


def where_batches(digits: Digits, accuracy: Tensor, seed: int) -> Batches:
    """Dorsal views (B, 1, 40, 96) of displays, and what the where pathway should say of each, (B, 10, 24)."""

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(seed * EPOCH_SEEDS + WHERE_SEED + epoch)
        for chunk in torch.randperm(len(digits.images), generator=draw).split(PART):
            displays = noisy_displays(digits.images[chunk], int(torch.randint(2**31, (), generator=draw)))
            seen = dorsal_view(displays.images - 0.5)[:, 0]
            yield from zip(seen.split(BATCH), collicular_target(accuracy, displays.places).split(BATCH), strict=True)

    return batches


def train(
    model: nn.Module,
    batches: Batches,
    loss: Callable[[Tensor, Tensor], Tensor],
    epochs: int,
    steps: int,
    checkpoint: Path,
    device: torch.device,
    identity: dict[str, Any] | None = None,
) -> list[float]:
    """Train with Adam, its rate falling along half a cosine, every finished epoch kept; returns each one's mean loss.

    Args:
        model: on its device.
        batches: gives an epoch's batches, (B, ...) and their targets.
        loss: of outputs and targets.
        epochs: passes.
        steps: batches a pass.
        checkpoint: where the last finished epoch is kept; the training goes on from there.
        device: where it computes.
        identity: what else the weights depend on, of what JSON knows; a checkpoint of another one is refused.

    Raises:
        RunError: a checkpoint that is damaged or of another training, or a loss that is not finite.
    """
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    total = epochs * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 0.5 * (1 + math.cos(math.pi * min(k / total, 1))))
    losses: list[float] = []
    named = json.dumps({**(identity or {}), "epochs": epochs, "steps": steps, "lr": LR, "batch": BATCH}, sort_keys=True)
    if checkpoint.exists():
        with damage_refused(checkpoint, "remove it"):
            state = torch.load(checkpoint, map_location=device, weights_only=True)
            if state["identity"] != named:
                raise RunError(f"{checkpoint} was made with other settings: remove it or give another --out")
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
            losses = list(state["losses"])

    def save(epoch: int, step_losses: list[float]) -> None:
        losses.append(sum(step_losses) / steps)
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
        write_state(checkpoint, {**state, "losses": losses, "identity": named})

    with divergence_refused():
        fit_batches(
            model, batches, loss, optimiser, schedule=schedule, epochs=epochs, steps=steps, first_epoch=len(losses),
            on_epoch=save, label=checkpoint.stem,
        )  # fmt: skip
    model.eval()
    return losses


def measured_map(what: nn.Module, digits: Digits, seed: int, device: torch.device) -> Tensor:
    """How often the what pathway is right when it looks up to 27 pixels beside a digit: (55, 55), row y, column x."""
    displays = noisy_displays(digits.images, seed, places=torch.zeros(len(digits.images), 2, dtype=torch.int64))
    axis = torch.arange(-REACH_PX, REACH_PX + 1) * 2 / DISPLAY
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    x = (displays.images - 0.5).to(device)
    return accuracy_map(what, x, digits.labels, offsets, view=window, batch_size=1000).cpu()


def profile(accuracy: Tensor) -> list[float]:
    """An accuracy map's (55, 55) mean over all places that are so many pixels from its middle, pixel by pixel."""
    axis = torch.arange(len(accuracy)) - len(accuracy) // 2
    away = (axis.square() + axis[:, None].square()).float().sqrt().round().long()
    return [accuracy[away == r].mean().item() for r in range(REACH_PX + 1)]


def trained_pathways(
    seed: int, train_set: Digits, out: Path, device: torch.device
) -> tuple[WhatNet, WhereNet, dict[str, list[float]]]:
    """The what and the where pathway of one seed, and the mean loss of each one's epochs."""
    torch.manual_seed(seed)
    what = WhatNet().to(device)
    steps = -(-len(train_set.images) // BATCH)
    identity: dict[str, Any] = {"seed": seed, "spread": SPREAD_PX, "digits": len(train_set.images)}
    batches = what_batches(train_set, WHAT_EPOCHS, seed)
    what_loss = train(what, batches, F.cross_entropy, WHAT_EPOCHS, steps, out / f"what-{seed}.pt", device, identity)
    # The map to learn from is measured on training digits, the one to report on test digits.
    half = len(train_set.images) // 2
    learned = Digits(*(part[half : half + MAP_DIGITS] for part in train_set))
    accuracy = measured_map(what, learned, seed, device)
    torch.manual_seed(seed + 100)
    where = WhereNet().to(device)
    batches = where_batches(train_set, accuracy, seed)
    where_loss = train(
        where, batches, F.binary_cross_entropy_with_logits, WHERE_EPOCHS, steps, out / f"where-{seed}.pt", device,
        identity | {"accuracy": round(accuracy.double().sum().item(), 6)},
    )  # fmt: skip
    return what, where, {"what loss": what_loss, "where loss": where_loss}


def measured(seed: int, train_set: Digits, test_set: Digits, out: Path, device: torch.device) -> dict[str, Any]:
    """One what/where model: trained, its maps, its curves."""
    what, where, losses = trained_pathways(seed, train_set, out, device)
    accuracy = measured_map(what, Digits(*(part[:MAP_DIGITS] for part in test_set)), seed + 1, device)
    first = DISPLAY_SEEDS * seed
    blurs = {c: best_blur(what, train_set, c, first + BLUR_SEED, device) for c in CONTRASTS}
    curves = {
        name: {
            str(contrast): [
                searched(what, where, test_set, px, contrast, first + px, device, cautious, blurs[contrast])
                for px in tqdm(ECCENTRICITIES_PX, desc=f"seed {seed}, contrast {contrast}", leave=False)
            ]
            for contrast in CONTRASTS
        }
        for name, cautious in (("always", False), ("cautious", True))
    }
    return {
        "seed": seed,
        **losses,
        "accuracy map": accuracy.tolist(),
        "profile": profile(accuracy),
        "mean over the map": accuracy.mean().item(),
        "blur of the lightest spot (px)": {str(c): px for c, px in blurs.items()},
        "curves": curves,
        "scan": {str(c): scanned(what, where, test_set, c, first + SCAN_SEED, device) for c in CONTRASTS},
    }


def by_display(of_contrast: Mapping[str, Any]) -> dict[str, Any]:
    """The same, its keys no longer contrasts, "0.7", but the displays of it, "contrast 0.7"."""
    return {f"contrast {contrast}": values for contrast, values in of_contrast.items()}


def rows(result: Mapping[str, Any]) -> list[Row]:
    """The rows of one model, as `measured` gives it.

    The tables: "losses", by epoch (`step`, from 1); "accuracy map" (`x`, `y`) and its "profile", by pixels from the
    middle (`setting`); "blurs" of the lightest spot, in pixels; "curves", by displays (`set`), with a saccade "always"
    or only if it promises more (`variant`), pixels of the digit from the centre (`setting`) and saccades (`step`);
    "scan" and "seconds" a display, by `method`.
    """
    seed = result["seed"]
    losses = {name: dict(enumerate(result[f"{name} loss"], start=1)) for name in ("what", "where")}
    curves = {
        variant: {
            displays: dict(zip(ECCENTRICITIES_PX, metrics, strict=True))
            for displays, metrics in by_display(of_contrast).items()
        }
        for variant, of_contrast in result["curves"].items()
    }
    scans = by_display(result["scan"])
    seconds = {displays: ways["seconds a display"] for displays, ways in scans.items()}
    right = {
        displays: {way: share for way, share in ways.items() if way != "seconds a display"}
        for displays, ways in scans.items()
    }
    return [
        *long_table(losses, "method", "step", table="losses", metric="loss", seed=seed),
        *long_table(result["accuracy map"], "y", "x", table="accuracy map", metric="accuracy", seed=seed),
        *long_table(result["profile"], "setting", table="profile", metric="accuracy", seed=seed),
        *long_table(result["mean over the map"], table="profile", metric="mean over the map", seed=seed),
        *long_table(by_display(result["blur of the lightest spot (px)"]), "set", table="blurs", metric="px", seed=seed),
        *long_table(curves, "variant", "set", "setting", "metric", "step", table="curves", seed=seed),
        *long_table(right, "set", "method", table="scan", metric="accuracy", seed=seed),
        *long_table(seconds, "set", "method", table="seconds", metric="seconds a display", seed=seed),
    ]


def settings(train_set: Digits, test_set: Digits) -> dict[str, Any]:
    """On what the numbers depend."""
    return {
        "what": f"MNIST, {len(train_set.images):,} training and {len(test_set.images):,} test digits on noisy displays",
        "epochs": {"what": WHAT_EPOCHS, "where": WHERE_EPOCHS, "published what": 75, "published where": 60},
        "eccentricities (px)": list(ECCENTRICITIES_PX),
        "contrasts": list(CONTRASTS),
        "displays": TESTED,
    }


def record(out: Path, device: torch.device, seeds: Sequence[int] | None = None) -> Record:
    """The whole record: the model of every seed, of all three by default."""
    seeds = SEEDS if seeds is None else seeds
    train_set, test_set = mnist("train"), mnist("test")
    split = DataSplit(LabeledImages(*train_set[:2]), {"test": LabeledImages(*test_set[:2])}, (), "MNIST")
    about = header(
        NAME, run_environment(device), data={"mnist": data_hash(split)}, seeds=seeds,
        settings=settings(train_set, test_set), published=PUBLISHED,
    )  # fmt: skip
    return Record(about, [row for seed in seeds for row in rows(measured(seed, train_set, test_set, out, device))])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "The published what/where model on MNIST, three seeds.", record, arguments)
