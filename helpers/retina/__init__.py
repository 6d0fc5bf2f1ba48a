"""Log-polar vision: what a retina with a fovea sees of an image from one or many fixations.

Radii are in units of half the image's shorter side, so that a circle is a circle on images of any shape and radius 1 is
the largest disc around the centre that the image holds. Fixations are in units of the image itself, -1 to 1 from edge
to edge along each axis.
"""

from helpers.networks import AngularPad2d
from helpers.retina._grid import R_MIN, log_polar_grid
from helpers.retina._sampling import cartesian, inverse_log_polar, log_polar
from helpers.retina._views import VIEWS, LogPolar, inscribed_disc, view, viewer, views

__all__ = [
    "R_MIN",
    "VIEWS",
    "AngularPad2d",
    "LogPolar",
    "cartesian",
    "inscribed_disc",
    "inverse_log_polar",
    "log_polar",
    "log_polar_grid",
    "view",
    "viewer",
    "views",
]
