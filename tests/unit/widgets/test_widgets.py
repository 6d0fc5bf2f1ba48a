import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from torch import nn

from helpers import plots
from helpers.widgets import class_model_explorer, picture_html


def test_the_picture_carries_its_alternative_text_and_is_a_png():
    tag = picture_html(plots.images(np.eye(4)), 'a "quoted" <line>')
    assert 'alt="a &quot;quoted&quot; &lt;line&gt;"' in tag
    data = base64.b64decode(re.search(r"base64,([^\"]+)", tag)[1])
    assert Image.open(io.BytesIO(data)).format == "PNG"


def test_the_class_model_follows_every_control():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    box = class_model_explorer(network, (1, 4, 4), ["left", "right"])
    choice, penalty, steps, start, view = box.children
    seen = [view.value]
    for control, value in ((choice, 1), (penalty, 1.0), (steps, 3), (start, 0.3)):
        control.value = value
        seen.append(view.value)
    assert len(set(seen)) == 5
    assert 'alt="The class model of right: objective' in view.value
    assert "after 3 steps" in view.value


def test_a_class_model_that_runs_away_says_so():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    nn.init.constant_(network[1].weight, 3e38)
    with pytest.raises(ValueError, match="classes"):
        class_model_explorer(network, (1, 4, 4), [])
    assert "lr must be lower" in class_model_explorer(network, (1, 4, 4), ["a", "b"]).children[-1].value
