"""Canvases with digits, every pixel of them, and how well maps tell where and what the digits are, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from support.canvases import DRAWN
from support.untouched import assert_untouched
from torch import nn

from helpers import similarnet
from helpers.data import DIGIT_BACKGROUNDS, digit_scenes, photo
from helpers.experiments.similarnet import canvases as C
from helpers.experiments.similarnet.canvases import Canvases, handwritten_canvases
from helpers.experiments.similarnet.measure import CUTS
from helpers.metrics import blurred_map, center_map

ONES = torch.ones(10, 1, 28, 28)  # digits whose ink is a square: their places are seen
METRICS = ("auc", "pointing", "pointing near")


def written(background="blank", digits=(1, 4), n=20, seed=5, side=84):
    return handwritten_canvases(DRAWN.images, DRAWN.labels, n, seed, side, digits, background)


# --- canvases with handwriting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_boxes_are_tight_around_the_ink(background):
    canvases = written(background)
    for canvas, labels, boxes, mask in zip(*canvases, strict=True):
        left = mask.clone()
        for label, box in zip(labels, boxes, strict=True):
            assert box.isnan().all() == (label == -1)
            if label < 0:
                continue
            x0, y0, x1, y1 = (int(v) for v in box)
            ink = canvas[0, y0:y1, x0:x1] >= 0.5
            assert ink[0].any()
            assert ink[-1].any()
            assert ink[:, 0].any()
            assert ink[:, -1].any()
            left[y0:y1, x0:x1] = False
        assert not left.any()  # no ink outside: with the four edges above, the boxes are tight
        assert (canvas[0][mask] >= 0.5).all()
        if background == "blank":
            assert mask.equal(canvas[0] >= 0.5)


def test_each_digit_is_one_of_its_class_whole_and_where_its_box_says():
    inks = []
    for image, label in zip(DRAWN.images[:, 0], DRAWN.labels, strict=True):
        rows, columns = ((image >= 0.5).any(axis).nonzero()[:, 0] for axis in (1, 0))
        cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inks.append((int(label), cut, image.sum()))
    canvases = written(n=30)
    used = set()
    for canvas, labels, boxes, _ in zip(*canvases, strict=True):
        total = torch.tensor(0.0)
        for label, box in zip(labels, boxes, strict=True):
            if label < 0:
                continue
            x0, y0, x1, y1 = (int(v) for v in box)
            seen = canvas[0, y0:y1, x0:x1]
            same = [
                i for i, (c, cut, _) in enumerate(inks) if c == label and cut.shape == seen.shape and cut.equal(seen)
            ]
            assert same
            used.add(same[0])
            total += inks[same[0]][2]
        torch.testing.assert_close(canvas.sum(), total)  # nothing is cut off, and nothing else is there
    assert len(used) > 30  # of 80, drawn 75 times or so: 80 (1 - exp(-75 / 80)) = 49


@pytest.mark.parametrize(("digits", "counts"), [(9, {9}), ((2, 3), {2, 3})])
def test_how_many_digits_a_canvas_holds(digits, counts):
    canvases = written(digits=digits, n=60)
    here = canvases.labels >= 0
    assert set(here.sum(1).tolist()) == counts
    assert here.int().diff(dim=1).le(0).all()  # the absent ones come last
    assert canvases.labels[~here].eq(-1).all()
    assert canvases.boxes.isnan().all(2).equal(~here)
    assert canvases.boxes.isnan().any(2).equal(~here)
    if len(counts) > 1:
        shares = torch.bincount(here.sum(1))[min(counts) :] / 60
        assert (shares - 1 / len(counts)).abs().max() < 0.2  # each count equally often


@pytest.mark.parametrize(("count", "side", "cells"), [(1, 28, 1), (2, 60, 2), (4, 57, 2), (5, 90, 3), (9, 84, 3)])
def test_digits_lie_in_cells_of_their_own(count, side, cells):
    canvases = handwritten_canvases(ONES, torch.arange(10), 60, 2, side, count, "blank")
    room = side // cells - 28
    places = set()
    for boxes in canvases.boxes:
        own = []
        for x0, y0, x1, y1 in boxes.int().tolist():
            assert (x1 - x0, y1 - y0) == (28, 28)
            cell = (y0 // (side // cells), x0 // (side // cells))
            own.append(cell)
            places.add((*cell, y0 % (side // cells), x0 % (side // cells)))
        assert len(set(own)) == count  # so that no two overlap
    assert canvases.mask.sum((1, 2)).tolist() == [count * 28 * 28] * 60
    assert canvases.images[:, 0].equal(canvases.mask.float())  # nothing else is on a blank ground
    with pytest.raises(ValueError, match=f"side must be at least {28 * cells} for {count} digits"):
        handwritten_canvases(ONES, torch.arange(10), 1, 2, 28 * cells - 1, count, "blank")
    assert {place[:2] for place in places} == {(r, c) for r in range(cells) for c in range(cells)}
    moves = {place[2:] for place in places}
    assert {m for move in moves for m in move} <= set(range(room + 1))
    if room <= 4:
        assert moves == {(r, c) for r in range(room + 1) for c in range(room + 1)}


@pytest.mark.parametrize("side", [84, 85])
def test_noise_comes_in_blocks_of_2_by_2_up_to_its_brightest(side):
    canvases = handwritten_canvases(ONES, torch.arange(10), 10, 2, side, 1, "noise")
    for canvas, mask in zip(canvases.images[:, 0], canvases.mask, strict=True):
        ground = canvas[~mask]
        assert 0 <= ground.min() < 0.01
        assert 0.396 < ground.max() <= 0.4  # as in `digit_scenes`
        assert ground.mean().item() == pytest.approx(0.2, abs=0.01)
        whole = torch.where(mask, torch.nan, canvas)[:84, :84].unfold(0, 2, 2).unfold(1, 2, 2).flatten(2)
        whole = whole[~whole.isnan().any(2)]
        assert (whole == whole[:, :1]).all()
        assert len(whole[:, 0].unique()) > 0.99 * len(whole)  # and each has its own brightness
    assert canvases.images[0].ne(canvases.images[1]).any()


def test_fragments_show_the_part_of_a_digit_that_holds_ink(monkeypatch):
    # Each pixel tells its own place: row + column / 100 of a 28 x 28 image, scaled into [0, 1].
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    places = ((rows + columns / 100) / 30)[None, None].repeat(10, 1, 1, 1)
    monkeypatch.setattr(C, "FRAGMENTS", 1)
    firsts = []
    for canvas, box in zip(
        *handwritten_canvases(places, torch.arange(10), 60, 2, 84, 1, "fragments")[::2], strict=True
    ):
        canvas = canvas[0].clone()
        x0, _, _, y1 = (int(v) for v in box[0])  # ink is what is at least 0.5: rows 15 to 27
        canvas[max(0, y1 - 28) : y1, x0 : x0 + 28] = 0
        down, across = (canvas.bool().any(axis).nonzero()[:, 0] for axis in (1, 0))
        if len(down) != 9 or len(across) != 9 or (canvas > 0).sum() != 81:
            continue  # partly hidden
        piece = (canvas[down[0] : down[0] + 9, across[0] : across[0] + 9] * 30).double()
        first = int(piece[0, 0] + 1e-4), round((piece[0, 0].item() + 1e-4) % 1 * 100)
        steps = torch.arange(9.0, dtype=torch.float64)
        torch.testing.assert_close(piece, piece[0, 0] + steps[:, None] + steps / 100, atol=1e-4, rtol=0)
        firsts.append(first)
    assert len(firsts) > 20
    monkeypatch.undo()
    several = handwritten_canvases(ONES, torch.arange(10), 20, 2, 84, 1, "fragments")
    beside = several.images[:, 0].bool() & ~several.mask
    assert 300 < beside.sum((1, 2)).float().mean() <= 10 * 81  # ten of them, some hidden
    for line in (beside.any(0).any(0), beside.any(0).any(1)):  # anywhere on the canvas
        assert line[:9].any()
        assert line[-9:].any()
    assert {4, 5} & {r for r, _ in firsts}
    assert {4, 5} & {c for _, c in firsts}
    assert all(4 <= v <= 24 - 9 for pair in firsts for v in pair)  # MNIST's digits fill rows and columns 4 to 23


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_where_things_overlap_the_brighter_one_is_seen(background):
    # Digits of one brightness, 0.7, and so many fragments on 56 x 56 pixels that they overlap each other.
    canvases = handwritten_canvases(ONES * 0.7, torch.arange(10), 10, 2, 56, 1, background)
    assert (canvases.images[:, 0][canvases.mask] == torch.tensor(0.7)).all()
    assert canvases.images.max() == torch.tensor(0.7)
    if background == "fragments":
        assert set(canvases.images.unique().tolist()) == {0.0, torch.tensor(0.7).item()}


# --- canvases of all kinds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_drawn_canvases_are_digit_scenes(background):
    canvases = C.make_canvases(f"drawn {background}", (1, 3), 15, 100)
    drawn = digit_scenes(15, C.SEED, size=100, digits=(1, 3), background=background)
    assert canvases.images.equal(drawn.images)
    assert canvases.labels.equal(drawn.labels)
    torch.testing.assert_close(canvases.boxes, drawn.boxes, equal_nan=True, rtol=0, atol=0)
    for mask, several in zip(canvases.mask, drawn.masks, strict=True):
        assert mask.equal(several[0] | several[1] | several[2])


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_written_canvases_hold_mnists_test_digits(background, no_mnist):
    canvases = C.make_canvases(f"written {background}", (1, 3), 15, 100)
    expected = handwritten_canvases(DRAWN.images, DRAWN.labels, 15, C.SEED, 100, (1, 3), background)
    for part, other in zip(canvases, expected, strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=0, equal_nan=True)


def test_handwriting_comes_from_mnists_test_images(monkeypatch):
    monkeypatch.setattr(C, "mnist", {"test": SimpleNamespace(images="images", labels="labels")}.__getitem__)
    assert C._test_digits.__wrapped__() == ("images", "labels")


@pytest.mark.parametrize("kind", ["drawn", "written"])
def test_two_digits_differ_and_no_other_canvas_is_left_out(kind, no_mnist):
    canvases = C.make_canvases(f"{kind} blank", 2, 80, 84)
    if kind == "drawn":
        every = digit_scenes(80, C.SEED, size=84, digits=2, background="blank")
    else:
        every = handwritten_canvases(DRAWN.images, DRAWN.labels, 80, C.SEED, 84, 2, "blank")
    different = [i for i, (a, b) in enumerate(every.labels.tolist()) if a != b]
    assert C.make_canvases(f"{kind} blank", (2, 2), 80, 84).labels.equal(canvases.labels)
    assert 50 < len(different) < 80
    assert canvases.labels.tolist() == every.labels[different].tolist()
    assert canvases.images.equal(every.images[different])
    assert canvases.boxes.equal(every.boxes[different])
    assert len(canvases.mask) == len(different)


# --- letters on photographs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, 0.6])
def test_letters_lie_on_gray_photographs(value, monkeypatch):
    monkeypatch.setattr(C, "LETTERED", ("coffee", "camera"))
    pairs = C.lettered(value)
    assert len(pairs) == 2
    for name, (image, mask) in zip(C.LETTERED, pairs, strict=True):
        gray = sum(photo(name)) / 3
        assert image.shape == (1, 1, *gray.shape)
        assert mask.shape == (1, *gray.shape)
        assert mask.dtype == torch.bool
        assert image[0, 0][mask[0]].median().item() == pytest.approx(value, abs=1e-5)
        changed = (image[0, 0] - gray).abs() > 1e-4
        assert (changed & ~mask[0]).sum() < 0.5 * mask.sum()  # soft edges alone
        rows, columns = (mask[0].any(axis).nonzero()[:, 0] for axis in (1, 0))
        height, width = gray.shape
        # A line an eighth of the picture from above, a twelfth from the left, a ninth high.
        assert rows[0].item() == pytest.approx(height / 8, abs=4)
        assert columns[0].item() == pytest.approx(width / 12, abs=0.02 * width)
        assert (rows[-1] - rows[0] + 1).item() == pytest.approx(height / 9, rel=0.1)


# --- how well maps tell where and what --------------------------------------------------------------------------------


def near(mask, reach):
    """The mask and what lies within `reach` pixels of it, pixel by pixel."""
    places = mask.nonzero().double()
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in mask.shape), indexing="ij")
    every = torch.stack([rows.flatten(), columns.flatten()], 1).double()
    return (torch.cdist(every, places).amin(1) <= reach + 1e-9).view(mask.shape)


def empty(images, mask):
    n = len(images)
    return Canvases(images, torch.zeros(n, 1, dtype=torch.int64), torch.zeros(n, 1, 4), mask)


def test_the_reach_of_the_pointing_game_by_hand():
    # The ink is one pixel, (10, 10). Maxima 4 pixels to the right, at (3, 3) from it (4.24), 5 below, and on it.
    mask = torch.zeros(4, 21, 21, dtype=torch.bool)
    mask[:, 10, 10] = True
    maps = torch.zeros(4, 21, 21)
    for i, place in enumerate([(10, 14), (13, 13), (15, 10), (10, 10)]):
        maps[i][place] = 1
    scores = C.ink_scores(maps, empty(torch.zeros(4, 1, 21, 21), mask))
    assert (scores["pointing"], scores["pointing near"]) == (0.25, 0.5)


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_baselines_without_a_network(background):
    canvases = C.make_canvases(f"drawn {background}", 1, 10, 60)
    rows = C.without_network(canvases)
    assert list(rows) == ["the image itself", "blurred image", "centre", "share of the ink"]
    assert rows["the image itself"] == pytest.approx(shared(canvases.images[:, 0], canvases.mask), abs=1e-6)
    assert rows["blurred image"] == pytest.approx(shared(blurred_map(canvases.images), canvases.mask), abs=1e-6)
    assert rows["centre"] == pytest.approx(shared(center_map(canvases.images), canvases.mask), abs=1e-6)
    share = [
        (image[mask].sum() / image.sum()).item()
        for image, mask in zip(canvases.images[:, 0], canvases.mask, strict=True)
    ]
    assert rows["share of the ink"]["pointing"] == pytest.approx(sum(share) / 10)
    reached = [
        (image[near(mask, 4)].sum() / image.sum()).item()
        for image, mask in zip(canvases.images[:, 0], canvases.mask, strict=True)
    ]
    assert rows["share of the ink"]["pointing near"] == pytest.approx(sum(reached) / 10)


def shared(maps, mask):
    """As `by_hand`; places that share the maximum count as the share of them that hits."""
    auc = [roc_auc_score(ink.flatten(), heat.flatten()) for heat, ink in zip(maps, mask, strict=True)]
    hits = [
        [where[heat == heat.max()].double().mean().item() for heat, where in zip(maps, wheres, strict=True)]
        for wheres in (mask, [near(ink, 4) for ink in mask])
    ]
    return dict(zip(METRICS, (sum(values) / len(values) for values in (auc, *hits)), strict=True))


def two(labels, boxes, side=8):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return Canvases(
        torch.zeros(len(boxes), 1, side, side), torch.tensor(labels), boxes, torch.zeros(len(boxes), side, side)
    )


def test_the_digit_asked_for_by_hand():
    left, right_ = [0, 0, 3, 3], [5, 4, 8, 8]  # 9 and 12 pixels
    low = [0, 5, 3, 8]  # 9 pixels
    canvases = two([[1, 2]] * 2, [[left, right_], [right_, low]])
    maps = torch.zeros(2, 2, 8, 8)
    maps[0, 0, :3, :3] = 1  # all of it in its own box: right
    maps[0, 1, :3, :3] = 1  # 9 in the other's box, 12 * 0.5 = 6 in its own: wrong
    maps[0, 1, 4:, 5:] = 0.5
    maps[1, 0, 4, 5] = 2  # its own box holds 2 and a negative part of -45, which counts for nothing: right
    maps[1, 0, 5:, 5:] = -5
    maps[1, 0, 6, 0] = 1  # in the other's box
    maps[1, 1, 0, 7] = 7  # in neither box: a coin
    # The hottest place: 9 equal ones in its own box; in the other's; in its own; in neither.
    expected = {"more in its box": (1 + 0 + 1 + 0.5) / 4, "hottest in its box": (1 + 0 + 1 + 0) / 4}
    assert C.digit_scores(maps, canvases) == expected
    assert C.digit_scores(maps.double(), canvases) == expected
    assert C.digit_scores(-maps.abs(), canvases)["more in its box"] == 0.5  # nothing positive
    assert C.digit_scores(maps.flip(1), canvases._replace(boxes=canvases.boxes.flip(1))) == expected


class Brightness(nn.Module):
    """Reads the tenths of the brightest pixel: 0.3 is a three."""

    def forward(self, x):
        return F.one_hot((x.amax((1, 2, 3)) * 10).round().long().clamp(0, 9), 10).float()


def test_reading_by_hand():
    boxes = torch.tensor([[[2, 2, 12, 12], [20, 4, 30, 14]], [[5, 5, 15, 15], [float("nan")] * 4]])
    images = torch.zeros(2, 1, 40, 40)
    images[0, 0, 2:12, 2:12] = 0.3  # a three, found and read
    images[0, 0, 4:14, 20:30] = 0.6  # a five that reads as a six
    images[0, 0, 25:35, 8:18] = 0.9  # the hottest, and no digit
    images[1, 0, 25:35, 25:35] = 0.4  # the four is elsewhere
    canvases = Canvases(images, torch.tensor([[3, 5], [4, -1]]), boxes, images[:, 0] > 0)
    # 2 of 3 digits found, 1 of 3 read; one region too many on each canvas.
    expected = {"found": pytest.approx(2 / 3), "read": pytest.approx(1 / 3), "false alarms": 1.0}
    assert C.reading_scores(Brightness(), images[:, 0], canvases, 0.1) == expected
    # At half of the maximum, 0.45, the three is not seen: 1 of 3 found.
    expected = {"found": pytest.approx(1 / 3), "read": 0.0, "false alarms": 1.0}
    assert C.reading_scores(Brightness(), images[:, 0], canvases, 0.5) == expected


def test_maps_without_a_hot_spot_find_nothing():
    canvases = C.make_canvases("drawn blank", (1, 2), 4, 84)
    for cut in CUTS:
        read = C.reading_scores(Brightness(), torch.zeros(4, 84, 84), canvases, cut)
        assert read == {"found": 0.0, "read": 0.0, "false alarms": 0.0}


@pytest.mark.parametrize("cut", CUTS)
def test_reading_digits_box_by_box(network, cut):
    canvases = C.make_canvases("drawn noise", (1, 4), 12, 84)
    maps = canvases.images[:, 0]
    boxes = similarnet.hotspots(maps, similarnet.map_threshold(maps, cut))
    labels = similarnet.read_hotspots(network, canvases.images, boxes).labels
    matched = right = alarms = 0
    for spots, names, truth, digits in zip(boxes, labels, canvases.boxes, canvases.labels, strict=True):
        hits = set()
        for box, label in zip(truth, digits, strict=True):
            best, which = 0.0, -1
            for m, spot in enumerate(spots):
                shared = (torch.minimum(box[2:], spot[2:]) - torch.maximum(box[:2], spot[:2])).clamp_min(0).prod()
                iou = (shared / ((box[2:] - box[:2]).prod() + (spot[2:] - spot[:2]).prod() - shared)).item()
                if iou > best:
                    best, which = iou, m
            if best >= 0.5:
                hits.add(which)
                matched += 1
                right += int(names[which] == label)
        alarms += int((~spots.isnan().any(1)).sum()) - len(hits)
    count = int((canvases.labels >= 0).sum())
    with assert_untouched(network):
        read = C.reading_scores(network, maps, canvases, cut)
    assert read == pytest.approx({"found": matched / count, "read": right / count, "false alarms": alarms / 12})
    if cut != 0.5:
        assert 0 < read["read"] < read["found"]


def test_boxes_made_smaller(network):
    canvases = C.make_canvases("drawn blank", 1, 6, 84)
    ink = canvases.images[:, 0]
    grown = F.max_pool2d(ink[:, None], 9, 1, 4)[:, 0]  # a halo of four pixels
    assert C.reading_scores(network, grown, canvases, 0.5)["found"] < 0.5
    assert C.reading_scores(network, grown, canvases, 0.5, margin=4.0)["found"] == 1
    assert C.reading_scores(network, ink, canvases, 0.5, margin=100.0)["found"] == 0  # no box is turned inside out


def test_blurred_maps_are_blurred_as_the_baseline():
    spot = torch.zeros(1, 1, 84, 84)
    spot[0, 0, 40, 40] = 1
    blurred, baseline = C.blurred_like_image(spot[:, 0]), blurred_map(spot)
    torch.testing.assert_close(baseline, (blurred - spot.mean()).abs(), rtol=1e-4, atol=1e-7)


def test_letters_without_a_network(monkeypatch):
    monkeypatch.setattr(C, "LETTERED", ("brick", "camera"))
    scores = C.letters_without_network((1.0, 0.5))
    assert list(scores) == [1.0, 0.5]
    for value in (1.0, 0.5):
        bright, contrast = [], []
        for image, mask in C.lettered(value):
            padded = F.pad(image, [10] * 4, mode="reflect")[0, 0].double().numpy()
            sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # of all above and to the left
            mean = (sums[21:, 21:] - sums[:-21, 21:] - sums[21:, :-21] + sums[:-21, :-21]) / 441
            bright.append(roc_auc_score(mask.flatten(), image.flatten()))
            contrast.append(roc_auc_score(mask.flatten(), (image[0, 0].numpy() - mean).ravel()))
        assert scores[value] == {
            "brightness": pytest.approx(sum(bright) / 2, abs=1e-4),
            "local contrast": pytest.approx(sum(contrast) / 2, abs=1e-4),
        }
    assert scores[1.0]["brightness"] > scores[0.5]["brightness"]
