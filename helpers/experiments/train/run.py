"""A run, the training of one recipe under one seed: deterministic, with checkpoints it goes on from."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import networks
from helpers.device import seed_everything
from helpers.experiments.environment import run_environment, tensors_hash
from helpers.experiments.run_files import RunError, damage_refused, divergence_refused, write_safely, write_state
from helpers.experiments.train.datasets import DataSplit, LabeledImages, augmented, data_hash, load_split, prepare
from helpers.experiments.train.recipes import RECIPES, Recipe
from helpers.retina import VIEWS
from helpers.training import fit_batches, predict, share_right, topk_correct

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.json"
TEST_BATCH = 500
WARM_UP = 0.25  # share of a cycle in which the learning rate rises
STREAMS = 1_000_003  # streams of random numbers a seed, one an epoch: more than any run has epochs, so none is shared
UNCOMPARED = ("name", "about")  # of a recipe: words that change no weight


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes.

    Attributes:
        device: of the network.
        bfloat16: forward passes of the training, not those of its tests, under bfloat16 autocast; pays on GPUs, and on
            CPUs that have instructions for it.
    """

    device: torch.device
    bfloat16: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """A context for the forward passes of the training."""
        # Not `enabled=False`: older versions of torch know no autocast for every device.
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()


def build(recipe: Recipe, classes: int) -> nn.Module:
    """The untrained network of a recipe, its convolutions' weights laid out channels last, which is faster."""
    network = getattr(networks, recipe.architecture)(classes=classes, **recipe.arguments)
    return network.to(memory_format=torch.channels_last)


def _optimiser(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "adam":
        return torch.optim.Adam(model.parameters(), **options)
    return torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **options)


def _schedule(recipe: Recipe, optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "decay":
        return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + recipe.lr_decay * step))
    steps = max(steps, 5)  # `OneCycleLR` fails below five; it sets the momentum too, see `Recipe.schedule`
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, total_steps=steps, pct_start=WARM_UP)


class Run:
    """One training of one recipe under one seed, in one folder.

    Args:
        recipe: what to make.
        split: the data.
        seed: of the weights, the order and the augmentation.
        folder: where the checkpoint and the history are; made if missing.
        machine: where it computes.
        initial: the weights that the training starts from, by name; drawn under the seed when None.

    Attributes:
        history: of the finished epochs, what each was like.
        environment: code, versions and machine of the last epochs; its key "before" holds those of the epochs before a
            resume with other code or elsewhere, which may have a "before" of their own.

    Raises:
        RunError: on use, a checkpoint that is damaged or belongs to another run.
    """

    def __init__(
        self,
        recipe: Recipe,
        split: DataSplit,
        seed: int,
        folder: Path,
        machine: Machine,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.recipe, self.split, self.seed, self.folder, self.machine = recipe, split, seed, folder, machine
        seed_everything(seed)  # for the weights alone: batches and crops have generators of their own
        if machine.device.type == "cuda":
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        self.model = build(recipe, len(split.classes)).to(machine.device)
        if initial is not None:
            self.model.load_state_dict(initial)
        self.optimiser = _optimiser(recipe, self.model)
        self.schedule = _schedule(recipe, self.optimiser, recipe.epochs * self._steps())
        self.history: list[dict[str, float]] = []
        # What must be the same for a checkpoint to be gone on with.
        self.identity = {
            "recipe": recipe.plain(),
            "seed": seed,
            "data": data_hash(split),
            "initial weights": None if initial is None else weights_hash(initial),
        }
        self.environment = run_environment(machine.device) | {"bfloat16": machine.bfloat16}

    @property
    def checkpoint(self) -> Path:
        """The file of the last finished epoch."""
        return self.folder / CHECKPOINT

    def resume(self) -> None:
        """Go back to the last finished epoch.

        Raises:
            RunError: a checkpoint that is damaged or belongs to another run; this one is then unusable.
        """
        with damage_refused(self.checkpoint, f"remove {self.folder} (in a training: --restart)"):
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.machine.device, weights_only=True)
        identity, before = json.loads(state["identity"]), json.loads(state["facts"])
        recipe = self.recipe.plain()
        differing = sorted(k for k in recipe if k not in UNCOMPARED and identity["recipe"].get(k) != recipe[k])
        # Checkpoints older than "initial weights" have none: of a training from drawn weights they can be gone on with.
        keys = ("seed", "data", "initial weights")
        differing += [key for key in keys if identity.get(key) != self.identity[key]]
        differing += ["bfloat16"] if before["bfloat16"] != self.machine.bfloat16 else []
        if differing:
            raise RunError(
                f"{self.checkpoint} was made with other settings ({', '.join(differing)}): "
                f"remove {self.folder} or give another --out (in a training: the same settings, or --restart)"
            )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.history = json.loads(state["history"])
        unchanged = {key: before.get(key) for key in self.environment} == self.environment
        if unchanged or len(self.history) == self.recipe.epochs:  # with its own "before"
            self.environment = before
        else:  # gone on with elsewhere, or with other code
            self.environment["before"] = before

    def discard(self) -> None:
        """Throw what an earlier run left in the folder away."""
        for name in (CHECKPOINT, HISTORY, Path(CHECKPOINT).with_suffix(".part").name):
            (self.folder / name).unlink(missing_ok=True)

    def save(self) -> None:
        """Write the checkpoint, then the history; at any moment each is whole, the old one or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "identity": json.dumps(self.identity),
            "history": json.dumps(self.history),
            "facts": json.dumps(self.environment),  # so called in the files on disk
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        write_state(self.checkpoint, state)
        write_safely(self.folder / HISTORY, json.dumps(self.history, indent=1).encode())

    def train(self, progress: bool = True) -> None:
        """Train the epochs that are left, with a checkpoint after each.

        Raises:
            RunError: the loss is no longer finite; the last checkpoint is kept.
        """
        recipe, images = self.recipe, self.split.train.images
        loss_sum, hits, start = 0.0, 0, time.perf_counter()

        def forward(x: Tensor) -> Tensor:
            with self.machine.autocast():
                return self.model(seen_by(recipe, x))

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)

        def count(logits: Tensor, labels: Tensor, value: float) -> None:
            nonlocal loss_sum, hits
            loss_sum += value * len(labels)
            hits += int(topk_correct(logits, labels).sum())

        def finish(_epoch: int, _losses: list[float]) -> None:
            nonlocal loss_sum, hits, start
            self._finish_epoch(loss_sum / len(images), hits / len(images), time.perf_counter() - start, progress)
            loss_sum, hits, start = 0.0, 0, time.perf_counter()

        with divergence_refused():
            fit_batches(
                self.model, self._batches, loss, self.optimiser, schedule=self.schedule, epochs=recipe.epochs,
                steps=self._steps(), first_epoch=len(self.history), forward=forward, on_step=count, on_epoch=finish,
                progress=progress, label=f"{recipe.name}, seed {self.seed}",
            )  # fmt: skip

    def _steps(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.split.train.images) / self.recipe.batch)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, on the run's device, as the network is to see them but for its view."""
        images, labels = self.split.train
        # A stream of its own for every epoch: going on after a kill needs no memory of earlier draws.
        draw = torch.Generator().manual_seed(self.seed * STREAMS + epoch)
        for rows in torch.randperm(len(images), generator=draw).split(self.recipe.batch):
            x = prepare(self.recipe, images[rows].to(self.machine.device))
            yield augmented(x, draw) if self.recipe.augment else x, labels[rows]

    def _finish_epoch(self, loss: float, train_accuracy: float, seconds: float, progress: bool) -> None:
        """Measure the network on the main test set, and keep the epoch: mean loss (nats), shares in [0, 1]."""
        name, test = self.split.main_test, self.split.tests[self.split.main_test]
        test_accuracy = share_right(self.logits(test), test.labels)
        epoch = len(self.history) + 1
        self.history.append(
            {"epoch": epoch, "loss": loss, "train": train_accuracy, "test": test_accuracy, "seconds": round(seconds, 2)}
        )
        self.save()
        if progress:
            line = f"loss {loss:.3f}, training {train_accuracy:.2%}, {name} {test_accuracy:.2%}, {seconds:.0f} s"
            with tqdm.external_write_mode():
                print(f"epoch {epoch}/{self.recipe.epochs}: {line}", flush=True)

    def logits(self, test: LabeledImages) -> Tensor:
        """Logits (N, K) of a test set, on the CPU."""
        return recipe_logits(self.recipe, self.model, test.images)


def run_to_end(
    recipe: Recipe, seed: int, folder: Path, device: torch.device, initial: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """The trained network of a run, which goes on from its last checkpoint where it has one; in evaluation mode.

    Args:
        recipe: what to make.
        seed: of the run.
        folder: of the run.
        device: where it is trained.
        initial: the weights that the training starts from, by name; drawn under the seed when None.

    Raises:
        RunError: a checkpoint that is damaged or of another run, or a loss that is no longer finite.
        DataMissing: the recipe's data is not there.
    """
    run = Run(recipe, load_split(recipe, seed), seed, folder, Machine(device), initial)
    if run.checkpoint.exists():
        run.resume()
    run.train(progress=False)
    return run.model.eval()


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Where the run of one seed lies."""
    return out / name / f"seed-{seed}"


def trained(name: str, seed: int, out: Path, device: torch.device) -> nn.Module:
    """A network of the book, trained under a seed.

    Args:
        name: of its recipe.
        seed: of the run.
        out: folder of the runs, which go on from their last checkpoints.
        device: where it is trained.

    Raises:
        RunError: a checkpoint that is damaged or of another run, or a loss that is no longer finite.
        DataMissing: the recipe's data is not there.
    """
    return run_to_end(RECIPES[name], seed, run_folder(out, name, seed), device)


def shipped_or_trained(name: str, seed: int, out: Path, device: torch.device) -> nn.Module:
    """The shipped network of the book where the seed is that of its training, else one that is `trained`; with a card.

    The card of one that is not shipped is the shipped one's, but for what is not known of it: its accuracy is NaN, and
    the sha256 of its file is empty. Arguments and errors are those of `trained`; a shipped network may also be damaged
    (WeightsError).
    """
    if is_shipped(name, seed):
        return networks.load(name, device)
    model = trained(name, seed, out, device)
    card = replace(networks.card(name), accuracy=math.nan, sha256="")
    model.card = card  # ty: ignore[invalid-assignment] -- a module keeps any attribute
    return model


def is_shipped(name: str, seed: int) -> bool:
    """Whether the book's network of a name was trained under this seed."""
    return seed == RECIPES[name].seeds[0]


def weights_file_hash(name: str, seed: int, out: Path) -> str:
    """sha256 of the file that `shipped_or_trained` takes a network's weights from; empty where it is yet to be made."""
    if is_shipped(name, seed):
        return networks.card(name).sha256
    checkpoint = run_folder(out, name, seed) / CHECKPOINT
    return hashlib.sha256(checkpoint.read_bytes()).hexdigest() if checkpoint.exists() else ""


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """sha256 over the bytes of weights, in the order of their names."""
    return tensors_hash(weights[name] for name in sorted(weights))


def seen_by(recipe: Recipe, x: Tensor) -> Tensor:
    """What a recipe's network sees of prepared images (B, C, H, W): its view, laid out channels last."""
    return VIEWS[recipe.view](x).contiguous(memory_format=torch.channels_last)


def recipe_logits(recipe: Recipe, model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, K) of images (N, C, H, W) as a recipe's network sees them, in evaluation mode, on the CPU."""
    return predict(model, images, batch_size=TEST_BATCH, prepare=lambda batch: seen_by(recipe, prepare(recipe, batch)))
