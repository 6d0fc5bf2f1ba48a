"""The book's networks: their architectures, and the trained ones by name.

`available()` lists the trained networks, `load("scenes-gap")` gives one, `normalize(images, network)` its input.
`rebuilt(network, atrous=1)` gives it another shape with the same weights. `load("torchvision/resnet18")` gives one of
torchvision's, where its weights are in torch's cache. `adopt(model, mean, std, size, classes)` gives a network of your
own what the others come with, and `denormalize` makes images of a network's input.
"""

from helpers.networks._architectures import AngularPad2d, LeNet, SmallVGG
from helpers.networks._card import Card, WeightsError
from helpers.networks._input import adopt, denormalize, normalize
from helpers.networks._store import Catalogue, available, card, load, rebuilt
from helpers.networks._torchvision import WeightsMissing

__all__ = [
    "AngularPad2d",
    "Card",
    "Catalogue",
    "LeNet",
    "SmallVGG",
    "WeightsError",
    "WeightsMissing",
    "adopt",
    "available",
    "card",
    "denormalize",
    "load",
    "normalize",
    "rebuilt",
]
