"""The model parameter randomisation test, and its baselines."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from skimage.filters import sobel
from support.refuses import refuses
from support.sanity import STEPS, WAYS, draws, dressed, each_redraw, images, tiny
from support.untouched import assert_untouched
from torch import nn

from helpers.metrics import edge_map, map_similarity
from helpers.saliency import class_saliency
from helpers.sanity import sanity_check

MEASURES = ["spearman", "spearman_abs", "ssim", "hog"]


def edges(model, x, target):
    return edge_map(x)


def saliency(model, x, target):
    return class_saliency(model, x, target)


def last_weights(model, x, target):
    """Maps that hang on the logits' weights and on nothing else."""
    return model.fc.weight.detach()[None].expand(len(x), -1, -1).clone()


def first_weights(model, x, target):
    return model.conv1.weight.detach().flatten(1)[None].expand(len(x), -1, -1).clone()


@pytest.mark.parametrize("order", WAYS)
@each_redraw
def test_sanity_check_compares_the_maps_of_the_randomised_networks(order, redraw):
    model, x, target = tiny(), images(3), [2, 0, 1]
    actual = sanity_check(saliency, model, x, target, order=order, seed=4, redraw=redraw)
    assert actual.layers == tuple(STEPS)
    assert actual.maps.shape == (5, 3, 12, 12)
    networks = [model, *(network for _, network in WAYS[order](model, seed=4, redraw=redraw))]
    expected = torch.stack([saliency(network, x, torch.tensor(target)) for network in networks])
    torch.testing.assert_close(actual.maps, expected)
    assert list(actual.similarity) == MEASURES
    for values in actual.similarity.values():
        assert values.shape == (4, 3)
        assert values.dtype == torch.float32
    for step in range(4):
        for image in range(3):
            first, later = actual.maps[0, image].flatten(), actual.maps[step + 1, image].flatten()
            for measure, a, b in (("spearman", first, later), ("spearman_abs", first.abs(), later.abs())):
                assert actual.similarity[measure][step, image].item() == pytest.approx(
                    spearmanr(a, b).statistic, abs=1e-5
                )
        both = map_similarity(actual.maps[0], actual.maps[step + 1])  # itself tested in test_similarity.py
        for measure in ("ssim", "hog"):
            torch.testing.assert_close(actual.similarity[measure][step], both[measure])


def test_the_defaults_are_the_cascade_of_seed_0():
    model, x = tiny(), images()
    plain, explicit = (
        sanity_check(saliency, model, x, 1, **more)
        for more in ({}, {"order": "cascading", "seed": 0, "redraw": "initial"})
    )
    assert torch.equal(plain.maps, explicit.maps)
    assert not torch.equal(plain.maps, sanity_check(saliency, model, x, 1, seed=1).maps)
    assert not torch.equal(plain.maps, sanity_check(saliency, model, x, 1, order="independent").maps)


@pytest.mark.parametrize("order", WAYS)
def test_an_edge_detector_fails_the_check_it_never_changes(order):
    actual = sanity_check(lambda m, x, c: edge_map(x), tiny(), images(3), 0, order=order)
    for values in actual.similarity.values():
        torch.testing.assert_close(values, torch.ones(4, 3))
    for values in actual.baselines["edges"].values():
        torch.testing.assert_close(values, torch.ones(3))
    assert (actual.baselines["permuted"]["spearman"] < 0.5).all()
    assert (actual.baselines["another image"]["spearman"] < 0.5).all()


@pytest.mark.parametrize("order", WAYS)
def test_a_method_of_one_layer_falls_when_this_layers_turn_comes(order):
    last = sanity_check(last_weights, tiny(), images(), 0, order=order).similarity["spearman"]
    first = sanity_check(first_weights, tiny(), images(), 0, order=order).similarity["spearman"]
    assert (last[0] < 0.9).all()
    if order == "cascading":
        assert (last < 0.9).all()
    else:
        torch.testing.assert_close(last[1:], torch.ones(3, 2))
    torch.testing.assert_close(first[:3], torch.ones(3, 2))
    assert (first[3] < 0.9).all()


def test_similarity_keeps_the_sign_for_the_methods_that_give_one():
    def turns(model, x, target):
        return edge_map(x) * (1 if model.fc.weight.sum() == trained else -1)

    model = tiny()
    trained = model.fc.weight.sum()
    actual = sanity_check(turns, model, images(), 0).similarity
    torch.testing.assert_close(actual["spearman"], -torch.ones(4, 2))
    for measure in ("spearman_abs", "ssim", "hog"):
        torch.testing.assert_close(actual[measure], torch.ones(4, 2))


@pytest.mark.parametrize(
    ("target", "expected"), [(2, [2, 2]), ([2, 1], [2, 1]), (torch.tensor([0, 2], dtype=torch.int32), [0, 2])]
)
def test_the_target_stays_what_it_was_given_as(target, expected):
    seen = []

    def records(model, x, target):
        seen.append((target.tolist(), target.dtype, target.device, model(x).argmax(1).tolist()))
        return edge_map(x)

    x = images()
    for seed in range(6):
        sanity_check(records, tiny(), x, target, seed=seed)
    assert [(classes, dtype, device) for classes, dtype, device, _ in seen] == [
        (expected, torch.int64, x.device)
    ] * 5 * 6
    assert len({tuple(predicted) for *_, predicted in seen}) > 1  # though the networks change their minds


@pytest.mark.parametrize("order", WAYS)
def test_the_method_is_given_networks_in_the_modes_they_were_found_in(order):
    model, seen = dressed(), []

    def records(network, x, target):
        seen.append([module.training for module in network.modules()])
        return edge_map(x)

    sanity_check(records, model, images(), 0, order=order)
    assert seen == [[module.training for module in model.modules()]] * 5
    assert {True, False} <= set(seen[0])


@pytest.mark.parametrize(("side", "maps"), [(12, 4), (12, 6), (12, 3), (12, 24), (13, 5)])
def test_maps_of_another_resolution(side, maps):
    def coarse(model, x, target):
        return F.adaptive_avg_pool2d(model.conv1(x)[:, 0], maps).detach()

    x = images(3, side=side)
    actual = sanity_check(coarse, tiny(), x, 0)
    assert actual.maps.shape == (5, 3, maps, maps)
    # edges come to the maps by the mean over each place
    edge = torch.tensor(np.stack([sobel(grey) for grey in x.double().mean(1).numpy()]))
    ratio = side / maps
    spans = [(int(i * ratio + 1e-9), int(np.ceil((i + 1) * ratio - 1e-9))) for i in range(maps)]
    means = torch.stack([torch.stack([edge[:, a:b, c:d].mean((1, 2)) for c, d in spans], 1) for a, b in spans], 1)
    for image in range(3):
        expected = spearmanr(actual.maps[0, image].flatten(), means[image].flatten()).statistic
        assert actual.baselines["edges"]["spearman"][image].item() == pytest.approx(expected, abs=1e-3)


def test_maps_need_not_be_square():
    x = images(2)[..., :9]
    actual = sanity_check(saliency, tiny(), x, 0)
    assert actual.maps.shape == (5, 2, 12, 9)
    low = sanity_check(lambda m, x, c: edge_map(x)[:, ::2, ::3], tiny(), x, 0)
    assert low.maps.shape == (5, 2, 6, 3)


# baselines


def test_one_image_has_no_other():
    actual = sanity_check(saliency, tiny(), images(1), 0)
    assert list(actual.baselines) == ["edges", "permuted"]
    several = sanity_check(saliency, tiny(), images(2), 0)
    assert list(several.baselines) == ["edges", "permuted", "another image"]
    for baseline in several.baselines.values():
        assert list(baseline) == MEASURES
        assert all(values.shape == (2,) for values in baseline.values())


def test_baselines_against_scipy():
    # another image is the next one, and the first after the last; the edges are those of the same image
    x = images(4)
    actual = sanity_check(saliency, tiny(), x, 0)
    maps = actual.maps[0].flatten(1)
    expected = [spearmanr(maps[i], maps[(i + 1) % 4]).statistic for i in range(4)]
    assert actual.baselines["another image"]["spearman"].tolist() == pytest.approx(expected, abs=1e-5)
    edges = [sobel(image.double().mean(0).numpy()).ravel() for image in x]
    expected = [spearmanr(*both).statistic for both in zip(maps, edges, strict=True)]
    assert actual.baselines["edges"]["spearman"].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_permuted_map_has_the_same_values_in_other_places():
    def one_hot(model, x, target):
        maps = torch.zeros(len(x), 5, 5)
        maps[:, 1, 3] = 2.0
        return maps

    values = sanity_check(one_hot, tiny(), images(40), 0).baselines["permuted"]["spearman"]
    # one place of 25: hit (1), or missed (-1 / 24, the correlation of two one-hot vectors)
    missed = (values + 1 / 24).abs() < 1e-5
    assert (missed | ((values - 1).abs() < 1e-5)).all()
    assert missed.sum() >= 30


def test_each_image_is_permuted_in_its_own_way_by_the_seed():
    x = images(1).expand(6, -1, -1, -1).contiguous()

    def permuted(**more):
        return sanity_check(edges, tiny(), x, 0, **more).baselines["permuted"]["spearman"]

    values = permuted()
    assert len(values.unique()) == 6
    assert values.abs().max() < 0.4  # of 144 places: sigma 1 / 12
    assert torch.equal(permuted(seed=0), values)
    torch.rand(3)
    assert torch.equal(permuted(), values)
    assert not torch.equal(permuted(seed=1), values)


def test_a_method_that_changes_the_shape_of_its_maps_is_refused():
    def unsteady(m, x, c):
        return edge_map(x) if torch.equal(m.fc.weight, tiny().fc.weight) else edge_map(x)[:, 1:]

    with pytest.raises(ValueError, match="method"):
        sanity_check(unsteady, tiny(), images(), 0)


@pytest.mark.parametrize("order", WAYS)
def test_sanity_check_leaves_network_images_and_generators(order):
    model, x, target = dressed(), images(), torch.tensor([0, 2])
    model.bn1.eval()  # in training mode a forward pass would move its statistics, whoever makes it
    before, state = (x.clone(), target.clone()), draws()
    with assert_untouched(model):
        sanity_check(saliency, model, x, target, order=order)
    assert torch.equal(x, before[0])
    assert torch.equal(target, before[1])
    assert draws() == state


@pytest.mark.parametrize("at", [0, 2])
def test_sanity_check_leaves_the_network_when_the_method_fails(at):
    calls = []

    def fails(model, x, target):
        calls.append(1)
        if len(calls) > at:
            raise RuntimeError("boom")
        return edge_map(x)

    model, state = dressed(), draws()
    with assert_untouched(model), pytest.raises(RuntimeError, match="boom"):
        sanity_check(fails, model, images(), 0)
    assert draws() == state


def test_results_hang_on_no_graph():
    def graph(model, x, target):
        return model.conv1(x).sum(1)

    actual = sanity_check(graph, tiny(), images().requires_grad_(), 0)
    groups = [actual.similarity, *actual.baselines.values()]
    assert not any(values.requires_grad for group in groups for values in group.values())
    assert not actual.maps.requires_grad


def test_sanity_check_in_double_precision():
    actual = sanity_check(saliency, tiny().double(), images().double(), 0)
    assert actual.maps.dtype == torch.float64
    for group in (actual.similarity, *actual.baselines.values()):
        assert all(values.dtype == torch.float64 for values in group.values())


def test_a_batch_is_what_its_images_are_one_by_one():
    model, x, target = tiny(), images(3), [0, 2, 1]
    actual = sanity_check(saliency, model, x, target)
    for image in range(3):
        alone = sanity_check(saliency, model, x[image : image + 1], target[image : image + 1])
        torch.testing.assert_close(alone.maps, actual.maps[:, image : image + 1])
        for measure in MEASURES:
            torch.testing.assert_close(
                alone.similarity[measure], actual.similarity[measure][:, image : image + 1], rtol=1e-4, atol=1e-4
            )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_sanity_check_keeps_the_device():
    actual = sanity_check(saliency, tiny().cuda(), images().cuda(), torch.tensor([0, 1]))
    assert actual.maps.device.type == "cuda"
    for group in (actual.similarity, *actual.baselines.values()):
        assert all(values.device.type == "cuda" for values in group.values())


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (lambda m, x, c: x, r"method\(model, x, target\) must be a non-empty tensor \(2, h, w\), got \(2, 3, 12, 12\)"),
        (lambda m, x, c: x[:1, 0], r"method\(model, x, target\) must .*\(2, h, w\), got \(1, 12, 12\)"),
        (lambda m, x, c: x[:, 0, :2], "method must give maps with sides of at least 3"),
        (lambda m, x, c: x[:, 0] / 0, r"method\(model, x, target\) must be finite"),
    ],
)
def test_maps_that_nothing_can_be_compared_with_are_refused(method, match):
    model = tiny()
    with assert_untouched(model), pytest.raises(ValueError, match=f"^{match}"):
        sanity_check(method, model, images(), 0)


def test_bad_arguments_are_refused_before_anything_is_computed():
    def never(model, x, target):
        raise AssertionError

    arguments = {"method": never, "model": tiny(), "x": images(), "target": 0}
    refuses(sanity_check, arguments, order="cascade", seed=2**32, redraw="shuffle")
    for x, target, seed in ((images()[0], [[0], [1]], 0.5), (images() / 0, [0, 1, 2], -1)):
        refuses(sanity_check, arguments, x=x, target=target, seed=seed)
    with pytest.raises(ValueError, match=r"^model must have layers with weights"):
        sanity_check(never, nn.Sequential(nn.ReLU()), images(), 0)


def test_constant_maps_are_counted_and_left_out_of_means():
    class Dying(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.calls = nn.Conv2d(3, 4, 3), 0

        def forward(self, x):
            return self.conv(x).mean((2, 3))

    def half_constant(model, x, target):
        maps = x.sum(1) * model.conv.weight.sum()
        maps[0] = 0 if model is not net else maps[0]
        return maps

    torch.manual_seed(0)
    net, x = Dying(), torch.rand(3, 3, 8, 8)
    check = sanity_check(half_constant, net, x, 1)
    assert check.undefined()["spearman_abs"].tolist() == [1]
    expected = check.similarity["spearman_abs"][0, 1:].mean()
    torch.testing.assert_close(check.means()["spearman_abs"], expected[None])


def test_the_check_runs_in_inference_mode():
    net, x = tiny(), images()
    expected = sanity_check(saliency, net, x, 1).maps
    with torch.inference_mode():
        torch.testing.assert_close(sanity_check(saliency, net, x, 1).maps, expected)
