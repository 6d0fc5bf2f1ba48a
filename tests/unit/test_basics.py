import itertools

import pytest
import torch
import torch.nn.functional as F
from support.untouched import Boom, assert_untouched
from torch import nn
from torchvision.models import resnet18, vgg16

from helpers.basics import convolve, layer_costs, output_size, path_counts, receptive_fields, unit_gradient
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


def test_output_size_is_what_torch_makes():
    for n, kernel, stride, padding, dilation in itertools.product(range(1, 9), (1, 2, 3), (1, 2, 3), (0, 1), (1, 2)):
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        if dilation * (kernel - 1) + 1 > n + 2 * padding:
            with pytest.raises(ValueError, match="kernel must fit"):
                output_size(n, kernel, **options)
        else:
            maps = F.conv2d(torch.zeros(1, 1, n, n), torch.zeros(1, 1, kernel, kernel), **options)
            assert output_size(n, kernel, **options) == maps.shape[-1]


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


X, W = torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 3, 3)
DIGIT = torch.zeros(1, 1, 28, 28)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convolve(X[0], W), "x must be a non-empty tensor"),
        (lambda: convolve(X, W[:, :2]), "weight must be a non-empty tensor"),
        (lambda: convolve(X, W[0]), "weight must be a non-empty tensor"),
        (lambda: convolve(X[..., :2, :2], W), "kernel must fit"),
        (lambda: output_size(5.5, 3), "size must be an integer"),
        (lambda: output_size(5, 3, stride=0), "stride must be an integer of at least 1"),
        (lambda: output_size(5, 3, padding=-1), "padding must be an integer of at least 0"),
        (lambda: output_size(5, 3, dilation=0), "dilation must be an integer of at least 1"),
        (lambda: layer_costs(LeNet(), (1, 1, 28, 28)), ".*C, H, W"),
        (lambda: path_counts(nn.Sequential(nn.MaxPool2d(2, dilation=2)), "0", (1, 9, 9)), ".*dilated pooling"),
        (lambda: unit_gradient(LeNet(), DIGIT, "conv9"), ".*conv9"),
        (lambda: unit_gradient(LeNet(), DIGIT, "fc1"), ".*maps"),
        (lambda: unit_gradient(LeNet(), DIGIT, "conv1", (28, 0)), ".*within"),
        (lambda: unit_gradient(LeNet(), DIGIT, "input"), ".*name of a layer"),
        (lambda: unit_gradient(LeNet(), DIGIT, "conv2#1"), ".*without the number of a call"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()


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


def test_a_layer_whose_operations_do_not_count_is_named():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = nn.LSTM(24, 8, batch_first=True), nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.rnn(x.flatten(2))[0][:, -1])

    with pytest.raises(ValueError, match="got 'rnn', a LSTM, which gives a tuple"):
        layer_costs(Recurrent(), (4, 4, 6))
