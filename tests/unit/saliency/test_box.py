"""Boxes around what a map takes for the object."""

import pytest
import torch
from support.refuses import refuses
from support.saliency import seeded
from torchvision.ops import box_iou

from helpers.saliency import saliency_box


def blobs(side=10, **values):
    """A map that is zero but in rectangles: y0_x0_y1_x1 = value."""
    actual = torch.zeros(1, side, side)
    for name, value in values.items():
        y0, x0, y1, x1 = map(int, name.strip("b").split("_"))
        actual[0, y0:y1, x0:x1] = value
    return actual


def test_the_largest_region_gets_the_box_even_if_another_is_stronger():
    maps = blobs(b1_2_3_5=1, b7_7_8_9=2)
    assert saliency_box(maps).tolist() == [[2, 1, 5, 3]]  # x0, y0, x1, y1; the last two exclusive
    assert saliency_box(maps.mT).tolist() == [[1, 2, 3, 5]]


def test_diagonal_neighbours_are_one_region():
    assert saliency_box(blobs(b0_0_2_2=1, b2_2_4_4=1, b7_5_8_10=1)).tolist() == [[0, 0, 4, 4]]


def test_regions_of_different_maps_are_kept_apart():
    maps = torch.cat([blobs(b8_0_10_3=1, b0_5_1_9=1), blobs(b0_0_2_4=1, b9_0_10_2=1)])
    assert saliency_box(maps).tolist() == [[0, 8, 3, 10], [0, 0, 4, 2]]
    stacked = torch.stack([maps, maps.mT, maps.flip(2)], 1)  # (2, 3, 10, 10)
    actual = saliency_box(stacked)
    assert actual.shape == (2, 3, 4)
    for b in range(2):
        assert torch.equal(actual[b], saliency_box(stacked[b]))


def test_the_upper_quantile_says_what_is_the_object():
    ramp = torch.arange(100.0).view(1, 10, 10)
    assert saliency_box(ramp).tolist() == [[5, 9, 10, 10]]  # the last five pixels
    assert saliency_box(ramp, foreground=0.5).tolist() == [[0, 5, 10, 10]]
    assert saliency_box(-ramp, foreground=0.8, background=0.8).tolist() == [[0, 0, 10, 2]]


def test_an_object_smaller_than_the_quantiles_share_is_still_boxed():
    assert saliency_box(blobs(b4_3_6_5=1)).tolist() == [[3, 4, 5, 6]]  # 4 of 100 pixels; the quantile is 0


def test_a_constant_map_gets_the_whole_image():
    assert saliency_box(torch.zeros(2, 5, 9)).tolist() == [[0, 0, 9, 5]] * 2
    assert saliency_box(torch.full((1, 2, 5, 9), 3.0)).tolist() == [[[0, 0, 9, 5]] * 2]


def test_a_constant_map_gets_the_whole_image_whatever_is_on_it():
    lamp = blobs(40, b5_5_9_9=1)[None].expand(1, 3, 40, 40)
    for picture in (square()[0], lamp, 1 - lamp):
        assert saliency_box(torch.ones(1, 40, 40), picture).tolist() == [[0, 0, 40, 40]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_boxes_have_the_dtype_of_the_maps_but_half_precision_which_may_have_a_graph(dtype):
    actual = saliency_box(blobs(b1_2_3_5=1).to(dtype).requires_grad_())
    assert actual.dtype == torch.promote_types(dtype, torch.float32)
    assert actual.tolist() == [[2, 1, 5, 3]]


def square(y=10, x=8, side=16, size=40, seed=0):
    """A red square on a grey ground with noise, and a map that is high only about the square's middle."""
    image = 0.4 + 0.05 * torch.randn(3, size, size, generator=seeded(seed))
    image[:, y : y + side, x : x + side] += torch.tensor([0.4, -0.2, -0.2])[:, None, None]
    ways = torch.arange(size) + 0.5
    apart = (ways - y - side / 2)[:, None].square() + (ways - x - side / 2).square()
    return image[None].clamp(0, 1), (-apart / 200).exp()[None]


SQUARE = torch.tensor([[8.0, 10.0, 24.0, 26.0]])


def test_colours_find_the_object_at_which_the_map_only_hints():
    picture, hint = square()
    with_images, without = (float(box_iou(saliency_box(hint, images), SQUARE)) for images in (picture, None))
    assert without < 0.5
    assert with_images > 0.85


@pytest.mark.parametrize("change", [lambda x: 255 * x, lambda x: 2 * x - 1, lambda x: x / 1000, lambda x: x.double()])
def test_the_units_of_the_images_do_not_matter(change):
    picture, hint = square()
    assert torch.equal(saliency_box(hint, change(picture)), saliency_box(hint, picture))


def test_images_of_bytes_give_the_same_box():
    picture, hint = square()
    coarse = (picture * 255).round()
    assert torch.equal(saliency_box(hint, coarse.byte()), saliency_box(hint, coarse))


def test_each_map_is_cut_with_its_own_image():
    places = [(2, 20), (20, 4)]
    pictures, hints = (torch.cat(parts) for parts in zip(*(square(*place) for place in places), strict=True))
    maps = torch.stack([hints, hints.roll(3, -1)], 1)  # (2, 2, 40, 40)
    actual = saliency_box(maps, pictures)
    assert actual.shape == (2, 2, 4)
    for b, (y, x) in enumerate(places):
        expected = torch.tensor([[x, y, x + 16.0, y + 16.0]])
        for k in range(2):
            assert torch.equal(actual[b, k], saliency_box(maps[b : b + 1, k], pictures[b : b + 1])[0])
            assert box_iou(actual[b, k][None], expected) > 0.8


def test_what_the_map_takes_for_background_stays_background():
    picture, hint = square(y=4, x=4, side=10)
    picture[..., 18:38, 18:38] = picture[..., 4:14, 4:14].repeat(1, 1, 2, 2)  # more of the same red
    small, large = torch.tensor([[4.0, 4.0, 14.0, 14.0]]), torch.tensor([[18.0, 18.0, 38.0, 38.0]])
    assert box_iou(saliency_box(hint, picture, background=0.01), large) > 0.8
    hint[:, 18:38, 18:38] = -1
    assert box_iou(saliency_box(hint, picture), small) > 0.6


@pytest.mark.parametrize("units", [1, 1e-3, 255])
def test_an_object_may_differ_from_its_ground_in_scatter_alone(units):
    _, hint = square()
    picture = torch.randn(1, 3, 40, 40, generator=seeded(0)) * 0.02
    picture[..., 10:26, 8:24] *= 15
    assert box_iou(saliency_box(hint, units * (0.5 + picture)), SQUARE) > 0.7


@pytest.mark.parametrize("grey", [0.0, 0.3])
def test_where_colours_tell_nothing_the_seeds_decide(grey):
    maps = blobs(b1_2_3_5=1, b7_7_8_9=2)
    assert saliency_box(maps, torch.full((1, 3, 10, 10), grey)).tolist() == [[2, 1, 5, 3]]


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 3), (4, 4)])
def test_images_of_a_few_pixels(size):
    torch.manual_seed(0)
    x0, y0, x1, y1 = saliency_box(torch.rand(1, *size), torch.rand(1, 3, *size))[0].tolist()
    assert 0 <= x0 < x1 <= size[1]
    assert 0 <= y0 < y1 <= size[0]


def test_bad_arguments_are_refused():
    maps, images = torch.rand(1, 5, 6), torch.rand(1, 3, 5, 6)
    for wrong in (images.repeat(2, 1, 1, 1), images.mT, images / 0):
        refuses(saliency_box, {"maps": maps}, maps=maps[0], images=wrong, foreground=0.2, background=0.0)
    refuses(saliency_box, {"maps": maps}, foreground=1.0)


@pytest.mark.parametrize(("dtype", "width", "at"), [(torch.bfloat16, 600, 515), (torch.float16, 4100, 4095)])
def test_edges_are_not_rounded_in_half_precision(dtype, width, at):
    maps = torch.zeros(1, 8, width, dtype=dtype)
    maps[..., at] = 1
    assert saliency_box(maps).tolist() == [[at, 0, at + 1, 8]]
