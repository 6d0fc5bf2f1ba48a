"""The methods that stand side by side, each against the library's own call."""

import pytest
import torch
import torch.nn.functional as F
from support.licnn import close, known_methods, noise, tiny_network
from support.untouched import assert_untouched

from helpers import compare, saliency


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
def test_methods_are_the_books(layer):
    model, x, labels = tiny_network(), noise(3, 3, 12, 16), torch.tensor([2, 0, 7])
    methods, expected = compare.attribution_methods(layer=layer), known_methods(layer)
    assert list(methods) == list(expected)
    for name, method in methods.items():
        with assert_untouched(model):
            maps = method(model, x, labels)
        assert maps.shape == (3, 12, 16), name
        assert maps.dtype == torch.float64
        close(maps, expected[name](model, x, labels))
        close(maps[1:2], method(model, x[1:2], labels[1:2]))
    signed = [name for name, method in methods.items() if (method(model, x, labels) < 0).any()]
    assert signed == ["gradient", "gradient x input", "integrated gradients", "guided backprop"]


def test_other_maps_have_cam_only_where_it_is_known():
    model, x, labels = tiny_network(), noise(2, 3, 12, 16), torch.tensor([2, 5])
    methods = compare.two_object_methods(model, layer="relu2")
    signed = ["gradient x input", "integrated gradients", "Grad-CAM"]
    assert list(methods) == ["|gradient|", *signed, "|guided backprop|", "CAM"]
    close(methods["|guided backprop|"](model, x, labels), saliency.guided_backprop(model, x, labels).abs().amax(1))
    for name in ("|gradient|", *signed):
        close(methods[name](model, x, labels), known_methods("relu2")[name](model, x, labels))
    assert "CAM" not in compare.two_object_methods(tiny_network(pooling="gmp"), layer="relu2")
    with torch.no_grad():
        last = torch.einsum("nf,nfhw->nhw", model.fc.weight[labels], model.features(x))
    expected = F.interpolate(last[:, None], (12, 16), mode="bilinear", align_corners=False)[:, 0]
    close(methods["CAM"](model, x, labels), expected)


@pytest.mark.parametrize("name", compare.METHODS)
def test_every_method_of_the_registry_is_explained(name):
    net, x = tiny_network(), noise(3, 3, 16, 12)
    classes = torch.tensor([[0, 2], [1, 1], [2, 0]])
    with assert_untouched(net):
        both = compare.explain(net, x, name, classes)
    assert both.shape == (3, 2, *x.shape[2:])
    with torch.no_grad():
        best = net.eval()(x).argmax(1)
    own = compare.explain(net, x, name)
    assert own.shape == (3, *x.shape[2:])
    torch.testing.assert_close(own, compare.explain(net, x, name, best))
    torch.testing.assert_close(both[:, 1], compare.explain(net, x, name, classes[:, 1]))


def test_what_explain_refuses_and_warns_of():
    net, x = tiny_network(), noise(2, 3, 16, 12)
    with pytest.raises(ValueError, match="method must be one of 'input_gradient'"):
        compare.explain(net, x, "gradcam")
    with pytest.raises(ValueError, match="layer must be left out for 'occlusion'"):
        compare.explain(net, x, "occlusion", layer="relu1")
    with pytest.warns(UserWarning, match="like bytes: networks.normalize"):
        compare.explain(net, noise(2, 3, 16, 12).abs() * 100, "input_gradient")
