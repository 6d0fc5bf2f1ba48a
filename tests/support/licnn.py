"""LICNN by hand, and the methods and variants that it is compared with, for the tests of several rooms."""

import math

import torch
import torch.nn.functional as F

from helpers import cam, saliency
from helpers.licnn import attention_map, center_surround_mask, inhibition_mask, random_places, rms_mask
from helpers.metrics import edge_map
from helpers.networks import SmallVGG
from support.tensors import normal


def noise(*shape, seed=0):
    return normal(*shape, seed=seed, dtype=torch.float64)


def tiny_network(classes=8, seed=0, pooling="gap", dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallVGG(classes, stages=((4,), (6,)), pooling=pooling).to(dtype).eval()


def squares(n, side):
    """Masks (n, side, side): squares of growing size, each elsewhere."""
    masks = torch.zeros(n, side, side, dtype=torch.bool)
    for k in range(n):
        masks[k, k : k + 3 + k % 3, 2 * k % (side - 5) :][:, : 4 + k % 2] = True
    return masks


def close(actual, expected, atol=1e-9):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def slow_terms(x, k=7, a=0.1, b=0.9):
    """The two terms (2, h, w) of equation 3 for one map (h, w), place by place and neighbour by neighbour."""
    (height, width), values = x.shape, x.tolist()
    terms = torch.zeros(2, height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            total = differences = 0.0
            for u in range(i - k // 2, i + k // 2 + 1):
                for v in range(j - k // 2, j + k // 2 + 1):
                    neighbour = values[u][v] if 0 <= u < height and 0 <= v < width else 0.0
                    d = math.hypot(u - i, v - j) / k
                    total += neighbour
                    differences += d * math.exp(-d) * max(0.0, neighbour - values[i][j])
            terms[0, i, j], terms[1, i, j] = a * math.exp(-total / k**2), b * differences
    return terms


def slow_inhibition(x, **options):
    """Equation 3 of one map (h, w)."""
    return slow_terms(x, **options).sum(0)


def slow_norm(x):
    """By the largest value first: equal values stay exactly equal to their root mean square."""
    largest = max(abs(value) for value in x.flatten().tolist())
    if largest == 0:
        return x
    return x / largest / math.sqrt(sum((value / largest) ** 2 for value in x.flatten().tolist()))


def slow_mask(x, normalize=True, **options):
    x = slow_norm(x.double()) if normalize else x.double()
    return x > slow_norm(slow_inhibition(x, **options))


def slow_rms(x):
    x = x / max(1e-300, x.abs().max())
    return x > math.sqrt(sum(value**2 for value in x.flatten().tolist()) / x.numel())


def everything(x):
    return torch.ones_like(x, dtype=torch.bool)


def known_methods(layer):
    """What `compare.attribution_methods` should hold."""
    return {
        "gradient": lambda m, x, c: saliency.input_gradient(m, x, c).sum(1),
        "|gradient|": lambda m, x, c: saliency.input_gradient(m, x, c).abs().amax(1),
        "gradient x input": lambda m, x, c: (saliency.input_gradient(m, x, c) * x).sum(1),
        "integrated gradients": lambda m, x, c: saliency.integrated_gradients(m, x, c, steps=10).sum(1),
        "guided backprop": lambda m, x, c: saliency.guided_backprop(m, x, c).sum(1),
        "Grad-CAM": lambda m, x, c: F.interpolate(
            cam.grad_cam(m, x, c, layer=layer)[:, None], x.shape[2:], mode="bilinear", align_corners=False
        )[:, 0],
        "LICNN": lambda m, x, c: attention_map(m, x, c),
        "nothing inhibited": lambda m, x, c: attention_map(m, x, c, suppress=None),
        "edge detector": lambda m, x, c: edge_map(x),
    }


# What `licnn.VARIANTS` should hold.
KNOWN_VARIANTS = {
    "LICNN": {},
    "above the RMS": {"suppress": rms_mask},
    "b = 0": {"suppress": lambda g: inhibition_mask(g, 7, 0.1, 0.0)},
    "a = 0": {"suppress": lambda g: inhibition_mask(g, 7, 0.0, 0.9)},
    "k = 3": {"suppress": lambda g: inhibition_mask(g, 3, 0.1, 0.9)},
    "k = 15": {"suppress": lambda g: inhibition_mask(g, 15, 0.1, 0.9)},
    "Max-C not normalised": {"suppress": lambda g: inhibition_mask(g, 7, 0.1, 0.9, normalize=False)},
    "true Mexican hat": {"suppress": center_surround_mask},
    "as many random places": {"suppress": random_places},
    "nothing inhibited": {"suppress": None},
    "last ReLU masked too": {"skip_last": False},
    "layers normalised after resizing": {"normalize_layers": "after"},
    "layers not normalised (code)": {"normalize_layers": None},
    "before the softmax": {"score": "logit"},
    "gradient-based": {"mode": "gradient"},
    "gradient-based, above the RMS": {"mode": "gradient", "suppress": rms_mask},
}
