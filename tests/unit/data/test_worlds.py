"""The embedded worlds: the same bytes for the same seed, no network, arguments that are refused."""

import hashlib

import numpy as np
import pytest
import torch
from support.refuses import refuses

from helpers import data


def sha256(*tensors: torch.Tensor) -> str:
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return state.hexdigest()


PINNED = {
    "digits": (lambda: data.digits(64, seed=5), "fa20eebfc313d321f33d7c576b0dec331f0f2ed7abe5cc2b162ea55a1830de89"),
    "digits on a large canvas": (
        lambda: data.digits(20, seed=5, size=56, rotate=40, fonts="STIX General"),
        "2db1f8d5475393ed18fc99d30beb4568b02e0e642dfd3b530d255a4a59dca558",
    ),
    "blank": (
        lambda: data.digit_scenes(20, seed=7, digits=(1, 4)),
        "ec703f02370b46fe27036893b27a76d2c02f1a3b3979cae99a9ecdb629f606fa",
    ),
    "noise": (
        lambda: data.digit_scenes(20, seed=7, background="noise"),
        "45254df3d47dd602e288caae64ea998497858a61a40e1ef9f3f847ca0f926ff4",
    ),
    "fragments": (
        lambda: data.digit_scenes(20, seed=7, background="fragments"),
        "9b126331d00440c678da849cb31be37f685441d230f7882b7545d2380e14ef7d",
    ),
    "scenes": (lambda: data.scenes(64, seed=5), "2be13f910a7b20b0366b81e140bd767d9c8c6ec376ad1d36840c1cf15223ca12"),
    "several objects": (
        lambda: data.scenes(32, seed=6, objects=(1, 4), text=True, size=96, bias=0.5),
        "66c281fcd09e44eef16022f9eba344971c1b53cb6f31d54743a1895db5f417f1",
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_bytes_are_pinned(name):
    """These hashes are the same with numpy 1.26, matplotlib 3.8 and scikit-image 0.22 as with the newest."""
    make, expected = PINNED[name]
    assert sha256(*make()) == expected


@pytest.mark.parametrize("make", [data.digits, data.scenes, lambda n: data.scenes(n, objects=(1, 3), text=True)])
def test_first_images_do_not_depend_on_n(make):
    many, few = make(300), make(7)
    for a, b in zip(many, few, strict=True):
        torch.testing.assert_close(a[:7], b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("make", [data.digits, data.scenes, data.digit_scenes])
def test_seed_matters(make):
    assert not torch.equal(make(8, 0).images, make(8, 1).images)


def test_nothing_is_fine():
    assert data.digits(0).images.shape == (0, 1, 28, 28)
    assert data.scenes(0, objects=(1, 2)).boxes.shape == (0, 2, 4)
    assert data.digit_scenes(0).masks.shape == (0, 1, 84, 84)


def test_bad_arguments_are_named():
    refuses(
        data.digits, {"n": 1}, n=-1, seed=-1, size=3, fonts=["Comic Sans"], rotate=120, scale=(1.2, 0.8), stroke="bold"
    )
    refuses(data.digit_scenes, {"n": 1}, background="grass", digits=0)
    refuses(data.scenes, {"n": 1, "size": 32}, bias=1.5, objects=9, background_shift=-1)


def test_worlds_open_no_socket(monkeypatch):
    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    data.digits(1), data.scenes(1), data.digit_scenes(1), data.handwritten(), data.photo("coffee")
