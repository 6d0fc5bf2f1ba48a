"""LICNN: lateral inhibition on the way back from a class, and what is left of the features on the way forth.

In a retina a strongly lit cell silences its neighbours, and edges stand out. LICNN does the same to gradients: they say
what each place of each layer contributes to a class (the largest over the channels, a Max-C map). A place is kept
where its contribution is larger than the inhibition by its neighbours, all others are set to zero, and the network
runs once more with these masks. What is left of the features, added up over channels (Sum-C maps) and layers, is the
attention map of the class. The maps of the five likeliest classes together are the saliency map.

One call::

    attention = attention_map(model, x, target=3)  # (B, H, W): where the features of class 3 are
    salient = saliency_map(model, x)  # (B, H, W): of the five likeliest classes together

By hand, for one layer with output y::

    g = torch.autograd.grad(log_odds_of_the_class, y)  # (B, C, h, w): what each unit contributes to the class
    mask = inhibition_mask(max_channel(g))  # (B, h, w): the places that stand out from their neighbours
    (y * mask[:, None]).sum(1)  # (B, h, w), one layer's share: all layers are masked in one more forward pass

Sources: Cao et al., "Lateral inhibition-inspired convolutional neural network", AAAI 2018; Marcinek, "Reproduction of
lateral inhibition-inspired convolutional neural network", arXiv 2005.02184, whose equations these are.
"""

from helpers.licnn._attention import Attention, attention_map, attention_steps, saliency_map
from helpers.licnn._inhibition import (
    inhibition_kernel,
    inhibition_mask,
    lateral_inhibition,
    max_channel,
    rms_mask,
    unit_norm,
)
from helpers.licnn._variants import VARIANTS, center_surround_mask, random_places, rule_agreement

__all__ = [
    "VARIANTS",
    "Attention",
    "attention_map",
    "attention_steps",
    "center_surround_mask",
    "inhibition_kernel",
    "inhibition_mask",
    "lateral_inhibition",
    "max_channel",
    "random_places",
    "rms_mask",
    "rule_agreement",
    "saliency_map",
    "unit_norm",
]
