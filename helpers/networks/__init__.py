"""The book's networks: their architectures, and the trained ones by name.

`load("scenes-gap")` gives a trained network, `available()` the list of all, `normalize(images, network)` the input that
a network expects.
"""

from helpers.networks.architectures import AngularPad2d, LeNet, SmallVGG

__all__ = ["AngularPad2d", "LeNet", "SmallVGG"]
