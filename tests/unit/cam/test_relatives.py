"""HiResCAM, LayerCAM and Score-CAM by hand, by loops, and against one another."""

import pytest
import torch
from support.cam import CAM, MAPS, Call, batch, close, ended, features, toy
from torch import nn

from helpers.cam import class_activation_map, grad_cam, hires_cam, layer_cam, score_cam, upsample
from helpers.capture import activations

# S = 4 a + 8 d - 4 b of the map [[a, b], [c, d]]
SLOPES = torch.tensor([[4.0, -4], [0, 8]])
X = torch.tensor([[[[1.0, -2], [3, 4]]]])


def sloped():
    return nn.Sequential(nn.Identity(), Call(lambda f: (f * SLOPES).sum((2, 3))))


def test_place_by_place_by_hand():
    assert hires_cam(sloped(), X, 0, layer="0").tolist() == [[[4, 8], [0, 32]]]  # adds up to the score, 44
    assert layer_cam(sloped(), X, 0, layer="0").tolist() == [[[4, 0], [0, 32]]]
    assert layer_cam(sloped(), -X, 0, layer="0").tolist() == [[[0, 0], [0, 0]]]
    assert hires_cam(sloped(), -X, 0, layer="0", relu=True).tolist() == [[[0, 0], [0, 0]]]


def test_where_the_slope_is_the_same_everywhere_hires_cam_is_grad_cam():
    torch.testing.assert_close(hires_cam(toy(), MAPS, 0, layer="0"), CAM[:1] / 9)
    net, x = ended(act=nn.Identity), batch(3)
    close(hires_cam(net, x, [1, 0, 3], "layer4"), class_activation_map(net, x, [1, 0, 3]) / 16)
    close(hires_cam(net, x, 2, "layer4", relu=True), grad_cam(net, x, 2, "layer4"))


@pytest.mark.parametrize("method", [hires_cam, layer_cam])
def test_channels_add_up_as_loops_do(method):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()
    x = batch(2)
    f = activations(net, x, "1")["1"]
    slope = net[3].weight.detach().view(3, 4, 6, 6)[2] * (f > -1)  # the layer behind the ReLU sees all of it
    terms = (slope.clamp_min(0) if method is layer_cam else slope) * f
    expected = sum(terms[:, k] for k in range(4))
    expected = expected.clamp_min(0) if method is layer_cam else expected
    close(method(net, x, 2, "1"), expected)
    if method is hires_cam:
        close(method(net, x, 2, "1").sum((1, 2)) + net[3].bias[2].detach(), net(x)[:, 2].detach())


def by_loops(net, x, c, maps, channels, score):
    """Score-CAM of one image x (1, 3, H, W), with the maps (C, h, w) of a layer."""
    order = sorted(range(len(maps)), key=lambda k: -maps[k].std(correction=0).item())[:channels]
    scores = []
    for k in order:
        mask = upsample(maps[k], x.shape[-2:])
        mask = (mask - mask.min()) / (mask.max() - mask.min()) if mask.max() > mask.min() else torch.zeros_like(mask)
        with torch.no_grad():
            logits = net(x * mask)[0]
        scores.append({"logit": logits, "probability": logits.softmax(0)}[score][c])
    weights = torch.stack(scores).softmax(0)
    return sum(w * maps[k] for w, k in zip(weights, order, strict=True))


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("channels", [None, 1, 4, 99])
def test_score_cam_is_that_of_loops(channels, score):
    net, x = ended(), batch(2)
    maps = features(net, x)
    actual = score_cam(net, x, [[0, 3], [2, 1]], "layer4", channels=channels, score=score, relu=False)
    for b, classes in enumerate(([0, 3], [2, 1])):
        for k, c in enumerate(classes):
            close(actual[b, k], by_loops(net, x[b : b + 1], c, maps[b], channels, score))
    close(score_cam(net, x, 1, "layer4"), score_cam(net, x, 1, "layer4", relu=False).clamp_min(0))


def test_all_classes_share_a_pass_for_each_map_and_the_batch_bounds_the_memory():
    net, x, sizes = ended(), batch(2), []
    net.register_forward_pre_hook(lambda _net, inputs: sizes.append(len(inputs[0])))
    score_cam(net, x, [[0, 1, 2, 3]] * 2, "layer4", batch_size=4)
    assert max(sizes) <= 4
    assert sum(sizes) == 2 + 2 + 2 * 6  # for the maps, for the top classes, and one for each map of each image
    close(score_cam(net, x, 1, "layer4", batch_size=1), score_cam(net, x, 1, "layer4", batch_size=50))


def test_a_map_without_any_shape_hides_everything():
    net = nn.Sequential(nn.Identity(), Call(lambda f: torch.stack([f.sum((1, 2, 3)), -f.sum((1, 2, 3))], 1)))
    x = torch.ones(1, 2, 3, 3)
    assert score_cam(net, x, 0, layer="0").tolist() == [[[1.0] * 3] * 3]  # even weights of two equal maps


def test_bad_channels_are_refused():
    with pytest.raises(ValueError, match="channels must be"):
        score_cam(ended(), batch(), 1, "layer4", channels=0)
