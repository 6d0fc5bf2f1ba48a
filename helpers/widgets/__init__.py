"""What readers can move: explorables compute in the reader's browser, in JupyterLab, in Colab and on the site alike.

Each function hands arrays and settings over once and returns a widget; what the reader sets is its `state`. All keep to
the API of ipywidgets 7.7 and anywidget 0.9, which Colab has.
"""

from helpers.widgets._explorables import (
    box_explorable,
    digit_explorable,
    filters_explorable,
    gaze_explorable,
    kernel_explorable,
    question_explorable,
    search_explorable,
    steps_explorable,
)

__all__ = [
    "box_explorable",
    "digit_explorable",
    "filters_explorable",
    "gaze_explorable",
    "kernel_explorable",
    "question_explorable",
    "search_explorable",
    "steps_explorable",
]
