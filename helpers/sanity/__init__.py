"""Does a map depend on what the network learned? Compare it with the maps of networks that have forgotten.

A map that explains a network must change when the network is another one. Two tests: give the layers new weights, from
the logits down, and see when the maps change (the model parameter randomisation test); or train a network of the same
build on permuted labels, which it can only learn by heart (the data randomisation test). Maps of a plain edge detector
pass neither, and the baselines say how similar two maps are that have nothing in common.

One call::

    check = sanity_check(saliency.class_saliency, model, x, target)
    check.similarity["spearman_abs"]  # (layers, B): to the trained network's map, after each layer more is random

By hand::

    for name, forgotten in cascading_randomization(model):  # "fc", then "conv4" as well, ... down to the first layer
        map_similarity(method(model, x, target), method(forgotten, x, target))["spearman_abs"]

Source: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from helpers.metrics import map_similarity
from helpers.sanity._check import SanityCheck, sanity_check
from helpers.sanity._labels import permuted_label_network, permuted_labels
from helpers.sanity._randomization import cascading_randomization, independent_randomization, randomizable_layers

__all__ = [
    "SanityCheck",
    "cascading_randomization",
    "independent_randomization",
    "map_similarity",
    "permuted_label_network",
    "permuted_labels",
    "randomizable_layers",
    "sanity_check",
]
