"""Which pixels would change the score: gradients and what was built on them, occlusion, class models, boxes.

Near an image a network is almost linear, S(x + d) = S(x) + w . d: the gradient w of a class score says how much each
pixel would change it. Averaged over noisy copies it is SmoothGrad; averaged on the way from a blank image, times that
way, integrated gradients. Occlusion does not differentiate: it covers a part of the image and looks at what the score
loses; nor does RISE, which averages the score over random masks. A class model is the image at which an ascent along
the gradient ends. `saliency_box` draws a box around the places where a map is large.

One call::

    saliency_map = class_saliency(model, x, target=3)  # (B, H, W)

By hand::

    x.requires_grad_()
    (w,) = torch.autograd.grad(model(x)[:, 3].sum(), x)  # (B, C, H, W): how the score answers to each pixel
    w.abs().amax(1)  # (B, H, W): the colour it answers to most

Attributions keep their colours, (B, C, H, W), raw and signed; a map of one number a place is `.abs().amax(-3)` of a
gradient, and `.sum(-3)` where colours add up to something (gradient times input, integrated gradients).

Source: Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks", 2013, and the works named function by
function.
"""

from helpers.saliency._ascent import ClassModel, class_model
from helpers.saliency._box import saliency_box
from helpers.saliency._gradient import (
    class_saliency,
    gradient_times_input,
    guided_backprop,
    input_gradient,
    integrated_gradients,
    smooth_gradient,
)
from helpers.saliency._occlusion import occlusion, region_occlusion
from helpers.saliency._rise import rise

__all__ = [
    "ClassModel",
    "class_model",
    "class_saliency",
    "gradient_times_input",
    "guided_backprop",
    "input_gradient",
    "integrated_gradients",
    "occlusion",
    "region_occlusion",
    "rise",
    "saliency_box",
    "smooth_gradient",
]
