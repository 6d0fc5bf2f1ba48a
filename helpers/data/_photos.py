"""World three, photographs inside the scikit-image and scikit-learn wheels: loaded in place, never copied."""

import difflib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

_FILES = {
    "astronaut": "skimage/data/astronaut.png",
    "brick": "skimage/data/brick.png",
    "camera": "skimage/data/camera.png",
    "cat": "skimage/data/chelsea.png",
    "china": "sklearn/datasets/images/china.jpg",
    "coffee": "skimage/data/coffee.png",
    "flower": "sklearn/datasets/images/flower.jpg",
    "grass": "skimage/data/grass.png",
    "gravel": "skimage/data/gravel.png",
    "motorcycle": "skimage/data/motorcycle_left.png",
    "page": "skimage/data/page.png",
    "retina": "skimage/data/retina.jpg",
    "rocket": "skimage/data/rocket.jpg",
    "text": "skimage/data/text.png",
}
PHOTOS = tuple(_FILES)


@lru_cache(maxsize=4)
def _package_folder(package: str) -> Path:
    spec = find_spec(package)  # finds the folder without importing the package, which would take a second
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{package} is not installed, and the photographs lie in it: pip install {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def _open(name: str) -> Image.Image:
    if name not in _FILES:
        near = difflib.get_close_matches(str(name), PHOTOS, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"name must be one of {', '.join(PHOTOS)}, got {name!r}{hint}")
    package, rest = _FILES[name].split("/", 1)
    path = _package_folder(package) / rest
    if not path.exists():
        raise FileNotFoundError(f"{_FILES[name]} is missing: this build of {package} comes without its photographs")
    return Image.open(path)


def gray_bytes(name: str) -> NDArray[np.uint8]:
    """Return a gray photograph as (H, W) bytes, exactly as stored."""
    return np.asarray(_open(name).convert("L"))


def photo(name: str) -> torch.Tensor:
    """Load a photograph from the installed wheels.

    Args:
        name: one of `PHOTOS`.

    Returns:
        (3, H, W) float32 in [0, 1]; gray pictures have three equal channels.

    Raises:
        ValueError: an unknown name; the message lists the near ones.
    """
    pixels = np.array(_open(name).convert("RGB"))  # (H, W, 3) bytes
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255
