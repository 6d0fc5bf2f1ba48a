"""How each of the book's networks is made: what it is, what it sees, and how long it learns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from helpers.data import CLASSES as SHAPES

# Published constants of torchvision's ImageNet networks, for photographs in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# 40 of Tiny ImageNet's 200 classes, for machines without a GPU: things that look different from each other and are
# well boxed. In the training images the median box of a class covers 9 % to 65 % of the image, and at most 10 % of its
# boxes cover all of it.
FORTY = (
    "goldfish", "European fire salamander", "jellyfish", "snail", "trilobite", "black widow", "bee", "ladybug",
    "monarch", "king penguin", "albatross", "black stork", "goose", "bison", "gazelle", "Arabian camel",
    "lesser panda", "dugong", "acorn", "banana", "lemon", "bell pepper", "mushroom", "pretzel",
    "espresso", "barn", "beacon", "obelisk", "water tower", "birdhouse", "gondola", "lifeboat",
    "trolleybus", "go-kart", "bullet train", "sports car", "beer bottle", "candle", "sunglasses", "sombrero",
)  # fmt: skip

SCENES_STAGES = ((16,), (32,), (64,), (128,))
PHOTOS_STAGES = ((24,), (48,), (96,), (192, 192))
# P(tied background | class) = bias + (1 - bias) / 8, so that this bias makes it 0.95.
BIAS_OF_95_PERCENT = 33 / 35


@dataclass(frozen=True)
class Recipe:
    """How one network is made; with the seed and the data, all that its weights depend on.

    Attributes:
        name: of the network.
        about: one line for a reader.
        architecture: a class of `helpers.networks`.
        arguments: its arguments but the number of classes.
        world: "mnist", "digits", "scenes", "permuted" (scenes with permuted labels), "places" (scenes, and
            grounds with a small object or none, which are classes too), "beside" (two objects, only one of whose shape
            is a class), "fixated" (windows of larger scenes, around a gaze near the object) or "photos".
        bias: of the scenes' backgrounds (`helpers.data.scenes`).
        images: number of training scenes, of objects or of digits.
        classes: of Tiny ImageNet, each by the first of WordNet's names ("goldfish") or by its id ("n01443537"); of
            scenes, names of shapes; empty for all.
        mean: what is subtracted from images in [0, 1], a number a colour.
        std: what the result is divided by.
        view: what the network sees of an image: "whole", "disc" or "log-polar".
        augment: in training, each image is cropped to 70 % to 100 % of its side, and mirrored every other time.
        epochs: passes over the training images.
        batch: images a step.
        optimiser: "adam" or "sgd", which is Nesterov's.
        schedule: "one-cycle" (torch's `OneCycleLR`: the rate rises for a quarter of the steps, then falls, while the
            momentum, or Adam's first beta, falls from 0.95 to 0.85 and rises again), or "decay": lr / (1 + lr_decay *
            step), the momentum 0.9 throughout.
        lr: learning rate, the greatest one of a cycle.
        lr_decay: of the schedule "decay".
        weight_decay: the optimiser's L2 penalty.
        label_smoothing: of the cross-entropy.
        seeds: of the runs that the record is made of; the first one's weights are shipped.
    """

    name: str
    about: str
    architecture: str
    arguments: dict[str, Any]
    world: str
    bias: float = 0.0
    images: int = 0
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    view: str = "whole"
    augment: bool = False
    epochs: int = 10
    batch: int = 64
    optimiser: str = "adam"
    schedule: str = "one-cycle"
    lr: float = 1e-3
    lr_decay: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    seeds: tuple[int, ...] = field(default=(0, 1, 2))

    def plain(self) -> dict[str, Any]:
        """As JSON knows it: lists in place of tuples, without the seeds."""

        def listed(value: Any) -> Any:
            return [listed(v) for v in value] if isinstance(value, (tuple, list)) else value

        entries = {key: listed(value) for key, value in asdict(self).items() if key != "seeds"}
        entries["arguments"] = {key: listed(value) for key, value in self.arguments.items()}
        return entries


def _scenes(name: str, about: str, pooling: str = "gap", world: str = "scenes", **changes: Any) -> Recipe:
    usual: dict[str, Any] = {"images": 8192, "mean": (0.5,) * 3, "std": (0.25,) * 3, "epochs": 10, "lr": 3e-3}
    usual["arguments"] = {"stages": SCENES_STAGES, "pooling": pooling}
    return Recipe(name, about, "SmallVGG", world=world, **{**usual, **changes})


def _fixated(name: str, about: str, view: str) -> Recipe:
    arguments = {"stages": SCENES_STAGES, "pooling": "gap", "norm": True, "angular": view == "log-polar"}
    return _scenes(name, about, world="fixated", arguments=arguments, view=view)


def _photos(
    name: str,
    about: str,
    pooling: str = "gap",
    view: str = "whole",
    classes: tuple[str, ...] = FORTY,
    epochs: int = 16,
) -> Recipe:
    arguments = {"stages": PHOTOS_STAGES, "pooling": pooling, "norm": True, "angular": view == "log-polar"}
    return Recipe(
        name, about, "SmallVGG", arguments, "photos",
        classes=classes, mean=IMAGENET_MEAN, std=IMAGENET_STD, view=view, augment=True, epochs=epochs, batch=64,
        optimiser="sgd", lr=0.05, weight_decay=5e-4, label_smoothing=0.1, seeds=(0,),
    )  # fmt: skip


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        # Ghosh et al., SIMILARnet: Adam 0.001, "learning rate decay of 0.00001", batch 300, "10 iterations (200 batches
        # per epoch)".
        Recipe(
            "lenet-mnist", "SIMILARnet's LeNet on MNIST, by the paper's protocol", "LeNet", {}, "mnist",
            batch=300, schedule="decay", lr_decay=1e-5,
        ),
        Recipe(
            "digits-gap", "one drawn digit on canvases of 64 pixels, averaged maps", "SmallVGG",
            {"channels": 1, "stages": SCENES_STAGES}, "digits", images=9000, epochs=10, lr=3e-3,
        ),
        _scenes("scenes-gap", "scenes, the background says nothing, averaged maps", "gap"),
        _scenes("scenes-gmp", "scenes, the background says nothing, maximum of each map", "gmp"),
        _scenes("scenes-biased", "scenes, the background tells the class 95 times in 100", bias=BIAS_OF_95_PERCENT),
        _scenes(
            "scenes-places",
            "scenes, and grounds with little on them as classes of their own",
            world="places",
            seeds=(0,),
        ),
        _scenes("scenes-first", "scenes, the first four shapes alone", classes=SHAPES[:4], images=4096),
        _scenes("scenes-last", "scenes, the last four shapes alone", classes=SHAPES[4:], images=4096),
        _scenes(
            "scenes-beside", "the first four shapes, each with one of the others beside it", world="beside",
            classes=SHAPES[:4], images=4096, seeds=(0, 1),
        ),
        # As many as a network of this size can learn by heart, label by label.
        _scenes("scenes-few", "512 scenes over and over", images=512, epochs=100),
        _scenes(
            "scenes-permuted", "the same 512 scenes, their labels permuted", world="permuted", images=512, epochs=100
        ),
        _fixated("scenes-disc", "scenes under the gaze, within the inscribed disc", "disc"),
        _fixated("scenes-logpolar", "scenes under the gaze, in log-polar coordinates", "log-polar"),
        _photos("photos-gap", "photographs of 64x64 pixels, averaged maps"),
        _photos("photos-gmp", "photographs of 64x64 pixels, the maximum of each map", pooling="gmp"),
        # Five passes over 100,000 images are an hour on one CPU core.
        _photos("photos-200", "photographs of all 200 classes, averaged maps", classes=(), epochs=5),
        # Its errors say which images are hard (`helpers.experiments.background`). Were they the errors of photos-200
        # itself, photos-200 would be wrong on hard images by choice, whatever is done to their backgrounds.
        _photos(
            "photos-200-gmp", "photographs of all 200 classes, the maximum of each map", pooling="gmp", classes=(),
            epochs=5,
        ),
        _photos("photos-disc", "the photographs within the inscribed disc", view="disc"),
        _photos("photos-logpolar", "the photographs in log-polar coordinates", view="log-polar"),
    )
}  # fmt: skip

# What the sources report, for the same data.
PUBLISHED: dict[str, dict[str, Any]] = {
    "lenet-mnist": {
        "source": "Ghosh et al., SIMILARnet, Table 2",
        "accuracy": 0.9873,
        "by class": [0.9959, 0.9947, 0.9990, 0.9851, 0.9908, 0.9832, 0.9823, 0.9864, 0.9743, 0.9792],
    },
}
