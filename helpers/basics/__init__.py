"""Chapter 1: what a convolution computes, what it costs, how much of the picture it sees, and what knows the place.

One call: `convolve(x, weight)` equals `F.conv2d(x, weight)`; `receptive_fields(LeNet())[-1].size` is 16 pixels.
By hand: the chapter computes both on numbers small enough to check in the head.
"""

from helpers.basics.convolution import convolve, output_size
from helpers.basics.costs import LayerCost, layer_costs
from helpers.basics.fields import ReceptiveField, path_counts, receptive_fields, unit_gradient
from helpers.basics.places import bright_spot, position_readout

__all__ = [
    "LayerCost",
    "ReceptiveField",
    "bright_spot",
    "convolve",
    "layer_costs",
    "output_size",
    "path_counts",
    "position_readout",
    "receptive_fields",
    "unit_gradient",
]
