"""What is promised everywhere: a result depends on the arguments alone.

Numpy's numbers give what Python's do, down to uint8; what torch is set to changes nothing; values in half precision are
rounded once, and their scale does not matter.
"""

import copy
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from support.tensors import seeded
from torch import nn

from helpers import (
    background,
    basics,
    boxes,
    cam,
    capture,
    compare,
    data,
    device,
    factors,
    filters,
    licnn,
    metrics,
    networks,
    plots,
    quadtree,
    readout,
    retina,
    saliency,
    sanity,
    search,
    similarnet,
    training,
)


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    return nn.Sequential(*layers).eval()


def fitted(fit, i):
    """The weights that training leaves."""
    with torch.inference_mode(False):
        network = copy.deepcopy(NET)
    fit(network, X, Y, epochs=i(2), batch_size=i(1), seed=i(3), progress=False)
    return [parameter.detach() for parameter in network.parameters()]


def redrawn(networks):
    return [parameter for _, network in networks for parameter in network.parameters()]


def drawn(figure):
    figure.draw_without_rendering()
    return [ax.get_position().bounds for ax in figure.axes]


X = torch.rand(2, 3, 16, 16, generator=seeded(0))
WIDE = torch.rand(2, 6, 600, generator=seeded(3))  # more places than half precision can tell apart
M, Y, BOX, LEAF = X[:, 0], torch.tensor([1, 2]), torch.tensor([[1.0, 1, 4, 4]] * 2), torch.tensor([[0, 0, 8]])
FAR_BOX, SQUARE = torch.tensor([[100.0, 1, 515, 5]]), torch.tensor([[0, 0, 0, 3, 3]])
ONES, CORNERS, LABELS = torch.tensor([[1, 1]]), torch.tensor([[0, 1], [2, 3]]), torch.arange(9)
REGION, LOGS = M > 0.5, torch.rand(2, 9, 5, generator=seeded(1)).log_softmax(-1)
CELLS, VIEWS = torch.rand(1, 10, 24, generator=seeded(2)), {"view": retina.log_polar, "batch_size": 2}
NET, POOL, GRID = net(), nn.MaxPool2d(2), search.fixation_grid(3).flatten(0, 1)

CALLS = {  # i makes an integer, f a number
    "output_size": lambda i, f: basics.output_size(i(7), i(3), stride=i(2), padding=i(1), dilation=i(1)),
    "convolve": lambda i, f: basics.convolve(X, X[:1, :, :3, :3], stride=i(2), padding=i(1)),
    "layer_costs": lambda i, f: basics.layer_costs(NET, (i(3), i(16), i(16))),
    "path_counts": lambda i, f: basics.path_counts(NET, "0", (i(3), i(16), i(16))),
    "receptive_fields": lambda i, f: basics.receptive_fields(nn.Sequential(nn.MaxPool2d(i(3), i(2), i(1)), POOL)),
    "unit_gradient": lambda i, f: basics.unit_gradient(NET, X[:1], "0", (i(3), i(4))),
    "blurred": lambda i, f: filters.blurred(X, f(1)),
    "dilate_masks": lambda i, f: filters.dilate_masks(REGION, f(2)),
    "upsample": lambda i, f: filters.upsample(M, (i(20), i(21)), offset=f(0.5)),
    "box_mask": lambda i, f: boxes.box_mask(BOX, (i(8), i(8))),
    "a box far off": lambda i, f: boxes.box_mask(FAR_BOX, (8, 600)),
    "nmf": lambda i, f: factors.nmf(M[0], i(2), i(5), i(1)),
    "factorization": lambda i, f: factors.deep_feature_factorization(X, i(2), iterations=i(5), seed=i(1)),
    "position_readout": lambda i, f: readout.position_readout(NET, X.repeat(4, 1, 1, 1), BOX.repeat(4, 1)[:, :2],
                                                              ["0"], train=f(0.5)),
    "accuracy_under_blur": lambda i, f: background.accuracy_under_blur(NET, X, Y, REGION, [f(1)], [i(1)],
                                                                       batch_size=i(1)),
    "blur_inside": lambda i, f: background.blur_inside(X, REGION, f(1)),
    "salient_region": lambda i, f: background.salient_region(M, f(0.25)),
    "same_area_control": lambda i, f: [background.same_area_control(REGION, kind, seed=i(3))
                                       for kind in background.KINDS],
    "seed_everything": lambda i, f: device.seed_everything(i(3)).initial_seed(),
    "in_batches": lambda i, f: capture.in_batches(capture.logits, NET, X, batch_size=i(1)),
    "ablated_logits": lambda i, f: capture.ablated_logits(NET, X, "0", copies=i(100)),
    "chunks": lambda i, f: list(capture.chunks(i(5), i(2), X)),
    "gradients": lambda i, f: capture.gradients(NET, X, i(1), "0"),
    "masked_forward": lambda i, f: capture.masked_forward(NET, X, {"0": f(0.5)}),
    "class_model": lambda i, f: saliency.class_model(NET, i(1), (i(3), i(8), i(8)), l2=f(0.5), steps=i(2), lr=f(1),
                                                     start=f(0.25)),
    "integrated_gradients": lambda i, f: saliency.integrated_gradients(NET, X, i(1), steps=i(3), baseline=f(0.5),
                                                                       batch_size=i(2)),
    "smooth_gradient": lambda i, f: saliency.smooth_gradient(NET, X, i(1), samples=i(3), noise=f(0.25), seed=i(1),
                                                             batch_size=i(2)),
    "occlusion": lambda i, f: saliency.occlusion(NET, X, i(1), window=i(4), stride=(i(4), i(3)), fill=f(0.5),
                                                 batch_size=i(3)),
    "region_occlusion": lambda i, f: saliency.region_occlusion(NET, X, i(1), SQUARE,
                                                               fill=1 / 3, batch_size=i(3)),
    "saliency_box with images": lambda i, f: saliency.saliency_box(M, X),
    "saliency_box": lambda i, f: saliency.saliency_box(M, foreground=f(0.75), background=f(0.25)),
    "several targets": lambda i, f: saliency.input_gradient(NET, X, [i(1), i(2)]),
    "grad_cam": lambda i, f: compare.explain(NET, X, "grad_cam", i(1), layer="1"),
    "attention_map": lambda i, f: compare.explain(NET, X, "attention_map", i(1), layer="1"),
    "class_specific_units": lambda i, f: cam.class_specific_units(NET, i(1), i(2)),
    "receptive_field_crop": lambda i, f: cam.receptive_field_crop(NET, X, [i(0)], i(4), i(2), layer="1",
                                                                  batch_size=i(1)),
    "largest_component_box": lambda i, f: cam.largest_component_box(M, f(0.25)),
    "inhibition_kernel": lambda i, f: licnn.inhibition_kernel(i(17)),
    "lateral_inhibition": lambda i, f: licnn.lateral_inhibition(M, i(5), f(0.25), f(0.5)),
    "inhibition_mask": lambda i, f: licnn.inhibition_mask(M, i(17), f(0.25), f(0.5)),
    "center_surround_mask": lambda i, f: licnn.center_surround_mask(M),
    "random_places": lambda i, f: licnn.random_places(M),
    "licnn.saliency_map": lambda i, f: licnn.saliency_map(NET, X, i(2)),
    "deletion": lambda i, f: metrics.deletion(NET, X, i(1), M, steps=i(4), fill=f(0.5), batch_size=i(3)),
    "insertion": lambda i, f: metrics.insertion(NET, X, i(1), M, steps=i(4), fill=f(0.5), batch_size=i(3)),
    "pointing_game": lambda i, f: metrics.pointing_game(M, REGION, tolerance=f(2)),
    "random_map": lambda i, f: metrics.random_map(X, i(3)),
    "detections": lambda i, f: metrics.detections(BOX[None], BOX[None], iou=f(0.5)),
    "build_quadtree": lambda i, f: quadtree.build_quadtree(M[0], f(0.5), min_size=i(2)),
    "threshold_for": lambda i, f: quadtree.threshold_for(M[0], i(7), min_size=i(1)),
    "exact_conv_sites": lambda i, f: quadtree.exact_conv_sites(LEAF, i(3), i(2)),
    "leaf_map": lambda i, f: quadtree.leaf_map(LEAF, (i(8), i(8))),
    "reconstruct": lambda i, f: quadtree.reconstruct(LEAF, M[:1, 0, :1], (i(8), i(8))),
    "ablation_errors": lambda i, f: similarnet.ablation_errors(NET, X, Y, layer="0", batch_size=i(1)),
    "hotspots": lambda i, f: similarnet.hotspots(M, f(0.5), min_area=i(3)).nan_to_num(-1),
    "importance_weights": lambda i, f: similarnet.importance_weights(f(0.5), M[0, 0], temperature=f(2)),
    "map_threshold": lambda i, f: similarnet.map_threshold(M, f(0.5)),
    "cascading": lambda i, f: redrawn(sanity.cascading_randomization(NET, seed=i(3))),
    "independent": lambda i, f: redrawn(sanity.independent_randomization(NET, seed=i(3))),
    "permuted_labels": lambda i, f: sanity.permuted_labels(LABELS, seed=i(3)),
    "sanity_check": lambda i, f: sanity.sanity_check(saliency.class_saliency, NET, X, i(1), seed=i(3)).maps,
    "fit": lambda i, f: fitted(training.fit, i),
    "predict": lambda i, f: training.predict(NET, X, batch_size=i(1)),
    "topk_correct": lambda i, f: training.topk_correct(M[0], LABELS[:1], i(3)),
    "AngularPad2d": lambda i, f: retina.AngularPad2d(i(1))(X),
    "log_polar": lambda i, f: retina.log_polar(X, None, (i(8), i(9)), f(0.125), f(0.5), f(0.25)),
    "log_polar, antialias": lambda i, f: retina.log_polar(X, None, (8, 8), antialias=True),
    "inscribed_disc": lambda i, f: retina.inscribed_disc(X.repeat(1, 1, 17, 17)),
    "LogPolar": lambda i, f: retina.LogPolar((i(8), i(9)), f(0.125), f(0.5), f(0.25))(X),
    "inverse_log_polar": lambda i, f: retina.inverse_log_polar(X[:, None], (i(8), i(9)), None, f(0.125), f(0.5)),
    "cartesian": lambda i, f: retina.cartesian(X, size=i(8), r_max=f(0.5)),
    "log_polar_grid": lambda i, f: retina.log_polar_grid(i(8), i(9), f(0.125), f(0.5), f(0.25)),
    "fixation_grid": lambda i, f: search.fixation_grid(i(3)),
    "label_map": lambda i, f: search.label_map(NET, X, fixations=i(3), **VIEWS),
    "accuracy_map": lambda i, f: search.accuracy_map(NET, X, Y, i(3), **VIEWS),
    "search": lambda i, f: search.search(NET, X, "random", i(2), fixations=i(3), seed=i(1), **VIEWS),
    "search_precomputed": lambda i, f: search.search_precomputed("random", LOGS[:, 0], LOGS, GRID, i(2), seed=i(1)),
    "spread_map": lambda i, f: search.spread_map(M[:1], (i(20), i(20))),
    "collicular_target": lambda i, f: search.collicular_target(M[0, :3, :5], ONES, i(16), f(0.25)),
    "predicted_map": lambda i, f: search.predicted_map(CELLS, i(16), f(0.25)),
    "WhereNet": lambda i, f: str(search.WhereNet(i(9))),
    "SmallVGG": lambda i, f: str(networks.SmallVGG(i(5), i(3), stages=[[i(4), i(6)]], atrous=i(0))),
    "LeNet": lambda i, f: str(networks.LeNet(i(3), i(1), i(28))),
    "adopt": lambda i, f: networks.adopt(NET, [f(0.5)] * 3, [f(0.25)] * 3, i(16), i(5)).card.classes,
    "band_noise": lambda i, f: data.band_noise(i(2), i(1), i(32), f(0.125), f(0.125)),
    "digits": lambda i, f: data.digits(i(2), i(1), size=i(28), rotate=f(15), shear=f(0.25), shift=f(2)),
    "scenes": lambda i, f: data.scenes(i(2), i(1), size=i(64), objects=i(2), bias=f(0), text=f(0.5)),
    "digit_scenes": lambda i, f: data.digit_scenes(i(2), i(1), size=i(84), digits=(i(1), i(2)), height=f(20)),
    "place": lambda i, f: data.place(X, CORNERS, i(20)),
    "noisy_displays": lambda i, f: data.noisy_displays(data.digits(2).images, i(1), size=i(64),
                                                       contrast=(f(0.25), f(0.5)), noise=f(0.5)),
    "write": lambda i, f: data.write(X.new_zeros(3, 40, 40), "a", (i(1), i(2)), height=f(10), value=f(0.5)),
    "contrast_centroid": lambda i, f: readout.contrast_centroid(WIDE),
    "weighted_maps": lambda i, f: cam.weighted_maps(X, M[0, 0, :3]),
    "images": lambda i, f: drawn(plots.images(M, columns=i(2), vmin=f(0), vmax=f(1))),
    "overlay": lambda i, f: drawn(plots.overlay(M, M, columns=i(2), alpha=f(0.5), clip=f(0.125))),
    "boxes": lambda i, f: drawn(plots.boxes(M, {"a": BOX}, columns=i(2))),
    "gallery": lambda i, f: drawn(plots.gallery(list(M), columns=i(2))),
    "scanpaths": lambda i, f: drawn(plots.scanpaths(M, torch.zeros(2, 2, 2), radius=f(0.5), columns=i(2))),
}  # fmt: skip


def parts(result):
    """What a result holds, tensor by tensor and number by number."""
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, list | tuple):
        return [part for entry in result for part in parts(entry)]
    return [result]


@cache
def expected(name):
    return parts(CALLS[name](int, float))


def same(actual, right, error=0.0):
    assert [type(part) for part in actual] == [type(part) for part in right]
    for a, b in zip(actual, right, strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=error, atol=error, equal_nan=True)
        else:
            assert a == b


@pytest.mark.parametrize("name", CALLS)
def test_numpys_numbers_give_what_pythons_do(name):
    for i, f in ((np.int64, np.float32), (np.uint8, np.float16))[name in SLOW :]:
        same(parts(CALLS[name](i, f)), expected(name))


# whatever torch is set to


@contextmanager
def set_to(dtype, context):
    torch.set_default_dtype(dtype)
    try:
        with context:
            yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {  # two at a time; the first shows dtypes that are left to torch, the second numbers that lose digits by it
    "float64, inference": lambda: set_to(torch.float64, torch.inference_mode()),
    "bfloat16, default device": lambda: set_to(
        torch.bfloat16, torch.device("meta")
    ),  # as torch.set_default_device does
}
SLOW = {"images", "overlay", "boxes", "gallery", "scanpaths", "digits", "scenes"}  # drawn without torch
SET = [name for name in CALLS if name not in SLOW | {"SmallVGG", "LeNet", "WhereNet"}]  # who makes a network sets it


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", SET)
def test_what_torch_is_set_to_changes_no_result(name, setting):
    right = expected(name)
    with SETTINGS[setting]():
        actual = parts(CALLS[name](int, float))
    same(actual, right, 1e-6)


@pytest.mark.parametrize("name", ["fit", "path_counts"])  # test_contract.py has whatever else asks for gradients
def test_gradients_are_recorded_under_no_grad(name):
    right = expected(name)
    with torch.no_grad():
        same(parts(CALLS[name](int, float)), right)


RUN_A_NETWORK = {
    "unit_gradient", "path_counts", "position_readout", "accuracy_under_blur", "in_batches", "ablated_logits",
    "gradients", "masked_forward", "class_model", "integrated_gradients", "smooth_gradient", "occlusion",
    "region_occlusion", "several targets", "grad_cam", "attention_map", "class_specific_units",
    "receptive_field_crop", "licnn.saliency_map", "deletion", "insertion", "ablation_errors", "sanity_check", "fit",
    "predict", "label_map", "accuracy_map", "search",
}  # fmt: skip


@pytest.mark.parametrize("name", SET)
def test_autocast_rounds_the_networks_own_numbers_alone(name):
    right = expected(name)
    with torch.autocast("cpu"):
        actual = parts(CALLS[name](int, float))
    if name not in RUN_A_NETWORK:
        same(actual, right, 1e-6)
    for a, b in zip(actual, right, strict=True):
        if isinstance(a, torch.Tensor) and a.is_floating_point():
            torch.testing.assert_close(a.to(b.dtype), b, rtol=0.05, atol=0.02, equal_nan=True)


def test_kernels_that_are_kept_in_inference_mode_serve_gradients():
    search._colliculus._kernels.cache_clear(), search._colliculus._map_from_cells.cache_clear()
    with torch.inference_mode():
        search.predicted_map(torch.full((1, 10, 24), 0.4), 24)
    cells = torch.full((1, 10, 24), 0.4, requires_grad=True)
    search.predicted_map(cells, 24).sum().backward()
    assert cells.grad.abs().sum() > 0


# as many digits as the values ask for, and any scale


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "function"),
    {
        "contrast_centroid": readout.contrast_centroid,
        "center_map": lambda maps: metrics.center_map(maps[:, None]),
        "edge_map": lambda maps: metrics.edge_map(maps[:, None]),
        "blurred_map": lambda maps: metrics.blurred_map(maps[:, None, :, :40]),
        "blurred": lambda maps: filters.blurred(maps[:, None, :, :40], 3),
        "spread_map": lambda maps: search.spread_map(maps[:, :6, :6], (20, 600)),
        "lateral_inhibition": licnn.lateral_inhibition,
        "unit_norm": licnn.unit_norm,
        "rms_mask": licnn.rms_mask,
        "center_surround_mask": lambda maps: licnn.center_surround_mask(maps[:, :, :40]),
        "two sigma": lambda maps: similarnet.map_threshold(maps, "two sigma"),
        "predicted_map": lambda maps: search.predicted_map(maps[:, :1, :240].unflatten(2, (10, 24))[:, 0], 32),
    }.items(),
)
def test_maps_in_half_precision_are_rounded_once(name, function, dtype):
    maps = WIDE.to(dtype)
    right = function(maps.double()).double()
    eps = torch.finfo(dtype).eps
    room = {"rtol": eps, "atol": eps * right.abs().max().item() / 2}
    torch.testing.assert_close(function(maps).double(), right, **room)


def test_a_bright_half_precision_map_keeps_its_norm():
    maps = torch.ones(1, 300, 300).half()  # 90,000 squares, more than half precision can count
    torch.testing.assert_close(licnn.unit_norm(maps), torch.full_like(maps, 1 / 300))


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e38), (torch.float64, 1e300), (torch.float64, 1e-300)])
def test_maps_of_any_scale(dtype, scale):
    maps = WIDE[:, :, :40].to(dtype)
    large = maps * scale
    torch.testing.assert_close(readout.contrast_centroid(large), readout.contrast_centroid(maps))
    threshold = similarnet.map_threshold(large, "two sigma") / scale
    torch.testing.assert_close(threshold, similarnet.map_threshold(maps, "two sigma"))
    parts, right = (factors.deep_feature_factorization(x[:, None], 1, iterations=9) for x in (large, maps))
    torch.testing.assert_close(parts / scale, right, rtol=1e-4, atol=1e-6)
