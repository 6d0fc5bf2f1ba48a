"""What readers can move.

Explorables (`..._explorable`) compute in the reader's browser, in JupyterLab, in Colab and on the site alike. The older
explorers need a kernel, and the site shows figures in their place. All keep to the API of ipywidgets 7.7, which Colab
has.
"""

from helpers.plots._film import picture_tag as picture_html
from helpers.widgets._explorables import (
    box_explorable,
    gaze_explorable,
    kernel_explorable,
    question_explorable,
)
from helpers.widgets._explorers import (
    attention_explorer,
    class_model_explorer,
    filter_explorer,
)
from helpers.widgets._gaze import gaze_explorer, gaze_film

__all__ = [
    "attention_explorer",
    "box_explorable",
    "class_model_explorer",
    "filter_explorer",
    "gaze_explorable",
    "gaze_explorer",
    "gaze_film",
    "kernel_explorable",
    "picture_html",
    "question_explorable",
]
