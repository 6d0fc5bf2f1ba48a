"""The two pathways: their networks as published, and a gaze that goes where the map says."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from support.refuses import refuses
from support.search import close, each_dtype, images, net, seeded, seen_cartesian, slow_label_map
from support.untouched import Boom, assert_untouched
from torch import nn

from helpers.retina import cartesian, log_polar
from helpers.search import WhatNet, WhereNet, dorsal_view, dual_pathway, predicted_map


@each_dtype
def test_the_dorsal_view_is_gray_and_four_samples_a_cell(dtype):
    x = images(side=64, dtype=dtype)
    before = x.clone()
    fixations = torch.tensor([[0.0, 0.0], [0.3, -0.2], [1.0, 1.0]])
    views = dorsal_view(x, fixations)
    assert views.shape == (2, 3, 1, 40, 96)
    assert views.dtype == dtype
    assert torch.equal(x, before)
    # Rings from 0.8 x 1.41^(3/8) inwards, four to a factor of 1.41: those of a cell lie around the cell's own.
    expected = log_polar(
        x.mean(1, keepdim=True), fixations, (40, 96), 0.8 / 1.41**9.375, 0.8 * 1.41**0.375, antialias=True
    )
    assert torch.allclose(views, expected, rtol=0, atol=1e-6)
    assert torch.equal(dorsal_view(x), dorsal_view(x, torch.zeros(1, 2)))
    assert torch.equal(dorsal_view(x, torch.zeros(2, 3, 2)), dorsal_view(x, torch.zeros(3, 2)))
    plain = dorsal_view(x.mean(1, keepdim=True))
    assert torch.allclose(dorsal_view(x), plain, rtol=0, atol=1e-6)


def test_the_where_net_is_as_published():
    torch.manual_seed(0)
    model = WhereNet().eval()
    assert model(torch.randn(2, 1, 40, 96)).shape == (2, 10, 24)
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [
        (2880, 1000), (1000, 1000), (1000, 240),
    ]  # fmt: skip
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.weight.shape for m in convolutions] == [(12, 1, 9, 9)]
    # batch normalisation of the filters and after each hidden layer, and none of the output
    assert [m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm1d)] == [2880, 1000, 1000]
    assert [m.out_features for m in WhereNet(7).modules() if isinstance(m, nn.Linear)] == [7, 7, 240]
    with torch.no_grad():  # logits, not probabilities
        model.layers[-1].bias.fill_(50)
    assert (model(torch.zeros(1, 1, 40, 96)) > 10).all()


def test_the_filters_follow_a_rotation_by_whole_cells():
    torch.manual_seed(0)
    model, views = WhereNet(4).double(), torch.randn(2, 1, 40, 96, dtype=torch.float64)
    maps = model.retina(views).unflatten(1, (12, 10, 24))
    for cells in (1, 5, 23):
        turned = model.retina(views.roll(4 * cells, -1)).unflatten(1, (12, 10, 24))
        assert torch.allclose(turned, maps.roll(cells, -1), rtol=0, atol=1e-12)
    # By hand: cell (i, j) sees samples 4 i - 4 .. 4 i + 4 and 4 j - 4 .. 4 j + 4, 0 beyond the rim, on beyond the seam.
    convolution = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    for i, j in ((0, 0), (4, 23), (9, 7)):
        patch = torch.zeros(9, 9, dtype=torch.float64)
        for a, b in itertools.product(range(9), repeat=2):
            if 0 <= 4 * i + a - 4 < 40:
                patch[a, b] = views[0, 0, 4 * i + a - 4, (4 * j + b - 4) % 96]
        expected = ((convolution.weight[:, 0] * patch).sum((1, 2)) + convolution.bias).clamp(min=0)
        assert torch.allclose(maps[0, :, i, j], expected, rtol=0, atol=1e-12)


def test_the_what_net_is_as_published():
    model = WhatNet()
    assert sum(p.numel() for p in model.parameters()) == 431_080
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert WhatNet(3)(torch.zeros(2, 1, 28, 28)).shape == (2, 3)
    assert [m.weight.shape[:2] for m in model if isinstance(m, nn.Conv2d)] == [(20, 1), (50, 20)]
    with torch.no_grad():  # the last layer is linear: logits may be negative
        model[-1].bias.fill_(-50)
    assert (model(torch.zeros(1, 1, 28, 28)) < 0).all()


SIDE = 32


class Pointer(nn.Module):
    """A where network that always points at one cell; leaves a trace in training mode."""

    def __init__(self, ring, azimuth, logit=3.0, boom=False):
        super().__init__()
        cells = torch.full((10, 24), -2.2)  # chance
        cells[ring, azimuth] = logit
        self.cells = nn.Parameter(cells)
        self.norm = nn.BatchNorm2d(1)
        self.boom = Boom() if boom else nn.Identity()
        self.seen = []

    def forward(self, views):
        self.seen.append(views)
        self.norm(views)
        return self.boom(self.cells).expand(len(views), -1, -1)


def gray(count=3, channels=2, seed=0):
    return torch.randn(count, channels, SIDE, SIDE, generator=seeded(seed))


def step_of(where):
    """Where the mean of four neighbouring pixels is greatest, from the fixation, in whole pixels, right and down."""
    promised = predicted_map(where.cells.detach().sigmoid()[None], SIDE)[0]
    four = (promised[:-1, :-1] + promised[1:, :-1] + promised[:-1, 1:] + promised[1:, 1:]) / 4
    best = int(four.argmax())
    # between pixel i and the next
    return best % (SIDE - 1) + 1 - SIDE // 2, best // (SIDE - 1) + 1 - SIDE // 2


CELLS = {
    "right": (2, 1),
    "below": (2, 7),
    "left": (3, 13),
    "above": (2, 19),
    "far": (1, 4),
}  # between the axes: no ties


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_gaze_goes_where_the_map_says_and_on_from_there(cell):
    what, where, x = net(dtype=torch.float32), Pointer(*cell), gray()
    glimpses = dual_pathway(what, where, x, 2, view=seen_cartesian)
    step = torch.tensor(step_of(where)).float()
    radius, angle = 0.8 / 1.41 ** cell[0] * SIDE / 2, 2 * math.pi * cell[1] / 24
    centre = torch.tensor([radius * math.cos(angle), radius * math.sin(angle)])
    assert (step - centre).abs().max() <= 2  # pixels
    expected = torch.stack([torch.zeros(2), step / 16, (2 * step / 16).clamp(-1, 1)])
    assert torch.allclose(glimpses.fixations, expected.expand(3, -1, -1), rtol=0, atol=1e-6)
    close(glimpses.log_p, slow_label_map(what, x, glimpses.fixations, seen_cartesian), 1e-5)
    together = glimpses.log_p.double().cumsum(1).log_softmax(-1)  # an even prior
    close(glimpses.beliefs, together, 1e-5)
    assert torch.allclose(glimpses.maps, where.cells.detach().sigmoid().expand(3, 2, -1, -1), rtol=0, atol=1e-6)
    for number, view in enumerate(where.seen):  # what it sees is around the gaze
        assert torch.allclose(view, dorsal_view(x, glimpses.fixations[:, number, None])[:, 0], rtol=0, atol=1e-5)
    assert len(where.seen) == 2


def test_each_image_goes_its_own_way():
    class Two(nn.Module):
        def forward(self, views):
            cells = torch.full((len(views), 10, 24), -2.2)
            cells[:, 2, 1] = torch.where(views.mean((1, 2, 3)) > 0, 3.0, -2.2)
            cells[:, 2, 7] = torch.where(views.mean((1, 2, 3)) > 0, -2.2, 3.0)
            return cells

    x = torch.ones(3, 1, SIDE, SIDE)
    x[1] = -1
    for batch_size in (1, 2, 64):
        glimpses = dual_pathway(net_gray(), Two(), x, view=seen_cartesian, batch_size=batch_size)
        right, below = (torch.tensor(step_of(Pointer(2, n))) / 16 for n in (1, 7))
        assert torch.allclose(glimpses.fixations[:, 1], torch.stack([right, below, right]))


def net_gray():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def test_the_gaze_is_held_at_the_edge_and_starts_where_it_is_told():
    what, where, x = net(dtype=torch.float32), Pointer(0, 1), gray()
    glimpses = dual_pathway(what, where, x, 3, view=seen_cartesian)
    assert glimpses.fixations[:, :, 0].tolist() == [[0, pytest.approx(step_of(where)[0] / 16), 1, 1]] * 3
    start = torch.tensor([[0.9, 0.5], [-0.5, 0.0], [0.0, -0.25]])
    glimpses = dual_pathway(what, where, x, 1, view=seen_cartesian, start=start)
    assert torch.equal(glimpses.fixations[:, 0], start)
    step = torch.tensor(step_of(where)) / 16
    assert torch.allclose(glimpses.fixations[:, 1], (start + step).clamp(-1, 1))
    shared = dual_pathway(what, where, x, 1, view=seen_cartesian, start=start[0])
    assert torch.allclose(shared.fixations[:, 0], start[:1].expand(3, 2))
    close(glimpses.log_p, slow_label_map(what, x, glimpses.fixations, seen_cartesian), 1e-5)


class Sure(nn.Module):
    """Two labels; the first one's probability is what the image's channel holds there."""

    def forward(self, views):
        p = views.mean((1, 2, 3)).clamp(0.01, 0.99)
        return torch.stack([p.log(), (1 - p).log()], 1)


def test_a_cautious_gaze_stays_where_nothing_better_is_promised():
    x = torch.zeros(2, 1, SIDE, SIDE)
    x[0], x[1] = 0.9, 0.6  # confidences
    where = Pointer(2, 1, 0.8)
    top = predicted_map(where.cells.detach().sigmoid()[None], SIDE).max().item()
    # Scaled so that the map's greatest value lies between the two confidences.
    with torch.no_grad():
        cells = 0.1 + (where.cells.sigmoid() - 0.1) * (0.75 - 0.1) / (top - 0.1)
        where.cells.copy_(cells.clamp(1e-4, 1 - 1e-4).logit())
    top = predicted_map(where.cells.detach().sigmoid()[None], SIDE).max().item()
    assert 0.65 < top < 0.85
    step = torch.tensor(step_of(where)) / 16

    def view(x, fixations):
        return cartesian(
            x, torch.zeros((*fixations.shape[:-1], 2)), 4, 0.2, disc=False
        )  # the centre, wherever the gaze is

    glimpses = dual_pathway(Sure(), where, x, 2, view=view, cautious=True)
    assert torch.equal(glimpses.fixations[0], torch.zeros(3, 2))
    assert torch.allclose(glimpses.fixations[1], torch.stack([0 * step, step, (2 * step).clamp(-1, 1)]))
    assert glimpses.log_p.exp()[0, :, 0].tolist() == pytest.approx([0.9] * 3)
    assert glimpses.beliefs.exp()[0, :, 0].tolist() == pytest.approx([0.9] * 3)  # not fused a second time
    # .6 .6 / (.6 .6 + .4 .4) = .692; .6^3 / (.6^3 + .4^3) = .771
    assert glimpses.beliefs.exp()[1, :, 0].tolist() == pytest.approx([0.6, 0.36 / 0.52, 0.216 / 0.28])
    bold = dual_pathway(Sure(), where, x, 2, view=view)
    assert torch.allclose(bold.fixations[0], glimpses.fixations[1])


def test_what_may_see_another_picture_than_where():
    what, where, x, other = net(dtype=torch.float32), Pointer(2, 1), gray(channels=1), gray(seed=5)
    glimpses = dual_pathway(what, where, x, view=seen_cartesian, what_images=other)
    close(glimpses.log_p, slow_label_map(what, other, glimpses.fixations, seen_cartesian), 1e-5)
    assert torch.allclose(where.seen[0], dorsal_view(x)[:, 0], rtol=0, atol=1e-6)


def test_both_pathways_without_a_saccade():
    what, where, x = net(dtype=torch.float32), Pointer(2, 1), gray()
    glimpses = dual_pathway(what, where, x, 0, view=seen_cartesian)
    assert [part.shape for part in glimpses] == [(3, 1, 2), (3, 1, 3), (3, 1, 3), (3, 0, 10, 24)]
    assert torch.equal(glimpses.log_p, glimpses.beliefs)
    assert not where.seen
    assert dual_pathway(what, where, x, view=seen_cartesian).fixations.shape == (3, 2, 2)


@each_dtype
@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_both_pathways_in_passes(batch_size, dtype):
    what, where, x = net(dtype=dtype), Pointer(2, 1).to(dtype), gray().to(dtype)
    glimpses = dual_pathway(what, where, x, 2, view=seen_cartesian, batch_size=batch_size)
    assert max(what.sizes) == max(map(len, where.seen)) == min(batch_size, 3)
    assert glimpses.log_p.dtype == glimpses.beliefs.dtype == glimpses.maps.dtype == dtype
    alone = dual_pathway(what, where, x[1:2], 2, view=seen_cartesian)
    assert all(torch.allclose(a[1], b[0], rtol=0, atol=1e-6) for a, b in zip(glimpses, alone, strict=True))


@pytest.mark.parametrize("boom", ["", "what", "where"])
def test_both_pathways_are_left_as_they_were(boom):
    what, where, x = net(dtype=torch.float32, boom=boom == "what"), Pointer(2, 1, boom=boom == "where").train(), gray()
    before = x.clone()
    where.seen = None  # tensors that come and go would count as traces
    where.seen = []
    outcome = pytest.raises(RuntimeError, match="boom") if boom else nullcontext()
    with assert_untouched(what), assert_untouched(where), outcome:
        assert not any(part.requires_grad for part in dual_pathway(what, where, x, view=seen_cartesian))
    assert torch.equal(x, before)


def test_a_where_net_fits_in():
    torch.manual_seed(0)
    glimpses = dual_pathway(net(dtype=torch.float32), WhereNet(8), gray(), view=seen_cartesian)
    assert glimpses.maps.shape == (3, 1, 10, 24)
    assert ((glimpses.maps > 0) & (glimpses.maps < 1)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dorsal_view(torch.zeros(1, 64, 64)), "x must"),
        (lambda: WhereNet(0), "hidden must"),
        (lambda: WhereNet(4)(torch.zeros(1, 1, 96, 40)), "views must"),
        (lambda: WhatNet(0), "classes must"),
    ],
)
def test_bad_input_of_the_pathways_is_refused(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()


def test_bad_input_of_both_pathways_is_refused():
    good = {"what": net(dtype=torch.float32), "where": Pointer(2, 1), "x": gray(), "view": seen_cartesian}
    x, start = torch.zeros(2, 2, 32, 30), torch.tensor([0.0, 1.5])
    refuses(dual_pathway, good, x=x, saccades=-1, start=start, batch_size=0, what_images=torch.zeros(2, 2, 32, 32))
