"""Weights class by class against naive ones, and maps of single classes: which of two digits was asked for?"""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.canvases import DRAWN, naive_errors, pooled, small_split
from support.untouched import assert_untouched
from torch import nn

from helpers import similarnet
from helpers.experiments.similarnet import canvases as C
from helpers.experiments.similarnet import class_weights as K
from helpers.experiments.train.datasets import LabeledImages

MORE, HOTTEST = "more in its box", "hottest in its box"


def naive_shares(maps, canvases):
    wins = []
    for own, boxes in zip(maps, canvases.boxes, strict=True):
        for k in (0, 1):
            held = []
            for box in (boxes[k], boxes[1 - k]):
                x0, y0, x1, y1 = (int(v) for v in box)
                held.append(own[k, y0:y1, x0:x1].clamp_min(0).double().sum().item())
            wins.append(0.5 if held[0] == held[1] else float(held[0] > held[1]))
    return sum(wins) / len(wins)


def naive_class_weights(model, x, y, layers):
    """Class-wise weights of filters, (10, F), one by one."""
    whole, without = naive_errors(model, x, y, layers)["nll"]
    maps = pooled(model, x, layers)
    raw = torch.stack([(without[:, y == c] - whole[y == c]).mean(1) for c in range(10)])
    excited, slopes = [], []
    for c in range(10):
        own = maps[y == c].clone().requires_grad_()
        nn.Sequential(*list(model)[layers:])(own)[:, c].sum().backward()
        slopes.append(own.grad.mean((0, 2, 3)).double())
        excited.append(own.detach().double().mean((0, 2, 3)))
    excited, slopes = torch.stack(excited), torch.stack(slopes)
    soft = raw.exp() / raw.exp().sum(1, keepdim=True)
    return {
        "e - E": raw,
        "e - E, less its mean over the classes": raw - raw.mean(0),
        "softmax of E - e": (-raw).exp() / (-raw).exp().sum(1, keepdim=True),
        "softmax of e - E": soft,
        "softmax of e - E, less its mean": soft - soft.mean(0),
        "mean excitation, less its mean": excited - excited.mean(0),
        "mean gradient": slopes,
        "mean gradient, less its mean": slopes - slopes.mean(0),
        "all weights one": torch.ones_like(raw),
    }


def test_weights_class_by_class(network, monkeypatch):
    monkeypatch.setattr(K, "SAMPLE", 60)
    split, canvases = small_split(100), C.make_canvases("drawn blank", 2, 20, 84)
    used = []
    monkeypatch.setattr(K, "heatmap", lambda f, w: used.append(w) or similarnet.heatmap(f, w))
    with assert_untouched(network):
        rows = K.class_weight_scores(network, split.train, canvases, "pool2")
    # 60 of the 100 training images, at random: which ones only the seed tells.
    mixed = torch.randperm(100, generator=torch.Generator().manual_seed(C.SEED))[:60]
    x, y = split.train.images[mixed].float() / 255, split.train.labels[mixed]
    expected, features = naive_class_weights(network, x, y, 6), pooled(network, canvases.images)
    fitted = "a linear layer on the means (original GAP)"
    assert list(rows) == [*list(expected)[:-1], fitted, "all weights one"]
    weights_by_name = dict(zip(rows, used, strict=True))
    for name, w in expected.items():
        weights = weights_by_name[name]
        own = torch.stack([torch.stack([w[a], w[b]]) for a, b in canvases.labels.tolist()])  # (N, 2, F)
        torch.testing.assert_close(weights.double(), own, rtol=1e-3, atol=1e-6)
        maps = (own[..., None, None] * features[:, None].double()).sum(2)
        maps = F.interpolate(maps, (84, 84), mode="bilinear", align_corners=False)
        assert rows[name][MORE] == pytest.approx(
            naive_shares(maps, canvases), abs=1.01 / canvases.labels.numel()
        )  # a near tie
    assert rows["mean gradient"][MORE] > 0.6


def test_a_linear_layer_on_the_means_classifies_as_well_as_any(network):
    x, y = DRAWN.images, DRAWN.labels
    sleepy = copy.deepcopy(network)
    with torch.no_grad():  # a filter that never speaks has no spread to divide by
        sleepy.conv2.weight[3], sleepy.conv2.bias[3] = 0, -1
    for model in (network, sleepy):
        weights = K.linear_layer(model, x, y, "pool2").double()
        assert weights.shape == (10, 16)
        assert torch.isfinite(weights).all()
        # Sixteen numbers an image, 80 images: a linear layer with an intercept of its own fits nearly all of them.
        scores = pooled(model, x).double().mean((2, 3)) @ weights.T
        best = scores - torch.stack([scores[y == c].mean(0) for c in range(10)]).mean(0)
        assert (best.argmax(1) == y).double().mean() > 0.7


def test_a_class_has_at_most_200_images_for_its_gradient(network, monkeypatch):
    asked = []
    real = K.gradients
    monkeypatch.setattr(
        K, "gradients", lambda model, x, c, layer: asked.append((len(x), c)) or real(model, x, c, layer)
    )
    split = small_split(100)
    doubled = [part.repeat(25, *[1] * (part.ndim - 1)) for part in split.train]
    monkeypatch.setattr(
        K, "ablation_errors", lambda *_, **__: similarnet.AblationErrors(torch.rand(10), torch.rand(16, 10))
    )
    K.class_weight_scores(network, LabeledImages(*doubled), C.make_canvases("drawn blank", 2, 3, 84), "pool2")
    assert asked == [(200, c) for c in range(10)]


def test_a_network_that_slides(network, monkeypatch):
    canvases = C.make_canvases("drawn blank", 2, 12, 84)
    shown = []
    monkeypatch.setattr(K, "digit_scores", lambda maps, canvases: shown.append(maps) or C.digit_scores(maps, canvases))
    with assert_untouched(network):
        rows = K.sliding_scores(network, canvases)
    # Every window of 7 x 7 places of the feature maps, three rows of zeros around them, through the linear layers.
    patches = F.unfold(pooled(network, canvases.images), 7, padding=3)  # (N, 16 * 49, 21 * 21)
    with torch.no_grad():
        logits = network[7:](patches.mT).mT.unflatten(2, (21, 21))  # (N, 10, 21, 21)
    kinds = {"logit": logits, "probability": logits.softmax(1)}
    for (name, scores), maps_shown in zip(kinds.items(), shown, strict=True):
        chosen = torch.stack(
            [torch.stack([part[a], part[b]]) for part, (a, b) in zip(scores, canvases.labels, strict=True)]
        )
        maps = F.interpolate(chosen, (84, 84), mode="bilinear", align_corners=False)
        torch.testing.assert_close(maps_shown, maps, rtol=1e-3, atol=1e-4)
        assert rows[f"slid over the canvas, {name}"][MORE] == pytest.approx(naive_shares(maps, canvases), abs=1e-6)
    assert list(rows) == ["slid over the canvas, logit", "slid over the canvas, probability"]
    assert rows["slid over the canvas, probability"][MORE] > 0.7


def test_class_activation_maps_of_two_digits(gap):
    canvases = C.make_canvases("drawn noise", 2, 12, 84)
    with assert_untouched(gap):
        rows = K.gap_scores(gap, canvases)
    layers = {name: 1 + k for k, (name, _) in enumerate(gap.named_children())}
    last = pooled(gap, canvases.images, layers["relu4"])
    maps = torch.einsum("nkf,nfhw->nkhw", gap.fc.weight.detach()[canvases.labels], last)
    maps = F.interpolate(maps, (84, 84), mode="bilinear", align_corners=False)
    assert rows["CAM"][MORE] == pytest.approx(naive_shares(maps, canvases), abs=1e-6)
    assert list(rows) == ["CAM", *(f"Grad-CAM at {name}" for name in ("pool1", "pool2", "pool3", "relu4"))]
    for name in ("pool1", "pool2", "pool3", "relu4"):
        own = []
        for k in (0, 1):
            f = pooled(gap, canvases.images, layers[name]).requires_grad_()
            scores = nn.Sequential(*list(gap)[layers[name] :])(f)
            slopes = torch.autograd.grad(scores[torch.arange(len(f)), canvases.labels[:, k]].sum(), f)[0]
            own.append((slopes.mean((2, 3), keepdim=True) * f.detach()).sum(1).relu())
        maps = F.interpolate(torch.stack(own, 1), (84, 84), mode="bilinear", align_corners=False)
        assert rows[f"Grad-CAM at {name}"][MORE] == pytest.approx(naive_shares(maps, canvases), abs=1e-6)
    assert rows["CAM"][MORE] > 0.8
    assert rows["CAM"][HOTTEST] > 0.6  # the hottest place too
