"""The long run of chapter 4: its canvases, its arithmetic on small cases, and its record, measured again."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from support.untouched import assert_untouched
from torch import nn

from helpers import cam, similarnet
from helpers.data import DIGIT_BACKGROUNDS, DataMissing, digit_scenes, digits, photo
from helpers.experiments.similarnet import canvases as C
from helpers.experiments.similarnet import class_weights as K
from helpers.experiments.similarnet import record as S
from helpers.experiments.similarnet.canvases import Canvases, handwritten_canvases
from helpers.experiments.train.datasets import DataSplit, LabeledImages
from helpers.experiments.train.recipes import RECIPES
from helpers.metrics import blurred_map, center_map
from helpers.networks import load
from helpers.results import FOLDER, recorded

CPU = torch.device("cpu")
DRAWN = digits(80, seed=3)  # in place of handwriting
ONES = torch.ones(10, 1, 28, 28)  # digits whose ink is a square: their places are seen


@pytest.fixture(scope="module")
def network():
    return load("lenet-mnist", "cpu")


@pytest.fixture(scope="module")
def gap():
    return load("digits-gap", "cpu")


def written(background="blank", digits=(1, 4), n=20, seed=5, side=84):
    return handwritten_canvases(DRAWN.images, DRAWN.labels, n, seed, side, digits, background)


def small_world(train=100, test=40, seed=8):
    """Drawn digits as MNIST has its own."""
    parts = [digits(n, seed=seed + k) for k, n in enumerate((train, test))]
    made = [LabeledImages((one.images * 255).round().byte(), one.labels) for one in parts]
    return DataSplit(made[0], {"test": made[1]}, tuple("0123456789"), "drawn")


@pytest.fixture
def no_mnist(monkeypatch):
    """Drawn digits in place of MNIST's test images."""
    monkeypatch.setattr(C, "_test_digits", lambda: (DRAWN.images, DRAWN.labels))


# --- canvases with handwriting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_boxes_are_tight_around_the_ink(background):
    found = written(background)
    for canvas, labels, boxes, mask in zip(*found, strict=True):
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
    found = written(n=30)
    used = set()
    for canvas, labels, boxes, _ in zip(*found, strict=True):
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


def test_shapes_and_dtypes():
    found = written(digits=(2, 3), n=7, side=90)
    assert [tuple(one.shape) for one in found] == [(7, 1, 90, 90), (7, 3), (7, 3, 4), (7, 90, 90)]
    assert [one.dtype for one in found] == [torch.float32, torch.int64, torch.float32, torch.bool]
    assert found.images.min() >= 0
    assert found.images.max() <= 1


@pytest.mark.parametrize(("digits", "counts"), [(1, {1}), (2, {2}), (9, {9}), ((1, 4), {1, 2, 3, 4}), ((2, 3), {2, 3})])
def test_how_many_digits_a_canvas_holds(digits, counts):
    found = written(digits=digits, n=60)
    here = found.labels >= 0
    assert set(here.sum(1).tolist()) == counts
    assert here.int().diff(dim=1).le(0).all()  # the absent ones come last
    assert found.labels[~here].eq(-1).all()
    assert found.boxes.isnan().all(2).equal(~here)
    assert found.boxes.isnan().any(2).equal(~here)
    if len(counts) > 1:
        shares = torch.bincount(here.sum(1))[min(counts) :] / 60
        assert (shares - 1 / len(counts)).abs().max() < 0.2  # each count equally often


@pytest.mark.parametrize(("count", "side", "cells"), [(1, 30, 1), (2, 60, 2), (4, 57, 2), (5, 90, 3), (9, 84, 3)])
def test_digits_lie_in_cells_of_their_own(count, side, cells):
    found = handwritten_canvases(ONES, torch.arange(10), 60, 2, side, count, "blank")
    room = side // cells - 28
    places = set()
    for boxes in found.boxes:
        own = []
        for x0, y0, x1, y1 in boxes.int().tolist():
            assert (x1 - x0, y1 - y0) == (28, 28)
            cell = (y0 // (side // cells), x0 // (side // cells))
            own.append(cell)
            places.add((*cell, y0 % (side // cells), x0 % (side // cells)))
        assert len(set(own)) == count  # so that no two overlap
    assert found.mask.sum((1, 2)).tolist() == [count * 28 * 28] * 60
    assert {place[:2] for place in places} == {(r, c) for r in range(cells) for c in range(cells)}
    moves = {place[2:] for place in places}
    assert {m for move in moves for m in move} <= set(range(room + 1))
    if room <= 4:
        assert moves == {(r, c) for r in range(room + 1) for c in range(room + 1)}


@pytest.mark.parametrize("digits", [2, (1, 8)])
def test_digits_do_not_overlap(digits):
    found = written(digits=digits, n=40, side=128)
    for boxes in found.boxes:
        here = boxes[~boxes.isnan().any(1)]
        for i, one in enumerate(here):
            for other in here[:i]:
                across = torch.minimum(one[2], other[2]) - torch.maximum(one[0], other[0])
                down = torch.minimum(one[3], other[3]) - torch.maximum(one[1], other[1])
                assert min(across, down) <= 0


def test_a_blank_ground_is_black_around_the_digits():
    found = handwritten_canvases(ONES, torch.arange(10), 10, 2, 84, 2, "blank")
    assert found.images[:, 0].equal(found.mask.float())


@pytest.mark.parametrize("side", [84, 85])
def test_noise_comes_in_blocks_of_2_by_2_up_to_its_brightest(side):
    found = handwritten_canvases(ONES, torch.arange(10), 10, 2, side, 1, "noise")
    for canvas, mask in zip(found.images[:, 0], found.mask, strict=True):
        ground = canvas[~mask]
        assert 0 <= ground.min() < 0.01
        assert 0.396 < ground.max() <= 0.4  # as in `digit_scenes`
        assert ground.mean().item() == pytest.approx(0.2, abs=0.01)
        whole = torch.where(mask, torch.nan, canvas)[:84, :84].unfold(0, 2, 2).unfold(1, 2, 2).flatten(2)
        whole = whole[~whole.isnan().any(2)]
        assert (whole == whole[:, :1]).all()
        assert len(whole[:, 0].unique()) > 0.99 * len(whole)  # and each has its own brightness
    assert found.images[0].ne(found.images[1]).any()


def test_fragments_are_squares_of_other_digits(monkeypatch):
    monkeypatch.setattr(C, "FRAGMENTS", 1)
    found = handwritten_canvases(ONES, torch.arange(10), 60, 2, 84, 1, "fragments")
    beside = found.images[:, 0].bool() & ~found.mask
    whole = beside[beside.sum((1, 2)) == 81]  # not hidden by the digit
    assert len(whole) > 30
    corners = set()
    for one in whole:
        rows, columns = (one.any(axis).nonzero()[:, 0] for axis in (1, 0))
        assert len(rows) == len(columns) == 9  # 9 x 9 pixels
        corners |= {int(rows[0]), int(columns[0])}
    assert min(corners) <= 8
    assert max(corners) >= 66  # anywhere on the canvas, up to 84 - 9 = 75
    monkeypatch.undo()
    beside = handwritten_canvases(ONES, torch.arange(10), 20, 2, 84, 1, "fragments")
    area = (beside.images[:, 0].bool() & ~beside.mask).sum((1, 2))
    assert area.max() <= 10 * 81
    assert area.float().mean() > 300  # ten of them, some hidden


def test_fragments_show_the_part_of_a_digit_that_holds_ink(monkeypatch):
    # Each pixel tells its own place: row + column / 100 of a 28 x 28 image, scaled into [0, 1].
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    told = ((rows + columns / 100) / 30)[None, None].repeat(10, 1, 1, 1)
    monkeypatch.setattr(C, "FRAGMENTS", 1)
    firsts = []
    for canvas, box in zip(*handwritten_canvases(told, torch.arange(10), 60, 2, 84, 1, "fragments")[::2], strict=True):
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
    assert {4, 5} & {r for r, _ in firsts}
    assert {4, 5} & {c for _, c in firsts}
    assert all(4 <= v <= 24 - 9 for pair in firsts for v in pair)  # MNIST's digits fill rows and columns 4 to 23


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_a_seed_makes_the_same_canvases(background):
    one, same, other = written(background), written(background), written(background, seed=6)
    for a, b in zip(one, same, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert not one.images.equal(other.images)
    assert not one.labels.equal(other.labels)


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_where_things_overlap_the_brighter_one_is_seen(background):
    # Digits of one brightness, 0.7, and so many fragments on 56 x 56 pixels that they overlap each other.
    found = handwritten_canvases(ONES * 0.7, torch.arange(10), 10, 2, 56, 1, background)
    assert (found.images[:, 0][found.mask] == torch.tensor(0.7)).all()
    assert found.images.max() == torch.tensor(0.7)
    if background == "fragments":
        assert set(found.images.unique().tolist()) == {0.0, torch.tensor(0.7).item()}


def test_nothing_global_is_drawn_from_and_nothing_is_changed():
    images, labels, state = DRAWN.images.clone(), DRAWN.labels.clone(), torch.get_rng_state()
    written("fragments")
    assert torch.get_rng_state().equal(state)
    assert DRAWN.images.equal(images)
    assert DRAWN.labels.equal(labels)


def test_no_canvas():
    found = written(n=0, digits=2)
    assert [tuple(one.shape) for one in found] == [(0, 1, 84, 84), (0, 2), (0, 2, 4), (0, 84, 84)]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"background": "drawn"}, "background must be one of"),
        ({"background": ""}, "background must be one of"),
        ({"side": 27, "digits": 1}, "side must be at least 28 for 1 digits, got 27"),
        ({"side": 55, "digits": 2}, "side must be at least 56 for 2 digits, got 55"),
        ({"side": 83, "digits": (1, 9)}, "side must be at least 84 for 9 digits, got 83"),
    ],
)
def test_canvases_that_cannot_be_made_are_refused(given, named):
    with pytest.raises(ValueError, match=named):
        written(**given)


@pytest.mark.parametrize("given", [{"side": 28, "digits": 1}, {"side": 56, "digits": 4}, {"side": 84, "digits": 5}])
def test_canvases_that_just_hold_their_digits_are_made(given):
    assert (written(**given).labels >= 0).all()


# --- canvases of all kinds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_drawn_canvases_are_digit_scenes(background):
    found = C.canvases(f"drawn {background}", (1, 3), 15, 100)
    drawn = digit_scenes(15, C.SEED, size=100, digits=(1, 3), background=background)
    assert found.images.equal(drawn.images)
    assert found.labels.equal(drawn.labels)
    torch.testing.assert_close(found.boxes, drawn.boxes, equal_nan=True, rtol=0, atol=0)
    for mask, several in zip(found.mask, drawn.masks, strict=True):
        assert mask.equal(several[0] | several[1] | several[2])


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_written_canvases_hold_mnists_test_digits(background, no_mnist):
    found = C.canvases(f"written {background}", (1, 3), 15, 100)
    wanted = handwritten_canvases(DRAWN.images, DRAWN.labels, 15, C.SEED, 100, (1, 3), background)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", ["drawn", "written"])
def test_two_digits_differ_and_no_other_canvas_is_left_out(kind, no_mnist):
    found = C.canvases(f"{kind} blank", 2, 80, 84)
    if kind == "drawn":
        every = digit_scenes(80, C.SEED, size=84, digits=2, background="blank")
    else:
        every = handwritten_canvases(DRAWN.images, DRAWN.labels, 80, C.SEED, 84, 2, "blank")
    kept = [i for i, (a, b) in enumerate(every.labels.tolist()) if a != b]
    assert 50 < len(kept) < 80
    assert found.labels.tolist() == every.labels[kept].tolist()
    assert found.images.equal(every.images[kept])
    assert found.boxes.equal(every.boxes[kept])
    assert len(found.mask) == len(kept)


@pytest.mark.parametrize("digits", [1, 3, (1, 2)])
def test_of_other_numbers_of_digits_all_canvases_are_kept(digits):
    assert len(C.canvases("drawn blank", digits, 60, 84).labels) == 60


def test_a_range_of_two_alone_is_two_digits_too():
    labels = C.canvases("drawn blank", (2, 2), 60, 84).labels
    assert (labels[:, 0] != labels[:, 1]).all()


def test_canvases_come_on_the_device_that_is_asked_for():
    found = C.canvases("drawn noise", 2, 5, 84, "meta")
    assert {one.device.type for one in found} == {"meta"}


@pytest.mark.parametrize(
    "name", ["", "drawn", "blank", "printed blank", "drawn  blank", "drawn black", "written", "a b c"]
)
def test_backgrounds_of_another_name_are_refused(name):
    with pytest.raises(ValueError, match="background must be 'drawn' or 'written', then one of"):
        C.canvases(name, 1, 5, 84)


def test_handwriting_comes_from_mnists_test_images_read_once(monkeypatch):
    C._test_digits.cache_clear()
    asked = []
    told = SimpleNamespace(images=DRAWN.images, labels=DRAWN.labels)
    monkeypatch.setattr(C, "mnist", lambda split: asked.append(split) or told)
    try:
        for _ in range(2):
            assert C.canvases("written blank", 1, 5, 84).labels.shape == (5, 1)
    finally:
        C._test_digits.cache_clear()
    assert asked == ["test"]


def test_handwriting_without_mnist_is_refused(tmp_path, monkeypatch):
    C._test_digits.cache_clear()
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    with pytest.raises(DataMissing, match="MNIST"):
        C.canvases("written blank", 1, 5, 84)


# --- letters on photographs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, 0.6])
def test_letters_lie_on_gray_photographs(value, monkeypatch):
    monkeypatch.setattr(C, "LETTERED", ("coffee", "camera"))
    found = C.lettered(value)
    assert len(found) == 2
    for name, (image, mask) in zip(C.LETTERED, found, strict=True):
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


def test_the_photographs_that_are_written_on_are_there():
    assert len(set(C.LETTERED)) == 9
    assert all(photo(name).shape[0] == 3 for name in C.LETTERED)


def test_local_contrast_is_a_pixel_less_the_mean_of_its_square():
    x = torch.rand(2, 1, 14, 23, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    found = C.local_contrast(x)
    assert found.shape == (2, 14, 23)
    for one, image in zip(found, x[:, 0].double().numpy(), strict=True):
        padded = np.pad(image, 10, mode="reflect")
        for r in range(14):
            for c in range(23):
                assert one[r, c].item() == pytest.approx(image[r, c] - padded[r : r + 21, c : c + 21].mean(), abs=1e-5)
    assert x.equal(before)
    assert C.local_contrast(x.double()).dtype == torch.float64


# --- how well maps tell where and what --------------------------------------------------------------------------------


def near(mask, reach):
    """The mask and what lies within `reach` pixels of it, pixel by pixel."""
    places = mask.nonzero().double()
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in mask.shape), indexing="ij")
    every = torch.stack([rows.flatten(), columns.flatten()], 1).double()
    return (torch.cdist(every, places).amin(1) <= reach + 1e-9).view(mask.shape)


def by_hand(maps, mask):
    """AUC, pointing game, and the same within four pixels; canvases without ink do not count."""
    rows = []
    for one, ink in zip(maps, mask, strict=True):
        if ink.any():
            top = int(one.argmax())
            hits = [float(where.flatten()[top]) for where in (ink, near(ink, 4))]
            rows.append([roc_auc_score(ink.flatten(), one.flatten()), *hits])
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def empty(images, mask):
    n = len(images)
    return Canvases(images, torch.zeros(n, 1, dtype=torch.int64), torch.zeros(n, 1, 4), mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_localized_by_hand(dtype):
    draw = torch.Generator().manual_seed(1)
    mask = torch.zeros(12, 20, 24, dtype=torch.bool)
    for i in range(11):  # the last one has no ink
        mask[i, i : i + 6, i : i + 8] = True
    maps = torch.rand(12, 20, 24, generator=draw, dtype=dtype) + 0.4 * mask
    for i, (r, c) in enumerate([(0, 11), (2, 13), (5, 5)]):  # a maximum 4 pixels beside the box, 5, and inside
        maps[i, r, c] = 3
    found = C.localized(maps, empty(torch.zeros(12, 1, 20, 24), mask))
    assert found == pytest.approx(by_hand(maps, mask), abs=1e-6)
    assert all(isinstance(value, float) for value in found)
    assert found[1] < found[2]


def test_the_reach_of_the_pointing_game_by_hand():
    # The ink is one pixel, (10, 10). Maxima 4 pixels to the right, at (3, 3) from it (4.24), 5 below, and on it.
    mask = torch.zeros(4, 21, 21, dtype=torch.bool)
    mask[:, 10, 10] = True
    maps = torch.zeros(4, 21, 21)
    for i, place in enumerate([(10, 14), (13, 13), (15, 10), (10, 10)]):
        maps[i][place] = 1
    assert C.localized(maps, empty(torch.zeros(4, 1, 21, 21), mask))[1:] == [0.25, 0.5]


def test_maps_are_made_as_large_as_the_canvases():
    found = empty(torch.zeros(2, 1, 9, 12), torch.zeros(2, 9, 12, dtype=torch.bool))
    for shape in ((2, 3, 4), (2, 5, 3, 4)):
        maps = torch.rand(shape)
        wanted = F.interpolate(maps.reshape(-1, 1, 3, 4), (9, 12), mode="bilinear").view(*shape[:-2], 9, 12)
        torch.testing.assert_close(C.large(maps, found), wanted)


@pytest.mark.parametrize("background", DIGIT_BACKGROUNDS)
def test_baselines_without_a_network(background):
    found = C.canvases(f"drawn {background}", 1, 10, 60)
    rows = C.without_network(found)
    assert list(rows) == ["the image itself", "blurred image", "centre", "share of the ink"]
    assert rows["the image itself"] == pytest.approx(shared(found.images[:, 0], found.mask), abs=1e-6)
    assert rows["blurred image"] == pytest.approx(by_hand(blurred_map(found.images), found.mask), abs=1e-6)
    assert rows["centre"] == pytest.approx(shared(center_map(found.images), found.mask), abs=1e-6)
    share = [
        (image[mask].sum() / image.sum()).item() for image, mask in zip(found.images[:, 0], found.mask, strict=True)
    ]
    assert rows["share of the ink"][0] == pytest.approx(sum(share) / 10)


def shared(maps, mask):
    """As `by_hand`; places that share the maximum count as the share of them that hits."""
    auc = [roc_auc_score(ink.flatten(), one.flatten()) for one, ink in zip(maps, mask, strict=True)]
    hits = [
        [where[one == one.max()].double().mean().item() for one, where in zip(maps, wheres, strict=True)]
        for wheres in (mask, [near(ink, 4) for ink in mask])
    ]
    return [sum(values) / len(values) for values in (auc, *hits)]


def test_the_nearly_right_share_reaches_as_far_as_the_pointing_game():
    # A place drawn by the ink: the pointing game of each place alone, weighed with its ink. One inked pixel, (10, 10);
    # 0.6 on it, 0.2 at a distance of (3, 3), 4.24 pixels, 0.2 at (4, 0), 4 pixels: 0.6, and 0.8 nearly.
    image, mask = torch.zeros(1, 1, 21, 21), torch.zeros(1, 21, 21, dtype=torch.bool)
    for place, ink in (((10, 10), 0.6), ((13, 13), 0.2), ((14, 10), 0.2)):
        image[0, 0][place] = ink
    mask[0, 10, 10] = True
    assert C.without_network(empty(image, mask))["share of the ink"] == pytest.approx([0.6, 0.8])


def two(labels, boxes, side=8):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return Canvases(
        torch.zeros(len(boxes), 1, side, side), torch.tensor(labels), boxes, torch.zeros(len(boxes), side, side)
    )


def test_shares_by_hand():
    left, right_ = [0, 0, 3, 3], [5, 4, 8, 8]  # 9 and 12 pixels
    low = [0, 5, 3, 8]  # 9 pixels
    found = two([[1, 2]] * 2, [[left, right_], [right_, low]])
    maps = torch.zeros(2, 2, 8, 8)
    maps[0, 0, :3, :3] = 1  # all of it in its own box: right
    maps[0, 1, :3, :3] = 1  # 9 in the other's box, 12 * 0.5 = 6 in its own: wrong
    maps[0, 1, 4:, 5:] = 0.5
    maps[1, 0, 4, 5] = 2  # its own box holds 2 and a negative part of -45, which counts for nothing: right
    maps[1, 0, 5:, 5:] = -5
    maps[1, 0, 6, 0] = 1  # in the other's box
    maps[1, 1, 0, 7] = 7  # in neither box: a coin
    # The hottest place: 9 equal ones in its own box; in the other's; in its own; in neither.
    assert C.shares(maps, found) == [(1 + 0 + 1 + 0.5) / 4, (1 + 0 + 1 + 0) / 4]
    assert C.shares(maps.double(), found) == [0.625, 0.5]
    assert C.shares(-maps.abs(), found)[0] == 0.5  # nothing positive
    assert C.shares(maps.flip(1), found._replace(boxes=found.boxes.flip(1))) == [0.625, 0.5]


def naive_shares(maps, found):
    wins = []
    for own, boxes in zip(maps, found.boxes, strict=True):
        for k in (0, 1):
            held = []
            for box in (boxes[k], boxes[1 - k]):
                x0, y0, x1, y1 = (int(v) for v in box)
                held.append(own[k, y0:y1, x0:x1].clamp_min(0).double().sum().item())
            wins.append(0.5 if held[0] == held[1] else float(held[0] > held[1]))
    return sum(wins) / len(wins)


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
    found = Canvases(images, torch.tensor([[3, 5], [4, -1]]), boxes, images[:, 0] > 0)
    # 2 of 3 digits found, 1 of 3 read; one region too many on each canvas.
    wanted = {"found": pytest.approx(2 / 3), "read": pytest.approx(1 / 3), "false alarms": 1.0}
    assert C.read(Brightness(), images[:, 0], found, 0.1) == wanted
    # At half of the maximum, 0.45, the three is not seen: 1 of 3 found.
    wanted = {"found": pytest.approx(1 / 3), "read": 0.0, "false alarms": 1.0}
    assert C.read(Brightness(), images[:, 0], found, 0.5) == wanted


def test_maps_without_a_hot_spot_find_nothing():
    found = C.canvases("drawn blank", (1, 2), 4, 84)
    for cut in S.CUTS:
        read = C.read(Brightness(), torch.zeros(4, 84, 84), found, cut)
        assert read == {"found": 0.0, "read": 0.0, "false alarms": 0.0}


@pytest.mark.parametrize("cut", S.CUTS)
def test_reading_digits_box_by_box(network, cut):
    found = C.canvases("drawn noise", (1, 4), 12, 84)
    maps = found.images[:, 0]
    boxes = similarnet.hotspots(maps, similarnet.map_threshold(maps, cut))
    labels = similarnet.read_hotspots(network, found.images, boxes).labels
    matched = right = alarms = 0
    for own, names, truth, wanted in zip(boxes, labels, found.boxes, found.labels, strict=True):
        hits = set()
        for box, label in zip(truth, wanted, strict=True):
            best, which = 0.0, -1
            for m, one in enumerate(own):
                shared = (torch.minimum(box[2:], one[2:]) - torch.maximum(box[:2], one[:2])).clamp_min(0).prod()
                iou = (shared / ((box[2:] - box[:2]).prod() + (one[2:] - one[:2]).prod() - shared)).item()
                if iou > best:
                    best, which = iou, m
            if best >= 0.5:
                hits.add(which)
                matched += 1
                right += int(names[which] == label)
        alarms += int((~own.isnan().any(1)).sum()) - len(hits)
    count = int((found.labels >= 0).sum())
    with assert_untouched(network):
        read = C.read(network, maps, found, cut)
    assert read == pytest.approx({"found": matched / count, "read": right / count, "false alarms": alarms / 12})
    if cut != 0.5:
        assert 0 < read["read"] < read["found"]


# --- SIMILARnet's weights ---------------------------------------------------------------------------------------------


def pooled(model, x, layers=6):
    """LeNet's feature maps behind its second pooling, layer by layer."""
    with torch.no_grad():
        for module in list(model)[:layers]:
            x = module(x)
    return x


def naive_errors(model, x, y, layers=6):
    """Rate and log-loss of every image: with all filters (N,), and without each, (F, N)."""
    maps, rows = pooled(model, x, layers), []
    with torch.no_grad():
        for f in (None, *range(maps.shape[1])):
            masked = maps.clone()
            if f is not None:
                masked[:, f] = 0
            scores = nn.Sequential(*list(model)[layers:])(masked).double()
            wrong = torch.tensor([float(row.argmax() != c) for row, c in zip(scores, y, strict=True)]).double()
            loss = torch.stack([row.exp().sum().log() - row[c] for row, c in zip(scores, y, strict=True)])
            rows.append((wrong, loss))
    return {name: (rows[0][k], torch.stack([row[k] for row in rows[1:]])) for k, name in enumerate(("rate", "nll"))}


def test_ablation_rows(network):
    found = small_world(30, 20)
    with assert_untouched(network):
        rows = S.ablated(network, found, CPU)
    assert list(rows) == ["training, rate", "training, nll", "test, rate", "test, nll"]
    json.dumps(rows, allow_nan=False)
    for split, part in (("training", found.train), ("test", found.tests["test"])):
        naive = naive_errors(network, part.images.float() / 255, part.labels)
        for error in ("rate", "nll"):
            row, (whole, without) = rows[f"{split}, {error}"], naive[error]
            assert row["images"] == len(part.labels)
            assert row["baseline"] == pytest.approx(whole.mean().item(), rel=1e-5)
            assert row["errors"] == pytest.approx(without.mean(1).tolist(), rel=1e-5)
            change = whole.mean() - without.mean(1)
            for sign, w in (("paper", change), ("code", -change)):
                for kind, t in (("mean", 1), ("sum", 1 / len(part.labels))):
                    p = (w / t).softmax(0)
                    even = row["effective number"][f"{sign}, {kind}"]
                    assert even == pytest.approx((1 / p.square().sum()).item(), rel=1e-3)
            assert len(row["effective number"]) == 4


def test_all_the_weightings(network):
    x, y = DRAWN.images[:25], DRAWN.labels[:25]
    draw = torch.Generator().manual_seed(5)
    baseline, errors = torch.tensor(0.5), torch.rand(16, generator=draw) * 0.2 + 0.4
    kept = errors.clone()
    with assert_untouched(network):
        rows = S.weightings(network, similarnet.AblationErrors(baseline, errors), x, y, 40, 3)
    assert errors.equal(kept)
    up = (errors - 0.5).double()  # e - E

    def soft(w):
        return w.exp() / w.exp().sum()

    maps = pooled(network, x).double()
    whole, without = naive_errors(network, x, y)["nll"]
    own = torch.zeros(16, dtype=torch.float64)
    for f in range(16):
        for n in range(25):
            held = maps[n, f].square().sum()
            own[f] += (without[f, n] - whole[n]) / held if held > 0 else 0
    wanted = {
        "E - e, raw": -up,
        "e - E, raw (code)": up,
        "softmax of E - e (paper)": soft(-up),
        "softmax of e - E": soft(up),
        "softmax of E - e, summed": soft(-up * 40),
        "softmax of e - E, summed": soft(up * 40),
        "mean excitation (newer GAP)": maps.mean((0, 2, 3)),
        "by sample (ccGAP)": own,
        "all weights one": torch.ones(16),
    }
    shuffled = [f"e - E, permuted, {k}" for k in range(1, 11)]
    assert list(rows) == [*wanted, *(f"positive weights at random, {k}" for k in range(1, 6)), *shuffled]
    for name in shuffled:
        torch.testing.assert_close(rows[name].sort().values, up.float().sort().values)
    assert len({tuple(rows[name].tolist()) for name in shuffled}) == 10
    for name, w in wanted.items():
        torch.testing.assert_close(rows[name], w.float(), rtol=1e-3, atol=1e-6)
    chance = torch.stack([rows[f"positive weights at random, {k}"] for k in range(1, 6)])
    assert (chance > 0).all()
    assert chance.mean().item() == pytest.approx(0.5, abs=0.1)  # 80 even numbers: 0.5 +- 0.03
    assert len(chance[:, 0].unique()) == 5
    assert {w.dtype for w in rows.values()} == {torch.float32}
    assert {w.shape for w in rows.values()} == {(16,)}
    again, other = (
        S.weightings(network, similarnet.AblationErrors(baseline, errors), x[:2], y[:2], 40, seed) for seed in (3, 4)
    )
    for k in range(1, 6):
        name = f"positive weights at random, {k}"
        assert rows[name].equal(again[name])
        assert not rows[name].equal(other[name])


def test_weights_follow_the_images_precision(network):
    double = load("lenet-mnist", "cpu").double()
    errors = similarnet.AblationErrors(torch.tensor(0.5), torch.rand(16))
    rows = S.weightings(double, errors, DRAWN.images[:3].double(), DRAWN.labels[:3], 40, 3)
    assert {w.dtype for w in rows.values()} == {torch.float64}


def naive_class_weights(model, x, y, layers):
    """Class-wise weights of filters, (10, F), one by one."""
    whole, without = naive_errors(model, x, y, layers)["nll"]
    maps = pooled(model, x, layers)
    raw = torch.stack([(without[:, y == c] - whole[y == c]).mean(1) for c in range(10)])
    excited, slopes = [], []
    for c in range(10):
        own = maps[y == c].clone().requires_grad_()
        nn.Sequential(*list(model)[layers:])(own)[:, c].sum().backward()
        slopes.append(own.grad.mean((0, 2, 3)).double())
        excited.append(own.detach().double().mean((0, 2, 3)))
    excited, slopes = torch.stack(excited), torch.stack(slopes)
    soft = raw.exp() / raw.exp().sum(1, keepdim=True)
    return {
        "e - E": raw,
        "e - E, less its mean over the classes": raw - raw.mean(0),
        "softmax of E - e": (-raw).exp() / (-raw).exp().sum(1, keepdim=True),
        "softmax of e - E": soft,
        "softmax of e - E, less its mean": soft - soft.mean(0),
        "mean excitation, less its mean": excited - excited.mean(0),
        "mean gradient": slopes,
        "mean gradient, less its mean": slopes - slopes.mean(0),
        "all weights one": torch.ones_like(raw),
    }


def test_weights_class_by_class(network, monkeypatch):
    monkeypatch.setattr(K, "SAMPLE", 60)
    world, found = small_world(100), C.canvases("drawn blank", 2, 20, 84)
    used = []
    monkeypatch.setattr(K, "heatmap", lambda f, w: used.append(w) or similarnet.heatmap(f, w))
    with assert_untouched(network):
        rows = S.by_class(network, world, found, "pool2")
    # 60 of the 100 training images, at random: which ones only the seed tells.
    kept = torch.randperm(100, generator=torch.Generator().manual_seed(C.SEED))[:60]
    x, y = world.train.images[kept].float() / 255, world.train.labels[kept]
    wanted, features = naive_class_weights(network, x, y, 6), pooled(network, found.images)
    fitted = "a linear layer on the means (original GAP)"
    assert list(rows) == [*list(wanted)[:-1], fitted, "all weights one"]
    given_by = dict(zip(rows, used, strict=True))
    for name, w in wanted.items():
        given = given_by[name]
        own = torch.stack([torch.stack([w[a], w[b]]) for a, b in found.labels.tolist()])  # (N, 2, F)
        torch.testing.assert_close(given.double(), own, rtol=1e-3, atol=1e-6)
        maps = (own[..., None, None] * features[:, None].double()).sum(2)
        maps = F.interpolate(maps, (84, 84), mode="bilinear", align_corners=False)
        assert rows[name][0] == pytest.approx(naive_shares(maps, found), abs=1.01 / found.labels.numel())  # a near tie
    assert rows["mean gradient"][0] > 0.6


def test_a_linear_layer_on_the_means_classifies_as_well_as_any(network):
    x, y = DRAWN.images, DRAWN.labels
    sleepy = copy.deepcopy(network)
    with torch.no_grad():  # a filter that never speaks has no spread to divide by
        sleepy.conv2.weight[3], sleepy.conv2.bias[3] = 0, -1
    for model in (network, sleepy):
        weights = K.linear_layer(model, "pool2", x, y).double()
        assert weights.shape == (10, 16)
        assert torch.isfinite(weights).all()
        # Sixteen numbers an image, 80 images: a linear layer with an intercept of its own fits nearly all of them.
        scores = pooled(model, x).double().mean((2, 3)) @ weights.T
        best = scores - torch.stack([scores[y == c].mean(0) for c in range(10)]).mean(0)
        assert (best.argmax(1) == y).double().mean() > 0.7


def test_a_class_has_at_most_200_images_for_its_gradient(network, monkeypatch):
    asked = []
    real = K.gradients
    monkeypatch.setattr(
        K, "gradients", lambda model, x, c, layer: asked.append((len(x), c)) or real(model, x, c, layer)
    )
    world = small_world(100)
    doubled = [part.repeat(25, *[1] * (part.ndim - 1)) for part in world.train]
    monkeypatch.setattr(
        K, "ablation_errors", lambda *_, **__: similarnet.AblationErrors(torch.rand(10), torch.rand(16, 10))
    )
    S.by_class(network, world._replace(train=LabeledImages(*doubled)), C.canvases("drawn blank", 2, 3, 84), "pool2")
    assert asked == [(200, c) for c in range(10)]


def test_a_network_that_slides(network, monkeypatch):
    found = C.canvases("drawn blank", 2, 12, 84)
    shown = []
    monkeypatch.setattr(K, "shares", lambda maps, found: shown.append(maps) or C.shares(maps, found))
    with assert_untouched(network):
        rows = S.slid(network, found)
    # Every window of 7 x 7 places of the feature maps, three rows of zeros around them, through the linear layers.
    patches = F.unfold(pooled(network, found.images), 7, padding=3)  # (N, 16 * 49, 21 * 21)
    with torch.no_grad():
        logits = network[7:](patches.mT).mT.unflatten(2, (21, 21))  # (N, 10, 21, 21)
    kinds = {"logit": logits, "probability": logits.softmax(1)}
    for (name, scores), given in zip(kinds.items(), shown, strict=True):
        chosen = torch.stack([torch.stack([one[a], one[b]]) for one, (a, b) in zip(scores, found.labels, strict=True)])
        maps = F.interpolate(chosen, (84, 84), mode="bilinear", align_corners=False)
        torch.testing.assert_close(given, maps, rtol=1e-3, atol=1e-4)
        assert rows[f"slid over the canvas, {name}"][0] == pytest.approx(naive_shares(maps, found), abs=1e-6)
    assert list(rows) == ["slid over the canvas, logit", "slid over the canvas, probability"]
    assert rows["slid over the canvas, probability"][0] > 0.7


def test_class_activation_maps_of_two_digits(gap):
    found = C.canvases("drawn noise", 2, 12, 84)
    with assert_untouched(gap):
        rows = S.with_gap(gap, found)
    layers = {name: 1 + k for k, (name, _) in enumerate(gap.named_children())}
    last = pooled(gap, found.images, layers["relu4"])
    maps = torch.einsum("nkf,nfhw->nkhw", gap.fc.weight.detach()[found.labels], last)
    maps = F.interpolate(maps, (84, 84), mode="bilinear", align_corners=False)
    assert rows["CAM"][0] == pytest.approx(naive_shares(maps, found), abs=1e-6)
    assert list(rows) == ["CAM", *(f"Grad-CAM at {name}" for name in ("pool1", "pool2", "pool3", "relu4"))]
    for name in ("pool1", "pool2", "pool3", "relu4"):
        own = []
        for k in (0, 1):
            f = pooled(gap, found.images, layers[name]).requires_grad_()
            scores = nn.Sequential(*list(gap)[layers[name] :])(f)
            slopes = torch.autograd.grad(scores[torch.arange(len(f)), found.labels[:, k]].sum(), f)[0]
            own.append((slopes.mean((2, 3), keepdim=True) * f.detach()).sum(1).relu())
        maps = F.interpolate(torch.stack(own, 1), (84, 84), mode="bilinear", align_corners=False)
        assert rows[f"Grad-CAM at {name}"][0] == pytest.approx(naive_shares(maps, found), abs=1e-6)
    assert rows["CAM"][0] > 0.8
    assert rows["CAM"][1] > 0.6  # the hottest place too


def test_heat_maps_with_the_poolings_and_without(network):
    x = C.canvases("drawn blank", 1, 3, 84).images
    weights = {"a": torch.randn(16), "b": torch.ones(16)}
    with assert_untouched(network):
        found = S.heatmaps(network, x, weights)
    assert list(found) == ["a", "b", "a, no poolings", "b, no poolings"]
    with torch.no_grad():
        bare = network.conv2(network.conv1(x).relu()).relu()
    for name, w in weights.items():
        wanted = (pooled(network, x) * w[:, None, None]).sum(1)
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            found[f"{name}, no poolings"], (bare * w[:, None, None]).sum(1), rtol=1e-4, atol=1e-4
        )
    assert found["a"].shape == (3, 21, 21)
    assert found["a, no poolings"].shape == (3, 84, 84)


def test_heat_maps_for_letters(network, monkeypatch):
    monkeypatch.setattr(C, "LETTERED", ("coffee", "camera"))
    draw = torch.Generator().manual_seed(2)
    weights = {name: torch.rand(16, generator=draw) - 0.3 for name in (*S.READ, "not asked for")}
    with assert_untouched(network):
        found = S.on_letters(network, weights, 0.8, CPU)
    assert list(found) == [*S.READ, *(f"{name}, no poolings" for name in S.READ)]
    aucs = {name: [] for name in S.READ}
    for image, mask in C.lettered(0.8):
        features = pooled(network, image)
        for name in S.READ:
            one = (features * weights[name][:, None, None]).sum(1, keepdim=True)
            one = F.interpolate(one, image.shape[2:], mode="bilinear", align_corners=False)
            aucs[name].append(roc_auc_score(mask.flatten(), one.flatten()))
    for name in S.READ:
        assert found[name] == pytest.approx(sum(aucs[name]) / 2, abs=1e-4)
    assert all(isinstance(value, float) for value in found.values())


def test_letters_without_a_network(monkeypatch):
    monkeypatch.setattr(C, "LETTERED", ("brick", "camera"))
    found = C.letters_without_network((1.0, 0.5))
    assert list(found) == ["1.0", "0.5"]
    for value in (1.0, 0.5):
        bright, contrast = [], []
        for image, mask in C.lettered(value):
            padded = F.pad(image, [10] * 4, mode="reflect")[0, 0].double().numpy()
            sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # of all above and to the left
            mean = (sums[21:, 21:] - sums[:-21, 21:] - sums[21:, :-21] + sums[:-21, :-21]) / 441
            bright.append(roc_auc_score(mask.flatten(), image.flatten()))
            contrast.append(roc_auc_score(mask.flatten(), (image[0, 0].numpy() - mean).ravel()))
        assert found[str(value)] == {
            "brightness": pytest.approx(sum(bright) / 2, abs=1e-4),
            "local contrast": pytest.approx(sum(contrast) / 2, abs=1e-4),
        }
    assert found["1.0"]["brightness"] > found["0.5"]["brightness"]


def test_halves_of_the_filters(network, monkeypatch):
    monkeypatch.setattr(S, "BACKGROUNDS", ("drawn blank", "drawn fragments"))
    monkeypatch.setattr(S, "ONE", (1, 10, 84))
    errors = torch.arange(16).double()  # filter 15 is missed most
    world = small_world(20, 40)
    rows = S.halves(network, similarnet.AblationErrors(torch.tensor(0.0), errors), world, CPU)
    assert list(rows) == ["most missed", "least missed", *(f"random, {k}" for k in range(1, S.HALVES + 1))]
    x, y = world.tests["test"].images.float() / 255, world.tests["test"].labels
    maps = pooled(network, x)
    for name, on in (("most missed", range(8, 16)), ("least missed", range(8))):
        kept = torch.zeros_like(maps)
        for f in on:
            kept[:, f] = maps[:, f]
        with torch.no_grad():
            named = (network[6:](kept).argmax(1) == y).float().mean().item()
        assert rows[name][0] == pytest.approx(named, abs=1e-6)
        assert 0.8 < rows[name][1] <= 1
        assert 0 <= rows[name][2] <= 1


def test_boxes_made_smaller(network):
    found = C.canvases("drawn blank", 1, 6, 84)
    ink = found.images[:, 0]
    grown = F.max_pool2d(ink[:, None], 9, 1, 4)[:, 0]  # a halo of four pixels
    assert C.read(network, grown, found, 0.5)["found"] < 0.5
    assert C.read(network, grown, found, 0.5, margin=4.0)["found"] == 1
    assert C.read(network, ink, found, 0.5, margin=100.0)["found"] == 0  # no box is turned inside out


def test_blurred_maps_are_blurred_as_the_baseline():
    spot = torch.zeros(1, 1, 84, 84)
    spot[0, 0, 40, 40] = 1
    blurred, baseline = C.blurred(spot[:, 0]), blurred_map(spot)
    torch.testing.assert_close(baseline, (blurred - spot.mean()).abs(), rtol=1e-4, atol=1e-7)


# --- the whole run, on next to nothing --------------------------------------------------------------------------------


def test_a_network_is_trained_once_and_gone_on_with(tmp_path, monkeypatch):
    small = replace(RECIPES["lenet-mnist"], epochs=1, batch=50)
    monkeypatch.setitem(RECIPES, "lenet-mnist", small)
    world = small_world()
    one = S.trained("lenet-mnist", 3, world, tmp_path, CPU)
    assert not one.training
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert any("seed-3" in path.as_posix() for path in kept)
    again, other = S.trained("lenet-mnist", 3, world, tmp_path, CPU), S.trained("lenet-mnist", 4, world, tmp_path, CPU)
    for a, b, c in zip(one.parameters(), again.parameters(), other.parameters(), strict=True):
        assert a.equal(b)
        assert not a.equal(c)
    checkpoints = [path for path in kept if path.name == "checkpoint.pt"]
    assert all(path.stat().st_mtime_ns == kept[path] for path in checkpoints)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, network, gap):
    """A run that takes seconds: its record, and the trainings it asked for, which take none."""
    with pytest.MonkeyPatch.context() as patch:
        asked = shrunk(patch, network, gap)
        return json.loads(json.dumps(S.record(tmp_path_factory.mktemp("tiny") / "runs", CPU), allow_nan=False)), asked


def shrunk(monkeypatch, network, gap):
    """Constants for next to nothing, and networks that need no training; returns what will be asked for."""
    monkeypatch.setattr(C, "_test_digits", lambda: (DRAWN.images, DRAWN.labels))
    for module, name, value in (
        (S, "SEEDS", (1,)),
        (S, "SAMPLE", 60),
        (S, "DRAWS", 1),
        (S, "ONE", (1, 6, 56)),
        (S, "TWO", (2, 8, 60)),
        (S, "MANY", ((1, 3), 5, 60)),
        (S, "BACKGROUNDS", ("drawn blank", "written noise")),
        (S, "DIGIT_BACKGROUNDS", ("blank",)),
        (S, "BRIGHTNESS", (1.0,)),
        (C, "LETTERED", ("camera",)),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setitem(RECIPES, "digits-gap", replace(RECIPES["digits-gap"], seeds=(0, 1)))
    asked = []

    def world(recipe, seed=0):
        asked.append((recipe.name, seed))
        return small_world(80, 20)

    def trained(name, seed, found, out, device):
        asked.append((name, seed, out.name))
        return {"lenet-mnist": network, "digits-gap": gap}[name]

    monkeypatch.setattr(S, "world", world)
    monkeypatch.setattr(S, "trained", trained)
    return asked


def test_the_whole_record(tiny, network, monkeypatch, no_mnist):
    found, asked = tiny
    monkeypatch.setattr(S, "BACKGROUNDS", ("drawn blank", "written noise"))
    assert asked == [
        ("lenet-mnist", 0),
        ("lenet-mnist", 1, "runs"),
        ("digits-gap", 0),
        ("digits-gap", 0, "runs"),
        ("digits-gap", 1),
        ("digits-gap", 1, "runs"),
    ]
    assert found["name"] == "similarnet"
    assert found["command"] == "python -m helpers.experiments.similarnet --publish"
    assert found["canvases"] == {"one": [1, 6, 56], "two": [2, 8, 60], "many": [[1, 3], 5, 60]}
    assert found["published"]["accuracy"] == 0.9873
    assert found["test images by class"] == [2] * 10
    assert [row["seed"] for row in found["networks"]] == [0, 1]
    assert [row["seed"] for row in found["digits-gap"]] == [0, 1]
    assert list(found["without a network"]) == list(S.BACKGROUNDS)
    row = found["networks"][0]
    test = small_world(80, 20).tests["test"]
    with torch.no_grad():
        right = network(test.images.float() / 255).argmax(1) == test.labels
    assert row["accuracy"] == pytest.approx(right.double().mean().item())
    assert row["by class"] == pytest.approx([right[test.labels == c].double().mean().item() for c in range(10)])
    assert np.shape(row["class by class"]["errors"]) == (16, 10)
    assert np.shape(row["class by class"]["baseline"]) == (10,)
    assert list(row["one digit"]) == list(row["two digits"]) == list(row["reading"]) == list(S.BACKGROUNDS)
    assert list(row["letters"]) == ["1.0"]
    kept = row["ablation"]["training, nll"]
    change = torch.tensor(kept["errors"]) - kept["baseline"]
    assert row["weights"]["e - E, raw (code)"] == pytest.approx(change.tolist(), abs=1e-6)
    assert row["weights"]["softmax of e - E, summed"] == pytest.approx((change * 80).softmax(0).tolist(), rel=1e-3)
    for background in S.BACKGROUNDS:
        fine = {f"{name}, no poolings" for name in row["weights"] if "permuted" not in name}
        blurred = {f"{name}, blurred" for name in S.READ}
        assert set(row["one digit"][background]) == {*row["weights"], *fine, *blurred}
        assert {"e - E", "slid over the canvas, logit"} <= row["two digits"][background].keys()
        maps = [f"{name}{tail}" for tail in ("", ", no poolings") for name in S.READ] + ["the image itself"]
        cuts = [f"{name}, {cut}" for name in maps for cut in S.CUTS]
        assert list(row["reading"][background]) == [*cuts, *(f"{name}, otsu, smaller" for name in maps)]
    check_localized(row, found["canvases"]["one"], network, "drawn blank", None, 1e-5)
    many = C.canvases("written noise", (1, 3), 5, 60)
    read = C.read(network, many.images[:, 0], many, "otsu")
    assert row["reading"]["written noise"]["the image itself, otsu"] == pytest.approx(read)
    assert {"CAM", "e - E"} <= found["digits-gap"][0]["two digits"]["blank"].keys()


def test_the_whole_record_passes_the_checks_of_records(tiny):
    # tests/test_recorded.py reads the hash of every data set by its name.
    assert all(len(digest) == 64 for digest in tiny[0]["data"].values())


def test_the_command_line_writes_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(S, "record", lambda out, device: {"out": out.name, "device": device.type})
    assert S.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "runs" / "similarnet.json").read_text(encoding="utf8"))
    assert found == {"out": "runs", "device": "cpu"}


def test_without_mnist_the_command_line_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HELPERS_DATA", str(tmp_path))
    assert S.main(["--out", str(tmp_path / "runs"), "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: MNIST is not in")
    assert "To get it: python -m helpers.data" in said
    assert not (tmp_path / "runs" / "similarnet.json").exists()


# --- the record -------------------------------------------------------------------------------------------------------


def check_localized(row, kind, model, background, count, tolerance):
    """AUCs of the heat maps of recorded weights, measured now, on the first canvases of the record's kind."""
    held, n, side = kind
    found = C.canvases(background, held, count or n, side)
    with torch.no_grad():
        bare = model.conv2(model.conv1(found.images).relu()).relu()
    for tail, features in (("", pooled(model, found.images)), (", no poolings", bare)):
        for name, w in row["weights"].items():
            if tail and "permuted" in name:
                continue  # they are measured with the poolings alone
            maps = (features * torch.tensor(w)[:, None, None]).sum(1)
            now = C.localized(cam.upsample(maps, (side, side)), found)
            assert now[0] == pytest.approx(row["one digit"][background][name + tail][0], abs=tolerance), name + tail


def record_or_skip():
    if not (FOLDER / "similarnet.json").exists():
        pytest.skip("the record is not published yet")
    return recorded("similarnet")


def test_the_record_is_what_a_fresh_measurement_gives(network):
    found = record_or_skip()
    row = found["networks"][0]
    assert row["seed"] == 0
    assert row["accuracy"] == pytest.approx(network.card.accuracy, abs=0.002)
    check_localized(row, found["canvases"]["one"], network, "drawn blank", 40, 0.02)


def test_the_baselines_of_the_record_are_what_a_fresh_measurement_gives():
    found = record_or_skip()
    held, n, side = found["canvases"]["one"]
    now = C.without_network(C.canvases("drawn blank", held, n, side))
    assert now.keys() == found["without a network"]["drawn blank"].keys()
    for name, values in now.items():
        assert values == pytest.approx(found["without a network"]["drawn blank"][name], abs=0.005)


def test_the_record_is_of_the_run_that_the_code_makes():
    found = record_or_skip()
    assert found["canvases"] == json.loads(json.dumps({"one": S.ONE, "two": S.TWO, "many": S.MANY}))
    assert [row["seed"] for row in found["networks"]] == [0, *S.SEEDS]
    assert [row["seed"] for row in found["digits-gap"]] == list(RECIPES["digits-gap"].seeds)
    for row in found["networks"]:
        assert len(row["weights"]) == 9 + S.DRAWS + S.PERMUTED
        assert len(row["halves"]) == 2 + S.HALVES
        assert list(row["one digit"]) == list(row["two digits"]) == list(row["reading"]) == list(S.BACKGROUNDS)
        assert list(row["letters"]) == [str(value) for value in S.BRIGHTNESS]
        assert list(row["ablation"]) == [f"{split}, {error}" for split in S.SPLITS for error in ("rate", "nll")]
        assert [row["ablation"][f"{split}, nll"]["images"] for split in S.SPLITS] == [60_000, 10_000]
    assert sum(found["test images by class"]) == 10_000
