"""Quadtrees: an image cut into squares, large where it is constant and small where it is not, and what that saves.

A square whose pixels are nearly alike can be one number. The leaves of the tree are then fewer than the pixels: a class
score has fewer gradients to show, occlusion fewer things to cover, and a convolution fewer places to be computed at.

One call::

    leaves = build_quadtree(image, threshold=0.1)  # (L, 3): row, column and side of each square

By hand: take the whole image as one square; while a square's values range over more than the threshold, cut it into
four. Here that is done for all squares of a level at once.

A tree is an integer tensor (L, 3) of leaves (y, x, size) that tile the image, in reading order of their corners.
Leaves never reach over the border: a square that would is cut, down to single pixels if need be, so that there leaves
may be smaller than `min_size`. On a square image whose side is a power of two, the number of leaves is three times the
number of cuts, plus one.

Sources: Banik, "Image specific class saliency map" (term project slides, 2021), section "Quadtree based approach";
Shusterman, Feder, "Image compression via improved quadtree decomposition algorithms", 1994, for the criteria
"range" and "std".
"""

from helpers.quadtree._build import build_quadtree, threshold_for
from helpers.quadtree._convolution import convolve_on_leaves, exact_conv_sites
from helpers.quadtree._leaves import leaf_boxes, leaf_map, leaf_means, reconstruct
from helpers.quadtree._scores import leaf_gradient, occlusion_on_leaves

__all__ = [
    "build_quadtree",
    "convolve_on_leaves",
    "exact_conv_sites",
    "leaf_boxes",
    "leaf_gradient",
    "leaf_map",
    "leaf_means",
    "occlusion_on_leaves",
    "reconstruct",
    "threshold_for",
]
