"""Visual search: what a network says from many fixations, what a look is worth, and where to look next.

A *fixation* is x, y in [-1, 1] from the left (top) edge of the image to the right (bottom) one; the *candidates* are
the fixations that a search may choose from. `log_p` are the log-probabilities of the labels that the network gives,
from each view alone; those from many fixations are a *label map*. A *belief* is what several views say together, in
log-probabilities too. `places` are where objects are, never fixations.

In one call::

    trace = search(model, x, policy="information_gain_bound", saccades=2)
    trace.beliefs[:, -1].argmax(1)  # the answers after two saccades
"""

from helpers.search._colliculus import collicular_target, predicted_map
from helpers.search._fixations import (
    BATCH_SIZE,
    View,
    accuracy_map,
    confidence_map,
    fixation_grid,
    fixations_inside,
    label_map,
    likelihood_map,
    spread_map,
)
from helpers.search._information import expected_gain, fuse, information_gain, information_gain_bound, redundancy
from helpers.search._policies import POLICIES, Policy, SearchState
from helpers.search._search import Trace, search, search_precomputed
from helpers.search._what_where import Glimpses, WhatNet, WhereNet, dorsal_view, dual_pathway

__all__ = [
    "BATCH_SIZE",
    "POLICIES",
    "Glimpses",
    "Policy",
    "SearchState",
    "Trace",
    "View",
    "WhatNet",
    "WhereNet",
    "accuracy_map",
    "collicular_target",
    "confidence_map",
    "dorsal_view",
    "dual_pathway",
    "expected_gain",
    "fixation_grid",
    "fixations_inside",
    "fuse",
    "information_gain",
    "information_gain_bound",
    "label_map",
    "likelihood_map",
    "predicted_map",
    "redundancy",
    "search",
    "search_precomputed",
    "spread_map",
]
