"""Interactive extras, in the API of ipywidgets 7.7 (which Colab has). The site shows figures in their place."""

from helpers.plots._film import picture_tag as picture_html
from helpers.widgets._explorers import (
    attention_explorer,
    cam_explorer,
    class_model_explorer,
    filter_explorer,
    kernel_explorer,
)
from helpers.widgets._gaze import gaze_explorer, gaze_film

__all__ = [
    "attention_explorer",
    "cam_explorer",
    "class_model_explorer",
    "filter_explorer",
    "gaze_explorer",
    "gaze_film",
    "kernel_explorer",
    "picture_html",
]
