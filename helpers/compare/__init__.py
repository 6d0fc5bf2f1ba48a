"""Methods side by side: the same images, the same objects, the same baselines.

One call::

    compare_attention(model, x, labels, masks, layer="relu4")["LICNN"]["auc"]  # (N,)
"""

from helpers.compare._attention import (
    VARIANTS,
    attribution_methods,
    compare_attention,
    measure_maps,
    two_object_methods,
    two_object_test,
)

__all__ = [
    "VARIANTS",
    "attribution_methods",
    "compare_attention",
    "measure_maps",
    "two_object_methods",
    "two_object_test",
]
