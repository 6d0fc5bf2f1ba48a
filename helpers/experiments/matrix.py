"""Every method on twenty architectures: `python -m helpers.experiments.matrix`, on a CPU in minutes, without any data.

Each of `helpers.compare.METHODS` is called on each network, for a batch of two images with a class each, at its own
default layer, in double precision. Its answer must be one of two: the maps of an independent computation
(`helpers.experiments.matrix_oracles`), or a ValueError whose sentence says what to do instead, and that, tried, works.
Any third answer ends the command with exit status 1, and is named.

The networks are torchvision's, with weights drawn at random: what starts as a constant (biases, scales, the last layer
of a ViT) is moved, and batch normalisation takes its statistics from a few images, so that nothing is right for being
zero.

One thread computes it: with random weights the slopes of efficientnet_v2_s are of 10^12, and such numbers tell in which
order several threads add up (they differ by 1 part in 10^4, those of one thread by 1 in 10^16).

The record's tables:

- "right": the relative error, the largest difference from the reference in shares of the reference's largest value.
- "refused": how many layers the sentence names, each of which was tried. The sentences stand in the header, under
  "sentences": network -> method -> sentence.
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.compare import METHODS, explain
from helpers.device import widest_float
from helpers.experiments.environment import code_hash, run_environment, tensors_hash
from helpers.experiments.matrix_oracles import (
    CELLS,
    CHANNELS,
    CLASSES,
    MASKS,
    NETWORKS,
    ORACLES,
    SAMPLES,
    STEPS,
    Network,
)
from helpers.experiments.report import Record, cached_part, header, run_record
from helpers.experiments.run_files import RunError
from helpers.results import long_table

NAME = "matrix"
SEED, IMAGES = 0, 2
STATISTICS = 8  # images from which batch normalisation takes its means and variances
MOVED = 0.1  # standard deviation of what is added to constants
TOLERANCE = 1e-8  # relative, of double precision
OPTIONS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": STEPS},
    "smooth_gradient": {"samples": SAMPLES},
    "rise": {"masks": MASKS, "cells": CELLS},
    "score_cam": {"channels": CHANNELS},
}
QUOTED = re.compile("'([^']+)'")  # names of layers in a sentence


class Answer(NamedTuple):
    """What a method answers to a network.

    Attributes:
        kind: "right", "refused", or "wrong", the third answer.
        value: the relative error, or how many layers the sentence names.
        said: the sentence, or what is wrong.
    """

    kind: str
    value: float
    said: str = ""


def drawn_images(network: Network, count: int, seed: int) -> Tensor:
    """Images of a network's size, (count, 3, H, W): noise."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *network.size, generator=draw, dtype=torch.float64)


@torch.no_grad()
def drawn_network(network: Network) -> nn.Module:
    """A network in evaluation mode and double precision; see the module for its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = network.make().double().eval()
        for parameter in model.parameters():
            if (parameter == parameter.flatten()[0]).all():
                parameter += MOVED * torch.randn_like(parameter)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.train().momentum = None  # the statistics are those of all images so far
    if norms:
        model(drawn_images(network, STATISTICS, SEED + 1))
    return model.eval()


def answer(model: nn.Module, twin: nn.Module, network: Network, method: str, x: Tensor, target: Tensor) -> Answer:
    """What a method answers.

    Args:
        model: the network.
        twin: a copy of it, its parameters frozen, for the reference.
        network: what is known of it.
        method: a name in `METHODS`.
        x: images, (B, C, H, W).
        target: (B,) classes.
    """
    sentence = ""
    try:
        maps = explain(model, x, method, target, **OPTIONS.get(method, {}))
    except ValueError as error:
        maps, sentence = None, str(error)
    except Exception as error:  # whatever it is, it is a third answer
        return Answer("wrong", float("nan"), f"raises {type(error).__name__}: {error}")
    reference = ORACLES[method](twin, network, x, target.tolist())
    if maps is None:
        return refusal(model, method, x, target, sentence, reference)
    if reference is None:
        return Answer("wrong", float("nan"), "gives maps, although the method is not defined for this network")
    if not reference.any():
        return Answer("wrong", float("nan"), "is compared with zeros, which proves nothing: choose another SEED")
    if maps.shape != reference.shape:
        return Answer("wrong", float("nan"), f"gives {tuple(maps.shape)} instead of {tuple(reference.shape)}")
    error = relative_error(maps, reference)
    return Answer("right", error) if error <= TOLERANCE else Answer("wrong", error, f"is off by {error:.1e}")


def relative_error(maps: Tensor, reference: Tensor) -> float:
    """The largest difference of an image's map, in shares of its reference's largest value.

    A reference of zeros must be met exactly; else, as for NaN, the error is infinite.
    """
    off, size = (values.flatten(1).abs().amax(1) for values in (maps - reference, reference))
    error = torch.where((off == 0) & (size == 0), 0.0, off / size)
    return error.where(~error.isnan(), float("inf")).max().item()


def refusal(
    model: nn.Module, method: str, x: Tensor, target: Tensor, sentence: str, reference: Tensor | None
) -> Answer:
    """A refusal, if nothing can be computed and the sentence says what can: the layers that it names are tried."""
    if reference is not None:
        return Answer("wrong", float("nan"), f"refuses what can be computed: {sentence}")
    names = QUOTED.findall(sentence)
    if not names:
        return Answer("wrong", float("nan"), f"does not say what to do: {sentence}")
    own = METHODS[method].layer is not None  # another layer helps the method itself, or Grad-CAM
    try:
        tries = [("attention_map", names)] if own else [("grad_cam", name) for name in names]
        maps = [explain(model, x, other, target, layer) for other, layer in tries]
    except Exception as error:  # advice that fails is none
        return Answer("wrong", float("nan"), f"says what does not work ({error}): {sentence}")
    if not all(map.shape == (len(x), *x.shape[2:]) and map.isfinite().all() for map in maps):
        return Answer("wrong", float("nan"), f"says what gives no maps: {sentence}")
    return Answer("refused", len(names), sentence)


def answers(network: Network, device: torch.device) -> dict[str, Answer]:
    """The answers of all methods to a network."""
    model = drawn_network(network).to(device)
    twin = copy.deepcopy(model).requires_grad_(False)
    x = drawn_images(network, IMAGES, SEED).to(device)
    with torch.no_grad():
        ranks = twin(x).argsort(1, descending=True)
    target = ranks.diagonal()  # the first image's top class, the second one's second
    return {method: answer(model, twin, network, method, x, target) for method in METHODS}


def record(out: Path, device: torch.device) -> Record:
    """The whole matrix.

    Raises:
        RunError: a device without double precision, or a third answer.
    """
    if widest_float(device) != torch.float64:
        raise RunError(f"--device must know double precision, as cpu and cuda do, got {device}")
    environment = run_environment(device)
    environment_now = {**environment, "torchvision": torchvision.__version__, "code": code_hash()}
    matrix: dict[str, dict[str, Answer]] = {}
    for network in tqdm(NETWORKS, desc="networks", leave=False):

        def part(network: Network = network) -> dict[str, Any]:  # a default: the network of now, not of the loop's end
            return {method: list(answer) for method, answer in answers(network, device).items()}

        cached = cached_part(out / f"{network.name}.json", part, lambda: environment_now)
        matrix[network.name] = {method: Answer(*fields) for method, fields in cached.items()}
    check_answers(matrix)
    about = header(
        NAME,
        environment,
        data={"images": tensors_hash(drawn_images(network, IMAGES, SEED) for network in NETWORKS)},
        seeds=(SEED,),
        settings={
            "images": IMAGES,
            "classes": CLASSES,
            "sizes": {network.name: network.size for network in NETWORKS},
            "options": OPTIONS,
            "tolerance": TOLERANCE,
            "maxvit_t": "with partitions of 2 x 2 places instead of 7 x 7, which take images of 224 pixels",
        },
    )
    about["versions"]["torchvision"] = torchvision.__version__
    about["sentences"] = said(matrix)
    return Record(about, rows(matrix))


def check_answers(matrix: dict[str, dict[str, Answer]]) -> None:
    """Refuse a matrix with a third answer.

    Raises:
        RunError: it names them all.
    """
    every = [(name, method, answer) for name, row in matrix.items() for method, answer in row.items()]
    wrong = [f"{name}: {method} {answer.said}" for name, method, answer in every if answer.kind == "wrong"]
    if wrong:
        raise RunError(f"{len(wrong)} of {len(every)} answers are neither right nor refused:\n" + "\n".join(wrong))


def said(matrix: dict[str, dict[str, Answer]]) -> dict[str, dict[str, str]]:
    """The sentences: network -> method -> sentence."""
    sentences = {
        name: {method: answer.said for method, answer in row.items() if answer.kind == "refused"}
        for name, row in matrix.items()
    }
    return {name: row for name, row in sentences.items() if row}


def rows(matrix: dict[str, dict[str, Answer]]) -> list[dict[str, Any]]:
    """The rows of the tables "right" and "refused"; errors with two digits, of which the second is already chance."""
    tables = []
    for table, metric in (("right", "relative error"), ("refused", "layers named")):
        values = {
            name: {method: float(f"{answer.value:.1e}") for method, answer in row.items() if answer.kind == table}
            for name, row in matrix.items()
        }
        tables += long_table(values, "network", "method", table=table, metric=metric)
    return tables


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    torch.set_num_threads(1)
    return run_record(
        NAME, "Every method on twenty architectures: right, or refused with a way out.", record, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
