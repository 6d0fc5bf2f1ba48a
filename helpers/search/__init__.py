"""Visual search: what a network says from many fixations, what a look is worth, and where to look next.

A fixation is x, y in [-1, 1] from the left (top) edge of the image to the right (bottom) one. Beliefs about labels are
log-probabilities. In one call::

    trace = search(model, x, policy="information_gain_bound", saccades=2)
    trace.beliefs[:, -1].argmax(1)  # the answers after two saccades
"""

from helpers.search._fixations import (
    CHUNK,
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
from helpers.search._policies import POLICIES, Policy, SearchState, Trace, search, search_precomputed
from helpers.search._what_where import (
    Glimpses,
    WhatNet,
    WhereNet,
    collicular_grid,
    collicular_target,
    dorsal_view,
    dual_pathway,
    predicted_map,
)

__all__ = [
    "CHUNK",
    "POLICIES",
    "Glimpses",
    "Policy",
    "SearchState",
    "Trace",
    "View",
    "WhatNet",
    "WhereNet",
    "accuracy_map",
    "collicular_grid",
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
