"""Non-negative matrix factorisation against scikit-learn's, and the parts it finds in feature maps."""

import itertools
import math
import warnings

import pytest
import torch
from support.refuses import refuses

from helpers.factors import deep_feature_factorization, nmf

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=seeded(seed), dtype=dtype)


def error(v, w, h):
    return (v.double() - w.double() @ h.double()).square().sum((-2, -1))


def exactly(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# the factorisation


def test_one_iteration_by_hand():
    # V = (1 2; 3 4), W = (1; 1), H = (1 1).
    # W: V H' = (3; 7), W H H' = (2; 2), so W = (3/2; 7/2). Then H: W' V = (12, 17), W' W = 58/4, so H = (24, 34) / 29.
    v = torch.tensor([[1.0, 2], [3, 4]], dtype=torch.float64)
    start = torch.ones(2, 1, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    w, h = nmf(v, 1, 1, start=start)
    torch.testing.assert_close(w, torch.tensor([[1.5], [3.5]]).double())
    torch.testing.assert_close(h, torch.tensor([[24 / 29, 34 / 29]], dtype=torch.float64))


@pytest.mark.parametrize("iterations", [1, 5, 50])
@pytest.mark.parametrize(("m", "c", "k"), [(12, 9, 1), (12, 9, 3), (7, 15, 4), (5, 4, 6)])
def test_nmf_equals_scikit_learns(m, c, k, iterations):
    NMF = pytest.importorskip("sklearn.decomposition").NMF
    v, w, h = rand(m, c), rand(m, k, seed=1), rand(k, c, seed=2)
    other = NMF(k, init="custom", solver="mu", beta_loss="frobenius", tol=0, max_iter=iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tol=0 never converges
        expected = other.fit_transform(v.numpy(), W=w.numpy().copy(), H=h.numpy().copy())
    actual = nmf(v, k, iterations, start=(w, h))
    torch.testing.assert_close(actual[0], torch.from_numpy(expected), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(actual[1], torch.from_numpy(other.components_), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(6))
def test_the_error_never_rises(seed, dtype):
    k = 1 + seed % 5
    v = rand(20, 12, seed=seed, dtype=dtype) ** (1 + seed % 3)
    v = v * (rand(20, 12, seed=seed + 100) > 0.3).to(dtype)  # many exact zeros, as behind a ReLU
    w, h = nmf(v, k, 0, seed)
    errors = [error(v, w, h)]
    for _ in range(40):
        w, h = nmf(v, k, 1, start=(w, h))
        errors.append(error(v, w, h))
        assert (w >= 0).all()
        assert (h >= 0).all()
    slack = torch.finfo(dtype).eps * 20 * v.double().square().sum()
    assert all(later <= earlier + slack for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]
    torch.testing.assert_close((w, h), nmf(v, k, 40, seed))  # 40 at once are 40 one by one


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(5))
def test_a_matrix_of_rank_1_is_found_in_one_iteration(seed, dtype):
    # W = a (b.h)/(h.h) whatever the start; then H = b (h.h)/(b.h)
    v = rand(8, 1, seed=seed, dtype=dtype) @ rand(1, 6, seed=seed + 50, dtype=dtype)
    w, h = nmf(v, 1, 1, seed)
    torch.testing.assert_close(w @ h, v)
    torch.testing.assert_close(w / w.sum(), v[:, :1] / v[:, :1].sum())


def test_two_disjoint_parts_are_found_exactly():
    v = torch.zeros(6, 5, dtype=torch.float64)
    v[:3, :2], v[3:, 2:] = rand(3, 1) @ rand(1, 2, seed=1), rand(3, 1, seed=2) @ rand(1, 3, seed=3)
    w, h = nmf(v, 2, 300)
    torch.testing.assert_close(w @ h, v, rtol=0, atol=1e-6)
    assert sorted((h > 1e-6).int().tolist()) == [[0, 0, 1, 1, 1], [1, 1, 0, 0, 0]]


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_the_unit_of_the_features_does_not_matter(scale):
    # small denominators are denominators all the same: only an exact zero is replaced
    v, w, h = rand(6, 5), rand(6, 2, seed=1), rand(2, 5, seed=2)
    actual = nmf(v * scale**2, 2, 10, start=(w * scale, h * scale))
    torch.testing.assert_close(tuple(factor / scale for factor in actual), nmf(v, 2, 10, start=(w, h)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_rows_and_columns_and_nothing_at_all_stay_finite(dtype):
    v = rand(6, 5, dtype=dtype)
    v[2] = v[:, 3] = 0
    for matrix in (v, torch.zeros_like(v)):
        for k in (1, 3, 8):
            w, h = nmf(matrix, k, 60)
            assert torch.isfinite(w).all()
            assert torch.isfinite(h).all()
            assert (w @ h)[2].abs().max() == 0
            assert (w @ h)[:, 3].abs().max() == 0
    start = torch.zeros(6, 2, dtype=dtype), torch.zeros(2, 5, dtype=dtype)
    assert all(factor.abs().max() == 0 for factor in nmf(v, 2, 5, start=start))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_axes_equal_one_by_one_from_a_given_start(dtype):
    v, w, h = (
        rand(2, 3, 7, 5, dtype=dtype),
        rand(2, 3, 7, 2, seed=1, dtype=dtype),
        rand(2, 3, 2, 5, seed=2, dtype=dtype),
    )
    actual = nmf(v, 2, 20, start=(w, h))
    assert actual[0].shape == (2, 3, 7, 2)
    assert actual[1].shape == (2, 3, 2, 5)
    assert actual[0].dtype == actual[1].dtype == dtype
    for i in range(2):
        for j in range(3):
            alone = nmf(v[i, j], 2, 20, start=(w[i, j], h[i, j]))
            torch.testing.assert_close((actual[0][i, j], actual[1][i, j]), alone)


def test_leading_axes_equal_one_by_one_from_the_drawn_start():
    # what is found in a matrix must not depend on its place in the batch
    v = rand(3, 7, 5)
    actual = nmf(v, 2, 20)
    for i in range(3):
        torch.testing.assert_close((actual[0][i], actual[1][i]), nmf(v[i], 2, 20))


def test_the_start_is_drawn_anew_by_its_seed_and_the_global_generators_are_left_alone():
    v = rand(30, 8)
    state = torch.get_rng_state()
    first, again, other = nmf(v, 3, 0), nmf(v, 3, 0, 0), nmf(v, 3, 0, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for factor, same, another in zip(first, again, other, strict=True):
        exactly(factor, same)
        assert (factor - another).abs().max() > 0.01
        assert (factor > 0).all()
    # and in float32 it is the same start
    torch.testing.assert_close([factor.double() for factor in nmf(v.float(), 3, 0)], list(first), rtol=1e-6, atol=1e-6)
    assert (nmf(v, 3, 5)[0] - nmf(v, 3, 5, seed=1)[0]).abs().max() > 0.01


def test_the_start_is_as_large_as_the_matrix():
    # |N(0, 1)| has the mean sqrt(2 / pi), and W H sums k products: its mean is 2 / pi times that of V, for every matrix
    v = rand(2, 400, 300) * torch.tensor([1.0, 50]).view(2, 1, 1)
    w, h = nmf(v, 4, 0)
    torch.testing.assert_close(
        (w @ h).mean((1, 2)) / v.mean((1, 2)), torch.full((2,), 2 / math.pi).double(), rtol=0.1, atol=0
    )
    exactly(nmf(4 * v[0], 4, 0)[0], 2 * nmf(v[0], 4, 0)[0])


def test_what_is_given_is_left_as_it_was():
    v, w, h = rand(6, 5).requires_grad_(), rand(6, 2, seed=1).requires_grad_(), rand(2, 5, seed=2)
    originals = [factor.detach().clone() for factor in (v, w, h)]
    for iterations in (0, 3):
        actual = nmf(v, 2, iterations, start=(w, h))
        assert not any(factor.requires_grad for factor in actual)
        for factor in actual:
            factor.zero_()  # what comes back is the caller's own, not the start
        for factor, before in zip((v, w, h), originals, strict=True):
            exactly(factor.detach(), before)


def test_the_start_comes_in_any_precision_and_as_a_list():
    v, w, h = rand(6, 5), rand(6, 2, seed=1).float(), rand(2, 5, seed=2).float()
    actual = nmf(v, 2, 3, start=[w, h])
    assert actual[0].dtype == actual[1].dtype == torch.float64
    torch.testing.assert_close(actual, nmf(v, 2, 3, start=(w.double(), h.double())))


@needs_cuda
def test_the_factors_stay_on_the_device_and_start_alike():
    v = rand(20, 6)
    for iterations in (0, 10):
        actual = nmf(v.cuda(), 3, iterations)
        assert all(factor.is_cuda for factor in actual)
        torch.testing.assert_close(tuple(factor.cpu() for factor in actual), nmf(v, 3, iterations))
    assert deep_feature_factorization(rand(2, 3, 4, 4).cuda(), 2).is_cuda


V = rand(6, 5)
START = rand(6, 2, seed=1), rand(2, 5, seed=2)


def test_what_cannot_be_factorised_is_named():
    refuses(nmf, {"v": V, "k": 2, "iterations": 1}, v=V - 0.5, k=0, iterations=-1, seed=0.5, start=START[:1])
    refuses(nmf, {"v": V, "k": 2}, v=V[0], seed=2**70, start=(START[0], START[1].T))
    refuses(nmf, {"v": V, "k": 2}, start=(START[0] - 1, START[1]))


# the parts of feature maps


def two_patterns(dtype=torch.float64):
    """Two images: channels 0 and 1 in the left half (3 : 4), channel 2 below right in the first, above in the second.

    The second pattern is the stronger one: 4 * 10^2 against 16 * 2.5^2.
    """
    features = torch.zeros(2, 4, 4, 4, dtype=dtype)
    features[:, 0, :, :2], features[:, 1, :, :2] = 1.5, 2  # a vector of length 2.5 at 16 places in all
    features[0, 2, 2:, 3], features[1, 2, :2, 2] = 10, 10  # of length 10, at 4 places
    return features


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_disjoint_patterns_are_recovered_and_sorted(dtype):
    features = two_patterns(dtype)
    before = features.clone()
    parts = deep_feature_factorization(features, 2)
    assert parts.shape == (2, 2, 4, 4)
    assert parts.dtype == dtype
    expected = torch.zeros(2, 2, 4, 4, dtype=dtype)
    expected[0, 0, 2:, 3] = expected[1, 0, :2, 2] = 10  # 400 against 16 * 6.25 = 100
    expected[:, 1, :, :2] = 2.5
    torch.testing.assert_close(parts, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(features, before)


def test_the_energy_sorts_not_the_number_of_places_nor_the_maximum():
    features = torch.zeros(1, 3, 5, 5, dtype=torch.float64)
    features[0, 0, 0, :2] = 4  # sum 8, energy 32, maximum 4
    features[0, 1, 1:3] = 1.5  # 10 places: sum 15, energy 22.5
    features[0, 2, 4, 4] = 5.5  # energy 30.25, maximum 5.5
    parts = deep_feature_factorization(features, 3, iterations=300)
    torch.testing.assert_close(parts, features[:, [0, 2, 1]], rtol=0, atol=1e-3)


def test_the_maps_times_unit_vectors_are_as_good_as_nmf():
    # Given the maps, the best vectors follow by least squares; those of nmf, made unit-length, are as good at the most.
    features = rand(3, 6, 4, 5) ** 3
    rows = features.movedim(1, 3).reshape(-1, 6)
    w, h = nmf(rows, 3, 100)
    parts = deep_feature_factorization(features, 3)
    lengths = h.norm(dim=1)
    expected = w * lengths
    order = expected.square().sum(0).argsort(descending=True)
    torch.testing.assert_close(parts.movedim(1, 3).reshape(-1, 3), expected[:, order])
    again = parts.movedim(1, 3).reshape(-1, 3) @ (h / lengths[:, None])[order]
    torch.testing.assert_close(error(rows, again, torch.eye(6).double()), error(rows, w, h))
    energy = parts.square().sum((0, 2, 3))
    assert (energy.diff() < 0).all()


def test_together_a_part_is_the_same_kind_of_thing_in_every_image():
    features = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    features[0, 0, 0], features[0, 1, 2] = 5, 3  # channel 0 is strong in the first image
    features[1, 0, 0], features[1, 1, 2] = 2, 4  # and weak in the second: 3 * 29 against 3 * 25 in all
    # From some starts the updates end in a local minimum, in which both parts share the stronger pattern.
    together = deep_feature_factorization(features, 2, iterations=300, seed=5)
    torch.testing.assert_close(together, features, rtol=0, atol=1e-3)
    alone = deep_feature_factorization(features, 2, iterations=300, seed=5, together=False)
    torch.testing.assert_close(alone, torch.stack([features[0], features[1].flip(0)]), rtol=0, atol=1e-3)


def test_apart_equals_image_by_image():
    features = rand(3, 5, 4, 4)
    actual = deep_feature_factorization(features, 2, together=False)
    for image, parts in zip(features, actual, strict=True):
        torch.testing.assert_close(parts, deep_feature_factorization(image[None], 2)[0])


def test_more_parts_than_there_are():
    features = two_patterns()
    for together in (True, False):
        parts = deep_feature_factorization(features, 6, iterations=300, together=together)
        assert parts.shape == (2, 6, 4, 4)
        assert torch.isfinite(parts).all()
        # channel 2 has parts of its own: together they say 10
        actual = parts[0].sum(0)
        torch.testing.assert_close(actual[2:, 3], torch.full((2,), 10.0).double(), rtol=1e-3, atol=0)
        assert actual[:2, 3].max() < 1e-3


def test_an_image_without_features_has_empty_parts():
    features = two_patterns()
    features[1] = 0
    for together in (True, False):
        parts = deep_feature_factorization(features, 2, together=together)
        assert torch.isfinite(parts).all()
        assert parts[1].abs().max() == 0
        assert parts[0].abs().max() > 1
    assert deep_feature_factorization(torch.zeros(1, 3, 2, 2), 2).abs().max() == 0


def test_options_are_handed_on():
    features = rand(2, 6, 3, 3)

    def alike(**options):
        return torch.equal(deep_feature_factorization(features, 3), deep_feature_factorization(features, 3, **options))

    assert alike(iterations=100, seed=0, together=True)
    assert nmf(features[0, 0], 2)[0].equal(nmf(features[0, 0], 2, 200, 0)[0])
    assert not alike(iterations=99)
    assert not alike(seed=1)
    assert not alike(together=False)


def test_features_may_be_strided_or_carry_a_graph():
    features = rand(2, 6, 3, 4)
    actual = deep_feature_factorization(features, 2)
    exactly(deep_feature_factorization(features.to(memory_format=torch.channels_last), 2), actual)
    assert not deep_feature_factorization(features.clone().requires_grad_(), 2).requires_grad


F = rand(2, 3, 4, 4)


def test_features_that_cannot_be_factorised_are_named():
    refuses(deep_feature_factorization, {"features": F, "k": 2}, features=F - 0.5, k=0, iterations=-1, seed="0")
    refuses(deep_feature_factorization, {"features": F, "k": 2}, features=F[0])


def test_nmf_equals_the_formula_written_out():
    v, w, h = (matrix.tolist() for matrix in (rand(4, 3), rand(4, 2, seed=1), rand(2, 3, seed=2)))
    start = torch.tensor(w, dtype=torch.float64), torch.tensor(h, dtype=torch.float64)
    rows, columns, parts = range(4), range(3), range(2)
    for _ in range(3):
        wh = [[sum(w[i][a] * h[a][j] for a in parts) for j in columns] for i in rows]
        w = [
            [
                w[i][a] * sum(v[i][j] * h[a][j] for j in columns) / sum(wh[i][j] * h[a][j] for j in columns)
                for a in parts
            ]
            for i in rows
        ]
        wh = [[sum(w[i][a] * h[a][j] for a in parts) for j in columns] for i in rows]
        h = [
            [h[a][j] * sum(w[i][a] * v[i][j] for i in rows) / sum(w[i][a] * wh[i][j] for i in rows) for j in columns]
            for a in parts
        ]
    actual = nmf(torch.tensor(v, dtype=torch.float64), 2, 3, start=start)
    torch.testing.assert_close(actual, (torch.tensor(w, dtype=torch.float64), torch.tensor(h, dtype=torch.float64)))


def test_more_factors_than_the_rank():
    v = rand(6, 2) @ rand(2, 5, seed=1)
    w, h = nmf(v, 7, 400)
    assert w.shape == (6, 7)
    assert h.shape == (7, 5)
    assert error(v, w, h) < 1e-4 * v.square().sum()


@pytest.mark.parametrize("scale", [1e-24, 1e-12, 1e12])
def test_the_factorisation_does_not_depend_on_the_scale(scale):
    v = rand(30, 8, dtype=torch.float32)
    w, h = nmf(v, 3)
    small_w, small_h = nmf(v * scale, 3)
    torch.testing.assert_close(
        small_w.double() @ small_h.double() / scale, w.double() @ h.double(), rtol=1e-3, atol=1e-4
    )
