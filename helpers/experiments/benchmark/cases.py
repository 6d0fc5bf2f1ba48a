"""What `python -m helpers.experiments.benchmark` compares: every chapter's methods, and a peer for each."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from helpers import cam, factors, licnn, retina, saliency, search, similarnet
from helpers.capture import activations, masked_forward
from helpers.experiments.benchmark import reference_licnn
from helpers.experiments.train.recipes import FORTY, PHOTOS_STAGES
from helpers.networks import LeNet, SmallVGG

STEPS = 50  # of integrated gradients and SmoothGrad
CLASSES = 5  # of the cases with several classes
PARTS, UPDATES = 4, 100  # of the factorisation
FIXATIONS = 7  # a side
LAYER = "layer4"  # ResNet-18's last feature maps
Method = Callable[[nn.Module, Tensor, Tensor], Any]


class Case(NamedTuple):
    """One comparison: the same batch, the same classes, two implementations."""

    name: str
    batch: int
    ours: Method
    peer: str  # distribution and what is called; the first word is imported
    theirs: Method
    several: bool = False  # CLASSES classes of every image
    network: str = "resnet18"  # or "lenet", which sees 28 x 28 pixels, "vgg16", or "photos"
    size: int | None = None  # pixels a side, where they are not those of the command line


def _captum(name: str, *wrapped: str, **options: Any) -> Method:
    """captum's method of this name, around others where names follow."""

    def run(model: nn.Module, x: Tensor, target: Tensor) -> Any:
        attr = importlib.import_module("captum.attr")
        method = model
        for step in (*reversed(wrapped), name):
            method = getattr(attr, step)(method)
        return method.attribute(x, target=target, **options)

    return run


def _class_by_class(run: Method) -> Method:
    """A peer's method for one class, called for each of several."""
    return lambda model, x, target: torch.stack([run(model, x, classes) for classes in target.unbind(1)], 1)


def _occlusion_cases(side: int) -> Case:
    window, stride = side // 4, side // 8
    theirs = _captum("Occlusion", sliding_window_shapes=(3, window, window), strides=(3, stride, stride))
    ours = functools.partial(saliency.occlusion, window=window, stride=stride)
    return Case("occlusion, 49 windows", 4, ours, "captum Occlusion", theirs)


def saliency_cases(side: int) -> list[Case]:
    """The cases of chapter 2, for images of `side` pixels."""
    ig = functools.partial(saliency.integrated_gradients, steps=STEPS)
    smooth = functools.partial(saliency.smooth_gradient, samples=STEPS)
    noisy = _captum("NoiseTunnel", "Saliency", nt_type="smoothgrad", nt_samples=STEPS, stdevs=0.15, abs=False)
    return [
        Case("class saliency", 16, saliency.class_saliency, "captum Saliency", _captum("Saliency")),
        Case(
            "class saliency, 5 classes",
            8,
            saliency.class_saliency,
            "captum Saliency x 5",
            _class_by_class(_captum("Saliency")),
            True,
        ),
        Case("guided backprop", 16, saliency.guided_backprop, "captum GuidedBackprop", _captum("GuidedBackprop")),
        Case("integrated gradients, 50 steps", 4, ig, "captum IntegratedGradients", _captum("IntegratedGradients")),
        Case("SmoothGrad, 50 samples", 4, smooth, "captum NoiseTunnel", noisy),
        _occlusion_cases(side),
    ]


def _captum_grad_cam(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    method = importlib.import_module("captum.attr").LayerGradCam(model, getattr(model, LAYER))
    return method.attribute(x, target=target, relu_attributions=True)[:, 0].detach()


def _torchcam(name: str, *layers: str) -> Method:
    """torchcam's method of this name: a forward of the caller's, then the maps."""

    def run(model: nn.Module, x: Tensor, target: Tensor) -> Any:
        with getattr(importlib.import_module("torchcam.methods"), name)(model, *layers) as extract:
            return extract(target.tolist(), model(x), normalized=False)[0]

    return run


def _parts(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    maps = activations(model, x, LAYER)[LAYER]
    return factors.deep_feature_factorization(maps, PARTS, iterations=UPDATES)


def _sklearn_parts(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    maps = activations(model, x, LAYER)[LAYER].movedim(1, 3).flatten(0, 2).cpu().numpy()
    nmf = importlib.import_module("sklearn.decomposition").NMF
    return nmf(PARTS, init="random", solver="mu", max_iter=UPDATES, tol=0, random_state=0).fit_transform(maps)


def cam_cases(side: int) -> list[Case]:
    """The cases of chapter 3; they are the same for images of every size."""
    ours, theirs = functools.partial(cam.grad_cam, layer=LAYER), _captum_grad_cam
    return [
        Case("CAM", 16, cam.class_activation_map, "torchcam CAM", _torchcam("CAM", LAYER, "fc")),
        Case("Grad-CAM", 16, ours, "captum LayerGradCam", theirs),
        Case("Grad-CAM again", 16, ours, "torchcam GradCAM", _torchcam("GradCAM", LAYER)),
        Case("Grad-CAM, 5 classes", 8, ours, "captum LayerGradCam x 5", _class_by_class(theirs), True),
        Case("factorisation, 4 parts", 16, _parts, "sklearn NMF", _sklearn_parts),
    ]


def _ablation(layer: str) -> Method:
    """The log-loss without each filter, in one pass."""
    return lambda model, x, target: similarnet.ablation_errors(model, x, target, layer=layer, error="nll").errors


def _filters(model: nn.Module, x: Tensor, layer: str) -> int:
    return activations(model, x[:1], layer)[layer].shape[1]


def _masked(layer: str) -> Method:
    """The same by running the whole network again for every filter."""

    def run(model: nn.Module, x: Tensor, target: Tensor) -> Any:
        masks = 1 - torch.eye(_filters(model, x, layer), device=x.device)
        losses = [F.cross_entropy(masked_forward(model, x, {layer: m[:, None, None]}).logits, target) for m in masks]
        return torch.stack(losses)

    return run


def _captum_ablation(layer: str) -> Method:
    """captum's ablation of a layer, a feature map a group."""

    def run(model: nn.Module, x: Tensor, target: Tensor) -> Any:
        def losses(x: Tensor) -> Tensor:
            return F.cross_entropy(model(x), target, reduction="none")

        groups = torch.arange(_filters(model, x, layer), device=x.device)[:, None, None]
        method = importlib.import_module("captum.attr").LayerFeatureAblation(losses, model.get_submodule(layer))
        with torch.no_grad():
            return method.attribute(x, layer_baselines=0, layer_mask=groups)  # (B, F, h, w): E - e of every image

    return run


def similarnet_cases(side: int) -> list[Case]:
    """The cases of chapter 4; the LeNet's images have their own size."""
    return [
        Case("ablation, 512 filters", 2, _ablation(LAYER), "captum LayerFeatureAblation", _captum_ablation(LAYER)),
        Case("ablation, 512 filters again", 2, _ablation(LAYER), "helpers masked_forward x 512", _masked(LAYER)),
        Case(
            "ablation, LeNet's 16 filters",
            100,
            _ablation("pool2"),
            "captum LayerFeatureAblation",
            _captum_ablation("pool2"),
            network="lenet",
        ),
        Case(
            "ablation, LeNet's 16 again",
            100,
            _ablation("pool2"),
            "helpers masked_forward x 16",
            _masked("pool2"),
            network="lenet",
        ),
    ]


def _saliency_map(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return licnn.saliency_map(model, x)


def licnn_cases(side: int) -> list[Case]:
    """The cases of chapter 5, on VGG-16: one image and a batch, so that the price of an image can be compared."""
    by_steps = ("helpers reference, step by step", reference_licnn.attention_by_steps)
    by_class = ("helpers reference, class by class", reference_licnn.saliency_class_by_class)
    return [
        Case("LICNN, one class", 1, licnn.attention_map, *by_steps, network="vgg16"),
        Case("LICNN, one class, 8 images", 8, licnn.attention_map, *by_steps, network="vgg16"),
        Case("LICNN, top 5", 1, _saliency_map, *by_class, network="vgg16"),
        Case("LICNN, top 5, 8 images", 8, _saliency_map, *by_class, network="vgg16"),
    ]


def _warped(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    """scikit-image's log-polar views, one image and one fixation at a time."""
    warp = importlib.import_module("skimage.transform").warp_polar
    side = x.shape[-1]
    centres = (search.fixation_grid(FIXATIONS).flatten(0, 1).flip(-1).numpy() + 1) * side / 2 - 0.5  # row, column
    return [
        warp(image, tuple(centre), radius=side / 2, output_shape=(64, 64), scaling="log", channel_axis=-1)
        for image in x.movedim(1, -1).cpu().numpy()
        for centre in centres
    ]


def _label_map(batch_size: int) -> Method:
    """The label map in passes of so many views."""
    return lambda model, x, target: search.label_map(model, x, FIXATIONS, retina.log_polar, batch_size)


def _view_by_view(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    """The same by a loop over images and fixations."""
    with torch.no_grad():
        grid = search.fixation_grid(FIXATIONS).flatten(0, 1)
        return [model(retina.log_polar(image[None], fixation[None])[:, 0]) for image in x for fixation in grid]


def search_cases(side: int) -> list[Case]:
    """The cases of chapters 6 and 7: 49 fixations of 16 images of 64 x 64 pixels, by one of the book's networks."""
    shape: dict[str, Any] = {"network": "photos", "size": 64}

    def sampled(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return retina.log_polar(x, search.fixation_grid(FIXATIONS).flatten(0, 1))

    views, ours = FIXATIONS**2, _label_map(search.BATCH_SIZE)
    return [
        Case(f"sampling, {views} fixations", 16, sampled, "skimage warp_polar", _warped, **shape),
        Case("label map", 16, ours, "helpers view by view", _view_by_view, **shape),
        Case("label map again", 16, ours, "helpers in one pass", _label_map(16 * views), **shape),
    ]


# One a chapter, the last one for two.
SUITES: dict[str, Callable[[int], list[Case]]] = {
    "saliency": saliency_cases,
    "cam": cam_cases,
    "similarnet": similarnet_cases,
    "licnn": licnn_cases,
    "search": search_cases,
}


def _vgg16() -> nn.Module:
    """VGG-16 with random weights, its ReLUs not in place, as the reference needs them."""
    model = torchvision.models.vgg16(weights=None)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: torchvision.models.resnet18(weights=None),
    "lenet": LeNet,
    "vgg16": _vgg16,
    "photos": lambda: SmallVGG(len(FORTY), stages=PHOTOS_STAGES, norm=True, angular=True),
}


def setting(case: Case, side: int, device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    """A case's network with random weights, a batch of random images, and their classes."""
    torch.manual_seed(0)
    lenet = case.network == "lenet"
    model = NETWORKS[case.network]().to(device).eval()
    side = case.size or side
    x = torch.randn(case.batch, *((1, 28, 28) if lenet else (3, side, side))).to(device)
    shape = (case.batch, CLASSES) if case.several else (case.batch,)
    return model, x, torch.randint(0, 10 if lenet else 1000, shape).to(device)
