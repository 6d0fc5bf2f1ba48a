"""What the browser computes equals what `helpers` computes: layers, gradients, maps, boxes, views."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.transforms.functional as tvf
from support.explorables import RULES, silenced
from torch import Tensor, nn

from helpers import (
    background,
    boxes,
    cam,
    data,
    filters,
    licnn,
    metrics,
    networks,
    retina,
    saliency,
    search,
    similarnet,
)
from helpers.capture import gradients
from helpers.widgets._explorable import source
from helpers.widgets._explorables import quadrature
from helpers.widgets._export import exported, packed, pixels, rounded

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

    def run(name: str, expression: str, arrays: dict[str, Any], /, **given: Any) -> Any:
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
        nn.Conv2d(2, 3, 3, padding=(1, 0)),
        nn.Conv2d(2, 3, 3, padding=3),
        nn.Conv2d(2, 3, (3, 5), padding=(0, 2)),
        nn.Conv2d(2, 3, 5),
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
    with pytest.raises(ValueError, match="x must be of dtype float16, float32, int32, int8, uint8, got float64"):
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


@pytest.mark.parametrize(("gaze", "far"), [((0.0, 0.0), 1.0), ((-0.6, 0.9), 1.0), ((0.2, -0.4), 0.5)])
def test_views_are_those_of_the_retina(gaze: tuple[float, float], far: float, compute: Any) -> None:
    x = torch.rand(1, 2, 40, 56, generator=torch.Generator().manual_seed(0))
    fixation = torch.tensor([gaze])
    view = retina.log_polar(x, fixation, size=(16, 24), r_min=0.1, r_max=far)
    right = retina.inverse_log_polar(view, (40, 56), fixation, r_min=0.1, r_max=far)
    given = {
        "gaze": [(gaze[0] + 1) * 28, (gaze[1] + 1) * 20],
        "retina": {"radii": 16, "angles": 24, "rMin": 0.1, "rMax": far},
    }
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


def test_rounded_weights_are_read_exactly_and_are_near(compute: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 1, 3, bias=False))
    net[2].weight.data.zero_()
    small = rounded(net)
    for own, old in zip(small.parameters(), net.parameters(), strict=True):
        assert (own - old).abs().max() <= old.abs().max() / 100
    _, arrays = exported(small)
    assert {entry["dtype"] for entry in arrays.values()} == {"int8"}
    arrays["x"] = packed(torch.rand(2, 7, 7))
    close(compute("box", "values['0.weight'].data", arrays), small[0].weight, 1e-9)
    assert rounded(small)[0].weight.equal(small[0].weight)


def test_half_precision_is_read_exactly(compute: Any) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 65504.0, 6e-8, 6.1e-5, float("inf"), float("-inf")]).half()
    shown = compute("box", "Array.from(values.x.data, (v) => String(v)).join()", {"x": packed(values)})
    assert [float(v) for v in shown.split(",")] == values.tolist()
    assert compute("box", "Number.isNaN(values.x.data[0])", {"x": packed(torch.tensor([float("nan")]).half())}) is True


# ---- chapter 1: a digit that is drawn and moved


def test_a_sheet_moves_and_its_middle_is_found(compute: Any) -> None:
    sheet = torch.zeros(1, 9, 11)
    sheet[0, 2:5, 3:7] = 1
    for down, right in ((0, 0), (3, -2), (-6, 8)):
        moved = torch.zeros(1, 9, 11)
        for v in range(9):
            for u in range(11):
                if 0 <= v - down < 9 and 0 <= u - right < 11:
                    moved[0, v, u] = sheet[0, v - down, u - right]
        given = {"down": down, "right": right}
        close(
            compute("digit", "shifted(asMaps(values.x), given.down, given.right)", {"x": packed(sheet)}, **given), moved
        )
        middle = compute(
            "digit", "middle(shifted(asMaps(values.x), given.down, given.right))", {"x": packed(sheet)}, **given
        )
        assert middle == ([3 + down, 4.5 + right] if (down, right) != (-6, 8) else None)


# ---- chapter 4: filters


@pytest.mark.parametrize("exponent", [-4, -1.5, 0, 1])
@pytest.mark.parametrize(("sign", "paper"), [(-1, "paper"), (1, "code")])
def test_importance_is_that_of_helpers(exponent: float, sign: int, paper: Any, compute: Any) -> None:
    lost = torch.tensor([0.02, -0.003, 0.4, 0.0, 0.11])
    weights = similarnet.importance_weights(0.0, lost, sign=paper, temperature=10**exponent)
    given = {"sign": sign, "temperature": 10**exponent}
    expression = "importance(values.x.data, given.sign, given.temperature)"
    close(compute("filters", expression, {"x": packed(lost)}, **given), weights)
    number = compute("filters", f"effective({expression})", {"x": packed(lost)}, **given)
    assert number == pytest.approx(similarnet.effective_number(weights).item(), rel=1e-4)


def test_without_a_softmax_the_losses_are_the_weights(compute: Any) -> None:
    lost = torch.tensor([0.02, -0.003, 0.4])
    close(compute("filters", "importance(values.x.data, 0, 1)", {"x": packed(lost)}), lost)


@pytest.mark.parametrize(
    ("name", "rule"), [("Otsu", "otsu"), ("mean + 2 deviations", "two sigma"), ("half the maximum", 0.5)]
)
def test_cuts_and_hot_spots_are_those_of_helpers(name: str, rule: Any, compute: Any) -> None:
    field = cam.upsample(torch.randn(6, 7, 9, generator=torch.Generator().manual_seed(2)), (56, 72))
    cuts = similarnet.map_threshold(field, rule)
    spots = similarnet.hotspots(field, cuts)
    for one, cut, boxes_ in zip(field, cuts, spots, strict=True):
        arrays = {"x": packed(one)}
        assert compute("filters", "cutAt(values.x.data, given.rule)", arrays, rule=name) == pytest.approx(
            cut.item(), rel=1e-5
        )
        found = compute("filters", "hotspots(asMaps(values.x), given.cut)", arrays, cut=cut.item())
        assert found == boxes_[~boxes_.isnan().any(1)].tolist()
    assert compute("filters", "cutAt(values.x.data, 'Otsu')", {"x": packed(torch.full((4,), 3.0))}) == 3


@pytest.mark.parametrize(
    "box", [(20.0, 30.0, 44.0, 52.0), (0.0, 0.0, 9.0, 30.0), (60.0, 50.0, 72.0, 56.0), (5.0, 5.0, 70.0, 55.0)]
)
def test_what_is_read_in_a_box_is_what_helpers_reads(box: tuple[float, ...], compute: Any) -> None:
    torch.manual_seed(0)
    net = networks.LeNet().eval()
    x = torch.rand(1, 1, 56, 72)
    layers, arrays = exported(net)
    arrays["x"] = packed(x[0])
    on = [float(i % 3 > 0) for i in range(16)]
    quiet = silenced(net, "pool2", torch.tensor(on))
    right = similarnet.read_hotspots(quiet, x, torch.tensor([[box]])).probabilities
    expression = "softmax(last(forward(network(given.layers, values), framed(asMaps(values.x), given.box), "
    expression += "{ pool2: (y) => someChannels(y, given.on) })).data)"
    close(compute("filters", expression, arrays, layers=layers, box=box, on=on), right)


def test_a_heat_map_of_any_size_is_that_of_helpers(compute: Any) -> None:
    torch.manual_seed(0)
    net, x, weights = networks.LeNet().eval(), torch.rand(1, 1, 40, 60), torch.randn(16)
    front, arrays = exported(net[: [name for name, _ in net.named_children()].index("pool2") + 1])
    arrays |= {"x": packed(x[0]), "weights": packed(weights)}
    for keep in (True, False):
        layers = [layer for layer in front if keep or layer["type"] not in ("maxpool", "avgpool")]
        right = similarnet.heatmap(similarnet.features_at_any_size(net, x, layer="pool2", keep_pools=keep), weights)
        expression = f"weighed(last(forward({X})), values.weights.data)"
        close(compute("filters", expression, arrays, layers=layers), right)


# ---- chapter 5: seven steps


@pytest.fixture(scope="module")
def scene() -> tuple[nn.Sequential, Tensor]:
    net = networks.load("scenes-biased")
    return net, networks.normalize(data.two_object_scenes(4, seed=501).images[:1], net)


RELUS = ["relu1", "relu2", "relu3", "relu4"]
MAXIMA = (
    "((trace) => { const all = slopes(trace, scoreSlope(last(trace).data, given.target, given.score)); "
    "return Object.fromEntries(trace.map((step, i) => [step.layer.name, maxChannel(all[i])])); })"
    f"(forward({X}))"
)


@pytest.mark.parametrize("score", ["logit", "log-odds"])
@pytest.mark.parametrize("target", [0, 5])
def test_max_c_maps_are_those_of_helpers(target: int, score: Any, scene: Any, compute: Any) -> None:
    net, x = scene
    layers, arrays = exported(net)
    arrays["x"] = packed(x[0])
    right = gradients(net, x, target, RELUS, score=score).gradients
    for name in RELUS:
        given = {"layers": layers, "target": target, "score": score, "name": name}
        close(compute("steps", f"{MAXIMA}[given.name]", arrays, **given), licnn.max_channel(right[name]))


@pytest.mark.parametrize(("k", "a", "b"), [(7, 0.1, 0.9), (1, 1.0, 0.0), (15, 0.0, 2.0), (3, 0.55, 0.3)])
def test_inhibition_and_masks_are_those_of_helpers(k: int, a: float, b: float, compute: Any) -> None:
    field = torch.randn(1, 12, 10, generator=torch.Generator().manual_seed(4))
    given, arrays = {"setting": {"k": k, "a": a, "b": b}}, {"x": packed(field)}
    unit = "unitNorm(asMaps(values.x))"
    strength = licnn.lateral_inhibition(licnn.unit_norm(field), k, a, b)
    close(
        compute(
            "steps", f"inhibition({unit}, given.setting.k, given.setting.a, given.setting.b).both", arrays, **given
        ),
        strength,
    )
    mask = "Array.from(kept(asMaps(values.x), given.rule, given.setting))"
    clear = (licnn.unit_norm(field) - licnn.unit_norm(strength)).abs().flatten() > 1e-6  # rounding decides the others
    own = torch.tensor(compute("steps", mask, arrays, rule="lateral inhibition", **given)).bool()
    assert own[clear].equal(licnn.inhibition_mask(field, k, a, b).flatten()[clear])
    assert clear.sum() >= 118
    own = torch.tensor(compute("steps", mask, arrays, rule="root mean square", **given)).bool()
    assert own.equal(licnn.rms_mask(field).flatten())
    assert all(compute("steps", mask, arrays, rule="nothing is inhibited", **given))


@pytest.mark.parametrize("target", [1, 6])
def test_the_second_pass_and_the_map_are_those_of_helpers(target: int, scene: Any, compute: Any) -> None:
    net, x = scene
    steps = licnn.attention_steps(net, x, target)
    layers, arrays = exported(net)
    arrays |= {"x": packed(x[0])} | {f"mask {name}": packed(steps.masks[name][0].to(torch.uint8)) for name in RELUS}
    masks = "Object.fromEntries(given.relus.map((name) => [name, values[`mask ${name}`].data]))"
    sums = f"left({X}, {masks})"
    given = {"layers": layers, "relus": RELUS}
    for name in RELUS:
        close(compute("steps", f"{sums}[given.name]", arrays, name=name, **given), steps.sums[name])
    close(compute("steps", f"combined({sums}, 64, 64)", arrays, **given), steps.map)


@pytest.mark.parametrize("radius", [0, 0.5, 3.5, 10])
@pytest.mark.parametrize("inside", [True, False])
def test_blur_is_that_of_helpers(radius: float, inside: bool, compute: Any) -> None:
    x = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    close(
        compute("steps", "blurred(asMaps(values.x), given.radius)", {"x": packed(x[0])}, radius=radius),
        filters.blurred(x, radius),
    )
    field = torch.rand(1, 24, 20, generator=torch.Generator().manual_seed(1))
    region = background.salient_region(field, 0.2)
    blur = background.blur_inside if inside else background.blur_outside
    expression = "blurredWhere(asMaps(values.x), region(asMaps(values.map)), given.radius, given.inside)"
    arrays = {"x": packed(x[0]), "map": packed(field)}
    close(compute("steps", expression, arrays, radius=radius, inside=inside), blur(x, region, radius))


# ---- chapter 7: search


def beliefs(count: int, labels: int = 5) -> Tensor:
    return (3 * torch.randn(1, count, labels, generator=torch.Generator().manual_seed(count))).log_softmax(-1)


def test_fusion_gain_and_bound_are_those_of_helpers(compute: Any) -> None:
    belief, views = beliefs(1)[:, 0], beliefs(9)
    given = {"belief": belief[0].tolist()}
    for i in range(9):
        given["view"] = views[0, i].tolist()
        close(
            compute("search", "fused(given.belief, given.view).belief", {}, **given), search.fuse(belief, views)[0, i]
        )
        for function, right in (
            ("fused(given.belief, given.view).logZ", search.redundancy),
            ("informationGain(given.belief, given.view)", search.information_gain),
            ("informationGainBound(given.belief, given.view)", search.information_gain_bound),
        ):
            assert compute("search", function, {}, **given) == pytest.approx(
                right(belief, views)[0, i].item(), abs=1e-4
            )


@pytest.mark.parametrize("name", RULES)
def test_a_policy_looks_where_that_of_helpers_does(name: str, compute: Any) -> None:
    grid = search.fixation_grid(5).flatten(0, 1)
    glance, views = beliefs(1)[:, 0].double(), beliefs(25).double()  # near certainty single precision ties
    trace = search.search_precomputed(RULES[name], glance, views, grid, 4, target=2)
    scene = {"glance": glance[0].tolist(), "views": views[0].tolist(), "fixations": grid.tolist(), "label": 2}
    own = compute("search", "run(given.name, given.scene, 4)", {}, name=name, scene=scene)
    assert own["choices"] == trace.choices[0].tolist()
    close([value for belief in own["beliefs"] for value in belief], trace.beliefs[0, 1:])
