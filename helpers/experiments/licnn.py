"""LICNN at full scale: `python -m helpers.experiments.licnn`, on scenes and on Tiny ImageNet's validation images.

The record's tables:

- "maps": how well the maps of every variant of LICNN's rule, of other methods and of baselines fit known objects, on
  five networks (set "one object"); and how often the map of a class is brighter on its own object than on the other
  (set "two objects", metric "own"). "maps_lead": each map's score less that of LICNN's map, in pairs, image by image.
- "agreement": how often LICNN's rule and plainer ones keep the same places; "area": of the objects, in shares of the
  image.
- "sanity": how similar a method's maps stay to those of the network as trained when layers of it are random; a step is
  a layer, a variant the order of the layers and how they are drawn anew. "floors": how similar maps are that have
  nothing in common: a map and its own pixels permuted, the image's edges, the map of another image.
- "labels": the data randomisation test. A step is a pair of trainings, whose maps are compared: both with true labels
  (variant "true"), or the second with permuted ones ("permuted").
- "unseen", "unseen_lead": scenes of one object, by whether the network was trained on its shape (a variant), and the
  lead over "trained". "unseen_two": scenes of two objects, one of a shape that the network was trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import networks
from helpers.capture import in_batches, layer_names, logits
from helpers.compare import attribution_methods, compare_attention, two_object_methods, two_object_test
from helpers.data import CLASSES, mnist, scenes, two_object_scenes
from helpers.experiments.environment import run_environment
from helpers.experiments.objects import ObjectImages, drawn_scenes, photographs
from helpers.experiments.report import Record, header, run_record, summary
from helpers.experiments.train.datasets import data_hash, evenly_spaced, held_out
from helpers.experiments.train.recipes import RECIPES
from helpers.experiments.train.run import trained
from helpers.licnn import VARIANTS, attention_map, rule_agreement, saliency_map
from helpers.metrics import map_similarity, mass_in_mask, pointing_game
from helpers.results import long_table
from helpers.results._format import Row, frame
from helpers.sanity import sanity_check

NAME = "licnn"
SEED = 301  # of scenes that no network was trained, tested or tuned on
IMAGES, CHECKED = 300, 40  # images of the comparison, and of each sanity check
BATCH = 50  # images a pass
SCENE_NETWORKS, PHOTO_NETWORKS = ("scenes-gap", "scenes-gmp"), ("photos-gap", "photos-gmp", "photos-200")
SEEDS = (0, 1, 2)  # of random weights, and of trainings
PAIRS = {  # seeds of two trainings whose maps are compared; never one seed, whose initial weights would be the same
    "true": [(a, b) for a in SEEDS for b in SEEDS if a < b],
    "permuted": [(a, b) for a in SEEDS for b in SEEDS if a != b],
}
SMALL = 0.5  # share of the image below which a box tells where an object is
HALVES = ("scenes-first", "scenes-last")  # networks that know the first and the last half of the shapes
HALF = len(CLASSES) // 2  # shapes that each of them knows
BESIDE = "scenes-beside"  # knows the first half, and saw the other beside it all the time
METRICS = ("spearman", "spearman_abs", "ssim", "hog")


def images_of(name: str, count: int, device: torch.device) -> ObjectImages:
    """Images that a network knows the classes of, with objects that do not fill them.

    Raises:
        DataMissing: a network of photographs, and Tiny ImageNet is not there.
    """
    if name in SCENE_NETWORKS:
        return drawn_scenes(name, count, SEED, device)
    photos = photographs(name, device)
    small = (photos.masks.float().mean((1, 2)) < SMALL).nonzero()[:, 0].cpu()
    rows = small[evenly_spaced(len(small), count)]
    return ObjectImages(*(part[rows.to(device)] for part in photos))


def last_maps(model: nn.Module) -> str:
    """The name of a network's last ReLU before its first linear layer: its last feature maps."""
    names = layer_names(model, (nn.ReLU, nn.Linear))
    linear = (i for i, name in enumerate(names) if isinstance(model.get_submodule(name), nn.Linear))
    return names[next(linear, len(names)) - 1]


def score_rows(scores: Mapping[str, Mapping[str, Tensor]], table: str, dimension: str, **constants: Any) -> list[Row]:
    """Rows of scores: their means, and in a second table their lead over the first row's, in pairs, image by image.

    Args:
        scores: name -> metric -> (N,); NaN where an image has none.
        table: name of the table of means; that of the leads ends in "_lead".
        dimension: the column of the names.
        constants: columns that are the same in all rows.
    """
    first = next(iter(scores.values()))
    means = {name: {metric: summary(values) for metric, values in row.items()} for name, row in scores.items()}
    leads = {
        name: {metric: summary(values - first[metric]) for metric, values in row.items()}
        for name, row in scores.items()
    }
    return [
        *long_table(means, dimension, "metric", table=table, **constants),
        *long_table(leads, dimension, "metric", table=f"{table}_lead", **constants),
    ]


def rule_rows(name: str, device: torch.device) -> list[Row]:
    """What each part of LICNN's rule adds on one network: "area", "agreement", "maps" and "maps_lead"."""
    model = networks.load(name, device)
    layer = last_maps(model)
    x, labels, masks = images_of(name, IMAGES, device)
    scores = compare_attention(model, x, labels, masks, layer=layer)
    rows = [
        *long_table(masks.float().mean().item(), table="area", network=name, n=len(x)),
        *long_table(rule_agreement(model, x, labels), "layer", "metric", table="agreement", network=name),
        *score_rows(scores, "maps", "method", network=name, set="one object"),
    ]
    if name in SCENE_NETWORKS:
        two = two_object_scenes(IMAGES, SEED)
        x = networks.normalize(two.images, model).to(device)
        labels, masks = two.labels.to(device), two.masks.to(device)
        variants = {key: partial(attention_map, **options) for key, options in VARIANTS.items()}
        methods = {**variants, **two_object_methods(model, layer=layer)}
        own = {
            key: {"own": two_object_test(model, x, labels, masks, method).mean(1)} for key, method in methods.items()
        }
        rows += score_rows(own, "maps", "method", network=name, set="two objects")
    return rows


def sanity_rows(name: str, device: torch.device) -> list[Row]:
    """The sanity checks of one network, "sanity" and "floors": every method, both orders, both ways of forgetting."""
    model = networks.load(name, device)
    if name == "lenet-mnist":
        test = mnist("test")
        rows = evenly_spaced(len(test.images), CHECKED)
        x, labels = test.images[rows].to(device), test.labels[rows].to(device)
    else:
        x, labels, _ = images_of(name, CHECKED, device)
    runs = [("cascading", "initial", seed) for seed in SEEDS]
    runs += [("independent", "initial", 0), ("cascading", "shuffled", 0)]
    table: list[Row] = []
    floors: dict[str, Any] = {}  # of the last run; the seed moves only those of permuted places, and hardly
    for order, redraw, seed in tqdm(runs, desc=name):
        for method, maps in attribution_methods(layer=last_maps(model)).items():
            check = sanity_check(maps, model, x, labels, order=order, redraw=redraw, seed=seed)
            floors[method] = {
                floor: {metric: summary(values) for metric, values in part.items()}
                for floor, part in check.baselines.items()
            }
            similarity = {metric: [summary(step) for step in check.similarity[metric]] for metric in METRICS}
            where = {"network": name, "seed": seed, "variant": f"{order}, {redraw}", "method": method}
            table += [
                row | {"layer": check.layers[row["step"]]}
                for row in long_table(similarity, "metric", "step", table="sanity", **where)
            ]
    return table + long_table(floors, "method", "set", "metric", table="floors", network=name)


def label_rows(out: Path, device: torch.device) -> list[Row]:
    """The data randomisation test, "labels": do maps tell whether a network learned true labels or permuted ones?

    scenes-few learned 512 scenes, scenes-permuted as many whose labels were permuted. The two networks of a pair (a
    step, see `PAIRS`) have other initial weights and other scenes; "true" against "true" tells how far maps differ for
    that alone. Values are means over the images.
    """
    models = {
        "true": {seed: trained("scenes-few", seed, out, device) for seed in SEEDS},
        "permuted": {seed: trained("scenes-permuted", seed, out, device) for seed in SEEDS},
    }
    x, labels, _ = drawn_scenes("scenes-gap", CHECKED, SEED, device)
    table: list[Row] = []
    for name, method in attribution_methods(layer=last_maps(models["true"][SEEDS[0]])).items():
        maps = {kind: {seed: method(model, x, labels) for seed, model in part.items()} for kind, part in models.items()}
        for kind, pairs in PAIRS.items():
            similar = [map_similarity(maps["true"][a], maps[kind][b]) for a, b in pairs]
            means = {metric: [summary(pair[metric])["mean"] for pair in similar] for metric in METRICS}
            table += long_table(means, "metric", "step", table="labels", variant=kind, method=name)
    return table


def unseen_rows(out: Path, device: torch.device) -> list[Row]:
    """Networks of four shapes each: how salient is the same object to the one that knows it and to the other?

    Beside them, networks that saw the other four shapes all the time, next to the ones that they had to name. Tables:
    "unseen", "unseen_lead", "unseen_two".
    """
    single, two = scenes(IMAGES, SEED), two_object_scenes(2 * IMAGES, SEED)
    half, halves = single.labels[:, 0] // HALF, two.labels // HALF  # 0 and 1: which network knows the shape
    mixed = halves[:, 0] != halves[:, 1]  # one object of each half
    images, masks, halves = two.images[mixed], two.masks[mixed], halves[mixed]
    rows: list[Row] = []
    for seed in SEEDS:
        maps = []
        for part, name in enumerate(HALVES):
            model = trained(name, seed, out, device)
            maps.append(answer_maps(model, name, single.images, device))
            dense = density(model, name, images, masks, halves == part, device)
            rows += long_table(dense, "metric", table="unseen_two", network=name, seed=seed, n=len(images))
        by_half = [torch.where((half == part)[:, None, None], maps[0], maps[1]) for part in (0, 1)]
        scores = {
            key: {"mass": mass_in_mask(shown, single.masks[:, 0]), "pointing": pointing_game(shown, single.masks[:, 0])}
            for key, shown in zip(("trained", "not trained"), by_half, strict=True)
        }
        rows += score_rows(scores, "unseen", "variant", seed=seed)
    for seed in RECIPES[BESIDE].seeds:
        dense = density(trained(BESIDE, seed, out, device), BESIDE, images, masks, halves == 0, device)
        rows += long_table(dense, "metric", table="unseen_two", network=BESIDE, seed=seed, n=len(images))
    return rows


def as_trained(name: str, images: Tensor, device: torch.device) -> Tensor:
    """Images (B, C, H, W) in [0, 1] as a network saw them in its training: rounded to bytes, then normalised."""
    return networks.normalize((images * 255).round().byte(), name).to(device)


def answer_maps(model: nn.Module, name: str, images: Tensor, device: torch.device) -> Tensor:
    """The attention maps (N, H, W) of the class that the network finds likeliest, on the CPU."""
    return in_batches(partial(saliency_map, top=1), model, as_trained(name, images, device), batch_size=BATCH).cpu()


def density(
    model: nn.Module, name: str, images: Tensor, masks: Tensor, known: Tensor, device: torch.device
) -> dict[str, Any]:
    """How much brighter than on average the map of the answer is on each of two objects.

    Args:
        model: the network.
        name: of its recipe.
        images: (N, 3, H, W) in [0, 1].
        masks: (N, 2, H, W) bool, the objects.
        known: (N, 2) bool, one an image: the object of a shape that the network was trained on.
        device: where it is computed.

    Returns:
        "trained" and "not trained": how many times brighter on such objects; "trained denser": how often more so on the
        one that it was trained on; "sure": the probability of the answer.
    """
    maps = answer_maps(model, name, images, device)
    mass = torch.stack([mass_in_mask(maps, masks[:, k]) for k in range(2)], 1)
    dense = mass / masks.double().mean((-2, -1))
    return {
        "trained": summary(dense[known]),
        "not trained": summary(dense[~known]),
        "trained denser": summary((dense[known] > dense[~known]).double()),
        "sure": logits(model, as_trained(name, images, device)).softmax(1).amax(1).mean().item(),
    }


def record(out: Path, device: torch.device) -> Record:
    """Everything the chapter prints of these runs."""
    data = {
        "Tiny ImageNet": data_hash(held_out(RECIPES["photos-200"])),
        "MNIST": data_hash(held_out(RECIPES["lenet-mnist"])),
    }
    settings = {"seed of the scenes": SEED, "images": IMAGES, "images of a sanity check": CHECKED, "pairs": PAIRS}
    about = header(NAME, run_environment(device), data=data, seeds=SEEDS, settings=settings)
    rows: list[Row] = []
    with torch.no_grad():
        for name in tqdm((*SCENE_NETWORKS, *PHOTO_NETWORKS), desc="the rule"):
            rows += rule_rows(name, device)
        for name in (*SCENE_NETWORKS, *PHOTO_NETWORKS[:2], "lenet-mnist"):
            rows += sanity_rows(name, device)
    rows += label_rows(out, device) + unseen_rows(out, device)
    return Record(about, frame(rows).round(6))  # six decimals: half the size


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_record(NAME, "What LICNN's rule adds, and what maps know of their networks.", record, arguments)


if __name__ == "__main__":
    sys.exit(main())
