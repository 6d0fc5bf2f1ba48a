"""torchvision's ImageNet networks: from torch's cache, downloaded only where the caller allows it."""

from __future__ import annotations

import difflib
import hashlib
import io
import urllib.error
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from helpers.networks._card import Card, WeightsError

PREFIX = "torchvision/"
FILES = (".safetensors", ".pth", ".pt")


class WeightsMissing(FileNotFoundError):
    """torchvision's weights are not in torch's cache; the message says how to get them."""


def load(name: str, *, download: bool = False) -> nn.Module:
    """One of torchvision's classification networks with ImageNet weights, on the CPU.

    The weights are torchvision's default ones from torch's cache; else those that were imported with the data
    (`python -m helpers.data import`, below `data_dir()`), if there are any; else they are downloaded, if they may be.

    Args:
        name: "torchvision/resnet18" and the like; or a weight file, `is_file`.
        download: fetch the weights where they are not there.

    Raises:
        ValueError: torchvision has no such classification network.
        WeightsMissing: the weights are not there and may not be fetched.
        WeightsError: the file is damaged, or holds another network.
    """
    if is_file(name):
        return _from_file(Path(name), Path(name).stem.split("-")[0], name)
    from helpers.data import data_dir  # here: networks of the book need no data

    short = name.removeprefix(PREFIX)
    weights = _default_weights(short, name)
    path = cached(weights.url)
    own = None if path.exists() else next(iter(sorted(data_dir().glob(f"*/{short}.safetensors"))), None)
    if own is not None:
        return _from_file(own, short, name)
    if not path.exists() and not download:
        raise WeightsMissing(_how_to_get(name, weights.url, path))
    digest, is_published = _fetched(name, weights.url, path)
    from torchvision import models

    try:
        # torchvision's own loading, which knows what each of its files needs; the file is there, so nothing is fetched.
        with torch.random.fork_rng(devices=[]):
            network = models.get_model(short, weights=weights, progress=False)
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise WeightsError(f"{path.name} in torch's cache holds no {short}: remove it and get it again") from error
    network.card = _card(name, network, weights, path, digest, is_published)  # ty: ignore[invalid-assignment] -- a note
    return network


def is_file(name: str) -> bool:
    """Whether a name is that of a weight file, such as "runs/squeezenet1_0-mine.safetensors"."""
    return Path(name).suffix in FILES


def _from_file(path: Path, short: str, name: str) -> nn.Module:
    """A network of torchvision's architecture `short` with the weights of a file, in torchvision's parameter names."""
    weights = _default_weights(short, name)
    from torchvision import models

    try:
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            state = safetensors.torch.load(content)
        else:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsMissing(f"{path} cannot be read ({error.strerror})") from error
    except Exception as error:  # whatever unpickling some other file ends in
        raise WeightsError(f"{path.name} is damaged or no weight file: get it again") from error
    try:
        with torch.random.fork_rng(devices=[]):
            network = models.get_model(short, weights=None)
        network.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        )
    except (RuntimeError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"{path.name} holds no {short} with its 1,000 classes ({str(error).splitlines()[0]})"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    card = _card(name, network, weights, path, digest, is_published=False)
    network.card = replace(card, command=path.name)  # ty: ignore[invalid-assignment] -- a note
    return network


def _default_weights(short: str, name: str) -> Any:
    """What torchvision says of a network's default weights; ValueError where it has no such network."""
    from torchvision import models  # imported here: it takes seconds, and only this function needs it

    known = models.list_models(module=models)
    if short not in known:
        near = difflib.get_close_matches(short, known, n=3) or ["resnet18", "vgg16", "squeezenet1_1"]
        raise ValueError(f"name must be torchvision/ and one of its networks, such as {', '.join(near)}, got {name!r}")
    weights: Any = models.get_model_weights(short)
    return weights.DEFAULT


def cached(url: str) -> Path:
    """Where torch's cache keeps a weight file: below $TORCH_HOME, else the user's cache folder."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])


def _how_to_get(name: str, url: str, path: Path) -> str:
    return (
        f"the ImageNet weights of {name} are not in torch's cache. To get them: load({name!r}, download=True) on a "
        f"machine with internet; or fetch {url} yourself and put it, under its name, into {path.parent} "
        "(torch.hub.get_dir() + '/checkpoints'; $TORCH_HOME moves it)"
    )


def _fetched(name: str, url: str, path: Path) -> tuple[str, bool]:
    """The sha256 of a weight file that holds tensors alone, and whether it is that of the file torchvision publishes.

    It is downloaded where torch's cache does not hold it. torch compares hashes when it downloads, and trusts its cache
    afterwards. So does this, but it says so when a file is not the published one.
    """
    try:
        torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise WeightsMissing(f"no download ({error}): {_how_to_get(name, url, path)}") from error
    except Exception as error:  # whatever unpickling some other file ends in
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path.name} in torch's cache is damaged or no weight file ({reason}): remove it, fetch {url}"
        ) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    published = torch.hub.HASH_REGEX.search(path.name)  # torchvision's files are named after their hash
    is_published = published is None or digest.startswith(published.group(1))
    if not is_published:
        warnings.warn(f"{path.name} is not the file torchvision publishes: its sha256 differs", stacklevel=4)
    return digest, is_published


def _card(name: str, network: nn.Module, weights: Any, path: Path, digest: str, is_published: bool) -> Card:
    shown, meta = weights.transforms(), weights.meta
    top1 = next(iter(meta.get("_metrics", {}).values()), {}).get("acc@1", float("nan")) / 100
    side = shown.crop_size[0]
    return Card(
        name=name,
        about="photographs, ImageNet",
        architecture=type(network).__name__,
        arguments={},
        classes=tuple(meta["categories"]),
        mean=tuple(shown.mean),
        std=tuple(shown.std),
        view="whole",
        size=(side, side),
        accuracy=top1 if is_published else float("nan"),
        test="ImageNet validation, by torchvision" if is_published else "",
        parameters=sum(p.numel() for p in network.parameters()),
        bytes=path.stat().st_size,
        sha256=digest,
        command=f"torchvision, {weights}",
    )
