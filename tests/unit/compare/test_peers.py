"""SqueezeNet, with ImageNet weights where they are, beside captum and torchcam: the same maps to 1e-5."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models import squeezenet1_0

from helpers import cam, saliency
from tools.project import ROOT

WEIGHTS = Path("squeezenet", "squeezenet1_0.safetensors")
FOLDER = Path(os.environ.get("HELPERS_ARCHIVES", ROOT.parent / "shared" / "data"))
CLASSES = torch.tensor([3, 717])


@pytest.fixture(scope="module", params=["random", "ImageNet"])
def network(request):
    torch.manual_seed(0)
    net = squeezenet1_0()
    if request.param == "ImageNet":
        if not (FOLDER / WEIGHTS).exists():
            pytest.skip("needs the weights of ImageNet, in $HELPERS_ARCHIVES")
        net.load_state_dict({k: v.float() for k, v in safetensors.torch.load_file(FOLDER / WEIGHTS).items()})
    for module in net.modules():  # captum's hooks do not bear ReLUs that write into their input
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return net.double().eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def alike(ours, theirs):
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-5 * theirs.abs().max().item())


CAPTUM = {
    "input_gradient": ("Saliency", saliency.input_gradient, {"abs": False}),
    "gradient_times_input": ("InputXGradient", saliency.gradient_times_input, {}),
    "integrated_gradients": (
        "IntegratedGradients",
        lambda net, x, target: saliency.integrated_gradients(net, x, target, steps=6),
        {"n_steps": 6, "method": "gausslegendre"},
    ),
    "guided_backprop": ("GuidedBackprop", saliency.guided_backprop, {}),
}


@pytest.mark.filterwarnings("ignore::UserWarning:captum")
@pytest.mark.parametrize("name", CAPTUM)
def test_gradients_are_captums(name, network, x):
    attr = pytest.importorskip("captum.attr")
    peer, ours, options = CAPTUM[name]
    theirs = getattr(attr, peer)(copy.deepcopy(network)).attribute(x.clone(), target=CLASSES, **options)
    alike(ours(network, x, CLASSES), theirs)


@pytest.mark.parametrize("layer", ["features.12", "classifier.1", None])
def test_grad_cam_is_captums(layer, network, x):
    attr = pytest.importorskip("captum.attr")
    name = layer or "classifier.2"  # the ReLU behind the last convolution
    theirs = attr.LayerGradCam(network, network.get_submodule(name)).attribute(
        x, target=CLASSES, relu_attributions=True
    )
    alike(cam.grad_cam(network, x, CLASSES, layer=layer), theirs[:, 0])


def test_class_activation_maps_are_torchcams_with_the_bias_and_the_relu(network, x):
    methods = pytest.importorskip("torchcam.methods")
    ours = cam.class_activation_map(network, x, CLASSES)
    # torchcam weighs the maps by the convolution's weights, and leaves out its bias and the ReLU behind it.
    peer_model = copy.deepcopy(network).float()
    with methods.CAM(peer_model, target_layer="features", fc_layer="classifier.1") as extractor:
        scores = peer_model(x.float())
        (theirs,) = extractor(CLASSES.tolist(), scores, normalized=False)
    bias = network.classifier[1].bias[CLASSES].detach()
    expected = (theirs.double() + bias[:, None, None]).relu()
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    torch.testing.assert_close(ours.mean((1, 2)), network(x).gather(1, CLASSES[:, None])[:, 0].detach())
