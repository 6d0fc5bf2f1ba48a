"""What the package computes depends on its arguments alone: not on torch's settings, nor on the values' precision."""

from contextlib import contextmanager

import pytest
import torch
from support.boxes import seeded
from torch import Tensor, nn

from helpers import (
    background,
    basics,
    boxes,
    cam,
    compare,
    data,
    factors,
    filters,
    licnn,
    metrics,
    readout,
    retina,
    saliency,
    search,
    similarnet,
)
from helpers.training import fit


def tensors(result):
    """The tensors that a result is made of."""
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result for tensor in tensors(part)] if isinstance(result, list | tuple) else []


# whatever torch is set to


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def on_meta():
    return torch.device("meta")  # as torch.set_default_device does for the whole session


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": on_meta,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference": torch.inference_mode,
}
IMAGES, WIDE = torch.rand(2, 3, 12, 12, generator=seeded(0)), torch.rand(2, 6, 600, generator=seeded(1))
MASKS, BOX = IMAGES[:, 0] > 0.6, torch.tensor([[100.0, 1, 515, 5]])
THIRD = torch.tensor([1 / 3, 0.0, 0.0])
CELLS = torch.rand(1, 10, 24, generator=seeded(3))
VIEWS = torch.rand(2, 9, 5, generator=seeded(2)).log_softmax(-1)
OWN_ARITHMETIC = {
    "random_map": lambda: metrics.random_map(IMAGES, 3),
    "controls": lambda: [background.same_area_control(MASKS, kind) for kind in background.KINDS],
    "random_places": lambda: licnn.random_places(IMAGES[:, 0]),
    "center_surround_mask": lambda: licnn.center_surround_mask(IMAGES[:, 0]),
    "inhibition_mask": lambda: licnn.inhibition_mask(IMAGES[:, 0]),
    "fixation_grid": lambda: search.fixation_grid(5),
    "a random search": lambda: search.search_precomputed("random", VIEWS[:, 0], VIEWS, GRID, 3),
    "predicted_map": lambda: search.predicted_map(CELLS, 32),
    "box_mask": lambda: boxes.box_mask(BOX, (8, 600)),
    "saliency_box": lambda: saliency.saliency_box(IMAGES[:, 0], IMAGES),
    "inscribed_disc": lambda: retina.inscribed_disc(IMAGES.repeat(1, 1, 50, 50)),
    "log_polar": lambda: retina.log_polar(IMAGES, None, (8, 8), antialias=True),
    "inverse_log_polar": lambda: retina.inverse_log_polar(IMAGES[:, None], (9, 9)),
    "hotspots": lambda: similarnet.hotspots(IMAGES[:, 0], 0.5, 2),
    "band_noise": lambda: data.band_noise(1, 2, 16),
    "noisy_displays": lambda: data.noisy_displays(IMAGES[:, :1], 4),
    "nmf": lambda: factors.nmf(IMAGES[0, 0], 2, 10),
    "blurred": lambda: filters.blurred(IMAGES, 1.5),
    "weighted_maps": lambda: cam.weighted_maps(IMAGES, THIRD),
    "contrast_centroid": lambda: readout.contrast_centroid(WIDE),
}
GRID = search.fixation_grid(3).flatten(0, 1)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", OWN_ARITHMETIC)
def test_what_torch_is_set_to_changes_no_number(name, setting):
    expected = OWN_ARITHMETIC[name]()
    with SETTINGS[setting]():
        actual = OWN_ARITHMETIC[name]()
    for result, right in zip(tensors(actual), tensors(expected), strict=True):
        assert result.dtype == right.dtype
        torch.testing.assert_close(result, right, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "autocast"])
@pytest.mark.parametrize("name", ["integrated_gradients", "smooth_gradient", "occlusion", "grad_cam", "attention_map"])
def test_what_torch_is_set_to_changes_no_map(name, setting):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5))
    options = {"occlusion": {"fill": 0.1}, "grad_cam": {"layer": "1"}}.get(name, {})
    expected = compare.explain(net, IMAGES, name, 1, **options)
    with SETTINGS[setting]():
        actual = compare.explain(net, IMAGES, name, 1, **options)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_training_and_paths_run_where_no_gradients_are_recorded(context):
    def trained():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
        fit(net, IMAGES, torch.tensor([0, 2]), epochs=2, progress=False)
        return net[1].weight.detach()

    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2))
    with torch.inference_mode(False):
        right = trained(), basics.path_counts(net, "1", (1, 9, 9))
    torch.manual_seed(0)
    inside = nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
    with context():
        fit(inside, IMAGES, torch.tensor([0, 2]), epochs=2, progress=False)
        counts = basics.path_counts(net, "1", (1, 9, 9))
    torch.testing.assert_close(inside[1].weight.detach(), right[0])
    torch.testing.assert_close(counts, right[1])


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
        "blurred_map": lambda maps: metrics.blurred_map(maps[:, None]),
        "blurred": lambda maps: filters.blurred(maps[:, None], 3),
        "spread_map": lambda maps: search.spread_map(maps[:, :6, :6], (20, 600)),
        "lateral_inhibition": licnn.lateral_inhibition,
        "unit_norm": licnn.unit_norm,
        "rms_mask": licnn.rms_mask,
        "center_surround_mask": licnn.center_surround_mask,
        "two sigma": lambda maps: similarnet.map_threshold(maps, "two sigma"),
        "predicted_map": lambda maps: search.predicted_map(maps[:, :1, :240].unflatten(2, (10, 24))[:, 0], 32),
    }.items(),
)
def test_maps_in_half_precision_are_rounded_once(name, function, dtype):
    maps = WIDE.to(dtype)
    expected = function(maps.double())
    eps = torch.finfo(dtype).eps
    room = {"rtol": eps, "atol": eps * expected.double().abs().max().item() / 2}
    torch.testing.assert_close(function(maps).double(), expected.double(), **room)


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
