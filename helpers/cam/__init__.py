"""Class activation maps: which places earned the score, and what can be made of them.

A network that averages its last feature maps over all places, and reads the means with one linear layer, gives a logit
that is itself a mean over places: of the feature maps, weighed by the layer's weights for the class. That weighted sum
is the class activation map. For networks with any other head Grad-CAM takes the weights from gradients, averaged over
the places; HiResCAM and LayerCAM from gradients place by place; Score-CAM from what the network says of masked images.

One call::

    maps = class_activation_map(model, x, target=3)  # (B, h, w); mean + bias = logit

By hand, for a network in three parts, `features`, the mean over all places, and `fc`::

    f = features(x)  # (B, C, h, w)
    (fc.weight[3][:, None, None] * f).sum(1)  # (B, h, w)

Maps are raw and signed, at the resolution of the feature maps; `upsample` stretches them over the image, and
`largest_component_box` draws the box. `class_specific_units` names the feature maps ("units") that a class reads most,
and `receptive_field_crop` cuts out what excites them.

Source: Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning deep features for discriminative localization", CVPR 2016.
"""

from helpers.cam._boxes import IOU, LocalizationError, largest_component_box, localization_error
from helpers.cam._gradient import grad_cam, hires_cam, layer_cam
from helpers.cam._head import Head, class_activation_map, pooling_head, weighted_maps
from helpers.cam._score import score_cam
from helpers.cam._units import Crops, Units, class_specific_units, receptive_field_crop
from helpers.filters import upsample

__all__ = [
    "IOU",
    "Crops",
    "Head",
    "LocalizationError",
    "Units",
    "class_activation_map",
    "class_specific_units",
    "grad_cam",
    "hires_cam",
    "largest_component_box",
    "layer_cam",
    "localization_error",
    "pooling_head",
    "receptive_field_crop",
    "score_cam",
    "upsample",
    "weighted_maps",
]
