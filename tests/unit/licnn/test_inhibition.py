"""Which places of a map win: against four loops written from equation 3, and by hand."""

import math
from functools import partial

import pytest
import torch
from support.licnn import noise, slow_inhibition, slow_mask, slow_rms
from support.refuses import refuses
from support.tensors import NAN, needs_cuda

from helpers.licnn import (
    center_surround_mask,
    inhibition_kernel,
    inhibition_mask,
    lateral_inhibition,
    max_channel,
    rms_mask,
    unit_norm,
)

close = partial(torch.testing.assert_close, rtol=0, atol=1e-10)


# what d exp(-d) is in a zone of 3 x 3: d = 1/3 beside the middle, sqrt(2)/3 in the corners
SIDE, CORNER = math.exp(-1 / 3) / 3, math.sqrt(2) / 3 * math.exp(-math.sqrt(2) / 3)


# the kernel


def test_kernel_by_hand():
    expected = [[CORNER, SIDE, CORNER], [SIDE, 0, SIDE], [CORNER, SIDE, CORNER]]
    close(inhibition_kernel(3), torch.tensor(expected, dtype=torch.float64), atol=1e-15)
    assert inhibition_kernel(1).tolist() == [[0]]
    actual = inhibition_kernel()
    assert actual.shape == (7, 7)
    assert actual[3, 3] == 0
    assert float(actual[3, 5]) == pytest.approx(2 / 7 * math.exp(-2 / 7))
    assert float(actual[0, 6]) == pytest.approx(3 * 2**0.5 / 7 * math.exp(-3 * 2**0.5 / 7))
    assert float(actual.sum()) == pytest.approx(12.15, abs=0.005)


@pytest.mark.parametrize("k", [3, 5, 7, 15])
def test_kernel_is_symmetric_and_grows_with_the_distance(k):
    actual = inhibition_kernel(k)
    assert torch.equal(actual, actual.T)
    assert torch.equal(actual, actual.flip(0))
    middle = actual[k // 2, k // 2 :]
    assert (middle.diff() > 0).all()
    assert float(actual.max()) == float(actual[0, 0]) == float(actual[-1, -1])


# lateral inhibition


def test_lateral_inhibition_by_hand():
    x = torch.zeros(3, 3, dtype=torch.float64)
    x[1, 1] = 9
    # every zone of k = 3 holds the 9, its mean is 1; the others see it 9 above them, at 1/3 or sqrt(2)/3
    protect = 0.1 * math.exp(-1)
    side = protect + 0.9 * 9 / 3 * math.exp(-1 / 3)
    corner = protect + 0.9 * 9 * 2**0.5 / 3 * math.exp(-(2**0.5) / 3)
    expected = [[corner, side, corner], [side, protect, side], [corner, side, corner]]
    close(lateral_inhibition(x, 3), torch.tensor(expected, dtype=torch.float64))
    # k = 5: d = 1/5; only the average term's mean changes for the middle, 9/25
    assert float(lateral_inhibition(x, 5)[1, 1]) == pytest.approx(0.1 * math.exp(-9 / 25))


def test_lateral_inhibition_in_a_corner_by_hand():
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]], dtype=torch.float64)
    # around the 1: five zeros beyond the border, which do not lie above it, and 1 2 4 5; mean 12/9
    expected = 2 * math.exp(-12 / 9) + 3 * (SIDE * (1 + 3) + CORNER * 4)
    actual = lateral_inhibition(x, 3, a=2, b=3)
    assert float(actual[0, 0]) == pytest.approx(expected)
    # around the 9: 5 6 8 9, none above it; mean 28/9
    assert float(actual[2, 2]) == pytest.approx(2 * math.exp(-28 / 9))
    # around the 6: 2 3 5 6 8 9, three zeros; 8 above by 2 in a corner, 9 by 3 below; mean 33/9
    assert float(actual[1, 2]) == pytest.approx(2 * math.exp(-33 / 9) + 3 * (2 * CORNER + 3 * SIDE))


def test_zeros_beyond_the_border_inhibit_what_is_negative():
    # one place of -2: mean -2/9, and all eight neighbours, zeros, lie 2 above
    actual = lateral_inhibition(torch.tensor([[-2.0]], dtype=torch.float64), 3)
    assert float(actual) == pytest.approx(0.1 * math.exp(2 / 9) + 0.9 * 2 * 4 * (SIDE + CORNER))
    # a zone of one place: the mean is the place itself, no neighbours
    actual = lateral_inhibition(torch.tensor([[3.0, -1.0]], dtype=torch.float64), 1)
    close(actual, torch.tensor([[0.1 * math.exp(-3), 0.1 * math.exp(1)]], dtype=torch.float64))


SHAPES = [(9, 9), (8, 8), (7, 12), (13, 6), (1, 1), (2, 3), (1, 11), (5, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 3, 7, 15])
@pytest.mark.parametrize("shape", SHAPES)
def test_lateral_inhibition_against_four_loops(shape, k, dtype):
    x = noise(*shape, seed=k).to(dtype) / 3
    actual = lateral_inhibition(x, k)
    assert actual.dtype == dtype
    assert actual.shape == shape
    limit = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(actual.double(), slow_inhibition(x, k=k), rtol=limit, atol=limit)
    assert torch.equal(inhibition_mask(x.double(), k), slow_mask(x, k=k))
    assert torch.equal(inhibition_mask(x.double(), k, normalize=False), slow_mask(x, k=k, normalize=False))


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.9), (0.5, 0), (0, 0.5), (2, 3), (0, 0)])
def test_weights_of_the_two_terms(a, b):
    x = noise(6, 9)
    close(lateral_inhibition(x, 5, a, b), slow_inhibition(x, k=5, a=a, b=b), atol=1e-12)
    assert torch.equal(inhibition_mask(x, 5, a, b), slow_mask(x, k=5, a=a, b=b))
    close(lateral_inhibition(x), slow_inhibition(x, k=7, a=0.1, b=0.9), atol=1e-12)


@pytest.mark.parametrize("method", [lateral_inhibition, inhibition_mask, rms_mask, unit_norm])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_in_batches_equal_maps_one_by_one(method, dtype):
    x = noise(2, 3, 5, 6).to(dtype) * torch.tensor([1e-3, 1.0, 50.0], dtype=dtype)[:, None, None]
    before = x.clone()
    actual = method(x)
    assert actual.shape == x.shape
    assert actual.dtype == (torch.bool if method in (inhibition_mask, rms_mask) else dtype)
    for i in range(2):
        for j in range(3):
            assert torch.equal(actual[i, j], method(x[i, j]))
    torch.testing.assert_close(method(x.mT.contiguous().mT), actual)  # whatever the strides
    assert torch.equal(x, before)


def test_maps_that_need_a_gradient_are_only_looked_at():
    x = noise(5, 6).requires_grad_()
    for method in (lateral_inhibition, inhibition_mask, rms_mask):
        actual = method(x)
        assert torch.equal(actual, method(x.detach()))
        assert not actual.requires_grad, method.__name__
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
    expected = [[[0.6, 0], [0, -0.8]], [[0, 0], [0, 0]], [[0, 0], [1, 0]]]
    close(unit_norm(x), torch.tensor(expected), atol=1e-6)
    large = torch.tensor([[3e30, 4e30]])  # whose squares float32 does not hold
    close(unit_norm(large), torch.tensor([[0.6, 0.8]]), atol=1e-6)


def test_max_channel_by_hand():
    g = torch.tensor([[[[1.0, -5.0]], [[-3.0, -2.0]]]])  # (1, 2, 1, 2): signed, so 1 and -2, not 3 and 5
    assert max_channel(g).tolist() == [[[1, -2]]]
    assert max_channel(g[0]).tolist() == [[1, -2]]
    x = noise(2, 3, 4, 5, 6)
    assert torch.equal(max_channel(x), x.max(2).values)


def test_bad_arguments_are_refused():
    refuses(inhibition_kernel, {}, k=8)
    refuses(max_channel, {}, gradients=torch.zeros(3, 4))
    for k, weight in ((0, -0.1), (8, float("inf"))):
        for maps in (torch.zeros(5), torch.zeros(4, 4, dtype=torch.int64), torch.tensor([[1.0, NAN]])):
            for method in (rms_mask, unit_norm, center_surround_mask):
                refuses(method, {}, maps=maps)
            for method in (lateral_inhibition, inhibition_mask, partial(inhibition_mask, normalize=False)):
                refuses(method, {"maps": noise(5, 5)}, maps=maps, k=k, a=weight, b=weight)


@needs_cuda
@pytest.mark.parametrize("method", [lateral_inhibition, inhibition_mask, rms_mask, max_channel, unit_norm])
def test_maps_on_the_gpu_give_the_same(method):
    x = noise(2, 3, 9, 8)
    actual = method(x.cuda())
    assert actual.is_cuda
    torch.testing.assert_close(actual.cpu(), method(x))
