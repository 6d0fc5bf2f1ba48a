"""Methods side by side: the same call for all, the same images, the same objects, the same baselines.

Any of the book's maps in one call::

    explain(model, x, method="grad_cam")  # (B, H, W), for each image's top class; METHODS says what each needs

Maps of many methods::

    methods = attribution_methods(layer="relu4")  # name -> method(model, x, target), maps (B, H, W)
    maps = {name: method(model, x, labels) for name, method in methods.items()}

How well maps fit known objects::

    measure_maps(maps["LICNN"], masks)["auc"]  # (N,)
    compare_attention(model, x, labels, masks, layer="relu4")["LICNN"]["auc"]  # (N,), beside variants and baselines
    two_object_test(model, x, labels, masks, methods["LICNN"])  # (N, 2): 1 where a map lies on its own class's object

By hand, the last for one image with the objects `masks` (2, H, W)::

    a, b = method(model, x, labels[:, 0])[0], method(model, x, labels[:, 1])[0]  # (H, W), one map a class
    a[masks[0]].mean() > a[masks[1]].mean(), b[masks[1]].mean() > b[masks[0]].mean()

The methods' sources stand in their rooms (`helpers.saliency`, `helpers.cam`, `helpers.licnn`), those of the measures in
`helpers.metrics`.
"""

from helpers.compare._methods import METHODS, Method, attribution_methods, explain, two_object_methods
from helpers.compare._reports import compare_attention, measure_maps, two_object_test

__all__ = [
    "METHODS",
    "Method",
    "attribution_methods",
    "compare_attention",
    "explain",
    "measure_maps",
    "two_object_methods",
    "two_object_test",
]
