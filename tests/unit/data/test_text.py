import itertools

import numpy as np
import pytest
import torch
from support.refuses import refuses

from helpers import data
from helpers.data import DIGIT_FONTS, Lettering, write

NAN = float("nan")
EACH_FONT = pytest.mark.parametrize("font", DIGIT_FONTS)


def black(tall=60, wide=160, channels=1):
    return torch.zeros(channels, tall, wide)


def runs(flags):
    """Bounds [first, last + 1) of the runs of True."""
    steps = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, int), [0]])))
    return list(zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True))


def tight(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@EACH_FONT
@pytest.mark.parametrize("height", [12, 33.5])
def test_boxes_are_tight_around_the_strokes(font, height):
    lettering = write(black(80, 260), "3 9 0", (10, 7), height=height, font=font)
    ink = lettering.image[0].numpy() >= 0.5
    # Blanks keep the digits apart: each is a run of columns of its own.
    parts = runs((lettering.image[0] > 0).any(0))
    assert len(parts) == 3
    expected = []
    for left, right in parts:
        x0, y0, x1, y1 = tight(ink[:, left:right])
        expected.append([x0 + left, y0, x1 + left, y1])
    assert lettering.boxes.tolist() == expected
    assert np.array_equal(lettering.mask.numpy(), ink)


@EACH_FONT
@pytest.mark.parametrize("text", ["a.b-c", "fly 12"])
def test_every_character_has_its_box_in_reading_order(font, text):
    lettering = write(black(), text, (8, 20), font=font, height=16)
    assert isinstance(lettering, Lettering)
    assert lettering.characters == text.replace(" ", "")
    assert lettering.boxes.shape == (len(lettering.characters), 4)
    assert lettering.boxes.dtype == lettering.image.dtype == torch.float32
    assert lettering.mask.dtype == torch.bool
    assert lettering.mask.shape == (60, 160)
    assert (lettering.boxes[:, 0].diff() > 0).all()
    covered = torch.zeros_like(lettering.mask)
    for x0, y0, x1, y1 in lettering.boxes.int().tolist():
        assert 0 <= x0 < x1 <= 160
        assert 0 <= y0 < y1 <= 60
        part = lettering.mask[y0:y1, x0:x1]
        assert part[0].any()
        assert part[-1].any()
        assert part[:, 0].any()
        assert part[:, -1].any()
        covered[y0:y1, x0:x1] = True
    assert not (lettering.mask & ~covered).any()  # no stroke without a box


@EACH_FONT
def test_a_character_looks_the_same_alone_and_in_a_line(font):
    line = write(black(), "7 4", (10, 10), font=font)
    for box, character in zip(line.boxes.int().tolist(), line.characters, strict=True):
        alone = write(black(), character, (10, 10), font=font)
        x0, y0, x1, y1 = alone.boxes[0].int().tolist()
        own = line.mask[box[1] : box[3], box[0] : box[2]]
        assert abs(own.sum() - alone.mask[y0:y1, x0:x1].sum()) <= 0.1 * own.sum()  # placed between pixels


@EACH_FONT
@pytest.mark.parametrize("height", [5, 7.3, 12, 40, 400])
def test_a_zero_is_as_high_as_asked(font, height):
    if font == "STIX General" and height < 7:
        pytest.skip("its hair lines are too thin to reach half of a pixel's brightness")
    thin = font == "Computer Modern Typewriter" and height == 40  # its upper and lower edge lie below half
    box = write(black(1300, 1300) if height == 400 else black(200, 200), "0", (3, 3), height=height, font=font).boxes[0]
    assert abs((box[3] - box[1]).item() - height) <= 1 + thin


@EACH_FONT
@pytest.mark.parametrize(("text", "corner"), [("0", (0, 0)), ("gx", (0, 9)), ("8 1", (17, 40))])
def test_writing_begins_at_the_corner(font, text, corner):
    lettering = write(black(), text, corner, font=font)
    ink = lettering.image[0] > 0
    top, left = ink.any(1).nonzero()[0].item(), ink.any(0).nonzero()[0].item()
    # The first row of the tallest character; to the left a character keeps a distance of its own, or reaches out.
    assert abs(top - corner[0]) <= 1
    assert -4 <= left - corner[1] <= 5


def test_the_corner_moves_the_writing():
    first = write(black(), "5 2", (4, 6))
    second = write(black(), "5 2", (13, 31))
    assert torch.equal(second.boxes - first.boxes, torch.tensor([25.0, 9, 25, 9]).expand(2, 4))
    assert torch.equal(second.image[:, 9:, 25:], first.image[:, :-9, :-25])


def test_height_and_font_have_defaults():
    lettering = write(black(), "42", (5, 5))
    named = write(black(), "42", (5, 5), height=20.0, value=1.0, font="DejaVu Sans Bold")
    assert all(torch.equal(a, b) for a, b in zip(lettering[:3], named[:3], strict=True))
    assert lettering.image.max() == 1


def test_fonts_and_sizes_differ():
    areas = [write(black(), "25", (5, 5), height=height).mask.sum().item() for height in (8, 12, 20, 30)]
    assert areas == sorted(set(areas))
    pictures = [write(black(), "25", (5, 5), font=font).image for font in DIGIT_FONTS]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(pictures, 2))


@pytest.mark.parametrize(
    ("text", "characters"), [(" 7", "7"), ("7 ", "7"), ("1  2", "12"), ("1\t2", "12"), ("1\u00a02", "12")]
)
def test_blanks_have_no_box(text, characters):
    lettering = write(black(), text, (5, 5))
    assert lettering.characters == characters
    assert lettering.boxes.shape == (len(characters), 4)


def test_blanks_take_room():
    near, far, further = (write(black(), text, (5, 5)).boxes for text in ("12", "1 2", "1  2"))
    assert near[1, 0] < far[1, 0] < further[1, 0]
    assert far[1, 0] - near[1, 0] == pytest.approx(further[1, 0] - far[1, 0], abs=1)


def test_writing_covers_the_picture_in_part():
    # out = picture * (1 - ink) + value * ink; the ink is what is written in white on black
    picture = torch.rand(3, 60, 160, generator=torch.Generator().manual_seed(0))
    ink = write(black(), "68", (9, 11)).image[0]
    assert ((ink > 0) & (ink < 1)).any()
    lettering, plain = write(picture, "68", (9, 11), value=(0.9, 0.2, 0.0)), write(black(), "68", (9, 11))
    assert torch.equal(lettering.boxes, plain.boxes)
    for channel, value in zip(range(3), (0.9, 0.2, 0.0), strict=True):
        torch.testing.assert_close(lettering.image[channel], picture[channel] * (1 - ink) + value * ink)
    assert torch.equal(lettering.image[:, ink == 0], picture[:, ink == 0])
    assert torch.equal(lettering.mask, ink >= 0.5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value", [0.0, 0.4, 1.0, 1])
def test_one_value_serves_every_channel(channels, value):
    lettering = write(torch.full((channels, 60, 160), 0.7), "8", (9, 11), value=value)
    assert lettering.image.shape == (channels, 60, 160)
    ink = write(black(), "8", (9, 11)).image
    torch.testing.assert_close(lettering.image, (0.7 * (1 - ink) + value * ink).expand(channels, -1, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_picture_is_left_as_it_is(dtype):
    picture = torch.rand(3, 60, 160, dtype=dtype)
    copy = picture.clone()
    lettering = write(picture, "5", (5, 5))
    assert torch.equal(picture, copy)
    assert lettering.image.dtype == torch.float32
    lettering.image.zero_()
    assert torch.equal(picture, copy)


def test_writing_on_writing():
    first = write(black(), "1", (5, 5))
    second = write(first.image, "2", (5, 60))
    assert torch.equal(second.image, torch.maximum(first.image, write(black(), "2", (5, 60)).image))


def test_writing_may_end_at_the_rim():
    lettering = write(black(), "80", (5, 5))
    _, _, right, low = lettering.boxes.amax(0).int().tolist()
    for tall, wide in [(low - 1, 160), (60, right - 1), (low - 1, right - 1)]:
        with pytest.raises(ValueError, match="must stay inside the picture"):
            write(black(tall, wide), "80", (5, 5))
    tall, wide = low + 1, right + 4  # a character's own distance to the next one counts as writing
    cut = write(black(tall, wide), "80", (5, 5))
    assert torch.equal(cut.boxes, lettering.boxes)
    assert torch.equal(cut.image, lettering.image[:, :tall, :wide])


def test_narrow_characters_stand_closer():
    narrow, wide = (write(black(), text, (5, 5)).boxes for text in ("ll", "WW"))
    assert (narrow[1, 0] - narrow[0, 0]) * 2 < wide[1, 0] - wide[0, 0]


def test_where_characters_touch_nothing_is_brighter_than_the_writing():
    lettering = write(black(), "fjfjf", (5, 20), font="STIX General Bold Italic")
    assert lettering.image.max() <= 1


@pytest.mark.parametrize(
    ("text", "corner"),
    [
        ("1234567890123", (5, 5)),  # wider than the picture
        ("7", (5, 155)),
        ("7", (5, 900)),
        ("7", (45, 5)),
        ("7", (900, 5)),
        ("ag", (43, 5)),  # its tail alone
        ("1 1", (5, 140)),  # the second one alone
    ],
)
def test_writing_that_leaves_the_picture_is_refused(text, corner):
    with pytest.raises(ValueError, match="text must stay inside the picture of 60 x 160"):
        write(black(), text, corner)


@EACH_FONT
@pytest.mark.parametrize("text", ["j", "f"])
def test_writing_that_leaves_the_picture_on_the_left_is_refused(font, text):
    # Some letters begin before their place: at the rim they would be cut off.
    whole = write(black(), text, (5, 30), font=font)
    if (whole.image[0, :, :30] > 0).any():
        with pytest.raises(ValueError, match="must stay inside the picture"):
            write(black(), text, (5, 0), font=font)
    else:
        assert torch.equal(write(black(), text, (5, 0), font=font).image[:, :, :130], whole.image[:, :, 30:])


@pytest.mark.parametrize(("text", "font"), [(".", "DejaVu Sans"), ("3", "STIX General")])
def test_writing_too_fine_to_see_is_refused_for_what_it_is(font, text):
    # No pixel reaches half: there is no stroke to put a box around; but it lies well inside the picture.
    with pytest.raises(ValueError, match="height must cover half of a pixel"):
        write(black(), text, (20, 20), font=font, height=4)


def test_what_cannot_be_written_is_refused():
    good = {"image": black(), "text": "7", "corner": (5, 5)}
    refuses(write, good, image=torch.zeros(2, 60, 160), font="Arial", text=" ", corner=(-1, 5), height=3.9, value=-0.1)
    refuses(write, good, image=torch.full((1, 60, 160), 3.0), text="1\x852", corner=(5, 5, 5), height=1001)
    refuses(write, good, value=(1.0, 0.0, 0.0))
    refuses(write, good | {"image": black(channels=3)}, value=(1.0, 0.0, 2.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_pictures_keep_their_device():
    lettering, expected = write(black().cuda(), "7", (5, 5)), write(black(), "7", (5, 5))
    assert lettering.image.is_cuda
    assert torch.equal(lettering.image.cpu(), expected.image)


def test_numbers_are_read_by_the_books_network():
    # What it is there for: numbers on a picture, read box by box.
    from helpers.networks import load
    from helpers.similarnet import read_hotspots

    lettering = data.write(black(60, 200), "3 4 7 2 0", (15, 15), height=24, font="DejaVu Sans")
    labels = read_hotspots(load("lenet-mnist"), lettering.image[None], lettering.boxes[None]).labels[0]
    assert (labels == torch.tensor([3, 4, 7, 2, 0])).sum() >= 4
