"""Maps of whole images and how well they find objects, by loops and beside captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.searched import CPU, check, noise, tiny, whole_numbers
from support.untouched import assert_untouched
from torch import nn

from helpers import networks
from helpers.cam import grad_cam
from helpers.capture import activations
from helpers.experiments import matched_pairs as P
from helpers.experiments.search import maps as M
from helpers.factors import deep_feature_factorization
from helpers.retina import R_MIN, inverse_log_polar, log_polar


def ridges(n):
    """Maps whose core of 4 x 4 pixels is 1, around it 8 x 8 of 0.42."""
    maps, core, all_of_it = torch.zeros(n, 32, 32), torch.zeros(n, 4), torch.zeros(n, 4)
    for k in range(n):
        maps[k, 4 + k : 12 + k, 8:16] = 0.42
        maps[k, 6 + k : 10 + k, 10:14] = 1.0
        core[k] = torch.tensor([10, 6 + k, 14, 10 + k])
        all_of_it[k] = torch.tensor([8, 4 + k, 16, 12 + k])
    return maps, core, all_of_it


def test_even_images_choose_the_threshold_of_odd_ones(monkeypatch):
    monkeypatch.setattr(M, "THRESHOLDS", (0.0, 0.4, 0.45, 0.9))
    maps, core, wide = ridges(6)
    boxes = wide.clone()
    boxes[::2] = core[::2]
    scores = M.box_scores(maps, boxes)
    assert scores["threshold"] == 0.45  # the first above 0.42
    assert scores["iou"] == {"mean": 0.25, "error": 0, "n": 3}  # 16 of 64, on the odd half
    assert scores["found"] == {"mean": 0, "error": 0, "n": 3}
    boxes = core.clone()
    boxes[::2] = wide[::2]
    assert M.box_scores(maps, boxes)["threshold"] == 0
    scores = M.box_scores(maps, core)
    assert scores["iou"] == scores["found"] == {"mean": 1, "error": 0, "n": 3}
    maps[3] = 0  # no box: nothing is found
    scores = M.box_scores(maps, core)
    check(scores["iou"], [1, 0, 1])
    check(scores["found"], [1, 0, 1])


def test_half_an_overlap_is_found():
    maps = torch.zeros(4, 16, 16)
    maps[:, 4:8, 4:8] = 1
    boxes = torch.tensor([[4.0, 4, 8, 8], [4, 4, 8, 12], [4, 4, 8, 8], [4, 4, 8, 13]])
    check(M.box_scores(maps, boxes)["found"], [1, 0])  # 16 of 32, and of 36


def test_where_maps_lie_by_a_loop():
    side, maps = 32, noise(6, 32, 32).abs()
    boxes = torch.tensor(
        [[5.0, 6, 20, 22], [0, 0, 32, 32], [2, 10, 9, 30], [13, 13, 15, 15], [0, 0, 32, 31], [1, 1, 7, 9]]
    )
    maps[0, 10, 10] = maps[2, 5, 20] = maps[3, 30, 30] = maps[4, 31, 3] = maps[5, 2, 2] = 9.0
    before = maps.clone()
    results = M.localised({"a": maps, "b": maps / 2}, P.Searched(torch.zeros(6, 3, 32, 32), None, boxes))
    assert maps.equal(before)
    assert set(results) == {"a", "b"}
    row = results["a"]
    counts = {key: value["n"] for key, value in row.items() if key != "threshold"}
    assert counts == {
        "pointing game": 5, "mass in the box": 5, "best fixation inside": 5,  # the second box is the whole image
        "in/out ratio": 4,  # all fixations lie on the second object, and on the fifth
        "iou": 2, "found": 2,  # the odd ones of the five
    }  # fmt: skip
    check(row["pointing game"], [1, 0, 0, 0, 1])
    mass, within, without, best = [], [], [], []
    for k, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        values = maps[k].double()
        if k != 1:
            mass.append(values[y0:y1, x0:x1].sum() / values.sum())
        inside, outside = [], []
        for v in range(4, side, 4):  # the fixations lie between pixels
            for u in range(4, side, 4):
                value = values[v - 1 : v + 1, u - 1 : u + 1].mean().item()
                # No fixation lies on the fourth object, and 12, 12 as near as 16, 16: the first of them counts.
                hit = (x0 < u < x1 and y0 < v < y1) if k != 3 else (u, v) == (12, 12)
                (inside if hit else outside).append(value)
        if k != 1:
            best.append(max(inside, default=-1) > max(outside, default=-1))
        if inside and outside:
            within.append(np.mean(inside))
            without.append(np.mean(outside))
    check(row["mass in the box"], mass)
    check(row["best fixation inside"], best)
    assert 0 < sum(best) < len(best)
    assert len(within) == counts["in/out ratio"]
    assert row["in/out ratio"]["mean"] == pytest.approx(np.mean(within) / np.mean(without), rel=1e-4)
    some = [0, 2, 3, 4, 5]
    assert results["b"]["in/out ratio"] == pytest.approx(row["in/out ratio"])
    assert {key: row[key] for key in ("threshold", "iou", "found")} == M.box_scores(maps[some], boxes[some])


def test_a_map_below_0_is_refused():
    images = P.Searched(torch.zeros(2, 3, 32, 32), None, torch.tensor([[5.0, 6, 20, 22]] * 2))
    with pytest.raises(ValueError, match="maps must be"):
        M.localised({"a": -noise(2, 32, 32).abs()}, images)


@pytest.mark.parametrize("name", ["scenes-disc", "scenes-logpolar"])
def test_maps_of_whole_scenes(monkeypatch, name):
    attr = pytest.importorskip("captum.attr")
    monkeypatch.setattr(M, "BATCH", 2)
    monkeypatch.setattr(P, "SCENES", 3)
    model, (x, truth, _) = networks.load(name), P.load_images("scenes", CPU)
    with assert_untouched(model):
        results = M.deep_maps(model, x, truth)
    assert set(results) == {"Grad-CAM", "largest factor", "factor of the class"}
    polar = "polar" in name
    seen = log_polar(x)[:, 0] if polar else x
    relu = [key for key, module in model.named_modules() if isinstance(module, nn.ReLU)][-1]
    explainer = attr.LayerGradCam(model, model.get_submodule(relu))
    cam = explainer.attribute(seen, target=truth, relu_attributions=True)[:, 0].detach()
    signed = explainer.attribute(seen, target=truth)[:, 0].detach()
    parts = torch.cat([
        deep_feature_factorization(activations(model, part, relu)[relu], 4, together=False) for part in seen.split(2)
    ])  # fmt: skip
    mine = []
    for k in range(3):
        lies = [F.cosine_similarity(part.flatten(), signed[k].flatten(), dim=0).item() for part in parts[k]]
        mine.append(parts[k, int(np.argmax(lies))])

    def back(maps):
        wide = F.interpolate(maps[:, None], seen.shape[-2:], mode="bilinear", align_corners=False)
        return inverse_log_polar(wide[:, None], (128, 128), r_min=R_MIN)[:, 0, 0] if polar else wide[:, 0]

    expected = {"Grad-CAM": cam, "largest factor": parts[:, 0], "factor of the class": torch.stack(mine)}
    axis = torch.arange(128) - 63.5
    corner = (axis.square() + axis[:, None].square()).sqrt() > 64
    for key, values in results.items():
        assert values.shape == (3, 128, 128)
        assert (values >= 0).all()
        assert values.flatten(1).any(1).all()
        torch.testing.assert_close(values, back(expected[key]), rtol=1e-3, atol=1e-4 * values.max().item())
        assert not polar or not values[:, corner].any()  # a retina sees nothing there


def test_grad_cam_from_a_fixation(monkeypatch):
    monkeypatch.setattr(M, "BATCH", 2)
    monkeypatch.setattr(P, "SCENES", 3)
    model, (x, truth, boxes) = networks.load("scenes-logpolar"), P.load_images("scenes", CPU)
    fixations = ((boxes[:, :2] + boxes[:, 2:]) / 128 - 1).float()
    maps = M.cam_from(model, x, truth, fixations, 0.5)
    assert maps.shape == (3, 128, 128)
    relu = [key for key, module in model.named_modules() if isinstance(module, nn.ReLU)][-1]
    axis = (torch.arange(128) + 0.5) / 64 - 1
    for k in range(3):  # one image, one fixation at a time
        seen = log_polar(x[k : k + 1], fixations[k : k + 1], r_min=R_MIN / 2, r_max=0.5)[:, 0]
        wide = F.interpolate(
            grad_cam(model, seen, truth[k : k + 1], layer=relu)[:, None], seen.shape[-2:], mode="bilinear"
        )
        expected = inverse_log_polar(wide[:, None], (128, 128), fixations[k : k + 1], r_min=R_MIN / 2, r_max=0.5)[
            0, 0, 0
        ]
        torch.testing.assert_close(maps[k], expected, rtol=1e-3, atol=1e-4 * expected.max().item())
        away = ((axis - fixations[k, 0]).square() + (axis[:, None] - fixations[k, 1]).square()).sqrt()
        assert not maps[k][away > 0.52].any()  # beyond the retina
        assert maps[k].any()


def test_the_class_has_the_part_that_its_signed_evidence_lies_on():
    model, x, truth = tiny("scenes-disc", 3), noise(24, 3, 32, 32, seed=5), whole_numbers(8, 24)
    relu = [key for key, module in model.named_modules() if isinstance(module, nn.ReLU)][-1]
    parts = deep_feature_factorization(activations(model, x, relu)[relu], M.PARTS, together=False)
    signed = grad_cam(model, x, truth, layer=relu, relu=False)

    def best(evidence):
        overlap = F.cosine_similarity(parts.flatten(2), evidence.flatten(1)[:, None], dim=2)
        return parts[torch.arange(24), overlap.argmax(1)]

    wide = F.interpolate(best(signed)[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    actual = M.deep_maps(model, x, truth)["factor of the class"]
    torch.testing.assert_close(actual, wide, rtol=1e-4, atol=1e-5)
    assert not best(signed).equal(best(signed.relu()))  # what speaks against the class counts
