"""Figures of the book, one call each.

Every function returns a `Picture`, a matplotlib Figure that belongs to no pyplot state: as the last value of a
cell a notebook shows it exactly once, and nothing stays open. Tensors (on any device) and arrays are both taken.
Nothing is rescaled behind the reader's back: panels share one scale, told by a colour bar, or have a bar each. A kind
of number has one look everywhere: brightness is gray, evidence red and blue around zero, a magnitude dark to light.
"""

from helpers.plots._boxes import boxes
from helpers.plots._charts import bars, curves
from helpers.plots._heatmaps import feature_maps, gallery, kernels, maps, overlay, signed_maps
from helpers.plots._images import images
from helpers.plots._panels import Picture
from helpers.plots._scanpaths import scanpaths

__all__ = [
    "Picture",
    "bars",
    "boxes",
    "curves",
    "feature_maps",
    "gallery",
    "images",
    "kernels",
    "maps",
    "overlay",
    "scanpaths",
    "signed_maps",
]
