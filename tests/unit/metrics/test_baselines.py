"""Maps that know nothing of the network."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from skimage.filters import sobel
from support.metrics import IMAGES, NAN, close, draw, exactly, float64

from helpers.metrics import (
    blurred_map,
    box_mask,
    center_map,
    edge_map,
    pixel_auc,
    pointing_game,
    random_map,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# baselines


def test_center_map_by_hand():
    def actual(height, width):
        return center_map(torch.ones(1, 3, height, width).double())[0]

    exactly(actual(1, 1), [[1]])
    beside = math.exp(-((4 / 3) ** 2) / 2)  # a pixel of three beside the centre: 1 / 0.75 standard deviations
    close(actual(1, 3), float64([[beside, 1, beside]]))
    close(actual(3, 3), float64([[beside**2, beside, beside**2], [beside, 1, beside], [beside**2, beside, beside**2]]))
    row = [math.exp(-(1 + 1.5**2) / 2), math.exp(-(1 + 0.5**2) / 2)]  # 2 x 4: +-1 and +-0.5, +-1.5 deviations
    close(actual(2, 4), float64([row + row[::-1]] * 2))
    close(actual(4, 2), actual(2, 4).mT)


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (5, 12), (64, 31)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_center_map_is_symmetric_and_largest_in_the_middle(shape, dtype):
    actual = center_map(draw(2, 3, *shape, dtype=dtype))
    assert actual.shape == (2, *shape)
    assert actual.dtype == dtype
    exactly(actual[1], actual[0])
    assert actual[1].data_ptr() != actual[0].data_ptr()  # of its own memory
    exactly(actual.flip(1), actual)
    exactly(actual.flip(2), actual)
    (height, width), top = shape, actual[0] == actual.max()
    rows, columns = ([(n - 1) // 2, n // 2] for n in (height, width))
    assert all(top[i, j] for i in rows for j in columns)
    assert top.sum() == len(set(rows)) * len(set(columns))
    assert (actual[0].diff(dim=0)[: (height - 1) // 2] > 0).all()
    assert (actual[0].diff(dim=1)[:, : (width - 1) // 2] > 0).all()


def test_blurred_map_of_a_tiny_image_by_hand():
    exactly(blurred_map(torch.full((1, 3, 1, 1), 0.7)), [[[0]]])
    assert blurred_map(torch.tensor([0.37, -2.0, 5.0]).view(1, 3, 1, 1).expand(2, -1, 17, 23)).abs().max() < 1e-5
    x = torch.tensor([[0.0, 0, 0], [0, 0, 6]])  # too small to blur; the mean is 1
    exactly(blurred_map(x[None, None]), [[[1, 1, 1], [1, 1, 5]]])
    two = torch.stack([x, torch.tensor([[-4.0, 0, 2], [2, 0, 0]])])  # the second one's mean is 0
    exactly(blurred_map(two[None]), [[[4, 1, 2], [2, 1, 5]]])
    exactly(blurred_map(torch.stack([two, two * 10])), [[[4, 1, 2], [2, 1, 5]], [[40, 10, 20], [20, 10, 50]]])


@pytest.mark.parametrize(
    ("shape", "sigma", "radius"),
    [((20, 20), 1, (3, 3)), ((12, 20), 1, (3, 3)), ((60, 40), 3, (9, 9)), ((3, 20), 1, (2, 3)), ((20, 2), 1, (3, 1))],
)
def test_blurred_map_against_scipy(shape, sigma, radius):
    x = draw(2, 3, *shape)
    expected = []
    for image in x.numpy():
        blurred = [scipy.ndimage.gaussian_filter(channel, sigma, mode="mirror", radius=radius) for channel in image]
        expected.append(max_of([abs(b - channel.mean()) for b, channel in zip(blurred, image, strict=True)]))
    actual = blurred_map(x)
    close(actual, torch.stack(expected))
    assert blurred_map(x.float()).dtype == torch.float32
    close(blurred_map(x.float()).double(), actual, rtol=1e-4, atol=1e-5)


def max_of(arrays):
    return torch.stack([torch.from_numpy(array) for array in arrays]).amax(0)


def test_random_map_is_reproducible_by_its_seed():
    x = draw(2, 3, 50, 40, dtype=torch.float32)
    state = torch.get_rng_state()
    actual = random_map(x, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert actual.shape == (2, 50, 40)
    assert torch.equal(random_map(x * 0, seed=3), actual)
    assert not torch.equal(random_map(x, seed=4), actual)
    assert torch.equal(random_map(x), random_map(x, seed=0))
    assert not torch.equal(actual[0], actual[1])
    assert random_map(x.double(), seed=3).dtype == torch.float64
    close(random_map(x.double(), seed=3).float(), actual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_random_map_is_even_between_0_and_1(dtype):
    actual = random_map(torch.zeros(1, 1, 128, 128, dtype=dtype))
    assert actual.dtype == dtype
    assert actual.min() >= 0
    assert actual.max() < 1
    assert torch.histc(actual.float(), 8, 0, 1).sub(2048).abs().max() < 200


BASELINES = {"center_map": center_map, "blurred_map": blurred_map, "random_map": random_map, "edge_map": edge_map}


@pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)
def test_baselines_refuse_bad_images(baseline):
    with pytest.raises(ValueError, match=r"^x must be finite"):
        baseline(IMAGES * NAN)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_baselines_are_the_same_on_the_gpu():
    for baseline in BASELINES.values():
        assert baseline(IMAGES.cuda()).is_cuda
        close(baseline(IMAGES.cuda()).cpu(), baseline(IMAGES))


# edge_map


def test_a_step_by_hand():
    x = torch.zeros(1, 1, 4, 6)
    x[..., 3:] = 8
    # half the difference of the right and the left neighbour: (8 - 0) / 2 on both sides of the step, rows are alike
    assert edge_map(x).tolist() == [[[0, 0, 4, 4, 0, 0]] * 4]
    assert edge_map(x.mT).tolist() == [[[0] * 4, [0] * 4, [4] * 4, [4] * 4, [0] * 4, [0] * 4]]
    assert edge_map(-x).tolist() == [[[0, 0, 4, 4, 0, 0]] * 4]


def test_a_dot_by_hand():
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 8
    corner, side = 2**0.5, 2  # beside: 8 / 2 * 2 / 4; at a corner 8 / 2 / 4 both ways
    expected = [[corner, side, corner], [side, 0, side], [corner, side, corner]]
    actual = edge_map(x)[0]
    torch.testing.assert_close(actual[1:4, 1:4], torch.tensor(expected))
    assert actual[1:4, 1:4].sum() == actual.sum()


def test_a_ramp_has_one_slope_and_half_of_it_at_the_border():
    x = (3.0 * torch.arange(5))[None, None, :, None].expand(1, 1, 5, 4)
    # inside (6 - 0) / 2 = 3; in the first row, which is repeated, (3 - 0) / 2
    assert edge_map(x).tolist() == [[[1.5] * 4, [3] * 4, [3] * 4, [3] * 4, [1.5] * 4]]
    both = 3.0 * torch.arange(5)[:, None] + 4.0 * torch.arange(5)
    assert edge_map(both[None, None])[0, 1:-1, 1:-1].tolist() == [[5] * 3] * 3  # the length of (3, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("colour", [(0.1,), (-7.7,), (1 / 3, 1 / 3, 1 / 3), (0.1, 0.7, -0.4)])
def test_an_even_image_has_no_edges_not_even_at_its_border(colour, dtype):
    x = torch.tensor(colour, dtype=dtype).view(1, -1, 1, 1).expand(2, -1, 9, 11)
    assert edge_map(x).abs().max() == 0  # rounding included: ranks and ties depend on it


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2)], ids=str)
def test_the_smallest_images(shape):
    x = torch.rand(2, 3, *shape, generator=seeded(0), dtype=torch.float64)
    padded = np.pad(x.mean(1).numpy(), ((0, 0), (1, 1), (1, 1)), mode="edge")
    expected = torch.tensor(np.stack([sobel(gray)[1:-1, 1:-1] for gray in padded])) / 2**0.5
    torch.testing.assert_close(edge_map(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 3), (9, 14), (28, 28)], ids=str)
def test_edge_map_against_scikit_image(shape, dtype):
    x = torch.randn(2, 3, *shape, generator=seeded(1), dtype=dtype)
    # scikit-image takes the mean of the two squared differences of neighbours, not half of each: 2 ** 0.5 times as much
    expected = np.stack([sobel(gray) for gray in x.double().mean(1).numpy()]) / 2**0.5
    actual = edge_map(x).double()
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-5, atol=1e-6)  # the outermost too


def test_the_colours_are_averaged():
    x = torch.zeros(1, 3, 4, 6, dtype=torch.float64)
    x[:, 0, :, 3:] = 6  # the mean's step is 2, its slope 1
    assert edge_map(x).tolist() == [[[0, 0, 1, 1, 0, 0]] * 4]
    x[:, 2, :, 3:] = -6  # the opposite step in another colour
    assert edge_map(x).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edge_map_keeps_shape_dtype_input_and_batches(dtype):
    x = torch.randn(3, 2, 7, 9, generator=seeded(2), dtype=dtype)
    original = x.clone()
    actual = edge_map(x)
    assert actual.shape == (3, 7, 9)
    assert actual.dtype == dtype
    assert actual.device == x.device
    assert (actual >= 0).all()
    assert torch.equal(x, original)
    for number in range(3):
        torch.testing.assert_close(edge_map(x[number : number + 1]), actual[number : number + 1])
    torch.testing.assert_close(edge_map(5 * x + 3), 5 * actual)


def test_center_maps_of_a_batch_do_not_share_memory():
    actual = center_map(torch.zeros(2, 1, 3, 3))
    actual[0] = 9
    assert actual[1].max() == 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (17, 23), (40, 3)])
def test_a_constant_image_has_a_blurred_map_of_nothing(shape):
    actual = blurred_map(torch.tensor([0.37, -2.0, 5.0]).view(1, 3, 1, 1).expand(2, -1, *shape))
    assert actual.shape == (2, *shape)
    assert actual.abs().max() < 1e-5


@pytest.mark.parametrize("sign", [1, -1])
def test_blurred_map_finds_what_stands_out(sign):
    x = torch.zeros(1, 3, 30, 40)
    mask = box_mask(torch.tensor([[25, 8, 33, 16]]), (30, 40))
    x[:, 1][mask] = sign
    actual = blurred_map(x)
    assert pointing_game(actual, mask) == 1
    assert pixel_auc(actual, mask) > 0.99
    close(actual[0, 12, 29], actual.max())


def test_even_parts_of_an_image_have_no_edges():
    x = torch.full((1, 3, 8, 12), 0.1)
    x[..., 6:] = 0.7
    assert (edge_map(x)[0] > 0).tolist() == [[False] * 5 + [True] * 2 + [False] * 5] * 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_edge_map_on_a_gpu_is_as_precise():
    x = torch.randn(3, 2, 7, 9, generator=seeded(2))
    actual = edge_map(x.cuda())
    assert actual.device.type == "cuda"
    torch.testing.assert_close(actual.cpu(), edge_map(x), rtol=1e-5, atol=1e-6)
