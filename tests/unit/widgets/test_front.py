"""What the browser computes equals what `helpers` computes: layers, gradients, maps, boxes, views."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.transforms.functional as tvf
from torch import Tensor, nn

from helpers import boxes, cam, data, metrics, networks, retina, saliency
from helpers.widgets._explorable import source
from helpers.widgets._explorables import quadrature
from helpers.widgets._export import exported, packed, pixels

pytestmark = pytest.mark.browser


def handed(arrays: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Arrays as a page holds them."""
    return {name: {**entry, "data": base64.b64encode(entry["data"]).decode()} for name, entry in arrays.items()}


@pytest.fixture(scope="module")
def page(chromium: Any) -> Any:
    """A page of the browser."""
    context = chromium.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def compute(page: Any) -> Callable[..., Any]:
    """A function that loads an explorable's code, and returns what an expression of its functions makes of arrays."""

    def run(name: str, expression: str, arrays: dict[str, Any], **given: Any) -> Any:
        code = f"""(given) => {{
          {source(name)}
          const entries = Object.entries(given.arrays).map(([name, entry]) => [name, decoded(entry)]);
          const values = Object.fromEntries(entries);
          const plain = (x) => (x && x.data ? Array.from(x.data) : x);
          return plain({expression});
        }}"""
        return page.evaluate(code, {"arrays": handed(arrays), **given})

    return run


def close(numbers: Any, right: Tensor, error: float = 1e-4) -> None:
    """Within 1e-4 of the largest."""
    right = right.detach().double().flatten()
    torch.testing.assert_close(
        torch.tensor(numbers, dtype=torch.float64), right, rtol=0, atol=error * float(right.abs().max() or 1)
    )


NETWORKS = ("scenes-gap", "scenes-gmp", "scenes-logpolar", "digits-gap", "lenet")
X = "network(given.layers, values), asMaps(values.x)"


def picture(name: str, net: nn.Module) -> Tensor:
    """An input of a network, (1, C, H, W)."""
    if name == "lenet":
        return data.digits(4, seed=3).images[3:]
    if name == "scenes-logpolar":
        return torch.rand(1, 3, 24, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    channels = next(net.parameters()).shape[1]
    images = data.scenes(1, seed=3).images
    return networks.normalize(images, net) if channels == 3 else images[:, :1]


def network(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    return networks.LeNet().eval() if name == "lenet" else networks.load(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_and_gradients_are_torchs(name: str, compute: Any) -> None:
    net = network(name)
    layers, arrays = exported(net)
    x = picture(name, net).requires_grad_(True)
    scores = net(x)
    target = int(scores[0].argmin())
    scores[0, target].backward()
    arrays["x"] = packed(x[0])
    close(compute("question", f"last(forward({X}))", arrays, layers=layers), scores)
    close(compute("question", f"slopesOf({X}, given.target)", arrays, layers=layers, target=target), x.grad)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Conv2d(2, 3, (3, 2), padding=(0, 2), bias=False),
        nn.Conv2d(2, 1, 3, dilation=2),
        nn.AvgPool2d(2),
        nn.MaxPool2d(3),
        nn.ReLU(),
        networks.AngularPad2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d(1),
    ],
    ids=str,
)
def test_a_layer_is_torchs_forwards_and_backwards(layer: nn.Module, compute: Any) -> None:
    torch.manual_seed(1)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    net = nn.Sequential(layer)
    layers, arrays = exported(net)
    x = torch.randn(1, 2, 9, 8, requires_grad=True)
    y = net(x)
    slope = torch.randn_like(y)
    y.backward(slope)
    arrays |= {"x": packed(x[0]), "slope": packed(slope[0])}
    close(compute("question", f"last(forward({X}))", arrays, layers=layers), y)
    back = f"backward(forward({X}), asMaps(values.slope))"
    close(compute("question", back, arrays, layers=layers), x.grad)


def test_batch_normalisation_becomes_part_of_the_convolution(compute: Any) -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    net[1].weight.data.normal_()
    layers, arrays = exported(net.eval())
    arrays["x"] = packed(torch.randn(2, 7, 7))
    x = torch.frombuffer(bytearray(arrays["x"]["data"]), dtype=torch.float32).view(1, 2, 7, 7)
    close(compute("question", f"last(forward({X}))", arrays, layers=layers), net(x))


def test_what_the_browser_cannot_compute_is_refused() -> None:
    for layer in (nn.GELU(), nn.Conv2d(2, 2, 3, groups=2), nn.MaxPool2d(3, 2)):
        with pytest.raises(ValueError, match="layers that the browser knows, got '0'"):
            exported(nn.Sequential(layer))
    with pytest.raises(ValueError, match="x must be of dtype float16, float32, int32, uint8, got float64"):
        packed(torch.zeros(1, dtype=torch.float64))


def test_maps_are_those_of_helpers(compute: Any) -> None:
    net = networks.load("scenes-gap")
    x = networks.normalize(data.scenes(1, seed=5).images, net)
    layers, arrays = exported(net)
    arrays["x"] = packed(x[0])
    for target in (0, 5):
        given = {"layers": layers, "target": target}
        slopes = f"slopesOf({X}, given.target)"
        close(compute("question", f"largest({slopes})", arrays, **given), saliency.class_saliency(net, x, target))
        right = saliency.integrated_gradients(net, x, target, steps=4)
        expression = f"integrated({X}, given.target, given.points)"
        close(compute("question", expression, arrays, points=quadrature(4), **given), right)
        weighing = "weighed(forward(network(given.layers, values), asMaps(values.x))[given.layers.length - 3].input"
        weighing += ", values['fc.weight'].data.subarray(given.target * 128, (given.target + 1) * 128))"
        close(compute("box", weighing, arrays, **given), cam.class_activation_map(net, x, target))


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.95])
def test_boxes_are_those_of_helpers(threshold: float, compute: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        field = torch.randn(1, 6, 7, generator=generator)
        large = cam.upsample(field, (30, 41))
        arrays = {"x": packed(field), "large": packed(large)}
        close(compute("box", "resized(asMaps(values.x), 30, 41)", arrays), large)
        right = cam.largest_component_box(large, threshold)[0]
        assert (
            compute("box", "largestBox(asMaps(values.large), given.threshold)", arrays, threshold=threshold)
            == right.tolist()
        )
        other = torch.tensor([3.0, 2, 20, 25])
        union = compute("box", "overlap(given.a, given.b)", {}, a=right.tolist(), b=other.tolist())
        assert union == pytest.approx(metrics.box_iou(right[None], other[None]).item(), abs=1e-6)


def test_no_positive_place_gives_no_box(compute: Any) -> None:
    field = -torch.rand(1, 4, 4)
    assert boxes.region_boxes(field > 0).isnan().all()
    assert compute("box", "largestBox(asMaps(values.x), 0.2)", {"x": packed(field)}) is None


@pytest.mark.parametrize("gaze", [(0.0, 0.0), (-0.6, 0.9)])
def test_views_are_those_of_the_retina(gaze: tuple[float, float], compute: Any) -> None:
    x = torch.rand(1, 2, 40, 56, generator=torch.Generator().manual_seed(0))
    fixation = torch.tensor([gaze])
    view = retina.log_polar(x, fixation, size=(16, 24), r_min=0.1)
    right = retina.inverse_log_polar(view, (40, 56), fixation, r_min=0.1)
    given = {"gaze": [(gaze[0] + 1) * 28, (gaze[1] + 1) * 20], "retina": {"radii": 16, "angles": 24, "rMin": 0.1}}
    arrays = {"x": packed(x[0])}
    seen = "logPolar(asMaps(values.x), given.gaze, given.retina)"
    close(compute("gaze", seen, arrays, **given), view)
    close(compute("gaze", f"inverse({seen}, given.gaze, given.retina, 40, 56)", arrays, **given), right)


@pytest.mark.parametrize("degrees", [0, 30, -90, 180])
def test_a_picture_is_turned_as_torchvision_turns_it(degrees: int, compute: Any) -> None:
    x = torch.rand(2, 21, 21, generator=torch.Generator().manual_seed(0))
    right = tvf.rotate(x, degrees, interpolation=tvf.InterpolationMode.BILINEAR)
    turned = torch.tensor(
        compute("gaze", "turned(asMaps(values.x), given.degrees, 1)", {"x": packed(x)}, degrees=degrees)
    )
    inside = (slice(None), slice(5, 16), slice(5, 16))  # torchvision darkens the rim
    close(turned.view(2, 21, 21)[inside].flatten().tolist(), right[inside])


def test_pictures_are_bytes_where_that_loses_nothing(compute: Any) -> None:
    exact, other = torch.arange(12.0).view(3, 2, 2) / 255, torch.rand(1, 3, 3)
    assert (pixels(exact)["dtype"], pixels(other)["dtype"]) == ("uint8", "float32")
    for image in (exact, other):
        close(compute("box", "asMaps(values.x)", {"x": pixels(image)}), image, 1e-6)


def test_half_precision_is_read_exactly(compute: Any) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 65504.0, 6e-8, 6.1e-5, float("inf"), float("-inf")]).half()
    shown = compute("box", "Array.from(values.x.data, (v) => String(v)).join()", {"x": packed(values)})
    assert [float(v) for v in shown.split(",")] == values.tolist()
    assert compute("box", "Number.isNaN(values.x.data[0])", {"x": packed(torch.tensor([float("nan")]).half())}) is True
