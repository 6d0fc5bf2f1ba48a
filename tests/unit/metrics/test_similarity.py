import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d
from scipy.stats import spearmanr
from skimage.feature import hog
from skimage.metrics import structural_similarity

from helpers.metrics import map_similarity

MEASURES = ["spearman", "spearman_abs", "ssim", "hog"]
ALIKE = {measure: [1.0, 1.0] for measure in MEASURES}
OPPOSED = ALIKE | {"spearman": [-1.0, -1.0]}  # two maps of another sign

# sides: (reach of the window in pixels, its sigma, side of a cell in pixels). The window has 2 reach + 1 pixels, 11 or
# what fits; sigma is 1.5, or less so that reach is 3.5 of them. A cell has 16 pixels, or a third of the shorter side.
SIZES = {
    (3, 3): (1, 1 / 3.5, 1),
    (7, 9): (3, 3 / 3.5, 2),
    (9, 7): (3, 3 / 3.5, 2),
    (10, 12): (4, 4 / 3.5, 3),
    (11, 11): (5, 5 / 3.5, 3),
    (13, 12): (5, 5 / 3.5, 4),
    (13, 14): (5, 1.5, 4),
    (20, 50): (5, 1.5, 6),
    (28, 28): (5, 1.5, 9),
    (48, 48): (5, 1.5, 16),
    (64, 64): (5, 1.5, 16),
    (70, 53): (5, 1.5, 16),
}
each_size = pytest.mark.parametrize("shape", SIZES, ids=str)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def pair(shape, seed=0, dtype=torch.float64, count=2):
    """Two signed maps that are somewhat alike."""
    a, noise = torch.randn(2, count, *shape, generator=seeded(seed), dtype=torch.float64)
    return a.to(dtype), (0.7 * a + noise).to(dtype)


def unit(values):
    size = np.abs(values.double().numpy())
    return (size - size.min()) / (size.max() - size.min())


def by_scikit_image(map_a, map_b):
    """The four measures of two maps (H, W), from scipy, scikit-image and numpy."""
    reach, sigma, cell = SIZES[tuple(map_a.shape)]
    a, b = unit(map_a), unit(map_b)
    features = [
        hog(u, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(3, 3), block_norm="L2-Hys")
        for u in (a, b)
    ]
    window = {"win_size": 2 * reach + 1, "gaussian_weights": True, "sigma": sigma, "use_sample_covariance": True}
    ssim = structural_similarity(a, b, data_range=1.0, K1=0.01, K2=0.03, **window)
    first, second = map_a.double().numpy().ravel(), map_b.double().numpy().ravel()
    return {
        "spearman": spearmanr(first, second).statistic,
        "spearman_abs": spearmanr(abs(first), abs(second)).statistic,
        "ssim": ssim,
        "hog": np.corrcoef(*features)[0, 1],
    }


def close(actual, expected, tolerance=1e-10):
    assert list(actual) == MEASURES
    for measure in MEASURES:
        got, want = actual[measure].double(), torch.as_tensor(expected[measure], dtype=torch.float64)
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance, equal_nan=True)


# map_similarity


@each_size
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_map_similarity_against_scipy_and_scikit_image(shape, dtype):
    a, b = pair(shape, dtype=dtype)
    expected = [by_scikit_image(map_a, map_b) for map_a, map_b in zip(a, b, strict=True)]
    tolerance = 1e-6 if dtype == torch.float32 else 1e-10
    close(map_similarity(a, b), {measure: [row[measure] for row in expected] for measure in MEASURES}, tolerance)


def test_map_similarity_with_ties_and_many_zeros_as_relu_leaves_them():
    a, b = (maps.clamp(min=0) for maps in pair((20, 50)))
    expected = [by_scikit_image(map_a, map_b) for map_a, map_b in zip(a, b, strict=True)]
    actual = map_similarity(a, b)
    close(actual, {measure: [row[measure] for row in expected] for measure in MEASURES})
    close(actual, actual | {"spearman_abs": actual["spearman"]})


def test_ssim_by_its_formula():
    a, b = pair((20, 50), count=1)
    u, v = unit(a[0]), unit(b[0])
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))  # 11 pixels
    bell /= bell.sum()

    def mean(values):
        return convolve1d(convolve1d(values, bell, axis=0), bell, axis=1)[5:-5, 5:-5]  # windows that lie inside

    sample = 121 / 120  # scikit-image corrects the variances for a window of 121 pixels
    mu, mv = mean(u), mean(v)
    uu, vv, uv = (sample * (mean(p * q) - mean(p) * mean(q)) for p, q in ((u, u), (v, v), (u, v)))
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * mu * mv + c1) * (2 * uv + c2) / ((mu**2 + mv**2 + c1) * (uu + vv + c2))
    assert map_similarity(a, b)["ssim"].item() == pytest.approx(ssim.mean(), abs=1e-10)


@each_size
def test_sign_and_order_of_the_maps(shape):
    a, b = pair(shape)
    close(map_similarity(a, a), ALIKE)
    close(map_similarity(a, -a), OPPOSED)
    plain, turned = map_similarity(a, b), map_similarity(a, -b)
    close(turned, plain | {"spearman": -plain["spearman"]})
    close(map_similarity(b, a), plain)


def test_ranks_by_hand():
    a = torch.tensor([[[1.0, -2, 3], [-4, 5, -6], [7, -8, 9]]])
    b = torch.tensor([[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]])
    actual = map_similarity(a, b)
    # ranks of a: 5 4 6 3 7 2 8 1 9; of b: 1 .. 9; squared differences 16 4 9 1 4 16 1 49 0 = 100; 1 - 6 * 100 / 720
    assert actual["spearman"].item() == pytest.approx(1 - 600 / 720)
    assert actual["spearman_abs"].item() == pytest.approx(1)
    assert actual["ssim"].item() == pytest.approx(1)
    assert actual["hog"].item() == pytest.approx(1)


def test_units_do_not_count_nor_does_a_rising_function_for_the_ranks():
    a, b = pair((28, 28))
    plain = map_similarity(a, b)
    close(map_similarity(3e-20 * a, 7e9 * b), plain)
    close(map_similarity(a, b.sinh()), map_similarity(a, b.sinh()) | {"spearman": plain["spearman"]})
    # what is nowhere near 0 is stretched to 0 .. 1 too: the smallest size counts as nothing
    far = a.abs() + 5
    close(map_similarity(far, b), map_similarity(a.abs(), b))


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e30])
def test_very_small_and_very_large_maps(scale):
    a = (torch.randn(1, 12, 12, generator=seeded(0)).sign() * torch.arange(1, 145).view(1, 12, 12)) * scale
    close(map_similarity(a, -a), {measure: values[:1] for measure, values in OPPOSED.items()}, 1e-6)


@pytest.mark.parametrize("shape", [(3, 3), (7, 9), (28, 28), (64, 64)], ids=str)
@pytest.mark.parametrize("value", [0.0, 2.0, -0.1])
def test_a_constant_map_is_like_nothing(shape, value):
    a, _ = pair(shape, dtype=torch.float32)
    constant = torch.full_like(a, value)
    for map_a, map_b in ((a, constant), (constant, a), (constant, constant)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            actual = map_similarity(map_a, map_b)
        assert list(actual) == MEASURES
        assert all(values.isnan().all() and values.shape == (2,) for values in actual.values())


def test_one_constant_map_leaves_the_others_of_the_batch_alone():
    a, b = pair((9, 7), count=3)
    a[1] = 4.0
    actual = map_similarity(a, b)
    rest = map_similarity(a[[0, 2]], b[[0, 2]])
    assert all(actual[measure].isnan().tolist() == [False, True, False] for measure in MEASURES)
    assert all(torch.equal(actual[measure][[0, 2]], rest[measure]) for measure in MEASURES)


def test_a_map_of_two_signs_and_one_size_has_an_order_but_no_sizes_to_compare():
    a = torch.tensor([[[1.0, -1, 1], [-1, 1, 1], [1, 1, -1]]])
    actual = map_similarity(a, a)
    assert actual["spearman"].item() == pytest.approx(1)
    assert all(actual[measure].isnan().all() for measure in ("spearman_abs", "ssim", "hog"))


def test_a_map_without_a_gradient_inside_has_no_histogram_to_compare():
    a = torch.zeros(1, 3, 3)
    a[:, 1, 1] = 1  # scikit-image takes no gradient at the border, and in the middle the neighbours are alike
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        actual = map_similarity(a, a)
    assert actual["hog"].isnan().all()
    assert all(actual[measure].item() == pytest.approx(1) for measure in MEASURES[:3])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_map_similarity_keeps_dtype_and_inputs(dtype):
    a, b = pair((7, 9), dtype=dtype)
    originals = a.clone(), b.clone()
    actual = map_similarity(a, b)
    assert list(actual) == MEASURES
    assert all(v.shape == (2,) and v.dtype == dtype and v.device == a.device for v in actual.values())
    assert torch.equal(a, originals[0])
    assert torch.equal(b, originals[1])


def test_maps_with_a_graph_and_maps_in_strides_are_taken():
    a, b = pair((9, 7))
    plain = map_similarity(a, b)
    graph = map_similarity(a.clone().requires_grad_(), b.clone().requires_grad_())
    assert not any(values.requires_grad for values in graph.values())
    close(graph, plain)
    strided = (maps.mT.contiguous().mT for maps in (a, b))
    close(map_similarity(*strided), plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_map_similarity_keeps_the_device():
    a, b = pair((9, 7))
    actual = map_similarity(a.cuda(), b.cuda())
    assert all(values.device.type == "cuda" for values in actual.values())
    close({measure: values.cpu() for measure, values in actual.items()}, map_similarity(a, b))


MAPS = torch.arange(24.0).view(2, 3, 4)


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        (MAPS[0], MAPS[0], r"a must be a non-empty tensor \(B, H, W\), got \(3, 4\)"),
        (MAPS, MAPS.mT, r"a and b must have one shape, .*\(2, 3, 4\) and \(2, 4, 3\)"),
        (MAPS[:, :2], MAPS[:, :2], "a and b must have one shape, sides from 3 on"),
        (MAPS, MAPS / 0, "b must be finite"),
    ],
)
def test_map_similarity_refuses(a, b, match):
    with pytest.raises(ValueError, match=match):
        map_similarity(a, b)


@each_size
def test_the_sign_counts_for_the_signed_ranks_alone(shape):
    a, b = pair(shape)
    close(map_similarity(a, -a), OPPOSED)
    plain, turned = map_similarity(a, b), map_similarity(a, -b)
    close(turned, plain | {"spearman": -plain["spearman"]})


@each_size
def test_either_map_may_come_first(shape):
    a, b = pair(shape)
    close(map_similarity(b, a), map_similarity(a, b))


@pytest.mark.parametrize("shape", [(7, 9), (28, 28)], ids=str)
def test_a_batch_is_what_its_maps_are_one_by_one(shape):
    a, b = pair(shape, count=3)
    actual = map_similarity(a, b)
    for number in range(3):
        alone = map_similarity(a[number : number + 1], b[number : number + 1])
        assert all(torch.equal(actual[measure][number : number + 1], alone[measure]) for measure in MEASURES)
