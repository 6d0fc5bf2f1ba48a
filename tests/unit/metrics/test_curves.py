"""The score while pixels go: by hand, by loops and by torchcam."""

import functools

import pytest
import torch
import torchvision
from support.metrics import IMAGES, NAN, close, draw, exactly, float64
from support.refuses import refuses
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.metrics import deletion, insertion, random_map

# the score while pixels go


def linear(*weights):
    """Logits sum of w * x, one for each w (H, W)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), len(weights), bias=False)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.stack(weights).flatten(1))
    return net


W0 = torch.tensor([[1.0, -1.0], [2.0, 5.0]]).double()
W1 = torch.tensor([[0.0, 3.0], [1.0, 0.0]]).double()
X = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).double()
PARTS = W0 * X[:, 0]  # 1 -2 6 20 of the logit 25; the order is 20 6 1 -2
by_logit = {"score": "logit", "steps": 4}


def test_deletion_by_hand():
    auc, scores = deletion(linear(W0, W1), X, 0, PARTS, **by_logit)
    exactly(scores, [[25, 5, -1, -2, 0]])
    exactly(auc, [(25 / 2 + 5 - 1 - 2 + 0) / 4])
    auc, scores = deletion(linear(W0, W1), X, 1, PARTS, **by_logit)  # 0 6 3 0
    exactly(scores, [[9, 9, 6, 6, 0]])
    exactly(auc, [(9 / 2 + 9 + 6 + 6 + 0) / 4])


def test_insertion_by_hand():
    auc, scores = insertion(linear(W0, W1), X, 0, PARTS, **by_logit)
    exactly(scores, [[0, 20, 26, 27, 25]])
    exactly(auc, [(0 + 20 + 26 + 27 + 25 / 2) / 4])


def test_the_probability_is_followed_by_default():
    actual = deletion(linear(W0, W1), X / 10, 0, PARTS, steps=4).scores
    margins = float64([[2.5 - 0.9, 0.5 - 0.9, -0.1 - 0.6, -0.2 - 0.6, 0]])
    close(actual, margins.sigmoid(), rtol=1e-12, atol=0)
    exactly(actual[0, -1], 0.5)
    close(deletion(linear(W0, W1), X / 10, [[1]], PARTS[:, None], steps=4).scores[:, 0], 1 - actual)
    close(insertion(linear(W0, W1), X / 10, 0, -PARTS, steps=4).scores, actual.flip(1))


def test_steps_that_do_not_divide_the_pixels_are_rounded_down():
    auc, scores = deletion(linear(W0), X, 0, PARTS, steps=3, score="logit")  # 0 1 2 4 pixels
    exactly(scores, [[25, 5, -1, 0]])
    exactly(auc, [(25 + 5) / 2 / 4 + (5 - 1) / 2 / 4 + (-1 + 0) / 2 / 2])
    auc, scores = deletion(linear(W0), X, 0, PARTS, steps=6, score="logit")  # 0 0 1 2 2 3 4 pixels
    exactly(scores, [[25, 25, 5, -1, -1, -2, 0]])
    exactly(auc, [3.625])
    auc, scores = deletion(linear(W0), X, 0, PARTS, steps=1, score="logit")
    exactly(scores, [[25, 0]])
    exactly(auc, [12.5])
    assert deletion(linear(W0), X, 0, PARTS, score="logit").scores.shape == (1, 17)


def test_fill_is_a_number_or_images():
    net = linear(W0)
    for fill in (1.0, 1, torch.tensor(1), torch.ones(2, 2), torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1)):
        auc, scores = deletion(net, X, 0, PARTS, fill=fill, **by_logit)
        exactly(scores, [[25, 10, 6, 6, 7]])
        exactly(auc, [9.5])
        exactly(insertion(net, X, 0, PARTS, fill=fill, **by_logit).scores, [[7, 22, 26, 26, 25]])
    ramp = torch.tensor([[0.0, 1.0], [2.0, 3.0]])  # its parts are 0 -1 4 15
    exactly(deletion(net, X, 0, PARTS, fill=ramp, **by_logit).scores, [[25, 20, 18, 17, 18]])
    both = torch.stack([ramp, ramp + 1])[:, None]  # one fill for each image: parts 1 -2 6 20, as X itself
    actual = deletion(net, X.expand(2, -1, -1, -1), 0, PARTS.expand(2, -1, -1), fill=both, **by_logit).scores
    exactly(actual, [[25, 20, 18, 17, 18], [25] * 5])


def test_equal_values_go_in_reading_order():
    net = linear(W0)
    for value in (0.0, 7.0):
        exactly(deletion(net, X, 0, torch.full((1, 2, 2), value), **by_logit).scores, [[25, 24, 26, 20, 0]])
    exactly(deletion(net, X, 0, torch.tensor([[[-0.0, 0.0], [1.0, 0.0]]]), **by_logit).scores, [[25, 19, 18, 20, 0]])
    weights, x = draw(20, 30), draw(2, 1, 20, 30, seed=1)
    levels = draw(2, 20, 30, levels=3)
    reading = torch.arange(600).view(20, 30) / 1000
    for curve in (deletion, insertion):
        actual = curve(linear(weights), x, 0, levels, steps=600, score="logit")
        expected = curve(linear(weights), x, 0, levels - reading, steps=600, score="logit")
        exactly(actual.scores, expected.scores)


def tiny(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(80, 3)
    ).double()


CURVES = {"deletion": deletion, "insertion": insertion}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_a_curve_runs_between_the_image_and_the_fill(curve):
    net, target, fill = tiny(), [2, 0, 1], draw(3, 3, 6, 7, seed=6)
    for score in ("probability", "logit"):
        actual = curve(net, IMAGES, target, draw(3, 6, 7), steps=5, fill=fill, score=score)
        ends = [tiny().eval()(x) for x in (IMAGES, fill)]
        ends = [(end.softmax(1) if score == "probability" else end)[range(3), target].detach() for end in ends]
        first, last = ends if curve is deletion else ends[::-1]
        close(actual.scores[:, 0], first)
        close(actual.scores[:, -1], last)
        assert actual.scores.shape == (3, 6)
        assert actual.auc.shape == (3,)
        assert not actual.scores.requires_grad
        assert actual.scores.dtype == actual.auc.dtype == torch.float64


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_every_point_is_the_score_of_the_image_so_far(curve):
    net, maps, fill = tiny().eval(), draw(3, 6, 7), draw(3, 3, 6, 7, seed=6)
    actual = curve(net, IMAGES, 1, maps, steps=4, fill=fill).scores
    for i in range(3):
        order = sorted(range(42), key=lambda p: -float(maps[i].flatten()[p]))
        for point, count in enumerate([0, 10, 21, 31, 42]):
            here, there = (IMAGES, fill) if curve is deletion else (fill, IMAGES)
            mixed = here[i].clone()
            for p in order[:count]:
                mixed[:, p // 7, p % 7] = there[i, :, p // 7, p % 7]
            close(actual[i, point], net(mixed[None]).softmax(1)[0, 1].detach())


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_the_batch_size_changes_nothing(curve, batch_size):
    net, maps = tiny(), draw(3, 2, 6, 7)
    target = [[0, 1], [2, 1], [1, 1]]
    expected = curve(net, IMAGES, target, maps, steps=5)
    actual = curve(net, IMAGES, target, maps, steps=5, batch_size=batch_size)
    close(actual.scores, expected.scores, rtol=1e-12, atol=0)
    close(actual.auc, expected.auc, rtol=1e-12, atol=0)


def passes(net):
    sizes = []
    net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_no_pass_is_larger_than_the_batch_size(curve):
    for batch_size, largest in [(1, 1), (2, 2), (5, 5), (None, 8)]:
        net = tiny()
        sizes = passes(net)
        curve(net, IMAGES, 0, draw(3, 6, 7), steps=5, batch_size=batch_size)
        assert max(sizes) == largest
        assert 18 <= sum(sizes) <= 21
    net = tiny()
    sizes = passes(net)
    curve(net, IMAGES.repeat(4, 1, 1, 1), 0, draw(12, 6, 7), steps=5)
    assert max(sizes) == 12


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_several_classes_equal_the_single_ones(curve):
    net, maps, target = tiny(), draw(3, 2, 6, 7), torch.tensor([[0, 1], [2, 1], [1, 1]])
    several = curve(net, IMAGES, target, maps, steps=5)
    assert several.scores.shape == (3, 2, 6)
    assert several.auc.shape == (3, 2)
    for k in range(2):
        single = curve(net, IMAGES, target[:, k], maps[:, k], steps=5)
        close(several.scores[:, k], single.scores)
        close(several.auc[:, k], single.auc)
    column = curve(net, IMAGES, target[:, 1:], maps[:, 1:], steps=5)  # (B, 1) keeps its axis
    close(column.scores, several.scores[:, 1:])  # another batch, so not to the last bit
    for same_class in (1, [1, 1, 1], torch.tensor(1, dtype=torch.uint8)):
        close(curve(net, IMAGES, same_class, maps[:, 1], steps=5).auc[2], several.auc[2, 1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("score", "filled"), [("probability", False), ("logit", True)])
def test_deletion_and_insertion_against_torchcam(score, filled):
    methods, metrics = (pytest.importorskip(f"torchcam.{name}") for name in ("methods", "metrics"))
    if not hasattr(metrics, "DeletionInsertionMetric"):
        pytest.skip("this torchcam has no deletion and insertion")
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    x, target = torch.randn(2, 3, 64, 64), [3, 7]
    fill = torch.randn(2, 3, 64, 64) if filled else None
    final = functools.partial(torch.softmax, dim=-1) if score == "probability" else None
    with methods.CAM(net, "layer4", "fc") as extractor:
        metric = metrics.DeletionInsertionMetric(extractor, final, steps=16, baseline=fill)
        metric.update(x, target)
        scores = net(x)
        cams = extractor(target, scores)[0]
    maps = nn.functional.interpolate(cams[:, None], (64, 64), mode="bilinear", align_corners=False)[:, 0]
    options = {"score": score, "fill": fill if filled else 0.0}
    expected = metric.summary()
    for curve, name in [(deletion, "deletion_auc"), (insertion, "insertion_auc")]:
        actual = curve(net, x, target, maps, **options).auc.mean()
        assert float(actual) == pytest.approx(expected[name], rel=0, abs=1e-6)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_the_network_and_what_is_given_are_left_alone(curve):
    net = tiny().train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    net[2].register_forward_hook(lambda *_: None)
    arguments = [
        IMAGES.clone().requires_grad_(),
        draw(3, 6, 7),
        torch.tensor([0, 1, 2]),
        draw(3, 6, 7).requires_grad_(),
    ]
    before = [argument.detach().clone() for argument in arguments]
    with assert_untouched(net):
        actual = curve(net, arguments[0], arguments[2], arguments[1], fill=arguments[3][:, None], steps=3)
    assert not actual.auc.requires_grad
    assert all(torch.equal(argument, was) for argument, was in zip(arguments, before, strict=True))
    assert arguments[0].grad is None


class BoomLater(nn.Module):
    """Raises from its third forward on."""

    def __init__(self):
        super().__init__()
        self.boom, self.runs = Boom(), 0

    def forward(self, x):
        self.runs += 1
        return x if self.runs < 3 else self.boom(x)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("boom", [Boom, BoomLater])
def test_the_network_is_left_alone_when_its_forward_raises(curve, boom):
    net = nn.Sequential(*tiny().train(), boom())
    with pytest.raises(RuntimeError, match="boom"), assert_untouched(net):
        curve(net, IMAGES, 0, draw(3, 6, 7), batch_size=1)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_the_probability_of_a_single_logit_is_refused(curve):
    net = nn.Sequential(*tiny(), nn.Linear(3, 1)).double()
    for score in ("probability", "log-odds"):  # 1 and infinite, whatever is deleted
        with pytest.raises(ValueError, match=rf'must have two classes at least for score="{score}", got 1'):
            curve(net, IMAGES, 0, MAPS, score=score)
    assert curve(net, IMAGES, 0, MAPS, score="logit").scores.std(1).min() > 0


MAPS = draw(3, 6, 7)


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_bad_curves_are_refused(curve):
    good = {"model": tiny(), "x": IMAGES, "target": 0, "maps": MAPS}
    refuses(curve, good, x=IMAGES.float(), target=3, maps=MAPS * NAN, steps=0, batch_size=0, fill=torch.zeros(3, 6))
    refuses(curve, good, maps=MAPS[:2])
    refuses(curve, good | {"target": [[0, 1]] * 3}, maps=MAPS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_curves_are_the_same_on_the_gpu():
    for curve in CURVES.values():
        result = curve(tiny().cuda(), IMAGES.cuda(), [0, 1, 2], MAPS.cuda(), fill=IMAGES.flip(0))
        assert result.auc.is_cuda
        close(result.auc.cpu(), curve(tiny(), IMAGES, [0, 1, 2], MAPS, fill=IMAGES.flip(0)).auc)


def test_the_area_is_as_precise_as_the_scores():
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]]).double()
    auc, scores = deletion(linear(torch.ones(1, 3)), x, 0, x[:, 0], steps=3, score="logit")
    exactly(scores, [[6, 3, 1, 0]])
    close(auc, float64([7 / 3]), rtol=1e-14, atol=0)


def test_the_perfect_order_beats_chance_on_a_linear_network():
    weights, x = draw(8, 9), draw(4, 1, 8, 9, seed=1)
    net, downsampled_truth = linear(weights), weights * x[:, 0]
    best = [curve(net, x, 0, downsampled_truth, score="logit") for curve in (deletion, insertion)]
    for seed in range(5):
        chance = random_map(x, seed)
        assert (best[0].auc < deletion(net, x, 0, chance, score="logit").auc).all()
        assert (best[1].auc > insertion(net, x, 0, chance, score="logit").auc).all()
        assert (best[0].scores <= deletion(net, x, 0, chance, score="logit").scores + 1e-9).all()
