"""How well boxes from maps fit: `python -m helpers.experiments.localization`, on Tiny ImageNet's validation images.

Every map is turned into boxes at many thresholds. Images with an even number choose a threshold, those with an odd
number tell its score. To compare mapping resolutions, photos-gap is first trained on for a few epochs as it is and in
two other shapes, in runs that go on where they were stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import networks
from helpers.cam import largest_component_box, localization_error, pooling_head, upsample, weighted_maps
from helpers.capture import in_batches, logits
from helpers.data import Photos, scenes, tiny_imagenet
from helpers.experiments.environment import run_environment
from helpers.experiments.report import run_record
from helpers.experiments.train.command import run_folder
from helpers.experiments.train.datasets import TEST_SEED, data_hash, held_out, prepare, world
from helpers.experiments.train.recipes import RECIPES
from helpers.experiments.train.trainer import Machine, Run
from helpers.metrics import blurred_map, box_iou, box_mask
from helpers.networks import normalize
from helpers.saliency import class_saliency, saliency_box

NAME = "localization"
COMMAND = f"python -m helpers.experiments.{NAME} --publish"
SIDE = 64  # pixels
THRESHOLDS = tuple(step / 20 for step in range(20))  # shares of a map's maximum
SIZES = tuple(step / 20 for step in range(1, 21))  # side of a centred box, in sides of the image
CELL = 8  # pixels of a place of the last maps
SMALL = 0.25  # share of the image below which an object counts as small
NETWORKS = ("photos-gap", "photos-gmp", "photos-200")
SCENES = 1000
EPOCHS, RATE, SEED = 2, 0.01, 1  # of photos-gap's further training
SHAPES: dict[str, dict[str, Any]] = {
    "trained on as it is": {},
    "trained on without the last pooling": {"stages": ((24,), (48,), (96, 192, 192))},
    "trained on à trous": {"atrous": 1},
}
# Error in percent, top-1 and top-5, on ILSVRC's validation images: Zhou et al. 2016, table 2.
PUBLISHED = {
    "GoogLeNet-GAP": (56.40, 43.00),
    "VGG-GAP": (57.20, 45.14),
    "GoogLeNet-GMP": (57.78, 45.26),
    "GoogLeNet, 7 x 7": (60.09, 49.34),
    "AlexNet-GAP": (67.19, 52.16),
    "gradient of GoogLeNet": (61.31, 50.55),
}
Maps = Callable[[nn.Module, Tensor, Tensor], Tensor]  # network, images, their classes -> (N, SIDE, SIDE)


# What is made of a class's weights w_k^c before they weigh the maps, (N, C) -> (N, C).
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax of the weights": lambda w: w.softmax(1),
    "positive weights alone": lambda w: w.clamp(min=0),
    "all weights one": torch.ones_like,
    "positive weights at random": lambda w: random_weights(w.shape[1]).to(w).expand_as(w),
}


def random_weights(units: int) -> Tensor:
    """Even random numbers in [0, 1), the same for every class and every call, (units,)."""
    return torch.rand(units, generator=torch.Generator().manual_seed(0))


def class_maps(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    change: Callable[[Tensor], Tensor] = lambda w: w,
    times: int = 1,
) -> Tensor:
    """The maps of classes (N,) in images (N, C, H, W), as large as those; of a network with GAP or GMP.

    Args:
        model: the network.
        x: images as it expects them.
        labels: classes.
        change: of the weights.
        times: the network is shown each image so many times as large.
    """
    large = F.interpolate(x, scale_factor=times, mode="bilinear", align_corners=False) if times > 1 else x
    head = pooling_head(model, large)
    maps = weighted_maps(head.maps, change(head.weight[labels])[:, None])[:, 0]
    return upsample(maps, tuple(x.shape[2:]), offset=getattr(model, "offset", 0.0) if times == 1 else 0.0)


def blurred_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The absolute gradient averaged over squares of 8 x 8 pixels, as coarse as the maps, (N, H, W)."""
    return upsample(F.avg_pool2d(class_saliency(model, x, labels)[:, None], CELL)[:, 0], tuple(x.shape[2:]))


def downsampled_truth(truth: Tensor) -> Tensor:
    """The true boxes (N, 4) at the resolution of the maps, stretched as these are: what 8 x 8 places can say."""
    inside = box_mask(truth, (SIDE, SIDE)).float()
    return upsample(F.avg_pool2d(inside[:, None], CELL)[:, 0], (SIDE, SIDE))


def scores(boxes: Sequence[Tensor], axis: Sequence[float], truth: Tensor, named: Tensor) -> dict[str, Any]:
    """Errors along an axis of settings, and at the setting that one half of the images chooses.

    Args:
        boxes: (N, 4) for each setting.
        axis: the settings.
        truth: (N, 4).
        named: (2, N) bool, whether the class is the best answer, or among the five best.
    """
    even, odd = (torch.arange(len(truth)) % 2 == half for half in (0, 1))
    choose = [localization_error(one[even], truth[even], *named[:, even]).known for one in boxes]
    told = [localization_error(one[odd], truth[odd], *named[:, odd]) for one in boxes]
    small = odd & ((truth[:, 2:] - truth[:, :2]).prod(1) < SMALL * SIDE**2)
    off = [localization_error(one[small], truth[small], *named[:, small]).known for one in boxes]
    areas = [((one[:, 2:] - one[:, :2]).prod(1).nan_to_num(0) / SIDE**2)[odd].mean().item() for one in boxes]
    overlap = [box_iou(one, truth).nan_to_num(0)[odd].mean().item() for one in boxes]
    best = min(range(len(axis)), key=lambda i: choose[i])
    rows = {"known": [e.known for e in told], "top1": [e.top1 for e in told], "top5": [e.top5 for e in told]}
    return {"axis": list(axis), **rows, "small": off, "iou": overlap, "area": areas, "chosen": best}


def by_threshold(maps: Tensor, truth: Tensor, named: Tensor) -> dict[str, Any]:
    """`scores` of maps (N, H, W) along the thresholds."""
    return scores([largest_component_box(maps, t) for t in THRESHOLDS], THRESHOLDS, truth, named)


def centred(count: int, size: float) -> Tensor:
    """The same centred box for every image, (N, 4)."""
    low, high = SIDE * (1 - size) / 2, SIDE * (1 + size) / 2
    return torch.tensor([low, low, high, high]).expand(count, 4)


def topk_correct(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Whether the class is the best answer, and whether it is among the five best: (2, N) bool, on the CPU."""
    right = in_batches(logits, model, x).topk(5, 1).indices.cpu() == labels[:, None]  # (N, 5)
    return torch.stack([right[:, 0], right.any(1)])


def measured(model: nn.Module, x: Tensor, found: Photos, methods: Mapping[str, Maps]) -> dict[str, Any]:
    """Classification and localisation errors of one network, on the images with odd numbers.

    Args:
        model: the network.
        x: images as it expects them, (N, 3, 64, 64).
        found: their labels and boxes.
        methods: maps by name.
    """
    named = topk_correct(model, x, found.labels)
    odd = torch.arange(len(x)) % 2 == 1
    rows = {
        name: by_threshold(in_batches(method, model, x, found.labels).cpu(), found.boxes, named)
        for name, method in tqdm(methods.items(), desc="maps", leave=False)
    }
    wrong = 1 - named[:, odd].double().mean(1)
    return {
        "images": int(odd.sum()),
        "classification": dict(zip(("top1", "top5"), wrong.tolist(), strict=True)),
        "maps": rows,
    }


def baselines(x: Tensor, found: Photos, named: Tensor) -> dict[str, Any]:
    """Boxes that know nothing of the network: a centred one, one from the image's contrast, the true one told coarsely.

    Args:
        x: images, (N, 3, 64, 64).
        found: their labels and boxes.
        named: (2, N) bool, as `topk_correct` gives it.
    """
    boxes = [centred(len(x), size) for size in SIZES]
    return {
        "centred box": scores(boxes, SIZES, found.boxes, named),
        "contrast": by_threshold(in_batches(lambda _, x: blurred_map(x), None, x).cpu(), found.boxes, named),
        "true box, 8 x 8": by_threshold(downsampled_truth(found.boxes), found.boxes, named),
    }


def gradient_boxes(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Chapter 2's boxes from the absolute gradient and the colours, (N, 4)."""
    return saliency_box(class_saliency(model, x, labels), x)


def less_mean(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Takes from each unit's weights their mean over the classes: other maps, the very same probabilities."""
    return lambda w: w - model.fc.weight.detach().mean(0)


def trained_on(changes: Mapping[str, Any], folder: Path, device: torch.device) -> nn.Module:
    """photos-gap, given another shape and trained for some more epochs.

    Args:
        changes: of its architecture.
        folder: of the run, which goes on from its last checkpoint.
        device: where it is trained.

    Raises:
        RunError: a checkpoint that is damaged or of another run.
    """
    usual = RECIPES["photos-gap"]
    recipe = replace(usual, arguments={**usual.arguments, **changes}, epochs=EPOCHS, lr=RATE)
    run = Run(recipe, world(recipe, SEED), SEED, folder, Machine(device))
    run.model.load_state_dict(networks.load("photos-gap", device).state_dict())
    if run.checkpoint.exists():
        run.resume()
    run.train()
    return run.model.eval()


def on_scenes(out: Path, device: torch.device) -> dict[str, Any]:
    """GAP against GMP on drawn scenes, three trainings of each."""
    test, rows = scenes(SCENES, TEST_SEED + 1), {}
    found = Photos(test.images, test.labels[:, 0], test.boxes[:, 0], (), ())
    methods = {"CAM": class_maps, "CAM, all weights one": partial(class_maps, change=torch.ones_like)}
    for name in ("scenes-gap", "scenes-gmp"):
        recipe = RECIPES[name]
        x = normalize(test.images, name).to(device)
        for seed in recipe.seeds:
            run = Run(recipe, world(recipe, seed), seed, run_folder(out, name, seed), Machine(device))
            if run.checkpoint.exists():
                run.resume()
            run.train()
            rows[f"{name}, seed {seed}"] = measured(run.model.eval(), x, found, methods)
    return rows


def record(out: Path, device: torch.device) -> dict[str, Any]:
    """Everything that is measured, as `book/results` keeps it."""
    result: dict[str, Any] = {
        "name": NAME,
        "command": COMMAND,
        "facts": run_environment(device),
        "side": SIDE,
        "networks": {},
    }
    result |= {"published": {key: list(pair) for key, pair in PUBLISHED.items()}, "data": {}}
    result["scenes"] = on_scenes(out, device)
    plain = {"CAM": class_maps}
    for name in NETWORKS:
        recipe = RECIPES[name]
        found = tiny_imagenet("val", recipe.classes or None)
        x, model = prepare(recipe, found.images).to(device), networks.load(name, device)
        more = {f"CAM, {key}": partial(class_maps, change=change) for key, change in WEIGHTS.items()}
        more["CAM, weights less their mean over the classes"] = partial(class_maps, change=less_mean(model))
        more["CAM, image twice as large"] = partial(class_maps, times=2)
        more["gradient, 8 x 8"] = blurred_gradient
        row = measured(model, x, found, {**plain, **more})
        row["à trous, the same weights"] = measured(networks.rebuilt(model, atrous=1), x, found, plain)
        named = topk_correct(model, x, found.labels)
        row["baselines"] = baselines(x, found, named)
        boxes = in_batches(gradient_boxes, model, x, found.labels).cpu()
        row["baselines"]["gradient and colours"] = scores([boxes], [0.95], found.boxes, named)
        result["networks"][name] = row
        result["data"][name] = data_hash(held_out(recipe))
        if name == "photos-gap":
            result["resolution"] = {
                shape: measured(trained_on(changes, out / f"shape-{i}", device), x, found, plain)
                for i, (shape, changes) in enumerate(SHAPES.items())
            }
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    return run_record(NAME, __doc__.split("\n")[0], record, arguments)


if __name__ == "__main__":
    sys.exit(main())
