import pytest
from support.canvases import DRAWN

from helpers.experiments.similarnet import canvases
from helpers.networks import load


@pytest.fixture(scope="session")
def network():
    return load("lenet-mnist", "cpu")


@pytest.fixture(scope="session")
def gap():
    return load("digits-gap", "cpu")


@pytest.fixture
def no_mnist(monkeypatch):
    """Drawn digits in place of MNIST's test images."""
    monkeypatch.setattr(canvases, "_test_digits", lambda: (DRAWN.images, DRAWN.labels))
