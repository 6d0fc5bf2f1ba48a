"""Checks for the exercises of chapter 3."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from helpers import cam, data, factors, metrics
from helpers._validate import is_number
from helpers.capture import in_batches, logits
from helpers.checks import exercise, expect, tensor_answer
from helpers.networks import load, normalize

CLOSE = 1e-5  # of answers in single precision
GAIN = 0.03  # exercise 3.8: share of boxes that must be gained


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise("3.1")
def predict_the_shares(answer: Callable[[], tuple[Tensor, float]]) -> str:
    """The map (3, 3) and the score of the toy with its two weights exchanged."""
    returned = answer()
    expect(isinstance(returned, tuple) and len(returned) == 2, "return two things: the map, (3, 3), and the score")
    shares = tensor_answer(returned[0], (3, 3), "the map")
    expected = torch.tensor([[2.0, 1, 0], [0, -3, -1.5], [0, 0, 6]]).double()
    expect(not torch.allclose(shares, -expected), "the signs are the other way round: unit 1 has the weight 1.0 now")
    expect(not torch.allclose(shares, expected / 9), "shares are not divided by the number of places: their mean is")
    expect(
        torch.allclose(shares, expected),
        "each share is 1.0 times the second map less 0.5 times the first, place by place",
    )
    expect(abs(float(returned[1]) - 0.5) > CLOSE, "that is the mean of the map; the bias belongs to the score")
    expect(abs(float(returned[1]) - 0.7) < CLOSE, "the score is the mean of the nine shares plus 0.2")
    return "another map and the very same score, 0.7: the score does not say where it comes from."


@exercise("3.2")
def maps_by_hand(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """Maps (B, K, h, w) for (B, K) classes from feature maps and weights."""
    for seed, (b, c, h, w, classes, k) in enumerate([(3, 4, 2, 5, 6, 2), (1, 7, 3, 3, 2, 4)]):
        f, weight = _draw(seed, b, c, h, w), _draw(seed + 10, classes, c)
        target = torch.randint(0, classes, (b, k), generator=torch.Generator().manual_seed(seed))
        returned = tensor_answer(answer(f.clone(), weight.clone(), target.clone()), (b, k, h, w), "the maps")
        expected = (weight[target][..., None, None] * f[:, None]).sum(2).double()
        expect(
            not torch.allclose(returned, expected.clamp(min=0), atol=CLOSE), "keep the evidence against: no ReLU here"
        )
        expect(
            not torch.allclose(returned, expected / (h * w), atol=CLOSE), "do not divide by the places: the mean does"
        )
        expect(
            torch.allclose(returned, expected, atol=CLOSE),
            "for image b and its k-th class: the maps of b, weighed by that row",
        )
    return "the maps of helpers.cam, several classes at once."


@exercise("3.3")
def box_of_a_map(answer: Callable[[Tensor, float], Tensor]) -> str:
    """The box (4,) of everything above a share of the maximum of a map (H, W)."""
    blob = torch.zeros(6, 8)
    blob[1:4, 2:7] = torch.tensor([0.5, 1, 4, 1, 0.5])
    blob[5, 0] = -9
    # At an eighth of the maximum the outermost values lie on the threshold, not above it.
    for share, expected in ((0.2, (3, 1, 6, 4)), (0.1, (2, 1, 7, 4)), (0.9, (4, 1, 5, 4)), (0.125, (3, 1, 6, 4))):
        returned = tensor_answer(answer(blob.clone(), share), (4,), "the box")
        case = f"above {share:g} of the maximum"
        expect(
            returned.tolist() != [expected[1], expected[0], expected[3], expected[2]],
            "x comes before y: x0, y0, x1, y1",
        )
        inside = [expected[0], expected[1], expected[2] - 1, expected[3] - 1]
        expect(returned.tolist() != inside, "x1 and y1 lie just outside: add one to the last row and column")
        expect(
            returned.tolist() == list(expected), f"{case} the box should be {expected}, yours is {returned.tolist()}"
        )
    away = tensor_answer(answer(-torch.ones(4, 4) - torch.eye(4), 0.2).nan_to_num(-1), (4,), "the box")
    expect(bool((away == -1).all()), "a map that is negative everywhere has no box: return four NaN")
    return "a box, and none where nothing speaks for the class."


@exercise("3.4")
def gmp_breaks_the_account(answer: Callable[[], tuple[Tensor, Tensor]]) -> str:
    """Feature maps (C, h, w) and weights (C,) whose maxima give a score above 0 and whose map's mean is below."""
    returned = answer()
    expect(
        isinstance(returned, tuple) and len(returned) == 2, "return two things: feature maps (C, h, w), weights (C,)"
    )
    f = returned[0]
    expect(isinstance(f, Tensor) and f.ndim == 3 and f.numel() > 0, "the feature maps must be a tensor (C, h, w)")
    f = tensor_answer(f, tuple(f.shape), "the feature maps")
    w = tensor_answer(returned[1], (len(f),), "the weights")
    expect(bool((f >= 0).all()), "feature maps behind a ReLU are not negative")
    score, mean = (w @ f.amax((1, 2))).item(), (w @ f.mean((1, 2))).item()
    expect(score > 0, f"the maxima give the score {score:.3g}; make it positive")
    expect(mean < 0, f"the map's mean is {mean:.3g}; make it negative: which unit could be broad, and which peaked?")
    return f"a score of {score:.3g} and a map whose mean is {mean:.3g}: under GMP the shares do not add up."


@exercise("3.5")
def best_threshold(answer: Callable[[], float]) -> str:
    """The threshold (of 0, 0.1 .. 0.9) that scenes from seed 321 choose for scenes-gmp."""
    returned = answer()
    expect(is_number(returned) and 0 <= returned < 1, "return one of the thresholds, a number from 0.0 to 0.9")
    network, world = load("scenes-gmp", "cpu"), data.scenes(200, 321)

    def maps(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        head = cam.pooling_head(model, x)
        return cam.upsample(cam.weighted_maps(head.maps, head.weight[labels][:, None])[:, 0], (64, 64))

    stretched = in_batches(maps, network, normalize(world.images, network), world.labels[:, 0])

    def error(share: float) -> float:
        iou = metrics.box_iou(cam.largest_component_box(stretched, share), world.boxes[:, 0])
        return 1 - (iou >= 0.5).double().mean().item()

    errors = {step / 10: error(step / 10) for step in range(10)}
    lowest = min(errors.values())
    expect(
        any(abs(returned - share) < 1e-6 and value == lowest for share, value in errors.items()),
        f"at {returned:g} {error(returned):.1%} of the boxes are off; another of the ten thresholds does better",
    )
    return f"at {returned:g} {lowest:.1%} are off; at 0.2 it was {errors[0.2]:.1%}."


@exercise("3.6")
def grad_cam_by_hand(answer: Callable[[nn.Module, nn.Module, Tensor, int], Tensor]) -> str:
    """Grad-CAM (h, w) of one image (C, H, W), from a network in two parts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        body = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU())
        head = nn.Sequential(nn.Flatten(), nn.Linear(5 * 16, 6), nn.ReLU(), nn.Linear(6, 3))
    whole = nn.Sequential(body, head)
    for seed in range(3):
        image = _draw(seed + 20, 2, 6, 6)
        expected = [cam.grad_cam(whole, image[None], c, layer="0", relu=False)[0].double() for c in range(3)]
        for c, signed in enumerate(expected):
            returned = tensor_answer(answer(body, head, image.clone(), c), (4, 4), "the map")
            expect(bool((returned >= 0).all()), "Grad-CAM keeps what speaks for the class: a ReLU at the end")
            expect(
                torch.allclose(returned, signed.relu(), atol=CLOSE),
                "average the slopes over the places, one weight a unit",
            )
    filled = any(parameter.grad is not None for parameter in whole.parameters())
    expect(not filled, "right, but the network's .grad is full now: use torch.autograd.grad, not .backward()")
    return "the map of helpers.cam.grad_cam."


@exercise("3.7")
def one_update(answer: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> str:
    """One multiplicative update of W (m, k), then of H (k, c)."""
    for seed in range(2):
        v, w, h = (_draw(seed + n, *shape).abs() + 0.1 for n, shape in ((30, (6, 5)), (40, (6, 2)), (50, (2, 5))))
        returned = answer(v.clone(), w.clone(), h.clone())
        expect(isinstance(returned, tuple) and len(returned) == 2, "return two things: the new W, the new H")
        new_w, new_h = tensor_answer(returned[0], (6, 2), "W"), tensor_answer(returned[1], (2, 5), "H")
        expected_w, expected_h = (factor.double() for factor in factors.nmf(v, 2, 1, start=(w, h)))
        expect(
            torch.allclose(new_w, expected_w, atol=CLOSE),
            "W is multiplied by V H' and divided by W H H', place by place",
        )
        late = h * (w.T @ v) / (w.T @ w @ h)
        expect(
            not torch.allclose(new_h, late.double(), atol=CLOSE), "H's update must use the W that you have just made"
        )
        expect(torch.allclose(new_h, expected_h, atol=CLOSE), "H is multiplied by W' V and divided by W' W H")
    return "one step of helpers.factors.nmf, W before H."


@exercise("3.8")
def a_better_question(answer: Callable[[Tensor], Tensor]) -> str:
    """Weights (classes, C) to (classes, C) that still know the class and give better boxes than the raw ones."""
    network = load("scenes-gap", "cpu")
    raw = network.get_parameter("fc.weight").detach()
    weights = tensor_answer(answer(raw.clone()), tuple(raw.shape), "the weights").float()
    expect(not torch.allclose(weights, raw), "these are the weights as they were")

    def share(rows: Tensor, seed: int) -> tuple[float, float]:
        pair = data.scenes(150, seed, objects=2)
        x = normalize(pair.images, network)
        best = in_batches(logits, network, x).topk(2, 1).indices
        is_right = (best.sort(1).values == pair.labels.sort(1).values).all(1)
        features = cam.pooling_head(network, x[is_right]).maps
        maps = cam.upsample(cam.weighted_maps(features, rows[pair.labels[is_right]]), (64, 64))
        on_asked, on_other = (
            metrics.mass_in_mask(maps, m) for m in (pair.masks[is_right], pair.masks[is_right].flip(1))
        )
        single = data.scenes(150, seed)
        f = in_batches(lambda m, x: cam.pooling_head(m, x).maps, network, normalize(single.images, network))
        single_maps = cam.upsample(cam.weighted_maps(f, rows[single.labels[:, 0]][:, None])[:, 0], (64, 64))
        ious = [
            metrics.box_iou(cam.largest_component_box(single_maps, s / 10), single.boxes[:, 0]) for s in range(3, 9)
        ]
        best_share = max((iou >= 0.5).double().mean().item() for iou in ious)
        return (on_asked > on_other).double().mean().item(), best_share

    pairs, boxes = share(weights, 331)
    _, before = share(raw, 331)
    expect(pairs >= 0.7, f"with two objects your maps are on the right one in {pairs:.0%} of cases; 70 % is wanted")
    expect(
        boxes >= before + GAIN,
        f"at its best threshold {boxes:.0%} of your boxes are right, of the raw ones {before:.0%}; 3 more are wanted",
    )
    return f"{pairs:.0%} on the object asked about, and {boxes:.0%} of the boxes right (raw weights: {before:.0%})."
