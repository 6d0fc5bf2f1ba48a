"""Noisy displays of one digit: the noise's spectrum, pixels worked out by hand, and plain loops for the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.refuses import refuses

from helpers.data._displays import DISPLAY_PX, Displays, band_noise, noisy_displays


def spectrum(image):
    """Amplitudes of a texture (S, S), and the frequency of each in cycles a pixel."""
    side = image.shape[-1]
    steps = np.fft.fftfreq(side)
    return np.abs(np.fft.fft2(image.double().numpy())), np.hypot(steps[:, None], steps[None, :])


# --- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"size": 33}, {"frequency": 0.25, "bandwidth": 0.02}, {"frequency": 0.5}])
def test_noise_is_white_noise_with_the_amplitudes_of_the_formula(settings):
    noise = band_noise(2, 3, **settings)
    size, frequency = settings.get("size", 128), settings.get("frequency", 0.1)
    bandwidth = settings.get("bandwidth", 0.1)
    assert noise.shape == (2, size, size)
    assert noise.dtype == torch.float32
    white = torch.randn(2, size, size, generator=torch.Generator().manual_seed(3)).double().numpy()
    for first, start in zip(noise, white, strict=True):
        steps = np.fft.fftfreq(size)
        f = np.hypot(steps[:, None], steps)
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = np.exp(-(np.log(f / frequency) ** 2) / (2 * np.log(1 + bandwidth / frequency) ** 2)) / f
        expected[0, 0] = 0
        texture = np.fft.ifft2(np.fft.fft2(start) * expected).real
        texture /= np.abs(texture).max()
        np.testing.assert_allclose(first.numpy(), texture, atol=1e-4)


def test_the_same_seed_draws_the_same_noise():
    assert band_noise(2, 5).equal(band_noise(2, 5))
    assert not band_noise(2, 5).equal(band_noise(2, 6))
    assert not band_noise(2, 5)[0].equal(band_noise(2, 5)[1])
    before = torch.random.get_rng_state()
    band_noise(1, np.int64(0))
    assert torch.random.get_rng_state().equal(before)  # the reader's own random numbers are left alone


# --- displays ---------------------------------------------------------------------------------------------------------


def digits(n=3, height=6, width=4, seed=0):
    return torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(seed))


def in_the_disc(size):
    away = torch.arange(size) + 0.5 - size / 2
    return away[:, None] ** 2 + away**2 <= size**2 / 4


def test_pixels_worked_out_by_hand():
    digit = torch.tensor([[0.0, 0.5], [0.75, 1.0]])[None, None]
    displays = noisy_displays(digit, places=torch.tensor([[3, -2]]), size=16, contrast=0.4, noise=0.0)
    expected = torch.full((16, 16), 0.5)
    # The digit's 2 x 2 pixels lie around (8 + 3, 8 - 2): columns 10 and 11, rows 5 and 6.
    # 0.5 + 0.4 (0.75 - 0.5) and 0.5 + 0.4 (1 - 0.5); 0 and 0.5 are no strokes
    expected[6, 10], expected[6, 11] = 0.6, 0.7
    torch.testing.assert_close(displays.images, expected[None, None])
    assert displays.places.tolist() == [[3, -2]]
    assert displays.contrasts.tolist() == pytest.approx([0.4])


@pytest.mark.parametrize(("size", "noise"), [(16, 0.75), (64, 0.2), (128, 0.75), (160, 0.2)])
def test_every_pixel_equals_a_plain_loop(size, noise):
    images, places = digits(), torch.tensor([[0, 0], [5, -7], [size // 2, -size // 2]])
    displays = noisy_displays(images, 4, places=places, size=size, noise=noise)
    # Without strokes the same seed draws the same ground.
    ground = noisy_displays(torch.zeros_like(images), 4, places=places, size=size, noise=noise).images
    disc = in_the_disc(size)
    expected = ground.clone()
    for n, i, j in np.ndindex(3, 6, 4):
        row, column = places[n, 1].item() + size // 2 - 3 + i, places[n, 0].item() + size // 2 - 2 + j
        value = images[n, 0, i, j].item()
        if value > 0.5 and 0 <= row < size and 0 <= column < size and disc[row, column]:
            stroke = 0.5 + displays.contrasts[n].item() * (value - 0.5)
            expected[n, 0, row, column] = max(expected[n, 0, row, column].item(), stroke)
    torch.testing.assert_close(displays.images, expected)
    assert (expected != ground).any()
    assert (ground[:, 0, ~disc] == 0.5).all()
    assert ground[:, 0, disc].std() > 0.02 * noise / 0.2
    assert displays.images.dtype == torch.float32
    assert displays.images.shape == (3, 1, size, size)


def test_digits_of_odd_sides_lie_around_the_pixel_below_and_right_of_the_centre():
    displays = noisy_displays(torch.ones(1, 1, 3, 5), places=torch.zeros(1, 2, dtype=torch.long), size=16, noise=0)
    rows, columns = (displays.images[0, 0] > 0.5).nonzero().T
    assert sorted(set(rows.tolist())) == [7, 8, 9]
    assert sorted(set(columns.tolist())) == [6, 7, 8, 9, 10]


@pytest.mark.parametrize("size", [16, 20])
def test_a_display_no_larger_than_the_digits_is_a_window(size):
    images = torch.zeros(2, 1, 20, 10)
    displays = noisy_displays(images, 0, size=size)
    outside = displays.images[:, 0, ~in_the_disc(size)]
    assert (outside != 0.5).double().mean() > 0.9
    larger = noisy_displays(images, 0, size=22).images[:, 0, ~in_the_disc(22)]
    assert (larger == 0.5).all()
    opened = noisy_displays(torch.ones(1, 1, 16, 16), places=torch.zeros(1, 2, dtype=torch.long), size=16, noise=0)
    assert (opened.images > 0.5).all()  # all of the digit, no disc around it


@pytest.mark.parametrize("noise", [1.0, 0.75, 0.1, 0.0])
def test_noise_has_the_contrast_that_is_asked_for(noise):
    # A window of 128 pixels shows all of a field, and so its greatest value: 0.5 +- noise / 2.
    displays = noisy_displays(torch.zeros(4, 1, 128, 128), noise=noise).images
    torch.testing.assert_close((displays - 0.5).abs().amax((1, 2, 3)), torch.full((4,), noise / 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(displays.mean((1, 2, 3)), torch.full((4,), 0.5), atol=1e-5, rtol=0)


def test_every_display_has_noise_of_its_own():
    displays = noisy_displays(torch.zeros(300, 1, 16, 16), size=16).images  # more than the 128 fields
    assert len({first.numpy().tobytes() for first in displays}) == 300
    # Fields are shifted along both axes: 40 displays of the one field of a single call differ in rows and columns.
    rows = torch.stack([noisy_displays(torch.zeros(1, 1, 128, 128), seed).images[0, 0] for seed in range(2)])
    assert not rows[0].equal(rows[1])


def test_a_display_is_a_window_of_a_field_shifted_around(monkeypatch):
    import helpers.data._displays as module

    field = torch.arange(128 * 128.0).view(1, 128, 128) / 128**2 * 2 - 1  # every pixel tells its place
    monkeypatch.setattr(module, "band_noise", lambda n, seed, size: field)
    displays = noisy_displays(torch.zeros(60, 1, 30, 30), size=16, noise=1.0).images[:, 0]
    place = (displays.double() * 128**2).round().long()
    rows, columns = place // 128, place % 128
    assert (rows == rows[:, :, :1]).all()
    assert (columns == columns[:, :1]).all()
    for first in (rows[:, :, 0], columns[:, 0]):
        assert ((first.diff(dim=1) - 1) % 128 == 0).all()  # in order, and around the edge
        assert first[:, 0].min() < 20
        assert first[:, 0].max() > 108
        assert (first[:, 0] > 112).any()  # some lie across the edge


def test_a_large_display_has_noise_as_large():
    displays = noisy_displays(torch.zeros(1, 1, 160, 160), size=160, noise=1.0).images[0, 0]
    torch.testing.assert_close((displays - 0.5).abs().max(), torch.tensor(0.5), atol=1e-6, rtol=0)
    assert not displays[:32].allclose(displays[128:])  # a field of 128 would come around


def test_places_are_drawn_from_the_cut_normal_distribution():
    import scipy.stats

    many = noisy_displays(torch.zeros(20000, 1, 1, 1), size=16).places
    assert many.dtype == torch.int64
    distance = many.double().norm(dim=1).numpy()
    half = scipy.stats.truncnorm(0, 34 / 30, scale=30)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):  # whole pixels: to within one
        assert np.quantile(distance, quantile) == pytest.approx(half.ppf(quantile), abs=1)
    assert distance.mean() == pytest.approx(half.mean(), abs=0.5)
    assert distance.max() > 33
    assert distance.max() < 34.75  # 34, and rounding to whole pixels: sqrt(0.5^2 + 0.5^2) at most
    far = many[torch.as_tensor(distance > 5)].double()
    eighth = torch.atan2(far[:, 1], far[:, 0]).add(math.pi / 8).remainder(2 * math.pi).mul(4 / math.pi).long()
    share = torch.bincount(eighth % 8, minlength=8) / len(far)
    assert share.tolist() == pytest.approx([1 / 8] * 8, abs=0.02)


def test_contrasts_are_drawn_evenly_from_their_range():
    displays = noisy_displays(torch.ones(4000, 1, 1, 1), size=16, contrast=(0.2, 0.6), noise=0)
    assert displays.contrasts.dtype == torch.float32
    assert displays.contrasts.shape == (4000,)
    quarters = torch.histc(displays.contrasts, 4, 0.2, 0.6) / 4000
    assert quarters.tolist() == pytest.approx([0.25] * 4, abs=0.03)
    assert displays.contrasts.min() >= 0.2
    assert displays.contrasts.max() <= 0.6
    usual = noisy_displays(torch.ones(500, 1, 1, 1), size=16).contrasts
    assert usual.min() == pytest.approx(0.3, abs=0.02)
    assert usual.max() == pytest.approx(0.7, abs=0.02)


def test_displays_are_of_their_seed_and_leave_what_they_are_given_alone():
    images, places = digits(), torch.tensor([[0, 1], [2, 3], [4, 5]], dtype=torch.int32)
    unchanged, before = images.clone(), torch.random.get_rng_state()
    first, again = (noisy_displays(images, 7) for _ in range(2))
    assert isinstance(first, Displays)
    assert first.images.shape == (3, 1, DISPLAY_PX, DISPLAY_PX)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    other = noisy_displays(images, 8)
    assert not any(a.equal(b) for a, b in zip(first, other, strict=True))
    put = noisy_displays(images, 7, places=places).places
    assert put.dtype == torch.int64
    assert put.equal(places.long())
    assert images.equal(unchanged)
    assert torch.random.get_rng_state().equal(before)
    for dtype in (torch.float64, torch.float16):
        assert noisy_displays(images.to(dtype), 7).images.dtype == torch.float32
    torch.testing.assert_close(noisy_displays(images.double(), 7).images, first.images)


ONE = torch.ones(1, 1, 4, 4)


def test_bad_input_is_named():
    refuses(band_noise, {"n": 1}, n=0, seed=-1, size=7, frequency=0.51, bandwidth=0.0)
    places = torch.zeros(2, 2, dtype=torch.long)
    bad = {"seed": -1, "size": 14, "contrast": (0.5, 0.4), "noise": 1.5, "places": places}
    refuses(noisy_displays, {"digits": ONE}, digits=ONE.repeat(1, 3, 1, 1), **bad)
    refuses(noisy_displays, {"digits": ONE}, digits=ONE * 1.01, size=17)


# A narrow band may lie between the frequencies that a small texture can hold: numbers or a ValueError, but no NaN.
@pytest.mark.parametrize(
    "settings", [{"size": 8, "bandwidth": 0.001}, {"size": 16, "frequency": 0.01, "bandwidth": 0.001}]
)
def test_a_band_that_no_texture_of_the_size_holds_is_refused_or_drawn(settings):
    try:
        noise = band_noise(1, **settings)
    except ValueError as error:
        assert "bandwidth" in str(error)  # noqa: PT017 (either outcome will do)
    else:
        assert noise.isfinite().all()


@pytest.mark.parametrize(("dtype", "place"), [(torch.uint8, 200), (torch.int8, 60 + 40)])
def test_places_in_small_integers_do_not_wrap_around(dtype, place):
    small = torch.tensor([[place, 0]], dtype=dtype)
    displays = noisy_displays(ONE, places=small, noise=0, size=256)
    assert displays.images.equal(noisy_displays(ONE, places=small.long(), noise=0, size=256).images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_digits_may_lie_on_the_gpu():
    displays = noisy_displays(digits().cuda(), 3)
    assert displays.images.equal(noisy_displays(digits(), 3).images)


@pytest.mark.parametrize("settings", [{}, {"size": 8}, {"size": 65}, {"bandwidth": 0.02}, {"frequency": 0.4}])
def test_noise_has_mean_0_and_greatest_value_1(settings):
    noise = band_noise(3, 0, **settings)
    assert noise.mean((1, 2)).abs().max() < 1e-5
    torch.testing.assert_close(noise.abs().amax((1, 2)), torch.ones(3))


@pytest.mark.parametrize("frequency", [0.05, 0.1, 0.25])
def test_noise_has_its_frequency_in_all_orientations(frequency):
    noise = band_noise(20, 0, frequency=frequency, bandwidth=0.01)
    power = np.mean([spectrum(first)[0] ** 2 for first in noise], 0)
    _, f = spectrum(noise[0])
    assert (power * f).sum() / power.sum() == pytest.approx(frequency, rel=0.1)
    # Horizontal, vertical and both diagonal quarters get a quarter each: orientation, of half a turn.
    steps = np.fft.fftfreq(128)
    angle = np.arctan2(steps[:, None], steps[None, :]) % math.pi
    quarters = [power[(angle - k * math.pi / 4 + math.pi / 8) % math.pi < math.pi / 4].sum() for k in range(4)]
    assert np.array(quarters) / sum(quarters) == pytest.approx([0.25] * 4, abs=0.06)


def test_noise_is_periodic_at_its_edges():
    noise = band_noise(8, 1)
    inner = noise.diff(dim=-1).abs()
    assert (noise[:, :, 0] - noise[:, :, -1]).abs().mean() == pytest.approx(inner.mean().item(), rel=0.25)
    assert (noise[:, 0] - noise[:, -1]).abs().mean() == pytest.approx(noise.diff(dim=-2).abs().mean().item(), rel=0.25)
