import math
import random
import re
import time

import numpy as np
import pytest
import torch

from helpers.device import best_device, median_time, seed_everything, timed, usable_device, widest_float


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_order_is_cuda_mps_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("HELPERS_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == torch.device(expected)


@pytest.mark.parametrize("name", ["toaster", "cuda:99", "meta:x"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setenv("HELPERS_DEVICE", name)
    with pytest.raises(ValueError, match=f"^HELPERS_DEVICE must be one that is there .*, got '{name}'"):
        best_device()
    with pytest.raises(ValueError, match=f"^--device must be one that is there .*, got '{name}'"):
        usable_device(name, "--device")


def test_a_device_that_is_there_is_given_back(monkeypatch):
    assert usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setenv("HELPERS_DEVICE", "meta")
    assert best_device() == usable_device(None) == torch.device("meta")


def _draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_one_seed_serves_python_numpy_and_torch():
    generator = seed_everything(7)
    first, own = _draws(), torch.rand(3, generator=generator)
    assert torch.equal(own, torch.rand(3, generator=torch.Generator().manual_seed(7)))
    assert seed_everything(np.int64(7)).initial_seed() == 7
    assert _draws() == first
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match="seed must be an integer in 0"):
            seed_everything(seed)
    assert seed_everything(2**32 - 1).initial_seed() == 2**32 - 1
    seed_everything(8)
    assert all(a != b for a, b in zip(_draws(), first, strict=True))


def test_timed_measures_and_speaks_only_when_asked(monkeypatch, capsys):
    ticks = iter([10.0, 12.5, 20.0, 20.25])
    monkeypatch.setattr("helpers.device.time.perf_counter", lambda: next(ticks))
    with timed() as silent:
        assert math.isnan(silent.seconds)
    assert silent.seconds == 2.5
    assert capsys.readouterr().out == ""
    with timed("training"):
        pass
    assert capsys.readouterr().out == "training: 0.25 s\n"
    cpu_time = iter([1.0, 4.0])
    with timed(clock=lambda: next(cpu_time)) as timing:
        pass
    assert timing.seconds == 3.0


def test_timed_measures_also_when_the_block_raises(capsys):
    with pytest.raises(KeyError), timed("broken") as timing:
        raise KeyError
    assert timing.seconds >= 0
    assert re.fullmatch(r"broken: \d+\.\d\d s\n", capsys.readouterr().out)


def test_timed_waits_for_the_gpu_at_both_ends(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    with timed():
        assert len(waits) == 1
    assert len(waits) == 2


def test_mps_has_no_float64():
    assert widest_float(torch.device("cpu")) == torch.float64
    assert widest_float(torch.device("cuda:1")) == torch.float64
    assert widest_float(torch.device("mps")) == torch.float32


def test_a_median_time_is_that_of_the_middle_call():
    naps = iter([0.3, 0.0, 0.0])
    assert median_time(lambda: time.sleep(next(naps)), times=3) < 0.3
    naps = iter([0.0, 0.05, 0.05])
    assert median_time(lambda: time.sleep(next(naps)), times=3) >= 0.05
    calls = []
    median_time(lambda: calls.append(1), times=4)
    assert len(calls) == 4
    with pytest.raises(ValueError, match="times"):
        median_time(lambda: None, times=0)
