"""Train one of the book's networks: `python -m helpers.experiments.train NAME`.

The checkpoint of every epoch, the curve, the weights and the record lie in the folder of --out, one folder a seed.
A run that was killed goes on with --resume and ends with the same weights as one that was not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.experiments.report import check_checkout, chosen_device, exit_status
from helpers.experiments.run_files import RunError, values_refused
from helpers.experiments.train import publish
from helpers.experiments.train.datasets import check_seed, load_split
from helpers.experiments.train.picture import picture
from helpers.experiments.train.recipes import RECIPES, Recipe
from helpers.experiments.train.run import CHECKPOINT, Machine, Run, run_folder
from helpers.networks import _store as store
from helpers.results import FOLDER, frame


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command_line = argparse.ArgumentParser(
        prog="python -m helpers.experiments.train",
        description="Train one of the book's networks, with checkpoints after every epoch.",
        epilog="networks:\n" + "\n".join(f"  {name:<16} {recipe.about}" for name, recipe in RECIPES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command_line.add_argument("name", metavar="NAME", choices=list(RECIPES), help="the network, see below")
    command_line.add_argument(
        "--data", metavar="DIR", type=Path, help="folder of the real data (default: $HELPERS_DATA)"
    )
    command_line.add_argument(
        "--classes", metavar="CLASS", nargs="+", help="of the photo networks: names (goldfish) or WordNet ids, or: all"
    )
    command_line.add_argument("--epochs", type=int, help="passes over the training images")
    command_line.add_argument("--images", metavar="N", type=int, help="at most N images of each set, to try things out")
    command_line.add_argument(
        "--seeds", metavar="SEED", type=int, nargs="+", help="one run a seed (default: the recipe's)"
    )
    command_line.add_argument("--device", help="cpu, cuda, mps ... (default: the best there is)")
    command_line.add_argument(
        "--bfloat16", action="store_true", help="forward passes of the training under bfloat16 autocast"
    )
    command_line.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("runs"), help="where the runs lie (default: runs)"
    )
    again = command_line.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    again.add_argument("--restart", action="store_true", help="throw the run that is there away")
    command_line.add_argument(
        "--publish", action="store_true", help="afterwards make the results those of the book (checkout)"
    )
    command_line.add_argument("--quiet", action="store_true", help="no progress bar, no line an epoch")
    return command_line


def chosen_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe of the command line: the named one, with what the options change.

    Raises:
        RunError: an option that makes no sense for this network.
    """
    recipe = RECIPES[options.name]
    changes: dict[str, Any] = {}
    if options.epochs is not None:
        if options.epochs < 1:
            raise RunError(f"--epochs must be at least 1, got {options.epochs}")
        changes["epochs"] = options.epochs
    if options.classes is not None:
        if recipe.world != "photos":
            raise RunError(f"--classes is for the photo networks; {recipe.name} learns all classes of its world")
        changes["classes"] = () if options.classes == ["all"] else tuple(options.classes)
    if options.seeds is not None:
        changes["seeds"] = tuple(options.seeds)
    if options.images is not None and options.images < recipe.batch:
        raise RunError(f"--images must be at least one batch ({recipe.batch}), got {options.images}")
    return replace(recipe, **changes)


def check_runs(recipe: Recipe, options: argparse.Namespace) -> None:
    """Refuse seeds that are given twice or that a recipe cannot have, and runs that would be overwritten.

    Raises:
        RunError: saying which.
    """
    if len(set(recipe.seeds)) < len(recipe.seeds):
        raise RunError(f"--seeds must differ, got {' '.join(map(str, recipe.seeds))}")
    for seed in recipe.seeds:
        with values_refused():
            check_seed(recipe, seed)
        folder = run_folder(options.out, recipe.name, seed)
        if (folder / CHECKPOINT).exists() and not options.restart and not options.resume:
            raise RunError(f"there is a run in {folder}: go on with --resume, or throw it away with --restart")


def new_or_resumed(recipe: Recipe, seed: int, machine: Machine, options: argparse.Namespace) -> Run:
    """The run of one seed, new or where its checkpoint left it.

    Raises:
        RunError: an unknown class, or a checkpoint that is damaged or of another run.
        DataMissing: the recipe's data is not there.
    """
    with values_refused():  # classes are known by their data alone
        split = load_split(recipe, seed, options.images)
    run = Run(recipe, split, seed, run_folder(options.out, recipe.name, seed), machine)
    if options.restart:
        run.discard()
    elif run.checkpoint.exists():  # --resume was given, see `check_runs`
        run.resume()
    return run


def execute(options: argparse.Namespace) -> None:
    """Train every seed that is not finished, then write the record.

    Raises:
        RunError: what cannot be done, with what to do instead.
        DataMissing: the recipe's data is not there.
    """
    recipe, machine = chosen_recipe(options), Machine(chosen_device(options.device), options.bfloat16)
    if options.publish:
        check_checkout()
        if recipe != RECIPES[options.name] or options.images is not None:
            raise RunError("--publish takes the recipe as it is: change it in recipes.py, then publish")
    check_runs(recipe, options)
    # All of them before the first is trained: a checkpoint that cannot be used is better known now than in an hour.
    runs = [new_or_resumed(recipe, seed, machine, options) for seed in recipe.seeds]
    for run in runs:
        run.train(progress=not options.quiet)
    home = options.out / recipe.name
    result = publish.measured_runs(recipe, runs, options.images)
    publish.write(recipe, runs, result, home, home / "results")
    table = frame(publish.record_rows(result))
    picture(recipe.name, table).savefig(home / "results" / f"{recipe.name}.png", dpi=100)
    print(f"weights, manifest, record and curves: {home}")
    if options.publish:
        publish.write(recipe, runs, result, store.FILES, FOLDER)
        print("published: they are the book's from now on")
    for entry in result["runs"]:
        print(f"seed {entry['seed']}: " + ", ".join(f"{name} {value:.2%}" for name, value in entry["accuracy"].items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, see `helpers.experiments.report.exit_status`."""
    options = parser().parse_args(arguments)

    def resume_hint() -> str:
        any_epoch = any((options.out / options.name).glob(f"seed-*/{CHECKPOINT}"))
        return "the last finished epoch is kept, --resume goes on from there" if any_epoch else "no epoch was finished"

    return exit_status(lambda: execute(options), options.data, resume_hint)
