"""The book's three worlds (digits, scenes, photographs) and the loaders of its real data.

Embedded, always there, no download: `digits`, `digit_scenes`, `noisy_displays`, `scenes`, `photo`, `handwritten`;
`write` puts text on them, `mosaics` four of them together.
Real, where present under `data_dir()`: `mnist`, `tiny_imagenet`, `imagenet_sample`, `coco_sample`; own folders:
`picture_folder`. Command line: `python -m helpers.data --help`.
"""

from helpers.data._digits import DIGIT_BACKGROUNDS, DIGIT_FONTS, Digits, digit_scenes, digits, handwritten, place
from helpers.data._displays import Displays, band_noise, noisy_displays
from helpers.data._mosaics import Mosaics, mosaics
from helpers.data._photos import PHOTOS, photo
from helpers.data._real import DataMissing, Photos, available, data_dir, mnist, tiny_imagenet
from helpers.data._samples import Objects, coco_sample, imagenet_sample, picture_folder
from helpers.data._scenes import BACKGROUNDS, CLASSES, WORD_LABEL, Scenes, scenes, searched_scenes, two_object_scenes
from helpers.data._text import Lettering, write

__all__ = [
    "BACKGROUNDS",
    "CLASSES",
    "DIGIT_BACKGROUNDS",
    "DIGIT_FONTS",
    "PHOTOS",
    "WORD_LABEL",
    "DataMissing",
    "Digits",
    "Displays",
    "Lettering",
    "Mosaics",
    "Objects",
    "Photos",
    "Scenes",
    "available",
    "band_noise",
    "coco_sample",
    "data_dir",
    "digit_scenes",
    "digits",
    "handwritten",
    "imagenet_sample",
    "mnist",
    "mosaics",
    "noisy_displays",
    "photo",
    "picture_folder",
    "place",
    "scenes",
    "searched_scenes",
    "tiny_imagenet",
    "two_object_scenes",
    "write",
]
