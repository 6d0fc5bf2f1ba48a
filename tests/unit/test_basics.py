import pytest
import torch
import torch.nn.functional as F
from support.untouched import Boom, assert_untouched
from torch import nn
from torchvision.models import resnet18, vgg16

from helpers.basics import (
    convolve,
    layer_costs,
    output_size,
    path_counts,
    receptive_fields,
    unit_gradient,
)
from helpers.networks import LeNet


def loops(x, weight, bias, stride, padding):
    """The formula of eq-conv, read literally."""
    b, _, h, w = x.shape
    k, channels, kh, kw = weight.shape
    rows, columns = (h + 2 * padding - kh) // stride + 1, (w + 2 * padding - kw) // stride + 1
    y = bias[:, None, None].expand(b, k, rows, columns).clone()
    for i in range(rows):
        for j in range(columns):
            for u in range(kh):
                for v in range(kw):
                    r, c = i * stride + u - padding, j * stride + v - padding
                    if 0 <= r < h and 0 <= c < w:
                        for channel in range(channels):
                            y[:, :, i, j] += x[:, channel, r, c, None] * weight[:, channel, u, v]
    return y


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)])
def test_convolve_is_its_formula_and_torch(stride, padding, kernel):
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(s, generator=draw, dtype=torch.float64) for s in ((2, 3, 6, 7), (4, 3, *kernel), (4,))
    )
    maps = convolve(x, weight, bias, stride=stride, padding=padding)
    torch.testing.assert_close(maps, loops(x, weight, bias, stride, padding))
    torch.testing.assert_close(maps, F.conv2d(x, weight, bias, stride, padding))


def test_convolve_by_hand():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    w = torch.tensor([[0.0, 1], [2, 3]]).view(1, 1, 2, 2)
    assert convolve(x, w).tolist() == [[[[19, 25], [37, 43]]]]  # 0*0 + 1*1 + 3*2 + 4*3 = 19


@pytest.mark.parametrize(
    ("x", "w"), [((3, 5, 5), (1, 3, 3, 3)), ((1, 3, 5, 5), (3, 3, 3)), ((1, 2, 5, 5), (1, 3, 3, 3))]
)
def test_convolve_refuses_shapes(x, w):
    with pytest.raises(ValueError, match=r"^(x|weight) must be a non-empty tensor"):
        convolve(torch.zeros(x), torch.zeros(w))


def test_a_kernel_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="kernel must fit"):
        convolve(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3))


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dilation", [1, 2])
def test_output_size_is_what_torch_makes(n, kernel, stride, padding, dilation):
    if dilation * (kernel - 1) + 1 > n + 2 * padding:
        with pytest.raises(ValueError, match="kernel must fit"):
            output_size(n, kernel, stride=stride, padding=padding, dilation=dilation)
        return
    maps = F.conv2d(torch.zeros(1, 1, n, n), torch.zeros(1, 1, kernel, kernel), None, stride, padding, dilation)
    assert output_size(n, kernel, stride=stride, padding=padding, dilation=dilation) == maps.shape[-1]


@pytest.mark.parametrize("bad", [{"stride": 0}, {"padding": -1}, {"dilation": 0}, {"stride": 1.5}, {"padding": True}])
def test_output_size_refuses_settings(bad):
    with pytest.raises(ValueError, match="at least"):
        output_size(5, 3, **bad)
    for size in (5.5, float("nan")):
        with pytest.raises(ValueError, match="size must be an integer"):
            output_size(size, 3)


def test_costs_of_lenet_by_hand():
    rows = {row.layer: row for row in layer_costs(LeNet(), (1, 28, 28))}
    assert list(rows) == [name for name, _ in LeNet().named_children()]
    assert rows["conv1"][1:] == ("Conv2d", (6, 28, 28), 156, 6 * 25 * 28 * 28)
    assert rows["conv2"][1:] == ("Conv2d", (16, 14, 14), 2416, 16 * 6 * 25 * 14 * 14)
    assert rows["fc1"][1:] == ("Linear", (120,), 94_200, 784 * 120)
    assert rows["pool1"][1:] == ("MaxPool2d", (6, 14, 14), 0, 0)


def test_costs_of_vgg16_and_resnet18_without_memory():
    with torch.device("meta"):
        networks = {"vgg": vgg16(), "resnet": resnet18()}
    for name, parameters, macs in (("vgg", 138_357_544, 15_470_264_320), ("resnet", 11_689_512, 1_814_073_344)):
        rows = layer_costs(networks[name], (3, 224, 224))
        assert sum(row.parameters for row in rows) == parameters
        assert sum(row.multiply_adds for row in rows) == macs


def test_a_layer_used_twice_pays_twice_and_is_counted_once():
    shared = nn.Linear(4, 4)
    rows = layer_costs(nn.Sequential(nn.Flatten(), shared, shared), (1, 2, 2))
    assert [row.parameters for row in rows] == [0, 20, 0]
    assert [row.multiply_adds for row in rows] == [0, 16, 16]


def test_costs_refuse_a_batch_shape():
    with pytest.raises(ValueError, match="C, H, W"):
        layer_costs(LeNet(), (1, 1, 28, 28))


def test_receptive_fields_by_hand():
    assert [tuple(row) for row in receptive_fields(LeNet())] == [
        ("conv1", 5, 1, -2),
        ("relu1", 5, 1, -2),
        ("pool1", 6, 2, -2),
        ("conv2", 14, 2, -6),
        ("relu2", 14, 2, -6),
        ("pool2", 16, 4, -6),
    ]


def test_vgg16_sees_196_pixels_in_steps_of_16():
    with torch.device("meta"):
        last = receptive_fields(vgg16().features)[-2]
    assert (last.layer, last.size, last.stride) == ("29", 196, 16)


CHAINS = {
    "lenet": (LeNet(size=64).features, "pool2"),
    "dilated": (nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.ReLU(), nn.Conv2d(2, 2, 3, stride=2)), "2"),
    "strided": (nn.Sequential(nn.Conv2d(1, 2, 7, 2, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(2, 2, 3, padding=1)), "2"),
    "nested": (nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 5), nn.BatchNorm2d(2)), nn.AvgPool2d(2)), "1"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_rule_agrees_with_the_gradient_in_size_and_place(name):
    model, layer = CHAINS[name]
    field = next(row for row in receptive_fields(model) if row.layer == layer)
    with assert_untouched(model):
        ways = path_counts(model, layer, (1, 64, 64))
    seen = (ways > 0).nonzero()
    with torch.no_grad():
        side = model.eval()(torch.zeros(1, 1, 64, 64)).shape[-1]
    first = field.start + field.stride * (side // 2)
    assert seen.amin(0).tolist() == [first, first]
    assert seen.amax(0).tolist() == [first + field.size - 1] * 2
    assert ways.max() == 1


@pytest.mark.parametrize(
    "model",
    [resnet18(), nn.Sequential(nn.Conv2d(1, 1, 3), nn.LSTM(3, 3)), nn.Sequential(nn.Conv2d(1, 1, (3, 5)))],
    ids=["resnet", "unknown", "oblong"],
)
def test_what_the_rule_cannot_follow_is_refused(model):
    with pytest.raises(ValueError, match=r"chain|one whole number"):
        receptive_fields(model)


def test_unit_gradient_is_a_finite_difference():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 3)).double()
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    with assert_untouched(model):
        gradient = unit_gradient(model, x, "2", at=(1, 3))
    for place_ in ((0, 0, 3, 4), (0, 1, 5, 7), (0, 0, 0, 0)):
        step = torch.zeros_like(x)
        step[place_] = 1e-6
        slope = (model(x + step) - model(x - step))[0, :, 1, 3].sum() / 2e-6
        assert gradient[place_].item() == pytest.approx(slope.item(), abs=1e-8)


def test_unit_gradient_leaves_a_failing_model_as_found():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), Boom())
    with assert_untouched(model), pytest.raises(RuntimeError):
        unit_gradient(model, torch.rand(1, 1, 5, 5), "0")


@pytest.mark.parametrize(
    ("layer", "at", "named"),
    [
        ("conv9", None, "conv9"),
        ("fc1", None, "maps"),
        ("conv1", (28, 0), "within"),
        ("input", None, "name of a layer"),
        ("conv2#1", None, "without the number of a call"),
    ],
)
def test_unit_gradient_refuses(layer, at, named):
    with pytest.raises(ValueError, match=named):
        unit_gradient(LeNet(), torch.rand(1, 1, 28, 28), layer, at)


def test_unit_gradient_refuses_a_layer_that_does_not_run():
    net = LeNet()
    net.forward = lambda x: x.mean((1, 2, 3))
    with pytest.raises(ValueError, match=r"layer must run .* got 'conv1'"):
        unit_gradient(net, torch.rand(1, 1, 28, 28), "conv1")


def test_unit_gradient_is_not_fooled_by_what_works_in_place():
    plain, inplace = (nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=flag)) for flag in (False, True))
    inplace.load_state_dict(plain.state_dict())
    x = torch.randn(1, 1, 7, 7)
    torch.testing.assert_close(unit_gradient(inplace, x, "0"), unit_gradient(plain, x, "0"))
    assert unit_gradient(nn.Sequential(nn.ReLU(inplace=True)), x, "0").sum() <= 1


def test_costs_refuse_to_leave_parameters_out():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scale = nn.Conv2d(1, 1, 3), nn.Parameter(torch.ones(7))

        def forward(self, x):
            return self.conv(x) * self.scale.mean()

    with pytest.raises(ValueError, match="got 7 outside"):
        layer_costs(Hidden(), (1, 8, 8))


def test_a_layer_used_twice_widens_the_field_twice():
    conv = nn.Conv2d(1, 1, 3)
    assert receptive_fields(nn.Sequential(conv, conv))[-1].size == 5


def test_paths_refuse_a_dilated_pooling():
    with pytest.raises(ValueError, match="dilated pooling"):
        path_counts(nn.Sequential(nn.MaxPool2d(2, dilation=2)), "0", (1, 9, 9))
