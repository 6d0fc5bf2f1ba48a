"""Layers given by name or as modules, found by running, and told from tables and from maps with the channels last."""

import pytest
import torch
from support.untouched import assert_untouched
from torch import nn
from torchvision.models import VisionTransformer, resnet18, squeezenet1_1, swin_t
from torchvision.models.vgg import VGG, make_layers

from helpers import cam, licnn, similarnet
from helpers.capture import activations, feature_layers, gradients, last_feature_layer, layer_name, suggested_layers


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()


X = torch.rand(2, 3, 10, 8, generator=torch.Generator().manual_seed(1))


def test_a_layer_is_a_name_or_a_module_of_this_network():
    net = small()
    assert layer_name(net, "features.3") == "features.3"  # whether there is one is seen where it runs
    assert layer_name(net, net[1]) == "1"
    with pytest.raises(ValueError, match="must be a module of this network, got a ReLU that is none of them"):
        layer_name(net, nn.ReLU())
    with pytest.raises(ValueError, match=r"layers\[1\] must be the name of one layer, or the module itself, got 3"):
        layer_name(net, 3, "layers[1]")
    for ours in (activations(net, X, net[1]), gradients(net, X, None, [net[1]]).activations):
        assert list(ours) == ["1"]
        torch.testing.assert_close(ours["1"], net[:2](X).detach())


def small_vgg(num_classes):
    net = VGG(make_layers([8, "M", 16, "M"]), num_classes, init_weights=False)
    net.classifier = nn.Linear(16 * 7 * 7, num_classes)  # of 120 million weights otherwise
    return net


def small_vit(num_classes):
    return VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=num_classes
    )


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (resnet18, "layer4"),
        (small_vgg, "features"),  # not the pooling to 7 x 7 behind it
        (squeezenet1_1, "classifier.2"),
        (swin_t, "permute"),  # "norm" gives (B, h, w, C)
        (small_vit, "conv_proj"),
    ],
)
def test_the_last_layer_with_feature_maps_is_found_by_running(make, expected):
    torch.manual_seed(0)
    net, x = make(num_classes=4), torch.rand(2, 3, 64, 64)
    with assert_untouched(net):
        assert last_feature_layer(net, x) == expected
    assert cam.grad_cam(net, x, 1).equal(cam.grad_cam(net, x, 1, layer=expected))


def test_layers_with_feature_maps_come_as_they_run():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 7, 1), nn.Flatten())
    assert feature_layers(net, X) == {"0": (4, 8, 6), "1": (4, 8, 6)}  # of more than one place
    assert suggested_layers(net, X) == "'1'"
    flat = nn.Sequential(nn.Flatten(), nn.Linear(240, 5))
    with pytest.raises(ValueError, match=r"must have a layer with feature maps .* got none"):
        last_feature_layer(flat, X)


def test_maps_with_the_channels_last_are_refused_with_a_layer_that_does():
    torch.manual_seed(0)
    net, x = swin_t(num_classes=7).eval(), torch.rand(2, 3, 64, 64)
    for call in (
        lambda: cam.grad_cam(net, x, 1, layer="norm"),
        lambda: similarnet.ablation_errors(net, x, torch.tensor([0, 1]), layer="norm"),
    ):
        with pytest.raises(ValueError, match=r"'norm' with \(2, 2, 2, 768\), its channels last; .*'permute'"):
            call()
    assert len(similarnet.ablation_errors(net, x, torch.tensor([0, 1]), layer="permute").errors) == 768


def test_an_unknown_layer_is_answered_with_near_names_or_the_last_ones():
    net = squeezenet1_1(num_classes=4)
    with pytest.raises(ValueError, match=r"got 'features.12.expand1x'; the nearest names are .*features.12.expand1x1"):
        activations(net, torch.rand(1, 3, 64, 64), "features.12.expand1x")
    with pytest.raises(ValueError, match=r"got 'conv10'; the last ones are .*classifier.1"):
        activations(net, torch.rand(1, 3, 64, 64), "conv10")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_named():
    for script in (torch.jit.trace(small(), X), torch.jit.script(small())):
        with pytest.raises(ValueError, match="must not be TorchScript"):
            cam.grad_cam(script, X, 1, layer="1")


@pytest.mark.parametrize("name", [False, True])
def test_the_network_itself_is_no_layer(name):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(ValueError, match="must be a module inside the network, got the network itself"):
        activations(net, torch.rand(1, 3, 8, 8), "" if name else net)


class Functional(nn.Module):
    """One convolution behind the other with a ReLU as a function, and one SiLU for both."""

    def __init__(self):
        super().__init__()
        self.block, self.act, self.fc = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)), nn.SiLU(), nn.Linear(3, 5)

    def forward(self, x):
        return self.fc(self.act(self.block(self.act(self.block(x)))).mean((2, 3)))


def test_suggested_layers_are_calls_behind_activations_and_do():
    net, x = Functional().eval(), X
    assert suggested_layers(net, x) == "'act#1', 'act#2'"
    assert cam.grad_cam(net, x, 1, "act#2").shape == licnn.attention_map(net, x, 1, layers=["act#1", "act#2"]).shape
    conv = net.block[0].forward
    net.block.forward, net.act = (lambda x: conv(x).relu()), nn.Identity()
    assert suggested_layers(net, x) == "'block#1', 'block#2'"  # not the convolution, which is not run as a module
    assert suggested_layers(nn.Flatten(), x) == "none (input_gradient and occlusion need no layer)"
