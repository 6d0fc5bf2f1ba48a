"""LICNN against four loops written from equation 3 and a naive walk through the seven steps of the scheme."""

import copy
import math
from functools import partial

import pytest
import torch
import torchvision
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.licnn import (
    attention_map,
    attention_steps,
    inhibition_kernel,
    inhibition_mask,
    lateral_inhibition,
    max_channel,
    rms_mask,
    saliency_map,
    unit_norm,
)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
NAN, INF = float("nan"), float("inf")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def close(found, wanted, atol=1e-10):
    torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


# the oracles: numbers of Python, one map, one class, one image at a time


def slow_inhibition(x, k=7, a=0.1, b=0.9):
    """Equation 3 of one map (h, w), place by place and neighbour by neighbour."""
    (height, width), values = x.shape, x.tolist()
    result = [[0.0] * width for _ in range(height)]
    for i in range(height):
        for j in range(width):
            total = differences = 0.0
            for u in range(i - k // 2, i + k // 2 + 1):
                for v in range(j - k // 2, j + k // 2 + 1):
                    neighbour = values[u][v] if 0 <= u < height and 0 <= v < width else 0.0
                    d = math.hypot(u - i, v - j) / k
                    total += neighbour
                    differences += d * math.exp(-d) * max(0.0, neighbour - values[i][j])
            result[i][j] = a * math.exp(-total / k**2) + b * differences
    return torch.tensor(result, dtype=torch.float64)


def slow_norm(x):
    """By the largest value first: equal values stay exactly equal to their root mean square."""
    largest = max(abs(value) for value in x.flatten().tolist())
    if largest == 0:
        return x
    return x / largest / math.sqrt(sum((value / largest) ** 2 for value in x.flatten().tolist()))


def slow_mask(x, normalize=True, **options):
    x = slow_norm(x.double()) if normalize else x.double()
    return x > slow_norm(slow_inhibition(x, **options))


def slow_rms(x):
    x = x / max(1e-300, x.abs().max())
    return x > math.sqrt(sum(value**2 for value in x.flatten().tolist()) / x.numel())


def everything(x):
    return torch.ones_like(x, dtype=torch.bool)


def stretching(old, new):
    """Weights (new, old) of linear interpolation between the centres of cells; the outermost values go on."""
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        centre = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        low = int(centre)
        weights[i, low] += 1 - (centre - low)
        weights[i, min(low + 1, old - 1)] += centre - low
    return weights


def stretched(x, size):
    return stretching(x.shape[0], size[0]) @ x @ stretching(x.shape[1], size[1]).T


class Tap(nn.Module):
    """Stands in place of a module: writes down each of its outputs with feature maps, masked where masks are given."""

    def __init__(self, inner, log):
        super().__init__()
        self.inner, self.log = inner, log

    def forward(self, x):
        y = self.inner(x.clone())  # a ReLU in place overwrites the clone
        if y.ndim != 4:
            return y
        if self.log["masks"] is not None:
            y = y * self.log["masks"][len(self.log["seen"])]
        self.log["seen"].append(y)
        return y.clone()


def tapped(net, picked):
    """A copy of the network with taps around the modules that `picked` tells, in the order in which they run."""
    net, log = copy.deepcopy(net).eval(), {"seen": [], "masks": None}
    found = {id(module): Tap(module, log) for name, module in net.named_modules() if picked(name, module)}
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if id(child) in found and not isinstance(module, Tap):
                setattr(module, name, found[id(child)])
    return net, log


def slow_attention(
    net,
    x,
    target,
    mode="response",
    after_softmax=True,
    skip_last=True,
    normalize="before",
    rule=slow_mask,
    picked=lambda _name, module: isinstance(module, nn.ReLU),
):
    """The attention map (H, W) of one image (1, C, H, W) and one class."""
    net, log = tapped(net, picked)
    scores = net(x)[0]  # step 2
    maps = log["seen"]
    score = (scores.exp() / scores.exp().sum() if after_softmax else scores)[target]
    contributions = [g[0].amax(0) for g in torch.autograd.grad(score, maps)]  # steps 3 and 4
    masks = [rule(one) for one in contributions]
    if mode == "response":
        if skip_last:
            masks[-1] = everything(masks[-1])
        log.update(seen=[], masks=masks)
        with torch.no_grad():
            net(x)  # step 5
        shares = [y[0].sum(0) for y in log["seen"]]  # step 6
    else:
        shares = [one.where(mask, 0) for one, mask in zip(contributions, masks, strict=True)]
    total = torch.zeros(x.shape[-2:], dtype=torch.float64)
    for share in shares:  # step 7
        share = stretched(slow_norm(share) if normalize == "before" else share, x.shape[-2:])
        total += slow_norm(share) if normalize == "after" else share
    return slow_norm(total).detach()


def slow_attentions(net, x, targets, **options):
    """(B, K, H, W), of K classes for each image."""
    rows = [
        [slow_attention(net, x[i : i + 1], c, **options) for c in row]
        for i, row in zip(range(len(x)), targets, strict=True)
    ]
    return torch.stack([torch.stack(row) for row in rows])


# networks


def tiny(seed=0, inplace=False):
    """Three ReLUs on maps of 9 x 11, 5 x 6 and 4 x 5 places for images of 11 x 13 pixels, one on vectors."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace),
        nn.Conv2d(6, 5, 2),
        nn.ReLU(inplace),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(20, 8),
        nn.ReLU(inplace),
        nn.Linear(8, 7),
    ).double()


def images(count=2, height=11, width=13, seed=1):
    return noise(count, 3, height, width, seed=seed)


class Reused(nn.Module):
    """One ReLU for all: twice on feature maps, then on vectors."""

    def __init__(self, inplace=True, end=None):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.conv2, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(inplace)
        self.hidden, self.fc, self.end = nn.Linear(5, 9), nn.Linear(9, 6), end or nn.Identity()
        self.double()

    def forward(self, x):
        x = self.relu(self.conv2(self.relu(self.conv(x))))
        return self.end(self.fc(self.relu(self.hidden(x.mean((2, 3))))))


class Backwards(nn.Module):
    """Its ReLUs are registered in another order than they run in; the first one runs twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.late, self.early = nn.ReLU(), nn.ReLU()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 5, 3, stride=2)])
        self.fc = nn.Linear(5, 6)
        self.double()

    def forward(self, x):
        x = self.late(self.convs[0](x))
        x = self.early(self.convs[1](x))
        return self.fc(self.late(self.convs[2](x)).mean((2, 3)))


class Swapped(nn.Module):
    """Two ReLUs, each runs once; the last one is registered first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.late, self.early = nn.ReLU(), nn.ReLU()
        self.conv, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, stride=2), nn.Linear(5, 6)
        self.double()

    def forward(self, x):
        return self.fc(self.late(self.conv2(self.early(self.conv(x)))).mean((2, 3)))


def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=7).double()


def vgg():
    """VGG-11 with a sixteenth of its channels, its classifier with ReLUs in place and dropout."""
    torch.manual_seed(0)
    plan = [4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"]
    layers = torchvision.models.vgg.make_layers(plan, batch_norm=False)
    inplace = partial(nn.ReLU, True)
    return nn.Sequential(
        layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 16), inplace(), nn.Dropout(), nn.Linear(16, 7)
    ).double()


NETWORKS = {
    "sequential": (tiny, (11, 13)),
    "in place": (partial(tiny, inplace=True), (11, 13)),
    "one ReLU": (Reused, (10, 9)),
    "resnet18": (resnet, (32, 40)),
    "vgg": (vgg, (32, 48)),
}
each_network = pytest.mark.parametrize(("make", "size"), NETWORKS.values(), ids=NETWORKS)


# the kernel


def test_kernel_by_hand():
    # k = 3: d = 1/3 beside the middle, sqrt(2)/3 in the corners
    side, corner = math.exp(-1 / 3) / 3, math.sqrt(2) / 3 * math.exp(-math.sqrt(2) / 3)
    wanted = [[corner, side, corner], [side, 0, side], [corner, side, corner]]
    close(inhibition_kernel(3), torch.tensor(wanted, dtype=torch.float64), 1e-15)
    assert inhibition_kernel(1).tolist() == [[0]]
    found = inhibition_kernel()
    assert found.shape == (7, 7)
    assert found[3, 3] == 0
    assert float(found[3, 5]) == pytest.approx(2 / 7 * math.exp(-2 / 7))
    assert float(found[0, 6]) == pytest.approx(3 * 2**0.5 / 7 * math.exp(-3 * 2**0.5 / 7))
    assert float(found.sum()) == pytest.approx(12.15, abs=0.005)


@pytest.mark.parametrize("k", [3, 5, 7, 15])
def test_kernel_is_symmetric_and_grows_with_the_distance(k):
    found = inhibition_kernel(k)
    assert torch.equal(found, found.T)
    assert torch.equal(found, found.flip(0))
    middle = found[k // 2, k // 2 :]
    assert (middle.diff() > 0).all()
    assert float(found.max()) == float(found[0, 0]) == float(found[-1, -1])


@pytest.mark.parametrize("k", [0, 2, -1, -3, 8, 7.0, True, None, "7"])
def test_bad_zones_are_refused(k):
    for call in (inhibition_kernel, partial(lateral_inhibition, noise(5, 5)), partial(inhibition_mask, noise(5, 5))):
        with pytest.raises(ValueError, match=r"^k must be"):
            call(k)


# lateral inhibition


def test_lateral_inhibition_by_hand():
    x = torch.zeros(3, 3, dtype=torch.float64)
    x[1, 1] = 9
    # every zone of k = 3 holds the 9, its mean is 1; the others see it 9 above them, at 1/3 or sqrt(2)/3
    protect = 0.1 * math.exp(-1)
    side = protect + 0.9 * 9 / 3 * math.exp(-1 / 3)
    corner = protect + 0.9 * 9 * 2**0.5 / 3 * math.exp(-(2**0.5) / 3)
    wanted = [[corner, side, corner], [side, protect, side], [corner, side, corner]]
    close(lateral_inhibition(x, 3), torch.tensor(wanted, dtype=torch.float64))
    # k = 5: d = 1/5; only the average term's mean changes for the middle, 9/25
    assert float(lateral_inhibition(x, 5)[1, 1]) == pytest.approx(0.1 * math.exp(-9 / 25))


def test_lateral_inhibition_in_a_corner_by_hand():
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]], dtype=torch.float64)
    # around the 1: five zeros beyond the border, which do not lie above it, and 1 2 4 5; mean 12/9
    side, corner = math.exp(-1 / 3) / 3, math.sqrt(2) / 3 * math.exp(-math.sqrt(2) / 3)
    wanted = 2 * math.exp(-12 / 9) + 3 * (side * (1 + 3) + corner * 4)
    found = lateral_inhibition(x, 3, a=2, b=3)
    assert float(found[0, 0]) == pytest.approx(wanted)
    # around the 9: 5 6 8 9, none above it; mean 28/9
    assert float(found[2, 2]) == pytest.approx(2 * math.exp(-28 / 9))
    # around the 6: 2 3 5 6 8 9, three zeros; 8 above by 2 in a corner, 9 by 3 below; mean 33/9
    assert float(found[1, 2]) == pytest.approx(2 * math.exp(-33 / 9) + 3 * (2 * corner + 3 * side))


def test_zeros_beyond_the_border_inhibit_what_is_negative():
    # one place of -2: mean -2/9, and all eight neighbours, zeros, lie 2 above
    side, corner = math.exp(-1 / 3) / 3, math.sqrt(2) / 3 * math.exp(-math.sqrt(2) / 3)
    found = lateral_inhibition(torch.tensor([[-2.0]], dtype=torch.float64), 3)
    assert float(found) == pytest.approx(0.1 * math.exp(2 / 9) + 0.9 * 2 * 4 * (side + corner))
    # a zone of one place: the mean is the place itself, no neighbours
    found = lateral_inhibition(torch.tensor([[3.0, -1.0]], dtype=torch.float64), 1)
    close(found, torch.tensor([[0.1 * math.exp(-3), 0.1 * math.exp(1)]], dtype=torch.float64))


SHAPES = [(9, 9), (8, 8), (7, 12), (13, 6), (1, 1), (2, 3), (1, 11), (5, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 3, 7, 15])
@pytest.mark.parametrize("shape", SHAPES)
def test_lateral_inhibition_against_four_loops(shape, k, dtype):
    x = noise(*shape, seed=k).to(dtype) / 3
    found = lateral_inhibition(x, k)
    assert found.dtype == dtype
    assert found.shape == shape
    limit = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found.double(), slow_inhibition(x, k), rtol=limit, atol=limit)
    assert torch.equal(inhibition_mask(x.double(), k), slow_mask(x, k=k))
    assert torch.equal(inhibition_mask(x.double(), k, normalize=False), slow_mask(x, k=k, normalize=False))


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.9), (0.5, 0), (0, 0.5), (2, 3), (0, 0)])
def test_weights_of_the_two_terms(a, b):
    x = noise(6, 9)
    close(lateral_inhibition(x, 5, a, b), slow_inhibition(x, 5, a, b), 1e-12)
    assert torch.equal(inhibition_mask(x, 5, a, b), slow_mask(x, k=5, a=a, b=b))
    close(lateral_inhibition(x), slow_inhibition(x, 7, 0.1, 0.9), 1e-12)


@pytest.mark.parametrize("method", [lateral_inhibition, inhibition_mask, rms_mask, unit_norm])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_in_batches_equal_maps_one_by_one(method, dtype):
    x = noise(2, 3, 5, 6).to(dtype) * torch.tensor([1e-3, 1.0, 50.0], dtype=dtype)[:, None, None]
    before = x.clone()
    found = method(x)
    assert found.shape == x.shape
    assert found.dtype == (torch.bool if method in (inhibition_mask, rms_mask) else dtype)
    for i in range(2):
        for j in range(3):
            assert torch.equal(found[i, j], method(x[i, j]))
    torch.testing.assert_close(method(x.mT.contiguous().mT), found)  # whatever the strides
    assert torch.equal(x, before)


def test_maps_that_need_a_gradient_are_only_looked_at():
    x = noise(5, 6).requires_grad_()
    for method in (lateral_inhibition, inhibition_mask, rms_mask):
        found = method(x)
        assert torch.equal(found, method(x.detach()))
        assert not found.requires_grad, method.__name__
    assert x.grad is None


# masks


@pytest.mark.parametrize("scale", [2.0**-90, 1e-20, 1e-3, 7.7, 1e4, 2.0**60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mask_does_not_depend_on_the_scale_of_the_map(scale, dtype):
    x = noise(4, 12, 9).abs().to(dtype)
    assert torch.equal(inhibition_mask(x * scale), inhibition_mask(x))
    # float32 squares of 1e-25 are zero: the root mean square takes care of that as well
    assert torch.equal(rms_mask(x * scale), rms_mask(x))


def test_without_normalising_the_mask_depends_on_the_scale():
    x = noise(12, 9).abs()
    few, some, many = (int(inhibition_mask(x * scale, normalize=False).sum()) for scale in (1e-4, 0.1, 10))
    # raw values of 1e-4 lie below an inhibition of norm 1, raw values of 10 above it
    assert few == 0
    assert 0 < some < many
    assert many > 100


def test_mask_by_hand():
    # k = 1, b = 0: LI = a exp(-x); x = (4, 3) of norm 5 is (.8, .6), LI ~ (e^-.8, e^-.6) = (.449, .549),
    # over its norm .709: (.634, .774)
    x = torch.tensor([[4.0, 3.0]])
    assert inhibition_mask(x, 1, 0.1, 0).tolist() == [[True, False]]
    # as it is: (e^-4, e^-3) = (.0183, .0498) over .0530 is (.345, .938), both below (4, 3)
    assert inhibition_mask(x, 1, 0.1, 0, normalize=False).tolist() == [[True, True]]
    # no inhibition at all leaves what is positive
    assert inhibition_mask(torch.tensor([[1.0, -1.0, 0.0]]), a=0, b=0).tolist() == [[True, False, False]]


@pytest.mark.parametrize("options", [{}, {"a": 0}, {"b": 0}, {"a": 0, "b": 0}, {"normalize": False}, {"k": 1}])
def test_a_map_of_zeros_keeps_nothing(options):
    zeros = torch.zeros(2, 5, 4)
    assert not inhibition_mask(zeros, **options).any()
    assert torch.equal(lateral_inhibition(zeros), torch.full((2, 5, 4), 0.1))
    # beside other maps too
    both = torch.stack([zeros[0], noise(5, 4).float()])
    assert inhibition_mask(both, **options).any((1, 2)).tolist() == [False, True]
    assert not rms_mask(zeros).any()


def test_a_map_of_negative_values_keeps_nothing():
    x = -noise(6, 6).abs()
    assert not inhibition_mask(x).any()
    assert not inhibition_mask(x, normalize=False).any()
    assert not rms_mask(x).any()


def test_rms_mask_by_hand():
    x = torch.tensor([[1.0, 5.0], [-7.0, 5.0]])  # squares 1 25 49 25, mean 25: 5 lies not above 5
    assert rms_mask(x).tolist() == [[False, False], [False, False]]
    x = torch.tensor([[1.0, 5.5], [-5.0, 5.0]])  # squares 1 30.25 25 25, mean 20.3: above 4.51
    assert rms_mask(x).tolist() == [[False, True], [False, True]]
    for seed in range(5):
        x = noise(9, 7, seed=seed)
        assert torch.equal(rms_mask(x), slow_rms(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", [rms_mask, inhibition_mask])
def test_a_map_of_equal_values_does_not_stand_out_from_itself(method, dtype):
    # such are the contributions of a layer before a global mean: the value is its root mean square, exactly. The zone
    # of 7 x 7 covers a map of 4 x 3 from everywhere, so that LI is constant as well
    values = torch.arange(1, 200, dtype=dtype)[:, None, None] / 997
    assert not method(values.expand(-1, 4, 3)).any()


@pytest.mark.parametrize("side", [28, 56])
def test_the_average_term_alone_is_nearly_the_plain_rule(side):
    x = noise(8, side, side).abs()
    same = inhibition_mask(x, b=0) == rms_mask(x)
    assert same.double().mean() > 0.995
    assert 0.1 < rms_mask(x).double().mean() < 0.9
    # the differential term is what tells them apart
    assert (inhibition_mask(x) == rms_mask(x)).double().mean() < 0.99


def test_unit_norm_by_hand():
    x = torch.tensor([[[3.0, 0.0], [0.0, -4.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1e-30, 0.0]]])
    wanted = [[[0.6, 0], [0, -0.8]], [[0, 0], [0, 0]], [[0, 0], [1, 0]]]
    close(unit_norm(x), torch.tensor(wanted), 1e-6)
    large = torch.tensor([[3e30, 4e30]])  # whose squares float32 does not hold
    close(unit_norm(large), torch.tensor([[0.6, 0.8]]), 1e-6)


def test_max_channel_by_hand():
    g = torch.tensor([[[[1.0, -5.0]], [[-3.0, -2.0]]]])  # (1, 2, 1, 2): signed, so 1 and -2, not 3 and 5
    assert max_channel(g).tolist() == [[[1, -2]]]
    assert max_channel(g[0]).tolist() == [[1, -2]]
    x = noise(2, 3, 4, 5, 6)
    assert torch.equal(max_channel(x), x.max(2).values)


@pytest.mark.parametrize("g", [None, [[[1.0]]], torch.zeros(3, 4), torch.zeros(0, 2, 3, 3), torch.zeros(2, 0, 3, 3)])
def test_what_has_no_channels_is_refused(g):
    with pytest.raises(ValueError, match=r"^g must be a non-empty tensor"):
        max_channel(g)


BAD_MAPS = [
    (None, "NoneType"),
    ([[1.0]], "list"),
    (torch.zeros(5), r"\(5,\)"),
    (torch.zeros(0, 4, 4), r"\(0, 4, 4\)"),
    (torch.zeros(2, 4, 0), r"\(2, 4, 0\)"),
    (torch.zeros(4, 4, dtype=torch.int64), "int64"),
    (torch.zeros(4, 4, dtype=torch.bool), "bool"),
    (torch.zeros(4, 4, dtype=torch.complex64), "complex64"),
    (torch.tensor([[1.0, NAN]]), "NaN"),
    (torch.tensor([[1.0, -INF]]), "infinite"),
]


@pytest.mark.parametrize(("x", "message"), BAD_MAPS)
@pytest.mark.parametrize(
    "method", [lateral_inhibition, inhibition_mask, partial(inhibition_mask, normalize=False), rms_mask]
)
def test_bad_maps_are_refused(method, x, message):
    with pytest.raises(ValueError, match=f"^x must be .*{message}"):
        method(x)


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("value", [-0.1, NAN, INF, "1", None, True])
def test_bad_weights_are_refused(name, value):
    for method in (lateral_inhibition, inhibition_mask):
        with pytest.raises(ValueError, match=f"^{name} must be a finite number from 0 on"):
            method(noise(4, 4), **{name: value})


# attention


@pytest.mark.parametrize("mode", ["response", "gradient"])
@each_network
def test_attention_against_the_naive_walk(make, size, mode):
    net, x = make(), images(2, *size)
    classes = [[0, 3], [5, 0]]
    found = attention_map(net, x, classes, mode=mode)
    close(found, slow_attentions(net, x, classes, mode=mode), 1e-6)
    assert found.shape == (2, 2, *size)
    close(found.square().sum((2, 3)), torch.ones(2, 2, dtype=torch.float64))
    assert (found >= 0).all()
    assert not found.requires_grad
    # the maps of two classes differ, or the comparison says little
    assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3


OPTIONS = {
    "before softmax": ({"score": "logit"}, {"after_softmax": False}),
    "all masked": ({"skip_last": False}, {"skip_last": False}),
    "normalised after": ({"normalize_layers": "after"}, {"normalize": "after"}),
    "not normalised": ({"normalize_layers": None}, {"normalize": None}),
    "nothing suppressed": ({"suppress": None}, {"rule": everything}),
    "root mean square": ({"suppress": rms_mask}, {"rule": slow_rms}),
    "small zones": ({"suppress": partial(inhibition_mask, k=3, a=0.3)}, {"rule": partial(slow_mask, k=3, a=0.3)}),
    # raw contributions have a scale, and that of the log-odds is not that of the probability
    "raw": (
        {"score": "logit", "suppress": partial(inhibition_mask, normalize=False)},
        {"after_softmax": False, "rule": partial(slow_mask, normalize=False)},
    ),
    "all at once": (
        {"score": "logit", "skip_last": False, "normalize_layers": "after", "suppress": rms_mask},
        {"score": "logit", "skip_last": False, "normalize": "after", "rule": slow_rms},
    ),
}


@pytest.mark.parametrize("mode", ["response", "gradient"])
@pytest.mark.parametrize(("options", "slow"), OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("make", [partial(tiny, inplace=True), Reused])
def test_options_against_the_naive_walk(make, options, slow, mode):
    net, x = make(), images(2)
    found = attention_map(net, x, [[2, 4], [1, 5]], mode=mode, **options)
    close(found, slow_attentions(net, x, [[2, 4], [1, 5]], mode=mode, **slow), 1e-6)


def test_every_option_changes_the_map():
    net, x = tiny(), images(1)
    wanted = attention_map(net, x, 2)
    for name, (options, _) in OPTIONS.items():
        assert (attention_map(net, x, 2, **options) - wanted).abs().max() > 1e-4, name
    assert (attention_map(net, x, 2, mode="gradient") - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["response", "gradient"])
@pytest.mark.parametrize("layers", [["1"], "4", ["1", "6"], ["0", "4"], ("3",), ["1#1", "4#*"]])
def test_chosen_layers_against_the_naive_walk(layers, mode):
    net, x = tiny(), images(2)
    bare = [name.partition("#")[0] for name in ([layers] if isinstance(layers, str) else layers)]
    found = attention_map(net, x, [3, 1], layers=layers, mode=mode)
    wanted = slow_attentions(net, x, [[3], [1]], mode=mode, picked=lambda name, _: name in bare)
    close(found, wanted[:, 0], 1e-6)


def test_calls_of_a_reused_layer_are_chosen_one_by_one():
    net, x = Reused(), images(2)
    steps = attention_steps(net, x, 1, layers=["relu#2"], skip_last=False)
    assert list(steps.masks) == ["relu#2"]
    close(steps.contributions["relu#2"], attention_steps(net, x, 1).contributions["relu#2"])


@pytest.mark.parametrize("mode", ["response", "gradient"])
@pytest.mark.parametrize("make", [Swapped, Backwards])
def test_the_last_layer_is_the_one_that_runs_last_not_the_one_registered_last(make, mode):
    net, x = make(), images(1)
    found = attention_map(net, x, 2, mode=mode)
    close(found, slow_attentions(net, x, [[2]], mode=mode)[:, 0], 1e-6)


def test_layers_are_listed_from_the_first_to_the_last():
    x = images(1)
    assert list(attention_steps(tiny(), x, 0).masks) == ["1", "4", "6"]  # not 11, which gives vectors
    assert list(attention_steps(Reused(), x, 0).masks) == ["relu#1", "relu#2"]
    assert list(attention_steps(Swapped(), x, 0).masks) == ["early", "late"]
    assert list(attention_steps(Backwards(), x, 0).masks) == ["late#1", "early", "late#2"]


def test_classifier_relus_are_left_alone():
    net, x, seen = tiny(), images(1), []
    net[11].register_forward_hook(lambda _module, _inputs, y: seen.append(y.clone()))
    steps = attention_steps(net, x, 0, suppress=lambda one: torch.zeros_like(one, dtype=torch.bool), skip_last=False)
    first, second = seen
    # with all maps silenced the vectors are what the biases make of zeros
    close(second, (net[11](net[10](torch.zeros(1, 20).double()))).detach())
    assert not torch.equal(first, second)
    assert "11" not in steps.masks


def test_steps_hold_every_layer_of_every_class():
    net, x = tiny(), images(3)
    for target, lead in [(2, (3,)), ([0, 1, 2], (3,)), ([[0, 5], [1, 5], [2, 5]], (3, 2))]:
        steps = attention_steps(net, x, target)
        close(steps.logits, copy.deepcopy(net).eval()(x).detach())
        for name, places in {"1": (9, 11), "4": (5, 6), "6": (4, 5)}.items():
            assert steps.contributions[name].shape == (*lead, *places)
            assert steps.masks[name].shape == (*lead, *places)
            assert steps.masks[name].dtype == torch.bool
            assert steps.sums[name].shape == (*lead, *places)
        assert steps.masks["6"].all()  # the last one is not masked
        assert not steps.masks["4"].all()
        assert torch.equal(steps.masks["1"], inhibition_mask(steps.contributions["1"]))
        # what is masked adds nothing, what is kept of the first layer adds what it was
        assert (steps.sums["1"][~steps.masks["1"]] == 0).all()
        with torch.no_grad():
            first = net[:2](x).sum(1)
        first = first if len(lead) == 1 else first[:, None].expand(-1, 2, -1, -1)
        close(steps.sums["1"][steps.masks["1"]], first[steps.masks["1"]])
        assert torch.equal(steps.map, attention_map(net, x, target))
        kept = attention_steps(net, x, target, mode="gradient")
        assert torch.equal(kept.sums["6"], kept.contributions["6"] * kept.masks["6"])
        assert not kept.masks["6"].all()


def test_suppress_is_given_contributions_of_all_images_and_classes():
    shapes = []

    def suppress(one):
        shapes.append(tuple(one.shape))
        return one > 0

    net, x = tiny(), images(2)
    steps = attention_steps(net, x, [[0, 1, 2], [2, 1, 0]], suppress=suppress)
    assert shapes == [(2, 3, 9, 11), (2, 3, 5, 6), (2, 3, 4, 5)]
    assert torch.equal(steps.masks["4"], steps.contributions["4"] > 0)


def test_attention_by_hand():
    # x -> x -> ReLU -> mean -> (m, -m): the gradient of m - (-m) is 2/4 everywhere, for class 1 -2/4
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(1, 2, False))
    with torch.no_grad():
        net[0].weight.fill_(1)
        net[4].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    x = torch.tensor([[[[3.0, -1.0], [0.0, 4.0]]]])
    steps = attention_steps(net, x, [[0, 1]], suppress=lambda one: one > 0, skip_last=False)
    assert steps.logits.tolist() == [[1.75, -1.75]]
    assert steps.contributions["1"].tolist() == [[[[0.5, 0.5], [0.5, 0.5]], [[-0.5, -0.5], [-0.5, -0.5]]]]
    assert steps.masks["1"].tolist() == [[[[True, True], [True, True]], [[False, False], [False, False]]]]
    assert steps.sums["1"].tolist() == [[[[3, 0], [0, 4]], [[0, 0], [0, 0]]]]
    close(steps.map, torch.tensor([[[[0.6, 0], [0, 0.8]], [[0, 0], [0, 0]]]]), 1e-6)  # nothing left: zeros


@pytest.mark.parametrize("normalize_layers", ["before", "after", None])
@pytest.mark.parametrize("mode", ["response", "gradient"])
def test_where_nothing_is_left_the_map_is_zero(mode, normalize_layers):
    nothing = partial(torch.zeros_like, dtype=torch.bool)
    options = {"mode": mode, "normalize_layers": normalize_layers, "skip_last": False}
    found = attention_map(tiny(), images(1), 0, suppress=lambda one: nothing(one), layers="1", **options)
    assert torch.equal(found, torch.zeros(1, 11, 13, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["response", "gradient"])
@pytest.mark.parametrize("make", [tiny, Reused])
def test_targets_of_all_shapes_and_batches_equal_one_by_one(make, mode):
    net, x = make(), images(3)
    call = partial(attention_map, net, mode=mode)
    several = call(x, [[0, 4, 0], [2, 1, 5], [3, 3, 0]])
    assert several.shape == (3, 3, 11, 13)
    for i, row in enumerate([[0, 4, 0], [2, 1, 5], [3, 3, 0]]):
        for j, c in enumerate(row):
            close(several[i, j], call(x[i : i + 1], c)[0])
    close(call(x, torch.tensor([4, 1, 3])), several[:, 1])
    close(call(x, [[0], [5], [0]])[:, 0], several[:, 2])
    close(call(x, 0)[0], several[0, 0])  # class 0 is a class


def test_class_zero_is_not_the_likeliest_class():
    net, x = tiny(), images(8)
    other = copy.deepcopy(net).eval()(x).argmax(1) != 0
    assert other.any()
    away = (attention_map(net, x, 0) - saliency_map(net, x, 1)).abs().amax((1, 2))
    assert (away[other] > 1e-3).all()


def saturated(scale=0.0):
    """Sends class 1 some `scale` above the others."""
    net = tiny()
    with torch.no_grad():
        net[12].bias[1] += scale
    return net


@pytest.mark.parametrize("target", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saturated_softmax_does_not_blank_the_map(target, dtype):
    net, x = saturated(1000).to(dtype), images(2).to(dtype)
    found = attention_map(net, x, target, mode="gradient")
    assert torch.isfinite(found).all()
    close(found.square().sum((1, 2)), torch.ones(2, dtype=dtype), 1e-5)
    first = net.eval()[:2](x).detach().requires_grad_()
    logits = net[2:](first)
    assert (logits.softmax(1)[:, [1, 3]] == torch.tensor([1, 0])).all()
    # class 3 is judged against class 1 alone; class 1 against the others, by their shares of what it leaves
    rivals = logits[:, 1] if target == 3 else logits[:, [0, 2, 3, 4, 5, 6]].exp().sum(1).log()
    (g,) = torch.autograd.grad((logits[:, target] - rivals).sum(), first)
    close(attention_steps(net, x, target).contributions["1"], g.amax(1), 1e-5)


def test_the_contribution_has_the_probabilitys_direction():
    net, x = tiny(), images(1)
    found = attention_steps(net, x, 4).contributions
    run, log = tapped(net, lambda _name, module: isinstance(module, nn.ReLU))
    chance = run(x).softmax(1)[0, 4]
    # dP = P (1 - P) d log(P / (1 - P))
    for name, g in zip(["1", "4", "6"], torch.autograd.grad(chance, log["seen"]), strict=True):
        close(found[name], g.amax(1) / (chance * (1 - chance)).detach())


# saliency


@pytest.mark.parametrize("options", [{}, {"mode": "gradient", "score": "logit"}, {"layers": ["4"]}])
def test_saliency_is_the_sum_of_the_five_likeliest_classes_maps(options):
    net, x = tiny(), images(3)
    likeliest = copy.deepcopy(net).eval()(x).argsort(1, descending=True)[:, :5].tolist()
    total = sum(attention_map(net, x, [row[k] for row in likeliest], **options) for k in range(5))
    wanted = torch.stack([slow_norm(one) for one in total])
    found = saliency_map(net, x, **options)
    close(found, wanted)
    assert found.shape == (3, 11, 13)
    close(saliency_map(net, x, top=1, **options), attention_map(net, x, [row[0] for row in likeliest], **options))
    close(saliency_map(net, x[1:2], **options)[0], found[1])


def test_saliency_of_all_classes():
    net, x = tiny(), images(2)
    total = attention_map(net, x, [list(range(7))] * 2).sum(1)
    close(saliency_map(net, x, 7), torch.stack([slow_norm(one) for one in total]))


@pytest.mark.parametrize("top", [0, -1, 1.0, True, None, "5"])
def test_a_bad_number_of_classes_is_refused(top):
    with pytest.raises(ValueError, match=r"^top must be an integer of at least 1, got "):
        saliency_map(tiny(), images(1), top)


def test_more_classes_than_there_are_are_refused():
    net = tiny()
    with pytest.raises(ValueError, match=r"^top must be at most 7, .*got 8"), assert_untouched(net):
        saliency_map(net, images(1), 8)


# how it is computed


def test_one_forward_for_all_classes_and_small_passes_with_masks():
    net, sizes = tiny(), []
    net.register_forward_pre_hook(lambda _module, given: sizes.append(len(given[0])))
    attention_map(net, images(2), [[0, 1, 2], [3, 4, 5]])
    assert sizes == [2, 6]
    sizes.clear()
    saliency_map(net, images(2))
    assert sizes == [2, 8, 2]  # 10 images with masks, at most 8 at once
    sizes.clear()
    saliency_map(net, images(9), top=3)
    assert sizes == [9, 9, 9, 9]
    sizes.clear()
    attention_map(net, images(2), 1)
    assert sizes == [2, 2]
    sizes.clear()
    attention_map(net, images(2), [[0, 1, 2], [3, 4, 5]], mode="gradient")
    assert sizes == [2]


CALLS = {
    "attention_map": lambda net, x: attention_map(net, x, 0),
    "several": lambda net, x: attention_map(net, x, [[0, 1]] * len(x)),
    "gradient": lambda net, x: attention_map(net, x, 0, mode="gradient"),
    "attention_steps": lambda net, x: attention_steps(net, x, lambda logits: logits.argmin(1)).map,
    "saliency_map": saliency_map,
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def mixed(*end):
    """Mixed modes, a frozen parameter, a filled .grad, and hooks of the user."""
    net = tiny(inplace=True).train()
    net[3].eval()
    net[0].bias.requires_grad_(False)
    net[10].weight.grad = torch.ones_like(net[10].weight)
    net[1].register_forward_hook(lambda *_: None)
    net[12].register_full_backward_hook(lambda *_: None)
    return nn.Sequential(*net, *end)


@each_call
def test_the_network_is_untouched(call):
    net = mixed()
    with assert_untouched(net):
        call(net, images(2))


@each_call
def test_the_network_is_untouched_when_its_forward_raises(call):
    net = mixed(Boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        call(net, images(2))


class Second(nn.Module):
    """Raises in its second forward, the one with masks."""

    def __init__(self):
        super().__init__()
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        if self.runs > 1:
            raise RuntimeError("boom")
        return x


def test_the_network_is_untouched_when_the_second_forward_or_the_rule_raises():
    net = mixed(Second())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        attention_map(net, images(2), 0)
    net = mixed()
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        attention_map(net, images(2), 0, suppress=Boom())


@each_call
def test_no_parameter_gets_a_gradient_and_the_images_are_left_alone(call):
    net = nn.Sequential(nn.ReLU(inplace=True), *tiny(inplace=True))  # the first layer writes over its input
    x = images(2).requires_grad_()
    before = x.detach().clone()
    assert not call(net, x).requires_grad
    assert torch.equal(x, before)
    assert x.grad is None
    assert all(parameter.grad is None for parameter in net.parameters())


@each_call
def test_training_mode_does_not_matter(call):
    close(call(tiny().train(), images(2)), call(tiny().eval(), images(2)))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_does_not_matter(context):
    net = tiny()
    wanted = saliency_map(net, images(2))
    with context():
        close(saliency_map(net, images(2)), wanted)


@each_call
def test_dtype_is_kept(call):
    found = call(tiny().float(), images(2).float())
    assert found.dtype == torch.float32
    close(found.double(), call(tiny(), images(2)), 1e-4)


def test_wide_images_keep_their_shape():
    torch.manual_seed(0)
    net = nn.Sequential(*tiny()).float()
    found = saliency_map(net, torch.randn(1, 3, 40, 200, generator=seeded(2)))
    assert found.shape == (1, 40, 200)
    assert attention_map(net, torch.randn(1, 3, 200, 40), 0).shape == (1, 200, 40)
    x = images(1, 20, 50)
    close(attention_map(tiny(), x, 3), slow_attentions(tiny(), x, [[3]])[:, 0], 1e-6)


@needs_cuda
@each_call
def test_a_network_on_the_gpu_gives_the_same(call):
    found = call(tiny().cuda(), images(2).cuda())
    assert found.is_cuda
    close(found.cpu(), call(tiny(), images(2)), 1e-6)


@needs_cuda
@pytest.mark.parametrize("method", [lateral_inhibition, inhibition_mask, rms_mask, max_channel, unit_norm])
def test_maps_on_the_gpu_give_the_same(method):
    x = noise(2, 3, 9, 8)
    found = method(x.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), method(x))


# what is refused


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images(1) * NAN, "finite"),
        (images(1) / 0, "finite"),
        (images(2)[:0], "empty"),
        (images(1)[0], r"\(B, C, H, W\)"),
        (images(1).long(), "floating point"),
        (images(1).float(), "float64"),
        (images(1)[:, :2], "3 channels"),
        (None, "tensor"),
    ],
)
def test_bad_images_are_refused(x, message):
    net = tiny()
    for call in (partial(attention_map, target=0), partial(attention_steps, target=0, mode="gradient"), saliency_map):
        with pytest.raises(ValueError, match=f"^x must .*{message}"), assert_untouched(net):
            call(net, x)


@pytest.mark.parametrize("target", [7, -1, [0, 7], [0], [0, 1, 2], 1.0, True, None, "cat", [[0, 1]]])
@pytest.mark.parametrize("method", [attention_map, attention_steps])
def test_bad_targets_are_refused(method, target):
    net = tiny()
    with pytest.raises(ValueError, match=r"^target must"), assert_untouched(net):
        method(net, images(2), target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "responses"}, 'mode must be "response" or "gradient", got \'responses\''),
        ({"mode": None}, "mode must be"),
        ({"normalize_layers": "none"}, r'normalize_layers must be "before", "after" or None, got \'none\''),
        ({"normalize_layers": False}, "normalize_layers must be"),
        ({"normalize_layers": "Before"}, "normalize_layers must be"),
        ({"layers": "relu"}, "layers: the network has no layer 'relu'"),
        ({"layers": ["1", "99"]}, "layers: the network has no layer '99'"),
        ({"layers": ["1#2"]}, "layers: there is no call '1#2'"),
        ({"layers": [1]}, "layers must be a name"),
        ({"layers": 3}, "layers must be a name"),
    ],
)
@pytest.mark.parametrize("method", [attention_map, attention_steps, lambda net, x, _, **o: saliency_map(net, x, **o)])
def test_bad_options_are_refused(method, options, message):
    net = tiny()
    with pytest.raises(ValueError, match=f"^{message}"), assert_untouched(net):
        method(net, images(1), 0, **options)


@pytest.mark.parametrize("layers", [[], ()])
def test_no_layers_are_refused(layers):
    with pytest.raises(ValueError, match="layers"):
        attention_map(tiny(), images(1), 0, layers=layers)


@pytest.mark.parametrize("layers", ["12", "11", "8", ["1", "10"], "11#*"])
@pytest.mark.parametrize("mode", ["response", "gradient"])
def test_layers_without_feature_maps_are_refused(layers, mode):
    with pytest.raises(ValueError, match=r"^layers.*feature maps"):
        attention_map(tiny(), images(2), 0, layers=layers, mode=mode)


@pytest.mark.parametrize("mode", ["response", "gradient"])
def test_layers_with_rows_of_tokens_are_refused(mode):
    # (B, C, L), as transformers give: no axis of them is the channels of a map
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9 * 11, 7)).double()
    with pytest.raises(ValueError, match=r"^layers.*feature maps"):
        attention_map(net, images(4), 0, layers="2", mode=mode)


@pytest.mark.parametrize("act", [nn.Tanh, nn.ReLU6, nn.Identity])
def test_a_network_without_relus_is_refused(act):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6)).double()
    for call in CALLS.values():
        with pytest.raises(ValueError, match=r"^model must have nn.ReLU modules, or layers must name others"):
            call(net, images(1))
    assert attention_map(net, images(1), 0, layers="1").shape == (1, 11, 13)


def test_a_network_with_relus_on_vectors_only_is_refused():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 11 * 13, 5), nn.ReLU(), nn.Linear(5, 6)).double()
    with pytest.raises(ValueError, match="feature maps"), assert_untouched(net):
        attention_map(net, images(1), 0)


@pytest.mark.parametrize("end", [nn.Unflatten(1, (7, 1, 1)), nn.Softmax(1)])
def test_a_network_has_to_give_logits(end):
    net = nn.Sequential(*tiny(), end)
    if isinstance(end, nn.Softmax):
        assert attention_map(net, images(1), 0).shape == (1, 11, 13)  # cannot be told from logits
        return
    with pytest.raises(ValueError, match=r"^model must return logits"), assert_untouched(net):
        attention_map(net, images(1), 0)


def test_one_class_has_no_rivals():
    net = nn.Sequential(*tiny(), nn.Linear(7, 1)).double()
    with pytest.raises(ValueError, match="two classes"), assert_untouched(net):
        attention_map(net, images(1), 0)
    assert attention_map(net, images(1), 0, score="logit").shape == (1, 11, 13)
